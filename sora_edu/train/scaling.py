"""The scaling curve of chapter 13: the same recipe with more and more compute, at several sizes.

Five DiTs with adaLN-Zero, of 5 to 150 thousand weights, learn the framed stills of chapter 07.
There are six budgets, each twice the one before. At each budget several sizes are trained, the larger ones
for fewer steps, so that all of them take equally many multiply-adds: the isoFLOP method of Hoffmann et al.
2022. Every point is the end of a run of its own, whose learning rate has fallen to zero.

    python -m sora_edu.train.scaling       writes data/curves/13_scaling.json, run after run, on one core
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sora_edu.data.world import COLOURS, SHAPES
from sora_edu.dit import DiTConfig, dit_macs, dit_parameters
from sora_edu.files import write_whole
from sora_edu.train.conditioning import (
    SHOWN,
    Examples,
    ToldDiT,
    draw,
    examples,
    latents_to_text,
    shares_read,
    told_loss,
    validation_loss,
)
from sora_edu.train.denoising import fit
from sora_edu.train.pictures import TEST_SEED, TRAINING_SEED, seeded

LADDER = {8: (2, 1), 16: (2, 2), 24: (2, 3), 32: (2, 4), 48: (3, 6)}
"""Width -> depth and heads of the networks: both grow with the width, and heads have 8 channels."""

BUDGETS = {
    1: (8, 16, 24, 32),
    2: (16, 24, 32),
    4: (16, 24, 32, 48),
    8: (16, 24, 32, 48),
    16: (24, 32, 48),
    32: (24, 32, 48),
}
"""Budget, in multiples of the base -> widths that are trained with it."""

BASE = 4e9
"""Multiply-adds of a whole training at the smallest budget, backward passes included."""

BATCH = 32
RATE = 0.2
"""Largest learning rate of Adam, times the width: wider networks take smaller steps (Yang and Hu 2021)."""

PICTURES, VALIDATED, ASKED = 3000, 192, 96
"""Stills to learn from, to validate on, and how many each network draws in the end."""


def make_config(width: int) -> DiTConfig:
    """A network of the ladder. Raises ValueError for a width that is not on it."""
    if width not in LADDER:
        raise ValueError(f"width={width} is unknown; use one of: {', '.join(map(str, LADDER))}")
    depth, heads = LADDER[width]
    return DiTConfig(
        size=(8, 8), patch=2, width=width, depth=depth, heads=heads,
        classes=len(COLOURS) * len(SHAPES), learned_variance=False,
    )  # fmt: skip


def steps_for(width: int, budget: int | float, base: float = BASE) -> int:
    """Steps that a budget buys: a step takes three forward passes for each picture of a batch."""
    return max(1, round(budget * base / (3 * BATCH * dit_macs(make_config(width)))))


def train(
    width: int,
    budget: int | float,
    seed: int,
    known: Examples,
    fresh: Examples,
    base: float = BASE,
    progress: str = "",
) -> tuple[ToldDiT, dict]:
    """Trains one network of the ladder for one budget.

    Args:
        width: of the network; see `LADDER`.
        budget: in multiples of `base`.
        seed: of the first weights, the batches and the noise.
        known: what it learns from.
        fresh: what it is validated on.
        base: multiply-adds of a budget of 1.
        progress: a name for the progress bar; "" draws none.

    Returns:
        The network with the weights of its last step, and what it came to: "loss", on `fresh`; "on_the_way",
        the losses at the steps where smaller budgets end, by budget; and "curve", steps and training losses
        as `fit` gives them.
    """
    network, count = seeded(lambda: ToldDiT(make_config(width)), seed), steps_for(width, budget, base)
    marks = {steps_for(width, smaller, base): str(smaller) for smaller in BUDGETS if smaller < budget}
    on_the_way, done = {}, 0

    def loss_of(generator: torch.Generator) -> Tensor:
        nonlocal done
        if done in marks:
            on_the_way[marks[done]] = _validated(network, fresh)
        done += 1
        chosen = torch.randint(len(known.latents), (BATCH,), generator=generator)
        return told_loss(network, known, "class", chosen, generator)

    _, curve = fit(network, loss_of, count, RATE / width, seed, progress)
    return network.eval(), {"loss": _validated(network, fresh), "on_the_way": on_the_way, "curve": curve}


def _validated(network: ToldDiT, fresh: Examples) -> float:
    return round(validation_loss(network, "class", fresh), 5)


# --- reference runs --------------------------------------------------------------------------------------


def planned() -> Iterator[tuple[int, int]]:
    """Budget and width of every run, the cheap ones first."""
    return ((budget, width) for budget, widths in BUDGETS.items() for width in widths)


def record(path: Path, seeds: int = 3, base: float = BASE, pictures: int = PICTURES) -> None:
    """Trains all networks with several seeds and writes what came out after each; runs in the file stay.

    Seed by seed, so that a stop leaves whole curves. The file has the "settings"; "real", the shares of real
    pictures that are read right; and "runs", by budget and width: "parameters", "macs", "steps"; by seed the
    "loss", the losses "on_the_way", the shares of pictures drawn as asked ("colour", "shape", "both") and
    the "seconds" of the training; and from the first seed the "samples" asked for first.
    """
    known = examples(pictures, TRAINING_SEED)
    fresh, asked = examples(VALIDATED, TEST_SEED), examples(ASKED, TEST_SEED)
    kept = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    kept["settings"] = {"base_macs": base, "batch": BATCH, "pictures": pictures, "asked": ASKED}
    kept["real"] = shares_read(asked.latents, asked)
    for seed in range(seeds):
        for budget, width in planned():
            runs = kept["runs"].setdefault(str(budget), {}).setdefault(str(width), _described(width))
            runs["steps"] = steps_for(width, budget, base)
            if len(runs.get("loss", [])) == seed:
                _add_run(runs, width, budget, seed, known, fresh, asked, base)
                write_whole(path, (json.dumps(kept) + "\n").encode())


def _described(width: int) -> dict:
    config = make_config(width)
    return {"parameters": dit_parameters(config), "macs": dit_macs(config)}


def _add_run(
    runs: dict,
    width: int,
    budget: int,
    seed: int,
    known: Examples,
    fresh: Examples,
    asked: Examples,
    base: float,
) -> None:
    """Trains one network, and writes behind those of other seeds what came out."""
    name, start = f"{budget}x, width {width}, seed {seed}", time.perf_counter()
    network, found = train(width, budget, seed, known, fresh, base, name)
    seconds = round(time.perf_counter() - start, 1)
    made = draw(network, asked.told["class"])
    shares = shares_read(made, asked)
    told = {name: shares[name] for name in ("colour", "shape", "both")}
    kept = {name: found[name] for name in ("loss", "on_the_way")}
    for what, value in {**kept, **told, "seconds": seconds}.items():
        runs.setdefault(what, []).append(value)
    if seed == 0:
        runs["samples"] = latents_to_text(made[:SHOWN])


# --- reading them ----------------------------------------------------------------------------------------


def mean_losses(kept: Mapping) -> dict[int, dict[int, float]]:
    """Budget -> width, from small to large -> mean validation loss over the seeds of the reference runs."""
    return {
        int(budget): {width: statistics.mean(runs[str(width)]["loss"]) for width in sorted(map(int, runs))}
        for budget, runs in kept["runs"].items()
    }


def best_widths(kept: Mapping) -> dict[int, int]:
    """Budget -> the width with the smallest mean loss."""
    return {budget: min(losses, key=losses.get) for budget, losses in mean_losses(kept).items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference runs of chapter 13.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/13_scaling.json"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record(options.out, options.seeds)
