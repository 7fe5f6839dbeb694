"""The recipes, shrunken to seconds: what they train on, what they write, and how they go on."""

import copy
import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import sys
from functools import partial, partialmethod
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

from sora_edu.autoencoder import AutoencoderConfig, CausalVideoAutoencoder
from sora_edu.data import world
from sora_edu.data.captions import VOCABULARY
from sora_edu.sora import Sora, SoraConfig
from sora_edu.tasks import latent_mask, training_mask
from sora_edu.text import TextConfig, TextEncoder
from sora_edu.train import recipes
from sora_edu.train.loop import LoopConfig, TrainingStopped, step_generator
from sora_edu.video_dit import VideoDiTConfig
from sora_edu.weights import load_weights

LITTLE = SoraConfig(
    AutoencoderConfig(channels=4, widths=(4, 6, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1)),
    TextConfig(VOCABULARY, width=16, depth=1, heads=2),
    VideoDiTConfig(channels=4, width=24, depth=1, heads=2, text_width=16, condition_width=16),
)
# A fresh DiT is silent; only in the third step do gradients get through it to the text encoder.
SHORT = LoopConfig(steps=4, batch=6, log_every=1)
LOOPS = {
    "autoencoder": dataclasses.replace(SHORT, batch=2),
    "decoder": dataclasses.replace(SHORT, batch=2),
    "text": dataclasses.replace(SHORT, batch=4),
    "tiny": SHORT,
}
CLIPS = 18  # more than the sixteen that are encoded at once


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """Every recipe as it is, but with a small model, few clips and four steps."""
    monkeypatch.setenv("SORA_EDU_DTYPE", "float32")
    monkeypatch.setattr(recipes, "TINY", LITTLE)
    monkeypatch.setattr(recipes, "STATISTICS", 17)
    monkeypatch.setattr(recipes, "train_tiny", partial(recipes.train_tiny, clips=CLIPS))
    known = {"autoencoder": recipes.train_autoencoder, "text": recipes.train_text, "tiny": recipes.train_tiny}
    monkeypatch.setattr(recipes, "RECIPES", {name: (train, LOOPS[name]) for name, train in known.items()})
    for name, loop in LOOPS.items():
        monkeypatch.setattr(recipes, f"train_{name}", partial(getattr(recipes, f"train_{name}"), loop=loop))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One short run of all stages, and the scenes that each of them drew or described."""
    with pytest.MonkeyPatch.context() as patch:
        little.__wrapped__(patch)
        seen = {}
        for name in ("render_batch", "caption"):
            patch.setattr(world, name, recording(getattr(world, name), name, seen))
        for name in ("train_autoencoder", "train_decoder", "train_text", "train_dit"):
            patch.setattr(recipes, name, during(getattr(recipes, name), name, seen))
        folder = tmp_path_factory.mktemp("tiny")
        sora = recipes.train_tiny(folder)
    seen.pop("stage")
    return folder, sora, seen


def recording(function, name, seen):
    """`function`, which also keeps the scenes that it gets, by the stage that runs and its own name."""

    def call(scenes, *args, **kwargs):
        kept = seen.setdefault((seen["stage"], name), [])
        kept.extend([scenes] if isinstance(scenes, world.Scene) else scenes)
        return function(scenes, *args, **kwargs)

    return call


def during(train, name, seen):
    """`train`, which also says that it is its turn."""

    def call(*args, **kwargs):
        seen["stage"] = name
        return train(*args, **kwargs)

    return call


def assert_same_weights(one: nn.Module, other: nn.Module, **tolerance):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), **({"rtol": 0, "atol": 0} | tolerance))


def draw(n: int, seed: int = 0) -> list[world.Scene]:
    return list(itertools.islice(world.training_scenes(seed), n))


# ---- All stages ------------------------------------------------------------------------------------------


def test_no_stage_meets_a_held_out_combination(trained):
    """Every scene that was rendered or put into words, against the list of pairs itself."""
    _, _, seen = trained
    assert seen.keys() == {
        ("train_autoencoder", "render_batch"), ("train_decoder", "render_batch"),
        ("train_text", "caption"), ("train_dit", "render_batch"), ("train_dit", "caption"),
    }  # fmt: skip
    for stage, scenes in seen.items():
        for thing in (thing for scene in scenes for thing in scene.things):
            assert (thing.shape, thing.colour) not in world.HELD_OUT_COLOURS, stage
            assert (thing.shape, thing.motion) not in world.HELD_OUT_MOTIONS, stage


def test_every_stage_draws_as_many_scenes_as_it_should(trained):
    _, _, seen = trained
    assert len(seen["train_autoencoder", "render_batch"]) == 4 * 2 + 17
    assert len(seen["train_decoder", "render_batch"]) == 4 * 2
    assert len(seen["train_text", "caption"]) == 4 * 2 * 4
    shown = [*draw(CLIPS, seed=1), *draw(recipes.STILLS * CLIPS, seed=3)]
    assert seen["train_dit", "render_batch"] == shown
    described = seen["train_dit", "caption"]
    assert described and all(scene in shown for scene in described)


def test_so_few_scenes_would_meet_one_if_they_could(monkeypatch):
    """The test before could not fail if free draws too missed what is held out."""
    monkeypatch.setattr(world.Scene, "held_out", False)
    things = [thing for scene in draw(CLIPS, seed=1) for thing in scene.things]
    assert any(thing.held_out for thing in things)


def test_the_checkpoint_is_what_was_trained_and_makes_clips(trained):
    folder, sora, _ = trained
    loaded = Sora.from_pretrained(folder / "checkpoint")
    assert loaded.config == LITTLE
    assert_same_weights(loaded, sora, rtol=1e-3, atol=1e-3)  # kept in half precision
    clip = loaded.generate("a red star bounces", steps=1, guidance=2.0)
    assert clip.frames.shape == (17, 64, 64, 3)


def test_every_part_of_the_result_comes_from_its_last_stage(trained):
    folder, sora, _ = trained
    encoder, decoder = (CausalVideoAutoencoder(LITTLE.autoencoder) for _ in range(2))
    load_weights(encoder, folder / "autoencoder/autoencoder.safetensors")
    load_weights(decoder, folder / "decoder/autoencoder.safetensors")
    assert_same_weights(sora.autoencoder, decoder)
    assert_same_weights(sora.autoencoder.encoder, encoder.encoder)
    assert not torch.equal(decoder.decoder.stem.weight, encoder.decoder.stem.weight)
    torch.testing.assert_close((decoder.mean, decoder.std), (encoder.mean, encoder.std), rtol=0, atol=0)
    text = TextEncoder(LITTLE.text)
    load_weights(text, folder / "text/text.safetensors")
    assert not torch.equal(sora.text.norm.weight, text.norm.weight)  # it learned on


def test_the_statistics_are_those_of_the_world(trained):
    """Seventeen clips of stream 2 have latents of zero mean and unit variance."""
    _, sora, _ = trained
    latents = sora.autoencoder.encode(world.render_batch(draw(17, seed=2)))
    torch.testing.assert_close(latents.mean((0, 2, 3, 4)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.std((0, 2, 3, 4)), torch.ones(4), rtol=1e-4, atol=0)


def test_the_cache_holds_the_latents_of_the_first_scenes(trained):
    folder, sora, _ = trained
    latents = torch.load(folder / "dit/latents/00000.pt", weights_only=True)["latents"]
    assert latents.dtype == torch.float16 and latents.shape == (CLIPS, 4, 5, 8, 8)
    wanted = sora.autoencoder.encode(world.render_batch(draw(CLIPS, seed=1)))
    torch.testing.assert_close(latents.float(), wanted, rtol=2e-3, atol=2e-3)


def test_each_clip_is_kept_masked_as_well_and_pictures_as_they_are(trained):
    folder, sora, _ = trained
    examples = recipes.cached_examples(sora.autoencoder, folder / "dit/latents", draw(CLIPS, seed=1))
    masks = [training_mask(17, 64, 64, step_generator(2, index)) for index in range(CLIPS)]
    assert torch.equal(examples.mask.float(), torch.cat([latent_mask(mask) for mask in masks]))
    assert len({mask.sum().item() for mask in masks}) > 5
    greyed = world.render_batch(draw(CLIPS, seed=1)) * (1 - torch.stack(masks))[:, None]
    torch.testing.assert_close(examples.given.float(), sora.autoencoder.encode(greyed), rtol=2e-3, atol=2e-3)
    pictures = torch.load(folder / "dit/pictures/00000.pt", weights_only=True)
    assert pictures.keys() == {"fingerprint", "latents"}
    wanted = sora.autoencoder.encode(world.render_batch(draw(recipes.STILLS * CLIPS, seed=3), frames=1))
    torch.testing.assert_close(pictures["latents"].float(), wanted, rtol=2e-3, atol=2e-3)


def forbid(monkeypatch, *names):
    for name in names:
        monkeypatch.setattr(recipes, name, lambda *_, name=name, **__: pytest.fail(f"{name} ran again"))


def test_finished_stages_are_not_trained_again(trained, monkeypatch):
    folder, sora, _ = trained
    forbid(monkeypatch, "train_autoencoder", "train_decoder", "train_text", "encode_scenes")
    monkeypatch.setattr(recipes.TextToVideo, "loss", lambda *_: pytest.fail("a step ran again"))
    assert_same_weights(recipes.train_tiny(folder), sora)


def test_a_stop_in_the_last_stage_costs_nothing(tmp_path, trained, monkeypatch):
    """Ctrl-C after one of four steps, then the same command again: the same weights as without a stop."""
    _, sora, _ = trained
    loss = recipes.TextToVideo.loss

    def interrupted(self, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return loss(self, *args)

    monkeypatch.setattr(recipes.TextToVideo, "loss", interrupted)
    with pytest.raises(TrainingStopped, match="stopped at step 1"):
        recipes.run("tiny", out=tmp_path)
    monkeypatch.setattr(recipes.TextToVideo, "loss", loss)
    forbid(monkeypatch, "train_autoencoder", "train_decoder", "train_text", "encode_scenes")
    assert not (tmp_path / "checkpoint").exists()
    recipes.run("tiny", resume=tmp_path)
    assert_same_weights(Sora.from_pretrained(tmp_path / "checkpoint"), copy.deepcopy(sora).half().float())


def test_start_goes_on_from_a_checkpoint(tmp_path, trained, monkeypatch):
    """With a learning rate of 0 all stays as it was; and the stages before the DiT do not run."""
    folder, _, _ = trained
    forbid(monkeypatch, "train_autoencoder", "train_decoder", "train_text")
    still = dataclasses.replace(SHORT, lr=0.0)
    sora = recipes.train_tiny(tmp_path, loop=still, start=folder / "checkpoint")
    kept = Sora.from_pretrained(folder / "checkpoint")
    assert kept.dit.final.bias.any()  # not what a fresh DiT has
    assert_same_weights(sora, kept)
    moved = recipes.train_tiny(tmp_path / "moved", start=folder / "checkpoint")
    assert not torch.equal(moved.dit.final.bias, kept.dit.final.bias)
    assert_same_weights(moved.autoencoder, kept.autoencoder)


def compiled_beside_plain(folder: Path) -> None:
    """All stages twice, the second time with parts that torch.compile traces whole (no C++ compiler)."""
    compile_part = nn.Module.compile
    with pytest.MonkeyPatch.context() as patch:
        little.__wrapped__(patch)
        patch.setattr(recipes, "check_compiler", lambda _: None)
        patch.setattr(nn.Module, "compile", partialmethod(compile_part, backend="eager", fullgraph=True))
        plain = recipes.train_tiny(folder / "plain")
        compiled = recipes.train_tiny(folder / "compiled", compiled=True)
    assert_same_weights(compiled, plain, rtol=1e-4, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_compiled_parts_make_the_same_weights(tmp_path):
    """In a process of its own: the checks of shapes, which only the tests have, cannot be traced."""
    code = "import sys, pathlib, test_recipes as t; t.compiled_beside_plain(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_compiling_without_a_compiler_is_refused(tmp_path, trained, monkeypatch):
    folder, _, _ = trained
    forbid(monkeypatch, "encode_scenes")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler .* leave --compile out"):
        recipes.run("tiny", out=tmp_path, start=folder / "checkpoint", compiled=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_trains_the_same_model(trained, tmp_path, monkeypatch):
    """The draws are the processor's on every device, so that only rounding differs."""
    _, sora, _ = trained
    monkeypatch.setattr(recipes, "best_device", lambda: torch.device("cpu"))
    assert_same_weights(sora, recipes.train_tiny(tmp_path), rtol=1e-2, atol=1e-3)


# ---- Parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file"), [("autoencoder", "autoencoder"), ("text", "text")])
def test_each_recipe_runs_by_itself(tmp_path, monkeypatch, name, file):
    monkeypatch.chdir(tmp_path)
    recipes.run(name)
    folder = tmp_path / "runs" / name
    load_weights(Sora(LITTLE).get_submodule(name), folder / f"{file}.safetensors")
    assert (folder / "curve.csv").read_text().count("\n") == 5


def test_a_recipe_gives_the_same_weights_again(tmp_path):
    assert_same_weights(recipes.train_text(tmp_path / "a"), recipes.train_text(tmp_path / "b"))


def test_the_number_of_steps_can_be_chosen(tmp_path):
    recipes.run("text", out=tmp_path, steps=1)
    assert (tmp_path / "curve.csv").read_text().splitlines()[-1].startswith("1,")


def test_three_quarters_of_a_batch_come_from_the_core_and_the_rest_from_everything(generator):
    scenes = draw(CLIPS, seed=1)
    examples = recipes.Examples(scenes, torch.zeros(CLIPS, 1, 1, 1, 1), None, None)
    drawn = [scenes[index] for index in examples.draw(400, generator)]
    outside = [scene for scene in scenes if not scene.is_core]
    share, n = 0.25 * len(outside) / CLIPS, sum(not scene.is_core for scene in drawn)
    assert abs(n / 400 - share) < 4 * (share * (1 - share) / 400) ** 0.5
    assert set(drawn) >= set(outside)


def test_fast_motions_are_drawn_oftener(generator):
    scenes = [world.sample_scene(np.random.default_rng(seed)) for seed in range(400)]
    examples = recipes.Examples(scenes, torch.zeros(len(scenes), 1, 1, 1, 1), None, None)
    weights = [recipes.MOTION_WEIGHTS.get(scene.things[0].motion, 1.0) for scene in scenes]
    fast = torch.tensor([weight > 1 for weight in weights])
    even = fast.double().mean().item()
    weighted = sum(weight for weight in weights if weight > 1) / sum(weights)
    expected = recipes.CORE_FIRST * weighted + (1 - recipes.CORE_FIRST) * even
    n, drawn = 20_000, fast[examples.draw(20_000, generator)].sum().item()
    assert abs(drawn / n - expected) < 4 * (expected * (1 - expected) / n) ** 0.5
    assert expected > even + 0.1


@pytest.fixture
def losses(tmp_path, monkeypatch):
    """What the loss is asked for in forty steps, nothing learned."""
    calls = []
    monkeypatch.setattr(
        recipes.TextToVideo, "loss", lambda self, *args: calls.append(args) or self.dit.final.bias.sum()
    )
    autoencoder = CausalVideoAutoencoder(LITTLE.autoencoder)
    recipes.train_dit(autoencoder, {}, tmp_path, dataclasses.replace(SHORT, steps=40, batch=20), CLIPS)
    return calls


def test_batches_are_of_every_length_and_have_as_many_patches(losses):
    shapes = [call[0].shape for call in losses]
    assert {shape[2] for shape in shapes} == set(recipes.LENGTHS)
    for shape in shapes:
        assert shape[0] == 20 * 5 // shape[2]
    whole = sum(shape[2] == 5 for shape in shapes)
    assert abs(whole / 40 - recipes.LENGTHS[5]) < 4 * (0.25 / 40) ** 0.5


def test_a_share_of_the_whole_clips_is_given_in_part(losses):
    """To the rest, and to shorter ones, nothing is given: latents 0, mask 1. Fewer have prompts."""
    partly, alone = [], []
    for latents, prompts, _, *condition in losses:
        if latents.shape[2] < 5:
            assert not condition
            alone += prompts
            continue
        given, mask = condition
        hidden = (mask == 1).flatten(1).all(1)
        assert torch.equal(hidden, (given == 0).flatten(1).all(1))
        for prompt, nothing in zip(prompts, hidden.tolist(), strict=True):
            (alone if nothing else partly).append(prompt)
    assert abs(len(partly) / (20 * 40 * recipes.LENGTHS[5]) - recipes.GIVEN) < 0.15
    for prompts, share in ((partly, recipes.GIVEN_PROMPT_DROPOUT), (alone, recipes.PROMPT_DROPOUT)):
        assert abs(prompts.count("") / len(prompts) - share) < 4 * (share * (1 - share) / len(prompts)) ** 0.5


def test_the_loss_of_a_fresh_model_is_that_of_saying_nothing(generator):
    """Its velocity is 0, so the loss is the mean square of noise minus data; times are drawn before noise."""
    torch.manual_seed(0)
    latents = torch.randn(4, 4, 5, 8, 8, generator=generator)
    model = recipes.TextToVideo(LITTLE)
    mine = model.loss(latents, ["", "a star falls", "", "a ring"], torch.Generator().manual_seed(3))
    again = torch.Generator().manual_seed(3)
    torch.multinomial(torch.tensor([*recipes.TIME_MEANS.values()]), 4, replacement=True, generator=again)
    torch.randn(4, generator=again)
    wanted = (torch.randn(latents.shape, generator=again) - latents).square().mean()
    torch.testing.assert_close(mine, wanted)


def test_the_loss_of_a_perfect_model_is_zero(generator, monkeypatch):
    """One that knows the clips: u = (x_t - x_0) / t, as x_t = x_0 + t u."""
    latents = torch.randn(4, 4, 5, 8, 8, generator=generator)
    model = recipes.TextToVideo(LITTLE)
    monkeypatch.setattr(
        model.dit, "forward", lambda x, t, y, *_: (x - latents) / t[:, None, None, None, None]
    )
    assert model.loss(latents, [""] * 4, torch.Generator().manual_seed(3)).item() < 1e-8


def test_times_are_drawn_around_both_means(monkeypatch):
    model, times = recipes.TextToVideo(LITTLE), []
    monkeypatch.setattr(
        model.dit, "forward", lambda x, t, *_: times.append(t) or torch.zeros_like(x, requires_grad=True)
    )
    model.loss(torch.zeros(2000, 4, 1, 2, 2), [""] * 2000, torch.Generator().manual_seed(0))
    logits = times[0].logit()
    assert sum(recipes.TIME_MEANS.values()) == 1
    for level in (-1.0, 0.0, 1.0, 2.0, 3.0):
        share = sum(NormalDist(mean).cdf(level) * part for mean, part in recipes.TIME_MEANS.items())
        assert abs((logits < level).float().mean() - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_what_is_given_reaches_the_loss(generator):
    model = recipes.TextToVideo(LITTLE)
    nn.init.normal_(model.dit.final.weight)
    latents, given = torch.randn(2, 2, 4, 5, 8, 8, generator=generator)
    nothing, mask = torch.zeros_like(given), torch.ones(2, 4, 5, 8, 8)

    def loss(*condition):
        return model.loss(latents, ["", ""], torch.Generator().manual_seed(3), *condition).item()

    assert loss() == loss(nothing, mask)
    assert loss(given, mask) != loss()
    assert loss(nothing, 1 - mask) != loss()


def test_prompts_reach_the_loss(generator):
    model = recipes.TextToVideo(LITTLE)
    nn.init.normal_(model.dit.final.weight)
    nn.init.normal_(model.dit.final_modulation.linear.weight)
    latents = torch.randn(2, 4, 5, 8, 8, generator=generator)

    def loss(prompts):
        return model.loss(latents, prompts, torch.Generator().manual_seed(3)).item()

    assert loss(["", ""]) != loss(["a red star falls", ""])
    model.zero_grad()
    model.loss(latents, ["a star", "a ring"], torch.Generator().manual_seed(3)).backward()
    assert model.text.embedding.weight.grad.any()  # the text encoder learns on


def test_prompts_say_nothing_but_what_is_true(generator):
    for scene in draw(150):
        prompt = recipes.training_prompt(scene, generator)
        if prompt:
            assert_agrees(world.parse(prompt), scene)


def test_prompts_are_empty_full_or_free_as_often_as_they_should(generator, monkeypatch):
    """A tenth empty; 60 % of the rest name all of each thing, 40 % of these the backdrop, 24 % the camera."""
    named = []
    monkeypatch.setattr(world, "caption", lambda scene, seed, naming: named.append(naming) or "told")
    n, (scene,) = 4000, draw(1)
    prompts = [recipes.training_prompt(scene, generator) for _ in range(n)]
    full = [naming for naming in named if naming is not None]
    assert all(naming >= {"colour", "shape", "size", "motion", "relation"} for naming in full)
    background, camera = (sum(word in naming for naming in full) for word in ("background", "camera"))
    for count, of, share in (
        (prompts.count(""), n, 0.1), (len(full), len(named), 0.6),
        (background, len(full), 0.4), (camera, len(full), 0.24),
    ):  # fmt: skip
        assert abs(count / of - share) < 4 * (share * (1 - share) / of) ** 0.5


def assert_agrees(told: world.Scene, scene: world.Scene):
    """Nothing that is told is wrong; things may be told in another order, when the relation says so."""
    for name in ("background", "camera"):
        assert getattr(told, name) in (None, getattr(scene, name))
    orders = itertools.permutations(scene.things)
    assert any(
        all(
            said in (None, true)
            for one, other in zip(told.things, order, strict=False)
            for said, true in zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
        )
        for order in orders
    )


def test_some_clips_are_masked_as_for_a_task(generator):
    """White clips, so that what is hidden shows: always grey, in all channels alike."""
    video = torch.ones(400, 3, 5, 16, 16)
    hidden = recipes.hide_some(video, generator, share=0.4)
    assert video.min() == 1 and set(hidden.unique().tolist()) == {0, 1}
    assert torch.equal((hidden == 0).any(1), (hidden == 0).all(1))
    share = (hidden == 0).flatten(1).any(1).float().mean()
    assert abs(share - 0.4) < 4 * (0.24 / 400) ** 0.5
    assert torch.equal(hidden, recipes.hide_some(video, generator.manual_seed(0), share=0.4))


def test_scenes_and_seeds_come_from_the_generator(generator):
    first = recipes.draw_scenes(generator, 3)
    assert recipes.draw_scenes(generator, 3) != first
    assert recipes.draw_scenes(generator.manual_seed(0), 3) == first
    seeds = [recipes.draw_seed(generator) for _ in range(50)]
    assert len(set(seeds)) == 50 and all(0 <= seed < 2**31 for seed in seeds)


def test_the_decoder_learns_on_alone(tmp_path):
    torch.manual_seed(0)
    model = CausalVideoAutoencoder(LITTLE.autoencoder)
    model.std.fill_(2.0)
    before = copy.deepcopy(model)
    better = recipes.train_decoder(model, tmp_path)
    assert_same_weights(model, before)
    assert_same_weights(better.encoder, model.encoder)
    assert (better.std == 2).all()
    old = model.decoder.state_dict()
    assert not [name for name, value in better.decoder.state_dict().items() if torch.equal(value, old[name])]


# ---- Bad input -------------------------------------------------------------------------------------------


def test_an_unknown_recipe_is_explained(tmp_path):
    with pytest.raises(ValueError, match="recipe 'huge' is unknown; use one of: autoencoder, text, tiny"):
        recipes.run("huge", out=tmp_path)


def test_a_folder_that_is_not_there_cannot_be_resumed(tmp_path):
    with pytest.raises(ValueError, match=r"no/such' is no folder of a run; leave it out"):
        recipes.run("text", resume=tmp_path / "no/such")
    assert not list(tmp_path.iterdir())


def test_only_tiny_can_start_from_a_checkpoint_and_has_a_cache(tmp_path):
    with pytest.raises(ValueError, match="start and clips: for the recipe tiny alone; leave it out"):
        recipes.run("text", out=tmp_path, start=tmp_path, clips=3)


@pytest.mark.parametrize("name", ["steps", "clips", "batch"])
def test_counts_must_be_positive(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}=0 must be a whole number of at least 1"):
        recipes.run("tiny", out=tmp_path, **{name: 0})
    assert not list(tmp_path.iterdir())


def test_batch_and_cache_can_be_chosen(tmp_path, monkeypatch):
    shapes = []
    monkeypatch.setattr(
        recipes.TextToVideo, "loss", lambda self, z, *_: shapes.append(z.shape) or self.dit.final.bias.sum()
    )
    recipes.run("tiny", out=tmp_path, steps=2, batch=3, clips=7)
    assert [shape[0] * shape[2] // 5 for shape in shapes] == [3, 3]
    assert len(torch.load(tmp_path / "dit/latents/00000.pt", weights_only=True)["latents"]) == 7


def test_a_damaged_cache_of_latents_is_explained(tmp_path):
    (tmp_path / "00000.pt").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"00000\.pt is damaged .* delete it"):
        recipes.cached_examples(CausalVideoAutoencoder(LITTLE.autoencoder), tmp_path, draw(2))


@pytest.fixture
def encoded(monkeypatch) -> list[world.Scene]:
    """The scenes that are encoded, in chunks of two clips."""
    monkeypatch.setattr(recipes, "CHUNK", 2)
    seen, encode = [], recipes.encode_scenes

    def recorded(model, scenes, *rest):
        seen.extend(scenes)
        return encode(model, scenes, *rest)

    monkeypatch.setattr(recipes, "encode_scenes", recorded)
    return seen


def test_latents_that_a_stop_left_are_not_made_again(tmp_path, encoded):
    model, scenes = CausalVideoAutoencoder(LITTLE.autoencoder), draw(5)
    first = recipes.cached_examples(model, tmp_path, scenes)
    assert encoded == scenes and len(list(tmp_path.iterdir())) == 3
    (tmp_path / "00002.pt").unlink()
    encoded.clear()
    again = recipes.cached_examples(model, tmp_path, scenes)
    for name in ("latents", "given", "mask"):
        assert torch.equal(getattr(again, name), getattr(first, name))
    assert encoded == scenes[2:4]


def test_latents_of_another_encoder_or_other_scenes_are_not_used(tmp_path, encoded):
    model, scenes = CausalVideoAutoencoder(LITTLE.autoencoder), draw(4)
    recipes.cached_examples(model, tmp_path, scenes)
    encoded.clear()
    model.decoder.stem.bias.data += 1  # does not matter
    others = [*scenes[:2], *draw(2, seed=5)]
    recipes.cached_examples(model, tmp_path, others)
    assert encoded == others[2:]
    encoded.clear()
    model.mean += 0.5
    moved = recipes.cached_examples(model, tmp_path, others).latents
    assert encoded == others
    wanted = model.encode(world.render_batch(others))
    torch.testing.assert_close(moved.float(), wanted, rtol=2e-3, atol=2e-3)
