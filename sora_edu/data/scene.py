"""What a toy scene is: its vocabulary, its validity, and the combinations that training never sees.

A `Scene` says what a caption can say, and nothing more. Where things start, how fast they go and how
the handwriting looks follow from its `seed` when it is rendered (`sora_edu.data.render`).
"""

from dataclasses import dataclass, replace

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
DIGITS = tuple("0123456789")
COLOURS = {
    "red": (0.90, 0.12, 0.12),
    "orange": (1.00, 0.52, 0.05),
    "yellow": (0.96, 0.88, 0.10),
    "green": (0.12, 0.68, 0.22),
    "cyan": (0.10, 0.78, 0.85),
    "blue": (0.12, 0.28, 0.92),
    "purple": (0.55, 0.15, 0.80),
    "pink": (1.00, 0.45, 0.75),
}
SIZES = {"small": 0.13, "large": 0.21}  # radius in heights of the picture
MOTIONS = (
    "moves left", "moves right", "moves up", "moves down", "falls", "bounces",
    "orbits", "spins", "grows", "shrinks", "stands still",
)
BACKGROUNDS = ("dark", "light", "checkered", "striped")
TEXTURED = ("checkered", "striped")
CAMERAS = ("still", "pans left", "pans right", "zooms in", "zooms out")
RELATIONS = ("apart", "in front of", "behind")

# What turning does not change, or turns into something else: no viewer could tell that it spins.
CANNOT_SPIN = ("circle", "ring", "0", "6", "9")


def _held_out_pairs(shapes, others, seed) -> frozenset:
    """A tenth of the pairs, spread so that no shape loses more than two and every word stays frequent."""
    pairs = [(s, o) for s in shapes for o in others if not (o == "spins" and s in CANNOT_SPIN)]
    wanted = round(len(pairs) / 10)
    chosen: list = []
    for index in np.random.default_rng(seed).permutation(len(pairs)):
        shape, other = pairs[index]
        if len(chosen) < wanted and all(shape != s and other != o for s, o in chosen[-(len(shapes) - 1) :]):
            chosen.append(pairs[index])
    return frozenset(chosen)


HELD_OUT_COLOURS = _held_out_pairs(SHAPES, COLOURS, 0) | _held_out_pairs(DIGITS, COLOURS, 1)
HELD_OUT_MOTIONS = _held_out_pairs(SHAPES, MOTIONS, 2) | _held_out_pairs(DIGITS, MOTIONS, 3)


def _one_of(name, value, known):
    if value is not None and value not in known:
        raise ValueError(f"{name}={value!r} is not in the toy world; it can be one of: {', '.join(known)}")


@dataclass(frozen=True)
class Thing:
    """One object. None means "not said"."""

    shape: str | None = None
    """One of `SHAPES` or `DIGITS`."""
    colour: str | None = None
    """One of `COLOURS`."""
    size: str | None = None
    """One of `SIZES`: the radius in the first frame."""
    motion: str | None = None
    """One of `MOTIONS`."""

    def __post_init__(self):
        _one_of("shape", self.shape, SHAPES + DIGITS)
        _one_of("colour", self.colour, COLOURS)
        _one_of("size", self.size, SIZES)
        _one_of("motion", self.motion, MOTIONS)
        if self.motion == "spins" and self.shape in CANNOT_SPIN:
            raise ValueError(
                f"shape={self.shape!r} with motion='spins': no viewer could tell; "
                f"let a {'square' if self.shape in SHAPES else '7'} spin, or choose another motion"
            )

    @property
    def held_out(self) -> bool:
        """True when the colour-shape or the shape-motion pair never occurs in training."""
        return (self.shape, self.colour) in HELD_OUT_COLOURS or (self.shape, self.motion) in HELD_OUT_MOTIONS


@dataclass(frozen=True)
class Scene:
    """One or two things, a background and a camera. None means "not said"."""

    things: tuple[Thing, ...]
    """One or two things; a relation is read from the first to the second."""
    background: str | None = None
    """One of `BACKGROUNDS`."""
    camera: str | None = None
    """One of `CAMERAS`; a moving camera needs a textured background."""
    relation: str | None = None
    """One of `RELATIONS` for two things: the first is apart from, in front of or behind the second."""
    seed: int = 0
    """Start, speed, phase and handwriting follow from it."""

    def __post_init__(self):
        object.__setattr__(self, "things", tuple(self.things))
        if len(self.things) not in (1, 2):
            raise ValueError(f"things has {len(self.things)} entries; a scene holds one or two")
        _one_of("background", self.background, BACKGROUNDS)
        _one_of("camera", self.camera, CAMERAS)
        _one_of("relation", self.relation, RELATIONS)
        if self.relation is not None and len(self.things) == 1:
            raise ValueError(f"relation={self.relation!r} needs two things; this scene has one")
        if self.camera not in (None, "still") and self.background not in (None, *TEXTURED):
            raise ValueError(
                f"camera={self.camera!r} over the plain background {self.background!r}: "
                f"no viewer could tell; use one of: {', '.join(TEXTURED)}"
            )
        colours = [thing.colour for thing in self.things if thing.colour]
        if len(colours) != len(set(colours)):
            raise ValueError(f"both things are {colours[0]}; to be told apart they need different colours")

    @property
    def held_out(self) -> bool:
        """True when any of its things is a combination that training never sees."""
        return any(thing.held_out for thing in self.things)

    @property
    def is_core(self) -> bool:
        """True for the core of the world: one of the six shapes, and a camera that does not move."""
        return len(self.things) == 1 and self.things[0].shape in SHAPES and self.camera == "still"

    def complete(self, seed: int) -> "Scene":
        """Fills in, at random but repeatably, whatever was not said, and takes `seed` for the rest."""
        rng = np.random.default_rng([seed, 7])
        background = self.background or rng.choice(
            BACKGROUNDS if self.camera in (None, "still") else TEXTURED).item()
        taken = {thing.colour for thing in self.things}
        things = []
        for thing in self.things:
            filled = _complete_thing(thing, rng, taken)
            taken.add(filled.colour)
            things.append(filled)
        relation = None if len(things) == 1 else self.relation or "apart"
        return Scene(tuple(things), background, self.camera or "still", relation, seed)


def _complete_thing(thing: Thing, rng, taken) -> Thing:
    shapes = [s for s in SHAPES if not (thing.motion == "spins" and s in CANNOT_SPIN)]
    shape = thing.shape or rng.choice(shapes).item()
    motions = [m for m in MOTIONS if not (m == "spins" and shape in CANNOT_SPIN)]
    return replace(
        thing,
        shape=shape,
        colour=thing.colour or rng.choice([c for c in COLOURS if c not in taken]).item(),
        size=thing.size or rng.choice(list(SIZES)).item(),
        motion=thing.motion or rng.choice(motions).item(),
    )
