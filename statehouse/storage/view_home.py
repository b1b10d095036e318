"""Where a view lives: found, made anew, or set aside. The one place that knows whether it is on disk or in memory."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from statehouse.limits import MIB
from statehouse.storage.disk import is_full
from statehouse.storage.leveldb_view import LevelDBView
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.view import View, ViewDamagedError, ViewWriteError

__all__ = ["CONDEMNED", "LevelDBHome", "MemoryHome", "ViewHome"]

CONDEMNED: Final = "CONDEMNED"
"""An empty file in the view's folder; LevelDB leaves alone what is not called as its own files are."""

_PROBE: Final = "PROBE.tmp"
_PROBED: Final = "PROBED.tmp"
_PROBE_BYTES: Final = MIB


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

    def check_writable(self) -> None:
        """Find out whether the view's folder takes writes now; ViewWriteError when it does not.

        For whoever is about to close a view that can still be read: one that cannot be opened again cannot.
        """
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
        if (self._path / CONDEMNED).exists():
            raise ViewDamagedError(f"{self._path}: damage was found while it was read")
        return LevelDBView.open(str(self._path), create=False)

    def make(self) -> View:
        return LevelDBView.open(str(self._path), create=True)

    def set_aside(self) -> str | None:
        if not self._path.exists():
            return None
        aside = self._path.with_name(self._path.name + ".set-aside")
        shutil.rmtree(aside, ignore_errors=True)
        # failpoint: recover.setting_aside
        self._path.rename(aside)
        return str(aside)

    def check_writable(self) -> None:
        # Free bytes say nothing of a quota, or of a disk that fails: so this does what LevelDB does when it is opened.
        if not self._path.exists():
            return
        probe, probed = self._path / _PROBE, self._path / _PROBED
        try:
            # failpoint: mend.probing
            with probe.open("wb") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
            probe.rename(probed)
            probed.unlink()
        except OSError as error:
            for leftover in (probe, probed):
                with suppress(OSError):
                    leftover.unlink()
            raise ViewWriteError(f"{self._path} takes no writes: {error}", full=is_full(error)) from error

    def condemn(self) -> None:
        with suppress(OSError):  # then it is found again
            (self._path / CONDEMNED).touch()


class MemoryHome:
    """Nowhere: every start begins with an empty view."""

    def find(self) -> View | None:
        return None

    def make(self) -> View:
        return MemoryView()

    def set_aside(self) -> str | None:
        return None

    def check_writable(self) -> None:
        """Memory takes writes."""

    def condemn(self) -> None:
        """Nothing: the next start begins with an empty view."""
