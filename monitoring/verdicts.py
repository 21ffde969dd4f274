"""The chain of verdicts that most peers hold to, fetched from them and checked by judging again."""

import logging
from collections.abc import Collection, Mapping, Sequence

from peer.errors import MisbehavedError, PeerError
from peer.swarm.testimony import Good
from peer.swarm.wire import Transport, call, scoped
from peer.training.chain import Fork
from peer.validation.choice import most_held
from peer.validation.course import LOOKBACK, prefer_chain
from peer.validation.judge import follow, resume
from peer.validation.ledger import Ledger
from peer.validation.rules import Rules
from peer.validation.verdict import MAX_VERDICT_BYTES, Tip, Verdict

log = logging.getLogger(__name__)

_TIMEOUT_S = 8.0
_DONORS = 4


class VerdictChain:
    """The newest verdicts of a run.

    Attributes:
        verdicts: Oldest first, at most `LOOKBACK`.
    """

    def __init__(self, rules: Rules) -> None:
        self.verdicts: list[Verdict] = []
        self._rules = rules
        self._fetched: dict[str, Verdict] = {}
        self._wanted = ""

    @property
    def ledger(self) -> Ledger | None:
        """What the last verdict led to; None before the first is here."""
        return self.verdicts[-1].judgement.after if self.verdicts else None

    async def update(
        self,
        transport: Transport,
        good: Mapping[str, Good],
        known: Collection[str],
        near: Collection[str],
    ) -> None:
        """Take in the chain that most peers hold to.

        Args:
            transport: The way to them.
            good: What they say that they hold to.
            known: Who counts where no verdict is here yet; everybody where nobody is named.
            near: Peers that there is a connection to.

        Raises:
            PeerError: It cannot be had, or is not what it should be.
        """
        ledger = self.ledger
        eligible = ledger.electorate(self._rules) if ledger is not None else set(known)
        said = {p: g for p, g in good.items() if not eligible or p in eligible}
        name = most_held(said, ())
        if name is None or all(g.round == 0 for g in said.values() if g.verdict == name):
            return
        here = [verdict.judgement.hash for verdict in self.verdicts]
        if name in here:
            return
        holders = sorted(p for p, g in said.items() if g.verdict == name)
        donors = sorted(holders, key=lambda peer: peer not in near)[:_DONORS]
        row = await self._walk(transport, name, donors, set(here))
        self._take(row, said)

    async def _walk(
        self, transport: Transport, name: str, donors: Sequence[str], known: Collection[str]
    ) -> list[Verdict]:
        """Return the verdicts that lead to `name`, oldest first, as far back as we look."""
        if name != self._wanted:  # what was fetched for another end may not be of this chain
            self._fetched.clear()
            self._wanted = name
        row: list[Verdict] = []
        while name not in known and len(row) < LOOKBACK:
            verdict = self._fetched.get(name)
            if verdict is None:
                try:
                    verdict = await self._fetch(transport, name, donors)
                except PeerError:
                    if not row:
                        raise
                    break  # so far back nobody keeps them
            self._fetched[name] = verdict
            row.append(verdict)
            name = verdict.judgement.previous
            if verdict.judgement.round == 1:
                break
        self._fetched.clear()
        return row[::-1]

    async def _fetch(self, transport: Transport, name: str, donors: Sequence[str]) -> Verdict:
        problem: PeerError = PeerError("there is no peer to ask for a verdict")
        for donor in donors:
            try:
                frame = await call(
                    transport,
                    donor,
                    scoped(self._rules.run_id, "verdict"),
                    {"hash": name},
                    timeout_s=_TIMEOUT_S,
                    max_body_bytes=MAX_VERDICT_BYTES,
                )
                return _parse(bytes(frame.body), name)
            except PeerError as error:
                problem = error
        raise problem

    def _take(self, row: Sequence[Verdict], good: Mapping[str, Good]) -> None:
        """Hold to `row`, all of it checked, if it is the run's."""
        previous = row[0].judgement.previous
        at = next((i for i, v in enumerate(self.verdicts) if v.judgement.hash == previous), None)
        if at is not None:
            base = self.verdicts[at].judgement
            follow(self._rules, Tip(base.after, base.hash), row)
            if prefer_chain(self.verdicts, row, good, tuple(good))[0] is Fork.STAY:
                return
            self.verdicts = [*self.verdicts[: at + 1], *row][-LOOKBACK:]
            return
        # The initial state is believed by those who judged by it: it may be too large to fetch.
        initial = row[0].judgement.baseline
        resume(self._rules, Tip.genesis(self._rules.run_id, initial), row)
        self.verdicts = list(row)[-LOOKBACK:]


def _parse(data: bytes, name: str) -> Verdict:
    verdict = Verdict.from_bytes(data)
    if not verdict.is_signed():
        raise MisbehavedError("a verdict lacks signatures")
    if verdict.judgement.hash != name:
        raise MisbehavedError("a verdict is not the one that was asked for")
    return verdict
