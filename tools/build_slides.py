"""Build a deck of slides from every chapter into `_build/slides`, to be opened from there without a network.

    python tools/build_slides.py

The slide metadata of the notebooks say what begins a slide and what is skipped. How much fits on one is
measured where it is shown, with that browser's fonts: `docs/slides/deck.js` breaks what is too long.
"""

import base64
import hashlib
import html
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from web_assets import KATEX, REVEAL, AssetError, fetch

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "docs" / "slides"
SLIDES = ROOT / "_build" / "slides"

CODE_STYLE = "a11y-high-contrast-light"
FOLD = re.compile(r"^<details><summary>.*?</summary>\s*|\s*</details>$", re.DOTALL)
COMMENTS = re.compile(r"<!--.*?-->", re.DOTALL)
HELP = re.compile(r"<!-- help -->.*?<!-- /help -->", re.DOTALL)  # links to pages that a deck does not bring
LINT = re.compile(r"  # (?:noqa|fmt: skip)\b.*")
REPEATED = re.compile(r"^\S+: going on with the course's answer.*\n?", re.MULTILINE)  # after every exercise
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
PNG_SIZE = slice(16, 24)  # width and height in the header, four bytes each


@dataclass
class Slide:
    """One slide as the notebook has it; the browser may break it into several."""

    blocks: list[str] = field(default_factory=list)
    """Its content, as HTML."""
    notes: list[str] = field(default_factory=list)
    """What the speaker sees, as HTML."""


def main() -> int:
    """Build every deck and the index; return the exit code."""
    began = time.monotonic()
    try:
        libraries = {"reveal": fetch(REVEAL), "katex": fetch(KATEX) / "dist"}
    except AssetError as error:
        print(f"The slides were not built: {error}", file=sys.stderr)
        return 2
    shutil.rmtree(SLIDES, ignore_errors=True)
    for name, folder in libraries.items():
        shutil.copytree(folder, SLIDES / name, ignore=shutil.ignore_patterns("*.ttf", "*.woff", "*.map"))
    (SLIDES / "katex" / "LICENSE").write_bytes((libraries["katex"].parent / "LICENSE").read_bytes())
    for name in ("deck.css", "deck.js"):
        shutil.copyfile(TEMPLATES / name, SLIDES / name)
    (SLIDES / "code.css").write_text(
        HtmlFormatter(style=CODE_STYLE).get_style_defs(".code"), encoding="utf-8"
    )
    page = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    decks = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        text = page.get_template("deck.html").render(title=title, stacks=stacks(notebook))
        (SLIDES / f"{path.stem}.html").write_text(text, encoding="utf-8")
        decks.append((f"{path.stem}.html", title))
    index = page.get_template("index.html").render(decks=decks)
    (SLIDES / "index.html").write_text(index, encoding="utf-8")
    print(f"{SLIDES / 'index.html'}, built in {time.monotonic() - began:.0f} s")
    return 0


def stacks(notebook: NotebookNode) -> list[list[Slide]]:
    """The slides of a chapter: each `slide` cell opens a stack, each `subslide` cell a slide below."""
    found: list[list[Slide]] = [[Slide()]]
    for cell in notebook.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        if kind == "skip":
            continue
        if kind == "notes":
            found[-1][-1].notes.append(prose(FOLD.sub("", cell.source.strip())))
            continue
        if kind == "slide":
            found.append([Slide()])
        elif kind == "subslide":
            found[-1].append(Slide())
        step = ' class="fragment"' if kind == "fragment" else ""
        found[-1][-1].blocks += [f"<div{step}>{block}</div>" for block in blocks(cell)]
    return [kept for stack in found if (kept := [slide for slide in stack if slide.blocks])]


def blocks(cell: NotebookNode) -> Iterator[str]:
    """The parts of a cell that may stand on different slides."""
    if cell.cell_type == "markdown":
        yield prose(cell.source)
        return
    if not cell.source.strip():
        return
    yield highlight(LINT.sub("", cell.source), PythonLexer(), HtmlFormatter(cssclass="code"))
    if cell.source.startswith("check("):
        return  # "not attempted yet" tells an audience nothing
    for printed, group in groupby(cell.outputs, lambda o: o.get("name") == "stdout"):
        if printed:  # in however many pieces it came
            text = ESCAPES.sub("", "".join(output.text for output in group))
            if text := REPEATED.sub("", text).rstrip():
                yield f'<pre class="output">{html.escape(text)}</pre>'
            continue
        for output in group:
            yield from shown(output)


def shown(output: NotebookNode) -> Iterator[str]:
    """What one output puts on the screen, in the richest form that it has."""
    data = output.get("data", {})
    if "image/png" in data:
        yield picture(
            base64.b64decode(data["image/png"]), output.metadata.get("image/png", {}).get("alt", "")
        )
    elif "text/html" in data:
        yield f'<div class="result">{data["text/html"]}</div>'
    elif "text/plain" in data:
        yield f'<pre class="output">{html.escape(data["text/plain"])}</pre>'
    elif output.output_type == "error":
        yield f'<pre class="output">{html.escape(f"{output.ename}: {output.evalue}")}</pre>'


def picture(png: bytes, alt: str) -> str:
    """An image element; the picture itself lies beside the decks, once."""
    name = f"media/{hashlib.sha256(png).hexdigest()[:16]}.png"
    (SLIDES / "media").mkdir(exist_ok=True)
    (SLIDES / name).write_bytes(png)
    size = png[PNG_SIZE]
    width, height = int.from_bytes(size[:4], "big"), int.from_bytes(size[4:], "big")
    return f'<img src="{name}" alt="{html.escape(alt)}" width="{width}" height="{height}">'


def _formula(content: str, options: dict) -> str:
    mode = "div" if options["display_mode"] else "span"
    return f'<{mode} class="formula">{html.escape(content.strip())}</{mode}>'


def _environment(self, tokens, index, options, env) -> str:
    return _formula(tokens[index].content, {"display_mode": True})


_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_MARKDOWN.use(dollarmath_plugin, renderer=_formula, double_inline=True).use(amsmath_plugin)
_MARKDOWN.add_render_rule("amsmath", _environment)


def prose(text: str) -> str:
    """Markdown as HTML; a link to a chapter leads to its deck, other links inside the course to nothing."""
    page = _MARKDOWN.render(COMMENTS.sub("", HELP.sub("", text)))
    page = re.sub(r'href="(\d\d_\w+)\.ipynb(#[^"]*)?"', r'href="\1.html"', page)
    return re.sub(r'<a href="(?![a-z]+://|\d\d_\w+\.html)[^"]*">(.*?)</a>', r"\1", page)


if __name__ == "__main__":
    sys.exit(main())
