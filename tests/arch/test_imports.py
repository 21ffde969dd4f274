"""What the layers may import, and what the light commands really load."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "hivemind", "aiohttp", "pyarrow", "safetensors", "tokenizers"}
REPORT = (
    "import sys, json, atexit;"
    "atexit.register(lambda: print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})),"
    " file=sys.stderr));"
    "from peer.cli.main import main; main()"
)


def loaded_by(*arguments, home):
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *arguments],
        env={"CTPEER_HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_contracts_hold():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("status",),
        ("stop",),
        ("pause",),
        ("version",),
        ("config", "show"),
        ("identity",),
        ("invite",),
        ("service", "status"),
        ("peers",),
    ],
)
def test_light_commands_load_nothing_heavy(tmp_path, arguments):
    assert not loaded_by(*arguments, home=tmp_path) & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [*[(each,) for each in ("list", "show", "log", "verify", "gc", "--help")], ("fetch", "--help")],
    ids=" ".join,
)
def test_looking_at_checkpoints_loads_neither_torch_nor_hivemind(tmp_path, arguments):
    loaded = loaded_by("checkpoint", *arguments, home=tmp_path)
    assert not {"torch", "transformers", "hivemind"} & loaded


@pytest.mark.parametrize("arguments", [("verdicts",), ("verdicts", "--verify"), ("validators",)])
def test_looking_at_verdicts_loads_neither_torch_nor_hivemind(tmp_path, arguments):
    assert not {"torch", "transformers", "hivemind"} & loaded_by(*arguments, home=tmp_path)


def test_the_supervisor_loads_neither_torch_nor_hivemind():
    code = "import sys, peer.daemon.service; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"torch", "transformers", "hivemind", "pyarrow"} & set(ast.literal_eval(done.stdout))


def test_what_the_page_reads_off_the_disk_loads_neither_torch_nor_hivemind():
    code = (
        "import sys, peer.daemon.ancestry, peer.checkpoint.card, peer.checkpoint.lineage,"
        " peer.checkpoint.shelf, peer.validation.archive;"
        "print(sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"torch", "transformers", "hivemind", "pyarrow"} & set(ast.literal_eval(done.stdout))


def test_rounds_over_any_transport_need_neither_torch_nor_hivemind():
    code = (
        "import sys, peer.training.averaging, peer.training.catchup;"
        "print(sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not HEAVY & set(ast.literal_eval(done.stdout))


def test_an_import_that_breaks_the_contract_is_found(tmp_path):
    root = Path(__file__).parents[2]
    data = shutil.ignore_patterns("*.xz", "blobs", "__pycache__")
    for package in ("peer", "dht_bootstrap", "monitoring"):
        shutil.copytree(root / package, tmp_path / package, ignore=data)
    shutil.copy(root / "pyproject.toml", tmp_path)
    for module, line in (("data/choose", "import time"), ("training/chain", "import asyncio")):
        file = tmp_path / "peer" / f"{module}.py"
        file.write_text(f"{file.read_text()}\n{line}\n")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode != 0
    assert "peer.data.choose is not allowed to import time" in done.stdout
    assert "peer.training.chain is not allowed to import asyncio" in done.stdout
