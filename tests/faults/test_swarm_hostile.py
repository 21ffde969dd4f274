"""Hostile peers in a real swarm: refused, counted, and training goes on at full speed.

Each test lets one hostile peer at honest daemons that train together, and looks at how often they
commit before and meanwhile. What an attack may cost is a few deadlines, each at most once in a
while; the deadlines are shorter here than by default.
"""

import itertools
import os
import threading
import time
import urllib.request

import attacks
import pytest
from mallory import Gang

from peer.config.home import Home
from peer.daemon.client import get_status
from peer.errors import CtpeerError

CALL_S, MATCHMAKING_S, PART_S = 2.0, 5.0, 20.0
DEADLINES = {
    "CTPEER_SWARM__CALL_TIMEOUT_S": str(CALL_S),
    "CTPEER_SWARM__MATCHMAKING_TIMEOUT_S": str(MATCHMAKING_S),
    "CTPEER_SWARM__PART_TIMEOUT_S": str(PART_S),
}
WINDOW_S = float(os.environ.get("WINDOW_S", "9"))
LONGEST_WINDOW_S = 2 * WINDOW_S
"""Beyond the longest of the deadlines, which a peer that gives signs of life can use up once."""
STALL_S = 1.5
"""A pause between two epochs that is longer than this is a wait for somebody."""


class Watch:
    """Notes when each daemon reached which epoch, and with which root."""

    def __init__(self, daemons):
        self._homes = [Home(daemon.home) for daemon in daemons]
        self.reached = [[] for _ in daemons]
        self.roots = [{} for _ in daemons]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self):
        while not self._stop.wait(0.08):
            for number, home in enumerate(self._homes):
                try:
                    status = get_status(home)
                except CtpeerError:
                    continue
                reached, epoch = self.reached[number], status["epoch"]
                if not reached or epoch > reached[-1][1]:
                    reached.append((time.monotonic(), epoch))
                if status["state_root"] is not None:
                    self.roots[number][status["state_root_epoch"]] = status["state_root"]

    def stop(self):
        self._stop.set()
        self._thread.join()

    def pace(self, since_s, until_s):
        """Return the slowest daemon's epochs a second, and all daemons' stalls in seconds."""
        rates, stalls = [], []
        for reached in self.reached:
            inside = [item for item in reached if since_s <= item[0] <= until_s]
            if not inside:
                return 0.0, [until_s - since_s]
            rates.append((inside[-1][1] - inside[0][1]) / (until_s - since_s))
            times = [since_s, *(at_s for at_s, _ in inside), until_s]
            stalls += [b - a for a, b in itertools.pairwise(times) if b - a > STALL_S]
        return min(rates), stalls

    def check_roots(self):
        """All daemons had the same root at each epoch at which two of them were seen."""
        seen = 0
        for epoch in set().union(*self.roots):
            roots = {roots[epoch] for roots in self.roots if epoch in roots}
            assert len(roots) == 1, f"{len(roots)} roots at epoch {epoch}"
            seen += sum(epoch in roots for roots in self.roots) > 1
        assert seen > 3


class Scene:
    """Honest daemons, and hostile peers for as long as a test lasts."""

    def __init__(self, swarm, gang):
        self.swarm = swarm
        self.gang = gang
        statuses = swarm.statuses()
        self.run_id = statuses[0]["run_id"]
        self.elements = statuses[0]["parameters"]
        self.victims = {s["peer_id"]: s["addresses"] for s in statuses}

    def start(self, kind, **given):
        return self.gang.start(kind, self.run_id, self.victims, self.elements, **given)

    def metrics(self, name):
        """Return the sum of a counter over its labels and all daemons."""
        total = 0.0
        for status in self.swarm.statuses():
            text = urllib.request.urlopen(status["metrics_url"], timeout=5).read().decode()
            lines = [line for line in text.splitlines() if line.startswith(name)]
            total += sum(float(line.rsplit(" ", 1)[1]) for line in lines)
        return total

    def fault_found_with(self, peer_id):
        """Return what the daemons find fault with in a peer."""
        found = [status["peers_misbehaved"].get(peer_id) for status in self.swarm.statuses()]
        return [what for what in found if what is not None]

    def suffer(self, kind, window_s=WINDOW_S, counter=None, **given):
        """Let a hostile peer at the daemons; return what it did to them.

        For `window_s`, and on until `counter` has counted it and all daemons went on, or
        `LONGEST_WINDOW_S` are over.
        """
        watch = Watch(self.swarm.daemons)
        names = ("ctpeer_parts_refused_total", "ctpeer_peer_misbehaviour_total")
        counted = {name: self.metrics(name) for name in names}
        failed = sum(status["rounds"]["failed"] for status in self.swarm.statuses())
        before = self._window(watch, WINDOW_S / 3)
        mallory = self.start(kind, **given)
        try:
            during = self._window(
                watch,
                window_s,
                LONGEST_WINDOW_S,
                lambda: counter is None or self.metrics(counter) > counted[counter],
            )
        finally:
            self.gang.end(mallory)
        after = self._window(watch, WINDOW_S / 3)
        watch.stop()
        statuses = self.swarm.statuses()
        result = {
            "attack": kind.__name__,
            "before": before,
            "during": during,
            "after": after,
            "rounds": len(mallory.rounds),
            "led": mallory.led,
            "fault": sorted(set(self.fault_found_with(mallory.peer_id))),
            "counted": {name: self.metrics(name) - counted[name] for name in names},
            "failed": sum(s["rounds"]["failed"] for s in statuses) - failed,
            "heard": sorted({(n, str(e)[:60]) for n, e in mallory.heard})[:4],
            "trouble": sorted(set(mallory.trouble))[:4],
            "lost": [s["epochs_lost_in_branches"] for s in statuses],
            "why": [dict(s["rounds"]["failed_by_reason"]) for s in statuses],
            "last": [s["rounds"]["last_failure"] for s in statuses],
            "restarts": [s["restarts"] for s in statuses],
        }
        result["watch"] = watch
        return result

    def _window(self, watch, seconds, most_s=0.0, is_counted=lambda: True):
        """Look for so long, and on until all went on and it is counted, or for `most_s`."""
        since_s = time.monotonic()
        time.sleep(seconds)
        while True:
            now_s = time.monotonic()
            rate, stalls = watch.pace(since_s, now_s)
            if now_s - since_s >= most_s or (rate > 0 and is_counted()):
                stalls_s = [round(s, 1) for s in sorted(stalls)]
                return {"epochs_per_s": round(rate, 2), "stalls_s": stalls_s}
            time.sleep(0.5)


@pytest.fixture(scope="module")
def scene(make_lasting_swarm, tmp_path_factory):
    size = int(os.environ.get("SIZE", "2"))
    swarm = make_lasting_swarm(size, **DEADLINES)
    swarm.wait_for_epoch(5)
    gang = Gang(tmp_path_factory.mktemp("gang"))
    yield Scene(swarm, gang)
    gang.close()


COUNTED = {
    "ClaimsTheFarFuture": None,
    "TalksNonsense": "ctpeer_peer_misbehaviour_total",
    "SendsNaN": "ctpeer_parts_refused_total",
    "SendsTooLittle": "ctpeer_parts_refused_total",
    "WeighsTooMuch": "ctpeer_peer_misbehaviour_total",
    "WeighsLessThanNothing": "ctpeer_peer_misbehaviour_total",
    "BringsNoSlice": "ctpeer_peer_misbehaviour_total",
    "Equivocates": "ctpeer_peer_misbehaviour_total",
    "ReducesToNaN": "ctpeer_peer_misbehaviour_total",
    "ShowsForgedRows": None,
    "StuffsTheBallot": None,
}
"""What each run of the checks looks at, and by which counter it must show."""
OTHERS = [
    name
    for name, kind in vars(attacks).items()
    if isinstance(kind, type) and issubclass(kind, attacks.Mallory) and name not in COUNTED
]


def check_that_training_goes_on(result):
    result["watch"].check_roots()
    assert result["restarts"] == [0] * len(result["restarts"]), result
    assert result["during"]["epochs_per_s"] > 0, result
    assert result["after"]["epochs_per_s"] > 0, result


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", COUNTED)
def test_a_hostile_peer_is_refused_and_counted_and_the_others_go_on(scene, name):
    result = scene.suffer(getattr(attacks, name), counter=COUNTED[name])
    check_that_training_goes_on(result)
    if COUNTED[name] is not None:
        assert result["counted"][COUNTED[name]] > 0, result


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", OTHERS)
def test_whatever_else_a_hostile_peer_does_the_others_go_on(scene, name):
    check_that_training_goes_on(scene.suffer(getattr(attacks, name), LONGEST_WINDOW_S))
