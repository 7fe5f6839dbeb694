"""The comparison of chapter 12: what a model learns from short captions, from long ones, and from both.

The same pictures, the same small DiT, the same steps; only what is said about the pictures differs. A short
caption names one thing of three (colour, shape, ground), as people do who label their pictures in passing. A
long one names everything, as a captioner does that was told to. Each model is then asked with short and with
long prompts, and the reader of chapter 06 reads what it drew.

    python -m sora_edu.train.recaptions      writes data/curves/12_captions.json, run after run
"""

import argparse
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from sora_edu.data.captions import VOCABULARY
from sora_edu.data.world import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing, caption
from sora_edu.files import write_whole
from sora_edu.text import Tokenizer
from sora_edu.train.conditioning import (
    LENGTH,
    Examples,
    ToldDiT,
    draw,
    examples,
    latents_to_text,
    read_right,
    steps_for,
    train,
)
from sora_edu.train.pictures import TEST_SEED, TRAINING_SEED

KINDS = ("short", "long", "mixed")
"""What is learned from: short captions, long ones, or long ones and a few short ones."""

ATTRIBUTES = ("colour", "shape", "ground")
"""What a short caption names one of."""

SHORT_SHARE = 0.05
"""Share of short captions among the mixed ones, as in the training of DALL-E 3. Betker et al. 2023."""

NAMING = {"colour": ("colour",), "shape": ("shape",), "ground": ("background",)}
EVERYTHING = ("size", "colour", "shape", "background")

CONDITIONING = "cross_attention"
"""How words get in, since it is words that matter here."""

PICTURES, ASKED, STEPS = 3000, 192, 500
"""Stills to learn from, prompts of each length, and the budget of a run; see `conditioning.steps_for`."""

SHOWN = 6
"""Of the pictures asked for with long prompts, how many are kept."""


def named(count: int, seed: int) -> list[str]:
    """What each picture's short caption names."""
    return np.random.default_rng([seed, 37]).choice(ATTRIBUTES, count).tolist()


def captions(kind: str, count: int, seed: int) -> list[str]:
    """The captions of `count` stills. Raises ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; use one of: {', '.join(KINDS)}")
    stills, short = examples(count, seed).stills, _short(kind, count, seed)
    told = []
    for i, attribute in enumerate(named(count, seed)):
        thing = Thing(SHAPES[int(stills.shapes[i])], tuple(COLOURS)[int(stills.colours[i])], "large")
        scene = Scene((thing,), BACKGROUNDS[int(stills.backgrounds[i])])
        told.append(caption(scene, i, NAMING[attribute] if short[i] else EVERYTHING))
    return told


def _short(kind: str, count: int, seed: int) -> Bool[np.ndarray, " n"]:
    """Which captions are short."""
    share = {"short": 1.0, "long": 0.0, "mixed": SHORT_SHARE}[kind]
    return np.random.default_rng([seed, 41]).random(count) < share


@lru_cache(maxsize=8)
def captioned(kind: str, count: int, seed: int) -> Examples:
    """Stills as latents, with captions of this kind."""
    words, _ = Tokenizer(VOCABULARY).encode(captions(kind, count, seed), LENGTH)
    return replace(examples(count, seed), told={"caption": words})


def learn(kind: str, seed: int, steps: int = STEPS, pictures: int = PICTURES, progress: str = "") -> ToldDiT:
    """Trains the small DiT on captions of this kind."""
    known, fresh = captioned(kind, pictures, TRAINING_SEED), captioned(kind, ASKED, TEST_SEED)
    return train(CONDITIONING, "caption", seed, known, fresh, steps, progress)[0]


def answers(network: ToldDiT) -> tuple[dict[str, float], Tensor]:
    """How often a model draws what it is asked for, and its pictures for the long prompts.

    "short": what the short prompt names is right. "expanded": the same, but the short prompt was rewritten as
    a long one that agrees with it. "long": all three are right; and each of `ATTRIBUTES` in the pictures for
    long prompts.
    """
    asked = {kind: captioned(kind, ASKED, TEST_SEED) for kind in ("short", "long")}
    made = {kind: draw(network, wanted.told["caption"]) for kind, wanted in asked.items()}
    right = {kind: read_right(made[kind], asked[kind]) for kind in asked}
    which = torch.tensor([ATTRIBUTES.index(name) for name in named(ASKED, TEST_SEED)])
    found = {}
    for name, kind in (("short", "short"), ("expanded", "long")):
        table = torch.stack([right[kind][attribute] for attribute in ATTRIBUTES])
        found[name] = table[which, torch.arange(ASKED)]
    found["long"] = right["long"]["both"] & right["long"]["ground"]
    found |= {attribute: right["long"][attribute] for attribute in ATTRIBUTES}
    shares = {name: round(outcome.float().mean().item(), 4) for name, outcome in found.items()}
    return shares, made["long"]


def by_chance() -> dict[str, float]:
    """What somebody who does not listen gets right, for every figure of `answers`."""
    each = {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "ground": 1 / 2}
    one = sum(each[name] for name in named(ASKED, TEST_SEED)) / ASKED
    return {"short": one, "expanded": one, "long": each["colour"] * each["shape"] / 2, **each}


def record(path: Path, seeds: int = 3, steps: int = STEPS) -> None:
    """Trains each kind with each seed and writes what came out after each; runs in the file stay."""
    long = captioned("long", ASKED, TEST_SEED)
    real = read_right(long.latents, long)
    kept = json.loads(path.read_text()) if path.exists() else {"runs": {}, "samples": {}}
    kept |= {
        "settings": {
            "conditioning": CONDITIONING, "training_steps": steps_for(CONDITIONING, "caption", steps),
            "pictures": PICTURES, "asked": ASKED,
        },
        "real": round((real["both"] & real["ground"]).float().mean().item(), 4),
        "prompts": {kind: captions(kind, ASKED, TEST_SEED)[:SHOWN] for kind in ("short", "long")},
    }  # fmt: skip
    for seed in range(seeds):
        for kind in KINDS:
            run = kept["runs"].setdefault(kind, {})
            if len(run.get("long", [])) > seed:
                continue
            shares, made = answers(learn(kind, seed, steps, progress=f"{kind} captions, seed {seed}"))
            for name, share in shares.items():
                run.setdefault(name, []).append(share)
            if seed == 0:
                kept["samples"][kind] = latents_to_text(made[:SHOWN])
            write_whole(path, (json.dumps(kept, indent=1) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the comparison of captions of chapter 12.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/12_captions.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    record(options.out, options.seeds, options.steps)
