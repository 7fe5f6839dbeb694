"""What a learner has done so far, kept in one small JSON file on their own machine, and what is next.

The file is `progress.json` in `$SORA_EDU_HOME`, or else in the place where the system keeps such state.
Nothing here ever stops a lesson: where the file cannot be written, progress lasts as long as the kernel, and
a damaged file is moved aside with a message.
"""

import html
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from sora_edu.files import write_whole
from sora_edu.teach.exercise import every


@dataclass(frozen=True)
class Record:
    """What is remembered of one exercise."""

    attempts: int = 0
    """Checks of something other than the stub."""
    passed: bool = False
    """True once a check has passed."""
    misconception: str | None = None
    """The known mistake that the last check named."""
    rung: int = 0
    """Rungs of the present hint ladder that have been shown."""
    solution_seen: bool = False
    """True once the solution has been shown."""
    at: float = field(default=0.0, compare=False)
    """When something was last done with it, in seconds since 1970; 0: not known."""


_unsaved: dict[Path, dict[str, Any]] = {}
"""What could not be saved, by file, so that a kernel on a read-only disk still remembers."""


def state_folder() -> Path:
    """The folder that keeps a user's progress; it need not exist yet."""
    if "SORA_EDU_HOME" in os.environ:
        return Path(os.environ["SORA_EDU_HOME"]).expanduser()
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "sora_edu"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "sora_edu"
    return Path(os.environ.get("XDG_STATE_HOME", home / ".local" / "state")) / "sora_edu"


def recall(exercise_id: str) -> Record:
    """What is remembered of an exercise; an empty record if it is new."""
    return _record(_load().get(exercise_id))


def remember(exercise_id: str, **changes: Any) -> Record:
    """Changes fields of an exercise's record and saves it, if the disk allows.

    Args:
        exercise_id: the exercise.
        **changes: fields of `Record`.

    Returns:
        The new record.
    """
    entries = _load()
    record = replace(_record(entries.get(exercise_id)), at=time.time(), **changes)
    entries[exercise_id] = asdict(record)
    _save(entries)
    return record


def progress(*, reset: bool = False) -> "ProgressTable":
    """Shows how far the learner has come, and where to go on.

    Args:
        reset: start again from nothing. The old file is kept beside the new one.

    Returns:
        A table of all exercises, shown by a notebook as it is.
    """
    note = _reset() if reset else ""
    entries = _load()
    rows = tuple(
        (exercise.chapter, exercise.id, exercise.title, exercise.minutes, _record(entries.get(exercise.id)))
        for exercise in every()
    )
    return ProgressTable(rows, note)


@dataclass(frozen=True)
class ProgressTable:
    """The table that `progress` shows."""

    rows: tuple[tuple[str, str, str, int, Record], ...]
    """Chapter, id, title, minutes and record of each exercise."""
    note: str = ""
    """A line to go under the table."""

    @property
    def summary(self) -> str:
        """One line that counts what has passed."""
        passed = sum(record.passed for *_, record in self.rows)
        left = _minutes_left(self.rows)
        after = f"; the others take about {left} minutes." if left else "."
        return f"{passed} of {len(self.rows)} exercises passed{after}"

    @property
    def next(self) -> str:
        """Where to go on: "next: 07, exercise 3", with its title; empty when all have passed."""
        row = _next(self.rows)
        if row is None:
            return ""
        chapter, name, title, minutes, _ = row
        number = [other for at, other, *_ in self.rows if at == chapter].index(name) + 1
        return f"next: {chapter[:2]}, exercise {number}: {title} ({minutes} minutes)"

    def __repr__(self) -> str:
        lines, shown = [], None
        for chapter, name, title, minutes, record in self.rows:
            if chapter != shown:
                lines.append(chapter)
                shown = chapter
            lines.append(f"  {name:<32} {minutes:>3} min  {_state(record):<22} {title}".rstrip())
        return "\n".join([*lines, *self._foot])

    @property
    def _foot(self) -> list[str]:
        """The lines under the table."""
        return [line for line in (self.summary, self.next, self.note) if line]

    def _repr_html_(self) -> str:
        """One fold a chapter; those in which something has been tried are open."""
        chapters = groupby(self.rows, key=lambda row: row[0])
        folds = "".join(_fold(chapter, list(rows)) for chapter, rows in chapters)
        return f"{folds}<p>{'<br>'.join(map(html.escape, self._foot))}</p>"


_Row = tuple[str, str, str, int, Record]


def _fold(chapter: str, rows: list[_Row]) -> str:
    """A chapter's line and, folded away beneath it, its exercises."""

    def line(cells: tuple, tag: str) -> str:
        return "<tr>" + "".join(f'<{tag} style="text-align: left">{cell}</{tag}>' for cell in cells) + "</tr>"

    cells = [
        (f"<code>{html.escape(name)}</code>", html.escape(title), f"{minutes} min", _state(record))
        for _, name, title, minutes, record in rows
    ]
    body = "".join(line(row, "td") for row in cells)
    passed, left = sum(record.passed for *_, record in rows), _minutes_left(rows)
    number, _, name = chapter.partition("_")
    title = f"<b>{html.escape(number)}</b> {html.escape(name.replace('_', ' '))}"
    count = f"{passed} of {len(rows)} passed" + (f", about {left} minutes left" if left else "")
    tried = any(record != Record() for *_, record in rows)
    table = f"<table>{line(('exercise', 'title', 'time', 'state'), 'th')}{body}</table>"
    return f"<details{' open' if tried else ''}><summary>{title}: {count}</summary>{table}</details>"


def _next(rows: Sequence[_Row]) -> _Row | None:
    """The exercise to go on with: the last one touched, if it is open, or the first open one after it.

    Where none is open after it, the search begins again at the front.
    """
    latest = max(range(len(rows)), key=lambda place: rows[place][4].at, default=0)
    return next((row for row in (*rows[latest:], *rows[:latest]) if not row[4].passed), None)


def _minutes_left(rows: Sequence[_Row]) -> int:
    return sum(minutes for _, _, _, minutes, record in rows if not record.passed)


def _state(record: Record) -> str:
    if record.passed:
        return "passed, solution seen" if record.solution_seen else "passed"
    if record.attempts:
        return f"tried {record.attempts} time{'s' if record.attempts > 1 else ''}"
    return "solution seen" if record.solution_seen else "not attempted"


def _record(entry: dict[str, Any] | None) -> Record:
    """A record from what the file holds; fields that a later version wrote are passed over."""
    known = {f.name for f in fields(Record)}
    return Record(**{name: value for name, value in (entry or {}).items() if name in known})


def _file() -> Path:
    return state_folder() / "progress.json"


def _load() -> dict[str, Any]:
    path = _file()
    if path in _unsaved:
        return dict(_unsaved[path])
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        return _move_aside(path)
    except OSError:
        return dict(_unsaved.setdefault(path, {}))
    try:
        entries = json.loads(text)["exercises"]
        if not all(isinstance(entry, dict) for entry in entries.values()):
            raise ValueError("an entry is no object")
    except (ValueError, KeyError, TypeError, AttributeError):
        return _move_aside(path)
    return entries


def _save(entries: dict[str, Any]) -> None:
    path = _file()
    text = json.dumps({"version": 1, "exercises": entries}, indent=1, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError:
        _unsaved[path] = dict(entries)
    else:
        _unsaved.pop(path, None)


def _move_aside(path: Path) -> dict[str, Any]:
    """Puts a damaged file out of the way under a name of its own and starts with an empty one."""
    try:
        kept = _keep(path, "damaged")
    except OSError:
        _unsaved[path] = {}
        print(f"Your progress file {path} is damaged and cannot be moved; it is left alone.", file=sys.stderr)
    else:
        print(f"Your progress file was damaged; it is kept as {kept}, and a new one begins.", file=sys.stderr)
    return {}


def _reset() -> str:
    path = _file()
    _unsaved.pop(path, None)
    try:
        return f"Progress was reset; the old file is kept as {_keep(path, 'before-reset')}."
    except FileNotFoundError:
        return "Progress was reset; there was none."
    except OSError as error:
        _unsaved[path] = {}
        return f"Progress was reset for this session; the file could not be moved: {error.strerror}."


def _keep(path: Path, why: str) -> Path:
    """Renames a file to the first free numbered name, so that no kept copy replaces another."""
    number = 1
    while (kept := path.with_name(f"{path.stem}.{why}-{number}{path.suffix}")).exists():
        number += 1
    os.replace(path, kept)
    return kept
