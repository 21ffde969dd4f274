"""`ctpeer invite`: one string with which a stranger joins the run."""

import json
import time

import click

from peer.cli.control import Duration
from peer.cli.options import home_option, json_option
from peer.config.home import resolve_home
from peer.daemon.client import get_status
from peer.errors import CtpeerError, UsageError


@click.command()
@click.option(
    "--expires",
    "expires_in_s",
    type=Duration(),
    metavar="TIME",
    help="Let it hold for 30m, 12h or 7d only; it holds for ever if not given.",
)
@json_option
@home_option
def invite(*, expires_in_s: float | None, as_json: bool, home: str | None) -> None:
    """Print an invite to the run that this peer trains: `ctpeer start INVITE` joins it.

    It is no secret. It leads to this peer, and after that to all others; once somebody has joined,
    their invites are as good.
    """
    from peer.run.invite import Invite, dump_invite

    status = get_status(resolve_home(home))
    run_id, addresses = status.get("run_id"), status.get("addresses")
    others = [p["address"] for p in status.get("swarm_peers", ()) if p["state"] != "unreachable"]
    if not run_id or not addresses:
        raise CtpeerError(
            f"this peer has no address yet that others could dial ({status.get('reason')}); wait "
            "for a moment, and look at `ctpeer status` and at swarm.enabled in `ctpeer config show`"
        )
    expires_s = None if expires_in_s is None else int(time.time() + expires_in_s)
    try:
        made = Invite.of(run_id, [*addresses[:4], *filter(None, others)], expires_s)
    except UsageError as error:
        raise CtpeerError(
            f"none of this peer's addresses ({', '.join(addresses)}) could be dialled by others; "
            "name one with swarm.announce in peer.toml"
        ) from error
    text = dump_invite(made)
    if not as_json:
        click.echo(text)
        return
    body = {
        "schema": 1,
        "invite": text,
        "run_id": made.run_id,
        "addresses": list(made.addresses),
        "expires_unix_s": made.expires_s,
    }
    click.echo(json.dumps(body, indent=2))
