"""Getting to where the run is: epoch by epoch along our own root, or over to another state."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from peer.training.averaging import Averager
from peer.training.certificate import Base
from peer.training.history import History
from peer.training.leads import Leads
from peer.training.muster import Muster
from peer.training.repair import Branch, Repair
from peer.training.round import Replaced, Step, Waiting
from peer.training.state import GlobalState

log = logging.getLogger(__name__)

REPLAYED_EPOCHS = 16
"""Further behind than this, a snapshot is looked for before every epoch is replayed."""

_PATIENCE_S = 60.0
"""How long to wait for a state that nobody offers, before we go on by ourselves."""

FetchState = Callable[[Mapping[str, int], int], Awaitable[tuple[GlobalState, str] | None]]
"""Fetches the newest state whose root is among those given, beyond an epoch; and its root."""


class CatchUp:
    """Decides how a peer that is not where the others are gets there.

    Args:
        muster: Our standing and the others.
        averager: Finds certified averages.
        history: Our row of certificates.
        fetch: Fetches a certified state.
        founders: The run's founders.
    """

    def __init__(
        self,
        muster: Muster,
        averager: Averager,
        history: History,
        fetch: FetchState,
        founders: Collection[str],
    ) -> None:
        self._muster = muster
        self._averager = averager
        self._history = history
        self._repair = Repair(muster, history, founders)
        self._fetch = fetch
        self._waiting_since_s: float | None = None
        self._leads = Leads()
        self._given_up_until_s = float("-inf")
        self._promising: set[str] = set()

    async def start(self) -> None:
        """Show others our row."""
        await self._repair.start()

    def suspects(self) -> set[str]:
        """Return the peers that may be on another row, but for those looked at just now."""
        now_s = self._muster.now_s
        if now_s < self._given_up_until_s:
            return set()
        return self._leads.open(self._repair.suspects(), now_s)

    @property
    def doubtful(self) -> bool:
        """Whether others say that the run is elsewhere."""
        return bool(self._averager.ahead() or self.suspects())

    async def is_behind(self) -> bool:
        """Return whether `step` leads somewhere: anybody can say that the run is elsewhere.

        Work goes on meanwhile.
        """
        mine = self._muster.standing
        if not self.doubtful or mine.root is None or self._averager.in_round:
            return False
        base = Base(self._muster.run_id, mine.generation, mine.epoch, mine.root)
        if await self._averager.can_follow(base):
            return True
        suspects = self.suspects()
        branch, _ = await self._repair.best(sorted(suspects))
        self._promising = {branch.peer_id} if branch else set()
        if branch is None:
            self._note_vain(suspects)
        return branch is not None

    async def step(self, base: Base) -> Step | None:
        """Return the next epoch on top of `base`, or another state to go over to.

        None if there is nothing, or nothing better than what we have.
        """
        ahead = self._averager.ahead()
        reports = (self._muster.roster.report(peer) for peer in ahead)
        gap = max((r.epoch for r in reports if r), default=base.epoch) - base.epoch
        step: Step | None = None
        if gap > REPLAYED_EPOCHS:
            step = await self._go_over(base, ahead)
        if not isinstance(step, Replaced) and ahead:
            step = await self._averager.follow(base) or step
        if step is None:
            step = await self._go_over(base, ahead | self.suspects())
        return self._bounded(step)

    def _bounded(self, step: Step | None) -> Step | None:
        """Return `step`, but for a wait that has lasted too long."""
        if not isinstance(step, Waiting):
            self._waiting_since_s = None
            return step
        now_s = self._muster.now_s
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s
        if now_s - self._waiting_since_s < _PATIENCE_S:
            return step
        self._waiting_since_s = None
        self._given_up_until_s = now_s + _PATIENCE_S
        return None

    async def _go_over(self, base: Base, peers: set[str]) -> Step | None:
        suspects = peers & self.suspects()
        suspects = suspects & self._promising or suspects
        branch, reason = await self._repair.best(sorted(suspects))
        if branch is None:
            log.debug("we stay: %s", reason)
            self._note_vain(suspects)
            return None
        # A row that begins where we stand can be followed: nothing of ours is lost by it.
        onward = not branch.ours and branch.row[0].vote.base == base
        taken = None
        if onward and len(branch.row) <= REPLAYED_EPOCHS:
            taken = await self._averager.take(branch.row[0], branch.peer_id)
        if taken is not None:
            return taken
        found = await self._fetch(branch.roots, base.epoch if not branch.ours else -1)
        if found is None and onward:
            taken = await self._averager.take(branch.row[0], branch.peer_id)
        if found is None:
            return taken or Waiting(f"{reason}; waiting for a peer that offers its state")
        self._leads.forgive()
        self._averager.forgive()
        state, root = found
        me = self._muster.identity.peer_id
        mine = [entry for c in branch.ours for entry in c.vote.entries if entry.peer_id == me]
        self._adopt(branch, root)
        until = branch.roots[root]
        led_by = next((c for c in self._history.row() if c.vote.base.epoch == until - 1), None)
        return Replaced(
            state=state,
            led_by=led_by,
            reason=reason,
            lost_epochs=len(branch.ours),
            lost_weight=sum(entry.weight for entry in mine),
        )

    def _note_vain(self, peers: set[str]) -> None:
        muster = self._muster
        for peer in peers:
            self._leads.vain(peer, muster.now_s, tenured=peer in muster.tenured)
        self._leads.forget({member.peer_id for member in muster.roster.members()})

    def _adopt(self, branch: Branch, root: str) -> None:
        """Make the branch, up to the state of that root, our own row."""
        first = branch.row[0].vote.base.epoch
        before = branch.before
        if before and before[-1].vote.base.epoch != first - 1:
            before = ()  # what lies between is not known
        until = branch.roots[root]
        self._history.replace([*before, *(c for c in branch.row if c.vote.base.epoch < until)])
        witness = next(c for c in branch.row if c.vote.base.state_root == root)
        self._muster.last_group = frozenset(witness.vote.group)
        self._muster.tenured = self._history.tenured()
        self._muster.abreast = False

    async def watch(self, note: Callable[[], None]) -> None:
        """Call `note` whenever we are behind, for ever; `step` tells when we are not any more."""
        while True:
            if await self.is_behind():
                note()
            await self._muster.moved(0.25)
            await asyncio.sleep(0)
