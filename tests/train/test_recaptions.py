"""The comparison of captions in chapter 12: what each kind says, how answers are counted, the runs."""

import json

import pytest
import torch

from sora_edu.assets import data_path
from sora_edu.data.world import parse
from sora_edu.train import recaptions
from sora_edu.train.conditioning import ToldDiT, examples, make_config
from sora_edu.train.recaptions import (
    ATTRIBUTES,
    KINDS,
    answers,
    by_chance,
    captioned,
    captions,
    learn,
    named,
    record,
)

RUNS = json.loads(data_path("curves", "12_captions.json").read_text())


def said(text: str) -> set[str]:
    """What the parser, which knows nothing of how captions are made, reads in one."""
    scene = parse(text)
    thing = scene.things[0]
    found = {"colour": thing.colour, "shape": thing.shape, "ground": scene.background, "size": thing.size}
    return {name for name, value in found.items() if value is not None}


def test_short_captions_name_one_thing_and_long_ones_everything():
    for text, name in zip(captions("short", 60, 0), named(60, 0), strict=True):
        assert said(text) == {name}
    for text in captions("long", 60, 0):
        assert said(text) == {*ATTRIBUTES, "size"}
    assert set(named(60, 0)) == set(ATTRIBUTES)


def test_captions_are_true():
    stills = examples(60, 0).stills
    for kind in KINDS:
        for i, text in enumerate(captions(kind, 60, 0)):
            scene = parse(text)
            truth = parse(stills.captions[i])
            for name in ("colour", "shape"):
                assert getattr(scene.things[0], name) in (None, getattr(truth.things[0], name))
            assert scene.background in (None, truth.background)


def test_mixed_captions_are_long_but_for_one_in_twenty():
    short, long, mixed = (captions(kind, 600, 0) for kind in KINDS)
    taken = [m == s for m, s in zip(mixed, short, strict=True)]
    assert all(m in (s, other) for m, s, other in zip(mixed, short, long, strict=True))
    assert 0.02 < sum(taken) / 600 < 0.09


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="kind='alt'"):
        captions("alt", 4, 0)


def test_answers_count_what_was_asked_for(monkeypatch):
    """A network that draws the test pictures themselves is right wherever the reader is."""
    monkeypatch.setattr(recaptions, "ASKED", 40)
    real = captioned("long", 40, recaptions.TEST_SEED).latents
    monkeypatch.setattr(recaptions, "draw", lambda network, y: real)
    network = ToldDiT(make_config("cross_attention", "caption"))
    shares, made = answers(network)
    assert torch.equal(made, real)
    assert set(shares) == {"short", "expanded", "long", *ATTRIBUTES} and min(shares.values()) > 0.9
    monkeypatch.setattr(recaptions, "draw", lambda network, y: real.roll(1, 0))
    wrong, _ = answers(network)
    assert wrong["long"] < 0.2 and wrong["short"] == wrong["expanded"] < 0.6


def test_chance_is_that_of_the_lists():
    found = by_chance()
    assert found["long"] == pytest.approx(1 / 8 / 6 / 2) and found["ground"] == 0.5
    assert 1 / 8 < found["short"] == found["expanded"] < 1 / 2


def test_a_short_recording_can_be_read_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(recaptions, "ASKED", 8)
    monkeypatch.setattr(recaptions, "learn", lambda kind, seed, steps, progress: learn(kind, seed, 12, 40))
    path = tmp_path / "captions.json"
    record(path, seeds=1, steps=12)
    first = json.loads(path.read_text())
    assert set(first["runs"]) == set(KINDS) == set(first["samples"])
    assert all(len(values) == 1 for run in first["runs"].values() for values in run.values())
    record(path, seeds=1, steps=12)
    assert json.loads(path.read_text()) == first


def test_the_shipped_runs_say_what_the_chapter_says():
    assert set(RUNS["runs"]) == set(KINDS) and RUNS["real"] > 0.95
    chance, mean = by_chance(), {}
    for kind, run in RUNS["runs"].items():
        assert all(len(values) == 3 for values in run.values())
        mean[kind] = {name: sum(values) / 3 for name, values in run.items()}
    for kind in KINDS:
        assert all(mean[kind][name] > chance[name] for name in ("short", "long"))
    # Who never heard long captions does not follow them, and only who did gains from writing prompts out.
    assert min(RUNS["runs"]["long"]["long"]) > 2 * max(RUNS["runs"]["short"]["long"])
    assert min(RUNS["runs"]["long"]["expanded"]) > max(RUNS["runs"]["long"]["short"])
    assert max(RUNS["runs"]["short"]["expanded"]) < min(RUNS["runs"]["short"]["short"])
