"""The run that comes with ctpeer is whole, and vouched for by its founder."""

import pytest

from peer.data.demo import data_folder
from peer.data.folder import read_index
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory
from peer.run.signature import signers


@pytest.fixture
def run():
    return RunDirectory.open(demo_run_path())


def test_every_blob_of_the_demo_run_is_what_its_hash_names(run):
    for _, hash_ in run.blob_hashes():
        run.read_blob(hash_)


def test_the_demo_run_holds_no_other_blobs(run):
    named = {hash_ for _, hash_ in run.blob_hashes()}
    assert {path.name for path in (run.path / "blobs").iterdir()} == named


def test_the_demo_run_is_signed_by_all_its_founders(run):
    assert signers(run.manifest, run.signatures()) == run.manifest.founders


def test_the_demo_run_trains_on_the_vendored_shakespeare(run):
    index = read_index(data_folder("demo:shakespeare"))
    assert run.manifest.data.index == index.index_hash
    assert run.read_blob(index.index_hash) == index.to_bytes()
