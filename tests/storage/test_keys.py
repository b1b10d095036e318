"""The key table: byte order is name order, no two names meet, and what was packed unpacks."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from statehouse.limits import OUTCOME_BUCKET_COMMITS, OUTCOME_BUCKETS
from statehouse.storage import keys
from statehouse.storage.view import ViewDamagedError
from statehouse.types import AgentId

U64_MAX = 2**64 - 1

# Names of few characters, so that one is often the beginning of another, and NUL and its neighbours are common.
crowded = st.text(alphabet="\x00\x01\x02a\x7f\u00ff\U0001f600", max_size=5)
names = st.one_of(crowded, st.text(max_size=20))
agents = st.builds(AgentId, names, names)
raw_keys = names.map(str.encode)
numbers = st.one_of(st.integers(0, 300), st.integers(0, U64_MAX))


@given(raw_keys, raw_keys)
@example(b"a", b"a\x00")
@example(b"a\x00", b"a\x00\x01")
@example(b"a\x00\xff", b"a\x00")
def test_byte_order_of_packed_names_is_name_order(one, other):
    assert (keys.name(one) < keys.name(other)) == (one < other)


@given(raw_keys, raw_keys, st.binary(max_size=4))
def test_no_name_begins_another(one, other, rest):
    if one != other:
        assert not (keys.name(one) + rest).startswith(keys.name(other))


@given(st.binary(max_size=3), raw_keys, st.binary(max_size=3))
def test_names_unpack_where_they_stand(before, raw, after):
    packed = before + keys.name(raw) + after
    assert keys.read_name(packed, len(before)) == (raw, len(packed) - len(after))


@given(agents, agents)
def test_byte_order_of_prefixes_is_the_order_of_agents(one, other):
    by_name = [tuple(part.encode() for part in agent) for agent in (one, other)]
    assert (keys.agent_prefix(one) < keys.agent_prefix(other)) == (by_name[0] < by_name[1])


@given(agents, names, agents, names)
@example(AgentId("a:b", "c"), "k", AgentId("a", "b:c"), "k")
@example(AgentId("a", "b"), "\x00", AgentId("a", "b\x00"), "")
@example(AgentId("", "ab"), "k", AgentId("ab", ""), "k")
def test_no_two_of_namespace_agent_and_key_meet(one, one_key, other, other_key):
    if (one, one_key) != (other, other_key):
        pairs = [
            (
                keys.state_key(keys.agent_prefix(agent), key.encode()),
                keys.version_key(keys.agent_prefix(agent), key.encode(), 1),
            )
            for agent, key in ((one, one_key), (other, other_key))
        ]
        assert not set(pairs[0]) & set(pairs[1])


@given(agents, raw_keys, numbers, numbers)
def test_columns_of_one_agent_do_not_meet(agent, key, version, commit_ts):
    prefix = keys.agent_prefix(agent)
    rows = [
        keys.state_key(prefix, key),
        keys.version_key(prefix, key, version),
        keys.event_key(prefix, commit_ts),
        keys.idempotency_key(prefix, key, commit_ts),
        keys.lease_key(prefix, commit_ts),
        keys.meta_key(prefix),
        keys.fork_key(prefix),
        keys.child_key(prefix, commit_ts),
        keys.end_key(prefix, commit_ts),
    ]
    assert len({*rows, keys.WATERMARK_KEY, keys.outcome_key(commit_ts, "t")}) == len(rows) + 2
    start, stop = prefix, keys.prefix_end(prefix)
    for row in rows:
        assert start <= row < stop
        assert keys.AGENTS.start <= row < keys.AGENTS.stop
        assert keys.EVERYTHING.start <= row < keys.EVERYTHING.stop


@given(agents, agents, raw_keys)
def test_an_agents_range_holds_no_other_agents_rows(one, other, key):
    if one != other:
        start = keys.agent_prefix(one)
        stop = keys.prefix_end(start)
        assert not start <= keys.state_key(keys.agent_prefix(other), key) < stop


@given(agents, raw_keys, numbers)
def test_round_trips(agent, key, number):
    prefix = keys.agent_prefix(agent)
    assert keys.unpack_state_key(prefix, keys.state_key(prefix, key)) == key
    assert keys.unpack_version_key(prefix, keys.version_key(prefix, key, number)) == (key, number)
    assert keys.unpack_event_key(prefix, keys.event_key(prefix, number)) == number
    assert keys.unpack_idempotency_key(prefix, keys.idempotency_key(prefix, key, number)) == (key, number)
    assert keys.unpack_lease_key(prefix, keys.lease_key(prefix, number)) == number
    assert keys.unpack_child_key(prefix, keys.child_key(prefix, number)) == number
    assert keys.unpack_end_key(prefix, keys.end_key(prefix, number)) == number
    assert keys.unpack_outcome_key(keys.outcome_key(number, agent.agent_id)) == (number, agent.agent_id)


@given(agents, raw_keys, numbers, raw_keys, numbers)
def test_versions_are_in_order_of_key_and_number(agent, key, version, other_key, other_version):
    prefix = keys.agent_prefix(agent)
    packed = keys.version_key(prefix, key, version) < keys.version_key(prefix, other_key, other_version)
    assert packed == ((key, version) < (other_key, other_version))


@given(agents, raw_keys, raw_keys)
def test_the_range_of_a_key_prefix_holds_exactly_the_keys_that_begin_with_it(agent, key, key_prefix):
    prefix = keys.agent_prefix(agent)
    start, stop = keys.state_range(prefix, key_prefix)
    assert (start <= keys.state_key(prefix, key) < stop) == key.startswith(key_prefix)


@given(agents, raw_keys, raw_keys, numbers)
def test_the_range_of_versions_holds_one_keys_versions(agent, key, other_key, version):
    prefix = keys.agent_prefix(agent)
    start, stop = keys.version_range(prefix, key)
    assert (start <= keys.version_key(prefix, other_key, version) < stop) == (other_key == key)


@given(agents, raw_keys, raw_keys, numbers, numbers)
def test_the_range_of_an_idempotency_key_holds_its_commits_in_order(agent, key, other_key, commit_ts, later_ts):
    prefix = keys.agent_prefix(agent)
    start, stop = keys.idempotency_range(prefix, key)
    row = keys.idempotency_key(prefix, key, commit_ts)
    assert (start <= keys.idempotency_key(prefix, other_key, commit_ts) < stop) == (other_key == key)
    assert (row < keys.idempotency_key(prefix, key, later_ts)) == (commit_ts < later_ts)


@given(agents, raw_keys, numbers, numbers)
def test_the_range_of_leases_holds_the_agents_leases_in_order(agent, key, commit_ts, later_ts):
    prefix = keys.agent_prefix(agent)
    start, stop = keys.lease_range(prefix)
    row = keys.lease_key(prefix, commit_ts)
    assert start <= row < stop
    assert (row < keys.lease_key(prefix, later_ts)) == (commit_ts < later_ts)
    for other in (keys.idempotency_key(prefix, key, commit_ts), keys.meta_key(prefix), keys.event_key(prefix, 1)):
        assert not start <= other < stop


@given(agents, numbers, numbers, numbers)
def test_the_ranges_of_forks_and_of_ends_hold_the_agents_own_in_order(agent, commit_ts, later_ts, before_ts):
    prefix = keys.agent_prefix(agent)
    for pack, (start, stop) in ((keys.child_key, keys.child_range(prefix)), (keys.end_key, keys.end_range(prefix))):
        row = pack(prefix, commit_ts)
        assert start <= row
        assert row < stop or commit_ts == 2**64 - 1
        assert (row < pack(prefix, later_ts)) == (commit_ts < later_ts)
        for other in (keys.fork_key(prefix), keys.meta_key(prefix), keys.event_key(prefix, commit_ts)):
            assert not start <= other < stop
    start, stop = keys.child_range(prefix, before_ts)
    assert (start <= keys.child_key(prefix, commit_ts) < stop) == (commit_ts < before_ts)


@given(agents, numbers, numbers, numbers)
@example(AgentId("a", "b"), U64_MAX, 0, U64_MAX)
@example(AgentId("a", "b"), U64_MAX, U64_MAX, U64_MAX)
@example(AgentId("a", "b"), 5, 5, 5)
def test_the_range_of_events_includes_both_ends(agent, commit_ts, first, last):
    prefix = keys.agent_prefix(agent)
    start, stop = keys.event_range(prefix, first, last)
    assert (start <= keys.event_key(prefix, commit_ts) < stop) == (first <= commit_ts <= last)
    start, stop = keys.event_range(prefix)
    assert start <= keys.event_key(prefix, commit_ts) < stop
    assert not start <= keys.meta_key(prefix) < stop


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_prefix_end_is_above_all_with_the_prefix_and_nothing_else(prefix, key):
    if prefix.strip(b"\xff"):
        end = keys.prefix_end(prefix)
        assert (prefix <= key < end) == key.startswith(prefix)
    else:
        with pytest.raises(ValueError, match="no key is above"):
            keys.prefix_end(prefix)


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40), names)
def test_the_range_of_outcomes_includes_both_buckets(bucket, first, last, txn_id):
    start, stop = keys.outcome_range(first, last)
    assert (start <= keys.outcome_key(bucket, txn_id) < stop) == (first <= bucket <= last)
    assert not start <= keys.WATERMARK_KEY < stop


def test_kept_outcome_buckets_are_the_newest_ones():
    assert list(keys.kept_outcome_buckets(1)) == [0]
    assert list(keys.kept_outcome_buckets(2 * OUTCOME_BUCKET_COMMITS)) == [2, 1, 0]
    head = 1_000 * OUTCOME_BUCKET_COMMITS - 1
    assert list(keys.kept_outcome_buckets(head)) == list(range(999, 999 - OUTCOME_BUCKETS, -1))


def test_a_lone_surrogate_is_not_a_name():
    with pytest.raises(UnicodeEncodeError):
        keys.agent_prefix(AgentId("a", "\ud800"))


PREFIX = keys.agent_prefix(AgentId("a", "b"))


@pytest.mark.parametrize(
    "unpack",
    [
        lambda: keys.read_name(b"abc", 0),
        lambda: keys.read_name(b"a\x00\x02b\x00\x01", 0),
        lambda: keys.unpack_state_key(PREFIX, PREFIX + b"v"),
        lambda: keys.unpack_version_key(PREFIX, keys.state_key(PREFIX, b"k")),
        lambda: keys.unpack_version_key(PREFIX, keys.version_key(PREFIX, b"k", 1)[:-1]),
        lambda: keys.unpack_event_key(PREFIX, keys.event_key(PREFIX, 1) + b"x"),
        lambda: keys.unpack_event_key(PREFIX, keys.meta_key(PREFIX)),
        lambda: keys.unpack_idempotency_key(PREFIX, keys.event_key(PREFIX, 1)),
        lambda: keys.unpack_idempotency_key(PREFIX, keys.idempotency_key(PREFIX, b"k", 1)[:-1]),
        lambda: keys.unpack_idempotency_key(PREFIX, PREFIX + b"ik"),
        lambda: keys.unpack_lease_key(PREFIX, keys.event_key(PREFIX, 1)),
        lambda: keys.unpack_lease_key(PREFIX, keys.lease_key(PREFIX, 1) + b"x"),
        lambda: keys.unpack_child_key(PREFIX, keys.end_key(PREFIX, 1)),
        lambda: keys.unpack_child_key(PREFIX, keys.child_key(PREFIX, 1)[:-1]),
        lambda: keys.unpack_end_key(PREFIX, keys.child_key(PREFIX, 1)),
        lambda: keys.unpack_end_key(PREFIX, keys.end_key(PREFIX, 1) + b"x"),
        lambda: keys.unpack_outcome_key(keys.WATERMARK_KEY),
        lambda: keys.unpack_outcome_key(b"\x01t\x00\x00"),
        lambda: keys.unpack_outcome_key(keys.outcome_key(1, "") + b"\xff"),
    ],
)
def test_keys_that_nobody_packed_are_damage(unpack):
    with pytest.raises(ViewDamagedError):
        unpack()
