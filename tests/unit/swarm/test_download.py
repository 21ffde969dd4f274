"""A file is taken from strangers who are slow, break off or lie, and comes out right or not."""

import asyncio
import hashlib
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.errors import ConfigurationError, DeclinedError, MisbehavedError, UnreachableError
from peer.swarm.blobs import FRAME_BYTES, BlobServer
from peer.swarm.download import FetchError, Refusal, fetch_blob, has_hash
from peer.swarm.throttle import Throttle
from peer.swarm.wire import scoped

RUN = "tiny-" + "0" * 32
BLOB = scoped(RUN, "blob")
FAST = 1 << 30
DATA = random.Random(0).randbytes(3 * FRAME_BYTES + 1000)
SHA = hashlib.sha256(DATA).hexdigest()
FRAMES = 4
SIZE = len(DATA)
CAP = SIZE + FRAME_BYTES
FLIPS = [0, FRAME_BYTES - 1, FRAME_BYTES, 3 * FRAME_BYTES - 1, 3 * FRAME_BYTES, len(DATA) - 1]


def flipped(place):
    return DATA[:place] + bytes([DATA[place] ^ 1]) + DATA[place + 1 :]


class Scene:
    """A joiner, some donors, and what the joiner met."""

    def __init__(self, sim, folder):
        self.swarm = sim.MemorySwarm()
        self.joiner = self.swarm.transport("joiner")
        self.target = Path(folder) / "blobs" / SHA
        self.part = self.target.with_name(f"{SHA}.part")
        self.refusals = []
        self.seen = []
        self.on_disk = 0
        self.at_frame = {}  # how many frames have come -> what happens then

    async def donor(self, name, data=DATA):
        transport = self.swarm.transport(name)
        await BlobServer(transport, RUN, lambda _: data, ("", None), Throttle(FAST)).start()
        return transport

    async def hostile(self, name, handler):
        transport = self.swarm.transport(name)
        await transport.serve(BLOB, handler)

    async def fetch(self, *donors, cap=CAP, sha=SHA):
        def on_progress(done, size):
            self.seen.append((done, size))
            self.at_frame.get(len(self.seen), lambda: None)()
            self.on_disk = max(self.on_disk, self.part.stat().st_size)

        await fetch_blob(
            self.joiner, RUN, sha, cap, self.target, donors, on_progress, self.refusals.append
        )

    def kinds(self, donor):
        return [refusal.kind for refusal in self.refusals if refusal.donor == donor]


@pytest.fixture
def scene(sim, tmp_path):
    return Scene(sim, tmp_path)


def serving(frames, size=SIZE):
    """Return a handler that says `size` and sends `frames`, whatever is asked for."""

    async def handler(channel):
        await channel.receive()
        await channel.send({"size": size})
        for frame in frames:
            await channel.send({}, frame)

    return handler


def pieces(data, start=0):
    return [data[i : i + FRAME_BYTES] for i in range(start, len(data), FRAME_BYTES)]


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 << 18])
def test_a_file_of_any_size_arrives_whole(size, sim, scene):
    data = DATA[:size]

    async def go():
        await scene.donor("d", data)
        await scene.fetch("d", sha=hashlib.sha256(data).hexdigest())

    sim.run(go())
    assert scene.target.read_bytes() == data
    assert not scene.part.exists()
    assert scene.refusals == []
    assert all(total == size for _, total in scene.seen)
    assert [done for done, _ in scene.seen[-1:]] == [size] * bool(size)


@pytest.mark.parametrize("frames", range(1, FRAMES))
def test_a_transfer_cut_after_any_frame_goes_on_from_there(frames, sim, scene):
    async def go():
        donor = await scene.donor("d")
        scene.at_frame[frames] = lambda: scene.swarm.sever("joiner", "d")
        with pytest.raises(FetchError, match="there is no way to d"):
            await scene.fetch("d")
        assert scene.part.stat().st_size == frames * FRAME_BYTES
        assert not scene.target.exists()
        before = donor.traffic.sent_bytes
        scene.swarm.mend("joiner", "d")
        await scene.fetch("d")
        assert donor.traffic.sent_bytes - before < len(DATA) - frames * FRAME_BYTES + 1000

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert not scene.part.exists()


def test_a_cancelled_transfer_goes_on_later(sim, scene):
    async def go():
        donor = await scene.donor("d")
        task = asyncio.ensure_future(scene.fetch("d"))
        scene.at_frame[2] = task.cancel
        with pytest.raises(asyncio.CancelledError):
            await task
        before = donor.traffic.sent_bytes
        await scene.fetch("d")
        assert donor.traffic.sent_bytes - before < len(DATA) - FRAME_BYTES

    sim.run(go())
    assert scene.target.read_bytes() == DATA


@pytest.mark.parametrize(
    "kept", [1, FRAME_BYTES - 1, FRAME_BYTES + 1, len(DATA) - 1, len(DATA)], ids=str
)
def test_any_beginning_of_the_file_is_gone_on_from(kept, sim, scene):
    scene.part.parent.mkdir()
    scene.part.write_bytes(DATA[:kept])

    async def go():
        donor = await scene.donor("d")
        await scene.fetch("d")
        assert donor.traffic.sent_bytes < len(DATA) - kept + 1000

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.refusals == []


@pytest.mark.parametrize("frames", range(1, FRAMES))
def test_where_one_donor_dies_another_goes_on(frames, sim, scene):
    async def go():
        await scene.donor("dies")
        other = await scene.donor("other")
        scene.at_frame[frames] = lambda: scene.swarm.kill("dies")
        await scene.fetch("dies", "other")
        assert other.traffic.sent_bytes < len(DATA) - frames * FRAME_BYTES + 1000

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.kinds("dies") == ["unreachable"]


def test_what_is_here_already_is_not_asked_for(sim, scene):
    scene.target.parent.mkdir()
    scene.target.write_bytes(DATA)
    sim.run(scene.fetch("nobody"))
    assert scene.refusals == []


def test_a_damaged_file_is_fetched_anew(sim, scene):
    scene.target.parent.mkdir()
    scene.target.write_bytes(flipped(5))

    async def go():
        await scene.donor("d")
        await scene.fetch("d")

    sim.run(go())
    assert scene.target.read_bytes() == DATA


@pytest.mark.parametrize("place", FLIPS)
def test_a_liar_is_named_and_another_gives_the_whole(place, sim, scene):
    async def go():
        await scene.donor("liar", flipped(place))
        await scene.donor("honest")
        await scene.fetch("liar", "honest")

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.kinds("liar") == ["misbehaved"]
    assert scene.kinds("honest") == []


@pytest.mark.parametrize("place", FLIPS)
def test_from_liars_alone_nothing_comes(place, sim, scene):
    async def go():
        await scene.donor("liar", flipped(place))
        await scene.donor("other", DATA + b"!")
        with pytest.raises(FetchError, match=r"nobody gave .*liar sent bytes that are not what"):
            await scene.fetch("liar", "other")

    sim.run(go())
    assert not scene.target.exists()
    assert not scene.part.exists()
    assert scene.kinds("liar") == scene.kinds("other") == ["misbehaved"]


@pytest.mark.parametrize("place", [p for p in FLIPS if p < 2 * FRAME_BYTES])
def test_a_damaged_beginning_is_nobodys_lie(place, sim, scene):
    scene.part.parent.mkdir()
    scene.part.write_bytes(flipped(place)[: 2 * FRAME_BYTES])

    async def go():
        await scene.donor("d")
        await scene.fetch("d")

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.kinds("d") == ["conflicting"]


@pytest.mark.parametrize("size", [len(DATA) + 1, CAP, CAP + 1, 4 * CAP])
def test_a_beginning_that_is_too_long_is_thrown_away(size, sim, scene):
    scene.part.parent.mkdir()
    scene.part.write_bytes(bytes(size))

    async def go():
        await scene.donor("d")
        await scene.fetch("d")

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert set(scene.kinds("d")) == ({"conflicting"} if size <= CAP else set())


@pytest.mark.parametrize("first", ["liar", "honest"])
def test_a_lie_hidden_in_the_middle_does_not_stay(first, sim, scene):
    async def half_a_lie(channel):
        request = (await channel.receive()).header
        await channel.send({"size": len(DATA)})
        for piece in pieces(bytes(len(DATA)), request["offset"])[:2]:
            await channel.send({}, piece)

    async def go():
        await scene.hostile("liar", half_a_lie)
        await scene.donor("honest")
        scene.at_frame[1] = lambda: scene.swarm.sever("joiner", first)
        scene.at_frame[2] = lambda: scene.swarm.mend("joiner", first)
        await scene.fetch(first, *{"liar", "honest"} - {first})

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert "misbehaved" not in scene.kinds("honest")


@pytest.mark.parametrize("size", [CAP + 1, 4 * CAP])
def test_nothing_is_taken_of_a_file_larger_than_the_cap(size, sim, scene):
    async def go():
        await scene.hostile("liar", serving(pieces(bytes(size)), size))
        with pytest.raises(FetchError, match=rf"says that it has {size} bytes where {CAP} are the"):
            await scene.fetch("liar")

    sim.run(go())
    assert scene.seen == []
    assert scene.kinds("liar") == ["misbehaved"]


@pytest.mark.parametrize(
    "size", [CAP + 1, 1 << 50, 1 << 60, -1, 1.5, float(SIZE), True, None, str(SIZE), [1]]
)
def test_a_size_that_cannot_be_is_refused_at_once(size, sim, scene):
    async def go():
        await scene.hostile("liar", serving(pieces(DATA), size))
        await scene.donor("honest")
        await scene.fetch("liar", "honest")

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.kinds("liar") == ["misbehaved"]


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES, len(DATA) - 1, len(DATA) + 1, CAP])
@pytest.mark.parametrize("gives", [0, 1, 99])
def test_a_false_size_costs_one_attempt(size, gives, sim, scene):
    async def go():
        await scene.hostile("liar", serving(pieces(bytes(size))[:gives], size))
        await scene.donor("honest")
        await scene.fetch("liar", "honest")

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.kinds("liar")
    assert "misbehaved" not in scene.kinds("honest")
    assert scene.on_disk <= CAP


@pytest.mark.parametrize("size", [5, CAP])
def test_a_false_size_does_not_cost_what_is_here(size, sim, scene):
    def mend(_, to, __):
        if to == "liar":
            scene.swarm.mend("joiner", "honest")

    async def go():
        await scene.donor("honest")
        await scene.hostile("liar", serving(pieces(bytes(size)), size))
        scene.at_frame[2] = lambda: scene.swarm.sever("joiner", "honest")
        scene.swarm.on_open = mend
        await scene.fetch("honest", "liar")

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.kinds("liar") == ["conflicting"]
    assert len(scene.seen) == FRAMES


def test_a_false_size_does_not_cost_what_an_earlier_attempt_left(sim, scene):
    scene.part.parent.mkdir()
    scene.part.write_bytes(DATA[: 2 * FRAME_BYTES])

    async def go():
        await scene.hostile("liar", serving([], 5))
        await scene.donor("honest")
        await scene.fetch("liar", "honest")

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert len(scene.seen) == FRAMES - 2


def test_a_donor_that_breaks_off_after_every_frame_still_gives_all(sim, scene):
    async def one_frame(channel):
        offset = (await channel.receive()).header["offset"]
        await channel.send({"size": SIZE})
        await channel.send({}, pieces(DATA, offset)[0])

    async def go():
        await scene.hostile("shaky", one_frame)
        await scene.fetch("shaky")

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.kinds("shaky") == ["unreachable"] * (FRAMES - 1)


def test_the_stream_to_a_liar_is_closed(sim, scene):
    ended = asyncio.Event()

    async def handler(channel):
        await channel.receive()
        await channel.send({"size": -1})
        with pytest.raises(UnreachableError):
            await channel.receive()
        ended.set()

    async def go():
        await scene.hostile("liar", handler)
        with pytest.raises(FetchError):
            await scene.fetch("liar")
        async with asyncio.timeout(1):
            await ended.wait()

    sim.run(go())


async def endless(channel):
    await channel.receive()
    await channel.send({"size": len(DATA)})
    for _ in range(1000):
        await channel.send({}, bytes(FRAME_BYTES))


@pytest.mark.parametrize(
    "handler",
    [
        endless,
        serving([b""] * 9),
        serving([DATA[:1]] * 9),
        serving([DATA[: FRAME_BYTES - 1]]),
        serving([DATA[: FRAME_BYTES + 1]]),
        serving([DATA]),
        serving([*pieces(DATA)[:-1], bytes(FRAME_BYTES)]),
    ],
    ids=["endless", "empty", "drops", "short", "long", "all at once", "overhang"],
)
def test_a_stream_that_breaks_the_rules_is_left_for_good(handler, sim, scene):
    async def go():
        await scene.hostile("liar", handler)
        await scene.donor("honest")
        await scene.fetch("liar", "honest")

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.kinds("liar") == ["misbehaved"]
    assert scene.on_disk <= CAP


def test_bytes_that_are_no_frame_are_refused(sim, scene):
    async def junk(channel):
        await channel.receive()
        channel._writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)

    async def go():
        await scene.hostile("junk", junk)
        with pytest.raises(FetchError, match="where 0 are the most"):
            await scene.fetch("junk")

    sim.run(go())
    assert scene.kinds("junk") == ["misbehaved"]


def pausing(seconds):
    async def handler(channel):
        request = (await channel.receive()).header
        await channel.send({"size": len(DATA)})
        for piece in pieces(DATA, request["offset"]):
            await asyncio.sleep(seconds)
            await channel.send({}, piece)

    return handler


async def dripping(channel):
    await channel.receive()
    await channel.send({"size": len(DATA)})
    channel._writer.write(b"\0\0\0\2" + FRAME_BYTES.to_bytes(8, "big") + b"{}")
    for _ in range(600):
        channel._writer.write(b"x")
        await asyncio.sleep(1)


@pytest.mark.parametrize("handler", [pausing(6), pausing(1e6), dripping])
def test_a_slow_donor_is_left_for_a_quick_one(handler, sim, scene):
    async def go():
        await scene.hostile("slow", handler)
        await scene.donor("quick")
        await scene.fetch("slow", "quick")
        assert asyncio.get_running_loop().time() < 6

    sim.run(go())
    assert scene.target.read_bytes() == DATA
    assert scene.kinds("slow") == ["unreachable"]


def test_a_slow_donor_is_good_enough_where_there_is_no_other(sim, scene):
    async def go():
        await scene.hostile("slow", pausing(15))
        await scene.fetch("dead", "slow")

    sim.run(go())
    assert scene.target.read_bytes() == DATA


@pytest.mark.parametrize("handler", [pausing(25), dripping])
def test_a_donor_that_is_too_slow_is_given_up(handler, sim, scene):
    async def go():
        await scene.hostile("slow", handler)
        with pytest.raises(FetchError, match="slow sent nothing for 20 s"):
            await scene.fetch("slow")
        assert asyncio.get_running_loop().time() < 60

    sim.run(go())


def test_a_donor_that_never_answers_is_given_up(sim, scene):
    async def go():
        await scene.donor("frozen")
        scene.swarm.frozen.add("frozen")
        await scene.donor("honest")
        await scene.fetch("frozen", "honest")
        assert asyncio.get_running_loop().time() < 6

    sim.run(go())
    assert scene.target.read_bytes() == DATA


def test_a_donor_without_the_file_is_asked_again_only_when_nobody_has_it(sim, scene):
    async def go():
        await scene.donor("without", None)
        await scene.donor("honest")
        await scene.fetch("without", "honest")
        assert scene.kinds("without") == ["declined"]
        scene.target.unlink()
        with pytest.raises(FetchError, match="without: that is not here"):
            await scene.fetch("without")

    sim.run(go())


def test_nobody_to_ask_is_said(sim, scene):
    with pytest.raises(FetchError, match="there was nobody to ask"):
        sim.run(scene.fetch())


def test_the_message_stays_short_however_many_fail(sim, scene):
    with pytest.raises(FetchError, match="and 92 others") as caught:
        sim.run(scene.fetch(*(f"dead {i}" for i in range(100))))
    assert len(str(caught.value)) < 1000
    assert len({refusal.donor for refusal in caught.value.refusals}) == 100


def test_a_strangers_words_do_not_reach_the_terminal_raw(sim, scene):
    async def rude(channel):
        await channel.receive()
        await channel.send({"error": "\x1b[2J" + "x" * 10_000})

    async def go():
        await scene.hostile("rude", rude)
        with pytest.raises(FetchError, match=r"rude: \?\[2Jx") as caught:
            await scene.fetch("rude")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500

    sim.run(go())


def test_a_disk_that_cannot_be_written_is_no_donors_fault(sim, scene):
    scene.target.parent.write_text("a file in the way")

    async def go():
        await scene.donor("d")
        with pytest.raises(ConfigurationError, match=r"cannot be written: .*make room"):
            await scene.fetch("d")

    sim.run(go())
    assert scene.refusals == []


def test_a_hash_is_taken_of_what_is_there(sim, tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    assert sim.run(has_hash(tmp_path / "file", SHA))
    assert not sim.run(has_hash(tmp_path / "file", "0" * 64))
    assert not sim.run(has_hash(tmp_path / "missing", SHA))
    assert not sim.run(has_hash(tmp_path, SHA))


def test_refusals_are_told_apart():
    errors = (DeclinedError("x"), MisbehavedError("x"), UnreachableError("x"))
    kinds = [Refusal.of("d", error).kind for error in errors]
    assert kinds == ["declined", "misbehaved", "unreachable"]


faults = st.sampled_from(["honest", "flip", "break", "short", "long", "tiny", "slow", "without"])


def faulty(fault, at):
    """Return the handler of a donor with a fault, which `at` puts somewhere."""

    async def handler(channel):
        offset = (await channel.receive()).header["offset"]
        data = flipped(at) if fault == "flip" else DATA
        await channel.send({"size": {"short": at, "long": CAP}.get(fault, SIZE)})
        for number, piece in enumerate(pieces(data, offset)):
            if fault == "break" and number > at % FRAMES:
                return
            if fault == "slow":
                await asyncio.sleep(at % 30)
            await channel.send({}, piece[:1] if fault == "tiny" else piece)

    return handler


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(faults, st.integers(0, SIZE - 1)), max_size=5), st.integers(0, 5))
def test_one_honest_donor_is_enough_whatever_the_others_do(sim, others, place):
    async def go(folder):
        scene = Scene(sim, folder)
        donors = [f"{i} {fault}" for i, (fault, _) in enumerate(others)]
        for name, (fault, at) in zip(donors, others, strict=True):
            if fault in {"honest", "without"}:
                await scene.donor(name, DATA if fault == "honest" else None)
            else:
                await scene.hostile(name, faulty(fault, at))
        await scene.donor("good honest")
        donors.insert(min(place, len(donors)), "good honest")
        await scene.fetch(*donors)
        assert scene.target.read_bytes() == DATA
        assert scene.on_disk <= CAP
        accused = {r.donor.split()[1] for r in scene.refusals if r.kind == "misbehaved"}
        assert accused <= {"flip", "short", "long", "tiny"}

    with tempfile.TemporaryDirectory() as folder:
        sim.run(go(folder))
