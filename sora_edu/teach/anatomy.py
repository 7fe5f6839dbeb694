"""What every chapter's notebook owes its readers, as far as it can be measured.

A chapter is a notebook whose cells say what they are in their metadata:

    slideshow.slide_type        slide, subslide, fragment, skip, notes or -: on every cell
    sora_edu.part               one of `PARTS`, on the cell that opens the part (most often a heading)
    sora_edu.exercise           the id of an exercise, on the code cell that holds its stub
    sora_edu.covers             rows and corrections of the deck that a cell teaches, such as ["2b", "c2"]
    tags: train                 a cell that the solved run skips
    tags: raises-exception      a cell that fails on purpose

The notebook's own metadata hold, under `sora_edu`, what the commands of `sora_edu.teach.notebooks` measured:
`executed` (the code that the outputs belong to) and `times`.
"""

import ast
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from nbformat import NotebookNode

from sora_edu.teach.exercise import Exercise, every

PARTS = (
    "promise",
    "goals",
    "setup",
    "prediction",
    "toy",
    "notation",
    "ideas",
    "exercises",
    "break",
    "assemble",
    "train",
    "limits",
    "quiz",
    "summary",
)
"""The parts of a chapter in their order. Ideas and exercises may alternate: the first of each counts."""

MAX_WORDS = 3500
WORDS_PER_MINUTE = 200
MAX_CELL_LINES = 12
MAX_MEDIAN_LINES = 7
MAX_RUN_MINUTES = 4
MAX_BYTES = 3_000_000

TIMES = r"<!-- times -->.*?<!-- /times -->"
"""Where the measured times stand; they are not counted as prose."""

HELP = (
    "<!-- help -->\nWords: [glossary](../docs/glossary.md) · symbols: [notation](../docs/notation.md) · "
    "a message that stops you: [errors](../docs/errors.md)<!-- /help -->"
)
"""What every chapter's prose ends with; `notebooks link` writes it, and it is not counted as prose.

A line that begins with a comment is HTML to its end, so the links stand on the next one.
"""

SPEAKER_FOLD = r"<details><summary>For the speaker</summary>\n\n(?!\s)(?:(?!<details).)+\n\n</details>"
"""A closed fold around what a speaker may say: notes under the slides, one quiet line to a lone reader.

The empty lines make Markdown of what stands inside.
"""

SLIDE_TYPES = ("slide", "subslide", "fragment", "skip", "notes", "-")
CELL_FIELDS = ("part", "exercise", "covers")


@dataclass(frozen=True)
class Chapter:
    """A notebook under its chapter's name."""

    name: str
    """File name without `.ipynb`."""
    notebook: NotebookNode
    """The notebook, version 4."""

    @property
    def markdown(self) -> list[NotebookNode]:
        """The cells of prose."""
        return [cell for cell in self.notebook.cells if cell.cell_type == "markdown"]

    @property
    def code(self) -> list[NotebookNode]:
        """The cells of code that are not empty."""
        return [cell for cell in self.notebook.cells if cell.cell_type == "code" and cell.source.strip()]

    @property
    def exercise_ids(self) -> list[str]:
        """Ids of the exercises, in the order of their stubs."""
        return [ours(cell)["exercise"] for cell in self.code if "exercise" in ours(cell)]

    @property
    def exercises(self) -> list[Exercise]:
        """The exercises themselves, as far as they exist."""
        known = {exercise.id: exercise for exercise in every()}
        return [known[name] for name in self.exercise_ids if name in known]

    @property
    def headings(self) -> list[tuple[int, str]]:
        """Level and text of every heading."""
        prose = (_without_code(cell.source) for cell in self.markdown)
        found = (re.findall(r"^(#{1,6})\s+(.+?)\s*#*$", text, re.MULTILINE) for text in prose)
        return [(len(marks), text) for group in found for marks, text in group]

    @property
    def reading_minutes(self) -> int:
        """Minutes to read the prose at 200 words a minute, rounded up."""
        return math.ceil(words(self) / WORDS_PER_MINUTE)

    @property
    def exercise_minutes(self) -> int:
        """Minutes planned for the exercises."""
        return sum(exercise.minutes for exercise in self.exercises)


def ours(cell: NotebookNode) -> dict:
    """The course's own metadata of a cell or a notebook."""
    return cell.metadata.get("sora_edu", {})


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def words(chapter: Chapter) -> int:
    """Words of prose: code, formulas, tags and addresses are not counted."""
    text = "\n".join(_without_code(cell.source) for cell in chapter.markdown).replace(HELP, "")
    for pattern in (TIMES, r"<!--.*?-->", r"<[^>]+>", r"\$\$.*?\$\$", r"\$[^$\n]+\$", r"(?<=\])\([^)]*\)"):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return len(re.findall(r"[^\W\d_][\w'’-]*", text))


def code_hash(notebook: NotebookNode) -> str:
    """A fingerprint of the code, blind to comments and layout."""
    return hashlib.sha256(
        "\n".join(_plain(cell.source) for cell in notebook.cells if cell.cell_type == "code").encode()
    ).hexdigest()[:16]


def violations(chapter: Chapter) -> list[str]:
    """Everything in which a chapter falls short, one line each; empty if nothing does."""
    return [line for rule in _RULES for line in rule(chapter)]


def _length(chapter: Chapter) -> Iterator[str]:
    if (count := words(chapter)) > MAX_WORDS:
        yield f"{count} words; at most {MAX_WORDS}"
    lengths = [len(cell.source.strip().splitlines()) for cell in chapter.code]
    for cell, lines in zip(chapter.code, lengths, strict=True):
        if lines > MAX_CELL_LINES:
            yield f"{_where(cell)}: {lines} lines of code; at most {MAX_CELL_LINES}"
    if lengths and median(lengths) > MAX_MEDIAN_LINES:
        yield f"the median code cell has {median(lengths):g} lines; about 5, at most {MAX_MEDIAN_LINES}"
    if (count := len(json.dumps(chapter.notebook, ensure_ascii=False).encode())) >= MAX_BYTES:
        yield f"{count} bytes; less than {MAX_BYTES}"


def _headings(chapter: Chapter) -> Iterator[str]:
    headings = chapter.headings
    if not headings or headings[0][0] != 1 or [level for level, _ in headings].count(1) != 1:
        yield "the notebook opens with its title, its only heading of level 1"
    for (before, _), (level, text) in pairwise(headings):
        if level > before + 1:
            yield f'heading "{text}" of level {level} follows one of level {before}'
    for text in sorted({text for _, text in headings}):
        if [other for _, other in headings].count(text) > 1:
            yield f'heading "{text}" occurs twice, so that links cannot tell them apart'


def _parts(chapter: Chapter) -> Iterator[str]:
    present = [ours(cell)["part"] for cell in chapter.notebook.cells if "part" in ours(cell)]
    first = list(dict.fromkeys(present))
    for part in first:
        if part not in PARTS:
            yield f"part {part!r} is unknown; the parts are {', '.join(PARTS)}"
    for part in PARTS:
        if part not in first:
            yield f"no cell opens the part {part!r} (metadata sora_edu.part)"
    known = [part for part in first if part in PARTS]
    if known != sorted(known, key=PARTS.index):
        yield f"the parts come as {', '.join(known)}; their order is {', '.join(PARTS)}"


def _metadata(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.notebook.cells:
        if _slide_type(cell) not in SLIDE_TYPES:
            yield f"{_where(cell)}: metadata slideshow.slide_type is not one of {', '.join(SLIDE_TYPES)}"
        for name in ours(cell):
            if name not in CELL_FIELDS:
                yield f"{_where(cell)}: metadata sora_edu.{name} is none of {', '.join(CELL_FIELDS)}"
        covers = ours(cell).get("covers", [])
        if not isinstance(covers, list) or not all(
            re.fullmatch(r"c\d{1,2}|\d[a-z]?", str(x)) for x in covers
        ):
            yield f'{_where(cell)}: metadata sora_edu.covers is {covers!r}; a list would do: ["2b", "c2"]'


def _speaker_notes(chapter: Chapter) -> Iterator[str]:
    notes = [cell for cell in chapter.notebook.cells if _slide_type(cell) == "notes"]
    if not notes:
        yield "no speaker notes (a markdown cell with slide_type notes)"
    for cell in notes:
        if cell.cell_type != "markdown" or not re.fullmatch(SPEAKER_FOLD, cell.source.strip(), re.DOTALL):
            yield (
                f"{_where(cell)}: speaker notes stand in the open; a closed fold would do: <details><summary>"
                "For the speaker</summary>, an empty line, the notes, an empty line, </details>"
            )


def _alt_texts(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.markdown:
        prose = _without_code(cell.source)
        for alt in re.findall(r"!\[([^\]]*)\]\(", prose):
            if not alt.strip():
                yield f"{_where(cell)}: a picture without alt text"
        yield from _html_images(cell, prose)
    for cell in chapter.code:
        for output in cell.outputs:
            for mime in output.get("data", {}):
                if mime.startswith("image/") and not str(_alt(output, mime)).strip():
                    yield f"{_where(cell)}: an {mime} output without alt text"
            yield from _html_images(cell, "".join(output.get("data", {}).get("text/html", "")))


def _html_images(cell: NotebookNode, text: str) -> Iterator[str]:
    for image in re.findall(r"<img\b[^>]*>", text):
        if not re.search(r"\balt=(\"[^\"]+\"|'[^']+')", image):
            yield f"{_where(cell)}: an <img> without alt text"


def _execution(chapter: Chapter) -> Iterator[str]:
    counts = [cell.execution_count for cell in chapter.code]
    if counts != list(range(1, len(counts) + 1)):
        yield "the cells were not run once each from top to bottom: run `notebooks run`"
    elif ours(chapter.notebook).get("executed") != code_hash(chapter.notebook):
        yield "the outputs belong to older code: run `notebooks run`"
    for cell in chapter.code:
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"{_where(cell)}: an error in the output: {output.ename}: {output.evalue}"
            if any("widget-view" in mime for mime in output.get("data", {})):
                yield f"{_where(cell)}: a widget without a kernel is an empty box; ship its static fallback"
            if found := re.search(r"0x[0-9a-f]{8,}|/home/\w+|/Users/\w+|/tmp/\w+", _text(output)):
                yield f"{_where(cell)}: the output holds {found[0]!r}, which is another one on every machine"


def _times(chapter: Chapter) -> Iterator[str]:
    times = ours(chapter.notebook).get("times", {})
    expected = {"reading": chapter.reading_minutes, "exercises": chapter.exercise_minutes}
    if times.get("code") != code_hash(chapter.notebook):
        yield "times are missing or were measured with other code: run `notebooks time`"
    elif {name: times.get(name) for name in expected} != expected:
        yield f"times say {times}; prose and exercises now give {expected}: run `notebooks time`"
    for name in ("run", "run_float32"):
        if times.get(name, 0) > MAX_RUN_MINUTES:
            yield f"{name} takes {times[name]} minutes; at most {MAX_RUN_MINUTES}"


def _exercises(chapter: Chapter) -> Iterator[str]:
    names = chapter.exercise_ids
    expected = [exercise.id for exercise in every() if exercise.chapter == chapter.name]
    if not 4 <= len(names) <= 6:
        yield f"{len(names)} exercises; 4 to 6"
    for name in sorted({*names, *expected}):
        if names.count(name) != expected.count(name):
            yield f"exercise {name}: {names.count(name)} stubs here, {expected.count(name)} in the engine"
    if sorted(names) == sorted(expected) and names != expected:
        yield f"the exercises come as {', '.join(names)}; the engine numbers them {', '.join(expected)}"
    cells = chapter.notebook.cells
    for index, cell in enumerate(cells):
        if name := ours(cell).get("exercise"):
            after = "\n".join(later.source for later in cells[index:] if later.cell_type == "code")
            if not re.search(rf"\bcheck\(\s*[\"']{re.escape(name)}[\"']", after):
                yield f"exercise {name}: no check follows its stub"
            before = "".join(earlier.source for earlier in cells[max(0, index - 2) : index])
            if "minute" not in before:
                yield f"exercise {name}: the text before its stub does not say how many minutes it takes"
    for cell in chapter.code:
        if _hides_a_verdict(cell.source):
            yield f"{_where(cell)}: a check that is not the cell's last line does not show its verdict"
    titles = {text for _, text in chapter.headings}
    for exercise in chapter.exercises:
        for slip in exercise.misconceptions:
            if slip.section not in titles:
                yield f'exercise {exercise.id}, slip {slip.id}: there is no section "{slip.section}"'


def _hides_a_verdict(source: str) -> bool:
    """True if a cell checks an answer before its last statement, whose value alone a notebook shows."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a magic command
        return False
    calls = [node.value for node in body[:-1] if isinstance(node, ast.Expr)]
    return any(isinstance(call, ast.Call) and getattr(call.func, "id", "") == "check" for call in calls)


def _help(chapter: Chapter) -> Iterator[str]:
    if not chapter.markdown or not chapter.markdown[-1].source.endswith(HELP):
        yield "the prose does not end with the links to glossary, notation and errors: run `notebooks link`"


def _quiz(chapter: Chapter) -> Iterator[str]:
    if not any(re.search(r"\bquiz\(", cell.source) for cell in chapter.code):
        yield "no quiz"


_RULES: tuple[Callable[[Chapter], Iterator[str]], ...] = (
    _length,
    _headings,
    _parts,
    _metadata,
    _speaker_notes,
    _alt_texts,
    _execution,
    _times,
    _exercises,
    _help,
    _quiz,
)


def _slide_type(cell: NotebookNode) -> str | None:
    """What a cell is among the slides."""
    return cell.metadata.get("slideshow", {}).get("slide_type")


def _where(cell: NotebookNode) -> str:
    """A cell by its id and first words, for a reader to find it."""
    first = cell.source.strip().partition("\n")[0]
    return f"cell {cell.get('id', '?')} ({first[:40]})"


def _alt(output: NotebookNode, mime: str) -> str:
    return output.get("metadata", {}).get(mime, {}).get("alt", "")


def _text(output: NotebookNode) -> str:
    """What an output says in plain text."""
    return "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", ""))


def _without_code(text: str) -> str:
    """Markdown without its fenced and inline code."""
    return re.sub(r"```.*?```|`[^`\n]*`", " ", text, flags=re.DOTALL)


def _plain(source: str) -> str:
    try:
        return ast.unparse(ast.parse(source))
    except SyntaxError:  # a magic command
        return source.strip()
