"""The set-up script, without installing anything."""

import ast
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "setup_env.py"


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """The script as a module, at work in an empty project folder with spaces in its name."""
    spec = importlib.util.spec_from_file_location("setup_env", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "a course"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "constraints.txt").write_text("# pins\nnumpy==2.0\ntorch==9.9.9\n")
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "VENV", root / ".venv")
    monkeypatch.setattr(module, "PYTHON", root / ".venv" / "bin" / "python")
    monkeypatch.setattr(module, "STAMP", root / ".venv" / "stamp.json")
    monkeypatch.setattr(module, "LOG", root / ".venv" / "setup.log")
    for name in ("TORCH", "PYTHON"):
        monkeypatch.delenv(name, raising=False)
    return module


@pytest.fixture
def installed(setup, monkeypatch):
    """What would be installed: a list that fills up while the script runs against a pretended environment."""
    calls = []

    def create():
        setup.PYTHON.parent.mkdir(parents=True)
        setup.PYTHON.write_text("")

    monkeypatch.setattr(setup, "create_environment", create)
    monkeypatch.setattr(
        setup, "environment_version", lambda: setup.running_version() if setup.PYTHON.exists() else ""
    )
    monkeypatch.setattr(setup, "install", lambda what, arguments: calls.append(arguments))
    monkeypatch.setattr(setup, "reachable", lambda address: True)
    monkeypatch.setattr(setup, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(setup, "NEEDED_GIB", 0.0)
    monkeypatch.setattr(setup.sys, "platform", "linux")
    return calls


def test_old_pythons_can_read_it():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


def test_an_old_python_is_told_what_to_do(setup, monkeypatch, capsys):
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 18))
    assert setup.main() == 2
    said = capsys.readouterr().err
    assert "needs 3.11" in said and "PYTHON=" in said


def test_a_second_run_installs_nothing(setup, installed):
    assert setup.main() == 0
    assert installed.pop()[:1] == ["-e"] and len(installed) == 1
    installed.clear()
    assert setup.main() == 0
    assert installed == []


@pytest.mark.parametrize("change", ["pins", "project", "place", "environment gone", "stamp damaged"])
def test_what_makes_an_environment_stale(setup, installed, monkeypatch, change):
    setup.main()
    installed.clear()
    if change == "pins":
        (setup.ROOT / "constraints.txt").write_text("torch==10.0.0\n")
    elif change == "project":
        (setup.ROOT / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    elif change == "place":
        moved = setup.ROOT.rename(setup.ROOT.parent / "elsewhere")
        for name in ("VENV", "PYTHON", "STAMP", "LOG"):
            monkeypatch.setattr(setup, name, moved / getattr(setup, name).relative_to(setup.ROOT))
        monkeypatch.setattr(setup, "ROOT", moved)
    elif change == "environment gone":
        setup.PYTHON.unlink()
        setup.PYTHON.parent.rmdir()
    else:
        setup.STAMP.write_text("{half a sta")
    assert setup.main() == 0
    assert len(installed) == 2


def test_torch_comes_from_the_cpu_index_and_its_dependencies_do_not(setup, installed):
    setup.main()
    assert installed[0] == ["--no-deps", "--index-url", setup.CPU_INDEX, "torch==9.9.9"]


def test_torch_falls_back_to_the_usual_index(setup, installed, monkeypatch, capsys):
    monkeypatch.setattr(setup, "reachable", lambda address: False)
    setup.main()
    assert installed[0] == ["torch==9.9.9"]
    assert "cannot be reached" in capsys.readouterr().out


def test_a_gpu_or_another_system_takes_the_usual_index(setup, installed, monkeypatch):
    monkeypatch.setattr(setup.sys, "platform", "darwin")
    setup.main()
    assert installed[0] == ["torch==9.9.9"]
    monkeypatch.setattr(setup.sys, "platform", "linux")
    monkeypatch.setattr(setup, "has_nvidia_gpu", lambda: True)
    assert setup.torch_source("") == "default"


def test_a_choice_of_torch_is_kept_until_another_is_made(setup, installed, monkeypatch):
    monkeypatch.setenv("TORCH", "default")
    setup.main()
    monkeypatch.delenv("TORCH")
    installed.clear()
    setup.main()
    assert installed == []
    monkeypatch.setenv("TORCH", "https://example.org/simple")
    setup.main()
    assert installed[0][0] == "--force-reinstall"
    assert installed[0][-2:] == ["https://example.org/simple", "torch==9.9.9"]


def test_an_impossible_choice_of_torch_changes_nothing(setup, installed, monkeypatch, capsys):
    setup.main()
    before = setup.STAMP.read_text()
    monkeypatch.setenv("TORCH", "gpu")
    assert setup.main() == 2
    assert "TORCH=gpu" in capsys.readouterr().err
    assert setup.STAMP.read_text() == before


def test_an_environment_is_not_thrown_away_without_need(setup, installed, monkeypatch):
    setup.main()
    monkeypatch.setattr(setup, "create_environment", lambda: pytest.fail("the environment was made again"))
    setup.STAMP.unlink()
    assert setup.main() == 0
    # Only a Python that was asked for by hand replaces one that works.
    monkeypatch.setattr(setup, "environment_version", lambda: "3.99")
    setup.STAMP.unlink()
    assert setup.main() == 0
    monkeypatch.setenv("PYTHON", "python3.11")
    assert not setup.environment_fits()


def test_a_failed_installation_leaves_no_stamp(setup, installed, monkeypatch, capsys):
    def fail(what, arguments):
        raise setup.SetupError("the disk is full.")

    monkeypatch.setattr(setup, "install", fail)
    assert setup.main() == 2
    assert not setup.STAMP.exists()
    assert "the disk is full" in capsys.readouterr().err


def test_a_small_disk_is_refused_before_anything_is_made(setup, installed, monkeypatch, capsys):
    monkeypatch.setattr(setup, "NEEDED_GIB", 1e9)
    assert setup.main() == 2
    assert "GiB free" in capsys.readouterr().err
    assert not setup.VENV.exists()


@pytest.mark.parametrize(
    ("pip_said", "expected"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("[Errno 13] Permission denied: '/x'", "no permission"),
        ("Failed to establish a new connection: [Errno -2] Name or service not known", "HTTPS_PROXY"),
        ("ERROR: No matching distribution found for torch==2.13.0", "lacks a package"),
        ("SyntaxError: invalid syntax", ""),
    ],
)
def test_known_failures_get_advice(setup, pip_said, expected):
    assert expected in setup.advice(pip_said)
    assert bool(setup.advice(pip_said)) == bool(expected)


def test_pip_failures_are_reported_with_the_log(setup, monkeypatch):
    setup.VENV.mkdir()
    monkeypatch.setattr(setup, "run_with_status", lambda command: (1, "one\ntwo\nthree\nfour\nfive\n"))
    with pytest.raises(setup.SetupError, match=r"(?s)two.*five.*setup\.log"):
        setup.install("torch", ["torch"])
    assert "three" in setup.LOG.read_text()


def test_status_collects_all_output(setup, capsys):
    code, output = setup.run_with_status([sys.executable, "-c", "print('a\\n\\nb'); raise SystemExit(3)"])
    assert (code, output) == (3, "a\n\nb\n")
    assert capsys.readouterr().out == "" or os.isatty(1)


def test_status_is_shown_while_the_command_runs(setup, monkeypatch, tmp_path):
    """The command waits until its first line has been shown, and gives up after a minute."""
    shown, seen = tmp_path / "shown", []

    def show_status(text: str) -> None:
        seen.append(text)
        if text.endswith("one"):
            shown.touch()

    monkeypatch.setattr(setup, "show_status", show_status)
    code = (
        "import pathlib, sys, time; print('one'); shown, end = pathlib.Path(sys.argv[1]), time.time() + 60\n"
        "while not shown.exists() and time.time() < end: time.sleep(0.01)\n"
        "print('two'); sys.exit(not shown.exists())"
    )
    ended, _ = setup.run_with_status([sys.executable, "-c", code, str(shown)])
    assert ended == 0
    assert any(text.endswith("two") for text in seen)


def test_the_stamp_says_what_was_installed(setup, installed):
    setup.main()
    stamp = json.loads(setup.STAMP.read_text())
    assert stamp["place"] == str(setup.ROOT)
    assert stamp["python"] == setup.running_version()
