"""What fused attention, bf16, torch.compile and checkpointing are worth on this machine, each alone.

    python benchmarks/training_switches.py                         the model of chapter 13
    python benchmarks/training_switches.py --size S --frames 17    a larger one, on a GPU if there is one

All of them take turns in one run; the spread is over the rounds. Run it with nothing else running.
"""

import argparse
import platform

import torch

from sora_edu.precision import best_device
from sora_edu.scale import CELL, VIDEO_SIZES, clip_grid
from sora_edu.train.switches import HEADER, LATENT, SMALL, as_rows, measure


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--size", choices=VIDEO_SIZES, help="a size of sora_edu.scale; without it, a small one"
    )
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--side", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    config, latent, device = SMALL, LATENT, torch.device("cpu")
    if options.size:
        clip_grid(options.frames, options.side, options.side)  # refuses what does not come out even
        config, device = VIDEO_SIZES[options.size], best_device()
        latent = (1 + (options.frames - 1) // CELL[0], *(options.side // cell for cell in CELL[1:]))
    for row in (HEADER, *as_rows(measure(options.rounds, config, latent, device=device))):
        print("  ".join(f"{cell:<22}" for cell in row).rstrip())
    threads = torch.get_num_threads()
    print(f"{device.type}, {platform.machine()}, {threads} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
