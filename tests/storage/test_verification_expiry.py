"""Verification of what expires: each kind of wrong row is named, and no other row is."""

import random

import pytest
from attrs import evolve
from storage.fix_forks import ForkWriter
from storage.fix_store import ALICE, Writer, rows_of, value
from storage.fix_verification import assert_found_when_changed, assert_found_when_missing, assert_is, verified

from statehouse.limits import TTL_MOST_S
from statehouse.storage import keys
from statehouse.storage.expiry_keys import agent_expiry_key, expiry_key, fork_expiry_key, swept_key
from statehouse.storage.keys import agent_prefix
from statehouse.storage.record_notes import ForkNote, Inherited, Notes
from statehouse.storage.stored_value import expiring

S = 10**9
FORK = ALICE._replace(agent_id="a fork")
A, F = agent_prefix(ALICE), agent_prefix(FORK)
FIRST_NS = 1_000_000_001
SMALL_NS, LARGE_NS = FIRST_NS + S, FIRST_NS + 1 + TTL_MOST_S * S
FORKED_NS = FIRST_NS + 2


@pytest.fixture
def planted(any_bench):
    writer = Writer(any_bench.store())
    writer.commit_group(evolve(writer.txn((ALICE, b"small", value(20))), ttls_s=(1,)))
    writer.commit_group(evolve(writer.txn((ALICE, b"large", value(700))), ttls_s=(TTL_MOST_S,)))
    note = ForkNote(FORK, ALICE, 2, Inherited(1, 2, 2, 2, 2))
    writer.commit_group(evolve(writer.txn(), notes=Notes(fork=note)))
    writer.commit_group(evolve(writer.txn(), notes=Notes(swept_until_ns=5)))
    assert verified(any_bench, writer.store)[0] == []
    return any_bench, writer.store


SMALL, LARGE = {"key": "small", "version": 1}, {"key": "large", "version": 1}
ROWS = {
    "version": (keys.version_key(A, b"small", 1), ALICE, SMALL | {"commit_ts": 1}),
    "large version": (keys.version_key(A, b"large", 1), ALICE, LARGE | {"commit_ts": 2}),
    "state": (keys.state_key(A, b"small"), ALICE, {"key": "small"}),
    "large state": (keys.state_key(A, b"large"), ALICE, {"key": "large"}),
    "expiry": (expiry_key(SMALL_NS, A, b"small", 1), ALICE, SMALL | {"commit_ts": 1}),
    "expiry of the agent": (agent_expiry_key(A, LARGE_NS, b"large", 1), ALICE, LARGE | {"commit_ts": 2}),
    "fork": (fork_expiry_key(FORKED_NS, F), FORK, {"commit_ts": 3}),
    "swept": (swept_key(4), ("", ""), {"commit_ts": 4}),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("at", [0, 5, -1])
def test_a_row_that_changed(planted, row, at):
    assert_found_when_changed(planted, ROWS[row], at, 0x40)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_that_is_missing(planted, row):
    assert_found_when_missing(planted, ROWS[row])


@pytest.mark.parametrize(
    ("key", "agent", "place"),
    [
        (expiry_key(SMALL_NS + 1, A, b"small", 1), ALICE, SMALL),
        (expiry_key(SMALL_NS, A, b"small", 2), ALICE, {"key": "small", "version": 2}),
        (agent_expiry_key(A, SMALL_NS + 1, b"small", 1), ALICE, SMALL),
        (fork_expiry_key(FORKED_NS, A), ALICE, {}),
        (swept_key(3), ("", ""), {"commit_ts": 3}),
    ],
)
def test_a_row_too_many(planted, key, agent, place):
    bench, store = planted
    store._view.apply([(key, (1).to_bytes(8))])
    (finding,), _ = verified(bench, store)
    assert_is(finding, "row-extra", agent, place)


@pytest.mark.parametrize(
    "key",
    [
        expiry_key(SMALL_NS, A, b"small", 1)[:-1],
        expiry_key(SMALL_NS, A, b"small", 1) + b"x",
        agent_expiry_key(A, SMALL_NS, b"small", 1)[:-1],
        swept_key(3)[:-1],
        b"\x01x",
        b"\x01s",
    ],
)
def test_a_key_that_is_none_of_the_format(planted, key):
    bench, store = planted
    store._view.apply([(key, (1).to_bytes(8))])
    (finding,), _ = verified(bench, store)
    assert finding.kind == "row-extra"


@pytest.mark.parametrize("key", [b"small", b"large"])
def test_a_value_that_expires_at_another_time_in_all_its_rows(planted, key):
    bench, store = planted
    rows = (keys.state_key(A, key), keys.version_key(A, key, 1))
    store._view.apply([(row, expiring(store._view.get(row)[9:], 77)) for row in rows])
    (finding,), _ = verified(bench, store)  # the state is that of its version
    assert_is(finding, "row-wrong", ALICE, {"key": key.decode(), "version": 1})
    store._view.apply([(row, store._view.get(row)[9:]) for row in rows])  # for good
    (finding,), _ = verified(bench, store)  # the state is that of its version
    assert_is(finding, "row-wrong", ALICE, {"key": key.decode(), "version": 1})


@pytest.mark.parametrize("seed", range(4))
def test_a_store_with_forks_of_values_that_expire_is_sound_and_rebuilt_as_it_was(store_bench, seed):
    rng = random.Random(seed)
    writer = ForkWriter(store_bench.store(), ttls_s=(0, 1, 60, TTL_MOST_S))
    writer.commit_randomly(rng, 60)
    assert verified(store_bench, writer.store)[0] == []
    rows = rows_of(writer.store)
    store_bench.close()
    store_bench.home.batches = None
    assert rows_of(store_bench.store()) == rows
