"""How good is a checkpoint? Every figure with its sample size, its uncertainty, and what it could be at best.

Clips are generated for prompts that name everything, and the judge reads from pixels alone whether all that
was asked for is there. The judge errs too, so its own accuracy, on rendered clips and on rendered clips that
have been through the autoencoder, stands beside each result: no model can be seen to do better than that.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sora_edu import physics
from sora_edu.clip import TinyClip, tiny_clip
from sora_edu.data import world
from sora_edu.data.judge import Reading, judge
from sora_edu.data.world import Prompted
from sora_edu.files import write_whole
from sora_edu.measures import (
    QUANTITIES,
    Starts,
    as_figure,
    average,
    beside_seams,
    box_mask,
    diversity,
    features_of,
    frechet_figures,
    joint_error,
    proportion,
    psnr,
    seam,
    start_of,
)
from sora_edu.precision import working_dtype
from sora_edu.sora import EDIT_STRENGTH, Sora, to_float, to_uint8
from sora_edu.tasks import FROM_TEXT, TASKS, UNTRAINED, put_back, task_mask
from sora_edu.weights import CheckpointError

Advance = Callable[[str, int], None]

CORE = ("seen", "held_out")
SEEDS_PER_PROMPT = 8  # for diversity
FRECHET_SEEDS = 16  # clips of one prompt for the Frechet distance, which must see that they are not all one


# ---- Diversity ---------------------------------------------------------------------------------------------


def diversity_prompts(n: int, seed: int) -> list[str]:
    """`n` prompts that name shape, colour and motion, each motion in turn, and leave the rest open."""
    rng = np.random.default_rng([seed, 29])
    prompts = []
    while len(prompts) < n:
        scene = world.sample_scene(rng, "core")
        if scene.things[0].motion == world.MOTIONS[len(prompts) % len(world.MOTIONS)]:
            prompts.append(world.caption(scene, seed=scene.seed, naming={"shape", "colour", "motion"}))
    return prompts


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
        `seam_ratio` is the change from given to made pixels against that of the real clips, if they change at
        all. `joint_error` is in pixels; `continued` asks for all attributes and at most `JOINT` of it.
        """
        figures = {"given_psnr": average(self.own), "given_psnr_autoencoder": average(self.known)}
        if real := sum(self.real_seams):  # where nothing moves there is no change to compare with
            figures["seam_ratio"] = as_figure(sum(self.made_seams) / real, len(self.made_seams), None)
        if self.right:
            figures["adherence"] = proportion(self.right)
        if self.beside and self.right:
            read = [error for error in self.errors if error is not None]
            figures |= {"joint_error": average(read)} if read else {}
            near = [error is not None and error <= JOINT for error in self.errors]
            figures["continued"] = proportion(a and b for a, b in zip(self.right, near, strict=True))
        return figures


# ---- The evaluation ----------------------------------------------------------------------------------------


def _chunks(items: Sequence, size: int):
    return (items[i : i + size] for i in range(0, len(items), size))


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
        if "seam_ratio" in found:
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
