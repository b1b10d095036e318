"""Forks: what they have, whose names they may take, and what a fork does to what is under way beside it."""

import errno
import threading

import pytest
import trio
import trio.testing
from actors.fix_engine import commit, events, scan, stage, state
from storage.fix_store import ALICE, BOB, value

from statehouse.actors.messages import AgentAt, Check, Idempotency, StagedOperation, TransactArguments, VersionIs
from statehouse.actors.watching import ReplayLogArguments
from statehouse.errors import (
    AgentExistsError,
    DiskFullError,
    ErrorCode,
    InvalidRequestError,
    LogPoisonedError,
    NotFoundError,
    UnavailableError,
)
from statehouse.limits import FORK_DEPTH, PARTITION_IDLE_S
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import ReplayEvent

V, W = value(20), value(30)
SEGMENT = "log/00000000000000000001.log"
EIO = OSError(errno.EIO, "input/output error")
ENOSPC = OSError(errno.ENOSPC, "no space")
HANGS_S = 30.0
DAVE, ERIN = AgentId("default", "dave"), AgentId("default", "erin")


def numbered(number):
    return AgentId("default", f"agent-{number:03}")


async def refused(kind, reply, match=None):
    with pytest.raises(kind, match=match) as caught:
        await reply.wait()
    return caught.value


def write(agent, key="k", content=V, **more):
    return TransactArguments(((agent, StagedOperation(key.encode(), content)),), **more)


# What a fork has


async def test_what_is_asked_for_as_of_now_has_what_was_read_before_it_was_the_head(engine_bench, monkeypatch):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        view = type(engine._store._view)
        apply, applied, go_on = view.apply, threading.Event(), threading.Event()

        def held(self, writes):
            apply(self, writes)
            applied.set()
            go_on.wait(HANGS_S)

        monkeypatch.setattr(view, "apply", held)
        written = engine.transact(write(ALICE, content=W))
        try:
            assert await trio.to_thread.run_sync(applied.wait, HANGS_S)
            assert (state(engine), engine.head_ts) == ((2, 2, W), 1)
            assert [await engine.pin(ALICE), await engine.pin(ALICE, 2), await engine.pin(ALICE, 1)] == [2, 2, 1]
            assert [event.commit_ts for event in await events(engine)] == [1, 2]
            every = [chunk async for chunk in engine.replay_log(ReplayLogArguments())]
            assert [ReplayEvent.FromString(event).commit_ts for chunk in every for event in chunk] == [1, 2]
            forked = engine.fork_agent(ALICE, BOB, None)
        finally:
            go_on.set()
        assert (await written.wait()).commit_ts == 2
        assert await forked.wait() == (3, 2, 1)
        assert state(engine, BOB) == (2, 2, W)


async def test_a_fork_has_what_its_parent_had_and_both_live_on_by_themselves(any_engine_bench):
    bench = any_engine_bench
    async with bench.engine() as engine:
        await commit(engine, (ALICE, "k", V), (ALICE, "gone", V))
        await commit(engine, (ALICE, "k", W), (ALICE, "gone", None))
        assert await engine.fork_agent(ALICE, BOB, None).wait() == (3, 2, 1)
        assert state(engine, BOB) == state(engine, ALICE) == (2, 2, W)
        assert await commit(engine, (BOB, "k", V), (BOB, "gone", W)) == 4
        assert await commit(engine, (ALICE, "k", None)) == 5
        assert await commit(engine, (BOB, "new", V)) == 6
    for rebuilt in (False, True):
        if rebuilt and bench.place.root == "":
            bench.place.home.batches = None
        async with bench.engine() as engine:
            assert state(engine, BOB) == (3, 4, V)
            assert state(engine, BOB, "gone") == (3, 4, W)
            assert state(engine, BOB, "new") == (1, 6, V)
            assert state(engine, ALICE) == (3, 5, None)
            assert state(engine, ALICE, "new") == (0, 0, None)
            found = await events(engine, BOB)
            assert [event.commit_ts for event in found] == [1, 2, 4, 6]
            assert {event.agent_id for event in found} == {BOB.agent_id}
            assert [event.commit_ts for event in await events(engine, ALICE)] == [1, 2, 5]


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
async def test_a_fork_counts_on_from_the_point_that_it_branched_off_at(engine_bench, restart):
    async with engine_bench.engine() as engine:
        for _ in range(3):
            await commit(engine, (ALICE, "k", V))
        assert await engine.fork_agent(ALICE, BOB, 2).wait() == (4, 2, 1)
        if not restart:
            assert (await engine.transact(write(BOB)).wait()).versions == (3,)
    async with engine_bench.engine() as engine:
        versions = (await engine.transact(write(BOB)).wait()).versions
        assert versions == ((3,) if restart else (4,))


async def test_a_point_to_come_is_the_newest_commit_and_what_is_not_durable_is_not_in_a_fork(
    engine_bench, inline_threads
):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        pending = engine.transact(write(ALICE))
        forks = [engine.fork_agent(ALICE, BOB, None), engine.fork_agent(ALICE, DAVE, 2**64 - 1)]
        inline_threads.release()
        assert [(await fork.wait()).at_ts for fork in forks] == [1, 1]
        assert (await pending.wait()).versions == (2,)
        assert state(engine, BOB) == state(engine, DAVE) == (1, 1, V)


async def test_conditions_on_a_fork_hold_of_what_it_has_inherited(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (ALICE, "other", V))
        await engine.fork_agent(ALICE, BOB, None).wait()
        checks = (Check(0, BOB, VersionIs(b"k", 1)), Check(1, BOB, AgentAt(2)))
        assert (await engine.transact(write(BOB, checks=checks)).wait()).versions == (2,)


async def test_idempotency_keys_and_leases_are_not_inherited(engine_bench):
    async with engine_bench.engine() as engine:
        key = Idempotency(b"key", b"f" * 32)
        await engine.transact(write(ALICE, idempotency=key)).wait()
        await engine.acquire_lease(ALICE, "worker-1", 60_000).wait()
        await engine.fork_agent(ALICE, BOB, None).wait()
        again = await engine.transact(write(BOB, idempotency=key)).wait()
        assert (again.versions, again.deduplicated) == ((2,), False)
        assert engine.get_lease(BOB) == (None, False)


async def test_a_fork_of_a_deleted_agent_lives_and_has_what_was_there_at_its_point(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await engine.delete_agent(ALICE).wait()
        await engine.fork_agent(ALICE, BOB, None).wait()
        await engine.fork_agent(ALICE, DAVE, 1).wait()
        assert await scan(engine, BOB) == []
        assert (await engine.transact(write(BOB)).wait()).versions == (3,)
        assert state(engine, DAVE) == (1, 1, V)
        assert (await engine.transact(write(DAVE)).wait()).versions == (2,)


async def test_lineage_is_told_as_it_was_asked_for_also_where_the_point_is_before_the_parents_own_fork(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (ALICE, "k", W))
        await engine.fork_agent(ALICE, BOB, None).wait()
        assert await engine.fork_agent(BOB, DAVE, 1).wait() == (4, 1, 2)
        await engine.fork_agent(ALICE, ERIN, 2).wait()
        assert state(engine, DAVE) == (1, 1, V)
        found = await engine.lineage(DAVE, 10, 2**64 - 1)
        assert [tuple(origin) for origin in found.ancestors] == [(BOB, 1, 4), (ALICE, 2, 3)]
        found = await engine.lineage(ALICE, 1, 2**64 - 1)
        assert ([tuple(child) for child in found.children], found.more) == ([(ERIN, 2, 5)], True)
        found = await engine.lineage(ALICE, 1, 5)
        assert ([tuple(child) for child in found.children], found.more) == ([(BOB, 2, 3)], False)


# Bad input


async def test_a_fork_of_a_fork_is_made_64_deep_and_65_is_refused(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (numbered(0), "k", V))
        for depth in range(1, FORK_DEPTH + 1):
            assert (await engine.fork_agent(numbered(depth - 1), numbered(depth), None).wait()).depth == depth
            await commit(engine, (numbered(depth), "k", V))
        deepest, deeper = numbered(FORK_DEPTH), numbered(FORK_DEPTH + 1)
        assert state(engine, deepest)[0] == FORK_DEPTH + 1
        error = await refused(InvalidRequestError, engine.fork_agent(deepest, deeper, None), "65 forks deep")
        assert error.details == {"limit": "64", "size": "65"}
        head_ts = engine.head_ts
        assert (await engine.transact(write(deeper)).wait()).versions == (1,)  # the name is as it was
        assert engine.head_ts == head_ts + 1
        assert (await engine.fork_agent(numbered(FORK_DEPTH - 1), BOB, None).wait()).depth == FORK_DEPTH


async def test_a_name_that_is_taken_is_refused_whatever_became_of_it(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (BOB, "k", V))
        await engine.fork_agent(ALICE, DAVE, None).wait()
        await commit(engine, (ERIN, "k", V))
        await engine.delete_agent(ERIN).wait()
    async with engine_bench.engine() as engine:
        head_ts = engine.head_ts
        for taken in (ALICE, BOB, DAVE, ERIN):
            error = await refused(AgentExistsError, engine.fork_agent(ALICE, taken, None))
            assert error.code is ErrorCode.AGENT_EXISTS
        await refused(AgentExistsError, engine.fork_agent(ALICE, BOB, 1))
        assert engine.head_ts == head_ts
        assert state(engine, BOB) == (1, 2, V)


async def test_a_name_that_only_has_leases_is_free(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await engine.acquire_lease(BOB, "worker-1", 60_000).wait()
        await engine.fork_agent(ALICE, BOB, None).wait()
        assert engine.get_lease(BOB).held
        assert state(engine, BOB) == (1, 1, V)


@pytest.mark.parametrize("at_ts", [None, 0, 1, 2**64 - 1])
async def test_a_fork_of_an_unknown_agent_is_refused(engine_bench, at_ts):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await engine.acquire_lease(DAVE, "worker-1", 60_000).wait()  # that makes no agent
        for unknown in (BOB, DAVE):
            error = await refused(NotFoundError, engine.fork_agent(unknown, ERIN, at_ts))
            assert error.code is ErrorCode.AGENT_NOT_FOUND
        assert engine.head_ts == 2
        assert (await engine.transact(write(ERIN)).wait()).versions == (1,)


async def test_a_fork_at_a_time_before_the_agent_was_is_refused(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (BOB, "k", V))
        engine_bench.now_ns += 1_000
        await commit(engine, (ALICE, "k", V))
        for at_ts in (0, 1, await engine.pin(ALICE, None, engine_bench.now_ns - 1)):
            error = await refused(InvalidRequestError, engine.fork_agent(ALICE, DAVE, at_ts), "nothing to fork")
            assert error.details == {"commit_ts": str(at_ts)}
        assert (await engine.fork_agent(ALICE, DAVE, 2).wait()).depth == 1
        # A fork is known from its own first event on, not from that of the fork.
        error = await refused(InvalidRequestError, engine.fork_agent(DAVE, ERIN, 1))
        assert (await engine.fork_agent(DAVE, ERIN, 2).wait()).depth == 2


# What is under way beside it


async def test_of_two_forks_of_one_name_one_wins(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (BOB, "k", W))
        inline_threads.hold()
        first, second = engine.fork_agent(ALICE, DAVE, None), engine.fork_agent(BOB, DAVE, None)
        await trio.testing.wait_all_tasks_blocked()
        assert not second.settled  # nobody is told of what is not durable
        inline_threads.release()
        assert (await first.wait()).commit_ts == 3
        await refused(AgentExistsError, second)
        assert state(engine, DAVE) == (1, 1, V)


async def test_a_write_to_the_new_name_before_the_fork_has_it(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        written, fork = engine.transact(write(BOB)), engine.fork_agent(ALICE, BOB, None)
        await trio.testing.wait_all_tasks_blocked()
        assert not fork.settled
        inline_threads.release()
        assert (await written.wait()).versions == (1,)
        await refused(AgentExistsError, fork)


async def test_a_write_to_the_new_name_behind_the_fork_waits_for_it_and_counts_on(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        fork, written = engine.fork_agent(ALICE, BOB, None), engine.transact(write(BOB, content=W))
        both = TransactArguments(tuple((agent, StagedOperation(b"k", V)) for agent in (ALICE, BOB, DAVE)))
        over_agents = engine.transact(both)
        inline_threads.release()
        assert (await fork.wait()).commit_ts == 2
        assert (await written.wait()).versions == (2,)
        assert (await over_agents.wait()).versions == (2, 3, 1)
        assert [event.commit_ts for event in await events(engine, BOB)] == [1, 3, 4]


async def test_a_fork_is_in_one_group_with_other_commits(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        ahead = engine.transact(write(ERIN))
        await trio.testing.wait_all_tasks_blocked()  # it is a group of its own
        before = engine.transact(write(ALICE))
        fork = engine.fork_agent(ALICE, BOB, None)
        behind = engine.transact(write(ALICE))
        inline_threads.release()
        assert [(await reply.wait()).commit_ts for reply in (ahead, before, fork, behind)] == [2, 3, 4, 5]
        assert (await fork.wait()).at_ts == 1
        assert [event.commit_ts for event in await events(engine, BOB)] == [1]
        assert state(engine, ALICE)[0] == 3
        assert (await engine.transact(write(BOB)).wait()).versions == (2,)


async def test_a_fork_that_fails_leaves_the_name_free(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        fork = engine.fork_agent(ALICE, BOB, None)
        await trio.testing.wait_all_tasks_blocked()
        behind = engine.fork_agent(ALICE, DAVE, None)
        written = engine.transact(write(BOB))
        engine_bench.place.disk.fail_next("write", ENOSPC)
        inline_threads.release()
        await refused(DiskFullError, fork)
        await refused(DiskFullError, behind)
        assert (await written.wait()).versions == (1,)
        assert (await engine.fork_agent(ALICE, DAVE, None).wait()).commit_ts == 3


async def test_of_a_fork_in_a_poisoned_log_the_outcome_is_unknown(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        fork = engine.fork_agent(ALICE, BOB, None)
        await trio.testing.wait_all_tasks_blocked()
        written = engine.transact(write(BOB))
        engine_bench.place.disk.fail_next("sync", EIO, path=SEGMENT)
        inline_threads.release()
        assert (await refused(LogPoisonedError, fork)).outcome_unknown
        assert not (await refused(LogPoisonedError, written)).outcome_unknown
        assert state(engine, BOB) == (0, 0, None)


async def test_a_partition_that_waits_for_its_fork_is_not_passivated(engine_bench, inline_threads, autojump_clock):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        fork, written = engine.fork_agent(ALICE, BOB, None), engine.transact(write(BOB))
        await trio.sleep(3 * PARTITION_IDLE_S)
        assert not fork.settled
        inline_threads.release()
        await fork.wait()
        assert (await written.wait()).versions == (2,)


async def test_a_fork_in_line_when_the_engine_stops_is_durable(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        fork = engine.fork_agent(ALICE, BOB, None)
    assert (await fork.wait()).commit_ts == 2
    await refused(UnavailableError, engine.fork_agent(ALICE, DAVE, None))
    async with engine_bench.engine() as engine:
        assert state(engine, BOB) == (1, 1, V)


async def test_staged_operations_are_committed_to_a_fork_that_was_made_meanwhile(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        txn_id = await stage(engine, (BOB, "k", W))
        await engine.fork_agent(ALICE, BOB, None).wait()
        await engine.commit(txn_id).wait()
        assert state(engine, BOB) == (2, 3, W)
