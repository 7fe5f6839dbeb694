"""The trainings of chapter 05: vision transformers that read digits, and a feature map that is attended to.

- `train_classifier`: any model of pictures, with a curve of its share of right answers;
- `pretrain`, `fine_tune`: learn on many printed digits, go on with a few handwritten ones;
- `noisy_pictures`: a digit somewhere in a field of noise, for attention on a feature map.

    python -m sora_edu.train.recognising      writes data/curves/05_vit.json, the reference curves
"""

import argparse
import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sora_edu.data.digits import CLASSES, SIDE, digits
from sora_edu.data.printed import printed_digits
from sora_edu.files import write_whole
from sora_edu.patches import shuffle_patches, unpatchify
from sora_edu.vit import CNNWithAttention, ViT, ViTConfig, attention_rollout

DIGIT_VIT = ViTConfig(
    image=(8, 8), patch=2, channels=1, classes=10,
    width=64, depth=3, heads=4, hidden=128, position_spread=0.3,
)  # fmt: skip
"""The chapter's model: 16 patches of 2 by 2 pixels."""

BATCH, RATE = 64, 3e-3

Labelled = tuple[Tensor, Tensor]
"""Pictures "b c h w" and their classes " b"."""


def make_vit(seed: int, config: ViTConfig = DIGIT_VIT) -> ViT:
    """A fresh model; the same seed gives the same weights, and the global generator stays as it was."""
    return _seeded(lambda: ViT(config), seed)


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def shifted(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Each picture moved by -1, 0 or 1 pixels along each side, over paper: the same digit, a new picture."""
    b, c, h, w = x.shape
    padded = F.pad(x, (1, 1, 1, 1), value=-1.0)
    dy, dx = torch.randint(3, (2, b, 1), generator=generator)
    rows = (dy + torch.arange(h))[:, None, :, None]
    columns = (dx + torch.arange(w))[:, None, None, :]
    return padded[torch.arange(b)[:, None, None, None], torch.arange(c)[:, None, None], rows, columns]


def unchanged(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Pictures as they are."""
    return x


def share_right(model: nn.Module, labelled: Labelled) -> float:
    """The share of pictures whose class the model names."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        right = (model(labelled[0]).argmax(1) == labelled[1]).float().mean().item()
    model.train(was_training)
    return right


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks as small as these lose more by waiting for a second thread than they gain, above all on a busy
    machine; and their sums come out the same on every number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def train_classifier(
    model: nn.Module,
    train: Labelled,
    test: Labelled,
    *,
    steps: int,
    seed: int = 0,
    rate: float = RATE,
    augment: Callable[[Tensor, torch.Generator], Tensor] = shifted,
    progress: str = "",
) -> list[tuple[int, float]]:
    """Trains a model in place: AdamW, a short warm-up, a linear descent to 0.

    Args:
        model: pictures to scores.
        train: what it learns from; batches of 64, drawn with replacement.
        test: what it is tested on; it is looked at, never learned from.
        steps: optimiser steps.
        seed: of the batches and their changes.
        rate: the highest learning rate.
        augment: what is done to a batch first: `shifted` or `unchanged`.
        progress: a name for the progress bar; "" draws none.

    Returns:
        (step, share right on `test`) at ten points, the start and the end among them.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: min(1, (k + 1) / 40) * (1 - k / steps)
    )
    marks = {round(steps * k / 9) for k in range(10)}
    curve = [(0, share_right(model, test))]
    bar = tqdm(range(1, steps + 1), desc=progress, disable=not progress, mininterval=0.5)
    for step in bar:
        chosen = torch.randint(len(train[0]), (BATCH,), generator=generator)
        loss = F.cross_entropy(model(augment(train[0][chosen], generator)), train[1][chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step in marks:
            curve.append((step, share_right(model, test)))
            bar.set_postfix_str(f"{curve[-1][1]:.1%} right")
    model.eval()
    return curve


# --- pretraining and fine-tuning -------------------------------------------------------------------------

PRETRAINING_STEPS, FINE_TUNING_STEPS = 450, 150


def few(train: Labelled, count: int, seed: int) -> Labelled:
    """`count` pictures, the ten classes as evenly as it goes. Raises ValueError for more than there are."""
    pictures, labels = train
    if not 1 <= count <= len(labels):
        raise ValueError(f"count={count}: must be between 1 and {len(labels)}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = [order[labels[order] == k] for k in range(CLASSES)]
    chosen = torch.stack(list(_in_turn(by_class)))[:count]
    return pictures[chosen], labels[chosen]


def _in_turn(rows: list[Tensor]) -> Iterator[Tensor]:
    """The first of each row, then the second of each, and so on."""
    for place in range(max(map(len, rows))):
        yield from (row[place] for row in rows if place < len(row))


def pretrain(seed: int, steps: int = PRETRAINING_STEPS, progress: str = "") -> tuple[ViT, list]:
    """A ViT that has learned 4,000 printed digits, and its curve on 500 other printed ones."""
    vit = make_vit(seed)
    train, test = printed_digits(4000, seed=1), printed_digits(500, seed=2)
    return vit, train_classifier(vit, train, test, steps=steps, seed=seed, rate=RATE, progress=progress)


def fine_tune(
    start: ViT, train: Labelled, steps: int = FINE_TUNING_STEPS, seed: int = 0, progress: str = ""
) -> tuple[ViT, list]:
    """Goes on from a copy of `start`, under a new head of zeros; its curve on the handwritten test digits."""
    vit = copy.deepcopy(start)
    vit.replace_head(CLASSES)
    test = digits("test")
    return vit, train_classifier(vit, train, test, steps=steps, seed=seed, rate=RATE, progress=progress)


# --- attention on a feature map --------------------------------------------------------------------------

FIELD = 24
"""Height and width of a noisy picture in pixels; the feature map has a cell for every four a side."""


def noisy_pictures(
    labelled: Labelled, seed: int
) -> tuple[Float[Tensor, "b 1 24 24"], Int[Tensor, " b"], Bool[Tensor, "b 36"]]:
    """Each digit somewhere in a field of scattered ink.

    The field is made of other digits whose pixels were thrown about, so that there is as much ink everywhere
    and only its order says where the digit is.

    Returns:
        Pictures, labels, and which cells of the feature map lie on the digit.
    """
    pictures, labels = labelled
    generator = torch.Generator().manual_seed(seed)
    count, tiles = len(labels), (FIELD // SIDE) ** 2
    others = pictures[torch.randint(count, (count, tiles), generator=generator)].flatten(2)
    scattered = others.gather(2, torch.rand(others.shape, generator=generator).argsort(-1))
    field = scattered.view(count, 3, 3, SIDE, SIDE).transpose(2, 3).reshape(count, 1, FIELD, FIELD)
    corners = 4 * torch.randint((FIELD - SIDE) // 4 + 1, (count, 2), generator=generator)
    on = torch.zeros(count, 1, FIELD, FIELD, dtype=torch.bool)
    for k, (top, left) in enumerate(corners.tolist()):
        field[k, 0, top : top + SIDE, left : left + SIDE] = pictures[k, 0]
        on[k, 0, top : top + SIDE, left : left + SIDE] = True
    return field, labels, on[:, 0, ::4, ::4].flatten(1)


def make_cnn(seed: int) -> CNNWithAttention:
    """A fresh network with attention on its feature map; the same seed gives the same weights."""
    return _seeded(lambda: CNNWithAttention(1, CLASSES), seed)


# --- the reference curves --------------------------------------------------------------------------------

READING_STEPS, NOISE_STEPS = 1000, 400

ORDERS = 5
"""How many random orders of the patches a shuffled score is the mean of."""

SIZES = (20, 100, 1395)
"""Numbers of handwritten digits to fine-tune on; the last is nearly all, 144 of each or what there is."""


class Misread(nn.Module):
    """The named bug of chapter 05: pixels are grouped as they lie in memory, and not by patch."""

    def forward(self, x: Float[Tensor, "b 1 8 8"]) -> Float[Tensor, "b 1 8 8"]:
        """The picture whose patches are the tokens that `x.reshape(b, n, d)` makes."""
        cells = DIGIT_VIT.patch**2
        return unpatchify(x.reshape(len(x), -1, cells), DIGIT_VIT.patch, DIGIT_VIT.grid)


READERS: dict[str, Callable[[int], nn.Module]] = {
    "learned positions": make_vit,
    "no positions": lambda seed: make_vit(seed, replace(DIGIT_VIT, positions="none")),
    "misread patches": lambda seed: nn.Sequential(Misread(), make_vit(seed)),
}
"""The models that learn to read digits, by name."""


def share_right_shuffled(model: nn.Module, labelled: Labelled) -> float:
    """The share of pictures that are named right when their patches are shuffled; a mean over five orders."""
    pictures, labels = labelled
    shares = []
    for seed in range(ORDERS):
        order = torch.randperm(math.prod(DIGIT_VIT.grid), generator=torch.Generator().manual_seed(seed))
        shares.append(share_right(model, (shuffle_patches(pictures, DIGIT_VIT.patch, order), labels)))
    return sum(shares) / len(shares)


def class_token_rollout(vit: ViT, x: Float[Tensor, "b 1 8 8"]) -> Float[Tensor, "b 4 4"]:
    """How much of each patch reaches the class token; see `sora_edu.vit.attention_rollout`."""
    rolled = attention_rollout(vit.attention_maps(x))[:, 0, 1:]
    return rolled.unflatten(1, vit.config.grid)


def _rounded(values: Tensor | list, digits: int = 4) -> list:
    return [round(float(value), digits) for value in values]


def record_reading(seeds: int) -> dict:
    """Every reader with every seed; and where the class token of the first one looks, for six test digits."""
    train, test, found = digits("train"), digits("test"), {}
    for name, make in READERS.items():
        runs, shuffled = [], []
        for seed in range(seeds):
            model = make(seed)
            runs.append(train_classifier(model, train, test, steps=READING_STEPS, seed=seed, progress=name))
            shuffled.append(share_right_shuffled(model, test))
            if name == "learned positions" and seed == 0:
                shown = [int((test[1] == k).nonzero()[3]) for k in (0, 2, 3, 4, 6, 9)]
                maps = class_token_rollout(model, test[0][shown]).flatten(1)
                found["looks"] = {"test_digits": shown, "maps": [_rounded(row) for row in maps]}
        found[name] = _runs(runs) | {"shuffled": _rounded(shuffled)}
    return found


def _runs(curves: list[list[tuple[int, float]]]) -> dict:
    steps = [step for step, _ in curves[0]]
    return {"steps": steps, "share_right": [_rounded([share for _, share in curve]) for curve in curves]}


def record_fine_tuning(seeds: int) -> dict:
    """Scores on the handwritten test digits by number of training digits, for each start, and each seed."""
    train, pretraining = digits("train"), []
    scores = {"from scratch": [], "from scratch, as many steps in all": [], "pretrained": []}
    for seed in range(seeds):
        pretrained, curve = pretrain(seed, progress="printed digits")
        pretraining.append(curve)
        for name, row in scores.items():
            start = pretrained if name == "pretrained" else make_vit(seed)
            extra = PRETRAINING_STEPS if "in all" in name else 0
            runs = [
                fine_tune(start, few(train, size, seed), FINE_TUNING_STEPS + extra, seed, f"{name}, {size}")
                for size in SIZES
            ]
            row.append(_rounded([curve[-1][1] for _, curve in runs]))
    return {"sizes": SIZES, "printed": _runs(pretraining), "share_right": scores}


def attention_on_digits(cnn: CNNWithAttention, x: Tensor, on: Tensor) -> float:
    """The share of the network's attention that the cells on a digit receive, as a mean over pictures."""
    return (cnn.attended(x) * on).sum(1).mean().item()


def record_noise(seeds: int) -> dict:
    """Attention on a feature map: scores, and its share on the digit before and after training."""
    x, labels, _ = noisy_pictures(digits("train"), seed=0)
    test_x, test_labels, on = noisy_pictures(digits("test"), seed=1)
    curves, before, after = [], [], []
    for seed in range(seeds):
        cnn = make_cnn(seed)
        before.append(attention_on_digits(cnn, test_x, on))
        curves.append(
            train_classifier(
                cnn, (x, labels), (test_x, test_labels), steps=NOISE_STEPS, seed=seed, augment=unchanged,
                progress="a digit in noise",
            )
        )  # fmt: skip
        after.append(attention_on_digits(cnn, test_x, on))
    return _runs(curves) | {"before": _rounded(before), "after": _rounded(after)}


PARTS: dict[str, Callable[[int], dict]] = {
    "noise": record_noise,
    "fine_tuning": record_fine_tuning,
    "reading": record_reading,
}
"""The trainings of the chapter, by the name under which their results are kept."""


def record(path: Path, parts: Sequence[str] = tuple(PARTS), seeds: int = 3) -> None:
    """Runs trainings with several seeds and writes what came out; results of other parts stay."""
    for part in parts:
        found = PARTS[part](seeds)
        known = json.loads(path.read_text()) if path.exists() else {}
        write_whole(path, (json.dumps(known | {part: found}, indent=1) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference curves of chapter 05.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/05_vit.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    record(options.out, options.parts)
