"""The pictures of chapters 06 to 08: stills of the toy world, a reader that judges them, and their latents.

- `draw_pictures`: one object each, its colour and shape known, with a caption; `framed_pictures`: the same,
  large and in the middle;
- `read_pictures`: colour and shape from pixels alone, by a network that has seen real pictures only;
- `picture_autoencoder`: 3x32x32 pixels to 4x8x8 latents of unit scale, and back.

    python -m sora_edu.train.pictures       trains both again, into data/checkpoints/pictures/
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sora_edu.assets import data_path
from sora_edu.autoencoder import (
    Conv,
    ImageAutoencoder,
    ImageAutoencoderConfig,
    PositionNorm,
    ResidualBlock,
    autoencoder_loss,
)
from sora_edu.data.world import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    TEXTURED,
    Scene,
    caption,
    render,
    sample_scene,
    trajectories,
)
from sora_edu.measures import frechet
from sora_edu.train.denoising import fit
from sora_edu.weights import load_weights, save_weights

SIDE = 32
"""Height and width of a picture in pixels."""

LARGER = 48
"""Side of the picture that a framed one is cut out of."""

PLAIN = tuple(ground for ground in BACKGROUNDS if ground not in TEXTURED)
"""Backgrounds without a pattern."""

NAMED = frozenset({"size", "colour", "shape", "background"})
"""What captions name: all that can be seen in a still."""

TRAINING_SEED, TEST_SEED = 0, 1
"""Seeds of the pictures that networks learn from, and of those that they are tested on."""


@dataclass(frozen=True)
class Pictures:
    """Stills of the toy world and the truth about them."""

    images: Float[Tensor, "n 3 h w"]
    """Pixels in [-1, 1]."""
    colours: Int[Tensor, " n"]
    """Places in `world.COLOURS`."""
    shapes: Int[Tensor, " n"]
    """Places in `world.SHAPES`."""
    backgrounds: Int[Tensor, " n"]
    """Places in `world.BACKGROUNDS`."""
    captions: list[str]
    """Size, colour, shape and background in words."""

    def __add__(self, other: "Pictures") -> "Pictures":
        """These and others of the same size."""
        names = ("images", "colours", "shapes", "backgrounds")
        both = [torch.cat([getattr(self, name), getattr(other, name)]) for name in names]
        return Pictures(*both, self.captions + other.captions)


def names_of(colours: Int[Tensor, " n"], shapes: Int[Tensor, " n"]) -> list[str]:
    """Colours and shapes in words, such as "red star"."""
    pairs = zip(colours.tolist(), shapes.tolist(), strict=True)
    return [f"{tuple(COLOURS)[colour]} {SHAPES[shape]}" for colour, shape in pairs]


@lru_cache(maxsize=8)
def draw_pictures(n: int, seed: int, side: int = SIDE) -> Pictures:
    """Draws stills of one of the six shapes each, none of them a combination that is held out.

    The same arguments give the same pictures, which are rendered once.

    Args:
        n: how many, at least 1.
        seed: of the scenes and of the wording of their captions.
        side: height and width in pixels, at least 8.

    Raises:
        ValueError: no picture, or a smaller side.
    """
    scenes = _scenes(n, seed)
    return _pictures(scenes, [render(scene, 1, side, side)[:, 0] for scene in scenes])


@lru_cache(maxsize=8)
def framed_pictures(n: int, seed: int, backgrounds: tuple[str, ...] = PLAIN) -> Pictures:
    """Draws stills of 32x32 of one large thing each, in the middle to half a pixel, on plain ground.

    It is as if somebody had pointed a camera at the thing, as people do in photographs. A network of half a
    million weights learns their shapes in a minute; with things anywhere it needs far longer, since the same
    shape is other numbers at every place.

    Args:
        n, seed: as in `draw_pictures`.
        backgrounds: what to draw the ground from; some of `PLAIN`.

    Raises:
        ValueError: no picture, or a background that is not plain.
    """
    if not backgrounds or not set(backgrounds) <= set(PLAIN):
        raise ValueError(f"backgrounds={backgrounds}: use some of {PLAIN}; a pattern could be cut short")
    rng, scenes = np.random.default_rng([seed, 29]), []
    for scene in _scenes(n, seed):
        thing = replace(scene.things[0], size="large", motion="stands still")
        ground = backgrounds[rng.integers(len(backgrounds))]
        scenes.append(replace(scene, things=(thing,), background=ground))
    return _pictures(scenes, [_framed(scene) for scene in scenes])


def _framed(scene: Scene) -> Float[Tensor, "3 32 32"]:
    """The part of a larger picture with the thing in its middle."""
    path, whole = trajectories(scene, 1, LARGER, LARGER), render(scene, 1, LARGER, LARGER)[:, 0]
    top, left = (round(LARGER * float(place[0, 0])) for place in (path.y, path.x))
    ground = whole[:, :1, :1]
    around = F.pad(whole - ground, [SIDE // 2] * 4) + ground  # its middle may be near an edge
    return around[:, top : top + SIDE, left : left + SIDE]


def _scenes(n: int, seed: int) -> list[Scene]:
    if n < 1:
        raise ValueError(f"n={n}: at least one picture is needed")
    rng = np.random.default_rng([seed, 23])
    return [sample_scene(rng, "core") for _ in range(n)]


def _pictures(scenes: Sequence[Scene], images: Sequence[Float[Tensor, "3 h w"]]) -> Pictures:
    """Pictures, with what their scenes say of them."""
    things, colours = [scene.things[0] for scene in scenes], tuple(COLOURS)
    return Pictures(
        torch.stack(images),
        torch.tensor([colours.index(thing.colour) for thing in things]),
        torch.tensor([SHAPES.index(thing.shape) for thing in things]),
        torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes]),
        [caption(scene, scene.seed, NAMED) for scene in scenes],
    )


# --- the reader ------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Pixels to scores of the colours and of the shapes, through one vector of features."""

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 56)):
        super().__init__()
        whole, half, quarter = widths
        self.body = nn.Sequential(
            Conv(3, whole),
            nn.SiLU(),
            Conv(whole, half, kernel=2, stride=2),
            ResidualBlock(half),
            Conv(half, quarter, kernel=2, stride=2),
            ResidualBlock(quarter),
            ResidualBlock(quarter),
            PositionNorm(quarter),
            nn.SiLU(),
        )
        self.colour, self.shape = nn.Linear(2 * quarter, len(COLOURS)), nn.Linear(2 * quarter, len(SHAPES))

    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """What it sees in the picture as a whole: the mean and the maximum of each channel."""
        maps = self.body(images.contiguous(memory_format=torch.channels_last))
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)

    def forward(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b colours"], Float[Tensor, "b shapes"]]:
        """Scores (logits) of the colours and of the shapes."""
        features = self.features(images)
        return self.colour(features), self.shape(features)


def flipped(images: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Each picture as it is, mirrored, upside down or both: colours and shapes stay what they are."""
    sides, ends = torch.rand(2, len(images), 1, 1, 1, generator=generator) < 0.5
    images = torch.where(sides, images.flip(3), images)
    return torch.where(ends, images.flip(2), images)


def batch_of(images: Float[Tensor, "n c h w"], size: int, generator: torch.Generator) -> Tensor:
    """Pictures drawn with repetition, and flipped."""
    return flipped(images[torch.randint(len(images), (size,), generator=generator)], generator)


TRAINING_PICTURES, TEST_PICTURES = 8000, 1000
READER_RUN = {"steps": 900, "batch": 64, "lr": 3e-3, "muon_lr": 0.03}
AUTOENCODER_RUN = {"steps": 1500, "batch": 32, "lr": 3e-3, "muon_lr": 0.05, "beta": 0.003}
"""How the two shipped networks were trained."""


def training_pictures() -> Pictures:
    """What the reader and autoencoders learn from: stills of both kinds, as many of each."""
    half = TRAINING_PICTURES // 2
    return draw_pictures(half, TRAINING_SEED) + framed_pictures(half, TRAINING_SEED)


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A fresh network; the same seed gives the same weights, and the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def train_reader(run: dict, progress: str = "reader") -> Reader:
    """Trains the reader on real pictures, some with a little noise, never on any that a network has made."""
    known, reader = training_pictures(), seeded(Reader, 0)

    def loss_of(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(known.images), (run["batch"],), generator=generator)
        images = flipped(known.images[chosen], generator)
        strength = 0.1 * torch.rand(len(images), 1, 1, 1, generator=generator)
        colour, shape = reader(images + strength * torch.randn(images.shape, generator=generator))
        return F.cross_entropy(colour, known.colours[chosen]) + F.cross_entropy(shape, known.shapes[chosen])

    return fit(reader, loss_of, run["steps"], run["lr"], 0, progress, run["muon_lr"])[0].eval()


def train_autoencoder(
    beta: float,
    steps: int,
    batch: int = 32,
    *,
    lr: float = AUTOENCODER_RUN["lr"],
    muon_lr: float | None = AUTOENCODER_RUN["muon_lr"],
    config: ImageAutoencoderConfig | None = None,
    images: Float[Tensor, "n 3 h w"] | None = None,
    seed: int = 0,
    progress: str = "",
) -> tuple[ImageAutoencoder, list[tuple[int, float]]]:
    """Trains an image autoencoder on stills, and sets its scale factor.

    Args:
        beta: the price of a nat of KL; see `autoencoder_loss`. 0 trains a plain autoencoder, without noise.
        steps, batch: optimiser steps, and pictures for each.
        lr, muon_lr: the largest learning rates; see `fit`.
        config: sizes; by default those of the autoencoder that ships.
        images: what to learn from; by default the stills that all of these networks learn from.
        seed: of the first weights, the batches and the noise.
        progress: a name for the progress bar; "" draws none.

    Returns:
        The model, and (step, mean loss since the entry before); see `fit`.
    """
    images = training_pictures().images if images is None else images
    model = seeded(lambda: ImageAutoencoder(config or ImageAutoencoderConfig()), seed)

    def loss_of(generator: torch.Generator) -> Tensor:
        x = batch_of(images, batch, generator)
        posterior = model.posterior(x)
        z = posterior.sample(generator) if beta else posterior.mean
        return autoencoder_loss(model.decoder(z), x, posterior, beta)

    model, curve = fit(model, loss_of, steps, lr, seed, progress, muon_lr)
    model.set_scale(model.encode(images[:: max(1, len(images) // 1000)]))
    return model.eval(), curve


# --- what ships ------------------------------------------------------------------------------------------


def _shipped(model: nn.Module, name: str) -> nn.Module:
    load_weights(model, data_path("checkpoints", "pictures", f"{name}.safetensors"))
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def picture_reader() -> Reader:
    """The reader that ships, for evaluation."""
    return _shipped(Reader(), "reader")


@lru_cache(maxsize=1)
def picture_autoencoder() -> ImageAutoencoder:
    """The autoencoder that ships, for evaluation: 3x32x32 to 4x8x8, latents of unit scale."""
    return _shipped(ImageAutoencoder(), "autoencoder")


@torch.no_grad()
def read_pictures(images: Float[Tensor, "b 3 h w"]) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
    """The colour and the shape that the shipped reader sees in each picture, as places in their lists."""
    colour, shape = picture_reader()(images.clamp(-1, 1))
    return colour.argmax(1), shape.argmax(1)


def share_read(
    images: Float[Tensor, "b 3 h w"], colours: Int[Tensor, " b"], shapes: Int[Tensor, " b"]
) -> float:
    """The share of pictures in which both colour and shape are read as given."""
    colour, shape = read_pictures(images)
    return ((colour == colours) & (shape == shapes)).float().mean().item()


@torch.no_grad()
def frechet_distance(images: Float[Tensor, "n 3 h w"], others: Float[Tensor, "m 3 h w"]) -> float:
    """How differently two sets of pictures look to the reader, by its features; see `measures.frechet`."""
    return frechet(*(picture_reader().features(x.clamp(-1, 1)) for x in (images, others)))


@lru_cache(maxsize=1)
def reader_accuracy(n: int = TEST_PICTURES) -> dict[str, float]:
    """The share of fresh real pictures read right in colour and shape, "raw" and through the "autoencoder".

    No generator can be seen to do better than that.
    """
    fresh, autoencoder = draw_pictures(n, TEST_SEED), picture_autoencoder()
    with torch.no_grad():
        again = autoencoder.decode(autoencoder.encode(fresh.images))
    truth = fresh.colours, fresh.shapes
    return {"raw": share_read(fresh.images, *truth), "autoencoder": share_read(again, *truth)}


PARTS = ("reader", "autoencoder")
"""The networks that ship."""


def train_shipped(folder: Path, parts: Sequence[str] = PARTS) -> None:
    """Trains what ships and writes it, in half precision, which is enough to compute with in single."""
    folder.mkdir(parents=True, exist_ok=True)
    if "reader" in parts:
        save_weights(train_reader(READER_RUN), folder / "reader.safetensors", torch.float16)
    if "autoencoder" in parts:
        model, _ = train_autoencoder(**AUTOENCODER_RUN, progress="autoencoder")
        save_weights(model, folder / "autoencoder.safetensors", torch.float16)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the reader and the autoencoder of chapters 06 to 08.")
    parser.add_argument("--out", type=Path, default=Path("data/checkpoints/pictures"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    train_shipped(options.out, options.parts)
