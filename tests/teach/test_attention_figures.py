"""The explorer of chapter 03: it answers every sentence, in words where it cannot in arcs."""

import pytest
import torch

from sora_edu.teach import attention_figures as pictures
from sora_edu.train.pronouns import Resolver


@pytest.fixture
def drawn(monkeypatch) -> list[str]:
    """The alt texts of the pictures shown."""
    shown: list[str] = []
    monkeypatch.setattr(pictures, "show", lambda fig, *, alt: (pictures.plt.close(fig), shown.append(alt)))
    return shown


@pytest.fixture
def explorer(drawn) -> pictures.Explorer:
    torch.manual_seed(0)
    return pictures.Explorer(Resolver(2).eval(), "The pizza was in the oven, and it was eaten!")


def test_it_opens_at_the_word_it(explorer, drawn):
    assert explorer.chosen.value == "it" and explorer.word.max == 9
    assert drawn[-1].startswith('Where "it" looks in "The pizza')


def test_the_slider_chooses_who_asks(explorer, drawn):
    explorer.word.value = 1
    assert explorer.chosen.value == "pizza" and 'Where "pizza" looks' in drawn[-1]


def test_unknown_words_are_named_and_the_slider_does_no_harm(explorer, drawn):
    count = len(drawn)
    explorer.sentence.value = "the <b>xylophone</b> was eaten"
    assert "no word" in explorer.message.value and "<b>" not in explorer.message.value
    explorer.word.value = 3
    assert len(drawn) == count and explorer.chosen.value == ""
    explorer.sentence.value = "the cake"
    assert explorer.message.value == "" and explorer.word.max == 1
    assert len(drawn) > count and 'Where "the" looks in "the cake"' in drawn[-1]


@pytest.mark.parametrize(("text", "count"), [("", 0), ("?!", 0), ("the pizza " * 17, 34)])
def test_too_few_and_too_many_words_are_counted(text, count, explorer, drawn):
    before = len(drawn)
    explorer.sentence.value = text
    assert f"The sentence has {count} words; type 1 to 32, such as: the pizza" in explorer.message.value
    assert len(drawn) == before and explorer.chosen.value == ""


def test_without_a_kernel_it_is_a_picture(drawn):
    pictures.explore(Resolver(1).eval(), "the cat and it ran away")
    assert len(drawn) == 1 and "round 1: the answer" in drawn[0]


def test_the_measured_seconds_grow(drawn):
    seconds = pictures.seconds_of([16, 2048], 32, 2)
    assert 0 < seconds[0] < seconds[1]
    pictures.cost([16, 32], lambda n: n * n, 8, seconds)
    assert "4.0 times" in drawn[-1]
