"""The rows that notes leave in the view: each packed, read, and refused when it is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.storage.note_rows import (
    END_ROW,
    child_row,
    fork_row,
    idempotency_row,
    lease_row,
    read_child_row,
    read_fork_row,
    read_idempotency_row,
    read_lease_row,
)
from statehouse.storage.record_notes import ForkNote, Inherited, LeaseChange
from statehouse.storage.v1 import log_pb2
from statehouse.storage.view import ViewDamagedError
from statehouse.types import AgentId

texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
numbers = st.integers(0, 2**64 - 1)
counts = st.integers(1, 2**64 - 1)
agents = st.builds(AgentId, names, names)
leases = st.builds(LeaseChange, agents, counts, texts, numbers)
inherited = st.builds(Inherited, numbers, numbers, counts, numbers, numbers)


@given(numbers, st.binary(min_size=32, max_size=32))
def test_rows_of_idempotency_keys_round_trip(time_ns, fingerprint):
    assert read_idempotency_row(idempotency_row(time_ns, fingerprint)) == (time_ns, fingerprint)


@given(leases)
def test_rows_of_leases_round_trip_and_name_no_agent(change):
    row = lease_row(change)
    assert read_lease_row(row) == (change.epoch, change.holder, change.expires_at_ns)
    other = LeaseChange(AgentId("other", "agent"), change.epoch, change.holder, change.expires_at_ns)
    assert lease_row(other) == row


@pytest.mark.parametrize("stored", [b"", bytes(39), bytes(41)])
def test_a_row_of_an_idempotency_key_of_another_length_is_damage(stored):
    with pytest.raises(ViewDamagedError):
        read_idempotency_row(stored)


@pytest.mark.parametrize("stored", [b"", b"\x18", b"\x22\x01\xff", b"\x18\x00\x22\x01h"])
def test_a_row_of_a_lease_without_an_epoch_or_cut_is_damage(stored):
    with pytest.raises(ViewDamagedError):
        read_lease_row(stored)


@given(agents, names, counts, counts, inherited)
def test_rows_of_forks_round_trip_and_say_no_more_than_they_must(agent, parent_id, at_ts, commit_ts, counters):
    note = ForkNote(agent, AgentId(agent.namespace, parent_id), at_ts, counters)
    of_the_fork, of_the_parent = fork_row(note, commit_ts), child_row(note)
    assert read_fork_row(of_the_fork) == (parent_id, at_ts, commit_ts)
    assert read_child_row(of_the_parent) == (agent.agent_id, at_ts)
    assert log_pb2.Fork.FromString(of_the_fork) == log_pb2.Fork(parent_id=parent_id, at_ts=at_ts, commit_ts=commit_ts)
    assert log_pb2.Fork.FromString(of_the_parent) == log_pb2.Fork(agent_id=agent.agent_id, at_ts=at_ts)


FORK = {"parent_id": "p", "at_ts": 5, "commit_ts": 7}
CHILD = {"agent_id": "c", "at_ts": 5}


@pytest.mark.parametrize("missing", [*FORK, "all of it", "its end"])
def test_a_row_of_a_fork_that_lacks_something_is_damage(missing):
    stored = log_pb2.Fork(**{name: value for name, value in FORK.items() if name != missing}).SerializeToString()
    if missing == "all of it":
        stored = b""
    elif missing == "its end":
        stored = stored[:3]
    with pytest.raises(ViewDamagedError):
        read_fork_row(stored)


@pytest.mark.parametrize("missing", [*CHILD, "all of it", "its end"])
def test_a_row_of_a_child_that_lacks_something_is_damage(missing):
    stored = log_pb2.Fork(**{name: value for name, value in CHILD.items() if name != missing}).SerializeToString()
    if missing == "all of it":
        stored = b""
    elif missing == "its end":
        stored = stored[:2]
    with pytest.raises(ViewDamagedError):
        read_child_row(stored)


def test_the_row_of_an_end_is_there():
    assert END_ROW == b"\x01"
