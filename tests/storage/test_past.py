"""What a store says of its past, against the list of all that was committed."""

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage.fix_past import (
    AGENTS,
    KEYS,
    at,
    diffs,
    groups,
    histories,
    holds_nothing,
    judge_diffs,
    judge_histories,
    judge_names,
    judge_past,
    judge_times,
    judge_whole_log,
    log_events,
    pages,
    state,
    state_of_version,
    written,
)
from storage.fix_store import ALICE, BOB, CAROL, FULL, StoreBench, Writer, value

from statehouse.errors import DiskFullError, OverloadedError, StorageError, StoreDamagedError
from statehouse.limits import READ_CHUNK_EVENTS
from statehouse.storage import agent_events, agents, keys, listing, log_commits, past, reading, versions
from statehouse.storage.batch import KEYS_A_LOOK
from statehouse.storage.commit import GroupCommit, PreparedCommit, prepare_section
from statehouse.storage.keys import agent_prefix
from statehouse.storage.record_notes import Idempotency, LeaseChange, Notes
from statehouse.storage.section import agent_fields, metadata_fields
from statehouse.storage.store import Earlier, LeaseRow, ViewAwayError
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import AgentInfo, BatchGetEntry, DiffEntry, GetStateResponse

SEGMENT = "log/00000000000000000001.log"


@pytest.fixture(params=["memory", "leveldb"])
def random_writer(request, leveldb_bench, store_bench):
    """A store on either view with a few hundred random commits, over several segments."""
    bench = store_bench if request.param == "memory" else leveldb_bench
    writer = Writer(bench.store())
    rng = random.Random(5)
    for _ in range(60):
        writer.now_ns += rng.randrange(3)
        writer.commit_group(*(writer.txn(*_operations(rng)) for _ in range(rng.randint(1, 4))))
    return writer


def _operations(rng):
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        content = None if rng.random() < 0.3 else value(rng.choice((20, 256, 257, 700)), rng.randrange(100))
        yield rng.choice(AGENTS), rng.choice(KEYS), content


# Against the model


@settings(max_examples=60, deadline=None)
@given(groups)
def test_every_point_of_every_history_is_shown_as_it_was(history):
    bench = StoreBench()
    try:
        writer = written(bench, history)
        store, head_ts = writer.store, len(writer.history)
        points = range(head_ts + 2)
        judge_past(store, writer.history, points)
        judge_diffs(store, writer.history, [(a, b) for a in points for b in points])
        judge_histories(store, writer.history)
        judge_times(store, writer.history)
        judge_whole_log(store, writer.history, points)
        judge_names(store, writer.history)
        assert holds_nothing(store)
    finally:
        bench.close()


@settings(max_examples=40, deadline=None)
@given(groups, st.integers(1, 3), st.integers(1, 900))
def test_chunks_of_any_size_say_the_same(history, count, size_bytes):
    bench = StoreBench()
    try:
        writer = written(bench, history)
        head_ts = len(writer.history)
        with pytest.MonkeyPatch.context() as small:
            for module in (reading, agent_events, past, versions):
                small.setattr(module, "READ_CHUNK_EVENTS", count)
                small.setattr(module, "READ_CHUNK_BYTES", size_bytes)
            for module in (listing, past):
                small.setattr(module, "READ_CHUNK_ROWS", count)
            small.setattr(listing, "PAGE_BYTES", size_bytes)
            small.setattr(agents, "PAGE_AGENTS", 100)
            small.setattr(log_commits, "LOG_PLACE_BYTES", size_bytes)
            small.setattr(log_commits, "LOG_PLACES", 4 * count)
            judge_past(writer.store, writer.history, [0, head_ts // 2, head_ts])
            judge_diffs(writer.store, writer.history, [(0, head_ts), (head_ts // 2, head_ts), (head_ts, 1)])
            judge_histories(writer.store, writer.history)
            for _ in range(2):  # with places that are remembered, too
                judge_times(writer.store, writer.history)
                judge_whole_log(writer.store, writer.history, range(head_ts + 2))
        assert holds_nothing(writer.store)
    finally:
        bench.close()


def test_a_longer_history_on_either_view(random_writer):
    store, history = random_writer.store, random_writer.history
    rng = random.Random(6)
    judge_past(store, history, sorted(rng.sample(range(len(history)), 12)))
    judge_diffs(store, history, [tuple(rng.choices(range(len(history)), k=2)) for _ in range(6)])
    judge_histories(store, history)
    judge_times(store, history)
    judge_whole_log(store, history, [1, 2, 77, len(history)])
    judge_names(store, history)


# One key


@pytest.fixture
def writer(store_bench):
    """alice's `k`: never in 1, written in 2, twice in 4, deleted in 5, written in 7 and deleted in the same commit."""
    writer = Writer(store_bench.store())
    writer.commit((BOB, b"k", value(300)))
    writer.commit((ALICE, b"k", value(20, "first")))
    writer.commit((BOB, b"k", None))
    writer.commit((ALICE, b"k", value(20, "second")), (ALICE, b"k", value(400, "third")))
    writer.commit((ALICE, b"k", None))
    writer.commit()
    writer.commit((ALICE, b"k", value(30, "again")), (ALICE, b"k", None), (ALICE, b"j", value()))
    return writer


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        (0, (0, 0, None)),
        (1, (0, 0, None)),
        (2, (1, 2, value(20, "first"))),
        (3, (1, 2, value(20, "first"))),
        (4, (3, 4, value(400, "third"))),
        (5, (4, 5, None)),
        (6, (4, 5, None)),
        (7, (6, 7, None)),
        (8, (6, 7, None)),
        (2**64 - 1, (6, 7, None)),
    ],
)
def test_a_key_is_as_the_newest_of_its_versions_then(writer, ts, expected):
    assert state(writer.store.get_state(ALICE, b"k", ts)) == expected


def test_what_was_not_written_yet_is_the_empty_answer(writer):
    store = writer.store
    for ts in (0, 1, 7, 99):
        assert store.get_state(ALICE, b"never", ts) == b""
        assert store.get_state(CAROL, b"k", ts) == b""
        assert store.list_keys(CAROL, ts) == store.scan_prefix(CAROL, b"", ts) == []
    assert store.get_state(ALICE, b"k", 1) == store.get_state(ALICE, b"k", 0) == b""
    assert store.history(ALICE, b"never", None, None) == versions.HistoryChunk([], None)
    assert store.history(ALICE, b"k", 1, None) == versions.HistoryChunk([], None)
    assert store.diff(CAROL, 0, 99, b"", None) == past.DiffChunk([], None)


def test_a_read_of_the_past_costs_the_logarithm_of_the_versions(store_bench, monkeypatch):
    writer = Writer(store_bench.store())
    for _ in range(8):
        writer.commit_group(*(writer.txn((ALICE, b"k", value())) for _ in range(256)))
    view = writer.store._view
    asked = []
    get = view.get
    monkeypatch.setattr(view, "get", lambda key: asked.append(key) or get(key))
    for ts in (1, 2, 1_000, 1_024, 2_047):
        asked.clear()
        assert state(writer.store.get_state(ALICE, b"k", ts))[:2] == (ts, ts)
        assert len(asked) <= 1 + 11
    asked.clear()
    writer.store.get_state(ALICE, b"k", 2_048)
    assert len(asked) == 1  # the newest state is looked at first


def test_a_difference_is_of_versions_and_not_of_values(writer):
    """Written and deleted between the points: there is no value at either, and it is told all the same."""
    assert diffs(writer.store, ALICE, 5, 7, b"k") == [(b"k", (4, 5, None), (6, 7, None))]
    assert diffs(writer.store, ALICE, 7, 5, b"k") == [(b"k", (6, 7, None), (4, 5, None))]
    assert diffs(writer.store, ALICE, 5, 6) == diffs(writer.store, ALICE, 7, 99) == []
    (new,) = (DiffEntry.FromString(each) for each in writer.store.diff(ALICE, 6, 7, b"j", None).entries)
    assert (new.key, new.before, new.after.version) == ("j", GetStateResponse(), 1)


def test_a_difference_looks_no_further_into_keys_that_are_as_they_were(store_bench, monkeypatch):
    writer = Writer(store_bench.store())
    writer.commit(*((ALICE, b"%03d" % number, value()) for number in range(50)))
    writer.commit((ALICE, b"007", value(30)))
    view = writer.store._view
    monkeypatch.setattr(past, "in_force", lambda view, rows, key, *rest: looked_at.append(key) or b"\x10\x01\x18\x01")
    looked_at = []
    writer.store.diff(ALICE, 1, 2, b"", None)
    assert looked_at == [b"007", b"007"]
    assert view is writer.store._view


def test_history_has_the_metadata_of_the_commit(store_bench):
    writer = Writer(store_bench.store())
    metadata = {"run": "r-1", "model": "m", "": "empty", "\N{SNOWMAN}": ""}
    prepared, _ = writer.group([writer.txn((ALICE, b"k", value(300)), (ALICE, b"k", None))])
    before = prepared._commits[0].sections[0]
    section = prepare_section(
        before.column_prefix, agent_fields(ALICE), "txn", [(b"k", value(300), 1), (b"k", None, 2)], before.counters,
        metadata_fields(metadata),
    )  # fmt: skip
    writer.store.commit(GroupCommit(1, 5_000_000_000, [PreparedCommit("txn", (section,))]))
    found = histories(writer.store, ALICE, b"k")
    assert [state_of_version(each) for each in found] == [(2, 1, None), (1, 1, value(300))]
    assert [dict(each.metadata) for each in found] == [metadata, metadata]
    assert [each.committed_at.ToNanoseconds() for each in found] == [5_000_000_000] * 2


@pytest.mark.parametrize("count", [READ_CHUNK_EVENTS - 1, READ_CHUNK_EVENTS, READ_CHUNK_EVENTS + 1])
def test_history_comes_in_chunks_of_so_many(store_bench, count):
    writer = Writer(store_bench.store())
    for start in range(0, count, 256):
        writer.commit_group(*(writer.txn((ALICE, b"k", None)) for _ in range(min(256, count - start))))
    chunk = writer.store.history(ALICE, b"k", None, None)
    assert len(chunk.entries) == min(count, READ_CHUNK_EVENTS)
    assert chunk.next_before == (None if count <= READ_CHUNK_EVENTS else 2)
    assert [each.version for each in histories(writer.store, ALICE, b"k")] == list(range(count, 0, -1))


# Pages


def test_a_page_with_nothing_behind_it_says_so(writer):
    writer.commit((ALICE, b"l", value()))
    for limit, expected in ((1, "k"), (2, None), (3, None)):  # `k` is deleted, and was looked at
        page = writer.store.list_page(ALICE, None, limit, None)
        assert page.found == ["j", "l"][:limit]
        assert page.next_after == expected
        assert page.more == (expected is not None)
    assert writer.store.list_page(ALICE, b"l", 1, None).found == []
    assert writer.store.list_page(ALICE, b"zzz", 1, None).next_after is None
    assert writer.store.scan_page(ALICE, b"j", b"zzz", 1, None).found == []
    assert len(writer.store.scan_page(ALICE, b"j", b"a", 1, None).found) == 1


def test_a_page_is_no_larger_than_a_client_takes(store_bench, monkeypatch):
    monkeypatch.setattr(listing, "PAGE_BYTES", 1_000)
    writer = Writer(store_bench.store())
    writer.commit(*((ALICE, b"%03d" % number, value(400)) for number in range(9)))
    page = writer.store.scan_page(ALICE, b"", None, 100, None)
    assert (len(page.found), page.next_after) == (3, "002")
    assert len(pages(writer.store, ALICE, 100, None, b"")) == 9
    assert len(writer.store.list_page(ALICE, None, 100, None).found) == 9  # keys alone are small


def test_all_pages_show_one_moment_whatever_is_committed_between_them(store_bench):
    writer = Writer(store_bench.store())
    writer.commit(*((ALICE, b"%03d" % number, value()) for number in range(20)))
    found, after = [], None
    while True:
        page = writer.store.list_page(ALICE, after, 3, 1)
        found += page.found
        writer.commit((ALICE, b"%03d" % (len(found) + 1), None), (ALICE, b"%03d-new" % len(found), value()))
        assert holds_nothing(writer.store)
        if page.next_after is None:
            break
        after = page.next_after.encode()
    assert found == [f"{number:03}" for number in range(20)]


def test_a_chunk_looks_at_so_many_keys_and_no_more(store_bench, monkeypatch):
    monkeypatch.setattr(listing, "READ_CHUNK_ROWS", 4)
    writer = Writer(store_bench.store())
    writer.commit(*((ALICE, b"%02d" % number, None) for number in range(10)))
    writer.commit((ALICE, b"99", value()))
    page = writer.store.list_page(ALICE, None, 5, None)
    assert (page.found, page.next_after) == ([], "03")
    assert pages(writer.store, ALICE, 5, None) == ["99"]


def test_answers_of_the_past_that_are_too_large_are_refused(writer, monkeypatch):
    monkeypatch.setattr(listing, "RESPONSE_BYTES", 350)
    assert state(writer.store.get_state(ALICE, b"k", 4))[0] == 3
    for read in (
        partial(writer.store.scan_prefix, ALICE, b"", 4),
        partial(writer.store.batch_get, [(ALICE, b"k")], 4),
        partial(writer.store.batch_get, [(ALICE, b"never")] * 20, 4),
    ):
        with pytest.raises(OverloadedError, match="350 bytes"):
            read()


# Many keys


def test_a_batch_is_in_the_order_asked_and_from_one_moment(writer, monkeypatch):
    wanted = [(BOB, b"k"), (ALICE, b"j"), (BOB, b"k"), (CAROL, b"never"), (ALICE, b"k")]
    found = [BatchGetEntry.FromString(each) for each in writer.store.batch_get(wanted)]
    assert [(each.namespace, each.agent_id, each.key.encode()) for each in found] == [(*a, k) for a, k in wanted]
    assert [each.version for each in found] == [2, 1, 2, 0, 6]
    assert writer.store.batch_get([]) == []
    # A commit in the middle of it is not shown.
    view = writer.store._view
    snapshot = view.snapshot

    def commits_once():
        moment = snapshot()
        monkeypatch.setattr(view, "snapshot", snapshot)
        writer.commit((ALICE, b"k", value()), (BOB, b"k", value()))
        return moment

    monkeypatch.setattr(view, "snapshot", commits_once)
    assert [BatchGetEntry.FromString(each) for each in writer.store.batch_get(wanted)] == found
    assert holds_nothing(writer.store)


def test_what_is_at_hand_is_what_a_batch_is_unless_time_is_up(store_bench):
    writer = Writer(store_bench.store())
    some = [b"%03d" % number for number in range(3 * KEYS_A_LOOK)]
    writer.commit(*((ALICE, key, value(20)) for key in some[::2]), (BOB, b"k", None), (BOB, b"large", value(300)))
    store, wanted = writer.store, [(ALICE, key) for key in some]
    always = lambda: True  # noqa: E731
    assert store.batch_at_hand(wanted, always) == store.batch_get(wanted)
    assert store.batch_at_hand([*wanted, (BOB, b"k")], always) == store.batch_get([*wanted, (BOB, b"k")])
    assert store.batch_at_hand([*wanted, (BOB, b"large")], always) is None
    assert store.batch_at_hand([], always) == []
    looks = []
    assert store.batch_at_hand(wanted, lambda: looks.append(None) or True) is not None
    assert len(looks) >= len(some[1::2]) + 3
    for until in range(len(looks)):
        clock = iter([True] * until + [False])
        assert store.batch_at_hand(wanted, lambda clock=clock: next(clock)) is None
    assert holds_nothing(store)


def test_a_look_at_the_view_is_short_and_ends_with_the_first_value_that_stands_in_the_log(writer, monkeypatch):
    some = [b"%03d" % number for number in range(100)]
    writer.commit(*((ALICE, key, value(300 if key == b"050" else 20)) for key in some))
    view, looks = writer.store._view, []
    snapshot = view.snapshot

    def watched():
        moment = snapshot()
        get_many = moment.get_many
        monkeypatch.setattr(moment, "get_many", lambda keys: looks.append(len(keys)) or get_many(keys))
        return moment

    monkeypatch.setattr(view, "snapshot", watched)
    assert writer.store.batch_at_hand([(ALICE, key) for key in some], lambda: True) is None
    assert looks == [1, 2, 4, 8, KEYS_A_LOOK, KEYS_A_LOOK, KEYS_A_LOOK]


# Agents and namespaces


def test_agents_are_found_whatever_their_names(store_bench):
    names = ["a", "a\x00", "a\x00b", "a/1", "b", "\U0010ffff", "a\x01", "a\uffff"]
    writer = Writer(store_bench.store())
    agents = [AgentId(namespace, agent_id) for namespace in names for agent_id in names]
    for agent in agents:
        writer.commit((agent, b"k", value()), (agent, b"k\x00", None))
    by_bytes = sorted(names, key=str.encode)
    for namespace in names:
        for prefix in ("", "a", "a\x00", "a/", "\U0010ffff", "c"):
            expected = [name for name in by_bytes if name.startswith(prefix)]
            assert _agent_pages(writer.store, namespace, prefix, 2) == expected
            assert [agent for agent, _ in writer.store.agents(prefix, None)] == [
                AgentId(name, agent_id) for name in expected for agent_id in by_bytes
            ]
    every = [agent for agent, _ in writer.store.agents("", None)]
    for place, agent in enumerate(every):
        assert [agent for agent, _ in writer.store.agents("", agent)] == every[place + 1 :]
        behind = [each for each in every if each.namespace.encode() > agent.namespace.encode()]
        assert [agent for agent, _ in writer.store.agents("", agent.namespace)] == behind
    assert writer.store.agents("a/", AgentId("b", "a")) == []
    assert writer.store.list_agents("none", "", None, 5) == listing.Page([], None)


def test_a_page_of_agents_is_no_longer_than_the_limit_on_pages(store_bench, monkeypatch):
    monkeypatch.setattr(agents, "PAGE_AGENTS", 2)
    writer = Writer(store_bench.store())
    for number in range(5):
        writer.commit((AgentId("n", f"agent-{number}"), b"k", value()))
    page = writer.store.list_agents("n", "", None, 100)
    assert (len(page.found), page.next_after) == (2, "agent-1")
    assert len(_agent_pages(writer.store, "n", "", 100)) == 5


def _agent_pages(store, namespace, prefix, limit):
    found, after = [], None
    while True:
        page = store.list_agents(namespace, prefix, after, limit)
        found += [AgentInfo.FromString(each).agent_id for each in page.found]
        assert len(page.found) <= limit
        if page.next_after is None:
            return found
        after = page.next_after


@pytest.mark.parametrize(("limit", "is_full"), [(1, True), (2, False), (3, False)])
def test_a_tally_is_full_when_a_namespace_more_begins(writer, limit, is_full):
    writer.commit((CAROL, b"k", value()))
    tally = agents.NamespaceTally(limit)
    for agent, counters in writer.store.agents("", None):
        tally.add(agent, counters)
    page = tally.page()
    assert tally.is_full == is_full
    assert (len(page.found), page.next_after) == (min(limit, 2), "default" if is_full else None)


# For the partitions


def _noted(writer, notes, *operations):
    commit_ts = len(writer.history) + 1
    group, committed = writer.group([writer.txn(*operations)])
    prepared = group._commits[0]
    writer.now_ns += 7
    writer.store.commit(
        GroupCommit(commit_ts, writer.now_ns, [PreparedCommit(prepared.txn_id, prepared.sections, notes)])
    )
    writer.history += committed
    return commit_ts


def test_earlier_requests_and_leases_are_found_newest_first(any_bench):
    writer = Writer(any_bench.store())
    alice, bob = agent_prefix(ALICE), agent_prefix(BOB)
    assert writer.store.idempotent(alice, b"key") is writer.store.lease(alice) is None
    for mark in (b"1", b"2"):
        _noted(writer, Notes(Idempotency(b"key", mark * 32)), (ALICE, b"k", value()), (BOB, b"k", value()))
    time_ns = writer.now_ns
    _noted(writer, Notes(Idempotency(b"key\x00", b"3" * 32)), (ALICE, b"k", value()))
    _noted(writer, Notes(lease=LeaseChange(ALICE, 1, "me", 77)))
    _noted(writer, Notes(lease=LeaseChange(ALICE, 2, "you", 0)))
    for _ in range(2):
        store = writer.store
        assert store.idempotent(alice, b"key") == store.idempotent(bob, b"key") == Earlier(2, time_ns, b"2" * 32)
        assert store.idempotent(alice, b"key\x00").commit_ts == 3
        assert store.idempotent(bob, b"key\x00") is store.idempotent(alice, b"ke") is None
        assert store.lease(alice) == LeaseRow(5, 2, "you", 0)
        assert store.lease(bob) is None
        assert [agent for agent, _ in store.agents("", None)] == [ALICE, BOB]
        section = store.section(alice, 2)
        assert (section.agent, section.commit_ts) == (ALICE, 2)
        assert [(each.key, each.version) for each in section.operations] == [(b"k", 2)]
        assert store.section(bob, 3) is store.section(alice, 5) is store.section(alice, 99) is None
        any_bench.close()
        writer.store = any_bench.store()


def test_an_agent_that_has_a_lease_and_nothing_more_is_not_listed(store_bench):
    writer = Writer(store_bench.store())
    _noted(writer, Notes(lease=LeaseChange(ALICE, 1, "me", 77)))
    writer.commit((BOB, b"k", value()))
    assert [agent for agent, _ in writer.store.agents("", None)] == [BOB]
    assert writer.store.list_agents("default", "", None, 1).next_after is None


# While others write, and when the view is away


def test_the_past_stays_as_it_was_while_commits_go_on(random_writer):
    store = random_writer.store
    known = list(random_writer.history)
    head_ts, over = len(known), Event()

    def read(seed):
        rng = random.Random(seed)
        count = 0
        while not over.is_set() or count < 5:
            ts, agent, key = rng.randint(0, head_ts), rng.choice(AGENTS), rng.choice(KEYS)
            assert state(store.get_state(agent, key, ts)) == at(known, agent, key, ts)
            if count % 5 == 0:
                judge_past(store, known, [ts])
                judge_diffs(store, known, [(ts, head_ts)])
                assert log_events(store, ts, head_ts) == log_events(store, ts, head_ts)
                assert store.log_ts_at_time(known[ts - 1].time_ns if ts else 0) >= ts
            count += 1

    with ThreadPoolExecutor() as threads:
        readers = [threads.submit(read, seed) for seed in range(2)]
        random_writer.now_ns += 1
        random_writer.commit_randomly(random.Random(9), 150)
        over.set()
        for reader in readers:
            reader.result()


def test_a_view_that_is_opened_anew_shows_the_same_past(store_bench, writer, monkeypatch):
    store_bench.home.fail_next_batch(FULL)
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value()))
    reads = [
        partial(writer.store.get_state, ALICE, b"k", 4),
        partial(writer.store.list_keys, ALICE, 4),
        partial(writer.store.scan_prefix, ALICE, b"", 4),
        partial(writer.store.list_page, ALICE, None, 9, 4),
        partial(writer.store.scan_page, ALICE, b"", None, 9, 4),
        partial(writer.store.batch_get, [(ALICE, b"k"), (BOB, b"k")], 4),
        partial(writer.store.history, ALICE, b"k", None, None),
        partial(writer.store.diff, ALICE, 1, 4, b"", None),
        partial(writer.store.ts_at_time, ALICE, writer.now_ns),
        partial(writer.store.list_agents, "default", "", None, 9),
        partial(writer.store.agents, "", None),
    ]
    before = [read() for read in reads]
    is_closed, may_open, find = Event(), Event(), type(store_bench.home).find

    def slow_find(home):
        is_closed.set()
        may_open.wait()
        return find(home)

    monkeypatch.setattr(type(store_bench.home), "find", slow_find)
    with ThreadPoolExecutor(max_workers=len(reads) + 1) as threads:
        mended = threads.submit(writer.store.mend_view)
        is_closed.wait()
        for read in reads:
            with pytest.raises(ViewAwayError):
                read()
        prefix = agent_prefix(ALICE)
        for needed in (
            partial(writer.store.idempotent, prefix, b"i"),
            partial(writer.store.lease, prefix),
            partial(writer.store.section, prefix, 4),
        ):
            with pytest.raises(DiskFullError, match="nothing of the commit was done"):
                needed()
        assert log_events(writer.store, 1, 3)  # the log is there
        waiting = [threads.submit(writer.store.patiently, read) for read in reads]
        may_open.set()
        assert [each.result() for each in waiting] == before
        mended.result()
    writer.commit((ALICE, b"k", value()))
    judge_past(writer.store, writer.history, range(len(writer.history) + 1))


# Damage


def test_a_version_that_is_missing_is_damage_and_no_answer(store_bench, writer):
    writer.store._view.apply([(keys.version_key(agent_prefix(ALICE), b"k", 3), None)])
    with pytest.raises(StorageError, match="the view is damaged"):
        writer.store.get_state(ALICE, b"k", 4)
    assert store_bench.home.condemned


def test_a_version_whose_event_is_missing_is_damage(store_bench, writer):
    writer.store._view.apply([(keys.event_key(agent_prefix(ALICE), 4), None)])
    with pytest.raises(StorageError, match="the view is damaged"):
        writer.store.history(ALICE, b"k", None, None)
    assert store_bench.home.condemned


def test_a_damaged_record_is_named_and_nothing_of_it_is_shown(store_bench, writer):
    segment = store_bench.log_content()["00000000000000000001.log"]
    store_bench.disk.flip_bit(SEGMENT, segment.index(value(400, "third")) + 50)
    for read in (
        partial(writer.store.get_state, ALICE, b"k", 4),
        partial(writer.store.history, ALICE, b"k", None, None),
        partial(writer.store.batch_get, [(ALICE, b"k")], 4),
        partial(writer.store.scan_page, ALICE, b"", None, 9, 4),
        partial(writer.store.diff, ALICE, 1, 4, b"", None),
        partial(writer.store.log_sections, 4, 9),
        partial(writer.store.log_sections, 5, 9),
    ):
        with pytest.raises(StoreDamagedError, match="commit_ts 4"):
            read()
    assert [commit_ts for commit_ts, _, _ in writer.store.log_sections(1, 3).events] == [1, 2, 3]
    assert not store_bench.home.condemned


@pytest.mark.parametrize("field", [slice(-12, -8), slice(-8, -4), slice(-4, None)], ids=["offset", "length", "CRC"])
@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.get_state_at_version(ALICE, b"k", 3),
        lambda store: store.get_state(ALICE, b"k", 4),
        lambda store: store.batch_get([(ALICE, b"k")], 4),
        lambda store: store.scan_prefix(ALICE, b"", 4),
        lambda store: store.scan_page(ALICE, b"", None, 9, 4),
        lambda store: store.history(ALICE, b"k", None, None),
        lambda store: store.diff(ALICE, 3, 4, b"", None),
    ],
    ids=["version", "as of", "batch", "scan", "page", "history", "diff"],
)
def test_a_row_that_points_elsewhere_for_a_value_is_the_views_damage(store_bench, writer, read, field):
    change_pointer(writer.store, keys.version_key(agent_prefix(ALICE), b"k", 3), field)
    with pytest.raises(StorageError, match="the view is damaged: restart"):
        read(writer.store)
    assert store_bench.home.condemned


@pytest.mark.parametrize("field", [slice(0, 4), slice(4, 8), slice(8, 12)], ids=["offset", "length", "CRC"])
@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.events(ALICE, 1, 9),
        lambda store: store.section(agent_prefix(ALICE), 4),  # for an answer that is given once more
        lambda store: store.ts_at_time(ALICE, store.head_time_ns),
    ],
    ids=["replay", "answer", "time"],
)
def test_a_row_that_points_elsewhere_for_an_event_is_the_views_damage(store_bench, writer, read, field):
    change_pointer(writer.store, keys.event_key(agent_prefix(ALICE), 4), field)
    with pytest.raises(StorageError, match="the view is damaged: restart"):
        read(writer.store)
    assert store_bench.home.condemned


def change_pointer(store, row, field):
    """One bit of one field of what a row points with."""
    stored = bytearray(store._view.get(row))
    stored[field] = (int.from_bytes(stored[field]) ^ 1).to_bytes(4)
    store._view.apply([(row, bytes(stored))])
