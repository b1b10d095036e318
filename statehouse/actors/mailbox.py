"""A bounded queue with one reader, drained a batch at a time.

Draining in batches is what makes group commit fall out by itself: whatever arrived while the reader was
busy is its next turn. A full mailbox is an error to the sender, at once; nothing is ever dropped.
"""

from collections import deque
from typing import Generic, TypeVar

import trio

from statehouse.errors import OverloadedError

M = TypeVar("M")


class Mailbox(Generic[M]):
    """Messages for one actor, in the order in which they were put. Belongs to the event loop's thread."""

    __slots__ = ("_capacity", "_messages", "_name", "_reader")

    def __init__(self, name: str, capacity: int) -> None:
        self._name = name
        self._capacity = capacity
        self._messages: deque[M] = deque()
        self._reader: trio.lowlevel.Task | None = None

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: M, *, refusable: bool = True) -> None:
        """Append a message and wake the reader. OverloadedError when the mailbox is full and it is `refusable`."""
        if refusable and len(self._messages) >= self._capacity:
            raise OverloadedError(
                f"{self._name} has {self._capacity} messages waiting; try again later",
                details={"limit": str(self._capacity)},
            )
        self._messages.append(message)
        self.wake()

    def put_first(self, message: M) -> None:
        """Put back a message that was taken, before all others; its place is found also in a full mailbox."""
        self._messages.appendleft(message)
        self.wake()

    def wake(self) -> None:
        """Make a reader that waits look again."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            trio.lowlevel.reschedule(reader)

    def take(self) -> M:
        """The oldest message; IndexError when there is none."""
        return self._messages.popleft()

    def peek(self) -> M:
        """The oldest message, left where it is; IndexError when there is none."""
        return self._messages[0]

    def take_all(self) -> list[M]:
        """Everything that waits."""
        messages = list(self._messages)
        self._messages.clear()
        return messages

    async def wait(self) -> None:
        """Return when messages wait: at once, or when somebody puts one."""
        if self._messages:
            await trio.lowlevel.checkpoint()
        else:
            await self.sleep()

    async def sleep(self) -> None:
        """Return when somebody puts a message or calls `wake`, whatever waits already."""
        self._reader = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
