"""One connection to a daemon: its tasks, and who waits for it.

A connection is made, used by many calls at once, and lost; it is never mended. `ClientConnection.run` is its
whole life and belongs in a task: it waits for its time, dials, waits for the server's first SETTINGS, and then
reads until the end. Losing it, for whatever reason, fails every call that still has no answer, at once.

A call has no task, no cancel scope and no lock here: it is begun in its caller's turn, all calls that were begun
in one turn of the loop leave in one write, the reader wakes who waits for an answer, and one task watches the
clock for all of them.
"""

import math
from collections.abc import Callable
from typing import Final, NoReturn, cast

import anyio
import anyio.abc
import anyio.lowlevel

from statehouse.rpc.client.call import Call
from statehouse.rpc.client.dial import Dial, alert_of, reason_of, unread_poll, usual_reasons
from statehouse.rpc.client.faults import NotConnectedError, NotProcessedError
from statehouse.rpc.client.line import WaitingLine
from statehouse.rpc.client.loops import Loop, Waiter
from statehouse.rpc.client.protocol import ClientProtocol, Keepalive
from statehouse.rpc.client.request_headers import Greeting
from statehouse.rpc.contract import Method

__all__ = ["ClientConnection"]

RECEIVE_BYTES: Final = 256 * 1024
LAST_WORDS_S: Final = 0.5
"""How long what a server said before it hung up is read, when nothing can be sent to it any more."""

_BROKEN: Final = (
    OSError,
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.BusyResourceError,  # TLS that must answer the daemon while something is being sent
)


class ClientConnection:
    """One connection: `run` in a task, calls on it while it is `usable`."""

    def __init__(
        self,
        dial: Dial,
        address: str,
        greeting: Greeting,
        *,
        loop: Loop,
        keepalive: Keepalive,
        connect_timeout_s: float,
        dial_at: float,
        failed_with: str | None,
    ) -> None:
        """It is not dialed before `dial_at`, because of `failed_with`, what became of the one before it."""
        self._dial = dial
        self._address = address
        self._loop = loop
        self._connect_timeout_s = connect_timeout_s
        self._dial_at = dial_at
        self._failed_with = failed_with
        self._tls = greeting.scheme == "https"
        self._protocol = ClientProtocol(greeting, keepalive, address=address, now=loop.now())
        self._line = WaitingLine(loop, self._room)
        self._writer: Waiter | None = None
        self._watch: Waiter | None = None
        self._watch_until = 0.0
        self._scope: anyio.CancelScope | None = None
        self._has_unread: Callable[[], bool] = _nothing_unread
        self._open = False
        self.lost: str | None = None
        """Why it is over."""
        self.lost_at = 0.0

    @property
    def usable(self) -> bool:
        """Whether new calls may start here; true from the beginning, before it is connected."""
        return self.lost is None and not self._protocol.draining

    @property
    def served(self) -> bool:
        """Whether any call was answered here."""
        return self._protocol.answered

    def ready(self) -> bool:
        """Whether a call may start here right now."""
        if not self._open or self._protocol.draining or self._room() <= self._line.promised:
            return False
        return len(self._protocol.streams) > 0 or not self._has_unread()

    async def until_ready(self, deadline: float) -> bool:
        """Wait until a call may start here, which it must before its task waits for anything else.

        False when the deadline has passed. Raises NotConnectedError, and NotProcessedError when it was connected.
        """
        looked = False
        while True:
            if self.lost is not None or self._protocol.draining:
                self._refuse()
            if not self._open:
                # Once it is dialed it has a limit of its own, which is over for all at once.
                pausing = self._failed_with is not None
                limit = min(deadline, self._loop.now() + self._connect_timeout_s) if pausing else deadline
                if not await self._line.wait(limit):
                    if limit < deadline:
                        raise NotConnectedError(self._why_not_open())
                    return False
            elif self._room() <= self._line.promised:
                if not await self._line.wait(deadline):
                    return False
            elif not self._protocol.streams and not looked and self._has_unread():
                # The server may have hung up while this thread was busy elsewhere. Let the reader find out;
                # three rounds, because an event loop may take one to see it and one to tell.
                looked = True
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()
            else:
                return True

    def start(self, call: Call, method: Method, message: bytes, timeout_s: float | None) -> None:
        """Start a call, now that the connection is ready. `timeout_s` is told to the server."""
        self._protocol.start(call, method.path, message, timeout_s, self._loop.now())
        self._flush()

    async def messages(self, call: Call, deadline: float) -> None:
        """Wait until the call, a stream, is over or a message came; fails it when neither happens before `deadline`."""
        while not call.messages and not call.over:
            waiter = self._loop.waiter()
            call.wake = waiter.wake
            call.deadline = deadline
            self._protocol.check_at = min(self._protocol.check_at, call.deadline)
            self._protocol.want(call)
            self._flush()
            await waiter.wait()
            call.deadline = math.inf

    def leave(self, call: Call) -> None:
        """Nobody waits for the call any more. Idempotent, never waits."""
        self._protocol.leave(call)
        self._settle()

    def lose(self, reason: str) -> None:
        """End the connection: every call without an answer fails. Idempotent."""
        if self.lost is None:
            self.lost = reason
            self.lost_at = self._loop.now()
            self._open = False
            self._protocol.fail_all(reason)
            self._line.call_all()
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        """The connection's whole life. Never raises but for cancellation."""
        address = self._address
        dial_at = max(self._dial_at, self._loop.now())
        try:
            with anyio.CancelScope(deadline=dial_at + self._connect_timeout_s) as self._scope:
                if self.lost is None:
                    if dial_at > self._loop.now():
                        await anyio.sleep_until(dial_at)
                    self._failed_with = None
                    await self._connect_and_read()
            if self.lost is None:
                self.lose(self._why_not_open())
        except (OSError, ValueError) as error:  # ValueError: a name that no resolver, or TLS, takes
            self.lose(f"cannot connect to {address}: {reason_of(error)}")
        finally:
            self.lose(f"the connection to {address} was closed")

    # The tasks

    async def _connect_and_read(self) -> None:
        stream = await self._dial()
        self._has_unread = unread_poll(stream)
        async with stream, anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, stream)
            tasks.start_soon(self._keep_time)
            try:
                while True:
                    self._protocol.receive(await stream.receive(RECEIVE_BYTES), self._loop.now())
                    self._settle()
            except _BROKEN as error:
                self.lose(self._why_lost(error))

    async def _write(self, stream: anyio.abc.ByteStream) -> None:
        try:
            while True:
                if self._protocol.output:
                    output = cast("bytes", self._protocol.take_output())  # a bytearray serves, and nobody else has it
                    await stream.send(output)
                else:
                    self._writer = self._loop.waiter()
                    await self._writer.wait()
        except _BROKEN as error:
            if not self._protocol.greeted:
                # Why the server will not have us may have come, and not been read yet. No call has begun.
                await anyio.sleep(LAST_WORDS_S)
            self.lose(self._why_lost(error))

    async def _keep_time(self) -> None:
        while True:
            self._protocol.tick(self._loop.now())
            self._settle()
            self._watch = self._loop.waiter()
            self._watch_until = self._protocol.check_at
            with anyio.CancelScope(deadline=self._watch_until):
                await self._watch.wait()

    # What follows from a change of the protocol

    def _settle(self) -> None:
        """Something came, or a call was left: tell who waits for that."""
        protocol = self._protocol
        if self.lost is not None:
            return
        if protocol.ended is not None:
            verb = "broke the protocol" if protocol.greeted else "does not speak gRPC"
            self.lose(f"{self._address} {verb}: {protocol.ended.reason}")
        elif protocol.silent:
            self.lose(f"{self._address} does not answer")
        elif protocol.goaway_code:
            self.lose(f"{self._address} ended the connection with {protocol.goaway_reason}")
        elif protocol.draining:
            self._line.call_all()
            if protocol.streams:
                self._flush()
            else:
                self.lose(f"{self._address} closed the connection")
        else:
            if protocol.greeted and not self._open:
                self._begin()
            if self._line:
                self._line.let_in()
            self._flush()

    def _begin(self) -> None:
        self._open = True
        if self._scope is not None:
            self._scope.deadline = math.inf
        self._line.call_all()

    def _flush(self) -> None:
        protocol = self._protocol
        if protocol.output and self._writer is not None:
            self._writer.wake()
            self._writer = None
        if protocol.check_at < self._watch_until and self._watch is not None:
            self._watch.wake()
            self._watch = None

    # Waiting for the connection

    def _room(self) -> int:
        return self._protocol.most_streams - len(self._protocol.streams)

    def _refuse(self) -> NoReturn:
        reason = self.lost or f"{self._address} is closing the connection"
        raise (NotProcessedError if self._protocol.greeted else NotConnectedError)(reason)

    def _why_lost(self, error: Exception) -> str:
        if self._protocol.greeted:
            return f"the connection to {self._address} was lost{alert_of(error)}"
        return f"{self._address} closed the connection at once{alert_of(error)}: {usual_reasons(tls=self._tls)}"

    def _why_not_open(self) -> str:
        if self._failed_with is not None:
            return f"{self._failed_with} (it is tried again later)"
        return f"{self._address} did not answer as a Statehouse daemon within {self._connect_timeout_s:g} s"


def _nothing_unread() -> bool:
    return False
