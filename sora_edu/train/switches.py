"""Four ways to make a training step quicker or smaller, each switched on alone and measured side by side.

The plain step computes in float32, operation by operation, keeps every activation and writes attention out.
Beside it, the same model with

    fused attention    torch's attention that never holds the weights of all pairs
    bf16               matrix products in bfloat16, weights in float32 (autocast)
    compile            each block compiled by torch.compile
    checkpointing      each block keeps its input alone, and runs again in the backward pass

What each is worth depends on the machine. `python benchmarks/training_switches.py` prints the table.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from sora_edu.precision import CPU, autocast
from sora_edu.scale import saved_bytes
from sora_edu.train.pictures import seeded
from sora_edu.video_dit import VideoDiT, VideoDiTConfig

PLAIN = "plain"
SWITCHES = ("fused attention", "bf16", "compile", "checkpointing")
"""What is switched on, one at a time."""

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]

SMALL = VideoDiTConfig(width=128, depth=4, heads=4, text_width=64, condition_width=128)
"""A model that a laptop trains ten steps of in a second or two."""

LATENT = (5, 16, 16)
"""Latent frames, rows and columns of the clips: 17 frames of 128 pixels, 320 tokens."""


@dataclass(frozen=True)
class Measured:
    """What one way of training took."""

    seconds: tuple[float, ...]
    """Of a step, forward and backward, round by round."""
    kept: int
    """Bytes that the forward pass kept for the backward pass."""
    difference: float
    """How far the gradient is from that of the plain step, as a share of its length."""
    failed: str = ""
    """Why it could not be measured; "" if it could."""

    def times_as_fast(self, plain: "Measured") -> tuple[float, float, float]:
        """Least, median and greatest ratio to the plain step of the same round; above 1 is faster."""
        ratios = [a / b for a, b in zip(plain.seconds, self.seconds, strict=True)]
        return min(ratios), median(ratios), max(ratios)


class _Checkpointed(nn.Module):
    """A block that forgets what it computed, and computes it again when it is asked for gradients."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, tokens: Tensor, condition: Tensor, **beside) -> Tensor:
        return checkpoint(self.block, tokens, condition, use_reentrant=False, **beside)


class Switched:
    """A copy of a model with one switch on."""

    def __init__(self, model: VideoDiT, name: str):
        """`name` is "plain" or one of `SWITCHES`, else ValueError; the model stays as it is."""
        if name != PLAIN and name not in SWITCHES:
            raise ValueError(f"name={name!r} is unknown; use one of: {', '.join((PLAIN, *SWITCHES))}")
        self.model = copy.deepcopy(model)
        self.dtype = torch.bfloat16 if name == "bf16" else torch.float32
        self.backends = FUSED if name == "fused attention" else SDPBackend.MATH
        if name == "compile":
            for block in self.model.blocks:
                block.compile()  # all of them are alike, and share what is compiled
        if name == "checkpointing":
            self.model.blocks = nn.ModuleList(_Checkpointed(block) for block in self.model.blocks)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """What the model says of noisy latents, times and text."""
        with sdpa_kernel(self.backends), autocast(self.dtype, inputs[0].device):
            return self.model(*inputs)

    def gradient(self, inputs: Sequence[Tensor]) -> Tensor:
        """A training step without an optimiser: gradients of all weights in a row, of a loss of squares."""
        self.model.zero_grad()
        loss = self.forward(inputs).float().square().mean()
        with sdpa_kernel(self.backends):  # a block that runs again must take the same attention
            loss.backward()
        return torch.cat([weight.grad.flatten() for weight in self.model.parameters()])


def measure(
    rounds: int = 7,
    config: VideoDiTConfig = SMALL,
    latent: tuple[int, int, int] = LATENT,
    batch: int = 1,
    device: torch.device = CPU,
    names: tuple[str, ...] = SWITCHES,
) -> dict[str, Measured]:
    """Measures the plain step and each switch alone, in turn, round after round, in one run.

    Taking turns makes whatever else the machine does fall on all of them alike. A switch that does not work
    on this machine (torch.compile without a C++ compiler) is reported and does not stop the rest.

    Args:
        rounds: how often each is timed, after a step to warm up.
        config: the model.
        latent: latent frames, rows and columns of the clips.
        batch: clips of a step.
        device: where to run.
        names: the switches to try, some of `SWITCHES`.

    Returns:
        By name, "plain" first.

    Raises:
        ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least one is needed; seven show the spread")
    model = seeded(lambda: VideoDiT(config), 0).to(device)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():  # a fresh model's gates are 0, and most gradients with them
        weight.data += 0.02 * torch.randn(weight.shape, generator=generator).to(device)
    shapes = ((batch, config.channels, *latent), (batch,), (batch, 1, config.text_width))
    inputs = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    inputs[1] = inputs[1].sigmoid()
    ways = {name: Switched(model, name) for name in (PLAIN, *names)}
    kept, gradients, failed = {}, {}, {}
    for name, way in ways.items():
        try:
            kept[name] = saved_bytes(lambda way=way: way.forward(inputs), way.model.parameters())
            gradients[name] = way.gradient(inputs)
        except Exception as error:  # what a missing compiler raises differs from version to version
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    seconds = {name: [] for name in ways if name not in failed}
    for _ in range(rounds):
        for name, taken in seconds.items():
            taken.append(_seconds(ways[name], inputs, device))
    plain, found = gradients[PLAIN], {}
    for name in ways:
        if name in failed:
            found[name] = Measured((), 0, 0.0, failed[name])
        else:
            off = (gradients[name] - plain).norm() / plain.norm()
            found[name] = Measured(tuple(seconds[name]), kept[name], off.item())
    return found


def _seconds(way: Switched, inputs: Sequence[Tensor], device: torch.device) -> float:
    start = time.perf_counter()
    way.gradient(inputs)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def as_rows(measured: Mapping[str, Measured]) -> list[tuple[str, ...]]:
    """A table in text: name, milliseconds with their spread, times as fast, MB kept, difference."""
    rows, plain = [], measured[PLAIN]
    for name, result in measured.items():
        if result.failed:
            rows.append((name, "not on this machine", "", "", result.failed[:60]))
            continue
        low, middle, high = result.times_as_fast(plain)
        times = [1000 * value for value in result.seconds]
        rows.append(
            (
                name,
                f"{median(times):.0f} ({min(times):.0f} to {max(times):.0f})",
                f"{middle:.2f} ({low:.2f} to {high:.2f})",
                f"{result.kept / 1e6:.1f}",
                f"{result.difference:.0e}",
            )
        )
    return rows


HEADER = ("switch", "milliseconds a step", "times as fast", "MB kept", "gradient off by")
"""Names of the columns of `as_rows`."""
