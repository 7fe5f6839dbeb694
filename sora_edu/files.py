"""Writing files whole or not at all.

A file that appears under its name is complete: it is written beside its place under another name, brought
to the disk, and only then renamed. Whatever goes wrong on the way, what stood there before still stands.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space, or write to another one",
    errno.EDQUOT: "your disk quota is used up; free some space, or write elsewhere",
    errno.EFBIG: "the file is larger than is allowed here; write elsewhere, or raise the limit (ulimit -f)",
    errno.EACCES: "you may not write there; choose a folder of your own",
    errno.EPERM: "you may not write there; choose a folder of your own",
    errno.EROFS: "that disk is read-only; choose a folder on another one",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


class WriteError(OSError):
    """A file could not be written; the message says why and what would do. Nothing was changed."""


def check_target(path: Path | str) -> Path:
    """The path as a `Path`, if a file can be put there, so that no work is done for nothing.

    Raises:
        WriteError: the path is a folder, or its folder does not exist or may not be written to.
    """
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise WriteError(f"cannot write {path}: it is a folder; name a file in it")
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist; make it first"
        raise WriteError(f"cannot write {path}: {folder} {what}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"cannot write {path}: {_ADVICE[errno.EACCES]}")
    return path


def check_folder(path: Path | str) -> Path:
    """The path as a `Path`, if it is a folder to write in or one can be made there; makes nothing.

    Raises:
        WriteError: a file stands there or on the way, or the nearest folder may not be written to.
    """
    path = Path(path)
    above = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not above.is_dir():
        raise WriteError(f"cannot write into {path}: {above} is a file; name a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise WriteError(f"cannot write into {path}: {_ADVICE[errno.EACCES]}")
    return path


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[BinaryIO]:
    """An open file that takes the place of `path`, in one step, when the block ends well.

    >>> with replacing("run/checkpoint.pt") as file:
    ...     torch.save(state, file)

    Raises:
        WriteError: the disk is full, the folder is missing or may not be written to, and so on. After this,
            as after any other exception, nothing half-written is left and an old file is as it was.
    """
    path = check_target(path)
    place = path.resolve()  # through a link, so that the link stays and its target is replaced
    draft = place.with_name(f".{place.name[:200]}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a full disk may show only here
        draft.replace(place)
    except Exception as error:
        failure = _os_error_behind(error)
        if failure is None:
            raise
        advice = _ADVICE.get(failure.errno, failure.strerror or str(failure))
        raise WriteError(f"cannot write {path}: {advice}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _os_error_behind(error: BaseException | None) -> OSError | None:
    """The error of the operating system that led to this one: torch.save hides it behind one of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def write_whole(path: Path | str, content: bytes) -> Path:
    """Puts `content` at `path`; see `replacing`."""
    with replacing(path) as file:
        file.write(content)
    return Path(path)
