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

Nor does it miss a log that is gone as a whole. The MANIFEST, a log of edits, says which log is the first to replay and
up to where the tables go; LevelDB replays whatever logs there are from that number on. With the first one deleted, or
with a MANIFEST that is older than the logs or was cut, the view opens with the newest watermark over a hole.

Nor does it see that a log is an older one by a newer one's name. What it replays it takes for newer than every table,
for a `get` if not for a scan: old rows hide newer ones. But while LevelDB runs, it begins a log only when the MANIFEST
already has the log before it as the first to replay; so all its batches have higher sequence numbers than the last one
in that edit. An open begins a new log and a new MANIFEST, and the batches come after the number in there.
"""

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

_BLOCK_BYTES: Final = 32 * 1024
_RECORD_HEAD: Final = Struct("<IHB")
_BATCH_HEAD: Final = Struct("<QI")

_FULL: Final = 1
_FIRST: Final = 2
_MIDDLE: Final = 3
_LAST: Final = 4


# Of an edit in a MANIFEST (version_edit.cc). A number follows, or what the comment says.
_COMPARATOR: Final = 1  # bytes
_LOG_NUMBER: Final = 2
_NEXT_FILE_NUMBER: Final = 3
_LAST_SEQUENCE: Final = 4
_COMPACT_POINTER: Final = 5  # level, bytes
_DELETED_FILE: Final = 6  # level, file number
_NEW_FILE: Final = 7  # level, file number, size, bytes, bytes
_EDIT_FIELDS: Final = {
    _COMPARATOR: "b", _LOG_NUMBER: "n", _NEXT_FILE_NUMBER: "n", _LAST_SEQUENCE: "n", _COMPACT_POINTER: "nb",
    _DELETED_FILE: "nn", _NEW_FILE: "nnnbb", 9: "n",
}  # fmt: skip


class _Replay(NamedTuple):
    """The first log to replay, and the bounds within which its first batch begins."""

    log_number: int
    after_sequence: int
    """The tables go on to this one at least."""
    last_sequence: int
    """And at most to this one."""


def sequence_gap(directory: Path) -> str | None:
    """Where a batch does not begin where the one before it ended, in words; None when all do.

    Reads the MANIFEST and every log in the directory, in order: a memtable's worth or two. OSError when one cannot be
    read.
    """
    logs = sorted((path for path in directory.glob("*.log") if path.stem.isdecimal()), key=lambda path: int(path.stem))
    replay = _replay(directory)
    expected: int | None = None
    if replay is not None:
        logs = [path for path in logs if int(path.stem) >= replay.log_number]  # LevelDB deletes the others unread
        if logs and int(logs[0].stem) != replay.log_number:
            return f"{logs[0].name} is there, and log {replay.log_number}, which is to be replayed first, is not"
    for path in logs:
        for offset, sequence, count in _batches(path.read_bytes()):
            if expected is not None and sequence != expected:
                return f"{path.name} at offset {offset} goes on with {sequence} where {expected} is due"
            if expected is None and replay is not None and sequence > replay.last_sequence + 1:
                return f"{path.name} begins with {sequence}, and the tables end with {replay.last_sequence} at most"
            if expected is None and replay is not None and sequence <= replay.after_sequence:
                return f"{path.name} begins with {sequence}, and the tables go on to {replay.after_sequence} at least"
            expected = sequence + count
    return None


def live_tables(directory: Path) -> frozenset[int]:
    """The numbers of the tables that the MANIFEST has: all that LevelDB reads. None when it would not open.

    LevelDB takes numbers that the MANIFEST does not have for tables that it writes, and overwrites what is there by
    that name, as a table is that it had not finished when it was killed. OSError when the MANIFEST cannot be read.
    """
    live: set[tuple[int, int]] = set()
    next_number = 0
    for field, numbers in _edits(directory) or ():
        if field == _NEXT_FILE_NUMBER:
            next_number = numbers[0]
        elif field == _NEW_FILE:
            live.add((numbers[0], numbers[1]))
        elif field == _DELETED_FILE:  # a table that moves to another level is deleted from its old one
            live.discard((numbers[0], numbers[1]))
    return frozenset(number for _, number in live if number < next_number)


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


def _replay(directory: Path) -> _Replay | None:
    """What the MANIFEST says of the logs; None when it says nothing."""
    edits = _edits(directory)
    if edits is None:
        return None
    firsts: list[tuple[int, int]] = []
    """Each log that became the first to replay, and the last sequence number that was known then."""
    log_number = 0
    for field, numbers in edits:
        if field == _LOG_NUMBER:
            log_number = numbers[0]
        elif field == _LAST_SEQUENCE and (not firsts or firsts[-1][0] != log_number):  # behind the log number, if any
            firsts.append((log_number, numbers[0]))
    if not firsts:
        return None
    (_, after), (log_number, last) = firsts[-2:] if len(firsts) > 1 else firsts * 2
    # An open's log is empty when it becomes the first to replay, and not when the next one is begun.
    return _Replay(log_number, after + (len(firsts) == 2), last)


def _edits(directory: Path) -> list[tuple[int, list[int]]] | None:
    """The fields of the MANIFEST and their numbers; None when there is none, or none that LevelDB would open either."""
    try:
        name = (directory / "CURRENT").read_text(encoding="ascii").removesuffix("\n")
        manifest = (directory / name).read_bytes()
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError, ValueError):
        return None
    try:
        return [field for edit in _whole_records(manifest) for field in _fields_of(edit)]
    except (IndexError, KeyError):
        return None


def _whole_records(log: bytes) -> Iterator[bytes]:
    """The records of a log, fragments joined."""
    begun = b""
    for position, kind, _ in _records(log):
        _, length, _ = _RECORD_HEAD.unpack_from(log, position)
        first = position + _RECORD_HEAD.size
        begun = (b"" if kind in (_FULL, _FIRST) else begun) + log[first : first + length]
        if kind in (_FULL, _LAST):
            yield begun


def _fields_of(edit: bytes) -> Iterator[tuple[int, list[int]]]:
    """The fields of an edit, each with its numbers and lengths of bytes. IndexError, KeyError when it is no edit."""
    at = 0
    while at < len(edit):
        field, at = _varint(edit, at)
        numbers: list[int] = []
        for kind in _EDIT_FIELDS[field]:
            number, at = _varint(edit, at)
            if kind == "b":
                at += number
            numbers.append(number)
        yield field, numbers


def _varint(content: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[at]
        number |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return number, at
