"""Replays as iterators: the events of a stream, converted one at a time."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, Self, TypeVar

from statehouse.rpc.client.message_stream import MessageStream

__all__ = ["AsyncReplay"]

T = TypeVar("T")


class AsyncReplay(Generic[T]):
    """An async iterator over a replay. Made by the clients; used in one `async for`.

    Memory stays flat: what the reader has not asked for, the daemon has not sent, but for a window of 1 MiB.
    Whoever leaves early may call `aclose`; dropping the iterator does the same. A wait that is cancelled, or
    fails with StatehouseError, ends it.
    """

    def __init__(self, stream: MessageStream, convert: Callable[[Any], Iterable[T]]) -> None:
        self._stream = stream
        self._convert = convert
        self._ready: deque[T] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._ready:
            self._ready.extend(await self.next_batch())
            if not self._ready:
                raise StopAsyncIteration
        return self._ready.popleft()

    async def next_batch(self) -> list[T]:
        """Some items, at least one; none at the end."""
        batch: list[T] = []
        while not batch:
            messages = await self._stream.next_batch()
            if not messages:
                break
            batch = [item for message in messages for item in self._convert(message)]
        return batch

    async def aclose(self) -> None:
        """Leave the replay; the daemon stops sending. Idempotent."""
        self._ready.clear()
        await self._stream.aclose()

    def abandon(self) -> None:
        """As `aclose`, from any thread and without waiting."""
        self._stream.abandon()
