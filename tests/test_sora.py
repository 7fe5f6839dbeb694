"""The pipeline: plumbing on random networks, sampling against a flow that is known, files, errors."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sora_edu.assets import data_root
from sora_edu.autoencoder import AutoencoderConfig
from sora_edu.data.captions import VOCABULARY, PromptError
from sora_edu.data.judge import judge
from sora_edu.data.world import evaluation_set, parse
from sora_edu.sora import Sora, SoraConfig, to_float, to_uint8
from sora_edu.tasks import TASKS
from sora_edu.text import TextConfig
from sora_edu.video_dit import VideoDiTConfig
from sora_edu.weights import CheckpointError, sha256

CONFIG = SoraConfig(
    AutoencoderConfig(widths=(8, 8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1)),
    TextConfig(VOCABULARY, width=16, depth=1, heads=2),
    VideoDiTConfig(width=48, depth=1, heads=2, text_width=16, condition_width=16),
    sizes=((5, 32, 48), (1, 32, 48)),
    tasks=("text_to_video", "text_to_image"),
    steps=4,
)
SIZE = {"frames": 5, "height": 32, "width": 48}
PROMPT = "a red star bounces"


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("SORA_EDU_DTYPE", "float32")


def random_sora(config: SoraConfig = CONFIG) -> Sora:
    """Untrained, but with every weight random, so that no output is zero and everything matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sora = Sora(config).eval().requires_grad_(False)
        for parameter in sora.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return sora


@pytest.fixture(scope="module")
def sora() -> Sora:
    return random_sora()


@pytest.fixture
def folder(sora, tmp_path):
    return sora.save_pretrained(tmp_path / "checkpoint", torch.float32)


# ---- Clips from prompts --------------------------------------------------------------------------------


def test_a_clip_has_the_size_asked_for(sora):
    clip = sora.generate(PROMPT, seed=3, **SIZE)
    assert clip.frames.shape == (5, 32, 48, 3)
    assert clip.frames.dtype == np.uint8
    assert (clip.prompt, clip.seed) == (PROMPT, 3)
    assert clip.frames.std() > 1


def test_a_picture_is_a_clip_of_one_frame(sora):
    clip = sora.generate(PROMPT, task="text_to_image", frames=1, height=32, width=48)
    assert clip.frames.shape == (1, 32, 48, 3)


def test_the_seed_decides_and_nothing_else_does(sora):
    first = sora.generate(PROMPT, seed=1, **SIZE).frames
    torch.manual_seed(99)
    np.testing.assert_array_equal(sora.generate(PROMPT, seed=1, **SIZE).frames, first)
    assert (sora.generate(PROMPT, seed=2, **SIZE).frames != first).any()
    assert (sora.generate("a blue ring falls", seed=1, **SIZE).frames != first).any()


def test_the_global_generator_is_left_alone(sora, folder):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Sora.from_pretrained(folder).generate(PROMPT, **SIZE)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_each_of_several_clips_is_what_its_seed_gives_alone(sora):
    clips = sora.generate(PROMPT, seed=5, num=3, **SIZE)
    assert [clip.seed for clip in clips] == [5, 6, 7]
    for clip in clips:
        alone = sora.generate(PROMPT, seed=clip.seed, **SIZE).frames.astype(int)
        assert np.abs(alone - clip.frames).max() <= 1  # batches round differently in the last place


def test_progress_counts_the_steps(sora):
    calls = []
    sora.generate(PROMPT, steps=3, progress=lambda *call: calls.append(call), **SIZE)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_every_prompt_needs_a_seed(sora):
    for prompts, seeds in (([PROMPT], [0, 1]), ([], [])):
        with pytest.raises(ValueError, match="one seed for each prompt"):
            sora.sample(prompts, seeds, **SIZE)


# ---- Tasks ---------------------------------------------------------------------------------------------


def pictures(*indices: int) -> dict[int, np.ndarray]:
    """A picture of its own for each frame."""
    rng = np.random.default_rng(0)
    every = rng.integers(256, size=(5, 32, 48, 3)).astype(np.uint8)
    return {index: every[index] for index in indices}


@pytest.fixture(scope="module")
def able() -> Sora:
    """A model that may do every task."""
    return random_sora(replace(CONFIG, tasks=TASKS))


class Listener(nn.Module):
    """Stands in for a DiT that wants to go nowhere, and keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, t, y, y_mask, given=None, mask=None):
        self.calls.append({"x": x, "t": t, "y": y, "given": given, "mask": mask})
        return torch.zeros_like(x)


def listening() -> tuple[Sora, Listener]:
    able = random_sora(replace(CONFIG, tasks=TASKS))
    able.dit = Listener()
    return able, able.dit


@pytest.mark.parametrize(
    ("task", "indices"),
    [("animate", [0]), ("extend", [0, 1, 2]), ("extend_backwards", [3, 4]), ("connect", [0, 3, 4])],
)
def test_given_frames_come_back_exactly_and_the_others_are_made(able, task, indices):
    given = pictures(*indices)
    clip = able.generate(PROMPT, task=task, given=given, seed=1, **SIZE)
    again = able.generate(PROMPT, task=task, given=given, seed=2, **SIZE)
    for index in range(5):
        if index in given:
            np.testing.assert_array_equal(clip.frames[index], given[index])
        else:
            assert (clip.frames[index] != again.frames[index]).any()


def test_a_loop_does_not_show_its_first_frame_twice(able):
    clip = able.generate(PROMPT, task="loop", given=pictures(0, 1), **SIZE)
    assert len(clip.frames) == 4
    np.testing.assert_array_equal(clip.frames[:2], np.stack(list(pictures(0, 1).values())))


def test_inpainting_changes_the_region_and_nothing_else(able):
    given, region = pictures(*range(5)), np.zeros((32, 48), bool)
    region[8:20, 16:40] = True
    clip = able.generate(PROMPT, task="inpaint", given=given, region=region, **SIZE)
    expected = np.stack(list(given.values()))
    np.testing.assert_array_equal(clip.frames[:, ~region], expected[:, ~region])
    assert (clip.frames[:, region] != expected[:, region]).any()


def test_the_network_is_told_what_is_given_with_and_without_the_prompt():
    able, listener = listening()
    able.generate(PROMPT, task="animate", given=pictures(0), num=2, steps=1, **SIZE)
    (call,) = listener.calls
    assert call["x"].shape == call["given"].shape == (4, 16, 2, 4, 6)
    assert not torch.equal(call["y"][:2], call["y"][2:])
    hidden = torch.zeros(1, 3, 5, 32, 48)
    hidden[:, :, 0] = to_float(pictures(0)[0][None, None])[0, :, 0]
    expected = able.autoencoder.encode(hidden).expand(4, -1, -1, -1, -1)
    torch.testing.assert_close(call["given"], expected)
    assert call["mask"][:, :, 0].eq(0).all()
    assert call["mask"][:, :, 1].eq(1).all()


def test_an_empty_prompt_is_enough_where_pictures_are_given():
    able, listener = listening()
    able.generate("", task="extend", given=pictures(0), steps=2, **SIZE)
    assert [len(call["x"]) for call in listener.calls] == [1, 1]  # there is nothing to guide away from
    with pytest.raises(PromptError):
        able.generate("", **SIZE)


def test_an_edit_needs_no_training(sora):
    assert "edit" not in sora.config.tasks
    clip = sora.generate(PROMPT, task="edit", given=pictures(*range(5)), **SIZE)
    assert clip.frames.shape == (5, 32, 48, 3)


def test_an_edit_starts_from_the_clip_at_its_strength():
    """With a network that goes nowhere, what comes out is what sampling started from."""
    (able, listener), given = listening(), pictures(*range(5))
    latents = able.autoencoder.encode(to_float(np.stack(list(given.values()))[None]))
    noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(3))[None]
    for strength in (0.25, 1.0):
        clip = able.generate(
            PROMPT, task="edit", given=given, strength=strength, seed=3, steps=8, guidance=1.0, **SIZE
        )
        start = able.autoencoder.decode((1 - strength) * latents + strength * noise).clamp(-1, 1)
        assert np.abs(clip.frames.astype(int) - to_uint8(start)[0]).max() <= 1
        assert listener.calls[0]["t"].item() == strength
        assert len(listener.calls) == 8 * strength  # only the steps below it are left
        assert listener.calls[0]["given"] is None
        listener.calls.clear()


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_strength_is_explained(able, strength):
    with pytest.raises(ValueError, match=r"strength=.* must be a number above 0 and at most 1"):
        able.generate(PROMPT, task="edit", given=pictures(*range(5)), strength=strength, **SIZE)


def test_half_a_condition_is_explained(able):
    with pytest.raises(ValueError, match="needs given: the clip to start from"):
        able.sample([PROMPT], [0], strength=0.7, **SIZE)
    with pytest.raises(ValueError, match="given needs a mask"):
        able.sample([PROMPT], [0], given=torch.zeros(1, 3, 5, 32, 48), **SIZE)


# ---- Sampling ------------------------------------------------------------------------------------------


class PointField(nn.Module):
    """The exact flow towards one point per prompt: u = (x - x_0) / t. It also counts its passes."""

    def __init__(self, conditional: float, unconditional: float, null: torch.Tensor):
        super().__init__()
        self.targets, self.null, self.batches = (conditional, unconditional), null, []

    def forward(self, x, t, y, y_mask, given=None, mask=None):
        self.batches.append(len(x))
        is_null = (y - self.null).abs().flatten(1).amax(1) < 1e-6
        target = torch.where(is_null, self.targets[1], self.targets[0]).view(-1, 1, 1, 1, 1)
        return (x - target) / t.view(-1, 1, 1, 1, 1)


def constant_latents(sora: Sora, value: float) -> np.ndarray:
    return to_uint8(sora.autoencoder.decode(torch.full((1, 16, 2, 4, 6), value)).clamp(-1, 1))[0]


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guided_flow_reaches_the_extrapolated_point(steps, guidance):
    """With exact flows to a and to b, guidance s flows to b + s (a - b), exactly, in any number of steps."""
    sora = random_sora()
    null, _ = sora.text.encode([""])
    sora.dit = PointField(0.4, -0.2, null)
    clip = sora.generate(PROMPT, steps=steps, guidance=guidance, **SIZE)
    expected = constant_latents(sora, -0.2 + guidance * 0.6)
    assert np.abs(clip.frames.astype(int) - expected).max() <= 1
    assert sora.dit.batches == [1 if guidance == 1 else 2] * steps


def test_defaults_come_from_the_checkpoint():
    sora = random_sora(replace(CONFIG, steps=2, guidance=1.0))
    calls = []
    clip = sora.generate(PROMPT, progress=lambda *call: calls.append(call), **SIZE)
    assert calls == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(clip.frames, sora.generate(PROMPT, steps=2, guidance=1.0, **SIZE).frames)


def test_bfloat16_is_near_float32(sora, monkeypatch):
    exact = sora.generate(PROMPT, **SIZE).frames.astype(float)
    monkeypatch.setenv("SORA_EDU_DTYPE", "bfloat16")
    rough = sora.generate(PROMPT, **SIZE).frames
    assert 0 < np.abs(rough - exact).mean() < 12


def test_pixels_survive_the_round_trip():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 1, 16, 16, 3)
    video = to_float(frames)
    assert (video.min(), video.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(video), frames)


# ---- Bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 18}, r"frames=18 is not 1 \+ 4k.*use frames=5, height=32, width=48"),
        ({"frames": 0}, "frames=0 must be at least 1"),
        ({"height": 40}, "height=40 is not a multiple of 16.*use frames=5"),
        ({"width": 8}, "width=8 must be at least 16"),
        ({"frames": 17}, "not trained at that size.*use frames=5, height=32, width=48 or frames=1"),
        ({"steps": 0}, "steps=0 must be from 1"),
        ({"guidance": -1.0}, "guidance=-1.0 must be from 0"),
        ({"guidance": float("nan")}, "guidance=nan must be a number"),
        ({"num": 0}, "num=0 must be from 1 to 64"),
        ({"seed": -1}, "seed=-1 must be from 0"),
        ({"task": "sing"}, "task='sing' is unknown; the tasks are: text_to_video, .*, edit"),
        ({"task": "extend"}, "task='extend'.*not trained for it; use text_to_video or text_to_image or edit"),
        ({"given": {0: np.zeros((32, 48, 3), np.uint8)}}, "given is not for task='text_to_video'"),
        ({"strength": 0.5}, "strength is not for task='text_to_video'"),
        ({"region": np.ones((32, 48), bool)}, "task='text_to_video' takes no region"),
    ],
)
def test_bad_arguments_are_named_with_what_would_do(sora, change, message):
    with pytest.raises(ValueError, match=message):
        sora.generate(PROMPT, **{**SIZE, **change})


@pytest.mark.parametrize("prompt", ["", "   ", "a cute cat", "a red blue star"])
def test_prompts_outside_the_world_come_with_one_that_works(sora, prompt):
    with pytest.raises(PromptError) as caught:
        sora.generate(prompt, **SIZE)
    assert caught.value.suggestion in str(caught.value)
    assert sora.generate(caught.value.suggestion, **SIZE).frames.shape == (5, 32, 48, 3)


# ---- Checkpoints ---------------------------------------------------------------------------------------


def test_a_saved_checkpoint_gives_the_same_clip(sora, folder):
    loaded = Sora.from_pretrained(folder)
    assert loaded.config == sora.config
    assert loaded.sha256 == sha256(folder / "config.json")
    expected = sora.generate(PROMPT, **SIZE).frames
    np.testing.assert_array_equal(loaded.generate(PROMPT, **SIZE).frames, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_kept_in_half_the_space_run_in_float32(sora, tmp_path, dtype):
    loaded = Sora.from_pretrained(str(sora.save_pretrained(tmp_path / "half", dtype)))
    kept = load_file(tmp_path / "half" / "dit.safetensors")
    assert {value.dtype for value in kept.values()} == {dtype}
    for name, value in loaded.dit.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, sora.dit.state_dict()[name].to(dtype).float(), rtol=0, atol=0)


def damage(folder, what):
    dit, config = folder / "dit.safetensors", folder / "config.json"
    values = json.loads(config.read_text())
    if what == "no folder":
        return folder / "nowhere"
    if what == "no weights":
        dit.unlink()
    elif what == "cut short":
        dit.write_bytes(dit.read_bytes()[:1000])
    elif what == "one bit":
        content = bytearray(dit.read_bytes())
        content[-7] ^= 1
        dit.write_bytes(content)
    elif what == "git lfs":
        dit.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif what == "no safetensors":
        dit.write_bytes(b"not weights")
        values["sha256"]["dit.safetensors"] = sha256(dit)
    elif what == "other names":
        state = load_file(dit)
        state["surplus"] = state.pop("final.bias")
        save_file(state, dit)
        values["sha256"]["dit.safetensors"] = sha256(dit)
    elif what == "other shapes":
        values["dit"]["width"] = 96
    elif what == "unknown field":
        values["dit"]["colour"] = "blue"
    elif what == "no digest":
        del values["sha256"]["dit.safetensors"]
    elif what == "no text part":
        del values["text"]
    config.write_text("{" if what == "no json" else json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no folder", "no such checkpoint"),
        ("no weights", "dit.safetensors: the file is missing"),
        ("cut short", "dit.safetensors: the file is damaged"),
        ("one bit", "dit.safetensors: the file is damaged: its SHA-256"),
        ("git lfs", "git lfs pull"),
        ("no safetensors", "dit.safetensors: the file is damaged"),
        ("other names", "1 missing: final.bias; 1 unknown: surplus"),
        ("other shapes", "of another shape: .* instead of"),
        ("unknown field", "VideoDiTConfig has no field colour"),
        ("no digest", "config.json: this is no configuration"),
        ("no text part", "config.json: this is no configuration.*text"),
        ("no json", "config.json: this is no configuration"),
    ],
)
def test_damaged_checkpoints_say_what_is_wrong_and_what_would_work(folder, what, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        Sora.from_pretrained(damage(folder, what))
    assert "python -m sora_edu train tiny" in str(caught.value)


def test_an_unknown_name_is_no_checkpoint():
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Sora.from_pretrained("enormous")


def test_a_configuration_survives_json(folder):
    values = json.loads((folder / "config.json").read_text())
    del values["sha256"]
    assert values == json.loads(json.dumps(asdict(CONFIG)))


# ---- The checkpoint that ships --------------------------------------------------------------------------

shipped = pytest.mark.skipif(
    not (data_root() / "checkpoints" / "tiny" / "config.json").exists(), reason="no checkpoint ships yet"
)


def _right(clips, prompt):
    """How many of the clips the judge reads as asked."""
    videos = to_float(np.stack([clip.frames for clip in clips]))
    return sum(judge(video).matches(parse(prompt)) for video in videos)


@shipped
def test_shipped_weights_load_and_follow_prompts():
    """Loading pins every key and shape. By chance all that is named is right in one clip of a thousand."""
    entries = evaluation_set("seen", 16, seed=0)
    videos = Sora.from_pretrained("tiny").sample([entry.prompt for entry in entries], range(16))
    assert sum(judge(video).matches(e.asked) for video, e in zip(videos, entries, strict=True)) >= 2


@shipped
@pytest.mark.xfail(strict=True, reason="the weights miss it: see docs/model_card.md")
def test_shipped_clips_show_what_was_asked():
    """The judge must read at least 18 of 20 clips as asked. Take the mark away when the weights reach it."""
    clips = Sora.from_pretrained("tiny").generate(PROMPT, num=20)
    assert _right(clips, PROMPT) >= 18


@shipped
def test_shipped_weights_fit_in_the_repository():
    assert sum(f.stat().st_size for f in (data_root() / "checkpoints").rglob("*") if f.is_file()) <= 32e6
