"""Replay and ReplayLog: everything once, in order and whole, wherever a reader changes between the log and the feed."""

import random
from contextlib import aclosing, asynccontextmanager
from functools import partial

import pytest
import trio
from actors.fix_engine import commit
from storage.fix_store import ALICE, BOB, value

from statehouse.actors.engine import EngineSettings, run_engine
from statehouse.actors.messages import StagedOperation, TransactArguments
from statehouse.actors.watching import ReplayArguments, ReplayLogArguments
from statehouse.limits import AGENT_FEED_EVENTS, BOOKMARK_S, FEED_CHUNK_BYTES
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import ReplayEvent

NS_PER_S = 1_000_000_000
BEGAN_NS = 1_000 * NS_PER_S
CAROL = AgentId("other", "carol")
V = value()


def now_ns():
    return BEGAN_NS + int(trio.current_time() * NS_PER_S)


@asynccontextmanager
async def engine_on(place):
    try:
        async with run_engine(place.open(), EngineSettings(), now_ns=now_ns) as engine:
            yield engine
    finally:
        place.close()


@pytest.fixture
async def engine(store_bench, inline_threads, autojump_clock):
    """An engine on virtual time, the wall's clock too."""
    async with engine_on(store_bench) as running:
        yield running


class Watcher:
    """Reads a stream in a task; `events` is what it was given."""

    def __init__(self, stream):
        self.stream = stream
        self.events = []
        self.ended_at = None
        self.scope = trio.CancelScope()

    async def run(self):
        with self.scope:
            async with aclosing(self.stream):
                async for chunk in self.stream:
                    assert chunk
                    self.events += map(ReplayEvent.FromString, chunk)
        self.ended_at = trio.current_time()

    @property
    def seen(self):
        return [event.commit_ts for event in self.events if not event.bookmark]

    @property
    def bookmarks(self):
        return [event.commit_ts for event in self.events if event.bookmark]


def started(nursery, stream):
    watcher = Watcher(stream)
    nursery.start_soon(watcher.run)
    return watcher


def agent(engine, who=ALICE, **wanted):
    return engine.replay(ReplayArguments(agent=who, **wanted))


def whole_log(engine, **wanted):
    return engine.replay_log(ReplayLogArguments(**wanted))


async def everything(stream):
    watcher = Watcher(stream)
    await watcher.run()
    return watcher


async def settle():
    await trio.testing.wait_all_tasks_blocked()


async def transact(engine, *operations, **metadata):
    staged = tuple((who, StagedOperation(key.encode(), content)) for who, key, content in operations)
    return (await engine.transact(TransactArguments(operations=staged, metadata=metadata)).wait()).commit_ts


# History, then live


@pytest.mark.parametrize("stream", [agent, whole_log])
async def test_history_and_then_what_comes(autojump_clock, engine, stream):
    await commit(engine, (ALICE, "k", V))
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, stream(engine, follow=True))
        await settle()
        assert watcher.seen == [1]
        for at in range(2, 5):
            await commit(engine, (ALICE, "k", V))
            await settle()
            assert watcher.seen == list(range(1, at + 1))
        await commit(engine)  # of no agent
        await settle()
        assert watcher.seen == [1, 2, 3, 4]
        nursery.cancel_scope.cancel()


async def test_an_event_is_the_same_from_the_feed_and_from_the_log(autojump_clock, engine):
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True))
        await settle()
        await transact(engine, (ALICE, "k", V), (BOB, "k", V), (ALICE, "l", None), run="7")
        await settle()
        nursery.cancel_scope.cancel()
    assert watcher.events == (await everything(agent(engine))).events
    assert dict(watcher.events[0].metadata) == {"run": "7"}


@pytest.mark.parametrize("start", range(8))
async def test_resuming_from_any_commit(autojump_clock, engine, start):
    for _ in range(3):
        await commit(engine, (ALICE, "k", V), (BOB, "k", V))
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True, start_ts=start))
        log = started(nursery, whole_log(engine, follow=True, start_ts=start))
        await settle()
        for _ in range(3):
            await commit(engine, (ALICE, "k", V), (BOB, "k", V))
        await settle()
        nursery.cancel_scope.cancel()
    assert watcher.seen == list(range(max(start, 1), 7))
    assert log.seen == [ts for ts in range(max(start, 1), 7) for _ in "ab"]


async def test_a_start_in_the_future_waits_for_it(autojump_clock, engine):
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True, start_ts=4, bookmarks=True))
        far = started(nursery, agent(engine, follow=True, start_ts=2**64 - 1))
        await settle()
        assert watcher.bookmarks == [0]  # the newest commit: so clients ask where the log ends
        for _ in range(5):
            await commit(engine, (ALICE, "k", V))
        await settle()
        assert (watcher.seen, far.seen) == ([4, 5], [])
        nursery.cancel_scope.cancel()
    assert (await everything(agent(engine, start_ts=9))).seen == []


# Slow readers


@pytest.mark.parametrize("stream", [agent, whole_log])
async def test_a_slow_reader_falls_back_to_the_log_and_comes_back(autojump_clock, engine, stream):
    slow = stream(engine, follow=True)
    async with aclosing(slow):
        seen = []

        async def read_until(newest):
            while not seen or seen[-1] < newest:
                seen.extend(ReplayEvent.FromString(each).commit_ts for each in await anext(slow))

        newest = await commit(engine, (ALICE, "k", V))
        await read_until(newest)
        for rounds in (1, AGENT_FEED_EVENTS - 1, AGENT_FEED_EVENTS, AGENT_FEED_EVENTS + 1, 2 * AGENT_FEED_EVENTS, 1):
            for _ in range(rounds):
                newest = await commit(engine, (ALICE, "k", V))
            await read_until(newest)
        assert seen == list(range(1, newest + 1))


@pytest.mark.parametrize("seed", range(5))
async def test_random_readers_and_writers_miss_and_repeat_nothing(autojump_clock, engine, seed):
    rng = random.Random(seed)

    async def read(stream):
        found = []
        async with aclosing(stream):
            while True:
                await trio.sleep(rng.choice([0, 0, 0.1, 3]))
                with trio.move_on_after(60) as patience:
                    chunk = await anext(stream)
                if patience.cancelled_caught:
                    return found
                found += map(ReplayEvent.FromString, chunk)

    async def reader(results, name, stream):
        results[name] = await read(stream)

    results = {}
    async with trio.open_nursery() as nursery:
        for name in range(6):
            start = rng.randrange(30)
            who = rng.choice([ALICE, BOB, None])
            make = partial(whole_log, engine) if who is None else partial(agent, engine, who)
            nursery.start_soon(reader, results, (name, start, who), make(follow=True, start_ts=start))
        for _ in range(700):
            whose = rng.sample([ALICE, BOB, CAROL], rng.randrange(1, 4))
            await commit(engine, *[(each, "k", V) for each in whose])
            if rng.random() < 0.05:
                await trio.sleep(rng.random())
    for (_, start, who), found in results.items():
        stream = whole_log(engine, start_ts=start) if who is None else agent(engine, who, start_ts=start)
        assert found == (await everything(stream)).events


async def test_who_never_reads_costs_nothing_and_holds_up_nobody(autojump_clock, engine):
    idle = [agent(engine, follow=True) for _ in range(50)]
    for each in idle:
        with trio.move_on_after(0):
            await each.wait()
    feed = engine._watching._around.feed
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True))
        for _ in range(2 * AGENT_FEED_EVENTS):
            await commit(engine, (ALICE, "k", value(2_000)))
        await settle()
        assert watcher.seen == list(range(1, 2 * AGENT_FEED_EVENTS + 1))
        assert feed.held_bytes < AGENT_FEED_EVENTS * 3_000
        nursery.cancel_scope.cancel()
    for each in idle:
        await each.aclose()
    assert (feed.watched, feed.held_bytes) == (0, 0)


async def test_a_step_is_small_when_it_is_live(autojump_clock, engine):
    async with aclosing(agent(engine, follow=True)) as stream:
        await commit(engine, (ALICE, "k", V))
        await anext(stream)
        for _ in range(20):
            await commit(engine, (ALICE, "k", value(FEED_CHUNK_BYTES // 4)))
        assert 0 < await stream.wait() <= 2 * FEED_CHUNK_BYTES
        sizes = [len(each) for each in await stream.step()]
        assert 0 < sum(sizes) <= FEED_CHUNK_BYTES
        await commit(engine, (ALICE, "k", value(10 * FEED_CHUNK_BYTES)))
        while sizes[-1] < 10 * FEED_CHUNK_BYTES:
            sizes += map(len, step := await stream.step())
        assert (len(sizes), len(step)) == (21, 1)


async def test_a_thousand_watchers_of_one_agent(autojump_clock, engine):
    async with trio.open_nursery() as nursery:
        watchers = [started(nursery, agent(engine, follow=True)) for _ in range(1_000)]
        await settle()
        for _ in range(3):
            await commit(engine, (ALICE, "k", V))
        await settle()
        nursery.cancel_scope.cancel()
    assert all(each.seen == [1, 2, 3] for each in watchers)


async def test_cancelling_leaves_nothing_behind(autojump_clock, engine):
    feed = engine._watching._around.feed
    await commit(engine, (ALICE, "k", V))
    async with trio.open_nursery() as nursery:
        watchers = [started(nursery, agent(engine, who, follow=True, end_ts=99)) for who in (ALICE, ALICE, BOB)]
        await settle()
        await commit(engine, (ALICE, "k", V))
        assert feed.watched == 2
        for each in watchers:
            each.scope.cancel()
    assert (feed.watched, feed.held_bytes, feed._ends) == (0, 0, {})


# Ends


async def test_an_end_is_told_when_it_is_reached_whoever_commits(autojump_clock, engine):
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True, end_ts=3))
        await settle()
        for who in (ALICE, BOB):
            await commit(engine, (who, "k", V))
        await settle()
        assert watcher.ended_at is None
        await commit(engine, (BOB, "k", V))
        await settle()
        assert (watcher.seen, watcher.ended_at) == ([1], trio.current_time())
        await commit(engine, (ALICE, "k", V))
    assert (await everything(agent(engine, follow=True, end_ts=3))).seen == [1]
    assert (await everything(agent(engine, follow=True, start_ts=3, end_ts=2))).seen == []


async def test_times_are_inclusive(autojump_clock, engine):
    for _ in range(5):
        await commit(engine, (ALICE, "k", V))
        await trio.sleep(1)
    times = [event.committed_at.ToNanoseconds() for event in (await everything(agent(engine))).events]
    for stream in (agent, whole_log):
        for first in range(5):
            for last in range(5):
                between = stream(engine, start_time_ns=times[first], end_time_ns=times[last])
                assert (await everything(between)).seen == list(range(first + 1, last + 2))
        assert (await everything(stream(engine, start_time_ns=times[1] + 1))).seen == [3, 4, 5]
        assert (await everything(stream(engine, end_time_ns=times[1] - 1))).seen == [1]
        assert (await everything(stream(engine, start_time_ns=0, end_time_ns=0))).seen == []
        assert (await everything(stream(engine, start_time_ns=now_ns() + NS_PER_S))).seen == []
        assert (await everything(stream(engine, follow=True, end_time_ns=times[2]))).seen == [1, 2, 3]


@pytest.mark.parametrize("stream", [agent, whole_log])
async def test_an_end_in_the_future_is_kept_by_the_clock(autojump_clock, engine, stream):
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, stream(engine, follow=True, end_time_ns=now_ns() + 100 * NS_PER_S))
        await commit(engine, (ALICE, "k", V))
    assert watcher.seen == [1]
    assert 100 <= watcher.ended_at - began < 100.1


async def test_what_is_on_its_way_when_the_time_comes_is_still_given(autojump_clock, engine, inline_threads):
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True, end_time_ns=now_ns() + 10 * NS_PER_S))
        await trio.sleep(9)
        inline_threads.hold()
        nursery.start_soon(commit, engine, (ALICE, "k", V))
        await trio.sleep(9)
        assert watcher.ended_at is None
        inline_threads.release()
    assert watcher.seen == [1]


@pytest.mark.parametrize("stream", [agent, whole_log])
async def test_a_start_at_a_time_in_the_future(autojump_clock, engine, stream):
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, stream(engine, follow=True, start_time_ns=now_ns() + 10 * NS_PER_S))
        await settle()
        await commit(engine, (ALICE, "k", V))
        await trio.sleep(10)
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (ALICE, "k", V))
        await settle()
        nursery.cancel_scope.cancel()
    assert watcher.seen == [2, 3]


# Bookmarks


async def test_bookmarks_come_at_once_and_then_while_it_is_idle(autojump_clock, engine):
    await commit(engine, (ALICE, "k", V))
    await commit(engine, (BOB, "k", V))
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True, bookmarks=True))
        silent = started(nursery, agent(engine, follow=True))
        await settle()
        assert [(event.commit_ts, event.bookmark) for event in watcher.events] == [(1, False), (2, True)]
        await commit(engine, (BOB, "k", V))
        await trio.sleep(BOOKMARK_S - 0.1)
        assert watcher.bookmarks == [2]
        await trio.sleep(0.2)
        assert watcher.bookmarks == [2, 3]
        await commit(engine, (ALICE, "k", V))
        await trio.sleep(BOOKMARK_S - 0.1)
        assert (watcher.seen, watcher.bookmarks) == ([1, 4], [2, 3])
        await trio.sleep(2 * BOOKMARK_S)
        assert watcher.bookmarks == [2, 3, 4, 4]
        assert silent.bookmarks == []
        nursery.cancel_scope.cancel()
    assert (await everything(agent(engine, bookmarks=True))).bookmarks == []


async def test_going_on_behind_a_bookmark_misses_and_repeats_nothing(autojump_clock, engine):
    for who in (ALICE, BOB, ALICE, BOB):
        await commit(engine, (who, "k", V))
    async with aclosing(agent(engine, follow=True, bookmarks=True)) as stream:
        first = [ReplayEvent.FromString(each) for each in await anext(stream)]
        [bookmark] = [ReplayEvent.FromString(each) for each in await anext(stream)]
    assert ([event.commit_ts for event in first], bookmark.commit_ts) == ([1, 3], 4)
    await commit(engine, (ALICE, "k", V))
    assert (await everything(agent(engine, start_ts=bookmark.commit_ts + 1))).seen == [5]


# Filters


async def test_keys_and_metadata(autojump_clock, engine):
    await transact(engine, (ALICE, "a/1", V), (ALICE, "b/1", V), run="1", user="x")
    await transact(engine, (ALICE, "b/1", V), run="1")
    await transact(engine, (ALICE, "a/1", None), run="2", user="x")

    async def found(**wanted):
        watcher = await everything(agent(engine, **wanted))
        return [(event.commit_ts, [operation.key for operation in event.operations]) for event in watcher.events]

    assert await found(key_prefix=b"a/") == [(1, ["a/1"]), (3, ["a/1"])]
    assert await found(metadata={"run": "1"}) == [(1, ["a/1", "b/1"]), (2, ["b/1"])]
    assert await found(metadata={"run": "1", "user": "x"}) == [(1, ["a/1", "b/1"])]
    assert await found(metadata={"run": "1"}, key_prefix=b"a") == [(1, ["a/1"])]
    assert await found(metadata={"none": ""}) == []


async def test_filters_are_the_same_live(autojump_clock, engine):
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True, key_prefix=b"a/", metadata={"run": "1"}, bookmarks=True))
        await settle()
        await transact(engine, (ALICE, "a/1", V), (ALICE, "b", V), run="1")
        await transact(engine, (ALICE, "a/1", V), run="2")
        await transact(engine, (ALICE, "b", V), run="1")
        await trio.sleep(BOOKMARK_S + 0.1)
        nursery.cancel_scope.cancel()
    assert [operation.key for event in watcher.events for operation in event.operations] == ["a/1"]
    assert (watcher.seen, watcher.bookmarks) == ([1], [0, 3])


@pytest.mark.parametrize("follow", [False, True])
async def test_a_limit_counts_events_that_are_given(autojump_clock, engine, follow):
    for at in range(6):
        await commit(engine, (ALICE, "ab"[at % 2], V))
    assert (await everything(agent(engine, limit=2, follow=follow))).seen == [1, 2]
    assert (await everything(agent(engine, limit=2, key_prefix=b"b", follow=follow))).seen == [2, 4]
    assert (await everything(agent(engine, limit=9))).seen == [1, 2, 3, 4, 5, 6]
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True, limit=7, bookmarks=True))
        await settle()
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (ALICE, "k", V))
    assert watcher.seen == [1, 2, 3, 4, 5, 6, 7]


async def test_a_limit_of_the_log_never_tears_a_commit(autojump_clock, engine):
    for _ in range(3):
        await commit(engine, (ALICE, "k", V), (BOB, "k", V), (CAROL, "k", V))
    assert (await everything(whole_log(engine, limit=2))).seen == [1] * 3
    assert (await everything(whole_log(engine, limit=4))).seen == [1] * 3 + [2] * 3


async def test_the_log_by_namespace_and_agent(autojump_clock, engine):
    await commit(engine, (ALICE, "k", V), (CAROL, "k", V))
    await commit(engine, (BOB, "k", V))
    await commit(engine)

    async def found(**wanted):
        watcher = await everything(whole_log(engine, **wanted))
        return [(event.commit_ts, event.agent_id) for event in watcher.events]

    assert await found() == [(1, "alice"), (1, "carol"), (2, "bob")]
    assert await found(namespace="default") == [(1, "alice"), (2, "bob")]
    assert await found(namespace="other") == [(1, "carol")]
    assert await found(namespace="") == []
    assert await found(agent_prefix="a") == [(1, "alice")]
    assert await found(namespace="other", agent_prefix="a") == []


# Restarts and failures


async def test_resuming_after_a_restart(store_bench, inline_threads, autojump_clock):
    seen = []
    for _ in range(3):
        async with engine_on(store_bench) as engine, trio.open_nursery() as nursery:
            watcher = started(nursery, agent(engine, follow=True, start_ts=seen[-1] + 1 if seen else None))
            await commit(engine, (ALICE, "k", V))
            await settle()
            await commit(engine, (ALICE, "k", V))
            await settle()
            nursery.cancel_scope.cancel()
        seen += watcher.seen
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_a_commit_that_failed_is_never_given(autojump_clock, store_bench, engine):
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, follow=True))
        await commit(engine, (ALICE, "k", V))
        store_bench.home.fail_next_batch()
        with pytest.raises(Exception, match="full"):
            await commit(engine, (ALICE, "lost", V))
        await commit(engine, (ALICE, "l", V))  # on a view that was opened anew
        await settle()
        nursery.cancel_scope.cancel()
    assert [(event.commit_ts, event.operations[0].key) for event in watcher.events] == [(1, "k"), (2, "l")]
