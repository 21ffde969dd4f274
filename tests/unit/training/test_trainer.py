"""Micro-batches into a contribution, an average into the next epoch, and what can go wrong."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from peer.events import MicroBatchChanged, Progress, RoundFailure, WorkRepeated
from peer.training.certificate import Base
from peer.training.contribution import flat_gradient
from peer.training.round import Failed, LoneRounds

MANIFEST = "ab" * 32


def never():
    return False


@pytest.fixture(scope="module")
def rounds(identities):
    return LoneRounds(identities[0], "none")


@pytest.fixture
def dropping(configs):
    """Return a configuration with dropout, so that every step draws random numbers."""
    return configs["gpt2"] | {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3}


def allocate_too_much(_loss):
    return torch.empty(1 << 60)


def fail_otherwise(_loss):
    return torch.ones(2, 3) @ torch.ones(2, 3)


def full_batch_gradient(trainer, make_stream, samples):
    """Return the gradient of the mean loss of the first `samples` rows, taken in one batch."""
    bench = trainer._bench
    batch = bench.task.collate(make_stream(bench.task).take(samples))
    bench.model.zero_grad()
    (bench.task.loss(bench.model, batch) / batch.loss_terms).backward()
    return flat_gradient(bench.model, trainer.state.schema), batch


@pytest.mark.parametrize("name", ["causal-lm", "masked-lm"])
@pytest.mark.parametrize("micro_batch", [1, 3, 5, 50])
def test_a_contribution_is_the_full_batch_gradient_whatever_the_micro_batch(
    make_trainer, make_task, make_stream, configs, name, micro_batch
):
    config = configs["gpt2" if name == "causal-lm" else "bert"]
    trainer = make_trainer(task=make_task(name), config=config, micro_batch=micro_batch, target=100)
    assert trainer.work(never)
    contribution = trainer.contribution("root")
    expected, batch = full_batch_gradient(trainer, make_stream, contribution.samples)
    assert contribution.weight == batch.loss_terms >= 100
    assert contribution.tokens == batch.tokens
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(contribution.values, expected, atol=1e-5)


@pytest.mark.parametrize(("micro_batch", "samples"), [(1, 3), (2, 3), (64, 3)])
def test_an_epoch_takes_no_more_rows_than_its_target_needs(make_trainer, micro_batch, samples):
    trainer = make_trainer(micro_batch=micro_batch, target=33)
    assert trainer.work(never)
    assert trainer.tally.weight == 48
    assert trainer.tally.samples == trainer.samples_total == samples
    assert trainer.work(never)
    assert trainer.tally.weight == 48


def test_interrupted_work_is_kept_and_goes_on(make_trainer):
    steps = iter([False, False, True])
    trainer, other = make_trainer(), make_trainer()
    assert not trainer.work(lambda: next(steps))
    assert trainer.tally.samples == 4
    assert trainer.work(never)
    assert other.work(never)
    assert trainer.contribution("r").values.tobytes() == other.contribution("r").values.tobytes()


def test_progress_adds_up_to_the_contributions(make_trainer, run_epoch):
    events = []
    trainer = make_trainer(events=events)
    contribution = [run_epoch(trainer) for _ in range(2)][-1]
    assert {type(event) for event in events} == {Progress}
    assert sum(event.samples for event in events) == 2 * contribution.samples
    assert sum(event.tokens for event in events) == 2 * contribution.tokens
    assert events[-1].contribution_samples == contribution.samples
    assert events[-1].contribution_weight == contribution.weight
    assert contribution.loss == pytest.approx(math.log(300), rel=0.05)


def test_a_committed_round_begins_the_next_epoch_with_the_new_parameters(make_trainer, run_epoch):
    trainer = make_trainer()
    before = trainer.state.parameters.copy()
    contribution = run_epoch(trainer)
    assert trainer.state.epoch == 1
    assert not np.array_equal(trainer.state.parameters, before)
    model = dict(trainer._bench.model.named_parameters())
    for name, values in trainer.state.schema.named(trainer.state.parameters).items():
        assert np.array_equal(model[name].detach().numpy(), values)
    assert trainer.tally.weight == 0
    assert not flat_gradient(trainer._bench.model, trainer.state.schema).any()
    assert trainer.place.samples_total == contribution.samples
    assert trainer.place.cursor == trainer._bench.stream.cursor


def test_training_lowers_the_loss_on_its_text(make_trainer, make_task, heldout, run_epoch):
    trainer, rows = make_trainer(), heldout(make_task(), 0)
    before = trainer.evaluate(rows)
    for _ in range(20):
        run_epoch(trainer)
    assert trainer.evaluate(rows).value < 0.9 * before.value


def test_two_contributions_have_two_names(make_trainer, run_epoch):
    trainer = make_trainer()
    names = {run_epoch(trainer).contribution_id for _ in range(3)}
    assert len(names) == 3


def test_a_contribution_that_is_not_finite_is_a_failed_round_and_training_goes_on(
    make_trainer, rounds, run_epoch, make_spoiled_task
):
    task = make_spoiled_task(2, lambda loss: loss * math.nan)
    trainer = make_trainer(task=task)
    root = trainer.state.root(MANIFEST)
    assert trainer.work(never)
    failed = rounds.run(Base("tiny", 0, 0, root), trainer.contribution(root), never)
    assert isinstance(failed, Failed)
    assert failed.failure is RoundFailure.NOT_FINITE
    assert not failed.keep
    trainer.discard()
    assert (trainer.state.epoch, trainer.tally.weight) == (0, 0)
    assert trainer.state.root(MANIFEST) == root
    after_discard = trainer._bench.stream.cursor
    assert trainer.place.cursor == after_discard
    contribution = run_epoch(trainer)
    assert trainer.state.epoch == 1
    assert np.isfinite(contribution.values).all()
    assert np.isfinite(trainer.state.parameters).all()


@pytest.mark.parametrize("at", [1, 2, 3])
def test_out_of_memory_halves_the_micro_batch_and_repeats_the_epochs_work(
    make_trainer, dropping, at, make_spoiled_task
):
    events = []
    task = make_spoiled_task(at, allocate_too_much)
    trainer = make_trainer(task=task, config=dropping, micro_batch=4, target=256, events=events)
    reference = make_trainer(config=dropping, micro_batch=2, target=256)
    for each in (reference, trainer):
        torch.set_rng_state(torch.from_numpy(each.place.rng["cpu"]))
        assert each.work(never)
    lost = 4 * (at - 1)
    assert [event for event in events if not isinstance(event, Progress)] == [
        MicroBatchChanged(samples_before=4, samples_after=2, reason="out of memory"),
        WorkRepeated(samples=lost, tokens=16 * lost),
    ]
    ours, theirs = trainer.contribution("root"), reference.contribution("root")
    assert (ours.samples, ours.tokens) == (theirs.samples, theirs.tokens) == (16, 256)
    assert ours.values.tobytes() == theirs.values.tobytes()
    assert trainer._bench.stream.cursor == reference._bench.stream.cursor
    assert trainer.samples_total == 16
    assert sum(e.samples for e in events if isinstance(e, Progress)) == 16 + lost


def test_out_of_memory_half_way_through_backward_leaves_no_trace(make_trainer):
    trainer, reference = make_trainer(micro_batch=4), make_trainer(micro_batch=2)
    torch_block = trainer._bench.model.transformer.h[0]

    def fail_once(_module, _inputs, _outputs):
        hook.remove()
        torch.empty(1 << 60)

    hook = torch_block.register_full_backward_hook(fail_once)
    assert trainer.work(never)
    assert reference.work(never)
    assert trainer.micro_batch == trainer.place.micro_batch == 2
    ours, theirs = trainer.contribution("root"), reference.contribution("root")
    assert ours.values.tobytes() == theirs.values.tobytes()


def test_out_of_memory_in_a_later_epoch_repeats_only_that_epoch(
    make_trainer, run_epoch, make_spoiled_task
):
    events = []
    task = make_spoiled_task(7, allocate_too_much)
    trainer = make_trainer(task=task, micro_batch=2, target=128, events=events)
    run_epoch(trainer)
    after_first = trainer.place.cursor
    run_epoch(trainer)
    (repeated,) = [event for event in events if isinstance(event, WorkRepeated)]
    assert repeated == WorkRepeated(samples=4, tokens=64)
    assert after_first.row == 8
    assert trainer.place.cursor.row == trainer.samples_total == 16


def test_out_of_memory_at_one_sample_is_raised(make_trainer, make_spoiled_task):
    trainer = make_trainer(task=make_spoiled_task(2, allocate_too_much), micro_batch=1)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        trainer.work(never)


def test_another_error_is_raised_and_changes_no_micro_batch(make_trainer, make_spoiled_task):
    trainer = make_trainer(task=make_spoiled_task(2, fail_otherwise), micro_batch=4)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        trainer.work(never)
    assert trainer.micro_batch == 4


def test_resuming_at_an_epoch_repeats_it_bit_for_bit(make_trainer, dropping, run_epoch):
    trainer = make_trainer(config=dropping)
    run_epoch(trainer)
    state = dataclasses.replace(
        trainer.state,
        parameters=trainer.state.parameters.copy(),
        optimizer={name: slot.copy() for name, slot in trainer.state.optimizer.items()},
    )
    place = trainer.place
    first = run_epoch(trainer)
    resumed = make_trainer(config=dropping, state=state, place=place)
    assert resumed.samples_total == place.samples_total
    second = run_epoch(resumed)
    assert second.contribution_id == first.contribution_id
    assert second.values.tobytes() == first.values.tobytes()
    assert resumed.state.root(MANIFEST) == trainer.state.root(MANIFEST)
    assert resumed.place.cursor == trainer.place.cursor
    assert np.array_equal(resumed.place.rng["cpu"], trainer.place.rng["cpu"])


def test_evaluating_between_micro_batches_changes_nothing(
    make_trainer, make_task, heldout, dropping
):
    rows, steps = heldout(make_task()), iter([False, True])
    trainer, other = make_trainer(config=dropping), make_trainer(config=dropping)
    for each in (other, trainer):
        torch.set_rng_state(torch.from_numpy(each.place.rng["cpu"]))
        if each is trainer:
            assert not each.work(lambda: next(steps))
            assert each.evaluate(rows).value > 0.0
        assert each.work(never)
    assert trainer.contribution("r").values.tobytes() == other.contribution("r").values.tobytes()


def test_a_pause_takes_all_of_the_model_off_the_device_and_gives_its_memory_back(
    make_trainer, monkeypatch
):
    steps, moved, released = iter([False, True]), [], []
    trainer = make_trainer()
    assert not trainer.work(lambda: next(steps))
    model = trainer._bench.model
    to = model.to
    monkeypatch.setattr(model, "to", lambda where: (moved.append(str(where)), to(where)))
    monkeypatch.setattr("peer.training.trainer.release", released.append)
    trainer.suspend()
    assert (moved, released) == (["cpu"], [trainer.device])
    tensors = [t for p in model.parameters() for t in (p, p.grad)]
    assert {str(t.device) for t in tensors if t is not None} == {"cpu"}
    trainer.awaken()
    assert moved == ["cpu", str(trainer.device)]


def test_a_pause_keeps_the_contribution(make_trainer):
    steps = iter([False, True])
    trainer, other = make_trainer(), make_trainer()
    assert not trainer.work(lambda: next(steps))
    trainer.suspend()
    trainer.awaken()
    assert trainer.work(never)
    assert other.work(never)
    assert trainer.contribution("r").values.tobytes() == other.contribution("r").values.tobytes()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_low_precision_contribution_is_close_to_that_in_fp32(make_trainer, precision, run_epoch):
    low, high = make_trainer(precision=precision), make_trainer()
    ours, theirs = run_epoch(low), run_epoch(high)
    assert ours.values.dtype == np.float32
    assert ours.values.tobytes() != theirs.values.tobytes()
    error = np.linalg.norm(ours.values - theirs.values) / np.linalg.norm(theirs.values)
    assert error < 0.05
    assert ours.loss == pytest.approx(theirs.loss, rel=0.01)
    assert low.state.parameters.dtype == np.float32


def test_a_discarded_fp16_contribution_halves_the_scale_that_the_next_start_takes_up(make_trainer):
    trainer = make_trainer(precision="fp16")
    assert trainer.work(never)
    trainer.discard()
    assert trainer.place.loss_scale == 128.0
    resumed = make_trainer(precision="fp16", state=trainer.state, place=trainer.place)
    assert resumed._bench.autocast.scale == 128.0


def test_a_place_with_another_micro_batch_is_the_same_place(make_trainer, run_epoch):
    trainer = make_trainer()
    run_epoch(trainer)
    place = trainer.place
    other = place.with_micro_batch(7)
    assert other.micro_batch == 7
    assert dataclasses.replace(other, micro_batch=place.micro_batch) == place
