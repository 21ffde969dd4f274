"""The page of a swarm, fed by a stand-in for the exporter."""

import math
import re
import time

import pytest
import scenes
from aiohttp import web
from chromium import NARROW, wait_for_state

from peer.observe.page.swarm import add_swarm_page


class StandIn:
    """Serves what an exporter does; None is what it says before its first crawl."""

    def __init__(self, serve):
        self.body = scenes.swarm()
        self._epoch = 0
        app = web.Application()
        for name in ("swarm", "leaderboard", "verdicts", "healthz"):
            app.router.add_get(f"/{name}", self._answer)
        add_swarm_page(app, self._look)
        self.url = serve(app)

    def _look(self):
        """Return what the swarm was like at the next epoch."""
        self._epoch += 1
        loss, heldout = scenes.loss(self._epoch), 2.45 + 1.9 * math.exp(-self._epoch / 90)
        swarm = scenes.swarm(live=1 + min(3, self._epoch // 100))["swarm"] | {"epoch": self._epoch}
        swarm["self_reported"] |= {"loss_nats": loss, "heldout": heldout}
        return swarm

    async def _answer(self, request):
        if self.body is None:
            return web.json_response({"error": "the first crawl is not complete"}, status=503)
        body = self.body[request.path.strip("/")] | {"unix_time_s": time.time() - 4.0}
        return web.json_response(body, status=503 if body.get("problem") else 200)


@pytest.fixture
def exporter(serve, monkeypatch):
    monkeypatch.setattr("peer.observe.page.swarm.SAMPLE_S", 0.001)
    return StandIn(serve)


def test_the_swarm_is_shown_with_its_leaderboard_and_verdicts(exporter, open_page, picture):
    page = open_page(exporter.url)
    wait_for_state(page, "training")
    assert "4 peers at epoch 480" in page.inner_text("#state-reason")
    assert page.locator("#board tbody tr").count() == 5
    assert page.locator("#verdicts tbody tr").count() == 4
    assert "38 of 40" in page.inner_text("#cover")
    assert page.inner_text("#heldout-sub") == "unigram 3.68, bigram 2.62"
    assert "bigram" in page.inner_text("#heldout-chart .legend")
    assert not re.search(r"NaN|undefined|null|\[object", page.inner_text("body"))
    page.wait_for_function(
        """() => {
            const reading = document.querySelector("#live-chart .reading").textContent;
            return /4 peers at epoch ([3-9]..|[0-9]+,...)$/.test(reading);
        }"""
    )
    picture(page, "swarm-page")


def test_without_the_manifest_the_heldout_curve_stands_alone(exporter, open_page):
    exporter.body["swarm"]["heldout_baselines"] = {}
    page = open_page(exporter.url)
    wait_for_state(page, "training")
    page.wait_for_selector("#heldout-chart canvas")
    assert page.inner_text("#heldout-chart .legend") == ""
    assert page.inner_text("#heldout-sub") == ""


def test_a_curve_that_was_empty_for_a_while_has_its_baselines_again(exporter, open_page):
    """As after a restart of the exporter."""
    curves = {"loss": [], "live": [], "heldout": [[epoch, 3.0] for epoch in (1, 2, 3)]}
    page = open_page(exporter.url)
    page.route("**/curves", lambda route: route.fulfill(json=curves))
    legend = """
        (names) => document.querySelector("#heldout-chart .legend").textContent.trim() === names
    """
    page.wait_for_function(legend, arg="unigram bigram")
    kept, curves["heldout"] = curves["heldout"], []
    page.wait_for_function(legend, arg="")
    curves["heldout"] = kept
    page.wait_for_function(legend, arg="unigram bigram")


def test_a_split_swarm_is_told_of(exporter, open_page):
    exporter.body = scenes.swarm(branches=2)
    page = open_page(exporter.url, color_scheme="dark")
    wait_for_state(page, "split")
    assert page.get_attribute("#state", "data-tone") == "warn"


def test_before_the_first_crawl_the_page_waits_in_words(exporter, open_page, watch):
    watch.expected = ("503",)
    exporter.body = None
    page = open_page(exporter.url)
    wait_for_state(page, "looking")
    assert "first crawl" in page.inner_text("#state-reason")
    exporter.body = scenes.swarm()
    wait_for_state(page, "training")


def test_an_exporter_that_sees_nobody_says_so(exporter, open_page, watch):
    watch.expected = ("503",)
    exporter.body["healthz"] = {"ok": False, "problem": "no crawl has brought records for 90 s"}
    page = open_page(exporter.url)
    wait_for_state(page, "not seen")
    assert "90 s" in page.inner_text("#state-reason")


def test_a_narrow_screen_does_not_scroll_sideways(exporter, open_page):
    page = open_page(exporter.url, NARROW)
    wait_for_state(page, "training")
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_whatever_a_peer_says_is_text(exporter, open_page):
    hostile = "<img src=x onerror=\"document.title='owned'\">"
    row = exporter.body["leaderboard"]["peers"][0]
    row["self_reported"] |= {"phase": hostile, "version": hostile, "device": hostile}
    exporter.body["swarm"]["peers"]["by_version"] = {hostile: 3}
    exporter.body["verdicts"]["verdicts"][0]["words"] = hostile
    page = open_page(exporter.url)
    wait_for_state(page, "training")
    assert page.locator("body img").count() == 0
    assert "owned" not in page.title()
