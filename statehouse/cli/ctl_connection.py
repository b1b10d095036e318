"""Which daemon a `statehousectl` command talks to, who it says it is, and which namespace it means.

The options are accepted before and after the command's name; what stands nearer to the command wins, then the
environment, then the default. A token never stands on the command line, where every user of the machine could
read it: `--token-file` names a file with it, or STATEHOUSE_TOKEN holds it.

The daemon has a setting token_file too, and with it the variable STATEHOUSE_TOKEN_FILE: that is the file of all
tokens' hashes. So the variables of a client's files begin with STATEHOUSE_CLIENT_.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec

import click
from attrs import frozen

from statehouse.cli.ctl_arguments import TEXT
from statehouse.client import Statehouse
from statehouse.rpc.given import read_file, without_secrets
from statehouse.types import DEFAULT_NAMESPACE

P = ParamSpec("P")

DEFAULT_ADDRESS: Final = "localhost:50051"
ADDRESS_VARIABLE: Final = "STATEHOUSE_ADDR"
NAMESPACE_VARIABLE: Final = "STATEHOUSE_NAMESPACE"
TOKEN_VARIABLE: Final = "STATEHOUSE_TOKEN"  # noqa: S105 - its name
TOKEN_FILE_VARIABLE: Final = "STATEHOUSE_CLIENT_TOKEN_FILE"  # noqa: S105 - its name
TOKEN_FILE_BYTES: Final = 8 * 1024
TOKEN_HINT: Final = f"give a token with --token-file FILE or {TOKEN_VARIABLE}"
"""What to do when the daemon asks for one."""


@frozen
class Option:
    """One option of the target: its flag, its variable, and what it is without both."""

    flag: str
    metavar: str | None
    variable: str
    default: str | None
    help: str

    @property
    def name(self) -> str:
        """As an argument of `Target`."""
        return self.flag.removeprefix("--").replace("-", "_")


OPTIONS: Final = (
    Option(
        "--address",
        "ADDRESS",
        ADDRESS_VARIABLE,
        DEFAULT_ADDRESS,
        "The daemon to talk to: host:port, https://host:port or unix:/path.",
    ),
    Option("--namespace", "NAME", NAMESPACE_VARIABLE, DEFAULT_NAMESPACE, "The namespace of the agent."),
    Option("--token-file", "FILE", TOKEN_FILE_VARIABLE, None, f"The file with the token to show; or {TOKEN_VARIABLE}."),
    Option("--ca-file", "FILE", "STATEHOUSE_CLIENT_CA_FILE", None, "Whom to trust with TLS, instead of the system's."),
    Option("--cert-file", "FILE", "STATEHOUSE_CLIENT_CERT_FILE", None, "The certificate to show, for mutual TLS."),
    Option("--key-file", "FILE", "STATEHOUSE_CLIENT_KEY_FILE", None, "Its key."),
    Option("--server-name", "NAME", "STATEHOUSE_CLIENT_SERVER_NAME", None, "The name in the daemon's certificate."),
    Option("--insecure", None, "STATEHOUSE_CLIENT_INSECURE", None, "Let the token go to another machine without TLS."),
)


@frozen(kw_only=True)
class Target:
    """A daemon's address, a namespace in it, and with what to come in. None: not given."""

    address: str | None = None
    namespace: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    insecure: bool | None = None

    def token(self) -> str | None:
        """The token, from the file or the environment. UsageError when the file has none."""
        path = self.token_file
        if path == "":
            raise click.UsageError("--token-file is empty; it names the file that has the token")
        if path is None:
            path = None if os.environ.get(TOKEN_VARIABLE) else os.environ.get(TOKEN_FILE_VARIABLE)
        if not path:
            return os.environ.get(TOKEN_VARIABLE) or None
        called = f"the token file {without_secrets(path)}"
        try:
            text = read_file(path, TOKEN_FILE_BYTES + 1)
        except OSError as error:
            # From None: the error that it was has the whole path.
            raise click.UsageError(f"{called} cannot be read: {error.strerror}") from None
        words = text.split()
        if len(text) > TOKEN_FILE_BYTES or len(words) != 1 or not words[0].isascii():
            raise click.UsageError(f"{called} must have one token in it, and nothing else")
        return words[0].decode()


@frozen
class Connection:
    """What a command works with: a client, and the namespace that it asks about."""

    client: Statehouse
    namespace: str


def target_options(*, fallback: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that name the target; with `fallback`, the environment and the defaults count too."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(OPTIONS):
            # Which of the token's two variables counts is decided when the token is read.
            variable = option.variable if fallback and option.variable != TOKEN_FILE_VARIABLE else None
            default = f"; default {option.default}" if option.default else ""
            function = click.option(
                option.flag,
                metavar=option.metavar,
                type=click.BOOL if option.metavar is None else TEXT,
                is_flag=option.metavar is None,
                default=option.default if fallback else None,
                envvar=variable,
                help=f"{option.help} [{option.variable}{default}]",
            )(function)
        return function

    return add


def with_connection(command: Callable[Concatenate[Connection, P], None]) -> Callable[..., None]:
    """Give a command its connection to the target; it is closed when the command ends."""

    @target_options(fallback=False)
    @click.pass_obj
    @functools.wraps(command)
    def run(farther: Target, /, *args: P.args, **kwargs: P.kwargs) -> None:
        given: dict[str, Any] = {}
        for option in OPTIONS:
            nearer = kwargs.pop(option.name)
            # An empty address is the user's mistake, and not the farther one.
            given[option.name] = getattr(farther, option.name) if nearer is None else nearer
        target = Target(**given)
        namespace = target.namespace or farther.namespace or DEFAULT_NAMESPACE
        try:
            client = Statehouse(
                DEFAULT_ADDRESS if target.address is None else target.address,
                namespace,
                token=target.token(),
                ca_file=target.ca_file,
                cert_file=target.cert_file,
                key_file=target.key_file,
                server_name=target.server_name,
                insecure=bool(target.insecure),
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        with client:
            command(Connection(client, namespace), *args, **kwargs)

    return run
