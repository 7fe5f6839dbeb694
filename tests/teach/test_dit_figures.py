"""The figures of chapter 07: their quotations fit what is counted, their words what is drawn."""

import pytest
import torch

from sora_edu.dit import CONDITIONINGS, DIT_SIZES, dit_macs, dit_parameters
from sora_edu.teach import dit_figures as pictures
from sora_edu.train.conditioning import examples


def test_the_twelve_quoted_sizes_are_those_of_the_models():
    assert set(pictures.PAPER_SIZES) == set(DIT_SIZES)
    for name, quoted in pictures.PAPER_SIZES.items():
        macs, millions = dit_macs(DIT_SIZES[name]) / 1e9, dit_parameters(DIT_SIZES[name]) / 1e6
        assert abs(macs - quoted.gmacs) <= max(0.003 * quoted.gmacs, 0.01), name
        assert abs(millions - quoted.millions) <= max(0.003 * quoted.millions, 1), name


def test_the_quoted_designs_end_with_the_best_of_the_sizes():
    assert tuple(pictures.PAPER_DESIGNS) == tuple(pictures.LOOKS) == CONDITIONINGS
    assert pictures.PAPER_DESIGNS["adaln_zero"] == pictures.PAPER_SIZES["XL/2"]


@pytest.mark.parametrize(
    ("name", "told", "gates"),
    [("in_context", 0, 0), ("cross_attention", 1, 0), ("adaln", 2, 0), ("adaln_zero", 4, 2)],
)
def test_a_drawn_block_is_told_in_as_many_places_as_the_design_says(drawn, name, told, gates):
    pictures.blocks(name)
    fig, alt = drawn[-1]
    arrows = [text for text in fig.axes[0].texts if getattr(text, "arrowprops", None)]
    colours = [text.arrowprops["color"] for text in arrows]
    assert colours.count(pictures.PALETTE["vermilion"]) == told
    assert sum(text.get_text() == "×" for text in fig.axes[0].texts) == gates
    assert pictures.LOOKS[name][0] in alt


def _runs(end: float) -> dict:
    return {
        "steps": [0, 10],
        "loss": [[2.0, end], [2.0, end + 0.2]],
        "both": [0.25, 0.75],
        "ground": [0.5, 1.0],
    }


def test_curves_and_ends_say_the_means_over_seeds(drawn):
    ends = dict(zip(CONDITIONINGS, (0.9, 0.8, 0.7, 0.6), strict=True))
    kept = {told: {name: _runs(end) for name, end in ends.items()} for told in ("class", "caption")}
    pictures.race(kept, {"adaln": {"steps": [0, 5], "loss": [2.0, 1.5]}})
    assert "adaLN-Zero, class, 0.700" in drawn[-1][1]
    fig = drawn[-1][0]
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == [*(label for label, _ in pictures.LOOKS.values()), "reference", "yours"]
    assert [len(line.get_xdata()) for line in fig.axes[2].lines] == [2, 2]  # the reference, and yours
    pictures.outcomes(kept)
    assert "in-context, caption: loss 1.000, 50 % read right" in drawn[-1][1]


def test_wishes_are_named_by_colour_and_shape():
    few = examples(5, 3)
    named = [name.replace("\n", " ") for name in pictures.asked_for(few, 4)]
    assert len(named) == 4 and all(
        name in said for name, said in zip(named, few.stills.captions, strict=False)
    )


def test_a_constant_answer_is_said_to_be_one(drawn):
    pictures.answers({"same": torch.ones(4, 3), "other": torch.eye(4)[:, :3]})
    assert "same: patches differ by 0.00" in drawn[-1][1] and "other: patches differ by 0.50" in drawn[-1][1]


def test_the_ranking_counts_the_seeds_that_agree():
    kept = {told: {name: _runs(1.0) for name in CONDITIONINGS} for told in ("class", "caption")}
    kept["class"]["adaln"] = {"loss": [[2.0, 0.9], [2.0, 1.25]]}
    kept["class"]["adaln_zero"] = {"loss": [[2.0, 0.5], [2.0, 0.5]]}
    lines = pictures.ranking(kept)
    assert lines[0].endswith("adaLN-Zero 0.500, adaLN 1.075, in-context 1.100, cross-attention 1.100")
    assert lines[1].endswith("adaLN-Zero is ahead of adaLN in 2 of 2 seeds")
    assert lines[2].endswith("adaLN is ahead of in-context in 1 of 2 seeds")
    assert lines[3].endswith("in 0 of 2 seeds")
