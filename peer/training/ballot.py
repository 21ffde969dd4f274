"""Votes: every member that holds all parts signs, and identical votes of a majority certify."""

import asyncio
import contextlib
import dataclasses
import logging

from peer.errors import MisbehavedError, PeerError
from peer.swarm.wire import Channel
from peer.training.certificate import (
    Certificate,
    Signature,
    Vote,
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
_KEPT_GROUPS = 8


@dataclasses.dataclass
class _Box:
    """What came in for one group: (vote id, signature) by peer."""

    votes: dict[str, tuple[str, Signature]] = dataclasses.field(default_factory=dict)
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    mine: tuple[str, Signature] | None = None


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

    async def start(self) -> None:
        """Let members bring their votes."""
        await self._muster.serve("vote", self._serve_vote)

    async def collect(self, group: Group, vote: Vote) -> Certificate:
        """Sign `vote`, tell the other members, and return the certificate.

        Raises:
            NoQuorumError: It does not come about in time.
        """
        me = self._muster.identity.peer_id
        box = self._box(group.group_id)
        box.mine = (vote.vote_id, sign_vote(self._muster.identity, vote))
        statement = vote.statement()
        good = {me: box.mine[1]}
        others = [peer for peer in group.members if peer != me]
        telling = [asyncio.ensure_future(self._tell(peer, group.group_id, box)) for peer in others]
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._muster.limits.vote_timeout_s
        try:
            while len(good) < len(group.members):
                enough = len(good) >= quorum(len(group.members))
                until_s = min(deadline_s, loop.time() + _GRACE_S) if enough else deadline_s
                box.changed.clear()
                before = len(good)
                self._count(box, vote.vote_id, statement, group, good)
                if len(good) > before:
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(until_s):
                        await box.changed.wait()
                        continue
                break
        finally:
            if len(good) < quorum(len(group.members)):
                # From here on nobody's late vote makes a certificate that we denied.
                self._boxes.pop(group.group_id, None)
                for task in telling:
                    task.cancel()
        if len(good) < quorum(len(group.members)):
            differing = sum(vote_id != vote.vote_id for vote_id, _ in box.votes.values())
            raise NoQuorumError(
                f"{len(good)} of {len(group.members)} members signed, "
                f"{quorum(len(group.members))} must; {differing} signed something else"
            )
        return Certificate(vote, tuple(good[peer] for peer in sorted(good)))

    def _count(
        self, box: _Box, vote_id: str, statement: bytes, group: Group, good: dict[str, Signature]
    ) -> None:
        """Add to `good` the members whose signature under this vote is there and holds."""
        for peer, (their_id, signature) in list(box.votes.items()):
            if peer in good or their_id != vote_id or peer not in group.members:
                continue
            if signer_of(signature, statement) == peer:
                good[peer] = signature
            else:
                del box.votes[peer]
                self._muster.misbehaved(peer, "a vote with a signature that is not good")

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
            box = self._box(group_id)
            self._put(box, channel.remote, header)
            await channel.send(_header(group_id, box.mine) if box.mine else {})

    def _put(self, box: _Box, peer: str, header: object) -> None:
        assert isinstance(header, dict)
        vote_id = header.get("vote_id")
        if not isinstance(vote_id, str) or len(vote_id) > 64:  # noqa: PLR2004 a SHA-256 in hex
            raise MisbehavedError("a vote without a name")
        if len(box.votes) < MAX_VOTES:
            box.votes.setdefault(peer, (vote_id, parse_signature(header.get("signature"))))
        box.changed.set()

    def _box(self, group_id: str) -> _Box:
        while len(self._boxes) >= _KEPT_GROUPS and group_id not in self._boxes:
            self._boxes.pop(next(iter(self._boxes)))
        return self._boxes.setdefault(group_id, _Box())


MAX_VOTES = 512
"""Strangers may bring votes to a group before we know who is in it."""


def _header(group_id: str, vote: tuple[str, Signature]) -> dict[str, object]:
    vote_id, signature = vote
    return {"group": group_id, "vote_id": vote_id, "signature": dataclasses.asdict(signature)}
