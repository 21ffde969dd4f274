"""What a hostile member may do: each function spoils one simulated peer before it starts."""

import asyncio
import dataclasses
import math

import numpy as np

from peer.errors import DeclinedError
from peer.training import codec
from peer.training.certificate import sign_part
from peer.training.reducer import square_sum
from peer.training.round import average_alone


class Tampered:
    """A channel whose sent frames go through `change(header, body)`; None is not sent."""

    def __init__(self, channel, change):
        self._channel = channel
        self._change = change
        self.remote = channel.remote

    async def send(self, header, body=b""):
        for changed in self._change(dict(header), bytes(body)) or ():
            await self._channel.send(*changed)

    def receive(self, max_body_bytes=0):
        return self._channel.receive(max_body_bytes)

    def close(self):
        self._channel.close()


async def for_ever():
    while True:
        await asyncio.sleep(3600.0)


def tampering(handler, change_for):
    """Return `handler` on channels whose frames go through `change_for(remote)`."""

    def served(channel):
        return handler(Tampered(channel, change_for(channel.remote)))

    return served


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
    exchange._trade = lambda group, reducer, values: trade(group, reducer, values[:-1])


def weighs_too_much(peer):
    make = peer._contribution
    peer._contribution = lambda: dataclasses.replace(make(), weight=10**11)


def opens_no_stream(peer):
    peer.averager._exchange._trade = lambda *_: for_ever()


def sends_no_slice(peer):
    """Open the stream and say what will come, but send nothing."""
    peer.averager._exchange._send_body = lambda *_: for_ever()


def is_never_ready(peer):
    """Say that it is ready, and join no group."""

    async def run(base, contribution):
        peer.muster.is_ready()
        await asyncio.sleep(1.0)
        return await follow(base, contribution)

    async def follow(base, contribution):
        found = await peer.averager.follow(base)
        return found or await run(base, contribution)

    peer.averager.run = run


def signs_junk(peer):
    peer.muster.identity = _JunkVotes(peer.identity)


def signs_nothing(peer):
    peer.averager._ballot.collect = lambda *_: for_ever()


class _JunkVotes:
    """An identity whose signature under votes is none."""

    def __init__(self, identity):
        self.public_key, self.peer_id = identity.public_key, identity.peer_id
        self._sign = identity.sign

    def sign(self, data):
        return b"junk" if data.startswith(b"ctpeer vote") else self._sign(data)


# ---- as a reducer


def reduces_differently(peer):
    """Send each member another average, properly signed."""
    exchange = peer.averager._exchange

    def change_for(remote):
        held = []

        def change(header, body):
            if "digest" in header:
                held.append(header["digest"])
                return []
            if not body:
                return [(header, body)]
            values = codec.decode(body, len(body) // 4, "none") + np.float32(len(held) + hash(remote) % 7)
            data = codec.encode(values, "none")
            group = next(reversed(exchange._reductions))
            digest = sign_part(peer.identity, group, data, len(values), square_sum(values))
            return [({"digest": dataclasses.asdict(digest)}, b""), ({}, data)]

        return change

    exchange._serve_part = tampering(exchange._serve_part, change_for)


def reduces_to_junk(peer):
    """Send other bytes than were signed."""
    exchange = peer.averager._exchange
    exchange._serve_part = tampering(
        exchange._serve_part, lambda _: lambda header, body: [(header, b"\1" * len(body))]
    )


def reduces_nothing(peer):
    """Give signs of life as a reducer, for ever."""
    peer.averager._exchange._reduce = lambda *_: for_ever()


# ---- as a leader


def leads_apart(peer):
    """Propose another group to each member: itself and that member."""
    matchmaking = peer.averager._matchmaking

    def change_for(remote):
        def change(header, body):
            if "group" in header:
                words = header["group"]
                keys = {peer.identity.peer_id, remote}
                header["group"] = [w for w in words if _owner(w) in keys]
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


def _owner(word):
    from peer.training.group import parse_ready

    return parse_ready(word, 10**12).peer_id


# ---- as whoever is asked


def claims_the_far_future(peer):
    stand = peer.muster.stand
    peer.muster.stand = lambda generation, epoch, root: stand(generation, 10**9, root)


def answers_never(peer):
    """Whoever asks it for a certificate gets signs of life, for ever."""

    async def serve(channel):
        while True:
            await channel.send({"wait": True})
            await asyncio.sleep(1.0)

    peer.averager._follow._serve_certificate = serve


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


def denies_its_groups(peer):
    """Join, and know nothing of it afterwards."""

    async def serve(channel):
        await channel.receive()
        raise DeclinedError("we are in no such group")

    peer.averager._exchange._serve_part = serve
