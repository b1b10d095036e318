"""Clients that do not read: what the edge holds for them, and what it means for everybody else."""

from functools import partial

import pytest
import trio
from rpc.fix_edge import PATIENCE_S, RawPeer

from statehouse.limits import ANSWERS_BYTES, CONNECTION_ANSWERS_BYTES, KIB, MIB, READ_CHUNK_BYTES
from statehouse.rpc.contract import SERVICE_NAME
from statehouse.rpc.server import answer_budget
from statehouse.rpc.server import call as server_call
from statehouse.rpc.server.answer_budget import UNREAD_HOLDS
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.call import Unsent
from statehouse.rpc.server.handlers import statehouse_service
from statehouse.rpc.server.listener import open_listener
from statehouse.rpc.server.server import Server, max_request_bytes
from statehouse.v1 import statehouse_pb2 as pb

CHUNK = [b"x" * (31 * MIB)]
"""One event that is as large as a transaction may be: the list is copied, the event is not."""
SMALL_CHUNK = [b"x" * (READ_CHUNK_BYTES + KIB)]
REPLAY = pb.ReplayRequest(agent_id="a").SerializeToString()


@pytest.fixture
async def server(fake_engine, nursery):
    """A server whose replays are endless and large; `server.connect()` gives a raw peer."""
    fake_engine.endless_replay = CHUNK
    server, stop = Server(max_request_bytes(fake_engine.limits)), trio.Event()
    server.open([statehouse_service(fake_engine, BuildVersion("1", "2"))])
    listener = await open_listener("127.0.0.1", 0)
    address = await nursery.start(partial(server.run, listener, stop=stop, grace_s=0.01))
    streams = []

    async def connect():
        host, port = address.rsplit(":", 1)
        streams.append(await trio.open_tcp_stream(host, int(port)))
        peer = RawPeer(streams[-1])
        await peer.flush()
        return peer

    server.connect = connect
    yield server
    for stream in streams:
        await stream.aclose()
    stop.set()
    await until(lambda: not server.capacity.answers.held_bytes)


async def until(done):
    with trio.fail_after(PATIENCE_S):
        while not done():
            await trio.lowlevel.checkpoint()


def call(peer, method, request=b""):
    stream_id = peer.start(f"/{SERVICE_NAME}/{method}")
    peer.message(stream_id, request)
    return stream_id


async def test_unread_streams_hold_no_more_than_their_connection_may(server, fake_engine):
    fake_engine.endless_replay = SMALL_CHUNK
    peer = await server.connect()
    for _ in range(90):
        call(peer, "Replay", REPLAY)
    await peer.flush()
    await until(lambda: fake_engine.chunks_sent >= CONNECTION_ANSWERS_BYTES // len(SMALL_CHUNK[0]) - 3)
    assert await peer.works()
    held = server.capacity.answers.held_bytes
    assert 0.9 * CONNECTION_ANSWERS_BYTES < held <= CONNECTION_ANSWERS_BYTES


async def test_unread_streams_of_many_connections_hold_no_more_than_the_server_may(server, fake_engine):
    fake_engine.endless_replay = SMALL_CHUNK
    peers = [await server.connect() for _ in range(4)]
    for peer in peers:
        for _ in range(90):
            call(peer, "Replay", REPLAY)
        await peer.flush()
    await until(lambda: server.capacity.answers.held_bytes > 0.9 * ANSWERS_BYTES)
    other = await server.connect()
    assert await other.works()
    assert 0.9 * ANSWERS_BYTES < server.capacity.answers.held_bytes <= ANSWERS_BYTES


async def test_events_of_the_largest_size_are_held_no_more_than_are_read_at_once(server, fake_engine):
    peer = await server.connect()
    for _ in range(90):
        call(peer, "Replay", REPLAY)
    await peer.flush()
    await until(lambda: server.capacity.answers.held_bytes > CONNECTION_ANSWERS_BYTES)
    assert await peer.works()
    assert fake_engine.chunks_sent <= UNREAD_HOLDS
    assert server.capacity.answers.held_bytes <= UNREAD_HOLDS * 32 * MIB


async def test_who_stops_reading_is_ended_when_others_wait(server, fake_engine, monkeypatch):
    monkeypatch.setattr(answer_budget, "ANSWER_STALL_S", 0.05)
    monkeypatch.setattr(answer_budget, "STALL_CHECK_S", 0.01)
    peer = await server.connect()
    calls = [call(peer, "Replay", REPLAY) for _ in range(20)]
    await peer.flush()
    assert await peer.until(lambda: peer.over)
    assert peer.over <= set(calls)
    # The one whose message had begun cannot be told a status.
    assert all(peer.resets.get(each) == 8 or peer.headers[each]["grpc-status"] == "8" for each in peer.over)


async def test_a_client_that_leaves_the_line_leaves_nothing_behind(server):
    peer = await server.connect()
    calls = [call(peer, "Replay", REPLAY) for _ in range(20)]
    await peer.flush()
    await until(lambda: server.capacity.answers.held_bytes >= 31 * MIB)
    for each in calls:
        peer.http2.reset_stream(each)
    await peer.flush()
    await until(lambda: not server.capacity.answers.held_bytes)


async def test_a_reader_that_reads_gets_all_of_a_large_event(server):
    peer = await server.connect()
    peer.http2.increment_flow_control_window(2**30)
    stream_id = call(peer, "Replay", REPLAY)
    peer.http2.increment_flow_control_window(2**30, stream_id)
    await peer.until(lambda: len(peer.data.get(stream_id, b"")) > MIB)
    assert peer.data[stream_id][:5] == b"\0" + len(CHUNK[0]).to_bytes(4, "big")
    assert server.capacity.answers.held_bytes <= 33 * MIB


@pytest.mark.parametrize("joined_bytes", [0, KIB])
@pytest.mark.parametrize("size_bytes", [1, 4, 5, 6, 100, 16 * KIB])
def test_unsent_messages_leave_whole_and_in_order(size_bytes, joined_bytes, monkeypatch):
    monkeypatch.setattr(server_call, "JOINED_BYTES", joined_bytes)
    messages = [b"", b"a", b"b" * 300, b"", b"c" * 7]
    framed = [b"\0" + len(each).to_bytes(4, "big") + each for each in messages]
    given = list(messages)
    unsent = Unsent(given)
    assert given == []
    assert unsent.kept_bytes == sum(map(len, framed))
    sent = b""
    while unsent:
        assert unsent.kept_bytes >= len(b"".join(framed)) - len(sent)
        piece = unsent.take(size_bytes)
        assert 0 < len(piece) <= size_bytes
        sent += piece
    assert sent == b"".join(framed)
    assert unsent.kept_bytes == 0


def test_a_message_is_kept_until_its_last_byte_has_left(monkeypatch):
    monkeypatch.setattr(server_call, "JOINED_BYTES", 0)
    unsent = Unsent([b"x" * 100])
    unsent.take(104)
    assert unsent.kept_bytes == 100
    unsent.take(1)
    assert unsent.kept_bytes == 0
