"""DiT-S/2, forward and backward in bf16, beside diffusers' port: seconds, ratio, share of the best rate.

    python benchmarks/dit_bf16.py                   on a GPU if there is one, else on the processor
    python benchmarks/dit_bf16.py --dtype float32   the same in float32

Both models have random weights of the same shapes, in the format that is named, and take turns in one run,
so that whatever else the machine does falls on both alike; the spread is over the rounds. The best rate of a
matrix product in the same format is measured between them, again and again. A processor without units for
bf16 emulates it, and then both models are slower in it than in float32: the script says so.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import DiTTransformer2DModel
from torch import nn

from sora_edu.dit import DIT_SIZES, DiT, dit_macs
from sora_edu.precision import DTYPES, best_device
from sora_edu.scale import training_flops

CONFIG = DIT_SIZES["S/2"]
SIDES = (512, 1024, 2048, 4096)
"""Sides of the square matrices whose product is timed; on a processor the first two."""


def diffusers_model() -> nn.Module:
    """Their model of the same sizes."""
    return DiTTransformer2DModel(
        num_attention_heads=CONFIG.heads, attention_head_dim=CONFIG.width // CONFIG.heads,
        in_channels=CONFIG.channels, out_channels=CONFIG.out_channels, num_layers=CONFIG.depth,
        sample_size=CONFIG.size[0], patch_size=CONFIG.patch, num_embeds_ada_norm=CONFIG.classes,
        norm_eps=1e-6,
    )  # fmt: skip


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that it takes, to the end."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def best_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOPs in a second of the quickest product of two matrices, each size tried three times."""
    rates = []
    for side in SIDES if device.type == "cuda" else SIDES[:2]:
        x = torch.randn(side, side, device=device).to(dtype)
        rates += [2 * side**3 / timed(lambda x=x: x @ x, device) for _ in range(3)]
    return max(rates)


def steps(batch: int, dtype: torch.dtype, device: torch.device) -> dict[str, Callable[[], None]]:
    """A step of each model: forward, a loss of squares, backward."""
    torch.manual_seed(0)
    x = torch.randn(batch, CONFIG.channels, *CONFIG.size, device=device).to(dtype)
    y = torch.randint(CONFIG.classes, (batch,), device=device)
    t = torch.linspace(0.1, 0.9, batch, device=device)
    ours, theirs = (model.to(device, dtype).eval() for model in (DiT(CONFIG), diffusers_model()))
    for weight in (*ours.parameters(), *theirs.parameters()):
        nn.init.normal_(weight, std=0.02)  # a fresh one is silent, and nothing would flow back through it

    def step(model: nn.Module, forward: Callable[[], torch.Tensor]) -> None:
        model.zero_grad(set_to_none=True)
        forward().float().square().mean().backward()

    return {
        "sora_edu": lambda: step(ours, lambda: ours(x, t, y)),
        "diffusers": lambda: step(theirs, lambda: theirs(x, (1000 * t).long(), y).sample),
    }


def main() -> None:
    """Prints seconds, rates and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1, help="pictures of a step")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    options = parser.parse_args()
    device, dtype = best_device(), DTYPES[options.dtype]
    flops = training_flops(dit_macs(CONFIG), options.batch, 1)
    both = steps(options.batch, dtype, device)
    for work in both.values():
        work()  # the first one also sets up
    seconds, rates = {name: [] for name in both}, []
    for number in range(options.rounds):
        order = list(both) if number % 2 == 0 else list(reversed(both))
        for name in order:
            seconds[name].append(timed(both[name], device))
        rates.append(best_rate(dtype, device))
    best, plain = max(rates), best_rate(torch.float32, device)
    threads = torch.get_num_threads()
    print(f"{device.type}, {platform.machine()}, {threads} threads, torch {torch.__version__}")
    print(f"best product in {options.dtype}: {best / 1e9:.1f} GFLOP/s; in float32: {plain / 1e9:.1f}")
    if best < plain:
        print(f"this machine has no units for {options.dtype}: these are no figures of one that has")
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(
            f"{name:<10} {middle:8.3f} s a step of {options.batch} ({min(taken):.3f} to {max(taken):.3f}), "
            f"{flops / middle / 1e9:.1f} GFLOP/s, {flops / middle / best:.0%} of the best product"
        )
    ratios = [a / b for a, b in zip(seconds["sora_edu"], seconds["diffusers"], strict=True)]
    print(
        f"sora_edu / diffusers: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) "
        f"over {options.rounds} rounds; below 1 is faster"
    )


if __name__ == "__main__":
    main()
