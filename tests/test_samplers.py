"""The samplers, where the end is known: straight lines, single pictures, and data N(0, 1)."""

import itertools
import math

import jaxtyping
import pytest
import torch

from sora_edu.diffusion import (
    TARGETS,
    add_noise,
    alpha_bars,
    clean_from_velocity,
    cosine_levels,
    flow_levels,
    linear_betas,
    linear_levels,
    make_target,
    noise_from,
    velocity,
    zero_terminal_snr,
)
from sora_edu.samplers import (
    ddim,
    ddpm,
    dpm_solver_pp_2m,
    euler,
    heun,
    make_grid,
    power_times,
    released_grid,
    start_from,
    time_grid,
)


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


# --- samplers by levels ----------------------------------------------------------------------------------

BY_LEVELS = {"ddim": ddim, "dpm_solver_pp_2m": dpm_solver_pp_2m}


def gaussian_guess(x, t):
    """E[x_0 | x_t = x] when the data are N(0, 1), on the straight line."""
    t = t[:, None]
    return (1 - t) / ((1 - t) ** 2 + t**2) * x


def gaussian_error(sampler, steps):
    """From 1.3 at t = 0.99 to t = 0.01 in steps uniform in t: distance from the exact end."""
    grid = make_grid(torch.linspace(0.99, 0.01, steps + 1, dtype=torch.float64))
    end = sampler(gaussian_guess, torch.full((1, 1), 1.3, dtype=torch.float64), grid, "x0").item()
    return abs(end - 1.3 * math.hypot(0.99, 0.01) / math.hypot(0.01, 0.99))


TABLE = {
    "ddim": {10: 0.153, 20: 0.0788, 40: 0.0400, 80: 0.0202},
    "dpm_solver_pp_2m": {10: 0.0749, 20: 0.0147, 40: 0.00276, 80: 0.00054},
}


@pytest.mark.parametrize("name", TABLE)
def test_errors_on_gaussian_data_are_those_of_the_table(name):
    for steps, error in TABLE[name].items():
        assert gaussian_error(BY_LEVELS[name], steps) == pytest.approx(error, rel=0.01)


def test_ddim_is_of_first_order_and_dpm_solver_of_second():
    def order(name):
        return math.log2(gaussian_error(BY_LEVELS[name], 320) / gaussian_error(BY_LEVELS[name], 640))

    assert order("ddim") == pytest.approx(1, abs=0.05)
    assert order("dpm_solver_pp_2m") >= 1.8
    # In the table's range already:
    assert math.log2(TABLE["dpm_solver_pp_2m"][10] / TABLE["dpm_solver_pp_2m"][80]) / 3 >= 1.8
    assert math.log2(gaussian_error(dpm_solver_pp_2m, 10) / gaussian_error(dpm_solver_pp_2m, 80)) / 3 >= 1.8


def test_heun_is_of_second_order():
    """Not over the whole way: its two halves mirror each other, and their errors cancel to third order."""

    def error(steps):
        times = torch.linspace(0.99, 0.3, steps + 1, dtype=torch.float64)
        end = heun(gaussian_velocity, torch.full((1, 1), 1.3, dtype=torch.float64), times).item()
        return abs(end - 1.3 * math.hypot(0.7, 0.3) / math.hypot(0.01, 0.99))

    assert math.log2(error(80) / error(160)) == pytest.approx(2, abs=0.1)


def test_on_the_straight_line_ddim_is_euler_and_dpm_solvers_first_step(generator):
    x = torch.randn(3, 1, generator=generator).double()
    times = torch.tensor([0.9, 0.6, 0.2], dtype=torch.float64)
    by_levels = ddim(gaussian_guess, x, make_grid(times), "x0")
    torch.testing.assert_close(by_levels, euler(gaussian_velocity, x, times))
    torch.testing.assert_close(by_levels, ddim(gaussian_velocity, x, make_grid(times), "flow"))
    t, s = 0.9, 0.6
    x0 = gaussian_guess(x, torch.full((3,), t).double())
    once = dpm_solver_pp_2m(gaussian_guess, x, make_grid(times[:2]), "x0")
    torch.testing.assert_close(once, ((t - s) * x0 + s * x) / t)


@pytest.mark.parametrize("levels", [flow_levels, cosine_levels, linear_levels])
@pytest.mark.parametrize("sampler", [ddim, ddpm, dpm_solver_pp_2m])
def test_a_known_picture_is_reached_from_any_noise(sampler, levels, generator):
    """A network that always answers with one picture leads to it, whatever the schedule and the steps."""
    picture = torch.randn(2, 3, generator=generator).double()
    noise = torch.randn(2, 3, generator=generator).double()
    for steps in (1, 2, 9):
        end = sampler(lambda x, t: picture, noise, make_grid(steps, levels), "x0")
        torch.testing.assert_close(end, picture)


@pytest.mark.parametrize("levels", [cosine_levels, linear_levels, flow_levels])
def test_all_targets_walk_the_same_way(levels, generator):
    noise = torch.randn(4, 1, generator=generator).double()
    grid = make_grid(torch.linspace(0.95, 0.05, 7, dtype=torch.float64), levels)

    def network(target):
        def predict(x, t):
            alpha, sigma = levels(t)
            x0 = torch.tanh(x)
            return make_target(x0, noise_from(x, x0, alpha, sigma, "x0"), alpha, sigma, target)

        return predict

    for sampler in (ddim, dpm_solver_pp_2m):
        ends = [sampler(network(target), noise, grid, target) for target in TARGETS]
        for end in ends[1:]:
            torch.testing.assert_close(end, ends[0])


def test_ddpm_keeps_the_distribution_of_gaussian_data(generator):
    """With the exact guess and many steps, 20,000 walks end with the data's mean and variance."""
    noise = torch.randn(20000, 1, generator=generator, dtype=torch.float64)

    def guess(x, t):  # data N(1, 0.25)
        alpha, sigma = (level[:, None] for level in cosine_levels(t))
        return 1 + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x - alpha)

    end = ddpm(guess, noise, make_grid(200, cosine_levels), "x0", generator)
    assert end.mean().item() == pytest.approx(1, abs=0.02)
    assert end.var().item() == pytest.approx(0.25, rel=0.05)


def test_ddpm_draws_from_its_generator_alone(generator):
    noise = torch.randn(2, 3, generator=generator)
    before = torch.get_rng_state()
    first = ddpm(gaussian_guess, noise, make_grid(5), "x0", generator.manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, ddpm(gaussian_guess, noise, make_grid(5), "x0", generator.manual_seed(1)))
    assert not torch.equal(first, ddpm(gaussian_guess, noise, make_grid(5), "x0", generator))


def test_released_grids_begin_at_the_last_level_and_end_clean():
    bars = alpha_bars(linear_betas())
    grid = released_grid(bars, 20)
    assert (1000 * grid.times).round().long().tolist() == [*range(999, 0, -50), 0]
    torch.testing.assert_close(grid.alpha[:2], torch.stack([bars[999], bars[949]]).sqrt())
    assert grid.alpha[-1] == 1 and grid.sigma[-1] == 0
    assert len(released_grid(bars, 1000).times) == 1001
    assert released_grid(zero_terminal_snr(bars), 3).alpha[0] == 0


def test_heun_asks_twice_a_step_and_never_at_clean_data(generator):
    asked = []

    def field(x, t):
        asked.append(round(t[0].item(), 3))
        return x

    heun(field, torch.randn(2, 3, generator=generator), time_grid(2))
    assert asked == [1, 0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sampler", [ddim, ddpm, dpm_solver_pp_2m])
def test_samples_have_the_precision_of_their_noise(sampler, dtype, generator):
    noise = torch.randn(2, 3, generator=generator, dtype=dtype)
    seen = []

    def network(x, t):
        seen.append(t.dtype)
        return x

    assert sampler(network, noise, make_grid(4), "flow").dtype == dtype
    assert set(seen) == {torch.float32}


def test_an_edit_starts_on_the_line_and_goes_on_from_there():
    """With the velocity of the very noise that was added, what comes out is the clean data."""
    clean, noise = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for strength, left in ((0.3, [0.3, 0.2, 0.0]), (0.2, [0.2, 0.0]), (1.0, [1.0, 0.6, 0.2, 0.0])):
        x, times = start_from(clean, noise, strength, torch.tensor([1.0, 0.6, 0.2, 0.0]))
        assert times.tolist() == pytest.approx(left)
        torch.testing.assert_close(x, torch.lerp(clean, noise, strength))
        torch.testing.assert_close(euler(lambda x, t: noise - clean, x, times), clean)


NOISE = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_grid(0), "steps=0: at least one step"),
        (lambda: make_grid(torch.tensor([0.2, 0.7])), "sigma must fall"),
        (lambda: make_grid(torch.tensor([0.5])), "n at least 2"),
        (lambda: make_grid(torch.tensor([1.2, 0.5])), "t runs from 0.5 to 1.2"),
        (lambda: released_grid(alpha_bars(linear_betas(10)), 11), "steps=11: must be 1 to 10"),
        (lambda: released_grid(alpha_bars(linear_betas(10)), 0), "steps=0: must be 1 to 10"),
        (lambda: start_from(NOISE, NOISE, 0.0, time_grid(3)), "strength=0.0 must be a number above 0"),
        (lambda: start_from(NOISE, NOISE, True, time_grid(3)), "strength=True must be a number above 0"),
        (lambda: released_grid(torch.tensor([0.9, 1.5]), 2), "alpha_bar runs from 0.9 to 1.5"),
        (lambda: ddim(gaussian_guess, NOISE, make_grid(3), "noise"), "target='noise' is unknown"),
        (lambda: ddim(gaussian_guess, NOISE, make_grid(3), "eps"), "alpha=0: pure noise"),
        (lambda: dpm_solver_pp_2m(lambda x, t: x[:1], NOISE, make_grid(3), "x0"), "prediction of shape"),
        *[
            (lambda walk=walk, asked=asked: walk(*asked), message)
            for walk in (euler, heun)
            for asked, message in [
                ((gaussian_guess, NOISE, torch.tensor([1.0])), r"shape \(1,\): no step; .*`time_grid`"),
                ((gaussian_guess, NOISE, torch.ones(2, 2)), r"times of shape \(2, 2\): no step"),
                ((gaussian_guess, NOISE, torch.tensor([999.0, 0.0])), r"times run from 0 to 999; .*\[0, 1\]"),
                ((gaussian_guess, NOISE, torch.tensor([1.0, math.nan])), "times run from nan to nan"),
                ((lambda x, t: x[:1], NOISE, time_grid(2)), r"shape \(1, 3\); it must be .*, \(2, 3\)"),
            ]
        ],
    ],
)
def test_bad_input_is_explained(call, message):
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=message):
            call()
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_power_times_are_those_of_the_small_diffusion_transformer():
    """Levels 1 - (k/n)^exponent, .99 at most, and a last prediction: 19 updates and one for n_iter = 20."""
    times = power_times(20)
    assert len(times) == 21 and times[0] == pytest.approx(0.99)
    assert times[1:].tolist() == pytest.approx([1 - k / 20 for k in range(1, 21)])
    assert times[-2] == pytest.approx(1 / 20) and times[-1] == 0
    late, early = power_times(10, 2.0), power_times(10, 0.5)
    assert late[5] == pytest.approx(0.75) and early[5] == pytest.approx(1 - 0.5**0.5)
    assert (late.diff() <= 0).all() and (early.diff() < 0).all()
    assert power_times(10, 3.0).max() == pytest.approx(0.99)  # 1 - 0.1^3 is above it


def test_a_last_prediction_is_an_euler_step_to_data():
    """TLD's loop ends with the guess of x_0 at its last level; with exact guesses that is where we end."""
    x0, noise = torch.randn(2, 5, generator=torch.Generator().manual_seed(1)).double()
    made = euler(lambda x, t: (x - x0) / t[:, None], noise[None], power_times(6, 1.5).double())
    torch.testing.assert_close(made[0], x0)


@pytest.mark.parametrize("bad", [(0, 1.0), (4, 0.0), (4, -1.0), (4, float("nan"))])
def test_impossible_power_times_are_refused(bad):
    with pytest.raises(ValueError, match=f"steps={bad[0]}"):
        power_times(*bad)
