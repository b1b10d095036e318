"""Verification of forks and ends, and of the counts in events: each kind of wrong row is named, and no other row is."""

import random

import pytest
from storage.fix_forks import ForkWriter
from storage.fix_store import ALICE, BOB, rows_of, value
from storage.fix_verification import (
    assert_found_when_changed,
    assert_found_when_missing,
    assert_is,
    kinds,
    verified,
)

from statehouse.limits import FORK_DEPTH
from statehouse.storage import keys, row_names, verification
from statehouse.storage.commit import AgentCounters, GroupCommit, PreparedCommit, prepare_section
from statehouse.storage.keys import agent_prefix
from statehouse.storage.note_rows import fork_row
from statehouse.storage.record_notes import ForkNote, Inherited, Notes
from statehouse.storage.section import agent_fields
from statehouse.storage.stored_value import event_counts, event_row

FORK, DEEP, IDLE, NOBODY = (ALICE._replace(agent_id=name) for name in ("a fork", "deep", "idle", "nobody"))
A, F, D, IDLE_ROWS, B = (agent_prefix(agent) for agent in (ALICE, FORK, DEEP, IDLE, BOB))


def planting(bench):
    writer = ForkWriter(bench.store())
    writer.commit((ALICE, b"k", value(20)), (ALICE, b"gone", value(20)), (ALICE, b"only", value(20)))  # 1
    writer.commit((ALICE, b"gone", None), (ALICE, b"k", value(30)))
    writer.commit((ALICE, b"k", value(40)), (ALICE, b"late", value(20)), (BOB, b"k", value(20)))
    assert writer.fork(ALICE, FORK, 2) == 4
    writer.commit((FORK, b"k", value(700)), (FORK, b"new", value(20)), (FORK, b"gone", value(20)))
    writer.commit((FORK, b"k", None))
    assert writer.fork(FORK, DEEP) == 7
    writer.commit((DEEP, b"new", None), (DEEP, b"k", value(20)), (DEEP, b"only", None))  # 8
    assert writer.end(FORK) == 9
    assert writer.fork(ALICE, IDLE) == 10
    writer.commit((ALICE, b"k", value(50)), (BOB, b"k", None))
    assert verified(bench, writer.store)[0] == []
    return writer


@pytest.fixture
def planted(any_bench):
    return any_bench, planting(any_bench).store


def change(store, key, **changes):
    store._view.apply([(key, changes["to"])])


ROWS = {
    "fork": (keys.fork_key(F), FORK, {}),
    "fork of a fork": (keys.fork_key(D), DEEP, {}),
    "fork without commits": (keys.fork_key(IDLE_ROWS), IDLE, {}),
    "child": (keys.child_key(A, 4), ALICE, {"commit_ts": 4}),
    "second child": (keys.child_key(A, 10), ALICE, {"commit_ts": 10}),
    "end": (keys.end_key(F, 9), FORK, {"commit_ts": 9}),
    "first event of a fork": (keys.event_key(F, 5), FORK, {"commit_ts": 5}),
    "last event of a fork": (keys.event_key(F, 9), FORK, {"commit_ts": 9}),
    "event at the point of a fork": (keys.event_key(A, 2), ALICE, {"commit_ts": 2}),
    "event before it": (keys.event_key(A, 1), ALICE, {"commit_ts": 1}),
    "first version of a fork": (keys.version_key(F, b"k", 3), FORK, {"key": "k", "version": 3}),
    "version that is inherited": (keys.version_key(A, b"k", 2), ALICE, {"key": "k", "version": 2}),
    "tombstone that is inherited": (keys.version_key(A, b"gone", 2), ALICE, {"key": "gone", "version": 2}),
    "state of a fork": (keys.state_key(F, b"k"), FORK, {"key": "k"}),
    "counters of a fork": (keys.meta_key(F), FORK, {}),
    "counters of a fork of a fork": (keys.meta_key(D), DEEP, {}),
    "counters of a fork without commits": (keys.meta_key(IDLE_ROWS), IDLE, {}),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("at", [0, -1])
def test_a_row_that_changed(planted, row, at):
    assert_found_when_changed(planted, ROWS[row], at, 0x04)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_that_is_missing(planted, row):
    assert_found_when_missing(planted, ROWS[row])


FOREIGN = {
    "point": (ForkNote(FORK, ALICE, 3, Inherited(1, 3, 3, 7, 3)), 4),
    "commit": (ForkNote(FORK, ALICE, 2, Inherited(1, 2, 2, 5, 2)), 5),
    "parent": (ForkNote(FORK, BOB, 2, Inherited(1, 2, 2, 5, 2)), 4),
    "parent that is not there": (ForkNote(FORK, NOBODY, 2, Inherited(1, 2, 2, 5, 2)), 4),
    "its own parent": (ForkNote(FORK, FORK, 2, Inherited(1, 2, 2, 5, 2)), 4),
    "the parent of its parent": (ForkNote(FORK, DEEP, 2, Inherited(1, 2, 2, 5, 2)), 4),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_fork_of_something_else(planted, what):
    bench, store = planted
    store._view.apply([(keys.fork_key(F), fork_row(*FOREIGN[what]))])
    (finding,), _ = verified(bench, store)
    assert_is(finding, "row-wrong", FORK, {})


EXTRA = {
    "fork of one that is none": (keys.fork_key(B), BOB),
    "fork of nobody": (keys.fork_key(agent_prefix(NOBODY)), NOBODY),
    "child": (keys.child_key(B, 4), BOB),
    "end": (keys.end_key(A, 9), ALICE),
}


@pytest.mark.parametrize("row", EXTRA)
@pytest.mark.parametrize("parent", [ALICE, BOB])
def test_a_row_too_many(planted, row, parent):
    bench, store = planted
    key, agent = EXTRA[row]
    store._view.apply([(key, fork_row(ForkNote(agent, parent, 2, Inherited(1, 2, 2, 5, 2)), 4))])
    (finding,), _ = verified(bench, store)
    assert_is(finding, "row-extra", agent, {})


@pytest.mark.parametrize("key", [keys.fork_key(B) + b"x", keys.child_key(B, 4)[:-1], keys.end_key(B, 4) + b"x"])
def test_a_row_that_is_none_of_the_table_s(planted, key):
    bench, store = planted
    store._view.apply([(key, b"\x01")])
    (finding,), _ = verified(bench, store)
    assert finding.kind == "row-extra"
    assert "none of the view's format" in finding.message


# The counts in events


def miscounted(store, prefix, commit_ts, *, commits=0, operations=0, live_keys=0):
    """Change what an event row counts."""
    key = keys.event_key(prefix, commit_ts)
    stored = store._view.get(key)
    counts = [was + more for was, more in zip(event_counts(stored), (commits, operations, live_keys), strict=True)]
    row = event_row(*(int.from_bytes(stored[at : at + 4]) for at in (0, 4, 8)), *counts)
    assert row[:12] == stored[:12]
    store._view.apply([(key, row)])


EVENTS = [
    *((ALICE, A, ts) for ts in (1, 2, 3, 11)),
    *((FORK, F, ts) for ts in (5, 6, 9)),
    (DEEP, D, 8),
    *((BOB, B, ts) for ts in (3, 11)),
]


@pytest.mark.parametrize("count", ["commits", "operations", "live_keys"])
@pytest.mark.parametrize(("agent", "prefix", "commit_ts"), EVENTS)
def test_an_event_that_counts_wrong(planted, agent, prefix, commit_ts, count):
    bench, store = planted
    miscounted(store, prefix, commit_ts, **{count: 1})
    (finding,), _ = verified(bench, store)
    assert_is(finding, "row-wrong", agent, {"commit_ts": commit_ts})
    assert "by the log it counts" in finding.message


@pytest.mark.parametrize(
    "changes",
    [
        {1: {"commits": 1}, 2: {"commits": 1}, 3: {"commits": 1}, 11: {"commits": 1}},
        {1: {"operations": 1}, 2: {"operations": 1}, 3: {"operations": 1}, 11: {"operations": 1}},
        {1: {"operations": 1}, 2: {"operations": -1}},
        {1: {"live_keys": 1}, 3: {"live_keys": -1}},
        {2: {"operations": 2, "live_keys": -2}},
        {2: {"operations": 1}, 3: {"live_keys": 1}},
    ],
)
def test_events_that_count_wrong_together(planted, changes):
    bench, store = planted
    for commit_ts, change in changes.items():
        miscounted(store, A, commit_ts, **change)
    findings, _ = verified(bench, store)
    assert {finding.commit_ts for finding in findings} == set(changes)
    for finding in findings:
        assert_is(finding, "row-wrong", ALICE, {})


def test_counters_and_the_last_event_that_are_wrong_alike(planted):
    bench, store = planted
    miscounted(store, F, 9, live_keys=1)
    found = AgentCounters.unpack(store._view.get(keys.meta_key(F)))
    store._view.apply([(keys.meta_key(F), found._replace(live_keys=found.live_keys + 1).pack())])
    findings, _ = verified(bench, store)
    assert kinds(findings) == ["row-wrong", "row-wrong"]
    assert {finding.commit_ts for finding in findings} == {None, 9}


@pytest.mark.parametrize("length", [0, 12, 35, 37])
def test_an_event_row_of_another_length(planted, length):
    bench, store = planted
    key = keys.event_key(F, 6)
    store._view.apply([(key, (store._view.get(key) + b"x")[:length])])
    (finding,), _ = verified(bench, store)
    assert_is(finding, "row-wrong", FORK, {"commit_ts": 6})


def test_events_beyond_the_suspects_that_are_kept_are_counted(planted, monkeypatch):
    monkeypatch.setattr(row_names, "SUSPECTS_AT_MOST", 2)
    bench, store = planted
    for commit_ts in (1, 2, 3, 11):
        miscounted(store, A, commit_ts, operations=1)
    findings, _ = verified(bench, store)
    assert sorted(kinds(findings)) == ["row-wrong", "row-wrong", "rows-not-named"]
    assert "2 more rows" in findings[-1].message


def test_with_more_keys_than_are_remembered_commits_and_operations_are_still_compared(planted, monkeypatch):
    monkeypatch.setattr(row_names, "LIVE_KEYS_AT_MOST", 1)
    bench, store = planted
    miscounted(store, F, 6, operations=1)
    miscounted(store, A, 2, live_keys=1)
    findings, _ = verified(bench, store)
    named = {(finding.agent_id, finding.commit_ts) for finding in findings}
    assert named >= {(FORK.agent_id, 6), (ALICE.agent_id, None)}
    assert set(kinds(findings)) == {"row-wrong"}


# Histories that do not make sense: the view is as the log has it


def commit_to(store, agent, key, version, counters):
    """Commit a write of a key as this version, whatever the agent had."""
    ts = store.head_ts + 1
    section = prepare_section(agent_prefix(agent), agent_fields(agent), f"t{ts}", [(key, value(20), version)], counters)
    store.commit(GroupCommit(ts, 10**9 + ts, [PreparedCommit(f"t{ts}", (section,))]))


@pytest.mark.parametrize(
    ("key", "version", "live_keys", "says"),
    [
        (b"k", 5, 3, "version 5 of the key follows version 0"),
        (b"k", 2, 2, "had inherited a version 2"),
        (b"only", 3, 3, "version 3 of the key follows version 0"),
        (b"late", 2, 3, "version 2 of the key follows version 0"),
        (b"none", 2, 3, "version 2 of the key follows version 0"),
    ],
)
def test_a_fork_whose_versions_do_not_follow_what_it_inherited(any_bench, key, version, live_keys, says):
    writer = ForkWriter(any_bench.store())
    writer.commit((ALICE, b"k", value(20)), (ALICE, b"only", value(20)))
    writer.commit((ALICE, b"k", value(20)))
    writer.commit((ALICE, b"late", value(20)), (ALICE, b"k", value(20)))
    writer.fork(ALICE, FORK, 2)
    commit_to(writer.store, FORK, key, version, AgentCounters(1, 5, 3, 4, live_keys))
    findings, _ = verified(any_bench, writer.store)
    assert set(kinds(findings)) == {"history-inconsistent"}
    assert [finding for finding in findings if says in finding.message and finding.version == version]
    assert {finding.agent_id for finding in findings} == {FORK.agent_id}


WRONG_NOTES = [
    Inherited(2, 2, 2, 3, 2),
    Inherited(1, 1, 2, 3, 2),
    Inherited(1, 2, 3, 3, 2),
    Inherited(1, 2, 2, 4, 2),
    Inherited(1, 2, 2, 3, 1),
]


@pytest.mark.parametrize("inherited", WRONG_NOTES)
def test_a_fork_that_inherits_other_counters_than_its_parent_had(any_bench, inherited):
    writer = ForkWriter(any_bench.store())
    writer.commit((ALICE, b"k", value(20)), (ALICE, b"only", value(20)))
    writer.commit((ALICE, b"k", value(20)))
    writer.commit(notes=Notes(fork=ForkNote(FORK, ALICE, 2, inherited)))
    findings, _ = verified(any_bench, writer.store)
    assert set(kinds(findings)) == {"history-inconsistent"}
    assert {finding.agent_id for finding in findings} == {FORK.agent_id}
    # A view that is as the parent's rows say, and not as the log's note does, is not the view that the log gives.
    writer.store._view.apply([(keys.meta_key(F), AgentCounters(1, 2, 2, 3, 2).pack())])
    assert not verified(any_bench, writer.store)[1].sound


def test_an_agent_that_was_written_to_before_it_came_to_be_as_a_fork(any_bench):
    writer = ForkWriter(any_bench.store())
    writer.commit((ALICE, b"k", value(20)))
    writer.commit((FORK, b"new", value(20)))
    writer.fork(ALICE, FORK, 1)
    findings, _ = verified(any_bench, writer.store)
    assert set(kinds(findings)) == {"history-inconsistent"}
    assert any("had a commit 2 when it came to be as a fork" in finding.message for finding in findings)


def test_an_agent_that_was_forked_twice(any_bench):
    writer = ForkWriter(any_bench.store())
    writer.commit((ALICE, b"k", value(20)))
    writer.commit((BOB, b"k", value(20)))
    writer.fork(ALICE, FORK)
    writer.fork(BOB, FORK)
    assert "history-inconsistent" in kinds(verified(any_bench, writer.store)[0])


# Sound


def no_second_look(*_, **__):
    raise AssertionError("the sums of a sound store differ, or its rows are suspected")


@pytest.mark.parametrize("seed", range(5))
def test_a_sound_store_with_forks_and_ends_is_sound_at_the_first_look(any_bench, seed, monkeypatch):
    monkeypatch.setattr(verification, "RowNames", no_second_look)
    opened = any_bench.open(snapshot_interval=1)
    writer = ForkWriter(opened.store)
    writer.commit_randomly(random.Random(seed), 60)
    opened.snapshots.write()
    writer.commit_randomly(random.Random(seed + 100), 60)
    for store in (opened.store, None):
        findings, verdict = verified(any_bench, store)
        assert (findings, verdict.sound) == ([], True)
        any_bench.close()


def test_a_chain_of_forks_as_deep_as_may_be_is_sound(any_bench):
    writer = ForkWriter(any_bench.store())
    writer.commit((ALICE, b"k", value(20)), (ALICE, b"only", value(20)))
    parent = ALICE
    for depth in range(FORK_DEPTH):
        child = ALICE._replace(agent_id=f"{depth:02d}")
        writer.fork(parent, child)
        writer.commit((child, b"k", value(20)), *([(child, b"new", value(20))] if depth == 3 else []))
        parent = child
    writer.commit((parent, b"only", None), (parent, b"new", None), (parent, b"none", value(20)))
    assert verified(any_bench, writer.store)[0] == []
    prefix = agent_prefix(parent)
    assert AgentCounters.unpack(dict(rows_of(writer.store))[keys.meta_key(prefix)]).live_keys == 2
    store = writer.store
    store._view.apply([(keys.version_key(A, b"only", 1), None)])
    (finding,), _ = verified(any_bench, store)
    assert_is(finding, "row-missing", ALICE, {"key": "only", "version": 1})
