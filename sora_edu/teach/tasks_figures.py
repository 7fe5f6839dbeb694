"""The pictures of chapter 11 that take more lines than a notebook's cell should have."""

import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.data.world import parse, render
from sora_edu.tasks import grey_out, latent_mask, task_mask
from sora_edu.teach.figures import PALETTE, bare, clip_grid, frames_of, send, show, table
from sora_edu.train import given as trainings

GIVEN, MADE, PART = "blue", "orange", "green"
"""Colours of frames that are given, made, and given in part."""

LOOKS = {"replaced": "vermilion", "channels": "blue", "clean in place": "green"}
"""Palette colours of the ways to give frames."""

Row = tuple[str, object, Float[Tensor, "_ _ _"]]
"""A title, a clip as `figures.frames_of` takes it, and its mask."""


def reference() -> dict:
    """The reference runs of the chapter."""
    return json.loads(data_path("curves", "11_given.json").read_text())


def measured() -> dict:
    """What was measured of every task with the weights that ship; empty if nothing was."""
    path = data_path("checkpoints", "tiny") / "evaluation.json"
    return json.loads(path.read_text()).get("tasks", {}) if path.exists() else {}


# --- rows of frames --------------------------------------------------------------------------------------


def _kind(frame: Float[Tensor, "h w"]) -> str:
    """The colour that says whether a frame is given, made, or both."""
    if frame.amax() == 0:
        return GIVEN
    return MADE if frame.amin() > 0 else PART


def film_rows(rows: Sequence[Row], every: int = 2) -> None:
    """Clips as rows of frames; a bar under each frame says whether it was given, made, or given in part.

    Args:
        rows: what to show. A clip may be shorter than its mask, as a loop is: what is left over is not drawn.
        every: of how many frames one is drawn.
    """
    films = [(title, frames_of(film), mask) for title, film, mask in rows]
    columns = max(len(frames[::every]) for _, frames, _ in films)
    shapes = [0.95 * frames.shape[1] / frames.shape[2] for _, frames, _ in films]
    side = min(12 / columns, (0.6 + 0.6 * len(rows)) / sum(shapes))  # inches; many rows have small frames
    gap, wide = 0.2 / side, float(columns)
    if len(rows) == 1:  # a slide would enlarge a short one beyond measure
        wide = max(columns, 9 / side)
    size = side * wide, side * (sum(shapes) + gap * len(rows))
    fig = plt.figure(figsize=size, layout="none")
    ax, top, spoken = fig.add_axes((0, 0, 1, 1)), 0.0, []
    for (title, frames, mask), shape in zip(films, shapes, strict=True):
        kinds = [_kind(frame) for frame in mask[: len(frames)]]
        ax.text(-0.12, top - shape / 2, title.replace("_", " "), ha="right", va="center", fontsize=18)
        for place, k in enumerate(range(0, len(frames), every)):
            ax.imshow(frames[k], extent=(place, place + 0.95, top - shape, top))
            bar = (place, top - shape - 0.5 * gap), 0.95, 0.35 * gap
            ax.add_patch(Rectangle(*bar, color=PALETTE[kinds[k]], lw=0))
        top -= shape + gap
        spoken.append(f"{' '.join(title.replace('_', ' ').split())}: {_said(kinds)}")
    names = {GIVEN: "given", MADE: "made", PART: "given in part"}
    used = {_kind(frame) for _, _, mask in films for frame in mask}
    marks = [Line2D([], [], color=PALETTE[kind], lw=6, label=name) for kind, name in names.items()]
    marks = [mark for mark, kind in zip(marks, names, strict=True) if kind in used]
    ax.legend(handles=marks, ncols=3, loc="upper center", bbox_to_anchor=(columns / wide / 2, 0), fontsize=17)
    ax.set(xlim=(0, wide), ylim=(top, 0.02))
    bare(ax)
    show(fig, alt=f"Rows of frames of clips, every {every}. {'; '.join(spoken)}.")


def _said(kinds: Sequence[str]) -> str:
    """Which frames are given, in words."""
    told = [str(k) for k, kind in enumerate(kinds) if kind == GIVEN]
    if PART in kinds:
        return "in every frame a region is made"
    return f"frames {', '.join(told)} of {len(kinds)} given" if told else f"{len(kinds)} frames made"


def example() -> Float[Tensor, "3 17 64 64"]:
    """The clip on which tasks are shown."""
    return render(parse("a large blue circle moves right on a dark background").complete(seed=3), 17, 64, 64)


def box(height: int = 64, width: int = 64) -> np.ndarray:
    """A region in the middle, half as high and as wide as the picture."""
    region = np.zeros((height, width), bool)
    region[height // 4 : -height // 4, width // 4 : -width // 4] = True
    return region


def promise() -> None:
    """The picture that the chapter begins with: what each task is given. All grey is to be filled."""
    video, rows = example(), []
    given = {
        "text_to_video": [], "animate": [0], "extend": range(9), "extend_backwards": range(8, 17),
        "connect": [*range(5), *range(13, 17)], "loop": range(5), "inpaint": range(17),
    }  # fmt: skip
    for task, known in given.items():
        region = box() if task == "inpaint" else None
        mask = task_mask(task, 17, 64, 64, list(known), region)
        shown = video.clone()
        if task == "loop":
            shown[:, -1] = shown[:, 0]
        rows.append((task.replace("_", "\n", 1), grey_out(shown[None], mask)[0], mask))
    film_rows(rows)


def playing(videos: Sequence, captions: Sequence[str], alt: str) -> None:
    """Clips side by side, played; the file is kept small."""
    send(clip_grid(videos, captions, scale=3, columns=5), alt)


# --- masks of latents ------------------------------------------------------------------------------------


def mask_of_latents(named: Mapping[str, Float[Tensor, "t h w"]]) -> None:
    """Masks of frames above, and what becomes of them below: four channels of each latent frame."""
    fig, axes = plt.subplots(
        2, len(named), figsize=(14.5, 4.5), height_ratios=(1, 3.4), squeeze=False, sharex="col"
    )
    spoken = []
    for (above, below), (name, mask) in zip(axes.T, named.items(), strict=True):
        frames = mask[:, 0, 0]
        cells = latent_mask(mask)[0, :, :, 0, 0]
        spoken.append(f"{name}: {'; '.join(' '.join(f'{v:.0f}' for v in channel) for channel in cells)}")
        for k, value in enumerate(frames.tolist()):
            place = 0 if k == 0 else 1 + (k - 1) // 4
            within = 0.5 if k == 0 else ((k - 1) % 4 + 0.5) / 4
            _cell(above, place + within - 0.12, 0, 0.24, 0.9, value, str(k), 14)
        for channel, row in enumerate(cells.tolist()):
            for place, value in enumerate(row):
                _cell(below, place + 0.05, 3 - channel, 0.9, 0.9, value, f"{value:.0f}", 17)
        above.set_title(name)
        for ax, high in ((above, 1), (below, 4)):
            ax.set(xlim=(0, cells.shape[1]), ylim=(-0.1, high), yticks=[])
            ax.spines[:].set_visible(False)
        below.set_xticks([k + 0.5 for k in range(cells.shape[1])], range(cells.shape[1]))
        below.set_xlabel("latent frame")
        above.tick_params(bottom=False)
        below.tick_params(length=0)
    axes[0, 0].set_ylabel("frame", rotation=0, ha="right", va="center")
    axes[1, 0].set_ylabel("4 channels", rotation=0, ha="right", va="center")
    show(
        fig,
        alt=(
            "Masks of 17 frames, blue where given and orange where to generate; under them the four channels"
            f" of five latent frames. Channel by channel: {' | '.join(spoken)}."
        ),
    )


def _cell(ax: Axes, x: float, y: int | float, wide: float, high: float, value: float, text: str, size: int):
    ax.add_patch(Rectangle((x, y), wide, high, color=PALETTE[MADE if value else GIVEN], lw=0))
    colour = "black" if value else "white"
    ax.text(x + wide / 2, y + high / 2, text, ha="center", va="center_baseline", fontsize=size, color=colour)


# --- what a causal encoder makes of a masked clip --------------------------------------------------------


def latent_gaps(found: Mapping[str, tuple[Sequence[float], Sequence[bool]]]) -> None:
    """How far latents of masked clips are from those of whole ones, latent frame by latent frame.

    `found` has, for each task, the distances and whether all that the latent frame stands for is given.
    """
    fig, axes = plt.subplots(1, len(found), figsize=(13.5, 3.7), sharey=True)
    spoken = []
    for ax, (task, (values, known)) in zip(axes, found.items(), strict=True):
        colours = [PALETTE[GIVEN] if whole else "#CFCFCF" for whole in known]
        ax.bar(range(len(values)), values, color=colours, edgecolor=PALETTE["ink"], lw=0.8)
        for k, (value, whole) in enumerate(zip(values, known, strict=True)):
            if whole:
                ax.text(k, value + 0.02, f"{value:.2f}", ha="center", va="bottom")
        task = task.replace("_", " ")
        ax.set(title=task, xlabel="latent frame", xticks=range(len(values)))
        told = ", ".join(f"{v:.2f}" for v, whole in zip(values, known, strict=True) if whole)
        spoken.append(f"{task}: {told}")
    axes[0].set_ylabel("distance, in\nstandard deviations")
    handles = [
        Rectangle((0, 0), 1, 1, color=PALETTE[GIVEN], label="all its frames are given"),
        Rectangle((0, 0), 1, 1, color="#CFCFCF", label="some are to be made"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2)
    show(
        fig,
        alt=(
            "Bars for each latent frame: how far the latents of the masked clip are from those of the whole"
            f" clip. Of frames that are given: {'; '.join(spoken)}."
        ),
    )


# --- ways to give frames ---------------------------------------------------------------------------------


def ring_films(films: Mapping[str, Float[Tensor, "n 1 t 1 w"]], mask: Float[Tensor, "t 1 w"]) -> None:
    """Films of lights on a ring, each a whole picture: moments from top to bottom, lamps from left to right.

    A blue line stands beside the moments that were given.
    """
    count = len(next(iter(films.values())))
    told = (mask.flatten(1).amax(1) == 0).nonzero().flatten().tolist()
    size = (13, 1.55 * len(films))
    fig, axes = plt.subplots(len(films), count, figsize=size, squeeze=False, layout="constrained")
    fig.get_layout_engine().set(hspace=0.08)
    for line, (name, row) in zip(axes, films.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=18, fontsize=18)
        for ax, film in zip(line, row, strict=True):
            ax.imshow(film[0, :, 0].clamp(-1, 1), vmin=-1, vmax=1, aspect="auto")
            for moment in told:
                line_of = {"color": PALETTE[GIVEN], "lw": 6, "solid_capstyle": "butt"}
                ax.plot((-0.95, -0.95), (moment - 0.5, moment + 0.5), **line_of)
            ax.set(xlim=(-1.1, film.shape[-1] - 0.5))
            bare(ax)
    show(
        fig,
        alt=(
            f"{count} films of a light on a ring as stripes, once for each of: {', '.join(films)}. Given are"
            f" the moments {', '.join(map(str, told))}; a right film is one straight stripe."
        ),
    )


def learning_curves(kept: Mapping[str, Mapping], mine: Sequence[tuple[int, float]]) -> None:
    """The loss of the reference runs, and of the learner's run of "channels" in front of them."""
    fig, ax = plt.subplots(figsize=(10, 4.5))
    spoken = []
    for way, colour in LOOKS.items():
        runs, steps = np.array(kept[way]["loss"]), kept[way]["steps"]
        ax.fill_between(steps, runs.min(0), runs.max(0), color=PALETTE[colour], alpha=0.25, lw=0)
        ax.plot(steps, runs.mean(0), "--", lw=1.8, color=PALETTE[colour], label=way)
        spoken.append(f"{way} {runs[:, -1].mean():.2f}")
    ax.plot(*zip(*mine, strict=True), color=PALETTE[LOOKS["channels"]], label="channels (yours)")
    ax.set(xlabel="training step", ylabel="loss", ylim=(0, None))
    ax.legend()
    show(
        fig, alt=f"Losses that fall. Reference runs end at: {', '.join(spoken)}; yours at {mine[-1][1]:.2f}."
    )


def ways_rows(tasks: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> list[list[str]]:
    """Rows for a table of the reference runs: means over seeds, and the range of what was missed."""
    rows = []
    for task, ways in tasks.items():
        for way, runs in ways.items():
            off = [run["missed"] for run in runs]
            means = {name: np.mean([run[name] for run in runs]) for name in ("right", "seam", "given")}
            spread = f"{np.mean(off):.2f} ({min(off):.2f} to {max(off):.2f})"
            rows.append([task, way, f"{means['right']:.0%}", spread, f"{means['seam']:.2f}"])
            rows[-1].append(f"{means['given']:.2f}")
    return rows


def perfect_rows(repeats: Sequence[int], films: int = 128) -> list[list[str]]:
    """Shares of films that perfect networks complete rightly: overwritten so many times a step, and told."""
    world = trainings.all_films()
    chosen = torch.randperm(len(world), generator=torch.Generator().manual_seed(0))[:films]
    true, rows = world[chosen], []
    for task, mask in trainings.masks_asked().items():
        ways = {
            str(n): trainings.overwrite(
                trainings.perfect(world), true, mask, torch.Generator().manual_seed(1), n
            )
            for n in repeats
        }
        ways["told"] = trainings.complete_perfectly(world, true, mask)
        shares = [trainings.judge_films(made, true, mask)["right"] for made in ways.values()]
        rows.append([task, *(f"{share:.0%}" for share in shares)])
    return rows


# --- what was measured of tiny Sora ----------------------------------------------------------------------


MEASURES = {
    "adherence": ("right", "{:.0f}\N{NO-BREAK SPACE}%", 100),
    "continued": ("continued", "{:.0f}\N{NO-BREAK SPACE}%", 100),
    "joint_error": ("off at the seam (pixels)", "{:.1f}", 1),
    "given_psnr": ("own output at given (dB)", "{:.1f}", 1),
    "given_psnr_autoencoder": ("autoencoder alone (dB)", "{:.1f}", 1),
    "seam_ratio": ("seam", "{:.2f}", 1),
}
"""Figures of `evaluate`, with their headings and how they are written."""


def measured_table(figures: Mapping[str, Mapping[str, Mapping]] | None = None) -> None:
    """A table of what was measured of every task with the weights that ship, or of the given figures.

    A dash stands where a task has no such figure; without any, a line says how to measure.
    """
    figures = measured() if figures is None else figures
    if not figures:
        print("The tasks of these weights have not been measured: python -m sora_edu evaluate --json FILE")
        return
    rows = []
    for task, found in figures.items():
        said = [
            form.format(factor * found[name]["value"]) if name in found else "–"
            for name, (_, form, factor) in MEASURES.items()
        ]
        rows.append([task.replace("_", " "), *said])
    table(rows, header=("task", *(heading for heading, _, _ in MEASURES.values())))
