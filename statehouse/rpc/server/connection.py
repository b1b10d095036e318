"""One connection from the server's side: its calls, and what waits to be sent, live here.

Three kinds of task. The reader takes what comes, and answers at once each call whose handler has the answer
at once. A call that must wait gets a task of its own inside its own cancel scope, which the client's reset,
the call's deadline or the end of the connection cancels. The writer sends what the others have produced;
whoever produces faster than the peer reads waits for it, the reader included, so output stays bounded.

Nothing that one call does ends another. The connection ends when the peer leaves or breaks HTTP/2, when the
server has drained it, or when `run` is cancelled.
"""

import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, closing, suppress
from typing import Final, TypeAlias

import structlog
import trio
from h2.exceptions import H2Error
from purerpc.grpclib.events import MessageReceived, RequestEnded, RequestReceived, WindowUpdated

from statehouse.actors.reply import Reply
from statehouse.errors import InvalidRequestError, OverloadedError
from statehouse.limits import CALLS_PER_CONNECTION, KIB
from statehouse.rpc.error_table import EncodedError, encode_error
from statehouse.rpc.server.answer_budget import AnswerBudget, Hold
from statehouse.rpc.server.call import ServerCall, Unsent, Work
from statehouse.rpc.server.failures import answer_stalled, deadline_passed, encode_failure
from statehouse.rpc.server.protocol import CallRefused, CallReset, PeerLeft, ServerProtocol

__all__ = ["Find", "ServerConnection"]

RECEIVE_BYTES: Final = 64 * KIB
OUTPUT_BYTES: Final = 256 * KIB
"""With this much waiting to be sent, whoever produces more waits until it is gone."""
FAREWELL_S: Final = 1.0
"""How long the last output (statuses, GOAWAY) may take to leave when the connection ends."""
PREFACE_S: Final = 5.0
"""How long a peer may take until its first frames have come."""

Find: TypeAlias = Callable[[RequestReceived], ServerCall | EncodedError]
"""The call that a request asks for, or why there is none."""

log = structlog.stdlib.get_logger(__name__)


class ServerConnection:
    """One accepted connection. `run` is its whole life; the other methods belong to the server."""

    def __init__(self, stream: trio.abc.Stream, find: Find, max_request_bytes: int, answers: AnswerBudget) -> None:
        self._stream = stream
        self._find = find
        self._answers = answers
        self._protocol = ServerProtocol(max_request_bytes)
        self._protocol.initiate_connection()
        self._calls: dict[int, ServerCall] = {}
        self._nursery: trio.Nursery | None = None
        self._reading = trio.CancelScope()
        self._draining = False
        self._closing = False
        self._output = trio.Event()
        self._writer_ended = trio.Event()
        self._waiting_for_writer = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Serve the connection to its end. Does not close the stream; cancelling drops what is under way."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._write)
            self._reading.deadline = trio.current_time() + PREFACE_S
            with self._reading:
                await self._read()
            for call in list(self._calls.values()):
                self._drop(call)
            self._closing = True
            self._wake_writer()
            with trio.move_on_after(FAREWELL_S):
                await self._writer_ended.wait()
            nursery.cancel_scope.cancel()

    def drain(self) -> None:
        """Say goodbye, let the calls in flight finish, then end."""
        self._draining = True
        self._protocol.announce_shutdown()
        self._wake_writer()
        self._end_if_drained()

    def end_calls(self, error: EncodedError) -> None:
        """Stop every call in flight; its client is told `error`."""
        for call in list(self._calls.values()):
            call.cancel(error)
            if not call.working:
                self._end(call, error)

    # What comes in

    async def _read(self) -> None:
        while True:
            try:
                received = await self._stream.receive_some(RECEIVE_BYTES)
            except trio.BrokenResourceError:
                return
            if not received:
                return
            try:
                events = self._protocol.receive_data(received)
            except H2Error as error:
                log.info("a peer broke HTTP/2", error=str(error) or type(error).__name__)
                return
            for event in events:
                if isinstance(event, PeerLeft):
                    return
                self._take(event)
            if events:
                self._reading.deadline = math.inf  # the peer does speak HTTP/2
            self._wake_writer()
            await self._output_room()

    def _take(self, event: object) -> None:
        if isinstance(event, RequestReceived):
            self._admit(event)
        elif isinstance(event, MessageReceived):
            call = self._calls.get(event.stream_id)
            if call is not None and call.request is not None:
                self._end(call, encode_error(InvalidRequestError("the call takes one message, and more came")))
            elif call is not None:
                call.request = event.data
        elif isinstance(event, RequestEnded):
            call = self._calls.get(event.stream_id)
            if call is not None:
                self._start(call)
        elif isinstance(event, CallReset):
            call = self._calls.get(event.stream_id)
            if call is not None:
                self._drop(call)
        elif isinstance(event, CallRefused):
            call = self._calls.get(event.stream_id)
            if call is not None:
                self._end(call, event.error)
            else:
                self._refuse(event.stream_id, event.error)
        elif isinstance(event, WindowUpdated):
            for call in self._calls.values():
                if event.stream_id in (0, call.stream_id):
                    call.room.set()

    def _admit(self, request: RequestReceived) -> None:
        # h2 counts streams; a call whose stream was reset counts here until its work has really ended.
        full = len(self._calls) >= CALLS_PER_CONNECTION
        found = encode_error(OverloadedError("too many calls on this connection")) if full else self._find(request)
        if isinstance(found, EncodedError):
            self._refuse(request.stream_id, found)
        else:
            self._calls[request.stream_id] = found

    def _refuse(self, stream_id: int, error: EncodedError) -> None:
        with suppress(H2Error):  # h2 has read a reset that is not yet taken here
            self._protocol.refuse(stream_id, error, started=False)

    def _start(self, call: ServerCall) -> None:
        request, call.request = call.request, None
        if request is None:
            self._end(call, encode_error(InvalidRequestError("the call takes one message, and none came")))
            return
        self._room(call)
        if call.over:  # its reset came along with it: better not done than done for nobody
            self._end(call, None)
            return
        try:
            work = call.handler(request)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, it is this call's outcome
            self._end(call, encode_failure(error, call.method))
            return
        if isinstance(work, bytes) and self._room(call) >= (unsent := Unsent([work])).kept_bytes:
            self._send_now(call, unsent.take(unsent.kept_bytes))
            self._end(call, None)
        elif self._nursery is not None:
            call.working = True
            self._nursery.start_soon(self._work, call, work)

    # The calls that wait

    async def _work(self, call: ServerCall, work: bytes | Work) -> None:
        error = None
        call.scope.deadline = call.deadline
        with call.scope:
            try:
                if isinstance(work, bytes):
                    await self._send(call, [work])
                elif isinstance(work, Reply):
                    await self._send(call, [await work.wait()])
                elif isinstance(work, Coroutine):
                    with closing(work):  # cancelled in line, it never begins
                        async with self._hold(call) as hold:
                            await self._send(call, [await work], hold)
                else:
                    async with aclosing(work):
                        await self._send_chunks(call, work)
            except Exception as failure:  # noqa: BLE001 - the boundary: whatever it is, it is this call's outcome
                error = encode_failure(failure, call.method)
        if call.scope.cancelled_caught:
            error = call.ended_by or deadline_passed()
        call.working = False
        self._end(call, error)

    def _hold(self, call: ServerCall) -> AbstractAsyncContextManager[Hold]:
        return self._answers.hold(call.answer_bytes, end=lambda: call.cancel(answer_stalled()))

    async def _send_chunks(self, call: ServerCall, chunks: AsyncGenerator[list[bytes], None]) -> None:
        while not call.over:
            async with self._hold(call) as hold:
                messages = await anext(chunks, None)
                if messages is None:
                    return
                await self._send(call, messages, hold)

    async def _send(self, call: ServerCall, messages: list[bytes], hold: Hold | None = None) -> None:
        """Send messages of a call. Waits for the client's flow control, and for the writer."""
        unsent = Unsent(messages)
        if hold is not None:
            hold.keep(unsent.kept_bytes)
        while unsent and not call.over:
            room = self._room(call)
            if call.over:
                return
            if room <= 0:
                call.room = trio.Event()
                await call.room.wait()
            elif self._protocol.pending_output_bytes > OUTPUT_BYTES:
                await self._output_room()
            else:
                piece = unsent.take(room)
                call.inside_message = bool(unsent)
                self._send_now(call, piece)
                if hold is not None:
                    hold.keep(unsent.kept_bytes)
                self._wake_writer()

    def _room(self, call: ServerCall) -> int:
        """How much of an answer may be sent now, in one frame; finds out, too, whether the call is over."""
        if not self._protocol.is_open(call.stream_id):  # a reset was read and is not yet taken here
            call.over = True
            return 0
        return min(OUTPUT_BYTES, int(self._protocol.flow_control_window(call.stream_id)))

    def _send_now(self, call: ServerCall, piece: bytes) -> None:
        if call.over:
            return
        try:
            if not call.response_started:
                call.response_started = True
                self._protocol.start_response(call.stream_id, "+proto")
            self._protocol.send_data(call.stream_id, piece)
        except H2Error:
            call.over = True

    # The end of a call

    def _end(self, call: ServerCall, error: EncodedError | None) -> None:
        """Answer a call with its status, unless nobody hears it any more."""
        self._calls.pop(call.stream_id, None)
        if not call.over:
            call.over = True
            with suppress(H2Error):  # h2 has read a reset that is not yet taken here
                if error is None:
                    self._protocol.succeed(call.stream_id, started=call.response_started)
                elif call.inside_message:
                    self._protocol.cut_off(call.stream_id)
                else:
                    self._protocol.refuse(call.stream_id, error, started=call.response_started)
        self._wake_writer()
        self._end_if_drained()

    def _drop(self, call: ServerCall) -> None:
        """The client gave the call up, or is gone: stop the work and send nothing."""
        call.over = True
        call.scope.cancel()
        if not call.working:
            self._end(call, None)

    def _end_if_drained(self) -> None:
        if self._draining and not self._calls:
            self._reading.cancel()

    # What goes out

    async def _write(self) -> None:
        try:
            while True:
                output = self._protocol.data_to_send()
                if output:
                    await self._stream.send_all(output)
                    self._waiting_for_writer.unpark_all()
                elif self._closing:
                    return
                else:
                    self._output = trio.Event()
                    await self._output.wait()
        except trio.BrokenResourceError:
            self._reading.cancel()  # the peer is gone
        finally:
            self._writer_ended.set()

    def _wake_writer(self) -> None:
        self._output.set()

    async def _output_room(self) -> None:
        while self._protocol.pending_output_bytes > OUTPUT_BYTES:
            await self._waiting_for_writer.park()
