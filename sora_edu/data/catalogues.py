"""The three tables that ship with the course: 45 video models, a timeline, and the ledger of claims.

The tables are in `data/*.csv`, so that a correction is a one-line change that anyone can review. Cells that
correct the printed table stand beside what was printed, never in its place.
"""

import csv
from dataclasses import dataclass

from sora_edu.assets import data_path

STATUSES = ("disclosed", "inferred", "unknown", "wrong")
"""What a claim about Sora can be: said by its makers, guessed by others, open, or contradicted."""


@dataclass(frozen=True)
class Entry:
    """What the table says about a video model."""

    name: str
    """Name of the model."""
    family: str
    """Generative family: Diffusion, Masked Vision Models or Auto-regressive; empty where none is given."""
    task: str
    """What the model does."""
    group: str
    """Who made it."""


@dataclass(frozen=True)
class VideoModel:
    """A row of the review's table of video models, as it was printed and as it should read."""

    year: int
    """Year of publication."""
    printed: Entry
    """The row as printed."""
    corrected: Entry
    """The row with its mistakes put right; the same as `printed` where none is known."""
    note: str
    """What is wrong or missing in the printed row; empty where nothing is."""
    basis: str
    """What the note rests on: "verified" in a source that was read, or "recalled" and not read again."""


@dataclass(frozen=True)
class Event:
    """One event in the history of video generation."""

    year: int
    """Year in which it became public."""
    month: int
    """Month, 1 to 12."""
    kind: str
    """"method" (an idea), "video" (a model that makes video) or "other"."""
    event: str
    """Its short name."""
    why: str
    """Why it is here, in one line."""
    citation: str
    """Where it can be read."""
    confidence: str
    """"high" for a paper with a public record, "medium" where only the press was read."""

    @property
    def when(self) -> float:
        """The date as a number of years, for drawing."""
        return self.year + (self.month - 0.5) / 12


@dataclass(frozen=True)
class Claim:
    """One sentence that people say about Sora, and what it rests on."""

    claim: str
    """The sentence."""
    said_by: str
    """Who says it; "nobody" for a question that nobody outside can answer."""
    status: str
    """One of `STATUSES`."""
    evidence: str
    """What the status rests on."""
    correction: str
    """What to say instead; empty unless the status is "wrong"."""


def load_video_models() -> tuple[VideoModel, ...]:
    """The 45 video models of the deck, in its order.

    Source: the table of the review of Sora (Liu et al. 2024, arXiv:2402.17177) as the deck prints it.
    """
    return tuple(_video_model(row) for row in _rows("video_models.csv"))


def load_timeline() -> tuple[Event, ...]:
    """Events from 2013 to 2025 in the order of time, each with its citation."""
    return tuple(sorted((_event(row) for row in _rows("timeline.csv")), key=lambda event: event.when))


def load_claims() -> tuple[Claim, ...]:
    """The ledger of claims about Sora, those that its makers disclosed first.

    Raises:
        ValueError: a row has a status that is not among `STATUSES`, or a correction where none belongs.
    """
    return tuple(_claim(row) for row in _rows("claims.csv"))


def _rows(name: str) -> list[dict[str, str]]:
    with data_path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def _video_model(row: dict[str, str]) -> VideoModel:
    columns = ("name", "family", "task", "group")
    printed = Entry(*(row[f"{column}_printed"] for column in columns))
    corrected = Entry(*(row[column] or row[f"{column}_printed"] for column in columns))
    return VideoModel(int(row["year"]), printed, corrected, row["note"], row["basis"])


def _event(row: dict[str, str]) -> Event:
    year, month = map(int, row["date"].split("-"))
    return Event(
        year, month, row["kind"], row["event"], row["why"], row["citation"], confidence=row["confidence"]
    )


def _claim(row: dict[str, str]) -> Claim:
    if row["status"] not in STATUSES:
        raise ValueError(f"status={row['status']!r} of {row['claim']!r}; use one of: {', '.join(STATUSES)}")
    if bool(row["correction"]) != (row["status"] == "wrong"):
        raise ValueError(
            f"{row['claim']!r} is {row['status']}; a correction belongs to wrong claims and only there"
        )
    return Claim(**row)
