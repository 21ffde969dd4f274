"""What goes out stays below a rate, whoever takes from it."""

import asyncio

import pytest

from peer.swarm.throttle import Throttle


def seconds_for(sim, throttle, takers):
    """Return when each of `takers`, lists of sizes, was through."""

    async def take_all():
        loop = asyncio.get_running_loop()
        begun_s = loop.time()

        async def take(sizes):
            for size in sizes:
                await throttle.take(size)
            return loop.time() - begun_s

        return await asyncio.gather(*(take(sizes) for sizes in takers))

    return sim.run(take_all())


def test_one_taker_gets_the_rate(sim):
    (took_s,) = seconds_for(sim, Throttle(1000.0), [[100] * 100])
    assert took_s == pytest.approx(10.0, abs=0.3)


def test_several_takers_share_the_rate(sim):
    took_s = seconds_for(sim, Throttle(1000.0), [[100] * 50, [100] * 50])
    assert max(took_s) == pytest.approx(10.0, abs=0.3)
    assert max(took_s) - min(took_s) < 0.3


def test_more_than_a_second_s_worth_at_once_takes_its_time(sim):
    (took_s,) = seconds_for(sim, Throttle(1000.0), [[5000]])
    assert took_s == pytest.approx(5.0, abs=0.3)


def test_idle_time_is_worth_a_short_burst_only(sim):
    throttle = Throttle(1000.0)

    async def take():
        await throttle.take(1)
        await asyncio.sleep(100.0)
        begun_s = asyncio.get_running_loop().time()
        for _ in range(20):
            await throttle.take(100)
        return asyncio.get_running_loop().time() - begun_s

    assert sim.run(take()) == pytest.approx(1.75, abs=0.01)


def test_no_rate_holds_nobody_up(sim):
    assert seconds_for(sim, Throttle(None), [[10**12] * 10]) == [0.0]


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_a_rate_that_lets_nothing_out_is_refused(rate):
    with pytest.raises(ValueError, match="never lets anything out"):
        Throttle(rate)
