"""The built site in a browser without a network: every page, wide and narrow, light and dark."""

import json
import re
import tomllib
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.browser
driving = pytest.importorskip("driving", reason="Playwright is not installed: no browser test ran.")

if not driving.CHROMIUM:
    pytest.skip(
        "NO BROWSER TEST RAN: there is no Chromium; apt-get install chromium",
        allow_module_level=True,
    )
if not (driving.HTML / "index.html").exists():
    pytest.skip("NO BROWSER TEST RAN: there is no built book; make book", allow_module_level=True)

PAGES = driving.pages()
AXE = (driving.ROOT / "tests/browser/vendor/axe-core/axe.min.js").read_text("utf8")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
LOOKS = [(size, theme) for size in driving.SIZES for theme in driving.THEMES]
AUDIT = "tags => axe.run(document, {runOnly: tags, resultTypes: ['violations']})"
UNREACHED = """
[...document.querySelectorAll("mjx-container[display=true], pre, .pst-scrollable-table-container")]
  .filter((box) => box.clientWidth && box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0)
  .map((box) => box.textContent.slice(0, 60))
"""
MOVING = """
[...document.querySelectorAll("*")]
  .filter((e) => parseFloat(getComputedStyle(e).transitionDuration) > 0.001).length
"""
PICTURES = """
JSON.stringify([...document.querySelectorAll(".jupyter-widgets img")]
  .filter((img) => img.offsetParent).map((img) => [img.src, img.alt]))
"""
NUMBERS = """
[...document.querySelectorAll(".equation .eqno")].map((e) => e.getBoundingClientRect().right)
"""
PLAYER = ".frame-player"
SLIDER = ".jupyter-widgets .noUi-handle"


@pytest.fixture(scope="module")
def address():
    with driving.served() as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with driving.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def windows(browser):
    """One window for each size and theme, kept for all pages."""
    opened = {look: driving.context(browser, *look) for look in LOOKS}
    yield opened
    for window in opened.values():
        window.close()


@pytest.fixture(params=LOOKS, ids="-".join)
def window(request, windows):
    return windows[request.param]


@pytest.fixture
def page(windows):
    """A page of the wide, light window."""
    opened = windows["wide", "light"].new_page()
    yield opened
    opened.close()


def with_part(part: str) -> list[str]:
    """The pages whose HTML holds this text."""
    return [name for name in PAGES if part in (driving.HTML / name).read_text("utf8")]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_quiet_accessible_and_never_wider_than_its_window(window, address, name):
    page, complaints = window.new_page(), []
    page.on("console", lambda m: m.type == "error" and complaints.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"not served: {request.url}"))
    page.on("response", lambda r: r.status >= 400 and complaints.append(f"{r.status}: {r.url}"))
    driving.visit(page, f"{address}/{name}")
    page.evaluate(AXE)
    found = page.evaluate(AUDIT, WCAG)["violations"]
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
    driving.visit(page, f"{address}/{with_part('equation-badge')[0]}")
    page.evaluate(AXE)
    page.locator(".primary-toggle").first.click()
    page.locator(".bd-sidebar-primary a:visible").first.wait_for()
    assert page.evaluate(AUDIT, WCAG)["violations"] == []
    page.keyboard.press("Escape")
    page.locator(".bd-article a.reference.internal[href*='#equation-']:visible").first.hover()
    page.locator(".book-card").wait_for()
    assert page.evaluate(AUDIT, WCAG)["violations"] == []
    page.close()


def test_nothing_on_the_site_is_fetched_from_elsewhere():
    """Links lead anywhere; scripts, styles, fonts and pictures come from the site."""
    loads = re.compile(
        r"<(?:script|img|link|source|iframe)\b[^>]*?\s(?:src|href)=\"(https?:)?//[^\"]*\"[^>]*>"
    )
    for name in PAGES:
        for tag in loads.finditer((driving.HTML / name).read_text("utf8")):
            assert 'rel="canonical"' in tag[0], f"{name} loads {tag[0]}"


@pytest.mark.parametrize("name", with_part("equation-badge"))
def test_numbers_of_equations_stay_beside_formulas_that_scroll(windows, address, name):
    page = driving.visit(windows["narrow", "light"].new_page(), f"{address}/{name}")
    far = page.evaluate(NUMBERS)
    page.close()
    assert far and max(far) <= 390


@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_a_reference_shows_its_target_and_escape_hides_it(page, address, by):
    for name in with_part("#equation-")[:3]:
        driving.visit(page, f"{address}/{name}")
        link = page.locator(".bd-article a.reference.internal[href*='#equation-']:visible").first
        link.scroll_into_view_if_needed()
        if by == "pointer":
            link.hover()
        else:
            page.keyboard.press("Tab")  # so that focus counts as the keyboard's
            link.focus()
        card = page.locator("[role=tooltip].book-card")
        card.wait_for()
        assert card.locator("mjx-container").count() and card.bounding_box()["width"] > 40
        assert link.get_attribute("aria-describedby") == card.get_attribute("id")
        page.keyboard.press("Escape")
        assert card.count() == 0


@pytest.mark.parametrize("target", ["#thm:", "#fig-", "#ex:", ".html#equation-"])
def test_references_to_theorems_figures_exercises_and_other_pages_show_it(page, address, target):
    link = f".bd-article a.reference.internal[href*='{target}']:visible"
    for name in with_part(target)[:3]:
        driving.visit(page, f"{address}/{name}")
        if page.locator(link).count():
            page.locator(link).first.hover()
            page.locator(".book-card").wait_for()
            assert page.locator(".book-card").inner_text().strip()
            return
    pytest.skip(f"no page refers to {target}")


def test_cards_show_nothing_for_a_section(page, address):
    name = with_part("#the-")[0] if with_part("#the-") else PAGES[0]
    driving.visit(page, f"{address}/{name}")
    page.locator(".bd-sidebar-secondary a").first.hover()
    page.wait_for_timeout(400)
    assert page.locator(".book-card").count() == 0


def test_players_are_driven_by_keyboard(page, address):
    names = with_part('class="frame-player"')
    if not names:
        pytest.skip("no page has a player")
    for name in names:
        driving.visit(page, f"{address}/{name}")
        for player in page.locator(PLAYER).all():
            slider, picture = player.locator("input"), player.locator("img")
            last = int(slider.get_attribute("max"))
            first = picture.get_attribute("src"), picture.get_attribute("alt")
            assert all(first) and slider.get_attribute("aria-label")
            slider.focus()
            page.keyboard.press("ArrowRight")
            assert slider.input_value() == "1" and picture.get_attribute("src") != first[0]
            assert player.locator("output").inner_text() == slider.get_attribute("aria-valuetext")
            page.keyboard.press("End")
            assert slider.input_value() == str(last)
            page.keyboard.press("Home")
            assert (picture.get_attribute("src"), picture.get_attribute("alt")) == first


def test_a_player_plays_pauses_and_stops_at_its_end(page, address):
    names = with_part('class="frame-player"')
    if not names:
        pytest.skip("no page has a player")
    driving.visit(page, f"{address}/{names[0]}")
    player = page.locator(PLAYER).first
    button, slider = player.locator("button"), player.locator("input")
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "true"
    page.wait_for_function("(p) => p.value >= 2", arg=slider.element_handle())
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    paused = slider.input_value()
    page.wait_for_timeout(800)
    assert slider.input_value() == paused
    slider.press("End")
    slider.press("ArrowLeft")
    button.press("Space")
    page.wait_for_function("(b) => b.ariaPressed === 'false'", arg=button.element_handle())
    assert slider.input_value() == slider.get_attribute("max")


def test_reduced_motion_leaves_the_slider_alone(browser, address):
    names = with_part('class="frame-player"')
    if not names:
        pytest.skip("no page has a player")
    window = driving.context(browser, "wide", "light", reduced_motion="reduce")
    page = driving.visit(window.new_page(), f"{address}/{names[0]}")
    assert not page.locator(f"{PLAYER} button").first.is_visible()
    assert page.locator(f"{PLAYER} input").first.is_visible()
    moving = page.evaluate(MOVING)
    window.close()
    assert moving == 0


def test_widgets_move_their_picture_by_keyboard_without_a_kernel(page, address):
    names = with_part("IntSliderModel")
    if not names:
        pytest.skip("no page has sliders of Jupyter's")
    for name in names:
        driving.visit(page, f"{address}/{name}")
        page.wait_for_function("document.querySelector('.jupyter-widgets img')?.offsetParent")
        before = page.evaluate(PICTURES)
        slider = page.locator(SLIDER).first
        assert slider.get_attribute("aria-label")
        slider.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"(before) => {PICTURES.strip()} !== before", arg=before)
        after = json.loads(page.evaluate(PICTURES))
        assert len(after) == len(json.loads(before)) and all(alt for _, alt in after)


def test_widgets_are_loaded_only_where_there_are_some():
    with_widgets = set(with_part("application/vnd.jupyter.widget-view+json"))
    assert set(with_part("vendor/widgets/embed.js")) == with_widgets


def test_search_finds_a_word_of_a_chapter(page, address):
    page.goto(f"{address}/search.html?q=marginals")
    page.locator("ul.search li a").first.wait_for()
    found = page.locator("ul.search li a").first.get_attribute("href")
    page.goto(page.evaluate("(link) => new URL(link, location).href", found))
    assert "marginal" in page.locator(".bd-article").inner_text().lower()


def test_the_search_field_opens_by_its_key(page, address):
    driving.visit(page, f"{address}/{PAGES[0]}")
    page.keyboard.press("Control+k")
    page.keyboard.type("marginals")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=marginals**")


CHAPTERS = [name for name in PAGES if re.match(r"book/\d\d-", name)]


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


def test_colours_follow_the_button(page, address):
    driving.visit(page, f"{address}/{PAGES[0]}")
    button = page.locator(".theme-switch-button").first
    seen = set()
    for _ in range(3):
        button.focus()
        page.keyboard.press("Enter")
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}


def test_every_figure_has_a_description():
    for name in PAGES:
        html = (driving.HTML / name).read_text("utf8")
        article = html[html.index('class="bd-article') :]
        for image in re.findall(r"<img\b[^>]*>", article):
            assert re.search(r'alt="[^"]+\s[^"]+"', image), f"{name}: {image[:160]}"
