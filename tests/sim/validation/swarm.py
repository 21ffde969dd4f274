"""A swarm of validators on a fake clock: the real state machine, records that take their time."""

import dataclasses
import hashlib
import random
from collections import Counter

from peer.swarm.testimony import Assent, Good, Proposal
from peer.validation.actions import (
    Adopt,
    Candidate,
    Evaluate,
    Fetch,
    Found,
    Propose,
    PublishCommit,
    PublishReveal,
    PublishTicket,
    SignVerdict,
)
from peer.validation.judge import Case
from peer.validation.round import step
from peer.validation.rules import Rules, Timing
from peer.validation.score import Losses, draw_chunks, make_commit, make_reveal
from peer.validation.state import Phase, begin
from peer.validation.ticket import in_order, make
from peer.validation.verdict import Tip, Verdict
from peer.validation.view import Observed

RULES = Rules(run_id="sim-run", every_epochs=10, tenure_epochs=10)
TIMING = Timing()
LOOK_S = 1.0
"""How often a peer looks."""
SETTLED_S = 5.0
ROWS, SCORED = 1000, 128


def root(name):
    return hashlib.sha256(name.encode()).hexdigest()


def honest_losses(question, worse_nats=0.0, spread=1, rng=None):
    """Return what an honest peer finds; each is at most `spread` points off."""
    rng = rng or random.Random(0)
    rows = random.Random(question.id)
    chunks = draw_chunks(question, ROWS, SCORED)
    base = [30_000 + rows.randrange(-4000, 4000) for _ in chunks]
    extra = [round(worse_nats * 10_000) + rows.randrange(-300, 300) for _ in chunks]

    def noise():
        return rng.randint(-spread, spread)

    candidate = tuple(b + e + noise() for b, e in zip(base, extra, strict=True))
    return Losses(candidate, tuple(b + noise() for b in base))


@dataclasses.dataclass
class Record:
    """A record in the DHT: what, of whom, and when who can see it."""

    kind: str
    owner: str
    body: object
    at_s: float
    number: int


class SimPeer:
    """A peer: its state, its looks, and what it does with an action.

    Attributes:
        dies: `(action type, before)`: it is killed when it would do this, or has just done it.
        behave: Changes the losses that it says it found.
    """

    def __init__(self, swarm, identity, number):
        self.swarm, self.identity, self.me = swarm, identity, identity.peer_id
        self.number = number
        self.alive = True
        self.dies = None
        self.behave = lambda losses: losses
        self.scores_in_s = swarm.rng.uniform(20.0, 30.0)
        self.candidate_at_s = swarm.rng.uniform(0.0, 2.0)
        self.next_look_s = swarm.rng.uniform(0.0, LOOK_S)
        self.state = begin(self.me, RULES, TIMING, swarm.tip, verify=identity.verify)
        self.fetched = []
        self.losses = None
        self.said_where = False
        self.adopted = []
        self.adopted_s = None
        self.actions = []

    def look(self, now_s):
        """Take a step if it is time."""
        if not self.alive or now_s < self.next_look_s:
            return
        if not self.said_where:
            self.say_where(now_s, self.swarm.tip)
        self.next_look_s += LOOK_S
        swarm = self.swarm
        visible = [r for r in swarm.records if r.at_s + swarm.delay(r, self) <= now_s]
        by_kind = {kind: [r.body for r in visible if r.kind == kind] for kind in KINDS}
        observed = Observed(
            tickets=by_kind["ticket"],
            commits=by_kind["commit"],
            reveals=by_kind["reveal"],
            assents=by_kind["assent"],
            proposals={r.owner: r.body for r in visible if r.kind == "proposal"},
            good={r.owner: r.body for r in visible if r.kind == "good"},
            verdicts=tuple(self.fetched),
        )
        self.fetched = []
        done = self.losses is not None and now_s >= self.losses[0]
        candidate = swarm.candidate if now_s >= self.candidate_at_s else None
        self.state, actions = step(
            now_s, self.state, observed, candidate, self.losses[1] if done else None
        )
        for action in actions:
            self.act(now_s, action)

    def act(self, now_s, action):
        if not self.alive:
            return
        dying = self.dies is not None and isinstance(action, self.dies[0])
        if dying and self.dies[1]:
            self.alive = False
            return
        self.actions.append(type(action))
        self.carry_out(now_s, action)
        if dying:
            self.alive = False

    def carry_out(self, now_s, action):
        swarm, identity = self.swarm, self.identity
        match action:
            case PublishTicket(seed):
                self.publish(now_s, "ticket", make(identity, seed))
            case Evaluate(question=question):
                found = honest_losses(question, swarm.worse_nats, 1, swarm.rng)
                self.losses = (now_s + self.scores_in_s, Found(question, self.behave(found)))
            case PublishCommit(question, losses):
                self.publish(now_s, "commit", make_commit(identity, question, losses))
            case PublishReveal(question, losses, witnessed):
                reveal = make_reveal(identity, question, losses, witnessed)
                self.publish(now_s, "reveal", reveal)
            case Propose(judgement):
                swarm.blobs[judgement.hash, self.me] = Verdict(judgement=judgement, assents=())
                body = Proposal(seed=judgement.seed, judgement=judgement.hash)
                self.publish(now_s, "proposal", body)
            case Fetch(judgement=name, peers=donors):
                alive = (swarm.blobs.get((name, d)) for d in donors if swarm.by_id[d].alive)
                self.fetched += [verdict for verdict in alive if verdict is not None][:1]
            case SignVerdict(judgement):
                assent = Assent(
                    seed=judgement.seed, judgement=judgement.hash, public_key="", signature=""
                )
                self.publish(now_s, "assent", assent.signed_by(identity))
            case Adopt(verdict):
                self.adopted.append(verdict)
                self.adopted_s = self.adopted_s or now_s
                swarm.blobs[verdict.judgement.hash, self.me] = verdict
                self.say_where(now_s, Tip(verdict.judgement.after, verdict.judgement.hash))

    def say_where(self, now_s, tip):
        good = Good(
            round=tip.ledger.round,
            verdict=tip.hash,
            state_root=tip.ledger.last_good.state_root,
            generation=tip.ledger.generation,
        )
        self.said_where = True
        self.publish(now_s, "good", good)

    def case(self):
        """Return the evidence that it has, as it would propose it."""
        known = self.state.candidate
        seats = self.state.view.seats(self.state.called)
        return Case(known.epoch, known.state_root, known.members, known.attendance, seats)

    def publish(self, now_s, kind, body):
        self.swarm.records.append(Record(kind, self.me, body, now_s, len(self.swarm.records)))


KINDS = ("ticket", "commit", "reveal", "assent")


class Swarm:
    """Peers of one run, in one round after another."""

    def __init__(self, identities, seed, tip=None, worse_nats=-0.01):
        self.rng = random.Random(seed)
        self.tip = tip or Tip.genesis(RULES.run_id, root("initial"))
        self.worse_nats = worse_nats
        self.records, self.blobs = [], {}
        self.identities = identities
        epoch = self.tip.ledger.epoch + RULES.every_epochs
        members = frozenset(each.peer_id for each in identities)
        attended = Counter(dict.fromkeys(members, RULES.every_epochs))
        name = root(f"candidate {epoch} {seed}")
        self.candidate = Candidate(epoch, name, members, attended)
        self.peers = [SimPeer(self, each, i) for i, each in enumerate(identities)]
        self.by_id = {peer.me: peer for peer in self.peers}
        self.cut = lambda record, peer: False

    def delay(self, record, peer):
        """Return how long a record is on its way to a peer; the same each time."""
        if self.cut(record, peer):
            return float("inf")
        if record.owner == peer.me:
            return 0.0
        return (record.number * 7919 + peer.number * 104729) % 1000 / 1000

    def run(self, limit_s=400.0):
        """Let time pass until every living peer is through, and a little more; return when."""
        now_s, end_s = 0.0, float("inf")
        while now_s < limit_s:
            for peer in self.peers:
                peer.look(now_s)
            through = all(p.state.phase in {Phase.DONE, Phase.LAPSED} for p in self.living)
            if through and now_s > (end_s := min(end_s, now_s)) + SETTLED_S:
                return end_s
            now_s += LOOK_S / 4
        return now_s

    def elected(self):
        """Return who is called when everybody is there, lowest lot first."""
        seed = self.tip.ledger.seed(RULES.run_id, self.candidate.epoch)
        tickets = in_order(make(each, seed) for each in self.identities)
        return [ticket.peer_id for ticket in tickets][:12]

    @property
    def living(self):
        return [peer for peer in self.peers if peer.alive]

    def verdicts(self):
        """Return the hashes of the verdicts that the living hold to, with how many do."""
        return Counter(p.adopted[-1].judgement.hash if p.adopted else None for p in self.living)
