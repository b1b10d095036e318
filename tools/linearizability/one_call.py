"""What one call does, over a connection: transactions with conditions and a name, batches, leases, states at a commit.

A transaction that is sent in one call has a name of the client's own: its idempotency key, and, in its metadata, the
mark by which its events are known when no answer came. Replays show that name in place of the daemon's id.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from attrs import evolve
from histories.lineages import Described, Lineage, Origin
from histories.subject import CALL_TIMEOUT_S, LEASE_MS, NAME, DaemonSubject
from histories.submissions import Checked, Repeated, Submission

from statehouse import AsyncStatehouse, ForkOrigin, Precondition, Put, Remove, ReplayEvent, StateResult
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["OneCallSubject", "batch_read", "connected", "named", "precondition_of"]

HOLDER: Final = "somebody"


class OneCallSubject(DaemonSubject):
    """A daemon, asked for all that one call can do; as `Transacting` has it."""

    async def transact(self, submission: Submission) -> Repeated:
        operations = [
            Remove(staged.agent.agent_id, staged.key, staged.agent.namespace)
            if staged.value is None
            else Put(staged.agent.agent_id, staged.key, staged.value, staged.agent.namespace, staged.ttl_s)
            for staged in submission.operations
        ]
        answer = await self.client.transact(
            operations,
            preconditions=[precondition_of(checked) for checked in submission.checks],
            idempotency_key=submission.txn_id,
            metadata={NAME: submission.txn_id},
            revive=submission.revive,
        )
        return Repeated(submission.txn_id, answer.commit_ts, answer.deduplicated)

    async def get_at(self, agent: AgentId, key: str, at_ts: int) -> StateResult:
        return await self.client.get_state(agent.agent_id, key, agent.namespace, at_ts=at_ts)

    async def replay(self, agent: AgentId, first_ts: int = 0, last_ts: int | None = None) -> AsyncIterator[ReplayEvent]:
        async for event in self.client.replay(agent.agent_id, first_ts, last_ts, agent.namespace):
            yield named(event)

    async def watch(self, agent: AgentId, first_ts: int) -> AsyncIterator[ReplayEvent]:
        async for event in self.client.watch(agent.agent_id, first_ts, namespace=agent.namespace):
            yield named(event)

    async def lease(self, what: str, agent: AgentId, epoch: int) -> tuple[int, int]:
        names = {"namespace": agent.namespace, "agent_id": agent.agent_id}
        if what == "released":
            released = await self.client.stub.ReleaseLease(pb.ReleaseLeaseRequest(**names, epoch=epoch))
            return epoch, released.commit_ts
        if what != "acquired":
            raise ValueError(f"a lease that is {what}: the client sends a renewal again by itself")
        lease = await self.client.stub.AcquireLease(pb.AcquireLeaseRequest(**names, holder=HOLDER, ttl_ms=LEASE_MS))
        return lease.epoch, lease.commit_ts

    async def commit_reviving(self, txn_id: str) -> int:
        return int((await self.client.stub.Commit(pb.CommitRequest(txn_id=txn_id, revive=True))).commit_ts)

    async def fork(self, parent: AgentId, agent: AgentId, at_ts: int | None) -> tuple[int, int, int]:
        forked = await self.client.fork(parent.agent_id, agent.agent_id, at_ts=at_ts, namespace=parent.namespace)
        return forked.commit_ts, forked.at_ts, forked.depth

    async def end(self, submission: Submission) -> tuple[int, int]:
        if submission.ends is None:
            raise ValueError(f"{submission.txn_id} ends nobody")
        ended = await self.client.delete_agent(
            submission.ends.agent_id,
            preconditions=[precondition_of(checked) for checked in submission.checks],
            metadata={NAME: submission.txn_id},
            namespace=submission.ends.namespace,
        )
        return ended.commit_ts, ended.deleted_keys

    async def lineage(self, agent: AgentId) -> Lineage:
        found = await self.client.lineage(agent.agent_id, namespace=agent.namespace)
        return Lineage(
            tuple(_origin(each, agent.namespace) for each in found.ancestors),
            tuple(_origin(each, agent.namespace) for each in found.forks),
        )

    async def described(self, namespace: str) -> dict[AgentId, Described]:
        return {
            AgentId(namespace, info.agent_id): Described(
                info.commits,
                info.operations,
                info.live_keys,
                info.first_commit_ts,
                info.last_commit_ts,
                info.deleted,
                None if info.forked_from is None else _origin(info.forked_from, namespace),
            )
            async for info in self.client.list_agents(namespace=namespace)
        }


def _origin(origin: ForkOrigin, namespace: str) -> Origin:
    return Origin(AgentId(namespace, origin.agent_id), origin.at_ts, origin.commit_ts)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[OneCallSubject]:
    """A daemon, through a connection that ends with the block."""
    async with AsyncStatehouse(address, timeout_s=CALL_TIMEOUT_S) as client:
        yield OneCallSubject(client)


async def batch_read(
    client: AsyncStatehouse, places: Sequence[tuple[AgentId, str]], at_ts: int | None = None
) -> Mapping[tuple[AgentId, str], StateResult]:
    """Keys of any agents, as they all stood at one moment. ValueError for an answer to another question."""
    asked = [(agent.agent_id, key, agent.namespace) for agent, key in places]
    found = await client.batch_get(asked, at_ts=at_ts)
    answered = [(state.agent_id, state.key, state.namespace) for state in found]
    if answered != asked:
        raise ValueError(f"a batch of {asked} was answered with {answered}")
    return {
        place: evolve(state, key=None, agent_id=None, namespace=None)
        for place, state in zip(places, found, strict=True)
    }


def named(event: ReplayEvent) -> ReplayEvent:
    """An event under the name of its transaction."""
    name = event.metadata.get(NAME)
    return event if name is None else evolve(event, txn_id=name)


def precondition_of(checked: Checked) -> Precondition:
    """What the client library takes for it."""
    namespace, agent_id = checked.agent
    match checked.of:
        case "version":
            return Precondition.version_is(agent_id, checked.key, checked.wanted, namespace)
        case "exists":
            return Precondition.exists(agent_id, checked.key, bool(checked.wanted), namespace)
        case "event":
            return Precondition.agent_at(agent_id, checked.wanted, namespace)
    return Precondition.lease(agent_id, checked.wanted, namespace)
