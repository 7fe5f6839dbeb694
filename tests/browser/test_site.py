"""The site: every link leads somewhere, every page is light, offline and open to all, on a phone too."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup
from chrome import ROOT, build

sys.path.insert(0, str(ROOT / "tools"))
from web_assets import AXE, AssetError, fetch

SITE = ROOT / "_build" / "site"
MAX_BYTES = 3_000_000
SERIOUS = ("serious", "critical")

# Formulas have a hidden twin in MathML, which is read out, and the colours of code have a test of their own:
# both have thousands of parts. Without preloading, axe takes the styles that the page has.
AXE_RUN = """options => axe.run(
  { exclude: [".katex-html", ".highlight pre"] }, { preload: false, ...options }
).then(result => result.violations)"""


CHAPTER = "07_diffusion_transformer.html"

# The colours of all kinds of tokens on a page, each with the ground of its block of code.
TOKEN_COLOURS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number).slice(0, 3);
  const seen = {};
  for (const token of document.querySelectorAll(".highlight pre span[class]")) {
    let ground = token.closest("pre");
    const clear = () => getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)";
    while (clear()) ground = ground.parentElement;
    const pair = [rgb(getComputedStyle(token).color), rgb(getComputedStyle(ground).backgroundColor)];
    seen[JSON.stringify(pair)] = pair;
  }
  return Object.values(seen);
}"""


@pytest.fixture(scope="module", autouse=True)
def site() -> dict[Path, BeautifulSoup]:
    """All pages, built once and read once."""
    build("build_site")
    paths = sorted(SITE.rglob("*.html"))
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in paths}


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core."""
    try:
        return (fetch(AXE) / "axe.min.js").read_text(encoding="utf-8")
    except AssetError as error:
        pytest.skip(str(error))


def target(page: Path, address: str) -> tuple[Path, str]:
    """The file and the anchor that a link on a page leads to."""
    parts = urlsplit(address)
    return ((page.parent / unquote(parts.path)).resolve() if parts.path else page), unquote(parts.fragment)


def test_every_chapter_and_page_is_there_and_can_be_reached(site):
    front = SITE / "index.html"
    menu = {target(front, link["href"])[0] for link in site[front].select(".sidebar-tree a")}
    sources = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "docs").glob("*.md")]
    pages = {SITE / path.relative_to(ROOT).with_suffix(".html") for path in sources}
    pages |= {SITE / name for name in ("gallery.html", "claims.html", "api/index.html")}
    assert pages - menu == set()


def test_no_markdown_is_left_in_what_is_read(site):
    """Links and bold print that were not understood; code may hold the like."""
    left = []
    for path, soup in site.items():
        for text in soup.find_all(string=re.compile(r"\]\(|\*\*\w[^*]*\*\*")):
            inside = {tag.name for tag in text.parents}
            code = "sig" in " ".join(" ".join(tag.get("class", [])) for tag in text.parents)
            if not inside & {"script", "style", "pre", "code", "head"} and not code:
                left.append(f"{path.relative_to(SITE)}: {text.strip()[:80]}")
    assert left == []


def test_every_link_inside_the_site_leads_somewhere(site):
    anchors = {path: {tag["id"] for tag in soup.select("[id]")} for path, soup in site.items()}
    broken = []
    for path, soup in site.items():
        for tag in soup.select("a[href], img[src], script[src], link[href]"):
            address = tag.get("href") or tag["src"]
            if urlsplit(address).scheme:
                continue
            file, anchor = target(path, address)
            known = file.is_file() and (not anchor or file not in anchors or anchor in anchors[file])
            if not known:
                broken.append(f"{path.relative_to(SITE)}: {address}")
    assert broken == []


def test_no_page_asks_another_machine_for_anything(site):
    asked = [
        f"{path.relative_to(SITE)}: {tag}"
        for path, soup in site.items()
        for tag in soup.select("img[src], script[src], link[rel=stylesheet], iframe, video, source")
        if urlsplit(tag.get("src") or tag.get("href") or "").scheme in ("http", "https")
    ]
    sheets = [
        f"{path.relative_to(SITE)}"
        for path in SITE.rglob("*.css")
        if re.search(r"url\(\s*['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8"))
    ]
    assert asked == sheets == []


def test_every_picture_says_what_it_shows(site):
    silent = [
        f"{path.relative_to(SITE)}: {image.get('src')}"
        for path, soup in site.items()
        for image in soup.select("article img")
        if not image.get("alt", "").strip() or image["alt"].startswith(("_images", "../_images"))
    ]
    assert silent == []


def test_headings_come_in_order(site):
    wrong = []
    for path, soup in site.items():
        levels = [int(tag.name[1]) for tag in soup.select("article :is(h1, h2, h3, h4, h5, h6)")]
        steps = zip([0, *levels], levels, strict=False)
        if levels.count(1) != 1 or any(after > before + 1 for before, after in steps):
            wrong.append(f"{path.relative_to(SITE)}: {levels}")
    assert wrong == []


def test_pages_are_light(site):
    """A page with all that it loads at once: pictures, styles, scripts and the fonts of formulas."""
    fonts = sum(path.stat().st_size for path in SITE.glob("_static/katex/fonts/KaTeX_[MS]*-*.woff2"))
    heavy = {}
    for path, soup in site.items():
        own = soup.select("img[src], script[src], link[rel=stylesheet]")
        parts = {target(path, tag.get("src") or tag["href"])[0] for tag in own}
        size = sum(part.stat().st_size for part in {path, *parts}) + fonts * bool(soup.select(".formula"))
        if size >= MAX_BYTES:
            heavy[str(path.relative_to(SITE))] = size
    assert heavy == {}


LIGHT_PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"}
DARK_LAPTOP = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"}
# One page of each kind; SORA_EDU_AXE=1 has axe read all of them, which takes minutes.
READ_BY_AXE = ("index.html", f"notebooks/{CHAPTER}", "docs/glossary.html", "gallery.html", "api/index.html")


def visit(browser, watch, pages, **look):
    """Opens one page after the other, with this look of the browser; gives each and its name."""
    context = browser.new_context(bypass_csp=True, **look)
    context.set_default_timeout(120_000)
    page = context.new_page()
    watch.follow(page)
    for path in pages:
        page.goto(path.as_uri())
        yield page, f"{path.relative_to(SITE)}, {look['color_scheme']}"
    context.close()


@pytest.mark.parametrize("look", [LIGHT_PHONE, DARK_LAPTOP], ids=["phone", "dark"])
def test_pages_fit_their_window_and_load_without_errors(site, browser, watch, look):
    """No page is wider than its window, no formula fails, nothing is asked of another machine."""
    found = []
    for page, name in visit(browser, watch, site, **look):
        if page.evaluate("document.documentElement.scrollWidth") > look["viewport"]["width"]:
            found.append(f"{name}: wider than its window")
        if page.locator(".katex-error").count():
            found.append(f"{name}: a formula that KaTeX cannot read")
    assert found == []
    assert watch.console == watch.outside == []


def test_no_window_is_too_narrow_for_a_chapter(site, browser, watch):
    """The theme has columns that come and go with the width, and ours is wider where there is room for it."""
    too_wide = []
    for page, _ in visit(browser, watch, [SITE / "notebooks" / CHAPTER], **LIGHT_PHONE):
        for width in range(320, 2000, 15):
            page.set_viewport_size({"width": width, "height": 800})
            if page.evaluate("document.documentElement.scrollWidth") > width:
                too_wide.append(width)
    assert too_wide == []


@pytest.mark.parametrize(("look", "rules"), [(LIGHT_PHONE, None), (DARK_LAPTOP, ["color-contrast"])])
def test_axe_finds_nothing_serious(site, browser, watch, axe, look, rules):
    """On a phone all of its rules; in the dark, where only colours are others, those of contrast."""
    pages = [SITE / name for name in READ_BY_AXE]
    assert set(pages) <= set(site)
    found = []
    for page, name in visit(browser, watch, site if os.environ.get("SORA_EDU_AXE") else pages, **look):
        page.evaluate(axe)
        result = page.evaluate(AXE_RUN, {"runOnly": rules} if rules else {})
        found += [
            f"{name}: {v['id']} ({v['impact']}): {len(v['nodes'])}x {v['nodes'][0]['html'][:120]}"
            for v in result
            if v["impact"] in SERIOUS
        ]
    assert found == []
    assert watch.console == watch.outside == []


def test_colours_of_code_can_be_told_from_their_ground(page):
    """Every colour that a token of code may have, on its ground: at least 4.5 to 1, as WCAG's AA asks."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto((SITE / "notebooks" / CHAPTER).as_uri())
        pairs = page.evaluate(TOKEN_COLOURS)
        assert len(pairs) > 3
        for colour, ground in pairs:
            assert contrast(colour, ground) >= 4.5, (scheme, colour, ground)


def contrast(*colours: list[float]) -> float:
    """WCAG 2.2's contrast ratio of two colours, red, green and blue from 0 to 255."""
    lights = []
    for colour in colours:
        linear = [
            c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour
        ]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_contrast_of_known_pairs():
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([118, 118, 118], [255, 255, 255]) == pytest.approx(
        4.54, abs=0.01
    )  # the lightest grey for AA


def test_search_finds_the_chapter(page, watch):
    page.goto((SITE / "search.html").as_uri() + "?q=sinusoidal")
    # Results come in one after the other.
    page.locator("#search-results li a[href*='02_positional_encoding']").first.wait_for()
    assert watch.console == watch.outside == []


def test_light_can_be_switched(page):
    page.goto((SITE / "index.html").as_uri())
    colours = set()
    for _ in range(3):
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.locator("button.theme-toggle:visible").first.click()
    assert len(colours) == 2


def test_clips_can_be_stopped(page):
    page.goto((SITE / "gallery.html").as_uri())
    frame = page.locator(".clip-frame").first
    frame.locator("button").click()
    assert frame.locator("canvas").is_visible()
    assert not frame.locator("img").is_visible()
    before = frame.locator("canvas").screenshot()
    page.wait_for_timeout(500)
    assert frame.locator("canvas").screenshot() == before
    frame.locator("button").click()
    assert frame.locator("img").is_visible()
