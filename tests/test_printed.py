"""Printed digits: right labels, the format of the handwritten ones, and chance from the seed alone."""

import pytest
import torch

from sora_edu.data.digits import digits
from sora_edu.data.printed import printed_digits


def test_they_have_the_format_of_handwritten_digits():
    pictures, labels = printed_digits(30, seed=0)
    handwritten, _ = digits("test")
    assert pictures.shape[1:] == handwritten.shape[1:] and pictures.dtype == handwritten.dtype
    assert pictures.min() >= -1 and pictures.max() <= 1
    assert labels.tolist() == [*range(10)] * 3
    ink = (pictures.mean().item() + 1) / 2, (handwritten.mean().item() + 1) / 2
    assert abs(ink[0] - ink[1]) < 0.1  # neither paler nor bolder by much


def test_the_seed_alone_decides():
    state = torch.get_rng_state()
    first, again, other = (printed_digits(20, seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_labels_say_what_is_drawn():
    """Nearest neighbours among other drawings, a reader that needs no training, agree with the labels."""
    known, known_labels = printed_digits(1000, seed=1)
    asked, labels = printed_digits(200, seed=2)
    nearest = torch.cdist(asked.flatten(1), known.flatten(1)).argmin(1)
    assert (known_labels[nearest] == labels).float().mean() > 0.95


def test_an_impossible_count_is_explained():
    with pytest.raises(ValueError, match="count=0: must be at least 1"):
        printed_digits(0, seed=0)
