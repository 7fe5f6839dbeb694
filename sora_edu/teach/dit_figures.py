"""The pictures of chapter 07 that take more lines than a notebook's cell should have."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.teach.figures import DIVERGING, PALETTE, bare, pixels, show
from sora_edu.train.conditioning import ASKED, SHOWN, Examples, examples, latents_from_text
from sora_edu.train.pictures import TEST_SEED, names_of, picture_autoencoder

LOOKS = {
    "in_context": ("in-context", "blue"),
    "cross_attention": ("cross-attention", "orange"),
    "adaln": ("adaLN", "green"),
    "adaln_zero": ("adaLN-Zero", "vermilion"),
}
"""The four designs: their names for people, and palette colours."""


class Quoted(NamedTuple):
    """What a paper says about a model."""

    gmacs: float
    """Multiply-adds of one evaluation in thousands of millions; the paper writes Gflops."""
    millions: int
    """Parameters in millions."""
    fid: float
    """FID-50K without guidance after 400,000 steps; smaller is better."""


PAPER_SIZES = {
    "S/8": Quoted(0.36, 33, 153.60), "S/4": Quoted(1.41, 33, 100.41), "S/2": Quoted(6.06, 33, 68.40),
    "B/8": Quoted(1.42, 131, 122.74), "B/4": Quoted(5.56, 130, 68.38), "B/2": Quoted(23.01, 130, 43.47),
    "L/8": Quoted(5.01, 459, 118.87), "L/4": Quoted(19.70, 458, 45.64), "L/2": Quoted(80.71, 458, 23.33),
    "XL/8": Quoted(7.39, 676, 106.41), "XL/4": Quoted(29.05, 675, 43.01), "XL/2": Quoted(118.64, 675, 19.47),
}  # fmt: skip
"""Quoted from Peebles and Xie 2023, tables 1 and 4: ImageNet, 256 pixels, adaLN-Zero."""

PAPER_DESIGNS = {
    "in_context": Quoted(119.37, 449, 35.24),
    "cross_attention": Quoted(137.62, 598, 26.14),
    "adaln": Quoted(118.56, 600, 25.21),
    "adaln_zero": Quoted(118.64, 675, 19.47),
}
"""Quoted from Peebles and Xie 2023, figure 5 and tables 1 and 4: XL/2 with each of the four designs."""


class Counted(NamedTuple):
    """A released U-Net, counted on the implementation in diffusers; a parity test counts again."""

    shape: tuple[int, int, int]
    """Channels, height and width of what it denoises."""
    parameters: int
    """How many weights it has."""
    macs: int
    """Multiply-adds of one evaluation."""


UNETS = {
    "DDPM, CelebA-HQ": Counted((3, 256, 256), 113_673_219, 248_513_757_184),
    "Stable Diffusion 1.5": Counted((4, 64, 64), 859_520_964, 401_636_720_640),
}
"""Ho et al. 2020 and Rombach et al. 2022, with the configurations of their released weights."""


def reference() -> dict:
    """The reference runs of the chapter."""
    return json.loads(data_path("curves", "07_conditioning.json").read_text())


# --- pictures --------------------------------------------------------------------------------------------


def gallery(
    rows: Mapping[str, Float[Tensor, "n 3 h w"]], *, alt: str, titles: Sequence[str] | None = None
) -> None:
    """Rows of pictures, each row with a name at its left; `titles` stand above the columns."""
    columns = max(map(len, rows.values()))
    side = 1.3 if len(rows) < 4 else 0.95  # inches
    fig, axes = plt.subplots(
        len(rows), columns, figsize=(side * columns + 2.2, 0.95 * side * len(rows) + 0.7), squeeze=False
    )
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for ax in line:
            bare(ax)
        for ax, picture in zip(line, pictures, strict=False):
            ax.imshow(pixels(picture))
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=17)
    for ax, title in zip(axes[0], titles or (), strict=False):
        ax.set_title(title, fontsize=17)
    show(fig, alt=alt)


def cuts(picture: Float[Tensor, "3 h w"], latent: Float[Tensor, "c h w"], patches: Sequence[int]) -> None:
    """A picture, a channel of its latent, and that latent cut into patches of several sizes."""
    channels, height, width = latent.shape
    most = float(latent[0].abs().max())
    fig, axes = plt.subplots(1, 1 + len(patches), figsize=(3.6 * (1 + len(patches)), 4.3))
    axes[0].imshow(pixels(picture))
    axes[0].set_title(f"{picture.shape[1]} by {picture.shape[2]} pixels")
    axes[0].set_xlabel(f"latent: {height} x {width} cells\nof {channels} numbers")
    bare(axes[0])
    spoken = []
    for ax, patch in zip(axes[1:], patches, strict=True):
        ax.imshow(latent[0], cmap=DIVERGING, vmin=-most, vmax=most, extent=(0, width, height, 0))
        ax.set(xticks=range(0, width + 1, patch), yticks=range(0, height + 1, patch))
        ax.set(xticklabels=[], yticklabels=[])
        ax.tick_params(length=0)
        ax.grid(color=PALETTE["ink"], linewidth=0.8)
        ax.spines[:].set_visible(False)
        rows, columns = height // patch, width // patch
        ax.set_title(f"p = {patch}")
        ax.set_xlabel(
            f"{rows} x {columns} = {rows * columns} tokens\nof {patch} x {patch} x {channels} numbers"
        )
        spoken.append(f"with p = {patch} a grid of {rows} by {columns}")
    show(fig, alt=f"A picture, and one channel of its latent under grids of patches: {'; '.join(spoken)}.")


def time_codes(times: Float[Tensor, " n"], codes: Mapping[str, Float[Tensor, "n d"]]) -> None:
    """Time embeddings as maps: a row for each time, a column for each channel."""
    fig, axes = plt.subplots(1, len(codes), figsize=(6.2 * len(codes), 3.9), sharey=True)
    spoken = []
    for ax, (name, code) in zip(axes, codes.items(), strict=True):
        image = ax.imshow(
            code, aspect="auto", cmap=DIVERGING, vmin=-1, vmax=1,
            extent=(0, code.shape[1], float(times[-1]), float(times[0])),
        )  # fmt: skip
        ax.set(title=name, xlabel="channel")
        spread = float(code.std(dim=0).mean())
        spoken.append(f"{name}: a channel varies over time by {spread:.2f} on average")
    axes[0].set_ylabel("time t")
    fig.colorbar(image, ax=axes, label="value")
    show(fig, alt=f"Time embeddings, a row for each time and a column for each channel. {'; '.join(spoken)}.")


# --- blocks ----------------------------------------------------------------------------------------------

_TOLD = {
    "in_context": "t and y are tokens among the patches, dropped after the last block",
    "cross_attention": "patches ask the tokens of t and y, in a layer of its own",
    "adaln": "t + y gives each norm its shift and scale",
    "adaln_zero": "t + y gives each layer shift, scale and gate",
}


def _box(ax: Axes, x: Real, y: Real, width: Real, text: str, face: str) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x, y - 1.6), width, 3.2, boxstyle="round,pad=0,rounding_size=0.5", facecolor=face,
            edgecolor=PALETTE["ink"], linewidth=1.2, zorder=3,
        )
    )  # fmt: skip
    ax.text(x + width / 2, y, text, ha="center", va="center_baseline", fontsize=16, zorder=4)


def _arrow(ax: Axes, start: tuple[Real, Real], end: tuple[Real, Real], colour: str = "ink") -> None:
    style = {"arrowstyle": "-|>", "color": PALETTE[colour], "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=end, xytext=start, arrowprops=style, zorder=2)


def _circle(ax: Axes, x: Real, y: Real, text: str, face: str) -> None:
    ax.plot(x, y, "o", markersize=22, color=face, markeredgecolor=PALETTE["ink"], zorder=3)
    ax.text(x, y, text, ha="center", va="center", fontsize=17, zorder=4)


def _branch(ax: Axes, x: Real, layer: str, norm: str, told: str, gated: bool) -> Real:
    """One layer beside the stream, starting at x: norm, layer, gate, sum. Returns where it ends."""
    up, warm = 5.5, "#FFE3CF"
    _arrow(ax, (x, 0), (x, up - 1.7))
    _box(ax, x - 1, up, 5, norm, warm if told == "norm" else "white")
    _arrow(ax, (x + 4, up), (x + 5.9, up))
    _box(ax, x + 6, up, 17, layer, warm if told == "layer" else PALETTE["pale"])
    end = x + 23
    if gated:
        _arrow(ax, (end, up), (end + 2, up))
        _circle(ax, end + 3, up, "×", warm)
        ax.text(end + 3, up - 2.4, "gate", ha="center", va="center")
        end += 4
    ax.plot([end, end + 2.5], [up, up], color=PALETTE["ink"], lw=1.6, zorder=2)
    _arrow(ax, (end + 2.5, up), (end + 2.5, 1.1))
    _circle(ax, end + 2.5, 0, "+", "white")
    if told:
        top = 11.2
        at = {"norm": (x + 1.5,), "layer": (x + 14.5,)}[told] + ((end - 1,) if gated else ())
        for place in at:
            _arrow(ax, (place, top), (place, up + 1.7), "vermilion")
    return end + 2.5


def blocks(*names: str) -> None:
    """One or more designs of the block, drawn from left to right; what the condition touches is coloured."""
    heights = [1.8 if name == "in_context" else 2.8 for name in names]  # inches
    wide = 13 if "cross_attention" in names else 11.5
    fig, axes = plt.subplots(
        len(names), 1, figsize=(wide, sum(heights)), squeeze=False, height_ratios=heights
    )
    for ax, name in zip(axes[:, 0], names, strict=True):
        modulated = name in ("adaln", "adaln_zero")
        layers = ["self-attention", "MLP"]
        if name == "cross_attention":
            layers.insert(1, "cross-attention")
        x, told = 14.5, "norm" if modulated else ""
        for layer in layers:
            asked = "layer" if layer == "cross-attention" else told
            x = _branch(ax, x, layer, "LN", asked, name == "adaln_zero") + 4
        _arrow(ax, (0, 0), (x, 0))
        for k in range(4):
            ax.add_patch(Rectangle((0.2 + 2.1 * k, -0.9), 1.8, 1.8, color=PALETTE["blue"], zorder=4))
        if name == "in_context":
            for k, letter in enumerate("ty"):
                ax.add_patch(Rectangle((8.8 + 2.3 * k, -1.2), 2, 2.4, color=PALETTE["vermilion"], zorder=4))
                ax.text(9.8 + 2.3 * k, 0, letter, color="white", ha="center", va="center", zorder=5)
        else:
            ax.plot([14.5, x - 4], [11.2, 11.2], color=PALETTE["vermilion"], lw=3)
            ax.text(13.9, 11.2, "t, y", color=PALETTE["vermilion"], fontsize=17, ha="right", va="center")
        ax.set_title(f"{LOOKS[name][0]}: {_TOLD[name]}", loc="left")
        ax.set(xlim=(-0.5, x + 0.5), ylim=(-2.2, 8.5 if name == "in_context" else 13))
        ax.axis("off")
    drawn = "; ".join(f"{LOOKS[name][0]}: {_TOLD[name]}" for name in names)
    show(fig, alt=f"The block from left to right, patches on a line that every layer adds to. {drawn}.")


def answers(asked: Mapping[str, Float[Tensor, "n d"]]) -> None:
    """What cross-attention adds to each patch: a row for each patch, a column for each channel."""
    most = max(float(values.abs().max()) for values in asked.values())
    fig, axes = plt.subplots(1, len(asked), figsize=(6 * len(asked), 3.6), sharey=True)
    spoken = []
    for ax, (name, values) in zip(axes, asked.items(), strict=True):
        image = ax.imshow(values, aspect="auto", cmap=DIVERGING, vmin=-most, vmax=most)
        ax.set(title=name, xlabel="channel", yticks=range(0, len(values), 5))
        spoken.append(f"{name}: patches differ by {float(values.std(dim=0).mean()):.2f} on average")
    axes[0].set_ylabel("patch")
    fig.colorbar(image, ax=axes, label="added")
    show(fig, alt=f"What cross-attention adds, a row for each patch. {'; '.join(spoken)}.")


def silent_start(changes: Mapping[str, Sequence[float]]) -> None:
    """How far the patches have moved after each block of an untrained model, for each design."""
    fig, ax = plt.subplots(figsize=(10.5, 4.3))
    for name, change in changes.items():
        label, colour = LOOKS[name]
        ax.plot(range(len(change)), [100 * part for part in change], "o-", color=PALETTE[colour], label=label)
    ax.set(xlabel="blocks passed", ylabel="change of the patches (%)", ylim=(-10, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ends = ", ".join(f"{LOOKS[name][0]} {100 * change[-1]:.0f} %" for name, change in changes.items())
    show(fig, alt=f"How far patches move through the blocks of untrained models. At the end: {ends}.")


# --- cost and outcome ------------------------------------------------------------------------------------


def compute_against_fid(macs: Mapping[str, int]) -> None:
    """Our count of multiply-adds for each size, against the FID that the paper measured."""
    colours = {"S": "blue", "B": "orange", "L": "green", "XL": "vermilion"}
    markers = {"8": "s", "4": "^", "2": "o"}
    fig, ax = plt.subplots(figsize=(11, 4.8))
    for letters, colour in colours.items():
        names = [name for name in PAPER_SIZES if name.partition("/")[0] == letters]
        points = [(macs[name] / 1e9, PAPER_SIZES[name].fid) for name in names]
        ax.plot(*zip(*points, strict=True), color=PALETTE[colour], lw=1.5, zorder=1)
        for name, point in zip(names, points, strict=True):
            ax.plot(*point, markers[name.partition("/")[2]], color=PALETTE[colour], markersize=10)
        ax.plot(
            [], [], color=PALETTE[colour], label=f"{letters}, {PAPER_SIZES[names[-1]].millions} M weights"
        )
    for patch, marker in markers.items():
        ax.plot([], [], marker, color=PALETTE["grey"], markersize=10, label=f"p = {patch}")
    ax.set(
        xscale="log", xlabel="multiply-adds of one evaluation (billion)", ylabel="FID in the paper"
    )
    ax.set_xticks([1, 10, 100], ["1", "10", "100"])
    ax.set_ylim(0, 175)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    told = "; ".join(
        f"{name} {macs[name] / 1e9:.1f}, {quoted.fid:.1f}" for name, quoted in PAPER_SIZES.items()
    )
    show(fig, alt=f"Multiply-adds in billions and FID of 12 models, falling together: {told}.")


def losses(curves: Mapping[str, Sequence[tuple[int, float]]], title: str = "") -> None:
    """Training losses by step, the first in blue, the second in vermilion, and so on."""
    fig, ax = plt.subplots(figsize=(10, 4.2))
    for colour, (name, curve) in zip(("blue", "vermilion", "green"), curves.items(), strict=False):
        ax.plot(*zip(*curve, strict=True), color=PALETTE[colour], label=name)
    ax.set(xlabel="training step", ylabel="loss", title=title, ylim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ends = "; ".join(f"{name} ends at {curve[-1][1]:.2f}" for name, curve in curves.items())
    show(fig, alt=f"Training losses. {ends}.")


# --- the comparison --------------------------------------------------------------------------------------

_TOLD_BY = {"class": "told the class (1 token)", "caption": "told the caption (a token for each word)"}


def race(kept: Mapping, mine: Mapping[str, Mapping[str, Sequence]] | None = None) -> None:
    """Validation losses of the four designs by training step; the learner's own in a panel of their own.

    Args:
        kept: the reference runs, drawn as bands over their seeds.
        mine: for designs told the class, "steps" and "loss", as `conditioning.train` returns them.
    """
    titles = (*_TOLD_BY.values(), *(("the first steps, with yours",) if mine else ()))
    fig, axes = plt.subplots(1, len(titles), figsize=(14, 4.4))
    spoken = []
    for ax, (told, _) in zip(axes, _TOLD_BY.items(), strict=False):
        for name, (label, colour) in LOOKS.items():
            part = kept[told][name]
            runs, steps = np.array(part["loss"]), np.array(part["steps"])
            ax.fill_between(steps, runs.min(0), runs.max(0), color=PALETTE[colour], alpha=0.25, lw=0)
            ax.plot(steps, runs.mean(0), "--", lw=1.8, color=PALETTE[colour])
            spoken.append(f"{label}, {told}, {runs[:, -1].mean():.3f}")
        ax.set(yscale="log", ylim=(0.28, 2.6))
        ax.set_yticks([0.3, 0.4, 0.6, 1, 2], ["0.3", "0.4", "0.6", "1", "2"])
        ax.minorticks_off()
    if mine:
        _sprint(axes[2], kept["class"], mine)
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title.replace(" (", "\n("))
        ax.set_xlabel("training step")
    axes[0].set_ylabel("loss on fresh pictures")
    handles = [Line2D([], [], color=PALETTE[colour], label=label) for label, colour in LOOKS.values()]
    handles += [Line2D([], [], color=PALETTE["ink"], ls="--", lw=1.8, label="reference")]
    handles += [Line2D([], [], color=PALETTE["ink"], label="yours")] if mine else []
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    beside = " A third panel shows the first steps with yours." if mine else ""
    show(
        fig,
        alt=f"Losses of four designs during training. Reference runs end at: {'; '.join(spoken)}.{beside}",
    )


def _sprint(ax: Axes, kept: Mapping, mine: Mapping[str, Mapping[str, Sequence]]) -> None:
    """The first steps once more, enlarged, with the learner's own curves in front."""
    for name, curve in mine.items():
        part, colour = kept[name], PALETTE[LOOKS[name][1]]
        ax.plot(part["steps"], np.mean(part["loss"], axis=0), "--", lw=1.8, color=colour)
        ax.plot(curve["steps"], curve["loss"], color=colour)
    ax.set(xlim=(0, max(curve["steps"][-1] for curve in mine.values())), ylim=(1.5, 2.3))


def outcomes(kept: Mapping) -> None:
    """How each design ended: loss, what is read in its pictures, and beside them the paper's FID."""
    fig, axes = plt.subplots(1, 4, figsize=(14, 4.4), sharey=True)
    spoken = []
    for place, (name, (label, colour)) in enumerate(LOOKS.items()):
        for offset, told, marker in ((-0.14, "class", "o"), (0.14, "caption", "s")):
            part = kept[told][name]
            ends = [run[-1] for run in part["loss"]]
            read, ground = ([100 * share for share in part[what]] for what in ("both", "ground"))
            for ax, values in zip(axes, (ends, read, ground), strict=False):
                ax.plot(values, len(values) * [place + offset], marker, color=PALETTE[colour], alpha=0.8)
                ax.plot(
                    2 * [np.mean(values)], place + offset + np.array([-0.1, 0.1]), color=PALETTE["ink"], lw=2
                )
            spoken.append(f"{label}, {told}: loss {np.mean(ends):.3f}, {np.mean(read):.0f} % read right")
        axes[3].plot(PAPER_DESIGNS[name].fid, place, "D", color=PALETTE[colour], markersize=10)
    for marker, told in (("o", "told the class"), ("s", "told the caption")):
        axes[0].plot([], [], marker, color=PALETTE["grey"], label=told)
    fig.legend(loc="outside lower center", ncols=2)
    titles = (
        *("loss\nat the end", "colour and\nshape right (%)", "ground\nright (%)"),
        "FID in the\npaper (class)",
    )
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
        for place in range(len(LOOKS) - 1):
            ax.axhline(place + 0.5, color="#D8D8D8", lw=1)
    axes[0].set_yticks(range(len(LOOKS)), [label for label, _ in LOOKS.values()])
    axes[0].set_ylim(len(LOOKS) - 0.5, -0.5)  # the first design on top
    for ax, top in zip(axes[1:], (100, 100, 40), strict=True):
        ax.set(xlim=(-0.05 * top, 1.05 * top), xticks=(0, top // 2, top))
    fig.get_layout_engine().set(wspace=0.06)
    quoted = ", ".join(f"{LOOKS[name][0]} {quote.fid}" for name, quote in PAPER_DESIGNS.items())
    show(
        fig,
        alt=f"Ends of the reference runs, means over seeds: {'; '.join(spoken)}. FID in the paper: {quoted}.",
    )


def ranking(kept: Mapping) -> list[str]:
    """The order of the designs by mean final loss, and in how many seeds each beats the next, in words."""
    lines = []
    for told, title in _TOLD_BY.items():
        ends = {name: np.array([run[-1] for run in kept[told][name]["loss"]]) for name in LOOKS}
        order = sorted(LOOKS, key=lambda name: ends[name].mean())
        listed = ", ".join(f"{LOOKS[name][0]} {ends[name].mean():.3f}" for name in order)
        lines.append(f"{title}:\n    {listed}")
        for better, worse in pairwise(order):
            won = int((ends[better] < ends[worse]).sum())
            lines.append(
                f"    {LOOKS[better][0]} is ahead of {LOOKS[worse][0]} in {won} of {len(ends[better])} seeds"
            )
    return lines


def asked_for(examples: Examples, count: int) -> list[str]:
    """What the first `count` pictures are asked to show, such as "red star", a word on each line."""
    stills = examples.stills
    return [name.replace(" ", "\n") for name in names_of(stills.colours[:count], stills.shapes[:count])]


def designs(kept: Mapping, told: str, asked: Examples) -> None:
    """Pictures by the four designs' first reference runs, below real ones of the same classes."""
    decode = picture_autoencoder().decode
    with torch.no_grad():
        rows = {"real": decode(asked.latents[:SHOWN])}
        for name, (label, _) in LOOKS.items():
            rows[label] = decode(latents_from_text(kept[told][name]["samples"]))
    titles = asked_for(asked, SHOWN)
    listed = ", ".join(title.replace("\n", " ") for title in titles)
    gallery(
        rows,
        titles=titles,
        alt=f"A row of real pictures and a row by each design, told the {told}: {listed}.",
    )


def promise() -> None:
    """Pictures by the reference run of adaLN-Zero that was told captions."""
    asked = examples(ASKED, TEST_SEED)
    latents = latents_from_text(reference()["caption"]["adaln_zero"]["samples"])
    with torch.no_grad():
        rows = {"made from\nnoise": picture_autoencoder().decode(latents)}
    titles = asked_for(asked, SHOWN)
    listed = ", ".join(title.replace("\n", " ") for title in titles)
    gallery(rows, titles=titles, alt=f"Pictures that a diffusion transformer made, asked for: {listed}.")
