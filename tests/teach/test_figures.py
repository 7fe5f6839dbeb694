"""What leaves the drawing functions: decodable pictures with alt text, and nothing left open."""

import base64
import io
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from sora_edu.data.catalogues import Event
from sora_edu.teach import figures


@pytest.fixture
def shown(monkeypatch):
    """Everything that is displayed, as (picture, alt text)."""
    seen = []

    def keep(bundle, raw, metadata):
        assert raw
        assert bundle["text/plain"] == metadata["image/png"]["alt"]
        seen.append(
            (Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))), metadata["image/png"]["alt"])
        )

    monkeypatch.setattr(figures, "display", keep)
    return seen


def _moving_square(frames: int = 5, size: int = 16) -> np.ndarray:
    video = np.zeros((frames, size, size, 3), np.uint8)
    for t in range(frames):
        video[t, :4, 2 * t : 2 * t + 4] = (255, 128, 0)
    return video


def _decode(picture: Image.Image) -> np.ndarray:
    pages = []
    for k in range(getattr(picture, "n_frames", 1)):
        picture.seek(k)
        pages.append(np.asarray(picture.convert("RGB")))
    return np.stack(pages)


def test_clip_survives_the_round_trip_through_png(shown):
    video = _moving_square()
    figures.clip(video, alt="A square moves right.", scale=3)
    picture, alt = shown[0]
    assert alt == "A square moves right."
    pages = _decode(picture)[:, 8 : 8 + 48, 8 : 8 + 48]
    np.testing.assert_array_equal(pages[:, 1::3, 1::3], video)
    assert picture.info["duration"] == pytest.approx(125)
    assert picture.info["loop"] == 0


def test_clips_of_different_lengths_wait_on_their_last_frame(shown):
    short, long = _moving_square(2), _moving_square(4)
    figures.clips([short, long], alt="Two squares.", scale=1)
    pages = _decode(shown[0][0])
    assert len(pages) == 4
    np.testing.assert_array_equal(pages[3, 8:24, 8:24], short[-1])
    np.testing.assert_array_equal(pages[3, 8:24, 32:48], long[-1])


def test_grid_has_as_many_rows_as_it_needs(shown):
    figures.clips([_moving_square()] * 5, [str(k) for k in range(5)], alt="Five.", columns=3, scale=4)
    width, height = shown[0][0].size
    assert width == 3 * (64 + 8) + 8
    assert 2 * 64 < height < 2 * (64 + 8 + 40)


def test_strip_takes_first_and_last_frame(shown):
    video = _moving_square(9)
    video[:, 8:] = np.arange(9, dtype=np.uint8)[:, None, None, None]
    figures.strip(video, alt="A strip.", count=3, scale=1)
    page = _decode(shown[0][0])[0]
    bottom = page[-8 - 2]
    assert [bottom[8 + k * 24 + 5, 0] for k in range(3)] == [0, 4, 8]


@pytest.mark.parametrize("wrap", [lambda v: v, torch.from_numpy, lambda v: SimpleNamespace(frames=v)])
def test_frames_of_accepts_arrays_tensors_and_clips(wrap):
    video = _moving_square()
    np.testing.assert_array_equal(figures.frames_of(wrap(video)), video)


def test_frames_of_maps_minus_one_to_black_and_one_to_white():
    video = torch.linspace(-1, 1, 3).expand(3, 2, 4, 3)
    frames = figures.frames_of(video)
    assert frames.shape == (2, 4, 3, 3)
    assert frames[1, 3, :, 2].tolist() == [0, 128, 255]


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((2, 5, 8, 8)), np.zeros((2, 8, 8, 4), np.uint8)])
def test_frames_of_names_the_shape_it_cannot_use(bad):
    with pytest.raises(ValueError, match=str(bad.shape[0])):
        figures.frames_of(bad)


def test_show_closes_the_figure(shown):
    with plt.rc_context():  # the style is for this figure, not for the tests that come after
        figures.style()
        fig, ax = plt.subplots()
        ax.plot([0, 1])
        figures.show(fig, alt="A line.")
    assert not plt.fignum_exists(fig.number)
    assert shown[0][0].size[0] > 800


@pytest.mark.parametrize("alt", ["", "  "])
def test_nothing_is_shown_without_alt_text(shown, alt):
    with pytest.raises(ValueError, match="alt"):
        figures.clip(_moving_square(), alt=alt)
    with pytest.raises(ValueError, match="alt"):
        figures.show(plt.figure(), alt=alt)
    assert not shown


@pytest.mark.parametrize(
    ("change", "message"),
    [({"fps": 0}, "fps=0"), ({"scale": 0}, "scale=0"), ({"captions": ["a"]}, "1 caption")],
)
def test_bad_arguments_are_named(shown, change, message):
    with pytest.raises(ValueError, match=message):
        figures.clips([_moving_square()] * 2, **{"alt": "Two."} | change)


def _contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours by the WCAG 2 definition."""

    def luminance(colour):
        c = np.array(matplotlib.colors.to_rgb(colour))
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def test_text_colours_stand_out_from_their_grounds():
    for text in ("ink", "blue"):
        for ground in ("white", figures.PALETTE["pale"]):
            assert _contrast(figures.PALETTE[text], ground) > 4.5


def test_line_colours_differ_for_a_person_without_red_or_green_cones():
    # Projections onto what a dichromat sees (Viénot, Brettel and Mollon 1999), in linear RGB.
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])

    def closest(colours, sees):
        linear = [np.power(matplotlib.colors.to_rgb(colour), 2.2) for colour in colours]
        seen = [np.clip(sees @ colour, 0, 1) ** (1 / 2.2) for colour in linear]
        return min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i])

    ours = [figures.PALETTE[name] for name in figures._LINES]
    for sees in (protan, deutan):
        assert closest(ours, sees) > 0.12
        assert closest(ours, sees) > 1.5 * closest(matplotlib.color_sequences["tab10"][:7], sees)


def test_map_shows_every_chapter_and_marks_one(shown):
    for chapter in ("00", "02", "10"):
        figures.sora_map(chapter)
        picture, alt = shown[-1]
        assert f"You are in {chapter}" in alt
        assert all(f" {other:02d} " in alt for other in range(15))
        marked = np.all(np.asarray(picture.convert("RGB")) == (0xFF, 0xE3, 0xCF), axis=-1)
        assert marked.sum() > 2000
    with pytest.raises(ValueError, match="here='15'"):
        figures.sora_map("15")


def test_map_boxes_do_not_overlap_unless_one_frames_the_other():
    boxes = figures._MAP
    assert sorted(box.chapter for box in boxes) == [f"{k:02d}" for k in range(15)]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
            down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
            overlap = across > 0 and down > 0
            assert not overlap or (b.frame and across == a.width and down == a.height)


def test_widgets_are_live_in_a_kernel_and_can_be_switched_off(monkeypatch):
    monkeypatch.delenv("SORA_EDU_STATIC", raising=False)
    assert not figures.live()
    monkeypatch.setattr(figures, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    assert figures.live()
    monkeypatch.setenv("SORA_EDU_STATIC", "1")
    assert not figures.live()
    monkeypatch.setenv("SORA_EDU_STATIC", "0")
    assert figures.live()


def test_table_is_html_and_text_and_escapes_what_it_shows(monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw: seen.append(bundle))
    figures.table([("a < b", "x"), ("c", "y")], ("left", "right"))
    assert seen[0]["text/plain"] == "left | right\na < b | x\nc | y"
    assert "a &lt; b" in seen[0]["text/html"]
    assert seen[0]["text/html"].count("<tr>") == 3
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        figures.table([("alone",)], ("left", "right"))


def _event(month, name, year=2022):
    return Event(year, month, "video", name, "why", "citation", "high")


def test_timeline_keeps_names_apart_and_shows_years_without_events(shown):
    crowded = [
        _event(3, "A long name"),
        _event(4, "B"),
        _event(4, "C"),
        _event(12, "D"),
        _event(1, "E", 2024),
    ]
    lanes = figures._lanes(crowded)
    assert list(lanes) == [2022, 2023, 2024]
    assert [[event.event for event in lane] for lane in lanes[2022]] == [["A long name", "D"], ["B"], ["C"]]
    assert lanes[2023] == [[]]
    figures.timeline(crowded)
    assert all(name in shown[0][1] for name in ("5 events", "2022-03 A long name", "2024-01 E"))


def test_small_things_keep_their_colours_in_a_grid(shown):
    rng = np.random.default_rng(0)
    noisy = rng.normal(128, 25, (9, 64, 64, 3))
    colours = np.array([[230, 30, 30], [26, 199, 217], [30, 70, 235], [255, 115, 190]])
    videos = []
    for colour in colours:
        video = noisy.copy()
        video[:, 30:34, 30:34] = colour + rng.normal(0, 6, (9, 4, 4, 3))
        videos.append(video.clip(0, 255).astype(np.uint8))
    figures.clips(videos, alt="Four small squares on noise.", scale=1)
    pages = _decode(shown[0][0])
    for k, video in enumerate(videos):
        seen = pages[: len(video), 8 + 30 : 8 + 34, 8 + 72 * k + 30 : 8 + 72 * k + 34].astype(int)
        true = video[:, 30:34, 30:34].astype(int)
        assert abs(seen.mean(axis=(0, 1, 2)) - true.mean(axis=(0, 1, 2))).max() < 40
