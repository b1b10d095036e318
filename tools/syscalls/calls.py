"""A call to the disk: of which kind, on what, and the fault that strikes it. Shared by both instruments."""

import errno
import posixpath
import re
from collections import Counter
from enum import StrEnum
from typing import Final

from attrs import define, field, frozen

__all__ = ["ERRNOS", "Call", "Fault", "Kind", "Place", "Striker", "Written", "place_of"]

ERRNOS: Final = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}

_SEGMENT: Final = re.compile(r"log/[0-9]{20}\.log")


class Kind(StrEnum):
    """What is called."""

    OPEN = "open"
    WRITE = "write"
    SYNC = "sync"
    TRUNCATE = "truncate"
    RENAME = "rename"
    SYNC_DIR = "sync_dir"
    REMOVE = "remove"
    MAKE_DIR = "make_dir"
    LIST_DIR = "list_dir"
    READ = "read"
    FALLOCATE = "fallocate"
    BATCH = "batch"
    """A batch of the view: what LevelDB does for it is not told apart in this process."""
    OPEN_VIEW = "open_view"


class Place(StrEnum):
    """What a call is made on."""

    SEGMENT = "segment"
    NEXT_SEGMENT = "next segment"
    LOG = "log's directory"
    SNAPSHOT = "snapshot"
    SNAPSHOTS = "snapshots' directory"
    VIEW = "view"
    DATA = "data directory"


class Written(StrEnum):
    """How much of a write, or of a batch, was done when it fails."""

    NOTHING = "nothing"
    HALF = "half"
    ALL = "all"

    def of(self, size: int) -> int:
        """So much of `size`."""
        return {Written.NOTHING: 0, Written.HALF: size // 2, Written.ALL: size}[self]


@frozen
class Fault:
    """The `index`th call of a kind fails, counted from 1; `lasting`: and every one after it."""

    kind: Kind
    index: int
    lasting: bool
    error: str
    """A key of ERRNOS."""
    written: Written = Written.NOTHING

    @property
    def number(self) -> int:
        """The errno."""
        return ERRNOS[self.error]


@frozen
class Call:
    """A call that was made. `start` and `stop` are the bytes that a write was to write."""

    kind: Kind
    path: str
    error: str = ""
    """How it was made to fail; empty when it was let through."""
    start: int = 0
    stop: int = 0
    reads: bool = False
    """A file that was opened for reading only."""

    @property
    def place(self) -> Place:
        """What it was made on."""
        return place_of(self.path)


def place_of(path: str) -> Place:
    """What a path, seen from the data directory, belongs to."""
    top = path.partition("/")[0]
    if _SEGMENT.fullmatch(path):
        return Place.SEGMENT
    if top == "log":
        return Place.LOG if path == "log" else Place.NEXT_SEGMENT
    if top == "snapshots":
        return Place.SNAPSHOTS if path == "snapshots" else Place.SNAPSHOT
    return Place.VIEW if top.startswith("state") else Place.DATA


@define
class Striker:
    """Counts calls by kind, and says which of them fail. Without a fault it only counts."""

    made: Counter[Kind] = field(factory=Counter)
    """Since the fault was armed."""
    calls: list[Call] = field(factory=list)
    """Likewise, in order."""
    _fault: Fault | None = None

    def arm(self, fault: Fault | None) -> None:
        """Count anew from here on, and strike."""
        self.made.clear()
        self.calls.clear()
        self._fault = fault

    def disarm(self) -> None:
        """Let everything through from here on; what was struck is kept."""
        self._fault = None

    def would_strike(self, kind: Kind) -> Fault | None:
        """The fault, when the next call of a kind is one of many that fail; looking does not count as a call."""
        fault = self._fault
        if fault is None or fault.kind is not kind or not fault.lasting or self.made[kind] + 1 < fault.index:
            return None
        return fault

    @property
    def struck(self) -> list[Call]:
        """The calls that were made to fail."""
        return [call for call in self.calls if call.error]

    def called(self, kind: Kind, path: str, *, start: int = 0, stop: int = 0, reads: bool = False) -> Fault | None:
        """A call is about to be made: the fault that strikes it, or None."""
        self.made[kind] += 1
        fault = self._fault
        if fault is not None and (
            fault.kind is not kind
            or self.made[kind] < fault.index
            or (self.made[kind] > fault.index and not fault.lasting)
        ):
            fault = None
        path = posixpath.normpath(path)
        self.calls.append(Call(kind, path, fault.error if fault else "", start, stop, reads))
        return fault
