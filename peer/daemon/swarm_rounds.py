"""Rounds with the swarm, for the training loop: its questions go to the network's thread."""

from peer.checkpoint.snapshot import SnapshotServer
from peer.daemon.network import Network
from peer.daemon.validator import Validator
from peer.errors import AbandonedError
from peer.events import RoundFailure
from peer.training.averages import AverageLog
from peer.training.averaging import Averager
from peer.training.catchup import CatchUp
from peer.training.certificate import Base, Certificate
from peer.training.contribution import Contribution
from peer.training.history import History
from peer.training.round import Abandon, Committed, Failed, Step


class SwarmRounds:
    """See `peer.training.round.Rounds`.

    Args:
        network: Where the other peers are.
        averager: Runs rounds.
        catchup: Finds out where the others are.
        history: Our row of certificates.
        averages: Our certified averages.
        server: Gives states to those who join.
        validator: Takes part in the judging of checkpoints; None where nobody judges them.
    """

    def __init__(
        self,
        network: Network,
        averager: Averager,
        catchup: CatchUp,
        history: History,
        averages: AverageLog,
        server: SnapshotServer,
        validator: Validator | None,
    ) -> None:
        self._network = network
        self._averager = averager
        self._catchup = catchup
        self._history = history
        self._averages = averages
        self._server = server
        self._validator = validator
        self._behind = False
        self._place = (0, 0)
        self._looked: tuple[int, int] | None = None

    def start(self) -> None:
        """Take part in the others' rounds, once it is known who is there."""
        self._network.wait(self._start())
        self._network.settle()
        if self._validator is not None:
            self._network.wait(self._validator.settle())
            self._network.begin(self._validator.watch())
        self._behind = self._catchup.doubtful
        self._network.begin(self._catchup.watch(self._note_behind))
        self.rest(resting=False)

    async def _start(self) -> None:
        await self._averager.start()
        await self._catchup.start()
        await self._server.start()
        if self._validator is not None:
            await self._validator.verdicts.start()

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
    def others_train(self) -> bool:
        """Whether anybody else trains, as far as we know."""
        return self._network.muster.others_train

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
        asked, self._server.asked = self._server.asked, False
        return asked

    def saved(self, oldest_epoch: int) -> None:
        """Note that states before `oldest_epoch` are given to nobody any more."""
        if self._validator is not None:
            # From there those who join replay.
            oldest_epoch = min(oldest_epoch, self._validator.tip.ledger.last_good.epoch)
        self._averages.drop_before(oldest_epoch)

    def restart(self) -> None:
        """Forget the certificates so far: a new generation begins from a good state."""
        self._averages.drop_all()
        self._network.post(self._forget)

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

    def _forget(self) -> None:
        self._history.replace([])
        # Whom we worked with until now is no stranger.
        self._network.muster.tenured = self._history.met()

    def _note_behind(self) -> None:
        self._behind = True
