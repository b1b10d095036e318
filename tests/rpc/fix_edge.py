"""A real edge on loopback over the fake engine, with grpcio and raw sockets as its peers."""

from functools import partial

import attrs
import grpc
import h2.config
import h2.connection
import h2.events
import pytest
import trio

from statehouse.rpc.contract import METHODS
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.server import serve

PATIENCE_S = 20.0
"""Of anything in these tests that would otherwise hang."""


def stub(channel, name):
    """Grpcio's callable for a call of the contract."""
    method = METHODS[name]
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    return make(
        method.path,
        request_serializer=method.request_type.SerializeToString,
        response_deserializer=method.response_type.FromString,
    )


@attrs.frozen
class Edge:
    """A running edge; `call` makes a unary call with grpcio, in a thread."""

    address: str
    stop: trio.Event
    ended: trio.Event
    channel: grpc.Channel
    nursery: trio.Nursery

    async def call(self, name, message=None, **fields):
        timeout_s = fields.pop("timeout_s", PATIENCE_S)
        request = METHODS[name].request_type(**fields) if message is None else message
        in_thread = partial(stub(self.channel, name), request, timeout=timeout_s, wait_for_ready=False)
        return await trio.to_thread.run_sync(in_thread)

    async def replay(self, **fields):
        request = METHODS["Replay"].request_type(**fields)
        return await trio.to_thread.run_sync(lambda: list(stub(self.channel, "Replay")(request, timeout=PATIENCE_S)))

    async def connect(self):
        host, port = self.address.rsplit(":", 1)
        return await trio.open_tcp_stream(host, int(port))


@pytest.fixture
def grace_s():
    """The grace time of `edge`; a test may parametrize it."""
    return 1.0


@pytest.fixture
async def edge(fake_engine, nursery, grace_s):
    """An edge that serves `fake_engine`."""
    stop, ended = trio.Event(), trio.Event()

    async def run(*, task_status):
        build = BuildVersion("1.2.3", "abc")
        run_serve = partial(serve, fake_engine, "127.0.0.1", 0, stop=stop, grace_s=grace_s, build=build)
        await run_serve(task_status=task_status)
        ended.set()

    address = await nursery.start(run)
    with grpc.insecure_channel(address) as channel, trio.move_on_after(3 * PATIENCE_S):
        yield Edge(address, stop, ended, channel, nursery)
        stop.set()
        await ended.wait()


class RawPeer:
    """HTTP/2 by hand: for what no well-behaved client does."""

    def __init__(self, stream):
        self.stream = stream
        as_they_are = {"validate_outbound_headers": False, "normalize_outbound_headers": False}
        configuration = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", **as_they_are)
        self.http2 = h2.connection.H2Connection(configuration)
        # h2 3.2 closes its state machine at GOAWAY; answers to calls in flight may still come.
        goaway = (h2.connection.ConnectionState.CLIENT_OPEN, h2.connection.ConnectionInputs.RECV_GOAWAY)
        machine = self.http2.state_machine
        machine._transitions = {**machine._transitions, goaway: (None, h2.connection.ConnectionState.CLIENT_OPEN)}
        self.http2.initiate_connection()
        self.next_stream_id = 1
        self.headers, self.data, self.resets = {}, {}, {}
        self.over = set()
        self.goodbye = False

    async def flush(self):
        await self.stream.send_all(self.http2.data_to_send())

    def start(self, path, extra=(), *, end_stream=False, drop=()):
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *extra,
        ]
        stream_id, self.next_stream_id = self.next_stream_id, self.next_stream_id + 2
        self.http2.send_headers(stream_id, [each for each in headers if each[0] not in drop], end_stream=end_stream)
        return stream_id

    def message(self, stream_id, message, *, end_stream=True, flag=0):
        self.http2.send_data(
            stream_id, bytes([flag]) + len(message).to_bytes(4, "big") + message, end_stream=end_stream
        )

    async def until(self, done):
        """Read until `done()`; False when the connection ended before."""
        await self.flush()
        with trio.fail_after(PATIENCE_S):
            while not done():
                received = await self.stream.receive_some(65536)
                if not received:
                    return done()
                for event in self.http2.receive_data(received):
                    self._take(event)
                await self.flush()
        return True

    async def status(self, stream_id):
        """The headers and trailers of a call, once it is over."""
        assert await self.until(lambda: stream_id in self.over)
        return self.headers[stream_id]

    def _take(self, event):
        if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            self.headers.setdefault(event.stream_id, {}).update(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
            self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.over.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = event.error_code
            self.over.add(event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goodbye = True


@pytest.fixture
async def raw_peer(edge):
    """A raw HTTP/2 connection to `edge`."""
    async with await edge.connect() as stream:
        peer = RawPeer(stream)
        await peer.flush()
        yield peer
