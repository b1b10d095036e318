"""The engine's writes: each is one message to Transactions, and a reply that is settled once it is durable, or refused.

A method that gives a `Reply` never blocks; cancelling the wait for it does not undo what was asked.
"""

from collections.abc import Mapping, Sequence

from statehouse.actors.messages import (
    NO_METADATA,
    AcquireLease,
    Check,
    EndedAgent,
    Forked,
    ForkOf,
    LeaseRow,
    RenewLease,
    TransactArguments,
    Transacted,
)
from statehouse.actors.reply import Reply
from statehouse.actors.transactions import Transactions
from statehouse.types import AgentId

__all__ = ["Writes"]


class Writes:
    """What can be asked to be changed; the engine is one of these."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def begin(self, timeout_ms: int | None) -> Reply[str]:
        """Open a transaction; its id. InvalidRequestError, OverloadedError."""
        return self._transactions.begin(timeout_ms)

    def write(self, txn_id: str, agent: AgentId, key: str, value: bytes, ttl_s: int = 0) -> Reply[None]:
        """Stage a write of a serialized Struct. TransactionError, InvalidRequestError, OverloadedError.

        `ttl_s` is how many seconds it lasts from its commit, at most TTL_MOST_S; 0: for good.
        """
        return self._transactions.stage(txn_id, agent, key.encode(), value, ttl_s)

    def delete(self, txn_id: str, agent: AgentId, key: str) -> Reply[None]:
        """Stage a delete. TransactionError, InvalidRequestError, OverloadedError."""
        return self._transactions.stage(txn_id, agent, key.encode(), None)

    def transact(self, arguments: TransactArguments) -> Reply[Transacted]:
        """Begin, stage and commit in one. As `commit`, and InvalidRequestError.

        With an idempotency key: a repeated request gives the first answer again, and another request with the same key
        is an InvalidRequestError (IDEMPOTENCY_KEY_REUSED). It waits while one with its key is under way.
        """
        return self._transactions.transact(arguments)

    def commit(
        self,
        txn_id: str,
        checks: Sequence[Check] = (),
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        revive: bool = False,
    ) -> Reply[int]:
        """Commit; the commit_ts once it is durable and visible.

        ConflictError with every check that did not hold, and AgentDeletedError for a write to an agent that was
        deleted, unless there is a check on that agent, or `revive`; then the transaction is over. TransactionError,
        OverloadedError, and: DiskFullError, StorageError (nothing happened), LogPoisonedError (the log takes no
        commits; for a commit that was under way the outcome is unknown).
        """
        return self._transactions.commit(txn_id, checks, metadata, revive=revive)

    def acquire_lease(self, agent: AgentId, holder: str, ttl_ms: int) -> Reply[LeaseRow]:
        """A new lease, its epoch one above the newest. LeaseError while that is held; and as `commit`."""
        return self._transactions.change_lease(agent, AcquireLease(holder, ttl_ms))

    def renew_lease(self, agent: AgentId, epoch: int, ttl_ms: int) -> Reply[LeaseRow]:
        """Have the lease last `ttl_ms` from now. LeaseError when it is not the newest, or not held; and as `commit`."""
        return self._transactions.change_lease(agent, RenewLease(epoch, ttl_ms))

    def release_lease(self, agent: AgentId, epoch: int) -> Reply[int]:
        """End the lease; the commit_ts of that. As `renew_lease`."""
        return self._transactions.release_lease(agent, epoch)

    def fork_agent(self, parent: AgentId, new_agent: AgentId, at_ts: int | None) -> Reply[Forked]:
        """Have a new agent begin with all that `parent`, of its namespace, had at a commit, or has now.

        AgentExistsError; NotFoundError when the parent was never written to; InvalidRequestError when it had not been
        at that commit, or is itself FORK_DEPTH forks deep; and as `commit`.
        """
        return self._transactions.fork_agent(new_agent, ForkOf(parent, at_ts))

    def delete_agent(
        self, agent: AgentId, checks: Sequence[Check] = (), metadata: Mapping[str, str] = NO_METADATA
    ) -> Reply[EndedAgent]:
        """Delete every key of the agent in one commit; one that was deleted before is not deleted again.

        `checks` must be on it. ConflictError; NotFoundError when it was never written to; InvalidRequestError when
        it has more than DELETED_KEYS; and as `commit`.
        """
        return self._transactions.end_agent(agent, checks, metadata)

    def abort(self, txn_id: str) -> Reply[None]:
        """Forget a transaction; unknown and aborted ids succeed. TransactionError when it was committed."""
        return self._transactions.abort(txn_id)
