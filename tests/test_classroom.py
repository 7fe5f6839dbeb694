"""What the pages for students and departments promise: keys, places where it runs, words, spelling."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
from jupyter_core.paths import jupyter_path

from sora_edu.teach.anatomy import Chapter
from sora_edu.teach.notebooks import read

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ---- Keys --------------------------------------------------------------------------------------------------

COMMANDS = {
    "Shift+Enter": "notebook:run-cell-and-select-next",
    "Ctrl+Enter": "notebook:run-cell",
    "Enter": "notebook:enter-edit-mode",
    "Esc": "notebook:enter-command-mode",
    "arrow up": "notebook:move-cursor-up",
    "arrow down": "notebook:move-cursor-down",
    "Tab": "completer:invoke-notebook",
    "Shift+Tab": "tooltip:launch-notebook",
    "A": "notebook:insert-cell-above",
    "B": "notebook:insert-cell-below",
    "0 0": "kernelmenu:restart",
    "Ctrl+Shift+C": "apputils:activate-command-palette",
    "Ctrl+S": "docmanager:save",
}
"""What each key of the page does, in JupyterLab's own names."""

SPELT = {"Ctrl": "Accel", "Esc": "Escape", "arrow up": "ArrowUp", "arrow down": "ArrowDown"}


def shortcuts() -> set[tuple[str, str]]:
    """Pairs of command and keys from the schemas that JupyterLab ships."""
    folders = [Path(folder, "lab", "schemas", "@jupyterlab") for folder in jupyter_path()]
    files = [path for folder in folders for path in folder.glob("*/*.json")]
    entries = [
        entry for path in files for entry in json.loads(path.read_text()).get("jupyter.lab.shortcuts", [])
    ]
    return {(entry["command"], " ".join(entry.get("keys", []))) for entry in entries}


def test_the_keys_of_the_page_are_jupyterlabs():
    rows = re.findall(r"^\| (.+?) \| .+ \|$", text("docs/keyboard.md"), re.MULTILINE)
    rows = [row for row in rows if row.startswith(("`", "arrow"))]
    named = ", ".join(rows).replace("`0` `0`", "`0 0`").replace("`", "").split(", ")
    assert set(named) == set(COMMANDS)
    known = shortcuts()
    for key in named:
        keys = SPELT.get(key, " ".join(SPELT.get(part, part) for part in key.split("+")))
        assert (COMMANDS[key], keys) in known, key


# ---- Where it runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def memory():
    """`benchmarks/kernel_memory.py` as a module."""
    spec = importlib.util.spec_from_file_location("kernel_memory", ROOT / "benchmarks" / "kernel_memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_what_was_measured(memory):
    table = memory.table(json.loads(memory.OUT.read_text()))
    assert table in text("docs/where_it_runs.md"), "run: python benchmarks/kernel_memory.py --page"


def test_a_chapter_fits_the_guarantee_of_the_hub(memory):
    report = json.loads(memory.OUT.read_text())
    peaks = [way["mib"] for taken in report["chapters"].values() for way in taken.values()]
    guarantee = float(re.search(r'mem_guarantee = "([\d.]+)G"', text("docs/where_it_runs.md"))[1])
    assert 300 < max(peaks) + report["server_mib"] < 1024 * guarantee


def test_the_container_copies_what_there_is_and_needs_nothing_else():
    lines = text("docker/Dockerfile").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    names = [name for name in copied if not name.startswith("--")]
    assert names and all((ROOT / name).exists() for name in names)
    needed = tomllib.loads(text("pyproject.toml"))["project"]
    assert {needed["readme"], *needed["license-files"], "sora_edu", "data", "constraints.txt"} <= set(names)
    assert not set(text("docker/Dockerfile.dockerignore").split()) & set(names)


def test_nothing_stands_in_binders_way_to_the_environment():
    """repo2docker takes the first of these that it finds, and a Dockerfile before everything else."""
    others = ("Dockerfile", "binder", ".binder", "environment.yaml", "requirements.txt")
    assert not [name for name in others if (ROOT / name).exists()]
    assert (ROOT / "environment.yml").exists()


def test_the_dev_container_makes_the_environment_that_it_points_to():
    made = json.loads(text(".devcontainer/devcontainer.json"))
    assert made["postCreateCommand"] == "make setup" and "\nsetup:" in text("Makefile")
    assert made["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith(
        "/.venv/bin/python"
    )


def test_the_install_cell_names_the_wheel_that_is_built():
    from sora_edu import __version__

    assert f"sora_edu-{__version__}-py3-none-any.whl" in text("docs/where_it_runs.md")


def test_nbgrader_is_pinned_to_the_version_that_the_guide_names():
    pins = dict(
        line.split("==") for line in text("tools/nbgrader_constraints.txt").splitlines() if "==" in line
    )
    assert f"nbgrader {pins['nbgrader']}" in text("docs/grading.md")


# ---- Words -------------------------------------------------------------------------------------------------

GLOSSARY = text("docs/glossary.md")
ENTRIES = re.findall(r"^- \*\*(.+?)\*\*(.*?): ", GLOSSARY, re.MULTILINE)


def test_the_glossary_is_in_order_and_says_each_word_once():
    names = [name.lower().strip("$\\") for name, _ in ENTRIES]
    assert len(set(names)) == len(names) > 80
    letters = re.findall(r"^## (\w)$", GLOSSARY, re.MULTILINE)
    assert letters == sorted(letters)
    for letter, part in zip(letters, re.split(r"^## \w$", GLOSSARY, flags=re.MULTILINE)[1:], strict=True):
        found = re.findall(r"^- \*\*(.+?)\*\*", part, re.MULTILINE)
        assert all(name.lower().lstrip("$\\").startswith(letter.lower()) for name in found), letter


def test_every_chapter_has_words_in_the_glossary():
    numbers = {number for _, where in ENTRIES for number in re.findall(r"\d\d", where)}
    assert numbers >= {path.stem[:2] for path in NOTEBOOKS}
    assert numbers <= {f"{number:02}" for number in range(15)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_words_that_the_glossary_gives_to_a_chapter_stand_in_it(path):
    chapter = Chapter(path.stem, read(path))
    prose = plain("\n".join(cell.source for cell in chapter.notebook.cells))
    for name, where in ENTRIES:
        if path.stem[:2] in where:
            words = re.split(r", |\$", plain(name))
            assert any(word.strip() and stem(word) in prose for word in words), (
                f"{name} is not in {path.stem}"
            )


def plain(text: str) -> str:
    """Small letters, and spaces for hyphens and underlines, as in "causal_mask"."""
    return re.sub(r"[-_\s]+", " ", text.lower())


def stem(word: str) -> str:
    """A word without its ending, so that "patchify" is found in "patchified"."""
    return word.strip().strip("\\").removesuffix("ing").removesuffix("y")


def test_pages_for_teaching_link_to_what_there_is():
    names = (
        "glossary",
        "grading",
        "instructor_guide",
        "instructor_chapters",
        "keyboard",
        "where_it_runs",
        "errors",
    )
    for name in names:
        targets = re.findall(r"\]\((?!https?:)([^)#]+)", text(f"docs/{name}.md"))
        assert all((DOCS / target).exists() for target in targets), (name, targets)


# ---- Spelling ----------------------------------------------------------------------------------------------


def test_the_course_is_spelt_right(capsys):
    spec = importlib.util.spec_from_file_location("spelling", ROOT / "tools" / "spelling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code = module.main([])
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", ["A teh chapter.", "The color of it.", "We analyze a tensor.", "Its behavior."]
)
def test_the_spelling_check_finds_slips_and_american_words(wrong, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("spelling", ROOT / "tools" / "spelling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "page.md").write_text(f"# A page\n\n{wrong} `color` is code.\n")
    assert module.main([str(tmp_path / "page.md")]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1
