"""Settings that every test shares.

Shapes are checked in every run: `pyproject.toml` passes `--jaxtyping-packages=sora_edu,beartype.beartype`, which
makes each annotated function of the package compare its arguments and results with its signature.
"""

import os

import pytest
import torch

# Workers that run side by side share the cores; the kernels that they start for notebooks inherit the variable.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_THREADS = max(1, (os.cpu_count() or 1) // _WORKERS)
os.environ.setdefault("OMP_NUM_THREADS", str(_THREADS))
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh random generator with a fixed seed."""
    return torch.Generator().manual_seed(0)
