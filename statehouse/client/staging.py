"""Where what a transaction stages is kept until it is committed: in the daemon, or here.

Both answer the same four calls. What they raise, and what that says about the transaction, is `async_transaction`'s
to judge, but for what differs: after which errors of a commit all is as it was.
"""

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from statehouse.client.commit_parts import operation_of
from statehouse.client.types import Put, Remove
from statehouse.errors import (
    ErrorCode,
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    StatehouseError,
    StorageError,
    TransactionError,
    UnauthenticatedError,
)
from statehouse.limits import REQUEST_BYTES, Limits
from statehouse.rpc.client.faults import NotConnectedError, NotProcessedError
from statehouse.rpc.client.transport import check_seconds
from statehouse.v1 import statehouse_pb2 as pb

if TYPE_CHECKING:
    from statehouse.rpc.client.stub import Stub

__all__ = ["ABORT_TIMEOUT_S", "Conditions", "InDaemon", "InMemory", "Staging"]

ABORT_TIMEOUT_S: Final = 2.0
"""How long leaving a transaction's block by an exception may wait for the daemon. It expires there anyway."""

_LONGEST_MS: Final = Limits().timeout_ms
"""What a daemon takes by default. One that takes less refuses it."""

_NOT_LOOKED_AT: Final = (
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
    NotConnectedError,
    NotProcessedError,
    TypeError,
    ValueError,
)
"""What a commit ends with that was not sent, or that the daemon refused before it looked at the transaction."""


class Conditions:
    """What a commit says beside its operations, as the wire has it."""

    def __init__(self, preconditions: list[pb.Precondition], metadata: dict[str, str], *, revive: bool) -> None:
        self.preconditions: Final = preconditions
        self.metadata: Final = metadata
        self.revive: Final = revive

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Conditions):
            return NotImplemented
        return (self.preconditions, self.metadata, self.revive) == (other.preconditions, other.metadata, other.revive)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self.preconditions or self.metadata or self.revive)


class Staging(Protocol):
    """Where a transaction's operations are."""

    txn_id: str | None

    @property
    def keeps_after(self) -> tuple[type[Exception], ...]:
        """After these a commit has not happened, and all that was staged is still there."""

    async def put(self, operation: Put, timeout_s: float | None) -> None:
        """Stage a write."""

    async def remove(self, operation: Remove, timeout_s: float | None) -> None:
        """Stage a delete."""

    async def commit(self, conditions: Conditions, timeout_s: float | None, *, again: bool) -> int:
        """Commit. `again`: it was asked for before, with the same conditions, and the answer was lost."""

    async def abort(self, timeout_s: float | None) -> None:
        """Discard all of it."""


class InDaemon:
    """Each write is a call; the daemon holds them until the transaction expires there."""

    keeps_after: tuple[type[Exception], ...] = _NOT_LOOKED_AT

    def __init__(self, stub: Callable[[], "Stub"], txn_id: str, namespace: str) -> None:
        self._stub = stub
        self._namespace = namespace
        self.txn_id: str | None = txn_id

    async def put(self, operation: Put, timeout_s: float | None) -> None:
        """One call."""
        await self.stage(operation_of(operation, self._namespace), timeout_s)

    async def remove(self, operation: Remove, timeout_s: float | None) -> None:
        """One call."""
        await self.stage(operation_of(operation, self._namespace), timeout_s)

    async def stage(self, operation: pb.TransactOperation, timeout_s: float | None) -> None:
        """Write or Delete."""
        namespace, agent_id, key = operation.namespace, operation.agent_id, operation.key
        if operation.HasField("value"):
            write = pb.WriteRequest(
                txn_id=self.txn_id,
                namespace=namespace,
                agent_id=agent_id,
                key=key,
                value=operation.value,
                ttl_s=operation.ttl_s if operation.HasField("ttl_s") else None,
            )
            await self._stub().Write(write, timeout_s=timeout_s)
        else:
            delete = pb.DeleteRequest(txn_id=self.txn_id, namespace=namespace, agent_id=agent_id, key=key)
            await self._stub().Delete(delete, timeout_s=timeout_s)

    async def commit(self, conditions: Conditions, timeout_s: float | None, *, again: bool = False) -> int:  # noqa: ARG002
        """One call; a second one is told by TXN_ALREADY_COMMITTED that the first was carried out."""
        request = pb.CommitRequest(
            txn_id=self.txn_id,
            preconditions=conditions.preconditions,
            metadata=conditions.metadata,
            revive=conditions.revive,
        )
        return (await self._stub().Commit(request, timeout_s=timeout_s)).commit_ts

    async def abort(self, timeout_s: float | None) -> None:
        """One call."""
        await self._stub().Abort(pb.AbortRequest(txn_id=self.txn_id), timeout_s=timeout_s)


class InMemory:
    """Nothing is sent before the commit, which is one Transact, under an idempotency key of its own.

    More than REQUEST_BYTES do not go into one request: such a commit stages everything in the daemon first, a
    call for each operation. There it has the time that is left here (one that is longer than the daemon takes is
    refused: InvalidRequestError); without a timeout here, an hour, or the daemon's own time where it takes less.
    """

    keeps_after: tuple[type[Exception], ...] = (*_NOT_LOOKED_AT, StorageError)

    def __init__(
        self,
        stub: Callable[[], "Stub"],
        namespace: str,
        timeout_ms: int | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stub = stub
        self._namespace = namespace
        self._now = now
        self._timeout_ms = timeout_ms
        self._deadline = None if timeout_ms is None else now() + timeout_ms / 1000
        self._request = pb.TransactRequest(namespace=namespace)
        self._in_daemon: InDaemon | None = None
        self.txn_id: str | None = None

    async def put(self, operation: Put, timeout_s: float | None) -> None:
        """Keep it. Never waits."""
        self._keep(operation, timeout_s)

    async def remove(self, operation: Remove, timeout_s: float | None) -> None:
        """Keep it. Never waits."""
        self._keep(operation, timeout_s)

    def _keep(self, operation: Put | Remove, timeout_s: float | None) -> None:
        if timeout_s is not None:
            check_seconds("timeout_s", timeout_s)
        message = operation_of(operation, self._namespace)
        self._check_time()
        self._request.operations.append(message)

    async def commit(self, conditions: Conditions, timeout_s: float | None, *, again: bool) -> int:
        """Send it; or `again` what was sent, which the daemon knows by its key."""
        request = self._request
        if again and self._in_daemon is not None:
            return await self._in_daemon.commit(conditions, timeout_s)
        if not again:
            self._check_time()
            await self._forget_in_daemon()
            del request.preconditions[:]
            request.preconditions.extend(conditions.preconditions)
            request.metadata.clear()
            request.metadata.update(conditions.metadata)
            request.revive = conditions.revive
            # A new one, for a commit that did not happen may be followed by another with more in it. Without any
            # operation nothing can be done twice, and the daemon has nowhere to keep a key.
            request.idempotency_key = secrets.token_hex(16) if request.operations else ""
        if request.ByteSize() > REQUEST_BYTES:
            self._in_daemon = await self._stage_in_daemon(timeout_s)
            self.txn_id = self._in_daemon.txn_id
            return await self._in_daemon.commit(conditions, timeout_s)
        answer = await self._stub().Transact(request, timeout_s=timeout_s)
        self.txn_id = answer.txn_id
        return answer.commit_ts

    async def abort(self, timeout_s: float | None) -> None:
        """Forget it. Waits only for what was staged in the daemon after all."""
        if timeout_s is not None:
            check_seconds("timeout_s", timeout_s)
        if self._in_daemon is not None:
            await self._in_daemon.abort(timeout_s)
        self._request.ClearField("operations")

    async def _forget_in_daemon(self) -> None:
        staging, self._in_daemon = self._in_daemon, None
        if staging is not None:
            await _quietly(staging)

    async def _stage_in_daemon(self, timeout_s: float | None) -> InDaemon:
        staging = InDaemon(self._stub, await self._begin_in_daemon(timeout_s), self._namespace)
        staged = False
        try:
            for operation in self._request.operations:
                await staging.stage(operation, timeout_s)
            staged = True
        finally:
            if not staged:
                with anyio.move_on_after(ABORT_TIMEOUT_S, shield=True):
                    await _quietly(staging)
        return staging

    async def _begin_in_daemon(self, timeout_s: float | None) -> str:
        begin = pb.BeginTransactionRequest(timeout_ms=self._left_ms())
        try:
            answer = await self._stub().BeginTransaction(begin, timeout_s=timeout_s)
        except InvalidRequestError:
            if self._deadline is not None:
                raise
            # This daemon takes no hour, and nobody asked for one.
            answer = await self._stub().BeginTransaction(pb.BeginTransactionRequest(), timeout_s=timeout_s)
        return answer.txn_id

    def _left_ms(self) -> int:
        if self._timeout_ms is None or self._deadline is None:
            return _LONGEST_MS
        # Rounded, the longest timeout would be more than the wire holds.
        return max(1, min(self._timeout_ms, int((self._deadline - self._now()) * 1000)))

    def _check_time(self) -> None:
        if self._deadline is not None and self._now() >= self._deadline:
            raise TransactionError(
                f"the transaction has expired: it was to last {self._timeout_ms} ms", code=ErrorCode.TXN_EXPIRED
            )


async def _quietly(staging: InDaemon) -> None:
    try:
        await staging.abort(None)
    except StatehouseError:
        return  # it expires there by itself
