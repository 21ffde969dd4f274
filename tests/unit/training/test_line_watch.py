"""A volunteer is told when the limits on the line are too low for the run."""

import types

import pytest

from peer.clock import FakeClock
from peer.events import LimitFelt
from peer.swarm.membership import Roster
from peer.swarm.throttle import Line
from peer.training.averages import AverageLog
from peer.training.averaging import Averager
from peer.training.line_watch import LineWatch
from peer.training.muster import Limits, Muster

RUN = "tiny-" + "0" * 32
ELEMENTS = 10**7
LIMIT = "limits.upload_mb_per_s"


@pytest.fixture
def muster(identities, sim):
    transport, limits = sim.MemorySwarm().transport("ours"), Limits(max_weight=32, target=16)
    return Muster(
        identities[0], transport, RUN, Roster("ours"), limits, FakeClock(), lambda _event: None
    )


@pytest.fixture
def watch(muster):
    """Return a watch on a line of some rates, and where its events go."""

    def make(up, down=None, given=32 << 20):
        events = []
        muster.line = Line.of(up, down)
        upload = muster.line.given(given)
        return LineWatch(muster, ELEMENTS, "none", upload, events.append), events

    return make


def group(muster, others):
    members = (muster.identity.peer_id, *(f"peer {i}" for i in range(others)))
    return types.SimpleNamespace(members=dict.fromkeys(members), reducers=members)


def test_a_peer_that_serves_nobody_says_so_when_it_starts(muster, sim, tmp_path):
    muster.line, events = Line.of(0.2e6, None), []
    averager = Averager(
        *(muster, AverageLog(tmp_path, 1 << 20), ELEMENTS, "none", events.append),
        upload=muster.line.given(32 << 20),
    )
    sim.run(averager.start())
    (felt,) = events
    assert felt.limit == LIMIT
    assert felt.words.startswith(f"an upload limit of 0.20 MB/s ({LIMIT}) is too low for this run")
    assert "serving averages to peers that missed a round needs at least 0.26 MB/s" in felt.words


@pytest.mark.parametrize("up", [None, 0.27e6])
def test_a_peer_that_serves_others_has_nothing_to_say(watch, up):
    line, events = watch(up)
    line.begin()
    assert events == []


def test_what_is_said_at_the_start_stays_when_rounds_become_possible_again(watch, muster):
    line, events = watch(0.2e6)
    line.begin()
    line.look(group(muster, 1))
    line.look(group(muster, 15))
    line.look(group(muster, 15))
    line.look(group(muster, 1))
    serving, both, again = events
    assert both.words.startswith(f"{serving.words}; {LIMIT} is too low for a group of 16")
    assert again == serving


def test_another_limit_has_words_of_its_own(watch, muster):
    line, events = watch(None, down=0.1e6, given=65_536)
    line.begin()
    line.look(group(muster, 7))
    assert [event.limit for event in events] == [
        "swarm.upload_bytes_per_s",
        "limits.download_mb_per_s",
    ]
    line.look(group(muster, 0))
    assert events[2:] == [LimitFelt(limit="limits.download_mb_per_s", words=None)]
