"""Protobuf's encoding by hand, judged by the protobuf runtime."""

import pytest
from google.protobuf.descriptor_pb2 import UninterpretedOption
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from statehouse.storage.wire import (
    FIXED32,
    FIXED64,
    LENGTH_DELIMITED,
    VARINT,
    WireError,
    fields,
    length_delimited,
    read_varint,
    tag,
    varint,
)
from statehouse.v1.statehouse_pb2 import GetStateRequest, GetStateResponse, ReplayEvent

EDGES = [0, 1, 127, 128, 16_383, 16_384, 2**21 - 1, 2**21, 2**32, 2**63, 2**64 - 1]
numbers = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**64 - 1))


@given(numbers)
def test_varints_are_those_of_protobuf(number):
    packed = tag(2, VARINT) + varint(number)
    assert GetStateResponse.FromString(packed).version == number
    if number:  # proto3 leaves a zero out
        assert GetStateResponse(version=number).SerializeToString() == packed
    assert read_varint(b"\xff" + varint(number) + b"\xff", 1) == (number, 1 + len(varint(number)))


@pytest.mark.parametrize("number", [-1, -128, 2**64])
def test_what_is_not_an_unsigned_64_bit_integer_is_refused(number):
    with pytest.raises(ValueError, match="64-bit"):
        varint(number)


@pytest.mark.parametrize(
    "encoded", [b"", b"\x80", b"\xff" * 9, b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x01", b"\x80" * 100_000]
)
def test_varints_that_are_cut_or_too_long_are_refused(encoded):
    with pytest.raises(WireError):
        read_varint(encoded, 0)


@given(st.text(max_size=300), st.integers(1, 3))
def test_length_delimited_fields_are_those_of_protobuf(text, number):
    request = GetStateRequest.FromString(length_delimited(number, text.encode()))
    assert (request.namespace, request.agent_id, request.key)[number - 1] == text


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_fields_of_every_wire_type_are_found_where_they_stand(before, after):
    option = UninterpretedOption(
        identifier_value="abc", positive_int_value=300, double_value=1.5, string_value=b"x" * 200
    )
    encoded = option.SerializeToString() + tag(1000, FIXED32) + b"1234"
    buffer = before + encoded + after
    found = list(fields(buffer, len(before), len(before) + len(encoded)))
    assert [(number, wire_type) for number, wire_type, _, _ in found] == [
        (3, LENGTH_DELIMITED),
        (4, VARINT),
        (6, FIXED64),
        (7, LENGTH_DELIMITED),
        (1000, FIXED32),
    ]
    assert found[1][2] == 300
    assert buffer[found[0][2] : found[0][3]] == b"abc"
    assert len(buffer[found[2][2] : found[2][3]]) == 8
    assert buffer[found[3][2] : found[3][3]] == b"x" * 200
    assert buffer[found[4][2] : found[4][3]] == b"1234"
    assert found[4][3] == len(before) + len(encoded)


@given(st.binary(max_size=40))
def test_what_is_read_as_fields_protobuf_reads_too(encoded):
    try:
        found = list(fields(encoded, 0, len(encoded)))
    except WireError:
        return
    # GetStateResponse has no field above 4, so nothing but the encoding itself is judged.
    if all(number > 4 and number < 2**29 for number, *_ in found):
        GetStateResponse.FromString(encoded)


@given(st.binary(max_size=40))
def test_what_protobuf_reads_is_read_as_fields(encoded):
    try:
        ReplayEvent.FromString(encoded)
    except DecodeError:
        return
    if b"\x03" in encoded or any(byte & 7 in {3, 4} for byte in encoded):
        return  # groups, which protobuf still reads and this does not
    assert b"".join(_again(encoded)) == encoded


def _again(encoded):
    position = 0
    for *_, last in fields(encoded, 0, len(encoded)):
        yield encoded[position:last]
        position = last


def test_every_cut_of_a_message_is_an_error_or_a_shorter_message():
    encoded = GetStateRequest(namespace="n" * 200, agent_id="a", key="k").SerializeToString()
    ends = {last for *_, last in fields(encoded, 0, len(encoded))} | {0}
    for end in range(len(encoded)):
        if end in ends:
            assert all(last <= end for *_, last in fields(encoded[:end], 0, end))
        else:
            with pytest.raises(WireError):
                list(fields(encoded[:end], 0, end))
            with pytest.raises(WireError):
                list(fields(encoded, 0, end))


@pytest.mark.parametrize(
    "encoded", [b"\x0b\x0c", b"\x0e\x00", b"\x02\x00", b"\x00\x00", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
)
def test_groups_unknown_types_field_zero_and_endless_lengths_are_refused(encoded):
    with pytest.raises(WireError):
        list(fields(encoded, 0, len(encoded)))
