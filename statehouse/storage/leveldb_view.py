"""The view on disk: LevelDB, and the only module that names plyvel.

LevelDB is quick and, when it is hurt, not honest; each setting here answers something that was measured:

- `paranoid_checks`, and `verify_checksums` on every read: without them a flipped bit is a wrong value or
  a run of missing keys.
- `create_if_missing` only for a directory that was just made: with it, a missing CURRENT file deletes
  every table without a word.
- after a failed write the handle is spent: LevelDB acknowledges writes after a full disk and loses them.
- its logs are looked through before it opens them: it passes over batches that power loss took (leveldb_log.py).
- its repair is never called: it reads with checksums off and brings back corrupted values.
- table files are mapped into memory, and what is touched of them counts as the daemon's; how the settings
  below hold that down is in docs/adr/0003-leveldb-settings.md.

LevelDB is thread-safe except against its own closing, which frees what another thread is reading; the
gate below makes `close` wait for calls that are under way and refuse those that come after.
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

import plyvel

from statehouse.limits import KIB, MIB
from statehouse.storage.leveldb_log import sequence_gap
from statehouse.storage.view import (
    Row,
    Rows,
    ViewClosedError,
    ViewDamagedError,
    ViewError,
    ViewUnavailableError,
    ViewWriteError,
    Write,
)

# docs/adr/0003-leveldb-settings.md has the measurements behind these.
SETTINGS: Final[dict[str, int | str | None]] = {
    "write_buffer_size": 8 * MIB,
    "max_open_files": 500,
    "max_file_size": 2 * MIB,
    "block_size": 4 * KIB,
    "lru_cache_size": 1 * MIB,
    "bloom_filter_bits": 10,
    "compression": None,
}

_SCAN_ROWS_FIRST: Final = 16
_SCAN_ROWS: Final = 256
"""Rows of a scan's first chunk and of its largest: one that wants a row must not pay for hundreds."""

_GETS: Final = 64
"""Reads of single keys in one go."""

_FULL: Final = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_NOT_THE_VIEWS_FAULT: Final = (
    *_FULL,
    *(os.strerror(number) for number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE)),
)
"""LevelDB reports a failed system call as text; these do not say that the view's bytes are bad."""


class _Gate:
    """Lets calls in until it is closed, and lets closing wait for the calls that are in.

    A list's append and pop are atomic under the interpreter's lock; two acquisitions of a lock of our own
    cost more than LevelDB's get. Entering comes before looking at `closed`, and closing sets `closed` before
    it looks at who is in, so that one of the two always sees the other. A snapshot's gate stands within its
    view's: a call that is in the inner one is in both.
    """

    def __init__(self, outer: "_Gate | None" = None) -> None:
        self.closed = False
        self.outermost: _Gate = self if outer is None else outer.outermost
        self._outer = outer
        self._inside: list[None] = []
        self._left = Event()
        self._closing = Lock()

    def __enter__(self) -> None:
        if self._outer is not None:
            self._outer.__enter__()
        self._inside.append(None)
        if self.closed:
            self.__exit__()
            raise ViewClosedError("the view or snapshot is closed")

    def __exit__(self, *_: object) -> None:
        self._inside.pop()
        if self.closed:
            self._left.set()
        if self._outer is not None:
            self._outer.__exit__()

    def close(self, free: Callable[[], None]) -> None:
        """Refuse new calls, wait until those inside have left, and call `free`: once, however often this is called."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
            while self._inside:
                self._left.wait()
                self._left.clear()
            free()


class _Reads:
    """What a database and a snapshot of it have in common."""

    def __init__(self, source: Any, gate: _Gate, held: set[Any], path: str) -> None:
        self._source = source
        self._source_get = source.get
        self._gate = gate
        self._held = held
        """Open iterators and snapshots of the whole view: they are freed inside the gate, or by closing the view."""
        self._path = path

    def get(self, key: bytes) -> bytes | None:
        try:
            with self._gate:
                value: bytes | None = self._source_get(key, verify_checksums=True)
                return value
        except plyvel.Error as error:
            raise _translated(error, self._path) from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        # The gate is more than half of what a `get` takes; but closing waits for whoever is inside.
        get, found = self._source_get, []
        try:
            for first in range(0, len(keys), _GETS):
                with self._gate:
                    found += [get(key, verify_checksums=True) for key in keys[first : first + _GETS]]
        except plyvel.Error as error:
            raise _translated(error, self._path) from error
        return found

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Rows:
        # What a scan sees is fixed when LevelDB makes the iterator, so that is done here and not at the first
        # row. Rows stay out of LevelDB's block cache, which belongs to the point reads.
        # plyvel 1.5.1 finds nothing in reverse when the only row is the start itself: it is asked from below that.
        bound = (start[:-1] or None) if reverse else start
        try:
            with self._gate:
                iterator = self._source.iterator(
                    start=bound, stop=stop, reverse=reverse, verify_checksums=True, fill_cache=False
                )
                self._held.add(iterator)
        except plyvel.Error as error:
            raise _translated(error, self._path) from error
        rows = self._chunks(iterator, start if reverse else b"")
        next(rows)  # up to the first yield: only a generator that has begun runs its `finally`
        return rows

    def _chunks(self, iterator: Any, floor: bytes) -> Rows:
        size = _SCAN_ROWS_FIRST
        try:
            yield b"", b""
            while True:
                try:
                    with self._gate:
                        chunk: list[Row] = list(islice(iterator, size))
                except plyvel.Error as error:
                    raise _translated(error, self._path) from error
                if chunk and chunk[-1][0] < floor:
                    yield from takewhile(lambda row: row[0] >= floor, chunk)
                    return
                yield from chunk
                if len(chunk) < size:
                    return
                size = min(size * 4, _SCAN_ROWS)
        finally:
            self._free(iterator)

    def _free(self, resource: Any) -> None:
        """Close an iterator or a snapshot; after the view was closed it is closed already, or about to be."""
        with suppress(ViewClosedError), self._gate.outermost:
            self._held.discard(resource)
            resource.close()


class LevelDBSnapshot(_Reads):
    """A `ViewSnapshot` of a `LevelDBView`."""

    def close(self) -> None:
        self._gate.close(lambda: self._free(self._source))


class LevelDBView(_Reads):
    """A `View` in a directory of its own. A read blocks on the disk at most for some blocks or one chunk of rows."""

    def __init__(self, db: Any, path: str) -> None:
        super().__init__(db, _Gate(), set(), path)
        self._failed: ViewWriteError | None = None

    @classmethod
    def open(cls, path: str, *, create: bool) -> "LevelDBView":
        """Open the view in the directory `path`; with `create`, make the directory, which must not exist.

        Raises `ViewDamagedError` when what is there is not a whole view (nothing at all included),
        `ViewUnavailableError` when the disk is full, permission is missing or another process has it open,
        and with `create` what `mkdir` raises. Blocks while LevelDB replays its own log.
        """
        if create:
            Path(path).mkdir()
        elif not Path(path).is_dir():
            raise ViewDamagedError(f"there is no view at {path}")
        # Opening deletes the logs that this looks at, and only opening tells whether another process writes them.
        try:
            gap = sequence_gap(Path(path))
        except OSError as error:
            raise ViewUnavailableError(f"{path}: {error}") from error
        try:
            db = plyvel.DB(path, create_if_missing=create, error_if_exists=create, paranoid_checks=True, **SETTINGS)
        except plyvel.Error as error:
            raise _translated(error, path) from error
        if gap is not None:
            db.close()
            raise ViewDamagedError(f"{path}: batches are missing: {gap}")
        return cls(db, path)

    def apply(self, writes: Iterable[Write]) -> None:
        with self._gate:
            if self._failed is not None:
                message = f"an earlier write failed, and this handle is spent: {self._failed}"
                raise ViewWriteError(message, damaged=self._failed.damaged, full=self._failed.full) from self._failed
            try:
                # transaction=True: otherwise an exception from `writes` writes what it has given so far.
                with self._source.write_batch(transaction=True) as batch:
                    put, delete = batch.put, batch.delete
                    for key, value in writes:
                        if value is None:
                            delete(key)
                        else:
                            put(key, value)
                    # failpoint: view.writing
            except plyvel.Error as error:
                text = _text(error)
                self._failed = ViewWriteError(
                    f"{self._path}: {text}",
                    damaged=isinstance(error, plyvel.CorruptionError),
                    full=text.endswith(_FULL),
                )
                raise self._failed from error

    def snapshot(self) -> LevelDBSnapshot:
        with self._gate:
            snapshot = self._source.snapshot()
            self._held.add(snapshot)
            return LevelDBSnapshot(snapshot, _Gate(self._gate), self._held, self._path)

    def close(self) -> None:
        """Close the database, once calls under way in other threads have ended; snapshots and scans end with it."""
        self._gate.close(self._close)

    def _close(self) -> None:
        # One by one and first: an iterator or snapshot that is freed while LevelDB is, by whoever drops it, crashes.
        for resource in self._held:
            resource.close()
        self._held.clear()
        self._source.close()


def _text(error: Exception) -> str:
    """LevelDB's own words, which plyvel passes on as bytes."""
    first = error.args[0] if error.args else ""
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


def _translated(error: Exception, path: str) -> ViewError:
    """What an error of LevelDB, met while opening or reading, says about the view."""
    text = _text(error)
    elsewhere = text.endswith(_NOT_THE_VIEWS_FAULT) or text.startswith("IO error: lock ")
    if elsewhere and isinstance(error, plyvel.IOError):
        return ViewUnavailableError(f"{path}: {text}")
    return ViewDamagedError(f"{path}: {text}")
