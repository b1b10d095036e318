"""Streams: every state against every frame, for both roles; a table from RFC 9113, 5.1, written out."""

import pytest
from rpc.http2.fix_connection import (
    BLOCK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIELDS,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    WINDOW_UPDATE,
    ended_by,
    greeted,
    headers,
    raw,
    resets,
    u32,
)

from statehouse.rpc.http2.frames import ErrorCode
from statehouse.rpc.http2.streams import State

CLOSED, PROTOCOL = ErrorCode.STREAM_CLOSED, ErrorCode.PROTOCOL_ERROR
FRAMES = {
    DATA: raw(DATA, 0, 1, b"data"),
    HEADERS: raw(HEADERS, END_HEADERS, 1, BLOCK),
    PRIORITY: raw(PRIORITY, 0, 1, bytes(5)),
    RST_STREAM: raw(RST_STREAM, 0, 1, u32(8)),
    WINDOW_UPDATE: raw(WINDOW_UPDATE, 0, 1, u32(1)),
}
TOLD = {
    DATA: ("data", 1, b"data", False),
    HEADERS: ("headers", 1, FIELDS, False),
    RST_STREAM: ("reset", 1, 8),
    WINDOW_UPDATE: ("room", 1),
}

TAKEN, IGNORED = "taken", "ignored"
ALL_TAKEN = {DATA: TAKEN, HEADERS: TAKEN, PRIORITY: IGNORED, RST_STREAM: TAKEN, WINDOW_UPDATE: TAKEN}
GONE = {
    DATA: ("stream", CLOSED),
    HEADERS: ("connection", CLOSED),
    PRIORITY: IGNORED,
    RST_STREAM: IGNORED,
    WINDOW_UPDATE: IGNORED,
}
EXPECTED = {
    "idle": {
        DATA: ("connection", PROTOCOL),
        HEADERS: ("connection", PROTOCOL),
        PRIORITY: IGNORED,
        RST_STREAM: ("connection", PROTOCOL),
        WINDOW_UPDATE: ("connection", PROTOCOL),
    },
    "open": ALL_TAKEN,
    "half-closed (local)": ALL_TAKEN,
    "half-closed (remote)": ALL_TAKEN | {DATA: ("stream", CLOSED), HEADERS: ("stream", CLOSED)},
    "closed": GONE,
    "reset by the peer": GONE,
    "reset by us": dict.fromkeys(FRAMES, IGNORED),
}

OPENS_A_STREAM = ("idle", HEADERS, False)
CASES = [
    case
    for state in EXPECTED
    for kind in FRAMES
    for client in (False, True)
    if (case := (state, kind, client)) != OPENS_A_STREAM
]


def in_state(state, *, client):
    """A connection whose stream 1 is in that state."""
    connection = greeted(client=client)
    if state != "idle":
        if client:
            stream = connection.open()
            connection.send_headers(stream, BLOCK, ends=False)
        else:
            connection.receive(headers(1), 0.0)
            stream = connection.opened[1]
        if state in ("half-closed (local)", "closed"):
            connection.send_headers(stream, BLOCK, ends=True)
        if state in ("half-closed (remote)", "closed"):
            connection.receive(raw(DATA, END_STREAM, 1), 0.0)
        if state == "reset by the peer":
            connection.receive(raw(RST_STREAM, 0, 1, u32(8)), 0.0)
        if state == "reset by us":
            connection.reset(stream, ErrorCode.CANCEL)
        assert (
            stream.closed == (1 not in connection.streams) == (state in ("closed", "reset by the peer", "reset by us"))
        )
    assert connection.ended is None
    connection.take_output()
    connection.take_events()
    return connection


@pytest.mark.parametrize(("state", "kind", "client"), CASES)
def test_every_state_and_frame(state, kind, client):
    connection = in_state(state, client=client)
    connection.receive(FRAMES[kind], 0.0)
    expected = EXPECTED[state][kind]
    told = connection.take_events()
    if expected == TAKEN:
        assert told == [TOLD[kind]]
        assert connection.take_output() == b""
    elif expected == IGNORED:
        assert told == []
        assert connection.take_output() == b""
    elif expected[0] == "stream":
        assert resets(connection) == [(1, expected[1])]
        # One that is closed already is nothing to tell of.
        assert told == ([("reset", 1, expected[1])] if state == "half-closed (remote)" else [])
        assert 1 not in connection.streams
    else:
        assert ended_by(connection) == expected[1]
        assert told == []


def test_headers_open_a_stream():
    connection = greeted()
    connection.receive(headers(1) + headers(5, END_HEADERS | END_STREAM), 0.0)
    assert connection.take_events() == [("opened", 1, FIELDS, False), ("opened", 5, FIELDS, True)]
    assert [each.state for each in connection.streams.values()] == [State.OPEN, State.HALF_CLOSED_REMOTE]
    assert connection.highest_stream_id == 5


@pytest.mark.parametrize(("stream_id", "code"), [(2, PROTOCOL), (6, PROTOCOL), (4, PROTOCOL), (3, CLOSED)])
def test_ids_that_a_client_must_not_open(stream_id, code):
    connection = greeted()
    connection.receive(headers(5) + headers(stream_id), 0.0)
    assert ended_by(connection) == code
    assert connection.take_events() == [("opened", 5, FIELDS, False)]


@pytest.mark.parametrize("kind", [DATA, RST_STREAM, WINDOW_UPDATE])
def test_below_the_highest_even_ids_are_idle_and_odd_ones_closed(kind):
    payload = b"data" if kind == DATA else u32(1)
    connection = greeted()
    connection.receive(headers(5) + raw(kind, 0, 4, payload), 0.0)
    assert ended_by(connection) == PROTOCOL
    connection = greeted()
    connection.receive(headers(5) + raw(kind, 0, 3, payload), 0.0)
    assert resets(connection) == ([(3, CLOSED)] if kind == DATA else [])


def test_both_ends_close_a_stream():
    for local_first in (False, True):
        connection = in_state("open", client=False)
        stream = connection.streams[1]
        if local_first:
            connection.send_data(stream, b"", ends=True)
            assert stream.state is State.HALF_CLOSED_LOCAL
        connection.receive(raw(DATA, END_STREAM, 1), 0.0)
        if not local_first:
            assert stream.state is State.HALF_CLOSED_REMOTE
            connection.send_data(stream, b"", ends=True)
        assert stream.state is State.CLOSED
        assert connection.streams == {}


@pytest.mark.parametrize("state", ["open", "half-closed (local)"])
def test_trailers_end_a_stream(state):
    connection = in_state(state, client=True)
    stream = connection.streams[1]
    connection.receive(headers(1, END_HEADERS | END_STREAM), 0.0)
    assert connection.take_events() == [("headers", 1, FIELDS, True)]
    assert stream.state is (State.HALF_CLOSED_REMOTE if state == "open" else State.CLOSED)


def test_what_is_under_way_on_a_reset_stream_still_changes_the_table():
    connection = in_state("reset by us", client=False)
    connection.receive(headers(1, END_HEADERS, b"\x40\x03key\x05value"), 0.0)
    connection.receive(headers(3, END_HEADERS, b"\xbe"), 0.0)
    assert connection.take_events() == [("opened", 3, [(b"key", b"value", False)], False)]


def test_a_reset_is_told_once_and_idempotent():
    connection = in_state("open", client=False)
    stream = connection.streams[1]
    connection.reset(stream, ErrorCode.CANCEL)
    connection.reset(stream, ErrorCode.CANCEL)
    assert resets(connection) == [(1, ErrorCode.CANCEL)]
    assert connection.take_events() == []  # whoever resets knows it


def test_the_table_is_complete():
    assert {frozenset(row) for row in EXPECTED.values()} == {frozenset(FRAMES)}
