"""The versions of a key, newest first, with what their commits say.

They are dense. Those of a fork go on behind the last one that it inherits, which stands in a deeper level, and what a
level has of later commits than its end is not the fork's. Everything here is a function of a view as in `past`.
"""

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Final, NamedTuple
from zlib import crc32

from attrs import frozen

from statehouse.limits import READ_CHUNK_BYTES, READ_CHUNK_EVENTS
from statehouse.storage import keys
from statehouse.storage.agent_events import no_section
from statehouse.storage.event_log import Pointer
from statehouse.storage.lineage import NO_END, Level
from statehouse.storage.past import in_level
from statehouse.storage.section_fields import deletes_expired
from statehouse.storage.stored_value import ReadMany, ValuePointer, exists_of, place_of, response, section_reads
from statehouse.storage.view import Reader, ViewDamagedError
from statehouse.storage.wire import LENGTH_DELIMITED, VARINT, WireError, fields, tag, varint

__all__ = ["HistoryChunk", "history"]

# Fields of ReplayEvent (txn_id, committed_at, metadata), and their tags in HistoryEntry
_OF_THE_COMMIT: Final = {1: tag(5, LENGTH_DELIMITED), 102: tag(6, LENGTH_DELIMITED), 103: tag(7, LENGTH_DELIMITED)}


_EXPIRED: Final = tag(101, VARINT) + varint(1)


@frozen
class HistoryChunk:
    """Some versions of a key as encoded HistoryEntrys, newest first; the rest are below `next_before` (None: none)."""

    entries: list[bytes]
    next_before: int | None


class _Version(NamedTuple):
    stored: bytes
    place: Pointer
    """Of the section that has it."""


def history(
    view: Reader,
    read_many: ReadMany,
    levels: Iterable[Level],
    key: bytes,
    before_version: int | None,
    limit: int | None,
) -> HistoryChunk:
    """The versions below `before_version`, newest first: at most `limit`, and about READ_CHUNK_BYTES of the log."""
    most = READ_CHUNK_EVENTS if limit is None else min(limit, READ_CHUNK_EVENTS)
    versions: list[_Version] = []
    next_before: int | None = None
    size_bytes = 0
    with closing(_downward(view, levels, key, before_version)) as rows:
        for prefix, stored in rows:
            version, commit_ts = place_of(stored)
            if len(versions) >= most or size_bytes >= READ_CHUNK_BYTES:
                next_before = version + 1
                break
            if versions and versions[-1].place[0] == commit_ts:
                place = versions[-1].place
            else:
                place = _section_place(view, prefix, commit_ts)
                size_bytes += place[2]
            versions.append(_Version(stored, place))
    places = sorted({version.place for version in versions})
    sections = dict(zip(places, read_many(places), strict=True))
    return HistoryChunk([_history_entry(stored, place, sections[place]) for stored, place in versions], next_before)


def _downward(
    view: Reader, levels: Iterable[Level], key: bytes, before_version: int | None
) -> Generator[tuple[bytes, bytes], None, None]:
    """(prefix of the level, stored value) of the versions below `before_version`, newest first. Close it."""
    below = NO_END if before_version is None else before_version
    for prefix, until_ts in levels:
        first, stop = keys.version_range(prefix, key)
        highest = below if until_ts == NO_END else min(below, _last_version(view, prefix, key, until_ts) + 1)
        if highest < NO_END:
            stop = keys.version_key(prefix, key, highest)
        with closing(view.scan(first, stop, reverse=True)) as rows:
            for _, stored in rows:
                yield prefix, stored
                below = place_of(stored)[0]
        if below <= 1:
            return


def _last_version(view: Reader, prefix: bytes, key: bytes, until_ts: int) -> int:
    """The last version that the key was given up to that commit among these rows, 0: none."""
    newest = view.get(keys.state_key(prefix, key))
    found = None if newest is None else in_level(view, prefix, key, newest, until_ts)[0]
    return 0 if found is None else place_of(found)[0]


def _section_place(view: Reader, prefix: bytes, commit_ts: int) -> Pointer:
    row = keys.event_key(prefix, commit_ts)
    pointer = view.get(row)
    if pointer is None:
        raise ViewDamagedError(f"there is no event of commit {commit_ts}, which gave a version: {row.hex()}")
    return section_reads([(row, pointer)])[0]


def _history_entry(stored: bytes, place: Pointer, section: bytes) -> bytes:
    """A HistoryEntry: a GetStateResponse, its value taken from the section, and what that says of the commit."""

    def fetch(pointer: ValuePointer) -> bytes:
        start = pointer.offset - place[1]
        value = section[start : start + pointer.length] if start >= 0 else b""
        if len(value) != pointer.length or crc32(value) != pointer.crc:
            raise ViewDamagedError(f"version {pointer.version} is not where the view says: commit {pointer.commit_ts}")
        return value

    return response(stored, fetch) + _commit_fields(section, is_delete=not exists_of(stored))


def _commit_fields(section: bytes, *, is_delete: bool) -> bytes:
    """What a HistoryEntry says of the commit: the section's fields under its numbers, and whose delete it was."""
    pieces: list[bytes] = []
    try:
        if is_delete and deletes_expired(section):
            pieces.append(_EXPIRED)
        for number, wire_type, first, last in fields(section, 0, len(section)):
            if wire_type == LENGTH_DELIMITED and number in _OF_THE_COMMIT:
                pieces += (_OF_THE_COMMIT[number], varint(last - first), section[first:last])
    except WireError as error:
        raise no_section(error) from error
    return b"".join(pieces)
