"""Which daemon a `statehousectl` command talks to, and which namespace it means.

`--address` and `--namespace` are accepted before and after the command's name; what stands nearer to the
command wins, then the environment, then the default.
"""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec

import click
from attrs import frozen

from statehouse.cli.ctl_arguments import TEXT
from statehouse.client import Statehouse
from statehouse.types import DEFAULT_NAMESPACE

P = ParamSpec("P")

DEFAULT_ADDRESS: Final = "localhost:50051"
ADDRESS_VARIABLE: Final = "STATEHOUSE_ADDR"
NAMESPACE_VARIABLE: Final = "STATEHOUSE_NAMESPACE"


@frozen
class Target:
    """A daemon's address and a namespace in it."""

    address: str
    namespace: str


@frozen
class Connection:
    """What a command works with: a client, and the namespace that it asks about."""

    client: Statehouse
    namespace: str


def target_options(*, fallback: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that name the target; with `fallback`, the environment and the defaults count too."""
    address = click.option(
        "--address",
        metavar="HOST:PORT",
        type=TEXT,
        default=DEFAULT_ADDRESS if fallback else None,
        envvar=ADDRESS_VARIABLE if fallback else None,
        help=f"The daemon to talk to. [{ADDRESS_VARIABLE}; default {DEFAULT_ADDRESS}]",
    )
    namespace = click.option(
        "--namespace",
        metavar="NAME",
        type=TEXT,
        default=DEFAULT_NAMESPACE if fallback else None,
        envvar=NAMESPACE_VARIABLE if fallback else None,
        help=f"The namespace of the agent. [{NAMESPACE_VARIABLE}; default {DEFAULT_NAMESPACE}]",
    )
    return lambda function: address(namespace(function))


def with_connection(command: Callable[Concatenate[Connection, P], None]) -> Callable[..., None]:
    """Give a command its connection to the target; it is closed when the command ends."""

    @target_options(fallback=False)
    @click.pass_obj
    @functools.wraps(command)
    def run(target: Target, /, *args: P.args, **kwargs: P.kwargs) -> None:
        nearer = kwargs.pop("address")
        address = target.address if nearer is None else str(nearer)  # an empty one is the user's mistake
        namespace = str(kwargs.pop("namespace") or target.namespace)
        try:
            client = Statehouse(address, namespace)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        with client:
            command(Connection(client, namespace), *args, **kwargs)

    return run
