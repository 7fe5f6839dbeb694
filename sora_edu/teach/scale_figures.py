"""The pictures of chapter 13 that take more lines than a notebook's cell should have."""

import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from sora_edu.assets import data_path
from sora_edu.scale import (
    VIDEO_SIZES,
    activation_bytes,
    clip_tokens,
    fit_power_law,
    fit_with_floor,
)
from sora_edu.teach.dit_figures import asked_for, gallery
from sora_edu.teach.figures import PALETTE, show
from sora_edu.train.conditioning import Examples, ToldDiT, draw, examples, latents_from_text, shares_read
from sora_edu.train.pictures import TEST_SEED, picture_autoencoder
from sora_edu.train.scaling import ASKED, best_widths, mean_losses
from sora_edu.train.switches import PLAIN, Measured
from sora_edu.video_dit import VideoDiTConfig, video_dit_macs

CLIPS = {
    "tiny Sora's clip": (17, 64, 64),
    "a picture": (1, 256, 256),
    "2 s of 480p": (49, 480, 720),
    "5 s of 720p": (129, 720, 1280),
}
"""Clips by name: frames, height and width. Seconds are at 24 frames a second, those of tiny Sora at 8."""

_LINES = ("blue", "orange", "green", "vermilion", "purple", "sky")
_SUBS = (1, 1.5, 2, 3, 4, 5, 7)  # where an axis of less than a decade is marked


def reference() -> dict:
    """The reference runs of the chapter."""
    return json.loads(data_path("curves", "13_scaling.json").read_text())


def _plain_numbers(axis) -> None:
    """Marks a logarithmic axis with numbers such as 0.5 and 32, and not with powers of ten."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


# --- on paper --------------------------------------------------------------------------------------------


def compute_by_tokens(sizes: Mapping[str, VideoDiTConfig] = VIDEO_SIZES) -> None:
    """Multiply-adds of an evaluation against the tokens of a clip; and the part of pairs in them."""
    tokens = [2**k for k in range(5, 21)]
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6))
    for (name, config), colour in zip(sizes.items(), _LINES, strict=False):
        macs = [video_dit_macs(config, n) for n in tokens]
        pairs = [2 * config.depth * n**2 * config.width / cost for n, cost in zip(tokens, macs, strict=True)]
        left.loglog(tokens, macs, color=PALETTE[colour], label=name)
        right.semilogx(tokens, pairs, color=PALETTE[colour], label=name)
    spoken = []
    for k, (name, clip) in enumerate(CLIPS.items()):
        n, level = clip_tokens(*clip), 1.04 + 0.08 * (k % 2)
        for ax in (left, right):
            ax.axvline(n, color=PALETTE["grey"], linewidth=1, linestyle=":")
            ax.text(n, level, name, ha="center", fontsize=16, transform=ax.get_xaxis_transform())
        spoken.append(f"{name} {n:,}")
    left.set(xlabel="tokens of a clip", ylabel="MACs of an evaluation")
    left.legend(title="size", labelspacing=0.25)
    right.set(xlabel="tokens of a clip", ylabel="share of pairs", ylim=(0, 1))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    show(fig, alt=(
        f"Two panels over the number of tokens, with lines for the sizes {', '.join(sizes)}. Left, "
        "multiply-adds grow in proportion at first and with the square in the end. Right, the share of "
        f"products of pairs grows from nearly nothing to nearly all. Marked: {'; '.join(spoken)}."
    ))  # fmt: skip


def states_by_stage(parameters: int, devices: int, memory: float) -> None:
    """Bytes for weights, gradients and optimiser on each device, at each stage of sharding."""
    names = ("copies", "1: optimiser\nshared", "2: gradients\nas well", "3: weights\nas well")
    kinds = {"weights": (2, 3, "blue"), "gradients": (2, 2, "orange"), "optimiser": (12, 1, "green")}
    fig, ax = plt.subplots(figsize=(10.5, 4.3))
    bottom = [0.0] * len(names)
    for kind, (each, first, colour) in kinds.items():
        heights = [
            parameters * each / (devices if stage >= first else 1) / 1e9 for stage in range(len(names))
        ]
        ax.bar(range(len(names)), heights, bottom=bottom, color=PALETTE[colour], label=kind, width=0.6)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    for x, top in enumerate(bottom):
        ax.text(x, top, f"{top:.1f}", ha="center", va="bottom", fontsize=16)
    ax.axhline(memory / 1e9, color=PALETTE["ink"], linestyle="--", linewidth=1.5)
    ax.text(len(names) - 0.6, memory / 1e9, "one device", ha="right", va="bottom")
    ax.set_xticks(range(len(names)), names)
    ax.set(ylabel="GB on each device", ylim=(0, 1.15 * max(*bottom, memory / 1e9)))
    ax.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.2))
    listed = "; ".join(f"stage {stage}: {top:.1f} GB" for stage, top in enumerate(bottom))
    show(
        fig,
        alt=f"Bars: {parameters / 1e9:.1f} billion weights on {devices} devices. {listed}.",
    )


def activations_three_ways(
    config: VideoDiTConfig, clips: Mapping[str, tuple[int, int, int]], memory: float
) -> None:
    """Bytes that a forward pass keeps: attention written out, fused, and with checkpointing."""
    ways = {
        "written out": ({"fused": False}, "vermilion"),
        "fused attention": ({}, "orange"),
        "fused, checkpointing": ({"checkpointing": True}, "blue"),
    }
    fig, ax = plt.subplots(figsize=(12.5, 4.6))
    spoken = []
    for k, (name, (choice, colour)) in enumerate(ways.items()):
        sizes = [activation_bytes(config, clip_tokens(*clip), **choice) / 1e9 for clip in clips.values()]
        places = [x + 0.27 * (k - 1) for x in range(len(clips))]
        ax.bar(places, sizes, width=0.25, color=PALETTE[colour], label=name)
        for x, size in zip(places, sizes, strict=True):
            said = f"{size:,.2g}" if size < 100 else f"{size:,.0f}"
            below = size < memory / 1e9 < 2.2 * size  # above the bar the line of one device would cross it
            at, side = (size / 1.15, "top") if below else (1.1 * size, "bottom")
            ax.text(x, at, said, ha="center", va=side)
        spoken.append(f"{name} {', '.join(f'{size:.3g}' for size in sizes)} GB")
    ax.axhline(memory / 1e9, color=PALETTE["ink"], linestyle="--", linewidth=1.5)
    ax.text(-0.45, memory / 1e9, "one device", ha="left", va="bottom")
    ax.set_yscale("log")
    ax.set_xticks(range(len(clips)), clips)
    ax.set(ylabel="GB for one clip")
    ax.margins(y=0.15)
    _plain_numbers(ax.yaxis)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    show(fig, alt=f"Bars on a logarithmic scale for {', '.join(clips)}: {'; '.join(spoken)}.")


def switches_compared(measured: Mapping[str, Measured]) -> None:
    """How many times as fast a step is with each switch alone, with the spread, and what it keeps."""
    plain = measured[PLAIN]
    shown = {name: result for name, result in measured.items() if not result.failed}
    fig, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4), sharey=True)
    spoken = []
    for y, (name, result) in enumerate(shown.items()):
        low, middle, high = result.times_as_fast(plain)
        left.plot([low, high], [y, y], color=PALETTE["blue"], linewidth=4, solid_capstyle="round", alpha=0.4)
        left.plot(middle, y, "o", color=PALETTE["blue"], markersize=10)
        right.barh(y, result.kept / 1e6, color=PALETTE["orange"], height=0.6)
        right.text(result.kept / 1e6, y, f" {result.kept / 1e6:.1f}", va="center")
        spoken.append(f"{name} {middle:.2f} ({low:.2f} to {high:.2f}), {result.kept / 1e6:.1f} MB")
    left.axvline(1, color=PALETTE["ink"], linewidth=1, linestyle="--")
    left.set_yticks(range(len(shown)), shown)
    left.invert_yaxis()
    left.set_xscale("log")
    _plain_numbers(left.xaxis)
    left.xaxis.set_major_locator(LogLocator(subs=_SUBS))
    left.set(xlabel="times as fast as the plain step")
    right.set(xlabel="MB kept for the way back")
    right.margins(x=0.18)
    show(
        fig, alt=f"Each switch alone: times as fast as plain (spread), and memory kept. {'; '.join(spoken)}."
    )


# --- measured --------------------------------------------------------------------------------------------


def base_4x_32x(kept: Mapping, budgets: Sequence[int] = (1, 4, 32)) -> None:
    """The same wishes from the same noise, drawn by the best network of each budget."""
    best, asked = best_widths(kept), examples(ASKED, TEST_SEED)
    rows = {}
    for budget in budgets:
        samples = latents_from_text(kept["runs"][str(budget)][str(best[budget])]["samples"])
        with torch.no_grad():
            rows["base" if budget == 1 else f"{budget}x"] = picture_autoencoder().decode(samples)
    rows["real"] = asked.stills.images[: len(samples)]
    shares = ", ".join(
        f"{budget}x {_mean(kept['runs'][str(budget)][str(best[budget])]['both']):.0%}" for budget in budgets
    )
    gallery(
        rows,
        titles=asked_for(asked, len(samples)),
        alt=(
            f"Eight wishes, each drawn from the same noise after training with {', '.join(rows)[:-6]} the "
            f"compute, and a real one. Read as asked, over all wishes: {shares}."
        ),
    )


def draw_wishes(networks: Mapping[int, ToldDiT], asked: Examples, count: int = 8) -> None:
    """The first wishes drawn by networks of your own, by budget, and shares of all read as asked."""
    rows, spoken = {}, []
    for budget, network in networks.items():
        made = draw(network, asked.told["class"])
        shares = shares_read(made, asked)
        with torch.no_grad():
            rows["base" if budget == 1 else f"{budget}x"] = picture_autoencoder().decode(made[:count])
        spoken.append(f"{budget}x: colour {shares['colour']:.0%}, colour and shape {shares['both']:.0%}")
    gallery(
        rows,
        titles=asked_for(asked, count),
        alt=f"Eight wishes from the same noise, a row for each budget. Read as asked: {'; '.join(spoken)}.",
    )


def isoflop(kept: Mapping) -> None:
    """Loss against the number of weights, a curve for each budget; seeds as small dots."""
    fig, ax = plt.subplots(figsize=(11, 4.6))
    best, spoken = best_widths(kept), []
    for (budget, losses), colour in zip(mean_losses(kept).items(), _LINES, strict=True):
        runs = kept["runs"][str(budget)]
        weights = {width: runs[str(width)]["parameters"] for width in losses}
        ax.plot(list(weights.values()), list(losses.values()), color=PALETTE[colour])
        for width, count in weights.items():
            seeds = runs[str(width)]["loss"]
            ax.plot([count] * len(seeds), seeds, "o", color=PALETTE[colour], markersize=4, alpha=0.6)
        lowest = weights[best[budget]], losses[best[budget]]
        ax.plot(*lowest, "*", color=PALETTE[colour], markersize=19, markeredgecolor="white")
        last = list(weights)[-1]
        ax.text(1.04 * weights[last], losses[last], f"{budget}x", color=PALETTE[colour], va="center")
        spoken.append(f"{budget}x: best with {lowest[0]:,} weights, loss {lowest[1]:.3f}")
    ax.set(xscale="log", yscale="log", xlabel="weights", ylabel="loss on fresh pictures")
    ax.margins(x=0.09)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_locator(LogLocator(subs=_SUBS))
    for axis in (ax.xaxis, ax.yaxis):
        _plain_numbers(axis)
    show(fig, alt=f"Loss against weights, a curve for each budget, stars at the best. {'; '.join(spoken)}.")


def scaling_curve(kept: Mapping, mine: Mapping[int, float] | None = None) -> None:
    """The best mean loss of each budget with its two fits, and shares read as asked; `mine` are your runs."""
    best, losses = best_widths(kept), mean_losses(kept)
    budgets = sorted(losses)
    lowest = [losses[budget][best[budget]] for budget in budgets]
    floor, a, b = fit_with_floor(budgets, lowest)
    plain_a, plain_b = fit_power_law(budgets, lowest)
    line = [2 ** (k / 8) for k in range(-4, 65)]
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6))
    left.plot(line, [floor + a * c**-b for c in line], color=PALETTE["green"], label="with a floor")
    left.plot(line, [plain_a * c**-plain_b for c in line], "--", color=PALETTE["orange"], label="power law")
    for budget, low in zip(budgets, lowest, strict=True):
        seeds = kept["runs"][str(budget)][str(best[budget])]["loss"]
        left.plot([budget] * len(seeds), seeds, "o", color=PALETTE["blue"], markersize=5, alpha=0.6)
        left.plot(budget, low, "o", color=PALETTE["blue"], label="reference" if budget == 1 else None)
    for budget, value in (mine or {}).items():
        left.plot(budget, value, "X", color=PALETTE["vermilion"], markersize=12, label="yours")
    left.set(xscale="log", yscale="log", xlabel="compute (base = 1)", ylabel="loss on fresh pictures")
    for name, colour in (("colour", "orange"), ("both", "blue")):
        shares = [_mean(kept["runs"][str(budget)][str(best[budget])][name]) for budget in budgets]
        label = "colour and shape" if name == "both" else name
        right.plot(budgets, shares, "o-", color=PALETTE[colour], label=label)
    right.axhline(kept["real"]["both"], color=PALETTE["grey"], linestyle=":", label="real pictures, both")
    right.set(xscale="log", xlabel="compute (base = 1)", ylabel="read as asked", ylim=(0, 1.04))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    for axis in (left.xaxis, right.xaxis):
        axis.set_major_locator(LogLocator(base=2))
        _plain_numbers(axis)
    left.yaxis.set_major_locator(LogLocator(subs=_SUBS))
    _plain_numbers(left.yaxis)
    _once(left)
    right.legend(loc="lower right")
    points = ", ".join(f"{budget}x {low:.3f}" for budget, low in zip(budgets, lowest, strict=True))
    show(fig, alt=(
        f"Left, loss against compute: {points}. Fits: {plain_a:.2f} C^-{plain_b:.2f}, and {floor:.2f} + "
        f"{a:.2f} C^-{b:.2f}. Right, shares of pictures drawn as asked."
    ))  # fmt: skip


def read_on_the_way(kept: Mapping, width: int) -> None:
    """The losses that one long run passes, beside the ends of runs that were as short."""
    longest = max(int(budget) for budget, runs in kept["runs"].items() if str(width) in runs)
    passed = kept["runs"][str(longest)][str(width)]["on_the_way"]
    ends = {
        int(budget): runs[str(width)]["loss"] for budget, runs in kept["runs"].items() if str(width) in runs
    }
    marks = sorted(budget for budget in ends if budget < longest)
    fig, ax = plt.subplots(figsize=(10.5, 4.4))
    on_the_way = [_mean([run[str(budget)] for run in passed]) for budget in marks] + [_mean(ends[longest])]
    finished = [_mean(ends[budget]) for budget in [*marks, longest]]
    ax.plot(
        [*marks, longest],
        on_the_way,
        "s--",
        color=PALETTE["vermilion"],
        label=f"one run of {longest}x, on its way",
    )
    ax.plot([*marks, longest], finished, "o-", color=PALETTE["blue"], label="runs that end there")
    ax.set(xscale="log", yscale="log", xlabel="compute (base = 1)", ylabel="loss on fresh pictures")
    ax.xaxis.set_major_locator(LogLocator(base=2))
    ax.yaxis.set_major_locator(LogLocator(subs=_SUBS))
    for axis in (ax.xaxis, ax.yaxis):
        _plain_numbers(axis)
    ax.legend()
    said = "; ".join(
        f"{budget}x: {way:.3f} on the way, {end:.3f} at an end"
        for budget, way, end in zip([*marks, longest], on_the_way, finished, strict=True)
    )
    show(fig, alt=f"Width {width}. {said}.")


def _once(ax: Axes) -> None:
    """A legend in which no name comes twice."""
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend(handles.values(), handles.keys())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
