"""The contract on the wire, row by row: a real daemon, its real store, and grpcio as any program uses it."""

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from e2e.fix_wire import refusal_of, struct, until
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from statehouse.limits import KIB, MIB
from statehouse.storage.wire import LENGTH_DELIMITED, length_delimited, tag
from statehouse.v1 import statehouse_pb2 as pb

INVALID = ("INVALID_ARGUMENT", "INVALID_REQUEST")
NOT_FOUND = ("NOT_FOUND", "TXN_NOT_FOUND")
EXPIRED = ("DEADLINE_EXCEEDED", "TXN_EXPIRED")
ALREADY_COMMITTED = ("FAILED_PRECONDITION", "TXN_ALREADY_COMMITTED")


def over(refused, limit, size):
    """Whether a refusal is that of a limit, which it and the size seen are named in."""
    return (
        refused.pair == INVALID
        and refused.details == {"limit": str(limit), "size": str(size)}
        and str(limit) in refused.message
        and str(size) in refused.message
    )


# Limits: each at its edge, and one past it


NAME_LIMITS = [("agent_id", 256), ("namespace", 256), ("key", 1024)]


@pytest.mark.parametrize("letter", ["x", "\N{PILE OF POO}"])
@pytest.mark.parametrize(("field", "limit"), NAME_LIMITS)
def test_the_limits_of_names(wire, field, limit, letter):
    names = {"namespace": "n", "agent_id": f"limits {letter}", "key": "k"}
    longest = letter * (limit // len(letter.encode()))
    txn_id = wire.begin()
    wire.call("Write", txn_id=txn_id, value=struct({"field": field}), **names | {field: longest})
    wire.commit(txn_id)
    assert wire.call("GetState", **names | {field: longest}).value == struct({"field": field})
    too_long = names | {field: longest + "x"}
    other = wire.begin()
    assert over(wire.refused("Write", txn_id=other, value=struct({}), **too_long), limit, limit + 1)
    assert over(wire.refused("Delete", txn_id=other, **too_long), limit, limit + 1)
    assert over(wire.refused("GetState", **too_long), limit, limit + 1)
    assert over(wire.refused("GetStateAtVersion", version=1, **too_long), limit, limit + 1)
    if field != "key":
        del too_long["key"]
        assert over(wire.refused("ListKeys", **too_long), limit, limit + 1)
        assert over(wire.refused("Replay", **too_long), limit, limit + 1)
        assert over(wire.refused("ScanPrefix", prefix="", **too_long), limit, limit + 1)
    assert wire.commit(other)  # the transaction lives on


def struct_of(size_bytes):
    """A Struct that takes just so many bytes."""
    text = "x" * size_bytes
    while (excess := struct({"t": text}).ByteSize() - size_bytes) > 0:
        text = text[:-excess]
    value = struct({"t": text})
    assert value.ByteSize() == size_bytes
    return value


def test_the_limit_of_a_value(wire):
    txn_id = wire.begin()
    names = {"txn_id": txn_id, "agent_id": "large", "key": "k"}
    largest = struct_of(MIB)
    wire.call("Write", value=largest, **names)
    assert over(wire.refused("Write", value=struct_of(MIB + 1), **names), MIB, MIB + 1)
    wire.commit(txn_id)
    assert wire.get("large", "k").value == largest
    (event,) = wire.replay("large")
    assert [operation.value for operation in event.operations] == [largest]


def test_the_limit_of_operations_in_a_transaction(wire):
    txn_id = wire.begin()
    names = {"txn_id": txn_id, "agent_id": "many operations"}
    wire.calls("Write", ({"key": f"{number:05}", "value": struct({}), **names} for number in range(10_000)))
    assert over(wire.refused("Write", key="k", value=struct({}), **names), 10_000, 10_001)
    assert over(wire.refused("Delete", key="00000", **names), 10_000, 10_001)
    commit_ts = wire.commit(txn_id)
    assert wire.call("ListKeys", agent_id="many operations").keys == [f"{number:05}" for number in range(10_000)]
    (event,) = wire.replay("many operations")
    assert (event.commit_ts, len(event.operations)) == (commit_ts, 10_000)


def test_the_limit_of_bytes_in_a_transaction(wire):
    """What counts is the bytes of keys and values."""
    txn_id = wire.begin()
    names = {"txn_id": txn_id, "agent_id": "many bytes"}
    value = struct_of(MIB - 2)
    wire.calls("Write", ({"key": f"{number:02}", "value": value, **names} for number in range(31)))
    last = {"key": "31", **names}
    assert over(wire.refused("Write", value=struct_of(MIB - 1), **last), 32 * MIB, 32 * MIB + 1)
    wire.call("Write", value=value, **last)
    assert over(wire.refused("Delete", key="k", **names), 32 * MIB, 32 * MIB + 1)
    wire.commit(txn_id)
    assert len(wire.call("ListKeys", agent_id="many bytes").keys) == 32
    assert wire.get("many bytes", "31").value == value


def test_the_limit_of_open_transactions(make_daemon, connect):
    wire = connect(make_daemon(options=["--limit-open-transactions", "5"]).start().address)
    ids = [wire.begin() for _ in range(5)]
    refused = wire.refused("BeginTransaction")
    assert refused.pair == ("RESOURCE_EXHAUSTED", "INVALID_REQUEST")
    assert refused.details == {"limit": "5", "size": "5"}
    assert "5" in refused.message
    wire.commit(ids[0])
    wire.call("Abort", txn_id=ids[1])
    ids += [wire.begin() for _ in range(2)]
    assert wire.refused("BeginTransaction").status == "RESOURCE_EXHAUSTED"
    assert len(set(ids)) == 7


def test_the_limit_of_a_timeout(wire):
    hour_ms = 60 * 60 * 1000
    assert wire.begin(hour_ms)
    assert wire.begin(1)
    assert over(wire.refused("BeginTransaction", timeout_ms=hour_ms + 1), hour_ms, hour_ms + 1)
    assert over(wire.refused("BeginTransaction", timeout_ms=2**64 - 1), hour_ms, 2**64 - 1)
    assert over(wire.refused("BeginTransaction", timeout_ms=0), hour_ms, 0)


# Names


ODD_NAMES = [
    "nul\0in it",
    "\0",
    "\0\xff",
    "a/b",
    "a:b",
    "\N{PILE OF POO}\N{COMBINING ACUTE ACCENT}",
    "e\N{COMBINING ACUTE ACCENT}",
    "\xe9",
    " ",
    "\n",
    "\N{REPLACEMENT CHARACTER}",
    "\U0010ffff",
    "x" * 256,
    "\N{PILE OF POO}" * 64,
]


def test_odd_names_are_kept_apart_byte_for_byte(wire):
    places = [(namespace, agent, key) for namespace in ODD_NAMES for agent in ODD_NAMES[:6] for key in ODD_NAMES[-6:]]
    places += [(key, namespace, agent) for namespace, agent, key in places]
    places = list(dict.fromkeys(places))
    txn_id = wire.begin()
    fields = [{"namespace": namespace, "agent_id": agent, "key": key} for namespace, agent, key in places]
    wire.calls(
        "Write",
        ({"txn_id": txn_id, "value": struct({"n": number}), **names} for number, names in enumerate(fields)),
    )
    commit_ts = wire.commit(txn_id)
    for number, found in enumerate(wire.calls("GetState", fields)):
        assert (found.exists, found.version, found.commit_ts) == (True, 1, commit_ts)
        assert found.value == struct({"n": number})
    for namespace, agent in {(namespace, agent) for namespace, agent, _ in places}:
        keys = sorted((key for *where, key in places if where == [namespace, agent]), key=str.encode)
        assert wire.call("ListKeys", namespace=namespace, agent_id=agent).keys == keys
        (event,) = wire.replay(agent, namespace=namespace)
        assert {operation.key for operation in event.operations} == set(keys)


def test_separators_in_names_never_make_two_meet(wire):
    wire.put("c", "k", {"who": "a:b / c"}, namespace="a:b")
    wire.put("b:c", "k", {"who": "a / b:c"}, namespace="a")
    assert wire.get("c", "k", namespace="a:b").value == struct({"who": "a:b / c"})
    assert wire.get("b:c", "k", namespace="a").value == struct({"who": "a / b:c"})
    assert len(wire.replay("c", namespace="a:b")) == len(wire.replay("b:c", namespace="a")) == 1
    assert not wire.get("c", "k").exists


def test_an_empty_namespace_is_the_one_called_default(wire):
    wire.put("of default", "k", {"n": 1})
    wire.put("of default", "k", {"n": 2}, namespace="default")
    assert wire.get("of default", "k").version == wire.get("of default", "k", namespace="default").version == 2


# Values


VALUES = [
    {},
    {"list": [{"a": 1, "b": [{"c": {}}, {}, [], None]}, [[{"d": None}]], [[]]], "object": {"empty": {}, "null": None}},
    {"integers": [0, 1, -1, 2**31, 2**32 + 1, -(2**53) + 1, 2**53 - 1, 2**53, -(2**53)], "half": 0.5, "small": 5e-324},
    {"text": "é\n\0🙂", "": "the empty key", "no": False, "yes": True, "digits": "9007199254740993"},
]


def as_json(value):
    return json.loads(json_format.MessageToJson(value))


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values_come_back_exactly_as_written(wire, value):
    agent, sent = f"exactly {VALUES.index(value)}", json_format.ParseDict(value, Struct())
    txn_id = wire.begin()
    wire.call("Write", txn_id=txn_id, agent_id=agent, key="k", value=sent)
    wire.commit(txn_id)
    (event,), (entry,) = wire.replay(agent), wire.call("ScanPrefix", agent_id=agent, prefix="").entries
    at_version = wire.call("GetStateAtVersion", agent_id=agent, key="k", version=1)
    for found in (wire.get(agent, "k"), at_version, entry, event.operations[0]):
        assert found.value == sent
        assert as_json(found.value) == value


def nested(depth, closed):
    """A serialized Struct of objects inside each other."""
    for _ in range(depth):
        closed = length_delimited(1, length_delimited(1, b"k") + length_delimited(2, length_delimited(5, closed)))
    return closed


def test_a_value_nested_10_000_deep_is_refused_and_harms_nobody(wire, shared_daemon):
    pid, txn_id = shared_daemon.pid, wire.begin()
    names = pb.WriteRequest(txn_id=txn_id, agent_id="deep", key="k").SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        wire.raw("Write", names + tag(5, LENGTH_DELIMITED) + length_of(nested(10_000, b"")))
    refused = refusal_of(caught.value)
    assert refused.pair == INVALID
    assert "nested too deep" in refused.message
    assert set(refused.details) == {"limit", "size"}
    wire.write(txn_id, "deep", "k", {"still": "served"})
    wire.commit(txn_id)
    deepest = nested(32, b"")  # and the outermost: 33 objects
    other = wire.begin()
    names = pb.WriteRequest(txn_id=other, agent_id="deep", key="deepest").SerializeToString()
    wire.raw("Write", names + tag(5, LENGTH_DELIMITED) + length_of(deepest))
    wire.commit(other)
    assert wire.get("deep", "deepest").value.SerializeToString() == deepest
    assert len(wire.replay("deep")) == 2
    assert shared_daemon.running
    assert shared_daemon.pid == pid


def length_of(content):
    """The content with its length before it: a length-delimited field without its tag."""
    return length_delimited(1, content)[1:]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(wire, number):
    refused = wire.refused("Write", txn_id=wire.begin(), agent_id="a", key="k", value=struct({"l": [{"n": number}]}))
    assert refused.pair == INVALID
    assert "finite" in refused.message


# Malformed


@pytest.mark.parametrize("field", ["agent_id", "key", "txn_id"])
@pytest.mark.parametrize("name", ["Write", "Delete", "Commit", "Abort", "GetState", "GetStateAtVersion", "ListKeys"])
def test_empty_names_are_refused(wire, name, field):
    fields = {"agent_id": "a", "key": "k", "txn_id": "t", "value": struct({})}
    known = {each.name for each in getattr(pb, f"{name}Request").DESCRIPTOR.fields}
    given = {key: value for key, value in fields.items() if key in known and key != field}
    if field in known:
        refused = wire.refused(name, **given)
        assert refused.pair == INVALID
        assert field in refused.message


@pytest.mark.parametrize("request_bytes", [b"\xff", b"\x12\x7f", b"\x12\x02\xff\xfe", b"\x0a"])
def test_malformed_requests_are_refused(wire, request_bytes):
    for name in ("Write", "GetState", "Replay", "ListKeys"):
        if name == "Replay":
            call = wire.channel.unary_stream("/statehouse.v1.StatehouseService/Replay")(request_bytes, timeout=30)
            read = call.__next__
        else:

            def read(name=name):
                wire.raw(name, request_bytes)

        with pytest.raises(grpc.RpcError) as caught:
            read()
        assert refusal_of(caught.value).pair == INVALID


# Transactions


def test_transaction_ids_are_at_least_128_random_bits(wire):
    ids = [wire.begin() for _ in range(50)]
    assert len(set(ids)) == 50
    assert min(map(len, ids)) >= 128 / 6  # six bits a character at most
    heads, tails = {each[:8] for each in ids}, {each[-8:] for each in ids}
    assert len(heads) == len(tails) == 50


def test_nothing_staged_is_seen_before_its_commit(wire):
    wire.put("staged", "k", {"n": 1})
    txn_id = wire.begin()
    wire.write(txn_id, "staged", "k", {"n": 2})
    wire.write(txn_id, "staged", "new", {})
    wire.call("Delete", txn_id=txn_id, agent_id="staged", key="k")
    wire.write(txn_id, "staged", "k", {"n": 3})
    assert wire.get("staged", "k").version == 1
    assert wire.call("ListKeys", agent_id="staged").keys == ["k"]
    assert len(wire.replay("staged")) == 1
    commit_ts = wire.commit(txn_id)
    _, event = wire.replay("staged")
    assert [(each.key, each.version, each.HasField("value")) for each in event.operations] == [
        ("k", 2, True),
        ("new", 1, True),
        ("k", 3, False),
        ("k", 4, True),
    ]
    found = [wire.call("GetStateAtVersion", agent_id="staged", key="k", version=number) for number in (1, 2, 3, 4)]
    assert [each.exists for each in found] == [True, True, False, True]
    assert [each.commit_ts for each in found[1:]] == [commit_ts] * 3


def test_unknown_transactions(wire):
    names = {"agent_id": "a", "key": "k"}
    assert wire.refused("Write", txn_id="nobody's", value=struct({}), **names).pair == NOT_FOUND
    assert wire.refused("Delete", txn_id="nobody's", **names).pair == NOT_FOUND
    assert wire.refused("Commit", txn_id="nobody's").pair == NOT_FOUND
    wire.call("Abort", txn_id="nobody's")


def test_after_an_abort(wire):
    txn_id = wire.begin()
    wire.write(txn_id, "aborted", "k", {})
    for _ in range(3):
        wire.call("Abort", txn_id=txn_id)
    names = {"txn_id": txn_id, "agent_id": "aborted", "key": "k"}
    for refused in (
        wire.refused("Write", value=struct({}), **names),
        wire.refused("Delete", **names),
        wire.refused("Commit", txn_id=txn_id),
    ):
        assert refused.pair == NOT_FOUND
        assert "aborted" in refused.message
    assert not wire.get("aborted", "k").version


def test_after_a_commit(wire):
    txn_id = wire.begin()
    wire.write(txn_id, "committed", "k", {})
    commit_ts = wire.commit(txn_id)
    names = {"txn_id": txn_id, "agent_id": "committed", "key": "k"}
    for refused in (
        wire.refused("Write", value=struct({}), **names),
        wire.refused("Delete", **names),
        wire.refused("Commit", txn_id=txn_id),
        wire.refused("Abort", txn_id=txn_id),
    ):
        assert refused.pair == ALREADY_COMMITTED
        assert refused.details == {"commit_ts": str(commit_ts)}
    assert wire.get("committed", "k").version == 1


def test_after_its_timeout(wire):
    """The shortest timeout there is, and calls until it is over; expiry itself is exact, so few are needed."""
    txn_id = wire.begin(timeout_ms=1)
    until(lambda: wire.may_be_refused("Delete", txn_id=txn_id, agent_id="late", key="k") is not None)
    names = {"txn_id": txn_id, "agent_id": "late", "key": "k"}
    assert wire.refused("Write", value=struct({}), **names).pair == EXPIRED
    assert wire.refused("Delete", **names).pair == EXPIRED
    assert wire.refused("Commit", txn_id=txn_id).pair == EXPIRED
    wire.call("Abort", txn_id=txn_id)
    assert wire.refused("Commit", txn_id=txn_id).pair == EXPIRED
    assert not wire.get("late", "k").version


def test_an_expired_transaction_frees_its_memory_by_itself(make_daemon, connect):
    """Two transactions may hold 8 KiB together; nobody touches the one that expires, and the other gets its room."""
    limits = ("--limit-value-bytes", "--limit-transaction-bytes", "--limit-staged-bytes")
    options = [each for limit in limits for each in (limit, str(8 * KIB))]
    wire = connect(make_daemon(options=options).start().address)
    left = wire.begin(timeout_ms=1_500)  # of which the calls below may not take much
    wire.call("Write", txn_id=left, agent_id="a", key="k", value=struct_of(6 * KIB))
    other = wire.begin(timeout_ms=60_000)
    names = {"txn_id": other, "agent_id": "a", "key": "k", "value": struct_of(6 * KIB)}
    assert wire.refused("Write", **names).status == "RESOURCE_EXHAUSTED"
    until(lambda: wire.may_be_refused("Write", **names) is None)
    assert wire.refused("Commit", txn_id=left).pair == EXPIRED
    wire.commit(other)


def test_an_empty_commit_uses_a_commit_ts_and_is_in_no_replay(wire):
    before = wire.put("beside empties", "k", {})
    txn_id = wire.begin()
    assert wire.commit(txn_id) == before + 1
    assert wire.put("beside empties", "k", {}) == before + 2
    assert wire.refused("Commit", txn_id=txn_id).details == {"commit_ts": str(before + 1)}
    assert [event.commit_ts for event in wire.replay("beside empties")] == [before, before + 2]
    assert [event.commit_ts for event in wire.replay("beside empties", start_ts=before + 1, end_ts=before + 1)] == []


# Reads


def test_deletes_are_versions_and_what_was_never_written_is_none(wire):
    wire.put("deletes", "k", {"n": 1})
    txn_id = wire.begin()
    wire.call("Delete", txn_id=txn_id, agent_id="deletes", key="k")
    wire.call("Delete", txn_id=txn_id, agent_id="deletes", key="never")
    commit_ts = wire.commit(txn_id)
    found = wire.get("deletes", "k")
    assert (found.exists, found.version, found.commit_ts, found.HasField("value")) == (False, 2, commit_ts, False)
    assert wire.get("deletes", "never").version == 1
    never = [wire.get("deletes", "other"), wire.get("nobody", "k")]
    never += [wire.call("GetStateAtVersion", agent_id="deletes", key="k", version=n) for n in (0, 3, 2**64 - 1)]
    for found in never:
        assert (found.exists, found.version, found.commit_ts, found.HasField("value")) == (False, 0, 0, False)
    assert list(wire.call("ListKeys", agent_id="deletes").keys) == []
    assert list(wire.call("ScanPrefix", agent_id="deletes").entries) == []
    assert wire.put("deletes", "k", {"n": 3}) > commit_ts
    assert wire.get("deletes", "k").version == 3


def test_lists_are_live_keys_in_the_order_of_their_bytes(wire):
    keys = ["b", "a", "a/10", "a/2", "\0", "Z", "é", "🙂", "\uffff", "a\xff"]
    txn_id = wire.begin()
    for key in [*keys, "a/gone"]:
        wire.write(txn_id, "listed", key, {"key": key})
    wire.call("Delete", txn_id=txn_id, agent_id="listed", key="a/gone")
    wire.commit(txn_id)
    expected = sorted(keys, key=str.encode)
    assert wire.call("ListKeys", agent_id="listed").keys == expected
    for prefix in ("", "a", "a/", "a/1", "none", "\0"):
        entries = wire.call("ScanPrefix", agent_id="listed", prefix=prefix).entries
        assert [each.key for each in entries] == [key for key in expected if key.startswith(prefix)]
        assert all(each.value == struct({"key": each.key}) and each.version == 1 for each in entries)


def test_replays(wire):
    stamps = []
    for number in range(6):
        txn_id = wire.begin()
        wire.write(txn_id, "replayed", "k", {"n": number})
        wire.write(txn_id, "beside it", "k", {"n": number})
        stamps.append(wire.commit(txn_id))
    events = wire.replay("replayed")
    assert [event.commit_ts for event in events] == stamps
    assert {len(event.operations) for event in events} == {1}  # the other agent's are not in it
    ranges = [(None, None), (stamps[2], None), (None, stamps[2]), (stamps[1], stamps[4]), (stamps[3], stamps[3])]
    ranges += [(stamps[4], stamps[1]), (0, 2**64 - 1), (stamps[5] + 1, None)]
    for start, end in ranges:
        inside = [ts for ts in stamps if (start or 0) <= ts <= (2**64 if end is None else end)]
        assert [event.commit_ts for event in wire.replay("replayed", start_ts=start, end_ts=end)] == inside
    assert wire.replay("nobody") == []


def test_no_reader_ever_sees_part_of_a_transaction(wire):
    """One key in each of four agents, always written together: what is read later is never of an older commit."""
    agents = [f"together-{number}" for number in range(4)]
    ready, done = threading.Event(), threading.Event()

    def commit_many(seed):
        rng = random.Random(seed)
        for _ in range(60):
            txn_id = wire.begin()
            for agent in rng.sample(agents, len(agents)):
                wire.write(txn_id, agent, "k", {})
            wire.commit(txn_id)
            ready.set()

    def read_until_done(order):
        ready.wait(30)
        passes = 0
        while not done.is_set():
            seen = [wire.get(agent, "k") for agent in order]
            assert [each.version for each in seen] == sorted(each.version for each in seen)
            assert [each.commit_ts for each in seen] == sorted(each.commit_ts for each in seen)
            passes += 1
        return passes

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read_until_done, order) for order in (agents, agents[::-1])]
        try:
            for writer in [pool.submit(commit_many, seed) for seed in (1, 2)]:
                writer.result()
        finally:
            done.set()
        assert min(reader.result() for reader in readers) > 5
    stamps = [[event.commit_ts for event in wire.replay(agent)] for agent in agents]
    assert len(stamps[0]) == 120
    assert stamps == [stamps[0]] * 4


def test_commits_are_numbered_without_gap_and_seen_by_whoever_reads_next(wire):
    def commit_and_read(number):
        stamps = []
        for turn in range(30):
            stamps.append(wire.put(f"numbered-{number}", "k", {"turn": turn}))
            assert wire.get(f"numbered-{number}", "k").commit_ts == stamps[-1]
        assert stamps == sorted(stamps)
        return stamps

    before = wire.commit(wire.begin())
    with ThreadPoolExecutor(4) as pool:
        found = [stamp for stamps in pool.map(commit_and_read, range(4)) for stamp in stamps]
    assert sorted(found) == list(range(before + 1, before + 121))


def test_health_and_version(wire, shared_daemon):
    assert wire.call("Health").status == "ok"
    assert wire.call("Version").version == shared_daemon.events("starting")[-1]["version"]
