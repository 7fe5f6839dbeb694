"""Samplers: from noise to data in a given number of steps, with any network that predicts a target.

A sampler walks down a `Grid` of noise levels. At each it asks the network once, `network(x, t)` with t of
shape `b`, turns what it says into guesses of x_0 and eps, and takes the step itself. Two kinds of walk:

    ddim, dpm_solver_pp_2m, ddpm    by levels (alpha, sigma), for any schedule and any target
    euler, heun                     by times, for the velocity of a flow

`start_from` begins such a walk at known data instead of noise.

Sources: DDPM, DDIM, DPM-Solver++, rectified flow, EDM, SDEdit (docs/sources.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from sora_edu.diffusion import Levels, check_shares, clean_from, flow_levels, posterior, shift_times

Network = Callable[[Tensor, Tensor], Tensor]
"""`network(x, t)`: noisy data of shape `b ...` and times of shape `b` -> a prediction of x's shape."""

Progress = Callable[[int, Tensor], None]
"""`progress(step, x)` is called after each step with what it led to."""


def time_grid(steps: int, shift: float = 1.0) -> Float[Tensor, " {steps}+1"]:
    """Times from 1 (noise) to 0 (data), `steps` intervals, uneven when `shift` is not 1.

    Raises ValueError for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one step is needed; 20 to 50 are usual")
    return shift_times(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()


def power_times(steps: int, exponent: float = 1.0, first: float = 0.99) -> Float[Tensor, " {steps}+1"]:
    """Times 1 - (k / steps)^exponent for k = 0 ... steps, and none of them above `first`.

    An exponent above 1 stays longer near noise, one below 1 near data. The network is never asked at t = 1
    itself, though the walk begins with pure noise. Source: the sampler of apapiu's
    transformer_latent_diffusion; its last update, to time 0, is written there as one more prediction.
    Raises ValueError for fewer than one step, or an exponent that is not above 0.
    """
    if steps < 1 or not exponent > 0:
        raise ValueError(f"steps={steps}, exponent={exponent}: at least one step, and an exponent above 0")
    times = 1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** exponent
    return times.clamp(max=first).float()


@dataclass(frozen=True)
class Grid:
    """The noise levels that a sampler visits, from noisy to clean."""

    times: Float[Tensor, " n"]
    """What the network is told at each level; at the last one it is not asked."""
    alpha: Float[Tensor, " n"]
    """Share of data at each level, never falling; float64, like sigma, for levels can be very close."""
    sigma: Float[Tensor, " n"]
    """Share of noise at each level, falling."""

    def __post_init__(self):
        shapes = {tuple(values.shape) for values in (self.times, self.alpha, self.sigma)}
        if len(shapes) != 1 or len(self.times) < 2:
            raise ValueError(f"times, alpha and sigma of shapes {shapes}: one shape (n,), n at least 2")
        if not (self.sigma.diff() < 0).all() or not (self.alpha.diff() >= 0).all():
            raise ValueError("sigma must fall and alpha grow from each level to the next: start at noise")

    @property
    def levels(self) -> list[tuple[Tensor, Tensor]]:
        """(alpha, sigma) of each level."""
        return list(zip(self.alpha, self.sigma, strict=True))


def make_grid(steps: int | Float[Tensor, " n"], levels: Levels = flow_levels, shift: float = 1.0) -> Grid:
    """A grid over times that go evenly from 1 to 0, or over given times.

    Args:
        steps: number of steps, or the times themselves, falling.
        levels: the schedule.
        shift: see `shift_times`; for a number of steps only.

    Raises:
        ValueError: no step, or times that do not fall within [0, 1].
    """
    times = steps if isinstance(steps, Tensor) else time_grid(steps, shift)
    return Grid(times, *levels(times.double()))


def released_grid(alpha_bar: Float[Tensor, " k"], steps: int) -> Grid:
    """A grid for a model of discrete steps: `steps` of its levels, evenly spaced from the last, then clean.

    The times are j / k for the step of index j, so the network is told *its own* numbers even where only
    every twentieth step is taken. This spacing ("trailing") starts at the noisiest level, which
    `zero_terminal_snr` needs. Source: zero-SNR, section 3.3.

    Raises:
        ValueError: steps not within 1 ... k, or alpha_bar outside [0, 1].
    """
    total = len(alpha_bar)
    if not 1 <= steps <= total:
        raise ValueError(f"steps={steps}: must be 1 to {total}, the steps that alpha_bar has")
    check_shares(alpha_bar)
    places = torch.arange(steps, dtype=torch.float64)
    index = (total - total / steps * places).round().long() - 1
    share = torch.cat([alpha_bar[index], torch.ones_like(alpha_bar[:1])])
    times = torch.cat([index / total, torch.zeros(1)])
    return Grid(times, share.sqrt(), (1 - share).sqrt())


def ddim_step(
    x: Float[Tensor, "b ..."],
    x0: Float[Tensor, "b ..."],
    here: tuple[Tensor, Tensor],
    there: tuple[Tensor, Tensor],
) -> Float[Tensor, "b ..."]:
    """Keeps the guessed data and the guessed noise, and mixes them again at a cleaner level.

    Args:
        x: noisy data at the level `here`.
        x0: the guess of the clean data.
        here, there: (alpha, sigma) of x and of the level to go to.

    Returns:
        alpha_s x_0 + sigma_s eps, with eps = (x - alpha x_0) / sigma. DDIM, equation 12.
    """
    (alpha, sigma), (alpha_s, sigma_s) = here, there
    noise = (x - alpha * x0) / sigma
    return alpha_s * x0 + sigma_s * noise


def ddim(
    network: Network,
    noise: Float[Tensor, "b ..."],
    grid: Grid,
    target: str = "eps",
    progress: Progress | None = None,
) -> Float[Tensor, "b ..."]:
    """The deterministic sampler: a `ddim_step` down each interval of the grid.

    Args:
        network: predicts `target`.
        noise: where to start: noisy data at the grid's first level.
        grid: the levels to visit.
        target: one of `diffusion.TARGETS`.
        progress: see `Progress`.

    Raises:
        ValueError: an unknown target, or eps at a level without data.
    """
    x = noise
    for step, (here, there) in enumerate(pairwise(grid.levels)):
        x0 = clean_from(x, network(x, grid.times[step].expand(len(x))), *here, target)
        x = ddim_step(x, x0, here, there)
        _tell(progress, step, x)
    return x


def ddpm(
    network: Network,
    noise: Float[Tensor, "b ..."],
    grid: Grid,
    target: str = "eps",
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, "b ..."]:
    """Ancestral sampling: each step draws from the posterior, given the guess of x_0. DDPM, algorithm 2.

    Arguments and errors as in `ddim`; `generator` draws the fresh noise of every step but the last.
    """
    x = noise
    for step, (here, there) in enumerate(pairwise(grid.levels)):
        x0 = clean_from(x, network(x, grid.times[step].expand(len(x))), *here, target)
        x, variance = posterior(x, x0, here, there)
        if variance > 0:
            fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            x = x + variance.sqrt() * fresh
        _tell(progress, step, x)
    return x


def dpm_solver_pp_2m(
    network: Network,
    noise: Float[Tensor, "b ..."],
    grid: Grid,
    target: str = "eps",
    progress: Progress | None = None,
) -> Float[Tensor, "b ..."]:
    """DPM-Solver++(2M): second order with one network evaluation a step, thanks to the guess before.

    The first step, and the last where it ends at clean data, are of first order: DDIM's. Arguments and errors
    as in `ddim`. DPM-Solver++, algorithm 2.
    """
    x, lam = noise, (grid.alpha / grid.sigma).log()
    before = None
    for step, (here, there) in enumerate(pairwise(grid.levels)):
        x0 = clean_from(x, network(x, grid.times[step].expand(len(x))), *here, target)
        ahead = x0
        if before is not None and there[1] > 0:
            r = (lam[step] - lam[step - 1]) / (lam[step + 1] - lam[step])
            ahead = x0 + (x0 - before) / (2 * r)  # where the guess will be half a step further
        x, before = ddim_step(x, ahead, here, there), x0
        _tell(progress, step, x)
    return x


def euler(
    velocity: Network,
    noise: Float[Tensor, "b ..."],
    times: Float[Tensor, " n"],
    progress: Progress | None = None,
) -> Float[Tensor, "b ..."]:
    """Follows the flow with Euler steps: x_s = x_t + (s - t) u(x_t, t).

    `velocity(x, t)` takes t of shape `b`; `progress(step, x)` is called after each step. Raises ValueError
    for fewer than two times, times outside [0, 1], and a velocity that has not the shape of x.
    """
    _refuse_times(times)
    x = noise
    for step, (t, s) in enumerate(pairwise(times)):
        x = x + (s - t) * _slope(velocity, x, t)
        _tell(progress, step, x)
    return x


def heun(
    velocity: Network,
    noise: Float[Tensor, "b ..."],
    times: Float[Tensor, " n"],
    progress: Progress | None = None,
) -> Float[Tensor, "b ..."]:
    """Follows the flow with Heun steps: try an Euler step, and go by the mean slope of both its ends.

    Second order, for two evaluations a step; a last step to t = 0 is Euler's, as in EDM, since a network need
    not know a velocity there. Arguments and errors as in `euler`.
    """
    _refuse_times(times)
    x = noise
    for step, (t, s) in enumerate(pairwise(times)):
        slope = _slope(velocity, x, t)
        if s > 0:
            slope = (slope + _slope(velocity, x + (s - t) * slope, s)) / 2
        x = x + (s - t) * slope
        _tell(progress, step, x)
    return x


def start_from(
    clean: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    strength: float,
    times: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, " m"]]:
    """Where SDEdit starts: known data with noise on them, and the times that are left from there.

    Args:
        clean: the data to be edited.
        noise: as a sampler would start from, were there nothing.
        strength: the time at which to start: near 0 little changes, 1 keeps nothing.
        times: of a whole walk, falling from 1 to 0, as `time_grid` makes them.

    Returns:
        x_t at t = strength on the straight line from data to noise; and that time, followed by those of
        `times` that lie below it.

    Raises:
        ValueError: a strength that is not above 0 and at most 1.
    """
    if isinstance(strength, bool) or not isinstance(strength, Real) or not 0 < strength <= 1:
        raise ValueError(f"strength={strength!r} must be a number above 0 and at most 1; 0.7 is a good start")
    x = (1 - strength) * clean + strength * noise
    return x, torch.cat([times.new_tensor([strength]), times[times < strength]])


def _slope(velocity: Network, x: Tensor, t: Tensor) -> Tensor:
    """What the network says at x and one time for all; another shape would be spread over x in silence."""
    slope = velocity(x, t.expand(len(x)))
    if slope.shape != x.shape:
        raise ValueError(
            f"velocity answers in shape {tuple(slope.shape)}; it must be that of x, {tuple(x.shape)}"
        )
    return slope


def _refuse_times(times: Tensor) -> None:
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times of shape {tuple(times.shape)}: no step; give two or more, as `time_grid`")
    if not ((times >= 0) & (times <= 1)).all():
        raise ValueError(f"times run from {times.min():g} to {times.max():g}; they must be within [0, 1]")


def _tell(progress: Progress | None, step: int, x: Tensor) -> None:
    if progress is not None:
        progress(step, x)
