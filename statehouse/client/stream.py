"""Iterators over what a call gives little by little: the answers of a stream, or pages, converted one at a time."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from statehouse.errors import OverloadedError

__all__ = ["AsyncStream", "Pages"]

T = TypeVar("T")


class Source(Protocol):
    """Where messages come from: a `MessageStream`, a `FollowingStream`, or `Pages`."""

    async def next_batch(self) -> Sequence[Any]:
        """Some messages, at least one; none at the end."""

    async def aclose(self) -> None:
        """Leave it."""

    def abandon(self) -> None:
        """Leave it from any thread, without waiting."""


class AsyncStream(Generic[T]):
    """An async iterator over what a call gives little by little. Made by the clients, for one `async for`.

    Memory stays flat: what the reader has not asked for, the daemon has not sent, but for a window of 1 MiB, or a
    page. Whoever leaves early may call `aclose`; dropping the iterator does the same. A wait that is cancelled, or
    fails with StatehouseError, ends it.
    """

    def __init__(self, source: Source, convert: Callable[[Any], Iterable[T]]) -> None:
        self._source = source
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
            messages = await self._source.next_batch()
            if not messages:
                break
            batch = [item for message in messages for item in self._convert(message)]
        return batch

    async def aclose(self) -> None:
        """Leave it; the daemon stops sending. Idempotent."""
        self._ready.clear()
        await self._source.aclose()

    def abandon(self) -> None:
        """As `aclose`, from any thread and without waiting."""
        self._source.abandon()


class Pages:
    """Pages, each asked for when it is needed; all of them show one moment, which the token of the first fixes.

    A page that is too large for one answer is asked for again with half as many entries.
    """

    def __init__(self, ask: Callable[[bytes, int], Awaitable[Any]], entries: int) -> None:
        """`ask` makes the call for a token and a number of entries; its answer has `next_page_token`."""
        self._ask = ask
        self._entries = entries
        self._token = b""
        self._finished = False

    async def next_batch(self) -> list[Any]:
        """The next page; none after the last."""
        if self._finished:
            return []
        self._finished = True  # unless it goes well: what failed, or was cancelled, has ended
        page = await self._page()
        self._token = page.next_page_token
        self._finished = not self._token
        return [page]

    async def aclose(self) -> None:
        """Ask for no more."""
        self.abandon()

    def abandon(self) -> None:
        """Ask for no more."""
        self._finished = True

    async def _page(self) -> Any:
        while True:
            try:
                return await self._ask(self._token, self._entries)
            except OverloadedError as error:
                if self._entries == 1 or "limit" not in error.details:
                    raise
                self._entries = max(1, self._entries // 2)
