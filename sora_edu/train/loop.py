"""The training loop: every recipe is a loss and a `LoopConfig`, and this runs it.

Nothing is drawn from a global generator. Step k's data and noise come from a generator seeded with
(seed, k), so a run that was stopped and goes on makes bit for bit the steps it would have made.
"""

import copy
import io
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sora_edu.files import write_whole
from sora_edu.precision import autocast, working_dtype

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.csv"
STATE = ("config", "model", "average", "optimisers", "step", "seconds", "curve", "recent", "dtype")


class TrainingStopped(KeyboardInterrupt):
    """Ctrl-C in training, after the checkpoint has been written."""


@dataclass(frozen=True)
class LoopConfig:
    """How to train."""

    steps: int
    """Optimiser steps in all."""
    batch: int = 64
    """Examples of a step, for the recipe to draw."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    muon_lr: float | None = None
    """Peak learning rate of Muon for the hidden matrices; None trains everything with AdamW."""
    warmup: int = 100
    """Steps over which the learning rate rises."""
    decay_from: float = 0.5
    """Share of the steps after which it falls linearly to nothing."""
    weight_decay: float = 0.0
    """Of both optimisers."""
    ema: float = 0.999
    """Decay of the exponential moving average of the weights, which is what ships."""
    clip: float = 1.0
    """Largest gradient norm."""
    seed: int = 0
    """Of data and noise."""
    log_every: int = 10
    """Steps between the points of the curve."""
    save_every: int = 100
    """Steps between checkpoints."""


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Linear warm-up, a plateau, then a linear fall to zero at the last step."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    start = config.decay_from * config.steps
    return warm * min(1.0, (config.steps - step) / max(1.0, config.steps - start))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step's data and noise."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def fixed_memory(model: nn.Module) -> int:
    """Bytes that a training of `model` takes before its first batch: what there is one or more of per weight.

    Weights and their average, gradients, and up to two moments in the optimiser, in float32. What a batch
    leaves behind for the backward pass comes on top.
    """
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    return 4 * (2 * everything + 3 * learned)


def make_optimisers(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything; or Muon for the matrices inside the network and AdamW for its ends and vectors.

    Muon (Jordan et al., 2024) orthogonalises the update of a matrix; embeddings, first and last layers are
    no such maps, so they stay with AdamW.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inside = [p for name, p in named if config.muon_lr and _is_hidden_matrix(name, p)]
    chosen = {id(p) for p in inside}
    rest = [p for _, p in named if id(p) not in chosen]
    optimisers = [torch.optim.AdamW(rest, config.lr, (0.9, 0.95), weight_decay=config.weight_decay)]
    if inside:
        optimisers.append(torch.optim.Muon(inside, config.muon_lr, config.weight_decay))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak_lr"] = group["lr"]
    return optimisers


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    ends = ("stem", "head", "embed", "modulation", "final")
    return parameter.ndim == 2 and min(parameter.shape) >= 16 and not any(end in name for end in ends)


@torch.no_grad()
def move_average(averages: list[Tensor], weights: list[Tensor], step: int, decay: float) -> None:
    """Moves averages towards their weights, faster at the start, when the weights still run."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(averages, weights, 1 - decay)


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Moves the average model towards the model, and copies the buffers."""
    pairs = zip(average.parameters(), model.parameters(), strict=True)
    averages, weights = map(list, zip(*pairs, strict=True))
    move_average(averages, weights, step, decay)
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(current)


@contextmanager
def _interrupts_wait():
    """Holds Ctrl-C back until the step is done, so that a checkpoint is always of a whole step."""
    caught = []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(True))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)


def write_tensors(path: Path, content: object) -> None:
    """`torch.save`, whole or not at all. Raises WriteError where the file cannot be written.

    It goes through memory, because torch's own writer hides from us why a write failed.
    """
    memory = io.BytesIO()
    torch.save(content, memory)
    write_whole(path, memory.getvalue())


def read_tensors(path: Path, names: Sequence[str]) -> dict:
    """What `write_tensors` wrote, a dictionary with these names. Raises ValueError if the file is damaged."""
    content = path.read_bytes()
    try:
        kept = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"{path} is damaged ({type(error).__name__}); delete it to start afresh") from error
    missing = [name for name in names if not isinstance(kept, dict) or name not in kept]
    if missing:
        raise ValueError(f"{path} is of something else (no {', '.join(missing)}); delete it to start afresh")
    return kept


def refuse_other(path: Path, kept: dict, wanted: dict, what: str = "a run with other settings") -> None:
    """Raises ValueError, naming what differs, if a checkpoint was kept with other settings than wanted."""
    changed = [
        f"{name}: {kept.get(name)} there, {wanted.get(name)} here"
        for name in sorted({**kept, **wanted})
        if kept.get(name) != wanted.get(name)
    ]
    if changed:
        raise ValueError(
            f"{path} is of {what} ({'; '.join(changed)}); "
            "resume with the same settings, or train into a new folder with --out"
        )


class Run:
    """One training run in a folder: the model, its average, its optimisers, its curve."""

    quiet = False
    """Whether to leave talking to another process."""

    def __init__(self, model: nn.Module, config: LoopConfig, folder: Path):
        self.model, self.config, self.folder = model, config, Path(folder)
        self.average = self._first_average()
        self.optimisers = make_optimisers(model, config)
        self.step, self.seconds = 0, 0.0
        self.curve: list[tuple[int, float, float]] = []
        self.recent: list[float] = []  # losses since the curve's last point
        self.device = next(model.parameters()).device
        self.dtype = working_dtype(self.device)  # of the products; a run that goes on keeps its own
        self.folder.mkdir(parents=True, exist_ok=True)

    def _first_average(self) -> nn.Module:
        return copy.deepcopy(self.model).requires_grad_(False)

    def resume(self) -> bool:
        """Goes on from the folder's checkpoint, if there is one.

        Raises ValueError if it is of another run, or damaged.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        state = read_tensors(path, STATE)
        refuse_other(path, state["config"], asdict(self.config))
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            message = f"{path} is of another model: {error}; train into a new folder with --out"
            raise ValueError(message) from None
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve, self.recent = [tuple(row) for row in state["curve"]], state["recent"]
        self.dtype = state["dtype"]
        return True

    def save(self) -> None:
        """Writes everything that the next step depends on, and the curve."""
        state = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "recent": self.recent,
            "dtype": self.dtype,
        }
        write_tensors(self.folder / CHECKPOINT, state)
        self._write_curve()

    def _write_curve(self) -> None:
        rows = [f"{step},{seconds:.1f},{loss:.5f}" for step, seconds, loss in self.curve]
        write_whole(self.folder / CURVE, "\n".join(["step,seconds,loss", *rows, ""]).encode())

    def memory(self) -> int | float:
        """Bytes that the run takes here before its first batch."""
        return fixed_memory(self.model)

    def _must_stop(self, interrupted: bool) -> bool:
        return interrupted

    def train(self, loss_at: Callable[..., Tensor], title: str = "training") -> nn.Module:
        """Runs the steps that are left and returns the averaged model.

        `loss_at(generator)` draws a batch and gives its loss. Raises TrainingStopped after Ctrl-C, once the
        checkpoint is safe, and FloatingPointError at the first loss or gradient that is not finite.
        """
        if not self.quiet:
            size = f"{self.memory() / 1e6:.0f} MB"
            tqdm.write(
                f"{title}: weights, average, gradients and optimiser take {size}; a batch comes on top"
            )
        bar = tqdm(
            total=self.config.steps, initial=self.step, desc=title, unit="step", mininterval=2,
            disable=self.quiet,
        )  # fmt: skip
        with _interrupts_wait() as interrupted, bar:
            while self.step < self.config.steps:
                start = time.perf_counter()
                self.recent.append(self._one_step(loss_at))
                self.seconds += time.perf_counter() - start
                bar.update()
                if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                    self.curve.append((self.step, self.seconds, sum(self.recent) / len(self.recent)))
                    bar.set_postfix(loss=f"{self.curve[-1][2]:.4f}")
                    self.recent.clear()
                if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                    self.save()
                if self._must_stop(bool(interrupted)):
                    self.save()
                    raise TrainingStopped(f"stopped at step {self.step}; {self.kept_at} holds everything")
        return self.average

    @property
    def kept_at(self) -> Path:
        """Where the last checkpoint is."""
        return self.folder / CHECKPOINT

    def _set_learning_rates(self) -> None:
        factor = learning_rate_factor(self.step, self.config)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak_lr"] * factor

    def _one_step(self, loss_at) -> float:
        self._set_learning_rates()
        with autocast(self.dtype, self.device):
            loss = loss_at(step_generator(self.config.seed, self.step))
        value = loss.item()
        self._check_finite("loss", value)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self._check_finite("gradient's norm", norm.item())
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        update_ema(self.average, self.model, self.step, self.config.ema)
        return value

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the {what} is {value} at step {self.step}; the last checkpoint in {self.folder} is good: "
                "go on from it with a smaller learning rate"
            )
