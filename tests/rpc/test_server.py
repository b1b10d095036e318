"""The edge on a real socket: grpcio and raw HTTP/2 as its peers, an engine in memory behind it."""

import asyncio
import re
from functools import partial
from types import SimpleNamespace

import grpc
import pytest
import trio
from google.protobuf import struct_pb2
from rpc.fix_edge import PATIENCE_S, stub
from structlog.testing import capture_logs

from statehouse.errors import (
    AddressError,
    DiskFullError,
    ErrorCode,
    LogPoisonedError,
    OverloadedError,
    StorageError,
    StoreDamagedError,
    TransactionError,
)
from statehouse.limits import CALLS_PER_CONNECTION, Limits
from statehouse.rpc.contract import SERVICE_NAME
from statehouse.rpc.error_table import TRAILER_NAME, decode_error
from statehouse.rpc.server import connection as server_connection
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.handlers import make_handlers
from statehouse.rpc.server.listener import open_listener, socket_address
from statehouse.rpc.server.server import Server, max_request_bytes, serve
from statehouse.storage.wire import length_delimited
from statehouse.v1 import statehouse_pb2 as pb

HEALTH = f"/{SERVICE_NAME}/Health"
REPLAY = f"/{SERVICE_NAME}/Replay"
COMMIT = f"/{SERVICE_NAME}/Commit"


SHAPES = {"Health": {}, "ListKeys": {"agent_id": "a"}, "Replay": {"agent_id": "a"}}
"""A call that is answered at once, one that is answered later, and a stream."""


async def call_of(edge, name):
    call = edge.replay if name == "Replay" else partial(edge.call, name)
    return await call(**SHAPES[name])


def struct_of(value):
    message = struct_pb2.Struct()
    message.update(value)
    return message


def detail_of(error):
    trailers = dict(error.trailing_metadata())
    return pb.StatehouseError.FromString(trailers[TRAILER_NAME])


async def write(edge, agent_id, key, value):
    txn_id = (await edge.call("BeginTransaction")).txn_id
    await edge.call("Write", txn_id=txn_id, agent_id=agent_id, key=key, value=struct_of(value))
    return (await edge.call("Commit", txn_id=txn_id)).commit_ts


async def refused(edge, name, message=None, **fields):
    with pytest.raises(grpc.RpcError) as error:
        await edge.call(name, message, **fields)
    return error.value


# Calls that go well


async def test_every_call(edge):
    assert (await edge.call("Health")).status == "ok"
    version = await edge.call("Version")
    assert (version.version, version.git_sha) == ("1.2.3", "abc")
    value = {"nested": [{"in": ["list", None, {}]}], "n": 2**53}
    assert await write(edge, "a", "k", value) == 1
    state = await edge.call("GetState", agent_id="a", key="k")
    assert (state.value, state.version, state.commit_ts, state.exists) == (struct_of(value), 1, 1, True)
    old = await edge.call("GetStateAtVersion", agent_id="a", key="k", version=1)
    assert old.SerializeToString() == state.SerializeToString()
    assert (await edge.call("ListKeys", agent_id="a")).keys == ["k"]
    assert [entry.key for entry in (await edge.call("ScanPrefix", agent_id="a", prefix="")).entries] == ["k"]
    txn_id = (await edge.call("BeginTransaction", timeout_ms=1000)).txn_id
    await edge.call("Delete", txn_id=txn_id, agent_id="a", key="k")
    await edge.call("Abort", txn_id=txn_id)
    events = await edge.replay(agent_id="a")
    assert [(event.commit_ts, event.operations[0].value) for event in events] == [(1, struct_of(value))]
    assert await edge.replay(agent_id="nobody") == []


async def test_answers_and_requests_larger_than_any_window(edge):
    text = "x" * (Limits().value_bytes - 100)
    for key in "abcdef":
        await write(edge, "a", key, {"text": text})
    assert (await edge.call("GetState", agent_id="a", key="f")).value["text"] == text
    events = await edge.replay(agent_id="a")
    assert [len(event.operations[0].value["text"]) for event in events] == [len(text)] * 6


async def test_many_calls_at_once_from_grpc_aio(edge):
    for key in ("a", "b"):
        await write(edge, "agent", key, {"key": key})

    async def many():
        async with grpc.aio.insecure_channel(edge.address) as channel:
            get = stub(channel, "GetState")
            keys = ["a", "b"] * (CALLS_PER_CONNECTION + 20)
            requests = [pb.GetStateRequest(agent_id="agent", key=key) for key in keys]
            answers = await asyncio.gather(*(get(request, timeout=PATIENCE_S) for request in requests))
            return [answer.value["key"] for answer in answers] == keys

    assert await trio.to_thread.run_sync(lambda: asyncio.run(many()))


# Errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TransactionError("gone", code=ErrorCode.TXN_EXPIRED), grpc.StatusCode.DEADLINE_EXCEEDED),
        (OverloadedError("too much"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (DiskFullError("the disk is full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (LogPoisonedError("read-only"), grpc.StatusCode.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("name", SHAPES)
async def test_an_error_of_the_engine_has_status_code_and_trailer(edge, fake_engine, error, status, name):
    fake_engine.fail_with = error
    with pytest.raises(grpc.RpcError) as raised:
        await call_of(edge, name)
    assert (raised.value.code(), raised.value.details()) == (status, error.message)
    detail = detail_of(raised.value)
    assert (detail.code, detail.message) == (error.code, error.message)


async def test_a_message_in_any_language_comes_through(edge, fake_engine):
    fake_engine.fail_with = TransactionError("weg: ü 🦀 100% \r\n", details={"k": "ü"})
    error = await refused(edge, "Health")
    assert error.details() == "weg: ü 🦀 100% \r\n"
    assert dict(detail_of(error).details) == {"k": "ü"}


async def test_committing_twice_tells_the_commit_ts(edge):
    txn_id = (await edge.call("BeginTransaction")).txn_id
    assert (await edge.call("Commit", txn_id=txn_id)).commit_ts == 1
    error = await refused(edge, "Commit", txn_id=txn_id)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert dict(detail_of(error).details) == {"commit_ts": "1"}


@pytest.mark.parametrize("name", SHAPES)
async def test_a_bug_is_an_error_id_and_nothing_else(edge, fake_engine, name):
    fake_engine.fail_with = ZeroDivisionError("secret internals at /srv/data")
    with pytest.raises(grpc.RpcError) as raised, capture_logs() as logged:
        await call_of(edge, name)
    error = raised.value
    assert error.code() is grpc.StatusCode.INTERNAL
    error_id = re.fullmatch(r"internal error ([0-9a-f]{16})", error.details())[1]
    assert detail_of(error).code == ErrorCode.INTERNAL_ERROR
    assert dict(detail_of(error).details) == {"error_id": error_id}
    assert [(line["error_id"], line["call"], line["exc_info"]) for line in logged] == [
        (error_id, name, fake_engine.fail_with)
    ]
    told = error.details() + str(error.trailing_metadata()) + str(detail_of(error))
    assert "secret" not in told
    assert "ZeroDivision" not in told
    fake_engine.fail_with = None
    assert (await edge.call("Health")).status == "ok"


@pytest.mark.parametrize(
    ("error_class", "status"),
    [(StoreDamagedError, grpc.StatusCode.DATA_LOSS), (StorageError, grpc.StatusCode.INTERNAL)],
)
async def test_damage_is_told_without_naming_files(edge, fake_engine, error_class, status):
    fake_engine.fail_with = error_class("/srv/data/log/1.log: bad record at 7", details={"file": "/srv/data"})
    error = await refused(edge, "Health")
    assert error.code() is status
    assert detail_of(error).code == ErrorCode.STORAGE_ERROR
    assert "srv" not in error.details() + str(detail_of(error))


@pytest.mark.parametrize("error_class", [DiskFullError, LogPoisonedError])
async def test_what_the_operating_system_said_is_not_told(edge, fake_engine, error_class):
    fake_engine.fail_with = error_class("[Errno 28] No space left on device: '/srv/data/log/1.log'")
    fake_engine.fail_with.__cause__ = OSError(28, "No space left on device", "/srv/data/log/1.log")
    error = await refused(edge, "Health")
    assert detail_of(error).code == ErrorCode.STORAGE_ERROR
    assert "commit" in error.details()
    assert "srv" not in error.details() + str(detail_of(error))


async def test_invalid_requests(edge):
    error = await refused(edge, "GetState", agent_id="a")
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "key is empty")
    assert detail_of(error).code == ErrorCode.INVALID_REQUEST


async def test_a_value_nested_ten_thousand_deep_is_refused_and_harms_nobody(edge, fake_engine):
    value = b""
    for _ in range(10_000):
        value = length_delimited(1, length_delimited(1, b"k") + length_delimited(2, length_delimited(5, value)))
    txn_id = (await edge.call("BeginTransaction")).txn_id
    request = pb.WriteRequest(txn_id=txn_id, agent_id="a", key="k").SerializeToString() + length_delimited(5, value)
    send_raw = edge.channel.unary_unary(f"/{SERVICE_NAME}/Write")
    with pytest.raises(grpc.RpcError) as raised:
        await trio.to_thread.run_sync(partial(send_raw, request, timeout=PATIENCE_S))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "nested too deep" in raised.value.details()
    assert fake_engine.open == {txn_id: []}
    assert (await edge.call("Health")).status == "ok"


@pytest.mark.parametrize("size", [3 * 2**20, 5 * 2**20])
async def test_a_value_over_the_limit_is_refused_with_limit_and_size(edge, size):
    txn_id = (await edge.call("BeginTransaction")).txn_id
    error = await refused(edge, "Write", txn_id=txn_id, agent_id="a", key="k", value=struct_of({"x": "x" * size}))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = dict(detail_of(error).details)
    assert int(details["size"]) > size > int(details["limit"])
    assert (await edge.call("Health")).status == "ok"


@pytest.mark.parametrize("path", [f"/{SERVICE_NAME}/Nonsense", "/other.Service/Health"])
async def test_unknown_calls_are_unimplemented(edge, path):
    with pytest.raises(grpc.RpcError) as raised:
        await trio.to_thread.run_sync(partial(edge.channel.unary_unary(path), b"", timeout=PATIENCE_S))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


# Cancelling, deadlines, disconnects


async def test_a_replay_that_is_cancelled_ends(edge, fake_engine):
    fake_engine.endless_replay = [pb.ReplayEvent(txn_id="t" * 1000).SerializeToString()] * 100

    def read_some():
        call = stub(edge.channel, "Replay")(pb.ReplayRequest(agent_id="a"), timeout=PATIENCE_S)
        for _ in range(1000):
            next(call)
        call.cancel()

    await trio.to_thread.run_sync(read_some)
    with trio.fail_after(PATIENCE_S):
        await fake_engine.replay_ended.wait()
    assert (await edge.call("Health")).status == "ok"


async def test_a_replay_whose_client_disappears_ends(edge, raw_peer, fake_engine):
    fake_engine.endless_replay = [b"x" * 1000] * 100
    stream_id = raw_peer.start(REPLAY)
    raw_peer.message(stream_id, pb.ReplayRequest(agent_id="a").SerializeToString())
    assert await raw_peer.until(lambda: raw_peer.data.get(stream_id))
    await trio.aclose_forcefully(raw_peer.stream)
    with trio.fail_after(PATIENCE_S):
        await fake_engine.replay_ended.wait()


async def test_a_slow_reader_slows_its_replay(edge, raw_peer, fake_engine):
    fake_engine.endless_replay = [b"x" * 1000] * 100
    stream_id = raw_peer.start(REPLAY)
    raw_peer.message(stream_id, pb.ReplayRequest(agent_id="a").SerializeToString())
    await raw_peer.flush()
    # The client never returns flow control: the window of 65,535 bytes is all that is ever sent.
    received = 0
    with trio.fail_after(PATIENCE_S):
        while received < 65_535:
            for event in raw_peer.http2.receive_data(await raw_peer.stream.receive_some(65536)):
                received += len(getattr(event, "data", b""))
    await trio.testing.wait_all_tasks_blocked()
    assert received == 65_535
    assert fake_engine.chunks_sent == 1
    raw_peer.http2.reset_stream(stream_id)
    await raw_peer.flush()
    with trio.fail_after(PATIENCE_S):
        await fake_engine.replay_ended.wait()


async def test_a_deadline_ends_the_wait_and_not_the_commit(edge, fake_engine):
    fake_engine.held = []
    txn_id = (await edge.call("BeginTransaction")).txn_id
    error = await refused(edge, "Commit", txn_id=txn_id, timeout_s=0.05)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert fake_engine.committed == {txn_id: 1}
    fake_engine.held[0][0].succeed(1)  # nobody waits any more
    assert (await edge.call("Health")).status == "ok"


async def test_the_server_enforces_the_deadline_itself(raw_peer, fake_engine):
    fake_engine.scan_gate = trio.Event()
    stream_id = raw_peer.start(f"/{SERVICE_NAME}/ListKeys", [("grpc-timeout", "10m")])
    raw_peer.message(stream_id, pb.ListKeysRequest(agent_id="a").SerializeToString())
    status = await raw_peer.status(stream_id)
    assert status["grpc-status"] == "4"
    assert decode_error(4, status["grpc-message"], None).retryable


async def test_an_answer_that_comes_after_a_reset_is_dropped(raw_peer, fake_engine):
    fake_engine.held = []
    fake_engine.open["t"] = []
    stream_id = raw_peer.start(COMMIT)
    raw_peer.message(stream_id, pb.CommitRequest(txn_id="t").SerializeToString())
    await raw_peer.flush()
    with trio.fail_after(PATIENCE_S):
        while not fake_engine.held:
            await trio.lowlevel.checkpoint()
    raw_peer.http2.reset_stream(stream_id)
    again = raw_peer.start(HEALTH)
    raw_peer.message(again, b"")
    assert (await raw_peer.status(again))["grpc-status"] == "0"
    fake_engine.held[0][0].succeed(1)
    last = raw_peer.start(HEALTH)
    raw_peer.message(last, b"")
    assert (await raw_peer.status(last))["grpc-status"] == "0"


# What no well-behaved client sends: the other calls of the connection go on


@pytest.mark.parametrize("path", ["/a/b/c", "*", "/", "", "no/slash", f"/{SERVICE_NAME}/", "/../Health", "/\x7f/é"])
@pytest.mark.parametrize("end_stream", [False, True])
async def test_a_bad_path_hurts_only_its_own_call(raw_peer, fake_engine, path, end_stream):
    fake_engine.scan_gate = trio.Event()
    waiting = raw_peer.start(f"/{SERVICE_NAME}/ListKeys")
    raw_peer.message(waiting, pb.ListKeysRequest(agent_id="a").SerializeToString())
    bad = raw_peer.start(path, end_stream=end_stream)
    if not end_stream:
        raw_peer.message(bad, b"")
    assert (await raw_peer.status(bad))["grpc-status"] == "12"
    fake_engine.scan_gate.set()
    assert (await raw_peer.status(waiting))["grpc-status"] == "0"


@pytest.mark.parametrize(
    ("extra", "drop", "status"),
    [
        ([("content-type", "text/html"), ("a", "b")], [], "12"),
        ([], ["content-type"], "12"),
        ([("grpc-encoding", "gzip")], [], "12"),
        ([("grpc-timeout", "soon")], [], "3"),
        ([("grpc-timeout", "999999999S")], [], "3"),
        ([("grpc-timeout", "99999999H"), ("grpc-encoding", "identity")], [], "0"),
        ([], ["te"], "0"),
        ([], [":path"], "12"),
        ([], [":method"], "12"),
        ([(":method", "GET")], [":method"], "12"),
        ([("Upper-Case", "x"), ("", "no name")], [], "0"),
        ([("x-binary", b"\xff\xfe"), ("grpc-nonsense", "1")], [], "0"),
    ],
)
async def test_headers(raw_peer, extra, drop, status):
    stream_id = raw_peer.start(HEALTH, extra, drop=drop)
    raw_peer.message(stream_id, b"")
    assert (await raw_peer.status(stream_id))["grpc-status"] == status
    again = raw_peer.start(HEALTH)
    raw_peer.message(again, b"")
    assert (await raw_peer.status(again))["grpc-status"] == "0"


async def test_a_call_takes_exactly_one_message(raw_peer):
    none = raw_peer.start(HEALTH, end_stream=True)
    empty = raw_peer.start(HEALTH)
    raw_peer.http2.end_stream(empty)
    two = raw_peer.start(HEALTH)
    raw_peer.message(two, b"", end_stream=False)
    raw_peer.message(two, b"", end_stream=False)
    compressed = raw_peer.start(HEALTH)
    raw_peer.message(compressed, b"\x1f\x8b", flag=1)
    statuses = [(await raw_peer.status(each))["grpc-status"] for each in (none, empty, two, compressed)]
    assert statuses == ["3", "3", "3", "12"]


async def test_frames_for_calls_that_are_over_are_ignored(raw_peer):
    ended = raw_peer.start(HEALTH)
    raw_peer.message(ended, b"")
    await raw_peer.status(ended)
    another = raw_peer.start(HEALTH)  # h2 forgets ended streams when one begins
    raw_peer.message(another, b"")
    await raw_peer.status(another)
    rst = b"\x00\x00\x04\x03\x00" + ended.to_bytes(4, "big") + (8).to_bytes(4, "big")
    window_update = b"\x00\x00\x04\x08\x00" + ended.to_bytes(4, "big") + (1000).to_bytes(4, "big")
    data = b"\x00\x00\x05\x00\x00" + ended.to_bytes(4, "big") + b"\x00\x00\x00\x00\x00"
    await raw_peer.stream.send_all(rst + window_update + data + rst)
    last = raw_peer.start(HEALTH)
    raw_peer.message(last, b"")
    assert (await raw_peer.status(last))["grpc-status"] == "0"


async def test_a_call_whose_reset_comes_in_the_same_packet_is_not_done(raw_peer, fake_engine):
    for number in range(3 * CALLS_PER_CONNECTION):
        fake_engine.open[f"t{number}"] = []
        stream_id = raw_peer.start(COMMIT)
        raw_peer.message(stream_id, pb.CommitRequest(txn_id=f"t{number}").SerializeToString())
        raw_peer.http2.reset_stream(stream_id)
        if number % 10 == 0:
            await raw_peer.flush()
    last = raw_peer.start(HEALTH)
    raw_peer.message(last, b"")
    assert (await raw_peer.status(last))["grpc-status"] == "0"
    assert fake_engine.committed == {}


async def test_requests_that_never_end_are_bounded(raw_peer):
    streams = [raw_peer.start(HEALTH) for _ in range(20)]
    for stream_id in streams:
        sent = 0
        while sent < 2**20 and stream_id not in raw_peer.over:
            room = min(raw_peer.http2.local_flow_control_window(stream_id), 16_384)
            if room == 0:
                before = raw_peer.http2.local_flow_control_window
                await raw_peer.until(lambda before=before, s=stream_id: before(s) > 0 or s in raw_peer.over)
                continue
            piece = (b"\0" + (3 * 2**20).to_bytes(4, "big") if sent == 0 else b"").ljust(room, b"x")
            raw_peer.http2.send_data(stream_id, piece)
            sent += room
        await raw_peer.flush()
    await raw_peer.until(lambda: raw_peer.over)
    refused_calls = [raw_peer.headers[each]["grpc-status"] for each in raw_peer.over]
    assert set(refused_calls) == {"8"}


@pytest.mark.parametrize(
    "garbage",  # the last one begins a frame of 16 MiB
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64],
)
async def test_garbage_ends_its_connection_and_no_other(edge, garbage):
    async with await edge.connect() as stream:
        await stream.send_all(garbage.ljust(64, b"\0"))
        with trio.fail_after(PATIENCE_S):
            while await stream.receive_some(4096):
                pass
    assert (await edge.call("Health")).status == "ok"


async def test_a_peer_that_says_nothing_is_let_go(edge, monkeypatch):
    monkeypatch.setattr(server_connection, "PREFACE_S", 0.01)
    async with await edge.connect() as stream:
        with trio.fail_after(PATIENCE_S):
            while await stream.receive_some(4096):
                pass


async def test_headers_over_the_limit_end_their_connection_and_no_other(edge, raw_peer):
    raw_peer.start(HEALTH, [("x", "y" * 10_000)])
    await raw_peer.until(lambda: raw_peer.goodbye)
    assert raw_peer.goodbye
    assert (await edge.call("Health")).status == "ok"


# The listener


async def test_a_taken_port_is_refused(edge, fake_engine):
    host, port = edge.address.rsplit(":", 1)
    with pytest.raises(AddressError, match=f"cannot listen on {edge.address}: Address already in use"):
        await serve(fake_engine, host, int(port), stop=trio.Event(), grace_s=1)
    assert (await edge.call("Health")).status == "ok"


@pytest.mark.parametrize(("host", "port"), [("203.0.113.1", 0), ("no.such.host.invalid", 0), ("127.0.0.1", 70_000)])
async def test_an_address_that_cannot_be_had_is_refused(host, port):
    with pytest.raises(AddressError, match=f"cannot listen on {host}:{port}: "):
        await open_listener(host, port)


async def test_a_port_is_free_again_after_its_server(edge, fake_engine):
    assert (await edge.call("Health")).status == "ok"
    edge.stop.set()
    await edge.ended.wait()
    host, port = edge.address.rsplit(":", 1)
    async with await open_listener(host, int(port)) as listener:
        assert socket_address(listener) == edge.address


def test_ipv6_addresses_are_written_in_brackets():
    bound = SimpleNamespace(socket=SimpleNamespace(getsockname=lambda: ("::1", 50051, 0, 0)))
    assert socket_address(bound) == "[::1]:50051"


# Start and stop


async def test_before_there_is_an_engine_calls_are_unavailable(fake_engine, nursery):
    server, stop = Server(max_request_bytes(Limits())), trio.Event()
    listener = await open_listener("127.0.0.1", 0)
    address = await nursery.start(partial(server.run, listener, stop=stop, grace_s=1))
    with grpc.insecure_channel(address) as channel:
        health = partial(stub(channel, "Health"), pb.HealthRequest(), timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError) as raised:
            await trio.to_thread.run_sync(health)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert detail_of(raised.value).code == ErrorCode.INTERNAL_ERROR
        assert "starting" in raised.value.details()
        server.open(make_handlers(fake_engine, BuildVersion("1", "2")))
        assert (await trio.to_thread.run_sync(health)).status == "ok"
    stop.set()


async def test_a_call_in_flight_finishes_and_new_ones_are_unavailable(edge, raw_peer, fake_engine):
    fake_engine.held = []
    fake_engine.open["t"] = []
    in_flight = raw_peer.start(COMMIT)
    raw_peer.message(in_flight, pb.CommitRequest(txn_id="t").SerializeToString())
    await raw_peer.flush()
    with trio.fail_after(PATIENCE_S):
        while not fake_engine.held:
            await trio.lowlevel.checkpoint()
    edge.stop.set()
    assert await raw_peer.until(lambda: raw_peer.goodbye)
    late = raw_peer.start(HEALTH)
    raw_peer.message(late, b"")
    status = await raw_peer.status(late)
    assert (status["grpc-status"], "shutting%20down" in status["grpc-message"]) == ("14", True)
    with pytest.raises(OSError, match=r"all attempts to connect"):
        await edge.connect()
    fake_engine.held[0][0].succeed(1)
    assert (await raw_peer.status(in_flight))["grpc-status"] == "0"
    with trio.fail_after(PATIENCE_S):
        await edge.ended.wait()


@pytest.mark.parametrize("grace_s", [0.01])
async def test_a_call_that_outlasts_the_grace_time_is_told(edge, raw_peer, fake_engine):
    fake_engine.scan_gate = trio.Event()
    incomplete = raw_peer.start(HEALTH)
    waiting = raw_peer.start(f"/{SERVICE_NAME}/ListKeys")
    raw_peer.message(waiting, pb.ListKeysRequest(agent_id="a").SerializeToString())
    await raw_peer.flush()
    with trio.fail_after(PATIENCE_S):
        await fake_engine.scanning.wait()
    edge.stop.set()
    for stream_id in (waiting, incomplete):
        status = await raw_peer.status(stream_id)
        assert (status["grpc-status"], "shutting%20down" in status["grpc-message"]) == ("14", True)
    with trio.fail_after(PATIENCE_S):
        await edge.ended.wait()


@pytest.mark.parametrize("grace_s", [0.01])
async def test_a_replay_that_outlasts_the_grace_time_ends(edge, fake_engine):
    fake_engine.endless_replay = [b""] * 100
    token = trio.lowlevel.current_trio_token()

    def read_all():
        for _ in stub(edge.channel, "Replay")(pb.ReplayRequest(agent_id="a"), timeout=PATIENCE_S):
            token.run_sync_soon(edge.stop.set)

    with pytest.raises(grpc.RpcError):
        await trio.to_thread.run_sync(read_all)
    with trio.fail_after(PATIENCE_S):
        await edge.ended.wait()
    assert fake_engine.replay_ended.is_set()


async def test_cancelling_the_server_ends_everything_at_once(fake_engine, nursery):
    fake_engine.endless_replay = [b""] * 100
    token, scope, ended = trio.lowlevel.current_trio_token(), trio.CancelScope(), trio.Event()
    listener = await open_listener("127.0.0.1", 0)
    server = Server(max_request_bytes(fake_engine.limits))
    server.open(make_handlers(fake_engine, BuildVersion("1", "2")))

    async def run():
        with scope:
            await server.run(listener, stop=trio.Event(), grace_s=1000)
        ended.set()

    def read_all(channel):
        for _ in stub(channel, "Replay")(pb.ReplayRequest(agent_id="a"), timeout=PATIENCE_S):
            token.run_sync_soon(scope.cancel)

    nursery.start_soon(run)
    with grpc.insecure_channel(socket_address(listener)) as channel, pytest.raises(grpc.RpcError):
        await trio.to_thread.run_sync(read_all, channel)
    with trio.fail_after(PATIENCE_S):
        await ended.wait()
    assert fake_engine.replay_ended.is_set()
