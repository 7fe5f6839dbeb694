"""A clip: some frames, what was asked for, and how to see, keep or send them.

Files are written with every pixel enlarged to a square, since 64x64 is small on a screen: `.mp4` (H.264),
`.gif`, and `.png` (an animated PNG, exact in every pixel, which browsers and notebooks play).
"""

import base64
import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sora_edu.data import videos
from sora_edu.data.render import FPS
from sora_edu.files import check_target, write_whole

SUFFIXES = (".mp4", ".gif", ".png")


@dataclass(frozen=True, eq=False)
class Clip:
    """A short film, or a picture if it has one frame."""

    frames: UInt8[np.ndarray, "t h w c"]
    """Red, green and blue from 0 to 255."""
    prompt: str
    """What was asked for."""
    seed: int = 0
    """The seed that gives this clip again, by itself."""
    fps: int = FPS
    """Frames per second."""

    def __post_init__(self):
        frames = self.frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"frames is {frames.dtype} of shape {frames.shape}; give uint8 (t, h, w, 3)")

    def __repr__(self) -> str:
        t, h, w, _ = self.frames.shape
        return f"Clip({self.prompt!r}, seed={self.seed}, {t} frames of {h}x{w}, {t / self.fps:.1f} s)"

    def _repr_mimebundle_(self, include=None, exclude=None):
        picture = base64.b64encode(animated_png(enlarge(self.frames, 4), self.fps)).decode()
        metadata = {"image/png": {"alt": f"A clip: {self.prompt}"}}
        return {"image/png": picture, "text/plain": repr(self)}, metadata

    def show(self) -> None:
        """Plays the clip in the notebook; elsewhere, prints what it is."""
        from IPython.display import display

        display(self)

    def save(self, path: Path | str, scale: int = 4) -> Path:
        """Writes the clip to a file, whole or not at all, and gives its path.

        Args:
            path: where to, with the suffix .mp4, .gif or .png (animated); a file there is replaced.
            scale: whole number of screen pixels for each pixel, each way.

        Raises:
            ValueError: another suffix, or a scale below 1.
            WriteError: the file cannot be written; see `sora_edu.files`.
        """
        path = check_suffix(path)
        check_target(path)
        frames = enlarge(self.frames, scale)
        note = f"{self.prompt} (seed {self.seed})"
        encoder = {".mp4": h264, ".gif": animated_gif, ".png": animated_png}[path.suffix.lower()]
        return write_whole(path, encoder(frames, self.fps, note))


def read_frames(path: Path | str, height: int, width: int) -> UInt8[np.ndarray, "t h w 3"]:
    """The frames of a picture or a clip, at 8 a second, each square of pixels averaged down to one.

    Reads what `Clip.save` writes, and other pictures and films whose sides are whole multiples of the size.
    A .png of a clip in which no pixel ever changes is a picture: it comes back as one frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as pictures, or its size does not fit; the message says what would.
    """
    path = Path(path)
    if min(height, width) < 1:
        raise ValueError(f"height={height}, width={width}: both must be at least 1")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    film = path.suffix.lower() in videos.SUFFIXES
    try:
        frames = np.stack(videos.upright_frames(path, FPS) if film else _read_pictures(path))
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"{path} cannot be read as pictures ({type(error).__name__})") from error
    _, tall, wide, _ = frames.shape
    if tall % height or wide % width or tall // height != wide // width:
        raise ValueError(
            f"{path} is {tall}x{wide}; for {height}x{width} it must be that, or a whole multiple of it"
        )
    side = tall // height
    squares = frames.reshape(len(frames), height, side, width, side, 3)
    return squares.mean((2, 4)).round().astype(np.uint8)


def _read_pictures(path: Path) -> list[np.ndarray]:
    """Frames at 8 a second: those that stand still are stored once, and come back as often as they were."""
    from PIL import Image, ImageSequence

    frames, begin = [], 0.0
    with Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            end = begin + (frame.info.get("duration") or 1000 / FPS)
            shown = max(not frames, round(end * FPS / 1000) - len(frames))
            frames += [np.asarray(frame.convert("RGB"))] * shown
            begin = end
    return frames


def check_suffix(path: Path | str) -> Path:
    """The path as a `Path`, if its suffix is one that clips can be written as; else a `ValueError`."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        example = path.with_suffix(".mp4") if path.name else Path("clip.mp4")
        raise ValueError(f"path={str(path)!r} must end in one of {', '.join(SUFFIXES)}, as {example} does")
    return path


def check_scale(scale: int) -> None:
    """A `ValueError` unless the scale is a whole number from 1 to 64."""
    if isinstance(scale, bool) or not isinstance(scale, int) or not 1 <= scale <= 64:
        raise ValueError(f"scale={scale!r} must be a whole number from 1 to 64")


def enlarge(frames: UInt8[np.ndarray, "t h w c"], scale: int) -> UInt8[np.ndarray, "t h2 w2 c"]:
    """Makes every pixel a square of `scale` x `scale`."""
    check_scale(scale)
    return frames.repeat(scale, axis=1).repeat(scale, axis=2)


def animated_png(frames: UInt8[np.ndarray, "t h w c"], fps: int = FPS, note: str = "") -> bytes:
    """The frames as an animated PNG that repeats for ever; a plain PNG if there is one."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    if note:
        text.add_itxt("Description", note)
    return _with_pillow(frames, format="PNG", duration=1000 / fps, pnginfo=text, optimize=True)


def animated_gif(frames: UInt8[np.ndarray, "t h w c"], fps: int = FPS, note: str = "") -> bytes:
    """The frames as a GIF that repeats for ever."""
    # GIF counts in hundredths of a second: round the times at which frames begin, not the durations.
    begins = [10 * round(100 * i / fps) for i in range(len(frames) + 1)]
    durations = [after - before for before, after in pairwise(begins)]
    comment = {"comment": note.encode()[:255]} if note else {}
    return _with_pillow(frames, format="GIF", duration=durations, disposal=1, **comment)


def _with_pillow(frames, **options) -> bytes:
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    film = {"save_all": True, "append_images": rest, "loop": 0} if rest else {}
    if not rest:
        options.pop("duration")
    buffer = io.BytesIO()
    first.save(buffer, **options, **film)
    return buffer.getvalue()


def h264(frames: UInt8[np.ndarray, "t h w c"], fps: int = FPS, note: str = "") -> bytes:
    """The frames as H.264 in an MP4 file that any browser plays; an odd last row or column is cut off."""
    import av

    # Colour is kept for blocks of 2x2 pixels, so both sides must be even.
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    if 0 in frames.shape:
        raise ValueError("an .mp4 needs at least 2x2 pixels; give a larger scale")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as film:
        if note:
            film.metadata["comment"] = note
        stream = film.add_stream("libx264", rate=fps, options={"crf": "14"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        film.mux(stream.encode())
    return buffer.getvalue()
