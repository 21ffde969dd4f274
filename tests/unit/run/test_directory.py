"""A run on the disk: its blobs are what their hashes name, wherever it is copied to."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.errors import ConfigurationError, DamagedError
from peer.run.directory import RunDirectory, add_blob, write_atomically
from peer.run.signature import sign_manifest, signers

BLOB = bytes(range(256)) * 4


@pytest.fixture
def run(make_run, tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture(scope="session")
def blob_run(tmp_path_factory, manifest):
    """Return a run, and the path of its one blob, which holds BLOB."""
    path = tmp_path_factory.mktemp("blob")
    blob = path / "blobs" / add_blob(path, BLOB)
    return RunDirectory(path, manifest), blob


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["", "run.toml"])
def test_a_run_opens_by_its_folder_and_by_its_file(name, run):
    opened = RunDirectory.open(run.path / name)
    assert opened.path == run.path
    assert opened.manifest == run.manifest
    assert opened.run_id == run.run_id


@pytest.mark.parametrize("name", ["nowhere", "blobs", "nowhere/run.toml"])
def test_a_path_without_a_run_is_refused_with_what_to_do(name, run):
    with pytest.raises(ConfigurationError, match=r"there is no run at .*ctpeer run init"):
        RunDirectory.open(run.path / name)


def test_a_manifest_that_is_no_text_is_refused_by_path(run):
    (run.path / "run.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"run\.toml cannot be read"):
        RunDirectory.open(run.path)


def test_every_hash_of_the_manifest_names_a_blob(run):
    named = dict(run.blob_hashes())
    assert set(named) == {
        "the model configuration",
        "the initial state",
        "the data index",
        "the tokenizer's tokenizer.json",
    }
    for hash_ in named.values():
        assert hashlib.sha256(run.read_blob(hash_)).hexdigest() == hash_
        assert run.has_blob(hash_)


@settings(deadline=None)
@given(st.integers(0, len(BLOB) - 1))
def test_a_truncated_blob_is_refused_by_path(blob_run, kept):
    run, path = blob_run
    path.write_bytes(BLOB[:kept])
    with pytest.raises(DamagedError, match=f"{path.name} was changed or cut short; copy it again"):
        run.read_blob(path.name)
    assert not run.has_blob(path.name)


@settings(deadline=None)
@given(st.integers(0, len(BLOB) - 1), st.integers(1, 255))
def test_a_blob_with_a_flipped_bit_is_refused_by_path(blob_run, place, mask):
    run, path = blob_run
    path.write_bytes(BLOB[:place] + bytes([BLOB[place] ^ mask]) + BLOB[place + 1 :])
    with pytest.raises(DamagedError, match=f"{path.name} was changed or cut short; copy it again"):
        run.read_blob(path.name)
    assert not run.has_blob(path.name)


def test_a_missing_blob_is_refused_with_what_to_do(run):
    with pytest.raises(DamagedError, match=r"is missing; copy the run's directory again"):
        run.read_blob("0" * 64)
    assert not run.has_blob("0" * 64)


def test_an_imported_run_is_a_whole_copy_at_its_place(run, identities, tmp_path):
    (run.path / "run.sig").write_text(sign_manifest(run.manifest, identities[0]))
    imported = run.import_into(tmp_path / "home" / "runs")
    assert imported.path == tmp_path / "home" / "runs" / run.run_id
    copied = contents(imported.path)
    del copied[Path("sources.json")]
    assert copied == contents(run.path)
    assert RunDirectory.open(imported.path).run_id == run.run_id
    assert signers(imported.manifest, imported.signatures()) == (identities[0].peer_id,)


@pytest.mark.parametrize("what", range(4))
@pytest.mark.parametrize("harm", ["cut", "missing"])
def test_a_run_with_a_damaged_blob_is_not_imported(what, harm, run, tmp_path):
    path = run.path / "blobs" / list(run.blob_hashes())[what][1]
    path.write_bytes(path.read_bytes()[:-1])
    if harm == "missing":
        path.unlink()
    with pytest.raises(DamagedError, match=path.name):
        run.import_into(tmp_path / "runs")
    with pytest.raises(ConfigurationError, match="there is no run"):
        RunDirectory.open(tmp_path / "runs" / run.run_id)


def test_a_run_imported_again_mends_the_damaged_copy(run, tmp_path):
    imported = run.import_into(tmp_path / "runs")
    hash_ = run.manifest.initial_state
    (imported.path / "blobs" / hash_).write_bytes(b"damaged")
    assert run.import_into(tmp_path / "runs").read_blob(hash_) == run.read_blob(hash_)


def test_a_run_imported_to_where_it_lies_stays_as_it_is(run, tmp_path):
    imported = run.import_into(tmp_path / "runs")
    imported.set_sources((tmp_path,))
    before = contents(imported.path)
    assert imported.import_into(tmp_path / "runs") is imported
    assert contents(imported.path) == before


def test_an_import_without_room_says_what_to_do(run, tmp_path):
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(ConfigurationError, match=r"cannot be copied to .*--home"):
        run.import_into(tmp_path / "runs")


def test_sources_are_kept_as_absolute_paths_in_their_order(run, tmp_path, monkeypatch):
    assert run.sources == ()
    monkeypatch.chdir(tmp_path)
    run.set_sources((Path("relative"), Path("/absolute")))
    assert run.sources == (tmp_path / "relative", Path("/absolute"))


def test_an_import_joins_the_sources_of_both_and_forgets_none(run, tmp_path):
    run.set_sources((tmp_path / "a", tmp_path / "b"))
    imported = run.import_into(tmp_path / "runs")
    assert imported.sources == (tmp_path / "a", tmp_path / "b")
    run.set_sources((tmp_path / "c", tmp_path / "a"))
    again = run.import_into(tmp_path / "runs")
    assert again.sources == (tmp_path / "c", tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"folders": 1}', b"\xff", b"[" * 200_000])
def test_junk_for_sources_is_refused_with_what_to_do(data, run):
    (run.path / "sources.json").write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"sources\.json does not hold .*delete it"):
        _ = run.sources


def test_a_run_without_signatures_has_none(run):
    assert run.signatures() is None


def test_signatures_that_are_no_text_are_refused(run):
    (run.path / "run.sig").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"run\.sig"):
        run.signatures()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")
    assert contents(tmp_path) == {Path("file"): b"old"}
    write_atomically(path, b"new")
    assert contents(tmp_path) == {Path("file"): b"new"}


def test_only_what_the_manifest_names_is_found(run, tmp_path):
    other = add_blob(run.path, b"not the run's")
    for _, hash_ in run.blob_hashes():
        assert run.find_blob(hash_) == run.blob_path(hash_)
        assert run.blob_path(hash_).is_file()
    for asked in (other, "0" * 64, "", "..", "../run.toml", str(run.path / "run.toml")):
        assert run.find_blob(asked) is None


def test_a_blob_that_is_gone_is_not_found(run):
    run.blob_path(run.manifest.initial_state).unlink()
    assert run.find_blob(run.manifest.initial_state) is None


def test_shards_of_others_lie_in_the_runs_own_directory(run):
    assert run.shards_path == run.path / "shards"
