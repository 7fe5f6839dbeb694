"""Clips as files: what other programs' decoders read back."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sora_edu.clips import Clip, animated_png, enlarge, read_frames
from sora_edu.files import WriteError

av = pytest.importorskip("av")


@pytest.fixture
def clip() -> Clip:
    """Five frames with flat squares of pure colours that change from frame to frame."""
    rng = np.random.default_rng(0)
    frames = np.kron(rng.integers(0, 256, (5, 4, 4, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    return Clip(frames, "a red star bounces", seed=7)


def test_png_is_exact_and_plays_at_eight_frames_a_second(clip, tmp_path):
    image = Image.open(clip.save(tmp_path / "a.png", scale=2))
    frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    np.testing.assert_array_equal(frames, clip.frames.repeat(2, 1).repeat(2, 2))
    assert image.info["duration"] == 125
    assert image.info["loop"] == 0
    assert image.text["Description"] == "a red star bounces (seed 7)"


def test_mp4_is_h264_of_the_right_length_and_nearly_the_same_colours(clip, tmp_path):
    with av.open(clip.save(tmp_path / "a.mp4", scale=4)) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert film.metadata["comment"] == "a red star bounces (seed 7)"
        decoded = list(film.decode(stream))
    assert [float(frame.time) for frame in decoded] == [i / 8 for i in range(5)]
    pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    assert np.abs(pixels[:, 2::4, 2::4].astype(int) - clip.frames).mean() < 3


@pytest.mark.parametrize(("suffix", "error"), [("mp4", 12), ("png", 0), ("gif", 12)])
@pytest.mark.parametrize("scale", [1, 4])
def test_what_was_saved_can_be_read(tmp_path, suffix, error, scale):
    """Also frames that stand still, which are stored once."""
    frames = np.full((17, 16, 24, 3), 200, np.uint8)
    frames[8:, 4:12, 8:16] = (200, 40, 40)
    frames[12:] = 90
    path = Clip(frames, "x").save(tmp_path / f"clip.{suffix}", scale=scale)
    read = read_frames(path, 16, 24)
    assert read.shape == frames.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - frames).mean() <= error


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_faster_films_are_read_at_eight_frames_a_second(tmp_path, suffix):
    """Two seconds at 25 and at 24 frames a second, each brighter than the one before."""
    fps = {"mp4": 24, "gif": 25}[suffix]
    shades = np.linspace(20, 220, 2 * fps).astype(np.uint8)
    frames = np.broadcast_to(shades[:, None, None, None], (2 * fps, 16, 16, 3))
    path = Clip(np.ascontiguousarray(frames), "x", fps=fps).save(tmp_path / f"clip.{suffix}", scale=1)
    read = read_frames(path, 16, 16)
    assert len(read) == 16
    expected = shades[np.round(np.arange(16) * fps / 8).astype(int)]
    assert np.abs(read.mean((1, 2, 3)) - expected).max() < 12  # and a frame is 4 brighter than the last


def test_what_cannot_be_read_is_explained(tmp_path, clip):
    with pytest.raises(ValueError, match="height=0, width=16: both must be at least 1"):
        read_frames(tmp_path / "none.png", 0, 16)
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.mp4", "text.png"):
        with pytest.raises(ValueError, match="cannot be read as pictures"):
            read_frames(tmp_path / name, 16, 16)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_frames(tmp_path / "none.png", 16, 16)
    path = clip.save(tmp_path / "clip.png", scale=1)
    height, width = clip.frames.shape[1:3]
    with pytest.raises(ValueError, match=f"is {height}x{width}; for .* whole multiple"):
        read_frames(path, height + 1, width)


def test_gif_lasts_as_long_as_the_clip(tmp_path):
    frames = np.arange(17, dtype=np.uint8).repeat(16 * 16 * 3).reshape(17, 16, 16, 3) * 15
    image = Image.open(Clip(frames, "x").save(tmp_path / "a.gif"))
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert sum(durations) == pytest.approx(17 * 125, abs=5)
    assert set(durations) == {120, 130}


def test_frames_that_stand_still_keep_their_time(tmp_path):
    """The encoders store equal frames once; they must then stand for longer."""
    frames = np.full((17, 16, 16, 3), 200, np.uint8)
    frames[8:] = 100
    clip = Clip(frames, "x")
    for suffix in ("png", "gif"):
        image = Image.open(clip.save(tmp_path / f"still.{suffix}"))
        total = sum(frame.info["duration"] for frame in ImageSequence.Iterator(image))
        assert total == pytest.approx(17 * 125, abs=5), suffix


@pytest.mark.parametrize("suffix", ["mp4", "gif", "png"])
def test_one_frame_is_a_picture(clip, tmp_path, suffix):
    path = Clip(clip.frames[:1], "x").save(tmp_path / f"a.{suffix}")
    assert path.stat().st_size > 0


def test_odd_sizes_can_be_films(clip, tmp_path):
    with av.open(Clip(clip.frames[:, :31, :29], "x").save(tmp_path / "a.mp4", scale=1)) as film:
        frame = next(film.decode(video=0))
    assert (frame.height, frame.width) == (30, 28)


def test_notebooks_get_a_moving_picture_with_alt_text(clip):
    data, metadata = clip._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert (image.n_frames, image.size) == (5, (128, 128))
    assert metadata["image/png"]["alt"] == "A clip: a red star bounces"
    assert data["text/plain"] == "Clip('a red star bounces', seed=7, 5 frames of 32x32, 0.6 s)"


def test_show_displays_the_clip(clip, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    clip.show()
    assert shown == [clip]


def test_a_failed_save_leaves_the_old_file(clip, tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(WriteError, match="disk is full"):
        clip.save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("name", ["a.avi", "a", "a.mp4.txt"])
def test_other_suffixes_are_refused(clip, tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in one of \.mp4, \.gif, \.png"):
        clip.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [0, -1, 65])
def test_bad_scales_are_refused(clip, scale):
    with pytest.raises(ValueError, match="from 1 to 64"):
        enlarge(clip.frames, scale)


def test_upper_case_suffixes_work(clip, tmp_path):
    assert Image.open(clip.save(tmp_path / "A.PNG")).n_frames == 5


def test_animated_png_without_a_note_has_none(clip):
    assert not Image.open(io.BytesIO(animated_png(clip.frames))).text
