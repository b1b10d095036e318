"""One agent's version counters: what is pending counts, what failed does not."""

import pytest
from storage.fix_store import ALICE, value

from statehouse.actors.messages import Leg, Prepare, StagedOperation
from statehouse.actors.partition import PartitionMachine
from statehouse.errors import StorageError
from statehouse.storage.commit import AgentCounters
from statehouse.storage.stored_value import inline_value
from statehouse.v1.statehouse_pb2 import ReplayEvent


class Bench:
    """A partition, and the view that it reads."""

    def __init__(self):
        self.rows = {}
        self.counters = AgentCounters()
        self.failing = set()
        self.reads = 0
        self.machine = PartitionMachine(ALICE, stored=self.stored, counters=self.read_counters)

    def stored(self, key):
        self.reads += 1
        if key in self.failing:
            raise StorageError("the view cannot be read")
        return self.rows.get(key)

    def read_counters(self):
        if "counters" in self.failing:
            raise StorageError("the view cannot be read")
        return self.counters

    def prepare(self, *operations, txn_id="t"):
        leg = Leg(ALICE, [StagedOperation(key, content) for key, content in operations])
        return self.machine.prepare(Prepare(txn_id, leg, hold=False))

    def apply(self, section, commit_ts):
        """What the view has once the section is durable."""
        event = ReplayEvent.FromString(section.body)
        for operation in event.operations:
            content = operation.value.SerializeToString() if operation.HasField("value") else None
            self.rows[operation.key.encode()] = inline_value(content, operation.version, commit_ts)
        self.counters = section.counters.at(section.counters.first_commit_ts or commit_ts, commit_ts)
        self.machine.durable(section, commit_ts)


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
