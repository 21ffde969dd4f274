"""The page of a real daemon in a real browser, while its worker lives, is killed, hangs, and after.

All of it is one daemon's life, in the order in which it is written here.
"""

import signal
import sys
from pathlib import Path

import psutil
import pytest

# What shows pages in a browser is found beside their other tests.
sys.path.append(str(Path(__file__).parents[1] / "browser"))

from chromium import chromium, open_page, painted, picture, wait_for_state, watch

__all__ = ["chromium", "open_page", "picture", "watch"]

GONE = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_page_commands_a_real_daemon_and_is_right_whatever_happens_to_it(
    daemon, tiny_run, open_page, watch
):
    daemon.start(tiny_run, CTPEER_CHECKPOINT__INTERVAL_S="1", CTPEER_WORKER__HANG_TIMEOUT_S="12")
    status = daemon.wait_until(lambda status: status["checkpoint"] is not None)
    page = open_page(status["page_url"])
    wait_for_state(page, "training", "averaging", "evaluating")
    page.wait_for_selector("#loss-chart canvas")
    assert painted(page, "#loss-chart")
    page.wait_for_selector("#checkpoints tbody tr")

    page.click("#pause")
    paused = daemon.wait_until(lambda status: status["state"] == "paused")
    wait_for_state(page, "paused")
    assert page.inner_text("#state-reason") == "paused by you"
    assert page.evaluate("document.activeElement.id") == "resume"
    page.keyboard.press("Enter")
    daemon.wait_until(lambda status: status["epoch"] > paused["epoch"])
    wait_for_state(page, "training", "averaging", "evaluating")

    psutil.Process(daemon.status()["worker_pid"]).send_signal(signal.SIGKILL)
    wait_for_state(page, "restarting", "starting")
    assert painted(page, "#loss-chart")
    wait_for_state(page, "training", "averaging", "evaluating")
    assert "crash 1" in page.inner_text("#process")

    psutil.Process(daemon.status()["worker_pid"]).send_signal(signal.SIGSTOP)
    page.wait_for_selector("#state[data-tone=warn]")
    assert "no word from the worker" in page.inner_text("#state-reason")
    wait_for_state(page, "restarting", "starting")
    wait_for_state(page, "training", "averaging", "evaluating")
    assert "hang 1" in page.inner_text("#process")

    watch.expected = GONE
    page.click("#stop")
    page.click("#ask-yes")
    assert daemon.wait() == 0
    wait_for_state(page, "ended", "gone")
    assert "ctpeer start" in page.inner_text("#state-reason")
    assert page.is_disabled("#pause")
    assert page.evaluate("document.body.hasAttribute('data-silent')")
    assert painted(page, "#loss-chart")


def test_a_page_comes_back_with_its_daemon_and_its_curves(daemon, tiny_run, open_page, watch):
    watch.expected = GONE
    daemon.start(tiny_run)
    status = daemon.wait_until(lambda status: (status["epoch"] or 0) > 20)
    port = status["page_url"].split(":")[2].split("/")[0]
    page = open_page(status["page_url"])
    wait_for_state(page, "training", "averaging", "evaluating")
    daemon.run("stop")
    daemon.wait()
    wait_for_state(page, "ended", "gone")
    daemon.start(CTPEER_PAGE__PORT=port)
    wait_for_state(page, "training", "averaging", "evaluating")
    assert "From" in page.get_attribute("#loss-chart [role=img]", "aria-label")
    first = page.get_attribute("#loss-chart [role=img]", "aria-label").split(" at epoch ")[1]
    assert int(first.split()[0]) <= 20
