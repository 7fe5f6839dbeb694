"""The two trainings of chapter 04: a translator from English to Luma, and a GPT that writes captions.

python -m sora_edu.train.languages      writes data/curves/04_languages.json, the reference curves
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sora_edu.data.captions import PromptError, parse
from sora_edu.data.translation import draw_pairs, english_words, luma_words
from sora_edu.data.world import caption, sample_scene
from sora_edu.files import write_whole
from sora_edu.transformer import GPT, EncoderDecoder, GPTConfig, TransformerConfig, shift_right

PAD, BEGIN, END = 0, 1, 2
SPECIAL = ("<pad>", "<begin>", "<end>")

Pairs = Sequence[tuple[str, str]]
Curve = list[tuple[int, float]]
Model = EncoderDecoder | GPT


@dataclass(frozen=True)
class Words:
    """Words to ids and back; 0 pads, 1 begins, 2 ends a text."""

    known: tuple[str, ...]
    """The words, in the order of their ids, which begin at 3."""

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.known)

    def encode(self, texts: Sequence[str]) -> Int[Tensor, "b n"]:
        """Ids of texts, each closed by the end mark and padded to the longest.

        Raises ValueError for unknown words, and for no text at all.
        """
        if not texts or isinstance(texts, str):
            raise ValueError(f"texts={texts!r}: a list of at least one text would do")
        ids = {word: number for number, word in enumerate((*SPECIAL, *self.known))}
        if unknown := sorted({word for text in texts for word in text.split() if word not in ids}):
            raise ValueError(f"texts: unknown words {', '.join(unknown)}; known are {', '.join(self.known)}")
        rows = [torch.tensor([*(ids[word] for word in text.split()), END]) for text in texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)

    def decode(self, ids: Int[Tensor, "b n"]) -> list[str]:
        """Texts of rows of ids, each up to its first end mark."""
        words = (*SPECIAL, *self.known)
        rows = (row[: row.index(END)] if END in row else row for row in ids.tolist())
        return [" ".join(words[i] for i in row if i >= len(SPECIAL)) for row in rows]


ENGLISH, LUMA = Words(english_words()), Words(luma_words())


def cross_entropy(scores: Float[Tensor, "b n v"], wanted: Int[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Average surprise, in nats, at the wanted tokens; padding does not count."""
    return F.cross_entropy(scores.transpose(1, 2), wanted, ignore_index=PAD)


def _train(
    model: Model,
    loss_of: Callable[[Tensor], Tensor],
    examples: int,
    measure: Callable[[], float],
    seed: int,
    steps: int,
    bar: str | None,
) -> Curve:
    """AdamW with warm-up and linear decay on random batches of 64; measures the model every 50 steps."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: min(1, (k + 1) / 50) * (1 - k / steps))
    curve = [(0, measure())]
    progress = tqdm(range(1, steps + 1), desc=bar, disable=bar is None, mininterval=0.5)
    for step in progress:
        loss = loss_of(torch.randint(examples, (64,), generator=generator))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
        if step % 50 == 0 or step == steps:
            curve.append((step, measure()))
            progress.set_postfix_str(f"{curve[-1][1]:.3f}")
    return curve


# --- the translator --------------------------------------------------------------------------------------


def make_translator(seed: int = 0) -> EncoderDecoder:
    """An untrained translator; the same seed gives the same weights."""
    config = TransformerConfig(
        source_vocabulary=len(ENGLISH), target_vocabulary=len(LUMA), width=64, depth=2, heads=4, hidden=128,
        norm="pre", dropout=0.0, shared=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EncoderDecoder(config)


def translate(model: EncoderDecoder, sentences: Sequence[str]) -> list[str]:
    """What a translator makes of English sentences. Raises ValueError for words that are not English here."""
    source = ENGLISH.encode(sentences)
    return LUMA.decode(model.translate(source, source != PAD, BEGIN, END, most=20))


def share_exact(model: EncoderDecoder, pairs: Pairs) -> float:
    """The share of sentences whose translation is right in every word."""
    written = translate(model, [english for english, _ in pairs])
    return sum(mine == luma for mine, (_, luma) in zip(written, pairs, strict=True)) / len(pairs)


def train_translator(
    pairs: Pairs, held_out: Pairs, seed: int = 0, steps: int = 400, progress: bool = True
) -> tuple[EncoderDecoder, Curve]:
    """Trains a translator.

    Args:
        pairs: (English, Luma) to train on.
        held_out: pairs to measure it on.
        seed: of the weights and of the order of the pairs.
        steps: optimiser steps, 64 pairs each.
        progress: whether to draw a progress bar.

    Returns:
        The translator, and (step, share of held-out sentences exactly right) every 50 steps.
    """
    model = make_translator(seed)
    source, target = (
        side([pair[k] for pair in pairs]) for k, side in enumerate((ENGLISH.encode, LUMA.encode))
    )

    def loss_of(batch: Tensor) -> Tensor:
        english, luma = source[batch], target[batch]
        return cross_entropy(model(english, shift_right(luma, BEGIN), english != PAD), luma)

    bar = "translator" if progress else None
    return model, _train(model, loss_of, len(pairs), lambda: share_exact(model, held_out), seed, steps, bar)


# --- the GPT ---------------------------------------------------------------------------------------------


def draw_captions(count: int, seed: int) -> list[str]:
    """Different captions of random scenes of the toy world; commas are words of their own."""
    rng, kinds, drawn = np.random.default_rng(seed), ("core", "core", "two_objects"), {}
    while len(drawn) < count:
        text = caption(sample_scene(rng, kinds[len(drawn) % 3]), seed=int(rng.integers(10**6)))
        drawn[" ".join(re.findall(r"[^\s,;]+|[,;]", text))] = None
    return list(drawn)


def make_gpt(words: Words, context: int = 40, seed: int = 0) -> GPT:
    """An untrained small GPT; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(GPTConfig(vocabulary=len(words), context=context, width=64, depth=2, heads=4))


def train_gpt(
    texts: Sequence[str], held_out: Sequence[str], words: Words, seed: int = 0, steps: int = 400,
    progress: bool = True,
) -> tuple[GPT, Curve]:  # fmt: skip
    """Trains a GPT to continue texts.

    Args:
        texts: what it reads.
        held_out: texts to measure it on.
        words: what it knows.
        seed: of the weights and of the order of the texts.
        steps: optimiser steps, 64 texts each.
        progress: whether to draw a progress bar.

    Returns:
        The GPT, and (step, surprise per token on the held-out texts, in nats) every 50 steps.
    """
    model, rows, unseen = make_gpt(words, seed=seed), words.encode(texts), words.encode(held_out)

    def loss_on(ids: Tensor) -> Tensor:
        ids = ids[:, : int((ids != PAD).sum(1).max())]  # no longer than this batch needs
        return cross_entropy(model(shift_right(ids, BEGIN)), ids)

    def measure() -> float:
        with torch.no_grad():
            return loss_on(unseen).item()

    bar = "GPT" if progress else None
    return model, _train(model, lambda batch: loss_on(rows[batch]), len(texts), measure, seed, steps, bar)


def write_texts(
    model: GPT, words: Words, count: int, beginning: str = "", temperature: float | int = 1.0, seed: int = 0
) -> list[str]:
    """Texts that a GPT writes, all from one beginning. Raises ValueError for words that it does not know."""
    start = shift_right(words.encode([beginning]), BEGIN).expand(count, -1)  # the end mark gives way to begin
    generator = torch.Generator().manual_seed(seed)
    most = model.config.context - start.shape[1]
    ids = model.generate(start, most, temperature=temperature, generator=generator)
    return words.decode(ids)


def makes_sense(text: str) -> bool:
    """Whether the course's own grammar can read a caption as a scene that can be shown."""
    try:
        parse(text)
    except PromptError:
        return False
    return True


# --- the reference curves --------------------------------------------------------------------------------


def record(path: Path, seeds: int = 3) -> None:
    """Trains both models with several seeds and writes down how it went."""
    pairs, held_out = draw_pairs(4000, 400, seed=0)
    texts = draw_captions(6400, seed=0)
    words = Words(tuple(sorted({word for text in texts for word in text.split()})))
    few = {
        count: [
            train_translator(pairs[:count], held_out, seed, progress=False)[1][-1][1] for seed in range(seeds)
        ]
        for count in (250, 500, 1000, 2000)
    }
    translators = [train_translator(pairs, held_out, seed) for seed in range(seeds)]
    gpts = [train_gpt(texts[:6000], texts[6000:], words, seed) for seed in range(seeds)]
    written = [write_texts(model, words, 200, seed=seed) for seed, (model, _) in enumerate(gpts)]
    curves = {
        "translator": _curves([curve for _, curve in translators]),
        "few_sentences": few | {len(pairs): [curve[-1][1] for _, curve in translators]},
        "gpt": _curves([curve for _, curve in gpts]),
        "gpt_makes_sense": [sum(map(makes_sense, texts)) / len(texts) for texts in written],
        "gpt_new": [len(set(texts_) - set(texts)) / len(texts_) for texts_ in written],
        "map": alignment(translators[0][0], "the small red star does not follow three blue squares"),
    }
    write_whole(path, json.dumps(curves, indent=1).encode())


def _curves(curves: Sequence[Curve]) -> dict:
    return {
        "steps": [step for step, _ in curves[0]],
        "values": [[round(value, 4) for _, value in curve] for curve in curves],
    }


def alignment(model: EncoderDecoder, sentence: str) -> dict:
    """A translation, and where the last layer looked while writing each of its words, averaged over heads.

    Returns `english` and `luma` (the words) and `weights`, a row for each word of Luma.
    """
    source = ENGLISH.encode([sentence])
    (written,) = translate(model, [sentence])
    target = LUMA.encode([written])
    weights = model.cross_weights(source, shift_right(target, BEGIN), source != PAD)[-1, 0].mean(0)
    rows = [[round(float(weight), 3) for weight in row] for row in weights]
    return {"english": [*sentence.split(), "<end>"], "luma": [*written.split(), "<end>"], "weights": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference curves of chapter 04.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/04_languages.json"))
    record(parser.parse_args().out)
