"""The catalogue of known slips, written out of the exercises themselves.

    python -m sora_edu.teach.catalogue docs/misconceptions.md

Beside each slip stand its evidence and its hints, and each exercise has its confusion matrix: which slip the
engine names when it is shown which. A diagonal says that no slip is taken for another or passes.
"""

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from sora_edu.files import write_whole
from sora_edu.teach.engine import judge, subject_of
from sora_edu.teach.exercise import Exercise, every

_OPENING = """# The catalogue of known slips

Every exercise of the course knows the usual ways of getting it wrong, as code that gets it wrong. Where a
learner's answer behaves exactly like one of them, the check names it. This page is made from the exercises
themselves:

    python -m sora_edu.teach.catalogue docs/misconceptions.md

Under each exercise stands its confusion matrix: a row for each slip, handed to the check, and a column for
what the check calls it. "none" is a wrong answer that is given no name. All marks belong on the diagonal.
"""


def confusion(exercise: Exercise, seed: int = 0) -> list[list[int]]:
    """Counts what the engine calls each slip.

    Args:
        exercise: the exercise.
        seed: seed of its cases.

    Returns:
        A row for each misconception, and columns for the misconceptions in the same order, then "none", then
        "passed".
    """
    names = [misconception.id for misconception in exercise.misconceptions]
    rows = []
    for misconception in exercise.misconceptions:
        result = judge(exercise, subject_of(exercise, misconception.wrong), seed)
        named = result.misconception.id if result.misconception else "passed" if result.passed else "none"
        rows.append([int(name == named) for name in (*names, "none", "passed")])
    return rows


def page(exercises: Sequence[Exercise]) -> str:
    """The catalogue of some exercises as Markdown."""
    parts = [_OPENING]
    for chapter, group in groupby(exercises, key=lambda exercise: exercise.chapter):
        parts.append(f"## {chapter}\n")
        parts.extend(_exercise_section(exercise) for exercise in group)
    return "\n".join(parts)


def _exercise_section(exercise: Exercise) -> str:
    lines = [f"### `{exercise.id}`: {exercise.title}", ""]
    for number, slip in enumerate(exercise.misconceptions, 1):
        lines += [
            f'{number}. **{slip.id}**: {slip.title}. Put right in "{slip.section}".',
            f"    - Evidence: {slip.evidence}",
            f"    - Hints: {' / '.join(slip.hints)}",
        ]
    columns = [*map(str, range(1, len(exercise.misconceptions) + 1)), "none", "passed"]
    lines += ["", f"| slip | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for slip, row in zip(exercise.misconceptions, confusion(exercise), strict=True):
        lines.append(f"| {slip.id} | {' | '.join('x' if count else '' for count in row)} |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> int:
    """Writes the catalogue of the whole course to the file named, or prints it."""
    text = page(every())
    if arguments:
        write_whole(Path(arguments[0]), text.encode())
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
