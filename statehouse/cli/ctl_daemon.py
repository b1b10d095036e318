"""The commands of `statehousectl` that ask about the daemon itself."""

import click

from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import CommandEnd, json_option, print_json
from statehouse.cli.exit_codes import ControlExit


@click.command(
    short_help="Say whether the daemon serves.",
    epilog="""\b
Example:
  until statehousectl health; do sleep 1; done
""",
)
@json_option
@with_connection
def health(connection: Connection, *, as_json: bool) -> None:
    """Say whether the daemon serves: prints its status, exits with 0 when that is 'ok' and with 1 when not."""
    status = connection.client.health()
    if as_json:
        print_json({"status": status})
    else:
        click.echo(status)
    if status != "ok":
        raise CommandEnd(ControlExit.NEGATIVE)


@click.command(
    short_help="Print the daemon's version.",
    epilog="""\b
Example:
  statehousectl version --json | jq -r .git_sha
""",
)
@json_option
@with_connection
def version(connection: Connection, *, as_json: bool) -> None:
    """Print the daemon's version and the commit that it was built from."""
    number, git_sha = connection.client.version()
    if as_json:
        print_json({"version": number, "git_sha": git_sha})
    else:
        click.echo(f"{number} ({git_sha})")
