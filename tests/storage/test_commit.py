"""A group of commits as the log and the view are given it."""

import pytest
from storage.fix_store import ALICE, BOB, STORE_ID, Writer, value

from statehouse.limits import VALUE_INLINE_BYTES
from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters, GroupCommit, PreparedCommit, empty_commit, prepare_section
from statehouse.storage.event_log import Placement
from statehouse.storage.expiry_keys import fork_expiry_key
from statehouse.storage.keys import agent_prefix
from statehouse.storage.note_rows import END_ROW, child_row, commit_row, fork_row, idempotency_row, lease_row
from statehouse.storage.record_notes import (
    ForkNote,
    Idempotency,
    Inherited,
    LeaseChange,
    Notes,
    encode_notes,
    read_notes,
)
from statehouse.storage.section import agent_fields, metadata_fields, sections_of
from statehouse.storage.stored_value import ValuePointer, event_counts, inline_value, section_reads, unpack_outcome
from statehouse.storage.v1.log_pb2 import AgentMeta, LogRecord, Watermark

CHAIN = b"c" * 32


def prepared(agent, txn_id, operations, counters=None, metadata=b""):
    counters = counters or AgentCounters(commits=1, operations=len(operations))
    return prepare_section(agent_prefix(agent), agent_fields(agent), txn_id, operations, counters, metadata)


def unknown(prefix):
    raise AssertionError(f"nobody needs to know what the view has of {prefix}")


def writes_of(group, stored_counters=unknown):
    """The view's writes for a group that stands at offset 1000 of segment 1, and the bytes of that segment."""
    segment = bytearray(1000)
    placements = []
    for payload in group.payloads():
        placements.append(Placement(1, len(segment)))
        segment += payload
    return group.view_writes(placements, CHAIN, stored_counters), bytes(segment)


def test_a_record_is_the_events_of_its_agents():
    group = GroupCommit(
        7,
        1_500_000_000_000_000_123,
        [
            PreparedCommit(
                "t7",
                [
                    prepared(ALICE, "t7", [(b"a", value(30), 1), (b"a", None, 2)]),
                    prepared(BOB, "t7", [(b"b", value(300), 9)]),
                ],
            ),
            empty_commit("t8"),
        ],
    )
    first, second = (LogRecord.FromString(payload) for payload in group.payloads())
    assert [(s.namespace, s.agent_id, s.txn_id, s.commit_ts) for s in first.sections] == [
        (*ALICE, "t7", 7),
        (*BOB, "t7", 7),
    ]
    assert [(op.key, op.HasField("value"), op.version) for op in first.sections[0].operations] == [
        ("a", True, 1),
        ("a", False, 2),
    ]
    assert first.sections[1].operations[0].value.SerializeToString() == value(300)
    assert {s.committed_at.ToNanoseconds() for s in (*first.sections, *second.sections)} == {1_500_000_000_000_000_123}
    (nobody,) = second.sections
    assert (nobody.agent_id, nobody.txn_id, nobody.commit_ts, len(nobody.operations)) == ("", "t8", 8, 0)
    assert (group.first_commit_ts, group.last_commit_ts) == (7, 8)


def test_an_empty_commit_is_in_no_agents_columns():
    writes, _ = writes_of(GroupCommit(1, 5, [empty_commit("t")]))
    assert set(writes) == {keys.WATERMARK_KEY, keys.outcome_key(0, "t")}
    assert unpack_outcome(writes[keys.outcome_key(0, "t")]) == 1


KEYED = Notes(Idempotency(b"job", b"f" * 32))
LEASE = LeaseChange(BOB, 2, "worker", 77)


def test_an_idempotency_key_has_a_row_in_each_agent_that_was_written_to():
    sections = [prepared(agent, "t", [(b"k", value(10), 1)]) for agent in (ALICE, BOB)]
    group = GroupCommit(4, 99, [PreparedCommit("t", sections, KEYED), PreparedCommit("u", sections[:1])])
    first, second = group.payloads()
    assert (read_notes(first), first.endswith(encode_notes(KEYED))) == (KEYED, True)
    assert len(sections_of(first)) == 2
    assert LogRecord.FromString(first).idempotency.key == "job"
    assert not LogRecord.FromString(second).HasField("idempotency")
    writes, _ = writes_of(group)
    row = idempotency_row(99, b"f" * 32)
    for agent in (ALICE, BOB):
        assert writes[keys.idempotency_key(agent_prefix(agent), b"job", 4)] == row
    assert sum(row == found for found in writes.values()) == 2


def test_a_change_of_a_lease_is_an_empty_commit_with_a_row_in_its_agent_alone():
    group = GroupCommit(3, 5, [empty_commit("t", Notes(lease=LEASE))])
    writes, _ = writes_of(group)
    lease_key = keys.lease_key(agent_prefix(BOB), 3)
    assert set(writes) == {keys.WATERMARK_KEY, keys.outcome_key(0, "t"), lease_key}
    assert writes[lease_key] == lease_row(LEASE)
    assert group.sections() == []


def test_a_fork_is_an_empty_commit_with_four_rows_however_much_it_inherits():
    fork = ForkNote(ALICE._replace(agent_id="child"), ALICE, 7, Inherited(2, 6, 3, 5, 4))
    group = GroupCommit(9, 5, [empty_commit("t", Notes(fork=fork))])
    writes, _ = writes_of(group)
    child, parent = agent_prefix(fork.agent), agent_prefix(ALICE)
    outcome_key = keys.outcome_key(0, "t")
    assert {key: row for key, row in writes.items() if key not in (keys.WATERMARK_KEY, outcome_key)} == {
        keys.fork_key(child): fork_row(fork, 9),
        keys.meta_key(child): AgentCounters(2, 6, 3, 5, 4).pack(),
        keys.child_key(parent, 9): child_row(fork),
        fork_expiry_key(5, child): commit_row(9),
    }
    assert group.next_expiry_ns == 6
    assert group.sections() == []


def test_an_agents_end_has_a_row_beside_its_tombstones():
    section = prepared(ALICE, "t", [(b"k", None, 2)], AgentCounters(1, 0, 2, 2, 0))
    writes, _ = writes_of(GroupCommit(3, 5, [PreparedCommit("t", [section], Notes(end=ALICE))]))
    prefix = agent_prefix(ALICE)
    assert writes[keys.end_key(prefix, 3)] == END_ROW
    assert writes[keys.state_key(prefix, b"k")] == inline_value(None, 2, 3)
    assert event_counts(writes[keys.event_key(prefix, 3)]) == (2, 2, 0)
    writes, _ = writes_of(GroupCommit(4, 5, [empty_commit("t", Notes(end=ALICE))]))
    assert set(writes) == {keys.WATERMARK_KEY, keys.outcome_key(0, "t"), keys.end_key(prefix, 4)}


def test_an_event_row_has_the_counters_behind_its_commit():
    counters = [AgentCounters(commits=1, operations=2, live_keys=1), AgentCounters(commits=2, operations=3)]
    operations = [[(b"a", value(10), 1), (b"b", None, 1)], [(b"a", None, 2)]]
    commits = [
        PreparedCommit(f"t{number}", [prepared(ALICE, f"t{number}", *each)])
        for number, each in enumerate(zip(operations, counters, strict=True))
    ]
    writes, _ = writes_of(GroupCommit(5, 1, commits))
    rows = [writes[keys.event_key(agent_prefix(ALICE), commit_ts)] for commit_ts in (5, 6)]
    assert [event_counts(row) for row in rows] == [(1, 2, 1), (2, 3, 0)]


def test_notes_count_in_the_size_of_a_commit():
    plain = empty_commit("t")
    assert empty_commit("t", KEYED).size_bytes == plain.size_bytes + len(encode_notes(KEYED))


def test_the_metadata_stands_in_every_section():
    metadata = {"run": "1", "model": "m"}
    sections = [
        prepared(agent, "t", [(b"k", value(10), 1)], metadata=metadata_fields(metadata)) for agent in (ALICE, BOB)
    ]
    (payload,) = GroupCommit(4, 99, [PreparedCommit("t", sections)]).payloads()
    assert [dict(section.metadata) for section in LogRecord.FromString(payload).sections] == [metadata] * 2


def test_what_became_durable_is_told_as_the_sections_that_replay_sends():
    group = GroupCommit(
        6,
        99,
        [
            PreparedCommit("t", [prepared(agent, "t", [(b"k", value(10), 1)]) for agent in (BOB, ALICE)], KEYED),
            empty_commit("u", Notes(lease=LEASE)),
            empty_commit("v"),
            PreparedCommit("w", [prepared(ALICE, "w", []), prepared(BOB, "w", [(b"k", None, 2)])]),
        ],
    )
    payloads = group.payloads()
    told = group.sections()
    assert [(commit_ts, prefix) for commit_ts, prefix, _ in told] == [
        (6, agent_prefix(BOB)),
        (6, agent_prefix(ALICE)),
        (9, agent_prefix(BOB)),
    ]
    in_log = [payload[first:last] for payload in payloads for first, last in sections_of(payload)]
    assert [section for *_, section in told] == [in_log[0], in_log[1], in_log[5]]


def test_the_watermark_is_the_groups_end():
    writes, _ = writes_of(GroupCommit(4, 99, [empty_commit("t"), empty_commit("u")]))
    assert Watermark.FromString(writes[keys.WATERMARK_KEY]) == Watermark(
        commit_ts=5, chain=CHAIN, format_version=2, committed_at_ns=99
    )


def test_pointers_lead_to_the_bytes_in_the_log():
    large = value(5_000, "large")
    group = GroupCommit(
        1,
        1,
        [
            PreparedCommit("t1", [prepared(ALICE, "t1", [(b"x", value(10), 1), (b"y", large, 300)])]),
            PreparedCommit("t2", [prepared(BOB, "t2", [(b"z", large, 70_000)])]),
        ],
    )
    writes, segment = writes_of(group)
    for agent, key, version in ((ALICE, b"y", 300), (BOB, b"z", 70_000)):
        prefix = agent_prefix(agent)
        row = writes[keys.version_key(prefix, key, version)]
        assert writes[keys.state_key(prefix, key)] == row
        pointer = ValuePointer.unpack(row)
        assert segment[pointer.offset : pointer.offset + pointer.length] == large
        assert pointer.version == version
    for commit_ts, agent in ((1, ALICE), (2, BOB)):
        key = keys.event_key(agent_prefix(agent), commit_ts)
        [(found_ts, offset, length, _)] = section_reads([(key, writes[key])])
        event = LogRecord.FromString(group.payloads()[commit_ts - 1]).sections[0]
        assert found_ts == commit_ts
        assert type(event).FromString(segment[offset : offset + length]) == event


@pytest.mark.parametrize(("size", "is_inline"), [(VALUE_INLINE_BYTES, True), (VALUE_INLINE_BYTES + 1, False)])
def test_a_value_stands_in_the_state_up_to_the_inline_limit_and_never_in_the_versions(size, is_inline):
    content = value(size)
    writes, _ = writes_of(GroupCommit(3, 1, [PreparedCommit("t", [prepared(ALICE, "t", [(b"k", content, 1)])])]))
    prefix = agent_prefix(ALICE)
    assert (writes[keys.state_key(prefix, b"k")] == inline_value(content, 1, 3)) == is_inline
    assert ValuePointer.unpack(writes[keys.version_key(prefix, b"k", 1)]).length == size


def test_a_tombstone_is_inline_in_both_columns():
    writes, _ = writes_of(GroupCommit(3, 1, [PreparedCommit("t", [prepared(ALICE, "t", [(b"k", None, 2)])])]))
    prefix = agent_prefix(ALICE)
    assert writes[keys.state_key(prefix, b"k")] == writes[keys.version_key(prefix, b"k", 2)] == inline_value(None, 2, 3)


def test_of_several_writes_to_a_key_the_last_is_the_state_and_all_are_versions():
    operations = [(b"k", value(10), 1), (b"k", None, 2), (b"k", value(20), 3)]
    writes, _ = writes_of(GroupCommit(1, 1, [PreparedCommit("t", [prepared(ALICE, "t", operations)])]))
    prefix = agent_prefix(ALICE)
    assert writes[keys.state_key(prefix, b"k")] == inline_value(value(20), 3, 1)
    assert {keys.version_key(prefix, b"k", version) for version in (1, 2, 3)} <= set(writes)


def test_the_first_commit_of_a_new_agent_is_found_within_a_group_and_across_groups():
    def commit(txn_id, commits):
        counters = AgentCounters(commits=commits, operations=commits)
        return PreparedCommit(txn_id, [prepared(ALICE, txn_id, [(b"k", value(10), commits)], counters)])

    def meta(writes):
        return AgentMeta.FromString(writes[keys.meta_key(agent_prefix(ALICE))])

    writes, _ = writes_of(GroupCommit(5, 1, [commit("a", 1), commit("b", 2)]))
    assert (meta(writes).first_commit_ts, meta(writes).last_commit_ts, meta(writes).commits) == (5, 6, 2)
    # Prepared before the first group was durable: what the view has by now says where the agent began.
    stored = AgentCounters(first_commit_ts=5, last_commit_ts=6, commits=2)
    writes, _ = writes_of(GroupCommit(7, 1, [commit("c", 3), commit("d", 4)]), lambda prefix: stored)
    assert (meta(writes).first_commit_ts, meta(writes).last_commit_ts, meta(writes).commits) == (5, 8, 4)


def test_counters_keep_what_they_are():
    counters = AgentCounters(1, 2, 3, 4, 5)
    assert AgentCounters.unpack(counters.pack()) == counters
    assert AgentCounters.unpack(None) == AgentCounters(0, 0, 0, 0, 0)
    assert counters.plus(operations=2, live_keys=-1).at(7, 8) == AgentCounters(7, 8, 4, 6, 4)


def test_encoding_a_group_again_gives_the_same_bytes(store_bench):
    writer = Writer(store_bench.store())
    group, _ = writer.group([writer.txn((ALICE, b"k", value(300))), writer.txn()])
    assert group.payloads() == group.payloads()
    assert store_bench.opened[0].store_id == STORE_ID
