"""Measure values that expire: what a TTL costs a write, what it takes on disk, and what happens to others while many
values that have expired at once are deleted.

    python tools/bench_ttl.py                                    100,000 values, some minutes
    python tools/bench_ttl.py --values 2000 --calls 50           whether it works at all, half a minute

Prints a table, or with --json one JSON object. Everything is asked of a daemon in a process of its own, on the same
machine, from a bare socket, one call at a time; a time is from sending a call to having its answer. Calls that are
compared take turns, so that whatever else the machine does hits all of them alike, with fsync on and then off.

The sweep: so many values of a few agents, written in one commit (whose limit is raised for that), expire at the same
moment; its time is from then until the daemon has deleted all of them, looked for ten times a second. Meanwhile
somebody else commits one key at a time, durably, as for some seconds before, when there is nothing to delete.
"""

import argparse
import datetime as dt
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench_arguments import count
from bench_fork import Request, ask, quantile_us, space, started_anew, take_turns
from bench_watch import NAMESPACE, Peer, running
from daemon_process import DaemonProcess

from statehouse import Put, Statehouse
from statehouse.errors import StatehouseError
from statehouse.v1 import statehouse_pb2 as pb

LASTING: Final = "lasting"
EXPIRING: Final = "expiring"
LASTING_AGENTS: Final = "l"
EXPIRING_AGENTS: Final = "e"
"""Short, so that one message holds many operations."""
LONG_S: Final = 1_000_000
SEVERAL: Final = 100
"""Operations of the larger commits."""
LOOK_S: Final = 0.1
QUIET_S: Final = 6
PATIENCE_S: Final = 600


def write_request(ttl_s: int | None, keys: int, number: int) -> Request:
    """A commit of so many keys of an agent of its own."""
    agent = f"{keys}/{ttl_s}/{number:07}"
    operations = [
        pb.TransactOperation(agent_id=agent, key=f"key-{each:03}", value={"n": number}, ttl_s=ttl_s)
        for each in range(keys)
    ]
    return "Transact", pb.TransactRequest(namespace=NAMESPACE, operations=operations).SerializeToString()


def get_request(agent: str, _: int) -> Request:
    return "GetState", pb.GetStateRequest(namespace=NAMESPACE, agent_id=agent, key="key-042").SerializeToString()


def scan_request(agent: str, _: int) -> Request:
    return "ScanPrefix", pb.ScanPrefixRequest(namespace=NAMESPACE, agent_id=agent).SerializeToString()


Kinds = dict[str, Callable[[int], Request]]


def writes(keys: int) -> Kinds:
    return {LASTING: partial(write_request, None, keys), EXPIRING: partial(write_request, LONG_S, keys)}


def reads(asked: Callable[[str, int], Request]) -> Kinds:
    """Of the first agent that each of `writes(SEVERAL)` has written."""
    return {name: partial(asked, f"{SEVERAL}/{ttl_s}/{0:07}") for name, ttl_s in ((LASTING, None), (EXPIRING, LONG_S))}


def with_ratio(times: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {**times, "ratio": round(times[EXPIRING]["median_us"] / times[LASTING]["median_us"], 2)}


def fill(client: Statehouse, prefix: str, values: int, agents: int, ttl_s: int | None) -> float:
    """Write so many values in one commit, which all expire at the same nanosecond; how long it took."""
    operations = [
        Put(f"{prefix}{number % agents}", f"{number:06x}", {"is": True}, ttl_s=ttl_s) for number in range(values)
    ]
    began = time.monotonic()
    client.transact(operations, timeout_s=PATIENCE_S)
    return time.monotonic() - began


class Others:
    """Somebody else's commits, one at a time; `times` has when each began and how long it took."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._request = write_request(None, 1, 0)
        self.times: list[tuple[float, float]] = []

    def commit(self) -> None:
        self.times.append((time.monotonic(), ask(self._peer, self._request)))

    def within(self, began: float, ended: float) -> dict[str, float]:
        """Of those that were under way between two times."""
        times = [taken for at, taken in self.times if at + taken > began and at < ended]
        if not times:
            raise RuntimeError("nothing was committed meanwhile")
        quantiles = {f"{name}_us": quantile_us(times, part) for name, part in (("median", 0.5), ("p99", 0.99))}
        return {"commits": len(times), **quantiles, "max_us": quantile_us(times, 1)}


def sweep(peer: Peer, client: Statehouse, values: int, agents: int) -> dict[str, Any]:
    """Have so many values expire at once, and commit until all are deleted."""
    lasting_s = fill(client, LASTING_AGENTS, values, agents, None)
    expiring_s = fill(client, EXPIRING_AGENTS, values, agents, int(lasting_s) + QUIET_S)
    told = client.get_state(f"{EXPIRING_AGENTS}0", f"{0:06x}").expires_at
    if told is None:
        raise RuntimeError("the daemon does not know of values that expire")
    began = time.monotonic()
    expires_at = began + (told - dt.datetime.now(dt.UTC)).total_seconds()
    others = Others(peer)
    looked, left = expires_at, values
    while left:
        others.commit()
        if time.monotonic() > looked + LOOK_S:
            left = sum(info.live_keys for info in client.list_agents(EXPIRING_AGENTS))
            looked = time.monotonic()
            if left and looked > expires_at + PATIENCE_S:
                raise RuntimeError(f"{left} of {values} values were not deleted in {PATIENCE_S} s")
    took_s = looked - expires_at
    return {
        "values": values,
        "agents": agents,
        "written_s": {LASTING: round(lasting_s, 2), EXPIRING: round(expiring_s, 2)},
        "took_s": round(took_s, 2),
        "values_per_s": round(values / took_s),
        "others_before": others.within(began, expires_at),
        "others_meanwhile": others.within(expires_at, looked),
    }


def measure(daemon: DaemonProcess, values: int, agents: int, calls: int) -> dict[str, Any]:
    """Each thing with a daemon that was started anew."""
    found: dict[str, Any] = {
        "cores": os.cpu_count(),
        "load_average_1m": os.getloadavg()[0],
        "calls": calls,
        "several": SEVERAL,
    }
    numbers = [range(first, first + calls) for first in range(0, 8 * calls, 2 * calls)]
    with started_anew(daemon) as peer:
        found["one"] = with_ratio(take_turns(peer, writes(1), numbers[0]))
        found["many"] = with_ratio(take_turns(peer, writes(SEVERAL), numbers[0]))
        found["space"] = {name: space(peer, daemon.data_dir, asked, numbers[1]) for name, asked in writes(1).items()}
        found["get"] = with_ratio(take_turns(peer, reads(get_request), numbers[0]))
        found["scan"] = with_ratio(take_turns(peer, reads(scan_request), numbers[0]))
    with started_anew(daemon, "--fsync-on-commit", "0") as peer:
        found["one_without_fsync"] = with_ratio(take_turns(peer, writes(1), numbers[2]))
        found["many_without_fsync"] = with_ratio(take_turns(peer, writes(SEVERAL), numbers[2]))
    limit = "--limit-transaction-operations", str(max(values, 10_000))
    with started_anew(daemon, *limit) as peer, Statehouse(daemon.address, NAMESPACE) as client:
        found["sweep"] = sweep(peer, client, values, agents)
    return found


LINES: Final = {
    "one": "commit of one key",
    "one_without_fsync": "the same, no fsync",
    "many": f"commit of {SEVERAL} keys",
    "many_without_fsync": "the same, no fsync",
    "get": "get",
    "scan": f"scan of {SEVERAL} keys",
}


def table(found: dict[str, Any]) -> str:
    """What was measured, for people."""
    lines = [f"{found['calls']} calls each; median and p99 in us, without a TTL and with one", ""]
    for name, called in LINES.items():
        lasting, expiring, ratio = (found[name][each] for each in (LASTING, EXPIRING, "ratio"))
        lines.append(f"{called:<28}{_times(lasting)}{_times(expiring)}   {ratio} x")
    lines.append("")
    for name, each in found["space"].items():
        on_disk = f"{each['log_bytes']:.1f} bytes of log, {each['view_bytes']:.1f} of the view"
        lines.append(f"on disk, one value, {name}: {on_disk}")
    swept = found["sweep"]
    written = "{lasting} s, with a TTL in {expiring} s".format(**swept["written_s"])
    lines += [
        "",
        f"{swept['values']:,} values of {swept['agents']} agents written in {written}",
        f"expired at once, and were deleted in {swept['took_s']} s: {swept['values_per_s']:,} a second",
    ]
    for name, when in (("others_before", "before"), ("others_meanwhile", "meanwhile")):
        each = swept[name]
        lines.append(
            f"commits of others {when:<10}{_times(each)}, at most {each['max_us']:,.0f} ({each['commits']} commits)"
        )
    return "\n".join(lines)


def _times(times: dict[str, float]) -> str:
    return f" {times['median_us']:>9.1f} {times['p99_us']:>9.1f}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench_ttl",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--values",
        type=count,
        default=100_000,
        metavar="N",
        help="that expire at once; one message must hold them (default: %(default)s)",
    )
    add("--agents", type=count, default=10, metavar="N", help="that have them (default: %(default)s)")
    add("--calls", type=count, default=500, metavar="N", help="of each kind (default: %(default)s)")
    add("--dir", type=Path, default=Path(), help="where the store is made, on a real disk (default: here)")
    add("--json", dest="as_json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    scratch = Path(tempfile.mkdtemp(prefix="bench-ttl-", dir=arguments.dir)).resolve()
    try:
        with running(scratch, "store") as daemon:
            found = measure(daemon, arguments.values, arguments.agents, arguments.calls)
    except (RuntimeError, StatehouseError) as error:
        print(f"bench_ttl: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(scratch)
    print(json.dumps(found, indent=2) if arguments.as_json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
