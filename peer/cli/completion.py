"""`ctpeer completion`: the script with which a shell completes our commands and options."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script of SHELL.

    For bash: ctpeer completion bash > ~/.local/share/bash-completion/completions/ctpeer
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root().command
    click.echo(kind(root, {}, "ctpeer", "_CTPEER_COMPLETE").source())
