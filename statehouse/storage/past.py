"""The state at a point: what was in force of a key, which keys there were, and how either came to be.

Nothing is indexed by time. The versions of a key are dense, and each carries the commit that gave it; so the one in
force at a commit_ts is found by a binary search over the version rows, after a look at the newest version, which
nearly all reads end with.

What is read of an agent is read of its levels (`lineage.py`): its own rows, and those that it inherits. A key's
versions go on from level to level: those of a fork begin behind the last one inherited.

`in_level` is the only place that knows which of a level's versions counts at a point, `in_force` the only one to know
which level's does, and `_scanned` where the keys are that there were: all reads of the past go through these.
Everything here is a function of a view, or of a snapshot of one, that raises what the view does, and what the log does
for what is read from there (`ReadMany`). A row that is written is never changed but for those of the newest state, so a
view that is written to meanwhile will do.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Final, TypeAlias

from attrs import frozen

from statehouse.limits import READ_CHUNK_BYTES, READ_CHUNK_EVENTS, READ_CHUNK_ROWS
from statehouse.storage import keys
from statehouse.storage.lineage import NO_END, Level
from statehouse.storage.stored_value import ReadMany, answer_bytes, place_of, responses
from statehouse.storage.view import Reader, Rows, ViewDamagedError
from statehouse.storage.wire import LENGTH_DELIMITED, tag, varint

__all__ = ["DiffChunk", "RowsAt", "StateRow", "diff", "in_force", "in_level", "rows_at", "stored_at"]

RowsAt: TypeAlias = Generator[tuple[bytes, bytes | None, int], None, None]


StateRow: TypeAlias = tuple[Level, bytes]
"""The newest stored value that a key has in the rows of a level, be it the agent's or from after the level's end."""

# DiffEntry
_KEY_TAG: Final = tag(1, LENGTH_DELIMITED)
_BEFORE_TAG: Final = tag(2, LENGTH_DELIMITED)
_AFTER_TAG: Final = tag(3, LENGTH_DELIMITED)


@frozen
class DiffChunk:
    """Some of the keys that differ, as encoded DiffEntrys; the rest are behind `next_after`, None: no rest."""

    entries: list[bytes]
    next_after: bytes | None


# The two that all others stand on


def in_force(view: Reader, rows: Iterable[StateRow], key: bytes, at_ts: int) -> bytes | None:
    """The stored value of the key's version that counted at `at_ts`, None: there was none yet.

    `rows` are the key's in the levels that have one, nearest first; they are taken as far as they are needed. Of
    several versions that one commit gave, the last counts. What a level inherits ends with the version before its own
    first one: a lost row must not bring back an older version.
    """
    least, most = 0, NO_END  # of the version that may be in force, by those that the levels before have
    end_ts = NO_END
    for (prefix, until_ts), newest in rows:
        # A level that ends before the one above was forked from just there, and has the version before the first one
        # above. If they end alike, that may have been later: then it has no later version than that.
        if most < NO_END and until_ts < end_ts and at_ts >= until_ts:
            least = max(least, most)
        end_ts = until_ts
        found, first = in_level(view, prefix, key, newest, min(at_ts, until_ts))
        if found is not None:
            if most < NO_END and not least <= place_of(found)[0] <= most:
                raise _missing(key)
            return found
        most = min(most, first - 1)
        if not most:
            break
    if most < NO_END and (least or most):
        raise _missing(key)
    return None


def _missing(key: bytes) -> ViewDamagedError:
    return ViewDamagedError(f"versions are missing of key {key.hex()}: nothing that it could inherit has them")


def in_level(view: Reader, prefix: bytes, key: bytes, newest: bytes, at_ts: int) -> tuple[bytes | None, int]:
    """Of the versions that the key has among these rows, the one in force; if there is none, the first that they have.

    A fork's first one is behind those that it inherits.
    """
    version, commit_ts = place_of(newest)
    if commit_ts <= at_ts:
        return newest, 0
    if at_ts <= 0:
        return None, 1
    found: bytes | None = None
    low, high = 1, version  # all below `low` counted at the point already, `high` and all above did not yet
    while low < high:
        middle = (low + high) // 2
        stored = view.get(keys.version_key(prefix, key, middle))
        if stored is None:
            if found is not None:
                raise ViewDamagedError(f"version {middle} of {version} is missing of key {key.hex()}")
            low = middle + 1
        elif place_of(stored)[1] <= at_ts:
            low, found = middle + 1, stored
        else:
            high = middle
    return found, low


def rows_at(view: Reader, levels: Iterable[Level], key_prefix: bytes, after: bytes | None, at_ts: int | None) -> RowsAt:
    """(key, the stored value in force at `at_ts`, how many levels have rows of it) of each key behind `after`.

    In byte order, each key that was ever written: also those that had been deleted at the point, and, with None for
    what was in force, those that had not been written yet. `at_ts` None: now. Close it, for it holds a scan of each
    level.
    """
    with ExitStack() as scans:
        found = _scanned(view, levels, key_prefix, after, scans)
        if len(found) == 1:  # as nearly all listings: nothing to merge, and mostly nothing to search for
            level, rows = found[0]
            skip = len(level.prefix) + 1
            for packed, newest in rows:
                key = packed[skip:]
                yield key, newest if at_ts is None else in_force(view, ((level, newest),), key, at_ts), 1
            return
        point = NO_END if at_ts is None else at_ts
        for key, standing in _by_key(found):
            yield key, in_force(view, standing, key, point), len(standing)


def _scanned(
    view: Reader, levels: Iterable[Level], key_prefix: bytes, after: bytes | None, scans: ExitStack
) -> list[tuple[Level, Rows]]:
    """Of each level the rows of the keys behind `after`; a level is scanned before it is asked what it inherits."""
    found: list[tuple[Level, Rows]] = []
    for level in levels:
        start, stop = keys.state_range(level.prefix, key_prefix)
        if after is not None:
            start = max(start, keys.state_key(level.prefix, after) + b"\x00")
        found.append((level, scans.enter_context(closing(view.scan(start, max(start, stop))))))
    return found


def _by_key(found: Sequence[tuple[Level, Rows]]) -> Iterator[tuple[bytes, Sequence[StateRow]]]:
    """Each key, in byte order, with its rows in the levels that have one, nearest first."""
    if len(found) == 1:
        level, rows = found[0]
        skip = len(level.prefix) + 1
        for packed, newest in rows:
            yield packed[skip:], ((level, newest),)
        return
    standing = [_standing(rows, depth, level) for depth, (level, rows) in enumerate(found)]
    for key, same in groupby(merge(*standing), itemgetter(0)):
        yield key, [row for _, _, row in same]


def _standing(rows: Rows, depth: int, level: Level) -> Iterator[tuple[bytes, int, StateRow]]:
    skip = len(level.prefix) + 1
    for packed, newest in rows:
        yield packed[skip:], depth, (level, newest)


def stored_at(view: Reader, levels: Iterable[Level], key: bytes, at_ts: int | None = None) -> bytes | None:
    """The stored value of the key at `at_ts`, or now, a tombstone too; None: it had not been written."""
    return in_force(view, _rows_of_key(view, levels, key), key, NO_END if at_ts is None else at_ts)


def _rows_of_key(view: Reader, levels: Iterable[Level], key: bytes) -> Iterator[StateRow]:
    for level in levels:
        newest = view.get(keys.state_key(level.prefix, key))
        if newest is not None:
            yield level, newest


# Two points


def diff(
    view: Reader,
    read_many: ReadMany,
    levels: Iterable[Level],
    points: tuple[int, int],
    key_prefix: bytes,
    after: bytes | None,
) -> DiffChunk:
    """The keys behind `after` whose version is another at the second point than at the first.

    About READ_CHUNK_BYTES of them, of READ_CHUNK_ROWS rows that are looked at in all levels.
    """
    first_ts, second_ts = points
    found: list[tuple[bytes, bytes | None, bytes | None]] = []
    looked_at = size_bytes = 0
    next_after: bytes | None = None
    earlier_ts = min(points)
    with ExitStack() as scans:
        rows = _by_key(_scanned(view, levels, key_prefix, after, scans))
        for key, standing in rows:
            looked_at += len(standing)
            (_, until_ts), newest = standing[0]
            if until_ts > earlier_ts and place_of(newest)[1] > earlier_ts:
                before, behind = in_force(view, standing, key, first_ts), in_force(view, standing, key, second_ts)
                if _version_of(before) != _version_of(behind):
                    found.append((key, before, behind))
                    size_bytes += len(key) + sum(answer_bytes(stored) for stored in (before, behind) if stored)
            if looked_at >= READ_CHUNK_ROWS or len(found) >= READ_CHUNK_EVENTS or size_bytes >= READ_CHUNK_BYTES:
                next_after = key
                break
    return DiffChunk(_diff_entries(found, read_many), next_after)


def _version_of(stored: bytes | None) -> int:
    return 0 if stored is None else place_of(stored)[0]


def _diff_entries(found: Sequence[tuple[bytes, bytes | None, bytes | None]], read_many: ReadMany) -> list[bytes]:
    answers = iter(responses([stored for _, *both in found for stored in both], read_many))
    return [
        b"".join((
            _KEY_TAG, varint(len(key)), key,
            _BEFORE_TAG, varint(len(before := next(answers))), before,
            _AFTER_TAG, varint(len(behind := next(answers))), behind,
        ))
        for key, _, _ in found
    ]  # fmt: skip
