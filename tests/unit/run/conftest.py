"""What the tests of a run share: a full manifest, any manifest, and a run on the disk."""

import pytest
from hypothesis import strategies as st

from peer.run.directory import RunDirectory, add_blob
from peer.run.manifest import (
    SGD,
    AdamW,
    AveragingSection,
    BatchSection,
    DataSection,
    EvaluationSection,
    Manifest,
    ModelSection,
    ScheduleSection,
    TaskSection,
    TokenizerSection,
    ValidationSection,
)

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"

hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
words = st.text(LOWER, min_size=1, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0.0, 1e6, exclude_min=True)
fractions = st.floats(0.0, 1.0)
betas = st.floats(0.0, 1.0, exclude_max=True)
options = st.booleans() | st.integers(-(2**70), 2**70) | finite | st.text(max_size=20)


@st.composite
def schedules(draw):
    warmup = draw(st.integers(0, 10**8))
    decay = draw(st.sampled_from(["constant", "linear", "inverse-sqrt"]))
    total = draw(st.integers(warmup + 1, 10**9)) if decay == "linear" else None
    return ScheduleSection(
        warmup_epochs=warmup, decay=decay, total_epochs=total, floor=draw(fractions)
    )


optimizers = st.builds(
    AdamW,
    lr=positive,
    beta1=betas,
    beta2=betas,
    eps=positive,
    weight_decay=fractions,
    max_grad_norm=st.none() | positive,
) | st.builds(
    SGD,
    name=st.just("sgd"),
    lr=positive,
    momentum=betas,
    nesterov=st.booleans(),
    weight_decay=fractions,
    max_grad_norm=st.none() | positive,
)


@pytest.fixture(scope="session")
def manifests():
    """Return a strategy of manifests."""
    return st.builds(
        Manifest,
        name=words,
        founders=st.lists(st.text(BASE58, min_size=46, max_size=46), min_size=1, max_size=3),
        initial_state=hashes,
        task=st.builds(
            TaskSection,
            name=words,
            sequence_length=st.integers(8, 65536),
            options=st.dictionaries(words, options, max_size=4),
        ),
        model=st.builds(ModelSection, config=hashes),
        tokenizer=st.builds(
            TokenizerSection,
            files=st.dictionaries(words.map(lambda word: f"{word}.json"), hashes, max_size=2),
        ),
        data=st.builds(DataSection, index=hashes),
        optimizer=optimizers,
        schedule=schedules(),
        batch=st.builds(BatchSection, target_loss_terms=st.integers(1, 10**12)),
        averaging=st.builds(AveragingSection, codec=st.sampled_from(["none", "fp16", "int8"])),
        evaluation=st.builds(
            EvaluationSection,
            max_rows=st.integers(1, 10**6),
            baselines=st.dictionaries(words, finite, max_size=2),
        ),
        validation=st.builds(
            ValidationSection,
            every_epochs=st.integers(0, 10**9),
            margin=positive,
            tolerance=positive,
            rows=st.integers(32, 100_000),
        ),
    )


@pytest.fixture
def make_run(identities):
    """Write a run with blobs into a folder, founded by the first peer, and return it."""

    def make(path):
        path.mkdir(parents=True)
        manifest = Manifest(
            name="tiny",
            founders=(identities[0].peer_id,),
            initial_state=add_blob(path, b"initial state" * 50),
            task=TaskSection(name="causal-lm", sequence_length=16),
            model=ModelSection(config=add_blob(path, b'{"model_type": "gpt2"}')),
            tokenizer=TokenizerSection(files={"tokenizer.json": add_blob(path, b"{}")}),
            data=DataSection(index=add_blob(path, b'{"shards": []}')),
            optimizer=AdamW(lr=1e-2),
            batch=BatchSection(target_loss_terms=128),
        )
        return RunDirectory.create(path, manifest)

    return make
