"""A transaction from the client's side: whether it is open, committed or aborted, and what is not known."""

from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import anyio

from statehouse.client.arguments import check_texts
from statehouse.client.values import to_struct
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
from statehouse.rpc.client.faults import NotConnectedError, NotProcessedError
from statehouse.types import JsonObject
from statehouse.v1 import statehouse_pb2 as pb

if TYPE_CHECKING:
    from statehouse.client.async_client import AsyncStatehouse

__all__ = ["AsyncTransaction"]

ABORT_TIMEOUT_S: Final = 2.0
"""How long leaving a transaction's block by an exception may wait for the daemon. It expires there anyway."""


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


class _State(Enum):
    OPEN = "open"
    COMMITTING = "being committed"
    UNDECIDED = "committed with an outcome that is not known"
    COMMITTED = "committed"
    FAILED = "not committed: its commit failed"
    ABORTED = "aborted"


class AsyncTransaction:
    """Writes and deletes that become visible together, by `commit`. Made by `begin_transaction`.

    As a context manager it commits when its block ends, unless it was committed or aborted in it, and aborts
    when the block raises. That abort does not hide the exception, cannot be cancelled, and waits at most two
    seconds.

    When the answer to a commit is lost (ConnectionError, or the call was cancelled), the transaction may have
    been committed or not. `commit` may then be called again, on this object, also after the daemon was
    restarted: it returns the commit_ts if the first commit did happen, or commits now if the transaction is
    still open, or raises TransactionError if it was not committed and never will be. It never commits twice.
    """

    def __init__(self, client: "AsyncStatehouse", txn_id: str, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._state = _State.OPEN
        self._failed_with = ErrorCode.TXN_NOT_FOUND
        self.txn_id: Final = txn_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}(txn_id={self.txn_id!r}, namespace={self._namespace!r}, {self._state.value})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            if self._state in {_State.OPEN, _State.UNDECIDED}:
                await self.commit()
        elif self._state is _State.OPEN:
            # Not when a commit is undecided: it may still be asked for, and an abort could undo it.
            with anyio.move_on_after(ABORT_TIMEOUT_S, shield=True):
                await self._abort_quietly()

    async def write(self, agent_id: str, key: str, value: JsonObject, *, timeout_s: float | None = None) -> None:
        """Stage a write of a JSON object.

        Raises, before anything is sent, TypeError for a name that is no str and ValueError for a value that would
        not come back equal (see `statehouse.client.values`). Raises InvalidRequestError for what is over a limit of
        the daemon, and TransactionError when the transaction has ended or expired.

        When the answer is lost (ConnectionError), the write may be staged or not. Do not repeat it here, where it
        could be staged twice, as two versions: abort, and begin again.
        """
        check_texts(agent_id=agent_id, key=key)
        self._check_open("write to it")
        request = pb.WriteRequest(txn_id=self.txn_id, namespace=self._namespace, agent_id=agent_id, key=key)
        request.value.SetInParent()  # an empty object is a value too
        to_struct(value, request.value)
        await self._client.stub.Write(request, timeout_s=timeout_s)

    async def delete(self, agent_id: str, key: str, *, timeout_s: float | None = None) -> None:
        """Stage a delete; deleting what is not there is no error, and gives the key a version. Raises as `write`."""
        check_texts(agent_id=agent_id, key=key)
        self._check_open("delete in it")
        request = pb.DeleteRequest(txn_id=self.txn_id, namespace=self._namespace, agent_id=agent_id, key=key)
        await self._client.stub.Delete(request, timeout_s=timeout_s)

    async def commit(self, *, timeout_s: float | None = None) -> int:
        """Make everything staged durable and visible, all or nothing; returns the commit_ts.

        A second commit raises TransactionError without a call, unless the outcome of the first is not known:
        see the class. Raises TransactionError for a transaction that expired, ConnectionError when the outcome
        is not known (or nothing could be sent: then the transaction is still open), DiskFullError or StorageError
        when it did not happen and cannot any more, and OverloadedError when it did not happen and the transaction is
        still open. After UnauthenticatedError and PermissionDeniedError it is as it was: the daemon did not look at it.
        """
        undecided = self._state is _State.UNDECIDED
        if not undecided:
            self._check_open("commit it")
        self._state = _State.COMMITTING
        after = _State.UNDECIDED  # until an answer says otherwise; a cancelled call leaves it so
        try:
            answer = await self._client.stub.Commit(pb.CommitRequest(txn_id=self.txn_id), timeout_s=timeout_s)
            after = _State.COMMITTED
        except _NOT_LOOKED_AT:
            after = _State.UNDECIDED if undecided else _State.OPEN
            raise
        except (InvalidRequestError, StorageError):
            after = _State.FAILED
            raise
        except TransactionError as error:
            commit_ts = error.details.get("commit_ts", "")
            if not (undecided and error.code is ErrorCode.TXN_ALREADY_COMMITTED and commit_ts.isdecimal()):
                after = _State.FAILED
                self._failed_with = error.code
                raise
            after = _State.COMMITTED
            return int(commit_ts)
        finally:
            self._state = after
        return answer.commit_ts

    async def abort(self, *, timeout_s: float | None = None) -> None:
        """Discard everything staged. Idempotent; TransactionError when the transaction was committed."""
        if self._state is _State.ABORTED:
            return
        if self._state not in {_State.OPEN, _State.UNDECIDED, _State.FAILED}:
            raise self._ended("abort it")
        try:
            await self._client.stub.Abort(pb.AbortRequest(txn_id=self.txn_id), timeout_s=timeout_s)
        except TransactionError as error:
            if error.code is ErrorCode.TXN_ALREADY_COMMITTED:
                self._state = _State.COMMITTED
            raise
        self._state = _State.ABORTED

    async def _abort_quietly(self) -> None:
        try:
            await self.abort()
        except StatehouseError:
            self._state = _State.ABORTED  # it expires in the daemon by itself

    def _check_open(self, verb: str) -> None:
        if self._state is not _State.OPEN:
            raise self._ended(verb)

    def _ended(self, verb: str) -> TransactionError:
        committed = self._state in {_State.COMMITTING, _State.COMMITTED, _State.UNDECIDED}
        code = ErrorCode.TXN_NOT_FOUND
        if committed:
            code = ErrorCode.TXN_ALREADY_COMMITTED
        elif self._state is _State.FAILED:
            code = self._failed_with  # the daemon's reason, as often as it is asked for
        return TransactionError(f"cannot {verb}: the transaction is {self._state.value}", code=code)
