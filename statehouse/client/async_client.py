"""The async client: `AsyncStatehouse`, under Trio or asyncio.

    async with AsyncStatehouse("localhost:50051") as client:
        async with await client.begin_transaction() as txn:
            await txn.write("agent-1", "memory", {"fact": "the sky is blue"})
        state = await client.get_state("agent-1", "memory")

This is the client; `Statehouse` in sync_client.py is the same one, driven from threads.
"""

import datetime as dt
from types import TracebackType
from typing import Self

from statehouse.client.address import parse_url
from statehouse.client.arguments import check_numbers, check_optional_numbers, check_texts
from statehouse.client.async_transaction import AsyncTransaction
from statehouse.client.formatting import event_lines
from statehouse.client.replay import AsyncReplay
from statehouse.client.types import Operation, ReplayEvent, StateResult
from statehouse.client.values import from_struct
from statehouse.rpc.client.credentials import Credentials
from statehouse.rpc.client.dial import dialer
from statehouse.rpc.client.message_stream import MessageStream
from statehouse.rpc.client.stub import Stub
from statehouse.rpc.client.transport import CONNECT_TIMEOUT_S, TIMEOUT_S, Transport
from statehouse.rpc.given import FilePath
from statehouse.types import DEFAULT_NAMESPACE
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["AsyncStatehouse"]


class AsyncStatehouse:
    """A client of one daemon. Used as `async with AsyncStatehouse(...) as client`; any task may then call it.

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

    Cancelling a call takes it back from the daemon if it can.
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
        check_texts(url=url, namespace=namespace)
        self._url = url
        self._target = parse_url(url)
        self._credentials = Credentials(token, ca_file, cert_file, key_file, server_name, insecure)
        self._dial = dialer(self._target, self._credentials)
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self.forget_connection()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url={self._url!r}, namespace={self._namespace!r})"

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, traceback)

    async def close(self) -> None:
        """Let the connection go; calls in flight, and all calls from here on, fail with ConnectionError."""
        self._transport.close()

    def forget_connection(self) -> None:
        """Be as new, and leave what was open as it is. For the child of a fork: it is the parent's."""
        self._transport = Transport(
            self._target,
            self._credentials,
            dial=self._dial,
            timeout_s=self._timeout_s,
            connect_timeout_s=self._connect_timeout_s,
        )
        self.stub = Stub(self._transport)

    async def health(self, *, timeout_s: float | None = None) -> str:
        """`ok` while the daemon serves reads and commits."""
        return (await self.stub.Health(pb.HealthRequest(), timeout_s=timeout_s)).status

    async def version(self, *, timeout_s: float | None = None) -> tuple[str, str]:
        """The daemon's version and the git commit it was built from."""
        answer = await self.stub.Version(pb.VersionRequest(), timeout_s=timeout_s)
        return answer.version, answer.git_sha

    async def begin_transaction(
        self, timeout_ms: int | None = None, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> AsyncTransaction:
        """Open a transaction; it expires after `timeout_ms` milliseconds (the daemon's default: 30,000)."""
        name = self._name(namespace)
        check_optional_numbers(timeout_ms=timeout_ms)
        request = pb.BeginTransactionRequest(timeout_ms=timeout_ms)
        answer = await self.stub.BeginTransaction(request, timeout_s=timeout_s)
        return AsyncTransaction(self, answer.txn_id, name)

    async def get_state(
        self, agent_id: str, key: str, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> StateResult:
        """The latest version of a key. A key that was never written, or was deleted, is no error."""
        check_texts(agent_id=agent_id, key=key)
        request = pb.GetStateRequest(namespace=self._name(namespace), agent_id=agent_id, key=key)
        return _state(await self.stub.GetState(request, timeout_s=timeout_s))

    async def get_state_at_version(
        self, agent_id: str, key: str, version: int, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> StateResult:
        """A key as it was at a version; `exists` False and version 0 when there is no such version."""
        check_texts(agent_id=agent_id, key=key)
        check_numbers(version=version)
        request = pb.GetStateAtVersionRequest(
            namespace=self._name(namespace), agent_id=agent_id, key=key, version=version
        )
        return _state(await self.stub.GetStateAtVersion(request, timeout_s=timeout_s))

    async def list_keys(
        self, agent_id: str, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> list[str]:
        """The agent's live keys, ascending by their UTF-8 bytes."""
        check_texts(agent_id=agent_id)
        request = pb.ListKeysRequest(namespace=self._name(namespace), agent_id=agent_id)
        return list((await self.stub.ListKeys(request, timeout_s=timeout_s)).keys)

    async def scan_prefix(
        self, agent_id: str, prefix: str, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> list[StateResult]:
        """The live keys that begin with `prefix`, with their values, ascending by their UTF-8 bytes."""
        check_texts(agent_id=agent_id, prefix=prefix)
        request = pb.ScanPrefixRequest(namespace=self._name(namespace), agent_id=agent_id, prefix=prefix)
        answer = await self.stub.ScanPrefix(request, timeout_s=timeout_s)
        return [
            StateResult(from_struct(entry.value), entry.version, entry.commit_ts, exists=True, key=entry.key)
            for entry in answer.entries
        ]

    def replay(
        self,
        agent_id: str,
        start_ts: int | None = None,
        end_ts: int | None = None,
        namespace: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> AsyncReplay[ReplayEvent]:
        """The agent's events in commit order, as an async iterator; both ends are inclusive.

        It ends with the newest commit at the time of the call, which is made when the first event is asked
        for. Events come as they are read: memory stays flat however long the history. Leaving the loop early
        ends the call.
        """
        name = self._name(namespace)
        stream = self._replay_stream(name, agent_id, start_ts, end_ts, timeout_s)
        return AsyncReplay(stream, lambda event: (_event(event, name, agent_id),))

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
    ) -> AsyncReplay[str]:
        """As `replay`, in lines for people: one for each operation; see `statehouse.client.formatting`."""
        name = self._name(namespace)
        stream = self._replay_stream(name, agent_id, start_ts, end_ts, timeout_s)
        return AsyncReplay(stream, lambda event: event_lines(_event(event, name, agent_id), verbose=verbose))

    def _replay_stream(
        self, namespace: str, agent_id: str, start_ts: int | None, end_ts: int | None, timeout_s: float | None
    ) -> MessageStream:
        check_texts(agent_id=agent_id)
        check_optional_numbers(start_ts=start_ts, end_ts=end_ts)
        request = pb.ReplayRequest(namespace=namespace, agent_id=agent_id, start_ts=start_ts, end_ts=end_ts)
        return self.stub.Replay(request, timeout_s=timeout_s)

    def _name(self, namespace: str | None) -> str:
        if namespace is None:
            return self._namespace
        check_texts(namespace=namespace)
        return namespace


def _state(answer: pb.GetStateResponse | pb.GetStateAtVersionResponse) -> StateResult:
    value = from_struct(answer.value) if answer.exists and answer.HasField("value") else None
    return StateResult(value, answer.version, answer.commit_ts, answer.exists)


def _event(event: pb.ReplayEvent, namespace: str, agent_id: str) -> ReplayEvent:
    """What the daemon says about itself counts; a daemon that sends only the published fields says less."""
    committed_at = event.committed_at.ToDatetime(dt.UTC) if event.HasField("committed_at") else None
    operations = tuple(
        Operation(each.key, from_struct(each.value) if each.HasField("value") else None, each.version)
        for each in event.operations
    )
    return ReplayEvent(
        event.txn_id,
        event.commit_ts,
        operations,
        event.namespace or namespace or DEFAULT_NAMESPACE,
        event.agent_id or agent_id,
        committed_at,
    )
