"""Values that do not last: what the clients send and tell, and what becomes of them in a daemon."""

import datetime as dt
from time import monotonic, sleep

import attrs
import pytest

from statehouse import (
    AsyncStatehouse,
    ConflictError,
    ErrorCode,
    HistoryEntry,
    InvalidRequestError,
    Operation,
    Precondition,
    Put,
    Remove,
    ReplayEvent,
    Statehouse,
    StateResult,
)
from statehouse.client import reading, staging
from statehouse.limits import TTL_MOST_S


def at(seconds):
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


@pytest.mark.parametrize("local", [True, False])
def test_both_clients_send_how_long_a_value_lasts(run, memory_server, local):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            async with await client.begin_transaction(local=local) as txn:
                await txn.write("a", "brief", {"n": 1}, ttl_s=60)
                await txn.write("a", "lasting", {"n": 1})
                await txn.delete("a", "gone")
            await client.transact([Put("a", "direct", {}, ttl_s=1), Remove("a", "gone"), Put("a", "lasting", {})])
            await client.update("a", "brief", lambda value: value, ttl_s=30)
            await client.update("a", "lasting", lambda value: value)
            await client.update("a", "direct", lambda _: None, ttl_s=30)  # a delete lasts
            return [each async for each in client.replay("a")]

    events = run(main)
    memory_server.events.clear()
    memory_server.versions.clear()
    with Statehouse(memory_server.url) as client:
        with client.begin_transaction(local=local) as txn:
            txn.write("a", "brief", {"n": 1}, ttl_s=60)
            txn.write("a", "lasting", {"n": 1})
            txn.delete("a", "gone")
        client.transact([Put("a", "direct", {}, ttl_s=1), Remove("a", "gone"), Put("a", "lasting", {})])
        client.update("a", "brief", lambda value: value, ttl_s=30)
        client.update("a", "lasting", lambda value: value)
        client.update("a", "direct", lambda _: None, ttl_s=30)
        assert [each.operations for each in client.replay("a")] == [each.operations for each in events]
    assert [(each.key, each.ttl_s) for event in events for each in event.operations] == [
        ("brief", 60),
        ("lasting", None),
        ("gone", None),
        ("direct", 1),
        ("gone", None),
        ("lasting", None),
        ("brief", 30),
        ("lasting", None),
        ("direct", None),
    ]


def test_what_is_staged_in_the_daemon_after_all_lasts_no_longer(memory_server, monkeypatch):
    monkeypatch.setattr(staging, "REQUEST_BYTES", 10)
    with Statehouse(memory_server.url) as client:
        with client.begin_transaction() as txn:
            txn.write("a", "brief", {"n": 1}, ttl_s=60)
            txn.write("a", "lasting", {"n": 1})
        assert memory_server.transacts == []
        (event,) = client.replay("a")
    assert [each.ttl_s for each in event.operations] == [60, None]


def test_every_read_tells_when_a_value_expires(run, memory_server):
    expected = StateResult({}, 1, 1, exists=True, expires_at=at(61))

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await client.transact([Put("a", "k", {}, ttl_s=60), Put("a", "l", {})])
            assert await client.get_state("a", "k") == await client.get_state_at_version("a", "k", 1) == expected
            assert (await client.get_state("a", "l")).expires_at is None
            for found in (await client.scan_prefix("a", ""), [each async for each in client.iter_prefix("a", "")]):
                assert [(each.key, each.expires_at) for each in found] == [("k", at(61)), ("l", None)]
            found = await client.batch_get([("a", "l"), ("a", "k")])
            assert [(each.key, each.expires_at) for each in found] == [("l", None), ("k", at(61))]
            assert [each.expires_at async for each in client.history("a", "k")] == [at(61)]
            assert [each.after.expires_at async for each in client.diff("a")] == [at(61), None]

    run(main)
    with Statehouse(memory_server.url) as client:
        assert client.get_state("a", "k") == expected
        assert [each.expires_at for each in client.history("a", "l")] == [None]


def test_as_json():
    entry = HistoryEntry({}, 1, 7, exists=True, txn_id="t", expires_at=at(1.5))
    assert entry.to_dict()["expires_at"] == "1970-01-01T00:00:01.500000Z"
    lasting = HistoryEntry({}, 1, 7, exists=True, txn_id="t").to_dict()
    assert {"expires_at", "expired"} & lasting.keys() == set()
    assert HistoryEntry(None, 2, 8, exists=False, txn_id="t", expired=True).to_dict()["expired"] is True
    event = ReplayEvent("t", 7, (Operation("k", {}, 1, ttl_s=5), Operation("l", None, 2, expired=True)), "n", "a")
    assert event.to_dict()["operations"] == [
        {"key": "k", "value": {}, "version": 1, "ttl_s": 5},
        {"key": "l", "value": None, "version": 2, "expired": True},
    ]


# In a daemon


@pytest.fixture
def client(daemon):
    with Statehouse(daemon.address) as client:
        yield client


def wait_until(time):
    """Sleep until the daemon, which has the same clock, takes what expires then for expired."""
    while dt.datetime.now(dt.UTC) <= time:
        sleep(0.01)


def tombstones(client, agent_id, start_ts):
    """The operations of the next event of the agent from a commit on, which may have to come."""
    deadline = monotonic() + 20
    while monotonic() < deadline:
        events = list(client.replay(agent_id, start_ts=start_ts))
        if events:
            (event,) = events
            return event.operations
        sleep(0.02)
    raise AssertionError("what has expired is not deleted")


def test_an_expired_value_is_absent_and_then_deleted(daemon, client):
    done = client.transact(
        [Put("a", "brief", {"n": 1}, ttl_s=1), Put("a", "large", {"text": "x" * 10_000}, ttl_s=1), Put("a", "k", {})]
    )
    (event,) = client.replay("a")
    expires_at = event.committed_at + dt.timedelta(seconds=1)
    assert [each.ttl_s for each in event.operations] == [1, 1, None]
    assert client.get_state("a", "brief", at_ts=done.commit_ts).expires_at == expires_at
    wait_until(expires_at)

    assert client.get_state("a", "brief").exists is False
    assert [each.exists for each in client.batch_get([("a", "brief"), ("a", "large"), ("a", "k")])] == [
        False,
        False,
        True,
    ]
    assert client.list_keys("a") == [*client.iter_keys("a")] == ["k"]
    assert [each.key for each in client.scan_prefix("a", "")] == ["k"]
    assert [each.key for each in client.iter_prefix("a", "")] == ["k"]

    deleted = tombstones(client, "a", done.commit_ts + 1)
    assert sorted(deleted, key=lambda each: each.key) == [
        Operation("brief", None, 2, expired=True),
        Operation("large", None, 2, expired=True),
    ]
    state = client.get_state("a", "brief")
    assert (state.exists, state.value, state.version, state.expires_at) == (False, None, 2, None)
    # What it was is not forgotten.
    assert client.list_keys("a", at_ts=done.commit_ts) == ["brief", "k", "large"]
    before = client.get_state("a", "large", at_ts=done.commit_ts)
    assert (before.value, before.expires_at) == ({"text": "x" * 10_000}, expires_at)
    assert [(each.version, each.exists, each.expires_at, each.expired) for each in client.history("a", "brief")] == [
        (2, False, None, True),
        (1, True, expires_at, False),
    ]
    daemon.kill()
    daemon.start()
    assert client.list_keys("a") == ["k"]
    assert client.get_state("a", "brief").version == 2
    assert list(client.verify())[-1].sound


def test_what_expires_while_the_daemon_is_away_is_absent_and_deleted_when_it_is_back(daemon, client):
    done = client.transact([Put("a", "brief", {}, ttl_s=1), Put("a", "k", {})])
    daemon.kill()
    sleep(1.1)
    daemon.start()
    assert client.list_keys("a") == ["k"]
    assert [each.expired for each in tombstones(client, "a", done.commit_ts + 1)] == [True]


def test_a_write_says_anew_how_long_it_lasts(client):
    client.transact([Put("a", "k", {"n": 1}, ttl_s=1)])
    found = client.update("a", "k", lambda value: value)
    assert found.version == 2
    assert client.get_state("a", "k") == StateResult({"n": 1}, 2, found.commit_ts, exists=True)
    with client.begin_transaction(local=False) as txn:
        txn.write("a", "k", {}, ttl_s=3600)
    assert client.get_state("a", "k").expires_at > dt.datetime.now(dt.UTC) + dt.timedelta(minutes=50)
    client.update("a", "k", lambda value: value, ttl_s=7200)
    assert client.get_state("a", "k").expires_at > dt.datetime.now(dt.UTC) + dt.timedelta(minutes=110)


def test_who_finds_a_claim_expired_may_take_it(client):
    unclaimed = [Precondition.exists("a", "claim", exists=False)]
    client.transact([Put("a", "claim", {"by": 1}, ttl_s=2)], preconditions=unclaimed)
    with pytest.raises(ConflictError):
        client.transact([Put("a", "claim", {"by": 2}, ttl_s=2)], preconditions=unclaimed)
    wait_until(client.get_state("a", "claim", at_ts=1).expires_at)
    client.transact([Put("a", "claim", {"by": 2}, ttl_s=3600)], preconditions=unclaimed)
    assert client.get_state("a", "claim").value == {"by": 2}


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("ttl_s", [0, -1, TTL_MOST_S + 1, 2**63 - 1])
def test_ten_years_is_the_most_and_a_second_the_least(client, ttl_s, local):
    limit = "1" if ttl_s < 1 else str(TTL_MOST_S)
    with pytest.raises(InvalidRequestError, match=f"ttl_s is {ttl_s}; it must be from 1 to {TTL_MOST_S}") as refused:
        client.transact([Put("a", "k", {}), Put("a", "l", {}, ttl_s=ttl_s)])
    assert (refused.value.details["limit"], refused.value.details["size"]) == (limit, str(ttl_s))
    with pytest.raises(InvalidRequestError, match="ttl_s is"), client.begin_transaction(local=local) as txn:
        txn.write("a", "k", {}, ttl_s=ttl_s)
    assert client.list_keys("a") == []
    client.transact([Put("a", "k", {}, ttl_s=TTL_MOST_S)])
    assert client.get_state("a", "k").exists


def test_pages_go_by_the_clock_of_the_first(client, monkeypatch):
    monkeypatch.setattr(reading, "SCAN_ENTRIES", 2)
    client.transact([Put("a", f"k/{n}", {}, ttl_s=3) for n in range(5)])
    entries = client.iter_prefix("a", "k/")
    first = next(entries)
    wait_until(first.expires_at)
    assert client.scan_prefix("a", "k/") == []
    assert [each.key for each in entries] == ["k/1", "k/2", "k/3", "k/4"]


def test_the_same_write_that_lasts_longer_is_another_request(client):
    def put(ttl_s):
        return client.transact([Put("a", "k", {}, ttl_s=ttl_s)], idempotency_key="once")

    done = put(60)
    assert put(60) == attrs.evolve(done, deduplicated=True)
    for other in (61, None):
        with pytest.raises(InvalidRequestError) as reused:
            put(other)
        assert reused.value.code is ErrorCode.IDEMPOTENCY_KEY_REUSED


def test_forks_have_what_their_parent_had_and_delete_it_for_themselves(client):
    done = client.transact([Put("a", "brief", {}, ttl_s=2), Put("a", "k", {})])
    client.fork("a", "b")
    inherited = client.get_state("b", "brief", at_ts=done.commit_ts)
    assert inherited == client.get_state("a", "brief", at_ts=done.commit_ts)
    wait_until(inherited.expires_at)
    assert client.list_keys("a") == client.list_keys("b") == ["k"]
    for agent_id in ("a", "b"):
        assert tombstones(client, agent_id, done.commit_ts + 1) == (Operation("brief", None, 2, expired=True),)
    client.fork("a", "late", at_ts=done.commit_ts)
    assert client.list_keys("late") == ["k"]
    assert tombstones(client, "late", done.commit_ts + 1) == (Operation("brief", None, 2, expired=True),)
    assert client.list_keys("late", at_ts=done.commit_ts) == ["brief", "k"]


def test_an_end_deletes_what_has_expired_too(client):
    client.transact([Put("a", "brief", {}, ttl_s=3), Put("a", "k", {}, ttl_s=3600)])
    assert client.delete_agent("a").deleted_keys == 2
    later = client.transact([Put("b", "k", {}, ttl_s=3)])
    assert tombstones(client, "b", later.commit_ts + 1)[0].expired  # and so has the other one been looked at
    assert [(each.version, each.expired) for each in client.history("a", "brief")] == [(2, False), (1, False)]
    (info,) = client.list_agents("a")
    assert (info.live_keys, info.deleted) == (0, True)
