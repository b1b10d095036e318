"""Sums of rows: the same rows in any order, and nothing else."""

import random

import pytest

from statehouse.storage.row_sums import PARTS, RowSums, part_of

ROWS = [(b"key/%d" % n, b"value %d" % n) for n in range(200)]
SECRET = bytes(32)


def summed(rows, secret=SECRET):
    sums = RowSums(secret)
    for row in rows:
        sums.add(*row)
    return sums


def test_the_order_does_not_count():
    shuffled = ROWS[:]
    random.Random(1).shuffle(shuffled)
    assert summed(ROWS).differing(summed(shuffled)) == []
    assert summed(ROWS).rows == 200


CHANGED = {
    "one more": [*ROWS, (b"key/200", b"")],
    "one less": ROWS[1:],
    "one twice": [*ROWS, ROWS[0]],
    "one three times, which an exclusive or would not see": [*ROWS, ROWS[0], ROWS[0]],
    "another value": [(ROWS[0][0], b"other"), *ROWS[1:]],
    "the key's end and the value's beginning": [(b"key/0v", b"alue 0"), *ROWS[1:]],
}


@pytest.mark.parametrize("rows", CHANGED.values(), ids=CHANGED)
def test_what_differs_is_found_in_its_part(rows):
    differing = summed(ROWS).differing(summed(rows))
    changed = set(map(part_of, {key for key, _ in set(rows) ^ set(ROWS)})) or {part_of(ROWS[0][0])}
    assert {part for part, _ in differing} == changed
    assert all(count >= 1 for _, count in differing)


def test_two_values_that_are_swapped_differ():
    (first, one), (second, two), *rest = ROWS
    assert summed(ROWS).differing(summed([(first, two), (second, one), *rest]))


def test_sums_depend_on_the_secret():
    assert summed(ROWS).differing(summed(ROWS, secret=bytes(31) + b"\x01"))


def test_keys_spread_over_the_parts():
    parts = [part_of(b"agent/%d" % n) for n in range(PARTS * 8)]
    assert len(set(parts)) > PARTS * 0.99
    assert max(map(parts.count, set(parts[:50]))) < 40
