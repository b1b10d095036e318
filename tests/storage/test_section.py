"""Sections: written in pieces, read as offsets, and always what protobuf would read."""

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from statehouse.storage.log_format import PAYLOAD_START
from statehouse.storage.section import (
    agent_fields,
    committed_at_ns,
    encode_operation,
    record_of,
    section_body,
    sections_of,
    stamp,
    walk_section,
)
from statehouse.storage.v1.log_pb2 import LogRecord
from statehouse.storage.wire import WireError, length_delimited, tag, varint
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import Operation, ReplayEvent


def struct_of(text):
    struct = Struct()
    if text:
        struct.update({"text": text})
    return struct


names = st.text(min_size=1, max_size=12)
numbers = st.one_of(st.integers(1, 300), st.integers(1, 2**64 - 1))
times_ns = st.one_of(st.sampled_from([0, 1, 999_999_999, 10**9]), st.integers(0, 4 * 10**18))
values = st.one_of(st.none(), st.text(max_size=300).map(struct_of))
operations = st.lists(st.tuples(names, values, numbers), min_size=1, max_size=5)


def section_of(agent, txn_id, changes, commit_ts, time_ns):
    encoded = [
        (key.encode(), None if value is None else value.SerializeToString(), version) for key, value, version in changes
    ]
    body = section_body(agent_fields(agent), txn_id, encoded)
    return body, body.encoded + stamp(commit_ts, time_ns)


def event_of(agent, txn_id, changes, commit_ts, time_ns):
    """The same section, as protobuf builds it."""
    event = ReplayEvent(txn_id=txn_id, commit_ts=commit_ts, namespace=agent.namespace, agent_id=agent.agent_id)
    event.committed_at.FromNanoseconds(time_ns)
    for key, value, version in changes:
        operation = event.operations.add(key=key, version=version)
        if value is not None:
            operation.value.CopyFrom(value)
    return event


@given(names, values, numbers)
def test_an_operation_is_the_bytes_of_protobuf(key, value, version):
    operation = Operation(key=key, version=version)
    serialized = None
    if value is not None:
        operation.value.CopyFrom(value)
        serialized = value.SerializeToString(deterministic=True)
    encoded = encode_operation(key.encode(), serialized, version)
    assert encoded == length_delimited(3, operation.SerializeToString(deterministic=True))


@given(st.builds(AgentId, names, names), names, operations, numbers, times_ns)
def test_concatenated_pieces_are_the_event_that_protobuf_builds(agent, txn_id, changes, commit_ts, time_ns):
    _, section = section_of(agent, txn_id, changes, commit_ts, time_ns)
    assert ReplayEvent.FromString(section) == event_of(agent, txn_id, changes, commit_ts, time_ns)


@given(st.builds(AgentId, names, names), names, operations, numbers, times_ns, st.integers(0, 2**32))
def test_what_is_read_is_what_was_written(agent, txn_id, changes, commit_ts, time_ns, base):
    body, section = section_of(agent, txn_id, changes, commit_ts, time_ns)
    read = walk_section(section)
    assert read == (agent, txn_id, commit_ts, body.operations)
    assert committed_at_ns(section) == time_ns
    for operation, (key, value, version) in zip(read.operations, changes, strict=True):
        assert (operation.key, operation.version) == (key.encode(), version)
        if value is None:
            assert (operation.value_offset, operation.value_length) == (None, 0)
        else:
            end = operation.value_offset + operation.value_length
            assert Struct.FromString(section[operation.value_offset : end]) == value
    placed = walk_section(section, base).operations
    assert [operation.value_offset for operation in placed] == [
        None if operation.value_offset is None else operation.value_offset + base for operation in read.operations
    ]


@given(st.builds(AgentId, names, names), names, operations, numbers, times_ns)
def test_a_section_is_read_whoever_encoded_it(agent, txn_id, changes, commit_ts, time_ns):
    """Protobuf's own order of fields, not ours."""
    event = event_of(agent, txn_id, changes, commit_ts, time_ns)
    section = event.SerializeToString()
    read = walk_section(section)
    assert (read.agent, read.txn_id, read.commit_ts) == (agent, txn_id, commit_ts)
    assert committed_at_ns(section) == time_ns
    for operation, built in zip(read.operations, event.operations, strict=True):
        assert (operation.key, operation.version) == (built.key.encode(), built.version)
        assert (operation.value_offset is not None) == built.HasField("value")
        if operation.value_offset is not None:
            end = operation.value_offset + operation.value_length
            assert Struct.FromString(section[operation.value_offset : end]) == built.value


def test_a_transaction_without_operations_has_a_section_without_names():
    section = section_body(b"", "t" * 32, ()).encoded + stamp(7, 10**9)
    assert walk_section(section) == (AgentId("", ""), "t" * 32, 7, [])
    event = ReplayEvent.FromString(section)
    assert (event.txn_id, event.commit_ts, event.namespace, event.agent_id) == ("t" * 32, 7, "", "")


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_a_record_is_its_sections(sections):
    payload, offsets = record_of(sections)
    assert payload.startswith(PAYLOAD_START)  # the log takes nothing else
    assert [payload[first:last] for first, last in sections_of(payload)] == sections
    assert offsets == [first for first, _ in sections_of(payload)]


def test_a_record_is_a_log_record():
    sections = [
        section_of(AgentId("n", name), "txn", [("k", struct_of("v"), 1)], 9, 5)[1] for name in ("one", "two", "three")
    ]
    record = LogRecord.FromString(record_of(sections)[0])
    assert list(record.sections) == [ReplayEvent.FromString(section) for section in sections]


def test_fields_of_a_later_version_are_stepped_over():
    operation = encode_operation(b"k", b"", 300)
    later = length_delimited(9, b"later") + tag(10, 0) + varint(5) + tag(11, 1) + bytes(8) + tag(12, 5) + bytes(4)
    inner = operation[2:]
    grown = length_delimited(3, later + inner + later)
    section = (
        later + grown + later + agent_fields(AgentId("n", "a")) + length_delimited(1, b"txn") + stamp(5, 7) + later
    )
    read = walk_section(section)
    assert (read.agent, read.txn_id, read.commit_ts) == (AgentId("n", "a"), "txn", 5)
    assert [(key, version, length) for key, version, _, length in read.operations] == [(b"k", 300, 0)]


def test_every_cut_of_a_section_is_refused_or_is_visibly_not_whole():
    _, section = section_of(AgentId("n", "agent"), "txn", [("key", struct_of("v"), 1), ("b", None, 2)], 300, 10**18)
    whole = walk_section(section)
    for end in range(len(section)):
        try:
            cut = walk_section(section[:end])
        except WireError:
            continue
        assert cut != whole or end > len(section) - len(stamp(300, 10**18))


@pytest.mark.parametrize(
    "section",
    [
        length_delimited(3, b"\x0a\x05ab"),
        length_delimited(100, b"\xff"),
        length_delimited(1, b"\xc3"),
        b"\x1a\x05\x0a\x01k",
        b"\x10\x80",
    ],
)
def test_what_is_not_a_section_is_refused(section):
    with pytest.raises(WireError):
        walk_section(section)


def test_a_time_before_1970_is_refused():
    with pytest.raises(ValueError, match="64-bit"):
        stamp(1, -1)
