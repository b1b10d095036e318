"""The daemon's edge as a whole: one listener, its connections, and how they begin and end.

    server = Server(max_request_bytes(limits), hosted=[health])
    async with await open_listener(host, port) as listener, trio.open_nursery() as nursery:
        address = await nursery.start(partial(server.run, listener, stop=stop, grace_s=10))
        server.open([statehouse_service(engine, build)])

Until there are handlers every call is answered UNAVAILABLE (starting up). When `stop` is set no connection
is accepted any more, connections say goodbye, calls that still come are answered UNAVAILABLE (shutting
down), and those in flight have the grace time to finish; then they are cancelled and told the same. Some
calls (health) are answered at all times.

When there are as many connections as there may be, the one that has been without a call for longest makes room
for a new one; when all are in use, the new one is closed.
"""

import functools
import math
import os
import select
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

import structlog
import trio

from statehouse.errors import UnauthenticatedError, UnavailableError
from statehouse.limits import CONNECTIONS, KIB, REQUEST_BYTES, Limits
from statehouse.rpc.error_table import EncodedError, GrpcStatus, encode_error
from statehouse.rpc.http2.frames import ErrorCode, FrameType, frame, goaway_payload
from statehouse.rpc.server.access import ANYONE, Authenticator, Caller
from statehouse.rpc.server.call_headers import CallHeaders, refusal
from statehouse.rpc.server.capacity import Capacity
from statehouse.rpc.server.connection import FAREWELL_S, ServerConnection
from statehouse.rpc.server.dispatch import Endpoint, Hosted, endpoints
from statehouse.rpc.server.failures import shutting_down
from statehouse.rpc.server.lifetime import PREFACE_S, LifetimeLimits
from statehouse.rpc.server.link import Link, SocketLink, StreamLink
from statehouse.rpc.server.listener import socket_address
from statehouse.rpc.server.poller import Poller
from statehouse.rpc.server.refusals import LOGGED_S, Refusal
from statehouse.rpc.server.tls import ServerTls, accept_tls, peer_name

__all__ = ["Server", "max_request_bytes"]

EVICTED_AFTER_S: Final = 5.0
"""A connection that had a call within this time is in use, and makes no room for others."""

_TOO_MANY: Final = frame(FrameType.SETTINGS, 0, 0) + frame(
    FrameType.GOAWAY, 0, 0, goaway_payload(0, ErrorCode.ENHANCE_YOUR_CALM, b"too many connections")
)

log = structlog.stdlib.get_logger(__name__)


def max_request_bytes(limits: Limits) -> int:
    """The longest request that can be valid, with room for what stands around its names and value."""
    names = limits.key_bytes + limits.agent_id_bytes + limits.namespace_bytes
    return max(REQUEST_BYTES, limits.value_bytes + names + 64 * KIB)


class Server:
    """All connections of one listener."""

    def __init__(
        self,
        request_bytes: int,
        *,
        tls: ServerTls | None = None,
        authenticator: Authenticator | None = None,
        lifetime: LifetimeLimits | None = None,
        max_connections: int = CONNECTIONS,
        hosted: Iterable[Hosted] = (),
    ) -> None:
        """`request_bytes` is the longest message of a request; what is `hosted` here is there from the start.

        With an `authenticator` every call needs a token, but those that are open to all. With `tls` every
        connection begins with a handshake.
        """
        self._request_bytes = request_bytes
        self._tls = tls
        self._authenticator = authenticator
        self._lifetime = lifetime or LifetimeLimits()
        self._max_connections = max_connections
        self._endpoints: dict[bytes, Endpoint] = dict(endpoints(hosted))
        self.capacity = Capacity()
        """What the connections share."""
        self._closed: UnavailableError | None = UnavailableError("the daemon is starting")
        self._poller = Poller() if hasattr(select, "epoll") else None  # elsewhere each connection reads by itself
        self._stopping = False
        self._accepted = 0
        self._connections: set[ServerConnection] = set()
        self._left = trio.Event()

    def open(self, hosted: Iterable[Hosted]) -> None:
        """From now on calls reach these services, too."""
        self._endpoints.update(endpoints(hosted))
        self._closed = None

    def census(self) -> Mapping[str, object]:
        """What there is now, and what was turned away: for a line in the log."""
        return {
            "connections": self._accepted,
            "calls": self.capacity.calls,
            "watchers": self.capacity.watchers,
            "streams": sum(each.streams for each in self._connections),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "requests_bytes": self.capacity.requests.held_bytes,
            "kept_requests_bytes": self.capacity.kept_requests.held_bytes,
            "answers_bytes": self.capacity.answers.held_bytes,
            "listings_bytes": self.capacity.listings.held_bytes,
            **{str(each): self.capacity.refusals.counts[each] for each in Refusal},
        }

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
            if self._poller is not None:
                connections.start_soon(self._poller.run)
            connections.start_soon(self._log_refusals)
            async with trio.open_nursery() as accepting:
                accept = functools.partial(trio.serve_listeners, handler_nursery=connections)
                await accepting.start(accept, self._serve_connection, [listener])
                task_status.started(socket_address(listener))
                await stop.wait()
                accepting.cancel_scope.cancel()
            await self._drain(grace_s)
            connections.cancel_scope.cancel()
        self.capacity.refusals.log_due(math.inf)

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

    def judge_callers_anew(self) -> None:
        """After tokens were read again: watches end with UNAVAILABLE, and who may still watch comes again."""
        for connection in list(self._connections):
            connection.judge_callers_anew()

    async def _gone(self) -> None:
        while self._connections:
            self._left = trio.Event()
            await self._left.wait()

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        if self._accepted >= self._max_connections and not self._make_room():
            self._turn_away(Refusal.TOO_MANY_CONNECTIONS, f"{self._accepted} connections", _peer(stream))
            if self._tls is None:
                with suppress(OSError):  # it need not hear it
                    os.write(stream.socket.fileno(), _TOO_MANY)
            return
        self._accepted += 1
        peer = _peer(stream)
        try:
            link: Link = StreamLink(stream) if self._poller is None else SocketLink(stream, self._poller)
            if self._tls is not None:
                secured = await self._shake_hands(stream, self._tls, peer)
                if secured is None:
                    return
                link = StreamLink(secured)
                peer = peer_name(secured) or peer
            await self._converse(link, peer)
        except Exception:  # the boundary: a bug ends one connection, never the daemon
            log.exception("connection failed")
        finally:
            self._accepted -= 1

    async def _shake_hands(
        self, stream: trio.SocketStream, tls: ServerTls, peer: str
    ) -> trio.SSLStream[trio.SocketStream] | None:
        try:
            with trio.fail_after(PREFACE_S):
                return await accept_tls(stream, tls)
        except (trio.BrokenResourceError, trio.TooSlowError, OSError) as error:
            self._turn_away(Refusal.FAILED_HANDSHAKE, str(error.__cause__ or error) or type(error).__name__, peer)
            return None

    async def _converse(self, link: Link, peer: str) -> None:
        connection = ServerConnection(
            link, self._find, self.capacity, self._lifetime, peer=peer, request_bytes=self._request_bytes
        )
        self._connections.add(connection)
        try:
            if self._stopping:
                connection.drain()
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._left.set()

    def _make_room(self) -> bool:
        """End the connection that has been without a call for longest; False when all are in use."""
        since = {each: each.idle_since for each in self._connections}
        idle = {each: at for each, at in since.items() if at is not None}
        longest = min(idle, key=lambda each: idle[each], default=None)
        if longest is None or idle[longest] > trio.current_time() - EVICTED_AFTER_S:
            return False
        self._connections.discard(longest)
        longest.leave()
        return True

    async def _log_refusals(self) -> None:
        while True:
            await trio.sleep(LOGGED_S)
            self.capacity.refusals.log_due(trio.current_time())

    def _turn_away(self, refusal: Refusal, why: str, peer: str) -> None:
        self.capacity.refusals.note(refusal, why, peer=peer, now=trio.current_time())

    def _find(self, headers: CallHeaders, peer: str) -> tuple[Endpoint, Caller] | EncodedError:
        endpoint = self._endpoints.get(headers.path)
        if self._closed is not None and (endpoint is None or not endpoint.always):
            return encode_error(self._closed)
        if endpoint is None:
            return refusal(GrpcStatus.UNIMPLEMENTED, f"there is no call {headers.path.decode('utf-8', 'replace')}")
        if self._authenticator is None or endpoint.open_to_all:
            return endpoint, ANYONE
        try:
            return endpoint, self._authenticator.caller(headers.authorization)
        except UnauthenticatedError as error:
            self.capacity.refusals.note_error(error, peer=peer, now=trio.current_time())
            return encode_error(error)


def _peer(stream: trio.SocketStream) -> str:
    if stream.socket.family == socket.AF_UNIX:
        return "unix"
    try:
        return ":".join(map(str, stream.socket.getpeername()[:2]))
    except OSError:
        return "gone"
