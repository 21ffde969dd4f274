"""An export opens with transformers, generates, and says truthfully where it comes from."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
import yaml

from peer.checkpoint.annotation import Author
from peer.checkpoint.card import Subject, model_card
from peer.checkpoint.export import CARD, PROVENANCE, Order, built, export
from peer.checkpoint.lineage import ancestry, find, known, stored
from peer.checkpoint.shelf import Shelf
from peer.config.home import Home
from peer.data.index import parse_index
from peer.errors import ConfigurationError, DamagedError
from peer.identity import Identity
from peer.run.directory import RunDirectory


def order_of(home, root="newest", **more):
    (run_id,) = home.run_ids()
    run = RunDirectory.open(home.run_path(run_id))
    shelf = Shelf(run.checkpoints_path)
    entries = stored(shelf, run.manifest_hash)
    everything = known(entries, shelf, run.manifest_hash)
    lineage = tuple(ancestry(find(root, entries), everything))
    return Order(run=run, shelf=shelf, lineage=lineage, **more)


@pytest.fixture
def order(home):
    return order_of(home)


@pytest.fixture(scope="module")
def exported(trained_home, tmp_path_factory):
    """Return the order and the directory of an export."""
    order = order_of(Home(trained_home), licence="apache-2.0")
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(order, folder)
    return order, folder


def front_matter(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_causal_model_opens_and_generates(exported):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, folder = exported
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("Let the bird", return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert out.shape == (1, inputs["input_ids"].shape[1] + 4)
    assert tokenizer.decode(out[0]).startswith("Let the bird")
    assert model.config.use_cache
    assert tokenizer.model_max_length == 16


def test_the_text_pipeline_runs_with_no_option_and_within_the_models_positions(exported):
    from transformers import pipeline

    _, folder = exported
    (answer,) = pipeline("text-generation", model=str(folder))("Let")
    assert answer["generated_text"].startswith("Let")


def test_the_weights_are_the_checkpoints_bit_for_bit(exported):
    from transformers import AutoModelForCausalLM

    order, folder = exported
    entry = order.lineage[0]
    state = safetensors.numpy.load_file(order.shelf.path(entry.name) / "state.safetensors")
    parameters = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    assert parameters.keys() == {name for name in state if not name.startswith("optimizer.")}
    for name, parameter in parameters.items():
        assert np.array_equal(parameter.detach().numpy(), state[name])


def test_the_tokenizer_is_the_runs_own(exported):
    from transformers import AutoTokenizer

    order, folder = exported
    blob = order.run.read_blob(order.run.manifest.tokenizer.files["tokenizer.json"])
    assert (folder / "tokenizer.json").read_bytes() == blob
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token) == (
        "<eos>",
        "<eos>",
        "<pad>",
    )


def test_the_card_says_what_it_is(exported):
    order, folder = exported
    front, body = front_matter((folder / CARD).read_text())
    entry = order.lineage[0]
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "text-generation"
    assert front["license"] == "apache-2.0"
    assert front["ctpeer"] == {
        "run_id": order.run.run_id,
        "epoch": 7,
        "generation": 0,
        "state_root": entry.state_root,
    }
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert {m["name"]: m["value"] for m in metrics} == entry.annotation.notes.scores
    for words in (entry.state_root, order.run.run_id, "two poems", "public domain", "## Lineage"):
        assert words in body
    assert [line[:16].strip() for line in body.splitlines() if line.startswith("    ")] == [
        ancestor.state_root[:12] for ancestor in order.lineage
    ]
    assert [ancestor.epoch for ancestor in order.lineage] == [7, 5, 4, 2]


def test_a_hub_reads_the_card(exported):
    from huggingface_hub import ModelCard

    _, folder = exported
    data = ModelCard.load(folder / CARD).data
    assert data.license == "apache-2.0"
    assert data.eval_results[0].metric_type == "bits_per_byte"


def test_the_provenance_proves_the_export(exported):
    order, folder = exported
    body = json.loads((folder / PROVENANCE).read_text())
    files = {path.name for path in folder.iterdir()}
    assert files == {*body["files"], PROVENANCE}
    for name, digest in body["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert body["state_root"] == order.lineage[0].state_root
    assert body["annotation"]["notes"]["state_root"] == body["state_root"]
    assert body["certificate"]["vote"]["base"]["epoch"] == 6
    assert [ancestor["epoch"] for ancestor in body["lineage"]] == [7, 5, 4, 2]


def test_everybody_may_read_it_and_nothing_is_left_beside_it(exported):
    _, folder = exported
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in [folder, *folder.iterdir()])


def test_exporting_again_gives_the_same_bytes(exported, tmp_path):
    order, folder = exported
    again = export(order, tmp_path / "again")
    assert {n: (tmp_path / "again" / n).read_bytes() for n in again} == {
        n: (folder / n).read_bytes() for n in again
    }


def test_an_older_checkpoint_is_exported_with_its_own_lineage(home, tmp_path):
    older = order_of(home).lineage[1]
    order = order_of(home, older.state_root[:10])
    export(order, tmp_path / "out")
    front, _ = front_matter((tmp_path / "out" / CARD).read_text())
    assert front["ctpeer"]["epoch"] == 5
    assert front["license"] == "other"


def test_an_empty_directory_is_filled(order, tmp_path):
    (tmp_path / "out").mkdir()
    assert CARD in export(order, tmp_path / "out")


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_is_there_already_is_not_touched(order, tmp_path, kind):
    target = tmp_path / "out"
    if kind == "directory":
        target.mkdir()
        (target / "mine").write_text("x")
    else:
        target.write_text("x")
    with pytest.raises(ConfigurationError, match="there already and not empty"):
        export(order, target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "out"]


@pytest.mark.parametrize("file", ["state.safetensors", "annotation.json"])
def test_a_damaged_checkpoint_is_refused_and_leaves_nothing(order, tmp_path, file):
    path = order.shelf.path(order.lineage[0].name) / file
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="is damaged: "):
        export(order, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


def test_a_damaged_blob_is_refused(order, tmp_path):
    order.run.blob_path(order.run.manifest.model.config).write_text("{}")
    with pytest.raises(DamagedError, match="was changed"):
        export(order, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


def test_a_checkpoint_that_was_dropped_meanwhile_is_said(order, tmp_path):
    assert order.shelf.drop(order.lineage[0].name, remember=True)
    with pytest.raises(DamagedError, match="was dropped meanwhile"):
        export(order, tmp_path / "out")


def test_nothing_drops_a_checkpoint_while_it_is_exported(order, tmp_path, monkeypatch):
    from peer.tasks.causal_lm import CausalLM

    dropped = []
    real = CausalLM.save_pretrained

    def save(self, model, folder):
        dropped.append(order.shelf.drop(order.lineage[0].name, remember=True))
        real(self, model, folder)

    monkeypatch.setattr(CausalLM, "save_pretrained", save)
    export(order, tmp_path / "out")
    assert dropped == [False]


def test_a_place_that_cannot_be_written_is_said(order, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigurationError, match="nothing can be written to"),
        built(order, tmp_path / "file" / "out"),
    ):
        pass


def test_words_of_strangers_become_no_markup(order):
    evil = '</script><b>x</b>\n---\nlicense: mit\n# [click](http://x) | `y` "z: ü\u202e'
    index = parse_index(order.run.read_blob(order.run.manifest.data.index), "")
    index = index.model_copy(update={"name": evil, "licence": evil, "attribution": evil})
    subject = Subject(
        run=order.run, index=index, lineage=order.lineage, pipeline="text-generation", licence=evil
    )
    front, body = front_matter(model_card(subject))
    assert front["license"] == evil
    assert front["pipeline_tag"] == "text-generation"
    for bad in ("<b>", "\n# [", "](http", "\u202e", "\n---"):
        assert bad not in body


def test_a_card_without_scores_or_annotation_says_so(order):
    entry = dataclasses.replace(order.lineage[0], annotation=None)
    index = parse_index(order.run.read_blob(order.run.manifest.data.index), "")
    subject = Subject(
        run=order.run, index=index, lineage=(entry,), pipeline="text-generation", licence=None
    )
    front, body = front_matter(model_card(subject))
    assert "model-index" not in front
    assert "It was not scored" in body
    assert f"{entry.parent.state_root}` of epoch 6" in body


def test_an_accepted_state_says_by_which_verdict(home, tmp_path):
    order = order_of(home)
    author = Author(Identity.load_or_create(home.identity_path), lambda: 0.0)
    notes = dataclasses.replace(order.lineage[0].annotation.notes, accepted_by="12" * 32)
    path = order.shelf.path(order.lineage[0].name) / "annotation.json"
    path.write_bytes(author.sign(notes).to_bytes())
    export(order_of(home), tmp_path / "out")
    assert f"verdict `{'12' * 32}`" in (tmp_path / "out" / CARD).read_text()


def test_the_masked_model_fills_masks_as_it_was_trained_to(train_tiny, tmp_path):
    from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

    home = train_tiny("masked", [2], task="masked-lm", model="bert")
    export(order_of(Home(home)), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("the bird").input_ids
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "out").config.model_type == "bert"
    found = pipeline("fill-mask", model=str(tmp_path / "out"))("the <mask> sings")
    assert len(found) == 5


def test_a_llama_like_model_opens(train_tiny, tmp_path):
    from transformers import pipeline

    home = train_tiny("llama", [1], model="llama")
    export(order_of(Home(home)), tmp_path / "out")
    assert pipeline("text-generation", model=str(tmp_path / "out"))("Let")[0]["generated_text"]
