"""One life of the process: its threads, its operations of disk and view, and its end.

Every operation of a simulated thread comes by `World.at` before it is done: it is counted, others may have their turns
first, and what was planned for this moment happens. The event loop's own reads come by too and do not wait. When the
world has ended, by a crash, nothing that belongs to it gets at disk or view any more.
"""

from collections.abc import Callable
from random import Random
from typing import Final, Protocol, TypeVar

import trio
from attrs import define, field

from simulation.coverage import Coverage, kind_of
from simulation.plan import Plan
from simulation.threads import Threads, WorldEnded, current_thread

__all__ = ["OPENING", "Crash", "NoFaults", "Striker", "World"]

T = TypeVar("T")

OPENING: Final = "opening"
"""The condition of a store that does not serve yet."""
LONGEST_PAUSE_S: Final = 0.02
WORKING_ROLES: Final = frozenset({"opening", "commit", "write", "prepare_next_segment", "mend_view", "_some"})
"""Of threads that do not read for somebody."""


@define
class Crash:
    """The process ends at this operation: before, after or, of a write, in the middle of it."""

    place: float
    strike: Callable[[], None]


class Striker(Protocol):
    """Whoever decides what happens at an operation."""

    def strike(self, operation: str, path: str, *, may_crash: bool) -> Crash | None:
        """Bring about what is due at this operation: by a fault of disk or view, or by a crash that is given back."""
        ...

    def look_at_clock(self) -> None:
        """Bring about what is due at this time."""
        ...


class NoFaults:
    """A striker that never strikes."""

    def strike(self, operation: str, path: str, *, may_crash: bool) -> None:
        """Nothing happens."""

    def look_at_clock(self) -> None:
        """Nor ever."""


@define
class World:
    """One life."""

    plan: Plan
    rng: Random
    """Of the pauses."""
    coverage: Coverage
    trace: list[str] | None
    striker: Striker
    threads: Threads = field(factory=Threads)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    """Around everything that lives in this world."""
    operations: int = 0
    ended: bool = False
    auditing: bool = False
    """What is read on behalf of the checker is no operation of this life."""
    condition: Callable[[], str] = lambda: OPENING
    """Of the store, for the coverage."""

    def at(self, operation: str, path: str) -> Crash | None:
        """Called before each operation. A crash that is returned is for the caller to carry out (`carry_out`)."""
        if self.ended:
            raise WorldEnded
        thread = current_thread()
        if self.auditing and (thread is None or thread.role not in WORKING_ROLES):
            return None
        if thread is None:
            return self.striker.strike(operation, path, may_crash=False)
        self.operations += 1
        if self.rng.random() < self.plan.switch_share:
            sleeps = self.rng.random() < self.plan.sleep_share
            thread.pause(self.rng.random() * LONGEST_PAUSE_S if sleeps else 0.0)
            if self.ended:
                raise WorldEnded
        if self.trace is not None:
            self.say(f"{thread.role}: {operation} {path}")
        self.coverage.at(thread.role, thread.last, operation, kind_of(path), self.threads.roles, self.condition())
        thread.last = operation
        return self.striker.strike(operation, path, may_crash=True)

    def carry_out(self, crash: Crash, call: Callable[[], object]) -> None:
        """End the world at an operation that is done before the end, or not."""
        if crash.place >= 0.5:
            call()
        self.end(crash)

    def end(self, crash: Crash) -> None:
        """The process is no more. Raises WorldEnded in the thread that it was the end of."""
        self.ended = True
        crash.strike()
        self.threads.end()
        self.scope.cancel()
        raise WorldEnded

    def say(self, text: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{trio.current_time():10.4f} {self.operations:5} {text}")
