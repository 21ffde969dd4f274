"""Which certificates the exporter goes by, whatever peers show it."""

import hashlib

import pytest

from monitoring.row import KEPT, CertifiedRow
from peer.errors import MisbehavedError, PeerError
from peer.swarm.wire import scoped
from peer.training.certificate import Base, Certificate, Entry, Vote, group_id, sign_part, sign_vote

RUN = "tiny-1"


def root(*name):
    return hashlib.sha256(repr(name).encode()).hexdigest()


def certified(peers, epoch, line="", generation=0, weight=10, signers=None):
    """Return the certificate of a group of `peers` on a state of a line of states."""
    base = Base(RUN, generation, epoch, root(line, generation, epoch))
    entries = tuple(Entry(peer.peer_id, root("c"), weight, 0) for peer in peers)
    part = sign_part(peers[0], group_id(base, entries), b"average", 3, 1.0)
    vote = Vote(base, entries, (part,))
    return Certificate(vote, tuple(sign_vote(peer, vote) for peer in signers or peers))


def row_of(peers, epochs, **given):
    return [certified(peers, epoch, **given) for epoch in epochs]


def ends(row):
    """Return the epochs and the weight that a row ends with."""
    return [c.vote.base.epoch for c in row.certificates], row.certificates[-1].vote.weight


@pytest.fixture(scope="module")
def peers(identities):
    return identities


@pytest.fixture
def known(peers):
    """Return a row of two peers up to epoch 2."""
    row = CertifiedRow()
    row.take([row_of(peers[:2], range(3))], 0)
    return row


def test_a_row_goes_on_by_what_its_peers_signed(known, peers):
    known.take([row_of(peers[:2], range(2, 5))], 0)
    assert ends(known) == ([0, 1, 2, 3, 4], 20)
    known.take([row_of(peers[:2], range(2, 4))], 0)  # somebody who is a little behind
    assert ends(known) == ([0, 1, 2, 3, 4], 20)


def test_a_row_goes_on_with_peers_that_come_in_beside_one_that_is_known(known, peers):
    known.take([row_of(peers[1:], range(3, 6))], 0)
    assert ends(known) == ([0, 1, 2, 3, 4, 5], 30)


def test_fresh_keys_alone_carry_a_row_on_nowhere(known, peers):
    shared = known.certificates[-1:]
    known.take([[*shared, *row_of(peers[2:], range(3, 40), weight=10**9)]], 0)
    known.take([row_of(peers[2:], range(3, 40), weight=10**9)], 0)
    known.take([row_of(peers[2:], range(100, 140), line="made up", weight=10**9)], 0)
    assert ends(known) == ([0, 1, 2], 20)


def test_of_two_rows_the_one_counts_that_more_known_peers_signed(peers):
    row = CertifiedRow()
    row.take([row_of(peers[:3], range(2))], 0)
    alone = row_of([peers[0], peers[3]], range(2, 9), line="alone", weight=10**9)
    most = row_of(peers[1:3], range(2, 4))
    row.take([alone, most], 0)
    assert ends(row) == ([0, 1, 2, 3], 20)
    row.take([alone], 0)
    assert ends(row) == ([0, 1, 2, 3], 20)


def test_a_row_that_was_wrong_is_left_when_the_others_are_heard_again(peers):
    row = CertifiedRow()
    row.take([row_of(peers[:3], range(2))], 0)
    row.take([row_of([peers[0], peers[3]], range(2, 9), line="alone")], 0)
    assert ends(row)[0][-1] == 8
    row.take([[*row_of(peers[:3], range(2)), *row_of(peers[1:3], range(2, 4))]], 0)
    assert ends(row) == ([0, 1, 2, 3], 20)


def test_where_nobody_is_known_the_founders_count_first(peers):
    row = CertifiedRow(founders=frozenset({peers[0].peer_id}))
    row.take([row_of(peers[1:], range(9), line="x", weight=10**9), row_of(peers[:1], range(2))], 0)
    assert ends(row) == ([0, 1], 10)


def test_a_rollback_begins_the_row_anew_and_remembers_who_worked(known, peers):
    known.take([row_of(peers[:2], range(2, 4), generation=1)], 1)
    assert {c.vote.base.generation for c in known.certificates} == {1}
    assert known.veterans == {peer.peer_id for peer in peers[:2]}


def test_a_generation_that_no_verdict_began_is_ignored(known, peers):
    known.take([row_of(peers[:2], range(9), generation=7)], 0)
    assert ends(known) == ([0, 1, 2], 20)


def test_after_a_long_time_without_any_known_peer_all_begins_anew(known, peers):
    for _ in range(39):
        known.take([row_of(peers[2:], range(500, 502))], 0)
    assert ends(known)[0] == [0, 1, 2]
    known.take([row_of(peers[2:], range(500, 502))], 0)
    assert ends(known)[0] == [500, 501]


def test_a_row_is_bounded(peers):
    row = CertifiedRow()
    row.take([row_of(peers[:1], range(KEPT + 5))], 0)
    assert len(row.certificates) == KEPT


# ---- over streams


@pytest.fixture
def donate(sim):
    """Return a transport on which donors give what they are told to, by name."""

    async def start(rows):
        swarm = sim.MemorySwarm()
        for name, row in rows.items():

            async def give(channel, row=row):
                first = (await channel.receive()).header["first"]
                for each in row:
                    if isinstance(each, str) or each.vote.base.epoch >= first:
                        text = each if isinstance(each, str) else each.to_json()
                        await channel.send({"certificate": text})
                await channel.send({})

            await swarm.transport(name).serve(scoped(RUN, "row"), give)
        return swarm.transport("exporter")

    return start


def test_the_newest_certificates_are_fetched_and_then_only_what_is_new(sim, donate, peers):
    async def go():
        row = CertifiedRow()
        transport = await donate({"a": row_of(peers[:2], range(200))})
        await row.update(transport, RUN, ["a"], {"a": 200}, 0)
        assert [c.vote.base.epoch for c in row.certificates] == list(range(72, 200))
        await row.update(transport, RUN, ["a"], {"a": 0}, 0)
        assert len(row.certificates) == 128

    sim.run(go())


def test_a_fork_is_looked_at_from_where_it_began(sim, donate, peers):
    shared = row_of(peers[:3], range(2))
    alone = [*shared, *row_of([peers[0], peers[3]], range(2, 60), line="alone")]
    most = [*shared, *row_of(peers[1:3], range(2, 58))]

    async def go():
        row = CertifiedRow()
        transport = await donate({"a": alone, "b": most})
        await row.update(transport, RUN, ["a"], {"a": 60}, 0)
        assert ends(row) == (list(range(60)), 20)
        await row.update(transport, RUN, ["b"], {"b": 58}, 0)
        assert row.certificates[-1].vote.group == most[-1].vote.group

    sim.run(go())


@pytest.mark.parametrize(
    "bad", ["{", '{"vote": 1}', "forged", "other-run"], ids=["json", "shape", "unsigned", "run"]
)
def test_a_donor_that_lies_is_not_believed_and_hides_nobody(sim, donate, peers, bad):
    good = row_of(peers[:2], range(3))
    forged = Certificate(good[0].vote, good[0].signatures[:1] * 2).to_json()
    other = good[0].to_json().replace(RUN, "tiny-2")
    text = {"forged": forged, "other-run": other}.get(bad, bad)

    async def go():
        row = CertifiedRow()
        transport = await donate({"liar": [text], "honest": good})
        await row.update(transport, RUN, ["liar", "gone", "honest"], {}, 0)
        assert ends(row) == ([0, 1, 2], 20)
        with pytest.raises(MisbehavedError):
            await row.update(transport, RUN, ["liar"], {}, 0)
        with pytest.raises(PeerError):
            await row.update(transport, RUN, [], {}, 0)
        assert ends(row) == ([0, 1, 2], 20)

    sim.run(go())
