"""The recipe `full-size`: a video DiT of any size on cached latents, on as many processes as there are.

    python -m sora_edu train full-size --config toy                         one process, the toy world
    torchrun --nproc-per-node 8 -m sora_edu train full-size --data FOLDER   eight GPUs, real video

A step: the clips of one bucket (`sora_edu.data.buckets`), a time and noise for each, and the squared error of
the velocity. All of it follows from (seed, step) and a clip's place in the batch. Larger clips spend more
steps near noise, for there are more cells to average over (Esser et al. 2024, section 5.3.2).
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sora_edu.data.buckets import Bucket, BucketBatches
from sora_edu.data.latents import LatentFolder
from sora_edu.diffusion import add_noise, logit_normal_times, shift_times, velocity
from sora_edu.files import write_whole
from sora_edu.precision import check_compiler, working_dtype
from sora_edu.scale import VIDEO_SIZES, clip_tokens, sharded_bytes
from sora_edu.train.distributed import Ranks, ShardedRun, joined, shares
from sora_edu.train.encoding import ENCODERS, as_latents, open_clips
from sora_edu.train.loop import LoopConfig, step_generator
from sora_edu.train.recipes import PROMPT_DROPOUT
from sora_edu.video_dit import VideoDiT, VideoDiTConfig
from sora_edu.weights import CheckpointError, load_weights, save_tensors

CONFIGS = {
    "toy": VideoDiTConfig(width=64, depth=2, heads=4, condition_width=64),
    "tiny": VideoDiTConfig(),
} | VIDEO_SIZES
"""Models by name, the smallest first: two for a laptop, and those of `sora_edu.scale`."""

LAPTOP = LoopConfig(steps=200, batch=8, lr=1e-3, warmup=20, decay_from=1.0, ema=0.99, save_every=50)
CLUSTER = LoopConfig(
    steps=100_000, batch=256, lr=1e-4, warmup=1000, decay_from=1.0, ema=0.9999, save_every=500
)
"""How the two for a laptop are trained, and the others: as DiT was, with a warm-up."""

LAPTOP_CLIPS, CLUSTER_CLIPS = (17, 64), (49, 480)
"""Limits of their clips of videos: frames, and the side in pixels of the largest square frame."""

TOY_CLIPS = 96
"""Clips of the toy world where no data are given."""

BASE_TOKENS = 256
"""Tokens of a clip up to which times are not shifted."""


# --- a step ----------------------------------------------------------------------------------------------


def time_shift(tokens: int) -> float:
    """How far times move towards noise for a clip of so many tokens: by sqrt(tokens / 256), never back."""
    return max(1.0, math.sqrt(tokens / BASE_TOKENS))


def make_loss(
    model: nn.Module, data: LatentFolder, loop: LoopConfig, device: torch.device
) -> Callable[[int, range], Float[Tensor, ""]]:
    """The loss of some places of a step's batch, for `ShardedRun.train`.

    Every place has a generator of its own, so that it meets the same clip, time and noise whichever process
    computes it. A clip whose text is dropped sees zeros in its place.
    """
    batches = BucketBatches(data.buckets, loop.batch, loop.seed)

    def loss_at(step: int, places: range) -> Float[Tensor, ""]:
        chosen = batches.at(step)
        seeds = torch.randint(2**62, (loop.batch,), generator=step_generator(loop.seed, step)).tolist()
        generators = [torch.Generator().manual_seed(seeds[place]) for place in places]
        x0, text, mask = data.batch([chosen[place] for place in places])
        noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in generators])
        t = torch.cat([logit_normal_times(1, generator=g) for g in generators])
        tokens = clip_tokens(*data.buckets[chosen[0]], model.config.patch)
        t = shift_times(t, time_shift(tokens))
        dropped = torch.cat([torch.rand(1, generator=g) < PROMPT_DROPOUT for g in generators])
        text = text.masked_fill(dropped[:, None, None], 0)
        x0, noise, t, text, mask = (part.to(device) for part in (x0, noise, t, text, mask))
        predicted = model(add_noise(x0, noise, t), t, text, mask)
        return (predicted.float() - velocity(x0, noise)).square().mean()

    return loss_at


# --- whether it fits -------------------------------------------------------------------------------------


def free_memory(device: torch.device) -> int | float:
    """Bytes that a process of this machine can still take on a device; infinite where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    meminfo, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if not meminfo.exists():
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
        return pages * 4096 / sharing
    available = 1024 * int(meminfo.read_text().split("MemAvailable:")[1].split()[0])
    allowed = limit.read_text().strip() if limit.exists() else "max"  # of a container
    return (available if allowed == "max" else min(available, int(allowed))) / sharing


@dataclass(frozen=True)
class Way:
    """A way of training: what it takes memory for."""

    config: str
    """Name of the model."""
    batch: int
    """Clips of a step, of all processes together."""
    processes: int
    """That share the batch and the weights."""
    accumulate: int = 1
    """Passes in which each computes its share."""
    checkpointing: bool = False
    """Whether blocks run again in the backward pass."""

    def needed(self, tokens: int, device: torch.device) -> float:
        """Bytes on each device for clips of so many tokens."""
        return sharded_bytes(
            CONFIGS[self.config], tokens, shares(self.batch, self.processes, self.accumulate),
            devices=self.processes, checkpointing=self.checkpointing, copied=device.type == "cpu",
            bytes_each=working_dtype(device).itemsize,
        )  # fmt: skip

    def lighter(self) -> Iterator["Way"]:
        """Ways that take less, the nearest first: more passes, checkpointing too, then smaller models."""
        each = shares(self.batch, self.processes)
        passes = [count for count in range(self.accumulate, each + 1) if each % count == 0]
        for checkpointing in (False, True)[self.checkpointing :]:
            for count in passes:
                yield replace(self, accumulate=count, checkpointing=checkpointing)
        smaller = list(CONFIGS)[: list(CONFIGS).index(self.config)]
        for name in reversed(smaller):
            yield replace(self, config=name, accumulate=passes[-1], checkpointing=True)

    def options(self) -> str:
        """As on the command line."""
        parts = [f"--config {self.config}", f"--accumulate {self.accumulate}" * (self.accumulate > 1)]
        return " ".join(part for part in (*parts, "--checkpointing" * self.checkpointing) if part)


def check_fits(way: Way, buckets: Sequence[Bucket], device: torch.device) -> None:
    """Refuses, before anything is built, a training for which there is no room.

    Raises ValueError with the estimate and the nearest way that fits; and for clips that the model's patches
    do not divide.
    """
    patch = CONFIGS[way.config].patch
    tokens = max(clip_tokens(*bucket, patch) for bucket in set(buckets))
    needed, free = way.needed(tokens, device), free_memory(device)
    if needed <= free:
        return
    fits = (one for one in way.lighter() if one.needed(tokens, device) <= free)
    nearest = next(fits, None)
    would = "nothing does; use smaller or shorter clips, or more processes"
    if nearest is not None:
        would = f"{nearest.options()} would fit, with {nearest.needed(tokens, device) / 1e9:.1f} GB"
    raise ValueError(
        f"config={way.config}: each of {way.processes} processes needs about {needed / 1e9:.1f} GB for "
        f"{shares(way.batch, way.processes, way.accumulate)} clips of {tokens} tokens at a time, and "
        f"{free / 1e9:.1f} are free; {would}"
    )


# --- the recipe ------------------------------------------------------------------------------------------


def train_full_size(
    out: Path,
    *,
    config: str = "full",
    data: Path | None = None,
    steps: int | None = None,
    batch: int | None = None,
    save_every: int | None = None,
    accumulate: int = 1,
    checkpointing: bool = False,
    compiled: bool = False,
    clips: int = TOY_CLIPS,
    frames: int | None = None,
    side: int | None = None,
    encoders: str = "tiny",
) -> None:
    """Trains into a folder, going on where it was; the averaged weights end up in `out`/model.safetensors.

    Args:
        out: the run's folder, which all processes see.
        config: the model, by its name in `CONFIGS`; its text width and channels are those of the data.
        data: a folder of videos, encoded once into `out`/latents, or of latents; None for the toy world.
        steps, batch, save_every: instead of the configuration's; the batch is that of all processes.
        accumulate: passes in which each process computes its share of a batch.
        checkpointing: blocks keep their input alone, and run again in the backward pass.
        compiled: whether torch.compile compiles the blocks.
        clips: how many of the toy world.
        frames, side: limits of a clip of a video: its length, and the side of the largest square frame.
        encoders: what encodes videos: "tiny", whose text encoder knows the toy world's words alone, or
            "released", which is downloaded.

    Raises:
        ValueError: on the first process, for whatever does not fit; the others end with exit code 2.
    """
    with joined() as ranks:
        ranks.together(lambda: _check_names(config, encoders))
        if compiled:
            ranks.together(lambda: check_compiler(ranks.device))
        changes = {"steps": steps, "batch": batch, "save_every": save_every}
        small = config not in VIDEO_SIZES
        loop, limits = (LAPTOP, LAPTOP_CLIPS) if small else (CLUSTER, CLUSTER_CLIPS)
        loop = replace(loop, **{name: value for name, value in changes.items() if value is not None})
        way = Way(config, loop.batch, ranks.size, accumulate, checkpointing)
        longest, square = frames or limits[0], (side or limits[1]) ** 2
        found = ranks.from_first(lambda: open_clips(data, clips, longest, square))
        ranks.together(lambda: check_fits(way, found.buckets, ranks.device))
        latents = as_latents(found, out / "latents", encoders, ranks)
        made = replace(CONFIGS[config], channels=latents.channels, text_width=latents.text_width)
        torch.manual_seed(loop.seed)
        with ranks.device:
            model = VideoDiT(made)
        run = ShardedRun(
            model, loop, out, ranks, settings=_settings(made, latents), accumulate=accumulate,
            checkpointing=checkpointing, compiled=compiled,
        )  # fmt: skip
        run.resume()
        average = run.train(make_loss(model, latents, loop, ranks.device), f"full-size, {config}")
        _write_model(average, made, out, ranks)


def _check_names(config: str, encoders: str) -> None:
    for name, value, known in (("config", config, CONFIGS), ("encoders", encoders, ENCODERS)):
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown; use one of: {', '.join(known)}")


def _settings(config: VideoDiTConfig, data: LatentFolder) -> dict:
    """What a checkpoint must agree in: the model's sizes, and which clips there are."""
    names = "".join(f"{path.name} {row} {data.buckets[i]}\n" for i, (path, row) in enumerate(data.places))
    return asdict(config) | {"data": hashlib.sha256(names.encode()).hexdigest()[:12]}


def _write_model(average: dict, config: VideoDiTConfig, out: Path, ranks: Ranks) -> None:
    whole = {name: share.full_tensor() for name, share in average.items()}  # all processes give theirs
    if ranks.rank == 0:
        digest = save_tensors(whole, out / "model.safetensors")
        content = json.dumps({"model": asdict(config), "sha256": digest}, indent=1)
        write_whole(out / "config.json", content.encode())


def load_full_size(out: Path | str) -> VideoDiT:
    """The model that a finished run left in its folder. Raises CheckpointError if there is none."""
    out = Path(out)
    if not (out / "config.json").is_file():
        raise CheckpointError(out, "there is no config.json, which a run writes when it is done")
    kept = json.loads((out / "config.json").read_text())
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in kept["model"].items()}
    model = VideoDiT(VideoDiTConfig(**fields)).eval().requires_grad_(False)
    load_weights(model, out / "model.safetensors", kept["sha256"])
    return model
