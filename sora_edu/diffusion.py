"""Diffusion in its straight-line form, rectified flow: from data (t = 0) to noise (t = 1) and what to learn.

x_t = (1 - t) x_0 + t eps, and the velocity along that line, u = eps - x_0, is what the network predicts.
Liu et al. 2023 (rectified flow); Esser et al. 2024 (logit-normal times, timestep shift).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def _per_sample(t: Float[Tensor, " b"], x: Tensor) -> Tensor:
    return t.view(-1, *[1] * (x.ndim - 1))


def add_noise(
    x0: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """x_t = (1 - t) x_0 + t eps, one time for each sample."""
    t = _per_sample(t, x0)
    return (1 - t) * x0 + t * noise


def velocity(x0: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """The flow target u = eps - x_0: how x_t changes with t."""
    return noise - x0


def clean_from_velocity(
    x: Float[Tensor, "b ..."], u: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """The network's guess of x_0 at time t: x_t - t u."""
    return x - _per_sample(t, x) * u


def logit_normal_times(
    n: int, mean: float = 0.0, std: float = 1.0, generator: torch.Generator | None = None
) -> Float[Tensor, " {n}"]:
    """Training times t = sigmoid(mean + std n), n normal: mostly the middle, where there is most to learn."""
    return torch.sigmoid(mean + std * torch.randn(n, generator=generator))


def shift_times(t: Float[Tensor, " n"], shift: float) -> Float[Tensor, " n"]:
    """t' = c t / (1 + (c - 1) t): c > 1 spends more steps near noise, as larger clips need; 0 and 1 stay.

    Raises ValueError unless `shift` (c) is positive.
    """
    if shift <= 0:
        raise ValueError(f"shift={shift} must be positive; 1 changes nothing, 3 is common for larger clips")
    return shift * t / (1 + (shift - 1) * t)


def guided(
    conditional: Float[Tensor, "..."], unconditional: Float[Tensor, "..."], scale: float
) -> Float[Tensor, "..."]:
    """Classifier-free guidance: f = f_null + s (f_y - f_null).

    s = 1 is plain conditional, s = 0 ignores the prompt. Ho & Salimans 2022, whose w is s - 1.
    """
    return unconditional + scale * (conditional - unconditional)
