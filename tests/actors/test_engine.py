"""The engine end to end: what clients see, whatever happens at the same time."""

import errno
import random
from collections import Counter

import pytest
import trio
import trio.testing
from actors.fix_engine import EngineBench, commit, events, scan, stage, state
from storage.fix_store import ALICE, BOB, CAROL, FULL, StoreBench, all_events, rows_of, value

from statehouse.actors import partition
from statehouse.actors.watching import ReplayArguments
from statehouse.errors import (
    DiskFullError,
    ErrorCode,
    InternalError,
    LogPoisonedError,
    OverloadedError,
    StatehouseError,
    StorageError,
    TransactionError,
    UnavailableError,
)
from statehouse.limits import BACKGROUND_RETRY_S, PARTITION_IDLE_S, Limits
from statehouse.storage.event_log import EventLog
from statehouse.storage.view import ViewUnavailableError, ViewWriteError
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import GetStateAtVersionResponse, GetStateResponse, ReplayEvent

V = value(20)
LARGE = value(700)
EIO = OSError(errno.EIO, "input/output error")
ENOSPC = OSError(errno.ENOSPC, "no space")
SEGMENT = "log/00000000000000000001.log"
blocked = trio.testing.wait_all_tasks_blocked


# What clients see


async def test_a_commit_is_seen_by_every_later_read_and_survives_a_restart(any_engine_bench):
    bench = any_engine_bench
    async with bench.engine() as engine:
        assert (engine.health(), engine.head_ts) == ("ok", 0)
        txn_id = await stage(engine, (ALICE, "k", V), (ALICE, "k", LARGE), (BOB, "k", V), (ALICE, "gone", None))
        assert state(engine) == (0, 0, None)  # nothing staged is visible
        assert await engine.list_keys(ALICE) == []
        assert await engine.commit(txn_id).wait() == 1
        assert await commit(engine) == 2
        assert await commit(engine, (ALICE, "k", None)) == 3
        assert await commit(engine, (ALICE, "k", V), (ALICE, "l", V)) == 4
        assert state(engine) == (4, 4, V)
    async with bench.engine() as engine:
        assert engine.head_ts == 4
        assert state(engine) == (4, 4, V)
        assert state(engine, ALICE, "gone") == (1, 1, None)
        assert state(engine, BOB) == (1, 1, V)
        assert await engine.list_keys(ALICE) == ["k", "l"]
        assert [(entry.key, entry.version) for entry in await scan(engine)] == [("k", 4), ("l", 1)]
        history = [(op.key, op.version) for event in await events(engine) for op in event.operations]
        assert history == [("k", 1), ("k", 2), ("gone", 1), ("k", 3), ("k", 4), ("l", 1)]
        assert await commit(engine, (BOB, "k", V)) == 5
        assert state(engine, BOB) == (2, 5, V)


async def test_each_version_can_be_read(any_engine_bench):
    async with any_engine_bench.engine() as engine:
        contents = [V, LARGE, None, value(256), value(257)]
        for content in contents:
            await commit(engine, (ALICE, "k", content))
        for version, content in enumerate(contents, 1):
            found = GetStateAtVersionResponse.FromString(engine.get_state_at_version(ALICE, "k", version))
            assert (found.version, found.commit_ts, found.exists) == (version, version, content is not None)
            assert found.value.SerializeToString() == (content or b"")
        assert engine.get_state_at_version(ALICE, "k", 6) == b""


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        (None, None, [1, 3, 5]), (1, 5, [1, 3, 5]), (2, 4, [3]), (3, 3, [3]), (0, 1, [1]), (5, None, [5]),
        (6, None, []), (None, 0, []), (4, 2, []), (None, 2**64 - 1, [1, 3, 5]), (2**64 - 1, 2**64 - 1, []),
    ],
)  # fmt: skip
async def test_replay_ranges_include_both_ends(engine_bench, start, end, found):
    async with engine_bench.engine() as engine:
        for agent in (ALICE, BOB, ALICE, BOB, ALICE):
            await commit(engine, (agent, "k", V))
        assert [event.commit_ts for event in await events(engine, ALICE, start, end)] == found
        assert await events(engine, CAROL, start, end) == []


async def test_replay_shows_only_the_agents_own_operations(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "a", V), (BOB, "b", LARGE), (ALICE, "c", None))
        [event] = await events(engine)
        assert [operation.key for operation in event.operations] == ["a", "c"]
        assert (event.namespace, event.agent_id) == ALICE
        assert event.committed_at.ToNanoseconds() == engine_bench.now_ns


async def test_committing_again_says_when_also_across_a_restart(any_engine_bench):
    async with any_engine_bench.engine() as engine:
        txn_id = await stage(engine, (ALICE, "k", V))
        assert await engine.commit(txn_id).wait() == 1
        empty = await stage(engine)
        assert await engine.commit(empty).wait() == 2
    async with any_engine_bench.engine() as engine:
        for committed, commit_ts in ((txn_id, "1"), (empty, "2")):
            with pytest.raises(TransactionError) as caught:
                await engine.commit(committed).wait()
            assert caught.value.code is ErrorCode.TXN_ALREADY_COMMITTED
            assert caught.value.details == {"commit_ts": commit_ts}


async def test_ids_are_random_and_long(engine_bench):
    async with engine_bench.engine() as engine:
        ids = {await stage(engine) for _ in range(1_000)}
        assert len(ids) == 1_000
        assert min(map(len, ids)) >= 22


async def test_the_limits_are_the_settings(engine_bench):
    async with engine_bench.engine(limits=Limits(open_transactions=1), tx_timeout_ms=5) as engine:
        await stage(engine)
        with pytest.raises(OverloadedError):
            engine.begin(None).result()


async def test_a_transaction_over_more_agents_than_are_resident_is_committed(engine_bench):
    async with engine_bench.engine(max_resident_partitions=2) as engine:
        assert await commit(engine, (ALICE, "k", V), (BOB, "k", V), (CAROL, "k", V)) == 1


async def test_the_time_never_goes_back_also_not_across_a_restart(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        engine_bench.now_ns -= 500
        await commit(engine, (ALICE, "k", V))
    engine_bench.now_ns -= 500
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        times = [event.committed_at.ToNanoseconds() for event in await events(engine)]
    assert times == sorted(times)
    assert times[0] == 1_000_000_000_000


# Long histories, many agents


async def test_a_deep_history_is_replayed_whole(any_engine_bench):
    async with any_engine_bench.engine(store={"fsync": False}) as engine:
        for start in range(0, 5_000, 500):
            replies = [engine.commit(await stage(engine, (ALICE, f"k{n % 7}", V))) for n in range(start, start + 500)]
            for reply in replies:
                await reply.wait()
        found = await events(engine)
        assert [event.commit_ts for event in found] == list(range(1, 5_001))
        versions = Counter()
        for event in found:
            [operation] = event.operations
            versions[operation.key] += 1
            assert operation.version == versions[operation.key]
        part = await events(engine, ALICE, 2_000, 3_999)
        assert [event.commit_ts for event in part] == list(range(2_000, 4_000))


async def test_many_agents_touched_once_leave_nothing_resident(store_bench):
    store_bench.segment_bytes = 1 << 20
    bench = EngineBench(store_bench)
    async with bench.engine(max_resident_partitions=100, store={"fsync": False}) as engine:
        before, most = tasks_below(), 0
        for start in range(0, 20_000, 100):
            agents = [AgentId("many", f"{number}") for number in range(start, start + 100)]
            for reply in [engine.commit(await stage(engine, (agent, "k", V))) for agent in agents]:
                await reply.wait()
            most = max(most, tasks_below() - before)
        assert engine.head_ts == 20_000
        assert 50 <= most <= 200  # those that were passivated in this turn have not ended yet
        assert state(engine, AgentId("many", "0")) == (1, 1, V)
        assert await commit(engine, (AgentId("many", "0"), "k", V)) == 20_001
        assert state(engine, AgentId("many", "0")) == (2, 20_001, V)


def tasks_below() -> int:
    """Every task there is."""
    count, todo = 0, [trio.lowlevel.current_root_task()]
    while todo:
        count += 1
        for nursery in todo.pop().child_nurseries:
            todo += nursery.child_tasks
    return count


async def test_idle_partitions_end_on_virtual_time(engine_bench, inline_threads, autojump_clock):
    async with engine_bench.engine() as engine:
        await blocked()
        before = tasks_below()
        for number in range(50):
            await commit(engine, (AgentId("", f"{number}"), "k", V))
        assert tasks_below() == before + 50
        await trio.sleep(2 * PARTITION_IDLE_S + 1)
        assert tasks_below() == before


async def test_what_expires_is_forgotten_on_virtual_time(engine_bench, inline_threads, autojump_clock):
    async with engine_bench.engine(limits=Limits(open_transactions=2)) as engine:
        late = await stage(engine, (ALICE, "k", V), timeout_ms=10_000)
        await stage(engine, timeout_ms=2_000)
        await trio.sleep(4)
        await stage(engine)  # there is room
        await trio.sleep(7)
        with pytest.raises(TransactionError) as caught:
            await engine.commit(late).wait()
        assert caught.value.code is ErrorCode.TXN_EXPIRED
        assert state(engine) == (0, 0, None)


# Reads beside commits


@pytest.mark.parametrize("any_engine_bench", ["memory", "leveldb"], indirect=True)
async def test_replay_beside_commits_has_no_gap_and_ends_at_the_newest_at_its_start(any_engine_bench):
    async with any_engine_bench.engine(store={"fsync": False}) as engine:

        async def write():
            for number in range(500):
                await commit(engine, (ALICE, f"k{number % 3}", value(20 + number % 100)), (BOB, "k", V))

        replayed = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while engine.head_ts < 500:
                head_ts = engine.head_ts
                found = await events(engine)
                assert [event.commit_ts for event in found][:head_ts] == list(range(1, head_ts + 1))
                assert len(found) == (found[-1].commit_ts if found else 0)
                replayed += 1
        assert replayed > 3


async def test_replay_reads_one_moment_whatever_is_committed_between_its_chunks(engine_bench, monkeypatch):
    monkeypatch.setattr("statehouse.storage.agent_events.READ_CHUNK_EVENTS", 2)
    async with engine_bench.engine() as engine:
        for _ in range(5):
            await commit(engine, (ALICE, "k", V))
        found = []
        async for chunk in engine.replay(ReplayArguments(agent=ALICE)):
            found += [ReplayEvent.FromString(event).commit_ts for event in chunk]
            await commit(engine, (ALICE, "k", V))
        assert found == [1, 2, 3, 4, 5]
        found = [
            event.commit_ts
            async for chunk in engine.replay(ReplayArguments(agent=ALICE, start_ts=7, end_ts=100))
            for event in map(ReplayEvent.FromString, chunk)
        ]
        assert found == [7, 8]


async def test_no_reader_sees_part_of_a_transaction_over_agents(any_engine_bench):
    async with any_engine_bench.engine(store={"fsync": False}) as engine:
        agents = [AgentId("", f"{number}") for number in range(4)]

        async def write():
            for _ in range(100):
                await commit(engine, *((agent, "k", V) for agent in agents))

        seen = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while seen < 100:
                # Read in one turn of the loop, against the thread that applies.
                found = [state(engine, agent)[0] for agent in agents]
                assert found == sorted(found)  # one that is read later is never older
                seen = found[-1]
                back = [state(engine, agent)[0] for agent in reversed(agents)]
                assert back == sorted(back)
                await trio.lowlevel.checkpoint()


async def test_what_is_on_its_way_to_the_disk_belongs_to_the_time_that_it_was_given(engine_bench, inline_threads):
    """Or a read as of that time would show one thing before the sync and another one after it."""
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        then_ns = engine_bench.now_ns
        inline_threads.hold()
        engine.commit(await stage(engine, (ALICE, "k", V)))
        await blocked()
        engine_bench.now_ns += 10**9
        found: list[object] = []

        async def read() -> None:
            found.append(GetStateResponse.FromString(await engine.get_state_at(ALICE, "k", None, then_ns)).version)

        async def replay() -> None:
            async for events in engine.replay(ReplayArguments(agent=ALICE, end_time_ns=then_ns)):
                found.extend(ReplayEvent.FromString(event).commit_ts for event in events)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(replay)
            await blocked()
            assert found == []
            inline_threads.release()
        assert sorted(found) == [1, 2, 2]


# Failures


async def test_a_full_disk_fails_the_group_and_the_next_commit_counts_on(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        first = engine.commit(txn_id := await stage(engine, (ALICE, "k", V)))
        await blocked()
        behind = [engine.commit(await stage(engine, (ALICE, "k", V), (BOB, "k", V))) for _ in range(3)]
        engine_bench.place.disk.fail_next("write", ENOSPC)
        inline_threads.release()
        await blocked()
        for reply in (first, *behind):
            with pytest.raises(DiskFullError):
                reply.result()
        with pytest.raises(TransactionError, match="aborted"):
            await engine.commit(txn_id).wait()
        assert engine.health() == "ok"
        assert await commit(engine, (ALICE, "k", V), (BOB, "k", V)) == 2
        assert (state(engine), state(engine, BOB)) == ((2, 2, V), (1, 2, V))


async def test_a_view_that_stays_full_leaves_the_engine_up(engine_bench, inline_threads, autojump_clock):
    home = engine_bench.place.home
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        replies = [engine.commit(await stage(engine, (agent, "k", V))) for agent in (ALICE, BOB)]
        home.fail_next_batch(FULL)
        home.find_error = ViewUnavailableError("no space left on device")
        inline_threads.release()
        for reply in replies:
            with pytest.raises(DiskFullError):
                await reply.wait()
        await blocked()  # opening the view anew fails, and it is closed
        for operations in ([], [(ALICE, "k", V)], [(BOB, "k", V), (CAROL, "k", V)]):
            with pytest.raises(StorageError):
                await commit(engine, *operations)
        with pytest.raises(StorageError):
            state(engine)
        assert engine.health() == "ok"
        home.find_error = None
        await trio.sleep(2 * BACKGROUND_RETRY_S)  # nobody has to commit for it
        assert state(engine) == (1, 1, V)
        assert await commit(engine, (ALICE, "k", V), (BOB, "k", V)) == 2
        assert (state(engine), state(engine, BOB)) == ((2, 2, V), (1, 2, V))


async def test_a_poisoned_log_serves_reads_and_says_what_it_knows(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        inline_threads.hold()
        lost = await stage(engine, (ALICE, "k", LARGE))
        first = engine.commit(lost)
        await blocked()
        queued = await stage(engine, (ALICE, "k", V), (BOB, "k", V))
        second = engine.commit(queued)
        engine_bench.place.disk.fail_next("sync", EIO, path=SEGMENT)
        inline_threads.release()
        await blocked()
        for reply in (first, second):
            assert isinstance(reply.error, LogPoisonedError)
        assert engine.health() == "read-only"
        with pytest.raises(LogPoisonedError, match="unknown"):
            await engine.commit(lost).wait()
        with pytest.raises(LogPoisonedError, match="unknown"):
            await engine.abort(lost).wait()
        with pytest.raises(TransactionError, match="aborted"):
            await engine.commit(queued).wait()
        for operations in ([], [(ALICE, "k", V)], [(ALICE, "k", V), (BOB, "k", V)]):
            for _ in range(2):
                with pytest.raises(LogPoisonedError, match="read-only"):
                    await commit(engine, *operations)
        empty = await stage(engine)
        for raised in (LogPoisonedError, TransactionError):
            with pytest.raises(raised):
                await engine.commit(empty).wait()  # and it does not hang
        assert state(engine) == (1, 1, V)
        assert [event.commit_ts for event in await events(engine)] == [1]
        assert await engine.list_keys(ALICE) == ["k"]


async def test_that_the_engine_became_read_only_is_told_once_and_nothing_else_is(engine_bench):
    told = []
    async with engine_bench.engine(became_read_only=lambda: told.append("read-only")) as engine:
        engine_bench.place.disk.fail_next("write", ENOSPC)
        with pytest.raises(DiskFullError):
            await commit(engine, (ALICE, "k", V))
        assert (engine.health(), told) == ("ok", [])
        engine_bench.place.disk.fail_next("sync", EIO, path=SEGMENT)
        for _ in range(2):
            with pytest.raises(LogPoisonedError):
                await commit(engine, (ALICE, "k", V))
            assert (engine.health(), told) == ("read-only", ["read-only"])
    assert told == ["read-only"]


async def test_a_refused_commit_is_not_kept_in_memory(engine_bench):
    async with engine_bench.engine() as engine:
        engine_bench.place.disk.fail_next("sync", EIO, path=SEGMENT)
        for _ in range(5):
            with pytest.raises(LogPoisonedError):
                await commit(engine, (ALICE, "k", V))
        refusal = engine._sequencer.refusal
        depth, traceback = 0, refusal.__traceback__
        while traceback is not None:
            depth, traceback = depth + 1, traceback.tb_next
        assert depth == 0


async def test_a_crash_of_a_partition_is_internal_and_its_agent_goes_on(engine_bench, monkeypatch):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        txn_id = await stage(engine, (ALICE, "k", V), (BOB, "k", V))
        with monkeypatch.context() as failing:
            failing.setattr(partition, "prepare_section", lambda *_, **__: 1 / 0)
            with pytest.raises(InternalError, match=r"^internal error [0-9a-f]{16}$"):
                await engine.commit(txn_id).wait()
        with pytest.raises(TransactionError, match="aborted"):
            await engine.commit(txn_id).wait()
        assert await commit(engine, (ALICE, "k", V), (BOB, "k", V)) == 2
        assert (state(engine), state(engine, BOB)) == ((2, 2, V), (1, 2, V))


async def test_a_partition_that_crashes_twice_stops_the_engine(engine_bench, monkeypatch):
    monkeypatch.setattr(partition, "prepare_section", lambda *_, **__: 1 / 0)

    async def run():
        async with engine_bench.engine() as engine:
            for _ in range(2):
                with pytest.raises(InternalError):
                    await commit(engine, (ALICE, "k", V))
            await trio.sleep_forever()

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await run()


# Starting and stopping


async def test_leaving_the_block_makes_what_is_in_line_durable_first(engine_bench):
    async with engine_bench.engine() as engine:
        replies = [engine.commit(await stage(engine, (ALICE, "k", V))) for _ in range(20)]
    assert [reply.result() for reply in replies] == list(range(1, 21))
    async with engine_bench.engine() as engine:
        assert engine.head_ts == 20


async def test_a_commit_whose_caller_was_cancelled_happens(engine_bench, inline_threads):
    async with engine_bench.engine() as engine:
        inline_threads.hold()
        reply = engine.commit(await stage(engine, (ALICE, "k", V)))
        with trio.move_on_after(0) as scope:
            await reply.wait()
        assert scope.cancelled_caught
        inline_threads.release()
        await blocked()
        assert state(engine) == (1, 1, V)


async def test_an_engine_that_is_cancelled_in_a_sync_leaves_nobody_waiting_and_the_commit_done(
    engine_bench, inline_threads
):
    replies = []
    with trio.CancelScope() as scope:
        async with engine_bench.engine() as engine:
            inline_threads.hold()
            replies.append(engine.commit(await stage(engine, (ALICE, "k", V))))
            await blocked()
            replies += [engine.commit(await stage(engine, *operations)) for operations in ([(BOB, "k", V)], [])]
            assert inline_threads.waiting == 1
            scope.cancel()
            inline_threads.release()
            await trio.sleep_forever()
    for reply in replies:
        assert reply.settled
        assert reply.error is None or isinstance(reply.error, UnavailableError | LogPoisonedError)
    async with engine_bench.engine() as engine:
        assert engine.head_ts == 1
        assert state(engine) == (1, 1, V)


async def test_after_the_end_everything_is_refused(engine_bench):
    async with engine_bench.engine() as engine:
        txn_id = await stage(engine)
    for reply in (engine.begin(None), engine.commit(txn_id), engine.abort(txn_id)):
        with pytest.raises(UnavailableError):
            reply.result()


async def test_an_error_in_the_block_passes_and_leaves_nobody_waiting(engine_bench):
    replies = []

    async def run():
        async with engine_bench.engine() as engine:
            replies.append(engine.commit(await stage(engine, (ALICE, "k", V))))
            raise ValueError("the edge")

    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        await run()
    assert replies[0].settled


# Everything at once


@pytest.mark.parametrize("seed", range(30))
async def test_under_random_schedules_and_faults_commits_are_whole_in_order_and_without_gap(
    seed, inline_threads, autojump_clock, monkeypatch
):
    rng = random.Random(seed)
    place = StoreBench(segment_bytes=rng.choice((3_000, 20_000)))
    bench = EngineBench(place)
    agents = [AgentId("", f"{number}") for number in range(6)]
    committed, failures, crashes = {}, 0, 0
    prepare_section = partition.prepare_section

    def prepare(*arguments, **named):
        nonlocal crashes
        if rng.random() < 0.01 and not crashes:
            crashes += 1
            raise KeyError("a bug")
        return prepare_section(*arguments, **named)

    monkeypatch.setattr(partition, "prepare_section", prepare)

    async def client(engine):
        nonlocal failures
        for _ in range(15):
            chosen = rng.sample(agents, rng.choice((1, 1, 2, 3)))
            operations = [
                (agent, rng.choice("ab"), None if rng.random() < 0.2 else value(rng.choice((20, 300))))
                for agent in chosen
                for _ in range(rng.randint(1, 2))
            ]
            txn_id = await stage(engine, *operations)
            if rng.random() < 0.08:
                # One fault at a time: a full disk that cannot take back what it has taken poisons the log.
                place.disk.clear_faults()
                place.home.fault = None
                if rng.random() < 0.5:
                    error = rng.choice((FULL, ViewWriteError("broken"), ViewWriteError("corrupt", damaged=True)))
                    place.home.fail_next_batch(error, is_written=rng.random() < 0.5)
                else:
                    place.disk.fail_next("write", ENOSPC, path=place_of(engine), partial_bytes=rng.randrange(200))
            try:
                commit_ts = await engine.commit(txn_id).wait()
            except StatehouseError:
                failures += 1
                await trio.sleep(rng.choice((0, 0, 10)))  # a view that could not be opened is tried again after a while
            else:
                assert commit_ts not in committed
                committed[commit_ts] = txn_id, operations
                for agent, key, _ in operations:  # linearizable: at least as new as this commit
                    assert state(engine, agent, key)[1] >= commit_ts
            for _ in range(rng.randrange(3)):
                await trio.lowlevel.checkpoint()

    def place_of(engine):
        return engine._store._log._writer._active.path

    async def slow_disk():
        try:
            while True:
                inline_threads.hold()
                await trio.sleep(rng.random() / 100)
                inline_threads.release()
                await trio.sleep(rng.random() / 100)
        finally:
            inline_threads.release()

    async with bench.engine(max_resident_partitions=4) as engine:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow_disk)
            async with trio.open_nursery() as clients:
                for _ in range(6):
                    clients.start_soon(client, engine)
            nursery.cancel_scope.cancel()
        place.disk.clear_faults()
        place.home.fault = None
        await trio.sleep(10)
        assert sorted(committed) == list(range(1, engine.head_ts + 1))  # what failed used no commit_ts
        assert len(committed) + failures == 90
        assert len(committed) > 10
        judge_by_replay(engine._store, agents, committed)
        live = rows_of(engine._store)
    place.home.set_aside()
    place.home.condemned = False
    assert rows_of(place.store()) == live
    place.close()


def judge_by_replay(store, agents, committed):
    """Every agent's events are just what was committed there, its versions without a gap, its state their fold."""
    for agent in agents:
        folded = {}
        touched = []
        for event in map(ReplayEvent.FromString, all_events(store, agent)):
            txn_id, operations = committed[event.commit_ts]
            assert event.txn_id == txn_id
            assert [
                (op.key, op.value.SerializeToString() if op.HasField("value") else None) for op in event.operations
            ] == [(key, content) for a, key, content in operations if a == agent]
            for op in event.operations:
                version = folded.get(op.key, (0,))[0]
                assert op.version == version + 1
                content = op.value.SerializeToString() if op.HasField("value") else None
                folded[op.key] = (op.version, event.commit_ts, content)
            touched.append(event.commit_ts)
        assert touched == sorted(
            ts for ts, (_, operations) in committed.items() if any(a == agent for a, *_ in operations)
        )
        assert store.list_keys(agent) == sorted(key for key, (_, _, content) in folded.items() if content is not None)
        engine_view = {key: state_of(store, agent, key) for key in folded}
        assert engine_view == folded


def state_of(store, agent, key):
    found = GetStateAtVersionResponse.FromString(store.get_state(agent, key.encode()))
    return found.version, found.commit_ts, found.value.SerializeToString() if found.exists else None


async def test_the_engine_prepares_the_next_segment_and_writes_snapshots_beside_commits(engine_bench, monkeypatch):
    prepared = []
    original = EventLog.prepare_next_segment
    monkeypatch.setattr(EventLog, "prepare_next_segment", lambda log: (prepared.append(1), original(log)))
    async with engine_bench.engine(store={"snapshot_interval": 5}) as engine:
        for _ in range(40):
            await commit(engine, (ALICE, "k", LARGE))
    assert prepared
    assert engine_bench.place.disk.list_dir("snapshots")
