"""Fingerprints: alike for the same request however it was encoded, different for any other, and the same for ever."""

import random

from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from statehouse.actors.messages import AgentAt, Check, ExistsIs, LeaseIs, StagedOperation, VersionIs
from statehouse.rpc.server.fingerprint import fingerprint
from statehouse.storage.wire import length_delimited
from statehouse.types import AgentId

A, B = AgentId("default", "a"), AgentId("default", "b")


def encoded(value, shuffle=None):
    """A Struct; with `shuffle` the fields of every object are in an order that it draws."""
    fields = list(value.items())
    if shuffle is not None:
        shuffle.shuffle(fields)
    entries = [length_delimited(1, key.encode()) + length_delimited(2, _value(each, shuffle)) for key, each in fields]
    return b"".join(length_delimited(1, entry) for entry in entries)


def _value(value, shuffle):
    if isinstance(value, dict):
        return length_delimited(5, encoded(value, shuffle))
    if isinstance(value, list):
        return length_delimited(6, b"".join(length_delimited(1, _value(each, shuffle)) for each in value))
    if isinstance(value, str):
        return length_delimited(3, value.encode())
    return struct_pb2.Value(bool_value=value).SerializeToString()


def write(value, agent=A, key=b"k", ttl_s=0):
    return agent, StagedOperation(key, value, ttl_s)


def of(*operations, checks=(), metadata=None, revive=False):
    return fingerprint(operations, checks, metadata or {}, revive=revive)


OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.booleans() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=10,
    ),
    max_size=6,
)


@given(OBJECTS, st.integers())
def test_the_order_of_an_object_s_fields_does_not_count(value, seed):
    assert of(write(encoded(value))) == of(write(encoded(value, random.Random(seed))))


def test_the_order_of_metadata_does_not_count():
    assert of(metadata={"a": "1", "b": "2"}) == of(metadata={"b": "2", "a": "1"})


def test_every_difference_counts():
    one, two = encoded({"n": True}), encoded({"n": False})
    all_of_them = [
        of(),
        of(write(one)),
        of(write(two)),
        of(write(None)),
        of(write(b"")),
        of(write(one, key=b"l")),
        of(write(one, agent=B)),
        of(write(one, agent=AgentId("other", "a"))),
        of(write(one, ttl_s=1)),
        of(write(one, ttl_s=2)),
        of(write(b"", ttl_s=1)),
        of(write(one), write(two)),
        of(write(one, ttl_s=1), write(two)),
        of(write(one), write(two, ttl_s=1)),
        of(write(two), write(one)),
        of(write(one), checks=[Check(0, A, VersionIs(b"k", 0))]),
        of(write(one), checks=[Check(0, A, VersionIs(b"k", 1))]),
        of(write(one), checks=[Check(0, A, ExistsIs(b"k", exists=False))]),
        of(write(one), checks=[Check(0, A, ExistsIs(b"k", exists=True))]),
        of(write(one), checks=[Check(0, A, AgentAt(1))]),
        of(write(one), checks=[Check(0, A, LeaseIs(1))]),
        of(write(one), checks=[Check(0, B, LeaseIs(1))]),
        of(write(one), checks=[Check(0, A, LeaseIs(1)), Check(1, A, LeaseIs(1))]),
        of(write(one), metadata={"a": "b"}),
        of(write(one), metadata={"ab": ""}),
        of(write(one), metadata={"a": "", "b": ""}),
        of(write(one, key=b"metadata")),
        of(write(one), revive=True),
        of(write(one), metadata={"revive": ""}),
        of(revive=True),
    ]
    assert len({*all_of_them}) == len(all_of_them)
    assert {len(each) for each in all_of_them} == {32}


def test_the_form_stays_as_it_is_because_fingerprints_are_kept():
    value = encoded({"b": [True, "é", {"z": "", "y": False}], "a": {"k": "v"}, "": {}})
    checks = [Check(0, A, VersionIs(b"k", 3)), Check(1, B, ExistsIs(b"k", exists=True)), Check(2, B, LeaseIs(9))]
    found = of(write(value), write(None, agent=B), checks=checks, metadata={"run": "1", "model": "m"})
    assert found.hex() == "d0624c930570eadad70a8244b86f63c563bd4402f5b6d92fb5c2843dd2628c5c"
