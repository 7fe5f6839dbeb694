"""Patches: cutting pictures and videos into tokens and putting tokens together again (chapters 05 and 09).

A patch is a square of a picture, or a box of a video, and becomes one token: its numbers in a row. Patches
stand in raster order, along the rows, row after row, frame after frame, and so do the cells inside a patch;
the channels of a cell stay together: d = (rows, columns, channels). A convolution keeps its weight as
(channels, rows, columns); `convolution_weight` carries a linear map from the one order to the other.
"""

import math

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


def patchify(x: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b n d"]:
    """Cuts pictures into squares of `patch` pixels a side: n = h w / patch^2 tokens of d = patch^2 c numbers.

    Raises ValueError where a side does not divide. Source: Dosovitskiy et al. 2021, section 3.1.
    """
    _refuse_axes("x", x, "b c h w")
    check_divides(tuple(x.shape[2:]), (patch, patch))
    return rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(
    tokens: Float[Tensor, "b n d"], patch: int, grid: tuple[int, int]
) -> Float[Tensor, "b c {grid[0]*patch} {grid[1]*patch}"]:
    """Undoes `patchify`; `grid` = (rows, columns) of patches, which n alone does not tell.

    Raises ValueError where the grid holds another number of tokens, or d is no whole number of channels.
    """
    _refuse_axes("tokens", tokens, "b n d")
    if tokens.shape[1] != math.prod(grid):
        raise ValueError(f"tokens has {tokens.shape[1]} tokens; the grid {grid} holds {math.prod(grid)}")
    if tokens.shape[2] % patch**2:
        raise ValueError(
            f"tokens has {tokens.shape[2]} channels; patches of {patch} take a multiple of {patch**2}"
        )
    h, w = grid
    return rearrange(tokens, "b (h w) (p q c) -> b c (h p) (w q)", h=h, w=w, p=patch, q=patch)


def shuffle_patches(
    x: Float[Tensor, "b c h w"], patch: int, order: Int[Tensor, " n"]
) -> Float[Tensor, "b c h w"]:
    """Pictures with their patches moved: place i gets patch `order[i]`.

    Raises ValueError where a side does not divide, and where `order` does not name every patch once.
    """
    tokens = patchify(x, patch)
    count = tokens.shape[1]
    if sorted(order.tolist()) != list(range(count)):
        raise ValueError(f"order={order.tolist()}: it must name each of the patches 0 to {count - 1} once")
    return unpatchify(tokens[:, order], patch, (x.shape[2] // patch, x.shape[3] // patch))


def convolution_weight(
    weight: Float[Tensor, "out d"], channels: int, patch: int
) -> Float[Tensor, "out {channels} {patch} {patch}"]:
    """A linear map of flattened patches, as the kernel of a convolution with kernel and stride `patch`.

    `weight` as `nn.Linear` keeps it. Raises ValueError where d is not patch^2 channels.
    """
    if weight.shape[-1] != patch**2 * channels:
        raise ValueError(
            f"weight takes {weight.shape[-1]} numbers; a patch of {patch} with {channels} channels has "
            f"{patch**2 * channels}"
        )
    return rearrange(weight, "out (p q c) -> out c p q", p=patch, q=patch)


def patchify_video(x: Float[Tensor, "b c t h w"], patch: tuple[int, int, int]) -> Float[Tensor, "b n d"]:
    """Cuts a video into spacetime patches of `patch` = (t, h, w) cells, raster order, d = pt ph pw c.

    Raises ValueError where a side does not divide. Source: Arnab et al. 2021 (ViViT), tubelets.
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


def check_divides(size: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    """The grid of patches, if `patch` divides `size`; else a ValueError that names both and what would fit.

    Both are (h, w) for pictures, (t, h, w) for videos.
    """
    if min(patch) < 1:
        raise ValueError(f"patch={patch}: every side must be at least 1")
    if any(side % cell for side, cell in zip(size, patch, strict=True)):
        axes = ", ".join(("t", "h", "w")[-len(size) :])
        near = tuple(max(cell, side - side % cell) for side, cell in zip(size, patch, strict=True))
        raise ValueError(
            f"x has size {size} ({axes}), which patches of {patch} do not divide; {near} would fit"
        )
    return tuple(side // cell for side, cell in zip(size, patch, strict=True))


def _refuse_axes(name: str, x: Tensor, axes: str) -> None:
    if x.ndim != len(axes.split()):
        raise ValueError(f"{name} has shape {tuple(x.shape)}; give ({axes.replace(' ', ', ')})")
