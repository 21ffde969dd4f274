"""`ctpeer validators`: who may judge checkpoints, who judged the last one, and how they did."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import click

from peer.cli.chosen import run_option
from peer.cli.columns import columns
from peer.cli.kept import Kept, size_word
from peer.cli.options import home_option, json_option
from peer.config.home import resolve_home
from peer.errors import ConfigurationError
from peer.identity import Identity
from peer.validation.roll import Member, Place, places, roll

_SHORT = 12
_HEAD = ("peer", "epochs", "called", "sat", "agrees", "strikes", "may sit next")
_RIGHT = {"epochs", "called", "sat", "agrees"}


@click.command()
@run_option
@home_option
@json_option
def validators(*, run_name: str | None, home: str | None, as_json: bool) -> None:
    """List who may judge the next checkpoint, and who judged the last one.

    By the newest verdict that this peer holds to. How often a peer was called, sat, and agreed with
    the others is counted in the verdicts that are kept here.
    """
    kept = Kept(run_name, home)
    own = _own_peer_id(home)
    members: list[Member] = []
    called: list[Place] = []
    if kept.rules is not None and kept.newest_first:
        members = roll(kept.newest_first[::-1], kept.rules, () if own is None else (own,))
        called = places(kept.newest_first[0])
    newest = kept.newest
    body = {
        "every_epochs": kept.run.manifest.validation.every_epochs,
        "next_round": newest.round + 1 if newest is not None else 1,
        "verdicts": len(kept.newest_first),
        "tenure_epochs": newest.after.tenure(kept.rules) if newest and kept.rules else None,
        "this_peer": own,
        "validators": [_member_facts(member, own) for member in members],
        "committee": _committee_facts(kept, called, own),
        "problem": kept.problem,
    }
    kept.print(body, _text(kept, members, called, own), as_json=as_json)


def _own_peer_id(home: str | None) -> str | None:
    """Return who this home's peer is; None where it has no key, or none that can be read."""
    path = resolve_home(home).identity_path
    try:
        return Identity.load_or_create(path).peer_id if path.is_file() else None
    except ConfigurationError:
        return None


def _member_facts(member: Member, own: str | None) -> dict[str, Any]:
    more = {"agreement": member.agreement, "this_peer": member.peer_id == own}
    return dataclasses.asdict(member) | more


def _committee_facts(kept: Kept, called: Sequence[Place], own: str | None) -> dict[str, Any] | None:
    newest = kept.newest
    if newest is None:
        return None
    size = newest.committee.size
    return {
        "round": newest.round,
        "epoch": newest.epoch,
        "candidate": newest.candidate,
        "decision": newest.decision,
        "ground": newest.ground,
        "quorum": size.quorum,
        "small_swarm": size.is_small,
        "lone_peer": len(newest.roster) == 1,
        "called": [dataclasses.asdict(p) | {"this_peer": p.peer_id == own} for p in called],
    }


def _text(kept: Kept, members: Sequence[Member], called: Sequence[Place], own: str | None) -> str:
    newest = kept.newest
    if newest is None or kept.rules is None:
        return kept.emptiness
    may = sum(member.eligible for member in members)
    size = newest.committee.size
    judged = (
        f"round {newest.round}: {newest.decision} of epoch {newest.epoch:,}, "
        f"{newest.candidate[:_SHORT]}, by a quorum of {size.quorum}"
    )
    if word := size_word(newest):
        judged += f" ({word})"
    lines = [
        f"round {newest.round + 1}: {may} of {len(members)} may sit",
        columns(_HEAD, [_member_row(member, own) for member in members], _RIGHT),
        "",
        judged,
        columns(("",) * 3, [_place_row(place, own) for place in called]),
    ]
    return "\n".join(lines)


def _member_row(member: Member, own: str | None) -> tuple[str, ...]:
    agreement = member.agreement
    may = "yes" if member.eligible else "no"
    return (
        _named(member.peer_id, own),
        f"{member.epochs:,}",
        f"{member.called:,}",
        f"{member.sat:,}",
        "-" if agreement is None else f"{agreement:.0%}",
        ", ".join(map(str, member.strikes)) or "-",
        may if member.remark is None else f"{may}: {member.remark}",
    )


def _place_row(place: Place, own: str | None) -> tuple[str, str, str]:
    did = [
        place.did,
        "stood in" if place.stood_in else "",
        "struck" if place.struck else "",
        "signed" if place.signed else "",
    ]
    return place.place, _named(place.peer_id, own), ", ".join(filter(None, did))


def _named(peer_id: str, own: str | None) -> str:
    return f"{peer_id} (this peer)" if peer_id == own else peer_id
