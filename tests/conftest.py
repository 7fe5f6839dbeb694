"""Settings that every test shares.

Shapes are checked in every run: `pyproject.toml` passes `--jaxtyping-packages=sora_edu,beartype.beartype`,
which makes each annotated function of the package compare its arguments and results with its signature.
"""

import os
import tempfile

import pytest
import torch

# Workers that run side by side share the cores, and two threads on one core wait for each other most of the
# time. Only the workers know how many they are: the process that starts them hands on its environment, so it
# must leave this alone. The kernels that a worker starts for notebooks inherit its setting.
if _WORKERS := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(_WORKERS))))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# Exercises that the notebooks check while they are tested are not the user's own progress.
_HOME = tempfile.TemporaryDirectory(prefix="sora_edu_progress_")
os.environ["SORA_EDU_HOME"] = _HOME.name


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh random generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


def _part(nodeid: str) -> str:
    """Which part of the run a test belongs to."""
    if nodeid.startswith("notebooks/"):
        return "notebooks as they ship"
    if nodeid.startswith("tests/notebooks/"):
        return "notebooks solved and their anatomy"
    return "unit tests"


def pytest_terminal_summary(terminalreporter):
    """Say how long each part took, above pytest's own last line."""
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                part = _part(report.nodeid)
                seconds[part] = seconds.get(part, 0.0) + report.duration
                counts[part] = counts.get(part, 0) + (report.when == "call")
    if len(seconds) > 1:
        terminalreporter.section("time in each part, added up over the workers")
        for part in sorted(seconds):
            terminalreporter.line(f"{seconds[part]:7.1f} s  {part} ({counts[part]} tests)")
