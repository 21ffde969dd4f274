"""A round's evidence, made to order."""

import hashlib

import pytest

from peer.swarm.testimony import Assent
from peer.validation.judge import Case, build
from peer.validation.rules import Rules
from peer.validation.score import Losses, Question, make_commit, make_reveal
from peer.validation.ticket import make
from peer.validation.verdict import Seat, Tip, Verdict

RULES = Rules(run_id="tiny-1", every_epochs=5, tenure_epochs=5)
CHUNKS = 8
METRICS = {"accuracy": 0.25}


@pytest.fixture(scope="session")
def rules():
    return RULES


@pytest.fixture(scope="session")
def root():
    """Return a state root by name."""
    return lambda name: hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture(scope="session")
def losses():
    """Return losses of which the candidate's are worse by so many points."""

    def make_losses(worse=0, shift=0):
        baseline = tuple(30_000 + 100 * i + shift for i in range(CHUNKS))
        return Losses(tuple(each + worse for each in baseline), baseline)

    return make_losses


@pytest.fixture(scope="session")
def genesis(root):
    return Tip.genesis(RULES.run_id, root("initial"))


@pytest.fixture(scope="session")
def make_case(root, losses):
    """Return the case of a round; `said` says by place what a peer found, commits to or keeps."""

    def make_one(tip, peers, worse=0, said=None, name="candidate", **change):
        rules = change.pop("rules", RULES)
        epoch = change.pop("epoch", tip.ledger.epoch + rules.every_epochs)
        seed = tip.ledger.seed(rules.run_id, epoch)
        question = Question(seed, root(name), tip.ledger.baseline.state_root)
        pairs = {}
        for place, peer in enumerate(peers):
            found = (said or {}).get(place, losses(worse))
            pairs[peer] = found if isinstance(found, tuple) else (found, found)
        commits = {p: make_commit(p, question, kept) for p, (kept, _) in pairs.items() if kept}
        witnessed = [commit.brief for commit in commits.values()]
        reveals = {
            peer: make_reveal(peer, question, shown, witnessed, metrics=METRICS)
            for peer, (_, shown) in pairs.items()
            if shown
        }
        seats = [
            Seat(ticket=make(p, seed), commit=commits.get(p), reveal=reveals.get(p)) for p in peers
        ]
        fields = {
            "epoch": epoch,
            "candidate": question.candidate,
            "members": frozenset(peer.peer_id for peer in peers),
            "attendance": {peer.peer_id: rules.every_epochs for peer in peers},
            "seats": seats,
        }
        return Case(**fields | change)

    return make_one


@pytest.fixture(scope="session")
def sign():
    """Return a judgement with the signatures of some peers."""

    def sign_one(judgement, peers):
        assent = Assent(seed=judgement.seed, judgement=judgement.hash, public_key="", signature="")
        return Verdict(judgement=judgement, assents=tuple(assent.signed_by(p) for p in peers))

    return sign_one


@pytest.fixture(scope="session")
def make_verdict(make_case, sign):
    """Return a verdict that all peers signed, and where it leads."""

    def make_one(tip, peers, worse=0, **change):
        case = make_case(tip, peers, worse, **change)
        judgement = build(change.get("rules", RULES), tip, case)
        return sign(judgement, peers[:12]), Tip(judgement.after, judgement.hash)

    return make_one
