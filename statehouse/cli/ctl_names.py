"""The commands of `statehousectl` that say what is in the store: its agents, and its namespaces."""

from typing import cast

import attrs
import click

from statehouse.cli.ctl_arguments import TEXT
from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import json_text, print_lines
from statehouse.client.formatting import one_line
from statehouse.client.types import AgentInfo, NamespaceInfo
from statehouse.types import JsonObject

__all__ = ["agents", "namespaces"]


@click.command(
    short_help="Print the agents of a namespace, with counts.",
    epilog="""\b
Examples:
  statehousectl agents
  statehousectl agents --namespace team-a --prefix researcher- --json | jq -r .agent_id
""",
)
@click.option("--prefix", type=TEXT, default="", metavar="PREFIX", help="Only agents whose id begins so.")
@click.option("--json", "as_json", is_flag=True, help="Print JSONL: one agent a line.")
@with_connection
def agents(connection: Connection, prefix: str, *, as_json: bool) -> None:
    """Print the agents of the namespace, ascending, a line each: live keys, commits, writes and deletes, when.

    An agent is there from its first commit, or its fork, on. `first` and `last` are commit_ts. A fork says from which
    agent it comes, and as of which commit; its numbers include what it inherited. `deleted`: all its keys were, with
    delete-agent, and nothing was written to it since.
    """
    found = connection.client.list_agents(prefix)
    print_lines(_json(info) if as_json else _agent_line(info) for info in found)


@click.command(
    short_help="Print the namespaces of the store, with counts.",
    epilog="""\b
Examples:
  statehousectl namespaces
  statehousectl namespaces --prefix team- --json
""",
)
@click.option("--prefix", type=TEXT, default="", metavar="PREFIX", help="Only namespaces whose name begins so.")
@click.option("--json", "as_json", is_flag=True, help="Print JSONL: one namespace a line.")
@with_connection
def namespaces(connection: Connection, prefix: str, *, as_json: bool) -> None:
    """Print the namespaces that have agents, ascending, a line each: the sums over their agents.

    A commit that touched several agents counts once for each. `first` and `last` are commit_ts.
    """
    found = connection.client.list_namespaces(prefix)
    print_lines(
        _json(info) if as_json else _line(f"namespace={one_line(info.namespace)}  agents={info.agents}", info)
        for info in found
    )


def _agent_line(info: AgentInfo) -> str:
    columns = [_line(f"agent={one_line(info.agent_id)}", info)]
    if info.forked_from is not None:
        parent = one_line(info.forked_from.agent_id)  # empty: a token keeps it from us
        columns += [f"forked_from={parent}", f"at_ts={info.forked_from.at_ts}"]
    if info.deleted:
        columns.append("deleted")
    return "  ".join(columns)


def _line(named: str, info: AgentInfo | NamespaceInfo) -> str:
    return (
        f"{named}  keys={info.live_keys}  commits={info.commits}  operations={info.operations}  "
        f"first={info.first_commit_ts}  last={info.last_commit_ts}"
    )


def _json(info: AgentInfo | NamespaceInfo) -> str:
    return json_text(cast("JsonObject", attrs.asdict(info)))
