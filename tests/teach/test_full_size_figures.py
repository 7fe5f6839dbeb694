"""The figures of chapter 14: what they draw is what they say, and what they say is counted."""

import pytest
import torch

from sora_edu.data.buckets import Bucket
from sora_edu.scale import VIDEO_SIZES, activation_bytes, clip_tokens, state_bytes
from sora_edu.teach import full_size_figures as pictures
from sora_edu.video_dit import video_dit_parameters


def test_the_walk_shows_every_number_under_its_owner(drawn):
    shares = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    pictures.walk({"shares": shares, "gathered": [shares.flatten()] * 2}, owned=2)
    fig, alt = drawn[-1]
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert [text for text in texts if text.isdigit()] == ["1", "2", "3", "4", *"1234", *"1234"]
    boxes = fig.axes[0].patches
    colours = [box.get_facecolor() for box in boxes]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert colours[4:8] == colours[8:] == [colours[0]] * 2 + [colours[2]] * 2
    assert [box.get_x() for box in boxes[:4]] == [0, 1, 2, 3]
    assert "[3.0, 4.0]" in alt and "gathered" in alt


def test_memory_is_that_of_the_closed_forms(drawn):
    config, clip = VIDEO_SIZES["B"], (17, 64, 64)
    pictures.memory_by_devices(config, clip, 1e9, (1, 4))
    fig, alt = drawn[-1]
    bars = [bar.get_height() for bar in fig.axes[0].patches]
    weights = video_dit_parameters(config)
    kept = activation_bytes(config, clip_tokens(*clip), checkpointing=True) / 1e9
    copies, shares = ([state_bytes(weights, n, stage) / 1e9 for n in (1, 4)] for stage in (0, 3))
    assert bars == pytest.approx([*copies, kept, kept, *shares, kept, kept])
    assert "1, 4 devices" in alt


def test_runs_lie_where_they_were_recorded(drawn):
    losses = {"10": 2.0, "20": 1.5}
    kept = {
        "settings": {"killed_after": 20},
        "runs": {
            "1": {"losses": losses},
            "2": {"losses": {"10": 2.0, "20": 1.5 + 2e-7}},
            "killed": {"losses": losses},
        },
    }
    pictures.losses_of_runs(kept, {"one": {10: 2.5}})
    fig, alt = drawn[-1]
    left, right = fig.axes
    assert [list(line.get_ydata()) for line in left.lines] == [
        [2.0, 1.5],
        [2.0, 1.5 + 2e-7],
        [2.0, 1.5],
        [2.5],
    ]
    assert left.lines[-1].get_label() == "yours: one"
    assert list(right.lines[0].get_ydata()) == pytest.approx([0, 2e-7])
    assert list(right.lines[1].get_ydata()) == [0, 0]
    assert "two processes: at most 2e-07" in alt and "from 2.00 to 1.50 in 20 steps" in alt


def test_frames_buckets_and_square_crops_are_to_scale(drawn):
    pictures.bent_to_fit([(50, 100)], [Bucket(5, 32, 48)])
    fig, alt = drawn[-1]
    whole, seen, square = fig.axes[0].patches
    assert (whole.get_width(), whole.get_height()) == (1, 0.5)
    assert (seen.get_width(), seen.get_height()) == pytest.approx((0.75, 0.5))  # 48 x 32 of 64 x 32
    assert (square.get_x(), square.get_width(), square.get_height()) == (0.25, 0.5, 0.5)
    assert "100 x 50 to 48 x 32, 75% kept" in alt


def test_the_distance_of_equal_sets_falls_with_their_size(drawn):
    pictures.distance_by_samples(width=4, counts=(10, 100, 1000))
    fig, alt = drawn[-1]
    low, middle, high = fig.axes[0].lines[0].get_ydata()
    assert low > 4 * middle > 16 * high > 0
    assert "with 4 features" in alt and "10 samples" in alt
