"""A certificate proves a round, and no field of it can be changed."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest

from peer.errors import MisbehavedError
from peer.training.certificate import (
    Base,
    Certificate,
    Entry,
    Signature,
    Vote,
    group_id,
    parse_part,
    parse_signature,
    problem,
    quorum,
    sign_part,
    sign_vote,
    signer_of,
)
from peer.training.codec import encode

BASE = Base("tiny-1", 2, 7, "ab" * 32)
DATA = encode(np.ones(3, np.float32), "none")


def entries_of(members):
    return tuple(Entry(member.peer_id, f"c{i}", 10 + i, 0) for i, member in enumerate(members))


def part_of(reducer, base=BASE, entries=None, refused=()):
    """Return the one part, signed for the group that brings `entries`."""
    name = group_id(base, entries or entries_of([reducer]))
    return sign_part(reducer, name, DATA, 3, 3.5, refused)


def vote_of(members, **change):
    """Return the vote of a group in which the first member reduced the one part."""
    vote = Vote(base=BASE, entries=entries_of(members), parts=())
    vote = dataclasses.replace(vote, **{k: v for k, v in change.items() if k != "parts"})
    parts = change.get("parts", (part_of(members[0], vote.base, vote.entries),))
    return dataclasses.replace(vote, parts=parts)


def certificate_of(members, signers=None, **change):
    vote = vote_of(members, **change)
    return Certificate(vote, tuple(sign_vote(s, vote) for s in signers or members))


@pytest.fixture(scope="module")
def lone(identities):
    """Return a certificate of one, in which every list has something in it."""
    refused = ["QmSomebody"]
    return certificate_of(identities[:1], parts=(part_of(identities[0], refused=refused),))


def places(value, path=()):
    """Yield the path of every value in nested `value`, containers included."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def with_value(body, path, change):
    """Return a copy of `body` in which the value at `path` went through `change`."""
    body = copy.deepcopy(body)
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = change(inner[path[-1]])
    return body


def shape_of_one():
    """Return a certificate's JSON shape, for the places to parametrize over."""
    part = dict.fromkeys(("public_key", "elements", "digest", "square_sum", "signature"), 0)
    part["refused"] = [0]
    return {
        "vote": {
            "base": dict.fromkeys(("run_id", "generation", "epoch", "state_root"), 0),
            "entries": [dict.fromkeys(("peer_id", "contribution_id", "weight", "attempt"), 0)],
            "parts": [part],
        },
        "signatures": [dict.fromkeys(("public_key", "signature"), 0)],
    }


PLACES = list(places(shape_of_one()))
JUNK = [None, True, -1, 1.5, "", "é", "\ud800", [], [[]], {}, [{}], math.nan, 10**400]


def refused(body):
    """Return whether `body` is refused as what is no certificate, or as one that proves nothing."""
    try:
        certificate = Certificate.from_json(json.dumps(body))
    except ValueError:
        return True
    return problem(certificate) is not None


def altered(value):
    match value:
        case str():
            return ("1" if value[0] != "1" else "2") + value[1:]
        case int():
            return value + 1
        case float():
            return math.nextafter(value, math.inf)
        case list():
            return []
        case dict():
            return {}
    raise AssertionError(value)


@pytest.mark.parametrize(
    ("size", "signatures"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (100, 51), (101, 51)]
)
def test_more_than_half_of_a_group_must_sign(size, signatures):
    assert quorum(size) == signatures


def test_a_certificate_of_one_is_good_also_after_json(lone):
    assert problem(lone) is None
    again = Certificate.from_json(lone.to_json())
    assert again == lone
    assert problem(again) is None


def test_the_places_that_are_changed_below_are_all_there_are(lone):
    assert set(places(json.loads(lone.to_json()))) == set(PLACES)


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_a_changed_field_is_refused(lone, path):
    assert refused(with_value(json.loads(lone.to_json()), path, altered))


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_a_field_of_another_type_or_form_is_refused(lone, path):
    body = json.loads(lone.to_json())
    accepted = [junk for junk in JUNK if not refused(with_value(body, path, lambda _, j=junk: j))]
    assert accepted == []


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_a_missing_field_is_refused(lone, path):
    body = json.loads(lone.to_json())
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    assert refused(body)


@pytest.mark.parametrize("text", ["", "null", "[]", "5", '"x"', "{}", '{"vote":[]}', "[" * 10**5])
def test_text_that_is_no_certificate_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 the class is the contract
        Certificate.from_json(text)


def test_two_of_three_are_enough_and_one_is_not(identities):
    members = identities[:3]
    assert problem(certificate_of(members, members[:2])) is None
    assert problem(certificate_of(members, members[1:])) is None
    assert problem(certificate_of(members, members[:1])) == "1 of 3 members signed, 2 must"


def test_a_member_that_signs_twice_counts_once(identities):
    members = identities[:3]
    assert "1 of 3" in problem(certificate_of(members, [members[0], members[0]]))


def test_a_stranger_that_signs_does_not_count(identities):
    members, stranger = identities[:3], identities[3]
    assert "1 of 3" in problem(certificate_of(members, [members[0], stranger]))
    assert problem(certificate_of(members, [*members[:2], stranger])) is None


def test_a_signature_under_another_vote_does_not_count(identities):
    members = identities[:3]
    good = certificate_of(members, members[:1])
    other = sign_vote(members[1], vote_of(members, base=dataclasses.replace(BASE, epoch=8)))
    mixed = dataclasses.replace(good, signatures=(*good.signatures, other))
    assert "1 of 3" in problem(mixed)


def test_the_group_is_who_the_contributions_are_of(identities):
    assert vote_of(identities[:3]).group == tuple(each.peer_id for each in identities[:3])
    assert vote_of(identities[:3]).weight == 10 + 11 + 12


def test_a_part_by_a_stranger_is_refused(identities):
    members = identities[:3]
    parts = (part_of(identities[3], entries=entries_of(members)),)
    assert "is not in the group" in problem(certificate_of(members, parts=parts))


def test_a_reducer_with_two_parts_is_refused(identities):
    members = identities[:3]
    parts = (part_of(members[0], entries=entries_of(members)),) * 2
    assert "has two parts" in problem(certificate_of(members, parts=parts))


@pytest.mark.parametrize(
    "change",
    [
        {"elements": 4},
        {"digest": "0" * 64},
        {"square_sum": 3.25},
        {"refused": ("QmSomebody",)},
        {"signature": ""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_part_that_its_reducer_did_not_sign_is_refused(identities, change):
    members = identities[:3]
    part = dataclasses.replace(part_of(members[0], entries=entries_of(members)), **change)
    assert "not signed by the reducer" in problem(certificate_of(members, parts=(part,)))


@pytest.mark.parametrize(
    "change",
    [{"run_id": "tiny-2"}, {"generation": 3}, {"epoch": 6}, {"state_root": "cd" * 32}],
    ids=lambda change: next(iter(change)),
)
def test_a_part_signed_for_another_base_is_refused(identities, change):
    members = identities[:3]
    part = part_of(members[0], dataclasses.replace(BASE, **change), entries_of(members))
    assert "not signed by the reducer" in problem(certificate_of(members, parts=(part,)))


def test_a_part_signed_for_another_group_or_other_contributions_is_refused(identities):
    members = identities[:3]
    entries = entries_of(members)
    for other in (
        entries[:2],
        (*entries[:2], dataclasses.replace(entries[2], weight=13)),
        (*entries[:2], dataclasses.replace(entries[2], contribution_id="another")),
        entries[::-1],
    ):
        part = part_of(members[0], entries=other)
        assert "not signed by the reducer" in problem(certificate_of(members, parts=(part,)))


def test_a_part_names_whom_it_left_out_in_one_order_only(identities):
    one, other = (part_of(identities[0], refused=names) for names in ("ba", "ab"))
    assert one == other
    assert one.refused == ("a", "b")


@pytest.mark.parametrize("weight", [0, -5, 10**12 + 1])
def test_a_contribution_without_a_sensible_weight_is_refused(identities, weight):
    entries = (*entries_of(identities[:2]), Entry(identities[2].peer_id, "c", weight, 0))
    assert "no sensible weight" in problem(certificate_of(identities[:3], entries=entries))


def test_a_group_that_names_a_peer_twice_is_refused(identities):
    entries = entries_of([*identities[:2], identities[1]])
    assert "names a peer twice" in problem(certificate_of(identities[:2], entries=entries))


def test_a_group_that_is_too_large_is_refused(identities):
    names = (f"Qm{i}" for i in range(64))
    entries = (*entries_of(identities[:1]), *(Entry(name, "c", 1, 0) for name in names))
    assert "too large" in problem(certificate_of(identities[:1], entries=entries))
    fewer = certificate_of(identities[:1], entries=entries[:-1])
    assert problem(fewer) == "1 of 64 members signed, 33 must"


def test_more_signatures_than_members_are_not_even_looked_at(identities):
    good = certificate_of(identities[:2])
    flood = dataclasses.replace(good, signatures=good.signatures * 1000)
    assert problem(flood) == "it has more signatures than members"


@pytest.mark.parametrize("change", [{"parts": ()}, {"entries": ()}], ids=["part", "contribution"])
def test_a_certificate_of_no_average_is_refused(identities, change):
    assert problem(certificate_of(identities[:1], **change)) == "it certifies no average"


def test_equal_votes_have_one_name_and_others_another(identities):
    vote = vote_of(identities[:3])
    assert vote.vote_id == vote_of(identities[:3]).vote_id
    other = dataclasses.replace(vote, base=dataclasses.replace(BASE, state_root="cd" * 32))
    assert vote.vote_id != other.vote_id
    assert vote.group_id != other.group_id


def test_a_signature_tells_its_signer_and_only_under_its_own_text(identities):
    vote = vote_of(identities[:3])
    signature = sign_vote(identities[1], vote)
    assert signer_of(signature, vote.statement()) == identities[1].peer_id
    assert signer_of(signature, vote.statement() + b" ") is None
    for junk in (
        Signature("", ""),
        Signature("*", "*"),
        dataclasses.replace(signature, signature=""),
    ):
        assert signer_of(junk, vote.statement()) is None


BODIES = [None, 5, "x", [], {}, {"public_key": 5, "signature": "x"}, {"public_key": "x"}]


@pytest.mark.parametrize("body", BODIES, ids=str)
@pytest.mark.parametrize("parse", [parse_part, parse_signature])
def test_what_a_peer_sends_in_place_of_a_digest_or_a_vote_is_refused(parse, body):
    with pytest.raises(MisbehavedError, match="makes no sense"):
        parse(body)


def test_a_digest_and_a_vote_come_back_from_json_as_they_were(identities):
    part = part_of(identities[0], refused=["a"])
    vote = sign_vote(identities[0], vote_of(identities[:1]))
    assert parse_part(json.loads(json.dumps(dataclasses.asdict(part)))) == part
    assert parse_signature(json.loads(json.dumps(dataclasses.asdict(vote)))) == vote


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_is_refused(identities, bad):
    body = dataclasses.asdict(part_of(identities[0])) | {"square_sum": bad}
    with pytest.raises(MisbehavedError):
        parse_part(body)
