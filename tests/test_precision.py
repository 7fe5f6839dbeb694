"""Which number format is chosen, and what the autocast context does with it."""

import pytest
import torch

from sora_edu import precision
from sora_edu.precision import VARIABLE, autocast, best_device, check_compiler, working_dtype


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch):
    """No choice of the user, and nothing measured yet; what the others measured comes back afterwards."""
    monkeypatch.delenv(VARIABLE, raising=False)
    precision._probe.cache_clear()
    yield
    precision._probe.cache_clear()


def pretend(monkeypatch, bfloat16: float, float32: float = 1.0) -> list[torch.dtype]:
    """Makes the measurement say what it is told; gives the list of what was measured."""
    measured = []

    def seconds(dtype):
        measured.append(dtype)
        return {torch.bfloat16: bfloat16, torch.float32: float32}[dtype]

    monkeypatch.setattr(precision, "_best_seconds", seconds)
    return measured


@pytest.mark.parametrize(
    ("bfloat16", "wanted"),
    [(0.4, torch.bfloat16), (0.79, torch.bfloat16), (0.81, torch.float32), (3.0, torch.float32)],
)
def test_bfloat16_must_be_clearly_faster(monkeypatch, bfloat16, wanted):
    pretend(monkeypatch, bfloat16)
    assert working_dtype() == wanted


def test_it_is_measured_once(monkeypatch):
    measured = pretend(monkeypatch, 0.5)
    assert working_dtype() == working_dtype()
    assert sorted(map(str, measured)) == ["torch.bfloat16", "torch.float32"]


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_user_decides_without_a_measurement(monkeypatch, name):
    measured = pretend(monkeypatch, 0.5)
    monkeypatch.setenv(VARIABLE, name)
    assert working_dtype() == getattr(torch, name)
    assert not measured


def test_an_unknown_format_is_explained(monkeypatch):
    monkeypatch.setenv(VARIABLE, "float16")
    with pytest.raises(ValueError, match="SORA_EDU_DTYPE='float16' is unknown; use one of: float32, b"):
        working_dtype()


@pytest.mark.parametrize(("has_units", "wanted"), [(True, torch.bfloat16), (False, torch.float32)])
def test_on_a_gpu_its_units_decide(monkeypatch, has_units, wanted):
    measured = pretend(monkeypatch, 3.0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_units)
    assert working_dtype(torch.device("cuda")) == wanted
    monkeypatch.setenv(VARIABLE, "float32")
    assert working_dtype(torch.device("cuda")) == torch.float32
    assert not measured


@pytest.mark.parametrize(("present", "wanted"), [(True, "cuda"), (False, "cpu")])
def test_the_best_device_is_a_gpu_where_there_is_one(monkeypatch, present, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert best_device() == torch.device(wanted)


def test_the_real_measurement_gives_one_of_both():
    assert working_dtype() in (torch.float32, torch.bfloat16)
    assert 0 < precision._best_seconds(torch.float32, size=16, repeats=2) < 1


@pytest.mark.filterwarnings("error")  # torch warns when autocast is asked for float32
def test_matrix_products_run_in_the_format_that_is_asked_for(monkeypatch):
    x = torch.ones(2, 2)
    with autocast(torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with autocast(torch.float32):
            assert (x @ x).dtype == torch.float32
    assert (x @ x).dtype == torch.float32
    monkeypatch.setenv(VARIABLE, "bfloat16")
    with autocast():
        assert (x @ x).dtype == torch.bfloat16


@pytest.mark.parametrize("there", ["g++", "clang++", "cl", "my-c++"])
def test_any_compiler_will_do(monkeypatch, there):
    monkeypatch.setenv("CXX", "my-c++")
    monkeypatch.setattr(precision.shutil, "which", lambda name: name if name == there else None)
    check_compiler()


def test_no_compiler_is_explained_on_a_processor_alone(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(precision.shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler on a processor.*leave --compile out"):
        check_compiler()
    check_compiler(torch.device("cuda"))
