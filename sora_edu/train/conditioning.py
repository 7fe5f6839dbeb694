"""The comparison of chapter 07: four ways to tell a diffusion transformer what to draw, side by side.

Each way is trained on the latents of framed stills of the toy world, once with the class of a picture (its
pair of colour and shape, one token) and once with its caption (a token for each word, which also names the
ground). Depth and width are the same, and so are the multiply-adds of a whole training: a way that costs more
for an evaluation gets fewer steps.

    python -m sora_edu.train.conditioning      writes data/curves/07_conditioning.json, run after run
"""

import argparse
import base64
import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sora_edu.data.captions import VOCABULARY
from sora_edu.data.world import BACKGROUNDS, COLOURS, SHAPES
from sora_edu.diffusion import add_noise, velocity
from sora_edu.dit import CONDITIONINGS, DiT, DiTConfig, dit_macs, dit_parameters, guided
from sora_edu.files import write_whole
from sora_edu.positions import sinusoidal
from sora_edu.samplers import euler, time_grid
from sora_edu.text import PAD, Tokenizer
from sora_edu.train.denoising import DROPPED, fit, middle_times
from sora_edu.train.pictures import (
    TEST_SEED,
    TRAINING_SEED,
    Pictures,
    draw_pictures,
    framed_pictures,
    picture_autoencoder,
    read_pictures,
    seeded,
)

TOLD = ("class", "caption")
"""What a network is told: one token, or one for each word."""

LENGTH = 12
"""Tokens of a caption, begin, end and padding included."""

PICTURES = 3000
"""Stills to learn from."""

WIDTH, DEPTH, HEADS, TEXT_WIDTH = 96, 4, 4, 64
BATCH = 32
RATE = 2e-3
"""Largest learning rate of Adam."""

STEPS = 750
"""Steps of the cheapest network, adaLN with a class; the budget of all is what these cost."""

ASKED, GUIDANCE, SAMPLER_STEPS = 192, 3.0, 20
"""How many pictures each network is asked for in the end, and how they are drawn: Euler, guided."""

SHOWN = 8
"""Of the pictures asked for, how many are kept."""


@dataclass(frozen=True)
class Examples:
    """Stills as latents, with what may be said about them."""

    stills: Pictures
    """Pixels, and the truth."""
    latents: Float[Tensor, "n 4 8 8"]
    """Of unit scale."""
    told: dict[str, Tensor]
    """By name in `TOLD`: class ids, or the ids of the words of captions, padded."""


def class_of(stills: Pictures) -> Int[Tensor, " n"]:
    """The class of each picture: its pair of colour and shape."""
    return stills.colours * len(SHAPES) + stills.shapes


@lru_cache(maxsize=4)
def examples(count: int, seed: int, framed: bool = True) -> Examples:
    """`count` stills as latents, framed or of all sizes, places and grounds; the same each time."""
    stills = (framed_pictures if framed else draw_pictures)(count, seed)
    with torch.no_grad():
        latents = torch.cat([picture_autoencoder().encode(some) for some in stills.images.split(250)])
    words, _ = Tokenizer(VOCABULARY).encode(stills.captions, LENGTH)
    return Examples(stills, latents, {"class": class_of(stills), "caption": words})


class ToldDiT(nn.Module):
    """A DiT and, where it is told captions, the vectors of their words, learned together."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.dit = DiT(config)
        if config.text_width is not None:
            self.words = nn.Embedding(len(Tokenizer(VOCABULARY)), config.text_width)
            self.register_buffer("places", sinusoidal(LENGTH, config.text_width), persistent=False)

    def tokens(self, y: Tensor) -> tuple[Tensor, Bool[Tensor, "b l"] | None]:
        """What the DiT is told: class ids as they are, or vectors of words and which of them are real."""
        if self.dit.config.text_width is None:
            return y, None
        return self.words(y) + self.places, y != PAD

    def forward(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], y: Tensor, dropped: Bool[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The velocity; where `dropped` is True without being told anything."""
        return self.dit(x, t, *self.tokens(y), dropped)


def make_config(conditioning: str, told: str) -> DiTConfig:
    """The network of one run. Raises ValueError for an unknown conditioning, or for `told` not in `TOLD`."""
    if told not in TOLD:
        raise ValueError(f"told={told!r} is unknown; use one of: {', '.join(TOLD)}")
    by_class = told == "class"
    return DiTConfig(
        size=(8, 8), patch=2, width=WIDTH, depth=DEPTH, heads=HEADS, conditioning=conditioning,
        classes=len(COLOURS) * len(SHAPES) if by_class else None,
        text_width=None if by_class else TEXT_WIDTH,
        learned_variance=False,
    )  # fmt: skip


def macs(conditioning: str, told: str) -> int:
    """Multiply-adds of one evaluation for one picture."""
    return dit_macs(make_config(conditioning, told), None if told == "class" else LENGTH)


def steps_for(conditioning: str, told: str, steps: int = STEPS) -> int:
    """So many steps that all runs take equally many multiply-adds: as `steps` steps of adaLN with a class."""
    return round(steps * macs("adaln", "class") / macs(conditioning, told))


# --- one run ---------------------------------------------------------------------------------------------


def told_loss(
    network: ToldDiT, known: Examples, told: str, chosen: Tensor, generator: torch.Generator
) -> Tensor:
    """Squared error of the velocity for the chosen examples, a tenth of them with nothing said."""
    x0, y = known.latents[chosen], known.told[told][chosen]
    noise, t = torch.randn(x0.shape, generator=generator), middle_times(len(x0), generator)
    dropped = torch.rand(len(x0), generator=generator) < DROPPED
    return F.mse_loss(network(add_noise(x0, noise, t), t, y, dropped), velocity(x0, noise))


@torch.no_grad()
def validation_loss(network: ToldDiT, told: str, fresh: Examples) -> float:
    """The loss on pictures that it has not seen, always with the same noise and times."""
    return told_loss(
        network, fresh, told, torch.arange(len(fresh.latents)), torch.Generator().manual_seed(7)
    ).item()


def train(
    conditioning: str,
    told: str,
    seed: int,
    known: Examples,
    fresh: Examples,
    steps: int = STEPS,
    progress: str = "",
) -> tuple[ToldDiT, dict[str, list]]:
    """Trains one network, and validates it eleven times on the way.

    Args:
        conditioning: one of `dit.CONDITIONINGS`.
        told: one of `TOLD`.
        seed: of the first weights, the batches and the noise.
        known: what it learns from.
        fresh: what it is validated on.
        steps: the budget, in steps of adaLN with a class; see `steps_for`.
        progress: a name for the progress bar; "" draws none.

    Returns:
        The network with averaged weights, and its curve: "steps", and "loss" of the weights at each; the last
        one is that of the average.
    """
    network, count = (
        seeded(lambda: ToldDiT(make_config(conditioning, told)), seed),
        steps_for(conditioning, told, steps),
    )
    marks, curve, done = {round(count * k / 10) for k in range(10)}, {"steps": [], "loss": []}, 0

    def note(step: int, judged: ToldDiT) -> None:
        curve["steps"].append(step)
        curve["loss"].append(round(validation_loss(judged, told, fresh), 4))

    def loss_of(generator: torch.Generator) -> Tensor:
        nonlocal done
        if done in marks:
            note(done, network)
        done += 1
        chosen = torch.randint(len(known.latents), (BATCH,), generator=generator)
        return told_loss(network, known, told, chosen, generator)

    average, _ = fit(network, loss_of, count, RATE, seed, progress)
    note(count, average)
    return average.eval(), curve


@torch.no_grad()
def draw(
    network: ToldDiT, y: Tensor, seed: int = 0, scale: float = GUIDANCE, steps: int = SAMPLER_STEPS
) -> Float[Tensor, "b 4 8 8"]:
    """Latents of what y asks for, drawn with guidance; the same seed always starts from the same noise."""
    tokens, mask = network.tokens(y)
    noise = torch.randn(len(y), 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return euler(lambda x, t: guided(network.dit, x, t, tokens, scale, mask), noise, time_grid(steps))


@torch.no_grad()
def read_right(latents: Float[Tensor, "b 4 8 8"], asked: Examples) -> dict[str, Bool[Tensor, " b"]]:
    """In which pictures colour, shape, both of them, and ground are read as asked for."""
    images = picture_autoencoder().decode(latents)
    (colours, shapes), stills = read_pictures(images), asked.stills
    right = {"colour": colours == stills.colours, "shape": shapes == stills.shapes}
    right["both"] = right["colour"] & right["shape"]
    edge = torch.cat([images[:, :, [0, -1]].flatten(1), images[..., [0, -1]].flatten(1)], dim=1)
    right["ground"] = (edge.median(1).values > 0) == (stills.backgrounds == BACKGROUNDS.index("light"))
    return right


def shares_read(latents: Float[Tensor, "b 4 8 8"], asked: Examples) -> dict[str, float]:
    """The shares of pictures whose colour, shape, both of them, and ground are read as asked for.

    A class does not say the ground, which is then right by chance.
    """
    right = read_right(latents, asked)
    return {name: round(which.float().mean().item(), 4) for name, which in right.items()}


# --- keeping latents -------------------------------------------------------------------------------------

LARGEST = 4.0
"""Latents are of unit scale; what is larger is cut off where they are kept."""


def latents_to_text(latents: Float[Tensor, "..."]) -> str:
    """Latents in a byte each, as text: to 1/32, cut off at `LARGEST`."""
    return base64.b64encode(
        (latents.clamp(-LARGEST, LARGEST) * 127 / LARGEST).round().char().numpy().tobytes()
    ).decode()


def latents_from_text(text: str, shape: tuple[int, ...] = (-1, 4, 8, 8)) -> Float[Tensor, "b c h w"]:
    """Undoes `latents_to_text`, up to rounding."""
    values = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.int8)
    return values.float().view(shape) * LARGEST / 127


# --- reference runs --------------------------------------------------------------------------------------


def describe_run(conditioning: str, told: str, steps: int = STEPS) -> dict:
    """Sizes and costs of a run: parameters of the DiT, multiply-adds of an evaluation, steps."""
    config = make_config(conditioning, told)
    return {
        "parameters": dit_parameters(config),
        "macs": macs(conditioning, told),
        "training_steps": steps_for(conditioning, told, steps),
    }


ANYWHERE = "anywhere"
"""The name of a control: adaLN-Zero, told classes, on stills that are not framed."""


def record(path: Path, seeds: int = 3, steps: int = STEPS, pictures: int = PICTURES) -> None:
    """Trains all networks with several seeds and writes what came out after each; runs in the file stay.

    Seed by seed, so that a stop leaves whole comparisons. The file has, for each of `TOLD` and each of
    `CONDITIONINGS`, what `describe_run` says and lists by seed: the validation "loss" at "steps", shares read
    as asked ("colour", "shape", "both", "ground"), and from the first seed the "samples" asked for first;
    and the same once more for `ANYWHERE`.
    """
    known, fresh = examples(pictures, TRAINING_SEED), examples(ASKED, TEST_SEED)
    real = shares_read(fresh.latents, fresh)
    settings = {"budget_steps": steps, "batch": BATCH, "guidance": GUIDANCE, "sampler_steps": SAMPLER_STEPS}
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept |= {"settings": settings | {"asked": ASKED, "pictures": pictures, "lr": RATE}, "real": real}
    for seed in range(seeds):
        for told, conditioning in product(TOLD, CONDITIONINGS):
            runs = kept.setdefault(told, {}).setdefault(conditioning, describe_run(conditioning, told, steps))
            if len(runs.get("loss", [])) == seed:
                _add_run(runs, conditioning, told, seed, known, fresh, steps)
                write_whole(path, (json.dumps(kept) + "\n").encode())
    known, fresh = examples(pictures, TRAINING_SEED, False), examples(ASKED, TEST_SEED, False)
    runs = kept.setdefault(ANYWHERE, describe_run("adaln_zero", "class", steps))
    for seed in range(len(runs.get("loss", [])), seeds):
        _add_run(runs, "adaln_zero", "class", seed, known, fresh, steps)
        write_whole(path, (json.dumps(kept) + "\n").encode())


def _add_run(
    runs: dict, conditioning: str, told: str, seed: int, known: Examples, fresh: Examples, steps: int
) -> None:
    """Trains one network, and writes behind those of other seeds what came out."""
    name = f"{conditioning}, {told}, seed {seed}"
    network, curve = train(conditioning, told, seed, known, fresh, steps, name)
    made = draw(network, fresh.told[told])
    runs["steps"] = curve["steps"]
    for what, value in {"loss": curve["loss"], **shares_read(made, fresh)}.items():
        runs.setdefault(what, []).append(value)
    if seed == 0:
        runs["samples"] = latents_to_text(made[:SHOWN])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference curves of chapter 07.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/07_conditioning.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    record(options.out, options.seeds, options.steps)
