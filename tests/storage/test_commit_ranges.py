"""Ranges of commits: as a set has them, and few however many places are bad."""

import random

import pytest

from statehouse.storage import commit_ranges
from statehouse.storage.commit_ranges import CommitRanges


@pytest.mark.parametrize("seed", range(20))
def test_they_have_what_a_set_has(seed):
    drawn = random.Random(seed)
    ranges, commits = CommitRanges(), set()
    assert not ranges
    for _ in range(30):
        first = drawn.randrange(200)
        last = first + drawn.randrange(-1, 12)
        ranges.add(first, last)
        commits.update(range(first, last + 1))
        assert {ts for ts in range(-2, 220) if ts in ranges} == commits
        assert len(ranges) == sum(ts - 1 not in commits for ts in commits)
    assert (ranges.first, ranges.last) == (min(commits), max(commits))


def test_past_the_limit_all_that_follows_is_one_range_up_to_the_end(monkeypatch):
    monkeypatch.setattr(commit_ranges, "RANGES_AT_MOST", 2)
    ranges = CommitRanges()
    for ts in (1, 3, 4):
        ranges.add(ts, ts)
    assert (ranges.rest_from, 6 in ranges, 9 in ranges) == (None, False, False)
    ranges.add(6, 6)
    assert (ranges.rest_from, 2 in ranges, 5 in ranges, 6 in ranges, 9 in ranges) == (6, False, False, True, True)
    for ts in range(8, 1_000, 2):
        ranges.add(ts, ts)
        assert len(ranges) == 2
    ranges.end(999)
    assert (len(ranges), ranges.last, 999 in ranges, 1_000 in ranges) == (3, 999, True, False)
    ranges.add(1_003, 1_004)  # what a witness says was there, too
    assert (1_002 in ranges, 1_003 in ranges) == (False, True)


def test_what_was_lost_behind_the_last_that_was_read_stays_lost(monkeypatch):
    monkeypatch.setattr(commit_ranges, "RANGES_AT_MOST", 1)
    ranges = CommitRanges()
    for first, last in ((1, 1), (3, 3), (10, 1 << 64)):
        ranges.add(first, last)
    ranges.end(9)
    assert (2 in ranges, 1_000_000 in ranges) == (False, True)
