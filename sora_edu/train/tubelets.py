"""The trainings of chapter 09: what a transformer learns about motion from frames and from tubelets.

Short clips of the toy world; the motion is to be named. The motions come in pairs. Left and right, up and
down are each other played backwards, so whatever ignores the order of time is right on half of them, and no
more. (Growing and shrinking begin at the same sizes, so that size alone tells something.) Every model starts
from the same *image* model, which has learned to name shapes in single frames, as ViViT starts from a ViT.

- `MotionReader`: a transformer on spacetime patches, of clips of one size or of packed clips of many;
- `pretrain`, `start_from`, `train_reader`: shapes in stills first, then motions in clips.

    python -m sora_edu.train.tubelets      writes data/curves/09_tubelets.json, the reference runs
"""

import argparse
import copy
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sora_edu.autoencoder import FRAMES_PER_LATENT, PIXELS_PER_LATENT
from sora_edu.data.scene import SHAPES
from sora_edu.data.world import render, sample_scene
from sora_edu.files import write_whole
from sora_edu.patches import Packed, check_divides, patchify_video, sample_frames, tubelet_weight
from sora_edu.positions import grid, sinusoidal_at
from sora_edu.train.recognising import Labelled, train_classifier
from sora_edu.transformer import Block

MOTIONS = ("moves left", "moves right", "moves up", "moves down", "grows", "shrinks")
"""What is to be named, in pairs of opposites."""

FRAMES, PACE, SIDE, TUBELET, PATCH = 9, 2, 16, 3, 4
"""Clips of 9 frames of 16 by 16 pixels, every second of the world's; tubelets of 3 frames of 4 by 4."""

TRAINING_CLIPS, TEST_CLIPS, TEST_SEED = 2400, 300, 1000
PRETRAINING_STEPS, STEPS, RATE = 120, 144, 3e-3


# --- clips -----------------------------------------------------------------------------------------------

Clips = tuple[Tensor, Tensor, Tensor]
"""Clips "b 1 t h w" in [-1, 1], the numbers of their motions " b", and those of their shapes " b"."""


def draw_clips(count: int, seed: int) -> Clips:
    """Clips of one bright thing that moves on a dark ground. Colours are left out: motion is the matter."""
    rng = np.random.default_rng([seed, 23])
    clips, motions, shapes = [], [], []
    while len(clips) < count:
        scene = sample_scene(rng)
        (thing,) = scene.things
        if thing.motion not in MOTIONS or scene.background != "dark":
            continue
        clip = render(scene, 1 + PACE * (FRAMES - 1), SIDE, SIDE)[:, ::PACE]
        clips.append(clip.amax(0, keepdim=True))
        motions.append(MOTIONS.index(thing.motion))
        shapes.append(SHAPES.index(thing.shape))
    return torch.stack(clips), torch.tensor(motions), torch.tensor(shapes)


@lru_cache(maxsize=1)
def known_clips() -> Clips:
    """The clips to learn from: drawn once, the same for every run."""
    return draw_clips(TRAINING_CLIPS, seed=0)


@lru_cache(maxsize=1)
def test_clips() -> Clips:
    """Other clips, to test on."""
    return draw_clips(TEST_CLIPS, TEST_SEED)


# --- a batch of many sizes -------------------------------------------------------------------------------

LENGTHS, SIDES = (1, 9, 17, 25), ((64, 64), (48, 80), (80, 48))
"""Frames, and heights and widths in pixels, of a mixed batch: pictures and films; square, wide and tall."""


def mixed_sizes(count: int, seed: int) -> list[tuple[int, int, int]]:
    """(frames, height, width) of clips and pictures, every length and shape as likely as the others."""
    rng = random.Random(seed)
    return [(rng.choice(LENGTHS), *rng.choice(SIDES)) for _ in range(count)]


def latent_tokens(size: tuple[int, int, int]) -> int:
    """Tokens of a clip that passes the shipped autoencoder and is cut into patches of 2 by 2 latents."""
    frames, height, width = size
    times = 1 + (frames - 1) // FRAMES_PER_LATENT
    return times * (height // (2 * PIXELS_PER_LATENT)) * (width // (2 * PIXELS_PER_LATENT))


# --- the model -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """How a reader of motions looks at a clip."""

    frames: int = TUBELET
    """Frames of a spacetime patch; 1 for square patches of single frames."""
    sample: int = 1
    """Of how many frames one is taken before the clip is cut; 1 takes all."""
    timed: bool = True
    """Whether a token knows which time slot it is of. Rows and columns are always known."""
    width: int = 64
    """Channels of a token."""
    depth: int = 2
    """Blocks."""
    heads: int = 4
    """Attention heads in each block."""
    classes: int = len(MOTIONS)
    """How many answers there are."""

    @property
    def patch(self) -> tuple[int, int, int]:
        """Frames, rows and columns of a spacetime patch."""
        return (self.frames, PATCH, PATCH)


class MotionReader(nn.Module):
    """A clip in, a score for each answer out: spacetime patches, encoder blocks, the mean of all tokens."""

    def __init__(self, config: ReaderConfig = ReaderConfig()):
        super().__init__()
        self.config = c = config
        self.embed = nn.Linear(c.frames * PATCH**2, c.width)
        self.blocks = nn.ModuleList(Block(c.width, c.heads, 2 * c.width) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.classes)

    def _codes(self, coordinates: Int[Tensor, "*n axes"]) -> Float[Tensor, "*n d"]:
        """Sinusoids of frame, row and column; without time, all tokens seem to be of the first slot."""
        known = coordinates * torch.tensor([self.config.timed, 1, 1])
        codes = sinusoidal_at(known.flatten(0, -2), self.config.width)
        return codes.view(*coordinates.shape[:-1], -1).to(self.embed.weight)

    def forward(self, x: Float[Tensor, "b 1 t h w"]) -> Float[Tensor, "b classes"]:
        """Scores. Raises ValueError where sampling and patches do not divide the clip."""
        x = sample_frames(x, self.config.sample)
        cells = check_divides(tuple(x.shape[2:]), self.config.patch)
        tokens = self.embed(patchify_video(x, self.config.patch)) + self._codes(grid(*cells))
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(1))

    def read_packed(self, packed: Packed, mask: Tensor | None = None) -> Float[Tensor, "count classes"]:
        """Scores of every clip in packed rows; the packed tokens are cut with `config.patch`.

        `mask` is who may look at whom, `packed.mask` if it is left out.
        """
        tokens = self.embed(packed.tokens) + self._codes(packed.coordinates)
        for block in self.blocks:
            tokens = block(tokens, packed.mask if mask is None else mask)
        return self.head(packed.means(self.norm(tokens)))


def make_reader(config: ReaderConfig, seed: int) -> MotionReader:
    """A fresh model; the same seed gives the same weights, and the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MotionReader(config)


# --- trainings -------------------------------------------------------------------------------------------

STILLS = ReaderConfig(frames=1, classes=len(SHAPES))
"""The image model: it names the shape in a clip of one frame."""


def pretrain(seed: int, steps: int = PRETRAINING_STEPS, progress: str = "") -> MotionReader:
    """An image model that has learned to name shapes in the middle frames of the training clips."""
    clips, _, shapes = known_clips()
    test, _, test_shapes = test_clips()
    middle = slice(FRAMES // 2, FRAMES // 2 + 1)
    model = make_reader(STILLS, seed)
    train_classifier(
        model, (clips[:, :, middle], shapes), (test[:, :, middle], test_shapes),
        steps=steps, seed=seed, rate=RATE, augment=lambda clips, _: clips, progress=progress,
    )  # fmt: skip
    return model


def start_from(image_model: MotionReader, config: ReaderConfig, start: str, seed: int) -> MotionReader:
    """A reader of clips with the image model's blocks, a head of zeros, and its projection as `start` says.

    "central" and "inflated" are those of `sora_edu.patches.tubelet_weight`; "random" keeps a fresh one.
    """
    model = make_reader(config, seed)
    model.blocks, model.norm = copy.deepcopy((image_model.blocks, image_model.norm))
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    if start != "random":
        with torch.no_grad():
            model.embed.weight.copy_(tubelet_weight(image_model.embed.weight, config.frames, start))
            model.embed.bias.copy_(image_model.embed.bias)
    return model.train()


READERS: dict[str, tuple[ReaderConfig, str]] = {
    "one frame": (ReaderConfig(frames=1, sample=FRAMES), "central"),
    "frames, order unknown": (ReaderConfig(frames=1, sample=TUBELET, timed=False), "central"),
    "tubelets, order unknown": (ReaderConfig(timed=False), "central"),
    "frames": (ReaderConfig(frames=1, sample=TUBELET), "central"),
    "tubelets, central start": (ReaderConfig(), "central"),
    "tubelets, inflated start": (ReaderConfig(), "inflated"),
    "tubelets, random start": (ReaderConfig(), "random"),
}
"""What is compared: how a clip is cut, whether tokens know their time, and how the projection starts."""


def make_named(name: str, image_model: MotionReader, seed: int) -> MotionReader:
    """One of `READERS`, untrained but for what it has of the image model."""
    config, start = READERS[name]
    return start_from(image_model, config, start, seed)


def motions(clips_motions_shapes: tuple[Tensor, Tensor, Tensor]) -> Labelled:
    """Clips with their motions."""
    return clips_motions_shapes[:2]


def train_reader(
    model: MotionReader, seed: int = 0, steps: int = STEPS, progress: str = ""
) -> list[tuple[int, float]]:
    """Trains in place to name motions; (step, share right on the test clips) at ten points."""
    return train_classifier(
        model, motions(known_clips()), motions(test_clips()),
        steps=steps, seed=seed, rate=RATE, augment=lambda clips, _: clips, progress=progress,
    )  # fmt: skip


def confusion(model: nn.Module) -> Int[Tensor, "true said"]:
    """How often each motion of the test clips was taken for each."""
    clips, truth = motions(test_clips())
    with torch.no_grad():
        said = model(clips).argmax(1)
    count = len(MOTIONS)
    return (count * truth + said).bincount(minlength=count**2).view(count, count)


# --- the reference runs ----------------------------------------------------------------------------------


def record(
    path: Path, names: Sequence[str] = tuple(READERS), seeds: int = 3, steps: int = STEPS,
    pretraining_steps: int = PRETRAINING_STEPS,
) -> None:  # fmt: skip
    """Trains every reader with every seed, and writes the file anew after each seed."""
    found: dict[str, dict] = {name: {"share_right": [], "confusion": []} for name in names}
    for seed in range(seeds):
        image_model = pretrain(seed, pretraining_steps, progress="shapes in stills")
        for name in names:
            model = make_named(name, image_model, seed)
            curve = train_reader(model, seed, steps, progress=name)
            found[name]["steps"] = [step for step, _ in curve]
            found[name]["share_right"].append([round(share, 4) for _, share in curve])
            found[name]["confusion"].append(confusion(model).tolist())
        write_whole(path, (json.dumps({"motions": MOTIONS, "readers": found}, indent=1) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference runs of chapter 09.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/09_tubelets.json"))
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    options = parser.parse_args()
    record(options.out, options.readers)
