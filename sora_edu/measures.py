"""What is measured on clips, each figure with its error: pixels, readings of the judge, networks' features.

A figure is `{"value", "n", "ci95"}`: the number, how many samples it is of, and its 95 % interval, or None
where none is known. `evaluate` makes the clips for which all this is asked.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from scipy import stats
from torch import Tensor

from sora_edu import autoencoder
from sora_edu.data import world
from sora_edu.data.judge import Reading, Track
from sora_edu.data.world import Scene

Number = float | complex
Video = Float[Tensor, "c t h w"]

MARGIN = 2  # pixels around an object's box
QUANTITIES = ("start_x", "start_y", "size", "phase")
Start = dict[str, Number]
"""Some of `QUANTITIES`, in the first frame."""
Starts = list[list[Start]]
"""For each prompt, the starts of its clips."""
APART = 0.05  # heights, and relative in size: two clips that start closer than this are the same to the eye
SYMMETRY = {"square": 4, "triangle": 3, "star": 5, "cross": 4}  # times that a turn shows the same; others: 1


# ---- Statistics ------------------------------------------------------------------------------------------


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a proportion, good for small samples and near 0 and 1 too (Wilson, 1927)."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"successes={successes} of n={n}: needs 0 <= successes <= n and n of at least 1")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def proportion(outcomes: Iterable[bool]) -> dict:
    """The share of True as a figure `{"value", "n", "ci95"}`."""
    outcomes = list(outcomes)
    return as_figure(sum(outcomes) / len(outcomes), len(outcomes), wilson(sum(outcomes), len(outcomes)))


def average(values: Iterable[float]) -> dict:
    """The mean as a figure, with Student's interval; of one value, no interval is known."""
    values = np.array(list(values), dtype=float)
    mean, interval = float(values.mean()), None
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
        interval = (mean - half, mean + half)
    return as_figure(mean, len(values), interval)


def as_figure(value: float, n: int, interval: Sequence[float] | None) -> dict:
    """A number of `n` samples and its 95 % interval."""
    return {"value": value, "n": n, "ci95": None if interval is None else list(interval)}


def scatter(values: Sequence[Number]) -> tuple[float, int]:
    """Sum of squares about the mean, and its degrees of freedom."""
    if len(values) < 2:
        return 0.0, 0
    return float((np.abs(np.array(values) - np.mean(values)) ** 2).sum()), len(values) - 1


# ---- Pixels ----------------------------------------------------------------------------------------------


def psnr(video: Video, target: Video, where: Bool[Tensor, "t h w"] | None = None) -> float:
    """Peak signal-to-noise ratio in dB of a clip in [-1, 1], over all pixels or those `where` is True."""
    if where is not None:
        video, target = video[:, where], target[:, where]
    return autoencoder.psnr(video, target).item()


def box_mask(scene: Scene, frames: int, height: int, width: int) -> Bool[Tensor, "t h w"]:
    """True inside the bounding box of every thing, with a margin of 2 pixels."""
    mask = torch.zeros(frames, height, width, dtype=torch.bool)
    for boxes in world.object_boxes(scene, frames, height, width, MARGIN):
        for frame, (rows, columns) in enumerate(boxes):
            mask[frame, rows, columns] = True
    return mask


def seam(video: Video, mask: Float[Tensor, "t h w"]) -> float:
    """Mean change from given pixels to made neighbours, in time or in the picture; 0 where there are none."""
    changes = [
        video.diff(dim=axis + 1).abs()[:, mask.diff(dim=axis) != 0].flatten() for axis in range(mask.ndim)
    ]
    changes = torch.cat(changes)
    return changes.mean().item() if len(changes) else 0.0


def beside_seams(mask: Float[Tensor, "t h w"]) -> list[int]:
    """Made frames next to given ones."""
    made = mask.flatten(1).any(1).tolist()
    return [i for i, new in enumerate(made) if new and not all(made[max(0, i - 1) : i + 2])]


# ---- Readings --------------------------------------------------------------------------------------------


def joint_error(reading: Reading, real: Reading, frames: Sequence[int], height: int) -> float | None:
    """Largest distance, in pixels, by which a thing misses its real place in these frames; None if unread."""
    if reading.malformed or real.malformed or len(reading.things) != 1 or len(real.things) != 1:
        return None
    made, true = reading.things[0], real.things[0]
    return max(math.hypot(made.x[i] - true.x[i], made.y[i] - true.y[i]) * height for i in frames)


def start_of(track: Track) -> Start:
    """Where a thing starts, how large (logarithm) and, if it turns, at which phase, on the unit circle."""
    found = {"start_x": track.x[0], "start_y": track.y[0], "size": math.log(track.radius[0])}
    if track.thing.motion == "spins":
        found["phase"] = np.exp(1j * SYMMETRY.get(track.thing.shape, 1) * track.angle[0])
    if track.thing.motion == "orbits":
        spoke = (track.x[0] + 1j * track.y[0]) - _circle_centre(track.x, track.y)
        found["phase"] = spoke / abs(spoke)
    return found


def _circle_centre(x: Float[np.ndarray, " t"], y: Float[np.ndarray, " t"]) -> complex:
    """Centre of the circle through points, by linear least squares: x^2 + y^2 = 2 a x + 2 b y + c."""
    system = np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1)
    a, b, _ = np.linalg.lstsq(system, x**2 + y**2, rcond=None)[0]
    return complex(a, b)


def diversity(made: Starts, real: Starts) -> dict[str, dict]:
    """The spread of generated clips against real ones', within each prompt.

    `ratio` is the geometric mean of the ratios of standard deviations of start (x and y), size and phase,
    each of which stands beside it; its interval is a bootstrap over prompts. `distinct` is the share of pairs
    of clips of one prompt that start differently (by `APART`); `distinct_real` is the same of real clips.
    Empty if nothing was read in any two clips of a prompt.
    """
    sums = np.stack([_scatters(made), _scatters(real)])  # made or real, quantity, squares or freedom, prompt
    measured = (sums[:, :, 1].sum(-1) > 0).all(0) & (sums[1, :, 0].sum(-1) > 0)
    if not measured.any():
        return {}
    ratios = _ratios(sums[:, measured], np.ones((1, len(made))))
    draws = np.random.default_rng(0).multinomial(len(made), np.full(len(made), 1 / len(made)), size=1000)
    interval = np.nanpercentile(_geometric_mean(_ratios(sums[:, measured], draws)), [2.5, 97.5])
    n = sum(map(len, made))
    figures = {"ratio": as_figure(_geometric_mean(ratios).item(), n, interval.tolist())}
    names = [name for name, known in zip(QUANTITIES, measured, strict=True) if known]
    figures |= {name: as_figure(float(value), n, None) for name, value in zip(names, ratios[0], strict=True)}
    for name, starts in {"distinct": made, "distinct_real": real}.items():
        pairs = [_differ(a, b) for group in starts for i, a in enumerate(group) for b in group[:i]]
        # Pairs share clips, so they are not independent: no binomial interval.
        figures[name] = as_figure(sum(pairs) / len(pairs), len(pairs), None)
    return figures


def _scatters(starts: Starts) -> Float[np.ndarray, "q 2 p"]:
    """For each of `QUANTITIES` and each prompt, `scatter` of its clips."""
    return np.array(
        [[scatter([s[name] for s in group if name in s]) for group in starts] for name in QUANTITIES]
    ).transpose(0, 2, 1)


def _ratios(sums: Float[np.ndarray, "2 q 2 p"], times: Shaped[np.ndarray, "m p"]) -> Float[np.ndarray, "m q"]:
    """Ratios of pooled standard deviations, each prompt counted so many times; nan where nothing is left."""
    with np.errstate(divide="ignore", invalid="ignore"):
        square, freedom = np.einsum("kqsp,mp->skmq", sums, times)
        made, real = np.sqrt(square / freedom)
        return made / real


def _geometric_mean(ratios: Float[np.ndarray, "m q"]) -> Float[np.ndarray, " m"]:
    with np.errstate(divide="ignore"):
        return np.exp(np.nanmean(np.log(ratios), axis=-1))


def _differ(a: Start, b: Start) -> bool:
    return any(abs(a[name] - b[name]) > APART for name in a.keys() & b.keys())


# ---- Sets of clips, by the features of a network ---------------------------------------------------------


def frechet(features: Float[Tensor, "n d"], others: Float[Tensor, "m e"]) -> float:
    """The Frechet distance of two sets of features, as if both were normally distributed: 0 for the same set.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of their means and covariances. The network that made the
    features gives it its name: FID those of Inception, FVD those of a video network. A small set gives too
    large a distance, so compare only sets of one size, and say what as many real samples give.
    Source: Heusel et al. 2017; Unterthiner et al. 2018 for videos.

    Raises ValueError for fewer than two samples, features of different lengths, or such as are not finite.
    """
    one, two = features.double(), others.double()
    if min(len(one), len(two)) < 2 or one.shape[1] != two.shape[1]:
        raise ValueError(
            f"features is {tuple(one.shape)} and others {tuple(two.shape)}; give two or more samples of each,"
            " with as many features"
        )
    if not (one.isfinite().all() and two.isfinite().all()):
        raise ValueError("features or others holds a number that is not finite")
    first, second = (torch.atleast_2d(torch.cov(x.T)) for x in (one, two))
    overlap = torch.linalg.eigvals(first @ second).real.clamp(min=0).sqrt().sum()
    distance = (one.mean(0) - two.mean(0)).square().sum() + first.trace() + second.trace() - 2 * overlap
    return distance.item()


@torch.no_grad()
def features_of(
    network: Callable[[Tensor], Tensor], videos: Iterable[Float[Tensor, "3 t h w"]], batch: int = 16
) -> Float[Tensor, "n d"]:
    """Features of clips in [-1, 1], for `frechet`, some clips at a time, so that a stream of them will do.

    Args:
        network: from "b 3 t h w" to "b d": for FVD the I3D network of Unterthiner et al. 2018, else any that
            saw other videos than those that are compared. It is part of the result: name it with it.
        videos: clips of one size.
        batch: how many the network gets at once.

    Raises:
        ValueError: no clip, or a network that gives no vector for each.
    """
    videos, found = iter(videos), []
    while clips := list(islice(videos, batch)):
        made = network(torch.stack(clips))
        if made.ndim != 2 or len(made) != len(clips):
            raise ValueError(f"network gives {tuple(made.shape)} for {len(clips)} clips; a vector for each")
        found.append(made.float().cpu())
    if not found:
        raise ValueError("videos is empty; at least one clip is needed")
    return torch.cat(found)


def clip_score(pictures: Float[Tensor, "n t d"], texts: Float[Tensor, "m e"]) -> dict:
    """CLIP's score of clips for their prompts: 100 times the cosine, at least 0, averaged over frames.

    A relative measure of how well a picture fits a text; typical values and their order depend on which CLIP
    it is. Source: Hessel et al. 2021, who multiply by 2.5 instead of 100.

    Args:
        pictures: CLIP's vectors of the frames of each clip (t is 1 for pictures), of any length.
        texts: those of the prompts.

    Returns:
        The mean over the clips as a figure, with its interval.

    Raises:
        ValueError: shapes that do not go together.
    """
    fit = (pictures.ndim, texts.ndim) == (3, 2) and pictures.shape[::2] == texts.shape
    if not fit or 0 in pictures.shape:
        raise ValueError(
            f"pictures is {tuple(pictures.shape)} and texts {tuple(texts.shape)}; give (n, t, d) and (n, d)"
        )
    cosine = torch.cosine_similarity(pictures, texts[:, None], dim=-1)
    return average((100 * cosine.clamp(min=0)).mean(1).tolist())


def frechet_figures(
    made: Float[Tensor, "n d"], back: Float[Tensor, "n d"], real: Float[Tensor, "n d"]
) -> dict[str, dict]:
    """The distance of generated clips to real ones, that of other real ones through the autoencoder, and how
    many times the one is the other.

    Args:
        made: features of generated clips.
        back: of as many real clips of the same prompts, as they come back from the autoencoder.
        real: of as many other real clips of the same prompts.
    """
    model, floor = frechet(made, real), frechet(back, real)
    return {
        name: as_figure(value, len(made), None)
        for name, value in (("model", model), ("floor", floor), ("ratio", model / floor))
    }
