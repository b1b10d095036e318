"""What the clients take and hand out: plain, frozen, free of protobuf."""

import datetime as dt
from collections.abc import Mapping
from typing import Literal, Self, TypeAlias, cast

from attrs import field, frozen

from statehouse.types import JsonObject, JsonValue

__all__ = [
    "AgentInfo",
    "Bookmark",
    "DeletedAgent",
    "DiffEntry",
    "ForkOrigin",
    "Forked",
    "HistoryEntry",
    "LeaseState",
    "Lineage",
    "NamespaceInfo",
    "Operation",
    "Precondition",
    "Put",
    "Remove",
    "ReplayEvent",
    "StateResult",
    "Transacted",
    "UpdateResult",
    "utc_text",
]

Condition: TypeAlias = Literal["version", "exists", "agent_commit_ts", "lease_epoch"]


@frozen
class Put:
    """A write of a JSON object, for `transact`. `namespace` None: that of the call.

    With `ttl_s` the value lasts so many whole seconds from its commit, 1 to ten years; None: for good.
    """

    agent_id: str
    key: str
    value: "JsonObject"
    namespace: str | None = None
    ttl_s: int | None = None


@frozen
class Remove:
    """A delete, for `transact`. `namespace` None: that of the call."""

    agent_id: str
    key: str
    namespace: str | None = None


@frozen
class Precondition:
    """What must hold at the moment of a commit, or it is refused (ConflictError). Made by the methods below.

    The agent need not be one that is written to. `namespace` None: that of the call.
    """

    condition: "Condition"
    agent_id: str
    expected: int
    key: str = ""
    namespace: str | None = None

    @classmethod
    def version_is(cls, agent_id: str, key: str, version: int, namespace: str | None = None) -> Self:
        """The key's newest version is this one; 0: it was never written. A delete gives a version, too."""
        return cls("version", agent_id, version, key, namespace)

    @classmethod
    def exists(cls, agent_id: str, key: str, exists: bool = True, namespace: str | None = None) -> Self:  # noqa: FBT001, FBT002  as the others
        """The key has a value; with `exists` False: it has none."""
        return cls("exists", agent_id, exists, key, namespace)

    @classmethod
    def agent_at(cls, agent_id: str, commit_ts: int, namespace: str | None = None) -> Self:
        """The agent's newest event is that of this commit_ts; 0: it has none."""
        return cls("agent_commit_ts", agent_id, commit_ts, namespace=namespace)

    @classmethod
    def lease(cls, agent_id: str, epoch: int, namespace: str | None = None) -> Self:
        """The agent's newest lease has this epoch, and is held: neither expired nor released."""
        return cls("lease_epoch", agent_id, epoch, namespace=namespace)


@frozen
class Transacted:
    """What `transact` did."""

    commit_ts: int
    versions: tuple[int, ...]
    """Of each operation, in their order."""
    txn_id: str
    deduplicated: bool = False
    """An earlier call with the same idempotency key did it; nothing was done now."""


@frozen
class UpdateResult:
    """What `update` wrote: the value (None: it was deleted) and the version that it has."""

    value: "JsonObject | None"
    version: int
    commit_ts: int


@frozen
class StateResult:
    """One key as it stands, or stood at a version or a point.

    A key that was never written has `exists` False, `version` 0 and `commit_ts` 0; a deleted one has
    `exists` False and the version and commit_ts of its deletion. `value` is None for both, and so it is for one
    that has expired and is not deleted yet: that has `exists` False and its own version and commit_ts. `key` is set in
    the results of a scan and of `batch_get`, `agent_id` and `namespace` in those of `batch_get`. `expires_at` is when
    the value expires, UTC, to the microsecond; None for one that does not.
    """

    value: "JsonObject | None"
    version: int
    commit_ts: int
    exists: bool
    key: str | None = None
    agent_id: str | None = None
    namespace: str | None = None
    expires_at: dt.datetime | None = None


@frozen
class Operation:
    """One write, or, with `value` None, one delete; `version` is the version it gave the key.

    `ttl_s` is how many seconds the value lasts from the commit; None: for good, or it is a delete. `expired`: it is a
    delete, and the daemon's own: the value had expired.
    """

    key: str
    value: "JsonObject | None"
    version: int
    ttl_s: int | None = None
    expired: bool = False

    def to_dict(self) -> JsonObject:
        """The operation as a JSON object; `ttl_s` and `expired` only where they say something."""
        operation: JsonObject = {"key": self.key, "value": self.value, "version": self.version}
        if self.ttl_s is not None:
            operation["ttl_s"] = self.ttl_s
        if self.expired:
            operation["expired"] = True
        return operation


@frozen(repr=False)
class ReplayEvent:
    """What one transaction did to one agent, in the order in which it was written.

    `committed_at` is the wall-clock time of the commit, UTC, to the microsecond; None when the daemon does
    not tell. `metadata` is what its writer said of the commit.
    """

    txn_id: str
    commit_ts: int
    operations: tuple[Operation, ...]
    namespace: str
    agent_id: str
    committed_at: dt.datetime | None = None
    metadata: Mapping[str, str] = field(factory=dict, hash=False)

    def to_dict(self) -> JsonObject:
        """The event as a JSON object; `committed_at` in ISO 8601, UTC; `metadata` only if there is any."""
        event: JsonObject = {
            "txn_id": self.txn_id,
            "commit_ts": self.commit_ts,
            "committed_at": utc_text(self.committed_at),
            "namespace": self.namespace,
            "agent_id": self.agent_id,
            "operations": cast("list[JsonValue]", [operation.to_dict() for operation in self.operations]),
        }
        if self.metadata:
            event["metadata"] = dict(self.metadata)
        return event

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{'WRITE' if operation.value is not None else 'DEL'} {operation.key!r} v{operation.version}"
            for operation in self.operations[:4]
        )
        more = f", and {len(self.operations) - 4} more" if len(self.operations) > 4 else ""
        return (
            f"ReplayEvent(commit_ts={self.commit_ts}, agent_id={self.agent_id!r}, namespace={self.namespace!r}, "
            f"txn_id={self.txn_id!r}, operations=[{shown}{more}])"
        )


@frozen
class Bookmark:
    """Among the events of a watch that asked for them: everything that there was up to `commit_ts` has been given.

    A later watch may go on from `commit_ts + 1`; that of one agent only once an event of it has come, ever: before
    that, it may come to be as a fork, with events that are older than the bookmark, so begin where the first one began.
    """

    commit_ts: int


@frozen
class HistoryEntry:
    """One version of a key, and the commit that gave it. `exists` False, and `value` None: it was deleted.

    `expires_at` is when the value expires, or did, UTC, to the microsecond; None for one that does not. `expired`: it
    is a delete, and the daemon's own: the value had expired.
    """

    value: "JsonObject | None"
    version: int
    commit_ts: int
    exists: bool
    txn_id: str
    committed_at: dt.datetime | None = None
    metadata: Mapping[str, str] = field(factory=dict, hash=False)
    expires_at: dt.datetime | None = None
    expired: bool = False

    def to_dict(self) -> JsonObject:
        """The version as a JSON object; times in ISO 8601, UTC; the last three fields only where they say something."""
        entry: JsonObject = {
            "value": self.value,
            "version": self.version,
            "commit_ts": self.commit_ts,
            "committed_at": utc_text(self.committed_at),
            "exists": self.exists,
            "txn_id": self.txn_id,
        }
        if self.metadata:
            entry["metadata"] = dict(self.metadata)
        if self.expires_at is not None:
            entry["expires_at"] = utc_text(self.expires_at)
        if self.expired:
            entry["expired"] = True
        return entry


@frozen
class DiffEntry:
    """A key that was written or deleted between two points, as it was at either."""

    key: str
    before: StateResult
    after: StateResult


@frozen
class LeaseState:
    """The newest lease on an agent. `held`: it was neither expired nor released when this was asked."""

    epoch: int
    holder: str
    expires_at: dt.datetime
    commit_ts: int
    """Of its acquisition or last renewal."""
    held: bool


@frozen
class Forked:
    """What `fork` did."""

    commit_ts: int
    """Of the fork itself, which no agent's events show."""
    at_ts: int
    """The point of the parent that it branched off at."""
    depth: int
    """How many forks lie between it and an agent that is none: 1 for the fork of such a one."""


@frozen
class ForkOrigin:
    """A step between a fork and its parent, in the same namespace."""

    agent_id: str
    """The parent's; among the forks of an agent, the fork's. Empty when the token does not let it be read."""
    at_ts: int
    """The point of the parent that the fork branched off at."""
    commit_ts: int
    """Of the fork itself."""


@frozen
class Lineage:
    """Where an agent comes from, and what comes from it."""

    ancestors: tuple[ForkOrigin, ...]
    """From its parent on to an agent that is no fork; empty for such a one."""
    forks: tuple[ForkOrigin, ...]
    """What was forked from it, newest first."""


@frozen
class DeletedAgent:
    """What `delete_agent` did."""

    commit_ts: int
    """Of the agent's end; it may have been there before."""
    deleted_keys: int
    """Keys that had a value until now."""


@frozen
class AgentInfo:
    """One agent, in numbers; all counts are over its whole life but `live_keys`: the keys that have a value.

    Those of a fork include what it inherited.
    """

    namespace: str
    agent_id: str
    live_keys: int
    commits: int
    operations: int
    first_commit_ts: int
    last_commit_ts: int
    deleted: bool = False
    """It was deleted, and nothing was written to it since."""
    forked_from: ForkOrigin | None = None


@frozen
class NamespaceInfo:
    """The sums over the agents of a namespace."""

    namespace: str
    agents: int
    live_keys: int
    commits: int
    operations: int
    first_commit_ts: int
    last_commit_ts: int


def utc_text(time: dt.datetime | None) -> str | None:
    """A time in ISO 8601, UTC, to the microsecond: `2030-01-02T03:04:05.678901Z`."""
    if time is None:
        return None
    return time.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
