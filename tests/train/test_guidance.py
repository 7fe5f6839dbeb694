"""The measurements of chapter 12 on tiny Sora: what they count, on clips whose truth is known."""

import json
import math

import pytest
import torch
from torch import nn

from sora_edu.assets import data_path
from sora_edu.clip import tiny_clip
from sora_edu.data import world
from sora_edu.sora import Sora
from sora_edu.train.guidance import SCALES, Measured, best_of, measure, ranking, real_clips, spread, sweep

KEPT = json.loads(data_path("curves", "12_guidance.json").read_text())


def found(right, scores):
    right, scores = torch.tensor(right), torch.tensor(scores)
    return Measured(right, scores, torch.zeros(*scores.shape, 3), 1.0)


def test_the_best_of_some_is_the_one_with_the_highest_score():
    right = [[True, False, False, True], [False, False, True, False]]
    scores = [[0.1, 0.9, 0.2, 0.3], [0.5, 0.4, 0.8, 0.1]]
    measured = found(right, scores)
    assert best_of(measured, 1).tolist() == right
    assert best_of(measured, 2).tolist() == [[False, True], [False, True]]
    assert best_of(measured, 4).tolist() == [[False], [True]]


def test_spread_is_the_deviation_within_prompts_whatever_lies_between_them():
    features = torch.randn(200, 50, 4, generator=torch.Generator().manual_seed(0))
    far = features + 100 * torch.arange(200.0)[:, None, None]
    assert spread(features) == pytest.approx(2, abs=0.05)  # four axes of variance 1
    assert spread(far) == pytest.approx(spread(features), rel=1e-3)
    assert spread(features[:, :1].expand(-1, 50, -1)) == pytest.approx(0, abs=1e-6)


class Renders(Sora):
    """Makes real clips; with guidance above 2, one and the same of each prompt."""

    def __init__(self):
        nn.Module.__init__(self)
        self.autoencoder = Sora.from_pretrained("tiny").autoencoder

    def sample(self, prompts, seeds, guidance=1.0):
        return real_clips(prompts, [0 if guidance > 2 else seed for seed in seeds])


def test_real_clips_are_right_and_a_mode_that_has_collapsed_shows_in_the_spread():
    report = sweep(Renders(), tiny_clip(), scales=(1.0, 5.0), prompts=3)
    open_, collapsed = report["scales"]
    assert report["real"]["spread"] == report["real"]["contrast"] == 1
    assert open_["adherence"]["value"] >= 0.9 and open_["spread"] == pytest.approx(1, abs=0.01)
    assert collapsed["spread"] == pytest.approx(0, abs=0.05) and collapsed["adherence"]["value"] >= 0.6
    assert open_["score"] > 0.5


def test_ranking_prefers_the_clip_that_shows_the_prompt():
    """One clip of four is of the prompt, the others are of other prompts."""
    prompts = [entry.prompt for entry in world.evaluation_set("seen", 60, 99)]

    class Mostly(Renders):
        def sample(self, asked, seeds, guidance=1.0):
            shown = [p if s == 2 else prompts[7 * s + len(p) % 7] for p, s in zip(asked, seeds, strict=True)]
            return real_clips(shown, seeds)

    report = ranking(Mostly(), tiny_clip(), prompts=6)
    assert [row["n"] for row in report["best_of"]] == [1, 2, 4]
    one, _, four = report["best_of"]
    assert one["chosen"] < 0.5 < four["chosen"] <= four["possible"]
    assert len(report["scores"]) == len(report["right"]) == 24


def test_measuring_goes_prompt_by_prompt():
    asked = []

    def make(prompts, seeds):
        asked.extend(zip(prompts, seeds, strict=True))
        return real_clips(prompts, seeds)

    entries = world.evaluation_set("seen", 2, 0)
    measured = measure(make, entries, Renders(), tiny_clip(), seeds=3)
    assert asked == [(entry.prompt, seed) for entry in entries for seed in range(3)]
    assert measured.right.shape == measured.scores.shape == (2, 3) and measured.features.shape[:2] == (2, 3)


def test_the_shipped_measurements_are_whole():
    sweep_, ranking_ = KEPT["sweep"], KEPT["ranking"]
    assert [row["scale"] for row in sweep_["scales"]] == list(SCALES)
    for row in (*sweep_["scales"], sweep_["real"]):
        n = KEPT["settings"]["prompts"] * KEPT["settings"]["seeds"]
        assert row["adherence"]["n"] == n
        assert all(math.isfinite(row[name]) for name in ("spread", "contrast", "score"))
    assert sweep_["real"]["adherence"]["value"] > 0.9 and sweep_["real"]["spread"] == 1
    for row in ranking_["best_of"]:
        assert 0 <= row["chosen"] <= row["possible"] <= 1
    assert ranking_["best_of"][0]["chosen"] == pytest.approx(
        sum(ranking_["right"]) / len(ranking_["right"]), abs=1e-3
    )
