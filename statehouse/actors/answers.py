"""What whoever asked for a commit is told of it, by what was asked for."""

from collections.abc import Sequence

from statehouse.actors.messages import Committed, EndedAgent, Forked, LeaseRow, StagedOperation, Transacted
from statehouse.errors import InternalError
from statehouse.types import AgentId

__all__ = ["commit_ts", "ended_agent", "forked", "lease_row", "transacted"]


def commit_ts(committed: Committed) -> int:
    """Of a Commit."""
    return committed.commit_ts


def transacted(operations: Sequence[tuple[AgentId, StagedOperation]], committed: Committed) -> Transacted:
    """Of a Transact: its versions in the order in which the operations were given, not agent by agent."""
    sections = committed.sections
    versions: tuple[int, ...]
    if len(sections) == 1:
        versions = tuple([operation.version for operation in sections[0].operations])
    else:
        agents = sorted({agent for agent, _ in operations})
        of = {agent: iter(section.operations) for agent, section in zip(agents, sections, strict=True)}
        versions = tuple([next(of[agent]).version for agent, _ in operations])
    return Transacted(committed.commit_ts, versions, committed.txn_id, committed.deduplicated)


def lease_row(committed: Committed) -> LeaseRow:
    """Of a change of a lease."""
    lease = committed.lease
    if lease is None:
        raise InternalError(f"commit {committed.commit_ts} was to change a lease, and has none")
    return LeaseRow(committed.commit_ts, lease.epoch, lease.holder, lease.expires_at_ns)


def forked(committed: Committed) -> Forked:
    """Of a fork."""
    fork = committed.fork
    if fork is None:
        raise InternalError(f"commit {committed.commit_ts} was to fork an agent, and has no fork")
    return Forked(committed.commit_ts, fork.note.at_ts, fork.depth)


def ended_agent(committed: Committed) -> EndedAgent:
    """Of an agent's end: each of its operations deletes a key that had a value."""
    return EndedAgent(committed.commit_ts, sum(len(section.operations) for section in committed.sections))
