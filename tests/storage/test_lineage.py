"""Forks: every read of one is what it would be if it had been copied, whatever became of its ancestors since."""

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage.fix_fork_reads import NEW, CopyingWriter, judge_event_ranges, judge_forks, steps
from storage.fix_past import (
    KEYS,
    at,
    diffs,
    histories,
    holds_nothing,
    judge_diffs,
    judge_histories,
    judge_names,
    judge_past,
    judge_times,
    log_events,
    pages,
    state,
    state_of_version,
)
from storage.fix_store import ALICE, BOB, CAROL, StoreBench, judge, value

from statehouse.errors import StorageError
from statehouse.limits import FORK_DEPTH
from statehouse.storage import agent_events, agents, keys, listing, past, versions
from statehouse.storage.keys import agent_prefix
from statehouse.storage.lineage import NO_END, Level
from statehouse.storage.section import walk_section
from statehouse.storage.section_fields import metadata_entries, section_agent
from statehouse.storage.section_filter import SectionFilter
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import AgentInfo, ReplayEvent


@pytest.fixture
def writer(store_bench):
    return CopyingWriter(store_bench.store())


@pytest.fixture(params=["memory", "leveldb"])
def any_writer(request, leveldb_bench, store_bench):
    return CopyingWriter((store_bench if request.param == "memory" else leveldb_bench).store())


def judge_all(writer, points):
    """Hold every read of every agent against the copies."""
    store, history, agents = writer.store, writer.history, writer.agents
    judge_forks(writer)
    judge_past(store, history, points, agents)
    judge_diffs(store, history, [(first, last) for first in points for last in points], agents)
    judge_histories(store, history, agents)
    judge_times(store, history, agents)
    judge_names(store, history)


# Against the copies


@settings(max_examples=60, deadline=None)
@given(steps)
def test_a_fork_reads_as_a_copy(steps):
    bench = StoreBench()
    try:
        writer = CopyingWriter(bench.store())
        writer.live(steps)
        judge_all(writer, range(0, len(writer.history) + 2, 2))
        judge_event_ranges(writer.store, writer.history, writer.agents)
        assert holds_nothing(writer.store)
    finally:
        bench.close()


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(1, 3), st.integers(1, 900))
def test_chunks_of_any_size_go_on_from_level_to_level(steps, count, size_bytes):
    bench = StoreBench()
    try:
        writer = CopyingWriter(bench.store())
        writer.live(steps)
        head_ts = len(writer.history)
        with pytest.MonkeyPatch.context() as small:
            for module in (agent_events, past, versions):
                small.setattr(module, "READ_CHUNK_EVENTS", count)
                small.setattr(module, "READ_CHUNK_BYTES", size_bytes)
            for module in (listing, past):
                small.setattr(module, "READ_CHUNK_ROWS", count)
            small.setattr(listing, "PAGE_BYTES", size_bytes)
            judge_all(writer, [0, head_ts // 2, head_ts])
            judge_event_ranges(writer.store, writer.history, writer.agents[-2:])
        assert holds_nothing(writer.store)
    finally:
        bench.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_longer_life_on_either_view(any_writer, seed):
    writer, rng = any_writer, random.Random(seed)
    keys_, sizes = KEYS, (20, 256, 257, 700)

    def step():
        if rng.random() < 0.15:
            return ("fork", rng.randrange(1_000), rng.randrange(1_000))
        if rng.random() < 0.05:
            return ("end", rng.randrange(1_000))
        contents = (None if rng.random() < 0.3 else value(rng.choice(sizes), rng.randrange(100)) for _ in range(5))
        return ("write", [(rng.randrange(1_000), rng.choice(keys_), content) for content in contents])

    writer.live([step() for _ in range(70)])
    judge_all(writer, sorted(rng.sample(range(len(writer.history)), 4)))


def test_a_fork_of_a_fork_64_deep(any_writer):
    """At each depth a key is written, another deleted, and the parent goes on; a part of the forks is of the past."""
    writer = any_writer
    writer.commit((ALICE, b"a", value(300)), (ALICE, b"a/1", value()))
    parent = ALICE
    for depth in range(1, FORK_DEPTH + 1):
        before = len(writer.history)
        writer.commit((parent, b"a", value(20, depth)), (parent, KEYS[depth % len(KEYS)], None))
        child = AgentId("default", f"fork-{depth}")
        writer.fork(parent, child, before if depth % 5 == 0 else None)
        writer.commit((parent, b"a/2", value(20, depth)))
        parent = child
    writer.commit((parent, b"a/1", value(300, "last")))
    writer.agents = [ALICE, *writer.agents[-2:]]
    judge_all(writer, [1, 2, len(writer.history) // 2, len(writer.history)])
    assert writer.store.forking(parent, NO_END)[1] == FORK_DEPTH + 1
    assert len(writer.store.lineage(parent, 1, 0).ancestors) == FORK_DEPTH


def test_what_a_point_before_the_parents_own_fork_gives_is_of_deeper_levels(any_writer):
    """A parent has what it inherited as of then; of its own it has nothing yet."""
    writer = any_writer
    writer.commit((ALICE, b"a", value(20, "first")))  # 1
    writer.commit((ALICE, b"a", value(20, "second")))  # 2
    writer.commit((ALICE, b"a", value(20, "third")))  # 3
    middle, early, between = (AgentId("default", name) for name in ("middle", "early", "between"))
    writer.fork(ALICE, middle, 2)  # 4
    writer.commit((middle, b"a", value(20, "own")))  # 5
    writer.fork(middle, early, 1)
    writer.fork(middle, between, 3)  # after the point of `middle`, before its fork
    assert state(writer.store.get_state(early, b"a")) == (1, 1, value(20, "first"))
    assert state(writer.store.get_state(between, b"a")) == (2, 2, value(20, "second"))
    writer.commit((early, b"a", None), (between, b"a", None))
    judge_all(writer, range(len(writer.history) + 1))
    assert writer.store.lineage(early, 9, 0).ancestors == (writer.origins[early], writer.origins[middle])
    assert [until for _, until in writer.store.levels(early)] == [NO_END, 1, 1]
    assert [until for _, until in writer.store.levels(between)] == [NO_END, 3, 2]


def test_forks_are_listed_and_found_after_the_store_was_opened_again(leveldb_bench):
    writer = CopyingWriter(leveldb_bench.store())
    writer.commit((ALICE, b"a", value(300)))
    writer.fork(ALICE, NEW)
    assert [agent for agent, _ in writer.store.agents("", None)] == [ALICE, NEW]
    assert log_events(writer.store, 1, 9) == [(1, ALICE, *writer.store.events(ALICE, 1, 1).events)]
    leveldb_bench.close()
    writer.store = leveldb_bench.store()
    judge_all(writer, [0, 1, 2])


def test_an_agent_is_deleted_until_something_is_committed_to_it(any_writer):
    writer = any_writer

    def deleted():
        infos = [AgentInfo.FromString(each) for each in writer.store.list_agents("default", "", None, 9).found]
        judge_forks(writer)
        return {info.agent_id for info in infos if info.deleted}

    writer.commit((ALICE, b"a", value()), (BOB, b"a", None))
    writer.end(BOB)  # which has no key: a commit that no agent shows
    assert deleted() == {"bob"}
    writer.end(ALICE)
    writer.fork(ALICE, NEW)
    assert deleted() == {"alice", "bob"}
    writer.commit((ALICE, b"a", None), (BOB, b"a", value()))  # it has no key, and lives
    assert deleted() == set()
    writer.end(NEW)
    assert deleted() == {"new"}


# Events


def test_what_is_sent_of_a_fork_has_no_name_of_its_ancestors_in_it(any_writer):
    writer = any_writer
    parent, middle, child = AgentId("default", "secret-parent"), AgentId("default", "secret-middle"), NEW
    txn = writer.txn((parent, b"k", value(300)), (parent, b"k", None), (parent, b"l", value()))
    txn.metadata["run"] = "r-1"
    writer.commit_group(txn)
    writer.fork(parent, middle)
    writer.commit((middle, b"k", value(30)))
    writer.fork(middle, child)
    writer.commit((child, b"k", value(30)))
    store = writer.store
    events = store.events(child, 0, 99).events
    assert len(events) == 3
    filtered = [SectionFilter(b"k").apply(event) for event in events]
    sent = [
        *events,
        *filtered,
        SectionFilter(b"", {"run": "r-1"}).apply(events[0]),
        *store.history(child, b"k", None, None).entries,
        *store.diff(child, 0, 99, b"", None).entries,
        *store.scan_prefix(child, b""),
        *store.batch_get([(child, b"k"), (child, b"l")]),
    ]
    assert store.batch_at_hand([(child, b"k"), (child, b"l")], lambda: True) is None  # `l` is the parent's
    assert store.batch_at_hand([(child, b"k")], lambda: True) == store.batch_get([(child, b"k")])
    assert [bytes_ for bytes_ in sent if b"secret" in bytes_] == []
    assert {ReplayEvent.FromString(event).agent_id for event in events + filtered} == {child.agent_id}


def test_an_inherited_event_says_the_forks_names_to_whoever_reads_it(writer):
    txn = writer.txn((ALICE, b"k", value(300)), (ALICE, b"k", None), (BOB, b"k", value()))
    txn.metadata.update({"run": "r-1", "model": "m"})
    writer.commit_group(txn)
    child = AgentId("default", "alice's \N{SNOWMAN} fork \0" * 20)
    writer.fork(ALICE, child)
    (parents,), (section,) = writer.store.events(ALICE, 1, 1).events, writer.store.events(child, 1, 1).events
    told = ReplayEvent.FromString(section)
    expected = ReplayEvent.FromString(parents)
    expected.agent_id = child.agent_id
    assert told == expected
    assert len(section) == expected.ByteSize()  # nothing is there that the message does not show
    assert section_agent(section) == walk_section(section).agent == child
    assert walk_section(section)._replace(agent=ALICE) == walk_section(parents)
    assert metadata_entries(section) == metadata_entries(parents)
    for wanted in (SectionFilter(b"k"), SectionFilter(b"", {"run": "r-1"})):
        assert ReplayEvent.FromString(wanted.apply(section)) == told
    assert SectionFilter(b"x").apply(section) is None


# What it costs


def test_who_is_no_fork_pays_for_forks_only_when_it_has_not_got_what_is_asked(store_bench, monkeypatch):
    writer = CopyingWriter(store_bench.store())
    for _ in range(20):
        writer.commit((ALICE, b"k", value()))
    writer.commit((ALICE, b"late", value()))
    writer.commit((ALICE, b"late", value()))
    store, view, asked = writer.store, writer.store._view, []
    snapshot, fork_row = view.snapshot, keys.fork_key(agent_prefix(ALICE))

    def watched(reader):
        get, get_many = reader.get, reader.get_many
        monkeypatch.setattr(reader, "get", lambda key: asked.append(key) or get(key))
        monkeypatch.setattr(reader, "get_many", lambda many: asked.extend(many) or get_many(many))
        return reader

    watched(view)
    monkeypatch.setattr(view, "snapshot", lambda: watched(snapshot()))

    def asks(read):
        asked.clear()
        read()
        return len(asked), asked.count(fork_row)

    assert asks(partial(store.get_state, ALICE, b"k")) == (1, 0)
    assert asks(partial(store.get_state, ALICE, b"k", 20)) == (1, 0)
    assert asks(partial(store.get_state, ALICE, b"k", 7))[1] == 0
    assert asks(partial(store.get_state, ALICE, b"late", 7)) == (2, 0)  # its first version is its own
    assert asks(partial(store.get_state_at_version, ALICE, b"k", 7)) == (1, 0)
    for batch in (store.batch_get, partial(store.batch_at_hand, in_time=lambda: True)):
        assert asks(partial(batch, [(ALICE, b"k"), (ALICE, b"late")])) == (2, 0)
        assert asks(partial(batch, [(ALICE, b"j"), (ALICE, b"i")])) == (3, 1)
    for limit in (5, None):
        assert asks(partial(store.history, ALICE, b"k", None, limit))[1] == 0
    assert asks(partial(store.stored, (Level(agent_prefix(ALICE), NO_END),), b"j")) == (1, 0)
    for read in (
        partial(store.get_state_at_version, ALICE, b"k", 21),
        partial(store.list_keys, ALICE),
        partial(store.list_page, ALICE, None, 9, 7),
        partial(store.events, ALICE, 0, 99),
    ):
        assert asks(read)[1] == 1
    assert asks(partial(store.get_state, ALICE, b"j")) == (2, 1)


def test_a_fork_read_of_the_past_costs_the_logarithm_of_the_versions(store_bench, monkeypatch):
    writer = CopyingWriter(store_bench.store())
    for agent in (ALICE, NEW):
        if agent is NEW:
            writer.fork(ALICE, NEW)
        for _ in range(4):
            writer.commit_group(*(writer.txn((agent, b"k", value())) for _ in range(250)))
    view, asked = writer.store._view, []
    get = view.get
    monkeypatch.setattr(view, "get", lambda key: asked.append(key) or get(key))
    for ts in (1, 2, 999, 1_000, 1_001, 1_002, 1_500, 2_000):
        asked.clear()
        assert state(writer.store.get_state(NEW, b"k", ts)) == at(writer.history, NEW, b"k", ts)
        assert len(asked) <= 2 * (1 + 11) + 2


def test_a_difference_looks_no_further_into_keys_that_the_parent_was_given_later(writer, monkeypatch):
    writer.commit(*((ALICE, b"%03d" % number, value()) for number in range(50)))
    writer.fork(ALICE, NEW)
    writer.commit(*((ALICE, b"%03d" % number, value(30)) for number in range(50)))
    writer.commit((NEW, b"007", value(30)))
    looked_at, in_force = [], past.in_force
    monkeypatch.setattr(
        past, "in_force", lambda view, rows, key, ts: looked_at.append(key) or in_force(view, rows, key, ts)
    )
    assert [key for key, _, _ in diffs(writer.store, NEW, 2, 99)] == [b"007"]
    assert looked_at == [b"007", b"007"]


def test_a_chunk_is_bounded_by_the_rows_of_all_levels(writer, monkeypatch):
    names = [b"%02d" % number for number in range(10)]
    writer.commit(*((ALICE, name, value()) for name in names))
    parent = ALICE
    for depth in range(4):
        child = AgentId("default", f"fork-{depth}")
        writer.fork(parent, child)
        writer.commit(*((child, name, value()) for name in names))
        parent = child
    for module in (listing, past):
        monkeypatch.setattr(module, "READ_CHUNK_ROWS", 20)
    store, head_ts = writer.store, len(writer.history)
    for agent, count in ((ALICE, 10), (parent, 4)):
        assert len(store.list_page(agent, None, 99, None).found) == count
        assert len(store.scan_page(agent, b"", None, 99, head_ts).found) == count
        assert len(store.diff(agent, 0, head_ts, b"", None).entries) == count
        assert pages(store, agent, 99, head_ts) == [name.decode() for name in names]
        assert [key for key, _, _ in diffs(store, agent, 0, head_ts)] == names


# While others write


def test_a_fork_stays_as_it_was_while_its_relatives_go_on(any_writer):
    writer = any_writer
    for number in range(30):
        writer.commit((ALICE, KEYS[number % 5], value(300, number) if number % 3 else None))
    writer.fork(ALICE, NEW, 20)
    store, known, over = writer.store, list(writer.history), Event()

    def read(seed):
        rng = random.Random(seed)
        while not over.is_set():
            ts, key = rng.randint(0, 25), rng.choice(KEYS)
            assert state(store.get_state(NEW, key, ts)) == at(known, NEW, key, ts)
            assert state(store.get_state(NEW, key)) == at(known, NEW, key, 20)
            judge_past(store, known, [ts], [NEW])
            assert [state_of_version(each)[1] <= 20 for each in histories(store, NEW, key)].count(False) == 0
            assert len(store.events(NEW, 0, NO_END).events) == 20

    with ThreadPoolExecutor() as threads:
        readers = [threads.submit(read, seed) for seed in range(2)]
        for number in range(150):
            writer.commit((ALICE, KEYS[number % 6], value(20, number) if number % 4 else None))
        over.set()
        for reader in readers:
            reader.result()


def test_what_a_listing_says_of_an_agent_is_of_one_moment(writer, monkeypatch):
    """Bob has no key; before it is looked whether he ended, he gets one, ends and loses it again."""
    writer.commit((BOB, b"k", None))
    look, happened = agents.ended_ts, []

    def told():
        (info,) = (AgentInfo.FromString(each) for each in writer.store.list_agents("default", "", None, 9).found)
        return info.deleted, info.operations, info.last_commit_ts

    def meanwhile(*arguments):
        if not happened:
            happened.append(writer.commit((BOB, b"k", value())))
            writer.end(BOB)
        return look(*arguments)

    monkeypatch.setattr(agents, "ended_ts", meanwhile)
    assert told() == (False, 1, 1)
    assert told() == (True, 3, 3)
    assert holds_nothing(writer.store)


@pytest.mark.parametrize("when", range(4))
def test_a_read_of_an_agent_that_becomes_a_fork_meanwhile_is_of_one_moment(when):
    """Before each of the first accesses to the view the fork is made, and written to: all of it shows, or nothing."""
    bench = StoreBench()
    reads = [
        lambda store: state(store.get_state(NEW, b"a")),
        lambda store: state(store.get_state(NEW, b"a", 99)),
        lambda store: state(store.get_state_at_version(NEW, b"a", 1)),
        lambda store: store.list_keys(NEW),
        lambda store: store.list_keys(NEW, 99),
        lambda store: pages(store, NEW, 9, None, b""),
        lambda store: [state(each) for each in store.batch_get([(NEW, b"a"), (NEW, b"b")])],
        lambda store: [each.version for each in histories(store, NEW, b"a")],
        lambda store: diffs(store, NEW, 0, 99),
        lambda store: store.events(NEW, 0, 99),
        lambda store: store.lineage(NEW, 9, 0),
    ]
    try:
        for read in reads:
            bench.close()
            bench = StoreBench()
            writer = CopyingWriter(bench.store())
            writer.commit((ALICE, b"a", value()), (ALICE, b"b", value()))
            moments = [read(writer.store)]
            with pytest.MonkeyPatch.context() as meanwhile:
                _at_access(meanwhile, writer, when, moments, read)
                found = read(writer.store)
            assert found in moments
    finally:
        bench.close()


def _at_access(meanwhile, writer, when, moments, read):
    """Have the fork made before the access with that number, and then written to; what `read` gives behind each."""
    view, count = writer.store._view, 0

    def happens():
        nonlocal count
        count += 1
        if count == when + 1:
            meanwhile.undo()
            writer.fork(ALICE, NEW)
            moments.append(read(writer.store))
            writer.commit((NEW, b"a", None), (NEW, b"c", value()))
            moments.append(read(writer.store))

    for name in ("get", "scan"):
        access = getattr(view, name)

        def watched(*args, _access=access, **options):
            happens()
            return _access(*args, **options)

        meanwhile.setattr(view, name, watched)


# Damage


@pytest.mark.parametrize("missing", [4, 6])
def test_a_version_that_is_in_no_level_is_damage_and_no_answer(store_bench, writer, missing):
    for number in range(8):
        writer.commit((ALICE, b"k", value(20, number)))
    writer.fork(ALICE, NEW)
    for number in range(3):
        writer.commit((NEW, b"k", value(20, number)))
    judge(writer.store, writer.history)
    writer.store._view.apply([(keys.version_key(agent_prefix(ALICE), b"k", missing), None)])
    for agent in (ALICE, NEW):
        store_bench.home.condemned = False
        with pytest.raises(StorageError, match="the view is damaged"):
            writer.store.get_state(agent, b"k", missing)
        assert store_bench.home.condemned


@pytest.mark.parametrize("lost", [(4,), (4, 5), (4, 5, 6), (3,), (2, 3), (7,), (6,)])
def test_a_lost_version_of_a_fork_brings_back_no_older_one(store_bench, writer, lost):
    """A fork with versions 4 to 8 behind the three that it inherits, and one that is a level deeper."""
    for number in range(3):
        writer.commit((ALICE, b"k", value(20, number)))
    middle = AgentId("default", "middle")
    writer.fork(ALICE, middle)
    writer.fork(middle, NEW)
    for agent in (ALICE, middle, NEW):
        for number in range(5):
            writer.commit((agent, b"k", value(20, number)))
    judge(writer.store, writer.history)
    store, history = writer.store, writer.history
    for owner in (ALICE, middle, NEW):
        column = agent_prefix(owner)
        rows = [keys.version_key(column, b"k", version) for version in lost]
        kept = {row: store._view.get(row) for row in rows}
        store._view.apply([(row, None) for row in rows])
        for agent in (ALICE, middle, NEW):
            for ts in range(len(history) + 1):
                due = at(history, agent, b"k", ts)
                try:
                    found = state(store.get_state(agent, b"k", ts))
                except StorageError:
                    continue
                assert found == due, (owner, agent, ts)
        store._view.apply(kept.items())
    assert [at(history, NEW, b"k", ts) for ts in (3, len(history))] == [
        state(store.get_state(NEW, b"k", ts)) for ts in (3, len(history))
    ]


@pytest.mark.parametrize(("lost", "ts"), [((3, 4), 0), ((3, 4), 1), ((3,), 0), ((3, 4, 5, 6), 3)])
def test_a_lost_first_version_of_a_fork_is_damage(store_bench, writer, lost, ts):
    for number in range(2):
        writer.commit((ALICE, b"k", value(20, number)))
    writer.fork(ALICE, NEW)
    own = [writer.commit((NEW, b"k", value(20, number))) for number in range(5)]
    view = writer.store._view
    view.apply([(keys.version_key(agent_prefix(NEW), b"k", version), None) for version in lost])
    for read in (
        partial(writer.store.get_state, NEW, b"k"),
        partial(writer.store.list_keys, NEW),
        partial(writer.store.batch_get, [(NEW, b"k")]),
    ):
        store_bench.home.condemned = False
        with pytest.raises(StorageError, match="the view is damaged"):
            read(at_ts=own[ts])
        assert store_bench.home.condemned
    assert state(writer.store.get_state(NEW, b"k", 1)) == at(writer.history, NEW, b"k", 1)


@pytest.mark.parametrize("counted", [0, 1, 3])
def test_other_live_keys_than_the_counters_say_are_damage(any_writer, counted):
    writer = any_writer
    writer.commit((ALICE, b"a", value()), (ALICE, b"b", value()), (ALICE, b"c", None))
    writer.fork(ALICE, NEW)
    for agent in (ALICE, NEW):
        assert writer.store.live_keys(agent, 2, 2) == [(b"a", 1), (b"b", 1)]
        assert writer.store.live_keys(agent, 2, 1) is None
        with pytest.raises(StorageError, match="the view is damaged"):
            writer.store.live_keys(agent, counted, 99)


def test_counters_that_are_none_are_damage(store_bench, writer):
    writer.commit((ALICE, b"k", value()))
    writer.fork(ALICE, NEW)
    writer.store._view.apply([(keys.meta_key(agent_prefix(ALICE)), b"\xff")])
    for read in (
        partial(writer.store.counters, agent_prefix(ALICE)),
        partial(writer.store.forking, ALICE, 1),
        partial(writer.store.ts_at_time, ALICE, 99),
        partial(writer.store.list_agents, "default", "", None, 9),
        partial(writer.store.agents, "", None),
    ):
        store_bench.home.condemned = False
        with pytest.raises(StorageError, match="the view is damaged"):
            read()
        assert store_bench.home.condemned


def test_a_chain_of_forks_without_an_end_is_damage(store_bench, writer):
    writer.commit((ALICE, b"k", value()), (BOB, b"k", value()))
    writer.fork(ALICE, NEW)
    view = writer.store._view
    view.apply([(keys.fork_key(agent_prefix(ALICE)), view.get(keys.fork_key(agent_prefix(NEW))))])
    for read in (
        partial(writer.store.get_state, NEW, b"never"),
        partial(writer.store.levels, NEW),
        partial(writer.store.lineage, NEW, 1, 0),
        partial(writer.store.list_keys, NEW),
    ):
        store_bench.home.condemned = False
        with pytest.raises(StorageError, match="the view is damaged"):
            read()
        assert store_bench.home.condemned
    assert writer.store.get_state(CAROL, b"k") == b""
