"""A real edge on loopback over the fake engine, with grpcio and raw sockets as its peers."""

from functools import partial

import attrs
import grpc
import h2.config
import h2.connection
import h2.events
import pytest
import trio
from google.protobuf import struct_pb2

from statehouse.rpc.contract import METHODS, SERVICE_NAME
from statehouse.rpc.error_table import TRAILER_NAME
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.handlers import statehouse_service
from statehouse.rpc.server.listener import open_listener
from statehouse.rpc.server.reflection import reflection_services
from statehouse.rpc.server.server import Server, max_request_bytes
from statehouse.v1 import statehouse_pb2 as pb

PATIENCE_S = 20.0
"""Of anything in these tests that would otherwise hang."""
HEALTH = f"/{SERVICE_NAME}/Health"
REPLAY = f"/{SERVICE_NAME}/Replay"
COMMIT = f"/{SERVICE_NAME}/Commit"
SHAPES = {"Health": {}, "ListKeys": {"agent_id": "a"}, "Replay": {"agent_id": "a"}}
"""A call that is answered at once, one that is answered later, and a stream."""


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
    server: Server

    async def call(self, name, message=None, **fields):
        timeout_s, metadata = fields.pop("timeout_s", PATIENCE_S), fields.pop("metadata", None)
        request = METHODS[name].request_type(**fields) if message is None else message
        in_thread = partial(stub(self.channel, name), request, timeout=timeout_s, metadata=metadata)
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
    server = Server(max_request_bytes(fake_engine.limits), hosted=reflection_services())
    server.open([statehouse_service(fake_engine, BuildVersion("1.2.3", "abc"))])

    async def run(*, task_status):
        async with await open_listener("127.0.0.1", 0) as listener:
            await server.run(listener, stop=stop, grace_s=grace_s, task_status=task_status)
        ended.set()

    address = await nursery.start(run)
    with grpc.insecure_channel(address) as channel, trio.move_on_after(3 * PATIENCE_S):
        yield Edge(address, stop, ended, channel, nursery, server)
        stop.set()
        await ended.wait()
    assert (server.capacity.calls, server.capacity.requests.held_bytes, server.capacity.answers.held_bytes) == (0, 0, 0)


async def call_of(edge, name):
    """One of SHAPES."""
    call = edge.replay if name == "Replay" else partial(edge.call, name)
    return await call(**SHAPES[name])


async def write(edge, agent_id, key, value):
    """Write one value in a transaction of its own; its commit timestamp."""
    txn_id = (await edge.call("BeginTransaction")).txn_id
    await edge.call("Write", txn_id=txn_id, agent_id=agent_id, key=key, value=struct_of(value))
    return (await edge.call("Commit", txn_id=txn_id)).commit_ts


async def refused(edge, name, message=None, **fields):
    """The error that a call ends with."""
    with pytest.raises(grpc.RpcError) as error:
        await edge.call(name, message, **fields)
    return error.value


def struct_of(value):
    message = struct_pb2.Struct()
    message.update(value)
    return message


def detail_of(error):
    """What grpcio's error says in our trailer."""
    return pb.StatehouseError.FromString(dict(error.trailing_metadata())[TRAILER_NAME])


@pytest.fixture
async def start_edge(fake_engine, nursery):
    """Start an edge with options of `Server`; it has no channel: `attrs.evolve` gives it one. Ends with the test."""

    async def start(*, listener=None, opened=True, grace_s=1.0, **options):
        stop, ended = trio.Event(), trio.Event()
        server = Server(max_request_bytes(fake_engine.limits), **options)
        if opened:
            server.open([statehouse_service(fake_engine, BuildVersion("1.2.3", "abc"))])

        async def run(*, task_status):
            async with listener or await open_listener("127.0.0.1", 0) as listening:
                await server.run(listening, stop=stop, grace_s=grace_s, task_status=task_status)
            ended.set()

        address = await nursery.start(run)
        return Edge(address, stop, ended, None, nursery, server)

    return start


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
        pseudo = [each for each in extra if each[0][:1] == ":"]
        headers = [
            *pseudo,
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *(each for each in extra if each not in pseudo),
        ]
        stream_id, self.next_stream_id = self.next_stream_id, self.next_stream_id + 2
        sent = [each for each in headers if each[0] not in drop or each in pseudo]
        self.http2.send_headers(stream_id, sent, end_stream=end_stream)
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

    async def ending(self, stream_id):
        """What a call ends with: its grpc-status, the number of its RST_STREAM, or `HTTP` and its status."""
        assert await self.until(lambda: stream_id in self.over)
        if stream_id not in self.headers:
            return self.resets[stream_id]
        headers = self.headers[stream_id]
        return headers.get("grpc-status") or f"HTTP {headers[':status']}"

    async def works(self):
        """Whether the connection still answers."""
        stream_id = self.start(HEALTH)
        self.message(stream_id, b"")
        return await self.ending(stream_id) == "0"

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
