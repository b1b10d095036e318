"""Measure reads of the past, and print one JSON object.

    python tools/bench_past.py                        one key with 1,000 versions, and one with 1,000,000
    python tools/bench_past.py --versions 100000      the larger one smaller

Each store is a real one on disk: one agent, one key, a version a commit, in groups of 256. What is measured is the time
of `get_state` as of a random commit_ts, without the worker thread in which the engine does it; at most three times as
long with a million versions as with a thousand is what is asked for. The other reads are there to compare with.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from google.protobuf.struct_pb2 import Struct

from statehouse.storage.commit import AgentCounters, GroupCommit, PreparedCommit, prepare_section
from statehouse.storage.disk import RealDisk
from statehouse.storage.keys import agent_prefix
from statehouse.storage.recovery import RecoveryReporter, StorePlace, StoreSettings, open_store
from statehouse.storage.section import agent_fields
from statehouse.storage.store import Store
from statehouse.storage.view_home import LevelDBHome
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import GetStateResponse

AGENT: Final = AgentId("bench", "one-agent")
KEY: Final = b"plan"
GROUP_COMMITS: Final = 256
VALUE_BYTES: Final = 200
FEW_VERSIONS: Final = 1_000
READS: Final = 4_000
ROUNDS: Final = 5
SECOND_NS: Final = 1_000_000_000


def opened(directory: Path) -> Store:
    place = StorePlace(
        RealDisk(), str(directory / "log"), str(directory / "snapshots"), LevelDBHome(directory / "state")
    )
    settings = StoreSettings(fsync=False)
    return open_store(place, settings=settings, new_store_id=lambda: bytes(16), reporter=RecoveryReporter()).store


def fill(store: Store, versions: int) -> None:
    """One key, a version a commit, a second a commit."""
    prefix, names = agent_prefix(AGENT), agent_fields(AGENT)
    struct = Struct()
    struct["v"] = "x" * (VALUE_BYTES - 10)
    value = struct.SerializeToString()
    for first in range(1, versions + 1, GROUP_COMMITS):
        commits = []
        for ts in range(first, min(first + GROUP_COMMITS, versions + 1)):
            counters = AgentCounters(1 if first > 1 else 0, first - 1, ts, ts, 1)
            section = prepare_section(prefix, names, f"txn-{ts}", [(KEY, value, ts)], counters)
            commits.append(PreparedCommit(f"txn-{ts}", (section,)))
        store.commit(GroupCommit(first, first * SECOND_NS, commits))


def median_us(read: Callable[[int], object], points: list[int]) -> float:
    """The median over rounds of the mean time of a read."""
    means = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for point in points:
            read(point)
        means.append((time.perf_counter() - began) / len(points) * 1e6)
    return round(statistics.median(means), 1)


def measure(store: Store, versions: int) -> dict[str, float]:
    points = [random.Random(1).randint(1, versions) for _ in range(READS)]
    for point in points[:50]:
        if GetStateResponse.FromString(store.get_state(AGENT, KEY, point)).version != point:
            raise RuntimeError(f"as of {point} it is not version {point}")
    few = points[: READS // 10]
    return {
        "get_state_now_us": median_us(lambda _: store.get_state(AGENT, KEY), points),
        "get_state_at_version_us": median_us(lambda point: store.get_state_at_version(AGENT, KEY, point), points),
        "get_state_at_ts_us": median_us(lambda point: store.get_state(AGENT, KEY, point), points),
        "ts_at_time_us": median_us(lambda point: store.ts_at_time(AGENT, point * SECOND_NS), few),
        "log_ts_at_time_us": median_us(lambda point: store.log_ts_at_time(point * SECOND_NS), few[:20]),
        "history_of_100_us": median_us(lambda point: store.history(AGENT, KEY, point, 100), few[:50]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure reads of the past; prints JSON.")
    parser.add_argument("--versions", type=int, default=1_000_000, help="of the larger history (default: 1,000,000)")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to make the stores (default: here)")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    scratch = Path(tempfile.mkdtemp(prefix="bench-past-", dir=options.directory))
    try:
        for versions in (FEW_VERSIONS, options.versions):
            directory = scratch / str(versions)
            directory.mkdir()
            with closing(opened(directory)) as store:
                fill(store, versions)
            with closing(opened(directory)) as store:
                results[str(versions)] = measure(store, versions)
            print(versions, results[str(versions)], file=sys.stderr)
    finally:
        shutil.rmtree(scratch)
    few, many = results.values()
    ratio = round(many["get_state_at_ts_us"] / few["get_state_at_ts_us"], 2)
    print(json.dumps({"results": results, "get_state_at_ts_ratio": ratio, "asked_at_most": 3}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
