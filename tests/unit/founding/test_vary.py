"""A varied run is another run with the same files, and signed."""

import pytest

from peer.founding.vary import vary
from peer.identity import Identity
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory
from peer.run.signature import signers_of


@pytest.fixture
def demo():
    return RunDirectory.open(demo_run_path())


def test_a_varied_run_differs_in_its_section_and_founder_alone(demo, tmp_path):
    founder = Identity.load_or_create(tmp_path / "key")
    validation = demo.manifest.validation.model_copy(update={"every_epochs": 7})
    varied = vary(demo, tmp_path / "run", founder, validation=validation)
    again = RunDirectory.open(tmp_path / "run")
    assert again.run_id == varied.run_id != demo.run_id
    assert again.manifest.validation.every_epochs == 7
    assert signers_of(again) == (founder.peer_id,)
    same = {"founders": demo.manifest.founders, "validation": demo.manifest.validation}
    assert again.manifest.model_copy(update=same) == demo.manifest
    for _, hash_ in demo.blob_hashes():
        assert again.read_blob(hash_) == demo.read_blob(hash_)


def test_a_varied_run_finds_the_same_shards(demo, tmp_path):
    demo = demo.import_into(tmp_path / "runs")
    demo.set_sources((tmp_path,))
    founder = Identity.load_or_create(tmp_path / "key")
    assert vary(demo, tmp_path / "run", founder).sources == (tmp_path,)
