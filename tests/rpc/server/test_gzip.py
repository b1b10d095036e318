"""Requests in gzip: what is inflated, where, and to how much."""

import gzip
import threading
import zlib

import pytest
from rpc.fix_memory_peer import END_STREAM, FrameType, frame, message, settle

from statehouse.rpc.server.answering import INFLATED_HERE_BYTES

LIMIT = 100_000
INCOMPRESSIBLE = zlib.compress(b"x" * 10, 0) + bytes(range(256)) * 20


@pytest.fixture
def seen(monkeypatch):
    """The requests that reached the handler, and the threads in which they were inflated."""
    from statehouse.rpc import messages

    seen = []
    inflate = messages.Compressed.inflate

    def spied(self):
        seen.append(threading.current_thread())
        return inflate(self)

    monkeypatch.setattr(messages.Compressed, "inflate", spied)
    return seen


@pytest.fixture
async def connected(over_memory):
    def count(request, _caller):
        return b"%d" % len(request)

    def ask(request, _caller):
        return request

    return await over_memory(unary={"Count": count}, conversation={"Ask": ask}, request_bytes=LIMIT)


async def call(connected, content, flag=1, encoding="gzip"):
    stream_id = await connected.peer.call("/t/Count", content, flag=flag, grpc_encoding=encoding)
    return stream_id, await connected.peer.status(stream_id)


@pytest.mark.parametrize("size", [0, 1, 5_000, LIMIT])
async def test_a_request_in_gzip_is_served(connected, size):
    stream_id, status = await call(connected, gzip.compress(b"x" * size))
    assert (status, connected.peer.data[stream_id]) == (0, message(b"%d" % size))
    assert connected.nothing_is_held()


async def test_a_message_may_be_plain_on_a_call_that_may_compress(connected):
    stream_id, status = await call(connected, b"plain", flag=0)
    assert (status, connected.peer.data[stream_id]) == (0, message(b"5"))


async def test_answers_say_what_may_be_sent(connected):
    stream_id, _ = await call(connected, b"", flag=0)
    assert connected.peer.headers[stream_id]["grpc-accept-encoding"] == "identity,gzip"
    assert "grpc-encoding" not in connected.peer.headers[stream_id]


def packed(content):
    """In gzip, as at one time: the test is named after it."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (packed(b"x" * (LIMIT + 1)), f"more than {LIMIT} bytes"),
        (packed(b"x" * 10**7), f"more than {LIMIT} bytes"),  # a bomb: 10 kB
        (packed(b"whole")[:-1], "does not end"),
        (packed(b"whole")[:12], "does not end"),
        (b"", "does not end"),
        (packed(b"one") + b"x", "does not end"),
        (packed(b"one") + packed(b"two"), "does not end"),
        (b"no gzip at all", "no gzip"),
        (zlib.compress(b"zlib's own frame"), "no gzip"),
        (packed(b"damaged")[:-8] + bytes(8), "no gzip"),
    ],
)
async def test_what_is_no_gzip_or_too_much_is_invalid(connected, content, says):
    stream_id, status = await call(connected, content)
    assert status == 3
    assert says in connected.peer.headers[stream_id]["grpc-message"]
    assert (await call(connected, gzip.compress(b"next")))[1] == 0
    assert connected.nothing_is_held()


@pytest.mark.parametrize("encoding", ["identity", None])
async def test_a_compressed_message_of_a_call_that_did_not_say_so_is_internal(connected, encoding):
    fields = {} if encoding is None else {"grpc_encoding": encoding}
    stream_id = await connected.peer.call("/t/Count", gzip.compress(b"x"), flag=1, **fields)
    assert await connected.peer.status(stream_id) == 13


@pytest.mark.parametrize("encoding", ["deflate", "snappy", "GZIP", ""])
async def test_other_encodings_are_unimplemented(connected, encoding):
    stream_id, status = await call(connected, b"", flag=0, encoding=encoding)
    assert status == 12
    assert connected.peer.headers[stream_id]["grpc-accept-encoding"] == "identity,gzip"


async def test_only_a_small_message_is_inflated_on_the_loop(connected, seen):
    small, large = gzip.compress(b"x"), gzip.compress(INCOMPRESSIBLE, 0)
    assert len(small) <= INFLATED_HERE_BYTES < len(large)
    assert (await call(connected, small))[1] == (await call(connected, large))[1] == 0
    here = threading.current_thread()
    assert [each is here for each in seen] == [True, False]


async def test_large_ones_of_a_client_that_left_are_counted_no_more_when_they_are_inflated(connected):
    for _ in range(10):
        await connected.peer.call("/t/Count", gzip.compress(INCOMPRESSIBLE, 0), flag=1, grpc_encoding="gzip")
    await connected.peer.leave()
    await connected.over.wait()
    assert connected.nothing_is_held()


async def test_questions_of_a_conversation_may_be_small_gzip(connected):
    begin, stream_id = connected.peer.begin("/t/Ask", grpc_encoding="gzip")
    small, large = gzip.compress(b"who?"), gzip.compress(INCOMPRESSIBLE, 0)
    await connected.peer.send(begin, frame(FrameType.DATA, 0, stream_id, message(small, 1)))
    await connected.peer.until(lambda: connected.peer.data.get(stream_id) == message(b"who?"))
    await connected.peer.send(frame(FrameType.DATA, END_STREAM, stream_id, message(large, 1)))
    assert await connected.peer.status(stream_id) == 3
    await settle()
    assert connected.nothing_is_held()
