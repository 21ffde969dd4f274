"""Work beside other work: it ends with it, and what fails in it is not lost."""

import asyncio

import pytest

from peer.daemon.beside import beside


class Endless:
    """Work that goes on until it is cancelled."""

    def __init__(self):
        self.ended = False

    async def work(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def fail():
    await asyncio.sleep(0)
    raise KeyError("what it failed of")


def run(coroutine):
    async def bounded():
        async with asyncio.timeout(10):
            return await coroutine

    return asyncio.run(bounded())


def test_the_work_ends_with_the_body():
    endless = Endless()

    async def body():
        async with beside(endless.work()):
            await asyncio.sleep(0)
            return 7

    assert run(body()) == 7
    assert endless.ended


def test_what_fails_ends_the_body_and_the_other_work_and_is_raised():
    endless, reached = Endless(), []

    async def body():
        async with beside(endless.work(), fail()):
            try:
                await asyncio.Event().wait()
            finally:
                reached.append("the body's own end")

    with pytest.raises(KeyError, match="what it failed of"):
        run(body())
    assert endless.ended
    assert reached


def test_an_exception_of_the_body_is_its_own_and_ends_the_work():
    endless = Endless()

    async def body():
        async with beside(endless.work()):
            await asyncio.sleep(0)
            raise ValueError("the body's")

    with pytest.raises(ValueError, match="the body's"):
        run(body())
    assert endless.ended


def test_work_that_comes_to_its_end_leaves_the_body_alone():
    async def body():
        async with beside(asyncio.sleep(0)):
            await asyncio.sleep(0.01)
            return 7

    assert run(body()) == 7


def test_whoever_is_cancelled_takes_the_work_along():
    endless = Endless()

    async def body():
        async with beside(endless.work()):
            await asyncio.Event().wait()

    async def cancelled():
        task = asyncio.create_task(body())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancelled())
    assert endless.ended
