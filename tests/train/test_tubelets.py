"""The trainings of chapter 09: their clips, what is blind to time by construction, and the shipped runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sora_edu.assets import data_path
from sora_edu.patches import pack, patchify_video
from sora_edu.positions import sinusoidal_3d
from sora_edu.sora import Sora
from sora_edu.train import tubelets
from sora_edu.train.tubelets import (
    MOTIONS,
    READERS,
    SIDES,
    STILLS,
    TUBELET,
    ReaderConfig,
    draw_clips,
    latent_tokens,
    make_named,
    make_reader,
    mixed_sizes,
    record,
    start_from,
)

RUNS = json.loads(data_path("curves", "09_tubelets.json").read_text())["readers"]


@pytest.fixture(scope="module")
def films():
    return draw_clips(40, seed=3)


def test_clips_repeat_and_move_as_they_are_labelled(films):
    clips, motions, shapes = films
    assert clips.shape == (40, 1, 9, 16, 16) and clips.abs().max() <= 1
    assert all(torch.equal(a, b) for a, b in zip(draw_clips(40, seed=3), films, strict=True))
    assert not torch.equal(draw_clips(40, seed=4)[0], clips)
    assert len(shapes.unique()) == 6
    ink = (clips[:, 0] > -0.5).double()
    across, down = ink.sum(2), ink.sum(3)
    places = torch.arange(16.0).double()
    x, y, area = (across @ places) / across.sum(2), (down @ places) / down.sum(2), ink.sum((2, 3))
    moved = torch.stack([x[:, 0] - x[:, -1], x[:, -1] - x[:, 0], y[:, 0] - y[:, -1], y[:, -1] - y[:, 0]], 1)
    for k, motion in enumerate(motions.tolist()):
        grown = area[k, -1] / area[k, 0]
        if motion < 4:
            assert moved[k].argmax() == motion and moved[k, motion] > 1
        else:
            assert (grown > 1.2) == (motion == 4) and (grown < 0.8) == (motion == 5)


@pytest.mark.parametrize("name", READERS)
def test_who_can_tell_a_film_from_the_same_backwards(films, name):
    """One frame in the middle, or a bag of sampled frames, says the same, whatever the weights."""
    model = make_reader(READERS[name][0], seed=0).double()
    x = films[0][:8].double()
    same = torch.allclose(model(x), model(x.flip(2)), rtol=1e-10, atol=1e-10)
    assert same == (name in ("one frame", "frames, order unknown"))


def test_a_central_start_is_the_image_model_on_sampled_frames(films):
    image_model, head = make_reader(STILLS, seed=1), make_reader(ReaderConfig(), seed=3).head

    def begun(config, start):
        model = start_from(image_model, config, start, seed=2)
        assert not model(films[0]).any()  # a head of zeros, until it is trained
        model.head = head
        return model

    tubes = begun(ReaderConfig(), "central")
    frames = begun(ReaderConfig(frames=1, sample=TUBELET), "central")
    torch.testing.assert_close(tubes(films[0]), frames(films[0]))
    still = films[0][:, :, :1].expand(-1, -1, 9, -1, -1)
    torch.testing.assert_close(begun(ReaderConfig(), "inflated")(still), frames(still))
    fresh = begun(ReaderConfig(), "random").embed.weight
    assert torch.equal(fresh, make_reader(ReaderConfig(), 2).embed.weight)


def test_a_start_leaves_the_image_model_alone():
    image_model = make_reader(STILLS, seed=1)
    before = [p.clone() for p in image_model.parameters()]
    with torch.no_grad():
        for p in start_from(image_model, ReaderConfig(), "central", seed=0).parameters():
            p.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, image_model.parameters(), strict=True))


def test_the_reader_is_its_formula(films):
    model, x = make_reader(ReaderConfig(), seed=0), films[0][:3]
    tokens = model.embed(patchify_video(x, (3, 4, 4))) + sinusoidal_3d(3, 4, 4, 64)
    for block in model.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(model(x), model.head(model.norm(tokens).mean(1)))


def test_packed_clips_are_read_as_if_alone():
    model, generator = make_reader(ReaderConfig(), seed=0).double(), torch.Generator().manual_seed(0)
    sizes = ((3, 8, 12), (6, 4, 4), (9, 16, 16), (3, 4, 8))
    clips = [torch.randn(1, *size, generator=generator, dtype=torch.float64) for size in sizes]
    packed = pack(clips, (3, 4, 4), 50)
    alone = torch.cat([model(clip[None]) for clip in clips])
    torch.testing.assert_close(model.read_packed(packed), alone, rtol=1e-12, atol=1e-12)
    everything = torch.ones(len(packed.samples), 1, 50, 50, dtype=torch.bool)
    assert not torch.allclose(model.read_packed(packed, everything), alone, atol=1e-3)


def test_a_mixed_batch_has_the_tokens_of_its_latents():
    autoencoder = Sora.from_pretrained("tiny").autoencoder
    sizes = mixed_sizes(200, seed=0)
    assert {size[1:] for size in sizes} == set(SIDES) and {size[0] for size in sizes} == {1, 9, 17, 25}
    assert sizes == mixed_sizes(200, seed=0) != mixed_sizes(200, seed=1)
    for size in ((9, 48, 80), (1, 64, 64)):
        latents = autoencoder.encode(torch.zeros(1, 3, *size))
        assert latent_tokens(size) == patchify_video(latents, (1, 2, 2)).shape[1]


def test_a_short_recording_can_be_read(tmp_path, monkeypatch, films):
    monkeypatch.setattr(tubelets, "known_clips", lambda: films)
    monkeypatch.setattr(tubelets, "test_clips", lambda: films)
    path = tmp_path / "runs.json"
    record(path, ["one frame", "frames"], seeds=2, steps=9, pretraining_steps=9)
    found = json.loads(path.read_text())
    assert found["motions"] == list(MOTIONS)
    for run in found["readers"].values():
        assert run["steps"] == list(range(10))
        assert np.array(run["share_right"]).shape == (2, 10)
        assert np.array(run["confusion"]).sum((1, 2)).tolist() == [40, 40]


def test_training_repeats(monkeypatch, films):
    monkeypatch.setattr(tubelets, "known_clips", lambda: films)
    monkeypatch.setattr(tubelets, "test_clips", lambda: films)
    image_model = make_reader(STILLS, seed=0)
    curves = [tubelets.train_reader(make_named("frames", image_model, 0), 0, steps=9) for _ in range(2)]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("sample", [2, 4])
def test_clips_that_do_not_fit_are_explained(films, sample):
    model = make_reader(replace(STILLS, sample=sample), seed=0)
    with pytest.raises(ValueError, match=rf"x has size \(9, 16, 16\).*patches of \({sample}, 1, 1\)"):
        model(films[0])


def test_the_shipped_runs_say_what_the_chapter_says():
    assert set(RUNS) == set(READERS)
    ends = {name: np.array(run["share_right"])[:, -1] for name, run in RUNS.items()}
    assert all(len(end) == 3 for end in ends.values())
    blind = ("one frame", "frames, order unknown")
    assert max(ends[name].max() for name in blind) < 0.6
    assert min(ends[name].min() for name in set(READERS) - set(blind)) > 0.85
    for name in READERS:
        counts = np.array(RUNS[name]["confusion"])
        assert (counts.trace(axis1=1, axis2=2) / counts.sum((1, 2))) == pytest.approx(ends[name], abs=1e-3)
        if name.startswith("tubelets"):
            assert (ends[name] > 0.98).all()
    moves = np.array(RUNS["frames, order unknown"]["confusion"]).sum(0)[:4]
    for first in (0, 2):  # guesses within a pair: the line of the motion is seen, its way is not
        pair = moves[first : first + 2, first : first + 2]
        assert pair.sum() > 0.7 * moves[first : first + 2].sum()
        assert 0.35 < pair.trace() / pair.sum() < 0.65
