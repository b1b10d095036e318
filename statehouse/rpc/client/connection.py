"""One HTTP/2 connection from the client's side: its state and its calls live here.

A connection is made, used by many calls at once, and lost; it is never mended. `ClientConnection.run` is its
whole life and belongs in a task: it connects, waits for the server's first SETTINGS, and then reads until
the end. Losing it, for whatever reason, fails every call that still has no answer, at once.

purerpc's frames are used (client_protocol.py); its socket and stream classes are not: their queues have no
limit, a call in flight hangs for ever when the server dies, and a frame for a stream that is gone ends the
connection. Here

* a call that is left early is reset with CANCEL; what still arrives for it is dropped and its flow control
  returned, so that the connection stays whole;
* GOAWAY without an error is a farewell: no new call starts here, calls that the server will not look at
  fail as `NotProcessedError`, and those it will answer are waited for as long as the connection stands.
"""

import datetime as dt
import math
import os
import select
from collections import deque
from contextlib import suppress
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel
import h2.exceptions
from h2.errors import ErrorCodes

from statehouse.errors import ConnectionError
from statehouse.rpc.client.call import Call
from statehouse.rpc.client.protocol import ClientProtocol, NotProcessedError
from statehouse.rpc.contract import SERVICE_NAME

__all__ = ["ClientConnection"]

RECEIVE_BYTES: Final = 256 * 1024
STREAM_IDS: Final = 2**31 - 1
"""A connection ends with its stream ids: after about a thousand million calls."""
PING_ANSWER_S: Final = 5.0
"""How long a server that let a call run out of time may take to answer a ping."""


class ClientConnection:
    """One connection: `run` in a task, `open` calls on it while it is `usable`."""

    def __init__(self, host: str, port: int, *, connect_timeout_s: float) -> None:
        self._host = host
        self._port = port
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._connect_timeout_s = connect_timeout_s
        self._calls: dict[int, Call] = {}
        self._waiters: deque[anyio.Event] = deque()
        self._flush = anyio.Event()
        self._opened = anyio.Event()
        self._scope: anyio.CancelScope | None = None
        self._lost: str | None = None
        self._greeted = False
        self._draining = False
        self._unread: select.poll | None = None
        self._received_bytes = 0
        self._probing = False
        self._tasks: anyio.abc.TaskGroup | None = None
        self.protocol: Any = ClientProtocol(self)

    @property
    def usable(self) -> bool:
        """Whether new calls may start here; true from the beginning, before it is connected."""
        return self._lost is None and not self._draining

    async def run(self) -> None:
        """The connection's whole life. Never raises but for cancellation."""
        address = self._authority
        try:
            deadline = anyio.current_time() + self._connect_timeout_s
            with anyio.CancelScope(deadline=deadline) as self._scope:
                if self._lost is None:
                    await self._connect_and_read()
            if self._lost is None:
                self.lose(f"{address} did not answer as a Statehouse daemon within {self._connect_timeout_s:g} s")
        except OSError as error:
            self.lose(f"cannot connect to {address}: {_reason(error)}")
        finally:
            self.lose(f"the connection to {address} was closed")

    async def open(self, method_name: str, timeout_s: float | None) -> Call:
        """Start a call when the connection stands and the server takes another one.

        `timeout_s` is told to the server, which may then drop the work. Raises ConnectionError, and when it
        was connected before, NotProcessedError.
        """
        looked = False
        while True:
            if self._lost is not None:
                raise NotProcessedError(self._lost) if self._greeted else ConnectionError(self._lost)
            if self._draining:
                raise NotProcessedError(f"{self._authority} is closing the connection")
            if not self._opened.is_set():
                await self._opened.wait()
            elif len(self._calls) >= self.protocol.h2_connection.remote_settings.max_concurrent_streams:
                await self._wait_for_room()
            elif not self._calls and not looked and self._has_unread():
                # The server may have hung up while this thread was busy elsewhere. Let the reader find out;
                # three rounds, because an event loop may take one to see it and one to tell.
                looked = True
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()
            else:
                break
        stream_id: int = self.protocol.get_next_available_stream_id()
        self._draining = stream_id + 2 > STREAM_IDS
        # Whole seconds, rounded up: gRPC allows eight digits, and our own clock is the one that decides.
        timeout = None if timeout_s is None else dt.timedelta(seconds=math.ceil(timeout_s))
        self.protocol.start_request(
            stream_id, "http", SERVICE_NAME, method_name, None, self._authority, timeout, "+proto"
        )
        self.flush()
        call = self._calls[stream_id] = Call(self, stream_id)
        return call

    def lose(self, reason: str) -> None:
        """End the connection: every call without an answer fails with ConnectionError. Idempotent."""
        if self._lost is None:
            self._lost = reason
            for call in self._calls.values():
                call.fail(ConnectionError(reason))
            self._wake_all()
        if self._scope is not None:
            self._scope.cancel()

    def suspect(self) -> None:
        """A call ran out of time: ask whether anybody is there, and end the connection if nobody answers.

        Without it, calls to a host that vanished would each wait for their own deadline.
        """
        if self._tasks is not None and self._opened.is_set() and self._lost is None and not self._probing:
            self._probing = True
            self._tasks.start_soon(self._probe)

    # What calls and the protocol tell the connection.

    def flush(self) -> None:
        self._flush.set()

    def acknowledge(self, stream_id: int, size_bytes: int) -> None:
        if self._lost is None:
            self.protocol.acknowledge_received_data(stream_id, size_bytes)
            self.flush()

    def forget(self, stream_id: int, *, reset: bool) -> None:
        if self._calls.pop(stream_id, None) is None or self._lost is not None:
            return
        if reset:
            # It may be closed already, when the server reset it or ended it early.
            with suppress(h2.exceptions.StreamClosedError, h2.exceptions.NoSuchStreamError):
                self.protocol.reset_stream(stream_id, ErrorCodes.CANCEL)
            self.flush()
        if self._waiters:
            self._waiters.popleft().set()
        if self._draining and not self._calls:
            self.lose(f"{self._authority} closed the connection")

    def call_of(self, stream_id: int) -> Call | None:
        return self._calls.get(stream_id)

    def greeted(self) -> None:
        """The server's settings came: it speaks HTTP/2. Calls may start, or have more room."""
        if self._scope is not None:
            self._scope.deadline = math.inf
        self._greeted = True
        self._opened.set()
        self._wake_all()

    def window_grew(self) -> None:
        for call in self._calls.values():
            call.look_again()

    def farewell(self, last_stream_id: int, error_code: int) -> None:
        """GOAWAY came."""
        if error_code != ErrorCodes.NO_ERROR:
            self.lose(f"{self._authority} ended the connection with HTTP/2 error {error_code}")
            return
        self._draining = True
        for stream_id, call in self._calls.items():
            if stream_id > last_stream_id:
                call.fail(NotProcessedError(f"{self._authority} is closing the connection"))
        self._wake_all()
        if not self._calls:
            self.lose(f"{self._authority} closed the connection")

    # The tasks.

    async def _connect_and_read(self) -> None:
        stream = await anyio.connect_tcp(self._host, self._port)
        self._unread = select.poll()
        self._unread.register(stream.extra(anyio.abc.SocketAttribute.raw_socket), select.POLLIN)  # noqa: S610  no Django
        async with stream, anyio.create_task_group() as self._tasks:
            self.protocol.initiate_connection()
            self._tasks.start_soon(self._write, stream)
            try:
                while True:
                    self._received(await stream.receive(RECEIVE_BYTES))
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.lose(f"the connection to {self._authority} was lost")
            except (h2.exceptions.ProtocolError, ValueError, LookupError) as error:  # h2 lets some of its own out
                self.lose(f"{self._authority} does not speak gRPC: {error or type(error).__name__}")

    def _received(self, chunk: bytes) -> None:
        if not self._received_bytes and chunk.startswith(b"HTTP/"):
            # Read as a frame it would be a large one, whose end would be waited for.
            raise h2.exceptions.ProtocolError("it speaks HTTP/1")
        self._received_bytes += len(chunk)
        self.protocol.receive_data(chunk)
        self.flush()

    def _has_unread(self) -> bool:
        return self._unread is not None and bool(self._unread.poll(0))

    async def _write(self, stream: anyio.abc.SocketStream) -> None:
        while True:
            chunk = self.protocol.data_to_send()
            if not chunk:
                self._flush = anyio.Event()
                await self._flush.wait()
                continue
            try:
                await stream.send(chunk)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.lose(f"the connection to {self._authority} was lost")

    async def _probe(self) -> None:
        received_bytes = self._received_bytes
        self.protocol.h2_connection.ping(b"statehse")
        self.flush()
        await anyio.sleep(PING_ANSWER_S)
        self._probing = False
        if self._received_bytes == received_bytes:
            self.lose(f"{self._authority} does not answer")

    async def _wait_for_room(self) -> None:
        waiter = anyio.Event()
        self._waiters.append(waiter)
        try:
            await waiter.wait()
        except anyio.get_cancelled_exc_class():
            if not waiter.is_set():
                self._waiters.remove(waiter)
            elif self._waiters:
                self._waiters.popleft().set()  # the room that we were given is the next one's
            raise

    def _wake_all(self) -> None:
        self._opened.set()
        while self._waiters:
            self._waiters.popleft().set()
        self.window_grew()


def _reason(error: OSError) -> str:
    """Why connecting failed, in the system's words: the libraries between wrap them in the address again."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if cause.errno and cause.errno > 0:
        return os.strerror(cause.errno)
    return cause.strerror or str(cause)  # a name that was not found has a number of its own
