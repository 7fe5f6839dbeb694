"""Which number format to compute in: bfloat16 where this machine is really faster with it, else float32."""

import os
import time
from contextlib import AbstractContextManager
from functools import lru_cache

import torch

VARIABLE = "SORA_EDU_DTYPE"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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


def working_dtype() -> torch.dtype:
    """The faster of bfloat16 and float32 on this machine, or what SORA_EDU_DTYPE asks for.

    Many laptops have no bfloat16 units and are slower with it, so it is measured. Raises ValueError when
    the variable is set to anything but float32 or bfloat16.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return _probe()
    if wanted not in DTYPES:
        raise ValueError(f"{VARIABLE}={wanted!r} is unknown; use one of: {', '.join(DTYPES)}")
    return DTYPES[wanted]


def autocast(dtype: torch.dtype | None = None) -> AbstractContextManager:
    """A context in which matrix products run in `dtype` (by default `working_dtype()`)."""
    dtype = dtype or working_dtype()
    return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
