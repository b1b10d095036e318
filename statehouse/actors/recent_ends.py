"""How transactions ended lately: what somebody is told who comes back to one that is not open.

Those that committed are remembered by the store, durably; the rest here, in memory and bounded.
"""

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum

from statehouse.errors import ErrorCode, LogPoisonedError, StatehouseError, TransactionError
from statehouse.limits import ENDED_TRANSACTIONS

__all__ = ["End", "RecentEnds", "already_committed"]


class End(Enum):
    """How a transaction that did not commit ended."""

    EXPIRED = "expired"
    ABORTED = "aborted"
    UNKNOWN = "outcome unknown"


class RecentEnds:
    """The newest ENDED_TRANSACTIONS ends. `committed_ts(txn_id)` asks the store for one that committed lately."""

    def __init__(self, committed_ts: Callable[[str], int | None]) -> None:
        self._committed_ts = committed_ts
        self._ended: OrderedDict[str, End] = OrderedDict()

    def remember(self, txn_id: str, end: End) -> None:
        """A transaction has ended without a commit that is known of."""
        self._ended[txn_id] = end
        if len(self._ended) > ENDED_TRANSACTIONS:
            self._ended.popitem(last=False)

    def refuse_abort(self, txn_id: str) -> None:
        """Raise why a transaction cannot be aborted any more: it was committed, or may have been."""
        if self._ended.get(txn_id) is End.UNKNOWN:
            raise self.why_not_open(txn_id)
        commit_ts = self._committed_ts(txn_id)
        if commit_ts is not None:
            raise already_committed(txn_id, commit_ts)

    def why_not_open(self, txn_id: str) -> StatehouseError:
        """What to tell somebody who takes the transaction for open."""
        match self._ended.get(txn_id):
            case End.EXPIRED:
                return TransactionError(f"transaction {txn_id} has expired", code=ErrorCode.TXN_EXPIRED)
            case End.ABORTED:
                return TransactionError(f"transaction {txn_id} was aborted", code=ErrorCode.TXN_NOT_FOUND)
            case End.UNKNOWN:
                return LogPoisonedError(
                    f"the outcome of transaction {txn_id} is unknown until the daemon restarts", outcome_unknown=True
                )
        commit_ts = self._committed_ts(txn_id)
        if commit_ts is not None:
            return already_committed(txn_id, commit_ts)
        return TransactionError(f"transaction {txn_id} is not known", code=ErrorCode.TXN_NOT_FOUND)


def already_committed(txn_id: str, commit_ts: int) -> TransactionError:
    """What to tell somebody who comes back to a transaction that was committed."""
    return TransactionError(
        f"transaction {txn_id} was committed at commit_ts {commit_ts}",
        code=ErrorCode.TXN_ALREADY_COMMITTED,
        details={"commit_ts": str(commit_ts)},
    )
