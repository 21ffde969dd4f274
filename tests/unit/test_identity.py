"""The key file, the peer id and signatures, and hivemind's view of them."""

import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.errors import ConfigurationError, DamagedError
from peer.identity import Identity, peer_id_of, verify

MESSAGE = b"a record in the swarm"
DER = serialization.Encoding.DER


@pytest.fixture
def key_path(tmp_path):
    return tmp_path / "identity.key"


@pytest.fixture(scope="session")
def key_file(tmp_path_factory):
    """Return the bytes of a good key file, and a path to put others at."""
    folder = tmp_path_factory.mktemp("keys")
    Identity.load_or_create(folder / "good.key")
    return (folder / "good.key").read_bytes(), folder / "other.key"


def make_key(kind):
    match kind:
        case "RSA-1024":
            return rsa.generate_private_key(65537, 1024)
        case "RSA-2048 with e = 3":
            return rsa.generate_private_key(3, 2048)
        case "elliptic":
            return ec.generate_private_key(ec.SECP256R1())


def private_file(key):
    pb2 = pytest.importorskip("hivemind.proto.crypto_pb2")
    plain, openssl = serialization.NoEncryption(), serialization.PrivateFormat.TraditionalOpenSSL
    der = key.private_bytes(DER, openssl, plain)
    return pb2.PrivateKey(key_type=pb2.RSA, data=der).SerializeToString()


def public_message(key):
    pb2 = pytest.importorskip("hivemind.proto.crypto_pb2")
    der = key.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pb2.PublicKey(key_type=pb2.RSA, data=der).SerializeToString()


def changed(data, place, mask):
    place %= len(data)
    return data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]


def test_a_fresh_key_file_is_readable_by_its_owner_only(key_path):
    Identity.load_or_create(key_path)
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert [path.name for path in key_path.parent.iterdir()] == [key_path.name]


def test_a_key_file_loaded_again_gives_the_same_peer(key_path):
    first = Identity.load_or_create(key_path)
    again = Identity.load_or_create(key_path)
    assert again.peer_id == first.peer_id == peer_id_of(first.public_key)
    assert again.sign(MESSAGE) == first.sign(MESSAGE)


def test_two_key_files_are_two_peers(identities):
    assert len({identity.peer_id for identity in identities}) == len(identities)


def test_processes_that_make_a_key_at_once_become_one_peer(key_path):
    start = threading.Barrier(4, timeout=30)

    def load(_):
        start.wait()
        return Identity.load_or_create(key_path).peer_id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(load, range(4)))) == 1


@settings(deadline=None, max_examples=25)
@given(place=st.integers(0, 5000), mask=st.integers(1, 255))
def test_a_key_file_with_a_changed_byte_is_refused(key_file, place, mask):
    good, path = key_file
    path.write_bytes(changed(good, place, mask))
    with pytest.raises(DamagedError, match="delete it to become another peer"):
        Identity.load_or_create(path)


@settings(deadline=None, max_examples=25)
@given(junk=st.binary(max_size=200), kept=st.integers(0, 5000))
def test_a_truncated_or_lengthened_key_file_is_refused(key_file, junk, kept):
    good, path = key_file
    path.write_bytes(good[: kept % len(good)] + junk)
    with pytest.raises(DamagedError, match="delete it to become another peer"):
        Identity.load_or_create(path)


@pytest.mark.parametrize("kind", ["RSA-1024", "RSA-2048 with e = 3", "elliptic"])
def test_a_key_file_of_another_kind_is_refused_with_what_to_do(kind, key_path):
    key_path.write_bytes(private_file(make_key(kind)))
    with pytest.raises(DamagedError, match="delete it to become another peer"):
        Identity.load_or_create(key_path)


def test_a_refused_key_file_is_left_as_it_was(key_path):
    key_path.write_bytes(b"somebody's file")
    with pytest.raises(DamagedError, match="is not an identity key"):
        Identity.load_or_create(key_path)
    assert key_path.read_bytes() == b"somebody's file"


def test_a_key_file_that_cannot_be_read_is_named(key_path):
    key_path.mkdir()
    with pytest.raises(ConfigurationError, match=r"identity\.key cannot be read"):
        Identity.load_or_create(key_path)


def test_a_key_file_that_cannot_be_written_is_named(key_path):
    with pytest.raises(ConfigurationError, match=r"identity\.key cannot be written"):
        Identity.load_or_create(key_path.parent / "missing" / key_path.name)


@settings(deadline=None)
@given(message=st.binary(max_size=300))
def test_a_signature_verifies_with_its_own_key_only(identities, message):
    ours, theirs = identities[:2]
    assert verify(ours.public_key, ours.sign(message), message)
    assert not verify(theirs.public_key, ours.sign(message), message)


@settings(deadline=None)
@given(message=st.binary(min_size=1, max_size=300), place=st.integers(0), mask=st.integers(1, 255))
def test_a_changed_byte_of_message_signature_or_key_is_refused(identities, message, place, mask):
    key, signature = identities[0].public_key, identities[0].sign(message)
    assert not verify(key, signature, changed(message, place, mask))
    assert not verify(key, changed(signature, place, mask), message)
    assert not verify(changed(key, place, mask), signature, message)


@settings(deadline=None)
@given(junk=st.binary(max_size=400))
def test_a_junk_key_or_signature_is_false(identities, junk):
    identity = identities[0]
    assert not verify(junk, identity.sign(MESSAGE), MESSAGE)
    assert not verify(identity.public_key + junk, junk, MESSAGE)
    assert not verify(identity.public_key, junk, MESSAGE)


@pytest.mark.parametrize("kind", ["RSA-1024", "RSA-2048 with e = 3"])
def test_a_good_signature_of_another_kind_of_key_is_false(kind):
    key = make_key(kind)
    signature = key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    assert not verify(public_message(key), signature, MESSAGE)


def test_an_elliptic_public_key_is_false(identities):
    key = public_message(make_key("elliptic"))
    assert not verify(key, identities[0].sign(MESSAGE), MESSAGE)


def test_our_public_key_is_the_one_libp2p_would_write(key_path):
    identity = Identity.load_or_create(key_path)
    pb2 = pytest.importorskip("hivemind.proto.crypto_pb2")
    private = serialization.load_der_private_key(
        pb2.PrivateKey.FromString(key_path.read_bytes()).data, password=None
    )
    assert identity.public_key == public_message(private)


def test_hivemind_reads_the_same_peer_id_from_our_key_file(key_path):
    structures = pytest.importorskip("hivemind.p2p.p2p_daemon_bindings.datastructures")
    identity = Identity.load_or_create(key_path)
    theirs = structures.PeerID.from_identity(key_path.read_bytes())
    assert theirs.to_base58() == identity.peer_id


def test_a_key_file_made_by_hivemind_is_ours_with_the_same_peer_id(key_path):
    p2p = pytest.importorskip("hivemind.p2p")
    p2p.P2P.generate_identity(str(key_path))
    theirs = p2p.PeerID.from_identity(key_path.read_bytes())
    assert Identity.load_or_create(key_path).peer_id == theirs.to_base58()
