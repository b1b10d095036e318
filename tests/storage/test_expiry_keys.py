"""The keys of what expires: their order is that of time, what was packed unpacks, and nothing else does."""

import pytest
from hypothesis import given
from storage.test_keys import agents, numbers, raw_keys

from statehouse.storage import keys
from statehouse.storage.expiry_keys import (
    ExpiryName,
    agent_expiry_key,
    agent_expiry_range,
    expiry_key,
    expiry_range,
    fork_expiry_key,
    swept_key,
    swept_range,
    unpack_agent_expiry_key,
    unpack_expiry_key,
    unpack_swept_key,
)
from statehouse.storage.view import ViewDamagedError
from statehouse.types import AgentId

U64_MAX = 2**64 - 1
ALICE = keys.agent_prefix(AgentId("default", "alice"))


@given(numbers, agents, raw_keys, numbers)
def test_what_was_packed_unpacks(at_ns, agent, key, version):
    prefix = keys.agent_prefix(agent)
    assert unpack_expiry_key(expiry_key(at_ns, prefix, key, version)) == ExpiryName(at_ns, prefix, key, version)
    forked = fork_expiry_key(at_ns, prefix)
    assert unpack_expiry_key(forked) == ExpiryName(min(at_ns + 1, U64_MAX), prefix, None, 0)
    own = agent_expiry_key(prefix, at_ns, key, version)
    assert own.startswith(prefix)
    assert unpack_agent_expiry_key(prefix, own) == (at_ns, key, version)
    assert unpack_swept_key(swept_key(at_ns)) == at_ns


@given(numbers, agents, raw_keys, numbers, numbers, agents, raw_keys, numbers)
def test_rows_are_in_the_order_of_time(one_ns, one, one_key, v, other_ns, other, other_key, w):
    if one_ns == other_ns:
        other_ns = one_ns ^ 1
    rows = [
        expiry_key(one_ns, keys.agent_prefix(one), one_key, v),
        expiry_key(other_ns, keys.agent_prefix(other), other_key, w),
    ]
    own = [agent_expiry_key(ALICE, one_ns, one_key, v), agent_expiry_key(ALICE, other_ns, other_key, w)]
    assert (rows[0] < rows[1]) == (own[0] < own[1]) == (one_ns < other_ns)
    assert (swept_key(one_ns) < swept_key(other_ns)) == (one_ns < other_ns)


@given(numbers, numbers, numbers, raw_keys, numbers)
def test_ranges_have_what_is_between_two_times_both_included(first_ns, last_ns, at_ns, key, version):
    def has(rows, packed):
        return rows.start <= packed < rows.stop

    is_between = first_ns <= at_ns <= last_ns
    assert has(expiry_range(first_ns, last_ns), expiry_key(at_ns, ALICE, key, version)) == is_between
    assert has(agent_expiry_range(ALICE, first_ns, last_ns), agent_expiry_key(ALICE, at_ns, key, version)) == is_between
    assert has(swept_range(last_ns), swept_key(at_ns)) == (at_ns <= last_ns)
    for rows in (expiry_range(first_ns, last_ns), agent_expiry_range(ALICE, first_ns, last_ns)):
        assert rows.start <= rows.stop


def test_the_columns_are_apart_from_all_others():
    row = expiry_key(5, ALICE, b"k", 1)
    assert not keys.EVERYTHING.start > row
    assert keys.AGENTS.start > row
    assert row != keys.WATERMARK_KEY
    outcomes = keys.outcome_range(0, U64_MAX - 1)
    assert not outcomes.start <= row < outcomes.stop
    assert not outcomes.start <= swept_key(5) < outcomes.stop


@pytest.mark.parametrize("end", range(len(expiry_key(5, ALICE, b"k", 1))))
def test_a_key_that_is_cut_is_damage_or_that_of_a_fork(end):
    cut = expiry_key(5, ALICE, b"k", 1)[:end]
    if cut == fork_expiry_key(4, ALICE):
        assert unpack_expiry_key(cut).key is None
    else:
        with pytest.raises(ViewDamagedError):
            unpack_expiry_key(cut)
    own = agent_expiry_key(ALICE, 5, b"k", 1)
    if end < len(own):
        with pytest.raises(ViewDamagedError):
            unpack_agent_expiry_key(ALICE, own[:end])
    if end < 10:
        with pytest.raises(ViewDamagedError):
            unpack_swept_key(swept_key(5)[:end])


def test_keys_of_other_columns_are_damage():
    for key in (keys.WATERMARK_KEY, keys.outcome_key(1, "t" * 20), keys.event_key(ALICE, 3), b""):
        for unpack in (unpack_expiry_key, unpack_swept_key, lambda key: unpack_agent_expiry_key(ALICE, key)):
            with pytest.raises(ViewDamagedError):
                unpack(key)
