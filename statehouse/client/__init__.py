"""The clients of a Statehouse daemon; `statehouse` itself offers the same names."""

from statehouse.client.async_client import AsyncStatehouse
from statehouse.client.async_transaction import AsyncTransaction
from statehouse.client.replay import AsyncReplay
from statehouse.client.sync_client import Statehouse, Transaction
from statehouse.client.types import Operation, ReplayEvent, StateResult

__all__ = [
    "AsyncReplay",
    "AsyncStatehouse",
    "AsyncTransaction",
    "Operation",
    "ReplayEvent",
    "StateResult",
    "Statehouse",
    "Transaction",
]
