"""The commands of `statehousectl` that look back: the versions of a key, and what changed between two points."""

import datetime as dt
from collections.abc import Iterator
from typing import Final

import click

from statehouse.cli.ctl_arguments import COUNT, TEXT, TIME, TIMESTAMP, VERSION_NUMBER
from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import CommandEnd, json_text, print_lines
from statehouse.cli.ctl_point import one_point
from statehouse.cli.exit_codes import ControlExit
from statehouse.client.formatting import one_line, seconds_text, shorten_key, summarize
from statehouse.client.types import DiffEntry, HistoryEntry, StateResult, utc_text
from statehouse.types import JsonObject

__all__ = ["diff", "history"]

# By whether the key had a value before, and has one after. What was written and deleted in between had none at either.
_CHANGES: Final = {
    (False, True): "ADDED",
    (True, True): "CHANGED",
    (True, False): "REMOVED",
    (False, False): "ABSENT",
}


@click.command(
    short_help="Print the versions of a key, newest first.",
    epilog="""\b
Examples:
  statehousectl history agent-7 plan -n 5
  statehousectl history agent-7 plan --before-version 40 --json | jq .metadata
""",
)
@click.argument("agent", type=TEXT)
@click.argument("key", type=TEXT)
@click.option("-n", "--limit", type=COUNT, metavar="N", help="At most this many; without it all.")
@click.option("--before-version", type=VERSION_NUMBER, metavar="N", help="Only versions below this one.")
@click.option("-v", "--verbose", is_flag=True, help="Add transaction ids, metadata and whole values.")
@click.option("--json", "as_json", is_flag=True, help="Print JSONL: one version a line.")
@with_connection
def history(
    connection: Connection,
    agent: str,
    key: str,
    limit: int | None,
    before_version: int | None,
    *,
    verbose: bool,
    as_json: bool,
) -> None:
    """Print the versions of KEY of AGENT, newest first, a line each: when, which version, and what it wrote.

    A delete is a version too. Exits with 1 when the key was never written.
    """
    found = 0

    def lines() -> Iterator[str]:
        nonlocal found
        for found, entry in enumerate(connection.client.history(agent, key, limit, before_version), 1):  # noqa: B007 - counts
            if as_json:
                yield json_text(entry.to_dict())
            else:
                yield from _history_lines(entry, verbose=verbose)

    print_lines(lines())
    if not found and connection.client.get_state(agent, key).version == 0:
        named = f"key {one_line(key)!r} of agent {one_line(agent)!r}"
        raise CommandEnd(ControlExit.NEGATIVE, f"{named} was never written")


@click.command(
    short_help="Print what changed of an agent between two points.",
    epilog="""\b
Examples:
  statehousectl diff agent-7 --from 1200
  statehousectl diff agent-7 --from-time 2030-01-31T12:00:00Z --to-time 2030-01-31T13:00:00Z --prefix plan/
""",
)
@click.argument("agent", type=TEXT)
@click.option("--from", "from_ts", type=TIMESTAMP, metavar="TS", help="From the state at this commit_ts.")
@click.option("--from-time", type=TIME, metavar="ISO", help="From the state at this time.")
@click.option("--to", "to_ts", type=TIMESTAMP, metavar="TS", help="To the state at this commit_ts.")
@click.option("--to-time", type=TIME, metavar="ISO", help="To the state at this time.")
@click.option("--prefix", type=TEXT, default="", metavar="PREFIX", help="Only keys that begin so.")
@click.option("-v", "--verbose", is_flag=True, help="Add the whole values.")
@click.option("--json", "as_json", is_flag=True, help="Print JSONL: one key a line.")
@with_connection
def diff(
    connection: Connection,
    agent: str,
    from_ts: int | None,
    from_time: dt.datetime | None,
    to_ts: int | None,
    to_time: dt.datetime | None,
    prefix: str,
    *,
    verbose: bool,
    as_json: bool,
) -> None:
    """Print the keys of AGENT that were written or deleted between two points, in their order, a line each.

    Without a point to begin with it begins before the first commit, without one to end with it ends now. A key that
    was written with the value that it had is shown too: its version is another.
    """
    start = one_point(from_ts, from_time, "--from", "--from-time")
    end = one_point(to_ts, to_time, "--to", "--to-time")
    entries = connection.client.diff(
        agent, from_ts=start.ts, from_time=start.time, to_ts=end.ts, to_time=end.time, prefix=prefix
    )
    print_lines(
        line
        for entry in entries
        for line in ([json_text(_diff_json(entry))] if as_json else _diff_lines(entry, verbose=verbose))
    )


def _history_lines(entry: HistoryEntry, *, verbose: bool) -> Iterator[str]:
    time = "-" if entry.committed_at is None else seconds_text(entry.committed_at)
    columns = [time, f"v={entry.version}", f"commit_ts={entry.commit_ts}", "WRITE" if entry.exists else "DEL"]
    if verbose:
        columns.append(f"txn={one_line(entry.txn_id)}")
        if entry.metadata:
            columns.append(f"metadata={json_text(dict(entry.metadata))}")
    if entry.expires_at is not None:
        columns.append(f"expires_at={seconds_text(entry.expires_at)}")
    if entry.expired:
        columns.append("expired")
    if entry.exists:
        columns.append(summarize(entry.value))
    yield "  ".join(columns)
    if verbose and entry.exists:
        yield f"  payload: {json_text(entry.value)}"


def _diff_lines(entry: DiffEntry, *, verbose: bool) -> Iterator[str]:
    before, after = entry.before, entry.after
    kind, versions = _CHANGES[before.exists, after.exists], f"v={before.version}->{after.version}"
    columns = [kind, f"key={shorten_key(entry.key)}", versions]
    if after.exists:
        columns.append(summarize(after.value))
    yield "  ".join(columns)
    if verbose:
        for name, state in (("before", before), ("after", after)):
            if state.exists:
                yield f"  {name}: {json_text(state.value)}"


def _diff_json(entry: DiffEntry) -> JsonObject:
    return {"key": entry.key, "before": _state_json(entry.before), "after": _state_json(entry.after)}


def _state_json(state: StateResult) -> JsonObject:
    told: JsonObject = {
        "exists": state.exists,
        "value": state.value,
        "version": state.version,
        "commit_ts": state.commit_ts,
    }
    return told if state.expires_at is None else {**told, "expires_at": utc_text(state.expires_at)}
