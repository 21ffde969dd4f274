"""What hostile peers do: each class spoils one thing that `Mallory` does."""

import asyncio
import contextlib
import dataclasses
import hashlib
import os

import numpy as np
from mallory import Mallory, for_ever

from peer.training.certificate import (
    Base,
    Certificate,
    Entry,
    Vote,
    group_id,
    sign_part,
    sign_vote,
)
from peer.training.group import Group
from peer.training.reducer import square_sum

FAR_EPOCH = 10**9


# ---- reports


class ClaimsTheFarFuture(Mallory):
    """An epoch nobody reached, more weight than there is, always ready; nothing to show."""

    joins = False

    def report(self):
        return super().report() | {
            "epoch": FAR_EPOCH,
            "root": "f" * 64,
            "weight": 10**12,
            "rate": 1e12,
            "ready": True,
        }


class ClaimsMuch(Mallory):
    """Where the others are, with more weight than there is, always ready."""

    def report(self):
        return super().report() | {"weight": 10**12, "rate": 1e12, "ready": True}


class TalksNonsense(Mallory):
    """Reports that are none: both when it asks and when it is asked."""

    joins = False
    nonsense = (
        b'{"rate": NaN}',
        b'{"rate": Infinity}',
        b'{"rate": 1e400}',
        b'{"epoch": -1}',
        b'{"epoch": 1000000001}',
        b'{"epoch": "1"}',
        b'{"weight": 1e300}',
        b'{"root": "' + b"g" * 64 + b'"}',
        b'{"addresses": 1}',
        b'{"surprise": 1}',
        b"[" * 100_000,
        b"no json",
        b"\xff\xfe",
        b"[]",
        b"",
    )

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._said = 0

    async def say_state(self, stream):
        self._said += 1
        await stream.send_raw(self.nonsense[self._said % len(self.nonsense)])

    async def tell_state(self, victim):
        for words in self.nonsense:
            stream = await self.open(victim, "state")
            await stream.send_raw(words)
            stream.close()


class SendsAGibibyte(Mallory):
    """Frames of 1 GiB, announced and sent for as long as they are taken."""

    joins = False
    sent_bytes = 0

    async def _flood(self, stream):
        await stream.send_raw(b"{}", claim_bytes=1 << 30)
        with contextlib.suppress(OSError):
            for _ in range(1 << 14):
                stream.writer.write(bytes(1 << 16))
                await stream.writer.drain()
                self.sent_bytes += 1 << 16

    async def say_state(self, stream):
        await self._flood(stream)

    async def tell_state(self, victim):
        stream = await self.open(victim, "state")
        async with asyncio.timeout(2.0):
            await self._flood(stream)


class TricklesBytes(Mallory):
    """A hundred streams to each, a byte a second on each of them, and such answers."""

    joins = False

    async def tell_state(self, victim):
        if not hasattr(self, "begun"):
            self.begun = set()
        if victim not in self.begun:
            self.begun.add(victim)
            for name in ("state", "join", "part", "vote", "lineage"):
                for _ in range(20):
                    self.spawn(self._trickle(victim, name))
        await super().tell_state(victim)

    async def _trickle(self, victim, name):
        while True:
            with contextlib.suppress(Exception):
                stream = await self.open(victim, name)
                for byte in (b"\0" * 3 + b"\1") * 100:
                    stream.writer.write(bytes([byte]))
                    await stream.writer.drain()
                    await asyncio.sleep(1.0)
            await asyncio.sleep(0.5)

    async def say_state(self, stream):
        while True:
            stream.writer.write(b"\0")
            await stream.writer.drain()
            await asyncio.sleep(1.0)


class AnswersNoReport(Mallory):
    """Reports that it is there, and lets everybody wait who asks it."""

    joins = False

    async def say_state(self, stream):
        await for_ever()


class ComesAndGoes(AnswersNoReport):
    """Answers every other time that it is asked where it stands."""

    asked = 0

    async def say_state(self, stream):
        self.asked += 1
        if self.asked % 2:
            await stream.send(self.report())
        else:
            await for_ever()


class AnswersLate(Mallory):
    """As late as is just allowed."""

    async def say_state(self, stream):
        await asyncio.sleep(self.late_s)
        await super().say_state(stream)

    late_s = 1.8


class FloodsReports(Mallory):
    """As many reports as it can bring, each of them ready."""

    joins = False

    async def open_up(self):
        await super().open_up()
        for victim in self.victims:
            for _ in range(8):
                self.spawn(self._flood(victim))

    async def _flood(self, victim):
        while True:
            with contextlib.suppress(Exception):
                await self.ask(victim, "state", self.report() | {"ready": True})


# ---- as a member


class SendsNaN(Mallory):
    async def bring(self, stream, group, data):
        await super().bring(stream, group, np.full(len(data) // 4, np.nan, "<f4").tobytes())


class SendsHugeNumbers(Mallory):
    async def bring(self, stream, group, data):
        await super().bring(stream, group, np.full(len(data) // 4, 3e38, "<f4").tobytes())


class SendsTooLittle(Mallory):
    async def bring(self, stream, group, data):
        await super().bring(stream, group, data[:-4])


class SendsTooMuch(Mallory):
    """The right size announced, more sent, in one frame."""

    async def bring(self, stream, group, data):
        await stream.send({"group": group.group_id, "bytes": len(data)})
        await stream.send({}, data + b"more")


class SendsEmptyFrames(Mallory):
    async def bring(self, stream, group, data):
        await stream.send({"group": group.group_id, "bytes": len(data)})
        while True:
            await stream.send({}, b"")


class BringsNoSlice(Mallory):
    """Joins, and opens no stream."""

    async def bring(self, stream, group, data):
        await for_ever()

    async def open(self, peer, name):
        if name == "part":
            await for_ever()
        return await super().open(peer, name)


class BringsHalfASlice(Mallory):
    """Opens the stream, says what will come, and sends a part of it."""

    async def bring(self, stream, group, data):
        await stream.send({"group": group.group_id, "bytes": len(data)})
        await stream.send({}, data[: len(data) // 2])
        await for_ever()


class WeighsTooMuch(Mallory):
    weight = 10**30


class WeighsLessThanNothing(Mallory):
    weight = -5


class BringsAnothersWord(Mallory):
    """Joins with a word that another peer signed for another round."""

    async def join(self, leader, base):
        other = next(v for v in self.victims if v != leader)
        for group in self.rounds[-1:]:
            stolen = group.members[other]
            await self.ask(leader, "join", {"ready": stolen.to_json(), "unreachable": []})
        return await super().join(leader, base)


class NeverComes(Mallory):
    """Says that it is there and ready, and comes to no round."""

    def report(self):
        return super().report() | {"ready": True}

    async def join(self, leader, base):
        await for_ever()


class Slanders(Mallory):
    """Says in each round that it cannot reach the first of its victims."""

    def slander(self):
        return [min(self.victims)]


# ---- as a reducer


class ReducesToJunk(Mallory):
    """Other bytes than it signed."""

    async def send_part(self, stream, digest, data):
        await super().send_part(stream, digest, b"\1" * len(data))


class SignsAnotherNorm(Mallory):
    def signed(self, group, mean):
        data = mean.astype("<f4").tobytes()
        return sign_part(self.identity, group.group_id, data, len(mean), 7.0), data


class ReducesToNaN(Mallory):
    def signed(self, group, mean):
        data = np.full(len(mean), np.nan, "<f4").tobytes()
        return sign_part(self.identity, group.group_id, data, len(mean), 7.0), data


class Equivocates(Mallory):
    """Another average for each member, properly signed, and the vote that fits it."""

    def _version(self, group, mean, member):
        shift = np.float32(1e-3 * (1 + sorted(group.members).index(member)))
        return self.signed(group, mean + shift)

    async def hand_out(self, stream, group, mean):
        await self.send_part(stream, *self._version(group, mean, stream.remote))

    def ballot(self, group, digests, member):
        reduction = self._reductions[group.group_id]
        mine, _ = self._version(group, reduction.mean.result(), member)
        fitting = [mine if d.reducer == self.peer_id else d for d in digests]
        return super().ballot(group, fitting, member)


class ReducesForEver(Mallory):
    """Signs of life, and never an average."""

    async def hand_out(self, stream, group, mean):
        await stream.beat()


class ReducesToOneOnly(Mallory):
    """Gives its part to the first member, and keeps the others waiting."""

    async def hand_out(self, stream, group, mean):
        if stream.remote == min(set(group.members) - {self.peer_id}):
            await super().hand_out(stream, group, mean)
        else:
            await stream.beat()


class SaysNothingAsReducer(Mallory):
    async def hand_out(self, stream, group, mean):
        await for_ever()

    async def serve_part(self, stream):
        await for_ever()


class BreaksOff(Mallory):
    """Takes slices, and closes the stream."""

    async def hand_out(self, stream, group, mean):
        stream.writer.transport.abort()


class Declines(Mallory):
    """Says that something went wrong, whoever asks for its part."""

    async def hand_out(self, stream, group, mean):
        await stream.send({"error": "the round failed before your part was reduced"})


class DeniesTheGroup(Mallory):
    async def serve_part(self, stream):
        await stream.receive()
        await stream.send({"error": "we are in no such group"})


# ---- as a voter


class VotesForJunk(Mallory):
    def ballot(self, group, digests, member):
        ballot = super().ballot(group, digests, member)
        return ballot | {"vote_id": "0" * 64}


class SignsJunk(Mallory):
    def ballot(self, group, digests, member):
        ballot = super().ballot(group, digests, member)
        return ballot | {"signature": ballot["signature"] | {"signature": "AAAA"}}


class VotesForNobody(Mallory):
    async def vote(self, group, digests):
        await for_ever()


class StuffsTheBallot(Mallory):
    """Votes for groups that there are not, as fast as it can."""

    async def open_up(self):
        await super().open_up()
        for victim in self.victims:
            for _ in range(4):
                self.spawn(self._stuff(victim))

    async def _stuff(self, victim):
        base = Base(self.run_id, 0, 0, "0" * 64)
        while True:
            entries = (Entry(self.peer_id, os.urandom(32).hex(), 1, 0),)
            data = bytes(4)
            part = sign_part(self.identity, group_id(base, entries), data, 1, 0.0)
            vote = Vote(base, entries, (part,))
            body = {
                "group": vote.group_id,
                "vote_id": vote.vote_id,
                "parts": [dataclasses.asdict(part)],
                "signature": dataclasses.asdict(sign_vote(self.identity, vote)),
            }
            with contextlib.suppress(Exception):
                await self.ask(victim, "vote", body)


# ---- as a leader


class LeadsForEver(Mallory):
    """Lets everybody in, gives signs of life, and never closes the group."""

    async def let_in(self, stream, gathering):
        await stream.beat()

    async def _close_soon(self, base, gathering):
        return


class LeadsApart(Mallory):
    """Proposes another group to each member: itself and that member."""

    def propose(self, member, gathering):
        return [gathering.words[self.peer_id], gathering.words[member]]

    async def round(self, group):
        for member in set(group.members) - {self.peer_id}:
            words = [group.members[self.peer_id], group.members[member]]
            pair = Group.close(group.base, words)
            self.spawn(super().round(pair))


class NamesAnother(Mallory):
    """Names a leader that there is not, whoever asks."""

    async def serve_join(self, stream):
        await stream.receive()
        await stream.send({"ask": "Qm" + "1" * 44})


class ProposesStrangers(Mallory):
    """Proposes a group with a forged word in it."""

    def propose(self, member, gathering):
        words = list(gathering.words.values())
        forged = dataclasses.replace(words[0], contribution_id="0" * 64)
        return [*words[1:], forged]


# ---- for whoever asks


class AnswersNever(Mallory):
    """Signs of life, for ever, to whoever asks for a certificate or to be let in."""

    async def serve_certificate(self, stream):
        await stream.beat()

    serve_join = serve_lineage = serve_row = serve_average = serve_certificate


class IsAheadAndAnswersNever(AnswersNever):
    """The same from a peer that claims to have what everybody wants."""

    joins = False
    ahead = 1

    def report(self):
        theirs = super().report()
        return theirs | {"epoch": theirs["epoch"] + self.ahead, "root": None}


class IsFarAheadAndAnswersNever(IsAheadAndAnswersNever):
    ahead = 1000


class HangsWhoeverAsks(IsAheadAndAnswersNever):
    """Claims to be ahead, and says nothing at all to whoever asks."""

    async def serve_certificate(self, stream):
        await for_ever()

    serve_join = serve_lineage = serve_row = serve_average = serve_certificate


class LiesAboutItsRoot(Mallory):
    """Another root than everybody's, so that all look whether it is on another row."""

    joins = False
    asked = 0

    def report(self):
        theirs = super().report()
        return theirs | {"root": hashlib.sha256(os.urandom(8)).hexdigest()}

    async def serve_lineage(self, stream):
        self.asked += 1
        await for_ever()


class ShowsForgedRows(Mallory):
    """Claims to be far ahead, with a row of certificates that it signed with its own key."""

    joins = False
    length = 600
    offered = None

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked = 0
        self._row = None

    def report(self):
        theirs = super().report()
        return theirs | {"epoch": theirs["epoch"] + self.length, "root": "e" * 64}

    def row(self):
        """Return a row from the victims' present state on, signed alone."""
        if self._row is None:
            theirs = self.newest()
            roots = [theirs["root"]]
            roots += [hashlib.sha256(f"{i}".encode()).hexdigest() for i in range(self.length)]
            self._row = [
                self._certificate(theirs["epoch"] + i, root) for i, root in enumerate(roots)
            ]
        return self._row

    def _certificate(self, epoch, root):
        base = Base(self.run_id, 0, epoch, root)
        entries = (Entry(self.peer_id, os.urandom(32).hex(), 10**12, 0),)
        data = bytes(4 * self.elements)
        zeros = np.zeros(self.elements, np.float32)
        name = group_id(base, entries)
        part = sign_part(self.identity, name, data, self.elements, square_sum(zeros))
        vote = Vote(base, entries, (part,))
        return Certificate(vote, (sign_vote(self.identity, vote),))

    async def serve_lineage(self, stream):
        self.asked += 1
        await stream.receive()
        bases = [c.vote.base for c in self.row()]
        await stream.send({"lineage": [[base.epoch, base.state_root] for base in bases]})

    async def serve_row(self, stream):
        header, _ = await stream.receive()
        for certificate in self.row():
            if certificate.vote.base.epoch >= header["first"]:
                await self.show(stream, certificate)
        await stream.send({})

    async def show(self, stream, certificate):
        await stream.send({"certificate": certificate.to_json()})

    async def serve_snapshots(self, stream):
        await stream.receive()
        bases = [certificate.vote.base for certificate in self.row()[-60:]]
        await stream.send({"roots": {base.state_root: base.epoch for base in bases}})


class ShowsRowsSlowly(ShowsForgedRows):
    """A certificate whenever the other end is about to lose patience."""

    pause_s = 1.5

    async def show(self, stream, certificate):
        await asyncio.sleep(self.pause_s)
        await super().show(stream, certificate)


class ShowsCostlyRows(ShowsForgedRows):
    """Certificates with as many signatures as are allowed, each of them to be verified."""

    members = 256

    def _certificate(self, epoch, root):
        base = Base(self.run_id, 0, epoch, root)
        keys = [self.identity.peer_id, *(f"Qm{i:044d}" for i in range(self.members - 1))]
        entries = tuple(Entry(key, "0" * 64, 1, 0) for key in sorted(keys))
        zeros = np.zeros(1, np.float32)
        name = group_id(base, entries)
        part = sign_part(self.identity, name, bytes(4), 1, square_sum(zeros))
        vote = Vote(base, entries, (part,))
        signature = sign_vote(self.identity, vote)
        return Certificate(vote, (signature,) * self.members)


class PublishesDeadAddresses(Mallory):
    """Is in the DHT with addresses at which somebody listens and never says a word."""

    joins = False
