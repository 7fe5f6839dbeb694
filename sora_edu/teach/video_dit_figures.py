"""The pictures of chapter 10 that take more lines than a notebook's cell should have."""

import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.data.render import FPS, GRAVITY
from sora_edu.physics import STEADY, Flight, Path, fit_flight, flight_heights, unsteadiness
from sora_edu.teach.figures import PALETTE, bare, frames_of, show
from sora_edu.train import motions as trainings

LOOKS = {"joint": "blue", "factorised": "orange", "real": "green"}
"""Palette colours of what is compared."""

Number = int | float


def reference() -> dict:
    """The reference runs of the chapter."""
    return json.loads(data_path("curves", "10_motions.json").read_text())


def kept_clips(kept: Mapping, attention: str) -> list[UInt8[np.ndarray, "f h w 3"]]:
    """The clips that were kept of the first reference run."""
    return [trainings.clip_from_text(text) for text in kept[attention]["samples"]]


def kept_prompts() -> list[str]:
    """What those clips were asked to show."""
    every = trainings.things()
    return [f"{t.colour} {t.shape} {t.motion}" for t in (every[number] for number in trainings.SAMPLES)]


# --- clips as one picture --------------------------------------------------------------------------------


def exposures(clips: Sequence, titles: Sequence[str], alt: str, columns: int = 4) -> None:
    """Every frame of a clip in one picture, the later the brighter, as if the shutter had stayed open."""
    rows = -(-len(clips) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.3 * columns, 3.6 * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, clip, title in zip(axes.flat, clips, titles, strict=False):
        frames = frames_of(clip).astype(float) / 255
        fade = np.linspace(0.35, 1, len(frames))[:, None, None, None]
        ax.imshow((frames * fade).max(0))
        ax.set_title(title, fontsize=17)
    show(fig, alt=alt)


def promise() -> None:
    """The picture that the chapter ends with: four clips from noise, and the law that each follows."""
    kept = reference()
    exposures(
        kept_clips(kept, "joint"), kept_prompts(),
        "Four clips that a small video transformer made, all frames of each in one picture: "
        + "; ".join(kept_prompts()) + ".",
    )  # fmt: skip


# --- the machine -----------------------------------------------------------------------------------------


def _box(ax: Axes, x: Number, y: Number, width: Number, height: Number, text: str, face: str) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.8", facecolor=face,
            edgecolor=PALETTE["ink"], linewidth=1.3, zorder=3,
        )
    )  # fmt: skip
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=17, zorder=4)


def _arrow(ax: Axes, start: tuple[Number, Number], end: tuple[Number, Number], colour: str = "ink") -> None:
    style = {"arrowstyle": "-|>", "color": PALETTE[colour], "lw": 2, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=end, xytext=start, arrowprops=style, zorder=2)


def machine() -> None:
    """The whole network as a plan: noisy latents in, their velocity out, and the loop around it."""
    fig, ax = plt.subplots(figsize=(13.8, 4.7))
    pale, warm, cool = PALETTE["pale"], "#FFE3CF", "#D9ECF7"
    _box(ax, 1, 15, 17, 9, "noisy latents\n$x_t$\nc × t × h × w", cool)
    _box(ax, 21.5, 15, 12, 9, "patchify\n+ linear", "white")
    _box(ax, 37, 15, 11, 9, "+ place\nt, y, x", "white")
    for k in range(3):
        _box(ax, 54 - k, 10.5 - k, 22, 18, "", pale)
    ax.text(63, 24.2, "a block, many times", ha="center", va="center", fontsize=16, zorder=5)
    _box(ax, 53, 17, 20, 5, "who sees whom", "white")
    _box(ax, 53, 10.5, 20, 5, "each alone: MLP", "white")
    _box(ax, 80, 15, 14, 9, "linear +\nunpatchify", "white")
    _box(ax, 98, 15, 12, 9, "velocity\n$u$", cool)
    _box(ax, 43, 35, 40, 6, "time t  +  text encoder(prompt)", warm)
    _box(ax, 31, 0, 44, 5, "one Euler step: $x_s = x_t + (s - t)\\,u$", cool)
    _box(ax, 1, 32, 17, 6.5, "noise, t = 1", cool)
    _box(ax, 87, 33.5, 28, 6.5, "t = 0: decoder → video", cool)
    for start, end in (((18, 19.5), (21.5, 19.5)), ((33.5, 19.5), (37, 19.5)), ((48, 19.5), (52, 19.5)),
                       ((76, 19.5), (80, 19.5)), ((94, 19.5), (98, 19.5)), ((9.5, 32), (9.5, 24)),
                       ((104, 24), (104, 33.5))):  # fmt: skip
        _arrow(ax, start, end)
    for x in (58, 66):
        _arrow(ax, (x, 35), (x, 28.5), "vermilion")
    ax.text(68, 31.4, "shift, scale, gate", color=PALETTE["vermilion"], fontsize=16, va="center")
    ax.plot([104, 104, 75], [15, 2.5, 2.5], color=PALETTE["ink"], lw=2, zorder=1)
    ax.plot([31, 9.5], [2.5, 2.5], color=PALETTE["ink"], lw=2, zorder=1)
    _arrow(ax, (9.5, 2.5), (9.5, 15))
    ax.text(20, 4, "again, less noisy", fontsize=16, ha="center")
    ax.set(xlim=(0, 116), ylim=(-0.5, 41.5))
    ax.axis("off")
    show(
        fig,
        alt=(
            "Plan of a video diffusion transformer: noise enters as latents, is cut into patches, gets places"
            " in time and space, passes blocks of attention and MLP that are told time and prompt by shift,"
            " scale and gate, and leaves as a velocity. An Euler step goes back to the start; at time 0 the"
            " decoder makes a video."
        ),
    )


# --- who sees whom ---------------------------------------------------------------------------------------

SEEN = {"clip": "joint", "frame": "factorised, blocks 0, 2, 4 …", "place": "factorised, blocks 1, 3, 5 …"}
"""What each kind of block is called beside its picture."""


def who_sees_whom(frames: int = 5, side: int = 4, looks: tuple[int, int, int] = (2, 1, 2)) -> None:
    """A clip's patches, three times: the one that looks, and those that it sees in each kind of block."""
    fig, axes = plt.subplots(3, frames, figsize=(1.65 * frames + 3, 5.2))
    spoken = []
    for line, (sees, title) in zip(axes, SEEN.items(), strict=True):
        count = 0
        for t, ax in enumerate(line):
            for y in range(side):
                for x in range(side):
                    here = (t, y, x) == looks
                    seen = {"clip": True, "frame": t == looks[0], "place": (y, x) == looks[1:]}[sees]
                    count += seen
                    colour = "vermilion" if here else "sky" if seen else "pale"
                    corner = (x, side - 1 - y)
                    ax.add_patch(Rectangle(corner, 0.9, 0.9, facecolor=PALETTE[colour], edgecolor="white"))
            ax.set(xlim=(-0.1, side), ylim=(-0.1, side), aspect="equal")
            bare(ax)
            if sees == "place":
                ax.set_xlabel(f"frame {t}", fontsize=16)
        name = f"{title}:\n{count} of {frames * side**2}".replace(", ", ",\n", 1)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=17)
        spoken.append(f"{title} {count} of {frames * side**2}")
    show(fig, alt=f"Patches of {frames} frames; how many one of them sees: {'; '.join(spoken)}.")


def costs(rows: Sequence[Mapping]) -> None:
    """MACs (closed form) and measured seconds of one evaluation by the length of the clip."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.2))
    spoken = []
    for attention in trainings.ATTENTIONS:
        mine = [row for row in rows if row["attention"] == attention]
        frames = [row["frames"] for row in mine]
        colour = PALETTE[LOOKS[attention]]
        left.plot(frames, [row["macs"] / 1e9 for row in mine], "o-", color=colour, label=attention)
        right.plot(frames, [row["seconds"] for row in mine], "o-", color=colour, label=attention)
        spoken.append(f"{attention} {mine[0]['macs'] / 1e9:.1f} to {mine[-1]['macs'] / 1e9:.1f} G MACs")
    left.set(xlabel="latent frames", ylabel="billion MACs", title="counted", ylim=0)
    right.set(xlabel="latent frames", ylabel="seconds", title="measured here", ylim=0)
    left.legend()
    span = f"{rows[0]['frames']} to {rows[-1]['frames']} latent frames"
    show(fig, alt=f"Cost of one evaluation against length, {span}: {'; '.join(spoken)}; and seconds beside.")


# --- the trainings ---------------------------------------------------------------------------------------


def learning(kept: Mapping, mine: Mapping[str, Mapping] | None = None) -> None:
    """Loss on fresh clips against steps, reference runs behind one's own; and what was read right."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(13.5, 4.6), width_ratios=(1.6, 1))
    spoken = []
    for k, attention in enumerate(trainings.ATTENTIONS):
        runs, steps, colour = np.array(kept[attention]["loss"]), kept[attention]["steps"], LOOKS[attention]
        left.fill_between(steps, runs.min(0), runs.max(0), color=PALETTE[colour], alpha=0.25, lw=0)
        left.plot(
            steps, runs.mean(0), "--", lw=1.8, color=PALETTE[colour], label=f"{attention}, {len(runs)} runs"
        )
        if mine and attention in mine:
            left.plot(
                mine[attention]["steps"], mine[attention]["loss"], "o-", color=PALETTE[colour],
                label=f"{attention}, yours",
            )  # fmt: skip
        shares = [100 * share["all"] for share in kept[attention]["shares"]]
        right.bar(k, np.mean(shares), 0.6, color=PALETTE[colour])
        right.plot([k] * len(shares), shares, "o", color=PALETTE["ink"])
        spoken.append(f"{attention}: loss {runs[:, -1].mean():.3f}, {np.mean(shares):.0f} % read right")
    ceiling = 100 * kept["real"]["shares"]["all"]
    right.axhline(ceiling, color=PALETTE["green"], ls=":")
    right.text(1.42, ceiling - 2, "real clips", color=PALETTE["green"], ha="right", va="top")
    right.set(title="colour, shape, motion read right", ylabel="%", ylim=(0, 104))
    right.set_xticks([0, 1], trainings.ATTENTIONS)
    left.set(xlabel="training step", ylabel="loss on fresh clips", ylim=(0, None))
    left.legend()
    show(fig, alt=f"Reference runs. {'; '.join(spoken)}; real clips {ceiling:.0f} %.")


# --- physics ---------------------------------------------------------------------------------------------


def _fitted(flight: Flight, frames: int) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Fine times, and the fitted height above the floor at each."""
    t = np.linspace(0, (frames - 1) / FPS, 200)
    return t, flight_heights(t, flight.gravity, flight.speed, flight.drop, flight.restitution)


def flights(paths: Mapping[str, Float[np.ndarray, " t"]], bounces: bool = False) -> None:
    """Tracked heights above the floor as dots, and the nearest law as a line, one panel for each path."""
    fig, axes = plt.subplots(1, len(paths), figsize=(4.4 * len(paths), 4.3), sharey=True, squeeze=False)
    spoken = []
    for ax, (name, y) in zip(axes[0], paths.items(), strict=True):
        flight, t = fit_flight(y, bounces), np.arange(len(y)) / FPS
        told = "gravity cannot be told"
        floor = max(y) if flight is None else flight.floor
        if flight is not None:
            ax.plot(*_fitted(flight, len(y)), color=PALETTE["orange"])
            told = f"g = {flight.gravity:.2f}" + (f", e = {flight.restitution:.2f}" if bounces else "")
        ax.plot(t, floor - np.asarray(y), "o", color=PALETTE["blue"])
        ax.axhline(0, color=PALETTE["ink"], lw=1)
        ax.set(title=f"{name}\n{told}", xlabel="seconds")
        spoken.append(f"{name}: {told}")
    axes[0, 0].set_ylabel("height above the floor")
    show(fig, alt=f"Tracked heights and the nearest law. {'; '.join(spoken)}.")


def paths_of(tracks: Sequence[Mapping | None], *asked: str) -> list[Path | None]:
    """Paths of the clips that were asked for one of these motions; None where the judge read nothing."""
    every = trainings.things()
    return [
        None if track is None else Path(np.array(track["x"]), np.array(track["y"]))
        for number, track in enumerate(tracks)
        if every[number % len(every)].motion in asked
    ]


def read_as_asked(runs: Sequence[Sequence[Mapping | None]], motion: str) -> float:
    """The share of clips asked for a motion in which the judge read it, over all runs."""
    every = trainings.things()
    read = [
        track is not None and track["motion"] == motion
        for tracks in runs
        for number, track in enumerate(tracks)
        if every[number % len(every)].motion == motion
    ]
    return sum(read) / len(read)


def gravities(tracks: Sequence[Mapping | None]) -> list[float]:
    """Gravity of every clip that was asked to fall, as far as its path tells it."""
    found = [None if path is None else fit_flight(path.y) for path in paths_of(tracks, "falls")]
    return [flight.gravity for flight in found if flight is not None]


def unsteady(tracks: Sequence[Mapping | None]) -> list[float]:
    """Acceleration of every clip that was asked to move left or right, in units of g."""
    return [unsteadiness(path) for path in paths_of(tracks, "moves left", "moves right") if path is not None]


def laws(kept: Mapping) -> None:
    """Gravity of falls, and acceleration of what should move steadily: a dot for each clip, by maker."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(13.5, 4.6))
    fig.get_layout_engine().set(wspace=0.06)
    dice, spoken = np.random.default_rng(0), []
    for ax, measure, name in ((left, gravities, "g"), (right, unsteady, "acceleration")):
        for row, maker in enumerate(("real", *trainings.ATTENTIONS)):
            tracks = [kept["real"]["tracks"]] if maker == "real" else kept[maker]["tracks"]
            values = [value for one in tracks for value in measure(one)]
            places = row + dice.uniform(-0.25, 0.25, len(values))
            ax.plot(values, places, "o", color=PALETTE[LOOKS[maker]], alpha=0.45, markersize=7, clip_on=False)
            middle = float(np.median(values)) if values else float("nan")
            ax.plot([middle] * 2, [row - 0.38, row + 0.38], color=PALETTE["ink"], lw=3)
            spoken.append(f"{maker} {name} {middle:.2f}")
        ax.set_yticks(range(3), ["real clips", *trainings.ATTENTIONS] if ax is left else [""] * 3)
        ax.invert_yaxis()
    left.axvspan(0.95 * GRAVITY, 1.05 * GRAVITY, color=PALETTE["green"], alpha=0.15)
    left.set(title="falls: gravity", xlabel="heights per second squared", xlim=(0, 2.4))
    right.axvspan(0, STEADY, color=PALETTE["green"], alpha=0.15)
    right.set(title="moves left or right: acceleration", xlabel="units of g", xlim=(0, 0.3))
    show(fig, alt=f"A dot for each clip; medians: {', '.join(spoken)}. The law's band is shaded.")


def shipped(report: Mapping) -> list[list[str]]:
    """Rows of a table of the physics in an evaluation report: law, model, real clips, how many."""
    found = report.get("physics", {})
    return [
        [
            law.replace("_", " "), f"{figure['value']:.0%}",
            f"{found[f'{law}_real']['value']:.0%}", str(figure["n"]),
        ]
        for law, figure in found.items()
        if not law.endswith("_real")
    ]  # fmt: skip


def occluded(clips: Sequence[Float[Tensor, "3 t h w"]], names: Sequence[str], given: int) -> None:
    """Clips as rows of frames; what was given has a frame around it."""
    frames = range(0, clips[0].shape[1], 2)
    fig, axes = plt.subplots(len(clips), len(frames), figsize=(13.5, 1.75 * len(clips)), squeeze=False)
    for row, (line, clip, name) in enumerate(zip(axes, clips, names, strict=True), 1):
        whole = frames_of(clip)
        for ax, k in zip(line, frames, strict=True):
            ax.imshow(whole[k])
            bare(ax)
            if k < given:
                ax.spines[:].set_visible(True)
                ax.spines[:].set(color=PALETTE["vermilion"], linewidth=4)
            if row == len(clips):
                ax.set_xlabel(f"{k / FPS:.2f} s", fontsize=16)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=17)
    show(
        fig,
        alt=f"Rows of frames, the first {given} of each clip framed: {'; '.join(names)}.",
    )
