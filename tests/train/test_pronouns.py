"""What does it mean: the language is fair, one round cannot tell, and the record bears the chapter out."""

import json

import pytest
import torch

from sora_edu.assets import data_path
from sora_edu.train.pronouns import (
    EXAMPLES,
    HAPPENINGS,
    MODELS,
    THINGS,
    VOCABULARY,
    looks,
    sentences,
    share_right,
    shares_of_nouns,
    tokens,
    train_resolver,
)


def make(name: str):
    torch.manual_seed(0)
    return MODELS[name]().eval()


def test_only_what_happens_gives_the_answer_away():
    for sentence in sentences(300, seed=0):
        happening = sentence.text.rpartition(" and it ")[2]
        (kind,) = [kind for kind, texts in HAPPENINGS.items() if happening in texts]
        named = [word for word in sentence.text.split() if any(word in things for things in THINGS.values())]
        assert sentence.answer in named and len(named) == 2
        assert [word for word in named if word in THINGS[kind]] == [sentence.answer]


def test_both_orders_are_equally_likely():
    """Neither the first thing nor the second is the better guess."""
    drawn = sentences(2000, seed=0)
    nouns = {noun for things in THINGS.values() for noun in things}
    first = [next(word for word in s.text.split() if word in nouns) == s.answer for s in drawn]
    assert abs(sum(first) / len(first) - 0.5) < 0.05


def test_fresh_sentences_pair_things_that_training_never_pairs():
    def pairs(drawn):
        nouns = {noun for things in THINGS.values() for noun in things}
        return {frozenset(word for word in s.text.split() if word in nouns) for s in drawn}

    known, fresh = pairs(sentences(3000, seed=1)), pairs(sentences(1000, seed=2, fresh=True))
    assert not known & fresh and len(fresh) == 48  # a quarter of 3 times 64 pairs
    assert {noun for pair in fresh for noun in pair} == {noun for pair in known for noun in pair}


def test_capitals_and_full_stops_do_not_matter():
    grid, lengths = tokens(["The pizza was in the oven, and it was eaten!", "the pizza"])
    assert lengths == [10, 2] and grid.shape == (2, 10)
    assert torch.equal(grid[:1], tokens(["the pizza was in the oven and it was eaten"])[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the piza was eaten", "no word 'piza'; it has pizza"),
        ("xylophone", "no word 'xylophone'; it has pizza, bread"),
        ("...", "has 0 words; give 1 to 32"),
        ("the " * 33, "has 33 words; give 1 to 32"),
    ],
)
def test_what_is_not_in_the_language_is_explained(text, said):
    with pytest.raises(ValueError, match=said):
        tokens([text])


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="name='lstm': must be one of attention, 2 rounds"):
        train_resolver("lstm")


@pytest.mark.parametrize("name", MODELS)
def test_shares_add_up_and_padding_does_not_matter(name):
    model, texts = make(name), [*EXAMPLES, "the cat slept beside the oven and it ran away"]
    with torch.no_grad():
        together = shares_of_nouns(model, *tokens(texts))
        alone = torch.cat([shares_of_nouns(model, *tokens([text])) for text in texts])
        assert (model(*tokens(texts)).sum(-1) - 1).abs().max() < 1e-5
    torch.testing.assert_close(together, alone)


def test_one_round_asks_the_same_in_every_sentence():
    """Pizza and oven get weights in one ratio, whatever happens to it: no training can change that."""
    for name, same in (("attention, 1 round", True), ("attention, 2 rounds", False)):
        model = make(name)
        with torch.no_grad():
            ratios = [
                model(*tokens([text]))[0, text.split().index("pizza")]
                / model(*tokens([text]))[0, text.split().index("oven")]
                for text in EXAMPLES
            ]
        assert torch.isclose(*ratios, rtol=1e-4) == same


def test_maps_are_weights_and_the_last_is_the_answer():
    model = make("attention, 2 rounds")
    grid, lengths = tokens(list(EXAMPLES))
    with torch.no_grad():
        maps = model.maps(grid, lengths)
        answer = model(grid, lengths)
    assert [tuple(m.shape) for m in maps] == [(2, 2, 12, 12), (2, 1, 12, 12)]
    for m in maps:
        torch.testing.assert_close(m.sum(-1), torch.ones(m.shape[:-1]))
        assert not m[0, :, :, 11].any()  # the first sentence has 11 words
    torch.testing.assert_close(maps[1][torch.arange(2), 0, 8], answer)  # it is word 8 in both
    torch.testing.assert_close(torch.tensor(looks(model, EXAMPLES[0])[1][0]), answer[0, :11])


def test_only_distances_count_in_the_first_round():
    model, (grid, lengths) = make("attention, 2 rounds"), tokens(list(EXAMPLES))
    with torch.no_grad():
        torch.testing.assert_close(model(grid, lengths), model(grid, lengths, first_place=50))


def test_training_repeats_exactly_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    model, curve = train_resolver("attention, 2 rounds", seed=3, steps=20, examples=300, progress=False)
    again, curve_again = train_resolver("attention, 2 rounds", seed=3, steps=20, examples=300, progress=False)
    assert curve == curve_again and [step for step, _ in curve] == [0, 20]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert share_right(model, sentences(400, seed=2, fresh=True)) == curve[-1][1]


def test_the_reference_bears_out_what_the_chapter_says():
    reference = json.loads(data_path("curves", "03_pronouns.json").read_text())
    ends = {name: [run[-1] for run in c["share_right"]] for name, c in reference["curves"].items()}
    assert ends.keys() == MODELS.keys() and all(len(runs) == 5 for runs in ends.values())
    assert min(ends["attention, 2 rounds"] + ends["recurrent, pointing"]) > 0.98
    assert all(0.44 < end < 0.56 for end in ends["attention, 1 round"])
    assert min(ends["recurrent"]) > 0.4 and max(ends["recurrent"]) < 0.8
    for name, model in MODELS.items():
        assert reference["curves"][name]["parameters"] == sum(p.numel() for p in model().parameters())
    meant = [max(zip(row, text.split(), strict=True))[1] for text, row in reference["looks"].items()]
    assert tuple(reference["looks"]) == EXAMPLES and meant == ["pizza", "oven"]
    assert all(word in VOCABULARY for text in EXAMPLES for word in text.split())
