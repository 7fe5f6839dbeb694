"""The toy world: its laws against closed forms, its pictures, its splits."""

import math
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from sora_edu.data import world
from sora_edu.data.render import MARGIN, RESTITUTION, _cover_of, drawing_order
from sora_edu.data.scene import CANNOT_SPIN
from sora_edu.data.world import FPS, GRAVITY, Scene, Thing, render, trajectories

SIZES = [(17, 64, 64), (17, 48, 80), (25, 80, 48), (33, 64, 96), (9, 32, 32), (1, 64, 64)]


def scene(motion, seed=0, camera="still", background="checkered", shape="star", size="small"):
    return Scene((Thing(shape, "red", size, motion),), background, camera, None, seed)


def scenes(n, seed=0):
    return list(islice(world.training_scenes(seed), n))


def test_the_same_scene_gives_the_same_pixels_and_another_seed_others():
    clip = render(scene("bounces", 3))
    assert clip.shape == (3, 17, 64, 64) and clip.dtype == torch.float32
    assert clip.min() >= -1 and clip.max() <= 1
    assert torch.equal(clip, render(scene("bounces", 3)))
    assert not torch.equal(clip, render(scene("bounces", 4)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("motion, axis, sign", [
    ("moves left", "x", -1), ("moves right", "x", 1), ("moves up", "y", -1), ("moves down", "y", 1)
])  # fmt: skip
def test_moving_is_a_straight_line_at_constant_speed(motion, axis, sign, seed):
    path = trajectories(scene(motion, seed))
    along = getattr(path, axis)[0]
    across = getattr(path, "y" if axis == "x" else "x")[0]
    assert np.allclose(np.diff(along, 2), 0, atol=1e-12) and np.ptp(across) == 0
    assert sign * (along[-1] - along[0]) > 0.15


@pytest.mark.parametrize("seed", range(10))
def test_falling_is_constant_acceleration_until_the_floor(seed):
    y = trajectories(scene("falls", seed)).y[0]
    flying = y[y < y.max() - 1e-9]
    assert len(flying) >= 4
    assert np.allclose(np.diff(flying, 2) * FPS**2, GRAVITY, rtol=1e-9)
    rest = y[len(flying) :]
    assert np.ptp(rest) < 1e-12 if len(rest) else True


@pytest.mark.parametrize("seed", range(10))
def test_bouncing_loses_the_same_share_of_speed_and_never_sinks(seed):
    # An impact lies between frames: extrapolate the parabolas before and after it to the floor.
    path = trajectories(scene("bounces", seed, shape="circle"), frames=17)
    floor = 1 - path.radius[0, 0]
    height = floor - path.y[0]
    assert (height > -1e-9).all()
    accelerations = np.diff(height, 2) * FPS**2
    jumps = np.flatnonzero(accelerations > -0.5 * GRAVITY)
    free = np.setdiff1d(np.arange(15), np.r_[jumps, jumps + 1, jumps - 1])
    assert np.allclose(accelerations[free], -GRAVITY, rtol=1e-6)
    last_before = jumps[0] + 1
    if last_before < 2:
        return
    v = (height[last_before] - height[last_before - 1]) * FPS - GRAVITY / 2 / FPS
    down = math.sqrt(v * v + 2 * GRAVITY * height[last_before])
    impact = (v + down) / GRAVITY
    since = 1 / FPS - impact
    if 0 < since < 1 / FPS:
        expected = RESTITUTION * down * since - GRAVITY * since**2 / 2
        assert height[last_before + 1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_orbits_are_circles_at_a_steady_pace(seed):
    path = trajectories(scene("orbits", seed))
    z = path.x[0] + 1j * path.y[0]
    rows = np.stack([z.real, z.imag, np.ones(17)], 1)  # x^2 + y^2 = 2ax + 2by + c
    a, b, c = np.linalg.lstsq(rows, np.abs(z) ** 2, rcond=None)[0]
    centre = (a + 1j * b) / 2
    assert np.allclose(np.abs(z - centre), math.sqrt(c + abs(centre) ** 2), atol=1e-9)
    assert np.allclose(np.diff(np.unwrap(np.angle(z - centre)), 2), 0, atol=1e-9)


def test_spinning_growing_shrinking_and_standing_still():
    spin = trajectories(scene("spins", 1))
    assert np.allclose(np.diff(spin.angle[0], 2), 0, atol=1e-12)
    assert 80 <= abs(math.degrees(np.diff(spin.angle[0])[0])) * FPS <= 130
    for motion, low, high in (("grows", 1.5, 1.75), ("shrinks", 1 / 1.75, 1 / 1.5)):
        radius = trajectories(scene(motion, 1)).radius[0]
        assert np.allclose(np.diff(radius, 2), 0, atol=1e-12) and low <= radius[-1] / radius[0] <= high
    still = render(scene("stands still", 1))
    assert (still == still[:, :1]).all()


def test_the_same_film_at_another_size():
    large, small = render(scene("falls"), 17, 128, 128), render(scene("falls"), 17, 64, 64)
    pooled = torch.nn.functional.avg_pool2d(large.transpose(0, 1), 2).transpose(0, 1)
    assert (pooled - small).abs().mean() < 0.01


def test_pixels_at_an_outline_are_mixed():
    clip = render(Scene((Thing("circle", "red", "large", "stands still"),), "dark", "still", None, 0))
    red = clip[0, 0]
    assert ((red > red.min() + 0.2) & (red < red.max() - 0.2)).sum() > 10
    area = (red - red.min()).sum() / (red.max() - red.min()) / 64**2
    assert area == pytest.approx(math.pi * 0.21**2, rel=0.02)


@pytest.mark.parametrize("frames, height, width", SIZES)
def test_things_stay_in_view(frames, height, width):
    for one in scenes(80):
        path = trajectories(one, frames, height, width)
        ends = 0.15 if one.camera != "still" else MARGIN  # what a zoom cannot fit is centred
        assert (path.x > -ends).all() and (path.x < width / height + ends).all()
        assert (path.y > -ends).all() and (path.y < 1 + ends).all()
        assert render(one, frames, height, width).shape == (3, frames, height, width)


def test_a_camera_moves_the_backdrop_but_a_still_one_does_not():
    for camera, moved in (("still", False), ("pans left", True), ("zooms in", True)):
        one = scene("stands still", 2, camera)
        high = trajectories(one).y[0, 0] < 0.4
        corner = render(one)[:, :, -8:] if high else render(one)[:, :, :8]
        assert bool((corner != corner[:, :1]).any()) == moved


def test_who_stands_in_front_covers():
    red_square = Thing("square", "red", "large", "stands still")
    things = (red_square, Thing("circle", "blue", "small", "stands still"))
    front = render(Scene(things, "dark", "still", "in front of", 0))
    behind = render(Scene(things, "dark", "still", "behind", 0))
    differ = (front != behind).any(0)
    assert differ.any()
    red, blue = (torch.tensor(world.COLOURS[name]) * 2 - 1 for name in ("red", "blue"))
    assert ((front - red[:, None, None, None]).abs().amax(0)[differ] < 1e-5).any()
    assert ((behind - blue[:, None, None, None]).abs().amax(0)[differ] < 1e-5).any()


def covered(pair, side=64):
    """The share of the thing behind that the other covers, counted in pixels."""
    path, order = trajectories(pair, 17, side, side), drawing_order(pair)
    back, front = (_cover_of(pair, index, path, side, side)[:, 0] for index in order)
    return ((back * front).sum((1, 2)) / back.sum((1, 2))).numpy()


@pytest.mark.parametrize("sizes", [("small", "small"), ("small", "large"), ("large", "small")])
@pytest.mark.parametrize("relation", ["in front of", "behind", "apart"])
def test_the_overlap_of_circles_is_that_of_their_pixels(relation, sizes):
    colours, motions = ("red", "blue"), ("grows", "moves right")
    things = tuple(Thing("circle", *rest) for rest in zip(colours, sizes, motions, strict=True))
    for seed in range(4):
        pair = Scene(things, "dark", "still", relation, seed)
        np.testing.assert_allclose(world.overlap(pair), covered(pair, 256), atol=0.01)
    assert not world.overlap(Scene(things[:1], "dark", "still", None, 0)).any()


def test_two_things_show_their_relation():
    """Apart, they share hardly a pixel; crossing, they meet, and both are seen in frames enough to tell."""
    rng = np.random.default_rng(2)
    for _ in range(40):
        pair = world.sample_scene(rng, "two_objects")
        shared = covered(pair)
        if pair.relation == "apart":
            assert shared.max() < 0.05, pair
        else:
            assert shared.max() > 0.05 and (shared < 0.6).sum() >= 4, pair


@pytest.mark.parametrize("camera", ["pans left", "pans right"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_pan_leaves_room_to_move_in_a_narrow_picture(camera, side):
    for seed in range(8):
        moving = scene(f"moves {side}", seed, camera, size="large")
        path = trajectories(moving, 17, 80, 48)
        way = path.x[0] + path.camera.pan  # in the world, not on the screen
        assert (way[-1] - way[0]) * (1 if side == "right" else -1) > 0.07
        assert (np.diff(way) * (way[-1] - way[0]) > 0).all()


def test_no_training_scene_holds_a_held_out_pair_and_a_tenth_is_held_out():
    for one in scenes(3000):
        for thing in one.things:
            assert (thing.shape, thing.colour) not in world.HELD_OUT_COLOURS
            assert (thing.shape, thing.motion) not in world.HELD_OUT_MOTIONS
    for shapes in (world.SHAPES, world.DIGITS):
        colours = [pair for pair in world.HELD_OUT_COLOURS if pair[0] in shapes]
        motions = [pair for pair in world.HELD_OUT_MOTIONS if pair[0] in shapes]
        possible = len(shapes) * len(world.MOTIONS) - sum(shape in CANNOT_SPIN for shape in shapes)
        assert len(colours) == round(len(shapes) * len(world.COLOURS) / 10)
        assert len(motions) == round(possible / 10)


def test_every_word_stays_frequent_in_training():
    counts = Counter(value for one in scenes(3000) for thing in one.things for value in vars(thing).values())
    for shape in world.SHAPES:
        assert counts[shape] > 250
    assert all(counts[word] > 60 for word in (*world.COLOURS, *world.MOTIONS))


@pytest.mark.parametrize("split", world.SPLITS)
def test_evaluation_sets_name_every_thing_in_full(split):
    entries = world.evaluation_set(split, 40, seed=1)
    assert [e.prompt for e in entries] == [e.prompt for e in world.evaluation_set(split, 40, seed=1)]
    assert sum(e.asked.background is not None or e.asked.camera is not None for e in entries) == 20
    for entry in entries:
        for asked, thing in zip(entry.asked.things, entry.scene.things, strict=True):
            assert asked == thing
        assert entry.scene.held_out == (split == "held_out")


@pytest.mark.parametrize("make, part", [
    (lambda: Thing(shape="cat"), "one of: circle"),
    (lambda: Thing("circle", motion="spins"), "let a square spin"),
    (lambda: Scene(()), "one or two"),
    (lambda: Scene((Thing(),), "dark", "zooms in"), "checkered, striped"),
    (lambda: Scene((Thing(),), relation="behind"), "needs two things"),
    (lambda: Scene((Thing(colour="red"), Thing(colour="red"))), "different colours"),
    (lambda: render(Scene((Thing("star"),))), "scene.complete(seed)"),
    (lambda: trajectories(scene("falls"), 0), "at least 1 frame"),
    (lambda: world.evaluation_set("unseen", 3), "held_out"),
    (lambda: world.evaluation_set("seen", 0), "at least one"),
    (lambda: world.sample_scene(np.random.default_rng(0), "all"), "two_objects"),
])  # fmt: skip
def test_errors_say_what_would_do(make, part):
    with pytest.raises(ValueError, match=part.replace("(", r"\(").replace(")", r"\)")):
        make()


def test_complete_fills_in_only_what_was_not_said():
    asked = Scene((Thing(colour="red", motion="spins"), Thing()), camera="pans left")
    for seed in range(30):
        full = asked.complete(seed)
        assert full.things[0].colour == "red" and full.things[0].motion == "spins"
        assert full.background in world.TEXTURED and full.camera == "pans left" and full.seed == seed
        assert full.relation == "apart" and full == asked.complete(seed)
        render(full, 1, 32, 32)


def test_object_boxes_are_tight():
    one = Scene((Thing("square", "red", "small", "stands still"),), "dark", "still", None, 0)
    (boxes,) = world.object_boxes(one, margin=0)
    rows, columns = boxes[0]
    covered = render(one)[0, 0] > -0.75
    assert covered[rows, columns].sum() == covered.sum()
    assert rows.stop - rows.start == pytest.approx(2 * 0.85 * 0.13 * 64, abs=2)
