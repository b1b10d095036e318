"""Reads of the past and of many: points, pages, batches, history, differences, listings; against the daemon."""

import datetime as dt

import pytest

from statehouse import (
    AsyncStatehouse,
    InvalidRequestError,
    OverloadedError,
    Precondition,
    Put,
    Remove,
    Statehouse,
    StateResult,
)
from statehouse.client import reading
from statehouse.client.stream import AsyncStream, Pages


@pytest.fixture
def client(daemon):
    with Statehouse(daemon.address) as client:
        yield client


def test_transact_and_its_repeat(client):
    operations = [Put("a", "k", {"n": 1}), Put("b", "k", {}, namespace="other"), Remove("a", "k")]
    done = client.transact(operations, idempotency_key="x", metadata={"run": "7"})
    assert (done.commit_ts, done.versions, done.deduplicated) == (1, (1, 1, 2), False)
    again = client.transact(operations, idempotency_key="x", metadata={"run": "7"})
    assert again.deduplicated
    assert (again.commit_ts, again.versions, again.txn_id) == (done.commit_ts, done.versions, done.txn_id)
    with pytest.raises(InvalidRequestError):
        client.transact(operations, idempotency_key="x", metadata={"run": "8"})
    condition = Precondition.agent_at("a", 1)
    assert client.transact([Put("a", "k", {})], preconditions=[condition]).versions == (3,)
    assert [event.metadata for event in client.replay("a", metadata={"run": "7"})] == [{"run": "7"}]


def test_points_of_the_past(client):
    for number in range(3):
        client.transact([Put("a", "k", {"n": number}), Put("a", f"k{number}", {})])
    times = [event.committed_at for event in client.replay("a")]
    assert client.get_state("a", "k", at_ts=2).value == {"n": 1}
    assert client.get_state("a", "k", at_ts=0) == StateResult(None, 0, 0, exists=False)
    assert client.get_state("a", "k", at_time=times[2]).value == {"n": 2}
    assert not client.get_state("a", "k", at_time=times[0] - dt.timedelta(seconds=1)).exists
    assert client.list_keys("a", at_ts=2) == ["k", "k0", "k1"]
    assert [state.key for state in client.scan_prefix("a", "k", at_ts=1)] == ["k", "k0"]
    assert [entry.value for entry in client.history("a", "k")] == [{"n": 2}, {"n": 1}, {"n": 0}]
    assert [entry.version for entry in client.history("a", "k", limit=1, before_version=3)] == [2]
    middle = client.replay("a", start_time=times[1], end_time=times[1])
    assert [event.commit_ts for event in middle] == [2]
    assert [entry.key for entry in client.diff("a", from_time=times[0], to_time=times[1])] == ["k", "k1"]
    changed = {entry.key: (entry.before.value, entry.after.value) for entry in client.diff("a", 1, 2)}
    assert changed == {"k": ({"n": 0}, {"n": 1}), "k1": (None, {})}


def test_pages_show_one_moment(client, monkeypatch):
    monkeypatch.setattr(reading, "PAGE_ENTRIES", 4)
    monkeypatch.setattr(reading, "SCAN_ENTRIES", 4)
    keys = [f"k{number:02}" for number in range(10)]
    client.transact([Put("a", key, {"k": key}) for key in keys])
    pages, entries = client.iter_keys("a"), client.iter_prefix("a", "k")
    assert next(pages) == "k00"
    assert next(entries).key == "k00"
    client.transact([Remove("a", keys[-1]), Put("a", "k05x", {})])
    assert list(pages) == keys[1:]
    assert [(state.key, state.value) for state in entries] == [(key, {"k": key}) for key in keys[1:]]
    assert list(client.iter_keys("a"))[-1] == "k08"
    assert list(client.iter_keys("nobody")) == []


def test_many_at_once(client):
    client.transact([Put("a", "k", {"n": 1}), Put("b", "k", {"n": 2}, namespace="other")])
    found = client.batch_get([("b", "k", "other"), ("a", "never"), ("a", "k")])
    assert found == [
        StateResult({"n": 2}, 1, 1, True, "k", "b", "other"),  # noqa: FBT003
        StateResult(None, 0, 0, False, "never", "a", "default"),  # noqa: FBT003
        StateResult({"n": 1}, 1, 1, True, "k", "a", "default"),  # noqa: FBT003
    ]
    assert not client.batch_get([("a", "k")], at_ts=0)[0].exists
    (agent,) = client.list_agents("a")
    assert (agent.agent_id, agent.live_keys, agent.last_commit_ts) == ("a", 1, 1)
    assert [each.namespace for each in client.list_namespaces()] == ["default", "other"]


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ("ab", TypeError, r"keys\[1\] must be \(agent_id, key\) or .*, not a str"),
        (None, TypeError, r"keys\[1\] must be .*, not None"),
        ({"a": 1, "k": 2}, TypeError, r"keys\[1\] must be .*, not a dict"),
        (("a",), TypeError, r"keys\[1\] must be .*, not 1 parts"),
        (["a", "k", "n", "x"], TypeError, r"keys\[1\] must be .*, not 4 parts"),
        ((1, "k"), TypeError, r"agent_id in keys\[1\] must be a str, not a int"),
        (["a", b"k"], TypeError, r"key in keys\[1\] must be a str, not a bytes"),
        (("a", "k", None), TypeError, r"namespace in keys\[1\] must be a str, not None"),
        (("a", "\ud800"), ValueError, r"key in keys\[1\] is not Unicode text"),
    ],
)
def test_a_key_of_many_that_is_none_is_told_by_its_index(run, key, error, message):
    with Statehouse("127.0.0.1:1") as client, pytest.raises(error, match=message):  # nobody listens there
        client.batch_get([["a", "k"], key])

    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:
            with pytest.raises(error, match=message):
                await client.batch_get([["a", "k"], key])

    run(main)


def test_a_page_that_is_too_large_is_asked_for_in_parts(run):
    class Page:
        def __init__(self, token):
            self.next_page_token = token

    async def main():
        asked = []

        async def ask(token, entries):
            asked.append((token, entries))
            if entries > 3:
                raise OverloadedError("too large", details={"limit": "64"})
            return Page(b"2" if not token else b"")

        assert len([page async for page in AsyncStream(Pages(ask, 12), lambda page: [page])]) == 2
        assert asked == [(b"", 12), (b"", 6), (b"", 3), (b"2", 3)]

        async def busy(token, entries):
            raise OverloadedError("busy")

        with pytest.raises(OverloadedError):
            await Pages(busy, 12).next_batch()

    run(main)


MISTAKES = [
    (lambda c: c.get_state("a", "k", at_ts=1, at_time=dt.datetime.now(dt.UTC)), ValueError, "exclude each other"),
    (lambda c: c.get_state("a", "k", at_time=dt.datetime(2030, 1, 1)), ValueError, "at_time has no time zone"),  # noqa: DTZ001
    (lambda c: c.get_state("a", "k", at_time=1.5), TypeError, "at_time must be a datetime"),
    (lambda c: c.get_state("a", "k", at_time=dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1)))),
     ValueError, "outside the years"),
    (lambda c: c.list_keys("a", at_ts=-1), ValueError, "at_ts must be from 0"),
    (lambda c: c.iter_keys(None), TypeError, "agent_id must be a str"),
    (lambda c: c.history("a", "k", limit=0), ValueError, "limit must be from 1"),
    (lambda c: c.history("a", "k", limit=2**32), ValueError, "limit must be from 1 to 4294967295"),
    (lambda c: c.history("a", "k", before_version=0), ValueError, "before_version must be from 1"),
    (lambda c: c.diff("a", 1, from_time=dt.datetime.now(dt.UTC)), ValueError, "from_ts and from_time exclude"),
    (lambda c: c.batch_get([("a", 1)]), TypeError, r"key in keys\[0\] must be a str"),
    (lambda c: c.list_agents(prefix=None), TypeError, "prefix must be a str"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_are_told_before_anything_is_sent(run, call, error, message):
    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:  # nobody listens there
            with pytest.raises(error, match=message):
                await call(client)

    run(main)
