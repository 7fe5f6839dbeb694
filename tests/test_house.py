"""The repository as a whole: its commands, its packaging, its links, and which file may import which."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()

# Names under which a distribution is imported or packaged elsewhere, where they differ from its own.
IMPORTED_AS = {"scikit-learn": "sklearn", "pillow": "PIL", "ipython": "IPython", "pytest-xdist": "xdist"}
CONDA_NAMES = {"pytorch": "torch"}

TAUGHT = {"torch", "einops", "jaxtyping"}
CHAPTER_FILES = (
    *("diffusion", "samplers", "positions", "attention", "transformer", "patches", "vit", "autoencoder"),
    *("dit", "masked_dit", "video_dit", "scale"),
)


def dotted(path: Path) -> str:
    """A file's name as a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in (ROOT / "sora_edu").rglob("*.py") if "_assets" not in path.parts}


def imports(path: Path, top_level: bool = False) -> set[str]:
    """Dotted names of the modules that a Python file imports; at its top level only, if so asked."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {member if member in MODULES else node.module for member in members}
    return found


def declared(*extras: str) -> set[str]:
    """Names of the distributions that the project declares."""
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    return {re.match(r"[A-Za-z0-9_.-]+", line)[0].lower() for line in lines}


# --- commands --------------------------------------------------------------------------------------------


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@needs_make
def test_make_help_lists_every_command():
    makefile = (ROOT / "Makefile").read_text()
    commands = re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split()
    listed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {"lab", "test", "video", "help"} <= set(commands)
    assert set(commands) == set(re.findall(r"^  ([a-z]+) ", listed, re.M))


@needs_make
def test_make_video_without_a_prompt_says_what_to_type():
    result = subprocess.run(["make", "-s", "video", "PROMPT="], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert 'make video PROMPT="a red star bounces"' in result.stderr


def test_continuous_integration_runs_the_readme_command():
    assert re.search(r"^make test$", README, re.M)
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[-1].split("<")[0].strip() == "exec make test"
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert {os.split("-")[0] for os in job["strategy"]["matrix"]["os"]} == {"ubuntu", "macos"}


def test_the_line_for_windows_is_the_line_of_make_test():
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    by_make = recipe.replace("\\\n", "").split("-m pytest")[1].split()
    by_hand = re.search(r"Scripts\\python -m pytest(.*)", README)[1].replace("\\", "/").split()
    assert by_make == by_hand


# --- packaging -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The course as a wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_data_and_the_package(wheel):
    def inside(root):
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}

    assert inside(ROOT / "data") == inside(wheel / "sora_edu" / "_assets")
    shipped = {name for name in inside(wheel / "sora_edu") if name.endswith(".py")}
    assert shipped == {path.relative_to(ROOT / "sora_edu").as_posix() for path in MODULES.values()}


def test_an_installed_wheel_finds_its_own_data(wheel, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
    code += "from sora_edu.assets import data_path; print(data_path('README.md'))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()) == wheel / "sora_edu" / "_assets" / "README.md"


def test_importing_the_package_is_light():
    code = "import sora_edu, sys; print(*({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == ""


def test_every_dependency_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    assert declared("test", "site", "edit") - set(pins) == set()
    assert pins["torch"] == "2.13.0"


def test_every_import_is_declared():
    known = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in declared()}
    known |= sys.stdlib_module_names | {"sora_edu"}
    optional = {"transformers", "diffusers", "huggingface_hub"}  # imported inside the loaders that need them
    for name, path in MODULES.items():
        foreign = {module.split(".")[0] for module in imports(path)} - known - optional
        assert not foreign, f"{name} imports {foreign}, which pyproject.toml does not declare"
        assert not {module.split(".")[0] for module in imports(path, top_level=True)} & optional


def test_conda_installs_the_course_and_nothing_undeclared():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    *plain, by_pip = environment["dependencies"]
    assert by_pip == {"pip": ["-e ."]}
    names = {re.match(r"[a-z0-9_-]+", line)[0] for line in plain}
    assert {CONDA_NAMES.get(name, name) for name in names} - {"python", "pip"} <= declared()


# --- text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"])
def test_relative_links_lead_somewhere(name):
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_the_readme_lists_all_chapters_in_order():
    rows = re.findall(r"^\| (\d\d) \| \[.+\]\(notebooks/(.+)\) \|", README, re.M)
    assert [name for _, name in rows] == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert [number for number, _ in rows] == [name[:2] for _, name in rows] == [f"{n:02}" for n in range(15)]


def test_the_notebooks_are_valid_json_with_ids():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        ids = [cell["id"] for cell in cells]
        assert len(set(ids)) == len(ids) > 0, path.name


# --- who may import whom ---------------------------------------------------------------------------------


def test_imports_go_one_way():
    graph = {name: imports(path, top_level=True) & set(MODULES) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle

    above = {"sora_edu.teach": 2, "sora_edu.train": 1, "sora_edu.sora": 1, "sora_edu.evaluate": 1}

    def height(name):
        if name == "sora_edu.__main__":
            return 3
        return next((level for prefix, level in above.items() if (name + ".").startswith(prefix + ".")), 0)

    upward = [
        (name, other) for name, others in graph.items() for other in others if height(other) > height(name)
    ]
    assert upward == []


def test_chapter_files_can_be_lifted_out():
    own = {f"sora_edu.{name}" for name in CHAPTER_FILES}
    for name in CHAPTER_FILES:
        path = ROOT / "sora_edu" / f"{name}.py"
        for module in imports(path, top_level=True) if path.exists() else ():
            base = module.split(".")[0]
            ours = base == "sora_edu" and (".".join(module.split(".")[:2]) in own or module == "sora_edu")
            assert ours or base in TAUGHT | sys.stdlib_module_names, f"{name}.py imports {module}"
