"""What a turn cannot wait for: it sends somebody on an errand, and the reply goes on where the turn ended.

Each is a task. Whatever becomes of it, its reply is settled: with what it has found, with the error that was expected,
with an InternalError after a bug, which the supervisor is told of, or because the daemon stops.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TypeVar

import trio

from statehouse.actors.reply import Reply
from statehouse.actors.supervisor import Supervisor
from statehouse.errors import StatehouseError, UnavailableError

__all__ = ["Errands"]

T = TypeVar("T")


class Errands:
    """Those of one engine."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._nursery: trio.Nursery | None = None

    def send(
        self,
        errand: Callable[[], Awaitable[T]],
        *,
        within: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
        **state: object,
    ) -> Reply[T]:
        """What the errand gives, or the StatehouseError that it raises; UnavailableError when the daemon stops.

        It begins once it has entered `within()`, which is left after the reply was settled. `state` is for the log.
        """
        found: Reply[T] = Reply()
        if self._nursery is None:
            found.fail(_stopping())
        else:
            self._nursery.start_soon(self._run, errand, within, found, state)
        return found

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The nursery of the tasks, around a block; what is under way when that is left fails."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None
            nursery.cancel_scope.cancel()

    async def _run(
        self,
        errand: Callable[[], Awaitable[T]],
        within: Callable[[], AbstractAsyncContextManager[object]],
        found: Reply[T],
        state: dict[str, object],
    ) -> None:
        try:
            async with within():
                await self._go(errand, found, state)
        finally:
            found.fail(_stopping())  # unless it is settled

    async def _go(self, errand: Callable[[], Awaitable[T]], found: Reply[T], state: dict[str, object]) -> None:
        try:
            result = await errand()
        except StatehouseError as error:
            found.fail(error)
        except Exception as error:  # noqa: BLE001 - the boundary of a turn, as in `Actor`
            found.fail(self._supervisor.bug(error, **state))
        else:
            if self._nursery is not None:  # a thread cannot be cancelled: what it gives may come too late
                found.succeed(result)


def _stopping() -> UnavailableError:
    return UnavailableError("the daemon is stopping")
