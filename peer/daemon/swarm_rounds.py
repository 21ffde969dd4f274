"""Rounds with the swarm, for the training loop: its questions go to the network's thread."""

import logging
from collections.abc import Callable, Mapping

from peer.checkpoint.offers import Offers
from peer.checkpoint.snapshot import SnapshotServer
from peer.checkpoint.store import CheckpointStore
from peer.daemon.network import Network
from peer.errors import AbandonedError
from peer.events import Message, Phase, PhaseChanged, RoundFailure
from peer.run.directory import RunDirectory
from peer.training.averages import AverageLog
from peer.training.averaging import Averager
from peer.training.catchup import CatchUp
from peer.training.certificate import Base, Certificate
from peer.training.contribution import Contribution
from peer.training.history import History
from peer.training.round import Abandon, Committed, Failed, Step
from peer.training.state import Schema, Slot

log = logging.getLogger(__name__)

_AVERAGES_IN_MEMORY_BYTES = 64 << 20


class SwarmRounds:
    """See `peer.training.round.Rounds`.

    Args:
        network: Where the other peers are.
        averager: Runs rounds.
        catchup: Finds out where the others are.
        history: Our row of certificates.
        averages: Our certified averages.
        offers: Says what we give to those who join.
        server: Gives it.
    """

    def __init__(
        self,
        network: Network,
        averager: Averager,
        catchup: CatchUp,
        history: History,
        averages: AverageLog,
        offers: Offers,
        server: SnapshotServer,
    ) -> None:
        self._network = network
        self._averager = averager
        self._catchup = catchup
        self._history = history
        self._averages = averages
        self._offers = offers
        self._server = server
        self._behind = False
        self._place = (0, 0)
        self._looked: tuple[int, int] | None = None

    def start(self) -> None:
        """Take part in the others' rounds, once it is known who is there."""
        self._network.wait(self._start())
        self._network.settle()
        self._behind = self._catchup.doubtful
        self._network.begin(self._catchup.watch(self._note_behind))
        self.rest(resting=False)

    async def _start(self) -> None:
        await self._averager.start()
        await self._catchup.start()
        await self._offers.start()
        await self._server.start()

    def stand(
        self, generation: int, epoch: int, root: str | None, led_by: Certificate | None
    ) -> None:
        """Note where we are; `root` is None while it is computed, `led_by` what led there."""
        self._place = (generation, epoch)
        self._network.post(self._stand, generation, epoch, root, led_by)

    def gather(self, weight: int, rate: float) -> None:
        """Note the loss terms gathered since the last epoch, and how many a second."""
        self._network.check()
        muster = self._network.muster
        muster.gather(weight, rate)
        if self._looked != self._place and weight >= muster.share:
            # The swarm may have enough this very moment: better to ask than to gather too much.
            self._looked = self._place
            self._network.glance(muster.look())

    def rest(self, *, resting: bool) -> None:
        """Note that we train, or that nobody should wait for us."""
        self._network.muster.resting = resting

    @property
    def wanted(self) -> bool:
        """Whether the swarm has gathered an epoch's batch, so that we should bring ours."""
        muster = self._network.muster
        return muster.wanted and muster.place == self._place

    @property
    def behind(self) -> bool:
        """Whether `catch_up` has something to find out."""
        self._network.check()
        return self._behind

    @property
    def asked_for_state(self) -> bool:
        """Whether somebody joins and looks for a state, since this was last asked."""
        asked, self._offers.asked = self._offers.asked, False
        return asked

    def saved(self, oldest_epoch: int) -> None:
        """Note that states before `oldest_epoch` are given to nobody any more."""
        self._averages.drop_before(oldest_epoch)

    def run(self, base: Base, contribution: Contribution, abandon: Abandon) -> Committed | Failed:
        """Try once to average `contribution` on top of `base`, within a deadline."""
        try:
            return self._network.wait(self._averager.run(base, contribution), abandon)
        except AbandonedError:
            return Failed(RoundFailure.ABANDONED, "an order came in between", keep=True)

    def catch_up(self, base: Base, abandon: Abandon) -> Step | None:
        """Return what others have beyond `base`: the next epoch, another state, or nothing."""
        try:
            return self._network.wait(self._step(base), abandon)
        except AbandonedError:
            return None

    async def _step(self, base: Base) -> Step | None:
        step = await self._catchup.step(base)
        self._behind = step is not None
        return step

    def _stand(
        self, generation: int, epoch: int, root: str | None, led_by: Certificate | None
    ) -> None:
        muster = self._network.muster
        if led_by is not None:
            self._history.append(led_by)
            muster.last_group = frozenset(led_by.vote.group)
            muster.tenured = self._history.tenured()
        muster.stand(generation, epoch, root)

    def _note_behind(self) -> None:
        self._behind = True


def make_swarm_rounds(
    network: Network,
    run: RunDirectory,
    schema: Schema,
    slots: Mapping[str, Slot],
    store: CheckpointStore,
    emit: Callable[[Message], None],
) -> SwarmRounds:
    """Return the rounds of `run` over `network`, which has joined it.

    Args:
        network: Where the other peers are.
        run: The run.
        schema: The model's tensors.
        slots: A fresh outer optimizer state.
        store: Our checkpoints.
        emit: Takes events.
    """
    muster, history = network.muster, History()
    averages = AverageLog(run.path / "averages", _AVERAGES_IN_MEMORY_BYTES)
    codec = run.manifest.averaging.codec
    averager = Averager(muster, averages, schema.elements, codec, emit, upload=network.upload)

    def progress(done: int, total: int) -> None:
        reason = f"fetching the state of the run: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
        emit(PhaseChanged(phase=Phase.JOINING, reason=reason))

    staging = run.path / "joining"
    offers = Offers(muster, store, run.manifest_hash, schema, slots, staging, progress)
    catchup = CatchUp(muster, averager, history, offers.fetch, run.manifest.founders)
    server = SnapshotServer(muster.transport, run.run_id, store, network.upload, averages)
    for part in (averager, server):
        network.count_refusals(part.refused)
    network.on_stop(server.close)
    return SwarmRounds(network, averager, catchup, history, averages, offers, server)
