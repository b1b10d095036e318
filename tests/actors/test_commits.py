"""From transactions to the sequencer's line: all partitions or none, room for those that are resident, and crashes."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from actors.fix_engine import agent_reads
from attrs import define, field
from storage.fix_store import ALICE, BOB, CAROL, value

from statehouse.actors import partitions
from statehouse.actors.commits import carry_out
from statehouse.actors.messages import Leg, StagedOperation, Transaction
from statehouse.actors.partition import PartitionMachine
from statehouse.actors.partitions import Partitions
from statehouse.actors.reply import Reply
from statehouse.actors.supervisor import Supervisor
from statehouse.errors import (
    DiskFullError,
    InternalError,
    InvalidRequestError,
    LogPoisonedError,
    OverloadedError,
    StorageError,
    UnavailableError,
)
from statehouse.limits import PARTITION_IDLE_S, PARTITION_RESTART_S
from statehouse.storage.keys import agent_prefix
from statehouse.storage.stored_value import inline_value
from statehouse.types import AgentId

V = value(20)


def no_ends(_ending):
    raise AssertionError("no agent ends here")


def no_forks(_txn_id, _unread):
    raise AssertionError("no agent has inherited anything here")


AGENTS = [AgentId("default", f"agent-{number}") for number in range(20)]
AGENT_OF = {agent_prefix(agent): agent for agent in (ALICE, BOB, CAROL, *AGENTS)}


@define
class Bench:
    """Partitions over a view of versions, and a line in place of the sequencer, which the test moves on."""

    max_resident: int = 100
    stored: dict = field(factory=dict)
    """(agent, key) -> version"""
    line: list = field(factory=list)
    """(prepared commit, reply) or a barrier's reply"""
    refusal: Exception | None = None
    crash_on: set = field(factory=set)
    unreadable: set = field(factory=set)
    supervisor: Supervisor = field(factory=Supervisor)
    partitions: Partitions = None
    head_ts: int = 0

    def __attrs_post_init__(self):
        self.partitions = Partitions(
            self.machine, self.barrier, no_forks, self.supervisor, max_resident=self.max_resident
        )

    def machine(self, agent):
        def stored(_levels, key):
            if agent in self.crash_on:
                raise KeyError("a bug")
            if agent in self.unreadable:
                raise StorageError("the view cannot be read at the moment")
            version = self.stored.get((agent, key), 0)
            return inline_value(V, version, 1) if version else None

        reads = agent_reads(stored=stored)
        return PartitionMachine(agent, reads, now_ns=lambda: 0, window_ns=1)

    def barrier(self):
        reply = Reply()
        if self.line:
            self.line.append(reply)
        else:
            reply.succeed(None)
        return reply

    def sequence(self, prepared):
        if self.refusal is not None:
            raise self.refusal
        reply = Reply()
        self.line.append((prepared, reply))
        return reply

    def submit(self, *agents, key=b"k", txn_id="t"):
        legs = [Leg(agent, [StagedOperation(key, V)]) for agent in sorted(agents)]
        commit_ts = Reply()

        def pass_on(outcome):
            if outcome.error is None:
                commit_ts.succeed(outcome.result().commit_ts)
            else:
                commit_ts.fail(outcome.error)

        transaction = Transaction(txn_id, legs)
        carry_out(transaction, self.partitions, self.sequence, lambda agent, commit_ts: None, no_ends).then(pass_on)
        return commit_ts

    def settle(self):
        """The oldest in line becomes durable; its versions, by agent."""
        while isinstance(self.line[0], Reply):
            self.line.pop(0).succeed(None)
        prepared, reply = self.line.pop(0)
        self.head_ts += 1
        found = {}
        for section in prepared.sections:
            agent = AGENT_OF.get(section.column_prefix)
            for operation in section.operations:
                self.stored[agent, operation.key] = operation.version
                found[agent] = operation.version
        reply.succeed(self.head_ts)
        while self.line and isinstance(self.line[0], Reply):
            self.line.pop(0).succeed(None)
        return found

    def fail(self, error):
        """As the sequencer does when a group fails: everything in line fails."""
        line, self.line = self.line, []
        self.partitions.forget_pending(error)
        for waiting in line:
            if isinstance(waiting, Reply):
                waiting.succeed(None)
            else:
                waiting[1].fail(error)

    @asynccontextmanager
    async def serving(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.supervisor.run)
            async with self.partitions.serving():
                yield
            nursery.cancel_scope.cancel()


@pytest.fixture
async def bench():
    bench = Bench()
    async with bench.serving():
        yield bench


blocked = trio.testing.wait_all_tasks_blocked


# One agent


async def test_commits_of_one_agent_count_on_from_each_other(bench):
    outcomes = [bench.submit(ALICE) for _ in range(3)]
    assert [bench.settle() for _ in range(3)] == [{ALICE: 1}, {ALICE: 2}, {ALICE: 3}]
    assert [outcome.result() for outcome in outcomes] == [1, 2, 3]


async def test_a_transaction_without_operations_needs_no_partition(bench):
    outcome = bench.submit()
    assert len(bench.partitions) == 0
    assert bench.settle() == {}
    assert outcome.result() == 1


@pytest.mark.parametrize("agents", [(), (ALICE,), (ALICE, BOB)])
async def test_a_refused_transaction_has_an_outcome_and_leaves_nothing(bench, agents):
    bench.refusal = OverloadedError("the line is full")
    assert bench.submit(*agents).error is bench.refusal
    bench.refusal = None
    outcome = bench.submit(*agents)
    await blocked()
    assert bench.settle() == dict.fromkeys(agents, 1)
    assert outcome.result() == 1


async def test_after_a_refusal_commits_go_on_from_those_in_line(bench):
    first = bench.submit(ALICE)
    bench.refusal = OverloadedError("the line is full")
    assert isinstance(bench.submit(ALICE).error, OverloadedError)
    bench.refusal = None
    third = bench.submit(ALICE)
    await blocked()
    assert not third.settled  # its partition waits for what is in line
    assert bench.settle() == {ALICE: 1}
    await blocked()
    assert bench.settle() == {ALICE: 2}
    assert (first.result(), third.result()) == (1, 2)


async def test_a_failed_append_fails_everything_pending_and_the_next_counts_right(bench):
    bench.submit(ALICE)
    bench.settle()
    failing = [bench.submit(ALICE), bench.submit(ALICE, BOB), bench.submit(BOB)]
    error = DiskFullError("full")
    bench.fail(error)
    assert [outcome.error for outcome in failing] == [error] * 3
    bench.submit(ALICE, BOB)
    assert bench.settle() == {ALICE: 2, BOB: 1}


async def test_a_partition_that_cannot_read_fails_its_commit_alone(bench):
    first = bench.submit(ALICE)
    bench.unreadable = {ALICE}
    failed = bench.submit(ALICE, key=b"other")
    assert isinstance(failed.error, StorageError)
    bench.unreadable = set()
    bench.submit(ALICE, key=b"other")
    assert (bench.settle(), bench.settle()) == ({ALICE: 1}, {ALICE: 1})
    assert first.result() == 1


# Several agents


async def test_several_agents_are_one_record(bench):
    outcome = bench.submit(CAROL, ALICE, BOB)
    assert len(bench.line) == 1
    assert bench.settle() == {ALICE: 1, BOB: 1, CAROL: 1}
    assert outcome.result() == 1


async def test_a_busy_partition_makes_the_transaction_wait_holding_those_before_it(bench):
    bench.partitions.of(BOB).pause()
    both = bench.submit(ALICE, BOB)
    behind = bench.submit(ALICE)
    free = bench.submit(CAROL)
    await blocked()
    assert len(bench.line) == 1  # Carol's
    assert bench.settle() == {CAROL: 1}
    bench.partitions.of(BOB).restart()
    await blocked()
    assert [bench.settle(), bench.settle()] == [{ALICE: 1, BOB: 1}, {ALICE: 2}]
    assert [both.settled, behind.settled, free.settled] == [True] * 3


@pytest.mark.parametrize(
    "error",
    [DiskFullError("full"), StorageError("broken"), LogPoisonedError("poisoned", outcome_unknown=True)],
    ids=lambda error: type(error).__name__,
)
async def test_a_failure_while_a_transaction_waits_fails_it_likewise_and_it_counts_nothing(bench, error):
    bench.submit(ALICE)
    bench.partitions.of(BOB).pause()
    both = bench.submit(ALICE, BOB)  # counts on Alice's version 1
    bench.fail(error)
    bench.partitions.of(BOB).restart()
    await blocked()
    assert type(both.error) is type(error)
    assert both.error.message == f"a commit before this one failed, and nothing of this one was done: {error.message}"
    assert not getattr(both.error, "outcome_unknown", False)
    assert bench.line == []
    bench.submit(ALICE, BOB)
    await blocked()
    assert bench.settle() == {ALICE: 1, BOB: 1}


async def test_a_transaction_that_cannot_have_its_last_partition_gives_the_others_back(bench):
    bench.unreadable = {CAROL}
    failed = bench.submit(ALICE, BOB, CAROL)
    assert isinstance(failed.error, StorageError)
    bench.unreadable = set()
    outcomes = [bench.submit(ALICE), bench.submit(BOB), bench.submit(CAROL)]
    await blocked()
    while bench.line:
        bench.settle()
        await blocked()
    assert bench.stored == {(agent, b"k"): 1 for agent in (ALICE, BOB, CAROL)}
    assert all(outcome.settled for outcome in outcomes)


# Crashes


async def test_a_crash_is_an_internal_error_and_the_partition_begins_again(bench):
    first = bench.submit(ALICE)
    bench.crash_on = {ALICE}
    crashed = bench.submit(ALICE, key=b"other")
    bench.crash_on = set()
    with pytest.raises(InternalError, match=r"^internal error [0-9a-f]{16}$"):
        crashed.result()
    later = bench.submit(ALICE)
    await blocked()
    assert not later.settled
    assert bench.settle() == {ALICE: 1}
    await blocked()
    assert bench.settle() == {ALICE: 2}
    assert (first.result(), later.result()) == (1, 2)


async def test_a_crash_of_one_partition_of_several_leaves_nothing_in_the_others(bench):
    bench.crash_on = {BOB}
    crashed = bench.submit(ALICE, BOB, CAROL)
    bench.crash_on = set()
    assert isinstance(crashed.error, InternalError)
    bench.submit(ALICE, BOB, CAROL)
    await blocked()
    assert bench.settle() == {ALICE: 1, BOB: 1, CAROL: 1}


async def test_a_crash_while_versions_are_assigned_settles_the_commit_and_leaves_nothing(bench, monkeypatch):
    def crash(_machine, _transaction, leg):
        if leg.agent == BOB:
            raise KeyError("a bug")
        return assign(_machine, _transaction, leg)

    assign = PartitionMachine.assign
    with monkeypatch.context() as patch:
        patch.setattr(PartitionMachine, "assign", crash)
        crashed = bench.submit(ALICE, BOB, CAROL)
    assert isinstance(crashed.error, InternalError)
    bench.submit(ALICE, BOB, CAROL)
    await blocked()
    assert bench.settle() == {ALICE: 1, BOB: 1, CAROL: 1}


async def test_a_second_crash_after_a_while_is_another_restart(autojump_clock):
    bench = Bench()
    async with bench.serving():
        for _ in range(3):
            bench.crash_on = {ALICE}
            assert isinstance(bench.submit(ALICE, key=b"other").error, InternalError)
            bench.crash_on = set()
            await trio.sleep(PARTITION_RESTART_S)
        bench.submit(ALICE)
        assert bench.settle() == {ALICE: 1}


async def test_a_second_crash_soon_stops_everything_and_nothing_more_is_counted(autojump_clock):
    bench = Bench()
    after = []

    async def crash_twice():
        async with bench.serving():
            bench.crash_on = {ALICE}
            bench.submit(ALICE)
            await trio.sleep(PARTITION_RESTART_S - 1)
            bench.submit(ALICE)
            bench.crash_on = set()
            after.append(bench.submit(ALICE))
            await trio.sleep_forever()

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        await crash_twice()
    assert bench.line == []
    with pytest.raises(UnavailableError):
        after[0].result()


# Who is resident


async def test_the_least_recently_used_idle_partition_makes_room():
    bench = Bench(max_resident=2)
    async with bench.serving():
        for agent in AGENTS:
            bench.submit(agent)
            bench.settle()
            assert len(bench.partitions) <= 2
        bench.submit(AGENTS[0])
        assert bench.settle() == {AGENTS[0]: 2}


async def test_partitions_with_commits_pending_stay_beyond_the_limit_until_they_are_idle():
    bench = Bench(max_resident=2)
    async with bench.serving():
        for agent in (ALICE, BOB, CAROL):
            bench.submit(agent)
        assert len(bench.partitions) == 3
        assert [bench.settle() for _ in range(3)] == [{ALICE: 1}, {BOB: 1}, {CAROL: 1}]
        bench.submit(AGENTS[0])
        assert len(bench.partitions) == 2


async def test_a_commit_is_refused_when_far_too_many_partitions_have_work(monkeypatch):
    monkeypatch.setattr(partitions, "BUSY_PARTITIONS", 1)
    bench = Bench(max_resident=2)
    async with bench.serving():
        for agent in (ALICE, BOB, CAROL):
            bench.submit(agent)
        refused = bench.submit(AGENTS[0])
        with pytest.raises(OverloadedError, match="3 partitions have commits under way") as caught:
            refused.result()
        assert caught.value.details == {"limit": "3", "size": "4"}
        assert [bench.settle() for _ in range(3)] == [{ALICE: 1}, {BOB: 1}, {CAROL: 1}]
        bench.submit(AGENTS[0])
        assert bench.settle() == {AGENTS[0]: 1}


async def test_a_transaction_over_more_agents_than_can_ever_be_resident_is_invalid(monkeypatch):
    monkeypatch.setattr(partitions, "BUSY_PARTITIONS", 1)
    bench = Bench(max_resident=1)
    async with bench.serving():
        with pytest.raises(InvalidRequestError, match="3 agents, the limit is 2") as caught:
            bench.submit(ALICE, BOB, CAROL).result()
        assert caught.value.details == {"limit": "2", "size": "3"}
        assert len(bench.partitions) == 0
        bench.submit(ALICE, BOB)
        assert bench.settle() == {ALICE: 1, BOB: 1}


async def test_a_transaction_that_finds_no_room_for_its_last_agent_gives_the_first_back(monkeypatch):
    monkeypatch.setattr(partitions, "BUSY_PARTITIONS", 1)
    bench = Bench(max_resident=1)
    async with bench.serving():
        pending = bench.submit(CAROL)
        failed = bench.submit(ALICE, BOB)
        assert isinstance(failed.error, OverloadedError)
        bench.settle()
        assert pending.settled
        await blocked()
        bench.submit(ALICE, BOB)
        assert bench.settle() == {ALICE: 1, BOB: 1}


async def test_idle_partitions_are_passivated_and_busy_ones_are_not(autojump_clock):
    bench = Bench()
    async with bench.serving():
        bench.submit(ALICE)
        bench.submit(BOB)
        bench.settle()
        await trio.sleep(PARTITION_IDLE_S + 1)  # the first sweep: both were used since the start
        assert len(bench.partitions) == 2
        await trio.sleep(PARTITION_IDLE_S)
        assert len(bench.partitions) == 1  # Bob has a commit pending
        bench.settle()
        await trio.sleep(PARTITION_IDLE_S)
        assert len(bench.partitions) == 0
        bench.submit(BOB)
        assert bench.settle() == {BOB: 2}


async def test_stopping_fails_what_waits_and_has_not_happened():
    bench = Bench()
    async with bench.serving():
        bench.partitions.of(BOB).pause()
        waiting = [bench.submit(BOB), bench.submit(ALICE, BOB)]
    for outcome in waiting:
        with pytest.raises(UnavailableError):
            outcome.result()
    assert bench.line == []
    with pytest.raises(UnavailableError):
        bench.submit(ALICE).result()
