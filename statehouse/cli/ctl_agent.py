"""The commands of `statehousectl` that make an agent of another, tell where it comes from, and end it."""

import datetime as dt
import sys
from collections.abc import Iterator, Mapping
from typing import Final

import click

from statehouse.cli.ctl_arguments import COUNT, TEXT, parse_pairs
from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import CommandEnd, json_option, print_json, print_lines
from statehouse.cli.ctl_point import as_of_options, one_point
from statehouse.cli.ctl_transact import failed_json
from statehouse.cli.exit_codes import ControlExit
from statehouse.client.formatting import one_line
from statehouse.client.types import ForkOrigin, Lineage, Precondition
from statehouse.errors import AgentExistsError, ConflictError
from statehouse.types import JsonObject

__all__ = ["delete_agent", "fork", "lineage"]

_YES: Final = ("y", "yes")


@click.command(
    short_help="Make a new agent of another, as it is or was.",
    epilog="""\b
Examples:
  statehousectl fork agent-7 agent-7/try-2
  statehousectl fork agent-7 agent-7/before-the-mistake --at 1200
  statehousectl fork agent-7 agent-7/at-noon --at-time 2030-01-31T12:00:00Z --json | jq .at_ts
""",
)
@click.argument("agent", type=TEXT)
@click.argument("new", type=TEXT)
@as_of_options
@json_option
@with_connection
def fork(
    connection: Connection, agent: str, new: str, at_ts: int | None, at_time: dt.datetime | None, *, as_json: bool
) -> None:
    """Make the agent NEW, with the keys, versions and events that AGENT has, or had at a point.

    Nothing is copied, so it takes the same time for an agent of any size. Both live on independently. Exits with 6 when
    NEW was ever written to or forked, and with 1 when there is no AGENT.
    """
    point = one_point(at_ts, at_time)
    try:
        forked = connection.client.fork(agent, new, at_ts=point.ts, at_time=point.time)
    except AgentExistsError:
        if as_json:
            print_json({"committed": False, "agent_id": new})
        raise
    if as_json:
        print_json(
            {
                "agent_id": new,
                "forked_from": agent,
                "at_ts": forked.at_ts,
                "commit_ts": forked.commit_ts,
                "depth": forked.depth,
            }
        )
        return
    click.echo(
        f"agent={one_line(new)}  forked_from={one_line(agent)}  at_ts={forked.at_ts}  commit_ts={forked.commit_ts}  "
        f"depth={forked.depth}"
    )


@click.command(
    short_help="Print what an agent was forked from, and its forks.",
    epilog="""\b
Examples:
  statehousectl lineage agent-7/try-2
  statehousectl lineage agent-7 --json | jq -r '.forks[].agent_id'
""",
)
@click.argument("agent", type=TEXT)
@click.option("-n", "--limit", type=COUNT, metavar="N", help="At most this many forks; without it all.")
@json_option
@with_connection
def lineage(connection: Connection, agent: str, limit: int | None, *, as_json: bool) -> None:
    """Print what AGENT was forked from, parent first, and what was forked from AGENT, newest first, a line each.

    `at_ts` is the point that a fork branched off at, `commit_ts` that of the fork itself. An agent that is no fork, and
    of which there is none, has no lines. Agents that the token may not read have no name there.
    """
    found = connection.client.lineage(agent, limit=limit)
    if as_json:
        print_json(
            {
                "agent_id": agent,
                "ancestors": [_origin_json(each) for each in found.ancestors],
                "forks": [_origin_json(each) for each in found.forks],
            }
        )
    else:
        print_lines(_lineage_lines(found))


@click.command(
    "delete-agent",
    short_help="Delete all keys of an agent, and refuse further writes.",
    epilog="""\b
Examples:
  statehousectl delete-agent agent-7
  statehousectl delete-agent agent-7 --yes --meta user=ada --meta cause=finished
  statehousectl fork agent-7 agent-7/back --at 1200
""",
)
@click.argument("agent", type=TEXT)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--meta",
    "metadata",
    metavar="NAME=VALUE",
    type=TEXT,
    multiple=True,
    callback=parse_pairs,
    help="Keep this with the commit; may be given up to 32 times.",
)
@json_option
@with_connection
def delete_agent(connection: Connection, agent: str, metadata: Mapping[str, str], *, yes: bool, as_json: bool) -> None:
    """Delete every key of AGENT in one commit, and have later writes refused unless they say that they revive it.

    Its history stays, and so do its forks. Asks first, on a terminal; elsewhere --yes must say so. Exits with 1 when
    there is no AGENT, or the answer is no, and with 6 when AGENT was changed after the question, if only by what
    expired. An agent that is
    deleted already is left as it is, with 0.
    """
    shown = () if yes else _ask(connection, agent)
    try:
        done = connection.client.delete_agent(agent, preconditions=shown, metadata=metadata)
    except ConflictError as error:
        if as_json:
            print_json({"committed": False, "failed": [failed_json(each, shown) for each in error.failed]})
        raise CommandEnd(
            ControlExit.CONFLICT,
            f"agent {one_line(agent)!r} was changed after the question (what expires changes it, too), and was not "
            "deleted",
        ) from None
    if as_json:
        print_json({"agent_id": agent, "commit_ts": done.commit_ts, "deleted_keys": done.deleted_keys})
    else:
        click.echo(f"agent={one_line(agent)}  commit_ts={done.commit_ts}  deleted_keys={done.deleted_keys}")


def _ask(connection: Connection, agent: str) -> tuple[Precondition, ...]:
    """Have somebody say yes: to what they were shown, which must still be so.

    CommandEnd when it is no, or there is nothing to delete; UsageError without a terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():  # None: it was closed
        raise click.UsageError("there is no terminal to ask on; --yes deletes without asking")
    named = f"agent {one_line(agent)!r}"
    # It comes first of those that begin with its name.
    info = next(iter(connection.client.list_agents(agent)), None)
    if info is None or info.agent_id != agent:
        raise CommandEnd(ControlExit.NEGATIVE, f"there is no {named}")
    if info.deleted:
        return ()  # the daemon tells when
    keys = "1 key" if info.live_keys == 1 else f"{info.live_keys} keys"
    # Not click.confirm, a part of whose question goes to stdout.
    click.echo(f"Delete {named}, which has {keys}? [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in _YES:
        raise CommandEnd(ControlExit.NEGATIVE, f"{named} was not deleted")
    return (Precondition.agent_at(agent, info.last_commit_ts),)


def _lineage_lines(found: Lineage) -> Iterator[str]:
    for kind, origins in (("ANCESTOR", found.ancestors), ("FORK", found.forks)):
        for each in origins:
            # No agent's name is empty: what a token keeps from us cannot be taken for one.
            yield f"{kind}  agent={one_line(each.agent_id)}  at_ts={each.at_ts}  commit_ts={each.commit_ts}"


def _origin_json(origin: ForkOrigin) -> JsonObject:
    return {"agent_id": origin.agent_id, "at_ts": origin.at_ts, "commit_ts": origin.commit_ts}
