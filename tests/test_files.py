"""Files appear whole or not at all, whatever goes wrong."""

import errno
import os
import subprocess
import sys

import pytest

from sora_edu.files import WriteError, check_folder, check_target, replacing, write_whole


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a.bin"
    assert write_whole(path, b"one") == path
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EIO, "error")]
)
def test_failed_write_changes_nothing(tmp_path, monkeypatch, number, words):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WriteError, match=words):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, RuntimeError])
def test_an_exception_in_the_block_changes_nothing(tmp_path, exception):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(exception), replacing(path) as file:
        file.write(b"half of the ne")
        raise exception
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_an_error_of_the_system_is_found_behind_another_one(tmp_path):
    """As torch.save does it: writing fails, and closing what was begun then fails in its own way."""
    with pytest.raises(WriteError, match="disk is full"), replacing(tmp_path / "a.bin"):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 98176 vs 98128")
    assert not list(tmp_path.iterdir())


def test_a_real_limit_on_the_file_size(tmp_path):
    """The operating system itself cuts the write short, in a process of its own."""
    pytest.importorskip("resource")
    code = (
        "import resource; from sora_edu.files import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_whole('big.bin', bytes(100_000))\n"
        "except OSError as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_here())
    assert done.stdout.startswith("WriteError cannot write big.bin: the file is larger than is allowed"), done
    assert not list(tmp_path.iterdir())


def _here():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return {**os.environ, "PYTHONPATH": root}


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target.bin", tmp_path / "link.bin"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_bad_targets_are_named(tmp_path):
    with pytest.raises(WriteError, match="it is a folder"):
        check_target(tmp_path)
    with pytest.raises(WriteError, match="does not exist; make it first"):
        check_target(tmp_path / "no" / "a.bin")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="is not a folder"):
        check_target(tmp_path / "file" / "a.bin")


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    with pytest.raises(WriteError, match="may not write there"):
        check_target(tmp_path / "a.bin")


def test_a_folder_to_write_in_need_not_exist_yet(tmp_path, monkeypatch):
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert check_folder(str(tmp_path)) == tmp_path
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(WriteError, match="file is a file; name a folder"):
            check_folder(path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(WriteError, match="you may not write there"):
        check_folder(tmp_path / "a")
