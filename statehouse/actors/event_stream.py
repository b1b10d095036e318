"""Replay and watching: the events of an agent, or of the whole log, as they were and as they come.

An `EventStream` has a cursor, the first commit_ts that it has not looked at yet, and moves it on a chunk at a time:
from the feed while that reaches back to the cursor, else from the log. With `follow` it waits at the head; a reader
that is too slow for the feed falls back to the log, and comes back by the same rule, so that nothing is left out,
repeated or torn wherever it changes over. Between two steps it holds its cursor and nothing else.

An agent that comes to be as a fork has events from then on that are older than its fork. A stream of it that has passed
a commit_ts by then from which on it wants events, and at which there is one now, ends with an error rather than with a
gap. Until then the agent had no events: so what a stream has found in the log, it has found as those of the fork.

Times are told by the events themselves: they never decrease, so the first that is too late ends a stream.
"""

import math
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Final

import trio

from statehouse.actors.feed import Subscription
from statehouse.actors.wanted import Source, Surroundings, Wanted
from statehouse.errors import InvalidRequestError
from statehouse.limits import BOOKMARK_S, FEED_CHUNK_BYTES, READ_CHUNK_BYTES
from statehouse.storage.section_fields import committed_at_ns
from statehouse.storage.section_filter import SectionFilter
from statehouse.v1.statehouse_pb2 import ReplayEvent

__all__ = ["EventStream"]

LOOK_S: Final = 60.0
"""How often a stream that ends at a time looks at the wall's clock, which may be set."""

_NO_END: Final = 2**64 - 1
_NS_PER_S: Final = 1_000_000_000


class EventStream(AsyncGenerator[list[bytes], None]):
    """The events that are wanted, as lists of encoded ReplayEvents; belongs to one task. `Watching` makes them.

    `async for` gives lists that are not empty. Whoever must hold memory for what it is given calls `wait`, which holds
    nothing however long it takes, and then `step`. Both raise StorageError, and `step` InvalidRequestError when the
    agent came to be as a fork meanwhile. `aclose` gives back what watching holds.
    """

    def __init__(self, source: Source, wanted: Wanted, surroundings: Surroundings) -> None:
        self._source = source
        self._wanted = wanted
        self._around = surroundings
        self._filter = SectionFilter(wanted.key_prefix, wanted.metadata)
        self._subscription: Subscription | None = None
        self._cursor = 0
        """The first commit_ts that was not looked at yet."""
        self._end_ts = _NO_END if wanted.end_ts is None else wanted.end_ts
        self._not_before_ns = wanted.start_time_ns or 0
        self._left = wanted.limit or math.inf
        self._bookmark_at = -math.inf
        self._told_at = trio.current_time()
        self._begun = False
        self._over = False
        self._fork_seen = False
        self._found_from_ts: int | None = None
        """Where the first read of the log began that found events: from there on, all have been given."""

    @property
    def follows(self) -> bool:
        """Whether it goes on with what is committed from now on."""
        return self._wanted.follow

    async def wait(self) -> int:
        """Wait while there is nothing to give; about how many bytes the next step gives at most.

        Returns at once, but for a stream that follows and is current. One event may be larger. Cancelling is safe.
        """
        if not self._begun:
            await self._begin()
        while not self._over:
            subscription = self._subscription
            if subscription is None or not subscription.covers(self._cursor):
                return 2 * READ_CHUNK_BYTES
            has_reached_end = self._end_ts <= self._around.feed.head_ts or self._cursor > self._end_ts
            if has_reached_end or subscription.has(self._cursor):
                return subscription.size_bytes(self._cursor, FEED_CHUNK_BYTES)
            if self._is_bookmark_due():
                return 0
            if await self._is_past_end():
                continue
            with trio.move_on_at(min(self._bookmark_at if self._wanted.bookmarks else math.inf, self._end_at())):
                await subscription.news()
        return 0

    async def step(self) -> list[bytes] | None:
        """What there is to give now, perhaps nothing yet; None: that was all. Cancelling waits for a read under way."""
        if not self._begun:
            await self._begin()
        if self._over or self._cursor > self._end_ts:
            self._end()
            return None
        await self._see_fork()
        subscription = self._subscription
        if subscription is None or not subscription.covers(self._cursor):
            events = await self._from_log()
        else:
            published, self._cursor = subscription.take(self._cursor, self._end_ts, FEED_CHUNK_BYTES)
            events = self._select(published)
        if not events and self._is_bookmark_due():
            events = [self._bookmark()]
        if events:
            self._told_at = trio.current_time()
            if self._bookmark_at > -math.inf:
                self._bookmark_at = self._told_at + BOOKMARK_S
        if self._cursor > self._end_ts:
            self._end()
        return events if events or not self._over else None

    async def _begin(self) -> None:
        wanted, around = self._wanted, self._around
        if not wanted.follow:
            if wanted.end_time_ns is not None:
                await around.settled()  # what is on its way to the disk may have been given its time before
            self._end_ts = min(self._end_ts, around.newest_ts())
        elif self._subscription is None:
            self._subscription = around.feed.subscribe(self._source.agent, until_ts=wanted.end_ts)
        self._cursor = await self._first_ts()
        self._begun = True

    async def _first_ts(self) -> int:
        """The first commit_ts that may be wanted."""
        start_time_ns = self._wanted.start_time_ns
        if start_time_ns is None:
            return self._wanted.start_ts or 0
        if start_time_ns <= 0:
            return 0
        return await self._around.read(partial(self._source.ts_at_time, start_time_ns - 1)) + 1

    async def _see_fork(self) -> None:
        """InvalidRequestError when the agent came, as a fork, by events that this has passed and would have given.

        Events of other keys or metadata than are wanted count, too.
        """
        inherited_ts = 0 if self._subscription is None else self._subscription.inherited_ts
        if not inherited_ts or self._fork_seen:
            return
        passed_ts = self._cursor if self._found_from_ts is None else self._found_from_ts
        if await self._around.read(partial(self._has_events, await self._first_ts(), min(passed_ts - 1, inherited_ts))):
            self._end()
            raise InvalidRequestError("the agent came to be as a fork while it was watched: watch it anew")
        self._fork_seen = True

    def _has_events(self, first_ts: int, last_ts: int) -> bool:
        """In a worker thread, as `_read`."""
        return first_ts <= last_ts and any(True for _ in self._source.read(first_ts, last_ts)[0])

    async def _from_log(self) -> list[bytes]:
        last_ts = min(self._end_ts, self._around.feed.head_ts) if self._wanted.follow else self._end_ts
        self._bookmark_at = -math.inf  # the next time that it is current, it is told at once
        selected, self._cursor = await self._around.read(partial(self._read, self._cursor, last_ts))
        return selected

    def _read(self, first_ts: int, last_ts: int) -> tuple[list[bytes], int]:
        """In a worker thread, while the stream's task waits for it."""
        found, next_ts = self._source.read(first_ts, last_ts)
        events = list(found)
        if events and self._found_from_ts is None:
            self._found_from_ts = first_ts
        return self._select(events), last_ts + 1 if next_ts is None else next_ts

    def _select(self, events: Iterable[tuple[int, bytes]]) -> list[bytes]:
        """What is wanted of events that ascend; sees where the stream is over."""
        if self._takes_all:
            return [section for _, section in events]
        end_time_ns = self._wanted.end_time_ns
        selected: list[bytes] = []
        newest_ts = -1
        for commit_ts, section in events:
            if self._left <= 0 and commit_ts != newest_ts:  # a commit is given whole
                self._over = True
                break
            if self._not_before_ns or end_time_ns is not None:
                time_ns = committed_at_ns(section)
                if time_ns < self._not_before_ns:
                    continue
                self._not_before_ns = 0
                if end_time_ns is not None and time_ns > end_time_ns:
                    self._over = True
                    break
            kept = self._filter.apply(section) if self._source.wants(section) else None
            if kept is not None:
                selected.append(kept)
                newest_ts = commit_ts
                self._left -= 1
        self._over = self._over or self._left <= 0
        return selected

    @property
    def _takes_all(self) -> bool:
        return (
            self._source.wants_all
            and self._filter.lets_all_pass
            and self._left == math.inf
            and not self._not_before_ns
            and self._wanted.end_time_ns is None
        )

    # The end, when it is a time

    def _end_at(self) -> float:
        """When to look at the clock again, on Trio's: the wall's may be set meanwhile."""
        if self._wanted.end_time_ns is None:
            return math.inf
        left_s = (self._wanted.end_time_ns - self._around.now_ns()) / _NS_PER_S
        return trio.current_time() + min(max(left_s, 0.0) + 0.001, LOOK_S)

    async def _is_past_end(self) -> bool:
        """Whether no event that is wanted can come any more; then `_end_ts` is the newest that there is."""
        end_time_ns = self._wanted.end_time_ns
        if end_time_ns is None or self._end_ts != _NO_END or self._around.now_ns() <= end_time_ns:
            return False
        await self._around.settled()  # what is on its way to the disk may have been given its time before
        self._end_ts = self._around.feed.head_ts
        return True

    # Bookmarks

    @property
    def _is_current(self) -> bool:
        subscription = self._subscription
        return subscription is not None and subscription.covers(self._cursor) and not subscription.has(self._cursor)

    def _is_bookmark_due(self) -> bool:
        """While it is current, or has been looking through the log for long without finding anything."""
        if not self._wanted.bookmarks or not self.follows or self._over or self._cursor > self._end_ts:
            return False
        due_at = self._bookmark_at if self._is_current else self._told_at + BOOKMARK_S
        return trio.current_time() >= due_at

    def _bookmark(self) -> bytes:
        if self._is_current:
            self._cursor = max(self._cursor, min(self._around.feed.head_ts, self._end_ts) + 1)
            self._bookmark_at = trio.current_time() + BOOKMARK_S
        # Of a stream whose start is to come, too, it is the newest commit: clients ask so where the log ends.
        newest_ts = min(self._cursor - 1, self._around.feed.head_ts)
        return ReplayEvent(commit_ts=newest_ts, bookmark=True).SerializeToString()

    # As an async generator

    async def __anext__(self) -> list[bytes]:
        """The next list that is not empty."""
        try:
            while True:
                await self.wait()
                events = await self.step()
                if events:
                    return events
                if events is None:
                    break
        except Exception:
            self._end()
            raise
        raise StopAsyncIteration

    async def asend(self, _: None) -> list[bytes]:
        """As `anext`."""
        return await self.__anext__()

    async def athrow(self, kind: Any, value: Any = None, _: TracebackType | None = None) -> list[bytes]:
        """End the stream, and raise what is given."""
        self._end()
        raise kind if value is None else value

    async def aclose(self) -> None:
        """End the stream. Idempotent; no step may be under way."""
        self._end()

    def _end(self) -> None:
        self._over = True
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
