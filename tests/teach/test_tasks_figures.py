"""The figures of chapter 11: what they draw is what they say, and what they say is counted."""

import matplotlib.colors as colours
import numpy as np
import pytest
import torch

from sora_edu.sora import to_uint8
from sora_edu.tasks import latent_mask, task_mask
from sora_edu.teach import tasks_figures as pictures
from sora_edu.teach.figures import PALETTE
from sora_edu.train.given import WAYS, all_films, masks_asked


def names_of(bars) -> list[str]:
    """The palette's names of what is drawn."""
    known = {colours.to_rgba(value): name for name, value in PALETTE.items()}
    return [known[bar.get_facecolor()] for bar in bars]


def test_a_bar_stands_under_every_frame_in_its_colour(drawn):
    film = np.zeros((5, 8, 12, 3), np.uint8)
    hole = np.zeros((8, 12), bool)
    hole[2:4, 2:4] = True
    rows = [
        ("one", film, task_mask("animate", 5, 8, 12, [0])),
        ("two", film[:4], task_mask("loop", 5, 8, 12, [0, 1])),
        ("three", film, task_mask("inpaint", 5, 8, 12, list(range(5)), hole)),
    ]
    pictures.film_rows(rows, every=2)
    fig, alt = drawn[-1]
    (ax,) = fig.axes
    assert names_of(ax.patches) == ["blue", "orange", "orange", "blue", "orange", *3 * ["green"]]
    assert len(ax.images) == 8
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"given", "made", "given in part"}
    assert "one: frames 0 of 5 given; two: frames 0, 1 of 4 given; three: in every frame a region" in alt


def test_rows_do_not_overlap_whatever_their_shapes(drawn):
    rows = [("wide", torch.zeros(3, 5, 32, 64), torch.ones(5, 32, 64))]
    rows += [("tall", torch.zeros(3, 5, 64, 32), torch.ones(5, 64, 32))]
    pictures.film_rows(rows, every=4)
    (ax,) = drawn[-1][0].axes
    wide, tall = ax.images[0].get_extent(), ax.images[2].get_extent()
    assert wide[2] > tall[3] and (tall[3] - tall[2]) == pytest.approx(4 * (wide[3] - wide[2]))
    low, high = sorted(ax.get_ylim())
    assert low < tall[2] and high > wide[3]


def test_what_is_promised_hides_what_is_to_be_made(drawn):
    pictures.promise()
    fig, alt = drawn[-1]
    shown = np.stack([np.asarray(image.get_array()) for image in fig.axes[0].images]).reshape(7, 9, 64, 64, 3)
    grey = (np.abs(shown.astype(int) - 128) <= 1).all((2, 3, 4))
    assert grey.sum(1).tolist() == [9, 8, 4, 4, 4, 5, 0]
    assert (shown[5, 8] == shown[5, 0]).all()  # a loop ends as it began
    assert "connect: frames 0, 1, 2, 3, 4, 13, 14, 15, 16 of 17 given" in alt


def test_the_mask_of_latents_is_written_in_its_cells(drawn):
    mask = task_mask("extend", 9, 8, 8, [0, 1, 2])
    pictures.mask_of_latents({"extend": mask})
    fig, alt = drawn[-1]
    above, below = fig.axes
    written = [int(text.get_text()) for text in below.texts]
    assert written == latent_mask(mask).int().flatten().tolist()
    assert [text.get_text() for text in above.texts] == list("012345678")
    assert names_of(above.patches) == ["blue"] * 3 + ["orange"] * 6
    assert "0 0 1; 0 0 1; 0 1 1; 0 1 1" in alt


def test_gaps_are_written_where_all_is_given(drawn):
    pictures.latent_gaps({"extend": ([0.0, 1.5], [True, False]), "connect": ([0.25, 1.0], [True, True])})
    fig, alt = drawn[-1]
    assert [text.get_text() for ax in fig.axes for text in ax.texts] == ["0.00", "0.25", "1.00"]
    assert "extend: 0.00; connect: 0.25, 1.00" in alt


def test_moments_that_are_given_have_a_line(drawn):
    films = all_films()[:3]
    pictures.ring_films({"true": films, "told": films}, masks_asked()["connect"])
    fig, alt = drawn[-1]
    assert len(fig.axes) == 6 and all(len(ax.lines) == 4 for ax in fig.axes)
    assert "moments 0, 1, 7, 8" in alt
    pictures.ring_films({"true": films}, masks_asked()["inpaint"])
    assert all(not ax.lines for ax in drawn[-1][0].axes)


def test_curves_and_tables_say_means_over_seeds(drawn):
    kept = {way: {"steps": [10, 20], "loss": [[1.0, 0.2], [0.8, 0.4]]} for way in WAYS}
    pictures.learning_curves(kept, [(10, 0.7), (20, 0.25)])
    _, alt = drawn[-1]
    assert all(f"{way} 0.30" in alt for way in WAYS) and "yours at 0.25" in alt
    runs = [{"right": share, "missed": off, "seam": 1.0, "given": 0.1} for share, off in ((0.5, 1), (1.0, 2))]
    assert pictures.ways_rows({"extend": {"channels": runs}}) == [
        ["extend", "channels", "75%", "1.50 (1.00 to 2.00)", "1.00", "0.10"]
    ]


def test_a_perfect_network_that_is_told_is_right_and_one_that_is_overwritten_is_not():
    rows = {row[0]: row[1:] for row in pictures.perfect_rows((1, 3), films=24)}
    assert set(rows) == set(masks_asked())
    assert all(row[-1] == "100%" for row in rows.values())
    assert int(rows["extend"][0].rstrip("%")) < 50


def test_what_was_measured_is_told_as_it_stands(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "table", lambda rows, header: shown.append((rows, header)))
    pictures.measured_table({})
    assert not shown and "python -m sora_edu evaluate" in capsys.readouterr().out
    pictures.measured_table(
        {
            "loop": {"given_psnr": {"value": 30.04}, "seam_ratio": {"value": 1.5}},
            "edit": {"adherence": {"value": 0.25}},
        }
    )
    ((rows, header),) = shown
    loop = ["loop", "–", "–", "–", "30.0", "–", "1.50"]
    assert rows == [loop, ["edit", "25\N{NO-BREAK SPACE}%", *5 * ["–"]]]
    assert len(header) == 7


def test_clips_play_side_by_side(monkeypatch):
    sent = []
    monkeypatch.setattr(pictures, "send", lambda png, alt: sent.append((png, alt)))
    films = [to_uint8(torch.zeros(1, 3, 2, 16, 16))[0]] * 2
    pictures.playing(films, ["a", "b"], alt="Two clips.")
    assert sent[0][0][:4] == b"\x89PNG" and sent[0][1] == "Two clips."
