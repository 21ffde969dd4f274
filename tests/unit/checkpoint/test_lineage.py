"""A lineage is followed from parent to parent, whatever is damaged, gone or forged on the way."""

import dataclasses
import json

import pytest

from peer.checkpoint.annotation import Ancestor, Author, Heritage
from peer.checkpoint.keep import Keep
from peer.checkpoint.lineage import ancestry, find, known, stored
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.store import CheckpointStore
from peer.errors import UsageError


@pytest.fixture
def author(identities):
    return Author(identities[0], lambda: 1_700_000_000.0)


@pytest.fixture
def family(tmp_path, manifest_hash, make_checkpoint, author):
    """Return the shelf of a row of checkpoints, of which the oldest were dropped."""
    store = CheckpointStore(tmp_path / "c", manifest_hash, Keep(last=2), author)
    parent = None
    for epoch in (2, 3, 5, 8):
        checkpoint = make_checkpoint(epoch)
        heritage = Heritage(parent=parent, loss_terms=epoch)
        store.save(dataclasses.replace(checkpoint, heritage=heritage, certificate=None))
        parent = Ancestor(epoch, checkpoint.state_root)
    return Shelf(tmp_path / "c")


def lineage(shelf, manifest_hash, root="newest"):
    entries = stored(shelf, manifest_hash)
    return list(ancestry(find(root, entries), known(entries, shelf, manifest_hash)))


def test_a_lineage_goes_on_behind_what_was_dropped(family, manifest_hash):
    found = lineage(family, manifest_hash)
    assert [entry.epoch for entry in found] == [8, 5, 3, 2]
    assert [entry.name is not None for entry in found] == [True, True, False, False]
    assert [entry.problem for entry in found] == [None] * 4
    assert found[-1].parent is None


def test_a_lineage_ends_where_nothing_is_known(family, manifest_hash, make_checkpoint):
    (family.folder / "lineage" / f"{make_checkpoint(3).name}.json").unlink()
    found = lineage(family, manifest_hash)
    assert [entry.epoch for entry in found] == [8, 5]
    assert found[-1].parent == Ancestor(3, make_checkpoint(3).state_root)


def test_a_lineage_of_another_run_is_not_mixed_in(family, manifest_hash, author):
    for path in (family.folder / "lineage").glob("*-*.json"):
        annotation = next(
            a for a in family.remembered() if path.stem.startswith(f"{a.notes.epoch:010d}")
        )
        other = dataclasses.replace(annotation.notes, manifest="00" * 32)
        path.write_bytes(author.sign(other).to_bytes())
    assert [entry.epoch for entry in lineage(family, manifest_hash)] == [8, 5]


@pytest.mark.parametrize("epoch", [8, 9])
def test_a_parent_that_is_no_older_leads_nowhere(
    family, manifest_hash, make_checkpoint, author, epoch
):
    name = make_checkpoint(5).name
    notes = family.annotation(name).notes
    forged = dataclasses.replace(notes, parent=Ancestor(epoch, make_checkpoint(8).state_root))
    (family.path(name) / "annotation.json").write_bytes(author.sign(forged).to_bytes())
    assert [entry.epoch for entry in lineage(family, manifest_hash)] == [8, 5]


def test_a_changed_annotation_is_shown_as_damaged(family, manifest_hash, make_checkpoint):
    path = family.path(make_checkpoint(8).name) / "annotation.json"
    path.write_bytes(path.read_bytes().replace(b'"loss_terms":8', b'"loss_terms":9'))
    assert "not signed" in lineage(family, manifest_hash)[0].problem
    path.write_bytes(b"{")
    assert "annotation cannot be read" in lineage(family, manifest_hash)[0].problem


def test_a_damaged_head_is_shown_with_what_is_left(family, manifest_hash, make_checkpoint):
    name = make_checkpoint(8).name
    (family.path(name) / "checkpoint.json").write_text(json.dumps({"digest": ""}))
    entry = stored(family, manifest_hash)[0]
    assert entry.head is None
    assert entry.problem
    assert entry.state_root == make_checkpoint(8).state_root
    (family.path(name) / "annotation.json").unlink()
    entry = stored(family, manifest_hash)[0]
    assert entry.state_root == make_checkpoint(8).state_root[:16]
    assert entry.parent is None


def test_a_root_may_be_abbreviated_as_long_as_it_is_unique(family, manifest_hash, make_checkpoint):
    entries = stored(family, manifest_hash)
    roots = [make_checkpoint(epoch).state_root for epoch in (8, 5)]
    for root in roots:
        assert find(root, entries).state_root == root
        assert find(root[:8], entries).state_root == root
    same = [dataclasses.replace(entries[0]), entries[0]]
    with pytest.raises(UsageError, match="is the beginning of 2 roots"):
        find(roots[0][:4], same)


@pytest.mark.parametrize("root", ["", "xyz", "AB", "0" * 65, "../x", "newest1"])
def test_what_is_no_root_is_refused(family, manifest_hash, root):
    with pytest.raises(UsageError, match="is no state root"):
        find(root, stored(family, manifest_hash))


def test_an_unknown_root_is_refused(family, manifest_hash):
    with pytest.raises(UsageError, match="there is no checkpoint 00000000 here"):
        find("0" * 8, stored(family, manifest_hash))
