"""The sync client: `Statehouse` and `Transaction`.

Each method is the async client's method of the same name, run in a Trio loop in a background thread
(loop_thread.py); what it does and raises stands there, and its docstring is taken from there. The call
blocks its thread; others may use the same client meanwhile.

    with Statehouse("localhost:50051") as client:
        with client.begin_transaction() as txn:
            txn.write("agent-1", "memory", {"fact": "the sky is blue"})
        state = client.get_state("agent-1", "memory")
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from statehouse.client.async_client import AsyncStatehouse
from statehouse.client.async_transaction import AsyncTransaction
from statehouse.client.loop_thread import LoopThread
from statehouse.client.replay import AsyncReplay
from statehouse.client.types import ReplayEvent, StateResult
from statehouse.rpc.client.transport import CONNECT_TIMEOUT_S, TIMEOUT_S
from statehouse.rpc.given import FilePath
from statehouse.types import DEFAULT_NAMESPACE, JsonObject

__all__ = ["Statehouse", "Transaction"]

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


def _as(method: Callable[..., object]) -> Callable[[F], F]:
    """Take the docstring of the async method that is run."""

    def documented(function: F) -> F:
        function.__doc__ = method.__doc__
        return function

    return documented


class Transaction:
    """Writes and deletes that become visible together, by `commit`. Made by `begin_transaction`.

    As a context manager it commits when its block ends, unless it was committed or aborted in it, and aborts
    when the block raises. That abort does not hide the exception and waits at most two seconds.

    When the answer to a commit is lost (ConnectionError), the transaction may have been committed or not.
    `commit` may then be called again, on this object, also after the daemon was restarted: it returns the
    commit_ts if the first commit did happen, or commits now if the transaction is still open, or raises
    TransactionError if it was not committed and never will be. It never commits twice.
    """

    def __init__(self, loop: LoopThread, transaction: AsyncTransaction) -> None:
        self._loop = loop
        self._transaction = transaction

    @property
    def txn_id(self) -> str:
        """The transaction's id in the daemon."""
        return self._transaction.txn_id

    def __repr__(self) -> str:
        return repr(self._transaction).removeprefix("Async")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.run(self._transaction.__aexit__, kind, error, traceback)

    @_as(AsyncTransaction.write)
    def write(self, agent_id: str, key: str, value: JsonObject, *, timeout_s: float | None = None) -> None:
        self._loop.run(partial(self._transaction.write, agent_id, key, value, timeout_s=timeout_s))

    @_as(AsyncTransaction.delete)
    def delete(self, agent_id: str, key: str, *, timeout_s: float | None = None) -> None:
        self._loop.run(partial(self._transaction.delete, agent_id, key, timeout_s=timeout_s))

    @_as(AsyncTransaction.commit)
    def commit(self, *, timeout_s: float | None = None) -> int:
        return self._loop.run(partial(self._transaction.commit, timeout_s=timeout_s))

    @_as(AsyncTransaction.abort)
    def abort(self, *, timeout_s: float | None = None) -> None:
        self._loop.run(partial(self._transaction.abort, timeout_s=timeout_s))


class Statehouse:
    """A client of one daemon. May be shared by threads; `with Statehouse(...) as client`, or `close()` at the end.

    `url` is `host:port`, `http://host:port` or `[ipv6]:port`, `https://host:port` for TLS, or `unix:/path`
    (ValueError otherwise); nothing is connected before the first call. `namespace` is what calls use that name
    none. `timeout_s` bounds each call and each wait for an event of a replay, unless the call has its own (for a
    replay also `math.inf`), `connect_timeout_s` the making of a connection, both in seconds.

    `token` is sent with each call: over TLS, to this machine, or anywhere if `insecure` says so (ValueError
    otherwise). The files are in PEM form: `ca_file` has the certificates that may vouch for the daemon (the system's
    if absent), `cert_file` and `key_file` are the client's own. `server_name` is the name in the daemon's
    certificate, if it is not the host's.

    Every call raises StatehouseError: ConnectionError when the daemon cannot be reached, went away or did not
    answer in time (the next call connects again), InvalidRequestError for a name or a value that the daemon
    refuses, TransactionError, OverloadedError, StorageError, UnauthenticatedError and PermissionDeniedError. An
    argument of a wrong type is a TypeError, one that the wire cannot carry a ValueError, both before anything is sent.

    Reads, aborts and replays whose connection is lost are tried again for a short while, and a replay goes on where
    it broke off; nothing else is sent twice, unless the daemon says that it did not look at it.

    A client that is dropped without `close` lets its connection and thread go by itself. In a forked child it
    connects anew.
    """

    def __init__(
        self,
        url: str = "localhost:50051",
        namespace: str = DEFAULT_NAMESPACE,
        *,
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        token: str | None = None,
        ca_file: FilePath | None = None,
        cert_file: FilePath | None = None,
        key_file: FilePath | None = None,
        server_name: str | None = None,
        insecure: bool = False,
    ) -> None:
        self._client = AsyncStatehouse(
            url,
            namespace,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            token=token,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            server_name=server_name,
            insecure=insecure,
        )
        self._loop = LoopThread(self._client)

    def __repr__(self) -> str:
        return repr(self._client).removeprefix("Async")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go; calls in flight, and all calls from here on, fail with ConnectionError."""
        self._loop.close()

    @_as(AsyncStatehouse.health)
    def health(self, *, timeout_s: float | None = None) -> str:
        return self._loop.run(partial(self._client.health, timeout_s=timeout_s))

    @_as(AsyncStatehouse.version)
    def version(self, *, timeout_s: float | None = None) -> tuple[str, str]:
        return self._loop.run(partial(self._client.version, timeout_s=timeout_s))

    @_as(AsyncStatehouse.begin_transaction)
    def begin_transaction(
        self, timeout_ms: int | None = None, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> Transaction:
        return Transaction(
            self._loop,
            self._loop.run(partial(self._client.begin_transaction, timeout_ms, namespace, timeout_s=timeout_s)),
        )

    @_as(AsyncStatehouse.get_state)
    def get_state(
        self, agent_id: str, key: str, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> StateResult:
        return self._loop.run(partial(self._client.get_state, agent_id, key, namespace, timeout_s=timeout_s))

    @_as(AsyncStatehouse.get_state_at_version)
    def get_state_at_version(
        self, agent_id: str, key: str, version: int, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> StateResult:
        return self._loop.run(
            partial(self._client.get_state_at_version, agent_id, key, version, namespace, timeout_s=timeout_s)
        )

    @_as(AsyncStatehouse.list_keys)
    def list_keys(self, agent_id: str, namespace: str | None = None, *, timeout_s: float | None = None) -> list[str]:
        return self._loop.run(partial(self._client.list_keys, agent_id, namespace, timeout_s=timeout_s))

    @_as(AsyncStatehouse.scan_prefix)
    def scan_prefix(
        self, agent_id: str, prefix: str, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> list[StateResult]:
        return self._loop.run(partial(self._client.scan_prefix, agent_id, prefix, namespace, timeout_s=timeout_s))

    def replay(
        self,
        agent_id: str,
        start_ts: int | None = None,
        end_ts: int | None = None,
        namespace: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Iterator[ReplayEvent]:
        """The agent's events in commit order; both ends are inclusive.

        It ends with the newest commit at the time of the call, which is made when the first event is asked
        for. Events come as they are read: memory stays flat however long the history. Leaving the loop early
        ends the call.
        """
        return self._iterate(lambda: self._client.replay(agent_id, start_ts, end_ts, namespace, timeout_s=timeout_s))

    replay_events = replay

    def replay_pretty(
        self,
        agent_id: str,
        start_ts: int | None = None,
        end_ts: int | None = None,
        namespace: str | None = None,
        *,
        verbose: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[str]:
        """As `replay`, in lines for people: one for each operation; see `statehouse.client.formatting`."""
        return self._iterate(
            lambda: self._client.replay_pretty(
                agent_id, start_ts, end_ts, namespace, verbose=verbose, timeout_s=timeout_s
            )
        )

    def _iterate(self, start: Callable[[], AsyncReplay[T]]) -> Iterator[T]:
        replay = start()  # when the first item is asked for
        try:
            while batch := self._loop.run(replay.next_batch):
                yield from batch
        finally:
            replay.abandon()
