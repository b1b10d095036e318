"""Flow control to the byte, both ways, and what settings do to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc.http2.fix_connection import (
    ACK,
    BLOCK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
    Frame,
    Recorder,
    ended_by,
    greeted,
    headers,
    parse,
    raw,
    resets,
    settings,
    u32,
)

from statehouse.rpc.http2.frames import ErrorCode, Setting

FLOW = ErrorCode.FLOW_CONTROL_ERROR
LARGEST = 2**31 - 1
INITIAL_WINDOW, MAX_FRAME = Setting.INITIAL_WINDOW_SIZE, Setting.MAX_FRAME_SIZE


def opened(*named, **options):
    """A server's connection with stream 1 open, and the client's settings taken."""
    connection = greeted(**options)
    connection.receive(settings(*named) + headers(1), 0.0)
    connection.take_output()
    connection.take_events()
    return connection, connection.opened[1]


# What comes


@pytest.mark.parametrize("padding", [None, 0, 100])
def test_a_stream_may_send_its_window_and_no_byte_more(padding):
    connection, stream = opened(ours={INITIAL_WINDOW: 1_000}, window_bytes=1_000_000)
    over = 0 if padding is None else padding + 1
    payload = bytes(900 - over) if padding is None else bytes((padding,)) + bytes(900 - over) + bytes(padding)
    connection.receive(raw(DATA, 0 if padding is None else PADDED, 1, payload), 0.0)
    connection.receive(raw(DATA, 0, 1, bytes(100)), 0.0)
    assert stream.receive_window == 0
    assert [len(event[2]) for event in connection.take_events()] == [900 - over, 100]
    connection.receive(raw(DATA, 0, 1, b"x"), 0.0)
    assert connection.take_events() == [("reset", 1, FLOW)]
    assert resets(connection) == [(1, FLOW)]


def test_the_connection_takes_its_window_and_no_byte_more():
    connection = greeted(ours={INITIAL_WINDOW: LARGEST}, window_bytes=WINDOW)
    connection.receive(headers(1), 0.0)
    connection._receive_window = 10
    connection._window_bytes = 10  # so that the window is not returned before it is used up
    connection.receive(raw(DATA, 0, 1, bytes(11)), 0.0)
    assert ended_by(connection) == FLOW


def test_the_connection_window_is_returned_whoever_the_data_is_for():
    connection, stream = opened(ours={INITIAL_WINDOW: 40_000})
    connection.receive(raw(DATA, 0, 1, bytes(16_384)) * 2, 0.0)
    assert connection.take_frames() == []  # half of the window is still there
    connection.reset(stream, ErrorCode.CANCEL)
    connection.take_output()
    for _ in range(50):  # of a stream that we have reset, and far more than a window
        connection.receive(raw(DATA, 0, 1, bytes(16_384)), 0.0)
    returned = [each for each in connection.take_frames() if each.kind == WINDOW_UPDATE]
    assert connection.ended is None
    assert {each.stream_id for each in returned} == {0}
    assert WINDOW // 2 <= WINDOW + sum(int.from_bytes(each.payload, "big") for each in returned) - 52 * 16_384 <= WINDOW


def test_a_larger_connection_window_is_told_at_once():
    assert parse(bytes(Recorder(window_bytes=WINDOW + 5).take_output()))[1:] == [Frame(WINDOW_UPDATE, 0, 0, u32(5))]
    assert len(parse(bytes(Recorder(window_bytes=WINDOW).take_output()))) == 1


def test_a_grant_lets_the_peer_send_more():
    connection, stream = opened(ours={INITIAL_WINDOW: 0})
    connection.grant(stream, 5)
    assert connection.take_frames() == [Frame(WINDOW_UPDATE, 0, 1, u32(5))]
    connection.receive(raw(DATA, 0, 1, b"12345"), 0.0)
    assert connection.take_events() == [("data", 1, b"12345", False)]
    connection.receive(raw(DATA, 0, 1, b"6"), 0.0)
    assert resets(connection) == [(1, FLOW)]


# What is sent


@given(st.integers(0, 200_000), st.integers(0, 200_000), st.lists(st.integers(1, 50_000), max_size=4))
def test_room_is_the_smaller_window(of_stream, of_connection, sent):
    connection, stream = opened((INITIAL_WINDOW, of_stream))
    if of_connection:
        connection.receive(raw(WINDOW_UPDATE, 0, 0, u32(of_connection)), 0.0)
    expected_stream, expected = of_stream, WINDOW + of_connection
    for wanted in sent:
        assert connection.room(stream) == min(expected_stream, expected)
        size = max(0, min(wanted, connection.room(stream)))
        connection.send_data(stream, bytes(size), ends=False)
        expected_stream, expected = expected_stream - size, expected - size
    assert connection.room(stream) == min(expected_stream, expected)


@given(st.integers(0, 60_000), st.sampled_from([None, 16_384, 16_385, 20_000, 2**24 - 1]), st.booleans())
def test_data_is_split_at_the_peers_frame_size(size, limit, ends):
    named = [] if limit is None else [(MAX_FRAME, limit)]
    connection, stream = opened(*named)
    content = (b"0123456789abcdef" * 4_000)[:size]
    connection.send_data(stream, memoryview(content), ends=ends)
    frames = connection.take_frames()
    assert b"".join(each.payload for each in frames) == content
    assert max(len(each.payload) for each in frames) <= (limit or 16_384)
    assert len(frames) == max(1, -(-size // (limit or 16_384)))
    assert [each.flags for each in frames] == [0] * (len(frames) - 1) + [END_STREAM if ends else 0]
    assert stream.send_window == WINDOW - size


def test_headers_are_split_at_the_peers_frame_size():
    connection, stream = opened()
    connection.send_headers(stream, bytes(40_000), ends=True)
    assert [(each.kind, each.flags, len(each.payload)) for each in connection.take_frames()] == [
        (HEADERS, END_STREAM, 16_384),
        (9, 0, 16_384),
        (9, END_HEADERS, 40_000 - 2 * 16_384),
    ]


def test_window_updates_are_told():
    connection, stream = opened((INITIAL_WINDOW, 0))
    connection.receive(raw(WINDOW_UPDATE, 0, 1, u32(0x80000007)) + raw(WINDOW_UPDATE, 0, 0, u32(9)), 0.0)
    assert connection.take_events() == [("room", 1), ("room", None)]
    assert (stream.send_window, connection.send_window) == (7, WINDOW + 9)


@pytest.mark.parametrize("stream_id", [0, 1])
def test_a_window_grows_to_its_largest_and_no_byte_more(stream_id):
    connection, _ = opened()
    connection.receive(raw(WINDOW_UPDATE, 0, stream_id, u32(LARGEST - WINDOW)), 0.0)
    assert (connection.ended, len(connection.streams)) == (None, 1)
    connection.receive(raw(WINDOW_UPDATE, 0, stream_id, u32(1)), 0.0)
    if stream_id:
        assert connection.take_events()[-1] == ("reset", 1, FLOW)
        assert resets(connection) == [(1, FLOW)]
    else:
        assert ended_by(connection) == FLOW


@pytest.mark.parametrize("stream_id", [0, 1])
@pytest.mark.parametrize("increment", [0, 0x80000000])
def test_a_window_update_of_nothing(stream_id, increment):
    connection, _ = opened()
    connection.receive(raw(WINDOW_UPDATE, 0, stream_id, u32(increment)), 0.0)
    if stream_id:
        assert resets(connection) == [(1, ErrorCode.PROTOCOL_ERROR)]
        assert connection.ended is None
    else:
        assert ended_by(connection) == ErrorCode.PROTOCOL_ERROR


# Settings


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (Setting.ENABLE_PUSH, 0, None),
        (Setting.ENABLE_PUSH, 1, None),
        (Setting.ENABLE_PUSH, 2, ErrorCode.PROTOCOL_ERROR),
        (INITIAL_WINDOW, 0, None),
        (INITIAL_WINDOW, LARGEST, None),
        (INITIAL_WINDOW, LARGEST + 1, FLOW),
        (INITIAL_WINDOW, 2**32 - 1, FLOW),
        (MAX_FRAME, 16_383, ErrorCode.PROTOCOL_ERROR),
        (MAX_FRAME, 16_384, None),
        (MAX_FRAME, 2**24 - 1, None),
        (MAX_FRAME, 2**24, ErrorCode.PROTOCOL_ERROR),
        (Setting.HEADER_TABLE_SIZE, 2**32 - 1, None),
        (Setting.MAX_CONCURRENT_STREAMS, 0, None),
        (Setting.MAX_HEADER_LIST_SIZE, 2**32 - 1, None),
        (0, 2**32 - 1, None),
        (65_535, 0, None),
    ],
)
def test_the_ranges_of_settings(name, value, code):
    connection = greeted()
    connection.receive(settings((name, value)), 0.0)
    if code is None:
        assert connection.take_frames() == [Frame(SETTINGS, ACK, 0, b"")]
        expected = [] if name in (INITIAL_WINDOW, MAX_FRAME) else [("setting", name, value)]
        assert connection.take_events() == [*expected, ("settings",)]
    else:
        assert ended_by(connection) == code


def test_an_acknowledgement_is_not_acknowledged():
    connection = greeted()
    connection.receive(raw(SETTINGS, ACK), 0.0)
    assert (connection.take_frames(), connection.take_events()) == ([], [])


def test_a_smaller_window_makes_open_ones_negative():
    connection, stream = opened()
    connection.send_data(stream, bytes(60_000), ends=False)
    connection.receive(settings((INITIAL_WINDOW, 10_000)), 0.0)
    assert connection.room(stream) == 10_000 - 60_000
    connection.receive(raw(WINDOW_UPDATE, 0, 1, u32(50_000)), 0.0)
    assert connection.room(stream) == 0
    connection.receive(raw(WINDOW_UPDATE, 0, 1, u32(1)), 0.0)
    assert connection.room(stream) == 1
    assert connection.send_window == WINDOW - 60_000  # settings do not touch it
    connection.receive(headers(3), 0.0)
    assert connection.opened[3].send_window == 10_000


def test_a_setting_may_make_an_open_window_too_large():
    connection, _ = opened()
    connection.receive(raw(WINDOW_UPDATE, 0, 1, u32(LARGEST - WINDOW)) + settings((INITIAL_WINDOW, WINDOW)), 0.0)
    assert connection.ended is None
    connection.receive(settings((INITIAL_WINDOW, WINDOW + 1)), 0.0)
    assert ended_by(connection) == FLOW


def test_a_setting_that_comes_twice_counts_with_its_last_value():
    _, stream = opened((INITIAL_WINDOW, 1), (INITIAL_WINDOW, 2))
    assert stream.send_window == 2


def test_a_client_takes_windows_as_a_server_does():
    connection = greeted(client=True)
    connection.receive(settings((INITIAL_WINDOW, 5)), 0.0)
    stream = connection.open()
    connection.send_headers(stream, BLOCK, ends=False)
    assert connection.room(stream) == 5
