"""The headers of a call: what they say, what is refused, and what is no HTTP."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.rpc.error_table import EncodedError, GrpcStatus
from statehouse.rpc.server.call_headers import (
    HEADER_LIST_BYTES,
    CallHeaders,
    Malformed,
    Plain,
    Trailers,
    read,
)

CALL = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": b"/statehouse.v1.StatehouseService/GetState",
    b":authority": b"localhost",
    b"content-type": b"application/grpc",
    b"te": b"trailers",
}


def fields(call, *more):
    return [(name, value, False) for name, value in [*call.items(), *more]]


def without(name):
    return {key: value for key, value in CALL.items() if key != name}


def list_bytes(call):
    return sum(len(name) + len(value) + 32 for name, value, _ in call)


def test_a_plain_call():
    assert read(fields(CALL)) == CallHeaders(path=CALL[b":path"])


def test_everything_a_call_may_say():
    headers = read(
        fields(
            CALL,
            (b"grpc-timeout", b"250m"),
            (b"grpc-encoding", b"gzip"),
            (b"authorization", b"Bearer x"),
            (b"content-length", b"17"),
            (b"user-agent", b"nobody/1.0"),
            (b"x-anything-bin", b"AAEC"),
            (b"x-tab", b"a\tb"),
            (b"x-not-ascii", b"\xc3\xbc\xff"),
        )
    )
    path = CALL[b":path"]
    assert headers == CallHeaders(path, timeout_s=0.25, gzip=True, authorization=b"Bearer x", content_length=17)


@pytest.mark.parametrize("name", [b"te", b":authority"])
def test_what_a_call_need_not_say(name):
    assert read(fields(without(name))) == CallHeaders(path=CALL[b":path"])


@pytest.mark.parametrize("content_type", [b"application/grpc+proto", b"application/grpc;charset=utf-8"])
def test_content_types_of_grpc(content_type):
    assert read(fields(CALL | {b"content-type": content_type})).refused is None


def test_the_last_of_two_counts():
    assert read(fields(CALL, (b"grpc-timeout", b"1S"), (b"grpc-timeout", b"2S"))).timeout_s == 2.0


def test_of_two_tokens_neither_counts():
    both = ((b"authorization", b"Bearer one"), (b"authorization", b"Bearer two"))
    assert read(fields(CALL, *both)).authorization == b""


def test_trailers():
    assert read([]) == Trailers()
    assert read([(b"x-any", b"thing", False)]) == Trailers()


MALFORMED = {
    "no method": fields(without(b":method")),
    "no scheme": fields(without(b":scheme")),
    "no path": fields(without(b":path")),
    "an empty path": fields(CALL | {b":path": b""}),
    "only an authority": [(b":authority", b"localhost", False)],
    "CONNECT": [(b":method", b"CONNECT", False), (b":authority", b"localhost", False)],
    "a pseudo-header field of responses": fields({b":status": b"200"} | CALL),
    "a pseudo-header field that is unknown": fields({b":protocol": b"websocket"} | CALL),
    "a pseudo-header field twice": [(b":path", b"/a/b", False), *fields(CALL)],
    "a pseudo-header field behind others": fields({b"te": b"trailers"} | CALL),
    "an upper-case name": fields(CALL, (b"X-Any", b"thing")),
    "an empty name": fields(CALL, (b"", b"thing")),
    "a blank in a name": fields(CALL, (b"x any", b"thing")),
    "a name that is not ASCII": fields(CALL, (b"\xc3\xbc", b"thing")),
    "a colon in a name": fields(CALL, (b"x:any", b"thing")),
    "a line feed in a name": fields(CALL, (b"x\n", b"thing")),
    "another te": fields(CALL | {b"te": b"gzip"}),
    "a content-length that is none": fields(CALL, (b"content-length", b"-1")),
    "an empty content-length": fields(CALL, (b"content-length", b"")),
    "a content-length too long to be one": fields(CALL, (b"content-length", b"1" * 20)),
    "a content-length that is no ASCII number": fields(CALL, (b"content-length", b"\xd9\xa1")),
    "a control character in trailers": [(b"x-any", b"a\x00b", False)],
    "connection in trailers": [(b"connection", b"close", False)],
}
MALFORMED |= {
    name.decode(): fields(CALL, (name, b"x"))
    for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
}
MALFORMED |= {
    f"byte {code:#04x} in a value": fields(CALL, (b"x-any", bytes((0x61, code, 0x62))))
    for code in (0x00, 0x01, 0x0A, 0x0D, 0x1F, 0x7F)
}


@pytest.mark.parametrize("headers", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_http(headers):
    assert isinstance(read(headers), Malformed)


@pytest.mark.parametrize(
    ("headers", "plain"),
    [
        (fields(CALL | {b":method": b"GET"}), Plain(b"405")),
        (fields(without(b"content-type") | {b":method": b"PUT"}), Plain(b"405")),
        (fields(without(b"content-type")), Plain(b"415")),
        (fields(CALL | {b":method": b"HEAD"}), Plain(b"405", head=True)),
        (fields(CALL | {b"content-type": b"text/html"}), Plain(b"415")),
        (fields(CALL | {b"content-type": b"application/grpc-web"}), Plain(b"415")),
        (fields(CALL | {b"content-type": b"application/grpc-web+proto"}), Plain(b"415")),
        (fields(CALL | {b"content-type": b""}, (b"content-length", b"5")), Plain(b"415", 5)),
    ],
)
def test_what_is_no_grpc(headers, plain):
    assert read(headers) == plain


@pytest.mark.parametrize(
    ("field", "status", "said"),
    [
        ((b"grpc-encoding", b"deflate"), GrpcStatus.UNIMPLEMENTED, "gzip"),
        ((b"grpc-timeout", b"soon"), GrpcStatus.INVALID_ARGUMENT, "grpc-timeout"),
        ((b"grpc-timeout", b""), GrpcStatus.INVALID_ARGUMENT, "grpc-timeout"),
    ],
)
def test_what_is_refused(field, status, said):
    refused = read(fields(CALL, field)).refused
    assert isinstance(refused, EncodedError)
    assert refused.status == status
    assert said in refused.message


def test_identity_is_an_encoding():
    assert read(fields(CALL, (b"grpc-encoding", b"identity"))) == CallHeaders(path=CALL[b":path"])


@pytest.mark.parametrize("over", [0, 1])
def test_the_longest_list(over):
    size = HEADER_LIST_BYTES - list_bytes(fields(CALL, (b"x", b"")))
    headers = fields(CALL, (b"x", b"v" * (size + over)))
    assert list_bytes(headers) == HEADER_LIST_BYTES + over
    refused = read(headers).refused
    if over:
        assert refused.status == GrpcStatus.RESOURCE_EXHAUSTED
        assert str(HEADER_LIST_BYTES + 1) in refused.message
    else:
        assert refused is None


names = st.sampled_from([*CALL, b"grpc-timeout", b"grpc-encoding", b"content-length", b"connection", b"authorization"])
values = st.sampled_from([*CALL.values(), b"", b"1S", b"gzip", b"7"]) | st.binary(max_size=30)
any_field = st.tuples(names | st.binary(max_size=10), values, st.booleans())


@given(st.lists(any_field, max_size=12), st.booleans())
def test_any_list_is_something(more, begun):
    headers = read((fields(CALL) if begun else []) + more)
    assert isinstance(headers, CallHeaders | Trailers | Plain | Malformed)
    if isinstance(headers, CallHeaders):
        assert headers.path
        assert headers.timeout_s is None or 0 <= headers.timeout_s <= 365 * 24 * 3600
