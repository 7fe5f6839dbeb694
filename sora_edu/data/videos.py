"""Real video: a folder of files with captions beside them, at their own size, length and shape (chapter 14).

Captions stand in a text file of the same name (`dog.mp4`, `dog.txt`), or all in one table in the folder,
`captions.csv` or `captions.jsonl`, with the columns `file` and `caption`. A text file wins over the table; a
video without either has the empty caption, which is the null condition of guidance.

    >>> folder = VideoFolder("videos", longest=17, pixels=64 * 64)
    >>> folder.skipped                                # what could not be read, and why
    {'broken.mp4': 'cannot be opened: InvalidDataError'}
    >>> clip, caption = folder[0]
"""

import csv
import json
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from sora_edu.data.buckets import STEP, Bucket, bucket_for, check_one_bucket

SUFFIXES = (".mp4", ".mov", ".webm")
TABLES = ("captions.csv", "captions.jsonl")


class BrokenVideo(ValueError):
    """A file that cannot be used; the message says why."""


@dataclass(frozen=True)
class Video:
    """What is known of a file once it has been read through."""

    name: str
    """Path within the folder, with slashes."""
    height: int
    """Pixels, as it is to be seen."""
    width: int
    """Pixels, as it is to be seen."""
    frames: tuple[int, ...]
    """Numbers of the frames that count, in order; with `fps` some are left out and some may come twice."""
    caption: str
    """What is to be seen, or ""."""
    bucket: Bucket
    """The size of its clips."""


class VideoFolder:
    """The videos under a folder, in the order of their names: a data set for `torch.utils.data`.

    Every file is decoded once when the folder is opened, so that a broken one is known by name before a
    training begins; a long one is better cut into scenes beforehand. Item i is a clip "3 t h w" in [-1, 1],
    of the size `videos[i].bucket`, and its caption: the first frames, scaled to cover that size, and cut at
    the centre.
    """

    def __init__(
        self, folder: Path | str, *, longest: int = 17, pixels: int = 64 * 64, fps: float | int | None = None
    ):
        """
        Args:
            folder: where the files are, also in folders below.
            longest, pixels: of a clip; see `bucket_for`.
            fps: frames to take of each second, those that stand at these times; None takes all.

        Raises:
            ValueError: no such folder, nothing in it that can be used (with the reasons), a caption table
                that cannot be read, or limits that are too small.
        """
        self.folder, self.fps = Path(folder), fps
        bucket_for(1, STEP, STEP, longest=longest, pixels=pixels)  # refuses limits before files are read
        if fps is not None and not fps > 0:
            raise ValueError(f"fps={fps}: must be positive, or None for all frames")
        if not self.folder.is_dir():
            raise ValueError(f"folder={str(folder)!r} is not a folder")
        self.videos: list[Video] = []
        self.skipped: dict[str, str] = {}
        captions = _captions(self.folder)
        for path in _files(self.folder):
            name = path.relative_to(self.folder).as_posix()
            try:
                (height, width), frames = _probe(path, fps)
                bucket = _bucket(len(frames), height, width, longest, pixels)
            except BrokenVideo as error:
                self.skipped[name] = str(error)
                continue
            caption = _caption_beside(path)
            caption = captions.get(name, "") if caption is None else caption
            self.videos.append(Video(name, height, width, tuple(frames), caption, bucket))
        self._report(captions)

    def _report(self, captions: dict[str, str]) -> None:
        why = "; ".join(f"{name} {reason}" for name, reason in self.skipped.items())
        if not self.videos:
            found = f"none of its {len(self.skipped)} can be used: {why}" if why else "there is none"
            raise ValueError(
                f"folder={str(self.folder)!r} needs at least one {', '.join(SUFFIXES)} file; {found}"
            )
        if why:
            warnings.warn(f"{self.folder}: skipped {len(self.skipped)} files: {why}", stacklevel=3)
        known = {video.name for video in self.videos} | self.skipped.keys()
        if missing := sorted(captions.keys() - known):
            listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            warnings.warn(f"{self.folder}: captions for files that are not there: {listed}", stacklevel=3)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 t h w"], str]:
        return self.clip(index), self.videos[index].caption

    @property
    def buckets(self) -> list[Bucket]:
        """The bucket of each video, for `BucketBatches`."""
        return [video.bucket for video in self.videos]

    def sizes(self) -> dict[Bucket, int]:
        """How many videos each bucket has, the fullest first."""
        return dict(Counter(self.buckets).most_common())

    def clip(self, index: int, generator: torch.Generator | None = None) -> Float[Tensor, "3 t h w"]:
        """A clip of a video: its beginning, or with a generator a part of it drawn at random.

        Raises BrokenVideo, by name, for a file that has changed since the folder was opened.
        """
        video = self.videos[index]
        t = video.bucket.frames
        late = len(video.frames) - t
        start = int(torch.randint(late + 1, (1,), generator=generator)) if generator is not None else 0
        wanted = video.frames[start : start + t]
        try:
            frames = np.stack(_pick(self.folder / video.name, wanted))
        except (BrokenVideo, KeyError, ValueError) as error:
            raise BrokenVideo(f"{self.folder / video.name} has changed since it was opened") from error
        return _cover(frames, video.bucket)

    def batch(
        self, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b 3 t h w"], list[str]]:
        """Clips of one bucket, stacked, and their captions; `generator` as in `clip`.

        Raises ValueError for clips of several buckets, or none.
        """
        check_one_bucket(indices, (self.videos[index].bucket for index in indices))
        clips = [self.clip(index, generator) for index in indices]
        return torch.stack(clips), [self.videos[index].caption for index in indices]


# --- files -----------------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    visible = (path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def _caption_beside(path: Path) -> str | None:
    beside = path.with_suffix(".txt")
    return beside.read_text(encoding="utf-8").strip() if beside.is_file() else None


def _captions(folder: Path) -> dict[str, str]:
    """The folder's table by file name; empty if there is none. Raises ValueError for a bad one, or two."""
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        raise ValueError(f"{folder} holds {' and '.join(TABLES)}; keep one of them")
    if not tables:
        return {}
    (table,) = tables
    try:
        text = table.read_text(encoding="utf-8-sig")
        if table.suffix == ".csv":
            rows = list(csv.DictReader(text.splitlines(keepends=True)))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        return {row["file"]: (row["caption"] or "").strip() for row in rows}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{table} cannot be read ({type(error).__name__}: {error}); it needs `file` and `caption` in "
            "each row, in UTF-8"
        ) from error


# --- decoding --------------------------------------------------------------------------------------------


def _decode(path: Path) -> Iterator:
    """Frames in the order in which they are shown. Raises BrokenVideo for whatever cannot be read.

    A WebM file does not announce its frames: one that was cut is taken for a shorter film.
    """
    import av

    try:
        film = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise BrokenVideo(f"cannot be opened: {type(error).__name__}") from error
    with film:
        if not film.streams.video:
            raise BrokenVideo("has no video stream")
        stream, number = film.streams.video[0], 0
        try:
            for frame in film.decode(stream):
                yield frame
                number += 1
        except (av.FFmpegError, OSError) as error:
            raise BrokenVideo(f"breaks off after {number} frames: {type(error).__name__}") from error
        if number == 0:
            raise BrokenVideo("has no frames")
        if number < stream.frames:
            raise BrokenVideo(f"breaks off after {number} of {stream.frames} frames")


def upright_frames(path: Path, fps: float | int) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Frames of a film as they are to be seen, those at 0, 1/fps, 2/fps, ….

    Raises BrokenVideo for whatever cannot be read.
    """
    return _pick(path, _probe(path, fps)[1])


def _pick(path: Path, wanted: Sequence[int]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The frames of these rising numbers, some perhaps twice. Raises KeyError for one that is not there."""
    kept: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    for number, frame in enumerate(_decode(path)):
        if number in wanted:
            kept[number] = _upright(frame)
        if number >= wanted[-1]:
            break
    return [kept[number] for number in wanted]


def _upright(frame) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels as they are to be seen: phones store an upright video lying on its side, with a note."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)).copy()


def _probe(path: Path, fps: float | int | None) -> tuple[tuple[int, int], list[int]]:
    """Height and width of the first frame, and numbers of the frames that count."""
    size, times = None, []
    for frame in _decode(path):
        lying = round(frame.rotation / 90) % 2
        found = (frame.width, frame.height) if lying else (frame.height, frame.width)
        size = size or found
        if found != size:
            raise BrokenVideo(f"changes its size from {size} to {found}")
        times.append(float(frame.time or 0.0))
    return size, _at_rate(times, fps)


def _at_rate(times: Sequence[float], fps: float | int | None) -> list[int]:
    """Numbers of the frames that are on the screen at 0, 1/fps, 2/fps, …; with None, of all."""
    if fps is None:
        return list(range(len(times)))
    late = 1e-4  # files round times, and a frame must not come too late for that
    ticks = int((times[-1] - times[0] + late) * fps) + 1
    return [bisect_right(times, times[0] + tick / fps + late) - 1 for tick in range(ticks)]


def _bucket(frames: int, height: int, width: int, longest: int, pixels: int) -> Bucket:
    if min(height, width) < STEP:
        raise BrokenVideo(f"is {height}x{width} pixels; at least {STEP}x{STEP} are needed")
    return bucket_for(frames, height, width, longest=longest, pixels=pixels)


def _cover(frames: UInt8[np.ndarray, "t h w 3"], bucket: Bucket) -> Float[Tensor, "3 t h2 w2"]:
    """Scales frames until they cover the bucket's size, and cuts what overhangs, the same on both sides."""
    video = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    height, width = video.shape[2:]
    scale = max(bucket.height / height, bucket.width / width)
    size = (max(bucket.height, round(scale * height)), max(bucket.width, round(scale * width)))
    if size != (height, width):
        video = F.interpolate(video, size, mode="bilinear", antialias=True)
    top, left = (size[0] - bucket.height) // 2, (size[1] - bucket.width) // 2
    cut = video[:, :, top : top + bucket.height, left : left + bucket.width]
    return cut.transpose(0, 1).contiguous()
