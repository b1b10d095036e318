"""Measure the gRPC edge against purerpc as shipped, in one run, round by round, and print one JSON object.

    python tools/bench_edge.py                             everything, about 8 minutes
    python tools/bench_edge.py --only calls --only replay  some of it
    python tools/bench_edge.py --rounds 1 --seconds 0.5    whether it works at all, a minute

In a round every server has its turn, and the next round has them the other way round, so that what else the machine
does hits all of them. Only ratios carry over to another machine. The measurements:

    calls         GetState of a 200-byte record, 64 in flight on one connection: calls/s, and `cpu`, the server's CPU a
                  call: user and system time of the whole process, all its threads, with whatever else it does
    latency       the same, one call at a time: the median
    replay        events of 200 bytes a second, whole histories, to a reader that looks at frame headers only. The
                  handler on purerpc gives its loop a turn after each event, as one does that waits for what it reads;
                  `replay-no-turns` is against one that never waits, which is faster, but answers nobody else
                  meanwhile, and has in memory all that the client's window lets it send
    transactions  begin + write + commit, 64 clients with a connection each, fsync on, against the daemon of --before
    transact      Transact with one operation, the same clients, against begin + write + commit on the same daemon
    batch         BatchGet of 100 keys of 10 agents, each value 200 bytes, 64 in flight on one connection, against
                  GetState of the same keys: keys a second; `batch-alone` is one call at a time
    client        our async client on asyncio and on Trio against grpc.aio, GetState, 64 in flight, our daemon

The load is grpc.aio, in a process of its own. On few cores it may be what limits a fast server; figures that end in
`-frames` have the same calls from bare sockets, for a fraction of the CPU, and no target. A table with each target,
and how busy each load was, goes to stderr.
"""

import argparse
import json
import math
import os
import platform
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NoReturn

from bench_arguments import count
from daemon_process import DaemonFailedError
from edge_load.figures import Figure, table
from edge_load.measurements import MEASUREMENTS
from edge_load.processes import BenchError
from edge_load.servers import Bench, Options

BEFORE_THIS_EDGE: Final = "6e670e9"


def machine(directory: Path) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average_1m": os.getloadavg()[0],
        "file_system": file_system_of(directory),
    }


def file_system_of(directory: Path) -> str:
    """The type of the file system that a directory is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    around = [(len(Path(where).parts), kind) for where, kind in mounts if directory.resolve().is_relative_to(where)]
    return max(around)[1]


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench_edge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--only", action="append", choices=MEASUREMENTS, metavar="NAME", help="only this measurement; may be repeated")
    add("--rounds", type=count, default=5, metavar="N", help="turns of each server (default: %(default)s)")
    add("--seconds", type=_seconds, default=3.0, metavar="S", help="time that counts in a turn (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the JSON here instead of to stdout")
    add("--dir", type=Path, default=Path(), help="where the stores are made, on a real disk (default: here)")
    add("--before", default=BEFORE_THIS_EDGE, metavar="REV", help="git revision of transactions' other daemon")
    add("--events", type=count, default=20_000, metavar="N", help="events of a history (default: %(default)s)")
    add("--in-flight", type=count, default=64, metavar="N", help="GetStates at once (default: %(default)s)")
    add("--clients", type=count, default=64, metavar="N", help="clients of transactions (default: %(default)s)")
    add("--load-processes", type=count, default=1, metavar="N", help="loads of transactions (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if not arguments.dir.is_dir():
        parser.error(f"--dir: {arguments.dir} is not a directory")
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json: {arguments.json.parent} is not a directory")
    if arguments.load_processes > arguments.clients:
        parser.error("--load-processes: more processes than --clients")
    return arguments


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    arguments = arguments_of(argv)
    options = Options(**{field: getattr(arguments, field) for field in Options.__annotations__})
    signal.signal(signal.SIGTERM, _interrupt)
    results: dict[str, Any] = {"machine": machine(arguments.dir)}
    if results["machine"]["file_system"] == "tmpfs":
        print("bench_edge: --dir is on a tmpfs, where fsync costs nothing", file=sys.stderr)
    figures: list[Figure] = []
    scratch = Path(tempfile.mkdtemp(prefix="bench-edge-", dir=arguments.dir)).resolve()
    try:
        with ExitStack() as stack:
            bench = Bench(options, scratch, stack)
            for name in arguments.only or MEASUREMENTS:
                print(f"{name} ...", file=sys.stderr)
                figures += MEASUREMENTS[name](bench)
    except (BenchError, DaemonFailedError) as error:
        lines = str(error).splitlines()
        print("bench_edge:", *dict.fromkeys([lines[0], lines[-1]]), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench_edge: interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(scratch)
    print(table(figures), file=sys.stderr)
    results |= {"options": vars(arguments) | {"json": str(arguments.json), "dir": str(arguments.dir)}}
    results |= {"notes": bench.notes, "figures": {figure.name: figure.as_json() for figure in figures}}
    text = json.dumps(results, indent=2) + "\n"
    if arguments.json:
        arguments.json.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
