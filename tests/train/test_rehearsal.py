"""The rehearsal of chapter 14: its films, its commands, and what the shipped runs say."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from sora_edu.assets import data_path
from sora_edu.data import world
from sora_edu.data.videos import VideoFolder
from sora_edu.train import rehearsal
from sora_edu.train.encoding import TOY_SIZES
from sora_edu.train.rehearsal import command, finished, last_checkpoint, losses, write_films

KEPT = json.loads(data_path("curves", "14_full_size.json").read_text())


def test_films_are_of_three_sizes_with_captions_of_the_toy_world_and_the_same_again(tmp_path):
    paths = write_films(tmp_path / "films", 5)
    folder = VideoFolder(tmp_path / "films")
    assert folder.skipped == {} and folder.buckets == [TOY_SIZES[k % 3] for k in range(5)]
    for video in folder.videos:
        assert not world.parse(video.caption).held_out
    before = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    again = write_films(tmp_path / "films", 5)
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in again] == before


def test_more_than_one_process_is_started_by_torchrun(tmp_path):
    alone, two = (command(tmp_path / "data", tmp_path / "out", processes=n) for n in (1, 2))
    assert alone[:5] == [sys.executable, "-m", "sora_edu", "train", "full-size"]
    assert two[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert two[6:] == alone[2:]
    assert alone[alone.index("--data") + 1] == str(tmp_path / "data")


def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(ChildProcessError, match="nothing"):
        rehearsal.run(tmp_path / "nothing", tmp_path / "out")


def test_a_process_is_killed_only_after_a_whole_checkpoint(tmp_path, monkeypatch):
    """A stand-in writes an unfinished checkpoint, then a whole one, and would go on for ever."""
    program = tmp_path / "program.py"
    program.write_text(
        "import pathlib, sys, time\n"
        "kept = pathlib.Path(sys.argv[1], 'checkpoints')\n"
        "for step in (10, 20, 30):\n"
        "    folder = kept / f'step_{step:08}'\n"
        "    folder.mkdir(parents=True)\n"
        "    time.sleep(0.3)\n"
        "    (folder / '.metadata').touch()\n"
        "    time.sleep(1 if step < 20 else 60)\n"
    )
    out = tmp_path / "out"
    monkeypatch.setattr(rehearsal, "command", lambda *_, **__: [sys.executable, str(program), str(out)])
    assert last_checkpoint(out) == 0
    assert rehearsal.run_and_kill(tmp_path, out, after=20) == 20
    assert last_checkpoint(out) == 20 and not finished(out)
    program.write_text("")
    with pytest.raises(ChildProcessError, match="before step 30"):
        rehearsal.run_and_kill(tmp_path, out, after=30)


def test_losses_are_those_of_the_last_whole_checkpoint(tmp_path):
    for step, whole in ((10, True), (20, True), (30, False)):
        folder = tmp_path / "checkpoints" / f"step_{step:08}"
        folder.mkdir(parents=True)
        curve = [[10 * k, 0.5, 1 / k] for k in range(1, step // 10 + 1)]
        (folder / "run.json").write_text(json.dumps({"curve": curve}))
        if whole:
            (folder / ".metadata").touch()
    assert losses(tmp_path) == {10: 1.0, 20: 0.5}


def test_runs_that_have_ended_are_only_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "run", lambda *_, **__: pytest.fail("ran again"))
    monkeypatch.setattr(rehearsal, "run_and_kill", lambda *_, **__: pytest.fail("ran again"))
    for name in ("on_1", "on_2", "killed"):
        folder = tmp_path / name / "checkpoints" / "step_00000010"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"curve": [[10, 0.1, 2.0]]}))
        (folder / ".metadata").touch()
        (tmp_path / name / "model.safetensors").write_bytes(name[:2].encode())
    path: Path = tmp_path / "runs.json"
    rehearsal.record(path, tmp_path, steps=10)
    found = json.loads(path.read_text())["runs"]
    assert found["1"] == found["2"] != found["killed"]
    assert found["killed"]["losses"] == {"10": 2.0}


def test_the_shipped_runs_say_what_the_chapter_says():
    settings, runs = KEPT["settings"], KEPT["runs"]
    assert settings["steps"] == rehearsal.RECORDED > 2 * rehearsal.STEPS
    assert set(runs) == {"1", "2", "killed"}
    steps = [str(step) for step in range(10, settings["steps"] + 1, 10)]
    assert all(list(run["losses"]) == steps for run in runs.values())
    assert runs["killed"] == runs["1"]  # losses and weights, bit for bit
    assert runs["2"]["sha256"] != runs["1"]["sha256"]
    gaps = [abs(runs["2"]["losses"][step] - runs["1"]["losses"][step]) for step in steps]
    assert 0 < max(gaps) < 1e-5
    values = list(runs["1"]["losses"].values())
    assert values[0] > 2 > 1.6 > sum(values[-3:]) / 3
