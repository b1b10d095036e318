"""gRPC's frames of messages, in any pieces, and gzip that is bounded when it is inflated."""

import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.errors import InvalidRequestError
from statehouse.rpc.messages import MESSAGE_HEADER, Compressed, MessageReader, MessageTooLargeError

LIMIT = 1_000


def framed(message, *, compressed=0):
    return MESSAGE_HEADER.pack(compressed, len(message)) + message


def test_a_message_in_bytes():
    assert framed(b"abc") == bytes.fromhex("00 00000003 616263")


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=LIMIT)), max_size=8), st.data())
def test_messages_in_any_pieces(messages, data):
    sent = b"".join(framed(message, compressed=compressed) for compressed, message in messages)
    expected = [Compressed(message, LIMIT) if compressed else message for compressed, message in messages]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    reader = MessageReader(LIMIT)
    came = []
    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        came += reader.feed(sent[begin:end])
        assert all(type(each) in (bytes, Compressed) for each in came)
        kept = reader.begun_bytes
        assert reader.missing_bytes == (reader.message_bytes or 5) - kept if kept else not reader.missing_bytes
        if data.draw(st.booleans()):
            reader.make_room()
            assert len(reader._begun) == (reader.message_bytes or kept)
        assert kept == end - sum(5 + len(each.content if isinstance(each, Compressed) else each) for each in came)
        assert kept <= 5 + LIMIT
    assert came == expected
    assert (reader.missing_bytes, reader.message_bytes) == (0, 0)


def test_byte_by_byte_with_what_is_missing():
    reader = MessageReader(LIMIT)
    sent = framed(b"abc") + framed(b"")
    missing, sizes, came = [], [], []
    for at in range(len(sent)):
        came += reader.feed(sent[at : at + 1])
        missing.append(reader.missing_bytes)
        sizes.append(reader.message_bytes)
    assert came == [b"abc", b""]
    assert missing == [4, 3, 2, 1, 3, 2, 1, 0, 4, 3, 2, 1, 0]
    assert sizes == [0, 0, 0, 0, 8, 8, 8, 0, 0, 0, 0, 0, 0]


def test_a_message_that_begins_behind_another():
    reader = MessageReader(LIMIT)
    assert reader.feed(framed(b"one") + framed(bytes(500))[:7]) == [b"one"]
    assert (reader.missing_bytes, reader.message_bytes) == (498, 505)
    assert reader.feed(bytes(498)) == [bytes(500)]


@pytest.mark.parametrize("compressed", [0, 1])
def test_the_limit_is_judged_at_the_fifth_byte(compressed):
    assert len(MessageReader(LIMIT).feed(framed(bytes(LIMIT), compressed=compressed))) == 1
    for begun in (b"", framed(b"before")):
        reader = MessageReader(LIMIT)
        reader.feed(begun + MESSAGE_HEADER.pack(compressed, LIMIT + 1)[:4])
        with pytest.raises(MessageTooLargeError) as refused:
            reader.feed(MESSAGE_HEADER.pack(compressed, LIMIT + 1)[4:])
        assert refused.value.details == {"limit": "1000", "size": "1001"}


def test_a_whole_message_over_the_limit():
    with pytest.raises(MessageTooLargeError):
        MessageReader(LIMIT).feed(framed(bytes(LIMIT + 1)))


@pytest.mark.parametrize("flag", [2, 255])
def test_a_flag_that_means_nothing(flag):
    with pytest.raises(InvalidRequestError):
        MessageReader(LIMIT).feed(bytes((flag, 0, 0, 0, 0)))


def test_a_long_message_in_small_pieces_takes_time_in_proportion():
    reader = MessageReader(4 * 1024 * 1024)
    sent = framed(bytes(1024 * 1024))
    came = [message for at in range(0, len(sent), 10) for message in reader.feed(sent[at : at + 10])]
    assert came == [bytes(1024 * 1024)]


def test_room_for_a_message_is_taken_once():
    reader = MessageReader(4 * 1024 * 1024)
    sent = framed(bytes(3 * 1024 * 1024))
    pieces = [sent[at : at + 16_384] for at in range(0, len(sent), 16_384)]
    reader.feed(pieces[0])
    reader.make_room()
    tracemalloc.start()
    try:
        for piece in pieces[1:-1]:
            assert reader.feed(piece) == []
            reader.make_room()
        assert tracemalloc.get_traced_memory()[1] < 2 * 16_384 + 4_096  # a piece, and a copy of it
    finally:
        tracemalloc.stop()
    assert reader.feed(pieces[-1] + framed(b"next")[:7]) == [bytes(3 * 1024 * 1024)]
    assert (reader.missing_bytes, len(reader._begun)) == (2, 7)
    assert reader.feed(framed(b"next")[7:]) == [b"next"]


# gzip


@given(st.binary(max_size=LIMIT))
def test_what_was_compressed_comes_back(message):
    assert Compressed(gzip.compress(message), LIMIT).inflate() == message


def test_the_limit_of_an_inflated_message():
    assert Compressed(gzip.compress(bytes(LIMIT)), LIMIT).inflate() == bytes(LIMIT)
    assert Compressed(gzip.compress(b""), 0).inflate() == b""
    for size in (LIMIT + 1, 100 * LIMIT):
        with pytest.raises(MessageTooLargeError) as refused:
            Compressed(gzip.compress(bytes(size)), LIMIT).inflate()
        assert refused.value.details == {"limit": "1000", "size": "more than 1000"}


def test_a_bomb_stays_small():
    bomb = gzip.compress(bytes(100 * 1024 * 1024))
    assert len(bomb) < 150_000
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLargeError):
            Compressed(bomb, 100_000).inflate()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"message")[:-1],
        gzip.compress(b"message") + b"more",
        gzip.compress(b"one") + gzip.compress(b"two"),
        gzip.compress(b"message")[:-8] + bytes(8),
        zlib.compress(b"message"),
    ],
    ids=["empty", "garbage", "cut short", "something behind", "two members", "a wrong checksum", "zlib"],
)
def test_what_is_no_gzip(content):
    with pytest.raises(InvalidRequestError, match="no gzip"):
        Compressed(content, LIMIT).inflate()


@given(st.binary(max_size=200), st.data())
def test_damaged_gzip_raises_nothing_else(message, data):
    content = bytearray(gzip.compress(message))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidRequestError):
        assert len(Compressed(bytes(content), LIMIT).inflate()) <= LIMIT
