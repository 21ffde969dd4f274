"""An annotation is its writer's word about one state, and nobody can change it."""

import contextlib
import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.checkpoint.annotation import (
    MAX_BYTES,
    Ancestor,
    Annotation,
    Author,
    Notes,
    finite_scores,
)

NOTES = Notes(
    manifest="ab" * 32,
    state_root="cd" * 32,
    epoch=7,
    generation=1,
    parent=Ancestor(5, "ef" * 32),
    code_version="0.1.0",
    loss_terms=128,
    own_samples=9,
    own_tokens=144,
    scores={"bits_per_byte": 3.0, "loss": 4.25},
    accepted_by=None,
    written_s=1_700_000_000.5,
)
CHANGES = {
    "manifest": "aa" * 32,
    "state_root": "cc" * 32,
    "epoch": 8,
    "generation": 2,
    "parent": None,
    "code_version": "0.1.1",
    "loss_terms": 129,
    "own_samples": 10,
    "own_tokens": 145,
    "scores": {"bits_per_byte": 2.0},
    "accepted_by": "12" * 32,
    "written_s": 1.0,
}


@pytest.fixture(scope="module")
def signed(identities):
    return Author(identities[0], lambda: 0.0).sign(NOTES)


def test_a_signed_annotation_is_good_and_names_its_writer(signed, identities):
    assert signed.problem() is None
    assert signed.writer == identities[0].peer_id
    assert Annotation.from_bytes(signed.to_bytes()) == signed


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_field_breaks_the_signature(signed, field):
    notes = dataclasses.replace(NOTES, **{field: CHANGES[field]})
    assert "not signed" in dataclasses.replace(signed, notes=notes).problem()


def test_every_field_is_among_those_that_were_changed():
    assert CHANGES.keys() == {field.name for field in dataclasses.fields(Notes)}


def test_another_ones_signature_is_refused(signed, identities):
    other = Author(identities[1], lambda: 0.0).sign(NOTES)
    assert dataclasses.replace(signed, signature=other.signature).problem()
    assert dataclasses.replace(signed, public_key="AAAA").problem()


@given(bit=st.integers(0, 10**6))
def test_no_flipped_bit_leaves_a_good_annotation(signed, bit):
    data = bytearray(signed.to_bytes())
    place = bit % (8 * len(data))
    data[place // 8] ^= 1 << place % 8
    with contextlib.suppress(ValueError):
        assert Annotation.from_bytes(bytes(data)).problem() is not None


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {"loss": "4"}},
        {"scores": {"../x": 4.0}},
        {"scores": {f"s{i}": 1.0 for i in range(65)}},
        {"epoch": -1},
        {"epoch": "7"},
        {"state_root": "Ü"},
        {"code_version": "a\nb"},
        {"written_s": 1e12},
        {"more": 1},
    ],
)
def test_what_is_no_annotation_is_refused(signed, change):
    body = json.loads(signed.to_bytes())
    body["notes"] |= change
    data = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(ValueError):  # noqa: PT011 pydantic's words are its own
        Annotation.from_bytes(data)


def test_another_spelling_is_refused(signed):
    with pytest.raises(ValueError, match="canonical"):
        Annotation.from_bytes(json.dumps(json.loads(signed.to_bytes())).encode())


def test_too_many_bytes_are_refused_unread():
    with pytest.raises(ValueError, match="at most"):
        Annotation.from_bytes(b" " * (MAX_BYTES + 1))


def test_scores_that_are_no_number_are_left_out():
    scores = {"loss": 1, "perplexity": math.inf, "f1": math.nan, "worst": -math.inf}
    assert finite_scores(scores) == {"loss": 1.0}
