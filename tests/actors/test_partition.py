"""One agent's version counters: what is pending counts, what failed does not."""

from itertools import count

import pytest
from actors.fix_engine import agent_reads
from storage.fix_store import ALICE, BOB, value

from statehouse.actors.messages import (
    AgentEnd,
    Check,
    ExistsIs,
    Findings,
    ForkOf,
    Leg,
    Prepare,
    StagedOperation,
    Transaction,
)
from statehouse.actors.partition import UNSETTLED, PartitionMachine
from statehouse.errors import AgentDeletedError, AgentExistsError, StorageError
from statehouse.storage.commit import AgentCounters
from statehouse.storage.stored_value import expiring, inline_value
from statehouse.v1.statehouse_pb2 import ReplayEvent


class Bench:
    """A partition, and the view that it reads."""

    def __init__(self):
        self.rows = {}
        self.counters = AgentCounters()
        self.failing = set()
        self.reads = 0
        self.ended_ts = 0
        self.end_reads = 0
        reads = agent_reads(stored=self.stored, counters=self.read_counters, ended_ts=self.read_end)
        self.machine = PartitionMachine(ALICE, reads, now_ns=lambda: 0, window_ns=1)

    def stored(self, _levels, key):
        self.reads += 1
        if key in self.failing:
            raise StorageError("the view cannot be read")
        return self.rows.get(key)

    def read_counters(self):
        if "counters" in self.failing:
            raise StorageError("the view cannot be read")
        return self.counters

    def read_end(self):
        self.end_reads += 1
        return self.ended_ts

    def prepare(self, *operations, txn_id="t", revive=False):
        leg = Leg(ALICE, [StagedOperation(key, content) for key, content in operations])
        assert self.machine.examine(Prepare(txn_id, leg, hold=False, revive=revive)) is None
        return self.machine.assign(Transaction(txn_id, [leg]), leg)

    def apply(self, section, commit_ts):
        """What the view has once the section is durable."""
        event = ReplayEvent.FromString(section.body)
        for operation in event.operations:
            content = operation.value.SerializeToString() if operation.HasField("value") else None
            self.rows[operation.key.encode()] = inline_value(content, operation.version, commit_ts)
        self.counters = section.counters.at(section.counters.first_commit_ts or commit_ts, commit_ts)
        self.machine.durable(section, commit_ts, None)


def versions(section):
    return [(operation.key, operation.version) for operation in section.operations]


@pytest.fixture
def bench():
    return Bench()


V = value(20)


def test_versions_begin_at_one_and_go_on_from_the_view(bench):
    assert versions(bench.prepare((b"new", V))) == [(b"new", 1)]
    bench.rows[b"old"] = inline_value(V, 41, 7)
    bench.rows[b"gone"] = inline_value(None, 9, 7)
    assert versions(bench.prepare((b"old", V), (b"gone", V))) == [(b"old", 42), (b"gone", 10)]


def test_two_writes_to_a_key_in_one_transaction_are_two_versions_in_order(bench):
    section = bench.prepare((b"k", V), (b"l", V), (b"k", None), (b"k", V))
    assert versions(section) == [(b"k", 1), (b"l", 1), (b"k", 2), (b"k", 3)]
    assert bench.reads == 2  # once for a key


def test_what_is_pending_counts_before_what_is_stored(bench):
    first = bench.prepare((b"k", V))
    second = bench.prepare((b"k", None))
    assert versions(second) == [(b"k", 2)]
    bench.apply(first, 1)
    third = bench.prepare((b"k", V))
    assert versions(third) == [(b"k", 3)]
    bench.apply(second, 2)
    bench.apply(third, 3)
    assert bench.machine.pending_commits == 0
    reads = bench.reads
    assert versions(bench.prepare((b"k", V))) == [(b"k", 4)]
    assert bench.reads > reads  # of the view again: nothing durable is kept in memory


def test_what_was_pending_when_it_was_examined_may_be_durable_when_versions_are_assigned(bench):
    before = bench.prepare((b"k", V))
    leg = Leg(ALICE, [StagedOperation(b"k", V), StagedOperation(b"k", None)])
    assert bench.machine.examine(Prepare("t", leg, hold=True)) is None
    bench.apply(before, 1)
    assert versions(bench.machine.assign(Transaction("t", [leg]), leg)) == [(b"k", 2), (b"k", 3)]


def test_after_a_failure_the_counters_are_those_of_the_view(bench):
    bench.apply(bench.prepare((b"k", V)), 1)
    bench.prepare((b"k", V), (b"new", V))
    bench.prepare((b"k", V))
    bench.machine.forget_pending()
    assert bench.machine.pending_commits == 0
    section = bench.prepare((b"k", V), (b"new", V))
    assert versions(section) == [(b"k", 2), (b"new", 1)]
    assert section.counters == AgentCounters(1, 1, commits=2, operations=3, live_keys=2)


def test_live_keys_are_counted_over_deletes_and_returns(bench):
    def live(*operations):
        section = bench.prepare(*operations)
        bench.apply(section, section.counters.commits)
        return section.counters.live_keys

    assert live((b"a", V), (b"b", V)) == 2
    assert live((b"a", V)) == 2
    assert live((b"a", None), (b"a", None), (b"never", None)) == 1
    assert live((b"a", V), (b"b", None), (b"c", V), (b"c", None)) == 1
    assert bench.counters.operations == 10


def test_an_agents_first_commit_is_known_once_it_is_durable(bench):
    first, second = bench.prepare((b"k", V)), bench.prepare((b"k", V))
    assert (first.counters.first_commit_ts, second.counters.first_commit_ts) == (0, 0)
    bench.apply(first, 17)
    assert bench.prepare((b"k", V)).counters.first_commit_ts == 17


@pytest.mark.parametrize("failing", [b"a", b"b", "counters"])
def test_a_read_that_fails_counts_nothing(bench, failing):
    bench.failing = {failing}
    with pytest.raises(StorageError):
        bench.prepare((b"a", V), (b"a", V), (b"b", V))
    assert bench.machine.pending_commits == 0
    bench.failing = set()
    section = bench.prepare((b"a", V), (b"b", V))
    assert versions(section) == [(b"a", 1), (b"b", 1)]
    assert section.counters == AgentCounters(commits=1, operations=2, live_keys=2)


def test_forgetting_reads_nothing(bench):
    bench.prepare((b"k", V))
    bench.failing = {b"k", "counters"}
    bench.machine.forget_pending()
    bench.failing = set()
    assert versions(bench.prepare((b"k", V))) == [(b"k", 1)]


def test_a_section_is_a_replay_event_without_its_stamp(bench):
    event = ReplayEvent.FromString(bench.prepare((b"k", V), (b"k", None), txn_id="t9").body)
    assert (event.txn_id, event.namespace, event.agent_id, event.commit_ts) == ("t9", *ALICE, 0)
    assert [(op.key, op.HasField("value"), op.version) for op in event.operations] == [("k", True, 1), ("k", False, 2)]


# An agent's end


def examined_alone(machine, exclusive):
    return machine.examine(Prepare("t", Leg(ALICE, exclusive=exclusive), hold=True))


def test_an_agent_is_deleted_while_its_newest_end_is_no_older_than_its_last_commit(bench):
    bench.counters = AgentCounters(3, 7, 2, 2, 1)
    for ended_ts, last_ts in ((7, 7), (9, 7)):
        bench.machine.begin_again()
        bench.ended_ts, bench.counters = ended_ts, AgentCounters(3, last_ts, 2, 2, 1)
        with pytest.raises(AgentDeletedError) as caught:
            bench.prepare((b"k", V))
        assert caught.value.details == {"commit_ts": str(ended_ts)}
    bench.machine.begin_again()
    bench.ended_ts, bench.counters = 6, AgentCounters(3, 7, 2, 2, 1)
    bench.prepare((b"k", V))


def test_what_is_pending_brings_it_back_and_what_failed_does_not(bench):
    bench.ended_ts, bench.counters = 7, AgentCounters(3, 7, 2, 2, 0)
    bench.prepare((b"k", V), revive=True)
    bench.prepare((b"k", V))
    bench.machine.forget_pending()
    with pytest.raises(AgentDeletedError):
        bench.prepare((b"k", V))
    bench.apply(bench.prepare((b"k", V), revive=True), 8)
    bench.prepare((b"k", V))


def test_the_row_of_an_end_is_read_once_and_only_of_an_agent_that_was_written_to(bench):
    bench.apply(bench.prepare((b"k", V)), 1)
    assert bench.end_reads == 0
    for commit_ts in (2, 3, 4):
        bench.apply(bench.prepare((b"k", V)), commit_ts)
    assert bench.end_reads == 1
    bench.machine.begin_again()
    bench.prepare((b"k", V))
    assert bench.end_reads == 2


@pytest.mark.parametrize("exclusive", [AgentEnd(), ForkOf(BOB, None)], ids=["an end", "a fork"])
def test_beside_a_fork_or_an_end_nothing_may_be_pending(bench, exclusive):
    pending = bench.prepare((b"k", V))
    assert examined_alone(bench.machine, exclusive) is UNSETTLED
    bench.apply(pending, 1)
    if isinstance(exclusive, ForkOf):
        with pytest.raises(AgentExistsError):
            examined_alone(bench.machine, exclusive)
    else:
        assert examined_alone(bench.machine, exclusive) == Findings(ending=bench.counters)


@pytest.mark.parametrize("expires_at_ns", range(1, 5))
def test_conditions_that_contradict_each_other_never_both_hold_while_a_value_expires(expires_at_ns):
    row = expiring(inline_value(V, 1, 1), expires_at_ns)
    reads = agent_reads(stored=lambda levels, key: row)
    machine = PartitionMachine(ALICE, reads, now_ns=count().__next__, window_ns=1)
    checks = [Check(place, ALICE, ExistsIs(b"k", exists=place % 2 == 0)) for place in range(4)]
    findings = machine.examine(Prepare("t", Leg(ALICE, checks=checks), hold=False))
    assert len(findings.failed) == 2
    assert len({failed.exists for failed in findings.failed}) == 1
