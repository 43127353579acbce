"""The built site in a browser without a network: every page, wide and narrow, light and dark."""

import re
import tomllib
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.browser
driving = pytest.importorskip("driving", reason="NO BROWSER TEST RAN: there is no Playwright")
driving.skip_unless_ready()

PAGES = driving.pages()
CHAPTERS = [name for name in PAGES if re.match(r"book/\d\d-", name)]
AXE = (driving.ROOT / "tests/browser/vendor/axe-core/axe.min.js").read_text("utf8")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
AUDIT = "options => axe.run(document, {...options, resultTypes: ['violations']})"
FULL = {"runOnly": WCAG}
COLOURS = ("color-contrast", "link-in-text-block")
BUT_COLOURS = FULL | {"rules": {rule: {"enabled": False} for rule in COLOURS}}
UNREACHED = """
[...document.querySelectorAll("mjx-container[display=true], pre, .pst-scrollable-table-container")]
  .filter((box) => box.clientWidth && box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0)
  .map((box) => box.textContent.slice(0, 60))
"""
NUMBERS = """
[...document.querySelectorAll(".equation .eqno")].map((e) => e.getBoundingClientRect().right)
"""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_quiet_accessible_and_never_wider_than_its_window(window, address, name):
    """Colours, the slowest rules, are a matter of the theme and are audited in wide windows; what
    only narrow ones have is the same on every page, and audited whole in the next test."""
    page, complaints = window.new_page(), []
    page.on("console", lambda m: m.type == "error" and complaints.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"not served: {request.url}"))
    page.on("response", lambda r: r.status >= 400 and complaints.append(f"{r.status}: {r.url}"))
    driving.visit(page, f"{address}/{name}")
    page.evaluate(AXE)
    wide = page.viewport_size["width"] == driving.SIZES["wide"][0]
    found = page.evaluate(AUDIT, FULL if wide else BUT_COLOURS)["violations"]
    complaints += [
        f"axe {v['id']}: {n['target']} {n['html'][:120]}" for v in found for n in v["nodes"]
    ]
    widest = page.evaluate("document.documentElement.scrollWidth")
    if widest > page.viewport_size["width"]:
        complaints.append(f"the page scrolls sideways: {widest} pixels")
    unset = page.evaluate(
        "[...document.querySelectorAll('mjx-merror')].map((e) => e.title || e.textContent)"
    )
    complaints += [f"formula: {error}" for error in unset]
    hidden = page.evaluate(UNREACHED)
    complaints += [f"scrolls, but not by keyboard: {text}" for text in hidden]
    page.close()
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("theme", driving.THEMES)
def test_what_opens_on_a_page_is_accessible_too(windows, address, theme):
    page = windows["narrow", theme].new_page()
    driving.visit(page, f"{address}/{driving.with_part('equation-badge')[0]}")
    page.evaluate(AXE)
    page.locator(".primary-toggle").first.click()
    page.locator(".bd-sidebar-primary a:visible").first.wait_for()
    assert page.evaluate(AUDIT, FULL)["violations"] == []
    page.keyboard.press("Escape")
    page.locator(".bd-article a.reference.internal[href*='#equation-']:visible").first.hover()
    page.locator(".book-card").wait_for()
    assert page.evaluate(AUDIT, FULL)["violations"] == []
    page.close()


def test_nothing_on_the_site_is_fetched_from_elsewhere():
    """Links lead anywhere; scripts, styles, fonts and pictures come from the site."""
    loads = re.compile(
        r"<(?:script|img|link|source|iframe)\b[^>]*?\s(?:src|href)=\"(https?:)?//[^\"]*\"[^>]*>"
    )
    for name in PAGES:
        for tag in loads.finditer((driving.HTML / name).read_text("utf8")):
            assert 'rel="canonical"' in tag[0], f"{name} loads {tag[0]}"


def test_every_figure_has_a_description():
    for name in PAGES:
        html = (driving.HTML / name).read_text("utf8")
        article = html[html.index('class="bd-article') :]
        for image in re.findall(r"<img\b[^>]*>", article):
            assert re.search(r'alt="[^"]+\s[^"]+"', image), f"{name}: {image[:160]}"


def test_widgets_are_loaded_only_where_there_are_some():
    with_widgets = set(driving.with_part("application/vnd.jupyter.widget-view+json"))
    assert set(driving.with_part("vendor/widgets/embed.js")) == with_widgets


@pytest.mark.parametrize("name", driving.with_part("equation-badge"))
def test_numbers_of_equations_stay_beside_formulas_that_scroll(windows, address, name):
    page = driving.visit(windows["narrow", "light"].new_page(), f"{address}/{name}")
    far = page.evaluate(NUMBERS)
    page.close()
    assert far and max(far) <= 390


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_opens_its_committed_notebook_in_colab_and_offers_it(name):
    """The address and the tag come from pyproject.toml; the download is the file that we commit."""
    project = tomllib.loads((driving.ROOT / "pyproject.toml").read_text("utf8"))["project"]
    path = urlsplit(project["urls"]["Repository"]).path
    notebook = name.replace(".html", ".ipynb")
    html = (driving.HTML / name).read_text("utf8")
    colab = f"https://colab.research.google.com/github{path}/blob/v{project['version']}/{notebook}"
    assert colab in html
    offered = re.search(r'href="([^"]*_sources/[^"]*\.ipynb)"', html)
    assert offered, "the page offers no notebook"
    download = (driving.HTML / name).parent.joinpath(offered[1]).resolve()
    assert download.read_bytes() == (driving.ROOT / notebook).read_bytes()


@pytest.mark.parametrize("name", CHAPTERS)
def test_numbers_of_a_chapter_begin_with_the_number_of_its_file(page, address, name):
    number = str(int(name.removeprefix("book/")[:2]))
    driving.visit(page, f"{address}/{name}")
    heads = page.locator(".bd-article :is(h1, h2) .section-number").all_inner_texts()
    shown = page.locator(".bd-article .equation .eqno").all_inner_texts()
    shown += page.locator(".bd-article :is(.proof, figure) .caption-number").all_inner_texts()
    assert heads and all(re.split(r"[.\s]", h.strip())[0] == number for h in heads)
    assert all(re.search(rf"(?<![\d.]){number}\.\d+", text) for text in shown)
    assert page.locator(".bd-sidebar-primary .current > a").last.inner_text().startswith(number)
