"""Drawing a toy scene: its physics, its camera and its pixels, at any size, length and aspect ratio.

Lengths are in heights of the picture, y points down, times are in seconds. The same scene at another
size is the same film; with more frames it goes on, at a pace that keeps everything in view.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from sora_edu.data.digits import every_digit
from sora_edu.data.scene import COLOURS, DIGITS, SIZES, Scene, Thing

FPS = 8
GRAVITY = 1.0  # heights per second squared
RESTITUTION = 0.85  # of the speed, at each bounce
MARGIN = 0.015  # that objects keep from the edge, in heights

TEMPLATE_SIDE = 96
TEMPLATE_EXTENT = 1.3  # half the template's side, in radii of the object
POLYGONS = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -1.15), (0.996, 0.575), (-0.996, 0.575)],
    "star": [
        (1.12 * f * math.sin(k * math.pi / 5), -1.12 * f * math.cos(k * math.pi / 5))
        for k in range(10)
        for f in [1.0 if k % 2 == 0 else 0.45]
    ],
    "cross": [
        (-0.36, -1), (0.36, -1), (0.36, -0.36), (1, -0.36), (1, 0.36), (0.36, 0.36),
        (0.36, 1), (-0.36, 1), (-0.36, 0.36), (-1, 0.36), (-1, -0.36), (-0.36, -0.36),
    ],
}
FOOT = {"square": 0.85, "triangle": 0.575, "star": 0.906}  # lowest point below the centre, in radii; else 1


@dataclass(frozen=True)
class Camera:
    """Where the camera looks, frame by frame."""

    pan: Float[np.ndarray, " t"]
    """Shift to the right since the first frame, in heights."""
    zoom: Float[np.ndarray, " t"]
    """Magnification about the picture's centre, 1 in the first frame."""


@dataclass(frozen=True)
class Trajectory:
    """The true path of every thing, as seen on the screen: arrays `n t`, things in the scene's order."""

    x: Float[np.ndarray, "n t"]
    """Centre, in heights from the left edge."""
    y: Float[np.ndarray, "n t"]
    """Centre, in heights from the top edge."""
    radius: Float[np.ndarray, "n t"]
    """In heights; `SIZES` in the first frame."""
    angle: Float[np.ndarray, "n t"]
    """Clockwise turn, in radians."""
    camera: Camera
    """What the camera did meanwhile."""


# ---------------------------------------------------------------------------------------------- paths


def _camera_path(kind: str, t: np.ndarray, room: float, rng) -> Camera:
    """`room` is how far the largest thing could move sideways: a pan leaves it more than half of that."""
    span = max(t[-1], 1e-9)
    speed = min(rng.uniform(0.08, 0.12), 0.45 * room / span)
    rate = min(rng.uniform(0.11, 0.17), math.log(1.4) / span)
    pan = {"pans left": -speed, "pans right": speed}.get(kind, 0.0) * t
    return Camera(pan, np.exp({"zooms in": rate, "zooms out": -rate}.get(kind, 0.0) * t))


def _fall(t: np.ndarray, speed: float, drop: float, restitution: float) -> np.ndarray:
    """Height above the floor under constant gravity, thrown downwards at `speed` from height `drop`."""
    height = np.empty_like(t)
    start, above, velocity = 0.0, drop, speed
    for i, now in enumerate(t):
        while True:
            impact = (-velocity + math.sqrt(velocity**2 + 2 * GRAVITY * above)) / GRAVITY
            if now - start <= impact or (velocity == 0 and above == 0):
                break
            velocity = -restitution * (velocity + GRAVITY * impact)
            start, above = start + impact, 0.0
            if abs(velocity) < 1e-3:
                velocity = 0.0
        since = now - start
        height[i] = above - velocity * since - 0.5 * GRAVITY * since**2 if (velocity or above) else 0.0
    return height


class _Path(NamedTuple):
    """How one thing moves in the world, before it is placed; all `t`. In falls and bounces dy is minus the
    height above the floor."""

    dx: np.ndarray
    dy: np.ndarray
    factor: np.ndarray
    angle: np.ndarray


def _motion_path(thing: Thing, t: np.ndarray, room: tuple[float, float], rng) -> _Path:
    """The law of each motion. All is drawn for every motion, so that the order of draws never changes."""
    speed, turn, sign = rng.uniform(0.18, 0.30), rng.uniform(80, 130), rng.choice([-1, 1])
    drift, throw, share = rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.2), rng.uniform()
    phase, growth = rng.uniform(0, 2 * math.pi), rng.uniform(1.5, 1.75)
    span = max(t[-1], 1e-9)
    still = _Path(np.zeros_like(t), np.zeros_like(t), np.ones_like(t), np.zeros_like(t))
    match thing.motion.split():
        case "moves", ("left" | "right") as side:
            along = min(speed, 0.95 * room[0] / span) * t
            return still._replace(dx=along if side == "right" else -along)
        case "moves", side:
            along = min(speed, 0.95 * room[1] / span) * t
            return still._replace(dy=along if side == "down" else -along)
        case ["falls"]:
            height = _fall(t, throw, (0.6 + 0.4 * share) * room[1], 0.0)
            landed = t[np.argmin(height > 0)] if (height <= 0).any() else span
            return still._replace(dx=drift * np.minimum(t, landed), dy=-height)
        case ["bounces"]:
            drop = min((0.3 + 0.5 * share) * room[1], 0.5 * GRAVITY * (0.65 * span) ** 2)
            return still._replace(dx=drift * t, dy=-_fall(t, max(throw, 0.0), drop, RESTITUTION))
        case ["orbits"]:
            radius = 0.12 + 0.06 * share
            angle = phase + sign * 2 * math.pi * (0.4 + 0.15 * speed / 0.3) * t
            return still._replace(dx=radius * np.cos(angle), dy=radius * np.sin(angle))
        case ["spins"]:
            return still._replace(angle=phase + sign * math.radians(turn) * t)
        case ["grows" | "shrinks" as way]:
            factor = growth if way == "grows" else 1 / growth
            return still._replace(factor=1 + (factor - 1) * t / span)
    return still


def _feasible(shift, radius, camera_shift, zoom, centre, extent) -> tuple[float, float]:
    """The starts that keep a thing in view: screen = centre + zoom (start + shift - camera - centre)."""
    reach = zoom * radius + MARGIN
    low = (reach - centre) / zoom + centre + camera_shift - shift
    high = (extent - reach - centre) / zoom + centre + camera_shift - shift
    low, high = low.max(), high.min()
    return (low, high) if low <= high else ((low + high) / 2,) * 2


class _Laid(NamedTuple):
    """A path, the radii along it, and the intervals in which its start may lie."""

    path: _Path
    radius: np.ndarray
    xs: tuple[float, float]
    ys: tuple[float, float]


def _lay_path(thing: Thing, t, camera: Camera, aspect: float, rng) -> _Laid:
    radius = SIZES[thing.size]
    floor = 0.5 + 0.5 / max(1.0, camera.zoom[-1])  # in view to the end, also when the camera zooms in
    room = (aspect - 2 * (radius + MARGIN) - abs(camera.pan[-1]), floor - 2 * (radius + MARGIN))
    path = _motion_path(thing, t, room, rng)
    radii = radius * path.factor
    xs = _feasible(path.dx, radii, camera.pan, camera.zoom, aspect / 2, aspect)
    if thing.motion in ("falls", "bounces"):
        rest = floor - radius * FOOT.get(thing.shape, 1.0)
        return _Laid(path, radii, xs, (rest, rest))
    return _Laid(path, radii, xs, _feasible(path.dy, radii, 0.0, camera.zoom, 0.5, 1.0))


def _gap(first, second) -> float:
    """Smallest clear distance between two placed things over the clip, in heights."""
    (x1, y1, r1), (x2, y2, r2) = first, second
    return float((np.hypot(x1 - x2, y1 - y2) - r1 - r2).min())


def _place(laid: list[_Laid], relation, rng) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Chooses the starts: anywhere in view for one thing; for two, clear of each other or crossing."""
    best, best_score = None, -math.inf
    for _ in range(1 if len(laid) == 1 else 40):
        starts = [(rng.uniform(*one.xs), rng.uniform(*one.ys)) for one in laid]
        placed = [(x + p.dx, y + p.dy, radius) for (x, y), (p, radius, *_) in zip(starts, laid, strict=True)]
        if len(laid) == 1:
            return placed
        gap = _gap(*placed)
        score = min(gap, 0.02) if relation == "apart" else -abs(gap + 1.6 * min(p[2][0] for p in placed))
        if score > best_score:
            best, best_score = placed, score
        if relation == "apart" and gap >= 0.02:
            break
    return best


def trajectories(scene: Scene, frames: int = 17, height: int = 64, width: int = 64) -> Trajectory:
    """The truth about a scene: where everything is on the screen in each frame, in heights.

    The scene must be complete (`scene.complete(seed)`); a `ValueError` says what is missing.
    """
    _check_complete(scene)
    if frames < 1 or height < 8 or width < 8:
        size = f"frames={frames}, height={height}, width={width}"
        raise ValueError(f"{size}: at least 1 frame of 8x8 pixels is needed")
    rng = np.random.default_rng([scene.seed, 11])
    t, aspect = np.arange(frames) / FPS, width / height
    room = aspect - 2 * (max(SIZES[thing.size] for thing in scene.things) + MARGIN)
    camera = _camera_path(scene.camera, t, room, rng)
    laid = [_lay_path(thing, t, camera, aspect, rng) for thing in scene.things]
    placed = _place(laid, scene.relation, rng)
    x, y, radius = (np.stack(values) for values in zip(*placed, strict=True))
    return Trajectory(
        x=aspect / 2 + camera.zoom * (x - camera.pan - aspect / 2),
        y=0.5 + camera.zoom * (y - 0.5),
        radius=camera.zoom * radius,
        angle=np.stack([one.path.angle for one in laid]),
        camera=camera,
    )


def _check_complete(scene: Scene):
    missing = [name for thing in scene.things for name, value in vars(thing).items() if value is None]
    missing += [name for name in ("background", "camera") if getattr(scene, name) is None]
    if missing:
        names = ", ".join(missing)
        raise ValueError(f"the scene does not say its {names}; render scene.complete(seed) instead")


def overlap(
    scene: Scene, frames: int = 17, height: int = 64, width: int = 64
) -> Float[np.ndarray, " {frames}"]:
    """Of two things taken as discs, the share of the one behind that the other covers, in each frame.

    It is 0 for one thing. Things that are apart count as if the second stood in front.
    """
    if len(scene.things) == 1:
        return np.zeros(frames)
    path, (back, front) = trajectories(scene, frames, height, width), drawing_order(scene)
    distance = np.hypot(path.x[back] - path.x[front], path.y[back] - path.y[front])
    return _lens(distance, path.radius[back], path.radius[front]) / (math.pi * path.radius[back] ** 2)


def _lens(d: np.ndarray, r: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Area that discs of radii r and s share when their centres are d apart: a segment of each."""
    d = np.maximum(d, 1e-9)
    # Half the angle that each segment spans.
    at_r = np.arccos(np.clip((d**2 + r**2 - s**2) / (2 * d * r), -1, 1))
    at_s = np.arccos(np.clip((d**2 + s**2 - r**2) / (2 * d * s), -1, 1))
    return r**2 * (at_r - np.sin(2 * at_r) / 2) + s**2 * (at_s - np.sin(2 * at_s) / 2)


# --------------------------------------------------------------------------------------------- pixels


@lru_cache(maxsize=1)
def _handwriting() -> dict[str, list[np.ndarray]]:
    """Real handwritten digits: 8x8 pictures in [0, 1], where 1 is ink, by digit."""
    pictures, labels = every_digit()
    ink = (pictures[:, 0].numpy() + 1) / 2
    return {d: list(ink[labels.numpy() == int(d)]) for d in DIGITS}


def _signed_distance(inside: np.ndarray) -> np.ndarray:
    """Distance to the outline in radii, negative inside, from a binary template."""
    pixel = 2 * TEMPLATE_EXTENT / inside.shape[0]
    return (distance_transform_edt(~inside) - distance_transform_edt(inside)) * pixel


def _template_grid(side: int):
    axis = (np.arange(side) + 0.5) / side * 2 * TEMPLATE_EXTENT - TEMPLATE_EXTENT
    return np.meshgrid(axis, axis, indexing="xy")


def _in_polygon(x, y, corners) -> np.ndarray:
    """Even-odd rule."""
    inside = np.zeros_like(x, dtype=bool)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


@lru_cache(maxsize=4096)
def template(shape: str, writing: int = 0) -> Float[Tensor, "1 s s"]:
    """Signed distance to a shape's outline, in radii, on a square of half-side `TEMPLATE_EXTENT` radii.

    `writing` chooses among the handwritten examples of a digit, and is ignored for the other shapes.
    """
    side = 4 * TEMPLATE_SIDE
    x, y = _template_grid(side)
    if shape in POLYGONS:
        inside = _in_polygon(x, y, POLYGONS[shape])
    elif shape in DIGITS:
        images = _handwriting()[shape]
        image = torch.tensor(images[writing % len(images)], dtype=torch.float32)
        image = F.pad(image, (1, 1, 1, 1))[None, None]  # ten pixels across: the digit's height is two radii
        grid = torch.tensor(np.stack([x, y], -1) / 1.25, dtype=torch.float32)[None]
        inside = (F.grid_sample(image, grid, "bicubic", align_corners=False)[0, 0] > 0.45).numpy()
    else:
        radius = np.hypot(x, y)
        inside = (radius < 1) & (radius > (0.55 if shape == "ring" else 0.0))
    distance = torch.tensor(_signed_distance(inside), dtype=torch.float32)
    return F.avg_pool2d(distance[None], 4)


def _writing(scene: Scene, index: int) -> int:
    return (scene.seed * 31 + index * 17) % 97 if scene.things[index].shape in DIGITS else 0


def _coverage(
    distance: Float[Tensor, "1 s s"], x, y, radius, angle, height: int, width: int
) -> Float[Tensor, "t 1 h w"]:
    """How much of each pixel a thing covers, with a one-pixel ramp across the outline."""
    x, y, radius, angle = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (x, y, radius, angle))
    rows = (torch.arange(height) + 0.5)[None, :, None] / height - y
    columns = (torch.arange(width) + 0.5)[None, None, :] / height - x
    cos, sin = torch.cos(angle), torch.sin(angle)
    scale = 1 / (radius * TEMPLATE_EXTENT)
    grid = torch.stack([(cos * columns + sin * rows) * scale, (cos * rows - sin * columns) * scale], dim=-1)
    source = distance[None].expand(len(grid), -1, -1, -1)
    sampled = F.grid_sample(source, grid, padding_mode="border", align_corners=False)
    outside = (grid.abs().amax(-1) > 1).unsqueeze(1)
    return (0.5 - sampled * radius[:, None] * height).clamp(0, 1).masked_fill(outside, 0.0)


def _cover_of(
    scene: Scene, index: int, path: Trajectory, height: int, width: int
) -> Float[Tensor, "t 1 h w"]:
    """`_coverage` of one of a scene's things."""
    thing = scene.things[index]
    distance = template(thing.shape, _writing(scene, index))
    place = path.x[index], path.y[index], path.radius[index], path.angle[index]
    return _coverage(distance, *place, height, width)


def background(scene: Scene, camera: Camera, height: int, width: int) -> Float[Tensor, "t 1 h w"]:
    """The grey backdrop in [0, 1]; textures belong to the world, so they move when the camera does."""
    frames = len(camera.pan)
    if scene.background in ("dark", "light"):
        return torch.full((frames, 1, height, width), 0.1 if scene.background == "dark" else 0.9)
    pan, zoom = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (camera.pan, camera.zoom))
    centre = width / height / 2
    x = ((torch.arange(width) + 0.5)[None, None, :] / height - centre) / zoom + centre + pan
    y = ((torch.arange(height) + 0.5)[None, :, None] / height - 0.5) / zoom + 0.5
    shift = np.random.default_rng([scene.seed, 13]).uniform(0, 0.5, 2)
    x, y = 2 * math.pi / 0.5 * (x + shift[0]), 2 * math.pi / 0.5 * (y + shift[1])
    wave = torch.sin(x) * torch.sin(y) if scene.background == "checkered" else torch.sin(x + y)
    return (0.45 + 0.10 * torch.tanh(3 * wave)).unsqueeze(1)


def render(scene: Scene, frames: int = 17, height: int = 64, width: int = 64) -> Float[Tensor, "c t h w"]:
    """Draws a complete scene, anti-aliased, in [-1, 1]; the same scene always gives the same pixels."""
    path = trajectories(scene, frames, height, width)
    picture = background(scene, path.camera, height, width).expand(-1, 3, -1, -1)
    for index in drawing_order(scene):
        thing, cover = scene.things[index], _cover_of(scene, index, path, height, width)
        colour = torch.tensor(COLOURS[thing.colour])[:, None, None]
        picture = picture + cover * (colour - picture)
    return (2 * picture - 1).transpose(0, 1).contiguous()


def drawing_order(scene: Scene) -> list[int]:
    """Indices of the things from back to front."""
    order = list(range(len(scene.things)))
    return order[::-1] if scene.relation == "in front of" else order


def render_batch(
    scenes: list[Scene], frames: int = 17, height: int = 64, width: int = 64
) -> Float[Tensor, "b c t h w"]:
    """`render` for each scene, stacked."""
    return torch.stack([render(scene, frames, height, width) for scene in scenes])


def object_boxes(
    scene: Scene, frames: int = 17, height: int = 64, width: int = 64, margin: int = 2
) -> list[list[tuple[slice, slice]]]:
    """For each thing and frame, the (rows, columns) of its bounding box, `margin` pixels wider on each side.

    The box is that of the pixels it covers at all, whatever stands before it.
    """
    path = trajectories(scene, frames, height, width)
    covers = [_cover_of(scene, index, path, height, width)[:, 0] > 0 for index in range(len(scene.things))]
    return [[(_span(f.any(1), margin), _span(f.any(0), margin)) for f in cover] for cover in covers]


def _span(covered: Bool[Tensor, " n"], margin: int) -> slice:
    where = covered.nonzero()
    return slice(max(0, int(where[0]) - margin), min(len(covered), int(where[-1]) + 1 + margin))
