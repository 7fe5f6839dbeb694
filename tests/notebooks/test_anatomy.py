"""The chapters keep to their anatomy, and the check that says so notices every way of leaving it."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sora_edu.teach import anatomy
from sora_edu.teach.anatomy import PARTS, Chapter, code_hash, violations, words
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception
from sora_edu.teach.notebooks import link, read, stamp

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
NAME = "99_toy"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_chapter_keeps_to_the_anatomy(path: Path):
    assert violations(Chapter(path.stem, read(path))) == []


def _exercise(number: int) -> Exercise:
    hints = Hints("one", "two", "three")
    slip = Misconception("slip", "a slip", lambda: 0, hints, "Idea", "a toy")
    return Exercise(
        id=f"toy.e{number}",
        chapter=NAME,
        title="A toy",
        minutes=5,
        difficulty=1,
        reference=lambda: 1,
        cases=lambda seed: [Case()],
        hints=hints,
        misconceptions=(slip,),
        correct_alternatives=(),
    )


EXERCISES = [_exercise(number) for number in range(4)]
FOLDED = "<details><summary>For the speaker</summary>\n\nSay *this*.\n\nThen that.\n\n</details>"


@pytest.fixture(autouse=True)
def toy_exercises(monkeypatch):
    """The engine knows the toy chapter's exercises alone, except where real chapters are checked."""
    real = anatomy.every
    monkeypatch.setattr(anatomy, "every", lambda: [*real(), *EXERCISES])


def _note(text: str, kind: str = "-", **fields) -> object:
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}, "sora_edu": fields})


def _code(text: str, **fields) -> object:
    return new_code_cell(text, metadata={"slideshow": {"slide_type": "-"}, "sora_edu": fields})


def chapter() -> Chapter:
    """A small chapter with nothing wrong."""
    cells = [_note("# A toy chapter", "slide", part="promise"), _note(FOLDED, "notes")]
    for part in PARTS[1:]:
        cells.append(_note(f"## {part.capitalize()}" if part != "ideas" else "## Idea", "slide", part=part))
        cells.append(_code("x = 1", covers=["2b", "c2"]))
    cells.append(_code("quiz('99')"))
    at = next(i for i, cell in enumerate(cells) if "Exercises" in cell.source) + 1
    for exercise in reversed(EXERCISES):  # each goes in front of the last
        stub = _code("def f():\n    raise NotImplementedError", exercise=exercise.id)
        cells[at:at] = [_note("A task for 5 minutes."), stub, _code(f'check("{exercise.id}", f)')]
    picture = new_output("display_data", {"image/png": "AAAA"}, metadata={"image/png": {"alt": "A dot."}})
    cells[-1].outputs = [picture]
    notebook = new_notebook(cells=cells)
    for number, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
        cell.execution_count = number
    toy = Chapter(NAME, notebook)
    code = code_hash(notebook)
    times = {"reading": 1, "exercises": 20, "run": 0.1, "run_float32": 0.2, "code": code}
    notebook.metadata["sora_edu"] = {"executed": code, "times": times}
    stamp(notebook, times)
    link(notebook)
    return toy


def test_a_good_chapter_has_no_violations():
    assert violations(chapter()) == []


def _cell(toy: Chapter, text: str):
    return next(cell for cell in toy.notebook.cells if text in cell.source)


def _drop(toy: Chapter, text: str) -> None:
    toy.notebook.cells.remove(_cell(toy, text))


def _output(toy: Chapter, output) -> None:
    toy.code[0].outputs = [output]


BREAKS = {
    "3501 words; at most 3500": lambda t: t.notebook.cells.append(_note("word " * (3501 - words(t)))),
    "13 lines of code": lambda t: setattr(t.code[0], "source", "y = 1\n" * 13),
    "the median code cell has 8 lines": lambda t: [setattr(c, "source", "y = 1\n" * 8) for c in t.code],
    "bytes; less than": lambda t: _output(t, new_output("stream", text="x" * 3_000_000)),
    "its only heading of level 1": lambda t: t.notebook.cells.append(_note("# Another")),
    "of level 4 follows one of level 2": lambda t: t.notebook.cells.append(_note("#### Deep")),
    "occurs twice": lambda t: t.notebook.cells.append(_note("## Idea")),
    "no cell opens the part 'limits'": lambda t: _drop(t, "## Limits"),
    "part 'end' is unknown": lambda t: t.notebook.cells.append(_note("Bye.", part="end")),
    "the parts come as": lambda t: t.notebook.cells.insert(1, _note("Early.", part="summary")),
    "slide_type is not one of": lambda t: t.code[0].metadata.pop("slideshow"),
    "metadata sora_edu.cover is none of": lambda t: t.code[0].metadata.sora_edu.update(cover=["2b"]),
    "metadata sora_edu.covers is ['row 2']": lambda t: t.code[0].metadata.sora_edu.update(covers=["row 2"]),
    "metadata sora_edu.covers is '2b'": lambda t: t.code[0].metadata.sora_edu.update(covers="2b"),
    "no speaker notes": lambda t: _drop(t, "Say *this*."),
    "a picture without alt text": lambda t: t.notebook.cells.append(_note("![ ](map.png)")),
    "an <img> without alt text": lambda t: t.notebook.cells.append(_note('<img src="map.png" alt="">')),
    "an image/png output without alt text": lambda t: t.notebook.cells[-1].outputs[0].pop("metadata"),
    "were not run once each": lambda t: setattr(t.code[1], "execution_count", None),
    "the outputs belong to older code": lambda t: t.notebook.metadata.sora_edu.update(executed="0"),
    "an error in the output": lambda t: _output(t, new_output("error", ename="KeyError", evalue="'a'")),
    "ship its static fallback": lambda t: _output(
        t, new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})
    ),
    "another one on every machine": lambda t: _output(t, new_output("stream", text="<f at 0x7f3ade2ead40>")),
    "times are missing": lambda t: t.notebook.metadata.sora_edu.pop("times"),
    "prose and exercises now give": lambda t: t.notebook.cells.append(_note("word " * 300)),
    "run_float32 takes 4.1 minutes": lambda t: t.notebook.metadata.sora_edu.times.update(run_float32=4.1),
    "3 exercises; 4 to 6": lambda t: _drop(t, "NotImplementedError"),
    "0 stubs here, 1 in the engine": lambda t: _drop(t, "NotImplementedError"),
    "the engine numbers them": lambda t: _swap(t, "toy.e1", "toy.e2"),
    "no check follows its stub": lambda t: _drop(t, 'check("toy.e2"'),
    "does not show its verdict": lambda t: setattr(
        _cell(t, 'check("toy.e2"'), "source", _cell(t, 'check("toy.e2"').source + "\nprint()"
    ),
    "does not say how many minutes": lambda t: [setattr(c, "source", "A task.") for c in _tasks(t)],
    'slip slip: there is no section "Idea"': lambda t: setattr(_cell(t, "## Idea"), "source", "## Ideas"),
    "does not end with the links": lambda t: t.notebook.cells.append(_note("The end.")),
    "no quiz": lambda t: _drop(t, "quiz("),
}


def _tasks(toy: Chapter) -> list:
    return [cell for cell in toy.markdown if "5 minutes" in cell.source]


def _swap(toy: Chapter, one: str, other: str) -> None:
    for cell in toy.code:
        if (name := cell.metadata.sora_edu.get("exercise")) in (one, other):
            cell.metadata.sora_edu["exercise"] = other if name == one else one


@pytest.mark.parametrize("said", BREAKS)
def test_every_rule_notices_its_breach(said):
    toy = chapter()
    BREAKS[said](toy)
    assert any(said in line for line in violations(toy)), violations(toy)


UNFOLDED = {
    "in the open": "*For the speaker.* Say *this*.",
    "open at first": FOLDED.replace("<details>", "<details open>"),
    "never closed": FOLDED.replace("</details>", ""),
    "Markdown that would not be rendered": FOLDED.replace("\n\n", "\n"),
    "another name": FOLDED.replace("For the speaker", "Notes"),
    "empty": FOLDED.replace("Say *this*.\n\nThen that.", ""),
    "words outside": FOLDED + "\n\nAnd this.",
    "two folds": FOLDED + "\n\n" + FOLDED,
}


@pytest.mark.parametrize("source", UNFOLDED.values(), ids=UNFOLDED)
def test_what_only_the_speaker_needs_stands_in_a_closed_fold(source):
    toy = chapter()
    _cell(toy, "Say *this*.").source = source
    (said,) = violations(toy)
    assert "speaker notes stand in the open" in said and "For the speaker</summary>" in said


def test_speaker_notes_are_prose_and_no_code():
    toy = chapter()
    toy.notebook.cells.append(_code("x = 1"))
    toy.notebook.cells[-1].metadata.slideshow.slide_type = "notes"
    assert any("speaker notes stand in the open" in line for line in violations(toy))


def test_words_are_prose_alone():
    text = "# Two words\n\nIt's `code here` $x + y$ <b>bold</b> [a link](https://example.org/a/b) 12\n"
    text += "<!-- times -->Reading 3 minutes<!-- /times -->\n\n```\nno no\n```"
    toy = Chapter(NAME, new_notebook(cells=[_note(text)]))
    assert words(toy) == 6  # Two words It's bold a link


def test_comments_and_layout_do_not_make_outputs_stale():
    def notebook(source: str):
        return new_notebook(cells=[new_code_cell(source)])

    assert code_hash(notebook("x=1  # one")) == code_hash(notebook("x = 1"))
    assert code_hash(notebook("x = 1")) != code_hash(notebook("x = 2"))
    assert code_hash(notebook("%matplotlib inline")) != code_hash(notebook("%pwd"))
