"""The engine's reads: points, chunks that belong together, and a view that is away meanwhile."""

from functools import partial
from threading import Event

import pytest
import trio
import trio.testing
from storage.fix_past import diffs, histories, state
from storage.fix_store import ALICE, BOB, CAROL, FULL, Writer, value

from statehouse.actors.reads import Reads
from statehouse.errors import DiskFullError
from statehouse.limits import BATCH_AT_HAND_S, BATCH_KEYS_AT_HAND, BATCH_NOT_AT_HAND_S
from statehouse.storage import listing, past, versions
from statehouse.storage.reading import ViewAwayError
from statehouse.v1.statehouse_pb2 import AgentInfo, BatchGetEntry, DiffEntry, HistoryEntry, NamespaceInfo, StateEntry


@pytest.fixture
def writer(store_bench):
    """alice's `k` in commits 1, 3 and 4, bob's in 2; each a second after the one before."""
    writer = Writer(store_bench.store(), now_ns=0)
    for agent, content in ((ALICE, value(20)), (BOB, value(300)), (ALICE, value(300)), (ALICE, None)):
        writer.now_ns += 999_999_999
        writer.commit((agent, b"k", content))
    return writer


@pytest.fixture
def reads(writer):
    return Reads(writer.store, settled=trio.lowlevel.checkpoint)


# Points


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ({}, 4),
        ({"at_ts": 0}, 0),
        ({"at_ts": 2}, 2),
        ({"at_ts": 4}, 4),
        ({"at_ts": 2**64 - 1}, 4),
        ({"at_time_ns": 0}, 0),
        ({"at_time_ns": 999_999_999}, 0),
        ({"at_time_ns": 1_000_000_000}, 1),
        ({"at_time_ns": 2_000_000_000}, 1),
        ({"at_time_ns": 3_000_000_000}, 3),
        ({"at_time_ns": 2**62}, 4),
    ],
)
async def test_a_point_is_a_commit_at_most_the_newest(reads, point, expected):
    assert await reads.pin(ALICE, **point) == expected
    time_ns = point.get("at_time_ns")
    if time_ns is not None:
        assert await reads.ts_at_time(ALICE, time_ns) == expected


async def test_a_time_is_told_by_the_agents_own_commits_or_by_those_of_all(reads):
    assert await reads.ts_at_time(BOB, 3_500_000_000) == 2
    assert await reads.ts_at_time(CAROL, 3_500_000_000) == 0
    assert await reads.log_ts_at_time(3_500_000_000) == 3
    assert await reads.log_ts_at_time(0) == 0


async def test_the_state_at_a_point(reads):
    for point, version in (({"at_ts": 1}, 1), ({"at_ts": 2}, 1), ({"at_time_ns": 3_000_000_000}, 2), ({"at_ts": 9}, 3)):
        assert state(await reads.get_state_at(ALICE, "k", **point))[0] == version
        assert await reads.list_keys(ALICE, **point) == (["k"] if version < 3 else [])
        entries = [StateEntry.FromString(each) for each in await reads.scan_prefix(ALICE, "k", **point)]
        assert [entry.version for entry in entries] == ([version] if version < 3 else [])
    assert await reads.get_state_at(ALICE, "k", 0) == await reads.get_state_at(ALICE, "k", None, 5) == b""
    assert state(await reads.get_state_at(ALICE, "k")) == state(reads.get_state(ALICE, "k")) == (3, 4, None)
    batch = await reads.batch_get([(BOB, b"k"), (ALICE, b"k")], 3)
    assert [BatchGetEntry.FromString(each).version for each in batch] == [1, 2]
    assert [BatchGetEntry.FromString(each).version for each in await reads.batch_get([(ALICE, b"k")])] == [3]


# Many keys, at hand


async def test_keys_are_at_hand_when_none_takes_a_read_of_the_log(reads, autojump_clock):
    assert reads.batch_at_hand([(ALICE, b"k"), (CAROL, b"never")]) == await reads.batch_get(
        [(ALICE, b"k"), (CAROL, b"never")]
    )
    assert reads.batch_at_hand([(ALICE, b"k"), (BOB, b"k")]) is None


async def test_many_keys_are_not_at_hand(reads, autojump_clock):
    some = [(ALICE, b"k")] * BATCH_KEYS_AT_HAND
    assert len(reads.batch_at_hand(some)) == BATCH_KEYS_AT_HAND
    assert reads.batch_at_hand([*some, *some[:1]]) is None


async def test_keys_that_take_long_are_not_at_hand(reads, writer, monkeypatch, mock_clock):
    slow = writer.store.batch_at_hand

    def after(seconds):
        def read(keys, in_time):
            mock_clock.jump(seconds)
            return slow(keys, in_time)

        return read

    def is_at_hand(seconds=0.0):
        monkeypatch.setattr(writer.store, "batch_at_hand", after(seconds))
        return reads.batch_at_hand([(ALICE, b"k")]) is not None

    assert is_at_hand(BATCH_AT_HAND_S / 2)
    assert not is_at_hand(BATCH_AT_HAND_S)
    assert is_at_hand()
    for _ in range(2):
        assert not is_at_hand(BATCH_AT_HAND_S)
    mock_clock.jump(BATCH_NOT_AT_HAND_S - 0.001)
    assert not is_at_hand()  # it would take as long
    mock_clock.jump(0.002)
    assert not is_at_hand(BATCH_AT_HAND_S)
    assert not is_at_hand()
    mock_clock.jump(BATCH_NOT_AT_HAND_S + 0.001)
    assert is_at_hand()
    assert not is_at_hand(BATCH_AT_HAND_S)
    assert is_at_hand()


# A chunk at a time


async def test_a_page_is_filled_from_as_many_chunks_as_it_takes(reads, writer, monkeypatch):
    monkeypatch.setattr(listing, "READ_CHUNK_ROWS", 3)
    writer.commit(*((ALICE, b"%02d" % number, value() if number % 4 == 0 else None) for number in range(40)))
    head_ts = await reads.pin(ALICE)
    page = await reads.list_page(ALICE, limit=6, at_ts=head_ts)
    assert page.found == ["00", "04", "08", "12", "16", "20"]
    rest = await reads.scan_page(ALICE, "", after=page.next_after, limit=6, at_ts=head_ts)
    assert [StateEntry.FromString(each).key for each in rest.found] == ["24", "28", "32", "36"]
    assert rest.next_after is None
    assert (await reads.list_page(ALICE, limit=6, at_ts=0)).found == []


async def test_history_goes_on_while_others_commit_and_ends_at_its_limit(reads, writer, monkeypatch):
    monkeypatch.setattr(versions, "READ_CHUNK_EVENTS", 2)
    for _ in range(5):
        writer.commit((ALICE, b"k", value()))
    found = []
    async for chunk in reads.history(ALICE, "k"):
        found += [HistoryEntry.FromString(each).version for each in chunk]
        writer.commit((ALICE, b"k", value()))
    assert found == [8, 7, 6, 5, 4, 3, 2, 1]
    for limit, before, expected in ((1, 0, 1), (3, 0, 3), (4, 4, 3), (100, 1, 0), (0, 3, 2)):
        seen = [each async for chunk in reads.history(ALICE, "k", limit=limit, before_version=before) for each in chunk]
        known = histories(writer.store, ALICE, b"k", before or None)[: limit or None]
        assert [HistoryEntry.FromString(each) for each in seen] == known
        assert len(seen) == expected


async def test_a_difference_is_up_to_the_newest_commit_when_it_began(reads, writer, monkeypatch):
    monkeypatch.setattr(past, "READ_CHUNK_ROWS", 1)
    writer.commit(*((ALICE, b"%d" % number, value()) for number in range(5)))
    found = []
    async for chunk in reads.diff(ALICE, from_ts=3):
        found += [DiffEntry.FromString(each).key for each in chunk]
        writer.commit((ALICE, b"4", value()), (ALICE, b"5", value()))
    assert found == ["0", "1", "2", "3", "4", "k"]
    for given, points in (
        ({"from_time_ns": 1_000_000_000, "to_time_ns": 3_000_000_000}, (1, 3)),
        ({"to_ts": 3}, (0, 3)),
        ({"from_ts": 4, "to_ts": 1}, (4, 1)),
        ({"from_ts": 99}, (99, 99)),
    ):
        seen = [DiffEntry.FromString(each) async for chunk in reads.diff(ALICE, "k", **given) for each in chunk]
        assert [(e.key.encode(), state(e.before), state(e.after)) for e in seen] == diffs(
            writer.store, ALICE, *points, b"k"
        )


async def test_namespaces_are_summed_up_over_chunks_of_agents(reads, writer, monkeypatch):
    monkeypatch.setattr("statehouse.storage.reading.PAGE_AGENTS", 1)
    writer.commit((CAROL, b"k", value()))
    page = await reads.list_namespaces(limit=10)
    infos = [NamespaceInfo.FromString(each) for each in page.found]
    assert [(info.namespace, info.agents, info.commits, info.live_keys) for info in infos] == [
        ("default", 2, 4, 1),
        ("other", 1, 1, 1),
    ]
    assert (infos[0].first_commit_ts, infos[0].last_commit_ts, infos[0].operations) == (1, 4, 4)
    assert page.next_after is None
    first = await reads.list_namespaces(limit=1)
    assert (first.found, first.next_after) == (page.found[:1], "default")
    assert (await reads.list_namespaces(after="default", limit=1)).found == page.found[1:]
    assert (await reads.list_namespaces("ot", limit=1)).found == page.found[1:]
    agents = await reads.list_agents("default", after="alice", limit=5)
    assert [AgentInfo.FromString(each).agent_id for each in agents.found] == ["bob"]


# A view that is away


async def test_reads_wait_for_a_view_that_is_opened_anew(store_bench, reads, writer, monkeypatch):
    store_bench.home.fail_next_batch(FULL)
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value()))
    calls = [
        partial(reads.get_state_at, ALICE, "k", 3),
        partial(reads.list_keys, ALICE, None, 3_000_000_000),
        partial(reads.scan_page, ALICE, "", limit=9, at_ts=3),
        partial(reads.batch_get, [(ALICE, b"k")]),
        partial(reads.list_namespaces, limit=9),
        partial(reads.get_state_later, ALICE, "k"),
    ]
    before = [await call() for call in calls]
    is_closed, may_open, find = Event(), Event(), type(store_bench.home).find

    def slow_find(home):
        is_closed.set()
        may_open.wait()
        return find(home)

    monkeypatch.setattr(type(store_bench.home), "find", slow_find)
    found: dict[int, object] = {}

    async def ask(number):
        found[number] = await calls[number]()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, writer.store.mend_view)
        await trio.to_thread.run_sync(is_closed.wait)
        for at_once in (partial(reads.get_state, ALICE, "k"), partial(reads.batch_at_hand, [(ALICE, b"k")])):
            with pytest.raises(ViewAwayError):
                at_once()
        for number in range(len(calls)):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        assert found == {}
        may_open.set()
    assert [found[number] for number in range(len(calls))] == before
