"""The commands of `statehousectl` that read events: those that happened, and those that will."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import reduce
from itertools import chain
from typing import Any, Final, NamedTuple, cast

import click

from statehouse.cli.ctl_arguments import COUNT, TEXT, TIME, TIMESTAMP, parse_pairs
from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import print_json
from statehouse.cli.ctl_point import one_point
from statehouse.cli.exit_codes import ControlExit
from statehouse.cli.interrupts import ended_with_its_reader
from statehouse.client.formatting import event_lines
from statehouse.client.types import Bookmark, ReplayEvent

__all__ = ["replay", "tail", "watch"]


LOOK_BACK: Final = 8
"""`tail` looks so many times as far back each time, so that what it reads in vain is little beside the last."""


class _Source(NamedTuple):
    """Whose events: of one agent, of the agents of the namespace that begin so, or of the whole log."""

    agent: str | None
    prefix: str | None


_SOURCE: Final = (
    click.argument("agent", type=TEXT, required=False),
    click.option(
        "--agents", "prefix", type=TEXT, metavar="PREFIX", help="All agents of the namespace whose id begins so."
    ),
    click.option("--all", "everything", is_flag=True, help="All agents of all namespaces: the whole log."),
)
_START: Final = (
    click.option("--start-ts", type=TIMESTAMP, metavar="N", help="From this commit_ts on, inclusive."),
    click.option("--start-time", type=TIME, metavar="ISO", help="From this time on, inclusive."),
)
_END: Final = (
    click.option("--end-ts", type=TIMESTAMP, metavar="N", help="Up to this commit_ts, inclusive."),
    click.option("--end-time", type=TIME, metavar="ISO", help="Up to this time, inclusive."),
)
_LIMIT: Final = click.option(
    "-n",
    "--limit",
    type=COUNT,
    metavar="N",
    help="End after this many events; with --agents or --all, the commit that reaches N is still printed whole.",
)
_FILTERS: Final = (
    click.option(
        "--key-prefix", type=TEXT, default="", metavar="PREFIX", help="Only keys that begin so, and events with any."
    ),
    click.option(
        "--meta",
        "metadata",
        metavar="NAME=VALUE",
        type=TEXT,
        multiple=True,
        callback=parse_pairs,
        help="Only commits with this metadata; of several, all must be there.",
    ),
)
_FORM: Final = (
    click.option("-v", "--verbose", is_flag=True, help="Add transaction ids, commit_ts, metadata and whole values."),
    click.option("--json", "as_json", is_flag=True, help="Print JSONL: one event a line."),
)


def _options(*groups: tuple[Callable[..., Any], ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    each = [option for group in groups for option in group]
    return lambda command: reduce(lambda function, option: option(function), reversed(each), command)


@click.command(
    short_help="Print events in commit order.",
    epilog="""\b
Examples:
  statehousectl replay agent-7 --start-ts 1200
  statehousectl replay agent-7 --start-time 2030-01-31T12:00:00Z --key-prefix tool/ --meta run=r-12
  statehousectl replay --all --json | jq .commit_ts
""",
)
@_options(_SOURCE, _START, _END, (_LIMIT,), _FILTERS, _FORM)
@with_connection
def replay(connection: Connection, /, *, verbose: bool, as_json: bool, **given: Any) -> None:
    """Print the events of AGENT in commit order, a line for each operation.

    Ends at the newest commit at the time of the call. An agent without events prints nothing. With --agents or --all,
    a commit that touched several agents is an event of each.
    """
    source = _source(given)
    events = _replay(connection, source, **_range(given), **_filters(given))
    _print(events, source, verbose=verbose, as_json=as_json)


@click.command(
    short_help="Print the newest events, and go on with -f.",
    epilog="""\b
Examples:
  statehousectl tail agent-7 -n 1
  statehousectl tail -f agent-7
  statehousectl tail -f --all --key-prefix final/
""",
)
@_options(_SOURCE)
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
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what is committed from now on, until Ctrl-C, or nobody reads it."
)
@_options(_FILTERS, _FORM)
@with_connection
def tail(connection: Connection, /, count: int, *, follow: bool, verbose: bool, as_json: bool, **given: Any) -> None:
    """Print the newest events of AGENT in commit order; with -f also those that follow, as they are committed.

    Between the two nothing is missed and nothing comes twice, also when the connection breaks. Looks back from the
    newest commit, further and further until there are enough events, in flat memory.
    """
    source, filters = _source(given), _filters(given)
    # A generator: closing it ends the watch.
    with closing(cast("Any", _watch(connection, source, bookmarks=True, **filters))) as coming:
        first: ReplayEvent | Bookmark = next(coming)
        # What a watch that begins now gives first says what was there before.
        head = first.commit_ts if isinstance(first, Bookmark) else first.commit_ts - 1
        newest = _newest(connection, source, head, count, filters)
        _print(newest, source, verbose=verbose, as_json=as_json)
        if follow:
            news = (each for each in chain([first], coming) if not isinstance(each, Bookmark))
            with ended_with_its_reader(ControlExit.BROKEN_PIPE):
                _print(news, source, verbose=verbose, as_json=as_json)


@click.command(
    short_help="Print events as they are committed.",
    epilog="""\b
Examples:
  statehousectl watch agent-7
  statehousectl watch agent-7 --start-ts 1200 --json --bookmarks >> events.jsonl
  statehousectl watch --agents researcher- --key-prefix final/ -n 1
""",
)
@_options(_SOURCE, _START, _END, (_LIMIT,), _FILTERS)
@click.option(
    "--bookmarks", is_flag=True, help="Say, now and then, up to which commit_ts all that there is was printed."
)
@_options(_FORM)
@with_connection
def watch(connection: Connection, /, *, bookmarks: bool, verbose: bool, as_json: bool, **given: Any) -> None:
    """Print the events of AGENT as they are committed, a line for each operation, until Ctrl-C.

    Begins with the next commit, or in the past with --start-ts or --start-time: first what happened since, then what
    happens, without a gap, a repeat, or a part of a transaction. A connection that breaks is made again, and the
    events go on where they broke off. Ends by itself only with --end-ts, --end-time or --limit, and soon after whoever
    reads its output has ended.
    """
    source = _source(given)
    found = _watch(connection, source, **_range(given), **_filters(given), bookmarks=bookmarks)
    with ended_with_its_reader(ControlExit.BROKEN_PIPE):
        _print(found, source, verbose=verbose, as_json=as_json)


def _newest(
    connection: Connection, source: _Source, head: int, count: int, filters: dict[str, Any]
) -> deque[ReplayEvent]:
    """The newest events up to a commit. The daemon reads forwards only, and quickly finds where to begin."""
    commits = count
    while head > 0:
        start_ts = max(1, head - commits + 1)
        newest = deque(_replay(connection, source, start_ts=start_ts, end_ts=head, **filters), maxlen=count)
        if len(newest) == count or start_ts == 1:
            return newest
        commits *= LOOK_BACK
    return deque()


def _source(given: Mapping[str, Any]) -> _Source:
    agent, prefix, everything = given["agent"], given["prefix"], given["everything"]
    if (agent is not None) + (prefix is not None) + everything != 1:
        raise click.UsageError("give one of AGENT, --agents PREFIX and --all")
    return _Source(agent, prefix)


def _range(given: Mapping[str, Any]) -> dict[str, Any]:
    start = one_point(given["start_ts"], given["start_time"], "--start-ts", "--start-time")
    end = one_point(given["end_ts"], given["end_time"], "--end-ts", "--end-time")
    return {
        "start_ts": start.ts,
        "start_time": start.time,
        "end_ts": end.ts,
        "end_time": end.time,
        "limit": given["limit"],
    }


def _filters(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"key_prefix": given["key_prefix"], "metadata": given["metadata"]}


def _replay(connection: Connection, source: _Source, **options: Any) -> Iterator[ReplayEvent]:
    if source.agent is not None:
        return connection.client.replay(source.agent, **options)
    namespace = None if source.prefix is None else connection.namespace
    return connection.client.replay_log(source.prefix or "", namespace, **options)


def _watch(connection: Connection, source: _Source, **options: Any) -> Iterator[ReplayEvent | Bookmark]:
    if source.agent is not None:
        return connection.client.watch(source.agent, **options)
    namespace = None if source.prefix is None else connection.namespace
    return connection.client.watch_log(source.prefix or "", namespace, **options)


def _print(events: Iterable[ReplayEvent | Bookmark], source: _Source, *, verbose: bool, as_json: bool) -> None:
    for event in events:
        if isinstance(event, Bookmark):
            if as_json:
                print_json({"bookmark": event.commit_ts})
            else:
                click.echo(f"-- all up to commit_ts={event.commit_ts}")
        elif as_json:
            print_json(event.to_dict())
        else:
            for line in event_lines(event, verbose=verbose, namespace=source.agent is None and source.prefix is None):
                click.echo(line)
