"""How the ready peers agree on a group: one of them leads, and closes it when all are in."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from peer.errors import DeclinedError, MisbehavedError, UnreachableError
from peer.events import PeerMisbehaved
from peer.swarm.membership import MAX_PEERS
from peer.swarm.wire import Channel
from peer.training.certificate import MAX_GROUP, Base
from peer.training.group import (
    Group,
    Ready,
    check_proposal,
    leaders,
    limit,
    lone_accusations,
    parse_ready,
    settle,
)
from peer.training.muster import QUIET_S, Muster

log = logging.getLogger(__name__)

BEAT_S = 1.0
"""How often whoever keeps another waiting gives a sign of life."""

_LOOK_S = 0.25
_HOLD_S = 10.0
"""How long a peer that asks too early, or while we catch up, is kept waiting for us."""
_LONGEST_OWED = 10

_Result = TypeVar("_Result")


class _Gathering:
    """A group that we lead, while it is open."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.words: dict[str, Ready] = {}
        self.unreachable: dict[str, frozenset[str]] = {}
        self.awaited: set[str] = set()
        self.joined = asyncio.Event()
        self.rival: str | None = None  # whoever should lead instead
        self.group: asyncio.Future[Group | None] = asyncio.get_running_loop().create_future()

    def add(self, ready: Ready, unreachable: Iterable[str]) -> None:
        self.words[ready.peer_id] = ready
        self.unreachable[ready.peer_id] = frozenset(unreachable)
        self.joined.set()


@dataclasses.dataclass
class _Absence:
    """How often a peer let us wait in vain, and how often it has yet to come in time."""

    times: int = 0
    owed: int = 0


@dataclasses.dataclass(frozen=True)
class _Refusal:
    """That a leader kept us waiting and then let us into no group.

    Attributes:
        base: The round's.
        leader: Who it was.
        held_s: How long it kept us.
        unreachable: Whom we had told it that we cannot reach.
    """

    base: Base
    leader: str
    held_s: float
    unreachable: frozenset[str]


class Matchmaking:
    """Finds the group of a round.

    Args:
        muster: Our standing and the others.
    """

    def __init__(self, muster: Muster) -> None:
        self._muster = muster
        self._base: Base | None = None
        self._leader: str | None = None
        self._gathering: _Gathering | None = None
        self._following: str | None = None
        self._closed: Base | None = None
        self._failures: dict[str, int] = {}
        self._yielded: set[str] = set()
        self._accused_since_s: dict[tuple[str, str], float] = {}
        self._absences: dict[str, _Absence] = {}
        self._refusal: _Refusal | None = None

    async def start(self) -> None:
        """Let others join groups that we lead."""
        await self._muster.serve("join", self._serve_join)

    def failed_under(self, leader: str | None) -> None:
        """Note that a round under `leader` failed: another peer leads the next one."""
        if leader is not None:
            self._failures[leader] = self._failures.get(leader, 0) + 1

    @property
    def leader(self) -> str | None:
        """Who leads, or led, the present group."""
        return self._leader

    def done(self) -> None:
        """Note that the round of the group that `find` returned is over."""
        self._closed = None

    def went_on(self, base: Base, group: Collection[str]) -> None:
        """Note who was in the group of the epoch that was certified on `base`."""
        refusal, self._refusal = self._refusal, None
        if refusal is None or refusal.base != base:
            return
        # It had to choose between us and somebody else.
        explained = len(group) >= MAX_GROUP or refusal.unreachable & set(group)
        if not explained:
            self._blame(refusal, certain=True)

    def _judge_early(self) -> None:
        """Judge a refusal after which no certificate came: the round without us failed, too."""
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            self._blame(refusal, certain=not refusal.unreachable)

    def _blame(self, refusal: _Refusal, *, certain: bool) -> None:
        report = self._muster.roster.report(refusal.leader)
        # One that says so openly may have been wronged itself: distrust is not to become mutual.
        shunned = report is not None and self._muster.identity.peer_id in report.shuns
        long = refusal.held_s > self._muster.limits.frame_timeout_s
        what = "it keeps us waiting and lets us into no group"
        if long and certain and not shunned:
            self._muster.misbehaved(refusal.leader, what)
        elif long or (refusal.held_s > BEAT_S and not shunned):
            self._muster.suspect(refusal.leader, what, "leader")

    async def find(self, ready: Ready, fellows: set[str], unreachable: set[str]) -> Group:
        """Return the group in which `ready` is brought, as its leader closed it.

        Args:
            ready: Our word.
            fellows: Whom we know that may be in it.
            unreachable: Whom we know that we cannot reach.

        Raises:
            PeerError: No leader let us in.
        """
        self._judge_early()
        if self._base != ready.base:
            self._base, self._failures, self._yielded = ready.base, {}, set()
        me = self._muster.identity.peer_id
        may_lead = {me} | self._muster.may_lead(ready.base)
        candidates = self._order(ready.base, may_lead, self._failures)
        hops = 0
        answer: Group | str | None
        try:
            while True:
                self._leader = candidates[0]
                self._following = None if candidates[0] == me else candidates[0]
                self._muster.leader = candidates[0]
                self._muster.announce()
                try:
                    if candidates[0] == me:
                        answer = await self._lead(ready, unreachable)
                    else:
                        answer = await self._join(candidates[0], ready, fellows, unreachable)
                except UnreachableError as error:
                    self._muster.roster.failed(candidates[0], str(error), self._muster.now_s)
                    self.failed_under(candidates.pop(0))
                    continue
                if isinstance(answer, Group):
                    self._closed = ready.base
                    return answer
                hops += 1
                if hops > len(may_lead):
                    raise DeclinedError("every leader names another one")
                if answer is not None and answer not in {me, *self._muster.live()}:
                    # We cannot reach that one; but it may give way to whoever reaches more.
                    await self._muster.moved(_LOOK_S)
                    continue
                if answer is None:
                    candidates.pop(0)
                    continue
                if answer in candidates:
                    candidates.remove(answer)
                candidates.insert(0, answer)
        finally:
            self._end()

    # ---- following

    async def _join(
        self, leader: str, ready: Ready, fellows: set[str], unreachable: set[str]
    ) -> Group | str | None:
        """Ask `leader` in; return the group, whom it names as the leader, or None: it is elsewhere.

        Raises:
            DeclinedError: The round goes on without us, or is over: its certificate is to be had.
            UnreachableError: There is no leader.
        """
        limits = self._muster.limits
        channel = await self._muster.open(leader, "join")
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(limits.matchmaking_timeout_s + _HOLD_S):
                request = {
                    "ready": ready.to_json(),
                    "fellows": sorted(fellows)[:MAX_GROUP],
                    "unreachable": sorted(unreachable)[:MAX_PEERS],
                }
                await channel.send(request)
                while True:
                    header = await self._next(channel)
                    if "group" in header:
                        return self._check(leader, header["group"], ready)
                    if "ask" in header:
                        return str(header["ask"])[:100]
                    if "elsewhere" in header:
                        return None
        except TimeoutError as error:
            # It answers, so it could have closed the group, or told us of another leader.
            self._muster.misbehaved(leader, "it leads, but closes no group")
            raise UnreachableError(f"the leader {leader} keeps us waiting too long") from error
        except DeclinedError:
            held_s = loop.time() - began_s
            self._refusal = _Refusal(ready.base, leader, held_s, frozenset(unreachable))
            raise
        finally:
            channel.close()

    async def _next(self, channel: Channel) -> Mapping[str, Any]:
        """Return the header of the next frame; UnreachableError if no sign of life comes."""
        try:
            async with asyncio.timeout(self._muster.limits.call_timeout_s):
                return (await channel.receive()).header
        except TimeoutError as error:
            raise UnreachableError(f"the leader {channel.remote} went silent") from error

    def _check(self, leader: str, proposal: object, ready: Ready) -> Group:
        try:
            return check_proposal(proposal, ready, self._muster.limits.max_weight)
        except MisbehavedError as error:
            self._muster.misbehaved(leader, str(error))
            raise

    # ---- leading

    async def _lead(self, ready: Ready, unreachable: set[str]) -> Group | str:
        """Gather all live peers at our base and close the group; or return who leads instead.

        Raises:
            DeclinedError: Others went on from here: their certificate is to be had.
        """
        muster = self._muster
        gathering = self._open(ready.base)
        gathering.add(ready, unreachable | muster.unwelcome(ready.base))
        loop = asyncio.get_running_loop()
        began_s = polled_s = loop.time()
        while missing := self._awaited(gathering, loop.time() - began_s):
            gathering.awaited |= missing
            gathering.joined.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await gathering.joined.wait()
            if gathering.rival is not None:
                return self._yield_to(gathering.rival, gathering)
            if loop.time() - polled_s <= BEAT_S:
                continue
            await muster.poll(missing, hurried=True)
            polled_s = loop.time()
            gathering.rival = gathering.rival or self._other_leader(ready.base, missing)
        if gathering.rival is not None:
            return self._yield_to(gathering.rival, gathering)
        self._note_attendance(gathering, loop.time() - began_s)
        for peer in gathering.awaited - set(gathering.words) - muster.live():
            muster.suspect(peer, "it vanishes when a round waits for it, again and again")
        if gathering.awaited & muster.ahead():
            raise DeclinedError("others went on from here without us")
        group = self._close(ready, gathering)
        gathering.group.set_result(group)
        return group

    def _close(self, ready: Ready, gathering: _Gathering) -> Group:
        """Return the group of those that joined, that we let in, and that reach each other."""
        base, said, me = ready.base, gathering.unreachable, ready.peer_id
        clients = {peer for peer, word in gathering.words.items() if not word.reduces}
        doubted = self._doubt_accusers(said, clients)
        out = said[me] | doubted | {peer for peer, named in said.items() if me in named}
        words = {peer: word for peer, word in gathering.words.items() if peer not in out}
        if clients >= words.keys():
            clients = set()  # then they reduce, and must reach each other
        others = settle(base, set(words) - {me}, said, clients)
        kept = [me, *limit(others, base, self._muster.last_group)][:MAX_GROUP]
        return Group.close(base, [words[peer] for peer in kept])

    def _doubt_accusers(
        self, unreachable: Mapping[str, Collection[str]], clients: set[str]
    ) -> set[str]:
        """Suspect, and return, who alone says for long that it cannot reach a peer.

        A link that fails does so for both ends, and the other end notices soon, too.

        Args:
            unreachable: By peer that joined, whom it said that it cannot reach.
            clients: Who of them reduces nothing.
        """
        muster, before_s = self._muster, self._accused_since_s
        said = lone_accusations(unreachable.keys(), unreachable, clients)
        self._accused_since_s = {pair: before_s.get(pair, muster.now_s) for pair in said}
        doubted = {
            accuser
            for (accuser, _), since_s in self._accused_since_s.items()
            if muster.now_s - since_s > 2 * QUIET_S
        }
        doubted.discard(muster.identity.peer_id)
        for accuser in doubted:
            muster.suspect(accuser, "it cannot reach peers that reach it")
        return doubted

    def _yield_to(self, leader: str, gathering: _Gathering) -> str:
        """Send those who joined us to another leader, and return it."""
        self._following = leader
        gathering.group.set_result(None)
        return leader

    def _may_yield_to(self, peer: str) -> bool:
        """Return whether `peer` may lead in our place: once on each base, unless it failed us."""
        trusted = self._muster.roster.trusted(self._muster.now_s)
        return peer in trusted and peer not in self._yielded and not self._failures.get(peer)

    async def _is_outnumbered(self, gathering: _Gathering, peer: str, named: Iterable[str]) -> bool:
        """Return whether a peer that joins says that it could lead a larger group than we can.

        It may lie: see `_may_yield_to`.

        Args:
            gathering: Our group.
            peer: Who joins it.
            named: Whom that peer says that it reaches.
        """
        muster = self._muster
        there = set(named) - {peer, muster.identity.peer_id}
        if muster.tenured:
            there &= muster.tenured
        known = {member.peer_id for member in muster.roster.members()}
        await muster.poll((there & known) - muster.live(), hurried=True)
        ours = muster.fellows(gathering.base) | set(gathering.words)
        return len(there - ours) > len(ours - {peer, muster.identity.peer_id})

    def _awaited(self, gathering: _Gathering, waited_s: float) -> set[str]:
        """Return who may still come to our group and is worth waiting for."""
        missing = self._muster.fellows(gathering.base) - set(gathering.words)
        patience_s = self._patience_s(gathering, missing)
        return {peer for peer in missing if waited_s < patience_s[peer]}

    def _patience_s(self, gathering: _Gathering, missing: set[str]) -> dict[str, float]:
        """Return how long to wait for peers that answer, but do not come."""
        muster, elsewhere = self._muster, self._elsewhere(missing)
        short_s, long_s = muster.limits.call_timeout_s, muster.limits.matchmaking_timeout_s
        elsewhere_s = long_s if self._are_fewer(gathering, elsewhere) else short_s
        patience_s = {}
        for peer in missing:
            if peer in self._absences and self._absences[peer].owed:
                patience_s[peer] = _LOOK_S
            elif muster.tenured and peer not in muster.tenured:
                patience_s[peer] = short_s
            else:
                patience_s[peer] = elsewhere_s if peer in elsewhere else long_s
        return patience_s

    def _are_fewer(self, gathering: _Gathering, elsewhere: set[str]) -> bool:
        """Return whether those in groups of other leaders are more than we.

        Then theirs is the group whose certificate to wait for: we would only part from them. Of two
        that are as large the draw says which one; it is the same for both.
        """
        there = elsewhere & (self._muster.tenured or elsewhere)
        if len(gathering.words) != len(there):
            return len(there) > len(gathering.words)
        me = self._muster.identity.peer_id
        reports = (self._muster.roster.report(peer) for peer in there)
        theirs = {report.leader for report in reports if report and report.leader}
        return leaders(gathering.base, {me, *theirs}, {})[0] != me

    def _note_attendance(self, gathering: _Gathering, waited_s: float) -> None:
        """Wait no more for those who let us wait in vain, until they come in time again."""
        muster = self._muster
        known = {member.peer_id for member in muster.roster.members()}
        self._absences = {p: absence for p, absence in self._absences.items() if p in known}
        for peer in self._absences.keys() & gathering.words.keys():
            self._absences[peer].owed = max(0, self._absences[peer].owed - 1)
        missing = muster.fellows(gathering.base) - set(gathering.words)
        elsewhere, patience_s = self._elsewhere(missing), self._patience_s(gathering, missing)
        for peer in missing:
            absence = self._absences.setdefault(peer, _Absence())
            if absence.owed or waited_s < patience_s[peer]:
                continue
            absence.times += 1
            absence.owed = 2 ** min(absence.times, _LONGEST_OWED)
            if peer not in elsewhere:
                what = "it answers, but does not come to the round"
                muster.emit(PeerMisbehaved(peer_id=peer, what=what))

    def _elsewhere(self, peers: set[str]) -> set[str]:
        """Return those of `peers` that wait for another leader's group."""
        me = self._muster.identity.peer_id
        reports = ((peer, self._muster.roster.report(peer)) for peer in peers)
        return {peer for peer, report in reports if report and report.leader not in (None, me)}

    def _other_leader(self, base: Base, missing: set[str]) -> str | None:
        """Return the peer among `missing` that leads, too, and that all agree to follow rather."""
        me = self._muster.identity.peer_id
        reports = ((peer, self._muster.roster.report(peer)) for peer in missing)
        rivals = {peer for peer, report in reports if report and report.leader == peer}
        first = self._order(base, {me, *rivals}, self._failures)[0]
        return first if first != me else None

    def _order(self, base: Base, peers: set[str], failures: Mapping[str, int]) -> list[str]:
        """Return `peers` in the order in which they lead.

        Those whom not everybody can dial come late, and those whom most leave out last.
        """
        outcasts, clients = self._muster.outcasts(base), self._muster.clients()
        order = leaders(base, peers, failures, self._muster.tenured)
        return sorted(order, key=lambda peer: (peer in outcasts, peer in clients))

    def _open(self, base: Base) -> _Gathering:
        if self._gathering is None or self._gathering.base != base or self._gathering.group.done():
            self._gathering = _Gathering(base)
            self._muster.announce()
        return self._gathering

    def _end(self) -> None:
        gathering, self._gathering = self._gathering, None
        self._following = self._muster.leader = None
        if gathering is not None and not gathering.group.done():
            gathering.group.set_result(None)
        self._muster.announce()

    async def _serve_join(self, channel: Channel) -> None:
        muster = self._muster
        async with asyncio.timeout(muster.limits.call_timeout_s):
            header = (await channel.receive()).header
        ready = parse_ready(header.get("ready"), muster.limits.max_weight)
        if ready.peer_id != channel.remote:
            raise MisbehavedError(f"{channel.remote} brings another's word")
        if channel.remote not in muster.live():
            muster.roster.learn(channel.remote, ())
            await muster.poll([channel.remote])
        unreachable = _names(header.get("unreachable"), MAX_PEERS)
        async with asyncio.timeout(muster.limits.matchmaking_timeout_s + 2 * _HOLD_S):
            gathering = await self._wait_for_gathering(channel, ready)
            if not isinstance(gathering, _Gathering):
                await channel.send({"ask": gathering} if gathering else {"elsewhere": True})
                return
            named = _names(header.get("fellows"), MAX_GROUP)
            if self._may_yield_to(ready.peer_id) and await self._is_outnumbered(
                gathering, ready.peer_id, named
            ):
                self._yielded.add(ready.peer_id)
                gathering.rival = gathering.rival or ready.peer_id
            gathering.add(ready, unreachable)
            group = await beating(channel, gathering.group)
        if group is None and self._following is not None:
            await channel.send({"ask": self._following})
            return
        if group is None or ready.peer_id not in group.members:
            raise DeclinedError("the group was closed without you")
        await channel.send({"group": [word.to_json() for word in group.members.values()]})

    async def _wait_for_gathering(
        self, channel: Channel, ready: Ready
    ) -> "_Gathering | str | None":
        """Return our open group on the base of `ready`, or the leader whom we follow instead.

        None if we are elsewhere and will not be there soon.

        Raises:
            DeclinedError: That base is behind us, or the group on it is closed.
        """
        loop = asyncio.get_running_loop()
        patience_s, beaten_s = loop.time() + _HOLD_S, loop.time()
        while True:
            if self._closed == ready.base:
                raise DeclinedError("the group was closed without you")
            if not self._may_come_to(ready.base):
                return None
            gathering = self._gathering
            if gathering and gathering.base == ready.base and not gathering.group.done():
                return gathering
            if self._base == ready.base and self._following is not None:
                return self._following
            if self._muster.standing.root == ready.base.state_root:
                self._muster.ask()
                patience_s = loop.time() + _HOLD_S  # a micro-batch may take long
            if loop.time() > patience_s:
                return None
            await self._muster.moved(_LOOK_S)
            if loop.time() - beaten_s >= BEAT_S:
                await channel.send({"wait": True})
                beaten_s = loop.time()

    def _may_come_to(self, base: Base) -> bool:
        """Return whether a round of ours is on `base`, or will be soon.

        Raises:
            DeclinedError: It was: there is a certificate on it.
        """
        mine = self._muster.standing
        if mine.generation != base.generation or base.run_id != self._muster.run_id or mine.resting:
            return False
        if mine.epoch > base.epoch:
            raise DeclinedError("we are ahead of you")
        if mine.epoch == base.epoch:
            return mine.root in (None, base.state_root)
        return mine.epoch == base.epoch - 1


async def beating(channel: Channel, future: "asyncio.Future[_Result]") -> _Result:
    """Wait for `future`, with a sign of life on `channel` each second."""
    while True:
        done, _ = await asyncio.wait({future}, timeout=BEAT_S)
        if done:
            return future.result()
        await channel.send({"wait": True})


def _names(body: object, most: int) -> list[str]:
    if not isinstance(body, list):
        return []
    return [name for name in body[:most] if isinstance(name, str)]
