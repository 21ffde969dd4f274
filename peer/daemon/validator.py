"""This peer as a validator: it looks into the DHT, takes steps, and has done what they ask for.

All that is decided is decided in `peer.validation`, which is pure. Everything here runs in the
network's event loop; the training loop knows it as `peer.daemon.validation` shows it.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from peer.daemon.clerk import Chambers, Clerk
from peer.daemon.docket import Docket
from peer.daemon.verdicts import Verdicts
from peer.errors import PeerError
from peer.events import ValidationMoved, VerdictAdopted
from peer.swarm.kinds import KINDS
from peer.swarm.records import Envelope
from peer.swarm.testimony import Good
from peer.validation.actions import Adopt, Candidate
from peer.validation.committee import attendance, members_of
from peer.validation.course import Restart, explain, restart
from peer.validation.duty import Duty, duty
from peer.validation.round import step
from peer.validation.rules import POINTS_A_NAT, Timing
from peer.validation.state import Phase, State, begin
from peer.validation.ticket import DoubleTicket
from peer.validation.verdict import Tip, Verdict
from peer.validation.view import Observed

log = logging.getLogger(__name__)

_WATCHED: Mapping[Phase, tuple[str, ...]] = {
    Phase.WAIT_CANDIDATE: ("proposal", "assent", "good"),
    Phase.TICKETS: ("ticket", "good"),
    Phase.COMMIT: ("ticket", "commit", "reveal", "good"),
    Phase.REVEAL: ("commit", "reveal", "proposal", "good"),
    Phase.VERDICT: ("reveal", "proposal", "assent", "good"),
    Phase.LAPSED: ("proposal", "assent", "good"),
    Phase.DONE: ("proposal", "assent", "good"),
}
"""What a peer looks at in each phase: every kind costs a search."""

_RESTING = {Phase.WAIT_CANDIDATE, Phase.LAPSED, Phase.DONE}
_REST_LOOKS = 5
"""Between rounds so many looks become one."""
_SETTLE_S = 30.0
_LEARN_TIMEOUT_S = 120.0
_BUSY_AFTER_S = 20.0
"""So long after a verdict a better one of the same round may still come."""


class Validator:
    """Takes part in the judging of checkpoints.

    Args:
        chambers: What it works with.
        joins: Whether this peer has no state of its own yet.
    """

    def __init__(self, chambers: Chambers, *, joins: bool) -> None:
        self._with = chambers
        self._joined = joins
        self._worked = False
        self._resting = False
        self._timing = Timing.paced(chambers.look_s)
        self._docket = Docket(chambers.archive, chambers.rules, chambers.genesis, self._report)
        self._state = self._begin({})
        self.verdicts = Verdicts(chambers.muster, chambers.archive, self._proposed)
        """Gives verdicts to whoever asks."""
        self._candidate: Candidate | None = None
        self._learning: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._clerk = Clerk(chambers, self.verdicts, self._woken.set)
        self._said_s = self._adopted_s = float("-inf")
        self._said: Good | None = None
        self._shown: ValidationMoved | None = None
        self.accepted: dict[str, str] = {}
        """Verdicts by the states that they accepted; whoever takes them in removes them."""
        self.restart: Restart | None = None
        """Where the training loop has to go on from instead."""

    @property
    def tip(self) -> Tip:
        """The end of the chain that we hold to."""
        return self._docket.tip

    @property
    def is_new(self) -> bool:
        """Whether this peer joined, and worked with nobody yet in a run that may have verdicts.

        As long as others are not heard of, nobody knows that there is none.
        """
        self._worked |= self._with.muster.abreast
        return self._joined and not self._worked and not self._docket.is_empty_elsewhere

    @property
    def needed(self) -> frozenset[str]:
        """The states that are judged, or that others may be judged by."""
        roots = {mark.state_root for mark in self.tip.ledger.accepted}
        judged = (self._state.candidate, self._candidate)
        return frozenset(roots.union(each.state_root for each in judged if each is not None))

    def duty(self, epoch: int, worked_epoch: int | None) -> tuple[Duty, str]:
        """Return what we do where we would rather judge than train; see `peer.validation.duty`."""
        if self.is_new:
            return Duty.TRAIN, "joining those who train, before it only judges"
        ledger, me = self.tip.ledger, self._with.identity.peer_id
        return duty(ledger, me, epoch, worked_epoch, self._with.rules)

    async def settle(self) -> None:
        """Find out which verdict the others hold to, before training begins."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await self._ask_around()
        self._set_course()
        self._show()

    async def _ask_around(self) -> None:
        while True:
            good: Mapping[str, Good] = {}
            with contextlib.suppress(PeerError):
                good = self._of_known(await self._with.dht.get(self._run_id, "good"))
            await self._learn(good, ahead=0)
            # Whoever does not join finds out beside its work.
            if not self.is_new or self.tip.ledger.round or not self._with.muster.live():
                return
            await asyncio.sleep(self._with.look_s)

    def note_candidate(self, epoch: int, state_root: str) -> None:
        """Take in that the state of an epoch is certified, and lies on our disk."""
        every = self._with.rules.every_epochs
        row = {c.vote.base.epoch: c for c in self._with.history.row()}
        led_by = row.get(epoch - 1)
        if led_by is None:
            return
        attended = [row[e] for e in range(epoch - every, epoch) if e in row]
        self._candidate = Candidate(
            epoch=epoch,
            state_root=state_root,
            members=members_of(led_by),
            attendance=attendance(attended) if len(attended) == every else None,
        )
        self._woken.set()

    def note_rest(self, *, resting: bool) -> None:
        """Take in that the device is given back, or taken again: nothing is scored meanwhile."""
        self._resting = resting
        self._state = dataclasses.replace(self._state, willing=self._is_willing)
        if resting:
            self._clerk.end_scoring()

    def note_restarted(self) -> None:
        """Take in that training goes on from where `restart` said."""
        self._candidate = None
        self._state = self._begin(self._state.view.doubles)
        self._set_course()

    @property
    def _run_id(self) -> str:
        return self._with.rules.run_id

    @property
    def _is_willing(self) -> bool:
        return self._with.willing and not self._resting

    def _begin(self, doubles: Mapping[str, DoubleTicket]) -> State:
        return begin(
            self._with.identity.peer_id,
            self._with.rules,
            self._timing,
            self.tip,
            willing=self._is_willing,
            doubles=doubles,
        )

    def _set_course(self) -> None:
        """Say where the training loop has to go, by what we hold to and where it is."""
        standing = self._with.muster.standing
        place = (standing.generation, standing.epoch)
        self.restart = restart(self.tip, place, self._docket.last, joins=self.is_new)
        if self.restart is not None:
            self._candidate = None  # it is of the branch that is left

    async def watch(self) -> None:
        """Take part for as long as we live."""
        looks = 0
        while True:
            looks += 1
            now_s = asyncio.get_running_loop().time()
            resting = self._state.phase in _RESTING and now_s - self._adopted_s > _BUSY_AFTER_S
            if not resting or looks % _REST_LOOKS == 0 or self._woken.is_set():
                self._woken.clear()
                try:
                    await self._look(now_s)
                except PeerError as error:
                    log.debug("no look at the validators: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._with.look_s):
                    await self._woken.wait()

    async def _look(self, now_s: float) -> None:
        """Take one step."""
        # On the way to another generation there is none.
        here = self._with.muster.standing.generation == self.tip.ledger.generation
        fresh = self._candidate if here else None
        is_next = fresh is not None and fresh.epoch > self.tip.ledger.epoch
        over = is_next or now_s - self._adopted_s > _BUSY_AFTER_S
        if self._state.phase is Phase.DONE and over:
            self._state = self._begin(self._state.view.doubles)
        seen = await self._observe()
        self._state, actions = step(now_s, self._state, seen, fresh, self._clerk.found)
        for action in actions:
            if isinstance(action, Adopt):
                self._adopted_s = now_s
                self._adopt(action.verdict)
            else:
                self._clerk.carry_out(action)
        self._say_where(now_s)
        if self._learning is None or self._learning.done():
            self._learning = self._clerk.send(self._learn(seen.good, ahead=1))
        self._set_course()
        self._show()

    def _of_known(self, records: Mapping[str, Envelope]) -> dict[str, Any]:
        """Return what those said who may sit by what we hold to; all of it where we know nobody.

        Keys are cheap, and so is one contribution: neither moves anybody who knows a chain.
        """
        known = self._docket.electorate()
        if not self.tip.ledger.round and not self.is_new:
            known = set(self._with.history.met())
        known.discard(self._with.identity.peer_id)
        return {p: each.body for p, each in records.items() if not known or p in known}

    async def _observe(self) -> Observed:
        found: dict[str, dict[str, Envelope]] = {}
        for kind in _WATCHED[self._state.phase]:
            found[kind] = await self._with.dht.get(self._run_id, kind)

        def said(kind: str) -> Iterable[Any]:
            return [envelope.body for envelope in found.get(kind, {}).values()]

        return Observed(
            tickets=said("ticket"),
            commits=said("commit"),
            reveals=said("reveal"),
            assents=said("assent"),
            proposals=self._of_known(found.get("proposal", {})),
            good=self._of_known(found.get("good", {})),
            verdicts=self._clerk.take_fetched(),
        )

    def _proposed(self, name: str) -> Verdict | None:
        seen = self._state.view.judgements.get(name)
        if seen is None:
            return None
        return Verdict(judgement=seen.record, assents=self._state.view.signed(seen.record))

    # ---- consequences

    def _adopt(self, verdict: Verdict) -> None:
        """Hold to a verdict, and act on it."""
        self._clerk.end_scoring()
        self._docket.adopt(verdict)
        self._set_course()

    def _report(self, verdict: Verdict) -> None:
        judgement, me = verdict.judgement, self._with.identity.peer_id
        log.info("verdict %d: %s", judgement.round, explain(judgement))
        good = judgement.after.last_good
        if good.state_root == judgement.candidate:
            self.accepted[good.state_root] = judgement.hash
        revealed = any(s.reveal and s.ticket.peer_id == me for s in judgement.seats)
        self._with.emit(
            VerdictAdopted(
                round=judgement.round,
                epoch=judgement.epoch,
                state_root=judgement.candidate,
                decision=judgement.decision.value,
                reason=judgement.reason.value,
                difference_nats=judgement.difference_points / POINTS_A_NAT,
                signers=len(verdict.assents),
                called=len(judgement.called),
                seat=judgement.committee.place(me),
                agreed=me in judgement.cluster if revealed else None,
                struck=me in judgement.struck,
                small_swarm=judgement.committee.size.is_small,
                generation=judgement.after.generation,
                last_good_epoch=good.epoch,
                last_good_root=good.state_root,
                unix_time_s=self._with.unix_time_s(),
            )
        )

    def _say_where(self, now_s: float) -> None:
        """Keep it known to which verdict we hold."""
        ledger = self.tip.ledger
        good = Good(
            round=ledger.round,
            verdict=self.tip.hash,
            state_root=ledger.last_good.state_root,
            generation=ledger.generation,
        )
        if good == self._said and now_s - self._said_s < KINDS["good"].max_lifetime_s / 4:
            return
        self._said, self._said_s = good, now_s
        self._clerk.publish("good", good)

    async def _learn(self, good: Mapping[str, Good], ahead: int) -> None:
        """Find out whether the others hold to another chain, and follow it; see `Docket.learn`."""
        me = self._with.identity.peer_id
        others = {peer: said for peer, said in good.items() if peer != me}
        went = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEARN_TIMEOUT_S):
                went = await self._docket.learn(
                    others, self.verdicts, ahead=ahead, joins=self.is_new
                )
        if went:
            self._state = self._begin(self._state.view.doubles)
            self._set_course()

    def _show(self) -> None:
        """Tell the supervisor where the round is, when that changes."""
        state, ledger = self._state, self.tip.ledger
        committee, judged = state.committee, state.candidate
        place = committee.place(self._with.identity.peer_id) if committee is not None else None
        shown = ValidationMoved(
            phase=state.phase.value if not state.reason else f"{state.phase.value}: {state.reason}",
            candidate_epoch=judged.epoch if judged is not None else None,
            seat=place,
            round=ledger.round,
            generation=ledger.generation,
            last_good_epoch=ledger.last_good.epoch,
            last_good_root=ledger.last_good.state_root,
            problem=self._clerk.problem,
        )
        if shown != self._shown:
            self._shown = shown
            self._with.emit(shown)
