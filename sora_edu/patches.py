"""Patches: cutting latents into tokens and putting tokens together again."""

import math

from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def patchify_video(x: Float[Tensor, "b c t h w"], patch: tuple[int, int, int]) -> Float[Tensor, "b n d"]:
    """Cuts a video into spacetime patches of `patch` = (t, h, w) cells, raster order, d = pt ph pw c.

    Raises ValueError where a side does not divide.
    """
    check_divides(tuple(x.shape[2:]), patch)
    pt, ph, pw = patch
    return rearrange(x, "b c (t pt) (h ph) (w pw) -> b (t h w) (pt ph pw c)", pt=pt, ph=ph, pw=pw)


def unpatchify_video(
    tokens: Float[Tensor, "b n d"], patch: tuple[int, int, int], grid: tuple[int, int, int]
) -> Float[Tensor, "b c t h w"]:
    """Undoes `patchify_video`; `grid` = (t, h, w) counts the patches along each side.

    Raises ValueError where the grid holds another number of tokens.
    """
    if tokens.shape[1] != math.prod(grid):
        raise ValueError(f"tokens has {tokens.shape[1]} tokens; the grid {grid} holds {math.prod(grid)}")
    (pt, ph, pw), (t, h, w) = patch, grid
    return rearrange(
        tokens, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", t=t, h=h, w=w, pt=pt, ph=ph, pw=pw
    )


def check_divides(size: tuple[int, int, int], patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """The grid of patches, if `patch` divides `size`; else a ValueError that names both."""
    if any(side % cell for side, cell in zip(size, patch, strict=True)):
        raise ValueError(f"x has size {size} (t, h, w), which patches of {patch} do not divide")
    return tuple(side // cell for side, cell in zip(size, patch, strict=True))
