"""`ctpeer identity`: who this peer is to the others."""

import json

import click

from peer.cli.options import home_option, json_option
from peer.config.home import resolve_home


@click.command()
@json_option
@home_option
def identity(*, as_json: bool, home: str | None) -> None:
    """Print this peer's id and where its key lies; a home without a key gets one.

    The id is the key's hash. Whoever has the key is this peer: keep it.
    """
    from peer.identity import Identity

    where = resolve_home(home)
    where.prepare()
    path = where.identity_path
    peer_id = Identity.load_or_create(path).peer_id
    if as_json:
        click.echo(json.dumps({"schema": 1, "peer_id": peer_id, "key_path": str(path)}, indent=2))
        return
    click.echo(f"peer id     {peer_id}")
    click.echo(f"key         {path}")
