"""The calls of one connection: how each begins, is answered, and ends.

A call whose handler has the answer at once is answered in the reader's turn, without a task. One that waits for
a `Reply` has no task either: the reply answers it. Only streams, scans and answers that the client's windows hold
up get a task, in a cancel scope of their own.

A call ends by its answer, by the client's reset, at its deadline, or with its connection. Its work counts until
it has really ended. Nothing that one call does ends another.
"""

import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final, TypeAlias

import trio

from statehouse.actors.reply import Reply
from statehouse.errors import InvalidRequestError, OverloadedError, StatehouseError
from statehouse.rpc.error_table import EncodedError, GrpcStatus, encode_error
from statehouse.rpc.http2.streams import Stream
from statehouse.rpc.messages import MESSAGE_HEADER, MESSAGE_HEADER_BYTES, Compressed
from statehouse.rpc.server.access import Caller
from statehouse.rpc.server.answering import INFLATED_HERE_BYTES, Answering
from statehouse.rpc.server.call import ServerCall
from statehouse.rpc.server.call_headers import CallHeaders, refusal
from statehouse.rpc.server.capacity import Capacity
from statehouse.rpc.server.dispatch import Endpoint, Kind
from statehouse.rpc.server.events import (
    CallBegan,
    CallEvent,
    CallRefused,
    CallReset,
    MessageCame,
    RequestEnded,
    RoomGrew,
)
from statehouse.rpc.server.failures import deadline_passed, encode_failure, request_overdue
from statehouse.rpc.server.protocol import ServerProtocol
from statehouse.rpc.server.refusals import Refusal
from statehouse.rpc.server.sender import Sender

__all__ = ["Calls", "Find"]

REQUEST_S: Final = 60.0
"""How long a request may take to come in, and the next question of a conversation."""

Find: TypeAlias = Callable[[CallHeaders, str], "tuple[Endpoint, Caller] | EncodedError"]
"""The call that a request from a peer asks for and who asks, or why there is none."""


class Calls:
    """Belongs to one connection, which tells it what came and when to look at the time."""

    def __init__(
        self,
        protocol: ServerProtocol,
        sender: Sender,
        find: Find,
        capacity: Capacity,
        *,
        peer: str,
        nursery: trio.Nursery,
        ended: Callable[[], None],
    ) -> None:
        """`ended` is called whenever a call has ended, with its work; tasks run in `nursery`."""
        self._protocol = protocol
        self._sender = sender
        self._answering = Answering(protocol, sender, capacity)
        self._find = find
        self._capacity = capacity
        self._peer = peer
        self._nursery = nursery
        self._ended = ended
        self._calls: dict[int, ServerCall] = {}
        self._replies = 0  # calls that wait for one
        self.soonest_due = math.inf
        """When to `look`, at the latest; it may have become too early."""

    def __len__(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    def end_all(self, error: EncodedError) -> None:
        """Stop every call; its client is told `error`."""
        for call in list(self._calls.values()):
            if call.scope is None:
                self._end(call, error)
            else:
                call.cancel(error)

    def end_watchers(self, error: EncodedError) -> None:
        """Stop the calls that wait for what is committed from now on: they have no end to wait for."""
        for call in list(self._calls.values()):
            if call.watches:
                call.cancel(error)

    def refuse_watchers(self) -> None:
        """Let no call begin to wait for what is committed from now on; one that had been let in is told to go, too."""
        self._answering.takes_watchers = False

    def end_unstarted(self, error: EncodedError) -> None:
        """End the calls whose requests are not all there yet."""
        for call in list(self._calls.values()):
            if not call.working:
                self._end(call, error)

    def drop_all(self) -> None:
        """The client is gone: stop all work and send nothing."""
        for call in list(self._calls.values()):
            self._drop(call)

    def look(self, now: float) -> None:
        """End the calls whose time is up. Those that have a task are ended by its scope."""
        for call in list(self._calls.values()):
            if call.due <= now and call.scope is None and not call.over:
                self._end(call, deadline_passed() if call.due == call.deadline else request_overdue(REQUEST_S))
        waiting = (call.due for call in self._calls.values() if call.scope is None and not call.over)
        self.soonest_due = min(waiting, default=math.inf)

    def handle(self, event: CallEvent, now: float) -> None:
        """Take what came for a call."""
        if isinstance(event, CallBegan):
            self._admit(event.stream, event.headers, now)
        elif event.stream is None:
            for each in self._calls.values():
                each.wake()
        else:
            call = self._calls.get(event.stream.id)
            if call is not None:
                self._go_on(call, event)
            elif isinstance(event, CallRefused):
                self._protocol.refuse(event.stream, event.error, started=False)

    def _go_on(self, call: ServerCall, event: MessageCame | RequestEnded | RoomGrew | CallReset | CallRefused) -> None:
        if isinstance(event, MessageCame):
            self._message_came(call, event.message)
        elif isinstance(event, RequestEnded):
            self._start(call)
        elif isinstance(event, RoomGrew):
            call.wake()
        elif isinstance(event, CallReset):
            self._drop(call)
        else:
            self._end(call, event.error)

    def _admit(self, stream: Stream, headers: CallHeaders, now: float) -> None:
        found = self._find(headers, self._peer)
        if isinstance(found, EncodedError):
            self._protocol.refuse(stream, found, started=False)
            return
        if not self._capacity.let_in(found[0], len(self._calls)):
            error = OverloadedError("too many calls are under way")
            self._capacity.refusals.note(Refusal.TOO_MANY_CALLS, error.message, peer=self._peer, now=now)
            self._protocol.refuse(stream, encode_error(error), started=False)
            return
        deadline = math.inf if headers.timeout_s is None else now + headers.timeout_s
        due = min(deadline, now + REQUEST_S)
        self._calls[stream.id] = ServerCall(stream, *found, headers.gzip, deadline, due)
        self.soonest_due = min(self.soonest_due, due)

    def _message_came(self, call: ServerCall, message: bytes | Compressed) -> None:
        if call.stream.closed:  # its reset came along with it
            self._drop(call)
        elif isinstance(message, Compressed) and not call.gzip:
            self._end(call, refusal(GrpcStatus.INTERNAL, "a compressed message, and grpc-encoding does not say so"))
        elif call.endpoint.kind is Kind.CONVERSATION:
            call.due = min(call.deadline, trio.current_time() + REQUEST_S)
            self._converse(call, message)
        elif call.request is not None:
            self._end(call, encode_error(InvalidRequestError("the call takes one message, and more came")))
        else:
            call.request = message

    def _start(self, call: ServerCall) -> None:
        request, call.request = call.request, None
        call.due = call.deadline
        if call.stream.closed:  # its reset came along with it: better not done than done for nobody
            self._drop(call)
        elif call.endpoint.kind is Kind.CONVERSATION:
            self._end(call, None)
        elif request is None:
            self._end(call, encode_error(InvalidRequestError("the call takes one message, and none came")))
        elif isinstance(request, Compressed):
            self._inflate(call, request)
        elif self._answering.must_wait(call):
            self._in_task(call, self._answering.read_when_there_is_room(call, request, call.endpoint.answer_bytes))
        else:
            self._answer(call, request)

    def _inflate(self, call: ServerCall, request: Compressed) -> None:
        """In a task; until it begins, what came is held with the requests that are still coming in."""
        if self._capacity.requests.take(len(request.content)):
            self._in_task(call, self._answering.inflate(call, request))
        else:
            self._end(call, encode_error(OverloadedError("too many compressed requests wait to be inflated")))

    def _answer(self, call: ServerCall, request: bytes) -> None:
        try:
            work = call.endpoint.handler(request, call.caller)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, it is this call's outcome
            self._end(call, self._failure(call, error))
            return
        if isinstance(work, bytes):
            if self._protocol.answer(call.stream, work):
                self._forget(call)
            else:
                self._in_task(call, self._answering.send_late(call, work, request))
        elif isinstance(work, Reply):
            call.working = True
            self._replies += 1
            work.then(partial(self._settled, call))
        else:
            self._in_task(call, self._answering.carry_out(call, work, len(request)))

    def _settled(self, call: ServerCall, reply: Reply[bytes]) -> None:
        call.working = False
        self._replies -= 1
        if call.over:
            self._forget(call)
            return
        if reply.error is not None:
            self._end(call, self._failure(call, reply.error))
        elif self._protocol.answer(call.stream, answer := reply.result()):
            self._forget(call)
        else:
            self._in_task(call, self._answering.carry_out(call, answer))
        # Many replies are settled in one turn when commits are synced together; they go out together.
        if self._replies:
            self._sender.wake()
        else:
            self._sender.flush()

    def _converse(self, call: ServerCall, message: bytes | Compressed) -> None:
        try:
            if isinstance(message, Compressed):
                if len(message.content) > INFLATED_HERE_BYTES:
                    raise InvalidRequestError("a compressed question that is too long")  # noqa: TRY301
                message = message.inflate()
            answer: bytes = call.endpoint.handler(message, call.caller)
            if self._protocol.room(call.stream) < len(answer) + MESSAGE_HEADER_BYTES:
                raise OverloadedError("answers that were sent were not read: read on, or ask for less")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, it is this call's outcome
            self._end(call, self._failure(call, error))
        else:
            self._answering.send_now(call, MESSAGE_HEADER.pack(0, len(answer)) + answer)

    # The calls that need a task

    def _in_task(self, call: ServerCall, work: Coroutine[object, object, None]) -> None:
        call.working = True
        call.scope = trio.CancelScope(deadline=call.deadline)
        self._nursery.start_soon(self._run_call, call, call.scope, work)

    async def _run_call(self, call: ServerCall, scope: trio.CancelScope, work: Coroutine[object, object, None]) -> None:
        error = None
        try:
            with scope:
                try:
                    await work
                except Exception as failure:  # noqa: BLE001 - the boundary: whatever it is, it is this call's outcome
                    error = self._failure(call, failure)
            if scope.cancelled_caught:
                error = call.ended_by or deadline_passed()
            call.working = False
            self._end(call, error)
            self._sender.flush()
        finally:
            call.working = False
            self._forget(call)  # also when it is cancelled with its connection: who counts it must know

    # The end of a call

    def _end(self, call: ServerCall, error: EncodedError | None) -> None:
        """Answer a call with its status, unless nobody hears it any more; its work, if there is any, may go on."""
        if not call.over:
            call.over = True
            call.stop()
            if error is None:
                self._protocol.succeed(call.stream, started=call.response_started)
            elif call.inside_message:
                self._protocol.cut_off(call.stream)
            else:
                self._protocol.refuse(call.stream, error, started=call.response_started)
        self._forget(call)

    def _drop(self, call: ServerCall) -> None:
        """The client gave the call up, or is gone: stop the work and send nothing."""
        call.stop()
        self._forget(call)

    def _forget(self, call: ServerCall) -> None:
        """The call is over; it counts no more when nothing works for it."""
        call.over = True
        if not call.working and self._calls.pop(call.stream.id, None) is not None:
            self._capacity.let_out(call.endpoint, watches=call.watches)
            self._ended()

    def _failure(self, call: ServerCall, error: Exception) -> EncodedError:
        if isinstance(error, StatehouseError):
            self._capacity.refusals.note_error(error, peer=self._peer, now=trio.current_time())
        return encode_failure(error, call.endpoint.name)
