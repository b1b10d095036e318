"""The engine's reads: of now and of a point in the past, of one key and of many, and of what there is.

Reads do not queue behind commits: they go straight to the store. Those of one key as it is now are done on the event
loop, and those of some keys when they are quickly had; all others in worker threads, a chunk at a time, and nothing is
held between two chunks: what they show belongs together because it is asked for as of one commit_ts, which is fixed
first.

A point in the past is a commit_ts (`at_ts`) or a time in nanoseconds since 1970 (`at_time_ns`), at most one of the
two; without either it is now. One after the newest commit is the newest commit. A time stands for the agent's last
commit that was made then or before.

All of them raise StorageError; ViewAwayError, which is one, only where that is said. Cancelling a read waits for the
chunk that is under way.
"""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from statehouse.limits import (
    BATCH_AT_HAND_S,
    BATCH_KEYS_AT_HAND,
    BATCH_NOT_AT_HAND_S,
    PAGE_BYTES,
    READ_CHUNK_ROWS,
    READ_THREADS,
)
from statehouse.storage.agents import NamespaceTally
from statehouse.storage.lineage import Levels, Lineage
from statehouse.storage.listing import Page
from statehouse.storage.store import Store
from statehouse.types import AgentId

__all__ = ["Page", "Reads"]

T = TypeVar("T")


class Reads:
    """What can be read of one store; the engine is one of these.

    `settled()` waits until all that is on its way to the disk is durable and visible, or has failed.
    """

    def __init__(self, store: Store, *, settled: Callable[[], Awaitable[object]]) -> None:
        self._store = store
        self._settled = settled
        self._readers = trio.CapacityLimiter(READ_THREADS)
        self._at_hand_from = -math.inf
        """Before that time no batch is tried on the event loop."""
        self._late_in_a_row = 0

    @property
    def head_ts(self) -> int:
        """The newest commit."""
        return self._store.head_ts

    # One key, now

    def get_state(self, agent: AgentId, key: str) -> bytes:
        """The encoded GetStateResponse. ViewAwayError: ask `get_state_later`."""
        return self._store.get_state(agent, key.encode())

    def get_state_at_version(self, agent: AgentId, key: str, version: int) -> bytes:
        """The encoded GetStateAtVersionResponse. ViewAwayError: ask `get_state_at_version_later`."""
        return self._store.get_state_at_version(agent, key.encode(), version)

    async def get_state_later(self, agent: AgentId, key: str) -> bytes:
        """As `get_state`, once the view that is being opened anew is there."""
        return await self._read(partial(self._store.get_state, agent, key.encode()))

    async def get_state_at_version_later(self, agent: AgentId, key: str, version: int) -> bytes:
        """As `get_state_at_version`, likewise."""
        return await self._read(partial(self._store.get_state_at_version, agent, key.encode(), version))

    # Points

    async def pin(self, agent: AgentId, at_ts: int | None = None, at_time_ns: int | None = None) -> int:
        """The commit_ts that a point stands for: at most the newest, 0 for one before the agent's first commit."""
        if at_time_ns is not None:
            return await self.ts_at_time(agent, at_time_ns)
        shown_ts = self._store.shown_ts
        return shown_ts if at_ts is None else min(at_ts, shown_ts)

    async def ts_at_time(self, agent: AgentId, time_ns: int) -> int:
        """The agent's last commit that was made at or before the time; 0: there is none."""
        await self._dated(time_ns)
        return await self._read(partial(self._store.ts_at_time, agent, time_ns))

    async def log_ts_at_time(self, time_ns: int) -> int:
        """The last commit of all that was made at or before the time; 0: there is none."""
        await self._dated(time_ns)
        return await self._read(partial(self._store.log_ts_at_time, time_ns))

    async def _dated(self, time_ns: int) -> None:
        """Wait for commits that have their time and are not visible yet: or the past would change when they are."""
        if time_ns >= self._store.head_time_ns:
            await self._settled()

    # The state at a point

    async def get_state_at(
        self, agent: AgentId, key: str, at_ts: int | None = None, at_time_ns: int | None = None
    ) -> bytes:
        """The encoded GetStateResponse of the key as it was: empty when it had not been written yet."""
        pinned_ts = await self.pin(agent, at_ts, at_time_ns)
        return await self._read(partial(self._store.get_state, agent, key.encode(), pinned_ts))

    async def list_keys(self, agent: AgentId, at_ts: int | None = None, at_time_ns: int | None = None) -> list[str]:
        """The live keys in byte order, all of them. OverloadedError past RESPONSE_BYTES."""
        pinned_ts = await self._pinned(agent, at_ts, at_time_ns)
        return await self._read(partial(self._store.list_keys, agent, pinned_ts))

    async def scan_prefix(
        self, agent: AgentId, prefix: str, at_ts: int | None = None, at_time_ns: int | None = None
    ) -> list[bytes]:
        """The encoded StateEntry of each live key with the prefix. As `list_keys`."""
        pinned_ts = await self._pinned(agent, at_ts, at_time_ns)
        return await self._read(partial(self._store.scan_prefix, agent, prefix.encode(), pinned_ts))

    async def list_page(
        self, agent: AgentId, *, after: str | None = None, limit: int, at_ts: int, now_ns: int = 0
    ) -> Page[str]:
        """The live keys behind `after`, at most `limit` and about PAGE_BYTES of them; `at_ts` is what `pin` gave.

        What has expired at `now_ns` is left out; 0, for a point of the past: nothing is. All pages of one listing name
        the same two, and so show one moment.
        """
        return await self._page(partial(self._store.list_page, agent), after, limit, at_ts, now_ns)

    async def scan_page(
        self, agent: AgentId, prefix: str, *, after: str | None = None, limit: int, at_ts: int, now_ns: int = 0
    ) -> Page[bytes]:
        """The encoded StateEntry of each live key with the prefix behind `after`. As `list_page`."""
        return await self._page(partial(self._store.scan_page, agent, prefix.encode()), after, limit, at_ts, now_ns)

    # Many keys

    def batch_at_hand(self, keys: Sequence[tuple[AgentId, bytes]]) -> list[bytes] | None:
        """What `batch_get` gives of now, if it is quickly had. None, or ViewAwayError: ask `batch_get`."""
        began_at = trio.current_time()
        if len(keys) > BATCH_KEYS_AT_HAND or began_at < self._at_hand_from:
            return None
        deadline = began_at + BATCH_AT_HAND_S
        found = self._store.batch_at_hand(keys, lambda: trio.current_time() < deadline)
        if found is not None:
            self._late_in_a_row = 0
        elif trio.current_time() >= deadline:
            self._late_in_a_row += 1
            if self._late_in_a_row > 1:  # once, others may have had the processor; now it is the disk
                self._at_hand_from = deadline + BATCH_NOT_AT_HAND_S
        return found

    async def batch_get(self, keys: Sequence[tuple[AgentId, bytes]], at_ts: int | None = None) -> list[bytes]:
        """The encoded BatchGetEntry of each key, in order, from one moment. OverloadedError past RESPONSE_BYTES."""
        return await self._read(partial(self._store.batch_get, keys, at_ts))

    # What became of it

    async def history(
        self, agent: AgentId, key: str, *, limit: int = 0, before_version: int = 0
    ) -> AsyncGenerator[list[bytes], None]:
        """The encoded HistoryEntry of each version of the key, newest first, a chunk at a time.

        At most `limit` of them, and only versions below `before_version`; 0: all. Holds nothing between two chunks.
        """
        left = limit or None
        before: int | None = before_version or None
        while True:
            chunk = await self._read(partial(self._store.history, agent, key.encode(), before, left))
            before = chunk.next_before
            if left is not None:
                left -= len(chunk.entries)  # now: who is given a chunk may empty it
            if chunk.entries:
                yield chunk.entries
            if before is None or left == 0:
                return

    async def diff(
        self,
        agent: AgentId,
        prefix: str = "",
        *,
        from_ts: int | None = None,
        from_time_ns: int | None = None,
        to_ts: int | None = None,
        to_time_ns: int | None = None,
    ) -> AsyncGenerator[list[bytes], None]:
        """The encoded DiffEntry of each key whose version is another at the two points, in byte order, in chunks.

        Without `from` from before the first commit, without `to` up to the newest one at the time of the first step.
        Holds nothing between two chunks.
        """
        is_from_start = from_ts is None and from_time_ns is None
        before_ts = 0 if is_from_start else await self.pin(agent, from_ts, from_time_ns)
        after_ts = await self.pin(agent, to_ts, to_time_ns)
        after_key: bytes | None = None
        while True:
            chunk = await self._read(partial(self._store.diff, agent, before_ts, after_ts, prefix.encode(), after_key))
            if chunk.entries:
                yield chunk.entries
            after_key = chunk.next_after
            if after_key is None:
                return

    # What there is

    async def list_agents(
        self, namespace: str, prefix: str = "", *, after: str | None = None, limit: int
    ) -> Page[bytes]:
        """The encoded AgentInfo of each agent whose id has the prefix, behind the id `after`, at most `limit`.

        Each agent's numbers are those of one moment.
        """
        return await self._read(partial(self._store.list_agents, namespace, prefix, after, limit))

    async def list_namespaces(self, prefix: str = "", *, after: str | None = None, limit: int) -> Page[bytes]:
        """The encoded NamespaceInfo of each namespace with the prefix, behind the namespace `after`, at most `limit`.

        They are summed over the agents a chunk at a time, so each agent's numbers are those of one moment.
        """
        tally = NamespaceTally(limit)
        last: AgentId | str | None = after
        while not tally.is_full:
            agents = await self._read(partial(self._store.agents, prefix, last))
            if not agents:
                break
            for agent, counters in agents:
                tally.add(agent, counters)
            last = agents[-1][0]
        return tally.page()

    async def lineage(self, agent: AgentId, limit: int, before_ts: int) -> Lineage:
        """What the agent was forked from, up to an agent that is no fork, and what was forked from it.

        Of these the newest, at most `limit`, that were made before that commit; 0: whenever.
        """
        return await self._read(partial(self._store.lineage, agent, limit, before_ts))

    # For partitions

    async def inherited(self, levels: Levels, wanted: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """The stored value that an agent inherits of each key; None: it inherits none."""
        found: dict[bytes, bytes | None] = {}
        chunk = max(1, READ_CHUNK_ROWS // len(levels))
        for at in range(0, len(wanted), chunk):
            found |= await self._read(partial(self._store.inherited, levels, wanted[at : at + chunk]))
        return found

    # How

    async def _pinned(self, agent: AgentId, at_ts: int | None, at_time_ns: int | None) -> int | None:
        """As `pin`, None for now: the newest state needs no search."""
        return None if at_ts is None and at_time_ns is None else await self.pin(agent, at_ts, at_time_ns)

    async def _page(
        self,
        read: Callable[[bytes | None, int, int, int], Page[T]],
        after: str | None,
        limit: int,
        at_ts: int,
        now_ns: int,
    ) -> Page[T]:
        """A page, of as many chunks as it takes: one chunk looks at so many rows and no more."""
        found: list[T] = []
        size_bytes = 0
        while True:
            start = None if after is None else after.encode()
            page = await self._read(partial(read, start, limit - len(found), at_ts, now_ns))
            found += page.found
            size_bytes += page.size_bytes
            after = page.next_after
            if after is None or len(found) >= limit or size_bytes >= PAGE_BYTES:
                return Page(found, after, size_bytes)

    async def _read(self, read: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(self._store.patiently, read, limiter=self._readers)
