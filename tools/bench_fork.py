"""Measure forks: whether a large agent costs more to fork than a small one, what a fork takes on disk, and what reading
through many of them costs.

    python tools/bench_fork.py                                   a parent of 1,000,000 keys and one of 10, two minutes
    python tools/bench_fork.py --keys 1000 --calls 50            whether it works at all, a few seconds

Prints a table, or with --json one JSON object. Everything is asked of a daemon in a process of its own, on the same
machine, with fsync on, from a bare socket, one call at a time; a time is from sending a call to having its answer. The
calls that are compared take turns, so that whatever else the machine does hits all of them alike. Forks and commits are
durable: each waits for its own sync of the disk. At most twice as long for the large parent, in the median, is what is
asked for. So that a difference is not hidden behind the disk, the same is measured with fsync off, too. What a fork
takes on disk is told by the files, before and after so many forks of one parent.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from bench_arguments import count
from bench_watch import NAMESPACE, Peer, running
from daemon_process import DaemonProcess

from statehouse import Put, Statehouse
from statehouse.errors import StatehouseError
from statehouse.limits import FORK_DEPTH
from statehouse.v1 import statehouse_pb2 as pb

LARGE: Final = "large"
SMALL: Final = "small"
SMALL_KEYS: Final = 10
FILL_OPERATIONS: Final = 10_000
ASKED_AT_MOST: Final = 2.0
LEVELS: Final = (0, 1, 8, FORK_DEPTH)
SCANNED_KEYS: Final = 100
WARM_CALLS: Final = 5

Request: TypeAlias = tuple[str, bytes]
"""A method's name, and a message."""


def fill(client: Statehouse, agent: str, keys: int) -> None:
    """Give an agent so many keys, each with a value that stands in the view."""
    for first in range(0, keys, FILL_OPERATIONS):
        numbers = range(first, min(first + FILL_OPERATIONS, keys))
        client.transact([Put(agent, f"key-{number:07}", {"n": number}) for number in numbers])


def chain(client: Statehouse) -> dict[int, str]:
    """An agent of SCANNED_KEYS keys, and forks of forks of it; the agent at each of LEVELS, with a key of its own."""
    agents = {0: "level-0"}
    fill(client, agents[0], SCANNED_KEYS)
    for level in range(1, FORK_DEPTH + 1):
        agents[level] = f"level-{level}"
        client.fork(agents[level - 1], agents[level])
    client.transact([Put(agents[level], "own", {"n": level}) for level in LEVELS])
    return {level: agents[level] for level in LEVELS}


def fork_request(parent: str, number: int) -> Request:
    request = pb.ForkAgentRequest(namespace=NAMESPACE, agent_id=parent, new_agent_id=f"{parent}/{number:07}")
    return "ForkAgent", request.SerializeToString()


def commit_request(number: int) -> Request:
    operation = pb.TransactOperation(agent_id=f"commit/{number:07}", key="key", value={"n": number})
    return "Transact", pb.TransactRequest(namespace=NAMESPACE, operations=[operation]).SerializeToString()


def get_request(agent: str, key: str, _: int) -> Request:
    return "GetState", pb.GetStateRequest(namespace=NAMESPACE, agent_id=agent, key=key).SerializeToString()


def scan_request(agent: str, _: int) -> Request:
    request = pb.ScanPrefixRequest(namespace=NAMESPACE, agent_id=agent, prefix="key-")
    return "ScanPrefix", request.SerializeToString()


READS: Final[dict[str, Callable[[str], Callable[[int], Request]]]] = {
    "get, its own key": lambda agent: partial(get_request, agent, "own"),
    "get, an inherited key": lambda agent: partial(get_request, agent, "key-0000042"),
    "get, a key that is not there": lambda agent: partial(get_request, agent, "nothing"),
    f"scan, {SCANNED_KEYS} inherited keys": lambda agent: partial(scan_request, agent),
}
"""By what it is called: what asks an agent for it."""


def ask(peer: Peer, request: Request) -> float:
    """Make one call and wait for its answer; seconds. RuntimeError when it fails."""
    name, message = request
    began = time.perf_counter()
    stream_id = peer.ask(name, message)
    while not peer.messages[stream_id]:
        peer.take()
    return time.perf_counter() - began


def take_turns(
    peer: Peer, requests: Mapping[str, Callable[[int], Request]], numbers: range
) -> dict[str, dict[str, float]]:
    """A call of each kind for each number, one at a time and in another order each time; their quantiles, in us.

    A few that are not counted come first; their numbers are those behind the last.
    """
    times: dict[str, list[float]] = {name: [] for name in requests}
    order = list(requests)
    for number in (*range(numbers.stop, numbers.stop + WARM_CALLS), *numbers):
        for name in order:
            taken = ask(peer, requests[name](number))
            if number in numbers:
                times[name].append(taken)
        order.append(order.pop(0))
    return {
        name: {"median_us": quantile_us(each, 0.5), "p99_us": quantile_us(each, 0.99)} for name, each in times.items()
    }


def quantile_us(times: list[float], part: float) -> float:
    ordered = sorted(times)
    return round(1e6 * ordered[min(int(part * len(ordered)), len(ordered) - 1)], 1)


def log_bytes(data_dir: Path) -> int:
    """What is written in the log: its files are preallocated, and zero where nothing is."""
    return sum(len(path.read_bytes().rstrip(b"\0")) for path in (data_dir / "log").glob("*.log"))


def view_bytes(data_dir: Path) -> int:
    return sum(path.stat().st_size for path in (data_dir / "state").iterdir())


def space(peer: Peer, data_dir: Path, asked: Callable[[int], Request], numbers: range) -> dict[str, float]:
    """What a call adds to the log, and to the view's files as they are written at first."""
    before = log_bytes(data_dir), view_bytes(data_dir)
    for number in numbers:
        ask(peer, asked(number))
    after = log_bytes(data_dir), view_bytes(data_dir)
    log, view = (round((new - old) / len(numbers), 1) for new, old in zip(after, before, strict=True))
    return {"log_bytes": log, "view_bytes": view}


def ratio(forks: dict[str, dict[str, float]]) -> float:
    return round(forks[LARGE]["median_us"] / forks[SMALL]["median_us"], 2)


@contextmanager
def started_anew(daemon: DaemonProcess, *options: str) -> Iterator[Peer]:
    """A connection to the daemon, which was stopped, and started with these options."""
    daemon.stop()
    daemon.options = options
    daemon.start()
    peer = Peer(daemon.address)
    with closing(peer.socket):
        yield peer


def measure(daemon: DaemonProcess, keys: int, calls: int) -> dict[str, Any]:
    """Fill a store, and measure each thing with a daemon that was started on it anew."""
    began = time.perf_counter()
    with Statehouse(daemon.address, NAMESPACE) as client:
        fill(client, SMALL, SMALL_KEYS)
        fill(client, LARGE, keys)
        agents = chain(client)
    filled_s = time.perf_counter() - began
    used = calls + WARM_CALLS  # numbers; those of forks that are there are never asked for again
    kinds: dict[str, Callable[[int], Request]] = {
        SMALL: partial(fork_request, SMALL),
        LARGE: partial(fork_request, LARGE),
        "commit": commit_request,
    }
    with started_anew(daemon) as peer:
        forks = take_turns(peer, kinds, range(calls))
        numbers = range(used, used + calls)
        spaces = {parent: space(peer, daemon.data_dir, kinds[parent], numbers) for parent in (SMALL, LARGE)}
        reads = {
            kind: take_turns(peer, {str(level): asked(agent) for level, agent in agents.items()}, range(4 * calls))
            for kind, asked in READS.items()
        }
    with started_anew(daemon, "--fsync-on-commit", "0") as peer:
        unsynced = take_turns(peer, kinds, range(2 * used, 2 * used + calls))
    return {
        "cores": os.cpu_count(),
        "load_average_1m": os.getloadavg()[0],
        "keys": {SMALL: SMALL_KEYS, LARGE: keys},
        "calls": calls,
        "filled_s": round(filled_s, 1),
        "forks": forks,
        "forks_without_fsync": unsynced,
        "large_over_small": ratio(forks),
        "large_over_small_without_fsync": ratio(unsynced),
        "asked_at_most": ASKED_AT_MOST,
        "space": spaces,
        "reads_by_levels": reads,
    }


def table(found: dict[str, Any]) -> str:
    """What was measured, for people."""
    named = {name: f"fork of {keys:,} keys" for name, keys in found["keys"].items()} | {"commit": "commit of one key"}
    lines = [f"{found['calls']} calls each; median and p99 in us", ""]
    lines += [_line(named[name], times) for name, times in found["forks"].items()]
    lines += [f"large over small: {found['large_over_small']} x (asked: at most {found['asked_at_most']:g} x)", ""]
    lines += [_line(f"{named[name]}, no fsync", times) for name, times in found["forks_without_fsync"].items()]
    lines += [f"large over small, no fsync: {found['large_over_small_without_fsync']} x", ""]
    lines += [
        f"{'on disk, ' + named[name]:<38} {each['log_bytes']:>9.1f} bytes of log, {each['view_bytes']:.1f} of the view"
        for name, each in found["space"].items()
    ]
    for kind, by_levels in found["reads_by_levels"].items():
        lines.append("")
        lines += [_line(f"{kind}, {level} forks deep", times) for level, times in by_levels.items()]
    return "\n".join(lines)


def _line(what: str, times: dict[str, float]) -> str:
    return f"{what:<38} {times['median_us']:>9.1f} {times['p99_us']:>9.1f}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench_fork",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--keys", type=count, default=1_000_000, metavar="N", help="of the large parent (default: %(default)s)")
    add("--calls", type=count, default=500, metavar="N", help="of each kind (default: %(default)s)")
    add("--dir", type=Path, default=Path(), help="where the store is made, on a real disk (default: here)")
    add("--json", dest="as_json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    scratch = Path(tempfile.mkdtemp(prefix="bench-fork-", dir=arguments.dir)).resolve()
    try:
        with running(scratch, "store") as daemon:
            found = measure(daemon, arguments.keys, arguments.calls)
    except (RuntimeError, StatehouseError) as error:
        print(f"bench_fork: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(scratch)
    print(json.dumps(found, indent=2) if arguments.as_json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
