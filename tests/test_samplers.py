"""The sampler, on flows whose end is known: straight lines, and data N(0, 1)."""

import itertools
import math

import pytest
import torch

from sora_edu.diffusion import add_noise, clean_from_velocity, velocity
from sora_edu.samplers import euler, time_grid


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_the_grid_goes_evenly_from_noise_to_data(steps):
    times = time_grid(steps)
    assert times.dtype == torch.float32
    torch.testing.assert_close(times, torch.tensor([1 - i / steps for i in range(steps + 1)]))
    assert times[0] == 1 and times[-1] == 0


def test_a_shifted_grid_spends_its_steps_near_noise():
    times = time_grid(4, shift=3.0)
    torch.testing.assert_close(times, torch.tensor([1, 0.9, 0.75, 0.5, 0]))


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_explained(steps):
    with pytest.raises(ValueError, match=f"steps={steps}: at least one step"):
        time_grid(steps)


@pytest.mark.parametrize("times", [time_grid(1), time_grid(9, 3.0), torch.tensor([1.0, 0.3, 0.05, 0.0])])
def test_straight_lines_are_followed_exactly_by_any_steps(times, generator):
    x0, noise = torch.randn(2, 3, 2, 4, generator=generator).double()
    end = euler(lambda x, t: velocity(x0, noise), noise, times.double())
    torch.testing.assert_close(end, x0)


def gaussian_velocity(x, t):
    """E[eps - x_0 | x_t = x] when the data are N(0, 1): both are normal, so it is linear in x."""
    t = t[:, None]
    return (2 * t - 1) / ((1 - t) ** 2 + t**2) * x


@pytest.mark.parametrize(("steps", "error"), [(10, 0.153), (20, 0.0788), (40, 0.0400), (80, 0.0202)])
def test_on_gaussian_data_it_is_ddim_and_of_first_order(steps, error):
    """Each step is x_s = alpha_s E[x_0 | x_t] + sigma_s E[eps | x_t]; the exact flow scales by deviations."""
    grid, x = [0.99 - 0.98 * i / steps for i in range(steps + 1)], 1.3
    for t, s in itertools.pairwise(grid):
        x *= ((1 - s) * (1 - t) + s * t) / ((1 - t) ** 2 + t**2)
    start, times = torch.full((1, 1), 1.3, dtype=torch.float64), torch.tensor(grid, dtype=torch.float64)
    mine = euler(gaussian_velocity, start, times).item()
    assert mine == pytest.approx(x)
    exact = 1.3 * math.hypot(0.99, 0.01) / math.hypot(0.01, 0.99)
    assert abs(mine - exact) == pytest.approx(error, rel=0.01)


def test_a_step_is_the_ddim_step_of_the_straight_line(generator):
    """x_s = alpha_s x_0 + sigma_s eps, both guessed at t; the same as ((t - s) x_0 + s x_t) / t."""
    x = torch.randn(3, 1, generator=generator).double()
    t, s = 0.7, 0.4
    here = torch.full((3,), t, dtype=torch.float64)
    u = gaussian_velocity(x, here)
    x0, noise = clean_from_velocity(x, u, here), x + (1 - t) * u
    mine = euler(gaussian_velocity, x, torch.tensor([t, s], dtype=torch.float64))
    torch.testing.assert_close(mine, add_noise(x0, noise, torch.full_like(here, s)))
    torch.testing.assert_close(mine, ((t - s) * x0 + s * x) / t)


def test_the_velocity_is_asked_once_a_step_with_a_time_for_each_sample(generator):
    times, asked, told = time_grid(3), [], []

    def field(x, t):
        asked.append(t)
        return torch.ones_like(x)

    noise = torch.randn(5, 2, generator=generator)
    kept = noise.clone()
    end = euler(field, noise, times, lambda step, x: told.append((step, x.clone())))
    assert [t.tolist() for t in asked] == [[time.item()] * 5 for time in times[:-1]]
    assert [step for step, _ in told] == [0, 1, 2]
    torch.testing.assert_close(told[0][1], noise - 1 / 3)
    assert torch.equal(told[-1][1], end) and torch.equal(noise, kept)
