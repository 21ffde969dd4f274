"""What a validator measures, and that training beside it does not notice."""

import concurrent.futures
import itertools
import math
import threading

import numpy as np
import pytest
import torch

from peer.clock import FakeClock
from peer.run.manifest import ValidationSection
from peer.tasks.causal_lm import CausalLM
from peer.tasks.task import HeldOutRows
from peer.training.evaluation import Evaluator
from peer.training.state import Schema, load_parameters

TOLERANCE = ValidationSection().tolerance
KINDS = {"gpt2": "causal-lm", "llama": "causal-lm", "bert": "masked-lm"}
CPU = torch.device("cpu")


class Ended(Exception):  # noqa: N818 it is no error
    pass


@pytest.fixture
def make_case(make_task, configs, heldout):
    """Return a task, a model that has learned nothing but is far from even, its state, and rows."""

    def make(kind="gpt2"):
        task = make_task(KINDS[kind])
        torch.manual_seed(3)
        model = task.build_model(configs[kind] | {"attn_implementation": "sdpa"})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8.0)
        schema = Schema.of(model)
        named = dict(model.named_parameters())
        flat = np.concatenate([named[s.name].detach().numpy().ravel() for s in schema.tensors])
        return task, model, schema, flat, heldout(task, 0)

    return make


@pytest.fixture
def gpt2(make_case, configs):
    """Return an evaluator with keywords of one's own, a state, rows and chunks of them."""
    task, _, schema, flat, rows = make_case()

    def make(task=task, **given):
        return Evaluator(task, configs["gpt2"], schema, CPU, **{"share": 1.0, **given})

    return make, flat, rows, chunks_of(rows)


@pytest.fixture
def shared_generator():
    """Return a number that a thread of its own drew from torch's global generator."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield lambda: pool.submit(lambda: float(torch.rand(()))).result()


@pytest.fixture
def make_short_task(make_task):
    """Return a causal task that has memory for `rows` rows at once, and notes how many it got."""

    class ShortLM(CausalLM):
        def __init__(self, rows):
            self.__dict__.update(make_task().__dict__)
            self.rows, self.tried = rows, []

        def loss(self, model, batch):
            self.tried.append(batch.samples)
            if batch.samples > self.rows:
                torch.empty(1 << 60)
            return super().loss(model, batch)

    return ShortLM


def chunks_of(rows, size=7):
    """Return chunks of unlike order and length that hold every row once."""
    order = np.random.default_rng(0).permutation(len(rows.rows)).tolist()
    return [tuple(order[i : i + size]) for i in range(0, len(order), size)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunks_loss_is_what_the_task_evaluates_on_its_rows(make_case, configs, kind):
    task, model, schema, flat, rows = make_case(kind)
    evaluator = Evaluator(task, configs[kind], schema, CPU, share=1.0)
    chunks = chunks_of(rows)
    found = evaluator.losses(flat, rows, chunks)
    for chunk, loss in zip(chunks, found, strict=True):
        picked = HeldOutRows([rows.rows[i] for i in chunk], 1)
        assert loss == pytest.approx(task.evaluate(model, picked, CPU).metrics["loss"], abs=1e-5)
    assert max(found) - min(found) > 100 * TOLERANCE


def test_its_model_has_eager_attention_and_is_in_fp32(gpt2):
    make, flat, rows, chunks = gpt2
    evaluator = make()
    evaluator.losses(flat, rows, chunks)
    assert evaluator._model.config._attn_implementation == "eager"
    assert {parameter.dtype for parameter in evaluator._model.parameters()} == {torch.float32}
    assert not evaluator._model.training


def test_the_same_state_has_the_same_losses_every_time(gpt2):
    make, flat, rows, chunks = gpt2
    evaluator = make()
    first = evaluator.losses(flat, rows, chunks)
    other = evaluator.losses(np.zeros_like(flat), rows, chunks)
    assert evaluator.losses(flat, rows, chunks) == first != other
    evaluator.release()
    assert evaluator.losses(flat, rows, chunks) == first
    assert make().losses(flat, rows, chunks) == first


def test_dropout_is_off(make_case, configs):
    task, _, schema, flat, rows = make_case()
    config = configs["gpt2"] | {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    chunks = chunks_of(rows)
    dropping = Evaluator(task, config, schema, CPU, share=1.0).losses(flat, rows, chunks)
    assert dropping == Evaluator(task, configs["gpt2"], schema, CPU, 1.0).losses(flat, rows, chunks)


def test_autocast_around_it_changes_nothing(gpt2):
    make, flat, rows, chunks = gpt2
    expected = make().losses(flat, rows, chunks)
    with torch.autocast("cpu", torch.bfloat16):
        assert make().losses(flat, rows, chunks) == expected


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("batch_rows", [1, 2, 64])
def test_threads_and_batches_stay_within_the_tolerance(gpt2, threads, batch_rows):
    make, flat, rows, chunks = gpt2
    expected = make().losses(flat, rows, chunks)
    torch.set_num_threads(threads)
    try:
        other = make(batch_rows=batch_rows).losses(flat, rows, chunks)
    finally:
        torch.set_num_threads(1)
    np.testing.assert_allclose(other, expected, rtol=0.0, atol=TOLERANCE / 5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("where", [slice(None), slice(0, 1)])
def test_parameters_that_make_no_sense_have_a_loss_that_is_not_finite(gpt2, value, where):
    make, flat, rows, chunks = gpt2
    evaluator, spoiled = make(), flat.copy()
    spoiled[where] = value
    expected = evaluator.losses(flat, rows, chunks)
    assert not np.isfinite(evaluator.losses(spoiled, rows, chunks)).any()
    assert evaluator.losses(flat, rows, chunks) == expected


def test_a_chunk_without_loss_terms_says_nothing(gpt2):
    make, flat, rows, _ = gpt2
    key, row = rows.rows[0]
    lone = HeldOutRows([(key, row), (key, row[:1])], 1)
    with_terms, without = make().losses(flat, lone, [(0, 1), (1,)])
    assert with_terms > 0.0
    assert without == 0.0


def test_others_draw_the_numbers_that_they_would_have_drawn(
    gpt2, make_task, shared_generator, monkeypatch
):
    make, flat, rows, chunks = gpt2
    task, drawn = make_task(), []
    build = task.build_model

    def drawing_build(config):
        drawn.append(shared_generator())
        model = build(config)
        drawn.append(shared_generator())
        return model

    monkeypatch.setattr(task, "build_model", drawing_build)
    torch.manual_seed(5)
    make(task).losses(flat, rows, chunks, between=lambda: drawn.append(shared_generator()))
    drawn.append(shared_generator())
    assert len(drawn) > len(chunks)
    torch.manual_seed(5)
    assert drawn == [float(torch.rand(())) for _ in drawn]


def test_training_beside_it_is_what_it_would_have_been(make_trainer, configs, heldout, run_epoch):
    config = configs["gpt2"] | {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3}
    roots = []
    for validates in (False, True):
        trainer = make_trainer(config=config)
        task = trainer._bench.task
        evaluator = Evaluator(task, config, trainer.state.schema, CPU, share=0.9)
        ended, flat, rows = threading.Event(), trainer.state.parameters.copy(), heldout(task, 0)

        def score(evaluator=evaluator, ended=ended, flat=flat, rows=rows):
            while not ended.is_set():
                evaluator.losses(flat, rows, chunks_of(rows))
                evaluator.release()

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            beside = pool.submit(score) if validates else None
            for _ in range(20):
                run_epoch(trainer)
            ended.set()
            if beside:
                beside.result()
        roots.append(trainer.state.root("ab" * 32))
    assert roots[0] == roots[1]


def test_the_training_model_is_not_touched(make_case, configs):
    task, model, schema, flat, rows = make_case()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    evaluator = Evaluator(task, configs["gpt2"], schema, CPU, share=1.0)
    evaluator.losses(np.zeros_like(flat), rows, chunks_of(rows))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_it_ends_when_between_raises_and_can_begin_again(gpt2):
    make, flat, rows, chunks = gpt2
    evaluator, calls = make(), itertools.count()

    def between():
        if next(calls) == 2:
            raise Ended

    with pytest.raises(Ended):
        evaluator.losses(flat, rows, chunks, between)
    assert next(calls) == 3
    assert evaluator.losses(flat, rows, chunks) == make().losses(flat, rows, chunks)


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_it_computes_for_no_more_than_its_share_of_the_time(gpt2, make_task, share):
    make, flat, rows, chunks = gpt2
    clock, slept, asked_s = FakeClock(), [], []

    class SlowLM(CausalLM):
        def __init__(self):
            self.__dict__.update(make_task().__dict__)

        def loss(self, model, batch):
            clock.advance(2.0)
            return super().loss(model, batch)

    def sleep(seconds):
        slept.append(seconds)
        clock.advance(seconds)

    evaluator = make(SlowLM(), share=share, clock=clock.monotonic_s, sleep=sleep)
    evaluator.losses(flat, rows, chunks, lambda: asked_s.append(clock.monotonic_s()))
    busy_s = 2.0 * len(chunks)
    assert busy_s / clock.monotonic_s() == pytest.approx(share)
    assert sum(slept) == pytest.approx(busy_s / share - busy_s)
    assert all(b - a <= 2.0 for a, b in itertools.pairwise(asked_s))


def test_out_of_memory_goes_on_row_by_row_until_it_is_released(gpt2, make_short_task):
    make, flat, rows, chunks = gpt2
    expected, task = make().losses(flat, rows, chunks), make_short_task(1)
    evaluator = make(task)
    found = evaluator.losses(flat, rows, chunks)
    assert task.tried == [7] + [1] * len(rows.rows)
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=TOLERANCE / 5)
    evaluator.release()
    task.rows, task.tried = 64, []
    assert evaluator.losses(flat, rows, chunks) == expected
    assert task.tried[0] == 7


def test_out_of_memory_for_one_row_is_raised(gpt2, make_short_task):
    make, flat, rows, chunks = gpt2
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        make(make_short_task(0)).losses(flat, rows, chunks)


def test_another_error_is_raised_at_once(gpt2, make_spoiled_task):
    make, flat, rows, chunks = gpt2
    task = make_spoiled_task(1, lambda _loss: torch.ones(2, 3) @ torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        make(task).losses(flat, rows, chunks)


def test_parameters_are_loaded_by_name_into_a_model(make_case):
    _, model, schema, flat, _ = make_case()
    load_parameters(model, schema, flat * 2.0)
    named = dict(model.named_parameters())
    for name, values in schema.named(flat * 2.0).items():
        assert np.array_equal(named[name].detach().numpy(), values)
