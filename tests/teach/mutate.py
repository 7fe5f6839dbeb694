"""Mutants: copies of a right answer with one small thing changed, to see whether a check would notice.

One mutant for every place in the source where an operator, a comparison, a number (an axis, an index, a
factor), a truth value or a name from a pair of opposites (sin and cos, height and width) could have been
another. Annotations and docstrings are left alone, for no result depends on them, and so are the lines that
refuse bad input, which is not asked of a learner: the package's own tests see to those.
"""

import ast
import copy
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}

_OPPOSITES = {
    "sin": "cos",
    "cos": "sin",
    "exp": "expm1",
    "log": "log1p",
    "min": "max",
    "max": "min",
    "mean": "sum",
    "sum": "mean",
    "sqrt": "square",
    "softmax": "log_softmax",
    "zeros": "ones",
    "ones": "zeros",
    "triu": "tril",
    "tril": "triu",
    "height": "width",
    "width": "height",
    "repeat": "repeat_interleave",
    "repeat_interleave": "repeat",
}


def mutants(reference: Any) -> Iterator[tuple[str, Any]]:
    """Every mutant of a function or class, with a name such as `a + b -> a - b`.

    A change that occurs several times is numbered: `a + b -> a - b #2`. A mutant that cannot run (a method
    that does not exist) counts too; a check catches it at once.
    """
    source = textwrap.dedent(inspect.getsource(reference))
    tree = ast.parse(source).body[0]
    tree.decorator_list = []
    seen: dict[str, int] = {}
    for path, changed in _changes(tree):
        mutant = copy.deepcopy(tree)
        before = _replace(mutant, path, changed)
        name = f"{ast.unparse(before)} -> {ast.unparse(changed)}"
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} #{seen[name]}", _compiled(mutant, reference)


def _compiled(tree: ast.AST, reference: Any) -> Any:
    scope = dict(vars(sys.modules[reference.__module__]))
    module = ast.fix_missing_locations(ast.Module([tree], []))
    exec(compile(module, "<mutant>", "exec"), scope)
    return scope[reference.__name__]


def _changes(tree: ast.AST, path: tuple = ()) -> Iterator[tuple[tuple, ast.AST]]:
    """Path to a node, and what could stand in its place, for every node worth changing."""
    if _refuses(tree):
        return
    for changed in _alternatives(tree):
        yield path, changed
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns"):
            continue
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if isinstance(child, ast.AST) and not _is_docstring(tree, name, index, child):
                yield from _changes(child, (*path, (name, index if isinstance(value, list) else None)))


def _alternatives(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _OPERATORS:
        yield _with(node, op=_OPERATORS[type(node.op)]())
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OPERATORS:
        yield _with(node, ops=[_OPERATORS[type(node.ops[0])]()])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1 if isinstance(node.value, int) else 2 * node.value + 1)
    elif isinstance(node, ast.Attribute) and node.attr in _OPPOSITES:
        yield _with(node, attr=_OPPOSITES[node.attr])
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _OPPOSITES:
        yield _with(node, id=_OPPOSITES[node.id])
    elif isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
        yield _with(node, op=_OPERATORS[type(node.op)]())
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
        yield _with(node, value=_with(node.value, elts=node.value.elts[::-1]))


def _with(node: ast.AST, **changes: Any) -> ast.AST:
    changed = copy.deepcopy(node)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def _is_docstring(parent: ast.AST, name: str, index: int, child: ast.AST) -> bool:
    first = name == "body" and index == 0 and isinstance(parent, ast.FunctionDef | ast.ClassDef)
    return first and isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)


def _refuses(node: ast.AST) -> bool:
    """True for `raise`, `assert`, and an `if` that does nothing but raise."""
    guard = isinstance(node, ast.If) and not node.orelse and all(isinstance(x, ast.Raise) for x in node.body)
    return guard or isinstance(node, ast.Raise | ast.Assert)


def _replace(tree: ast.AST, path: tuple, changed: ast.AST) -> ast.AST:
    """Puts a node in place of the one at a path and returns the old one."""
    *way, (name, index) = path
    parent = tree
    for step, position in way:
        value = getattr(parent, step)
        parent = value if position is None else value[position]
    old = getattr(parent, name) if index is None else getattr(parent, name)[index]
    if index is None:
        setattr(parent, name, changed)
    else:
        getattr(parent, name)[index] = changed
    return old
