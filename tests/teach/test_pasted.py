"""A solution runs where it is pasted: in a namespace that holds nothing."""

import re
from pathlib import Path

import nbformat
import pytest

from sora_edu.teach.engine import judge
from sora_edu.teach.exercise import every, find
from sora_edu.teach.pasted import pasted, standalone

WRITTEN = [exercise for exercise in every() if exercise.kind != "value"]


@pytest.mark.parametrize("exercise", WRITTEN, ids=lambda exercise: exercise.id)
def test_a_solution_can_be_pasted_and_passes(exercise):
    mine, text = pasted(exercise.id), standalone(exercise.reference, "mine")
    assert mine is not exercise.reference
    assert judge(exercise, mine).passed
    assert "->" not in text.split('"""')[0]
    assert exercise.reference.__doc__ is None or exercise.reference.__doc__.splitlines()[0] in text


NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_solution_has_the_name_that_the_notebook_checks(path):
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    checked = [found for source in cells for found in re.findall(r'check\("([\w.]+)", (\w+)\)', source)]
    assert checked
    for exercise, name in ((find(exercise_id), name) for exercise_id, name in checked):
        if exercise.kind == "function":
            assert name == exercise.called


FACTOR = 3


def _commented(x: int, *, twice: float = 2.0) -> dict[str, "list[int]"]:
    """Says ü."""
    y: int = FACTOR * x  # a comment that stays
    return {"y": [y, twice]}


def test_annotations_go_and_the_rest_stays():
    text = standalone(_commented, "mine")
    assert text.startswith("FACTOR = 3\n\n\ndef mine(x, *, twice = 2.0):")
    assert "# a comment that stays" in text and "Says ü." in text
    namespace = {}
    exec(text, namespace)
    assert namespace["mine"](2) == {"y": [6, 2.0]}
