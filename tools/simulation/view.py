"""The view, in memory, as LevelDB is one: it outlives its handle, is never synced, and is hurt in the ways of LevelDB.

`SimulatedHome` keeps every batch that was applied, because what a power loss leaves of a view is some number of its
first batches. `SimulatedView` is a dict: at this size that is quicker than anything sorted, and it shares no code with
the view that the engine has for memory.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from random import Random
from typing import Final

from attrs import define, field

from simulation.threads import current_thread
from simulation.world import World
from statehouse.storage.view import (
    Row,
    Rows,
    View,
    ViewClosedError,
    ViewDamagedError,
    ViewError,
    ViewUnavailableError,
    Write,
)

__all__ = ["BatchFault", "SimulatedHome", "SimulatedView", "WrittenThroughError"]

ROWS_A_READ: Final = 16
MENDING_ROLES: Final = frozenset({"commit", "mend_view"})


class WrittenThroughError(Exception):
    """A view was written through again after a batch had failed: with LevelDB, that loses commits."""


@define
class BatchFault:
    """What becomes of the next batch."""

    error: ViewError
    is_written: bool


@define
class _Medium:
    """One view, as it outlives its handles."""

    batches: list[list[Write]] = field(factory=list)
    condemned: bool = False
    damaged: bool = False
    """Whatever is read of it raises."""

    def rows(self) -> dict[bytes, bytes]:
        merged: dict[bytes, bytes | None] = {}
        for batch in self.batches:
            merged.update(batch)
        return {key: value for key, value in merged.items() if value is not None}


class SimulatedHome:
    """The `ViewHome` of a simulated process; handed on from one life to the next, by `world`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.medium: _Medium | None = None
        self.batch_fault: BatchFault | None = None
        self.unavailable = False

    def find(self) -> View | None:
        self._at("find")
        thread = current_thread()
        if thread is not None and thread.role in MENDING_ROLES:
            self.world.coverage.counts["views opened anew while serving"] += 1
        if self.unavailable:
            self.unavailable = False
            raise ViewUnavailableError("no room to open the view")
        if self.medium is None:
            return None
        if self.medium.condemned:
            raise ViewDamagedError("damage was found while it was read")
        return SimulatedView(self, self.medium)

    def make(self) -> View:
        self._at("make")
        if self.medium is not None:
            raise RuntimeError("there is a view already")
        self.medium = _Medium()
        return SimulatedView(self, self.medium)

    def set_aside(self) -> str | None:
        self._at("set aside")
        found, self.medium = self.medium, None
        return None if found is None else "aside"

    def check_writable(self) -> None:
        """The disk takes writes; what comes of them is drawn batch by batch."""

    def condemn(self) -> None:
        if self.medium is not None:
            self.medium.condemned = True

    def after_power_loss(self, rng: Random) -> None:
        """What is found of it: it was never synced."""
        if self.medium is not None:
            count = len(self.medium.batches)
            del self.medium.batches[rng.choice((0, count, rng.randint(0, count), rng.randint(0, count))) :]
            if not self.medium.batches and rng.random() < 0.5:
                self.medium = None

    def rows(self) -> Mapping[bytes, bytes] | None:
        """What a life would find now, None when there is nothing that can be read."""
        found = self.medium
        return None if found is None or found.condemned or found.damaged else found.rows()

    def _at(self, operation: str) -> None:
        crash = self.world.at(f"view {operation}", "view")
        if crash is not None:
            self.world.end(crash)


class _Rows:
    """Rows that can be read, at one moment."""

    def __init__(self, world: World, medium: _Medium, rows: dict[bytes, bytes]) -> None:
        self._world = world
        self._medium = medium
        self._rows = rows
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        self._at("get")
        return self._rows.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Rows:
        self._at("scan")
        found = sorted(((key, value) for key, value in self._rows.items() if start <= key < stop), reverse=reverse)
        return self._chunks(found)

    def close(self) -> None:
        self._closed = True

    def _chunks(self, found: list[Row]) -> Generator[Row, None, None]:
        for start in range(0, len(found), ROWS_A_READ):
            if start:
                self._at("scan")
            yield from found[start : start + ROWS_A_READ]

    def _at(self, operation: str) -> None:
        if self._closed:
            raise ViewClosedError("the view or snapshot is closed")
        crash = self._world.at(f"view {operation}", "view")
        if crash is not None:
            self._world.end(crash)
        if self._closed:  # while others had their turns
            raise ViewClosedError("the view or snapshot is closed")
        if self._medium.damaged:
            raise ViewDamagedError("a block does not have its checksum")


class SimulatedView(_Rows):
    """A `View`."""

    def __init__(self, home: SimulatedHome, medium: _Medium) -> None:
        super().__init__(home.world, medium, medium.rows())
        self._home = home
        self._failed = False
        self._snapshots: list[_Rows] = []

    def apply(self, writes: Iterable[Write]) -> None:
        batch = list(writes)
        if self._failed:
            raise WrittenThroughError
        if self._closed:
            raise ViewClosedError("the view is closed")
        crash = self._world.at("view apply", "view")
        fault, self._home.batch_fault = self._home.batch_fault, None
        if crash is not None:
            self._world.carry_out(crash, lambda: self._medium.batches.append(batch))
        if fault is not None:
            self._failed = True
            if fault.is_written:
                self._medium.batches.append(batch)  # it is on the disk, and this handle does not show it
            raise fault.error
        self._medium.batches.append(batch)
        rows = self._rows
        for key, value in batch:
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value

    def snapshot(self) -> _Rows:
        if self._closed:
            raise ViewClosedError("the view is closed")
        taken = _Rows(self._world, self._medium, dict(self._rows))
        self._snapshots.append(taken)
        return taken

    def close(self) -> None:
        super().close()
        for taken in self._snapshots:
            taken.close()
