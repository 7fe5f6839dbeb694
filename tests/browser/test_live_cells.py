"""Finding what a cell needs: checked on small notebooks whose answer one can see."""

import nbformat
import pytest
from live_cells import makers, names, needed


def notebook(*sources: str):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a = 1", "b = 2", "print(b)"], [1]),
        (["f = 1", "f = use('f', f)", "show(f)"], [0, 1]),  # uses the name that it binds
        (["a = 1", "a = 2", "print(a)"], [1]),  # the later one counts
        (["d = {}", "d['x'] = 3", "print(d)"], [0, 1]),  # set by index
        (["x = 1", "def f():\n    return x", "print(f())"], [0, 1]),  # used inside a function
        (["t = 1", "for t in range(3):\n    print(t)"], []),  # a loop binds its own
        (["import a", "from b import c", "c(1)"], [1]),
        (["n = 1", "g = [n for n in range(2)]", "print(g)"], [1]),  # a comprehension keeps its names
    ],
)
def test_what_the_last_cell_needs(sources, expected):
    assert needed(notebook(*sources), [len(sources) - 1]) == expected


def test_names_of_a_recursive_function():
    assert names("def f(n):\n    return f(n - 1)") == (set(), {"f"}, set())


def test_makers_are_what_the_chapters_call():
    assert {"quiz", "clip_maker"} <= makers()
