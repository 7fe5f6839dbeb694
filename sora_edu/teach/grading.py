"""A chapter as an assignment for nbgrader, made from the chapter itself, so that there is one copy of it.

    python -m sora_edu.teach.grading FOLDER [NOTEBOOK...]

writes `FOLDER/<chapter>/<chapter>.ipynb`: the chapter with nbgrader's metadata (schema version 3). The stub
of an exercise becomes a solution cell, with the course's answer between the marks that nbgrader cuts out; the
check behind it becomes a locked cell of tests that are worth points. `tools/nbgrader_round_trip.py` tries all
of it with nbgrader itself.

A point stands for a step of difficulty, so an exercise is worth 1 to 3. There are no half points: the answer
passes, or the feedback says what is wrong with it, by name where it is a known slip.
"""

import argparse
import copy
import html
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from sora_edu.teach.anatomy import Chapter, ours, tags
from sora_edu.teach.engine import CheckResult, check, is_the_courses, judge
from sora_edu.teach.exercise import Exercise, find
from sora_edu.teach.notebooks import read, write
from sora_edu.teach.pasted import standalone

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
"""What nbgrader's `ClearSolutions` looks for."""

SEEDS = (0, 1, 2)
"""An answer has to be right on the cases of all of them; the learner's own check uses the first."""

_LOCAL_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]+\)")


# ---- What runs in a student's notebook and in nbgrader -----------------------------------------------------


@dataclass(frozen=True)
class Grade:
    """A verdict and its points. As plain text it is the number alone, which nbgrader takes for the score."""

    result: CheckResult
    """What the check found."""
    points: int
    """Points earned: all, or none."""
    worth: int
    """Points of the exercise."""

    def __repr__(self) -> str:
        return str(self.points)

    def _repr_html_(self) -> str:
        count = f"{self.points} of {self.worth} point{'' if self.worth == 1 else 's'}"
        return f"{self.result._repr_html_()}<p>{html.escape(self.result.exercise.id)}: <b>{count}</b></p>"


def grade(exercise: str | Exercise, mine: Any) -> Grade:
    """Checks an answer as `check` does and gives the points for it.

    While nbgrader grades, nothing is remembered: the progress file would be the instructor's.

    Args:
        exercise: the id of an exercise.
        mine: the student's function, class or value.

    Returns:
        The grade; a notebook shows the verdict, and nbgrader reads the points.

    Raises:
        ValueError: no exercise has this id.
    """
    exercise = find(exercise) if isinstance(exercise, str) else exercise
    # nbgrader takes any line on the error stream for a failed test, a mere warning of torch's as well.
    with redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = _verdict(exercise, mine)
    return Grade(result, worth(exercise) if result.passed else 0, worth(exercise))


def worth(exercise: Exercise) -> int:
    """Points of an exercise."""
    return exercise.difficulty


def _verdict(exercise: Exercise, mine: Any) -> CheckResult:
    """The first seed's verdict if it is a failure, or else the first failure on the other seeds."""
    if is_the_courses(exercise, mine) or os.environ.get("NBGRADER_EXECUTION") != "autograde":
        result = check(exercise, mine)
    else:
        result = judge(exercise, mine)
    others = (judge(exercise, mine, seed) for seed in SEEDS[1:]) if result.passed else ()
    return next((other for other in others if not other.passed), result)


# ---- What makes the assignment -----------------------------------------------------------------------------


def assignment(chapter: Chapter) -> NotebookNode:
    """The chapter as nbgrader's source notebook, without outputs.

    Cells tagged `train` are skipped when nbgrader runs the notebook; in JupyterLab they run as always.

    Raises:
        ValueError: an exercise's stub is not followed at once by its check.
    """
    notebook = copy.deepcopy(chapter.notebook)
    notebook.metadata.pop("sora_edu", None)
    notebook.cells.insert(1, _about(chapter))
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if cell.cell_type == "markdown":
            cell.source = _LOCAL_LINK.sub(r"\1", cell.source)  # there are no other files in the folder
            continue
        cell.outputs, cell.execution_count = [], None
        if "train" in tags(cell):
            cell.metadata["tags"] = [*tags(cell), "skip-execution"]
        if exercise_id := ours(cell).get("exercise"):
            _mark(cell, following, find(exercise_id))
    return notebook


def answer_source(exercise: Exercise) -> str:
    """The course's answer as a cell that can stand behind the stub."""
    if exercise.kind == "value":
        return f"{exercise.called} = {exercise.reference()!r}"
    return standalone(exercise.reference, exercise.called)


def _about(chapter: Chapter) -> NotebookNode:
    total = sum(map(worth, chapter.exercises))
    text = (
        f"**This copy of the chapter is graded.** Its {len(chapter.exercises)} exercises are worth {total} "
        "points together. The cell below an exercise shows your points whenever you run it, and you may try "
        "as often as you like. Write into the cell above it, not into the locked one."
    )
    return new_markdown_cell(text, id="about-grading", metadata={"slideshow": {"slide_type": "skip"}})


def _mark(stub: NotebookNode, following: NotebookNode | None, exercise: Exercise) -> None:
    """Makes a stub and the check behind it a solution cell and a cell of tests."""
    asked = f'check("{exercise.id}", {exercise.called})'
    if following is None or following.source.strip() != asked:
        raise ValueError(f"exercise {exercise.id}: the cell after its stub is not {asked}, and nothing else")
    name = exercise.id.replace(".", "-")
    stub.source = "\n".join([stub.source, BEGIN, answer_source(exercise), END])
    stub.metadata["nbgrader"] = _schema(name, solution=True)
    following.source = f"from sora_edu.teach.grading import grade\n\ngrade{asked.removeprefix('check')}"
    following.metadata["nbgrader"] = _schema(f"{name}-test", grade=True, locked=True, points=worth(exercise))


def _schema(name: str, **fields: Any) -> dict[str, Any]:
    """A cell's metadata in nbgrader's schema version 3, which allows these keys and no others."""
    plain = {"grade": False, "grade_id": name, "locked": False, "schema_version": 3}
    return {**plain, "solution": False, "task": False, **fields}


def handed_in(released: NotebookNode, answers: Callable[[Exercise], str | None]) -> NotebookNode:
    """A student's copy of a released assignment.

    Args:
        released: the assignment as students get it.
        answers: an exercise -> the text that the student writes into its cell; None leaves the stub.
    """
    notebook = copy.deepcopy(released)
    for cell in notebook.cells:
        if (exercise_id := ours(cell).get("exercise")) and (text := answers(find(exercise_id))) is not None:
            cell.source = text
    return notebook


def slip_source(exercise: Exercise, slip: str) -> str:
    """A cell in which the answer is a known slip, as its wrong program."""
    call = "wrong()" if exercise.kind == "value" else "wrong"
    return (
        "from sora_edu.teach.exercise import find as _find\n"
        f'_slips = {{slip.id: slip for slip in _find("{exercise.id}").misconceptions}}\n'
        f'{exercise.called} = _slips["{slip}"].{call}'
    )


def write_assignments(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Writes the source notebooks of some chapters into nbgrader's folder `source`."""
    written = []
    for path in paths:
        target = folder / path.stem / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, assignment(Chapter(path.stem, read(path))))
        written.append(target)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sora_edu.teach.grading", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    options = parser.parse_args(arguments)
    paths = options.notebooks or sorted(Path("notebooks").glob("[0-9][0-9]_*.ipynb"))
    if missing := [path for path in paths if not path.is_file()] or not paths:
        parser.error(f"no such notebook: {missing if paths else 'notebooks/NN_….ipynb'}")
    for target in write_assignments(paths, options.folder):
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
