"""Where a view lives: found, made anew, or set aside. The one place that knows whether it is on disk or in memory."""

import shutil
from pathlib import Path
from typing import Protocol

from statehouse.storage.leveldb_view import LevelDBView
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.view import View

__all__ = ["LevelDBHome", "MemoryHome", "ViewHome"]


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


class LevelDBHome:
    """The folder of the LevelDB view. One damaged view is kept beside it, for whoever wants to know why."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self) -> View | None:
        return LevelDBView.open(str(self._path), create=False) if self._path.exists() else None

    def make(self) -> View:
        return LevelDBView.open(str(self._path), create=True)

    def set_aside(self) -> str | None:
        if not self._path.exists():
            return None
        aside = self._path.with_name(self._path.name + ".set-aside")
        shutil.rmtree(aside, ignore_errors=True)
        self._path.rename(aside)
        return str(aside)


class MemoryHome:
    """Nowhere: every start begins with an empty view."""

    def find(self) -> View | None:
        return None

    def make(self) -> View:
        return MemoryView()

    def set_aside(self) -> str | None:
        return None
