"""The book: figures from results files, a strict build without network, and every page in a real browser.

The browser tests need Chromium, chromedriver and axe-core (`npm install`); `CI=1` turns their absence from a skip into
a failure. Screenshots of every page (light, dark, phone) go to `_build/screenshots`.
"""

from __future__ import annotations

import base64
import html.parser
import importlib.util
import json
import os
import re
import time
import urllib.parse
from pathlib import Path

import pytest
import yaml
from book_site import ROOT, requested, show
from browser import require

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
SCREENSHOTS = ROOT / "_build" / "screenshots"
PROSE = sorted([ROOT / "index.md", *(ROOT / "book").glob("*.md")])


def extension():
    """The book's own Sphinx extension."""
    spec = importlib.util.spec_from_file_location("tinyvla_book", ROOT / "book" / "_ext" / "tinyvla_book.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_in_toc() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


# --- figures ---


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("presets/presets/minimal/total:.2fM", "13.15 million"),
        ("presets/presets/minimal/total:,", "13,152,770"),
        ("fusion/kinds/cross-attention/direction_accuracy/min:.0%", "100 %"),
        ("learning/reach/nano 0.0003/runs", "5"),
        ("scaling_runs/summary/preset=smolvla_like,learning_rate=0.0003/test/direction_accuracy/min:.0%", "100 %"),
    ],
)
def test_a_figure_is_taken_from_its_file(text, printed):
    assert extension().figure(text) == printed


@pytest.mark.parametrize(
    "text",
    [
        "nothing/here",
        "presets/presets/huge",
        "presets/presets",
        "presets/presets/minimal/total:q",
        "scaling_runs/summary/preset=huge/seeds",
        "scaling_runs/summary/size=large/seeds",
    ],
)
def test_a_figure_that_is_in_no_file_is_refused(text):
    with pytest.raises((KeyError, ValueError)):
        extension().figure(text)


def test_rows_are_found_by_what_they_hold_and_not_by_their_place():
    rows = [{"preset": "nano", "rate": 0.001, "error": 1}, {"preset": "nano", "rate": 0.01, "error": 2}]
    row_of = extension().row_of
    assert row_of(rows, "rate=0.01") == row_of(rows[::-1], "rate=0.01,preset=nano") == rows[1]
    with pytest.raises(KeyError, match="2 rows"):
        row_of(rows, "preset=nano")
    with pytest.raises(KeyError, match="by its place"):
        row_of(rows, "1")
    assert row_of([5, 7], "1") == 7


def test_every_results_file_is_on_the_results_page():
    page = (ROOT / "book" / "results.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "results").glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        parts = [results] if "command" in results else results["presets"].values()
        for command in (command for part in parts for command in part["command"].split(" && ")):
            assert f"`{command}`" in page, f"tools/write_results.py does not show {path.name}"


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_prose_states_no_measured_figure_by_hand(path):
    """Seconds, shares, megabytes and millions about this project stand in a role; others' carry a citation."""
    if "written by tools/write_results.py" in path.read_text(encoding="utf-8"):
        return  # test_readme.py compares it with the files
    text = re.sub(
        r"(?ms)^(```+|:::+)(?!\{(note|tip|warning|admonition|important)).*?^\1\s*$",
        "",
        path.read_text(encoding="utf-8"),
    )
    text = re.sub(r"`[^`]*`", "`…`", text)  # roles and code
    unit = r"(?:seconds?|s|ms|milliseconds?|GB|GiB|MB|million|billion)"
    figure = rf"\b\d+(?:[.,]\d+)*\s{unit}\b|\b(?!95\b)\d+(?:[.,]\d+)*\s?%"  # 95 % is the course's target
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        for row in paragraph.splitlines() if paragraph.lstrip().startswith("|") else [paragraph]:
            if "{cite" not in row:
                found += re.findall(figure, row)
    assert not found, f"write these with the result role, or cite their source: {found}"


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_no_line_of_prose_is_a_comment_by_mistake(path):
    """MyST drops a line that begins with a per cent sign, which a broken "90 %" leaves behind."""
    assert not re.findall(r"(?m)^%.*", path.read_text(encoding="utf-8"))


# --- the built pages ---


class Page(html.parser.HTMLParser):
    """What a page links to, loads and is called."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.loads, self.ids, self.without_alt = [], [], set(), []
        self.meta: dict[str, str] = {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.add(attrs["id"])
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag in ("img", "script", "iframe", "source") and attrs.get("src"):
            self.loads.append(attrs["src"])
        if tag == "link" and attrs.get("rel") in ("stylesheet", "icon", "preload", "shortcut icon"):
            self.loads.append(attrs["href"])
        if tag == "img" and not (attrs.get("alt") or "").strip():
            self.without_alt.append(attrs.get("src", "")[:60])
        if tag == "meta" and (name := attrs.get("property") or attrs.get("name")):
            self.meta[name] = attrs.get("content", "")


@pytest.fixture(scope="session")
def pages(book) -> dict[str, Page]:
    return {name: Page(book / f"{name}.html") for name in (*pages_in_toc(), "genindex", "search")}


def test_first_page_exists(book):
    assert "playground" in (book / "index.html").read_text(encoding="utf-8")


def test_internal_links_and_anchors_lead_somewhere(book, pages):
    broken = []
    cache = dict(pages)
    for name, page in pages.items():
        for link in {*page.links, *page.loads}:
            address = urllib.parse.urlsplit(link)
            if address.scheme or link.startswith("//") or link == "#":
                continue
            target = (
                (book / name).parent / urllib.parse.unquote(address.path) if address.path else book / f"{name}.html"
            )
            if target.is_dir():
                target = target / "index.html"
            if not target.exists():
                broken.append(f"{name}: {link}")
            elif address.fragment and target.suffix == ".html":
                key = target.resolve().relative_to(book.resolve()).with_suffix("").as_posix()
                if key not in cache:
                    cache[key] = Page(target)
                if urllib.parse.unquote(address.fragment) not in cache[key].ids:
                    broken.append(f"{name}: {link} (no such anchor)")
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_outside(pages):
    outside = [f"{name}: {src}" for name, page in pages.items() for src in page.loads if re.match(r"(https?:)?//", src)]
    assert not outside, "\n".join(outside)


def test_every_picture_has_an_alt_text(pages):
    missing = [f"{name}: {src}" for name, page in pages.items() for src in page.without_alt]
    assert not missing, "\n".join(missing)


def test_notebook_pages_can_be_opened_in_colab_and_lab(pages):
    for name in pages_in_toc():
        if not name.startswith("notebooks/"):
            continue
        colab = [link for link in pages[name].links if "colab.research.google.com" in link]
        lab = [link for link in pages[name].links if "mybinder.org" in link]
        assert len(colab) >= 2, f"{name}: badge and launch button"
        assert lab, f"{name}: no button for JupyterLab"
        for link in colab:
            assert re.search(r"/blob/main/(.*)$", link)[1] == f"{name}.ipynb"
        for link in lab:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)
            assert query["urlpath"] == [f"lab/tree/{name}.ipynb"]
        assert (ROOT / f"{name}.ipynb").exists()


def test_pages_have_a_title_and_a_description_for_sharing(pages):
    for name in pages_in_toc():
        meta = pages[name].meta
        assert meta.get("og:title"), name
        assert len(meta.get("og:description", "")) > 40, f"{name}: {meta.get('og:description')!r}"
        assert meta.get("og:image", "").endswith(".png"), name


def test_measured_minutes_stand_on_notebook_pages(book):
    for name in pages_in_toc():
        if name.startswith("notebooks/"):
            badges = re.findall(r'class="time-badge">([^<]*)<', (book / f"{name}.html").read_text(encoding="utf-8"))
            assert any("min to read" in badge for badge in badges), name
            assert any("two CPU cores" in badge for badge in badges), name


# --- in a browser ---


def screenshot(driver, name: str) -> None:
    """The whole page, as far as a picture may be long."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    height = driver.execute_script("scrollTo(0, 0); return document.documentElement.scrollHeight")
    width = driver.execute_script("return document.documentElement.clientWidth")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, 12_000), "scale": 1}
    picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    (SCREENSHOTS / f"{name.replace('/', '_')}.png").write_bytes(base64.b64decode(picture["data"]))


# axe takes the square of a page's length: code, which is coloured alike everywhere, is checked on the pages of the book
# and in the first chapter, and of the API's many alike entries some.
FEWER = "[...document.querySelectorAll('dl.py.class, dl.py.function')].slice(20).forEach(entry => entry.remove())"
AXE_RUN = """
    const [rules, code, done] = arguments;
    // A colour on its way to another has no contrast; an animation without an end cannot be finished.
    document.getAnimations().forEach(animation => { try { animation.finish(); } catch {} });
    const options = {resultTypes: ['violations'], ...(rules && {runOnly: {type: 'rule', values: rules}})};
    axe.run(code ? document : {exclude: [['.highlight pre']]}, options).then(result => done(result.violations
      .filter(v => ['serious', 'critical'].includes(v.impact))
      .map(v => `${v.id}: ${v.nodes.slice(0, 4).map(n => n.target + ' ' + n.html.slice(0, 160)).join(' || ')}`)));
"""
SETTLED = """
    const math = [...document.querySelectorAll('.math.notranslate, span.math, div.math')];
    return document.readyState === 'complete' && math.every(m => m.querySelector('mjx-container'));
"""


@pytest.mark.parametrize("name", pages_in_toc())
def test_page_in_a_browser(name, site, chromium):
    require(AXE.exists(), "axe-core: npm install")
    driver = chromium
    requested(driver), driver.get_log("browser")
    driver.get(f"{site}/{name}.html")
    end = time.monotonic() + 60
    while not driver.execute_script(SETTLED):
        assert time.monotonic() < end, "the mathematics is not typeset"
        time.sleep(0.1)
    folds = driver.execute_script("return document.querySelectorAll('.bd-article details').length")
    if name.startswith("notebooks/"):
        assert folds >= 3, "a chapter has folded hints, solutions and answers"
    opened = driver.execute_script("""
        return [...document.querySelectorAll('.bd-article details')].filter(fold => {
            const body = [...fold.children].find(child => child.tagName !== 'SUMMARY');
            const hidden = body && !body.checkVisibility();
            fold.querySelector('summary').click();
            return hidden && fold.open && body.checkVisibility();
        }).length""")
    assert opened == folds, "a fold does not open, or is empty"

    broken = driver.execute_script("""
        document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; });
        return Promise.all([...document.images].map(image => image.decode().then(() => null, () => image.src)))
            .then(all => all.filter(Boolean))""")
    assert not broken, f"pictures that do not load: {broken}"

    with_code = not name.startswith("notebooks/") or name.startswith("notebooks/00")
    driver.execute_script(AXE.read_text(encoding="utf-8") + FEWER)
    violations = {}
    phone_rules = ["scrollable-region-focusable", "target-size", "meta-viewport", "button-name", "link-name"]
    for theme, width, rules in (("light", 1300, None), ("dark", 1300, ["color-contrast"]), ("light", 375, phone_rules)):
        show(driver, theme, width)
        if width < 500:
            driver.refresh()  # laid out as on a phone from the start
            driver.execute_script(AXE.read_text(encoding="utf-8") + FEWER)
        label = "phone" if width < 500 else theme
        if not os.environ.get("CI"):  # nobody looks at them there, and they take seconds
            screenshot(driver, f"{name}-{label}")
        violations[label] = driver.execute_async_script(AXE_RUN, rules, with_code)
        overflow = driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0, f"the page is {overflow} px wider than its window of {width} px"
    show(driver, "light", 1300)
    assert not any(violations.values()), json.dumps(violations, indent=1)

    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors, errors
    outside = {url for url in requested(driver) if not url.startswith((site, "data:", "blob:", "chrome:", "about:"))}
    assert not outside, f"requests that leave the machine: {outside}"
