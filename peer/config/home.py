"""The home: the one folder in which a daemon keeps everything."""

import contextlib
import dataclasses
import errno
import os
import shutil
from pathlib import Path

from peer.errors import ConfigurationError

_LONGEST_SOCKET_PATH_BYTES = 100
"""A Unix socket's path has 108 bytes in all (unix(7))."""


@dataclasses.dataclass(frozen=True)
class Home:
    """Where things lie in a home."""

    path: Path

    @property
    def settings_path(self) -> Path:
        """This volunteer's choices."""
        return self.path / "peer.toml"

    @property
    def identity_path(self) -> Path:
        """The peer's private key."""
        return self.path / "identity.key"

    @property
    def lock_path(self) -> Path:
        """Held by the daemon while it runs; holds its process id."""
        return self.path / "lock"

    @property
    def socket_path(self) -> Path:
        """The control socket."""
        return self.path / "control.sock"

    @property
    def log_path(self) -> Path:
        """The log."""
        return self.path / "logs" / "ctpeer.log"

    @property
    def last_run_path(self) -> Path:
        """The id of the run that was started last."""
        return self.path / "last_run"

    @property
    def last_status_path(self) -> Path:
        """The status as the daemon last knew it."""
        return self.path / "last_status.json"

    @property
    def history_path(self) -> Path:
        """The curves of the run that ran last."""
        return self.path / "history.json"

    @property
    def page_key_path(self) -> Path:
        """The key of the local page."""
        return self.path / "page.key"

    @property
    def known_peers_path(self) -> Path:
        """Where other peers were reached."""
        return self.path / "known_peers.json"

    @property
    def port_path(self) -> Path:
        """The port that the last start listened at."""
        return self.path / "port.json"

    @property
    def runs_path(self) -> Path:
        """The runs, each in a folder named by its id."""
        return self.path / "runs"

    def run_ids(self) -> list[str]:
        """Return the ids of the runs that lie here."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(path.name for path in self.runs_path.iterdir() if path.is_dir())
        return []

    def run_path(self, run_id: str) -> Path:
        """Return the folder of one run."""
        return self.runs_path / run_id

    def disk_free_bytes(self) -> int | None:
        """Return what the disk under this home has left for us; None if it cannot be asked."""
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.path).free
        return None

    def used_bytes(self) -> int:
        """Return the room on the disk that everything in the home takes."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(OSError):  # gone by now
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118 as often as there are files
        return total

    def prepare(self) -> None:
        """Make the home, and make sure that it can be used.

        Raises:
            ConfigurationError: It cannot be made or written, or its path is too long.
        """
        if len(os.fsencode(self.socket_path)) > _LONGEST_SOCKET_PATH_BYTES:
            raise ConfigurationError(
                f"the path of the home {self.path} is too long for a control socket in it; "
                "choose a shorter one with --home"
            )
        probe = self.path / ".probe"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.log_path.parent.mkdir(exist_ok=True)
            self.runs_path.mkdir(exist_ok=True)
            probe.write_bytes(b"\0" * 4096)
            probe.unlink()
        except OSError as error:
            raise ConfigurationError(
                f"the home {self.path} cannot be written: {error.strerror}; {_advice(error)}"
            ) from error


def resolve_home(flag: str | None) -> Home:
    """Return the home that the flag, else CTPEER_HOME, else the platform's custom gives.

    Raises:
        ConfigurationError: It begins with the name of a user who is not there.
    """
    chosen = flag or os.environ.get("CTPEER_HOME")
    if chosen:
        try:
            return Home(Path(chosen).expanduser().absolute())
        except RuntimeError as error:
            raise ConfigurationError(
                f"the home {chosen} belongs to a user that this machine does not know"
            ) from error
    import platformdirs

    return Home(Path(platformdirs.user_data_dir("ctpeer", appauthor=False)))


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "free some space there, or choose another with --home"
        case errno.ENOTDIR | errno.EEXIST:
            return "a file is in its way: move it, or choose another home with --home"
        case _:
            return "give yourself the right to write there, or choose another with --home"
