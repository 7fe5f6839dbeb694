"""The page of errors quotes what is really printed, and nothing that is printed is left without its entry."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
QUOTED = dict(re.findall(r"<!-- shown by: (\w+) -->\n```text\n(.*?)\n```", PAGE, re.DOTALL))
"""By the name of what shows it: a message of the page."""


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """What the package prints, in a process without the type checks of the tests."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "shown_errors.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("name", QUOTED)
def test_the_page_quotes_what_is_printed(name, printed):
    if name == "no_python" and shutil.which("make") is None:
        pytest.skip("there is no make here")
    pattern = re.escape(spaced(QUOTED[name])).replace("…", ".*?")
    assert re.search(pattern, spaced(printed[name])), f"{name} prints: {printed[name]}"


def test_every_message_has_an_entry(printed):
    assert set(printed) == set(QUOTED) and len(QUOTED) == PAGE.count("```text")


def test_a_quote_is_more_than_dots():
    assert all(len(re.sub(r"[\s….:,;']", "", text)) > 20 for text in QUOTED.values())
