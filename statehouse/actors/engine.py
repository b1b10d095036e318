"""The engine: the store and the actors on it, started and stopped in one place, and everything the edge may call.

A commit goes transactions -> partitions -> sequencer -> store, and its outcome back the same way. Reads do not
queue: they go straight to the store, because a commit is answered only after the view has applied it. Point reads
stay on the event loop; scans and replays read in worker threads, a chunk at a time.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from attrs import field, frozen

from statehouse.actors.background import Background
from statehouse.actors.commits import carry_out
from statehouse.actors.partition import PartitionMachine
from statehouse.actors.partitions import Partitions
from statehouse.actors.reply import Reply
from statehouse.actors.sequencer import Sequencer, SequencerMachine
from statehouse.actors.supervisor import Supervisor
from statehouse.actors.transaction_ids import transaction_ids
from statehouse.actors.transactions import Transactions
from statehouse.actors.transactions_machine import TransactionsMachine
from statehouse.errors import LogPoisonedError, StatehouseError
from statehouse.limits import READ_THREADS, Limits
from statehouse.storage.keys import agent_prefix
from statehouse.storage.recovery import OpenedStore
from statehouse.storage.store import Store
from statehouse.types import AgentId

__all__ = ["Engine", "EngineSettings", "run_engine"]


@frozen(kw_only=True)
class EngineSettings:
    """What the actors need to know."""

    limits: Limits = field(factory=Limits)
    tx_timeout_ms: int = 30_000
    max_resident_partitions: int = 10_000


class Engine:
    """What the edge may call. Raises, and carries in its replies, nothing but the errors of `statehouse.errors`.

    A method that gives a `Reply` never blocks; cancelling the wait for it does not undo what was asked. Requests
    are within the limits and values validated: see `statehouse.rpc.server.requests`.
    """

    def __init__(self, store: Store, transactions: Transactions, sequencer: Sequencer, limits: Limits) -> None:
        self._store = store
        self._transactions = transactions
        self._sequencer = sequencer
        self._readers = trio.CapacityLimiter(READ_THREADS)
        self.limits = limits

    def begin(self, timeout_ms: int | None) -> Reply[str]:
        """Open a transaction; its id. InvalidRequestError, OverloadedError."""
        return self._transactions.begin(timeout_ms)

    def write(self, txn_id: str, agent: AgentId, key: str, value: bytes) -> Reply[None]:
        """Stage a write of a serialized Struct. TransactionError, InvalidRequestError, OverloadedError."""
        return self._transactions.stage(txn_id, agent, key.encode(), value)

    def delete(self, txn_id: str, agent: AgentId, key: str) -> Reply[None]:
        """Stage a delete. TransactionError, InvalidRequestError, OverloadedError."""
        return self._transactions.stage(txn_id, agent, key.encode(), None)

    def commit(self, txn_id: str) -> Reply[int]:
        """Commit; the commit_ts once it is durable and visible.

        TransactionError, OverloadedError, and: DiskFullError, StorageError (nothing happened), LogPoisonedError
        (the log takes no commits; for a commit that was under way the outcome is unknown).
        """
        return self._transactions.commit(txn_id)

    def abort(self, txn_id: str) -> Reply[None]:
        """Forget a transaction; unknown and aborted ids succeed. TransactionError when it was committed."""
        return self._transactions.abort(txn_id)

    def get_state(self, agent: AgentId, key: str) -> bytes:
        """The encoded GetStateResponse. StorageError."""
        return self._store.get_state(agent, key.encode())

    def get_state_at_version(self, agent: AgentId, key: str, version: int) -> bytes:
        """The encoded GetStateAtVersionResponse. StorageError."""
        return self._store.get_state_at_version(agent, key.encode(), version)

    async def list_keys(self, agent: AgentId) -> list[str]:
        """The live keys in byte order. Cancelling waits for the read under way. StorageError, OverloadedError."""
        return await trio.to_thread.run_sync(self._store.list_keys, agent, limiter=self._readers)

    async def scan_prefix(self, agent: AgentId, prefix: str) -> list[bytes]:
        """The encoded StateEntry of each live key with the prefix. As `list_keys`."""
        return await trio.to_thread.run_sync(self._store.scan_prefix, agent, prefix.encode(), limiter=self._readers)

    async def replay(
        self, agent: AgentId, start_ts: int | None, end_ts: int | None
    ) -> AsyncGenerator[list[bytes], None]:
        """The agent's encoded ReplayEvents from `start_ts` to `end_ts`, both included, a chunk at a time.

        Without `end_ts` up to the newest commit at the time of the first step. Holds nothing between two chunks,
        so a reader may take as long as it likes. StorageError.
        """
        newest_ts = self._store.head_ts
        last_ts = newest_ts if end_ts is None else min(end_ts, newest_ts)
        next_ts: int | None = start_ts or 0
        while next_ts is not None and next_ts <= last_ts:
            chunk = await trio.to_thread.run_sync(self._store.events, agent, next_ts, last_ts, limiter=self._readers)
            if chunk.events:
                yield chunk.events
            next_ts = chunk.next_ts

    def health(self) -> str:
        """`ok` while reads and commits are served, `read-only` once the log takes no more commits."""
        return "ok" if self._sequencer.refusal is None else "read-only"

    @property
    def head_ts(self) -> int:
        """The newest commit."""
        return self._store.head_ts

    async def drain(self) -> None:
        """Wait until every commit that is under way has its outcome. The edge has stopped sending."""
        await self._sequencer.barrier().wait()


@asynccontextmanager
async def run_engine(
    opened: OpenedStore,
    settings: EngineSettings,
    *,
    now_ns: Callable[[], int] = time.time_ns,
    became_read_only: Callable[[], None] = lambda: None,
) -> AsyncIterator[Engine]:
    """Run the actors on an open store, which whoever opened it closes.

    `became_read_only` is called when the engine's health does; it must be short and must not raise.

    Leaving the block stops them in reverse order: commits that are in line become durable first. When the block
    is cancelled, what is not in the disk's hands yet fails instead, and says so. A bug that must stop the daemon
    raises out of the block.
    """
    store = opened.store
    supervisor = Supervisor()

    def machine(agent: AgentId) -> PartitionMachine:
        prefix = agent_prefix(agent)
        return PartitionMachine(
            agent, stored=lambda key: store.stored(prefix, key), counters=lambda: store.counters(prefix)
        )

    def poke() -> None:
        next_segment.poke()
        snapshots.poke()
        mending.poke()

    def forget_pending(error: StatehouseError) -> None:
        partitions.forget_pending(error)
        mending.poke()
        if isinstance(error, LogPoisonedError):
            became_read_only()  # the sequencer refuses every commit from this turn on

    next_segment = Background(
        "preparing the log's next segment",
        due=lambda: store.next_segment_needed,
        work=store.prepare_next_segment,
    )
    snapshots = Background("writing a snapshot", due=opened.snapshots.due, work=opened.snapshots.write)
    mending = Background("opening the view anew", due=lambda: store.view_failed, work=store.mend_view)
    partitions = Partitions(
        machine,
        lambda: sequencer.barrier(),  # noqa: PLW0108 - the sequencer is made below, and needs the partitions
        supervisor,
        max_resident=settings.max_resident_partitions,
    )
    sequencer = Sequencer(
        SequencerMachine(store.head_ts, store.head_time_ns),
        commit_group=store.commit,
        forget_pending=forget_pending,
        committed=poke,
        now_ns=now_ns,
    )
    transactions = Transactions(
        TransactionsMachine(
            settings.limits,
            default_timeout_ms=settings.tx_timeout_ms,
            new_id=transaction_ids().__next__,
            committed_ts=store.committed_ts,
        ),
        submit=lambda transaction: carry_out(transaction, partitions, sequencer.commit),
        supervisor=supervisor,
    )
    engine = Engine(store, transactions, sequencer, settings.limits)
    poke()
    try:
        async with (
            _running(supervisor.run),
            _running(next_segment.run),
            _running(snapshots.run),
            _running(mending.run),
            _running(sequencer.run),
            partitions.serving(),
            _running(transactions.run),
        ):
            yield engine
            await engine.drain()
    finally:
        transactions.close()


@asynccontextmanager
async def _running(task: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run one actor's task around a block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        yield
        nursery.cancel_scope.cancel()
