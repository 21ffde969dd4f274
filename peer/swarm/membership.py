"""Who else is in the run: reports that peers give of themselves, and the roster made of them.

A report says where a peer claims to stand. It only tells whom to ask: nothing here moves an
epoch. Pure but for the time, which is passed in.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from peer import __version__
from peer.config.address import parse_address
from peer.config.section import Section
from peer.errors import MisbehavedError
from peer.run.directory import write_atomically
from peer.run.manifest import Hash, PeerId
from peer.swarm.wire import PROTOCOL

MAX_PEERS = 512
"""Peers remembered at once: a flood of records must not fill the memory."""
MAX_SHUNNED = 16

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0
_FIRST_DISTRUST_S, _LONGEST_DISTRUST_S = 20.0, 600.0
_FORGIVEN_S = 3600.0
"""So long a good conduct takes one offence back."""
_STALE_AFTER_S = 30.0

MAX_SHOWN_CHARS = 200
"""Of an address in reports and records."""

Address = Annotated[str, Field(min_length=1, max_length=MAX_SHOWN_CHARS)]


class Report(Section):
    """What a peer says of itself; every number is bounded, none is believed.

    Attributes:
        protocol: The protocol that it speaks.
        version: Its ctpeer.
        generation: Its generation.
        epoch: The last epoch that it committed.
        root: Its state root there; None while it is being computed.
        weight: Loss terms gathered since.
        rate: Loss terms a second, lately.
        ready: Whether it wants to average now.
        leader: Whose group it waits for, where it is about to average.
        abreast: Whether it was in a group since it started or went over to another state; until
            then it may stand where nobody else is any more.
        client: Whether others cannot dial it.
        resting: Whether it is paused, so that nobody should wait for it.
        addresses: Where it listens.
        shuns: Live peers that it leaves out of groups.
        now_s: Its wall clock.
    """

    protocol: int = Field(default=PROTOCOL, ge=1, le=10**6)
    version: str = Field(default=__version__, max_length=40)
    generation: int = Field(default=0, ge=0, le=10**9)
    epoch: int = Field(default=0, ge=0, le=10**9)
    root: Hash | None = None
    weight: int = Field(default=0, ge=0, le=10**12)
    rate: float = Field(default=0.0, ge=0.0, le=1e12, allow_inf_nan=False)
    ready: bool = False
    leader: PeerId | None = None
    abreast: bool = False
    client: bool = False
    resting: bool = False
    addresses: tuple[Address, ...] = Field(default=(), max_length=8)
    shuns: tuple[PeerId, ...] = Field(default=(), max_length=MAX_SHUNNED)
    now_s: float = Field(default=0.0, ge=0.0, le=1e11, allow_inf_nan=False)


def parse_report(body: object) -> Report:
    """Return the report in `body`.

    Raises:
        MisbehavedError: It is not one.
    """
    try:
        return Report.model_validate_json(json.dumps(body), strict=True)
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        raise MisbehavedError("a report makes no sense") from error


@dataclasses.dataclass
class Member:
    """What is known of another peer.

    Attributes:
        peer_id: Who it is.
        addresses: Where it may be reached.
        report: The last report it gave us itself; None if there was no contact yet.
        seen_s: When that was, on the monotonic clock.
        failures: Contacts that failed since.
        problem: Why the last one did.
        down_until_s: Not asked again before.
        distrusted_until_s: Left out of groups until then: it stalled or cheated.
        distrusts: How often that happened.
    """

    peer_id: str
    addresses: tuple[str, ...] = ()
    report: Report | None = None
    seen_s: float = float("-inf")
    failures: int = 0
    problem: str = ""
    down_until_s: float = float("-inf")
    distrusted_until_s: float = float("-inf")
    distrusts: int = 0


class Roster:
    """The other peers of the run, as this one knows them."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._members: dict[str, Member] = {}

    def members(self) -> list[Member]:
        """Return everybody known, by peer id."""
        return [self._members[peer] for peer in sorted(self._members)]

    def report(self, peer_id: str) -> Report | None:
        """Return the last report of a peer, if it ever gave one."""
        member = self._members.get(peer_id)
        return member.report if member else None

    def addresses(self, peer_id: str) -> tuple[str, ...]:
        """Return where a peer may be reached."""
        member = self._members.get(peer_id)
        return member.addresses if member else ()

    def learn(self, peer_id: str, addresses: Iterable[str]) -> None:
        """Remember that there is a peer at `addresses`; nothing else is believed yet."""
        if peer_id == self._me:
            return
        member = self._member(peer_id)
        if member is not None:
            own = (address for address in addresses if _leads_to(peer_id, address))
            member.addresses = tuple(dict.fromkeys((*own, *member.addresses)))[:8]

    def heard(self, peer_id: str, report: Report, now_s: float, *, answered: bool) -> None:
        """Take in a report that came from the peer itself.

        Args:
            peer_id: Whose it is.
            report: What it says.
            now_s: The monotonic time.
            answered: Whether we asked for it. Only that mends a contact that failed: whoever calls
                but does not answer is asked again soon, and waited for by nobody until then.
        """
        if peer_id == self._me:
            return
        member = self._member(peer_id)
        if member is None:
            return
        member.report, member.seen_s = report, now_s
        own = tuple(address for address in report.addresses if _leads_to(peer_id, address))
        member.addresses = own or member.addresses
        member.down_until_s = float("-inf")
        if answered:
            member.failures, member.problem = 0, ""

    def failed(self, peer_id: str, problem: str, now_s: float) -> None:
        """Take in that a contact failed: the peer is left alone for longer each time."""
        member = self._members.get(peer_id)
        if member is None:
            return
        member.failures += 1
        member.problem = problem
        pause_s = _FIRST_PAUSE_S * 2 ** min(member.failures - 1, 10)
        member.down_until_s = now_s + min(_LONGEST_PAUSE_S, pause_s)

    def distrust(self, peer_id: str, problem: str, now_s: float) -> None:
        """Take in that a peer stalled or cheated: groups do without it for longer each time."""
        member = self._members.get(peer_id)
        if member is None:
            return
        # What was long ago counts less: lines fail, and so do honest peers now and then.
        good_s = max(0.0, now_s - member.distrusted_until_s)
        member.distrusts = max(0, member.distrusts - int(min(good_s, 1e9) // _FORGIVEN_S)) + 1
        member.problem = problem
        pause_s = _FIRST_DISTRUST_S * 2 ** min(member.distrusts - 1, 10)
        member.distrusted_until_s = now_s + min(_LONGEST_DISTRUST_S, pause_s)

    def live(self, now_s: float) -> set[str]:
        """Return the peers that answered lately and did not fail since."""
        return {
            peer
            for peer, member in self._members.items()
            if member.failures == 0 and now_s - member.seen_s <= _STALE_AFTER_S
        }

    def trusted(self, now_s: float) -> set[str]:
        """Return the live peers that a group may be made with."""
        return {p for p in self.live(now_s) if self._members[p].distrusted_until_s <= now_s}

    def distrusts(self, peer_id: str) -> int:
        """Return how often a peer stalled or cheated; what was long ago counts less."""
        member = self._members.get(peer_id)
        return member.distrusts if member else 0

    def due(self, now_s: float, quiet_s: float) -> list[str]:
        """Return whom to ask again: not heard of for `quiet_s`, and not just found unreachable."""
        return [
            peer
            for peer, member in self._members.items()
            if (member.failures or now_s - member.seen_s >= quiet_s)
            and now_s >= member.down_until_s
        ]

    def _member(self, peer_id: str) -> Member | None:
        """Return a peer's entry; a full roster forgets whoever has been silent longest."""
        if peer_id not in self._members:
            if len(self._members) >= MAX_PEERS:
                oldest = min(self._members.values(), key=lambda m: (m.seen_s, -m.failures))
                if oldest.failures == 0 and oldest.report is not None:
                    return None  # all are real: a newcomer comes in when one of them leaves
                del self._members[oldest.peer_id]
            self._members[peer_id] = Member(peer_id)
        return self._members[peer_id]


def _leads_to(peer_id: str, address: str) -> bool:
    """Return whether `address` is one of that peer: nobody is to be sent to dial another."""
    parsed = parse_address(address) if len(address) <= MAX_SHOWN_CHARS else None
    return parsed is not None and parsed.names_a_peer and parsed.peer_id == peer_id


def save_known_peers(path: Path, members: Iterable[Member]) -> None:
    """Keep where peers were reached, so that a restart needs nobody who is still where it was.

    Raises:
        OSError: The disk is full or fails.
    """
    known = {m.peer_id: list(m.addresses) for m in members if m.report is not None and m.addresses}
    write_atomically(path, json.dumps({"peers": known}, indent=1).encode())


def load_known_peers(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Return the addresses of peers by id; none where nothing readable is kept."""
    try:
        body = _Known.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return body.peers


class _Known(Section):
    peers: Annotated[
        dict[PeerId, Annotated[tuple[Address, ...], Field(max_length=8)]],
        Field(max_length=MAX_PEERS),
    ]


def describe(member: Member, mine: Report, in_group: bool, now_s: float) -> dict[str, Any]:  # noqa: FBT001 a column of a table
    """Return a peer as status and `ctpeer peers` show it."""
    report = member.report
    if member.failures or report is None:
        state = "unreachable" if member.failures else "not asked yet"
    elif member.distrusted_until_s > now_s:
        state = "left out"
    elif in_group:
        state = "in group"
    elif (report.generation, report.epoch) < (mine.generation, mine.epoch):
        state = "behind"
    elif (report.generation, report.epoch) > (mine.generation, mine.epoch):
        state = "ahead"
    else:
        state = "reachable"
    return {
        "peer_id": member.peer_id,
        "address": member.addresses[0] if member.addresses else None,
        "epoch": report.epoch if report else None,
        "generation": report.generation if report else None,
        "state": state,
        "problem": member.problem or None,
        "loss_terms_per_second": report.rate if report else None,
        "seen_s": now_s - member.seen_s if report else None,
    }
