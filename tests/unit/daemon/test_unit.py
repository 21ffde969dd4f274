"""The units that are shipped, as systemd itself judges them, and what is made of them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.daemon.unit import SHIPPED_PATH, Unit, _quoted, _unquoted, find_hidden, render
from peer.errors import ConfigurationError

REPOSITORY = Path(__file__).parents[3] / "systemd"
NAMES = ("ctpeer", "ctpeer-bootstrap", "ctpeer-monitor")
UNITS = [*map(Unit, NAMES), Unit(user=True)]
LEAST_EXPOSED = 20
"""What `systemd-analyze security` may say at most, in tenths."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on this machine"
)


@pytest.fixture
def bin_path(tmp_path):
    """Return a folder in which all the commands can be executed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NAMES:
        (folder / name).touch(mode=0o755)
    return folder


@pytest.fixture
def rendered(tmp_path, bin_path):
    """Return where a unit lies that was made from the shipped one as `install` makes it."""

    def make(unit, setting=None):
        path = tmp_path / unit.file_name
        path.write_text(render(unit.shipped_path.read_text(), bin_path, setting))
        return path

    return make


def analyze(*arguments, tmp_path):
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_is_installed_is_what_the_repository_holds():
    shipped = {path.relative_to(SHIPPED_PATH) for path in SHIPPED_PATH.rglob("*.*")}
    assert shipped == {path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*.*")}
    for path in shipped:
        assert (SHIPPED_PATH / path).samefile(REPOSITORY / path)
    assert {unit.shipped_path for unit in UNITS} == set(SHIPPED_PATH.rglob("*.service"))


@needs_systemd
@pytest.mark.parametrize("setting", [None, 'CTPEER_RUN=/srv/50% "off"'])
@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_systemd_has_nothing_to_say_about_a_unit(unit, setting, rendered, tmp_path):
    scope = ["--user"] if unit.user else []
    done = analyze(*scope, "verify", rendered(unit, setting), tmp_path=tmp_path)
    # It exits with 0 when it knows a key not at all.
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_says_so_when_a_key_is_misspelt(rendered, tmp_path):
    path = rendered(Unit())
    path.write_text(path.read_text().replace("WatchdogSec", "WatchdogSecs"))
    assert "WatchdogSecs" in analyze("verify", path, tmp_path=tmp_path).stderr


@needs_systemd
@pytest.mark.parametrize("unit", [unit for unit in UNITS if not unit.user], ids=str)
def test_a_unit_of_the_system_is_hardened(unit, rendered, tmp_path):
    done = analyze(
        *("security", "--offline=true", f"--threshold={LEAST_EXPOSED}", rendered(unit)),
        tmp_path=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_a_unit_differs_from_the_shipped_one_only_in_its_executable(unit, rendered, bin_path):
    before = unit.shipped_path.read_text().splitlines()
    after = rendered(unit).read_text().splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    ((old, new),) = changed
    assert old.startswith(f"ExecStart=/opt/ctpeer/bin/{unit.name} ")
    assert new == old.replace("/opt/ctpeer/bin", str(bin_path))


@pytest.mark.parametrize("unit", [Unit(), Unit(user=True)], ids=str)
def test_the_daemon_is_run_as_the_operations_guide_asks(unit):
    lines = unit.shipped_path.read_text().splitlines()
    wanted = (
        "Type=notify NotifyAccess=main Restart=on-failure RestartSec=5 RestartPreventExitStatus=78"
        " WatchdogSec=120 TimeoutStartSec=5min TimeoutStopSec=120 KillMode=mixed OOMPolicy=continue"
        " StartLimitIntervalSec=10min StartLimitBurst=5 Nice=10 CPUSchedulingPolicy=batch"
        " CPUWeight=20 IOWeight=20 MemoryHigh=75% MemoryMax=85% UMask=0077"
    )
    assert [key for key in wanted.split() if key not in lines] == []
    assert not [line for line in lines if re.match("(MemoryDenyWrite|PrivateDev).*=yes", line)]


def test_a_run_stands_before_the_file_that_may_override_it(rendered):
    lines = rendered(Unit(), 'CTPEER_RUN=/srv/50% "off"').read_text().splitlines()
    at = lines.index('Environment="CTPEER_RUN=/srv/50%% \\"off\\""')
    assert lines[at + 1].startswith("EnvironmentFile=")


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=50))
def test_what_is_quoted_is_read_back_as_it_was(text):
    assert _unquoted(_quoted(text)) == text


@pytest.mark.parametrize("path", ["/srv/my venv/bin", "/srv/50%/bin", '/srv/"/bin', "/srv/$HOME/b"])
def test_a_path_that_systemd_would_misread_is_refused(path):
    with pytest.raises(ConfigurationError, match="mean something to systemd"):
        render("ExecStart=/opt/ctpeer/bin/ctpeer start", Path(path), None)


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/home/me/venv", True),
        ("/root/.venv", True),
        ("/tmp/x", True),
        ("/opt/ctpeer", False),
        ("/usr", False),
        ("/homestead/venv", False),
    ],
)
def test_paths_that_a_service_cannot_see_are_known(path, hidden):
    assert (find_hidden([Path("/usr"), Path(path)]) == Path(path)) == hidden
