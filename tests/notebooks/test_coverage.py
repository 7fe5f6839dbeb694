"""Every row of the deck, and every correction to it, is taught in the chapter where it belongs.

`coverage.csv` says where that is, for the chapters still to come as well. A cell says what it teaches in its
metadata: `sora_edu.covers`.
"""

import csv
from pathlib import Path

import pytest

from sora_edu.teach.anatomy import ours
from sora_edu.teach.notebooks import read

HERE = Path(__file__).parent
NOTEBOOKS = sorted((HERE.parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
CORRECTIONS = 26
LETTERS = {
    "0": "abc",
    "1": "ab",
    "2": "abcdefghij",
    "3": "abcdef",
    "4": "abcdefg",
    "5": "abcdefghij",
    "6": "",
}


def _table() -> list[dict[str, str]]:
    with (HERE / "coverage.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _covered(path: Path) -> set[str]:
    return {item for cell in read(path).cells for item in ours(cell).get("covers", [])}


def test_the_table_gives_every_row_and_correction_a_chapter():
    rows = {number + letter for number, letters in LETTERS.items() for letter in ("", *letters)}
    corrections = {f"c{number}" for number in range(1, CORRECTIONS + 1)}
    table = _table()
    assert {line["item"] for line in table} == rows | corrections
    assert len({(line["item"], line["chapter"]) for line in table}) == len(table)
    assert all(line["what"] and 0 <= int(line["chapter"]) <= 14 for line in table)
    assert {int(line["chapter"]) for line in table} == set(range(15)) - {13}  # 13 goes beyond the deck


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_chapter_covers_what_belongs_to_it(path: Path):
    covered, table = _covered(path), _table()
    unknown = covered - {line["item"] for line in table}
    assert not unknown, f"no such row or correction: {sorted(unknown)}"
    missing = {line["item"]: line["what"] for line in table if line["chapter"] == path.stem[:2]}
    missing = {item: what for item, what in missing.items() if item not in covered}
    assert not missing, f"no cell has these in its metadata sora_edu.covers: {missing}"
