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
from peer.training.round import Committed, Failed, Replaced, Waiting

ELEMENTS = 8
TARGET = 64
BATCH = 16
"""Loss terms in a micro-batch."""
RUN = "sim-" + "0" * 32
SAVED_EPOCHS = 5
"""Every so many epochs a state is kept, for the peer itself and for those who join."""


class LoopClock:
    """The fake loop's time as the components' clock."""

    def now_s(self):
        return 1.7e9 + self.monotonic_s()

    def monotonic_s(self):
        return asyncio.get_running_loop().time()


def batch_gradient(peer_id, batch):
    """Return the mean gradient fp32 [ELEMENTS] of a peer's micro-batch, made up."""
    draw = hashlib.shake_256(f"{peer_id}{batch}".encode()).digest(4 * ELEMENTS)
    return (np.frombuffer(draw, "<i4") / 2**30).astype(np.float32)


def mean_gradient(peer_id, batches):
    """Return the mean gradient fp32 [ELEMENTS] of several."""
    gradients = [batch_gradient(peer_id, batch) for batch in batches]
    return np.mean(gradients, axis=0, dtype=np.float32)


class SimPeer:
    """A peer that gathers 16 loss terms a tenth of a second and averages them with the others.

    It goes through an epoch as `peer.daemon.loop` does.

    Attributes:
        commits: (epoch, vote, whether our contribution was in it) of each certificate taken in.
        given: The micro-batches in each contribution, by its id.
        dropped: Micro-batches that went into no average and never will.
        replaced: Each time that we went over to another state.
    """

    world = {}  # noqa: RUF012 every live peer by id, shared on purpose

    def __init__(
        self,
        swarm,
        identity,
        folder,
        *,
        speed=1.0,
        hook=lambda phase: None,
        codec_name="none",
        founders=(),
        **limits,
    ):
        self.identity = identity
        self.peer_id = identity.peer_id
        self.swarm = swarm
        self.events = []
        self.failures = []
        self.commits = []
        self.state = np.zeros(ELEMENTS, np.float32)
        self.epoch = 0
        self.speed = speed
        self.roots = [self._root()]
        self.made = 0
        self.given = {}
        self.dropped = []
        self.transport = swarm.transport(self.peer_id)
        limits = Limits(max_weight=2 * TARGET, target=TARGET, **limits)
        clock = LoopClock()
        self.muster = Muster(
            identity, self.transport, RUN, Roster(self.peer_id), limits, clock, self.events.append
        )
        self.transport.on_misbehaved = lambda peer, name, why: self.muster.misbehaved(peer, why)
        self.averages = AverageLog(folder / self.peer_id, 1 << 20)
        self.averager = Averager(
            self.muster, self.averages, ELEMENTS, codec_name, self.events.append, hook
        )
        self.history = History()
        self.catchup = CatchUp(self.muster, self.averager, self.history, self._fetch, founders)
        self.states = {self.root: (0, self.state)}
        self.led_by = {}
        self.replaced = []
        self.tasks = []
        self._tally = []
        self._made = None
        self._batches = 0
        self._behind = False

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
            asyncio.ensure_future(self.catchup.watch(self._note_behind)),
            asyncio.ensure_future(self._ping()),
            asyncio.ensure_future(self._train(epochs)),
        ]
        return self.tasks[-1]

    def resume(self, dead):
        """Stand where a dead peer of this identity stood at its last checkpoint."""
        epoch = dead.epoch - dead.epoch % SAVED_EPOCHS
        if dead.roots[epoch] not in dead.states:  # it had just gone over to another state
            kept = (e for e, _ in dead.states.values() if e <= dead.epoch)
            epoch = max(e for e in kept if dead.roots[e] in dead.states)
        self.epoch, self.roots = epoch, dead.roots[: epoch + 1]
        self.state = dead.states[self.root][1]
        self.made = dead.made + 1000
        self._batches = dead._batches
        self.states = {root: s for root, s in dead.states.items() if s[0] <= epoch}
        self.led_by = dict(dead.led_by)
        if self.root in self.led_by:
            self._note_leaders(self.led_by[self.root])

    def _note_leaders(self, certificate):
        self.history.append(certificate)
        self.muster.last_group = frozenset(certificate.vote.group)
        self.muster.tenured = self.history.tenured()

    async def _fetch(self, roots, beyond):
        """Take a state straight from another peer's memory, as if by a snapshot's transfer."""
        await asyncio.sleep(0.5)
        found = None
        for other in self.world.values():
            if other is self or not self._reaches(other):
                continue
            for root, (epoch, state) in other.states.items():
                if root in roots and epoch > beyond and epoch % SAVED_EPOCHS == 0:
                    found = max(
                        found or (epoch, root, state), (epoch, root, state), key=lambda f: f[0]
                    )
        return (found, found[1]) if found else None

    def _note_behind(self):
        self._behind = True

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
            if self._behind:
                await self._catch_up()
            elif self.muster.resting:
                await asyncio.sleep(0.25)
            elif await self._work():
                await self._average()

    async def _catch_up(self):
        while self._behind:
            step = await self.catchup.step(self.base)
            self._behind = step is not None
            match step:
                case Committed():
                    self._commit(step)
                case Replaced():
                    self._replace(step)
                case Waiting():
                    await asyncio.sleep(0.5)
                case None:
                    pass

    async def _work(self):
        """Gather micro-batches until there are enough; return False if others are ahead first."""
        while self.weight < TARGET and not (self.weight and self.muster.wanted):
            if self._behind or self.muster.resting:
                return False
            await asyncio.sleep(0.1 / self.speed)
            self._tally.append(self._batches)
            self._batches += 1
            self.muster.gather(self.weight, 160.0 * self.speed)
        return True

    async def _average(self):
        result = await self.averager.run(self.base, self._contribution())
        if isinstance(result, Committed):
            self._commit(result)
            return
        assert isinstance(result, Failed)
        self.failures.append(result)
        if not result.keep:
            self._start_epoch()
        await asyncio.sleep(0.01)

    @property
    def weight(self):
        return BATCH * len(self._tally)

    def _contribution(self):
        if self._made is not None and self._made.weight == self.weight:
            return self._made
        self.made += 1
        name = hashlib.sha256(f"{self.peer_id}{self.made}".encode()).hexdigest()
        values = mean_gradient(self.peer_id, self._tally)
        weight = self.weight
        self.given[name] = tuple(self._tally)
        self._made = Contribution(name, values, weight, weight, weight, 1.0)
        return self._made

    def _start_epoch(self, consumed=()):
        self.dropped += [batch for batch in self._tally if batch not in consumed]
        self._tally, self._made = [], None

    def _replace(self, replaced):
        epoch, root, state = replaced.state
        self.replaced.append(replaced)
        self.state, self.epoch = state, epoch
        self.roots = [*self.roots[:epoch], *[""] * (epoch - len(self.roots)), root]
        assert self._root() == root
        self.states[root] = (epoch, state)
        self._start_epoch()
        self.muster.stand(0, self.epoch, self.root)

    def _commit(self, committed):
        vote = committed.certificate.vote
        assert vote.base == self.base
        self.state = self.state + committed.average
        self.epoch += 1
        self.roots.append(self._root())
        self.states[self.root] = (self.epoch, self.state)
        self.led_by[self.root] = committed.certificate
        mine = [e.contribution_id for e in vote.entries if e.contribution_id in self.given]
        self._start_epoch(self.given[mine[0]] if mine else ())
        self.commits.append((self.epoch, vote, bool(mine)))
        self._note_leaders(committed.certificate)
        self.muster.stand(0, self.epoch, self.root)
