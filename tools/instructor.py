"""What an instructor gets out of the chapters themselves.

    python tools/instructor.py guide        docs/instructor_chapters.md: goals, times, slips, questions
    python tools/instructor.py solutions    _build/solutions/: the chapters solved, the answers of the exam

The guide is made from the notebooks (goals, measured times), the exercises (minutes, known slips) and
`docs/teaching/` (questions, syllabi); a test asks that it is current. Answers of exam questions stand beside
their questions in `docs/teaching/NN.toml`, so that neither is changed without the other, and are left out of
every page that students are given.
"""

import argparse
import copy
import html
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from sora_edu.files import write_whole
from sora_edu.teach.anatomy import Chapter, ours
from sora_edu.teach.exercise import Exercise
from sora_edu.teach.grading import answer_source, worth
from sora_edu.teach.notebooks import read, write

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "instructor_chapters.md"
TEACHING = ROOT / "docs" / "teaching"
SOLUTIONS = ROOT / "_build" / "solutions"

TALK = 2
"""Minutes of talk for a minute of reading: a rule of thumb, the one number here that nobody measured."""

DIFFICULTY = {1: "easy", 2: "medium", 3: "hard"}

OPENING = """# Chapter by chapter, for the instructor

This page is made by `python tools/instructor.py guide` out of the notebooks, the exercises and
`docs/teaching/`. How to use it stands in the [instructor guide](instructor_guide.md).

Reading times count 200 words a minute, exercise times are what each exercise plans, and running times were
measured on two cores; all three are those of the chapters' title pages. The column "with talk" of the syllabi
takes {talk} minutes of talk for a minute of reading: a rule of thumb that nobody measured.
"""


@dataclass(frozen=True)
class Exam:
    """A question with its answer."""

    question: str
    answer: str
    points: int


@dataclass(frozen=True)
class Teaching:
    """What `docs/teaching/NN.toml` holds."""

    discussion: tuple[str, ...]
    """Questions without one right answer."""
    exam: tuple[Exam, ...]
    """Questions with one."""


def teaching(number: str) -> Teaching:
    """The questions of a chapter, such as "03".

    Raises:
        ValueError: the file has other fields.
    """
    path = TEACHING / f"{number}.toml"
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    if set(entries) != {"discussion", "exam"}:
        raise ValueError(f"{path}: the fields are {sorted(entries)}; discussion and exam would do")
    try:
        exam = tuple(Exam(**entry) for entry in entries["exam"])
    except TypeError as error:
        raise ValueError(f"{path}: an exam question has question, answer and points: {error}") from None
    return Teaching(tuple(entries["discussion"]), exam)


def chapters() -> dict[str, Chapter]:
    """The chapters that are there, by number."""
    paths = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return {path.stem[:2]: Chapter(path.stem, read(path)) for path in paths}


# ---- The guide ---------------------------------------------------------------------------------------------


def guide() -> str:
    """The whole page."""
    found = chapters()
    parts = [OPENING.format(talk=TALK), "## Syllabi\n", *(_syllabus(entry, found) for entry in syllabi())]
    return "\n".join([*parts, *(_chapter(number, chapter) for number, chapter in found.items())])


def syllabi() -> list[dict]:
    """The syllabi of `docs/teaching/syllabi.toml`."""
    return tomllib.loads((TEACHING / "syllabi.toml").read_text(encoding="utf-8"))["syllabus"]


def minutes(session: dict, found: dict[str, Chapter]) -> tuple[int, int, float] | None:
    """Minutes of reading, exercises and running that a session takes; None: a chapter is not there yet."""
    if not set(session["chapters"]) <= set(found):
        return None
    asked = [found[number] for number in session["chapters"]]
    chosen = session.get("exercises", [name for chapter in asked for name in chapter.exercise_ids])
    exercises = {exercise.id: exercise for chapter in asked for exercise in chapter.exercises}
    times = [ours(chapter.notebook)["times"] for chapter in asked]
    done = sum(exercises[name].minutes for name in chosen)
    return sum(t["reading"] for t in times), done, round(sum(t["run"] for t in times), 1)


def hours(session: dict, found: dict[str, Chapter]) -> float | None:
    """Hours of a session: talk, exercises, running."""
    taken = minutes(session, found)
    return None if taken is None else (TALK * taken[0] + taken[1] + taken[2]) / 60


def _syllabus(entry: dict, found: dict[str, Chapter]) -> str:
    lines = [f"### {entry['name']}", "", entry["about"], ""]
    lines += ["| session | chapters | exercises | reading | exercises, min | running | with talk |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for session in entry["session"]:
        names = ", ".join(f"`{name}`" for name in session.get("exercises", [])) or "all"
        taken, total = minutes(session, found), hours(session, found)
        cells = [f"{n:g} min" for n in taken] if taken else ["not measured yet"] * 3
        lines.append(
            f"| {session['title']} | {', '.join(session['chapters'])} | {names} | {' | '.join(cells)} | "
            + (f"{total:.1f} h |" if total is not None else "not measured yet |")
        )
    return "\n".join([*lines, ""])


def _chapter(number: str, chapter: Chapter) -> str:
    title, asked, times = chapter.headings[0][1], teaching(number), ours(chapter.notebook)["times"]
    lines = [f"## {title}", "", "**Afterwards a student can**", "", *_goals(chapter), "", "**Time**", ""]
    lines += [
        f"Reading {times['reading']} minutes, exercises {times['exercises']}, running {times['run']:g} "
        f"({times['run_float32']:g} in plain float32).",
        "",
        "| exercise | | minutes | difficulty | points | known slips |",
        "|---|---|---|---|---|---|",
        *map(_row, chapter.exercises),
        "",
        "**What goes wrong**",
        "",
        *(line for exercise in chapter.exercises for line in _slips(exercise)),
        "",
        "**To discuss**",
        "",
        *(f"{place}. {question}" for place, question in enumerate(asked.discussion, 1)),
        "",
        "**For an exam**",
        "",
        *(f"{place}. {q.question} *({_points(q.points)})*" for place, q in enumerate(asked.exam, 1)),
        "",
    ]
    return "\n".join(lines)


def _goals(chapter: Chapter) -> list[str]:
    (cell,) = [cell for cell in chapter.markdown if ours(cell).get("part") == "goals"]
    return re.findall(r"^- .*(?:\n  .*)*", cell.source, re.MULTILINE)


def _row(exercise: Exercise) -> str:
    cells = (f"`{exercise.id}`", exercise.title, exercise.minutes, DIFFICULTY[exercise.difficulty])
    return f"| {' | '.join(map(str, cells))} | {worth(exercise)} | {len(exercise.misconceptions)} |"


def _slips(exercise: Exercise) -> list[str]:
    return [f"- `{exercise.id}`", *(f"    - {slip.title}" for slip in exercise.misconceptions)]


def _points(number: int) -> str:
    return f"{number} point{'' if number == 1 else 's'}"


# ---- Solutions ---------------------------------------------------------------------------------------------


def solutions(folder: Path) -> Iterator[Path]:
    """Writes the chapters solved, and a page of all answers that needs no network to be read."""
    folder.mkdir(parents=True, exist_ok=True)
    found = chapters()
    for chapter in found.values():
        path = folder / f"{chapter.name}.ipynb"
        write(path, solved_to_read(chapter.notebook, chapter.exercises))
        yield path
    path = folder / "answers.html"
    write_whole(path, answers(found).encode())
    yield path


def solved_to_read(notebook: NotebookNode, exercises: Sequence[Exercise]) -> NotebookNode:
    """The notebook with the course's answers in place of the stubs, for a person to read and run.

    Outputs stay, but those of the checks, which belong to the stubs.
    """
    copied, known = copy.deepcopy(notebook), {exercise.id: exercise for exercise in exercises}
    for cell in copied.cells:
        if cell.cell_type == "code" and (name := ours(cell).get("exercise")):
            cell.source = answer_source(known[name])
        if cell.cell_type == "code" and re.search(r"\bcheck\(", cell.source):
            cell.outputs, cell.execution_count = [], None
    return copied


def answers(found: dict[str, Chapter]) -> str:
    """One page with the answers of all exercises and exam questions."""
    parts = []
    for number, chapter in found.items():
        parts.append(f"<h2>{html.escape(chapter.headings[0][1])}</h2>")
        for exercise in chapter.exercises:
            parts.append(f"<h3><code>{exercise.id}</code> {html.escape(exercise.title)}</h3>")
            parts.append(f"<pre>{html.escape(answer_source(exercise), quote=False)}</pre>")
        parts.append("<h3>Exam questions</h3><ol>")
        for asked in teaching(number).exam:
            question, answer = (html.escape(text, quote=False) for text in (asked.question, asked.answer))
            parts.append(
                f"<li><p>{question} ({_points(asked.points)})</p><p><b>Answer.</b> {answer}</p></li>"
            )
        parts.append("</ol>")
    return PAGE.format(body="\n".join(parts))


PAGE = """<!doctype html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Answers, for the instructor</title>
<style>
body {{ font: 1rem/1.5 sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
pre {{ background: #F0F3F5; padding: .8rem; overflow-x: auto; }}
</style>
</head>
<body>
<h1>Answers, for the instructor</h1>
{body}
</body>
</html>
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python tools/instructor.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=["guide", "solutions"])
    options = parser.parse_args(arguments)
    if options.command == "guide":
        write_whole(GUIDE, guide().encode())
        print(GUIDE)
    else:
        for path in solutions(SOLUTIONS):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
