"""The straight-line form of diffusion, against difference quotients, quantiles and other ways to write it."""

import pytest
import torch
from scipy import stats

from sora_edu.diffusion import (
    add_noise,
    clean_from_velocity,
    guided,
    logit_normal_times,
    shift_times,
    velocity,
)

SHAPES = [(5,), (5, 3), (5, 2, 3, 4, 2)]


def pair(shape, generator):
    """Data and noise in float64."""
    return (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_sample_has_its_own_time(shape, generator):
    x0, noise = pair(shape, generator)
    t = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    x = add_noise(x0, noise, t)
    assert torch.equal(x[0], x0[0]) and torch.equal(x[4], noise[4])
    for i in range(5):
        torch.testing.assert_close(x[i], torch.lerp(x0[i], noise[i], t[i].item()))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_velocity_is_the_derivative_by_time(shape, generator):
    x0, noise = pair(shape, generator)
    t = 0.75 * torch.rand(5, generator=generator, dtype=torch.float64)
    slope = (add_noise(x0, noise, t + 0.25) - add_noise(x0, noise, t)) / 0.25
    torch.testing.assert_close(velocity(x0, noise), slope)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_velocity_leads_back_to_data_and_on_to_noise(shape, generator):
    x0, noise = pair(shape, generator)
    t = torch.rand(5, generator=generator, dtype=torch.float64)
    x, u = add_noise(x0, noise, t), velocity(x0, noise)
    torch.testing.assert_close(clean_from_velocity(x, u, t), x0)
    # From t to 1 it is a step of 1 - t along the line.
    torch.testing.assert_close(clean_from_velocity(x, u, t - 1), noise)


def test_an_error_of_the_velocity_shrinks_with_time(generator):
    """|error of x_0|^2 = t^2 |error of u|^2."""
    x0, noise = pair((4, 6), generator)
    t = torch.tensor([0.1, 0.3, 0.6, 1.0], dtype=torch.float64)
    wrong = velocity(x0, noise) + 0.5
    error = (clean_from_velocity(add_noise(x0, noise, t), wrong, t) - x0).square().sum(1)
    torch.testing.assert_close(error, t**2 * 6 * 0.25)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.7, 0.4)])
def test_training_times_are_logit_normal(mean, std, generator):
    t = logit_normal_times(4000, mean, std, generator)
    assert t.shape == (4000,) and t.min() > 0 and t.max() < 1
    assert stats.kstest(torch.logit(t.double()).numpy(), stats.norm(mean, std).cdf).pvalue > 0.01


def test_training_times_come_from_the_generator_alone(generator):
    before = torch.get_rng_state()
    first = logit_normal_times(8, generator=generator)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, logit_normal_times(8, generator=generator.manual_seed(0)))
    assert not torch.equal(first, logit_normal_times(8, generator=generator))


def test_shift_three_sends_the_middle_to_three_quarters():
    ends = torch.tensor([0.0, 0.5, 1.0])
    assert shift_times(ends, 3.0).tolist() == [0, 0.75, 1]
    assert shift_times(ends, 1.0).tolist() == [0, 0.5, 1]


def test_shifts_compose_and_undo_each_other():
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(shift_times(shift_times(t, 2.0), 3.5), shift_times(t, 7.0))
    torch.testing.assert_close(shift_times(shift_times(t, 4.0), 0.25), t)


def test_a_shift_moves_the_log_signal_to_noise_ratio_by_a_constant():
    """lambda = log(alpha / sigma) = -logit(t) for the straight line; a shift by c takes log c off it."""
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    moved = torch.logit(shift_times(t, 3.0)) - torch.logit(t)
    torch.testing.assert_close(moved, torch.full_like(t, 3.0).log())


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_an_impossible_shift_is_explained(shift):
    with pytest.raises(ValueError, match=f"shift={shift} must be positive"):
        shift_times(torch.ones(2), shift)


def test_guidance_in_the_three_ways_it_is_written(generator):
    conditional, unconditional = pair((3, 4), generator)
    s = 2.5
    mine = guided(conditional, unconditional, s)
    torch.testing.assert_close(mine, s * conditional + (1 - s) * unconditional)
    w = s - 1  # of Ho & Salimans
    torch.testing.assert_close(mine, (1 + w) * conditional - w * unconditional)
    torch.testing.assert_close(mine, torch.lerp(unconditional, conditional, s))


def test_guidance_one_is_conditional_and_zero_unconditional(generator):
    conditional, unconditional = pair((3, 4), generator)
    torch.testing.assert_close(guided(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guided(conditional, unconditional, 0.0), unconditional)


def test_guidance_means_the_same_for_velocity_and_clean_data(generator):
    """x_0 = x - t u is a straight map, so guiding either of them guides the other."""
    x, (first, second) = torch.randn(3, 4, generator=generator).double(), pair((3, 4), generator)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    by_velocity = clean_from_velocity(x, guided(first, second, 4.0), t)
    by_data = guided(clean_from_velocity(x, first, t), clean_from_velocity(x, second, t), 4.0)
    torch.testing.assert_close(by_velocity, by_data)
