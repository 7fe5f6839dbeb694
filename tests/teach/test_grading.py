"""Chapters as assignments: the metadata that nbgrader asks for, and who earns which points.

nbgrader itself is not installed here; `tools/nbgrader_round_trip.py` runs it, and its record is checked
below.
"""

import copy
import json
import re
import sys
import warnings
from pathlib import Path

import pytest

from sora_edu.teach import grading
from sora_edu.teach.anatomy import Chapter, ours, tags
from sora_edu.teach.exercise import Exercise, every, find
from sora_edu.teach.grading import BEGIN, END, assignment, grade, handed_in, slip_source, worth
from sora_edu.teach.notebooks import read
from sora_edu.teach.progress import Record, recall

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXERCISES = every()

each_chapter = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def sources() -> dict[str, tuple[Chapter, Chapter]]:
    """By name: a chapter, and its assignment."""
    found = {path.stem: Chapter(path.stem, read(path)) for path in NOTEBOOKS}
    return {name: (chapter, Chapter(name, assignment(chapter))) for name, chapter in found.items()}


def nbgrader_cells(chapter: Chapter) -> list:
    return [cell for cell in chapter.notebook.cells if "nbgrader" in cell.metadata]


@each_chapter
def test_the_metadata_are_those_of_schema_version_3(path, sources):
    _, made = sources[path.stem]
    names = []
    for cell in nbgrader_cells(made):
        entry = dict(cell.metadata["nbgrader"])
        names.append(entry["grade_id"])
        points = {"points"} if entry["grade"] else set()
        keys = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
        assert set(entry) == keys | points, "nbgrader refuses any other key"
        assert entry["schema_version"] == 3 and entry["task"] is False
        assert entry["grade"] is entry["locked"] is not entry["solution"]
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", entry["grade_id"])
    assert len(set(names)) == len(names) == 2 * len(made.exercise_ids)


def released(cell) -> str:
    """What nbgrader's ClearSolutions leaves of a cell, with an empty stub."""
    return re.sub(f"{BEGIN}.*?{END}", "", cell.source, flags=re.DOTALL).strip()


@each_chapter
def test_students_get_the_chapters_own_stubs_and_no_answer(path, sources):
    chapter, made = sources[path.stem]
    stubs = {ours(cell)["exercise"]: cell.source.strip() for cell in chapter.code if "exercise" in ours(cell)}
    assert stubs == {ours(cell)["exercise"]: released(cell) for cell in made.code if "exercise" in ours(cell)}
    assert all(not cell.outputs and cell.execution_count is None for cell in made.code)
    skipped = [cell for cell in made.code if "skip-execution" in tags(cell)]
    assert len(skipped) == len([cell for cell in chapter.code if "train" in tags(cell)])


@each_chapter
def test_everything_else_of_the_chapter_is_still_there(path, sources):
    chapter, made = sources[path.stem]
    before, after = chapter.notebook.cells, [c for c in made.notebook.cells if c.id != "about-grading"]
    assert [cell.id for cell in before] == [cell.id for cell in after]
    for old, new in zip(before, after, strict=True):
        if "nbgrader" not in new.metadata and old.cell_type == "code":
            assert old.source == new.source
    assert "](../" not in "".join(cell.source for cell in made.markdown)


def scores(made: Chapter, of: dict[str, str]) -> dict[str, tuple[int, str]]:
    """By exercise: points and verdict of a student who wrote `of`, without a kernel."""
    student = handed_in(made.notebook, lambda exercise: of.get(exercise.id))
    given, found = {}, {}
    for cell in student.cells:
        if "nbgrader" not in cell.metadata:
            continue
        if cell.metadata["nbgrader"]["solution"]:
            exec(cell.source if ours(cell)["exercise"] in of else released(cell), given)
            continue
        *setup, call = cell.source.splitlines()
        exec("\n".join(setup), given)
        shown = eval(call, given)
        found[shown.result.exercise.id] = (int(repr(shown)), repr(shown.result))
    return found


@each_chapter
def test_each_planted_slip_loses_its_own_exercise_and_is_named(path, sources):
    """A student for every catalogued slip of every chapter; the others' answers are the course's."""
    chapter, made = sources[path.stem]
    right = {exercise.id: grading.answer_source(exercise) for exercise in chapter.exercises}
    full = {exercise.id: worth(exercise) for exercise in chapter.exercises}
    assert {name: points for name, (points, _) in scores(made, right).items()} == full
    assert {points for points, _ in scores(made, {}).values()} == {0}
    for exercise in chapter.exercises:
        mine = handed_in(made.notebook, lambda _: None)
        mine.cells = [cell for cell in mine.cells if belongs(cell, exercise)]
        for slip in exercise.misconceptions:
            found = scores(Chapter(path.stem, mine), {exercise.id: slip_source(exercise, slip.id)})
            ((name, (points, verdict)),) = found.items()
            assert name == exercise.id and points == 0
            assert f"This is a known slip: {slip.title}." in verdict


def belongs(cell, exercise: Exercise) -> bool:
    """Whether a cell is the stub or the test of an exercise."""
    name = exercise.id.replace(".", "-")
    return cell.metadata.get("nbgrader", {}).get("grade_id") in (name, f"{name}-test")


def test_a_slip_costs_nothing_elsewhere(sources):
    """Whole notebooks of one chapter: a student for each slip, right in everything else."""
    chapter, made = sources[NOTEBOOKS[0].stem]
    right = {exercise.id: grading.answer_source(exercise) for exercise in chapter.exercises}
    full = {exercise.id: worth(exercise) for exercise in chapter.exercises}
    for exercise in chapter.exercises:
        for slip in exercise.misconceptions:
            found = scores(made, {**right, exercise.id: slip_source(exercise, slip.id)})
            assert {name: points for name, (points, _) in found.items()} == {**full, exercise.id: 0}


def test_the_courses_own_function_is_no_answer():
    exercise = find("attention.attend")
    assert grade(exercise, exercise.reference).points == 0


def test_an_answer_that_is_right_for_the_learners_seed_alone_earns_nothing():
    exercise = find("attention.attend")
    known = {tuple(case.args[0].tolist()) for case in exercise.cases(0)}

    def by_heart(query, keys, values):
        result = exercise.reference(query, keys, values)
        return result if tuple(query.tolist()) in known or len(query) == 1 else result + 1

    assert grade(exercise, by_heart).points == 0


def test_warnings_and_the_error_stream_cost_no_points(capsys):
    exercise = find("attention.attend")

    def noisy(*args):
        warnings.warn("a warning", stacklevel=1)
        print("to the error stream", file=sys.stderr)
        return exercise.reference(*args)

    assert grade(exercise, noisy).points == worth(exercise)
    assert capsys.readouterr().err == ""


def test_nbgrader_remembers_nothing_and_a_student_does(monkeypatch):
    exercise = find("attention.attend")
    slip = exercise.misconceptions[0].wrong
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    grade(exercise, slip)
    assert recall(exercise.id) == Record()
    monkeypatch.delenv("NBGRADER_EXECUTION")
    grade(exercise, slip)
    assert recall(exercise.id).misconception == exercise.misconceptions[0].id


def test_a_notebook_shows_verdict_and_points():
    exercise = find("attention.attend")
    shown = grade(exercise, exercise.misconceptions[0].wrong)
    assert repr(shown) == "0"
    assert f"<b>0 of {worth(exercise)} points</b>" in shown._repr_html_()
    assert "known slip" in shown._repr_html_()


def test_a_stub_without_its_check_is_refused(sources):
    chapter, _ = sources[NOTEBOOKS[0].stem]
    broken = copy.deepcopy(chapter)
    at = next(i for i, cell in enumerate(broken.notebook.cells) if "exercise" in ours(cell))
    broken.notebook.cells = broken.notebook.cells[: at + 1]
    with pytest.raises(ValueError, match="the cell after its stub is not check"):
        assignment(broken)


def test_the_command_writes_nbgraders_folders(tmp_path, capsys):
    assert grading.main([str(tmp_path), str(NOTEBOOKS[0])]) == 0
    name = NOTEBOOKS[0].stem
    assert (tmp_path / name / f"{name}.ipynb").exists()
    with pytest.raises(SystemExit):
        grading.main([str(tmp_path), "nowhere.ipynb"])
    assert "Traceback" not in capsys.readouterr().err


def test_the_recorded_round_trip_had_no_faults():
    record = json.loads((ROOT / "benchmarks" / "nbgrader_round_trip.json").read_text())
    assert set(record) == {exercise.chapter for exercise in EXERCISES}
    for name, made in record.items():
        exercises = [exercise for exercise in EXERCISES if exercise.chapter == name]
        assert made["faults"] == []
        assert made["exercises"] == len(exercises) and made["points"] == sum(map(worth, exercises))
        slips = [len(exercise.misconceptions) for exercise in exercises]
        assert made["slips"] == sum(slips)
        assert made["submissions"] == max(slips[::2]) + max(slips[1::2]) + 2
