"""Which verdicts the exporter shows, whatever peers give it."""

import importlib.util
from pathlib import Path

import pytest

from monitoring.board import Scores, verdicts
from monitoring.findings import Findings
from monitoring.verdicts import VerdictChain
from peer.errors import MisbehavedError, PeerError
from peer.swarm.testimony import Good
from peer.swarm.wire import scoped
from peer.validation.verdict import Verdict

_SPEC = importlib.util.spec_from_file_location(
    "ctpeer_test_rounds", Path(__file__).parents[1] / "validation" / "conftest.py"
)
_ROUNDS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_ROUNDS)
rules, root, losses, genesis = _ROUNDS.rules, _ROUNDS.root, _ROUNDS.losses, _ROUNDS.genesis
make_case, sign, make_verdict = _ROUNDS.make_case, _ROUNDS.sign, _ROUNDS.make_verdict


@pytest.fixture(scope="module")
def chain(identities, genesis, make_verdict):
    """Return three verdicts in a row: accepted, accepted, rejected."""
    tip, found = genesis, []
    for number, worse in enumerate((0, -100, 5000)):
        verdict, tip = make_verdict(tip, identities[:3], worse, name=f"candidate {number}")
        found.append(verdict)
    return found


def good(verdict, peers):
    ledger = verdict.judgement.after
    said = Good(
        round=ledger.round,
        verdict=verdict.judgement.hash,
        state_root=ledger.last_good.state_root,
        generation=ledger.generation,
    )
    return {peer.peer_id: said for peer in peers}


@pytest.fixture
def donate(sim, rules):
    """Return a transport on which everybody named gives the verdicts it is told to."""

    async def start(found, donors):
        swarm = sim.MemorySwarm()
        by_hash = {verdict.judgement.hash: verdict for verdict in found}

        async def give(channel):
            name = (await channel.receive()).header["hash"]
            verdict = by_hash[name] if name in by_hash else found[-1]
            await channel.send({}, verdict.to_bytes())

        for donor in donors:
            await swarm.transport(donor).serve(scoped(rules.run_id, "verdict"), give)
        return swarm.transport("exporter")

    return start


def held(chain):
    return [verdict.judgement.round for verdict in chain.verdicts]


def test_the_chain_that_most_hold_to_is_fetched_and_gone_on_with(
    sim, donate, rules, chain, identities
):
    peers = identities[:3]
    known = {peer.peer_id for peer in peers}

    async def go():
        watched = VerdictChain(rules)
        transport = await donate(chain, known)
        await watched.update(transport, good(chain[1], peers), known, known)
        assert held(watched) == [1, 2]
        assert watched.ledger.generation == 0
        await watched.update(transport, good(chain[2], peers), known, known)
        assert held(watched) == [1, 2, 3]
        assert watched.ledger.generation == 1

    sim.run(go())


def test_fresh_keys_hold_to_what_they_like_in_vain(
    sim, donate, rules, chain, identities, genesis, make_verdict
):
    forged, _ = make_verdict(genesis, identities[3:], name="theirs")
    known = {peer.peer_id for peer in identities[:3]}

    async def go():
        watched = VerdictChain(rules)
        transport = await donate([forged, *chain], [peer.peer_id for peer in identities])
        fresh = good(forged, identities[3:])
        await watched.update(transport, fresh, known, known)
        assert held(watched) == []
        await watched.update(transport, fresh | good(chain[0], identities[:3]), known, known)
        assert watched.verdicts == [chain[0]]

    sim.run(go())


def test_a_verdict_without_its_signatures_or_another_one_is_refused(
    sim, donate, rules, chain, identities
):
    known = {peer.peer_id for peer in identities[:3]}
    bare = Verdict(judgement=chain[0].judgement, assents=chain[0].assents[:1])

    async def go():
        for given in ([bare], [chain[1]]):
            watched = VerdictChain(rules)
            transport = await donate(given, known)
            with pytest.raises(MisbehavedError):
                await watched.update(transport, good(chain[0], identities[:3]), known, known)
            assert held(watched) == []

    sim.run(go())


def test_a_verdict_whose_finding_does_not_follow_is_refused(
    sim, donate, rules, chain, identities, sign
):
    judgement = chain[0].judgement.model_copy(update={"difference_points": -9999})
    forged = sign(judgement, identities[:3])
    known = {peer.peer_id for peer in identities[:3]}

    async def go():
        watched = VerdictChain(rules)
        transport = await donate([forged], known)
        with pytest.raises(PeerError):
            await watched.update(transport, good(forged, identities[:3]), known, known)
        assert held(watched) == []

    sim.run(go())


def test_scores_are_those_of_the_judges_that_agree(chain):
    scores = Scores.of(chain[2].judgement)
    assert scores.difference_nats == pytest.approx(0.5)
    assert scores.candidate_nats - scores.baseline_nats == pytest.approx(0.5)
    assert scores.metrics == {"accuracy": 0.25}


def test_verdicts_are_shown_newest_first(chain):
    found = Findings(now_s=0.0, chain=chain, ledger=chain[-1].judgement.after)
    shown = verdicts("tiny-1", found)
    assert [each["decision"] for each in shown["verdicts"]] == ["reject", "accept", "accept"]
    assert shown["last_good"]["epoch"] == chain[1].judgement.epoch
    assert (
        shown["verdicts"][0]["seats"][0] | {"scored": True, "agreed": True}
        == (shown["verdicts"][0]["seats"][0])
    )
