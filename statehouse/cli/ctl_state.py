"""The commands of `statehousectl` that read an agent's state."""

import datetime as dt
from collections.abc import Iterator

import click

from statehouse.cli.ctl_arguments import COUNT, TEXT, VERSION_NUMBER
from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import (
    CommandEnd,
    json_option,
    json_text,
    print_array,
    print_json,
    print_lines,
    print_members,
)
from statehouse.cli.ctl_point import as_of_options, one_point
from statehouse.cli.exit_codes import ControlExit
from statehouse.client import StateResult
from statehouse.client.formatting import one_line, seconds_text, summarize
from statehouse.client.types import utc_text
from statehouse.types import JsonObject


@click.command(
    short_help="Print the value of a key, now or in the past.",
    epilog="""\b
Examples:
  statehousectl get agent-7 plan
  statehousectl get agent-7 plan --at-time 2030-01-31T12:00:00Z
""",
)
@click.argument("agent", type=TEXT)
@click.argument("key", type=TEXT)
@click.option("--at-version", type=VERSION_NUMBER, metavar="N", help="The value as version N left it.")
@as_of_options
@json_option
@with_connection
def get(
    connection: Connection,
    agent: str,
    key: str,
    at_version: int | None,
    at_ts: int | None,
    at_time: dt.datetime | None,
    *,
    as_json: bool,
) -> None:
    """Print the value of KEY of AGENT, as JSON; with --json also its version, its commit_ts, and when it expires.

    Exits with 1 when there is no value: never written, deleted, expired, or no such version; with --at or --at-time:
    not then.
    """
    point = one_point(at_ts, at_time)
    if at_version is not None and point.given:
        raise click.UsageError("--at-version and a point in time exclude each other")
    result = (
        connection.client.get_state(agent, key, at_ts=point.ts, at_time=point.time)
        if at_version is None
        else connection.client.get_state_at_version(agent, key, at_version)
    )
    if as_json:
        print_json({"key": key, "exists": result.exists, **_record(result)})
    elif result.exists:
        print_json(result.value, indent=2)
    if not result.exists:
        if as_json:
            raise CommandEnd(ControlExit.NEGATIVE)
        if result.version and at_version is None and not point.given:
            result = _written(connection, agent, key, result)
        raise CommandEnd(ControlExit.NEGATIVE, _absence(agent, key, at_version, result, then=point.given))


@click.command(
    short_help="Print an agent's live keys.",
    epilog="""\b
Examples:
  statehousectl keys agent-7 | wc -l
  statehousectl keys agent-7 --at 1200 --json
""",
)
@click.argument("agent", type=TEXT)
@as_of_options
@json_option
@with_connection
def keys(connection: Connection, agent: str, at_ts: int | None, at_time: dt.datetime | None, *, as_json: bool) -> None:
    """Print the live keys of AGENT in order, one a line; with --json as one array.

    A line break or control character in a key is shown escaped; --json gives keys exactly. The keys are read page by
    page, as they were at one moment, and printed as they come: there may be any number.
    """
    point = one_point(at_ts, at_time)
    found = connection.client.iter_keys(agent, at_ts=point.ts, at_time=point.time)
    if as_json:
        print_array(found)
    else:
        print_lines(one_line(key) for key in found)


@click.command(
    short_help="Print an agent's whole state as JSON.",
    epilog="""\b
Examples:
  statehousectl dump agent-7 > agent-7.json
  statehousectl dump agent-7 --jsonl --at-time 2030-01-31T12:00:00Z
""",
)
@click.argument("agent", type=TEXT)
@as_of_options
@click.option("--jsonl", is_flag=True, help="One JSON object a key and line.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on one line.")
@with_connection
def dump(
    connection: Connection, agent: str, at_ts: int | None, at_time: dt.datetime | None, *, jsonl: bool, as_json: bool
) -> None:
    """Print all live keys of AGENT with values, versions, commit_ts and expiry, as they were at one moment, as JSON.

    They are read page by page and printed as they come: there may be any number. When the daemon goes away in the
    middle, what was printed is not whole, and the exit code is not 0.
    """
    if jsonl and as_json:
        raise click.UsageError("--json and --jsonl exclude each other")
    point = one_point(at_ts, at_time)
    entries = connection.client.iter_prefix(agent, "", at_ts=point.ts, at_time=point.time)
    if jsonl:
        print_lines(json_text({"key": entry.key, **_record(entry)}) for entry in entries)
        return
    members = ((str(entry.key), _record(entry)) for entry in entries)
    print_members({"namespace": connection.namespace, "agent_id": agent}, "keys", members, indented=not as_json)


@click.command(
    short_help="Print a key's latest value and the history of its versions.",
    epilog="""\b
Example:
  statehousectl inspect agent-7 plan -n 3
""",
)
@click.argument("agent", type=TEXT)
@click.argument("key", type=TEXT)
@click.option(
    "-n",
    "--versions",
    metavar="N",
    type=COUNT,
    default=10,
    show_default=True,
    help="At most this many.",
)
@json_option
@with_connection
def inspect(connection: Connection, agent: str, key: str, versions: int, *, as_json: bool) -> None:
    """Print the latest version of KEY of AGENT, and the history of its versions, newest first.

    Exits with 1 when the key was never written.
    """
    latest = connection.client.get_state(agent, key)
    if latest.version == 0:
        raise CommandEnd(ControlExit.NEGATIVE, _absence(agent, key, None, latest))
    written = _written(connection, agent, key, latest)
    history = _history(connection, agent, key, written, versions)
    if as_json:
        print_json(
            {
                "namespace": connection.namespace,
                "agent_id": agent,
                "key": key,
                "exists": latest.exists,
                **_record(latest),
                **_expiry(written),
                "history": [{"exists": past.exists, **_record(past)} for past in history],
            }
        )
        return
    click.echo(
        f"agent={one_line(agent)}  key={one_line(key)}  v={latest.version}  commit_ts={latest.commit_ts}  "
        f"{'live' if latest.exists else 'expired' if written.exists else 'deleted'}"
    )
    if latest.exists:
        print_json(latest.value, indent=2)
    for past in history:
        columns = [f"v={past.version}", f"commit_ts={past.commit_ts}"]
        columns.append("WRITE" if past.exists else click.style("DEL", fg="red"))
        if past.expires_at is not None:
            columns.append(f"expires_at={seconds_text(past.expires_at)}")
        if past.exists:
            columns.append(summarize(past.value))
        click.echo("  ".join(columns))


def _history(connection: Connection, agent: str, key: str, latest: StateResult, versions: int) -> Iterator[StateResult]:
    yield latest
    oldest = max(1, latest.version - versions + 1)
    for version in range(latest.version - 1, oldest - 1, -1):
        yield connection.client.get_state_at_version(agent, key, version)


def _written(connection: Connection, agent: str, key: str, latest: StateResult) -> StateResult:
    """What the newest version wrote: of a key without a value a delete, unless that value has expired."""
    if latest.exists:
        return latest
    return connection.client.get_state_at_version(agent, key, latest.version)


def _record(result: StateResult) -> JsonObject:
    return {"value": result.value, "version": result.version, "commit_ts": result.commit_ts, **_expiry(result)}


def _expiry(result: StateResult) -> JsonObject:
    return {} if result.expires_at is None else {"expires_at": utc_text(result.expires_at)}


def _absence(agent: str, key: str, at_version: int | None, result: StateResult, *, then: bool = False) -> str:
    named = f"key {one_line(key)!r} of agent {one_line(agent)!r}"
    if result.expires_at is not None:
        return f"{named} expired at {seconds_text(result.expires_at)} (version {result.version})"
    if result.version:
        return f"{named} was deleted by version {result.version} (commit_ts {result.commit_ts})"
    if at_version is not None:
        return f"{named} has no version {at_version}"
    return f"{named} was not written yet" if then else f"{named} was never written"
