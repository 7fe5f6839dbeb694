"""A solution runs where it is pasted: in a namespace that holds nothing."""

import pytest

from sora_edu.teach.engine import judge
from sora_edu.teach.exercise import every
from sora_edu.teach.pasted import pasted, standalone

WRITTEN = [exercise for exercise in every() if exercise.kind != "value"]


@pytest.mark.parametrize("exercise", WRITTEN, ids=lambda exercise: exercise.id)
def test_a_solution_can_be_pasted_and_passes(exercise):
    mine, text = pasted(exercise.id), standalone(exercise.reference, "mine")
    assert mine is not exercise.reference
    assert judge(exercise, mine).passed
    assert "->" not in text.split('"""')[0]
    assert exercise.reference.__doc__ is None or exercise.reference.__doc__.splitlines()[0] in text


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
