"""The state root names the state and nothing else; an initial state fits or is refused."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import ConfigurationError
from peer.training.state import (
    CHUNK_BYTES,
    GlobalState,
    Schema,
    StateHeader,
    TensorSpec,
    check_initial_state,
    chunk_hashes,
    initial_state_bytes,
    read_initial_state,
    root_of,
)

SCHEMA = Schema((TensorSpec("bias", (3,)), TensorSpec("scale", ()), TensorSpec("weight", (2, 4))))
MANIFEST = "ab" * 32


def make_state():
    draw = np.random.default_rng(0)
    return GlobalState(
        epoch=5,
        schema=SCHEMA,
        parameters=draw.normal(size=12).astype(np.float32),
        optimizer={
            "exp_avg": draw.normal(size=12).astype(np.float32),
            "exp_avg_sq": draw.normal(size=12).astype(np.float32),
            "beta_powers": np.array([0.5, 0.25]),
        },
    )


def renamed(old, new):
    specs = (dataclasses.replace(s, name=new) if s.name == old else s for s in SCHEMA.tensors)
    return Schema(tuple(specs))


def reshaped(name, shape):
    specs = (dataclasses.replace(s, shape=shape) if s.name == name else s for s in SCHEMA.tensors)
    return Schema(tuple(specs))


def test_the_root_is_the_hash_of_a_canonical_header():
    parameters, momentum = np.array([0.0, 1.0, -2.0, 0.5], np.float32), np.zeros(4, np.float32)
    state = GlobalState(
        epoch=1,
        schema=Schema((TensorSpec("w", (2, 2)),)),
        parameters=parameters,
        optimizer={"momentum": momentum},
    )
    first, second = (hashlib.sha256(b.tobytes()).hexdigest() for b in (parameters, momentum))
    header = (
        f'{{"buffers":[["parameters","<f4",["{first}"]],["optimizer.momentum","<f4",["{second}"]]],'
        f'"chunk_bytes":1048576,"epoch":1,"manifest":"{MANIFEST}","tensors":[["w",[2,2]]]}}'
    )
    expected = hashlib.sha256(b"ctpeer state root\n" + header.encode()).hexdigest()
    assert state.root(MANIFEST) == expected


@given(st.sampled_from(["parameters", "exp_avg", "exp_avg_sq", "beta_powers"]), st.data())
def test_one_flipped_bit_of_any_buffer_changes_the_root(name, data):
    state = make_state()
    before = state.root(MANIFEST)
    buffer = state.parameters if name == "parameters" else state.optimizer[name]
    bits = buffer.view(np.uint8)
    place = data.draw(st.integers(0, len(bits) * 8 - 1))
    bits[place // 8] ^= 1 << place % 8
    assert state.root(MANIFEST) != before


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 6},
        {"schema": renamed("bias", "biases")},
        {"schema": reshaped("weight", (4, 2))},
        {"schema": reshaped("weight", (8,))},
        {"optimizer": {}},
        {"optimizer": make_state().optimizer | {"more": np.zeros(1)}},
        {"parameters": make_state().parameters.astype(np.float64)},
    ],
    ids=["epoch", "name", "transposed", "flat", "no-optimizer", "more-optimizer", "dtype"],
)
def test_another_epoch_schema_or_buffer_changes_the_root(change):
    state = make_state()
    assert dataclasses.replace(state, **change).root(MANIFEST) != state.root(MANIFEST)


def test_another_manifest_changes_the_root():
    assert make_state().root(MANIFEST) != make_state().root("cd" * 32)


def test_buffers_under_each_others_names_change_the_root():
    state = make_state()
    swapped = dict(state.optimizer)
    swapped["exp_avg"], swapped["exp_avg_sq"] = swapped["exp_avg_sq"], swapped["exp_avg"]
    assert dataclasses.replace(state, optimizer=swapped).root(MANIFEST) != state.root(MANIFEST)


def test_nothing_else_changes_the_root():
    state = make_state()
    root = state.root(MANIFEST)
    reordered = dict(reversed(state.optimizer.items()))
    assert dataclasses.replace(state, optimizer=reordered).root(MANIFEST) == root
    read_only = state.parameters.copy()
    read_only.flags.writeable = False
    assert dataclasses.replace(state, parameters=read_only).root(MANIFEST) == root
    big_endian = state.parameters.astype(">f4")
    assert list(chunk_hashes(big_endian)) == list(chunk_hashes(state.parameters))
    assert state.root(MANIFEST) == root


def test_a_header_is_whole_after_a_journey_and_has_the_root_of_its_state():
    state = make_state()
    header = StateHeader.from_bytes(state.header(MANIFEST).to_bytes())
    assert header == state.header(MANIFEST)
    assert root_of(header) == state.root(MANIFEST)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"epoch":5', b'"epoch":5.0'),
        (b'"epoch":5', b'"epoch": 5'),
        (b'"epoch":5', b'"epoch":true'),
        (b'"epoch":5', b'"epoch":"5"'),
        (b'"epoch":5', b'"epoch":5,"epoch":5'),
        (b'"epoch":5', b'"epoch":5,"fpoch":5'),
        (b'"epoch":5,', b""),
        (b'["bias",[3]]', b'["bias",3]'),
        (b'["bias",[3]]', b'["bias",[3],0]'),
        (b"{", b"[" * 100_000),
    ],
)
def test_another_spelling_is_no_header(old, new):
    data = make_state().header(MANIFEST).to_bytes()
    assert old in data
    with pytest.raises(ValueError, match=r"canonical|validation error"):
        StateHeader.from_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_each_chunk_has_a_hash_of_its_own(extra):
    buffer = np.zeros(2 * CHUNK_BYTES // 4 + extra, np.float32)
    before = list(chunk_hashes(buffer))
    assert len(before) == 2 + (extra > 0)
    buffer[-1] = 1.0
    changed = [a != b for a, b in zip(before, chunk_hashes(buffer), strict=True)]
    assert changed == [False] * (len(before) - 1) + [True]


def test_a_schema_is_ordered_by_name_and_names_a_tied_tensor_as_the_model_does():
    model = torch.nn.ModuleDict({"z": torch.nn.Linear(2, 3), "a": torch.nn.Linear(2, 3)})
    model["z"].weight = model["a"].weight
    assert Schema.of(model).tensors == (
        TensorSpec("a.bias", (3,)),
        TensorSpec("z.bias", (3,)),
        TensorSpec("z.weight", (3, 2)),
    )


def test_the_initial_state_of_a_model_reads_back_bit_for_bit(make_task, configs):
    model = make_task().build_model(configs["gpt2"])
    schema, data = Schema.of(model), initial_state_bytes(model)
    named = schema.named(read_initial_state(data, schema))
    check_initial_state(data, model)
    assert data == initial_state_bytes(model)
    for name, parameter in model.named_parameters():
        assert named[name].tobytes() == parameter.detach().numpy().tobytes()


def tensors():
    return SCHEMA.named(np.arange(12, dtype=np.float32))


def save(changed):
    return safetensors.numpy.save(tensors() | changed)


def without(name):
    return safetensors.numpy.save({key: t for key, t in tensors().items() if key != name})


NOT_A_NUMBER = np.array([1, math.nan, 1], np.float32)
INFINITE = np.array([1, math.inf, 1], np.float32)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (without("bias"), "lacks the parameter 'bias'"),
        (save({"gamma": np.zeros(3, np.float32)}), "holds 'gamma', which the model does not have"),
        (save({"bias": np.zeros(4, np.float32)}), r"'bias' as float32 \[4\].*float32 \[3\]"),
        (save({"bias": np.zeros((3, 1), np.float32)}), r"'bias' as float32 \[3, 1\]"),
        (save({"weight": np.zeros((4, 2), np.float32)}), r"'weight' as float32 \[4, 2\]"),
        (save({"scale": np.zeros(1, np.float32)}), r"'scale' as float32 \[1\].*float32 \[\]"),
        (save({"bias": np.zeros(3, np.float64)}), r"'bias' as float64 \[3\]"),
        (save({"bias": np.zeros(3, np.float16)}), r"'bias' as float16 \[3\]"),
        (save({"bias": NOT_A_NUMBER}), "numbers that are not finite"),
        (save({"bias": INFINITE}), "numbers that are not finite"),
        (safetensors.torch.save({"bias": torch.zeros(3, dtype=torch.bfloat16)}), "BF16"),
        (b"", "is not a safetensors file"),
        (b"\xff" * 100, "is not a safetensors file"),
        (save({})[:-1], "is not a safetensors file"),
        (save({}) + b"\0", "is not a safetensors file"),
    ],
)
def test_an_initial_state_that_does_not_fit_is_refused(data, reason):
    with pytest.raises(ConfigurationError, match=f"the initial state .*{reason}"):
        read_initial_state(data, SCHEMA)


WHOLE = save({})


@given(st.integers(0, len(WHOLE) * 8 - 1))
def test_a_flipped_bit_in_an_initial_state_gives_finite_numbers_or_a_refusal(place):
    data = bytearray(WHOLE)
    data[place // 8] ^= 1 << place % 8
    try:
        values = read_initial_state(bytes(data), SCHEMA)
    except ConfigurationError:
        return
    assert np.isfinite(values).all()


def test_an_initial_state_of_another_model_is_refused(make_task, configs):
    task = make_task()
    data = initial_state_bytes(task.build_model(configs["gpt2"]))
    with pytest.raises(ConfigurationError):
        check_initial_state(data, task.build_model(configs["llama"]))
