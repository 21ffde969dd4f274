"""Frames: what is sent arrives, and what is none is refused before it costs anything."""

import asyncio
import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import DeclinedError, MisbehavedError, UnreachableError
from peer.swarm.wire import MAX_HEADER_BYTES, Channel, Frame, Traffic, attend, call, scoped

RUN = "tiny-" + "0" * 32
NAME = scoped(RUN, "echo")


class Line:
    """Both ends of a stream: what is written can be read."""

    def __init__(self):
        self.reader = asyncio.StreamReader(limit=1 << 30)
        self.closed = False
        self.largest = 0

    def write(self, data):
        self.largest = max(self.largest, len(data))
        self.reader.feed_data(bytes(data))

    async def drain(self):
        await asyncio.sleep(0)

    def close(self):
        self.closed = True
        self.reader.feed_eof()

    async def readexactly(self, n):
        return await self.reader.readexactly(n)


class Broken:
    """An end that fails."""

    def __init__(self, error):
        self._error = error

    def write(self, data):
        raise self._error

    async def drain(self):
        raise self._error

    async def readexactly(self, n):
        raise self._error

    def close(self):
        pass


def channel(line):
    return Channel("remote", line, line, Traffic())


def raw(head, body=b"", body_bytes=None):
    """Return a frame of these bytes, which may claim another length of the body."""
    size = len(body) if body_bytes is None else body_bytes
    return struct.pack(">IQ", len(head), size) + head + body


def receive(data, max_body_bytes=0):
    """Return what a channel makes of `data`, which is all that comes."""

    async def go():
        line = Line()
        line.write(data)
        line.close()
        return await channel(line).receive(max_body_bytes)

    return asyncio.run(go())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
HEADERS = st.dictionaries(st.text(max_size=5), JSON, max_size=4).filter(lambda h: "error" not in h)


@given(HEADERS, st.binary(max_size=100))
def test_a_frame_arrives_as_it_was_sent(header, body):
    async def go():
        line = Line()
        await channel(line).send(header, body)
        return await channel(line).receive(len(body))

    assert asyncio.run(go()) == Frame(header, body)


def test_several_frames_arrive_in_order_and_are_counted():
    async def go():
        line, traffic = Line(), Traffic()
        ends = Channel("remote", line, line, traffic)
        for i in range(3):
            await ends.send({"n": i}, bytes(i))
        received = [await ends.receive(10) for _ in range(3)]
        return received, traffic

    received, traffic = asyncio.run(go())
    assert [(f.header["n"], len(f.body)) for f in received] == [(0, 0), (1, 1), (2, 2)]
    assert traffic.sent_bytes == traffic.received_bytes == 3 * (12 + len(b'{"n":0}')) + 3


@pytest.mark.parametrize("body", [bytearray(b"abc"), memoryview(b"abc"), b"abc"], ids=type)
def test_a_body_may_be_any_view_of_bytes(body):
    async def go():
        line = Line()
        await channel(line).send({}, body)
        return (await channel(line).receive(3)).body

    assert asyncio.run(go()) == b"abc"


def test_a_large_body_is_written_in_slices():
    async def go():
        line = Line()
        data = bytes(5 << 20)
        await channel(line).send({}, data)
        assert line.largest <= 1 << 20
        assert (await channel(line).receive(len(data))).body == data

    asyncio.run(go())


@pytest.mark.parametrize(
    "data",
    [
        raw(b"{}", body_bytes=1),
        raw(b"{}", body_bytes=2**63),
        struct.pack(">IQ", MAX_HEADER_BYTES + 1, 0),
        struct.pack(">IQ", 2**32 - 1, 0),
    ],
    ids=["a byte too much", "a huge body", "a header too large", "a huge header"],
)
def test_what_is_too_large_is_refused_before_it_is_read(data):
    with pytest.raises(MisbehavedError, match="are the most"):
        receive(data)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        b"[]",
        b"5",
        b"null",
        b'"x"',
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a": "\\ud800"}',
        b'{"a": ["x", {"b": "\\uDFFF"}]}',
        b'{"\\ud800": 1}',
        b'{"a": "\\ud83d x \\ude00"}',
    ],
    ids=lambda head: repr(head[:30]),
)
def test_a_header_that_is_no_json_object_of_text_is_refused(head):
    with pytest.raises(MisbehavedError):
        receive(raw(head))


def test_a_pair_of_surrogates_is_text():
    header = {"smile": "\U0001f600", "d8": "\\ud800 spelled out"}
    assert receive(raw(json.dumps(header).encode())).header == header


@given(st.binary(max_size=60))
def test_random_bytes_are_no_frame(data):
    with pytest.raises((MisbehavedError, UnreachableError)):
        receive(data, max_body_bytes=10)


@given(HEADERS, st.binary(min_size=1, max_size=20), st.data())
def test_a_frame_cut_short_is_a_stream_that_ended(header, body, data):
    whole = raw(json.dumps(header).encode(), body)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(UnreachableError, match="ended"):
        receive(whole[:cut], max_body_bytes=len(body))


def test_an_answer_that_declines_is_an_error_with_its_words_made_harmless():
    words = "no\x1b[31m\n" + "x" * 10_000
    with pytest.raises(DeclinedError) as caught:
        receive(raw(json.dumps({"error": words}).encode()))
    assert str(caught.value).startswith("no?[31m?xxx")
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("error", [ConnectionResetError("x"), OSError("x"), RuntimeError("closed")])
def test_a_broken_stream_cannot_be_written_to(error):
    async def go():
        await Channel("remote", Line(), Broken(error), Traffic()).send({})

    with pytest.raises(UnreachableError, match="to remote broke"):
        asyncio.run(go())


def test_a_broken_stream_cannot_be_read():
    async def go():
        await Channel("remote", Broken(ConnectionResetError("x")), Line(), Traffic()).receive()

    with pytest.raises(UnreachableError, match="ended"):
        asyncio.run(go())


def test_a_stream_that_takes_nothing_is_given_up(sim):
    class Full(Line):
        async def drain(self):
            await asyncio.sleep(1e6)

    async def go():
        with pytest.raises(UnreachableError):
            await channel(Full()).send({})
        return asyncio.get_running_loop().time()

    assert sim.run(go()) <= 31.0


# ---- calls and handlers


def served(sim, handler, *, timeout_s=4.0, header=None):
    """Let `a` call `handler` of `b`; return the answer, and what the handler raised."""

    async def go():
        swarm = sim.MemorySwarm()
        a, b = swarm.transport("a"), swarm.transport("b")
        await b.serve(NAME, handler)
        try:
            answer = await call(a, "b", NAME, header or {"x": 1}, timeout_s=timeout_s)
        except Exception as error:  # noqa: BLE001 it is what the test looks at
            answer = error
        await asyncio.sleep(1.0)
        return answer, b.failures

    return sim.run(go())


async def echo(channel):
    frame = await channel.receive()
    await channel.send({"you": channel.remote, **frame.header})


def test_a_call_returns_the_handlers_answer(sim):
    answer, failures = served(sim, echo)
    assert answer.header == {"you": "a", "x": 1}
    assert failures == []


def test_a_call_that_nobody_answers_ends_in_time(sim):
    async def sleep(channel):
        await asyncio.sleep(1e6)

    answer, _ = served(sim, sleep, timeout_s=3.0)
    assert isinstance(answer, UnreachableError)
    assert str(answer) == "b did not answer in 3 s"


def test_a_handler_that_ends_without_an_answer_ends_the_call(sim):
    async def nothing(channel):
        await channel.receive()

    answer, _ = served(sim, nothing)
    assert isinstance(answer, UnreachableError)


def test_a_handler_that_declines_is_an_answer_and_no_failure(sim):
    async def decline(channel):
        raise DeclinedError("not today")

    answer, failures = served(sim, decline)
    assert isinstance(answer, DeclinedError)
    assert str(answer) == "not today"
    assert failures == []


def test_a_handler_that_takes_too_long_says_so(sim):
    async def slow(channel):
        async with asyncio.timeout(1.0):
            await channel.receive()
            await channel.receive()

    answer, failures = served(sim, slow)
    assert str(answer) == "that took too long"
    assert failures == []


def test_misbehaviour_is_told_to_the_peer_and_raised(sim):
    async def refuse(channel):
        raise MisbehavedError("a vote without a name")

    answer, failures = served(sim, refuse)
    assert str(answer) == "a vote without a name"
    assert [type(error) for error in failures] == [MisbehavedError]


def test_a_peer_that_is_gone_before_it_is_told_is_no_error():
    async def decline(_channel):
        raise DeclinedError("not today")

    async def go():
        line = Broken(ConnectionResetError("x"))
        await attend(Channel("remote", line, line, Traffic()), decline)

    asyncio.run(go())


@pytest.mark.parametrize("error", [None, ValueError("a bug"), DeclinedError("no")])
def test_whatever_a_handler_does_its_stream_is_closed(error):
    async def handler(_channel):
        if error is not None:
            raise error

    async def go():
        line = Line()
        with contextlib.suppress(ValueError):
            await attend(channel(line), handler)
        return line.closed

    assert asyncio.run(go())


def test_names_of_two_runs_or_handlers_differ():
    assert len({scoped("a", "x"), scoped("b", "x"), scoped("a", "y")}) == 3
