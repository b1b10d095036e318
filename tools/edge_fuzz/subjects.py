"""Who receives what the fuzz sends: the server's protocol and the client's, each with callers who do what callers do.

They call, answer, stream, refuse, leave and wait, as a generator of chance says, and never break the
connection's interface; so whatever goes wrong is the connection's.
"""

from random import Random
from typing import Any, Final, Protocol

from statehouse.errors import InvalidRequestError
from statehouse.limits import CALLS_PER_CONNECTION
from statehouse.rpc.client.call import Call
from statehouse.rpc.client.protocol import ClientProtocol, Keepalive
from statehouse.rpc.client.request_headers import Greeting
from statehouse.rpc.error_table import GrpcStatus
from statehouse.rpc.http2.connection import Connection
from statehouse.rpc.http2.streams import Stream
from statehouse.rpc.messages import Compressed
from statehouse.rpc.server import events
from statehouse.rpc.server.call_headers import refusal
from statehouse.rpc.server.protocol import ServerProtocol
from statehouse.rpc.server.request_budget import RequestBudget

__all__ = ["ClientSubject", "ServerSubject", "Subject"]

REQUEST_BYTES: Final = 256 * 1024
CLIENT_CALLS: Final = 32
CLIENT_TIMEOUT_S: Final = 0.5
SENT_AT_ONCE_BYTES: Final = 20_000
"""Of a stream in one turn; more than one frame."""

_REFUSAL: Final = refusal(GrpcStatus.UNIMPLEMENTED, "no")
_ANSWERS: Final = (b"", b"answer", bytes(200), bytes(3_000), bytes(16_379), bytes(16_380))
_CONTENT: Final = bytes(SENT_AT_ONCE_BYTES)
_PATHS: Final = ("/statehouse.v1.StatehouseService/GetState", "/statehouse.v1.StatehouseService/Replay")


class Subject(Protocol):
    """A connection and its caller."""

    waiting_bytes: int
    """The most that can wait for windows, and leave when they grow."""

    @property
    def connection(self) -> Connection[Any]: ...

    def act(self, now: float) -> None:
        """Do something about what came."""

    def count(self) -> int:
        """A number that grows when anything comes that the caller has not looked at."""

    def leave(self) -> list[str]:
        """The connection is over; what is still held that should not be."""


class ServerSubject:
    """The server's protocol, and handlers."""

    waiting_bytes = CALLS_PER_CONNECTION * 256  # answers to what is no gRPC

    def __init__(self, chance: Random, now: float) -> None:
        self._chance = chance
        self._budget = RequestBudget(2 * REQUEST_BYTES)
        self.connection = ServerProtocol(REQUEST_BYTES, self._budget, now)
        self._waiting: dict[int, tuple[Stream, bytes]] = {}
        self._streaming: dict[int, Stream] = {}
        self._left = 0

    def act(self, now: float) -> None:  # noqa: ARG002
        grew = self._chance.random() < 0.1
        for event in self.connection.take_events():
            if isinstance(event, events.RequestEnded):
                self._answer(event.stream)
            elif isinstance(event, events.CallRefused):
                self.connection.refuse(event.stream, event.error, started=event.stream.id in self._streaming)
                self._forget(event.stream)
            elif isinstance(event, events.CallReset):
                self._forget(event.stream)
            elif isinstance(event, events.RoomGrew):
                grew = True
            elif isinstance(event, events.MessageCame) and isinstance(event.message, Compressed):
                try:
                    event.message.inflate()
                except InvalidRequestError:
                    self.connection.cut_off(event.stream)
                    self._forget(event.stream)
        self.connection.let_go_of_ended()
        if grew:
            self._send_more()

    def _answer(self, stream: Stream) -> None:
        what = self._chance.random()
        if stream.closed:
            return
        if what < 0.6:
            answer = self._chance.choice(_ANSWERS)
            if not self.connection.answer(stream, answer):
                self._waiting[stream.id] = stream, answer
        elif what < 0.8:
            self.connection.begin_answer(stream)
            self._streaming[stream.id] = stream
        elif what < 0.9:
            self.connection.refuse(stream, _REFUSAL, started=False)
        elif what < 0.95:
            self.connection.cut_off(stream)

    def _send_more(self) -> None:
        for stream, answer in list(self._waiting.values()):
            if stream.closed or self.connection.answer(stream, answer):
                self._forget(stream)
        for stream in list(self._streaming.values()):
            if stream.closed:
                self._forget(stream)
            elif self._chance.random() < 0.3:
                self.connection.succeed(stream, started=True)
                self._forget(stream)
            elif (room := self.connection.room(stream)) > 0:
                self.connection.send_data(stream, _CONTENT[: min(room, SENT_AT_ONCE_BYTES)], ends=False)

    def _forget(self, stream: Stream) -> None:
        self._waiting.pop(stream.id, None)
        self._streaming.pop(stream.id, None)

    def count(self) -> int:
        self._left += len(self.connection.take_events())
        return self._left

    def leave(self) -> list[str]:
        self.connection.let_go_of_all()
        held = [f"{self._budget.held_bytes} bytes of the budget are held"] if self._budget.held_bytes else []
        if len(self.connection.streams) > CALLS_PER_CONNECTION:
            held.append(f"{len(self.connection.streams)} streams are open")
        return held


class ClientSubject:
    """The client's protocol, and callers."""

    waiting_bytes = CLIENT_CALLS * SENT_AT_ONCE_BYTES

    def __init__(self, chance: Random, now: float) -> None:
        self._chance = chance
        greeting = Greeting("localhost", authorization=chance.choice((None, b"Bearer secret")))
        self.connection = ClientProtocol(greeting, Keepalive(), address="localhost", now=now)
        self._calls: list[Call] = []
        self.act(now)

    def act(self, now: float) -> None:
        connection, chance = self.connection, self._chance
        if now >= connection.check_at:
            connection.tick(now)
        most = min(CLIENT_CALLS, connection.most_streams)
        while not connection.draining and len(connection.streams) < most and chance.random() < 0.6:
            call = Call("GetState", now + CLIENT_TIMEOUT_S, CLIENT_TIMEOUT_S, streaming=chance.random() < 0.4)
            self._calls.append(call)
            connection.start(call, chance.choice(_PATHS), chance.choice(_ANSWERS), chance.choice((None, 0.25)), now)
        for call in self._calls:
            what = chance.random()
            if what < 0.01:
                connection.leave(call)
            elif call.streaming and what < 0.5:
                call.messages.clear()
                connection.want(call)
        self._calls = [call for call in self._calls if not call.over]

    def count(self) -> int:
        return sum(len(call.messages) + call.over for call in self._calls)

    def leave(self) -> list[str]:
        self.connection.fail_all("the connection is over")
        return [f"a call on stream {call.stream and call.stream.id} hangs" for call in self._calls if not call.over]
