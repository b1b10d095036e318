"""Commits that need more of what a fork inherits than a turn may read: it is read first, and all else is as ever."""

import gc
import threading

import pytest
import trio
import trio.testing
from actors.fix_engine import agent_reads, commit, state
from storage.fix_store import ALICE, BOB, FULL, value

from statehouse.actors import partition as partition_module
from statehouse.actors.messages import (
    AgentAt,
    Check,
    ExistsIs,
    Leg,
    Prepare,
    StagedOperation,
    TransactArguments,
    Transaction,
    VersionIs,
)
from statehouse.actors.partition import PartitionMachine
from statehouse.actors.reply import Reply
from statehouse.actors.resident import Partition
from statehouse.errors import ConflictError, DiskFullError, InternalError, StorageError, UnavailableError
from statehouse.limits import INHERITED_LOOKS, PARTITION_IDLE_S, READ_CHUNK_ROWS
from statehouse.storage.lineage import NO_END, Level
from statehouse.storage.stored_value import inline_value
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import AgentInfo

V, W = value(20), value(30)
KEYS = tuple("abcdef")
DEEP, DEEP_2, DEEP_3 = (AgentId("default", f"deep-{number}") for number in (1, 2, 3))


@pytest.fixture(autouse=True)
def _few_looks(monkeypatch):
    monkeypatch.setattr(partition_module, "INHERITED_LOOKS", 3)


def write(*agents, keys=KEYS, content=W, **more):
    operations = tuple((agent, StagedOperation(key.encode(), content)) for agent in agents or (DEEP,) for key in keys)
    return TransactArguments(operations, **more)


async def deepen(engine, *forks):
    """Alice has some of the keys, and each of `forks` is a fork of a fork of her."""
    await commit(engine, (ALICE, "a", V), (ALICE, "b", V), (ALICE, "c", V))
    await commit(engine, (ALICE, "a", V), (ALICE, "c", None))
    for fork in forks:
        between = AgentId("default", f"parent of {fork.agent_id}")
        await engine.fork_agent(ALICE, between, None).wait()
        await commit(engine, (between, "b", V), (between, "d", V))
        await engine.fork_agent(between, fork, None).wait()
    await commit(engine, (ALICE, "e", V), (ALICE, "a", V))


DEEPENED = (3, 3, 3, 2, 1, 1)
"""The versions that a write of KEYS gives to one of the forks."""


async def refused(kind, reply, match=None):
    with pytest.raises(kind, match=match) as caught:
        await reply.wait()
    return caught.value


async def blocked():
    await trio.testing.wait_all_tasks_blocked()


def inherited_in_messages():
    return [each for each in gc.get_objects() if isinstance(each, Prepare) and each.inherited]


@pytest.mark.parametrize("chunk_rows", [1, READ_CHUNK_ROWS])
async def test_what_is_inherited_is_read_in_worker_threads_and_counted_on(any_engine_bench, monkeypatch, chunk_rows):
    monkeypatch.setattr("statehouse.actors.reads.READ_CHUNK_ROWS", chunk_rows)
    async with any_engine_bench.engine() as engine:
        await deepen(engine, DEEP)
        read, kind = [], type(engine._store)
        inherited = kind.inherited
        monkeypatch.setattr(
            kind,
            "inherited",
            lambda *asked: (read.append((threading.get_ident(), asked[2])), inherited(*asked))[1],
        )
        assert (await engine.transact(write(keys="abcabd")).wait()).versions == (3, 3, 3, 4, 4, 2)
        assert [key for _, keys in read for key in keys] == [b"a", b"b", b"c", b"d"]  # each once
        assert len(read) == (4 if chunk_rows == 1 else 1)
        assert threading.get_ident() not in {thread for thread, _ in read}
        read.clear()
        assert (await engine.transact(write(keys="abcde")).wait()).versions == (5, 5, 4, 3, 1)
        assert not read  # its own rows answer for all but one, which a turn may look for
        assert inherited_in_messages() == []
        page = await engine.list_agents("default", DEEP.agent_id, limit=1)
        assert AgentInfo.FromString(page.found[0]).live_keys == 5


async def test_an_agent_that_is_no_fork_and_a_commit_of_few_keys_read_nothing_beforehand(engine_bench, monkeypatch):
    async with engine_bench.engine() as engine:
        await deepen(engine, DEEP)
        monkeypatch.setattr(type(engine._store), "inherited", lambda *_: 1 // 0)
        await engine.transact(write(ALICE, BOB)).wait()
        assert (await engine.transact(write(keys="c")).wait()).versions == (3,)
    assert INHERITED_LOOKS > 64  # one key of the deepest fork


async def test_the_agents_other_commits_wait_and_other_agents_go_on(engine_bench, inline_threads, autojump_clock):
    async with engine_bench.engine(max_resident_partitions=1) as engine:
        await deepen(engine, DEEP)
        inline_threads.hold()
        first = engine.transact(write())
        await blocked()
        behind = [engine.transact(write(keys="a")), engine.transact(write(content=None)), engine.delete_agent(DEEP)]
        other = engine.transact(write(BOB, keys="a"))
        await blocked()
        assert inline_threads.waiting == 2  # the read, and the other agent's group
        await trio.sleep(3 * PARTITION_IDLE_S)  # nobody is passivated for want of use
        assert not any(reply.settled for reply in (first, *behind))
        inline_threads.release()
        assert (await first.wait()).versions == DEEPENED
        assert (await behind[0].wait()).versions == (4,)
        assert (await behind[1].wait()).versions == (5, 4, 4, 3, 2, 2)
        assert (await behind[2].wait()).deleted_keys == 0
        await other.wait()
        assert inherited_in_messages() == []


async def test_what_became_durable_or_failed_while_it_was_read_counts(engine_bench, inline_threads):
    for fails in (False, True):
        fork = DEEP_2 if fails else DEEP
        async with engine_bench.engine() as engine:
            if not fails:
                await deepen(engine, DEEP, DEEP_2)
            inline_threads.hold()
            before, wide = engine.transact(write(fork, keys="c")), engine.transact(write(fork, keys="abcdefc"))
            await blocked()
            if fails:
                engine_bench.place.home.fail_next_batch(FULL)
            inline_threads.release()
            if fails:
                await refused(DiskFullError, before)
                with trio.fail_after(10):
                    try:
                        versions = (await wide.wait()).versions
                    except StorageError:  # the view was away: it may be asked for again
                        versions = (await engine.transact(write(fork, keys="abcdefc")).wait()).versions
                assert versions == (3, 3, 3, 2, 1, 1, 4)
            else:
                assert (await before.wait()).versions == (3,)
                assert (await wide.wait()).versions == (3, 3, 4, 2, 1, 1, 5)


async def test_transactions_over_several_forks_wait_in_order_and_nobody_for_ever(engine_bench, inline_threads):
    forks = (DEEP, DEEP_2, DEEP_3)
    async with engine_bench.engine() as engine:
        await deepen(engine, *forks)
        inline_threads.hold()
        over = [engine.transact(write(*agents)) for agents in (forks, (DEEP_3, DEEP), (DEEP_2, ALICE), forks[::-1])]
        await blocked()
        assert not any(reply.settled for reply in over)
        inline_threads.release()
        with trio.fail_after(10):
            for reply in over:
                await reply.wait()
        # Each was done once, on what the others had done: three to each fork.
        for fork in forks:
            assert tuple(state(engine, fork, key)[0] for key in KEYS) == tuple(version + 2 for version in DEEPENED)


async def test_conditions_on_many_keys_are_judged_by_what_was_read(engine_bench):
    async with engine_bench.engine() as engine:
        await deepen(engine, DEEP)
        holding = [VersionIs(b"a", 2), ExistsIs(b"b", exists=True), ExistsIs(b"c", exists=False), VersionIs(b"d", 1)]
        failing = [VersionIs(b"e", 1), ExistsIs(b"d", exists=False), AgentAt(1)]
        checks = tuple(Check(place, DEEP, condition) for place, condition in enumerate((*holding, *failing)))
        for reply in (engine.transact(write(checks=checks)), engine.delete_agent(DEEP, checks)):
            error = await refused(ConflictError, reply)
            assert [(each.index, each.version, each.exists) for each in error.failed[:2]] == [
                (4, 0, False),
                (5, 1, True),
            ]
            assert [each.index for each in error.failed] == [4, 5, 6]
        assert inherited_in_messages() == []
        assert (await engine.delete_agent(DEEP, checks[:4]).wait()).deleted_keys == 3


@pytest.mark.parametrize(
    ("kind", "raised"), [(StorageError, StorageError), (InternalError, KeyError)], ids=["view away", "bug"]
)
async def test_a_read_that_fails_fails_the_commit_and_the_agent_goes_on(engine_bench, monkeypatch, kind, raised):
    def fail(*_):
        raise raised("the view cannot be read")

    async with engine_bench.engine() as engine:
        await deepen(engine, DEEP, DEEP_2)
        head_ts = engine.head_ts
        with monkeypatch.context() as patch:
            patch.setattr(type(engine._store), "inherited", fail)
            for agents in [(DEEP,), (DEEP, DEEP_2), (ALICE, DEEP)]:
                await refused(kind, engine.transact(write(*agents)))
        assert engine.head_ts == head_ts
        assert (await engine.transact(write(DEEP, DEEP_2)).wait()).versions == DEEPENED * 2
        await engine.transact(write(ALICE)).wait()


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["stopped", "cancelled"])
async def test_an_engine_that_ends_while_it_is_read_answers_everybody(engine_bench, inline_threads, is_cancelled):
    replies = []
    with trio.CancelScope() as scope:
        async with engine_bench.engine() as engine:
            await deepen(engine, DEEP, DEEP_2)
            head_ts = engine.head_ts
            inline_threads.hold()
            asked = (write(), write(keys="a"), write(DEEP, DEEP_2), write(DEEP_2, BOB))
            replies += [engine.transact(each) for each in asked]
            await blocked()
            if is_cancelled:
                scope.cancel()
                inline_threads.release()
            else:
                trio.lowlevel.spawn_system_task(release_soon, inline_threads)
    for reply in replies:
        await refused(UnavailableError, reply)
    async with engine_bench.engine() as engine:
        assert engine.head_ts == head_ts
        assert (await engine.transact(write()).wait()).versions == DEEPENED


async def release_soon(threads):
    await blocked()
    threads.release()


async def test_a_commit_whose_caller_was_cancelled_while_it_was_read_happens(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await deepen(engine, DEEP)
        inline_threads.hold()
        with trio.move_on_after(0):
            await engine.transact(write()).wait()
        inline_threads.release()
        assert (await engine.transact(write(keys="a")).wait()).versions == (4,)


async def test_a_partition_that_begins_again_while_it_is_read_answers_from_its_new_machine():
    asked, barrier, machines = [], Reply(), []
    levels = (Level(b"own", NO_END), *[Level(b"%d" % at, 9) for at in range(4)])

    def machine():
        reads = agent_reads(levels=lambda: levels, stored=lambda of, key: None if len(of) == 1 else 1 // 0)
        machines.append(PartitionMachine(BOB, reads, now_ns=lambda: 0, window_ns=1))
        return machines[-1]

    def read_inherited(_txn_id, unread):
        asked.append((unread, Reply()))
        return asked[-1][1]

    leg = Leg(BOB, [StagedOperation(key.encode(), V) for key in KEYS])
    transaction = Transaction("t", [leg])
    partition = Partition(BOB, machine, lambda: barrier, read_inherited, lambda *_: InternalError("a bug"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partition.run)
        replies = [partition.prepare(transaction, leg, hold=True), partition.prepare(transaction, leg, hold=True)]
        partition.pause()
        ((unread, found),) = asked
        found.succeed({key: inline_value(V, 7, 3) for key in unread.keys})
        await blocked()
        assert not replies[0].settled
        partition.restart()
        assert await replies[0].wait() is None
        assert len(machines) == 2
        assert not replies[1].settled
        assert {operation.version for operation in partition.assign(transaction, leg).operations} == {8}
        partition.release()
        assert await replies[1].wait() is None  # its keys are pending
        assert len(asked) == 1
        partition.release()
        partition.close("the test is over")
