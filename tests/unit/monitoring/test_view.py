"""What is made of records and certificates: the picture of the swarm."""

import hashlib

import pytest

from monitoring.findings import MAX_NEWCOMERS, MAX_PEERS, Findings, kept
from monitoring.names import CLAIM_COUNTS, MAX_MEMBERS, OTHER, SILENT
from monitoring.totals import Totals
from monitoring.view import aggregate, bounded
from peer.data import claims
from peer.data.index import DataIndex, Shard
from peer.swarm.bodies import PeerBody, StatusBody
from peer.training.certificate import Base, Certificate, Entry, Vote

RUN = "tiny-1"
NOW_S = 1000.0


def root(name):
    return hashlib.sha256(str(name).encode()).hexdigest()


def certificate(epoch, generation=0, **weights):
    base = Base(RUN, generation, epoch, root((generation, epoch)))
    entries = tuple(Entry(peer, "c", weight, 0) for peer, weight in weights.items())
    return Certificate(Vote(base, entries, ()), ())


def here(epoch=3, **changed):
    fields = {
        "addresses": (),
        "protocol": 1,
        "version": "0.1.0",
        "generation": 0,
        "epoch": epoch,
        "client": False,
        "started_s": 0.0,
        "now_s": NOW_S,
    }
    return PeerBody(**(fields | changed))


def status(**changed):
    fields = {
        "phase": "training",
        "device": "cpu",
        "generation": 0,
        "epoch": 2,
        "root": root((0, 2))[:16],
        "group": 2,
        "tokens_per_s": 100.0,
        "loss_nats": 4.0,
        "heldout": 3.0,
        "committed": 3,
        "failed": 0,
        "refused": 0,
    }
    return StatusBody(**(fields | changed))


ROW = (certificate(0, a=10, b=30), certificate(1, a=10, b=30), certificate(2, a=10, b=30))


def look(totals=None, **given):
    found = Findings(now_s=NOW_S, **given)
    totals = totals or Totals()
    if found.row:
        totals.take_head(found.row[-1].vote.base.generation, len(found.row), NOW_S)
    return aggregate(found, totals)


def flood(count, **changed):
    return {f"x{i:04}": here(10**9, **changed) for i in range(count)}


def test_an_empty_swarm_is_seen_as_empty():
    view = look()
    assert view.live == ()
    assert (view.epoch, view.certificates, view.branches, view.group) == (0, 0, 0, 0)
    assert view.loss_nats is view.heldout is view.coverage is None
    assert view.epoch_spread == 0


def test_the_head_comes_from_certificates_whatever_records_say():
    view = look(row=ROW, peers={"a": here(10**9), "b": here(3)})
    assert (view.epoch, view.generation, view.certificates) == (3, 0, 3)
    assert view.behind == {"a": 0, "b": 0}


def test_a_thousand_fresh_keys_change_nothing_but_their_own_count():
    peers = {"a": here(), "b": here()}
    statuses = {"a": status(), "b": status(loss_nats=5.0)}
    calm = look(row=ROW, peers=peers, statuses=statuses)
    wild = status(tokens_per_s=1e12, loss_nats=-1e6, epoch=2, root="0" * 16)
    junk = flood(1000, version="9.9.9")
    loud = look(
        row=ROW, peers=peers | junk, statuses=statuses | dict.fromkeys(junk, wild), claims={}
    )
    assert loud.newcomers == 1000
    for name in ("live", "states", "versions", "behind", "branches", "tokens_per_s", "loss_nats"):
        assert getattr(loud, name) == getattr(calm, name)


def test_without_certificates_everybody_counts():
    view = look(peers={"a": here(), "b": here()})
    assert view.live == ("a", "b")
    assert view.newcomers == 0


def test_how_far_a_peer_lies_behind_is_reckoned_at_the_time_of_its_word():
    totals = Totals()
    totals.take_head(0, 1, NOW_S - 20)
    peers = {"a": here(2, now_s=NOW_S - 10), "b": here(1), "c": here(1, now_s=NOW_S - 30)}
    view = look(totals, row=(*ROW, certificate(3, c=1)), peers=peers)  # the head is now at 4
    assert view.behind == {"a": 0, "b": 3}  # of c nobody knows where the head was then
    assert view.epoch_spread == 3


def test_two_roots_at_one_epoch_are_two_branches():
    statuses = {"a": status(), "b": status(root="0" * 16)}
    peers = {"a": here(), "b": here()}
    assert look(row=ROW, peers=peers, statuses=statuses).branches == 2
    apart = {"a": status(), "b": status(epoch=1, root=root((0, 1))[:16])}
    assert look(row=ROW, peers=peers, statuses=apart).branches == 1
    rolled = {"a": status(), "b": status(generation=1, root="0" * 16)}
    assert look(row=ROW, peers=peers, statuses=rolled).branches == 1


def test_a_group_has_the_size_of_the_middle_one_of_the_newest():
    row = [certificate(i, a=1, b=1, c=1) for i in range(20)] + [certificate(20, a=1)]
    assert look(row=row).group == 3


def test_what_peers_say_of_themselves_is_told_by_the_middle_one():
    members = [f"p{i}" for i in range(5)]
    row = (certificate(0, **dict.fromkeys(members, 1)),)
    statuses = {m: status(loss_nats=4.0 + i / 10, heldout=None) for i, m in enumerate(members)}
    statuses["p4"] = status(loss_nats=-1e6, tokens_per_s=1e12, heldout=None)
    view = look(row=row, statuses=statuses)
    assert view.loss_nats == pytest.approx(4.1)
    assert view.heldout is None
    assert sum(view.tokens_per_s.values()) == 4 * 100 + 400


def test_a_fast_peer_may_say_more_by_as_much_as_it_contributed_more():
    said = {"gpu": 100_000.0, "cpu": 1_000.0}
    assert bounded(said, {"gpu": 1000, "cpu": 10}) == said
    assert bounded(said | {"gpu": 1e12}, {"gpu": 1000, "cpu": 10})["gpu"] == 400_000
    assert bounded({"a": 1e12, "b": 5.0, "c": 5.0}, {}) == {"a": 20.0, "b": 5.0, "c": 5.0}
    assert bounded({}, {}) == {}


def test_states_devices_and_versions_are_bounded_in_number():
    peers = {f"p{i:02}": here(version=f"1.{i}") for i in range(20)}
    statuses = {"p00": status(phase="dreaming", device="tpu"), "p01": status(phase="paused")}
    view = look(peers=peers, statuses=statuses)
    assert view.states | {"paused": 1, OTHER: 1, SILENT: 18} == view.states
    assert view.devices == {"cpu": 1, "cuda": 0, OTHER: 1}
    assert len(view.versions) == 17
    assert sum(view.versions.values()) == 20
    assert view.versions[OTHER] == 4


def test_peers_with_series_of_their_own_are_those_that_contributed_most():
    weights = {f"p{i:02}": i + 1 for i in range(64)}
    view = look(row=(certificate(0, **weights), certificate(1, best=1000)))
    assert len(view.foremost) == MAX_MEMBERS
    assert view.foremost[:2] == ("best", "p63")
    assert "p00" not in view.foremost


def test_shards_are_counted_by_the_claims_of_live_peers():
    shards = [
        Shard(name=f"s{i}", format="text", bytes=1, examples=1, sha256="0" * 64) for i in "123"
    ]
    held = Shard(name="h", format="text", bytes=1, examples=1, sha256="0" * 64, split="heldout")
    index = DataIndex(name="x", shards=(*shards, held))
    told = {
        "a": claims.encode("a", index, ["s1", "s2"]),
        "b": claims.encode("b", index, ["s1"]),
        "stranger": claims.encode("s", index, ["s3"]),
    }
    junk = {"b": "not base64"}
    cover = look(row=ROW, peers={"a": here(), "b": here()}, claims=told, index=index).coverage
    assert (cover.shards, cover.claimed, cover.claims, cover.claiming) == (3, 2, 3, 2)
    assert cover.by_claims == dict(zip(CLAIM_COUNTS, (1, 1, 1, 0, 0), strict=True))
    cover = look(row=ROW, peers={"b": here()}, claims=junk, index=index).coverage
    assert (cover.claimed, cover.claiming) == (0, 0)


def test_records_of_peers_that_worked_are_kept_before_all_others():
    junk = [f"a{i:04}" for i in range(2000)]
    whose = kept([*junk, "zz"], {"zz"})
    assert "zz" in whose
    assert len(whose) == 1 + MAX_NEWCOMERS
    assert len(kept(junk, ())) == MAX_PEERS
