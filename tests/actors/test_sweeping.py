"""The sweeper: what has expired becomes a tombstone, once, in every agent that has it, whatever happens meanwhile."""

from contextlib import suppress
from errno import EIO, ENOSPC

import pytest
import trio
import trio.testing
from actors.fix_engine import commit, events, state
from storage.fix_store import ALICE, BOB, rows_of, value

from statehouse.actors import partition, sweeping
from statehouse.actors.messages import (
    Check,
    ExistsIs,
    Leg,
    StagedOperation,
    TransactArguments,
    Transaction,
    VersionIs,
)
from statehouse.errors import AgentExistsError, ConflictError, DiskFullError, StorageError
from statehouse.limits import BACKGROUND_RETRY_S, SWEEP_KEYS, SWEEP_LOOK_S, SWEEP_REST_S, TTL_MOST_S
from statehouse.storage import expiries
from statehouse.storage.store import Store
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import StateEntry

S = 10**9
V, W = value(20, "v"), value(600, "w")
CHILD, GRANDCHILD = AgentId("default", "child"), AgentId("default", "grandchild")

pytestmark = pytest.mark.usefixtures("inline_threads")


async def write(engine, *operations, ttl_s=1, checks=()):
    """(agent, key, content) operations in one transaction, which expire; its commit_ts."""
    staged = tuple((agent, StagedOperation(key.encode(), content, ttl_s)) for agent, key, content in operations)
    return (await engine.transact(TransactArguments(staged, tuple(checks))).wait()).commit_ts


async def settle():
    """Have the sweeper do all that is due."""
    await trio.sleep(2 * SWEEP_LOOK_S)
    await trio.testing.wait_all_tasks_blocked()


def rebuilt(bench):
    """The rows of the view, made anew from the log."""
    bench.place.close()
    aside, bench.place.home.batches = bench.place.home.batches, None
    rows = rows_of(bench.place.store())
    bench.place.close()
    bench.place.home.batches = aside
    return rows


def rows_at_rest(bench):
    rows = rows_of(bench.place.store())
    bench.place.close()
    return rows


@pytest.mark.parametrize("ttl_s", [1, TTL_MOST_S])
async def test_what_has_expired_is_absent_at_once_and_then_deleted(engine_bench, autojump_clock, ttl_s):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V), (ALICE, "l", W), ttl_s=ttl_s)
        await commit(engine, (ALICE, "m", V))
        engine_bench.now_ns += ttl_s * S - 1
        assert state(engine, key="l") == (1, 1, W)
        await settle()
        assert engine.head_ts == 2
        engine_bench.now_ns += 1
        assert state(engine) == (1, 1, None)
        assert await engine.list_keys(ALICE) == ["m"]
        assert engine.head_ts == 2
        await settle()
        assert engine.head_ts == 4  # the tombstones, and the note
        assert (state(engine), state(engine, key="l")) == ((2, 3, None), (2, 3, None))
        *_, swept = await events(engine)
        assert swept.commit_ts == 3
        assert [(each.key, each.version, each.HasField("value"), each.expired) for each in swept.operations] == [
            ("k", 2, False, True),
            ("l", 2, False, True),
        ]
        await settle()
        assert engine.head_ts == 4
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_an_idle_store_makes_no_commits(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await engine.fork_agent(ALICE, CHILD, None).wait()
        engine_bench.now_ns += 10**6 * S
        await settle()
        assert engine.head_ts == 2
    async with engine_bench.engine() as engine:
        await settle()
        assert engine.head_ts == 2


async def test_what_was_replaced_or_deleted_in_time_is_left_alone(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "replaced", V), (ALICE, "deleted", V), (ALICE, "longer", V))
        await commit(engine, (ALICE, "replaced", W), (ALICE, "deleted", None))
        await write(engine, (ALICE, "longer", V), ttl_s=100)
        engine_bench.now_ns += S
        await settle()
        assert state(engine, key="replaced") == (2, 2, W)
        assert state(engine, key="deleted") == (2, 2, None)
        assert state(engine, key="longer") == (2, 3, V)
        assert engine.head_ts == 3  # nothing was deleted: nothing is noted
        engine_bench.now_ns += 100 * S
        await settle()
        assert state(engine, key="longer") == (3, 4, None)
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_a_value_that_is_written_again_in_time_costs_no_notes_until_they_are_many(
    engine_bench, autojump_clock, monkeypatch
):
    monkeypatch.setattr(sweeping, "SWEEP_KEYS", 10)
    async with engine_bench.engine() as engine:
        for _ in range(25):
            await write(engine, (ALICE, "presence", V), ttl_s=2)
            engine_bench.now_ns += S
            await settle()
        assert state(engine, key="presence")[0] == 25
        assert engine.head_ts == 25 + 2
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_a_write_over_an_expired_value_is_the_next_version_and_no_tombstone_is_between(
    engine_bench, autojump_clock, inline_threads
):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V))
        engine_bench.now_ns += S
        assert await commit(engine, (ALICE, "k", W)) == 2
        await settle()
        assert state(engine) == (2, 2, W)
        assert [len(event.operations) for event in await events(engine)] == [1, 1]


async def test_preconditions_see_an_expired_value_as_absent_and_count_its_version(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V))
        with pytest.raises(ConflictError):
            await write(engine, (ALICE, "k", W), checks=[Check(0, ALICE, ExistsIs(b"k", exists=False))])
        engine_bench.now_ns += S
        with pytest.raises(ConflictError) as caught:
            await write(engine, (ALICE, "k", W), checks=[Check(0, ALICE, ExistsIs(b"k", exists=True))])
        assert [(each.version, each.exists) for each in caught.value.failed] == [(1, False)]
        with pytest.raises(ConflictError):
            await write(engine, (ALICE, "k", W), checks=[Check(0, ALICE, VersionIs(b"k", 0))])
        both = [Check(0, ALICE, VersionIs(b"k", 1)), Check(1, ALICE, ExistsIs(b"k", exists=False))]
        assert await write(engine, (ALICE, "k", W), checks=both) == 2
        assert state(engine) == (2, 2, W)


async def test_what_is_pending_has_not_expired(engine_bench, autojump_clock, inline_threads):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V))
        engine_bench.now_ns += S
        inline_threads.hold()
        first = engine.transact(TransactArguments(((ALICE, StagedOperation(b"k", W, 1)),)))
        exists = (Check(0, ALICE, ExistsIs(b"k", exists=True)),)
        second = engine.transact(TransactArguments(((ALICE, StagedOperation(b"k", V)),), exists))
        inline_threads.release()
        assert (await first.wait()).versions == (2,)
        assert (await second.wait()).versions == (3,)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("late_s", [0.5, 1])
async def test_what_is_pending_for_long_may_have_expired_before_it_is_durable(
    engine_bench, autojump_clock, inline_threads, exists, late_s
):
    """A condition on it waits: when it expires is told by its commit, which is dated no earlier than it was sent."""
    async with engine_bench.engine() as engine:
        inline_threads.hold()
        first = engine.transact(TransactArguments(((ALICE, StagedOperation(b"k", V, 1)),)))
        await trio.testing.wait_all_tasks_blocked()  # its commit is dated, and on its way to the disk
        engine_bench.now_ns += int(late_s * S)
        checks = (Check(0, ALICE, ExistsIs(b"k", exists=exists)),)
        second = engine.transact(TransactArguments(((ALICE, StagedOperation(b"k", W)),), checks))
        inline_threads.release()
        assert (await first.wait()).versions == (1,)
        if exists == (late_s < 1):
            assert (await second.wait()).versions == (2,)
        else:
            with pytest.raises(ConflictError) as caught:
                await second.wait()
            assert [(each.version, each.exists) for each in caught.value.failed] == [(1, not exists)]


@pytest.mark.parametrize("exists", [True, False])
async def test_what_is_pending_is_dated_when_it_is_written(engine_bench, autojump_clock, inline_threads, exists):
    """Not when it was sent: what waits in line for long lasts no less, and no condition takes it for expired."""
    async with engine_bench.engine() as engine:
        inline_threads.hold()
        blocking = engine.transact(TransactArguments(((BOB, StagedOperation(b"k", V)),)))
        await trio.testing.wait_all_tasks_blocked()
        first = engine.transact(TransactArguments(((ALICE, StagedOperation(b"k", V, 1)),)))
        engine_bench.now_ns += S
        checks = (Check(0, ALICE, ExistsIs(b"k", exists=exists)),)
        second = engine.transact(TransactArguments(((ALICE, StagedOperation(b"k", W)),), checks))
        inline_threads.release()
        await blocking.wait()
        assert (await first.wait()).versions == (1,)
        if exists:
            assert (await second.wait()).versions == (2,)
        else:
            with pytest.raises(ConflictError):
                await second.wait()


async def test_live_keys_count_until_the_tombstone_and_an_end_deletes_what_has_expired(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V), (ALICE, "l", V))
        await write(engine, (BOB, "k", V))
        engine_bench.now_ns += S
        assert (await engine.delete_agent(ALICE).wait()).deleted_keys == 2
        head_ts = engine.head_ts
        await settle()
        assert engine.head_ts == head_ts + 2  # Bob's, and the note: nothing is written to an agent that has ended
        assert [event.commit_ts for event in await events(engine, BOB)] == [2, head_ts + 1]
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_many_are_deleted_so_many_in_a_commit_one_agent_each(engine_bench, autojump_clock):
    keys = [f"k{number:05}" for number in range(2 * SWEEP_KEYS + 10)]
    agents = [AgentId("many", f"a{number:03}") for number in range(150)]
    async with engine_bench.engine() as engine:
        await write(engine, *((ALICE, key, V) for key in keys))
        await write(engine, *((agent, "k", V) for agent in agents))
        engine_bench.now_ns += S
        await settle()
        assert await engine.list_keys(ALICE) == []
        found = await events(engine)
        assert sum(len(event.operations) for event in found) == 2 * len(keys)
        assert max(len(event.operations) for event in found[1:]) == SWEEP_KEYS
        assert engine.head_ts == 2 + 3 + len(agents) + 2  # notes: up to the time at which they expired, and of that
        for agent in agents:
            assert [len(event.operations) for event in await events(engine, agent)] == [1, 1]
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_what_many_forks_delete_leaves_others_their_turns(engine_bench, autojump_clock, monkeypatch):
    """Each has a commit of its own, and all have as many values as their parent."""
    forks, values, most = 30, 4, 10
    monkeypatch.setattr(sweeping, "SWEEP_VALUES", most)
    turns, sent_in, under_way, most_under_way = 0, [], 0, 0

    class Turns(trio.abc.Instrument):
        def before_task_step(self, task):
            nonlocal turns
            turns += 1

    def assign(machine, transaction, leg, assign=partition.PartitionMachine.assign):
        nonlocal under_way, most_under_way
        if leg.expire:
            sent_in.append(turns)
            under_way += len(leg.expire)
            most_under_way = max(most_under_way, under_way)
        return assign(machine, transaction, leg)

    def durable(machine, section, *told, durable=partition.PartitionMachine.durable):
        nonlocal under_way
        under_way -= len(section.operations)
        return durable(machine, section, *told)

    async with engine_bench.engine() as engine:
        await write(engine, *((ALICE, f"k{number}", V) for number in range(values)))
        for number in range(forks):
            await engine.fork_agent(ALICE, AgentId("default", f"fork{number}"), None).wait()
        await settle()
        monkeypatch.setattr(partition.PartitionMachine, "assign", assign)
        monkeypatch.setattr(partition.PartitionMachine, "durable", durable)
        trio.lowlevel.add_instrument(Turns())
        engine_bench.now_ns += S
        await settle()
        assert len(sent_in) == len(set(sent_in)) == forks + 1
        assert (under_way, most_under_way) == (0, most // values * values)


async def test_forks_and_their_forks_delete_what_they_have_inherited(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V), (ALICE, "l", V))
        await engine.fork_agent(ALICE, CHILD, None).wait()
        await engine.fork_agent(CHILD, GRANDCHILD, 1).wait()
        await commit(engine, (CHILD, "l", W))
        await write(engine, (ALICE, "later", V))
        engine_bench.now_ns += S
        await settle()
        assert state(engine, ALICE)[::2] == state(engine, CHILD)[::2] == state(engine, GRANDCHILD)[::2] == (2, None)
        assert state(engine, CHILD, "l") == (2, 4, W)
        assert state(engine, GRANDCHILD, "l")[::2] == (2, None)
        assert state(engine, CHILD, "later") == state(engine, GRANDCHILD, "later") == (0, 0, None)
        own = {agent: (await events(engine, agent))[-1] for agent in (ALICE, CHILD, GRANDCHILD)}
        assert {agent: len(event.operations) for agent, event in own.items()} == {ALICE: 3, CHILD: 1, GRANDCHILD: 2}
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_what_a_fork_has_inherited_is_read_beforehand_when_it_is_too_much_for_a_turn(
    engine_bench, autojump_clock, monkeypatch
):
    monkeypatch.setattr(partition, "INHERITED_LOOKS", 3)
    async with engine_bench.engine() as engine:
        await write(engine, *((ALICE, key, V) for key in ("k", "l", "own")), ttl_s=9)
        await commit(engine, (ALICE, "for good", V))
        await engine.fork_agent(ALICE, CHILD, None).wait()
        await commit(engine, (CHILD, "own", W))
        read = []
        inherited = Store.inherited
        monkeypatch.setattr(
            Store, "inherited", lambda *asked: (read.extend(keys := list(asked[2])), inherited(*asked[:2], keys))[1]
        )
        wanted = [(b"k", 1), (b"l", 1), (b"l", 2), (b"own", 1), (b"own", 2), (b"for good", 1), (b"never", 1)]
        expire = Transaction("swept", [Leg(CHILD, expire=wanted)])
        assert (await engine._transactions._submit(expire).wait()).commit_ts == 0
        assert read == [b"k", b"l", b"for good", b"never"]
        engine_bench.now_ns += 9 * S
        [section] = (await engine._transactions._submit(expire).wait()).sections
        assert [(each.key, each.version) for each in section.operations] == [(b"k", 2), (b"l", 2)]
        assert state(engine, CHILD, "own") == (2, 4, W)
        await settle()
        assert [len(event.operations) for event in await events(engine, CHILD)] == [3, 1, 1, 2]
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_forks_that_were_made_before_a_value_are_not_looked_at_when_it_expires(
    engine_bench, autojump_clock, monkeypatch
):
    """An agent may have very many, and a value that is written again and again."""
    looked_at = []

    def children(*args, children=expiries.children):
        looked_at.extend(found := children(*args))
        return found

    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "first", V), ttl_s=3)
        for number in range(150):
            await engine.fork_agent(ALICE, AgentId("default", f"fork{number:03}"), None).wait()
        at_ts = await write(engine, (ALICE, "k", V))
        await engine.fork_agent(ALICE, CHILD, None).wait()
        await engine.fork_agent(ALICE, BOB, at_ts - 1).wait()
        await settle()
        monkeypatch.setattr(expiries, "children", children)
        engine_bench.now_ns += S
        await settle()
        assert [len(await events(engine, agent)) for agent in (ALICE, CHILD, BOB)] == [3, 3, 1]
        assert len(looked_at) <= 64
        engine_bench.now_ns += 2 * S
        await settle()
        assert len({child.agent for child in looked_at}) == 152
        for agent in (ALICE, CHILD, BOB, AgentId("default", "fork000")):
            assert await engine.list_keys(agent, engine.head_ts) == []
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


@pytest.mark.parametrize("deep", [False, True])
async def test_a_fork_of_a_point_before_the_tombstone_gets_one_of_its_own(engine_bench, autojump_clock, deep):
    async with engine_bench.engine() as engine:
        at_ts = await write(engine, (ALICE, "k", V))
        await write(engine, (BOB, "k", V))
        if deep:
            at_ts = (await engine.fork_agent(ALICE, CHILD, None).wait()).commit_ts
        engine_bench.now_ns += S
        await settle()
        parent, fork = (CHILD, GRANDCHILD) if deep else (ALICE, CHILD)
        assert state(engine, parent)[::2] == (2, None)
        await engine.fork_agent(parent, fork, at_ts).wait()
        assert state(engine, fork) == (1, 1, None)
        engine_bench.now_ns += 1
        await settle()
        assert state(engine, fork) == (2, engine.head_ts - 1, None)
        [_, own] = await events(engine, fork)
        assert [(each.key, each.expired) for each in own.operations] == [("k", True)]
        # a fork of a point behind the tombstone has inherited that
        another = AgentId("default", "another")
        await engine.fork_agent(parent, another, None).wait()
        engine_bench.now_ns += S
        head_ts = engine.head_ts
        await settle()
        assert engine.head_ts == head_ts
        assert state(engine, another) == state(engine, parent)
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_a_fork_made_just_before_a_stop_gets_its_tombstone_after_the_start(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V))
        engine_bench.now_ns += S
        await settle()
        await engine.fork_agent(ALICE, CHILD, 1).wait()
    engine_bench.now_ns += 1
    async with engine_bench.engine() as engine:
        await settle()
        assert state(engine, CHILD)[::2] == (2, None)
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_what_expired_while_the_daemon_was_down_is_deleted_after_the_start(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V))
    engine_bench.now_ns += S
    async with engine_bench.engine() as engine:
        assert state(engine) == (1, 1, None)
        await settle()
        assert state(engine) == (2, 2, None)
        assert engine.head_ts == 3


async def test_a_clock_that_jumps_back_brings_nothing_back_and_deletes_in_the_end(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V), ttl_s=10)
        engine_bench.now_ns += 10 * S
        assert state(engine) == (1, 1, None)
        await write(engine, (ALICE, "l", V), ttl_s=10)
        engine_bench.now_ns -= 10**6 * S
        assert state(engine) == (1, 1, None)
        assert state(engine, key="l") == (1, 2, V)
        await trio.sleep(10 + SWEEP_REST_S)
        assert state(engine)[::2] == (2, None)
        await trio.sleep(9)  # at half its pace
        assert state(engine, key="l") == (1, 2, V)
        await trio.sleep(1.5)
        assert state(engine, key="l")[::2] == (2, None)


async def test_a_clock_at_the_end_of_its_time_ends_no_daemon(engine_bench, autojump_clock):
    engine_bench.now_ns = 2**64 - 10 * S
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V), ttl_s=TTL_MOST_S)  # beyond it
        engine_bench.now_ns = 2**64 - 1
        await settle()
        assert state(engine) == (2, 2, None)
    async with engine_bench.engine() as engine:
        await settle()
        assert engine.head_ts == 3
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_a_clock_that_was_set_forward_is_noticed(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V), ttl_s=10**6)
        await trio.sleep(10)
        engine_bench.now_ns += 10**6 * S
        await trio.sleep(SWEEP_LOOK_S + SWEEP_REST_S)
        assert state(engine)[::2] == (2, None)


async def test_a_full_disk_holds_the_tombstones_up_and_nothing_else(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V), (BOB, "k", V))
        engine_bench.now_ns += S
        for _ in range(2):
            engine_bench.place.home.fail_next_batch()
            await trio.sleep(BACKGROUND_RETRY_S)
        assert state(engine) == (1, 1, None)
        await settle()
        assert (state(engine)[::2], state(engine, BOB)[::2]) == ((2, None), (2, None))
        assert await commit(engine, (ALICE, "k", V))
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_a_sweep_passes_over_nothing_that_was_on_its_way_to_the_disk_when_it_began(
    engine_bench, autojump_clock, inline_threads, monkeypatch
):
    """It has expired before the sweep begins, and is visible only after: the clock was set meanwhile."""
    disk_is_free = trio.Event()

    async def run_sync(function, *args, limiter=None):
        if function.__name__ == Store.commit.__name__:
            await disk_is_free.wait()
        return await inline_threads.run_sync(function, *args, limiter=limiter)

    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V))
        monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
        on_its_way = engine.transact(TransactArguments(((BOB, StagedOperation(b"k", V, 1)),)))
        await trio.testing.wait_all_tasks_blocked()
        engine_bench.now_ns += 5 * S
        await trio.sleep(2)
        disk_is_free.set()
        assert (await on_its_way.wait()).commit_ts == 2
        await settle()
        assert state(engine)[::2] == state(engine, BOB)[::2] == (2, None)


@pytest.mark.parametrize("writes_left", range(3))
async def test_a_log_without_room_fails_a_sweep_and_nothing_else_and_it_is_made_again(
    engine_bench, autojump_clock, monkeypatch, writes_left
):
    """Room for nothing, for the first tombstones, and for all but the note."""
    monkeypatch.setattr(sweeping, "SWEEP_COMMITS", 1)  # or what is sent together would share a write
    carol = AgentId("other", "carol")
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V), (ALICE, "l", W), (BOB, "k", V))
        await commit(engine, (carol, "k", V))
        engine_bench.now_ns += S
        full = OSError(ENOSPC, "no space")
        engine_bench.place.disk.fail_next("write", full, after=writes_left, path=f"log/{1:020d}.log", partial_bytes=50)
        await trio.sleep(2)
        failed_ts = engine.head_ts
        assert failed_ts == 2 + writes_left
        assert engine.health() == "ok"
        assert [state(engine, agent)[0] for agent in (ALICE, BOB)] == [1 + (writes_left > n) for n in range(2)]
        assert await engine.list_keys(ALICE) == await engine.list_keys(BOB) == []
        assert await commit(engine, (carol, "k", W)) == failed_ts + 1
        await trio.sleep(BACKGROUND_RETRY_S - 2)
        assert engine.head_ts == failed_ts + 1
        await settle()
        assert (state(engine)[::2], state(engine, key="l")[::2], state(engine, BOB)[::2]) == ((2, None),) * 3
        assert state(engine, carol) == (2, failed_ts + 1, W)
        for agent, operations in ((ALICE, 2), (BOB, 1)):
            assert [len(event.operations) for event in await events(engine, agent)] == [operations, operations]
        assert engine.head_ts == 6  # what was committed before and meanwhile, two of tombstones, and one note
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


@pytest.mark.parametrize("commits_left", range(11))
async def test_a_sweep_that_stops_between_any_two_commits_is_finished_after_the_start(
    engine_bench, autojump_clock, monkeypatch, commits_left
):
    agents = (ALICE, BOB, CHILD, GRANDCHILD)
    async with engine_bench.engine() as engine:
        at_ts = await write(engine, (ALICE, "k", V), (ALICE, "l", W), (BOB, "k", V))
        await engine.fork_agent(ALICE, CHILD, None).wait()
    engine_bench.now_ns += S
    left = commits_left
    whole = Store._commit

    def stopping(store, group):
        nonlocal left
        left -= len(group._commits)
        if left < 0:
            raise StorageError("it stops here")
        whole(store, group)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_commit", stopping)
        async with engine_bench.engine() as engine:
            await settle()
            with suppress(StorageError):  # of what was swept meanwhile, or not
                await engine.fork_agent(ALICE, GRANDCHILD, at_ts).wait()
            engine_bench.now_ns += 1
            await settle()
    async with engine_bench.engine() as engine:
        with suppress(AgentExistsError):
            await engine.fork_agent(ALICE, GRANDCHILD, at_ts).wait()
        engine_bench.now_ns += 1
        await settle()
        for agent in agents:
            for key in ("k", "l") if agent != BOB else ("k",):
                assert state(engine, agent, key)[::2] == (2, None)
        head_ts = engine.head_ts
    async with engine_bench.engine() as engine:
        await settle()
        assert engine.head_ts == head_ts
    assert rebuilt(engine_bench) == rows_at_rest(engine_bench)


async def test_what_was_to_replace_an_expired_value_and_failed_does_not_keep_it(
    engine_bench, autojump_clock, inline_threads
):
    """The sweeper must not take the value for replaced: it would never come by again."""
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V))
        await trio.sleep(1)
        engine_bench.now_ns += S
        inline_threads.hold()
        engine_bench.place.home.fail_next_batch()
        failing = engine.transact(TransactArguments(((ALICE, StagedOperation(b"k", W)),)))
        swept = engine._transactions._submit(Transaction("swept", [Leg(ALICE, expire=[(b"k", 1)])]))
        await trio.testing.wait_all_tasks_blocked()
        assert not swept.settled
        inline_threads.release()
        with pytest.raises(DiskFullError):
            await failing.wait()
        with pytest.raises(DiskFullError):
            await swept.wait()
        await settle()
        assert state(engine)[::2] == (2, None)


async def test_only_what_is_newest_and_has_expired_is_deleted(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V), (ALICE, "l", V), ttl_s=9)
        await commit(engine, (ALICE, "l", V), (ALICE, "for good", V))
        wanted = [(b"k", 1), (b"k", 2), (b"l", 1), (b"l", 2), (b"for good", 1), (b"never", 1)]

        async def sweep():
            return await engine._transactions._submit(Transaction("swept", [Leg(ALICE, expire=wanted)])).wait()

        assert (await sweep()).commit_ts == 0
        assert engine.head_ts == 2
        engine_bench.now_ns += 9 * S
        [section] = (await sweep()).sections
        assert [(each.key, each.version) for each in section.operations] == [(b"k", 2)]
        assert (await sweep()).commit_ts == 0


async def test_in_a_poisoned_log_nothing_is_deleted_until_the_next_start(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        await write(engine, (ALICE, "k", V))
        engine_bench.now_ns += S
        engine_bench.place.disk.fail_next("sync", OSError(EIO, "broken"), path=f"log/{1:020d}.log")
        await settle()
        assert engine.health() == "read-only"
        assert state(engine) == (1, 1, None)
        assert await engine.list_keys(ALICE) == []
    async with engine_bench.engine() as engine:
        await settle()
        assert state(engine)[::2] == (2, None)


async def test_a_page_of_now_is_by_the_clock_of_the_first(engine_bench, autojump_clock):
    async with engine_bench.engine() as engine:
        at_ts = await write(engine, *((ALICE, key, V) for key in ("a", "b", "c")))
        pinned = {"at_ts": at_ts, "now_ns": engine.now_ns()}
        first = await engine.list_page(ALICE, limit=1, **pinned)
        engine_bench.now_ns += S
        await settle()
        rest = await engine.list_page(ALICE, after=first.next_after, limit=9, **pinned)
        assert (first.found, rest.found) == (["a"], ["b", "c"])
        entries = (await engine.scan_page(ALICE, "", limit=9, **pinned)).found
        assert [StateEntry.FromString(entry).HasField("expires_at") for entry in entries] == [True] * 3
        assert (await engine.list_page(ALICE, limit=9, at_ts=at_ts, now_ns=engine.now_ns())).found == []
