"""Event logs on a simulated disk, and what their tests say over and over."""

import random
from zlib import crc32

import pytest
from attrs import define, field

from statehouse.storage.event_log import EventLog
from statehouse.storage.simdisk import SimulatedDisk

STORE_ID = bytes(range(16))
DIRECTORY = "/store/log"
FIRST = f"{DIRECTORY}/00000000000000000001.log"
NEXT = f"{DIRECTORY}/next.tmp"


def payload(number: int, size: int = 60) -> bytes:
    """A payload of `size` bytes that is like no other."""
    return b"\n" + random.Random(number).randbytes(size - 2) + b"\x01"


@define
class LogBench:
    """A disk, and logs opened on it; what they found is kept."""

    disk: SimulatedDisk
    found: list = field(factory=list)
    cuts: list = field(factory=list)

    def open(self, **changes) -> EventLog:
        self.found.clear()
        self.cuts.clear()
        settings = {
            "segment_bytes": 4096,
            "max_bytes": 0,
            "known_good": None,
            "verify_all": False,
            "fsync": True,
            "report": self.cuts.append,
            "new_store_id": lambda: STORE_ID,
            "on_record": self.found.append,
        }
        return EventLog.open(self.disk, DIRECTORY, **(settings | changes))

    def payloads(self) -> list[bytes]:
        """The payloads that the last open found."""
        return [record.payload for record in self.found]

    def content(self, path: str = FIRST) -> bytes:
        file = self.disk.open(path, read_only=True)
        return file.read_at(0, file.size())

    def overwrite(self, path: str, content: bytes) -> None:
        """Make a file hold just this."""
        file = self.disk.open(path, create=True)
        file.write_at(0, content)
        file.sync()
        file.close()

    def segments(self) -> list[str]:
        return sorted(f"{DIRECTORY}/{name}" for name in self.disk.list_dir(DIRECTORY) if name.endswith(".log"))


def commit(log: EventLog, *groups: list[bytes]) -> list:
    """Append each group and sync it; where all of them stand."""
    placements = []
    for group in groups:
        placements += log.append(group)
        log.sync()
    return placements


def pointers(log: EventLog, placements: list, payloads: list[bytes], first_ts: int = 1) -> list:
    """A pointer to the whole of each payload."""
    return [
        (commit_ts, placement.offset, len(content), crc32(content))
        for commit_ts, (placement, content) in enumerate(zip(placements, payloads, strict=True), start=first_ts)
    ]


def make_bench(disk: SimulatedDisk | None = None) -> LogBench:
    if disk is None:
        disk = SimulatedDisk()
        disk.make_dir("/store")
        disk.sync_dir("/")
    return LogBench(disk)


@pytest.fixture
def bench() -> LogBench:
    """A new simulated disk to open logs on."""
    return make_bench()
