"""Take chapters through nbgrader itself: release, hand in, autograde, give feedback, and compare the points.

    python tools/nbgrader_round_trip.py                     one chapter, a slip for each exercise
    python tools/nbgrader_round_trip.py 03 07 --slips all   two chapters with every catalogued slip

nbgrader gets an environment of its own, `_build/nbgrader/env`, with the versions in
`tools/nbgrader_constraints.txt`; the notebooks' kernel is the Python that runs this script, which has the
course. For each chapter these students hand in:

    solved      the course's answer to every exercise: all points
    empty       the notebook as it was released: no points
    slip-...    the course's answers, and a known slip: all points but those of its exercise, and the
                feedback names the slip

With `--slips all` every catalogued slip is handed in. So that a class of twenty will do, each student then
makes a slip in every second exercise: the points of those are lost, and those between are kept.

Exit code 1: a score or a page of feedback is not as it should be. `--record` writes the figures to
`benchmarks/nbgrader_round_trip.json`.
"""

import argparse
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sora_edu.files import write_whole
from sora_edu.teach.anatomy import Chapter, ours
from sora_edu.teach.exercise import Exercise, Misconception
from sora_edu.teach.grading import BEGIN, answer_source, handed_in, slip_source, worth, write_assignments
from sora_edu.teach.notebooks import read, write

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "_build" / "nbgrader"
ENVIRONMENT = COURSE / "env"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PINS = ROOT / "tools" / "nbgrader_constraints.txt"
RECORD = ROOT / "benchmarks" / "nbgrader_round_trip.json"

CONFIG = """# Made by tools/nbgrader_round_trip.py; docs/grading.md explains each line.
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "sora_edu"
c.ClearSolutions.code_stub = {"python": ""}  # the stub stands above the solution and stays
c.ExecutePreprocessor.timeout = 600
"""

ASK = """
import json, sys
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db") as book:
    found = [
        [submission.student.id, grade.cell.name, grade.score, grade.max_score]
        for submission in book.assignment_submissions(sys.argv[1])
        for notebook in submission.notebooks
        for grade in notebook.grades
    ]
print(json.dumps(found))
"""


@dataclass
class Student:
    """Somebody who hands in a chapter."""

    name: str
    exercises: list[Exercise]
    """All exercises of the chapter."""
    answers: dict[str, str] = field(default_factory=dict)
    """Exercise id -> the text of its cell; the others keep their stubs."""
    wrong: dict[str, str] = field(default_factory=dict)
    """Exercise id that earns nothing -> words that the feedback must hold."""

    def expected(self) -> dict[str, float]:
        """Points by nbgrader's name of the cell."""
        return {
            cell_of(exercise): 0.0 if exercise.id in self.wrong else float(worth(exercise))
            for exercise in self.exercises
        }


def cell_of(exercise: Exercise) -> str:
    """nbgrader's name of an exercise's cell of tests."""
    return f"{exercise.id.replace('.', '-')}-test"


def students(exercises: list[Exercise], slips: str) -> Iterator[Student]:
    """The class: see the module."""
    right = {exercise.id: answer_source(exercise) for exercise in exercises}
    yield Student("solved", exercises, right)
    yield Student("empty", exercises, {}, {exercise.id: "not attempted yet" for exercise in exercises})
    for number, made in enumerate(plans(exercises, slips), 1):
        wrong = {exercise.id: slip_source(exercise, slip.id) for exercise, slip in made.items()}
        said = {exercise.id: f"This is a known slip: {slip.title}." for exercise, slip in made.items()}
        yield Student(f"slip-{number:02}", exercises, {**right, **wrong}, said)


def plans(exercises: list[Exercise], slips: str) -> list[dict[Exercise, Misconception]]:
    """Who makes which slips: each student in one exercise, or in every second one until none is left."""
    if slips == "first":
        return [{exercise: exercise.misconceptions[0]} for exercise in exercises]
    return [
        {exercise: exercise.misconceptions[k] for exercise in group if k < len(exercise.misconceptions)}
        for group in (exercises[::2], exercises[1::2])
        for k in range(max((len(exercise.misconceptions) for exercise in group), default=0))
    ]


def make_environment() -> None:
    """nbgrader, with its pins, where it is not there yet."""
    probe = [str(PYTHON), "-c", "import nbgrader"]
    if PYTHON.exists() and subprocess.run(probe, capture_output=True).returncode == 0:
        return
    print(f"Making nbgrader's environment in {ENVIRONMENT}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(PINS), "nbgrader"], check=True)


def make_course() -> None:
    """An empty course folder, with a kernel that has `sora_edu`."""
    COURSE.mkdir(parents=True, exist_ok=True)
    for name in ("source", "release", "submitted", "autograded", "feedback", "jupyter", "progress"):
        shutil.rmtree(COURSE / name, ignore_errors=True)
    (COURSE / "gradebook.db").unlink(missing_ok=True)
    (COURSE / "nbgrader_config.py").write_text(CONFIG)
    kernel = COURSE / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    description = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(description))


def nbgrader(*arguments: str) -> str:
    """Runs nbgrader in the course's folder and gives what it printed.

    Raises:
        SystemExit: it failed.
    """
    variables = {
        "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}",  # it calls alembic by name
        "JUPYTER_PATH": str(COURSE / "jupyter"),
        "JUPYTER_CONFIG_DIR": str(COURSE / "jupyter"),
        "SORA_EDU_HOME": str(COURSE / "progress"),
        "SORA_EDU_STATIC": "1",
    }
    done = subprocess.run(
        [str(PYTHON), *arguments], cwd=COURSE, env={**os.environ, **variables}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def check_release(chapter: Chapter, released: Chapter) -> None:
    """The released stubs are the chapter's own, and no answer is left in.

    Raises:
        SystemExit: they are not.
    """

    def stubs(of: Chapter) -> dict[str, str]:
        return {ours(cell)["exercise"]: cell.source.strip() for cell in of.code if "exercise" in ours(cell)}

    if stubs(chapter) != stubs(released) or any(BEGIN in cell.source for cell in released.code):
        raise SystemExit(f"{chapter.name}: the release does not hold the chapter's stubs")


def round_trip(path: Path, slips: str) -> dict:
    """One chapter, there and back.

    Returns:
        The number of exercises, points, submissions and slips, and `faults`: what is not as it should be,
        one line each.
    """
    name, chapter = path.stem, Chapter(path.stem, read(path))
    write_assignments([path], COURSE / "source")
    nbgrader("-m", "nbgrader", "generate_assignment", name, "--force")
    released = read(COURSE / "release" / name / path.name)
    check_release(chapter, Chapter(name, released))
    course = list(students(chapter.exercises, slips))
    for student in course:
        target = COURSE / "submitted" / student.name / name / path.name
        target.parent.mkdir(parents=True)
        write(target, handed_in(released, lambda exercise, of=student: of.answers.get(exercise.id)))
    nbgrader("-m", "nbgrader", "autograde", name)
    nbgrader("-m", "nbgrader", "generate_feedback", name)
    return report_on(path, course)


def report_on(path: Path, course: list[Student]) -> dict:
    """What nbgrader's gradebook and feedback say of a class, and where that is not as it should be."""
    name, exercises = path.stem, course[0].exercises
    found: dict[str, dict[str, float]] = {}
    for who, cell, score, _ in json.loads(nbgrader("-c", ASK, name)):
        found.setdefault(who, {})[cell] = score
    faults = [line for student in course for line in compare(student, found.get(student.name, {}), path)]
    return {
        "exercises": len(exercises),
        "points": sum(map(worth, exercises)),
        "submissions": len(course),
        "slips": sum(len(student.wrong) for student in course[2:]),
        "faults": faults,
    }


def compare(student: Student, scores: dict[str, float], path: Path) -> Iterator[str]:
    """What is wrong with a student's points and feedback."""
    if scores != student.expected():
        yield f"{path.stem}, {student.name}: points {scores}; expected {student.expected()}"
    page = COURSE / "feedback" / student.name / path.stem / f"{path.stem}.html"
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))))
    for exercise_id, said in student.wrong.items():
        verdict = (
            f"{exercise_id}: not yet. {said}" if said.startswith("This is") else f"{exercise_id}: {said}"
        )
        if verdict.replace("`", "") not in text:
            yield f"{path.stem}, {student.name}: the feedback does not say: {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("chapters", nargs="*", metavar="NN", help="numbers of chapters (default: 02)")
    parser.add_argument(
        "--slips", choices=["first", "all"], default="first", help="first or all of an exercise"
    )
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.relative_to(ROOT)}")
    options = parser.parse_args()
    paths = {path.stem[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    if unknown := set(options.chapters) - set(paths):
        parser.error(f"no chapter {', '.join(sorted(unknown))}; there is {', '.join(paths)}")
    make_environment()
    make_course()
    print(nbgrader("-m", "nbgrader", "--version").splitlines()[-1], flush=True)
    report = json.loads(RECORD.read_text()) if options.record and RECORD.exists() else {}
    for number in options.chapters or ["02"]:
        made = report[paths[number].stem] = round_trip(paths[number], options.slips)
        print(
            f"{paths[number].stem}: {made['submissions']} submissions ({made['slips']} slips), "
            f"{made['points']} points, {len(made['faults'])} faults",
            *made["faults"], sep="\n  ", flush=True,
        )  # fmt: skip
        if options.record:
            write_whole(RECORD, (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
    print(f"Source, release, submissions, gradebook and feedback are in {COURSE}")
    return int(any(report[paths[number].stem]["faults"] for number in options.chapters or ["02"]))


if __name__ == "__main__":
    sys.exit(main())
