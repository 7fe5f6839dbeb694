"""The trainings of chapter 06: autoencoders at several prices, and diffusion in pixels and in latents.

- `train_autoencoder` (in `pictures`) at a price beta of information, and `describe`: rate and reconstruction;
- `PatchDenoiser`, `train_denoiser`: one small transformer for pixels and for latents alike;
- `quality`: are its samples read as what was asked, and how far are they from real pictures?

    python -m sora_edu.train.latents       writes data/curves/06_latents.json, the reference runs
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sora_edu.attention import attention_macs
from sora_edu.autoencoder import (
    ImageAutoencoder,
    ImageAutoencoderConfig,
    image_autoencoder_macs,
    kl_to_standard_normal,
    psnr,
    reparameterise,
)
from sora_edu.data.digits import digits
from sora_edu.data.world import COLOURS, SHAPES
from sora_edu.diffusion import add_noise, logit_normal_times
from sora_edu.files import write_whole
from sora_edu.patches import patchify, unpatchify
from sora_edu.positions import LearnedPositions
from sora_edu.samplers import ddim, make_grid
from sora_edu.train.denoising import fit, read_digits
from sora_edu.train.pictures import (
    SIDE,
    TEST_PICTURES,
    TEST_SEED,
    TRAINING_SEED,
    Pictures,
    draw_pictures,
    framed_pictures,
    frechet_distance,
    picture_autoencoder,
    seeded,
    share_read,
    train_autoencoder,
)
from sora_edu.transformer import Block

CHAPTER_AUTOENCODER = ImageAutoencoderConfig(widths=(24, 48))
"""The autoencoder that the chapter trains: smaller than the one that ships."""

CHAPTER_BETA = 0.01
"""The price that the chapter itself trains with."""

AUTOENCODER_RUN = {"steps": 240, "batch": 16, "config": CHAPTER_AUTOENCODER}
BETAS = (0.0, 0.001, 0.01, 0.1, 1.0, 10.0)
"""Prices of a nat; 0 is a plain autoencoder, whose latents cost nothing and carry no noise."""

DISTURBANCES = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Noise on the latents, in standard deviations of all latents of the model."""


# --- autoencoders ----------------------------------------------------------------------------------------


@torch.no_grad()
def describe(model: ImageAutoencoder, images: Float[Tensor, "n 3 h w"]) -> dict:
    """What a model's latents cost, and what they are worth.

    Returns:
        rate: KL divergence in nats for a picture, as a mean; active: the share of the numbers of a latent
        whose own KL is above 0.05 nats; psnr: of pictures decoded from the mean, in dB; disturbed: the same
        with noise of each of `DISTURBANCES` on the latents; std: of the unscaled latents.
    """
    posterior = model.posterior(images)
    each = 0.5 * (posterior.mean.square() + posterior.log_variance.exp() - posterior.log_variance - 1).mean(0)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0))
    std = posterior.mean.std()
    disturbed = [psnr(model.decoder(posterior.mean + d * std * noise), images).item() for d in DISTURBANCES]
    return {
        "rate": posterior.kl().mean().item(),
        "active": (each > 0.05).float().mean().item(),
        "psnr": disturbed[0],
        "disturbed": disturbed,
        "std": std.item(),
    }


class PlaneAutoencoder(nn.Module):
    """Handwritten digits to two numbers and back, so that all latents can be drawn on a page."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 4),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 64),
            nn.Unflatten(1, (1, 8, 8)),
        )  # fmt: skip

    def posterior(self, x: Float[Tensor, "b 1 8 8"]) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 2"]]:
        """Mean and log variance of the two numbers."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance - 3


PLANE_RUN = {"steps": 1500, "lr": 3e-3}
PLANE_BETA = 0.1


def train_plane(beta: float, seed: int = 0, progress: str = "") -> PlaneAutoencoder:
    """Trains an autoencoder of two numbers on handwritten digits; beta = 0 makes a plain, noiseless one."""
    pictures, model = digits("train")[0], seeded(PlaneAutoencoder, seed)

    def loss_of(generator: torch.Generator) -> Tensor:
        x = pictures[torch.randint(len(pictures), (128,), generator=generator)]
        mean, log_variance = model.posterior(x)
        noise = torch.randn(mean.shape, generator=generator)
        z = reparameterise(mean, log_variance, noise) if beta else mean
        kl = kl_to_standard_normal(mean, log_variance) if beta else 0.0
        return (0.5 * (model.decoder(z) - x).square().flatten(1).sum(1) + beta * kl).mean() / 64

    return fit(model, loss_of, PLANE_RUN["steps"], PLANE_RUN["lr"], seed, progress)[0]


@torch.no_grad()
def digits_from_noise(model: PlaneAutoencoder, n: int = 1000) -> float:
    """How many kinds of digits standard normal noise decodes to: 10, if all come equally often.

    The exponential of the entropy of what a classifier reads (`denoising.read_digits`).
    """
    made = model.decoder(torch.randn(n, 2, generator=torch.Generator().manual_seed(0)))
    shares = read_digits(made).bincount(minlength=10) / n
    return torch.special.entr(shares).sum().exp().item()


# --- diffusion -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Space:
    """Where diffusion happens: what a picture is there, and how it is cut into tokens."""

    size: tuple[int, int, int]
    """Channels, height and width."""
    patch: int
    """Side of a patch."""
    scale: float = 1.0
    """What latents of unit scale are multiplied by: 1 is right."""
    latent: bool = True
    """False: pixels."""

    @property
    def tokens(self) -> int:
        """Tokens of one picture."""
        return self.size[1] * self.size[2] // self.patch**2

    @property
    def numbers(self) -> int:
        """Numbers in a token."""
        return self.size[0] * self.patch**2


SPACES = {
    "latents": Space(size=(4, 8, 8), patch=2),
    "pixels, patches of 8": Space(size=(3, 32, 32), patch=8, latent=False),
    "pixels, patches of 4": Space(size=(3, 32, 32), patch=4, latent=False),
} | {
    f"latents, {name}": Space(size=(4, 8, 8), patch=2, scale=scale)
    for name, scale in (
        ("64 times too small", 1 / 64),
        ("8 times too small", 1 / 8),
        ("8 times too large", 8.0),
        ("64 times too large", 64.0),
    )
}
"""What is compared. Patches of 8 pixels make as many tokens as the latents, patches of 4 four times more."""

WIDTH, DEPTH, HEADS = 64, 3, 4
BATCH, RATE = 32, 3e-3
GROUND = ("dark",)
"""Of the framed stills that the denoisers learn: so small a network is asked for colour and shape alone."""

TIME_MEAN = 0.8  # what a picture shows is settled while it is nearly noise
SAMPLING_STEPS, SHIFT = 20, 2.0
KNOWN, SAMPLES = 3000, 256
"""How many pictures a denoiser learns from, and how many of its own it is judged by."""

LENGTHS = {
    "latents": (300, 1200),
    "pixels, patches of 8": (300, 1200, 3600),
    "pixels, patches of 4": (400, 1600),
} | {name: (1200,) for name, space in SPACES.items() if space.scale != 1}
"""Steps of the runs in each space; each length is a run of its own, with its own falling learning rate."""


class PatchDenoiser(nn.Module):
    """Noisy pictures or latents, times, colours and shapes in; a guess of the clean ones out.

    Patches become tokens (chapter 05); every block is told the time and what is asked for, as in chapter 01.
    How a diffusion transformer is told better is chapter 07.
    """

    def __init__(self, space: Space, width: int = WIDTH, depth: int = DEPTH, heads: int = HEADS):
        super().__init__()
        self.space = space
        self.frequencies = nn.Buffer(math.pi * 2.0 ** torch.arange(-1, 3))
        self.embed, self.time = nn.Linear(space.numbers, width), nn.Linear(8, width)
        self.colour_embed, self.shape_embed = (
            nn.Embedding(len(COLOURS), width),
            nn.Embedding(len(SHAPES), width),
        )
        self.positions = LearnedPositions((space.tokens,), width, 0.3)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, space.numbers))
        nn.init.zeros_(self.head[1].weight)

    def forward(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], colours: Int[Tensor, " b"],
        shapes: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:  # fmt: skip
        angles = t[:, None] * self.frequencies
        told = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        told = (told + self.colour_embed(colours) + self.shape_embed(shapes))[:, None]
        tokens = self.embed(patchify(x, self.space.patch)) + self.positions(self.space.tokens)
        for block in self.blocks:
            tokens = block(tokens + told)
        grid = (x.shape[2] // self.space.patch, x.shape[3] // self.space.patch)
        return unpatchify(self.head(tokens), self.space.patch, grid)


def denoiser_macs(tokens: int, numbers: int, width: int = WIDTH, depth: int = DEPTH) -> int:
    """Multiply-adds of one evaluation of a patch transformer for one picture, in closed form.

    In and out: tokens x numbers x width each; a block: its attention, and two layers of width x 4 width for
    each token. What depends on time and condition alone is left out: it is the same for all.
    """
    ends = 2 * tokens * numbers * width
    return ends + depth * (attention_macs(tokens, width) + 8 * tokens * width**2)


@torch.no_grad()
def into(space: Space, images: Float[Tensor, "n 3 h w"]) -> Tensor:
    """Pictures as they are in a space, a thousand at a time."""
    if not space.latent:
        return images
    return space.scale * torch.cat([picture_autoencoder().encode(part) for part in images.split(1000)])


@torch.no_grad()
def out_of(space: Space, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h2 w2"]:
    """Back to pixels."""
    return picture_autoencoder().decode(x / space.scale) if space.latent else x


@torch.no_grad()
def generate(
    model: PatchDenoiser, colours: Int[Tensor, " n"], shapes: Int[Tensor, " n"], seed: int = 0
) -> Float[Tensor, "n 3 h w"]:
    """Pictures of what is asked for, in `SAMPLING_STEPS` steps of DDIM."""
    noise = torch.randn(len(colours), *model.space.size, generator=torch.Generator().manual_seed(seed))
    grid = make_grid(SAMPLING_STEPS, shift=SHIFT)
    return out_of(model.space, ddim(lambda x, t: model(x, t, colours, shapes), noise, grid, "x0"))


def known_stills() -> Pictures:
    """What every denoiser learns from."""
    return framed_pictures(KNOWN, TRAINING_SEED, GROUND)


def fresh_stills() -> Pictures:
    """Twice `SAMPLES` others: half of them to ask for, half of them to hold samples against."""
    return framed_pictures(2 * SAMPLES, TEST_SEED, GROUND)


def quality(model: PatchDenoiser) -> dict[str, float]:
    """Samples against fresh real pictures: `read`, the share read as asked, and `frechet`, a distance."""
    fresh = fresh_stills()
    truth = fresh.colours[:SAMPLES], fresh.shapes[:SAMPLES]
    made = generate(model, *truth)
    return {
        "read": share_read(made, *truth),
        "frechet": frechet_distance(made, fresh.images[SAMPLES:]),
    }


def train_denoiser(
    space: Space, known: Pictures, steps: int, *, seed: int = 0, progress: str = ""
) -> tuple[PatchDenoiser, list[tuple[int, float]]]:
    """Trains a denoiser on pictures in a space.

    Args:
        space: one of `SPACES`.
        known: what to learn from.
        steps: optimiser steps of `BATCH` pictures.
        seed: of the first weights, the batches and the noise.
        progress: a name for the progress bar; "" draws none.

    Returns:
        The model, and (step, mean loss since the entry before); see `fit`.
    """
    x0, model = into(space, known.images), seeded(lambda: PatchDenoiser(space), seed)

    def loss_of(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(x0), (BATCH,), generator=generator)
        x, noise = x0[chosen], torch.randn(BATCH, *space.size, generator=generator)
        t = logit_normal_times(BATCH, TIME_MEAN, generator=generator)
        guess = model(add_noise(x, noise, t), t, known.colours[chosen], known.shapes[chosen])
        return (guess - x).square().mean()

    return fit(model, loss_of, steps, RATE, seed, progress)


def training_macs(space: Space, steps: int) -> int:
    """Multiply-adds of a training: a backward pass takes about two forward passes' worth.

    For latents, encoding each training picture once is part of it; training the autoencoder is not.
    """
    encode, _ = image_autoencoder_macs(picture_autoencoder().config, SIDE, SIDE)
    once = KNOWN * encode if space.latent else 0
    return 3 * steps * BATCH * denoiser_macs(space.tokens, space.numbers) + once


def sampling_macs(space: Space, steps: int = SAMPLING_STEPS) -> int:
    """Multiply-adds of one generated picture, decoding included."""
    _, decode = image_autoencoder_macs(picture_autoencoder().config, SIDE, SIDE)
    return steps * denoiser_macs(space.tokens, space.numbers) + (decode if space.latent else 0)


# --- the reference runs ----------------------------------------------------------------------------------


def _rounded(value, digits: int = 4):
    """Numbers to so many significant digits, inside lists and dictionaries too."""
    if isinstance(value, dict):
        return {name: _rounded(one, digits) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one, digits) for one in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def record_plane(seeds: int) -> Iterator[dict]:
    """What noise decodes to, for a plain autoencoder and one with KL."""
    kinds = {"plain": 0.0, "with KL": PLANE_BETA}
    yield {
        name: [digits_from_noise(train_plane(beta, seed)) for seed in range(seeds)]
        for name, beta in kinds.items()
    }


def record_rate(seeds: int) -> Iterator[dict]:
    """Every beta with every seed: what `describe` finds on test pictures; and the losses of the chapter's."""
    test, runs, curves = draw_pictures(TEST_PICTURES, TEST_SEED).images, {}, []
    for beta in BETAS:
        runs[str(beta)] = []
        for seed in range(seeds):
            model, curve = train_autoencoder(beta, **AUTOENCODER_RUN, seed=seed, progress=f"beta {beta}")
            runs[str(beta)].append(describe(model, test))
            if not beta:
                del runs[str(beta)][-1]["rate"], runs[str(beta)][-1]["active"]  # nobody trained its variance
            if beta == CHAPTER_BETA:
                curves.append(curve)
        yield {
            "betas": [beta for beta in BETAS if str(beta) in runs],
            "disturbances": list(DISTURBANCES),
            "runs": runs,
            "steps": [step for step, _ in curves[0]] if curves else [],
            "loss": [[loss for _, loss in curve] for curve in curves],
        }


def record_diffusion(seeds: int) -> Iterator[dict]:
    """Every space, length and seed: seconds of one core for the training, and the quality of samples."""
    known, fresh, autoencoder = known_stills(), fresh_stills(), picture_autoencoder()
    asked, others = fresh.images[:SAMPLES], fresh.images[SAMPLES:]
    with torch.no_grad():
        again = autoencoder.decode(autoencoder.encode(asked))
    sets = {"real pictures": asked, "through the autoencoder": again}
    truth = fresh.colours[:SAMPLES], fresh.shapes[:SAMPLES]
    found = {
        "floors": {name: frechet_distance(images, others) for name, images in sets.items()},
        "read": {name: share_read(images, *truth) for name, images in sets.items()},
        "runs": {name: {str(steps): [] for steps in lengths} for name, lengths in LENGTHS.items()},
    }
    for name, lengths in LENGTHS.items():
        for steps in lengths:
            for seed in range(seeds):
                start = time.process_time()
                model, _ = train_denoiser(SPACES[name], known, steps, seed=seed, progress=f"{name}, {steps}")
                seconds = time.process_time() - start
                found["runs"][name][str(steps)].append({"seconds": seconds} | quality(model))
                yield found


PARTS: dict[str, Callable[[int], Iterator[dict]]] = {
    "plane": record_plane,
    "rate": record_rate,
    "diffusion": record_diffusion,
}
"""The trainings of the chapter by the name of their results; each gives what it has found so far."""


def record(path: Path, parts: Sequence[str] = tuple(PARTS), seeds: int = 3) -> None:
    """Runs trainings with several seeds and writes what comes out, as it comes; other parts stay."""
    for part in parts:
        for found in PARTS[part](seeds):
            known = json.loads(path.read_text()) if path.exists() else {}
            write_whole(path, (json.dumps(known | {part: _rounded(found)}, indent=1) + "\n").encode())


if __name__ == "__main__":
    torch.set_num_threads(1)  # so that seconds are those of one core, and the same sums come out everywhere
    parser = argparse.ArgumentParser(description="Write the reference runs of chapter 06.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/06_latents.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    record(options.out, options.parts)
