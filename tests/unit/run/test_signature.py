"""Who vouches for a manifest."""

import base64
import json

import pytest

from peer.errors import ConfigurationError
from peer.run.signature import sign_manifest, signers


@pytest.fixture
def founded(manifest, identities):
    """Return a manifest with two founders, and the two."""
    founders = identities[:2]
    peers = tuple(founder.peer_id for founder in founders)
    return manifest.model_copy(update={"founders": peers}), founders


def merged(*texts):
    return json.dumps([entry for text in texts for entry in json.loads(text)])


def altered(text, field):
    entries = json.loads(text)
    data = bytearray(base64.b64decode(entries[0][field]))
    data[-1] ^= 1
    entries[0][field] = base64.b64encode(data).decode()
    return json.dumps(entries)


def test_a_founders_signature_is_good(founded):
    manifest, founders = founded
    text = sign_manifest(manifest, founders[1])
    assert signers(manifest, text) == (founders[1].peer_id,)


def test_all_founders_can_sign_one_file_and_count_once_each(founded):
    manifest, founders = founded
    first, second = (sign_manifest(manifest, founder) for founder in founders)
    assert signers(manifest, merged(second, first, second)) == (
        founders[1].peer_id,
        founders[0].peer_id,
    )


def test_a_strangers_good_signature_counts_for_nothing(founded, identities):
    manifest, founders = founded
    stranger = sign_manifest(manifest, identities[2])
    assert signers(manifest, stranger) == ()
    assert signers(manifest, merged(stranger, sign_manifest(manifest, founders[0]))) == (
        founders[0].peer_id,
    )


def test_a_signature_over_another_manifest_is_refused(founded):
    manifest, founders = founded
    text = sign_manifest(manifest, founders[0])
    other = manifest.model_copy(update={"name": "other"})
    with pytest.raises(ConfigurationError, match=f"{founders[0].peer_id} is not over this"):
        signers(other, text)


@pytest.mark.parametrize("field", ["signature", "public_key"])
def test_an_altered_signature_or_key_is_refused(field, founded):
    manifest, founders = founded
    text = altered(sign_manifest(manifest, founders[0]), field)
    with pytest.raises(ConfigurationError, match="get the run again from its founder"):
        signers(manifest, text)


def test_one_altered_signature_among_good_ones_is_refused(founded):
    manifest, founders = founded
    first, second = (sign_manifest(manifest, founder) for founder in founders)
    with pytest.raises(ConfigurationError, match="get the run again from its founder"):
        signers(manifest, merged(first, altered(second, "signature")))


def test_a_strangers_signature_under_a_founders_name_is_nobodys(founded, identities):
    manifest, founders = founded
    entries = json.loads(sign_manifest(manifest, identities[2]))
    entries[0]["peer_id"] = founders[0].peer_id
    assert signers(manifest, json.dumps(entries)) == ()


def test_a_founders_key_with_a_strangers_signature_is_refused(founded, identities):
    manifest, founders = founded
    entries = json.loads(sign_manifest(manifest, identities[2]))
    entries[0]["public_key"] = base64.b64encode(founders[0].public_key).decode()
    with pytest.raises(ConfigurationError, match="get the run again from its founder"):
        signers(manifest, json.dumps(entries))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "1",
        "null",
        "[1]",
        "[{}]",
        '[{"public_key": 5, "signature": ""}]',
        '[{"public_key": "@", "signature": ""}]',
        '[{"public_key": "é", "signature": ""}]',
        "[" * 200_000,
    ],
)
def test_what_is_no_signature_file_is_refused_with_what_to_do(text, manifest):
    with pytest.raises(ConfigurationError, match=r"run\.sig is not .*get the run again"):
        signers(manifest, text)
