"""What failpoints do in this process: nothing, unless they are armed; they count how often they were reached.

The counts are in memory that a process shares with those that it forks, so they outlive what a failpoint ends.
"""

import errno
import mmap
import os
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from threading import Lock
from typing import Final

from attrs import define, field, frozen

__all__ = ["EXIT_CODE", "Action", "Arm", "Failpoints"]

EXIT_CODE: Final = 99
"""Of a process that a failpoint ended by `os._exit`."""
_COUNT: Final = struct.Struct("=Q")


class Action(Enum):
    """What a failpoint does when its time has come."""

    EXIT = "exit"
    """The process ends at once: by SIGKILL to itself or by `os._exit`."""
    STALL = "stall"
    """The thread does nothing for a while. It may be the event loop's."""
    EIO = "EIO"
    """What follows, or what was just done, fails as a broken disk has it fail."""
    ENOSPC = "ENOSPC"
    """As a full disk does."""
    VIEW_FULL = "LevelDB full"
    """LevelDB says that its disk is full: it does so with an error of its own."""
    VIEW_BROKEN = "LevelDB broken"


FAILURES: Final = (Action.EIO, Action.ENOSPC, Action.VIEW_FULL, Action.VIEW_BROKEN)


@frozen
class Arm:
    """One failpoint that acts: from the hit `at_hit` on, which is counted from 1, `times` times."""

    place: str
    action: Action
    at_hit: int = 1
    times: int = 1
    stall_s: float = 0.0
    softly: bool = False
    """Exit by `os._exit`, not by SIGKILL."""


@define
class Failpoints:
    """The failpoints of this process. `hit` is what the hook has them call; any thread does."""

    places: Sequence[str]
    acted: Callable[[Arm], None] = lambda _: None
    """Told just before an arm acts."""
    _arms: dict[str, list[Arm]] = field(factory=dict)
    _here: Counter[str] = field(factory=Counter)
    _lock: Lock = field(factory=Lock)
    _shared: mmap.mmap = field(init=False)
    _index: dict[str, int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.share_anew()
        self._index = {place: number * _COUNT.size for number, place in enumerate(self.places)}

    def share_anew(self) -> None:
        """Count apart from the process that this one was forked from."""
        self._shared = mmap.mmap(-1, max(len(self.places), 1) * _COUNT.size)

    def arm(self, arms: Iterable[Arm], acted: Callable[[Arm], None] = lambda _: None) -> None:
        """From now on these act, and no others; hits are counted anew for them."""
        self.acted = acted
        self._here.clear()
        self._arms.clear()
        for arm in arms:
            self._arms.setdefault(arm.place, []).append(arm)

    def reached(self) -> Counter[str]:
        """How often each was reached, in this process and those that it has forked, since `forget`."""
        counts = {place: _COUNT.unpack_from(self._shared, at)[0] for place, at in self._index.items()}
        return Counter({place: count for place, count in counts.items() if count})

    def forget(self) -> None:
        """Count from zero again."""
        self._shared[:] = bytes(len(self._shared))

    def hit(self, place: str) -> None:
        """A failpoint is reached. Raises OSError, or LevelDB's error, when that is what it is armed for."""
        at = self._index[place]
        with self._lock:
            _COUNT.pack_into(self._shared, at, _COUNT.unpack_from(self._shared, at)[0] + 1)
            self._here[place] += 1
            now = self._here[place]
        for arm in self._arms.get(place, ()):
            if arm.at_hit <= now < arm.at_hit + arm.times:
                self.acted(arm)
                _act(arm)


def _act(arm: Arm) -> None:
    match arm.action:
        case Action.EXIT if arm.softly:
            os._exit(EXIT_CODE)
        case Action.EXIT:
            os.kill(os.getpid(), signal.SIGKILL)
        case Action.STALL:
            time.sleep(arm.stall_s)
        case Action.EIO:
            raise OSError(errno.EIO, os.strerror(errno.EIO), arm.place)
        case Action.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arm.place)
        case Action.VIEW_FULL:
            raise _leveldb_error(errno.ENOSPC, arm.place)
        case Action.VIEW_BROKEN:
            raise _leveldb_error(errno.EIO, arm.place)


def _leveldb_error(number: int, place: str) -> Exception:
    # Imported here: only who has imported Statehouse comes here, and who has not may be about to.
    import plyvel

    error: Exception = plyvel.IOError(f"IO error: {place}: {os.strerror(number)}".encode())
    return error
