"""Views that fail at a batch or when they are opened, and one in memory that outlives its handle as one on disk does.

A batch that is struck has reached the disk or not, as the fault says (there is no half of one): its handle, which is
spent, does not show it, as LevelDB's does not, and whoever opens the view anew finds it. Nobody may write through a
handle that is spent: that is written down as wrong.
"""

from collections.abc import Iterable, Sequence

from attrs import define, field

from statehouse.storage.disk import is_full
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.view import Rows, View, ViewSnapshot, ViewUnavailableError, ViewWriteError, Write
from statehouse.storage.view_home import ViewHome
from syscalls.calls import Fault, Kind, Striker, Written

__all__ = ["FaultyHome", "KeptHome"]

_PATH = "state"


class _KeptView(MemoryView):
    """Rows that its home keeps, too."""

    def __init__(self, kept: dict[bytes, bytes]) -> None:
        super().__init__()
        super().apply(kept.items())
        self._kept = kept

    def apply(self, writes: Iterable[Write]) -> None:
        batch = list(writes)
        super().apply(batch)
        for key, value in batch:
            if value is None:
                self._kept.pop(key, None)
            else:
                self._kept[key] = value


@define
class KeptHome:
    """Where a view in memory outlives its handle."""

    kept: dict[bytes, bytes] | None = None

    def find(self) -> View | None:
        return None if self.kept is None else _KeptView(self.kept)

    def make(self) -> View:
        self.kept = {}
        return _KeptView(self.kept)

    def set_aside(self) -> str | None:
        self.kept = None
        return None

    def check_writable(self) -> None:
        """Memory takes writes."""

    def condemn(self) -> None:
        self.kept = None


class _FaultyView:
    """A view whose batches fail when they are struck."""

    def __init__(self, inner: View, striker: Striker, wrong: list[str]) -> None:
        self._inner = inner
        self._striker = striker
        self._wrong = wrong
        self._spent = False
        self._unseen: list[Write] = []

    def apply(self, writes: Iterable[Write]) -> None:
        if self._spent:
            self._wrong.append("a view was written through again after a batch had failed")
        batch = list(writes)  # what the iterable raises passes, before anything is counted
        fault = self._striker.called(Kind.BATCH, _PATH)
        if fault is None:
            self._inner.apply(batch)
            return
        self._spent = True
        if fault.written is Written.ALL:
            self._unseen = batch
        raise _failed(fault)

    def get(self, key: bytes) -> bytes | None:
        return self._inner.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._inner.get_many(keys)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Rows:
        return self._inner.scan(start, stop, reverse=reverse)

    def snapshot(self) -> ViewSnapshot:
        return self._inner.snapshot()

    def close(self) -> None:
        if self._unseen:
            batch, self._unseen = self._unseen, []
            self._inner.apply(batch)
        self._inner.close()


@define
class FaultyHome:
    """The home of such views, before another."""

    inner: ViewHome
    striker: Striker
    wrong: list[str] = field(factory=list)

    def find(self) -> View | None:
        self._opened()
        view = self.inner.find()
        return None if view is None else _FaultyView(view, self.striker, self.wrong)

    def make(self) -> View:
        self._opened()
        return _FaultyView(self.inner.make(), self.striker, self.wrong)

    def set_aside(self) -> str | None:
        return self.inner.set_aside()

    def check_writable(self) -> None:
        fault = self.striker.would_strike(Kind.BATCH) or self.striker.would_strike(Kind.OPEN_VIEW)
        if fault is not None:
            raise _failed(fault)
        self.inner.check_writable()

    def condemn(self) -> None:
        self.inner.condemn()

    def _opened(self) -> None:
        fault = self.striker.called(Kind.OPEN_VIEW, _PATH)
        if fault is not None:
            raise ViewUnavailableError(f"{_PATH}: {fault.error}")


def _failed(fault: Fault) -> ViewWriteError:
    return ViewWriteError(f"{_PATH}: {fault.error}", full=is_full(OSError(fault.number, fault.error)))
