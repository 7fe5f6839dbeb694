"""How far the estimate of a training's memory is from what a real run takes, in a fresh process each.

    python benchmarks/training_memory.py

Each run makes three steps of `train full-size` in float32, with a checkpoint after each, on clips of noise.
What is measured is the rise of the process's peak resident memory over what it was after the imports. The
estimate is `sora_edu.scale.sharded_bytes`, the sum of all tensors, which knows nothing of these runs, and
what torch takes for itself once it computes (libraries, buffers, threads): that is measured first, on a
model of next to nothing. glibc's allocator keeps freed blocks for later, in pieces that the next ones may
not fit; with `--tidy` it is told to give them back, which shows how much of the difference is its doing.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from sora_edu.data.latents import LatentFolder, write_latents
from sora_edu.scale import CELL, VIDEO_SIZES, clip_tokens, sharded_bytes
from sora_edu.train.distributed import ShardedRun, joined
from sora_edu.train.full_size import make_loss
from sora_edu.train.loop import LoopConfig
from sora_edu.video_dit import VideoDiT, VideoDiTConfig

NOTHING = "next to nothing"
RUNS = {
    NOTHING: (
        VideoDiTConfig(width=24, depth=1, heads=2, text_width=8, condition_width=8), (1, 32, 32), 1, False
    ),
    "S, 4 clips of 5 frames of 128": (VIDEO_SIZES["S"], (5, 128, 128), 4, False),
    "tiny, 12 clips of 17 frames of 128": (VideoDiTConfig(), (17, 128, 128), 12, False),
    "S, a clip of 17 frames of 256, checkpointing": (VIDEO_SIZES["S"], (17, 256, 256), 1, True),
}  # fmt: skip
"""By name: the model, frames and pixels of the clips, how many in a step, and whether blocks run again."""


def estimate(config: VideoDiTConfig, clip: tuple[int, int, int], batch: int, checkpointing: bool) -> float:
    """Bytes of all tensors."""
    return sharded_bytes(
        config,
        clip_tokens(*clip, config.patch),
        batch,
        checkpointing=checkpointing,
        bytes_each=4,
        copied=True,
    )


def peak_bytes() -> int:
    """The largest resident memory that this process has had. Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def run(config: VideoDiTConfig, clip: tuple[int, int, int], batch: int, checkpointing: bool) -> int:
    """Trains three steps and returns the rise of the peak."""
    before = peak_bytes()
    frames, height, width = clip
    latent = (1 + (frames - 1) // CELL[0], height // CELL[1], width // CELL[2])
    loop = LoopConfig(steps=3, batch=batch, save_every=1)
    with tempfile.TemporaryDirectory() as folder, joined() as ranks:
        latents, text = torch.randn(batch, config.channels, *latent), torch.randn(batch, 1, config.text_width)
        write_latents(Path(folder, "0.safetensors"), latents, text, torch.ones(batch, 1, dtype=torch.bool))
        model = VideoDiT(config)
        trained = ShardedRun(model, loop, Path(folder), ranks, checkpointing=checkpointing)
        trained.train(make_loss(model, LatentFolder(folder), loop, ranks.device))
    return peak_bytes() - before


def measured(name: str, tidy: bool) -> int:
    """The rise of a run in a process of its own."""
    environment = os.environ | {"SORA_EDU_DTYPE": "float32"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": "65536"} if tidy else {}
    command = [sys.executable, __file__, "--run", name]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return int(out.split()[-1])


def main() -> None:
    """Measures all runs, or prints the rise of the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", choices=RUNS, help="measure this one, in this process")
    parser.add_argument("--tidy", action="store_true", help="glibc gives freed memory back at once")
    options = parser.parse_args()
    if options.run:
        print(run(*RUNS[options.run]))
        return
    own = measured(NOTHING, options.tidy) - estimate(*RUNS[NOTHING])
    print(f"torch itself: {own / 1e6:.0f} MB", flush=True)
    for name, parts in RUNS.items():
        if name != NOTHING:
            found, expected = measured(name, options.tidy), estimate(*parts) + own
            print(
                f"{name}: measured {found / 1e9:.2f} GB, estimated {expected / 1e9:.2f} GB, "
                f"off by {expected / found - 1:+.1%}", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
