"""How answers that cannot be sent at once are sent: in pieces, as the client's windows and the memory allow.

Everything here runs in the task of one call. What an answer holds of the memory that is shared for them is
`answer_budget.py`'s; a point read whose client has no window for it holds its answer there too.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, closing, nullcontext
from typing import Final

import trio

from statehouse.actors.event_stream import EventStream
from statehouse.actors.reply import Reply
from statehouse.limits import KIB
from statehouse.rpc.messages import Compressed
from statehouse.rpc.server.answer_budget import Hold
from statehouse.rpc.server.call import ServerCall, Unsent, Work
from statehouse.rpc.server.capacity import LISTING_BYTES, Capacity, ConnectionAnswers
from statehouse.rpc.server.dispatch import Kind
from statehouse.rpc.server.failures import answer_stalled, goodbye
from statehouse.rpc.server.protocol import ServerProtocol
from statehouse.rpc.server.sender import OUTPUT_BYTES, Sender

__all__ = ["INFLATED_HERE_BYTES", "Answering"]

SMALL_ANSWER_BYTES: Final = 4 * KIB
"""An answer up to this size may wait for the client's windows without being counted."""
INFLATED_HERE_BYTES: Final = KIB
"""A longer message in gzip is inflated in a worker thread."""


class Answering:
    """Sends the answers of one connection. Cancelling any of it ends that call's answer where it is."""

    def __init__(self, protocol: ServerProtocol, sender: Sender, capacity: Capacity) -> None:
        self._protocol = protocol
        self._sender = sender
        self._capacity = capacity
        self._answers = ConnectionAnswers(capacity)
        self.takes_watchers = True
        """False once the connection is to end: a call that follows would keep it for ever."""

    async def inflate(self, call: ServerCall, compressed: Compressed) -> None:
        """Carry out a call whose request came in gzip; gives back what the request holds of the requests' budget."""
        try:
            if len(compressed.content) <= INFLATED_HERE_BYTES:
                request = compressed.inflate()
            else:
                request = await trio.to_thread.run_sync(compressed.inflate, limiter=self._capacity.inflating)
        finally:
            self._capacity.requests.give_back(len(compressed.content))
        del compressed
        if self.must_wait(call):
            late = self.read_when_there_is_room(call, request, call.endpoint.answer_bytes)
            del request  # it is kept there, and counted
            await late
            return
        work = call.endpoint.handler(request, call.caller)
        if isinstance(work, bytes):
            late = self.send_late(call, work, request)
            del work, request  # they are held there, or not at all
            await late
        else:
            request_bytes = len(request)
            del request
            await self.carry_out(call, work, request_bytes)

    async def carry_out(self, call: ServerCall, work: bytes | Work, request_bytes: int = 0) -> None:
        """Send what a handler returned, when it is there. Raises what the work raises.

        A coroutine keeps what it was asked for, a request of `request_bytes`, until it has answered.
        """
        if isinstance(work, bytes):
            await self._send(call, [work])
        elif isinstance(work, Reply):
            await self._send(call, [await work.wait()])
        elif isinstance(work, Coroutine):
            # Closed here, because when it is cancelled in line it never begins.
            with closing(work), self._answers.keep(request_bytes) as kept:
                async with self._hold(call, call.endpoint.answer_bytes) as hold:
                    messages = [await work]
                    kept.let_go()
                    await self._send(call, messages, hold)
        elif isinstance(work, EventStream):
            if work.follows:
                if not self.takes_watchers:
                    raise goodbye()
                self._capacity.begin_watching()
                call.watches = True
            async with aclosing(work):
                await self._send_events(call, work)
        else:
            async with aclosing(work):
                await self._send_chunks(call, work)

    def send_late(self, call: ServerCall, answer: bytes, request: bytes) -> Coroutine[object, object, None]:
        """Send an answer that the client's windows did not let through at once.

        A small one is simply kept. For a large one, which only a read has, there must be room now; if there is none it
        is not kept, and read again when there is.
        """
        size = len(answer)
        if size <= SMALL_ANSWER_BYTES:  # it may be of a write: carried out once, whatever its answer is
            return self._send(call, [answer])
        hold = self._answers.budget(size).hold_now(size, self._end_of(call))
        if hold is not None:
            return self._send_held(call, answer, hold)
        # When it is read again a listing may be as large as any.
        most = call.endpoint.answer_bytes
        return self.read_when_there_is_room(call, request, most if most > LISTING_BYTES else size)

    async def read_when_there_is_room(self, call: ServerCall, request: bytes, size_bytes: int) -> None:
        """Carry out a read whose answer takes `size_bytes` at most when so much may be held, and not before.

        OverloadedError when the request is long, as of many keys, and there is no room to keep it until then.
        """
        with self._answers.keep(len(request)) as kept:
            with kept.waiting_for_client(self._end_of(call)):
                await self._window(call)
            async with self._hold(call, size_bytes) as hold:
                work = call.endpoint.handler(request, call.caller)
                messages = [await work if isinstance(work, Coroutine) else work]
                del work, request
                kept.let_go()
                await self._send(call, messages, hold)

    async def _send_held(self, call: ServerCall, answer: bytes, hold: Hold) -> None:
        with self._answers.budget(hold.size_bytes).holding(hold):
            await self._send(call, [answer], hold)

    def must_wait(self, call: ServerCall) -> bool:
        """Whether a call's answer may be large, and its client takes next to nothing now: better not read yet."""
        takes_next_to_nothing = self._protocol.room(call.stream) < SMALL_ANSWER_BYTES
        return call.endpoint.kind is Kind.UNARY and call.endpoint.answer_bytes > 0 and takes_next_to_nothing

    def send_now(self, call: ServerCall, piece: bytes) -> None:
        """Put a piece of an answer, within the client's windows, to the output."""
        if not call.response_started:
            call.response_started = True
            self._protocol.begin_answer(call.stream)
        self._protocol.send_data(call.stream, piece, ends=False)

    def _hold(self, call: ServerCall, size_bytes: int) -> AbstractAsyncContextManager[Hold | None]:
        if not size_bytes:
            return nullcontext()
        return self._answers.budget(size_bytes).hold(size_bytes, self._end_of(call))

    @staticmethod
    def _end_of(call: ServerCall) -> Callable[[], None]:
        return lambda: call.cancel(answer_stalled())

    async def _send_chunks(self, call: ServerCall, chunks: AsyncGenerator[list[bytes], None]) -> None:
        while not call.over:
            await self._window(call)  # first: for a client that takes nothing, nothing is read
            async with self._hold(call, call.endpoint.answer_bytes) as hold:
                messages = await anext(chunks, None)
                if messages is None:
                    return
                await self._send(call, messages, hold)

    async def _send_events(self, call: ServerCall, stream: EventStream) -> None:
        """Send events as they come. While it waits for them a stream holds nothing, and for few at a time little."""
        while not call.over:
            await self._window(call)
            size_bytes = await stream.wait()
            async with self._hold(call, size_bytes if size_bytes > SMALL_ANSWER_BYTES else 0) as hold:
                messages = await stream.step()
                if messages is None:
                    return
                if messages:
                    # What comes to many watchers of one connection in one turn of the event loop leaves together.
                    await self._send(call, messages, hold, flush=self._sender.wake)

    async def _window(self, call: ServerCall) -> None:
        """Wait until the client takes something, or the call is over."""
        while self._protocol.room(call.stream) <= 0 and not call.over:
            call.room = trio.Event()
            await call.room.wait()

    async def _send(
        self,
        call: ServerCall,
        messages: list[bytes],
        hold: Hold | None = None,
        *,
        flush: Callable[[], None] | None = None,
    ) -> None:
        """Send messages of a call. Waits for the client's flow control, and for the writer."""
        flush = flush or self._sender.flush
        unsent = Unsent(messages)
        if hold is not None:
            hold.keep(unsent.kept_bytes)
        while unsent and not call.over:
            if self._protocol.room(call.stream) <= 0:
                await self._window(call)
            elif self._sender.is_full:
                await self._sender.room()
            else:
                piece = unsent.take(min(OUTPUT_BYTES, self._protocol.room(call.stream)))
                call.inside_message = bool(unsent)
                self.send_now(call, piece)
                if hold is not None:
                    hold.keep(unsent.kept_bytes, taken_bytes=len(piece))
                flush()
