"""Verifying finds every damage and every forgery, in each file of a real run's checkpoints."""

import dataclasses
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from peer.checkpoint.annotation import Ancestor, Author
from peer.checkpoint.format import name_of
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.verify import verify_checkpoint
from peer.identity import Identity
from peer.run.canonical import canonical
from peer.run.directory import RunDirectory

FILES = ("state.safetensors", "local.safetensors", "checkpoint.json", "annotation.json")


class Case:
    """A run with its checkpoints, which a test may spoil."""

    def __init__(self, home):
        (run_id,) = home.run_ids()
        self.run = RunDirectory.open(home.run_path(run_id))
        self.shelf = Shelf(self.run.checkpoints_path)
        self.author = Author(Identity.load_or_create(home.identity_path), lambda: 0.0)

    @property
    def newest(self):
        return self.shelf.names()[0]

    def path(self, file, name=None):
        return self.shelf.path(name or self.newest) / file

    def verify(self, name=None):
        return verify_checkpoint(self.shelf, name or self.newest, self.run)

    def problems(self, name=None):
        return " | ".join(self.verify(name).problems)

    def forge_head(self, name=None, **changes):
        """Change the head, its digest and all."""
        path = self.path("checkpoint.json", name)
        head = json.loads(path.read_text()) | changes
        head.pop("digest")
        head["digest"] = hashlib.sha256(canonical(head)).hexdigest()
        path.write_text(json.dumps(head, indent=1))

    def forge_notes(self, author=None, name=None, **changes):
        """Change what is said beside a checkpoint, and sign it."""
        notes = dataclasses.replace(self.shelf.annotation(name or self.newest).notes, **changes)
        data = (author or self.author).sign(notes).to_bytes()
        self.path("annotation.json", name).write_bytes(data)

    def certificate(self, **base):
        """Return the newest certificate with its base changed."""
        body = json.loads(json.loads(self.path("checkpoint.json").read_text())["certificate"])
        body["vote"]["base"] |= base
        return json.dumps(body)


@pytest.fixture
def case(home):
    return Case(home)


def test_every_checkpoint_of_an_honest_run_is_good(case):
    names = case.shelf.names()
    assert [int(name[:10]) for name in names] == [7, 5, 4]
    for name in names:
        report = case.verify(name)
        assert report.problems == ()
        assert report.good
        assert report.chunks == 4
        assert report.signers == (case.author.identity.peer_id,)


def test_a_parent_one_epoch_before_is_proven_and_another_is_noted(case):
    seven, five, _ = case.shelf.names()
    assert "epoch 5 to 6 are not kept" in " ".join(case.verify(seven).notes)
    assert case.verify(five).notes == ()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["removed", "emptied", "halved", "shorter", "longer", "bit"])
def test_every_damage_to_every_file_is_found(case, file, damage):
    path = case.path(file)
    data = path.read_bytes()
    half = len(data) // 2
    match damage:
        case "removed":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "halved":
            path.write_bytes(data[:half])
        case "shorter":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"\0")
        case "bit":
            path.write_bytes(data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :])
    report = case.verify()
    assert not report.good
    assert all("\n" not in problem for problem in report.problems)


@pytest.fixture(scope="module")
def spare(trained_home, tmp_path_factory):
    """Return a case that is mended after each example."""
    from peer.config.home import Home

    copied = shutil.copytree(trained_home, tmp_path_factory.mktemp("spare") / "home")
    return Case(Home(copied))


@pytest.mark.parametrize("file", FILES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0.0, 1.0, exclude_max=True), bit=st.integers(0, 7))
@example(place=0.0, bit=0)
def test_every_flipped_bit_is_found(spare, file, place, bit):
    path = spare.path(file)
    good = path.read_bytes()
    data = bytearray(good)
    data[int(place * len(data))] ^= 1 << bit
    try:
        path.write_bytes(data)
        assert not spare.verify().good
    finally:
        path.write_bytes(good)


def test_every_flipped_bit_of_a_states_table_is_found(spare):
    path = spare.path("state.safetensors")
    good = path.read_bytes()
    table = 8 + int.from_bytes(good[:8], "little")
    try:
        for place in range(table):
            data = bytearray(good)
            data[place] ^= 1 << place % 8
            path.write_bytes(data)
            assert not spare.verify().good, f"a bit of byte {place}"
    finally:
        path.write_bytes(good)


def test_a_state_of_other_numbers_does_not_have_its_root(case):
    path = case.path("state.safetensors")
    tensors = safetensors.numpy.load_file(path)
    changed = {name: tensor.copy() for name, tensor in tensors.items()}
    next(iter(changed.values())).reshape(-1)[0] += 1.0
    safetensors.numpy.save_file(changed, path)
    assert "the state does not have its root" in case.problems()


def test_numbers_that_are_not_finite_are_found_under_a_root_of_their_own(case):
    path = case.path("state.safetensors")
    tensors = {n: t.copy() for n, t in safetensors.numpy.load_file(path).items()}
    next(iter(tensors.values())).reshape(-1)[:2] = np.nan
    safetensors.numpy.save_file(tensors, path)
    assert "2 numbers of the state are not finite" in case.problems()


def test_a_state_of_another_model_is_found_under_a_root_of_its_own(case):
    from peer.checkpoint.flatfile import FlatFile
    from peer.training.state import root_of

    path = case.path("state.safetensors")
    tensors = dict(safetensors.numpy.load_file(path))
    tensors["more"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(tensors, path)
    root = root_of(FlatFile(path).header(case.run.manifest_hash, 7))
    case.forge_head(state_root=root)
    case.shelf.path(case.newest).rename(case.shelf.folder / name_of(7, root))
    assert "is none of this run's model" in case.problems()


def test_without_the_runs_initial_state_the_rest_is_verified(case):
    case.run.blob_path(case.run.manifest.initial_state).unlink()
    report = case.verify()
    assert report.good
    assert "initial state is not here" in " ".join(report.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"manifest": "00" * 32}, "another run"),
        ({"schema_version": 2}, "of format 2"),
        ({"epoch": 8}, "is named"),
        ({"epoch": -1}, "is not what one holds"),
        ({"epoch": "7"}, "is not what one holds"),
        ({"local": []}, "is not what one holds"),
        ({"local": {}}, "local.safetensors was changed"),
        ({"state_root": "00" * 32}, "the state does not have its root"),
        ({"generation": 1}, "the annotation is of another state"),
        ({"code_version": "9"}, "another version"),
        ({"certificate": "{}"}, "the certificate cannot be read"),
        ({"writer": None}, "wrote the state"),
        ({"writer": "Qm" + "1" * 44}, "wrote the state"),
    ],
)
def test_a_forged_head_is_found(case, changes, words):
    case.forge_head(**changes)
    assert words in case.problems()


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({"epoch": 5}, "leads from epoch 5"),
        ({"generation": 3}, "of generation 3"),
        ({"run_id": "other-" + "0" * 32}, "of another run"),
        ({"state_root": "00" * 32}, "the certificate proves nothing"),
    ],
)
def test_a_certificate_that_does_not_lead_here_is_found(case, base, words):
    case.forge_head(certificate=case.certificate(**base))
    assert words in case.problems()
    assert "proves nothing" in case.problems()


def test_the_certificate_of_another_epoch_is_found(case):
    _, five, _ = case.shelf.names()
    theirs = json.loads(case.path("checkpoint.json", five).read_text())["certificate"]
    case.forge_head(certificate=theirs)
    assert "leads from epoch 4" in case.problems()


def test_a_missing_certificate_is_a_note_only(case):
    case.forge_head(certificate=None)
    report = case.verify()
    assert report.good
    assert "no certificate" in " ".join(report.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"manifest": "00" * 32}, "of another state"),
        ({"state_root": "00" * 32}, "of another state"),
        ({"epoch": 6}, "of another state"),
        ({"generation": 1}, "of another state"),
        ({"code_version": "9"}, "another version"),
        ({"parent": Ancestor(7, "00" * 32)}, "which is no earlier one"),
        ({"parent": Ancestor(6, "00" * 32)}, "the certificate extends another state"),
    ],
)
def test_a_false_word_of_the_writer_itself_is_found(case, changes, words):
    case.forge_notes(**changes)
    assert words in case.problems()


def test_another_writers_word_is_found(case, identities):
    case.forge_notes(Author(identities[0], lambda: 0.0))
    assert f"the annotation is by {identities[0].peer_id}" in case.problems()


def test_a_parent_that_lies_here_under_another_root_is_found(case):
    seven, five, _ = case.shelf.names()
    root = json.loads(case.path("checkpoint.json", five).read_text())["state_root"]
    false = root[:16] + "0" * 48
    case.forge_notes(parent=Ancestor(5, false))
    assert "that lies here is another one" in case.problems(seven)


def test_a_checkpoint_of_before_annotations_is_good_and_says_so(case):
    head = json.loads(case.path("checkpoint.json").read_text())
    head.pop("writer")
    head.pop("digest")
    head["digest"] = hashlib.sha256(canonical(head)).hexdigest()
    case.path("checkpoint.json").write_text(json.dumps(head, indent=1))
    case.path("annotation.json").unlink()
    report = case.verify()
    assert report.good
    assert "it has no annotation" in " ".join(report.notes)


def test_a_file_that_may_not_be_read_is_a_problem_with_its_reason(case, monkeypatch):
    real = os.open

    def failing(path, *arguments, **more):
        if str(path).endswith("state.safetensors"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", failing)
    assert "cannot be read: Permission denied" in case.problems()


def test_verifying_holds_the_checkpoint_and_changes_nothing(case, monkeypatch):
    before = {p: p.read_bytes() for p in case.shelf.folder.rglob("*") if p.is_file()}
    from peer.checkpoint import verify

    dropped = []
    real = verify.root_of

    def root_of(header):
        dropped.append(case.shelf.drop(case.newest, remember=True))
        return real(header)

    monkeypatch.setattr(verify, "root_of", root_of)
    assert case.verify().good
    assert dropped == [False]
    assert {p: p.read_bytes() for p in case.shelf.folder.rglob("*") if p.is_file()} == before


def test_what_is_gone_is_no_checkpoint(case):
    with pytest.raises(LookupError):
        case.verify("0000000009-" + "0" * 16)
