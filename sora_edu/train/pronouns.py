"""What does "it" mean? The comparison of chapter 03: attention against a recurrent network.

A sentence of a small generated language names two or three things and says something about one of them: "the
pizza came out of the oven and it tasted good". The answer is the thing that *it* stands for. Only what
happens to it gives that away: pizzas taste good, ovens are switched off. Things and happenings come in three
kinds, a sentence never has two things of one kind, and some pairs of things are kept out of training.

    python -m sora_edu.train.pronouns        writes data/curves/03_pronouns.json, the reference curves
"""

import argparse
import json
import random
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sora_edu.attention import SelfAttention, attention_weights, padding_mask
from sora_edu.files import write_whole
from sora_edu.positions import rope_angles

WIDTH = 32
"""Channels of a word."""

HEADS = 2
"""Attention heads in each layer."""

LONGEST = 32
"""Words of the longest sentence that fits."""

THINGS = {
    "food": ("pizza", "bread", "cake", "pie", "soup", "fish", "cheese", "pasta"),
    "machine": ("oven", "fridge", "toaster", "grill", "stove", "mixer", "kettle", "freezer"),
    "animal": ("cat", "dog", "mouse", "parrot", "rabbit", "pony", "goat", "hen"),
}
"""What *it* can stand for, by kind."""

HAPPENINGS = {
    "food": ("tasted good", "tasted awful", "was eaten", "was delicious", "needed more salt"),
    "machine": ("was switched off", "was plugged in", "was repaired", "had a glass door", "hummed loudly"),
    "animal": ("ran away", "fell asleep", "was hungry", "had soft ears", "wanted to play"),
}
"""What can happen to a thing of each kind, and to no other."""

SCENES = {
    ("food", "machine"): (
        "the {0} came out of the {1}",
        "out of the {1} came the {0}",
        "the {0} was in the {1}",
        "the {1} stood beside the {0}",
    ),
    ("animal", "food"): (
        "the {0} smelled the {1}",
        "the {1} was found by the {0}",
        "the {0} sat beside the {1}",
        "they hid the {1} from the {0}",
    ),
    ("animal", "machine"): (
        "the {0} slept beside the {1}",
        "the {1} was near the {0}",
        "they saw the {1} and the {0}",
        "behind the {0} stood the {1}",
    ),
}
"""How two things of two kinds can meet."""

ASIDES = (
    "",
    "last night",
    "on a cold evening",
    "in the small kitchen of my aunt",
    "while the others were still talking about old times",
)
"""What may stand between the things and *it*."""

EXAMPLES = (
    "the pizza came out of the oven and it tasted good",
    "the pizza came out of the oven and it was switched off",
)
"""Two sentences that differ in what happens to *it*, and so in what it is."""

NOUNS = tuple(noun for nouns in THINGS.values() for noun in nouns)


def _words() -> tuple[str, ...]:
    scenes = [scene.format("", "") for group in SCENES.values() for scene in group]
    happenings = [text for group in HAPPENINGS.values() for text in group]
    return tuple(sorted({*NOUNS, "it", "and", *" ".join([*scenes, *happenings, *ASIDES]).split()}))


VOCABULARY = _words()
"""Every word of the language."""


@dataclass(frozen=True)
class Sentence:
    """A sentence and what its *it* stands for."""

    text: str
    """The words, in small letters, without punctuation."""
    answer: str
    """The thing that *it* stands for."""


def sentences(count: int, seed: int, fresh: bool = False) -> list[Sentence]:
    """Draws sentences; the `fresh` ones name pairs of things that the others never name together."""
    rng, drawn = random.Random(seed), []
    while len(drawn) < count:
        kinds = rng.choice(list(SCENES))
        pair = [rng.choice(THINGS[kind]) for kind in kinds]
        if _kept_out(pair) != fresh:
            continue
        kind = rng.randrange(2)
        scene = rng.choice(SCENES[kinds]).format(*pair)
        parts = (scene, rng.choice(ASIDES), "and it", rng.choice(HAPPENINGS[kinds[kind]]))
        drawn.append(Sentence(" ".join(part for part in parts if part), pair[kind]))
    return drawn


def _kept_out(pair: list[str]) -> bool:
    """One pair of things in four, spread evenly over all things."""
    first, second = (nouns.index(noun) for noun in pair for nouns in THINGS.values() if noun in nouns)
    return (first + second) % 4 == 0


def words(text: str) -> list[str]:
    """The words of a sentence in small letters; punctuation is passed over."""
    return "".join(c if c.isalpha() else " " for c in text.lower()).split()


def tokens(texts: list[str]) -> tuple[Int[Tensor, "b n"], list[int]]:
    """Numbers of the words, shorter sentences filled up with 0, and how many words each has.

    Capitals and punctuation are passed over. Raises ValueError for an unknown word, which it names together
    with the nearest known ones, for a sentence without words, and for one of more than `LONGEST`.
    """
    split = [words(text) for text in texts]
    for text, found in zip(texts, split, strict=True):
        if not 1 <= len(found) <= LONGEST:
            raise ValueError(f"text {text!r} has {len(found)} words; give 1 to {LONGEST}")
        for word in found:
            if word not in VOCABULARY:
                near = get_close_matches(word, VOCABULARY, n=3, cutoff=0.5)
                known = ", ".join(near or NOUNS)
                raise ValueError(f"the toy language has no word {word!r}; it has {known}")
    lengths = [len(found) for found in split]
    grid = torch.zeros(len(texts), max(lengths), dtype=torch.long)
    for row, found in zip(grid, split, strict=True):
        row[: len(found)] = torch.tensor([VOCABULARY.index(word) for word in found])
    return grid, lengths


class Pointer(nn.Module):
    """One attention map, used as the answer: where the asking word looks is what it means."""

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(
        self, asking: Float[Tensor, "b q d"], x: Float[Tensor, "b n d"], lengths: list[int]
    ) -> Float[Tensor, "b q n"]:
        return attention_weights(self.q(asking), self.k(x), padding_mask(lengths, x.shape[1])[:, 0])


class Resolver(nn.Module):
    """Attention alone: `rounds - 1` times all words look at each other, then *it* points at its thing."""

    def __init__(self, rounds: int):
        super().__init__()
        self.words = _embedding()
        self.layers = nn.ModuleList(SelfAttention(WIDTH, HEADS) for _ in range(rounds - 1))
        self.pointer = Pointer()

    def forward(
        self, grid: Int[Tensor, "b n"], lengths: list[int], first_place: int = 0
    ) -> Float[Tensor, "b n"]:
        """How much *it* looks at each word in the end; `first_place` is where the sentences begin."""
        x, _ = self._look_around(grid, lengths, first_place)
        asking = x[torch.arange(len(grid)), _place_of_it(grid)]
        return self.pointer(asking[:, None], x, lengths)[:, 0]

    def maps(self, grid: Int[Tensor, "b n"], lengths: list[int]) -> list[Float[Tensor, "b h n n"]]:
        """Who looks at whom, in each head of each round. The last round is the pointer, for every word."""
        x, maps = self._look_around(grid, lengths, first_place=0, keep_maps=True)
        return [*maps, self.pointer(x, x, lengths)[:, None]]

    def _look_around(self, grid, lengths, first_place, keep_maps=False) -> tuple[Tensor, list[Tensor]]:
        x, mask, maps = self.words(grid), padding_mask(lengths, grid.shape[1]), []
        angles = rope_angles(first_place + torch.arange(grid.shape[1]), WIDTH // HEADS, base=100)
        for layer in self.layers:
            if keep_maps:
                maps.append(layer.weights(x, mask, angles))
            x = x + layer(x, mask, angles=angles)
        return x, maps


class Recurrent(nn.Module):
    """A GRU reads word after word and answers after the last one.

    It names the thing from what it remembers, or, with `points`, looks back at its states with a pointer, as
    translators did before there were transformers (Bahdanau et al. 2014).
    """

    def __init__(self, points: bool):
        super().__init__()
        self.words = _embedding()
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.answer = Pointer() if points else nn.Linear(WIDTH, len(NOUNS))

    def forward(self, grid: Int[Tensor, "b n"], lengths: list[int]) -> Float[Tensor, "b answers"]:
        states, _ = self.gru(self.words(grid))
        last = states[torch.arange(len(grid)), torch.tensor(lengths) - 1]
        if isinstance(self.answer, Pointer):
            return self.answer(last[:, None], states, lengths)[:, 0]
        return self.answer(last).softmax(-1)


def _embedding() -> nn.Embedding:
    words = nn.Embedding(len(VOCABULARY), WIDTH)
    nn.init.normal_(words.weight, std=0.5)
    return words


def _place_of_it(grid: Int[Tensor, "b n"]) -> Int[Tensor, " b"]:
    """Where *it* stands in each sentence; the first word of one without it."""
    return (grid == VOCABULARY.index("it")).long().argmax(1)


MODELS = {
    "attention, 2 rounds": lambda: Resolver(2),
    "attention, 1 round": lambda: Resolver(1),
    "recurrent": lambda: Recurrent(points=False),
    "recurrent, pointing": lambda: Recurrent(points=True),
}
"""What can be trained, by name."""


RATE = 2e-2
"""Learning rate for all: of 0.002, 0.005, 0.01, 0.02 and 0.04 the best for the plain recurrent network."""


def shares_of_nouns(
    model: nn.Module, grid: Int[Tensor, "b n"], lengths: list[int]
) -> Float[Tensor, "b nouns"]:
    """How much a model believes in each thing. What a pointer gives to a word counts for the word's thing."""
    shares = model(grid, lengths)
    if isinstance(model, Recurrent) and not isinstance(model.answer, Pointer):
        return shares
    nouns = torch.tensor([VOCABULARY.index(noun) for noun in NOUNS])
    return torch.einsum("bn,bnk->bk", shares, (grid[:, :, None] == nouns).float())


def share_right(model: nn.Module, pairs: list[Sentence]) -> float:
    """The share of sentences whose *it* the model resolves."""
    answers = torch.tensor([NOUNS.index(pair.answer) for pair in pairs])
    with torch.no_grad():
        shares = shares_of_nouns(model, *tokens([pair.text for pair in pairs]))
        return (shares.argmax(1) == answers).float().mean().item()


def train_resolver(
    name: str, seed: int = 0, steps: int = 300, examples: int = 4000, progress: bool = True
) -> tuple[nn.Module, list[tuple[int, float]]]:
    """Trains one model.

    Args:
        name: a name in `MODELS`.
        seed: of the weights and of the order of the sentences.
        steps: optimiser steps, 64 sentences each.
        examples: sentences to train on; 400 with pairs of things that are new test the model.
        progress: whether to draw a progress bar.

    Returns:
        The model, and (step, share right on the fresh sentences) every 20 steps.

    Raises:
        ValueError: there is no model of this name.
    """
    if name not in MODELS:
        raise ValueError(f"name={name!r}: must be one of {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name]()
    known, fresh = sentences(examples, seed=1), sentences(400, seed=2, fresh=True)
    grid, lengths = tokens([sentence.text for sentence in known])
    answers = torch.tensor([NOUNS.index(sentence.answer) for sentence in known])
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: min(1, (k + 1) / 30) * (1 - k / steps))
    curve = [(0, share_right(model, fresh))]
    bar = tqdm(range(1, steps + 1), desc=name, disable=not progress, mininterval=0.5)
    for step in bar:
        batch = torch.randint(len(known), (64,), generator=generator)
        shares = shares_of_nouns(model, grid[batch], [lengths[k] for k in batch])
        loss = F.nll_loss((shares + 1e-9).log(), answers[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
        if step % 20 == 0:
            curve.append((step, share_right(model, fresh)))
            bar.set_postfix_str(f"{curve[-1][1]:.0%} right")
    return model, curve


def looks(model: Resolver, text: str) -> list[list[list[float]]]:
    """Where *it* looks in a sentence: for each round and each head, a share for each word."""
    grid, lengths = tokens([text])
    with torch.no_grad():
        return [maps[0, :, int(_place_of_it(grid))].tolist() for maps in model.maps(grid, lengths)]


def record(path: Path, seeds: int = 5) -> None:
    """Trains every model with several seeds; writes their curves, and where the first one looks."""
    curves, written = {}, {}
    for name in MODELS:
        trained = [train_resolver(name, seed) for seed in range(seeds)]
        curves[name] = {
            "steps": [step for step, _ in trained[0][1]],
            "share_right": [[round(share, 4) for _, share in curve] for _, curve in trained],
            "parameters": sum(weight.numel() for weight in trained[0][0].parameters()),
        }
        if name == "attention, 2 rounds":
            rows = {text: looks(trained[0][0], text)[-1][0] for text in EXAMPLES}
            written = {text: [round(share, 4) for share in row] for text, row in rows.items()}
    write_whole(path, json.dumps({"curves": curves, "looks": written}, indent=1).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference curves of chapter 03.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/03_pronouns.json"))
    record(parser.parse_args().out)
