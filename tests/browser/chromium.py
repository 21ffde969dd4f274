"""A real Chromium, and pages that may neither complain nor ask anybody else.

With CTPEER_SCREENSHOTS set, the pictures in docs/images are taken anew.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
IMAGES = Path(__file__).parents[2] / "docs" / "images"
OURS = "willReadFrequently"
"""In what Chromium says when a test looks at what is painted."""
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def chromium():
    # For a module: while playwright is there, no other test of the process can run a loop.
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        pytest.skip("chromium is not installed: `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=list(CHROMIUM_FLAGS)
        )
        yield browser
        browser.close()


class Watch:
    """What pages did that they must not."""

    def __init__(self):
        self.complaints = []
        self.expected = ()

    def follow(self, page, host):
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._see(request.url, host))

    def _hear(self, message):
        if message.type in {"error", "warning"} and not self._is_expected(message.text):
            self.complaints.append(message.text)

    def _see(self, url, host):
        parts = urlsplit(url)
        if parts.scheme not in {"data", "blob"} and parts.netloc != host:
            self.complaints.append(f"it asked {url}")

    def _is_expected(self, text):
        return any(part in text for part in (OURS, *self.expected))


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def open_page(chromium, watch):
    """Return what opens an address; in the end no page may have complained or asked others."""
    contexts = []

    def open_it(url, viewport=WIDE, **more):
        context = chromium.new_context(viewport=viewport, reduced_motion="reduce", **more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        watch.follow(page, urlsplit(url).netloc)
        page.goto(url)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert watch.complaints == [], watch.complaints


@pytest.fixture
def picture():
    """Return what keeps a picture of a page for the documentation, if that is asked for."""

    def take(page, name, **more):
        if os.environ.get("CTPEER_SCREENSHOTS"):
            IMAGES.mkdir(exist_ok=True)
            page.screenshot(path=IMAGES / f"{name}.png", **more)

    return take


def wait_for_state(page, *words):
    """Wait until the page says that the state is one of `words`."""
    page.wait_for_function(
        "words => words.includes(document.getElementById('state-word').textContent)",
        arg=list(words),
        timeout=60_000,
    )


def painted(page, chart):
    """Return whether a chart's canvas has more than two colours."""
    return page.evaluate(
        """chart => {
            const { width, height } = document.querySelector(chart + " canvas");
            const drawn = document.querySelector(chart + " canvas").getContext("2d");
            const { data } = drawn.getImageData(0, 0, width, height);
            return new Set(new Uint32Array(data.buffer)).size > 2;
        }""",
        chart,
    )
