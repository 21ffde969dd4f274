"""What a new user sees first really learns: the demo, and a masked model of the classics."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def last_status(daemon):
    return json.loads((daemon.home / "last_status.json").read_text())


def test_the_demo_beats_counting_tokens_within_a_hundred_epochs(daemon):
    assert daemon.start("--max-epochs", 100).wait(200) == 0
    status = last_status(daemon)
    assert status["losses"][-1] < status["losses"][0] - 1.5
    assert status["heldout"]["epoch"] == 100
    assert status["heldout"]["value"] < 3.65
    assert status["heldout"]["baselines"]["unigram"] == pytest.approx(3.68, abs=0.01)


def test_a_masked_model_of_the_chinese_classics_learns(daemon, tmp_path):
    flags = "--task masked-lm --data demo:chinese-classics --target-loss-terms 1024 --lr 2e-3"
    founded = daemon.run("run", "init", str(tmp_path / "classics"), *flags.split())
    assert founded.returncode == 0, founded.stderr
    assert daemon.start(tmp_path / "classics", "--max-epochs", 100).wait(200) == 0
    status = last_status(daemon)
    assert status["loss"] < status["losses"][0] - 0.8
    assert status["heldout"]["value"] < status["heldout"]["history"][0][1]
