"""Where to compute, in which number format (bfloat16 where it is really faster), and whether compiled."""

import os
import shutil
import time
from contextlib import AbstractContextManager
from functools import lru_cache

import torch

VARIABLE = "SORA_EDU_DTYPE"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU = torch.device("cpu")


def best_device() -> torch.device:
    """An NVIDIA GPU if torch can use one, else the processor."""
    return torch.device("cuda") if torch.cuda.is_available() else CPU


def _best_seconds(dtype: torch.dtype, size: int = 512, repeats: int = 5) -> float:
    x = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        x @ x
        times.append(time.perf_counter() - start)
    return min(times)


@lru_cache(maxsize=1)
def _probe() -> torch.dtype:
    """A few matrix products in each format, some milliseconds in all."""
    clearly_faster = _best_seconds(torch.bfloat16) < 0.8 * _best_seconds(torch.float32)
    return torch.bfloat16 if clearly_faster else torch.float32


def working_dtype(device: torch.device = CPU) -> torch.dtype:
    """The faster of bfloat16 and float32 on this machine, or what SORA_EDU_DTYPE asks for.

    Many laptops have no bfloat16 units and are slower with it, so on a processor it is measured; a GPU that
    has them is always faster with them. Raises ValueError when the variable is set to anything but float32
    or bfloat16.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted is None and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if wanted is None:
        return _probe()
    if wanted not in DTYPES:
        raise ValueError(f"{VARIABLE}={wanted!r} is unknown; use one of: {', '.join(DTYPES)}")
    return DTYPES[wanted]


def check_compiler(device: torch.device = CPU) -> None:
    """Raises ValueError where torch.compile has no C++ compiler, which it needs on a processor."""
    names = [os.environ.get("CXX"), "g++", "clang++", "cl"]
    if device == CPU and not any(name and shutil.which(name) for name in names):
        raise ValueError(
            "torch.compile needs a C++ compiler on a processor, and there is none; leave --compile out, or "
            "install g++ or clang++ (on Debian and Ubuntu: apt install g++)"
        )


def autocast(dtype: torch.dtype | None = None, device: torch.device = CPU) -> AbstractContextManager:
    """A context in which matrix products on `device` run in `dtype` (by default `working_dtype(device)`)."""
    dtype = dtype or working_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
