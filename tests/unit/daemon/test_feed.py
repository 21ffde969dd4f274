"""Held-out rows: few are scored after each epoch, and those that a committee scores are of many."""

import shutil

import pytest

from peer.config.settings import Settings
from peer.daemon.feed import open_feed
from peer.data.demo import data_folder
from peer.data.folder import read_index
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory
from peer.tasks import registry


@pytest.fixture(scope="module")
def open_as(tmp_path_factory):
    """Open the demo run's data as a peer does."""
    path = tmp_path_factory.mktemp("run") / "demo"
    run = RunDirectory.open(shutil.copytree(demo_run_path(), path))
    manifest = run.manifest
    files = {name: run.read_blob(hash_) for name, hash_ in manifest.tokenizer.files.items()}
    task = registry.create(manifest.task, files)
    index = read_index(data_folder("demo:shakespeare"))
    return lambda peer_id, settings: open_feed(
        run, index, task, settings, peer_id, None, lambda _message: None
    )


@pytest.fixture(scope="module")
def feed(open_as):
    return open_as("QmPeer", Settings())


def test_a_committee_draws_of_many_more_rows_than_it_scores(feed):
    manifest = feed.run.manifest
    scored, pool = feed.heldout_rows(manifest.evaluation.max_rows, manifest.validation.pool)
    assert len(scored.rows) == manifest.evaluation.max_rows
    assert len(pool.rows) >= 4 * manifest.validation.rows
    keys = {key for key, _ in pool.rows}
    assert len(keys) == len(pool.rows)
    assert keys >= {key for key, _ in scored.rows}


def test_all_peers_draw_of_the_same_rows_whatever_they_train_on(feed, open_as):
    first = feed.choices[0].shard.name
    other = open_as("QmOther", Settings.model_validate({"data": {"include": [first]}}))
    assert len(other.choices) < len(feed.choices)
    one, other = (each.heldout_rows(each.run.manifest.validation.pool)[0] for each in (feed, other))
    assert [key for key, _ in one.rows] == [key for key, _ in other.rows]
