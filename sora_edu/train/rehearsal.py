"""The rehearsal of chapter 14: the recipe `full-size` on a folder of small films, as a cluster would run it.

Films of the toy world, written as mp4 with captions beside them, stand in for real video. On them the same
command trains a toy configuration: once by itself, once on two processes, and once killed in the middle and
started again. What is compared are the losses of all steps, and the weights bit for bit.

    python -m sora_edu.train.rehearsal     writes data/curves/14_full_size.json, the reference runs
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from sora_edu.clips import Clip
from sora_edu.data import world
from sora_edu.files import write_whole
from sora_edu.sora import to_uint8
from sora_edu.train.distributed import RECORD, whole_checkpoints
from sora_edu.train.encoding import TOY_SIZES
from sora_edu.weights import sha256

FILMS = 24
CONFIG, STEPS, BATCH, SAVE_EVERY = "toy", 40, 8, 20
"""The notebook's run. Its learning rate does not fall, so that it is the beginning of the reference run."""

RECORDED = 120
"""Steps of the reference runs."""


def write_films(folder: Path | str, count: int = FILMS) -> list[Path]:
    """Writes films of the toy world, with a caption beside each, and gives their paths.

    Sizes take turns. A film that stands there already is written again, the same.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, scene in enumerate(islice(world.training_scenes(14), count)):
        size = TOY_SIZES[number % len(TOY_SIZES)]
        caption = world.caption(scene, seed=number)
        film = Clip(to_uint8(world.render_batch([scene], *size))[0], caption, number)
        paths.append(film.save(folder / f"film_{number:03}.mp4", scale=1))
        write_whole(paths[-1].with_suffix(".txt"), f"{caption}\n".encode())
    return paths


def command(data: Path | str, out: Path | str, *, processes: int = 1, steps: int = STEPS) -> list[str]:
    """The command line of a run; more than one process are started by torchrun."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    options = {
        "--config": CONFIG, "--data": data, "--out": out, "--steps": steps, "--batch": BATCH,
        "--save-every": SAVE_EVERY,
    }  # fmt: skip
    return [*start, "sora_edu", "train", "full-size", *(str(x) for pair in options.items() for x in pair)]


def run(data: Path | str, out: Path | str, *, processes: int = 1, steps: int = STEPS) -> str:
    """Runs the command to its end, and gives what it said. Raises ChildProcessError if it failed."""
    made = command(data, out, processes=processes, steps=steps)
    ended = subprocess.run(made, capture_output=True, text=True, env=_one_thread())
    if ended.returncode:
        raise ChildProcessError(f"{' '.join(made)} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    return ended.stdout + ended.stderr


def run_and_kill(data: Path | str, out: Path | str, after: int = SAVE_EVERY, steps: int = STEPS) -> int:
    """Starts the command, kills it once a checkpoint of step `after` is whole, and gives that step.

    SIGKILL cannot be caught: the process has no time to tidy up. Raises ChildProcessError if it ended first.
    """
    made = command(data, out, steps=steps)
    child = subprocess.Popen(made, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_one_thread())
    while (kept := last_checkpoint(out)) < after:
        if child.poll() is not None:
            raise ChildProcessError(f"{' '.join(made)} ended with {child.returncode} before step {after}")
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return kept


def last_checkpoint(out: Path | str) -> int:
    """The step of the last checkpoint that was written to the end; 0 if there is none."""
    found = whole_checkpoints(Path(out))
    return int(found[-1].name.removeprefix("step_")) if found else 0


def losses(out: Path | str) -> dict[int, float]:
    """The mean loss of every ten steps by the step at their end, from the last checkpoint of a run."""
    record = json.loads((whole_checkpoints(Path(out))[-1] / RECORD).read_text())
    return {step: loss for step, _, loss in record["curve"]}


def fingerprint(out: Path | str) -> str:
    """The SHA-256 of the averaged weights that a finished run left."""
    return sha256(Path(out) / "model.safetensors")


def _one_thread() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def finished(out: Path | str) -> bool:
    """Whether a run has come to its end."""
    return (Path(out) / "model.safetensors").exists()


def record(path: Path, folder: Path, steps: int = RECORDED, counts: Sequence[int] = (1, 2)) -> None:
    """Runs the recipe on so many processes each, and once killed and started again; writes what came out.

    The runs stay in `folder`; those that have come to their end are not made again.
    """
    films = folder / "films"
    write_films(films)
    for processes in counts:
        if not finished(out := folder / f"on_{processes}"):
            run(films, out, processes=processes, steps=steps)
    if not finished(out := folder / "killed"):
        run_and_kill(films, out, steps=steps)
        run(films, out, steps=steps)
    names = {**{str(count): f"on_{count}" for count in counts}, "killed": "killed"}
    found = {
        name: {"losses": losses(folder / run), "sha256": fingerprint(folder / run)}
        for name, run in names.items()
    }
    settings = {"config": CONFIG, "films": FILMS, "steps": steps, "batch": BATCH, "killed_after": SAVE_EVERY}
    content = {"settings": settings, "runs": found}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference runs of chapter 14.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/14_full_size.json"))
    parser.add_argument("--folder", type=Path, default=Path("runs/rehearsal"), help="where the runs stay")
    options = parser.parse_args()
    record(options.out, options.folder)
