"""Giving verdicts to whoever asks, and fetching them, one or a whole chain."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence

from peer.errors import DeclinedError, MisbehavedError, PeerError
from peer.swarm.admission import Admission
from peer.swarm.wire import Channel, call, scoped
from peer.training.muster import Muster
from peer.training.transfer import offload, timely
from peer.validation.archive import Archive
from peer.validation.course import LOOKBACK
from peer.validation.verdict import MAX_VERDICT_BYTES, Verdict

log = logging.getLogger(__name__)

_NAME = "verdict"
_STREAMS, _STREAMS_OF_ONE_PEER = 16, 4
_TIMEOUT_S = 20.0
_MAX_VAIN = 64
"""Of so many peers we remember that they did not answer."""

VERDICT_ELEMENTS = 1 << 15
"""Checking a verdict takes about as long as passing over so many numbers."""


class Verdicts:
    """The verdicts that others have, and those that we give them.

    Args:
        muster: The way to the others.
        archive: What we hold to.
        proposed: Returns a judgement of the present round with the signatures known, by its hash.
    """

    def __init__(
        self, muster: Muster, archive: Archive, proposed: Callable[[str], Verdict | None]
    ) -> None:
        self._muster = muster
        self._archive = archive
        self._proposed = proposed
        self.refused: Counter[str] = Counter()
        """Requests that were not answered, by reason: busy, slow, unknown."""
        self._admission = Admission(
            self.refused, streams=_STREAMS, of_one_peer=_STREAMS_OF_ONE_PEER
        )
        self._vain = deque[str](maxlen=_MAX_VAIN)
        self._fetched: dict[str, Verdict] = {}

    async def start(self) -> None:
        """Give them from now on."""
        await self._muster.serve(_NAME, self._give)

    async def fetch(
        self, name: str, donors: Collection[str], *, signed: bool = False
    ) -> Verdict | None:
        """Return the verdict with the judgement of that hash from one of `donors`, unchecked.

        Whoever did not answer the last time is asked last.

        Args:
            name: The hash.
            donors: Who has it.
            signed: Whether a quorum must have signed.
        """
        muster = self._muster
        for donor in sorted(donors, key=self._vain.__contains__):
            if donor == muster.identity.peer_id:
                continue
            self._note_vain(donor)
            try:
                frame = await call(
                    muster.transport,
                    donor,
                    scoped(muster.run_id, _NAME),
                    {"hash": name},
                    timeout_s=_TIMEOUT_S,
                    max_body_bytes=MAX_VERDICT_BYTES,
                )
                verdict = await offload(len(frame.body), _parse, bytes(frame.body), name, signed)
            except MisbehavedError as error:
                muster.misbehaved(donor, str(error))
            except PeerError as error:
                if isinstance(error, DeclinedError):
                    self._forgive(donor)
                log.info("no verdict from %s: %s", donor, error)
            else:
                self._forgive(donor)
                return verdict
        return None

    async def walk(self, name: str, donors: Sequence[str], known: Collection[str]) -> list[Verdict]:
        """Return the verdicts that lead to `name`, oldest first, as far back as they are to be had.

        They are `LOOKBACK` at most, of `MAX_VERDICT_BYTES` each. What was fetched is kept until
        they are complete: whoever has too little time for all of them goes on from there.

        Args:
            name: The newest one's hash.
            donors: Who has them. Whoever does not answer is not asked again for those before it.
            known: Where to stop.
        """
        row, silent = list[Verdict](), set[str]()
        while name not in known and len(row) < LOOKBACK:
            verdict = await self._archived(name) or self._fetched.get(name)
            if verdict is None:
                asked = [donor for donor in donors if donor not in silent]
                verdict = await self.fetch(name, asked, signed=True)
                silent.update(self._vain)
            if verdict is None:
                return row[::-1]
            self._fetched[name] = verdict
            row.append(verdict)
            name = verdict.judgement.previous
        self._fetched.clear()
        return row[::-1]

    def _note_vain(self, donor: str) -> None:
        self._forgive(donor)
        self._vain.append(donor)

    def _forgive(self, donor: str) -> None:
        if donor in self._vain:
            self._vain.remove(donor)

    async def _archived(self, name: str) -> Verdict | None:
        """Return a verdict from our disk, unless its signatures were damaged there."""
        verdict = self._archive.get(name)
        if verdict is None or await offload(VERDICT_ELEMENTS, verdict.is_signed):
            return verdict
        log.warning("verdict %d on this disk lacks signatures", verdict.judgement.round)
        return None

    async def _give(self, channel: Channel) -> None:
        with self._admission.stream(channel.remote):
            limit_s = self._muster.limits.call_timeout_s
            name = str((await timely(channel.receive(), limit_s)).header.get("hash"))
            verdict = self._proposed(name) or self._archive.get(name)
            if verdict is None:
                self.refused["unknown"] += 1
                raise DeclinedError("that verdict is not here")
            await timely(channel.send({}, verdict.to_bytes()), _TIMEOUT_S)


def _parse(data: bytes, name: str, signed: bool) -> Verdict:  # noqa: FBT001
    verdict = Verdict.from_bytes(data)
    if signed and not verdict.is_signed():
        raise MisbehavedError("a verdict lacks signatures")
    if verdict.judgement.hash != name:
        raise MisbehavedError("a verdict is not the one that was asked for")
    return verdict
