"""Look for misspelt words, and for American spellings, in what people read.

    python tools/spelling.py [FILE...]

Prose is read: Markdown pages and cells without their code, comments and docstrings of Python files, and the
texts of quizzes and questions. codespell's dictionary says what is misspelt; its list of British and American
pairs, turned round, says what is American. Without names, everything is read. Exit code 1: a word was found.
"""

import io
import json
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import codespell_lib
import nbformat

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("docs", "notebooks", "sora_edu", "tests", "tools", "benchmarks", "data/quizzes")
ENDINGS = (".md", ".ipynb", ".py", ".toml", ".json")

ALLOWED = frozenset({"program", "programs", "disk", "disks", "practice", "story", "biased"})
"""In the list of American words, and British as well: a computer's program, a noun, a tale, a usual form."""

TITLES = ("Flow Matching for Generative Modeling",)
"""Names of papers, which keep their spelling."""

CODE = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|<[^>\n]+>|\]\([^)]*\)|https?://\S+", re.DOTALL
)
WORD = re.compile(r"(?<![\w.\-/=\\])[A-Za-z]+(?:'[a-z]+)?(?![\w(=\\]|\.\w|/\w)")


def dictionary() -> dict[str, str]:
    """Wrong word -> what codespell would have."""
    data = Path(codespell_lib.__file__).parent / "data"
    pairs = dict(_pairs(data / "dictionary.txt"))
    american = {theirs: ours for ours, theirs in _pairs(data / "dictionary_en-GB_to_en-US.txt")}
    british = set(american.values())
    pairs.update({word: right for word, right in american.items() if word not in british})
    return {word: right for word, right in pairs.items() if word not in ALLOWED}


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        wrong, arrow, right = line.strip().partition("->")
        if arrow:
            yield wrong.lower(), right.split(",")[0].strip().lower()


def prose(path: Path) -> Iterator[tuple[str, str]]:
    """The texts of a file that people read, each with its place."""
    raw = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield "", raw
    elif path.suffix == ".ipynb":
        for cell in nbformat.reads(raw, as_version=4).cells:
            if cell.cell_type == "markdown":
                yield cell.id, cell.source
            else:
                yield from _of_python(cell.source, f"{cell.id}:")
    elif path.suffix == ".py":
        yield from _of_python(raw, "")
    else:
        parsed = json.loads(raw) if path.suffix == ".json" else tomllib.loads(raw)
        yield from (("", line) for line in _strings(parsed))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str) and " " in value:
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _of_python(source: str, where: str) -> Iterator[tuple[str, str]]:
    """Comments and docstrings: strings that are statements of their own."""
    begins = True
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT or (begins and token.type == tokenize.STRING):
                yield f"{where}{token.start[0]}", token.string
            if token.type not in (tokenize.COMMENT, tokenize.NL):
                begins = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    except (tokenize.TokenError, SyntaxError):  # a magic command
        return


def slips(path: Path, wrong: dict[str, str]) -> Iterator[str]:
    """The wrong words of a file, one line each."""
    for where, text in prose(path):
        for title in TITLES:
            text = text.replace(title, " ")
        for word in WORD.findall(CODE.sub(" ", text)):
            if (right := wrong.get(word.lower())) is not None:
                yield f"{path}:{where}: {word} -> {right}"


def files() -> list[Path]:
    """Everything that people read."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in ENDINGS]
    return sorted([*found, *ROOT.glob("*.md")])


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    paths = [Path(name) for name in arguments] or [path for path in files() if ".ipynb_" not in str(path)]
    wrong = dictionary()
    found = [line for path in paths for line in slips(path, wrong)]
    for line in found:
        print(line)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
