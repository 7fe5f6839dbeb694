"""Build the site of the course into `_build/site`, to be opened from there or put on any server.

    python tools/build_site.py

Every chapter in `notebooks/` and every page in `docs/` is on it: nothing is listed by hand. The pages are
gathered in `_build/pages`, laid out as in the repository so that the same links work in both places, and a
few are made: the gallery, the claims, the reference of the package.
"""

import csv
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from pictures import is_moving
from pictures import pictures as pictures_of
from sphinx.cmd.build import build_main
from web_assets import KATEX, AssetError, fetch

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "docs" / "site"
BUILD = ROOT / "_build"
PAGES = BUILD / "pages"
SITE = BUILD / "site"


COPIED = ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "LICENSE-docs", "data/README.md")
STATUS_WORDS = {
    "disclosed": "said by its makers",
    "inferred": "a guess with reasons, by others",
    "unknown": "nobody outside knows",
    "wrong": "contradicted",
}
GROUPS = {
    "": "The parts of the machine, one idea a file",
    "data": "The toy world, its captions and its judge",
    "train": "Training, and the runs that the chapters draw",
    "teach": "Exercises, quizzes, figures and widgets",
}


def main() -> int:
    """Build everything; return the exit code."""
    began = time.monotonic()
    try:
        formulas = fetch(KATEX)
    except AssetError as error:
        print(f"The site was not built: {error}", file=sys.stderr)
        return 2
    gather()
    shutil.rmtree(SITE, ignore_errors=True)
    options = ["-b", "html", "-q", "-n", "-W", "--keep-going", "-j", "2"]
    places = ["-c", str(CONFIGURATION), "-d", str(BUILD / "doctrees"), str(PAGES), str(SITE)]
    code = build_main([*options, *places])
    if code == 0:
        lay_out_formulas(formulas)
        print(f"{SITE / 'index.html'}, built in {time.monotonic() - began:.0f} s")
    return code


def gather() -> None:
    """Lay out the sources of all pages in `_build/pages`; files that did not change keep their date."""
    wanted = {name: ROOT / name for name in COPIED}
    for pattern in ("notebooks/*.ipynb", "docs/**/*.md", "docs/images/*"):
        for path in ROOT.glob(pattern):
            name = path.relative_to(ROOT)
            if CONFIGURATION not in path.parents and ".ipynb_checkpoints" not in name.parts:
                wanted[name.as_posix()] = path
    made = {"claims.md": claims(), "api/index.md": reference_index()}
    made["index.md"] = front_page()
    made |= {f"api/{module}.rst": reference_page(module) for module in modules()}
    pictures = dict(moving_pictures())
    made["gallery.md"] = gallery(pictures)
    for name, path in wanted.items():
        content = path.read_bytes()
        if path.suffix == ".md":  # the README is the front page here
            content = re.sub(rb"\]\((\.\./)?README\.md", rb"](\1index.md", content)
        put(PAGES / name, content)
    for name, text in made.items():
        put(PAGES / name, text.encode())
    for picture, content in pictures.items():
        put(PAGES / picture.file, content)
    keep = {PAGES / name for name in [*wanted, *made, *(picture.file for picture in pictures)]}
    for path in PAGES.rglob("*"):
        if path.is_file() and path not in keep:
            path.unlink()


def put(path: Path, content: bytes) -> None:
    """Write a file, unless it holds that already: Sphinx reads again only what is newer."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def front_page() -> str:
    """The README, and below it the contents of the whole site."""
    return (ROOT / "README.md").read_text(encoding="utf-8") + (CONFIGURATION / "contents.md").read_text(
        encoding="utf-8"
    )


def claims() -> str:
    """The page of what is claimed about Sora, made from `data/claims.csv`."""
    with (ROOT / "data" / "claims.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    parts = [
        "# What is known about Sora",
        "OpenAI has said little about how Sora works. Each sentence below carries who says it, what it rests",
        "on, and one of four words: "
        + "; ".join(f"**{word}**, {said}" for word, said in STATUS_WORDS.items())
        + ".",
        "",
        "The table is `data/claims.csv`; a correction is a change of one line there.",
    ]
    for status, meaning in STATUS_WORDS.items():
        parts += ["", f"## {status.capitalize()}: {meaning}"]
        for row in rows:
            if row["status"] == status:
                said_by = row["said_by"][:1].upper() + row["said_by"][1:]
                parts += ["", f"**{row['claim']}.** {said_by}. {row['evidence']}."]
                if row["correction"]:
                    parts += ["", f"Instead: {row['correction']}."]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class Picture:
    """A moving picture that a chapter's cell shows."""

    file: str
    """Where it lies among the pages."""
    chapter: str
    """File name of the chapter."""
    alt: str
    """What it shows."""


def moving_pictures() -> Iterator[tuple[Picture, bytes]]:
    """Every moving picture of every chapter, with its bytes."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        moving = [(png, alt) for png, alt in pictures_of(path) if is_moving(png)]
        for number, (png, alt) in enumerate(moving, 1):
            yield Picture(f"clips/{path.stem}_{number}.png", path.name, alt), png


def gallery(pictures: dict[Picture, bytes]) -> str:
    """The page of all moving pictures, chapter by chapter."""
    parts = ["# Clips", "Everything that moves in the course, and the chapter that makes it."]
    chapter = ""
    for picture in pictures:
        if picture.chapter != chapter:
            chapter = picture.chapter
            title = nbformat.read(ROOT / "notebooks" / chapter, as_version=4).cells[0].source
            parts += ["", f"## {title.splitlines()[0].lstrip('# ')}", ""]
            parts += [f"[To the chapter](notebooks/{chapter})"]
        parts += [
            "",
            f"```{{figure}} {picture.file}",
            f":alt: {picture.alt}",
            ":loading: lazy",
            "",
            picture.alt.replace("*", r"\*"),
            "```",
        ]
    return "\n".join(parts) + "\n"


def modules() -> list[str]:
    """Dotted names of the package's modules, but for the exercises: these are to be met in the chapters."""
    found = []
    for path in sorted((ROOT / "sora_edu").rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("")
        if name.name in ("__init__", "__main__") or "exercises" in name.parts:
            continue
        found.append(".".join(name.parts))
    return found


def reference_index() -> str:
    """The first page of the reference: all modules, in groups."""
    parts = ["# The package `sora_edu`", "Made from the docstrings. Shapes stand in the signatures."]
    for group, title in GROUPS.items():
        prefix, depth = (f"sora_edu.{group}.", 3) if group else ("sora_edu.", 2)
        members = [m for m in modules() if m.startswith(prefix) and m.count(".") + 1 == depth]
        parts += ["", f"## {title}", "", "```{toctree}", ":maxdepth: 1", "", *members, "```"]
    return "\n".join(parts) + "\n"


def reference_page(module: str) -> str:
    """The page of one module."""
    title = f"``{module}``"
    return f"{title}\n{'=' * len(title)}\n\n.. automodule:: {module}\n"


def lay_out_formulas(katex: Path) -> None:
    """Put KaTeX beside the pages, with the one font format that every browser of today reads."""
    target = SITE / "_static" / "katex"
    for path in (katex / "dist").rglob("*"):
        if path.is_file() and path.suffix in (".js", ".css", ".woff2"):
            put(target / path.relative_to(katex / "dist"), path.read_bytes())
    shutil.copyfile(katex / "LICENSE", target / "LICENSE")


if __name__ == "__main__":
    sys.exit(main())
