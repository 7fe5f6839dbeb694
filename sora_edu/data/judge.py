"""The judge: reads from pixels alone what a clip of the toy world shows, and refuses what is no such clip.

It works by analysis, not by learning: it has seen no generator's output and does not know the prompt.

1. Backgrounds are grey and things are saturated. Taking the grey out of a pixel leaves the thing's
   colour times the share of the pixel that it covers, whatever lies behind: colour and coverage at once.
2. A thing's centre of mass and spread give its place and scale in each frame. Seen from there, in polar
   coordinates, all frames of one thing look alike, except that a spinning thing turns at a steady rate.
   Their mean is compared with every shape and with every handwritten digit.
3. Each motion is a law. The law that fits the whole track best is the motion.
4. The backdrop's texture is fitted under every camera.

What fits no hypothesis well is malformed, and the reading says why.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float
from scipy import ndimage, stats
from torch import Tensor
from tqdm import tqdm

from sora_edu.data.render import FPS, GRAVITY, RESTITUTION, TEMPLATE_EXTENT, _fall, _handwriting, template
from sora_edu.data.scene import CANNOT_SPIN, COLOURS, DIGITS, SHAPES, SIZES, Scene, Thing
from sora_edu.data.world import SPLITS, evaluation_set, render

# -------------------------------------------------------------------------------------------- settings

# Chroma is what is left of a colour when its grey is taken out: a point in the plane across (1, 1, 1).
CHROMA = np.array([[2, -1, -1], [0, math.sqrt(3), -math.sqrt(3)]]).T / math.sqrt(6)
CHROMA = CHROMA.astype(np.float32)
PALETTE = (np.array(list(COLOURS.values())) @ CHROMA).astype(np.float32)
COLOUR_TOLERANCE = 0.15  # half the distance between the nearest two palette colours, which is 0.32
SMALLEST_AREA = 0.003  # of a thing's fully covered part, in squared heights: a shrunken digit 1 has more

RINGS = (np.arange(14) + 0.5) * (2.3 / 14)  # radii of the polar grid, in radii of gyration
ANGLES = 64
RASTER = 48  # pixels across a template in the bank
WRITINGS = 97  # handwritten examples of each digit that the world uses
BLURS = (0.05, 0.09, 0.15, 0.25, 0.4)  # of the bank's shapes, in radii of gyration
PIXEL_BLUR = 0.85  # pixels: the ramp at an outline, the resampling and some softness of a decoder

SPIN_RATES = np.radians(np.arange(60, 161, 4))  # the world's are 80 to 130 degrees per second
SPIN_MARGIN = -0.008  # of correlation: what does not spin fits worse by 0.016 when it is turned
SHAPE_SCORE = 0.93  # least correlation of all frames with one shape
PART_SCORE = 0.9  # and of each quarter of the clip
RIVAL_MARGIN = 0.003  # by which another shape may fit a quarter of the clip better
OPAQUE = (0.6, 1.5)  # a thing's coverage over its area: 1, whatever the blur, but about a half in a blend
LEAST_PIXELS = 6  # that a thing covers more than half where it is seen at all
LEAST_CLEAR = 4  # frames that tell the shape of a thing that is hidden in part in the others
LEAST_SEEN = 0.4  # share of a thing that must be seen in a frame for its place there to count
HIDDEN_MISS = 0.15  # of a template from what can be seen of a thing
OVERLAP = 0.05  # share of the smaller thing that lies in the other, from which on they are not apart
GHOST = 0.1  # chroma where no thing was found: a quarter of the palest colour's
GHOST_AREA = 0.006  # squared heights, in half of the frames
SHARP = 0.45  # share of the frames that tell the shape
ORBIT_RATES = 2 * math.pi * np.arange(0.40, 0.66, 0.02)  # the world's are 0.49 to 0.55 turns per second
ORBIT_SIZE = (0.06, 0.26)  # the world's radii are 0.12 to 0.18 heights
LEAST_WAY = 0.07  # heights from first to last frame; less is standing still. The world's least is 0.14
LEAST_GROWTH = 0.2  # relative; the world's least is 0.4 of the mean radius

# How exactly a track is read on degraded renders (rms), and how far it may be from a law.
PLACE_ERROR, SCALE_ERROR = 0.008, 0.03  # heights; relative
PLACE_MISS, SCALE_MISS = 0.02, 0.07


# -------------------------------------------------------------------------------------------- readings


@dataclass(frozen=True)
class Track:
    """One thing that was read: what it is, and where it is in each frame."""

    thing: Thing
    """Its shape, colour, size and motion (None where one frame cannot tell)."""
    x: Float[np.ndarray, " t"]
    """Centre, in heights from the left edge."""
    y: Float[np.ndarray, " t"]
    """Centre, in heights from the top edge."""
    radius: Float[np.ndarray, " t"]
    """In heights."""
    angle: Float[np.ndarray, " t"]
    """Clockwise turn, in radians."""
    visible: Bool[np.ndarray, " t"]
    """False where another thing touches or hides it; the track is interpolated there."""
    confidence: float
    """How well the shape agrees with its template over all frames: 1 is perfect."""
    entry: int
    """Which of the judge's templates it is: a shape, or one writing of a digit."""


@dataclass(frozen=True)
class Reading:
    """What the judge read in a clip."""

    malformed: bool
    """True when the clip is none of this world."""
    reason: str | None = None
    """Why it is malformed."""
    things: tuple[Track, ...] = ()
    """The things that were read, the largest first."""
    background: str | None = None
    """One of `BACKGROUNDS`."""
    camera: str | None = None
    """One of `CAMERAS`."""
    relation: str | None = None
    """For two things, one of `RELATIONS`, from the first to the second."""

    @property
    def scene(self) -> Scene | None:
        """What was read, as a scene; None when malformed."""
        if self.malformed:
            return None
        return Scene(tuple(t.thing for t in self.things), self.background, self.camera, self.relation)

    def matches(self, scene: Scene) -> bool:
        """True when the clip is well formed and all that `scene` names is read so; None is not named.

        Two things are matched by colour, and the relation is turned around where their order differs.
        """
        return len(self.things) == len(scene.things) and all(self.compare(scene).values())

    def compare(self, scene: Scene) -> dict[str, bool]:
        """For each attribute that `scene` names, whether it is read so (for all things at once)."""
        named = _named(scene)
        if self.malformed or len(self.things) != len(scene.things):
            return dict.fromkeys(named, False)
        if len(self.things[0].x) == 1:  # one frame can be right or wrong about neither
            named = [name for name in named if name not in ("motion", "camera")]
        mine, swapped = _pair(tuple(t.thing for t in self.things), scene.things)
        relation = SWAPPED.get(self.relation, self.relation) if swapped else self.relation
        right = {
            name: all(
                getattr(a, name) in (None, getattr(b, name)) for a, b in zip(scene.things, mine, strict=True)
            )
            for name in ("colour", "shape", "size", "motion")
        }
        right["background"] = scene.background in (None, self.background)
        right["camera"] = scene.camera in (None, self.camera)
        right["relation"] = scene.relation in (None, relation)
        return {name: right[name] for name in named}

    def __str__(self) -> str:
        if self.malformed:
            return f"malformed: {self.reason}"
        told = [
            " ".join(word for word in (t.thing.size, t.thing.colour, t.thing.shape, t.thing.motion) if word)
            for t in self.things
        ]
        join = f" [{self.relation}] " if len(told) == 2 else ""
        return f"{join.join(told)}; {self.background} background, camera {self.camera or 'unknown'}"


SWAPPED = {"in front of": "behind", "behind": "in front of"}


def _named(scene: Scene) -> list[str]:
    named = [n for n in ("colour", "shape", "size", "motion") if any(getattr(t, n) for t in scene.things)]
    return named + [n for n in ("background", "camera", "relation") if getattr(scene, n)]


def _pair(mine: tuple[Thing, ...], asked: tuple[Thing, ...]) -> tuple[tuple[Thing, ...], bool]:
    """My things in the order of those asked for, and whether that order is the other one."""
    if len(mine) == 2:
        straight, crossed = (
            sum(a.colour == b.colour for a, b in zip(asked, order, strict=True))
            for order in (mine, mine[::-1])
        )
        if crossed > straight:
            return mine[::-1], True
    return mine, False


class _Malformed(Exception):
    """Raised inside the judge with the reason why a clip is refused."""


# ------------------------------------------------------------------------------ colours and coverage


def _colours_present(chroma: Float[np.ndarray, "t h w 2"]) -> list[int]:
    """Indices of the palette colours that cover whole pixels, the most frequent first."""
    frames, height = chroma.shape[:2]
    square = (chroma**2).sum(-1)
    strong = square > 0.2**2
    distance = square[strong, None] - 2 * chroma[strong] @ PALETTE.T + (PALETTE**2).sum(1)  # squared
    nearest = distance.argmin(1)[distance.min(1) < COLOUR_TOLERANCE**2]
    area = np.bincount(nearest, minlength=len(PALETTE)) / (frames * height**2)
    present = [i for i in np.argsort(-area).tolist() if area[i] > max(SMALLEST_AREA, 0.05 * area.max())]
    return present


def _coverages(chroma: Float[np.ndarray, "t h w 2"], colours: list[int]) -> list[Float[np.ndarray, "t h w"]]:
    """How much of each pixel each colour covers: chroma is linear in coverage, whatever grey lies behind.

    With two colours each pixel belongs to the one whose multiple is nearer.
    """
    cover = [np.clip(chroma @ PALETTE[i] / (PALETTE[i] @ PALETTE[i]), 0, 1.2) for i in colours]
    if len(colours) == 2:
        first, second = (
            ((chroma - c[..., None] * PALETTE[i]) ** 2).sum(-1) for i, c in zip(colours, cover, strict=True)
        )
        mine = first <= second
        cover = [cover[0] * mine, cover[1] * ~mine]
    return cover


def _clean(cover: Float[np.ndarray, "t h w"]) -> Float[np.ndarray, "t h w"]:
    """Coverage near the thing itself: specks and the noise of the backdrop are put to zero."""
    flat = np.zeros((3, 3, 3), bool)
    flat[1] = True  # neighbours within a frame, never across frames
    labels, count = ndimage.label(cover > 0.35, structure=flat)
    if not count:
        return np.zeros_like(cover)
    area = np.bincount(labels.ravel(), minlength=count + 1).astype(float)
    area[0] = 0
    frame_of = np.zeros(count + 1, int)
    frame_of[labels] = np.arange(len(cover))[:, None, None]
    total = np.bincount(frame_of, weights=area, minlength=len(cover))
    keep = area >= np.maximum(3, 0.06 * total[frame_of])
    keep[0] = False
    return cover * ndimage.maximum_filter(keep[labels], (0, 5, 5))


# --------------------------------------------------------------------------------- place, scale, shape


@dataclass(frozen=True)
class _Moments:
    """Area (pixels), centre and radius of gyration (pixels) of a coverage, frame by frame."""

    area: Float[np.ndarray, " t"]
    x: Float[np.ndarray, " t"]
    y: Float[np.ndarray, " t"]
    gyration: Float[np.ndarray, " t"]

    def at(self, frames) -> "_Moments":
        """Those of some of the frames."""
        return _Moments(*(values[frames] for values in vars(self).values()))


def _moments(cover: Float[np.ndarray, "t h w"]) -> _Moments:
    rows, columns = np.arange(cover.shape[1]) + 0.5, np.arange(cover.shape[2]) + 0.5
    across, down = cover.sum(1), cover.sum(2)
    area = np.maximum(across.sum(1), 1e-6)
    x, y = across @ columns / area, down @ rows / area
    square = across @ columns**2 / area - x**2 + down @ rows**2 / area - y**2
    return _Moments(area, x, y, np.sqrt(np.maximum(square, 0.25)))


def _smear(cover: Float[np.ndarray, "t h w"], moments: _Moments) -> Float[np.ndarray, " t"]:
    """Share of a thing that is half covered. A decoder smears what moves fast, but not in every frame."""
    return (cover * (1 - cover)).clip(0).sum((1, 2)) / moments.area


def _polar(cover, moments: _Moments) -> Float[np.ndarray, "t r a"]:
    """The coverage around its centre of mass, rings in radii of gyration, angles clockwise from the right."""
    angle = np.arange(ANGLES) * (2 * math.pi / ANGLES)
    reach = moments.gyration[:, None, None] * RINGS[None, :, None]
    x = moments.x[:, None, None] + reach * np.cos(angle) - 0.5
    y = moments.y[:, None, None] + reach * np.sin(angle) - 0.5
    frame = np.broadcast_to(np.arange(len(cover))[:, None, None], x.shape)
    return _bilinear(cover, frame, y, x)


def _bilinear(images, frame, y, x):
    """Samples images at points (row y, column x); outside is zero."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    y = np.clip(y + 1, 0, padded.shape[1] - 1.001)
    x = np.clip(x + 1, 0, padded.shape[2] - 1.001)
    row, column = y.astype(int), x.astype(int)
    fy, fx = y - row, x - column
    top = padded[frame, row, column] * (1 - fx) + padded[frame, row, column + 1] * fx
    bottom = padded[frame, row + 1, column] * (1 - fx) + padded[frame, row + 1, column + 1] * fx
    return top * (1 - fy) + bottom * fy


@dataclass(frozen=True)
class _Bank:
    """Every shape and every handwritten digit as the judge sees them, at one blur; `m` of them."""

    names: np.ndarray
    """Name of each entry."""
    spectrum: Complex[np.ndarray, "m r k"]
    """Fourier transform over the angle of the polar picture, weighted and of unit norm."""
    gyration: Float[np.ndarray, " m"]
    """Radius of gyration of the blurred entry, in radii."""
    centre: Float[np.ndarray, "m 2"]
    """Centre of mass (x, y), in radii from the centre."""
    area: Float[np.ndarray, " m"]
    """Area, in squared radii of gyration."""


# Weights that make a dot product of spectra that of the pictures: area grows with the ring's radius,
# and each frequency but the first and last stands for two.
WEIGHTS = np.sqrt(RINGS[:, None] * np.r_[1, np.full(ANGLES // 2 - 1, 2), 1] / ANGLES)


def _spectrum(polar: Float[np.ndarray, "t r a"]) -> Complex[np.ndarray, "t r k"]:
    return np.fft.rfft(polar, axis=-1) * WEIGHTS


@lru_cache(maxsize=1)
def _rasters() -> tuple[np.ndarray, Float[np.ndarray, "m s s"]]:
    """Names and coverages of the six shapes and of all handwriting in use, on a template's square.

    The digits are drawn here as `template` draws them, all at once and coarser: a thousand exact distance
    transforms would keep the first clip waiting for a minute.
    """
    names = list(SHAPES) + [digit for digit in DIGITS for _ in range(WRITINGS)]
    distance = torch.stack([template(shape) for shape in SHAPES])
    pixels_in = 0.5 - distance * distance.shape[-1] / (2 * TEMPLATE_EXTENT)
    shapes = F.interpolate(pixels_in.clamp(0, 1), (RASTER, RASTER), mode="area")[:, 0]
    ink = np.stack([_handwriting()[digit][i] for digit in DIGITS for i in range(WRITINGS)])
    axis = ((np.arange(2 * RASTER) + 0.5) / RASTER - 1) * TEMPLATE_EXTENT / 1.25
    grid = torch.tensor(np.stack(np.meshgrid(axis, axis), -1), dtype=torch.float32)[None]
    ink = F.pad(torch.tensor(ink, dtype=torch.float32), (1, 1, 1, 1))[None]  # the writings as channels
    digits = F.avg_pool2d((F.grid_sample(ink, grid, "bicubic", align_corners=False)[0] > 0.45).float(), 2)
    return np.array(names), torch.cat([shapes, digits]).numpy()


@lru_cache(maxsize=len(BLURS))
def _bank(blur: float) -> _Bank:
    names, images = _rasters()
    pixel = 2 * TEMPLATE_EXTENT / images.shape[-1]
    pad = images.shape[-1] // 3  # room for the blur to spread
    images = np.pad(images, ((0, 0), (pad, pad), (pad, pad)))
    sharp = _moments(images)
    sigma = blur * float(sharp.gyration.mean())
    images = ndimage.gaussian_filter(images, (0, sigma, sigma), truncate=3)
    moments = _moments(images)
    spectrum = _spectrum(_polar(images, moments))
    spectrum /= np.sqrt((np.abs(spectrum) ** 2).sum((1, 2), keepdims=True))
    middle = images.shape[-1] / 2
    centre = np.stack([moments.x - middle, moments.y - middle], -1) * pixel
    area = moments.area / moments.gyration**2
    return _Bank(names, spectrum.astype(np.complex64), moments.gyration * pixel, centre, area)


@dataclass(frozen=True)
class _Match:
    """The bank entry that fits all frames of a thing best, jointly."""

    entry: int
    """Its index in the bank."""
    score: float
    """Correlation of all frames with it: 1 when each is a multiple of it."""
    rate: float
    """Turn in radians per second; 0 when it does not spin."""
    phase: float
    """Angle in the first frame, in radians."""


def _spin_rate(spectrum: Complex[np.ndarray, "t r k"], times) -> float:
    """The steady turn that makes all frames most alike."""
    rates = np.r_[-SPIN_RATES[::-1], SPIN_RATES]
    turn = np.exp(1j * rates[:, None, None] * times[None, :, None] * np.arange(spectrum.shape[-1]))
    still = np.einsum("ntk,trk->nrk", turn, spectrum, optimize=True)
    return float(rates[(np.abs(still) ** 2).sum((1, 2)).argmax()])


def _match(spectrum: Complex[np.ndarray, "t r k"], times, bank: _Bank, may_spin: bool) -> _Match:
    """Compares the frames, jointly, with every entry: upright, and turning at the best steady rate."""
    energy = math.sqrt((np.abs(spectrum) ** 2).sum() / len(times))
    upright = _correlate(spectrum.mean(0), bank) / energy
    best, rate, phase = int(upright.argmax()), 0.0, 0.0
    score = float(upright[best])
    if may_spin:
        turning = _spin_rate(spectrum, times) if len(times) > 1 else 0.0
        upright = _turned(spectrum, -turning * times).mean(0)
        product = np.einsum("rk,mrk->mk", upright, bank.spectrum.conj(), optimize=True)
        # The weights count each middle frequency twice already, and irfft would do so once more.
        product = product / np.r_[1, np.full(ANGLES // 2 - 1, 2), 1]
        turned = np.fft.irfft(product, n=ANGLES, axis=-1) * (ANGLES / energy)
        turned[np.isin(bank.names, CANNOT_SPIN)] = 0
        entry, step = np.unravel_index(turned.argmax(), turned.shape)
        if turned[entry, step] > score + SPIN_MARGIN:
            best, score = int(entry), float(turned[entry, step])
            rate, phase = turning, 2 * math.pi * step / ANGLES
    return _Match(best, score, rate, phase)


def _correlate(spectrum: Complex[np.ndarray, "r k"], bank: _Bank) -> Float[np.ndarray, " m"]:
    return np.einsum("rk,mrk->m", spectrum.conj(), bank.spectrum, optimize=True).real


def _turned(spectrum: Complex[np.ndarray, "t r k"], angle) -> Complex[np.ndarray, "t r k"]:
    """The pictures turned clockwise by an angle each: turning shifts, and a shift is a phase."""
    return spectrum * np.exp(-1j * np.asarray(angle)[:, None, None] * np.arange(spectrum.shape[-1]))


def _agreement(spectrum: Complex[np.ndarray, "t r k"], match: _Match, times, bank: _Bank):
    """Correlation of each frame with the matched entry, and with the best of any other name."""
    upright = _turned(spectrum, -match.phase - match.rate * times)
    upright /= np.linalg.norm(upright, axis=(1, 2), keepdims=True)
    every = np.einsum("trk,mrk->tm", upright.conj(), bank.spectrum, optimize=True).real
    return every[:, match.entry], every[:, bank.names != bank.names[match.entry]].max(1)


def _check_shape(match: _Match, mine, rival, gyration):
    """Refuses a thing that is not one known shape from the first quarter of the clip to the last.

    In each quarter the frame that shows the shape best counts; `gyration` is in pixels, for the fewer there
    are, the more alike shapes look.
    """
    if match.score < SHAPE_SCORE:
        raise _Malformed("has no known shape, or not one shape throughout")
    margin = RIVAL_MARGIN + 0.04 / gyration**2
    for quarter in np.array_split(np.arange(len(mine)), min(4, len(mine))):
        best = quarter[mine[quarter].argmax()]
        if mine[best] < max(PART_SCORE, rival[best] - margin[best]):
            raise _Malformed("changes its shape")


# ---------------------------------------------------------------------------------------------- motion


@lru_cache(maxsize=32)
def _flights(frames: int, restitution: float) -> tuple[np.ndarray, np.ndarray]:
    """Heights above the floor (`m t`) of many falls, and the time (`m t`) for which each drifts sideways."""
    t = np.arange(frames) / FPS
    throws = np.arange(-0.14, 0.25, 0.02) if restitution == 0 else np.arange(0.0, 0.25, 0.025)
    drops = np.arange(0.06, 0.85, 0.02)
    if restitution > 0:  # whose bounce shows; what does not reach the floor is a fall
        drops = drops[drops < max(0.07, 0.5 * GRAVITY * (0.8 * t[-1]) ** 2)]
    heights = np.stack([_fall(t, throw, drop, restitution) for throw in throws for drop in drops])
    if restitution > 0:
        return heights, np.broadcast_to(t, heights.shape)
    landed = heights <= 0
    rest = np.where(landed.any(1), t[landed.argmax(1)], t[-1])
    return heights, np.minimum(t, rest[:, None])


@dataclass(frozen=True)
class _Path:
    """Where a thing is in the world, in heights, frame by frame."""

    x: Float[np.ndarray, " t"]
    y: Float[np.ndarray, " t"]
    radius: Float[np.ndarray, " t"]


def _constant(values, weight) -> np.ndarray:
    """The weighted mean of each row, in every frame."""
    return np.broadcast_to((values * weight).sum(-1, keepdims=True) / weight.sum(), values.shape)


def _line(values, basis, weight) -> np.ndarray:
    """The best `offset + slope * basis` for values, for each row of basis."""
    mean = _constant(values, weight)
    b = basis - _constant(basis, weight)
    product, square = ((weight * b * other).sum(-1, keepdims=True) for other in (values - mean, b))
    return mean + product / (square + 1e-9) * b


def _fall_or_bounce(path: _Path, weight, restitution: float) -> tuple[np.ndarray, np.ndarray]:
    """The x and y of the flight under gravity that is nearest to the path, on a floor at any level."""
    heights, drift = _flights(len(path.x), restitution)
    y = _constant(path.y + heights, weight) - heights
    x = _line(path.x, drift, weight)
    best = (weight * ((path.x - x) ** 2 + (path.y - y) ** 2)).sum(-1).argmin()
    return x[best], y[best]


def _orbit(path: _Path, t, weight) -> tuple[np.ndarray, np.ndarray] | None:
    """The nearest circle at a steady rate: z = centre + radius exp(i rate t), all complex."""
    wheel = np.exp(1j * np.r_[-ORBIT_RATES, ORBIT_RATES][:, None] * t)
    basis = np.stack([np.ones_like(wheel), wheel], -1)
    weighted = (basis * weight[:, None]).conj().swapaxes(1, 2)
    z = path.x + 1j * path.y
    found = np.linalg.solve(weighted @ basis + 1e-6 * np.eye(2), weighted @ z[:, None])
    circle = (basis @ found)[..., 0]
    miss = (weight * np.abs(z - circle) ** 2).sum(-1)
    size = np.abs(found[:, 1, 0])
    miss[(size < ORBIT_SIZE[0]) | (size > ORBIT_SIZE[1])] = np.inf
    best = int(miss.argmin())
    return (circle[best].real, circle[best].imag) if np.isfinite(miss[best]) else None


def _laws(path: _Path, spins: bool, weight):
    """Every motion that the path could be: its name, the nearest path that obeys it, its free numbers."""
    t = np.arange(len(path.x)) / FPS
    x, y, radius = (_constant(values, weight) for values in (path.x, path.y, path.radius))
    yield "spins" if spins else "stands still", _Path(x, y, radius), 3
    if spins:
        return
    line = _line(path.x, t, weight)
    if abs(line[-1] - line[0]) > LEAST_WAY:
        yield "moves right" if line[-1] > line[0] else "moves left", _Path(line, y, radius), 4
    line = _line(path.y, t, weight)
    if abs(line[-1] - line[0]) > LEAST_WAY:
        yield "moves down" if line[-1] > line[0] else "moves up", _Path(x, line, radius), 4
    line = _line(path.radius, t, weight)
    if abs(line[-1] - line[0]) > LEAST_GROWTH * radius[0]:
        yield "grows" if line[-1] > line[0] else "shrinks", _Path(x, y, line), 4
    yield "falls", _Path(*_fall_or_bounce(path, weight, 0.0), radius), 6
    yield "bounces", _Path(*_fall_or_bounce(path, weight, RESTITUTION), radius), 6
    if circle := _orbit(path, t, weight):
        yield "orbits", _Path(*circle, radius), 7


def _motion(path: _Path, spins: bool, weight) -> tuple[str, _Path]:
    """The motion whose law leaves least of the path, and the path that it gives."""

    def cost(law) -> float:
        _, lawful, free = law
        place, scale = _misses(path, lawful, weight)
        return weight.sum() * ((place / PLACE_ERROR) ** 2 + (scale / SCALE_ERROR) ** 2) + 4 * free

    name, lawful, _ = min(_laws(path, spins, weight), key=cost)
    place, scale = _misses(path, lawful, weight)
    if place > PLACE_MISS or scale > SCALE_MISS:
        raise _Malformed("follows no law of motion")
    return name, lawful


def _misses(path: _Path, lawful: _Path, weight) -> tuple[float, float]:
    """How far a path is from another (rms): in place, in heights; in radius, relative."""
    place = (path.x - lawful.x) ** 2 + (path.y - lawful.y) ** 2
    scale = (path.radius / lawful.radius - 1) ** 2
    return tuple(math.sqrt((weight * square).sum() / weight.sum()) for square in (place, scale))


# ------------------------------------------------------------------------------ backdrop and camera


@dataclass(frozen=True)
class _Camera:
    """A camera that moves at a steady pace."""

    kind: str
    """One of `CAMERAS`."""
    speed: float = 0.0
    """Of its pan to the right, in heights per second."""
    zoom: float = 0.0
    """Rate at which it magnifies, per second."""

    def undo(self, path: _Path, aspect: float) -> _Path:
        """From the screen to the world."""
        t, centre = np.arange(len(path.x)) / FPS, aspect / 2
        zoom = np.exp(self.zoom * t)
        x = (path.x - centre) / zoom + centre + self.speed * t
        return _Path(x, (path.y - 0.5) / zoom + 0.5, path.radius / zoom)

    def do(self, path: _Path, aspect: float) -> _Path:
        """From the world to the screen."""
        t, centre = np.arange(len(path.x)) / FPS, aspect / 2
        zoom = np.exp(self.zoom * t)
        x = (path.x - centre - self.speed * t) * zoom + centre
        return _Path(x, (path.y - 0.5) * zoom + 0.5, path.radius * zoom)


@lru_cache(maxsize=8)
def _backdrops(frames: int, height: int, width: int):
    """Hypotheses (camera, texture, how far it moved) and orthogonal waves on a thinned grid of pixels."""
    step = max(1, height // 20)
    picked = np.unique(np.linspace(0, frames - 1, min(frames, 5)).round().astype(int))
    t = picked / FPS
    centre = width / height / 2
    x = ((np.arange(0, width, step) + 0.5) / height - centre)[None, None, :]
    y = ((np.arange(0, height, step) + 0.5) / height - 0.5)[None, :, None]
    cameras = [_Camera("still")]
    if frames > 1:
        pans = np.arange(0.05, 0.15, 0.01)  # the world's are 0.08 to 0.12 heights per second
        zooms = np.arange(min(0.08, 0.6 * math.log(1.4) / t[-1]), 0.2, 0.01)  # 0.11 to 0.17
        cameras += [_Camera("pans left", -v) for v in pans] + [_Camera("pans right", v) for v in pans]
        cameras += [_Camera("zooms in", zoom=v) for v in zooms]
        cameras += [_Camera("zooms out", zoom=-v) for v in zooms]
    waves = []
    for camera in cameras:
        zoom = np.exp(camera.zoom * t)[:, None, None]
        u = 4 * math.pi * (x / zoom + centre + camera.speed * t[:, None, None])
        v = 4 * math.pi * (y / zoom + 0.5)
        u, v = np.broadcast_arrays(u, v)
        wave = [np.ones_like(u), np.sin(u + v), np.cos(u + v), np.sin(u - v), np.cos(u - v)]
        waves.append(np.stack(wave).reshape(5, -1))
    return cameras, np.stack(waves).astype(np.float32), picked, step


def _backdrop(grey: Float[np.ndarray, "t h w"], covered: Float[np.ndarray, "t h w"]) -> tuple[str, _Camera]:
    """Background and camera from the grey that no thing covers."""
    cameras, waves, picked, step = _backdrops(*grey.shape)
    seen = ndimage.maximum_filter(covered[picked], (0, 5, 5))[:, ::step, ::step].ravel() < 0.08
    values = grey[picked][:, ::step, ::step].ravel()[seen]
    if len(values) < 50:
        raise _Malformed("no background can be seen")
    level, spread = float(np.median(values)), float(values.std())
    if spread < 0.04:
        for name, grey_level in (("dark", 0.1), ("light", 0.9)):
            if abs(level - grey_level) < 0.12:
                return name, _Camera("still")
        raise _Malformed(f"the background's grey {level:.2f} is neither dark, light nor textured")
    waves = waves[:, :, seen]
    values = values - values.mean()
    gram = waves @ waves.swapaxes(1, 2) + 1e-3 * np.eye(5, dtype=np.float32)
    product = waves @ values
    found = np.linalg.solve(gram, product[..., None])[..., 0]
    explained = (product * found).sum(1) / (values @ values)
    best = int(explained.argmax())
    if explained[best] < 0.5:
        raise _Malformed("the background is no known texture under a known camera")
    # Stripes are one wave, along the diagonal; a checkered pattern is two equal ones, across each other.
    along, across = np.hypot(found[best, 1], found[best, 2]), np.hypot(found[best, 3], found[best, 4])
    return "checkered" if across > 0.5 * along else "striped", cameras[best]


# -------------------------------------------------------------------------------------- partly hidden

CELLS = 24  # across a template, when it is laid over a thing; half as many for a rough fit


@dataclass(frozen=True)
class _Fit:
    """Templates laid over what can be seen of a thing: one number for each, in arrays of one shape."""

    x: np.ndarray
    """Centre, in pixels."""
    y: np.ndarray
    radius: np.ndarray
    """In pixels."""
    miss: np.ndarray
    """Squared difference over what can be seen, as a share of the squares themselves: 0 is perfect."""
    seen: np.ndarray
    """Share of the template that can be seen."""

    def at(self, index) -> "_Fit":
        """Some of them."""
        return _Fit(*(values[index] for values in vars(self).values()))

    def best(self) -> "_Fit":
        """Along the first axis, the one that misses least."""
        pick = self.miss.argmin(0)[None]
        return _Fit(*(np.take_along_axis(values, pick, 0)[0] for values in vars(self).values()))


@lru_cache(maxsize=2)
def _slopes(cells: int):
    """Each template on `cells` squared, how it changes as the thing moves right, moves down or grows, and
    the cells' coordinates in radii."""
    names, rasters = _rasters()
    soft = ndimage.gaussian_filter(rasters, (0, RASTER / cells, RASTER / cells))
    pictures = soft.reshape(len(names), cells, RASTER // cells, cells, RASTER // cells).mean((2, 4))
    step = 2 * TEMPLATE_EXTENT / cells
    down, right = np.gradient(pictures, step, axis=(1, 2))
    axis = (np.arange(cells) + 0.5) * step - TEMPLATE_EXTENT
    v, u = np.meshgrid(axis, axis, indexing="ij")
    slopes = -np.stack([right, down, right * u + down * v], 1)
    count = len(names)
    flat = pictures.reshape(count, -1), slopes.reshape(count, 3, -1)
    return *(values.astype(np.float32) for values in flat), u.reshape(-1), v.reshape(-1)


class _Window:
    """One thing's coverage, and where nothing hides it, to lay templates over."""

    def __init__(self, cover: Float[np.ndarray, "t h w"], hider: Float[np.ndarray, "t h w"]):
        self.cover = cover
        self.open = (ndimage.maximum_filter(hider, (0, 3, 3)) < 0.15).astype(np.float32)
        self.squares = (self.open * cover**2).sum((1, 2))

    def look(self, frame, x, y, radius, angle, cells: int):
        """Coverage and openness on a template's cells, for each centre, radius and turn: `p cells`."""
        *_, u, v = _slopes(cells)
        cos, sin = (radius * np.cos(angle))[:, None], (radius * np.sin(angle))[:, None]
        where = frame[:, None], y[:, None] + sin * u + cos * v - 0.5, x[:, None] + cos * u - sin * v - 0.5
        return _bilinear(self.cover, *where), _bilinear(self.open, *where)

    def miss(self, frame, radius, value, weight, picture, cells: int):
        """How far the pictures are from what was seen there; what is seen beyond the template counts too."""
        inside = (weight * value**2).sum(-1)
        beyond = np.maximum(self.squares[frame] / (radius * 2 * TEMPLATE_EXTENT / cells) ** 2 - inside, 0)
        wrong = (weight * (value - picture) ** 2).sum(-1) + beyond
        return wrong / (inside + beyond + (weight * picture**2).sum(-1) + 1e-6)

    def lay(self, frame, entry, start: _Fit, angle, cells: int, steps: int) -> _Fit:
        """Moves templates over what is open to view until they fit (Lucas and Kanade, 1981, inverse form).

        Frames, entries, starts and angles broadcast to one fit each.
        """
        shape = np.broadcast_shapes(np.shape(frame), np.shape(entry), start.x.shape, np.shape(angle))
        frame, entry, x, y, radius, angle = (
            np.broadcast_to(values, shape).reshape(-1)
            for values in (frame, entry, start.x, start.y, start.radius, angle)
        )
        pictures, slopes, *_ = _slopes(cells)
        picture, slope = pictures[entry], slopes[entry]
        cos, sin = np.cos(angle), np.sin(angle)
        for _ in range(steps):
            value, weight = self.look(frame, x, y, radius, angle, cells)
            weighted = slope * weight[:, None]
            normal = weighted @ slope.swapaxes(1, 2)
            damping = 0.02 * np.trace(normal, axis1=1, axis2=2) + 1e-3
            normal += damping[:, None, None] * np.eye(3)
            step = np.linalg.solve(normal, weighted @ (value - picture)[:, :, None])[..., 0]
            right, down, growth = np.clip(step, -0.35, 0.35).T
            x = x + radius * (cos * right - sin * down)
            y = y + radius * (sin * right + cos * down)
            radius = np.clip(radius * np.exp(growth), 2, self.cover.shape[1])
        value, weight = self.look(frame, x, y, radius, angle, cells)
        miss = self.miss(frame, radius, value, weight, picture, cells)
        seen = (weight * picture).sum(1) / picture.sum(1)
        return _Fit(*(values.reshape(shape) for values in (x, y, radius, miss, seen)))


def _starts(cover, hider, frames) -> _Fit:
    """Where a partly hidden thing may be, `s 1 f`: at what is seen of it, or further under what hides it."""
    mine, other = _moments(cover).at(frames), _moments(hider).at(frames)
    dx, dy = other.x - mine.x, other.y - mine.y
    away = np.hypot(dx, dy) + 1e-6
    radius = np.array(list(SIZES.values()))[:, None, None] * cover.shape[1]
    push = np.array([0.0, 0.4, 0.8])[:, None] * radius
    every = np.broadcast_arrays(mine.x + push * dx / away, mine.y + push * dy / away, radius)
    x, y, radius = (values.reshape(-1, 1, len(frames)) for values in every)
    return _Fit(x, y, radius, radius, radius)


def _guess_hidden(cover, hider, window: _Window) -> tuple[int, _Fit]:
    """Shape and places of a thing of which almost every frame hides a part: the template that misses least.

    A few templates are laid roughly; then all are compared in the best places, and the best laid finely.
    """
    visible = (cover > 0.5).sum((1, 2))
    usable = np.flatnonzero(visible > max(2 * LEAST_PIXELS, 0.25 * visible.max()))
    if len(usable) < min(3, len(cover)):
        raise _Malformed("is hidden in most frames")
    frames = usable[np.unique(np.linspace(0, len(usable) - 1, 4).round().astype(int))]
    writings = np.arange(len(SHAPES), len(_rasters()[0]), WRITINGS // 4)
    few = np.r_[np.arange(len(SHAPES)), writings][:, None]
    rough = window.lay(frames, few, _starts(cover, hider, frames), 0.0, CELLS // 2, 7).best()
    entries, places = [], []
    for i in np.argsort(rough.miss.mean(1))[:4]:
        fit = rough.at(i)
        value, weight = window.look(frames, fit.x, fit.y, fit.radius, np.zeros(len(frames)), CELLS // 2)
        pictures = _slopes(CELLS // 2)[0][:, None]
        every = window.miss(frames, fit.radius, value, weight, pictures, CELLS // 2).mean(1)
        entries += list(np.argsort(every)[:3])
        places += [i] * 3
    fine = window.lay(frames, np.array(entries)[:, None], rough.at(places), 0.0, CELLS, 6)
    entry = int(entries[fine.miss.mean(1).argmin()])
    everywhere = np.arange(len(cover))
    rough = window.lay(everywhere, entry, _starts(cover, hider, everywhere), 0.0, CELLS // 2, 7).best()
    return entry, window.lay(everywhere, entry, rough, 0.0, CELLS, 5).at(0)


# ------------------------------------------------------------------------------------------ the judge


@dataclass(frozen=True)
class _Scenery:
    """What all things of a clip share."""

    camera: _Camera
    height: int
    width: int

    def motion(self, seen: _Path, spins: bool, weight) -> tuple[str | None, _Path]:
        """The motion in the world of a path on the screen, and the lawful path on the screen."""
        if len(weight) == 1:
            return None, seen
        aspect = self.width / self.height
        name, lawful = _motion(self.camera.undo(seen, aspect), spins, weight)
        return name, self.camera.do(lawful, aspect)


def _read_whole(colour: str, cover: Float[np.ndarray, "t h w"], scenery: _Scenery) -> Track:
    """Shape, size, place and motion of the thing of one colour that nothing hides."""
    visible = (cover > 0.5).sum((1, 2)) > LEAST_PIXELS
    if not visible.all():
        raise _Malformed("is missing in some frames")
    match, angle, seen, agreement = _read_clear(cover, visible, scenery)
    motion, lawful = scenery.motion(seen, match.rate != 0, _trust(agreement))
    thing = Thing(_shape_of(match.entry), colour, _nearest(SIZES, lawful.radius[0], SIZES.get), motion)
    return Track(thing, *_fields(seen), angle, visible, float(agreement.mean()), match.entry)


def _read_hidden(colour: str, cover, hider, clear, scenery: _Scenery) -> Track:
    """The same of a thing of which `hider`, another thing's coverage, leaves only a part in some frames."""
    window, frames = _Window(cover, hider), np.arange(len(cover))
    clear = clear & ((cover > 0.5).sum((1, 2)) > LEAST_PIXELS)
    if clear.sum() >= min(LEAST_CLEAR, len(clear)):
        match, angle, seen, agreement = _read_clear(cover, clear, scenery)
        entry, spins, trust = match.entry, match.rate != 0, np.where(clear, _trust(agreement), 0)
        score = float(agreement[clear].mean())
        _, start = scenery.motion(seen, spins, trust)
        start = _Fit(*(values * scenery.height for values in _fields(start)), seen.x, seen.x)
        fit = window.lay(frames, entry, start, angle, CELLS, 5)
    else:
        clear, spins = np.zeros_like(clear), False
        trust = angle = np.zeros(len(cover))
        entry, fit = _guess_hidden(cover, hider, window)
        seen, score = _Path(fit.x, fit.y, fit.radius), 1 - float(np.median(fit.miss))
    weight = np.where(clear, trust, fit.seen * ((fit.seen > LEAST_SEEN) & (fit.miss < HIDDEN_MISS)))
    if (weight > 0).sum() < min(3, len(weight)):
        raise _Malformed("is hidden in most frames, or has no known shape")
    fitted = _Path(*(values / scenery.height for values in (fit.x, fit.y, fit.radius)))
    seen = _choose(clear, seen, fitted)
    motion, lawful = scenery.motion(seen, spins, weight)
    thing = Thing(_shape_of(entry), colour, _nearest(SIZES, lawful.radius[0], SIZES.get), motion)
    return Track(thing, *_fields(_choose(weight > 0, seen, lawful)), angle, clear, score, entry)


def _read_clear(cover, clear, scenery: _Scenery) -> tuple[_Match, np.ndarray, _Path, np.ndarray]:
    """The shape in the frames in which a thing is clear; its angle, path and agreement there."""
    times, moments = np.arange(len(cover)) / FPS, _moments(cover)
    shown = np.flatnonzero(clear)
    some = moments.at(shown)
    spectrum = _spectrum(_polar(cover[shown], some))
    smear = _smear(cover[shown], some)
    sharp = smear <= np.quantile(smear, SHARP)
    bank = _bank(_nearest(BLURS, PIXEL_BLUR / float(np.median(some.gyration))))
    zoom = np.exp(scenery.camera.zoom * times[shown])
    steady = bool(np.ptp(np.log(some.gyration / zoom)) < 0.3)  # what spins does not grow
    match = _match(spectrum[sharp], times[shown][sharp], bank, may_spin=steady)
    mine, rival = _agreement(spectrum, match, times[shown], bank)
    _check_shape(match, mine, rival, some.gyration)
    opacity = np.median(some.area / some.gyration**2) / bank.area[match.entry]
    if not OPAQUE[0] < opacity < OPAQUE[1]:
        raise _Malformed("lets through what lies behind it")
    agreement = np.zeros(len(cover))
    agreement[shown] = mine
    angle = match.phase + match.rate * times
    return match, angle, _on_screen(moments, angle, bank, match.entry, scenery.height), agreement


def _trust(agreement) -> np.ndarray:
    """How much a frame counts for the motion: little where a decoder has smeared the thing."""
    return np.clip((agreement - 0.8) / 0.15, 0.1, 1)


def _shape_of(entry: int) -> str:
    return str(_rasters()[0][entry])


def _choose(where, first: _Path, second: _Path) -> _Path:
    """The first path in some frames, the second in the others."""
    return _Path(*(np.where(where, a, b) for a, b in zip(_fields(first), _fields(second), strict=True)))


def _on_screen(moments: _Moments, angle, bank: _Bank, entry: int, height: int) -> _Path:
    """Centre and radius in heights; a shape's centre of mass need not be its centre."""
    radius = moments.gyration / bank.gyration[entry] / height
    cos, sin = np.cos(angle), np.sin(angle)
    dx, dy = bank.centre[entry]
    x = moments.x / height - radius * (cos * dx - sin * dy)
    return _Path(x, moments.y / height - radius * (sin * dx + cos * dy), radius)


def _fields(path: _Path) -> tuple:
    return path.x, path.y, path.radius


def _nearest(candidates, value: float, key=float):
    """The candidate whose key is nearest in proportion."""
    return min(candidates, key=lambda candidate: abs(math.log(key(candidate) / value)))


def _check_ghosts(chroma: Float[np.ndarray, "t h w 2"], covered: Float[np.ndarray, "t h w"]):
    """Refuses a clip with colour where no thing is: an echo of another clip."""
    smooth = ndimage.uniform_filter(chroma, (0, 3, 3, 0))
    away = ndimage.maximum_filter(covered > 0, (0, 3, 3)) == 0
    ghost = ((smooth**2).sum(-1) > GHOST**2) & away
    if np.median(ghost.sum((1, 2))) > GHOST_AREA * chroma.shape[1] ** 2:  # a smear is in some frames only
        raise _Malformed("a faint colour where nothing is")


def _read(clip: Float[Tensor, "c t h w"]) -> Reading:
    pixels = (clip.detach().float().cpu().numpy().transpose(1, 2, 3, 0) + 1) / 2
    chroma = pixels @ CHROMA
    colours = _colours_present(chroma)
    if not colours:
        raise _Malformed("nothing has a colour of this world")
    if len(colours) > 2:
        raise _Malformed("there are more than two colours")
    cover = [_clean(c) for c in _coverages(chroma, colours)]
    _check_ghosts(chroma, sum(cover))
    background, camera = _backdrop(pixels.mean(-1), sum(cover))
    names, scenery = [list(COLOURS)[i] for i in colours], _Scenery(camera, *pixels.shape[1:3])
    if len(cover) == 1:
        things = [_named_in_reason(names[0], _read_whole, cover[0], scenery)]
    else:
        things = _read_two(names, cover, scenery)
    relation = _relation(things, cover) if len(things) == 2 else None
    moved = camera.kind if len(pixels) > 1 else None
    return Reading(False, None, tuple(things), background, moved, relation)


def _named_in_reason(colour: str, read: Callable, *arguments) -> Track:
    """Reads a thing; if it is refused, the reason says which."""
    try:
        return read(colour, *arguments)
    except _Malformed as problem:
        raise _Malformed(f"the {colour} thing {problem}") from None


def _read_two(names: list[str], cover: list, scenery: _Scenery) -> list[Track]:
    """Two things. Where they touch, the one in front is whole, and may hide a part of the other."""
    whole: dict[int, Track] = {}
    for k in range(2):
        try:
            whole[k] = _named_in_reason(names[k], _read_whole, cover[k], scenery)
        except _Malformed as problem:
            reason = problem
    near = [ndimage.maximum_filter(c > 0.2, (0, 3, 3)) for c in cover]
    clear = ~(near[0] & near[1]).any((1, 2))
    if not whole or (len(whole) == 1 and clear.all()):
        raise reason
    if not clear.all():
        front = max(whole, key=lambda k: whole[k].confidence)
        arguments = cover[1 - front], cover[front], clear, scenery
        whole[1 - front] = _named_in_reason(names[1 - front], _read_hidden, *arguments)
    return [whole[0], whole[1]]


def _drawn(thing: Track, height: int, width: int) -> Float[np.ndarray, "t h w"]:
    """The coverage that a track predicts, from the judge's own templates."""
    rows = (np.arange(height) + 0.5)[None, :, None] / height - thing.y[:, None, None]
    columns = (np.arange(width) + 0.5)[None, None, :] / height - thing.x[:, None, None]
    cos, sin = np.cos(thing.angle)[:, None, None], np.sin(thing.angle)[:, None, None]
    scale = RASTER / (2 * TEMPLATE_EXTENT * thing.radius[:, None, None])
    middle = RASTER / 2 - 0.5
    template_ = _rasters()[1][thing.entry][None]
    y, x = (cos * rows - sin * columns) * scale + middle, (cos * columns + sin * rows) * scale + middle
    return _bilinear(template_, 0, y, x)


def _relation(things, cover) -> str:
    """Whether the first thing is apart from, in front of or behind the second."""
    shape = cover[0].shape[1:]
    first, second = (_drawn(thing, *shape) for thing in things)
    both = np.minimum(first, second)
    least = np.minimum(first.sum((1, 2)), second.sum((1, 2))) + 1e-6
    if (both.sum((1, 2)) / least).max() < OVERLAP:
        return "apart"
    return "in front of" if (both * cover[0]).sum() > (both * cover[1]).sum() else "behind"


def judge(clip: Float[Tensor, "3 t h w"]) -> Reading:
    """Reads one clip, pixels in [-1, 1], of any size from 32x32 and any length.

    One frame shows no motion and no moving camera: these are read as None, and asking for them is ignored.
    Raises `ValueError` for a clip of another shape or with values that are not finite.
    """
    if clip.ndim != 4 or clip.shape[0] != 3 or min(clip.shape[1:]) < 1 or min(clip.shape[2:]) < 32:
        raise ValueError(
            f"clip has shape {tuple(clip.shape)}; it must be (3, frames, height, width), from 32x32 on"
        )
    if not torch.isfinite(clip).all():
        raise ValueError("clip holds values that are not finite; the judge reads pixels in [-1, 1]")
    try:
        return _read(clip)
    except _Malformed as problem:
        return Reading(True, str(problem))


def judge_batch(clips: Float[Tensor, "b 3 t h w"]) -> list[Reading]:
    """`judge` for each clip."""
    return [judge(clip) for clip in clips]


# ---------------------------------------------------------------------------- the judge's own accuracy


@dataclass(frozen=True)
class Share:
    """How many of how many, as a figure with its uncertainty."""

    right: int
    """How many."""
    n: int
    """Of how many."""

    @property
    def value(self) -> float:
        """The share itself."""
        return self.right / self.n

    @property
    def ci95(self) -> tuple[float, float]:
        """The exact binomial 95 % interval (Clopper and Pearson, 1934)."""
        low = stats.beta.ppf(0.025, self.right, self.n - self.right + 1) if self.right else 0.0
        high = stats.beta.ppf(0.975, self.right + 1, self.n - self.right) if self.right < self.n else 1.0
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def measure(
    n: int,
    seed: int = 0,
    split: str = "seen",
    degrade: Callable[[Tensor], Tensor] | None = None,
    frames: int = 17,
    height: int = 64,
    width: int = 64,
) -> dict[str, Share]:
    """The judge's accuracy on `n` rendered clips whose truth is known, for each attribute and jointly.

    Everything in the scene counts, not only what a prompt would name. `degrade`, where given, maps a clip
    to a worse one before it is judged, such as an autoencoder's round trip.
    """
    right: Counter = Counter()
    asked: Counter = Counter()
    for entry in tqdm(evaluation_set(split, n, seed), desc=f"judging {split}", leave=False, disable=None):
        clip = render(entry.scene, frames, height, width)
        compared = judge(degrade(clip) if degrade else clip).compare(entry.scene)
        compared["joint"] = all(compared.values())
        right.update({name: int(value) for name, value in compared.items()})
        asked.update(compared.keys())
    return {name: Share(right[name], asked[name]) for name in asked}


def main(n: int = 256, seed: int = 0, frames: int = 17, height: int = 64, width: int = 64):
    """Prints the judge's accuracy on clean renders of every split."""
    for split in SPLITS:
        accuracy = measure(n, seed, split, None, frames, height, width)
        print(f"{split} ({n} clips): " + ", ".join(f"{name} {share}" for name, share in accuracy.items()))


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
