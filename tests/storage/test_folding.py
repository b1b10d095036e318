"""Folding the log gives the view that the commits gave, byte for byte."""

import random

import pytest
from storage.fix_store import ALICE, BOB, Writer, judge, rows_of, value

from statehouse.errors import StoreDamagedError
from statehouse.storage import folding, keys
from statehouse.storage.event_log import LogRecordAt, Placement
from statehouse.storage.folding import LogFolder, OutcomeWindow
from statehouse.storage.log_format import PAYLOAD_START
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.section import agent_fields, record_of, section_body, stamp
from statehouse.storage.view import ViewWriteError


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


def test_several_agents_in_one_record_are_each_counted(store_bench):
    writer = Writer(store_bench.store())
    writer.commit((ALICE, b"k", value()), (BOB, b"k", value()), (ALICE, b"k", None), (BOB, b"l", value()))
    writer.commit((BOB, b"k", None), (BOB, b"k", value()))
    rebuilt_rows(store_bench)
    judge(store_bench.opened[-1], writer.history)


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
