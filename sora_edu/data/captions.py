"""Captions of the toy world: a small grammar that writes sentences about scenes, and reads them back.

One table of wordings serves both ways. `caption` picks wordings from it; `parse` looks for the same
wordings in a prompt, so whatever the grammar writes it can also read. The vocabulary is closed: a word
that is not in it is answered with the nearest words that are, and with a whole prompt that works.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache

from sora_edu.data.scene import BACKGROUNDS, CAMERAS, COLOURS, DIGITS, MOTIONS, SHAPES, SIZES, TEXTURED, Scene, Thing

NAMES = ("shape", "colour", "size", "motion", "background", "camera", "relation")
"""What a caption can name."""

_SHORT = frozenset(("shape", "colour", "motion", "relation"))
_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_MOVES = ("moves", "slides", "goes", "drifts")

# ---- Wordings that captions use: value -> ways to say it, the commonest first ---------------------------

_SHAPE_WORDINGS = {shape: (shape,) for shape in SHAPES} | {
    digit: (digit, f"handwritten {digit}", word, f"handwritten {word}", f"digit {digit}")
    for digit, word in zip(DIGITS, _NUMERALS, strict=True)
}
_NOUNS = ("thing", "object")  # for a thing whose shape is not named
_SIZE_WORDINGS = {"small": ("small", "little"), "large": ("large", "big")}
_MOTION_WORDINGS = {
    **{
        f"moves {side}": tuple(f"{verb} {side}" for verb in _MOVES) + tuple(f"{verb} to the {side}" for verb in _MOVES)
        for side in ("left", "right")
    },
    "moves up": (*(f"{verb} up" for verb in _MOVES), "rises"),
    "moves down": tuple(f"{verb} down" for verb in _MOVES),
    "falls": ("falls", "drops"),
    "bounces": ("bounces",),
    "orbits": ("orbits", "circles around", "goes around"),
    "spins": ("spins", "rotates", "turns"),
    "grows": ("grows", "gets bigger"),
    "shrinks": ("shrinks", "gets smaller"),
    "stands still": ("stands still", "does not move", "rests", "stays still"),
}
_BACKGROUND_WORDINGS = {
    "dark": ("dark", "black"),
    "light": ("light", "white"),
    "checkered": ("checkered",),
    "striped": ("striped",),
}
_CAMERA_WORDINGS = {
    "still": ("stays still", "is still", "does not move"),
    "pans left": ("pans left", "pans to the left"),
    "pans right": ("pans right", "pans to the right"),
    "zooms in": ("zooms in",),
    "zooms out": ("zooms out",),
}
_INVERSE = {"apart": "apart", "in front of": "behind", "behind": "in front of"}

# ---- The closed vocabulary -----------------------------------------------------------------------------

KINDS: dict[str, tuple[str, ...]] = {
    "shapes": (*SHAPES, *_NOUNS),
    "digits": (*DIGITS, *_NUMERALS, "handwritten", "digit"),
    "colours": tuple(COLOURS),
    "sizes": ("small", "little", "large", "big"),
    "motions": (
        *_MOVES, "left", "right", "up", "down", "to", "rises", "falls", "drops", "bounces", "orbits", "circles",
        "around", "spins", "rotates", "turns", "grows", "shrinks", "gets", "bigger", "smaller", "stands", "stays",
        "still", "rests", "does", "not",
    ),
    "backgrounds": ("dark", "black", "light", "white", "checkered", "striped", "background", "on", "over"),
    "camera": ("camera", "pans", "zooms", "in", "out"),
    "two things": ("and", "with", "next", "beside", "front", "of", "behind", "it"),
    "small words": ("a", "an", "the", "that", "there", "is", "while", "as"),
}
"""Every known word by its kind."""

VOCABULARY: tuple[str, ...] = tuple(word for group in KINDS.values() for word in group)
"""The closed list of words: all that a caption can contain, and all that a text encoder has to know."""

_VERB_FORMS = {
    "moves": "move moving", "slides": "slide sliding", "goes": "go going", "drifts": "drift drifting",
    "rises": "rise rising", "falls": "fall falling", "drops": "drop dropping", "bounces": "bounce bouncing",
    "orbits": "orbit orbiting", "circles": "circling", "spins": "spin spinning", "rotates": "rotate rotating",
    "turns": "turn turning", "grows": "grow growing expands expanding", "shrinks": "shrink shrinking",
    "gets": "get getting becomes becoming", "stands": "stand standing", "stays": "stay staying remains remaining",
    "rests": "rest resting", "does": "do", "pans": "pan panning", "zooms": "zoom zooming", "is": "are",
}
_SYNONYMS = {
    "circle": "ball disc disk dot", "square": "box", "cross": "plus", "ring": "donut doughnut",
    "thing": "shape something", "object": "item", "digit": "number numeral", "handwritten": "hand-written",
    "purple": "violet", "cyan": "turquoise", "small": "tiny", "large": "huge", "bigger": "larger",
    "left": "leftward leftwards", "right": "rightward rightwards", "up": "upward upwards",
    "down": "downward downwards", "still": "static motionless fixed unmoving", "around": "round",
    "checkered": "chequered checked checkerboard chessboard", "striped": "stripy", "background": "backdrop",
    "beside": "alongside", "on": "against", "that": "which",
}  # fmt: skip
_FORMS = {
    form: word for table in (_VERB_FORMS, _SYNONYMS) for word, forms in table.items() for form in forms.split()
}
_PARTICIPLES = {word: forms.split()[1] for word, forms in _VERB_FORMS.items() if " " in forms} | {"circles": "circling"}
_CONTRACTIONS = {"doesn't": "does not", "isn't": "is not", "it's": "it is", "there's": "there is", "that's": "that is"}
_LOOKUP = {word: word for word in VOCABULARY} | _FORMS
_DETERMINED = {*SHAPES, *_NOUNS, *COLOURS, *KINDS["sizes"], "handwritten", "digit"}

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[^\s\w\"'()\[\]*_–—…-]")
_PAUSES = frozenset(",;:.!?")
_OPENING = re.compile(r"^\s*(?:(?:an?|the)\s+)?(?:video|clip|movie|film|animation|picture)\s+of\s+")


class PromptError(ValueError):
    """A prompt that the toy world cannot show; its message says why, and what would work."""

    def __init__(self, message: str, suggestion: str, unknown: tuple[str, ...] = ()):
        super().__init__(f"{message}\nThis prompt works: {suggestion}")
        self.suggestion = suggestion
        """The nearest whole prompt that works."""
        self.unknown = unknown
        """The words that are not in `VOCABULARY`."""


# ---- Words ---------------------------------------------------------------------------------------------


def words(text: str) -> tuple[str, ...]:
    """The words of a prompt, each in the form that `VOCABULARY` lists: lower case, "bouncing" as "bounces".

    Raises `PromptError` for words that are not known.
    """
    return tuple(word for word in _tokens(text) if word not in _PAUSES)


def _tokens(text: str) -> list[str]:
    """Known words and pauses, in order."""
    raw = _split(text)
    unknown = tuple(dict.fromkeys(word for word in raw if word not in _LOOKUP and word not in _PAUSES))
    if unknown:
        raise PromptError(_about_unknown(text, unknown), _suggest(raw), unknown)
    return _normal(raw)


def _split(text: str) -> list[str]:
    text = _OPENING.sub("", text.lower().replace("’", "'"))
    raw = _WORD.findall(text)
    return [part for word in raw for part in _CONTRACTIONS.get(word, word).split()]


def _normal(raw: list[str]) -> list[str]:
    tokens = [_LOOKUP.get(word, word) for word in raw]
    # "one red star" counts things; "a red one" is the digit.
    return [
        "a" if word == "one" and index + 1 < len(tokens) and tokens[index + 1] in _DETERMINED else word
        for index, word in enumerate(tokens)
    ]


def known_words() -> str:
    """The vocabulary as text, one line for each kind."""
    return "\n".join(f"  {kind}: {', '.join(group)}" for kind, group in KINDS.items())


def _about_unknown(text: str, unknown: tuple[str, ...]) -> str:
    lines = []
    for word in unknown:
        near = get_close_matches(word, _CONTENT, n=3, cutoff=0.5)
        lines.append(f"{word!r} is not a known word" + (f"; the nearest are: {', '.join(near)}" if near else ""))
    return f"The prompt {text!r} is outside the toy world: " + "; ".join(lines) + f".\nKnown words:\n{known_words()}"


_CONTENT = tuple(dict.fromkeys((*(w for k, g in KINDS.items() if k != "small words" for w in g), *_FORMS)))

# ---- Reading -------------------------------------------------------------------------------------------


def _without_articles(tokens: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for word in tokens if word not in ("a", "an", "the"))


def _reading_table() -> dict[tuple[str, ...], tuple[str, str | None]]:
    """Phrase -> (kind, value): the wordings of captions, and some more that people write."""
    phrases: dict[str, tuple[str, str | None]] = {}

    def add(kind, value, *wordings):
        phrases.update(dict.fromkeys(wordings, (kind, value)))

    for shape, wordings in _SHAPE_WORDINGS.items():
        add("shape", shape, *wordings)
    for digit, numeral in zip(DIGITS, _NUMERALS, strict=True):
        add("shape", digit, f"handwritten digit {digit}", f"digit {numeral}", f"handwritten digit {numeral}")
    add("noun", None, *_NOUNS)
    for colour in COLOURS:
        add("colour", colour, colour)
    for size, wordings in _SIZE_WORDINGS.items():
        add("size", size, *wordings)
    for motion, wordings in _MOTION_WORDINGS.items():
        add("motion", motion, *wordings)
    add("motion", "falls", "falls down", "drops down")
    add("motion", "bounces", "bounces up and down")
    add("motion", "orbits", "circles", "orbits around")
    for verb in _MOVES:
        add("motion", "orbits", f"{verb} around", f"{verb} in a circle", f"{verb} in circles",
            f"{verb} around in a circle", f"{verb} around in circles")  # fmt: skip
        add("motion", "moves up", "rises up")
    for verb in ("spins", "rotates", "turns"):
        add("motion", "spins", f"{verb} around")
    add("motion", "grows", "grows bigger")
    add("motion", "shrinks", "shrinks smaller", "grows smaller")
    add("motion", "stands still", "still", "not moves", "rests still")
    for background, wordings in _BACKGROUND_WORDINGS.items():
        for word in wordings:
            add("background", background, f"{word} background", f"on {word} background", f"over {word} background",
                f"in front of {word} background", f"background is {word}", f"on {word}")  # fmt: skip
    for camera, wordings in _CAMERA_WORDINGS.items():
        for wording in (*wordings, camera):
            add("camera", camera, f"camera {wording}", f"camera is {wording}")
    for side in ("left", "right"):
        moving = (f"moves {side}", f"moves to {side}", f"pans {side}", f"pans to {side}")
        add("camera", f"pans {side}", *(f"camera {verb}" for verb in moving), *(f"camera is {verb}" for verb in moving))
        add("camera", f"pans {side}", *moving[2:])
    for zoom in ("zooms in", "zooms out"):
        add("camera", zoom, zoom)
    add("camera", "still", "still camera", "camera is not moves", "camera stands still", "camera rests")
    add("relation", "apart", "next to", "beside")
    for relation in ("in front of", "behind"):
        add("relation", relation, relation)
        # "A; in front of it B" says where B is, seen from A.
        add("relation to it", _INVERSE[relation], f"{relation} it")
    add("relation to it", "apart", "next to it", "beside it")
    add("joint", "apart", "and")
    add("joint", None, "with", "while", "as", *_PAUSES)
    add("filler", None, "that", "there", "is", "it", "on", "over", "of")
    # Articles and endings are taken off prompts before they are looked up here.
    return {_without_articles(_normal(phrase.split())): mark for phrase, mark in phrases.items()}


_PHRASES = _reading_table()
_LONGEST = max(map(len, _PHRASES))


@dataclass
class _Draft:
    """What was understood of a prompt so far, and what was wrong with it."""

    things: list[dict[str, str]] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def put(self, target: dict[str, str], kind: str, value: str) -> None:
        said = target.setdefault(kind, value)
        if said != value:
            hint = '; for two things, write "… and …"' if kind == "shape" else ""
            self.complaints.append(f"it says both {said!r} and {value!r} where one {kind} can be{hint}")


def parse(text: str) -> Scene:
    """The scene that a prompt describes; what it does not say is None.

    Case, punctuation and articles do not matter, and "a red star bounces", "a bouncing red star" and "a star that
    is red and is bouncing" are one scene. Two things stand in the order in which they are named.

    Raises `PromptError` for an empty prompt, for unknown words, for contradictions ("a red blue star") and for what
    no viewer could tell ("a spinning circle"); its `suggestion` is the nearest prompt that works.
    """
    if not isinstance(text, str):
        raise PromptError(f"A prompt is a text; this is {text!r}.", _suggest([]))
    tokens = _without_articles(_tokens(text))
    if not any(word not in _PAUSES for word in tokens):
        raise PromptError("The prompt is empty: say what is to be seen.", _suggest([]))
    draft = _read(tokens)
    if not draft.complaints:
        try:
            return Scene(tuple(Thing(**thing) for thing in draft.things), **draft.whole)
        except ValueError as error:
            draft.complaints.append(str(error))
    raise PromptError(f"The prompt {text!r} cannot be shown: {'; '.join(draft.complaints)}.", _suggest(tokens))


def _read(tokens: tuple[str, ...]) -> _Draft:
    """Reads as much as makes sense; whatever does not becomes a complaint."""
    draft = _Draft()
    marks = []
    for kind, value in _marks(tokens, draft):
        if kind in ("background", "camera"):
            draft.put(draft.whole, kind, value)
        elif kind != "filler":
            marks.append((kind, value))
    parts, relation = _split_things(marks, draft)
    for part in parts:
        thing: dict[str, str] = {}
        for kind, value in part:
            if value is not None:
                draft.put(thing, kind, value)
        draft.things.append(thing)
    if relation and len(parts) == 2:
        draft.whole["relation"] = relation
    return draft


def _marks(tokens: tuple[str, ...], draft: _Draft) -> list[tuple[str, str | None]]:
    """The longest known phrase at every place."""
    marks, place = [], 0
    while place < len(tokens):
        for length in range(_LONGEST, 0, -1):
            mark = _PHRASES.get(tokens[place : place + length])
            if mark:
                marks.append(mark)
                break
        else:
            draft.complaints.append(_about_leftover(tokens[place]))
            length = 1
        place += length
    return marks


def _about_leftover(word: str) -> str:
    for kind, example in (
        ("backgrounds", "on a dark background"),
        ("camera", "the camera pans left"),
        ("motions", "moves left"),
        ("digits", "a handwritten 7"),
        ("two things", "a red star in front of a blue ring"),
    ):
        if word in KINDS[kind]:
            return f'{word!r} makes no sense where it stands; a way to use such words is "{example}"'
    return f"{word!r} makes no sense where it stands"


def _split_things(marks, draft: _Draft):
    """The marks of each thing, and the relation of the first to the second."""
    relations = [(place, kind, value) for place, (kind, value) in enumerate(marks) if kind.startswith("relation")]
    if len(relations) > 1:
        draft.complaints.append("it says more than once where the things stand")
    if not relations:
        return _split_at_joints(marks, draft)
    place, kind, relation = relations[0]
    rest = [[mark for mark in side if not mark[0].startswith("relation")] for side in (marks[:place], marks[place + 1 :])]
    if kind == "relation to it" and not _says_something(rest[1]):  # "A with B behind it"
        parts, _ = _split_at_joints(rest[0], draft)
    else:
        parts = [part for side in rest for part in _split_at_joints(side, draft)[0] if _says_something(part)]
    if len(parts) != 2:
        draft.complaints.append(f"{relation!r} needs one thing before it and one after it")
        parts = parts[:2] or [[]]
    return parts, relation


def _says_something(part) -> bool:
    return any(kind not in ("joint", "filler") for kind, _ in part)


def _split_at_joints(marks, draft: _Draft):
    """Splits at "and", "with" and commas, but only where a new thing begins: "small and red" is one thing."""
    parts, relation, joints, bare = [[]], None, [], True
    pending: list = []  # said since the last joint
    for kind, value in [*marks, ("joint", None)]:
        if kind != "joint":
            pending.append((kind, value))
            continue
        if pending:
            names_thing = any(k in ("shape", "noun") for k, _ in pending)
            if names_thing and not bare:
                parts.append([])
                relation = "apart" if "apart" in joints else None
            bare = bare and not names_thing
            parts[-1] += pending
            pending, joints = [], []
        joints.append(value)
    if len(parts) > 2:
        draft.complaints.append(f"it names {len(parts)} things; a scene holds one or two")
    return parts[:2], relation


# ---- Suggesting ----------------------------------------------------------------------------------------


def nearest(text: str) -> str:
    """The nearest prompt that works: what `PromptError.suggestion` holds."""
    return _suggest(_split(text))


def _suggest(raw: Iterable[str]) -> str:
    """The nearest prompt that works: known words kept, misspelt ones mended, the rest left to defaults."""
    mended = []
    for word in raw:
        near = [word] if word in _LOOKUP or word in _PAUSES else get_close_matches(word, _CONTENT, n=1, cutoff=0.75)
        mended += near
    draft = _read(_without_articles(_normal(mended)))
    things: list[Thing] = []
    for said in draft.things or [{}]:
        things.append(_with_defaults(said, {thing.colour for thing in things}))
    whole = dict(draft.whole)
    if whole.get("camera", "still") != "still" and whole.get("background") not in (None, *TEXTURED):
        whole["background"] = "checkered"
    naming = {"shape", "colour", "size", "motion", *whole}
    return caption(Scene(tuple(things), **whole), seed=_PLAIN, naming=naming)


def _with_defaults(said: dict[str, str], taken: set[str | None]) -> Thing:
    """A thing that can be shown and that training has seen, with as much of what was said as possible."""
    shapes = [said.get("shape", "circle"), "square", "7"]
    motions = [said.get("motion", "bounces"), *MOTIONS]
    colours = [said.get("colour", "orange"), *COLOURS]
    if said.get("shape") in DIGITS:
        shapes[1:] = ["7"]
    for fixed in ({"shape", "colour", "motion"} & said.keys(), {"motion"} & said.keys(), set()):
        for shape in shapes[: 1 if "shape" in fixed else None]:
            for colour in colours[: 1 if "colour" in fixed else None]:
                for motion in motions[: 1 if "motion" in fixed else None]:
                    try:
                        thing = Thing(shape, colour, said.get("size", "small"), motion)
                    except ValueError:
                        continue
                    if colour not in taken and (not thing.held_out or len(fixed) == 3):
                        return thing
    raise AssertionError("some combination of the vocabulary can always be shown")


# ---- Writing -------------------------------------------------------------------------------------------

_PLAIN = -1  # the seed that always picks the first wording


def caption(scene: Scene, seed: int = 0, naming: str | Iterable[str] | None = None) -> str:
    """A sentence about a scene; another `seed` words it differently.

    `naming` chooses what is named: None leaves it to the seed (as in training), "all" names everything that the scene
    says, "short" the shape, colour and motion (and how two things stand to each other), and a collection of `NAMES`
    exactly those. What is None in the scene is never named. Raises `ValueError` for any other `naming`.
    """
    rng = _Chooser(seed)
    named = _choose_names(naming, rng)
    things = [_Words(thing, named, rng) for thing in scene.things]
    relation = scene.relation if "relation" in named else None
    body = things[0].clause(opening=True) if len(things) == 1 else _pair(things, relation, rng)
    if scene.background and "background" in named:
        body = _add_background(body, scene.background, rng)
    if scene.camera and "camera" in named:
        body = _add_camera(body, scene.camera, rng)
    return body


class _Chooser:
    """Repeatable choices, the first of the options being the likeliest."""

    def __init__(self, seed: int):
        self.random = (lambda: 0.0) if seed == _PLAIN else random.Random(int(seed)).random

    def pick(self, options):
        return options[int(self.random() ** 1.5 * len(options))]


_CHANCES = {"shape": 0.95, "colour": 0.9, "motion": 0.9, "size": 0.7, "relation": 0.9, "background": 0.5, "camera": 0.5}


def _choose_names(naming, rng: _Chooser):
    if naming is None:
        draw = rng.random()
        if draw < 0.4:
            return NAMES
        if draw < 0.5:
            return _SHORT
        return {name for name, chance in _CHANCES.items() if rng.random() < chance}
    if naming == "all":
        return NAMES
    if naming == "short":
        return _SHORT
    named = {naming} if isinstance(naming, str) else set(naming)
    if not named <= set(NAMES):
        raise ValueError(f"naming={naming!r}; it can be None, 'all', 'short', or some of: {', '.join(NAMES)}")
    return named


class _Words:
    """The chosen words for one thing."""

    def __init__(self, thing: Thing, named, rng: _Chooser):
        self.rng = rng
        self.adjectives = ""
        if thing.size and "size" in named:
            self.adjectives = rng.pick(_SIZE_WORDINGS[thing.size]) + " "
        if thing.colour and "colour" in named:
            self.adjectives += thing.colour + " "
        self.noun = rng.pick(_SHAPE_WORDINGS[thing.shape] if thing.shape and "shape" in named else _NOUNS)
        self.motion = rng.pick(_MOTION_WORDINGS[thing.motion]) if thing.motion and "motion" in named else None

    def clause(self, opening: bool = False) -> str:
        """A whole clause: "a red star bounces"."""
        style = self.rng.pick(("plain", "that", "is", "before", "there") if opening else ("plain", "is", "before"))
        if style == "there":
            return f"there is {self.phrase()}"
        if style in ("that", "before") or self.motion is None:
            return self.phrase(before=style == "before")
        if style == "is" and (participle := _participle(self.motion)):
            return f"{self._noun_phrase()} is {participle}"
        return f"{self._noun_phrase()} {self.motion}"

    def phrase(self, before: bool | None = None) -> str:
        """A noun with all that belongs to it: "a red star that bounces", "a bouncing red star"."""
        if self.motion is None:
            return self._noun_phrase()
        before = self.rng.random() > 0.6 if before is None else before
        if before and " " not in self.motion:
            return self._noun_phrase(_PARTICIPLES[self.motion] + " ")
        return f"{self._noun_phrase()} that {self.motion}"

    def _noun_phrase(self, before: str = "") -> str:
        text = before + self.adjectives + self.noun
        vowel = text[0] in "aeo8" and not text.startswith("one")
        return f"{'an' if vowel else 'a'} {text}"


@lru_cache
def _participle(motion: str) -> str | None:
    verb, *rest = motion.split()
    return " ".join((_PARTICIPLES[verb], *rest)) if verb in _PARTICIPLES else None


def _pair(things: list[_Words], relation: str | None, rng: _Chooser) -> str:
    first, second = things
    if relation is None:
        return f"{first.clause(opening=True)} with {second.phrase()}"
    if relation == "apart":
        joint = rng.pick(("and", "next to", "beside"))
        return f"{first.clause(opening=True)} {joint} {second.clause() if joint == 'and' else second.phrase()}"
    if rng.random() < 0.7:
        return f"{first.clause(opening=True)} {relation} {second.phrase()}"
    return f"{first.clause(opening=True)}; {_INVERSE[relation]} it {second.clause()}"


def _add_background(body: str, background: str, rng: _Chooser) -> str:
    word = rng.pick(_BACKGROUND_WORDINGS[background])
    way = rng.pick(("on", "over", "before", "is"))
    if way == "before":
        return f"on a {word} background {body}"
    if way == "is":
        return f"{body}, the background is {word}"
    return f"{body} {way} a {word} background"


def _add_camera(body: str, camera: str, rng: _Chooser) -> str:
    act = rng.pick(_CAMERA_WORDINGS[camera])
    way = rng.pick(("while", "and", "as", "before", "with"))
    if way == "with" and camera == "still":
        return f"{body} with a still camera"
    if way == "before":
        return f"the camera {act} while {body}"
    return f"{body} {'while' if way == 'with' else way} the camera {act}"


assert set(_SIZE_WORDINGS) == set(SIZES) and set(_MOTION_WORDINGS) == set(MOTIONS)
assert set(_BACKGROUND_WORDINGS) == set(BACKGROUNDS) and set(_CAMERA_WORDINGS) == set(CAMERAS)
