"""The cache of token ids: right ones, made once, whatever became of the file."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.data.tokens import TokenCache

TOKENS = np.arange(50, dtype=np.uint32) * 1000


class Maker:
    """Makes the tokens and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return TOKENS.copy()


@pytest.fixture
def make():
    return Maker()


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Return a cache, the path of the one file in it, and what a good one holds."""
    folder = tmp_path_factory.mktemp("tokens")
    TokenCache(folder).get("key", Maker())
    [path] = folder.iterdir()
    return TokenCache(folder), path, path.read_bytes()


def check_mended(kept, data):
    cache, path, _ = kept
    path.write_bytes(data)
    make = Maker()
    for _ in range(2):
        assert np.array_equal(cache.get("key", make), TOKENS)
    assert make.calls <= 1


def test_tokens_are_made_once_in_the_life_of_a_folder(tmp_path, make):
    folder = tmp_path / "deep" / "tokens"
    for _ in range(3):
        tokens = TokenCache(folder).get("key", make)
        assert tokens.dtype == np.uint32
        assert np.array_equal(tokens, TOKENS)
    assert make.calls == 1


def test_another_key_has_other_tokens(tmp_path, make):
    cache = TokenCache(tmp_path)
    cache.get("one", make)
    other = cache.get("two", lambda: TOKENS[:3])
    assert np.array_equal(other, TOKENS[:3])
    assert np.array_equal(cache.get("one", make), TOKENS)
    assert make.calls == 1


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_a_truncated_file_is_made_anew(kept, length):
    check_mended(kept, kept[2][: length % len(kept[2])])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_file_of_junk_is_made_anew(kept, junk):
    check_mended(kept, junk)


@pytest.mark.parametrize(
    "junk",
    [b"PK\x03\x04 junk", b"PK\x05\x06" + b"\0" * 18, b"\x80\x04N."],
    ids=["zip", "empty zip", "pickle"],
)
def test_an_archive_or_a_pickle_is_made_anew(kept, junk):
    check_mended(kept, junk)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 255))
def test_a_file_with_a_changed_byte_is_made_anew(kept, place, mask):
    data = kept[2]
    place %= len(data)
    check_mended(kept, data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])


@pytest.mark.parametrize(
    "other",
    [TOKENS.astype(np.int64), TOKENS.reshape(5, 10), np.array("text")],
    ids=["int64", "table", "text"],
)
def test_a_file_of_another_kind_is_made_anew_and_kept(other, tmp_path, kept):
    np.save(tmp_path / "other.npy", other)
    check_mended(kept, (tmp_path / "other.npy").read_bytes())


def test_without_room_for_the_file_the_tokens_are_still_given(tmp_path, make):
    (tmp_path / "tokens").write_text("a file in the way")
    assert np.array_equal(TokenCache(tmp_path / "tokens").get("key", make), TOKENS)


def test_a_failed_write_leaves_nothing_behind(tmp_path, make):
    TokenCache(tmp_path).get("key", make)
    [path] = tmp_path.iterdir()
    path.unlink()
    path.mkdir()
    assert np.array_equal(TokenCache(tmp_path).get("key", make), TOKENS)
    assert list(tmp_path.iterdir()) == [path]
