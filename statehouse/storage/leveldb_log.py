"""Whether LevelDB's own logs are without a gap: what LevelDB itself does not look at.

The view is never synced, so power loss may take any of the pages that were written last, and not only the end:
when a memtable is full, LevelDB goes on in a new log without having synced the one before, and until that one's
table is written, both are replayed at the next open. A log that lost its tail while the one after it is whole, and a
page in the middle that reads as zeros, are passed over without an error, `paranoid_checks` or not. What opens then
has the newest watermark and misses batches below it: 5,510 of 11,028 where it was tried.

But batches carry sequence numbers: each begins where the one before it ended, across logs too. So they are
followed here, before LevelDB opens the logs and deletes them. Checksums are left to LevelDB, which does look
at those. The format is LevelDB's doc/log_format.md: blocks of 32 KiB, in them records of checksum u32 | length u16
| type u8 | bytes, little-endian; a batch is sequence u64 | count u32 | ..., in one record or in fragments.
"""

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

_BLOCK_BYTES: Final = 32 * 1024
_RECORD_HEAD: Final = Struct("<IHB")
_BATCH_HEAD: Final = Struct("<QI")

_FULL: Final = 1
_FIRST: Final = 2
_MIDDLE: Final = 3
_LAST: Final = 4


def sequence_gap(directory: Path) -> str | None:
    """Where a batch does not begin where the one before it ended, in words; None when all do.

    Reads every log in the directory, in order: a memtable's worth or two. OSError when one cannot be read.
    """
    expected: int | None = None
    for path in sorted(directory.glob("*.log"), key=lambda path: (len(path.name), path.name)):
        for offset, sequence, count in _batches(path.read_bytes()):
            if expected is not None and sequence != expected:
                return f"{path.name} at offset {offset} goes on with {sequence} where {expected} is due"
            expected = sequence + count
    return None


def _batches(log: bytes) -> Iterator[tuple[int, int, int]]:
    """Offset, sequence number and count of each batch that is whole."""
    begun: tuple[int, bytes] | None = None
    for offset, kind, head in _records(log):
        if kind in (_FULL, _FIRST):
            begun = (offset, head)
        elif begun is not None and len(begun[1]) < _BATCH_HEAD.size:
            # A first fragment of a few bytes, at the end of a block: the batch's head goes on in the next.
            begun = (begun[0], begun[1] + head)
        if kind in (_FULL, _LAST) and begun is not None:
            if len(begun[1]) >= _BATCH_HEAD.size:
                yield begun[0], *_BATCH_HEAD.unpack_from(begun[1])
            begun = None


def _records(log: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Offset, type and first bytes of each record that LevelDB would see."""
    position, end = 0, len(log)
    while position + _RECORD_HEAD.size <= end:
        block_end = position - position % _BLOCK_BYTES + _BLOCK_BYTES
        if block_end - position < _RECORD_HEAD.size:
            position = block_end
            continue
        _, length, kind = _RECORD_HEAD.unpack_from(log, position)
        first = position + _RECORD_HEAD.size
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or first + length > min(block_end, end):
            # Zeros, or what is no record: the rest of the block is lost, and LevelDB goes on behind it.
            position = block_end
            continue
        yield position, kind, log[first : first + min(length, _BATCH_HEAD.size)]
        position = first + length
