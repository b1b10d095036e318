"""The rules of transactions: all that are open, their deadlines and recent ends live here and nowhere else.

No Trio and no I/O: the time, the source of ids and the durable memory of commits are passed in.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Any

from attrs import define, field

from statehouse.actors.messages import Abort, Begin, Commit, Ended, Leg, Stage, StagedOperation, Transaction
from statehouse.actors.reply import Reply
from statehouse.errors import (
    ErrorCode,
    InvalidRequestError,
    LogPoisonedError,
    OverloadedError,
    StatehouseError,
    TransactionError,
)
from statehouse.limits import COMMITS_IN_FLIGHT, ENDED_TRANSACTIONS, Limits
from statehouse.types import AgentId

__all__ = ["TransactionsMachine", "TransactionsMessage"]

TransactionsMessage = Begin | Stage | Commit | Abort | Ended

OPERATION_OVERHEAD_BYTES = 256
"""About what a staged operation costs in memory beyond its names and value, so that empty ones are counted too."""


class _End(Enum):
    """How a transaction that did not commit ended. Commits are remembered by the store."""

    EXPIRED = "expired"
    ABORTED = "aborted"
    UNKNOWN = "outcome unknown"


@define
class _Open:
    deadline_s: float
    operations: list[tuple[AgentId, StagedOperation]] = field(factory=list)
    size_bytes: int = 0
    """Of keys and values: what the limit of one transaction counts."""
    staged_bytes: int = 0
    """In memory: what the limit of all together counts."""


@define
class _Committing:
    """A transaction that was taken: who asked first, and who asked since."""

    reply: Reply[int]
    transaction: _Open
    commits: list[Reply[int]] = field(factory=list)
    aborts: list[Reply[None]] = field(factory=list)

    @property
    def late(self) -> list[Reply[Any]]:
        """What is owed to those who asked since."""
        return [*self.commits, *self.aborts]


class TransactionsMachine:
    """Begin, stage, take, abort, expire. Every method is one turn; `now` reads any monotonic clock, in seconds.

    `committed_ts(txn_id)` asks the store for the commit_ts of a transaction that committed lately.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        default_timeout_ms: int,
        new_id: Callable[[], str],
        committed_ts: Callable[[str], int | None],
    ) -> None:
        self._limits = limits
        self._default_timeout_ms = default_timeout_ms
        self._new_id = new_id
        self._committed_ts = committed_ts
        self._open: dict[str, _Open] = {}
        self._committing: dict[str, _Committing] = {}
        self._ended: OrderedDict[str, _End] = OrderedDict()
        self._deadlines: list[tuple[float, str]] = []
        self._staged_bytes = 0

    @property
    def committing(self) -> int:
        """Transactions that were taken and have no outcome yet."""
        return len(self._committing)

    @property
    def open(self) -> int:
        """Transactions that may still be written to."""
        return len(self._open)

    def handle(self, message: TransactionsMessage, now: Callable[[], float]) -> Transaction | None:
        """Handle one message. The effect of a `Commit` is the transaction to carry out."""
        match message:
            case Stage():
                self._stage(message, now())
            case Ended():
                self._settle(message)
            case Begin():
                message.reply.succeed(self._begin(message.timeout_ms, now()))
            case Commit():
                return self._take(message, now())
            case Abort():
                self._abort(message, now())
        return None

    def expire(self, now_s: float) -> int:
        """End every transaction whose deadline has passed, and free its memory; how many those were."""
        expired = 0
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, txn_id = heapq.heappop(self._deadlines)
            if txn_id in self._open:
                self._drop(txn_id, _End.EXPIRED)
                expired += 1
        return expired

    def close(self, error: StatehouseError) -> None:
        """Fail every reply that is owed."""
        for committing in self._committing.values():
            for reply in (committing.reply, *committing.late):
                reply.fail(error)
        self._committing.clear()
        self._open.clear()

    def _begin(self, timeout_ms: int | None, now_s: float) -> str:
        limits = self._limits
        timeout_ms = self._default_timeout_ms if timeout_ms is None else timeout_ms
        if not 0 < timeout_ms <= limits.timeout_ms:
            raise InvalidRequestError(
                f"timeout_ms is {timeout_ms}; it must be from 1 to {limits.timeout_ms}",
                details={"limit": str(limits.timeout_ms), "size": str(timeout_ms)},
            )
        if len(self._open) >= limits.open_transactions:
            self.expire(now_s)
        if len(self._open) >= limits.open_transactions:
            raise OverloadedError(
                f"{len(self._open)} transactions are open, the limit is {limits.open_transactions}",
                details={"limit": str(limits.open_transactions), "size": str(len(self._open))},
            )
        txn_id = self._new_id()
        deadline_s = now_s + timeout_ms / 1000
        self._open[txn_id] = _Open(deadline_s)
        heapq.heappush(self._deadlines, (deadline_s, txn_id))
        # Most transactions end long before their deadline: do not let their entries pile up.
        if len(self._deadlines) > 2 * len(self._open) + 1024:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
            heapq.heapify(self._deadlines)
        return txn_id

    def _stage(self, message: Stage, now_s: float) -> None:
        transaction = self._find_open(message.txn_id, now_s)
        limits, operation = self._limits, message.operation
        if len(transaction.operations) >= limits.transaction_operations:
            raise InvalidRequestError(
                f"the transaction would have {len(transaction.operations) + 1} operations, "
                f"the limit is {limits.transaction_operations}",
                details={
                    "limit": str(limits.transaction_operations),
                    "size": str(len(transaction.operations) + 1),
                },
            )
        size_bytes = len(operation.key) + len(operation.value or b"")
        if transaction.size_bytes + size_bytes > limits.transaction_bytes:
            raise InvalidRequestError(
                f"the transaction would have {transaction.size_bytes + size_bytes} bytes, "
                f"the limit is {limits.transaction_bytes}",
                details={
                    "limit": str(limits.transaction_bytes),
                    "size": str(transaction.size_bytes + size_bytes),
                },
            )
        namespace, agent_id = message.agent
        staged_bytes = size_bytes + len(namespace) + len(agent_id) + OPERATION_OVERHEAD_BYTES
        if self._staged_bytes + staged_bytes > limits.staged_bytes:
            raise OverloadedError(
                f"all open transactions together hold {self._staged_bytes} bytes, the limit is {limits.staged_bytes}",
                details={"limit": str(limits.staged_bytes), "size": str(self._staged_bytes + staged_bytes)},
            )
        transaction.operations.append((message.agent, operation))
        transaction.size_bytes += size_bytes
        transaction.staged_bytes += staged_bytes
        self._staged_bytes += staged_bytes
        message.reply.succeed(None)

    def _take(self, message: Commit, now_s: float) -> Transaction | None:
        committing = self._committing.get(message.txn_id)
        if committing is not None:
            committing.commits.append(message.reply)
            return None
        transaction = self._find_open(message.txn_id, now_s)
        if len(self._committing) >= COMMITS_IN_FLIGHT:
            raise OverloadedError(
                f"{COMMITS_IN_FLIGHT} commits are in flight; the transaction is still open, commit it again",
                details={"limit": str(COMMITS_IN_FLIGHT)},
            )
        del self._open[message.txn_id]
        self._committing[message.txn_id] = _Committing(message.reply, transaction)
        legs: dict[AgentId, list[StagedOperation]] = {}
        for agent, operation in transaction.operations:
            legs.setdefault(agent, []).append(operation)
        return Transaction(message.txn_id, [Leg(agent, legs[agent]) for agent in sorted(legs)])

    def _settle(self, message: Ended) -> None:
        committing = self._committing.pop(message.txn_id)
        error = message.outcome.error
        if isinstance(error, OverloadedError):
            self._reopen(message.txn_id, committing, error)
            message.reply.succeed(None)
            return
        self._staged_bytes -= committing.transaction.staged_bytes
        if error is None:
            commit_ts = message.outcome.result()
            committing.reply.succeed(commit_ts)
            for late in committing.late:
                late.fail(_already_committed(message.txn_id, commit_ts))
        else:
            unknown = isinstance(error, LogPoisonedError) and error.outcome_unknown
            self._remember(message.txn_id, _End.UNKNOWN if unknown else _End.ABORTED)
            for commit in (committing.reply, *committing.commits):
                commit.fail(error)
            for abort in committing.aborts:
                if unknown:
                    abort.fail(error)
                else:
                    abort.succeed(None)
        message.reply.succeed(None)

    def _reopen(self, txn_id: str, committing: _Committing, error: OverloadedError) -> None:
        """Nothing was done for want of room: the transaction may be committed later, unless somebody aborted it."""
        self._open[txn_id] = committing.transaction
        heapq.heappush(self._deadlines, (committing.transaction.deadline_s, txn_id))
        if committing.aborts:
            self._drop(txn_id, _End.ABORTED)
        for commit in (committing.reply, *committing.commits):
            commit.fail(error)
        for abort in committing.aborts:
            abort.succeed(None)

    def _abort(self, message: Abort, now_s: float) -> None:
        self._expire_one(message.txn_id, now_s)
        if message.txn_id in self._open:
            self._drop(message.txn_id, _End.ABORTED)
        elif message.txn_id in self._committing:
            self._committing[message.txn_id].aborts.append(message.reply)
            return
        elif self._ended.get(message.txn_id) is _End.UNKNOWN:
            raise self._why_not_open(message.txn_id)
        elif (commit_ts := self._committed_ts(message.txn_id)) is not None:
            raise _already_committed(message.txn_id, commit_ts)
        message.reply.succeed(None)

    def _find_open(self, txn_id: str, now_s: float) -> _Open:
        transaction = self._open.get(txn_id)
        if transaction is not None and transaction.deadline_s > now_s:
            return transaction
        self._expire_one(txn_id, now_s)
        raise self._why_not_open(txn_id)

    def _expire_one(self, txn_id: str, now_s: float) -> None:
        transaction = self._open.get(txn_id)
        if transaction is not None and transaction.deadline_s <= now_s:
            self._drop(txn_id, _End.EXPIRED)

    def _why_not_open(self, txn_id: str) -> StatehouseError:
        if txn_id in self._committing:
            return TransactionError(f"transaction {txn_id} is being committed", code=ErrorCode.TXN_ALREADY_COMMITTED)
        match self._ended.get(txn_id):
            case _End.EXPIRED:
                return TransactionError(f"transaction {txn_id} has expired", code=ErrorCode.TXN_EXPIRED)
            case _End.ABORTED:
                return TransactionError(f"transaction {txn_id} was aborted", code=ErrorCode.TXN_NOT_FOUND)
            case _End.UNKNOWN:
                return LogPoisonedError(
                    f"the outcome of transaction {txn_id} is unknown until the daemon restarts", outcome_unknown=True
                )
        commit_ts = self._committed_ts(txn_id)
        if commit_ts is not None:
            return _already_committed(txn_id, commit_ts)
        return TransactionError(f"transaction {txn_id} is not known", code=ErrorCode.TXN_NOT_FOUND)

    def _drop(self, txn_id: str, end: _End) -> None:
        self._staged_bytes -= self._open.pop(txn_id).staged_bytes
        self._remember(txn_id, end)

    def _remember(self, txn_id: str, end: _End) -> None:
        self._ended[txn_id] = end
        if len(self._ended) > ENDED_TRANSACTIONS:
            self._ended.popitem(last=False)


def _already_committed(txn_id: str, commit_ts: int) -> TransactionError:
    return TransactionError(
        f"transaction {txn_id} was committed at commit_ts {commit_ts}",
        code=ErrorCode.TXN_ALREADY_COMMITTED,
        details={"commit_ts": str(commit_ts)},
    )
