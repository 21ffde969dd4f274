"""What a hostile peer may do.

Each function spoils one simulated peer before it starts; a `Stranger` is nobody's peer and says
what it likes.
"""

import asyncio
import dataclasses
import math

import numpy as np

from peer.errors import DeclinedError
from peer.swarm.membership import Report
from peer.swarm.wire import call, scoped
from peer.training import codec
from peer.training.certificate import (
    Certificate,
    Entry,
    Vote,
    group_id,
    sign_part,
    sign_vote,
)
from peer.training.group import parse_ready
from peer.training.reducer import square_sum
from peer.training.round import average_alone

NOBODY = "QmZtmD2qt6fJot32nabSP3CUjicnypEBz7bHVDhPQt9aAy"
"""An id whose key nobody has."""


class Tampered:
    """A channel of which each sent frame becomes those that `change(header, body)` returns."""

    def __init__(self, channel, change):
        self._channel = channel
        self._change = change
        self.remote = channel.remote
        self.may_send, self.may_receive = channel.may_send, channel.may_receive

    async def send(self, header, body=b""):
        for changed in self._change(dict(header), bytes(body)):
            await self._channel.send(*changed)

    def receive(self, max_body_bytes=0):
        return self._channel.receive(max_body_bytes)

    def close(self):
        self._channel.close()


def tampering(handler, change_for):
    """Return `handler` on channels whose frames go through `change_for(remote)`."""
    return lambda channel: handler(Tampered(channel, change_for(channel.remote)))


async def for_ever(*_):
    while True:  # noqa: ASYNC110 it never comes
        await asyncio.sleep(3600.0)


# ---- as a member


def sends_nan(peer):
    exchange = peer.averager._exchange
    run = exchange.run
    exchange.run = lambda group, values: run(group, np.full_like(values, math.nan))


def sends_huge_numbers(peer):
    exchange = peer.averager._exchange
    run = exchange.run
    exchange.run = lambda group, values: run(group, np.full_like(values, 3e38))


def sends_too_little(peer):
    exchange = peer.averager._exchange
    trade = exchange._trade
    exchange._trade = lambda group, reducer, values, *more: trade(
        group, reducer, values[:-1], *more
    )


def weighs_too_much(peer):
    make = peer._contribution
    peer._contribution = lambda: dataclasses.replace(make(), weight=10**11)


def opens_no_stream(peer):
    peer.averager._exchange._trade = for_ever


def sends_no_slice(peer):
    """Open the stream and say what will come, but send nothing."""
    peer.averager._exchange._send_body = for_ever


def sends_a_byte_now_and_then(peer):
    """Keep every deadline of a frame with as little as possible."""

    async def send_body(channel, data):
        for byte in bytes(data):
            await channel.send({}, bytes([byte]))
            await asyncio.sleep(5.0)

    peer.averager._exchange._send_body = send_body


def denies_its_groups(peer):
    """Join, and know nothing of it afterwards."""

    async def serve(channel):
        await channel.receive()
        raise DeclinedError("we are in no such group")

    peer.averager._exchange._serve_part = serve


def follows_nobody(peer):
    """Say that it waits for a leader that does not exist, and join no group."""

    async def run(base, contribution):
        found = None
        while found is None:
            peer.muster.leader = NOBODY
            peer.muster.is_ready()
            await asyncio.sleep(0.2)
            found = await peer.averager.follow(base)
        return found

    peer.averager.run = run


def names_invented_fellows(peer):
    """Join with a list of peers that nobody else reaches, and lead nobody when it is let."""
    holds_and_declines(peer)
    matchmaking = peer.averager._matchmaking
    join = matchmaking._join

    async def changed(leader, ready, fellows, unreachable):
        invented = {f"{NOBODY[:-2]}{n:02d}" for n in range(11, 70) if n % 10}
        return await join(leader, ready, invented, unreachable)

    matchmaking._join = changed


def accuses(victim):
    """Return what makes a peer say, always, that it cannot reach `victim`."""

    def spoil(peer):
        matchmaking = peer.averager._matchmaking
        join, lead = matchmaking._join, matchmaking._lead
        matchmaking._join = lambda leader, ready, fellows, _: join(leader, ready, fellows, {victim})
        matchmaking._lead = lambda ready, _: lead(ready, {victim})

    return spoil


def refuses(victims):
    """Return what makes a peer hang up on `victims` when they ask where it stands."""

    def spoil(peer):
        serve = peer.muster._serve_state

        async def hang_up_or_serve(channel):
            if channel.remote in victims:
                channel.close()
            else:
                await serve(channel)

        peer.muster._serve_state = hang_up_or_serve

    return spoil


def is_never_ready(peer):
    """Say that it is ready, and join no group."""

    async def run(base, contribution):
        found = None
        while found is None:
            peer.muster.is_ready()
            await asyncio.sleep(1.0)
            found = await peer.averager.follow(base)
        return found

    peer.averager.run = run


class _JunkVotes:
    """An identity whose signature under votes is none."""

    def __init__(self, identity):
        self.public_key, self.peer_id = identity.public_key, identity.peer_id
        self._sign = identity.sign

    def sign(self, data):
        return b"junk" if data.startswith(b"ctpeer vote") else self._sign(data)


def signs_junk(peer):
    peer.muster.identity = _JunkVotes(peer.identity)


def signs_nothing(peer):
    peer.averager._ballot.collect = for_ever


def blames_a_reducer(peer):
    """Vote for a part that its reducer never signed."""
    collect = peer.averager._ballot.collect

    def changed(group, vote):
        parts = [
            dataclasses.replace(part, square_sum=part.square_sum + 1.0)
            if part.reducer != peer.peer_id
            else part
            for part in vote.parts
        ]
        return collect(group, dataclasses.replace(vote, parts=tuple(parts)))

    peer.averager._ballot.collect = changed


def votes_for_nothing(peer):
    """Vote under a name that no vote has."""

    def change_for(_):
        return lambda header, body: [(header | {"vote_id": "0" * 64}, body)]

    ballot = peer.averager._ballot
    ballot._serve_vote = tampering(ballot._serve_vote, change_for)
    ballot._tell = for_ever


# ---- as a reducer


def reduces_differently(peer):
    """Send each member another average, properly signed."""
    exchange = peer.averager._exchange

    def change_for(remote):
        return lambda header, body: change(remote, header, body)

    def change(remote, header, body):
        if "digest" in header:
            return []
        if not body:
            return [(header, body)]
        values = codec.decode(body, len(body) // 4, "none") + np.float32(
            len(remote) + ord(remote[9])
        )
        data = codec.encode(values, "none")
        group = next(reversed(exchange._reductions))
        digest = sign_part(peer.identity, group, data, len(values), square_sum(values))
        return [({"digest": dataclasses.asdict(digest)}, b""), ({}, data)]

    exchange._serve_part = tampering(exchange._serve_part, change_for)


def reduces_to_junk(peer):
    """Send other bytes than were signed."""
    exchange = peer.averager._exchange
    exchange._serve_part = tampering(
        exchange._serve_part, lambda _: lambda header, body: [(header, b"\1" * len(body))]
    )


def reduces_nothing(peer):
    """Give signs of life as a reducer, for ever."""
    peer.averager._exchange._reduce = for_ever


# ---- as a leader


def leads_apart(peer):
    """Propose another group to each member: itself and that member."""
    matchmaking = peer.averager._matchmaking

    def change_for(remote):
        def change(header, body):
            if "group" in header:
                owners = {peer.peer_id, remote}
                words = header["group"]
                header["group"] = [w for w in words if parse_ready(w, 10**12).peer_id in owners]
            return [(header, body)]

        return change

    matchmaking._serve_join = tampering(matchmaking._serve_join, change_for)


def leads_for_ever(peer):
    """Let everybody in and never close the group."""
    matchmaking = peer.averager._matchmaking

    async def lead(ready, unreachable):
        matchmaking._open(ready.base).add(ready, unreachable)
        await for_ever()

    matchmaking._lead = lead


def holds_and_declines(peer):
    """Lead, give signs of life for almost as long as one may, and let nobody in."""
    matchmaking = peer.averager._matchmaking

    async def lead(ready, unreachable):
        matchmaking._open(ready.base).add(ready, unreachable)
        await asyncio.sleep(39.0)
        raise DeclinedError("there is no group")

    matchmaking._lead = lead


def proposes_junk(peer):
    matchmaking = peer.averager._matchmaking

    def change(header, body):
        return [({"group": [{}]} if "group" in header else header, body)]

    matchmaking._serve_join = tampering(matchmaking._serve_join, lambda _: change)


# ---- as whoever is asked


def claims_the_far_future(peer):
    stand = peer.muster.stand
    peer.muster.stand = lambda generation, epoch, root: stand(generation, 10**9, root)


def answers_never(peer):
    """Give whoever asks for a certificate signs of life, for ever."""

    async def serve(channel):
        while True:
            await channel.send({"wait": True})
            await asyncio.sleep(1.0)

    peer.averager._follow._serve_certificate = serve


def claims_and_answers_never(peer):
    claims_the_far_future(peer)
    answers_never(peer)


def goes_alone(peer, values=1e6, weight=10**12):
    """Certify nonsense alone, at once, and claim to be ahead with it."""
    averager = peer.averager
    make = peer._contribution

    def contribution():
        made = make()
        return dataclasses.replace(made, values=np.full_like(made.values, values), weight=weight)

    async def run(base, contribution):
        result = average_alone(peer.identity, "none", base, contribution)
        averager._keep(result.certificate, result.parts)
        return result

    peer._contribution = contribution
    averager.run = run


class Stranger:
    """Somebody outside the run's code, with an identity and a transport.

    Attributes:
        report: What it says of itself to those who ask.
    """

    def __init__(self, swarm, identity, run):
        self.identity = identity
        self.peer_id = identity.peer_id
        self.transport = swarm.transport(self.peer_id)
        self.report = Report()
        self._run = run

    async def serve(self, name, handler):
        await self.transport.serve(scoped(self._run, name), handler)

    async def introduce(self, others):
        """Give `report` to others, and to whoever asks."""

        async def state(channel):
            await channel.receive()
            await channel.send(self.report.model_dump(mode="json"))

        await self.serve("state", state)
        for other in others:
            await self.ask(other, "state", self.report.model_dump(mode="json"))

    async def ask(self, other, name, header):
        return await call(self.transport, other, scoped(self._run, name), header, timeout_s=4.0)

    async def show(self, row, average):
        """Serve a row of certificates, and one average for all of them.

        Args:
            row: The certificates, oldest first.
            average: Its encoded bytes.
        """

        async def lineage(channel):
            await channel.receive()
            pairs = [[c.vote.base.epoch, c.vote.base.state_root] for c in row]
            await channel.send({"lineage": pairs})

        async def certificates(channel):
            first = (await channel.receive()).header["first"]
            for certificate in row:
                if certificate.vote.base.epoch >= first:
                    await channel.send({"certificate": certificate.to_json()})
            await channel.send({})

        async def certificate(channel):
            root = (await channel.receive()).header["base_root"]
            found = [c.to_json() for c in row if c.vote.base.state_root == root]
            await channel.send({"certificate": found[-1] if found else None})

        async def averages(channel):
            await channel.receive()
            await channel.send({}, average)

        await self.serve("lineage", lineage)
        await self.serve("row", certificates)
        await self.serve("certificate", certificate)
        await self.serve("average", averages)


def forged_row(identity, base, roots, contribution):
    """Return lone certificates on `base` and on each of `roots` after it, and their average."""
    row, average = [], b""
    for epoch, root in enumerate([base.state_root, *roots], base.epoch):
        here = dataclasses.replace(base, epoch=epoch, state_root=root)
        committed = average_alone(identity, "none", here, contribution)
        row.append(Certificate(committed.certificate.vote, committed.certificate.signatures))
        average = committed.parts[0]
    return row, average


def forged_group(identities, base, values):
    """Return a certificate on `base` by a group of keys that nobody knows, and its average."""
    entries = tuple(Entry(i.peer_id, f"forged-{n}", 64, 0) for n, i in enumerate(identities))
    data = codec.encode(values, "none")
    part = sign_part(identities[0], group_id(base, entries), data, len(values), square_sum(values))
    vote = Vote(base, entries, (part,))
    return Certificate(vote, tuple(sign_vote(each, vote) for each in identities)), bytes(data)
