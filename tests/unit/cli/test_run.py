"""`ctpeer run` and `ctpeer data` in one process, on a few kilobytes of text."""

import json
import shutil

import pytest
from click.testing import CliRunner

from peer.cli.main import main
from peer.run.directory import RunDirectory

SMALL = {
    "--vocab-size": 300,
    "--layers": 1,
    "--hidden": 16,
    "--heads": 2,
    "--sequence-length": 16,
    "--evaluation-rows": 8,
    "--target-loss-terms": 64,
}


@pytest.fixture
def ctpeer(tmp_path, monkeypatch):
    """Run a command in this process on a home of its own."""
    monkeypatch.setenv("CTPEER_HOME", str(tmp_path / "home"))

    def run(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def texts(ctpeer, tmp_path, demo_shards):
    """An indexed folder of two files."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for shard, text in demo_shards:
        (folder / shard.name).write_text(text)
    assert ctpeer("data", "index", folder, "--heldout", "cao-*").exit_code == 0
    return folder


@pytest.fixture
def init(ctpeer, texts, tmp_path):
    """Run `run init` with small defaults; a flag that is None is left out."""

    def run(**flags):
        given = {"--data": texts, **SMALL}
        given |= {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
        parts = [
            part for flag, value in given.items() if value is not None for part in (flag, value)
        ]
        return ctpeer("run", "init", tmp_path / "new-run", *parts)

    return run


@pytest.fixture
def new_run(init, tmp_path):
    result = init()
    assert result.exit_code == 0, result.output
    return tmp_path / "new-run"


def test_a_founded_run_is_whole_signed_and_good(ctpeer, new_run):
    assert ctpeer("run", "verify", new_run).exit_code == 0
    facts = json.loads(ctpeer("run", "show", new_run, "--json").stdout)
    assert facts["signed_by"] == facts["manifest"]["founders"]
    assert facts["run_id"].startswith("new-run-")
    manifest = facts["manifest"]
    assert manifest["batch"]["target_loss_terms"] == 64
    assert set(manifest["evaluation"]["baselines"]) == {"unigram", "bigram"}


def test_the_initial_state_is_a_file_and_the_seed_is_not_in_the_manifest(new_run):
    run = RunDirectory.open(new_run)
    assert run.has_blob(run.manifest.initial_state)
    assert "seed" not in (new_run / "run.toml").read_text()


def test_a_founder_says_how_often_and_how_strictly_checkpoints_are_judged(init, tmp_path):
    assert init(validate_every=7, margin=0.1).exit_code == 0
    validation = RunDirectory.open(tmp_path / "new-run").manifest.validation
    assert (validation.every_epochs, validation.margin) == (7, 0.1)


def test_the_same_flags_found_the_same_run(init, tmp_path):
    ids = []
    for _ in range(2):
        assert init().exit_code == 0
        ids.append(RunDirectory.open(tmp_path / "new-run").run_id)
        shutil.rmtree(tmp_path / "new-run")
    assert ids[0] == ids[1]


def test_another_seed_founds_another_run(init, tmp_path):
    ids = []
    for seed in (0, 1):
        assert init(seed=seed).exit_code == 0
        ids.append(RunDirectory.open(tmp_path / "new-run").run_id)
        shutil.rmtree(tmp_path / "new-run")
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("task", "model"), [("causal-lm", "llama"), ("masked-lm", "bert"), ("masked-lm", None)]
)
def test_every_preset_founds_a_good_run(ctpeer, init, tmp_path, task, model):
    result = init(task=task, model=model)
    assert result.exit_code == 0, result.output
    assert ctpeer("run", "verify", tmp_path / "new-run").exit_code == 0


def test_a_pretrained_directory_gives_model_weights_and_tokenizer(
    ctpeer, init, new_run, tmp_path, make_task, configs, tokenizer_json
):
    pretrained = tmp_path / "pretrained"
    make_task().build_model(configs["gpt2"]).save_pretrained(pretrained)
    (pretrained / "tokenizer.json").write_bytes(tokenizer_json)
    shutil.rmtree(new_run)
    result = init(pretrained=pretrained, layers=None, hidden=None, heads=None)
    assert result.exit_code == 0, result.output
    run = RunDirectory.open(new_run)
    assert run.read_blob(run.manifest.tokenizer.files["tokenizer.json"]) == tokenizer_json
    import safetensors.numpy

    ours = safetensors.numpy.load(run.read_blob(run.manifest.initial_state))
    theirs = safetensors.numpy.load_file(pretrained / "model.safetensors")
    for name in set(ours) & set(theirs):
        assert (ours[name] == theirs[name]).all()
    assert set(ours) & set(theirs)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ({"task": "casual-lm"}, 2, "'casual-lm' is not one of 'causal-lm', 'masked-lm'"),
        ({"model": "bert"}, 2, "--model bert is no small model for causal-lm"),
        ({"model": "gpt2", "model_config": "c.json"}, 2, "--model and --model-config contradict"),
        ({"model_config": "c.json"}, 2, "--layers sizes a --model"),
        ({"hidden": 15}, 2, "--hidden 15 is not a multiple of --heads 2"),
        ({"lr": -1}, 2, "lr: "),
        ({"lr": 0}, 2, "lr: "),
        ({"codec": "zip"}, 2, "'zip' is not one of 'none', 'fp16', 'int8'"),
        ({"floor": 0.5}, 2, "--floor has a meaning only with a --decay"),
        ({"evaluation_rows": 0}, 2, "--evaluation-rows"),
        ({"validate_every": -1}, 2, "every_epochs: "),
        ({"margin": 0}, 2, "margin: "),
        ({"seed": 2**70}, 2, "--seed"),
        ({"decay": "linear"}, 2, "a linear decay needs total_epochs"),
        ({"total_epochs": 5}, 2, "total_epochs has a meaning only for a linear decay"),
        ({"target_loss_terms": 0}, 2, "target_loss_terms: "),
        ({"sequence_length": 1}, 2, "sequence_length: "),
        ({"name": "Ünsinn"}, 2, "'Ünsinn' cannot be a run's name"),
        ({"data": "demo:shakespear"}, 2, "there is no data set 'demo:shakespear'"),
        ({"data": "/nowhere"}, 78, "ctpeer data index /nowhere"),
        ({"tokenizer": "/nowhere/tokenizer.json"}, 78, "/nowhere/tokenizer.json"),
        ({"mask_probability": 0.2}, 2, "--mask-probability is for masked-lm"),
        (
            {"task": "masked-lm", "mask_probability": 1.5},
            2,
            "--mask-probability",
        ),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_refused_in_a_sentence_and_nothing_is_left(
    init, tmp_path, flags, code, words
):
    result = init(**flags)
    assert result.exit_code == code, result.output
    sentence = result.stderr.splitlines()[-1]
    assert words in sentence
    assert not (tmp_path / "new-run").exists()
    assert not list(tmp_path.glob(".new-run*"))


@pytest.mark.parametrize("codec", [None, "none", "fp16", "int8"])
def test_the_codec_is_the_manifests(ctpeer, init, tmp_path, codec):
    result = init(codec=codec)
    assert result.exit_code == 0, result.output
    run = RunDirectory.open(tmp_path / "new-run")
    assert run.manifest.averaging.codec == (codec or "none")
    assert ctpeer("run", "verify", tmp_path / "new-run").exit_code == 0


def test_the_tasks_that_can_be_founded_are_those_of_the_registry():
    from peer.cli.run import TASKS
    from peer.tasks import registry

    assert set(TASKS) == set(registry.TASKS)


def test_a_directory_that_is_there_is_not_written_over(init, new_run):
    before = (new_run / "run.toml").read_bytes()
    result = init()
    assert result.exit_code == 78
    assert "is there already" in result.stderr
    assert (new_run / "run.toml").read_bytes() == before


def test_verify_names_everything_that_is_wrong(ctpeer, new_run, texts):
    (new_run / "run.sig").unlink()
    (texts / "phoenix-and-the-turtle.txt").write_text("other words")
    (new_run / "sources.json").write_text(json.dumps({"folders": [str(texts)]}))
    result = ctpeer("run", "verify", new_run, "--json")
    assert result.exit_code == 78
    body = json.loads(result.stdout)
    assert body["good"] is False
    assert any("has not signed it" in problem for problem in body["problems"])


def test_verify_finds_a_damaged_blob(ctpeer, new_run):
    run = RunDirectory.open(new_run)
    (new_run / "blobs" / run.manifest.initial_state).write_bytes(b"")
    result = ctpeer("run", "verify", new_run)
    assert result.exit_code == 78
    assert "the initial state" in result.stderr


def test_without_a_directory_show_explains_the_demo(ctpeer):
    assert "shakespeare-" in ctpeer("run", "show").stdout


def test_choose_explains_every_shard_and_keeps_to_the_budget(ctpeer):
    body = json.loads(ctpeer("data", "choose", "--max-bytes", "500000", "--json").stdout)
    assert 0 < sum(shard["bytes"] for shard in body["shards"]) <= 500_000
    assert all(shard["reason"] for shard in body["shards"])
    assert len(json.loads(ctpeer("data", "choose", "--json").stdout)["shards"]) == 40


def test_an_index_names_what_is_held_out(ctpeer, texts):
    body = json.loads(ctpeer("data", "show", texts, "--json").stdout)
    splits = {shard["name"]: shard["split"] for shard in body["shards"]}
    assert splits["cao-cao-poems.txt"] == "heldout"
    assert splits["phoenix-and-the-turtle.txt"] == "train"
    assert "held out" in ctpeer("data", "show", texts).stdout
