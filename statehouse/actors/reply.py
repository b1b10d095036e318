"""The one-shot answer to a message.

Whoever asks holds the `Reply`, whoever answers settles it: now, or turns later (group commit is that and
nothing more). Settling is idempotent: the first outcome counts, every later one is dropped. A caller that
was cancelled has merely stopped waiting; what it asked for goes on.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import trio

T = TypeVar("T")


class Reply(Generic[T]):
    """An answer that is there, or will be. At most one task or callback waits for it.

    All methods belong to the event loop's thread.
    """

    __slots__ = ("_callback", "_error", "_settled", "_value")

    def __init__(self) -> None:
        self._settled = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._callback: Callable[[Reply[T]], None] | None = None

    @classmethod
    def of(cls, value: T) -> "Reply[T]":
        """A reply that is settled with a value from the start."""
        reply: Reply[T] = cls()
        reply.succeed(value)
        return reply

    @classmethod
    def failed(cls, error: Exception) -> "Reply[T]":
        """A reply that is settled with an error from the start."""
        reply: Reply[T] = cls()
        reply.fail(error)
        return reply

    @property
    def settled(self) -> bool:
        """Whether the outcome is known."""
        return self._settled

    @property
    def error(self) -> Exception | None:
        """The error of a settled reply, or None."""
        return self._error

    def result(self) -> T:
        """The value of a settled reply; raises its error. A RuntimeError when nothing is known yet."""
        if not self._settled:
            raise RuntimeError("the reply is not settled")
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def succeed(self, value: T) -> None:
        """Settle with a value."""
        if not self._settled:
            self._value = value
            self._settle()

    def fail(self, error: Exception) -> None:
        """Settle with an error."""
        if not self._settled:
            self._error = error
            self._settle()

    def then(self, callback: Callable[["Reply[T]"], None]) -> None:
        """Call `callback` with this reply as soon as it is settled: at once, if it is.

        The callback runs in the turn of whoever settles: it must be short, and must not raise.
        """
        if self._settled:
            callback(self)
        elif self._callback is not None:
            raise RuntimeError("somebody waits for this reply already")
        else:
            self._callback = callback

    async def wait(self) -> T:
        """Wait for the outcome; a checkpoint. Cancelling ends the wait, not the work."""
        if self._settled:
            await trio.lowlevel.checkpoint()
            return self.result()
        task = trio.lowlevel.current_task()
        self.then(lambda _: trio.lowlevel.reschedule(task))

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._callback = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return self.result()

    def _settle(self) -> None:
        self._settled = True
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self)
