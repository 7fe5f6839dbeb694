"""Luma: a small language to translate into, for chapter 04. Every English sentence of its grammar has one
translation, worked out by rules, so a translator can be marked without a teacher.

The rules of Luma:

1. A noun comes first, and its companions follow in the reverse of their English order:
   "the small red star" is "lim sara nina la". "A" has no word.
2. Nouns are soft (star, circle, ring) or hard (square, triangle, cross). Adjectives,
   "the" and verbs end in -a for one soft thing, -e for several, -o for one hard thing,
   -u for several. Several nouns end in -i.
3. The verb stands last and agrees with the subject, however far away that is.
4. "Falls" and "rises" are two words, "go" with "down" or "up"; "does not" is one, "ne",
   before the verb.
5. "Behind" and "above" follow what they belong to.

>>> parse("the small red star follows two squares").luma()
'lim sara nina la kati do sega'
"""

import random
from dataclasses import dataclass
from difflib import get_close_matches

SOFT = {"star": "lim", "circle": "ror", "ring": "mun"}
"""Nouns of the soft class: English -> Luma."""

HARD = {"square": "kat", "triangle": "tek", "cross": "pik"}
"""Nouns of the hard class."""

COLOURS = {"red": "sar", "blue": "vel", "green": "ger", "yellow": "yol"}
"""Stems of colours."""

SIZES = {"small": "nin", "large": "dov"}
"""Stems of sizes."""

NUMBERS = {"two": "do", "three": "tri"}
"""Numbers; they never change."""

TRANSITIVE = {"sees": "vid", "follows": "seg", "pushes": "pul", "hides": "tam"}
"""Stems of verbs that need an object."""

INTRANSITIVE = {"falls": "ven dun", "rises": "ven tal", "spins": "rot", "rests": "mor"}
"""Verbs without an object; the first word is the stem."""

PLACES = {"behind": "pos", "above": "sup"}
"""Words that say where."""

_NOUNS = SOFT | HARD
_VERBS = TRANSITIVE | INTRANSITIVE
_PLURALS = {noun: noun + ("es" if noun == "cross" else "s") for noun in _NOUNS}
_BARE = {verb: verb[:-2] if verb == "pushes" else verb[:-1] for verb in _VERBS}
_ENDINGS = {(True, False): "a", (True, True): "e", (False, False): "o", (False, True): "u"}


@dataclass(frozen=True)
class Phrase:
    """A noun with its companions."""

    noun: str
    """The English noun, in the singular."""
    determiner: str
    """"a", "the" or a number."""
    plural: bool
    """Whether there are several."""
    size: str | None = None
    """A size, or None."""
    colour: str | None = None
    """A colour, or None."""

    @property
    def ending(self) -> str:
        """What adjectives and verbs that belong to this noun end in."""
        return _ENDINGS[self.noun in SOFT, self.plural]

    def english(self) -> str:
        """The phrase in English."""
        noun = _PLURALS[self.noun] if self.plural else self.noun
        return " ".join(word for word in (self.determiner, self.size, self.colour, noun) if word)

    def luma(self) -> str:
        """The phrase in Luma."""
        words = [_NOUNS[self.noun] + "i" * self.plural]
        words += [COLOURS[self.colour] + self.ending] if self.colour else []
        words += [SIZES[self.size] + self.ending] if self.size else []
        words += ["l" + self.ending] if self.determiner == "the" else []
        words += [NUMBERS[self.determiner]] if self.determiner in NUMBERS else []
        return " ".join(words)


@dataclass(frozen=True)
class Sentence:
    """A subject, a verb, and an object or a place."""

    subject: Phrase
    """Who does it."""
    verb: str
    """The verb, in the form of "the star follows"."""
    negated: bool = False
    """Whether it is said not to happen."""
    place: str | None = None
    """"behind" or "above", for verbs without an object; None if nothing is said."""
    other: Phrase | None = None
    """The object, or what the subject is behind or above."""

    def english(self) -> str:
        """The sentence in English."""
        auxiliary = "do not" if self.subject.plural else "does not"
        verb = _BARE[self.verb] if self.negated or self.subject.plural else self.verb
        parts = [self.subject.english(), auxiliary * self.negated, verb, self.place]
        return " ".join(part for part in (*parts, self.other and self.other.english()) if part)

    def luma(self) -> str:
        """The sentence in Luma."""
        stem, *rest = _VERBS[self.verb].split()
        parts = [self.subject.luma(), self.other and self.other.luma(), self.place and PLACES[self.place]]
        return " ".join(
            part for part in (*parts, "ne" * self.negated, stem + self.subject.ending, *rest) if part
        )


def english_words() -> tuple[str, ...]:
    """Every English word of the grammar."""
    nouns = [form for noun in _NOUNS for form in (noun, _PLURALS[noun])]
    verbs = [form for verb in _VERBS for form in (verb, _BARE[verb])]
    return ("a", "the", *NUMBERS, *SIZES, *COLOURS, *nouns, *verbs, "does", "do", "not", *PLACES)


def luma_words() -> tuple[str, ...]:
    """Every word of Luma."""
    stems = ["l", *COLOURS.values(), *SIZES.values(), *TRANSITIVE.values(), "ven", "rot", "mor"]
    inflected = [stem + ending for stem in stems for ending in _ENDINGS.values()]
    nouns = [form for noun in _NOUNS.values() for form in (noun, noun + "i")]
    return (*nouns, *inflected, *NUMBERS.values(), "ne", "dun", "tal", *PLACES.values())


def draw_sentence(rng: random.Random) -> Sentence:
    """A random sentence."""
    verb = rng.choice(tuple(_VERBS))
    place = rng.choice((None, *PLACES)) if verb in INTRANSITIVE else None
    other = _draw_phrase(rng) if verb in TRANSITIVE or place else None
    return Sentence(_draw_phrase(rng), verb, rng.random() < 0.3, place, other)


def _draw_phrase(rng: random.Random) -> Phrase:
    determiner, plural = rng.choice(
        (("a", False), ("the", False), ("the", True), *((n, True) for n in NUMBERS))
    )
    size = rng.choice((None, None, *SIZES))
    return Phrase(rng.choice(tuple(_NOUNS)), determiner, plural, size, rng.choice((None, *COLOURS)))


def draw_pairs(count: int, held_out: int, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Draws (English, Luma) pairs, no sentence twice: `count` to train on, `held_out` never to be trained on.

    Raises ValueError for a count below 1.
    """
    if count < 1 or held_out < 1:
        raise ValueError(f"count={count}, held_out={held_out}: both must be at least 1")
    rng, drawn = random.Random(seed), {}
    while len(drawn) < count + held_out:
        sentence = draw_sentence(rng)
        drawn[sentence.english()] = sentence.luma()
    pairs = list(drawn.items())
    # The last ones drawn are the rarer kinds, since a sentence counts once: take the held-out ones anywhere.
    rng.shuffle(pairs)
    return pairs[:count], pairs[count:]


def parse(text: str) -> Sentence:
    """Reads an English sentence of the grammar.

    Raises ValueError that names what it does not understand, and what it expected there.
    """
    words = text.lower().replace(".", " ").split()
    known = english_words()
    if unknown := [word for word in words if word not in known]:
        near = {word: get_close_matches(word, known, n=1, cutoff=0.0) or known[:1] for word in unknown}
        raise ValueError(
            f"text={text!r}: unknown words {', '.join(unknown)}; the nearest known ones are "
            + ", ".join(match[0] for match in near.values())
        )
    reader = _Reader(text, words)
    subject = reader.phrase()
    negated = reader.negation(subject.plural)
    verb = reader.verb(subject.plural, negated)
    place = reader.take(PLACES, optional=True) if verb in INTRANSITIVE else None
    other = reader.phrase() if verb in TRANSITIVE or place else None
    reader.end()
    return Sentence(subject, verb, negated, place, other)


class _Reader:
    """Reads a sentence from left to right."""

    def __init__(self, text: str, words: list[str]):
        self.text, self.words = text, words

    def take(self, options, optional: bool = False) -> str | None:
        if self.words and self.words[0] in options:
            return self.words.pop(0)
        if optional:
            return None
        found = repr(self.words[0]) if self.words else "its end"
        raise ValueError(f"text={self.text!r}: at {found} one of these would do: {', '.join(options)}")

    def phrase(self) -> Phrase:
        determiner = self.take(("a", "the", *NUMBERS))
        size, colour = self.take(SIZES, optional=True), self.take(COLOURS, optional=True)
        singular = {noun: (noun, False) for noun in _NOUNS} if determiner not in NUMBERS else {}
        several = {_PLURALS[noun]: (noun, True) for noun in _NOUNS} if determiner != "a" else {}
        forms = singular | several
        noun, plural = forms[self.take(tuple(forms))]
        return Phrase(noun, determiner, plural, size, colour)

    def negation(self, plural: bool) -> bool:
        if self.take(("do" if plural else "does",), optional=True) is None:
            return False
        self.take(("not",))
        return True

    def verb(self, plural: bool, negated: bool) -> str:
        forms = {_BARE[verb] if plural or negated else verb: verb for verb in _VERBS}
        return forms[self.take(tuple(forms))]

    def end(self) -> None:
        if self.words:
            raise ValueError(f"text={self.text!r}: {self.words[0]!r} comes after the end of the sentence")
