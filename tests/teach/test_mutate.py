"""The tool that makes mutants makes the ones that it should, and they run."""

import torch
from mutate import mutants
from torch import Tensor, nn


def sample(x: float, axis: int = -1, *, flag: bool = True) -> float:
    """Adds 1 + 1 here and nowhere else."""
    if x > 1e9:
        raise ValueError(f"x={x}: more than {10**9}")
    total = x * 2.5 + axis
    total -= 3
    return total if flag and x != 4 else abs(-total)


class Sample(nn.Module):
    """A class works too."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sin() + 1


def test_every_place_is_changed_once_and_nothing_else():
    assert {name for name, _ in mutants(sample)} == {
        "-1 -> 1",
        "1 -> 2",
        "True -> False",
        "x * 2.5 + axis -> x * 2.5 - axis",
        "x * 2.5 -> x / 2.5",
        "2.5 -> 6.0",
        "total -= 3 -> total += 3",
        "3 -> 4",
        "flag and x != 4 -> flag or x != 4",
        "x != 4 -> x == 4",
        "4 -> 5",
        "-total -> total",
    }


def test_mutants_behave_as_their_names_say():
    made = dict(mutants(sample))
    assert sample(2.0) == 1.0
    assert made["total -= 3 -> total += 3"](2.0) == 7.0
    assert made["2.5 -> 6.0"](2.0) == 8.0
    assert made["True -> False"](-4.0) == 14.0 == sample(-4.0, flag=False)


def test_classes_are_mutated_method_by_method():
    made = dict(mutants(Sample))
    assert set(made) == {"x.sin -> x.cos", "x.sin() + 1 -> x.sin() - 1", "1 -> 2"}
    assert made["1 -> 2"]()(torch.zeros(1)).item() == 2
    assert made["x.sin -> x.cos"]()(torch.zeros(1)).item() == 2
