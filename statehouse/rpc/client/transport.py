"""The clients' way to a daemon: calls go in as messages, answers come out, errors are our own.

`Transport` is the whole boundary. It connects when a call needs it, shares one connection among all calls, and
connects again after the connection was lost; when that fails, not before a pause (`retry.Backoff`). What may be
sent again is (`retry.py`); whatever else was in flight has failed with ConnectionError, for only its caller knows
whether it may be repeated.

Nothing waits for ever: a connection is made within `connect_timeout_s`, a unary call ends within its time, and so
does each wait for a stream's next message, unless its caller gave it `math.inf`.

Used as `async with Transport(...)`, under Trio or asyncio: the connection's tasks live in that block.
"""

import math
import random
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.abc
import anyio.lowlevel
from google.protobuf.message import Message

from statehouse.errors import ConnectionError
from statehouse.rpc.client.answers import decode_answer
from statehouse.rpc.client.call import Call
from statehouse.rpc.client.connection import ClientConnection
from statehouse.rpc.client.credentials import Credentials, Target
from statehouse.rpc.client.dial import Dial, dialer
from statehouse.rpc.client.faults import NotConnectedError
from statehouse.rpc.client.loops import Loop, running_loop
from statehouse.rpc.client.protocol import Keepalive
from statehouse.rpc.client.request_headers import Greeting
from statehouse.rpc.client.retry import Attempts, Backoff, Random
from statehouse.rpc.contract import Method

__all__ = ["CONNECT_TIMEOUT_S", "TIMEOUT_S", "Transport"]

TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0


class Transport:
    """Calls to the daemon at `target`; opening it does not connect yet.

    Times are in seconds. One event loop uses it; its tasks may call it as they like.
    """

    def __init__(
        self,
        target: Target,
        credentials: Credentials | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        keepalive: Keepalive | None = None,
        random: Random = random.random,
        dial: Dial | None = None,
    ) -> None:
        """`random` draws the pauses; `dial` takes the place of sockets. ValueError: see `Credentials.tls_context`."""
        for name, seconds in (("timeout_s", timeout_s), ("connect_timeout_s", connect_timeout_s)):
            check_seconds(name, seconds)
        credentials = Credentials() if credentials is None else credentials
        self.address: Final = str(target)
        self._greeting = Greeting(target.authority, "https" if target.tls else "http", credentials.authorization)
        self._dial = dialer(target, credentials) if dial is None else dial
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._keepalive = Keepalive() if keepalive is None else keepalive
        self._random = random
        self._backoff = Backoff(random)
        self._connections: set[ClientConnection] = set()
        self._current: ClientConnection | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._loop: Loop | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._tasks is not None or self._closed:
            raise RuntimeError("a client is entered once")
        self._loop = running_loop()
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        self._tasks = tasks
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End every connection. An exception of the block passes as it is, not wrapped in a group."""
        tasks = self._tasks
        if tasks is None:
            raise RuntimeError("the client was not entered")
        self.close()
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)

    def close(self) -> None:
        """Fail the calls in flight and let the connections go. Idempotent, never waits."""
        self._closed = True
        for connection in list(self._connections):
            connection.lose("the client was closed")

    async def unary(self, method: Method, request: Message, *, timeout_s: float | None = None) -> Message:
        """One request, one answer. Raises StatehouseError: ConnectionError when no answer came in time.

        Waits for the connection and the answer, `timeout_s` together, and is sent again as `retry.py` has it.
        Cancelling resets the call's stream; the daemon may have carried it out.
        """
        limit_s = self.limit_s(timeout_s)
        message = request.SerializeToString()
        await anyio.lowlevel.checkpoint_if_cancelled()  # what is cancelled before it begins is never sent
        deadline = self.loop.now() + limit_s
        attempts: Attempts | None = None
        while True:
            try:
                return await self._unary_once(method, message, deadline, limit_s)
            except ConnectionError as error:
                failure = error
            if attempts is None:
                attempts = self.attempts(method, request)
            await attempts.failed(failure, deadline)

    async def _unary_once(self, method: Method, message: bytes, deadline: float, limit_s: float) -> Message:
        connection = self._current
        timeout_s = limit_s
        if connection is None or not connection.ready():
            connection = self.connection()
            if not await connection.until_ready(deadline):
                raise NotConnectedError(f"{method.name} could not be sent to {self.address} within {limit_s:g} s")
            timeout_s = max(0.0, deadline - self.loop.now())
        call = Call(method.name, deadline, limit_s, streaming=False)
        waiter = self.loop.waiter()
        call.wake = waiter.wake
        connection.start(call, method, message, timeout_s)
        try:
            await waiter.wait()
        finally:
            if not call.over:
                connection.leave(call)
        if call.error is not None:
            raise call.error
        if len(call.messages) != 1:
            raise ConnectionError(f"the server did not give one answer to {method.name}")
        return decode_answer(method, call.messages[0])

    # For the streams of message_stream.py

    @property
    def loop(self) -> Loop:
        """The loop of the block."""
        if self._loop is None:
            raise RuntimeError("the client is not open: use 'async with'")
        return self._loop

    def limit_s(self, timeout_s: float | None, *, endless: bool = False) -> float:
        """The time that a call has; TypeError and ValueError for what is none."""
        if timeout_s is None:
            return self._timeout_s
        if not (endless and timeout_s == math.inf):
            check_seconds("timeout_s", timeout_s)
        return timeout_s

    def connection(self) -> ClientConnection:
        """The connection that new calls use, made now if there is none."""
        if self._tasks is None:
            raise RuntimeError("the client is not open: use 'async with'")
        if self._closed:
            raise ConnectionError("the client is closed")
        current = self._current
        if current is None or not current.usable:
            dial_at, failed_with = -math.inf, None
            if current is None or current.served or current.lost is None:
                self._backoff.reset()
            else:
                dial_at, failed_with = current.lost_at + self._backoff.pause_s(), current.lost
            current = self._current = ClientConnection(
                self._dial,
                self.address,
                self._greeting,
                loop=self.loop,
                keepalive=self._keepalive,
                connect_timeout_s=self._connect_timeout_s,
                dial_at=dial_at,
                failed_with=failed_with,
            )
            self._tasks.start_soon(self._run, current)
        return current

    @property
    def closed(self) -> bool:
        """Whether no call can be made any more."""
        return self._closed

    def backoff(self) -> Backoff:
        """Pauses for somebody who tries again by himself."""
        return Backoff(self._random)

    def attempts(self, method: Method, request: Message | None, *, began: bool = False) -> Attempts:
        """What decides whether a call that failed is tried again; `began`: some of its answers came."""
        return Attempts(method.name, request, self.backoff(), self.loop.now, lambda: self._closed, began=began)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Run a function in the event loop, soon: from any thread, also from a finalizer. Never raises."""
        if self._loop is not None and not self._closed:
            with suppress(RuntimeError):  # the loop has ended, and the connections with it
                self._loop.call_soon(function)

    async def _run(self, connection: ClientConnection) -> None:
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


def check_seconds(name: str, seconds: object) -> None:
    """Raise TypeError for what is no number, ValueError unless it is finite and above 0."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{name} must be a number of seconds, not a {type(seconds).__name__}")
    try:
        finite = float(seconds)
    except OverflowError:
        raise ValueError(f"{name} must be a finite number of seconds above 0, got one that no float holds") from None
    if not (finite > 0 and math.isfinite(finite)):
        raise ValueError(f"{name} must be a finite number of seconds above 0, got {finite:g}")
