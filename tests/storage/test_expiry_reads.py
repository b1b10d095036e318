"""What a store shows of values that expire: nothing to who reads what there is now, all to who reads the past."""

import pytest
from attrs import evolve
from storage.fix_past import entries, histories, pages, state
from storage.fix_store import ALICE, BOB, Writer, rows_of, value

from statehouse.limits import TTL_MOST_S
from statehouse.storage import section_fields
from statehouse.storage.commit import empty_commit
from statehouse.storage.expected_rows import read_record, section_rows
from statehouse.storage.record_notes import ForkNote, Inherited, Notes
from statehouse.storage.store import Store
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import BatchGetEntry, GetStateResponse, ReplayEvent

S = 10**9
CHILD = AgentId("default", "child")
SMALL, LARGE = value(20, "small"), value(600, "large")


class Clock:
    """Turned by hand; counts how often it is read."""

    def __init__(self, store: Store) -> None:
        self.ns = 0
        self.asked = 0
        store.now_ns = self._now_ns

    def _now_ns(self) -> int:
        self.asked += 1
        return self.ns


def write(writer: Writer, *operations, ttl_s: int) -> int:
    return writer.commit_group(evolve(writer.txn(*operations), ttls_s=(ttl_s,)))


@pytest.mark.parametrize("content", [SMALL, LARGE, b""])
@pytest.mark.parametrize("ttl_s", [1, TTL_MOST_S])
def test_an_expired_value_is_absent_now_and_there_in_the_past(store_bench, content, ttl_s):
    store = store_bench.store()
    writer, clock = Writer(store), Clock(store)
    writer.commit((ALICE, b"k", SMALL), (ALICE, b"l", SMALL))
    write(writer, (ALICE, b"k", content), ttl_s=ttl_s)
    at_ns = writer.now_ns + ttl_s * S
    for now_ns, found in ((0, (2, 2, content)), (at_ns - 1, (2, 2, content)), (at_ns, (2, 2, None))):
        clock.ns = now_ns
        is_there = found[2] is not None
        assert state(store.get_state(ALICE, b"k")) == found
        assert store.list_keys(ALICE) == (["k", "l"] if is_there else ["l"])
        shown = [(b"k", found)] if is_there else []
        assert entries(store.scan_prefix(ALICE, b"")) == [*shown, (b"l", (1, 1, SMALL))]
        batch = store.batch_get([(ALICE, b"k"), (ALICE, b"l")])
        at_hand = store.batch_at_hand([(ALICE, b"k"), (ALICE, b"l")], lambda: True)
        assert at_hand == (None if content == LARGE else batch)
        [batched, other] = map(BatchGetEntry.FromString, batch)
        assert (state(batched), state(other)) == (found, (1, 1, SMALL))
        assert batched.HasField("expires_at") == is_there
        # pages of a listing of now, by the clock of the first
        assert store.list_page(ALICE, None, 9, 2, now_ns).found == store.list_keys(ALICE)
        assert entries(store.scan_page(ALICE, b"", None, 9, 2, now_ns).found) == [*shown, (b"l", (1, 1, SMALL))]
        # the past
        assert state(store.get_state(ALICE, b"k", 2)) == state(store.get_state_at_version(ALICE, b"k", 2))
        past = GetStateResponse.FromString(store.get_state(ALICE, b"k", 2))
        assert (state(past), past.expires_at.ToNanoseconds()) == ((2, 2, content), at_ns)
        assert state(store.get_state(ALICE, b"k", 1)) == (1, 1, SMALL)
        assert store.list_keys(ALICE, 2) == pages(store, ALICE, 1, 2) == ["k", "l"]
        assert entries(store.scan_prefix(ALICE, b"", 2)) == [(b"k", (2, 2, content)), (b"l", (1, 1, SMALL))]
        assert state(BatchGetEntry.FromString(store.batch_get([(ALICE, b"k")], 2)[0])) == (2, 2, content)
        newest = histories(store, ALICE, b"k")[0]
        assert (newest.exists, newest.expires_at.ToNanoseconds()) == (True, at_ns)
        event = ReplayEvent.FromString(store.events(ALICE, 2, 2).events[0])
        assert event.operations[0].ttl_s == ttl_s
        assert store.live_keys(ALICE, 2, 99) == [(b"k", 2), (b"l", 1)]


def test_a_value_without_a_ttl_never_asks_for_the_time(store_bench):
    store = store_bench.store()
    writer, clock = Writer(store), Clock(store)
    writer.commit((ALICE, b"small", SMALL), (ALICE, b"large", LARGE), (ALICE, b"gone", None))
    for key in (b"small", b"large", b"gone", b"never"):
        store.get_state(ALICE, key)
        store.get_state(ALICE, key, 1)
    assert clock.asked == 0


def test_what_replaced_a_value_in_time_shows_however_late_the_clock_is_read(store_bench):
    """The clock is read behind the row, and what it says counts for what is there then."""
    store = store_bench.store()
    writer = Writer(store)
    write(writer, (ALICE, b"k", SMALL), ttl_s=1)

    def replaced_meanwhile() -> int:
        writer.commit((ALICE, b"k", LARGE))
        return writer.now_ns + 2 * S

    store.now_ns = replaced_meanwhile
    assert state(store.get_state(ALICE, b"k")) == (2, 2, LARGE)


def test_a_value_over_an_expired_one_is_the_next_version(store_bench):
    store = store_bench.store()
    writer, clock = Writer(store), Clock(store)
    write(writer, (ALICE, b"k", SMALL), ttl_s=1)
    clock.ns = writer.now_ns + S
    assert state(store.get_state(ALICE, b"k")) == (1, 1, None)
    writer.commit((ALICE, b"k", LARGE))
    assert state(store.get_state(ALICE, b"k")) == (2, 2, LARGE)
    assert [each.exists for each in histories(store, ALICE, b"k")] == [True, True]


def test_a_fork_inherits_when_values_expire(store_bench):
    store = store_bench.store()
    writer, clock = Writer(store), Clock(store)
    write(writer, (ALICE, b"k", SMALL), (ALICE, b"l", LARGE), ttl_s=5)
    at_ns = writer.now_ns + 5 * S
    writer.commit((ALICE, b"l", SMALL))
    counters = store.forking(ALICE, 1)[0]
    note = ForkNote(CHILD, ALICE, 1, Inherited(*counters))
    group, _ = writer.group([writer.txn()])
    group._commits = (empty_commit("fork", Notes(fork=note)),)
    store.commit(group)
    for now_ns, small, large in ((at_ns - 1, SMALL, LARGE), (at_ns, None, None)):
        clock.ns = now_ns
        assert state(store.get_state(CHILD, b"k")) == (1, 1, small)
        assert state(store.get_state(CHILD, b"l")) == (1, 1, large)
        assert store.list_keys(CHILD) == ([] if small is None else ["k", "l"])
        assert [key for key, _ in entries(store.scan_prefix(CHILD, b""))] == ([] if small is None else [b"k", b"l"])
        found = map(BatchGetEntry.FromString, store.batch_get([(CHILD, b"k"), (CHILD, b"l"), (ALICE, b"l")]))
        assert [state(each) for each in found] == [(1, 1, small), (1, 1, large), (2, 2, SMALL)]
        assert store.list_keys(CHILD, 3) == ["k", "l"]
        assert store.list_page(CHILD, None, 9, 3, now_ns).found == store.list_keys(CHILD)


def test_pages_go_on_over_many_values_that_have_expired(store_bench):
    store = store_bench.store()
    writer, clock = Writer(store), Clock(store)
    write(writer, *((ALICE, f"k{number:03}".encode(), SMALL) for number in range(100)), ttl_s=1)
    writer.commit((ALICE, b"z", SMALL))
    clock.ns = writer.now_ns + S
    page = store.list_page(ALICE, None, 3, 2, clock.ns)
    assert (page.found, page.next_after) == (["z"], None)


def test_a_rebuilt_view_is_the_view(store_bench):
    writer = Writer(store_bench.store())
    write(writer, (ALICE, b"k", SMALL), (ALICE, b"l", None), (BOB, b"k", LARGE), ttl_s=TTL_MOST_S)
    writer.commit_group(
        evolve(writer.txn((ALICE, b"k", SMALL), (ALICE, b"k", LARGE), (ALICE, b"m", SMALL)), ttls_s=(0, 7)),
        evolve(writer.txn(), notes=Notes(swept_until_ns=12)),
    )
    rows = rows_of(writer.store)
    assert sum(key[:2] == b"\x01x" for key, _ in rows) == 3
    assert sum(key[:2] == b"\x01s" for key, _ in rows) == 1
    store_bench.close()
    store_bench.home.batches = None
    assert rows_of(store_bench.store()) == rows


def test_when_it_was_committed_is_looked_for_once_however_many_values_expire(store_bench, monkeypatch):
    """It stands behind the operations: once for each of them were a minute for the largest transaction."""
    looked_for = []

    def behind_operations(section: bytes, behind=section_fields._behind_operations) -> int:
        looked_for.append(section)
        return behind(section)

    monkeypatch.setattr(section_fields, "_behind_operations", behind_operations)
    writer = Writer(store_bench.store())
    counts = []
    for agent, many in ((ALICE, 1), (BOB, 50)):
        looked_for.clear()
        write(writer, *((agent, f"k{number:03}".encode(), SMALL) for number in range(many)), ttl_s=1)
        written = len(looked_for)
        record = next(writer.store._log.commits.records(writer.store.head_ts, writer.store.head_ts))
        _, (section,), _ = read_record(record)
        section_rows(section, record.commit_ts)
        counts.append((written, len(looked_for)))
    assert counts == [(1, 2)] * 2
