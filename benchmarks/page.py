"""How long the local page takes: first paint in Chromium, and an answer of the supervisor.

A real daemon trains the demo run meanwhile, alone. Each visit has a browser context of its own, so
that nothing is cached; `first_paint_ms` and `first_contentful_paint_ms` are what the browser itself
measured (Paint Timing) since the navigation began, `shown_ms` is when the state stood there in
words. `view_ms` is the time from a question for the page's JSON to its last byte.

    python -m benchmarks.page --json
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.report import machine, spread
from peer.config.home import Home
from peer.daemon.client import get_status
from peer.errors import CtpeerError

_CHROMIUM = "/usr/bin/chromium"
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_START_TIMEOUT_S = 120.0
_ENVIRONMENT = {"CTPEER_PAGE__PORT": "0", "CTPEER_METRICS__PORT": "0"}
_PAINTS = """() => Object.fromEntries(
    performance.getEntriesByType("paint").map(({ name, startTime }) => [name, startTime]))"""
_SHOWN = """() => document.getElementById("state-word").textContent.length > 1
    ? performance.now() : null"""


def main() -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--visits", type=int, default=10, help="how often (default 10)")
    options = parser.parse_args()
    with _daemon() as url:
        visits = _visit(url, options.visits)
        answers = [_answer_ms(url) for _ in range(options.visits)]
    result: dict[str, Any] = {
        "name": "page",
        "unit": "ms",
        **{name: spread([visit[name] for visit in visits]) for name in visits[0]},
        "view_ms": spread(answers),
        "visits": options.visits,
        "machine": machine(),
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for name in (*visits[0], "view_ms"):
        low, middle, high = (result[name][key] for key in ("min", "median", "max"))
        print(f"{name}: {middle:.0f} ({low:.0f} to {high:.0f} in {options.visits} visits)")


@contextmanager
def _daemon() -> Iterator[str]:
    """Yield the page's address of a daemon that trains."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "peer", "start", "--alone", "--plain", "--home", folder],
            env=os.environ | _ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield _wait_for_training(Home(Path(folder)))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _wait_for_training(home: Home) -> str:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            status = get_status(home)
        except CtpeerError:
            status = {}
        if (status.get("epoch") or 0) > 0:
            return str(status["page_url"])
        time.sleep(0.2)
    raise SystemExit("the daemon did not begin to train in time")


def _visit(url: str, count: int) -> list[dict[str, float]]:
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        for _ in range(count + 1):
            context = browser.new_context()
            page = context.new_page()
            page.goto(url)
            shown_ms = page.wait_for_function(_SHOWN).json_value()
            page.wait_for_function(f"() => Object.keys(({_PAINTS})()).length === 2")
            paints = page.evaluate(_PAINTS)
            found.append(
                {
                    "first_paint_ms": paints["first-paint"],
                    "first_contentful_paint_ms": paints["first-contentful-paint"],
                    "shown_ms": shown_ms,
                }
            )
            context.close()
        browser.close()
    return found[1:]  # the first one waits for the browser, not for the page


def _answer_ms(url: str) -> float:
    address, _, key = url.partition("#")
    request = urllib.request.Request(f"{address}view", headers={"X-Ctpeer-Key": key})  # noqa: S310
    began_s = time.perf_counter()
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 our own daemon
        answer.read()
    return 1000.0 * (time.perf_counter() - began_s)


if __name__ == "__main__":
    main()
