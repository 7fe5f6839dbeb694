"""The pictures of chapter 14 that take more lines than a notebook's cell should have."""

import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.data.buckets import Bucket, share_kept
from sora_edu.measures import frechet
from sora_edu.scale import activation_bytes, clip_tokens, state_bytes
from sora_edu.teach.figures import PALETTE, bare, show
from sora_edu.video_dit import VideoDiTConfig, video_dit_parameters

_DEVICES = ("blue", "orange", "green", "purple")


def reference() -> dict:
    """The reference runs of the chapter."""
    return json.loads(data_path("curves", "14_full_size.json").read_text())


def _by_step(losses: Mapping[str, float] | Mapping[int, float]) -> tuple[list[int], list[float]]:
    return [int(step) for step in losses], list(losses.values())


# --- shares ----------------------------------------------------------------------------------------------


def walk(stages: Mapping[str, Tensor | Sequence[Tensor]], owned: int) -> None:
    """What each device holds, stage by stage: a row a device, a column a stage, and the numbers themselves.

    Args:
        stages: by name, what each device holds: a tensor each.
        owned: how many numbers a share has; a number's colour is that of the device that owns it.
    """
    devices = len(next(iter(stages.values())))
    widest = max(held.numel() for rows in stages.values() for held in rows)
    across = min(3, len(stages))
    down = -(-len(stages) // across)
    fig, ax = plt.subplots(figsize=(4.5 * across, down * (0.6 * devices + 0.7)))
    for number, (name, rows) in enumerate(stages.items()):
        left, floor = number % across * (widest + 1), (down - 1 - number // across) * (devices + 1)
        ax.text(left + widest / 2, floor + devices + 0.1, name, ha="center", va="bottom", fontsize=17)
        for device, held in enumerate(rows):
            first = device * owned if held.numel() == owned else 0
            for i, value in enumerate(held.flatten().tolist()):
                x, y = left + first + i, floor + devices - 1 - device
                colour = PALETTE[_DEVICES[(first + i) // owned % len(_DEVICES)]]
                ax.add_patch(Rectangle((x, y + 0.12), 0.94, 0.72, color=colour, alpha=0.3, lw=0))
                ax.text(x + 0.47, y + 0.48, f"{value:.2g}", ha="center", va="center")
        if left == 0:
            for device in range(devices):
                middle = floor + devices - 0.52 - device
                ax.text(-0.3, middle, f"device {device}", ha="right", va="center", fontsize=17)
    ax.set(xlim=(-2.2, across * (widest + 1) - 1), ylim=(0, down * (devices + 1) - 0.4))
    bare(ax)
    spoken = "; ".join(
        f"{name}: " + " and ".join(str([round(v, 2) for v in held.flatten().tolist()]) for held in rows)
        for name, rows in stages.items()
    )
    show(fig, alt=f"What {devices} devices hold. {spoken}.")


def memory_by_devices(
    config: VideoDiTConfig, clip: tuple[int, int, int], memory: float, devices: Sequence[int]
) -> None:
    """Bytes on each device for states and activations: as copies, and in shares, by the number of devices."""
    weights = video_dit_parameters(config)
    kept = activation_bytes(config, clip_tokens(*clip), checkpointing=True) / 1e9
    fig, ax = plt.subplots(figsize=(12, 4.6))
    spoken = []
    for k, (name, stage, colour) in enumerate((("copies", 0, "vermilion"), ("shares", 3, "blue"))):
        states = [state_bytes(weights, count, stage) / 1e9 for count in devices]
        places = [x + 0.4 * k - 0.2 for x in range(len(devices))]
        ax.bar(places, states, 0.36, color=PALETTE[colour], label=f"weights and all, {name}")
        ax.bar(places, kept, 0.36, bottom=states, color=PALETTE["grey"], label=None if k else "activations")
        for x, height in zip(places, states, strict=True):
            ax.text(x, height + kept, f"{height + kept:.0f}", ha="center", va="bottom")
        spoken.append(f"{name}: {', '.join(f'{s + kept:.0f}' for s in states)}")
    ax.axhline(memory / 1e9, color=PALETTE["ink"], linestyle="--", linewidth=1.5)
    ax.text(len(devices) - 0.45, memory / 1e9, "what one device has", ha="right", va="bottom")
    ax.set_xticks(range(len(devices)), [str(count) for count in devices])
    ax.set(xlabel="devices", ylabel="GB on each", ylim=(0, 1.35 * memory / 1e9))
    ax.legend(loc="upper right", ncols=3)
    counts = ", ".join(map(str, devices))
    show(fig, alt=f"Bars of GB on each device for {counts} devices. {'. '.join(spoken)}.")


# --- runs ------------------------------------------------------------------------------------------------


def losses_of_runs(kept: Mapping, mine: Mapping[str, Mapping[int, float]] | None = None) -> None:
    """Losses of the reference runs and, in front of them, the learner's; and how far the runs are apart."""
    after = kept["settings"]["killed_after"]
    looks = {
        "1": ("one process", PALETTE["blue"], 9, "-"),
        "2": ("two processes", PALETTE["orange"], 5, "-"),
        "killed": (f"killed after step {after}, started again", PALETTE["ink"], 1.5, "--"),
    }
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.3))
    alone = kept["runs"]["1"]["losses"]
    spoken = []
    for name, (label, colour, width, line) in looks.items():
        losses = kept["runs"][name]["losses"]
        left.plot(*_by_step(losses), line, color=colour, linewidth=width, alpha=0.7, label=label)
        if name != "1":
            gaps = [abs(losses[step] - alone[step]) for step in alone]
            right.plot([int(step) for step in alone], gaps, "o-", color=colour, label=label)
            spoken.append(f"{label}: at most {max(gaps):.0e}")
    for (name, losses), mark in zip((mine or {}).items(), "ox+", strict=False):
        left.plot(
            *_by_step(losses), mark, color=PALETTE["vermilion"], markersize=10, markeredgewidth=2,
            label=f"yours: {name}", markerfacecolor="none",
        )  # fmt: skip
    left.set(xlabel="step", ylabel="mean loss of ten steps")
    right.set(xlabel="step", ylabel="difference to one process")
    right.ticklabel_format(axis="y", style="scientific", scilimits=(0, 0))
    right.yaxis.offsetText.set_fontsize(15)
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    steps, values = _by_step(alone)
    show(fig, alt=(
        f"Left, the loss goes from {values[0]:.2f} to {values[-1]:.2f} in {steps[-1]} steps; the lines of one"
        " process, of two, and of a run that was killed lie on each other. Right, their differences: "
        f"{'; '.join(spoken)}."
    ))  # fmt: skip


def bent_to_fit(videos: Sequence[tuple[int, int]], buckets: Sequence[Bucket]) -> None:
    """Frames of videos (height, width); over each what its bucket shows, and what a square crop would."""
    fig, axes = plt.subplots(1, len(videos), figsize=(2.9 * len(videos), 3.6), squeeze=False)
    spoken = []
    for ax, (height, width), bucket in zip(axes[0], videos, buckets, strict=True):
        scale = max(bucket.height / height, bucket.width / width)
        seen = (bucket.height / scale, bucket.width / scale)
        longest = max(height, width)
        ax.add_patch(Rectangle((0, 0), width / longest, height / longest, color=PALETTE["grey"], alpha=0.5))
        corner = ((width - seen[1]) / 2 / longest, (height - seen[0]) / 2 / longest)
        ax.add_patch(
            Rectangle(corner, seen[1] / longest, seen[0] / longest, fill=False, ec=PALETTE["blue"], lw=3)
        )
        side = min(height, width) / longest
        corner = ((width / longest - side) / 2, (height / longest - side) / 2)
        ax.add_patch(Rectangle(corner, side, side, fill=False, ec=PALETTE["vermilion"], lw=2, ls="--"))
        share = share_kept(height, width, bucket)
        said = f"{width} x {height}\nto {bucket.width} x {bucket.height}\n{share:.0%} kept"
        ax.set_title(said, fontsize=17)
        middle = width / longest / 2
        ax.set(xlim=(middle - 0.55, middle + 0.55), ylim=(-0.05, 1.05), aspect="equal")
        bare(ax)
        spoken.append(f"{width} x {height} to {bucket.width} x {bucket.height}, {share:.0%} kept")
    show(fig, alt=f"Frames in grey, what a bucket shows in blue, a square crop dashed: {'; '.join(spoken)}.")


# --- evaluation ------------------------------------------------------------------------------------------


def distance_by_samples(width: int = 16, counts: Sequence[int] = (20, 40, 80, 160, 320, 640, 1280)) -> None:
    """The distance of two sets from the *same* distribution, by how many samples each has; ten draws each."""
    generator = torch.Generator().manual_seed(0)
    found = [
        [frechet(*torch.randn(2, count, width, generator=generator)) for _ in range(10)] for count in counts
    ]
    fig, ax = plt.subplots(figsize=(10.5, 4.2))
    middle = [sum(row) / len(row) for row in found]
    ax.fill_between(counts, [min(row) for row in found], [max(row) for row in found], alpha=0.25)
    ax.loglog(counts, middle, "o-", color=PALETTE["blue"])
    ax.set(xlabel="samples in each set", ylabel="Fréchet distance")
    show(fig, alt=(
        f"The distance of two sets of the same kind with {width} features falls from {middle[0]:.1f} for "
        f"{counts[0]} samples to {middle[-1]:.2f} for {counts[-1]}, where 0 would be right."
    ))  # fmt: skip
