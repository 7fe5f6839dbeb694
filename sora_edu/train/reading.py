"""Who is in front? The comparison of chapter 02: readers with and without positions.

A reader gets a prompt such as "a red star behind a blue ring" and names the colour of the thing in front.
Every prompt with its two colours swapped is as frequent as the prompt itself, and both are the same bag of
words: a reader that does not know the order can do no better than toss a coin between two colours.

    python -m sora_edu.train.reading        writes data/curves/02_reading.json, the reference curves
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sora_edu.data.captions import VOCABULARY, words
from sora_edu.data.world import COLOURS, SHAPES, Scene, Thing, caption
from sora_edu.files import write_whole
from sora_edu.positions import LearnedPositions, sinusoidal

WIDTH = 32
"""Channels of a reader."""

PLACES = 16
"""Places for words; the longest prompt has 12, so it can also stand a little further back."""

COLOUR_NAMES = tuple(COLOURS)


def prompts(count: int, seed: int) -> list[tuple[str, str]]:
    """Draws prompts about two things, each with the colour of the thing in front."""
    rng, drawn = random.Random(seed), []
    for _ in range(count):
        (first, second), shapes = rng.sample(COLOUR_NAMES, 2), rng.choices(SHAPES, k=2)
        relation = rng.choice(("in front of", "behind"))
        scene = Scene((Thing(shapes[0], first), Thing(shapes[1], second)), relation=relation)
        text = caption(scene, seed=rng.randrange(10**6), naming={"shape", "colour", "relation"})
        drawn.append((text, first if relation == "in front of" else second))
    return drawn


def tokens(texts: list[str], shift: int = 0) -> Int[Tensor, "b n"]:
    """Numbers of the words of each prompt, the first at place `shift`; 0 stands for "no word"."""
    grid = torch.zeros(len(texts), PLACES, dtype=torch.long)
    for row, text in zip(grid, texts, strict=True):
        ids = [VOCABULARY.index(word) + 1 for word in words(text)]
        if shift + len(ids) > PLACES:
            raise ValueError(f"shift={shift}: {text!r} has {len(ids)} words and there are {PLACES} places")
        row[shift : shift + len(ids)] = torch.tensor(ids)
    return grid


class Reader(nn.Module):
    """Words to vectors, positions added, two layers; the mean decides on a colour."""

    def __init__(self, add_positions: Callable[[Tensor], Tensor]):
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY) + 1, WIDTH)
        nn.init.normal_(self.words.weight, std=0.5)
        self.add_positions = add_positions
        kind = dict(dropout=0.0, batch_first=True, norm_first=True)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, **kind)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, len(COLOUR_NAMES))

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b colours"]:
        x = self.add_positions(self.words(tokens))  # b n d
        return self.head(self.layers(x).mean(dim=1))


class AddLearned(nn.Module):
    """Adds a learned vector for each place."""

    def __init__(self):
        super().__init__()
        self.table = LearnedPositions((PLACES,), WIDTH, std=0.1)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x + self.table(x.shape[1])


def add_nothing(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """The bag of words."""
    return x


def add_sinusoidal(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Adds the sinusoidal code of each word's place."""
    return x + sinusoidal(x.shape[1], x.shape[2])


def add_along_the_batch(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """The named bug of chapter 02: the code runs along the batch, and a prompt's words all get the same."""
    return x + sinusoidal(x.shape[0], x.shape[2])[:, None]


POSITIONS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "none": lambda: add_nothing,
    "sinusoidal": lambda: add_sinusoidal,
    "learned": AddLearned,
    "along the batch": lambda: add_along_the_batch,
}
"""What a reader can be given, by name."""


def make_reader(positions: str, seed: int = 0) -> Reader:
    """A fresh reader; the same seed gives the same weights. Raises ValueError for unknown positions."""
    if positions not in POSITIONS:
        raise ValueError(f"positions={positions!r}: must be one of {', '.join(POSITIONS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Reader(POSITIONS[positions]())


def share_right(reader: Reader, pairs: list[tuple[str, str]], shift: int = 0) -> float:
    """The share of prompts whose front colour the reader names."""
    answers = torch.tensor([COLOUR_NAMES.index(colour) for _, colour in pairs])
    with torch.no_grad():
        return (reader(tokens([text for text, _ in pairs], shift)).argmax(1) == answers).float().mean().item()


def train_reader(
    positions: str, seed: int = 0, steps: int = 300, examples: int = 4000, progress: bool = True
) -> tuple[Reader, list[tuple[int, float]]]:
    """Trains a reader.

    Args:
        positions: a name in `POSITIONS`.
        seed: of the weights and of the order of the prompts.
        steps: optimiser steps, 64 prompts each.
        examples: prompts to train on; a tenth as many fresh ones test the reader.
        progress: whether to draw a progress bar.

    Returns:
        The reader, and (step, share right on the fresh prompts) every 20 steps.
    """
    reader, generator = make_reader(positions, seed), torch.Generator().manual_seed(seed)
    known, fresh = prompts(examples, seed=1), prompts(examples // 10, seed=2)
    inputs = tokens([text for text, _ in known])
    answers = torch.tensor([COLOUR_NAMES.index(colour) for _, colour in known])
    optimiser = torch.optim.AdamW(reader.parameters(), lr=5e-3)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: min(1, (k + 1) / 30) * (1 - k / steps))
    curve = [(0, share_right(reader, fresh))]
    bar = tqdm(range(1, steps + 1), desc=f"positions: {positions}", disable=not progress, mininterval=0.5)
    for step in bar:
        batch = torch.randint(len(inputs), (64,), generator=generator)
        loss = F.cross_entropy(reader(inputs[batch]), answers[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
        if step % 20 == 0:
            curve.append((step, share_right(reader, fresh)))
            bar.set_postfix_str(f"{curve[-1][1]:.0%} right")
    return reader, curve


def record(path: Path, seeds: int = 5) -> None:
    """Trains readers of every kind with several seeds; writes their curves, and their scores when shifted."""
    fresh, curves = prompts(400, seed=2), {}
    for positions in POSITIONS:
        trained = [train_reader(positions, seed) for seed in range(seeds)]
        curves[positions] = {
            "steps": [step for step, _ in trained[0][1]],
            "share_right": [[round(share, 4) for _, share in curve] for _, curve in trained],
            "shifted": [
                [round(share_right(reader, fresh, shift), 4) for shift in range(5)] for reader, _ in trained
            ],
        }
    write_whole(path, json.dumps(curves, indent=1).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference curves of chapter 02.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/02_reading.json"))
    record(parser.parse_args().out)
