"""The trainings of chapter 10: small video diffusion transformers that make one thing move for a second.

Clips of 9 frames of 32x32 pixels, as latents of the shipped autoencoder (3x4x4 cells). One large thing on
dark ground moves left or right, falls or bounces; the network is told colour, shape and motion. Falls and
bounces keep the world's floor, all else is centred, as if a camera had been pointed at it: with things
anywhere the same training would not get as far (chapter 07 found the same for stills).

- `draw_clips`, `known_clips`, `fresh_clips`: what is learned from, and other clips to compare with;
- `train`, `draw`, `read`: one training, clips from noise, and what the judge reads in them;
- `seconds_per_evaluation`: what joint and factorised attention cost on larger grids.

    python -m sora_edu.train.motions      writes data/curves/10_motions.json, run after run
"""

import argparse
import base64
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from sora_edu.data.judge import Reading, judge
from sora_edu.data.render import FPS
from sora_edu.data.world import Scene, Thing, render, trajectories
from sora_edu.diffusion import add_noise, guided, velocity
from sora_edu.files import write_whole
from sora_edu.patches import check_divides
from sora_edu.samplers import euler, time_grid
from sora_edu.sora import Sora, to_float, to_uint8
from sora_edu.train.denoising import DROPPED, fit, middle_times
from sora_edu.train.pictures import TEST_SEED, TRAINING_SEED, seeded
from sora_edu.video_dit import VideoDiT, VideoDiTConfig, video_dit_macs, video_dit_parameters

FRAMES, SIDE = 9, 32
"""Of a clip: a second and a little, and its height and width in pixels."""

LATENT = (16, 3, 4, 4)
"""Channels, frames, rows and columns of a clip's latents."""

PATCH = (1, 2, 2)
"""Latent cells of a token along time, height and width, as in tiny Sora."""

SHAPES = ("circle", "square", "triangle")
SHOWN_COLOURS = ("red", "yellow", "green", "blue")
MOTIONS = ("moves left", "moves right", "falls", "bounces")
WORDS = SHOWN_COLOURS + SHAPES + MOTIONS
"""All that a network of this chapter can be told."""

CLIPS, TEST_CLIPS = 1200, 96
"""Clips to learn from, and clips to compare with; as many are asked for of each network."""

BATCH, STEPS, RATE, MUON_RATE = 32, 500, 2e-3, 0.03
"""Clips of a step, steps, and the largest learning rates of Adam and of Muon, which has the matrices."""

GUIDANCE, SAMPLER_STEPS = 2.0, 20
"""How clips are drawn: Euler steps with guidance."""

ATTENTIONS = ("joint", "factorised")
"""What is compared."""

SAMPLES = (8, 21, 38, 7)
"""Numbers of the clips that are kept of the first run of each: every motion once."""


def make_config(attention: str = "joint", positions: str = "sinusoidal") -> VideoDiTConfig:
    """The network of this chapter: 12 tokens a clip, 4 in each of 3 latent frames."""
    return VideoDiTConfig(
        channels=LATENT[0], patch=PATCH, width=128, depth=6, heads=4, text_width=len(WORDS),
        condition_width=128, attention=attention, positions=positions,
    )  # fmt: skip


# --- clips -----------------------------------------------------------------------------------------------


def told(things: Sequence[Thing]) -> Float[Tensor, "b 1 words"]:
    """What a network is told: one token for each thing, with a 1 for each of its words.

    Raises ValueError for a colour, shape or motion that is not among `WORDS`.
    """
    y = torch.zeros(len(things), 1, len(WORDS))
    for row, thing in zip(y[:, 0], things, strict=True):
        for word in (thing.colour, thing.shape, thing.motion):
            if word not in WORDS:
                raise ValueError(f"{word!r} is none of the words of this chapter: {', '.join(WORDS)}")
            row[WORDS.index(word)] = 1
    return y


def things() -> list[Thing]:
    """Everything that can be asked for: each colour, shape and motion that the world does not hold out."""
    every = (Thing(s, c, "large", m) for c, s, m in product(SHOWN_COLOURS, SHAPES, MOTIONS))
    return [thing for thing in every if not thing.held_out]


def centred_clip(scene: Scene) -> Float[Tensor, "3 f h w"]:
    """A rendered clip, shifted by whole pixels so that the middle of its path is that of the picture.

    What falls or bounces is shifted sideways alone: its floor stays where it is.
    """
    clip, path = render(scene, FRAMES, SIDE, SIDE), trajectories(scene, FRAMES, SIDE, SIDE)
    along_y = scene.things[0].motion not in ("falls", "bounces")
    middles = [(line[0].min() + line[0].max()) / 2 for line in (path.y, path.x)]
    down, right = (round(SIDE * (0.5 - float(middle))) for middle in middles)
    ground = clip[:, :1, :1, :1]
    around = F.pad(clip - ground, [SIDE // 2] * 4) + ground
    top, left = SIDE // 2 - (down if along_y else 0), SIDE // 2 - right
    return around[:, :, top : top + SIDE, left : left + SIDE]


@dataclass(frozen=True)
class Clips:
    """Clips as latents, and what they show."""

    scenes: list[Scene]
    """One thing each."""
    latents: Float[Tensor, "n c t h w"]
    """Of the shipped autoencoder."""
    told: Float[Tensor, "n 1 words"]
    """What a network is told of each."""


def draw_clips(count: int, seed: int) -> Clips:
    """`count` clips, each thing that there is in turn; the same seed gives the same clips."""
    rng, every, scenes = np.random.default_rng([seed, 37]), things(), []
    for number in range(count):
        thing = every[number % len(every)]
        scenes.append(Scene((thing,), "dark", "still", None, int(rng.integers(2**31))))
    pixels = torch.stack([centred_clip(scene) for scene in scenes])
    return Clips(scenes, encode(pixels), told([scene.things[0] for scene in scenes]))


@lru_cache(maxsize=1)
def _autoencoder():
    return Sora.from_pretrained("tiny").autoencoder


@torch.no_grad()
def encode(pixels: Float[Tensor, "n 3 f h w"]) -> Float[Tensor, "n c t h8 w8"]:
    """Latents of clips, by the shipped autoencoder."""
    return torch.cat([_autoencoder().encode(some) for some in pixels.split(100)])


@torch.no_grad()
def decode(latents: Float[Tensor, "n c t h8 w8"]) -> Float[Tensor, "n 3 f h w"]:
    """Pixels of latents, in [-1, 1]."""
    return torch.cat([_autoencoder().decode(some).clamp(-1, 1) for some in latents.split(100)])


@lru_cache(maxsize=1)
def known_clips() -> Clips:
    """The clips to learn from."""
    return draw_clips(CLIPS, TRAINING_SEED)


@lru_cache(maxsize=1)
def fresh_clips() -> Clips:
    """Other clips of the same things: other starts, speeds and heights."""
    return draw_clips(TEST_CLIPS, TEST_SEED)


# --- one training ----------------------------------------------------------------------------------------


def loss_on(
    network: VideoDiT, clips: Clips, chosen: Tensor, generator: torch.Generator, dropped: float = DROPPED
) -> Tensor:
    """Squared error of the velocity for the chosen clips, a share `dropped` of them with nothing said."""
    x0, y = clips.latents[chosen], clips.told[chosen]
    noise, t = torch.randn(x0.shape, generator=generator), middle_times(len(x0), generator)
    kept = torch.rand(len(x0), generator=generator) >= dropped
    said = network(add_noise(x0, noise, t), t, y * kept[:, None, None])
    return F.mse_loss(said, velocity(x0, noise))


@torch.no_grad()
def held_loss(network: VideoDiT, clips: Clips) -> float:
    """The loss on clips that it has not seen, told everything, always with the same noise and times."""
    everything = torch.arange(len(clips.scenes))
    return loss_on(network, clips, everything, torch.Generator().manual_seed(7), 0.0).item()


def train(
    attention: str, seed: int, clips: Clips, fresh: Clips, steps: int = STEPS, progress: str = "",
    positions: str = "sinusoidal",
) -> tuple[VideoDiT, dict]:  # fmt: skip
    """Trains one network, and looks at the fresh clips eleven times on the way.

    Args:
        attention: one of `ATTENTIONS`.
        seed: of the first weights, the batches and the noise; the same for both attentions.
        clips: what it learns from.
        fresh: what it is compared on.
        steps: optimiser steps.
        progress: a name for the progress bar; "" draws none.
        positions: as in `VideoDiTConfig`.

    Returns:
        The network with averaged weights, and its curve: "steps", the "loss" on the fresh clips at each (the
        last one of the averaged weights), and the "seconds" of processor time that the steps alone took.
    """
    network = seeded(lambda: VideoDiT(make_config(attention, positions)), seed)
    marks, curve, done, spent = {round(steps * k / 10) for k in range(10)}, {"steps": [], "loss": []}, 0, 0.0
    begun = time.process_time()

    def note(step: int, judged: VideoDiT) -> None:
        nonlocal spent
        before = time.process_time()
        curve["steps"].append(step)
        curve["loss"].append(round(held_loss(judged, fresh), 4))
        spent += time.process_time() - before

    def loss_of(generator: torch.Generator) -> Tensor:
        nonlocal done
        if done in marks:
            note(done, network)
        done += 1
        return loss_on(
            network, clips, torch.randint(len(clips.scenes), (BATCH,), generator=generator), generator
        )

    average, _ = fit(network, loss_of, steps, RATE, seed, progress, MUON_RATE)
    curve["seconds"] = round(time.process_time() - begun - spent, 1)
    note(steps, average)
    return average.eval(), curve


@torch.no_grad()
def draw(
    network: VideoDiT, y: Float[Tensor, "b 1 words"], seed: int = 0, scale: float = GUIDANCE,
    steps: int = SAMPLER_STEPS,
) -> Float[Tensor, "b 3 f h w"]:  # fmt: skip
    """Clips of what y asks for, from noise; the same seed always starts from the same noise."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        twice = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, torch.zeros_like(y)]))
        return guided(*twice.chunk(2), scale)

    noise = torch.randn(len(y), *LATENT, generator=torch.Generator().manual_seed(seed))
    return decode(euler(field, noise, time_grid(steps)))


# --- what was made ---------------------------------------------------------------------------------------


def read(pixels: Float[Tensor, "b 3 f h w"]) -> list[Reading]:
    """What the judge reads in clips, in the 8 bits of a file."""
    return [judge(clip) for clip in to_float(to_uint8(pixels))]


def shares(readings: Sequence[Reading], scenes: Sequence[Scene]) -> dict[str, float]:
    """The shares of clips that are well formed, and read as asked in colour, shape, motion, and all three."""
    compared = [
        reading.compare(Scene((replace(scene.things[0], size=None),)))
        for reading, scene in zip(readings, scenes, strict=True)
    ]
    found = {name: np.mean([one[name] for one in compared]) for name in ("colour", "shape", "motion")}
    found["well formed"] = np.mean([not reading.malformed for reading in readings])
    found["all"] = np.mean([all(one.values()) for one in compared])
    return {name: round(float(value), 4) for name, value in found.items()}


def real_readings(clips: Clips) -> list[Reading]:
    """What the judge reads in real clips behind the autoencoder: no network can be seen to do better."""
    return read(decode(clips.latents))


# --- keeping clips ---------------------------------------------------------------------------------------


def clip_to_text(frames: UInt8[np.ndarray, "f h w 3"]) -> str:
    """A small clip as text, without loss."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(frames).tobytes(), 9)).decode()


def clip_from_text(text: str) -> UInt8[np.ndarray, "f h w 3"]:
    """Undoes `clip_to_text`."""
    values = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return values.reshape(FRAMES, SIDE, SIDE, 3)


# --- what it costs ---------------------------------------------------------------------------------------


@torch.no_grad()
def seconds_per_evaluation(config: VideoDiTConfig, size: tuple[int, int, int], repeats: int = 3) -> float:
    """The least of a few timings of one evaluation for one clip of latents of this size, in float32."""
    model = seeded(lambda: VideoDiT(config).eval(), 0)
    x, y = torch.randn(1, config.channels, *size), torch.zeros(1, 1, config.text_width)
    best = float("inf")
    for _ in range(repeats + 1):  # the first warms up
        begun = time.perf_counter()
        model(x, torch.ones(1), y)
        best = min(best, time.perf_counter() - begun)
    return best


# --- the reference runs ----------------------------------------------------------------------------------


def record(path: Path, seeds: int = 3, steps: int = STEPS) -> None:
    """Trains both networks with several seeds, and writes what came out after each; runs in the file stay.

    The file has, under each of `ATTENTIONS`, parameters and multiply-adds, and lists by seed: the "loss" on
    fresh clips at "steps", the "seconds" of processor time of the training, "shares" read as asked, and
    "tracks": motion and path (x, y, in heights) of each clip that the judge could read. "samples" are clips
    `SAMPLES` of the first seed; "real" has shares and tracks of real clips behind the autoencoder.
    """
    clips, fresh = known_clips(), fresh_clips()
    settings = {
        "batch": BATCH, "lr": RATE, "muon_lr": MUON_RATE, "steps": steps, "clips": len(clips.scenes),
        "guidance": GUIDANCE, "sampler_steps": SAMPLER_STEPS, "asked": len(fresh.scenes), "fps": FPS,
    }  # fmt: skip
    kept = json.loads(path.read_text()) if path.exists() else {}
    real = real_readings(fresh)
    kept |= {"settings": settings, "real": {"shares": shares(real, fresh.scenes), "tracks": paths(real)}}
    for seed, attention in product(range(seeds), ATTENTIONS):
        runs = kept.setdefault(attention, describe_run(attention))
        if len(runs.get("loss", [])) == seed:
            _add_run(runs, attention, seed, clips, fresh, steps)
            write_whole(path, (json.dumps(kept) + "\n").encode())


def describe_run(attention: str) -> dict:
    """Parameters, and multiply-adds of one evaluation for one clip."""
    config, (_, *size) = make_config(attention), LATENT
    frames, height, width = check_divides(tuple(size), config.patch)
    return {
        "parameters": video_dit_parameters(config),
        "macs": video_dit_macs(config, frames * height * width, frames=frames),
    }


def paths(readings: Sequence[Reading]) -> list[dict | None]:
    """Motion and path of the one thing of each clip, rounded; None where the judge read none."""
    return [
        None if reading.malformed or len(reading.things) != 1 else {
            "motion": reading.things[0].thing.motion,
            "x": [round(float(x), 4) for x in reading.things[0].x],
            "y": [round(float(y), 4) for y in reading.things[0].y],
        }
        for reading in readings
    ]  # fmt: skip


def _add_run(runs: dict, attention: str, seed: int, clips: Clips, fresh: Clips, steps: int) -> None:
    network, curve = train(attention, seed, clips, fresh, steps, f"{attention}, seed {seed}")
    made = draw(network, fresh.told)
    readings = read(made)
    runs["steps"] = curve["steps"]
    new = {"loss": curve["loss"], "seconds": curve["seconds"], "shares": shares(readings, fresh.scenes)}
    for name, value in (new | {"tracks": paths(readings)}).items():
        runs.setdefault(name, []).append(value)
    if seed == 0:
        runs["samples"] = [clip_to_text(frames) for frames in to_uint8(made[list(SAMPLES)])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference runs of chapter 10.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/10_motions.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    record(options.out, options.seeds, options.steps)
