"""The training loop on many processes: each holds a share of the weights and computes a share of the batch.

The same program runs alone, on two processes of one laptop, and on the GPUs of many machines:

    python -m sora_edu train full-size --config toy
    torchrun --nproc-per-node 2 -m sora_edu train full-size --config toy
    torchrun --nnodes 8 --nproc-per-node 8 ... -m sora_edu train full-size --data FOLDER

`torchrun` starts the processes and tells each its rank; without it there is a group of one. Weights,
averages, gradients and moments are cut into equal shares (FSDP2, `fully_shard`); a block's weights are put
together just before they are used. What a step computes depends on (seed, step) alone, never on how many
processes share it. A checkpoint is a folder to which every process writes its share while training goes on;
it can be read by another number of processes. A run that is killed, or that `torchrun` starts anew since a
process was lost, goes on from the last whole one. All processes must see the same folders.

Sources: Rajbhandari et al. 2020 (sharding), Zhao et al. 2023 (FSDP), PyTorch's distributed checkpoints.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from sora_edu.files import WriteError, write_whole
from sora_edu.precision import CPU, autocast, working_dtype
from sora_edu.train.loop import LoopConfig, Run, TrainingStopped, move_average, refuse_other

CHECKPOINTS = "checkpoints"
"""Folder of a run in which its checkpoints are, one folder each."""

RECORD = "run.json"
"""File of a checkpoint with all that is no tensor."""

KEPT = 2
"""Whole checkpoints that stay; older ones go."""

Result = TypeVar("Result")


# --- processes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, as one of them sees them."""

    rank: int
    """Which of them this is, from 0 on."""
    size: int
    """How many there are."""
    device: torch.device
    """Where this one computes."""
    mesh: DeviceMesh
    """All of them in a row."""
    writers: dist.ProcessGroup
    """All of them once more, for checkpoints: what these say must not mix with what a step says meanwhile."""

    def together(self, work: Callable[[], Result]) -> Result:
        """Does `work` on every process; if it fails on one, all stop, so that none waits for the others.

        Raises ValueError, OSError or ImportError on the first process, with what went wrong wherever it did;
        the others end silently with exit code 2.
        """
        result = failed = None
        try:
            result = work()
        except (ValueError, OSError, ImportError) as error:
            failed = error
        messages: list[str | None] = [None] * self.size
        dist.all_gather_object(messages, None if failed is None else str(failed))
        bad = next((rank for rank, message in enumerate(messages) if message is not None), None)
        if bad is None:
            return result
        if self.rank:
            raise SystemExit(2)
        raise failed or ValueError(f"process {bad}: {messages[bad]}")

    def from_first(self, work: Callable[[], Result]) -> Result:
        """What `work` gives on the first process, on all of them; errors as in `together`."""
        told = [self.together(lambda: None if self.rank else work())]
        dist.broadcast_object_list(told)
        return told[0]


@contextmanager
def joined() -> Iterator[Ranks]:
    """Joins the processes that `torchrun` started, each with a GPU of its own where there are GPUs.

    Without `torchrun`, a group of one. Raises ValueError for more processes on a machine than GPUs.
    """
    device, backend = _own_device(), "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    store, rank, size = _meeting()
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        mesh = init_device_mesh(device.type, (size,))
        yield Ranks(rank, size, device, mesh, dist.new_group(backend="gloo"))
    except (ValueError, OSError, ImportError) as error:
        error.alone = True  # not `together`: no other process may have met it, so this one must tell
        raise
    finally:
        dist.destroy_process_group()


def _meeting() -> tuple[dist.Store, int, int]:
    """Where the processes leave their addresses for each other, which one this is, and how many there are."""
    if "RANK" not in os.environ:
        return dist.HashStore(), 0, 1
    store, rank, size = next(rendezvous("env://"))
    # When torchrun starts processes anew its store still has the addresses of the dead, who would be called.
    # One machine counts the starts alike for all; on many, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 helps.
    one_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if one_machine else "0"
    return dist.PrefixStore(f"start {start}", store), rank, size


def _own_device() -> torch.device:
    if not torch.cuda.is_available():
        return CPU
    local, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local >= there:
        raise ValueError(f"process {local} of this machine has no GPU: use --nproc-per-node {there}")
    return torch.device("cuda", local)


def shares(batch: int, size: int, accumulate: int = 1) -> int:
    """Examples of one pass on one process, when `size` of them share a batch in `accumulate` passes each.

    Raises ValueError if the batch does not come out even, with the nearest ones that do.
    """
    parts = size * accumulate
    if batch % parts:
        near = [n for n in (batch - batch % parts, batch - batch % parts + parts) if n]
        raise ValueError(
            f"batch={batch} cannot be shared evenly: processes {size} times passes {accumulate} is {parts}; "
            f"batch={' or '.join(map(str, near))} would do"
        )
    return batch // parts


# --- the model in shares ---------------------------------------------------------------------------------


def shard(
    model: nn.Module, ranks: Ranks, dtype: torch.dtype, *, checkpointing: bool = False, compiled: bool = False
) -> nn.Module:
    """Cuts a model's weights into equal shares, in place, and leaves this process its own.

    Each of `model.blocks` is put together for itself, and forgotten again after use. Weights stay in
    float32; with `dtype` bfloat16 they travel and multiply in it, and gradients are added up in float32.

    Args:
        model: on the device of `ranks`, the same on all processes.
        ranks: who shares it.
        dtype: of the products.
        checkpointing: blocks keep their input alone, and run again in the backward pass.
        compiled: blocks are compiled by torch.compile.
    """
    lower = dtype != torch.float32
    # Inputs keep their format: a time in bfloat16 would be wrong in its third digit.
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False) if lower else None
    how = {"mesh": ranks.mesh} | ({"mp_policy": policy} if policy else {})
    for block in model.blocks:
        if compiled:
            block.forward = torch.compile(block.forward)
        if checkpointing:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        fully_shard(block, **how)
    return fully_shard(model, **how)


def _own(tensors: dict[str, Tensor]) -> list[Tensor]:
    """This process's shares of the tensors."""
    return [tensor.to_local() for tensor in tensors.values()]


# --- the run ---------------------------------------------------------------------------------------------


class ShardedRun(Run):
    """One training run of all processes in a folder that all of them see."""

    def __init__(
        self,
        model: nn.Module,
        config: LoopConfig,
        folder: Path,
        ranks: Ranks,
        *,
        settings: dict | None = None,
        accumulate: int = 1,
        checkpointing: bool = False,
        compiled: bool = False,
    ):
        """Cuts `model` into shares; see `shard`.

        Args:
            model: with `blocks`, drawn with the same seed on all processes.
            config: how to train; `config.batch` is that of all processes together.
            folder: of the run.
            ranks: who trains.
            settings: what else a checkpoint must agree in, such as the model's sizes; as JSON can hold it.
            accumulate: passes in which a process computes its share of a batch, to save memory.
            checkpointing, compiled: see `shard`.

        Raises:
            ValueError: a batch that cannot be shared evenly, or Muon, which needs whole matrices.
        """
        if config.muon_lr is not None:
            raise ValueError(
                f"muon_lr={config.muon_lr}: Muon needs whole matrices; use None, for AdamW alone"
            )
        self.each = shares(config.batch, ranks.size, accumulate)
        self.ranks, self.accumulate, self.quiet = ranks, accumulate, ranks.rank > 0
        self.settings = json.loads(json.dumps(settings or {}))
        self.writing: Future | None = None
        self.saved: int | None = None
        shard(model, ranks, working_dtype(ranks.device), checkpointing=checkpointing, compiled=compiled)
        super().__init__(model, config, folder)

    def _first_average(self) -> dict[str, DTensor]:
        return {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    def memory(self) -> int | float:
        """Bytes that the run takes on this process before its first batch."""
        return super().memory() / self.ranks.size

    # --- a step ---

    def _one_step(self, loss_at: Callable[[int, range], Tensor]) -> float:
        """`loss_at(step, places)` is the mean loss of these places of the step's batch."""
        self._set_learning_rates()
        total = torch.zeros((), device=self.device)
        for number in range(self.accumulate):
            start = (number * self.ranks.size + self.ranks.rank) * self.each
            with autocast(self.dtype, self.device):
                loss = loss_at(self.step, range(start, start + self.each)) / self.accumulate
            loss.backward()  # leaves only this process's share of the gradient, summed over the passes
            total += loss.detach()
        dist.all_reduce(total)
        value = total.item() / self.ranks.size
        self._check_finite("loss", value)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self._check_finite("gradient's norm", norm.full_tensor().item())
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        weights = {name: weight.detach() for name, weight in self.model.named_parameters()}
        move_average(_own(self.average), _own(weights), self.step, self.config.ema)
        return value

    def _must_stop(self, interrupted: bool) -> bool:
        """Whether any process was interrupted: all of them stop after the same step."""
        flag = torch.tensor(float(interrupted))
        dist.all_reduce(flag)
        return bool(flag)

    def train(self, loss_at: Callable[[int, range], Tensor], title: str = "training") -> dict[str, DTensor]:
        """Runs the steps that are left and returns the averaged weights by name, in shares.

        `loss_at(step, places)` gives the mean loss of these places of the step's batch: which examples stand
        there must follow from the step alone. Errors as in `Run.train`.
        """
        try:
            average = super().train(loss_at, title)
        except TrainingStopped:  # on all processes; after any other error they may not be there to wait for
            self.wait()
            raise
        self.wait()
        return average

    # --- checkpoints ---

    @property
    def kept_at(self) -> Path:
        """Where the last checkpoint is."""
        return self.folder / CHECKPOINTS / f"step_{self.step:08}"

    def _tensors(self) -> dict:
        return {
            "model": dict(self.model.named_parameters()),
            "average": self.average,
            "moments": get_optimizer_state_dict(self.model, self.optimisers[0])["state"],
        }

    def save(self) -> None:
        """Copies all shares and begins to write them; training may go on meanwhile."""
        if self.saved == self.step:
            return
        self.wait()
        self.ranks.from_first(self._write_record)
        self.writing = dcp.async_save(
            self._tensors(), checkpoint_id=self.kept_at, process_group=self.ranks.writers
        )
        self.saved = self.step

    def _write_record(self) -> None:
        record = {
            "config": asdict(self.config),
            "settings": self.settings,
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "recent": self.recent,
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        self.kept_at.mkdir(parents=True, exist_ok=True)
        write_whole(self.kept_at / RECORD, json.dumps(record).encode())
        self._write_curve()

    def wait(self) -> None:
        """Waits, on all processes, until the last checkpoint is whole, and then removes old ones.

        Raises WriteError on the first process; the others end silently with exit code 2.
        """
        if self.writing is None:
            return
        self.ranks.together(self._written)
        self.writing = None
        if self.ranks.rank == 0:
            for old in whole_checkpoints(self.folder)[:-KEPT]:
                shutil.rmtree(old)

    def _written(self) -> None:
        try:
            self.writing.result()
        except dcp.api.CheckpointException as error:
            reason = next(iter(error.failures.values()))[0]
            raise WriteError(f"cannot write {self.folder / CHECKPOINTS}: {reason}") from None

    def resume(self) -> bool:
        """Goes on from the folder's last whole checkpoint, if there is one; what is not whole is removed.

        Raises ValueError if it is of another run, or damaged.
        """
        found = self.ranks.from_first(self._find_last)
        if found is None:
            return False
        path, record = found
        tensors = self._tensors()
        self.ranks.together(lambda: _read_shares(tensors, path, self.ranks.writers))
        groups = get_optimizer_state_dict(self.model, self.optimisers[0])["param_groups"]
        state = {"state": tensors["moments"], "param_groups": groups}
        set_optimizer_state_dict(self.model, self.optimisers[0], state)
        self.step, self.seconds, self.recent = record["step"], record["seconds"], record["recent"]
        self.curve = [tuple(row) for row in record["curve"]]
        self.dtype, self.saved = getattr(torch, record["dtype"]), self.step
        return True

    def _find_last(self) -> tuple[Path, dict] | None:
        whole = whole_checkpoints(self.folder)
        for path in (self.folder / CHECKPOINTS).glob("step_*"):
            if path not in whole:
                shutil.rmtree(path)
        if not whole:
            return None
        try:
            record = json.loads((whole[-1] / RECORD).read_text())
        except (OSError, ValueError):
            raise ValueError(f"{whole[-1]} is damaged: no {RECORD}; delete it to go on from before") from None
        refuse_other(whole[-1], record["settings"], self.settings, "another configuration")
        refuse_other(whole[-1], record["config"], asdict(self.config))
        return whole[-1], record


def whole_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run that were written to the end, the oldest first."""
    # The first process writes the list of contents when all others are done, and last of all.
    return sorted(path.parent for path in (Path(folder) / CHECKPOINTS).glob("step_*/.metadata"))


def _read_shares(tensors: dict, path: Path, group: dist.ProcessGroup) -> None:
    """Fills the tensors in place with this process's shares, however many processes wrote them."""
    try:
        dcp.load(tensors, checkpoint_id=path, process_group=group)
    except (Exception, dcp.api.CheckpointException) as error:  # a damaged file can fail in any way
        raise ValueError(f"{path} is damaged ({error}); delete it to go on from the one before") from error
