"""The client's connection without I/O, against h2."""

import gzip
import math

import h2.events
import h2.settings
import hpack
import pytest
from rpc.client.h2_peer import HEADERS, OK, Joined, framed

from statehouse import ConnectionError, InternalError, NotFoundError, StatehouseError, UnauthenticatedError
from statehouse.rpc.client.call import RECEIVE_MESSAGE_BYTES, STREAM_WINDOW_BYTES
from statehouse.rpc.client.faults import DeadlineError, LostCallError, NotProcessedError
from statehouse.rpc.client.protocol import Keepalive
from statehouse.rpc.client.request_headers import Greeting
from statehouse.rpc.client.response import read_response
from statehouse.rpc.error_table import encode_error
from statehouse.rpc.metadata import encode_binary
from statehouse.version import VERSION


def test_what_a_call_says():
    joined = Joined(greeting=Greeting("db:1", "https", b"Bearer sth_secret"))
    blocks = []
    for _ in range(3):
        joined.call(timeout_s=1.5)
        request = joined.peer.of(h2.events.RequestReceived)[-1]
        blocks.append(dict(request.headers))
        never = [header[0] for header in request.headers if isinstance(header, hpack.NeverIndexedHeaderTuple)]
        assert never == ["authorization"]
    assert blocks[0] == {
        ":method": "POST",
        ":scheme": "https",
        ":path": "/statehouse.v1.StatehouseService/GetState",
        ":authority": "db:1",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": f"statehouse-python/{VERSION}",
        "grpc-accept-encoding": "identity,gzip",
        "authorization": "Bearer sth_secret",
        "grpc-timeout": "1500m",
    }
    assert blocks[1:] == blocks[:1] * 2
    (data, *_) = joined.peer.of(h2.events.DataReceived)
    assert data.data == framed(b"request")
    assert data.stream_ended


def test_header_blocks_stay_right_when_paths_and_tables_change():
    joined = Joined()
    paths = [f"/s/Method{number % 7}" for number in range(50)]
    for number, path in enumerate(paths):
        if number == 20:  # room for one field or two
            joined.peer.h2.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 100})
            joined.exchange()
        if number == 30:
            joined.peer.h2.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0})
            joined.exchange()
        call = joined.call(path=path)
        joined.peer.answer(call.stream.id, b"x")
        joined.exchange()
        assert call.messages == [b"x"]
    assert [dict(event.headers)[":path"] for event in joined.peer.of(h2.events.RequestReceived)] == paths


def test_an_answer():
    joined = Joined()
    call, woken = joined.call(), []
    call.wake = lambda: woken.append(True)
    joined.peer.h2.send_headers(call.stream.id, HEADERS)
    joined.peer.h2.send_data(call.stream.id, framed(b"answer"))
    joined.exchange()
    assert woken == []  # its status counts
    joined.peer.h2.send_headers(call.stream.id, OK, end_stream=True)
    joined.exchange()
    assert (woken, call.over, call.error, call.messages) == ([True], True, None, [b"answer"])
    assert joined.client.streams == {}
    assert joined.client.answered


@pytest.mark.parametrize(
    ("headers", "data", "compressed", "message"),
    [
        ([("grpc-encoding", "gzip")], gzip.compress(b"x" * 100, mtime=0), 1, b"x" * 100),
        ([("grpc-encoding", "gzip")], b"plain", 0, b"plain"),
        ([("grpc-encoding", "identity")], b"plain", 0, b"plain"),
    ],
)
def test_encodings_that_are_taken(headers, data, compressed, message):
    joined = Joined()
    call = joined.call()
    joined.peer.h2.send_headers(call.stream.id, HEADERS + headers)
    joined.peer.h2.send_data(call.stream.id, framed(data, compressed))
    joined.peer.h2.send_headers(call.stream.id, OK, end_stream=True)
    joined.exchange()
    (came,) = call.messages
    assert (came.inflate() if compressed else came) == message


@pytest.mark.parametrize(
    ("headers", "data", "trailers", "kind", "message"),
    [
        (HEADERS, framed(b"x", 1), None, StatehouseError, "a compressed message"),
        ([*HEADERS, ("grpc-encoding", "snappy")], framed(b"x", 1), None, StatehouseError, "a compressed message"),
        (HEADERS, framed(b"x", 7), None, StatehouseError, "neither compressed nor not"),
        (HEADERS, b"\0\7\0\0\0", None, StatehouseError, f"this client takes {RECEIVE_MESSAGE_BYTES}"),
        (HEADERS, b"\0\0\0\0\2x", OK, ConnectionError, "in the middle of a message"),
        (HEADERS, framed(b"x"), [("grpc-message", "?")], ConnectionError, "without a readable gRPC status"),
        (HEADERS, framed(b"x"), [("grpc-status", "13"), ("grpc-message", "a%20bug")], InternalError, "a bug"),
        (HEADERS, b"", [("grpc-status", "14"), ("grpc-message", "gone")], LostCallError, "gone"),
        (HEADERS, b"", [("grpc-status", "4"), ("grpc-message", "late")], DeadlineError, "late"),
        ([(":status", "200"), ("content-type", "text/html")], b"<html>", None, ConnectionError, "text/html"),
        ([(":status", "503"), ("content-type", "text/html")], b"<html>", None, ConnectionError, "HTTP status 503"),
    ],
)
def test_answers_that_fail_their_call_and_no_other(headers, data, trailers, kind, message):
    joined = Joined()
    other, call = joined.call(), joined.call()
    joined.peer.h2.send_headers(call.stream.id, headers)
    joined.exchange()
    if call.error is None:
        joined.peer.h2.send_data(call.stream.id, data)
        if trailers is not None:
            joined.peer.h2.send_headers(call.stream.id, trailers, end_stream=True)
        joined.exchange()
    assert type(call.error) is kind
    assert message in str(call.error)
    assert joined.client.ended is None
    joined.peer.answer(other.stream.id, b"fine")
    joined.exchange()
    assert (other.messages, other.error) == ([b"fine"], None)


def test_an_error_with_its_detail():
    encoded = encode_error(UnauthenticatedError("who are you?", details={"why": "none"}))
    joined = Joined()
    call = joined.call()
    status = ("grpc-status", str(int(encoded.status)))
    trailer = ("statehouse-error-bin", encode_binary(encoded.trailer).decode())
    joined.peer.h2.send_headers(call.stream.id, [*HEADERS, status, trailer], end_stream=True)
    joined.exchange()
    assert type(call.error) is UnauthenticatedError
    assert (call.error.message, call.error.details) == ("who are you?", {"why": "none"})


def test_a_response_of_100_goes_before_the_response():
    joined = Joined()
    call = joined.call()
    joined.peer.h2.send_headers(call.stream.id, [(":status", "103")])
    joined.peer.answer(call.stream.id, b"x")
    joined.exchange()
    assert (call.messages, call.error) == ([b"x"], None)


@pytest.mark.parametrize(("code", "kind"), [(7, NotProcessedError), (8, LostCallError), (2, LostCallError)])
def test_a_reset(code, kind):
    joined = Joined()
    call = joined.call()
    joined.peer.h2.reset_stream(call.stream.id, code)
    joined.exchange()
    assert type(call.error) is kind
    assert f"HTTP/2 error {code}" in str(call.error)


def test_goaway_fails_what_the_server_will_not_look_at():
    joined = Joined()
    first, second = joined.call(), joined.call()
    joined.client.receive(b"\0\0\x08\x07\0\0\0\0\0" + first.stream.id.to_bytes(4, "big") + bytes(4), 0.0)
    assert joined.client.draining
    assert isinstance(second.error, NotProcessedError)
    assert not first.over
    joined.peer.answer(first.stream.id, b"x")
    joined.exchange()
    assert (first.messages, first.error) == ([b"x"], None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"too many connections", "HTTP/2 error 11: too many connections"),
        (b"", "HTTP/2 error 11"),
        (b"\x1b[2Jgone", "HTTP/2 error 11"),
        ("schön".encode(), "HTTP/2 error 11"),
        (b"x" * 5_000, "HTTP/2 error 11: " + "x" * 100),
    ],
)
def test_goaway_with_a_code_says_why(text, reason):
    client = Joined().client
    goaway = (len(text) + 8).to_bytes(3, "big") + b"\x07\0\0\0\0\0" + bytes(4) + b"\0\0\0\x0b" + text
    client.receive(goaway + b"\0\0\x0c\x07\0\0\0\0\0" + bytes(4) + b"\0\0\0\1late", 0.0)
    assert (client.goaway_code, client.goaway_reason) == (11, reason)


def test_goaway_without_a_code_needs_no_reason():
    client = Joined().client
    client.receive(b"\0\0\x0c\x07\0\0\0\0\0" + bytes(8) + b"bye!", 0.0)
    assert (client.draining, client.goaway_code, client.goaway_reason) == (True, 0, "")


def test_a_request_above_the_windows_goes_out_as_they_open():
    joined = Joined({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1_000})
    message = bytes(range(256)) * 1_000
    calls = [joined.call(message) for _ in range(3)]
    sent = {}
    for event in joined.peer.of(h2.events.DataReceived):
        sent[event.stream_id] = sent.get(event.stream_id, b"") + event.data
    assert sent == {call.stream.id: framed(message) for call in calls}
    assert len(joined.peer.of(h2.events.StreamEnded)) == 3


def test_a_call_that_is_answered_before_it_is_asked_is_taken_back():
    joined = Joined({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    call = joined.call(b"x" * 100)
    joined.peer.h2.send_headers(call.stream.id, [*HEADERS, ("grpc-status", "5")], end_stream=True)
    joined.exchange()
    assert isinstance(call.error, NotFoundError)
    assert [event.error_code for event in joined.peer.of(h2.events.StreamReset)] == [8]
    assert joined.client.streams == {}


def test_a_stream_gives_its_window_back_as_its_reader_asks_for_more():
    joined = Joined()
    call = joined.call(streaming=True)
    stream_id = call.stream.id
    joined.peer.h2.send_headers(stream_id, HEADERS)
    chunk, sent = framed(b"x" * 16_000), 0
    while joined.peer.h2.local_flow_control_window(stream_id) >= len(chunk):
        joined.peer.h2.send_data(stream_id, chunk)
        sent += 1
        joined.exchange()
    assert len(call.messages) == sent == STREAM_WINDOW_BYTES // len(chunk)
    joined.exchange()
    assert joined.peer.h2.local_flow_control_window(stream_id) < len(chunk)
    call.messages.clear()
    joined.client.want(call)
    joined.exchange()
    assert joined.peer.h2.local_flow_control_window(stream_id) == STREAM_WINDOW_BYTES


def test_a_message_larger_than_the_window_comes_through_to_who_waits_for_it():
    joined = Joined()
    message = b"x" * (3 * STREAM_WINDOW_BYTES)
    for streaming in (False, True):
        call = joined.call(streaming=streaming)
        joined.client.want(call)
        joined.peer.h2.send_headers(call.stream.id, HEADERS)
        rest = framed(message)
        while rest:
            room = min(len(rest), 16_384, joined.peer.h2.local_flow_control_window(call.stream.id))
            assert room > 0
            joined.peer.h2.send_data(call.stream.id, rest[:room])
            rest = rest[room:]
            joined.exchange()
        assert call.messages == [message]


def test_what_comes_for_calls_that_were_left_is_nothing_however_many_they_were():
    joined = Joined()
    calls = [joined.call(streaming=True) for _ in range(1_000)]
    raw = b""
    for call in calls:
        joined.peer.h2.send_headers(call.stream.id, HEADERS)
        joined.peer.h2.send_data(call.stream.id, framed(b"late" * 10))
        joined.peer.h2.send_headers(call.stream.id, OK, end_stream=True)
        raw += joined.peer.h2.data_to_send()
    for call in calls:
        joined.client.leave(call)
        assert call.over
    joined.client.receive(raw, 0.0)
    assert joined.client.ended is None
    other = joined.call()
    joined.peer.answer(other.stream.id, b"x")
    joined.exchange()
    assert other.messages == [b"x"]


def test_deadlines_are_kept_by_one_clock():
    joined = Joined()
    late, later = joined.call(deadline=1.0), joined.call(deadline=2.0)
    assert joined.client.check_at == 1.0
    joined.client.tick(0.5)
    assert not late.over
    assert joined.client.check_at == 1.0
    joined.client.tick(1.0)
    assert isinstance(late.error, DeadlineError)
    assert "GetState was not answered by db:1 within 30 s" in str(late.error)
    assert joined.client.check_at == 2.0
    joined.exchange(1.0)
    assert [event.stream_id for event in joined.peer.of(h2.events.StreamReset)] == [late.stream.id]
    joined.peer.answer(later.stream.id, b"x")
    joined.exchange(1.5)
    joined.client.tick(2.0)
    assert (later.error, joined.client.check_at) == (None, math.inf)


def test_a_server_that_says_nothing_is_asked_and_then_given_up():
    joined = Joined(keepalive=Keepalive(after_s=30, answer_s=10))
    joined.call(deadline=math.inf)
    joined.client.tick(0.0)
    assert joined.client.check_at == 30
    joined.client.tick(30.0)
    assert joined.client.check_at == 40
    joined.exchange(31.0)  # it answers
    joined.client.tick(31.0)
    assert (joined.client.silent, joined.client.check_at) == (False, 61)
    joined.client.tick(61.0)
    assert len(joined.client.take_output()) == 17
    joined.client.tick(70.9)
    assert not joined.client.silent
    joined.client.tick(71.0)
    assert joined.client.silent


def test_nothing_is_asked_while_nothing_is_in_flight_but_before_a_call_after_a_long_time():
    joined = Joined(keepalive=Keepalive(after_s=30, answer_s=10))
    joined.client.tick(1_000.0)
    assert (bytes(joined.client.output), joined.client.check_at) == (b"", math.inf)
    joined.call(now=1_000.0, deadline=2_000.0)
    assert len(joined.peer.of(h2.events.PingReceived) + joined.peer.of(h2.events.RequestReceived)) == 2
    joined.call(now=1_001.0, deadline=2_000.0)
    assert len(joined.peer.of(h2.events.PingReceived)) == 1
    joined.client.tick(1_001.0)
    assert joined.client.check_at == 1_030


def test_a_lost_connection_fails_every_call():
    joined = Joined()
    calls = [joined.call() for _ in range(5)]
    joined.client.fail_all("gone")
    assert [str(call.error) for call in calls] == ["gone"] * 5
    assert {type(call.error) for call in calls} == {LostCallError}


def test_a_server_of_http_1_is_told_apart():
    joined = Joined()
    joined.client.greeted = False
    joined.client.receive(b"HTTP/1.1 400 Bad Request\r\n", 0.0)
    assert joined.client.ended.reason == "it speaks HTTP/1"


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b":status", b"\xff\xfe", False)],
        [(b"grpc-status", b"99999999999999999999", False)],
        [(b"grpc-status", "²".encode(), False), (b"grpc-message", b"%zz%ff", False)],
        [(b"grpc-status", b"3", False), (b"statehouse-error-bin", b"!!!", False)],
        [(b":status", b"200", False), (b"content-type", b"\xff", False)],
    ],
)
def test_any_list_of_fields_is_read(fields):
    assert read_response(fields).status in {None, 3}


def test_no_secret_is_shown():
    assert "secret" not in repr(Greeting("db:1", "http", b"Bearer secret"))
