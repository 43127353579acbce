"""Serve the built site on loopback and open its pages in Chromium, cut off from any network."""

import http.server
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build/html"
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
THEMES = ("light", "dark")
NOTHING, WHOLE = "NO BROWSER TEST RAN:", {"allow_module_level": True}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path = HTML):
    """The address of a server of `folder` on loopback, for as long as the block runs."""
    handler = partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def chromium():
    """The system's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def context(browser: Browser, size: str, theme: str, **options) -> BrowserContext:
    """A window of one size and colour scheme, in which every request off loopback fails."""
    width, height = SIZES[size]
    options = {"viewport": {"width": width, "height": height}, "color_scheme": theme} | options
    made = browser.new_context(**options)
    made.route("**/*", lambda r: r.continue_() if _local(r.request.url) else r.abort())
    return made


def _local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def pages(folder: Path = HTML) -> list[str]:
    """Every page of the book: the HTML files that carry the theme's article."""
    found = (file for file in sorted(folder.rglob("*.html")) if "_static" not in file.parts)
    return [
        f.relative_to(folder).as_posix()
        for f in found
        if 'class="bd-article' in f.read_text("utf8")
    ]


def with_part(part: str) -> list[str]:
    """The pages whose HTML holds this text."""
    return [name for name in pages() if part in (HTML / name).read_text("utf8")]


def skip_unless_ready() -> None:
    """Skip a module of tests, and say so, where there is no browser or no book to look at."""
    if not CHROMIUM:
        pytest.skip(f"{NOTHING} there is no Chromium; apt-get install chromium", **WHOLE)
    if not (HTML / "index.html").exists():
        pytest.skip(f"{NOTHING} there is no built book; make book", **WHOLE)


def visit(page: Page, url: str) -> Page:
    """Open a page and wait until its formulas are set, its fonts loaded and its widgets drawn."""
    page.goto(url, wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.evaluate("() => document.fonts.ready.then(() => true)")
    if page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count():
        page.wait_for_selector(".jupyter-widgets, .widget-output")
    page.wait_for_timeout(200)
    return page
