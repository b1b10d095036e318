"""Engines on a simulated disk with a view in memory and on a real LevelDB; threads that do not leave the loop."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from google.protobuf.message import Message
from storage.fix_store import ALICE, StoreBench

from statehouse.actors.agent_reads import AgentReads
from statehouse.actors.engine import Engine, EngineSettings, run_engine
from statehouse.actors.watching import ReplayArguments
from statehouse.storage.commit import AgentCounters
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import GetStateResponse, ReplayEvent, StateEntry

Op = tuple[AgentId, str, bytes | None]


@define
class InlineThreads:
    """Runs in the event loop what belongs in worker threads, so that no real time passes beside a virtual clock.

    While it is held nothing gets done, as on a slow disk; what has begun is not given up when it is cancelled.
    """

    waiting: int = 0
    _open: trio.Event = field(factory=trio.Event)

    def hold(self) -> None:
        self._open = trio.Event()

    def release(self) -> None:
        self._open.set()

    async def run_sync(self, function: Callable[..., Any], *args: Any, limiter: object = None) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.waiting += 1
        with trio.CancelScope(shield=True):
            await self._open.wait()
        self.waiting -= 1
        return function(*args)


@pytest.fixture
def inline_threads(monkeypatch) -> Iterator[InlineThreads]:
    """Worker threads that are turns of the event loop, and can be held."""
    threads = InlineThreads()
    threads.release()
    monkeypatch.setattr(trio.to_thread, "run_sync", threads.run_sync)
    yield threads
    threads.release()


def agent_reads(**given: Callable[..., Any]) -> AgentReads:
    """The reads of a partition of an agent of which nothing is known, but for those that are given."""
    nothing: dict[str, Callable[..., Any]] = {
        "counters": AgentCounters,
        "levels": tuple,
        "stored": lambda levels, key: None,
        "earlier": lambda key: None,
        "lease": lambda: None,
        "ended_ts": int,
        "shown_ts": int,
        "is_known": lambda agent: False,
        "forking": lambda parent, at_ts: (AgentCounters(), 0),
    }
    return AgentReads(**{**nothing, **given})


@define
class EngineBench:
    """A store's place, and engines run on it."""

    place: StoreBench
    now_ns: int = 1_000_000_000_000

    @asynccontextmanager
    async def engine(
        self, *, store: dict | None = None, became_read_only: Callable[[], None] = lambda: None, **settings: Any
    ) -> AsyncIterator[Engine]:
        """An engine on the store as it is; closed with the block."""
        opened = self.place.open(**(store or {}))
        try:
            async with run_engine(
                opened, EngineSettings(**settings), now_ns=lambda: self.now_ns, became_read_only=became_read_only
            ) as engine:
                yield engine
        finally:
            self.place.close()


@pytest.fixture
def engine_bench(store_bench) -> EngineBench:
    """Engines on a simulated disk, with a view in memory."""
    return EngineBench(store_bench)


@pytest.fixture
def any_engine_bench(any_bench) -> EngineBench:
    """Engines on a simulated disk with a view in memory, and on a real disk with LevelDB."""
    return EngineBench(any_bench)


async def stage(engine: Engine, *operations: Op, timeout_ms: int | None = None) -> str:
    """Begin a transaction and stage operations; its id."""
    txn_id = await engine.begin(timeout_ms).wait()
    for agent, key, content in operations:
        if content is None:
            await engine.delete(txn_id, agent, key).wait()
        else:
            await engine.write(txn_id, agent, key, content).wait()
    return txn_id


async def commit(engine: Engine, *operations: Op) -> int:
    """Commit operations as one transaction; its commit_ts."""
    return await engine.commit(await stage(engine, *operations)).wait()


def state(engine: Engine, agent: AgentId = ALICE, key: str = "k") -> tuple[int, int, bytes | None]:
    """version, commit_ts, value."""
    found = GetStateResponse.FromString(engine.get_state(agent, key))
    return found.version, found.commit_ts, found.value.SerializeToString() if found.exists else None


async def events(engine: Engine, agent: AgentId = ALICE, start=None, end=None) -> list[ReplayEvent]:
    found: list[ReplayEvent] = []
    async for chunk in engine.replay(ReplayArguments(agent=agent, start_ts=start, end_ts=end)):
        found += map(ReplayEvent.FromString, chunk)
    return found


async def scan(engine: Engine, agent: AgentId = ALICE, prefix: str = "") -> list[Message]:
    return [StateEntry.FromString(entry) for entry in await engine.scan_prefix(agent, prefix)]
