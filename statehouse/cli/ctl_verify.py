"""The commands of `statehousectl` that are about the whole store: its head, and whether it is sound."""

from contextlib import closing
from typing import Any, cast

import click

from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import CommandEnd, json_option, print_json
from statehouse.cli.exit_codes import ControlExit
from statehouse.cli.head_arguments import HEAD_HELP, HEADS_HELP, known_heads, parse_heads
from statehouse.cli.verify_output import VerifyOutput
from statehouse.findings import Head


@click.command(
    short_help="Print the newest commit and the log's chain value.",
    epilog="""\b
Example:
  statehousectl head >> /another/machine/heads
""",
)
@json_option
@with_connection
def head(connection: Connection, *, as_json: bool) -> None:
    """Print the head of the log, TS:CHAIN: the newest commit_ts, and the value of the log's hash chain there.

    Keep it on another machine, for instance a line a day, and give it to verify later: that shows whether commits were
    cut off the log's end, or its history was written anew. The log alone cannot show either.

    A token must be bound to no namespace and no agent.
    """
    found = connection.client.head()
    if as_json:
        chain, store_id = found.chain.hex(), found.store_id.hex()
        print_json({"head": str(found), "commit_ts": found.commit_ts, "chain": chain, "store_id": store_id})
    else:
        click.echo(str(found))


@click.command(
    short_help="Have the daemon check its log, view and snapshots.",
    epilog="""\b
Example:
  statehousectl verify --heads /another/machine/heads
""",
)
@click.option("--head", "heads", callback=parse_heads, multiple=True, metavar="TS:CHAIN", help=HEAD_HELP)
@click.option("--heads", "heads_file", metavar="FILE", help=HEADS_HELP)
@click.option(
    "--progress/--no-progress", default=None, help="Say once a second how far it is (default: on a terminal)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSONL: each finding, and the verdict last.")
@with_connection
def verify(
    connection: Connection, heads: tuple[Head, ...], heads_file: str | None, *, progress: bool | None, as_json: bool
) -> None:
    """Have the daemon check the whole store, up to now, while it serves.

    Every record of the log and its chain; every row of the state against the log; every snapshot; and the heads that
    were kept. Findings go to stdout, one a line, with what to do; the last line is the verdict. Exits with 0 when the
    store is sound, with 1 when something was found (lines that begin with `note` do not count).

    One verification runs at a time. A token must be an admin's and bound to no namespace and no agent. For a store that
    no daemon serves: statehoused --check.
    """
    known = known_heads(heads, heads_file)
    output = VerifyOutput(as_json=as_json, progress=progress)
    # A generator: closing it, also on Ctrl-C, takes the call back.
    with closing(cast("Any", connection.client.verify(known))) as events:
        for event in events:
            output.show(event)
    if output.verdict is None:
        raise CommandEnd(ControlExit.DAEMON_FAILED, "the daemon gave no verdict")
    if not output.verdict.sound:
        raise CommandEnd(ControlExit.NEGATIVE)
