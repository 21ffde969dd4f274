"""One's own row of certificates: it grows, forks, is replaced, and stays bounded."""

import dataclasses

import pytest

from peer.training import history
from peer.training.certificate import (
    Base,
    Certificate,
    Entry,
    Vote,
    sign_vote,
)
from peer.training.history import History


def make(epoch, signers, root=None):
    """Return a certificate on the state `root` at `epoch`; its average does not matter here."""
    base = Base("tiny-1", 0, epoch, root or f"{epoch:064x}")
    entries = tuple(Entry(signer.peer_id, "c", 1, 0) for signer in signers)
    vote = Vote(base, entries, ())
    return Certificate(vote, tuple(sign_vote(signer, vote) for signer in signers))


@pytest.fixture(scope="module")
def row(identities):
    """Return five certificates in a row, signed by ever more peers."""
    return [make(epoch, identities[: 1 + epoch // 2]) for epoch in range(5)]


def grown(row):
    grown = History()
    for certificate in row:
        grown.append(certificate)
    return grown


def test_what_is_appended_is_the_row(row):
    assert grown(row).row() == row
    assert grown(row).since(3) == row[3:]
    assert [grown(row).root_at(epoch) for epoch in range(6)] == [
        *(c.vote.base.state_root for c in row),
        None,
    ]


def test_an_empty_row_has_nothing():
    empty = History()
    assert empty.row() == empty.since(0) == []
    assert empty.root_at(0) is None
    assert empty.tenured() == frozenset()


def test_tenure_is_read_from_the_signatures(row, identities):
    first, second, third, _ = (identity.peer_id for identity in identities)
    assert grown(row).tenured() == {first, second, third}


def test_another_certificate_on_an_epoch_takes_the_place_of_what_followed(row, identities):
    ours = grown(row)
    fork = make(2, identities[3:], root="ff" * 32)
    ours.append(fork)
    assert ours.row() == [*row[:2], fork]
    assert ours.root_at(2) == "ff" * 32
    assert ours.root_at(3) is None


def test_after_a_gap_the_row_begins_anew(row, identities):
    ours = grown(row[:2])
    ours.append(row[4])
    assert ours.row() == [row[4]]
    assert ours.root_at(0) is None


def test_peers_of_a_row_that_was_left_are_known_still(row, identities):
    ours = grown(row)
    ours.replace([make(9, identities[3:])])
    assert ours.met() == {identity.peer_id for identity in identities}
    assert ours.tenured() == {identity.peer_id for identity in identities[3:]}


def test_a_replaced_row_is_the_other_one(row, identities):
    ours = grown(row[:2])
    ours.replace(row[1:4])
    assert ours.row() == row[1:4]
    assert ours.root_at(0) is None
    ours.append(row[4])
    assert ours.row() == row[1:]


def test_the_row_and_the_tenure_are_bounded(monkeypatch, identities):
    monkeypatch.setattr(history, "KEPT", 3)
    monkeypatch.setattr(history, "TENURE_EPOCHS", 2)
    certificates = [make(epoch, [identities[epoch % 3]]) for epoch in range(6)]
    ours = grown(certificates)
    assert ours.row() == certificates[3:]
    assert ours.root_at(2) is None
    assert ours.tenured() == {identities[1].peer_id, identities[2].peer_id}
    ours.replace(certificates)
    assert ours.row() == certificates[3:]
    assert ours.tenured() == {identities[1].peer_id, identities[2].peer_id}


def test_what_row_returned_does_not_change_later(row):
    ours = grown(row[:2])
    before = ours.row()
    ours.append(row[2])
    assert before == row[:2]


def test_tenure_does_not_hang_on_whose_signatures_came_in_time(row):
    short = [dataclasses.replace(c, signatures=c.signatures[:1]) for c in row]
    assert any(len(c.signatures) > 1 for c in row)
    assert grown(short).tenured() == grown(row).tenured()
