"""Where a view lives: found, made anew, or set aside. The one place that knows whether it is on disk or in memory."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from statehouse.storage.leveldb_view import LevelDBView
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.view import View, ViewDamagedError

__all__ = ["LevelDBHome", "MemoryHome", "ViewHome"]

_CONDEMNED: Final = "CONDEMNED"
"""An empty file in the view's folder; LevelDB leaves alone what is not called as its own files are."""


class ViewHome(Protocol):
    """What recovery needs to know of the place."""

    def find(self) -> View | None:
        """Open the view that is there; None when there is none. ViewDamagedError when it cannot be trusted."""
        ...

    def make(self) -> View:
        """Make an empty view where there is none."""
        ...

    def set_aside(self) -> str | None:
        """Move away whatever is there; where to, or None when there was nothing."""
        ...

    def condemn(self) -> None:
        """Have `find` refuse what is there from now on: opening a view does not read all of it again. Any thread."""
        ...


class LevelDBHome:
    """The folder of the LevelDB view. One damaged view is kept beside it, for whoever wants to know why."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self) -> View | None:
        if not self._path.exists():
            return None
        if (self._path / _CONDEMNED).exists():
            raise ViewDamagedError(f"{self._path}: damage was found while it was read")
        return LevelDBView.open(str(self._path), create=False)

    def make(self) -> View:
        return LevelDBView.open(str(self._path), create=True)

    def set_aside(self) -> str | None:
        if not self._path.exists():
            return None
        aside = self._path.with_name(self._path.name + ".set-aside")
        shutil.rmtree(aside, ignore_errors=True)
        self._path.rename(aside)
        return str(aside)

    def condemn(self) -> None:
        with suppress(OSError):  # then it is found again
            (self._path / _CONDEMNED).touch()


class MemoryHome:
    """Nowhere: every start begins with an empty view."""

    def find(self) -> View | None:
        return None

    def make(self) -> View:
        return MemoryView()

    def set_aside(self) -> str | None:
        return None

    def condemn(self) -> None:
        """Nothing: the next start begins with an empty view."""
