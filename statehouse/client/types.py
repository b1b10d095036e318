"""What the clients hand out: plain, frozen, free of protobuf."""

import datetime as dt
from typing import cast

from attrs import frozen

from statehouse.types import JsonObject, JsonValue

__all__ = ["Operation", "ReplayEvent", "StateResult"]


@frozen
class StateResult:
    """One key as it stands, or stood at a version.

    A key that was never written has `exists` False, `version` 0 and `commit_ts` 0; a deleted one has
    `exists` False and the version and commit_ts of its deletion. `value` is None for both. `key` is set in
    the results of a scan.
    """

    value: "JsonObject | None"
    version: int
    commit_ts: int
    exists: bool
    key: str | None = None


@frozen
class Operation:
    """One write, or, with `value` None, one delete; `version` is the version it gave the key."""

    key: str
    value: "JsonObject | None"
    version: int

    def to_dict(self) -> JsonObject:
        """The operation as a JSON object."""
        return {"key": self.key, "value": self.value, "version": self.version}


@frozen(repr=False)
class ReplayEvent:
    """What one transaction did to one agent, in the order in which it was written.

    `committed_at` is the wall-clock time of the commit, UTC, to the microsecond; None when the daemon does
    not tell.
    """

    txn_id: str
    commit_ts: int
    operations: tuple[Operation, ...]
    namespace: str
    agent_id: str
    committed_at: dt.datetime | None = None

    def to_dict(self) -> JsonObject:
        """The event as a JSON object; `committed_at` in ISO 8601, UTC."""
        committed_at = None
        if self.committed_at is not None:
            utc = self.committed_at.astimezone(dt.UTC).isoformat(timespec="microseconds")
            committed_at = utc.replace("+00:00", "Z")
        return {
            "txn_id": self.txn_id,
            "commit_ts": self.commit_ts,
            "committed_at": committed_at,
            "namespace": self.namespace,
            "agent_id": self.agent_id,
            "operations": cast("list[JsonValue]", [operation.to_dict() for operation in self.operations]),
        }

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
