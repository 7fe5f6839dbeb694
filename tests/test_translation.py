"""Luma: translations worked out by hand from its five rules, reading sentences, and the split."""

import random

import pytest

from sora_edu.data.translation import (
    HARD,
    SOFT,
    draw_pairs,
    draw_sentence,
    english_words,
    luma_words,
    parse,
)

BY_HAND = {
    "the small red star follows two squares": "lim sara nina la kati do sega",
    "the blue rings do not rise": "muni vele le ne vene tal",
    "a cross falls": "pik veno dun",
    "three large triangles rest above the green circle": "teki dovu tri ror gera la sup moru",
    "a yellow square does not see the small crosses": "kat yolo piki ninu lu ne vido",
    "two circles spin behind a small blue star": "rori do lim vela nina pos rote",
    "the triangle pushes a large ring": "tek lo mun dova pulo",
    "three stars hide the yellow square": "limi tri kat yolo lo tame",
}


@pytest.mark.parametrize("english", BY_HAND)
def test_translations_follow_the_rules(english):
    sentence = parse(english)
    assert sentence.luma() == BY_HAND[english]
    assert sentence.english() == english


def test_what_is_written_can_be_read():
    rng = random.Random(0)
    for _ in range(500):
        sentence = draw_sentence(rng)
        assert parse(sentence.english()) == sentence


def test_every_word_is_listed_and_every_listed_word_occurs():
    pairs, _ = draw_pairs(6000, 1, seed=0)
    used = [{word for pair in pairs for word in pair[side].split()} for side in (0, 1)]
    assert used == [set(english_words()), set(luma_words())]
    assert len(set(english_words())) == len(english_words()) and len(set(luma_words())) == len(luma_words())


def test_agreement_needs_the_noun():
    """The same English words around nouns of the two classes become different words of Luma."""
    for soft in SOFT:
        for hard in HARD:
            one, other = (parse(f"the red {noun} spins").luma().split()[1:] for noun in (soft, hard))
            assert all(
                a[:-1] == b[:-1] and a[-1] == "a" and b[-1] == "o" for a, b in zip(one, other, strict=True)
            )


def test_held_out_sentences_are_no_training_sentences():
    pairs, held_out = draw_pairs(800, 300, seed=3)
    assert (len(pairs), len(held_out)) == (800, 300)
    assert len({english for english, _ in pairs + held_out}) == 1100
    assert draw_pairs(800, 300, seed=3) == (pairs, held_out) != draw_pairs(800, 300, seed=4)
    lengths = [sum(len(english.split()) for english, _ in part) / len(part) for part in (pairs, held_out)]
    assert abs(lengths[0] - lengths[1]) < 0.5  # neither part holds the easy ones


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the dog sees a star", "unknown words dog; the nearest known ones are do"),
        ("a stars falls", "at 'stars' one of these would do: star, circle"),
        ("two star fall", "at 'star' one of these would do: stars, circles"),
        ("the star fall", "at 'fall' one of these would do: sees"),
        ("the star do not fall", "at 'do' one of these"),
        ("the star sees", "at its end one of these would do: a, the, two, three"),
        ("the star falls a ring", "'a' comes after the end"),
        ("", "at its end one of these would do: a, the"),
    ],
)
def test_what_cannot_be_read_is_explained(text, said):
    with pytest.raises(ValueError, match=said):
        parse(text)


@pytest.mark.parametrize("counts", [(0, 1), (1, 0)])
def test_empty_parts_are_refused(counts):
    with pytest.raises(ValueError, match=r"count=\d, held_out=\d: both must be at least 1"):
        draw_pairs(*counts, seed=0)
