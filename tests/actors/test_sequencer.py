"""Order, time, and what becomes of whom when a group fails."""

import pytest
import trio
import trio.testing
from attrs import define, field

from statehouse.actors import sequencer as module
from statehouse.actors.sequencer import Sequencer, SequencerMachine
from statehouse.errors import (
    DiskFullError,
    LogPoisonedError,
    OverloadedError,
    StatehouseError,
    StorageError,
    UnavailableError,
)
from statehouse.storage.commit import empty_commit


@define
class Bench:
    """A sequencer over a store that keeps what it is given, on threads that can be held."""

    threads: object
    now_ns: int = 1_000
    groups: list = field(factory=list)
    errors: list = field(factory=list)
    forgotten: int = 0
    told: list = field(factory=list)
    sequencer: Sequencer = None

    def __attrs_post_init__(self):
        self.sequencer = Sequencer(
            SequencerMachine(10, 500),
            commit_group=self.commit_group,
            forget_pending=self.forget,
            committed=lambda _: self.told.append("committed"),
            now_ns=lambda: self.now_ns,
        )

    def commit_group(self, group):
        if self.errors:
            raise self.errors.pop(0)
        group.payloads()
        self.groups.append((group.first_commit_ts, group.last_commit_ts, group.committed_at_ns))

    def forget(self, error):
        assert isinstance(error, StatehouseError)
        self.forgotten += 1
        self.told.append("forgotten")

    def commit(self, txn_id="t"):
        reply = self.sequencer.commit(empty_commit(txn_id))
        reply.then(lambda settled: self.told.append(settled.error or settled.result()))
        return reply

    async def in_the_disks_hands(self, count=1):
        """So many commits as one group, begun and held."""
        self.threads.hold()
        replies = [self.commit() for _ in range(count)]
        await trio.testing.wait_all_tasks_blocked()
        assert self.threads.waiting == 1
        return replies

    async def done(self):
        self.threads.release()
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def bench(inline_threads, nursery):
    bench = Bench(inline_threads)
    nursery.start_soon(bench.sequencer.run)
    yield bench
    inline_threads.release()


async def test_what_comes_while_the_disk_works_is_the_next_group(bench):
    first = await bench.in_the_disks_hands()
    rest = [bench.commit() for _ in range(5)]
    await bench.done()
    assert [reply.result() for reply in (*first, *rest)] == [11, 12, 13, 14, 15, 16]
    assert [group[:2] for group in bench.groups] == [(11, 11), (12, 16)]
    assert bench.told.count("committed") == 2


async def test_a_group_has_so_many_commits(bench, monkeypatch):
    monkeypatch.setattr(module, "GROUP_COMMITS", 3)
    replies = [bench.commit() for _ in range(7)]
    await bench.done()
    assert [group[:2] for group in bench.groups] == [(11, 13), (14, 16), (17, 17)]
    assert [reply.result() for reply in replies] == list(range(11, 18))


async def test_a_group_has_about_so_many_bytes_and_at_least_one_commit(bench, monkeypatch):
    monkeypatch.setattr(module, "GROUP_BYTES", 1)
    for _ in range(3):
        bench.commit()
    await bench.done()
    assert [group[:2] for group in bench.groups] == [(11, 11), (12, 12), (13, 13)]


async def test_the_time_of_a_commit_is_never_before_the_last(bench):
    for now_ns in (2_000, 1_500, 0, 2_001):
        bench.now_ns = now_ns
        bench.commit()
        await bench.done()
    assert [group[2] for group in bench.groups] == [2_000, 2_000, 2_000, 2_001]


def test_the_first_time_is_not_before_what_recovery_found():
    assert SequencerMachine(10, 500).order([empty_commit("t")], 1).committed_at_ns == 500


async def test_a_barrier_is_settled_when_all_before_it_is_durable(bench):
    [first] = await bench.in_the_disks_hands()
    second = bench.commit()
    barrier = bench.sequencer.barrier()
    barrier.then(lambda _: bench.told.append("barrier"))
    third = bench.commit()
    await bench.done()
    assert [first.result(), second.result(), third.result()] == [11, 12, 13]
    told = [word for word in bench.told if word != "committed"]
    assert told.index("barrier") == 2
    assert (await bench.sequencer.barrier().wait()) is None


async def test_a_barrier_holds_back_no_commit_when_it_comes_first(bench):
    bench.threads.hold()
    barriers = [bench.sequencer.barrier(), bench.sequencer.barrier()]
    reply = bench.commit()
    await bench.done()
    assert all(barrier.settled for barrier in barriers)
    assert reply.result() == 11


@pytest.mark.parametrize("error", [DiskFullError("full"), StorageError("broken")])
async def test_a_failed_group_takes_all_behind_it_along_and_uses_no_commit_ts(bench, error):
    bench.errors = [error]
    failed = await bench.in_the_disks_hands(2)
    behind = [bench.commit() for _ in range(3)]
    barrier = bench.sequencer.barrier()
    await bench.done()
    for reply in (*failed, *behind):
        assert reply.error is error
    assert barrier.result() is None
    assert bench.told[0] == "forgotten"  # before anybody hears of it
    assert bench.forgotten == 1
    assert bench.sequencer.refusal is None
    again = bench.commit()
    await bench.done()
    assert again.result() == 11
    assert bench.groups == [(11, 11, 1_000)]


async def test_who_commits_again_in_the_turn_of_the_failure_is_not_failed_with_it(bench):
    bench.errors = [DiskFullError("full")]
    [failed] = await bench.in_the_disks_hands()
    behind = bench.sequencer.commit(empty_commit("behind"))
    again = []
    behind.then(lambda _: again.append(bench.commit("again")))
    await bench.done()
    assert isinstance(failed.error, DiskFullError)
    assert again[0].result() == 11


async def test_a_poisoned_log_leaves_the_groups_outcome_unknown_and_nobody_elses(bench):
    bench.errors = [LogPoisonedError("sync failed")]
    failed = await bench.in_the_disks_hands(2)
    behind = [bench.commit(), bench.commit()]
    barrier = bench.sequencer.barrier()
    await bench.done()
    for reply in failed:
        assert isinstance(reply.error, LogPoisonedError)
        assert reply.error.outcome_unknown
    for reply in behind:
        assert isinstance(reply.error, LogPoisonedError)
        assert not reply.error.outcome_unknown
    assert barrier.settled
    assert isinstance(bench.sequencer.refusal, LogPoisonedError)
    with pytest.raises(LogPoisonedError, match="read-only") as caught:
        bench.commit()
    assert not caught.value.outcome_unknown
    assert (await bench.sequencer.barrier().wait()) is None
    assert bench.groups == []


async def test_refusing_again_and_again_keeps_nothing(bench):
    bench.errors = [LogPoisonedError("sync failed")]
    await bench.in_the_disks_hands()
    await bench.done()
    refusals = []
    for _ in range(3):
        with pytest.raises(LogPoisonedError) as caught:
            bench.commit()
        refusals.append(caught.value)
    assert len({id(refusal) for refusal in refusals}) == 3
    assert bench.sequencer.refusal.__traceback__ is None


async def test_a_full_line_refuses_and_barriers_find_room(inline_threads, monkeypatch):
    monkeypatch.setattr(module, "SEQUENCER_MAILBOX_MESSAGES", 2)
    bench = Bench(inline_threads)
    replies = [bench.commit(), bench.commit()]
    with pytest.raises(OverloadedError):
        bench.commit()
    barrier = bench.sequencer.barrier()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sequencer.run)
        await bench.done()
        nursery.cancel_scope.cancel()
    assert [reply.result() for reply in replies] == [11, 12]
    assert barrier.settled


async def test_cancelling_a_caller_does_not_undo_its_commit(bench):
    bench.threads.hold()
    reply = bench.sequencer.commit(empty_commit("t"))
    with trio.move_on_after(0) as scope:
        await reply.wait()
    assert scope.cancelled_caught
    await bench.done()
    assert reply.result() == 11
    assert bench.groups == [(11, 11, 1_000)]


async def test_a_sequencer_that_is_cancelled_finishes_what_is_in_the_disks_hands(inline_threads):
    bench = Bench(inline_threads)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sequencer.run)
        [begun] = await bench.in_the_disks_hands()
        waiting = bench.commit()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert not begun.settled
            inline_threads.release()
    assert begun.result() == 11
    with pytest.raises(UnavailableError):
        waiting.result()
    with pytest.raises(UnavailableError):
        bench.commit()


async def test_a_bug_in_a_commit_stops_the_sequencer_and_leaves_the_outcome_unknown(inline_threads):
    bench = Bench(inline_threads)
    bench.errors = [KeyError("bug")]
    replies = [bench.commit()]
    with pytest.RaisesGroup(KeyError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.sequencer.run)
    assert replies[0].error.outcome_unknown
    with pytest.raises(UnavailableError):
        bench.commit()
