"""The page of a swarm as a real `ctpeer-monitor` serves it, which sees real nodes."""

import re
import sys
from pathlib import Path

import pytest
from chromium import painted, wait_for_state

# A swarm, and a monitor before it, are found beside their other tests.
sys.path.append(str(Path(__file__).parents[1] / "swarm"))

from monitored import EPOCHS, start_monitor, swarm

__all__ = ["start_monitor", "swarm"]

NARROW = {"width": 390, "height": 844}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def monitor(start_monitor, swarm, swarm_tools):
    monitor = start_monitor()
    swarm.speak()
    swarm_tools.wait_until(lambda: monitor.scrape().get("claims") == 10, 60)
    swarm_tools.wait_until(lambda: monitor.scrape().get("certificates") == EPOCHS, 60)
    return monitor


def wait_for_reading(page, words):
    """Wait until the held-out curve ends as `words` say, and the figures above it do, too."""
    page.wait_for_function(
        """words => {
            const text = (selector) => document.querySelector(selector).textContent;
            const reading = text("#heldout-chart .reading").replace("  ", " ");
            return reading === words && words === `${text("#heldout")} at epoch ${text("#epoch")}`;
        }""",
        arg=words,
    )


def test_the_page_shows_what_the_exporter_sees_and_follows(monitor, swarm, open_page, picture):
    page = open_page(f"{monitor.url}/")
    wait_for_state(page, "training")
    assert page.inner_text("#run-id") == swarm.run_id
    assert page.inner_text("#state-reason") == f"2 peers at epoch {EPOCHS} of generation 0"
    for epoch, heldout in enumerate((2.9, 2.82, 2.76), EPOCHS + 1):
        swarm.advance(loss_nats=1.35 * heldout, heldout=heldout)
        wait_for_reading(page, f"{heldout:.3f} at epoch {epoch}")
    for chart in ("#loss-chart", "#heldout-chart", "#live-chart"):
        assert painted(page, chart)
    baselines = swarm.run.manifest.evaluation.baselines
    assert page.inner_text("#heldout-chart .legend").split() == list(baselines)
    assert page.inner_text("#heldout") == "2.760"
    assert "· " not in page.inner_text("#since")
    assert page.inner_text("#cover") == f"5 of {len(swarm.index.split('train'))}"
    ids = page.locator("#board tbody [title]").evaluate_all("all => all.map(one => one.title)")
    assert sorted(ids) == sorted(node.peer_id for node in swarm.peers)
    assert page.locator("#board tbody tr", has_text="50.0 %").count() == 2
    assert "No verdict" in page.inner_text("#verdicts")
    assert not re.search(r"NaN|undefined|null|Infinity|\[object", page.inner_text("body"))
    picture(page, "swarm-page-real")


def test_dark_is_dark(monitor, swarm, open_page, picture):
    swarm.speak()
    page = open_page(f"{monitor.url}/", color_scheme="dark")
    wait_for_state(page, "training")
    page.wait_for_selector("#heldout-chart canvas")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", ground)) < 40
    picture(page, "swarm-page-real-dark")


def test_a_narrow_screen_does_not_scroll_sideways(monitor, swarm, open_page, picture):
    swarm.speak()
    page = open_page(f"{monitor.url}/", NARROW)
    wait_for_state(page, "training")
    page.wait_for_selector("#heldout-chart canvas")
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    picture(page, "swarm-page-real-narrow")


def test_what_the_page_links_to_is_there(monitor, open_page):
    page = open_page(f"{monitor.url}/")
    links = page.locator("a[href]:not(.skip)").evaluate_all("all => all.map(one => one.href)")
    assert len(links) == 3
    for link in links:
        assert monitor.get(link.removeprefix(monitor.url))
