"""How good is a checkpoint? Every figure with its sample size, its uncertainty, and what it could be at best.

Clips are generated for prompts that name everything, and the judge reads from pixels alone whether all that
was asked for is there. The judge errs too, so its own accuracy, on rendered clips and on rendered clips that
have been through the autoencoder, stands beside each result: no model can be seen to do better than that.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from scipy import stats
from torch import Tensor

from sora_edu import autoencoder, physics
from sora_edu.clip import TinyClip, tiny_clip
from sora_edu.data import world
from sora_edu.data.judge import Reading, Track, judge
from sora_edu.data.world import Prompted, Scene
from sora_edu.files import write_whole
from sora_edu.precision import working_dtype
from sora_edu.sora import EDIT_STRENGTH, Sora, to_float, to_uint8
from sora_edu.tasks import FROM_TEXT, TASKS, UNTRAINED, put_back, task_mask
from sora_edu.weights import CheckpointError

Number = float | complex
Video = Float[Tensor, "c t h w"]
Advance = Callable[[str, int], None]

CORE = ("seen", "held_out")
MARGIN = 2  # pixels around an object's box
SEEDS_PER_PROMPT = 8  # for diversity
FRECHET_SEEDS = 16  # clips of one prompt for the Frechet distance, which must see that they are not all one
QUANTITIES = ("start_x", "start_y", "size", "phase")
APART = 0.05  # heights, and relative in size: two clips that start closer than this are the same to the eye
SYMMETRY = {"square": 4, "triangle": 3, "star": 5, "cross": 4}  # times that a turn shows the same; others: 1


# ---- Statistics --------------------------------------------------------------------------------------------


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
    return _figure(sum(outcomes) / len(outcomes), len(outcomes), wilson(sum(outcomes), len(outcomes)))


def average(values: Iterable[float]) -> dict:
    """The mean as a figure, with Student's interval; of one value, no interval is known."""
    values = np.array(list(values), dtype=float)
    mean, interval = float(values.mean()), None
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
        interval = (mean - half, mean + half)
    return _figure(mean, len(values), interval)


def _figure(value: float, n: int, interval: Sequence[float] | None) -> dict:
    return {"value": value, "n": n, "ci95": None if interval is None else list(interval)}


def scatter(values: Sequence[Number]) -> tuple[float, int]:
    """Sum of squares about the mean, and its degrees of freedom."""
    if len(values) < 2:
        return 0.0, 0
    return float((np.abs(np.array(values) - np.mean(values)) ** 2).sum()), len(values) - 1


# ---- Pixels ------------------------------------------------------------------------------------------------


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


def _chunks(items: Sequence, size: int):
    return (items[i : i + size] for i in range(0, len(items), size))


# ---- Diversity ---------------------------------------------------------------------------------------------


Start = dict[str, Number]
"""Some of `QUANTITIES`, in the first frame."""
Starts = list[list[Start]]
"""For each prompt, the starts of its clips."""


def diversity_prompts(n: int, seed: int) -> list[str]:
    """`n` prompts that name shape, colour and motion, each motion in turn, and leave the rest open."""
    rng = np.random.default_rng([seed, 29])
    prompts = []
    while len(prompts) < n:
        scene = world.sample_scene(rng, "core")
        if scene.things[0].motion == world.MOTIONS[len(prompts) % len(world.MOTIONS)]:
            prompts.append(world.caption(scene, seed=scene.seed, naming={"shape", "colour", "motion"}))
    return prompts


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
    figures = {"ratio": _figure(_geometric_mean(ratios).item(), n, interval.tolist())}
    names = [name for name, known in zip(QUANTITIES, measured, strict=True) if known]
    figures |= {name: _figure(float(value), n, None) for name, value in zip(names, ratios[0], strict=True)}
    for name, starts in {"distinct": made, "distinct_real": real}.items():
        pairs = [_differ(a, b) for group in starts for i, a in enumerate(group) for b in group[:i]]
        # Pairs share clips, so they are not independent: no binomial interval.
        figures[name] = _figure(sum(pairs) / len(pairs), len(pairs), None)
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


# ---- Tasks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """How a task that starts from pixels is put to the test, on clips of the world."""

    given: Callable[[int], Sequence[int]]
    """Which of so many frames are given."""
    prompted: bool
    """Whether the model is told what the clip shows, or must see it."""


TRIALS = {
    "animate": Trial(lambda frames: [0], True),
    "extend": Trial(lambda frames: range(frames // 2 + 1), False),
    "extend_backwards": Trial(lambda frames: range(frames // 2, frames), False),
    "connect": Trial(lambda n: [*range(n // 4 + 1), *range(n - 1 - n // 4, n)], False),
    "loop": Trial(lambda frames: range(frames // 2 + 1), False),
    "inpaint": Trial(range, True),
}
JOINT = 1.0  # pixels by which a continued motion may miss its place next to a seam


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


def joint_error(reading: Reading, real: Reading, frames: Sequence[int], height: int) -> float | None:
    """Largest distance, in pixels, by which a thing misses its real place in these frames; None if unread."""
    if reading.malformed or real.malformed or len(reading.things) != 1 or len(real.things) != 1:
        return None
    made, true = reading.things[0], real.things[0]
    return max(math.hypot(made.x[i] - true.x[i], made.y[i] - true.y[i]) * height for i in frames)


def recoloured(entry: Prompted, seed: int) -> Prompted:
    """The same scene in another colour, for editing; no held-out pair that was not one before."""
    thing = entry.scene.things[0]
    free = [
        colour
        for colour in world.COLOURS
        if colour != thing.colour and (thing.shape, colour) not in world.HELD_OUT_COLOURS
    ]
    scene = replace(entry.scene, things=(replace(thing, colour=free[seed % len(free)]),))
    prompt = world.caption(scene, seed, {"colour", "shape", "size", "motion"})
    return Prompted(prompt, world.parse(prompt), scene)


def _from_pixels(sora: Sora) -> list[str]:
    known = sora.config.tasks + UNTRAINED
    return [task for task in TASKS if task in known and task not in FROM_TEXT]


@torch.no_grad()
def _tasks(sampling: "_Sampling", entries: list[Prompted], seed: int) -> dict:
    """Every task that the checkpoint knows and that starts from pixels, on clips of one thing."""
    names = _from_pixels(sampling.sora)
    streams = {task: len(world.SPLITS) + 1 + TASKS.index(task) for task in names}
    seeds = {task: _noise_seeds(len(entries), seed, stream) for task, stream in streams.items()}
    tallies = {task: _Tally(task, sampling) for task in names if task != "edit"}
    edited: list[bool] = []
    for start in range(0, len(entries), sampling.batch):
        chunk = entries[start : start + sampling.batch]
        # In 8 bits, as what is made: else the rounding alone would show at a seam.
        real = to_float(to_uint8(world.render_batch([entry.scene for entry in chunk], *sampling.size)))
        back, readings = _round_trip(sampling.sora, real), list(map(judge, real))
        for task in names:
            noise = seeds[task][start : start + len(chunk)]
            if task == "edit":
                edited += _edit(sampling, chunk, real, noise)
            else:
                tallies[task].add(chunk, real, back, readings, noise)
    figures = {task: tally.figures() for task, tally in tallies.items()}
    return figures | ({"edit": {"adherence": proportion(edited)}} if edited else {})


def _edit(sampling: "_Sampling", entries: list[Prompted], real: Tensor, noise: list[int]) -> list[bool]:
    """SDEdit: whether each clip is as it was but in another colour."""
    wanted = [recoloured(entry, number) for entry, number in zip(entries, noise, strict=True)]
    made = sampling.sample([w.prompt for w in wanted], noise, given=real, strength=EDIT_STRENGTH)
    return [judge(clip).matches(w.asked) for clip, w in zip(made, wanted, strict=True)]


class _Tally:
    """One task of `TRIALS`: is what was asked there, are given pixels known, does no seam show?"""

    def __init__(self, task: str, sampling: "_Sampling"):
        frames, height, width = sampling.size
        region = np.zeros((height, width), bool)
        region[height // 4 : -height // 4, width // 4 : -width // 4] = True
        given = list(TRIALS[task].given(frames))
        self.task, self.sampling = task, sampling
        self.mask = task_mask(task, *sampling.size, given, region if task == "inpaint" else None)
        self.beside = beside_seams(self.mask)
        self.own, self.known, self.made_seams, self.real_seams = [], [], [], []
        self.right, self.errors = [], []

    def add(self, entries: list[Prompted], real, back, readings: list[Reading], noise: list[int]) -> None:
        """Does the task on real clips "b c t h w"; `back` are the same through the autoencoder."""
        if self.task == "loop":  # its last frame is its first once more
            real = real.clone()
            real[:, :, -1] = real[:, :, 0]
            back = _round_trip(self.sampling.sora, real)
        prompts = [entry.prompt if TRIALS[self.task].prompted else "" for entry in entries]
        made = self.sampling.sample(prompts, noise, given=real, mask=self.mask)
        final = put_back(made, real, self.mask)
        for mine, theirs, true, whole in zip(made, back, real, final, strict=True):
            self.own.append(psnr(mine, true, self.mask == 0))
            self.known.append(psnr(theirs, true, self.mask == 0))
            self.made_seams.append(seam(whole, self.mask))
            self.real_seams.append(seam(true, self.mask))
        if self.task == "loop":  # what a clip of half its frames shows is for nobody to read
            return
        for entry, whole, true in zip(entries, final, readings, strict=True):
            reading = judge(whole)
            self.right.append(reading.matches(entry.asked))
            self.errors.append(joint_error(reading, true, self.beside or [0], self.mask.shape[1]))

    def figures(self) -> dict:
        """What all clips came to.

        `given_psnr` is of the model's own output, before given pixels are put back, and
        `given_psnr_autoencoder` of what the autoencoder makes of the whole clip, in the same places.
        `seam_ratio` is the change from given to made pixels against that of the real clips. `joint_error` is
        in pixels; `continued` asks for all attributes and at most `JOINT` of it.
        """
        figures = {
            "given_psnr": average(self.own),
            "given_psnr_autoencoder": average(self.known),
            "seam_ratio": _figure(sum(self.made_seams) / sum(self.real_seams), len(self.made_seams), None),
        }
        if self.right:
            figures["adherence"] = proportion(self.right)
        if self.beside and self.right:
            read = [error for error in self.errors if error is not None]
            figures |= {"joint_error": average(read)} if read else {}
            near = [error is not None and error <= JOINT for error in self.errors]
            figures["continued"] = proportion(a and b for a, b in zip(self.right, near, strict=True))
        return figures


# ---- Sets of clips, by the features of a network -----------------------------------------------------------


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
    if len(pictures) != len(texts) or pictures.shape[2] != texts.shape[1] or 0 in pictures.shape:
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
        name: _figure(value, len(made), None)
        for name, value in (("model", model), ("floor", floor), ("ratio", model / floor))
    }


# ---- The evaluation ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sampling:
    """What is the same for all generated clips."""

    sora: Sora
    size: tuple[int, int, int]
    steps: int
    guidance: float
    batch: int
    advance: Advance

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], **condition) -> Float[Tensor, "b c t h w"]:
        """Generated clips in the 8 bits of a file."""
        size = dict(zip(("frames", "height", "width"), self.size, strict=True))
        video = self.sora.sample(
            prompts, seeds, **size, steps=self.steps, guidance=self.guidance, **condition
        )
        self.advance("generated clips", len(prompts))
        return to_float(to_uint8(video))

    def readings(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Reading]:
        """The judge's reading of one generated clip for each prompt and seed."""
        found = []
        for chunk in _chunks(list(zip(prompts, seeds, strict=True)), self.batch):
            found += map(judge, self.sample(*zip(*chunk, strict=True)))
        return found


def evaluate(
    sora: Sora,
    n: int = 256,
    seed: int = 0,
    splits: Sequence[str] = world.SPLITS,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 32,
    frechet_clips: int | None = None,
    advance: Advance = lambda what, count: None,
) -> dict:
    """Measures a checkpoint on `n` clips a split, and as many for diversity and for the Frechet distance.

    Args:
        sora: the model.
        n: clips for each split; at least 1.
        seed: of prompts, scenes and noise.
        splits: of `world.SPLITS`; `seen` and `held_out` are the core of the world.
        steps: Euler steps; None takes the checkpoint's own number.
        guidance: guidance scale; None takes the checkpoint's own.
        batch: clips made at once.
        frechet_clips: clips for the Frechet distance, about; None takes `n`, and fewer than two none.
        advance: told what was done, and for how many clips; see `work`.

    Returns:
        Nested figures, each `{"value", "n", "ci95"}`: `judge.clean` and `.autoencoder` (all attributes of
        core scenes), `autoencoder.psnr` and `.psnr_object` (held-out core), `adherence.<split>` and, under
        `judge.by_split`, the judge's own share for the same prompts; `tasks.<name>`, for each that starts
        from pixels; `physics.<law>` with `<law>_real`, that of real clips behind the autoencoder;
        `diversity.ratio`; `frechet.model`, `.floor` and `.ratio`, by chapter 12's encoder of clips, if that
        ships and reads this model's latents; `seconds_per_clip`; and the settings. What was not measured is
        absent.

    Raises:
        ValueError: an unknown split, or an impossible number.
    """
    splits = tuple(splits)
    _check(n, seed, splits, batch)
    sampling = _Sampling(
        sora, sora.config.sizes[0],
        sora.config.steps if steps is None else steps,
        sora.config.guidance if guidance is None else guidance,
        batch, advance,
    )  # fmt: skip
    entries = {split: world.evaluation_set(split, n, seed) for split in splits}
    report = {
        **_judge_and_autoencoder(sampling, entries),
        "adherence": _adherence(sampling, entries, seed),
        "tasks": _tasks(sampling, world.evaluation_set("seen", n, seed), seed),
        "physics": _physics(sampling, n, seed),
        "diversity": _diversity(sampling, n, seed),
        "frechet": _frechet(sampling, n if frechet_clips is None else frechet_clips, seed),
        "seconds_per_clip": _seconds_per_clip(sampling),
        "n": n, "seed": seed, "sampler": "euler", "steps": sampling.steps, "guidance": sampling.guidance,
        "network_evaluations": sampling.steps * (1 if sampling.guidance == 1 else 2),
        "dtype": str(working_dtype(sora.autoencoder.device)).removeprefix("torch."),
        "checkpoint_sha256": sora.sha256,
    }  # fmt: skip
    return {name: value for name, value in report.items() if value not in ({}, None)}


def work(sora: Sora, n: int, splits: Sequence[str] = world.SPLITS) -> int:
    """How many clips an evaluation renders or generates, for a progress bar."""
    laws = len(physics.LAWS) + ("extend" in sora.config.tasks)
    compared = 0 if n < 2 or _reader_of(sora) is None else 3 * math.prod(_frechet_counts(n))
    diverse = 2 * SEEDS_PER_PROMPT * _diversity_prompt_count(n)
    tasks = n * len(_from_pixels(sora))
    return 2 * n * len(splits) + tasks + laws * _physics_count(n) + diverse + compared


def _check(n, seed, splits, batch) -> None:
    for name, value, least in (("n", n, 1), ("seed", seed, 0), ("batch", batch, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    unknown = [split for split in splits if split not in world.SPLITS]
    if unknown or not splits:
        raise ValueError(f"splits={list(splits)} must be some of: {', '.join(world.SPLITS)}")


def _round_trip(sora: Sora, clips: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
    """Clips as they come back from the autoencoder."""
    autoencoder = sora.autoencoder
    return autoencoder.decode(autoencoder.encode(clips.to(autoencoder.device))).clamp(-1, 1).cpu()


@torch.no_grad()
def _rendered(sampling: _Sampling, entries: list[Prompted]):
    """Each entry, its scene as rendered, and as it comes back from the autoencoder."""
    for chunk in _chunks(entries, sampling.batch):
        clean = world.render_batch([entry.scene for entry in chunk], *sampling.size)
        back = to_float(to_uint8(_round_trip(sampling.sora, clean)))
        yield from zip(chunk, clean, back, strict=True)
        sampling.advance("rendered clips", len(chunk))


def _judge_and_autoencoder(sampling: _Sampling, entries: dict[str, list[Prompted]]) -> dict:
    """What the judge reads in real clips before and after the autoencoder, and how near the two are."""
    judged: dict[str, list[bool]] = {"clean": [], "autoencoder": []}
    by_split, quality = {}, {}
    for split, wanted in entries.items():
        right: dict[str, list[bool]] = {"clean": [], "autoencoder": []}
        whole, inside = [], []
        for entry, clean, back in _rendered(sampling, wanted):
            for name, clip in (("clean", clean), ("autoencoder", back)):
                reading = judge(clip)
                right[name].append(reading.matches(entry.asked))
                if split in CORE:
                    judged[name].append(reading.matches(entry.scene))
            whole.append(psnr(back, clean))
            inside.append(psnr(back, clean, box_mask(entry.scene, *sampling.size)))
        by_split[split] = {name: proportion(outcomes) for name, outcomes in right.items()}
        quality[split] = {"psnr": average(whole), "psnr_object": average(inside)}
    headline = {name: proportion(outcomes) for name, outcomes in judged.items() if outcomes}
    return {
        "judge": {**headline, "by_split": by_split},
        "autoencoder": {**quality.get("held_out", {}), "by_split": quality},
    }


def _adherence(sampling: _Sampling, entries: dict[str, list[Prompted]], seed: int) -> dict:
    """The share of generated clips in which all that the prompt names is right, and each attribute alone."""
    shares, details = {}, {}
    for split, wanted in entries.items():
        seeds = _noise_seeds(len(wanted), seed, world.SPLITS.index(split))
        readings = sampling.readings([entry.prompt for entry in wanted], seeds)
        shares[split] = proportion(r.matches(e.asked) for r, e in zip(readings, wanted, strict=True))
        compared = [r.compare(e.asked) for r, e in zip(readings, wanted, strict=True)]
        names = dict.fromkeys(name for one in compared for name in one)
        details[split] = {
            "well_formed": proportion(not r.malformed for r in readings),
            **{name: proportion(one[name] for one in compared if name in one) for name in names},
        }
    return {**shares, "by_attribute": details}


def _noise_seeds(n: int, seed: int, stream: int) -> list[int]:
    return np.random.default_rng([seed, 31, stream]).integers(2**31, size=n).tolist()


def _diversity_prompt_count(n: int) -> int:
    return max(1, n // SEEDS_PER_PROMPT)


def _diversity(sampling: _Sampling, n: int, seed: int) -> dict:
    """Clips of the same prompts, generated and rendered, both read by the judge; only right ones count."""
    prompts = diversity_prompts(_diversity_prompt_count(n), seed)
    repeated = [prompt for prompt in prompts for _ in range(SEEDS_PER_PROMPT)]
    seeds = _noise_seeds(len(repeated), seed, len(world.SPLITS))
    made = sampling.readings(repeated, seeds)
    real = []
    for prompt, scene_seed in zip(repeated, seeds, strict=True):
        real.append(judge(world.render(world.parse(prompt).complete(scene_seed), *sampling.size)))
        sampling.advance("rendered clips", 1)
    return diversity(_starts(prompts, made), _starts(prompts, real))


def _starts(prompts: list[str], readings: list[Reading]) -> Starts:
    groups = []
    for prompt, group in zip(prompts, _chunks(readings, SEEDS_PER_PROMPT), strict=True):
        asked = world.parse(prompt)
        groups.append([start_of(reading.things[0]) for reading in group if reading.matches(asked)])
    return groups


def _physics_count(n: int) -> int:
    """Clips for each law."""
    return max(1, n // 2)


@torch.no_grad()
def _physics(sampling: _Sampling, n: int, seed: int) -> dict:
    """The share of clips that obey each law, generated and real; the laws are those of `physics`."""
    outcomes = physics.measure(
        sampling.sample, lambda clips: to_float(to_uint8(_round_trip(sampling.sora, clips))),
        _physics_count(n), seed, sampling.size, sampling.batch, "extend" in sampling.sora.config.tasks,
    )  # fmt: skip
    return {law: proportion(held) for law, held in outcomes.items()}


def _reader_of(sora: Sora) -> TinyClip | None:
    """The encoder of clips whose features are compared; None if none ships that can read these latents."""
    try:
        clip = tiny_clip()
    except (FileNotFoundError, CheckpointError):
        return None
    return clip if clip.fits(sora.autoencoder) else None


def _frechet_counts(n: int) -> tuple[int, int]:
    """How many prompts, and how many clips of each: about `n` in all."""
    return max(1, n // FRECHET_SEEDS), min(n, FRECHET_SEEDS)


@torch.no_grad()
def _frechet(sampling: _Sampling, n: int, seed: int) -> dict:
    """Generated clips against real ones of the same prompts, and other real ones through the autoencoder."""
    clip, size = _reader_of(sampling.sora), sampling.size
    if clip is None or n < 2:
        return {}
    count, each = _frechet_counts(n)
    prompts = [prompt for prompt in diversity_prompts(count, seed) for _ in range(each)]
    encoder = sampling.sora.autoencoder
    halves = _noise_seeds(2 * len(prompts), seed, len(world.SPLITS) + len(TASKS) + 1)

    def network(videos: Tensor) -> Tensor:
        return clip.features(encoder.encode(videos.to(encoder.device)).float().cpu())

    def rendered(seeds: list[int], through: bool):
        for some in _chunks(list(zip(prompts, seeds, strict=True)), sampling.batch):
            clips = world.render_batch([world.parse(p).complete(s) for p, s in some], *size)
            yield from _round_trip(sampling.sora, clips) if through else clips
            sampling.advance("rendered clips", len(some))

    def generated(seeds: list[int]):
        for some in _chunks(list(zip(prompts, seeds, strict=True)), sampling.batch):
            yield from sampling.sample(*zip(*some, strict=True))

    first, second = halves[: len(prompts)], halves[len(prompts) :]
    made, back = features_of(network, generated(first)), features_of(network, rendered(first, True))
    return frechet_figures(made, back, features_of(network, rendered(second, False)))


def _seconds_per_clip(sampling: _Sampling, repeats: int = 5) -> dict:
    """One clip at a time, from prompt to 8-bit pixels, once warm."""
    frames, height, width = sampling.size
    options = {"frames": frames, "height": height, "width": width}
    options |= {"steps": sampling.steps, "guidance": sampling.guidance}
    seconds = []
    for seed in range(repeats + 1):
        start = time.perf_counter()
        sampling.sora.generate("a red star bounces", seed=seed, **options)
        seconds.append(time.perf_counter() - start)
    return average(seconds[1:])


# ---- Showing it --------------------------------------------------------------------------------------------


def save_report(report: dict, path: Path | str) -> Path:
    """Writes a report as JSON, whole or not at all."""
    return write_whole(path, json.dumps(report, indent=1, allow_nan=False).encode() + b"\n")


def table(report: dict) -> str:
    """A report as text for people."""
    lines = [
        f"{report['n']} clips a split, seed {report['seed']}, {report['dtype']}; {report['steps']} Euler "
        f"steps, guidance {report['guidance']:g}: {report['network_evaluations']} network evaluations a clip",
        "",
        "All that the prompt names is right (95 % interval), beside what the judge reads right in real clips",
        f"  {'':12} {'generated':>22} {'rendered':>9} {'through the autoencoder':>24}",
    ]
    for split, own in report["judge"]["by_split"].items():
        lines.append(
            f"  {split:12} {_percent(report['adherence'][split], True):>22} {_percent(own['clean']):>9} "
            f"{_percent(own['autoencoder']):>24}"
        )
    lines += ["", "Each attribute alone, in generated clips"]
    for split, attributes in report["adherence"]["by_attribute"].items():
        told = (f"{name.replace('_', ' ')} {_percent(figure)}" for name, figure in attributes.items())
        lines.append(f"  {split:12} {', '.join(told)}")
    lines += _task_lines(report.get("tasks", {}))
    lines += ["", *_summary(report)]
    return "\n".join(lines)


def _task_lines(tasks: dict[str, dict]) -> list[str]:
    """One line a task: what it got right, and how well it knows what it was given."""
    if not tasks:
        return []
    lines = ["", "Tasks that start from pixels; own output at given pixels, before they are put back"]
    for task, found in tasks.items():
        told = []
        for name in ("adherence", "continued"):
            told += [f"{name} {_percent(found[name], True)}"] if name in found else []
        if "given_psnr" in found:
            told.append(
                f"given {found['given_psnr']['value']:.1f} dB (autoencoder "
                f"{found['given_psnr_autoencoder']['value']:.1f})"
            )
            told.append(f"seam {found['seam_ratio']['value']:.2f} x a real one")
        if "joint_error" in found:
            told.append(f"joint {found['joint_error']['value']:.1f} px")
        lines.append(f"  {task:16} {', '.join(told)}")
    return lines


def _summary(report: dict) -> list[str]:
    lines = []
    if "clean" in report["judge"]:
        clean, back = report["judge"]["clean"], report["judge"]["autoencoder"]
        lines.append(
            f"Judge, all attributes of a core scene: rendered {_percent(clean, True)}, "
            f"through the autoencoder {_percent(back, True)}"
        )
    for split, quality in report["autoencoder"]["by_split"].items():
        lines.append(
            f"Autoencoder, {split}: {quality['psnr']['value']:.1f} dB, inside object boxes "
            f"{quality['psnr_object']['value']:.1f} dB"
        )
    for law, figure in report.get("physics", {}).items():
        if not law.endswith("_real"):
            real = report["physics"][f"{law}_real"]
            lines.append(
                f"Physics, {law.replace('_', ' ')}: {_percent(figure, True)}; real clips {_percent(real)}"
            )
    if found := report.get("diversity"):
        present = (name for name in QUANTITIES if name in found)
        parts = (f"{name.replace('_', ' ')} {found[name]['value']:.2f}" for name in present)
        lines += [
            f"Diversity: {found['ratio']['value']:.2f} of the spread of real clips ({', '.join(parts)})",
            f"Two clips of one prompt start differently in {_percent(found['distinct'])} of pairs "
            f"(real: {_percent(found['distinct_real'])})",
        ]
    if found := report.get("frechet"):
        lines.append(
            f"Frechet distance to real clips: {found['model']['value']:.3g}, "
            f"{found['ratio']['value']:.1f} times that of other real clips through the autoencoder "
            f"({found['floor']['value']:.3g})"
        )
    lines.append(f"One clip takes {report['seconds_per_clip']['value']:.2f} s, warm")
    return lines


def _percent(figure: dict, interval: bool = False) -> str:
    text = f"{100 * figure['value']:.1f} %"
    if interval and figure["ci95"]:
        text += " ({:.1f} to {:.1f})".format(*(100 * end for end in figure["ci95"]))
    return text
