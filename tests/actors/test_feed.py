"""The feed: what it reaches back to, what it forgets, and whom it wakes."""

import pytest
import trio
import trio.testing
from storage.fix_store import ALICE, BOB

from statehouse.actors.feed import EVENT_OVERHEAD_BYTES, Feed
from statehouse.storage.commit import AgentCounters, GroupCommit, PreparedCommit, empty_commit, prepare_section
from statehouse.storage.keys import agent_prefix
from statehouse.storage.record_notes import ForkNote, Inherited, Notes
from statehouse.storage.section import agent_fields


def prepared(*agents, size=1):
    return PreparedCommit(
        "t",
        tuple(
            prepare_section(agent_prefix(agent), agent_fields(agent), "t", [(b"k" * size, None, 1)], AgentCounters())
            for agent in agents
        ),
    )


def publish(feed, *commits):
    group = GroupCommit(feed.head_ts + 1, 1_000, commits)
    group.payloads()
    feed.publish(group)


def taken(subscription, cursor, last_ts=2**64 - 1, most_bytes=1 << 30):
    events, behind = subscription.take(cursor, last_ts, most_bytes)
    return [event.commit_ts for event in events], behind


def test_only_what_is_watched_is_kept():
    feed = Feed(10)
    publish(feed, prepared(ALICE))
    assert feed.held_bytes == 0
    watcher = feed.subscribe(ALICE)
    assert watcher.covers(12)
    assert not watcher.covers(11)
    publish(feed, prepared(BOB), prepared(ALICE, BOB), empty_commit("t"))
    assert taken(watcher, 12) == ([13], 15)
    watcher.close()
    watcher.close()
    assert (feed.held_bytes, feed.watched) == (0, 0)
    with pytest.raises(RuntimeError):
        watcher.covers(12)


def test_the_whole_log_has_every_agent_s_part_of_a_commit():
    feed = Feed(0)
    watcher = feed.subscribe(None)
    publish(feed, prepared(ALICE, BOB), prepared(BOB))
    assert taken(watcher, 1) == ([1, 1, 2], 3)
    assert taken(watcher, 2) == ([2], 3)


def test_a_commit_is_never_taken_in_part():
    feed = Feed(0)
    watcher = feed.subscribe(None)
    publish(feed, prepared(ALICE, BOB), prepared(ALICE, BOB))
    assert taken(watcher, 1, most_bytes=1) == ([1, 1], 2)
    assert taken(watcher, 2, most_bytes=1) == ([2, 2], 3)
    assert taken(watcher, 1, last_ts=1) == ([1, 1], 2)


def test_an_agent_s_oldest_events_give_way():
    feed = Feed(0, agent_events=2)
    watcher = feed.subscribe(ALICE)
    publish(feed, *[prepared(ALICE)] * 5)
    assert [ts for ts in range(1, 7) if watcher.covers(ts)] == [4, 5, 6]
    assert taken(watcher, 4) == ([4, 5], 6)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_commit_that_was_forgotten_in_part_is_not_covered(limit):
    feed = Feed(0, agent_events=limit)
    watcher = feed.subscribe(None)
    publish(feed, prepared(ALICE, BOB), prepared(ALICE, BOB))
    for cursor in (1, 2, 3):
        if watcher.covers(cursor):
            assert taken(watcher, cursor)[0] == [ts for ts in (1, 1, 2, 2) if ts >= cursor]
    assert not watcher.covers(1)
    assert watcher.covers(3)


def test_all_agents_together_are_bounded_and_the_oldest_give_way():
    feed = Feed(0, feed_bytes=4 * (EVENT_OVERHEAD_BYTES + 1_200))
    alice, bob = feed.subscribe(ALICE), feed.subscribe(BOB)
    publish(feed, prepared(ALICE, size=1_000))
    publish(feed, *[prepared(BOB, size=1_000)] * 4)
    assert feed.held_bytes <= 4 * (EVENT_OVERHEAD_BYTES + 1_200)
    assert not alice.covers(1)
    assert bob.covers(2)
    publish(feed, prepared(BOB, size=100_000))  # larger than everything: then nothing is left
    assert feed.held_bytes == 0
    assert not bob.covers(6)
    assert bob.covers(7)


async def test_news_wakes_those_it_is_for(autojump_clock):
    feed = Feed(0)
    woken = []

    async def wait(name, subscription):
        await subscription.news()
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "alice", feed.subscribe(ALICE))
        nursery.start_soon(wait, "bob", feed.subscribe(BOB))
        nursery.start_soon(wait, "log", feed.subscribe(None))
        await trio.testing.wait_all_tasks_blocked()
        publish(feed, empty_commit("t"))
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        publish(feed, prepared(ALICE))
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(woken) == ["alice", "log"]
        nursery.cancel_scope.cancel()


async def test_a_commit_ts_that_is_reached_is_news_whoever_s_it_is(autojump_clock):
    feed = Feed(0)
    watcher = feed.subscribe(ALICE, until_ts=2)
    gone = feed.subscribe(ALICE, until_ts=1)
    gone.close()
    publish(feed, prepared(BOB))
    with trio.move_on_after(1) as waiting:
        await watcher.news()
    assert waiting.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.news)
        await trio.testing.wait_all_tasks_blocked()
        publish(feed, prepared(BOB))


def fork(agent, parent, at_ts, last_commit_ts):
    note = ForkNote(agent, parent, at_ts, Inherited(1, last_commit_ts, 1, 1, 1))
    return empty_commit("t", Notes(fork=note))


async def test_who_watches_an_agent_that_comes_to_be_as_a_fork_is_told_once_and_what_is_older_is_not_here(
    autojump_clock,
):
    feed = Feed(10)
    before, other = feed.subscribe(BOB), feed.subscribe(ALICE)
    publish(feed, prepared(ALICE))
    assert (before.covers(11), before.inherited_ts) == (True, 0)
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(before.news)
            await trio.testing.wait_all_tasks_blocked()
            publish(feed, fork(BOB, ALICE, 11, 9), prepared(ALICE))
    assert not scope.cancelled_caught
    assert before.inherited_ts == 9
    assert [before.covers(cursor) for cursor in (11, 12, 13)] == [False, False, True]
    after = feed.subscribe(BOB)
    assert after.inherited_ts == other.inherited_ts == 0
    assert other.covers(11)
    publish(feed, prepared(BOB))
    assert taken(before, 13) == taken(after, 13) == ([14], 15)
