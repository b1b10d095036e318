"""What no well-behaved client sends: the other calls of the connection, or the other connections, go on."""

import pytest
import trio
from rpc.fix_edge import COMMIT, HEALTH, PATIENCE_S

from statehouse.limits import CALLS_PER_CONNECTION
from statehouse.rpc.contract import SERVICE_NAME
from statehouse.rpc.error_table import TRAILER_NAME
from statehouse.rpc.metadata import decode_binary
from statehouse.v1 import statehouse_pb2 as pb


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        *((path, "12") for path in ("/a/b/c", "*", "/", "no/slash", f"/{SERVICE_NAME}/", "/../Health", "/é")),
        ("", 1),
        ("/\x7f", 1),
    ],
)
@pytest.mark.parametrize("end_stream", [False, True])
async def test_a_bad_path_hurts_only_its_own_call(raw_peer, fake_engine, path, ending, end_stream):
    fake_engine.scan_gate = trio.Event()
    waiting = raw_peer.start(f"/{SERVICE_NAME}/ListKeys")
    raw_peer.message(waiting, pb.ListKeysRequest(agent_id="a").SerializeToString())
    bad = raw_peer.start(path, end_stream=end_stream)
    if not end_stream:
        raw_peer.message(bad, b"")
    assert await raw_peer.ending(bad) == ending
    fake_engine.scan_gate.set()
    assert await raw_peer.ending(waiting) == "0"


@pytest.mark.parametrize(
    ("extra", "drop", "ending"),
    [
        ([("content-type", "text/html"), ("a", "b")], [], "HTTP 415"),
        ([], ["content-type"], "HTTP 415"),
        ([("grpc-encoding", "gzip")], [], "0"),
        ([("grpc-encoding", "deflate")], [], "12"),
        ([("grpc-timeout", "soon")], [], "3"),
        ([("grpc-timeout", "999999999S")], [], "3"),
        ([("grpc-timeout", "99999999H"), ("grpc-encoding", "identity")], [], "0"),
        ([], ["te"], "0"),
        ([("te", "gzip")], ["te"], "0"),
        ([("te", "gzip")], [], 1),
        ([], [":path"], 1),
        ([], [":method"], 1),
        ([], [":scheme"], 1),
        ([(":method", "GET")], [":method"], "HTTP 405"),
        ([(":status", "200")], [], 1),
        ([("Upper-Case", "x")], [], 1),
        ([("", "no name")], [], 1),
        ([("connection", "close")], [], 1),
        ([("x", "line\nline")], [], 1),
        ([("x-binary", b"\xff\xfe"), ("grpc-nonsense", "1")], [], "0"),
        ([("content-length", "5")], [], "0"),
        ([("content-length", "4")], [], 1),
        ([("content-length", "five")], [], 1),
        ([("x", "y" * 8_000)], [], "8"),
    ],
)
async def test_headers(raw_peer, extra, drop, ending):
    stream_id = raw_peer.start(HEALTH, extra, drop=drop)
    raw_peer.message(stream_id, b"")
    assert await raw_peer.ending(stream_id) == ending
    assert await raw_peer.works()


async def test_a_header_list_over_the_limit_names_limit_and_size(raw_peer):
    stream_id = raw_peer.start(HEALTH, [("x", "y" * 10_000)])
    headers = await raw_peer.status(stream_id)
    detail = pb.StatehouseError.FromString(decode_binary(headers[TRAILER_NAME].encode()))
    assert detail.details["limit"] == "8192"
    assert 10_000 < int(detail.details["size"]) < 10_500
    assert await raw_peer.works()


async def test_header_lists_beyond_measure_end_their_connection_and_no_other(edge, raw_peer):
    # The same long field again and again costs a byte each time, and us its length.
    raw_peer.start(HEALTH, [("x", "y" * 3_000)] * 50)
    await raw_peer.until(lambda: raw_peer.goodbye)
    assert raw_peer.goodbye
    assert (await edge.call("Health")).status == "ok"


async def test_a_call_takes_exactly_one_message(raw_peer):
    none = raw_peer.start(HEALTH, end_stream=True)
    empty = raw_peer.start(HEALTH)
    raw_peer.http2.end_stream(empty)
    two = raw_peer.start(HEALTH)
    raw_peer.message(two, b"", end_stream=False)
    raw_peer.message(two, b"", end_stream=False)
    half = raw_peer.start(HEALTH)
    raw_peer.http2.send_data(half, b"\0\0\0\0\7half", end_stream=True)
    compressed = raw_peer.start(HEALTH)
    raw_peer.message(compressed, b"\x1f\x8b", flag=1)
    neither = raw_peer.start(HEALTH)
    raw_peer.message(neither, b"", flag=2)
    endings = [await raw_peer.ending(each) for each in (none, empty, two, half, compressed, neither)]
    assert endings == ["3", "3", "3", "3", "13", "3"]
    assert await raw_peer.works()


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
