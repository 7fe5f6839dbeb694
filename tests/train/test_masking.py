"""The trainings of chapter 08: equal budgets, equal batches, that they repeat, and what the curves say."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sora_edu.assets import data_path
from sora_edu.diffusion import add_noise, velocity
from sora_edu.masked_dit import MaskedDiTConfig
from sora_edu.teach.masked_figures import class_names, errors_left
from sora_edu.train import masking
from sora_edu.train.conditioning import Examples
from sora_edu.train.masking import (
    PICTURE_MDT,
    WAYS,
    equal_steps,
    make_mdt,
    record,
    sample,
    shown_classes,
    step_cost,
    training_loss,
    validation_losses,
)
from sora_edu.train.pictures import framed_pictures

TINY = replace(PICTURE_MDT, width=16, depth=2, heads=2)


@pytest.fixture
def tiny(monkeypatch):
    """Everything, but small: no judgement about it holds for the chapter's model."""
    for name, value in {"PICTURE_MDT": TINY, "TRAINING_PICTURES": 40, "VALIDATION_PICTURES": 16}.items():
        monkeypatch.setattr(masking, name, value)
    monkeypatch.setattr(masking, "make_mdt", lambda seed: make_mdt(seed, TINY))
    for name, value in {"SAMPLES": 24, "SAMPLING_STEPS": 2, "SHOWN": 3, "BATCH": 4}.items():
        monkeypatch.setattr(masking, name, value)


@pytest.fixture
def known(generator):
    latents = torch.randn(30, 4, 8, 8, generator=generator)
    return Examples(framed_pictures(30, 9), latents, {"class": torch.arange(30)})


def test_budgets_are_equal_within_one_per_cent():
    for steps in (150, 300, 1000):
        ratio = equal_steps(steps) * step_cost(PICTURE_MDT, False) / (steps * step_cost(PICTURE_MDT, True))
        assert abs(ratio - 1) < 0.01
    assert 1.5 < step_cost(PICTURE_MDT, True) / step_cost(PICTURE_MDT, False) < 2


def test_both_ways_of_training_see_the_same_batches(known):
    """The full pass of the first masked step has the loss of the first plain step."""
    model, seen = make_mdt(0, TINY), {}
    for masked in (False, True):
        calls = []
        model.register_forward_pre_hook(lambda module, given, calls=calls: calls.append(given))
        training_loss(model, known, masked, batch=5)(torch.Generator().manual_seed(3))
        seen[masked] = calls[0]
    assert all(torch.equal(a, b) for a, b in zip(seen[False], seen[True], strict=True))


def test_the_masked_loss_of_a_fresh_model_is_twice_the_plain_one(known):
    """A fresh model answers 0 in both passes, so that each term is the mean square of the target."""
    model = make_mdt(0, TINY)
    plain, masked = (
        training_loss(model, known, masked, batch=5)(torch.Generator().manual_seed(3))
        for masked in (False, True)
    )
    torch.testing.assert_close(masked, 2 * plain)


def test_the_plain_loss_is_that_of_the_flow(known):
    model, generator = make_mdt(0, TINY), torch.Generator().manual_seed(3)
    torch.nn.init.normal_(model.final.weight)
    found = training_loss(model, known, False, batch=5)(torch.Generator().manual_seed(3))
    chosen = torch.randint(30, (5,), generator=generator)
    x0, y = known.latents[chosen], known.told["class"][chosen]
    noise, t = (
        torch.randn(x0.shape, generator=generator),
        (masking.TIME_MEAN + torch.randn(5, generator=generator)).sigmoid(),
    )
    dropped = torch.rand(5, generator=generator) < TINY.label_dropout
    said = model(add_noise(x0, noise, t), t, y.masked_fill(dropped, TINY.classes), dropped=dropped)
    torch.testing.assert_close(found, F.mse_loss(said, velocity(x0, noise)))


def test_training_repeats_exactly_and_leaves_the_generator_alone(tiny):
    masking.examples(masking.TRAINING_PICTURES, 0)  # the first call makes an autoencoder
    state = torch.get_rng_state()
    first, second = (masking.train_mdt(1, True, steps=3) for _ in range(2))
    assert first[1] == second[1]
    assert all(torch.equal(a, b) for a, b in zip(first[0].parameters(), second[0].parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_follow_seed_and_class(tiny):
    model = make_mdt(0, TINY).eval()
    torch.nn.init.normal_(model.final.weight)
    y = torch.tensor([0, 0, 5])
    first = sample(model, y, seed=0)
    assert first.shape == (3, 4, 8, 8)
    assert torch.equal(first, sample(model, y, seed=0))
    assert not torch.equal(first, sample(model, y, seed=1))


def test_validation_is_the_same_for_every_model(tiny):
    found = validation_losses(make_mdt(0, TINY).eval())
    assert found == validation_losses(make_mdt(1, TINY).eval())  # both answer 0 to the same questions
    assert found["full"] == pytest.approx(0.6 * found["kept"] + 0.4 * found["hidden"], rel=0.02)


def test_classes_are_named_by_colour_and_shape():
    assert len(set(class_names(torch.arange(PICTURE_MDT.classes)))) == PICTURE_MDT.classes
    drawn = framed_pictures(20, 4)
    for name, caption in zip(class_names(masking.class_of(drawn)), drawn.captions, strict=True):
        assert name in caption


def test_what_a_neighbour_is_worth_is_gaussian_conditioning():
    """Against numpy's inverse of the covariance of what is seen."""
    for t in (0.1, 0.5, 0.9):
        prior = np.array([[1, 0.8], [0.8, 1]])
        seen = (1 - t) ** 2 * prior + t**2 * np.eye(2)
        shared = (1 - t) * prior[0]
        left = errors_left(torch.tensor([t], dtype=torch.float64), 0.8)
        assert left["both"].item() == pytest.approx(1 - shared @ np.linalg.inv(seen) @ shared)
        assert left["own"].item() == pytest.approx(1 - shared[0] ** 2 / seen[0, 0])
        assert left["other"].item() == pytest.approx(1 - shared[1] ** 2 / seen[1, 1])


def test_a_short_recording_has_every_part(tiny, tmp_path):
    path = tmp_path / "curves.json"
    record(path, seeds=1, steps=2)
    kept, shipped = json.loads(path.read_text()), _shipped()
    assert kept.keys() == shipped.keys() and kept["runs"].keys() == shipped["runs"].keys()
    for way in WAYS:
        assert kept["runs"][way]["0"].keys() == shipped["runs"][way]["0"].keys()


def test_the_shipped_runs_bear_out_what_the_chapter_says():
    kept = _shipped()
    ends = {
        way: {
            what: [run[what] for run in runs.values()]
            for what in ("full", "hidden", "read_as_asked", "frechet")
        }
        for way, runs in kept["runs"].items()
    }
    masked, same, more = (ends[way] for way in WAYS)
    for what in ("full", "read_as_asked", "frechet"):  # neither is ahead in every seed
        assert len({a < b for a, b in zip(masked[what], same[what], strict=True)}) == 2
    assert max(more["full"]) < 0.8 * min(masked["full"])
    assert max(more["frechet"]) < min(masked["frechet"])
    assert min(more["read_as_asked"]) >= max(masked["read_as_asked"])
    assert max(masked["hidden"]) < kept["silent"] < min(same["hidden"] + more["hidden"])


def _shipped() -> dict:
    return json.loads(data_path("curves", "08_masking.json").read_text())


def test_the_shipped_runs_are_three_of_each_on_equal_budgets():
    runs = _shipped()["runs"]
    assert set(runs) == set(WAYS)
    assert all(set(runs[way]) == {"0", "1", "2"} for way in WAYS)
    masked, compute = runs["masked"]["0"], runs["plain, as much compute"]["0"]
    assert abs(compute["macs"] / masked["macs"] - 1) < 0.01
    assert runs["plain, as many steps"]["0"]["steps"] == masked["steps"] == masking.STEPS
    assert compute["steps"] == equal_steps(masking.STEPS)
    assert masked["macs"] == masking.STEPS * masking.BATCH * 3 * step_cost(PICTURE_MDT, True)
    assert len(masked["samples"]) == len(shown_classes()) == masking.SHOWN
    assert isinstance(PICTURE_MDT, MaskedDiTConfig)
