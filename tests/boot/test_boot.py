"""The services on a real systemd: a booted system in which they are installed, broken and stopped.

One boot for all of it: `pytest -n 0 -m slow tests/boot`. It needs root and systemd-nspawn.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from peer.daemon.unit import find_hidden

pytestmark = [pytest.mark.slow, pytest.mark.timeout(720)]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROBE = HERE / "probe.py"
STEPS = re.findall(r"^@step\ndef (\w+)", PROBE.read_text(), re.MULTILINE)
PACKAGES = [name for name in ("peer", "dht_bootstrap", "monitoring") if (ROOT / name).is_dir()]
VENV = Path("/opt/ctpeer")
PROBE_TIMEOUT_S = 600


def visible_python():
    """Return an interpreter of our version that services can see, or None."""
    own = Path(sys.executable).resolve()
    name = f"python{sysconfig.get_python_version()}"
    for path in (own, Path("/usr/local/bin") / name, Path("/usr/bin") / name):
        if path.exists() and find_hidden([path.resolve()]) is None:
            return path
    return None


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    """Return what is to be /opt/ctpeer: our packages as pip installs them, and their commands.

    What they depend on is this environment's own; it is to be at /opt/ctpeer/deps.
    """
    python = visible_python()
    if python is None:
        pytest.skip("services cannot see this Python, and there is no other of its version in /usr")
    venv = tmp_path_factory.mktemp("boot") / "venv"
    site = venv / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    for folder in (site, venv / "bin", venv / "deps"):
        folder.mkdir(parents=True)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    (site / "deps.pth").write_text(f"import site; site.addsitedir({str(VENV / 'deps')!r})\n")
    (venv / "pyvenv.cfg").write_text(f"home = {python.parent}\n")
    (venv / "bin" / "python").symlink_to(python)
    for script in importlib.metadata.distribution("ctpeer").entry_points:
        call = f"import sys\nfrom {script.module} import {script.attr}\nsys.exit({script.attr}())\n"
        (venv / "bin" / script.name).write_text(f"#!{VENV / 'bin' / 'python'}\n{call}")
    for path in (venv, *venv.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return venv


@pytest.fixture(scope="module")
def report(venv, tmp_path_factory):
    """Boot once; return what the probe reported, by step, and where its output lies."""
    if os.geteuid() != 0:
        pytest.skip("booting a system needs root")
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("there is no systemd-nspawn; Debian has it in systemd-container")
    out = tmp_path_factory.mktemp("out")
    booted = subprocess.run(
        [
            *(HERE / "boot.sh", PROBE, out, f"--bind-ro={venv}:{VENV}"),
            *(f"--bind-ro={sysconfig.get_path('purelib')}:{VENV / 'deps'}", "--"),
            *(VENV / "bin" / "python", "/probe/probe.py"),
        ],
        env=os.environ | {"PROBE_TIMEOUT_S": str(PROBE_TIMEOUT_S)},
        capture_output=True,
        text=True,
        timeout=PROBE_TIMEOUT_S + 60,
    )
    file = out / "report.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    steps = {line["step"]: line for line in map(json.loads, lines)}
    return steps, f"{out}: exit code {booted.returncode}; {booted.stderr[-2000:]}"


@pytest.mark.parametrize("step", STEPS)
def test_in_a_booted_system(report, step):
    steps, where = report
    assert step in steps, f"it did not come that far; see {where}"
    assert "failed" not in steps[step], f"{steps[step]['failed']}; see {where}"
    if "skipped" in steps[step]["seen"]:
        pytest.skip(steps[step]["seen"]["skipped"])
