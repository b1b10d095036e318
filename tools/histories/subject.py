"""What a history is taken of: a store behind a connection, or an engine in this process, with the same few calls.

Both answer in the types of the public client and raise the errors of `statehouse.errors`, so that workload, audit and
oracle need not know which of them it is.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from hashlib import sha256
from typing import Final, Protocol

from attrs import evolve
from google.protobuf.struct_pb2 import Struct

from histories.lineages import Described, Lineage, Origin
from histories.submissions import Checked, Outcome, Repeated, Staged, Submission
from statehouse import AsyncStatehouse, ConnectionError, ErrorCode, ReplayEvent, StatehouseError, StateResult
from statehouse.actors.engine import Engine, ViewAwayError
from statehouse.actors.messages import AgentAt, Check, ExistsIs, LeaseIs, StagedOperation, TransactArguments, VersionIs
from statehouse.actors.watching import ReplayArguments
from statehouse.client.results import batch_result, entry_result, replay_event, state_result
from statehouse.client.values import to_struct
from statehouse.errors import InternalError, LogPoisonedError, TransactionError, UnavailableError
from statehouse.storage.record_notes import Idempotency
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["Batching", "DaemonSubject", "EngineSubject", "Subject", "Transacting", "connected", "outcome_of"]

CALL_TIMEOUT_S: Final = 20.0
LEASE_MS: Final = 60_000
FORKS_AT_MOST: Final = 1_000
AGENTS_AT_ONCE: Final = 100
NAME: Final = "sent as"
"""The metadata that has the client's name for a transaction, by which its events are known."""


class Subject(Protocol):
    """A store. Every call may raise a StatehouseError."""

    async def begin(self) -> str:
        """Open a transaction; its id."""

    async def stage(self, txn_id: str, staged: Staged) -> None:
        """Add a write or a delete to it."""

    async def commit(self, txn_id: str) -> int:
        """Commit it; the commit_ts."""

    async def abort(self, txn_id: str) -> None:
        """Forget it."""

    async def get(self, agent: AgentId, key: str) -> StateResult:
        """The latest version of a key."""

    async def get_at_version(self, agent: AgentId, key: str, version: int) -> StateResult:
        """A key as a version left it."""

    async def scan(self, agent: AgentId, prefix: str) -> dict[str, StateResult]:
        """The live keys with a prefix."""

    def replay(self, agent: AgentId, first_ts: int = 0, last_ts: int | None = None) -> AsyncIterator[ReplayEvent]:
        """The agent's events, both ends included."""

    async def head(self) -> int:
        """The newest commit, when all that was under way is visible."""

    def now_ns(self) -> int:
        """The store's clock, by which values expire."""


class Transacting(Subject, Protocol):
    """A store that is asked for all that one call can do, too."""

    async def transact(self, submission: Submission) -> Repeated:
        """Commit it in one call, by its name, which is its idempotency key; ConflictError."""

    async def get_at(self, agent: AgentId, key: str, at_ts: int) -> StateResult:
        """A key as it was at a commit."""

    def watch(self, agent: AgentId, first_ts: int) -> AsyncIterator[ReplayEvent]:
        """The agent's events from there on, for ever."""

    async def lease(self, what: str, agent: AgentId, epoch: int) -> tuple[int, int]:
        """A lease is to be "acquired", "renewed" or "released": its epoch and commit_ts; LeaseError."""

    async def commit_reviving(self, txn_id: str) -> int:
        """Commit it, to deleted agents too."""

    async def fork(self, parent: AgentId, agent: AgentId, at_ts: int | None) -> tuple[int, int, int]:
        """The commit_ts of the fork, its point and its depth."""

    async def end(self, submission: Submission) -> tuple[int, int]:
        """Delete the agent that it ends, under its conditions: the commit_ts, and how many keys were deleted."""

    async def lineage(self, agent: AgentId) -> Lineage:
        """What it was forked from, and what was forked from it."""

    async def described(self, namespace: str) -> dict[AgentId, Described]:
        """The agents of a namespace."""


class Batching(Protocol):
    """A store that is asked for many keys at once."""

    async def batch(self, agent: AgentId, keys: Sequence[str], at_ts: int | None) -> dict[str, StateResult]:
        """Keys as they all were at one moment, at a commit or now: of each that the answer names rightly."""


def outcome_of(error: StatehouseError) -> Outcome:
    """What has become of a transaction whose commit failed like this.

    Nothing has happened only where the error is known to say so; whatever else went wrong, the caller cannot tell.
    """
    if isinstance(error, LogPoisonedError):
        return Outcome.UNKNOWN if error.outcome_unknown else Outcome.NEVER
    if isinstance(error, ConnectionError | UnavailableError | InternalError):
        return Outcome.UNKNOWN
    if isinstance(error, TransactionError) and error.code is ErrorCode.TXN_ALREADY_COMMITTED:
        return Outcome.UNKNOWN
    return Outcome.NEVER


class DaemonSubject:
    """A daemon, through the public client."""

    def __init__(self, client: AsyncStatehouse) -> None:
        self.client = client

    async def begin(self) -> str:
        return str((await self.client.begin_transaction(local=False)).txn_id)

    async def stage(self, txn_id: str, staged: Staged) -> None:
        # Not through the client's transaction object: a transaction may span namespaces, and its commit be asked again.
        namespace, agent_id = staged.agent
        if staged.value is None:
            delete = pb.DeleteRequest(txn_id=txn_id, namespace=namespace, agent_id=agent_id, key=staged.key)
            await self.client.stub.Delete(delete)
        else:
            write = pb.WriteRequest(
                txn_id=txn_id, namespace=namespace, agent_id=agent_id, key=staged.key, ttl_s=staged.ttl_s
            )
            write.value.SetInParent()  # an empty object is a value
            to_struct(staged.value, write.value)
            await self.client.stub.Write(write)

    async def commit(self, txn_id: str) -> int:
        return int((await self.client.stub.Commit(pb.CommitRequest(txn_id=txn_id))).commit_ts)

    async def abort(self, txn_id: str) -> None:
        await self.client.stub.Abort(pb.AbortRequest(txn_id=txn_id))

    async def get(self, agent: AgentId, key: str) -> StateResult:
        return await self.client.get_state(agent.agent_id, key, agent.namespace)

    async def get_at_version(self, agent: AgentId, key: str, version: int) -> StateResult:
        return await self.client.get_state_at_version(agent.agent_id, key, version, agent.namespace)

    async def scan(self, agent: AgentId, prefix: str) -> dict[str, StateResult]:
        found = await self.client.scan_prefix(agent.agent_id, prefix, agent.namespace)
        return {str(result.key): result for result in found}

    def replay(self, agent: AgentId, first_ts: int = 0, last_ts: int | None = None) -> AsyncIterator[ReplayEvent]:
        return self.client.replay(agent.agent_id, first_ts, last_ts, agent.namespace)

    async def head(self) -> int:
        return (await self.client.head()).commit_ts

    def now_ns(self) -> int:
        return time.time_ns()  # of the machine that the daemon runs on, too


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[DaemonSubject]:
    """A daemon, through a connection that ends with the block."""
    async with AsyncStatehouse(address, timeout_s=CALL_TIMEOUT_S) as client:
        yield DaemonSubject(client)


class EngineSubject:
    """An engine in this process, without an edge."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def begin(self) -> str:
        return await self.engine.begin(None).wait()

    async def stage(self, txn_id: str, staged: Staged) -> None:
        if staged.value is None:
            await self.engine.delete(txn_id, staged.agent, staged.key).wait()
        else:
            value = Struct()
            to_struct(staged.value, value)
            ttl_s = staged.ttl_s or 0
            await self.engine.write(txn_id, staged.agent, staged.key, value.SerializeToString(), ttl_s).wait()

    async def commit(self, txn_id: str) -> int:
        return await self.engine.commit(txn_id).wait()

    async def abort(self, txn_id: str) -> None:
        await self.engine.abort(txn_id).wait()

    async def get(self, agent: AgentId, key: str) -> StateResult:
        try:
            answer = self.engine.get_state(agent, key)
        except ViewAwayError:
            answer = await self.engine.get_state_later(agent, key)
        return state_result(pb.GetStateResponse.FromString(answer))

    async def get_at_version(self, agent: AgentId, key: str, version: int) -> StateResult:
        try:
            answer = self.engine.get_state_at_version(agent, key, version)
        except ViewAwayError:
            answer = await self.engine.get_state_at_version_later(agent, key, version)
        return state_result(pb.GetStateAtVersionResponse.FromString(answer))

    async def scan(self, agent: AgentId, prefix: str) -> dict[str, StateResult]:
        entries = map(pb.StateEntry.FromString, await self.engine.scan_prefix(agent, prefix))
        return {entry.key: entry_result(entry) for entry in entries}

    def replay(self, agent: AgentId, first_ts: int = 0, last_ts: int | None = None) -> AsyncIterator[ReplayEvent]:
        return self._events(ReplayArguments(agent=agent, start_ts=first_ts, end_ts=last_ts))

    async def head(self) -> int:
        await self.engine.drain()
        return self.engine.head_ts

    def now_ns(self) -> int:
        return self.engine.now_ns()

    def watch(self, agent: AgentId, first_ts: int) -> AsyncGenerator[ReplayEvent, None]:
        return self._events(ReplayArguments(agent=agent, start_ts=first_ts, follow=True))

    async def _events(self, arguments: ReplayArguments) -> AsyncGenerator[ReplayEvent, None]:
        async with aclosing(self.engine.replay(arguments)) as chunks:
            async for chunk in chunks:
                for event in chunk:
                    found = replay_event(pb.ReplayEvent.FromString(event), *arguments.agent)
                    yield evolve(found, txn_id=found.metadata.get(NAME, found.txn_id))

    async def get_at(self, agent: AgentId, key: str, at_ts: int) -> StateResult:
        return state_result(pb.GetStateResponse.FromString(await self.engine.get_state_at(agent, key, at_ts)))

    async def batch(self, agent: AgentId, keys: Sequence[str], at_ts: int | None) -> dict[str, StateResult]:
        wanted = [(agent, key.encode()) for key in keys]
        found: list[bytes] | None = None
        if at_ts is None:  # as the edge asks
            with suppress(ViewAwayError):
                found = self.engine.batch_at_hand(wanted)
        if found is None:
            found = await self.engine.batch_get(wanted, at_ts)
        states = map(batch_result, map(pb.BatchGetEntry.FromString, found))
        return {
            key: evolve(state, key=None, agent_id=None, namespace=None)
            for key, state in zip(keys, states, strict=True)
            if (state.namespace, state.agent_id, state.key) == (*agent, key)
        }

    async def transact(self, submission: Submission) -> Repeated:
        name = submission.txn_id.encode()
        operations = tuple((staged.agent, _staged(staged)) for staged in submission.operations)
        checks = tuple(_check(place, checked) for place, checked in enumerate(submission.checks))
        idempotency = Idempotency(name, sha256(name).digest())
        request = TransactArguments(
            operations, checks, {NAME: submission.txn_id}, idempotency, revive=submission.revive
        )
        transacted = await self.engine.transact(request).wait()
        return Repeated(submission.txn_id, transacted.commit_ts, transacted.deduplicated)

    async def lease(self, what: str, agent: AgentId, epoch: int) -> tuple[int, int]:
        if what == "released":
            return epoch, await self.engine.release_lease(agent, epoch).wait()
        reply = (
            self.engine.acquire_lease(agent, "somebody", LEASE_MS)
            if what == "acquired"
            else self.engine.renew_lease(agent, epoch, LEASE_MS)
        )
        row = await reply.wait()
        return row.epoch, row.commit_ts

    async def commit_reviving(self, txn_id: str) -> int:
        return await self.engine.commit(txn_id, revive=True).wait()

    async def fork(self, parent: AgentId, agent: AgentId, at_ts: int | None) -> tuple[int, int, int]:
        forked = await self.engine.fork_agent(parent, agent, at_ts).wait()
        return forked.commit_ts, forked.at_ts, forked.depth

    async def end(self, submission: Submission) -> tuple[int, int]:
        if submission.ends is None:
            raise ValueError(f"{submission.txn_id} ends nobody")
        checks = tuple(_check(place, checked) for place, checked in enumerate(submission.checks))
        ended = await self.engine.delete_agent(submission.ends, checks, {NAME: submission.txn_id}).wait()
        return ended.commit_ts, ended.deleted_keys

    async def lineage(self, agent: AgentId) -> Lineage:
        found = await self.engine.lineage(agent, FORKS_AT_MOST, 0)
        return Lineage(
            tuple(Origin(step.parent, step.at_ts, step.commit_ts) for step in found.ancestors),
            tuple(Origin(child.agent, child.at_ts, child.commit_ts) for child in found.children),
        )

    async def described(self, namespace: str) -> dict[AgentId, Described]:
        described: dict[AgentId, Described] = {}
        after: str | None = None
        while True:
            page = await self.engine.list_agents(namespace, after=after, limit=AGENTS_AT_ONCE)
            for info in map(pb.AgentInfo.FromString, page.found):
                described[AgentId(namespace, info.agent_id)] = described_by(info, namespace)
            if not page.more:
                return described
            after = page.next_after


def described_by(info: pb.AgentInfo, namespace: str) -> Described:
    """One agent of a list."""
    origin = info.forked_from
    return Described(
        info.commits,
        info.operations,
        info.live_keys,
        info.first_commit_ts,
        info.last_commit_ts,
        info.deleted,
        Origin(AgentId(namespace, origin.agent_id), origin.at_ts, origin.commit_ts)
        if info.HasField("forked_from")
        else None,
    )


def _staged(staged: Staged) -> StagedOperation:
    if staged.value is None:
        return StagedOperation(staged.key.encode(), None)
    value = Struct()
    to_struct(staged.value, value)
    return StagedOperation(staged.key.encode(), value.SerializeToString(), staged.ttl_s or 0)


def _check(place: int, checked: Checked) -> Check:
    match checked.of:
        case "version":
            return Check(place, checked.agent, VersionIs(checked.key.encode(), checked.wanted))
        case "exists":
            return Check(place, checked.agent, ExistsIs(checked.key.encode(), bool(checked.wanted)))
        case "event":
            return Check(place, checked.agent, AgentAt(checked.wanted))
    return Check(place, checked.agent, LeaseIs(checked.wanted))
