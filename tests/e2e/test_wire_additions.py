"""What was added to the contract, on the wire, call by call: a real daemon, its real store, and grpcio as its peer."""

import datetime as dt
import time

import grpc
import pytest
from e2e.fix_wire import refusal_of, struct
from google.protobuf.timestamp_pb2 import Timestamp
from rpc.fix_edge import detail_of

from statehouse.v1 import statehouse_pb2 as pb

INVALID = ("INVALID_ARGUMENT", "INVALID_REQUEST")


def operation(agent_id, key, value=None, **fields):
    return pb.TransactOperation(agent_id=agent_id, key=key, value=None if value is None else struct(value), **fields)


def transact(wire, *operations, **fields):
    return wire.call("Transact", operations=operations, **fields)


def failed(wire, name="Transact", **fields):
    """The preconditions that a commit was refused for."""
    with pytest.raises(grpc.RpcError) as caught:
        wire.call(name, **fields)
    assert refusal_of(caught.value).pair == ("ABORTED", "PRECONDITION_FAILED")
    return list(detail_of(caught.value).failed_preconditions)


# Transactions


def test_transact_writes_and_deletes_over_agents(wire):
    done = transact(
        wire,
        operation("whole", "k", {"n": 1}),
        operation("whole", "gone", {}),
        operation("whole", "gone"),
        operation("whole too", "k", {}, namespace="other"),
        metadata={"run": "7", "é": "ü"},
    )
    assert (list(done.versions), done.deduplicated, len(done.txn_id) > 0) == ([1, 1, 2, 1], False, True)
    found = wire.get("whole", "k")
    assert (found.value, found.version, found.commit_ts) == (struct({"n": 1}), 1, done.commit_ts)
    (event,) = wire.replay("whole")
    assert (event.txn_id, event.commit_ts, dict(event.metadata)) == (
        done.txn_id,
        done.commit_ts,
        {"run": "7", "é": "ü"},
    )
    (event,) = wire.call("Replay", agent_id="whole too", namespace="other")
    assert (event.commit_ts, event.namespace) == (done.commit_ts, "other")


def test_a_commit_takes_metadata_and_preconditions(wire):
    txn_id = wire.begin()
    wire.write(txn_id, "commit", "k", {})
    fresh = [pb.Precondition(agent_id="commit", key="k", version=0)]
    commit_ts = wire.call("Commit", txn_id=txn_id, preconditions=fresh, metadata={"by": "me"}).commit_ts
    assert [(each.commit_ts, dict(each.metadata)) for each in wire.replay("commit")] == [(commit_ts, {"by": "me"})]
    txn_id = wire.begin()
    wire.write(txn_id, "commit", "k", {})
    (found,) = failed(wire, "Commit", txn_id=txn_id, preconditions=fresh)
    assert (found.index, found.version, found.exists) == (0, 1, True)
    assert wire.refused("Commit", txn_id=txn_id).code == "TXN_NOT_FOUND"
    assert wire.get("commit", "k").version == 1


def test_every_precondition_that_failed_is_told(wire):
    first = transact(wire, operation("checked", "k", {}))
    wire.put("only looked at", "k", {})
    preconditions = [
        pb.Precondition(agent_id="checked", key="k", version=1),  # holds
        pb.Precondition(agent_id="checked", key="k", version=2),
        pb.Precondition(agent_id="checked", key="k", version=2),  # repeated
        pb.Precondition(agent_id="checked", key="k", exists=False),  # contradicts the first
        pb.Precondition(agent_id="checked", agent_commit_ts=first.commit_ts - 1),
        pb.Precondition(agent_id="only looked at", key="k", version=9),
        pb.Precondition(agent_id="never was", lease_epoch=1),
    ]
    found = failed(wire, operations=[operation("checked", "k", {})], preconditions=preconditions)
    assert [each.index for each in found] == [1, 2, 3, 4, 5, 6]
    assert {(each.version, each.exists) for each in found[:3]} == {(1, True)}
    assert found[3].agent_commit_ts == first.commit_ts
    assert (found[5].lease_epoch, found[5].lease_held) == (0, False)
    assert wire.get("checked", "k").version == 1
    done = transact(wire, operation("checked", "k", {}), preconditions=preconditions[:1])
    assert list(done.versions) == [2]


def test_what_makes_no_sense_is_refused_by_name(wire):
    bad = {
        "no condition": {"preconditions": [pb.Precondition(agent_id="a", key="k")]},
        "key is empty": {"preconditions": [pb.Precondition(agent_id="a", version=1)]},
        "agent_id is empty": {"operations": [operation("", "k")]},
        "needs an operation": {"idempotency_key": "k"},
        "entries of metadata": {"operations": [operation("a", "k")], "metadata": {str(n): "" for n in range(33)}},
        "preconditions; the limit is 256": {"preconditions": [pb.Precondition(agent_id="a", agent_commit_ts=1)] * 257},
    }
    for why, fields in bad.items():
        refused = wire.refused("Transact", **fields)
        assert refused.pair == INVALID
        assert why in refused.message


def test_a_value_that_does_not_last(wire):
    done = transact(wire, operation("brief", "k", {"n": 1}, ttl_s=3600), operation("brief", "l", {}))
    (event,) = wire.replay("brief")
    assert [each.ttl_s for each in event.operations] == [3600, 0]
    expires_at = Timestamp(seconds=event.committed_at.seconds + 3600, nanos=event.committed_at.nanos)
    keys = [pb.KeyRef(agent_id="brief", key="k"), pb.KeyRef(agent_id="brief", key="l")]
    told = [
        [wire.get("brief", "k"), wire.get("brief", "l")],
        [wire.call("GetStateAtVersion", agent_id="brief", key=key, version=1) for key in "kl"],
        [wire.call("GetState", agent_id="brief", key=key, at_ts=done.commit_ts) for key in "kl"],
        [each for key in "kl" for each in wire.call("History", agent_id="brief", key=key)],
        wire.call("ScanPrefix", agent_id="brief").entries,
        wire.call("ScanPrefix", agent_id="brief", limit=2).entries,
        wire.call("BatchGet", keys=keys).entries,
        [each.after for each in wire.call("Diff", agent_id="brief")],
    ]
    for found in told:
        assert [each.HasField("expires_at") for each in found] == [True, False]
        assert found[0].expires_at == expires_at
        assert found[0].value == struct({"n": 1})
    txn_id = wire.begin()
    for name, ttl_s in (("Write", 0), ("Write", -1), ("Transact", 0), ("Transact", 10 * 366 * 86400 + 1)):
        one = {"txn_id": txn_id, "agent_id": "brief", "key": "k", "value": struct({}), "ttl_s": ttl_s}
        many = {"operations": [operation("brief", "k", {}, ttl_s=ttl_s)]}
        refused = wire.refused(name, **(one if name == "Write" else many))
        assert (refused.pair, refused.details["size"]) == (INVALID, str(ttl_s))
    assert wire.refused("Transact", operations=[operation("brief", "k", ttl_s=1)]).pair == INVALID
    wire.call("Write", txn_id=txn_id, agent_id="brief", key="m", value=struct({}), ttl_s=60)
    wire.call("Commit", txn_id=txn_id)
    assert wire.get("brief", "m").HasField("expires_at")


def test_what_has_expired_is_deleted_by_an_event(wire):
    transact(wire, operation("gone", "k", {"n": 1}, ttl_s=1), operation("gone", "l", {}))
    written, deleted = wire.replay("gone", follow=True, limit=2)
    assert deleted.committed_at.ToNanoseconds() >= written.committed_at.ToNanoseconds() + 1_000_000_000
    assert deleted.operations == [pb.Operation(key="k", version=2, expired=True)]
    assert not any(each.expired for each in written.operations)
    assert wire.get("gone", "k") == pb.GetStateResponse(version=2, commit_ts=deleted.commit_ts)
    assert [each.key for each in wire.call("ScanPrefix", agent_id="gone").entries] == ["l"]


def test_a_repeated_request_gives_the_first_answer(wire):
    value = {"b": 1, "a": {"z": 1, "y": 2}}
    asked = {
        "operations": [operation("repeated", "k", value), operation("repeated too", "k")],
        "idempotency_key": "one",
    }
    first = wire.call("Transact", **asked)
    again = wire.call("Transact", **asked)
    assert (first.deduplicated, again.deduplicated) == (False, True)
    again.deduplicated = False
    assert again == first
    assert wire.get("repeated", "k").version == 1
    other = wire.refused("Transact", operations=[operation("repeated", "k", {})], idempotency_key="one")
    assert other.pair == ("INVALID_ARGUMENT", "IDEMPOTENCY_KEY_REUSED")
    elsewhere = transact(wire, operation("elsewhere", "k", {}), idempotency_key="one")
    assert not elsewhere.deduplicated


# Leases


def test_a_lease_fences_older_epochs_off(wire):
    assert not wire.call("GetLease", agent_id="leased").HasField("lease")
    lease = wire.call("AcquireLease", agent_id="leased", holder="one", ttl_ms=60_000)
    assert (lease.epoch, lease.holder) == (1, "one")
    left_s = lease.expires_at.ToNanoseconds() / 1e9 - time.time()
    assert 30 < left_s <= 61
    refused = wire.refused("AcquireLease", agent_id="leased", holder="two", ttl_ms=60_000)
    assert (refused.code, refused.details["epoch"], refused.details["holder"]) == ("LEASE_NOT_HELD", "1", "one")
    renewed = wire.call("RenewLease", agent_id="leased", epoch=1, ttl_ms=120_000)
    assert renewed.expires_at.ToNanoseconds() > lease.expires_at.ToNanoseconds()
    under = [pb.Precondition(agent_id="leased", lease_epoch=1)]
    assert transact(wire, operation("leased", "k", {}), preconditions=under).versions == [1]
    assert wire.call("ReleaseLease", agent_id="leased", epoch=1).commit_ts > renewed.commit_ts
    assert not wire.call("GetLease", agent_id="leased").held
    assert wire.call("AcquireLease", agent_id="leased", holder="two", ttl_ms=60_000).epoch == 2
    (found,) = failed(wire, operations=[operation("leased", "k", {})], preconditions=under)
    assert (found.lease_epoch, found.lease_held) == (2, True)
    assert wire.refused("RenewLease", agent_id="leased", epoch=1, ttl_ms=60_000).code == "LEASE_NOT_HELD"
    assert wire.refused("ReleaseLease", agent_id="leased", epoch=1).code == "LEASE_NOT_HELD"
    assert len(wire.replay("leased")) == 1  # leases are no events


# The past


@pytest.fixture(scope="module")
def history(wire):
    """The commits of an agent whose key has three versions, and whose other keys come one by one."""
    commits = [transact(wire, operation("past", "k", {"n": n}), operation("past", f"key {n}", {})) for n in range(3)]
    return [each.commit_ts for each in commits]


def test_reads_as_of_a_commit(wire, history):
    def at(at_ts):
        return wire.call("GetState", agent_id="past", key="k", at_ts=at_ts)

    assert [at(commit_ts).value for commit_ts in history] == [struct({"n": n}) for n in range(3)]
    assert (at(0).version, at(history[0] - 1).version, at(history[2] + 1).version, at(2**64 - 1).version) == (
        0,
        0,
        3,
        3,
    )
    keys = wire.call("ListKeys", agent_id="past", at_ts=history[1]).keys
    assert list(keys) == ["k", "key 0", "key 1"]
    entries = wire.call("ScanPrefix", agent_id="past", prefix="k", at_ts=history[0]).entries
    assert [(entry.key, entry.version) for entry in entries] == [("k", 1), ("key 0", 1)]
    assert wire.call("ListKeys", agent_id="past", at_ts=0).keys == []


def test_reads_as_of_a_time(wire, history):
    events = wire.replay("past")
    assert [event.commit_ts for event in events] == history
    for number, event in enumerate(events):
        if number == 2 or events[number + 1].committed_at != event.committed_at:
            found = wire.call("GetState", agent_id="past", key="k", at_time=event.committed_at)
            assert found.value == struct({"n": number})
    before, after = Timestamp(seconds=1), Timestamp()
    after.FromDatetime(dt.datetime(9999, 1, 1, tzinfo=dt.UTC))
    assert not wire.call("GetState", agent_id="past", key="k", at_time=before).exists
    assert wire.call("GetState", agent_id="past", key="k", at_time=after).version == 3
    refused = wire.refused("GetState", agent_id="past", key="k", at_time=before, at_ts=1)
    assert (refused.pair, "both" in refused.message) == (INVALID, True)


def test_history_newest_first(wire, history):
    found = list(wire.call("History", agent_id="past", key="k"))
    assert [(each.version, each.commit_ts, each.exists) for each in found] == [
        (version, history[version - 1], True) for version in (3, 2, 1)
    ]
    assert [each.value for each in found] == [struct({"n": n}) for n in (2, 1, 0)]
    assert all(each.txn_id and each.committed_at.seconds for each in found)
    assert [each.version for each in wire.call("History", agent_id="past", key="k", limit=2)] == [3, 2]
    assert [each.version for each in wire.call("History", agent_id="past", key="k", before_version=3, limit=1)] == [2]
    assert list(wire.call("History", agent_id="past", key="never")) == []


def test_what_is_different(wire, history):
    found = list(wire.call("Diff", agent_id="past", from_ts=history[0], to_ts=history[1]))
    assert [(each.key, each.before.version, each.after.version) for each in found] == [("k", 1, 2), ("key 1", 0, 1)]
    assert [each.key for each in wire.call("Diff", agent_id="past", prefix="key")] == ["key 0", "key 1", "key 2"]
    assert list(wire.call("Diff", agent_id="past", from_ts=history[2])) == []


# Many, and pages


def test_pages_show_one_moment_and_their_tokens_cannot_be_bent(wire):
    transact(wire, *(operation("paged", f"{n:02}", {}) for n in range(10)))
    pages, token = [], b""
    while True:
        page = wire.call("ListKeys", agent_id="paged", limit=4, page_token=token)
        pages.append(list(page.keys))
        token = page.next_page_token
        if not token:
            break
        wire.put("paged", f"0{len(pages)} later", {})
    assert pages == [["00", "01", "02", "03"], ["04", "05", "06", "07"], ["08", "09"]]
    first = wire.call("ScanPrefix", agent_id="paged", prefix="0", limit=3)
    assert [entry.key for entry in first.entries] == ["00", "01", "01 later"]
    for other in (first.next_page_token[:-1], b"x" + first.next_page_token, b"made up"):
        refused = wire.refused("ScanPrefix", agent_id="paged", prefix="0", limit=3, page_token=other)
        assert (refused.pair, "page_token" in refused.message) == (INVALID, True)
    refused = wire.refused("ScanPrefix", agent_id="past", prefix="0", limit=3, page_token=first.next_page_token)
    assert refused.pair == INVALID
    assert wire.refused("ListKeys", agent_id="paged", limit=10_001).details == {"limit": "10000", "size": "10001"}


def test_many_keys_at_once(wire, history):
    keys = [
        pb.KeyRef(agent_id="past", key="k"),
        pb.KeyRef(agent_id="nobody", key="k"),
        pb.KeyRef(agent_id="past", key="k"),
    ]
    found = wire.call("BatchGet", keys=keys).entries
    assert [(each.namespace, each.agent_id, each.key, each.version) for each in found] == [
        ("default", "past", "k", 3),
        ("default", "nobody", "k", 0),
        ("default", "past", "k", 3),
    ]
    (then,) = wire.call("BatchGet", keys=keys[:1], at_ts=history[1]).entries
    assert (then.value, then.version) == (struct({"n": 1}), 2)
    assert wire.refused("BatchGet", keys=keys[:1] * 1_001).details == {"limit": "1000", "size": "1001"}


def test_agents_and_namespaces(wire):
    commits = [
        transact(
            wire,
            operation(f"listed/{n}", "k", {}, namespace="of many"),
            operation(f"listed/{n}", "l", {}, namespace="of many"),
        )
        for n in range(3)
    ]
    first = wire.call("ListAgents", namespace="of many", limit=2)
    assert [agent.agent_id for agent in first.agents] == ["listed/0", "listed/1"]
    (last,) = wire.call("ListAgents", namespace="of many", limit=2, page_token=first.next_page_token).agents
    assert (last.namespace, last.agent_id, last.live_keys, last.commits, last.operations) == (
        "of many",
        "listed/2",
        2,
        1,
        2,
    )
    assert last.first_commit_ts == last.last_commit_ts == commits[2].commit_ts
    assert [agent.agent_id for agent in wire.call("ListAgents", namespace="of many", prefix="listed/1").agents] == [
        "listed/1"
    ]
    (found,) = wire.call("ListNamespaces", prefix="of many").namespaces
    assert (found.agents, found.live_keys, found.commits, found.operations) == (3, 6, 3, 6)
    assert (found.first_commit_ts, found.last_commit_ts) == (commits[0].commit_ts, commits[2].commit_ts)
    assert wire.call("ListNamespaces", prefix="nothing").namespaces == []


# Watching


def test_a_replay_with_all_its_filters(wire):
    for n in range(3):
        keys = ("k/1", "other") if n != 1 else ("other",)
        transact(wire, *(operation("filtered", key, {"n": n}) for key in keys), metadata={"run": str(n % 2)})
    found = wire.replay("filtered", key_prefix="k/")
    assert [[each.key for each in event.operations] for event in found] == [["k/1"], ["k/1"]]
    assert len(wire.replay("filtered", metadata={"run": "0"})) == 2
    assert [dict(event.metadata) for event in wire.replay("filtered", limit=2)] == [{"run": "0"}, {"run": "1"}]
    everything = wire.replay("filtered")
    from_second = wire.replay("filtered", start_time=everything[1].committed_at)
    assert from_second[-1] == everything[-1]
    since_ns = everything[1].committed_at.ToNanoseconds()
    assert all(event.committed_at.ToNanoseconds() >= since_ns for event in from_second)


def test_a_watcher_sees_what_was_and_what_comes(wire):
    first = transact(wire, operation("watched", "k", {}))
    events = wire.call("Replay", agent_id="watched", follow=True, bookmarks=True)
    assert next(events).commit_ts == first.commit_ts
    assert next(events).bookmark
    second = transact(wire, operation("watched", "k", {}))
    found = next(event for event in events if not event.bookmark)
    assert (found.commit_ts, found.operations[0].version) == (second.commit_ts, 2)
    events.cancel()
    asked = {"agent_id": "watched", "follow": True, "start_ts": first.commit_ts, "limit": 2}
    assert [event.commit_ts for event in wire.call("Replay", **asked)] == [first.commit_ts, second.commit_ts]


def test_the_whole_log_by_namespace_and_prefix(wire):
    done = transact(
        wire,
        operation("log/1", "k", {}, namespace="of the log"),
        operation("log/2", "k", {}, namespace="of the log"),
        operation("else", "k", {}, namespace="of the log"),
    )
    found = list(wire.call("ReplayLog", namespace="of the log", agent_prefix="log/"))
    assert sorted((event.agent_id, event.commit_ts) for event in found) == [
        ("log/1", done.commit_ts),
        ("log/2", done.commit_ts),
    ]
    assert len(list(wire.call("ReplayLog", start_ts=done.commit_ts, end_ts=done.commit_ts))) == 3
    over = wire.refused("ReplayLog", start_ts=1, start_time=Timestamp(seconds=1))
    assert (over.pair, "both" in over.message) == (INVALID, True)
