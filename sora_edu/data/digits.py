"""Real handwritten digits: the UCI set of 1,797 pictures of 8x8 pixels that ships with scikit-learn."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

SIDE = 8
"""Height and width of a picture in pixels."""

CLASSES = 10
"""How many digits there are."""

SPLITS = ("train", "test")
"""Every fifth picture is for testing, the others for training."""


def digits(split: str) -> tuple[Float[Tensor, "b 1 8 8"], Int[Tensor, " b"]]:
    """Pictures and their labels.

    Args:
        split: "train" or "test".

    Returns:
        Pictures in [-1, 1] (-1 is paper, 1 is ink), and for each the digit that it shows.

    Raises:
        ValueError: another split.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; use one of: {', '.join(SPLITS)}")
    pictures, labels = every_digit()
    test = torch.arange(len(labels)) % 5 == 4
    chosen = test if split == "test" else ~test
    return pictures[chosen], labels[chosen]


@lru_cache(maxsize=1)
def every_digit() -> tuple[Float[Tensor, "n 1 8 8"], Int[Tensor, " n"]]:
    """All pictures and their labels, of both splits, in the order of the file."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = torch.from_numpy(found.images).float()[:, None] / 8 - 1  # 0 to 16 in the file
    return pictures, torch.from_numpy(found.target).long()
