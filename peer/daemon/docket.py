"""The chain of verdicts that this peer holds to, and going over to the one that most hold to."""

import itertools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from peer.daemon.verdicts import VERDICT_ELEMENTS, Verdicts
from peer.errors import MisbehavedError
from peer.swarm.testimony import Good
from peer.training.chain import Fork
from peer.training.transfer import offload
from peer.validation.archive import Archive
from peer.validation.choice import most_held
from peer.validation.course import LOOKBACK, continued, prefer_chain
from peer.validation.judge import resume
from peer.validation.rules import Rules
from peer.validation.verdict import Judgement, Tip, Verdict

log = logging.getLogger(__name__)


class Docket:
    """Our chain: all of it in the archive, the newest `LOOKBACK` verdicts in memory.

    Args:
        archive: Where it lies.
        rules: The run's.
        genesis: The end of a chain without verdicts.
        on_new: Told of each verdict that was not in the chain before.
    """

    def __init__(
        self, archive: Archive, rules: Rules, genesis: Tip, on_new: Callable[[Verdict], None]
    ) -> None:
        self._archive = archive
        self._rules = rules
        self._genesis = genesis
        self._on_new = on_new
        self._chain = _signed(archive.chain(LOOKBACK))
        try:
            self.tip = resume(rules, genesis, self._chain)
        except MisbehavedError as error:
            log.warning("the verdicts on this disk are not used: %s", error)
            self._chain, self.tip = [], genesis
        self.is_empty_elsewhere = False
        """Whether most of the others said, when last heard, that there is no verdict yet."""

    @property
    def last(self) -> Judgement | None:
        """The judgement at the chain's end."""
        return self._chain[-1].judgement if self._chain else None

    def electorate(self) -> set[str]:
        """Return who may sit by what we hold to; nobody before the first verdict."""
        return self.tip.ledger.electorate(self._rules)

    def adopt(self, verdict: Verdict) -> None:
        """Hold to a verdict that continues our chain, or takes the place of its last one."""
        judgement = verdict.judgement
        kept = [v for v in self._chain if v.judgement.round < judgement.round]
        self._take([*kept, verdict], Tip(judgement.after, judgement.hash))

    async def learn(
        self, good: Mapping[str, Good], verdicts: Verdicts, *, ahead: int, joins: bool
    ) -> bool:
        """Go over to the chain that most of the others hold to; return whether we did.

        Args:
            good: What the others say that they hold to.
            verdicts: Fetches what we lack.
            ahead: By how many verdicts they may be further without that: a round of its own brings
                the next one.
            joins: Whether the first verdict that they give may be believed, as `continued` does.
        """
        chain = self._chain
        row = await self._fetch_row(good, verdicts, ahead)
        if not row:
            return False
        try:
            found = await offload(
                VERDICT_ELEMENTS * len(row),
                lambda: continued(self._rules, chain, self._genesis, row, joins=joins),
            )
        except MisbehavedError as error:
            log.warning("the verdicts that most hold to are not followed: %s", error)
            return False
        if found is None:
            log.warning("others hold to a chain of verdicts that meets ours nowhere")
        # Where a verdict came meanwhile, the next look begins with it.
        return found is not None and self._chain is chain and self._go_over(row, found, good)

    async def _fetch_row(
        self, good: Mapping[str, Good], verdicts: Verdicts, ahead: int
    ) -> list[Verdict]:
        """Return the verdicts that most hold to and that we lack, oldest first; none if none."""
        name = most_held(good, ())
        if name is None:
            return []
        genesis = self._genesis.hash
        self.is_empty_elsewhere = name == genesis
        ours = {v.judgement.hash for v in self._chain} | {genesis}
        donors = [peer for peer, said in good.items() if said.verdict == name]
        number = max(good[donor].round for donor in donors)
        if name in ours or 0 < number - self.tip.ledger.round <= ahead or self._is_past(name):
            return []
        row = await verdicts.walk(name, donors, ours)
        return row if row and row[-1].judgement.hash == name else []

    def _is_past(self, name: str) -> bool:
        """Return whether we once held to that verdict, and have more since than is at hand."""
        verdict = self._archive.get(name) if self._chain else None
        return verdict is not None and verdict.judgement.round < self._chain[0].judgement.round

    def _go_over(self, row: list[Verdict], tip: Tip, good: Mapping[str, Good]) -> bool:
        decision, reason = prefer_chain(self._chain, row, good, tuple(good))
        if decision is Fork.STAY:
            log.debug("we stay on our chain of verdicts: %s", reason)
            return False
        log.info("holding to verdict %d of the others: %s", tip.ledger.round, reason)
        common = row[0].judgement.previous
        kept = list(self._chain)
        while kept and kept[-1].judgement.hash != common:
            kept.pop()
        self._take([*kept, *row], tip)
        return True

    def _take(self, chain: list[Verdict], tip: Tip) -> None:
        known: Collection[str] = {verdict.judgement.hash for verdict in self._chain}
        self._chain, self.tip = chain[-LOOKBACK:], tip
        for verdict in chain:
            if verdict.judgement.hash in known:
                continue
            try:
                self._archive.keep(verdict)
            except OSError as error:
                log.warning("a verdict cannot be written: %s", error)
            self._on_new(verdict)


def _signed(chain: Sequence[Verdict]) -> list[Verdict]:
    """Return the newest verdicts in a row of which none lost signatures on the disk."""
    row: list[Verdict] = []
    for is_signed, verdicts in itertools.groupby(chain, key=Verdict.is_signed):
        if is_signed:
            row = list(verdicts)
    return row
