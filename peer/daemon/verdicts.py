"""Giving verdicts to whoever asks, and fetching them, one or a whole chain."""

import logging
from collections import Counter
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

    async def start(self) -> None:
        """Give them from now on."""
        await self._muster.serve(_NAME, self._give)

    async def fetch(
        self, name: str, donors: Collection[str], *, signed: bool = False
    ) -> Verdict | None:
        """Return the verdict with the judgement of that hash from one of `donors`, unchecked.

        Args:
            name: The hash.
            donors: Who has it.
            signed: Whether a quorum must have signed: its hash does not hold the signatures.
        """
        muster = self._muster
        for donor in donors:
            if donor == muster.identity.peer_id:
                continue
            try:
                frame = await call(
                    muster.transport,
                    donor,
                    scoped(muster.run_id, _NAME),
                    {"hash": name},
                    timeout_s=_TIMEOUT_S,
                    max_body_bytes=MAX_VERDICT_BYTES,
                )
                return await offload(len(frame.body), _parse, bytes(frame.body), name, signed)
            except MisbehavedError as error:
                muster.misbehaved(donor, str(error))
            except PeerError as error:
                log.info("no verdict from %s: %s", donor, error)
        return None

    async def walk(self, name: str, donors: Sequence[str], known: Collection[str]) -> list[Verdict]:
        """Return the verdicts that lead to `name`, oldest first, as far back as they are to be had.

        They are `LOOKBACK` at most, of `MAX_VERDICT_BYTES` each.

        Args:
            name: The newest one's hash.
            donors: Who has them.
            known: Where to stop.
        """
        row: list[Verdict] = []
        while name not in known and len(row) < LOOKBACK:
            verdict = self._archive.get(name) or await self.fetch(name, donors, signed=True)
            if verdict is None:
                break
            row.append(verdict)
            name = verdict.judgement.previous
        return row[::-1]

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
    if signed and len(verdict.signers()) < verdict.judgement.committee.size.quorum:
        raise MisbehavedError("a verdict lacks signatures")
    if verdict.judgement.hash != name:
        raise MisbehavedError("a verdict is not the one that was asked for")
    return verdict
