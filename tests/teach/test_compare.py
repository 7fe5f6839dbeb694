"""Results are compared as a teacher would: numbers by value, shapes and kinds strictly, and told in words."""

import math

import numpy as np
import pytest
import torch

from sora_edu.teach.compare import agree, describe, difference, mismatch, size

SAME = [
    (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 1e-6])),
    (torch.tensor([1.0]).double(), torch.tensor([1.0])),
    (torch.tensor([1.0]).bfloat16(), torch.tensor([1.0])),
    (torch.tensor([math.nan, math.inf]), torch.tensor([math.nan, math.inf])),
    (torch.tensor([1 + 2j]), torch.tensor([1 + 2j])),
    (np.array([1, 2]), np.array([1, 2])),
    (2, 2.0),
    (np.float32(0.5), 0.5),
    (torch.tensor(3.0), 3),
    (True, np.True_),
    ((torch.ones(2), 3), [torch.ones(2), 3]),
    ({"a": 1}, {"a": 1}),
    ("a", "a"),
    (None, None),
]
DIFFERENT = [
    (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.001])),
    (torch.tensor([1.0]), torch.tensor([math.nan])),
    (torch.tensor([math.inf]), torch.tensor([-math.inf])),
    (torch.tensor([[1.0]]), torch.tensor([1.0])),
    (torch.tensor([1]), torch.tensor([1.0])),
    (674834465, 674834464),
    (10**30, 10**18),
    (10**30, 1.0),
    (3, 2.0),
    (1, True),
    (True, 1),
    (np.ones(1), torch.ones(1)),
    ((1,), (1, 2)),
    ({"a": 1}, {"b": 1}),
    ("a", "b"),
    (None, 1.0),
    ("1", 1),
]


@pytest.mark.parametrize(("got", "expected"), SAME)
def test_equal_up_to_rounding(got, expected):
    assert mismatch(got, expected) is None and agree(got, expected, 1e-5)


@pytest.mark.parametrize(("got", "expected"), DIFFERENT)
def test_different(got, expected):
    assert not agree(got, expected, 1e-5)


def test_whole_numbers_beyond_64_bits_are_compared_like_real_ones():
    assert agree(6 * 10**20, 6e20, 1e-5) and agree(6 * 10**20, 6 * 10**20, 1e-5)
    assert difference(10**30, 10**18, 1e-5)


def test_odd_arrays_are_told_apart_too():
    mixed = np.array([1, "a", None], dtype=object)
    assert "things that are no numbers" in mismatch(mixed, np.ones(3))
    assert agree(torch.eye(2).to_sparse(), torch.eye(2), 0.0)


def test_the_place_of_a_mismatch_is_given():
    text = mismatch((torch.ones(2), {"k": torch.ones(3)}), (torch.ones(2), {"k": torch.ones(4)}))
    assert text == "part [1]['k'] of the result has shape (3,); (4,) is asked for"
    assert mismatch((1, 2), (1, 2, 3)) == "the result has 2 parts; 3 are asked for"


def test_the_wrong_part_is_shown():
    lines = difference((1.0, torch.tensor([1.0, 2.0])), (1.0, torch.tensor([1.0, 3.0])), 1e-5)
    assert lines == ["part [1] of the result:", "got       [1, 2]", "expected  [1, 3]"]


def test_matrices_are_shown_in_columns():
    lines = difference(torch.tensor([[1.0, -2.5], [10.0, 0.0]]), torch.zeros(2, 2), 1e-5)
    assert lines == [
        "got          1  -2.5",
        "            10     0",
        "expected  0  0",
        "          0  0",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.tensor([[1.0, -0.0], [math.pi, 1e-5]]), "[[1, 0], [3.1416, 1e-05]]"),
        (torch.tensor([1.0, math.pi / 2]).cos(), "[0.5403, 0]"),  # rounding leaves -4.4e-08
        (torch.tensor([1e-9, -2e-9]), "[1e-09, -2e-09]"),
        (torch.tensor([math.inf, math.nan, 1.0]), "[inf, nan, 1]"),
        ({"colour": True, "share": 0.5}, "{'colour': True, 'share': 0.5}"),
        (torch.tensor([True, False]), "[True, False]"),
        (torch.zeros(3, 7), "a real tensor of shape (3, 7)"),
        (np.zeros(17, dtype=int), "a whole-number array of shape (17,)"),
        ((1, "a", None, ...), "(1, 'a', None, ...)"),
        ((1,), "(1,)"),
        ((slice(1, 4), slice(0, 6, 2)), "(slice(1, 4), slice(0, 6, 2))"),
        ([True, 2.5], "[True, 2.5]"),
        (torch.tensor(2.0), "2"),
        (1 + 2j, "1+2j"),
        (math.sin, "the function sin"),
        (dict, "the class dict"),
        (object(), "an object"),
    ],
)
def test_descriptions_are_short_and_the_same_everywhere(value, text):
    assert describe(value) == text


def test_size_orders_cases():
    assert size([torch.zeros(2, 3), 4]) == 10
    assert size({"a": (1.5, "text")}) == 2
