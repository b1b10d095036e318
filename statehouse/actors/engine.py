"""The engine: the store and the actors on it, started and stopped in one place, and everything the edge may call.

A commit goes transactions -> partitions -> sequencer -> store, and its outcome back the same way. Reads do not
queue: they go straight to the store, because a commit is answered only after the view has applied it. Point reads
stay on the event loop; scans and replays read in worker threads, a chunk at a time.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import field, frozen

from statehouse.actors.agent_reads import AgentReads
from statehouse.actors.background import Background
from statehouse.actors.clock import Clock
from statehouse.actors.commits import carry_out
from statehouse.actors.endings import Endings
from statehouse.actors.errands import Errands
from statehouse.actors.event_stream import EventStream
from statehouse.actors.feed import Feed
from statehouse.actors.leases import lease_view
from statehouse.actors.messages import Committed, LeaseView, Leg, Transaction
from statehouse.actors.partition import PartitionMachine
from statehouse.actors.partitions import Partitions
from statehouse.actors.reads import Reads
from statehouse.actors.reply import Reply
from statehouse.actors.sequencer import Sequencer, SequencerMachine
from statehouse.actors.supervisor import Supervisor
from statehouse.actors.sweeping import Sweeper
from statehouse.actors.transaction_ids import transaction_ids
from statehouse.actors.transactions import Transactions
from statehouse.actors.transactions_machine import TransactionsMachine
from statehouse.actors.verifying import Verifying
from statehouse.actors.watching import ReplayArguments, ReplayLogArguments, Watching
from statehouse.actors.writes import Writes
from statehouse.errors import LogPoisonedError, StatehouseError
from statehouse.findings import Head, VerifyEvent
from statehouse.limits import Limits
from statehouse.storage.commit import GroupCommit, empty_commit
from statehouse.storage.keys import agent_prefix
from statehouse.storage.record_notes import Notes
from statehouse.storage.recovery import OpenedStore
from statehouse.storage.store import Store, ViewAwayError
from statehouse.types import AgentId

__all__ = ["Engine", "EngineSettings", "ViewAwayError", "run_engine"]

_NS_PER_S = 1_000_000_000


@frozen(kw_only=True)
class EngineSettings:
    """What the actors need to know."""

    limits: Limits = field(factory=Limits)
    tx_timeout_ms: int = 30_000
    max_resident_partitions: int = 10_000
    idempotency_window_s: int = 24 * 60 * 60


class Engine(Writes, Reads):
    """What the edge may call. Raises, and carries in its replies, nothing but the errors of `statehouse.errors`.

    Requests are within the limits and values validated: see `statehouse.rpc.server.requests`.
    """

    def __init__(
        self,
        store: Store,
        transactions: Transactions,
        sequencer: Sequencer,
        verifying: Verifying,
        clock: Clock,
        feed: Feed,
        limits: Limits,
    ) -> None:
        Writes.__init__(self, transactions)
        Reads.__init__(self, store, settled=self.drain)
        self._sequencer = sequencer
        self._verifying = verifying
        self._clock = clock
        self._watching = Watching(store, feed, read=self._read, now_ns=clock.now_ns, settled=self.drain)
        self.limits = limits

    def get_lease(self, agent: AgentId) -> LeaseView:
        """The agent's newest lease. As `get_state`: `get_lease_later`."""
        return lease_view(self._store.get_lease(agent_prefix(agent)), self._clock.now_ns())

    async def get_lease_later(self, agent: AgentId) -> LeaseView:
        """As `get_lease`, likewise."""
        row = await self._read(partial(self._store.get_lease, agent_prefix(agent)))
        return lease_view(row, self._clock.now_ns())

    def replay(self, arguments: ReplayArguments) -> EventStream:
        """The agent's encoded ReplayEvents, both ends included, a chunk at a time; see `actors/event_stream.py`.

        Without an end up to the newest commit at the time of the first step, or, to `follow`, for ever. Holds nothing
        that others need between two chunks, so a reader may take as long as it likes. StorageError.
        """
        return self._watching.replay(arguments)

    def replay_log(self, arguments: ReplayLogArguments) -> EventStream:
        """As `replay`, of every agent that the filters let through; a commit is never given in part."""
        return self._watching.replay_log(arguments)

    def now_ns(self) -> int:
        """What time it is by the engine's clock, in nanoseconds since 1970; it never goes back."""
        return self._clock.now_ns()

    def head(self) -> Head:
        """The newest commit that is durable and visible, and the log's chain value there."""
        head = self._store.head
        return Head(head.commit_ts, head.chain, self._store.store_id)

    def verify(self, heads: Iterable[Head]) -> AsyncGenerator[list[VerifyEvent], None]:
        """Verify the store up to now, and hold known heads against its log; see `actors/verifying.py`.

        OverloadedError while another verification is under way; InvalidRequestError, StorageError.
        """
        return self._verifying.events(heads)

    def health(self) -> str:
        """`ok` while reads and commits are served, `read-only` once the log takes no more commits."""
        return "ok" if self._sequencer.refusal is None else "read-only"

    async def drain(self) -> None:
        """Wait until every commit that is under way has its outcome. The edge has stopped sending."""
        await self._sequencer.barrier().wait()


@asynccontextmanager
async def run_engine(
    opened: OpenedStore,
    settings: EngineSettings,
    *,
    now_ns: Callable[[], int] = time.time_ns,
    new_txn_id: Callable[[], str] | None = None,
    became_read_only: Callable[[], None] = lambda: None,
) -> AsyncIterator[Engine]:
    """Run the actors on an open store, which whoever opened it closes.

    `became_read_only` is called when the engine's health does; it must be short and must not raise. `new_txn_id` gives
    ids that nobody can guess and no two alike (see `transaction_ids`, which is taken by default).

    Leaving the block stops them in reverse order: commits that are in line become durable first. When the block
    is cancelled, what is not in the disk's hands yet fails instead, and says so. A bug that must stop the daemon
    raises out of the block.
    """
    store = opened.store
    supervisor = Supervisor()
    # Reads in worker threads ask it, too, where there is no `trio.current_time`.
    clock = Clock(now_ns, trio.lowlevel.current_clock().current_time, not_before_ns=store.head_time_ns)
    store.now_ns = clock.now_ns

    def machine(agent: AgentId) -> PartitionMachine:
        reads = AgentReads.of_store(store, agent)
        return PartitionMachine(agent, reads, now_ns=clock.now_ns, window_ns=settings.idempotency_window_s * _NS_PER_S)

    def committed(group: GroupCommit) -> None:
        feed.publish(group)
        poke()
        if group.next_expiry_ns:
            sweeper.poke(group.next_expiry_ns)

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
    errands = Errands(supervisor)
    partitions = Partitions(
        machine,
        lambda: sequencer.barrier(),  # noqa: PLW0108 - the sequencer is made below, and needs the partitions
        lambda txn_id, unread: errands.send(partial(engine.inherited, *unread), txn_id=txn_id),
        supervisor,
        max_resident=settings.max_resident_partitions,
    )
    sequencer = Sequencer(
        SequencerMachine(store.head_ts, store.head_time_ns),
        commit_group=store.commit,
        forget_pending=forget_pending,
        committed=committed,
        now_ns=clock.now_ns,
    )
    endings = Endings(
        lambda *most: store.patiently(partial(store.live_keys, *most)),
        sequencer.barrier,
        errands,
    )
    new_id = transaction_ids().__next__ if new_txn_id is None else new_txn_id

    def submit(transaction: Transaction) -> Reply[Committed]:
        return carry_out(
            transaction,
            partitions,
            sequencer.commit,
            section_of=lambda agent, commit_ts: store.section(agent_prefix(agent), commit_ts),
            build_end=endings.build,
        )

    transactions = Transactions(
        TransactionsMachine(
            settings.limits,
            default_timeout_ms=settings.tx_timeout_ms,
            new_id=new_id,
            committed_ts=store.committed_ts,
        ),
        submit=submit,
        supervisor=supervisor,
    )
    sweeper = Sweeper(
        store,
        expire=lambda agent, values: submit(Transaction(new_id(), [Leg(agent, expire=values)])),
        note=lambda until_ns: sequencer.commit(empty_commit(new_id(), Notes(swept_until_ns=until_ns))),
        barrier=sequencer.barrier,
        now_ns=clock.now_ns,
    )
    feed = Feed(store.head_ts)
    verifying = Verifying(opened.moment, lambda: store.head_ts)
    engine = Engine(store, transactions, sequencer, verifying, clock, feed, settings.limits)
    poke()
    try:
        async with (
            _running(supervisor.run),
            _running(next_segment.run),
            _running(snapshots.run),
            _running(mending.run),
            _running(verifying.run),
            _running(sequencer.run),
            partitions.serving(),
            errands.serving(),
            _running(transactions.run),
            _running(sweeper.run),
        ):
            # failpoint: engine.started
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
