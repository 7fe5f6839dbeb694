"""The trainings of chapter 05: their data, that they repeat, and that the shipped curves say what is said."""

import json

import numpy as np
import pytest
import torch

from sora_edu.assets import data_path
from sora_edu.data.digits import digits
from sora_edu.patches import patchify
from sora_edu.train import recognising
from sora_edu.train.recognising import (
    DIGIT_VIT,
    Misread,
    attention_on_digits,
    class_token_rollout,
    few,
    fine_tune,
    make_cnn,
    make_vit,
    noisy_pictures,
    record,
    share_right,
    share_right_shuffled,
    shifted,
    train_classifier,
)

TEST = digits("test")


def test_shifts_move_each_picture_by_at_most_a_pixel():
    x = TEST[0][:50]
    moved = shifted(x, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-1.0)
    ways = [padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    found = [[torch.equal(one, way[k]) for way in ways].index(True) for k, one in enumerate(moved)]
    assert set(found) == set(range(9))


def test_a_few_digits_are_shared_out_evenly():
    pictures, labels = few(TEST, 23, seed=0)
    assert len(pictures) == 23
    assert sorted(labels.bincount().tolist()) == [2] * 7 + [3] * 3
    assert torch.equal(few(TEST, 20, seed=0)[1], labels[:20])
    assert torch.equal(few(TEST, len(TEST[1]), seed=1)[1].bincount(), TEST[1].bincount())
    with pytest.raises(ValueError, match="count=360: must be between 1 and 359"):
        few(TEST, 360, seed=0)


def test_noisy_pictures_hold_the_digit_and_as_much_ink_everywhere():
    x, labels, on = noisy_pictures(TEST, seed=0)
    assert torch.equal(labels, TEST[1])
    assert on.sum(1).unique().tolist() == [4]
    for k in range(20):
        rows, columns = on[k].view(6, 6).nonzero().min(0).values.mul(4).tolist()
        assert torch.equal(x[k, :, rows : rows + 8, columns : columns + 8], TEST[0][k])
    cells = torch.nn.functional.avg_pool2d(x, 4).flatten(1)
    assert abs(cells[on].mean() - cells[~on].mean()) < 0.05


def test_attention_on_digits_is_a_share():
    x, _, on = noisy_pictures((TEST[0][:20], TEST[1][:20]), seed=0)
    cnn = make_cnn(0)
    assert attention_on_digits(cnn, x, torch.ones_like(on)) == pytest.approx(1)
    parts = attention_on_digits(cnn, x, on) + attention_on_digits(cnn, x, ~on)
    assert parts == pytest.approx(1)


def test_the_bug_makes_the_tokens_that_one_reshape_makes():
    x = TEST[0][:4]
    assert torch.equal(patchify(Misread()(x), 2), x.reshape(4, 16, 4))


def test_shuffling_does_nothing_to_a_model_that_sees_a_bag():
    few_digits = (TEST[0][:60], TEST[1][:60])
    blind = recognising.READERS["no positions"](0)
    assert share_right_shuffled(blind, few_digits) == pytest.approx(share_right(blind, few_digits))


def test_the_class_tokens_rollout_is_what_the_patches_give():
    maps = class_token_rollout(make_vit(0), TEST[0][:3])
    assert maps.shape == (3, 4, 4)
    assert bool((maps > 0).all()) and bool((maps.sum((1, 2)) < 1).all())  # the rest is the token's own


def test_training_repeats_exactly_and_leaves_the_generator_alone():
    state, runs = torch.get_rng_state(), []
    for _ in range(2):
        vit = make_vit(3)
        curve = train_classifier(vit, TEST, TEST, steps=12, seed=3)
        runs.append((curve, [weight.clone() for weight in vit.parameters()]))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert [step for step, _ in runs[0][0]][:: len(runs[0][0]) - 1] == [0, 12]
    assert share_right(vit, TEST) == runs[0][0][-1][1]


def test_fine_tuning_leaves_the_start_as_it_was():
    start = make_vit(0)
    before = [weight.clone() for weight in start.parameters()]
    tuned, curve = fine_tune(start, few(TEST, 20, 0), steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, start.parameters(), strict=True))
    assert curve[0] == (0, pytest.approx((TEST[1] == 0).float().mean().item()))  # zeros name class 0
    assert tuned.head.weight.abs().max() > 0


def test_recording_a_part_keeps_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(recognising, "PARTS", {"noise": lambda seeds: {"seeds": seeds}})
    path = tmp_path / "curves.json"
    path.write_text('{"reading": 1}')
    record(path, ["noise"], seeds=2)
    assert json.loads(path.read_text()) == {"reading": 1, "noise": {"seeds": 2}}


def test_a_short_recording_has_every_part(tmp_path, monkeypatch):
    for name in ("READING_STEPS", "NOISE_STEPS", "PRETRAINING_STEPS", "FINE_TUNING_STEPS"):
        monkeypatch.setattr(recognising, name, 2)
    monkeypatch.setattr(recognising, "SIZES", (20, 30))
    path = tmp_path / "curves.json"
    record(path, seeds=1)
    kept, shipped = json.loads(path.read_text()), _shipped()
    assert kept.keys() == shipped.keys()
    assert all(kept[part].keys() == shipped[part].keys() for part in kept)


def _shipped() -> dict:
    return json.loads(data_path("curves", "05_vit.json").read_text())


def test_the_shipped_curves_bear_out_what_the_chapter_says():
    kept = _shipped()
    reading, tuning, noise = kept["reading"], kept["fine_tuning"], kept["noise"]
    ends = {name: [run[-1] for run in reading[name]["share_right"]] for name in recognising.READERS}
    assert all(len(runs) == 3 for runs in ends.values())
    assert min(ends["learned positions"]) >= 0.97
    assert max(ends["no positions"]) < min(ends["learned positions"])
    blind = reading["no positions"]["shuffled"]
    assert np.allclose(blind, ends["no positions"], atol=0.003)  # a digit on the edge may tip by rounding
    assert max(reading["learned positions"]["shuffled"]) < 0.5
    scores = {name: np.array(runs) for name, runs in tuning["share_right"].items()}
    for name in ("from scratch", "from scratch, as many steps in all"):
        assert (scores["pretrained"][:, 0] > scores[name][:, 0]).all()
    assert max(noise["before"]) < 0.2 < 0.8 < min(noise["after"])
    assert len(reading["looks"]["maps"]) == len(reading["looks"]["test_digits"])
    assert len(reading["looks"]["maps"][0]) == DIGIT_VIT.tokens - 1
