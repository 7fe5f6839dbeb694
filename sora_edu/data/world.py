"""The toy world: scenes with physics, pixels and captions, whose truth is known.

This is the world's public face. What a scene is lives in `scene`, how it is drawn in `render`, how it
is put into words in `captions`; here are the ways to draw scenes at random, for training and for tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sora_edu.data.captions import PromptError, caption, parse
from sora_edu.data.render import (
    FPS,
    GRAVITY,
    Trajectory,
    object_boxes,
    overlap,
    render,
    render_batch,
    trajectories,
)
from sora_edu.data.scene import (
    BACKGROUNDS,
    CAMERAS,
    CANNOT_SPIN,
    COLOURS,
    DIGITS,
    HELD_OUT_COLOURS,
    HELD_OUT_MOTIONS,
    MOTIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURED,
    Scene,
    Thing,
)

__all__ = [
    "BACKGROUNDS", "CAMERAS", "CANNOT_SPIN", "COLOURS", "DIGITS", "FPS", "GRAVITY", "HELD_OUT_COLOURS",
    "HELD_OUT_MOTIONS", "MOTIONS", "RELATIONS", "SHAPES", "SIZES", "SPLITS", "TEXTURED", "Prompted",
    "PromptError", "Scene", "Thing", "Trajectory", "caption", "evaluation_set", "object_boxes", "overlap",
    "parse", "render", "render_batch", "sample_scene", "training_scenes", "trajectories",
]  # fmt: skip

SPLITS = ("seen", "held_out", "digits", "cameras", "two_objects")
# Textures are there to show a moving camera; behind a still one they are rare, for they cost much to learn.
BACKDROPS = {"dark": 0.4, "light": 0.4, "checkered": 0.1, "striped": 0.1}
CLEAR_FRAMES = 4  # in which at least half of a thing behind another shows
TRAINING_MIX = {"core": 0.70, "digits": 0.10, "cameras": 0.08, "two_objects": 0.12}


@dataclass(frozen=True)
class Prompted:
    """One entry of an evaluation set."""

    prompt: str
    """What is asked for."""
    asked: Scene
    """What the prompt names; the rest is None. A clip is right when all of it is read in the clip."""
    scene: Scene
    """A complete scene that fits, to be rendered where a real clip is wanted."""


def _any_thing(rng: np.random.Generator, shapes: tuple[str, ...]) -> Thing:
    while True:
        shape, motion = rng.choice(shapes).item(), rng.choice(MOTIONS).item()
        if not (motion == "spins" and shape in CANNOT_SPIN):
            colour, size = rng.choice(list(COLOURS)).item(), rng.choice(list(SIZES)).item()
            return Thing(shape, colour, size, motion)


def _any_scene(rng: np.random.Generator, kind: str) -> Scene:
    seed = int(rng.integers(2**31))
    shapes = SHAPES if kind == "core" else DIGITS if kind == "digits" else SHAPES * 2 + DIGITS
    background = rng.choice(list(BACKDROPS), p=list(BACKDROPS.values())).item()
    if kind == "cameras":
        background, camera = rng.choice(TEXTURED).item(), rng.choice(CAMERAS[1:]).item()
        return Scene((_any_thing(rng, shapes),), background, camera, None, seed)
    if kind != "two_objects":
        return Scene((_any_thing(rng, shapes),), background, "still", None, seed)
    first, second = _any_thing(rng, shapes), _any_thing(rng, shapes)
    while first.colour == second.colour or first.size == second.size == "large":
        first, second = _any_thing(rng, shapes), _any_thing(rng, shapes)
    return Scene((first, second), background, "still", rng.choice(RELATIONS).item(), seed)


def sample_scene(rng: np.random.Generator, kind: str = "core", held_out: bool = False) -> Scene:
    """Draws a complete scene: `kind` is core, digits, cameras or two_objects.

    Without `held_out` it is one that training may see, with it one that training never sees.
    """
    if kind not in TRAINING_MIX:
        raise ValueError(f"kind={kind!r} is unknown; use one of: {', '.join(TRAINING_MIX)}")
    while (scene := _any_scene(rng, kind)).held_out != held_out or not _shows_its_relation(scene):
        pass
    return scene


def _shows_its_relation(scene: Scene) -> bool:
    """Whether two things keep clear of each other, or cross and can both be seen; of one thing, always.

    A few scenes cannot: two large paths leave no room, or one thing goes along behind the other.
    """
    if len(scene.things) == 1:
        return True
    covered = overlap(scene)
    if scene.relation == "apart":
        return bool(covered.max() < 0.01)
    return bool(covered.max() > 0.1 and (covered < 0.5).sum() >= CLEAR_FRAMES)


def training_scenes(seed: int, mix: dict[str, float] | None = None) -> Iterator[Scene]:
    """An endless stream of scenes without any held-out combination, the same for the same seed."""
    mix = mix or TRAINING_MIX
    kinds, weights = list(mix), np.array(list(mix.values()))
    rng = np.random.default_rng([seed, 17])
    while True:
        yield sample_scene(rng, rng.choice(kinds, p=weights / weights.sum()).item())


def evaluation_set(split: str, n: int, seed: int = 0) -> list[Prompted]:
    """`n` scenes with prompts that name every thing's colour, shape, size and motion.

    Half of the prompts also name the background or the camera. `seen` and `held_out` are the core of
    the world (one of the six shapes, camera still); `digits`, `cameras` and `two_objects` are drawn from
    the combinations that training may see.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; use one of: {', '.join(SPLITS)}")
    if n < 1:
        raise ValueError(f"n={n}: at least one scene is needed")
    rng = np.random.default_rng([seed, 19, SPLITS.index(split)])
    kind = "core" if split in ("seen", "held_out") else split
    return [_prompted(sample_scene(rng, kind, split == "held_out"), i) for i in range(n)]


def _prompted(scene: Scene, index: int) -> Prompted:
    named = {"colour", "shape", "size", "motion"}
    if len(scene.things) == 2:
        named.add("relation")
    if index % 2:
        named.add("camera" if index % 4 == 1 else "background")
    prompt = caption(scene, seed=scene.seed, naming=named)
    return Prompted(prompt, parse(prompt), scene)
