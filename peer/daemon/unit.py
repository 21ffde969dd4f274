"""The units of systemd that run us: made of those that are shipped, put in place, asked about.

The shipped ones lie in `systemd/` of the repository, and beside this module where it is installed.
An installed unit differs from its own only in the path of the executable, and in the run if one
was given.
"""

import dataclasses
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import peer
from peer import __version__
from peer.config.home import Home, resolve_home
from peer.daemon.client import get_status
from peer.errors import ConfigurationError, CtpeerError, UsageError
from peer.run.directory import write_atomically
from peer.run.invite import looks_like_invite

SHIPPED_PATH = Path(__file__).with_name("systemd")
SHIPPED_BIN = "/opt/ctpeer/bin"
BOOTED_PATH = Path("/run/systemd/system")
"""There where systemd runs the machine (sd_booted(3))."""

_RUN_VARIABLES = {"ctpeer": "CTPEER_RUN", "ctpeer-monitor": "MONITOR_RUN"}
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 named, not used
"""What ProtectHome and PrivateTmp keep from a system service (systemd.exec(5))."""
_PLAIN_PATH = re.compile(r"[\w/.+@=:,-]+", re.ASCII)
_QUESTION_TIMEOUT_S = 60.0
_NO_SYSTEMD = (
    "systemd does not run this machine, so there can be no service of it; `ctpeer start` runs the "
    "daemon by hand"
)
_ADVICE = (
    "make a virtual environment with the system's own python, `python3 -m venv /opt/ctpeer`, and "
    "install ctpeer there and not in editable mode; or install for yourself alone with --user"
)


@dataclasses.dataclass(frozen=True)
class Unit:
    """One of the shipped units, of the system or of this user.

    Attributes:
        name: The command that it runs.
        user: Whether it is this user's.
    """

    name: str = "ctpeer"
    user: bool = False

    @property
    def file_name(self) -> str:
        """What systemd calls it."""
        return f"{self.name}.service"

    @property
    def shipped_path(self) -> Path:
        """The unit as it is shipped."""
        return SHIPPED_PATH / ("user" if self.user else "") / self.file_name

    @property
    def path(self) -> Path:
        """Where systemd looks for it (systemd.unit(5))."""
        if not self.user:
            return Path("/etc/systemd/system") / self.file_name
        configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(configuration) / "systemd" / "user" / self.file_name

    @property
    def home_path(self) -> Path:
        """Where it keeps everything."""
        return resolve_home(None).path if self.user else Path("/var/lib") / self.name

    @property
    def systemctl(self) -> str:
        """The command that a person gives to systemd for it."""
        return "systemctl --user" if self.user else "systemctl"

    @property
    def journal(self) -> str:
        """The command that shows what it printed."""
        return f"journalctl {'--user ' if self.user else ''}-u {self.name}"


def render(shipped: str, bin_path: Path, setting: str | None) -> str:
    """Return a unit that runs what lies in `bin_path`.

    Args:
        shipped: The unit as it is shipped.
        bin_path: Where the executable lies.
        setting: `NAME=value` for its environment, or None.

    Raises:
        ConfigurationError: systemd would read the path as something else.
    """
    if not _PLAIN_PATH.fullmatch(str(bin_path)):
        raise ConfigurationError(
            f"{bin_path} has characters that mean something to systemd; {_ADVICE}"
        )
    text = shipped.replace(f"ExecStart={SHIPPED_BIN}/", f"ExecStart={bin_path}/")
    if setting is None:
        return text
    line = f'Environment="{_quoted(setting)}"'
    return text.replace("\nEnvironmentFile=", f"\n{line}\nEnvironmentFile=", 1)


def find_hidden(paths: Iterable[Path]) -> Path | None:
    """Return the first of `paths` that a system service cannot see, by where it lies."""
    return next((p for p in paths if any(p.is_relative_to(hidden) for hidden in _HIDDEN)), None)


def install(unit: Unit, run: str | None) -> bool:
    """Put `unit` in place and have it started at every boot, or login.

    Args:
        unit: The unit.
        run: The run to work on, as an invite or a path; None leaves that as it is.

    Returns:
        Whether that changed the unit.

    Raises:
        CtpeerError: This machine or this user cannot, and what to do.
    """
    _check_systemd(unit)
    bin_path = Path(sys.prefix) / "bin"
    if not os.access(bin_path / unit.name, os.X_OK):
        raise ConfigurationError(
            f"there is no {unit.name} in {bin_path}; install ctpeer with pip into a virtual "
            "environment, and give this command with the ctpeer of that one"
        )
    if not unit.user:
        _check_visible((Path(sys.prefix), Path(sys.base_prefix), Path(peer.__file__).parent))
    before = _installed(unit)
    text = render(unit.shipped_path.read_text(), bin_path, _setting(unit, run, before))
    if text != before:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(unit.path, text.encode())
        unit.path.chmod(0o644)
    _systemctl(unit, "daemon-reload")
    _systemctl(unit, "enable", unit.file_name)
    return text != before


def restart(unit: Unit) -> None:
    """Start an installed unit, anew if it runs, and wait until it is ready.

    Raises:
        CtpeerError: It did not start.
    """
    _systemctl(unit, "restart", unit.file_name, timeout_s=None)


def uninstall(unit: Unit) -> bool:
    """Stop `unit` and take it away; what it keeps stays. Return False if there was none.

    Raises:
        CtpeerError: This machine or this user cannot, and what to do.
    """
    _check_systemd(unit)
    if _installed(unit) is None:
        return False
    _systemctl(unit, "disable", "--now", unit.file_name, timeout_s=None)
    unit.path.unlink()
    _systemctl(unit, "daemon-reload")
    return True


def describe(unit: Unit) -> dict[str, Any]:
    """Return how `unit` is, as JSON has it.

    Raises:
        CtpeerError: systemd does not run here, or does not answer.
    """
    if not BOOTED_PATH.is_dir():
        raise CtpeerError(_NO_SYSTEMD)
    names = "ActiveState,SubState,Result,UnitFileState,StatusText,MainPID,NRestarts,ExecMainStatus"
    shown = _systemctl(unit, "show", f"--property={names}", unit.file_name)
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    pid = int(found.get("MainPID") or 0) or None
    return {
        "schema": 1,
        "version": __version__,
        "version_running": _running_version(unit, pid),
        "unit": unit.file_name,
        "user": unit.user,
        "path": str(unit.path),
        "installed": unit.path.is_file(),
        "enabled": found.get("UnitFileState") == "enabled",
        "active": found.get("ActiveState") == "active",
        "state": f"{found.get('ActiveState')} ({found.get('SubState')})",
        "result": found.get("Result") or None,
        "says": found.get("StatusText") or None,
        "pid": pid,
        "restarts": int(found.get("NRestarts") or 0),
        "exit_code": int(found.get("ExecMainStatus") or 0),
        "home": str(unit.home_path),
        "journal": unit.journal,
    }


def _running_version(unit: Unit, pid: int | None) -> str | None:
    """Return the version of the daemon that runs as `pid`; None where nobody can say it.

    Only a peer has a control socket, which answers its owner and root.
    """
    if pid is None or unit.name != "ctpeer":
        return None
    try:
        status = get_status(Home(unit.home_path))
    except CtpeerError:
        return None
    # A daemon that was started by hand on the same home is not the service.
    return str(status["version"]) if status.get("pid") == pid and "version" in status else None


def _check_systemd(unit: Unit) -> None:
    if not BOOTED_PATH.is_dir():
        raise CtpeerError(_NO_SYSTEMD)
    if not unit.user and os.geteuid() != 0:
        raise CtpeerError(
            "a service of the system needs root: put sudo and the whole path of ctpeer before "
            f"this command ({Path(sys.prefix) / 'bin' / 'ctpeer'}), or give it --user"
        )


def _check_visible(paths: Iterable[Path]) -> None:
    """Raise ConfigurationError if the unit's own user could not read one of `paths`."""
    resolved = [path.resolve() for path in paths]
    hidden = find_hidden(resolved)
    if hidden is not None:
        raise ConfigurationError(f"{hidden} is hidden from a service of the system; {_ADVICE}")
    for path in resolved:
        for folder in (path, *path.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                raise ConfigurationError(
                    f"{folder} is closed to other users, and the service runs as one; open it "
                    f"with `chmod o+rx {folder}`, or {_ADVICE}"
                )


def _installed(unit: Unit) -> str | None:
    """Return the unit that is in place, or None.

    Raises:
        ConfigurationError: It is somebody else's.
    """
    try:
        text = unit.path.read_text()
    except FileNotFoundError:
        return None
    if not re.search(rf"^ExecStart=\S*/{unit.name}(\s|$)", text, re.MULTILINE):
        raise ConfigurationError(f"{unit.path} does not run {unit.name}; move it away first")
    return text


def _setting(unit: Unit, run: str | None, before: str | None) -> str | None:
    """Return the line of the environment that says which run, or None.

    Raises:
        UsageError: The run cannot be used.
    """
    variable = _RUN_VARIABLES.get(unit.name)
    if run is None:
        kept = re.search(rf'^Environment="{variable}=(.*)"$', before or "", re.MULTILINE)
        return None if kept is None else f"{variable}={_unquoted(kept[1])}"
    if variable is None:
        raise UsageError(f"{unit.name} serves any run; leave out --run")
    if looks_like_invite(run):
        return f"{variable}={''.join(run.split())}"
    path = Path(run).expanduser().resolve()
    if not path.exists() or not str(path).isprintable():
        raise UsageError(f"{run} is neither an invite nor the path of a run")
    if not unit.user and find_hidden([path]) is not None:
        raise UsageError(f"{path} is hidden from a service of the system; copy it to /srv, say")
    return f"{variable}={path}"


def _quoted(setting: str) -> str:
    return setting.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text.replace("%%", "%"))


def _systemctl(unit: Unit, *arguments: str, timeout_s: float | None = _QUESTION_TIMEOUT_S) -> str:
    """Return what systemctl prints.

    Raises:
        CtpeerError: It fails, and what it said.
    """
    command = [*unit.systemctl.split(), "--no-pager", *arguments]
    environment = dict(os.environ)
    if unit.user:  # a shell that su or sudo opened lacks it
        environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise CtpeerError(_NO_SYSTEMD) from error
    except subprocess.TimeoutExpired as error:
        raise CtpeerError(f"`{' '.join(command)}` does not answer; look at `systemctl`") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise CtpeerError(f"`{' '.join(command)}` failed: {said}; look at `{unit.journal} -n 50`")
    return done.stdout
