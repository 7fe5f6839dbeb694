"""Patches: cutting pictures and videos into tokens, and packing tokens of many sizes (chapters 05 and 09).

A patch is a square of a picture, or a box of a video, and becomes one token: its numbers in a row. Patches
stand in raster order, along the rows, row after row, frame after frame, and so do the cells inside a patch;
the channels of a cell stay together: d = (rows, columns, channels). A convolution keeps its weight as
(channels, rows, columns); `convolution_weight` carries a linear map from the one order to the other.

Clips of several sizes give sequences of several lengths. `pack` puts them one behind another into rows of one
length, with a mask that keeps them apart; every token carries its place in its own clip.

Sources: Dosovitskiy et al. 2021 (ViT), Arnab et al. 2021 (ViViT: tubelets and how to start them), Dehghani et
al. 2023 (NaViT: packing and dropping).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from sora_edu.positions import grid as grid_of

STARTS = ("central", "inflated")
"""How a projection of tubelets can start from one of square patches."""

PADDING = -1
"""The number, in place of a sample's, of a token that belongs to none."""


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


# --- tubelets --------------------------------------------------------------------------------------------


def sample_frames(x: Float[Tensor, "b c t h w"], step: int) -> Float[Tensor, "b c t2 h w"]:
    """Uniform frame sampling: of every `step` frames the middle one, number step // 2 counted from 0.

    Raises ValueError where `step` does not divide the number of frames. Source: ViViT, section 3.2.
    """
    if step < 1:
        raise ValueError(f"step={step}: must be at least 1; 1 takes every frame")
    check_divides(tuple(x.shape[2:]), (step, 1, 1))
    return x[:, :, step // 2 :: step]


def tubelet_weight(
    weight: Float[Tensor, "out d"], frames: int, start: str = "central"
) -> Float[Tensor, "out {frames}*d"]:
    """A projection of square patches, made into one of tubelets: a video model starts from an image model.

    "central" puts the weight at frame frames // 2 and zeros at the others: the tokens of a video are those of
    `sample_frames`. "inflated" puts the weight, divided by `frames`, at every frame: each token is the mean
    over its frames. Columns run as tokens do: frame, row, column, channel.

    Raises ValueError for no frame and for another start. Source: ViViT, section 3.4, equations 8 and 9;
    inflation is of Carreira and Zisserman 2017.
    """
    if frames < 1:
        raise ValueError(f"frames={frames}: a tubelet has at least 1")
    if start not in STARTS:
        raise ValueError(f"start={start!r} is unknown; use one of: {', '.join(STARTS)}")
    shares = torch.full((frames,), 1 / frames)
    if start == "central":
        shares = torch.arange(frames) == frames // 2
    return torch.cat([share * weight for share in shares.to(weight)], dim=1)


def tubelet_kernel(
    weight: Float[Tensor, "out d"], channels: int, patch: tuple[int, int, int]
) -> Float[Tensor, "out {channels} {patch[0]} {patch[1]} {patch[2]}"]:
    """A linear map of flattened tubelets, as the kernel of a 3-D convolution with kernel and stride `patch`.

    What `convolution_weight` is to pictures. Raises ValueError where d is not the numbers of a tubelet.
    """
    if weight.shape[-1] != math.prod(patch) * channels:
        raise ValueError(
            f"weight takes {weight.shape[-1]} numbers; a tubelet of {patch} with {channels} channels has "
            f"{math.prod(patch) * channels}"
        )
    pt, ph, pw = patch
    return rearrange(weight, "out (pt ph pw c) -> out c pt ph pw", pt=pt, ph=ph, pw=pw)


# --- packing ---------------------------------------------------------------------------------------------


def first_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Which samples share a row of `size` tokens: each in its turn goes into the first row with room for it.

    Gives the numbers of the samples, row by row. It takes them in the order in which they come, and needs no
    look at what is still to come. Raises ValueError for a sample without tokens, and for one that no row can
    hold.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number, length in enumerate(lengths):
        if not 1 <= length <= size:
            raise ValueError(f"sample {number} has {length} tokens; a row holds 1 to size={size}")
        row = next((k for k, left in enumerate(room) if length <= left), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(size)
        rows[row].append(number)
        room[row] -= length
    return rows


def packing_mask(samples: Int[Tensor, "b n"]) -> Bool[Tensor, "b 1 n n"]:
    """Who may look at whom in packed rows: every token at the tokens of its own sample.

    `samples` says whose token stands at each place, `PADDING` where none does: padding looks at nothing and
    is looked at by nobody. The axis of 1 stands for the heads. Source: NaViT, section 2.1.
    """
    same = samples[:, :, None] == samples[:, None, :]
    real = samples != PADDING
    return (same & real[:, None, :])[:, None]


def kept_tokens(
    count: int, drop: float | int, generator: torch.Generator | None = None
) -> Int[Tensor, " kept"]:
    """The places, in raster order, of the tokens that are left when a random share `drop` of them goes.

    Raises ValueError for a share outside [0, 1), and for one that leaves nothing. Source: NaViT, section 2.2.
    """
    if not 0 <= drop < 1:
        raise ValueError(f"drop={drop}: must be at least 0 and below 1")
    kept = count - round(drop * count)
    if kept < 1:
        raise ValueError(f"drop={drop} leaves none of {count} tokens; at least one must stay")
    return torch.randperm(count, generator=generator)[:kept].sort().values


@dataclass(frozen=True)
class Packed:
    """Tokens of many samples in rows of one length."""

    tokens: Float[Tensor, "b n d"]
    """The tokens, zeros where there is none."""
    samples: Int[Tensor, "b n"]
    """The number of the sample that each belongs to, or `PADDING`."""
    coordinates: Int[Tensor, "b n axes"]
    """The place of each in its own sample's grid: frame, row, column, counted from 0."""

    @property
    def mask(self) -> Bool[Tensor, "b 1 n n"]:
        """Who may look at whom; see `packing_mask`."""
        return packing_mask(self.samples)

    @property
    def padding(self) -> float:
        """The share of places that hold no token."""
        return (self.samples == PADDING).float().mean().item()

    def split(self, values: Shaped[Tensor, "b n e"]) -> list[Shaped[Tensor, "_ e"]]:
        """What stands at the places of each sample, in the order of the samples."""
        count = int(self.samples.max()) + 1
        return [values[self.samples == number] for number in range(count)]

    def means(self, values: Float[Tensor, "b n e"]) -> Float[Tensor, "count e"]:
        """The mean over the tokens of each sample: what an unpacked `values.mean(1)` would be."""
        return torch.stack([own.mean(0) for own in self.split(values)])


def pack(
    videos: Sequence[Float[Tensor, "c _ _ _"]],
    patch: tuple[int, int, int],
    size: int,
    drop: Sequence[float | int] | None = None,
    generator: torch.Generator | None = None,
) -> Packed:
    """Cuts videos and pictures (videos of one frame) of any sizes, "c t h w" each, and packs the tokens.

    Args:
        videos: pixels or latents; equally many channels.
        patch: (t, h, w) cells of a spacetime patch.
        size: places in a row.
        drop: for each video the share of its tokens that is dropped; None drops none.
        generator: of what is dropped.

    Raises:
        ValueError: no video, channels that differ, a side that the patch does not divide, a video with more
            tokens than a row has places, or drops for another number of videos.

    Source: NaViT, section 2.1.
    """
    drop = [0.0] * len(videos) if drop is None else list(drop)
    channels = {video.shape[0] for video in videos}
    if len(channels) != 1 or len(drop) != len(videos):
        raise ValueError(
            f"{len(videos)} videos with channels {sorted(channels)} and {len(drop)} drops: give at least one "
            "video, the same channels in all, and a drop for each"
        )
    for video in videos:
        _refuse_axes("video", video, "c t h w")
    tokens, places = [], []
    for video, share in zip(videos, drop, strict=True):
        cells = grid_of(*check_divides(tuple(video.shape[1:]), patch))
        kept = kept_tokens(len(cells), share, generator)
        tokens.append(patchify_video(video[None], patch)[0, kept])
        places.append(cells[kept])
    rows = first_fit([len(own) for own in tokens], size)
    packed = tokens[0].new_zeros(len(rows), size, tokens[0].shape[1])
    samples = torch.full((len(rows), size), PADDING)
    coordinates = torch.zeros(len(rows), size, len(patch), dtype=torch.long)
    for row, members in enumerate(rows):
        begin = 0
        for number in members:
            span = slice(begin, begin := begin + len(tokens[number]))
            packed[row, span], samples[row, span] = tokens[number], number
            coordinates[row, span] = places[number]
    return Packed(packed, samples.to(packed.device), coordinates.to(packed.device))


# --- crops -----------------------------------------------------------------------------------------------

Box = tuple[slice, slice]
"""Rows and columns of a rectangle, start included, stop excluded."""


def central_square(height: int, width: int) -> Box:
    """The largest square about the middle of a frame: what is left when all data are cropped to squares.

    Raises ValueError for a frame without pixels.
    """
    if min(height, width) < 1:
        raise ValueError(f"height={height}, width={width}: both must be at least 1")
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)


def share_inside(box: Box, window: Box) -> float:
    """The share of a box's area that lies in a window: 1 if all of it is seen, 0 if nothing.

    Raises ValueError for a box without area.
    """
    if any(side.stop <= side.start for side in box):
        raise ValueError(f"box={box} has no area; its sides must stop after they start")
    share = 1.0
    for side, opening in zip(box, window, strict=True):
        seen = min(side.stop, opening.stop) - max(side.start, opening.start)
        share *= max(0, seen) / (side.stop - side.start)
    return share


# --- bad input -------------------------------------------------------------------------------------------


def check_divides(size: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    """The grid of patches, if `patch` divides `size`; else a ValueError that names both and what would fit.

    Both are (h, w) for pictures, (t, h, w) for videos.
    """
    if min(patch) < 1:
        raise ValueError(f"patch={patch}: every side must be at least 1")
    if len(size) != len(patch):
        raise ValueError(f"x has {len(size)} sides, {size}, and patches of {patch} have {len(patch)}")
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
