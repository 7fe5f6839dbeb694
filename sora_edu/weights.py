"""Weights on the disk: safetensors files, checked before use, with errors that say what would work."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sora_edu.files import write_whole

_LFS = b"version https://git-lfs"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or does not fit the model; the message says what would work."""

    def __init__(self, path: Path | str, problem: str):
        super().__init__(
            f"{path}: {problem}.\nWhat would work: put the shipped files back (in a clone: git checkout -- "
            "data/checkpoints; or clone or install again), or train your own: python -m sora_edu train tiny"
        )


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_weights(module: nn.Module, path: Path | str, dtype: torch.dtype = torch.float32) -> str:
    """Writes a module's weights; see `save_tensors`."""
    return save_tensors(module.state_dict(), path, dtype)


def save_tensors(state: Mapping[str, Tensor], path: Path | str, dtype: torch.dtype = torch.float32) -> str:
    """Writes tensors by name as safetensors, whole or not at all, and gives the file's SHA-256.

    Args:
        state: what to keep.
        path: the file.
        dtype: number format of the floats in the file; half the size is enough to draw from, not to train on.
    """
    kept = {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in state.items()
    }
    content = save(kept)
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def load_weights(module: nn.Module, path: Path | str, digest: str | None = None) -> None:
    """Puts the weights of a safetensors file into a module, in the module's own number format.

    Raises:
        CheckpointError: the file is missing, a Git LFS pointer, damaged (`digest` is its true SHA-256), or
            holds other weights than the module has.
    """
    path = Path(path)
    _check_file(path, digest)
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(path, f"the file is damaged ({error})") from error
    problem = _difference(module.state_dict(), state)
    if problem:
        raise CheckpointError(path, f"these are not the weights of this model: {problem}")
    module.load_state_dict(state)


def _check_file(path: Path, digest: str | None) -> None:
    if not path.is_file():
        raise CheckpointError(path, "the file is missing")
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise CheckpointError(path, "this is a Git LFS pointer, not the weights; run: git lfs pull")
    if digest is not None and sha256(path) != digest:
        raise CheckpointError(path, "the file is damaged: its SHA-256 is not the one in config.json")


def _difference(wanted, found) -> str:
    """What keeps `found` from being loaded as `wanted`: names and shapes; empty if nothing does."""
    lists = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(value.shape)}"
            for name, value in wanted.items()
            if name in found and found[name].shape != value.shape
        ],
    }
    return "; ".join(
        f"{len(names)} {what}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        for what, names in lists.items()
        if names
    )
