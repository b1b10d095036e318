"""Where a history happens: in memory with a view that outlives its handle, or in a directory with a real LevelDB.

Both can be opened again, with the view as it was, as it was earlier, or without it.
"""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from attrs import define, field

from replay_states.drawing import Between, History
from statehouse.storage.disk import RealDisk
from statehouse.storage.memory_view import MemorySnapshot, MemoryView
from statehouse.storage.recovery import OpenedStore, RecoveryReporter, StorePlace, StoreSettings, open_store
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.view import Rows, View, Write
from statehouse.storage.view_home import LevelDBHome

__all__ = ["DirectoryBed", "MemoryBed", "TestBed", "log_bytes", "open_at"]

STORE_ID = bytes(range(16))


class TestBed(Protocol):
    """A place for one store."""

    @property
    def place(self) -> StorePlace:
        """Where the store is opened."""

    def befall(self, what: Between, share: float) -> None:
        """Do to the closed store what happens between two starts; `share` says how old an older view is, of 1."""


def open_at(bed: TestBed, history: History) -> OpenedStore:
    """The store of a history, opened."""
    return open_store(
        bed.place,
        settings=StoreSettings(
            segment_bytes=history.segment_bytes, snapshot_interval=history.snapshot_interval, verify_all=True
        ),
        new_store_id=lambda: STORE_ID,
        reporter=RecoveryReporter(),
    )


def log_bytes(place: StorePlace) -> bytes:
    """Every segment of the log, with its name, one after the other."""
    parts: list[bytes] = []
    for name in sorted(place.disk.list_dir(place.log_directory)):
        if name.endswith(".log"):
            file = place.disk.open(f"{place.log_directory}/{name}", read_only=True)
            parts += (name.encode(), file.read_at(0, file.size()))
            file.close()
    return b"".join(parts)


# In memory


class KeptView:
    """A view in memory of which its home keeps every batch."""

    def __init__(self, batches: list[list[Write]]) -> None:
        self._batches = batches
        self._rows = MemoryView()
        for batch in batches:
            self._rows.apply(batch)

    def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._rows.get_many(keys)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Rows:
        return self._rows.scan(start, stop, reverse=reverse)

    def snapshot(self) -> MemorySnapshot:
        return self._rows.snapshot()

    def close(self) -> None:
        self._rows.close()

    def apply(self, writes: Iterable[Write]) -> None:
        batch = list(writes)
        self._rows.apply(batch)
        self._batches.append(batch)


@define
class KeptHome:
    """The `ViewHome` of a `KeptView`; the batches are what would be on a disk."""

    batches: list[list[Write]] = field(factory=list)
    is_there: bool = False

    def find(self) -> View | None:
        return KeptView(self.batches) if self.is_there else None

    def make(self) -> View:
        self.is_there, self.batches = True, []
        return KeptView(self.batches)

    def set_aside(self) -> str | None:
        was_there, self.is_there = self.is_there, False
        return "aside" if was_there else None

    def check_writable(self) -> None:
        """Nothing here fails a view."""

    def condemn(self) -> None:
        raise RuntimeError("nothing here damages a view")


class MemoryBed:
    """A simulated disk and a view in memory."""

    def __init__(self) -> None:
        self._home = KeptHome()
        self.place = StorePlace(SimulatedDisk(), "log", "snapshots", self._home)

    def befall(self, what: Between, share: float) -> None:
        if what is Between.VIEW_DELETED:
            self._home.set_aside()
        elif what is Between.VIEW_BEHIND:
            del self._home.batches[int(share * len(self._home.batches)) :]


# In a directory


class DirectoryBed:
    """Real files and a real LevelDB below a directory, which is empty."""

    def __init__(self, directory: Path) -> None:
        self._state, self._older = directory / "state", directory / "older"
        self.place = StorePlace(
            RealDisk(), str(directory / "log"), str(directory / "snapshots"), LevelDBHome(self._state)
        )

    def befall(self, what: Between, share: float) -> None:  # noqa: ARG002  an older view is the one of an earlier start
        if what in {Between.VIEW_DELETED, Between.VIEW_BEHIND}:
            shutil.rmtree(self._state)
        if what is Between.VIEW_BEHIND:
            with suppress(FileNotFoundError):
                shutil.copytree(self._older, self._state)
        if self._state.exists():
            shutil.rmtree(self._older, ignore_errors=True)
            shutil.copytree(self._state, self._older)
