"""The commands of `statehousectl` that change a token file. They ask no daemon: they work where the file is."""

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from statehouse.cli.ctl_arguments import TEXT
from statehouse.cli.ctl_output import json_option, print_json
from statehouse.client.formatting import one_line
from statehouse.rpc.given import without_secrets
from statehouse.rpc.server.token_file import add_token, read_tokens, revoke_token
from statehouse.rpc.server.token_line import Role, Token, new_token
from statehouse.types import JsonObject

__all__ = ["token"]

_ROLES: Final = """\b
Roles:
  read-only   reads state and events
  read-write  also begins transactions, writes and commits
  admin       as read-write, and whatever will change the daemon itself
"""
_FILE_HELP: Final = "The token file: what the daemon's setting token_file names."
_TAKEN_OVER: Final = "a running daemon takes it over at SIGHUP"

_ID: Final = re.compile(r"[0-9a-f]{12}")

_file_option: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = click.option(
    "--file", "path", metavar="FILE", type=click.Path(path_type=Path), required=True, help=_FILE_HELP
)


@click.group(
    short_help="Make, list and revoke the tokens that a daemon lets in.",
    no_args_is_help=False,
    epilog="""\b
Examples:
  statehousectl token create --file tokens --role read-write --namespace team-a --note 'the planner'
  statehousectl token list --file tokens
  statehousectl token revoke 3f9c0a71be42 --file tokens && kill -HUP $(pidof statehoused)
""",
)
@click.pass_context
def token(context: click.Context) -> None:
    """Make, list and revoke the tokens that a daemon lets in.

    A daemon that is started with the setting token_file answers only calls that bring a token of that file, as the
    metadata 'authorization: Bearer sth_...'. The file has hashes: nobody can read a token back from it. These
    commands change the file, on the machine where it is, and ask no daemon; a running daemon takes a change over when
    it gets SIGHUP.
    """
    # Before `token`, they would look as if they chose the daemon, or bound the token, and do neither.
    for name in ("address", "namespace"):
        parent = context.parent
        if parent is not None and parent.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            hint = "; a token is bound with: token create --namespace NAME" if name == "namespace" else ""
            raise click.UsageError(f"--{name} means nothing to token, which works on a file{hint}", context)


@token.command(short_help="Make a token and print it, once.", epilog=_ROLES)
@_file_option
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), required=True, help="What its holder may do; see below."
)
@click.option(
    "--namespace",
    "namespaces",
    metavar="NAME",
    type=TEXT,
    multiple=True,
    help="Only for agents of this namespace; may be given several times. Without it: every namespace.",
)
@click.option(
    "--agent-prefix",
    "agent_prefixes",
    metavar="PREFIX",
    type=TEXT,
    multiple=True,
    help="Only for agents whose id begins so; may be given several times. 'team' begins 'team-2' too: end it "
    "with your separator. Without it: every agent.",
)
@click.option("--note", metavar="TEXT", type=TEXT, default="", help="What the token is for, shown by list.")
@json_option
def create(
    path: Path, role: str, namespaces: tuple[str, ...], agent_prefixes: tuple[str, ...], note: str, *, as_json: bool
) -> None:
    """Make a token, add it to FILE, and print it: the only time that it can be seen.

    A FILE that is not there is made, for its owner only. A token that is bound to namespaces and to prefixes allows
    the agents that fit both. The transactions of a bound token are its own as long as it tells nobody their ids.
    """
    for name, bounds in (("--namespace", namespaces), ("--agent-prefix", agent_prefixes)):
        if "" in bounds:
            raise click.UsageError(f"{name} is empty; leave it out to bind the token to none")
    made, text = new_token(
        Role(role),
        namespaces=tuple(dict.fromkeys(namespaces)),
        agent_prefixes=tuple(dict.fromkeys(agent_prefixes)),
        note=note,
        now=dt.datetime.now(dt.UTC),
    )
    add_token(path, made)
    if as_json:
        print_json({**_shown(made), "token": text})
    else:
        click.echo(text)
    click.echo(f"token {made.id} is in {_called(path)}; {_TAKEN_OVER}. It is not shown again.", err=True)


@token.command("list", short_help="Print the tokens of a file, without their secrets.")
@_file_option
@json_option
def list_tokens(path: Path, *, as_json: bool) -> None:
    """Print the tokens of FILE, oldest first, one a line: id, role, when made, what it is bound to, note.

    Secrets are not in FILE and cannot be shown. --json gives names exactly.
    """
    tokens = read_tokens(path).values()
    if as_json:
        print_json([_shown(each) for each in tokens])
        return
    for each in tokens:
        click.echo("  ".join(_columns(each)))


@token.command(short_help="Take a token out of a file.")
@click.argument("token_id", metavar="ID", type=TEXT)
@_file_option
def revoke(token_id: str, path: Path) -> None:
    """Take the token with this ID out of FILE; exits with 1 when FILE has none.

    ID is what list shows: the 12 hex digits after 'sth_'. The daemon lets the token in until it gets SIGHUP; calls
    that are under way then, streams too, go on to their end.
    """
    if not _ID.fullmatch(token_id):
        # Not quoted: it may be a whole token, which belongs on no screen and in no log.
        raise click.UsageError("ID is the 12 hex digits after 'sth_', without the rest of the token")
    revoke_token(path, token_id)
    click.echo(f"token {token_id} is no longer in {_called(path)}; {_TAKEN_OVER}", err=True)


def _called(path: Path) -> str:
    return one_line(without_secrets(str(path)))


def _shown(each: Token) -> JsonObject:
    return {
        "id": each.id,
        "role": each.role.value,
        "namespaces": [*each.namespaces],
        "agent_prefixes": [*each.agent_prefixes],
        "note": each.note,
        "created": each.created,
    }


def _columns(each: Token) -> list[str]:
    columns = [each.id, f"{each.role:10}", each.created]
    columns += [f"namespace={one_line(name)}" for name in each.namespaces]
    columns += [f"agents={one_line(prefix)}*" for prefix in each.agent_prefixes]
    return [*columns, one_line(each.note)] if each.note else columns
