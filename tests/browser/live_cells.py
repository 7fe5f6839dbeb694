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
        if place in places:
            missing |= used - bound
        elif (bound | changed) & missing:
            chosen.append(place)
            missing = (missing - bound) | (used - (bound - changed))
    return chosen[::-1]


def names(source: str) -> tuple[set[str], set[str], set[str]]:
    """Global names that a cell uses, those that it binds, and those whose contents it sets by index."""
    table = symtable.symtable(source, "cell", "exec")
    used, bound = set(), {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    bound |= {s.get_name() for s in table.get_symbols() if s.is_namespace()}
    scopes = [table]
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        used |= {s.get_name() for s in scope.get_symbols() if s.is_referenced() and s.is_global()}
        if scope is table:
            used |= {s.get_name() for s in scope.get_symbols() if s.is_referenced()}
    changed = {
        part.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
        for part in ast.walk(node.value)
        if isinstance(part, ast.Name)
    }
    return used, bound, changed


def _called(tree: ast.AST) -> set[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
