"""The commands of `statehousectl` that take, keep and give back leases on agents."""

import datetime as dt
import math
from typing import Final

import click

from statehouse.cli.ctl_arguments import TEXT, VERSION_NUMBER
from statehouse.cli.ctl_connection import Connection, with_connection
from statehouse.cli.ctl_output import CommandEnd, json_option, print_json
from statehouse.cli.exit_codes import ControlExit
from statehouse.client import Lease
from statehouse.client.formatting import one_line
from statehouse.client.types import LeaseState, utc_text
from statehouse.limits import LEASE_LEAST_MS, LEASE_MOST_MS
from statehouse.types import JsonObject

__all__ = ["lease"]

ANY_TTL_S: Final = 60.0
"""For a lease that is only given back."""


def _number(context: click.Context, parameter: click.Parameter, seconds: float) -> float:
    """A range of floats lets NaN through, which is neither below nor above."""
    if math.isnan(seconds):
        raise click.BadParameter("nan is no number of seconds", context, parameter)
    return seconds


_TTL: Final = click.option(
    "--ttl-s",
    type=click.FloatRange(LEASE_LEAST_MS / 1000, LEASE_MOST_MS / 1000),
    callback=_number,
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help=f"How long from now on, from {LEASE_LEAST_MS // 1000} to {LEASE_MOST_MS // 1000}.",
)


@click.group(
    short_help="Take, keep and give back the lease on an agent.",
    no_args_is_help=False,
    epilog="""\b
Examples:
  epoch=$(statehousectl lease acquire agent-7 --holder "$(hostname)" --json | jq .epoch)
  statehousectl transact --put agent-7 plan '{}' --lease agent-7 "$epoch"
  statehousectl lease renew agent-7 "$epoch" --ttl-s 120
  statehousectl lease release agent-7 "$epoch"
""",
)
def lease() -> None:
    """Take, keep and give back the lease on an agent: one holder at a time, until it expires.

    Each acquisition has an epoch, one more than the one before it. A transaction that shows its epoch (--lease of
    transact) is refused once the lease has expired or is another's; one that shows none is not.
    """


@lease.command(short_help="Take the lease, if nobody holds it.")
@click.argument("agent", type=TEXT)
@click.option("--holder", type=TEXT, required=True, metavar="NAME", help="Who takes it, for people to read.")
@_TTL
@json_option
@with_connection
def acquire(connection: Connection, agent: str, holder: str, ttl_s: float, *, as_json: bool) -> None:
    """Take the lease on AGENT and print it. Exits with 6 while it is held, also by the same holder."""
    _print(_taken(connection.client.lease(agent, holder, ttl_s)), agent, as_json=as_json)


@lease.command(short_help="Keep the lease for longer.")
@click.argument("agent", type=TEXT)
@click.argument("epoch", type=VERSION_NUMBER)
@_TTL
@json_option
@with_connection
def renew(connection: Connection, agent: str, epoch: int, ttl_s: float, *, as_json: bool) -> None:
    """Have the lease on AGENT with this EPOCH expire later, and print it. Exits with 6 when it is not held any more."""
    renewed = connection.client.adopt_lease(agent, epoch, ttl_s)
    renewed.renew()
    _print(_taken(renewed), agent, as_json=as_json)


@lease.command(short_help="Give the lease back.")
@click.argument("agent", type=TEXT)
@click.argument("epoch", type=VERSION_NUMBER)
@json_option
@with_connection
def release(connection: Connection, agent: str, epoch: int, *, as_json: bool) -> None:
    """Give the lease on AGENT with this EPOCH back. Exits with 6 when it is not held any more."""
    connection.client.adopt_lease(agent, epoch, ANY_TTL_S).release()
    if as_json:
        print_json({"agent_id": agent, "epoch": epoch, "held": False})
    else:
        click.echo(f"agent={one_line(agent)}  epoch={epoch}  released")


@lease.command(short_help="Print the newest lease, and whether it is held.")
@click.argument("agent", type=TEXT)
@json_option
@with_connection
def show(connection: Connection, agent: str, *, as_json: bool) -> None:
    """Print the newest lease on AGENT. Exits with 1 when it is not held: expired, released, or never taken."""
    found = connection.client.get_lease(agent)
    if found is not None:
        _print(found, agent, as_json=as_json)
    elif as_json:
        print_json({"agent_id": agent, "epoch": 0, "held": False})
    if found is None or not found.held:
        missing = f"nobody ever had a lease on agent {one_line(agent)!r}" if found is None and not as_json else None
        raise CommandEnd(ControlExit.NEGATIVE, missing)


def _taken(lease: Lease) -> LeaseState:
    return LeaseState(lease.epoch, lease.holder, lease.expires_at, lease.commit_ts, held=True)


def _print(found: LeaseState, agent: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_json(agent, found))
        return
    expires_at = f"{found.expires_at.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    columns = [
        f"agent={one_line(agent)}",
        f"epoch={found.epoch}",
        "held" if found.held else "not held",
        f"holder={one_line(found.holder)}",
        f"expires_at={expires_at}",
        f"commit_ts={found.commit_ts}",
    ]
    click.echo("  ".join(columns))


def _json(agent: str, found: LeaseState) -> JsonObject:
    return {
        "agent_id": agent,
        "epoch": found.epoch,
        "held": found.held,
        "holder": found.holder,
        "expires_at": utc_text(found.expires_at),
        "commit_ts": found.commit_ts,
    }
