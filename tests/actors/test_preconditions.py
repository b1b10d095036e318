"""Commits under conditions: all that failed are told, and nothing that is not durable."""

import pytest
import trio
import trio.testing
from actors.fix_engine import commit, events, stage, state
from storage.fix_store import ALICE, BOB, CAROL, value

from statehouse.actors.messages import (
    AgentAt,
    Check,
    ExistsIs,
    LeaseIs,
    StagedOperation,
    TransactArguments,
    VersionIs,
)
from statehouse.errors import ConflictError, DiskFullError, FailedPrecondition, TransactionError, UnavailableError

V = value(20)
W = value(30)


def checks(*conditions):
    return tuple(Check(place, agent, condition) for place, (agent, condition) in enumerate(conditions))


def writes(*operations, conditions=(), **more):
    staged = tuple((agent, StagedOperation(key.encode(), content)) for agent, key, content in operations)
    return TransactArguments(staged, checks(*conditions), **more)


async def refused(engine, *conditions, operations=((ALICE, "k", V),)):
    """The conditions that did not hold, as they were told."""
    with pytest.raises(ConflictError) as caught:
        await engine.transact(writes(*operations, conditions=conditions)).wait()
    return list(caught.value.failed)


async def test_a_commit_is_done_when_all_of_its_conditions_hold(any_engine_bench):
    async with any_engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V), (ALICE, "gone", V), (ALICE, "gone", None))
        conditions = [
            (ALICE, VersionIs(b"k", 1)),
            (ALICE, VersionIs(b"gone", 2)),
            (ALICE, VersionIs(b"never", 0)),
            (ALICE, ExistsIs(b"k", exists=True)),
            (ALICE, ExistsIs(b"gone", exists=False)),
            (ALICE, ExistsIs(b"never", exists=False)),
            (ALICE, AgentAt(1)),
            (BOB, AgentAt(0)),
        ]
        done = await engine.transact(writes((ALICE, "k", W), conditions=conditions)).wait()
        assert (done.commit_ts, done.versions, done.deduplicated) == (2, (2,), False)
        txn_id = await stage(engine, (ALICE, "k", V))
        assert await engine.commit(txn_id, checks((ALICE, VersionIs(b"k", 2)), (ALICE, AgentAt(2)))).wait() == 3


async def test_every_condition_that_failed_is_told_in_order_with_what_was_found(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V), (BOB, "k", V), (BOB, "k", None))
        failed = await refused(
            engine,
            (BOB, VersionIs(b"k", 1)),
            (ALICE, VersionIs(b"k", 1)),
            (ALICE, ExistsIs(b"k", exists=False)),
            (CAROL, VersionIs(b"k", 1)),
            (BOB, AgentAt(7)),
            (ALICE, LeaseIs(1)),
        )
        assert failed == [
            FailedPrecondition(index=0, version=2, exists=False),
            FailedPrecondition(index=2, version=1, exists=True),
            FailedPrecondition(index=3, version=0, exists=False),
            FailedPrecondition(index=4, agent_commit_ts=1),
            FailedPrecondition(index=5, lease_epoch=0, lease_held=False),
        ]
        assert state(engine) == (1, 1, V)
        assert engine.head_ts == 1


async def test_conditions_may_contradict_and_repeat_each_other(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        same = (ALICE, VersionIs(b"k", 1))
        failed = await refused(engine, same, (ALICE, VersionIs(b"k", 2)), (ALICE, ExistsIs(b"k", exists=False)), same)
        assert [condition.index for condition in failed] == [1, 2]
        wrong = (ALICE, VersionIs(b"k", 9))
        assert [condition.index for condition in await refused(engine, wrong, same, wrong)] == [0, 2]
        assert (await engine.transact(writes((ALICE, "k", W), conditions=[same, same])).wait()).versions == (2,)


async def test_a_condition_on_an_agent_that_is_not_written_leaves_no_event_there(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (BOB, "k", V))
        done = await engine.transact(writes((ALICE, "k", V), conditions=[(BOB, VersionIs(b"k", 1))])).wait()
        assert done.commit_ts == 2
        assert [event.commit_ts for event in await events(engine, BOB)] == [1]
        assert [f.index for f in await refused(engine, (BOB, VersionIs(b"k", 2)))] == [0]
        await commit(engine, (BOB, "k", V))  # it is held by nobody any more
        assert state(engine, BOB) == (2, 3, V)


async def test_conditions_alone_are_a_commit_that_no_agent_shows(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        done = await engine.transact(writes(conditions=[(ALICE, AgentAt(1)), (BOB, AgentAt(0))])).wait()
        assert (done.commit_ts, done.versions) == (2, ())
        assert (await engine.transact(writes(conditions=[(ALICE, AgentAt(1))])).wait()).commit_ts == 3
        assert len(await refused(engine, (ALICE, AgentAt(2)), operations=())) == 1
        assert await engine.commit(await stage(engine), checks((ALICE, AgentAt(1)))).wait() == 4


async def test_a_transaction_whose_conditions_failed_is_over(engine_bench):
    async with engine_bench.engine() as engine:
        txn_id = await stage(engine, (ALICE, "k", V))
        first = engine.commit(txn_id, checks((ALICE, AgentAt(5))))
        with pytest.raises(ConflictError):
            await first.wait()
        with pytest.raises(TransactionError, match="was aborted"):
            await engine.commit(txn_id).wait()
        with pytest.raises(TransactionError, match="was aborted"):
            await engine.write(txn_id, ALICE, "k", V).wait()
        await engine.abort(txn_id).wait()


async def test_of_two_with_the_same_condition_at_once_one_wins_and_the_other_is_told_when_that_is_durable(
    engine_bench, inline_threads
):
    async with engine_bench.engine() as engine:
        inline_threads.hold()
        condition = (ALICE, VersionIs(b"k", 0))
        first = engine.transact(writes((ALICE, "k", V), conditions=[condition]))
        second = engine.transact(writes((ALICE, "k", W), conditions=[condition]))
        third = engine.transact(writes((ALICE, "other", W)))
        await trio.testing.wait_all_tasks_blocked()
        assert [first.settled, second.settled, third.settled] == [False] * 3
        inline_threads.release()
        assert (await first.wait()).commit_ts == 1
        with pytest.raises(ConflictError) as caught:
            await second.wait()
        assert caught.value.failed == (FailedPrecondition(index=0, version=1, exists=True),)
        assert (await third.wait()).commit_ts == 2
        assert state(engine) == (1, 1, V)


@pytest.mark.parametrize(
    "condition", [VersionIs(b"k", 1), ExistsIs(b"k", exists=True), AgentAt(1)], ids=lambda c: type(c).__name__
)
async def test_a_condition_that_only_what_is_pending_fulfils_waits_or_goes_behind_it(
    engine_bench, inline_threads, condition
):
    async with engine_bench.engine() as engine:
        inline_threads.hold()
        first = engine.transact(writes((ALICE, "k", V)))
        second = engine.transact(writes((ALICE, "l", V), conditions=[(ALICE, condition)]))
        await trio.testing.wait_all_tasks_blocked()
        inline_threads.release()
        assert ((await first.wait()).commit_ts, (await second.wait()).commit_ts) == (1, 2)


@pytest.mark.parametrize("written", [(ALICE,), (ALICE, BOB)], ids=["one agent", "two agents"])
async def test_what_failed_is_never_told_as_found(engine_bench, inline_threads, monkeypatch, written):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        store = engine._store
        monkeypatch.setattr(type(store), "_commit", _full)
        inline_threads.hold()
        first = engine.transact(writes((ALICE, "k", V)))
        operations = [(agent, "k", W) for agent in written]
        # The second was version 2 for a while, which never came to be.
        second = engine.transact(writes(*operations, conditions=[(ALICE, VersionIs(b"k", 1))]))
        await trio.testing.wait_all_tasks_blocked()
        inline_threads.release()
        for reply in (first, second):
            with pytest.raises(DiskFullError):
                await reply.wait()
        monkeypatch.undo()
        done = await engine.transact(writes(*operations, conditions=[(ALICE, VersionIs(b"k", 1))])).wait()
        assert (done.commit_ts, done.versions[0]) == (2, 2)


def _full(_store, _group):
    raise DiskFullError("full")


async def test_who_waits_for_what_is_pending_is_told_that_the_daemon_stops(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        inline_threads.hold()
        first = engine.transact(writes((ALICE, "k", V)))
        waits = engine.transact(writes((ALICE, "k", W), conditions=[(ALICE, VersionIs(b"k", 0))]))
        behind = engine.transact(writes((ALICE, "k", W), conditions=[(ALICE, VersionIs(b"k", 0))]))
        await trio.testing.wait_all_tasks_blocked()
        inline_threads.release()
    assert first.result().commit_ts == 1
    for reply in (waits, behind):
        assert isinstance(reply.error, UnavailableError | ConflictError)


async def test_a_settled_conflict_is_told_while_others_are_pending(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        pending = engine.transact(writes((ALICE, "other", V)))
        conflict = engine.transact(writes((ALICE, "k", V), conditions=[(ALICE, VersionIs(b"k", 7))]))
        with trio.fail_after(30), pytest.raises(ConflictError):
            await conflict.wait()
        assert not pending.settled
        inline_threads.release()
        await pending.wait()


async def test_a_conflict_on_one_of_several_agents_leaves_the_others_free_at_once(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V), (BOB, "k", V))
        both = [(ALICE, "k", W), (BOB, "k", W)]
        failed = await refused(engine, (BOB, VersionIs(b"k", 9)), (ALICE, AgentAt(9)), operations=both)
        assert [condition.index for condition in failed] == [0, 1]
        inline_threads.hold()
        replies = [engine.transact(writes((agent, "k", W))) for agent in (ALICE, BOB)]
        await trio.testing.wait_all_tasks_blocked()
        assert engine._sequencer._mailbox or inline_threads.waiting  # they are in line: no partition begins again
        inline_threads.release()
        assert [(await reply.wait()).versions for reply in replies] == [(2,), (2,)]


async def test_versions_come_in_the_order_of_the_operations(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (BOB, "k", V), (BOB, "k", V))
        operations = [(BOB, "k", V), (ALICE, "k", V), (BOB, "l", V), (ALICE, "k", None), (BOB, "k", None)]
        done = await engine.transact(writes(*operations)).wait()
        assert done.versions == (3, 1, 1, 2, 4)
        assert (await engine.transact(writes()).wait()).versions == ()


async def test_a_counter_under_contention_loses_no_update(engine_bench, inline_threads, autojump_clock):
    """What `update` of a client does: read, compute, commit if nobody was there before, else again."""
    async with engine_bench.engine() as engine:
        found = []

        async def add_one():
            while True:
                version = state(engine)[0]
                await trio.sleep(0.001)
                try:
                    arguments = writes((ALICE, "k", V), conditions=[(ALICE, VersionIs(b"k", version))])
                    done = await engine.transact(arguments).wait()
                except ConflictError as error:
                    found.append(error.failed[0].version - version)
                else:
                    assert done.versions == (version + 1,)
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(add_one)
        assert state(engine)[0] == 20
        assert found
        assert min(found) > 0


async def test_metadata_stands_in_the_event_of_every_agent(engine_bench):
    async with engine_bench.engine() as engine:
        arguments = writes((ALICE, "k", V), (BOB, "k", V), metadata={"user": "u", "run": "r-1"})
        await engine.transact(arguments).wait()
        await engine.commit(await stage(engine, (ALICE, "k", V)), (), {"cause": "c"}).wait()
    async with engine_bench.engine() as engine:
        first, second = await events(engine, ALICE)
        assert dict(first.metadata) == {"run": "r-1", "user": "u"}
        assert dict(second.metadata) == {"cause": "c"}
        assert [dict(event.metadata) for event in await events(engine, BOB)] == [{"run": "r-1", "user": "u"}]
