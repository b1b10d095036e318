"""The one-shot answer to a message.

Whoever asks holds the `Reply`, whoever answers settles it: now, or turns later (group commit is that and
nothing more). Settling is idempotent: the first outcome counts, every later one is dropped. A caller that
was cancelled has merely stopped waiting; what it asked for goes on.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import outcome
import trio

T = TypeVar("T")


class Reply(Generic[T]):
    """An answer that is there, or will be. At most one task or callback waits for it.

    All methods belong to the event loop's thread.
    """

    __slots__ = ("_callback", "_outcome")

    def __init__(self) -> None:
        self._outcome: outcome.Outcome[T] | None = None
        self._callback: Callable[[Reply[T]], None] | None = None

    @classmethod
    def of(cls, value: T) -> "Reply[T]":
        """A reply that is settled with a value from the start."""
        reply: Reply[T] = cls()
        reply._outcome = outcome.Value(value)
        return reply

    @classmethod
    def failed(cls, error: Exception) -> "Reply[T]":
        """A reply that is settled with an error from the start."""
        reply: Reply[T] = cls()
        reply._outcome = outcome.Error(error)
        return reply

    @property
    def settled(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    @property
    def error(self) -> Exception | None:
        """The error of a settled reply, or None."""
        if isinstance(self._outcome, outcome.Error):
            return cast("Exception", self._outcome.error)
        return None

    def result(self) -> T:
        """The value of a settled reply; raises its error. A RuntimeError when nothing is known yet."""
        if self._outcome is None:
            raise RuntimeError("the reply is not settled")
        if isinstance(self._outcome, outcome.Error):
            raise self._outcome.error
        return cast("outcome.Value[T]", self._outcome).value

    def succeed(self, value: T) -> None:
        """Settle with a value."""
        self._settle(outcome.Value(value))

    def fail(self, error: Exception) -> None:
        """Settle with an error."""
        self._settle(outcome.Error(error))

    def then(self, callback: Callable[["Reply[T]"], None]) -> None:
        """Call `callback` with this reply as soon as it is settled: at once, if it is.

        The callback runs in the turn of whoever settles: it must be short, and must not raise.
        """
        if self._outcome is not None:
            callback(self)
        elif self._callback is not None:
            raise RuntimeError("somebody waits for this reply already")
        else:
            self._callback = callback

    async def wait(self) -> T:
        """Wait for the outcome; a checkpoint. Cancelling ends the wait, not the work."""
        if self._outcome is not None:
            await trio.lowlevel.checkpoint()
            return self.result()
        task = trio.lowlevel.current_task()
        self.then(lambda _: trio.lowlevel.reschedule(task))

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._callback = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return self.result()

    def _settle(self, result: outcome.Outcome[T]) -> None:
        if self._outcome is not None:
            return
        self._outcome = result
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self)
