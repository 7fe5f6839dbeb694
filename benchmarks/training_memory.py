"""How far the estimate of a training's memory is from what a real run takes, in a fresh process each.

    python benchmarks/training_memory.py

Each run makes two steps of a video DiT in float32 with Adam, gradients kept between the steps. What is
measured is the rise of the process's peak resident memory over what it was after the imports. The estimate
is 16 bytes a weight, what `sora_edu.scale.activation_bytes` says, and as much again as one block keeps, for
the gradients of the block that is on its way back; it knows nothing of these runs. glibc's allocator keeps
freed blocks for later, in pieces that the next ones may not fit; with `--tidy` it is told to give them back.
"""

import argparse
import os
import resource
import subprocess
import sys

import torch

from sora_edu.scale import (
    CELL,
    VIDEO_SIZES,
    activation_bytes,
    block_activations,
    clip_tokens,
    state_bytes,
)
from sora_edu.train.switches import FUSED, Switched
from sora_edu.video_dit import VideoDiT, VideoDiTConfig, video_dit_parameters

RUNS = {
    "S, 17 frames of 256": (VIDEO_SIZES["S"], (17, 256, 256), False),
    "B, 17 frames of 128, checkpointing": (VIDEO_SIZES["B"], (17, 128, 128), True),
    "8 blocks of 512, 17 frames of 256": (
        VideoDiTConfig(width=512, heads=8, condition_width=512),
        (17, 256, 256),
        False,
    ),
}
"""By name: the model, frames and pixels of the clip, and whether blocks are checkpointed."""


def estimate(config: VideoDiTConfig, clip: tuple[int, int, int], checkpointing: bool) -> float:
    """Bytes of states and activations in float32, with fused attention."""
    c, n = config, clip_tokens(*clip)
    kept = activation_bytes(c, n, checkpointing=checkpointing, bytes_each=4)
    going_back = 4 * block_activations(n, c.width, c.heads, c.mlp_ratio, c.qk_norm)
    return state_bytes(video_dit_parameters(c)) + kept + going_back


def peak_bytes() -> int:
    """The largest resident memory that this process has had. Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def run(config: VideoDiTConfig, clip: tuple[int, int, int], checkpointing: bool) -> int:
    """Trains two steps and returns the rise of the peak."""
    before = peak_bytes()
    way = Switched(VideoDiT(config), "checkpointing" if checkpointing else "fused attention")
    way.backends = FUSED
    optimiser = torch.optim.Adam(way.model.parameters())
    frames, height, width = clip
    latent = (1 + (frames - 1) // CELL[0], height // CELL[1], width // CELL[2])
    inputs = torch.randn(1, config.channels, *latent), torch.rand(1), torch.randn(1, 1, config.text_width)
    for _ in range(2):
        optimiser.zero_grad(set_to_none=False)
        way.forward(inputs).square().mean().backward()
        optimiser.step()
    return peak_bytes() - before


def main() -> None:
    """Measures all runs, or prints the rise of the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", choices=RUNS, help="measure this one, in this process")
    parser.add_argument("--tidy", action="store_true", help="glibc gives freed memory back at once")
    options = parser.parse_args()
    if options.run:
        print(run(*RUNS[options.run]))
        return
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "65536"} if options.tidy else {})
    for name, parts in RUNS.items():
        command = [sys.executable, __file__, "--run", name]
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        measured, expected = int(out.stdout), estimate(*parts)
        print(
            f"{name}: measured {measured / 1e9:.2f} GB, estimated {expected / 1e9:.2f} GB, "
            f"off by {expected / measured - 1:+.1%}"
        )


if __name__ == "__main__":
    main()
