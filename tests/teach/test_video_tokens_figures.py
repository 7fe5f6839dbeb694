"""The figures of chapter 09: what they draw is what they say, and what they say is counted."""

import numpy as np
import pytest
import torch

from sora_edu.patches import PADDING, pack
from sora_edu.teach import video_tokens_figures as pictures
from sora_edu.train.tubelets import READERS


def test_bars_are_as_long_as_the_samples(drawn):
    pictures.padded_and_packed([4, 2, 3, 1], 5)
    fig, alt = drawn[-1]
    left, right = ([bar.get_width() for bar in ax.patches if not bar.get_hatch()] for ax in fig.axes)
    assert sorted(left) == sorted(right) == [1, 2, 3, 4]
    assert "38%" in alt and "0%" in alt and "2 rows" in alt  # 6 of 16 places; 10 of 10 are taken


def test_the_mask_names_the_clips_where_they_lie(drawn):
    packed = pack([torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2)], (1, 1, 1), 18)
    pictures.mask_of(packed)
    fig, alt = drawn[-1]
    places = {text.get_text(): text.get_position() for text in fig.axes[0].texts}
    assert places == {"clip 0": (1.5, 1.5), "clip 1": (9.5, 9.5), "padding": (17, 16.5)}
    assert (packed.samples == PADDING).sum() == 2 and "blocks of 4, 12" in alt


def test_what_was_dropped_is_grey(drawn):
    clip = torch.ones(3, 4, 4, 4)
    pictures.dropped(clip, torch.tensor([[0, 0, 1], [1, 1, 1]]), (2, 2, 2))
    fig, alt = drawn[-1]
    white = [np.asarray(ax.images[0].get_array()).min(2) == 1 for ax in fig.axes]
    assert [int(frame.sum()) for frame in white] == [4, 4, 4, 4]
    assert white[0][:2, 2:].all() and white[3][2:, 2:].all()
    assert "75%" in alt


def test_crops_say_the_share_that_is_left(drawn):
    box, square = (slice(0, 2), slice(0, 4)), (slice(0, 4), slice(2, 6))
    pictures.crops([torch.zeros(3, 1, 4, 8)], [box], [square], 0)
    fig, alt = drawn[-1]
    assert fig.axes[0].get_title() == "50% inside" and "4 by 8: 50%" in alt


def test_every_latent_stands_under_its_frames(drawn):
    pictures.round_trip(torch.zeros(3, 9, 8, 8), torch.ones(2, 3, 1, 1), torch.zeros(3, 9, 8, 8))
    fig, alt = drawn[-1]
    pictures_drawn = fig.axes[0].images
    assert len(pictures_drawn) == 9 + 9 + 3 and "3 latent frames" in alt
    middles = [sum(image.get_extent()[:2]) / 2 for image in pictures_drawn[-3:]]
    assert middles == pytest.approx([0.47, 2.97, 6.97])


def test_a_token_is_framed_in_the_frames_that_it_sees(drawn):
    pictures.what_a_token_sees(torch.zeros(1, 9, 8, 8), 3, 4, (1, 0))
    fig, _ = drawn[-1]
    framed = [bool(ax.patches) for ax in fig.axes]
    assert framed == [False, True, False] * 3 + [True] * 9
    assert all(ax.patches[0].get_xy() == (-0.5, 3.5) for ax in fig.axes if ax.patches)


def test_curves_and_confusions_say_the_means_over_seeds(drawn):
    kept = {
        name: {
            "steps": [0, 10],
            "share_right": [[0.1, 0.4], [0.1, 0.6]],
            "confusion": [[[3, 1], [0, 4]], [[1, 3], [0, 4]]],
        }
        for name in READERS
    }
    pictures.learning_curves(kept, {"frames": [(0, 0.1), (10, 0.7)]})
    fig, alt = drawn[-1]
    assert all(f"{name} 50 %" in alt for name in READERS)
    labels = [text.get_text() for ax in fig.axes for text in ax.get_legend().get_texts()]
    assert labels.count("frames (yours)") == 1
    assert {name.removesuffix(", order unknown") for name in READERS} < set(labels)
    pictures.confusions(kept, ("left", "right"), ("one frame", "frames"))
    assert "one frame: left 50, right 100" in drawn[-1][1]


def test_flicker_is_said_in_levels(drawn):
    curves = {"as a film": [0.0, 0.02], "frame by frame": [0.0, 0.04]}
    pictures.flicker_against_noise((0.0, 1.0), {"still": curves, "moving": curves})
    assert "still, frame by frame: 0.0 to 5.1" in drawn[-1][1]
