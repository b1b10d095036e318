"""The commands of `statehousectl` that read an agent's state."""

from collections.abc import Iterator

import click

from statehouse.cli.ctl_arguments import COUNT, TEXT, VERSION_NUMBER
from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import CommandEnd, json_option, print_json
from statehouse.cli.exit_codes import ControlExit
from statehouse.client import StateResult
from statehouse.client.formatting import one_line, summarize
from statehouse.types import JsonObject


@click.command(short_help="Print the value of a key, now or at a version.")
@click.argument("agent", type=TEXT)
@click.argument("key", type=TEXT)
@click.option("--at-version", type=VERSION_NUMBER, metavar="N", help="The value as version N left it.")
@json_option
@with_connection
def get(connection: Connection, agent: str, key: str, at_version: int | None, *, as_json: bool) -> None:
    """Print the value of KEY of AGENT, as JSON; with --json also its version and commit_ts.

    Exits with 1 when there is no value: never written, deleted, or no such version.
    """
    result = (
        connection.client.get_state(agent, key)
        if at_version is None
        else connection.client.get_state_at_version(agent, key, at_version)
    )
    if as_json:
        print_json({"key": key, "exists": result.exists, **_record(result)})
    elif result.exists:
        print_json(result.value, indent=2)
    if not result.exists:
        raise CommandEnd(ControlExit.NEGATIVE, None if as_json else _absence(agent, key, at_version, result))


@click.command(short_help="Print an agent's live keys.")
@click.argument("agent", type=TEXT)
@json_option
@with_connection
def keys(connection: Connection, agent: str, *, as_json: bool) -> None:
    """Print the live keys of AGENT in order, one a line; with --json as one array.

    A line break or control character in a key is shown escaped; --json gives keys exactly.
    """
    found = connection.client.list_keys(agent)
    if as_json:
        print_json([*found])
    else:
        for key in found:
            click.echo(one_line(key))


@click.command(short_help="Print an agent's whole state as JSON.")
@click.argument("agent", type=TEXT)
@click.option("--jsonl", is_flag=True, help="One JSON object a key and line.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on one line.")
@with_connection
def dump(connection: Connection, agent: str, *, jsonl: bool, as_json: bool) -> None:
    """Print all live keys of AGENT with values, versions and commit_ts, read at one moment, as JSON."""
    if jsonl and as_json:
        raise click.UsageError("--json and --jsonl exclude each other")
    entries = connection.client.scan_prefix(agent, "")
    if jsonl:
        for entry in entries:
            print_json({"key": entry.key, **_record(entry)})
        return
    found: JsonObject = {str(entry.key): _record(entry) for entry in entries}
    print_json({"namespace": connection.namespace, "agent_id": agent, "keys": found}, indent=None if as_json else 2)


@click.command(short_help="Print a key's latest value and the history of its versions.")
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
    history = _history(connection, agent, key, latest, versions)
    if as_json:
        print_json(
            {
                "namespace": connection.namespace,
                "agent_id": agent,
                "key": key,
                "exists": latest.exists,
                **_record(latest),
                "history": [{"exists": past.exists, **_record(past)} for past in history],
            }
        )
        return
    click.echo(
        f"agent={one_line(agent)}  key={one_line(key)}  v={latest.version}  commit_ts={latest.commit_ts}  "
        f"{'live' if latest.exists else 'deleted'}"
    )
    if latest.exists:
        print_json(latest.value, indent=2)
    for past in history:
        columns = [f"v={past.version}", f"commit_ts={past.commit_ts}"]
        columns += ["WRITE", summarize(past.value)] if past.exists else [click.style("DEL", fg="red")]
        click.echo("  ".join(columns))


def _history(connection: Connection, agent: str, key: str, latest: StateResult, versions: int) -> Iterator[StateResult]:
    yield latest
    oldest = max(1, latest.version - versions + 1)
    for version in range(latest.version - 1, oldest - 1, -1):
        yield connection.client.get_state_at_version(agent, key, version)


def _record(result: StateResult) -> JsonObject:
    return {"value": result.value, "version": result.version, "commit_ts": result.commit_ts}


def _absence(agent: str, key: str, at_version: int | None, result: StateResult) -> str:
    named = f"key {one_line(key)!r} of agent {one_line(agent)!r}"
    if result.version:
        return f"{named} was deleted by version {result.version} (commit_ts {result.commit_ts})"
    return f"{named} was never written" if at_version is None else f"{named} has no version {at_version}"
