"""Who averages with whom: the signed word of being ready, the leader's order, the proposal.

A leader is nobody's master: it only says when the group is closed. Whoever it leaves out or cheats
finds the average elsewhere, or a round fails and another peer leads. Pure.
"""

import base64
import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from peer.errors import MisbehavedError
from peer.identity import Identity, peer_id_of, verify
from peer.run.canonical import canonical
from peer.training.certificate import (
    MAX_GROUP,
    Base,
    Base64,
    Count,
    Entry,
    Name,
    group_id,
    parse_strictly,
)

_PREFIX = b"ctpeer ready\n"


@dataclasses.dataclass(frozen=True)
class Ready:
    """A peer's signed word that it brings a contribution to a round on top of `base`.

    Attributes:
        base: The state that the contribution was made on.
        contribution_id: Which contribution.
        weight: Loss terms behind it.
        attempt: Which try this is; see `Entry`.
        reduces: Whether others can reach the peer, so that it can reduce a part.
        public_key: The peer's, base64 of libp2p's protobuf.
        signature: Over all this, base64.
    """

    base: Base
    contribution_id: Name
    weight: int
    attempt: Count
    reduces: bool
    public_key: Base64
    signature: Base64

    @cached_property
    def peer_id(self) -> str:
        """Whose word it is."""
        return peer_id_of(base64.b64decode(self.public_key))

    @property
    def entry(self) -> Entry:
        """The contribution as votes name it."""
        return Entry(self.peer_id, self.contribution_id, self.weight, self.attempt)

    def to_json(self) -> dict[str, Any]:
        """Return this as JSON has it."""
        return dataclasses.asdict(self)


_READY = TypeAdapter(Ready)


def sign_ready(
    identity: Identity,
    base: Base,
    contribution_id: str,
    weight: int,
    *,
    attempt: int,
    reduces: bool,
) -> Ready:
    """Return the word of `identity` that it is ready."""
    key = base64.b64encode(identity.public_key).decode()
    draft = Ready(base, contribution_id, weight, attempt, reduces, key, "")
    signature = base64.b64encode(identity.sign(_statement(draft))).decode()
    return dataclasses.replace(draft, signature=signature)


def parse_ready(body: object, max_weight: int) -> Ready:
    """Return the signed word in `body`, verified.

    Raises:
        MisbehavedError: It is not one, the signature is not good, or the weight is no weight.
    """
    ready = parse_strictly(_READY, body, "a word of being ready")
    try:
        key, signature = base64.b64decode(ready.public_key), base64.b64decode(ready.signature)
    except ValueError as error:
        raise MisbehavedError("a word of being ready is not signed") from error
    if not 0 < ready.weight <= max_weight:
        raise MisbehavedError(f"a weight of {ready.weight} where {max_weight} is the most")
    if not verify(key, signature, _statement(ready)):
        raise MisbehavedError("a word of being ready is not signed by its peer")
    return ready


def leaders(
    base: Base,
    peers: Iterable[str],
    failures: Mapping[str, int],
    tenured: Collection[str] = (),
) -> list[str]:
    """Return `peers` in the order in which they lead a round on `base`.

    Args:
        base: Draws the order, so that everybody leads now and then.
        peers: Candidates, ourselves among them.
        failures: How many rounds on `base` failed under a leader; those who failed come last.
        tenured: Peers that were in groups lately; newcomers lead where there is nobody else.
    """

    def rank(peer: str) -> tuple[int, bool, bytes]:
        return failures.get(peer, 0), peer not in tenured, _draw(base, peer)

    return sorted(peers, key=rank)


def limit(peers: Iterable[str], base: Base, last_group: Collection[str]) -> list[str]:
    """Return as many of `peers` as a group may have: those of the last group, then by lot.

    A flood of newcomers must not push out those who did the work so far.
    """
    ranked = sorted(peers, key=lambda peer: (peer not in last_group, _draw(base, peer)))
    return ranked[:MAX_GROUP]


def settle(
    base: Base,
    peers: Collection[str],
    unreachable: Mapping[str, Collection[str]],
    clients: Collection[str] = (),
) -> set[str]:
    """Return the peers that can all reach each other, dropping as few as this can see.

    Args:
        base: Draws who goes where one word stands against another, so that nobody always does.
        peers: Who wants to be in the group.
        unreachable: By peer, whom it said that it cannot reach.
        clients: Who reduces nothing: two of them need not reach each other.
    """
    left = set(peers)
    while pairs := _accusations(left, unreachable, clients):
        trouble = Counter(itertools.chain.from_iterable(pairs))
        left.discard(max(trouble, key=lambda peer: (trouble[peer], _draw(base, peer))))
    return left


def lone_accusations(
    peers: Collection[str],
    unreachable: Mapping[str, Collection[str]],
    clients: Collection[str] = (),
) -> set[tuple[str, str]]:
    """Return who alone says that it cannot reach a peer that does not say so: (accuser, accused).

    Where several say it of one peer, that one may refuse to talk to them and tell nobody.

    Args:
        peers: Those whose words count.
        unreachable: By peer, whom it said that it cannot reach.
        clients: Who reduces nothing: two of them need not reach each other.
    """
    pairs = _accusations(peers, unreachable, clients)
    accusers = Counter(accused for _, accused in pairs)
    return {(a, b) for a, b in pairs if (b, a) not in pairs and accusers[b] == 1}


def _accusations(
    peers: Collection[str],
    unreachable: Mapping[str, Collection[str]],
    clients: Collection[str],
) -> set[tuple[str, str]]:
    """Return which of `peers` say that they cannot reach which others of them, and should."""
    return {
        (a, b)
        for a in peers
        for b in unreachable.get(a, ())
        if b in peers and a != b and not (a in clients and b in clients)
    }


@dataclasses.dataclass(frozen=True)
class Group:
    """A closed group.

    Attributes:
        base: What it averages on.
        members: The signed words, by peer id.
        reducers: Who reduces the parts, in their order.
    """

    base: Base
    members: Mapping[str, Ready]
    reducers: tuple[str, ...]

    @classmethod
    def close(cls, base: Base, words: Iterable[Ready]) -> "Group":
        """Return the group of `words`, which lie on `base` and are of distinct peers."""
        members = {ready.peer_id: ready for ready in sorted(words, key=lambda r: r.peer_id)}
        reachable = tuple(peer for peer, ready in members.items() if ready.reduces)
        return cls(base, members, reachable or tuple(members))

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The contributions as votes name them."""
        return tuple(ready.entry for ready in self.members.values())

    @cached_property
    def group_id(self) -> str:
        """The group's name."""
        return group_id(self.base, self.entries)

    def within_reach(self, peer: str) -> list[str]:
        """Return the other members that `peer` talks to: two clients cannot dial each other."""
        met = self.members if peer in self.reducers else self.reducers
        return [other for other in met if other != peer]

    @property
    def weights(self) -> dict[str, int]:
        """Loss terms by peer id."""
        return {peer: ready.weight for peer, ready in self.members.items()}

    def parts(self, elements: int) -> list[tuple[str, slice]]:
        """Return who reduces which part of `elements` numbers."""
        count = len(self.reducers)
        cuts = [elements * i // count for i in range(count + 1)]
        return [(peer, slice(cuts[i], cuts[i + 1])) for i, peer in enumerate(self.reducers)]


def close(
    mine: Ready,
    words: Mapping[str, Ready],
    unreachable: Mapping[str, Collection[str]],
    doubted: Collection[str],
    last_group: Collection[str],
) -> Group:
    """Return the group that a leader closes: those of whom it has word and that reach each other.

    Args:
        mine: The leader's own word.
        words: All words that it has, by peer.
        unreachable: By peer, whom it said that it cannot reach.
        doubted: Whose word the leader does not take.
        last_group: Who was in the last group.
    """
    base, me = mine.base, mine.peer_id
    clients = {peer for peer, word in words.items() if not word.reduces}
    accusing = {peer for peer, named in unreachable.items() if me in named}
    out = {*unreachable[me], *doubted, *accusing}
    left = words.keys() - out
    if clients >= left:
        clients = set()  # then they reduce, and must reach each other
    others = settle(base, left - {me}, unreachable, clients)
    kept = [me, *limit(others, base, last_group)][:MAX_GROUP]
    return Group.close(base, [words[peer] for peer in kept])


def check_proposal(body: object, mine: Ready, max_weight: int) -> Group:
    """Return the group that a leader proposes.

    Raises:
        MisbehavedError: It is not a group on our base with us in it.
    """
    if not isinstance(body, Sequence) or isinstance(body, str) or not 0 < len(body) <= MAX_GROUP:
        raise MisbehavedError("a leader's proposal is no list of members")
    words = [parse_ready(item, max_weight) for item in body]
    if any(ready.base != mine.base for ready in words):
        raise MisbehavedError("a leader mixes peers of different states")
    group = Group.close(mine.base, words)
    if len(group.members) != len(words):
        raise MisbehavedError("a leader names a peer twice")
    if group.members.get(mine.peer_id) != mine:
        raise MisbehavedError("a leader leaves out whom it answers")
    return group


def _draw(base: Base, peer: str) -> bytes:
    return hashlib.sha256(f"{base.state_root}\n{base.generation}\n{peer}".encode()).digest()


def _statement(ready: Ready) -> bytes:
    body = dataclasses.asdict(ready)
    del body["signature"]
    return _PREFIX + canonical(body)
