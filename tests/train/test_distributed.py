"""Training on several processes: real ones, which talk through gloo, are killed, and must come to the same.

Starting Python and importing torch takes seconds, so the processes are forked from one that has done both.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from sora_edu.__main__ import main
from sora_edu.data.latents import LatentFolder, write_latents
from sora_edu.train import full_size
from sora_edu.train.distributed import ShardedRun, joined, shares, whole_checkpoints
from sora_edu.train.full_size import make_loss
from sora_edu.train.loop import LoopConfig, Run, TrainingStopped
from sora_edu.video_dit import VideoDiT, VideoDiTConfig

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])

LITTLE = VideoDiTConfig(channels=4, width=24, depth=2, heads=2, text_width=12, condition_width=20)
LOOP = LoopConfig(steps=8, batch=4, lr=1e-2, warmup=2, ema=0.9, weight_decay=0.01, log_every=1, save_every=3)
ROOT = Path(__file__).resolve().parents[2]


# --- processes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    result: object
    error: str


def launch(size: int, job, *arguments, folder: Path, timeout: float = 120, **environment) -> list[Ended]:
    """Runs a job on so many processes, told who they are as `torchrun` tells them; one is told nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    started = []
    for rank in range(size):
        told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        told = environment | (told if size > 1 else {})
        paths = [folder / f"{rank}.{what}" for what in ("result", "error")]
        started.append((FORKS.Process(target=_child, args=(job, arguments, told, *paths)), *paths))
    for process, *paths in started:
        for path in paths:
            path.unlink(missing_ok=True)
        process.start()
    ends, deadline = [], time.monotonic() + timeout
    for process, result, error in started:
        process.join(max(0.1, deadline - time.monotonic()))
        hung = process.is_alive()
        if hung:
            process.kill()
            process.join()
        assert not hung, f"a process hangs: {error.read_text()}"
        found = torch.load(result) if result.exists() else None
        ends.append(Ended(process.exitcode, found, error.read_text()))
    return ends


def _child(job, arguments, environment, result: Path, error: Path) -> None:
    os.environ.update({"SORA_EDU_DTYPE": "float32"} | {name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    with error.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    found = job(*arguments)
    torch.save(found, result)


def done(ends: list[Ended]):
    """What the first process found, when all ended well."""
    for end in ends:
        assert end.code == 0, end.error
    return ends[0].result


# --- jobs ------------------------------------------------------------------------------------------------


def make_model(config: VideoDiTConfig = LITTLE) -> VideoDiT:
    """A model that is not silent, the same on all processes."""
    torch.manual_seed(0)
    model = VideoDiT(config)
    for weight in model.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    return model


def whole(run: ShardedRun) -> dict[str, torch.Tensor]:
    """Everything that the next step depends on, put together, by name."""
    found = {}
    for kind, tensors in run._tensors().items():
        for name, value in tensors.items():
            for part, tensor in value.items() if isinstance(value, dict) else [("", value)]:
                full = getattr(tensor, "full_tensor", lambda tensor=tensor: tensor)()
                found[f"{kind} {name} {part}"] = full.detach().clone()
    return found


def training(data: Path, out: Path, loop: LoopConfig = LOOP, until: int | None = None, at=None, **how) -> dict:
    """Trains, or goes on, and gives the losses and the state; `at(run, step)` is called in every step."""
    with joined() as ranks:
        run = ShardedRun(make_model(), loop, out, ranks, **how)
        run.resume()
        resumed, loss = run.step, make_loss(run.model, LatentFolder(data), loop, ranks.device)

        def loss_at(step: int, places: range):
            if at is not None:
                at(run, step)
            if step == until:
                raise KeyboardInterrupt
            return loss(step, places)

        try:
            run.train(loss_at)
        except KeyboardInterrupt:
            if until is None:
                raise
        return {"resumed": resumed, "losses": [row[2] for row in run.curve], "state": whole(run)}


def looking(out: Path, loop: LoopConfig = LOOP) -> dict:
    """What a run on these processes finds in a checkpoint."""
    with joined() as ranks:
        run = ShardedRun(make_model(), loop, out, ranks)
        assert run.resume()
        return {"step": run.step, "state": whole(run)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Latents of three sizes, the texts of different lengths."""
    folder = tmp_path_factory.mktemp("latents")
    generator = torch.Generator().manual_seed(0)
    for number, size in enumerate([(2, 4, 4), (1, 4, 6), (3, 2, 4)]):
        latents = 0.5 + 0.3 * torch.randn(5, 4, *size, generator=generator)
        text = torch.randn(5, 2 + number, 12, generator=generator)
        write_latents(folder / f"{number}.safetensors", latents, text, torch.ones(text.shape[:2], dtype=bool))
    return folder


# --- as many processes as you like -----------------------------------------------------------------------


def plainly(data: Path, out: Path, loop: LoopConfig) -> list[float]:
    """The losses of the loop that knows one process and no shares: the whole batch at once."""
    run = Run(make_model(), loop, out)
    loss = make_loss(run.model, LatentFolder(data), loop, run.device)
    run.train(lambda generator: loss(run.step, range(loop.batch)))
    return [row[2] for row in run.curve]


@pytest.mark.parametrize(
    ("size", "how"),
    [(1, {}), (2, {}), (2, {"accumulate": 2, "checkpointing": True}), (4, {})],
    ids=["one", "two", "two in two passes with checkpointing", "four"],
)
def test_shared_steps_have_the_losses_of_the_plain_loop(tmp_path, data, monkeypatch, size, how):
    monkeypatch.setenv("SORA_EDU_DTYPE", "float32")
    loop = replace(LOOP, steps=20)
    expected = plainly(data, tmp_path / "plain", loop)
    found = done(launch(size, partial(training, **how), data, tmp_path / "run", loop, folder=tmp_path / "log"))
    assert len(expected) == 20 and expected[-1] < 0.7 * expected[0]
    torch.testing.assert_close(found["losses"], expected, rtol=0, atol=1e-5)
