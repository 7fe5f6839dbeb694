"""A Chromium for the tests: the system's, or the one that playwright installs, or none and a clear word."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
INSTALL_SECONDS = 300
PATIENCE = 120_000  # milliseconds that a page may take on a busy machine


def system_browser() -> str | None:
    """A Chromium, Chrome or Edge of this machine; the environment variable CHROMIUM names another."""
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES), *PLACES]
    return next((path for path in found if path and Path(path).is_file()), None)


def launch(engine):
    """Start the system's browser, or the one that playwright brings, fetched if need be."""
    options = {"args": ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []}
    if path := system_browser():
        return engine.chromium.launch(executable_path=path, **options)
    if not Path(engine.chromium.executable_path).exists():
        command = [sys.executable, "-m", "playwright", "install", "chromium"]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    return engine.chromium.launch(**options)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    said = getattr(error, "stderr", None) or str(error)
    return (said.decode(errors="replace") if isinstance(said, bytes) else said).strip().partition("\n")[0]


@dataclass
class Watch:
    """What went wrong on a page, and what it asked of the network."""

    console: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def follow(self, page) -> None:
        """Listen to a page from now on."""
        page.on("console", lambda m: self.console.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.outside.append(request.url)


def build(tool: str) -> None:
    """Run one of the builders in `tools/`; skip where the browser libraries cannot be fetched."""
    done = subprocess.run([sys.executable, f"tools/{tool}.py"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 2 and "could not be fetched" in done.stderr:
        pytest.skip(f"no network and no copy of the browser libraries: {done.stderr.strip().splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
