"""Each notebook with its exercises solved runs to the end, and every check in it passes."""

import json
from pathlib import Path

import pytest

from sora_edu.teach.anatomy import Chapter
from sora_edu.teach.notebooks import execute, read, solved

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_solved_notebook_passes_its_checks(path: Path, tmp_path: Path):
    notebook = read(path)
    execute(solved(notebook), path.parent, SORA_EDU_HOME=str(tmp_path))
    exercises = set(Chapter(path.stem, notebook).exercise_ids)
    saved = tmp_path / "progress.json"
    records = json.loads(saved.read_text(encoding="utf-8"))["exercises"] if saved.exists() else {}
    assert {name for name, record in records.items() if record["passed"]} >= exercises
