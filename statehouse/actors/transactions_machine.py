"""The rules of transactions: all that are open, their deadlines, and all on their way live here and nowhere else.

What they stage is counted by `staging`, how they ended is remembered by `recent_ends`. No Trio and no I/O: the time,
the source of ids and the durable memory of commits are passed in.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from attrs import define, field

from statehouse.actors import answers
from statehouse.actors.messages import (
    NO_METADATA,
    Abort,
    AgentEnd,
    Begin,
    ChangeLease,
    Check,
    Commit,
    Committed,
    EndAgent,
    Ended,
    ForkAgent,
    Leg,
    Stage,
    StagedOperation,
    Transact,
    Transaction,
)
from statehouse.actors.recent_ends import End, RecentEnds, already_committed
from statehouse.actors.reply import Reply
from statehouse.actors.staging import Staged, StagingRoom
from statehouse.errors import (
    ErrorCode,
    InvalidRequestError,
    LogPoisonedError,
    OverloadedError,
    StatehouseError,
    TransactionError,
)
from statehouse.limits import COMMITS_IN_FLIGHT, Limits
from statehouse.storage.section import metadata_fields
from statehouse.types import AgentId

__all__ = ["TransactionsMachine", "TransactionsMessage"]

TransactionsMessage = Begin | Stage | Commit | Transact | ChangeLease | ForkAgent | EndAgent | Abort | Ended

COMMIT_AGAIN: Final = "the transaction is still open, commit it again"
TRY_AGAIN: Final = "try again later"
"""What to do when there is no room for a commit."""


@define
class _Open(Staged):
    deadline_s: float = 0.0


@define
class _Committing:
    """A transaction that was taken: who asked first, and who asked since."""

    reply: Reply[Any]
    staged: Staged
    answer: Callable[[Committed], object]
    """What the one who asked first is told of a commit."""
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
        self._room = StagingRoom(limits)
        self._ends = RecentEnds(committed_ts)
        self._open: dict[str, _Open] = {}
        self._committing: dict[str, _Committing] = {}
        self._deadlines: list[tuple[float, str]] = []

    @property
    def committing(self) -> int:
        """Transactions that were taken and have no outcome yet."""
        return len(self._committing)

    @property
    def open(self) -> int:
        """Transactions that may still be written to."""
        return len(self._open)

    def handle(self, message: TransactionsMessage, now: Callable[[], float]) -> Transaction | None:
        """Handle one message. What it may give is a transaction to carry out."""
        match message:
            case Stage():
                self._room.add(self._find_open(message.txn_id, now()), message.agent, message.operation)
                message.reply.succeed(None)
            case Ended():
                self._settle(message)
            case Begin():
                message.reply.succeed(self._begin(message.timeout_ms, now()))
            case Commit():
                return self._take(message, now())
            case Transact():
                return self._transact(message)
            case ChangeLease(agent=agent, request=request, reply=reply):
                return self._at_once(reply, Leg(agent, lease=request), answers.lease_row)
            case ForkAgent(agent=agent, fork_of=fork_of, reply=forked):
                return self._at_once(forked, Leg(agent, exclusive=fork_of), answers.forked)
            case EndAgent():
                return self._end_agent(message)
            case Abort():
                self._abort(message, now())
        return None

    def expire(self, now_s: float) -> int:
        """End every transaction whose deadline has passed, and free its memory; how many those were."""
        expired = 0
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, txn_id = heapq.heappop(self._deadlines)
            if txn_id in self._open:
                self._drop(txn_id, End.EXPIRED)
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
        self._open[txn_id] = _Open(deadline_s=deadline_s)
        heapq.heappush(self._deadlines, (deadline_s, txn_id))
        # Most transactions end long before their deadline: do not let their entries pile up.
        if len(self._deadlines) > 2 * len(self._open) + 1024:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
            heapq.heapify(self._deadlines)
        return txn_id

    def _take(self, message: Commit, now_s: float) -> Transaction | None:
        committing = self._committing.get(message.txn_id)
        if committing is not None:
            committing.commits.append(message.reply)
            return None
        transaction = self._find_open(message.txn_id, now_s)
        self._need_place(COMMIT_AGAIN)
        legs, metadata = _legs(transaction.operations, message.checks), _encoded(message.metadata)
        self._room.ask(transaction, legs, metadata, COMMIT_AGAIN)
        del self._open[message.txn_id]
        self._committing[message.txn_id] = _Committing(message.reply, transaction, answers.commit_ts)
        return Transaction(message.txn_id, legs, metadata, revive=message.revive)

    def _transact(self, message: Transact) -> Transaction:
        arguments = message.arguments
        if arguments.idempotency is not None and not arguments.operations:
            raise InvalidRequestError("an idempotency key is for a request that writes something")
        self._need_place(TRY_AGAIN)
        staged = Staged()
        try:
            for agent, operation in arguments.operations:
                self._room.add(staged, agent, operation)
            legs, metadata = _legs(staged.operations, arguments.checks), _encoded(arguments.metadata)
            self._room.ask(staged, legs, metadata, TRY_AGAIN)
        except StatehouseError:
            self._room.free(staged)
            raise
        txn_id = self._new_id()
        answer = partial(answers.transacted, staged.operations)
        self._committing[txn_id] = _Committing(message.reply, staged, answer)
        return Transaction(txn_id, legs, metadata, arguments.idempotency, revive=arguments.revive)

    def _at_once(
        self,
        reply: Reply[Any],
        leg: Leg,
        answer: Callable[[Committed], object],
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> Transaction:
        """What is asked of one agent in one request, and stages nothing."""
        self._need_place(TRY_AGAIN)
        staged, legs, encoded = Staged(), [leg], _encoded(metadata)
        self._room.ask(staged, legs, encoded, TRY_AGAIN)
        txn_id = self._new_id()
        self._committing[txn_id] = _Committing(reply, staged, answer)
        return Transaction(txn_id, legs, encoded)

    def _end_agent(self, message: EndAgent) -> Transaction:
        leg = Leg(message.agent, checks=message.checks, exclusive=AgentEnd())
        return self._at_once(message.reply, leg, answers.ended_agent, message.metadata)

    def _need_place(self, what_next: str) -> None:
        if len(self._committing) >= COMMITS_IN_FLIGHT:
            raise OverloadedError(
                f"{COMMITS_IN_FLIGHT} commits are in flight; {what_next}", details={"limit": str(COMMITS_IN_FLIGHT)}
            )

    def _settle(self, message: Ended) -> None:
        committing = self._committing.pop(message.txn_id)
        staged = committing.staged
        error = message.outcome.error
        if isinstance(error, OverloadedError) and isinstance(staged, _Open):
            self._reopen(message.txn_id, committing, staged, error)
            message.reply.succeed(None)
            return
        self._room.free(staged)
        if error is None:
            committed = message.outcome.result()
            committing.reply.succeed(committing.answer(committed))
            for late in committing.late:
                late.fail(already_committed(message.txn_id, committed.commit_ts))
        else:
            unknown = isinstance(error, LogPoisonedError) and error.outcome_unknown
            if isinstance(staged, _Open):  # else nobody has its id
                self._ends.remember(message.txn_id, End.UNKNOWN if unknown else End.ABORTED)
            for commit in (committing.reply, *committing.commits):
                commit.fail(error)
            for abort in committing.aborts:
                if unknown:
                    abort.fail(error)
                else:
                    abort.succeed(None)
        message.reply.succeed(None)

    def _reopen(self, txn_id: str, committing: _Committing, transaction: _Open, error: OverloadedError) -> None:
        """Nothing was done for want of room: the transaction may be committed later, unless somebody aborted it."""
        self._room.answered(transaction)
        self._open[txn_id] = transaction
        heapq.heappush(self._deadlines, (transaction.deadline_s, txn_id))
        if committing.aborts:
            self._drop(txn_id, End.ABORTED)
        for commit in (committing.reply, *committing.commits):
            commit.fail(error)
        for abort in committing.aborts:
            abort.succeed(None)

    def _abort(self, message: Abort, now_s: float) -> None:
        self._expire_one(message.txn_id, now_s)
        if message.txn_id in self._open:
            self._drop(message.txn_id, End.ABORTED)
        elif message.txn_id in self._committing:
            self._committing[message.txn_id].aborts.append(message.reply)
            return
        else:
            self._ends.refuse_abort(message.txn_id)
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
            self._drop(txn_id, End.EXPIRED)

    def _why_not_open(self, txn_id: str) -> StatehouseError:
        if txn_id in self._committing:
            return TransactionError(f"transaction {txn_id} is being committed", code=ErrorCode.TXN_ALREADY_COMMITTED)
        return self._ends.why_not_open(txn_id)

    def _drop(self, txn_id: str, end: End) -> None:
        self._room.free(self._open.pop(txn_id))
        self._ends.remember(txn_id, end)


def _legs(operations: Iterable[tuple[AgentId, StagedOperation]], checks: Sequence[Check]) -> list[Leg]:
    """One leg for each agent that is written to or on which a condition rests, sorted by agent."""
    written: dict[AgentId, list[StagedOperation]] = {}
    for agent, operation in operations:
        written.setdefault(agent, []).append(operation)
    if not checks:
        return [Leg(agent, written[agent]) for agent in sorted(written)]
    checked: dict[AgentId, list[Check]] = {}
    for check in checks:
        checked.setdefault(check.agent, []).append(check)
    return [Leg(agent, written.get(agent, ()), checked.get(agent, ())) for agent in sorted({*written, *checked})]


def _encoded(metadata: Mapping[str, str]) -> bytes:
    return metadata_fields(metadata) if metadata else b""
