import math

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from statehouse.client.values import from_struct, to_struct
from statehouse.errors import InvalidRequestError
from statehouse.rpc.server.struct_value import check_struct

INTEGERS = st.integers(-(2**53), 2**53)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
OBJECTS = st.dictionaries(st.text(), VALUES)


def written(value):
    struct = Struct()
    to_struct(value, struct)
    return struct


def sent(value):
    """The value as it comes back after a trip over the wire."""
    return from_struct(Struct.FromString(written(value).SerializeToString()))


def types_of(value):
    """The types in a value, whole floats counted as the integers they come back as."""
    if isinstance(value, dict):
        return {key: types_of(member) for key, member in value.items()}
    if isinstance(value, list):
        return [types_of(member) for member in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 and math.copysign(1, value or 1) > 0:
        return int
    return type(value)


@given(OBJECTS)
def test_whatever_json_holds_comes_back_equal(value):
    assert sent(value) == value


@given(st.dictionaries(st.text(), SCALARS))
def test_scalars_come_back_as_what_they_were(value):
    whole = {key: member for key, member in value.items() if not isinstance(member, float)}
    back = sent(whole)
    assert types_of(back) == types_of(whole)


@given(OBJECTS)
def test_the_daemon_takes_whatever_is_not_refused_here(value):
    check_struct(written(value).SerializeToString())


@pytest.mark.parametrize(
    ("given_number", "type_back"),
    [
        (1.0, int),
        (-3.0, int),
        (0.0, int),
        (2.0**53, int),
        (-(2.0**53), int),
        (1.5, float),
        (2.0**54, float),
        (1e300, float),
        (2**53, int),
        (-(2**53), int),
        (True, bool),
        (False, bool),
    ],
)
def test_numbers_come_back_equal_and_whole_ones_as_int(given_number, type_back):
    back = sent({"n": given_number})["n"]
    assert back == given_number
    assert type(back) is type_back


def test_negative_zero_keeps_its_sign():
    back = sent({"n": -0.0})["n"]
    assert isinstance(back, float)
    assert math.copysign(1, back) == -1


def test_what_was_read_can_be_written_again():
    once = sent({"big": 1e300, "edge": 2**53, "zero": -0.0})
    assert sent(once) == once


def test_lists_of_objects_nulls_and_empties_survive():
    value = {"list": [{"a": [{}, [], None, {"b": [[{"c": 1}]]}]}, {}, None], "empty": {}, "none": [], "": ""}
    assert sent(value) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": [1, 2, {"price": math.nan}]}}, "value.a.b[2].price: nan is not a JSON number"),
        ({"a": math.inf}, "value.a: inf is not a JSON number"),
        ({"a": [-math.inf]}, "value.a[0]: -inf is not a JSON number"),
        ({"n": 2**53 + 1}, "value.n: an integer beyond 2**53 does not survive the wire (54 bits)"),
        ({"n": -(2**53) - 1}, "value.n: an integer beyond 2**53 does not survive the wire (54 bits)"),
        ({"a": {1: 2}}, "value.a[1]: the key is a int, not a string"),
        ({None: 2}, "value[None]: the key is a NoneType, not a string"),
        ({"a b": {"c": {1}}}, "value['a b'].c: a set is not JSON"),
        ({"t": (1, 2)}, "value.t: a tuple is not JSON; write list(...)"),
        ({"b": b"x"}, "value.b: a bytes is not JSON"),
        ({"o": object()}, "value.o: a object is not JSON"),
        ({"s": "\ud800"}, "value.s: a string that is not Unicode text (it holds half of a surrogate pair)"),
        ([1], "value: a list is not a JSON object; a value is a dict"),
        (None, "value: a NoneType is not a JSON object; a value is a dict"),
    ],
)
def test_what_the_wire_would_change_is_refused_with_its_place(value, message):
    with pytest.raises(ValueError, match=r"^value") as caught:
        written(value)
    assert str(caught.value) == message


def test_half_of_a_surrogate_pair_in_a_key_is_refused():
    with pytest.raises(ValueError, match="the key is not Unicode text"):
        written({"a": {"\udfff": 1}})


def nested(kinds, leaf):
    for kind in kinds:
        leaf = {"a": leaf} if kind == "object" else [leaf]
    return {"a": leaf}


@pytest.mark.parametrize("value", [nested(["object"] * 10_000, 1), nested(["list"] * 10_000, 1)])
def test_a_value_nested_10_000_deep_is_refused(value):
    with pytest.raises(ValueError, match="nested too deep"):
        written(value)


@pytest.mark.parametrize(("kind", "around", "limit", "empty"), [("object", 1, 32, {}), ("list", 0, 47, [])])
def test_the_limit_on_depth_is_as_it_is_said(kind, around, limit, empty):
    inside = [kind] * (limit - around)  # `nested` puts an object around it
    assert written(nested(inside, 1)) is not None
    assert written(nested(inside, empty)) is not None
    for too_deep in (nested([*inside, kind], 1), nested([*inside, kind], empty)):
        with pytest.raises(ValueError, match="32 objects inside each other, or 47 lists in an object, and one more"):
            written(too_deep)


def test_a_value_that_holds_itself_is_refused():
    value = {}
    value["self"] = [value]
    with pytest.raises(ValueError, match="nested too deep"):
        written(value)


def serialized(value):
    """What `written` gives, without its limit on depth: protobuf's own encoder has one too."""

    def field(tag, content):
        return bytes([tag]) + varint(len(content)) + content

    def varint(number):
        return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)

    def encode(member):
        if isinstance(member, dict):
            return field(0x2A, members(member))
        if isinstance(member, list):
            return field(0x32, b"".join(field(0x0A, encode(each)) for each in member))
        return b"\x11" + bytes(8)

    def members(value):
        return b"".join(field(0x0A, field(0x0A, key.encode()) + field(0x12, encode(m))) for key, m in value.items())

    return members(value)


@given(st.lists(st.sampled_from(["object", "list"]), min_size=28, max_size=60), st.sampled_from([0, {}, []]))
def test_the_limit_on_depth_is_the_daemons(kinds, leaf):
    value = nested(kinds, leaf)
    try:
        check_struct(serialized(value))
    except InvalidRequestError:
        with pytest.raises(ValueError, match="nested too deep"):
            written(value)
    else:
        assert from_struct(written(value)) == value
