"""Finding out that others are on another row of certificates, and which row is the run's."""

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import Collection, Sequence

from peer.errors import MisbehavedError, PeerError, StalledError
from peer.swarm.wire import Channel
from peer.training.certificate import Certificate, problem
from peer.training.chain import Fork, Row, choose, left_behind, row_problem
from peer.training.history import KEPT, TENURE_EPOCHS, History
from peer.training.muster import Muster
from peer.training.transfer import timely

log = logging.getLogger(__name__)

_COMPARE_TIMEOUT_S = 30.0
_ROW_BYTES = 64 << 20

MAX_ROW = 512
"""Certificates of another row that are looked at, the newest ones."""


@dataclasses.dataclass(frozen=True)
class Branch:
    """Another peer's row, verified, beside ours.

    Attributes:
        peer_id: Whose it is.
        row: Its certificates since the common root, oldest first; the newest ones at most.
        before: Our own up to then; empty if there is no common root.
        ours: Our own since then.
        tenured: Peers that worked on the row before the common root.
        standing: Peers that stand where we do, as `Muster.beside` has it.
        founders: The run's founders, if no certificate is in common.
    """

    peer_id: str
    row: tuple[Certificate, ...]
    before: tuple[Certificate, ...]
    ours: tuple[Certificate, ...]
    tenured: frozenset[str]
    standing: frozenset[str]
    founders: frozenset[str]

    @property
    def roots(self) -> dict[str, int]:
        """The certified state roots in it, with their epochs."""
        return {c.vote.base.state_root: c.vote.base.epoch for c in self.row}

    def decide(self) -> tuple[Fork, str]:
        """Return whether to go over to it, and why."""
        theirs = Row.of(self.row)
        ours = Row.of(self.ours[-MAX_ROW:])  # as much of it as we look at of theirs
        if not self.ours and self.row:
            here = left_behind(theirs.last_signed, self.standing, self.tenured)
            ours = Row.still(here, self.row[0].vote.base.epoch)
        return choose(ours, theirs, self.tenured, self.founders)


class Repair:
    """Compares our row of certificates with those of others.

    Args:
        muster: Our standing and the others.
        history: Our row.
        founders: The run's founders.
    """

    def __init__(self, muster: Muster, history: History, founders: Collection[str]) -> None:
        self._muster = muster
        self._history = history
        self._founders = frozenset(founders)

    async def start(self) -> None:
        """Show others our row."""
        await self._muster.serve("lineage", self._serve_lineage)
        await self._muster.serve("row", self._serve_row)

    def suspects(self) -> set[str]:
        """Return the live peers whose report does not fit on our row, as far as we can see."""
        mine = self._muster.standing
        found = set()
        for peer in self._muster.live() & self._muster.roster.trusted(self._muster.now_s):
            report = self._muster.roster.report(peer)
            if report is None or report.generation != mine.generation:
                continue
            known = mine.root if report.epoch == mine.epoch else self._history.root_at(report.epoch)
            if report.epoch > mine.epoch or (known and report.root and known != report.root):
                found.add(peer)
        return found

    async def best(self, peers: Sequence[str]) -> tuple[Branch | None, str]:
        """Return the branch among those of `peers` to go over to, if there is one, and why."""
        branches = await asyncio.gather(*(self._branch(peer) for peer in peers))
        best: Branch | None = None
        reason = "nobody has another row to show"
        for branch in branches:
            if branch is None:
                continue
            decision, why = branch.decide()
            if decision is Fork.STAY:
                reason = why if best is None else reason
                continue
            if best is not None:
                rows = Row.of(best.row), Row.of(branch.row)
                against, _ = choose(*rows, branch.tenured, branch.founders)
                if against is Fork.STAY:
                    continue
            best, reason = branch, why
        return best, reason

    async def _branch(self, peer: str) -> Branch | None:
        try:
            return await timely(self._compare(peer), _COMPARE_TIMEOUT_S)
        except (MisbehavedError, StalledError) as error:
            self._muster.misbehaved(peer, str(error))
        except PeerError as error:
            self._muster.roster.failed(peer, str(error), self._muster.now_s)
        return None

    async def _compare(self, peer: str) -> Branch | None:
        """Return the verified row of `peer` since our last common root; None if it adds nothing."""
        header = (await self._muster.call(peer, "lineage", {})).header
        theirs = _parse_lineage(header.get("lineage"))
        ours = self._history.row()
        root = self._muster.standing.root
        mine = {c.vote.base.state_root for c in ours} | ({root} if root else set())
        common = next((epoch for epoch, base in reversed(theirs) if base in mine), None)
        if not theirs or theirs[-1][1] in mine - ({root} if root else set()):
            return None  # it is behind us on our own row, or stands where it began
        first = max(theirs[0][0], theirs[-1][0] - MAX_ROW + 1)
        if common is not None:
            first = max(first, common)
        row = await self._fetch_row(peer, first)
        named = [pair for pair in theirs if pair[0] >= first]
        row = row[: len(named)]  # it may have grown since
        generation = self._muster.standing.generation
        if (wrong := row_problem(row, self._muster.run_id, generation)) is not None:
            raise MisbehavedError(f"its row of certificates is wrong: {wrong}")
        if [(c.vote.base.epoch, c.vote.base.state_root) for c in row] != named[: len(row)]:
            raise MisbehavedError("its row of certificates is not the one that it named")
        before = [c for c in ours if common is not None and c.vote.base.epoch < common]
        since = [c for c in ours if common is None or c.vote.base.epoch >= common]
        # The electorate must be the same for both sides: what both remember, and those that a vote
        # names; whose signatures reached a certificate in time is another matter at each peer.
        shared = [c for c in before if c.vote.base.epoch >= theirs[0][0]]
        tenured = frozenset(member for c in shared[-MAX_ROW:] for member in c.vote.group)
        founders = frozenset[str]()
        if not tenured:
            young = common == 0 and len(ours) <= TENURE_EPOCHS
            tenured, founders = self._electorate(row, young=young)
        standing = frozenset(self._muster.beside(Row.of(row).last_signed))
        return Branch(peer, tuple(row), tuple(before), tuple(since), tenured, standing, founders)

    def _electorate(
        self, row: Sequence[Certificate], *, young: bool
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Return who counts, and which founders before them, without a past in common with `row`.

        Only those count whom we have worked with: else a row of strangers, made up at any place,
        could move us. We alone, who began beside the run, are nobody to be outvoted by. The
        founders count where a `young` run parted before anybody had met.
        """
        met = self._history.met()
        if met <= {self._muster.identity.peer_id}:
            return frozenset(), frozenset()
        strangers = not any(met & c.signers for c in row)
        return met, self._founders if strangers and young else frozenset()

    async def _check(self, row: Sequence[Certificate]) -> None:
        """Verify certificates; others get their turn in between, for it takes milliseconds each."""
        for certificate in row:
            if (wrong := problem(certificate)) is not None:
                raise MisbehavedError(f"its row of certificates is wrong: {wrong}")
            await asyncio.sleep(0)

    async def _fetch_row(self, peer: str, first: int) -> list[Certificate]:
        limits = self._muster.limits
        channel = await self._muster.open(peer, "row")
        row, size = list[Certificate](), 0
        try:
            await timely(channel.send({"first": first}), limits.call_timeout_s)
            while len(row) < MAX_ROW:
                header = (await timely(channel.receive(), limits.call_timeout_s)).header
                if "certificate" not in header:
                    break
                text = str(header["certificate"])
                size += len(text)
                if size > _ROW_BYTES:
                    raise MisbehavedError("its row of certificates is too large")
                row.append(Certificate.from_json(text))
                await self._check(row[-1:])
        except ValueError as error:
            raise MisbehavedError("a certificate in its row makes no sense") from error
        finally:
            channel.close()
        return row

    async def _serve_lineage(self, channel: Channel) -> None:
        await timely(channel.receive(), self._muster.limits.call_timeout_s)
        row = self._history.row()
        await channel.send({"lineage": [[c.vote.base.epoch, c.vote.base.state_root] for c in row]})

    async def _serve_row(self, channel: Channel) -> None:
        limits = self._muster.limits
        header = (await timely(channel.receive(), limits.call_timeout_s)).header
        first = header.get("first")
        if not isinstance(first, int):
            raise MisbehavedError("a row is asked for by its first epoch")
        for certificate in self._history.since(first)[:MAX_ROW]:
            step = channel.send({"certificate": certificate.to_json()})
            await timely(step, limits.call_timeout_s)
        await channel.send({})


def _parse_lineage(body: object) -> list[tuple[int, str]]:
    if not isinstance(body, list) or len(body) > KEPT:
        raise MisbehavedError("a lineage is a list of epochs and roots")
    pairs = []
    for item in body:
        match item:
            case [int(epoch), str(root)]:
                pairs.append((epoch, root))
            case _:
                raise MisbehavedError("a lineage is a list of epochs and roots")
    if any(b[0] != a[0] + 1 for a, b in itertools.pairwise(pairs)):
        raise MisbehavedError("the epochs of a lineage do not follow each other")
    return pairs
