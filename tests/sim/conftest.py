"""Swarms of simulated peers, and what must hold of them whatever happened."""

import asyncio
import hashlib
import importlib.util
import itertools
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from peer.identity import Identity
from peer.training import codec
from peer.training.certificate import Certificate, problem


def _load(name):
    spec = importlib.util.spec_from_file_location(
        f"ctpeer_sim_{name}", Path(__file__).with_name(f"{name}.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


memory, peers, hostile = _load("memory"), _load("peers"), _load("hostile")

PRIME_OFFSETS = [(282, 1876), (1140, 2498), (434, 40), (778, 208), (72, 594), (114, 1046)]
"""How far behind its drawn beginning each key's two primes lie."""


def _identity(number):
    """Return a peer's identity, the same in each session: a failure can be repeated."""
    primes = []
    for which, offset in zip("pq", PRIME_OFFSETS[number], strict=True):
        draw = hashlib.shake_256(f"ctpeer sim key {number} {which}".encode()).digest(128)
        primes.append((int.from_bytes(draw, "big") | (3 << 1022) | 1) + offset)
    p, q = primes
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q)
    )
    return Identity(numbers.private_key())


TOLERANCE = {"none": 2e-6, "fp16": 4e-3, "int8": 4e-2}
"""How far an average of numbers up to 2 may be from the exact one, by codec."""


class House:
    """Peers of one run, and what the test does to them.

    Attributes:
        swarm: The network.
        peers: The living and the frozen, by number; a restarted peer is another object.
        former: Peers of which nothing is asked any more: they were killed, or are hostile.
        identities: Everybody's, by number.
    """

    def __init__(self, identities, folder, codec_name):
        self.swarm = memory.MemorySwarm()
        self.identities = identities
        self.peers = {}
        self.former = []
        self._folder = folder
        self._codec = codec_name
        self._starts = itertools.count()
        self._trainings = {}
        self._at = {}
        self._checked = set()
        peers.SimPeer.world = {}

    # ---- what the test does

    async def open(self, count, *, spoil=None, **options):
        """Start the first `count` peers, each knowing the others; `spoil` is done to the last."""
        for number in range(count):
            self.make(number, **options)
        if spoil is not None:
            spoil(self.peers[count - 1])
        await asyncio.gather(*(self.start(number) for number in range(count)))
        if spoil is not None:
            self.disown(count - 1)

    def make(self, number, **options):
        folder = self._folder / str(next(self._starts))
        peer = peers.SimPeer(
            self.swarm,
            self.identities[number],
            folder,
            hook=lambda phase: self._enter(number, phase),
            codec_name=self._codec,
            founders=[self.identities[0].peer_id],
            **options,
        )
        self.peers[number] = peer
        return peer

    async def start(self, number, epochs=10**9):
        known = [identity.peer_id for identity in self.identities]
        self._trainings[number] = await self.peers[number].start(known, epochs)

    def kill(self, number):
        """Kill a peer now."""
        peer = self.peers.pop(number)
        peer.kill()
        self.former.append(peer)

    def disown(self, number):
        """Ask nothing of a peer any more, and let it go on."""
        self.former.append(self.peers.pop(number))

    async def bring_back(self, number):
        """Start a killed peer again from its last checkpoint."""
        dead = next(
            peer
            for peer in reversed(self.former)
            if peer.peer_id == self.identities[number].peer_id
        )
        peer = self.make(number)
        peer.resume(dead)
        await self.start(number)
        return peer

    def number_of(self, peer_id):
        return next(i for i, each in enumerate(self.identities) if each.peer_id == peer_id)

    def at(self, number, epoch, phase, action):
        """Call `action` once when a peer enters a phase of its round on `epoch`.

        Phases: matchmaking, transfer, vote, certified.
        """
        self._at[number, epoch, phase] = action

    def _enter(self, number, phase):
        peer = self.peers.get(number)
        if peer is not None and (action := self._at.pop((number, peer.epoch, phase), None)):
            action()

    def cut(self, one, other):
        self.swarm.sever(self.identities[one].peer_id, self.identities[other].peer_id)

    def mend(self, one, other):
        self.swarm.mend(self.identities[one].peer_id, self.identities[other].peer_id)

    def split(self, *halves):
        """Cut every link between the halves."""
        for one, other in itertools.combinations(halves, 2):
            for a, b in itertools.product(one, other):
                self.cut(a, b)

    def calm(self):
        """Mend everything."""
        self.swarm.cut.clear()
        self.swarm.frozen.clear()

    # ---- waiting, in fake seconds

    @property
    def now_s(self):
        return asyncio.get_running_loop().time()

    async def until(self, condition, within_s, what=""):
        """Wait for `condition`, and return how long that took."""
        began_s = self.now_s
        while not condition():
            self.check_alive()
            assert self.now_s - began_s <= within_s, f"not in {within_s} s: {what}\n{self}"
            await asyncio.sleep(0.02)
        return self.now_s - began_s

    async def reach(self, epoch, within_s=1000.0):
        """Wait until all living peers are at `epoch`, and return how long that took."""
        return await self.until(lambda: self.epoch >= epoch, within_s, f"epoch {epoch}")

    async def whole(self, within_s=60.0):
        """Wait until all living peers are in the group of each one's last certificate."""
        return await self.until(self.is_whole, within_s, "a group of all")

    def is_whole(self):
        everybody = {peer.peer_id for peer in self.peers.values()}
        return all(
            peer.commits and set(peer.commits[-1][1].group) == everybody and peer.commits[-1][2]
            for peer in self.peers.values()
        )

    # ---- what must hold

    @property
    def epoch(self):
        """The last epoch that all living peers have."""
        return min(peer.epoch for peer in self.peers.values())

    def check_alive(self):
        """No peer's training ended in an error."""
        for number in self.peers:
            training = self._trainings.get(number)
            if training is not None and training.done():
                training.result()

    def check(self):
        """Everything that must hold of peers that reach each other."""
        self.check_alive()
        self.check_roots()
        for peer in self.peers.values():
            self.check_replay(peer)
            self.check_work(peer)

    def check_roots(self):
        """All living peers were in the same state at the last epoch that all have."""
        roots = {peer.roots[self.epoch] for peer in self.peers.values()}
        assert len(roots) == 1, f"{len(roots)} roots\n{self}"

    def check_replay(self, peer):
        """The state is what the certified averages make of the state before, bit for bit.

        And each of those averages is the weighted mean of the contributions that its certificate
        names: nothing partial, nothing that only one peer has.
        """
        row = peer.history.row()
        if not row:
            return
        epoch = row[0].vote.base.epoch
        base = self.find_state(row[0].vote.base.state_root)
        if base is None:
            return
        for certificate in row:
            vote = certificate.vote
            assert problem(certificate) is None
            assert vote.base.epoch == epoch
            assert vote.base.state_root == _root(base, epoch)
            average = self.find_average(vote.base.state_root, vote.vote_id)
            if vote.vote_id not in self._checked:
                bound = TOLERANCE[self._codec]
                np.testing.assert_allclose(average, self.mean_of(vote), rtol=bound, atol=bound)
                self._checked.add(vote.vote_id)
            base, epoch = base + average, epoch + 1
        assert base.tobytes() == peer.state.tobytes()
        assert peer.root == _root(base, epoch)

    def check_work(self, peer):
        """Each micro-batch is in one certificate, dropped and counted, or being worked on."""
        votes = {vote.vote_id: vote for _, vote, _ in peer.commits}  # some were followed twice
        mine = [
            peer_work
            for vote in votes.values()
            for entry in vote.entries
            if entry.peer_id == peer.peer_id and entry.contribution_id in peer.given
            for peer_work in peer.given[entry.contribution_id]
        ]
        done = sorted([*mine, *peer.dropped, *peer._tally])
        first = min(done, default=0)
        assert done == list(range(first, first + len(done))), f"{peer.peer_id}: {done}"

    def check_lost(self):
        """Every epoch that a peer took in and the run does not know was counted as lost."""
        for peer in self.peers.values():
            known = {c.vote.vote_id for c in peer.history.row()}
            gone = [vote for _, vote, _ in peer.commits if vote.vote_id not in known]
            assert len(gone) == sum(replaced.lost_epochs for replaced in peer.replaced)
            ours = [e for vote in gone for e in vote.entries if e.peer_id == peer.peer_id]
            weight = sum(entry.weight for entry in ours)
            assert weight == sum(replaced.lost_weight for replaced in peer.replaced)

    def mean_of(self, vote):
        """Return the weighted mean fp64 of what `vote` names, the refused left out."""
        at, mean = 0, np.empty(peers.ELEMENTS)
        for part in vote.parts:
            place = slice(at, at + part.elements)
            entries = [entry for entry in vote.entries if entry.peer_id not in part.refused]
            weights = [entry.weight for entry in entries]
            slices = [self.contribution(entry)[place] for entry in entries]
            mean[place] = np.average(np.stack(slices).astype(np.float64), axis=0, weights=weights)
            at += part.elements
        return mean

    def contribution(self, entry):
        """Return the values fp32 [ELEMENTS] of a contribution that somebody made."""
        for peer in self.everybody():
            if entry.contribution_id in peer.given:
                batches = peer.given[entry.contribution_id]
                assert entry.weight == peers.BATCH * len(batches)
                return peers.mean_gradient(peer.peer_id, batches)
        raise AssertionError(f"nobody made {entry}")

    def everybody(self):
        return [*self.peers.values(), *self.former]

    def find_state(self, root):
        for peer in self.everybody():
            if root in peer.states:
                return peer.states[root][1]
        return None

    def find_average(self, base_root, vote_id):
        for peer in self.everybody():
            kept = peer.averages.get(base_root)
            if kept and Certificate.from_json(kept.certificate).vote.vote_id == vote_id:
                digests = Certificate.from_json(kept.certificate).vote.parts
                parts = zip(kept.parts, digests, strict=True)
                return np.concatenate(
                    [codec.decode(part, digest.elements, self._codec) for part, digest in parts]
                )
        raise AssertionError("an average that a certificate proves is nowhere")

    def of(self, kind):
        """Return all events of a kind that the living emitted, as (number, event)."""
        return [
            (number, event)
            for number, peer in self.peers.items()
            for event in peer.events
            if isinstance(event, kind)
        ]

    def __str__(self):
        lines = []
        for number, peer in self.peers.items():
            last = [self.number_of(p) for p in peer.commits[-1][1].group] if peer.commits else []
            failures = [f"{failed.failure}: {failed.detail}" for failed in peer.failures[-3:]]
            lines.append(
                f"{number}: epoch {peer.epoch} root {peer.root[:6]} group {last} {failures}"
            )
        return "\n".join(lines)


def _root(state, epoch):
    return hashlib.sha256(state.tobytes() + epoch.to_bytes(8, "big")).hexdigest()


@pytest.fixture(scope="session")
def sim():
    """Return the simulation's parts, and what runs a scene in it."""
    return types.SimpleNamespace(run=memory.run, memory=memory, peers=peers, hostile=hostile)


@pytest.fixture(scope="session")
def sim_identities():
    """Return six peers, always the same."""
    return [_identity(number) for number in range(len(PRIME_OFFSETS))]


@pytest.fixture
def make_house(sim_identities, tmp_path):
    """Return an empty house for up to six peers; call it in the simulation's loop."""
    count = itertools.count()

    def make(size=4, codec_name="none"):
        return House(sim_identities[:size], tmp_path / str(next(count)), codec_name)

    return make
