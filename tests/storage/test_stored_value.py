"""Stored values: what a read answers from them is what protobuf would have encoded."""

from zlib import crc32

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from statehouse.storage import keys
from statehouse.storage.stored_value import (
    ValuePointer,
    answer_bytes,
    as_of,
    entry,
    event_counts,
    event_row,
    exists_of,
    expires_at_ns,
    expiring,
    expiry_of,
    inline_value,
    is_answer,
    outcome,
    place_of,
    response,
    responses,
    section_reads,
    shows,
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


times_ns = st.one_of(st.sampled_from([1, 10**9, 2**64 - 1]), st.integers(1, 2**64 - 1))


@given(texts, numbers, numbers, times_ns, st.booleans(), st.text(min_size=1, max_size=9))
def test_a_value_that_expires_is_the_response_with_the_time(text, version, commit_ts, at_ns, is_inline, key):
    value = struct_bytes(text)
    pointer = ValuePointer(commit_ts, version, 7, len(value), crc32(value))
    plain = inline_value(value, version, commit_ts)
    stored = expiring(plain if is_inline else pointer.pack(), at_ns)
    expected = GetStateResponse(value=Struct.FromString(value), version=version, commit_ts=commit_ts, exists=True)
    expected.expires_at.seconds, expected.expires_at.nanos = divmod(at_ns, 10**9)
    fetch = no_fetch if is_inline else (lambda wanted: value if wanted == pointer else None)
    assert response(stored, fetch) == expected.SerializeToString()
    assert (version_of(stored), place_of(stored), exists_of(stored)) == (version, (version, commit_ts), True)
    assert (expiry_of(stored), expiry_of(plain), expiry_of(pointer.pack())) == (at_ns, 0, 0)
    assert (is_answer(stored), is_answer(plain), is_answer(pointer.pack())) == (False, True, False)
    assert len(value) <= answer_bytes(stored) <= answer_bytes(plain) + 40
    entry_expected = StateEntry(key=key, value=expected.value, version=version, commit_ts=commit_ts)
    entry_expected.expires_at.CopyFrom(expected.expires_at)
    assert StateEntry.FromString(entry(key.encode(), stored, fetch)) == entry_expected
    for row, now_ns in ((stored, 0), (stored, at_ns - 1), (plain, 2**64 - 1), (pointer.pack(), 2**64 - 1)):
        assert as_of(row, now_ns) is row
        assert shows(row, now_ns)
        assert entry(key.encode(), row, lambda _: value, now_ns) is not None
    assert as_of(stored, at_ns) == inline_value(None, version, commit_ts)
    assert not shows(stored, at_ns)
    assert entry(key.encode(), stored, no_fetch, at_ns) is None


def test_a_tombstone_never_shows():
    tombstone = inline_value(None, 3, 7)
    assert not shows(tombstone, 0)
    assert as_of(tombstone, 0) is as_of(tombstone, 2**64 - 1) is tombstone
    assert is_answer(tombstone)


@pytest.mark.parametrize(
    "stored",
    [
        b"\x01",
        b"\x01" + bytes(8),
        expiring(inline_value(None, 3, 7), 5),
        expiring(expiring(inline_value(b"", 3, 7), 5), 5),
        expiring(bytes(28), 5),
        expiring(b"\x0a\x05ab", 5),
    ],
)
@pytest.mark.parametrize(
    "read", [version_of, place_of, lambda row: entry(b"k", row, no_fetch), lambda row: as_of(row, 9)]
)
def test_what_expires_and_is_no_live_value_is_damage(read, stored):
    with pytest.raises(ViewDamagedError):
        read(stored)


@pytest.mark.parametrize(
    ("committed_ns", "ttl_s", "at_ns"), [(5, 1, 10**9 + 5), (0, 10, 10**10), (2**64 - 1, 1, 2**64 - 1)]
)
def test_a_value_expires_so_many_seconds_after_its_commit(committed_ns, ttl_s, at_ns):
    assert expires_at_ns(committed_ns, ttl_s) == at_ns


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


@given(st.lists(st.tuples(st.tuples(numbers, u32, u32, u32), st.tuples(numbers, numbers, numbers)), max_size=5))
def test_event_rows_become_what_the_log_reads_and_what_the_agent_counted(events):
    prefix = keys.agent_prefix(AgentId("n", "a"))
    rows = [(keys.event_key(prefix, commit_ts), event_row(*place, *counts)) for (commit_ts, *place), counts in events]
    assert section_reads(rows) == [place for place, _ in events]
    assert [event_counts(row) for _, row in rows] == [counts for _, counts in events]


@pytest.mark.parametrize("size", [0, 12, 35, 37])
def test_an_event_row_of_another_size_is_damage(size):
    with pytest.raises(ViewDamagedError):
        section_reads([(keys.event_key(b"", 1), bytes(size))])
    with pytest.raises(ViewDamagedError):
        event_counts(bytes(size))


@given(numbers)
def test_outcomes_round_trip(commit_ts):
    assert unpack_outcome(outcome(commit_ts)) == commit_ts


def test_an_outcome_of_another_size_is_damage():
    with pytest.raises(ViewDamagedError):
        unpack_outcome(bytes(7))


# Answers of many at once

KINDS = ["none", "tombstone", "inline", "log", "inline that expires", "log that expires"]


@given(texts, numbers, numbers)
def test_the_place_of_a_version_is_read_from_each_form(text, version, commit_ts):
    value = struct_bytes(text)
    pointer = ValuePointer(commit_ts, version, 7, len(value), crc32(value)).pack()
    for stored in (inline_value(value, version, commit_ts), inline_value(None, version, commit_ts), pointer):
        assert place_of(stored) == (version, commit_ts)
    assert answer_bytes(pointer) >= len(value)
    assert answer_bytes(inline_value(None, version, commit_ts)) < 25


@pytest.mark.parametrize("stored", [b"", b"\x00", b"\x10\x01", b"\x0a\x00\x10\x01", bytes(28)])
def test_the_place_of_what_is_no_stored_value_is_damage(stored):
    with pytest.raises(ViewDamagedError):
        place_of(stored)


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 3), u32), max_size=8))
def test_answers_of_many_are_in_their_order_and_ask_the_log_in_its_own(asked):
    values = {}

    def stored(kind, commit_ts, offset, value):
        version = 1 + offset % 5
        if kind.endswith("that expires"):
            return expiring(stored(kind.split()[0], commit_ts, offset, value), 10**9 + 7)
        if kind == "log":
            values[commit_ts, offset, len(value), crc32(value)] = value
            return ValuePointer(commit_ts, version, offset, len(value), crc32(value)).pack()
        return None if kind == "none" else inline_value(value if kind == "inline" else None, version, commit_ts)

    every = [stored(kind, *place, struct_bytes(str(number))) for number, (kind, *place) in enumerate(asked)]

    def read_many(pointers):
        assert list(pointers) == sorted(pointers, key=lambda pointer: pointer[:2])
        return [values[pointer] for pointer in pointers]

    def answered(number, kind, commit_ts, offset):
        if kind == "none":
            return b""
        value = None if kind == "tombstone" else struct_bytes(str(number))
        expires = b"\xa2\x06\x04\x08\x01\x10\x07" if kind.endswith("that expires") else b""
        return inline_value(value, 1 + offset % 5, commit_ts) + expires

    assert responses(every, read_many) == [answered(number, *each) for number, each in enumerate(asked)]
