"""Does a generated clip obey its world? Gravity, bounce, constant speed and permanence, from pixels alone.

A "world simulator" would have to pass these. Each is measured against the laws by which the toy world is
rendered, and on rendered clips too: what those score, behind the autoencoder, is the best that can be seen.

    follow            where the coloured thing of a clip is, frame by frame, whatever law it follows
    acceleration      of a path, by a parabola in each direction
    fit_flight        gravity (and restitution) of something that falls onto a floor, or bounces on it
    same_after        whether what went behind an occluder comes out as what it was
    measure           all of it, for anything that makes clips

The judge (`sora_edu.data.judge`) refuses what follows no law. That is too strict here: a fall with half the
gravity is to be measured, not refused, so `follow` asks for no law, and for no shape either.

Lengths are in heights of the picture, times in seconds, y points down.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares
from torch import Tensor

from sora_edu.data import judge as seeing
from sora_edu.data import world
from sora_edu.data.render import FPS, GRAVITY, _fall
from sora_edu.data.world import Prompted, Scene, Thing
from sora_edu.tasks import put_back, task_mask

GRAVITY_TOLERANCE = 0.05
"""Relative error up to which a fall has the world's gravity."""
STEADY = 0.1
"""Acceleration, in units of the world's g, up to which a thing moves at constant speed."""
LEAST_FLIGHT, LEAST_DROP = 4, 0.1
"""Frames in the air, and heights fallen, from which on gravity can be told."""
WAY = 0.1
"""Heights that a thing must have moved: what stands still has no acceleration either."""

MOVES = ("moves left", "moves right", "moves up", "moves down")


# --- paths -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Path:
    """Where a thing is, frame by frame."""

    x: Float[np.ndarray, " t"]
    """Centre of mass, in heights from the left edge."""
    y: Float[np.ndarray, " t"]
    """Centre of mass, in heights from the top edge."""


def follow(clip: Float[Tensor, "3 t h w"]) -> Path | None:
    """The path of the thing of a clip's most frequent colour; None where a frame shows nothing of it.

    A turning thing's centre of mass may circle its centre; one that does not turn has the same motion.
    """
    pixels = (clip.detach().float().cpu().numpy().transpose(1, 2, 3, 0) + 1) / 2
    chroma = pixels @ seeing.CHROMA
    colours = seeing._colours_present(chroma)
    if not colours:
        return None
    cover = seeing._clean(seeing._coverages(chroma, colours[:1])[0])
    if ((cover > 0.5).sum((1, 2)) <= seeing.LEAST_PIXELS).any():
        return None
    moments, height = seeing._moments(cover), clip.shape[2]
    return Path(moments.x / height, moments.y / height)


def acceleration(places: Float[np.ndarray, " t"], fps: float | int = FPS) -> float:
    """Acceleration of something seen at `places`, by least squares, in their unit per second squared.

    The parabola a + b t + c t^2 has the constant second derivative 2 c. Raises ValueError for fewer than
    three places.
    """
    if len(places) < 3:
        raise ValueError(f"{len(places)} places: a parabola needs at least 3")
    t = np.arange(len(places)) / fps
    return float(2 * np.polyfit(t, np.asarray(places, dtype=float), 2)[0])


def unsteadiness(path: Path) -> float:
    """Size of the acceleration of a path, in units of the world's g: 0 is constant speed on a line."""
    return math.hypot(acceleration(path.x), acceleration(path.y)) / GRAVITY


def moves_steadily(path: Path | None) -> bool:
    """Whether something gets on, and at constant speed."""
    if path is None or math.hypot(path.x[-1] - path.x[0], path.y[-1] - path.y[0]) < WAY:
        return False
    return unsteadiness(path) <= STEADY


# --- falls and bounces -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flight:
    """The law of something thrown above a floor, as far as a path tells it."""

    gravity: float
    """Heights per second squared, downwards."""
    restitution: float
    """Share of its speed that is left after each contact with the floor; 0 if it stays there."""
    speed: float
    """In the first frame, downwards, in heights per second."""
    drop: float
    """Height above the floor in the first frame."""
    floor: float
    """Where the floor is, from the top edge; a guess if it is never reached."""
    miss: float
    """How far the path is from this law (rms, in heights)."""

    @property
    def gravity_error(self) -> float:
        """Relative error of the gravity, against the world's."""
        return self.gravity / GRAVITY - 1


def flight_heights(
    t: Float[np.ndarray, " t"], gravity: float, speed: float, drop: float, restitution: float
) -> Float[np.ndarray, " t"]:
    """Height above the floor of something thrown downwards at `speed` from `drop`, under any gravity.

    The world's own law with another clock: under gravity g everything happens sqrt(g) times as fast.
    """
    pace = math.sqrt(gravity / GRAVITY)
    return _fall(np.asarray(t) * pace, speed / pace, drop, restitution)


def restitution_of(heights: Sequence[float]) -> float:
    """The share of its speed that a bounce keeps, from the heights of successive tops above the floor.

    What falls from h arrives with sqrt(2 g h), and what leaves with v rises to v^2 / 2 g: gravity cancels.
    Several bounces count by the geometric mean of their shares. Raises ValueError for fewer than two tops.
    """
    if len(heights) < 2:
        raise ValueError(f"{len(heights)} tops: a bounce lies between two of them")
    return math.sqrt(heights[-1] / heights[0]) ** (1 / (len(heights) - 1))


def fit_flight(y: Float[np.ndarray, " t"], bounces: bool = False) -> Flight | None:
    """The flight that is nearest to a path, by least squares over all frames, those on the floor included.

    Args:
        y: from the top edge, one for each frame.
        bounces: whether the floor gives speed back, how much being fitted too; else things stay on it.

    Returns:
        None where the path does not tell gravity: less than `LEAST_DROP` heights or `LEAST_FLIGHT` frames in
        the air.
    """
    y, t = np.asarray(y, dtype=float), np.arange(len(y)) / FPS
    if len(y) < LEAST_FLIGHT or np.ptp(y) < LEAST_DROP:
        return None
    found = min((_fit(t, y, start, bounces) for start in _starts(y, bounces)), key=lambda fit: fit.cost)
    gravity, speed, drop, floor, restitution = _unpack(found.x, bounces)
    in_the_air = flight_heights(t, gravity, speed, drop, restitution) > 1e-9
    if in_the_air.sum() < LEAST_FLIGHT:
        return None
    return Flight(gravity, restitution, speed, drop, floor, math.sqrt(2 * found.cost / len(y)))


def _starts(y: np.ndarray, bounces: bool) -> list[list[float]]:
    """Where the search starts: on a floor at the lowest place, or below it; g around 1."""
    drop = max(y.max() - y[0], 0.01)
    return [
        [math.log(gravity), 0.0, drop + below, y.max() + below] + ([0.8] if bounces else [])
        for gravity in (0.4, 1.0, 2.5)
        for below in (0.0, 0.05)
    ]


def _unpack(values: np.ndarray, bounces: bool) -> tuple[float, float, float, float, float]:
    gravity, speed, drop, floor = (float(value) for value in values[:4])
    return math.exp(gravity), speed, drop, floor, float(values[4]) if bounces else 0.0


def _fit(t: np.ndarray, y: np.ndarray, start: list[float], bounces: bool):
    def misses(values: np.ndarray) -> np.ndarray:
        gravity, speed, drop, floor, restitution = _unpack(values, bounces)
        return floor - flight_heights(t, gravity, speed, drop, restitution) - y

    low, high = [math.log(0.01), -3.0, 1e-3, -1.0], [math.log(30.0), 3.0, 3.0, 3.0]
    if bounces:
        low, high = [*low, 0.0], [*high, 1.2]
    return least_squares(misses, np.clip(start, low, high), bounds=(low, high), max_nfev=60)


def falls_right(path: Path | None) -> bool:
    """Whether something falls with the world's gravity, to `GRAVITY_TOLERANCE`."""
    flight = None if path is None else fit_flight(path.y)
    return flight is not None and abs(flight.gravity_error) <= GRAVITY_TOLERANCE


# --- permanence ------------------------------------------------------------------------------------------

GIVEN = 9
"""Frames of a clip that show how a thing goes behind another; the rest is to be made."""
CLEAR = 2
"""Frames at the end in which it must be seen again."""
LEAST_FRAMES = GIVEN + CLEAR + 2
"""Of a clip in which it can be: no two things part fast enough to be clear one frame after half hidden."""
HIDDEN, SHOWN = 0.5, 0.02
"""Shares of a thing that its occluder covers: at least in the last given frame, at most at both ends."""
OPPOSITE = dict(zip(MOVES, ("moves right", "moves left", "moves down", "moves up"), strict=True))


def crossing_scenes(n: int, seed: int, frames: int = 17) -> list[Scene]:
    """`n` scenes in which a small thing passes behind another that comes towards it.

    It is clear at first, hidden by half or more when the given frames end, and clear again at the end. None
    is a combination that is held out. Raises ValueError for a clip too short for that.
    """
    if frames < LEAST_FRAMES:
        raise ValueError(f"frames={frames}: at least {LEAST_FRAMES} are needed to go behind and come out")
    rng, scenes = np.random.default_rng([seed, 41]), []
    while len(scenes) < n:
        shapes, colours = rng.choice(world.SHAPES, 2), rng.choice(list(world.COLOURS), 2, replace=False)
        motion, size = rng.choice(MOVES).item(), rng.choice(list(world.SIZES)).item()
        mover = Thing(shapes[0].item(), colours[0].item(), "small", motion)
        occluder = Thing(shapes[1].item(), colours[1].item(), size, OPPOSITE[motion])
        ground = rng.choice(("dark", "light")).item()
        scene = Scene((mover, occluder), ground, "still", "behind", int(rng.integers(2**31)))
        if scene.held_out:
            continue
        covered = world.overlap(scene, frames)
        if covered[GIVEN - 1] >= HIDDEN and covered[0] <= SHOWN and covered[-CLEAR:].max() <= SHOWN:
            scenes.append(scene)
    return scenes


def same_after(clip: Float[Tensor, "3 t h w"], scene: Scene) -> bool:
    """Whether the last frames show both things of a scene, apart, in their own colour, shape and size."""
    asked = Scene(tuple(replace(thing, motion=None) for thing in scene.things), relation="apart")
    return seeing.judge(clip[:, -CLEAR:]).matches(asked)


# --- all of it, for anything that makes clips ------------------------------------------------------------

Make = Callable[..., Float[Tensor, "b 3 t h w"]]
"""`make(prompts, seeds, **condition)`: a clip for each; the condition as in `Sora.sample`."""
Again = Callable[[Float[Tensor, "b 3 t h w"]], Float[Tensor, "b 3 t h w"]]
"""Real clips as they come back from the autoencoder."""


def prompted(motions: Sequence[str], n: int, seed: int) -> list[Prompted]:
    """`n` scenes of the core with these motions, and prompts that name colour, shape, size and motion."""
    rng, found = np.random.default_rng([seed, 43]), []
    while len(found) < n:
        scene = world.sample_scene(rng, "core")
        if scene.things[0].motion in motions:
            prompt = world.caption(scene, scene.seed, {"colour", "shape", "size", "motion"})
            found.append(Prompted(prompt, world.parse(prompt), scene))
    return found


LAWS: dict[str, tuple[tuple[str, ...], Callable[[Path | None], bool]]] = {
    "gravity_within_5_percent": (("falls",), falls_right),
    "constant_speed": (MOVES, moves_steadily),
}
"""What is measured in clips from text: motions that are asked for, and what must hold."""


def measure(
    make: Make, again: Again, n: int, seed: int, size: tuple[int, int, int], batch: int = 32,
    extends: bool = False,
) -> dict[str, list[bool]]:  # fmt: skip
    """Whether each clip obeys, for each law; `<law>_real` is the same of real clips behind the autoencoder.

    Args:
        make: makes clips.
        again: sends real clips through the autoencoder.
        n: clips for each law.
        seed: of prompts, scenes and noise.
        size: frames, height and width.
        batch: clips made at once.
        extends: whether `make` goes on from given frames, so that permanence can be measured, as
            "permanence": half of a clip is given with an empty prompt.
    """
    found: dict[str, list[bool]] = {}
    for stream, (law, (motions, holds)) in enumerate(LAWS.items()):
        entries, seeds = prompted(motions, n, seed), _seeds(n, seed, stream)
        found[law], found[f"{law}_real"] = [], []
        for part in _parts(n, batch):
            made = make([entry.prompt for entry in entries[part]], seeds[part])
            real = again(world.render_batch([entry.scene for entry in entries[part]], *size))
            found[law] += [holds(follow(clip)) for clip in made]
            found[f"{law}_real"] += [holds(follow(clip)) for clip in real]
    if extends and size[0] >= LEAST_FRAMES:
        found |= _permanence(make, again, n, seed, size, batch)
    return found


def _permanence(make: Make, again: Again, n: int, seed: int, size, batch: int) -> dict[str, list[bool]]:
    scenes, seeds = crossing_scenes(n, seed, size[0]), _seeds(n, seed, len(LAWS))
    mask = task_mask("extend", *size, list(range(GIVEN)), None)
    found: dict[str, list[bool]] = {"permanence": [], "permanence_real": []}
    for part in _parts(n, batch):
        real = world.render_batch(scenes[part], *size)
        made = make([""] * len(real), seeds[part], given=real, mask=mask)
        for whole, back, scene in zip(put_back(made, real, mask), again(real), scenes[part], strict=True):
            found["permanence"].append(same_after(whole, scene))
            found["permanence_real"].append(same_after(back, scene))
    return found


def _parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]


def _seeds(n: int, seed: int, stream: int) -> list[int]:
    return np.random.default_rng([seed, 47, stream]).integers(2**31, size=n).tolist()
