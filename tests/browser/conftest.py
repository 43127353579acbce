"""One server, one browser and its four windows for all tests of the site."""

import pytest

LOOKS = [(size, theme) for size in ("wide", "narrow") for theme in ("light", "dark")]


@pytest.fixture(scope="session")
def address():
    import driving

    with driving.served() as url:
        yield url


@pytest.fixture(scope="session")
def browser():
    import driving

    with driving.chromium() as running:
        yield running


@pytest.fixture(scope="session")
def windows(browser):
    """One window for each size and theme, kept for all pages."""
    import driving

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
