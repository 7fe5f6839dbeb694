"""Positions: how a token learns where it stands (chapter 02).

A transformer sees a bag of tokens. Everything here turns a place (a word's number in a sentence, a patch's
row and column, a spacetime patch's frame, row and column) into something that can be added to a token
(sinusoidal and learned codes) or by which queries and keys are turned (rotary codes, RoPE).

Shapes: n tokens, d channels, one row of `coordinates` per token, one column per axis in the order
(time, height, width). Tokens are in raster order: width runs fastest, time slowest.
Angles are worked out in float64 and handed back as float32: in float32 a place of a few thousand times a
frequency is off in the fourth decimal.

Sources: Vaswani et al. 2017, section 3.5 (sinusoids); Dosovitskiy et al. 2021, ViT (learned tables); Dehghani
et al. 2023, NaViT (one learned table per axis); Su et al. 2021, RoFormer (rotary codes); Peebles & Xie 2023,
DiT (the 2-D layout of released weights).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = [
    "LearnedPositions", "frequencies", "grid", "rope_angles", "rope_angles_3d", "rope_angles_at", "rotate",
    "shift_matrix", "sinusoidal", "sinusoidal_2d", "sinusoidal_2d_dit", "sinusoidal_3d", "sinusoidal_at",
    "split_channels",
]  # fmt: skip


def frequencies(dim: int, base: float | int = 10000.0) -> Float[Tensor, " {dim}//2"]:
    """The turning speed of each pair of channels: base^(-2i/dim) for i = 0 .. dim/2 - 1.

    In radians per position, float64. Pair 0 turns by 1 radian a step; the last one turns about `base` times
    slower. Raises ValueError for an odd or too small dim (channels come in pairs) and for base <= 1.
    Source: Vaswani et al. 2017, section 3.5.
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"dim={dim}: must be even and at least 2, for channels come in pairs (sine, cosine)")
    if not base > 1:
        raise ValueError(f"base={base}: must be greater than 1, so that later pairs turn more slowly")
    even = torch.arange(0, dim, 2, dtype=torch.float64)
    return base ** (-even / dim)


def sinusoidal(length: int, dim: int, base: float | int = 10000.0) -> Float[Tensor, "length dim"]:
    """Sinusoidal code of the positions 0 .. length - 1, one row each, sine and cosine interleaved.

    P[p, 2i] = sin(p w_i) and P[p, 2i+1] = cos(p w_i), with w from `frequencies(dim, base)`; float32.
    Raises ValueError for a length below 1 and what `frequencies` refuses.
    Source: Vaswani et al. 2017, section 3.5.
    """
    if length < 1:
        raise ValueError(f"length={length}: must be at least 1")
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies(dim, base)
    code = torch.empty(length, dim)
    code[:, 0::2] = angles.sin()
    code[:, 1::2] = angles.cos()
    return code


def shift_matrix(steps: float | int, dim: int, base: float | int = 10000.0) -> Float[Tensor, "dim dim"]:
    """The matrix R_k that moves every sinusoidal code by k = `steps`: P[p + k] = R_k @ P[p], whatever p is.

    Block diagonal: one 2x2 rotation for each (sine, cosine) pair, float64. Steps may be negative or broken.
    """
    angles = steps * frequencies(dim, base)
    cos, sin = angles.cos(), angles.sin()
    # sin(a + b) = sin a cos b + cos a sin b;  cos(a + b) = cos a cos b - sin a sin b
    return torch.block_diag(*torch.stack([cos, sin, -sin, cos], dim=-1).view(-1, 2, 2))


# --- grids -----------------------------------------------------------------------------------------------


def grid(*sizes: int) -> Int[Tensor, "n axes"]:
    """Coordinates of every cell of a grid, in raster order: `grid(2, 3)` is (0,0) (0,1) (0,2) (1,0) ...

    One size per axis, (frames, height, width) for video. Raises ValueError for no size or one below 1.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes={sizes}: give one size of at least 1 for each axis")
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes)).view(-1, len(sizes))


def split_channels(dim: int, axes: int) -> tuple[int, ...]:
    """Shares `dim` channels among `axes` axes: equal, even parts that add up to dim.

    Channels are handed out in pairs; pairs left over go to the last axes, so that width and height are never
    coarser than time: `split_channels(64, 3)` is (20, 22, 22). Raises ValueError when dim is odd or has fewer
    than one pair for each axis.
    """
    if axes < 1:
        raise ValueError(f"axes={axes}: must be at least 1")
    if dim % 2 or dim < 2 * axes:
        raise ValueError(f"dim={dim}: must be even and at least {2 * axes}, one pair for each of {axes} axes")
    each, spare = divmod(dim // 2, axes)
    return tuple(2 * (each + (axis >= axes - spare)) for axis in range(axes))


def sinusoidal_at(
    coordinates: Float[Tensor, "n axes"] | Int[Tensor, "n axes"],
    dim: int,
    base: float | int = 10000.0,
    parts: Sequence[int] | None = None,
) -> Float[Tensor, "n {dim}"]:
    """Sinusoidal code of any coordinates, fractions too: the codes of the axes side by side.

    `parts` says how many channels each axis gets (even, adding up to dim); `split_channels` by default.
    The result is float32 on the device of the coordinates. Raises ValueError when parts do not fit.
    """
    angles = _axis_angles(coordinates, dim, base, parts)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2).float()


def sinusoidal_2d(
    height: int, width: int, dim: int, base: float | int = 10000.0
) -> Float[Tensor, "{height}*{width} {dim}"]:
    """Code of an image's patches: the row's code in the first channels, the column's in the others.

    Row `y * width + x` belongs to the patch at row y, column x. Raises ValueError for sizes below 1 and for a
    dim that `split_channels` refuses.
    """
    return sinusoidal_at(grid(height, width), dim, base)


def sinusoidal_3d(
    frames: int, height: int, width: int, dim: int, base: float | int = 10000.0
) -> Float[Tensor, "{frames}*{height}*{width} {dim}"]:
    """Code of a video's spacetime patches: the codes of frame, row and column side by side.

    Row `(t * height + y) * width + x` belongs to the patch of frame t, row y, column x. Any even dim from 6
    works: `split_channels` makes even parts, time's never the largest. Raises ValueError otherwise.
    """
    return sinusoidal_at(grid(frames, height, width), dim, base)


def sinusoidal_2d_dit(height: int, width: int, dim: int) -> Float[Tensor, "{height}*{width} {dim}"]:
    """The same information as `sinusoidal_2d` in the channel order of the released DiT weights.

    There the first half of the channels codes the *column* and the second the row, and within a half all
    sines come before all cosines. The frequencies are the same, and so is what a fresh network can learn from
    it; only weights that were trained with one order need that order. Raises ValueError unless dim is a
    multiple of 4. Source: Peebles & Xie 2023, released code.
    """
    if dim < 4 or dim % 4:
        raise ValueError(f"dim={dim}: must be a multiple of 4, a sine and a cosine for each of two axes")
    row, column = _axis_angles(grid(height, width), dim, 10000.0, None).chunk(2, dim=1)
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1).float()


def _axis_angles(coordinates, dim, base, parts) -> Float[Tensor, "n {dim}//2"]:
    """Coordinate times frequency for each pair of channels, axis after axis, in float64."""
    if coordinates.ndim != 2:
        raise ValueError(f"coordinates of shape {tuple(coordinates.shape)}: must be (n, axes)")
    axes = coordinates.shape[1]
    parts = split_channels(dim, axes) if parts is None else tuple(parts)
    if len(parts) != axes or sum(parts) != dim:
        raise ValueError(f"parts={parts}: must be {axes} even numbers that add up to dim={dim}")
    place = coordinates.double()
    angles = [place[:, [axis]] * frequencies(part, base).to(place.device) for axis, part in enumerate(parts)]
    return torch.cat(angles, dim=1)


# --- learned ---------------------------------------------------------------------------------------------


class LearnedPositions(nn.Module):
    """Positions as parameters: a table of vectors for each axis, added up over the axes.

    One axis is the table of BERT, GPT and ViT; two and three are NaViT's factorised tables. A row that
    training never used stays what it was at the start, and a place beyond the table has no row at all.
    """

    def __init__(self, sizes: Sequence[int], dim: int, std: float = 0.02):
        """`sizes`: the largest size of each axis; `std`: spread of the initial values."""
        super().__init__()
        if not sizes or min(sizes) < 1 or dim < 1:
            raise ValueError(f"sizes={tuple(sizes)}, dim={dim}: every size and dim must be at least 1")
        self.tables = nn.ParameterList(nn.Parameter(std * torch.randn(size, dim)) for size in sizes)

    def forward(self, *sizes: int) -> Float[Tensor, "n d"]:
        """Codes of a grid of the given sizes in raster order. Raises ValueError beyond the tables."""
        known = tuple(len(table) for table in self.tables)
        if len(sizes) != len(known) or any(not 1 <= s <= k for s, k in zip(sizes, known, strict=True)):
            raise ValueError(f"sizes={sizes}: must be at most {known}; nothing was learned beyond the tables")
        places = grid(*sizes).to(self.tables[0].device)
        return sum(table[places[:, axis]] for axis, table in enumerate(self.tables))


# --- rotary (RoPE) ---------------------------------------------------------------------------------------


def rope_angles(
    positions: Float[Tensor, " n"] | Int[Tensor, " n"], dim: int, base: float | int = 10000.0
) -> Float[Tensor, "n {dim}//2"]:
    """The angle by which RoPE turns each pair of channels at each position: position times frequency.

    `dim` is the width of one attention head. float32, in radians. Raises what `frequencies` refuses.
    Source: Su et al. 2021, RoFormer, section 3.2.
    """
    return rope_angles_at(positions[:, None], dim, base)


def rope_angles_at(
    coordinates: Float[Tensor, "n axes"] | Int[Tensor, "n axes"],
    dim: int,
    base: float | int = 10000.0,
    parts: Sequence[int] | None = None,
) -> Float[Tensor, "n {dim}//2"]:
    """RoPE angles on a grid: the head's pairs are shared among the axes, each turned by its own coordinate.

    `parts` as in `sinusoidal_at`; Open-Sora 2.0 gives 16, 56 and 56 of a head's 128 channels to time, height
    and width. float32, in radians. Raises ValueError when parts do not fit.
    """
    return _axis_angles(coordinates, dim, base, parts).float()


def rope_angles_3d(
    frames: int,
    height: int,
    width: int,
    dim: int,
    base: float | int = 10000.0,
    parts: Sequence[int] | None = None,
) -> Float[Tensor, "{frames}*{height}*{width} {dim}//2"]:
    """RoPE angles of a video's spacetime patches, in the raster order of `grid(frames, height, width)`."""
    return rope_angles_at(grid(frames, height, width), dim, base, parts)


def rotate(x: Float[Tensor, "*batch n d"], angles: Float[Tensor, "n d//2"]) -> Float[Tensor, "*batch n d"]:
    """Turns each pair of channels (2i, 2i+1) of every token by its angle; lengths stay as they are.

    Applied to queries and keys alike it makes their dot products depend on differences of position only. The
    result has x's dtype. Raises ValueError when the angles do not fit x. Source: Su et al. 2021, RoFormer.
    """
    if x.shape[-2:] != (angles.shape[0], 2 * angles.shape[1]):
        raise ValueError(f"angles of shape {tuple(angles.shape)} turn tokens of shape (…, {angles.shape[0]}, "
                         f"{2 * angles.shape[1]}); x has {tuple(x.shape)}")  # fmt: skip
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
