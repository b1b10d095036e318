"""Watching an agent that comes to be as a fork, and one that ends."""

import random

import pytest
import trio
import trio.testing
from actors.fix_engine import commit
from actors.test_watching import NS_PER_S, agent, engine_on, everything, now_ns, settle, started, whole_log
from storage.fix_forks import ForkWriter
from storage.fix_store import ALICE, BOB, CAROL, value

from statehouse.actors.feed import Feed
from statehouse.actors.watching import ReplayArguments, Watching
from statehouse.errors import DiskFullError, InvalidRequestError
from statehouse.storage.commit import GroupCommit, empty_commit
from statehouse.v1.statehouse_pb2 import ReplayEvent

V = value()


@pytest.fixture
async def engine(store_bench, inline_threads, autojump_clock):
    """An engine on virtual time, the wall's clock too."""
    async with engine_on(store_bench) as running:
        yield running


class Refused:
    """Reads a stream in a task until it is refused; `seen` is what it was given."""

    def __init__(self, nursery, stream):
        self.stream = stream
        self.seen = []
        self.error = None
        nursery.start_soon(self.run)

    async def run(self):
        try:
            async for chunk in self.stream:
                self.seen += chunk
        except InvalidRequestError as error:
            self.error = error


@pytest.mark.parametrize(
    "wanted", [{}, {"start_ts": 2}, {"start_time_ns": 1}, {"bookmarks": True}, {"limit": 5}, {"end_ts": 100}], ids=repr
)
async def test_who_waits_for_all_of_an_agent_that_comes_to_be_as_a_fork_is_told_to_watch_it_anew(engine, wanted):
    await commit(engine, (ALICE, "k", V))
    await commit(engine, (ALICE, "k", V))
    await commit(engine, (ALICE, "k", V))
    async with trio.open_nursery() as nursery:
        refused = Refused(nursery, agent(engine, BOB, follow=True, **wanted))
        await settle()
        await commit(engine, (ALICE, "k", V))
        await engine.fork_agent(ALICE, BOB, 2).wait()
        await settle()
        assert refused.error is not None
        assert "watch it anew" in refused.error.message
        with pytest.raises(StopAsyncIteration):
            await anext(refused.stream)
        watcher = started(nursery, agent(engine, BOB, follow=True, **{**wanted, "limit": 3}))
        await commit(engine, (BOB, "k", V))
        await commit(engine, (BOB, "k", V))
        await settle()
        assert watcher.seen == ([2, 6, 7] if "start_ts" in wanted else [1, 2, 6])
        watcher.scope.cancel()


async def test_who_watches_from_behind_what_a_fork_inherits_goes_on(engine, autojump_clock):
    for _ in range(2):
        await commit(engine, (ALICE, "k", V))
    await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        watchers = [
            started(nursery, agent(engine, BOB, follow=True, **wanted))
            for wanted in ({"start_ts": 3}, {"start_time_ns": now_ns() - NS_PER_S}, {"start_ts": 8})
        ]
        whole = started(nursery, whole_log(engine, follow=True, start_ts=3))
        await settle()
        await engine.fork_agent(ALICE, BOB, None).wait()
        for _ in range(5):
            await commit(engine, (BOB, "k", V))
        await settle()
        assert [watcher.seen for watcher in (*watchers, whole)] == [[4, 5, 6, 7, 8]] * 2 + [[8]] + [[4, 5, 6, 7, 8]]
        for watcher in (*watchers, whole):
            watcher.scope.cancel()


async def test_a_watcher_who_comes_after_the_fork_is_given_all_beside_one_who_came_before(engine):
    for _ in range(3):
        await commit(engine, (ALICE, "k", V))
    async with trio.open_nursery() as nursery:
        before = started(nursery, agent(engine, BOB, follow=True, start_ts=6))
        await settle()
        await commit(engine, (ALICE, "k", V))
        await commit(engine, (ALICE, "k", V))
        # Its events 4 and 5 are later than the feed reaches back to for the one who came before.
        unmoved = started(nursery, agent(engine, BOB, follow=True, start_ts=5))
        await settle()
        await engine.fork_agent(ALICE, BOB, None).wait()
        after = [started(nursery, agent(engine, BOB, follow=True, start_ts=start_ts)) for start_ts in (None, 4, 5)]
        await commit(engine, (BOB, "k", V))
        await settle()
        assert unmoved.seen == [5, 7]  # there was no news, and it had passed nothing
        assert [watcher.seen for watcher in after] == [[1, 2, 3, 4, 5, 7], [4, 5, 7], [5, 7]]
        for watcher in (before, unmoved, *after):
            watcher.scope.cancel()


class Steps:
    """A stream that is stepped by hand, beside a store and a feed in which a fork may be visible before it is news."""

    def __init__(self, store):
        self.store, self.writer, self.feed = store, ForkWriter(store), Feed(store.head_ts)
        self.during_read = []
        self.seen = []

    def stream(self, **wanted):
        watching = Watching(self.store, self.feed, read=self.read, now_ns=lambda: 0, settled=trio.lowlevel.checkpoint)
        self.watched = watching.replay(ReplayArguments(agent=BOB, follow=True, **wanted))

    async def read(self, read):
        """What happens `during_read` does so before the view is looked at."""
        while self.during_read:
            self.during_read.pop(0)()
        return read()

    def commit(self, *agents):
        """Commits of no interest to the feed."""
        for who in agents:
            self.writer.commit((who, b"k", V))
        self.feed.head_ts = self.store.head_ts

    def fork(self, at_ts):
        """Makes it visible; what publishes it."""
        notes = self.writer.fork_note(ALICE, BOB, at_ts)
        group = GroupCommit(self.store.head_ts + 1, 10**10, [empty_commit("fork", notes)])
        self.store.commit(group)
        return lambda: self.feed.publish(group)

    async def step(self):
        """Have it do what it can without news; InvalidRequestError."""
        for _ in range(10):
            with trio.move_on_after(0.001) as waited:
                await self.watched.wait()
            if waited.cancelled_caught:
                return
            events = await self.watched.step()
            self.seen += [ReplayEvent.FromString(event).commit_ts for event in events or ()]


@pytest.fixture
def steps(store_bench):
    """Alice has commits 1 and 3."""
    steps = Steps(store_bench.open().store)
    steps.commit(ALICE, CAROL, ALICE)
    return steps


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [({}, [1, 3]), ({"start_ts": 2}, [3]), ({"start_time_ns": 1}, [1, 3]), ({"start_time_ns": 10**9 + 3}, [3])],
    ids=repr,
)
async def test_who_reads_a_fork_before_it_is_news_has_missed_nothing(steps, wanted, expected, autojump_clock):
    steps.stream(**wanted)
    publish = steps.fork(3)
    await steps.step()
    assert steps.seen == expected
    publish()
    await steps.step()
    assert steps.seen == expected


async def test_who_has_passed_nothing_when_the_agent_becomes_a_fork_is_given_all(steps, autojump_clock):
    steps.stream(start_time_ns=1)
    steps.during_read.append(lambda: steps.fork(3)())  # noqa: PLW0108
    await steps.step()
    assert steps.seen == [1, 3]


async def test_who_has_passed_commits_of_which_the_fork_has_none_goes_on(steps, autojump_clock):
    steps.stream(start_ts=2)
    steps.commit(CAROL)  # 4: it is read up to here
    await steps.step()
    steps.commit(CAROL)
    steps.fork(1)()
    await steps.step()
    assert steps.seen == []


async def test_who_has_passed_what_a_fork_has_inherited_is_told_and_given_none_of_it(steps, autojump_clock):
    steps.stream(start_ts=2)
    await steps.step()
    publish = steps.fork(3)
    await steps.step()
    publish()
    with pytest.raises(InvalidRequestError, match="watch it anew"):
        await steps.step()
    assert (steps.seen, await steps.watched.step()) == ([], None)


@pytest.mark.parametrize("seed", range(60))
async def test_whenever_the_fork_comes_there_is_no_gap_and_no_repeat_and_no_error_without_need(
    steps, seed, autojump_clock
):
    rng = random.Random(seed)
    start_ts = rng.randrange(7)
    steps.stream(start_ts=start_ts)
    cursor = 0
    for _ in range(rng.randrange(4)):
        steps.commit(rng.choice((ALICE, CAROL)))
        if rng.random() < 0.3:
            await steps.step()
            cursor = steps.watched._cursor
    at_ts = rng.randrange(1, steps.store.head_ts + 1)
    publish = steps.fork(at_ts)
    wanted = [each.commit_ts for each in steps.writer.agents[ALICE] if start_ts <= each.commit_ts <= at_ts]
    try:
        if rng.random() < 0.5:
            await steps.step()
        if rng.random() < 0.5:
            steps.during_read.append(publish)
        else:
            publish()
        await steps.step()
        while steps.during_read:
            steps.during_read.pop()()
        await steps.step()
    except InvalidRequestError:
        assert any(commit_ts < cursor for commit_ts in wanted)
        assert steps.seen == []
    else:
        assert steps.seen == wanted


async def test_a_fork_that_fails_ends_no_stream(store_bench, engine):
    await commit(engine, (ALICE, "k", V))
    async with trio.open_nursery() as nursery:
        watcher = started(nursery, agent(engine, BOB, follow=True))
        await settle()
        store_bench.disk.fail_next("write", OSError(28, "no space"))
        with pytest.raises(DiskFullError):
            await engine.fork_agent(ALICE, BOB, None).wait()
        await commit(engine, (BOB, "k", V))
        await settle()
        assert watcher.seen == [2]
        watcher.scope.cancel()


async def test_a_replay_that_does_not_follow_and_the_whole_log_know_no_gap(engine):
    await commit(engine, (ALICE, "k", V))
    await engine.fork_agent(ALICE, BOB, None).wait()
    await commit(engine, (BOB, "k", V))
    assert (await everything(agent(engine, BOB))).seen == [1, 3]
    assert (await everything(whole_log(engine))).seen == [1, 3]  # what was committed: a fork shows nothing


async def test_the_end_of_an_agent_is_an_event_for_who_watches_it(engine):
    await commit(engine, (ALICE, "a", V), (ALICE, "b", V))
    async with trio.open_nursery() as nursery:
        watchers = [started(nursery, agent(engine, follow=True)), started(nursery, whole_log(engine, follow=True))]
        await settle()
        await engine.delete_agent(ALICE, (), {"cause": "done"}).wait()
        await settle()
        for watcher in watchers:
            assert watcher.seen == [1, 2]
            assert [operation.key for operation in watcher.events[-1].operations] == ["a", "b"]
            assert dict(watcher.events[-1].metadata) == {"cause": "done"}
            watcher.scope.cancel()
