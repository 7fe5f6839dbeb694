"""Progress is kept, shown, reset, and never in the way."""

import json
import os
import re
import stat
import sys
import time
from pathlib import Path

import pytest

from sora_edu.teach.exercise import every
from sora_edu.teach.progress import Record, progress, recall, remember, state_folder


@pytest.fixture
def saved(own_progress) -> Path:
    """The progress file after one exercise."""
    remember("toy.one", attempts=2, passed=True)
    return own_progress / "progress.json"


def test_a_record_survives_on_disk(saved):
    assert json.loads(saved.read_text())["exercises"]["toy.one"]["attempts"] == 2
    assert recall("toy.one") == Record(attempts=2, passed=True)
    assert recall("toy.two") == Record()
    remember("toy.one", solution_seen=True)
    assert recall("toy.one") == Record(attempts=2, passed=True, solution_seen=True)
    assert [path.name for path in saved.parent.iterdir()] == ["progress.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"exercises": 3}', '{"exercises": {"toy.one": 3}}', b"\xff"]
)
def test_a_damaged_file_is_kept_aside_with_a_message(saved, capsys, text):
    content = text if isinstance(text, bytes) else text.encode()
    saved.write_bytes(content)
    assert recall("toy.one") == Record()
    kept = saved.with_name("progress.damaged-1.json")
    assert kept.read_bytes() == content and str(kept) in capsys.readouterr().err
    remember("toy.two", attempts=1)
    assert recall("toy.two").attempts == 1
    saved.write_text("damaged again")
    assert recall("toy.two") == Record()
    assert kept.read_bytes() == content and saved.with_name("progress.damaged-2.json").exists()


def test_a_file_of_a_later_version_is_read_and_keeps_what_it_alone_knows(saved):
    entries = json.loads(saved.read_text())
    entries["exercises"]["toy.one"]["stars"] = 3
    entries["exercises"]["toy.later"] = {"passed": True, "stars": 1}
    saved.write_text(json.dumps(entries))
    assert recall("toy.later") == Record(passed=True)
    remember("toy.one", attempts=3)
    assert json.loads(saved.read_text())["exercises"]["toy.later"]["stars"] == 1


def test_a_folder_that_cannot_be_made_does_not_stop_a_lesson(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SORA_EDU_HOME", str(tmp_path / "file" / "state"))
    remember("toy.one", attempts=1)
    assert recall("toy.one").attempts == 1
    assert "toy" not in repr(progress(reset=True))
    assert recall("toy.one") == Record()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_does_not_stop_a_lesson(saved):
    saved.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        remember("toy.one", attempts=9)
        assert recall("toy.one").attempts == 9
    finally:
        saved.parent.chmod(stat.S_IRWXU)


def test_a_full_disk_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    remember("toy.one", attempts=9)
    assert recall("toy.one").attempts == 9
    monkeypatch.undo()
    assert saved.read_bytes() == before


def test_reset_starts_again_and_keeps_the_old_file(saved):
    before = saved.read_bytes()
    table = progress(reset=True)
    assert recall("toy.one") == Record() and not saved.exists()
    kept = saved.with_name("progress.before-reset-1.json")
    assert kept.read_bytes() == before and str(kept) in repr(table)
    assert "there was none" in repr(progress(reset=True))


def test_the_table_shows_every_exercise_and_what_became_of_it():
    exercises = every()
    if not exercises:
        pytest.skip("no chapter has landed")
    first, *others = exercises
    assert f"0 of {len(exercises)} exercises passed" in repr(progress())
    remember(first.id, attempts=2)
    assert "tried 2 times" in repr(progress())
    remember(first.id, passed=True, solution_seen=True)
    table = progress()
    assert "passed, solution seen" in repr(table) and "not attempted" in repr(table)
    left = sum(exercise.minutes for exercise in others)
    assert f"1 of {len(exercises)} exercises passed; the others take about {left} minutes." in repr(table)
    assert all(exercise.id in table._repr_html_() for exercise in exercises)
    folds = re.findall(r"<details( open)?><summary><b>(\d\d)</b>", table._repr_html_())
    assert sorted({exercise.chapter[:2] for exercise in exercises}) == [number for _, number in folds]
    assert [number for is_open, number in folds if is_open] == [first.chapter[:2]]
    for exercise in others:
        remember(exercise.id, passed=True)
    assert repr(progress()).endswith(f"{len(exercises)} of {len(exercises)} exercises passed.")


def in_chapter(number: str) -> list[str]:
    return [exercise.id for exercise in every() if exercise.chapter.startswith(number)]


def test_what_comes_next_follows_what_was_touched_last(monkeypatch):
    clock = iter(range(1, 10**6))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    assert progress().next.startswith("next: 00, exercise 1: ")
    first, second, third, *_ = in_chapter("07")
    remember(first, passed=True)
    assert progress().next.startswith("next: 07, exercise 2: ")
    remember(third, attempts=1)
    assert progress().next.startswith("next: 07, exercise 3: ")  # open, so it stays
    remember(third, passed=True)
    assert progress().next.startswith("next: 07, exercise 4: ")
    remember(in_chapter("02")[0], passed=True)  # back to an earlier chapter
    assert progress().next.startswith("next: 02, exercise 2: ")
    for name in (exercise.id for exercise in every() if exercise.chapter >= "07"):
        remember(name, passed=True)
    assert progress().next.startswith("next: 00, exercise 1: ")  # round the end
    assert second not in progress().next


def test_when_all_have_passed_nothing_is_next():
    for exercise in every():
        remember(exercise.id, passed=True)
    assert progress().next == "" and "next:" not in repr(progress())


def test_the_table_says_what_is_next_wherever_it_is_shown():
    table = progress()
    assert table.next in repr(table) and table.next in table._repr_html_()
    minutes = every()[0].minutes
    assert table.next == f"next: 00, exercise 1: {every()[0].title} ({minutes} minutes)"


def test_progress_of_an_older_version_has_no_times(saved):
    entries = json.loads(saved.read_text())
    for entry in entries["exercises"].values():
        del entry["at"]
    saved.write_text(json.dumps(entries))
    assert recall("toy.one") == Record(attempts=2, passed=True) and recall("toy.one").at == 0


def test_the_state_folder_follows_the_system(monkeypatch, tmp_path):
    monkeypatch.setenv("SORA_EDU_HOME", str(tmp_path / "here"))
    assert state_folder() == tmp_path / "here"
    monkeypatch.delenv("SORA_EDU_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert state_folder() == tmp_path / ".local" / "state" / "sora_edu"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert state_folder() == tmp_path / "Library" / "Application Support" / "sora_edu"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "AppData"))
    assert state_folder() == tmp_path / "AppData" / "sora_edu"
