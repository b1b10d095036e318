"""Sections: written in pieces, read as offsets, and always what protobuf would read."""

from types import MappingProxyType

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from statehouse.limits import TTL_MOST_S
from statehouse.storage.log_format import PAYLOAD_START
from statehouse.storage.section import (
    agent_fields,
    encode_operation,
    metadata_entry,
    metadata_fields,
    record_of,
    section_body,
    sections_of,
    stamp,
    walk_section,
)
from statehouse.storage.section_fields import committed_at_ns, deletes_expired, metadata_entries, renamed
from statehouse.storage.v1.log_pb2 import LogRecord
from statehouse.storage.wire import WireError, length_delimited, tag, varint
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import Operation, ReplayEvent


def struct_of(text):
    struct = Struct()
    if text:
        struct.update({"text": text})
    return struct


ttls = st.one_of(st.sampled_from([0, 1, 127, 128, TTL_MOST_S]), st.integers(0, TTL_MOST_S))
names = st.text(min_size=1, max_size=12)
numbers = st.one_of(st.integers(1, 300), st.integers(1, 2**64 - 1))
times_ns = st.one_of(st.sampled_from([0, 1, 999_999_999, 10**9]), st.integers(0, 4 * 10**18))
values = st.one_of(st.none(), st.text(max_size=300).map(struct_of))
operations = st.lists(st.tuples(names, values, numbers), min_size=1, max_size=5)


def section_of(agent, txn_id, changes, commit_ts, time_ns, ttls_s=MappingProxyType({}), *, expired=False):
    encoded = [
        (key.encode(), None if value is None else value.SerializeToString(), version) for key, value, version in changes
    ]
    body = section_body(agent_fields(agent), txn_id, encoded, ttls_s=ttls_s, expired=expired)
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


@given(names, values, numbers, ttls, st.booleans())
def test_an_operation_is_the_bytes_of_protobuf(key, value, version, ttl_s, expired):
    operation = Operation(key=key, version=version, ttl_s=ttl_s, expired=expired)
    serialized = None
    if value is not None:
        operation.value.CopyFrom(value)
        serialized = value.SerializeToString(deterministic=True)
    encoded = encode_operation(key.encode(), serialized, version, ttl_s, expired=expired)
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


@given(operations, st.lists(ttls, min_size=5, max_size=5), numbers)
def test_ttls_are_read_as_they_were_written_and_in_protobuf(changes, each_ttl_s, commit_ts):
    written = {
        place: ttl_s
        for place, ((_, value, _), ttl_s) in enumerate(zip(changes, each_ttl_s, strict=False))
        if value is not None and ttl_s
    }
    body, section = section_of(AgentId("n", "a"), "txn", changes, commit_ts, 5, written)
    operations = walk_section(section).operations
    assert operations == body.operations
    assert {place: each.ttl_s for place, each in enumerate(operations) if each.ttl_s} == written
    event = ReplayEvent.FromString(section)
    assert [each.ttl_s for each in event.operations] == [each.ttl_s for each in operations]
    # and protobuf's own order of fields
    assert [each.ttl_s for each in walk_section(event.SerializeToString()).operations] == [
        each.ttl_s for each in operations
    ]
    for each, (_, value, _) in zip(operations, changes, strict=True):
        if value is not None:
            assert Struct.FromString(section[each.value_offset : each.value_offset + each.value_length]) == value


def test_what_is_deleted_because_it_expired_says_so():
    changes = [("k", None, 3), ("l", None, 300)]
    body, section = section_of(AgentId("n", "a"), "txn", changes, 7, 5, expired=True)
    assert walk_section(section).operations == body.operations
    assert walk_section(section).operations == section_of(AgentId("n", "a"), "txn", changes, 7, 5)[0].operations
    event = ReplayEvent.FromString(section)
    assert [each.expired for each in event.operations] == [True, True]
    assert deletes_expired(section)
    assert deletes_expired(event.SerializeToString())
    for others in (changes, [("k", Struct(), 3)], []):
        assert not deletes_expired(section_of(AgentId("n", "a"), "txn", others, 7, 5)[1])


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


texts = st.text(st.characters(codec="utf-8"), max_size=20)


@given(operations, st.dictionaries(texts, texts, max_size=5))
def test_metadata_is_the_map_of_protobuf_sorted_and_disturbs_nothing(changes, metadata):
    agent = AgentId("n", "a")
    encoded = [(key.encode(), None if v is None else v.SerializeToString(), version) for key, v, version in changes]
    plain, told = (
        section_body(agent_fields(agent), "txn", encoded, fields) for fields in (b"", metadata_fields(metadata))
    )
    section = told.encoded + stamp(7, 10**9 + 5)
    event = event_of(agent, "txn", changes, 7, 10**9 + 5)
    event.metadata.update(metadata)
    assert ReplayEvent.FromString(section) == event
    assert walk_section(section) == walk_section(plain.encoded + stamp(7, 10**9 + 5))
    assert told.operations == plain.operations
    assert committed_at_ns(section) == 10**9 + 5
    assert metadata_entries(section) == [metadata_entry(*entry) for entry in sorted(metadata.items())]
    names = [ReplayEvent.MetadataEntry.FromString(entry).key.encode() for entry in metadata_entries(section)]
    assert names == sorted(names)


def test_no_metadata_is_no_bytes():
    assert metadata_fields({}) == b""
    assert metadata_entries(section_of(AgentId("n", "a"), "txn", [("k", None, 1)], 7, 5)[1]) == []


@pytest.mark.parametrize("section", [b"\x1a\x05\x0a\x01k", b"\x1a", b"\x10\x80", b"\xba\x06\x05"])
def test_metadata_and_time_of_what_is_cut_are_refused(section):
    for read in (metadata_entries, committed_at_ns):
        with pytest.raises(WireError):
            read(section)


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


@given(names, names, operations, st.dictionaries(names, names, max_size=2))
def test_a_renamed_section_is_what_the_other_agent_would_have_written(agent_id, other_id, changes, metadata):
    agent, other = AgentId("n", agent_id), AgentId("n", other_id)
    encoded = [
        (key.encode(), None if value is None else value.SerializeToString(), version) for key, value, version in changes
    ]
    first, second = (
        section_body(agent_fields(each), "txn", encoded, metadata_fields(metadata)).encoded + stamp(5, 7)
        for each in (agent, other)
    )
    assert renamed(first, agent_fields(other)) == second


def test_a_section_is_renamed_wherever_its_names_stand():
    """Also when they stand there twice, or apart, as none that was written here does."""
    old, new = agent_fields(AgentId("n", "parent")), AgentId("n", "fork")
    operation, later, txn_id = encode_operation(b"k", None, 1), length_delimited(9, b"later"), length_delimited(1, b"t")
    section = renamed(later + old + operation + old + txn_id + stamp(5, 7), agent_fields(new))
    assert walk_section(section)[:3] == (new, "t", 5)
    assert section == later + agent_fields(new) + operation + txn_id + stamp(5, 7)


@pytest.mark.parametrize("section", [b"", encode_operation(b"k", None, 1) + stamp(5, 7), b"\x10\x80"])
def test_what_names_no_agent_is_not_renamed(section):
    with pytest.raises(WireError):
        renamed(section, agent_fields(AgentId("n", "a")))


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
    assert [(key, version, length) for key, version, _, length, _ in read.operations] == [(b"k", 300, 0)]


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
