"""The command `ctpeer`: which commands there are, and how an error reaches a person.

A command's module is loaded when the command runs, so that `ctpeer --help` and `ctpeer status`
load nothing that they do not need.
"""

import importlib
import os
from typing import Any

import click

from peer import __version__
from peer.errors import ConfigurationError, CtpeerError

COMMANDS = {
    "start": ("peer.cli.start", "Train: what ran last, else the demo; or the run that is given."),
    "stop": ("peer.cli.control", "Write a checkpoint, end the daemon, and wait for its end."),
    "finish": ("peer.cli.control", "Complete the epoch, write a checkpoint, end."),
    "pause": ("peer.cli.control", "Stop training for now and give the device back."),
    "resume": ("peer.cli.control", "Go on after a pause."),
    "status": ("peer.cli.status", "What the daemon does, and why."),
    "doctor": ("peer.cli.doctor", "What is wrong with this peer, and what mends it."),
    "peers": ("peer.cli.peers", "The other peers of the run, and how they are."),
    "invite": ("peer.cli.invite", "Print what a stranger needs to join the run."),
    "identity": ("peer.cli.identity", "Print this peer's id."),
    "logs": ("peer.cli.logs", "Print the end of the log."),
    "run": ("peer.cli.run", "Found a run, look at one, verify one."),
    "data": ("peer.cli.data", "Index one's own text; see which shards would be chosen."),
    "checkpoint": (
        "peer.cli.checkpoint",
        "Fetch, list, verify, export checkpoints; lineage.",
    ),
    "verdicts": ("peer.cli.verdicts", "What validators found of the checkpoints; verify it."),
    "validators": ("peer.cli.validators", "Who may judge checkpoints, and how they did."),
    "sandbox": ("peer.cli.sandbox", "A whole swarm on this machine, to try it and to test it."),
    "service": ("peer.cli.service", "Have systemd start the daemon at every boot."),
    "config": ("peer.cli.config", "This peer's own settings, and where each comes from."),
    "version": ("peer.cli.version", "Print the versions that run."),
    "completion": ("peer.cli.completion", "Print the completion script of a shell."),
}
"""Command -> module that holds it under that name, and its line in the help."""


class LazyGroup(click.Group):
    """A group whose commands are loaded when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click's signature
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Load a command, or return None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the help's list of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error that a person should read becomes a sentence and its code."""
        try:
            return super().invoke(ctx)
        except CtpeerError as error:
            click.echo(f"ctpeer: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise  # click's own affair
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            reason = os.strerror(error.errno) if error.errno else str(error)
            click.echo(f"ctpeer: {where}{reason}; mend that and try again", err=True)
            ctx.exit(ConfigurationError.exit_code)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 not running, 78 configuration.",
)
@click.version_option(__version__, prog_name="ctpeer", message="%(prog)s %(version)s")
def main() -> None:
    """Train a foundation model together with others, with no master.

    `ctpeer start` begins. Everything it keeps lies in its home (see --home).
    """
