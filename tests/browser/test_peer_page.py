"""The page of a peer in every state that it can be in, shown by a stand-in for the supervisor."""

import itertools
import re

import pytest
import scenes
from aiohttp import web
from chromium import NARROW, painted, wait_for_state

from peer.observe.page.site import Guard, add_files, add_view

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
DEAD = ("restarting", "starting the worker again in 4 s after a crash (killed by SIGKILL)")
KEY = "k" * 32


class StandIn:
    """Serves whatever view it holds, and notes what it is told to do."""

    def __init__(self, serve):
        self.view = scenes.view()
        self.told = []
        app, guard = web.Application(), Guard(key=KEY)
        add_files(app, guard, "peer.html")
        add_view(app, guard, "/view", self._now)
        for name in ("pause", "resume", "finish", "stop"):
            app.router.add_post(f"/{name}", guard.around(self._obey))
        self.url = f"{serve(app)}#{KEY}"

    async def _now(self):
        return self.view

    async def _obey(self, request):
        self.told.append((request.path, await request.json()))
        return web.json_response({})


@pytest.fixture
def peer(serve):
    return StandIn(serve)


def test_a_peer_that_trains_is_told_of_with_curves_and_baselines(peer, open_page, picture):
    page = open_page(peer.url)
    wait_for_state(page, "training")
    assert page.inner_text("#state-reason") == "gathering the epoch's batch"
    for chart in ("#loss-chart", "#heldout-chart", "#group-chart"):
        assert painted(page, chart)
    legend = page.inner_text("#heldout-chart .legend")
    assert "unigram" in legend
    assert "bigram" in legend
    assert "480" in page.get_attribute("#loss-chart [role=img]", "aria-label")
    assert page.locator("#peers tbody tr").count() == 4
    assert page.locator("#last-group tbody tr").count() == 5
    assert "no group" in page.inner_text("#rounds")
    assert "last good" in page.inner_text("#checkpoints")
    assert page.locator("#verdicts tbody tr").count() == 4
    picture(page, "page-light")


def test_dark_is_dark(peer, open_page, picture):
    page = open_page(peer.url, color_scheme="dark")
    wait_for_state(page, "training")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", ground)) < 40
    picture(page, "page-dark")


def test_a_narrow_screen_does_not_scroll_sideways(peer, open_page, picture):
    seen = scenes.snapshot(peer_words="in group", shard="x" * 200)
    peer.view = scenes.view(reason="a" * 300, seen=seen)
    page = open_page(peer.url, NARROW)
    wait_for_state(page, "training")
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    peer.view = scenes.view()
    page.wait_for_function("() => document.getElementById('state-reason').textContent.length < 100")
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    picture(page, "page-narrow")


def test_a_peer_that_is_paused_can_be_resumed(peer, open_page, picture):
    peer.view = scenes.view("paused", "paused by you until 18:30", paused="paused by you")
    page = open_page(peer.url)
    wait_for_state(page, "paused")
    assert page.is_hidden("#pause")
    picture(page, "page-paused")
    page.click("#resume")
    page.wait_for_function("() => document.getElementById('resume').disabled === false")
    assert peer.told == [("/resume", {})]


def test_a_dead_worker_is_told_of_and_what_it_did_stays(peer, open_page, picture):
    page = open_page(peer.url)
    wait_for_state(page, "training")
    peer.view = scenes.view(*DEAD)
    wait_for_state(page, "restarting")
    assert "SIGKILL" in page.inner_text("#state-reason")
    assert "none at present" in page.inner_text("#process")
    assert painted(page, "#loss-chart")
    picture(page, "page-worker-dead")


def test_a_stuck_worker_is_not_shown_as_well(peer, open_page):
    peer.view = scenes.view(reason="gathering; no word from the worker for 42 s", quiet_s=42.0)
    page = open_page(peer.url)
    wait_for_state(page, "training")
    assert page.get_attribute("#state", "data-tone") == "warn"
    assert "42 s" in page.inner_text("#process")


def test_before_anything_is_loaded_the_page_says_so_without_a_dash_of_nonsense(peer, open_page):
    peer.view = scenes.view(
        "starting",
        "importing torch and transformers",
        seen=scenes.Snapshot(started_s=0.0),
        lineage={"checkpoints": [], "verdicts": [], "problem": None},
    )
    page = open_page(peer.url)
    wait_for_state(page, "starting")
    text = page.inner_text("body")
    assert not re.search(r"NaN|undefined|null|Infinity|\[object", text)
    assert "begins with the first epoch" in text


def test_whatever_a_peer_says_is_text(peer, open_page):
    peer.view = scenes.view(
        reason=HOSTILE, seen=scenes.snapshot(peers=(HOSTILE,), peer_words=HOSTILE, shard=HOSTILE)
    )
    peer.view["status"]["peers_misbehaved"] = {HOSTILE: HOSTILE}
    peer.view["status"]["rounds"]["last_failure"] = HOSTILE
    peer.view["status"]["rounds"]["failed_by_reason"] = {HOSTILE: 1}
    peer.view["status"]["heldout"]["baselines"] = {HOSTILE: 3.0}
    peer.view["status"]["metrics_url"] = "javascript:alert(1)"
    peer.view["lineage"]["problem"] = HOSTILE
    page = open_page(peer.url)
    wait_for_state(page, "training")
    assert page.inner_text("#state-reason") == HOSTILE
    assert page.locator("body img, body script").count() == 0
    assert "owned" not in page.title()
    assert page.is_hidden("#metrics")


def test_without_the_key_the_page_says_where_the_key_is(peer, open_page, watch):
    watch.expected = ("403",)
    page = open_page(peer.url.partition("#")[0])
    page.wait_for_selector("#notice:visible")
    assert "ctpeer status" in page.inner_text("#notice")
    assert page.is_disabled("#pause")


def test_stop_asks_first_and_escape_takes_it_back(peer, open_page):
    page = open_page(peer.url)
    wait_for_state(page, "training")
    page.click("#stop")
    assert page.evaluate("document.activeElement.id") == "ask-no"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "stop"
    assert peer.told == []
    page.click("#stop")
    page.click("#ask-yes")
    page.wait_for_selector("#commands:visible")
    wait_until(page, lambda: peer.told == [("/stop", {})])


def test_all_that_can_be_done_is_reached_by_keys_with_the_focus_in_sight(peer, open_page):
    page = open_page(peer.url)
    wait_for_state(page, "training")
    reached = []
    while True:
        page.keyboard.press("Tab")
        where, outlined, seen = page.evaluate(
            """() => {
                const at = document.activeElement, seen = at.dataset.reached ?? null;
                at.dataset.reached = "";
                return [at.id || at.tagName, getComputedStyle(at).outlineStyle, seen !== null];
            }"""
        )
        if seen or where == "BODY":
            break
        reached.append(where)
        assert outlined == "solid", where
        assert len(reached) < 100
    wanted = ["pause", "pause-for", "finish", "stop", "invite", "copy", "metrics"]
    assert [name for name in reached if name in wanted] == wanted
    page.focus("#pause-for")
    page.keyboard.press("ArrowDown")
    page.focus("#pause")
    page.keyboard.press("Enter")
    wait_until(page, lambda: peer.told == [("/pause", {"for_s": 1800})])


def test_a_click_on_a_heading_sorts_and_two_sort_backwards(peer, open_page):
    page = open_page(peer.url)
    wait_for_state(page, "training")
    speeds = page.locator("#peers tbody td[data-label='loss terms/s']")
    heading = page.locator("#peers th", has_text="loss terms/s")
    heading.locator("button").click()
    assert speeds.all_inner_texts() == ["760", "900", "1,040", "1,180"]
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    assert speeds.all_inner_texts() == ["1,180", "1,040", "900", "760"]


def test_the_invite_is_copied(peer, open_page):
    page = open_page(peer.url, permissions=["clipboard-read", "clipboard-write"])
    wait_for_state(page, "training")
    page.click("#copy")
    page.wait_for_function("() => document.getElementById('copy').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == peer.view["status"]["invite"]


def test_whoever_listens_is_told_when_the_state_changes_and_not_each_second(peer, open_page):
    page = open_page(peer.url)
    wait_for_state(page, "training")
    peer.view = scenes.view(reason="another reason")
    page.wait_for_function(
        "() => document.getElementById('state-reason').textContent === 'another reason'"
    )
    assert page.inner_text("#announce") == "training: gathering the epoch's batch"
    peer.view = scenes.view("averaging", "with 4 others")
    wait_for_state(page, "averaging")
    assert page.inner_text("#announce") == "averaging: with 4 others"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(peer, open_page, scheme):
    page = open_page(peer.url, color_scheme=scheme)
    wait_for_state(page, "training")
    colours = page.evaluate(
        """() => {
            const of = name => getComputedStyle(document.documentElement).getPropertyValue(name);
            const all = names => Object.fromEntries(names.map(name => [name, of(name).trim()]));
            return [all(["--text", "--muted", "--accent", "--good", "--warn", "--bad", "--quiet"]),
                    all(["--ground", "--surface"])];
        }"""
    )
    for text, ground in itertools.product(*map(dict.items, colours)):
        assert contrast(text[1], ground[1]) >= 4.5, (text, ground)


def contrast(one, other):
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def wait_until(page, condition):
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(25)
    assert condition()
