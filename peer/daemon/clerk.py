"""Carrying out what a step of a validation round asks for, beside the next looks."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from peer import __version__
from peer.daemon.scoring import Scorer
from peer.daemon.verdicts import Verdicts
from peer.errors import PeerError
from peer.events import Message
from peer.identity import Identity
from peer.swarm.bodies import RecordBody
from peer.swarm.dht import Dht
from peer.swarm.kinds import KINDS
from peer.swarm.testimony import Assent, Proposal
from peer.training.history import History
from peer.training.muster import Muster
from peer.validation.actions import (
    Action,
    Evaluate,
    Fetch,
    Found,
    Propose,
    PublishCommit,
    PublishReveal,
    PublishTicket,
    SignVerdict,
)
from peer.validation.archive import Archive
from peer.validation.rules import Rules
from peer.validation.score import make_commit, make_reveal
from peer.validation.ticket import make
from peer.validation.verdict import Tip, Verdict

log = logging.getLogger(__name__)

_TRIES = 3
"""So often a record is published, or a judgement fetched, before it is given up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chambers:
    """What a validator works with.

    Attributes:
        identity: Ours.
        muster: Our standing and the others.
        dht: Where records lie.
        history: Our row of certificates.
        rules: The run's.
        look_s: How often to look while a round is under way.
        willing: Whether this peer takes a seat.
        archive: Verdicts on our disk.
        genesis: The end of a chain without verdicts.
        scorer: Scores states.
        unix_time_s: The wall clock.
        emit: Takes events.
    """

    identity: Identity
    muster: Muster
    dht: Dht
    history: History
    rules: Rules
    look_s: float
    willing: bool
    archive: Archive
    genesis: Tip
    scorer: Scorer
    unix_time_s: Callable[[], float]
    emit: Callable[[Message], None]


class Clerk:
    """Does what takes time, and keeps what came of it.

    Args:
        chambers: What it works with.
        verdicts: Fetches judgements.
        wake: Has the validator look at once.
    """

    def __init__(self, chambers: Chambers, verdicts: Verdicts, wake: Callable[[], None]) -> None:
        self._with = chambers
        self._verdicts = verdicts
        self._wake = wake
        self._fetched: list[Verdict] = []
        self._evaluation: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self.found: Found | None = None
        """What the last question's states score."""
        self.problem: str | None = None
        """What kept this peer from its part in the last round, in words."""

    def carry_out(self, action: Action) -> None:
        """Begin what an action asks for; a verdict is not ours to adopt."""
        identity = self._with.identity
        match action:
            case PublishTicket(seed):
                self.problem = None
                self.publish("ticket", make(identity, seed))
            case Evaluate():
                self.end_scoring()
                self._evaluation = self.send(self._score(action))
            case PublishCommit(question, losses):
                self.publish("commit", make_commit(identity, question, losses))
            case PublishReveal(question, losses, witnessed):
                environment = f"ctpeer {__version__}"
                reveal = make_reveal(identity, question, losses, witnessed, environment)
                self.publish("reveal", reveal)
            case Propose(judgement):
                body = Proposal(seed=judgement.seed, judgement=judgement.hash)
                self.publish("proposal", body)
            case Fetch(judgement=name, peers=donors):
                self.send(self._fetch(name, donors))
            case SignVerdict(judgement):
                empty = Assent(
                    seed=judgement.seed, judgement=judgement.hash, public_key="", signature=""
                )
                self.publish("assent", empty.signed_by(identity))

    def end_scoring(self) -> None:
        """End a score that nobody waits for any more."""
        if self._evaluation is not None:
            self._evaluation.cancel()

    def take_fetched(self) -> tuple[Verdict, ...]:
        """Return the judgements that were fetched since this was last asked."""
        fetched, self._fetched = tuple(self._fetched), []
        return fetched

    def publish(self, kind: str, body: RecordBody) -> None:
        """Put a record of ours into the DHT."""

        async def put() -> None:
            for _ in range(_TRIES):
                try:
                    lifetime_s = KINDS[kind].max_lifetime_s
                    await self._with.dht.put(self._with.rules.run_id, kind, body, lifetime_s)
                except PeerError as error:
                    self._fail(f"our {kind} was not published: {error}")
                    await asyncio.sleep(self._with.look_s)
                else:
                    return

        self.send(put())

    def send(self, errand: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Have something done beside the next looks."""
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._note_done)
        return task

    def _note_done(self, task: "asyncio.Task[None]") -> None:
        self._errands.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an errand of the validator failed", exc_info=error)
            self.problem = f"an errand of the validator failed: {error}"

    async def _score(self, asked: Evaluate) -> None:
        epoch = asked.candidate.epoch
        log.info("scoring epoch %d as %s", epoch, asked.place)
        match await self._with.scorer.score(asked):
            case Found() as found:
                self.found, self.problem = found, None
            case reason:
                self._fail(f"epoch {epoch} was not scored: {reason}")
        self._wake()

    async def _fetch(self, name: str, donors: Collection[str]) -> None:
        for _ in range(_TRIES):
            verdict = await self._verdicts.fetch(name, donors)
            if verdict is not None:
                self._fetched.append(verdict)
                self._wake()
                return
            await asyncio.sleep(self._with.look_s)

    def _fail(self, problem: str) -> None:
        log.warning("%s", problem)
        self.problem = problem
