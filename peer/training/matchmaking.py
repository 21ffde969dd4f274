"""How the ready peers agree on a group: one of them leads, and closes it when all are in."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from peer.errors import DeclinedError, MisbehavedError, UnreachableError
from peer.swarm.membership import MAX_PEERS
from peer.swarm.wire import Channel
from peer.training.accusers import Accusers
from peer.training.attendance import LOOK_S, Attendance
from peer.training.beat import BEAT_S, beating
from peer.training.certificate import MAX_GROUP, Base
from peer.training.group import Group, Ready, check_proposal, close, leaders, parse_ready
from peer.training.muster import Muster
from peer.training.refusals import Refusals

log = logging.getLogger(__name__)

_HOLD_S = 10.0
"""How long a peer that asks too early, or while we catch up, is kept waiting for us."""


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

    @property
    def clients(self) -> set[str]:
        """Who reduces nothing."""
        return {peer for peer, word in self.words.items() if not word.reduces}

    def add(self, ready: Ready, unreachable: Iterable[str]) -> None:
        self.words[ready.peer_id] = ready
        self.unreachable[ready.peer_id] = frozenset(unreachable)
        self.joined.set()


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
        self._accusers = Accusers()
        self._attendance = Attendance(muster)
        self.refusals = Refusals(muster)
        """Who refused us, for whoever learns later what group there was."""

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

    async def find(self, ready: Ready, fellows: set[str], unreachable: set[str]) -> Group:
        """Return the group in which `ready` is brought, as its leader closed it.

        Args:
            ready: Our word.
            fellows: Whom we know that may be in it.
            unreachable: Whom we know that we cannot reach.

        Raises:
            PeerError: No leader let us in.
        """
        self.refusals.judge()
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
                    await self._muster.moved(LOOK_S)
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
            self.refusals.note(ready.base, leader, loop.time() - began_s, unreachable)
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
                async with asyncio.timeout(LOOK_S):
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
        self._attendance.note(ready.base, gathering.words.keys(), loop.time() - began_s)
        for peer in gathering.awaited - set(gathering.words) - muster.live():
            muster.suspect(peer, "it vanishes when a round waits for it, again and again")
        if gathering.awaited & muster.ahead():
            raise DeclinedError("others went on from here without us")
        group = self._close(ready, gathering)
        gathering.group.set_result(group)
        return group

    def _close(self, ready: Ready, gathering: _Gathering) -> Group:
        """Return the group of those that joined, that we let in, and that reach each other."""
        muster = self._muster
        doubted = self._accusers.doubted(gathering.unreachable, gathering.clients, muster.now_s)
        doubted.discard(ready.peer_id)
        for accuser in doubted:
            muster.suspect(accuser, "it cannot reach peers that reach it")
        return close(ready, gathering.words, gathering.unreachable, doubted, muster.last_group)

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
        joined = gathering.words.keys()
        missing = self._muster.fellows(gathering.base) - joined
        patience_s = self._attendance.patience_s(gathering.base, joined, missing)
        return {peer for peer in missing if waited_s < patience_s[peer]}

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
            await self._muster.moved(LOOK_S)
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


def _names(body: object, most: int) -> list[str]:
    if not isinstance(body, list):
        return []
    return [name for name in body[:most] if isinstance(name, str)]
