"""Reading the log from a commit on: what is read twice, and what is remembered of it."""

from contextlib import closing

import pytest
from storage.fix_store import ALICE, Writer, value

from statehouse.errors import StorageError, StoreDamagedError
from statehouse.storage import log_commits
from statehouse.storage.log_reader import SegmentScan


@pytest.fixture
def log(store_bench):
    """A log of 100 commits of about 300 bytes, a dozen in each segment."""
    writer = Writer(store_bench.store())
    for number in range(100):
        writer.commit((ALICE, b"k", value(200, number)))
    assert len(store_bench.log_content()) > 5
    return writer.store._log


@pytest.fixture
def walked(monkeypatch):
    """The commits that were walked over, in turn."""
    seen = []
    records = SegmentScan.records

    def counting(self, *arguments, **named):
        for record in records(self, *arguments, **named):
            seen.append(record.commit_ts)
            yield record

    monkeypatch.setattr(SegmentScan, "records", counting)
    return seen


def read(log, first_ts, last_ts):
    with closing(log.commits.records(first_ts, last_ts)) as records:
        return [record.commit_ts for record in records]


@pytest.mark.parametrize(("first", "last"), [(1, 100), (0, 3), (50, 50), (99, 100), (13, 40), (7, 6), (101, 100)])
def test_records_are_those_of_a_walk_from_the_beginning(log, first, last):
    assert read(log, first, last) == list(range(max(first, 1), last + 1))
    with closing(log.commits.records(first, last)) as records:
        found = list(records)
    assert found == [record for record in log.records(after=0) if first <= record.commit_ts <= last]


def test_a_walk_begins_in_the_segment_of_its_commit_and_ends_with_the_last(log, walked):
    read(log, 95, 96)
    assert walked[-2:] == [95, 96]
    assert len(walked) < 15


def test_a_second_walk_begins_near_its_commit(log, walked, monkeypatch):
    monkeypatch.setattr(log_commits, "LOG_PLACE_BYTES", 600)
    read(log, 1, 100)
    for first_ts in range(1, 101):
        walked.clear()
        read(log, first_ts, first_ts)
        assert walked[-1] == first_ts
        assert len(walked) <= 4


@pytest.mark.parametrize("most", [1, 3, 10])
def test_so_many_places_are_remembered_and_no_more(log, monkeypatch, most):
    monkeypatch.setattr(log_commits, "LOG_PLACE_BYTES", 1)
    monkeypatch.setattr(log_commits, "LOG_PLACES", most)
    for _ in range(2):
        for first_ts in (1, 30, 90):
            assert read(log, first_ts, 100) == list(range(first_ts, 101))
            held = sum(map(len, log.commits._places.values()))
            assert held == log.commits._count <= most


@pytest.mark.parametrize("has_places", [False, True])
@pytest.mark.parametrize("last_ts", [0, 1, 2, 60, 100])
def test_the_last_that_counts_is_found(log, walked, monkeypatch, has_places, last_ts):
    if has_places:
        monkeypatch.setattr(log_commits, "LOG_PLACE_BYTES", 600)
        read(log, 1, 100)
    for border in range(102):
        walked.clear()
        found = log.commits.last(last_ts, lambda record, border=border: record.commit_ts <= border)
        assert found == min(border, last_ts)
        assert len(walked) <= 40


def test_a_walk_from_a_place_is_checked_against_the_chain(store_bench, log, monkeypatch):
    monkeypatch.setattr(log_commits, "LOG_PLACE_BYTES", 600)
    read(log, 1, 100)
    (record,) = (record for record in log.records(after=0) if record.commit_ts == 40)
    path = f"log/{record.placement.segment:020}.log"
    store_bench.disk.flip_bit(path, record.placement.offset + 30)
    assert read(log, 1, 39) == list(range(1, 40))
    for first_ts in (1, 39, 40):
        with pytest.raises(StoreDamagedError, match="commit_ts 40"):
            read(log, first_ts, 60)


def test_a_log_that_ends_too_early_is_damaged_and_one_that_cannot_be_read_says_so(store_bench, log):
    with pytest.raises(StoreDamagedError, match="ends too early"):
        read(log, 1, 101)
    store_bench.disk.fail_next("open", OSError(5, "input/output error"))
    with pytest.raises(StorageError, match="cannot be read"):
        read(log, 1, 1)
