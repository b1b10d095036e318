"""Stored values: what a read answers from them is what protobuf would have encoded."""

from zlib import crc32

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from statehouse.storage import keys
from statehouse.storage.stored_value import (
    ValuePointer,
    entry,
    exists_of,
    inline_value,
    outcome,
    response,
    section_pointer,
    section_reads,
    unpack_outcome,
    version_of,
)
from statehouse.storage.view import ViewDamagedError
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import GetStateAtVersionResponse, GetStateResponse, StateEntry

numbers = st.one_of(st.sampled_from([1, 127, 128, 16_383, 16_384, 2**64 - 1]), st.integers(1, 2**64 - 1))
u32 = st.integers(0, 2**32 - 1)
# Lengths around those at which a length takes another byte.
texts = st.one_of(st.text(max_size=30), st.integers(100, 140).map("x".__mul__), st.just("x" * 20_000))


def struct_bytes(text):
    struct = Struct()
    if text:
        struct.update({"text": text})
    return struct.SerializeToString()


def no_fetch(pointer):
    raise AssertionError(f"the log was read for {pointer}")


@given(texts, numbers, numbers)
def test_a_live_value_is_the_response(text, version, commit_ts):
    value = struct_bytes(text)
    stored = inline_value(value, version, commit_ts)
    expected = GetStateResponse(value=Struct.FromString(value), version=version, commit_ts=commit_ts, exists=True)
    assert stored == expected.SerializeToString()
    assert response(stored, no_fetch) == stored
    assert (version_of(stored), exists_of(stored)) == (version, True)
    at_version = GetStateAtVersionResponse.FromString(stored)
    assert (at_version.version, at_version.exists, at_version.value) == (version, True, expected.value)


@given(numbers, numbers)
def test_a_tombstone_is_a_response_without_a_value(version, commit_ts):
    stored = inline_value(None, version, commit_ts)
    assert stored == GetStateResponse(version=version, commit_ts=commit_ts).SerializeToString()
    assert response(stored, no_fetch) == stored
    assert entry(b"key", stored, no_fetch) is None
    assert (version_of(stored), exists_of(stored)) == (version, False)


@given(texts, numbers, numbers, u32)
def test_a_pointer_answers_as_the_value_inline(text, version, commit_ts, offset):
    value = struct_bytes(text)
    pointer = ValuePointer(commit_ts, version, offset, len(value), crc32(value))
    stored = pointer.pack()
    inline = inline_value(value, version, commit_ts)
    asked = []

    def fetch(wanted):
        asked.append(wanted)
        return value

    assert response(stored, fetch) == inline
    assert entry(b"key", stored, fetch) == entry(b"key", inline, no_fetch)
    assert asked == [pointer, pointer]
    assert (version_of(stored), exists_of(stored)) == (version, True)


@given(numbers, numbers, u32, u32, u32)
def test_pointers_round_trip(commit_ts, version, offset, length, crc):
    pointer = ValuePointer(commit_ts, version, offset, length, crc)
    assert ValuePointer.unpack(pointer.pack()) == pointer
    assert len(pointer.pack()) == 29
    assert pointer.pack()[0] == 0


@given(st.text(min_size=1, max_size=150), texts, numbers, numbers)
def test_an_entry_is_that_of_protobuf(key, text, version, commit_ts):
    value = struct_bytes(text)
    expected = StateEntry(key=key, value=Struct.FromString(value), version=version, commit_ts=commit_ts)
    encoded = entry(key.encode(), inline_value(value, version, commit_ts), no_fetch)
    assert encoded == expected.SerializeToString()


def test_an_empty_object_is_a_value():
    stored = inline_value(b"", 1, 1)
    assert exists_of(stored)
    assert GetStateResponse.FromString(response(stored, no_fetch)).HasField("value")
    assert StateEntry.FromString(entry(b"k", stored, no_fetch)).HasField("value")


@pytest.mark.parametrize("read", [version_of, lambda stored: entry(b"k", stored, no_fetch)])
@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\x00",
        b"\x0a",
        b"\x0a\x05ab",
        b"\x0a\x00",
        b"\x0a\x00\x18\x01",
        b"\x0a\xff",
        b"\x12\x00",
        bytes(28),
        bytes(30),
    ],
)
def test_what_is_no_stored_value_is_damage(read, stored):
    with pytest.raises(ViewDamagedError):
        read(stored)


@pytest.mark.parametrize("stored", [b"\x10", b"\x10\x80", b"\x18\x01"])
def test_a_cut_tombstone_is_damage(stored):
    with pytest.raises(ViewDamagedError):
        version_of(stored)


@given(st.lists(st.tuples(numbers, u32, u32, u32), max_size=5))
def test_event_rows_become_what_the_log_reads(reads):
    prefix = keys.agent_prefix(AgentId("n", "a"))
    rows = [(keys.event_key(prefix, commit_ts), section_pointer(*place)) for commit_ts, *place in reads]
    assert section_reads(rows) == reads


def test_an_event_row_of_another_size_is_damage():
    with pytest.raises(ViewDamagedError):
        section_reads([(keys.event_key(b"", 1), bytes(11))])


@given(numbers)
def test_outcomes_round_trip(commit_ts):
    assert unpack_outcome(outcome(commit_ts)) == commit_ts


def test_an_outcome_of_another_size_is_damage():
    with pytest.raises(ViewDamagedError):
        unpack_outcome(bytes(7))
