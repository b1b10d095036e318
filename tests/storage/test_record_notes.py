"""Notes behind the sections of a record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.storage.record_notes import (
    NO_NOTES,
    ForkNote,
    Idempotency,
    Inherited,
    LeaseChange,
    Notes,
    encode_notes,
    read_notes,
)
from statehouse.storage.section import record_of, sections_of
from statehouse.storage.v1 import log_pb2
from statehouse.storage.wire import VARINT, WireError, length_delimited, tag, varint
from statehouse.types import AgentId

texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
numbers = st.integers(0, 2**64 - 1)
idempotencies = st.builds(Idempotency, names.map(str.encode), st.binary(min_size=32, max_size=32))
leases = st.builds(LeaseChange, st.builds(AgentId, names, names), st.integers(1, 2**64 - 1), texts, numbers)
agents = st.builds(AgentId, names, names)
counts = st.integers(1, 2**64 - 1)


@st.composite
def fork_notes(draw):
    agent, parent = draw(agents), draw(names)
    inherited = Inherited(draw(numbers), draw(numbers), draw(counts), draw(numbers), draw(numbers))
    return ForkNote(agent, AgentId(agent.namespace, parent), draw(counts), inherited)


all_notes = st.builds(
    Notes,
    st.none() | idempotencies,
    st.none() | leases,
    st.none() | fork_notes(),
    st.none() | agents,
    st.none() | st.sampled_from([0, 1]) | numbers,
)
sections = st.lists(st.binary(max_size=200), min_size=1, max_size=3)

FINGERPRINT = bytes(range(32))


@given(all_notes)
def test_notes_are_the_bytes_of_protobuf(notes):
    record = log_pb2.LogRecord()
    if notes.idempotency is not None:
        record.idempotency.key = notes.idempotency.key.decode()
        record.idempotency.fingerprint = notes.idempotency.fingerprint
    if notes.lease is not None:
        namespace, agent_id = notes.lease.agent
        record.lease.CopyFrom(
            log_pb2.LeaseChange(
                namespace=namespace,
                agent_id=agent_id,
                epoch=notes.lease.epoch,
                holder=notes.lease.holder,
                expires_at_ns=notes.lease.expires_at_ns,
            )
        )
    if (fork := notes.fork) is not None:
        inherited = log_pb2.AgentMeta(**fork.inherited._asdict())
        record.fork.CopyFrom(
            log_pb2.Fork(
                namespace=fork.agent.namespace,
                agent_id=fork.agent.agent_id,
                parent_id=fork.parent.agent_id,
                at_ts=fork.at_ts,
                inherited=inherited,
            )
        )
    if notes.end is not None:
        record.end.CopyFrom(log_pb2.AgentEnd(namespace=notes.end.namespace, agent_id=notes.end.agent_id))
    if notes.swept_until_ns is not None:
        record.swept_until_ns = notes.swept_until_ns
    assert encode_notes(notes) == record.SerializeToString()


@given(sections, all_notes)
def test_the_notes_of_a_record_are_read_and_its_sections_are_as_without(contents, notes):
    payload = record_of(contents)[0]
    noted = payload + encode_notes(notes)
    assert read_notes(noted) == notes
    assert sections_of(noted) == sections_of(payload)
    assert read_notes(payload) is NO_NOTES
    assert (read_notes(noted) is NO_NOTES) == (notes == NO_NOTES)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 16_383, 16_384, 16_385])
def test_notes_behind_sections_of_any_length(size):
    notes = Notes(Idempotency(b"k", FINGERPRINT))
    payload = record_of([bytes(size)])[0]
    assert read_notes(payload) is NO_NOTES
    assert read_notes(payload + encode_notes(notes)) == notes
    assert read_notes(encode_notes(notes) + payload) == notes


def test_notes_are_found_wherever_they_stand():
    notes = Notes(Idempotency(b"k", FINGERPRINT))
    first, second = (record_of([content])[0] for content in (b"one", b"two"))
    for payload in (first + encode_notes(notes) + second, encode_notes(notes) + first):
        assert read_notes(payload) == notes
    assert read_notes(first + second) == NO_NOTES


@pytest.mark.parametrize("unknown", [length_delimited(15, b"?"), tag(15, VARINT) + varint(1)])
def test_a_record_of_a_newer_version_is_refused(unknown):
    for payload in (record_of([b"one"])[0] + unknown, unknown + record_of([b"one"])[0]):
        with pytest.raises(WireError, match=r"field 15.*newer"):
            read_notes(payload)


SECTION = record_of([b"section"])[0]
KEY = encode_notes(Notes(Idempotency(b"k", FINGERPRINT)))
LEASE = encode_notes(Notes(lease=LeaseChange(AgentId("n", "a"), 1, "h", 5)))
FORK = encode_notes(Notes(fork=ForkNote(AgentId("n", "c"), AgentId("n", "p"), 5, Inherited(1, 4, 2, 3, 1))))
END = encode_notes(Notes(end=AgentId("n", "a")))
SWEPT = encode_notes(Notes(swept_until_ns=300))


def fork(**changes):
    fields = {
        "namespace": "n",
        "agent_id": "c",
        "parent_id": "p",
        "at_ts": 5,
        "inherited": log_pb2.AgentMeta(commits=1),
    }
    return length_delimited(4, log_pb2.Fork(**(fields | changes)).SerializeToString())


def lease(**fields):
    return length_delimited(3, log_pb2.LeaseChange(**fields).SerializeToString())


@pytest.mark.parametrize(
    "behind",
    [
        KEY + KEY,
        LEASE + LEASE,
        KEY[:-1],
        LEASE[:-1],
        length_delimited(2, b""),
        length_delimited(2, length_delimited(2, FINGERPRINT)),
        length_delimited(2, length_delimited(1, b"k")),
        length_delimited(2, length_delimited(1, b"k") + length_delimited(2, FINGERPRINT[:-1])),
        length_delimited(2, length_delimited(1, b"\xff") + length_delimited(2, FINGERPRINT)),
        length_delimited(2, b"\x0a\x05"),
        length_delimited(3, b""),
        length_delimited(3, b"\x0a\x05"),
        lease(namespace="n", epoch=1),
        lease(namespace="n", agent_id="a"),
        FORK + FORK,
        FORK[:-1],
        length_delimited(4, b""),
        length_delimited(4, b"\x0a\x05"),
        fork(agent_id=""),
        fork(parent_id=""),
        fork(at_ts=0),
        fork(inherited=log_pb2.AgentMeta()),
        SWEPT + SWEPT,
        SWEPT[:-1],
        END + END,
        END[:-1],
        length_delimited(5, b""),
        length_delimited(5, b"\x0a\x05"),
        length_delimited(5, log_pb2.AgentEnd(namespace="n").SerializeToString()),
    ],
)
def test_notes_that_no_commit_makes_are_refused(behind):
    with pytest.raises(WireError):
        read_notes(SECTION + behind)


@pytest.mark.parametrize("fingerprint", [b"", FINGERPRINT[:-1], FINGERPRINT + b"x"])
def test_a_fingerprint_of_another_length_is_refused(fingerprint):
    with pytest.raises(ValueError, match="fingerprint"):
        Idempotency(b"k", fingerprint)
