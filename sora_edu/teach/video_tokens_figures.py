"""The pictures of chapter 09 that take more lines than a notebook's cell should have."""

import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.patches import PADDING, Box, Packed, check_divides, first_fit, share_inside
from sora_edu.teach.figures import PALETTE, bare, pixels, show
from sora_edu.train import tubelets as trainings

Curve = Sequence[tuple[int, float]]
"""Pairs (step, share right)."""

LOOKS = {
    "one frame": "ink",
    "frames, order unknown": "orange",
    "tubelets, order unknown": "blue",
    "frames": "orange",
    "tubelets, central start": "blue",
    "tubelets, inflated start": "green",
    "tubelets, random start": "vermilion",
}
"""Palette colours of what is compared."""

_FILL = ("blue", "orange", "green", "vermilion", "purple", "sky", "yellow")


def reference() -> dict:
    """The reference runs of the chapter."""
    return json.loads(data_path("curves", "09_tubelets.json").read_text())


# --- the autoencoder -------------------------------------------------------------------------------------


def round_trip(
    clip: Float[Tensor, "3 f h w"], latents: Float[Tensor, "c t h8 w8"], again: Float[Tensor, "3 f h w"]
) -> None:
    """A clip, one channel of its latents under the frames that each stands for, and the decoded clip."""
    frames, count = clip.shape[1], latents.shape[1]
    aspect = clip.shape[2] / clip.shape[3]
    fig, ax = plt.subplots(figsize=(13, 13 / frames * aspect * 6.4 + 0.3))
    limit = float(latents[0].abs().max())
    rows = {"the clip": 4.4 * aspect, "its latents\n(1 channel of 16)": 1.7 * aspect, "decoded": 0.0}
    top, middle, low = rows.values()
    for name, bottom in rows.items():
        ax.text(-0.8, bottom + (0.85 if bottom == middle else 0.5) * aspect, name, ha="right", va="center")
    for k in range(frames):
        for film, bottom in ((clip, top), (again, low)):
            ax.imshow(pixels(film[:, k]), extent=(k, k + 0.94, bottom, bottom + aspect))
    for k in range(count):
        left, right = (0.05, 0.89) if k == 0 else (4 * k - 2.95, 4 * k + 0.89)
        side, centre = 1.9, (left + right) / 2
        ax.imshow(
            latents[0, k].detach().numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit,
            extent=(centre - side / 2, centre + side / 2, middle, middle + side * aspect),
        )  # fmt: skip
        for y in (top - 0.25 * aspect, low + 1.25 * aspect):
            ax.plot((left, right), (y, y), color=PALETTE["vermilion"], solid_capstyle="butt")
    ax.set(xlim=(-0.6, frames), ylim=(-0.05, top + aspect + 0.05), aspect="equal")
    bare(ax)
    show(
        fig,
        alt=(
            f"{frames} frames of a clip; under them {count} latent frames, the first under the first frame,"
            f" each other under four; below, the {frames} decoded frames, nearly the same as above."
        ),
    )


def flicker_against_noise(
    levels: Sequence[float], found: Mapping[str, Mapping[str, Sequence[float]]]
) -> None:
    """Flicker of decoded clips by how wrong the latents are: one panel for each kind of clip."""
    fig, axes = plt.subplots(1, len(found), figsize=(12.5, 4.6), sharey=True)
    spoken = []
    for ax, (kind, curves) in zip(axes, found.items(), strict=True):
        for (name, values), colour in zip(curves.items(), ("blue", "orange"), strict=True):
            ax.plot(levels, [127.5 * value for value in values], "o-", color=PALETTE[colour], label=name)
            ends = f"{127.5 * values[0]:.1f} to {127.5 * values[-1]:.1f}"
            spoken.append(f"{kind}, {name}: {ends}")
        ax.set(title=kind, xlabel="noise added to the latents")
    axes[0].set_ylabel("flicker (levels of 255)")
    axes[0].legend()
    show(fig, alt=f"Flicker against noise on the latents, from none to most. {'; '.join(spoken)}.")


# --- tubelets --------------------------------------------------------------------------------------------


def what_a_token_sees(
    clip: Float[Tensor, "c f h w"], tubelet: int, patch: int, cell: tuple[int, int]
) -> None:
    """Frames of a clip twice: sampled, and cut in tubelets. The token at `cell` of each slot is framed."""
    frames, row, column = clip.shape[1], *cell
    fig, axes = plt.subplots(2, frames, figsize=(13, 3.9))
    titles = ("sampled frames: a token sees one moment", "tubelets: a token sees a few moments in a row")
    for line, (title, all_seen) in zip(axes, zip(titles, (False, True), strict=True), strict=True):
        line[frames // 2].set_title(title)
        for k, ax in enumerate(line):
            seen = all_seen or k % tubelet == tubelet // 2
            picture = pixels(clip[:, k])
            ax.imshow(picture if seen else 0.2 * picture + 0.75)
            bare(ax)
            if seen:
                corner = (patch * column - 0.5, patch * row - 0.5)
                colour = PALETTE[("vermilion", "blue", "green")[k // tubelet % 3]]
                ax.add_patch(Rectangle(corner, patch, patch, fill=False, edgecolor=colour, lw=4))
    show(
        fig,
        alt=(
            f"{frames} frames of a clip, twice. Above, every third is kept and the others are faded; a square"
            f" is framed in each. Below, all are kept, and the same square is framed in {tubelet} frames at a"
            " time, in one colour for each token."
        ),
    )


def learning_curves(kept: Mapping[str, Mapping], mine: Mapping[str, Curve]) -> None:
    """The learner's curves in front of the reference runs: order unknown on the left, known on the right."""
    groups = {
        "order of time unknown": ("one frame", "frames, order unknown", "tubelets, order unknown"),
        "order of time known": (
            "frames", "tubelets, central start", "tubelets, inflated start", "tubelets, random start",
        ),
    }  # fmt: skip
    fig, axes = plt.subplots(1, 2, figsize=(13.5, 5.8), sharey=True)
    spoken = []
    for ax, (title, names) in zip(axes, groups.items(), strict=True):
        for name in names:
            runs, steps, colour = 100 * np.array(kept[name]["share_right"]), kept[name]["steps"], LOOKS[name]
            ax.fill_between(steps, runs.min(0), runs.max(0), color=PALETTE[colour], alpha=0.25, lw=0)
            label = name.removesuffix(", order unknown")  # the title says it
            ax.plot(steps, runs.mean(0), "--", lw=1.8, color=PALETTE[colour], label=label)
            spoken.append(f"{name} {runs[:, -1].mean():.0f} %")
            if name in mine:
                at, shares = np.array(mine[name]).T
                ax.plot(at, 100 * shares, color=PALETTE[colour], label=f"{label} (yours)")
        ax.axhline(50, color=PALETTE["grey"], lw=1, ls=":")
        ax.set(title=title, xlabel="training step", ylim=(0, 104))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    axes[0].set_ylabel("motions named right (%)")
    show(
        fig,
        alt=f"Share of test clips whose motion is named right. Reference runs: {', '.join(spoken)}.",
    )


def confusions(kept: Mapping[str, Mapping], motions: Sequence[str], names: Sequence[str]) -> None:
    """Which motion was taken for which, over all reference runs of each reader, in per cent."""
    fig, axes = plt.subplots(1, len(names), figsize=(11.5, 5.6), sharey=True)
    spoken = []
    for ax, name in zip(axes, names, strict=True):
        counts = np.array(kept[name]["confusion"]).sum(0)
        shares = 100 * counts / counts.sum(1, keepdims=True)
        ax.imshow(shares, vmin=0, vmax=100)
        for (row, column), share in np.ndenumerate(shares):
            ax.text(
                column, row, f"{share:.0f}", ha="center", va="center", fontsize=13,
                color="white" if share < 60 else "black",
            )  # fmt: skip
        ax.set_title(name)
        ax.set_xticks(range(len(motions)), motions, rotation=40, ha="right")
        ax.set_yticks(range(len(motions)), motions)
        ax.set_xlabel("said")
        right = (f"{m} {share:.0f}" for m, share in zip(motions, shares.diagonal(), strict=True))
        spoken.append(f"{name}: {', '.join(right)}")
    axes[0].set_ylabel("true")
    show(fig, alt=f"True motions against answers. Per cent right: {'; '.join(spoken)}.")


# --- packing ---------------------------------------------------------------------------------------------


def _bars(ax: Axes, rows: Sequence[Sequence[int]], lengths: Sequence[int], size: int) -> float:
    """Draws rows of samples, each in its colour, and what is left in grey; says what share is left."""
    for row, members in enumerate(rows):
        ax.barh(row, size, 0.82, color=PALETTE["pale"], edgecolor=PALETTE["grey"], hatch="////", lw=0.8)
        begin = 0
        for number in members:
            colour = PALETTE[_FILL[number % len(_FILL)]]
            ax.barh(row, lengths[number], 0.82, left=begin, color=colour, edgecolor="white", lw=1.5)
            begin += lengths[number]
    ax.set(xlim=(0, size), xlabel="tokens", yticks=[])
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    return 1 - sum(lengths) / (size * len(rows))


def padded_and_packed(lengths: Sequence[int], size: int) -> None:
    """The same samples, each padded to the longest, and packed first fit into rows of `size`."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.5))
    longest, rows = max(lengths), first_fit(lengths, size)
    padded = _bars(left, [[number] for number in range(len(lengths))], lengths, longest)
    packed = _bars(right, rows, lengths, size)
    left.set_title(f"padded to the longest: {len(lengths)} rows, {padded:.0%} padding")
    right.set_title(f"packed: {len(rows)} rows, {packed:.0%} padding")
    show(
        fig,
        alt=(
            f"{len(lengths)} clips and pictures as coloured bars of {min(lengths)} to {longest} tokens. Left,"
            f" one a row, the rest hatched: {padded:.0%} padding. Right, several in a row of {size}:"
            f" {len(rows)} rows, {packed:.0%} padding."
        ),
    )


def promise() -> None:
    """The picture that the chapter ends with: a mixed batch, padded and packed."""
    padded_and_packed([trainings.latent_tokens(size) for size in trainings.mixed_sizes(14, seed=0)], 256)


def mask_of(packed: Packed, row: int = 0) -> None:
    """Who may look at whom in one packed row: the samples' blocks by number, and hatched the padding."""
    mask: Bool[Tensor, "n n"] = packed.mask[row, 0]
    samples: Int[Tensor, " n"] = packed.samples[row]
    n = len(samples)
    fig, ax = plt.subplots(figsize=(5.6, 5))
    ax.imshow(mask.numpy(), cmap="Greys", vmin=0, vmax=2.2)
    for number in samples.unique().tolist():
        places = (samples == number).nonzero()[:, 0]
        first, last = int(places[0]), int(places[-1])
        middle, width = (first + last) / 2, last - first + 1
        if number == PADDING:
            strip = {"facecolor": "white", "edgecolor": PALETTE["grey"], "hatch": "///", "lw": 0}
            for corner, sides in (((first - 0.5, -0.5), (width, n)), ((-0.5, first - 0.5), (n, width))):
                ax.add_patch(Rectangle(corner, *sides, **strip))
            box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            ax.text(last, middle, "padding", ha="right", va="center_baseline", bbox=box)
        elif width < n / 6:  # its name does not fit into it
            ax.text(first - 3, middle, f"clip {number}", ha="right", va="center_baseline")
        else:
            ax.text(middle, middle, f"clip {number}", ha="center", va="center_baseline")
    ax.set(xlabel="may be looked at", ylabel="looks", xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    sizes = ", ".join(str(int((samples == k).sum())) for k in samples.unique().tolist() if k != PADDING)
    hatched = "; the last rows and columns, the padding, are hatched" if (samples == PADDING).any() else ""
    show(fig, alt=f"A square of {n} by {n} places with blocks of {sizes} on its diagonal{hatched}.")


def dropped(clip: Float[Tensor, "3 f h w"], places: Int[Tensor, "n 3"], patch: tuple[int, int, int]) -> None:
    """A clip with the tokens that were dropped in grey; `places` are those that stayed."""
    kept = torch.zeros(check_divides(tuple(clip.shape[1:]), patch), dtype=torch.bool)
    share = 1 - len(places) / kept.numel()
    kept[tuple(places.T)] = True
    for axis, cell in enumerate(patch):
        kept = kept.repeat_interleave(cell, axis)
    frames = clip.shape[1]
    columns = min(frames, 8)
    rows = -(-frames // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(1.6 * columns, 1.65 * rows), squeeze=False)
    for ax in axes.flat[frames:]:
        ax.set_visible(False)
    for k, ax in enumerate(axes.flat[:frames]):
        ax.imshow(pixels(torch.where(kept[k], clip[:, k], torch.tensor(0.4))))
        bare(ax)
    show(fig, alt=f"{frames} frames of a clip with {share:.0%} of its spacetime patches grey, at random.")


# --- crops -----------------------------------------------------------------------------------------------


def crops(
    clips: Sequence[Float[Tensor, "3 f _ _"]], boxes: Sequence[Box], squares: Sequence[Box], frame: int
) -> None:
    """One frame of each clip with its central square, the object's box, and the share that a crop keeps."""
    widths = [clip.shape[3] / clip.shape[2] for clip in clips]
    fig, axes = plt.subplots(1, len(clips), figsize=(13, 3.8), width_ratios=widths, squeeze=False)
    spoken = []
    for ax, clip, box, square in zip(axes[0], clips, boxes, squares, strict=True):
        picture, inside = pixels(clip[:, frame]), np.zeros(clip.shape[2:], bool)
        inside[square] = True
        ax.imshow(np.where(inside[..., None], picture, 0.35 * picture + 0.5))
        for (rows, columns), colour in ((square, "vermilion"), (box, "sky")):
            corner = (columns.start - 0.5, rows.start - 0.5)
            sides = (columns.stop - columns.start, rows.stop - rows.start)
            ax.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=PALETTE[colour], lw=3))
        share = share_inside(box, square)
        ax.set_title(f"{share:.0%} inside")
        bare(ax)
        spoken.append(f"{clip.shape[2]} by {clip.shape[3]}: {share:.0%}")
    show(
        fig,
        alt=(
            "Frames of several shapes with the central square framed and what lies outside faded; the object"
            f" has a box. Share of the box inside, by height and width: {'; '.join(spoken)}."
        ),
    )
