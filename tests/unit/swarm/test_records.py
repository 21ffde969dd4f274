import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from peer.run.canonical import canonical
from peer.swarm.bodies import ClaimBody, PeerBody
from peer.swarm.kinds import KINDS, MAX_RECORD_BYTES
from peer.swarm.records import RecordError, Refusal, key_of, open_envelope, seal

NOW_S = 1.7e9
RUN = "tiny-" + "0" * 32
PEER = {
    "addresses": ("/ip4/127.0.0.1/tcp/1/p2p/Qm",),
    "protocol": 1,
    "version": "0.1.0",
    "generation": 0,
    "epoch": 7,
    "client": False,
    "started_s": NOW_S - 5.0,
    "now_s": NOW_S,
}
SIGNED = {"seed": "aa" * 32, "public_key": "", "signature": ""}
SHOWN = {"candidate": [1], "baseline": [1], "salt": "bb" * 32}
STATUS = {
    "phase": "training",
    "device": "cpu",
    "generation": 0,
    "epoch": 3,
    "root": "ab" * 8,
    "group": 2,
    "tokens_per_s": 10.0,
    "loss_nats": 4.0,
    "heldout": None,
    "committed": 3,
    "failed": 0,
    "refused": 0,
    "metrics": None,
}
BODIES = {
    "peer": PEER,
    "claim": {"shards": ""},
    "status": STATUS,
    "ticket": SIGNED,
    "commit": SIGNED | {"question": "bb" * 32, "digest": "cc" * 32},
    "reveal": SIGNED | SHOWN,
    "assent": SIGNED | {"judgement": "bb" * 32},
    "proposal": {"seed": "aa" * 32, "judgement": "bb" * 32},
    "good": {"round": 0, "verdict": "aa" * 32, "state_root": "bb" * 32, "generation": 0},
}


@pytest.fixture
def make(identities):
    def make(kind="peer", expires_s=NOW_S + 60.0, body=None, seq=1):
        return seal(identities[0], RUN, kind, seq, expires_s, body or PeerBody(**PEER))

    return make


@pytest.fixture
def forge(identities):
    """Return a record that is signed as it should be, whatever it says."""

    def forge(body=None, **changed):
        fields = {
            "run_id": RUN,
            "kind": "peer",
            "key": f"{RUN}/peer",
            "seq": 1,
            "expires_s": NOW_S + 60,
            "public_key": base64.b64encode(identities[0].public_key).decode(),
            "body": dict(PEER) if body is None else body,
        } | changed
        signature = identities[0].sign(b"ctpeer record\n" + json_bytes(fields))
        return json_bytes(fields | {"signature": base64.b64encode(signature).decode()})

    return forge


def json_bytes(value):
    try:
        return canonical(value)
    except ValueError:  # what is not finite
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def refusal(data, now_s=NOW_S):
    with pytest.raises(RecordError) as caught:
        open_envelope(data, now_s)
    return caught.value.reason


def test_a_sealed_record_opens_to_what_was_said(make, identities):
    envelope = open_envelope(make(), NOW_S)
    assert envelope.body == PeerBody(**PEER)
    assert (envelope.run_id, envelope.kind, envelope.key) == (RUN, "peer", f"{RUN}/peer")
    assert (envelope.seq, envelope.expires_s) == (1, NOW_S + 60.0)
    assert envelope.peer_id == identities[0].peer_id
    claim = open_envelope(make("claim", body=ClaimBody(shards="x" * 3000)), NOW_S)
    assert claim.body.shards == "x" * 3000
    assert key_of(RUN, "claim") == claim.key


def test_equal_words_are_equal_bytes(make):
    assert make() == make()


def test_the_largest_records_fit(make):
    full = PeerBody(**(PEER | {"addresses": ("/" + "x" * 199,) * 8, "version": "v" * 40}))
    assert len(make(body=full)) <= MAX_RECORD_BYTES
    assert len(make("claim", body=ClaimBody(shards="\\" * 1000))) <= MAX_RECORD_BYTES


def test_a_forged_but_well_made_record_opens(forge):
    assert open_envelope(forge(), NOW_S).body == PeerBody(**PEER)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kind": "gossip", "key": f"{RUN}/gossip"}, Refusal.KIND),
        ({"key": "other-run/peer"}, Refusal.KEY),
        ({"key": f"{RUN}/claim"}, Refusal.KEY),
        ({"seq": -1}, Refusal.SCHEMA),
        ({"seq": 1.5}, Refusal.SCHEMA),
        ({"seq": True}, Refusal.SCHEMA),
        ({"seq": 2**53}, Refusal.SCHEMA),
        ({"run_id": "a/b"}, Refusal.SCHEMA),
        ({"extra": 1}, Refusal.SCHEMA),
        ({"expires_s": NOW_S + 120 + 3.5}, Refusal.EXPIRY),
        ({"expires_s": NOW_S + 30 * 365 * 86400}, Refusal.EXPIRY),
        ({"expires_s": NOW_S - 11}, Refusal.EXPIRY),
        ({"expires_s": float("inf")}, Refusal.SCHEMA),
        ({"expires_s": float("nan")}, Refusal.SCHEMA),
    ],
)
def test_an_envelope_with_a_wrong_field_is_refused(forge, changed, reason):
    assert refusal(forge(**changed)) == reason


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": 10**9 + 1},
        {"epoch": -1},
        {"epoch": 1.0e300},
        {"epoch": "7"},
        {"now_s": float("nan")},
        {"now_s": float("inf")},
        {"now_s": -float("inf")},
        {"started_s": 1e30},
        {"client": 1},
        {"version": "v" * 41},
        {"addresses": ["/x"] * 9},
        {"addresses": ["/" + "x" * 200]},
        {"addresses": ["no slash"]},
        {"addresses": "/x"},
        {"surplus": 1},
        {"protocol": None},
    ],
)
def test_a_body_out_of_bounds_is_refused(forge, changed):
    assert refusal(forge(PEER | changed)) == Refusal.SCHEMA


def test_a_body_of_another_kind_is_refused(forge):
    assert refusal(forge(kind="claim", key=f"{RUN}/claim")) == Refusal.SCHEMA


def test_another_s_key_is_refused(make, identities):
    fields = json.loads(make())
    fields["public_key"] = base64.b64encode(identities[1].public_key).decode()
    assert refusal(canonical(fields)) == Refusal.SIGNATURE


@pytest.mark.parametrize("name", ["seq", "expires_s", "run_id", "body"])
def test_a_field_changed_after_signing_is_refused(make, name):
    fields = json.loads(make())
    fields[name] = {
        "seq": 2,
        "expires_s": NOW_S + 61,
        "run_id": "tiny-" + "1" * 32,
        "body": fields["body"] | {"epoch": 8},
    }[name]
    fields["key"] = f"{fields['run_id']}/peer"
    assert refusal(canonical(fields)) == Refusal.SIGNATURE


def test_an_oversized_record_is_refused_unread(forge):
    assert refusal(b" " * (MAX_RECORD_BYTES + 1)) == Refusal.SIZE
    assert refusal(forge(PEER | {"addresses": ["/" + "x" * 190] * 30})) == Refusal.SIZE


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_junk_is_refused(data):
    assert refusal(data) in {Refusal.SCHEMA, Refusal.KIND}


@pytest.mark.parametrize("data", [b"[" * 4000, b'{"a":' * 800, b"1" * 4000, b'"\\ud800"'])
def test_absurd_json_is_refused(data):
    assert refusal(data) == Refusal.SCHEMA


@given(st.data())
def test_a_record_with_one_byte_changed_never_says_something_else(identities, data):
    record = seal(identities[0], RUN, "peer", 1, NOW_S + 60, PeerBody(**PEER))
    at = data.draw(st.integers(0, len(record) - 1))
    changed = data.draw(st.integers(0, 255).filter(lambda byte: byte != record[at]))
    try:
        envelope = open_envelope(record[:at] + bytes([changed]) + record[at + 1 :], NOW_S)
    except RecordError:
        return
    assert envelope == open_envelope(record, NOW_S)  # base64's unused bits, at most


def test_a_record_just_ended_is_no_offence(make):
    assert open_envelope(make(expires_s=NOW_S - 9.0), NOW_S).seq == 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_longest_life(forge, kind):
    body = BODIES[kind]
    longest_s = KINDS[kind].max_lifetime_s
    record = forge(body, kind=kind, key=f"{RUN}/{kind}", expires_s=NOW_S + longest_s)
    assert open_envelope(record, NOW_S).kind == kind
    assert refusal(record, NOW_S - 4.0) == Refusal.EXPIRY


@pytest.mark.parametrize(
    "changed",
    [
        {"phase": "Training!"},
        {"device": "x" * 17},
        {"epoch": 10**9 + 1},
        {"generation": -1},
        {"root": "ab" * 32},
        {"group": 513},
        {"tokens_per_s": 1e13},
        {"tokens_per_s": float("nan")},
        {"loss_nats": float("inf")},
        {"heldout": -1e7},
        {"failed": True},
        {"metrics": "metrics.example.org:80"},
        {"metrics": "8.8.8.8:80/path"},
        {"metrics": ""},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_status_that_says_too_much_is_refused(forge, changed):
    record = forge(STATUS | changed, kind="status", key=f"{RUN}/status", expires_s=NOW_S + 60)
    assert refusal(record, NOW_S) == Refusal.SCHEMA


def test_sealing_what_nobody_would_take_is_our_error(identities):
    with pytest.raises(ValueError, match="cannot hold a ClaimBody"):
        seal(identities[0], RUN, "peer", 1, NOW_S, ClaimBody(shards=""))
    with pytest.raises(ValueError, match="schema"):
        seal(identities[0], "a/b", "claim", 1, NOW_S, ClaimBody(shards=""))
    with pytest.raises(ValueError, match="size"):
        seal(identities[0], RUN, "claim", 1, NOW_S, ClaimBody(shards="\\" * 3000))
    with pytest.raises(ValidationError):
        ClaimBody(shards="x" * 3001)
