"""The decks, in a browser: whole, offline, legible, and nothing outside of its slide."""

import re
from pathlib import Path

import nbformat
import pytest
from chrome import ROOT, build

SLIDES = ROOT / "_build" / "slides"
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
SMALLEST_CODE = 22  # pixels on a slide of 720

# Goes through every slide with all its steps shown. Formulas bring drawings that their own box cuts off.
OUT_OF_BOUNDS = """() => {
  const found = [];
  for (const slide of Reveal.getSlides()) {
    const place = Reveal.getIndices(slide);
    Reveal.slide(place.h, place.v, 99);
    for (const part of slide.querySelectorAll("*")) {
      if (part.closest("aside, .katex-mathml, svg, details:not([open]) > :not(summary)")) continue;
      const box = part.getBoundingClientRect();
      const outside = box.bottom > 720.5 || box.right > 1280.5 || box.left < -0.5 || box.top < -0.5;
      const scrolls = part.matches("pre, table") && part.scrollWidth > part.clientWidth + 1;
      if (box.width && box.height && (outside || scrolls))
        found.push(`slide ${Reveal.getSlidePastCount() + 1}: ${part.tagName}.${part.className}`);
    }
    if (!slide.innerText.trim() && !slide.querySelector("img")) found.push("an empty slide");
  }
  return found;
}"""


BROKEN_IMAGES = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)"

GO_TO = """(what) => {
  const place = Reveal.getIndices(document.querySelector(what).closest(".leaf"));
  Reveal.slide(place.h, place.v, 99);
}"""


@pytest.fixture(scope="module", autouse=True)
def decks() -> Path:
    """All decks, built once."""
    build("build_slides")
    return SLIDES


def open_deck(page, chapter: str) -> None:
    page.goto((SLIDES / f"{chapter}.html").as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady()")


def test_index_lists_every_chapter(page, watch):
    page.goto((SLIDES / "index.html").as_uri())
    links = [link.get_attribute("href") for link in page.locator("ol a").all()]
    assert links == [f"{chapter}.html" for chapter in CHAPTERS]
    assert watch.console == watch.outside == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_deck(page, watch, chapter):
    open_deck(page, chapter)
    assert page.evaluate(OUT_OF_BOUNDS) == []
    assert page.evaluate("[...document.images].filter(i => !i.alt.trim()).length") == 0
    assert page.evaluate(BROKEN_IMAGES) == []
    assert page.locator(".katex-error").count() == 0
    sizes = page.evaluate(
        "[...document.querySelectorAll('.code pre')].map(p => parseFloat(getComputedStyle(p).fontSize))"
    )
    assert min(sizes) >= SMALLEST_CODE
    assert watch.console == watch.outside == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_deck_holds_what_the_notebook_shows(page, chapter):
    """Every word of prose, code and notes that is not skipped is in the deck."""
    open_deck(page, chapter)
    slides = page.evaluate("document.querySelector('.slides').textContent")
    words = re.sub(r"\W+", "", slides)
    for cell in nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4).cells:
        if cell.metadata["slideshow"]["slide_type"] == "skip":
            continue
        if cell.cell_type == "code":
            code = re.sub(r"  # (?:noqa|fmt: skip)\b.*", "", cell.source)  # notes to tools
            assert re.sub(r"\W+", "", code) in words
        else:  # prose between formulas, links and tags
            # The title of the speaker's fold and the numbers of a list are not words of a slide.
            unsaid = r"<summary>For the speaker</summary>|^\s*\d+\. "
            told = re.sub(unsaid, "", cell.source, flags=re.MULTILINE)
            links = r"<!-- help -->.*?<!-- /help -->"  # to pages that a deck does not bring
            text = re.sub(rf"{links}|<!--.*?-->|<[^>]+>", "", told, flags=re.DOTALL)
            for line in re.split(r"\n|\$+[^$]*\$+|\]\([^)]*\)|\[|`[^`]*`", text):
                assert re.sub(r"\W+|_", "", line) in words.replace("_", "")


def test_clips_play_and_stop(page):
    open_deck(page, CHAPTERS[0])
    page.evaluate(GO_TO, ".slides img")
    picture = page.locator(".present img").first
    seen = set()
    for _ in range(40):
        seen.add(picture.screenshot())
        if len(seen) > 1:
            break
        page.wait_for_timeout(100)
    assert len(seen) > 1
    page.keyboard.press("p")
    still = page.locator(".present canvas").first
    before = still.screenshot()
    page.wait_for_timeout(500)
    assert still.screenshot() == before
    page.keyboard.press("p")
    assert page.locator(".present canvas").count() == 0


def test_speaker_sees_the_notes(page):
    open_deck(page, CHAPTERS[0])
    page.evaluate(GO_TO, "aside.notes")
    note = page.evaluate("Reveal.getCurrentSlide().querySelector('aside.notes').textContent")
    with page.expect_popup() as opened:
        page.keyboard.press("s")
    shown = opened.value.locator(".speaker-controls-notes .value")
    shown.filter(has_text=note.strip()[:40]).wait_for()
