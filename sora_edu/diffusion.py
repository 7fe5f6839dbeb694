"""Diffusion: how data are noised, what a network may predict, and how its errors are weighed.

    x_t = alpha_t x_0 + sigma_t eps        t = 0 is data, t = 1 is noise; lambda = log(alpha / sigma)

Top to bottom: schedules (alpha and sigma for each t), the forward process, the four targets and the way back
from each to x_0, the posterior, training times and loss weights, guidance. alpha and sigma are one number for
each sample, shape `b`, or one number for all. Sources: DDPM, DDIM, v-prediction, Min-SNR, zero-SNR, rectified
flow, SD3, guidance, VDM (docs/sources.md).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Levels = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A schedule: times in [0, 1] -> (alpha, sigma), each of the times' shape."""

TARGETS = ("eps", "x0", "v", "flow")
"""What a network can learn to predict: eps; x_0; v = alpha eps - sigma x_0; flow u = eps - x_0."""

_NO_DATA = 1e-6
"""A share of data below this is none: a cosine does not reach 0 exactly."""


# --- schedules -------------------------------------------------------------------------------------------


def flow_levels(t: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """The straight line, alpha = 1 - t and sigma = t (rectified flow). ValueError for t outside [0, 1]."""
    t = _times(t)
    return 1 - t, t


def cosine_levels(
    t: Float[Tensor, "..."], offset: float = 0.008
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """alpha = cos(pi/2 (t + offset)/(1 + offset)), scaled to 1 at t = 0; sigma = sqrt(1 - alpha^2).

    Nichol & Dhariwal 2021, equation 17. The offset keeps the first steps from being too small. Raises
    ValueError for t outside [0, 1].
    """

    def angle(time: Tensor) -> Tensor:
        return (time + offset) / (1 + offset) * math.pi / 2

    alpha = (angle(_times(t)).cos() / angle(torch.zeros_like(t)).cos()).clamp(0, 1)
    return alpha, (1 - alpha**2).sqrt()


def linear_levels(
    t: Float[Tensor, "..."], first: float = 0.1, last: float = 20.0
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """DDPM's linear schedule in continuous time: noise comes in at a rate that grows from `first` to `last`.

    alpha = exp(-(first t + (last - first) t^2 / 2) / 2). The rates are 1000 times DDPM's betas, since each of
    its 1000 steps is a thousandth of our time. Song et al. 2021 (score SDE), equation 32. Raises ValueError
    for t outside [0, 1].
    """
    log_alpha_bar = -(first * _times(t) + (last - first) * t**2 / 2)
    return (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Float[Tensor, " {steps}"]:
    """Noise variance that each step adds, growing evenly from `first` to `last`; float64. DDPM, section 4.

    Raises ValueError for fewer than one step, or variances that do not grow within (0, 1).
    """
    _at_least_one(steps, "a released model has 1000")
    if not 0 < first <= last < 1:
        raise ValueError(f"first={first}, last={last}: betas must grow within (0, 1), as 0.0001 to 0.02 do")
    return torch.linspace(first, last, steps, dtype=torch.float64)


def cosine_betas(
    steps: int = 1000, offset: float = 0.008, largest: float = 0.999
) -> Float[Tensor, " {steps}"]:
    """The betas whose alpha_bar is that of `cosine_levels`, none above `largest`; float64.

    Nichol & Dhariwal 2021, section 3.2. Raises ValueError for fewer than one step.
    """
    _at_least_one(steps, "a released model has 1000")
    alpha, _ = cosine_levels(torch.linspace(0, 1, steps + 1, dtype=torch.float64), offset)
    return (1 - alpha[1:] ** 2 / alpha[:-1] ** 2).clamp(max=largest)


def alpha_bars(betas: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The share of the data's variance that is left after each step: the running product of 1 - beta.

    Raises ValueError for betas outside (0, 1]. DDPM, equation 4.
    """
    if not ((betas > 0) & (betas <= 1)).all():
        raise ValueError(f"betas run from {betas.min():g} to {betas.max():g}; each must be in (0, 1]")
    return (1 - betas).cumprod(dim=0)


def zero_terminal_snr(alpha_bar: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Stretches a schedule so that its last step is pure noise and its first stays: zero-SNR, algorithm 1.

    At that last step eps says nothing about x_0 (`clean_from` refuses); predict v or x_0. Raises ValueError
    for alpha_bar outside [0, 1], or one that does not fall from its first step to its last.
    """
    root = check_shares(alpha_bar).sqrt()
    if not root[0] > root[-1]:
        raise ValueError(f"alpha_bar goes from {alpha_bar[0]:g} to {alpha_bar[-1]:g}; it must fall")
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def snr(alpha: Float[Tensor, "..."], sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Signal-to-noise ratio alpha^2 / sigma^2, which is e^(2 lambda); infinite for clean data."""
    return (alpha / sigma) ** 2


# --- forward process -------------------------------------------------------------------------------------


def mix(
    x0: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    alpha: Float[Tensor, "*b"],
    sigma: Float[Tensor, "*b"],
) -> Float[Tensor, "b ..."]:
    """alpha x_0 + sigma eps. Raises ValueError for shapes that do not fit."""
    _same_shape(x0, noise, "x0", "noise")
    return _per_sample(alpha, x0, "alpha") * x0 + _per_sample(sigma, x0, "sigma") * noise


def add_noise(
    x0: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
    levels: Levels = flow_levels,
) -> Float[Tensor, "b ..."]:
    """x_t = alpha_t x_0 + sigma_t eps, one time for each sample; by default x_t = (1 - t) x_0 + t eps.

    Raises ValueError for times outside [0, 1] and shapes that do not fit.
    """
    return mix(x0, noise, *levels(t))


def q_sample(
    x0: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."], alpha_bar: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """A jump to any step of DDPM at once: sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps. DDPM, equation 4.

    Args:
        x0: clean data.
        noise: standard normal noise.
        alpha_bar: for each sample, the value of `alpha_bars` at its step.

    Raises:
        ValueError: alpha_bar outside [0, 1], or shapes that do not fit.
    """
    share = _per_sample(check_shares(alpha_bar), x0, "alpha_bar")
    _same_shape(x0, noise, "x0", "noise")
    return share.sqrt() * x0 + (1 - share).sqrt() * noise


# --- targets ---------------------------------------------------------------------------------------------


def make_target(
    x0: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    alpha: Float[Tensor, "*b"],
    sigma: Float[Tensor, "*b"],
    target: str,
) -> Float[Tensor, "b ..."]:
    """What a network that predicts `target` should say about alpha x_0 + sigma eps.

    Raises ValueError for an unknown target and shapes that do not fit.
    """
    _check_target(target)
    if target == "eps":
        return noise
    if target == "x0":
        return x0
    if target == "v":
        return mix(noise, x0, alpha, -sigma)
    return velocity(x0, noise)


def velocity(x0: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """The flow target u = eps - x_0: on the straight line, how x_t changes with t.

    Raises ValueError for shapes that do not fit.
    """
    _same_shape(x0, noise, "x0", "noise")
    return noise - x0


def clean_from(
    x: Float[Tensor, "b ..."],
    prediction: Float[Tensor, "b ..."],
    alpha: Float[Tensor, "*b"],
    sigma: Float[Tensor, "*b"],
    target: str,
) -> Float[Tensor, "b ..."]:
    """The guess of x_0 that follows from a prediction of `target` and x = alpha x_0 + sigma eps.

    Args:
        x: noisy data.
        prediction: of the network, the shape of x.
        alpha, sigma: the shares of data and noise in x.
        target: one of `TARGETS`.

    Raises:
        ValueError: an unknown target, shapes that do not fit, or eps where alpha is 0 up to rounding.
    """
    _check_target(target)
    _same_shape(x, prediction, "x", "prediction")
    alpha, sigma = _per_sample(alpha, x, "alpha"), _per_sample(sigma, x, "sigma")
    if target == "eps" and (alpha < _NO_DATA).any():
        raise ValueError("alpha=0: pure noise, of which eps says nothing about x_0; predict v, x0 or flow")
    if target == "eps":
        return (x - sigma * prediction) / alpha
    if target == "x0":
        return prediction
    if target == "v":
        return (alpha * x - sigma * prediction) / (alpha**2 + sigma**2)
    return (x - sigma * prediction) / (alpha + sigma)


def noise_from(
    x: Float[Tensor, "b ..."],
    prediction: Float[Tensor, "b ..."],
    alpha: Float[Tensor, "*b"],
    sigma: Float[Tensor, "*b"],
    target: str,
) -> Float[Tensor, "b ..."]:
    """The guess of eps that follows from a prediction of `target`; arguments as in `clean_from`.

    Raises:
        ValueError: an unknown target, shapes that do not fit, or x0 where sigma is 0.
    """
    _check_target(target)
    _same_shape(x, prediction, "x", "prediction")
    alpha, sigma = _per_sample(alpha, x, "alpha"), _per_sample(sigma, x, "sigma")
    if target == "x0" and (sigma == 0).any():
        raise ValueError("sigma=0: clean data, which say nothing about the noise; stop before t = 0")
    if target == "eps":
        return prediction
    if target == "x0":
        return (x - alpha * prediction) / sigma
    if target == "v":
        return (sigma * x + alpha * prediction) / (alpha**2 + sigma**2)
    return (x + alpha * prediction) / (alpha + sigma)


def clean_from_velocity(
    x: Float[Tensor, "b ..."], u: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """The guess of x_0 from a flow's velocity at time t: x_t - t u. ValueError for shapes that do not fit."""
    _same_shape(x, u, "x", "u")
    return x - _per_sample(t, x, "t") * u


# --- posterior -------------------------------------------------------------------------------------------


def posterior(
    x: Float[Tensor, "b ..."],
    x0: Float[Tensor, "b ..."],
    here: tuple[Tensor, Tensor],
    there: tuple[Tensor, Tensor],
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "*b"]]:
    """Where x was one step earlier, if the data were x_0: a normal distribution's mean and variance.

    Args:
        x: noisy data at the level `here`.
        x0: the clean data, or the guess of them.
        here, there: (alpha, sigma) of x and of the cleaner level, each of shape `b` or one number.

    Returns:
        Mean, of x's shape, and variance, of alpha's.

    Raises:
        ValueError: `there` is noisier than `here`, or shapes that do not fit.

    Source: DDPM, equations 6 and 7; VDM, appendix A.
    """
    (alpha, sigma), (alpha_s, sigma_s) = here, there
    kept = alpha / alpha_s  # of what was there, this share is in x
    added = sigma**2 - kept**2 * sigma_s**2  # variance of the noise in between
    if not (added >= 0).all() or not (sigma > 0).all():
        raise ValueError(f"here={here}, there={there} as (alpha, sigma): there must be cleaner than here")
    mean = mix(x, x0, kept * sigma_s**2 / sigma**2, alpha_s * added / sigma**2)
    return mean, added * sigma_s**2 / sigma**2


def _one_step_cleaner(alpha_bar: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """For each level of a schedule the one before it; before the first come the data."""
    return torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])


def variance_range(alpha_bar: Float[Tensor, " k"]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """The least and the largest variance that the step back from each level can have, as logarithms.

    The posterior's if x_0 were known, and the step's beta if nothing were. `alpha_bar` may be any levels of a
    schedule, the cleanest first: betas follow from it. The posterior of the first step has no variance, so
    that step borrows the second one's. Improved DDPM, section 3.1. Raises ValueError for fewer than two
    levels.
    """
    if len(alpha_bar) < 2:
        raise ValueError(f"alpha_bar has {len(alpha_bar)} levels; at least 2 are needed")
    before = _one_step_cleaner(check_shares(alpha_bar))
    largest = 1 - alpha_bar / before
    least = largest * (1 - before) / (1 - alpha_bar)
    return torch.cat([least[1:2], least[1:]]).log(), largest.log()


def learned_log_variance(
    output: Float[Tensor, "b ..."], least: Float[Tensor, "*b"], largest: Float[Tensor, "*b"]
) -> Float[Tensor, "b ..."]:
    """The log variance that a network with learned variance means by the second half of its output.

    Its numbers, mostly in [-1, 1], go from `least` to `largest`, which are logarithms as `variance_range`
    gives them: it is the logarithm that is interpolated. Improved DDPM, equation 15.
    """
    share = (output + 1) / 2
    return share * _per_sample(largest, output, "largest") + (1 - share) * _per_sample(least, output, "least")


def variational_term(
    x0: Float[Tensor, "b ..."],
    x: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    output: Float[Tensor, "b ..."],
    k: Int[Tensor, " b"],
    alpha_bar: Float[Tensor, " k"],
) -> Float[Tensor, " b"]:
    """The loss of the learned variance: what step k costs in the variational bound, in bits for each number.

    KL(q(x_(k-1) | x_k, x_0) || p(x_(k-1) | x_k)); for the first step, which leads to the data, the negative
    log-density of x_0. (Code for 8-bit pixels takes the probability of a pixel's value there.) The mean of p
    is that of the predicted noise, through which no gradient flows: this term is to teach the variance alone,
    and the squared error teaches the mean. Improved DDPM, sections 3.1 and 3.4; DiT, section 3.1.

    Args:
        x0, x: data, and the same noised to its step.
        noise: predicted noise.
        output: what the network says of the variance; see `learned_log_variance`.
        k: index of each sample's step, 0 the cleanest.
        alpha_bar: the schedule.

    Raises:
        ValueError: shapes that do not fit, or steps that the schedule does not have.
    """
    if not 0 <= int(k.min()) <= int(k.max()) < len(alpha_bar):
        raise ValueError(
            f"k runs from {int(k.min())} to {int(k.max())}; alpha_bar has {len(alpha_bar)} steps"
        )
    least, largest = (values.to(x)[k] for values in variance_range(alpha_bar))
    before = _one_step_cleaner(alpha_bar)
    here, there = ((share[k].sqrt().to(x), (1 - share[k]).sqrt().to(x)) for share in (alpha_bar, before))
    guess = clean_from(x, noise.detach(), *here, "eps")
    truth, _ = posterior(x, x0, here, there)
    mean, _ = posterior(x, guess, here, there)
    log_variance = learned_log_variance(output, least, largest)
    first = (k == 0).view(-1, *[1] * (x.ndim - 1))
    ratio = _per_sample(least, x, "least") - log_variance
    squared = (truth - mean).square() * (-log_variance).exp()
    divergence = 0.5 * (ratio.exp() - ratio - 1 + squared)
    log_loss = 0.5 * ((x0 - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))
    return torch.where(first, log_loss, divergence).flatten(1).mean(1) / math.log(2)


# --- training times and loss weights ---------------------------------------------------------------------


def logit_normal_times(
    n: int,
    mean: float | Float[Tensor, " n"] = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " {n}"]:
    """Training times t = sigmoid(mean + std n), n normal: mostly the middle, where there is most to learn.

    The mean is one for all, or one for each time. Raises ValueError for fewer than one time, or a negative
    `std`.
    """
    if n < 1 or std < 0:
        raise ValueError(f"n={n}, std={std}: n must be at least 1, std at least 0; std=1 is usual")
    return torch.sigmoid(mean + std * torch.randn(n, generator=generator))


def shift_times(t: Float[Tensor, " n"], shift: float) -> Float[Tensor, " n"]:
    """t' = c t / (1 + (c - 1) t): c > 1 spends more steps near noise, as larger clips need; 0 and 1 stay.

    Raises ValueError unless `shift` (c) is positive.
    """
    if shift <= 0:
        raise ValueError(f"shift={shift} must be positive; 1 changes nothing, 3 is common for larger clips")
    return shift * t / (1 + (shift - 1) * t)


def error_scale(alpha: Float[Tensor, "*b"], sigma: Float[Tensor, "*b"], target: str) -> Float[Tensor, "*b"]:
    """How many times an error of x_0 counts in the plain squared error of `target`.

    |error of target|^2 = scale |error of x_0|^2 at the same x_t: 1 for x0, SNR for eps, SNR + 1 for v where
    alpha^2 + sigma^2 = 1, and 1 / t^2 for the flow. Raises ValueError for an unknown target.
    """
    _check_target(target)
    if target == "eps":
        return snr(alpha, sigma)
    if target == "x0":
        return torch.ones_like(alpha)
    if target == "v":
        return ((alpha**2 + sigma**2) / sigma) ** 2
    return ((alpha + sigma) / sigma) ** 2


def min_snr_weight(
    alpha: Float[Tensor, "*b"], sigma: Float[Tensor, "*b"], target: str, gamma: float = 5.0
) -> Float[Tensor, "*b"]:
    """Loss weight with which an error of x_0 counts min(SNR, gamma) times, whatever the target. Min-SNR.

    Raises ValueError for gamma that is not positive, or an unknown target.
    """
    if gamma <= 0:
        raise ValueError(f"gamma={gamma} must be positive; 5 is usual")
    scale = error_scale(alpha, sigma, target)
    if target == "eps":  # its scale is the SNR itself: 0 / 0 at pure noise, where each error counts in full
        return (gamma / scale).clamp(max=1)
    return snr(alpha, sigma).clamp(max=gamma) / scale


# --- guidance --------------------------------------------------------------------------------------------


def guided(
    conditional: Float[Tensor, "..."], unconditional: Float[Tensor, "..."], scale: float
) -> Float[Tensor, "..."]:
    """Classifier-free guidance: f = f_null + s (f_y - f_null).

    s = 1 is plain conditional, s = 0 ignores the prompt. Ho & Salimans 2022, whose w is s - 1. Raises
    ValueError for shapes that do not fit.
    """
    _same_shape(conditional, unconditional, "conditional", "unconditional")
    return unconditional + scale * (conditional - unconditional)


def guided_by_weight(
    conditional: Float[Tensor, "..."], unconditional: Float[Tensor, "..."], weight: float
) -> Float[Tensor, "..."]:
    """The same in the letters of those who found it: f = (1 + w) f_y - w f_null.

    w = 0 is plain conditional, w = -1 ignores the prompt; see `guided`. Ho & Salimans 2022, equation 6.
    Raises ValueError for shapes that do not fit.
    """
    _same_shape(conditional, unconditional, "conditional", "unconditional")
    return (1 + weight) * conditional - weight * unconditional


# --- checks ----------------------------------------------------------------------------------------------


def _per_sample(value: Tensor, x: Tensor, name: str) -> Tensor:
    """One number for each sample, or one for all, shaped to be multiplied with x, and of its type."""
    if value.ndim <= 1 and value.numel() == 1:
        return value.reshape(())
    if value.ndim != 1 or len(value) != len(x):
        raise ValueError(
            f"{name} of shape {tuple(value.shape)}: one number for each of {len(x)} samples is needed,"
            f" ({len(x)},), or one for all"
        )
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))


def _same_shape(first: Tensor, second: Tensor, *names: str) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"{names[1]} of shape {tuple(second.shape)}: it must have the shape of {names[0]},"
            f" {tuple(first.shape)}"
        )


def _times(t: Tensor) -> Tensor:
    if not ((t >= 0) & (t <= 1)).all():
        raise ValueError(f"t runs from {t.min():g} to {t.max():g}; times are in [0, 1], 0 = data, 1 = noise")
    return t


def check_shares(alpha_bar: Tensor) -> Tensor:
    """The same numbers, if they are shares of the variance. Raises ValueError outside [0, 1]."""
    if not ((alpha_bar >= 0) & (alpha_bar <= 1)).all():
        raise ValueError(
            f"alpha_bar runs from {alpha_bar.min():g} to {alpha_bar.max():g}; it is a share, in [0, 1]"
        )
    return alpha_bar


def _at_least_one(steps: int, usual: str) -> None:
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one step is needed; {usual}")


def _check_target(target: str) -> None:
    if target not in TARGETS:
        raise ValueError(f"target={target!r} is unknown; use one of: {', '.join(TARGETS)}")
