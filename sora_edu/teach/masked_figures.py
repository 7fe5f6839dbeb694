"""The pictures of chapter 08 that take more lines than a notebook's cell should have."""

import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.patches import Rectangle
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.data.world import SHAPES
from sora_edu.masked_dit import block_macs, step_macs
from sora_edu.teach.figures import PALETTE, bare, pixels, show, table
from sora_edu.train import masking
from sora_edu.train.pictures import names_of, read_pictures

LOOKS = {"masked": "blue", "plain, as many steps": "orange", "plain, as much compute": "vermilion"}
"""Palette colours of the ways to train."""


def reference() -> dict:
    """The reference runs of the chapter."""
    return json.loads(data_path("curves", "08_masking.json").read_text())


def class_names(y: Int[Tensor, " n"]) -> list[str]:
    """Classes in words."""
    return names_of(y // len(SHAPES), y % len(SHAPES))


# --- why -------------------------------------------------------------------------------------------------


def errors_left(t: Float[Tensor, " n"], likeness: float) -> dict[str, Float[Tensor, " n"]]:
    """What is not known of one of two numbers, by what is seen of them through noise.

    Both are standard normal with correlation `likeness`, each is seen as (1 - t) x + t eps. The error of the
    best guess is the conditional variance of a normal distribution.
    """
    alpha, noise = 1 - t, t**2
    seen = alpha**2 + noise  # variance of what is seen
    own = 1 - alpha**2 / seen
    together = alpha**2 * likeness  # covariance of what is seen of the two
    other = alpha * likeness
    determinant = seen**2 - together**2
    explained = (alpha**2 * seen - 2 * alpha * other * together + other**2 * seen) / determinant
    return {"own": own, "both": 1 - explained, "other": 1 - other**2 / seen}


def worth_of_context(likeness: float = 0.8) -> None:
    """How far a neighbour lowers the error of the best guess, with the token itself in sight and hidden."""
    t = torch.linspace(0.02, 0.98, 97, dtype=torch.float64)
    left = errors_left(t, likeness)
    fig, ax = plt.subplots(figsize=(10.5, 3.2))
    gains = {
        "the token is seen": (left["own"] - left["both"], "vermilion"),
        "the token is hidden": (1 - left["other"], "blue"),
    }
    for name, (gain, colour) in gains.items():
        ax.plot(t, gain, color=PALETTE[colour], label=name)
    ax.set(xlabel="time t (0 = data, 1 = noise)", ylabel="error that a\nneighbour removes", ylim=(0, None))
    ax.legend()
    at = int((t - 0.2).abs().argmin())
    said = "; ".join(f"{name}: {gain[at]:.2f}" for name, (gain, _) in gains.items())
    show(fig, alt=f"How much of the error a neighbour removes, by time. At t = 0.2: {said}.")


# --- masks and passes ------------------------------------------------------------------------------------


def masks(mask: Bool[Tensor, "b n"], grid: tuple[int, int]) -> None:
    """Masks of several samples, hidden places dark."""
    fig, axes = plt.subplots(1, len(mask), figsize=(2.5 * len(mask), 2.9))
    for number, (ax, hides) in enumerate(zip(axes, mask, strict=True)):
        ax.imshow(hides.view(grid), cmap="Greys", vmin=0, vmax=1.2, extent=(0, grid[1], grid[0], 0))
        ax.set_title(f"sample {number}")
        ax.set(xticks=range(grid[1] + 1), yticks=range(grid[0] + 1), xticklabels=[], yticklabels=[])
        ax.tick_params(length=0)
        ax.grid(color="#C8C8C8", linewidth=1)
    counts = ", ".join(map(str, mask.sum(1).tolist()))
    show(fig, alt=f"{len(mask)} grids with places hidden at random, other ones in each. Hidden: {counts}.")


def stages(latent: Float[Tensor, "c h w"], mask: Bool[Tensor, " n"]) -> None:
    """One channel of a noisy latent on its way through the masked pass, up to the decoder."""
    plane, hides = latent[0], mask.view(latent.shape[1:])
    titles = ("noisy latent", "encoder: what is kept", "q: mask tokens put in", "to the decoder")
    fig, axes = plt.subplots(1, 4, figsize=(11.6, 3.3))
    most = float(plane.abs().max())
    fills = (None, "white", PALETTE["orange"], PALETTE["green"])
    for ax, title, colour in zip(axes, titles, fills, strict=True):
        ax.imshow(plane, vmin=-most, vmax=most)
        ax.set_title(title, fontsize=15)
        bare(ax)
        for row, column in hides.nonzero().tolist() if colour is not None else ():
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, lw=0.5))
    axes[2].set_xlabel("orange: the one mask token")
    axes[3].set_xlabel("green: predictions")
    show(
        fig,
        alt=(
            f"A noisy latent of {plane.shape[0]} by {plane.shape[1]} cells, four times: whole; with"
            f" {int(hides.sum())} cells gone; with mask tokens in their places; with predictions there."
        ),
    )


def costs(tokens: int, hidden: int, width: int, encoder: int, decoder: int, side: int) -> None:
    """What a plain and a masked step cost, part by part, in plain steps."""
    whole, rest = block_macs(tokens, width), block_macs(tokens - hidden, width)
    plain = (encoder + decoder) * whole
    parts = {
        "full pass": (plain, "blue"),
        "encoder, kept tokens": (encoder * rest, "orange"),
        "side-interpolator": (side * whole, "green"),
        "decoder, again": (decoder * whole, "vermilion"),
    }
    fig, ax = plt.subplots(figsize=(11, 3.2))
    ax.barh(1, 1, color=PALETTE["blue"], height=0.55)
    start = 0.0
    for name, (cost, colour) in parts.items():
        ax.barh(0, cost / plain, left=start, color=PALETTE[colour], label=name, height=0.55)
        start += cost / plain
    ax.text(1.02, 1, "1", va="center")
    ax.text(start + 0.02, 0, f"{start:.2f}", va="center")
    ax.set(yticks=(0, 1), yticklabels=("masked step", "plain step"), xlabel="multiply-adds, in plain steps")
    ax.set_xlim(0, start + 0.25)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    total = step_macs(tokens, hidden, width, encoder, decoder, side)
    show(
        fig,
        alt=f"Two bars: a plain step, 1; a masked step, {total / plain:.2f} times as much, in four parts.",
    )


# --- results ---------------------------------------------------------------------------------------------


def gallery(
    pictures: Float[Tensor, "n 3 h w"], y: Int[Tensor, " n"], columns: int = 6, title: str = ""
) -> None:
    """Pictures under the names of the classes that were asked for; what the reader sees otherwise is red."""
    names, seen = class_names(y), names_of(*read_pictures(pictures))
    right = [name == other for name, other in zip(names, seen, strict=True)]
    rows = -(-len(pictures) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(2 * columns, 2.06 * rows), squeeze=False)
    for ax in axes.flat:
        bare(ax)
    for ax, picture, name, fits in zip(axes.flat, pictures, names, right, strict=False):
        ax.imshow(pixels(picture))
        ax.set_title(name, fontsize=15, color=PALETTE["ink" if fits else "vermilion"])
    if title:
        fig.suptitle(title, y=1.03, va="bottom", fontsize=17)  # clear of the names
    show(
        fig,
        alt=(
            f"{title or 'Samples'}: {len(pictures)} small pictures, {sum(right)} of them read as asked."
            f" Asked: {', '.join(names)}."
        ),
    )


def reference_samples(way: str, title: str = "") -> None:
    """Samples of a reference run (seed 0), decoded."""
    kept = torch.tensor(reference()["runs"][way]["0"]["samples"], dtype=torch.float32) / 100
    gallery(masking.decoded(kept.unflatten(1, (4, 8, 8))), masking.shown_classes(), title=title)


def learning_curve(mine: Sequence[tuple[int, float]]) -> None:
    """The learner's masked training in front of reference runs of masked and of plain training."""
    fig, ax = plt.subplots(figsize=(10, 4.4))
    ends = {}
    for way, label, colour in (
        ("masked", "masked, reference", "blue"),
        ("plain, as many steps", "plain, reference", "orange"),
    ):
        runs = list(reference()["runs"][way].values())
        steps = [step for step, _ in runs[0]["curve"]]
        losses = np.array([[loss for _, loss in run["curve"]] for run in runs])
        ax.fill_between(steps, losses.min(0), losses.max(0), color=PALETTE[colour], alpha=0.25, lw=0)
        ax.plot(steps, losses.mean(0), "--", lw=1.5, color=PALETTE[colour], label=label)
        ends[label] = losses.mean(0)[[0, -1]]
    ax.plot(*zip(*mine, strict=True), color=PALETTE["ink"], label="masked, yours")
    ax.set(xlabel="training step", ylabel="training loss", ylim=(0, None))
    ax.legend()
    told = "; ".join(f"{label} {first:.2f} to {last:.2f}" for label, (first, last) in ends.items())
    show(fig, alt=f"Training losses fall: {told}; yours, masked, ends at {mine[-1][1]:.2f}.")


def results(kept: Mapping) -> None:
    """A table of the reference runs: means over the seeds, with the smallest and the largest in brackets."""
    columns = {
        "full": ("validation loss", 1, ".3f"),
        "read_as_asked": ("read as asked, %", 100, ".0f"),
        "frechet": ("Fréchet distance", 1, ".1f"),
    }
    rows = []
    for way, runs in kept["runs"].items():
        cells = [way, f"{runs['0']['steps']:,}", f"{runs['0']['macs'] / 1e12:.2f}"]
        for key, (_, factor, digits) in columns.items():
            values = [factor * run[key] for run in runs.values()]
            mean = sum(values) / len(values)
            cells.append(f"{mean:{digits}} ({min(values):{digits}}–{max(values):{digits}})")
        rows.append(cells)
    best = kept["bounds"]
    rows.append(
        ["real, through the autoencoder", "", "", ""]
        + [f"{columns[key][1] * best[key]:{columns[key][2]}}" for key in ("read_as_asked", "frechet")]
    )
    table(rows, ["training", "steps", "10¹² MACs", *(name for name, _, _ in columns.values())])


def outcome(kept: Mapping) -> None:
    """Every reference run, way by way: validation loss, share read as asked, Frechet distance."""
    panels = {
        "full": ("validation loss\n(lower is better)", 1),
        "read_as_asked": ("read as asked, %\n(higher is better)", 100),
        "frechet": ("Fréchet distance\n(lower is better)", 1),
    }
    fig, axes = plt.subplots(1, 3, figsize=(14.5, 4.4))
    spoken = []
    for ax, (key, (label, factor)) in zip(axes, panels.items(), strict=True):
        for place, (way, colour) in enumerate(LOOKS.items()):
            values = factor * np.array([run[key] for run in kept["runs"][way].values()])
            ax.plot([place] * len(values), values, "o", color=PALETTE[colour], markersize=9, alpha=0.8)
            ax.plot([place - 0.25, place + 0.25], [values.mean()] * 2, color=PALETTE[colour])
            spoken.append(f"{way}, {label.splitlines()[0]}: {values.mean():.3g}")
        if key in kept["bounds"]:
            ax.axhline(factor * kept["bounds"][key], color=PALETTE["grey"], ls=":", lw=2)
        ax.set(xticks=range(3), xlim=(-0.6, 2.6), title=label)
        ax.set_xticklabels(["masked", "plain,\nsame steps", "plain, same\ncompute"])
    show(fig, alt=f"Three runs of each way to train. {'; '.join(spoken)}. Dotted: the best that is possible.")
