"""What a view is: the ordered map of bytes that the event log is applied to, and how it fails.

A view can be deleted and rebuilt from the log at any time, so its rule is simple: when in doubt, raise.
`ViewDamagedError` means set it aside and rebuild; `ViewWriteError` means that what the last batch did is
not known and that this handle must never be written through again (LevelDB goes on acknowledging writes
after a full disk and loses them at the next open). Nothing here syncs: a view that lost its newest
batches is behind the log, and recovery applies what is missing.

Two stores keep this promise, `leveldb_view` on disk and `memory_view` in memory; one conformance suite
(tests/storage/test_view.py) runs against both.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import Protocol, TypeAlias

Row: TypeAlias = tuple[bytes, bytes]
"""A key, which is never empty, and its value."""
Write: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value; None deletes the key."""
Rows: TypeAlias = Generator[Row, None, None]
"""A scan under way. One thread at a time may advance it, not always the same; `close()` frees what it holds."""


class ViewError(Exception):
    """The root of what a view raises. Internal to storage: the store above translates it."""


class ViewDamagedError(ViewError):
    """The view's bytes are not what was written, or cannot be read. Set it aside and rebuild it from the log."""


class ViewWriteError(ViewError):
    """A batch failed: whether it was applied is unknown. Drop the handle; never write through it again.

    `damaged` is true when the store refused the batch because it found its own files damaged: opening it
    again will not help, rebuilding will. `full` is true when the disk had no room for the batch.
    """

    def __init__(self, message: str, *, damaged: bool = False, full: bool = False) -> None:
        super().__init__(message)
        self.damaged = damaged
        self.full = full


class ViewUnavailableError(ViewError):
    """The view could not be opened or read for a reason outside it, which rebuilding does not mend.

    No room on the disk, no permission, no file descriptors left, or another process has it open.
    """


class ViewClosedError(ViewError):
    """The view, or the snapshot, was closed."""


class Reader(Protocol):
    """What a view and a snapshot of it have in common."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None. Raises `ViewDamagedError`, `ViewUnavailableError`, `ViewClosedError`."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of many keys, in their order, as `get`. Not of one moment, unless this is a snapshot."""
        ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Rows:
        """The rows from `start` up to, not including, `stop`, in byte order or its reverse.

        What the scan sees is fixed when this is called, whatever is written meanwhile. Rows are read a chunk
        at a time, so advancing it blocks on the disk now and then. Raises, also while it is advanced, what
        `get` raises.
        """
        ...

    def close(self) -> None:
        """Free what is held. Scans begun here raise `ViewClosedError` at their next chunk. Idempotent."""
        ...


def newest_row(view: Reader, start: bytes, stop: bytes) -> Row | None:
    """The last row of a range. Raises what the view does."""
    with closing(view.scan(start, stop, reverse=True)) as rows:
        return next(rows, None)


class ViewSnapshot(Reader, Protocol):
    """A view as it was at one moment. Thread-safe; close it, because it keeps old rows alive."""


class View(Reader, Protocol):
    """The ordered map itself. Thread-safe."""

    def apply(self, writes: Iterable[Write]) -> None:
        """Apply one batch, in order, visible all at once or not at all.

        An exception from `writes` itself passes, with nothing applied. Raises `ViewWriteError` when the store
        fails and at every call after that, `ViewClosedError` when the view is closed.
        """
        ...

    def snapshot(self) -> ViewSnapshot:
        """The view as it is now. Raises `ViewClosedError`."""
        ...
