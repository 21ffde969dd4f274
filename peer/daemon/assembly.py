"""Puts the worker's parts together: from a run directory and settings to a training loop."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from peer.checkpoint.annotation import Author
from peer.checkpoint.format import Checkpoint
from peer.checkpoint.journal import Journal, Work
from peer.checkpoint.keep import Keep
from peer.checkpoint.room import Room
from peer.checkpoint.store import CheckpointStore
from peer.clock import SystemClock
from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.feed import Feed, open_feed
from peer.daemon.loop import TrainingLoop
from peer.daemon.parts import Parts
from peer.daemon.validation import NoValidation, Validation
from peer.data.index import parse_index
from peer.errors import ConfigurationError
from peer.events import (
    Begin,
    CheckpointRejected,
    Loaded,
    Message,
    MicroBatchChanged,
    Phase,
    PhaseChanged,
    WorkRepeated,
)
from peer.identity import Identity
from peer.run.directory import MANIFEST, RunDirectory
from peer.swarm.throttle import Line
from peer.tasks import registry
from peer.tasks.task import Task
from peer.training.allowance import Allowance
from peer.training.evaluation import Evaluator
from peer.training.memory import first_micro_batch, keep_freed_memory
from peer.training.muster import Limits
from peer.training.outer import initial_slots
from peer.training.precision import Autocast, resolve_device, resolve_precision
from peer.training.round import LoneRounds, Rounds
from peer.training.state import GlobalState, Schema, read_initial_state
from peer.training.trainer import Place, Trainer, Workbench, get_rng

if TYPE_CHECKING:
    from peer.daemon.network import Network

Emit = Callable[[Message], None]


@contextlib.contextmanager
def assembled(
    begin: Begin, emit: Emit, abandon: Callable[[], bool] = lambda: False
) -> Iterator[TrainingLoop]:
    """Give a loop that stands where the run's last checkpoint on this machine stands.

    Its network, if it has one, ends with the context.

    Args:
        begin: What the supervisor asks for.
        emit: Takes events.
        abandon: Asked while the run is fetched from other peers whether to give up.

    Raises:
        AbandonedError: `abandon` said so.
        ConfigurationError: Something that starting again would not mend.
        CtpeerError: The network cannot be started now.
    """
    settings = Settings.model_validate(begin.settings)
    home = Home(Path(begin.home))
    identity = Identity.load_or_create(home.identity_path)
    if not settings.swarm.enabled:
        run = RunDirectory.open(home.run_path(begin.run_id))
        yield _assemble(begin, settings, run, identity, None, emit)
        return
    from peer.daemon.account import Account
    from peer.daemon.network import Network

    account = Account(settings.metrics.announce)
    emit = account.listening(emit)
    limits = settings.limits
    line = Line.of(limits.upload_bytes_per_s, limits.download_bytes_per_s)
    network = Network(home, settings.swarm, identity, begin.run_id, SystemClock(), emit, line)
    try:
        network.start(begin.addresses)
        run = _open_run(home, begin.run_id, network, abandon)
        loop = _assemble(begin, settings, run, identity, network, emit)
        network.begin(account.publish(network.dht, begin.run_id))
        yield loop
    finally:
        network.stop()


def _assemble(
    begin: Begin,
    settings: Settings,
    run: RunDirectory,
    identity: Identity,
    network: "Network | None",
    emit: Emit,
) -> TrainingLoop:
    device = _prepare_torch(settings)
    emit(PhaseChanged(phase=Phase.LOADING, reason=f"loading {run.manifest.name} on {device}"))
    _check_role(run, settings)
    task, model_config = _load_task(run)
    seed = hashlib.sha256(f"{run.manifest_hash}\n{identity.peer_id}".encode()).digest()
    index = parse_index(run.read_blob(run.manifest.data.index), "the run's data index")
    if network is not None:
        network.join(run, index, _limits(run, settings))
    feed = open_feed(run, index, task, settings, identity.peer_id, network, emit)
    model = task.build_model(model_config)
    task.try_out(model)
    schema = Schema.of(model)
    store = CheckpointStore(
        run.checkpoints_path,
        run.manifest_hash,
        Keep.of(settings.checkpoint),
        Author(identity, SystemClock().now_s),
        Room(Home(Path(begin.home)).used_bytes, settings.limits.disk_bytes),
    )
    checkpoint = store.load_newest(
        schema,
        initial_slots(run.manifest.optimizer, schema.elements),
        lambda name, reason: emit(CheckpointRejected(name=name, reason=reason)),
    )
    saved = checkpoint.place if checkpoint else None
    stream = feed.stream(seed, saved.cursor if saved else None)
    micro_batch = first_micro_batch(device, settings.compute.micro_batch, begin.micro_batch_divisor)
    if checkpoint is None:
        state = _initial_state(run, schema)
        torch.manual_seed(int.from_bytes(seed[:8], "big") >> 1)
        place = Place.beginning(stream.cursor, micro_batch, get_rng(device))
    else:
        assert saved is not None  # no other is loaded
        state = checkpoint.state
        place = _resumed_place(saved, begin, micro_batch, emit)
    precision = resolve_precision(settings.compute.precision, device)
    trainer = Trainer(
        Workbench(
            manifest=run.manifest,
            peer_id=identity.peer_id,
            model=model.to(device),
            task=task,
            stream=stream,
            device=device,
            autocast=Autocast(precision, device),
            emit=emit,
            allowance=Allowance(settings.limits.memory_bytes),
        ),
        state,
        place,
    )
    journal = Journal(run.path / "journal.json", SystemClock())
    _report_loaded(begin, run, feed, trainer, store, checkpoint, emit)
    _report_repeated(journal, trainer, emit)
    heldout, pool = feed.heldout_rows(
        run.manifest.evaluation.max_rows, run.manifest.validation.pool
    )
    rounds: Rounds = LoneRounds(identity, run.manifest.averaging.codec)
    validation: Validation = NoValidation()
    if network is not None:
        from peer.daemon.swarm_assembly import Ground, meet_swarm

        rounds, validation = meet_swarm(
            Ground(
                network=network,
                run=run,
                identity=identity,
                schema=schema,
                slots=initial_slots(run.manifest.optimizer, schema.elements),
                store=store,
                initial=lambda: _initial_state(run, schema),
                evaluator=_evaluator(task, model_config, schema, device, settings),
                heldout=pool,
                settings=settings.validation,
                joins=checkpoint is None,
                emit=emit,
            )
        )
    parts = Parts(
        run_id=run.run_id,
        manifest_hash=run.manifest_hash,
        settings=settings,
        task=task,
        trainer=trainer,
        rounds=rounds,
        validation=validation,
        store=store,
        journal=journal,
        heldout=heldout,
        clock=SystemClock(),
        emit=emit,
    )
    return TrainingLoop(parts, checkpoint)


def _check_role(run: RunDirectory, settings: Settings) -> None:
    if settings.validation.role == "validator" and not run.manifest.validation.every_epochs:
        raise ConfigurationError(
            f"nothing is judged in {run.manifest.name} (validation.every_epochs = 0 in its "
            "manifest), so it has no use for a validator; start without --role validator "
            "(validation.role)"
        )


def _evaluator(
    task: Task,
    model_config: Mapping[str, object],
    schema: Schema,
    device: torch.device,
    settings: Settings,
) -> Evaluator:
    """Return what scores states: beside training, or with nothing to spare for it."""
    if settings.validation.role == "validator":
        return Evaluator(task, model_config, schema, device, share=1.0)
    return Evaluator(task, model_config, schema, device)


def _open_run(
    home: Home, run_id: str, network: "Network", abandon: Callable[[], bool]
) -> RunDirectory:
    """Return the run in the home, fetched from its peers where it is not there yet."""
    path = home.run_path(run_id)
    if (path / MANIFEST).exists():
        return RunDirectory.open(path)
    return network.fetch_run(abandon)


def _limits(run: RunDirectory, settings: Settings) -> Limits:
    target = run.manifest.batch.target_loss_terms
    return Limits(
        call_timeout_s=settings.swarm.call_timeout_s,
        frame_timeout_s=2 * settings.swarm.call_timeout_s,
        matchmaking_timeout_s=settings.swarm.matchmaking_timeout_s,
        part_timeout_s=settings.swarm.part_timeout_s,
        # A peer gathers the whole batch and a row too much at most.
        max_weight=2 * target + run.manifest.task.sequence_length,
        target=target,
    )


def _prepare_torch(settings: Settings) -> torch.device:
    threads = settings.compute.threads or max(1, (os.cpu_count() or 2) - 1)
    torch.set_num_threads(threads)
    keep_freed_memory()
    # Resuming must repeat, bit for bit, what the lost process did.
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    # Filling memory with NaN before use is for debugging, and costs.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return resolve_device(settings.compute.device)


def _load_task(run: RunDirectory) -> tuple[Task, Mapping[str, object]]:
    manifest = run.manifest
    files = {name: run.read_blob(hash_) for name, hash_ in manifest.tokenizer.files.items()}
    task = registry.create(manifest.task, files)
    config = json.loads(run.read_blob(manifest.model.config))
    task.check_model(config)
    return task, config


def _initial_state(run: RunDirectory, schema: Schema) -> GlobalState:
    parameters = read_initial_state(run.read_blob(run.manifest.initial_state), schema)
    slots = initial_slots(run.manifest.optimizer, schema.elements)
    return GlobalState(epoch=0, schema=schema, parameters=parameters, optimizer=slots)


def _resumed_place(place: Place, begin: Begin, micro_batch: int, emit: Emit) -> Place:
    """Return the place of a checkpoint with the micro-batch that this start allows."""
    saved = place.micro_batch
    asked = begin.settings["compute"]["micro_batch"] is not None
    allowed = micro_batch
    if not asked:
        allowed = min(max(1, saved // begin.micro_batch_divisor), micro_batch)
    if allowed != saved:
        reason = "the settings ask for it" if asked else "no larger one is asked for any more"
        if begin.micro_batch_divisor > 1:
            reason = "out of memory"
        emit(MicroBatchChanged(samples_before=saved, samples_after=allowed, reason=reason))
    return place.with_micro_batch(allowed)


def _report_loaded(
    begin: Begin,
    run: RunDirectory,
    feed: Feed,
    trainer: Trainer,
    store: CheckpointStore,
    checkpoint: Checkpoint | None,
    emit: Emit,
) -> None:
    manifest = run.manifest
    emit(
        Loaded(
            run_id=begin.run_id,
            run_name=manifest.name,
            task=manifest.task.name,
            peer_id=trainer.peer_id,
            device=str(trainer.device),
            parameters=trainer.state.schema.elements,
            epoch=trainer.state.epoch,
            generation=checkpoint.generation if checkpoint else 0,
            state_root=checkpoint.state_root if checkpoint else None,
            checkpoint_unix_time_s=store.written_s(checkpoint) if checkpoint else None,
            tokens_total=trainer.tokens_total,
            micro_batch=trainer.micro_batch,
            target_loss_terms=manifest.batch.target_loss_terms,
            heldout_name=feed.task.heldout_name,
            baselines=dict(manifest.evaluation.baselines),
            shards=feed.shard_choices,
        )
    )


def _report_repeated(journal: Journal, trainer: Trainer, emit: Emit) -> None:
    done = Work(trainer.samples_total, trainer.tokens_total)
    lost = journal.read().beyond(done)
    if lost.samples:
        emit(WorkRepeated(samples=lost.samples, tokens=lost.tokens))
    journal.record(done)  # reported: another start before any work must not count it again
