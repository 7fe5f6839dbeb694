"""The trainings of chapter 12: pairs, wrong captions that are wrong in one thing, and the shipped run."""

import json
from dataclasses import replace

import pytest
import torch

from sora_edu.assets import data_path
from sora_edu.autoencoder import AutoencoderConfig, CausalVideoAutoencoder
from sora_edu.clip import TinyClip, fingerprint
from sora_edu.data import world
from sora_edu.sora import Sora
from sora_edu.train import clip as trainings
from sora_edu.train import recipes
from sora_edu.train.clip import (
    CLIP_LOOP,
    FOILS,
    GROUP,
    foiled,
    learn_stills,
    pair_loss,
    possible,
    retrieval,
    still_recall,
    stills,
    train_clip,
)

RUN = json.loads(data_path("curves", "12_clip.json").read_text())


def test_pairs_that_nobody_can_tell_apart_cost_log_n():
    torch.manual_seed(0)
    clip, latents = TinyClip(), torch.zeros(5, 16, 5, 8, 8)
    with torch.no_grad():
        clip.patch_embed.weight.zero_()  # blind: every clip is the same to it
    loss = pair_loss(clip, latents, ["a red star falls"] * 5, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(torch.tensor(5.0).log().item(), abs=1e-5)


def test_retrieval_goes_both_ways_and_in_groups():
    table = torch.eye(6)
    table[0, 1] = 2  # clip 0 takes the prompt of clip 1, in its own group of 3
    table[5, 0] = 3  # clip 5 takes one from the other group
    assert retrieval(table, 3) == {
        "prompt for a clip": pytest.approx(4 / 6, abs=1e-4),
        "clip for a prompt": pytest.approx(4 / 6, abs=1e-4),
        "prompt for a clip, of 3": pytest.approx(5 / 6, abs=1e-4),
        "clip for a prompt, of 3": pytest.approx(5 / 6, abs=1e-4),
    }


def test_who_sees_everything_must_guess_where_a_prompt_fits_several_clips(monkeypatch):
    star, ring = (world.parse(f"a small red {shape} falls") for shape in ("star", "ring"))
    entries = [world.Prompted("", world.parse("a red star"), star.complete(seed)) for seed in range(2)]
    entries.append(world.Prompted("", ring, ring.complete(2)))
    monkeypatch.setattr(world, "evaluation_set", lambda *_: entries)
    assert possible("seen", 3) == pytest.approx((1 / 2 + 1 / 2 + 1) / 3, abs=1e-4)


@pytest.mark.parametrize("name", FOILS)
def test_a_wrong_caption_is_wrong_in_what_it_says(name):
    split, change, allowed = FOILS[name]
    scenes = [entry.scene for entry in world.evaluation_set(split, 60, 0) if allowed(entry.scene)]
    assert len(scenes) >= 10
    for scene in scenes:
        wrong = change(scene)
        if len(scene.things) == 2:
            words = [sorted(world.caption(s, s.seed, "all").split()) for s in (scene, wrong)]
            assert wrong != scene and {t.colour for t in wrong.things} == {t.colour for t in scene.things}
            assert len(words[0]) > 4
            continue
        changed = [f for f in ("shape", "colour", "size", "motion")
                   if getattr(scene.things[0], f) != getattr(wrong.things[0], f)]  # fmt: skip
        assert changed == [name.split()[-1]] or changed == ["motion"]
        assert replace(wrong, things=scene.things) == scene


def test_a_blind_encoder_is_foiled(monkeypatch):
    """Nothing seen, and all captions alike: no right caption scores higher than a wrong one."""
    clip = TinyClip().eval()
    monkeypatch.setattr(TinyClip, "texts", lambda self, prompts: torch.ones(len(prompts), 64) / 8)
    found = foiled(clip, Sora.from_pretrained("tiny").autoencoder, 3)
    assert set(found) == set(FOILS)
    assert all(figure == {"share": 0.0, "n": 3} for figure in found.values())


def test_stills_repeat_and_a_few_steps_help():
    known, fresh = stills(96, 0), stills(64, 1)
    assert known.latents.shape == (96, 16, 1, 8, 8)
    assert all("moves" not in text for text in known.captions(list(range(8)), torch.Generator()))
    clip, curve = learn_stills(known, steps=24)
    again, same = learn_stills(known, steps=24)
    assert curve == same and curve[-1][1] < curve[0][1] - 0.1
    assert still_recall(clip, fresh) == still_recall(again, fresh)


def test_a_short_run_of_the_recipe_writes_encoders_of_these_latents(tmp_path, monkeypatch):
    torch.manual_seed(0)
    small = AutoencoderConfig(widths=(8, 8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    autoencoder = CausalVideoAutoencoder(small)

    class Stand:
        @staticmethod
        def from_pretrained(name):
            return Stand()

        def __init__(self):
            self.autoencoder = autoencoder

    monkeypatch.setattr(trainings, "Sora", Stand)
    monkeypatch.setattr(recipes, "CHUNK", 8)
    clip = train_clip(tmp_path, replace(CLIP_LOOP, steps=2, batch=4), clips=8)
    assert torch.equal(clip.reads, fingerprint(autoencoder))
    assert (tmp_path / "clip.safetensors").stat().st_size < 1e6
    assert len(list((tmp_path / "latents").iterdir())) == 1


def test_the_shipped_run_says_what_the_chapter_says():
    assert RUN["loss"][0] > 4 and RUN["loss"][-1] < 1  # a guess among 128 costs 4.85
    for split in ("seen", "held_out"):
        found = RUN["retrieval"][split]
        assert found[f"prompt for a clip, of {GROUP}"] > 0.6 > 10 / GROUP
        assert found["prompt for a clip"] <= found[f"prompt for a clip, of {GROUP}"]
        assert found["clip for a prompt"] <= RUN["possible"][split] + 0.05  # a guess can be lucky
        assert RUN["possible"][split] == possible(split, RUN["settings"]["asked"])
    losses = torch.tensor(RUN["stills"]["loss"])
    assert losses.shape == (3, len(RUN["stills"]["steps"])) and (losses[:, -1] < losses[:, 0]).all()
    assert min(RUN["stills"]["recall"]) > 5 / GROUP
    assert RUN["foiled"]["another colour"]["share"] > 0.9
    for name in ("colours of two things swapped", "who is in front swapped"):
        assert 0.35 < RUN["foiled"][name]["share"] < 0.75
    assert data_path("checkpoints", "clip", "clip.safetensors").stat().st_size < 1_000_000
