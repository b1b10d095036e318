"""Frames: packed as RFC 9113 draws them, and refused in every wrong size and place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc.http2.fix_connection import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Frame,
    ended_by,
    greeted,
    headers,
    parse,
    raw,
    resets,
    settings,
    u32,
)

from statehouse.rpc.http2.frames import (
    CONNECTION_PREFACE,
    RULES,
    ErrorCode,
    FrameType,
    Setting,
    frame,
    goaway_payload,
    header_frames,
    read_goaway,
    read_settings,
    settings_payload,
)

FRAME_SIZE, PROTOCOL = ErrorCode.FRAME_SIZE_ERROR, ErrorCode.PROTOCOL_ERROR
ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


def opened(*, client):
    """A connection with stream 1 open."""
    connection = greeted(client=client)
    if client:
        connection.send_headers(connection.open(), b"\x82", ends=False)
    else:
        connection.receive(headers(1), 0.0)
    connection.take_output()
    connection.take_events()
    return connection


def test_a_frame_in_bytes():
    assert frame(FrameType.RST_STREAM, 0, 5, u32(8)) == bytes.fromhex("000004 03 00 00000005 00000008")
    assert frame(FrameType.DATA, END_STREAM, 1, bytes(70_000))[:9] == bytes.fromhex("011170 00 01 00000001")
    assert goaway_payload(7, ErrorCode.ENHANCE_YOUR_CALM, b"calm") == bytes.fromhex("00000007 0000000b") + b"calm"
    assert settings_payload({Setting.INITIAL_WINDOW_SIZE: 1}) == bytes.fromhex("0004 00000001")
    assert CONNECTION_PREFACE == PREFACE == bytes.fromhex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a")


def test_the_reserved_bit_of_a_goaway_is_ignored():
    assert read_goaway(u32(0x80000003) + u32(2) + b"debug") == (3, 2, b"debug")


def test_settings_are_read_in_their_order():
    assert read_settings(bytes.fromhex("0004 00000001 0004 00000002 ffff ffffffff")) == [
        (4, 1),
        (4, 2),
        (65_535, 2**32 - 1),
    ]


def test_there_is_a_rule_for_each_type():
    assert [FrameType(kind).value for kind in range(len(RULES))] == list(range(10))


@given(st.binary(max_size=2_000), st.integers(1, 700), st.booleans())
def test_a_header_block_is_split_where_it_must_be(block, limit, ends):
    first, *others = parse(header_frames(3, block, limit, end_stream=ends))
    assert first.kind == HEADERS
    assert bool(first.flags & END_STREAM) == ends
    assert all(each.kind == CONTINUATION and not each.flags & END_STREAM for each in others)
    assert {each.stream_id for each in [first, *others]} == {3}
    assert [bool(each.flags & END_HEADERS) for each in [first, *others]] == [False] * len(others) + [True]
    assert max(len(each.payload) for each in [first, *others]) <= limit
    assert len(others) == max(0, -(-len(block) // limit) - 1)
    assert b"".join(each.payload for each in [first, *others]) == block


@ROLES
@pytest.mark.parametrize(
    ("kind", "flags", "stream_id", "sizes"),
    [
        (RST_STREAM, 0, 1, (0, 3, 5, 8)),
        (SETTINGS, 0, 0, (1, 5, 7, 11)),
        (SETTINGS, ACK, 0, (1, 6)),
        (PING, 0, 0, (0, 7, 9)),
        (PING, ACK, 0, (0, 7, 9)),
        (GOAWAY, 0, 0, (0, 4, 7)),
        (WINDOW_UPDATE, 0, 0, (0, 3, 5)),
        (WINDOW_UPDATE, 0, 1, (0, 3, 5)),
        (PUSH_PROMISE, 0, 1, (0, 3)),
        (DATA, PADDED, 1, (0,)),
        (HEADERS, PADDED | END_HEADERS, 1, (0,)),
        (HEADERS, WITH_PRIORITY | END_HEADERS, 1, (0, 4)),
    ],
)
def test_a_wrong_size_ends_the_connection(client, kind, flags, stream_id, sizes):
    for size in sizes:
        connection = opened(client=client)
        connection.receive(raw(kind, flags, stream_id, bytes(size)), 0.0)
        assert ended_by(connection) == FRAME_SIZE
        assert connection.take_events() == []


@ROLES
@pytest.mark.parametrize("size", [0, 4, 6])
def test_a_priority_of_a_wrong_size_resets_the_stream(client, size):
    connection = opened(client=client)
    connection.receive(raw(PRIORITY, 0, 1, bytes(size)), 0.0)
    assert connection.take_events() == [("reset", 1, FRAME_SIZE)]
    assert resets(connection) == [(1, FRAME_SIZE)]
    assert connection.ended is None


@ROLES
@pytest.mark.parametrize("stream_id", [5, 2])
def test_what_is_idle_cannot_be_reset(client, stream_id):
    connection = opened(client=client)
    connection.receive(raw(PRIORITY, 0, stream_id, bytes(4)), 0.0)
    assert ended_by(connection) == FRAME_SIZE


@ROLES
@pytest.mark.parametrize(
    ("kind", "stream_id", "payload"),
    [
        (DATA, 0, b"data"),
        (HEADERS, 0, b"\x82"),
        (PRIORITY, 0, bytes(5)),
        (RST_STREAM, 0, bytes(4)),
        (PUSH_PROMISE, 0, bytes(4)),
        (PUSH_PROMISE, 1, bytes(4)),
        (CONTINUATION, 0, b"\x82"),
        (CONTINUATION, 1, b"\x82"),
        (SETTINGS, 1, b""),
        (PING, 1, bytes(8)),
        (GOAWAY, 1, bytes(8)),
    ],
)
def test_a_wrong_place_ends_the_connection(client, kind, stream_id, payload):
    connection = opened(client=client)
    connection.receive(raw(kind, END_HEADERS if kind in (HEADERS, CONTINUATION) else 0, stream_id, payload), 0.0)
    assert ended_by(connection) == PROTOCOL
    assert connection.take_events() == []


@ROLES
def test_a_frame_that_is_too_long_is_refused_before_it_came(client):
    connection = opened(client=client)
    connection.receive(raw(DATA, 0, 1, bytes(16_385))[:9], 0.0)
    assert ended_by(connection) == FRAME_SIZE
    connection = opened(client=client)
    connection.receive(raw(DATA, 0, 1, bytes(16_384)), 0.0)
    assert connection.take_events() == [("data", 1, bytes(16_384), False)]


@ROLES
@pytest.mark.parametrize("stream_id", [0, 1, 2, 99])
def test_unknown_types_and_flags_are_ignored(client, stream_id):
    connection = opened(client=client)
    connection.receive(raw(10, 0xFF, stream_id, b"?") + raw(255, 0, stream_id), 0.0)
    connection.receive(raw(PING, 0xFE, 0, b"8 bytes.") + raw(DATA, 0xF6, 1, b"data"), 0.0)
    assert connection.take_events() == [("data", 1, b"data", False)]
    assert connection.take_frames() == [Frame(PING, ACK, 0, b"8 bytes.")]


def test_the_reserved_bit_of_a_stream_id_is_ignored():
    connection = opened(client=False)
    connection.receive(raw(DATA, 0, 0x80000001, b"data"), 0.0)
    assert connection.take_events() == [("data", 1, b"data", False)]


@ROLES
@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_is_taken_off(client, padding):
    connection = opened(client=client)
    padded = bytes((padding,)) + b"data" + bytes(padding)
    connection.receive(raw(DATA, PADDED | END_STREAM, 1, padded), 0.0)
    assert connection.take_events() == [("data", 1, b"data", True)]


@pytest.mark.parametrize("flags", [PADDED, PADDED | WITH_PRIORITY])
@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_and_priority_of_headers_are_taken_off(flags, padding):
    connection = greeted()
    block = (b"\x80\0\0\x03\xff" if flags & WITH_PRIORITY else b"") + b"\x82"
    connection.receive(headers(1, flags | END_HEADERS, bytes((padding,)) + block + bytes(padding)), 0.0)
    assert connection.take_events() == [("opened", 1, [(b":method", b"GET", False)], False)]


@ROLES
@pytest.mark.parametrize("kind", [DATA, HEADERS])
def test_more_padding_than_payload_ends_the_connection(client, kind):
    for payload in (b"\x01", b"\x05data", b"\xff"):
        connection = opened(client=client)
        connection.receive(raw(kind, PADDED | END_HEADERS, 1, payload), 0.0)
        assert ended_by(connection) == PROTOCOL


@pytest.mark.parametrize(
    "first", [headers(1, WITH_PRIORITY | END_HEADERS, u32(1) + b"\0\x82"), raw(PRIORITY, 0, 1, u32(1) + b"\0")]
)
def test_a_stream_does_not_depend_on_itself(first):
    connection = greeted()
    connection.receive(first, 0.0)
    assert ended_by(connection) == PROTOCOL
    assert connection.take_events() == []


def test_priority_means_nothing():
    connection = greeted()
    connection.receive(
        raw(PRIORITY, 0, 9, u32(0) + b"\x10") + headers(1, WITH_PRIORITY | END_HEADERS, u32(7) + b"\0\x82"), 0.0
    )
    assert connection.take_events() == [("opened", 1, [(b":method", b"GET", False)], False)]
    assert connection.take_frames() == []


@pytest.mark.parametrize("cut", range(len(PREFACE) + 1))
def test_the_preface_in_two_pieces(cut):
    connection = greeted()
    fresh = type(connection)()
    fresh.receive(PREFACE[:cut], 0.0)
    assert fresh.ended is None
    fresh.receive(PREFACE[cut:] + settings(), 0.0)
    assert fresh.take_events() == [("settings",)]


@pytest.mark.parametrize(
    "begun", [b"GET / HTTP/1.1\r\n", b"\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r!", b"PRI * HTTP/1", b"\x16\x03\x01"]
)
def test_what_is_no_preface(begun):
    connection = type(greeted())()
    connection.receive(begun, 0.0)
    assert ended_by(connection) == PROTOCOL


@ROLES
@pytest.mark.parametrize("first", [raw(PING, 0, 0, bytes(8)), raw(SETTINGS, ACK), headers(1), raw(42)])
def test_the_first_frame_is_settings(client, first):
    connection = type(greeted())(client=client)
    connection.receive((b"" if client else PREFACE) + first, 0.0)
    assert ended_by(connection) == PROTOCOL
