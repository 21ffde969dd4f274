"""Whole peers in memory: real rounds, votes and certificates over a tiny state, on a fake clock."""

import asyncio
import hashlib

import numpy as np

from peer.swarm.membership import Roster
from peer.training.averages import AverageLog
from peer.training.averaging import Averager
from peer.training.catchup import CatchUp
from peer.training.certificate import Base
from peer.training.contribution import Contribution
from peer.training.history import History
from peer.training.muster import Limits, Muster
from peer.training.round import Committed, Failed

ELEMENTS = 8
TARGET = 64
RUN = "sim-" + "0" * 32


class LoopClock:
    """The fake loop's time as the components' clock."""

    def now_s(self):
        return 1.7e9 + self.monotonic_s()

    def monotonic_s(self):
        return asyncio.get_running_loop().time()


class SimPeer:
    """A peer that gathers 16 loss terms a tenth of a second and averages them with the others."""

    world = {}  # every live peer by id

    def __init__(self, swarm, identity, folder, *, speed=1.0, hook=lambda phase: None):
        self.identity = identity
        self.peer_id = identity.peer_id
        self.swarm = swarm
        self.events = []
        self.failures = []
        self.commits = []  # (epoch, vote, whether our contribution was in it)
        self.state = np.zeros(ELEMENTS, np.float32)
        self.epoch = 0
        self.speed = speed
        self.roots = [self._root()]
        self.made = 0
        self.transport = swarm.transport(self.peer_id)
        limits = Limits(max_weight=2 * TARGET, target=TARGET)
        clock = LoopClock()
        self.muster = Muster(
            identity, self.transport, RUN, Roster(self.peer_id), limits, clock, self.events.append
        )
        self.averages = AverageLog(folder / self.peer_id, 1 << 20)
        self.averager = Averager(
            self.muster, self.averages, ELEMENTS, "none", self.events.append, hook
        )
        self.history = History()
        self.catchup = CatchUp(self.muster, self.averager, self.history, self._fetch)
        self.states = {self.root: (0, self.state)}
        self.replaced = []
        self.tasks = []

    def _root(self):
        text = self.state.tobytes() + self.epoch.to_bytes(8, "big")
        return hashlib.sha256(text).hexdigest()

    @property
    def root(self):
        return self.roots[-1]

    @property
    def base(self):
        return Base(RUN, 0, self.epoch, self.root)

    async def start(self, known, epochs):
        await self.muster.start()
        await self.averager.start()
        await self.catchup.start()
        self.world[self.peer_id] = self
        self.muster.stand(0, self.epoch, self.root)
        for peer in known:
            self.muster.roster.learn(peer, ())
        await self.muster.poll(known)
        self.tasks = [
            asyncio.ensure_future(self.muster.watch()),
            asyncio.ensure_future(self._ping()),
            asyncio.ensure_future(self._train(epochs)),
        ]
        return self.tasks[-1]

    def resume(self, dead):
        """Stand where a dead peer of this identity stood at its last checkpoint."""
        epoch = dead.epoch - dead.epoch % 5
        self.epoch, self.roots = epoch, dead.roots[: epoch + 1]
        self.state = dead.states[self.root][1]
        self.made = dead.made + 1000
        self.states = {root: s for root, s in dead.states.items() if s[0] <= epoch}

    async def _fetch(self, roots, beyond):
        """Take a state straight from another peer's memory, as if by a snapshot's transfer."""
        await asyncio.sleep(0.5)
        found = None
        for other in self.world.values():
            if other is self or not self._reaches(other):
                continue
            for root, (epoch, state) in other.states.items():
                if root in roots and epoch > beyond and epoch % 5 == 0:
                    found = max(
                        found or (epoch, root, state), (epoch, root, state), key=lambda f: f[0]
                    )
        return (found, found[1]) if found else None

    def _reaches(self, other):
        link = frozenset((self.peer_id, other.peer_id))
        return link not in self.swarm.cut and other.peer_id in self.swarm.alive

    def kill(self):
        self.swarm.kill(self.peer_id)
        for task in self.tasks:
            task.cancel()

    async def _ping(self):
        while True:
            await asyncio.sleep(1.0)
            await self.muster.poll(self.muster.roster.due(self.muster.now_s, 5.0))

    async def _train(self, epochs):
        while self.epoch < epochs:
            contribution = await self._work()
            while True:
                result = await self.averager.run(self.base, contribution)
                if isinstance(result, Committed):
                    self._commit(result, contribution)
                    break
                assert isinstance(result, Failed)
                self.failures.append(result)
                await asyncio.sleep(0.01)

    async def _work(self):
        weight = 0
        while weight == 0 or not (weight >= TARGET or self.muster.wanted):
            while self.catchup.behind:
                step = await self.catchup.step(self.base)
                if step is None:
                    break
                if isinstance(step, Committed):
                    self._commit(step, None)
                else:
                    self._replace(step)
                weight = 0
            await asyncio.sleep(0.1 / self.speed)
            weight += 16
            self.muster.gather(weight, 160.0 * self.speed)
        self.made += 1
        name = hashlib.sha256(f"{self.peer_id}{self.made}".encode()).hexdigest()
        draw = np.random.RandomState(int(name[:8], 16))
        values = draw.standard_normal(ELEMENTS).astype(np.float32)
        return Contribution(name, values, weight, weight, weight, 1.0)

    def _replace(self, replaced):
        epoch, root, state = replaced.state
        self.replaced.append(replaced)
        self.state, self.epoch = state, epoch
        self.roots = [*self.roots[:epoch], *[""] * (epoch - len(self.roots)), root]
        assert self._root() == root
        self.states[root] = (epoch, state)
        self.muster.stand(0, self.epoch, self.root)

    def _commit(self, committed, contribution):
        vote = committed.certificate.vote
        assert vote.base == self.base
        self.state = self.state + committed.average
        self.epoch += 1
        self.roots.append(self._root())
        self.states[self.root] = (self.epoch, self.state)
        inside = contribution is not None and committed.consumed(contribution.contribution_id)
        self.commits.append((self.epoch, vote, inside))
        self.history.append(committed.certificate)
        self.muster.last_group = frozenset(vote.group)
        self.muster.stand(0, self.epoch, self.root)
