"""What moves on the site: cards, players, widgets, search and colours, by pointer and keyboard."""

import json

import pytest

pytestmark = pytest.mark.browser
driving = pytest.importorskip("driving", reason="NO BROWSER TEST RAN: there is no Playwright")
driving.skip_unless_ready()

MOVING = """
[...document.querySelectorAll("*")]
  .filter((e) => parseFloat(getComputedStyle(e).transitionDuration) > 0.001).length
"""
PICTURES = """
JSON.stringify([...document.querySelectorAll(".jupyter-widgets img")]
  .filter((img) => img.offsetParent).map((img) => [img.src, img.alt]))
"""
PLAYER = ".frame-player"
SLIDER = ".jupyter-widgets .noUi-handle"


@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_a_reference_shows_its_target_and_escape_hides_it(page, address, by):
    for name in driving.with_part("#equation-")[:3]:
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
    for name in driving.with_part(target)[:3]:
        driving.visit(page, f"{address}/{name}")
        if page.locator(link).count():
            page.locator(link).first.hover()
            page.locator(".book-card").wait_for()
            assert page.locator(".book-card").inner_text().strip()
            return
    pytest.skip(f"no page refers to {target}")


def test_cards_show_nothing_for_a_section(page, address):
    name = driving.with_part("bd-toc-nav")[0]
    driving.visit(page, f"{address}/{name}")
    page.locator(".bd-sidebar-secondary a").first.hover()
    page.wait_for_timeout(400)
    assert page.locator(".book-card").count() == 0


def test_players_are_driven_by_keyboard(page, address):
    names = driving.with_part('class="frame-player"')
    if not names:
        pytest.skip("no page has a player")
    for name in names:
        driving.visit(page, f"{address}/{name}")
        for player in page.locator(PLAYER).all():
            slider, picture = player.locator("input").first, player.locator("img")
            last = int(slider.get_attribute("max"))
            first = picture.get_attribute("src"), picture.get_attribute("alt")
            assert all(first) and slider.get_attribute("aria-label")
            slider.focus()
            page.keyboard.press("ArrowRight")
            assert slider.input_value() == "1" and picture.get_attribute("src") != first[0]
            output = player.locator("output").first
            assert output.inner_text() == slider.get_attribute("aria-valuetext")
            page.keyboard.press("End")
            assert slider.input_value() == str(last)
            page.keyboard.press("Home")
            assert (picture.get_attribute("src"), picture.get_attribute("alt")) == first


def test_a_second_slider_changes_the_row_and_keeps_the_place(page, address):
    names = driving.with_part('class="spacer"')
    if not names:
        pytest.skip("no page has a player with two sliders")
    driving.visit(page, f"{address}/{names[0]}")
    player = page.locator(PLAYER, has=page.locator(".spacer")).first
    along, across = player.locator("input").all()
    picture, shown = player.locator("img"), player.locator("output").last
    assert across.get_attribute("aria-label") != along.get_attribute("aria-label")
    along.press("End")
    first, place = picture.get_attribute("src"), along.input_value()
    across.press("ArrowRight")
    assert picture.get_attribute("src") != first and along.input_value() == place
    assert across.input_value() == "1"
    assert shown.inner_text() == across.get_attribute("aria-valuetext")
    across.press("Home")
    assert picture.get_attribute("src") == first


def test_a_player_plays_pauses_and_stops_at_its_end(page, address):
    names = driving.with_part('class="frame-player"')
    if not names:
        pytest.skip("no page has a player")
    driving.visit(page, f"{address}/{names[0]}")
    player = page.locator(PLAYER).first
    button, slider = player.locator("button"), player.locator("input").first
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
    names = driving.with_part('class="frame-player"')
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
    names = driving.with_part("SelectionSliderModel")
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


def test_search_finds_a_word_of_a_chapter(page, address):
    page.goto(f"{address}/search.html?q=marginals")
    page.locator("ul.search li a").first.wait_for()
    found = page.locator("ul.search li a").first.get_attribute("href")
    page.goto(page.evaluate("(link) => new URL(link, location).href", found))
    assert "marginal" in page.locator(".bd-article").inner_text().lower()


def test_the_search_field_opens_by_its_key(page, address):
    driving.visit(page, f"{address}/{driving.pages()[0]}")
    page.keyboard.press("Control+k")
    page.keyboard.type("marginals")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=marginals**")


def test_colours_follow_the_button(page, address):
    driving.visit(page, f"{address}/{driving.pages()[0]}")
    button = page.locator(".theme-switch-button").first
    seen = set()
    for _ in range(3):
        button.focus()
        page.keyboard.press("Enter")
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}
