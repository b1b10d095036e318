"""Statehouse: a strongly consistent store for the state of AI agents.

The clients are `Statehouse` and, for Trio and asyncio, `AsyncStatehouse`. They are loaded when first asked
for: the daemon imports this package too, and so does whoever only wants an error class.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from statehouse.errors import (
    ConnectionError,
    DiskFullError,
    ErrorCode,
    InternalError,
    InvalidRequestError,
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
    from statehouse.client.async_transaction import AsyncTransaction
    from statehouse.client.sync_client import Statehouse, Transaction
    from statehouse.client.types import Operation, ReplayEvent, StateResult

    __version__: str

__all__ = [
    "AsyncStatehouse",
    "AsyncTransaction",
    "ConnectionError",
    "DiskFullError",
    "ErrorCode",
    "InternalError",
    "InvalidRequestError",
    "NotFoundError",
    "Operation",
    "OverloadedError",
    "PermissionDeniedError",
    "ReplayEvent",
    "StateResult",
    "Statehouse",
    "StatehouseError",
    "StorageError",
    "StoreDamagedError",
    "Transaction",
    "TransactionError",
    "UnauthenticatedError",
    "__version__",
]

_HOME = {
    "AsyncStatehouse": "statehouse.client.async_client",
    "AsyncTransaction": "statehouse.client.async_transaction",
    "Operation": "statehouse.client.types",
    "ReplayEvent": "statehouse.client.types",
    "StateResult": "statehouse.client.types",
    "Statehouse": "statehouse.client.sync_client",
    "Transaction": "statehouse.client.sync_client",
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
