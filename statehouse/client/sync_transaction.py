"""A transaction and a lease, as the sync client hands them out."""

import datetime as dt
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from statehouse.client.async_lease import AsyncLease
from statehouse.client.async_transaction import AsyncTransaction
from statehouse.client.commit_parts import preconditions_given
from statehouse.client.loop_thread import LoopThread
from statehouse.client.sync_calls import as_in
from statehouse.client.types import Precondition
from statehouse.types import JsonObject

__all__ = ["Lease", "Transaction", "at_once"]

T = TypeVar("T")


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """The result of a call that never waits, and so needs no loop."""
    try:
        call.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    call.close()
    raise RuntimeError("it waits")


class Transaction:
    """Writes and deletes that become visible together, by `commit`. Made by `begin_transaction`.

    As a context manager it commits when its block ends, unless it was committed or aborted in it, and aborts
    when the block raises. That abort does not hide the exception and waits at most two seconds.

    When the answer to a commit is lost (ConnectionError), the transaction may have been committed or not.
    `commit` may then be called again, on this object, also after the daemon was restarted: it returns the
    commit_ts if the first commit did happen, or commits now if the transaction is still open, or raises
    TransactionError if it was not committed and never will be. It never commits twice.

    A local one, which is what `begin_transaction` makes unless asked otherwise, keeps what is staged here, without a
    call and without waiting. Then a write refuses what is no JSON value, and everything after the transaction's time
    is over; names and sizes that the daemon does not take are told by `commit`. Only the first `commit` can be too
    late: one that is asked again is sent again as it was, under its idempotency key, for which the daemon gives the
    first answer as long as it keeps them (24 hours by default). More than 4 MiB are staged in the daemon by `commit`.
    """

    def __init__(self, loop: LoopThread, transaction: AsyncTransaction) -> None:
        self._loop = loop
        self._transaction = transaction

    @property
    def txn_id(self) -> str | None:
        """Its id in the daemon. A local one has none until it is committed."""
        return self._transaction.txn_id

    def __repr__(self) -> str:
        return repr(self._transaction).removeprefix("Async")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.run(self._transaction.__aexit__, kind, error, traceback)

    @as_in(AsyncTransaction.write)
    def write(
        self, agent_id: str, key: str, value: JsonObject, *, ttl_s: int | None = None, timeout_s: float | None = None
    ) -> None:
        self._stage(partial(self._transaction.write, agent_id, key, value, ttl_s=ttl_s, timeout_s=timeout_s))

    @as_in(AsyncTransaction.delete)
    def delete(self, agent_id: str, key: str, *, timeout_s: float | None = None) -> None:
        self._stage(partial(self._transaction.delete, agent_id, key, timeout_s=timeout_s))

    @as_in(AsyncTransaction.commit)
    def commit(
        self,
        *,
        preconditions: Iterable[Precondition] = (),
        metadata: Mapping[str, str] | None = None,
        revive: bool = False,
        timeout_s: float | None = None,
    ) -> int:
        commit = partial(
            self._transaction.commit,
            preconditions=preconditions_given(preconditions),
            metadata=metadata,
            revive=revive,
            timeout_s=timeout_s,
        )
        return self._loop.run(commit)

    @as_in(AsyncTransaction.abort)
    def abort(self, *, timeout_s: float | None = None) -> None:
        self._loop.run(partial(self._transaction.abort, timeout_s=timeout_s))

    def _stage(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._transaction.is_local:
            at_once(call())  # a write need not wait for another thread
        else:
            self._loop.run(call)


class Lease:
    """A lease on an agent. Made by `lease`.

    It fences writers off: give `precondition` to each commit that is made under it. Such a commit is refused
    (ConflictError) once the lease has expired, was released, or somebody else has acquired one; the daemon decides, by
    its own clock. Nothing renews it but `renew`.

    As a context manager it is released when its block ends. LeaseError then says that it was not held any more; a
    daemon that cannot be reached is none, for the lease expires by itself. When the block raises, the release does not
    hide the exception, and waits at most two seconds.
    """

    def __init__(self, loop: LoopThread, lease: AsyncLease) -> None:
        self._loop = loop
        self._lease = lease

    def __repr__(self) -> str:
        return repr(self._lease).removeprefix("Async")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.run(self._lease.__aexit__, kind, error, traceback)

    @property
    def agent_id(self) -> str:
        """Whose it is."""
        return self._lease.agent_id

    @property
    def namespace(self) -> str:
        """That of the agent."""
        return self._lease.namespace

    @property
    def holder(self) -> str:
        """Who has it, for people."""
        return self._lease.holder

    @property
    def epoch(self) -> int:
        """Its number: every acquisition on this agent has a higher one than all before it."""
        return self._lease.epoch

    @property
    def expires_at(self) -> dt.datetime:
        """When it ends unless it is renewed, by the daemon's clock; UTC."""
        return self._lease.expires_at

    @property
    def commit_ts(self) -> int:
        """Of its acquisition or last renewal."""
        return self._lease.commit_ts

    @property
    def precondition(self) -> Precondition:
        """That this lease is the agent's newest, and held."""
        return self._lease.precondition

    @as_in(AsyncLease.renew)
    def renew(self, ttl_s: float | None = None, *, timeout_s: float | None = None) -> dt.datetime:
        return self._loop.run(partial(self._lease.renew, ttl_s, timeout_s=timeout_s))

    @as_in(AsyncLease.release)
    def release(self, *, timeout_s: float | None = None) -> None:
        self._loop.run(partial(self._lease.release, timeout_s=timeout_s))
