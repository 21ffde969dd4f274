"""`ctpeer sandbox`: a whole swarm on this machine, in this terminal."""

import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.cli.options import json_option

if TYPE_CHECKING:
    from rich.table import Table

    from peer.sandbox.member import Member
    from peer.sandbox.plan import Plan

SCENARIOS = ("poisoned-candidate", "lying-validators", "killed-seats")
_PEERS, _MAX_EPOCHS = 4, 20
_SCENARIO_PEERS, _SCENARIO_MAX_EPOCHS, _SCENARIO_EVERY = 8, 40, 5
_FOUNDER_FLAG = "--kill-founder"
_PREFIX = "ctpeer-sandbox-"
_LONGEST_FOLDER = 70
"""How long the path of a temporary folder may be: a home in it holds a socket."""
_SHOWN_CHARS = 10
_HEAD = ("peer", "id", "pid", "state", "epoch", "group", "loss", "root", "note")
_RIGHT = {"peer", "pid", "epoch", "group", "loss"}

Show = Callable[[Sequence["Member"]], None]


class SandboxCommand(click.Command):
    """Takes `--kill-founder@9`, spelled as the other kills are, beside `--kill-founder 9`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split that one flag, then do as click does."""
        split = []
        for arg in args:
            flag, at, epoch = arg.partition("@")
            split += [flag, epoch] if flag == _FOUNDER_FLAG and at else [arg]
        return super().parse_args(ctx, split)


@click.command(cls=SandboxCommand)
@click.option("--peers", type=click.IntRange(1, 64), help="4 if not given, and 8 with a scenario.")
@click.option(
    "--max-epochs",
    type=click.IntRange(min=1),
    help="All leave when all hold this epoch; 20 if not given, and 40 with a scenario.",
)
@click.option(
    "--kill", multiple=True, metavar="PEER@EPOCH", help="SIGKILL all of a peer's processes there."
)
@click.option(
    _FOUNDER_FLAG,
    type=click.IntRange(min=0),
    metavar="EPOCH",
    help="The same for peer 0; also --kill-founder@EPOCH.",
)
@click.option(
    "--join-at", type=click.IntRange(min=0), multiple=True, help="One more peer joins there."
)
@click.option(
    "--freeze",
    multiple=True,
    metavar="PEER@EPOCH:SECONDS",
    help="SIGSTOP all of a peer's processes there, and let them go on after that long.",
)
@click.option(
    "--home", metavar="DIR", help="Keep the peers' homes, as DIR/0, DIR/1 ...; else nothing stays."
)
@click.option(
    "--validate-every",
    type=click.IntRange(min=0),
    metavar="EPOCHS",
    help="Judge the checkpoint of each so many epochs, whatever the run says; 0 judges none. 5 if "
    "a scenario is given and this is not.",
)
@click.option(
    "--scenario",
    type=click.Choice(SCENARIOS),
    help="Have the judging go wrong: most of the group flips its contributions, validators lie, or "
    "are killed in their seats; and check that the swarm comes through.",
)
@click.option("--run", metavar="MANIFEST", help="What to train; the demo if not given.")
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="End after that long whatever happens; 300 and 5 for each epoch if not given.",
)
@json_option
def sandbox(  # noqa: PLR0913 one parameter an option
    *,
    peers: int | None,
    max_epochs: int | None,
    kill: tuple[str, ...],
    kill_founder: int | None,
    join_at: tuple[int, ...],
    freeze: tuple[str, ...],
    home: str | None,
    validate_every: int | None,
    scenario: str | None,
    run: str | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Run a swarm of real peers on this machine, hurt it, and say how it went.

    Peer 0 founds; the others join with its invite, and all begin together. The exit code is 0 only
    if every live peer ended at the last epoch with equal roots, and every peer took part in at
    least 95 % of the commits at which it was live. A peer that is killed or frozen is live up to
    the epoch at which that happened; one that joins or is thawed, from the second commit after it
    was seen at the swarm's epoch.
    """
    from peer.run.demo import demo_run_path
    from peer.sandbox.plan import FOUNDER, Fault, Kind, make_plan, parse_freeze, parse_kill
    from peer.sandbox.sandbox import Sandbox

    founder = [] if kill_founder is None else [Fault(Kind.KILL, FOUNDER, kill_founder)]
    hurts = [*map(parse_kill, kill), *founder, *map(parse_freeze, freeze)]
    manifest = Path(run) if run is not None else demo_run_path()
    if scenario is not None:
        plan = _staged(scenario, peers, max_epochs, validate_every, timeout, hurts or join_at)
        validate_every = plan.validate_every
    else:
        plan = make_plan(
            peers or _PEERS,
            max_epochs or _MAX_EPOCHS,
            hurts=hurts,
            join_at=join_at,
            timeout_s=timeout,
            validate_every=_distance(manifest) if validate_every is None else validate_every,
        )
    with _interrupts() as interrupts, _scratch() as scratch, _view(plan) as (say, show):
        folder = Path(home).expanduser().absolute() if home is not None else scratch
        temporary = scratch / "tmp"
        temporary.mkdir()
        if validate_every is not None:
            manifest = _judged_every(manifest, validate_every, scratch)
        outcome = Sandbox(plan, folder, temporary, manifest, interrupts, say, show).run()
    click.echo(json.dumps(outcome.report, indent=2) if as_json else summary(outcome.report))
    click.get_current_context().exit(0 if outcome.ok else 1)


def _staged(
    scenario: str,
    peers: int | None,
    max_epochs: int | None,
    every: int | None,
    timeout_s: float | None,
    other_faults: Sequence[object],
) -> "Plan":
    from peer.errors import UsageError
    from peer.sandbox.plan import make_plan
    from peer.sandbox.scenario import ScenarioName, make_scenario

    if other_faults:
        raise UsageError("a scenario has its own faults; leave out the others")
    peers, max_epochs = peers or _SCENARIO_PEERS, max_epochs or _SCENARIO_MAX_EPOCHS
    every = _SCENARIO_EVERY if every is None else every
    staged = make_scenario(ScenarioName(scenario), peers, max_epochs, every)
    return make_plan(peers, max_epochs, timeout_s=timeout_s, validate_every=every, scenario=staged)


def _distance(manifest: Path) -> int:
    """Return how far the run's candidates are apart; what is wrong with a run its founder says."""
    from peer.errors import ConfigurationError
    from peer.run.directory import RunDirectory

    try:
        return RunDirectory.open(manifest).manifest.validation.every_epochs
    except ConfigurationError:
        return 0


def _judged_every(manifest: Path, epochs: int, scratch: Path) -> Path:
    """Return the run of `manifest` with another distance of candidates, founded anew."""
    from peer.founding.vary import vary
    from peer.identity import Identity
    from peer.run.directory import RunDirectory

    run = RunDirectory.open(manifest)
    validation = run.manifest.validation.model_copy(update={"every_epochs": epochs})
    founder = Identity.load_or_create(scratch / "founder.key")
    return vary(run, scratch / "run", founder, validation=validation).path


def summary(report: Mapping[str, Any]) -> str:
    """Return the report for a person."""
    lines = [f"{report['epochs']} epochs in {report['duration_s']:.1f} s"]
    for peer in report["peers"]:
        root = (peer["state_root"] or "-")[:_SHOWN_CHARS]
        heldout = "-" if peer["heldout"] is None else f"{peer['heldout']:.3f}"
        share = f"in {peer['commits_contributed']} of {peer['commits_expected']} commits"
        lines.append(
            f"peer {peer['index']}: {'live' if peer['alive'] else 'gone'}, "
            f"epoch {peer['epoch']}, root {root}, held-out {heldout}, {share}"
        )
    for verdict in report["verdicts"]:
        after_s = verdict["seconds_after_candidate"]
        after = "" if after_s is None else f" {after_s:.1f} s later"
        lines.append(
            f"verdict on epoch {verdict['epoch']}{after}: {verdict['decision']}, "
            f"{verdict['difference_nats']:+.4f} nats, signed by {len(verdict['signers'])}"
        )
    if report["rollbacks"]:
        lines.append(f"rollbacks: {report['rollbacks']}, to generation {report['generation']}")
    for event in report["events"]:
        following = event["next_commit_s"]
        after = (
            "no commit followed" if following is None else f"next commit {following:.1f} s later"
        )
        lines.append(f"{event['kind']} of peer {event['peer']} at epoch {event['epoch']}: {after}")
    if report["scenario"] is not None:
        told = (f"{name} {value}" for name, value in report["scenario"].items() if name != "name")
        lines.append(f"scenario {report['scenario']['name']}: {', '.join(told)}")
    failed = sum(report["failed_rounds"].values())
    lines.append(f"{failed} rounds failed, {report['lost_epochs']} epochs lost")
    lines += [f"problem: {problem}" for problem in report["problems"]]
    lines.append("all as it should be" if report["ok"] else "not as it should be")
    return "\n".join(lines)


def rows(members: Sequence["Member"]) -> list[tuple[str, ...]]:
    """Return the live table's rows, one a peer, in the order of `_HEAD`."""
    found: list[tuple[str, ...]] = []
    for member in members:
        status = member.status or {}
        loss, root = status.get("loss"), status.get("state_root")
        found.append(
            (
                str(member.index),
                (member.peer_id or "-")[-_SHOWN_CHARS:],
                str(member.processes.pid),
                member.doing,
                "-" if member.epoch < 0 else str(member.epoch),
                str(status.get("rounds", {}).get("group", "-")),
                "-" if loss is None else f"{loss:.3f}",
                "-" if root is None else root[:_SHOWN_CHARS],
                member.note,
            )
        )
    return found


def _table(members: Sequence["Member"]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in _HEAD:
        table.add_column(name, justify="right" if name in _RIGHT else "left")
    for row in rows(members):
        table.add_row(*map(Text, row))
    return table


@contextlib.contextmanager
def _view(plan: "Plan") -> Iterator[tuple[Callable[[str], None], Show]]:
    """Give what takes sentences, and what takes the peers: a live table, or nothing but lines."""
    if not sys.stderr.isatty():
        yield lambda sentence: click.echo(sentence, err=True), lambda _: None
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    console.print(f"{plan.peers} peers up to epoch {plan.max_epochs}; Ctrl-C ends them all")
    with Live(console=console, auto_refresh=False) as live:
        yield (
            lambda sentence: console.print(sentence, style="dim", markup=False, highlight=False),
            lambda members: live.update(_table(members), refresh=True),
        )


@contextlib.contextmanager
def _interrupts() -> Iterator[list[str]]:
    """Give a list that takes the names of signals that ask for an end, as they come."""
    came: list[str] = []
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(n, lambda n, _: came.append(signal.Signals(n).name)) for n in kinds]
    try:
        yield came
    finally:
        for number, handler in zip(kinds, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Give a folder with a short path that is gone afterwards."""
    base = tempfile.gettempdir()
    if len(base) > _LONGEST_FOLDER - len(_PREFIX):
        base = "/tmp"  # noqa: S108 the folder in it is 0700 and its name is new
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=base, ignore_cleanup_errors=True) as name:
        yield Path(name)
