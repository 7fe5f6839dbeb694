"""The figures of chapter 12: what they draw is what they say, and what they say is counted."""

import numpy as np
import pytest
import torch

from sora_edu.data.captions import VOCABULARY
from sora_edu.teach import prompts_figures as pictures
from sora_edu.text import Tokenizer


def test_every_token_stands_in_its_cell_and_padding_is_pale(drawn):
    tokenizer, prompts = Tokenizer(VOCABULARY), ["a red star", "a star"]
    ids, mask = tokenizer.encode(prompts, None)
    pictures.token_table(ids, mask, tokenizer.tokens, prompts)
    fig, alt = drawn[-1]
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert texts[1::2] == ["<begin>", "a", "red", "star", "<end>", "<begin>", "a", "star", "<end>", "<pad>"]
    assert texts[::2] == [str(token) for token in ids.flatten().tolist()]
    assert "“a red star” 5 real tokens of 5; “a star” 4 real tokens of 5" in alt


def test_directions_are_drawn_at_their_angles(drawn):
    pictures.directions({"clip 1": 90.0}, {"caption 1": 0.0})
    fig, alt = drawn[-1]
    ends = [line.get_xydata()[-1] for line in fig.axes[0].lines if len(line.get_xydata()) == 2]
    assert np.allclose(ends, [(0, 1), (1, 0)], atol=1e-9)
    assert "clip 1 at 90°, caption 1 at 0°" in alt


def test_the_table_counts_clips_that_fit_their_own_prompt_best(drawn):
    table = torch.tensor([[0.9, 0.1], [0.8, 0.7]])
    pictures.similarity_table([torch.zeros(3, 17, 64, 64)] * 2, ("a red star", "a blue ring"), table)
    fig, alt = drawn[-1]
    assert "1 of 2 clips fit their own prompt best" in alt and "a blue ring 0.70" in alt
    assert [text.get_text() for text in fig.axes[0].texts] == ["0.90", "0.10", "0.80", "0.70"]
    framed = [patch.get_xy() for patch in fig.axes[0].patches]
    assert np.allclose(framed, [(-0.48, -0.46), (-0.48, 0.54)])


def test_curves_say_the_means_over_seeds_and_what_guesses_cost(drawn):
    kept = {
        "stills": {"steps": [1, 9], "loss": [[4.0, 1.0], [4.2, 2.0]]}, "settings": {"batch": 128},
        "steps": [10, 20], "loss": [4.8, 0.3],
    }  # fmt: skip
    pictures.learning_curves(kept, [(1, 4.1), (9, 1.2)])
    fig, alt = drawn[-1]
    assert "4.10 to 1.50" in alt and "yours from 4.10 to 1.20" in alt and "4.80 to 0.30" in alt
    assert f"{np.log(64):.2f} and {np.log(128):.2f}" in alt and len(fig.axes) == 2


def test_bars_are_as_long_as_the_shares(drawn):
    pictures.foils({"another colour": {"share": 0.98, "n": 50}, "swapped": {"share": 0.5, "n": 40}})
    fig, alt = drawn[-1]
    assert [bar.get_width() for bar in fig.axes[0].patches] == [98, 50]
    assert "another colour 98 %; swapped 50 %" in alt


def test_ranking_shows_every_clip_once(drawn):
    kept = {
        "best_of": [{"n": 1, "chosen": 0.25, "possible": 0.25}, {"n": 2, "chosen": 0.5, "possible": 1.0}],
        "scores": [0.9, 0.1, 0.2, 0.3], "right": [True, False, False, False],
    }  # fmt: skip
    pictures.ranked(kept)
    fig, alt = drawn[-1]
    assert "of 2 50 % (possible 100 %)" in alt and "right (mean 0.90) and wrong (mean 0.20)" in alt
    assert sum(bar.get_height() for bar in fig.axes[1].patches) == 4
    pictures.ranked(kept | {"right": [False] * 4})  # a model that is never right
    assert "right (mean nan)" in drawn[-1][1]


def test_captions_are_compared_by_means_with_a_dot_for_each_seed(drawn):
    runs = {kind: {asked: [0.2, 0.4] for asked in pictures.ASKED} for kind in pictures.LEARNED}
    pictures.captions_compared({"runs": runs}, dict.fromkeys(pictures.ASKED, 0.1))
    fig, alt = drawn[-1]
    assert [bar.get_height() for bar in fig.axes[0].patches] == pytest.approx([30] * 9)
    assert "short captions, short prompts, written out: 30 %" in alt
    assert len(fig.axes[0].lines) == 9 + 3


def test_samples_stand_in_a_row_for_each_kind(drawn):
    kept = pictures.reference("captions")
    pictures.caption_samples(kept)
    fig, alt = drawn[-1]
    assert len(fig.axes) == 3 * len(kept["prompts"]["long"])
    assert [fig.axes[k * len(fig.axes) // 3].get_ylabel() for k in range(3)] == [
        f"{kind} captions" for kind in ("short", "long", "mixed")
    ]
    assert all(prompt in alt for prompt in kept["prompts"]["long"])


def test_the_sweep_says_every_scale(drawn):
    row = {"adherence": {"value": 0.5, "n": 4, "ci95": [0.2, 0.8]}, "spread": 0.7, "contrast": 1.1}
    pictures.guidance_sweep({"real": row, "scales": [{"scale": s, **row} for s in (1.0, 8.0)]})
    fig, alt = drawn[-1]
    assert "s 1: 50 % right, spread 0.70, contrast 1.10; s 8:" in alt and len(fig.axes) == 3


def test_the_promise_is_made_of_what_ships(drawn):
    pictures.promise()
    assert "clips fit their own prompt best" in drawn[-1][1]


def test_small_released_encoders_read_the_toy_worlds_words():
    encoders = pictures.small_text_encoders()
    prompts = ["a red star", "a small blue ring falls"]
    for encoder, length in zip(encoders.values(), (226, 77), strict=True):
        tokens, mask = encoder.encode(prompts)
        assert tokens.shape == (2, length + 1, 32) and mask.sum(1).tolist() == [6, 8]
        assert not torch.allclose(*encoder.pool(tokens), atol=1e-3)
    tokens, _ = encoders["T5"].encode(prompts)
    torch.testing.assert_close(tokens[0, 0], tokens[0, 1:6].mean(0))
