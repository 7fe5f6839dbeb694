"""The command line as a user meets it: files, messages and exit codes, and never a traceback."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_sora import CONFIG, random_sora

from sora_edu import evaluate as evaluation
from sora_edu import scale
from sora_edu.__main__ import main
from sora_edu.clips import Clip, read_frames
from sora_edu.sora import Sora, SoraConfig
from sora_edu.tasks import TASKS
from sora_edu.teach.exercise import every
from sora_edu.teach.progress import remember
from sora_edu.train import recipes

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a red star bounces"
SIZE = ["--frames", "5", "--height", "32", "--width", "48"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A small untrained model, which makes clips of nothing in no time."""
    return str(random_sora().save_pretrained(tmp_path_factory.mktemp("models") / "small"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outcome(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse leaves this way
        code = stop.code
    out, error = capsys.readouterr()
    assert "Traceback" not in error
    return code, out, error


# ---- What works ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.png", "a folder/clip.mp4"])
def test_generate_writes_a_clip(capsys, here, checkpoint, name):
    (here / "a folder").mkdir()
    code, out, _ = outcome(capsys, "generate", PROMPT, "--out", name, "--checkpoint", checkpoint, *SIZE)
    assert code == 0
    assert (here / name).stat().st_size > 100
    assert out.startswith(f"{name}: Clip('{PROMPT}', seed=0, 5 frames of 32x48")


@pytest.fixture(scope="module")
def able(tmp_path_factory) -> str:
    """A small untrained model that may do every task."""
    model = random_sora(dataclasses.replace(CONFIG, tasks=TASKS))
    return str(model.save_pretrained(tmp_path_factory.mktemp("models") / "able"))


def test_generate_goes_on_with_a_clip(capsys, here, able):
    """A clip of three frames, extended, comes back with these three at its start."""
    start = np.random.default_rng(0).integers(256, size=(3, 32, 48, 3)).astype(np.uint8)
    Clip(start, "start").save(here / "start.png")
    options = ["--task", "extend", "--given", "start.png", "--out", "whole.png", "--checkpoint", able, *SIZE]
    code, _, _ = outcome(capsys, "generate", "", *options)
    assert code == 0
    whole = read_frames(here / "whole.png", 32, 48)
    np.testing.assert_array_equal(whole[:3], start)
    assert len(whole) == 5


def test_generate_fills_a_box(capsys, here, able):
    film = np.random.default_rng(0).integers(256, size=(5, 32, 48, 3)).astype(np.uint8)
    Clip(film, "film").save(here / "film.png")
    options = ["--task", "inpaint", "--given", "film.png", "--region", 8, 8, 24, 40, "--out", "new.png"]
    assert outcome(capsys, "generate", PROMPT, *options, "--checkpoint", able, *SIZE)[0] == 0
    changed = (read_frames(here / "new.png", 32, 48) != film).any((0, 3))
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 23, 8, 39)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "extend"], "task='extend' was given no frames; it needs the first frames"),
        (["--task", "extend", "--given", "none.mp4"], "there is no file none.mp4"),
        (["--task", "connect", "--given", "film.png"], "starts from 2 films or pictures, not 1"),
        (["--given", "film.png"], "task='text_to_video' starts from 0 films or pictures, not 1"),
        (["--task", "inpaint", "--given", "film.png"], "needs a region"),
        (["--task", "edit", "--given", "film.png", "--strength", "2"], "strength=2.0 must be a number"),
        (["--strength", "0.5"], "strength is not for task='text_to_video'"),
    ],
)
def test_what_a_task_cannot_start_from_is_explained(capsys, here, able, options, message):
    film = np.random.default_rng(0).integers(256, size=(5, 32, 48, 3)).astype(np.uint8)
    Clip(film, "film").save(here / "film.png")
    code, _, error = outcome(capsys, "generate", PROMPT, *options, "--checkpoint", able, *SIZE)
    assert code == 2
    assert message in error
    assert not (here / "clip.mp4").exists()


def test_cost_prints_the_plan_of_a_model(capsys):
    arguments = ["full", "--frames", "49", "--height", "480", "--width", "720", "--devices", "64"]
    code, out, _ = outcome(capsys, "cost", *arguments, "--batch", "2")
    assert code == 0
    made = scale.plan(scale.VIDEO_SIZES["full"], 49, 480, 720, devices=64, batch=2)
    assert "17,550" in out and f"{made.memory / 1e9:.1f} GB of 80" in out
    assert f"{12 * made.macs:.2e} FLOPs" in out
    assert f"{12 * made.macs / 989.4e12 / 0.4:.2f} s" in out


def test_progress_says_what_is_next(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SORA_EDU_HOME", str(tmp_path))
    first, second, *_ = every()
    code, out, _ = outcome(capsys, "progress", "--next")
    assert code == 0 and out == f"next: 00, exercise 1: {first.title} ({first.minutes} minutes)\n"
    remember(first.id, passed=True)
    assert outcome(capsys, "progress", "--next")[1].startswith(f"next: 00, exercise 2: {second.title}")
    assert f"1 of {len(every())} exercises passed" in outcome(capsys, "progress")[1]
    assert "the old file is kept" in outcome(capsys, "progress", "--reset")[1]
    assert outcome(capsys, "progress", "--next")[1].startswith("next: 00, exercise 1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["huge"], "config='huge' is unknown; use one of: S, B, L, XL, full"),
        (["S", "--chip", "abacus"], "chip='abacus' is unknown; use one of: A100"),
        (["S", "--mfu", "40"], "such as 0.4 for 40 per cent"),
        (["S", "--frames", "16"], "frames=16: must be 1 + 4 k"),
        (["full", "--frames", "1001", "--height", "720", "--width", "1280"], "would fit"),
    ],
)
def test_cost_refuses_what_cannot_be(capsys, arguments, message):
    code, out, error = outcome(capsys, "cost", *arguments)
    assert (code, out) == (2, "") and message in error


def test_generate_puts_the_seeds_into_the_names_of_several_clips(capsys, here, checkpoint):
    code, out, _ = outcome(
        capsys, "generate", PROMPT, "--num", "2", "--seed", "7",
        "--out", "a.png", "--checkpoint", checkpoint, *SIZE,
    )  # fmt: skip
    assert code == 0
    assert sorted(path.name for path in here.iterdir()) == ["a_7.png", "a_8.png"]
    assert len(out.splitlines()) == 2


def test_evaluate_prints_a_table_and_writes_json(capsys, here, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(evaluation, "SEEDS_PER_PROMPT", 2)
    folder = tmp_path_factory.mktemp("models")
    random_sora(SoraConfig(CONFIG.autoencoder, CONFIG.text, CONFIG.dit, steps=1)).save_pretrained(folder)
    code, out, _ = outcome(
        capsys, "evaluate", "--n", "2", "--splits", "held_out",
        "--json", "report.json", "--checkpoint", folder,
    )  # fmt: skip
    assert code == 0
    assert "held_out" in out
    assert "Written to report.json" in out
    report = json.loads((here / "report.json").read_text())
    assert report["adherence"]["held_out"]["n"] == 2
    assert report["checkpoint_sha256"] == Sora.from_pretrained(folder).sha256


@pytest.mark.parametrize("command", [[], ["generate"], ["train"], ["evaluate"], ["progress"]])
def test_help_is_there_and_quick(command):
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "sora_edu", *command, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    after = os.times()
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m sora_edu")
    used = [getattr(after, kind) - getattr(before, kind) for kind in ("children_user", "children_system")]
    assert sum(used) < 5  # of the processor's time: a busy machine makes a test wait for its turn


def test_nothing_heavy_is_imported_for_help():
    code = "import sys, sora_edu.__main__; print([name for name in ('torch', 'av') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"


# ---- What does not -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", ""], "This prompt works: "),
        (["generate", "a cute cat"], "This prompt works: "),
        (["generate", "a cute star"], "'cute': nothing known is spelt like it"),
        (["generate", "a purpel star"], "'purpel': did you mean purple?"),
        (["generate", PROMPT, "--height", "60"], "height=60 is not a multiple of 16"),
        (["generate", PROMPT, "--frames", "18"], "frames=18 is not 1 + 4k"),
        (["generate", PROMPT, "--frames", "33"], "not trained at that size"),
        (["generate", PROMPT, "--steps", "0"], "steps=0 must be from 1"),
        (["generate", PROMPT, "--steps", "many"], "invalid int value: 'many'"),
        (["generate", PROMPT, "--task", "sing"], "the tasks are: text_to_video"),
        (["generate", PROMPT, "--task", "inpaint", "--region", "0", "0", "640", "8"],
         "region=0 0 640 8 is no box of 32x48 pixels"),
        (["generate", PROMPT, "--task", "inpaint", "--region", "-20", "0", "8", "8"],
         "region=-20 0 8 8 is no box"),
        (["train", "text", "--out", "a", "--resume", "b"], "out and resume both name the folder"),
        (["generate", PROMPT, "--task", "loop"], "this checkpoint was not trained for it"),
        (["generate", PROMPT, "--guidance", "inf"], "guidance=inf must be a number"),
        (["generate", PROMPT, "--scale", "0"], "scale=0 must be a whole number from 1"),
        (["generate", PROMPT, "--out", "clip.avi"], "must end in one of .mp4, .gif, .png"),
        (["generate", PROMPT, "--out", "nowhere/clip.mp4"], "nowhere does not exist; make it first"),
        (["generate", PROMPT, "--checkpoint", "enormous"], "no such checkpoint; what ships is: tiny"),
        (["generate", PROMPT, "--colour", "blue"], "unrecognized arguments"),
        (["generate"], "arguments are required: PROMPT"),
        (["evaluate", "--n", "0"], "n=0 must be a whole number of at least 1"),
        (["evaluate", "--splits", "unseen"], "must be some of: seen, held_out"),
        (["evaluate", "--json", "nowhere/report.json"], "nowhere does not exist"),
        (["train", "huge"], "use one of: autoencoder, text, tiny"),
        (["train", "text", "--resume", "nowhere"], "is no folder of a run"),
        (["train", "text", "--steps", "0"], "steps=0 must be a whole number of at least 1"),
        (["train", "text", "--out", f"{__file__}/run"], "is a file; name a folder"),
        (["sing"], "invalid choice: 'sing'"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_is_one_clear_message_and_code_2(capsys, here, checkpoint, arguments, words):
    if arguments[:1] in (["generate"], ["evaluate"]) and "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", checkpoint]
        if arguments[0] == "generate":
            arguments = [*arguments[:1], *SIZE, *arguments[1:]]  # what comes later counts
    code, out, error = outcome(capsys, *arguments)
    assert code == 2
    assert words in error
    assert not out
    assert not list(here.iterdir())


def test_a_damaged_checkpoint_says_what_would_work(capsys, here, checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    for file in Path(checkpoint).iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[:1000])
    code, _, error = outcome(capsys, "generate", PROMPT, "--checkpoint", folder)
    assert code == 2
    assert "config.json" in error
    assert "train your own: python -m sora_edu train tiny" in error


def test_a_full_disk_leaves_the_old_clip(capsys, here, checkpoint, monkeypatch):
    (here / "clip.mp4").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    code, _, error = outcome(capsys, "generate", PROMPT, "--checkpoint", checkpoint, *SIZE)
    assert (code, error.strip()) == (
        2, "error: cannot write clip.mp4: the disk is full; free some space, or write to another one",
    )  # fmt: skip
    assert (here / "clip.mp4").read_bytes() == b"old"
    assert [path.name for path in here.iterdir()] == ["clip.mp4"]


def test_ctrl_c_is_code_130_and_leaves_the_old_clip(capsys, here, checkpoint, monkeypatch):
    (here / "clip.mp4").write_bytes(b"old")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Sora, "sample", interrupted)
    code, _, error = outcome(capsys, "generate", PROMPT, "--checkpoint", checkpoint, *SIZE)
    assert (code, error.strip()) == (130, "Stopped.")
    assert (here / "clip.mp4").read_bytes() == b"old"


def test_an_error_of_ours_can_be_traced(here, checkpoint, monkeypatch):
    monkeypatch.setenv("SORA_EDU_TRACEBACK", "1")
    with pytest.raises(ValueError, match="not trained"):
        main(["generate", PROMPT, "--frames", "33", "--checkpoint", checkpoint])


# ---- Training ------------------------------------------------------------------------------------------


def test_train_hands_the_options_to_the_recipe(capsys, here, monkeypatch):
    calls = []
    monkeypatch.setattr(recipes, "run", lambda *names, **options: calls.append((names, options)))
    assert outcome(capsys, "train", "tiny", "--steps", "3", "--start", "kept")[0] == 0
    options = {"out": Path("runs/tiny"), "resume": None, "steps": 3, "start": Path("kept")}
    others = ("batch", "clips", "config", "data", "frames", "side", "encoders", "save_every", "accumulate")
    options |= dict.fromkeys((*others, "checkpointing", "compiled"))
    assert calls == [(("tiny",), options)]


def test_a_full_disk_in_training_is_code_2_and_leaves_no_half_checkpoint(tmp_path):
    """The operating system lets no file grow to the size of a checkpoint."""
    pytest.importorskip("resource")
    code = (
        "import resource, sys; from sora_edu.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "sys.exit(main(['train', 'text', '--out', 'run', '--steps', '1']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "error: cannot write run/checkpoint.pt" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").iterdir())


def test_ctrl_c_in_training_keeps_everything_and_says_how_to_go_on(tmp_path):
    """A real interrupt of a real run."""
    pytest.importorskip("resource")  # interrupts are sent otherwise on Windows
    command = [sys.executable, "-m", "sora_edu", "train", "text", "--out", "my run", "--steps"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [*command, "100000"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert any("step" in line for line in run.stderr)  # waits until it trains, or has stopped by itself
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    error = run.stderr.read()
    assert run.wait(60) == 130
    assert "Traceback" not in error
    assert "To go on: python -m sora_edu train text --resume 'my run' --steps 100000" in error
    assert {path.name for path in (tmp_path / "my run").iterdir()} == {"checkpoint.pt", "curve.csv"}
