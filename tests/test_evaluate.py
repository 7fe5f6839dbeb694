"""The evaluation on models whose results are known: one renders what it is asked for, one makes nothing."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sora_edu import evaluate as ev
from sora_edu.data import world
from sora_edu.sora import Sora

# ---- Diversity ------------------------------------------------------------------------------------------


def test_diversity_prompts_take_the_motions_in_turn():
    scenes = [world.parse(prompt) for prompt in ev.diversity_prompts(22, 0)]
    assert [scene.things[0].motion for scene in scenes] == list(world.MOTIONS) * 2
    assert all(scene.things[0].size is None and scene.background is None for scene in scenes)


# ---- The whole ------------------------------------------------------------------------------------------


class Stand(Sora):
    """Stands in for a trained model."""

    def __init__(self, encode, decode):
        nn.Module.__init__(self)
        self.config = SimpleNamespace(sizes=((17, 64, 64),), steps=20, guidance=3.0, tasks=("text_to_video",))
        self.sha256 = "0" * 64
        self.autoencoder = nn.Module()
        self.autoencoder.encode, self.autoencoder.decode = encode, decode
        self.autoencoder.device = torch.device("cpu")


class Perfect(Stand):
    """Renders a scene that fits the prompt, and keeps every pixel."""

    def __init__(self):
        super().__init__(lambda video: video, lambda latents: latents)

    def sample(self, prompts, seeds, *, frames, height, width, **_):
        scenes = [world.parse(prompt).complete(seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        return world.render_batch(scenes, frames, height, width)


class Blank(Stand):
    """Makes grey clips, and forgets everything."""

    def __init__(self):
        super().__init__(lambda video: video, torch.zeros_like)

    def sample(self, prompts, seeds, *, frames, height, width, **_):
        return torch.zeros(len(prompts), 3, frames, height, width)


def test_a_perfect_model_scores_as_the_judge_does(tmp_path):
    done = []
    report = ev.evaluate(Perfect(), n=16, splits=("seen", "two_objects"), advance=lambda _, n: done.append(n))
    assert report["adherence"]["seen"]["value"] >= 0.9
    assert report["judge"]["by_split"]["seen"]["clean"]["value"] >= 0.95
    assert report["judge"]["autoencoder"] == report["judge"]["clean"]
    assert report["judge"]["clean"]["n"] == 16
    assert report["autoencoder"]["by_split"]["seen"]["psnr"]["value"] > 50  # 8 bits alone
    assert "psnr" not in report["autoencoder"]  # held-out scenes were not asked for
    assert 0.5 < report["diversity"]["ratio"]["value"] < 2
    obeyed = report["physics"]
    assert {law: figure["value"] for law, figure in obeyed.items()} == dict.fromkeys(obeyed, 1.0)
    assert obeyed["gravity_within_5_percent"]["n"] == 8 and "permanence" not in obeyed
    assert report["network_evaluations"] == 40
    assert sum(done) == ev.work(Perfect(), 16, ("seen", "two_objects"))
    path = ev.save_report(report, tmp_path / "report.json")
    assert json.loads(path.read_text()) == report
    for line in ("seen", "two_objects", "Judge", "Autoencoder", "Physics", "Diversity", "One clip takes"):
        assert line in ev.table(report)


def test_a_blank_model_scores_nothing_and_what_cannot_be_measured_is_absent():
    report = ev.evaluate(Blank(), n=6, splits=("held_out",))
    assert report["adherence"]["held_out"]["value"] == 0
    assert report["adherence"]["by_attribute"]["held_out"]["well_formed"]["value"] == 0
    assert report["judge"]["autoencoder"]["value"] == 0
    assert report["autoencoder"]["psnr"]["value"] < 20
    assert {figure["value"] for figure in report["physics"].values()} == {0}
    assert "diversity" not in report
    assert "Diversity" not in ev.table(report)


# ---- Tasks ----------------------------------------------------------------------------------------------


FROM_PIXELS = ("animate", "extend", "extend_backwards", "connect", "loop", "inpaint", "edit")


class Doing(Perfect):
    """Does the tasks: `change(given, mask)` is what it makes of a clip that it can see whole."""

    def __init__(self, change=lambda given, mask: given):
        super().__init__()
        self.config.tasks = ("text_to_video", *FROM_PIXELS)
        self.change = change

    def sample(self, prompts, seeds, *, given=None, mask=None, strength=None, **size):
        if given is None or strength is not None:
            return super().sample(prompts, seeds, **size)
        return self.change(given, mask)


def tasks_of(sora, n=12, names=FROM_PIXELS):
    sora.config.tasks = names  # and edits, which need no training
    sampling = ev._Sampling(sora, (17, 64, 64), 4, 1.0, 6, lambda *_: None)
    return ev._tasks(sampling, world.evaluation_set("seen", n, 0), 0)


def test_a_model_that_sees_what_is_hidden_does_every_task():
    report = tasks_of(Doing())
    assert tuple(report) == FROM_PIXELS
    for task, found in report.items():
        if task != "loop":  # what a clip of half its frames shows is for nobody to read
            assert found["adherence"]["value"] >= 0.9
        if task == "edit":
            continue
        assert found["given_psnr"]["value"] > 50 and found["given_psnr_autoencoder"]["value"] > 50
        assert found["seam_ratio"]["value"] == pytest.approx(1, abs=0.01)
    for task in ("animate", "extend", "extend_backwards", "connect"):
        assert report[task]["joint_error"]["value"] == pytest.approx(0, abs=0.01)
        assert report[task]["continued"]["value"] >= 0.9
    assert "joint_error" not in report["inpaint"]


def test_putting_given_pixels_back_hides_nothing_from_the_measures():
    """One that forgets what it was given: the clip that is shown is right there, the figures are not."""
    found = tasks_of(Doing(lambda given, mask: given * mask), 4, ("extend",))["extend"]
    assert found["given_psnr"]["value"] < 25 < found["given_psnr_autoencoder"]["value"]


def test_a_frozen_continuation_is_found_out():
    def freeze(given, mask):
        return torch.where(mask[:, :1, :1] > 0, given[:, :, 8:9], given)

    found = tasks_of(Doing(freeze), 24, ("extend",))["extend"]
    assert found["seam_ratio"]["value"] < 0.05
    assert found["continued"]["value"] < 0.4


def test_a_jump_at_the_seam_is_found_out():
    def jump(given, mask):
        return torch.where(mask[:, :1, :1] > 0, given.roll(4, dims=-1), given)

    found = tasks_of(Doing(jump), 24, ("extend",))["extend"]
    assert found["seam_ratio"]["value"] > 2
    assert found["continued"]["value"] == 0


def test_where_nothing_moves_there_is_no_seam_to_compare_with():
    """A thing that stands still, under a camera that does: its second frame is its first."""
    still = world.Scene((world.Thing("star", "red", "small", "stands still"),), "dark", "still", None, 0)
    entry = world.Prompted("a red star stands still", world.parse("a red star stands still"), still)
    sora = Doing()
    sora.config.tasks = ("animate",)
    sampling = ev._Sampling(sora, (17, 64, 64), 4, 1.0, 6, lambda *_: None)
    found = ev._tasks(sampling, [entry], 0)
    assert "seam_ratio" not in found["animate"] and found["animate"]["adherence"]["value"] == 1
    assert "seam" not in "\n".join(ev._task_lines(found)[2:])


def test_a_new_colour_is_never_a_held_out_one():
    for seed, entry in enumerate(world.evaluation_set("seen", 40, 1)):
        wanted = ev.recoloured(entry, seed)
        before, after = entry.scene.things[0], wanted.scene.things[0]
        assert after.colour != before.colour
        assert (after.shape, after.colour) not in world.HELD_OUT_COLOURS
        assert (after.shape, after.motion, after.size) == (before.shape, before.motion, before.size)
        assert wanted.asked == world.parse(wanted.prompt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n=0 must be"),
        ({"seed": -1}, "seed=-1 must be"),
        ({"batch": 0}, "batch=0 must be"),
        ({"splits": ("seen", "unseen")}, "must be some of: seen, held_out"),
        ({"splits": ()}, "must be some of"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ev.evaluate(Perfect(), **options)


# ---- Sets of clips ----------------------------------------------------------------------------------------


class Renders(Perfect):
    """Makes perfect clips, of a seed that `pick` chooses, with the autoencoder that ships."""

    def __init__(self, pick):
        super().__init__()
        self.autoencoder, self.pick = Sora.from_pretrained("tiny").autoencoder, pick

    def sample(self, prompts, seeds, **size):
        return super().sample(prompts, [self.pick(seed) for seed in seeds], **size)


def frechet_of(sora, n):
    done = []
    sampling = ev._Sampling(sora, (17, 64, 64), 4, 1.0, 16, lambda what, count: done.append(count))
    found = ev._frechet(sampling, n, 0)
    assert sum(done) == 3 * math.prod(ev._frechet_counts(n))
    return found


def test_real_clips_are_as_far_as_the_floor_and_one_clip_repeated_much_farther():
    """The clips that a model repeats are perfect ones, so that no reading of single clips finds it out."""
    real, repeated = frechet_of(Renders(lambda seed: seed), 48), frechet_of(Renders(lambda seed: 1), 48)
    assert real["floor"] == repeated["floor"] and real["ratio"]["n"] == 48
    assert real["ratio"]["value"] < 2
    assert repeated["ratio"]["value"] > 5


def test_without_an_encoder_for_its_latents_nothing_is_compared(monkeypatch):
    sora = Renders(lambda seed: seed)
    with torch.no_grad():
        next(sora.autoencoder.encoder.parameters()).add_(1)
    sampling = ev._Sampling(sora, (17, 64, 64), 4, 1.0, 16, lambda *_: None)
    assert ev._frechet(sampling, 32, 0) == {}
    monkeypatch.setattr(ev, "tiny_clip", lambda: (_ for _ in ()).throw(FileNotFoundError))
    assert ev._reader_of(Renders(lambda seed: seed)) is None


