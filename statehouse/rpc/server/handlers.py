"""The calls: request bytes and their caller -> the engine -> response bytes, and nothing else.

A unary handler is a plain function of the request's bytes and of who sent them. It returns the response's bytes when
the answer is there at once, a `Reply` when it comes later, or a coroutine for a read that works in chunks. A stream
handler returns an async generator of lists of encoded messages; each list is given away, goes out in
few writes, and the next is asked for when the reader has room. Both raise StatehouseError, and leave it to
the connection how that is told.

A handler asks the caller whether it may before it asks the engine anything; Health and Version are for everyone.

Handlers know neither sockets nor HTTP/2, so the connection beneath them can be replaced. They stand by subject in
`handlers_transactions.py`, `handlers_agents.py`, `handlers_reads.py` and `handlers_streams.py`; here is the table of
all.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, TypeAlias

from attrs import frozen

from statehouse.actors.reply import Reply
from statehouse.limits import FORK_DEPTH, KIB, LINEAGE_FORKS, PAGE_BYTES, READ_CHUNK_BYTES, RESPONSE_BYTES, Limits
from statehouse.rpc.contract import SERVICE, SERVICE_NAME
from statehouse.rpc.server.access import Caller
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.dispatch import Hosted, bound_service
from statehouse.rpc.server.engine_calls import EngineCalls
from statehouse.rpc.server.handlers_agents import AgentCalls
from statehouse.rpc.server.handlers_reads import ReadCalls
from statehouse.rpc.server.handlers_streams import StreamCalls
from statehouse.rpc.server.handlers_transactions import TransactionCalls
from statehouse.rpc.server.requests import parse
from statehouse.rpc.server.requests_agents import AgentRequests
from statehouse.rpc.server.requests_reads import ReadRequests
from statehouse.rpc.server.requests_streams import StreamRequests
from statehouse.rpc.server.requests_transactions import TransactionRequests
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

UnaryResponse: TypeAlias = "bytes | Reply[bytes] | Coroutine[Any, Any, bytes]"
UnaryHandler: TypeAlias = Callable[[bytes, Caller], UnaryResponse]
StreamHandler: TypeAlias = Callable[[bytes, Caller], AsyncGenerator[list[bytes], None]]

_STREAM_BYTES = 2 * READ_CHUNK_BYTES
"""A chunk; more for an event or value that is larger: what it really is, is held."""


@frozen
class Handlers:
    """The handlers by the name of their call in the contract."""

    unary: Mapping[str, UnaryHandler]
    streams: Mapping[str, StreamHandler]
    answer_bytes: Mapping[str, int]
    """The most that a call's answer, or one chunk of a stream, takes; a call that is not here has small ones."""


def make_handlers(engine: EngineCalls, build: BuildVersion) -> Handlers:
    """The handlers of one engine."""
    about = _AboutCalls(engine, build)
    transactions = TransactionCalls(engine, TransactionRequests(engine.limits))
    agents = AgentCalls(engine, AgentRequests(engine.limits))
    reads = ReadCalls(engine, ReadRequests(engine.limits))
    streams = StreamCalls(engine, StreamRequests(engine.limits))
    return Handlers(
        unary={
            "Health": about.health,
            "Version": about.version,
            "BeginTransaction": transactions.begin_transaction,
            "Write": transactions.write,
            "Delete": transactions.delete,
            "Commit": transactions.commit,
            "Abort": transactions.abort,
            "Transact": transactions.transact,
            "AcquireLease": transactions.acquire_lease,
            "RenewLease": transactions.renew_lease,
            "ReleaseLease": transactions.release_lease,
            "GetLease": transactions.get_lease,
            "ForkAgent": agents.fork_agent,
            "GetLineage": agents.get_lineage,
            "DeleteAgent": agents.delete_agent,
            "GetState": reads.get_state,
            "GetStateAtVersion": reads.get_state_at_version,
            "ListKeys": reads.list_keys,
            "ScanPrefix": reads.scan_prefix,
            "BatchGet": reads.batch_get,
            "ListAgents": reads.list_agents,
            "ListNamespaces": reads.list_namespaces,
            "Head": reads.head,
        },
        streams={
            "History": streams.history,
            "Diff": streams.diff,
            "Replay": streams.replay,
            "ReplayLog": streams.replay_log,
            "Verify": streams.verify,
        },
        answer_bytes={
            "GetState": _state_bytes(engine.limits),
            "GetStateAtVersion": _state_bytes(engine.limits),
            "ListKeys": RESPONSE_BYTES,
            "ScanPrefix": RESPONSE_BYTES,
            "BatchGet": RESPONSE_BYTES,
            "ListAgents": PAGE_BYTES,
            "ListNamespaces": PAGE_BYTES,
            "GetLineage": _lineage_bytes(engine.limits),
            "History": _STREAM_BYTES,
            "Diff": _STREAM_BYTES,
            "Replay": _STREAM_BYTES,
            "ReplayLog": _STREAM_BYTES,
        },
    )


def _state_bytes(limits: Limits) -> int:
    return limits.value_bytes + KIB  # and the numbers beside the value


def _lineage_bytes(limits: Limits) -> int:
    return (LINEAGE_FORKS + FORK_DEPTH) * (limits.agent_id_bytes + 32)  # and the numbers beside each name


def statehouse_service(engine: EngineCalls, build: BuildVersion) -> Hosted:
    """The public service over one engine, for a `Server`. Its Health is answered without a token."""
    handlers = make_handlers(engine, build)
    return Hosted(
        bound_service(SERVICE_NAME, SERVICE, {**handlers.unary, **handlers.streams}),
        answer_bytes=handlers.answer_bytes,
        open_to_all=frozenset({"Health"}),
    )


@frozen
class _AboutCalls:
    """What is about the daemon. Fields that a newer client may send are ignored."""

    engine: EngineCalls
    build: BuildVersion

    def health(self, request: bytes, _caller: Caller) -> bytes:
        parse(pb.HealthRequest, request)
        return pb.HealthResponse(status=self.engine.health()).SerializeToString()

    def version(self, request: bytes, _caller: Caller) -> bytes:
        parse(pb.VersionRequest, request)
        return pb.VersionResponse(version=self.build.version, git_sha=self.build.git_sha).SerializeToString()
