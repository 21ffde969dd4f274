"""So many streams are open at once, so many of one peer, and so many have a turn."""

import asyncio
import contextlib
from collections import Counter

import pytest

from peer.errors import DeclinedError, StalledError, UnreachableError
from peer.swarm.admission import Admission

QUEUE_TIMEOUT_S = 4.0


@pytest.fixture
def refused():
    return Counter()


@pytest.fixture
def make(refused):
    """Return a bound of five streams, two of one peer; keyword arguments change it."""

    def admission(**changed):
        return Admission(refused, **({"streams": 5, "of_one_peer": 2} | changed))

    return admission


@pytest.fixture
def hold():
    """Hold a stream of each of some peers until the test ends."""
    with contextlib.ExitStack() as stack:

        def enter(admission, *peers):
            for peer in peers:
                stack.enter_context(admission.stream(peer))

        yield enter


def decline(admission, peer):
    with pytest.raises(DeclinedError, match="too many ask at once"), admission.stream(peer):
        pytest.fail("it was admitted")


async def take_turn(admission, for_s):
    """Have a turn for so long; return when it began."""
    async with admission.turn():
        began_s = asyncio.get_running_loop().time()
        await asyncio.sleep(for_s)
        return began_s


def test_one_stream_too_many_of_a_peer_is_declined_and_counted_and_others_are_not(
    make, hold, refused
):
    admission = make()
    hold(admission, "a", "a")
    decline(admission, "a")
    hold(admission, "b")
    assert refused == {"busy": 1}


def test_one_stream_too_many_of_all_is_declined_and_counted(make, hold, refused):
    admission = make()
    hold(admission, "a", "a", "b", "c", "d")
    decline(admission, "e")
    decline(admission, "b")
    assert refused == {"busy": 2}


@pytest.mark.parametrize("error", [None, UnreachableError, asyncio.CancelledError])
def test_a_stream_that_ends_makes_room(make, hold, refused, error):
    admission = make()
    hold(admission, "a")
    for _ in range(10):
        with contextlib.suppress(UnreachableError, asyncio.CancelledError), admission.stream("a"):
            if error is not None:
                raise error
    assert not refused


def test_a_stream_that_stalls_makes_room_and_is_counted(make, hold, refused):
    admission = make()
    for _ in range(3):
        with contextlib.suppress(StalledError), admission.stream("a"):
            raise StalledError("nothing moved")
    hold(admission, "a", "a")
    assert refused == {"slow": 3}


def test_one_that_was_declined_takes_no_room(make, hold):
    admission = make()
    with admission.stream("a"), admission.stream("a"):
        for _ in range(10):
            decline(admission, "a")
    hold(admission, "a", "a", "b", "b", "c")


def test_who_is_gone_is_forgotten(make):
    admission = make()
    for i in range(100):
        with admission.stream(f"stranger {i}"):
            assert len(admission._open) == 1
    assert not admission._open


def test_turns_come_in_order_to_so_many_at_once(sim, make, refused):
    async def go():
        admission = make(turns=2)
        return await asyncio.gather(*(take_turn(admission, 1.0) for _ in range(5)))

    assert sim.run(go()) == pytest.approx([0.0, 0.0, 1.0, 1.0, 2.0])
    assert not refused


def test_without_a_number_of_turns_all_that_are_open_have_theirs(sim, make):
    async def go():
        admission = make()
        return await asyncio.gather(*(take_turn(admission, 1.0) for _ in range(5)))

    assert sim.run(go()) == pytest.approx([0.0] * 5)


def test_a_turn_that_does_not_come_in_time_is_declined_and_counted(sim, make, refused):
    async def go():
        admission = make(turns=1)
        long = asyncio.create_task(take_turn(admission, QUEUE_TIMEOUT_S + 2.0))
        await asyncio.sleep(1.0)
        with pytest.raises(DeclinedError, match="ask again later"):
            await take_turn(admission, 1.0)
        assert asyncio.get_running_loop().time() == pytest.approx(1.0 + QUEUE_TIMEOUT_S)
        assert refused == {"busy": 1}
        await long
        assert await take_turn(admission, 1.0) == pytest.approx(QUEUE_TIMEOUT_S + 2.0)

    sim.run(go())


def test_whoever_leaves_while_it_waits_or_has_its_turn_takes_none_away(sim, make, refused):
    async def go():
        admission = make(turns=1)
        tasks = [asyncio.create_task(take_turn(admission, 1000.0)) for _ in range(3)]
        await asyncio.sleep(1.0)
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await take_turn(admission, 1.0) == pytest.approx(1.0)
        assert not refused

    sim.run(go())
