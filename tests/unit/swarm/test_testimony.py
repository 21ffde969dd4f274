"""The records of validators are strict and bounded, and fit into the DHT's envelopes."""

import json

import pytest
from pydantic import ValidationError

from peer.run.canonical import canonical
from peer.swarm.kinds import KINDS, MAX_RECORD_BYTES
from peer.swarm.testimony import (
    CALLED,
    MAX_CHUNKS,
    MAX_POINTS,
    Assent,
    Good,
    Proposal,
)
from peer.validation.score import Losses, Question, make_commit, make_reveal
from peer.validation.ticket import make

QUESTION = Question("aa" * 32, "bb" * 32, "cc" * 32)
LONGEST = Losses((MAX_POINTS,) * MAX_CHUNKS, (MAX_POINTS,) * MAX_CHUNKS)
SAID = ("ticket", "commit", "reveal", "assent", "proposal", "good")
_ENVELOPE_BYTES = 1300
"""What a key, a signature, and the names of run and kind take at most."""


@pytest.fixture(scope="module")
def records(identities):
    me = identities[0]
    metrics = {f"metric_{i}": 0.1234567890123456 for i in range(8)}
    assent = Assent(seed=QUESTION.seed, judgement="dd" * 32, public_key="", signature="")
    return {
        "ticket": make(me, QUESTION.seed),
        "commit": make_commit(me, QUESTION, LONGEST),
        "reveal": make_reveal(me, QUESTION, LONGEST, ["ab" * 8] * CALLED, "e" * 100, metrics),
        "assent": assent.signed_by(me),
        "proposal": Proposal(seed=QUESTION.seed, judgement="dd" * 32),
        "good": Good(round=3, verdict="dd" * 32, state_root="ee" * 32, generation=1),
    }


@pytest.mark.parametrize("kind", SAID)
def test_a_record_is_the_same_after_json_and_fits_into_an_envelope(records, kind):
    body = canonical(records[kind].model_dump(mode="json"))
    assert KINDS[kind].schema.model_validate_json(body) == records[kind]
    assert len(body) + _ENVELOPE_BYTES <= KINDS[kind].max_bytes <= MAX_RECORD_BYTES


@pytest.mark.parametrize("kind", SAID)
def test_a_field_of_another_type_a_missing_and_an_unknown_one_are_refused(records, kind):
    body = json.loads(records[kind].model_dump_json())
    schema = KINDS[kind].schema
    required = [name for name, field in schema.model_fields.items() if field.is_required()]
    bad = [{**body, "unknown": 1}]
    bad += [{name: value for name, value in body.items() if name != gone} for gone in required]
    for junk in (None, True, -1, 1.5, "\u00e9", [[]], 10**400):
        bad += [{**body, name: junk} for name in body]
    for each in bad:
        with pytest.raises(ValidationError):
            schema.model_validate_json(json.dumps(each))


def test_a_signature_covers_all_that_a_record_says(records):
    for kind in ("commit", "reveal"):
        record = records[kind]
        assert record.is_good()
        for name in type(record).model_fields:
            if name in {"signature", "public_key"}:
                continue
            value = getattr(record, name)
            other = "ff" * 32 if isinstance(value, str) else type(value)()
            assert not record.model_copy(update={name: other}).is_good()
