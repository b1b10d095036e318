"""The clients' way to a daemon: calls go in as messages, answers come out, errors are our own.

`Transport` is the whole boundary. It connects when a call needs it, shares one connection among all calls,
and connects again after the connection was lost; the call that was in flight then has failed with
ConnectionError, for only its caller knows whether it may be repeated. Only what the server says it did not
look at is sent again here, once.

Nothing waits for ever: a connection is made within `connect_timeout_s`, a unary call ends within
`timeout_s`, and so does each wait for a stream's next message.

Used as `async with Transport(...)`, under Trio or asyncio: the connection's tasks live in that block.
"""

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from numbers import Real
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.abc
import anyio.lowlevel
import trio
from google.protobuf.message import DecodeError, Message

from statehouse.errors import ConnectionError, StatehouseError
from statehouse.rpc.client.call import Call
from statehouse.rpc.client.connection import ClientConnection
from statehouse.rpc.client.protocol import NotProcessedError
from statehouse.rpc.contract import Method

__all__ = ["CONNECT_TIMEOUT_S", "TIMEOUT_S", "MessageStream", "Transport"]

TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
BATCH_MESSAGES: Final = 256


class Transport:
    """Calls to the daemon at `host`:`port`; opening it does not connect yet.

    Times are in seconds. One event loop uses it; its tasks may call it as they like.
    """

    def __init__(
        self, host: str, port: int, *, timeout_s: float = TIMEOUT_S, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        for name, seconds in (("timeout_s", timeout_s), ("connect_timeout_s", connect_timeout_s)):
            if not isinstance(seconds, Real) or isinstance(seconds, bool):
                raise TypeError(f"{name} must be a number of seconds, not a {type(seconds).__name__}")
            if not (seconds > 0 and math.isfinite(seconds)):
                raise ValueError(f"{name} must be a finite number of seconds above 0, got {seconds}")
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._connections: set[ClientConnection] = set()
        self._current: ClientConnection | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._soon: Callable[[Callable[[], object]], object] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._tasks is not None or self._closed:
            raise RuntimeError("a client is entered once")
        self._soon = _call_soon()
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

        Waits for the connection and the answer, `timeout_s` together. Cancelling resets the call's stream;
        the daemon may have carried it out.
        """
        message = request.SerializeToString()
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        connection: ClientConnection | None = None
        await anyio.lowlevel.checkpoint_if_cancelled()  # what is cancelled before it begins is never sent
        with anyio.move_on_after(limit_s):
            for attempts_left in (1, 0):
                connection = self.connection()
                try:
                    return _decode(method, await _exchange(connection, method, message, limit_s))
                except NotProcessedError:
                    if not attempts_left:
                        raise
        if connection is not None:
            connection.suspect()
        raise ConnectionError(f"{method.name} was not answered by {self._host}:{self._port} within {limit_s:g} s")

    def stream(self, method: Method, request: Message, *, timeout_s: float | None = None) -> "MessageStream":
        """One request, any number of answers; the call starts when the first is asked for.

        `timeout_s` bounds each wait for the next answer, not the whole.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        return MessageStream(self, method, request.SerializeToString(), limit_s)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Run a function in the event loop, soon: from any thread, also from a finalizer. Never raises."""
        if self._soon is not None and not self._closed:
            with suppress(RuntimeError):  # the loop has ended, and the connections with it
                self._soon(function)

    def connection(self) -> ClientConnection:
        """The connection that new calls use, made now if there is none; for the streams of this module."""
        if self._tasks is None:
            raise RuntimeError("the client is not open: use 'async with'")
        if self._closed:
            raise ConnectionError("the client is closed")
        if self._current is None or not self._current.usable:
            self._current = ClientConnection(self._host, self._port, connect_timeout_s=self._connect_timeout_s)
            self._tasks.start_soon(self._run, self._current)
        return self._current

    async def _run(self, connection: ClientConnection) -> None:
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class MessageStream:
    """The answers of a streaming call, as they come. Use it with `async for`, or batch by batch.

    Only as much is held as the connection's window lets in: a slow reader slows the daemon. Whoever leaves
    before the end calls `aclose`, or drops it: the call is then reset. Cancelling a wait ends the stream.
    """

    def __init__(self, transport: Transport, method: Method, request: bytes, timeout_s: float) -> None:
        self._transport = transport
        self._method = method
        self._request = request
        self._timeout_s = timeout_s
        self._connection: ClientConnection | None = None
        self._call: Call | None = None
        self._began = False
        self._finished = False
        self._ready: deque[bytes] = deque()
        self._taken: deque[Message] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if not self._taken:
            self._taken.extend(await self.next_batch())
            if not self._taken:
                raise StopAsyncIteration
        return self._taken.popleft()

    async def next_batch(self) -> list[Message]:
        """Some answers, at least one; none at the end. Raises StatehouseError.

        At most BATCH_MESSAGES, so that decoding them does not hold up the event loop.
        """
        if self._finished:
            return []
        going_on = False
        try:
            if self._ready:
                await anyio.lowlevel.checkpoint()
            else:
                self._ready.extend(await self._receive_in_time())
            messages = [self._ready.popleft() for _ in range(min(len(self._ready), BATCH_MESSAGES))]
            batch = [_decode(self._method, message) for message in messages]
            going_on = bool(batch)
        finally:
            if not going_on:
                self._finish()
        return batch

    async def aclose(self) -> None:
        """Leave the stream; the daemon is told to stop. Idempotent."""
        self._taken.clear()
        self._ready.clear()
        self._finish()

    def abandon(self) -> None:
        """Leave the stream from any thread, and from a finalizer."""
        if not self._finished:
            self._finished = True
            if self._call is not None:
                self._transport.call_soon(self._call.finish)

    __del__ = abandon

    async def _receive_in_time(self) -> list[bytes]:
        with anyio.move_on_after(self._timeout_s):
            try:
                messages = await self._receive()
            except NotProcessedError:
                if self._began:
                    raise
                self._leave_call()
                messages = await self._receive()
            self._began = True
            return messages
        if self._connection is not None:
            self._connection.suspect()
        raise ConnectionError(f"{self._method.name}: nothing came within {self._timeout_s:g} s")

    async def _receive(self) -> list[bytes]:
        if self._call is None:
            self._connection = self._transport.connection()
            self._call = await self._connection.open(self._method.name, None)
            await self._call.send(self._request)
        return await self._call.receive()

    def _finish(self) -> None:
        self._finished = True
        self._leave_call()

    def _leave_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.finish()


async def _exchange(connection: ClientConnection, method: Method, message: bytes, timeout_s: float) -> bytes:
    call = await connection.open(method.name, timeout_s)
    try:
        await call.send(message)
        answers = await call.receive()
        if answers and not await call.receive():  # the status follows the answer, and counts
            return answers[0]
    finally:
        call.finish()
    raise ConnectionError(f"the server did not give one answer to {method.name}")


def _decode(method: Method, message: bytes) -> Message:
    try:
        return method.response_type.FromString(message)
    except DecodeError as error:
        raise StatehouseError(f"the answer to {method.name} is not readable: {error}") from error


def _call_soon() -> Callable[[Callable[[], object]], object]:
    """The running loop's way to be called from other threads and finalizers."""
    if trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_trio_token().run_sync_soon
    import asyncio  # not loaded under Trio

    return asyncio.get_running_loop().call_soon_threadsafe
