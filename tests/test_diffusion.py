"""Diffusion against difference quotients, quantiles, Gaussian conditioning and other ways to write it."""

import math

import jaxtyping
import pytest
import torch
from scipy import integrate, stats

from sora_edu.diffusion import (
    TARGETS,
    add_noise,
    alpha_bars,
    clean_from,
    clean_from_velocity,
    cosine_betas,
    cosine_levels,
    error_scale,
    flow_levels,
    guided,
    guided_by_weight,
    linear_betas,
    linear_levels,
    logit_normal_times,
    make_target,
    min_snr_weight,
    mix,
    noise_from,
    posterior,
    q_sample,
    shift_times,
    snr,
    velocity,
    zero_terminal_snr,
)

LEVELS = [flow_levels, cosine_levels, linear_levels]

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


# --- schedules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
def test_schedules_go_from_data_to_noise(levels):
    alpha, sigma = levels(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert alpha[0] == 1 and sigma[0] == 0 and alpha[-1] < 0.01 and sigma[-1] > 0.9999
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()


@pytest.mark.parametrize("levels", [cosine_levels, linear_levels])
def test_variance_is_preserved(levels):
    alpha, sigma = levels(torch.linspace(0, 1, 101, dtype=torch.float64))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))


def test_linear_levels_solve_their_differential_equation():
    """d log alpha / dt = -rate / 2, integrated by scipy; and 1000 steps of DDPM come to the same."""
    for t in (0.1, 0.5, 1.0):
        area, _ = integrate.quad(lambda s: 0.1 + s * (20 - 0.1), 0, t)
        alpha, _ = linear_levels(torch.tensor([t], dtype=torch.float64))
        assert alpha.item() == pytest.approx(math.exp(-area / 2), rel=1e-10)
    discrete = alpha_bars(linear_betas())
    alpha, _ = linear_levels(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    assert ((discrete / alpha**2).log().abs() < 0.11).all()  # the sum of beta^2 / 2 is 0.067


def test_the_released_schedule_ends_where_it_is_known_to():
    assert alpha_bars(linear_betas())[-1].sqrt().item() == pytest.approx(0.00635, abs=5e-6)


def test_products_are_those_of_a_chain_of_steps(generator):
    """The variance of 20,000 points that take every single step, and the share of the data in their mean."""
    betas = linear_betas(20, 0.01, 0.3)
    x = torch.full((20000,), 3.0, dtype=torch.float64)
    for beta in betas:
        x = (1 - beta).sqrt() * x + beta.sqrt() * torch.randn(len(x), generator=generator).double()
    left = alpha_bars(betas)[-1]
    assert x.mean().item() == pytest.approx(3 * left.sqrt().item(), abs=4 / math.sqrt(20000))
    assert x.var().item() == pytest.approx(1 - left.item(), rel=0.05)


def test_cosine_betas_have_the_cosines_products():
    alpha, _ = cosine_levels(torch.arange(1, 101, dtype=torch.float64) / 100)
    torch.testing.assert_close(alpha_bars(cosine_betas(100))[:-1], alpha[:-1] ** 2)
    assert cosine_betas(100)[-1] == 0.999


def test_zero_terminal_snr_ends_in_noise_and_keeps_the_start():
    before = alpha_bars(linear_betas())
    after = zero_terminal_snr(before)
    assert after[-1] == 0 and after[0].item() == pytest.approx(before[0].item(), rel=1e-12)
    # Square roots are moved and stretched: the same map for all of them.
    moved = (after.sqrt().diff() / before.sqrt().diff())[:-1]
    torch.testing.assert_close(moved, moved[:1].expand(len(moved)), rtol=1e-6, atol=0)


# --- forward process and targets -------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_targets_lead_back_to_data_and_noise(levels, shape, generator):
    """Against the solution of two equations in two unknowns, target by target."""
    x0, noise = pair(shape, generator)
    alpha, sigma = levels(torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95], dtype=torch.float64))
    x = mix(x0, noise, alpha, sigma)
    rows = {"eps": (0, 1), "x0": (1, 0), "v": (-sigma, alpha), "flow": (-1, 1)}
    assert set(rows) == set(TARGETS)
    for target in TARGETS:
        prediction = make_target(x0, noise, alpha, sigma, target)
        a, b = (torch.as_tensor(value, dtype=torch.float64).expand(5) for value in rows[target])
        matrix = torch.stack([torch.stack([alpha, sigma], -1), torch.stack([a, b], -1)], dim=1)
        found = (
            torch.linalg.solve(matrix, torch.stack([x.flatten(1), prediction.flatten(1)], dim=1))
            if x.ndim > 1
            else torch.linalg.solve(matrix, torch.stack([x, prediction], dim=1)[..., None])
        )
        for guess, row in ((clean_from, 0), (noise_from, 1)):
            mine = guess(x, prediction, alpha, sigma, target)
            torch.testing.assert_close(mine, found[:, row].reshape(x.shape))
        torch.testing.assert_close(clean_from(x, prediction, alpha, sigma, target), x0)
        torch.testing.assert_close(noise_from(x, prediction, alpha, sigma, target), noise)


def test_one_level_for_all_is_the_same_as_one_for_each(generator):
    x0, noise = pair((5, 3), generator)
    alpha, sigma = torch.tensor(0.8).double(), torch.tensor(0.6).double()
    each = mix(x0, noise, alpha.expand(5), sigma.expand(5))
    torch.testing.assert_close(mix(x0, noise, alpha, sigma), each)
    torch.testing.assert_close(q_sample(x0, noise, (alpha**2).expand(5)), each)


def test_a_level_in_double_leaves_single_precision_alone(generator):
    x0, noise = torch.randn(2, 4, 3, generator=generator)
    assert mix(x0, noise, torch.tensor(0.8).double(), torch.tensor(0.6).double()).dtype == torch.float32


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("target", TARGETS)
def test_errors_of_targets_scale_as_errors_of_data(levels, target, generator):
    """Spoil the data, keep x_t: how far off is the target then?"""
    x0, noise = pair((4, 6), generator)
    alpha, sigma = levels(torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64))
    x = mix(x0, noise, alpha, sigma)
    wrong = x0 + torch.randn(x0.shape, generator=generator)
    implied = (x - alpha[:, None] * wrong) / sigma[:, None]
    off = make_target(wrong, implied, alpha, sigma, target) - make_target(x0, noise, alpha, sigma, target)
    scale = off.square().sum(1) / (wrong - x0).square().sum(1)
    torch.testing.assert_close(error_scale(alpha, sigma, target), scale)


def test_loss_weights_are_those_of_the_paper():
    """Min-SNR for x_0, eps and v with alpha^2 + sigma^2 = 1, at ratios above and below gamma."""
    alpha, sigma = cosine_levels(torch.linspace(0.05, 0.95, 19, dtype=torch.float64))
    ratio = (alpha / sigma) ** 2
    assert (ratio > 5).any() and (ratio < 5).any()
    clipped = torch.minimum(ratio, torch.full_like(ratio, 5.0))
    torch.testing.assert_close(snr(alpha, sigma), ratio)
    torch.testing.assert_close(min_snr_weight(alpha, sigma, "x0"), clipped)
    torch.testing.assert_close(min_snr_weight(alpha, sigma, "eps"), clipped / ratio)
    torch.testing.assert_close(min_snr_weight(alpha, sigma, "v"), clipped / (ratio + 1))
    t = torch.tensor([0.2, 0.5], dtype=torch.float64)
    expected = torch.minimum(((1 - t) / t) ** 2, torch.tensor(3.0)) * t**2
    torch.testing.assert_close(min_snr_weight(*flow_levels(t), "flow", gamma=3.0), expected)
    nothing_left = torch.tensor([0.0]), torch.tensor([1.0])  # pure noise: an SNR of 0, and gamma / 0 above 1
    assert min_snr_weight(*nothing_left, "eps").item() == 1


@pytest.mark.parametrize("samples", [1, 4])
def test_noisy_data_are_of_the_type_of_the_data(samples):
    """Shares are computed in float64, for one sample as for several."""
    x0 = torch.zeros(samples, 3)
    assert q_sample(x0, x0, torch.full((samples,), 0.5, dtype=torch.float64)).dtype == torch.float32


# --- posterior -------------------------------------------------------------------------------------------


def test_the_posterior_is_gaussian_conditioning(generator):
    """Condition the joint normal distribution of (x_s, x_t), given x_0, on x_t."""
    x0, x = pair((3, 4), generator)
    for levels in LEVELS:
        alpha, sigma = levels(torch.tensor([0.6, 0.35], dtype=torch.float64))
        kept = alpha[0] / alpha[1]
        covariance = kept * sigma[1] ** 2  # of x_s and x_t = kept x_s + independent noise
        mean = alpha[1] * x0 + covariance / sigma[0] ** 2 * (x - alpha[0] * x0)
        variance = sigma[1] ** 2 - covariance**2 / sigma[0] ** 2
        mine = posterior(x, x0, (alpha[0], sigma[0]), (alpha[1], sigma[1]))
        torch.testing.assert_close(mine[0], mean)
        torch.testing.assert_close(mine[1], variance)


def test_the_posterior_is_ddpms(generator):
    """Both forms of its mean, and its variance, with betas."""
    x0, noise = pair((1, 7), generator)
    betas = linear_betas(50, 0.001, 0.2)
    bars = alpha_bars(betas)
    for k in (1, 20, 49):
        beta, bar, before = betas[k], bars[k], bars[k - 1]
        x = q_sample(x0, noise, bar[None])
        here, there = (bar.sqrt(), (1 - bar).sqrt()), (before.sqrt(), (1 - before).sqrt())
        mean, variance = posterior(x, x0, here, there)
        by_data = before.sqrt() * beta / (1 - bar) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - bar) * x
        by_noise = (x - beta / (1 - bar).sqrt() * noise) / (1 - beta).sqrt()
        torch.testing.assert_close(mean, by_data)
        torch.testing.assert_close(mean, by_noise)
        torch.testing.assert_close(variance, (1 - before) / (1 - bar) * beta)


def test_the_posterior_of_the_last_step_is_the_guess_itself(generator):
    x0, x = pair((2, 3), generator)
    clean = (torch.tensor(1.0).double(), torch.tensor(0.0).double())
    mean, variance = posterior(x, x0, (torch.tensor(0.9).double(), torch.tensor(0.4).double()), clean)
    torch.testing.assert_close(mean, x0)
    assert variance == 0


# --- bad input -------------------------------------------------------------------------------------------


@pytest.fixture
def unchecked():
    """Without jaxtyping's checks of shapes, as learners run it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


TWO, THREE, HALF = torch.zeros(2, 4), torch.zeros(3, 4), torch.tensor(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear_betas(0), "steps=0: at least one step"),
        (lambda: cosine_betas(-1), "steps=-1: at least one step"),
        (lambda: linear_betas(10, 0.2, 0.1), "first=0.2, last=0.1: betas must grow"),
        (lambda: linear_betas(10, 0.0, 0.1), "first=0.0"),
        (lambda: linear_betas(10, 0.1, 1.5), "last=1.5"),
        (lambda: alpha_bars(torch.tensor([0.1, 1.2])), r"betas run from 0.1 to 1.2; .*\(0, 1\]"),
        (lambda: alpha_bars(torch.tensor([0.0, 0.2])), "betas run from 0 to 0.2"),
        (lambda: zero_terminal_snr(torch.tensor([0.9, -0.1])), "alpha_bar runs from -0.1 to 0.9"),
        (lambda: q_sample(TWO, TWO, torch.tensor([0.5, 1.1])), "alpha_bar runs from 0.5 to 1.1"),
        (lambda: flow_levels(torch.tensor([1.5])), "t runs from 1.5 to 1.5; times are in"),
        (lambda: cosine_levels(torch.tensor([-0.5])), "t runs from -0.5"),
        (lambda: linear_levels(torch.tensor([float("nan")])), "t runs from nan"),
        (lambda: add_noise(TWO, TWO, torch.tensor([0.1, 500.0])), "t runs from 0.1 to 500"),
        (lambda: mix(TWO, THREE, HALF, HALF), r"noise of shape \(3, 4\): .*shape of x0, \(2, 4\)"),
        (lambda: mix(TWO, TWO, torch.zeros(3), HALF), r"alpha of shape \(3,\): .*each of 2 samples"),
        (lambda: add_noise(TWO, TWO, torch.zeros(2, 1)), r"alpha of shape \(2, 1\)"),
        (lambda: make_target(TWO, TWO, HALF, HALF, "noise"), "target='noise' is unknown; .*eps, x0, v, flow"),
        (lambda: clean_from(TWO, THREE, HALF, HALF, "eps"), r"prediction of shape \(3, 4\)"),
        (lambda: noise_from(TWO, THREE, HALF, HALF, "eps"), r"prediction of shape \(3, 4\)"),
        (lambda: clean_from(TWO, TWO, torch.tensor(0.0), HALF, "eps"), "alpha=0: pure noise, .*predict v"),
        (lambda: noise_from(TWO, TWO, HALF, torch.tensor(0.0), "x0"), "sigma=0: clean data"),
        (lambda: posterior(TWO, TWO, (HALF, 0.1 * HALF), (HALF, HALF)), "there must be cleaner than here"),
        (lambda: error_scale(HALF, HALF, "noise"), "target='noise' is unknown"),
        (lambda: min_snr_weight(HALF, HALF, "eps", gamma=0.0), "gamma=0.0 must be positive; 5 is usual"),
        (lambda: guided(TWO, THREE, 2.0), r"unconditional of shape \(3, 4\)"),
        (lambda: zero_terminal_snr(torch.tensor([0.5, 0.5])), "goes from 0.5 to 0.5; it must fall"),
        (lambda: velocity(TWO, TWO[:1]), r"noise of shape \(1, 4\)"),
        (lambda: clean_from_velocity(TWO, TWO[:1], torch.zeros(2)), r"u of shape \(1, 4\)"),
        (lambda: logit_normal_times(0), "n=0, .*at least 1"),
        (lambda: logit_normal_times(3, std=-1.0), "std=-1.0: .*std at least 0"),
    ],
)
def test_bad_input_is_explained(call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call()


def test_guidance_by_weight_is_guidance_by_one_more():
    """Ho and Salimans' w counts from the conditional answer, our s from the unconditional one."""
    conditional, unconditional = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(3))
    for weight in (-1.0, 0.0, 0.5, 7.0):
        expected = torch.lerp(unconditional, conditional, weight + 1)
        torch.testing.assert_close(guided_by_weight(conditional, unconditional, weight), expected)
    assert torch.equal(guided_by_weight(conditional, unconditional, 0.0), conditional)
    with pytest.raises(ValueError, match="unconditional"):
        guided_by_weight(conditional, unconditional[:2], 1.0)
