"""`ctpeer stop`, `finish`, `pause` and `resume`: commands to a running daemon."""

import re

import click

from peer.cli.options import home_option
from peer.config.home import resolve_home
from peer.errors import CtpeerError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STOP_TIMEOUT_S = 60.0
_LONGEST_S = 366 * 86_400


class Duration(click.ParamType[float]):
    """A time such as 90s, 30m, 2h or 1d; seconds without a unit."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds that `value` says."""
        found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([smhd]?)", str(value))
        seconds = float(found[1]) * _UNITS_S[found[2] or "s"] if found else 0.0
        if not 0.0 < seconds <= _LONGEST_S:
            self.fail(f"{value!r} is not a time such as 90s, 30m, 2h or 1d", param, ctx)
        return seconds


@click.command()
@home_option
def stop(*, home: str | None) -> None:
    """Write a checkpoint of the last epoch, end the daemon, and wait for its end."""
    from peer.daemon import client, lock

    where = resolve_home(home)
    pid = client.command(where, "stop")["pid"]
    if not lock.wait_until_free(where, _STOP_TIMEOUT_S):
        raise CtpeerError(
            f"the daemon (process {pid}) has not ended within {_STOP_TIMEOUT_S:.0f} s; "
            "look at `ctpeer logs`, or kill that process"
        )
    last = client.last_status(where)
    if last is None or last["epoch"] is None:
        click.echo("stopped before anything was loaded")
        return
    saved = last["checkpoint"]["epoch"] if last["checkpoint"] else None
    if saved != last["epoch"]:
        newest = "none" if saved is None else f"of epoch {saved}"
        raise CtpeerError(
            f"stopped at epoch {last['epoch']}, but the newest checkpoint is {newest}: "
            f"{last['reason']}; look at `ctpeer logs`"
        )
    click.echo(f"stopped at epoch {last['epoch']}")


@click.command()
@home_option
def finish(*, home: str | None) -> None:
    """Complete the epoch, write a checkpoint, end; returns at once."""
    from peer.daemon import client

    status = client.command(resolve_home(home), "finish")
    click.echo(f"{status['state']}: the epoch under way will be the last")


@click.command()
@click.option(
    "--for",
    "for_s",
    type=Duration(),
    metavar="TIME",
    help="Go on by itself after 90s, 30m, 2h or 1d.",
)
@home_option
def pause(*, for_s: float | None, home: str | None) -> None:
    """Stop training for now and give the device back; a restart of the worker stays paused."""
    from peer.daemon import client

    client.command(resolve_home(home), "pause", for_s=for_s)
    click.echo("pausing; `ctpeer resume` goes on")


@click.command()
@home_option
def resume(*, home: str | None) -> None:
    """Go on after a pause."""
    from peer.daemon import client

    client.command(resolve_home(home), "resume")
    click.echo("resuming")
