"""How many bytes of answers may be held at once: what bounds the daemon's memory when readers are slow.

An answer's size is known only when it has been read. So whoever reads holds the most that it is expected to be, keeps
what it turned out to be, and gives that back as its messages leave. That may be more than was expected (one event can
be as large as a transaction), so only so many read at once. Small answers hold nothing.

There are two budgets, one inside the other: a connection's own, and the server's. Waiting is in line in each:
a connection that has used up its own share waits there, and takes no place in the server's line. Holders never
wait for more, so waiting always ends, but for a peer that does not read. It may be slow; when others wait and
it took less than ANSWER_LEAST_BYTES in ANSWER_STALL_S, it is ended, the largest first, until there is room for the
first in line.
"""

import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio
from attrs import define, field

from statehouse.limits import ANSWER_LEAST_BYTES, ANSWER_STALL_S, READ_THREADS

__all__ = ["AnswerBudget", "Hold"]

STALL_CHECK_S: Final = 1.0
UNREAD_HOLDS: Final = READ_THREADS
"""Holds whose answer is not read yet: each may turn out larger than it says, and more cannot read at once anyway."""


@define(eq=False)
class Hold:
    """The bytes that one call holds. Belongs to the block of `AnswerBudget.hold`."""

    size_bytes: int
    end: Callable[[], None]
    budgets: list["AnswerBudget"] = field(factory=list)
    """Where it is admitted."""
    admitted: trio.Event = field(factory=trio.Event)
    moved_at: float = math.inf
    """When the peer had last taken ANSWER_LEAST_BYTES; as long as there is nothing to take, the delay is not its."""
    moved_bytes: int = 0
    """What it has taken since then."""
    ended: bool = False

    def keep(self, size_bytes: int, taken_bytes: int = 0) -> None:
        """From now on this much is held; it may be more than was asked for.

        The first time says what there is to take. Each later time tells what the peer took, which may free nothing yet.
        It is a sign of life, if it is enough: a byte now and then is as good as nothing.
        """
        freed, self.size_bytes = self.size_bytes - size_bytes, size_bytes
        self.moved_bytes += taken_bytes
        unread = self.moved_at == math.inf
        if unread or self.moved_bytes >= ANSWER_LEAST_BYTES:
            self.moved_at, self.moved_bytes = trio.current_time(), 0
        for budget in self.budgets:
            budget.free(freed, read=unread)


class AnswerBudget:
    """So many bytes for all the answers of a server, or of a connection `within` a server's budget."""

    def __init__(self, capacity_bytes: int, within: "AnswerBudget | None" = None) -> None:
        self._capacity_bytes = capacity_bytes
        self._levels = [self] if within is None else [self, within]
        self._holds: set[Hold] = set()
        self._line: deque[Hold] = deque()
        self._unread = 0
        self.held_bytes = 0
        """What is held now. Above the capacity only by what the last answers to be read had more than they said."""

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._line)

    def hold_now(self, size_bytes: int, end: Callable[[], None]) -> Hold | None:
        """A hold of `size_bytes`, if there is one without waiting; it belongs to the block of `holding`."""
        if any(each._line or not each._fits(size_bytes) for each in self._levels):  # noqa: SLF001 - of this class
            return None
        hold = Hold(size_bytes, end)
        for budget in self._levels:
            budget._take_in(hold)  # noqa: SLF001 - of this class
        return hold

    @asynccontextmanager
    async def hold(self, size_bytes: int, end: Callable[[], None]) -> AsyncGenerator[Hold, None]:
        """Hold `size_bytes` during the block; waits in line for them. More than there is is admitted alone.

        `end` is called, once, when the peer stalls while others wait; the block is then to be left soon. Cancelling
        leaves the line.
        """
        hold = Hold(size_bytes, end)
        with self.holding(hold):
            for budget in self._levels:
                await budget._admit(hold)  # noqa: SLF001 - of this class
            yield hold

    @contextmanager
    def holding(self, hold: Hold) -> Generator[Hold, None, None]:
        """A hold of this budget during the block; at its end it is given back."""
        try:
            yield hold
        finally:
            for budget in hold.budgets:
                budget._holds.discard(hold)  # noqa: SLF001 - of this class
            hold.keep(0)

    def free(self, size_bytes: int, *, read: bool) -> None:
        """A hold has given so much back; with `read` it is the first that it tells of itself."""
        self.held_bytes -= size_bytes
        self._unread -= read
        self._let_in()

    async def _admit(self, hold: Hold) -> None:
        hold.admitted = trio.Event()
        self._line.append(hold)
        self._let_in()
        try:
            while not hold.admitted.is_set():
                with trio.move_on_after(STALL_CHECK_S):
                    await hold.admitted.wait()
                if self._line and self._line[0] is hold:
                    self._end_stalled(hold.size_bytes)
        finally:
            if not hold.admitted.is_set():
                self._line.remove(hold)
                self._let_in()

    def _let_in(self) -> None:
        while self._line and self._fits(self._line[0].size_bytes):
            self._take_in(self._line.popleft())

    def _take_in(self, hold: Hold) -> None:
        self.held_bytes += hold.size_bytes
        self._unread += 1
        self._holds.add(hold)
        hold.budgets.append(self)
        hold.admitted.set()

    def _fits(self, size_bytes: int) -> bool:
        if self._unread >= UNREAD_HOLDS:
            return False
        return not self.held_bytes or self.held_bytes + size_bytes <= self._capacity_bytes

    def _end_stalled(self, needed_bytes: int) -> None:
        free_bytes = self._capacity_bytes - self.held_bytes + sum(each.size_bytes for each in self._holds if each.ended)
        late = trio.current_time() - ANSWER_STALL_S
        stalled = [each for each in self._holds if each.moved_at <= late and not each.ended]
        for each in sorted(stalled, key=lambda hold: hold.size_bytes, reverse=True):
            if free_bytes >= needed_bytes:
                return
            free_bytes += each.size_bytes
            each.ended = True
            each.end()
