"""What tests of several layers share: real nodes, a tiny tokenizer, tasks, models, a manifest."""

import hashlib
import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from peer.data.demo import DEMO_PATH
from peer.data.index import Shard, parse_index
from peer.data.source import ShardSources
from peer.data.stream import Stream
from peer.data.tokens import TokenCache
from peer.events import Loaded, ShardChoice
from peer.identity import Identity, peer_id_of
from peer.run.manifest import (
    AdamW,
    BatchSection,
    DataSection,
    Manifest,
    ModelSection,
    TaskSection,
    TokenizerSection,
)

WITH_PROCESSES = {"benchmarks", "boot", "browser", "contract", "faults", "swarm"}
SEQUENCE_LENGTH = 16
VOCABULARY = 300


def pytest_configure():
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported: no test asks the net
    settings.register_profile("shared-machine", deadline=None)
    settings.load_profile("shared-machine")


class InTwoRows(LoadScopeScheduling):
    """Lets tests with real processes follow each other, beside those that only compute.

    Each row keeps one of two cores busy; two swarms at once would fail by their deadlines.
    """

    def _split_scope(self, nodeid):
        return "processes" if nodeid.split("/")[1] in WITH_PROCESSES else nodeid


def pytest_xdist_make_scheduler(config, log):
    return InTwoRows(config, log)


@pytest.fixture(scope="session")
def swarm_tools():
    """Return the module of real nodes: `Nodes`, `RUN`, `peer_body`, `alive`, `wait_until`."""
    path = Path(__file__).with_name("swarm") / "nodes.py"
    spec = importlib.util.spec_from_file_location("ctpeer_test_nodes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def nodes(swarm_tools, tmp_path_factory):
    """Start real nodes; ended after the module's last test."""
    house = swarm_tools.Nodes(tmp_path_factory.mktemp("nodes"))
    yield house
    house.close()


@pytest.fixture(scope="session")
def make_loaded():
    """Return what a worker says when it has loaded the demo, with some fields changed."""

    def make(**changed):
        fields = {
            "run_id": "shakespeare-ab",
            "run_name": "shakespeare",
            "task": "causal-lm",
            "peer_id": "Qm",
            "device": "cpu",
            "parameters": 536_064,
            "epoch": 0,
            "generation": 0,
            "state_root": None,
            "checkpoint_unix_time_s": None,
            "tokens_total": 0,
            "micro_batch": 16,
            "target_loss_terms": 4096,
            "heldout_name": "bits_per_byte",
            "baselines": {"unigram": 3.678},
            "shards": (ShardChoice(name="a.txt", bytes=5, reason="everything is wanted"),),
        }
        return Loaded(**(fields | changed))

    return make


@pytest.fixture(scope="session")
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_shards():
    """Two small shards of the demo data, in English and in Chinese: (shard, text)."""
    found = []
    for name in ("shakespeare/phoenix-and-the-turtle.txt", "chinese-classics/cao-cao-poems.txt"):
        folder, file = name.split("/")
        index = parse_index((DEMO_PATH / folder / "index.json").read_bytes(), folder)
        shard = next(shard for shard in index.shards if shard.name == file)
        found.append((shard, ShardSources(()).read(shard).decode()))
    return found


@pytest.fixture(scope="session")
def tokenizer_json(demo_shards):
    from peer.tasks.text import train_tokenizer

    return train_tokenizer([text for _, text in demo_shards], VOCABULARY)


@pytest.fixture(scope="session")
def make_task(tokenizer_json):
    from peer.tasks import registry

    def make(name="causal-lm", sequence_length=SEQUENCE_LENGTH, **options):
        section = TaskSection(name=name, sequence_length=sequence_length, options=options)
        return registry.create(section, {"tokenizer.json": tokenizer_json})

    return make


@pytest.fixture(scope="session")
def configs():
    """Return the smallest sensible configuration of each kind of model, by model_type."""
    ends = {"bos_token_id": 1, "eos_token_id": 1}
    common = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": SEQUENCE_LENGTH,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return {
        "gpt2": {
            "model_type": "gpt2",
            "vocab_size": VOCABULARY,
            "n_positions": SEQUENCE_LENGTH,
            "n_embd": 16,
            "n_layer": 1,
            "n_head": 2,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "attn_pdrop": 0.0,
            **ends,
        },
        "llama": {"model_type": "llama", "tie_word_embeddings": True, **common, **ends},
        "bert": {
            "model_type": "bert",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            **common,
        },
    }


@pytest.fixture(scope="session")
def manifest(tokenizer_json):
    return Manifest(
        name="tiny",
        founders=("Qm" + "1" * 44,),
        initial_state="0" * 64,
        task=TaskSection(name="causal-lm", sequence_length=SEQUENCE_LENGTH),
        model=ModelSection(config="1" * 64),
        tokenizer=TokenizerSection(
            files={"tokenizer.json": hashlib.sha256(tokenizer_json).hexdigest()}
        ),
        data=DataSection(index="2" * 64),
        optimizer=AdamW(lr=1e-2),
        batch=BatchSection(target_loss_terms=8 * SEQUENCE_LENGTH),
    )


@pytest.fixture(scope="session")
def identities(tmp_path_factory):
    """Four peers."""
    folder = tmp_path_factory.mktemp("identities")
    return [Identity.load_or_create(folder / f"{i}.key") for i in range(4)]


class StandInIdentity:
    """Signs as an identity does, in no time; anybody could forge it."""

    def __init__(self, name):
        self.public_key = f"key of {name}".encode()
        self.peer_id = peer_id_of(self.public_key)

    def sign(self, data):
        return hashlib.sha256(self.public_key + data).digest()

    @staticmethod
    def verify(public_key, signature, data):
        return hashlib.sha256(public_key + data).digest() == signature


@pytest.fixture(scope="session")
def stand_in():
    """Return the class of identities that cost nothing, and how their signatures are checked."""
    return StandInIdentity


@pytest.fixture(scope="session")
def examples_of(tmp_path_factory):
    """Return a shard of one text and the rows that a task makes of it."""
    folder = tmp_path_factory.mktemp("tokens")

    def make(task, text):
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        shard = Shard(name="a.txt", format="text", bytes=len(data), examples=1, sha256=digest)
        return shard, task.examples(shard, [text], TokenCache(folder / task.name))

    return make


@pytest.fixture(scope="session")
def heldout(examples_of, demo_shards):
    """Return all rows of the Chinese demo shard, or of the English one, held out."""

    def make(task, shard=1):
        return task.heldout_rows([examples_of(task, demo_shards[shard][1])], 10**6)

    return make


@pytest.fixture
def make_stream(demo_shards, tmp_path):
    """Return a stream of a task's rows of the English demo shard, always the same one."""
    shard, text = demo_shards[0]

    def make(task, cursor=None):
        def open_shard(chosen: Shard):
            return task.examples(chosen, [text], TokenCache(tmp_path / "tokens"))

        return Stream([shard], open_shard, b"seed", cursor)

    return make


@pytest.fixture
def make_trainer(make_task, make_stream, configs, manifest, one_thread):
    """Return a trainer that begins anew, or goes on from a state and a place; always the same.

    Keyword arguments: `task`, `config`, `micro_batch`, `target` in loss terms, `precision`,
    `device`, `state` and `place` to go on from, `peer_id`, and `events`, a list that takes what is
    emitted.
    """
    import torch

    from peer.training.outer import initial_slots
    from peer.training.precision import Autocast
    from peer.training.state import GlobalState, Schema, initial_state_bytes, read_initial_state
    from peer.training.trainer import Place, Trainer, Workbench, get_rng

    def make(**given):
        task = given.get("task") or make_task()
        device = given.get("device", torch.device("cpu"))
        target = given.get("target", manifest.batch.target_loss_terms)
        ours = manifest.model_copy(update={"batch": BatchSection(target_loss_terms=target)})
        torch.manual_seed(0)
        model = task.build_model(given.get("config") or configs["gpt2"])
        state, place = given.get("state"), given.get("place")
        stream = make_stream(task, place.cursor if place else None)
        if state is None:
            schema = Schema.of(model)
            parameters = read_initial_state(initial_state_bytes(model), schema)
            slots = initial_slots(ours.optimizer, schema.elements)
            state = GlobalState(0, schema, parameters, slots)
            place = Place.beginning(stream.cursor, given.get("micro_batch", 2), get_rng(device))
        bench = Workbench(
            manifest=ours,
            peer_id=given.get("peer_id", "me"),
            model=model.to(device),
            task=task,
            stream=stream,
            device=device,
            autocast=Autocast(given.get("precision", "fp32"), device),
            emit=given.get("events", []).append,
        )
        return Trainer(bench, state, place)

    return make


@pytest.fixture(scope="session")
def run_epoch(identities):
    """Let a trainer work, average alone and commit; return what it contributed."""
    from peer.training.certificate import Base
    from peer.training.round import Committed, LoneRounds

    rounds = LoneRounds(identities[0], "none")

    def run(trainer):
        assert trainer.work(lambda: False)
        contribution = trainer.contribution("root")
        committed = rounds.run(
            Base("tiny", 0, trainer.state.epoch, "root"), contribution, lambda: False
        )
        assert isinstance(committed, Committed)
        trainer.commit(committed)
        return contribution

    return run


@pytest.fixture
def make_spoiled_task(make_task):
    """Return a causal task whose n-th loss, counted from 1, goes through `spoil`."""
    from peer.tasks.causal_lm import CausalLM

    class SpoiledLM(CausalLM):
        def __init__(self, at, spoil):
            self.__dict__.update(make_task().__dict__)
            self._left, self._spoil = at, spoil

        def loss(self, model, batch):
            self._left -= 1
            loss = super().loss(model, batch)
            return self._spoil(loss) if self._left == 0 else loss

    return SpoiledLM
