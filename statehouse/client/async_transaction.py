"""A transaction from the client's side: whether it is open, committed or aborted, and what is not known."""

from collections.abc import Iterable, Mapping
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio

from statehouse.client.arguments import check_flag, check_metadata, check_texts
from statehouse.client.commit_parts import preconditions_of
from statehouse.client.staging import ABORT_TIMEOUT_S, Conditions, InDaemon, InMemory, Staging
from statehouse.client.types import Precondition, Put, Remove
from statehouse.errors import ErrorCode, InvalidRequestError, StatehouseError, StorageError, TransactionError
from statehouse.types import JsonObject

if TYPE_CHECKING:
    from statehouse.client.calls import Calls

__all__ = ["AsyncTransaction"]


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

    A local one, which is what `begin_transaction` makes unless asked otherwise, keeps what is staged here, without a
    call and without waiting. Then a write refuses what is no JSON value, and everything after the transaction's time
    is over; names and sizes that the daemon does not take are told by `commit`. Only the first `commit` can be too
    late: one that is asked again is sent again as it was, under its idempotency key, for which the daemon gives the
    first answer as long as it keeps them (24 hours by default). More than 4 MiB are staged in the daemon by `commit`.
    """

    def __init__(self, client: "Calls", txn_id: str, namespace: str) -> None:
        """The transaction of this id in the daemon."""
        self._namespace = namespace
        self._staging: Staging = InDaemon(lambda: client.stub, txn_id, namespace)
        self._state = _State.OPEN
        self._failed_with = ErrorCode.TXN_NOT_FOUND
        self._conditions = Conditions([], {}, revive=False)

    @classmethod
    def local(cls, client: "Calls", namespace: str, timeout_ms: int | None) -> Self:
        """A new one, staged here."""
        transaction = cls(client, "", namespace)
        transaction._staging = InMemory(lambda: client.stub, namespace, timeout_ms)
        return transaction

    @property
    def txn_id(self) -> str | None:
        """Its id in the daemon. A local one has none until it is committed."""
        return self._staging.txn_id

    @property
    def is_local(self) -> bool:
        """Whether it is staged here, and nothing of it in the daemon before the commit."""
        return isinstance(self._staging, InMemory)

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

    async def write(
        self, agent_id: str, key: str, value: JsonObject, *, ttl_s: int | None = None, timeout_s: float | None = None
    ) -> None:
        """Stage a write of a JSON object; with `ttl_s` it lasts so many whole seconds from the commit, else for good.

        Raises, before anything is sent, TypeError for a name that is no str and ValueError for a value that would
        not come back equal (see `statehouse.client.values`). Raises InvalidRequestError for what is over a limit of
        the daemon, and TransactionError when the transaction has ended or expired.

        When the answer is lost (ConnectionError), the write may be staged or not. Do not repeat it here, where it
        could be staged twice, as two versions: abort, and begin again.
        """
        check_texts(agent_id=agent_id, key=key)
        self._check_open("write to it")
        await self._staging.put(Put(agent_id, key, value, ttl_s=ttl_s), timeout_s)

    async def delete(self, agent_id: str, key: str, *, timeout_s: float | None = None) -> None:
        """Stage a delete; deleting what is not there is no error, and gives the key a version. Raises as `write`."""
        check_texts(agent_id=agent_id, key=key)
        self._check_open("delete in it")
        await self._staging.remove(Remove(agent_id, key), timeout_s)

    async def commit(
        self,
        *,
        preconditions: Iterable[Precondition] = (),
        metadata: Mapping[str, str] | None = None,
        revive: bool = False,
        timeout_s: float | None = None,
    ) -> int:
        """Make everything staged durable and visible, all or nothing; returns the commit_ts.

        All of `preconditions` must hold at that moment, or nothing is done and the transaction is over
        (ConflictError). `metadata` is kept with the commit: short strings, given back by `replay` and `history`. What
        writes to an agent that was deleted is refused (AgentDeletedError, and the transaction is over), unless a
        precondition is about that agent, or `revive` says that all of them are to live again.

        A second commit raises TransactionError without a call, unless the outcome of the first is not known (see the
        class): then it asks for the same commit, and other preconditions, metadata or `revive` than the first's are a
        ValueError.
        Raises TransactionError for a transaction that expired, ConnectionError when the outcome is not known (or
        nothing could be sent: then the transaction is still open), and OverloadedError when it did not happen and the
        transaction is still open. After DiskFullError or StorageError it did not happen; a local transaction is still
        open then, another cannot be committed any more. After UnauthenticatedError and PermissionDeniedError it is as
        it was: the daemon did not look at it.
        """
        undecided = self._state is _State.UNDECIDED
        given = Conditions(
            preconditions_of(preconditions, self._namespace),
            check_metadata(metadata),
            revive=check_flag("revive", revive),
        )
        if undecided and given and given != self._conditions:
            raise ValueError("a commit whose outcome is not known is asked for again as it was, or without conditions")
        if not undecided:
            self._check_open("commit it")
            self._conditions = given
        self._state = _State.COMMITTING
        after = _State.UNDECIDED  # until an answer says otherwise; a cancelled call leaves it so
        try:
            commit_ts = await self._staging.commit(self._conditions, timeout_s, again=undecided)
            after = _State.COMMITTED
        except self._staging.keeps_after as error:
            settled = isinstance(error, StorageError)  # the daemon looked at it, so that the first did not happen
            after = _State.UNDECIDED if undecided and not settled else _State.OPEN
            raise
        except (InvalidRequestError, StorageError):
            after = _State.FAILED
            raise
        except TransactionError as error:
            told = error.details.get("commit_ts", "")
            if not (undecided and error.code is ErrorCode.TXN_ALREADY_COMMITTED and told.isdecimal()):
                after = _State.FAILED
                self._failed_with = error.code
                raise
            after = _State.COMMITTED
            return int(told)
        finally:
            self._state = after
        return commit_ts

    async def abort(self, *, timeout_s: float | None = None) -> None:
        """Discard everything staged. Idempotent; TransactionError when the transaction was committed.

        Of a local one whose commit is undecided, too: nothing can be taken back of that.
        """
        if self._state is _State.ABORTED:
            return
        undecided = self._state is _State.UNDECIDED and not self.is_local
        if not undecided and self._state not in {_State.OPEN, _State.FAILED}:
            raise self._ended("abort it")
        try:
            await self._staging.abort(timeout_s)
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
