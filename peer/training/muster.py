"""Exchanging reports with the other peers, and deciding when the swarm has enough for an epoch."""

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any

from peer.clock import Clock
from peer.errors import PeerError, UnreachableError
from peer.events import Message as Event
from peer.events import PeerMisbehaved
from peer.identity import Identity
from peer.swarm.membership import MAX_SHUNNED, Report, Roster, parse_report
from peer.swarm.throttle import Line
from peer.swarm.wire import Channel, Frame, Handler, Transport, call, scoped
from peer.training import progress
from peer.training.certificate import Base

log = logging.getLogger(__name__)

QUIET_S = 5.0
"""A peer that was not heard of for so long is asked for a sign of life."""

_HURRY_S, _MARGIN_S = 1.0, 0.02
"""How long a round waits for reports at most, and beyond twice the middle one's time."""

_MOST_MISTAKES = 2
"""What we hold against a peer so often may be wrong, where we would part from others for it."""

_MOST_DOUBTS = 4
"""A round that fails at a peer counts two of them; one that succeeds takes one away."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How long to wait, and how much to take.

    Attributes:
        call_timeout_s: For a short answer.
        frame_timeout_s: For the next frame of a transfer.
        matchmaking_timeout_s: For peers that are live but not ready yet.
        part_timeout_s: For a whole transfer, beside what its bytes take at a slow line's speed.
        vote_timeout_s: For the votes of others.
        max_weight: The most loss terms that one contribution may claim.
        target: Loss terms that end an epoch.
    """

    call_timeout_s: float = 4.0
    frame_timeout_s: float = 8.0
    matchmaking_timeout_s: float = 30.0
    part_timeout_s: float = 60.0
    vote_timeout_s: float = 5.0
    max_weight: int
    target: int


class Muster:
    """This peer's standing, and what it knows of the others'.

    Everything but `gather` and `wanted` runs in the network's event loop.

    Args:
        identity: Ours.
        transport: The way to the others.
        run_id: The run.
        roster: The others.
        limits: Deadlines and bounds.
        clock: The time.
        emit: Takes events.
    """

    def __init__(
        self,
        identity: Identity,
        transport: Transport,
        run_id: str,
        roster: Roster,
        limits: Limits,
        clock: Clock,
        emit: Callable[[Event], None],
    ) -> None:
        self.identity = identity
        self.transport = transport
        self.run_id = run_id
        self.roster = roster
        self.limits = limits
        self.clock = clock
        self.emit = emit
        self.line = Line.of(None, None)
        self.client = False
        self.resting = False
        self.leader: str | None = None
        self.abreast = False
        self.addresses: tuple[str, ...] = ()
        self.last_group: frozenset[str] = frozenset()
        self.tenured: frozenset[str] = frozenset()
        self._standing = Report()
        self._moved = asyncio.Event()
        self._weight = 0
        self._rate = 0.0
        self._wanted = False
        self._share = float(limits.target)
        self._others_train = False
        self._asked = asyncio.Event()
        self._polls: set[asyncio.Task[bool]] = set()
        self._doubts: Counter[tuple[str, str]] = Counter()

    # ---- for the training thread

    def gather(self, weight: int, rate: float) -> None:
        """Note what has been gathered since the last epoch."""
        self._weight, self._rate = weight, rate

    @property
    def share(self) -> float:
        """Our even share of an epoch's batch; all of it where nobody else is."""
        return self._share

    @property
    def others_train(self) -> bool:
        """Whether a live peer trains, by what they say, wherever it stands."""
        return self._others_train

    @property
    def wanted(self) -> bool:
        """Whether the swarm has enough, so that this peer should bring what it has."""
        return self._wanted

    # ---- where we stand

    @property
    def standing(self) -> Report:
        """The report that we give of ourselves."""
        return self._standing.model_copy(
            update={
                "weight": self._weight,
                "rate": self._rate,
                "ready": self._wanted,
                "leader": self.leader,
                "abreast": self.abreast,
                "client": self.client,
                "resting": self.resting,
                "addresses": self.addresses,
                "shuns": self._shuns(),
                "now_s": self.clock.now_s(),
            }
        )

    @property
    def now_s(self) -> float:
        """The monotonic time."""
        return self.clock.monotonic_s()

    @property
    def place(self) -> tuple[int, int]:
        """Generation and epoch."""
        return self._standing.generation, self._standing.epoch

    def stand(self, generation: int, epoch: int, root: str | None) -> None:
        """Note the state that we are at; `root` is None while it is being computed."""
        before = (self._standing.generation, self._standing.epoch)
        if before != (generation, epoch):
            self._wanted = False
            self._weight = 0
            self._asked.set()
        self._standing = Report(generation=generation, epoch=epoch, root=root)
        self.announce()

    def is_ready(self) -> None:
        """Note that we want to average now."""
        self._wanted = True

    def ask(self) -> None:
        """Have `watch` look at once whether the swarm has enough: a peer says so."""
        self._asked.set()

    async def moved(self, timeout_s: float) -> None:
        """Wait until our standing or our round changes, at most `timeout_s`."""
        await _wait(self._moved, timeout_s)

    def announce(self) -> None:
        """Wake those who wait for our standing or our round to change."""
        self._moved.set()
        self._moved = asyncio.Event()

    # ---- the others

    async def start(self) -> None:
        """Answer those who ask where we stand."""
        await self.serve("state", self._serve_state)

    async def serve(self, name: str, handler: Handler) -> None:
        """Serve a handler of this run."""
        await self.transport.serve(scoped(self.run_id, name), handler)

    async def open(self, peer: str, name: str) -> Channel:
        """Open a stream to a handler of this run; see `Transport.open`."""
        try:
            async with asyncio.timeout(self.limits.call_timeout_s):
                return await self.transport.open(peer, scoped(self.run_id, name))
        except TimeoutError as error:
            raise UnreachableError(f"{peer} did not answer in time") from error

    async def call(self, peer: str, name: str, header: dict[str, object]) -> Frame:
        """Ask a handler of this run for one short answer; see `peer.swarm.wire.call`."""
        timeout_s = self.limits.call_timeout_s
        full_name = scoped(self.run_id, name)
        return await call(self.transport, peer, full_name, header, timeout_s=timeout_s)

    async def poll(self, peers: Iterable[str], *, hurried: bool = False) -> set[str]:
        """Exchange reports with `peers` at once; return those who answered.

        Args:
            peers: Whom.
            hurried: Whether to go on without those who take far longer than the middle one of
                them; what they answer later is taken in all the same.
        """
        loop = asyncio.get_running_loop()
        began_s, until_s = loop.time(), float("inf")
        asked = {self._begin(self._poll(p)): p for p in peers if p != self.identity.peer_id}
        left = set(asked)
        if hurried:
            until_s = began_s + _HURRY_S
        while left and loop.time() < until_s:
            wait_s = until_s - loop.time() if hurried else None
            done, left = await asyncio.wait(
                left, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
            )
            if hurried and done and 2 * (len(asked) - len(left)) >= len(asked):
                middle_s = loop.time() - began_s
                until_s = min(until_s, began_s + 2 * middle_s + _MARGIN_S)
        return {peer for task, peer in asked.items() if task.done() and task.result()}

    def _begin(self, work: Coroutine[Any, Any, bool]) -> "asyncio.Task[bool]":
        task = asyncio.create_task(work)
        self._polls.add(task)
        task.add_done_callback(self._polls.discard)
        return task

    def not_down(self) -> set[str]:
        """Return the other peers that no contact failed with since they were last heard.

        Silence alone does not make a peer gone: whoever means to go on alone asks first.
        """
        return {m.peer_id for m in self.roster.members() if m.failures == 0 and m.report}

    def left_behind(self, generation: int) -> set[str]:
        """Return the live peers that we work with and that are not in `generation` yet.

        Those that rest are among them: whoever rested at the run's end is called back as we were.
        """
        reports = ((peer, self.roster.report(peer)) for peer in self.live() & self.tenured)
        return {peer for peer, report in reports if report and report.generation < generation}

    def live(self) -> set[str]:
        """Return the other peers that answered lately."""
        return self.roster.live(self.now_s)

    def heeded(self, peers: set[str]) -> set[str]:
        """Return those of the live `peers` that did not cheat or stall lately."""
        trusted = self._trusted(peers)
        # Whoever finds fault with most of the others is not to part from them for it.
        return trusted if 2 * (len(trusted) + 1) > len(peers) else peers

    def _trusted(self, peers: set[str]) -> set[str]:
        """Return whom of the live `peers` to work with, before others are asked.

        Those at fault may be the only way to more peers that we work with: a doubt that may be
        wrong, as long as it is rare, is not to part us from them.
        """
        trusted = peers & self.roster.trusted(self.now_s)
        beyond = self.tenured - self.live() - {self.identity.peer_id}
        if beyond and 2 * (len(trusted) + 1) <= len(peers | beyond):
            rarely = {p for p in peers if self.roster.distrusts(p) <= _MOST_MISTAKES}
            return trusted | rarely
        return trusted

    def fellows(self, base: Base) -> set[str]:
        """Return the live peers that a round on `base` may be made with.

        Those one epoch behind are among them: they are just taking in what we have.
        """
        return self.heeded(self._there(base)) - self.outcasts(base)

    def beside(self, signers: Collection[str]) -> set[str]:
        """Return the peers that work where we stand, or will in a moment; we may be among them.

        Whoever just came back is not: it may have missed all that happened since.

        Args:
            signers: Who went on from here. Where we only follow, and nobody of them is tenured, the
                tenured that work beyond us did not leave it to them, and count, too.
        """
        mine = self._standing
        base = Base(self.run_id, mine.generation, mine.epoch, mine.root or "")
        reports = ((peer, self.roster.report(peer)) for peer in self._there(base))
        abreast = {peer for peer, report in reports if report and report.abreast}
        works = self.abreast and not self.resting
        alien = self.resting and not self.tenured.intersection(signers)
        return (
            abreast
            | ({self.identity.peer_id} if works else set())
            | (self._tenured_beyond() if alien else set())
        )

    def _tenured_beyond(self) -> set[str]:
        mine = self._standing
        reports = ((peer, self.roster.report(peer)) for peer in self.live() & self.tenured)
        return {
            peer
            for peer, report in reports
            if report
            and not report.resting
            and report.generation == mine.generation
            and report.epoch >= mine.epoch
        }

    def unreachable(self) -> set[str]:
        """Return the peers that we know of and cannot reach."""
        return {member.peer_id for member in self.roster.members()} - self.live()

    def unwelcome(self, base: Base) -> set[str]:
        """Return the live peers that we do not let into a group on `base` that we lead."""
        live = self.live()
        refused = (live - self._trusted(live)) | self.outcasts(base)
        return refused - self.fellows(base) - {self.identity.peer_id}

    def outcasts(self, base: Base) -> set[str]:
        """Return the peers that at least half of those who work on `base` leave out of groups.

        We may be among them. Distrust is each peer's own; whom nobody is to follow is not: those
        who follow different leaders would part.
        """
        me = self.identity.peer_id
        there = {me} | self._there(base)
        voters = there & self.tenured or there
        votes: Counter[str] = Counter()
        for peer in voters:
            report = self.roster.report(peer)
            votes.update(set(self._shuns() if peer == me else report.shuns if report else ()))
        return {peer for peer in there if 2 * votes[peer] >= len(voters)}

    def clients(self) -> set[str]:
        """Return the peers that others cannot dial, by what they say; we may be among them."""
        reports = ((peer, self.roster.report(peer)) for peer in self.live())
        found = {peer for peer, report in reports if report and report.client}
        return found | ({self.identity.peer_id} if self.client else set())

    def may_lead(self, base: Base) -> set[str]:
        """Return the live peers that a round on `base` may be led by.

        Also whom only we would leave out: the others follow it.
        """
        return self.fellows(base) | (self._there(base) - self.outcasts(base))

    def _there(self, base: Base) -> set[str]:
        return {peer for peer in self.live() if self.can_join(peer, base)}

    def _shuns(self) -> tuple[str, ...]:
        live = self.live()
        return tuple(sorted(live - self._trusted(live)))[:MAX_SHUNNED]

    def can_join(self, peer: str, base: Base) -> bool:
        """Return whether `peer`, by its last report, is at `base` or just about to be."""
        report = self.roster.report(peer)
        if report is None or report.resting or report.generation != base.generation:
            return False
        if report.epoch == base.epoch:
            return report.root in (None, base.state_root)
        return report.epoch == base.epoch - 1

    def ahead(self) -> set[str]:
        """Return the live peers that claim to be further than we are."""
        mine = self._standing
        reports = ((peer, self.roster.report(peer)) for peer in self.live())
        return {
            peer
            for peer, report in reports
            if report and (report.generation, report.epoch) > (mine.generation, mine.epoch)
        }

    def suspect(self, peer: str, what: str, role: str = "member") -> None:
        """Note that a round failed at a peer that gave no proof of being at fault.

        It died, or another one made it fail. Whoever is there when rounds fail, again and again,
        is left out; see `praise`.

        Args:
            peer: Who was there.
            what: What to say of it if that was too often.
            role: As what: it can be a good member and a bad leader.
        """
        self._doubts[peer, role] += 2
        if self._doubts[peer, role] >= _MOST_DOUBTS:
            self.misbehaved(peer, what)

    def praise(self, peers: Iterable[str], role: str = "member") -> None:
        """Note that a round with `peers` brought an average."""
        self._doubts -= Counter((peer, role) for peer in peers)

    def misbehaved(self, peer: str, what: str) -> None:
        """Count that a peer did what it must not, and leave it out of groups for a while."""
        if peer == self.identity.peer_id:
            return  # our own mistake is nobody's offence
        self.roster.distrust(peer, what, self.now_s)
        self.emit(PeerMisbehaved(peer_id=peer, what=what))

    async def _poll(self, peer: str) -> bool:
        try:
            answer = await self.call(peer, "state", self.standing.model_dump(mode="json"))
            self._heard(peer, answer, answered=True)
        except PeerError as error:
            self.roster.failed(peer, str(error), self.now_s)
            return False
        return True

    def _heard(self, peer: str, frame: Frame, *, answered: bool) -> None:
        report = parse_report(dict(frame.header))
        self.roster.heard(peer, report, self.now_s, answered=answered)
        mine = self._standing
        if report.ready and _same(report, mine):
            self._asked.set()
        if report.epoch > mine.epoch:
            self.announce()

    async def _serve_state(self, channel: Channel) -> None:
        async with asyncio.timeout(self.limits.call_timeout_s):
            self._heard(channel.remote, await channel.receive(), answered=False)
            await channel.send(self.standing.model_dump(mode="json"))

    # ---- when to average

    async def watch(self) -> None:
        """Say when the swarm has gathered the target batch, for ever."""
        while True:
            pause_s = await self.look()
            await _wait(self._asked, pause_s)
            self._asked.clear()

    async def look(self) -> float:
        """Decide whether to average now; return in how many seconds to look again."""
        mine, company = self._standing, self._company()
        self._share = self.limits.target / (len(company) + 1)
        reports = [self.roster.report(peer) for peer in self.live()]
        self._others_train = any(report and not report.resting for report in reports)
        if self._wanted or not company:
            return QUIET_S / 10
        asked = any(report.ready and _same(report, mine) for report in company)
        if self._weight < self._share and not asked:
            return progress.wait_s(round(self._share - self._weight), [self._rate])
        await self.poll(self.live(), hurried=True)
        if self._standing is not mine:
            return 0.0
        beside = [report for report in self._company() if _same(report, mine)]
        have = progress.gathered(self._weight, [report.weight for report in beside])
        # Others may know of more than we do: half is enough where a peer says that it is ready.
        enough = self.limits.target / (2 if any(report.ready for report in beside) else 1)
        self._wanted = have >= enough
        return progress.wait_s(self.limits.target - have, [self._rate, *(r.rate for r in beside)])

    def _company(self) -> list[Report]:
        """Return the reports of the live peers that work on our epoch, or will in a moment."""
        mine = self._standing
        reports = (self.roster.report(peer) for peer in self.live())
        return [
            report
            for report in reports
            if report
            and not report.resting
            and report.generation == mine.generation
            and 0 <= mine.epoch - report.epoch <= 1
        ]


def _same(report: Report, mine: Report) -> bool:
    return (report.generation, report.epoch) == (mine.generation, mine.epoch)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(max(timeout_s, 0.0)):
            await event.wait()
    except TimeoutError:
        return
