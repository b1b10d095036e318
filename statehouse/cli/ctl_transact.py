"""The command of `statehousectl` that writes: one transaction, with what must hold for it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Final

import click

from statehouse.cli.ctl_arguments import JSON_OBJECT, TEXT, TIMESTAMP, TTL_SECONDS, parse_pairs
from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_operations import STDIN, read_operations
from statehouse.cli.ctl_output import CommandEnd, json_option, print_json
from statehouse.cli.exit_codes import ControlExit
from statehouse.client.formatting import one_line, shorten_key
from statehouse.client.types import Precondition, Put, Remove, Transacted
from statehouse.errors import AgentDeletedError, ConflictError, FailedPrecondition
from statehouse.types import JsonObject

__all__ = ["failed_json", "transact"]

_ORDER: Final = "statehouse.cli.ctl_transact.order"
"""Where, in the context, the names of the options stand as they were given: click itself sorts values by option."""

_EPILOG: Final = """\b
Examples:
  statehousectl transact --put agent-7 plan '{"step": 2}' --remove agent-7 draft
  statehousectl transact --put agent-7 plan '{"step": 3}' --if-version agent-7 plan 2 || echo "exit code $?"
  statehousectl transact --put agent-7 plan '{}' --if-absent agent-7 plan --idempotency-key first-plan
  statehousectl transact --put agent-7 note/1 '{"text": "hm"}' --meta run=r-12 --meta model=m-1
  statehousectl transact --put agent-7 cache/page '{"text": "..."}' --ttl 3600
  echo '{"agent_id": "agent-7", "key": "plan", "value": null}' | statehousectl transact --file -
"""


class _InOrder(click.Command):
    """Remembers the order of the options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            ctx.meta[_ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


def _repeated(flag: str, name: str, metavar: str, form: Any, text: str) -> Callable[[Any], Any]:
    return click.option(flag, name, metavar=metavar, type=form, multiple=True, help=text)


_OPERATIONS: Final = (
    _repeated("--put", "puts", "AGENT KEY JSON", (TEXT, TEXT, JSON_OBJECT), "Write a JSON object to KEY of AGENT."),
    _repeated("--remove", "removes", "AGENT KEY", (TEXT, TEXT), "Delete KEY of AGENT."),
    _repeated(
        "--file", "files", "FILE", TEXT, 'JSONL, - for stdin: {"agent_id": A, "key": K, "value": {...} or null}.'
    ),
)
_PRECONDITIONS: Final = (
    _repeated(
        "--if-version",
        "if_version",
        "AGENT KEY N",
        (TEXT, TEXT, TIMESTAMP),
        "Only if this is KEY's newest version; 0: it was never written.",
    ),
    _repeated("--if-absent", "if_absent", "AGENT KEY", (TEXT, TEXT), "Only if KEY has no value."),
    _repeated("--if-exists", "if_exists", "AGENT KEY", (TEXT, TEXT), "Only if KEY has a value."),
    _repeated(
        "--if-agent-at",
        "if_agent_at",
        "AGENT TS",
        (TEXT, TIMESTAMP),
        "Only if the newest commit that touched AGENT is this one; 0: none did.",
    ),
    _repeated(
        "--lease", "leases", "AGENT EPOCH", (TEXT, TIMESTAMP), "Only while the lease on AGENT of this epoch is held."
    ),
)


def _all_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return reduce(lambda function, option: option(function), reversed(_OPERATIONS + _PRECONDITIONS), command)


@click.command(cls=_InOrder, short_help="Write and delete keys in one transaction.", epilog=_EPILOG)
@_all_options
@click.option(
    "--idempotency-key",
    metavar="TEXT",
    type=TEXT,
    help="The same command again, with the same key, gives the first answer and does nothing.",
)
@click.option(
    "--meta",
    "metadata",
    metavar="NAME=VALUE",
    type=TEXT,
    multiple=True,
    callback=parse_pairs,
    help="Keep this with the commit; may be given up to 32 times.",
)
@click.option(
    "--ttl",
    "ttl_s",
    metavar="SECONDS",
    type=TTL_SECONDS,
    help='Have the values of all --put last so long; without it for good. A line of a file says it by "ttl_s".',
)
@click.option("--revive", is_flag=True, help="Write to agents that were deleted, too: they are then there again.")
@json_option
@with_connection
def transact(
    connection: Connection,
    /,
    idempotency_key: str | None,
    metadata: Mapping[str, str],
    ttl_s: int | None,
    *,
    revive: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write and delete keys, of any agents, in one transaction, if all that is asked for holds.

    --put, --remove and --file may be given many times, and are done in the order in which they stand. So may the
    conditions; they may be about other agents, too. Either all of it happens, or nothing. Conditions alone are
    checked, and make a commit that no agent's events show.

    Prints the commit_ts, and then, a line each, the version that an operation gave its key. Exits with 6 when a
    condition does not hold; the line on stderr has every one that does not, with what was found. So it does when an
    agent that is written to was deleted, unless a condition is about that agent or --revive is given.
    """
    if ttl_s is not None and not given["puts"]:
        raise click.UsageError('--ttl is of --put, and there is none; a line of a file has "ttl_s"')
    operations = list(_operations(given, click.get_current_context().meta[_ORDER], ttl_s))
    preconditions = list(_preconditions(given))
    if not operations and not preconditions:
        raise click.UsageError("nothing to do; give --put, --remove, --file or a condition")
    try:
        done = connection.client.transact(
            operations,
            preconditions=preconditions,
            idempotency_key=idempotency_key,
            metadata=metadata,
            revive=revive,
        )
    except ConflictError as error:
        if as_json:
            print_json({"committed": False, "failed": [failed_json(each, preconditions) for each in error.failed]})
        raise CommandEnd(ControlExit.CONFLICT, _conflict(error, preconditions)) from None
    except AgentDeletedError as error:
        if as_json:
            print_json({"committed": False, "failed": [], "deleted_at_ts": int(error.details.get("commit_ts", 0))})
        raise CommandEnd(ControlExit.CONFLICT, f"{error.message} (--revive says so)") from None
    except ValueError as error:  # of what the wire cannot carry, before anything is sent
        raise click.UsageError(str(error)) from None
    if as_json:
        print_json(
            {
                "committed": True,
                "commit_ts": done.commit_ts,
                "txn_id": done.txn_id,
                "deduplicated": done.deduplicated,
                "versions": [*done.versions],
            }
        )
    else:
        for line in _lines(done, operations):
            click.echo(line)


def _operations(given: Mapping[str, Any], order: Sequence[str], ttl_s: int | None) -> Iterator[Put | Remove]:
    rest = {name: iter(given[name]) for name in ("puts", "removes", "files")}
    if given["files"].count(STDIN) > 1:
        raise click.UsageError("stdin can be read once; --file - is given twice")
    for name in order:
        if name == "puts":
            agent, key, value = next(rest[name])
            yield Put(agent, key, value, ttl_s=ttl_s)
        elif name == "removes":
            yield Remove(*next(rest[name]))
        elif name == "files":
            yield from read_operations(next(rest[name]))


def _preconditions(given: Mapping[str, Any]) -> Iterator[Precondition]:
    for agent, key, version in given["if_version"]:
        yield Precondition.version_is(agent, key, version)
    for agent, key in given["if_absent"]:
        yield Precondition.exists(agent, key, exists=False)
    for agent, key in given["if_exists"]:
        yield Precondition.exists(agent, key)
    for agent, commit_ts in given["if_agent_at"]:
        yield Precondition.agent_at(agent, commit_ts)
    for agent, epoch in given["leases"]:
        yield Precondition.lease(agent, epoch)


def _lines(done: Transacted, operations: Sequence[Put | Remove]) -> Iterator[str]:
    columns = [f"commit_ts={done.commit_ts}", f"txn={one_line(done.txn_id)}"]
    yield "  ".join([*columns, "deduplicated"] if done.deduplicated else columns)
    for operation, version in zip(operations, done.versions, strict=False):
        kind = "WRITE" if isinstance(operation, Put) else "DEL"
        columns = [f"agent={one_line(operation.agent_id)}", kind, f"key={shorten_key(operation.key)}", f"v={version}"]
        if isinstance(operation, Put) and operation.ttl_s is not None:
            columns.append(f"ttl_s={operation.ttl_s}")
        yield "  ".join(columns)


def _conflict(error: ConflictError, preconditions: Sequence[Precondition]) -> str:
    found = [_found(preconditions[each.index], each) for each in error.failed if each.index < len(preconditions)]
    return f"nothing was changed: {'; '.join(found)}" if found else error.message


def _found(asked: Precondition, found: FailedPrecondition) -> str:
    agent = f"agent {one_line(asked.agent_id)!r}"
    key = f"key {shorten_key(asked.key)!r} of {agent}"
    if asked.condition == "version":
        return f"{key} is at version {found.version}, not {asked.expected}"
    if asked.condition == "exists":
        state = "exists" if found.exists else "has no value" if found.version else "was never written"
        return f"{key} {state} (version {found.version})"
    if asked.condition == "agent_commit_ts":
        return f"{agent} is at commit_ts {found.agent_commit_ts}, not {asked.expected}"
    newest = f"the newest lease on {agent} has epoch {found.lease_epoch}" if found.lease_epoch else ""
    held = "held" if found.lease_held else "not held"
    return f"{newest} and is {held}, epoch {asked.expected} was shown" if newest else f"{agent} has no lease"


def failed_json(failed: FailedPrecondition, preconditions: Sequence[Precondition]) -> JsonObject:
    """What failed, as one object: the condition as it was asked for, and what was found."""
    found: JsonObject = {"index": failed.index}
    if failed.index < len(preconditions):
        asked = preconditions[failed.index]
        found |= {"condition": asked.condition, "agent_id": asked.agent_id, "expected": asked.expected}
        if asked.key:
            found["key"] = asked.key
        if asked.condition in {"version", "exists"}:
            found["found"] = {"version": failed.version, "exists": failed.exists}
        elif asked.condition == "agent_commit_ts":
            found["found"] = {"agent_commit_ts": failed.agent_commit_ts}
        else:
            found["found"] = {"lease_epoch": failed.lease_epoch, "lease_held": failed.lease_held}
    return found
