"""Held-out rows: few are scored after each epoch, and those that a committee scores are of many.

And what is said of a shard while it becomes rows.
"""

import json
import shutil
import threading

import pytest

from peer.config.settings import Settings
from peer.daemon.feed import open_feed
from peer.data.demo import data_folder
from peer.data.folder import read_index
from peer.events import Heartbeat, ShardTokenised
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
    return lambda peer_id, settings, emit=lambda _message: None: open_feed(
        run, index, task, settings, peer_id, None, emit
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


def tokenised(said):
    return [message for message in said if isinstance(message, ShardTokenised)]


def test_a_large_shard_tells_that_it_is_being_tokenised_until_its_end(
    open_as, tmp_path, monkeypatch
):
    monkeypatch.setattr("peer.daemon.feed._TOLD_CHARACTERS", 1000)
    lines = [f"line {number} of a long diary\n" for number in range(1000)]
    documents = [json.dumps({"text": line}) for line in lines]
    (tmp_path / "diary.jsonl").write_text("\n".join(documents))
    said = []
    mine = Settings.model_validate({"data": {"private": str(tmp_path), "include": ["diary.jsonl"]}})
    feed = open_as("QmPeer", mine, said.append)
    [shard] = [choice.shard for choice in feed.choices if choice.shard.name == "diary.jsonl"]
    feed.open_shard(shard)
    total = sum(map(len, lines))
    assert {message.name for message in tokenised(said)} == {"diary.jsonl"}
    assert total - 1000 < sum(message.characters for message in tokenised(said)) <= total
    assert len(tokenised(said)) > 20
    said.clear()
    feed.open_shard(shard)
    assert tokenised(said) == [], "its tokens are kept"


def test_a_training_thread_that_waits_for_a_shard_says_so_beside_the_shards_own_progress(
    open_as, tmp_path, monkeypatch
):
    monkeypatch.setattr("peer.daemon.feed._TOLD_CHARACTERS", 1000)
    (tmp_path / "diary.txt").write_text("today was a day\n" * 1000)
    said, waited = [], threading.Event()

    def emit(message):
        said.append(message)
        if isinstance(message, Heartbeat):
            waited.set()
        elif isinstance(message, ShardTokenised):
            waited.wait(10)

    mine = Settings.model_validate({"data": {"private": str(tmp_path), "include": ["no other"]}})
    feed = open_as("QmPeer", mine, emit)
    feed.stream(b"seed", None).take(1)
    assert tokenised(said)
    assert waited.is_set()
