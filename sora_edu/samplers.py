"""Samplers: from noise to data in a given number of steps, with any velocity function."""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sora_edu.diffusion import shift_times


def time_grid(steps: int, shift: float = 1.0) -> Float[Tensor, " {steps}+1"]:
    """Times from 1 (noise) to 0 (data), `steps` intervals, uneven when `shift` is not 1.

    Raises ValueError for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one step is needed; 20 to 50 are usual")
    return shift_times(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()


def euler(
    velocity: Callable[[Tensor, Tensor], Tensor],
    noise: Float[Tensor, "b ..."],
    times: Float[Tensor, " n"],
    progress: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "b ..."]:
    """Follows the flow with Euler steps: x_s = x_t + (s - t) u(x_t, t).

    `velocity(x, t)` takes t of shape `b`; `progress(step, x)` is called after each step.
    """
    x = noise
    for step, (t, s) in enumerate(pairwise(times)):
        x = x + (s - t) * velocity(x, t.expand(len(x)))
        if progress is not None:
            progress(step, x)
    return x
