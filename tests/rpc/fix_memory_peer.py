"""A server's connection over memory, on a virtual clock, and a peer that speaks HTTP/2 frame by frame."""

import math
import struct
import time
from functools import partial
from typing import NamedTuple

import pytest
import trio
import trio.testing

from statehouse.rpc.error_table import GrpcStatus
from statehouse.rpc.http2.frames import (
    ACK,
    CONNECTION_PREFACE,
    END_HEADERS,
    END_STREAM,
    FrameType,
    Setting,
    frame,
    settings_payload,
)
from statehouse.rpc.http2.header_blocks import HeaderDecoder, literal_block
from statehouse.rpc.server.access import ANYONE
from statehouse.rpc.server.call_headers import refusal
from statehouse.rpc.server.capacity import Capacity
from statehouse.rpc.server.connection import ServerConnection
from statehouse.rpc.server.dispatch import Endpoint, Kind
from statehouse.rpc.server.lifetime import LifetimeLimits
from statehouse.rpc.server.link import StreamLink

LARGE = 2**31 - 1
HANGS_VIRTUAL_S = 100_000.0
"""A test that is not over by then waits for what never comes."""
HANGS_S = 60.0
"""And has taken this long in truth: while a thread works, a clock that jumps runs far ahead."""


class Seen(NamedTuple):
    """A frame that the server sent, and when."""

    at: float
    kind: int
    flags: int
    stream_id: int
    payload: bytes


def message(content, flag=0):
    return struct.pack(">BL", flag, len(content)) + content


def window_update(stream_id, size):
    return frame(FrameType.WINDOW_UPDATE, 0, stream_id, struct.pack(">L", size))


def reset(stream_id, code=8):
    return frame(FrameType.RST_STREAM, 0, stream_id, struct.pack(">L", code))


class MemoryPeer:
    """Keeps every frame that comes, in `seen`; answers pings only when told to, and never grants anything."""

    def __init__(self, stream):
        self.stream = stream
        self.seen = []
        self.headers = {}  # by stream: the fields of its response and trailers
        self.data = {}
        self.ended_at = None
        self.pongs = True
        self.next_id = 1
        self._decoder = HeaderDecoder(lambda fields: {name.decode(): value.decode() for name, value, _ in fields})
        self._rest = b""
        self._changed = trio.Event()

    async def run(self):
        """Read to the end."""
        while True:
            try:
                received = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                received = b""
            if not received:
                self.ended_at = trio.current_time()
                self._ring()
                return
            self._rest += received
            while len(self._rest) >= 9 and len(self._rest) >= 9 + int.from_bytes(self._rest[:3], "big"):
                end = 9 + int.from_bytes(self._rest[:3], "big")
                kind, flags, stream_id = struct.unpack_from(">BBL", self._rest, 3)
                one, self._rest = Seen(trio.current_time(), kind, flags, stream_id, self._rest[9:end]), self._rest[end:]
                await self._take(one)
            self._ring()

    def _ring(self):
        self._changed.set()
        self._changed = trio.Event()

    async def _take(self, one):
        self.seen.append(one)
        if one.kind == FrameType.HEADERS:
            self.headers.setdefault(one.stream_id, {}).update(self._decoder.decode(one.payload))
        elif one.kind == FrameType.DATA:
            self.data[one.stream_id] = self.data.get(one.stream_id, b"") + one.payload
        elif one.kind == FrameType.PING and not one.flags & ACK and self.pongs:
            await self.send(frame(FrameType.PING, ACK, 0, one.payload))

    async def until(self, done):
        """Wait until `done()`, or the end."""
        while not done() and self.ended_at is None:
            await self._changed.wait()
        assert done()

    async def send(self, *frames):
        await self.stream.send_all(b"".join(frames))

    async def leave(self):
        """Close the way to the server, as a client does that ends."""
        await self.stream.send_stream.aclose()

    async def greet(self, settings=None):
        await self.send(CONNECTION_PREFACE, frame(FrameType.SETTINGS, 0, 0, settings_payload(settings or {})))

    def begin(self, path, *, end=False, **fields):
        """The frame that begins a call, and the call's stream."""
        stream_id, self.next_id = self.next_id, self.next_id + 2
        listed = [(":method", "POST"), (":scheme", "http"), (":path", path)]
        listed += {"content-type": "application/grpc", **{k.replace("_", "-"): v for k, v in fields.items()}}.items()
        block = literal_block([(name.encode(), value.encode()) for name, value in listed])
        return frame(FrameType.HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block), stream_id

    async def call(self, path, content=b"", *, flag=0, **fields):
        """Make a call with one message, which must fit into a frame; its stream."""
        begin, stream_id = self.begin(path, **fields)
        await self.send(begin, frame(FrameType.DATA, END_STREAM, stream_id, message(content, flag)))
        return stream_id

    async def status(self, stream_id):
        """The grpc-status that a call ends with."""
        await self.until(lambda: "grpc-status" in self.headers.get(stream_id, ()))
        return int(self.headers[stream_id]["grpc-status"])

    def of(self, kind, stream_id=None):
        """The frames of a kind, on a stream or on any."""
        return [each for each in self.seen if each.kind == kind and stream_id in (None, each.stream_id)]

    def goaways(self):
        """When each GOAWAY came, its last stream and its code."""
        return [(each.at, *struct.unpack_from(">LL", each.payload)) for each in self.of(FrameType.GOAWAY)]


class Connected:
    """A connection and its peer; `handlers` are the calls of `/t/`, by name."""

    def __init__(self, connection, peer, capacity, scope):
        self.connection, self.peer, self.capacity, self.scope = connection, peer, capacity, scope
        self.over = trio.Event()

    def nothing_is_held(self):
        capacity = self.capacity
        return (
            capacity.calls,
            capacity.requests.held_bytes,
            capacity.kept_requests.held_bytes,
            capacity.answers.held_bytes,
            capacity.listings.held_bytes,
            capacity.answers.waiting,
        ) == (0, 0, 0, 0, 0, 0)


async def fail_when_it_hangs():
    """Run beside a test: what it waits for has a bound, also where a deadline is missing."""
    jumps = isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
    end_s = time.monotonic() + HANGS_S
    while True:
        await trio.sleep(HANGS_VIRTUAL_S if jumps else HANGS_S)
        if time.monotonic() >= end_s:
            raise AssertionError("the test hangs: it waits for what never comes")


@pytest.fixture
def over_memory(nursery):
    """Start a connection that serves `unary`, `stream` and `conversation` handlers at /t/NAME; on `autojump_clock`."""
    nursery.start_soon(fail_when_it_hangs)

    async def connect(
        *,
        unary=None,
        stream=None,
        conversation=None,
        limits=None,
        capacity=None,
        pair=trio.testing.memory_stream_pair,
        greet=True,
        settings=None,
        answer_bytes=0,
        unary_answer_bytes=0,
        request_bytes=4 * 2**20,
        read=True,
    ):
        most_bytes = {Kind.STREAM: answer_bytes, Kind.UNARY: unary_answer_bytes}
        kinds = {Kind.UNARY: unary, Kind.STREAM: stream, Kind.CONVERSATION: conversation}
        endpoints = {
            f"/t/{name}".encode(): Endpoint(
                f"/t/{name}", kind, handler, most_bytes.get(kind, 0), open_to_all=True, always=True
            )
            for kind, handlers in kinds.items()
            for name, handler in (handlers or {}).items()
        }

        def find(headers, _peer=""):
            if headers.path in endpoints:
                return endpoints[headers.path], ANYONE
            return refusal(GrpcStatus.UNIMPLEMENTED, "no such call")

        ours, theirs = pair()
        capacity = capacity or Capacity()
        connection = ServerConnection(
            StreamLink(theirs), find, capacity, limits or LifetimeLimits(), peer="memory", request_bytes=request_bytes
        )
        connected = Connected(connection, MemoryPeer(ours), capacity, trio.CancelScope())

        async def run():
            with connected.scope:
                await connection.run()
            connected.over.set()
            await trio.aclose_forcefully(theirs)

        nursery.start_soon(run)
        if read:
            nursery.start_soon(connected.peer.run)
        if greet:
            await connected.peer.greet(settings)
        return connected

    return connect


async def settle():
    """Let everything happen that needs no time."""
    await trio.testing.wait_all_tasks_blocked()


no_window = partial(dict, {Setting.INITIAL_WINDOW_SIZE: 0})
NEVER = math.inf
