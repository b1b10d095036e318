"""The calls of one run as they are made: each with its floor, what came of it, and, where that is not known, asking.

Calls are written down as histories/submissions.py has it, with how many reads had ended when they were sent. That
costs a few microseconds a call: the load is meant to be as much as two cores can do.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, TypeVar

import trio
from attrs import define, evolve, field
from histories.at_once import deleted, refusals
from histories.submissions import Listed, Load, Outcome, Read, Repeated, Replayed, Staged, Submission, VersionRead

from linearizability.one_call import OneCallSubject, batch_read, precondition_of
from statehouse import (
    AgentDeletedError,
    AsyncStatehouse,
    AsyncTransaction,
    ConflictError,
    ConnectionError,
    ReplayEvent,
    StateResult,
    TransactionError,
)
from statehouse.types import AgentId

__all__ = ["PAUSE_S", "TIMEOUT_MS", "Journal", "Journalled"]

T = TypeVar("T")

TIMEOUT_MS: Final = 600_000
"""Of a transaction that is meant to be committed: longer than a slow machine takes for it."""
PAUSE_S: Final = 0.01
"""After a connection was lost. The client library makes its own, which grow, before it dials again."""


@define
class Journal:
    """What the clients of one run wrote down, and how many calls they made."""

    load: Load
    over: bool = False
    """Whether the daemon is being ended: who now loses it, goes."""
    calls: Counter[str] = field(factory=Counter)
    """By kind: answered, refused or lost."""
    lost: Counter[str] = field(factory=Counter)
    """Those that ended without an answer."""
    resolved: Counter[str] = field(factory=Counter)
    """What came of asking for the outcome of a commit whose answer was lost."""
    earlier: list[Submission] = field(factory=list)
    """Transactions of earlier lives that are to be sent once more; those that happened then have their commit_ts."""
    sent_again: int = 0
    """How many of them were."""
    expired: int = 0
    """Transactions that were refused because their time was over, as it was."""

    @property
    def operations(self) -> int:
        """How many calls were made."""
        return self.calls.total()

    # Transactions

    async def begin(
        self, client: AsyncStatehouse, operations: tuple[Staged, ...], timeout_ms: int = TIMEOUT_MS
    ) -> tuple[AsyncTransaction, Submission]:
        """Open a transaction for these operations, of which none is staged yet."""
        transaction = await self.call("begin", client.begin_transaction(timeout_ms, local=False))
        submission = Submission(str(transaction.txn_id), operations)
        self.load.submissions.append(submission)
        return transaction, submission

    async def stage(self, client: AsyncStatehouse, submission: Submission) -> None:
        """Stage the operations. After a ConnectionError nobody knows whether one of them is."""
        for staged in submission.operations:
            namespace, agent_id = staged.agent
            # A transaction may span namespaces, so each goes through a handle of its own.
            handle = AsyncTransaction(client, submission.txn_id, namespace)
            if staged.value is None:
                await self.call("delete", handle.delete(agent_id, staged.key))
            else:
                await self.call("write", handle.write(agent_id, staged.key, staged.value, ttl_s=staged.ttl_s))

    async def abort(self, transaction: AsyncTransaction) -> None:
        """Abort a transaction whose commit was never sent."""
        await self.call("abort", transaction.abort())

    async def commit(self, transaction: AsyncTransaction, submission: Submission) -> bool:
        """Commit, and write down what became of it: whether that is known. TransactionError when it did not happen."""
        load = self.load
        submission.floor_ts = load.newest_ts
        submission.after = len(load.reads)
        submission.outcome = Outcome.UNKNOWN
        submission.sent_ns = time.time_ns()
        preconditions = [precondition_of(checked) for checked in submission.checks]
        try:
            call = transaction.commit(preconditions=preconditions, revive=submission.revive)
            commit_ts = await self.call("commit", call)
        except ConnectionError:
            return False
        except ConflictError as error:
            submission.outcome = Outcome.NEVER
            clock_ns = (submission.sent_ns, time.time_ns())
            load.reads += refusals(submission, error, submission.floor_ts, submission.after, clock_ns)
            raise
        except AgentDeletedError as error:
            submission.outcome = Outcome.NEVER
            load.reads.append(deleted(submission, error, submission.floor_ts, submission.after))
            return True
        except TransactionError:
            submission.outcome = Outcome.NEVER
            raise
        self._happened(submission, commit_ts)
        return True

    async def resolve(self, transaction: AsyncTransaction, submission: Submission, *, aborting: bool) -> None:
        """Ask what became of a commit until that is known, or the run is over."""
        while submission.outcome is Outcome.UNKNOWN and not self.over:
            await trio.sleep(PAUSE_S)
            try:
                if aborting:
                    await self.call("abort", transaction.abort())
                    submission.outcome = Outcome.NEVER
                    self.resolved["aborted instead"] += 1
                else:
                    again = transaction.commit(revive=submission.revive)
                    self._happened(submission, await self.call("commit", again))
                    self.resolved["asked again: committed"] += 1
            except ConnectionError:
                pass
            except TransactionError as error:
                commit_ts = error.details.get("commit_ts")
                if commit_ts is None or isinstance(error, AgentDeletedError):
                    submission.outcome = Outcome.NEVER
                    self.resolved["asked again: not committed"] += 1
                else:
                    self._happened(submission, int(commit_ts))
                    self.resolved["too late to abort"] += 1

    def _happened(self, submission: Submission, commit_ts: int) -> None:
        submission.outcome = Outcome.ACKNOWLEDGED
        submission.commit_ts = commit_ts
        self.load.saw(commit_ts)

    # Reads

    async def read(self, client: AsyncStatehouse, agent: AgentId, key: str) -> StateResult:
        """The latest version of a key."""
        load = self.load
        floor_ts, after, began_ns = load.newest_ts, len(load.reads), time.time_ns()
        state = await self.call("read", client.get_state(agent.agent_id, key, agent.namespace))
        load.reads.append(Read(agent, floor_ts, {key: state}, None, after, None, began_ns, time.time_ns()))
        load.saw(state.commit_ts)
        return state

    async def read_version(self, client: AsyncStatehouse, agent: AgentId, key: str, version: int) -> None:
        """A key at a version, which may not be there yet."""
        load = self.load
        floor_ts, after = load.newest_ts, len(load.reads)
        call = client.get_state_at_version(agent.agent_id, key, version, agent.namespace)
        state = await self.call("read at a version", call)
        load.reads.append(VersionRead(agent, floor_ts, key, version, state, after))
        load.saw(state.commit_ts)

    async def read_at(self, client: AsyncStatehouse, agent: AgentId, key: str, at_ts: int) -> None:
        """A key as it was at a commit, which is not after the newest that was told."""
        load = self.load
        floor_ts = load.newest_ts
        state = await self.call("read at a commit", OneCallSubject(client).get_at(agent, key, at_ts))
        load.reads.append(Read(agent, floor_ts, {key: state}, at_ts=at_ts))

    async def batch(
        self, client: AsyncStatehouse, places: Sequence[tuple[AgentId, str]], at_ts: int | None = None
    ) -> Mapping[tuple[AgentId, str], StateResult]:
        """Keys of several agents, all from one moment: now, or at a commit. It is written down agent by agent."""
        load = self.load
        floor_ts, after, began_ns = load.newest_ts, len(load.reads), time.time_ns()
        found = await self.call("batch", batch_read(client, places, at_ts))
        ended_ns = time.time_ns()
        for agent in {agent for agent, _ in places}:
            states = {key: state for (other, key), state in found.items() if other == agent}
            load.reads.append(Read(agent, floor_ts, states, None, after, at_ts, began_ns, ended_ns))
        load.saw(max(state.commit_ts for state in found.values()))
        return found

    async def scan(self, client: AsyncStatehouse, agent: AgentId, prefix: str) -> dict[str, StateResult]:
        """The live keys with a prefix."""
        load = self.load
        floor_ts, after, began_ns = load.newest_ts, len(load.reads), time.time_ns()
        entries = await self.call("scan", client.scan_prefix(agent.agent_id, prefix, agent.namespace))
        found = {str(entry.key): evolve(entry, key=None) for entry in entries}
        load.reads.append(Read(agent, floor_ts, found, prefix, after, None, began_ns, time.time_ns()))
        load.saw(max((entry.commit_ts for entry in entries), default=0))
        return found

    async def list_keys(self, client: AsyncStatehouse, agent: AgentId) -> None:
        """The live keys by name."""
        load = self.load
        floor_ts, after, began_ns = load.newest_ts, len(load.reads), time.time_ns()
        keys = await self.call("list", client.list_keys(agent.agent_id, agent.namespace))
        load.reads.append(Listed(agent, floor_ts, tuple(keys), after, began_ns, time.time_ns()))

    async def replay(
        self, client: AsyncStatehouse, agent: AgentId, first_ts: int, last_ts: int | None
    ) -> tuple[ReplayEvent, ...]:
        """The events from `first_ts` to `last_ts`, or to the newest; from 0 they are all."""
        load = self.load
        floor_ts, after = load.newest_ts, len(load.reads)
        call = _replayed(client, agent, first_ts, last_ts)
        events = await self.call("replay of a range" if first_ts else "replay of everything", call)
        load.reads.append(Replayed(agent, floor_ts, first_ts, last_ts, events, after))
        if events:
            load.saw(events[-1].commit_ts)
        return events

    async def call(self, kind: str, call: Awaitable[T]) -> T:
        self.calls[kind] += 1
        try:
            return await call
        except ConnectionError:
            self.lost[kind] += 1
            raise


async def _replayed(
    client: AsyncStatehouse, agent: AgentId, first_ts: int, last_ts: int | None
) -> tuple[ReplayEvent, ...]:
    return tuple([event async for event in OneCallSubject(client).replay(agent, first_ts, last_ts)])


class Journalled(OneCallSubject):
    """A daemon through one client's connection, with every call counted, and every read written down."""

    def __init__(self, client: AsyncStatehouse, journal: Journal) -> None:
        super().__init__(client)
        self._journal = journal

    async def get(self, agent: AgentId, key: str) -> StateResult:
        return await self._journal.read(self.client, agent, key)

    async def transact(self, submission: Submission) -> Repeated:
        return await self._journal.call("transact", super().transact(submission))

    async def lease(self, what: str, agent: AgentId, epoch: int) -> tuple[int, int]:
        return await self._journal.call("lease", super().lease(what, agent, epoch))

    async def fork(self, parent: AgentId, agent: AgentId, at_ts: int | None) -> tuple[int, int, int]:
        return await self._journal.call("fork", super().fork(parent, agent, at_ts))

    async def end(self, submission: Submission) -> tuple[int, int]:
        return await self._journal.call("end of an agent", super().end(submission))
