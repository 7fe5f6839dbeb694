"""The figures of chapter 10: what they draw is what they say, and what they say is counted."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from sora_edu.physics import flight_heights
from sora_edu.teach import video_dit_figures as pictures
from sora_edu.train import motions


def test_a_later_frame_is_brighter(drawn):
    clip = torch.full((3, 3, 4, 4), -1.0)
    for k in range(3):
        clip[:, k, k] = 1  # a row of the picture for each frame
    pictures.exposures([clip], ["rows"], "Rows.")
    rows = np.asarray(drawn[-1][0].axes[0].images[0].get_array())[:, 0, 0]
    assert rows.tolist() == pytest.approx([0.35, 0.675, 1, 0])


def test_the_promise_shows_each_motion_once(drawn):
    pictures.promise()
    fig, alt = drawn[-1]
    titles = [ax.get_title() for ax in fig.axes]
    assert sorted(" ".join(title.split()[2:]) for title in titles) == sorted(motions.MOTIONS)
    assert all(title in alt for title in titles)


def test_a_patch_sees_its_clip_its_frame_or_its_place(drawn):
    pictures.who_sees_whom(3, 2, (1, 0, 1))
    fig, alt = drawn[-1]
    pale = pictures.PALETTE["pale"]
    seen = [[patch.get_facecolor() != to_rgba(pale) for patch in ax.patches] for ax in fig.axes]
    assert [sum(map(sum, seen[3 * k : 3 * k + 3])) for k in range(3)] == [12, 4, 3]
    assert [sum(cells) for cells in seen[3:6]] == [0, 4, 0] and [sum(cells) for cells in seen[6:]] == [
        1,
        1,
        1,
    ]
    assert "joint 12 of 12" in alt and "2, 4 … 4 of 12" in alt


def test_every_text_of_the_machine_fits_its_box(drawn):
    pictures.machine()
    fig, alt = drawn[-1]
    ax = fig.axes[0]
    fig.draw_without_rendering()
    boxes = [patch.get_window_extent() for patch in ax.patches]
    for text in ax.texts:
        place = text.get_window_extent()
        inside = [box for box in boxes if box.contains(*place.get_points().mean(0))]
        if inside:
            smallest = min(inside, key=lambda box: box.width * box.height)
            assert smallest.width > place.width and smallest.height > place.height, text.get_text()
    assert "Euler step" in alt


def test_costs_are_drawn_as_they_are_given(drawn):
    rows = [
        {"attention": name, "frames": f, "macs": f * 1e9, "seconds": f / 10}
        for name in motions.ATTENTIONS
        for f in (1, 4)
    ]
    pictures.costs(rows)
    fig, alt = drawn[-1]
    assert [list(line.get_ydata()) for line in fig.axes[1].lines] == [[0.1, 0.4]] * 2
    assert "joint 1.0 to 4.0 G MACs" in alt


@pytest.fixture
def kept():
    """Two runs of each, all of perfect falls with g = 1 and steady moves."""
    t = np.arange(motions.FRAMES) / 8
    fall = 0.8 - flight_heights(t, 1.0, 0.0, 0.4, 0.0)
    tracks = [
        {"motion": thing.motion, "x": (0.2 + 0.3 * t).tolist(), "y": fall.tolist()}
        for thing in motions.things()
    ]
    run = {
        "steps": [0, 10], "loss": [[2.0, 0.4], [2.0, 0.6]], "shares": [{"all": 0.5}, {"all": 0.7}],
        "tracks": [tracks, [None] * len(tracks)],
    }  # fmt: skip
    return {"joint": run, "factorised": run, "real": {"shares": {"all": 1.0}, "tracks": tracks}}


def test_curves_say_the_means_over_seeds(drawn, kept):
    pictures.learning(kept, {"joint": {"steps": [0, 10], "loss": [2.0, 0.5]}})
    fig, alt = drawn[-1]
    assert "joint: loss 0.500, 60 % read right" in alt and "real clips 100 %" in alt
    labels = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert labels == ["joint, 2 runs", "joint, yours", "factorised, 2 runs"]


def test_the_law_is_read_off_tracks(drawn, kept):
    asked = sum(thing.motion == "falls" for thing in motions.things())
    found = pictures.gravities(kept["real"]["tracks"])
    assert len(found) == asked and found == pytest.approx([1.0] * asked, rel=1e-3)
    moves = pictures.paths_of(kept["real"]["tracks"], "moves left", "moves right")
    assert len(moves) == sum(thing.motion.startswith("moves") for thing in motions.things())
    assert pictures.gravities([None] * asked) == []
    assert pictures.read_as_asked(kept["joint"]["tracks"], "falls") == 0.5  # one run of two has tracks
    pictures.laws(kept)
    assert "real g 1.00, joint g 1.00" in drawn[-1][1]


def test_flights_say_gravity_and_restitution(drawn):
    t = np.arange(17) / 8
    pictures.flights({"a": 0.8 - flight_heights(t, 1.5, 0.0, 0.3, 0.85), "b": np.full(17, 0.5)}, bounces=True)
    alt = drawn[-1][1]
    assert "a: g = 1.50, e = 0.85" in alt and "b: gravity cannot be told" in alt


def test_a_report_without_physics_has_no_rows():
    share = {"value": 0.25, "n": 8, "ci95": None}
    report = {"physics": {"permanence": share, "permanence_real": share | {"value": 1.0}}}
    assert pictures.shipped(report) == [["permanence", "25%", "100%", "8"]]
    assert pictures.shipped({}) == []


def test_given_frames_are_framed(drawn):
    pictures.occluded([torch.zeros(3, 5, 8, 8)], ["a"], 3)
    fig, alt = drawn[-1]
    assert [ax.spines["left"].get_visible() for ax in fig.axes] == [True, True, False]
    assert "first 3" in alt
