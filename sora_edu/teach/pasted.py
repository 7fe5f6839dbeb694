"""A function's or class's source, changed so that it runs where a learner pastes it."""

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from sora_edu.teach.exercise import find


def standalone(answer: Callable[..., Any], name: str) -> str:
    """The source without annotations, with what it needs from its module in front.

    Args:
        answer: a function or a class of a module.
        name: what to call a function; a class keeps its name.

    Returns:
        Python text. Comments and docstrings stay.
    """
    source = _without_annotations(textwrap.dedent(inspect.getsource(answer)).rstrip())
    if inspect.isfunction(answer):
        source = source.replace(f"def {answer.__name__}(", f"def {name}(", 1)
    needed = _needed(ast.parse(source), vars(sys.modules[answer.__module__]))
    return "\n".join([*needed, "", "", source] if needed else [source])


def pasted(exercise_id: str) -> Any:
    """What a learner has who pasted the solution: a twin of the course's answer, not the same object."""
    exercise, namespace = find(exercise_id), {}
    if exercise.kind == "value":
        return exercise.reference()
    exec(standalone(exercise.reference, exercise.called), namespace)
    return namespace[exercise.called if exercise.kind == "function" else exercise.reference.__name__]


def _without_annotations(source: str) -> str:
    """Cuts annotations of arguments and results out of the text, the last one first."""
    lines = source.encode().splitlines(keepends=True)  # ast counts bytes
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    text = b"".join(lines)
    for start, end in sorted(_annotations(ast.parse(source), starts, text), reverse=True):
        text = text[:start] + text[end:]
    return text.decode()


def _annotations(tree: ast.AST, starts: list[int], text: bytes) -> Iterator[tuple[int, int]]:
    """Where annotations stand: from the name's end or the closing bracket to the annotation's end."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            begin = starts[node.lineno - 1] + node.col_offset + len(node.arg.encode())
            yield begin, starts[node.annotation.end_lineno - 1] + node.annotation.end_col_offset
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            begin = text.rindex(b"->", 0, starts[node.returns.lineno - 1] + node.returns.col_offset)
            end = starts[node.returns.end_lineno - 1] + node.returns.end_col_offset
            yield len(text[:begin].rstrip()), end


def _needed(tree: ast.AST, namespace: dict[str, Any]) -> list[str]:
    """A line for each name of the module that the text uses: an import, or a constant's value."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    made = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    lines = [
        _line(name, namespace[name])
        for name in names - made
        if name in namespace and not hasattr(builtins, name)
    ]
    return sorted(lines, key=lambda line: (" = " in line, line))  # imports first


def _line(name: str, value: Any) -> str:
    if isinstance(value, ModuleType):
        return f"import {value.__name__}" if value.__name__ == name else f"import {value.__name__} as {name}"
    if isinstance(value, int | float | str | tuple):
        return f"{name} = {value!r}"
    home, own = value.__module__, value.__name__
    return f"from {home} import {own}" if own == name else f"from {home} import {own} as {name}"
