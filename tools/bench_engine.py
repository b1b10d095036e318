"""Measure the engine without RPC, and the daemon's memory, and print one JSON object.

    python tools/bench_engine.py                     everything, at full size (about 10 minutes)
    python tools/bench_engine.py --events 100000     the same, smaller
    python tools/bench_engine.py commits latency     only the named measurements

docs/benchmarks.md has the last results and the machine they come from. Every store is made below --directory (default:
a temporary folder in the working directory, so that it is on the disk that the project is on) and removed afterwards.
"""

import argparse
import base64
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import trio
from google.protobuf.struct_pb2 import Struct

sys.path.insert(0, str(Path(__file__).resolve().parent))
from daemon_process import DaemonProcess

from statehouse import Statehouse
from statehouse.actors.engine import Engine
from statehouse.actors.opening import open_engine
from statehouse.actors.watching import ReplayArguments
from statehouse.settings import Settings
from statehouse.types import AgentId

COMMITTERS = 64
VALUE_BYTES = 200
PREALLOCATED_BYTES = 64 * 1024 * 1024
HISTORY = AgentId("bench", "one-agent")

Result = dict[str, float | int | list[int] | str]


# The workload


def value_of(size_bytes: int, rng: random.Random) -> bytes:
    """A serialized Struct of that many bytes: one string of random characters."""
    text = base64.b85encode(rng.randbytes(size_bytes)).decode()
    for length in range(size_bytes, 0, -1):
        struct = Struct()
        struct["v"] = text[:length]
        encoded = struct.SerializeToString()
        if len(encoded) <= size_bytes:
            return encoded
    raise ValueError(f"no Struct has {size_bytes} bytes")


@asynccontextmanager
async def engine_at(directory: Path) -> AsyncIterator[Engine]:
    """An engine on LevelDB, fsync on, without snapshots: they would be measured as well."""
    await trio.Path(directory).mkdir(exist_ok=True)
    async with open_engine(Settings(data_dir=directory, snapshot_interval=0)) as engine:
        yield engine


async def commit_one(engine: Engine, agent: AgentId, key: str, value: bytes) -> int:
    """What a client's begin, write and commit come to."""
    txn_id = engine.begin(None).result()
    engine.write(txn_id, agent, key, value).result()
    return await engine.commit(txn_id).wait()


async def commit_many(
    engine: Engine, numbers: range, agent_of: Callable[[int], AgentId], value_for: Callable[[int], bytes]
) -> float:
    """One-operation commits, a key each, from 64 tasks; the seconds they took."""
    left = iter(numbers)

    async def committer() -> None:
        for number in left:
            await commit_one(engine, agent_of(number), f"key-{number:08}", value_for(number))

    started_s = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(COMMITTERS):
            nursery.start_soon(committer)
    return time.perf_counter() - started_s


def one_of_64(number: int) -> AgentId:
    return AgentId("bench", f"agent-{number % COMMITTERS:02}")


# The measurements


async def commits(directory: Path, events: int) -> Result:
    """Durable commits a second, 64 committers, 200-byte values: the median of five runs; what one costs in CPU."""
    value = value_of(VALUE_BYTES, random.Random(1))
    count = max(events // 20, 1_000)
    rates = []
    async with engine_at(directory / "commits") as engine:
        loop_s, process_s = time.thread_time(), time.process_time()
        for run in range(6):
            numbers = range(run * count, (run + 1) * count)
            rates.append(round(count / await commit_many(engine, numbers, one_of_64, lambda _: value)))
        loop_s, process_s = time.thread_time() - loop_s, time.process_time() - process_s
    return {
        "commits_per_s": statistics.median(rates[1:]),
        "runs": rates[1:],
        "commits_a_run": count,
        "event_loop_cpu_us": round(loop_s / (6 * count) * 1e6, 1),
        "process_cpu_us": round(process_s / (6 * count) * 1e6, 1),
    }


async def latency(directory: Path, events: int) -> Result:
    """One committer's median commit over one bare fdatasync of the same bytes, in turn on the same disk."""
    value = value_of(VALUE_BYTES, random.Random(1))
    record_bytes = len(value) + 150
    commit_s, bare_s = [], []
    await trio.Path(directory).mkdir(exist_ok=True)
    descriptor = os.open(directory / "bare", os.O_RDWR | os.O_CREAT)
    try:
        for _ in range(PREALLOCATED_BYTES // 2**20):
            os.write(descriptor, bytes(2**20))
        os.fsync(descriptor)
        async with engine_at(directory / "latency") as engine:
            for number in range(min(max(events // 100, 500), 5_000)):
                started_s = time.perf_counter()
                await commit_one(engine, HISTORY, f"key-{number % 100:03}", value)
                commit_s.append(time.perf_counter() - started_s)
                started_s = time.perf_counter()
                os.pwrite(descriptor, bytes(record_bytes), number * record_bytes)
                os.fdatasync(descriptor)
                bare_s.append(time.perf_counter() - started_s)
    finally:
        os.close(descriptor)
    commit_us, bare_us = (statistics.median(times) * 1e6 for times in (commit_s, bare_s))
    return {"commit_us": round(commit_us), "fdatasync_us": round(bare_us), "ratio": round(commit_us / bare_us, 2)}


async def history(directory: Path, events: int) -> Result:
    """One agent with all the events: its replay, the log's overhead, restart, the daemon's memory, rebuild."""
    value = value_of(VALUE_BYTES, random.Random(1))
    store = directory / "history"
    async with engine_at(store) as engine:
        await commit_many(engine, range(events), lambda _: HISTORY, lambda _: value)
        rates = []
        for _ in range(3):
            started_s = time.perf_counter()
            seen = 0
            async for chunk in engine.replay(ReplayArguments(agent=HISTORY)):
                seen += len(chunk)
            rates.append(round(seen / (time.perf_counter() - started_s)))
        if seen != events:
            raise RuntimeError(f"replay gave {seen} of {events} events")
    names_bytes = len(HISTORY.namespace) + len(HISTORY.agent_id) + len("key-00000000")
    *sealed_segments, last_segment = sorted((store / "log").glob("*.log"))
    log_bytes = sum(path.stat().st_size for path in sealed_segments)
    sealed = int(last_segment.stem) - 1
    result: Result = {
        "replay_events_per_s": statistics.median(rates),
        "log_overhead_bytes": round(log_bytes / sealed - names_bytes - len(value), 1) if sealed else "too few events",
        "restart_s": await opening_s(store),
    }
    result |= await trio.to_thread.run_sync(daemon_memory, store, events)
    shutil.rmtree(store / "state")
    rebuild_s = await opening_s(store)
    return result | {"rebuild_s": rebuild_s, "rebuild_events_per_s": round(events / rebuild_s)}


async def opening_s(store: Path) -> float:
    """How long opening takes: recovery, and LevelDB's own."""
    started_s = time.perf_counter()
    async with engine_at(store):
        return round(time.perf_counter() - started_s, 3)


def daemon_memory(store: Path, events: int) -> Result:
    """The daemon's resident memory after a restart, and by how much it grows while everything is replayed once.

    Anonymous memory is the daemon's own; the rest is files that it has mapped, LevelDB's tables above all.
    """
    with DaemonProcess(store, options=("--snapshot-interval", "0")) as daemon:  # it would be read by the rebuild
        ready, ready_own = resident_mb(daemon.pid)
        seen, peak, peak_own = 0, ready, ready_own
        with Statehouse(daemon.address, namespace=HISTORY.namespace) as client:
            for _ in client.replay(HISTORY.agent_id):
                seen += 1
                if seen % 10_000 == 0:
                    resident, own = resident_mb(daemon.pid)
                    peak, peak_own = max(peak, resident), max(peak_own, own)
        if seen != events:
            raise RuntimeError(f"replay gave {seen} of {events} events")
    return {
        "daemon_resident_mb": ready,
        "daemon_replay_growth_mb": round(peak - ready, 1),
        "daemon_replay_growth_anonymous_mb": round(peak_own - ready_own, 1),
    }


def resident_mb(pid: int) -> tuple[float, float]:
    """A process's resident memory, and how much of it is anonymous."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    resident, anonymous = (int(status[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "RssAnon"))
    return round(resident, 1), round(anonymous, 1)


async def disk(directory: Path, events: int) -> Result:
    """What keys of 1 KB of random bytes take on disk, written once: the log and LevelDB together."""
    rng = random.Random(2)
    store = directory / "disk"
    async with engine_at(store) as engine:
        await commit_many(engine, range(events), one_of_64, lambda _: value_of(1_024, rng))
    log_bytes = sum(path.stat().st_blocks * 512 for path in (store / "log").iterdir())
    view_bytes = sum(path.stat().st_blocks * 512 for path in (store / "state").iterdir())
    return {
        "keys": events,
        "log_gb": round(log_bytes / 1e9, 3),
        "view_gb": round(view_bytes / 1e9, 3),
        "total_gb": round((log_bytes + view_bytes) / 1e9, 3),
    }


MEASUREMENTS: dict[str, Callable[[Path, int], Awaitable[Result]]] = {
    "commits": commits,
    "latency": latency,
    "history": history,
    "disk": disk,
}


def machine() -> Result:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average_1m": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the engine; prints JSON. See docs/benchmarks.md.")
    parser.add_argument("measurements", nargs="*", help=f"which: {', '.join(MEASUREMENTS)} (default: all)")
    parser.add_argument("--events", type=int, default=1_000_000, help="size of the histories (default: 1,000,000)")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to make the stores (default: here)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.measurements) - set(MEASUREMENTS))
    if unknown:
        parser.error(f"unknown measurement {unknown[0]}: choose from {', '.join(MEASUREMENTS)}")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    results: dict[str, Result] = {"machine": machine()}
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.directory))
    try:
        for name in arguments.measurements or MEASUREMENTS:
            results[name] = trio.run(partial(MEASUREMENTS[name], scratch, arguments.events))
            print(name, results[name], file=sys.stderr)
            for store in scratch.iterdir():
                shutil.rmtree(store) if store.is_dir() else store.unlink()
    finally:
        shutil.rmtree(scratch)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
