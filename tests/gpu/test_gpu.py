"""On a CUDA device: training learns, goes on from a checkpoint, backs off, gives memory back."""

import dataclasses
import gc

import numpy as np
import pytest
import torch

from peer.checkpoint.format import Checkpoint
from peer.checkpoint.store import CheckpointStore
from peer.errors import ConfigurationError
from peer.events import MicroBatchChanged
from peer.training.outer import initial_slots
from peer.training.precision import resolve_device

pytestmark = pytest.mark.gpu

MANIFEST_HASH = "ab" * 32


@pytest.fixture(scope="module")
def device():
    try:
        return resolve_device("cuda")
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.fixture
def large(configs):
    """Return a configuration of some megabytes, so that memory held and freed can be told apart."""
    return configs["gpt2"] | {"n_embd": 256, "n_layer": 2}


def allocated_bytes(device):
    gc.collect()
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_lowers_the_loss(device, make_trainer, make_task, heldout, run_epoch, precision):
    trainer, rows = make_trainer(device=device, precision=precision), heldout(make_task(), 0)
    before = trainer.evaluate(rows)
    for _ in range(20):
        run_epoch(trainer)
    assert trainer.evaluate(rows).value < 0.9 * before.value
    assert trainer.state.parameters.dtype == np.float32


def test_a_contribution_is_close_to_the_cpus(device, make_trainer, run_epoch):
    ours, theirs = run_epoch(make_trainer(device=device)), run_epoch(make_trainer())
    np.testing.assert_allclose(ours.values, theirs.values, atol=1e-4)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(
    device, make_trainer, run_epoch, configs, manifest, tmp_path
):
    config = configs["gpt2"] | {"resid_pdrop": 0.3}
    trainer = make_trainer(device=device, config=config)
    run_epoch(trainer)
    store = CheckpointStore(tmp_path, MANIFEST_HASH, keep=1)
    store.save(
        Checkpoint(
            state=trainer.state,
            state_root=trainer.state.root(MANIFEST_HASH),
            generation=0,
            place=trainer.place,
            certificate=None,
            code_version="0.1.0",
        )
    )
    slots = initial_slots(manifest.optimizer, trainer.state.schema.elements)
    saved = store.load_newest(trainer.state.schema, slots, pytest.fail)
    first = run_epoch(trainer)
    resumed = make_trainer(device=device, config=config, state=saved.state, place=saved.place)
    second = run_epoch(resumed)
    assert set(resumed.place.rng) == {"cpu", device.type}
    for kind, states in trainer.place.rng.items():
        assert np.array_equal(resumed.place.rng[kind], states)
    assert dataclasses.replace(resumed.place, rng={}) == dataclasses.replace(trainer.place, rng={})
    np.testing.assert_allclose(second.values, first.values, atol=1e-5)
    np.testing.assert_allclose(resumed.state.parameters, trainer.state.parameters, atol=1e-5)


def test_out_of_memory_halves_the_micro_batch_and_training_goes_on(
    device, make_trainer, make_spoiled_task, run_epoch
):
    events = []
    task = make_spoiled_task(2, lambda _loss: torch.empty(1 << 50, device=device))
    trainer = make_trainer(device=device, task=task, micro_batch=4, events=events)
    contribution = run_epoch(trainer)
    assert [event.samples_after for event in events if isinstance(event, MicroBatchChanged)] == [2]
    reference = run_epoch(make_trainer(device=device, micro_batch=2))
    np.testing.assert_allclose(contribution.values, reference.values, atol=1e-5)


def test_a_pause_frees_the_devices_memory_and_keeps_the_contribution(
    device, make_trainer, run_epoch, large
):
    reference = run_epoch(make_trainer(device=device, config=large))
    before = allocated_bytes(device)
    steps = iter([False, True])
    trainer = make_trainer(device=device, config=large)
    assert not trainer.work(lambda: next(steps))
    held = allocated_bytes(device)
    trainer.suspend()
    assert all(p.device.type == "cpu" for p in trainer._bench.model.parameters())
    if device.type == "cuda":
        parameters_and_gradients = 2 * trainer.state.parameters.nbytes
        assert held - before >= parameters_and_gradients
        assert held - allocated_bytes(device) >= parameters_and_gradients
    trainer.awaken()
    assert all(p.device.type == device.type for p in trainer._bench.model.parameters())
    assert trainer.tally.samples == 2
    np.testing.assert_allclose(run_epoch(trainer).values, reference.values, atol=1e-5)
