"""Which cells of a notebook show something to move, and which cells they need first.

A function of `sora_edu.teach` that asks `live()` shows a widget where a kernel runs. So a cell that calls one
has a widget; nothing is listed by hand.
"""

import ast
import symtable
from functools import cache
from pathlib import Path

from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent.parent


@cache
def makers() -> set[str]:
    """Names of the functions that show a widget."""
    found = set()
    for path in (ROOT / "sora_edu" / "teach").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name != "live" and "live" in _called(node):
                found.add(node.name)
    return found


def widget_cells(notebook: NotebookNode) -> list[int]:
    """Places of the cells that show a widget."""
    return [
        place
        for place, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and _called(ast.parse(cell.source)) & makers()
    ]


def needed(notebook: NotebookNode, places: list[int]) -> list[int]:
    """Places of the cells that define what the cells at `places` use, and what these use, in their order."""
    missing: set[str] = set()
    chosen = []
    for place in range(max(places, default=-1), -1, -1):
        cell = notebook.cells[place]
        if cell.cell_type != "code":
            continue
        used, bound, changed = names(cell.source)
        if place not in places and not (bound | changed) & missing:
            continue
        if place not in places:
            chosen.append(place)
        missing = (missing - bound) | used
    return chosen[::-1]


def names(source: str) -> tuple[set[str], set[str], set[str]]:
    """Global names that a cell takes from before, those that it binds, and those whose contents it sets."""
    used: set[str] = set()
    bound: set[str] = set()
    changed: set[str] = set()
    for statement in ast.parse(source).body:
        now_used, now_bound = _globals(ast.unparse(statement))
        first = {getattr(statement, "name", "")}  # a function may call itself
        for node in ast.walk(statement):
            if isinstance(node, ast.For | ast.withitem):
                target = node.target if isinstance(node, ast.For) else node.optional_vars
                first |= _named(target) if target else set()
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                changed |= _named(node.value)
        used |= now_used - bound - first
        bound |= now_bound
    return used, bound, changed


def _globals(source: str) -> tuple[set[str], set[str]]:
    """Global names that a statement uses, in functions too, and those that it binds."""
    table = symtable.symtable(source, "cell", "exec")
    symbols = table.get_symbols()
    bound = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported() or s.is_namespace()}
    used = {s.get_name() for s in symbols if s.is_referenced()}
    scopes = table.get_children()
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        used |= {s.get_name() for s in scope.get_symbols() if s.is_referenced() and s.is_global()}
    return used, bound


def _named(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _called(tree: ast.AST) -> set[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
