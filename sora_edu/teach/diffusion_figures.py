"""The pictures of chapter 01 that take more lines than a notebook's cell should have."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.ticker import NullLocator
from torch import Tensor

from sora_edu.data.digits import digits
from sora_edu.diffusion import Levels, add_noise, cosine_levels, flow_levels, linear_levels
from sora_edu.samplers import ddim, make_grid
from sora_edu.teach.figures import PALETTE, live, power, show
from sora_edu.train.denoising import energy_distance, perfect_network

Pictures = Float[Tensor, "b 1 8 8"]


def digit_rows(
    rows: Mapping[str, Pictures], *, alt: str, above: Sequence[str] = (), size: float | int = 1.05
) -> None:
    """Rows of pictures of digits, each with its name at the left.

    Args:
        rows: name -> pictures; ink is dark, and pixels are smoothed, so that the eye reads the whole.
        alt: what the rows show.
        above: a word above each column.
        size: of a picture, in inches.
    """
    columns = max(len(pictures) for pictures in rows.values())
    fig, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(size * columns + 2.2, size * len(rows) + 0.4 * bool(above)),
        dpi=72,  # smooth greys take room in a PNG, and pictures of 8 x 8 pixels need little
        squeeze=False,
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        row[0].text(-0.2, 0.5, name, transform=row[0].transAxes, ha="right", va="center")
        for ax, picture in zip(row, pictures, strict=False):
            ax.imshow(picture[0].numpy(), cmap="gray_r", vmin=-1, vmax=1, interpolation="bilinear")
    for ax, text in zip(axes[0], above, strict=False):
        ax.set_title(text, fontsize=15)
    show(fig, alt=alt)


def out_of_noise(
    network: Callable[[Tensor, Tensor], Tensor], target: str, *, rows: int = 3, seed: int = 0, steps: int = 50
) -> None:
    """Digits coming out of noise: some moments of a walk from t = 1 to t = 0.

    `network(x, t)` predicts `target`.
    """
    noise = torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    passed = [noise]
    with torch.no_grad():
        ddim(network, noise, make_grid(steps), target, lambda step, x: passed.append(x))
    shown = [round(steps * share) for share in (0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)]
    films = torch.stack([passed[step] for step in shown], dim=1)
    digit_rows(
        {f"noise {number + 1}": film for number, film in enumerate(films)},
        above=[f"t = {1 - step / steps:.1f}" for step in shown],
        alt=f"{rows} rows of small pictures. On the left noise; to the right, step by step, a digit comes "
        "out of each.",
        size=1.2,
    )


def promise() -> None:
    """Digits out of noise by the perfect network of the training set, for which nothing has to be trained."""
    pictures, _ = digits("train")
    out_of_noise(perfect_network(pictures), "x0", seed=4)


SCHEDULES: dict[str, tuple[Levels, str]] = {
    "linear": (linear_levels, "blue"),
    "cosine": (cosine_levels, "orange"),
    "flow": (flow_levels, "green"),
}
"""Schedules of the chapter: name -> (levels, palette colour)."""


def schedules(picture: Float[Tensor, "1 8 8"], seed: int = 0) -> None:
    """One digit ruined by three schedules with the same noise, and the three in numbers."""
    times = torch.linspace(0, 1, 11)
    noise = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(seed)).expand(11, 1, 8, 8)
    same = picture.expand(11, 1, 8, 8)
    digit_rows(
        {name: add_noise(same, noise, times, levels) for name, (levels, _) in SCHEDULES.items()},
        above=[f"t = {t:.1f}" for t in times.tolist()],
        alt="One handwritten digit with more and more noise, in three rows: linear, cosine, flow. The linear "
        "schedule has hidden it by t = 0.5, the other two a little later.",
    )  # fmt: skip
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
    t = torch.linspace(0.001, 0.999, 400, dtype=torch.float64)
    for name, (levels, colour) in SCHEDULES.items():
        alpha, sigma = levels(t)
        left.plot(t, alpha**2 / (alpha**2 + sigma**2), color=PALETTE[colour], label=name)
        right.plot(t, (alpha / sigma).log(), color=PALETTE[colour])
    left.set(xlabel="t", ylabel="share of variance", title="how much of it is data")
    left.legend()
    right.set(xlabel="t", ylabel="λ = log(α / σ)", title="signal to noise, as a logarithm", ylim=(-7, 7))
    right.axhline(0, color=PALETTE["grey"], linewidth=1.5, linestyle=":")
    show(
        fig,
        alt="Left: the data's share of the variance falls from 1 to 0, for the linear one soonest. Right: "
        "the logarithm of signal to noise falls; linear crosses 0 near t = 0.26, cosine and flow at 0.5.",
    )


def clouds(
    panels: Mapping[str, Float[Tensor, "n 2"]], *, alt: str, real: Float[Tensor, "m 2"] | None = None
) -> None:
    """Clouds of points side by side; with `real`, its points in grey and each cloud's distance from it.

    A cloud that has shrunk to a spot has a ring around it.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.2), squeeze=False)
    for ax, (name, points) in zip(axes[0], panels.items(), strict=True):
        if real is not None:
            ax.plot(*real[:600].T, ".", color=PALETTE["grey"], markersize=2, alpha=0.6)
            ax.set_xlabel(f"distance {round(energy_distance(points, real), 3) + 0.0:.3f}")
        ax.plot(*points[:600].T, ".", color=PALETTE["blue"], markersize=4)
        if points.std(0).max() < 0.1:
            ax.plot(*points.mean(0), "o", markersize=26, markerfacecolor="none", markeredgewidth=2.5,
                    markeredgecolor=PALETTE["vermilion"])  # fmt: skip
        ax.set(xlim=(-3.2, 3.2), ylim=(-2.2, 2.2), aspect="equal", xticks=[], yticks=[])
        ax.set_title(name.replace(", ", ",\n"), fontsize=15)
    show(fig, alt=alt)


def seeds_compared(reference: Mapping[str, Sequence[float]], floor: float, *, title: str) -> None:
    """Distances of several runs, a dot each and a bar at their median; a line joins the dots of one seed.

    Where distances differ much the scale is logarithmic from 0.003 on, and even below, for by chance one can
    be negative.
    """
    fig, ax = plt.subplots(figsize=(10, 0.7 * len(reference) + 1.8))
    for values in zip(*reference.values(), strict=True):
        (seed,) = ax.plot(values, range(0, -len(values), -1), color=PALETTE["grey"], linewidth=1, zorder=1)
    for place, values in enumerate(reference.values()):
        (run,) = ax.plot(values, [-place] * len(values), "o", color=PALETTE["blue"], alpha=0.6, markersize=10)
        (middle,) = ax.plot(
            [np.median(values)] * 2, [-place - 0.3, -place + 0.3], color=PALETTE["vermilion"], linewidth=3
        )
    names = ("dot: a run", "bar: median", "line: the same seed")
    fig.legend([run, middle, seed], names, loc="outside lower center", ncols=3)
    ax.set(yticks=[-k for k in range(len(reference))], yticklabels=list(reference), title=title)
    ax.set(xlabel="energy distance from the real points (left is better)", ylim=(0.6 - len(reference), 0.5))
    if max(map(max, reference.values())) > 0.01:
        ax.set_xscale("symlog", linthresh=0.003)
        ax.autoscale_view()  # the margins were those of an even scale, and cut the outermost dots
        low, high = ax.get_xlim()
        ticks = [tick for tick in (0, 0.003, 0.01, 0.03, 0.1, 0.3, 1) if low < tick < high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
    medians = ", ".join(f"{name} {np.median(values):.3f}" for name, values in reference.items())
    show(
        fig,
        alt=f"Energy distances of {len(next(iter(reference.values())))} runs each. Medians: {medians}. Two "
        f"real samples are {abs(floor):.3f} apart.",
    )


def orders(errors: Mapping[str, Mapping[int, float]]) -> None:
    """Errors of samplers against their steps, both on logarithmic scales, with slopes 1 and 2."""
    fig, ax = plt.subplots(figsize=(10, 4.4))
    for (name, found), colour in zip(errors.items(), ("blue", "vermilion", "green"), strict=False):
        ax.plot(list(found), np.abs(list(found.values())), "o-", color=PALETTE[colour], label=name)
    steps = np.array(list(next(iter(errors.values()))), dtype=float)
    for slope, style in ((1, ":"), (2, "--")):
        line = 0.25 * (steps / steps[0]) ** -slope
        ax.plot(steps, line, style, color=PALETTE["grey"], linewidth=2, label=f"slope -{slope}")
    ax.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel="error at the end")
    ax.set_xticks(steps, [f"{int(s)}" for s in steps])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(power)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    told = "; ".join(
        f"{name}: " + ", ".join(f"{abs(error):.3g} at {count}" for count, error in found.items())
        for name, found in errors.items()
    )
    show(
        fig, alt=f"Errors on data whose answer is known. {told}. DDIM falls with slope -1, the others faster."
    )


def loss_curves(
    reference: Mapping[str, Sequence], mine: Sequence[tuple[int, float]], floor: float | None = None
) -> None:
    """The learner's loss over the spread of the reference runs."""
    fig, ax = plt.subplots(figsize=(10, 4.2))
    runs = np.array(reference["loss"])
    ax.fill_between(
        reference["steps"], runs.min(0), runs.max(0), color=PALETTE["grey"], alpha=0.45, linewidth=0,
        label=f"{len(runs)} reference runs",
    )  # fmt: skip
    # The runs are so much alike that their band alone could not be seen.
    ax.plot(reference["steps"], runs.mean(0), color=PALETTE["grey"], alpha=0.45, linewidth=10)
    ax.plot(*zip(*mine, strict=True), color=PALETTE["blue"], label="yours")
    ax.set(xlabel="training step", ylabel="loss", ylim=(0, None))
    ax.legend()
    show(
        fig,
        alt=f"The loss falls quickly, then slowly; yours ends at {mine[-1][1]:.2f}, within the references.",
    )


def neighbours(made: Pictures, found: Pictures) -> None:
    """Generated digits above the training digits that are nearest to them."""
    digit_rows(
        {"made": made, "nearest real": found},
        alt="Above, digits that the network made; below, for each the most similar training digit. They are "
        "alike, and not the same.",
    )


GUIDANCE = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Guidance scales that stand in for the slider where nothing can be moved."""


def guidance_explorer(sample: Callable[[float, int], Pictures]) -> None:
    """A slider for the guidance scale, and one for the seed, over a row of ten digits.

    `sample(scale, seed)` makes the digits 0 to 9. Without a kernel, five scales stand below one another.
    """
    if not live():
        digit_rows(
            {f"s = {scale:g}": sample(scale, 0) for scale in GUIDANCE},
            above=[str(digit) for digit in range(10)],
            alt="Ten digits from the same noise with guidance 0, 1, 2, 4 and 8. At 0 labels are ignored; "
            "from 1 on they are readable; at 8 the strokes are hard and heavy.",
        )
        return
    scale = ipywidgets.FloatSlider(1.0, min=0, max=8, step=0.25, description="guidance")
    seed = ipywidgets.IntSlider(0, min=0, max=20, description="seed")

    def draw(guidance: float, seed: int) -> None:
        digit_rows(
            {f"s = {guidance:g}": sample(guidance, seed)},
            above=[str(digit) for digit in range(10)],
            alt=f"The digits 0 to 9 with guidance {guidance:g}.",
        )

    ipywidgets.interact(draw, guidance=scale, seed=seed)
