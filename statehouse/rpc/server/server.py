"""The daemon's edge as a whole: one listener, its connections, and how they begin and end.

    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve, engine, host, port, stop=stop, grace_s=10))

Until there are handlers every call is answered UNAVAILABLE (starting up). When `stop` is set no connection
is accepted any more, connections say goodbye, calls that still come are answered UNAVAILABLE (shutting
down), and those in flight have the grace time to finish; then they are cancelled and told the same.
"""

import functools
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
import trio
from purerpc.grpclib.events import RequestReceived

from statehouse.errors import UnavailableError
from statehouse.limits import ANSWERS_BYTES, CONNECTION_ANSWERS_BYTES, KIB, REQUEST_BYTES, Limits
from statehouse.rpc.call_headers import refusal
from statehouse.rpc.contract import METHODS, SERVICE_NAME, purerpc_service
from statehouse.rpc.error_table import EncodedError, GrpcStatus, encode_error
from statehouse.rpc.server.access import ANYONE, Caller
from statehouse.rpc.server.answer_budget import AnswerBudget
from statehouse.rpc.server.build_version import BuildVersion, build_version
from statehouse.rpc.server.call import ServerCall
from statehouse.rpc.server.connection import FAREWELL_S, ServerConnection
from statehouse.rpc.server.failures import shutting_down
from statehouse.rpc.server.handlers import EngineCalls, Handlers, make_handlers
from statehouse.rpc.server.listener import open_listener, socket_address

__all__ = ["Server", "max_request_bytes", "serve"]

log = structlog.stdlib.get_logger(__name__)

# A peer whose machine or network died says nothing: TCP's own probes find out, after about two minutes.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 15),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
)


async def serve(
    engine: EngineCalls,
    host: str,
    port: int,
    *,
    stop: trio.Event,
    grace_s: float,
    build: BuildVersion | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on one address and serve `engine` there until `stop` is set and the connections are gone.

    `host` is a name or an IP literal, without brackets; port 0 takes any free port. Reports the address it
    really listens on (HOST:PORT) through `task_status`. Raises AddressError when that address cannot be
    had. Returns at most about `grace_s` seconds after `stop` is set; cancelling it ends everything at once.
    """
    async with await open_listener(host, port) as listener:
        server = Server(max_request_bytes(engine.limits))
        server.open(make_handlers(engine, build or build_version(os.environ)))
        await server.run(listener, stop=stop, grace_s=grace_s, task_status=task_status)


def max_request_bytes(limits: Limits) -> int:
    """The longest request that can be valid, with room for what stands around its names and value."""
    names = limits.key_bytes + limits.agent_id_bytes + limits.namespace_bytes
    return max(REQUEST_BYTES, limits.value_bytes + names + 64 * KIB)


class Server:
    """All connections of one listener. `serve` is what a caller wants who has an engine already."""

    def __init__(self, request_bytes: int) -> None:
        self._request_bytes = request_bytes
        self._service: Any = None  # purerpc's, once there are handlers
        self._answer_bytes: Mapping[str, int] = {}
        self.answers = AnswerBudget(ANSWERS_BYTES)
        """What all connections together hold of answers that their peers have not read."""
        self._closed: UnavailableError | None = UnavailableError("the daemon is starting")
        self._stopping = False
        self._connections: set[ServerConnection] = set()
        self._left = trio.Event()

    def open(self, handlers: Handlers) -> None:
        """From now on calls reach these handlers. ValueError unless there is one for every call."""
        calls = {**handlers.unary, **handlers.streams}
        self._service = purerpc_service({name: _for_anyone(handler) for name, handler in calls.items()})
        self._answer_bytes = handlers.answer_bytes
        self._closed = None

    async def run(
        self,
        listener: trio.SocketListener,
        *,
        stop: trio.Event,
        grace_s: float,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and serve until `stop` is set and the connections are gone; closes the listener.

        A lack of descriptors or memory ends nothing: accepting goes on when there are some again.
        """
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accept = functools.partial(trio.serve_listeners, handler_nursery=connections)
                await accepting.start(accept, self._serve_connection, [listener])
                task_status.started(socket_address(listener))
                await stop.wait()
                accepting.cancel_scope.cancel()
            await self._drain(grace_s)
            connections.cancel_scope.cancel()

    async def _drain(self, grace_s: float) -> None:
        self._closed = shutting_down()
        self._stopping = True
        for connection in list(self._connections):
            connection.drain()
        with trio.move_on_after(grace_s):
            await self._gone()
        if self._connections:
            log.warning("calls are cut off: the grace time is over", connections=len(self._connections))
        for connection in list(self._connections):
            connection.end_calls(encode_error(shutting_down()))
        with trio.move_on_after(2 * FAREWELL_S):
            await self._gone()

    async def _gone(self) -> None:
        while self._connections:
            self._left = trio.Event()
            await self._left.wait()

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        for level, option, setting in _KEEPALIVE:
            if hasattr(socket, option) and stream.socket.family != socket.AF_UNIX:
                stream.setsockopt(level, getattr(socket, option), setting)
        answers = AnswerBudget(CONNECTION_ANSWERS_BYTES, within=self.answers)
        connection = ServerConnection(stream, self._find, self._request_bytes, answers)
        self._connections.add(connection)
        try:
            if self._stopping:
                connection.drain()
            await connection.run()
        except Exception:  # the boundary: a bug ends one connection, never the daemon
            log.exception("connection failed")
        finally:
            self._connections.discard(connection)
            self._left.set()

    def _find(self, request: RequestReceived) -> ServerCall | EncodedError:
        method = METHODS.get(request.method_name) if request.service_name == SERVICE_NAME else None
        if method is None:
            return refusal(GrpcStatus.UNIMPLEMENTED, f"there is no call {request.service_name}/{request.method_name}")
        if self._closed is not None:
            return encode_error(self._closed)
        handler = functools.partial(self._service.methods[method.name].method_fn, request=request)
        call = ServerCall(request.stream_id, method.name, handler, self._answer_bytes.get(method.name, 0))
        if request.timeout is not None:
            call.deadline = trio.current_time() + request.timeout.total_seconds()
        return call


def _for_anyone(handler: Callable[[bytes, Caller], object]) -> Callable[[bytes], object]:
    return lambda request: handler(request, ANYONE)
