"""The pictures of chapter 05 that take more lines than a notebook's cell should have."""

import json
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.patches import Rectangle
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.data.digits import digits
from sora_edu.patches import patchify, unpatchify
from sora_edu.teach.figures import PALETTE, bare, pixels, show

Curve = Sequence[tuple[int, float]]
"""Pairs (step, share right)."""

LOOKS = {
    "learned positions": "blue",
    "no positions": "vermilion",
    "misread patches": "green",
    "pretrained": "blue",
    "from scratch": "vermilion",
    "from scratch, as many steps in all": "orange",
}
"""Palette colours of what is compared."""


def reference() -> dict:
    """The reference curves of the chapter."""
    return json.loads(data_path("curves", "05_vit.json").read_text())


# --- patches ---------------------------------------------------------------------------------------------


def cut(picture: Float[Tensor, "c h w"], patch: int) -> None:
    """A picture, its patches pulled apart and numbered, and the same patches as a sequence."""
    tokens = patchify(picture[None], patch)
    rows, columns = picture.shape[1] // patch, picture.shape[2] // patch
    squares = unpatchify(tokens.transpose(0, 1), patch, (1, 1))
    fig = plt.figure(figsize=(13, 5.6))
    above, below = fig.subfigures(2, 1, height_ratios=(3, 1.15))
    whole, apart = above.subplots(1, 2)
    whole.imshow(pixels(picture))
    whole.set_title(f"a picture of {picture.shape[1]} by {picture.shape[2]} pixels")
    bare(whole)
    for number, square in enumerate(squares):
        left, top = 1.2 * (number % columns), 1.6 * (number // columns)
        apart.imshow(pixels(square), extent=(left, left + 1, top + 1, top))
        apart.text(left + 0.5, top - 0.08, str(number), ha="center")
    apart.set(xlim=(-0.1, 1.2 * columns), ylim=(1.6 * rows - 0.5, -0.55))
    apart.set_title(f"{rows} by {columns} patches of {patch} by {patch}")
    bare(apart)
    line = below.subplots()
    for number, square in enumerate(squares):
        line.imshow(pixels(square), extent=(1.15 * number, 1.15 * number + 1, 1, 0))
        line.text(1.15 * number + 0.5, 1.15, str(number), ha="center", va="top")
    line.set(xlim=(-0.1, 1.15 * len(squares)), ylim=(1.85, -0.05))
    line.set_title(f"a sequence of {len(squares)} tokens, each of {tokens.shape[2]} numbers")
    bare(line)
    show(
        fig,
        alt=(
            f"A picture, then the same picture as {rows} by {columns} numbered patches with gaps between,"
            f" then the patches in one row, from number 0 at the top left to number {len(squares) - 1}, each"
            " with its number."
        ),
    )  # fmt: skip


def where_a_token_comes_from(picture: Float[Tensor, "c h w"], patch: int, number: int) -> None:
    """The pixels that token `number` is made of: cut by patch, and grouped as the numbers lie in memory."""
    c, h, w = picture.shape
    places = torch.arange(c * h * w).view(1, c, h, w)
    right = patchify(places.float(), patch)[0, number].long()
    wrong = places.reshape(-1, patch * patch * c)[number]
    fig, axes = plt.subplots(1, 2, figsize=(12, 4.4))
    titles = ("cut by patch", "grouped as they lie in memory")
    spoken = []
    for ax, title, found in zip(axes, titles, (right, wrong), strict=True):
        ax.imshow(0.35 * pixels(picture) + 0.65)
        for pixel in sorted({int(place) % (h * w) for place in found}):
            ax.add_patch(Rectangle((pixel % w - 0.5, pixel // w - 0.5), 1, 1, color=PALETTE["vermilion"]))
        channels = {("red", "green", "blue")[int(place) // (h * w)] for place in found}
        said = ", ".join(name for name in ("red", "green", "blue") if name in channels)
        ax.set_title(title)
        ax.set_xlabel(f"token {number} holds: {said}")
        bare(ax)
        spoken.append(f"{title}: {said}")
    show(
        fig,
        alt=(
            f"Where the numbers of token {number} come from. Left, a square of pixels. Right, a stripe of "
            f"pixels across the picture. Colours in the token: {'; '.join(spoken)}."
        ),
    )


# --- attention -------------------------------------------------------------------------------------------


def attention_on_cells(
    x: Float[Tensor, "b 1 h w"],
    before: Float[Tensor, "b n"],
    after: Float[Tensor, "b n"],
    on: Bool[Tensor, "b n"],
) -> None:
    """Noisy pictures, and how the attention on their feature maps is spread before and after training."""
    side = math.isqrt(on.shape[1])
    fig, axes = plt.subplots(3, len(x), figsize=(1.65 * len(x) + 0.4, 4.8))
    rows = {"the\npicture": None, "attention\nbefore": before, "attention\nafter": after}
    top = float(after.max())
    for row, (title, maps) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(title)
        for k, ax in enumerate(row):
            top_left = on[k].view(side, side).nonzero().min(0).values.flip(0) - 0.5
            if maps is None:
                ax.imshow(pixels(x[k]), extent=(-0.5, side - 0.5, side - 0.5, -0.5))
            else:
                ax.imshow(maps[k].view(side, side), vmin=0, vmax=top)
            ax.add_patch(Rectangle(top_left.tolist(), 2, 2, fill=False, edgecolor=PALETTE["vermilion"], lw=3))
            bare(ax)
    shares = [(on * maps).sum(1).mean().item() for maps in (before, after)]
    show(
        fig,
        alt=(
            f"{len(x)} fields of scattered ink with a digit in each, marked by a frame. Below, the attention"
            f" on each feature map: {shares[0]:.0%} of it is on the digit before training,"
            f" {shares[1]:.0%} after."
        ),
    )  # fmt: skip


def looks(
    x: Float[Tensor, "b 1 h w"], maps: Float[Tensor, "b rows columns"], titles: Sequence[str] | None = None
) -> None:
    """Pictures with the grid of their patches; below, how much of each patch reaches the class token."""
    (rows, columns), most = maps.shape[1:], 100 * float(maps.max())
    fig, axes = plt.subplots(2, len(x), figsize=(1.45 * len(x) + 1.3, 2.95), squeeze=False)
    for k, (above, below) in enumerate(axes.T):
        above.imshow(pixels(x[k]), extent=(0, columns, rows, 0))
        image = below.imshow(100 * maps[k], extent=(0, columns, rows, 0), vmin=0, vmax=most)
        if titles is not None:
            above.set_title(titles[k])
        for ax in (above, below):
            ax.set(xticks=range(columns + 1), yticks=range(rows + 1), xticklabels=[], yticklabels=[])
            ax.tick_params(length=0)
            ax.grid(color=PALETTE["sky"], linewidth=1)
            ax.spines[:].set_visible(False)
    axes[0, 0].set_ylabel("the\npicture")
    axes[1, 0].set_ylabel("what\nwas read")
    fig.colorbar(image, ax=axes[1], label="share (%)")
    strongest = "; ".join(f"picture {k + 1}: patch {int(m.argmax())}" for k, m in enumerate(maps.flatten(1)))
    show(
        fig,
        alt=(
            f"{len(x)} handwritten digits, each cut into {rows} by {columns} patches. Below, how much of each"
            f" patch reaches the class token. Most comes from: {strongest}."
        ),
    )  # fmt: skip


def promise() -> None:
    """The picture that the chapter ends with, from the reference run."""
    kept = reference()["reading"]["looks"]
    looks(digits("test")[0][kept["test_digits"]], torch.tensor(kept["maps"]).unflatten(1, (4, 4)))


def heads(
    x: Float[Tensor, "1 h w"], maps: Float[Tensor, "depth heads n n"], grid: tuple[int, int]
) -> None:
    """What the class token attends to in one picture: a group of maps for each block, a map for each head."""
    (depth, count), most = maps.shape[:2], 100 * float(maps[:, :, 0].max())
    rows = -(-count // 2)
    fig = plt.figure(figsize=(3.6 + 3.1 * depth, 1.9 * rows + 0.4))
    first, *groups, last = fig.subfigures(1, 2 + depth, width_ratios=(0.75, *[1] * depth, 0.4))
    digit = first.subplots()
    digit.imshow(pixels(x))
    digit.set_title("the picture")
    bare(digit)
    for layer, group in enumerate(groups):
        group.suptitle(f"block {layer + 1}", fontsize=17)
        axes = group.subplots(rows, 2, squeeze=False).ravel()
        for head, ax in enumerate(axes):
            bare(ax)
            if head < count:
                image = ax.imshow(100 * maps[layer, head, 0, 1:].view(grid), vmin=0, vmax=most)
                ax.set_xlabel(f"head {head + 1}")
    bar = last.subplots()
    last.colorbar(image, cax=bar, label="attention (%)")
    bar.set_box_aspect(10)
    show(
        fig,
        alt=(
            f"One digit, and the class token's attention to each of its patches in {depth} blocks of {count}"
            f" heads; the strongest is {most:.0f} per cent."
        ),
    )  # fmt: skip


def position_similarity(table: Float[Tensor, "n d"], grid: tuple[int, int]) -> None:
    """For each place of the grid, how alike its learned code is to those of all places."""
    unit = torch.nn.functional.normalize(table, dim=1)
    alike = (unit @ unit.T).view(*grid, *grid)
    rows, columns = grid
    fig, axes = plt.subplots(rows, columns, figsize=(1.05 * columns + 1.5, 1.05 * rows))
    for (row, column), ax in np.ndenumerate(axes):
        image = ax.imshow(alike[row, column], vmin=-1, vmax=1, cmap="RdBu_r")
        ax.plot(column, row, "o", color="white", markersize=6, markeredgecolor=PALETTE["ink"])
        bare(ax)
    fig.colorbar(image, ax=axes, label="similarity", ticks=(-1, 0, 1))
    show(
        fig,
        alt=(
            f"A {rows} by {columns} grid of small maps, one for each place of a patch: how alike its learned"
            " code is to that of every place."
        ),
    )


# --- curves and scores -----------------------------------------------------------------------------------


def learning_curves(kept: Mapping[str, Mapping], mine: Mapping[str, Curve]) -> None:
    """The learner's curves in front of the spread of the reference runs."""
    fig, ax = plt.subplots(figsize=(11, 4.8))
    for name, colour in LOOKS.items():
        if name not in kept:
            continue
        runs, steps = 100 * np.array(kept[name]["share_right"]), kept[name]["steps"]
        ax.fill_between(steps, runs.min(0), runs.max(0), color=PALETTE[colour], alpha=0.25, lw=0)
        ax.plot(steps, runs.mean(0), "--", lw=1.5, color=PALETTE[colour], label=f"{name} (reference)")
    for name, curve in mine.items():
        steps, shares = zip(*curve, strict=True)
        ax.plot(steps, [100 * share for share in shares], color=PALETTE[LOOKS[name]], label=f"{name} (yours)")
    ax.set(xlabel="training step", ylabel="right on test digits (%)", ylim=(0, 104))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ends = ", ".join(f"{name} {100 * curve[-1][1]:.1f} %" for name, curve in mine.items())
    means = ", ".join(
        f"{name} {100 * np.mean([run[-1] for run in kept[name]['share_right']]):.1f} %"
        for name in LOOKS
        if name in kept
    )
    show(fig, alt=f"Share of test digits read right in training. Yours: {ends}. Reference runs: {means}.")


def shuffled_scores(kept: Mapping[str, Mapping]) -> None:
    """What the reference readers make of test digits as they are, and with their patches shuffled."""
    names = ("learned positions", "no positions")
    fig, ax = plt.subplots(figsize=(9.5, 4.4))
    spoken = []
    for place, name in enumerate(names):
        intact = [100 * run[-1] for run in kept[name]["share_right"]]
        moved = [100 * share for share in kept[name]["shuffled"]]
        for offset, scores, colour in ((-0.18, intact, "blue"), (0.18, moved, "orange")):
            mean = float(np.mean(scores))
            ax.bar(place + offset, mean, 0.32, color=PALETTE[colour], alpha=0.85)
            ax.plot([place + offset] * len(scores), scores, "o", color=PALETTE["ink"], markersize=5)
            ax.text(place + offset, max(scores) + 2.5, f"{mean:.1f}", ha="center")
        spoken.append(f"{name}: {np.mean(intact):.1f} % as they are, {np.mean(moved):.1f} % shuffled")
    ax.bar(0, 0, color=PALETTE["blue"], label="patches in order")
    ax.bar(0, 0, color=PALETTE["orange"], label="patches shuffled")
    ax.set(xticks=range(len(names)), xticklabels=names, ylabel="right (%)", ylim=(0, 110))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show(fig, alt=f"Share of test digits read right. {'; '.join(spoken)}. Dots are three runs each.")


def fine_tuning_scores(kept: Mapping) -> None:
    """Scores by number of handwritten training digits, for each way to start; dots are single runs."""
    sizes, spoken = kept["sizes"], []
    fig, ax = plt.subplots(figsize=(11, 3.9))
    for name, runs in kept["share_right"].items():
        scores, colour = 100 * np.array(runs), PALETTE[LOOKS[name]]
        ax.plot(sizes, scores.T, "o", color=colour, alpha=0.45)
        ax.plot(sizes, scores.mean(0), color=colour, label=name.replace(", as", ",\nas"))
        means = ", ".join(f"{score:.0f}" for score in scores.mean(0))
        spoken.append(f"{name}: {means}")
    ax.set(xscale="log", xlabel="handwritten digits to learn from", ylabel="right on test digits (%)")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set_ylim(0, 104)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    listed = ", ".join(map(str, sizes))
    show(fig, alt=f"Test score in per cent after learning from {listed} digits. {'; '.join(spoken)}.")


def gallery(
    x: Float[Tensor, "b 1 h w"],
    truth: Int[Tensor, " b"],
    said: Int[Tensor, " b"] | None = None,
    columns: int = 12,
) -> None:
    """Digits with their labels; or with what a model `said`, where a mistake stands in red with the truth."""
    rows, answers = -(-len(x) // columns), truth if said is None else said
    side = max(1.05, min(2.2, 6 / columns))  # inches
    fig, axes = plt.subplots(rows, columns, figsize=(side * columns, side * 1.2 * rows + 0.3), squeeze=False)
    for ax in axes.flat:
        bare(ax)
        ax.spines[:].set(visible=True, color="#C8C8C8", linewidth=1)
    for ax, picture, answer, right in zip(axes.flat, x, answers.tolist(), truth.tolist(), strict=False):
        ax.imshow(pixels(picture))
        wrong = answer != right
        ax.set_title(
            f"{answer}, not {right}" if wrong else str(answer), fontsize=14,
            color=PALETTE["vermilion"] if wrong else PALETTE["ink"],
        )  # fmt: skip
    count = int((answers != truth).sum())
    named = "their labels" if said is None else f"a model's answers, {count} of them wrong"
    show(fig, alt=f"{len(x)} digits with {named}: {', '.join(map(str, answers.tolist()))}.")
