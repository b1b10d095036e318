"""The event log as docs/formats.md has it, read without the engine: where each record stands and what it holds.

This reads logs that are whole, to say what was written before anything is changed. It takes nothing of the engine's
reader on purpose: a mistake in that one would otherwise be the judge's mistake, too.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from typing import Final
from zlib import crc32

from attrs import frozen

__all__ = ["HEADER_BYTES", "RECORD_BYTES", "LogFile", "Record", "read_log", "records_of", "segment_path"]

HEADER_BYTES: Final = 72
RECORD_BYTES: Final = 36
"""Of a record without its payload: length and chain value."""

_HEADER: Final = struct.Struct(">8sI16sQ32sI")
_MAGIC: Final = bytes.fromhex("53484c4f470d0a1a")
_AFTER_SYNC: Final = 1 << 31


@frozen
class Record:
    """A record and where it stands in its file. `chain` is the value behind it."""

    commit_ts: int
    start: int
    stop: int
    chain: bytes
    after_sync: bool
    payload: bytes


@frozen
class LogFile:
    """A segment: its content, the chain value that it begins with, its records."""

    path: str
    content: bytes
    store_id: bytes
    first_ts: int
    chain_before: bytes
    records: list[Record]

    @property
    def end(self) -> int:
        """The offset behind the last record."""
        return self.records[-1].stop if self.records else HEADER_BYTES

    @property
    def last_ts(self) -> int:
        """The last commit in it, or the one before it when it has none."""
        return self.first_ts + len(self.records) - 1

    def raw(self, index: int) -> bytes:
        """The bytes of a record."""
        record = self.records[index]
        return self.content[record.start : record.stop]

    def chain_at(self, commit_ts: int) -> bytes:
        """The chain value behind a commit of this segment, or behind the one before it."""
        index = commit_ts - self.first_ts
        return self.records[index].chain if index >= 0 else self.chain_before


def segment_path(directory: str, first_ts: int) -> str:
    """What the segment that begins with `first_ts` is called."""
    return f"{directory}/{first_ts:020d}.log"


def read_log(files: Mapping[str, bytes]) -> list[LogFile]:
    """Every segment among `files`, in order. ValueError when anything is not as the page says."""
    log: list[LogFile] = []
    for path in sorted(path for path in files if path.endswith(".log")):
        found = _read(path, files[path])
        if log and (found.first_ts, found.chain_before) != (log[-1].last_ts + 1, log[-1].chain_at(log[-1].last_ts)):
            raise ValueError(f"{path} does not follow {log[-1].path}")
        if not log and found.chain_before != hashlib.sha256(found.store_id).digest():
            raise ValueError(f"{path} does not begin a log")
        log.append(found)
    return log


def records_of(log: Iterable[LogFile]) -> list[Record]:
    """All records of a log, in order."""
    return [record for segment in log for record in segment.records]


def _read(path: str, content: bytes) -> LogFile:
    magic, version, store_id, first_ts, chain_before, crc = _HEADER.unpack_from(content)
    if (magic, version, crc) != (_MAGIC, 1, crc32(content[: HEADER_BYTES - 4])):
        raise ValueError(f"{path} does not begin as a segment does")
    records: list[Record] = []
    start, chain, size = HEADER_BYTES, chain_before, len(content)
    while start + RECORD_BYTES <= size and content[start : start + 4] != bytes(4):
        length_field = content[start : start + 4]
        length = int.from_bytes(length_field, "big")
        stop = start + RECORD_BYTES + (length & ~_AFTER_SYNC)
        payload = content[start + RECORD_BYTES : stop]
        chain = hashlib.sha256(chain + length_field + payload).digest()
        if stop > size or chain != content[start + 4 : start + RECORD_BYTES]:
            raise ValueError(f"{path}: no record at {start}")
        records.append(Record(first_ts + len(records), start, stop, chain, bool(length & _AFTER_SYNC), payload))
        start = stop
    if content[start:].strip(b"\0"):
        raise ValueError(f"{path} does not end at {start}")
    return LogFile(path, content, store_id, first_ts, chain_before, records)
