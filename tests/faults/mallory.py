"""A hostile peer on plain hivemind: its own key, its own frames, and whatever it likes to say.

By itself `Mallory` does what the protocol asks of a member that trains on nothing: it stands where
the honest peers stand, joins and leads their rounds with a gradient of zeros, reduces its part and
votes. Each subclass in `attacks.py` spoils one thing.
"""

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import struct
import threading

import numpy as np
from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P, PeerID

from peer.identity import Identity
from peer.swarm.rpc import node_id_of
from peer.training.certificate import (
    Base,
    Signature,
    Vote,
    parse_part,
    sign_part,
    sign_vote,
)
from peer.training.group import Group, leaders, parse_ready, sign_ready
from peer.training.reducer import square_sum

PREFIX = struct.Struct(">IQ")
FRAME_BYTES = 256 << 10
BEAT_S = 1.0
SHADOW_S = 0.5
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


class Stream:
    """Frames to and from one peer: a JSON header and a body."""

    def __init__(self, remote, reader, writer):
        self.remote = remote
        self.reader = reader
        self.writer = writer

    async def send(self, header, body=b""):
        await self.send_raw(json.dumps(header).encode(), body)

    async def send_raw(self, head, body=b"", *, claim_bytes=None):
        """Send a frame with any bytes for a header, and any claim about the body's size."""
        size = len(body) if claim_bytes is None else claim_bytes
        self.writer.write(PREFIX.pack(len(head), size) + head + bytes(body))
        await self.writer.drain()

    async def receive(self):
        head_bytes, body_bytes = PREFIX.unpack(await self.reader.readexactly(PREFIX.size))
        header = json.loads(await self.reader.readexactly(head_bytes))
        return header, await self.reader.readexactly(body_bytes)

    async def beat(self, future=None):
        """Give signs of life until `future` is done; for ever without one."""
        while future is None or not (await asyncio.wait({future}, timeout=BEAT_S))[0]:
            await self.send({"wait": True})
            if future is None:
                await asyncio.sleep(BEAT_S)

    def close(self):
        self.writer.close()


async def for_ever():
    await asyncio.Event().wait()


@dataclasses.dataclass
class Gathering:
    """A group that Mallory leads."""

    words: dict = dataclasses.field(default_factory=dict)
    full: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class Reduction:
    """A part that Mallory reduces."""

    def __init__(self, group, elements):
        self.group = group
        self.elements = elements
        self.slices = {}
        self.mean = asyncio.get_running_loop().create_future()

    def take(self, peer, values):
        self.slices[peer] = values
        if set(self.slices) == set(self.group.members) and not self.mean.done():
            weights = [self.group.weights[p] for p in sorted(self.slices)]
            slices = [self.slices[p] for p in sorted(self.slices)]
            mean = np.average(slices, axis=0, weights=weights).astype(np.float32)
            self.mean.set_result(mean)


class Mallory:
    """A member of the run, whose every word can be changed. Use `Gang.start`.

    Attributes:
        victims: The honest peers' ids.
        rounds: Groups that it was in.
        led: Groups that it led.
        heard: Frames that were answered with an error, with the name of the handler.
        trouble: What its own tasks raised, for debugging.
    """

    weight = 2000
    joins = True

    def __init__(self, p2p, identity, run_id, victims, elements):
        self.p2p = p2p
        self.identity = identity
        self.run_id = run_id
        self.victims = victims
        self.elements = elements
        self.reports = {}
        self.rounds = []
        self.led = 0
        self.heard = []
        self.trouble = []
        self._moved = asyncio.Event()
        self._begun = asyncio.Event()
        self._tasks = set()
        self._gatherings = {}
        self._reductions = {}
        self._votes = {}

    @property
    def peer_id(self):
        return self.identity.peer_id

    async def open_up(self):
        """Serve whoever asks, and follow the honest peers wherever they go."""
        for name in (
            *("state", "join", "part", "vote", "certificate", "average"),
            *("lineage", "row", "snapshots", "header", "chunk", "manifest", "blob"),
        ):
            handler = getattr(self, f"serve_{name}")
            serve = functools.partial(self._attend, handler)
            await self.p2p.add_binary_stream_handler(self.full_name(name), serve)
        self.spawn(self._shadow())
        self.spawn(self._take_part())

    def full_name(self, name):
        return f"/ctpeer/1/{self.run_id}/{name}"

    async def open(self, peer, name):
        _, reader, writer = await self.p2p.call_binary_stream_handler(
            PeerID.from_base58(peer), self.full_name(name)
        )
        return Stream(peer, reader, writer)

    async def ask(self, peer, name, header, timeout_s=4.0):
        """Return the first frame of the answer."""
        async with asyncio.timeout(timeout_s):
            stream = await self.open(peer, name)
            try:
                await stream.send(header)
                answer = await stream.receive()
            finally:
                stream.close()
        if "error" in answer[0]:
            self.heard.append((name, answer[0]["error"]))
        return answer

    def spawn(self, work):
        async def guarded():
            try:
                await work
            except Exception as error:  # noqa: BLE001 kept to be looked at
                self.trouble.append(repr(error))

        task = asyncio.ensure_future(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def end(self):
        for task in self._tasks:
            task.cancel()

    async def _attend(self, handler, info, reader, writer):
        stream = Stream(info.peer_id.to_base58(), reader, writer)
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await handler(stream)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3.0):
                    while await reader.read(1 << 18):
                        pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Exception as error:  # noqa: BLE001 kept to be looked at
            self.trouble.append(repr(error))
        finally:
            self._tasks.discard(task)
            stream.close()

    # ---- where it says it stands

    def report(self):
        """Return what it says of itself: by default what the furthest victim says."""
        theirs = self.newest() or {"generation": 0, "epoch": 0, "root": None}
        kept = {name: theirs[name] for name in ("generation", "epoch", "root")}
        return kept | {"protocol": 1, "version": "6.6.6", "weight": 1, "rate": 1.0}

    def newest(self):
        return max(self.reports.values(), key=lambda r: (r["epoch"], bool(r["root"])), default=None)

    async def serve_state(self, stream):
        header, _ = await stream.receive()
        self._note(stream.remote, header)
        await self.say_state(stream)

    async def say_state(self, stream):
        await stream.send(self.report())

    async def _shadow(self):
        """Tell the victims where it stands, and learn where they do."""
        while True:
            for victim in self.victims:
                with contextlib.suppress(Exception):
                    await self.tell_state(victim)
            await asyncio.sleep(SHADOW_S)

    async def tell_state(self, victim):
        header, _ = await self.ask(victim, "state", self.report())
        self._note(victim, header)

    def _note(self, peer, report):
        if peer in self.victims and "epoch" in report:
            self.reports[peer] = report
            self._moved.set()

    # ---- in rounds

    async def _take_part(self):
        """Join each round that a victim is ready for, once."""
        tried = None
        while True:
            await self._moved.wait()
            self._moved.clear()
            newest = self.newest()
            place = newest["generation"], newest["epoch"], newest["root"]
            if not self.joins or not newest["ready"] or newest["root"] is None or place == tried:
                continue
            tried = place
            self.spawn(self.attempt(Base(self.run_id, *place)))

    def word(self, base):
        name = os.urandom(32).hex()
        return sign_ready(self.identity, base, name, self.weight, attempt=0, reduces=True)

    async def attempt(self, base):
        order = leaders(base, {self.peer_id, *self.victims}, {})
        leader = order[0]
        for _ in range(3):
            if leader == self.peer_id:
                return  # they come by themselves
            answer = await self.join(leader, base)
            if not isinstance(answer, str):
                return
            leader = answer

    async def join(self, leader, base):
        """Take part in a group that `leader` leads; return whom it names instead, if it does."""
        stream = await self.open(leader, "join")
        try:
            await stream.send({"ready": self.word(base).to_json(), "unreachable": self.slander()})
            while True:
                header, _ = await stream.receive()
                if "group" in header:
                    words = [parse_ready(item, 10**12) for item in header["group"]]
                    self.spawn(self.round(Group.close(base, words)))
                    return None
                if "ask" in header:
                    return header["ask"]
                if "wait" not in header:
                    self.heard.append(("join", header.get("error")))
                    return None
        finally:
            stream.close()

    def slander(self):
        return []

    async def serve_join(self, stream):
        header, _ = await stream.receive()
        word = parse_ready(header["ready"], 10**12)
        if not self.joins:
            await stream.send({"elsewhere": True})
            return
        gathering = self._gatherings.setdefault(word.base, Gathering())
        if not gathering.words:
            gathering.words[self.peer_id] = self.word(word.base)
            self.spawn(self._close_soon(word.base, gathering))
        gathering.words[word.peer_id] = word
        if set(gathering.words) >= set(self.victims):
            gathering.full.set()
        await self.let_in(stream, gathering)

    async def let_in(self, stream, gathering):
        await stream.beat(asyncio.ensure_future(gathering.full.wait()))
        words = self.propose(stream.remote, gathering)
        await stream.send({"group": [word.to_json() for word in words]})

    def propose(self, member, gathering):
        return gathering.words.values()

    async def _close_soon(self, base, gathering):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3.0):
                await gathering.full.wait()
        gathering.full.set()
        self.led += 1
        await self.round(Group.close(base, gathering.words.values()))

    async def round(self, group):
        """Bring slices, take the averages, vote."""
        self.rounds.append(group)
        parts = group.parts(self.elements)
        mine = next((place for peer, place in parts if peer == self.peer_id), None)
        if mine is not None:
            reduction = Reduction(group, mine.stop - mine.start)
            self._reductions[group.group_id] = reduction
            self._begun.set()
            reduction.take(self.peer_id, self.values(mine))
        averages = await asyncio.gather(
            *(self.average_of(group, reducer, place) for reducer, place in parts)
        )
        await self.vote(group, averages)

    def values(self, place):
        return np.zeros(place.stop - place.start, np.float32)

    async def average_of(self, group, reducer, place):
        if reducer == self.peer_id:
            mean = await self._reductions[group.group_id].mean
            return self.signed(group, mean)[0]
        stream = await self.open(reducer, "part")
        try:
            await self.bring(stream, group, self.values(place).tobytes())
            while "digest" not in (header := (await stream.receive())[0]):
                if "error" in header:
                    self.heard.append(("part", header["error"]))
                    raise ConnectionError(header["error"])
            return parse_part(header["digest"])
        finally:
            stream.close()

    async def bring(self, stream, group, data):
        await stream.send({"group": group.group_id, "bytes": len(data)})
        for start in range(0, len(data), FRAME_BYTES):
            await stream.send({}, data[start : start + FRAME_BYTES])

    def signed(self, group, mean):
        data = mean.astype("<f4").tobytes()
        name = group.group_id
        return sign_part(self.identity, name, data, len(mean), square_sum(mean)), data

    async def serve_part(self, stream):
        header, _ = await stream.receive()
        reduction = await self._reduction(header["group"])
        data = b""
        while len(data) < header["bytes"]:
            data += (await stream.receive())[1]
        reduction.take(stream.remote, np.frombuffer(data, "<f4"))
        await stream.beat(reduction.mean)
        await self.hand_out(stream, reduction.group, reduction.mean.result())

    async def _reduction(self, group_id):
        """Wait for a group that its member knew before us."""
        async with asyncio.timeout(4.0):
            while group_id not in self._reductions:
                self._begun.clear()
                await self._begun.wait()
        return self._reductions[group_id]

    async def hand_out(self, stream, group, mean):
        """Give one member the average of our part."""
        digest, data = self.signed(group, mean)
        await self.send_part(stream, digest, data)

    async def send_part(self, stream, digest, data):
        await stream.send({"digest": dataclasses.asdict(digest)})
        for start in range(0, len(data), FRAME_BYTES):
            await stream.send({}, data[start : start + FRAME_BYTES])

    async def vote(self, group, digests):
        self._votes[group.group_id] = {
            member: self.ballot(group, digests, member) for member in group.members
        }
        others = [member for member in group.members if member != self.peer_id]
        await asyncio.gather(*(self.bring_vote(member, group) for member in others))

    def ballot(self, group, digests, member):
        """Return the vote that `member` gets to see, as it travels."""
        vote = Vote(group.base, group.entries, tuple(digests))
        return self.ballot_of(group, vote, sign_vote(self.identity, vote))

    def ballot_of(self, group, vote, signature: Signature):
        return {
            "group": group.group_id,
            "vote_id": vote.vote_id,
            "parts": [dataclasses.asdict(part) for part in vote.parts],
            "signature": dataclasses.asdict(signature),
        }

    async def bring_vote(self, member, group):
        await self.ask(member, "vote", self._votes[group.group_id][member])

    async def serve_vote(self, stream):
        header, _ = await stream.receive()
        await stream.send(self._votes.get(header["group"], {}).get(stream.remote, {}))

    # ---- for whoever asks

    async def serve_certificate(self, stream):
        await stream.receive()
        await stream.send({"certificate": None})

    async def serve_average(self, stream):
        await stream.receive()
        await stream.send({"error": "that average is not kept here any more"})

    async def serve_lineage(self, stream):
        await stream.receive()
        await stream.send({"lineage": []})

    async def serve_row(self, stream):
        await stream.receive()
        await stream.send({})

    async def serve_snapshots(self, stream):
        await stream.receive()
        await stream.send({"roots": {}})

    async def serve_header(self, stream):
        await stream.receive()
        await stream.send({"error": "that state is not here"})

    serve_chunk = serve_manifest = serve_blob = serve_header


class Gang:
    """Mallories in an event loop on a thread of its own; `close` ends them and their p2pds."""

    def __init__(self, folder):
        self.folder = folder
        self.members = []
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mallory")
        self._thread.start()

    def _run(self):
        # What an attacker spends is spent on a machine of its own: here it must not slow the peers.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
        self._loop.run_forever()

    def do(self, coroutine, timeout_s=30.0):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def start(self, kind, run_id, victims, elements, **given):
        """Start a hostile peer.

        Args:
            kind: Its class.
            run_id: The run.
            victims: Addresses by peer id; it knows nobody else.
            elements: Numbers in a contribution.
            given: What its class takes beside that.
        """
        return self.do(self._start(kind, run_id, victims, elements, given))

    async def _start(self, kind, run_id, victims, elements, given):
        path = self.folder / f"mallory{next(self._numbers)}.key"
        identity = Identity.load_or_create(path)
        addresses = [address for where in victims.values() for address in where]
        p2p = await P2P.create(
            initial_peers=addresses,
            identity_path=str(path),
            host_maddrs=[LOOPBACK],
            nat_port_map=False,
            check_if_identity_free=False,
        )
        member = kind(p2p, identity, run_id, tuple(victims), elements, **given)
        self.members.append(member)
        await member.open_up()
        return member

    def node(self, member):
        """Return a node of the DHT on a member's p2pd: plain hivemind, no validators."""

        async def make():
            where = [str(a) for a in await member.p2p.get_visible_maddrs()]
            assert where
            peers = [PeerID.from_base58(victim) for victim in member.victims]
            node = await DHTNode.create(member.p2p, node_id_of(member.p2p.peer_id))
            for peer in peers:
                await node.protocol.call_ping(peer)
            return node

        return self.do(make())

    def addresses(self, member):
        """Return where a member listens."""

        async def ask():
            return [str(a) for a in await member.p2p.get_visible_maddrs()]

        return self.do(ask())

    def end(self, member):
        """End one of them."""
        self.members.remove(member)
        self.do(self._end(member))

    async def _end(self, member):
        member.end()
        await asyncio.sleep(0)
        child = member.p2p._child
        await member.p2p.shutdown()
        if child.returncode is None:
            child.kill()

    def close(self):
        try:
            for member in list(self.members):
                self.end(member)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
