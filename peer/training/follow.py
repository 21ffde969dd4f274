"""Certified averages from others: whoever has none of its own asks before it votes again."""

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Collection

from peer.errors import DeclinedError, MisbehavedError, PeerError
from peer.swarm.admission import Admission
from peer.swarm.throttle import Throttle
from peer.swarm.wire import Channel
from peer.training import codec
from peer.training.averages import AverageLog, Kept
from peer.training.beat import beating
from peer.training.certificate import MAX_GROUP, Base, Certificate
from peer.training.chain import objection
from peer.training.muster import Muster
from peer.training.transfer import (
    FRAME_BYTES,
    Part,
    check_part,
    offload,
    receive_body,
    timely,
    transfer_timeout_s,
)

log = logging.getLogger(__name__)

_MARGIN_S = 0.1
_STREAMS, _STREAMS_OF_ONE_PEER = 16, 2


@dataclasses.dataclass(frozen=True)
class Found:
    """A certified average that extends our root, and the peer that gave it."""

    certificate: Certificate
    parts: tuple[Part, ...]
    donor: str


class Follow:
    """Serves our certified averages, and asks others for theirs.

    Args:
        muster: Our standing and the others.
        averages: Ours.
        elements: Numbers in an average.
        codec_name: How it is encoded.
        open_round: Returns what resolves when our round on a base is over; None if there is none.
        upload: Bounds the bytes per second that others fetch.
    """

    def __init__(
        self,
        muster: Muster,
        averages: AverageLog,
        elements: int,
        codec_name: str,
        open_round: Callable[[str], "asyncio.Future[None] | None"],
        upload: Throttle,
    ) -> None:
        self._muster = muster
        self._averages = averages
        self._elements = elements
        self._codec = codec_name
        self._open_round = open_round
        self._upload = upload
        self.refused: Counter[str] = Counter()
        """Requests for averages that were not answered, by reason: busy, slow, unknown, damaged."""
        self._admission = Admission(
            self.refused, streams=_STREAMS, of_one_peer=_STREAMS_OF_ONE_PEER
        )

    async def start(self) -> None:
        """Answer those who ask."""
        await self._muster.serve("certificate", self._serve_certificate)
        await self._muster.serve("average", self._serve_average)

    def own(self, base: Base) -> Found | None:
        """Return what we certified on `base` ourselves, and did not take in: nobody votes twice."""
        kept = self._averages.get(base.state_root)
        if kept is None:
            return None
        certificate = Certificate.from_json(kept.certificate)
        if certificate.vote.base != base:
            return None
        try:
            parts = tuple(
                Part(digest, data, codec.decode(data, digest.elements, self._codec))
                for digest, data in zip(certificate.vote.parts, kept.parts, strict=True)
            )
        except OSError as error:
            log.warning("a kept average cannot be read: %s", error)
            return None
        return Found(certificate, parts, self._muster.identity.peer_id)

    async def ask(self, base: Base, peers: Collection[str]) -> Found | None:
        """Return a certified average on `base` that one of `peers` has and that we may take.

        A peer whose own round on `base` is still open answers when it is over. One that cannot be
        reached is noted as such.
        """
        for certificate, peer in await self.offers(base, peers):
            try:
                return Found(certificate, await self.fetch(peer, certificate), peer)
            except PeerError as error:
                log.info("no average from %s: %s", peer, error)
        return None

    async def offers(
        self, base: Base, peers: Collection[str], enough: int = MAX_GROUP
    ) -> list[tuple[Certificate, str]]:
        """Return the certificates on `base` that `peers` have and that we may take, best first.

        Nobody waits for ever for the last of them: where most have answered, or one has what we
        look for, the others have to come soon.

        Args:
            base: The state to go on from.
            peers: Whom to ask.
            enough: How many certificates are enough.
        """
        loop = asyncio.get_running_loop()
        began_s, until_s = loop.time(), float("inf")
        asked = {asyncio.create_task(self._ask(peer, base)): peer for peer in peers}
        left, found = set(asked), list[tuple[Certificate, str]]()
        try:
            while left and len(found) < enough and loop.time() < until_s:
                wait_s = until_s - loop.time() if until_s < float("inf") else None
                done, left = await asyncio.wait(
                    left, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
                )
                found += [(c, asked[task]) for task in done if (c := task.result()) is not None]
                took_s = loop.time() - began_s
                if found:
                    until_s = min(until_s, loop.time() + _MARGIN_S + 2 * took_s)
                elif 2 * len(left) < len(asked):
                    until_s = min(until_s, loop.time() + self._patience_s({asked[t] for t in left}))
            if not found:
                for task in left:
                    what = "it says late, if ever, whether it has a certificate"
                    self._muster.suspect(asked[task], what)
        finally:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        return sorted(found, key=lambda offer: self._rank(offer[0]))

    def _rank(self, certificate: Certificate) -> tuple[int, int, int, str]:
        """Return the place among several: whoever sees two, after a partition, takes the same one.

        Keys cost nothing: those that worked before count before any number of others.
        """
        vote = certificate.vote
        signers = certificate.signers & set(vote.group)
        return -len(signers & self._muster.tenured), -len(signers), -vote.weight, vote.vote_id

    def _patience_s(self, late: set[str]) -> float:
        """Return how long those who are late are still waited for, where most have answered."""
        limits, muster = self._muster.limits, self._muster
        in_order = late & muster.roster.trusted(muster.now_s)
        return 2 * limits.frame_timeout_s if in_order else limits.call_timeout_s

    async def _ask(self, peer: str, base: Base) -> Certificate | None:
        muster = self._muster
        report = muster.roster.report(peer)
        # Whoever is beyond `base` has no round open on it.
        beyond = report is not None and report.epoch > base.epoch
        patience_s = muster.limits.call_timeout_s if beyond else self._longest_round_s
        try:
            channel = await muster.open(peer, "certificate")
            try:
                async with asyncio.timeout(patience_s):
                    header = await self._outcome(channel, base)
            finally:
                channel.close()
        except TimeoutError:
            muster.misbehaved(peer, "it does not say whether it has a certificate")
            return None
        except PeerError as error:
            muster.roster.failed(peer, str(error), muster.now_s)
            return None
        text = header.get("certificate")
        if text is None:
            return None
        try:
            certificate = Certificate.from_json(str(text))
        except ValueError:
            muster.misbehaved(peer, "a certificate that makes no sense")
            return None
        me = muster.identity.peer_id
        beside = muster.beside(certificate.signers & set(certificate.vote.group))
        wrong = objection(certificate, base, me, beside, muster.tenured)
        if wrong is not None:
            log.info("the certificate of %s is not for us: %s", peer, wrong)
            return None
        return certificate

    async def _outcome(self, channel: Channel, base: Base) -> dict[str, object]:
        """Return the answer to a question, after as many signs of life as it takes."""
        limits = self._muster.limits
        await channel.send({"base_root": base.state_root})
        while True:
            frame = await timely(channel.receive(), limits.call_timeout_s)
            if "wait" not in frame.header:
                return dict(frame.header)

    @property
    def _longest_round_s(self) -> float:
        """How long a round may be open from the moment its group is closed."""
        transfer_s = transfer_timeout_s(self._muster.limits, self._elements, self._codec)
        return transfer_s + self._muster.limits.vote_timeout_s + self._muster.limits.call_timeout_s

    async def fetch(self, peer: str, certificate: Certificate) -> tuple[Part, ...]:
        """Return the average that `certificate` proves, from a peer that has it.

        Raises:
            PeerError: It does not come, or is another one.
        """
        vote, muster = certificate.vote, self._muster
        if sum(part.elements for part in vote.parts) != self._elements:
            raise MisbehavedError("a certificate of another model")
        channel = await muster.open(peer, "average")
        parts = []
        try:
            request = channel.send({"base_root": vote.base.state_root, "vote_id": vote.vote_id})
            await timely(request, muster.limits.call_timeout_s)
            group = vote.group_id
            for digest in vote.parts:
                size = codec.encoded_bytes(digest.elements, self._codec)
                data = bytearray(size)
                await receive_body(channel, memoryview(data), muster.limits.frame_timeout_s)
                values = await offload(
                    digest.elements,
                    check_part,
                    digest,
                    data,
                    digest.reducer,
                    digest.elements,
                    group,
                    self._codec,
                )
                parts.append(Part(digest, data, values))
        except MisbehavedError as error:
            muster.misbehaved(peer, str(error))
            raise
        finally:
            channel.close()
        return tuple(parts)

    async def _serve_certificate(self, channel: Channel) -> None:
        limits = self._muster.limits
        header = (await timely(channel.receive(), limits.call_timeout_s)).header
        base_root = str(header.get("base_root"))[:64]
        running = self._open_round(base_root)
        if running is not None:
            await beating(channel, running)
        await channel.send({"certificate": self._averages.certificate(base_root)})

    async def _serve_average(self, channel: Channel) -> None:
        with self._admission.stream(channel.remote):
            limits = self._muster.limits
            header = (await timely(channel.receive(), limits.call_timeout_s)).header
            kept = self._averages.get(str(header.get("base_root"))[:64])
            if kept is None or Certificate.from_json(kept.certificate).vote.vote_id != header.get(
                "vote_id"
            ):
                raise self._declined("unknown", "that average is not kept here any more")
            await self._give(channel, kept)

    async def _give(self, channel: Channel, kept: Kept) -> None:
        for index, size in enumerate(kept.sizes):
            for start in range(0, size, FRAME_BYTES):
                try:
                    piece = await offload(self._elements, kept.piece, index, start, FRAME_BYTES)
                except OSError as error:
                    raise self._declined("damaged", "that average cannot be read here") from error
                await self._upload.take(len(piece))
                await channel.may_send(len(piece))
                await timely(channel.send({}, piece), self._muster.limits.frame_timeout_s)

    def _declined(self, reason: str, words: str) -> DeclinedError:
        self.refused[reason] += 1
        return DeclinedError(words)
