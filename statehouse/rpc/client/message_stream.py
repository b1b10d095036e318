"""The answers of a streaming call, as they come; begun again where they broke off, if the call allows it."""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import anyio.lowlevel
from google.protobuf.message import Message

from statehouse.errors import ConnectionError
from statehouse.rpc.client.answers import decode_answer
from statehouse.rpc.client.call import Call
from statehouse.rpc.client.connection import ClientConnection
from statehouse.rpc.client.faults import NotConnectedError
from statehouse.rpc.client.resuming import Resume
from statehouse.rpc.client.retry import POLICIES, Attempts
from statehouse.rpc.contract import Method
from statehouse.rpc.messages import Compressed

if TYPE_CHECKING:
    from statehouse.rpc.client.transport import Transport

__all__ = ["MessageStream"]

BATCH_MESSAGES: Final = 256


class MessageStream:
    """Use it with `async for`, or batch by batch; the call starts when the first answer is asked for.

    `limit_s` bounds each wait for the next answer, not the whole; `math.inf` is no bound. Only as much is held as
    the stream's window lets in: a slow reader slows the daemon. Whoever leaves before the end calls `aclose`, or
    drops it: the call is then reset. Cancelling a wait ends the stream.
    """

    def __init__(
        self,
        transport: "Transport",
        method: Method,
        request: Message | None,
        limit_s: float,
        *,
        resume: Resume | None = None,
    ) -> None:
        """`resume` is the place of a reader who has read before, with `request` for the rest; else it begins anew."""
        self._finished = False  # first, for `abandon` runs whatever else fails here
        self._transport = transport
        self._method = method
        self._request: Message | None = request
        self._limit_s = limit_s
        self._connection: ClientConnection | None = None
        self._call: Call | None = None
        begin = POLICIES[method.name].resume
        if resume is None and begin is not None and request is not None:
            resume = begin(request)
        self._resume = resume
        self._began = False
        self._ready: deque[bytes | Compressed] = deque()
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
            batch: list[Message] = []
            ended = False
            while not (batch or ended):
                if self._ready:
                    await anyio.lowlevel.checkpoint()
                else:
                    self._ready.extend(await self._receive())
                messages = [self._ready.popleft() for _ in range(min(len(self._ready), BATCH_MESSAGES))]
                ended = not messages
                batch = [decode_answer(self._method, message) for message in messages]
                self._began = self._began or bool(batch)
                if self._resume is not None:
                    batch = self._resume.take(batch)
            going_on = not ended
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
            if self._call is not None and self._connection is not None:
                self._transport.call_soon(partial(self._connection.leave, self._call))

    __del__ = abandon

    async def _receive(self) -> list[bytes | Compressed]:
        """What came next; begins again, where it broke off, when the connection was lost. Nothing: the end."""
        deadline = self._transport.loop.now() + self._limit_s
        attempts: Attempts | None = None
        while True:
            try:
                return await self._receive_once(deadline)
            except ConnectionError as error:
                failure = error
            self._leave_call()
            if attempts is None:
                attempts = self._transport.attempts(self._method, self._request, began=self._began)
            await attempts.failed(failure, deadline)
            if self._resume is not None:
                self._request = self._resume.rest()
            if self._request is None:
                return []

    async def _receive_once(self, deadline: float) -> list[bytes | Compressed]:
        if self._call is None:
            await self._begin(deadline)
        call, connection = self._call, self._connection
        if call is None or connection is None:
            return []
        await connection.messages(call, deadline)
        messages, call.messages = call.messages, []
        if not messages and call.error is not None:
            raise call.error
        return messages

    async def _begin(self, deadline: float) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        connection = self._transport.connection()
        if not await connection.until_ready(deadline):
            what = f"{self._method.name} could not be sent to {self._transport.address} within {self._limit_s:g} s"
            raise NotConnectedError(what)
        if self._request is not None:
            self._connection = connection
            self._call = Call(self._method.name, deadline, self._limit_s, streaming=True)
            connection.start(self._call, self._method, self._request.SerializeToString(), None)

    def _finish(self) -> None:
        self._finished = True
        self._leave_call()

    def _leave_call(self) -> None:
        call, self._call = self._call, None
        if call is not None and self._connection is not None:
            self._connection.leave(call)
