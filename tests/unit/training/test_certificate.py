"""A certificate proves a round, and no field of it can be changed."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest

from peer.training.certificate import (
    Base,
    Certificate,
    Entry,
    Vote,
    problem,
    quorum,
    sign_part,
    sign_vote,
)
from peer.training.codec import encode

BASE = Base("tiny-1", 2, 7, "ab" * 32)
DATA = encode(np.ones(3, np.float32), "none")


def vote_of(members, **change):
    """Return the vote of a group in which the first member reduced the one part."""
    vote = Vote(
        base=BASE,
        group=tuple(member.peer_id for member in members),
        entries=tuple(Entry(member.peer_id, f"c{i}", 10 + i) for i, member in enumerate(members)),
        parts=(sign_part(members[0], BASE, DATA, 3, 3.5),),
    )
    return dataclasses.replace(vote, **change)


def certificate_of(members, signers=None, **change):
    vote = vote_of(members, **change)
    return Certificate(vote, tuple(sign_vote(s, vote) for s in signers or members))


@pytest.fixture(scope="module")
def lone(identities):
    return certificate_of(identities[:1])


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
    return {
        "vote": {
            "base": dict.fromkeys(("run_id", "generation", "epoch", "state_root"), 0),
            "group": [0],
            "entries": [dict.fromkeys(("peer_id", "contribution_id", "weight"), 0)],
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


def test_a_part_by_a_stranger_is_refused(identities):
    parts = (sign_part(identities[3], BASE, DATA, 3, 3.5),)
    assert "is not in the group" in problem(certificate_of(identities[:3], parts=parts))


@pytest.mark.parametrize(
    "change",
    [{"elements": 4}, {"digest": "0" * 64}, {"square_sum": 3.25}, {"signature": ""}],
    ids=lambda change: next(iter(change)),
)
def test_a_part_that_its_reducer_did_not_sign_is_refused(identities, change):
    part = dataclasses.replace(sign_part(identities[0], BASE, DATA, 3, 3.5), **change)
    assert "not signed by the reducer" in problem(certificate_of(identities[:3], parts=(part,)))


def test_a_part_signed_for_another_base_is_refused(identities):
    part = sign_part(identities[0], dataclasses.replace(BASE, epoch=6), DATA, 3, 3.5)
    assert "not signed by the reducer" in problem(certificate_of(identities[:3], parts=(part,)))


@pytest.mark.parametrize("weight", [0, -5])
def test_a_contribution_that_weighs_nothing_is_refused(identities, weight):
    entries = (Entry(identities[0].peer_id, "c", weight),)
    assert "weighs nothing" in problem(certificate_of(identities[:3], entries=entries))


def test_a_contribution_of_a_stranger_is_refused(identities):
    entries = (Entry(identities[3].peer_id, "c", 5),)
    assert "not a member's" in problem(certificate_of(identities[:3], entries=entries))


def test_a_group_that_is_empty_or_names_a_peer_twice_is_refused(identities):
    twice = (identities[0].peer_id,) * 2
    for group in ((), twice):
        assert "empty or names a peer twice" in problem(
            certificate_of(identities[:1], group=group, entries=())
        )


@pytest.mark.parametrize("change", [{"parts": ()}, {"entries": ()}], ids=["part", "contribution"])
def test_a_certificate_of_no_average_is_refused(identities, change):
    assert problem(certificate_of(identities[:1], **change)) is not None
