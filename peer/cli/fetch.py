"""`ctpeer checkpoint fetch`: what it asks for, what it shows meanwhile and says at last."""

import asyncio
import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from peer.checkpoint.lineage import NEWEST
from peer.checkpoint.pick import GOOD, check_wish
from peer.cli.chosen import Chosen
from peer.cli.lineage import certificate_of
from peer.config.home import Home
from peer.config.settings import SwarmSettings
from peer.errors import ConfigurationError, CtpeerError, UsageError
from peer.run.directory import MANIFEST
from peer.run.invite import parse_invite

if TYPE_CHECKING:
    from peer.daemon.fetching import Fetched

_SHORT = 12
_REFRESH_S = 0.2
_CLEAR_LINE = "\r\x1b[2K"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the options of the command say.

    Attributes:
        root: ROOT, if it is given.
        invite: An invite to the run, if one is given.
        settings: How peers are met.
        timeout_s: How long a peer may give nothing before it is left.
        quiet: Whether to show nothing meanwhile.
    """

    root: str | None
    invite: str | None
    settings: SwarmSettings
    timeout_s: float
    quiet: bool


def run_fetch(here: Chosen, home: Home, request: Request) -> "Fetched":
    """Fetch the checkpoint that `request` means, of the run chosen, into its folder.

    Raises:
        UsageError: ROOT is none or means several states, or the invite is none or to another run.
        ConfigurationError: The run is not in the home, the disk fails, or no peer is known.
        CtpeerError: Nobody gave it, or a person interrupted it.
    """
    run, folder = here.run, here.shelf.folder
    wish = _wish(request.root, validates=bool(run.manifest.validation.every_epochs), here=here)
    if not (folder.parent / MANIFEST).is_file():
        raise ConfigurationError(
            f"the run {run.run_id} is not in the home {home.path}, and what is fetched is verified "
            "against it; `ctpeer start INVITE` or `ctpeer start run.toml` brings it there"
        )
    addresses = _addresses(request.invite, run.run_id)
    # hivemind loads with it, and torch with hivemind.
    from peer.daemon.fetching import Errand, fetch_checkpoint

    meter = _Meter(shown=sys.stderr.isatty() and not request.quiet)
    errand = Errand(
        home=home,
        settings=request.settings,
        run=run,
        shelf=here.shelf,
        wish=wish,
        addresses=addresses,
        timeout_s=request.timeout_s,
        watcher=meter,
    )
    try:
        return asyncio.run(fetch_checkpoint(errand))
    except KeyboardInterrupt:
        raise CtpeerError(meter.farewell(wish)) from None
    finally:
        meter.clear()


def facts_of_fetch(fetched: "Fetched") -> dict[str, Any]:
    """Return how a checkpoint came here, as JSON has it."""
    return {
        "fresh": fetched.fresh,
        "seconds": fetched.seconds,
        "donors": list(fetched.donors),
        "refused": [dataclasses.asdict(refusal) for refusal in fetched.refusals],
    }


def fetch_text(fetched: "Fetched") -> str:
    """Return how a checkpoint came here, for a person."""
    entry = fetched.entry
    name = f"{entry.state_root[:_SHORT]} of epoch {entry.epoch:,}"
    if not fetched.fresh:
        return f"{name} is here already, and good: {entry.name}"
    peers = f"{len(fetched.donors)} peer{'' if len(fetched.donors) == 1 else 's'}"
    size = f"{entry.size_bytes:,} bytes in {fetched.seconds:.1f} s"
    lines = [f"fetched {name}: {size}, from {peers} that were asked"]
    certificate = certificate_of(entry)
    if certificate is not None:
        group = certificate.vote.group
        lines.append(f"    signed by {len(certificate.signers)} of a group of {len(group)}")
    elif entry.epoch:
        lines.append("    note: no peer gave a certificate that leads there")
    if entry.annotation is None:
        lines.append("    note: no peer gave an annotation, so where it comes from is not known")
    lines += [f"    {each.kind}: {each.donor}: {each.reason}" for each in fetched.refusals]
    return "\n".join(lines)


def _wish(root: str | None, *, validates: bool, here: Chosen) -> str:
    if root is None:
        return GOOD if validates else NEWEST
    check_wish(root)
    if root == GOOD and not validates:
        raise UsageError(
            f"nobody validates {here.run.run_id}: its manifest has no every_epochs; fetch the "
            f"{NEWEST} state, or one by its root"
        )
    return root


def _addresses(invite: str | None, run_id: str) -> tuple[str, ...]:
    """Return where the peers of an invite are."""
    if invite is None:
        return ()
    parsed = parse_invite(invite, time.time())
    if parsed.run_id != run_id:
        raise UsageError(
            f"the invite is to {parsed.run_id}, not to {run_id}; choose the run with --run"
        )
    return parsed.addresses


class _Meter:
    """The line on the terminal that says how far it is."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._root: str | None = None
        self._bytes: tuple[int, int] | None = None
        self._first: tuple[float, int] | None = None
        self._drawn_s = 0.0

    def stage(self, words: str) -> None:
        """Show what is done now."""
        self._draw(words)

    def picked(self, state_root: str) -> None:
        """Remember which state is fetched."""
        self._root, self._bytes, self._first = state_root, None, None

    def progress(self, done: int, total: int) -> None:
        """Show the bytes that are here, and how many come a second."""
        now_s = time.monotonic()
        self._bytes = (done, total)
        first_s, first = self._first = self._first or (now_s, done)
        if now_s - self._drawn_s < _REFRESH_S and done < total:
            return
        self._drawn_s = now_s
        rate = (done - first) / max(now_s - first_s, 1e-3)
        self._draw(
            f"{(self._root or '')[:_SHORT]}: {_megabytes(done, total)} MB, {rate / 1e6:,.1f} MB/s"
        )

    def clear(self) -> None:
        """Leave the line to whatever comes next."""
        self._draw("")

    def farewell(self, wish: str) -> str:
        """Return what to say of what was interrupted."""
        if self._root is None or self._bytes is None:
            return f"interrupted before anything came; `ctpeer checkpoint fetch {wish}` begins anew"
        return (
            f"interrupted: {_megabytes(*self._bytes)} MB are here and stay, and `ctpeer checkpoint "
            f"fetch {self._root}` goes on from there"
        )

    def _draw(self, text: str) -> None:
        if self._shown:
            click.echo(f"{_CLEAR_LINE}{text}", err=True, nl=False)


def _megabytes(done: int, total: int) -> str:
    return f"{done / 1e6:,.1f} of {total / 1e6:,.1f}"
