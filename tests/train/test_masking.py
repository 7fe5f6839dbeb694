"""The trainings of chapter 08: equal budgets, equal batches, that they repeat, and what the curves say."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import linalg
from torch.nn import functional as F

from sora_edu.assets import data_path
from sora_edu.data.scene import Thing
from sora_edu.diffusion import add_noise, velocity
from sora_edu.masked_dit import MaskedDiTConfig
from sora_edu.teach.masked_figures import errors_left, name_of
from sora_edu.train import masking
from sora_edu.train.masking import (
    PICTURE_MDT,
    WAYS,
    equal_steps,
    frechet,
    make_mdt,
    record,
    sample,
    shown_classes,
    step_cost,
    training_loss,
    validation_losses,
)

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
def latents(generator):
    return torch.randn(30, 4, 8, 8, generator=generator), torch.arange(30) % 16 % 16


def test_budgets_are_equal_within_one_per_cent():
    for steps in (150, 300, 1000):
        ratio = equal_steps(steps) * step_cost(PICTURE_MDT, False) / (steps * step_cost(PICTURE_MDT, True))
        assert abs(ratio - 1) < 0.01
    assert 1.5 < step_cost(PICTURE_MDT, True) / step_cost(PICTURE_MDT, False) < 2


def test_both_ways_of_training_see_the_same_batches(latents):
    """The full pass of the first masked step has the loss of the first plain step."""
    model, seen = make_mdt(0, TINY), {}
    for masked in (False, True):
        calls = []
        model.register_forward_pre_hook(lambda module, given, calls=calls: calls.append(given))
        training_loss(model, latents, masked, batch=5)(torch.Generator().manual_seed(3))
        seen[masked] = calls[0]
    assert all(torch.equal(a, b) for a, b in zip(seen[False], seen[True], strict=True))


def test_the_masked_loss_of_a_fresh_model_is_twice_the_plain_one(latents):
    """A fresh model answers 0 in both passes, so that each term is the mean square of the target."""
    model = make_mdt(0, TINY)
    plain, masked = (
        training_loss(model, latents, masked, batch=5)(torch.Generator().manual_seed(3))
        for masked in (False, True)
    )
    torch.testing.assert_close(masked, 2 * plain)


def test_the_plain_loss_is_that_of_the_flow(latents):
    model, generator = make_mdt(0, TINY), torch.Generator().manual_seed(3)
    torch.nn.init.normal_(model.final.weight)
    found = training_loss(model, latents, False, batch=5)(torch.Generator().manual_seed(3))
    chosen = torch.randint(30, (5,), generator=generator)
    x0, y = latents[0][chosen], latents[1][chosen]
    noise, t = (
        torch.randn(x0.shape, generator=generator),
        (masking.TIME_MEAN + torch.randn(5, generator=generator)).sigmoid(),
    )
    dropped = torch.rand(5, generator=generator) < TINY.label_dropout
    said = model(add_noise(x0, noise, t), t, y.masked_fill(dropped, TINY.classes), dropped=dropped)
    torch.testing.assert_close(found, F.mse_loss(said, velocity(x0, noise)))


def test_training_repeats_exactly_and_leaves_the_generator_alone(tiny):
    masking.picture_latents(masking.TRAINING_PICTURES, 0)  # the first call makes an autoencoder
    state = torch.get_rng_state()
    first, second = (masking.train_mdt(1, True, steps=3) for _ in range(2))
    assert first[1] == second[1]
    assert all(torch.equal(a, b) for a, b in zip(first[0].parameters(), second[0].parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_stills_are_large_dark_and_what_they_are_called():
    pictures, classes = masking.large_stills(60, seed=4)
    assert pictures.shape == (60, 3, 32, 32)
    assert masking.read_names(pictures) == [masking.CLASSES[y] for y in classes]
    assert not any(Thing(shape, colour).held_out for colour, shape in (masking.CLASSES[y] for y in classes))
    assert pictures[:, :, 0, 0].max() < -0.7  # corners are dark
    again = masking.large_stills.__wrapped__(60, 4)
    assert all(torch.equal(a, b) for a, b in zip((pictures, classes), again, strict=True))


def test_latents_come_with_their_mirror_images(tiny):
    latents, classes = masking.picture_latents(20, 4)
    pictures, names = masking.large_stills(20, 4)
    assert torch.equal(classes, names.repeat(2))
    assert (masking.decoded(latents[20:]) - pictures.flip(3)).square().mean() < 0.02


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


def test_the_frechet_distance_is_that_of_scipy(generator):
    a = torch.randn(200, 5, generator=generator)
    b = 1 + torch.randn(150, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_classes_are_named_by_colour_and_shape():
    names = {name_of(y) for y in range(PICTURE_MDT.classes)}
    assert len(names) == PICTURE_MDT.classes
    assert "red cross" in names


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
