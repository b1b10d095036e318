"""An agent's end: all of it in one commit, and afterwards only who means to brings it back."""

import errno
import threading

import pytest
import trio
import trio.testing
from actors.fix_engine import commit, events, scan, stage, state
from storage.fix_store import ALICE, BOB, CAROL, FULL, value

from statehouse.actors import commits, endings
from statehouse.actors.messages import (
    AgentAt,
    Check,
    ExistsIs,
    Idempotency,
    LeaseIs,
    StagedOperation,
    TransactArguments,
    VersionIs,
)
from statehouse.errors import (
    AgentDeletedError,
    ConflictError,
    DiskFullError,
    ErrorCode,
    FailedPrecondition,
    InternalError,
    InvalidRequestError,
    LogPoisonedError,
    NotFoundError,
    OverloadedError,
    StorageError,
    TransactionError,
    UnavailableError,
)
from statehouse.limits import ENDS_AT_ONCE, PARTITION_IDLE_S, PARTITION_MAILBOX_MESSAGES, PARTITION_RESTART_S
from statehouse.types import AgentId

V, W = value(20), value(30)
SEGMENT = "log/00000000000000000001.log"
EIO = OSError(errno.EIO, "input/output error")
ENOSPC = OSError(errno.ENOSPC, "no space")


async def refused(kind, reply, match=None):
    with pytest.raises(kind, match=match) as caught:
        await reply.wait()
    return caught.value


def write(*agents, content=V, checks=(), **more):
    operations = tuple((agent, StagedOperation(b"k", content)) for agent in agents or (ALICE,))
    return TransactArguments(operations, tuple(checks), **more)


async def blocked():
    await trio.testing.wait_all_tasks_blocked()


async def release_soon(threads):
    await blocked()
    threads.release()


# What it does


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
async def test_every_key_is_deleted_in_one_commit_and_a_write_is_refused_then(any_engine_bench, restart):
    bench = any_engine_bench
    async with bench.engine() as engine:
        await commit(engine, *[(ALICE, key, V) for key in "abk"], (ALICE, "a", W), (ALICE, "b", None))
        await commit(engine, (BOB, "k", V))
        assert await engine.delete_agent(ALICE, (), {"run": "r-1"}).wait() == (3, 2)
        assert [state(engine, ALICE, key) for key in "abk"] == [(3, 3, None), (2, 1, None), (2, 3, None)]
        assert (await scan(engine, ALICE), await engine.list_keys(ALICE)) == ([], [])
        assert state(engine, BOB) == (1, 2, V)
        *_, event = await events(engine, ALICE)
        assert [(op.key, op.HasField("value"), op.version) for op in event.operations] == [
            ("a", False, 3),
            ("k", False, 2),
        ]
        assert (event.commit_ts, event.agent_id, dict(event.metadata)) == (3, ALICE.agent_id, {"run": "r-1"})
        if not restart:
            error = await refused(AgentDeletedError, engine.transact(write()))
            assert (error.code, error.details) == (ErrorCode.AGENT_DELETED, {"commit_ts": "3"})
            assert isinstance(error, TransactionError)
    async with bench.engine() as engine:
        txn_id = await stage(engine, (ALICE, "k", V))
        await refused(AgentDeletedError, engine.commit(txn_id))
        await refused(TransactionError, engine.commit(txn_id), "aborted")
        await refused(AgentDeletedError, engine.transact(write(BOB, ALICE, CAROL)))
        await refused(AgentDeletedError, engine.transact(write(content=None)))  # a delete is an operation, too
        assert engine.head_ts == 3
        assert (await engine.transact(write(revive=True)).wait()).versions == (3,)
        assert (await engine.transact(write()).wait()).versions == (4,)
    if not bench.place.root:
        bench.place.home.batches = None  # and after a rebuild
    async with bench.engine() as engine:
        assert (await engine.transact(write()).wait()).versions == (5,)


async def test_revive_is_for_every_agent_of_a_commit_and_for_staged_ones_too(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V), (BOB, "k", V))
        for agent in (ALICE, BOB):
            await engine.delete_agent(agent).wait()
        txn_id = await stage(engine, (ALICE, "k", V), (BOB, "k", V))
        assert await engine.commit(txn_id, revive=True).wait() == 4
        assert await commit(engine, (ALICE, "k", V), (BOB, "k", V)) == 5


@pytest.mark.parametrize(
    "condition",
    [VersionIs(b"k", 2), ExistsIs(b"other", exists=False), AgentAt(2), LeaseIs(1)],
    ids=lambda c: type(c).__name__,
)
async def test_a_precondition_on_the_agent_brings_it_back_and_one_on_another_does_not(engine_bench, condition):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await engine.delete_agent(ALICE).wait()
        await engine.acquire_lease(ALICE, "worker-1", 60_000).wait()  # which does not
        await refused(AgentDeletedError, engine.transact(write(ALICE, BOB, checks=[Check(0, BOB, AgentAt(0))])))
        failing = Check(0, ALICE, VersionIs(b"k", 1))
        await refused(ConflictError, engine.transact(write(checks=[failing])))
        await refused(AgentDeletedError, engine.transact(write()))
        assert (await engine.transact(write(checks=[Check(0, ALICE, condition)])).wait()).versions == (3,)
        assert (await engine.transact(write()).wait()).versions == (4,)


async def test_a_repeated_request_is_answered_first_and_a_new_one_is_refused(engine_bench):
    async with engine_bench.engine() as engine:
        asked = write(idempotency=Idempotency(b"key", b"f" * 32))
        first = await engine.transact(asked).wait()
        await engine.delete_agent(ALICE).wait()
        assert await engine.transact(asked).wait() == first._replace(deduplicated=True)
        await refused(AgentDeletedError, engine.transact(write(idempotency=Idempotency(b"new", b"f" * 32))))


async def test_an_end_that_is_asked_for_again_is_answered_as_before_and_after_a_return_it_is_another(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        guarded = (Check(0, ALICE, VersionIs(b"k", 1)),)
        assert await engine.delete_agent(ALICE, guarded).wait() == (2, 1)
        assert await engine.delete_agent(ALICE, guarded).wait() == (2, 0)  # by whoever did not hear of it
        await commit(engine, (BOB, "k", V))
        assert await engine.delete_agent(ALICE).wait() == (2, 0)
        await engine.transact(write(revive=True)).wait()
        assert await engine.delete_agent(ALICE).wait() == (5, 1)
    async with engine_bench.engine() as engine:
        assert await engine.delete_agent(ALICE).wait() == (5, 0)
        assert (await refused(AgentDeletedError, engine.transact(write()))).details == {"commit_ts": "5"}
        assert engine.head_ts == 5


async def test_the_end_of_an_agent_without_keys_is_a_commit_that_nobody_is_shown(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V), (ALICE, "k", None))
        assert await engine.delete_agent(ALICE).wait() == (2, 0)
        assert [event.commit_ts for event in await events(engine, ALICE)] == [1]
        await refused(AgentDeletedError, engine.transact(write()))
        assert (await engine.transact(write(checks=[Check(0, ALICE, AgentAt(1))])).wait()).versions == (3,)
    async with engine_bench.engine() as engine:
        assert (await engine.transact(write()).wait()).versions == (4,)


async def test_what_a_fork_has_inherited_is_deleted_of_the_fork_alone(any_engine_bench):
    async with any_engine_bench.engine() as engine:
        await commit(engine, (ALICE, "a", V), (ALICE, "b", V), (ALICE, "gone", V))
        await commit(engine, (ALICE, "gone", None))
        await engine.fork_agent(ALICE, BOB, None).wait()
        await commit(engine, (BOB, "b", W), (BOB, "c", W))
        assert await engine.delete_agent(BOB).wait() == (5, 3)
        assert [state(engine, BOB, key)[0] for key in ("a", "b", "c", "gone")] == [2, 3, 2, 2]
        assert await engine.list_keys(BOB) == []
        assert await engine.list_keys(ALICE) == ["a", "b"]
        await refused(AgentDeletedError, engine.transact(write(BOB)))
        assert (await engine.transact(write(ALICE)).wait()).versions == (1,)


# What is asked for wrongly


async def test_the_end_of_an_unknown_agent_is_refused(engine_bench):
    async with engine_bench.engine() as engine:
        await engine.acquire_lease(BOB, "worker-1", 60_000).wait()  # that makes no agent
        for unknown in (ALICE, BOB):
            error = await refused(NotFoundError, engine.delete_agent(unknown))
            assert error.code is ErrorCode.AGENT_NOT_FOUND
        assert (await engine.transact(write(ALICE)).wait()).versions == (1,)


async def test_preconditions_that_do_not_hold_are_told_and_nothing_is_deleted(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        checks = (Check(0, ALICE, VersionIs(b"k", 1)), Check(1, ALICE, AgentAt(9)), Check(2, ALICE, LeaseIs(1)))
        error = await refused(ConflictError, engine.delete_agent(ALICE, checks))
        assert error.failed == (FailedPrecondition(index=1, agent_commit_ts=1), FailedPrecondition(index=2))
        assert await commit(engine, (ALICE, "k", V)) == 2


@pytest.mark.parametrize(
    ("limit", "match", "details"),
    [
        ("DELETED_KEYS", "has 4 keys, more than the 3 that", {"limit": "3", "size": "4"}),
        ("DELETED_KEYS_BYTES", "has more than the 3 bytes of keys that", {"limit": "3"}),
    ],
)
async def test_an_agent_with_too_many_keys_is_not_deleted_and_goes_on(engine_bench, monkeypatch, limit, match, details):
    monkeypatch.setattr(endings, limit, 3)
    async with engine_bench.engine() as engine:
        await commit(engine, *[(ALICE, key, V) for key in "abcd"])
        error = await refused(InvalidRequestError, engine.delete_agent(ALICE), match)
        assert error.details == details
        assert "delete some" in error.message
        await commit(engine, (ALICE, "d", None))
        assert await engine.delete_agent(ALICE).wait() == (3, 3)


# What is under way beside it


async def test_under_load_what_was_taken_before_is_deleted_and_what_comes_behind_is_refused(
    engine_bench, inline_threads
):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        before = [engine.transact(TransactArguments(((ALICE, StagedOperation(key, V)),))) for key in (b"a", b"b")]
        ended = engine.delete_agent(ALICE)
        behind = [engine.transact(write(ALICE)), engine.transact(write(ALICE, BOB))]
        again = engine.delete_agent(ALICE)
        back = engine.transact(write(ALICE, revive=True))
        last = engine.transact(write(ALICE))
        await blocked()
        assert not any(reply.settled for reply in (*before, ended, *behind, again, back, last))
        inline_threads.release()
        assert [(await reply.wait()).commit_ts for reply in before] == [2, 3]
        assert await ended.wait() == (4, 3)
        for reply in behind:
            await refused(AgentDeletedError, reply)
        assert await again.wait() == (4, 0)
        assert [(await back.wait()).versions, (await last.wait()).versions] == [(3,), (4,)]


async def test_what_is_pending_brings_the_agent_back_for_those_behind_it(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await engine.delete_agent(ALICE).wait()
        inline_threads.hold()
        back, behind = engine.transact(write(revive=True)), engine.transact(write())
        await blocked()
        engine_bench.place.disk.fail_next("write", ENOSPC)
        inline_threads.release()
        for reply in (back, behind):
            await refused(DiskFullError, reply)
        await refused(AgentDeletedError, engine.transact(write()))
        inline_threads.hold()
        back, behind = engine.transact(write(revive=True)), engine.transact(write())
        inline_threads.release()
        assert [(await reply.wait()).commit_ts for reply in (back, behind)] == [3, 4]


async def test_transactions_over_agents_that_end_at_once_wait_in_order_and_nobody_for_ever(
    engine_bench, inline_threads, autojump_clock
):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V), (BOB, "k", V), (CAROL, "k", V))
        inline_threads.hold()
        over = [engine.transact(write(ALICE, BOB, CAROL))]
        ends = [engine.delete_agent(agent) for agent in (CAROL, BOB, ALICE)]
        over += [engine.transact(write(ALICE, CAROL, revive=True)), engine.transact(write(BOB, CAROL, revive=True))]
        forks = [engine.fork_agent(ALICE, AgentId("default", "dave"), None)]
        over += [engine.transact(write(AgentId("default", "dave"), ALICE, BOB, CAROL, revive=True))]
        await blocked()
        inline_threads.release()
        with trio.fail_after(60):
            for reply in (*over, *ends, *forks):
                await reply.wait()
        assert engine.head_ts == 9


async def test_at_most_so_many_end_at_once_and_all_do(engine_bench, inline_threads):
    agents = [AgentId("default", f"agent-{number}") for number in range(3 * ENDS_AT_ONCE)]
    async with engine_bench.engine() as engine:
        await commit(engine, *[(agent, "k", V) for agent in agents])
        inline_threads.hold()
        ends = [engine.delete_agent(agent) for agent in agents]
        await blocked()
        assert inline_threads.waiting == ENDS_AT_ONCE
        inline_threads.release()
        assert sorted([(await end.wait()).commit_ts for end in ends]) == list(range(2, 2 + len(agents)))


async def test_what_is_deleted_is_found_and_encoded_in_a_worker_thread(engine_bench, monkeypatch):
    threads = []
    prepare_section = endings.prepare_section

    def noted(*arguments):
        threads.append(threading.get_ident())
        return prepare_section(*arguments)

    monkeypatch.setattr(endings, "prepare_section", noted)
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await engine.delete_agent(ALICE).wait()
    assert threads
    assert threading.get_ident() not in threads


async def test_a_partition_that_waits_for_its_end_is_not_passivated(engine_bench, inline_threads, autojump_clock):
    async with engine_bench.engine(max_resident_partitions=1) as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        ended, written = engine.delete_agent(ALICE), engine.transact(write(ALICE))
        await trio.sleep(3 * PARTITION_IDLE_S)
        others = engine.transact(write(BOB))
        assert not ended.settled
        inline_threads.release()
        assert (await ended.wait()).deleted_keys == 1
        await refused(AgentDeletedError, written)
        await others.wait()


async def test_more_writes_than_can_wait_for_an_end_are_refused_at_once(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        ended = engine.delete_agent(ALICE)
        waiting = [engine.transact(write()) for _ in range(PARTITION_MAILBOX_MESSAGES)]
        assert not any(reply.settled and not isinstance(reply.error, OverloadedError) for reply in waiting)
        await refused(OverloadedError, engine.transact(write()))
        inline_threads.release()
        assert (await ended.wait()).commit_ts == 2
        for reply in waiting:
            with pytest.raises((AgentDeletedError, OverloadedError)):
                await reply.wait()


# Failures


@pytest.mark.parametrize("place", ["log", "view"])
async def test_an_end_whose_append_fails_has_not_happened(engine_bench, inline_threads, place):
    bench = engine_bench
    async with bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        ended, written = engine.delete_agent(ALICE), engine.transact(write())
        await blocked()
        if place == "log":
            bench.place.disk.fail_next("write", ENOSPC)
        else:
            bench.place.home.fail_next_batch(FULL)
        inline_threads.release()
        await refused(DiskFullError, ended)
        assert (await written.wait()).versions == (2,)
        assert await engine.delete_agent(ALICE).wait() == (3, 1)
    async with bench.engine() as engine:
        await refused(AgentDeletedError, engine.transact(write()))


async def test_an_end_whose_keys_are_looked_for_while_another_append_fails_is_done(
    engine_bench, inline_threads, monkeypatch
):
    go_on = trio.Event()

    async def run_sync(function, *arguments, **more):
        if getattr(function, "func", None) is endings._section:
            await go_on.wait()
        return await inline_threads.run_sync(function, *arguments, **more)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        ended = engine.delete_agent(ALICE)
        await blocked()
        engine_bench.place.disk.fail_next("write", ENOSPC)
        await refused(DiskFullError, engine.transact(write(BOB)))
        go_on.set()
        assert await ended.wait() == (2, 1)


async def test_of_an_end_in_a_poisoned_log_the_outcome_is_unknown_and_a_later_one_has_not_happened(
    engine_bench, inline_threads
):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (BOB, "k", V))
        engine_bench.place.disk.fail_next("sync", EIO, path=SEGMENT)
        assert (await refused(LogPoisonedError, engine.delete_agent(ALICE))).outcome_unknown
        for reply in (engine.delete_agent(BOB), engine.transact(write())):
            assert not (await refused(LogPoisonedError, reply, "read-only")).outcome_unknown
        assert state(engine, BOB) == (1, 2, V)


async def test_a_view_that_cannot_be_read_fails_the_end_and_the_agent_goes_on(engine_bench, monkeypatch):
    def unreadable(*_):
        raise StorageError("the view cannot be read at the moment")

    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        with monkeypatch.context() as patch:
            patch.setattr(type(engine._store), "live_keys", unreadable)
            await refused(StorageError, engine.delete_agent(ALICE))
        assert await commit(engine, (ALICE, "k", V)) == 2


async def test_a_bug_where_keys_are_looked_for_is_told_and_the_agent_goes_on(engine_bench, monkeypatch):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        with monkeypatch.context() as patch:
            patch.setattr(type(engine._store), "live_keys", lambda *_: 1 // 0)
            for _ in range(3):
                await refused(InternalError, engine.delete_agent(ALICE))
        assert await commit(engine, (ALICE, "k", V)) == 2
        assert await engine.delete_agent(ALICE).wait() == (3, 1)


async def test_a_bug_behind_the_search_for_keys_is_told_and_the_partition_begins_again(
    engine_bench, inline_threads, autojump_clock, monkeypatch
):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        ended, written = engine.delete_agent(ALICE), engine.transact(write())
        await blocked()
        with monkeypatch.context() as patch:
            patch.setattr(commits, "PreparedCommit", lambda *_: 1 // 0)
            inline_threads.release()
            error = await refused(InternalError, ended)
            assert error.details
        assert (await written.wait()).versions == (2,)
        await trio.sleep(PARTITION_RESTART_S)
        assert await engine.delete_agent(ALICE).wait() == (3, 1)


async def test_two_such_bugs_at_once_stop_the_daemon_and_everybody_is_answered(engine_bench, monkeypatch):
    replies = []
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with engine_bench.engine() as engine:
            await commit(engine, (ALICE, "k", V))
            monkeypatch.setattr(commits, "PreparedCommit", lambda *_: 1 // 0)
            await refused(InternalError, engine.delete_agent(ALICE))
            replies += [engine.delete_agent(ALICE), engine.transact(write())]
            await trio.sleep_forever()
    await refused(InternalError, replies[0])
    await refused(UnavailableError, replies[1])


async def test_a_full_line_refuses_an_end_and_the_agent_goes_on(engine_bench, inline_threads, monkeypatch):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (BOB, "k", V))
        inline_threads.hold()
        ended = engine.delete_agent(ALICE)
        await blocked()
        monkeypatch.setattr(engine._sequencer._mailbox, "_capacity", 0)
        inline_threads.release()
        await refused(OverloadedError, ended)
        await refused(OverloadedError, engine.fork_agent(BOB, CAROL, None))
        monkeypatch.setattr(engine._sequencer._mailbox, "_capacity", 10)
        assert await commit(engine, (ALICE, "k", V)) == 3
        assert (await engine.fork_agent(ALICE, AgentId("default", "dave"), None).wait()).commit_ts == 4


async def test_an_engine_that_stops_while_keys_are_looked_for_answers_everybody(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (BOB, "k", V))
        inline_threads.hold()
        replies = [engine.delete_agent(ALICE), engine.transact(write()), engine.transact(write(ALICE, BOB))]
        await blocked()
        trio.lowlevel.spawn_system_task(release_soon, inline_threads)
    for reply in replies:
        await refused(UnavailableError, reply)
    await refused(UnavailableError, engine.delete_agent(BOB))
    async with engine_bench.engine() as engine:
        assert engine.head_ts == 2  # what was found after all came too late
        assert (await engine.transact(write()).wait()).versions == (2,)


async def test_an_engine_that_is_cancelled_while_keys_are_looked_for_answers_everybody(engine_bench, inline_threads):
    replies = []
    with trio.CancelScope() as scope:
        async with engine_bench.engine() as engine:
            await commit(engine, (ALICE, "k", V))
            inline_threads.hold()
            replies += [engine.delete_agent(ALICE), engine.transact(write())]
            await blocked()
            scope.cancel()
            inline_threads.release()
    assert scope.cancelled_caught
    for reply in replies:
        await refused(UnavailableError, reply)
    async with engine_bench.engine() as engine:
        assert state(engine) == (1, 1, V)
        assert await engine.delete_agent(ALICE).wait() == (2, 1)


async def test_an_end_whose_caller_was_cancelled_happens(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        with trio.move_on_after(0):
            await engine.delete_agent(ALICE).wait()
        inline_threads.release()
        assert await engine.delete_agent(ALICE).wait() == (2, 0)
