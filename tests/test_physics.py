"""Physics from pixels: closed forms, a numerical integrator, the world's own clips, and clips that cheat."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sora_edu import physics
from sora_edu.data import world
from sora_edu.data.render import FPS, GRAVITY, RESTITUTION
from sora_edu.data.world import Scene, Thing
from sora_edu.physics import (
    GIVEN,
    MOVES,
    acceleration,
    crossing_scenes,
    fit_flight,
    flight_heights,
    follow,
    measure,
    prompted,
    same_after,
    unsteadiness,
)

TIMES = np.arange(17) / FPS


def clip_of(places, colours=None):
    """Dark clips of 17 frames with a bright disc at each place (x, y), in heights; red unless said."""
    rows, columns = np.mgrid[0:64, 0:64] / 64 + 1 / 128
    clip = np.full((3, len(places), 64, 64), -0.8, np.float32)
    for k, (x, y) in enumerate(places):
        colour = world.COLOURS["red" if colours is None else colours[k]]
        cover = np.clip((0.13 - np.hypot(columns - x, rows - y)) * 64 + 0.5, 0, 1)
        for channel, value in enumerate(colour):
            clip[channel, k] += cover * (2 * value - 1 + 0.8)
    return torch.from_numpy(clip)


def fallen(gravity, speed=0.1, drop=0.6, floor=0.85):
    """The closed form of a fall that ends on the floor."""
    height = drop - speed * TIMES - gravity * TIMES**2 / 2
    return floor - np.where(np.minimum.accumulate(height) > 0, height, 0)


@pytest.mark.parametrize(("gravity", "restitution"), [(1.0, 0.85), (1.7, 0.5), (0.6, 0.85), (1.0, 0.0)])
def test_heights_are_those_of_a_numerical_integrator(gravity, restitution):
    def ground(_, state):
        return state[0]

    ground.terminal, ground.direction = True, -1
    start, state, rows = 0.0, [0.4, -0.1], []
    while start < TIMES[-1]:
        solved = solve_ivp(
            lambda _, s: [s[1], -gravity], (start, TIMES[-1]), state, events=ground, dense_output=True,
            rtol=1e-10, atol=1e-12,
        )  # fmt: skip
        rows.append((start, solved.t[-1], solved.sol))
        start, state = solved.t[-1], [1e-12, -restitution * solved.y[1, -1]]
        if state[1] < 1e-6:
            break
    for t, height in zip(TIMES, flight_heights(TIMES, gravity, 0.1, 0.4, restitution), strict=True):
        inside = [sol(t)[0] for a, b, sol in rows if a <= t <= b]
        assert height == pytest.approx(inside[0] if inside else 0.0, abs=1e-6)


@pytest.mark.parametrize("gravity", [0.5, 0.9, 1.0, 1.2, 2.0])
@pytest.mark.parametrize("speed", [-0.1, 0.0, 0.2])
def test_gravity_of_a_closed_form_is_found(gravity, speed):
    found = fit_flight(fallen(gravity, speed))
    assert found.gravity == pytest.approx(gravity, rel=1e-3)
    assert found.gravity_error == pytest.approx(gravity / GRAVITY - 1, abs=2e-3)
    assert found.speed == pytest.approx(speed, abs=2e-3) and found.restitution == 0
    assert found.floor == pytest.approx(0.85, abs=1e-3) and found.miss < 1e-4


@pytest.mark.parametrize("restitution", [0.5, 0.7, 0.85])
def test_a_bounce_gives_gravity_and_restitution(restitution):
    y = 0.8 - flight_heights(TIMES, 1.3, 0.05, 0.25, restitution)
    found = fit_flight(y, bounces=True)
    assert (found.gravity, found.restitution) == pytest.approx((1.3, restitution), rel=0.01)


def test_what_does_not_tell_gravity_is_not_measured():
    assert fit_flight(np.full(17, 0.5)) is None  # stands still
    assert fit_flight(fallen(1.0, drop=0.05)) is None  # too low
    assert fit_flight(fallen(1.0)[:3]) is None
    assert fit_flight(fallen(40.0)) is None  # on the floor at once


@pytest.mark.parametrize("fps", [8, 24])
def test_acceleration_is_the_second_derivative(fps):
    t = np.arange(9) / fps
    assert acceleration(0.3 - 0.2 * t + 0.7 * t**2, fps) == pytest.approx(1.4)
    assert acceleration(0.3 - 0.2 * t, fps) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="2 places: a parabola needs at least 3"):
        acceleration(t[:2])


# --- pixels ----------------------------------------------------------------------------------------------


def test_a_path_is_that_of_the_renderer():
    entries = prompted(("moves left", "moves down", "falls"), 12, 0)
    for entry in entries:
        true = world.trajectories(entry.scene)
        path = follow(world.render(entry.scene, 17, 64, 64))
        for mine, real in ((path.x, true.x[0]), (path.y, true.y[0])):
            assert np.ptp(mine - real) < 0.004  # the centre of mass may stand beside the centre


def test_a_blank_and_a_thing_that_is_gone_have_no_path():
    assert follow(torch.zeros(3, 17, 64, 64)) is None
    clip = clip_of([(0.5, 0.5)] * 5)
    clip[:, 2] = -0.8
    assert follow(clip) is None


def test_the_worlds_own_clips_obey_its_laws():
    falls, moves, bounces = (prompted(m, 12, 1) for m in (("falls",), MOVES, ("bounces",)))
    assert all(physics.falls_right(follow(world.render(e.scene, 17, 64, 64))) for e in falls)
    assert all(physics.moves_steadily(follow(world.render(e.scene, 17, 64, 64))) for e in moves)
    for entry in bounces:
        found = fit_flight(follow(world.render(entry.scene, 17, 64, 64)).y, bounces=True)
        assert abs(found.gravity_error) < 0.02
        assert found.restitution == pytest.approx(RESTITUTION, abs=0.01)


@pytest.mark.parametrize(
    "y",
    [
        fallen(0.0, speed=0.5),  # constant speed, then the floor
        fallen(0.8),
        fallen(1.2),
        np.linspace(0.8, 0.2, 17),  # upwards
    ],
    ids=["constant speed", "g too small", "g too large", "upwards"],
)
def test_a_fall_that_breaks_the_law_is_found_out(y):
    assert not physics.falls_right(follow(clip_of([(0.5, v) for v in y])))
    assert physics.falls_right(follow(clip_of([(0.5, v) for v in fallen(1.0)])))


def test_what_speeds_up_turns_or_stands_does_not_move_steadily():
    steady = [(0.2 + 0.25 * t, 0.5) for t in TIMES]
    assert physics.moves_steadily(follow(clip_of(steady)))
    assert not physics.moves_steadily(follow(clip_of([(0.2 + 0.1 * t**2, 0.5) for t in TIMES])))
    assert not physics.moves_steadily(follow(clip_of([(0.2 + 0.25 * t, 0.3 + 0.09 * t**2) for t in TIMES])))
    assert not physics.moves_steadily(follow(clip_of([(0.5, 0.5)] * 17)))
    assert not physics.moves_steadily(None)
    path = physics.Path(0.2 + 0.25 * TIMES + 0.03 * TIMES**2, 0.5 + 0.04 * TIMES**2)
    assert unsteadiness(path) == pytest.approx(0.1)  # accelerations of 0.06 and 0.08


# --- permanence ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crossings():
    scenes = crossing_scenes(6, 0)
    return scenes, world.render_batch(scenes, 17, 64, 64)


def test_things_go_behind_and_come_out(crossings):
    scenes, clips = crossings
    assert scenes == crossing_scenes(6, 0) and not any(scene.held_out for scene in scenes)
    for scene, clip in zip(scenes, clips, strict=True):
        covered = world.overlap(scene)
        assert covered[GIVEN - 1] >= 0.5 and max(covered[0], covered[-1]) <= 0.02
        assert same_after(clip, scene)
    assert len(crossing_scenes(1, 0, 13)) == 1  # the shortest clip in which it happens
    with pytest.raises(ValueError, match="frames=11: at least 13"):
        crossing_scenes(1, 0, 11)


@pytest.mark.parametrize("what", ["colour", "shape", "gone", "frozen"])
def test_another_thing_behind_the_occluder_is_found_out(crossings, what):
    """From the frame in which it is hidden on, another colour or shape goes on, or nothing does."""
    scenes, clips = crossings
    for scene, clip in zip(scenes, clips, strict=True):
        mover, occluder = scene.things
        if what == "frozen":
            after = clip[:, GIVEN - 1 : GIVEN].expand(-1, 17 - GIVEN, -1, -1)
        elif what == "gone":
            alone = world.render(Scene((occluder,), scene.background, "still", None, scene.seed), 17, 64, 64)
            after = alone[:, GIVEN:]
        else:
            others = world.COLOURS if what == "colour" else world.SHAPES
            other = next(o for o in others if o not in (getattr(mover, what), getattr(occluder, what)))
            things = (Thing(**{**vars(mover), what: other}), occluder)
            changed = world.render(Scene(things, scene.background, "still", "behind", scene.seed), 17, 64, 64)
            after = changed[:, GIVEN:]
        assert not same_after(torch.cat([clip[:, :GIVEN], after], dim=1), scene)


# --- all of it -------------------------------------------------------------------------------------------


def rendered(prompts, seeds, *, given=None, mask=None):
    if given is not None:
        return given
    scenes = [world.parse(prompt).complete(seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    return world.render_batch(scenes, 17, 64, 64)


def frozen(prompts, seeds, **condition):
    """Nothing moves; of given frames the last stands still."""
    made = rendered(prompts, seeds, **condition)
    last = 0 if not condition else GIVEN - 1
    return made[:, :, last : last + 1].expand_as(made)


def test_a_perfect_model_obeys_and_a_frozen_one_does_not():
    size = (17, 64, 64)
    perfect = measure(rendered, lambda clips: clips, 5, 0, size, batch=2, extends=True)
    still = measure(frozen, lambda clips: clips * 0, 5, 0, size, batch=2, extends=True)
    laws = {"gravity_within_5_percent", "constant_speed", "permanence"}
    assert perfect.keys() == still.keys() == laws | {f"{law}_real" for law in laws}
    assert all(len(held) == 5 and all(held) for held in perfect.values())
    assert not any(map(any, still.values()))
    assert "permanence" not in measure(rendered, lambda clips: clips, 1, 0, size)
