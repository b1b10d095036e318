"""The twelve calls: request bytes and their caller -> the engine -> response bytes, and nothing else.

A unary handler is a plain function of the request's bytes and of who sent them. It returns the response's bytes when
the answer is there at once, a `Reply` when it comes later, or a coroutine for a read that works in chunks. A stream
handler returns an async generator of lists of encoded messages; each list is given away, goes out in
few writes, and the next is asked for when the reader has room. Both raise StatehouseError, and leave it to
the connection how that is told.

A handler asks the caller whether it may before it asks the engine anything; Health and Version are for everyone.

Handlers know neither sockets nor HTTP/2, so the connection beneath them can be replaced.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from attrs import frozen

from statehouse.actors.reply import Reply
from statehouse.errors import OverloadedError
from statehouse.limits import KIB, READ_CHUNK_BYTES, RESPONSE_BYTES, Limits
from statehouse.rpc.contract import SERVICE, SERVICE_NAME
from statehouse.rpc.server.access import Caller
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.dispatch import Hosted, bound_service
from statehouse.rpc.server.requests import Requests
from statehouse.storage.wire import LENGTH_DELIMITED, tag, varint
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = [
    "EngineCalls",
    "Handlers",
    "StreamHandler",
    "UnaryHandler",
    "UnaryResponse",
    "make_handlers",
    "statehouse_service",
]

T = TypeVar("T")

UnaryResponse: TypeAlias = "bytes | Reply[bytes] | Coroutine[Any, Any, bytes]"
UnaryHandler: TypeAlias = Callable[[bytes, Caller], UnaryResponse]
StreamHandler: TypeAlias = Callable[[bytes, Caller], AsyncGenerator[list[bytes], None]]

_ENTRIES: Final = tag(pb.ScanPrefixResponse.ENTRIES_FIELD_NUMBER, LENGTH_DELIMITED)


class EngineCalls(Protocol):
    """What the edge asks of `statehouse.actors.engine.Engine`, which has the promises of each call."""

    @property
    def limits(self) -> Limits: ...
    def health(self) -> str: ...
    def begin(self, timeout_ms: int | None) -> Reply[str]: ...
    def write(self, txn_id: str, agent: AgentId, key: str, value: bytes) -> Reply[None]: ...
    def delete(self, txn_id: str, agent: AgentId, key: str) -> Reply[None]: ...
    def commit(self, txn_id: str) -> Reply[int]: ...
    def abort(self, txn_id: str) -> Reply[None]: ...
    def get_state(self, agent: AgentId, key: str) -> bytes: ...
    def get_state_at_version(self, agent: AgentId, key: str, version: int) -> bytes: ...
    async def list_keys(self, agent: AgentId) -> list[str]: ...
    async def scan_prefix(self, agent: AgentId, prefix: str) -> list[bytes]: ...
    def replay(self, agent: AgentId, start_ts: int | None, end_ts: int | None) -> AsyncGenerator[list[bytes], None]: ...


@frozen
class Handlers:
    """The handlers by the name of their call in the contract."""

    unary: Mapping[str, UnaryHandler]
    streams: Mapping[str, StreamHandler]
    answer_bytes: Mapping[str, int]
    """The most that a call's answer, or one chunk of a stream, takes; a call that is not here has small ones."""


def make_handlers(engine: EngineCalls, build: BuildVersion) -> Handlers:
    """The handlers of one engine."""
    calls = _Calls(engine, Requests(engine.limits), build)
    return Handlers(
        unary={
            "Health": calls.health,
            "Version": calls.version,
            "BeginTransaction": calls.begin_transaction,
            "Write": calls.write,
            "Delete": calls.delete,
            "Commit": calls.commit,
            "Abort": calls.abort,
            "GetState": calls.get_state,
            "GetStateAtVersion": calls.get_state_at_version,
            "ListKeys": calls.list_keys,
            "ScanPrefix": calls.scan_prefix,
        },
        streams={"Replay": calls.replay},
        answer_bytes={
            "GetState": _state_bytes(engine.limits),
            "GetStateAtVersion": _state_bytes(engine.limits),
            "ListKeys": RESPONSE_BYTES,
            "ScanPrefix": RESPONSE_BYTES,
            "Replay": 2 * READ_CHUNK_BYTES,  # more for an event that is larger: what it really is, is held
        },
    )


def _state_bytes(limits: Limits) -> int:
    return limits.value_bytes + KIB  # and the numbers beside the value


def statehouse_service(engine: EngineCalls, build: BuildVersion) -> Hosted:
    """The public service over one engine, for a `Server`. Its Health is answered without a token."""
    handlers = make_handlers(engine, build)
    return Hosted(
        bound_service(SERVICE_NAME, SERVICE, {**handlers.unary, **handlers.streams}),
        answer_bytes=handlers.answer_bytes,
        open_to_all=frozenset({"Health"}),
    )


@frozen
class _Calls:
    engine: EngineCalls
    requests: Requests
    build: BuildVersion

    def health(self, request: bytes, _caller: Caller) -> bytes:
        self.requests.empty(request, pb.HealthRequest)
        return pb.HealthResponse(status=self.engine.health()).SerializeToString()

    def version(self, request: bytes, _caller: Caller) -> bytes:
        self.requests.empty(request, pb.VersionRequest)
        return pb.VersionResponse(version=self.build.version, git_sha=self.build.git_sha).SerializeToString()

    def begin_transaction(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        caller.may_transact()
        reply = self.engine.begin(self.requests.begin(request))
        return _encoded(reply, lambda txn_id: pb.BeginTransactionResponse(txn_id=txn_id).SerializeToString())

    def write(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        write = self.requests.write(request)
        caller.may_write(write.agent)
        return _encoded(self.engine.write(write.txn_id, write.agent, write.key, write.value), _empty)

    def delete(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        delete = self.requests.delete(request)
        caller.may_write(delete.agent)
        return _encoded(self.engine.delete(delete.txn_id, delete.agent, delete.key), _empty)

    def commit(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        caller.may_transact()
        reply = self.engine.commit(self.requests.commit(request))
        return _encoded(reply, lambda commit_ts: pb.CommitResponse(commit_ts=commit_ts).SerializeToString())

    def abort(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        caller.may_transact()
        return _encoded(self.engine.abort(self.requests.abort(request)), _empty)

    def get_state(self, request: bytes, caller: Caller) -> bytes:
        agent, key = self.requests.get_state(request)
        caller.may_read(agent)
        return self.engine.get_state(agent, key)

    def get_state_at_version(self, request: bytes, caller: Caller) -> bytes:
        agent, key, version = self.requests.get_state_at_version(request)
        caller.may_read(agent)
        return self.engine.get_state_at_version(agent, key, version)

    def list_keys(self, request: bytes, caller: Caller) -> Coroutine[Any, Any, bytes]:
        agent = self.requests.list_keys(request)
        caller.may_read(agent)

        async def listing() -> bytes:
            keys = await self.engine.list_keys(agent)
            return _bounded(pb.ListKeysResponse(keys=keys).SerializeToString())

        return listing()

    def scan_prefix(self, request: bytes, caller: Caller) -> Coroutine[Any, Any, bytes]:
        agent, prefix = self.requests.scan_prefix(request)
        caller.may_read(agent)

        async def scan() -> bytes:
            entries = await self.engine.scan_prefix(agent, prefix)
            # The entries are encoded already; a field of the response is a tag and a length before each.
            return _bounded(b"".join([piece for each in entries for piece in (_ENTRIES, varint(len(each)), each)]))

        return scan()

    def replay(self, request: bytes, caller: Caller) -> AsyncGenerator[list[bytes], None]:
        replay = self.requests.replay(request)
        caller.may_read(replay.agent)
        return self.engine.replay(replay.agent, replay.start_ts, replay.end_ts)


def _empty(_: None) -> bytes:
    return b""


def _encoded(reply: Reply[T], encode: Callable[[T], bytes]) -> bytes | Reply[bytes]:
    """The response of a reply: at once when it is settled (or its error is raised), else when it settles."""
    if reply.settled:
        return encode(reply.result())
    response: Reply[bytes] = Reply()

    def settle(settled: Reply[T]) -> None:
        error = settled.error
        if error is None:
            response.succeed(encode(settled.result()))
        else:
            response.fail(error)

    reply.then(settle)
    return response


def _bounded(response: bytes) -> bytes:
    """An answer in one message is held in memory as a whole, here and by the client."""
    if len(response) > RESPONSE_BYTES:
        raise OverloadedError(
            f"the answer is {len(response)} bytes, the limit is {RESPONSE_BYTES}: ask for a longer prefix",
            details={"limit": str(RESPONSE_BYTES), "size": str(len(response))},
        )
    return response
