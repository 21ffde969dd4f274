"""Which run to watch, and whom to ask first, out of what a person typed."""

import re
from collections.abc import Iterable
from pathlib import Path

from monitoring.watched import Watched
from peer.config.home import Home
from peer.errors import ConfigurationError, UsageError
from peer.run.directory import RunDirectory
from peer.run.invite import looks_like_invite, parse_invite
from peer.run.manifest import Manifest
from peer.swarm.listening import check_peers
from peer.swarm.membership import load_known_peers

_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}-[0-9a-f]{32}")


def choose(
    run: str, peers: Iterable[str], home: Home | None, interval_s: float, *, allow_private: bool
) -> Watched:
    """Return what to watch.

    Args:
        run: An invite, a run id, or the path of a run's directory.
        peers: Addresses to begin with, beside the invite's.
        home: A daemon's, whose known peers and runs may be used; None: nobody's.
        interval_s: From one crawl to the next.
        allow_private: Whether targets may have private addresses.

    Raises:
        UsageError: The invite is none.
        ConfigurationError: There is no such run, or nobody to ask.
    """
    addresses = tuple(peers)
    check_peers(addresses)
    manifest: Manifest | None = None
    if looks_like_invite(run):
        # Who only watches joins nothing: an invite that has expired still says whom to ask.
        invite = parse_invite(run, 0.0)
        run_id, addresses = invite.run_id, (*invite.addresses, *addresses)
    elif _RUN_ID.fullmatch(run) and not Path(run).exists():
        run_id = run
    elif Path(run).exists():
        directory = RunDirectory.open(Path(run))
        run_id, manifest = directory.run_id, directory.manifest
    else:
        raise UsageError(
            f"{run[:60]!r} is neither an invite, as `ctpeer invite` prints it, nor a run id, nor "
            "the path of a run"
        )
    known: tuple[str, ...] = ()
    if home is not None:
        cached = load_known_peers(home.known_peers_path)
        known = tuple(address for where in cached.values() for address in where)
        if manifest is None and run_id in home.run_ids():
            manifest = RunDirectory.open(home.run_path(run_id)).manifest
    if not addresses and not known:
        raise ConfigurationError(
            f"no peer of {run_id} is known: give an invite in place of the run, an address with "
            "--peers, or the home of a peer of the run with --home"
        )
    return Watched(
        run_id=run_id,
        addresses=tuple(dict.fromkeys(addresses)),
        known=tuple(dict.fromkeys(known)),
        manifest=manifest,
        interval_s=interval_s,
        allow_private=allow_private,
    )
