"""What a daemon holds at one moment: memory, descriptors, threads, tasks, connections, and its data directory by part.

Memory, threads and descriptors are the kernel's account of the process, connections and tasks the daemon's own (the
census that it logs at SIGUSR1), and the size of the log's records is measured in its files, by walking them.
"""

import csv
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
from attacks import vitals
from attrs import frozen
from daemon_process import DaemonProcess

from statehouse.storage.log_format import AFTER_SYNC, HEADER_BYTES, LENGTH, RECORD_OVERHEAD_BYTES

__all__ = ["MIB", "LogMeter", "Sample", "take_sample", "write_csv"]

MIB: Final = 2**20
CENSUS: Final = ("connections", "calls", "streams", "tasks")


@frozen
class Sample:
    """One second of the soak. Sizes are bytes; what ends in `_disk` is what the files take there."""

    at_s: float
    """Since the soak began."""
    life: int
    life_s: float
    """Since this daemon was ready."""
    loaded: bool
    commits: int
    """In the log."""
    rss_anon: int
    rss_file: int
    """Pages of mapped files: LevelDB's tables. The kernel takes them back when it needs them."""
    threads: int
    sockets: int
    files: int
    """Open files that are neither sockets nor segments of the log."""
    segments: int
    connections: int
    calls: int
    streams: int
    tasks: int
    log_used: int
    """Headers and records of all segments, without what is preallocated."""
    log_disk: int
    state_disk: int
    snapshots_disk: int
    other_disk: int


class LogMeter:
    """Walks the log's records as they come; remembers where it was."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sealed_bytes = 0
        self._sealed_commits = 0
        self._segment: Path | None = None
        self._offset = HEADER_BYTES
        self._commits = 0

    def look(self) -> tuple[int, int]:
        """The bytes of headers and records, and how many records; of all segments."""
        for segment in sorted(self._directory.glob("*.log")):
            if self._segment is not None and segment <= self._segment:
                continue
            self._walk()  # to its end, for nothing is appended to it any more
            self._sealed_bytes += self._offset if self._segment else 0
            self._sealed_commits += self._commits
            self._segment, self._offset, self._commits = segment, HEADER_BYTES, 0
        self._walk()
        if self._segment is None:
            return 0, 0
        return self._sealed_bytes + self._offset, self._sealed_commits + self._commits

    def start_again(self) -> None:
        """Walk the newest segment from its beginning: what was its tail may have been cut off."""
        self._offset, self._commits = HEADER_BYTES, 0

    def _walk(self) -> None:
        if self._segment is None:
            return
        with self._segment.open("rb") as file:
            while len(field := os.pread(file.fileno(), LENGTH.size, self._offset)) == LENGTH.size:
                size = LENGTH.unpack(field)[0] & ~AFTER_SYNC
                if not size:
                    return
                self._offset += RECORD_OVERHEAD_BYTES + size
                self._commits += 1


def take_sample(
    daemon: DaemonProcess, meter: LogMeter, *, at_s: float, life: int, life_s: float, loaded: bool
) -> Sample:
    """A sample of a daemon that lives. Blocks for some milliseconds. OSError when it does not live."""
    process = Path(f"/proc/{daemon.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    census = vitals.take(daemon).counts
    descriptors = _descriptors(process, daemon.data_dir)
    log_used, commits = meter.look()
    disk = _sizes(daemon.data_dir)
    return Sample(
        at_s=at_s,
        life=life,
        life_s=life_s,
        loaded=loaded,
        commits=commits,
        rss_anon=int(status["RssAnon"].split()[0]) * 1024,
        rss_file=int(status["RssFile"].split()[0]) * 1024,
        threads=int(status["Threads"]),
        sockets=descriptors["sockets"],
        files=descriptors["files"],
        segments=descriptors["segments"],
        log_used=log_used,
        log_disk=disk.pop("log", 0),
        state_disk=disk.pop("state", 0),
        snapshots_disk=disk.pop("snapshots", 0),
        other_disk=sum(disk.values()),
        **{name: census[name] for name in CENSUS},
    )


def write_csv(path: Path, samples: Iterable[Sample]) -> None:
    """All samples, a line each."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in attrs.fields(Sample))
        for sample in samples:
            writer.writerow(round(each, 2) if isinstance(each, float) else int(each) for each in attrs.astuple(sample))


def _descriptors(process: Path, data_dir: Path) -> dict[str, int]:
    counts = {"sockets": 0, "files": 0, "segments": 0}
    for descriptor in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            target = str(descriptor.readlink())
            of_log = target.startswith(f"{data_dir / 'log'}/")
            counts["sockets" if target.startswith("socket:") else "segments" if of_log else "files"] += 1
    return counts


def _sizes(data_dir: Path) -> dict[str, int]:
    """What each part of the data directory takes on the disk."""
    sizes: dict[str, int] = {}
    for part in data_dir.iterdir():
        sizes[part.name] = 0
        for path in [part, *part.rglob("*")] if part.is_dir() else [part]:
            with suppress(FileNotFoundError):  # compacted, trimmed or pruned since
                sizes[part.name] += path.stat().st_blocks * 512
    return sizes
