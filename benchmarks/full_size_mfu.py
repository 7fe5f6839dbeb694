"""Model FLOPs utilisation (MFU) of a training step of `train full-size`, and where the other time goes.

    python benchmarks/full_size_mfu.py          the full-size model on a GPU; in small on a processor
    python benchmarks/full_size_mfu.py --config XL --frames 17 --height 256 --width 256

A step is the engine's own, as it trains: clips and noise drawn, forward, backward, clipped gradients, AdamW,
average; in bf16 where the machine has it, with compiled blocks on a GPU. Batches are doubled until the memory
is full, with and without checkpointing, and the best one is profiled. FLOPs are those that the model needs
by the closed form, three forward passes, whatever is computed again; the peak is the maker's for dense bf16.
On a processor the peak is the best matrix product measured in the same run: the result is no GPU figure.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from sora_edu.data.latents import LatentFolder, write_latents
from sora_edu.precision import working_dtype
from sora_edu.scale import CELL, CHIPS, Chip, clip_tokens, training_flops, utilisation
from sora_edu.train.distributed import Ranks, ShardedRun, joined
from sora_edu.train.full_size import CONFIGS, make_loss
from sora_edu.train.loop import LoopConfig
from sora_edu.video_dit import VideoDiT, video_dit_macs

CLIPS = 16
"""In the folder that batches are drawn from."""

KINDS = {
    "matrix products": ("mm", "gemm", "linear", "cutlass", "nvjet", "xmma"),
    "attention": ("attention", "flash", "fmha", "cudnn"),
    "optimiser and average": ("adam", "lerp", "foreach"),
    "communication": ("nccl", "all_gather", "reduce_scatter", "c10d"),
    "compiled point by point": ("triton", "graph_"),
}
"""Words in the names of kernels that tell their kind; all others are "the rest"."""


def chip_of(device: torch.device) -> tuple[str, Chip]:
    """The device's name, and what is known of it; for a processor, what is measured now."""
    if device.type == "cpu":
        return "the best product here", Chip(_best_rate(working_dtype(device)), 0, "measured in this run")
    name = torch.cuda.get_device_name(device)
    known = next((chip for key, chip in CHIPS.items() if key in name), None)
    if known is None:
        raise SystemExit(f"the peak of {name} is not in sora_edu.scale.CHIPS; add it from the maker's sheet")
    return name, known


def _best_rate(dtype: torch.dtype, side: int = 1024) -> float:
    x, seconds = torch.randn(side, side).to(dtype), []
    for _ in range(5):
        start = time.perf_counter()
        x @ x
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def write_clips(folder: Path, config, size: tuple[int, int, int]) -> LatentFolder:
    """Latents of noise."""
    latent = (1 + (size[0] - 1) // CELL[0], size[1] // CELL[1], size[2] // CELL[2])
    latents, text = torch.randn(CLIPS, config.channels, *latent), torch.randn(CLIPS, 1, config.text_width)
    write_latents(folder / "0.safetensors", latents, text, torch.ones(CLIPS, 1, dtype=torch.bool))
    return LatentFolder(folder)


class Bench:
    """One model on this device, whose steps are timed at several batches."""

    def __init__(
        self, config, data: LatentFolder, folder: Path, ranks: Ranks, checkpointing: bool, compiled: bool
    ):
        torch.manual_seed(0)
        with ranks.device:
            model = VideoDiT(config)
        self.data, self.device = data, ranks.device
        loop = LoopConfig(steps=1_000_000, batch=1)
        self.run = ShardedRun(model, loop, folder, ranks, checkpointing=checkpointing, compiled=compiled)

    def step(self, loss_at) -> float:
        """Seconds of a step, to the end."""
        start = time.perf_counter()
        self.run._one_step(loss_at)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def loss(self, batch: int):
        """The loss of batches of so many clips."""
        self.run.config, self.run.each = replace(self.run.config, batch=batch), batch
        return make_loss(self.run.model, self.data, self.run.config, self.device)

    def seconds(self, batch: int, steps: int) -> float | None:
        """Median of a step after two to warm up; None if the memory does not hold the batch."""
        loss_at = self.loss(batch)
        try:
            taken = [self.step(loss_at) for _ in range(steps + 2)]
        except torch.OutOfMemoryError:
            self.run.optimisers[0].zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            return None
        return statistics.median(taken[2:])

    def shares(self, batch: int) -> dict[str, float]:
        """Share of a step's time by kind of kernel, and how long none ran."""
        loss_at, on_gpu = self.loss(batch), self.device.type == "cuda"
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
        with profile(activities=activities) as found:
            whole = self.step(loss_at)
        times: dict[str, float] = defaultdict(float)
        for event in found.key_averages():
            spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            if not on_gpu or event.device_type == torch.autograd.DeviceType.CUDA:
                times[_kind(event.key)] += spent / 1e6 / whole
        times["nothing ran"] = max(0.0, 1 - sum(times.values()))
        return dict(sorted(times.items(), key=lambda item: -item[1]))


def _kind(name: str) -> str:
    lower = name.lower()
    return next((kind for kind, words in KINDS.items() if any(word in lower for word in words)), "the rest")


def main() -> None:
    """Searches the best batch, and prints MFU and the profile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=CONFIGS, help="default: full on a GPU, toy on a processor")
    for name in ("frames", "height", "width"):
        parser.add_argument(
            f"--{name}", type=int, help="default: 49x480x720 on a GPU, 17x64x64 on a processor"
        )
    parser.add_argument("--most", type=int, default=64, help="largest batch to try")
    parser.add_argument("--steps", type=int, default=5, help="steps to time, after two to warm up")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    with joined() as ranks, tempfile.TemporaryDirectory() as folder:
        measure(options, ranks, Path(folder))


def measure(options: argparse.Namespace, ranks: Ranks, folder: Path) -> None:
    """The search, its table, and the profile of the best."""
    on_gpu = ranks.device.type == "cuda"
    model, usual = ("full", (49, 480, 720)) if on_gpu else ("toy", (17, 64, 64))
    model = options.config or model
    names = ("frames", "height", "width")
    size = tuple(getattr(options, name) or side for name, side in zip(names, usual, strict=True))
    config, (name, chip) = CONFIGS[model], chip_of(ranks.device)
    tokens = clip_tokens(*size, config.patch)
    flops = training_flops(video_dit_macs(config, tokens), 1, 1)
    print(f"{model}: {tokens} tokens a clip, {flops:.3e} FLOPs for each")
    print(f"{working_dtype(ranks.device)}, peak {chip.peak:.4g} FLOP/s: {name}, {chip.source}")
    data, best, profiled = write_clips(folder, config, size), (0.0, False, 0), {}
    for checkpointing in (False, True):
        bench = Bench(config, data, folder, ranks, checkpointing, on_gpu and not options.no_compile)
        batch = 1
        while batch <= options.most and (seconds := bench.seconds(batch, options.steps)) is not None:
            mfu = utilisation(batch * flops, seconds, chip)
            how = f"batch {batch:3}, checkpointing {checkpointing!s:5}"
            print(f"{how}: {seconds:7.3f} s a step, MFU {mfu:.1%}", flush=True)
            best = max(best, (mfu, checkpointing, batch))
            batch *= 2
        if best[1] == checkpointing and best[2]:
            profiled = bench.shares(best[2])
        del bench
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
    mfu, checkpointing, batch = best
    print(f"best: MFU {mfu:.1%} at batch {batch}, checkpointing {checkpointing}; its time by kind:")
    for kind, share in profiled.items():
        print(f"  {share:6.1%}  {kind}")
    if not on_gpu:
        print("measured on a processor, on a model in small: this is no GPU figure")


if __name__ == "__main__":
    main()
