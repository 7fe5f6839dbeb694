"""The commands that run, time and solve notebooks, on a notebook of a few cells."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sora_edu.teach import notebooks
from sora_edu.teach.anatomy import HELP, code_hash
from sora_edu.teach.notebooks import execute, link, main, read, solved, stamp, write

WIDGET = """
from IPython.display import display
view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "a slider"}
display(view, raw=True)
"""
STATE = "import os; print(os.environ['SORA_EDU_STATIC'], os.path.basename(os.getcwd()))"


def _stub(source: str, name: str = "toy.double"):
    return new_code_cell(source, metadata={"sora_edu": {"exercise": name}})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A notebook on disk."""
    cells = [new_markdown_cell("# Toy"), new_code_cell(STATE), new_code_cell(WIDGET)]
    file = tmp_path / "99_toy.ipynb"
    write(file, new_notebook(cells=cells))
    return file


def test_run_freshens_outputs_and_leaves_no_trace_of_the_machine(path: Path, capsys):
    ids = [cell.id for cell in read(path).cells]
    assert main(["run", str(path)]) == 0
    notebook = read(path)
    assert [cell.id for cell in notebook.cells] == ids
    assert notebook.cells[1].outputs[0].text == f"1 {path.parent.name}\n"
    assert notebook.cells[2].outputs[0].data == {"text/plain": "a slider"}
    assert notebook.metadata.sora_edu.executed == code_hash(notebook)
    assert not any("execution" in cell.metadata for cell in notebook.cells)
    assert "widgets" not in notebook.metadata and "version" not in notebook.metadata.language_info
    once = path.read_bytes()
    assert main(["run", str(path)]) == 0
    assert path.read_bytes() == once


def test_a_cell_that_fails_leaves_the_file_as_it_was(path: Path, capsys):
    notebook = read(path)
    notebook.cells.append(new_code_cell("1 / 0"))
    write(path, notebook)
    before = path.read_bytes()
    assert main(["run", str(path)]) == 1
    assert path.read_bytes() == before
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_time_measures_alone_and_writes_the_times_between_the_marks(path: Path, monkeypatch):
    """Two real runs by a clock of our own, on which the first takes 27 seconds and the second 75."""
    clock = iter([0.0, 27.0, 100.0, 175.0])
    monkeypatch.setattr(notebooks, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.delenv("SORA_EDU_DTYPE", raising=False)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    notebook = read(path)
    notebook.cells[0].source += "\n\n<!-- times --><!-- /times -->\n\nThe end."
    kernel = "(os.environ.get('SORA_EDU_DTYPE', '-'), os.environ['OMP_NUM_THREADS'])"
    notebook.cells[1].source = f"import os\nwith open('seen', 'a') as file:\n    print(*{kernel}, file=file)"
    write(path, notebook)
    assert main(["time", str(path)]) == 0
    assert (path.parent / "seen").read_text() == "- 2\nfloat32 2\n"
    notebook = read(path)
    times = notebook.metadata.sora_edu.times
    assert times.reading == 1 and times.exercises == 0 and times.code == code_hash(notebook)
    assert (times.run, times.run_float32) == (0.5, 1.3)
    said = f"Reading 1 minute, running {times.run:g} minutes on two cores"
    said += f" ({times.run_float32:g} in plain float32)."
    assert f"<!-- times -->{said}<!-- /times -->\n\nThe end." in notebook.cells[0].source
    assert cores is None or os.sched_getaffinity(0) == cores


def test_times_stand_below_the_title_where_there_are_no_marks():
    notebook = new_notebook(cells=[new_markdown_cell("# Toy")])
    times = {"reading": 3, "exercises": 20, "run": 1.2, "run_float32": 2.0}
    stamp(notebook, times)
    stamp(notebook, {**times, "reading": 4})
    source = notebook.cells[0].source
    assert source.startswith("# Toy\n\n<!-- times -->Reading 4 minutes, exercises 20 minutes")
    assert source.count("Reading") == 1


@pytest.mark.parametrize(
    ("source", "name", "kept"),
    [
        ("def f(x):\n    raise NotImplementedError", "f", []),
        (
            "import math\n\n@torch.no_grad()\ndef f(x):\n    y = ...\n    return y\n\nf(1)",
            "f",
            ["import math", "f(1)"],
        ),
        ("class F:\n    def forward(self):\n        raise NotImplementedError('write me')", "F", []),
        ("mine = ...\nmine", "mine", ["mine"]),
    ],
)
def test_stubs_give_way_to_the_answers(source: str, name: str, kept: list[str]):
    lines = solved(new_notebook(cells=[_stub(source)])).cells[0].source.splitlines()
    answered = ["from sora_edu.teach.pasted import pasted as _pasted", f'{name} = _pasted("toy.double")']
    at = lines.index(answered[0])
    assert lines[at : at + 2] == answered
    assert [line for line in lines[:at] + lines[at + 2 :] if line] == kept


@pytest.mark.parametrize("source", ["x = 1", "def f(x):\n    ...\n\ndef g(x):\n    ..."])
def test_an_exercise_without_exactly_one_stub_is_refused(source: str):
    with pytest.raises(ValueError, match=r"toy\.double: its cell holds [02] stubs"):
        solved(new_notebook(cells=[_stub(source)]))


def test_the_solved_run_passes_over_training_and_the_original_stays(tmp_path: Path):
    train = new_code_cell("raise RuntimeError('training')", metadata={"tags": ["train"]})
    notebook = new_notebook(cells=[train, new_code_cell("1 + 1", execution_count=7)])
    copied = solved(notebook)
    execute(copied, tmp_path)
    assert copied.cells[0].execution_count is None and copied.cells[1].outputs[0].data["text/plain"] == "2"
    assert notebook.cells[1].execution_count == 7 and "skip-execution" not in str(notebook.cells[0].metadata)


def test_progress_of_a_run_is_not_the_users_own(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SORA_EDU_HOME", str(tmp_path / "user"))
    cell = new_code_cell("import os; open(os.path.join(os.environ['SORA_EDU_HOME'], 'x'), 'w').close()")
    (tmp_path / "kept").mkdir()
    execute(new_notebook(cells=[cell]), tmp_path, SORA_EDU_HOME=str(tmp_path / "kept"))
    execute(new_notebook(cells=[cell]), tmp_path)
    assert [file.name for file in tmp_path.rglob("x")] == ["x"] and not (tmp_path / "user").exists()


def test_check_lists_what_is_missing(path: Path, capsys):
    assert main(["check", str(path)]) == 1
    assert "no cell opens the part 'promise'" in capsys.readouterr().out


def test_link_ends_the_prose_with_the_links_once_and_changes_nothing_else(path: Path):
    before = read(path)
    for _ in range(2):
        assert main(["link", str(path)]) == 0
    after = read(path)
    assert after.cells[0].source == f"# Toy\n\n{HELP}"
    after.cells[0].source = before.cells[0].source
    assert after == before
    after.cells.append(new_markdown_cell("More."))
    link(after)
    link(after)
    assert HELP not in after.cells[0].source and after.cells[-1].source == f"More.\n\n{HELP}"


@pytest.mark.parametrize("arguments", [["run", "nowhere.ipynb"], ["jump"], []])
def test_bad_arguments_are_refused(arguments: list[str], capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path, capsys):
    (tmp_path / "x.ipynb").write_text("{")
    assert main(["check", str(tmp_path / "x.ipynb")]) == 1
    assert "x.ipynb" in capsys.readouterr().err
