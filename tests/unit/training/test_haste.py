"""How fast a line must be for the deadlines of others, held against the transfers themselves."""

import asyncio

import pytest

from peer.errors import StalledError
from peer.swarm.throttle import OVERHEAD, Line, Throttle
from peer.swarm.wire import Channel, Traffic
from peer.training.haste import (
    Places,
    complaint,
    needed_bytes_per_s,
    serving_bytes_per_s,
    serving_complaint,
)
from peer.training.muster import Limits
from peer.training.transfer import SLOWEST_BYTES_PER_S, receive_body, send_body

LIMITS = Limits(max_weight=10, target=10)
TIMEOUT_S = LIMITS.frame_timeout_s


def needed(elements, codec_name, members, reducers=None, *, reduces=True):
    places = Places(members, reducers or members, reduces)
    return needed_bytes_per_s(LIMITS, elements, codec_name, places)


def test_a_small_model_needs_next_to_nothing():
    up, down = needed(50_000, "none", 2)
    assert up < 0.02e6
    assert down <= up


@pytest.mark.parametrize("members", [2, 8])
def test_a_large_model_needs_twice_the_slowest_line_at_most(members):
    up, down = needed(10**9, "none", members)
    assert up < 2 * SLOWEST_BYTES_PER_S
    assert down <= up


def test_a_large_group_needs_a_frame_for_everybody_within_its_deadline():
    up, down = needed(10**9, "none", 64)
    assert up == down == pytest.approx(63 * (256 << 10) / TIMEOUT_S)


def test_a_larger_group_and_a_larger_codec_need_more():
    at = [needed(10**7, "none", n)[0] for n in (2, 4, 8)]
    assert at == sorted(at)
    assert needed(10**6, "int8", 2)[0] < needed(10**6, "none", 2)[0]


def test_a_client_reduces_nothing_and_needs_less_than_the_reducers_beside_it():
    client, reducer = (needed(10**7, "none", 4, 2, reduces=r)[0] for r in (False, True))
    assert client < needed(10**7, "none", 4)[0] < reducer


class Pipe:
    """Both ends of a stream that takes no time."""

    def __init__(self):
        self.reader = asyncio.StreamReader(limit=1 << 30)

    def write(self, data):
        self.reader.feed_data(bytes(data))

    async def drain(self):
        await asyncio.sleep(0)

    async def readexactly(self, n):
        return await self.reader.readexactly(n)


def bring(sim, rate, size, streams):
    """Send a body to each of `streams` peers at once over a line of `rate`, as a round does."""

    async def go():
        line, data = Line(Throttle(rate), Throttle(None)), bytes(size)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(streams):
                pipe, target = Pipe(), memoryview(bytearray(size))
                ours, theirs = (Channel("peer", pipe, pipe, Traffic(), x) for x in (line, None))
                tasks.create_task(send_body(ours, data, TIMEOUT_S))
                tasks.create_task(receive_body(theirs, target, TIMEOUT_S, streams))

    sim.run(go())


@pytest.mark.parametrize(
    ("elements", "members"), [(250_000, 4), (1_250_000, 2), (1_250_000, 8), (1_250_000, 16)]
)
def test_slices_arrive_in_time_with_the_rate_that_is_needed_and_not_with_less(
    sim, elements, members
):
    rate = needed(elements, "none", members)[0]
    size, streams = 4 * elements // members, members - 1
    bring(sim, 1.02 * rate, size, streams)
    with pytest.raises(ExceptionGroup) as failed:
        bring(sim, 0.8 * rate, size, streams)
    assert failed.group_contains(StalledError)


def test_a_line_that_is_too_slow_is_said_to_be_with_what_to_do():
    words = complaint("upload", 0.1e6, 0.2e6, Places(4, 4))
    assert words.startswith("limits.upload_mb_per_s is too low for a group of 4")
    assert "needs 0.21 MB/s" in words  # as measured on the wire
    assert "--client" in words
    assert "--client" not in complaint("upload", 0.1e6, 0.2e6, Places(4, 3, reduces=False))


def test_a_line_that_is_fast_enough_or_not_bounded_is_no_complaint():
    assert complaint("upload", 0.2e6, 0.2e6, Places(4, 4)) is None
    assert complaint("upload", None, 1e9, Places(4, 4)) is None


def test_serving_a_large_average_takes_the_slowest_line_that_others_wait_for():
    assert 0.98 < serving_bytes_per_s(TIMEOUT_S, 10**8, "none") / SLOWEST_BYTES_PER_S < 1.0
    assert serving_bytes_per_s(TIMEOUT_S, 1000, "none") < 1000
    int8, none = (serving_bytes_per_s(TIMEOUT_S, 10**6, name) for name in ("int8", "none"))
    assert int8 < none


@pytest.mark.parametrize("elements", [10**4, 10**6, 10**8])
def test_a_limit_that_serves_nobody_is_said_to_with_one_that_does(elements):
    least = serving_bytes_per_s(TIMEOUT_S, elements, "none")
    line = Line.of(0.99 * 2 * least * OVERHEAD, None)
    setting, words = serving_complaint(line.up.bytes_per_s, line.given(32 << 20).bytes_per_s, least)
    assert setting == "limits.upload_mb_per_s"
    assert "is too low for this run: serving averages" in words
    told = float(words.split("at least ")[1].split(" MB/s")[0])
    line = Line.of(told * 1e6, None)
    assert serving_complaint(line.up.bytes_per_s, line.given(32 << 20).bytes_per_s, least) is None


def test_the_limit_on_what_others_fetch_is_named_where_it_is_the_lower_one():
    for up in (None, 1e6):
        line = Line.of(up, None)
        rates = line.up.bytes_per_s, line.given(65_536).bytes_per_s
        setting, words = serving_complaint(*rates, 120_000.5)
        assert setting == "swarm.upload_bytes_per_s"
        assert "an upload limit of 65,536 bytes/s" in words
        assert "at least 120,001 bytes/s" in words


def test_a_line_without_limits_serves_everybody():
    line = Line.of(None, None)
    rates = line.up.bytes_per_s, line.given(32 << 20).bytes_per_s
    assert serving_complaint(*rates, 125_000) is None
    assert serving_complaint(None, None, 125_000) is None
