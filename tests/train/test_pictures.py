"""Stills of the toy world: what they show, that the reader reads them, and the weights that ship."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy import linalg

from sora_edu.assets import data_path
from sora_edu.autoencoder import psnr
from sora_edu.data.world import BACKGROUNDS, COLOURS, HELD_OUT_COLOURS, SHAPES, parse
from sora_edu.train import pictures
from sora_edu.train.pictures import (
    PARTS,
    TEST_SEED,
    TRAINING_SEED,
    batch_of,
    draw_pictures,
    flipped,
    framed_pictures,
    frechet_distance,
    picture_autoencoder,
    picture_reader,
    read_pictures,
    reader_accuracy,
    share_read,
    train_autoencoder,
    train_reader,
    train_shipped,
)

FOLDER = data_path("checkpoints", "pictures")


def test_captions_say_what_the_truth_says():
    drawn = draw_pictures(60, 5)
    assert drawn.images.shape == (60, 3, 32, 32) and drawn.images.abs().max() <= 1
    for caption, colour, shape in zip(drawn.captions, drawn.colours, drawn.shapes, strict=True):
        (thing,) = parse(caption).things
        assert (thing.colour, thing.shape) == (tuple(COLOURS)[colour], SHAPES[shape])
        assert thing.size and thing.motion is None and parse(caption).background
        assert (thing.shape, thing.colour) not in HELD_OUT_COLOURS


def test_pictures_hold_the_named_colour():
    drawn = draw_pictures(60, 5)
    wanted = 2 * torch.tensor(list(COLOURS.values()))[drawn.colours] - 1
    nearest = (drawn.images - wanted[:, :, None, None]).abs().amax(1).flatten(1).amin(1)
    assert (nearest < 0.02).all()


def test_a_seed_is_a_set_of_pictures():
    first = draw_pictures(8, 5)
    draw_pictures.cache_clear()
    assert torch.equal(draw_pictures(8, 5).images, first.images)
    assert draw_pictures(8, 5) is draw_pictures(8, 5)
    assert not torch.equal(draw_pictures(8, 6).images, first.images)
    assert draw_pictures(2, 5, side=16).images.shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="n=0: at least one picture"):
        draw_pictures(0, 0)


def test_framed_pictures_have_one_large_thing_in_their_middle():
    drawn = framed_pictures(80, 5)
    assert drawn.images.shape == (80, 3, 32, 32)
    assert set(drawn.backgrounds.tolist()) == {BACKGROUNDS.index("dark"), BACKGROUNDS.index("light")}
    frame = torch.ones(32, 32, dtype=torch.bool)
    frame[4:-4, 4:-4] = False
    assert all(image[:, frame].std(1).max() < 1e-6 for image in drawn.images)  # nothing but ground
    for shape in ("circle", "square", "ring", "cross"):  # whose centre of mass is their middle
        for image in drawn.images[drawn.shapes == SHAPES.index(shape)]:
            ink = (image - image[:, :1, :1]).abs().sum(0)
            places = torch.arange(32) + 0.5
            for sums in (ink.sum(0), ink.sum(1)):
                assert abs((sums * places).sum() / sums.sum() - 16) < 0.55
    for caption, colour, shape in zip(drawn.captions, drawn.colours, drawn.shapes, strict=True):
        (thing,) = parse(caption).things
        assert (thing.colour, thing.shape, thing.size) == (tuple(COLOURS)[colour], SHAPES[shape], "large")
    dark = framed_pictures(80, 5, ("dark",))
    assert torch.equal(dark.shapes, drawn.shapes) and dark.backgrounds.unique().tolist() == [0]
    for wrong in (("checkered",), ()):
        with pytest.raises(ValueError, match=r"backgrounds=.*use some of \('dark', 'light'\)"):
            framed_pictures(1, 0, wrong)


def test_sets_of_pictures_add_up():
    one, two = draw_pictures(3, 5), framed_pictures(4, 5)
    both = one + two
    assert torch.equal(both.images, torch.cat([one.images, two.images]))
    assert both.captions == one.captions + two.captions
    assert both.backgrounds.tolist() == one.backgrounds.tolist() + two.backgrounds.tolist()


def test_flips_keep_or_mirror_each_picture():
    x = draw_pictures(64, 5).images
    turned = flipped(x, torch.Generator().manual_seed(0))
    ways = [x, x.flip(3), x.flip(2), x.flip(2, 3)]
    found = {[torch.equal(way[k], one) for way in ways].index(True) for k, one in enumerate(turned)}
    assert found == {0, 1, 2, 3}
    assert batch_of(x, 5, torch.Generator().manual_seed(0)).shape == (5, 3, 32, 32)


def test_the_reader_reads_real_pictures_raw_and_through_the_autoencoder():
    accuracy = reader_accuracy()
    assert accuracy["raw"] >= 0.98
    assert accuracy["autoencoder"] >= 0.95
    framed, model = framed_pictures(400, TEST_SEED), picture_autoencoder()
    for images in (framed.images, model.decode(model.encode(framed.images))):
        assert share_read(images, framed.colours, framed.shapes) >= 0.99


def test_both_answers_have_to_be_right():
    drawn = draw_pictures(100, TEST_SEED)
    colours, shapes = read_pictures(drawn.images)
    assert share_read(drawn.images, colours, shapes) == 1
    wrong = shapes.clone()
    wrong[:30] = (wrong[:30] + 1) % len(SHAPES)
    assert share_read(drawn.images, colours, wrong) == pytest.approx(0.7)


def test_the_autoencoder_gives_unit_latents_and_good_pictures():
    images, model = draw_pictures(400, TEST_SEED).images, picture_autoencoder()
    both = [images, framed_pictures(400, TEST_SEED).images]
    latents = [model.encode(some) for some in both]
    assert latents[0].shape == latents[1].shape == (400, 4, 8, 8)
    assert torch.cat(latents).std().item() == pytest.approx(1, abs=0.05)
    assert all(psnr(model.decode(z), some) > 30 for z, some in zip(latents, both, strict=True))
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())


def test_the_frechet_distance_is_scipys():
    one, two = draw_pictures(300, TEST_SEED).images, draw_pictures(300, 6).images
    first, second = (picture_reader().features(x).double().numpy() for x in (one, two))
    c1, c2 = np.cov(first.T), np.cov(second.T)
    root = linalg.sqrtm(c1 @ c2 + 1e-12 * np.eye(len(c1))).real
    theirs = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(one, two) == pytest.approx(theirs, rel=1e-3)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(one, 0.5 * two) > 2 * frechet_distance(one, two)


def test_the_weights_that_ship_have_their_names_and_shapes():
    for name, model in (("reader", picture_reader()), ("autoencoder", picture_autoencoder())):
        wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        assert found == wanted
    assert wanted["encoder.0.weight"] == (32, 12) and wanted["scale"] == ()
    assert wanted["decoder.0.weight"] == (64, 36) and len(wanted) == 39
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_500_000


def test_training_repeats_exactly_and_sets_the_scale():
    images = draw_pictures(32, TRAINING_SEED).images
    state = torch.get_rng_state()
    runs = [train_autoencoder(0.01, 3, 4, images=images, seed=2) for _ in range(2)]
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(*pair) for pair in zip(*(r[0].state_dict().values() for r in runs), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert runs[0][0].encode(images).std().item() == pytest.approx(1, abs=1e-4)


def test_what_ships_can_be_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "TRAINING_PICTURES", 16)
    monkeypatch.setattr(pictures, "READER_RUN", pictures.READER_RUN | {"steps": 1, "batch": 4})
    monkeypatch.setattr(pictures, "AUTOENCODER_RUN", pictures.AUTOENCODER_RUN | {"steps": 1, "batch": 4})
    train_shipped(tmp_path / "new")
    assert {path.stem for path in (tmp_path / "new").iterdir()} == set(PARTS)
    reader = train_reader(pictures.READER_RUN, progress="")
    assert not torch.equal(reader.colour.weight, picture_reader().colour.weight)
