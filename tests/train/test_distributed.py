"""Training on several processes: real ones, which talk through gloo, are killed, and must come to the same.

Starting Python and importing torch takes seconds, so the processes are forked from one that has done both.
"""

import contextlib
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from sora_edu import video_dit
from sora_edu.__main__ import _parser, main
from sora_edu.clips import Clip
from sora_edu.data.latents import LatentFolder, write_latents
from sora_edu.train import encoding as encoding_module
from sora_edu.train import full_size
from sora_edu.train.distributed import ShardedRun, joined, whole_checkpoints
from sora_edu.train.encoding import Encoders, as_latents, open_clips
from sora_edu.train.full_size import load_full_size, make_loss
from sora_edu.train.loop import LoopConfig, Run
from sora_edu.video_dit import VideoDiT, VideoDiTConfig

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__, "torch._dynamo", "torch.distributed.tensor"])

LITTLE = VideoDiTConfig(channels=4, width=24, depth=2, heads=2, text_width=12, condition_width=20)
LOOP = LoopConfig(steps=8, batch=4, lr=1e-2, warmup=2, ema=0.9, weight_decay=0.01, log_every=1, save_every=3)
KILLED = replace(LOOP, steps=6, save_every=2)
ROOT = Path(__file__).resolve().parents[2]


# --- processes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    result: object
    error: str


def launch(size: int, job, *arguments, folder: Path, timeout: float = 600, **environment) -> list[Ended]:
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
    environment = {"SORA_EDU_DTYPE": "float32"} | environment
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    with error.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    torch.save(job(*arguments), result)


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


def training(data: Path, out: Path, loop: LoopConfig = LOOP, at=None, **how) -> dict:
    """Trains, or goes on, and gives the losses and the state; `at(run, step)` is called in every step."""
    with joined() as ranks:
        run = ShardedRun(make_model(), loop, out, ranks, **how)
        run.resume()
        resumed, loss = run.step, make_loss(run.model, LatentFolder(data), loop, ranks.device)

        def loss_at(step: int, places: range):
            if at is not None:
                at(run, step)
            return loss(step, places)

        with contextlib.suppress(KeyboardInterrupt):
            run.train(loss_at)
        run.wait()
        return {
            "resumed": resumed,
            "step": run.step,
            "losses": [row[2] for row in run.curve],
            "state": whole(run),
        }


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
    [(1, {}), (2, {}), (2, {"accumulate": 2, "checkpointing": True})],
    ids=["one", "two", "two in two passes with checkpointing"],
)
def test_shared_steps_have_the_losses_of_the_plain_loop(tmp_path, data, monkeypatch, size, how):
    monkeypatch.setenv("SORA_EDU_DTYPE", "float32")
    loop = replace(LOOP, steps=20)
    expected = plainly(data, tmp_path / "plain", loop)
    found = done(
        launch(size, partial(training, **how), data, tmp_path / "run", loop, folder=tmp_path / "log")
    )
    assert len(expected) == 20 and expected[-1] < 0.8 * expected[0]
    torch.testing.assert_close(found["losses"], expected, rtol=0, atol=1e-5)


def compiled_training(data: Path, out: Path, loop: LoopConfig) -> dict:
    """Training with blocks that torch.compile traces once for all of them, without a C++ compiler."""
    torch.compile = partial(torch.compile, backend="eager", fullgraph=True)
    torch._dynamo.config.error_on_recompile = True
    return training(data, out, loop, compiled=True)


def test_compiled_blocks_make_the_same_steps_and_share_one_program(tmp_path, data):
    loop, alike = replace(LOOP, steps=2), tmp_path / "alike"
    alike.mkdir()
    shutil.copy(data / "0.safetensors", alike)
    plain = done(launch(1, training, alike, tmp_path / "plain", loop, folder=tmp_path / "log"))
    found = done(launch(2, compiled_training, alike, tmp_path / "run", loop, folder=tmp_path / "log"))
    torch.testing.assert_close(found["losses"], plain["losses"], rtol=0, atol=1e-5)


def look(run: ShardedRun, step: int) -> None:
    """Times must reach the network in full precision, whatever the products run in."""
    embed = video_dit.time_embedding

    def looking(t):
        assert t.dtype == torch.float32
        return embed(t)

    video_dit.time_embedding = looking


def test_bf16_multiplies_in_bf16_and_keeps_times_and_weights_in_float32(tmp_path, data):
    found = {}
    for dtype in ("float32", "bfloat16"):
        job, log = partial(training, at=look), tmp_path / "log"
        ends = launch(2, job, data, tmp_path / dtype, KILLED, folder=log, SORA_EDU_DTYPE=dtype)
        found[dtype] = done(ends)
    plain, low = found["float32"], found["bfloat16"]
    assert {tensor.dtype for tensor in low["state"].values()} == {torch.float32}
    assert low["losses"] != plain["losses"]
    torch.testing.assert_close(low["losses"], plain["losses"], rtol=0.02, atol=0)


def stop(step: int, run: ShardedRun, now: int) -> None:
    """Ends a run in the middle of a step, on all processes, as a scheduler's time limit does."""
    if now == step:
        raise KeyboardInterrupt


def test_a_run_may_change_its_number_of_processes_on_the_way(tmp_path, data, monkeypatch):
    monkeypatch.setenv("SORA_EDU_DTYPE", "float32")
    loop = replace(LOOP, save_every=2)
    expected = plainly(data, tmp_path / "plain", loop)
    for size, until, resumed in ((1, 3, 0), (4, 5, 2), (2, None, 4)):
        job = partial(training, at=None if until is None else partial(stop, until))
        found = done(launch(size, job, data, tmp_path / "run", loop, folder=tmp_path / "log"))
        assert found["resumed"] == resumed
    torch.testing.assert_close(found["losses"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrote", [2, 4])  # what one wrote is read above
def test_a_checkpoint_is_read_by_any_number_of_processes(tmp_path, data, wrote):
    loop = replace(LOOP, steps=2)
    kept = done(launch(wrote, training, data, tmp_path / "run", loop, folder=tmp_path / "log"))["state"]
    assert {name.split()[0] for name in kept} == {"model", "average", "moments"}
    for reads in {1, 2, 4} - {wrote}:
        found = done(launch(reads, looking, tmp_path / "run", loop, folder=tmp_path / "log"))
        assert found["step"] == 2
        assert_bits_equal(found["state"], kept)


def assert_bits_equal(one, other) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def saving(out: Path) -> dict:
    """Saves, and ruins the weights while they are being written."""
    with joined() as ranks:
        run = ShardedRun(make_model(), LOOP, out, ranks)
        kept = whole(run)
        run.save()
        for weight in (*run.model.parameters(), *run.average.values()):
            weight.detach().to_local().zero_()
        run.wait()
        return kept


def test_a_checkpoint_is_of_the_moment_it_was_begun_however_long_it_is_written(tmp_path):
    kept = done(launch(1, saving, tmp_path / "run", folder=tmp_path / "log"))
    found = done(launch(1, looking, tmp_path / "run", folder=tmp_path / "log"))["state"]
    names = [name for name in kept if not name.startswith("moments")]
    assert names
    assert_bits_equal({name: found[name] for name in names}, {name: kept[name] for name in names})


def test_only_the_last_two_checkpoints_stay(tmp_path, data):
    loop = replace(LOOP, save_every=1)
    done(launch(2, training, data, tmp_path / "run", loop, folder=tmp_path / "log"))
    assert [path.name for path in whole_checkpoints(tmp_path / "run")] == ["step_00000007", "step_00000008"]


# --- killed ----------------------------------------------------------------------------------------------


def die(moment: str, when: int, run: ShardedRun, step: int) -> None:
    """Kills this process without any warning: as it computes a step, or as it writes what came of it."""
    if step != when:
        return
    if moment == "computing":
        os.kill(os.getpid(), signal.SIGKILL)
    run.wait()  # so that it is the next checkpoint that is hit
    if moment == "writing":  # the first file is begun, and there is no list of contents yet
        async_save = dcp.async_save

        def save_and_die(*arguments, **options):
            async_save(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        dcp.async_save = save_and_die
    else:  # all is written but the list of contents
        dcp.FileSystemWriter.finish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> dict:
    """What a run comes to that is left alone."""
    folder = tmp_path_factory.mktemp("straight")
    return done(launch(1, training, data, folder / "run", KILLED, folder=folder / "log"))


@pytest.mark.parametrize(
    ("moment", "when", "back_at"),
    [
        # A checkpoint that was begun lately may be whole already, or not yet; the one before always is.
        *(("computing", step, {max(0, step - step % 2 - 2), step - step % 2}) for step in range(6)),
        ("writing", 3, {2, 4}), ("finishing", 1, {0}), ("finishing", 3, {2}), ("finishing", 5, {4}),
    ],
)  # fmt: skip
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, data, straight, moment, when, back_at):
    job = partial(training, at=partial(die, moment, when))
    (end,) = launch(1, job, data, tmp_path / "run", KILLED, folder=tmp_path / "log")
    assert end.code == -signal.SIGKILL
    found = done(launch(1, training, data, tmp_path / "run", KILLED, folder=tmp_path / "log"))
    assert found["resumed"] in back_at
    assert found["losses"] == straight["losses"]
    assert_bits_equal(found["state"], straight["state"])


def interrupt(run: ShardedRun, step: int) -> None:
    """Ctrl-C, on the second process alone."""
    if step == 2 and run.ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_of_one_process_stops_all_after_the_same_step(tmp_path, data, straight):
    job = partial(training, at=interrupt)
    ends = launch(2, job, data, tmp_path / "run", KILLED, folder=tmp_path / "log")
    assert [end.result["step"] for end in ends] == [3, 3]
    found = done(launch(2, training, data, tmp_path / "run", KILLED, folder=tmp_path / "log"))
    assert found["resumed"] == 3
    torch.testing.assert_close(found["losses"], straight["losses"], rtol=0, atol=1e-5)


DYING = """
import os, signal, sys
from sora_edu.__main__ import main
from sora_edu.train.distributed import ShardedRun

def dying(run, loss_at, one_step=ShardedRun._one_step):
    if run.step == 3 and run.ranks.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return one_step(run, loss_at)

ShardedRun._one_step = dying
sys.exit(main(sys.argv[1:]))
"""


def test_a_process_that_is_lost_under_torchrun_is_started_again_and_the_run_ends(tmp_path, data):
    (tmp_path / "dying.py").write_text(DYING)
    options = ["train", "full-size", "--config", "toy", "--data", str(data)]
    options += ["--steps", "5", "--batch", "4", "--save-every", "1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "--max-restarts", "1", str(tmp_path / "dying.py"), *options, "--out", "lost"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SORA_EDU_DTYPE": "float32", "OMP_NUM_THREADS": "1"}
    lost = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert lost.returncode == 0, lost.stderr
    assert "SIGKILL" in lost.stderr or "-9" in lost.stderr

    (end,) = launch(1, commanding, [*options, "--out", str(tmp_path / "left")], folder=tmp_path / "log")
    assert end.code == 0, end.error
    curves = [(tmp_path / name / "curve.csv").read_text().split()[-1].split(",") for name in ("lost", "left")]
    assert [curve[0] for curve in curves] == ["5", "5"]
    assert float(curves[0][2]) == pytest.approx(float(curves[1][2]), abs=2e-5)  # five digits are written
    models = [load_full_size(tmp_path / name).state_dict() for name in ("lost", "left")]
    torch.testing.assert_close(*models, rtol=0, atol=1e-5)


# --- the command, and bad input --------------------------------------------------------------------------


def commanding(arguments: list[str], before=None) -> None:
    """The command line; `before` changes the process first."""
    if before is not None:
        before()
    raise SystemExit(main(arguments))


def with_little_memory() -> None:
    """2 GB are free, and whoever builds a model has not looked."""
    full_size.free_memory = lambda _: 2e9
    full_size.VideoDiT = None


def without_a_compiler() -> None:
    shutil.which = lambda *_, **__: None


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory) -> dict[str, Path]:
    """Folders of data in different states, and a run of another configuration."""
    root = tmp_path_factory.mktemp("folders")
    made = {name: root / name for name in ("empty", "broken", "half", "other_run", "missing")}
    for name in ("empty", "broken"):
        made[name].mkdir()
    (made["broken"] / "0.safetensors").write_bytes((data / "0.safetensors").read_bytes()[:500])
    shutil.copytree(data, made["half"])
    (made["half"] / "1.safetensors").write_bytes(b"no latents")
    options = ["--config", "toy", "--data", str(data), "--steps", "1", "--batch", "4"]
    command = ["train", "full-size", *options, "--out", str(made["other_run"])]
    (end,) = launch(1, commanding, command, folder=root / "log")
    assert end.code == 0, end.error
    return made | {"good": data}


@pytest.mark.parametrize(
    ("options", "before", "words"),
    [
        ("--data {missing}", None, "missing' is not a folder"),
        ("--data {empty}", None, "empty' needs at least one"),
        ("--data {broken}", None, "none of its 1 can be used: 0.safetensors"),
        ("--data {good} --batch 3", None, "batch=3 cannot be shared evenly: .* 2 .*; batch=2 or 4 would do"),
        ("--data {good} --batch 6 --accumulate 2", None, "passes 2 is 4; batch=4 or 8 would do"),
        ("--data {good} --config huge", None, "config='huge' is unknown; use one of: toy, tiny, S"),
        ("--data {good} --config full", with_little_memory,
         "config=full: each of 2 processes needs about .*; --config S --accumulate 2 --checkpointing w"),
        ("--data {good} --config tiny --out {other_run}", None,
         r"of another configuration \(condition_width: 64 there, 192 here; .*width: 64 there, 256 here"),
        ("--data {good} --compile", without_a_compiler, r"needs a C\+\+ compiler .*; leave --compile out"),
        ("--data {good} --batch 0", None, "batch=0 must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_of_the_first_process_and_code_2_of_all(
    tmp_path, folders, options, before, words
):
    paths = {name: str(path) for name, path in folders.items()}
    options = [option.format(**paths) for option in options.split()]
    given = ["train", "full-size", "--config", "toy", "--batch", "4", "--steps", "1"]
    command = [*given, "--out", str(tmp_path / "run"), *options]
    first, second = launch(2, commanding, command, before, folder=tmp_path / "log")
    assert (first.code, second.code) == (2, 2)
    assert re.search(f"^error: .*{words}", first.error, re.M), first.error
    assert second.error == ""
    assert "Traceback" not in first.error
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_files_that_are_broken_are_named_and_left_out(tmp_path, folders):
    options = ["--config", "toy", "--data", str(folders["half"]), "--batch", "4", "--steps", "1"]
    command = ["train", "full-size", *options, "--out", str(tmp_path / "run")]
    first, second = launch(2, commanding, command, folder=tmp_path / "log")
    assert (first.code, second.code) == (0, 0), first.error
    assert "skipped 1 files: 1.safetensors" in first.error and "Traceback" not in first.error
    assert second.error == ""


def failing(rank: int, error: Exception) -> None:
    """A check that fails on one process only."""

    def check():
        if ranks.rank == rank:
            raise error

    with joined() as ranks:
        ranks.together(check)


@pytest.mark.parametrize("rank", [0, 1])
def test_what_fails_on_one_process_ends_all_with_one_message(tmp_path, rank):
    first, second = launch(2, failing, rank, OSError("no such disk"), folder=tmp_path / "log")
    assert re.search("Error: .*no such disk", first.error)
    assert second.code == 2 and second.error == ""


def test_a_checkpoint_that_is_damaged_says_what_to_do(tmp_path, data):
    done(launch(1, training, data, tmp_path / "run", KILLED, folder=tmp_path / "log"))
    for path in whole_checkpoints(tmp_path / "run")[-1].glob("*.distcp"):
        path.write_bytes(path.read_bytes()[:100])
    (end,) = launch(1, looking, tmp_path / "run", KILLED, folder=tmp_path / "log")
    assert end.code == 1
    assert "step_00000006 is damaged" in end.error and "delete it to go on from the one before" in end.error


# --- what to learn from ----------------------------------------------------------------------------------


def encoding(folder: Path, out: Path) -> dict:
    """Encodes a folder of videos, each process some, and says which files it took up."""
    encoding_module.ENCODERS["little"] = little_encoders
    encoding_module.VERSIONS["little"] = lambda: "1"
    with joined() as ranks:
        clips = ranks.from_first(lambda: open_clips(folder, 0, 9, 32 * 32))
        found = as_latents(clips, out, "little", ranks)
        return {"buckets": [tuple(size) for size in found.buckets], "batch": found.batch([0]), "calls": CALLS}


CALLS: list[int] = []


def little_encoders(device: torch.device) -> Encoders:
    """Cells are means of 4x8x8 pixels, and a text is its length."""

    def video(clip: torch.Tensor) -> torch.Tensor:
        CALLS.append(len(clip))
        first = clip[:, :, :1].repeat(1, 1, 3, 1, 1)
        return torch.nn.functional.avg_pool3d(torch.cat([first, clip], dim=2), (4, 8, 8))

    def text(captions) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = torch.tensor([float(len(caption)) for caption in captions])
        return lengths[:, None, None].expand(-1, 2, 5), torch.ones(len(captions), 2, dtype=torch.bool)

    return Encoders(video, text)


def test_videos_are_encoded_once_by_all_processes(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, (height, width) in enumerate([(32, 32), (32, 32), (16, 48)]):
        frames = np.full((9, height, width, 3), 60 * (number + 1), dtype=np.uint8)
        Clip(frames, f"clip {number}", 0).save(videos / f"{number}.mp4", scale=1)
        (videos / f"{number}.txt").write_text("x" * number)
    (videos / "broken.mp4").write_bytes(b"no video")
    ends = launch(2, encoding, videos, tmp_path / "out", folder=tmp_path / "log")
    found = done(ends)
    assert found["buckets"] == [(9, 16, 48), (9, 32, 32), (9, 32, 32)]
    assert sorted(call for end in ends for call in end.result["calls"]) == [1, 2]
    assert "broken.mp4" in ends[0].error and ends[1].error == ""
    latents, text, mask = found["batch"]
    assert latents.shape == (1, 3, 3, 2, 6) and mask.all()
    torch.testing.assert_close(latents, torch.full_like(latents, 180 / 127.5 - 1), rtol=0, atol=0.05)
    assert text.unique().tolist() == [2]
    (again,) = launch(1, encoding, videos, tmp_path / "out", folder=tmp_path / "log")
    assert again.result["calls"] == []


def test_the_script_for_slurm_is_bash_and_asks_for_what_there_is():
    script = ROOT / "docs" / "full_size.slurm"
    subprocess.run(["bash", "-n", str(script)], check=True)
    command = re.search(r"-m sora_edu (.*?) &\n", script.read_text().replace("\\\n", " "))[1]
    options = _parser().parse_args(shlex.split(command))
    assert (options.recipe, options.config, options.encoders) == ("full-size", "full", "released")
    assert options.checkpointing and options.compiled
