"""Requests and values: what is refused, what it is told, and what must come through as it is."""

import math
import struct

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from statehouse.errors import ErrorCode, InvalidRequestError
from statehouse.limits import Limits
from statehouse.rpc.server import struct_value
from statehouse.rpc.server.requests_reads import NOW, ReadRequests
from statehouse.rpc.server.requests_streams import StreamRequests
from statehouse.rpc.server.requests_transactions import TransactionRequests
from statehouse.rpc.server.struct_value import NESTED_MESSAGES, check_struct
from statehouse.storage.v1 import log_pb2
from statehouse.storage.wire import length_delimited, varint
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

CHANGES = TransactionRequests(Limits())
READS = ReadRequests(Limits())
STREAMS = StreamRequests(Limits())
OBJECTS, LISTS = 33, 48


def encoded(value):
    message = struct_pb2.Struct()
    message.update(value)
    return message.SerializeToString()


def objects(depth):
    value = b""
    for _ in range(depth - 1):
        value = length_delimited(1, length_delimited(1, b"k") + length_delimited(2, length_delimited(5, value)))
    return value


def lists(depth):
    value = length_delimited(6, b"")
    for _ in range(depth - 1):
        value = length_delimited(6, length_delimited(1, value))
    return length_delimited(1, length_delimited(1, b"k") + length_delimited(2, value))


def write(value=b"", **fields):
    return pb.WriteRequest(**{"txn_id": "t", "agent_id": "a", "key": "k"} | fields).SerializeToString() + (
        length_delimited(5, value)
    )


def request_of(name, **fields):
    return getattr(pb, f"{name}Request")(**fields).SerializeToString()


# Each call that has names, with the method that reads it.
CALLS = [
    ("Delete", CHANGES.delete, ("txn_id", "agent_id", "key", "namespace")),
    ("Commit", CHANGES.commit, ("txn_id",)),
    ("Abort", CHANGES.abort, ("txn_id",)),
    ("GetState", READS.get_state, ("agent_id", "key", "namespace")),
    ("GetStateAtVersion", READS.get_state_at_version, ("agent_id", "key", "namespace")),
    ("ListKeys", READS.list_keys, ("agent_id", "namespace")),
    ("ScanPrefix", READS.scan_prefix, ("agent_id", "prefix", "namespace")),
    ("Replay", STREAMS.replay, ("agent_id", "namespace")),
]
LIMIT_OF = {"agent_id": 256, "namespace": 256, "key": 1024, "prefix": 1024}
NAMES = [(name, read, field, fields) for name, read, fields in CALLS for field in fields]


@pytest.mark.parametrize(("name", "read", "field", "fields"), NAMES)
def test_a_name_that_is_needed_must_not_be_empty(name, read, field, fields):
    given_names = {each: "x" for each in fields if each != field}
    if field in {"namespace", "prefix"}:
        read(request_of(name, **given_names))
    else:
        with pytest.raises(InvalidRequestError, match=f"{field} is empty") as refused:
            read(request_of(name, **given_names))
        assert refused.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("character", ["a", "é", "🦀", "\0"])
@pytest.mark.parametrize(("name", "read", "field", "fields"), NAMES)
def test_the_limit_of_a_name_is_in_bytes(name, read, field, fields, character):
    limit = LIMIT_OF.get(field)
    if limit is None:
        return  # a txn_id is only looked up
    at_limit = character * (limit // len(character.encode()))
    names = dict.fromkeys(fields, "x")
    read(request_of(name, **names | {field: at_limit}))
    with pytest.raises(InvalidRequestError, match=f"^{field} is {limit + 1} bytes; the limit is {limit}$") as refused:
        read(request_of(name, **names | {field: at_limit + "b"}))
    assert refused.value.details == {"limit": str(limit), "size": str(limit + 1)}


@pytest.mark.parametrize("field", ["agent_id", "namespace", "key"])
def test_write_checks_its_names_too(field):
    limit = LIMIT_OF[field]
    CHANGES.write(write(**{field: "x" * limit}))
    with pytest.raises(InvalidRequestError, match=f"{field} is {limit + 1} bytes"):
        CHANGES.write(write(**{field: "x" * (limit + 1)}))
    if field != "namespace":
        with pytest.raises(InvalidRequestError, match=f"{field} is empty"):
            CHANGES.write(write(**{field: ""}))
    with pytest.raises(InvalidRequestError, match="txn_id is empty"):
        CHANGES.write(write(txn_id=""))


def test_limits_are_those_of_the_settings(small_limits):
    with pytest.raises(InvalidRequestError, match="key is 9 bytes; the limit is 8"):
        ReadRequests(small_limits).get_state(request_of("GetState", agent_id="a", key="123456789"))


@given(st.text(min_size=1, max_size=60), st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_names_come_through_as_they_are(agent_id, namespace, key):
    request = request_of("GetState", agent_id=agent_id, namespace=namespace, key=key)
    assert READS.get_state(request) == (AgentId(namespace or "default", agent_id), key, NOW)


def test_separators_in_names_mean_nothing():
    one = READS.get_state(request_of("GetState", namespace="a:b", agent_id="c", key="k"))
    other = READS.get_state(request_of("GetState", namespace="a", agent_id="b:c", key="k"))
    assert one != other


def test_optional_fields_that_are_not_there_are_none():
    assert CHANGES.begin(b"") is None
    assert CHANGES.begin(request_of("BeginTransaction", timeout_ms=0)) == 0
    open_ended = STREAMS.replay(request_of("Replay", agent_id="a"))
    assert (open_ended.start_ts, open_ended.end_ts) == (None, None)
    closed = STREAMS.replay(request_of("Replay", agent_id="a", start_ts=0, end_ts=2**64 - 1))
    assert (closed.start_ts, closed.end_ts) == (0, 2**64 - 1)


@pytest.mark.parametrize("read", [read for _, read, _ in CALLS] + [CHANGES.write, CHANGES.begin])
@pytest.mark.parametrize("request_bytes", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe\x12\x01a\x1a\x01k"])
def test_what_is_not_protobuf_or_not_utf_8_is_refused(read, request_bytes):
    if read == CHANGES.begin and request_bytes != b"\xff":
        request_bytes = b"\x08"
    with pytest.raises(InvalidRequestError, match=r"^the request is not a well-formed \w+Request$"):
        read(request_bytes)


# Values


def test_a_value_is_kept_byte_for_byte():
    # Keys in an order that no serializer would choose, a map entry twice, a field from the future.
    entry = [length_delimited(1, length_delimited(1, key) + length_delimited(2, b"\x08\x00")) for key in (b"z", b"a")]
    value = entry[0] + entry[1] + entry[0] + length_delimited(15, b"later")
    assert CHANGES.write(write(value)).value == value


def test_an_empty_object_is_a_value_and_none_is_not():
    assert CHANGES.write(write(b"")).value == b""
    with pytest.raises(InvalidRequestError, match="value is missing"):
        CHANGES.write(request_of("Write", txn_id="t", agent_id="a", key="k"))


def test_a_value_in_pieces_is_merged_as_a_parser_would():
    request = write(encoded({"a": 1})) + length_delimited(5, encoded({"b": [2]}))
    value = struct_pb2.Struct.FromString(CHANGES.write(request).value)
    assert dict(value) == {"a": 1, "b": value["b"]}
    assert list(value["b"]) == [2]


def test_the_limit_of_a_value():
    limit = Limits().value_bytes
    overhead = len(encoded({"k": "x" * 1_000_000})) - 1_000_000
    assert len(CHANGES.write(write(encoded({"k": "x" * (limit - overhead)}))).value) == limit
    with pytest.raises(InvalidRequestError, match=f"value is {limit + 1} bytes; the limit is {limit}") as refused:
        CHANGES.write(write(encoded({"k": "x" * (limit - overhead + 1)})))
    assert refused.value.details == {"limit": str(limit), "size": str(limit + 1)}


@pytest.mark.parametrize(("nest", "deepest"), [(objects, OBJECTS), (lists, LISTS)])
def test_what_is_stored_can_be_read_in_every_envelope(nest, deepest):
    value = nest(deepest)
    check_struct(value)
    event = length_delimited(3, length_delimited(2, value))
    log_pb2.LogRecord.FromString(length_delimited(1, event))
    pb.ReplayEvent.FromString(event)
    pb.GetStateResponse.FromString(length_delimited(1, value))
    pb.ScanPrefixResponse.FromString(length_delimited(1, length_delimited(2, value)))


@pytest.mark.parametrize(
    "value",
    [
        objects(OBJECTS + 1),
        objects(10_000),
        lists(LISTS + 1),
        lists(10_000),
        length_delimited(1, length_delimited(1, b"first")) * 100 + objects(200),
    ],
)
def test_a_value_that_is_too_deep_is_refused_by_its_name(value):
    with pytest.raises(InvalidRequestError, match="nested too deep") as refused:
        check_struct(value)
    assert refused.value.details == {"limit": str(NESTED_MESSAGES), "size": f"over {NESTED_MESSAGES}"}


def test_the_depth_that_only_a_bare_struct_may_have_is_refused():
    struct_pb2.Struct.FromString(objects(OBJECTS + 1))
    with pytest.raises(InvalidRequestError, match="nested too deep"):
        check_struct(objects(OBJECTS + 1))


@pytest.mark.parametrize(
    "value",
    [
        b"\xff",
        b"\x0a\x05",
        objects(5)[:-1],
        length_delimited(1, length_delimited(1, b"\xff\xfe")),
        length_delimited(1, length_delimited(1, b"k") + length_delimited(2, length_delimited(3, b"\xc0\x80"))),
        objects(200)[:-1] + b"\x07",
        b"\x0b" * 500,
    ],
)
def test_a_value_that_is_no_struct_is_refused(value):
    with pytest.raises(InvalidRequestError, match=r"not a well-formed|nested too deep"):
        check_struct(value)


NOT_FINITE = [math.inf, -math.inf, math.nan, struct.unpack("<d", b"\x01\x00\x00\x00\x00\x00\xf0\xff")[0]]
TAGS = [b"\x11", b"\x91\x00", b"\x91\x80\x00", b"\x91\x80\x80\x80\x00"]


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("before", [b"", b"\x1a\x01x", length_delimited(9, b"unknown")])
@pytest.mark.parametrize("inside", ["object", "list", "deep"])
def test_a_number_that_is_not_finite_is_refused_however_it_is_encoded(number, tag, before, inside):
    value = before + tag + struct.pack("<d", number)
    if inside == "list":
        value = length_delimited(6, length_delimited(1, b"\x08\x00") + length_delimited(1, value))
    elif inside == "deep":
        value = length_delimited(5, length_delimited(1, length_delimited(1, b"in") + length_delimited(2, value)))
    entry = length_delimited(1, b"k") + length_delimited(2, value)
    with pytest.raises(InvalidRequestError, match="not finite"):
        check_struct(length_delimited(1, entry))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=20,
    )
)
def test_a_value_is_refused_exactly_when_a_number_is_not_finite(content):
    def finite(part):
        if isinstance(part, float):
            return math.isfinite(part)
        parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        return all(finite(each) for each in parts)

    value = encoded({"v": content})
    if finite(content):
        check_struct(value)
    else:
        with pytest.raises(InvalidRequestError, match="not finite"):
            check_struct(value)


@given(st.lists(st.binary(min_size=8, max_size=8), max_size=50))
def test_bytes_that_look_like_infinity_are_no_false_alarm(patterns):
    numbers = [number for number in (struct.unpack("<d", each)[0] for each in patterns) if math.isfinite(number)]
    check_struct(encoded({"n": numbers, "\x11\x7f" * 5: "\x11" + "\x7f" * 12}))


def test_a_lookalike_of_infinity_outside_a_number_is_no_number():
    unknown = length_delimited(9, b"\x11" + struct.pack("<d", math.inf))
    check_struct(length_delimited(1, length_delimited(1, b"k") + length_delimited(2, unknown + b"\x20\x01")))


def test_a_value_without_a_kind_is_kept_and_stands_for_null():
    for value in (length_delimited(1, length_delimited(1, b"k")), encoded({"k": [1]}) + b"\x0a\x05\x0a\x01n\x12\x00"):
        check_struct(value)
        assert CHANGES.write(write(value)).value == value
    none_set = struct_pb2.Struct.FromString(length_delimited(1, length_delimited(1, b"k")))
    assert json_format.MessageToDict(none_set) == {"k": None}


def test_the_numbers_of_an_ordinary_value_are_not_walked_one_by_one(monkeypatch):
    def walk(_):
        raise AssertionError("every number of an ordinary value is looked at")

    monkeypatch.setattr(struct_value, "_check_numbers", walk)
    check_struct(
        encoded({"k": [{"n": n / 7, "m": -n, "text": f"ÿ\x7f {n} ü🦀"} for n in range(5_000)], "t": "x" * 500_000})
    )


def test_varints_of_the_wire_module_are_what_these_tests_think():
    assert length_delimited(1, b"x" * 200) == b"\x0a" + varint(200) + b"x" * 200
