"""Fixtures of the browser tests: a running browser, and a page that is watched."""

import subprocess
from collections.abc import Iterator

import pytest
from chrome import PATIENCE, Watch, first_line, launch


@pytest.fixture(scope="module")
def browser():
    """A running browser; closed after each file, for its event loop would be in the way of notebooks."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as engine:
        try:
            running = launch(engine)
        except (playwright.Error, subprocess.SubprocessError) as error:
            why = first_line(error)
            pytest.skip(f"there is no Chromium here, and playwright could not install one: {why}")
        yield running
        running.close()


@pytest.fixture
def watch() -> Watch:
    """Notes of what goes wrong."""
    return Watch()


@pytest.fixture
def page(browser, watch) -> Iterator:
    """A page of a laptop's size, watched."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    watch.follow(page)
    yield page
    context.close()
