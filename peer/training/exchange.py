"""The transfer of a round: slices to the reducers, one encoded average of each part back.

Every member sends each reducer its slice of the contribution. The reducer waits for all of them,
checks each, averages, encodes the average once, and sends everybody the same bytes. A slice that
fails a check is left out and its sender named in the digest; a member that is gone or stalls fails
the round, because a part of its contribution may be in the other parts already.
"""

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import Callable

from peer.errors import DeclinedError, MisbehavedError, PeerError, StalledError, UnreachableError
from peer.swarm.wire import Body, Channel
from peer.training import codec
from peer.training.beat import BEAT_S, beating
from peer.training.certificate import parse_part, sign_part
from peer.training.group import Group
from peer.training.muster import Muster
from peer.training.reducer import reduce, square_sum
from peer.training.state import Flat
from peer.training.transfer import (
    SLOWEST_BYTES_PER_S,
    Part,
    check_part,
    offload,
    receive_body,
    send_body,
    timely,
    transfer_timeout_s,
)

log = logging.getLogger(__name__)

_KEPT_REDUCTIONS = 2
_NO_SUCH_GROUP = "we are in no such group"


class _Reduction:
    """One part of one round, at its reducer."""

    def __init__(self, group: Group, elements: int, target: memoryview) -> None:
        self.group = group
        self.elements = elements
        self.target = target  # where the encoded average belongs
        self.slices: dict[str, Flat] = {}
        self.refused: dict[str, str] = {}
        self.streams: set[str] = set()
        self.complete = asyncio.Event()
        self.part: asyncio.Future[Part] = asyncio.get_running_loop().create_future()
        self._began_s = self.part.get_loop().time()

    @property
    def age_s(self) -> float:
        """How long ago the group was closed."""
        return self.part.get_loop().time() - self._began_s

    @property
    def silent(self) -> set[str]:
        """Members that have not even begun to bring their slice."""
        return self.missing - self.streams

    @property
    def missing(self) -> set[str]:
        """Members whose slice is not there yet."""
        return set(self.group.members) - set(self.slices) - set(self.refused)

    def take(self, peer: str, values: Flat) -> None:
        self.slices[peer] = values
        self._look()

    def refuse(self, peer: str, reason: str) -> None:
        self.slices.pop(peer, None)
        self.refused[peer] = reason
        self._look()

    def fail(self, reason: str) -> None:
        if not self.part.done():
            self.part.set_exception(DeclinedError(reason))
            self.part.exception()  # seen, also if nobody waits for it any more

    def _look(self) -> None:
        if not self.missing:
            self.complete.set()


class Exchange:
    """Moves contributions and averages between the members of a group.

    Args:
        muster: Our standing and the others.
        elements: Numbers in a contribution.
        codec_name: How they travel.
        on_refused: Told of a slice that failed a check: peer, reason.
        on_denied: Told of a member that denies that it is in the group.
    """

    def __init__(
        self,
        muster: Muster,
        elements: int,
        codec_name: str,
        on_refused: Callable[[str, str], None],
        on_denied: Callable[[str], None],
    ) -> None:
        self._muster = muster
        self._elements = elements
        self._codec = codec_name
        self._on_refused = on_refused
        self._on_denied = on_denied
        self._reductions: dict[str, _Reduction] = {}
        self._begun = asyncio.Event()

    async def start(self) -> None:
        """Let members bring their slices."""
        await self._muster.serve("part", self._serve_part)

    async def run(self, group: Group, values: Flat) -> list[Part]:
        """Bring our slices of `values` fp32 [elements], and return all averaged parts.

        Their encoded bytes lie one after the other in one buffer.

        Raises:
            PeerError: A part could not be had; the words say whose.
        """
        me = self._muster.identity.peer_id
        timeout_s = self.timeout_s
        places = self._places(group)
        reduction = None
        if me in group.reducers:
            reduction = self._begin(group, *next((p, t) for r, p, t in places if r == me))
        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as tasks:
                trades = []
                for reducer, place, target in places:
                    if reducer == me:
                        assert reduction is not None
                        reduction.take(me, values[place])
                        trades.append(tasks.create_task(self._reduce(reduction)))
                    else:
                        trade = self._trade(group, reducer, values[place], target)
                        trades.append(tasks.create_task(trade))
            return [trade.result() for trade in trades]
        except TimeoutError as error:
            raise UnreachableError(f"the transfer took over {timeout_s:.0f} s") from error
        except ExceptionGroup as errors:
            if reduction is not None:
                await self._blame_silent(reduction)
            raise _first(errors) from errors
        finally:
            if reduction is not None:
                # Those who are late with their slice are told, not left waiting.
                reduction.fail("the round failed before your part was reduced")
                reduction.slices.clear()

    def _places(self, group: Group) -> list[tuple[str, slice, memoryview]]:
        """Return for each part its reducer, its numbers, and where its encoded average goes."""
        parts = group.parts(self._elements)
        sizes = [codec.encoded_bytes(p.stop - p.start, self._codec) for _, p in parts]
        buffer = memoryview(bytearray(sum(sizes)))
        ends = list(itertools.accumulate(sizes))
        return [
            (peer, place, buffer[end - size : end])
            for (peer, place), size, end in zip(parts, sizes, ends, strict=True)
        ]

    @property
    def timeout_s(self) -> float:
        """How long a transfer may take."""
        return transfer_timeout_s(self._muster.limits, self._elements, self._codec)

    # ---- as a member

    async def _trade(self, group: Group, reducer: str, values: Flat, target: memoryview) -> Part:
        """Send `reducer` our slice and return the average of its part, verified, in `target`."""
        channel = await self._muster.open(reducer, "part")
        try:
            data = await offload(len(values), codec.encode, values, self._codec)
            await channel.send({"group": group.group_id, "bytes": len(data)})
            await self._send_body(channel, data)
            # By then a reducer has all slices, or has said whose is missing.
            frame_timeout_s, streams = self._muster.limits.frame_timeout_s, _streams(group)
            patience_s = 3 * frame_timeout_s + len(data) * streams / SLOWEST_BYTES_PER_S
            header = await timely(self._after_beats(channel), patience_s)
            await receive_body(channel, target, frame_timeout_s, streams)
            digest = parse_part(header.get("digest"))
            decoded = await offload(
                len(values),
                check_part,
                digest,
                target,
                reducer,
                len(values),
                group.group_id,
                self._codec,
            )
        except MisbehavedError as error:
            self._muster.misbehaved(reducer, str(error))
            raise
        except PeerError as error:
            await self._find_fault(group, reducer, error)
            raise type(error)(f"the part of {reducer}: {error}") from error
        finally:
            channel.close()
        return Part(digest, target, decoded)

    async def _find_fault(self, group: Group, reducer: str, error: PeerError) -> None:
        """Blame a reducer that answers, but does not give its part.

        One that declines, or breaks off, may be a victim itself: of a member that is gone, or that
        it names to us soon by leaving it out.
        """
        if str(error) == _NO_SUCH_GROUP:
            self._on_denied(reducer)
        me = self._muster.identity.peer_id
        others = set(group.members) - {me}
        answered = await self._muster.poll(others, hurried=not isinstance(error, StalledError))
        if isinstance(error, StalledError) and reducer in answered:
            self._muster.misbehaved(reducer, f"its part did not come: {error}")
        elif answered == others:
            self._muster.suspect(reducer, f"its part fails again and again: {error}")

    async def _send_body(self, channel: Channel, data: Body) -> None:
        await send_body(channel, data, self._muster.limits.frame_timeout_s)

    async def _after_beats(self, channel: Channel) -> dict[str, object]:
        """Return the header of the next frame that is more than a sign of life."""
        while True:
            frame = await timely(channel.receive(), self._muster.limits.frame_timeout_s)
            if "wait" not in frame.header:
                return dict(frame.header)

    # ---- as a reducer

    async def _blame_silent(self, reduction: _Reduction) -> None:
        """Note who answers, but brought nothing in the time that a reducer waits for it.

        Every reducer sees it for itself; the first to give up ends the round for all.
        """
        if reduction.age_s >= self._muster.limits.frame_timeout_s - 2 * BEAT_S:
            for peer in await self._muster.poll(reduction.silent):
                self._muster.misbehaved(peer, "it brought no slice")

    def _begin(self, group: Group, place: slice, target: memoryview) -> _Reduction:
        reduction = _Reduction(group, place.stop - place.start, target)
        while len(self._reductions) >= _KEPT_REDUCTIONS:
            self._reductions.pop(next(iter(self._reductions)))
        self._reductions[group.group_id] = reduction
        self._begun.set()
        self._begun = asyncio.Event()
        return reduction

    async def _reduce(self, reduction: _Reduction) -> Part:
        """Wait for all slices, then average them; whoever is gone or silent fails the part."""
        while not reduction.complete.is_set():
            try:
                async with asyncio.timeout(BEAT_S):
                    await reduction.complete.wait()
            except TimeoutError:
                await self._look_after(reduction)
            if reduction.part.done():
                return reduction.part.result()
        group = reduction.group
        reduced = await offload(
            reduction.elements * len(reduction.slices),
            reduce,
            reduction.slices,
            group.weights,
            reduction.elements,
            codec.in_place(reduction.target, self._codec),
        )
        for peer, reason in reduced.refused.items():
            reduction.refuse(peer, reason)
        for peer, reason in reduction.refused.items():
            self._on_refused(peer, reason)
        if reduced.mean is None:
            raise MisbehavedError("no slice of our part could be used")
        part = await offload(reduction.elements, self._encode, reduction, reduced.mean)
        if not reduction.part.done():
            reduction.part.set_result(part)
        return part

    async def _look_after(self, reduction: _Reduction) -> None:
        """Fail a part if those who brought nothing for it yet are gone, or had their time."""
        silent = reduction.silent
        if gone := silent - await self._muster.poll(silent):
            for peer in gone:
                self._muster.suspect(peer, "it vanishes from rounds again and again")
            reduction.fail(f"{min(gone)} cannot be reached")
        elif silent and reduction.age_s >= self._muster.limits.frame_timeout_s:
            reduction.fail(f"no slice from {min(silent)}")

    def _encode(self, reduction: _Reduction, mean: Flat) -> Part:
        data = reduction.target
        if codec.in_place(data, self._codec) is None:
            data[:] = codec.encode(mean, self._codec)
        decoded = codec.decode(data, reduction.elements, self._codec)
        digest = sign_part(
            self._muster.identity,
            reduction.group.group_id,
            data,
            reduction.elements,
            square_sum(decoded),
            reduction.refused,
        )
        return Part(digest, data, decoded)

    async def _serve_part(self, channel: Channel) -> None:
        limits = self._muster.limits
        header = (await timely(channel.receive(), limits.frame_timeout_s)).header
        reduction = await self._reduction(str(header.get("group"))[:100])
        peer = channel.remote
        if peer not in reduction.group.members or peer in reduction.streams:
            raise MisbehavedError(f"{peer} brings a slice that nobody waits for")
        reduction.streams.add(peer)
        size = codec.encoded_bytes(reduction.elements, self._codec)
        if header.get("bytes") != size:
            reduction.refuse(peer, f"wrong shape: {header.get('bytes')!r:.40} bytes for {size}")
            raise MisbehavedError("your slice has the wrong shape")
        try:
            data = bytearray(size)
            streams = _streams(reduction.group)
            await receive_body(channel, memoryview(data), limits.frame_timeout_s, streams)
        except UnreachableError as error:
            reduction.fail(f"no slice from {peer}: {error}")
            # A stream that ended is a peer that died, or whose round failed elsewhere.
            if isinstance(error, StalledError) and await self._muster.poll([peer]):
                self._muster.misbehaved(peer, f"its slice did not come: {error}")
            raise
        except MisbehavedError as error:
            reduction.refuse(peer, f"wrong shape: {error}")
            raise
        try:
            values = await offload(
                reduction.elements, codec.decode, data, reduction.elements, self._codec
            )
            reduction.take(peer, values)
        except ValueError as error:
            reduction.refuse(peer, f"not finite: {error}")
        async with asyncio.timeout(self.timeout_s):
            part = await beating(channel, reduction.part)
            await channel.send({"digest": dataclasses.asdict(part.digest)})
            await self._send_body(channel, part.data)

    async def _reduction(self, group_id: str) -> _Reduction:
        """Return the reduction of a group, waiting for it if its member is faster than we are."""
        deadline_s = asyncio.get_running_loop().time() + self._muster.limits.call_timeout_s
        while group_id not in self._reductions:
            begun = self._begun
            try:
                async with asyncio.timeout_at(deadline_s):
                    await begun.wait()
            except TimeoutError as error:
                raise DeclinedError(_NO_SUCH_GROUP) from error
        return self._reductions[group_id]


def _streams(group: Group) -> int:
    """Return to how many others a member sends at once."""
    return max(1, len(group.members) - 1)


def _first(errors: ExceptionGroup) -> Exception:
    """Return the error that a round is to fail with: a peer's fault before anything else."""
    for error in errors.exceptions:
        if isinstance(error, ExceptionGroup):
            return _first(error)
        if not isinstance(error, PeerError):
            return error
    return errors.exceptions[0]
