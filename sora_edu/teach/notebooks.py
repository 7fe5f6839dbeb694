"""Commands for whoever edits the notebooks.

    python -m sora_edu.teach.notebooks run   [NOTEBOOK...]    runs them in place, for fresh outputs
    python -m sora_edu.teach.notebooks link  [NOTEBOOK...]    ends their prose with the links to help
    python -m sora_edu.teach.notebooks time  [NOTEBOOK...]    measures their times and writes them in
    python -m sora_edu.teach.notebooks check [NOTEBOOK...]    says where they fall short of the anatomy

Without names they take all notebooks of the folder `notebooks`. `sora_edu.teach.anatomy` lists the metadata
that a chapter's cells carry.
"""

import argparse
import ast
import copy
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from sora_edu.files import write_whole
from sora_edu.teach.anatomy import HELP, MAX_BYTES, TIMES, Chapter, code_hash, ours, tags, violations

CELL_SECONDS = 600
"""Time after which a cell counts as stuck."""

_CORES = 2
_TIMES = re.compile(TIMES, re.DOTALL)
_HELP = re.compile("<!-- help -->.*?<!-- /help -->", re.DOTALL)
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def read(path: Path) -> NotebookNode:
    """Reads a notebook of format version 4."""
    return nbformat.read(path, as_version=4)


def write(path: Path, notebook: NotebookNode) -> None:
    """Writes a notebook whole or not at all."""
    nbformat.validate(notebook)
    write_whole(path, (nbformat.writes(notebook).rstrip("\n") + "\n").encode())


def execute(notebook: NotebookNode, folder: Path, seconds: int = CELL_SECONDS, **variables: str) -> None:
    """Runs a notebook's cells in a fresh kernel and keeps their outputs in it.

    Widgets show their static fallback, and the exercises' progress goes to a folder that is thrown away.

    Args:
        notebook: what to run; cells tagged `skip-execution` are passed over.
        folder: the kernel's working folder.
        seconds: time after which a cell counts as stuck.
        **variables: environment variables for the kernel.

    Raises:
        CellExecutionError: a cell failed that is not tagged `raises-exception`.
    """
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        coalesce_streams=True,
    )
    with tempfile.TemporaryDirectory() as home:
        fixed = {"SORA_EDU_HOME": home, "SORA_EDU_STATIC": "1"}
        client.execute(env={**os.environ, **fixed, **variables})


def run(path: Path) -> None:
    """Runs a notebook in place. Cell ids stay; what changes from run to run without meaning is left out.

    Raises:
        CellExecutionError: a cell failed; the file is as it was.
        ValueError: the notebook has grown too large.
    """
    notebook = read(path)
    execute(notebook, path.parent)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            _drop_widget(output)
    notebook.metadata["kernelspec"] = dict(_KERNEL)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    link(notebook)
    notebook.metadata["sora_edu"] = {**ours(notebook), "executed": code_hash(notebook)}
    if (size := len(nbformat.writes(notebook).encode())) >= MAX_BYTES:
        raise ValueError(f"{path}: {size} bytes with its outputs; less than {MAX_BYTES} would do")
    write(path, notebook)


def _drop_widget(output: NotebookNode) -> None:
    """Takes a widget's view out of an output: without its kernel it would be an empty box."""
    for mime in [mime for mime in output.get("data", {}) if "widget-view" in mime]:
        del output["data"][mime]


def measure(path: Path) -> dict:
    """Measures a notebook's times in minutes, alone on two cores, and writes them into it.

    Returns:
        `reading`, `exercises`, `run`, `run_float32` (with plain float32 everywhere), and `code`, which says
        what code was timed.

    Raises:
        CellExecutionError: a cell failed; the file is as it was.
    """
    notebook = read(path)
    chapter = Chapter(path.stem, notebook)
    times = {
        "reading": chapter.reading_minutes,
        "exercises": chapter.exercise_minutes,
        "run": _run_minutes(notebook, path.parent),
        "run_float32": _run_minutes(notebook, path.parent, SORA_EDU_DTYPE="float32"),
        "code": code_hash(notebook),
    }
    notebook.metadata["sora_edu"] = {**ours(notebook), "times": times}
    stamp(notebook, times)
    write(path, notebook)
    return times


def _run_minutes(notebook: NotebookNode, folder: Path, **variables: str) -> float:
    """Minutes of a whole run, kernel start included, rounded up to a tenth."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, sorted(cores)[:_CORES])
    started = time.monotonic()
    try:
        execute(copy.deepcopy(notebook), folder, OMP_NUM_THREADS=str(_CORES), **variables)
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
    return math.ceil((time.monotonic() - started) / 6) / 10


def stamp(notebook: NotebookNode, times: dict) -> None:
    """Writes the times between the marks `<!-- times -->` and `<!-- /times -->`, or below the title."""
    exercises = f"exercises {_minutes(times['exercises'])}, " if times["exercises"] else ""
    text = (
        f"Reading {_minutes(times['reading'])}, {exercises}running {_minutes(times['run'])} on two cores"
        f" ({times['run_float32']:g} in plain float32)."
    )
    line = f"<!-- times -->{text}<!-- /times -->"
    marked = [cell for cell in notebook.cells if cell.cell_type == "markdown" and _TIMES.search(cell.source)]
    if marked:
        marked[0].source = _TIMES.sub(lambda _: line, marked[0].source)
    else:
        notebook.cells[0].source += f"\n\n{line}"


def link(notebook: NotebookNode) -> None:
    """Ends the prose with the links to glossary, notation and errors, once."""
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    for cell in prose:
        cell.source = _HELP.sub("", cell.source).rstrip()
    if prose:
        prose[-1].source += f"\n\n{HELP}"


def _minutes(number: int | float) -> str:
    return f"{number:g} minute{'' if number == 1 else 's'}"


def solved(notebook: NotebookNode) -> NotebookNode:
    """The notebook as a learner leaves it who solved every exercise: solutions for stubs, `train` skipped.

    Returns:
        A copy without outputs.

    Raises:
        ValueError: an exercise cell does not hold exactly one stub.
    """
    copied = copy.deepcopy(notebook)
    for cell in copied.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if exercise := ours(cell).get("exercise"):
            cell.source = _solve(cell.source, exercise)
        if "train" in tags(cell):
            cell.metadata["tags"] = [*tags(cell), "skip-execution"]
    return copied


def _solve(source: str, exercise: str) -> str:
    stubs = [node for node in ast.parse(source).body if _is_stub(node)]
    if len(stubs) != 1:
        raise ValueError(f"exercise {exercise}: its cell holds {len(stubs)} stubs; exactly one would do")
    (stub,) = stubs
    name = stub.targets[0].id if isinstance(stub, ast.Assign) else stub.name
    first = min([stub.lineno, *(d.lineno for d in getattr(stub, "decorator_list", []))])
    lines = source.splitlines()
    lines[first - 1 : stub.end_lineno] = [
        "from sora_edu.teach.pasted import pasted as _pasted",
        f'{name} = _pasted("{exercise}")',
    ]
    return "\n".join(lines)


def _is_stub(node: ast.stmt) -> bool:
    """True for a definition or assignment with a hole in it: `...` or NotImplementedError."""
    if isinstance(node, ast.Assign):
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            return False
    elif not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return False
    return any(
        (isinstance(part, ast.Constant) and part.value is ...)
        or (isinstance(part, ast.Name) and part.id == "NotImplementedError")
        for part in ast.walk(node)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit code 1: a cell failed or a rule is broken; 2: bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m sora_edu.teach.notebooks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=["run", "link", "time", "check"])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    options = parser.parse_args(arguments)
    paths = options.notebooks or sorted(Path("notebooks").glob("*.ipynb"))
    if not paths:
        parser.error("no notebooks here; name some, or go to the course's folder")
    for path in paths:
        if not path.is_file():
            parser.error(f"{path}: no such file")
    return max(_do(options.command, path) for path in paths)


def _do(command: str, path: Path) -> int:
    try:
        if command == "run":
            run(path)
            print(f"{path}: run")
        elif command == "link":
            notebook = read(path)
            link(notebook)
            write(path, notebook)
            print(f"{path}: linked")
        elif command == "time":
            print(f"{path}: {measure(path)}")
        else:
            found = violations(Chapter(path.stem, read(path)))
            print("\n".join(f"{path}: {line}" for line in found or ["as it should be"]))
            return int(bool(found))
    except CellExecutionError as error:
        print(f"{path}: a cell stopped, and the file is as it was:\n{error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, nbformat.ValidationError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
