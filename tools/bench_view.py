"""Measure LevelDB settings for the view, each in a process of its own, and print JSON.

    python tools/bench_view.py                     the settings in use and what was compared with them
    python tools/bench_view.py --events 100000     the same, smaller
    python tools/bench_view.py --only in-use       one of them

What is measured: the time to write the rows of EVENTS one-operation commits by 1,000 agents in batches of 256
commits, the size on disk, how much the process's resident memory grows while one agent's event column of EVENTS
rows is iterated in chunks as replay does it and while every row is iterated as a snapshot does it, and the time of
random point reads of the state column. docs/adr/0003-leveldb-settings.md says what followed from it.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from statehouse.limits import MIB
from statehouse.storage import keys, leveldb_view
from statehouse.storage.leveldb_view import LevelDBView
from statehouse.storage.stored_value import ValuePointer, event_row, inline_value, outcome
from statehouse.storage.view import Write
from statehouse.types import AgentId

AGENTS: Final = 1_000
GROUP_COMMITS: Final = 256
POINT_READS: Final = 100_000
CHUNK_EVENTS: Final = 1_024
SETTLE_S: Final = 5.0
"""LevelDB goes on compacting after it was opened, and the tables that it reads for it count as resident too."""

CANDIDATES: Final[Mapping[str, Mapping[str, int | str | None]]] = {
    "in-use": {},
    "leveldb-defaults": {
        "max_open_files": 1_000,
        "max_file_size": 2 * MIB,
        "bloom_filter_bits": 0,
        "compression": "snappy",
    },
    "snappy": {"compression": "snappy"},
    "files-2-mib": {"max_file_size": 2 * MIB},
    "open-files-200": {"max_open_files": 200},
    "open-files-1000": {"max_open_files": 1_000},
    "no-bloom-filter": {"bloom_filter_bits": 0},
    "write-buffer-16-mib": {"write_buffer_size": 16 * MIB},
}
"""What differs from `leveldb_view.SETTINGS`."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure LevelDB settings for the view.")
    parser.add_argument("--events", type=int, default=1_000_000, help="commits, and rows of the event column")
    parser.add_argument("--only", choices=CANDIDATES, help="measure one candidate")
    parser.add_argument("--directory", help="where to write; default: a temporary directory")
    parser.add_argument("--phase", choices=("write", "read"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        leveldb_view.SETTINGS.update(CANDIDATES[options.only])
        measure = write_rows if options.phase == "write" else read_rows
        print(json.dumps(measure(Path(options.directory), options.events)))
        return 0
    results: dict[str, dict[str, object]] = {}
    for name in [options.only] if options.only else CANDIDATES:
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            command = [sys.executable, __file__, "--events", str(options.events), "--only", name]
            command += ["--directory", scratch, "--phase"]
            # Memory is compared with that of a process that has only opened the view, so reading is one of its own.
            results[name] = {"settings": dict(CANDIDATES[name])}
            for phase in ("write", "read"):
                done = subprocess.run([*command, phase], check=True, capture_output=True, text=True)
                results[name] |= json.loads(done.stdout)
    print(json.dumps({"events": options.events, "in_use": leveldb_view.SETTINGS, "results": results}, indent=2))
    return 0


def prefix_of(number: int) -> bytes:
    return keys.agent_prefix(AgentId("default", f"agent-{number:06d}"))


def commit_writes(commit_ts: int, prefix: bytes, rng: random.Random) -> Iterator[Write]:
    """What one commit of one 200-byte value writes to the view."""
    version = 1 + commit_ts // AGENTS
    key = b"step/%04d" % (version % 10_000)
    crc = rng.getrandbits(32)
    offset = commit_ts * 400 % (64 * MIB)
    yield keys.state_key(prefix, key), inline_value(rng.randbytes(200), version, commit_ts)
    yield keys.version_key(prefix, key, version), ValuePointer(commit_ts, version, offset, 200, crc).pack()
    yield keys.event_key(prefix, commit_ts), event_row(offset, 350, crc, version, version, version)
    yield keys.meta_key(prefix), rng.randbytes(20)
    yield keys.outcome_key(keys.outcome_bucket(commit_ts), f"{rng.getrandbits(128):032x}"), outcome(commit_ts)


def write_rows(directory: Path, events: int) -> dict[str, float]:
    """Half of the commits go to the agents in turn, and the events of one agent are as many as all commits."""
    rng = random.Random(1)
    prefixes = [prefix_of(number) for number in range(AGENTS)]
    replayed = prefix_of(AGENTS)
    path = directory / "state"
    seconds = 0.0
    with closing(LevelDBView.open(str(path), create=True)) as view:
        for first in range(1, events + 1, GROUP_COMMITS):
            batch: list[Write] = []
            for commit_ts in range(first, min(first + GROUP_COMMITS, events + 1)):
                batch += commit_writes(commit_ts, prefixes[commit_ts % AGENTS], rng)
                offset, crc = commit_ts * 400 % (64 * MIB), rng.getrandbits(32)
                event = event_row(offset, 350, crc, commit_ts, commit_ts, 1)
                batch.append((keys.event_key(replayed, commit_ts), event))
            began = time.perf_counter()
            view.apply(batch)
            seconds += time.perf_counter() - began
        size = sum(file.stat().st_size for file in path.iterdir())
    return {"commits_applied_per_s": round(events / seconds), "disk_mb": round(size / 1e6, 1)}


def read_rows(directory: Path, events: int) -> dict[str, float]:
    with closing(LevelDBView.open(str(directory / "state"), create=False)) as view:
        time.sleep(SETTLE_S)
        at_open = resident_mb()
        rows, peak, began = 0, at_open, time.perf_counter()
        replayed = prefix_of(AGENTS)
        next_ts = 0
        while True:
            with closing(view.scan(*keys.event_range(replayed, next_ts))) as scan:
                chunk = [row for row, _ in zip(scan, range(CHUNK_EVENTS), strict=False)]
            if not chunk:
                break
            rows += len(chunk)
            next_ts = keys.unpack_event_key(replayed, chunk[-1][0]) + 1
            peak = max(peak, resident_mb())
        replay_s = time.perf_counter() - began
        if rows != events:
            raise RuntimeError(f"{rows} rows of the event column instead of {events}")

        rng = random.Random(2)
        versions = max(events // AGENTS, 1)
        wanted = [
            keys.state_key(prefix_of(rng.randrange(AGENTS)), b"step/%04d" % (1 + rng.randrange(versions) % 10_000))
            for _ in range(POINT_READS)
        ]
        began = time.perf_counter()
        found = sum(view.get(key) is not None for key in wanted)
        get_s = time.perf_counter() - began
        absent = [key + b"x" for key in wanted]
        began = time.perf_counter()
        for key in absent:
            view.get(key)
        absent_s = time.perf_counter() - began
        after_gets = resident_mb()

        for number, _ in enumerate(view.scan(*keys.EVERYTHING)):
            if number % 10_000 == 0:
                after_gets = max(after_gets, resident_mb())
        return {
            "events_iterated_per_s": round(rows / replay_s),
            "event_column_growth_mb": round(peak - at_open, 1),
            "gets_per_s": round(POINT_READS / get_s),
            "gets_found": found,
            "absent_gets_per_s": round(POINT_READS / absent_s),
            "all_rows_growth_mb": round(max(after_gets, resident_mb()) - at_open, 1),
        }


def resident_mb() -> float:
    """The process's resident memory now; pages of mapped files count."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
