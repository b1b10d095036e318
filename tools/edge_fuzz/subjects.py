"""Who receives what the fuzz sends: the server's protocol and a client, each with a caller who does what callers do.

The caller answers, streams, refuses, cuts off and waits, as a generator of chance says, and never breaks the
connection's interface; so whatever goes wrong is the connection's.
"""

from random import Random
from typing import Any, Final, Protocol

from statehouse.errors import InvalidRequestError
from statehouse.limits import CALLS_PER_CONNECTION, MIB
from statehouse.rpc.error_table import GrpcStatus
from statehouse.rpc.http2.connection import Connection
from statehouse.rpc.http2.frames import ErrorCode, Setting
from statehouse.rpc.http2.header_blocks import Fields, HeaderDecoder, HeaderEncoder
from statehouse.rpc.http2.streams import Stream
from statehouse.rpc.messages import Compressed
from statehouse.rpc.server import events
from statehouse.rpc.server.call_headers import refusal
from statehouse.rpc.server.protocol import RequestBudget, ServerProtocol

__all__ = ["ClientSubject", "ServerSubject", "Subject"]

REQUEST_BYTES: Final = 256 * 1024
CLIENT_CALLS: Final = 32
CLIENT_WINDOW_BYTES: Final = MIB
SENT_AT_ONCE_BYTES: Final = 20_000
"""Of a stream in one turn; more than one frame."""

_REFUSAL: Final = refusal(GrpcStatus.UNIMPLEMENTED, "no")
_ANSWERS: Final = (b"", b"answer", bytes(200), bytes(3_000), bytes(16_379), bytes(16_380))
_CONTENT: Final = bytes(SENT_AT_ONCE_BYTES)
_CALL: Final = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/statehouse.v1.StatehouseService/GetState"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]


class Subject(Protocol):
    """A connection and its caller."""

    @property
    def connection(self) -> Connection[Any]: ...

    def act(self) -> None:
        """Do something about what came."""

    def count(self) -> int:
        """How many events wait."""

    def leave(self) -> list[str]:
        """The connection is over; what is still held that should not be."""


class ServerSubject:
    """The server's protocol, and handlers."""

    def __init__(self, chance: Random, now: float) -> None:
        self._chance = chance
        self._budget = RequestBudget(2 * REQUEST_BYTES)
        self.connection = ServerProtocol(REQUEST_BYTES, self._budget, now)
        self._waiting: dict[int, tuple[Stream, bytes]] = {}
        self._streaming: dict[int, Stream] = {}

    def act(self) -> None:
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
        return len(self.connection.take_events())

    def leave(self) -> list[str]:
        self.connection.let_go_of_all()
        held = [f"{self._budget.held_bytes} bytes of the budget are held"] if self._budget.held_bytes else []
        if len(self.connection.streams) > CALLS_PER_CONNECTION:
            held.append(f"{len(self.connection.streams)} streams are open")
        return held


class _Client(Connection[Fields]):
    """The client's role, with nothing above it."""

    def __init__(self, now: float) -> None:
        super().__init__(
            client=True,
            settings={Setting.ENABLE_PUSH: 0, Setting.MAX_CONCURRENT_STREAMS: 0},
            window_bytes=CLIENT_WINDOW_BYTES,
            decoder=HeaderDecoder(list),
            now=now,
        )
        self.encoder = HeaderEncoder()
        self.came = 0

    def open(self) -> Stream:
        self.highest_stream_id += 2 if self.highest_stream_id else 1
        return self._new_stream(self.highest_stream_id)

    def _headers_came(self, stream: Stream, headers: Fields, *, ends: bool) -> None:  # noqa: ARG002
        self.came += 1

    def _data_came(self, stream: Stream, payload: bytes, *, ends: bool) -> None:
        self.came += 1
        if not ends and payload:
            self.grant(stream, len(payload))

    def _reset_came(self, stream: Stream, code: int) -> None:  # noqa: ARG002
        self.came += 1

    def _setting_came(self, name: int, value: int) -> None:
        if name == Setting.HEADER_TABLE_SIZE:
            self.encoder.limit_table(value)


class ClientSubject:
    """A client that keeps calls under way."""

    def __init__(self, chance: Random, now: float) -> None:
        self._chance = chance
        self.connection = _Client(now)
        self.act()

    def act(self) -> None:
        connection, chance = self.connection, self._chance
        connection.came = 0
        while len(connection.streams) < CLIENT_CALLS and chance.random() < 0.6:
            stream = connection.open()
            connection.send_headers(stream, connection.encoder.encode(_CALL), ends=chance.random() < 0.3)
        for stream in list(connection.streams.values()) if chance.random() < 0.3 else ():
            what = chance.random()
            if what < 0.03:
                connection.reset(stream, ErrorCode.CANCEL)
            elif what < 0.5 and stream.state == 0:
                room = max(0, min(connection.room(stream), SENT_AT_ONCE_BYTES))
                connection.send_data(stream, _CONTENT[:room], ends=not room or chance.random() < 0.5)

    def count(self) -> int:
        came, self.connection.came = self.connection.came, 0
        return came

    def leave(self) -> list[str]:
        return []
