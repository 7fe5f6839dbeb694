"""The pictures of chapter 02 that take more lines than a notebook's cell should have."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import MaxNLocator
from sklearn.manifold import TSNE
from torch import Tensor

from sora_edu.data.captions import KINDS
from sora_edu.data.world import parse, render
from sora_edu.positions import sinusoidal_3d
from sora_edu.teach.figures import DIVERGING, PALETTE, live, show
from sora_edu.train.reading import COLOUR_NAMES, Reader, tokens

Encode = Callable[[int, int, float], Tensor]
"""Makes a code: `encode(length, dim, base)`, as `sora_edu.positions.sinusoidal` does."""

GROUPS = {
    "colours": ("vermilion", "o", KINDS["colours"]),
    "shapes": ("blue", "s", ("circle", "square", "triangle", "star", "ring", "cross")),
    "sizes": ("green", "D", KINDS["sizes"]),
    "motions": ("orange", "^", ("falls", "drops", "bounces", "orbits", "spins", "grows", "shrinks")),
    "directions": ("purple", "P", ("left", "right", "up", "down")),
    "backgrounds": ("sky", "v", ("dark", "black", "light", "white", "checkered", "striped")),
    "digits": ("ink", "X", KINDS["digits"][:20]),  # 0 to 9 and zero to nine
}
"""What the word map marks: group -> (palette colour, marker, words)."""


def word_map(vectors: Float[Tensor, "words d"], vocabulary: Sequence[str]) -> None:
    """Word vectors laid out flat by t-SNE, which keeps neighbours together (van der Maaten, Hinton 2008)."""
    flat = TSNE(perplexity=8, metric="cosine", init="pca", random_state=0).fit_transform(vectors.numpy())
    places = 2 * (flat - flat.min(axis=0)) / np.ptp(flat, axis=0) - 1
    fig, ax = plt.subplots(figsize=(11.5, 5.2))
    ax.scatter(*places.T, s=18, color=PALETTE["grey"], alpha=0.5)
    clusters = {}
    for name, (colour, marker, members) in GROUPS.items():
        dots = places[[vocabulary.index(word) for word in members if word in vocabulary]]
        ax.scatter(*dots.T, s=70, color=PALETTE[colour], marker=marker, zorder=3)
        clusters[name] = dots.mean(0)
    from_left = sorted(clusters, key=lambda name: clusters[name][0])
    _label_column(ax, from_left[:3], clusters, places[:, 0].min() - 0.15, "right")
    _label_column(ax, from_left[3:], clusters, places[:, 0].max() + 0.15, "left")
    ax.set_axis_off()
    show(
        fig,
        alt=(
            "Word vectors as points. Colours form one tight group; so do shapes, sizes, motions, "
            "directions, backgrounds and digits; other words lie between them."
        ),
    )


def _label_column(
    ax: Axes, names: Sequence[str], clusters: Mapping[str, np.ndarray], x: float, side: str
) -> None:
    """Names the clusters in a column beside the points, as near to their heights as labels can stand."""
    ordered = sorted(names, key=lambda name: clusters[name][1])
    apart = 0.4 * np.arange(len(ordered))  # a label's height and a little air
    heights = np.maximum.accumulate(np.array([clusters[name][1] for name in ordered]) - apart) + apart
    for name, y in zip(ordered, heights, strict=True):
        colour, _, members = GROUPS[name]
        ax.annotate(
            f"{name}: {_in_lines(members)}",
            clusters[name],
            (x, y),
            ha=side,
            va="center",
            fontsize=16,
            color=PALETTE["ink"],
            zorder=2,  # a line may pass behind another group's points
            arrowprops={
                "arrowstyle": "-",
                "color": PALETTE[colour],
                "linewidth": 2,
                "relpos": (side == "right", 0.5),
            },
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": PALETTE[colour], "linewidth": 2},
        )


def _in_lines(words: Sequence[str]) -> str:
    if len(words) > 8:
        words = (*words[:3], "…", *words[-3:])
    half = -(-len(words) // 2)
    return "\n".join(", ".join(part) for part in (words[:half], words[half:]) if part)


def first_ideas() -> None:
    """Why whole numbers and shares of the length fail as codes."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9))
    left.plot(range(60), color=PALETTE["vermilion"], label="the number of the place")
    left.axhspan(-1, 1, color=PALETTE["blue"], alpha=0.35, label="values in a word vector")
    left.set(xlabel="place in the sentence", ylabel="value", title="Count: 0, 1, 2, …")
    left.legend(loc="upper left")
    for row, length in enumerate((4, 16)):
        right.plot(np.linspace(0, 1, length), np.full(length, -row), "o", color=PALETTE["vermilion"])
        step = 1 / (length - 1)
        right.text(0, -row + 0.16, f"{length} words: a step is {step:.2f}", fontsize=17)
    right.set(ylim=(-1.4, 0.6), yticks=[], xlabel="code", title="Share of the length: 0 … 1")
    right.spines["left"].set_visible(False)
    show(
        fig,
        alt=(
            "Left: numbers of places grow to 59 while word vectors stay between -1 and 1. Right: with 4 "
            "words a step is 0.33, with 16 words it is 0.07."
        ),
    )


def clock_faces(code: Float[Tensor, "length dim"], labels: Sequence[str]) -> None:
    """Each pair (sine, cosine) as a clock: the hand points up at position 0 and turns clockwise."""
    length, pairs = code.shape[0], code.shape[1] // 2
    fig, axes = plt.subplots(pairs, length, figsize=(1.2 * length + 0.9, 1.15 * pairs + 0.4), squeeze=False)
    for (row, column), ax in np.ndenumerate(axes):
        sine, cosine = code[column, 2 * row : 2 * row + 2].tolist()
        _face(ax)
        ax.annotate(
            "", (sine, cosine), (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 3, "color": PALETTE["blue"]}
        )
        if row == 0:
            ax.set_title(labels[column])
        if column == 0:
            ax.text(-1.35, 0, f"pair {row}", ha="right", va="center")
    show(
        fig,
        alt=(
            f"A grid of clocks, {pairs} hands by {length} positions. All hands point up at position 0. "
            "From left to right each row turns clockwise, each row more slowly than the one above."
        ),
    )


def _face(ax: Axes) -> None:
    ax.add_patch(Circle((0, 0), 1.08, facecolor=PALETTE["pale"], edgecolor=PALETTE["grey"]))
    ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
    ax.set_axis_off()


def heat_maps(encode: Encode, settings: Sequence[tuple[int, int]], length: int = 64) -> None:
    """Codes as heat maps, one for each (dim, base): a row for each position, a column for each channel.

    `encode(length, dim, base)` makes a code.
    """
    fig, axes = plt.subplots(1, len(settings), figsize=(3.9 * len(settings) + 1.2, 3.7), squeeze=False)
    for ax, (dim, base) in zip(axes.flat, settings, strict=True):
        image = ax.imshow(encode(length, dim, float(base)), cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto")
        ax.set(xlabel="channel", ylabel="position", title=f"d = {dim}, n = {base}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    fig.colorbar(image, ax=axes, label="value")
    described = "; ".join(f"d = {dim} and n = {base}" for dim, base in settings)
    show(
        fig,
        alt=(
            f"Positional codes as heat maps: {described}. Channels on the left flip from row to row between"
            " red and blue, channels further right change more and more slowly."
        ),
    )


def explore(encode: Encode) -> None:
    """Sliders for dim and base over a heat map; without a kernel, three settings side by side."""
    if not live():
        heat_maps(encode, [(64, 100), (64, 10000), (16, 10000)])
        return
    dim = ipywidgets.IntSlider(64, min=4, max=128, step=4, description="d", continuous_update=False)
    base = ipywidgets.SelectionSlider(options=[10, 100, 1000, 10000, 100000], value=10000, description="n")
    ipywidgets.interact(lambda d, n: heat_maps(encode, [(d, n)]), d=dim, n=base)


def neighbourhood(
    cell: tuple[int, int, int] = (2, 4, 3),
    frames: int = 5,
    height: int = 8,
    width: int = 8,
    code: Tensor | None = None,
) -> None:
    """A clip cut into spacetime patches, and how alike each patch's address is to that of one patch."""
    code = sinusoidal_3d(frames, height, width, 192) if code is None else code
    code = code.view(frames, height, width, -1).double()
    alike = (code @ code[cell]) / code[cell].square().sum()
    clip = render(parse("a large cyan star bounces on a dark background").complete(3), 17, 64, 64)
    pictures = ((clip[:, :: 16 // (frames - 1)].permute(1, 2, 3, 0) + 1) / 2).clamp(0, 1).numpy()
    fig, axes = plt.subplots(2, frames, figsize=(2.1 * frames + 0.9, 4.8))
    for frame, (above, below) in enumerate(axes.T):
        above.imshow(pictures[frame], extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        above.set_title(f"latent frame {frame}")
        image = below.imshow(alike[frame], vmin=float(alike.min()), vmax=1)
        for ax in (above, below):
            ax.set(
                xticks=np.arange(-0.5, width), yticks=np.arange(-0.5, height), xticklabels=[], yticklabels=[]
            )
            ax.tick_params(length=0)
            ax.grid(color="white", alpha=0.5, linewidth=1)
            if frame == cell[0]:
                corner = (cell[2] - 0.5, cell[1] - 0.5)
                ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=PALETTE["vermilion"], linewidth=4))
    bar = fig.colorbar(image, ax=axes[1], shrink=0.9)
    bar.set_label("similarity", fontsize=17)
    bar.ax.tick_params(labelsize=17)
    show(
        fig,
        alt=(
            f"Top: five frames of a bouncing star, cut into 8 by 8 patches; one patch of frame {cell[0]} is"
            " marked. Bottom: how alike each patch's address is to the marked one's: 1 at the patch itself,"
            " fading with distance to the sides, up and down, and over the frames before and after."
        ),
    )


def two_turned(query: Tensor, key: Tensor, turn, places: Sequence[tuple[int, int]]) -> None:
    """A query and a key of two channels, turned by their places; `turn(vector, place)` turns one."""
    fig, axes = plt.subplots(1, len(places), figsize=(3.8 * len(places), 4.2))
    products = []
    for ax, (m, n) in zip(axes, places, strict=True):
        turned = {"query": turn(query, m), "key": turn(key, n)}
        products.append(float(turned["query"] @ turned["key"]))
        for (name, vector), plain, colour in zip(
            turned.items(), (query, key), ("blue", "vermilion"), strict=True
        ):
            _arrow(ax, plain, PALETTE["grey"], 1.5)
            _arrow(ax, vector, PALETTE[colour], 4)
            ax.text(
                *(1.2 * vector).tolist(), name, color=PALETTE["ink"], ha="center", va="center", fontsize=15
            )
        ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor=PALETTE["grey"], linestyle=":"))
        ax.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), aspect="equal", title=f"places {m} and {n}")
        ax.set_xlabel(f"dot product {products[-1]:.3f}")
        ax.set(xticks=[], yticks=[])
        for side in ax.spines.values():
            side.set_visible(False)
    described = "; ".join(f"places {m} and {n}: {p:.3f}" for (m, n), p in zip(places, products, strict=True))
    show(
        fig,
        alt=f"A query arrow and a key arrow on a circle, turned by their places. Dot products: {described}.",
    )


def _arrow(ax: Axes, vector: Tensor, colour: str, width: float) -> None:
    ax.annotate("", vector.tolist(), (0, 0), arrowprops={"arrowstyle": "-|>", "lw": width, "color": colour})


LOOKS = {"none": "ink", "sinusoidal": "blue", "learned": "green", "along the batch": "vermilion"}
"""Palette colours of the kinds of readers."""


def reading_curves(reference: Mapping[str, Mapping], mine: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """The learner's curves over the spread of the reference's."""
    fig, ax = plt.subplots(figsize=(11, 4.6))
    for name, curves in reference.items():
        runs = 100 * np.array(curves["share_right"])
        ax.fill_between(
            curves["steps"], runs.min(0), runs.max(0), color=PALETTE[LOOKS[name]], alpha=0.2, lw=0
        )
        if name not in mine:
            ax.plot(
                curves["steps"],
                runs.mean(0),
                "--",
                lw=1.5,
                color=PALETTE[LOOKS[name]],
                label=f"{name} (reference)",
            )
    for name, curve in mine.items():
        steps, shares = zip(*curve, strict=True)
        ax.plot(steps, [100 * share for share in shares], color=PALETTE[LOOKS[name]], label=f"{name} (yours)")
    ax.axhline(50, color=PALETTE["grey"], linestyle=":", linewidth=1.5)
    ax.set(xlabel="training step", ylabel="right on fresh prompts (%)", ylim=(0, 104))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 0.9), title="positions")
    ends = ", ".join(f"{name} {100 * curve[-1][1]:.0f} %" for name, curve in mine.items())
    show(
        fig,
        alt=(
            f"Share of right answers in training. Yours end at: {ends}. Bands of five reference runs: "
            "sinusoidal and learned rise to about 100 %, none and along the batch stay at about 50 %."
        ),
    )


def shifted_scores(
    reference: Mapping[str, Mapping], names: Sequence[str] = ("sinusoidal", "learned")
) -> None:
    """How the reference readers do when every prompt stands further back than in training."""
    fig, ax = plt.subplots(figsize=(10, 3.9))
    for name in names:
        scores = 100 * np.array(reference[name]["shifted"])
        ax.plot(scores.T, "o", color=PALETTE[LOOKS[name]], alpha=0.35)
        ax.plot(scores.mean(0), color=PALETTE[LOOKS[name]], label=name)
    ax.axhline(50, color=PALETTE["grey"], linestyle=":", linewidth=1.5)
    ax.set(
        xlabel="places by which the prompt is moved",
        ylabel="right (%)",
        ylim=(0, 104),
        xticks=range(scores.shape[1]),
    )
    ax.legend()
    means = "; ".join(
        f"{name}: " + ", ".join(f"{100 * share:.0f}" for share in np.mean(reference[name]["shifted"], axis=0))
        for name in names
    )
    show(
        fig,
        alt=(
            "Share of right answers, in per cent, when prompts move by 0 to 4 places. Means of 5 runs:"
            f" {means}."
        ),
    )


def answers(readers: Mapping[str, Reader], texts: Sequence[str]) -> None:
    """What each reader believes about each prompt, as one bar for each: which colour is in front?"""
    fig, axes = plt.subplots(len(readers), 1, figsize=(10.5, 1.65 * len(readers) + 0.3), sharex=True)
    spoken = []
    for ax, (name, reader) in zip(np.atleast_1d(axes), readers.items(), strict=True):
        with torch.no_grad():
            shares = 100 * reader(tokens(list(texts))).softmax(-1)
        for row, text in enumerate(texts):
            start = 0.0
            for colour in sorted((c for c in COLOUR_NAMES if c in text.split()), key=COLOUR_NAMES.index):
                share = float(shares[row, COLOUR_NAMES.index(colour)])
                ax.barh(-row, share, left=start, color=PALETTE[_BARS[colour]], edgecolor="white", height=0.8)
                if share > 20:
                    ax.text(
                        start + share / 2,
                        -row,
                        f"{colour} {share:.0f} %",
                        ha="center",
                        va="center",
                        color="white",
                        fontsize=17,
                    )
                start += share
            spoken.append(f"{name}, {text}: {COLOUR_NAMES[int(shares[row].argmax())]}")
        ax.set(yticks=[-row for row in range(len(texts))], yticklabels=texts, xlim=(0, 100), xticks=[])
        ax.tick_params(labelsize=17)
        ax.set_title(f"positions: {name}", loc="left")
        for side in ax.spines.values():
            side.set_visible(False)
    show(fig, alt=f"Which colour is in front? {'; '.join(spoken)}.")


_BARS = dict.fromkeys(COLOUR_NAMES, "ink") | {
    "red": "vermilion",
    "blue": "blue",
    "green": "green",
    "purple": "purple",
}
