"""The clients of a Statehouse daemon; `statehouse` itself offers the same names."""

from statehouse.client.async_client import AsyncStatehouse
from statehouse.client.async_lease import AsyncLease
from statehouse.client.async_transaction import AsyncTransaction
from statehouse.client.stream import AsyncStream
from statehouse.client.sync_client import Statehouse
from statehouse.client.sync_transaction import Lease, Transaction
from statehouse.client.types import (
    AgentInfo,
    Bookmark,
    DeletedAgent,
    DiffEntry,
    Forked,
    ForkOrigin,
    HistoryEntry,
    LeaseState,
    Lineage,
    NamespaceInfo,
    Operation,
    Precondition,
    Put,
    Remove,
    ReplayEvent,
    StateResult,
    Transacted,
    UpdateResult,
)

AsyncReplay = AsyncStream
"""What it was called when there were only replays."""

__all__ = [
    "AgentInfo",
    "AsyncLease",
    "AsyncReplay",
    "AsyncStatehouse",
    "AsyncStream",
    "AsyncTransaction",
    "Bookmark",
    "DeletedAgent",
    "DiffEntry",
    "ForkOrigin",
    "Forked",
    "HistoryEntry",
    "Lease",
    "LeaseState",
    "Lineage",
    "NamespaceInfo",
    "Operation",
    "Precondition",
    "Put",
    "Remove",
    "ReplayEvent",
    "StateResult",
    "Statehouse",
    "Transacted",
    "Transaction",
    "UpdateResult",
]
