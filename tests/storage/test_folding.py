"""Folding the log gives the view that the commits gave, byte for byte."""

import random

import pytest
from storage.fix_forks import ForkWriter
from storage.fix_store import ALICE, BOB, CAROL, Writer, judge, rows_of, value
from storage.fix_verification import verified

from statehouse.errors import StoreDamagedError
from statehouse.storage import folding, keys
from statehouse.storage.commit import AgentCounters
from statehouse.storage.event_log import LogRecordAt, Placement
from statehouse.storage.folding import LogFolder, OutcomeWindow
from statehouse.storage.log_format import PAYLOAD_START
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.note_rows import idempotency_row, lease_row
from statehouse.storage.record_notes import Idempotency, LeaseChange, Notes, encode_notes
from statehouse.storage.section import agent_fields, record_of, section_body, stamp
from statehouse.storage.snapshots import list_snapshots
from statehouse.storage.view import ViewDamagedError, ViewWriteError
from statehouse.storage.wire import length_delimited


def rebuilt_rows(bench):
    """The rows of a view that is folded from the log alone."""
    bench.close()
    bench.home.set_aside()
    opened = bench.open()
    assert opened.recovery.source == "log"
    return rows_of(opened.store)


@pytest.mark.parametrize("seed", range(25))
def test_a_rebuilt_view_is_the_view(store_bench, seed, monkeypatch):
    rng = random.Random(seed)
    # Small, so that batches end and buckets are forgotten in the middle of the history.
    monkeypatch.setattr(folding, "BATCH_WRITES", rng.choice((1, 20, 8_192)))
    monkeypatch.setattr(keys, "OUTCOME_BUCKET_COMMITS", rng.choice((3, 7, 16_384)))
    monkeypatch.setattr(keys, "OUTCOME_BUCKETS", rng.choice((1, 2, 64)))
    store = store_bench.store()
    writer = Writer(store)
    writer.commit_randomly(rng, rng.randint(1, 60))
    live = rows_of(store)
    assert rebuilt_rows(store_bench) == live


@pytest.mark.parametrize("seed", range(5))
def test_a_view_that_stops_anywhere_and_is_caught_up_is_the_view(store_bench, seed):
    rng = random.Random(seed)
    store = store_bench.store()
    writer = Writer(store)
    writer.commit_randomly(rng, 30)
    live = rows_of(store)
    store_bench.close()
    whole = list(store_bench.home.batches)
    for kept in range(1, len(whole)):
        store_bench.home.batches = whole[:kept]
        opened = store_bench.open()
        assert opened.recovery.source == "view"
        assert rows_of(opened.store) == live
        judge(opened.store, writer.history)
        store_bench.close()


# Records that are whole and wrong


def record(payload, commit_ts=1):
    return LogRecordAt(commit_ts, b"c" * 32, Placement(1, 120), payload)


def section(operations=((b"k", None, 1),), agent=ALICE, txn_id="t", commit_ts=1):
    return section_body(agent_fields(agent) if agent else b"", txn_id, operations).encoded + stamp(commit_ts, 5)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (record_of([section(commit_ts=2)])[0], "commit_ts 2"),
        (record_of([section(txn_id="")])[0], "no transaction id"),
        (PAYLOAD_START, "not a transaction"),
        (PAYLOAD_START + b"\x03\xff\xff\xff", "not a transaction"),
        (b"", "no transaction id"),
        (record_of([section()])[0] + length_delimited(2, b""), "idempotency key has no key"),
        (record_of([section()])[0] + length_delimited(3, b""), "lease has no agent"),
    ],
)
def test_a_record_that_is_no_transaction_is_refused_with_its_place(payload, says):
    with pytest.raises(StoreDamagedError, match=says) as caught:
        LogFolder(MemoryView()).add(record(payload))
    for place in ("commit_ts 1", "segment 1", "offset 120"):
        assert place in caught.value.message


def test_nothing_is_applied_before_the_batch_is_full_or_flushed():
    view = MemoryView()
    folder = LogFolder(view)
    folder.flush()
    folder.add(record(record_of([section()])[0]))
    assert view.get(keys.WATERMARK_KEY) is None
    folder.flush()
    assert view.get(keys.WATERMARK_KEY) is not None
    assert folder.records == 1


def test_a_view_that_is_further_than_its_watermark_is_not_folded_into():
    view = MemoryView()
    view.apply([(keys.meta_key(keys.agent_prefix(ALICE)), AgentCounters(1, 2, 2, 2, 1).pack())])
    folder = LogFolder(view)
    with pytest.raises(ViewDamagedError, match="has not applied commit_ts 1, and has counted 2"):
        folder.add(record(record_of([section()])[0]))
    assert folder.records == 0


def test_a_view_that_is_further_than_its_watermark_with_a_fork_is_not_folded_into(store_bench):
    writer = ForkWriter(store_bench.store())
    writer.commit((ALICE, b"k", value()))
    writer.fork(ALICE, BOB)
    writer.commit((BOB, b"k", value()))
    counters = writer.store._view.get(keys.meta_key(keys.agent_prefix(BOB)))
    records = list(writer.store._log.records(0))
    view = MemoryView()
    view.apply([(keys.meta_key(keys.agent_prefix(BOB)), counters)])
    folder = LogFolder(view)
    folder.add(records[0])
    with pytest.raises(ViewDamagedError, match="has not applied commit_ts 2, and has counted 3"):
        folder.add(records[1])


def test_several_agents_in_one_record_are_each_counted(store_bench):
    writer = Writer(store_bench.store())
    writer.commit((ALICE, b"k", value()), (BOB, b"k", value()), (ALICE, b"k", None), (BOB, b"l", value()))
    writer.commit((BOB, b"k", None), (BOB, b"k", value()))
    rebuilt_rows(store_bench)
    judge(store_bench.opened[-1], writer.history)


def test_notes_are_folded_into_their_rows():
    view = MemoryView()
    folder = LogFolder(view)
    keyed = Notes(Idempotency(b"job", b"f" * 32))
    folder.add(record(record_of([section(agent=ALICE), section(agent=BOB)])[0] + encode_notes(keyed)))
    lease = LeaseChange(CAROL, 3, "worker", 9)
    nobody = section((), agent=None, commit_ts=2)
    folder.add(record(record_of([nobody])[0] + encode_notes(Notes(lease=lease)), commit_ts=2))
    folder.flush()
    for agent in (ALICE, BOB):
        assert view.get(keys.idempotency_key(keys.agent_prefix(agent), b"job", 1)) == idempotency_row(5, b"f" * 32)
    carol = keys.agent_prefix(CAROL)
    assert list(view.scan(carol, keys.prefix_end(carol))) == [(keys.lease_key(carol, 2), lease_row(lease))]


# Outcomes


def outcomes_of(view):
    return sorted(keys.unpack_outcome_key(key)[1] for key, _ in view.scan(*keys.outcome_range(0, 2**63)))


def test_outcomes_are_kept_for_so_many_buckets_and_then_forgotten(monkeypatch):
    monkeypatch.setattr(keys, "OUTCOME_BUCKET_COMMITS", 10)
    monkeypatch.setattr(keys, "OUTCOME_BUCKETS", 2)
    view = MemoryView()
    window = OutcomeWindow(view)
    for commit_ts in range(1, 46):
        view.apply([(keys.outcome_key(commit_ts // 10, f"{commit_ts:02d}"), b"x" * 8)])
        window.advance(commit_ts)
        oldest = max(commit_ts // 10 - 1, 0) * 10
        assert outcomes_of(view) == [f"{ts:02d}" for ts in range(max(oldest, 1), commit_ts + 1)]


def test_a_window_that_failed_to_forget_does_so_later(monkeypatch):
    monkeypatch.setattr(keys, "OUTCOME_BUCKET_COMMITS", 1)
    monkeypatch.setattr(keys, "OUTCOME_BUCKETS", 1)
    view = MemoryView()
    view.apply([(keys.outcome_key(ts, str(ts)), b"x" * 8) for ts in (1, 2, 3)])
    window = OutcomeWindow(view)

    def fail(writes):
        raise ViewWriteError("no")

    with monkeypatch.context() as failing:
        failing.setattr(view, "apply", fail)
        with pytest.raises(ViewWriteError):
            window.advance(2)
    window.advance(3)
    assert outcomes_of(view) == ["3"]


# Forks


def folded_and_restored(bench, monkeypatch, rng):
    """The rows of the view that the log gives, and of the one that a snapshot and the rest of the log give."""
    monkeypatch.setattr(folding, "BATCH_WRITES", rng.choice((1, 20, 200, 8_192)))
    from_snapshot = bench.open()  # the view as it is
    assert from_snapshot.recovery.source == "view"
    bench.close()
    bench.home.set_aside()
    restored = bench.open()
    assert restored.recovery.source == "snapshot"
    rows = rows_of(restored.store)
    bench.close()
    for path in list_snapshots(bench.disk, bench.place.snapshot_directory):
        bench.disk.remove(path)
    return rebuilt_rows(bench), rows


@pytest.mark.parametrize("seed", range(40))
def test_with_forks_and_ends_a_rebuilt_view_is_the_view_and_so_is_one_from_a_snapshot(store_bench, monkeypatch, seed):
    rng = random.Random(seed)
    monkeypatch.setattr(keys, "OUTCOME_BUCKET_COMMITS", rng.choice((7, 16_384)))
    monkeypatch.setattr(keys, "OUTCOME_BUCKETS", rng.choice((2, 64)))
    opened = store_bench.open(snapshot_interval=1)
    writer = ForkWriter(opened.store)
    writer.commit_randomly(rng, rng.randint(5, 50))
    opened.snapshots.write()
    writer.commit_randomly(rng, rng.randint(0, 50))
    live = rows_of(opened.store)
    for agent, moments in writer.agents.items():
        counters = moments[-1].counters if moments else AgentCounters()
        assert AgentCounters.unpack(dict(live).get(keys.meta_key(keys.agent_prefix(agent)))) == counters
    assert verified(store_bench, opened.store)[0] == []
    store_bench.close()
    assert folded_and_restored(store_bench, monkeypatch, rng) == (live, live)
    assert verified(store_bench, store_bench.opened[-1])[0] == []


@pytest.mark.parametrize("seed", range(5))
def test_with_forks_a_view_that_stops_anywhere_and_is_caught_up_is_the_view(store_bench, seed):
    store = store_bench.store()
    writer = ForkWriter(store)
    writer.commit_randomly(random.Random(seed), 30)
    live = rows_of(store)
    store_bench.close()
    whole = list(store_bench.home.batches)
    for kept in range(1, len(whole)):
        store_bench.home.batches = whole[:kept]
        assert rows_of(store_bench.open().store) == live
        store_bench.close()


def test_a_fork_that_is_written_to_in_the_batch_of_its_fork_counts_what_it_inherited(store_bench):
    """Also through several forks, the nearest of which has nothing of the key."""
    writer = ForkWriter(store_bench.store())
    first, second = (ALICE._replace(agent_id=name) for name in ("first", "second"))
    writer.commit((ALICE, b"k", value()), (ALICE, b"gone", value()), (ALICE, b"late", value()))
    at_ts = writer.commit((ALICE, b"gone", None))
    writer.commit((ALICE, b"k", None), (ALICE, b"late", None))
    writer.fork(ALICE, first, at_ts)
    writer.fork(first, second)
    writer.commit((second, b"k", None), (second, b"gone", value()), (second, b"new", value()))
    writer.commit((first, b"k", None))
    live = rows_of(writer.store)
    assert [writer.agents[agent][-1].counters.live_keys for agent in (ALICE, first, second)] == [0, 1, 3]
    assert rebuilt_rows(store_bench) == live
