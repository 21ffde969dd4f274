"""Whole validators in memory: real records, real verdicts, on a fake clock; scores are made up."""

import asyncio
import json
import types

import pytest

from peer.daemon import docket
from peer.daemon import verdicts as verdicts_module
from peer.daemon.clerk import Chambers
from peer.daemon.validator import Validator
from peer.errors import UnreachableError
from peer.events import PeerMisbehaved, ValidationMoved, VerdictAdopted
from peer.sandbox.hostile import Copier
from peer.swarm.membership import Roster
from peer.swarm.testimony import Commit, Good
from peer.training.muster import Limits, Muster
from peer.validation import course
from peer.validation.actions import Found
from peer.validation.archive import Archive
from peer.validation.duty import RENEWED_AFTER_ROUNDS, Duty
from peer.validation.rules import STRIKE_ROUNDS, Rules
from peer.validation.score import Losses
from peer.validation.verdict import Tip, Verdict

EVERY = 5
RULES = Rules(run_id="sim-" + "0" * 32, every_epochs=EVERY, tenure_epochs=EVERY)
INITIAL = "00" * 32
CHUNKS = 8
BAD = 5_000
DELAY_S = 0.3


def root(epoch, generation=0):
    return f"{generation:032x}{epoch:032x}"


class Records:
    """A DHT in memory: what somebody put is there for the others a moment later."""

    def __init__(self):
        self.held = {}

    def of(self, peer_id):
        return types.SimpleNamespace(
            put=lambda run, kind, body, life: self._put(peer_id, kind, body),
            get=lambda run, kind: self._get(peer_id, kind),
        )

    async def _put(self, peer_id, kind, body):
        at_s = asyncio.get_running_loop().time()
        self.held[kind, peer_id] = (at_s, body)
        return True

    async def _get(self, asking, kind):
        now_s = asyncio.get_running_loop().time()
        return {
            peer: types.SimpleNamespace(body=body)
            for (k, peer), (at_s, body) in self.held.items()
            if k == kind and (peer == asking or now_s - at_s >= DELAY_S)
        }


class SimValidator:
    """A peer's validator, and what its training loop would do."""

    def __init__(self, court, number, folder, *, joins=False, **options):
        self.court, self.identity = court, court.identities[number]
        self.peer_id = self.identity.peer_id
        self.events, self.rows = [], {}
        self.worked_epochs = []
        transport = court.swarm.transport(self.peer_id)
        limits = Limits(max_weight=10, target=10)
        clock = types.SimpleNamespace(
            now_s=lambda: 1.7e9, monotonic_s=lambda: asyncio.get_running_loop().time()
        )
        self.muster = Muster(
            self.identity,
            transport,
            RULES.run_id,
            Roster(self.peer_id),
            limits,
            clock,
            self.events.append,
        )
        self.history = types.SimpleNamespace(
            row=lambda: list(self.rows.values()), met=lambda: set(court.members)
        )
        self.dht = court.records.of(self.peer_id)
        self.worse = lambda question: court.worse.get(question.candidate, 0)
        chambers = Chambers(
            identity=self.identity,
            muster=self.muster,
            dht=self.dht,
            history=self.history,
            rules=RULES,
            look_s=1.0,
            willing=options.get("willing", True),
            archive=Archive(folder / str(number)),
            genesis=court.genesis,
            scorer=self,
            unix_time_s=lambda: 1.7e9,
            emit=self.events.append,
        )
        self.validator = Validator(chambers, joins=joins)
        self.tasks = []

    async def score(self, asked):
        await asyncio.sleep(2.0)
        base = tuple(30_000 + i for i in range(CHUNKS))
        worse = self.worse(asked.question)
        return Found(asked.question, Losses(tuple(b + worse for b in base), base))

    async def start(self, generation=0, epoch=1):
        self.muster.stand(generation, epoch, root(epoch))
        await self.validator.verdicts.start()
        await self.validator.settle()
        self.tasks = [asyncio.ensure_future(self.validator.watch())]

    def kill(self):
        self.court.swarm.kill(self.peer_id)
        for task in self.tasks:
            task.cancel()

    def reach(self, epoch, generation=0):
        """Be at `epoch`, as the groups were that made it, and name it as a candidate."""
        for each in range(epoch - EVERY, epoch):
            base = types.SimpleNamespace(epoch=each)
            group = self.court.groups.get(each, self.court.members)
            vote = types.SimpleNamespace(base=base, group=sorted(group), parts=())
            self.rows[each] = types.SimpleNamespace(vote=vote)
        self.muster.stand(generation, epoch, root(epoch, generation))
        self.validator.note_candidate(epoch, root(epoch, generation))

    def may_rest(self, epoch):
        """Return whether this peer, which would rather judge, has no need to work on `epoch`."""
        worked = self.worked_epochs[-1] if self.worked_epochs else None
        what, _ = self.validator.duty(epoch, worked)
        if what is Duty.TRAIN:
            self.worked_epochs.append(epoch)
        return what is Duty.FOLLOW

    def follow_restart(self):
        """Go where the verdicts say, as the training loop does."""
        where = self.validator.restart
        self.rows.clear()
        self.muster.stand(where.generation, where.mark.epoch, where.mark.state_root)
        self.validator.note_restarted()
        return where

    @property
    def verdicts(self):
        return [event for event in self.events if isinstance(event, VerdictAdopted)]


class Court:
    """All validators of a run."""

    def __init__(self, sim, identities, folder):
        self.swarm = sim.memory.MemorySwarm()
        self.identities = identities
        self.folder = folder
        self.records = Records()
        self.genesis = Tip.genesis(RULES.run_id, INITIAL)
        self.worse = {}
        self.members = set()
        self.groups = {}
        self.peers = {}

    async def open(self, *numbers, **options):
        self.members |= {self.identities[n].peer_id for n in numbers}
        for number in numbers:
            self.peers[number] = SimValidator(self, number, self.folder, **options)
            await self.peers[number].start()

    async def joiner(self):
        """Return a peer that has just come, and has not asked anybody yet."""
        peer = SimValidator(self, 4, self.folder, joins=True)
        peer.muster.stand(0, 0, INITIAL)
        await peer.validator.verdicts.start()
        return peer

    def kill(self, number):
        self.peers.pop(number).kill()

    async def train(self, epoch, *followers):
        """Make the epochs up to a candidate; `followers` work only where they must."""
        resting = {self.peers[number].peer_id: self.peers[number] for number in followers}
        for each in range(epoch - EVERY, epoch):
            rest = {peer_id for peer_id, peer in resting.items() if peer.may_rest(each)}
            self.groups[each] = self.members - rest
        await self.judge(epoch)

    async def judge(self, epoch, worse=0, generation=0):
        """Have everybody reach a candidate, and wait until all hold to one verdict on it."""
        self.worse[root(epoch, generation)] = worse
        for peer in self.peers.values():
            peer.reach(epoch, generation)
        await self.agree(lambda tip: any(m.epoch == epoch for m in tip.ledger.accepted) or worse)

    async def agree(self, condition, within_s=150.0):
        began_s = asyncio.get_running_loop().time()
        before = {n: len(peer.verdicts) for n, peer in self.peers.items()}
        while True:
            tips = {peer.validator.tip for peer in self.peers.values()}
            new = all(len(p.verdicts) > before[n] for n, p in self.peers.items())
            if len(tips) == 1 and new and all(map(condition, tips)):
                return
            for peer in self.peers.values():
                for task in peer.tasks:
                    if task.done():
                        task.result()
            assert asyncio.get_running_loop().time() - began_s < within_s, tips
            await asyncio.sleep(0.2)


@pytest.fixture
def make_court(sim, sim_identities, tmp_path):
    return lambda: Court(sim, sim_identities, tmp_path)


def test_a_good_candidate_is_accepted_by_all(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        for peer in court.peers.values():
            assert peer.validator.restart is None
            assert peer.validator.accepted == {root(5): peer.validator.tip.hash}
            assert root(5) in peer.validator.needed
            assert [v.decision for v in peer.verdicts] == ["accept"]
            assert peer.verdicts[0].agreed

    sim.run(scene())


def test_a_bad_candidate_sends_all_to_the_last_good_one_and_the_next_is_judged(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        await court.judge(10, worse=BAD)
        for peer in court.peers.values():
            where = peer.follow_restart()
            assert (where.generation, where.mark.epoch) == (1, 5)
            assert "reject of epoch 10" in where.reason
        await court.judge(10, generation=1)
        tip = court.peers[0].validator.tip
        assert (tip.ledger.round, tip.ledger.last_good.state_root) == (3, root(10, 1))

    sim.run(scene())


def test_a_candidate_of_the_generation_that_is_left_is_not_judged(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5, worse=BAD)
        for peer in court.peers.values():
            peer.reach(10)  # it trained on before it heard of the verdict
        await asyncio.sleep(60.0)
        assert {p.validator.tip.ledger.round for p in court.peers.values()} == {1}
        for peer in court.peers.values():
            assert peer.follow_restart().mark.epoch == 0
        await court.judge(5, generation=1)

    sim.run(scene())


def test_a_seat_that_dies_costs_no_verdict(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        for peer in court.peers.values():
            peer.reach(10)
        await asyncio.sleep(3.0)
        court.kill(3)
        await court.agree(lambda tip: tip.ledger.round == 2)

    sim.run(scene())


def test_whoever_was_away_finds_the_new_generation_by_itself(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        court.kill(3)
        for epoch in (10, 15):
            await court.judge(epoch)
        await court.judge(20, worse=BAD)
        await asyncio.sleep(1.0)
        court.peers[3] = SimValidator(court, 3, court.folder)
        await court.peers[3].start()
        where = court.peers[3].follow_restart()
        assert (where.generation, where.mark.epoch) == (1, 15)
        assert court.peers[3].validator.tip == court.peers[0].validator.tip

    sim.run(scene())


def test_whoever_joins_begins_at_the_last_good_state_and_nowhere_else(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        await court.judge(10, worse=BAD)
        await asyncio.sleep(1.0)
        joiner = await court.joiner()
        await joiner.validator.settle()
        where = joiner.validator.restart
        assert (where.generation, where.mark.state_root) == (1, root(5))
        assert joiner.validator.is_new
        joiner.follow_restart()
        assert joiner.validator.is_new
        joiner.muster.abreast = True
        assert not joiner.validator.is_new

    sim.run(scene())


def test_a_chain_on_the_disk_is_gone_on_with(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        tip = court.peers[2].validator.tip
        court.kill(2)
        back = SimValidator(court, 2, court.folder)
        assert back.validator.tip == tip
        court.peers[2] = back
        await back.start()
        await court.judge(10)

    sim.run(scene())


def test_a_peer_that_takes_no_seat_follows_the_verdicts(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2)
        await court.open(3, willing=False)
        await court.judge(5)
        assert court.peers[3].verdicts[0].agreed is None

    sim.run(scene())


def good_of(tip, **change):
    """Return what a peer says that holds to `tip`."""
    ledger = tip.ledger
    said = Good(
        round=ledger.round,
        verdict=tip.hash,
        state_root=ledger.last_good.state_root,
        generation=ledger.generation,
    )
    return said.model_copy(update=change)


async def away(court):
    """Let peer 3 of four miss three verdicts; return the others' tip."""
    await court.open(0, 1, 2, 3)
    await court.judge(5)
    court.kill(3)
    for epoch in (10, 15):
        await court.judge(epoch)
    await court.judge(20, worse=BAD)
    await asyncio.sleep(1.0)
    return court.peers[0].validator.tip


@pytest.fixture
def look_back(monkeypatch):
    """Have peers look back so many verdicts."""

    def change(verdicts):
        for module in (course, docket, verdicts_module):
            monkeypatch.setattr(module, "LOOKBACK", verdicts)

    return change


@pytest.mark.parametrize("lookback", [2, 3, 4])
def test_whoever_missed_more_than_it_looks_back_follows_the_newest_verdicts(
    sim, make_court, look_back, lookback
):
    async def scene():
        look_back(lookback)
        court = make_court()
        tip = await away(court)
        back = court.peers[3] = SimValidator(court, 3, court.folder)
        await back.start()
        assert back.validator.tip == tip
        assert back.follow_restart().mark.epoch == 15
        assert [v.round for v in back.verdicts] == list(range(max(2, 5 - lookback), 5))
        for number in (0, 1, 2):
            court.peers[number].follow_restart()
        await court.judge(20, generation=1)

    sim.run(scene())


def test_whoever_joins_fetches_no_more_than_it_looks_back(sim, make_court, look_back):
    async def scene():
        look_back(2)
        court = make_court()
        tip = await away(court)
        joiner = await court.joiner()
        await joiner.validator.settle()
        assert joiner.validator.tip == tip
        assert [v.round for v in joiner.verdicts] == [3, 4]

    sim.run(scene())


def test_a_start_judges_no_more_than_a_peer_looks_back(sim, make_court, look_back):
    async def scene():
        look_back(2)
        court = make_court()
        await court.open(0, 1, 2, 3)
        for epoch in (5, 10, 15):
            await court.judge(epoch)
        peer = court.peers[3]
        court.kill(3)
        files = sorted((court.folder / "3").glob("0*.json"))
        unsigned = json.loads(files[0].read_bytes()) | {"assents": []}
        files[0].write_text(json.dumps(unsigned))
        assert SimValidator(court, 3, court.folder).validator.tip == peer.validator.tip
        newest = json.loads(files[2].read_bytes())
        newest["judgement"]["difference_points"] += 1
        files[2].write_text(json.dumps(newest))
        assert SimValidator(court, 3, court.folder).validator.tip == court.genesis

    sim.run(scene())


def test_too_few_verdicts_that_meet_ours_nowhere_move_nobody(sim, make_court):
    async def scene():
        court = make_court()
        await away(court)
        for number in (0, 1, 2):
            # They give the newest verdict and keep those before it back.
            archive = court.peers[number].validator.verdicts._archive
            for path in archive.folder.glob("00000000[23]-*.json"):
                path.unlink()
        back = court.peers[3] = SimValidator(court, 3, court.folder)
        before = back.validator.tip
        await back.start()
        assert back.validator.tip == before

    sim.run(scene())


def test_whoever_is_ahead_by_more_than_it_looks_back_goes_nowhere(sim, make_court, look_back):
    async def scene():
        look_back(2)
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        behind = court.peers[0].validator.tip
        for epoch in (10, 15, 20):
            await court.judge(epoch)
        for number in (1, 2, 3):
            court.kill(number)
            place = "good", court.identities[number].peer_id
            court.records.held[place] = (0.0, good_of(behind))
        await asyncio.sleep(60.0)
        assert court.peers[0].validator.tip.ledger.round == 4

    sim.run(scene())


def test_one_that_says_another_round_keeps_nobody_away(sim, make_court):
    async def scene():
        court = make_court()
        tip = await away(court)
        liar = court.identities[1].peer_id
        court.kill(1)
        court.records.held["good", liar] = (0.0, good_of(tip, round=0))
        court.peers[3] = SimValidator(court, 3, court.folder)
        await court.peers[3].start()
        assert court.peers[3].validator.tip == tip

    sim.run(scene())


def test_one_that_strips_signatures_is_left_for_the_next(sim, make_court):
    async def scene():
        court = make_court()
        tip = await away(court)
        archive = Archive(court.folder / "0")

        async def give(channel):
            name = (await channel.receive()).header["hash"]
            await channel.send(
                {}, Verdict(judgement=archive.get(name).judgement, assents=()).to_bytes()
            )

        await court.peers[0].muster.serve("verdict", give)
        court.peers[3] = SimValidator(court, 3, court.folder)
        await court.peers[3].start()
        assert court.peers[3].validator.tip == tip
        blamed = {e.peer_id for e in court.peers[3].events if isinstance(e, PeerMisbehaved)}
        assert blamed <= {court.identities[0].peer_id}

    sim.run(scene())


def test_a_donor_that_says_nothing_keeps_no_joiner_waiting(sim, make_court):
    async def scene():
        court = make_court()
        tip = await away(court)
        joiner = await court.joiner()
        await court.peers[0].muster.serve("verdict", lambda _: asyncio.sleep(3600.0))
        began_s = asyncio.get_running_loop().time()
        await joiner.validator.settle()
        assert joiner.validator.tip == tip
        assert asyncio.get_running_loop().time() - began_s < 30.0

    sim.run(scene())


def test_what_was_fetched_of_a_row_is_not_asked_for_again(sim, make_court):
    async def scene():
        court = make_court()
        tip = await away(court)
        joiner, archive, asked = await court.joiner(), Archive(court.folder / "2"), []

        async def give(channel):
            asked.append((await channel.receive()).header["hash"])
            if len(asked) == 3:
                await asyncio.sleep(3600.0)
            await channel.send({}, archive.get(asked[-1]).to_bytes())

        donor = court.peers[2]
        await donor.muster.serve("verdict", give)
        for _ in range(2):
            row = await joiner.validator.verdicts.walk(
                tip.hash, [donor.peer_id], [court.genesis.hash]
            )
        assert [verdict.judgement.round for verdict in row] == [1, 2, 3, 4]
        assert len(asked) == 5
        assert asked[2] == asked[3]

    sim.run(scene())


@pytest.mark.parametrize("damaged", [0, 2, 3])
def test_a_verdict_that_lost_its_signatures_on_the_disk_is_learned_again(sim, make_court, damaged):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        for epoch in (5, 10, 15, 20):
            await court.judge(epoch)
        await asyncio.sleep(1.0)
        tip = court.peers[3].validator.tip
        court.kill(3)
        path = sorted((court.folder / "3").glob("0*.json"))[damaged]
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"assents": []}))
        back = court.peers[3] = SimValidator(court, 3, court.folder)
        assert back.validator.tip.ledger.round == (3 if damaged == 3 else 4)
        await back.start()
        await asyncio.sleep(60.0)
        assert back.validator.tip == tip

    sim.run(scene())


def test_keys_that_worked_once_move_no_veteran(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1)
        for epoch in (5, 10, 15):
            await court.judge(epoch)
        forged = make_court()
        forged.records, forged.swarm = court.records, court.swarm
        forged.folder = court.folder / "fresh"
        await forged.open(2, 3, 4, 5)
        await forged.judge(5, worse=BAD)
        for number in (0, 1):
            court.peers[number].history.met = lambda: {i.peer_id for i in court.identities}
        before = court.peers[0].validator.tip
        await asyncio.sleep(60.0)
        assert [court.peers[number].validator.tip for number in (0, 1)] == [before] * 2

    sim.run(scene())


def test_a_peer_without_the_candidate_learns_of_its_rejection(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        still = court.peers.pop(3)
        await court.judge(10, worse=BAD)
        await asyncio.sleep(60.0)
        assert (still.validator.restart.generation, still.validator.restart.mark.epoch) == (1, 5)

    sim.run(scene())


@pytest.mark.parametrize("how", ["no answer", "no majority", "no donor"])
def test_a_joiner_that_cannot_find_out_is_new_until_it_can(sim, make_court, how):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        await asyncio.sleep(1.0)
        joiner = await court.joiner()
        if how == "no answer":

            async def get(run, kind):
                raise UnreachableError("no node of the DHT answered")

            joiner.dht.get = get
        elif how == "no majority":
            for number in (2, 3):
                court.kill(number)
                place = "good", court.identities[number].peer_id
                court.records.held[place] = (0.0, good_of(court.genesis))
        else:
            for number in range(4):
                court.kill(number)
        await joiner.validator.settle()
        assert joiner.validator.is_new
        assert joiner.validator.restart is None

    sim.run(scene())


def test_a_joiner_that_finds_no_verdict_is_as_free_as_the_others(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2)
        await asyncio.sleep(5.0)
        joiner = await court.joiner()
        await joiner.validator.settle()
        assert not joiner.validator.is_new

    sim.run(scene())


def test_a_joiner_that_last_good_overtakes_goes_there(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        await asyncio.sleep(1.0)
        joiner = SimValidator(court, 4, court.folder, joins=True)
        await joiner.start(epoch=0)
        joiner.follow_restart()
        joiner.muster.stand(0, 6, root(6))
        for epoch in (10, 15, 20):
            await court.judge(epoch)
        await asyncio.sleep(30.0)
        assert joiner.validator.restart.mark.epoch == 20
        joiner.kill()

    sim.run(scene())


def test_a_restart_that_led_elsewhere_is_asked_for_again(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        await court.judge(10, worse=BAD)
        peer = court.peers[0]
        rejected = peer.validator.tip
        peer.follow_restart()
        assert peer.validator.restart is None
        peer.muster.stand(0, 10, root(10))
        peer.validator.note_restarted()
        assert peer.validator.restart.generation == rejected.ledger.generation

    sim.run(scene())


def test_a_score_that_cannot_be_had_is_said_and_costs_no_verdict(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)

        async def score(asked):
            return "nobody gives its baseline"

        court.peers[3].score = score
        await court.judge(5)
        assert court.peers[3].verdicts[0].agreed is None
        problems = {e.problem for e in court.peers[3].events if isinstance(e, ValidationMoved)}
        assert "epoch 5 was not scored: nobody gives its baseline" in problems

    sim.run(scene())


def test_whoever_says_what_another_one_says_is_struck_each_time(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        peer, copier = court.peers[3], Copier()
        honest = peer.dht.put

        async def put(run, kind, body, life):
            told = await copier.instead(peer.dht, peer.identity, run, kind, body)
            assert not isinstance(body, Commit) or told.digest != body.digest
            return await honest(run, kind, told, life)

        peer.dht.put = put
        for epoch in (5, 10):
            await court.judge(epoch)
        for each in court.peers.values():
            assert [v.struck for v in each.verdicts] == [each is peer] * 2
            assert [v.decision for v in each.verdicts] == ["accept"] * 2

    sim.run(scene())


def test_a_peer_at_rest_scores_nothing(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        court.peers[3].validator.note_rest(resting=True)
        await court.judge(5)
        assert court.peers[3].verdicts[0].agreed is None
        court.peers[3].validator.note_rest(resting=False)
        await court.judge(10)
        assert court.peers[3].verdicts[1].agreed

    sim.run(scene())


def test_strangers_move_nobody(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1)
        forged = make_court()
        forged.records, forged.swarm = court.records, court.swarm
        forged.folder = court.folder / "strangers"
        await forged.open(2, 3, 4, 5)
        await forged.judge(5)
        await asyncio.sleep(30.0)
        for number in (0, 1):
            assert court.peers[number].validator.tip == court.genesis

    sim.run(scene())


def test_a_peer_that_only_judges_keeps_its_place_by_little_work(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        rounds = 2 * STRIKE_ROUNDS + 5
        for number in range(1, rounds + 1):
            await court.train(EVERY * number, 3)
        validator = court.peers[3]
        tip = validator.validator.tip
        assert (tip.ledger.round, tip.ledger.last_good.epoch) == (rounds, EVERY * rounds)
        assert all(verdict.seat and verdict.agreed for verdict in validator.verdicts)
        # All of two rounds before anybody is drawn, and then an epoch now and then.
        first = [epoch for epoch in validator.worked_epochs if epoch < 2 * EVERY]
        assert len(first) == 2 * EVERY
        later = len(validator.worked_epochs) - len(first)
        assert later == (rounds - 2) // (RENEWED_AFTER_ROUNDS + 1)

    sim.run(scene())


def test_a_newcomer_that_only_wants_to_judge_has_no_seat_before_its_tenure(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2)
        for epoch in (5, 10, 15):
            await court.train(epoch)
        await asyncio.sleep(1.0)
        court.peers[4] = newcomer = SimValidator(court, 4, court.folder)
        await newcomer.start()
        assert newcomer.validator.tip.ledger.round == 3
        await court.train(20)
        court.members.add(newcomer.peer_id)
        for epoch in (25, 30, 35):
            await court.train(epoch, 4)
        seats = {verdict.round: bool(verdict.seat) for verdict in newcomer.verdicts}
        assert [seats[number] for number in (4, 5, 6, 7)] == [False, False, False, True]
        assert len(newcomer.worked_epochs) == EVERY

    sim.run(scene())


def test_a_newcomer_that_has_worked_with_nobody_trains(sim, make_court):
    async def scene():
        court = make_court()
        await court.open(0, 1, 2, 3)
        await court.judge(5)
        await asyncio.sleep(1.0)
        joiner = await court.joiner()
        await joiner.validator.settle()
        assert joiner.validator.duty(5, None)[0] is Duty.TRAIN
        assert "joining" in joiner.validator.duty(5, None)[1]

    sim.run(scene())
