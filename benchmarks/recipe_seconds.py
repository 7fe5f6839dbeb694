"""How long the recipe of tiny Sora takes from scratch on this machine, stage by stage.

    python benchmarks/recipe_seconds.py --json data/checkpoints/tiny/seconds.json

Each stage runs a few real steps in a temporary folder; the median time of a step times the recipe's number
of steps is the stage's time. The last one is timed as it is and compiled, for which a C++ compiler is needed.
Run it with nothing else running.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sora_edu.autoencoder import CausalVideoAutoencoder
from sora_edu.data import world
from sora_edu.files import write_whole
from sora_edu.precision import working_dtype
from sora_edu.text import TextEncoder
from sora_edu.train import recipes
from sora_edu.train.loop import Run

WARM_UP = 3
CLIPS = 256


def step_seconds(train, loop, steps: int) -> float:
    """Median seconds of one step, after the first few."""
    seconds, one_step = [], Run._one_step

    def timed(run, loss_at):
        start = time.perf_counter()
        value = one_step(run, loss_at)
        seconds.append(time.perf_counter() - start)
        return value

    Run._one_step = timed
    try:
        train(loop=replace(loop, steps=steps + WARM_UP))
    finally:
        Run._one_step = one_step
    return statistics.median(seconds[WARM_UP:])


def measure(steps: int) -> dict:
    """Seconds of every stage, and what they were measured on."""
    autoencoder = CausalVideoAutoencoder(recipes.TINY.autoencoder).eval()
    parts = {"text": TextEncoder(recipes.TINY.text)}
    recipes.STATISTICS = 16
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        stages = {
            "autoencoder": (recipes.train_autoencoder, recipes.AUTOENCODER_LOOP),
            "decoder": (partial(recipes.train_decoder, autoencoder), recipes.DECODER_LOOP),
            "text": (recipes.train_text, recipes.TEXT_LOOP),
            "dit": (partial(recipes.train_dit, autoencoder, parts, clips=64), recipes.DIT_LOOP),
            "dit_compiled": (
                partial(recipes.train_dit, autoencoder, parts, clips=64, compiled=True), recipes.DIT_LOOP,
            ),
        }  # fmt: skip
        for name, (train, loop) in stages.items():
            each = step_seconds(partial(train, Path(folder, name)), loop, steps)
            seconds[name] = each * loop.steps
    start = time.perf_counter()
    recipes.encode_scenes(autoencoder, world.training_scenes(1), CLIPS)
    seconds["cache"] = (time.perf_counter() - start) / CLIPS * recipes.CLIPS
    return {
        "seconds": {name: round(value) for name, value in seconds.items()},
        "steps_timed": steps,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": str(working_dtype()).removeprefix("torch."),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
    }


def main() -> None:
    """Prints the stages' times and keeps them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12, help="steps to time in each stage")
    parser.add_argument("--json", type=Path, help="where to keep the result")
    options = parser.parse_args()
    result = measure(options.steps)
    for name, seconds in result["seconds"].items():
        print(f"{name:12} {seconds / 60:6.1f} min")
    if options.json:
        write_whole(options.json, json.dumps(result, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
