"""The trainings of chapter 10: their clips, what is told, one short run, and the shipped runs."""

import json
from itertools import product

import numpy as np
import pytest
import torch

from sora_edu.assets import data_path
from sora_edu.data.judge import judge
from sora_edu.data.world import Thing
from sora_edu.sora import to_uint8
from sora_edu.teach.video_dit_figures import gravities, read_as_asked, unsteady
from sora_edu.train import motions
from sora_edu.train.motions import ATTENTIONS, LATENT, SAMPLES, WORDS, centred_clip, draw_clips, told

RUNS = json.loads(data_path("curves", "10_motions.json").read_text())


@pytest.fixture(scope="module")
def films():
    return draw_clips(48, seed=3)


def test_clips_repeat_show_what_is_told_and_are_centred(films):
    assert films.latents.shape == (48, *LATENT)
    again = draw_clips(48, seed=3)
    assert again.scenes == films.scenes and torch.equal(again.latents, films.latents)
    assert not torch.equal(draw_clips(48, seed=4).latents, films.latents)
    for scene, y in zip(films.scenes[:12], films.told, strict=False):
        thing = scene.things[0]
        assert {WORDS[k] for k in y[0].nonzero()[:, 0]} == {thing.colour, thing.shape, thing.motion}
        reading = judge(centred_clip(scene))
        assert reading.matches(scene)
        track = reading.things[0]
        assert abs((track.x.min() + track.x.max()) / 2 - 0.5) < 0.03
        if thing.motion.startswith("moves"):
            assert abs((track.y.min() + track.y.max()) / 2 - 0.5) < 0.03


def test_nothing_that_is_held_out_is_shown():
    every = motions.things()
    assert not any(thing.held_out for thing in every)
    left_out = set(product(motions.SHOWN_COLOURS, motions.SHAPES, motions.MOTIONS))
    left_out -= {(t.colour, t.shape, t.motion) for t in every}
    assert left_out and all(Thing(s, c, "large", m).held_out for c, s, m in left_out)
    assert sorted(every[k].motion for k in SAMPLES) == sorted(motions.MOTIONS)


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="'orbits' is none of the words"):
        told([Thing("circle", "red", "large", "orbits")])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_run_repeats_and_learns(films, attention):
    runs = [motions.train(attention, 0, films, films, steps=12) for _ in range(2)]
    (first, curve), (second, again) = runs
    assert curve["loss"] == again["loss"] and len(curve["loss"]) == 11
    assert curve["steps"] == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert curve["loss"][-2] < 0.95 * curve["loss"][0]
    made = motions.draw(first, films.told[:2], steps=2)
    assert made.shape == (2, 3, 9, 32, 32) and torch.equal(made, motions.draw(first, films.told[:2], steps=2))


def test_an_untrained_network_loses_the_spread_of_the_velocity(films):
    """It says 0, so that its loss is the mean square of noise and data."""
    network = motions.VideoDiT(motions.make_config())
    expected = 1 + films.latents.square().mean().item()
    assert motions.held_loss(network, films) == pytest.approx(expected, rel=0.02)


def test_real_clips_are_read_right(films):
    readings = motions.real_readings(films)
    assert motions.shares(readings, films.scenes)["all"] > 0.95
    wrong = [films.scenes[1]] * len(readings)
    assert motions.shares(readings, wrong)["all"] < 0.1
    assert [path["motion"] for path in motions.paths(readings[:4])] == [
        scene.things[0].motion for scene in films.scenes[:4]
    ]


def test_a_kept_clip_is_that_clip():
    clip = to_uint8(torch.rand(1, 3, 9, 32, 32) * 2 - 1)[0]
    assert np.array_equal(motions.clip_from_text(motions.clip_to_text(clip)), clip)


def test_a_recording_goes_on_where_it_stopped(tmp_path, monkeypatch, films):
    monkeypatch.setattr(motions, "known_clips", lambda: films)
    monkeypatch.setattr(motions, "fresh_clips", lambda: films)
    path = tmp_path / "runs.json"
    motions.record(path, seeds=1, steps=10)
    first = json.loads(path.read_text())
    motions.record(path, seeds=1, steps=10)
    assert json.loads(path.read_text()) == first  # nothing is trained twice
    for attention in ATTENTIONS:
        run = first[attention]
        assert np.array(run["loss"]).shape == (1, 11) and len(run["tracks"][0]) == len(films.scenes)
        assert len(run["samples"]) == len(SAMPLES)


def test_the_shipped_runs_are_whole():
    assert RUNS["settings"]["steps"] == motions.STEPS and RUNS["real"]["shares"]["all"] > 0.95
    joint, factorised = (RUNS[attention] for attention in ATTENTIONS)
    assert joint["parameters"] == factorised["parameters"] and joint["macs"] > factorised["macs"]
    for run in (joint, factorised):
        assert len(run["loss"]) == len(run["seconds"]) == len(run["shares"]) == len(run["tracks"]) == 3
        assert all(loss[-1] < 0.15 * loss[0] for loss in run["loss"])
        assert all(share["all"] > 0.8 for share in run["shares"])
        assert [motions.clip_from_text(text).shape for text in run["samples"]] == [(9, 32, 32, 3)] * 4
    lost, won = ([loss[-1] for loss in run["loss"]] for run in (joint, factorised))
    assert max(won) < min(lost)  # factorised is not worse, with any of the seeds
    assert max(run["shares"][k]["all"] for run in (joint, factorised) for k in range(3)) < 0.95


def test_the_shipped_runs_fall_with_the_right_gravity_on_average_alone():
    """What the chapter says: each clip that falls has a gravity of its own; constant speed is kept better."""
    for run in (RUNS[attention] for attention in ATTENTIONS):
        found = [g for tracks in run["tracks"] for g in gravities(tracks)]
        read = {motion: read_as_asked(run["tracks"], motion) for motion in motions.MOTIONS}
        assert 0.3 < read.pop("falls") < 0.6 and min(read.values()) > 0.95
        assert len(found) > 10 and abs(np.median(found) - 1) < 0.2
        assert np.mean([abs(g - 1) <= 0.05 for g in found]) < 0.4
        assert np.mean([a <= 0.1 for tracks in run["tracks"] for a in unsteady(tracks)]) > 0.7
    real = gravities(RUNS["real"]["tracks"])
    assert np.mean([abs(g - 1) <= 0.15 for g in real]) > 0.8
    assert max(unsteady(RUNS["real"]["tracks"])) < 0.1
