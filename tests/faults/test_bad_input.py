"""Set-ups that cannot work: one sentence with what to do, the exit code, and nothing lost."""

import contextlib
import json
import os
import shutil
import socket
import subprocess

import pytest


def refused(daemon, *words, code=78):
    """Assert that the daemon ended with `code` and one sentence that holds all `words`."""
    assert daemon.wait() == code, daemon.output
    sentence = daemon.output.splitlines()[-1]
    assert sentence.startswith("ctpeer: ")
    for word in words:
        assert word in sentence
    assert "Traceback" not in daemon.output
    daemon.wait_for_no_process()


@pytest.fixture
def tiny_copy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "copy")


@pytest.fixture
def mount(tmp_path):
    """Mount a small file system of its own; skipped where that is not allowed."""
    mounted = []

    def make(size_bytes):
        path = tmp_path / f"mount{len(mounted)}"
        path.mkdir()
        options = f"size={size_bytes},mode=0700"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a small file system takes root")
        mounted.append(path)
        return path

    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_an_unknown_field_in_the_manifest(daemon, tiny_copy):
    path = tiny_copy / "run.toml"
    path.write_text(path.read_text().replace("sequence_length", "sequence_lenght"))
    daemon.start(tiny_copy)
    refused(daemon, "task.sequence_lenght is unknown; did you mean sequence_length?")


def test_a_manifest_that_was_changed_after_it_was_signed(daemon, tiny_copy):
    path = tiny_copy / "run.toml"
    path.write_text(path.read_text().replace("warmup_epochs = 5", "warmup_epochs = 6"))
    daemon.start(tiny_copy)
    refused(daemon, "is not over this manifest")


def test_no_manifest(daemon, tmp_path):
    daemon.start(tmp_path / "nothing")
    refused(daemon, "there is no run at", "ctpeer run init")


def test_a_damaged_blob(daemon, tiny_copy):
    blob = max((tiny_copy / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1])
    daemon.start(tiny_copy)
    refused(daemon, "was changed or cut short")


def test_an_occupied_port(daemon, tiny_run):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        daemon.start(tiny_run, "--metrics-port", port)
        refused(daemon, f"port {port}: Address already in use", "--metrics-port")


def test_a_second_daemon_on_one_home(daemon, make_daemon, tiny_run):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: True)
    second = daemon.run("start")
    assert second.returncode == 78
    assert f"process {daemon.process.pid}" in second.stderr
    assert daemon.process.poll() is None


def test_a_misspelt_setting(daemon, tiny_run):
    daemon.start(tiny_run, CTPEER_COMPUTE__THREDS="2")
    refused(daemon, "compute.threds is unknown; did you mean threads?", "CTPEER_COMPUTE__THREDS")


def test_a_device_that_is_not_there(daemon, tiny_run):
    daemon.start(tiny_run, "--device", "cuda:7")
    refused(daemon, "cuda:7")


def test_a_validator_of_a_run_that_judges_nothing(daemon, make_run):
    meets = {"CTPEER_SWARM__ENABLED": "true"}
    daemon.start(make_run("--validate-every", "0"), "--role", "validator", **meets)
    refused(daemon, "nothing is judged", "validation.every_epochs = 0", "without --role validator")


def test_a_validator_that_meets_nobody(daemon, tiny_run):
    daemon.start(tiny_run, "--role", "validator", "--alone")
    refused(daemon, "judges what others train", "leave out --alone", "flag --role")


def test_a_home_under_a_file(make_daemon, tmp_path, tiny_run):
    (tmp_path / "file").write_text("")
    daemon = make_daemon(tmp_path / "file" / "home")
    answer = daemon.run("start", str(tiny_run))
    assert answer.returncode == 78
    assert "cannot be written" in answer.stderr
    assert "--home" in answer.stderr


def test_a_read_only_home(make_daemon, mount, tiny_run):
    home = mount(1 << 20)
    subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
    answer = make_daemon(home).run("start", str(tiny_run))
    assert answer.returncode == 78
    assert answer.stderr.startswith(f"ctpeer: the home {home} cannot be written: Read-only")
    assert answer.stderr.count("\n") == 1


def test_a_full_disk_at_the_start(make_daemon, mount, tiny_run):
    home = mount(64 << 10)
    with contextlib.suppress(OSError):
        (home / "ballast").write_bytes(bytes(64 << 10))
    answer = make_daemon(home).run("start", str(tiny_run))
    assert answer.returncode == 78
    assert "No space left on device; free some space there" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_disk_that_fills_up_later_stops_checkpoints_but_not_training(
    make_daemon, mount, tiny_run
):
    home = mount(4 << 20)
    daemon = make_daemon(home)
    daemon.start(tiny_run)
    before = daemon.wait_until(lambda status: status["checkpoint"] is not None)
    with (home / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    full = daemon.wait_until(lambda status: status["checkpoint_problem"] is not None)
    assert "checkpoint not written" in full["reason"]
    assert "No space left on device" in full["reason"]
    assert "free some space" in full["reason"]
    daemon.wait_until(lambda status: (status["epoch"] or 0) > full["epoch"] + 2)
    (home / "ballast").unlink()
    after = daemon.wait_until(lambda status: status["checkpoint_problem"] is None)
    assert after["checkpoint"]["epoch"] > before["checkpoint"]["epoch"]
    assert after["restarts"] == 0


def checkpoints(daemon):
    return sorted(daemon.home.glob("runs/*/checkpoints/0*"))


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(daemon, tiny_run, damage):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: len(checkpoints(daemon)) >= 2)
    daemon.run("stop")
    daemon.wait()
    *_, before, newest = checkpoints(daemon)
    file = newest / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data[:-1] if damage == "truncated" else data)
    daemon.start(CTPEER_CHECKPOINT__INTERVAL_S="1000")
    status = daemon.wait_until(lambda status: status["device"] is not None)
    assert status["checkpoint"]["epoch"] == int(before.name.split("-")[0])
    assert "was damaged and set aside" in status["checkpoint_problem"]
    assert (newest.parent / f"damaged-{newest.name}").is_dir()


def test_when_every_checkpoint_is_damaged_training_does_not_silently_begin_anew(daemon, tiny_run):
    assert daemon.start(tiny_run, "--max-epochs", 3).wait() == 0
    for path in checkpoints(daemon):
        (path / "state.safetensors").write_bytes(b"")
    daemon.start()
    refused(daemon, "every checkpoint in", "is damaged", "restore one from a backup")
    daemon.start()
    refused(daemon, "every checkpoint in")


def test_a_shard_that_was_changed_is_named_and_left_out(daemon, tiny_run, text_folder, tmp_path):
    folder = shutil.copytree(text_folder, tmp_path / "poems")
    index = json.loads((folder / "index.json").read_text())
    name = next(shard["name"] for shard in index["shards"] if shard["split"] == "train")
    (folder / name).write_text("something else")
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "sources.json").write_text(json.dumps({"folders": [str(folder)]}))
    daemon.start(run)
    status = daemon.wait_until(lambda status: status["shards_quarantined"])
    reason = "is not the file that the data index names by hash"
    assert reason in status["shards_quarantined"][name]
    daemon.wait_until(lambda later: later["epoch"] > status["epoch"])


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("broken.jsonl", b'{"text": "a"}\nno json\n', "line 2 is not a JSON object"),
        ("broken.parquet", b"PAR1 junk", "is no parquet file"),
        ("broken.csv", b"other\n1\n", "is no csv file with a column 'text'"),
        ("broken.txt", b"\xff\xfe\xff", "is not UTF-8"),
        ("empty.txt", b"", "holds no text"),
    ],
)
def test_a_data_folder_with_a_broken_file(daemon, text_folder, tmp_path, file, content, words):
    folder = shutil.copytree(text_folder, tmp_path / "data")
    (folder / file).write_bytes(content)
    answer = daemon.run("data", "index", str(folder))
    assert answer.returncode == 78
    assert f"{folder / file} cannot be used: " in answer.stderr
    assert words in answer.stderr
    assert "mend it, or move it out of the folder" in answer.stderr


@pytest.mark.parametrize("kind", ["missing", "empty", "a file"])
def test_a_data_folder_that_is_none(daemon, tmp_path, kind):
    folder = tmp_path / "data"
    if kind == "empty":
        folder.mkdir()
    elif kind == "a file":
        folder.write_text("text")
    answer = daemon.run("data", "index", str(folder))
    assert answer.returncode == 78
    assert str(folder) in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_private_folder_that_is_none(daemon, tiny_run, tmp_path):
    daemon.start(tiny_run, CTPEER_DATA__PRIVATE=str(tmp_path / "none"))
    refused(daemon, str(tmp_path / "none"))


def test_filters_that_leave_nothing(daemon, tiny_run):
    daemon.start(tiny_run, CTPEER_DATA__INCLUDE="*.nothing")
    refused(daemon, "include")


def test_a_tokenizer_that_does_not_fit_the_model(daemon, tiny_run, text_folder, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "gpt2", "vocab_size": 200, "n_layer": 1}))
    flags = ["--data", str(text_folder), "--vocab-size", "300", "--model-config", str(config)]
    answer = daemon.run("run", "init", str(tmp_path / "new"), *flags)
    assert answer.returncode == 78
    assert "the tokenizer does not fit the model: it has 300 tokens" in answer.stderr
    assert not (tmp_path / "new").exists()
