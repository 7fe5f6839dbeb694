"""Folders of real video: what is read, what is refused, and by which name."""

import json
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from sora_edu.clips import Clip
from sora_edu.data import world
from sora_edu.data.buckets import Bucket, BucketBatches, bucket_for, share_kept
from sora_edu.data.judge import judge
from sora_edu.data.videos import BrokenVideo, VideoFolder
from sora_edu.sora import to_uint8

av = pytest.importorskip("av")


def write(path: Path, frames: np.ndarray, fps: int = 8, rotation: int | None = None) -> None:
    """A video file, written by PyAV itself: VP9 in WebM, H.264 in the others."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libvpx-vp9" if path.suffix == ".webm" else "libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation)
        film.start_encoding()  # writes a header even where no frame follows
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        film.mux(stream.encode())


def steps(count: int, height: int = 32, width: int = 32) -> np.ndarray:
    """Frames of one grey each, 10 levels brighter than the one before."""
    return (
        np.full((count, height, width, 3), 10, np.uint8)
        * np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]
    )


def greys(clip: torch.Tensor) -> list[int]:
    """The number of each frame of `steps`, read off its grey."""
    return [round((127.5 * float(frame.mean()) + 127.5) / 10) for frame in clip.unbind(1)]


def toy(prompt: str, frames: int = 17, height: int = 64, width: int = 64) -> Clip:
    video = world.render(world.parse(prompt).complete(1), frames, height, width)
    return Clip(to_uint8(video[None])[0], prompt)


PROMPTS = {
    "wide.mp4": ("a small red star bounces on a dark background", 9, 48, 80),
    "tall.mp4": ("a large green circle moves up on a light background", 17, 80, 48),
    "deep/square.mp4": ("a large blue cross spins on a dark background", 14, 64, 64),
}


@pytest.fixture
def videos(tmp_path) -> Path:
    """Three clips of the toy world, of three sizes, one of them in a folder below."""
    (tmp_path / "deep").mkdir()
    for name, (prompt, *size) in PROMPTS.items():
        toy(prompt, *size).save(tmp_path / name, scale=1)
        (tmp_path / name).with_suffix(".txt").write_text(prompt + "\n")
    return tmp_path


def test_every_video_comes_at_its_own_size_with_its_caption(videos):
    folder = VideoFolder(videos)
    assert [video.name for video in folder.videos] == ["deep/square.mp4", "tall.mp4", "wide.mp4"]
    assert folder.skipped == {} and len(folder) == 3
    assert folder.buckets == [Bucket(13, 64, 64), Bucket(17, 80, 48), Bucket(9, 48, 80)]
    for video, (clip, caption) in zip(folder.videos, map(folder.__getitem__, range(3)), strict=True):
        prompt, frames, height, width = PROMPTS[video.name]
        assert caption == prompt
        assert clip.shape == (3, *video.bucket)
        truth = world.render(world.parse(prompt).complete(1), frames, height, width)[:, : video.bucket.frames]
        assert (clip - truth).abs().mean() < 0.04  # H.264 is not exact
        assert judge(clip).compare(world.parse(prompt))["colour"]


def test_the_same_folder_gives_the_same_clips_bit_for_bit(videos):
    one, two = VideoFolder(videos), VideoFolder(videos)
    assert one.videos == two.videos
    for index in range(len(one)):
        assert torch.equal(one[index][0], two[index][0])
    drawn = [one.clip(0, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm", ".MP4"])
def test_all_containers_give_all_frames_in_order(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", steps(13))
    assert greys(VideoFolder(tmp_path)[0][0]) == list(range(1, 14))


def test_a_generator_draws_a_part_of_a_long_video_and_every_start_occurs(tmp_path):
    write(tmp_path / "a.mp4", steps(8))
    folder = VideoFolder(tmp_path, longest=5)
    assert greys(folder[0][0]) == [1, 2, 3, 4, 5]
    generator = torch.Generator().manual_seed(0)
    found = [greys(folder.clip(0, generator)) for _ in range(30)]
    assert {tuple(clip) for clip in found} == {tuple(range(k, k + 5)) for k in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(None, list(range(1, 13))), (8, list(range(1, 13))), (4, [1, 3, 5, 7, 9, 11]), (3, [1, 3, 6, 9, 11])],
)
def test_frames_are_taken_at_their_times(tmp_path, fps, expected):
    """12 frames at 8 a second: at 3 a second, times 0, .333, .667, 1, 1.333 show frames 0, 2, 5, 8, 10."""
    write(tmp_path / "a.mp4", steps(12), fps=8)
    (video,) = VideoFolder(tmp_path, fps=fps, longest=99).videos
    assert [frame + 1 for frame in video.frames] == expected


def test_a_slow_video_repeats_frames(tmp_path):
    write(tmp_path / "a.mp4", steps(3), fps=4)
    folder = VideoFolder(tmp_path, fps=8)
    assert greys(folder[0][0]) == [1, 1, 2, 2, 3]


def test_variable_frame_rates_go_by_time_stamps(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 8)
        for tick, pixels in zip((0, 1, 2, 6, 7), steps(5), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 8)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    (video,) = VideoFolder(tmp_path, fps=8).videos
    assert [frame + 1 for frame in video.frames] == [1, 2, 3, 3, 3, 3, 4, 5]


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2)])  # anticlockwise
def test_a_video_that_lies_on_its_side_is_put_upright(tmp_path, rotation, turns):
    frames = np.zeros((5, 32, 48, 3), np.uint8)
    frames[:, :16, :16, 0] = 255  # a red corner, top left
    write(tmp_path / "a.mp4", frames, rotation=rotation)
    folder = VideoFolder(tmp_path)
    upright = np.rot90(frames, turns, axes=(1, 2))
    assert folder.buckets == [Bucket(5, *upright.shape[1:3])]
    picture = 127.5 * folder[0][0].permute(1, 2, 3, 0).numpy() + 127.5
    assert np.abs(picture - upright).mean() < 12


def test_what_overhangs_a_bucket_is_cut_the_same_on_both_sides(tmp_path):
    frames = np.zeros((5, 40, 48, 3), np.uint8)
    frames[:, :, :, 1] = np.linspace(0, 250, 40, dtype=np.uint8)[:, None]
    write(tmp_path / "a.mp4", frames)
    folder = VideoFolder(tmp_path)
    assert folder.buckets == [Bucket(5, 32, 48)]
    column = 127.5 * folder[0][0][1, 2, :, 24] + 127.5
    assert torch.allclose(column, torch.linspace(0, 250, 40)[4:36], atol=6)


def test_what_is_too_large_is_scaled_down_by_averages(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2).repeat(5, 0)
    write(tmp_path / "a.mp4", frames)
    folder = VideoFolder(tmp_path, pixels=32 * 32)
    assert folder.buckets == [Bucket(5, 32, 32)]
    picture = 127.5 * folder[0][0].permute(1, 2, 3, 0).numpy() + 127.5
    middles = np.s_[:, 1::4, 1::4]  # of squares of 4 pixels, where neighbours hardly count
    assert np.abs(picture[middles] - frames[:, 1::8, 1::8]).mean() < 12


def test_broken_files_are_named_and_skipped(videos):
    (videos / "text.mp4").write_text("this is no video at all, it only has the name of one\n" * 20)
    whole = (videos / "tall.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "nothing.webm").write_bytes(b"")
    with av.open(str(videos / "sound.mov"), "w") as film:
        stream = film.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        film.mux(stream.encode(sound))
        film.mux(stream.encode())
    write(videos / "frameless.mp4", steps(0))
    write(videos / "frameless.webm", steps(0))
    write(videos / "small.mp4", steps(5, 8, 8))
    with pytest.warns(UserWarning, match=r"skipped 7 files: .*cut\.mp4"):
        folder = VideoFolder(videos)
    assert [video.name for video in folder.videos] == ["deep/square.mp4", "tall.mp4", "wide.mp4"]
    reasons = {
        "cut.mp4": "cannot be opened",
        "frameless.mp4": "has no video stream",
        "frameless.webm": "cannot be opened",
        "nothing.webm": "cannot be opened",
        "small.mp4": "is 8x8 pixels",
        "sound.mov": "has no video stream",
        "text.mp4": "cannot be opened",
    }
    assert folder.skipped.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in folder.skipped[name], name


def test_a_file_whose_end_is_missing_breaks_off(tmp_path):
    """The index stands in front here, so that the file opens and only decoding shows the loss."""
    write(tmp_path / "good.mp4", steps(9))
    noise = np.random.default_rng(0).integers(0, 256, (25, 64, 64, 3), dtype=np.uint8)
    with av.open(str(tmp_path / "whole.mp4"), "w", options={"movflags": "faststart"}) as film:
        stream = film.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in noise:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "whole.mp4").unlink()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"cut\.mp4 breaks off after \d+"):
        assert [video.name for video in VideoFolder(tmp_path).videos] == ["good.mp4"]


def test_a_file_that_is_replaced_later_is_named_when_it_is_read(videos):
    folder = VideoFolder(videos)
    (videos / "tall.mp4").write_text("overwritten")
    with pytest.raises(BrokenVideo, match=r"tall\.mp4 has changed"):
        folder[1]


@pytest.mark.parametrize("broken", [False, True])
def test_a_folder_without_a_video_is_an_error_that_names_it(tmp_path, broken):
    (tmp_path / "notes.txt").write_text("no video")
    if broken:
        (tmp_path / "a.mp4").write_text("no video either")
    with pytest.raises(ValueError, match="a.mp4 cannot be opened" if broken else "there is none") as error:
        VideoFolder(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_no_folder_and_bad_limits_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        VideoFolder(tmp_path / "missing")
    write(tmp_path / "a.mp4", steps(5))
    for limits, name in (({"longest": 0}, "longest"), ({"pixels": 255}, "pixels"), ({"fps": 0}, "fps")):
        with pytest.raises(ValueError, match=f"{name}="):
            VideoFolder(tmp_path, **limits)


@pytest.mark.parametrize("table", ["captions.csv", "captions.jsonl"])
def test_captions_come_from_a_table_and_a_text_file_wins(videos, table):
    (videos / "wide.txt").unlink()
    (videos / "deep/square.txt").unlink()
    rows = {"wide.mp4": 'a star, "red"', "tall.mp4": "not this one"}
    if table.endswith(".csv"):
        lines = ["file,caption", 'wide.mp4,"a star, ""red"""', "tall.mp4,not this one"]
    else:
        lines = [json.dumps({"file": name, "caption": caption}) for name, caption in rows.items()]
    (videos / table).write_text("\n".join(lines) + "\n")
    found = {video.name: video.caption for video in VideoFolder(videos).videos}
    assert found == {
        "deep/square.mp4": "", "tall.mp4": PROMPTS["tall.mp4"][0], "wide.mp4": 'a star, "red"'
    }  # fmt: skip


def test_bad_tables_are_refused_and_idle_captions_reported(videos):
    (videos / "captions.jsonl").write_text('{"file": "gone.mp4", "caption": "x"}\n')
    with pytest.warns(UserWarning, match=r"not there: gone\.mp4"):
        VideoFolder(videos)
    (videos / "captions.csv").write_text("file,caption\nwide.mp4,x\n")
    with pytest.raises(ValueError, match="keep one"):
        VideoFolder(videos)
    (videos / "captions.jsonl").unlink()
    (videos / "captions.csv").write_text("name,text\nwide.mp4,x\n")
    with pytest.raises(ValueError, match="needs `file` and `caption`"):
        VideoFolder(videos)


def test_a_batch_is_of_one_bucket(videos):
    toy("a red ring grows", 9, 48, 80).save(videos / "wide2.mp4", scale=1)
    folder = VideoFolder(videos)
    batch, captions = folder.batch([2, 3])
    assert batch.shape == (2, 3, 9, 48, 80) and captions == [PROMPTS["wide.mp4"][0], ""]
    with pytest.raises(ValueError, match="not of one bucket"):
        folder.batch([0, 2])
    assert folder.sizes() == {Bucket(9, 48, 80): 2, Bucket(13, 64, 64): 1, Bucket(17, 80, 48): 1}


# --- buckets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("video", "longest", "pixels", "bucket"),
    [
        ((17, 64, 64), 17, 64 * 64, (17, 64, 64)),
        ((16, 64, 64), 17, 64 * 64, (13, 64, 64)),
        ((300, 1080, 1920), 49, 480 * 720, (49, 432, 768)),
        ((300, 1920, 1080), 49, 480 * 720, (49, 768, 432)),
        ((1, 40, 40), 17, 64 * 64, (1, 32, 32)),
        ((5, 64, 6400), 17, 64 * 64, (5, 16, 256)),
    ],
)
def test_buckets(video, longest, pixels, bucket):
    assert bucket_for(*video, longest=longest, pixels=pixels) == bucket


def test_buckets_keep_the_shape_and_the_limits_whatever_the_video():
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = (int(16 * 2 ** rng.uniform(0, 7)) for _ in range(2))
        frames, longest, cells = (int(rng.integers(1, n)) for n in (100, 60, 2000))
        bucket = bucket_for(frames, height, width, longest=longest, pixels=256 * cells)
        assert bucket.frames % 4 == 1 and bucket.frames <= min(frames, longest) < bucket.frames + 4
        assert bucket.height % 16 == bucket.width % 16 == 0
        assert bucket.height <= height and bucket.width <= width
        assert bucket.height * bucket.width <= 256 * cells
        if min(bucket.height, bucket.width) >= 64 and height * width <= 256 * cells:
            assert share_kept(height, width, bucket) > 0.8


def test_the_share_kept_is_the_area_that_is_shown():
    assert share_kept(64, 64, Bucket(1, 64, 64)) == 1
    assert share_kept(90, 160, Bucket(1, 64, 64)) == pytest.approx(90 / 160)


def test_each_step_has_a_full_batch_of_one_bucket_and_every_clip_its_turn():
    a, b, c = Bucket(1, 16, 16), Bucket(5, 16, 16), Bucket(9, 16, 16)
    kinds = [a, b, a, a, c, a, a, b]
    batches = BucketBatches(kinds, batch=3, seed=1)
    assert len(batches) == len(kinds)
    for first in (0, len(kinds)):
        drawn = [batches.at(step) for step in range(first, first + len(kinds))]
        assert all(len(batch) == 3 and len({kinds[i] for i in batch}) == 1 for batch in drawn)
        assert sorted(i for batch in drawn for i in batch) == sorted(3 * list(range(len(kinds))))
    again = BucketBatches(kinds, batch=3, seed=1)
    assert [again.at(step) for step in (12, 3, 12)] == [batches.at(step) for step in (12, 3, 12)]
    rounds = [[batches.at(first + k) for k in range(8)] for first in (0, 8, 16)]
    assert rounds[0] != rounds[1] != rounds[2]
    assert [BucketBatches(kinds, 3, seed=2).at(k) for k in range(8)] != rounds[0]


def test_bad_batches_are_refused():
    for buckets, batch in (([], 2), ([Bucket(1, 16, 16)], 0)):
        with pytest.raises(ValueError, match="at least 1"):
            BucketBatches(buckets, batch)
    with pytest.raises(ValueError, match="step=-1"):
        BucketBatches([Bucket(1, 16, 16)], 1).at(-1)
    with pytest.raises(ValueError, match="height=8"):
        bucket_for(5, 8, 32, longest=5, pixels=4096)


def test_a_sound_folder_warns_of_nothing(videos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoFolder(videos)
