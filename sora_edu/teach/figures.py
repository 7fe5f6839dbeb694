"""How the course draws: one style, alt text on every picture, and moving clips that need no player.

Everything goes out as `image/png` (a clip as an animated PNG), which JupyterLab, GitHub, nbconvert and
Sphinx all show, with the alt text in the output's metadata.

>>> fig, ax = plt.subplots()
>>> show(fig, alt="A straight line from 0 to 1.")
>>> clip(frames, alt="A red star bounces three times.")
"""

import base64
import html
import io
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display
from jaxtyping import Float
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sora_edu.clips import animated_png, enlarge
from sora_edu.data.catalogues import Event
from sora_edu.data.render import FPS
from sora_edu.sora import to_uint8

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
    "pale": "#F0F3F5",
}
"""Okabe and Ito's eight colours, told apart with every common colour blindness, and three neutrals."""

SEQUENTIAL = "cividis"
"""Colour map for values from small to large."""

DIVERGING = "RdBu_r"
"""Colour map for values around zero; give it `vmin=-m, vmax=m`."""

_LINES = ("blue", "orange", "green", "vermilion", "purple", "sky", "ink")
_MARGIN = 8  # pixels around each clip of a grid
_LINE = 20  # pixels from one line of a caption to the next
_GREY_STEP = 8  # between the greys of captions
_FILM_COLOURS = 208  # of all clips of a grid together; with 32 greys they fit a palette of 256


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
            "xtick.labelsize": 15,
            "ytick.labelsize": 15,
            "legend.fontsize": 15,
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
    send(buffer.getvalue(), alt)


def bare(ax: Axes) -> None:
    """Takes ticks and frame off, as around a picture."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def power(value: float | int, _: object = None) -> str:
    """The label of a power of ten on an axis, in letters of one size: a raised exponent would be small."""
    exponent = round(np.log10(value))
    return f"{value:g}" if -5 < exponent < 5 else f"1e{exponent}"


def pixels(picture: Float[Tensor, "c h w"]) -> np.ndarray:
    """A picture in [-1, 1] for imshow: three channels are colours, one is ink on white."""
    values = ((picture.detach() + 1) / 2).clamp(0, 1).permute(1, 2, 0)
    return (values if values.shape[2] == 3 else 1 - values.expand(-1, -1, 3)).numpy()


def frames_of(video) -> np.ndarray:
    """The frames of a clip as uint8 `t h w c`.

    Args:
        video: something with `.frames`; or uint8 `t h w c` (one picture `h w c` is one frame);
            or floats `c t h w` in [-1, 1], as the renderer and the models make them; c is 3.

    Raises:
        ValueError: another shape or type.
    """
    values = np.asarray(getattr(video, "frames", video))
    if values.dtype == np.uint8 and values.ndim in (3, 4) and values.shape[-1] == 3:
        return values if values.ndim == 4 else values[None]
    if np.issubdtype(values.dtype, np.floating) and values.ndim == 4 and values.shape[0] == 3:
        return to_uint8(torch.from_numpy(values)[None])[0]
    raise ValueError(
        f"video has shape {values.shape} and type {values.dtype}; "
        "give uint8 frames (t, h, w, 3) or floats (3, t, h, w) in [-1, 1]"
    )


def clip(video, *, alt: str, fps: int = FPS, scale: int | None = None) -> None:
    """Show one clip; it plays in a loop.

    Args:
        video: see `frames_of`.
        alt: what the clip shows, in words.
        fps: frames per second.
        scale: whole-number enlargement; None makes the clip at least 192 pixels high.
    """
    clips([video], alt=alt, fps=fps, scale=scale)


def clips(
    videos,
    captions=None,
    *,
    alt: str,
    columns: int | None = None,
    fps: int = FPS,
    scale: int | None = None,
):
    """Show several clips side by side, in step, as one picture.

    A shorter clip waits on its last frame until the longest is over.

    Args:
        videos: the clips, see `frames_of`; sizes may differ.
        captions: one line of text for each clip, written above it and wrapped to its width.
        alt: what the clips show, in words.
        columns: how many stand in a row; None puts up to four in a row.
        fps: frames per second.
        scale: whole-number enlargement; None makes the clips at least 192 pixels high.

    Raises:
        ValueError: no clip, a caption missing, or an impossible scale or fps.
    """
    _check_alt(alt)
    send(clip_grid(videos, captions, columns=columns, fps=fps, scale=scale), alt)


def clip_grid(
    videos, captions=None, *, columns: int | None = None, fps: int = FPS, scale: int | None = None
) -> bytes:
    """The picture that `clips` shows, as the bytes of an animated PNG; arguments and errors as there."""
    videos = [frames_of(video) for video in videos]
    captions = [""] * len(videos) if captions is None else list(captions)
    if not videos or len(captions) != len(videos):
        raise ValueError(f"{len(captions)} captions for {len(videos)} clips; give one for each clip")
    if fps <= 0:
        raise ValueError(f"fps={fps}; frames per second must be positive")
    columns = columns or min(4, len(videos))
    if scale is None:
        scale = _scale(videos, 192)
    places, text = _layout([frames.shape[1:3] for frames in videos], captions, columns, scale)
    indices, palette = _few_colours(videos)
    pages = []
    for moment in range(max(map(len, indices))):
        page = text // _GREY_STEP
        for (y, x), film in zip(places, indices, strict=True):
            frame = film[min(moment, len(film) - 1)].repeat(scale, axis=0).repeat(scale, axis=1)
            page[y : y + frame.shape[0], x : x + frame.shape[1]] = frame
        pages.append(page)
    return _animated(pages, palette, fps)


def strip(
    video, *, alt: str, count: int = 6, fps: int = FPS, scale: int | None = None, captions=None
) -> None:
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
        raise ValueError(f"{len(captions)} captions for {len(chosen)} frames; give one for each frame")
    scale = _scale([frames], 128) if scale is None else scale
    places, text = _layout([frames.shape[1:3]] * len(chosen), captions, len(chosen), scale)
    page = text[..., None].repeat(3, axis=-1)
    for (y, x), frame in zip(places, enlarge(frames[chosen], scale), strict=True):
        page[y : y + frame.shape[0], x : x + frame.shape[1]] = frame
    send(animated_png(page[None]), alt)


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Display a table of texts, as HTML and, where only text is shown, as lines.

    Args:
        rows: the cells, row by row.
        header: the names of the columns.

    Raises:
        ValueError: a row is longer or shorter than the header.
    """
    if bad := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"the row {bad[0]!r} has {len(bad[0])} cells for {len(header)} columns")

    def line(cells: Sequence[str], tag: str) -> str:
        style = ' style="text-align: left; vertical-align: top"'
        return "<tr>" + "".join(f"<{tag}{style}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    page = f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"
    plain = "\n".join(" | ".join(cells) for cells in (header, *rows))
    display({"text/html": page, "text/plain": plain}, raw=True)


_KINDS = {
    "method": ("blue", "a method"),
    "video": ("vermilion", "a model that makes video"),
    "other": ("grey", "other"),
}


def timeline(events: Sequence[Event]) -> None:
    """Show events as a calendar: years from top to bottom, months from left to right.

    Args:
        events: what happened, of the kinds "method", "video" and "other".
    """
    years = _lanes(events)
    height = sum(map(len, years.values()))
    fig, ax = plt.subplots(figsize=(13.5, 1 + 0.3 * height), dpi=80)
    row = 0
    for year, lanes in years.items():
        ax.axhline(row - 0.55, color="#DDDDDD", linewidth=1)
        ax.text(0.35, row, str(year), ha="right", va="center_baseline", fontsize=18, fontweight="bold")
        for lane in lanes:
            for event in lane:
                _draw_event(ax, event, row)
            row += 1
    for colour, label in _KINDS.values():
        ax.plot([], [], "o", color=PALETTE[colour], markersize=9, label=label)
    ax.set(xlim=(-0.4, 12.6), ylim=(height - 0.4, -0.7), yticks=[])
    ax.set_xticks(range(1, 13), list("JFMAMJJASOND"))
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=18)
    ax.spines[:].set_visible(False)
    ax.legend(loc="upper center", fontsize=18, ncols=3, bbox_to_anchor=(0.5, 0))
    listed = "; ".join(f"{e.year}-{e.month:02d} {e.event}" for e in events)
    show(fig, alt=f"A calendar of {len(events)} events: {listed}.")


def _draw_event(ax, event: Event, row: int) -> None:
    ax.plot(event.month, row, "o", color=PALETTE[_KINDS[event.kind][0]], markersize=9)
    side, align = (-0.14, "right") if _is_late(event) else (0.14, "left")
    ax.text(event.month + side, row, event.event, ha=align, va="center_baseline", fontsize=18,
            color=PALETTE["ink"])  # fmt: skip


def _is_late(event: Event) -> bool:
    """The names of autumn events stand to the left of their dots, lest they run out of the picture."""
    return event.month > 8


def _lanes(events: Sequence[Event]) -> dict[int, list[list[Event]]]:
    """For each year its rows of events; names that would touch stand in different rows."""
    years = range(min(event.year for event in events), max(event.year for event in events) + 1)
    lanes: dict[int, list[list[Event]]] = {year: [[]] for year in years}
    for event in events:
        rows = lanes[event.year]
        free = (row for row in rows if not any(_touch(event, other) for other in row))
        row = next(free, None)
        if row is None:
            rows.append(row := [])
        row.append(event)
    return lanes


def _touch(one: Event, other: Event) -> bool:
    def span(event: Event) -> tuple[float, float]:
        width = 0.4 + 0.15 * len(event.event)  # in months, at the size of the letters
        month = float(event.month)
        return (month - width, month + 0.2) if _is_late(event) else (month - 0.2, month + width)

    (a, b), (c, d) = span(one), span(other)
    return a < d and c < b


@dataclass(frozen=True)
class _Box:
    """A part of the machine on the map of the course, in units of a tenth of an inch."""

    chapter: str
    title: str
    note: str
    x: int | float
    y: int | float
    width: int | float
    height: int | float
    frame: bool = False  # it holds other boxes: drawn as a frame with its title on top


_MAP = (
    _Box("00", "From prompt to video", "the whole machine, once through", 2, 64, 134, 7),
    _Box("01", "Diffusion", "a little less noise, again and again", 34, 13, 70, 48, frame=True),
    _Box("10", "Video diffusion transformer", "inside the loop", 37, 16, 64, 36, frame=True),
    _Box("05", "Vision transformer", "patches become tokens", 39, 36.5, 29.5, 9),
    _Box("02", "Positional encoding", "where and when", 69.5, 36.5, 29.5, 9),
    _Box("03", "Self-attention", "tokens look at tokens", 39, 27, 29.5, 9),
    _Box("04", "Transformer", "layers that stack", 69.5, 27, 29.5, 9),
    _Box("07", "Diffusion transformer", "noise level and prompt", 39, 17.5, 29.5, 9),
    _Box("08", "Masked training", "learn from parts", 69.5, 17.5, 29.5, 9),
    _Box("12", "Prompts", "words become vectors", 2, 42, 27, 10),
    _Box("11", "Many tasks", "given frames, masks", 2, 15, 27, 10),
    _Box("09", "Video tokens", "one latent, four frames", 109, 42, 27, 10),
    _Box("06", "Latents", "decoded into pixels", 109, 29, 27, 10),
    _Box("13", "Scaling up", "what more computing buys", 2, 2, 66, 8),
    _Box("14", "Full size", "the same code, real weights, limits", 70, 2, 66, 8),
)


def sora_map(here: str = "00") -> None:
    """Show the map of the course: every part of the machine is a chapter, and `here` is coloured.

    Args:
        here: a chapter number, such as "02".

    Raises:
        ValueError: there is no such chapter.
    """
    boxes = {box.chapter: box for box in _MAP}
    if here not in boxes:
        raise ValueError(f"here={here!r}; chapters are {', '.join(sorted(boxes))}")
    fig, ax = plt.subplots(figsize=(13.8, 7.3), layout="none")
    fig.subplots_adjust(0, 0, 1, 1)
    ax.set(xlim=(0, 138), ylim=(0, 73))
    ax.axis("off")
    for box in _MAP:
        _draw_box(ax, box, box.chapter == here)
    _draw_flow(ax)
    title = boxes[here].title
    parts = "; ".join(f"{c} {boxes[c].title} ({boxes[c].note})" for c in sorted(boxes))
    show(
        fig, alt=f"Map of the course as the parts of one machine. You are in {here}, {title}. Parts: {parts}."
    )


def _draw_box(ax, box: _Box, here: bool) -> None:
    edge = PALETTE["vermilion"] if here else PALETTE["grey"]
    face = "#FFE3CF" if here else "white" if box.frame else PALETTE["pale"]
    patch = FancyBboxPatch(
        (box.x, box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=1.2",
        facecolor=face, edgecolor=edge, linewidth=4 if here else 1.5, zorder=1 + (not box.frame),
    )  # fmt: skip
    ax.add_patch(patch)
    wide = box.frame or box.width > 40
    top = box.y + box.height - 3.6 if box.frame else box.y + box.height / 2 + (0 if wide else 1.9)
    number = {"fontsize": 17, "fontweight": "bold", "color": edge if here else PALETTE["blue"], "zorder": 4}
    label = {"fontsize": 15, "color": PALETTE["ink"], "va": "center_baseline", "zorder": 4}
    ax.text(box.x + 1.5, top, box.chapter, va="center_baseline", **number)
    if wide:
        ax.text(box.x + 5.6, top, f"{box.title}: {box.note}", **label)
        return
    ax.text(box.x + 5.6, top, box.title, **label)
    ax.text(box.x + 1.5, top - 4.3, box.note, fontsize=14, color="#444444", va="center_baseline", zorder=4)


def _draw_flow(ax) -> None:
    """Arrows from prompt and noise to the clip, with the things that flow along them."""

    def arrow(start, end, **kwargs):
        style = {
            "arrowstyle": "-|>",
            "mutation_scale": 22,
            "linewidth": 2.5,
            "color": PALETTE["ink"],
            "zorder": 3,
        }
        ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **(style | kwargs)))

    ax.text(15.5, 57, "“a red star bounces”", fontsize=14, ha="center", va="center", style="italic")
    arrow((15.5, 55.3), (15.5, 52.3))
    arrow((29.2, 47), (37, 47))
    noise = np.random.default_rng(0).uniform(0.1, 0.9, (6, 6, 3))
    ax.imshow(noise, extent=(5, 13, 28.5, 36.5), zorder=3, aspect="auto")
    ax.text(15, 32.5, "noise", fontsize=14, va="center")
    arrow((23, 32.5), (37, 32.5))
    arrow((29.2, 20), (37, 20))
    arrow((101.2, 47), (109, 47))
    arrow((122.5, 41.8), (122.5, 39.2))
    arrow((122.5, 28.8), (122.5, 25.5))
    for k in range(3):
        _draw_frame(ax, 110.5 + 8.2 * k, 16, k)
    ax.text(122.5, 13.4, "the clip", fontsize=14, ha="center", va="center")
    arrow((99.5, 52.2), (91, 52.2), connectionstyle="arc3,rad=0.8", color=PALETTE["blue"])


def _draw_frame(ax, x: int | float, y: int | float, k: int) -> None:
    ax.add_patch(Rectangle((x, y), 7.4, 8.5, facecolor="#30343A", zorder=3))
    ax.plot(x + 3.7, y + (6, 2.4, 5)[k], marker="*", markersize=17, color=PALETTE["vermilion"], zorder=4)


def live() -> bool:
    """True where widgets can work: a Jupyter kernel, anywidget installed, and `SORA_EDU_STATIC` not set.

    The notebooks that ship are run with `SORA_EDU_STATIC=1`, since whoever reads them has no kernel yet.
    """
    if os.environ.get("SORA_EDU_STATIC", "") not in ("", "0") or find_spec("anywidget") is None:
        return False
    return hasattr(get_ipython(), "kernel")


def show_widget(widget, fallback: dict[str, str], alt: str = "") -> None:
    """Display a widget, with what stands for it where no kernel runs, as one output.

    Args:
        widget: a Jupyter widget.
        fallback: the same as MIME type -> data, such as `{"text/html": …, "text/plain": …}`.
        alt: alt text of the fallback if it is a picture.
    """
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    bundle = {"application/vnd.jupyter.widget-view+json": view} | fallback
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}} if alt else {})


def _check_alt(alt: str) -> None:
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt={alt!r}; say in words what the picture shows")


def send(png: bytes, alt: str) -> None:
    """Display a PNG with its alt text, which also stands for the picture where only text is shown."""
    bundle = {"image/png": base64.b64encode(png).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def _scale(videos: list[np.ndarray], at_least: int) -> int:
    return max(1, -(-at_least // min(frames.shape[1] for frames in videos)))


def _layout(
    sizes: list[tuple[int, int]], captions: list[str], columns: int, scale: int
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Where the pictures of a grid stand (top, left), and the grey page with the captions above them."""
    if scale < 1:
        raise ValueError(f"scale={scale}; give a whole number of at least 1")
    cell_h, cell_w = scale * max(h for h, _ in sizes), scale * max(w for _, w in sizes)
    lines = [textwrap.wrap(caption, max(8, int(cell_w / 9.2))) for caption in captions]
    rows = range(-(-len(sizes) // columns))
    most = [max(map(len, lines[row * columns : (row + 1) * columns])) for row in rows]
    bands = [_LINE * count + 4 * (count > 0) for count in most]
    tops = [_MARGIN + sum(bands[: row + 1]) + row * (cell_h + _MARGIN) for row in rows]
    page = Image.new("L", (columns * (cell_w + _MARGIN) + _MARGIN, tops[-1] + cell_h + _MARGIN), 255)
    pen, places = ImageDraw.Draw(page), []
    for k, wrapped in enumerate(lines):
        y, x = tops[k // columns], _MARGIN + k % columns * (cell_w + _MARGIN)
        places.append((y, x))
        for number, line in enumerate(reversed(wrapped), 1):
            pen.text((x, y - 4 - _LINE * number), line, fill=0x22, font=_font(16))
    return places, np.asarray(page)


def _few_colours(videos: list[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """The clips as indices into one palette, which begins with greys for the captions.

    An animation with a palette is a third as large, and no eye sees the difference at this size.
    """
    pixels = np.concatenate([frames.reshape(-1, 3) for frames in videos])
    # The octree keeps rare colours, such as a small star's; Pillow's own choice, median cut, greys them.
    reduced = Image.fromarray(pixels[None]).quantize(
        _FILM_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    )
    greys = range(0, 256, _GREY_STEP)
    palette = [level for grey in greys for level in [min(255, grey * 255 // greys[-1])] * 3]
    indices = np.asarray(reduced)[0] + np.uint8(len(greys))
    ends = np.cumsum([frames[..., 0].size for frames in videos])[:-1]
    films = [
        part.reshape(frames.shape[:3]) for part, frames in zip(np.split(indices, ends), videos, strict=True)
    ]
    return films, palette + reduced.getpalette()[: 3 * _FILM_COLOURS]


def _animated(pages: list[np.ndarray], palette: list[int], fps: int) -> bytes:
    """Pages of palette indices as an animated PNG that repeats for ever."""
    images = [Image.fromarray(page, "P") for page in pages]
    for image in images:
        image.putpalette(palette)
    film = {"save_all": True, "append_images": images[1:], "duration": 1000 / fps, "loop": 0}
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", optimize=True, **(film if images[1:] else {}))
    return buffer.getvalue()
