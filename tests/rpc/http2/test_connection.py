"""The connection as a whole: header blocks in pieces, pings, goodbyes, how far faults reach, bytes that come anyhow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc.http2.fix_connection import (
    ACK,
    BLOCK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIELDS,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    Recorder,
    ended_by,
    greeted,
    headers,
    raw,
    resets,
    settings,
    u32,
)

from statehouse.rpc.http2.faults import StreamFaultError
from statehouse.rpc.http2.frames import ErrorCode, Setting

PROTOCOL, COMPRESSION = ErrorCode.PROTOCOL_ERROR, ErrorCode.COMPRESSION_ERROR
ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


# Header blocks in pieces


@pytest.mark.parametrize("cut", range(len(BLOCK) + 1))
@pytest.mark.parametrize("ends", [False, True])
def test_a_block_in_two_frames(cut, ends):
    connection = greeted()
    connection.receive(raw(HEADERS, END_STREAM if ends else 0, 1, BLOCK[:cut]), 0.0)
    assert connection.take_events() == []
    connection.receive(raw(CONTINUATION, END_HEADERS, 1, BLOCK[cut:]), 0.0)
    assert connection.take_events() == [("opened", 1, FIELDS, ends)]


def test_a_block_in_many_frames():
    connection = greeted()
    first, *others = [BLOCK[at : at + 1] for at in range(len(BLOCK))]
    pieces = [raw(CONTINUATION, 0, 1, piece) + raw(CONTINUATION, 0, 1) for piece in others]
    connection.receive(raw(HEADERS, 0, 1, first) + b"".join(pieces) + raw(CONTINUATION, END_HEADERS, 1), 0.0)
    assert connection.take_events() == [("opened", 1, FIELDS, False)]


def test_only_the_headers_say_that_a_stream_ends():
    connection = greeted()
    connection.receive(headers(1, 0) + raw(CONTINUATION, 0xFF, 1), 0.0)
    connection.receive(headers(3, END_STREAM) + raw(CONTINUATION, END_HEADERS, 3), 0.0)
    assert [event[3] for event in connection.take_events()] == [False, True]


def test_padding_of_the_first_frame_ends_with_it():
    connection = greeted()
    connection.receive(
        raw(HEADERS, PADDED, 1, b"\x02" + BLOCK[:3] + b"\0\0") + raw(CONTINUATION, 0x0C, 1, BLOCK[3:]), 0.0
    )
    assert connection.take_events() == [("opened", 1, FIELDS, False)]


@pytest.mark.parametrize(
    "between",
    [
        raw(DATA, 0, 1, b"data"),
        headers(1),
        headers(3),
        raw(PING, 0, 0, bytes(8)),
        settings(),
        raw(WINDOW_UPDATE, 0, 0, u32(1)),
        raw(RST_STREAM, 0, 1, u32(8)),
        raw(CONTINUATION, END_HEADERS, 3, BLOCK),
        raw(42, 0, 1),
    ],
)
def test_nothing_comes_between_the_frames_of_a_block(between):
    connection = greeted()
    connection.receive(raw(HEADERS, 0, 1, BLOCK[:2]) + between, 0.0)
    assert ended_by(connection) == PROTOCOL
    assert connection.take_events() == []


@ROLES
def test_continuation_after_the_end_of_a_block(client):
    connection = greeted(client=client)
    if client:
        connection.send_headers(connection.open(), BLOCK, ends=False)
    connection.receive(headers(1), 0.0)
    connection.receive(raw(CONTINUATION, END_HEADERS, 1, BLOCK), 0.0)
    assert ended_by(connection) == PROTOCOL


@pytest.mark.parametrize("block", [b"\x00", b"\x00\x01a", b"\x80", b"\xff", b"\x82\x20"])
def test_a_block_that_is_none_ends_the_connection(block):
    for frames in (
        headers(1, END_HEADERS, block),
        headers(1, 0, block[:1]) + raw(CONTINUATION, END_HEADERS, 1, block[1:]),
    ):
        connection = greeted()
        connection.receive(frames, 0.0)
        assert ended_by(connection) == COMPRESSION


def test_what_a_block_was_made_of_is_not_kept():
    connection = greeted()
    connection.receive(headers(1, 0, BLOCK) + raw(CONTINUATION, END_HEADERS, 1), 0.0)
    assert connection._gathering._pieces == []


# Pings, settings, goodbyes


@ROLES
def test_the_first_thing_that_is_said(client):
    connection = Recorder(client=client, ours={Setting.ENABLE_PUSH: 0, Setting.MAX_FRAME_SIZE: 16_384})
    said = bytes(connection.take_output())
    assert said == (PREFACE if client else b"") + settings((2, 0), (5, 16_384))


@ROLES
def test_a_ping_is_answered_and_an_answer_is_not(client):
    connection = greeted(client=client)
    connection.receive(raw(PING, 0, 0, b"12345678") + raw(PING, ACK, 0, b"abcdefgh"), 0.0)
    assert connection.take_frames() == [Frame(PING, ACK, 0, b"12345678")]
    connection.ping(b"question")
    assert connection.take_frames() == [Frame(PING, 0, 0, b"question")]


def test_a_goodbye_is_told_and_what_is_under_way_goes_on():
    connection = greeted()
    connection.receive(headers(1) + raw(GOAWAY, 0, 0, u32(0) + u32(0) + b"debug") + raw(DATA, 0, 1, b"x"), 0.0)
    assert connection.take_events() == [("opened", 1, FIELDS, False), ("goaway", 0, 0), ("data", 1, b"x", False)]
    assert connection.ended is None


def test_our_own_goodbye_goes_in_two_steps():
    connection = greeted()
    connection.receive(headers(7), 0.0)
    connection.go_away()
    connection.go_away(connection.highest_stream_id)
    assert [each.payload for each in connection.take_frames()] == [u32(2**31 - 1) + u32(0), u32(7) + u32(0)]
    connection.receive(raw(DATA, 0, 7, b"x"), 0.0)
    assert connection.take_events()[-1] == ("data", 7, b"x", False)


@pytest.mark.parametrize(("client", "looked_at"), [(False, 5), (True, 0)])
def test_the_goaway_of_a_fault(client, looked_at):
    connection = greeted(client=client)
    if client:
        for _ in range(3):
            connection.send_headers(connection.open(), BLOCK, ends=False)
    else:
        connection.receive(headers(5), 0.0)
    connection.take_output()
    connection.receive(raw(PING, 0, 1, bytes(8)), 0.0)
    assert connection.take_frames() == [Frame(GOAWAY, 0, 0, u32(looked_at) + u32(PROTOCOL) + b"PING on stream 1")]
    connection.end(ErrorCode.INTERNAL_ERROR, "again")
    assert connection.take_output() == b""
    assert (connection.ended.code, connection.ended.reason) == (PROTOCOL, "PING on stream 1")


def test_the_reason_of_a_peaceful_end_is_ours_alone():
    connection = greeted()
    connection.end(ErrorCode.NO_ERROR, "idle")
    assert connection.take_frames() == [Frame(GOAWAY, 0, 0, u32(0) + u32(0))]


# How far a fault reaches


def test_a_stream_fault_leaves_the_other_streams():
    connection = greeted(ours={Setting.INITIAL_WINDOW_SIZE: 5})
    connection.receive(headers(1) + headers(3) + raw(DATA, 0, 1, b"123456") + raw(DATA, 0, 3, b"12345"), 0.0)
    assert connection.take_events()[2:] == [("reset", 1, ErrorCode.FLOW_CONTROL_ERROR), ("data", 3, b"12345", False)]
    assert resets(connection) == [(1, ErrorCode.FLOW_CONTROL_ERROR)]
    assert connection.opened[1].closed
    assert list(connection.streams) == [3]


def test_a_role_can_find_a_fault_of_the_stream():
    class Picky(Recorder):
        def _stream_opened(self, stream, headers, *, ends):
            raise StreamFaultError(stream.id, PROTOCOL, "malformed")

    connection = Picky()
    connection.receive(PREFACE + settings() + headers(1) + raw(DATA, 0, 1, b"data") + headers(1), 0.0)
    assert connection.take_events() == [("settings",), ("reset", 1, PROTOCOL)]
    assert resets(connection) == [(1, PROTOCOL)]
    assert connection.ended is None


def test_after_the_end_nothing_is_heard():
    connection = greeted()
    connection.receive(headers(1) + raw(SETTINGS, 0, 1) + headers(3) + b"\0\0", 0.0)
    assert ended_by(connection) == PROTOCOL
    assert connection.take_events() == [("opened", 1, FIELDS, False)]
    connection.receive(headers(5) + raw(PING, 0, 0, bytes(8)) + b"?" * 10_000, 1.0)
    assert (connection.take_events(), connection.take_output(), connection._reader.rest) == ([], b"", b"")


def test_a_role_that_ends_the_connection_hears_nothing_more():
    class Leaving(Recorder):
        def _goaway_came(self, last_stream_id, code, text):
            self.end(ErrorCode.NO_ERROR, "the peer left")

    connection = Leaving()
    connection.receive(PREFACE + settings() + raw(GOAWAY, 0, 0, bytes(8)) + headers(1) + b"rest", 0.0)
    assert connection.take_events() == [("settings",)]
    assert [each.kind for each in connection.take_frames()] == [SETTINGS, SETTINGS, GOAWAY]
    assert connection._reader.rest == b""


def test_what_waits_for_the_rest_of_a_frame_is_less_than_a_frame():
    connection = greeted()
    connection.receive(headers(1) + raw(DATA, 0, 1, bytes(16_384))[:-1], 0.0)
    assert len(connection._reader.rest) == 16_384 + 8


# Bytes that come anyhow

PIECES = [
    headers(1),
    headers(3, END_HEADERS | END_STREAM, b"\x40\x01a\x01b"),
    headers(5, END_HEADERS, b"\xbe"),
    headers(7, 0, BLOCK[:2]) + raw(CONTINUATION, END_HEADERS, 7, BLOCK[2:]),
    headers(1, END_HEADERS | END_STREAM),
    raw(DATA, PADDED, 1, b"\x03data\0\0\0"),
    raw(DATA, END_STREAM, 5, bytes(300)),
    raw(DATA, 0, 1, bytes(16_384)),
    raw(RST_STREAM, 0, 1, u32(8)),
    raw(PING, 0, 0, b"8 bytes."),
    raw(WINDOW_UPDATE, 0, 0, u32(9)),
    raw(WINDOW_UPDATE, 0, 5, u32(0)),
    settings((4, 10), (1, 0)),
    raw(42, 1, 9, b"unknown"),
    raw(GOAWAY, 0, 0, bytes(8)),
    raw(SETTINGS, 0, 1),
    raw(PING, 0, 0, b"7 bytes"),
    b"\0",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.data())
def test_bytes_mean_the_same_however_they_come(pieces, data):
    sent = PREFACE + settings() + b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=20)))
    assert_same(sent, [sent[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)])


def test_bytes_that_come_one_at_a_time():
    for chosen in (PIECES[:7], PIECES[8:15], [*PIECES[:3], *PIECES[15:]], PIECES[16:]):
        sent = PREFACE + settings() + b"".join(chosen)
        assert_same(sent, [sent[at : at + 1] for at in range(len(sent))])


def assert_same(sent, pieces):
    at_once, in_pieces = Recorder(), Recorder()
    at_once.receive(sent, 1.0)
    for piece in pieces:
        in_pieces.receive(piece, 1.0)
    assert b"".join(pieces) == sent
    assert in_pieces.events == at_once.events
    assert in_pieces.take_output() == at_once.take_output()
    assert in_pieces.ended == at_once.ended
    assert in_pieces._reader.rest == at_once._reader.rest
    assert in_pieces.streams.keys() == at_once.streams.keys()
