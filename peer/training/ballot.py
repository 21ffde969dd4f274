"""Votes: every member that holds all parts signs, and identical votes of a majority certify."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Coroutine
from typing import Any

from peer.errors import DeclinedError, MisbehavedError, PeerError
from peer.swarm.wire import Channel
from peer.training.certificate import (
    MAX_GROUP,
    Certificate,
    PartDigest,
    Signature,
    Vote,
    parse_part,
    parse_signature,
    quorum,
    sign_vote,
    signer_of,
)
from peer.training.group import Group
from peer.training.muster import Muster

log = logging.getLogger(__name__)

_GRACE_S = 0.25
"""How long a majority waits for the rest, so that their signature is in the certificate too."""
_KEPT_GROUPS = 3


@dataclasses.dataclass(frozen=True)
class _Cast:
    """A vote as it travels: its name, the parts that it is about, and a member's signature."""

    vote_id: str
    parts: tuple[PartDigest, ...]
    signature: Signature


@dataclasses.dataclass
class _Box:
    """What came in for one group, by peer; and who was the first to bring something."""

    opener: str
    votes: dict[str, _Cast] = dataclasses.field(default_factory=dict)
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    mine: _Cast | None = None


class NoQuorumError(PeerError):
    """Less than a majority signed the same vote in time."""


class Ballot:
    """Collects the votes of a round.

    Args:
        muster: Our standing and the others.
    """

    def __init__(self, muster: Muster) -> None:
        self._muster = muster
        self._boxes: dict[str, _Box] = {}
        self._telling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Let members bring their votes."""
        await self._muster.serve("vote", self._serve_vote)

    async def collect(self, group: Group, vote: Vote) -> Certificate:
        """Sign `vote`, tell the other members, and return the certificate.

        Raises:
            NoQuorumError: It does not come about in time; or we can reach too few members, and
                told those what we vote for.
        """
        me = self._muster.identity.peer_id
        box = self._box(group.group_id, me)
        box.opener = me
        box.mine = _Cast(vote.vote_id, vote.parts, sign_vote(self._muster.identity, vote))
        good = {me: box.mine.signature}
        others = group.within_reach(me)
        telling = [self._begin(self._tell(peer, group.group_id, box)) for peer in others]
        if len(others) + 1 < quorum(len(group.members)):
            await asyncio.wait(telling, timeout=self._muster.limits.vote_timeout_s)
            raise NoQuorumError("a client reaches too few members to collect a majority's votes")
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._muster.limits.vote_timeout_s
        try:
            while len(good) <= len(others):
                enough = len(good) >= quorum(len(group.members))
                until_s = min(deadline_s, loop.time() + _GRACE_S) if enough else deadline_s
                box.changed.clear()
                before = len(good)
                self._count(box, vote, good)
                if len(good) > before:
                    continue
                outstanding = set(others) - set(box.votes)
                if len(good) + len(outstanding) < quorum(len(group.members)):
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(until_s):
                        await box.changed.wait()
                        continue
                break
        finally:
            # Whoever signed two averages may have signed two votes, too: each would be certified.
            for cheat in self._blame(box, vote):
                good.pop(cheat, None)
            if len(good) < quorum(len(group.members)):
                # From here on nobody's late vote makes a certificate that we denied.
                self._boxes.pop(group.group_id, None)
                for task in telling:
                    task.cancel()
        if len(good) < quorum(len(group.members)):
            differing = sum(cast.vote_id != vote.vote_id for cast in box.votes.values())
            raise NoQuorumError(
                f"{len(good)} of {len(group.members)} members signed, "
                f"{quorum(len(group.members))} must; {differing} signed something else"
            )
        return Certificate(vote, tuple(good[peer] for peer in sorted(good)))

    def _begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start `work`, which goes on when we have our certificate: others need our vote, too."""
        task = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        return task

    def _count(self, box: _Box, vote: Vote, good: dict[str, Signature]) -> None:
        """Add to `good` the members whose signature under this vote is there and holds."""
        vote_id, statement = vote.vote_id, vote.statement()
        for peer, cast in list(box.votes.items()):
            if peer in good or cast.vote_id != vote_id or peer not in vote.group:
                continue
            if signer_of(cast.signature, statement) == peer:
                good[peer] = cast.signature
            else:
                del box.votes[peer]
                self._muster.misbehaved(peer, "a vote with a signature that is not good")

    def _blame(self, box: _Box, vote: Vote) -> set[str]:
        """Find out why members voted for something else: they lie, or a reducer signed two parts.

        What a reducer signs is one text with one signature, so two that differ prove it. Those are
        returned.
        """
        proven = set()
        for peer in set(vote.group) & set(box.votes):
            cast = box.votes[peer]
            theirs = dataclasses.replace(vote, parts=cast.parts)
            if cast.vote_id == vote.vote_id:
                continue
            wrong = len(theirs.parts) != len(vote.parts) or theirs.vote_id != cast.vote_id
            if wrong or signer_of(cast.signature, theirs.statement()) != peer:
                self._muster.misbehaved(peer, "a vote that makes no sense")
                continue
            for mine, other in zip(vote.parts, theirs.parts, strict=True):
                if mine == other:
                    continue
                if other.reducer == mine.reducer and other.problem(vote.group_id) is None:
                    self._muster.misbehaved(mine.reducer, "two averages of one part")
                    proven.add(mine.reducer)
                else:
                    self._muster.misbehaved(peer, "a vote for a part that nobody signed")
        return proven

    async def _tell(self, peer: str, group_id: str, box: _Box) -> None:
        """Bring our vote to `peer`, and take its own if it has one yet."""
        assert box.mine is not None
        header = _header(group_id, box.mine)
        try:
            answer = (await self._muster.call(peer, "vote", header)).header
            if "signature" in answer:
                self._put(box, peer, answer)
        except PeerError as error:
            log.debug("no vote to or from %s: %s", peer, error)

    async def _serve_vote(self, channel: Channel) -> None:
        async with asyncio.timeout(self._muster.limits.call_timeout_s):
            header = (await channel.receive()).header
            group_id = str(header.get("group"))[:100]
            if channel.remote not in self._muster.live():
                raise DeclinedError("we do not know you yet")
            box = self._box(group_id, channel.remote)
            self._put(box, channel.remote, header)
            await channel.send(_header(group_id, box.mine) if box.mine else {})

    def _put(self, box: _Box, peer: str, header: object) -> None:
        assert isinstance(header, dict)
        vote_id = header.get("vote_id")
        if not isinstance(vote_id, str) or len(vote_id) > 64:  # noqa: PLR2004 a SHA-256 in hex
            raise MisbehavedError("a vote without a name")
        parts = header.get("parts")
        if not isinstance(parts, list) or len(parts) > MAX_GROUP:
            raise MisbehavedError("a vote without its parts")
        cast = _Cast(
            vote_id, tuple(map(parse_part, parts)), parse_signature(header.get("signature"))
        )
        if len(box.votes) < MAX_VOTES:
            box.votes.setdefault(peer, cast)
        box.changed.set()

    def _box(self, group_id: str, opener: str) -> _Box:
        """Return the box of a group; each peer's own first votes can push out only its own."""
        if group_id not in self._boxes:
            theirs = [name for name, box in self._boxes.items() if box.opener == opener]
            for name in theirs[: len(theirs) - _KEPT_GROUPS + 1]:
                del self._boxes[name]
            self._boxes[group_id] = _Box(opener)
        return self._boxes[group_id]


MAX_VOTES = 512
"""Strangers may bring votes to a group before we know who is in it."""


def _header(group_id: str, cast: _Cast) -> dict[str, object]:
    return {"group": group_id, **dataclasses.asdict(cast)}
