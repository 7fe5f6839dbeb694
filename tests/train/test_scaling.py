"""The recipe of chapter 13: equal budgets along the ladder, exact repetition, and what its file holds."""

import json

import pytest
import torch

from sora_edu.dit import dit_macs
from sora_edu.train import scaling as recipe
from sora_edu.train.conditioning import Examples, examples, latents_from_text, validation_loss
from sora_edu.train.scaling import (
    BATCH,
    BUDGETS,
    LADDER,
    best_widths,
    make_config,
    mean_losses,
    planned,
    record,
    steps_for,
    train,
)

BASE = 2e8
"""A budget of three or four steps of the smallest network."""


@pytest.fixture(scope="module")
def few() -> Examples:
    return examples(24, 3)


def test_budgets_double_and_every_run_spends_its_own_within_two_percent():
    assert list(BUDGETS) == [2**k for k in range(6)]
    for budget, width in planned():
        spent = 3 * BATCH * dit_macs(make_config(width)) * steps_for(width, budget)
        assert spent == pytest.approx(budget * recipe.BASE, rel=0.02), (budget, width)


def test_each_budget_has_three_widths_and_neighbours_share_two():
    for widths in BUDGETS.values():
        assert len(widths) >= 3 and set(widths) <= set(LADDER)
    for few, more in zip(list(BUDGETS.values()), list(BUDGETS.values())[1:], strict=False):
        assert len(set(few) & set(more)) >= 2


def test_the_ladder_is_closed():
    with pytest.raises(ValueError, match="width=20 is unknown; use one of: 8, 16, 24"):
        make_config(20)


def test_training_repeats_exactly_and_says_what_it_passed_on_the_way(few):
    state, runs = torch.get_rng_state(), []
    for _ in range(2):
        network, found = train(16, 4, 1, few, few, BASE)
        runs.append((found, network.dit.final.weight))
    assert runs[0][0] == runs[1][0] and torch.equal(runs[0][1], runs[1][1])
    assert torch.equal(torch.get_rng_state(), state)
    found = runs[0][0]
    assert set(found["on_the_way"]) == {"1", "2"}
    assert found["curve"][-1][0] == steps_for(16, 4, BASE)
    assert found["loss"] == pytest.approx(validation_loss(network, "class", few), abs=1e-5)
    assert found["loss"] < found["on_the_way"]["2"] < found["on_the_way"]["1"] < 2.3


def test_a_run_of_another_seed_is_another_run(few):
    losses = {train(16, 1, seed, few, few, BASE)[1]["loss"] for seed in (0, 1)}
    assert len(losses) == 2


def test_a_recording_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "VALIDATED", 6)
    monkeypatch.setattr(recipe, "ASKED", 6)
    monkeypatch.setattr(recipe, "BUDGETS", {1: (16, 24), 2: (16,)})
    path, trained = tmp_path / "curves.json", []

    def noted(width, budget, seed, *args):
        trained.append((budget, width, seed))
        return train(width, budget, seed, *args)

    monkeypatch.setattr(recipe, "train", noted)
    record(path, seeds=1, base=BASE, pictures=40)
    first = json.loads(path.read_text())
    record(path, seeds=2, base=BASE, pictures=40)
    assert trained == [(*run, seed) for seed in range(2) for run in ((1, 16), (1, 24), (2, 16))]
    kept = json.loads(path.read_text())
    for budget, width in ((1, 16), (1, 24), (2, 16)):
        part, before = (some["runs"][str(budget)][str(width)] for some in (kept, first))
        assert part["samples"] == before["samples"]
        assert latents_from_text(part["samples"]).shape == (6, 4, 8, 8)
        for name in ("loss", "on_the_way", "colour", "shape", "both", "seconds"):
            assert len(part[name]) == 2 and part[name][0] == before[name][0]
        assert part["steps"] == steps_for(width, budget, BASE)
        assert part["macs"] == dit_macs(make_config(width))


def test_the_best_width_is_that_of_the_smallest_mean():
    kept = {
        "runs": {
            "1": {"16": {"loss": [1.0, 3.0]}, "24": {"loss": [1.8, 1.8]}},
            "2": {"24": {"loss": [1.5, 1.5]}, "16": {"loss": [1.0, 1.2]}},
        }
    }
    assert mean_losses(kept) == {1: {16: 2.0, 24: 1.8}, 2: {16: 1.1, 24: 1.5}}
    assert list(mean_losses(kept)[2]) == [16, 24]
    assert best_widths(kept) == {1: 24, 2: 16}
