"""Statehouse: a strongly consistent store for the state of AI agents.

The clients are `Statehouse` and, for Trio and asyncio, `AsyncStatehouse`. They are loaded when first asked
for: the daemon imports this package too, and so does whoever only wants an error class.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from statehouse.errors import (
    AgentDeletedError,
    AgentExistsError,
    ConflictError,
    ConnectionError,
    DiskFullError,
    ErrorCode,
    FailedPrecondition,
    InternalError,
    InvalidRequestError,
    LeaseError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    StatehouseError,
    StorageError,
    StoreDamagedError,
    TransactionError,
    UnauthenticatedError,
)

if TYPE_CHECKING:
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
    from statehouse.findings import Head, VerifyEvent, VerifyFinding, VerifyProgress, VerifyVerdict

    __version__: str

__all__ = [
    "AgentDeletedError",
    "AgentExistsError",
    "AgentInfo",
    "AsyncLease",
    "AsyncStatehouse",
    "AsyncStream",
    "AsyncTransaction",
    "Bookmark",
    "ConflictError",
    "ConnectionError",
    "DeletedAgent",
    "DiffEntry",
    "DiskFullError",
    "ErrorCode",
    "FailedPrecondition",
    "ForkOrigin",
    "Forked",
    "Head",
    "HistoryEntry",
    "InternalError",
    "InvalidRequestError",
    "Lease",
    "LeaseError",
    "LeaseState",
    "Lineage",
    "NamespaceInfo",
    "NotFoundError",
    "Operation",
    "OverloadedError",
    "PermissionDeniedError",
    "Precondition",
    "Put",
    "Remove",
    "ReplayEvent",
    "StateResult",
    "Statehouse",
    "StatehouseError",
    "StorageError",
    "StoreDamagedError",
    "Transacted",
    "Transaction",
    "TransactionError",
    "UnauthenticatedError",
    "UpdateResult",
    "VerifyEvent",
    "VerifyFinding",
    "VerifyProgress",
    "VerifyVerdict",
    "__version__",
]

_HOME = {
    "AgentInfo": "statehouse.client.types",
    "AsyncLease": "statehouse.client.async_lease",
    "AsyncStatehouse": "statehouse.client.async_client",
    "AsyncStream": "statehouse.client.stream",
    "AsyncTransaction": "statehouse.client.async_transaction",
    "Bookmark": "statehouse.client.types",
    "DeletedAgent": "statehouse.client.types",
    "DiffEntry": "statehouse.client.types",
    "ForkOrigin": "statehouse.client.types",
    "Forked": "statehouse.client.types",
    "Head": "statehouse.findings",
    "HistoryEntry": "statehouse.client.types",
    "Lease": "statehouse.client.sync_transaction",
    "LeaseState": "statehouse.client.types",
    "Lineage": "statehouse.client.types",
    "NamespaceInfo": "statehouse.client.types",
    "Operation": "statehouse.client.types",
    "Precondition": "statehouse.client.types",
    "Put": "statehouse.client.types",
    "Remove": "statehouse.client.types",
    "ReplayEvent": "statehouse.client.types",
    "StateResult": "statehouse.client.types",
    "Statehouse": "statehouse.client.sync_client",
    "Transacted": "statehouse.client.types",
    "Transaction": "statehouse.client.sync_transaction",
    "UpdateResult": "statehouse.client.types",
    "VerifyEvent": "statehouse.findings",
    "VerifyFinding": "statehouse.findings",
    "VerifyProgress": "statehouse.findings",
    "VerifyVerdict": "statehouse.findings",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: object = import_module("statehouse.version").VERSION
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
