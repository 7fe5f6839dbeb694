"""Where the files that ship with the course are: checkpoints, reference curves, quizzes and tables."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_root() -> Path:
    """Folder that holds the shipped data.

    An installed wheel carries it inside the package, as `sora_edu/_assets`; a checkout has it beside the
    package, as `data/`.

    Raises:
        FileNotFoundError: neither folder exists, so the installation is incomplete.
    """
    candidates = (_PACKAGE / "_assets", _PACKAGE.parent / "data")
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f"the course's data folder is missing: looked for {candidates[0]} and {candidates[1]}. "
        "Install sora-edu again, or clone the whole repository."
    )


def data_path(*parts: str) -> Path:
    """Path of a shipped file or folder, such as `data_path("quizzes", "02.json")`.

    Args:
        parts: names of the folders and of the file, from the data folder down.

    Raises:
        FileNotFoundError: nothing of that name ships; the message lists what its folder holds.
    """
    root = data_root()
    path = root.joinpath(*parts)
    if path.exists():
        return path
    folder = path.parent
    while not folder.is_dir():
        folder = folder.parent
    present = ", ".join(sorted(entry.name for entry in folder.iterdir())) or "nothing"
    raise FileNotFoundError(f"no {'/'.join(parts)!r} among the shipped data; {folder} holds: {present}")
