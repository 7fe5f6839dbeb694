"""The comparison of chapter 11: ways to let a video model keep what is given.

The films are of a light that runs round a ring of eight lamps: nine moments, small enough to see a whole film
at once and to train a video DiT in less than a minute. The light has a steady speed, so two moments tell
everything, and whoever completes a film can be right or wrong.

    replaced        trained without any mask; given places are overwritten at each step of sampling (RePaint)
    channels        the masked film and the mask are more channels of the input, as in tiny Sora
    clean in place  the input is x_t where to generate, x_0 where given; only the first part counts (VDT)

A perfect network needs no training, for there are only so many films: `perfect` and `complete_perfectly` say
what the first way and the others can do at best.

    python -m sora_edu.train.given         writes data/curves/11_given.json, the reference runs
"""

import argparse
import json
import math
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sora_edu.diffusion import add_noise, velocity
from sora_edu.files import write_whole
from sora_edu.measures import seam
from sora_edu.samplers import Network, euler, time_grid
from sora_edu.tasks import grey_out, lay_mask, put_back, task_mask, training_mask
from sora_edu.train.denoising import fit, middle_times, perfect_network
from sora_edu.train.pictures import seeded
from sora_edu.video_dit import MASK_CHANNELS, VideoDiT, VideoDiTConfig

FRAMES, PLACES = 9, 8
"""Moments of a film, and lamps of the ring."""

FASTEST = 1.0
"""The largest speed of a light, in lamps a moment."""

Films = Float[Tensor, "n 1 t 1 w"]
Masks = Float[Tensor, "n t 1 w"]

WAYS = ("replaced", "channels", "clean in place")
"""How a network is trained, and then told what is given."""

CONFIG = VideoDiTConfig(
    channels=1, patch=(1, 1, 8), width=64, depth=3, heads=4, mlp_ratio=4, text_width=1, condition_width=64
)
STEPS, BATCH, RATE, SAMPLER_STEPS = 900, 64, 3e-3, 20
MASKS, TEST_FILMS, TEST_SEED = 512, 128, 1000


# --- films and masks -------------------------------------------------------------------------------------


def film_of(start: Float[Tensor, " n"], speed: Float[Tensor, " n"]) -> Films:
    """Films of lights that start at `start`, in lamps, and run `speed` lamps a moment; from -1 to 1."""
    light = start[:, None] + speed[:, None] * torch.arange(FRAMES)
    angle = 2 * math.pi / PLACES * (torch.arange(PLACES) - light[..., None])
    return angle.cos()[:, None, :, None]


def draw_films(n: int, generator: torch.Generator) -> Films:
    """Films of lights that start anywhere on the ring, with any speed up to `FASTEST` either way round."""
    start, speed = torch.rand(2, n, generator=generator)
    return film_of(PLACES * start, FASTEST * (2 * speed - 1))


def all_films(starts: int = 2 * PLACES, speeds: int = 17) -> Films:
    """Every film of a world with so many starts and speeds, for networks that are perfect."""
    start = torch.arange(starts).repeat_interleave(speeds) * (PLACES / starts)
    return film_of(start, torch.linspace(-FASTEST, FASTEST, speeds).repeat(starts))


@lru_cache(maxsize=1)
def test_films() -> Films:
    """Films to be completed, the same for every way."""
    return draw_films(TEST_FILMS, torch.Generator().manual_seed(TEST_SEED))


@lru_cache(maxsize=1)
def mask_pool() -> Masks:
    """Masks to train with: of all tasks, and every seventh of a film of which nothing is given."""
    generator, masks = torch.Generator().manual_seed(0), []
    while len(masks) < MASKS:
        mask = training_mask(FRAMES, 1, PLACES, generator)
        if len(masks) % 7 == 0:
            mask = torch.ones_like(mask)
        if mask.any():  # in one line of places a box can be of no height
            masks.append(mask)
    return torch.stack(masks)


def _hidden_part() -> np.ndarray:
    """Half of the ring."""
    hidden = np.zeros((1, PLACES), bool)
    hidden[:, PLACES // 4 : -PLACES // 4] = True
    return hidden


def masks_asked() -> dict[str, Float[Tensor, "t 1 w"]]:
    """What is given in the tests, by name. "every third" is of a kind that no network was trained with."""
    size = (FRAMES, 1, PLACES)
    return {
        "extend": task_mask("extend", *size, [0, 1, 2]),
        "connect": task_mask("connect", *size, [0, 1, 7, 8]),
        "inpaint": task_mask("inpaint", *size, list(range(FRAMES)), _hidden_part()),
        "every third": lay_mask("extend", *size, [0, 3, 6]),
    }


# --- the network and its losses --------------------------------------------------------------------------


def make_network(seed: int) -> VideoDiT:
    """A fresh video DiT for these films; a token is the ring at one moment."""
    return seeded(lambda: VideoDiT(CONFIG), seed)


def ask(network: VideoDiT, way: str, x: Films, t: Float[Tensor, " n"], known: Films, mask: Masks) -> Films:
    """The velocity that a network of this way says; of `known` it sees what the mask says is given."""
    silence = x.new_zeros(len(x), 1, 1)
    if way == "channels":
        channels = mask[:, None].expand(-1, MASK_CHANNELS, -1, -1, -1)
        return network(x, t, silence, given=grey_out(known, mask), mask=channels)
    return network(put_back(x, known, mask) if way == "clean in place" else x, t, silence)


def loss_of_way(network: VideoDiT, way: str, generator: torch.Generator) -> Tensor:
    """Squared error of the velocity on fresh films; in place, only where the mask says generate."""
    films = draw_films(BATCH, generator)
    noise, t = torch.randn(films.shape, generator=generator), middle_times(BATCH, generator)
    pool = mask_pool()
    mask = pool[torch.randint(len(pool), (BATCH,), generator=generator)]
    said = ask(network, way, add_noise(films, noise, t), t, films, mask)
    wrong = (said - velocity(films, noise)).square()
    return wrong[mask[:, None] > 0].mean() if way == "clean in place" else wrong.mean()


def train(
    way: str, seed: int, steps: int = STEPS, progress: str = ""
) -> tuple[VideoDiT, list[tuple[int, float]]]:
    """A network of one of `WAYS`, its weights averaged, and its curve of (step, loss)."""
    network = make_network(seed)
    average, curve = fit(
        network, lambda generator: loss_of_way(network, way, generator), steps, RATE, seed, progress
    )
    return average.eval(), curve


# --- completing a film -----------------------------------------------------------------------------------


@torch.no_grad()
def complete(network: VideoDiT, way: str, known: Films, mask: Float[Tensor, "t 1 w"], seed: int = 0) -> Films:
    """Films as a way completes them: the network's own output throughout, nothing put back at the end."""
    generator, masks = torch.Generator().manual_seed(seed), mask.expand(len(known), -1, -1, -1)

    def said(x: Tensor, t: Tensor) -> Tensor:
        return ask(network, way, x, t, known, masks)

    if way == "replaced":
        return overwrite(said, known, mask, generator)
    return euler(said, torch.randn(known.shape, generator=generator), time_grid(SAMPLER_STEPS))


def overwrite(
    said: Network, known: Films, mask: Float[Tensor, "t 1 w"], generator: torch.Generator, repeats: int = 1
) -> Films:
    """Euler steps; before each, given places are overwritten by the given values with noise of that time.

    Each step is taken `repeats` times: after all but the last, fresh noise leads back to where it began.
    RePaint, algorithm 1, for the straight line from data to noise.

    Args:
        said: the velocity that a network says, which is not told what is given.
        known: the films; of them, the places where the mask is 0 are used.
        mask: 1 = generate, 0 = given.
        generator: draws all noise.
        repeats: how often each step is taken; 1 is RePaint without its resampling.
    """
    noise = torch.randn(known.shape, generator=generator)
    x, times = noise, time_grid(SAMPLER_STEPS)
    for t, s in pairwise(times):
        for repeat in range(repeats):
            if repeat:  # from s back to t: data shrink, noise comes on top
                kept = (1 - t) / (1 - s)
                noise = torch.randn(x.shape, generator=generator)
                x = kept * x + (t**2 - (kept * s) ** 2).sqrt() * noise
            here = t.expand(len(x))
            x = put_back(x, add_noise(known, noise, here), mask)
            x = x + (s - t) * said(x, here)
    return x


def perfect(films: Films) -> Network:
    """The velocity that a network says which knows that data are exactly these films, and nothing else."""
    guess = perfect_network(films)
    return lambda x, t: (x - guess(x, t)) / t.view(-1, 1, 1, 1, 1)


def complete_perfectly(
    films: Float[Tensor, "m 1 t 1 w"], known: Films, mask: Float[Tensor, "t 1 w"], seed: int = 0
) -> Films:
    """Films completed by a perfect network that is told what is given: it knows which films agree with it."""
    noise, made = torch.randn(known.shape, generator=torch.Generator().manual_seed(seed)), []
    for one, start in zip(known.split(1), noise.split(1), strict=True):
        agrees = ((films - one).abs()[:, :, mask == 0] < 1e-4).flatten(1).all(1)
        made.append(euler(perfect(films[agrees]), start, time_grid(SAMPLER_STEPS)))
    return torch.cat(made)


# --- what is measured ------------------------------------------------------------------------------------


def missed(made: Films, true: Films) -> Float[Tensor, "n t"]:
    """By how many lamps the light of each moment is off, the shorter way round.

    Where the light is, is the angle of the first wave round the ring; its strength does not matter.
    """
    wave = torch.polar(torch.ones(PLACES), 2 * math.pi / PLACES * torch.arange(PLACES))
    turned = (made.to(wave.dtype) @ wave) * (true.to(wave.dtype) @ wave).conj()
    return turned.angle().abs()[:, 0, :, 0] * PLACES / (2 * math.pi)


def right(made: Films, true: Films) -> Bool[Tensor, " n"]:
    """Films whose light is less than one lamp off at every moment."""
    return (missed(made, true) < 1).all(1)


def judge_films(made: Films, true: Films, mask: Float[Tensor, "t 1 w"]) -> dict[str, float]:
    """What came of a task.

    Given places are put back first, and then: the share of films that are "right"; "missed", by how many
    lamps the light is off, on average over the moments of which anything was made; "seam", the change from
    given places to made ones against that of the true films. "given" is the error where the network was
    given the truth, the root of the mean square, of its own output.
    """
    final, moments = put_back(made, true, mask), mask.flatten(1).any(1)
    seams = [sum(seam(film, mask) for film in films) for films in (final, true)]
    figures = {
        "right": right(final, true).float().mean().item(),
        "missed": missed(final, true)[:, moments].mean().item(),
        "seam": seams[0] / seams[1],
        "given": (made - true)[:, :, mask == 0].square().mean().sqrt().item(),
    }
    return {name: round(value, 4) for name, value in figures.items()}


def record(path: Path, seeds: int = 3, steps: int = STEPS) -> None:
    """Trains a network of each way with every seed, and writes the file anew after each seed.

    The file has "curves", for each of `WAYS` the steps and the losses by seed, and "tasks", for each of
    `masks_asked` and each of `WAYS` what `judge_films` says, by seed.
    """
    true = test_films()
    curves: dict[str, dict] = {way: {"loss": []} for way in WAYS}
    tasks: dict[str, dict] = {task: {way: [] for way in WAYS} for task in masks_asked()}
    settings = {"steps": steps, "batch": BATCH, "rate": RATE, "sampler_steps": SAMPLER_STEPS}
    for seed in range(seeds):
        for way in WAYS:
            network, curve = train(way, seed, steps, progress=f"{way}, seed {seed}")
            curves[way]["steps"] = [step for step, _ in curve]
            curves[way]["loss"].append([round(loss, 4) for _, loss in curve])
            for task, mask in masks_asked().items():
                made = complete(network, way, true, mask, seed)
                tasks[task][way].append(judge_films(made, true, mask))
        found = {"settings": settings | {"films": len(true)}, "curves": curves, "tasks": tasks}
        write_whole(path, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference runs of chapter 11.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/11_given.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    record(options.out, options.seeds, options.steps)
