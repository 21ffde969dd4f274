"""`ctpeer logs`: the end of the log, and what is added to it."""

import contextlib
import os
import time
from collections import deque
from pathlib import Path

import click

from peer.cli.options import home_option
from peer.config.home import resolve_home
from peer.errors import ConfigurationError

_POLL_S = 0.3


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many."
)
@home_option
def logs(*, follow: bool, lines: int, home: str | None) -> None:
    """Print the last lines of the log."""
    path = resolve_home(home).log_path
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in deque(file, maxlen=lines):
                click.echo(line, nl=False)
            place = file.tell()
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no log at {path}; has a daemon ever run on this home?"
        ) from error
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            _follow(path, place)


def _follow(path: Path, place: int) -> None:
    """Print what is added to `path` after byte `place`, over the log's rotations."""
    while True:
        file = path.open(encoding="utf-8", errors="replace")
        with file:
            file.seek(place)
            while _is_same(path, file.fileno()):
                click.echo(file.read(), nl=False)
                time.sleep(_POLL_S)
            click.echo(file.read(), nl=False)
        place = 0


def _is_same(path: Path, descriptor: int) -> bool:
    """Return whether the file open as `descriptor` is still the one at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:  # between the two renames of a rotation
        return True
