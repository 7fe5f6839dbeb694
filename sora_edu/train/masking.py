"""The trainings of chapter 08: masked against plain diffusion transformers, on latents of toy pictures.

One model, `PICTURE_MDT`, is trained in three ways. "masked" learns from two passes a step, one of them with
tokens hidden. "plain" learns from the full pass alone, once for as many steps, and once for as many
multiply-adds, second passes included. What else could differ does not: weights at the start, batches, times,
noise and dropped labels come from the same seeds.

    python -m sora_edu.train.masking      writes data/curves/08_masking.json, the reference runs
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sora_edu.data.world import COLOURS, SHAPES
from sora_edu.diffusion import add_noise, logit_normal_times, velocity
from sora_edu.dit import guided
from sora_edu.files import write_whole
from sora_edu.masked_dit import (
    MaskedDiT,
    MaskedDiTConfig,
    draw_mask,
    draw_ratio,
    hidden_count,
    masked_losses,
    masked_macs,
)
from sora_edu.patches import patchify
from sora_edu.samplers import euler, time_grid
from sora_edu.train.conditioning import Examples, class_of, examples
from sora_edu.train.denoising import fit
from sora_edu.train.pictures import (
    TEST_SEED,
    TRAINING_SEED,
    Pictures,
    framed_pictures,
    frechet_distance,
    picture_autoencoder,
    seeded,
    share_read,
)

PICTURE_MDT = MaskedDiTConfig(
    size=(8, 8), channels=4, patch=1, width=64, depth=4, decoder=1, heads=4,
    classes=len(COLOURS) * len(SHAPES), learned_variance=False,
)  # fmt: skip
"""The chapter's model: 64 tokens, one for each cell of a latent; a class is a colour and a shape."""

STEPS, BATCH, RATE = 1000, 16, 4e-3
"""Masked steps of a reference run, latents in a batch, and the highest learning rate."""

TIME_MEAN = 0.8
"""Of the logit-normal training times: what a picture shows is settled while it is nearly noise."""

GUIDANCE, SAMPLING_STEPS, SHIFT = 3.0, 16, 2.0
"""How samples are drawn: guidance scale, Euler steps, and the shift of their times towards noise."""

TRAINING_PICTURES, VALIDATION_PICTURES, SAMPLES = 3000, 512, 192
"""Pictures to learn from, pictures of the validation loss, and samples that are judged."""

POOL = 2000
"""Other real pictures, to find one of each class asked for among."""

ASKED_SEED, OTHER_SEED, SHOWN_SEED = 2, 3, 5
"""Seeds of the pictures whose classes are asked for, of other real ones, and of those that are looked at."""


def make_mdt(seed: int, config: MaskedDiTConfig = PICTURE_MDT) -> MaskedDiT:
    """A fresh model; the same seed gives the same weights, and the global generator stays as it was."""
    return seeded(lambda: MaskedDiT(config), seed)


def training_loss(
    model: MaskedDiT, known: Examples, masked: bool, batch: int = BATCH, seed: int = 0
) -> Callable[[torch.Generator], Tensor]:
    """The loss of a fresh batch: of the flow, from the full pass, and with `masked` from both passes.

    Masks have a generator of their own, by `seed`, so that both ways of training see the same batches.
    """
    c, patch = model.config, model.config.patch
    masks = torch.Generator().manual_seed(seed)

    def loss_of(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(known.latents), (batch,), generator=generator)
        x0, y = known.latents[chosen], known.told["class"][chosen]
        noise = torch.randn(x0.shape, generator=generator)
        t = logit_normal_times(batch, TIME_MEAN, generator=generator)
        dropped = torch.rand(batch, generator=generator) < c.label_dropout
        x, target = add_noise(x0, noise, t), velocity(x0, noise)
        full = model(x, t, y, dropped=dropped)
        if not masked:
            return F.mse_loss(full, target)
        mask = draw_mask(batch, c.tokens, draw_ratio(c.ratio, masks), masks)
        hidden = model(x, t, y, dropped=dropped, mask=mask)
        return masked_losses(*(patchify(z, patch) for z in (full, hidden, target)), mask)[0]

    return loss_of


def step_cost(config: MaskedDiTConfig, masked: bool) -> float:
    """Multiply-adds of a training step for one latent, forward; with masks a mean over the ratios drawn.

    A backward pass costs twice the forward one in all cases, and so does not change any comparison.
    """
    if not masked:
        return float(masked_macs(config))
    ratios = np.linspace(*config.ratio, 201)
    passes = [masked_macs(config, hidden_count(config.tokens, ratio)) for ratio in ratios]
    return masked_macs(config) + float(np.mean(passes))


def equal_steps(steps: int, config: MaskedDiTConfig = PICTURE_MDT) -> int:
    """Plain steps that cost what `steps` masked ones do, to the nearest whole step."""
    return round(steps * step_cost(config, masked=True) / step_cost(config, masked=False))


def train_mdt(
    seed: int, masked: bool, steps: int = STEPS, progress: str = ""
) -> tuple[MaskedDiT, list[tuple[int, float]]]:
    """Trains `PICTURE_MDT`, masked or plain.

    Returns:
        The model, an average over its last steps, for evaluation; and (step, training loss since the entry
        before), in which a masked loss is the sum of two.
    """
    model = make_mdt(seed)
    loss_of = training_loss(model, examples(TRAINING_PICTURES, TRAINING_SEED), masked, seed=seed)
    model, curve = fit(model, loss_of, steps, RATE, seed, progress)
    return model.eval(), curve


# --- how good is it? -------------------------------------------------------------------------------------


@torch.no_grad()
def validation_losses(model: MaskedDiT) -> dict[str, float]:
    """Errors on fresh latents under one fixed draw of times, noise and masks, the same for every model.

    "full": of the full pass, the loss of plain training. "kept", "hidden": of a pass that hides 40 %, at the
    two kinds of places; they mean something for masked training only.
    """
    generator = torch.Generator().manual_seed(1)
    fresh = examples(VALIDATION_PICTURES, TEST_SEED)
    x0, y = fresh.latents, fresh.told["class"]
    noise = torch.randn(x0.shape, generator=generator)
    t = (torch.arange(len(x0)) + 0.5) / len(x0)
    x, target = add_noise(x0, noise, t), velocity(x0, noise)
    mask = draw_mask(len(x0), model.config.tokens, 0.4, generator)
    full, hidden = model(x, t, y), model(x, t, y, mask=mask)
    _, at_kept, at_hidden = masked_losses(
        *(patchify(z, model.config.patch) for z in (full, hidden, target)), mask
    )
    return {"full": F.mse_loss(full, target).item(), "kept": at_kept.item(), "hidden": at_hidden.item()}


@torch.no_grad()
def sample(
    model: MaskedDiT, y: Int[Tensor, " b"], seed: int, steps: int = SAMPLING_STEPS, guidance: float = GUIDANCE
) -> Float[Tensor, "b 4 8 8"]:
    """Latents of the classes asked for, from noise, without masks."""
    c = model.config
    noise = torch.randn(len(y), c.channels, *c.size, generator=torch.Generator().manual_seed(seed))
    return euler(lambda x, t: guided(model, x, t, y, guidance), noise, time_grid(steps, SHIFT))


@torch.no_grad()
def decoded(latents: Float[Tensor, "b 4 8 8"]) -> Float[Tensor, "b 3 32 32"]:
    """Pictures of latents, in [-1, 1]."""
    return picture_autoencoder().decode(latents).clamp(-1, 1)


@torch.no_grad()
def judged(model: MaskedDiT, seed: int = 100) -> dict[str, float]:
    """What samples are worth: the share read as asked, and the Frechet distance of the reader's features.

    The classes asked for are those of fresh pictures, which also are what the features are compared with.
    """
    fresh = framed_pictures(SAMPLES, ASKED_SEED)
    return _worth(decoded(sample(model, class_of(fresh), seed)), fresh)


@torch.no_grad()
def bounds() -> dict[str, float]:
    """The same numbers for other real pictures of the same classes, once through the autoencoder.

    About the best there is. Of other classes they would not do: which classes come how often is a part of
    the distance, and samples are asked for just those of the pictures that they are compared with.
    """
    asked, pool = framed_pictures(SAMPLES, ASKED_SEED), framed_pictures(POOL, OTHER_SEED)
    places = {y: iter((class_of(pool) == y).nonzero().flatten().tolist()) for y in class_of(pool).tolist()}
    chosen = [next(places[y]) for y in class_of(asked).tolist()]
    autoencoder = picture_autoencoder()
    return _worth(autoencoder.decode(autoencoder.encode(pool.images[chosen])), asked)


def _worth(images: Float[Tensor, "n 3 32 32"], asked: Pictures) -> dict[str, float]:
    return {
        "read_as_asked": share_read(images, asked.colours, asked.shapes),
        "frechet": frechet_distance(images, framed_pictures(SAMPLES, ASKED_SEED).images),
    }


# --- the reference runs ----------------------------------------------------------------------------------

WAYS = ("masked", "plain, as many steps", "plain, as much compute")
"""What the chapter compares."""

SHOWN = 12
"""Samples of each way that are kept to be looked at."""


def run(way: str, seed: int, steps: int = STEPS) -> dict:
    """One training and what came of it."""
    masked = way == "masked"
    steps = equal_steps(steps) if way == "plain, as much compute" else steps
    model, curve = train_mdt(seed, masked, steps, f"{way}, seed {seed}")
    found = {
        "steps": steps,
        "macs": steps * BATCH * 3 * step_cost(PICTURE_MDT, masked),
        "curve": [[step, round(loss, 4)] for step, loss in curve],
        **{name: round(value, 4) for name, value in (validation_losses(model) | judged(model)).items()},
    }
    if seed == 0:
        asked = shown_classes()
        found["samples"] = sample(model, asked, seed=7).mul(100).round().int().flatten(1).tolist()
    return found


def shown_classes() -> Int[Tensor, " n"]:
    """The classes of the samples that are looked at: those of fresh pictures."""
    return class_of(framed_pictures(SHOWN, SHOWN_SEED))


def record(path: Path, seeds: int = 3, ways: tuple[str, ...] = WAYS, steps: int = STEPS) -> None:
    """Trains each way with several seeds, one after the other; every result is written when it is there."""
    for seed in range(seeds):
        for way in ways:
            found = run(way, seed, steps)
            known = json.loads(path.read_text()) if path.exists() else _frame()
            known["runs"].setdefault(way, {})[str(seed)] = found
            write_whole(path, (json.dumps(known) + "\n").encode())


def _frame() -> dict:
    """What to hold the runs against: real pictures, and what a model that answers 0 errs at hidden places."""
    return {"bounds": bounds(), "silent": validation_losses(make_mdt(0).eval())["hidden"], "runs": {}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference runs of chapter 08.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/08_masking.json"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    record(options.out, options.seeds)
