"""The pictures of chapter 06 that take more lines than a notebook's cell should have."""

import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.patches import Circle
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.data.digits import digits
from sora_edu.teach.figures import PALETTE, bare, pixels, show
from sora_edu.train import latents as trainings
from sora_edu.train.latents import PlaneAutoencoder

LOOKS = {
    "latents": "blue",
    "pixels, patches of 8": "orange",
    "pixels, patches of 4": "vermilion",
}
"""Palette colours of the spaces that are compared."""


def reference() -> dict:
    """The reference runs of the chapter."""
    return json.loads(data_path("curves", "06_latents.json").read_text())


# --- pictures and their latents --------------------------------------------------------------------------


def round_trip(
    images: Float[Tensor, "n 3 h w"], latents: Float[Tensor, "n c h2 w2"], again: Float[Tensor, "n 3 h w"]
) -> None:
    """Pictures, the channels of their latents, and the pictures that are decoded from them."""
    channels = latents.shape[1]
    fig, axes = plt.subplots(
        len(images), channels + 2, figsize=(1.65 * (channels + 2), 1.36 * len(images) + 0.4)
    )
    limit = float(latents.abs().max())
    for row, picture, latent, back in zip(axes, images, latents, again, strict=True):
        row[0].imshow(pixels(picture))
        for ax, channel in zip(row[1:-1], latent, strict=True):
            ax.imshow(channel.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        row[-1].imshow(pixels(back))
        for ax in row:
            bare(ax)
    titles = ("pixels", *(f"channel {k + 1}" for k in range(channels)), "decoded")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=15)
    show(
        fig,
        alt=(
            f"{len(images)} pictures of coloured shapes. Beside each the {channels} channels of its latent,"
            " where the object is a coarse blot at its own place, and the picture decoded from them, nearly"
            " the same."
        ),
    )


def gallery(images: Float[Tensor, "n 3 h w"], titles: Sequence[str], columns: int = 8) -> None:
    """Pictures with a few words over each, a word on each line."""
    rows = -(-len(images) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(1.55 * columns, 2.1 * rows + 0.1), squeeze=False)
    for ax in axes.flat:
        bare(ax)
    for ax, picture, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(pixels(picture))
        ax.set_title(title.replace(" ", "\n"), fontsize=17)
    show(fig, alt=f"{len(images)} pictures, in order: {'; '.join(titles)}.")


@torch.no_grad()
def planes(models: Mapping[str, PlaneAutoencoder], cells: int = 8) -> None:
    """For each model of two latent numbers: where the digits lie, and what every place decodes to."""
    pictures, labels = digits("train")
    fig, axes = plt.subplots(1, 2 * len(models), figsize=(7 * len(models), 3.95))
    for (left, right), (name, model) in zip(axes.reshape(-1, 2), models.items(), strict=True):
        z, _ = model.posterior(pictures)
        points = left.scatter(*z.T.numpy(), c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=6)
        left.add_patch(Circle((0, 0), 2, fill=False, lw=2, color=PALETTE["ink"]))
        low, high = z.quantile(0.02, dim=0), z.quantile(0.98, dim=0)
        xs, ys = (torch.linspace(float(a), float(b), cells) for a, b in zip(low, high, strict=True))
        grid = torch.stack(torch.meshgrid(xs, ys.flip(0), indexing="xy"), dim=-1)  # rows go down
        made = model.decoder(grid.flatten(0, 1)).unflatten(0, (cells, cells))
        apart = torch.nn.functional.pad(made[:, :, 0], (1, 1, 1, 1), value=-1)  # a white frame for each
        tiled = apart.permute(0, 2, 1, 3).reshape(10 * cells, 10 * cells)
        edges = (*xs[[0, -1]].tolist(), *ys[[0, -1]].tolist())
        right.imshow(tiled, cmap="gray_r", vmin=-1, vmax=1, extent=edges, aspect="auto")
        left.set_title(f"{name}: the digits")
        right.set_title(f"{name}: decoded")
        for ax in (left, right):
            ax.set_xlabel("first number")
            ax.locator_params(nbins=5)
    axes[0].set_ylabel("second number")
    bar = fig.colorbar(points, ax=axes, ticks=range(10), pad=0.01, aspect=25)
    bar.ax.set_title("digit", fontsize=15)
    show(
        fig,
        alt=(
            "Two planes of latents. First, dots coloured by digit: those of the plain autoencoder spread over"
            " an uneven range with gaps between groups; those with KL fill a round cloud about zero. To the"
            " right of each, what a grid of places decodes to. A circle of radius 2 holds most of the second"
            " cloud, and few dots of the first."
        ),
    )


# --- curves ----------------------------------------------------------------------------------------------


def rate_against_reconstruction(kept: Mapping) -> None:
    """Bits of KL for a picture against the PSNR of its reconstruction; a dot for each run."""
    fig, ax = plt.subplots(figsize=(10.5, 3.9))
    places, spoken = [], []
    for beta in kept["betas"]:
        runs = kept["runs"][str(beta)]
        if not beta:
            continue
        bits = np.array([run["rate"] for run in runs]) / np.log(2)
        decibels = np.array([run["psnr"] for run in runs])
        ax.plot(bits, decibels, "o", color=PALETTE["blue"], alpha=0.6)
        places.append((bits.mean(), decibels.mean()))
        ax.annotate(f"β = {beta:g}", places[-1], xytext=(10, -20), textcoords="offset points")
        spoken.append(f"beta {beta:g}: {bits.mean():.0f} bits, {decibels.mean():.1f} dB")
    ax.plot(*zip(*places, strict=True), color=PALETTE["blue"], zorder=0)
    plain = np.mean([run["psnr"] for run in kept["runs"][str(0.0)]])
    ax.axhline(plain, ls="--", lw=1.5, color=PALETTE["grey"])
    ax.text(0, plain + 0.3, "plain autoencoder, no limit on the rate", color=PALETTE["ink"])
    ax.set(xlabel="KL (bits for each picture)", ylabel="reconstruction (dB)", xlim=(-30, None))
    ax.set_ylim(None, max(plain, places[0][1]) + 2)
    show(fig, alt=f"Rate against reconstruction. {'; '.join(spoken)}; plain autoencoder {plain:.1f} dB.")


def disturbed(kept: Mapping) -> None:
    """How reconstructions suffer when noise is added to the latents, for each beta."""
    fig, ax = plt.subplots(figsize=(10.5, 4.3))
    colours = ("vermilion", "orange", "green", "blue", "purple", "grey")
    spoken = []
    for beta, colour in zip(kept["betas"], colours, strict=True):
        runs = np.array([run["disturbed"] for run in kept["runs"][str(beta)]])
        name = "plain" if not beta else f"β = {beta:g}"
        ax.plot(kept["disturbances"], runs.mean(0), "o-", color=PALETTE[colour], label=name)
        ax.fill_between(
            kept["disturbances"], runs.min(0), runs.max(0), color=PALETTE[colour], alpha=0.2, lw=0
        )
        spoken.append(f"{name}: {', '.join(f'{value:.1f}' for value in runs.mean(0))}")
    ax.set(xlabel="noise on the latents (of their standard deviation)", ylabel="reconstruction (dB)")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    noise = ", ".join(f"{value:g}" for value in kept["disturbances"])
    show(fig, alt=f"PSNR in dB with noise of {noise} on the latents. {'; '.join(spoken)}.")


def learning_curve(kept: Mapping, mine: Sequence[tuple[int, float]]) -> None:
    """The learner's loss in front of the spread of the reference runs."""
    runs, (steps, losses) = np.array(kept["loss"]), zip(*mine, strict=True)
    fig, ax = plt.subplots(figsize=(10, 4.5))
    ax.fill_between(kept["steps"], runs.min(0), runs.max(0), color=PALETTE["grey"], alpha=0.4, lw=0)
    ax.plot(kept["steps"], runs.mean(0), "--", lw=1.5, color=PALETTE["grey"], label="reference")
    ax.plot(steps, losses, color=PALETTE["blue"], label="yours")
    ax.set(xlabel="training step", ylabel="loss", yscale="log")
    ax.legend()
    show(
        fig, alt=f"Loss in training, ending at {losses[-1]:.4f}; reference runs at {runs[:, -1].mean():.4f}."
    )


def quality_against_cost(kept: Mapping) -> None:
    """Distance from real pictures against multiply-adds of training, in each space; dots are single runs."""
    fig, ax = plt.subplots(figsize=(10.5, 5))
    spoken = []
    for name in LOOKS:
        lengths, space = kept["runs"][name], trainings.SPACES[name]
        costs = [trainings.training_macs(space, int(steps)) / 1e9 for steps in lengths]
        runs = np.array([[run["frechet"] for run in group] for group in lengths.values()])
        colour = PALETTE[LOOKS[name]]
        ax.plot(costs, runs, "o", color=colour, alpha=0.45)
        ax.plot(costs, runs.mean(1), color=colour, label=name)
        pairs = (f"{value:.0f} at {cost:.0f}" for cost, value in zip(costs, runs.mean(1), strict=True))
        spoken.append(f"{name}: {', '.join(pairs)}")
    for place, (name, value) in enumerate(kept["floors"].items()):
        ax.axhline(value, ls=(":", "--")[place], lw=1.5, color=PALETTE["grey"], label=name)
    ax.set(
        xscale="log", yscale="log", xlabel="training (billions of multiply-adds)", ylabel="Fréchet distance"
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show(fig, alt=f"Fréchet distance against billions of multiply-adds of training. {'; '.join(spoken)}.")


def promise() -> None:
    """The picture that the chapter ends with, from the reference runs."""
    quality_against_cost(reference()["diffusion"])


def scales(kept: Mapping) -> None:
    """Samples of denoisers whose latents were of the wrong size, or the right one; dots are single runs."""
    spaces = {name: space for name, space in trainings.SPACES.items() if space.latent}
    names = sorted(spaces, key=lambda name: spaces[name].scale)
    fig, axes = plt.subplots(1, 2, figsize=(13, 4), sharey=True)
    spoken = []
    for ax, what, unit in zip(axes, ("frechet", "read"), (1, 100), strict=True):
        for place, name in enumerate(names):
            group = list(kept["runs"][name].values())[-1]
            values = [unit * run[what] for run in group]
            colour = PALETTE["blue" if spaces[name].scale == 1 else "grey"]
            ax.plot(values, [place] * len(values), "o", color=colour, markersize=9, alpha=0.8)
            ax.plot(2 * [np.mean(values)], [place - 0.25, place + 0.25], color=colour)
            spoken.append(f"{name}, {what}: {np.mean(values):.0f}")
        ax.tick_params(labelsize=16)
    words = [name.removeprefix("latents, ") for name in names]
    axes[0].set_yticks(range(len(names)), ["right" if word == "latents" else word for word in words])
    axes[0].invert_yaxis()
    axes[0].set(xlabel="Fréchet distance", title="lower is better", xscale="log")
    axes[0].set_xticks([5, 10, 50, 100], ["5", "10", "50", "100"])
    axes[0].minorticks_off()
    axes[1].set(xlabel="read as asked (%)", title="higher is better", xlim=(0, 105))
    show(fig, alt=f"Samples from latents of several scales. {'; '.join(spoken)}.")
