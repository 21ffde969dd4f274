"""One member or stranger is hostile: the honest go on, and what it did is counted."""

import asyncio
import dataclasses
import hashlib
import math

import numpy as np
import pytest

from peer.errors import PeerError
from peer.events import PartRefused, PeerMisbehaved
from peer.swarm.membership import Report
from peer.training.certificate import sign_part, sign_vote
from peer.training.contribution import Contribution
from peer.training.round import average_alone

SIZE = 4
HOSTILE = SIZE - 1
SPEED = 0.25
SECONDS = 20.0
NORMAL_EPOCHS = 15
"""What four honest peers of that speed commit in that time."""

CASES = {
    # what it does: (share of the normal speed, what is counted); three of four do 0.75 of it
    "sends_nan": (0.7, "not finite"),
    "sends_huge_numbers": (0.7, "not finite"),
    "sends_too_little": (0.7, "wrong shape"),
    "sends_a_byte_now_and_then": (0.7, "sends a frame of 1 bytes instead of"),
    "weighs_too_much": (0.7, "a weight of 100000000000 where 128 is the most"),
    "denies_its_groups": (0.6, "it denies that it is in the group"),
    "signs_junk": (0.7, "a signature that is not good"),
    "blames_a_reducer": (0.7, "a vote for a part that nobody signed"),
    "votes_for_nothing": (0.7, "a vote that makes no sense"),
    "reduces_differently": (0.7, "two averages of one part"),
    "reduces_to_junk": (0.7, "is not what it signed"),
    "leads_apart": (0.7, "it denies that it is in the group"),
    "proposes_junk": (0.7, "a word of being ready makes no sense"),
    "answers_never": (0.7, None),
    "claims_the_far_future": (0.7, None),
    "claims_and_answers_never": (0.5, "it does not say whether it has a certificate"),
    "goes_alone": (0.7, None),
    "follows_nobody": (0.6, None),
    # a deadline must pass before it is left out
    "opens_no_stream": (0.4, "it brought no slice"),
    "sends_no_slice": (0.4, "its slice did not come"),
    "reduces_nothing": (0.2, "its part did not come"),
    "leads_for_ever": (0.1, "it leads, but closes no group"),
    "holds_and_declines": (0.1, "it keeps us waiting and lets us into no group"),
    "names_invented_fellows": (0.1, "it keeps us waiting and lets us into no group"),
    "signs_nothing": (0.3, None),
}


def check_blame(house, what):
    """Only the hostile peer was blamed, and for `what`."""
    events = house.of(PeerMisbehaved)
    blamed = {house.number_of(event.peer_id) for _, event in events}
    assert blamed <= {HOSTILE}, {(house.number_of(e.peer_id), e.what) for _, e in events}
    if what is not None:
        assert any(what in event.what for _, event in events), {e.what for _, e in events}


@pytest.mark.parametrize("what", CASES)
def test_one_hostile_member_does_not_stop_the_others(sim, make_house, what):
    share, counted = CASES[what]

    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, spoil=getattr(sim.hostile, what), speed=SPEED)
        rounds = 1 if share > 0.6 else 4  # where deadlines pass first
        await asyncio.sleep(rounds * SECONDS)
        assert house.epoch >= share * rounds * NORMAL_EPOCHS
        house.check()
        assert all(np.abs(peer.state).max() < 1e3 for peer in house.peers.values())
        check_blame(house, counted)

    sim.run(scene())


def test_nothing_is_slow_without_a_hostile_member(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, speed=SPEED)
        await asyncio.sleep(SECONDS)
        assert house.epoch >= 0.95 * NORMAL_EPOCHS
        assert house.of(PeerMisbehaved) == []

    sim.run(scene())


def test_one_that_accuses_an_honest_peer_keeps_it_out_of_few_groups(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        victim = house.identities[0].peer_id
        await house.open(SIZE, spoil=sim.hostile.accuses(victim), speed=SPEED)
        await asyncio.sleep(3 * SECONDS)
        inside = [inside for _, _, inside in house.peers[0].commits]
        assert sum(inside) >= 0.8 * len(inside)
        check_blame(house, "it cannot reach peers that reach it")

    sim.run(scene())


@pytest.mark.parametrize(("size", "victims"), [(5, (1, 2, 3)), (6, (1, 2, 3, 4)), (6, (2, 3, 4))])
def test_those_whom_one_refuses_to_talk_to_are_no_liars(sim, make_house, size, victims):
    async def scene():
        house = make_house(size)
        refused = {house.identities[number].peer_id for number in victims}
        await house.open(size, spoil=sim.hostile.refuses(refused), speed=SPEED)
        await asyncio.sleep(6 * SECONDS)
        house.check()
        assert all(peer.replaced == [] for peer in house.peers.values())
        blamed = {house.number_of(event.peer_id) for _, event in house.of(PeerMisbehaved)}
        assert blamed <= {size - 1}

    sim.run(scene())


@pytest.mark.parametrize("slow_s", [0.0, 0.02, 0.1])
def test_a_retry_is_another_group_and_nobody_is_blamed_for_it(sim, make_house, slow_s):
    async def scene():
        house = make_house(3)
        await house.open(3, speed=SPEED)
        await house.reach(5)
        exchange = house.peers[2].averager._exchange
        run = exchange.run

        async def late(group, values):
            await asyncio.sleep(slow_s)
            return await run(group, values)

        def blink():
            house.cut(0, 1)
            house.mend(0, 1)

        exchange.run = late
        later = asyncio.get_running_loop().call_later
        house.at(0, 8, "transfer", lambda: later(0.0015, blink))
        await house.reach(12)
        assert any(peer.failures for peer in house.peers.values())
        assert all(len(peer.failures) <= 1 for peer in house.peers.values())
        assert house.of(PeerMisbehaved) == []
        house.check()

    sim.run(scene())


@pytest.mark.parametrize("what", ["sends_nan", "sends_huge_numbers", "sends_too_little"])
def test_a_bad_slice_is_left_out_named_in_the_certificate_and_counted(sim, make_house, what):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, spoil=getattr(sim.hostile, what), speed=SPEED)
        await house.reach(1)
        _, vote, _ = house.peers[0].commits[0]
        bad = house.identities[HOSTILE].peer_id
        honest = [part for part in vote.parts if part.reducer != bad]
        assert len(honest) == SIZE - 1
        assert all(part.refused == (bad,) for part in honest)
        refusals = house.of(PartRefused)
        assert {number for number, _ in refusals} == {0, 1, 2}
        assert {event.peer_id for _, event in refusals} == {bad}

    sim.run(scene())


def test_a_member_that_never_comes_costs_bounded_time(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, spoil=sim.hostile.is_never_ready, speed=SPEED / 10)
        await asyncio.sleep(600.0)
        began = house.epoch
        await asyncio.sleep(200.0)
        assert house.epoch - began >= 9
        house.check()
        check_blame(house, "it answers, but does not come to the round")

    sim.run(scene())


@pytest.mark.parametrize("speed", [0.25, 4.0])
def test_a_fast_member_cannot_drag_the_others_along_alone(sim, make_house, speed):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, speed=SPEED)
        await house.reach(10)
        bad = house.peers[HOSTILE]
        bad.speed = speed
        sim.hostile.goes_alone(bad)
        house.disown(HOSTILE)
        began = house.epoch
        await asyncio.sleep(SECONDS)
        assert house.epoch - began >= 0.7 * NORMAL_EPOCHS
        house.check()
        assert all(np.abs(peer.state).max() < 1e3 for peer in house.peers.values())
        assert all(peer.replaced == [] for peer in house.peers.values())

    sim.run(scene())


# ---- strangers


@pytest.fixture
def make_stranger(sim, sim_identities):
    """Return a stranger in a house's swarm."""

    def make(house, number=4):
        return sim.hostile.Stranger(house.swarm, sim_identities[number], sim.peers.RUN)

    return make


def everybody(house):
    return [peer.peer_id for peer in house.peers.values()]


@pytest.mark.parametrize(
    "report",
    [
        Report(epoch=10**9, root="f" * 64, weight=10**12, rate=1e12, ready=True),
        Report(epoch=10**9, generation=10**9, ready=True),
        Report(epoch=0, weight=10**12, rate=1e12, ready=True, abreast=True),
        Report(epoch=3, weight=10**12, rate=1e12, ready=True, abreast=True),
    ],
    ids=["far future", "other generation", "past", "just there"],
)
def test_a_strangers_forged_report_slows_nobody(sim, make_house, make_stranger, report):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, speed=SPEED)
        await house.reach(3)
        stranger = make_stranger(house)
        stranger.report = report
        await stranger.introduce(everybody(house))
        await asyncio.sleep(SECONDS)
        assert house.epoch >= 0.8 * NORMAL_EPOCHS
        house.check()
        blamed = {event.peer_id for _, event in house.of(PeerMisbehaved)}
        assert blamed <= {stranger.peer_id}
        assert all(peer.failures == [] for peer in house.peers.values())

    sim.run(scene())


def test_a_stranger_that_follows_every_move_with_a_forged_weight_hurries_nobody_for_long(
    sim, make_house, make_stranger
):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, speed=SPEED)
        await house.reach(3)
        stranger = make_stranger(house)
        for _ in range(80):
            mine = house.peers[0].muster.standing
            stranger.report = mine.model_copy(update={"weight": 10**12, "ready": True})
            await stranger.introduce(everybody(house))
            await asyncio.sleep(0.25)
        weights = [vote.weight for _, vote, _ in house.peers[0].commits]
        assert len(weights) > 5
        assert min(weights) >= sim.peers.TARGET / 8
        house.check()

    sim.run(scene())


def forge(sim, stranger, house, epochs):
    """Return a row of lone certificates on top of the first peer's state, and their average."""
    peer = house.peers[0]
    values = np.full(sim.peers.ELEMENTS, 1e6, np.float32)
    contribution = Contribution("forged", values, 10**12, 1, 1, 0.0)
    roots = [hashlib.sha256(f"poison {i}".encode()).hexdigest() for i in range(1, epochs)]
    row, average = sim.hostile.forged_row(stranger.identity, peer.base, roots, contribution)
    return [*peer.history.row(), *row], average


def test_strangers_that_claim_to_be_ahead_and_answer_late_take_little_work(
    sim, make_house, make_stranger
):
    async def scene():
        house = make_house(3)
        await house.open(3, speed=SPEED)
        await house.reach(3)
        strangers = [make_stranger(house, number) for number in (3, 4, 5)]

        async def late(channel, answer):
            await channel.receive()
            await asyncio.sleep(3.8)
            await channel.send(answer)

        far = {"lineage": [[10**6, "f" * 64]]}
        for stranger in strangers:
            await stranger.serve("lineage", lambda c: late(c, far))
            await stranger.serve("row", lambda c: late(c, {}))
            await stranger.serve("certificate", lambda c: late(c, {"certificate": None}))
        before = [peer._batches for peer in house.peers.values()]
        for _ in range(100):
            for stranger in strangers:
                stranger.report = Report(epoch=10**6, root="f" * 64)
                await stranger.introduce(everybody(house))
            await asyncio.sleep(0.9)
        done = [peer._batches - b for peer, b in zip(house.peers.values(), before, strict=True)]
        assert min(done) >= 0.7 * 2.5 * 90.0
        house.check()

    sim.run(scene())


@pytest.mark.parametrize("size", [1, SIZE])
@pytest.mark.parametrize("epochs", [1, 20])
def test_a_poisoned_row_on_top_of_ours_moves_nobody(sim, make_house, make_stranger, epochs, size):
    async def scene():
        house = make_house(SIZE)
        await house.open(size, speed=SPEED)
        await house.reach(5)
        stranger = make_stranger(house)
        began = house.epoch
        for _ in range(20):
            row, average = forge(sim, stranger, house, epochs)
            last = row[-1].vote.base
            await stranger.show(row, average)
            stranger.report = Report(epoch=last.epoch + 1, root="f" * 64, abreast=True)
            await stranger.introduce(everybody(house))
            await asyncio.sleep(0.7)
        assert house.epoch > began + 5
        house.check()
        for peer in house.peers.values():
            assert peer.replaced == []
            assert np.abs(peer.state).max() < 1e3

    sim.run(scene())


@pytest.mark.parametrize("alone", [False, True], ids=["with the others", "alone"])
def test_five_fresh_keys_lead_no_peer_astray_that_only_follows(
    sim, make_house, make_stranger, identities, sim_identities, alone
):
    async def scene():
        house = make_house(3)
        await house.open(3, speed=SPEED)
        await house.reach(6)
        *others, follower = house.peers.values()
        trainers = [peer.peer_id for peer in others]
        follower.muster.resting = True
        for task in follower.tasks[:-1]:  # it looks for nothing by itself
            task.cancel()
        await house.until(lambda: min(p.epoch for p in others) > follower.epoch, 30.0)
        await follower.muster.poll(trainers)
        stranger, keys = make_stranger(house), [*identities, sim_identities[5]]
        values = np.full(sim.peers.ELEMENTS, 1e6, np.float32)
        certificate, average = sim.hostile.forged_group(keys, follower.base, values)
        row = [*follower.history.row(), certificate]
        await stranger.show(row, average)
        stranger.report = Report(epoch=follower.epoch + 1, root="f" * 64, abreast=True)
        await stranger.introduce([follower.peer_id])
        if alone:  # the others say where they are, and not yet how they came there
            for peer in others:
                peer.averages.certificate = lambda root: None
        step = await follower.catchup.step(follower.base)
        assert set(trainers) <= step.certificate.signers

    sim.run(scene())


def forged_signature(row):
    *before, last = row
    signatures = tuple(dataclasses.replace(s, signature="AAAA") for s in last.signatures)
    return [*before, dataclasses.replace(last, signatures=signatures)]


def gap(row):
    return [*row[:-2], row[-1]]


def twice(row):
    return [*row, row[-1]]


@pytest.mark.parametrize("spoil", [forged_signature, gap, twice])
def test_a_row_that_is_none_is_refused_and_its_owner_named(sim, make_house, make_stranger, spoil):
    async def scene():
        house = make_house(2)
        await house.open(2, speed=SPEED)
        await house.reach(5)
        stranger = make_stranger(house)
        row, average = forge(sim, stranger, house, 4)
        await stranger.show(spoil(row), average)
        stranger.report = Report(epoch=row[-1].vote.base.epoch + 1, root="f" * 64)
        await stranger.introduce(everybody(house))
        await asyncio.sleep(5.0)
        house.check()
        events = [event for _, event in house.of(PeerMisbehaved)]
        assert {event.peer_id for event in events} == {stranger.peer_id}
        assert any("row" in event.what or "lineage" in event.what for event in events)

    sim.run(scene())


# ---- junk

BASE = {"run_id": "x", "generation": 0, "epoch": 0, "state_root": "a" * 64}
READY = {
    "base": BASE,
    "contribution_id": "c",
    "weight": 16,
    "reduces": True,
    "public_key": "AAAA",
    "signature": "AAAA",
}
JUNK = [
    {},
    {"ready": None},
    {"ready": []},
    {"ready": READY},
    {"ready": READY | {"weight": 10**30}},
    {"ready": READY | {"weight": -1}},
    {"ready": READY | {"weight": 1.5}},
    {"ready": READY | {"contribution_id": "\ud800"}},
    {"ready": READY | {"public_key": "\ud800"}},
    {"ready": READY | {"base": BASE | {"run_id": "\ud800"}}},
    {"group": None, "bytes": -1},
    {"group": "x" * 10**5, "bytes": 10**30},
    {"group": [], "vote_id": 5, "parts": [], "signature": {}},
    {"group": "g", "vote_id": "v", "parts": {}, "signature": {}},
    {"group": "g", "vote_id": "v", "parts": [{}], "signature": {}},
    {"group": "g", "vote_id": "v", "parts": [None] * 1000, "signature": {}},
    {"group": "g", "vote_id": "v", "parts": [], "signature": None},
    {"base_root": None, "vote_id": []},
    {"base_root": "\ud800" * 100},
    {"base_root": {"a": 1}},
    {"first": None},
    {"first": "1"},
    {"first": -(10**30)},
    {"first": 10**30},
    {"epoch": 10**30},
    {"epoch": -1},
    {"rate": 1e308, "weight": 1.5},
    {"addresses": ["x" * 10**5]},
    {"addresses": [["x"]]},
    {"roots": [1, None]},
    {"error": "\ud800" * 1000},
    {"wait": True},
    {"leader": "\ud800"},
    {"lineage": [[1, "x"], [1, "x"]]},
]
HANDLERS = ["state", "join", "part", "vote", "certificate", "average", "lineage", "row"]


@pytest.mark.parametrize("name", HANDLERS)
def test_junk_at_a_handler_is_refused_and_harms_nobody(sim, make_house, make_stranger, name):
    async def scene():
        house = make_house(2)
        await house.open(2, speed=SPEED)
        await house.reach(2)
        stranger = make_stranger(house)
        await stranger.introduce(everybody(house))
        began = house.epoch
        for junk in JUNK:
            for peer in everybody(house):
                try:
                    await stranger.ask(peer, name, junk)
                except PeerError:
                    continue
        await house.reach(began + 5)
        house.check()
        for peer in house.peers.values():
            strange = [e for e in peer.transport.failures if not isinstance(e, PeerError)]
            assert strange == []

    sim.run(scene())


ANSWERS = [*JUNK, *({"certificate": junk} for junk in ("", "{}", "[]", 5, {}, "\ud800"))]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: repr(answer)[:40])
def test_a_junk_answer_to_any_question_harms_nobody(sim, make_house, make_stranger, answer):
    async def scene():
        house = make_house(2)
        await house.open(2, speed=SPEED)
        await house.reach(2)
        stranger = make_stranger(house)

        async def respond(channel):
            await channel.receive()
            await channel.send(answer)

        stranger.report = Report(epoch=house.epoch + 2, root="f" * 64)
        await stranger.introduce(everybody(house))
        for name in ("join", "part", "vote", "certificate", "average", "lineage", "row"):
            await stranger.serve(name, respond)
        began = house.epoch
        await house.reach(began + 3, 40.0)
        house.check()

    sim.run(scene())


def test_no_numbers_that_are_not_finite_get_into_a_certificate(sim, make_house):
    async def scene():
        house = make_house(2)
        await house.open(2)
        await house.reach(2)
        certificate = house.peers[0].history.row()[-1]
        text = certificate.to_json()
        for bad in ("NaN", "Infinity", "-Infinity", "1e999"):
            number = repr(certificate.vote.parts[0].square_sum)
            assert number in text
            with pytest.raises(ValueError):  # noqa: PT011 the class is the contract
                type(certificate).from_json(text.replace(number, bad))

    sim.run(scene())
    assert math.isinf(float("1e999"))


def test_a_certificate_that_others_made_up_about_us_does_not_count_as_ours(
    sim, make_house, sim_identities
):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, speed=SPEED)
        await house.reach(5)
        peer = house.peers[0]
        accomplices = sim_identities[4:6]
        values = np.ones(sim.peers.ELEMENTS, np.float32)
        lone = average_alone(
            accomplices[0], "none", peer.base, Contribution("x", values, 16, 1, 1, 0.0)
        ).certificate.vote
        entries = tuple(
            dataclasses.replace(lone.entries[0], peer_id=name)
            for name in sorted([*(a.peer_id for a in accomplices), peer.peer_id])
        )
        vote = dataclasses.replace(lone, entries=entries, parts=())
        data = values.tobytes()
        part = sign_part(accomplices[0], vote.group_id, data, len(values), float(len(values)))
        vote = dataclasses.replace(vote, parts=(part,))
        certificate = dataclasses.replace(
            peer.history.row()[-1],
            vote=vote,
            signatures=tuple(sign_vote(a, vote) for a in accomplices),
        )
        stranger = sim.hostile.Stranger(house.swarm, accomplices[0], sim.peers.RUN)
        await stranger.show([*peer.history.row(), certificate], data)
        stranger.report = Report(epoch=peer.epoch + 1, root="f" * 64)
        await stranger.introduce(everybody(house))
        await asyncio.sleep(10.0)
        house.check()
        known = {c.vote.vote_id for p in house.peers.values() for c in p.history.row()}
        assert vote.vote_id not in known

    sim.run(scene())
