"""What a daemon answers, turned into what the clients hand out."""

import datetime as dt

from google.protobuf.timestamp_pb2 import Timestamp

from statehouse.client.types import (
    AgentInfo,
    Bookmark,
    DeletedAgent,
    DiffEntry,
    Forked,
    ForkOrigin,
    HistoryEntry,
    LeaseState,
    NamespaceInfo,
    Operation,
    ReplayEvent,
    StateResult,
    Transacted,
)
from statehouse.client.values import from_struct
from statehouse.types import DEFAULT_NAMESPACE
from statehouse.v1 import statehouse_pb2 as pb

__all__ = [
    "agent_info",
    "batch_result",
    "deleted_agent",
    "diff_entry",
    "entry_result",
    "fork_origin",
    "forked",
    "history_entry",
    "lease_state",
    "namespace_info",
    "replay_event",
    "state_result",
    "time_of",
    "transacted",
    "watched",
]


def state_result(answer: pb.GetStateResponse | pb.GetStateAtVersionResponse, key: str | None = None) -> StateResult:
    """The answer to a point read."""
    value = from_struct(answer.value) if answer.exists and answer.HasField("value") else None
    return StateResult(value, answer.version, answer.commit_ts, answer.exists, key, expires_at=_expiry(answer))


def entry_result(entry: pb.StateEntry) -> StateResult:
    """One entry of a scan, with its key."""
    value, expires_at = from_struct(entry.value), _expiry(entry)
    return StateResult(value, entry.version, entry.commit_ts, exists=True, key=entry.key, expires_at=expires_at)


def batch_result(entry: pb.BatchGetEntry) -> StateResult:
    """One entry of a batch, with whose it is."""
    value = from_struct(entry.value) if entry.exists and entry.HasField("value") else None
    return StateResult(
        value,
        entry.version,
        entry.commit_ts,
        entry.exists,
        entry.key,
        entry.agent_id,
        entry.namespace,
        _expiry(entry),
    )


def replay_event(event: pb.ReplayEvent, namespace: str, agent_id: str) -> ReplayEvent:
    """One event of the replay of an agent.

    What the daemon says about itself counts; a daemon that sends only the published fields says less.
    """
    operations = tuple(
        Operation(
            each.key,
            from_struct(each.value) if each.HasField("value") else None,
            each.version,
            each.ttl_s or None,
            each.expired,
        )
        for each in event.operations
    )
    return ReplayEvent(
        event.txn_id,
        event.commit_ts,
        operations,
        event.namespace or namespace or DEFAULT_NAMESPACE,
        event.agent_id or agent_id,
        time_of(event.committed_at) if event.HasField("committed_at") else None,
        dict(sorted(event.metadata.items())),  # a map comes in any order; the log has them in this one
    )


def watched(
    event: pb.ReplayEvent, namespace: str, agent_id: str, *, bookmarks: bool
) -> tuple[ReplayEvent | Bookmark, ...]:
    """What the reader of a watch is given for one message of it."""
    if not event.bookmark:
        return (replay_event(event, namespace, agent_id),)
    return (Bookmark(event.commit_ts),) if bookmarks else ()


def history_entry(entry: pb.HistoryEntry) -> HistoryEntry:
    """One version of a key."""
    return HistoryEntry(
        from_struct(entry.value) if entry.exists and entry.HasField("value") else None,
        entry.version,
        entry.commit_ts,
        entry.exists,
        entry.txn_id,
        time_of(entry.committed_at) if entry.HasField("committed_at") else None,
        dict(sorted(entry.metadata.items())),
        _expiry(entry),
        entry.expired,
    )


def diff_entry(entry: pb.DiffEntry) -> DiffEntry:
    """One key that is different."""
    return DiffEntry(entry.key, state_result(entry.before, entry.key), state_result(entry.after, entry.key))


def transacted(answer: pb.TransactResponse) -> Transacted:
    """What a transaction did."""
    return Transacted(answer.commit_ts, tuple(answer.versions), answer.txn_id, answer.deduplicated)


def lease_state(answer: pb.GetLeaseResponse) -> LeaseState | None:
    """The newest lease, if there ever was one."""
    lease = answer.lease
    if not answer.HasField("lease"):
        return None
    return LeaseState(lease.epoch, lease.holder, time_of(lease.expires_at), lease.commit_ts, answer.held)


def agent_info(info: pb.AgentInfo) -> AgentInfo:
    """One agent, in numbers."""
    return AgentInfo(
        info.namespace,
        info.agent_id,
        info.live_keys,
        info.commits,
        info.operations,
        info.first_commit_ts,
        info.last_commit_ts,
        info.deleted,
        fork_origin(info.forked_from) if info.HasField("forked_from") else None,
    )


def forked(answer: pb.ForkAgentResponse) -> Forked:
    """What a fork did."""
    return Forked(answer.commit_ts, answer.at_ts, answer.depth)


def fork_origin(origin: pb.ForkOrigin) -> ForkOrigin:
    """A step between a fork and its parent."""
    return ForkOrigin(origin.agent_id, origin.at_ts, origin.commit_ts)


def deleted_agent(answer: pb.DeleteAgentResponse) -> DeletedAgent:
    """What the end of an agent did."""
    return DeletedAgent(answer.commit_ts, answer.deleted_keys)


def namespace_info(info: pb.NamespaceInfo) -> NamespaceInfo:
    """One namespace, in numbers."""
    return NamespaceInfo(
        info.namespace,
        info.agents,
        info.live_keys,
        info.commits,
        info.operations,
        info.first_commit_ts,
        info.last_commit_ts,
    )


def _expiry(
    told: pb.GetStateResponse | pb.GetStateAtVersionResponse | pb.StateEntry | pb.BatchGetEntry | pb.HistoryEntry,
) -> dt.datetime | None:
    return time_of(told.expires_at) if told.HasField("expires_at") else None


def time_of(time: Timestamp) -> dt.datetime:
    """A time of the daemon, UTC, cut to the microsecond."""
    return time.ToDatetime(dt.UTC)
