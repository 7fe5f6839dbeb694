"""Captions of the toy world: a small grammar that writes sentences about scenes, and reads them back.

One table of wordings serves both ways. `caption` picks wordings from it; `parse` looks for the same
wordings in a prompt, so whatever the grammar writes it can also read. The vocabulary is closed: a word
that is not in it is answered with the nearest words that are, and with a whole prompt that works.
"""

import random
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from itertools import pairwise, product

from sora_edu.data.scene import (
    BACKGROUNDS,
    CANNOT_SPIN,
    COLOURS,
    DIGITS,
    MOTIONS,
    SHAPES,
    TEXTURED,
    Scene,
    Thing,
)

NAMES = ("shape", "colour", "size", "motion", "background", "camera", "relation")
"""What a caption can name."""

_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NOUNS = ("thing", "object")  # for a thing whose shape is not named
_MOVES = ("moves", "slides", "goes", "drifts")
_INVERSE = {"apart": "apart", "in front of": "behind", "behind": "in front of"}


def _moves(side: str, *between: str) -> tuple[str, ...]:
    return tuple(f"{verb} {word}{side}" for word in ("", *between) for verb in _MOVES)


WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {shape: (shape,) for shape in SHAPES}
    | {
        digit: (digit, f"handwritten {digit}", word, f"handwritten {word}", f"digit {digit}")
        for digit, word in zip(DIGITS, _NUMERALS, strict=True)
    },
    "colour": {colour: (colour,) for colour in COLOURS},
    "size": {"small": ("small", "little"), "large": ("large", "big")},
    "motion": {
        "moves left": _moves("left", "to the "),
        "moves right": _moves("right", "to the "),
        "moves up": (*_moves("up"), "rises"),
        "moves down": _moves("down"),
        "falls": ("falls", "drops"),
        "bounces": ("bounces",),
        "orbits": ("orbits", "circles around", "goes around"),
        "spins": ("spins", "rotates", "turns"),
        "grows": ("grows", "gets bigger"),
        "shrinks": ("shrinks", "gets smaller"),
        "stands still": ("stands still", "does not move", "rests", "stays still"),
    },
    "background": {
        "dark": ("dark", "black"),
        "light": ("light", "white"),
        "checkered": ("checkered",),
        "striped": ("striped",),
    },
    "camera": {
        "still": ("stays still", "is still", "does not move"),
        "pans left": ("pans left", "pans to the left"),
        "pans right": ("pans right", "pans to the right"),
        "zooms in": ("zooms in",),
        "zooms out": ("zooms out",),
    },
    "relation": {
        "apart": ("and", "next to", "beside"),
        "in front of": ("in front of",),
        "behind": ("behind",),
    },
}
"""How captions say each value of each attribute, the commonest wording first."""

# ---- The closed vocabulary -----------------------------------------------------------------------------

KINDS: dict[str, tuple[str, ...]] = {
    "shapes": (*SHAPES, *_NOUNS),
    "digits": (*DIGITS, *_NUMERALS, "handwritten", "digit"),
    "colours": tuple(COLOURS),
    "sizes": ("small", "little", "large", "big"),
    "motions": (
        *_MOVES, "left", "right", "up", "down", "to", "rises", "falls", "drops", "bounces", "orbits",
        "circles", "around", "spins", "rotates", "turns", "grows", "shrinks", "gets", "bigger", "smaller",
        "stands", "stays", "still", "rests", "does", "not",
    ),
    "backgrounds": ("dark", "black", "light", "white", "checkered", "striped", "background", "on", "over"),
    "camera": ("camera", "pans", "zooms", "in", "out"),
    "two things": ("and", "with", "next", "beside", "front", "of", "behind", "it"),
    "small words": ("a", "an", "the", "that", "there", "is", "while", "as"),
}  # fmt: skip
"""Every known word by its kind."""

VOCABULARY: tuple[str, ...] = tuple(word for group in KINDS.values() for word in group)
"""The closed list of words: all that a caption can contain, and all that a text encoder has to know."""

# People write more forms than captions do; each is read as the known word before it.
_VERB_FORMS = {
    "moves": "move moving", "slides": "slide sliding", "goes": "go going", "drifts": "drift drifting",
    "rises": "rise rising", "falls": "fall falling", "drops": "drop dropping", "bounces": "bounce bouncing",
    "orbits": "orbit orbiting", "circles": "circle circling", "spins": "spin spinning",
    "rotates": "rotate rotating", "turns": "turn turning", "grows": "grow growing expands expanding",
    "shrinks": "shrink shrinking", "gets": "get getting becomes becoming", "stands": "stand standing",
    "stays": "stay staying remains remaining", "rests": "rest resting", "does": "do", "is": "are",
    "pans": "pan panning", "zooms": "zoom zooming",
}  # fmt: skip
_SYNONYMS = {
    "circle": "ball disc disk dot", "square": "box", "cross": "plus", "ring": "donut doughnut",
    "thing": "shape something", "object": "item", "digit": "number numeral", "handwritten": "hand-written",
    "purple": "violet", "cyan": "turquoise", "small": "tiny", "large": "huge", "bigger": "larger",
    "left": "leftward leftwards", "right": "rightward rightwards", "up": "upward upwards",
    "down": "downward downwards", "still": "static motionless fixed unmoving", "around": "round",
    "checkered": "chequered checked checkerboard chessboard", "striped": "stripy", "background": "backdrop",
    "beside": "alongside", "on": "against", "that": "which",
}  # fmt: skip
_CONTRACTIONS = {
    "doesn't": "does not", "isn't": "is not", "it's": "it is", "there's": "there is", "that's": "that is",
    "&": "and",
}  # fmt: skip
_FORMS = {
    form: word
    for table in (_VERB_FORMS, _SYNONYMS)
    for word, forms in table.items()
    for form in forms.split()
    if form not in VOCABULARY
}
_LOOKUP = _FORMS | {word: word for word in VOCABULARY}
_PARTICIPLES = {verb: forms.split()[1] for verb, forms in _VERB_FORMS.items() if " " in forms}
_CONTENT = tuple(word for kind, group in KINDS.items() if kind != "small words" for word in group)
_COUNTS = {*DIGITS, *_NUMERALS}
_COUNTED = {*SHAPES, *DIGITS, *_NOUNS, *COLOURS, *KINDS["sizes"], "handwritten", "digit"}

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
    """Every word in the form that the vocabulary lists; unknown ones stay as they are."""
    tokens = [_LOOKUP.get(word, word) for word in raw]
    for index, (word, after) in enumerate(pairwise(raw)):
        # "one red star" and "one bouncing star" count things; "a red one" is the digit.
        if word in ("1", "one") and (tokens[index + 1] in _COUNTED or after.endswith("ing")):
            tokens[index] = "a"
    return tokens


def known_words() -> str:
    """The vocabulary as text, one line for each kind."""
    return "\n".join(f"  {kind}: {', '.join(group)}" for kind, group in KINDS.items())


def _about_unknown(text: str, unknown: tuple[str, ...]) -> str:
    lines = [f"The prompt {text!r} has words that the toy world does not know."]
    for word in unknown:
        near = get_close_matches(word, _CONTENT, n=3, cutoff=0.6)  # at 0.5 "cute" is near "blue"
        answer = f"did you mean {' or '.join(near)}?" if near else "nothing known is spelt like it"
        lines.append(f"  {word!r}: {answer}")
    return "\n".join((*lines, "Known words:", known_words()))


# ---- Reading -------------------------------------------------------------------------------------------


_Mark = tuple[str, str | None]  # what a phrase is about, and what it says


def _without_articles(tokens: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for word in tokens if word not in ("a", "an", "the"))


def _reading_table() -> dict[tuple[str, ...], _Mark]:
    """Phrase -> mark: the wordings of captions, and some more that people write."""
    phrases: dict[str, _Mark] = {}

    def add(kind: str, value: str | None, *wordings: str) -> None:
        phrases.update(dict.fromkeys(wordings, (kind, value)))

    for kind in ("shape", "colour", "size", "motion"):
        for value, wordings in WORDINGS[kind].items():
            add(kind, value, *wordings)
    _add_other_things(add)
    _add_surroundings(add)
    _add_relations(add)
    add("filler", None, "that", "there", "is", "it", "on", "over", "of")
    # Articles and endings are taken off prompts before they are looked up here.
    return {_without_articles(_normal(phrase.split())): mark for phrase, mark in phrases.items()}


def _add_other_things(add: Callable) -> None:
    add("noun", None, *_NOUNS)
    for digit, numeral in zip(DIGITS, _NUMERALS, strict=True):
        add("shape", digit, f"digit {numeral}", f"handwritten digit {digit}", f"handwritten digit {numeral}")
    for verb in _MOVES:
        ways = ("around", "in a circle", "in circles", "around in a circle", "around in circles")
        add("motion", "orbits", *(f"{verb} {way}" for way in ways))
    add("motion", "moves up", "rises up")
    add("motion", "falls", "falls down", "drops down")
    add("motion", "bounces", "bounces up and down")
    add("motion", "orbits", "orbits around")
    add("motion", "spins", "spins around", "rotates around", "turns around")
    add("motion", "grows", "grows bigger")
    add("motion", "shrinks", "grows smaller", "shrinks smaller")
    add("motion", "stands still", "still", "not moving", "rests still")


def _add_surroundings(add: Callable) -> None:
    for background, wordings in WORDINGS["background"].items():
        for word in wordings:
            add("background", background, f"background is {word}", f"background {word}", f"on {word}")
            for place in ("", "on", "over", "in front of"):
                add("background", background, f"{place} {word} background")
    for camera, wordings in WORDINGS["camera"].items():
        for wording in (*wordings, camera):
            add("camera", camera, f"camera {wording}", f"camera is {wording}")
    add("camera", "still", "still camera", "camera is not moving", "camera stands still", "camera rests")
    for side in ("left", "right"):
        for way in (side, f"to {side}"):
            add("camera", f"pans {side}", f"pans {way}", f"camera moves {way}", f"camera is moving {way}")
    add("camera", "zooms in", "zooms in")
    add("camera", "zooms out", "zooms out")


def _add_relations(add: Callable) -> None:
    add("joint", "apart", "and")
    add("joint", None, "with", "while", "as", *_PAUSES)
    for relation in ("next to", "beside", "in front of", "behind"):
        value = relation if relation in _INVERSE else "apart"
        add("relation", value, relation)
        # "A; behind it B" says where B is, seen from A.
        add("relation to it", _INVERSE[value], f"{relation} it")


_ANY_BACKGROUND = f"a background is {', '.join(BACKGROUNDS[:-1])} or {BACKGROUNDS[-1]}"
_TWO_THINGS = 'as in "a red star and a blue ring"'
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
            owner = "a scene" if target is self.whole else "a thing"
            complaint = f"{owner} has one {kind}, not both {said!r} and {value!r}"
            self.complaints.append(
                f"{complaint}; two things are joined, {_TWO_THINGS}" if kind == "shape" else complaint
            )


def parse(text: str) -> Scene:
    """The scene that a prompt describes; what it does not say is None.

    Case, punctuation and articles do not matter, nor does the order of words where English leaves it free:
    "a red star bounces", "a bouncing red star" and "a star that is red and is bouncing" are one scene. Two
    things stand in the order in which they are named. How they stand is said by "and" (apart), "next to",
    "beside", "in front of" or "behind"; "with" leaves it open.

    Raises `PromptError` for an empty prompt, for unknown words, for contradictions ("a red blue star") and
    for what no viewer could tell ("a spinning circle"); its `suggestion` is the nearest prompt that works.
    """
    tokens = _without_articles(_tokens(text))
    if not any(word not in _PAUSES for word in tokens):
        raise PromptError(f"The prompt {text!r} says nothing: name a thing and what it does.", nearest(text))
    draft = _read(tokens)
    if not draft.complaints:
        try:
            return Scene(tuple(Thing(**thing) for thing in draft.things), **draft.whole)
        except ValueError as error:
            # Read aloud, "shape='circle'" is "shape 'circle'".
            draft.complaints.append(re.sub(r"(\w)=(')", r"\1 \2", str(error)))
    reasons = "; ".join(draft.complaints)
    raise PromptError(f"This cannot be shown: {reasons}.\nThe prompt was {text!r}.", nearest(text))


def _read(tokens: tuple[str, ...]) -> _Draft:
    """Reads as much as makes sense; whatever does not becomes a complaint."""
    draft = _Draft()
    marks: list[_Mark] = []
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


def _marks(tokens: tuple[str, ...], draft: _Draft) -> list[_Mark]:
    """The longest known phrase at every place."""
    marks, place = [], 0
    while place < len(tokens):
        word, after = (*tokens[place:], "")[:2]
        if word in _COUNTS and after in _COUNTED:
            draft.complaints.append(f"{word!r} counts; things are named one by one, {_TWO_THINGS}")
            place += 1
            continue
        for length in range(_LONGEST, 0, -1):
            mark = _PHRASES.get(tokens[place : place + length])
            if mark:
                marks.append(mark)
                break
        else:
            draft.complaints.append(_about_leftover(word))
            length = 1
        place += length
    return marks


def _about_leftover(word: str) -> str:
    for kind, advice in (
        ("backgrounds", f'{_ANY_BACKGROUND}, as in "a red star on a dark background"'),
        ("camera", 'it can say what the camera does, as in "the camera pans left"'),
        ("motions", 'a thing has one motion, as in "a red star moves left"'),
        ("digits", 'it goes with a digit, as in "a handwritten 7"'),
        ("two things", f"it can join two things, {_TWO_THINGS}"),
    ):
        if word in KINDS[kind]:
            return f"{word!r} has no meaning where it stands; {advice}"
    return f"{word!r} has no meaning where it stands"


def _split_things(marks: list[_Mark], draft: _Draft) -> tuple[list[list[_Mark]], str | None]:
    """The marks of each thing, and the relation of the first to the second."""
    places = [place for place, (kind, _) in enumerate(marks) if kind.startswith("relation")]
    if not places:
        return _split_at_joints(marks, draft)
    if len(places) > 1:
        draft.complaints.append("it says more than once how two things stand")
    kind, relation = marks[places[0]]
    before = marks[: places[0]]
    after = [mark for mark in marks[places[0] + 1 :] if not mark[0].startswith("relation")]
    if kind == "relation to it" and not _says_something(after):  # "A with B behind it"
        parts, _ = _split_at_joints(before, draft)
    else:
        sides = (_split_at_joints(side, draft)[0] for side in (before, after))
        parts = [part for side in sides for part in side if _says_something(part)]
    if len(parts) != 2:
        draft.complaints.append(f"{relation!r} is about two things, and it names {len(parts)}")
    return parts[:2] or [[]], relation


def _says_something(part: list[_Mark]) -> bool:
    return any(kind != "joint" for kind, _ in part)


def _split_at_joints(marks: list[_Mark], draft: _Draft) -> tuple[list[list[_Mark]], str | None]:
    """Splits at "and", "with" and commas where a new thing begins: "small and red, bouncing" is still one."""
    parts: list[list[_Mark]] = [[]]
    relation, joints, has_noun = None, [], False
    group: list[_Mark] = []  # what stands since the last joint
    for kind, value in [*marks, ("joint", None)]:
        if kind != "joint":
            group.append((kind, value))
            continue
        if group:
            names_thing = any(k in ("shape", "noun") for k, _ in group)
            if names_thing and has_noun:
                parts.append([])
                relation = "apart" if "apart" in joints else None
            has_noun = has_noun or names_thing
            parts[-1] += group
            group, joints = [], []
        joints.append(value)
    if len(parts) > 2:
        draft.complaints.append(f"it names {len(parts)} things; a scene holds one or two")
    return parts[:2], relation


# ---- Suggesting ----------------------------------------------------------------------------------------


_DEFAULTS = {  # the most stubborn first: a colour is changed before a shape is
    "shape": ("circle", *SHAPES),
    "motion": ("bounces", *MOTIONS),
    "size": ("small",),
    "colour": ("orange", *COLOURS),
}


def nearest(text: str) -> str:
    """The nearest prompt that works: what `PromptError.suggestion` holds."""
    return _suggest(_split(text))


def _suggest(raw: Iterable[str]) -> str:
    """Known words are kept, misspelt ones mended, and the rest is left to defaults."""
    mended = [known for word in raw for known in _mend(word)]
    draft = _read(_without_articles(_normal(mended)))
    things: list[Thing] = []
    for said in draft.things:
        things.append(_with_defaults(said, {thing.colour for thing in things}))
    whole = dict(draft.whole)
    if whole.get("camera", "still") != "still" and whole.get("background") not in (None, *TEXTURED):
        whole["background"] = TEXTURED[0]
    return _write(Scene(tuple(things), **whole), NAMES, _Chooser(lambda: 0.0))


def _mend(word: str) -> list[str]:
    if word in _LOOKUP or word in _PAUSES:
        return [word]
    return get_close_matches(word, _CONTENT, n=1, cutoff=0.75)


def _with_defaults(said: dict[str, str], taken: Collection[str | None]) -> Thing:
    """A thing that keeps what was said as far as can be shown, and fills up with what training has seen."""
    said = dict(said)
    if said.get("motion") == "spins" and said.get("shape") in CANNOT_SPIN:
        said["shape"] = "7" if said["shape"] in DIGITS else "square"
    if said.get("colour") in taken:
        del said["colour"]
    options = [(said[name],) if name in said else values for name, values in _DEFAULTS.items()]
    things = [
        Thing(shape, colour, size, motion)
        for shape, motion, size, colour in product(*options)
        if colour not in taken and not (motion == "spins" and shape in CANNOT_SPIN)
    ]
    return next((thing for thing in things if not thing.held_out), things[0])


# ---- Writing -------------------------------------------------------------------------------------------

_SHORT = frozenset(("shape", "colour", "motion", "relation"))
_CHANCES = {
    "shape": 0.95, "colour": 0.9, "size": 0.7, "motion": 0.9, "background": 0.5, "camera": 0.5,
    "relation": 0.9,
}  # fmt: skip


def caption(scene: Scene, seed: int = 0, naming: str | Iterable[str] | None = None) -> str:
    """A sentence about a scene; another `seed` words it differently.

    `naming` chooses what is named: None leaves it to the seed (as in training), "all" names everything that
    the scene says, "short" the shape, colour and motion (and how two things stand to each other), and a
    collection of `NAMES` exactly those. What is None in the scene is never named, and a thing whose shape is
    not named is "a thing" or "an object". Raises `ValueError` for any other `naming`.
    """
    chooser = _Chooser(random.Random(int(seed)).random)
    return _write(scene, _choose_names(naming, chooser), chooser)


def _choose_names(naming: str | Iterable[str] | None, chooser: "_Chooser") -> Collection[str]:
    if naming is None:
        draw = chooser.random()
        if draw < 0.5:
            return NAMES if draw < 0.4 else _SHORT
        return {name for name, chance in _CHANCES.items() if chooser.random() < chance}
    if isinstance(naming, str):
        naming = {"all": NAMES, "short": _SHORT}.get(naming, (naming,))
    named = frozenset(naming)
    if not named <= set(NAMES):
        choices = ", ".join(NAMES)
        raise ValueError(f"naming={naming!r}; it can be None, 'all', 'short', or some of: {choices}")
    return named


class _Chooser:
    """Repeatable choices, the first of the options being the likeliest."""

    def __init__(self, random: Callable[[], float]):
        self.random = random

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.random() ** 1.5 * len(options))]


def _write(scene: Scene, named: Collection[str], chooser: _Chooser) -> str:
    things = [_Words(thing, named, chooser) for thing in scene.things]
    if len(things) == 1:
        body = things[0].clause(opening=True)
    else:
        body = _pair(*things, scene.relation if "relation" in named else None, chooser)
    if scene.background and "background" in named:
        body = _add_background(body, scene.background, chooser)
    if scene.camera and "camera" in named:
        body = _add_camera(body, scene.camera, chooser)
    return body


class _Words:
    """The chosen words for one thing."""

    def __init__(self, thing: Thing, named: Collection[str], chooser: _Chooser):
        def pick(name: str, value: str | None, otherwise=("",)) -> str:
            return chooser.pick(WORDINGS[name][value] if value and name in named else otherwise)

        self.chooser = chooser
        self.size = pick("size", thing.size)
        self.colour = pick("colour", thing.colour)
        self.noun = pick("shape", thing.shape, _NOUNS)
        self.motion = pick("motion", thing.motion)

    def clause(self, opening: bool = False) -> str:
        """A whole clause, such as "a red star bounces"; the opening one has more ways."""
        styles = ("plain", "that", "is", "before", "there") if opening else ("plain", "is", "before")
        style = self.chooser.pick(styles)
        if style == "there":
            return f"there is {self.phrase()}"
        if not self.motion or style in ("that", "before"):
            return self.phrase(before=style == "before")
        if style == "is" and (participle := _participle(self.motion)):
            return f"{self._noun_phrase()} is {participle}"
        return f"{self._noun_phrase()} {self.motion}"

    def phrase(self, before: bool | None = None) -> str:
        """A noun with all of its words: "a red star that bounces" or, `before`, "a bouncing red star"."""
        if not self.motion:
            return self._noun_phrase()
        before = self.chooser.random() > 0.6 if before is None else before
        if before and " " not in self.motion:
            return self._noun_phrase(_PARTICIPLES[self.motion])
        return f"{self._noun_phrase()} that {self.motion}"

    def _noun_phrase(self, participle: str = "") -> str:
        text = " ".join(word for word in (participle, self.size, self.colour, self.noun) if word)
        vowel = text[0] in "aeo8" and not text.startswith("one")
        return f"{'an' if vowel else 'a'} {text}"


@lru_cache
def _participle(motion: str) -> str | None:
    """ "moves left" as "moving left"; None for "does not move", which has no such form."""
    verb, *rest = motion.split()
    return " ".join((_PARTICIPLES[verb], *rest)) if verb in _PARTICIPLES else None


def _pair(first: _Words, second: _Words, relation: str | None, chooser: _Chooser) -> str:
    opening = first.clause(opening=True)
    if relation is None:
        return f"{opening} with {second.phrase()}"
    joint = chooser.pick(WORDINGS["relation"][relation])
    if joint == "and":
        return f"{opening} and {second.clause()}"
    if relation != "apart" and chooser.random() > 0.7:
        return f"{opening}; {_INVERSE[relation]} it {second.clause()}"
    return f"{opening} {joint} {second.phrase()}"


def _add_background(body: str, background: str, chooser: _Chooser) -> str:
    word = chooser.pick(WORDINGS["background"][background])
    way = chooser.pick(("on", "over", "first", "is"))
    if way == "first":
        return f"on a {word} background {body}"
    if way == "is":
        return f"{body}, the background is {word}"
    return f"{body} {way} a {word} background"


def _add_camera(body: str, camera: str, chooser: _Chooser) -> str:
    act = chooser.pick(WORDINGS["camera"][camera])
    way = chooser.pick(("while", "and", "as", "first", "with"))
    if way == "first":
        return f"the camera {act} while {body}"
    if way == "with":
        return f"{body} with a still camera" if camera == "still" else f"{body} while the camera {act}"
    return f"{body} {way} the camera {act}"
