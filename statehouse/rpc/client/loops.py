"""The event loop below a client, Trio's or asyncio's: its clock, its call from outside, and one-shot waiters.

anyio has all of it too. Its events cost several times as much as a task parked with Trio's own means or a plain
asyncio future, and a call waits once; its clock looks up the running loop each time. So this much is written for
each of the two, and everything that happens once a connection is anyio's.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

if TYPE_CHECKING:
    import asyncio

__all__ = ["Loop", "Waiter", "running_loop"]


class Waiter(Protocol):
    """For one task, once."""

    def wake(self) -> None:
        """End the wait; also one that has not begun. Idempotent."""

    async def wait(self) -> None:
        """Wait to be woken. Cancelling leaves nothing behind."""


class Loop(Protocol):
    """An event loop that is running."""

    @property
    def now(self) -> Callable[[], float]:
        """The loop's clock, in seconds."""

    def waiter(self) -> Waiter:
        """A new waiter."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """Run a function in the loop: from any thread, also from a finalizer. RuntimeError when it has ended."""


class _TrioWaiter:
    __slots__ = ("_task", "_woken")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        if self._woken:
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class _TrioLoop:
    def __init__(self) -> None:
        self.now: Final = trio.current_time
        self._token = trio.lowlevel.current_trio_token()

    def waiter(self) -> _TrioWaiter:
        return _TrioWaiter()

    def call_soon(self, function: Callable[[], object]) -> None:
        self._token.run_sync_soon(function)


class _AsyncioWaiter:
    __slots__ = ("_future",)

    def __init__(self, future: "asyncio.Future[None]") -> None:
        self._future = future

    def wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        await self._future


class _AsyncioLoop:
    def __init__(self, loop: "asyncio.AbstractEventLoop") -> None:
        self.now: Final = loop.time
        self._loop = loop

    def waiter(self) -> _AsyncioWaiter:
        return _AsyncioWaiter(self._loop.create_future())

    def call_soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)


def running_loop() -> Loop:
    """The loop that runs the calling task."""
    if trio.lowlevel.in_trio_run():
        return _TrioLoop()
    import asyncio  # not loaded under Trio

    return _AsyncioLoop(asyncio.get_running_loop())
