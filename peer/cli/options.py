"""Options that many commands share."""

import click

home_option = click.option(
    "--home",
    metavar="DIR",
    help="The folder that holds everything of this peer; $CTPEER_HOME, or the platform's place.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
