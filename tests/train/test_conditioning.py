"""The comparison of chapter 07: equal budgets, exact repetition, and what the file of results holds."""

import json
from itertools import product

import pytest
import torch

from sora_edu.assets import data_path
from sora_edu.data.captions import VOCABULARY, WORDINGS
from sora_edu.data.world import BACKGROUNDS, COLOURS, SHAPES
from sora_edu.dit import CONDITIONINGS
from sora_edu.text import PAD, Tokenizer
from sora_edu.train import conditioning as recipe
from sora_edu.train.conditioning import (
    LENGTH,
    TOLD,
    Examples,
    ToldDiT,
    describe_run,
    draw,
    latents_from_text,
    latents_to_text,
    macs,
    make_config,
    record,
    shares_read,
    steps_for,
    train,
    validation_loss,
)
from sora_edu.train.pictures import picture_autoencoder


@pytest.fixture(scope="module")
def few() -> Examples:
    return recipe.examples(24, 3)


def test_all_runs_take_the_same_multiply_adds_within_a_percent():
    spent = [steps_for(*run) * macs(*run) for run in product(CONDITIONINGS, TOLD)]
    assert len(spent) == 8
    assert max(spent) < 1.01 * min(spent)
    assert steps_for("adaln", "class") == recipe.STEPS


def test_networks_differ_in_their_conditioning_alone():
    for conditioning, told in product(CONDITIONINGS, TOLD):
        config = make_config(conditioning, told)
        assert (config.width, config.depth, config.patch) == (recipe.WIDTH, recipe.DEPTH, 2)
        assert describe_run(conditioning, told)["parameters"] == sum(
            weight.numel() for weight in ToldDiT(config).dit.parameters()
        )
    with pytest.raises(ValueError, match="told='words' is unknown; use one of: class, caption"):
        make_config("adaln", "words")


def test_examples_are_stills_and_what_is_said_of_them(few):
    stills = few.stills
    said = Tokenizer(VOCABULARY).decode(few.told["caption"])
    assert few.told["caption"].shape == (24, LENGTH)
    for k in range(24):
        colour, shape = list(COLOURS)[stills.colours[k]], SHAPES[stills.shapes[k]]
        ground = BACKGROUNDS[stills.backgrounds[k]]
        assert f"{colour} {shape}" in said[k]
        assert any(word in said[k] for word in WORDINGS["background"][ground])
        assert divmod(few.told["class"][k].item(), len(SHAPES)) == (stills.colours[k], stills.shapes[k])
    torch.testing.assert_close(few.latents, picture_autoencoder().encode(stills.images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_padding_of_captions_changes_nothing(conditioning, few, generator):
    network = ToldDiT(make_config(conditioning, "caption")).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    tokens, mask = network.tokens(few.told["caption"])
    assert torch.equal(mask, few.told["caption"] != PAD) and not mask.all()
    x, t, nobody = few.latents, torch.full((24,), 0.5), torch.zeros(24, dtype=torch.bool)
    out = network(x, t, few.told["caption"], nobody)
    other = network.dit(x, t, torch.where(mask[..., None], tokens, 9.0), mask, nobody)
    torch.testing.assert_close(out, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("told", TOLD)
def test_training_repeats_exactly_and_leaves_the_generator_alone(told, few):
    state, runs = torch.get_rng_state(), []
    for _ in range(2):
        network, curve = train("cross_attention", told, 1, few, few, steps=14)
        runs.append((curve, draw(network, few.told[told][:2], steps=2)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert torch.equal(torch.get_rng_state(), state)
    curve = runs[0][0]
    assert (curve["steps"][0], curve["steps"][-1]) == (0, steps_for("cross_attention", told, 14))
    assert len(curve["steps"]) == len(curve["loss"]) == 11
    assert curve["loss"][-1] < curve["loss"][0] == pytest.approx(2, abs=0.3)  # a fresh one answers 0
    assert validation_loss(network, told, few) == pytest.approx(curve["loss"][-1], abs=1e-4)


def test_real_latents_are_read_as_they_are_and_exchanged_ones_are_not(few):
    read = shares_read(few.latents, few)
    assert read["both"] > 0.9 and read["ground"] == 1
    assert shares_read(few.latents.roll(1, 0), few)["both"] < 0.3


def test_kept_latents_come_back_up_to_rounding(few):
    again = latents_from_text(latents_to_text(few.latents))
    assert again.shape == few.latents.shape
    assert (again - few.latents.clamp(-4, 4)).abs().max() <= 4 / 254 + 1e-6


def test_a_recording_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "ASKED", 6)
    monkeypatch.setattr(recipe, "SAMPLER_STEPS", 2)
    monkeypatch.setattr(recipe, "TOLD", ("class",))
    path, trained = tmp_path / "curves.json", []

    def noted(conditioning, told, seed, *args):
        trained.append((conditioning, told, seed))
        return train(conditioning, told, seed, *args)

    monkeypatch.setattr(recipe, "train", noted)
    record(path, seeds=1, steps=11, pictures=40)
    first = json.loads(path.read_text())
    record(path, seeds=2, steps=11, pictures=40)
    assert trained == [(c, "class", seed) for seed in range(2) for c in (*CONDITIONINGS, "adaln_zero")]
    kept = json.loads(path.read_text())
    assert len(kept["anywhere"]["shape"]) == 2  # the last one of each recording
    for conditioning in CONDITIONINGS:
        part = kept["class"][conditioning]
        assert part["samples"] == first["class"][conditioning]["samples"]
        assert latents_from_text(part["samples"]).shape == (6, 4, 8, 8)
        for name in ("loss", "colour", "shape", "both", "ground"):
            assert len(part[name]) == 2 and part[name][0] == first["class"][conditioning][name][0]
        assert len(part["loss"][0]) == len(part["steps"]) == 11
        assert part["training_steps"] == part["steps"][-1]


def test_the_shipped_runs_bear_out_what_the_chapter_says():
    kept = json.loads(data_path("curves", "07_conditioning.json").read_text())
    assert kept["settings"]["budget_steps"] == recipe.STEPS and kept["real"]["both"] == 1
    parts = [kept[told][name] for told, name in product(TOLD, CONDITIONINGS)] + [kept["anywhere"]]
    assert all(len(part[what]) == 3 for part in parts for what in ("loss", "shape", "ground"))
    ends = {told: {c: [run[-1] for run in kept[told][c]["loss"]] for c in CONDITIONINGS} for told in TOLD}
    for told, last in (("class", "cross_attention"), ("caption", "in_context")):
        for run in zip(*(ends[told][c] for c in CONDITIONINGS), strict=True):
            found = dict(zip(CONDITIONINGS, run, strict=True))
            order = sorted(found, key=found.get)
            assert order[:2] == ["adaln_zero", "adaln"] and order[-1] == last
    shapes = {c: kept["class"][c]["shape"] for c in CONDITIONINGS}
    assert min(shapes["in_context"]) > max(max(shapes[c]) for c in CONDITIONINGS if c != "in_context")
    for c in ("cross_attention", "adaln", "adaln_zero"):
        assert min(kept["caption"][c]["shape"]) > max(shapes[c])
    assert all(0.4 < share < 0.6 for c in CONDITIONINGS for share in kept["class"][c]["ground"])
    assert all(min(kept["caption"][c]["ground"]) > 0.99 for c in CONDITIONINGS)
    assert max(kept["anywhere"]["shape"]) < 0.25 < 0.8 < min(shapes["adaln_zero"])
