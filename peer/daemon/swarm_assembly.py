"""Puts together what meets the swarm: rounds, joining, and the judging of checkpoints."""

import dataclasses
from collections.abc import Callable, Mapping

from peer.checkpoint.initial import initial_root
from peer.checkpoint.offers import Offers
from peer.checkpoint.snapshot import SnapshotServer
from peer.checkpoint.states import States
from peer.checkpoint.store import CheckpointStore
from peer.clock import SystemClock
from peer.config.settings import ValidationSettings
from peer.daemon.clerk import Chambers
from peer.daemon.network import Network
from peer.daemon.scoring import Scorer
from peer.daemon.swarm_rounds import SwarmRounds
from peer.daemon.swarm_validation import SwarmValidation
from peer.daemon.validation import NoValidation, Validation
from peer.daemon.validator import Validator
from peer.events import Message, Phase, PhaseChanged
from peer.identity import Identity
from peer.run.directory import RunDirectory
from peer.tasks.task import HeldOutRows
from peer.training.averages import AverageLog
from peer.training.averaging import Averager
from peer.training.catchup import CatchUp, FetchState
from peer.training.evaluation import Evaluator
from peer.training.history import History
from peer.training.state import GlobalState, Schema, Slot
from peer.validation.archive import Archive
from peer.validation.rules import Rules
from peer.validation.verdict import Tip

_AVERAGES_IN_MEMORY_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ground:
    """What the swarm's parts stand on.

    Attributes:
        network: Which has joined the run.
        run: The run.
        identity: Ours.
        schema: The model's tensors.
        slots: A fresh outer optimizer state.
        store: Our checkpoints.
        initial: Reads the run's initial state.
        evaluator: Scores states.
        heldout: The rows of which those to score are drawn.
        settings: The volunteer's.
        joins: Whether this peer has no state of its own yet.
        emit: Takes events.
    """

    network: Network
    run: RunDirectory
    identity: Identity
    schema: Schema
    slots: Mapping[str, Slot]
    store: CheckpointStore
    initial: Callable[[], GlobalState]
    evaluator: Evaluator
    heldout: HeldOutRows
    settings: ValidationSettings
    joins: bool
    emit: Callable[[Message], None]


def meet_swarm(ground: Ground) -> tuple[SwarmRounds, Validation]:
    """Return the rounds of the run over its network, and the judging of its checkpoints."""
    network, run, emit = ground.network, ground.run, ground.emit
    muster, history = network.muster, History()
    averages = AverageLog(run.path / "averages", _AVERAGES_IN_MEMORY_BYTES)
    codec = run.manifest.averaging.codec
    averager = Averager(
        muster, averages, ground.schema.elements, codec, emit, upload=network.upload
    )

    def progress(done: int, total: int) -> None:
        reason = f"fetching the state of the run: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
        emit(PhaseChanged(phase=Phase.JOINING, reason=reason))

    offers = Offers(
        muster,
        run.manifest_hash,
        ground.schema,
        ground.slots,
        run.path / "joining",
        progress,
    )
    states = States(ground.store, offers, ground.initial, ground.schema, ground.slots)
    validator = _make_validator(ground, history, states)
    fetch = offers.fetch if validator is None else _fetch_what_is_judged(offers, validator)
    catchup = CatchUp(muster, averager, history, fetch, run.manifest.founders)
    server = SnapshotServer(muster.transport, run.run_id, ground.store, network.upload, averages)
    network.count_refusals(averager.refused)
    network.count_refusals(server.refused)
    network.on_stop(server.close)
    rounds = SwarmRounds(network, averager, catchup, history, averages, server, validator)
    if validator is None:
        return rounds, NoValidation()
    network.count_refusals(validator.verdicts.refused)
    rules = Rules.of(run.run_id, run.manifest.validation)
    trains = ground.settings.role == "trainer"
    return rounds, SwarmValidation(network, validator, states, rules, trains=trains)


def _make_validator(ground: Ground, history: History, states: States) -> Validator | None:
    """Return what takes part in the judging, or None where the run judges nothing."""
    run = ground.run
    if not run.manifest.validation.every_epochs:
        return None
    rules = Rules.of(run.run_id, run.manifest.validation)
    chambers = Chambers(
        identity=ground.identity,
        muster=ground.network.muster,
        dht=ground.network.dht,
        history=history,
        rules=rules,
        look_s=ground.settings.look_s,
        willing=ground.settings.take_seats,
        archive=Archive(run.verdicts_path),
        genesis=Tip.genesis(run.run_id, initial_root(run)),
        scorer=Scorer(ground.evaluator, ground.heldout, rules.rows, states),
        unix_time_s=SystemClock().now_s,
        emit=ground.emit,
    )
    return Validator(chambers, joins=ground.joins)


def _fetch_what_is_judged(offers: Offers, validator: Validator) -> FetchState:
    """Return what fetches certified states, but none that nobody judged for those who join.

    They begin at the last good one and replay from there: so a bad state that is not judged yet
    is at least one that they see the run arrive at.
    """

    async def fetch(roots: Mapping[str, int], beyond: int) -> tuple[GlobalState, str] | None:
        return None if validator.is_new else await offers.fetch(roots, beyond)

    return fetch
