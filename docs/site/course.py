"""A small Sphinx extension for what the course needs beyond the usual.

- Pictures that a notebook's cell made get the alt text from the output's metadata.
- Moving pictures are marked, so that the page can offer to stop them.
- Docstrings, written like Markdown, are made into what Sphinx reads.
- Formulas are set by KaTeX, which lies beside the page, and only where a page has some.
"""

import re
from itertools import cycle
from pathlib import Path

from docutils import nodes
from pictures import is_moving, pictures
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config as NapoleonConfig
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util.typing import ExtensionMetadata

SPECIAL = re.compile(r"(?<![\w*])\*[\w ]+\*(?![\w*])|[*|]|(?<=\w)_(?!\w)")
"""Emphasis, which both languages write alike, or a sign that only reStructuredText takes for markup."""

FORMULAS = (nodes.math, nodes.math_block)


def describe_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Give a page's pictures their alt text and mark the moving ones."""
    source = Path(app.env.doc2path(app.env.docname))
    known = dict(pictures(source)) if source.suffix == ".ipynb" else {}
    for image in doctree.findall(nodes.image):
        path = Path(app.srcdir) / image["uri"]
        if not path.is_file():
            continue
        content = path.read_bytes()
        if alt := known.get(content):
            image["alt"] = alt
        if is_moving(content):
            image["classes"].append("clip")


def prepare_docstring(app: Sphinx, what: str, name: str, thing: object, options, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText, in place; sections such as `Args:` are napoleon's work."""
    for number, line in enumerate(lines):
        after = [*lines[number + 1 : number + 3], "", ""]
        if line.rstrip() == "Returns:":  # a sentence follows, never a type
            lines[number + 1] = lines[number + 1].replace("    ", "    : ", 1)
        if line.rstrip().endswith(":") and after[0] == "" and after[1].startswith("    "):
            line += ":"  # code follows
        if not line.startswith("    >>>"):
            parts = zip(cycle((False, True)), re.split(r"(`+[^`]*`+)", line), strict=False)
            line = "".join(part if is_code else SPECIAL.sub(_escape, part) for is_code, part in parts)
        lines[number] = line
    if what not in ("attribute", "data", "property"):  # where napoleon takes words before a colon for a type
        lines[:] = GoogleDocstring(lines, NapoleonConfig(), app, what, name, thing, options).lines()


def _escape(found: re.Match) -> str:
    return found[0] if len(found[0]) > 1 else "\\" + found[0]


def add_formulas(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """Load KaTeX where a page has formulas."""
    if doctree is not None and any(isinstance(node, FORMULAS) for node in doctree.findall()):
        app.add_css_file("katex/katex.min.css")
        app.add_js_file("katex/katex.min.js", defer="defer", priority=400)  # before the course's own script


def name_levels(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """Say how deep the headings of the menu are, which the theme leaves open and screen readers need."""
    menu = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = menu.replace('role="heading"', 'role="heading" aria-level="2"')


def _inline(translator, node: nodes.math) -> None:
    translator.body.append(f'<span class="formula">{translator.encode(node.astext())}</span>')
    raise nodes.SkipNode


def _displayed(translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{translator.encode(node.astext())}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register all of it."""
    app.add_html_math_renderer("katex", (_inline, None), (_displayed, None))
    app.config.html_math_renderer = "katex"
    app.connect("autodoc-process-docstring", prepare_docstring)
    app.connect("doctree-read", describe_pictures)
    app.connect("html-page-context", add_formulas)
    app.connect("html-page-context", name_levels, priority=900)  # after the theme has made the menu
    return {"parallel_read_safe": True, "parallel_write_safe": True}
