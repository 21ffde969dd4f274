"""The certified row, fetched from peers piece by piece and checked: where the run really is.

Records say what anybody likes; only certificates say at which epoch the run is and who brought it
there. Of several rows that peers show, the one counts that the peers of the run would be on.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Mapping, Sequence

from peer.errors import MisbehavedError, PeerError, StalledError
from peer.swarm.wire import Channel, Transport, scoped
from peer.training.certificate import Certificate, problem
from peer.training.chain import Fork, Row, choose, row_problem

log = logging.getLogger(__name__)

KEPT = 512
FIRST = 128
"""So many of the newest certificates are fetched at first: who worked lately is in them."""

_ASKED = 3
_STEP_TIMEOUT_S = 5.0
_MOST_AT_ONCE = 512
_MOST_BYTES = 32 << 20
_OVERLAP = 8
_FORGOTTEN_AFTER = 40
"""Where nobody has shown a row that any known peer signed for so many crawls, all is forgotten."""


@dataclasses.dataclass
class CertifiedRow:
    """The newest certificates of the run, as far as they are at hand.

    Attributes:
        certificates: Oldest first.
        founders: The run's, who count where nobody is known yet.
        veterans: Who worked in the generation before.
    """

    certificates: list[Certificate] = dataclasses.field(default_factory=list)
    founders: frozenset[str] = frozenset()
    veterans: frozenset[str] = frozenset()
    _vain: int = 0

    async def update(
        self,
        transport: Transport,
        run_id: str,
        donors: Sequence[str],
        epochs: Mapping[str, int],
        generation: int | None,
    ) -> None:
        """Take in what `donors` have beyond what is here.

        Args:
            transport: The way to them.
            run_id: The run.
            donors: Whom to ask, the most trusted first.
            epochs: Where they say that they are: where to begin when nothing is here.
            generation: What verdicts say that the run is in; None if nothing is known of them.

        Raises:
            PeerError: Nobody showed a row.
        """
        asked = donors[:_ASKED]
        shown = await asyncio.gather(
            *(self._shown(transport, run_id, donor, epochs.get(donor, 0)) for donor in asked),
            return_exceptions=True,
        )
        failures = [each for each in shown if isinstance(each, BaseException)]
        for failure in failures:
            if not isinstance(failure, PeerError):
                raise failure
        rows = [each for each in shown if not isinstance(each, BaseException)]
        if not rows:
            raise failures[0] if failures else PeerError("there is no peer to ask")
        self.take([row for row in rows if row], generation)

    def take(self, rows: Sequence[Sequence[Certificate]], generation: int | None) -> None:
        """Go over to the best of `rows` that others have, or on by it.

        Args:
            rows: Checked, each oldest first and of one generation.
            generation: See `update`.
        """
        if generation is not None:
            rows = [row for row in rows if row[0].vote.base.generation == generation]
            if self.certificates and self.certificates[-1].vote.base.generation < generation:
                self.veterans = _groups(self.certificates)
                self.certificates = []  # it was rolled back, and begins anew
        best: Sequence[Certificate] | None = None
        for row in rows:
            if best is None or self._prefers(row, best):
                best = row
        if best is None:
            return
        before, ours, theirs = self._parted(best)
        electors = self._electors(before)
        if not theirs:
            return
        if electors and not electors & Row.of(theirs).last_signed.keys():
            self._vain += 1
            if self._vain < _FORGOTTEN_AFTER:
                return
            log.warning("nobody shows a row that any known peer signed; beginning anew")
            before, self.veterans = [], frozenset()
        elif ours and self._choose(ours, theirs, electors) is Fork.STAY:
            return
        self._vain = 0
        self.certificates = [*before, *theirs][-KEPT:]

    def _prefers(self, row: Sequence[Certificate], best: Sequence[Certificate]) -> bool:
        electors = self._electors(self._parted(row)[0])
        return self._choose(best, row, electors) is Fork.SWITCH

    def _choose(
        self, ours: Sequence[Certificate], theirs: Sequence[Certificate], electors: frozenset[str]
    ) -> Fork:
        return choose(Row.of(ours), Row.of(theirs), electors, self.founders)[0]

    def _electors(self, before: Sequence[Certificate]) -> frozenset[str]:
        """Return who counts: who worked before the rows parted, else whoever is known."""
        return _groups(before) or _groups(self.certificates) or self.veterans

    def _parted(
        self, row: Sequence[Certificate]
    ) -> tuple[list[Certificate], list[Certificate], list[Certificate]]:
        """Return what we have in common with `row` or before it, ours since, and theirs since."""
        ours, theirs = self.certificates, list(row)
        votes = {c.vote.vote_id: i for i, c in enumerate(theirs)}
        for at in range(len(ours) - 1, -1, -1):
            if (there := votes.get(ours[at].vote.vote_id)) is not None:
                return ours[: at + 1], ours[at + 1 :], theirs[there + 1 :]
        bases = {_base(c): i for i, c in enumerate(theirs)}
        for at, certificate in enumerate(ours):
            if (there := bases.get(_base(certificate))) is not None:
                return ours[:at], ours[at:], theirs[there:]
        if ours and theirs and _follows(ours[-1], theirs[0]):
            return ours, [], theirs
        return [], ours, theirs

    async def _shown(
        self, transport: Transport, run_id: str, donor: str, claimed_epoch: int
    ) -> list[Certificate]:
        """Return the checked row that `donor` has, from a little before our end on."""
        if self.certificates:
            first = self.certificates[-1].vote.base.epoch - _OVERLAP
        else:
            first = claimed_epoch - FIRST
        row = await _fetch(transport, run_id, donor, max(0, first))
        if self.certificates and row and not self._parted(row)[0]:  # it parted long before
            earliest = self.certificates[0].vote.base.epoch
            row = await _fetch(transport, run_id, donor, earliest)
        if row and (wrong := row_problem(row, run_id, row[0].vote.base.generation)) is not None:
            raise MisbehavedError(f"the row of {donor} is wrong: {wrong}")
        return row


async def _fetch(transport: Transport, run_id: str, donor: str, first: int) -> list[Certificate]:
    """Return the certificates of `donor` from an epoch on, each one good by itself."""
    try:
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            channel = await transport.open(donor, scoped(run_id, "row"))
    except TimeoutError as error:
        raise StalledError(f"{donor} does not answer") from error
    row, size = list[Certificate](), 0
    try:
        await channel.send({"first": first})
        while len(row) < _MOST_AT_ONCE:
            text = await _next(channel)
            if text is None:
                break
            size += len(text)
            if size > _MOST_BYTES:
                raise MisbehavedError(f"the row of {donor} is too large")
            certificate = Certificate.from_json(text)
            if (wrong := problem(certificate)) is not None:
                raise MisbehavedError(f"a certificate of {donor} is wrong: {wrong}")
            row.append(certificate)
            await asyncio.sleep(0)  # checking one takes milliseconds
    except ValueError as error:
        raise MisbehavedError(f"a certificate of {donor} makes no sense") from error
    finally:
        channel.close()
    return row


async def _next(channel: Channel) -> str | None:
    try:
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            header = (await channel.receive()).header
    except TimeoutError as error:
        raise StalledError(f"{channel.remote} stops within its row") from error
    return str(header["certificate"]) if "certificate" in header else None


def _groups(row: Sequence[Certificate]) -> frozenset[str]:
    return frozenset(peer for certificate in row for peer in certificate.vote.group)


def _base(certificate: Certificate) -> tuple[int, int, str]:
    base = certificate.vote.base
    return base.generation, base.epoch, base.state_root


def _follows(one: Certificate, other: Certificate) -> bool:
    a, b = one.vote.base, other.vote.base
    return (a.generation, a.epoch + 1) == (b.generation, b.epoch)
