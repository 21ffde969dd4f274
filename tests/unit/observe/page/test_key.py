import stat

import pytest

from peer.errors import ConfigurationError
from peer.observe.page.key import load_or_create_key


def test_the_key_is_its_owners_alone_and_stays_the_same(tmp_path):
    path = tmp_path / "page.key"
    key = load_or_create_key(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(path) == key


def test_two_homes_have_two_keys(tmp_path):
    assert load_or_create_key(tmp_path / "a") != load_or_create_key(tmp_path / "b")


@pytest.mark.parametrize("damaged", [b"", b"short", b"\xff" * 32, b"a" * 33])
def test_a_damaged_key_is_made_anew(tmp_path, damaged):
    path = tmp_path / "page.key"
    path.write_bytes(damaged)
    key = load_or_create_key(path)
    assert path.read_text() == key
    assert key.encode() != damaged


def test_a_key_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "page.key"
    key = load_or_create_key(path)
    path.chmod(0o644)
    assert load_or_create_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"page\.key cannot be written"):
        load_or_create_key(tmp_path / "missing" / "page.key")
