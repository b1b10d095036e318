"""The commands of `statehousectl` that read an agent's events."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import click

from statehouse.cli.ctl_arguments import COUNT, TEXT, TIMESTAMP
from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import print_json
from statehouse.client import ReplayEvent
from statehouse.client.formatting import event_lines


def _event_options(command: Callable[..., Any]) -> Callable[..., Any]:
    verbose = click.option("-v", "--verbose", is_flag=True, help="Add transaction ids, commit_ts and whole values.")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSONL: one event a line.")
    return verbose(as_json(command))


@click.command(short_help="Print an agent's events in commit order.")
@click.argument("agent", type=TEXT)
@click.option("--start-ts", type=TIMESTAMP, metavar="N", help="From this commit_ts on, inclusive.")
@click.option("--end-ts", type=TIMESTAMP, metavar="N", help="Up to this commit_ts, inclusive.")
@_event_options
@with_connection
def replay(
    connection: Connection, agent: str, start_ts: int | None, end_ts: int | None, *, verbose: bool, as_json: bool
) -> None:
    """Print the events of AGENT in commit order, a line for each operation.

    Ends at the newest commit at the time of the call. An agent without events prints nothing.
    """
    _print(connection.client.replay(agent, start_ts=start_ts, end_ts=end_ts), verbose=verbose, as_json=as_json)


@click.command(short_help="Print an agent's newest events.")
@click.argument("agent", type=TEXT)
@click.option(
    "-n",
    "--events",
    "count",
    metavar="N",
    type=COUNT,
    default=10,
    show_default=True,
    help="At most this many.",
)
@_event_options
@with_connection
def tail(connection: Connection, agent: str, count: int, *, verbose: bool, as_json: bool) -> None:
    """Print the newest events of AGENT in commit order.

    Reads the agent's whole history, in flat memory: the daemon has no call that reads backwards.
    """
    _print(deque(connection.client.replay(agent), maxlen=count), verbose=verbose, as_json=as_json)


def _print(events: Iterable[ReplayEvent], *, verbose: bool, as_json: bool) -> None:
    for event in events:
        if as_json:
            print_json(event.to_dict())
        else:
            for line in event_lines(event, verbose=verbose):
                click.echo(line)
