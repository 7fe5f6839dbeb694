"""The pictures of chapter 03 that take more lines than a notebook's cell should have."""

import html
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.patches import Arc, Rectangle
from torch import Tensor

from sora_edu.attention import SelfAttention
from sora_edu.teach.figures import PALETTE, live, power, show, show_widget
from sora_edu.train.pronouns import EXAMPLES, HAPPENINGS, LONGEST, THINGS, Resolver, tokens
from sora_edu.train.pronouns import words as words_of

DECK_WORDS = ("YOUR", "CAT", "IS", "A", "LOVELY", "CAT")
"""The deck's sentence of six words."""

DECK_TABLE = torch.tensor(
    [
        [0.268, 0.119, 0.134, 0.148, 0.179, 0.152],
        [0.124, 0.278, 0.201, 0.128, 0.154, 0.115],
        [0.147, 0.132, 0.262, 0.097, 0.218, 0.145],
        [0.210, 0.128, 0.206, 0.212, 0.119, 0.125],
        [0.146, 0.158, 0.152, 0.143, 0.227, 0.174],
        [0.195, 0.114, 0.203, 0.103, 0.157, 0.229],
    ]
)
"""The deck's table of weights for it, after Jamil's notes, which say that its values are random."""

LOOKS = {
    "attention, 2 rounds": "blue",
    "attention, 1 round": "ink",
    "recurrent": "vermilion",
    "recurrent, pointing": "orange",
}
"""Palette colours of the models that resolve *it*."""


# --- arcs over a sentence --------------------------------------------------------------------------------


def arcs(ax: Axes, words: Sequence[str], weights: Sequence[float], asking: int, colour: str = "blue") -> None:
    """Draws a sentence, with arcs from one word to those that it looks at: the stronger, the thicker."""
    letters = np.array([len(word) + 1.6 for word in words])
    centres = np.cumsum(letters) - letters / 2
    frame = {"boxstyle": "round", "facecolor": "white", "edgecolor": PALETTE[colour], "linewidth": 2}
    for place, (word, centre, weight) in enumerate(zip(words, centres, weights, strict=True)):
        strong = weight > 1.5 / len(words)
        ax.text(
            centre,
            0,
            word,
            ha="center",
            va="top",
            fontsize=17,
            color=PALETTE["ink"],
            fontweight="bold" if strong or place == asking else "normal",
            bbox=frame if place == asking else None,
        )
        span = abs(centre - centres[asking])
        if place != asking and weight > 0.03:
            middle = (centre + centres[asking]) / 2
            height = 2 * (4 + 0.35 * span)
            thick = max(1.5, 9 * weight)
            ax.add_patch(
                Arc((middle, 1), span, height, theta1=0, theta2=180, lw=thick, color=PALETTE[colour])
            )
            if weight > 0.1:
                ax.text(centre, 1.2, f"{100 * weight:.0f} %", ha="center", fontsize=18, color=PALETTE["ink"],
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    longest = max(abs(centres - centres[asking]))
    ax.set(xlim=(0, letters.sum()), ylim=(-6, 6 + 0.35 * longest))
    ax.set_axis_off()


def resolved(looks: Mapping[str, Sequence[float]]) -> None:
    """Where *it* looks, in sentences that differ in what happens to it: text -> a weight for each word."""
    fig, axes = plt.subplots(len(looks), 1, figsize=(13, 2.2 * len(looks)))
    for ax, (text, weights) in zip(np.atleast_1d(axes), looks.items(), strict=True):
        arcs(ax, text.split(), weights, text.split().index("it"))
    said = "; ".join(
        f'in "{text}" it looks at {text.split()[int(np.argmax(w))]}, {100 * max(w):.0f} %'
        for text, w in looks.items()
    )
    show(fig, alt=f"Sentences with arcs from the word it: {said}.")


def rounds(model: Resolver, text: str, asking: int | None = None) -> None:
    """Where one word looks in each round and head. `asking` is its number; None asks the word *it*."""
    grid, lengths = tokens([text])
    words = words_of(text)
    asking = (words.index("it") if "it" in words else 0) if asking is None else asking
    with torch.no_grad():
        maps = model.maps(grid, lengths)
    rows = [
        (f"round {number}, head {head + 1}" if len(heads[0]) > 1 else f"round {number}: the answer", row)
        for number, heads in enumerate(maps, 1)
        for head, row in enumerate(heads[0, :, asking].tolist())
    ]
    fig, axes = plt.subplots(len(rows), 1, figsize=(13, 2 * len(rows)))
    for ax, (title, row) in zip(np.atleast_1d(axes), rows, strict=True):
        arcs(ax, words, row, asking, "blue" if "answer" in title else "orange")
        ax.set_title(title, loc="left", fontsize=18)
    said = "; ".join(f"{title}: mostly at {words[int(np.argmax(row))]}, {100 * max(row):.0f} %"
                     for title, row in rows)  # fmt: skip
    show(fig, alt=f'Where "{words[asking]}" looks in "{text}". {said}.')


class Explorer:
    """The form behind `explore`: a sentence, a slider for the word that asks, the arcs; `box` has all."""

    def __init__(self, model: Resolver, text: str):
        self.model = model
        wide = {"description_width": "6em"}
        self.sentence = ipywidgets.Text(
            text, description="sentence", continuous_update=False, style=wide, layout={"width": "44em"}
        )
        self.word = ipywidgets.IntSlider(
            0, min=0, max=1, description="word", continuous_update=False, readout=False, style=wide
        )
        self.chosen = ipywidgets.Label()
        self.message = ipywidgets.HTML()
        self.picture = ipywidgets.Output()
        row = ipywidgets.HBox([self.word, self.chosen])
        self.box = ipywidgets.VBox(
            [self.sentence, row, self.message, ipywidgets.HTML(_LEXICON), self.picture]
        )
        self._words: list[str] = []
        self.sentence.observe(lambda _: self.read(), "value")
        self.word.observe(lambda _: self.draw(), "value")
        self.read()

    def read(self) -> None:
        """Takes the sentence in, or says what would do instead."""
        if trouble := self._trouble():
            self._words, self.chosen.value = [], ""
            self.picture.clear_output()  # what was asked for before
            self.message.value = f'<p role="status">{html.escape(trouble)}</p>'
            return
        self.message.value, self._words = "", words_of(self.sentence.value)
        asking = self._words.index("it") if "it" in self._words else 0
        with self.word.hold_trait_notifications():
            self.word.max, self.word.value = len(self._words) - 1, asking
        self.draw()

    def _trouble(self) -> str:
        """Why the sentence cannot be read, or nothing."""
        count = len(words_of(self.sentence.value))
        if not 1 <= count <= LONGEST:
            return f"The sentence has {count} words; type 1 to {LONGEST}, such as: {EXAMPLES[0]}"
        try:
            tokens([self.sentence.value])
        except ValueError as error:
            return str(error)
        return ""

    def draw(self) -> None:
        """Draws the arcs of the chosen word."""
        if self.word.value >= len(self._words):
            return  # the sentence holds an unknown word
        self.chosen.value = self._words[self.word.value]
        self.picture.clear_output(wait=True)
        with self.picture:
            rounds(self.model, self.sentence.value, self.word.value)


_LEXICON = (
    "<details><summary>Words to build with</summary>"
    + "".join(
        f"<p><b>{kind}</b>: {', '.join(THINGS[kind])}; it {', '.join(HAPPENINGS[kind])}</p>"
        for kind in THINGS
    )
    + "</details>"
)
"""The toy language in a fold."""


def explore(model: Resolver, text: str = EXAMPLES[0]) -> None:
    """A sentence to type and a word to choose, with arcs to what it looks at; without a kernel, a picture."""
    if live():
        show_widget(Explorer(model, text).box, {"text/plain": "A form that shows where a word looks"})
    else:
        rounds(model, text)


# --- tables ----------------------------------------------------------------------------------------------


def tables(weights: Mapping[str, Float[Tensor, "n m"]], words: Sequence[str]) -> None:
    """Tables of weights side by side, a row for each word that asks, with their numbers."""
    size = (3.4 * len(weights) + 1.2, 3.9)
    fig, axes = plt.subplots(1, len(weights), figsize=size, squeeze=False, sharey=True)
    for ax, (title, table) in zip(axes.flat, weights.items(), strict=True):
        ax.imshow(table, vmin=0, vmax=max(0.5, float(table.max())))
        for (row, column), weight in np.ndenumerate(table.numpy()):
            bright = weight > 0.6 * max(0.5, float(table.max()))
            ax.text(column, row, f"{weight:.2f}"[1:] if weight < 0.995 else "1.0", ha="center", va="center",
                    fontsize=17, color=PALETTE["ink"] if bright else "white")  # fmt: skip
        ax.set(title=title, xticks=range(len(words)), yticks=range(len(words)))
        ax.set_xticklabels(words, rotation=40, ha="right")
        ax.set_yticklabels(words)
        ax.tick_params(labelsize=17)
    said = "; ".join(f"{title}: diagonal {', '.join(f'{x:.2f}' for x in table.diagonal().tolist())}"
                     for title, table in weights.items())  # fmt: skip
    show(fig, alt=f"Tables of attention weights between six words. {said}.")


def masks(shown: Mapping[str, Bool[Tensor, "n m"]]) -> None:
    """Masks as grids: blue where a row may look at a column."""
    fig, axes = plt.subplots(1, len(shown), figsize=(3.8 * len(shown), 3.6), squeeze=False)
    for ax, (title, mask) in zip(axes.flat, shown.items(), strict=True):
        ax.imshow(mask, cmap=plt.matplotlib.colors.ListedColormap([PALETTE["pale"], PALETTE["blue"]]),
                  vmin=0, vmax=1)  # fmt: skip
        ax.set(title=title, xlabel="key", ylabel="query", xticks=range(mask.shape[1]),
               yticks=range(mask.shape[0]))  # fmt: skip
        ax.set_xticks(np.arange(-0.5, mask.shape[1]), minor=True)
        ax.set_yticks(np.arange(-0.5, mask.shape[0]), minor=True)
        ax.grid(which="minor", color="white", linewidth=2)
        ax.tick_params(which="minor", length=0)
    said = "; ".join(
        f"{title}: rows see {', '.join(str(int(r)) for r in m.sum(1))} keys" for title, m in shown.items()
    )
    show(fig, alt=f"Attention masks as grids, blue where a query may look. {said}.")


def influence(named: Mapping[str, Float[Tensor, "n n"]]) -> None:
    """Who feels whom: how much each output changes with each input, on grids."""
    fig, axes = plt.subplots(1, len(named), figsize=(5 * len(named), 4.2), squeeze=False)
    for ax, (title, table) in zip(axes.flat, named.items(), strict=True):
        image = ax.imshow(table / table.max(), vmin=0, vmax=1)
        ax.set(title=title, xlabel="word that is changed", ylabel="answer that feels it")
    fig.colorbar(image, ax=axes, label="influence (largest = 1)")
    future = {title: float(t.triu(1).sum() / t.sum()) for title, t in named.items()}
    said = "; ".join(f"{title}: {100 * share:.0f} % of the influence comes from later words"
                     for title, share in future.items())  # fmt: skip
    show(fig, alt=f"Grids of the influence of each word on each answer. {said}.")


# --- heads and patches -----------------------------------------------------------------------------------


def cut(x: Float[Tensor, "b n d"], named: Mapping[str, Float[Tensor, "b h n k"]]) -> None:
    """Words as rows of coloured channels, and what each head gets of them: colours are words."""
    words, width = x.shape[1:]
    colours = [PALETTE[name] for name in ("blue", "orange", "green", "purple")]
    fig, axes = plt.subplots(1, 1 + len(named), figsize=(12, 3.2), width_ratios=[1.2] + [1] * len(named))

    def row(ax, values, y):
        for place, value in enumerate(values.tolist()):
            word = int(value) // width
            ax.add_patch(Rectangle((place, -y), 0.94, 0.86, color=colours[word]))
            ax.text(place + 0.47, -y + 0.43, f"{int(value) % width}", ha="center", va="center", fontsize=14,
                    color="white")  # fmt: skip

    for word in range(words):
        row(axes[0], x[0, word], word)
        axes[0].text(-0.2, -word + 0.43, f"word {word}", ha="right", va="center", fontsize=14)
    axes[0].set(xlim=(-2.1, width), ylim=(-words + 0.6, 1.6), title="tokens")
    for ax, (title, heads) in zip(axes[1:], named.items(), strict=True):
        size = heads.shape[-1]
        for head in range(heads.shape[1]):
            for word in range(words):
                row(ax, heads[0, head, word], word + head * (words + 0.9))
            ax.text(-0.2, -head * (words + 0.9) - words / 2 + 1, f"head {head}", ha="right", va="center",
                    fontsize=14)  # fmt: skip
        ax.set(xlim=(-2.2, size + 1), ylim=(-heads.shape[1] * (words + 0.9) + 1.6, 1.6), title=title)
    for ax in axes:
        ax.set_aspect("equal")
        ax.set_axis_off()
    show(
        fig,
        alt=(
            "Three words as coloured rows of channels. Split rightly, each head has a row of every word. By a"
            " bare reshape, a head has both halves of one word, half of the next, nothing of the third."
        ),
    )


def word_maps(frame: Float[Tensor, "h w c"], weights: Float[Tensor, "n m"], words: Sequence[str]) -> None:
    """A picture, and for each word how much each of its patches looks at that word."""
    side = int(len(weights) ** 0.5)
    fig, axes = plt.subplots(1, 1 + len(words), figsize=(3.4 * (1 + len(words)), 3.7))
    axes[0].imshow(frame)
    axes[0].set_title("the picture asks")
    for ax, word, column in zip(axes[1:], words, weights.T, strict=True):
        image = ax.imshow(column.view(side, side), vmin=0, vmax=1)
        ax.set_title(f'"{word}" answers')
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    fig.colorbar(image, ax=axes, label="weight", shrink=0.85)
    said = ", ".join(
        f"{word} {100 * share:.0f} %" for word, share in zip(words, weights.mean(0), strict=True)
    )
    show(
        fig,
        alt=f"A picture and maps of its patches' attention to words; each word lights up where its colour is."
        f" Mean weights: {said}.",
    )


# --- lines -----------------------------------------------------------------------------------------------


def reach(distances: Sequence[int], shares: Mapping[str, Float[Tensor, "seeds distances"]]) -> None:
    """How much of the last answer's influence comes from the first word, over the length of the sentence."""
    fig, ax = plt.subplots(figsize=(10.5, 4))
    for (name, runs), colour in zip(shares.items(), ("vermilion", "orange", "blue"), strict=True):
        ax.fill_between(distances, runs.amin(0), runs.amax(0), color=PALETTE[colour], alpha=0.2, lw=0)
        ax.plot(distances, runs.mean(0), "o-", color=PALETTE[colour], label=name)
    ax.fill_between([], [], color=PALETTE["grey"], alpha=0.4, lw=0, label=f"bands: {len(runs)} seeds")
    ax.plot(distances, [1 / n for n in distances], ":", color=PALETTE["ink"], label="an equal share, 1/n")
    ax.set(xscale="log", yscale="log", xlabel="words in the sentence", ylabel="share of the first word")
    ax.set_xticks(distances, [str(n) for n in distances])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(power)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 0.9))
    said = "; ".join(f"{name}: {runs.mean(0)[0]:.1e} at {distances[0]} words, {runs.mean(0)[-1]:.1e} at"
                     f" {distances[-1]}" for name, runs in shares.items())  # fmt: skip
    show(fig, alt=f"Share of the first word in what the last answer feels. {said}.")


def filtered(
    clean: Float[Tensor, " n"],
    noisy: Float[Tensor, " n"],
    answers: Mapping[str, Float[Tensor, " n"]],
    weights: Mapping[str, Float[Tensor, "n n"]],
    place: int,
) -> None:
    """A noisy signal, what two filters make of it, and with which weights they do so at one place."""
    fig, axes = plt.subplots(2, len(answers), figsize=(11.5, 5), height_ratios=[2, 1], sharex=True)
    for (above, below), (name, answer) in zip(axes.T, answers.items(), strict=True):
        above.plot(noisy, ".", color=PALETTE["grey"], label="noisy")
        above.plot(clean, color=PALETTE["ink"], lw=1.5, label="clean")
        above.plot(answer, color=PALETTE["blue"], label="filtered")
        above.axvline(place, color=PALETTE["vermilion"], ls=":", lw=2)
        above.set_title(f"{name}: error {(answer - clean).square().mean().sqrt():.3f}")
        below.bar(range(len(noisy)), weights[name][place], width=1.0, color=PALETTE["vermilion"])
        below.set(xlabel="place", ylabel="weight")
    axes[0, 0].legend(loc="upper left")
    said = "; ".join(f"{name}: error {(a - clean).square().mean().sqrt():.3f}" for name, a in answers.items())
    show(
        fig,
        alt=(
            f"A noisy signal with steps under two filters. {said}. Below, the weights at place {place}, just"
            " beside a step: those of the low pass spill over the step, those of attention nearly end at it."
        ),
    )


def seconds_of(lengths: Sequence[int], width: int, heads: int, repeats: int = 3) -> list[float]:
    """Seconds of one self-attention layer on this machine, the best of some runs, for each length."""
    layer, best = SelfAttention(width, heads).eval(), []
    with torch.no_grad():
        for length in lengths:
            x, runs = torch.randn(1, length, width), []
            for _ in range(repeats):
                started = time.perf_counter()
                layer(x)
                runs.append(time.perf_counter() - started)
            best.append(min(runs))
    return best


def cost(
    lengths: Sequence[int], macs: Callable[[int], int], width: int, seconds: Sequence[float] | None = None
) -> None:
    """What attention costs over the number of tokens: counted, and, if given, measured."""
    fig, axes = plt.subplots(1, 1 if seconds is None else 2, figsize=(10 if seconds is None else 12, 4))
    left, *right = np.atleast_1d(axes)
    left.plot(lengths, [macs(n) / 1e9 for n in lengths], "o-", color=PALETTE["blue"], label="all of it")
    left.plot(
        lengths,
        [4 * n * width**2 / 1e9 for n in lengths],
        "--",
        color=PALETTE["ink"],
        label="the projections",
    )
    left.axvline(2 * width, color=PALETTE["grey"], ls=":", lw=2, label="n = 2d")
    left.set(ylabel="G MACs", title="counted")
    left.legend(loc="lower right")
    for ax in right:
        ax.plot(lengths, [1000 * s for s in seconds], "o-", color=PALETTE["vermilion"])
        ax.set(ylabel="milliseconds", title="measured on this machine")
    for ax in (left, *right):
        ax.set(xlabel="tokens", xscale="log", yscale="log")
        ax.set_xticks(lengths, [str(n) for n in lengths])
        ax.minorticks_off()
        ax.yaxis.set_major_formatter(power)
    steps = [macs(b) / macs(a) for a, b in pairwise(lengths)]
    show(
        fig,
        alt=(
            f"Cost of attention from {lengths[0]} to {lengths[-1]} tokens of width {width}, on logarithmic"
            f" axes. At first each doubling of the tokens costs {steps[0]:.1f} times as much, in the end"
            f" {steps[-1]:.1f} times."
        ),
    )


def pronoun_curves(reference: Mapping[str, Mapping], mine: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """The learner's curves over the spread of the reference's five runs."""
    fig, ax = plt.subplots(figsize=(11, 4.6))
    for name, curves in reference.items():
        runs, colour = 100 * np.array(curves["share_right"]), PALETTE[LOOKS[name]]
        ax.fill_between(curves["steps"], runs.min(0), runs.max(0), color=colour, alpha=0.2, lw=0)
        if name not in mine:
            ax.plot(curves["steps"], runs.mean(0), "--", lw=2, color=colour, label=f"{name} (reference)")
    for name, curve in mine.items():
        steps, shares = zip(*curve, strict=True)
        ax.plot(steps, [100 * s for s in shares], color=PALETTE[LOOKS[name]], label=f"{name} (yours)")
    ax.axhline(50, color=PALETTE["grey"], linestyle=":", linewidth=1.5)
    ax.set(xlabel="training step", ylabel="right on fresh pairs (%)", ylim=(0, 104))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 0.9))
    yours = ", ".join(f"{name} {100 * curve[-1][1]:.0f} %" for name, curve in mine.items())
    others = ", ".join(
        f"{name} {100 * min(r[-1] for r in c['share_right']):.0f} to"
        f" {100 * max(r[-1] for r in c['share_right']):.0f} %"
        for name, c in reference.items()
    )
    show(
        fig, alt=f"Share of sentences resolved in training. Yours end at: {yours}. Five references: {others}."
    )
