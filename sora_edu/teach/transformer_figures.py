"""The figures of chapter 04."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from sora_edu.teach.figures import PALETTE, SEQUENTIAL, power, show

KINDS = {
    "replace": ("vermilion", "layer(x)"),
    "add": ("orange", "x + layer(x)"),
    "post": ("green", "norm(x + layer(x))"),
    "pre": ("blue", "x + layer(norm(x))"),
}
"""Ways to stack layers: name -> (palette colour, formula)."""


def by_depth(sizes: Mapping[str, Sequence], gradients: Mapping[str, Sequence]) -> None:
    """Size of the stream and of the gradient after each layer, a list of runs for each kind of stack."""
    fig, axes = plt.subplots(1, 2, figsize=(10.5, 4.3))
    for ax, values, title in zip(
        axes, (sizes, gradients), ("size of the stream", "gradient that arrives"), strict=True
    ):
        for name, runs in values.items():
            colour, formula = KINDS[name]
            runs = np.array(runs)
            ax.fill_between(
                range(runs.shape[1]), runs.min(0), runs.max(0), color=PALETTE[colour], alpha=0.25, lw=0
            )
            ax.plot(runs.mean(0), color=PALETTE[colour], label=formula)
        ax.set(yscale="log", xlabel="layer", title=title)
        ax.yaxis.set_major_formatter(power)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    first = {name: float(np.mean([run[0] / run[-1] for run in runs])) for name, runs in gradients.items()}
    said = "; ".join(f"{KINDS[name][1]}: {share:.1e}" for name, share in first.items())
    show(
        fig,
        alt=(
            "Two panels over the layers of a deep stack, logarithmic, four ways to stack. Left, the"
            " size of the stream; right, the gradient. What arrives at the first layer, as a multiple of what"
            f" the last one gets: {said}."
        ),
    )


def translation_map(
    english: Sequence[str], luma: Sequence[str], weights: Sequence[Sequence[float]], title: str = ""
) -> None:
    """Where a decoder looked: a row for each word that it wrote, a column for each word that it read."""
    fig, ax = plt.subplots(figsize=(0.85 * len(english) + 2.6, 0.35 * len(luma) + 1.5))
    image = ax.imshow(weights, vmin=0, vmax=1, cmap=SEQUENTIAL, aspect="auto")
    ax.set_xticks(range(len(english)), english, rotation=35, ha="left")
    ax.set_yticks(range(len(luma)), luma)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=18)
    ax.set_ylabel("written, downwards", fontsize=18)
    if title:
        ax.set_title(title)
    bar = fig.colorbar(image)
    bar.set_label("attention", fontsize=18)
    bar.ax.tick_params(labelsize=18)
    strongest = (f"{word} at {english[int(np.argmax(row))]}" for word, row in zip(luma, weights, strict=True))
    show(
        fig, alt=f"Attention from each word of the translation to the English words. {'; '.join(strongest)}."
    )


def three_models() -> None:
    """The same block in an encoder, in a decoder and in a GPT."""
    fig, ax = plt.subplots(figsize=(11.5, 4.6), layout="none")
    fig.subplots_adjust(0, 0, 1, 1)
    ax.set(xlim=(0, 130), ylim=(0, 56))
    ax.axis("off")
    _stack(ax, 4, "Encoder", ["look at all", "think"], "English words", "one vector for each")
    _stack(ax, 48, "Decoder", ["look back", "ask the encoder", "think"], "Luma so far", "the next word")
    _stack(ax, 92, "GPT", ["look back", "think"], "text so far", "the next word")
    ax.plot([34.5, 45, 45], [47.5, 47.5, 28], color=PALETTE["blue"], linewidth=2.5)
    _arrow(ax, (45, 28), (52.5, 28), color="blue")
    show(
        fig,
        alt=(
            "Encoder: look at all, think. Decoder: look back, ask the encoder, think. "
            "GPT: look back, think. An arrow leads from the encoder's output into the decoder's middle part."
        ),
    )


def _stack(ax: Axes, x: int, title: str, parts: Sequence[str], below: str, above: str) -> None:
    colours = {"look at all": "sky", "look back": "orange", "ask the encoder": "blue", "think": "green"}
    ax.text(x + 17, 54, title, ha="center", va="top", fontsize=19, fontweight="bold")
    height = 9 * len(parts) + 1
    bottom = 28 - height / 2
    ax.add_patch(
        FancyBboxPatch(
            (x + 2, bottom - 1), 30, height + 1, boxstyle="round,pad=0,rounding_size=1.5",
            facecolor=PALETTE["pale"], edgecolor=PALETTE["grey"], linewidth=2,
        )
    )  # fmt: skip
    for row, part in enumerate(parts):
        y = bottom + 1 + 9 * row
        ax.add_patch(
            FancyBboxPatch(
                (x + 4.5, y), 25, 6.5, boxstyle="round,pad=0,rounding_size=1",
                facecolor="white", edgecolor=PALETTE[colours[part]], linewidth=3,
            )
        )  # fmt: skip
        ax.text(x + 17, y + 3.2, part, ha="center", va="center")
    ax.text(x + 32.6, bottom + height / 2, "× N", ha="left", va="center", fontsize=16)
    ax.text(x + 17, 5, below, ha="center", va="center", style="italic")
    ax.text(x + 17, 47.5, above, ha="center", va="center", style="italic")
    _arrow(ax, (x + 17, 7), (x + 17, bottom - 1.2))
    _arrow(ax, (x + 17, bottom + height + 0.2), (x + 17, 45.3))


def _arrow(ax: Axes, start: tuple, end: tuple, color: str = "ink") -> None:
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=22, linewidth=2.5, color=PALETTE[color],
            shrinkA=0, shrinkB=0, zorder=3,
        )
    )  # fmt: skip


def causality(changes: Mapping[str, Bool[Tensor, "n n"]]) -> None:
    """For each model: which scores (columns) change when one token (row) is changed."""
    fig, axes = plt.subplots(1, len(changes), figsize=(5.2 * len(changes), 4.8))
    for ax, (name, changed) in zip(np.atleast_1d(axes), changes.items(), strict=True):
        ax.imshow(changed, cmap=SEQUENTIAL, vmin=0, vmax=1)
        ax.set(title=name, xlabel="place whose scores we watch", ylabel="place that we change")
        ax.set_xticks(np.arange(-0.5, len(changed)), minor=True)
        ax.set_yticks(np.arange(-0.5, len(changed)), minor=True)
        ax.grid(which="minor", color="white", linewidth=1.5)
        ax.tick_params(which="both", length=0)
    said = "; ".join(
        f"{name}: {int(changed.tril(-1).sum())} of {len(changed) * (len(changed) - 1) // 2} earlier places"
        for name, changed in changes.items()
    )
    show(fig, alt=f"Which scores change when one token is changed; bright means changed. {said} feel it.")


def training_curves(
    reference: Mapping[str, Sequence], mine: Sequence[tuple[int, float]], ylabel: str, scale: float = 1.0
) -> None:
    """The learner's curve over the spread of the reference's runs."""
    fig, ax = plt.subplots(figsize=(10, 4.2))
    runs = scale * np.array(reference["values"])
    # The runs are so much alike that their band alone could not be seen.
    band = {"color": "#C8CCD0", "zorder": 1}
    ax.fill_between(reference["steps"], runs.min(0), runs.max(0), lw=0, **band)
    ax.plot(reference["steps"], runs.mean(0), lw=10, label=f"{len(runs)} reference runs", **band)
    ax.plot(reference["steps"], runs.mean(0), "--", color=PALETTE["ink"], lw=2, label="their mean", zorder=3)
    steps, values = zip(*mine, strict=True)
    values = [scale * value for value in values]
    ax.plot(steps, values, "o-", color=PALETTE["blue"], lw=1.5, label="yours", zorder=2)
    ax.set(xlabel="training step", ylabel=ylabel)
    ax.set_ylim(bottom=0)
    ax.legend()
    show(
        fig,
        alt=(
            f"{ylabel} in training. Yours ends at {values[-1]:.3g}; the reference runs end between"
            f" {runs[:, -1].min():.3g} and {runs[:, -1].max():.3g}."
        ),
    )


def few_sentences(reference: Mapping[str, Sequence[float]]) -> None:
    """How many held-out sentences are right, by how many the translator has read."""
    counts, runs = [int(count) for count in reference], 100 * np.array(list(reference.values()))
    fig, ax = plt.subplots(figsize=(9, 4.4))
    ax.plot(counts, runs, "o", color=PALETTE["blue"], alpha=0.5)
    ax.plot(counts, runs.mean(1), color=PALETTE["blue"])
    ax.set(xscale="log", xlabel="sentences to learn from", ylabel="held-out right (%)", ylim=(0, 104))
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.minorticks_off()
    said = "; ".join(f"{count}: {share:.0f} %" for count, share in zip(counts, runs.mean(1), strict=True))
    show(fig, alt=f"Held-out sentences translated exactly, by the number to learn from. Means: {said}.")


def seconds_per_token(seconds: Mapping[str, Sequence[float]]) -> None:
    """How long each new token takes, for each way of generating: medians over 15 tokens."""
    fig, ax = plt.subplots(figsize=(10, 3.9))
    for (name, values), colour in zip(seconds.items(), ("vermilion", "blue"), strict=False):
        groups = 1000 * np.array(values)[: len(values) // 15 * 15].reshape(-1, 15)
        places = 15 * np.arange(len(groups)) + 8
        ax.plot(places, np.median(groups, axis=1), "o-", color=PALETTE[colour], label=name)
    ax.set(xlabel="tokens so far", ylabel="milliseconds for one more")
    ax.set_ylim(bottom=0)
    ax.legend()
    show(
        fig,
        alt="Time for one more token: without a cache it grows with the text, with a cache it hardly does.",
    )


def guesses(choices: Mapping[str, Mapping[str, float]]) -> None:
    """For each beginning of a text, the likeliest next words and their probabilities."""
    fig, axes = plt.subplots(1, len(choices), figsize=(4.6 * len(choices), 3.6))
    for ax, (title, words) in zip(np.atleast_1d(axes), choices.items(), strict=True):
        names, shares = list(words), [100 * share for share in words.values()]
        ax.barh(range(len(names)), shares, color=PALETTE["sky"])
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set(title=title, xlabel="%")
    said = "; ".join(f"after {title!r}: {next(iter(words))}" for title, words in choices.items())
    show(fig, alt=f"The likeliest next words as bars. First choices: {said}.")
