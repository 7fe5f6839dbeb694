"""The trainings of chapter 04: words and ids, repeatable runs, and that both models really learn."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from sora_edu.assets import data_path
from sora_edu.data.captions import parse
from sora_edu.data.translation import draw_pairs
from sora_edu.train.languages import (
    BEGIN,
    END,
    ENGLISH,
    LUMA,
    PAD,
    Words,
    alignment,
    cross_entropy,
    draw_captions,
    make_gpt,
    make_translator,
    makes_sense,
    share_exact,
    train_gpt,
    train_translator,
    translate,
    write_texts,
)


def test_words_become_ids_and_come_back():
    words = Words(("b", "a"))
    ids = words.encode(["a b", "b"])
    assert ids.tolist() == [[4, 3, END], [3, END, PAD]]
    assert words.decode(ids) == ["a b", "b"] and len(words) == 5
    assert words.decode(torch.tensor([[BEGIN, 4, END, 3]])) == ["a"]  # nothing counts after the end


@pytest.mark.parametrize(
    ("texts", "said"), [(["a c"], "unknown words c; known"), ([], "texts="), ("a", "texts=")]
)
def test_what_cannot_be_encoded_is_explained(texts, said):
    with pytest.raises(ValueError, match=said):
        Words(("a",)).encode(texts)


def test_padding_does_not_count():
    scores = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([[4, 2, PAD]])
    by_hand = -scores.log_softmax(-1)[0, [0, 1], [4, 2]].mean()
    torch.testing.assert_close(cross_entropy(scores, wanted), by_hand)


def test_a_translator_learns_and_the_same_seed_learns_the_same():
    pairs, held_out = draw_pairs(300, 20, seed=0)
    first, again, other = (
        train_translator(pairs, held_out, seed=seed, steps=60, progress=False)[0] for seed in (0, 0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.source.weight, other.source.weight)
    source, target = ENGLISH.encode([e for e, _ in held_out]), LUMA.encode([luma for _, luma in held_out])
    given = F.pad(target, (1, -1), value=BEGIN)
    losses = [
        cross_entropy(m(source, given, source != PAD), target).item() for m in (make_translator(0), first)
    ]
    assert losses[1] < 0.7 * losses[0]


def test_a_sentence_counts_if_every_word_is_right(monkeypatch):
    said = ["lim sara la", "kat", "ror gera", "tek"]
    monkeypatch.setattr("sora_edu.train.languages.translate", lambda model, sentences: said)
    pairs = [("", "lim sara la"), ("", "kat lo"), ("", "ror gere"), ("", "tek")]
    assert share_exact(make_translator(), pairs) == 0.5


def test_a_map_has_a_row_for_each_word_written():
    model = make_translator()
    found = alignment(model, "a star falls")
    assert found["english"] == ["a", "star", "falls", "<end>"]
    assert found["luma"] == [*translate(model, ["a star falls"])[0].split(), "<end>"]
    weights = torch.tensor(found["weights"])
    assert weights.shape == (len(found["luma"]), 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)), atol=5e-3, rtol=0)


def test_a_gpt_learns_from_captions_and_writes_known_words():
    texts = draw_captions(400, seed=0)
    assert len(set(texts)) == 400 and all(map(makes_sense, texts)) and parse(texts[0])
    words = Words(tuple(sorted({word for text in texts for word in text.split()})))
    model, curve = train_gpt(texts[:350], texts[350:], words, steps=50, progress=False)
    assert curve[0][1] == pytest.approx(math.log(len(words)), abs=0.2)  # it knows nothing yet
    assert [step for step, _ in curve] == [0, 50] and curve[1][1] < 0.8 * curve[0][1]
    written = write_texts(model, words, 3, beginning="a red star", seed=1)
    assert written == write_texts(model, words, 3, beginning="a red star", seed=1)
    assert all(text.startswith("a red star") for text in written) and len(set(written)) > 1
    with pytest.raises(ValueError, match="unknown words cat"):
        write_texts(model, words, 1, beginning="a cat")


def test_an_untrained_gpt_is_repeatable():
    words = Words(("a",))
    assert torch.equal(make_gpt(words).tokens.weight, make_gpt(words).tokens.weight)


@pytest.mark.parametrize(("text", "sense"), [("a red star falls", True), ("a spinning circle", False)])
def test_the_grammar_decides_what_makes_sense(text, sense):
    assert makes_sense(text) == sense


def test_the_recorded_translators_are_right_on_at_least_95_per_cent():
    reference = json.loads(data_path("curves", "04_languages.json").read_text())
    runs = reference["translator"]["values"]
    assert len(runs) == 3 and all(run[-1] > 0.95 for run in runs)
    assert list(reference["few_sentences"]) == ["250", "500", "1000", "2000", "4000"]
