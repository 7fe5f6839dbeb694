"""JupyterLab as a learner has it: chapter 00 from end to end, and all that can be moved in every chapter."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from chrome import ROOT
from live_cells import needed, widget_cells

CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 300  # that one chapter's cells may take on a busy machine

PANEL = "jupyterapp.shell.currentWidget"
READY = f"window.jupyterapp && {PANEL}?.sessionContext?.isReady && {PANEL}.content?.widgets?.length > 0"

RUN_CELL = f"""async (place) => {{
  const notebook = {PANEL}.content;
  notebook.deselectAll();
  notebook.activeCellIndex = place;
  await jupyterapp.commands.execute("notebook:run-cell");
  const failed = notebook.widgets[place].model.outputs.toJSON().find((o) => o.output_type === "error");
  return failed ? `${{failed.ename}}: ${{failed.evalue}}` : "";
}}"""

RUN_ALL = f"""async () => {{
  const notebook = {PANEL}.content;
  await jupyterapp.commands.execute("notebook:run-all-cells");
  return notebook.widgets.filter((c) => c.model.type === "code").flatMap((cell) => {{
    const failed = cell.model.outputs.toJSON().find((o) => o.output_type === "error");
    const expected = (cell.model.getMetadata("tags") ?? []).includes("raises-exception");
    return failed && !expected ? [`${{failed.ename}}: ${{failed.evalue}}`] : [];
  }});
}}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab over a copy of the notebooks, with no memory of earlier visits."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        (folder / "notebooks" / path.name).write_bytes(path.read_bytes())
    settings = folder / "settings" / "@jupyterlab"
    wanted = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page, seen or not
    }
    for name, values in wanted.items():
        (settings / name).parent.mkdir(parents=True, exist_ok=True)
        (settings / f"{name}.jupyterlab-settings").write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    variables = {f"JUPYTER_{name}": str(folder / name.lower()) for name in places}
    variables |= {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "SORA_EDU_STATIC": "0",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--ServerApp.port_retries=0"]
    command += ["--LabApp.expose_app_in_browser=True"]
    log = (folder / "log.txt").open("w")
    server = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server, folder / "log.txt")
        yield address
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Until the server answers."""
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"JupyterLab does not answer: {log.read_text()}")


@pytest.fixture
def notebook(lab, page) -> Iterator:
    """Opens a chapter by its name, and shuts its kernel down in the end."""

    def open_chapter(chapter: str):
        page.set_viewport_size({"width": 1440, "height": 1000})
        page.set_default_timeout(1000 * SECONDS)
        page.goto(f"{lab}/lab/tree/notebooks/{chapter}.ipynb?reset")
        page.wait_for_function(READY)
        return page

    yield open_chapter
    page.evaluate(f"async () => {{ await {PANEL}?.sessionContext?.shutdown(); }}")


def cell(page, place: int):
    """The element of a cell."""
    return page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell").nth(place)


def looks(output) -> str:
    """What an output shows, but for the controls themselves."""
    return output.evaluate(
        """o => [...o.querySelectorAll("img")].map(i => i.src).join() + [...o.querySelectorAll(
           ".jp-OutputArea-output, .widget-html-content, .widget-label")].map(e => e.innerText).join()"""
    )


def expect_change(page, output, before: str, what: str) -> None:
    """Until the output shows something else."""
    for _ in range(10 * SECONDS):
        if looks(output) != before:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{what} was moved and nothing changed")


def move_sliders(page, output) -> int:
    """Move each slider by a step with the keyboard, and see the output change."""
    handles = output.locator(".noUi-handle")
    for number in range(handles.count()):
        handle = handles.nth(number)
        before, value = looks(output), handle.get_attribute("aria-valuenow")
        handle.focus()
        page.keyboard.press("ArrowRight")
        if handle.get_attribute("aria-valuenow") == value:  # it stood at its end
            page.keyboard.press("ArrowLeft")
        settle(page)
        if output.locator("button:has-text('Make the clip')").count():
            output.locator("button:has-text('Make the clip')").click()
        expect_change(page, output, before, f"slider {number + 1}")
        settle(page)
    return handles.count()


def settle(page) -> None:
    """Until the kernel has nothing to do."""
    page.wait_for_function(f"{PANEL}.sessionContext.session.kernel.status === 'idle'")
    page.wait_for_timeout(200)


def answer_quiz(page, output) -> int:
    """Choose an answer to each question with the keyboard, and read a reply to each."""
    questions = output.locator(".sora-quiz fieldset")
    for number in range(questions.count()):
        question = questions.nth(number)
        question.locator("input[type=radio]").first.focus()
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        question.locator(".reply.right, .reply.wrong").wait_for()
    return questions.count()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_everything_that_moves(notebook, chapter):
    source = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    live = widget_cells(source)
    page = notebook(chapter)
    moved = 0
    for place in sorted({*needed(source, live), *live}):
        assert page.evaluate(RUN_CELL, place) == "", source.cells[place].source
        if place not in live:
            continue
        output = cell(page, place).locator(".jp-OutputArea").first
        output.locator(".jupyter-widgets, .sora-quiz").first.wait_for()
        settle(page)
        controls = move_sliders(page, output) + answer_quiz(page, output)
        assert controls > 0, source.cells[place].source
        assert output.locator(".jp-RenderedText[data-mime-type*=stderr]").count() == 0
        moved += controls
    assert moved > 0


def test_chapter_00_runs_and_its_app_answers(notebook):
    page = notebook("00_from_prompt_to_video")
    assert page.evaluate(RUN_ALL) == []
    source = nbformat.read(ROOT / "notebooks" / "00_from_prompt_to_video.ipynb", as_version=4)
    app = next(place for place in widget_cells(source) if "clip_maker" in source.cells[place].source)
    output = cell(page, app).locator(".jp-OutputArea").first
    prompt = output.locator("input[type=text]").first
    before = looks(output)
    prompt.fill("a purpel cross falls")
    prompt.press("Enter")
    expect_change(page, output, before, "the prompt")
    settle(page)
    before = looks(output)
    output.locator("button:has-text('purple cross')").click()
    expect_change(page, output, before, "the suggestion")
    settle(page)
    assert output.locator("img[alt*='purple cross']").count() == 1
