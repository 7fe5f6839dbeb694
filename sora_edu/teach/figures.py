"""How the course draws: one style, alt text on every picture, and moving clips that need no player.

Everything goes out as `image/png` (a clip as an animated PNG), which JupyterLab, GitHub, nbconvert and
Sphinx all show, with the alt text in the output's metadata.

>>> fig, ax = plt.subplots()
>>> show(fig, alt="A straight line from 0 to 1.")
>>> clip(frames, alt="A red star bounces three times.")
"""

import base64
import io
import textwrap
from functools import cache

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "ink": "#222222",
    "grey": "#8A8A8A",
    "pale": "#ECEFF1",
}
"""Okabe and Ito's eight colours, told apart with every common colour blindness, and three neutrals."""

SEQUENTIAL = "cividis"
"""Colour map for values from small to large."""

DIVERGING = "RdBu_r"
"""Colour map for values around zero; give it `vmin=-m, vmax=m`."""

_LINES = ("blue", "orange", "green", "vermilion", "purple", "sky", "ink")
_MARGIN = 8  # pixels around each clip of a grid


def style() -> None:
    """Set the one matplotlib style of the course: large type, few lines, a colour-blind-safe cycle."""
    plt.rcParams.update(
        {
            "figure.figsize": (9.0, 4.5),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 15,
            "font.family": "DejaVu Sans",
            "axes.titlesize": 17,
            "axes.labelsize": 15,
            "axes.prop_cycle": matplotlib.cycler(color=[PALETTE[name] for name in _LINES]),
            "axes.edgecolor": PALETTE["ink"],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "grid.color": "#D8D8D8",
            "xtick.labelsize": 13,
            "ytick.labelsize": 13,
            "legend.fontsize": 13,
            "legend.frameon": False,
            "lines.linewidth": 2.5,
            "lines.markersize": 7,
            "image.cmap": SEQUENTIAL,
            "image.interpolation": "nearest",
        }
    )


def show(fig: Figure, *, alt: str) -> None:
    """Display a matplotlib figure with its alt text and close it.

    Args:
        fig: the figure; it is closed, so the notebook does not show it a second time.
        alt: what a person who cannot see the figure needs to know: what it is and what it shows.

    Raises:
        ValueError: the alt text is empty.
    """
    _check_alt(alt)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=fig.dpi, bbox_inches="tight", facecolor="white")
    plt.close(fig)
    _send(buffer.getvalue(), alt)


def frames_of(video) -> np.ndarray:
    """The frames of a clip as uint8 `t h w c`.

    Args:
        video: something with `.frames`; or uint8 `t h w c` (one picture `h w c` is one frame);
            or floats `c t h w` in [-1, 1], as the renderer and the models make them.

    Raises:
        ValueError: another shape or type.
    """
    values = np.asarray(getattr(video, "frames", video))
    if values.dtype == np.uint8 and values.ndim in (3, 4) and values.shape[-1] in (1, 3):
        values = values if values.ndim == 4 else values[None]
        return values.repeat(3, axis=-1) if values.shape[-1] == 1 else values
    if np.issubdtype(values.dtype, np.floating) and values.ndim == 4 and values.shape[0] in (1, 3):
        return frames_of(((values.transpose(1, 2, 3, 0).clip(-1, 1) + 1) * 127.5).round().astype(np.uint8))
    raise ValueError(
        f"video has shape {values.shape} and type {values.dtype}; "
        "give uint8 frames (t, h, w, c) or floats (c, t, h, w) in [-1, 1]"
    )


def clip(video, *, alt: str, fps: float = 8, scale: int | None = None) -> None:
    """Show one clip; it plays in a loop.

    Args:
        video: see `frames_of`.
        alt: what the clip shows, in words.
        fps: frames per second.
        scale: whole-number enlargement; None makes the clip at least 192 pixels high.
    """
    clips([video], alt=alt, fps=fps, scale=scale)


def clips(videos, captions=None, *, alt: str, columns: int | None = None, fps: float = 8, scale: int | None = None):
    """Show several clips side by side, in step, as one picture.

    A shorter clip waits on its last frame until the longest is over.

    Args:
        videos: the clips, see `frames_of`; sizes may differ.
        captions: one line of text for each clip, written above it and wrapped to its width.
        alt: what the clips show, in words.
        columns: how many stand in a row; None puts up to four in a row.
        fps: frames per second.
        scale: whole-number enlargement; None makes the clips at least 192 pixels high, 128 in a grid.

    Raises:
        ValueError: no clip, a caption missing, or a bad fps or scale.
    """
    _check_alt(alt)
    videos = [frames_of(video) for video in videos]
    captions = [""] * len(videos) if captions is None else list(captions)
    if not videos or len(captions) != len(videos):
        raise ValueError(f"captions has {len(captions)} entries for {len(videos)} clips; give one for each clip")
    if fps <= 0:
        raise ValueError(f"fps={fps}; frames per second must be positive")
    columns = columns or min(4, len(videos))
    videos = [_enlarge(frames, scale, 192 if columns == 1 else 128) for frames in videos]
    pages = [_page(videos, captions, columns, index) for index in range(max(map(len, videos)))]
    _send(_apng(pages, fps), alt)


def strip(video, *, alt: str, count: int = 6, fps: float = 8, scale: int | None = None, captions=None) -> None:
    """Show some frames of a clip side by side, like a strip of film, with their times beneath.

    Args:
        video: see `frames_of`.
        alt: what the strip shows, in words.
        count: how many frames, spread evenly from the first to the last.
        fps: frames per second, for the times.
        scale: whole-number enlargement; None makes the frames at least 128 pixels high.
        captions: text above each frame instead of its time.
    """
    _check_alt(alt)
    frames = frames_of(video)
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    captions = [f"{index / fps:.2f} s" for index in chosen] if captions is None else list(captions)
    if len(captions) != len(chosen):
        raise ValueError(f"captions has {len(captions)} entries for {len(chosen)} frames; give one for each frame")
    pictures = [_enlarge(frames[index : index + 1], scale, 128) for index in chosen]
    _send(_png(_page(pictures, captions, len(pictures), 0)), alt)


def _check_alt(alt: str) -> None:
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt={alt!r}; say in words what the picture shows")


def _send(png: bytes, alt: str) -> None:
    # The alt text stands in for the picture where only text is shown, and survives nbconvert as <img alt>.
    bundle = {"image/png": base64.b64encode(png).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def _enlarge(frames: np.ndarray, scale: int | None, at_least: int) -> np.ndarray:
    if scale is None:
        scale = max(1, -(-at_least // frames.shape[1]))
    if scale != int(scale) or scale < 1:
        raise ValueError(f"scale={scale}; give a whole number of at least 1")
    return frames.repeat(int(scale), axis=1).repeat(int(scale), axis=2)


def _page(videos, captions, columns: int, index: int) -> Image.Image:
    """Frame `index` of every clip, laid out in a grid with the captions above."""
    cell_w, cell_h = max(v.shape[2] for v in videos), max(v.shape[1] for v in videos)
    font = _font(16)
    wrapped = [textwrap.wrap(text, max(8, int(cell_w / 9.6))) for text in captions]
    band = 20 * max(map(len, wrapped)) + (6 if any(wrapped) else 0)
    rows = -(-len(videos) // columns)
    size = (columns * (cell_w + _MARGIN) + _MARGIN, rows * (cell_h + band + _MARGIN) + _MARGIN)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    for k, (frames, lines) in enumerate(zip(videos, wrapped)):
        x = _MARGIN + (k % columns) * (cell_w + _MARGIN)
        y = _MARGIN + (k // columns) * (cell_h + band + _MARGIN)
        for line_number, line in enumerate(lines):
            pen.text((x, y + 20 * line_number), line, fill=PALETTE["ink"], font=font)
        page.paste(Image.fromarray(frames[min(index, len(frames) - 1)]), (x, y + band))
    return page


def _png(page: Image.Image) -> bytes:
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _apng(pages: list[Image.Image], fps: float) -> bytes:
    if len(pages) == 1:
        return _png(pages[0])
    buffer = io.BytesIO()
    pages[0].save(
        buffer, format="PNG", save_all=True, append_images=pages[1:], duration=1000 / fps, loop=0, optimize=True
    )
    return buffer.getvalue()
