"""The requests of Transact, Commit and leases: what is refused, what it is told, and what the engine is given."""

import math

import attrs
import pytest
from google.protobuf import struct_pb2

from statehouse.actors.messages import AgentAt, Check, ExistsIs, LeaseIs, VersionIs
from statehouse.errors import InvalidRequestError
from statehouse.limits import (
    IDEMPOTENCY_KEY_BYTES,
    LEASE_HOLDER_BYTES,
    LEASE_LEAST_MS,
    LEASE_MOST_MS,
    METADATA_BYTES,
    METADATA_ENTRIES,
    METADATA_NAME_BYTES,
    METADATA_VALUE_BYTES,
    PRECONDITIONS,
    TTL_MOST_S,
    Limits,
)
from statehouse.rpc.server.requests_transactions import LeaseArguments, TransactionRequests
from statehouse.storage.wire import length_delimited
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

REQUESTS = TransactionRequests(Limits())
A = AgentId("default", "a")


def struct_of(value):
    message = struct_pb2.Struct()
    message.update(value)
    return message


def operation(agent_id="a", key="k", value=None, **fields):
    return pb.TransactOperation(agent_id=agent_id, key=key, value=None if value is None else struct_of(value), **fields)


def precondition(agent_id="a", key="", **fields):
    return pb.Precondition(agent_id=agent_id, key=key, **fields)


def transact(*operations, requests=REQUESTS, **fields):
    return requests.transact(pb.TransactRequest(operations=operations, **fields).SerializeToString())


def commit(**fields):
    return REQUESTS.commit(pb.CommitRequest(txn_id="t", **fields).SerializeToString())


def refused(match, ask, *arguments, **fields):
    """A call that is refused; the limit and the size that it tells."""
    with pytest.raises(InvalidRequestError, match=match) as error:
        ask(*arguments, **fields)
    return error.value.details.get("limit"), error.value.details.get("size")


def is_over(match, limit, size, ask, *arguments, **fields):
    assert refused(match, ask, *arguments, **fields) == (str(limit), str(size))


# Operations


def test_operations_come_in_their_order_and_values_as_they_were_sent():
    value = struct_of({"n": 1})
    found = transact(operation("b", "k", {"n": 1}), operation("a", "ü"), operation("a", "k", {}, namespace="n"))
    assert found.operations == (
        (AgentId("default", "b"), (b"k", value.SerializeToString(), 0)),
        (AgentId("default", "a"), ("ü".encode(), None, 0)),
        (AgentId("n", "a"), (b"k", b"", 0)),
    )
    assert (found.checks, dict(found.metadata), found.idempotency) == ((), {}, None)


def test_the_request_s_namespace_is_that_of_what_names_none():
    found = transact(
        operation(),
        operation(namespace="own"),
        namespace="n",
        preconditions=[precondition(key="k", version=1), precondition(namespace="own", agent_commit_ts=1)],
    )
    assert [agent.namespace for agent, _ in found.operations] == ["n", "own"]
    assert [check.agent.namespace for check in found.checks] == ["n", "own"]


def test_a_value_is_kept_byte_for_byte_and_beside_others_that_came_in_pieces():
    unordered = b"".join(
        length_delimited(1, length_delimited(1, key) + length_delimited(2, b"\x08\x00")) for key in (b"z", b"a", b"z")
    )
    names = length_delimited(2, b"a") + length_delimited(3, b"k")
    whole = length_delimited(2, names + length_delimited(4, unordered))
    first, second = struct_of({"x": 1}).SerializeToString(), struct_of({"y": 2}).SerializeToString()
    pieces = length_delimited(2, names + length_delimited(4, first) + length_delimited(4, second))
    assert REQUESTS.transact(whole).operations[0][1].value == unordered
    (_, (_, kept, _)), (_, (_, merged, _)) = REQUESTS.transact(whole + pieces).operations
    assert kept == unordered
    assert struct_pb2.Struct.FromString(merged) == struct_of({"x": 1, "y": 2})


def test_metadata_that_came_in_an_unusual_form_changes_no_value():
    unordered = length_delimited(1, length_delimited(1, b"k") + length_delimited(2, b"\x08\x00")) * 2
    request = length_delimited(
        2, length_delimited(2, b"a") + length_delimited(3, b"k") + length_delimited(4, unordered)
    )
    twice = length_delimited(5, length_delimited(1, b"m") + length_delimited(2, b"1")) * 2
    found = REQUESTS.transact(request + twice + length_delimited(5, length_delimited(1, b"empty")))
    assert found.operations[0][1].value == unordered
    assert found.metadata == {"m": "1", "empty": ""}


@pytest.mark.parametrize("field", ["agent_id", "key"])
def test_the_names_of_an_operation_are_needed(field):
    refused(f"^operation 1: {field} is empty", transact, operation(), operation(**{field: ""}))


@pytest.mark.parametrize(("field", "limit"), [("agent_id", 256), ("key", 1024), ("namespace", 256)])
def test_the_names_of_an_operation_have_limits(field, limit):
    transact(operation(**{field: "x" * limit}))
    is_over(f"{field} is {limit + 1} bytes", limit, limit + 1, transact, operation(**{field: "x" * limit + "y"}))


def test_the_request_s_namespace_has_a_limit_even_if_nothing_needs_it():
    is_over("namespace is 257 bytes", 256, 257, transact, operation(namespace="own"), namespace="x" * 257)


def test_the_number_of_operations_has_a_limit():
    requests = TransactionRequests(attrs.evolve(Limits(), transaction_operations=2))
    assert len(transact(operation(), operation(), requests=requests).operations) == 2
    is_over("3 operations; the limit is 2", 2, 3, transact, *[operation()] * 3, requests=requests)


def test_the_bytes_of_all_operations_have_a_limit():
    requests = TransactionRequests(attrs.evolve(Limits(), transaction_bytes=20))
    size = 1 + len(struct_of({"n": "x"}).SerializeToString())
    assert 10 < size <= 20
    transact(operation(value={"n": "x"}), requests=requests)
    is_over("the transaction is", 20, 2 * size, transact, *[operation(value={"n": "x"})] * 2, requests=requests)


def test_values_are_checked():
    requests = TransactionRequests(attrs.evolve(Limits(), value_bytes=5))
    refused("value is", transact, operation(value={"n": "long"}), requests=requests)
    refused("not finite", transact, operation(value={"n": math.nan}))
    names = length_delimited(2, b"a") + length_delimited(3, b"k")
    with pytest.raises(InvalidRequestError, match="not a well-formed"):
        REQUESTS.transact(length_delimited(2, names + length_delimited(4, b"\xff")))


GROUP = b"\x0b\x0c"
TWICE = length_delimited(5, length_delimited(1, b"m") + length_delimited(2, b"1")) * 2
"""Of metadata; such a request is longer than its encoding, and read again field by field, where groups are unknown."""


@pytest.mark.parametrize("request_bytes", [b"\xff", b"\x12\x05ab", b"\x0a\x02\xff\xfe", GROUP + TWICE])
def test_what_is_no_request_is_refused(request_bytes):
    with pytest.raises(InvalidRequestError, match="not a well-formed TransactRequest"):
        REQUESTS.transact(request_bytes)


# How long a value lasts


def write(**fields):
    request = pb.WriteRequest(txn_id="t", agent_id="a", key="k", value=struct_of({"n": 1}), **fields)
    return REQUESTS.write(request.SerializeToString()).ttl_s


def transacted_write(**fields):
    ((_, operation_found),) = transact(operation(value={"n": 1}, **fields)).operations
    return operation_found.ttl_s


WRITES = [write, transacted_write]


@pytest.mark.parametrize("ask", WRITES)
def test_a_value_lasts_for_good_or_so_many_seconds(ask):
    assert [ask(), ask(ttl_s=1), ask(ttl_s=3600), ask(ttl_s=TTL_MOST_S)] == [0, 1, 3600, TTL_MOST_S]


@pytest.mark.parametrize("ask", WRITES)
@pytest.mark.parametrize(
    ("ttl_s", "limit"), [(0, 1), (-1, 1), (-(2**63), 1), (TTL_MOST_S + 1, TTL_MOST_S), (2**63 - 1, TTL_MOST_S)]
)
def test_a_value_lasts_a_second_at_least_and_ten_years_at_most(ask, ttl_s, limit):
    is_over(f"ttl_s is {ttl_s}; it must be from 1 to {TTL_MOST_S}", limit, ttl_s, ask, ttl_s=ttl_s)


@pytest.mark.parametrize("ttl_s", [0, 1, TTL_MOST_S + 1])
def test_a_delete_is_for_good(ttl_s):
    refused("ttl_s is of a write", transact, operation(ttl_s=ttl_s))


def test_how_long_a_value_lasts_is_read_from_requests_in_an_unusual_form():
    twice = pb.WriteRequest(value=struct_of({"m": 2}), ttl_s=7).SerializeToString()
    request = pb.WriteRequest(txn_id="t", agent_id="a", key="k", value=struct_of({"n": 1}), ttl_s=9).SerializeToString()
    found = REQUESTS.write(request + twice)
    assert (found.ttl_s, struct_pb2.Struct.FromString(found.value)) == (7, struct_of({"n": 1, "m": 2}))
    each = operation(value={"n": 1}, ttl_s=9).SerializeToString()
    again = pb.TransactOperation(value=struct_of({"m": 2}), ttl_s=7).SerializeToString()
    ((_, kept),) = REQUESTS.transact(length_delimited(2, each + again)).operations
    assert (kept.ttl_s, struct_pb2.Struct.FromString(kept.value)) == (7, struct_of({"n": 1, "m": 2}))


# Idempotency


def test_a_request_with_an_idempotency_key_is_known_by_it_and_by_what_it_asks_for():
    def known_by(*operations, key="é", **fields):
        return transact(*operations, idempotency_key=key, **fields).idempotency

    first = known_by(operation(value={"a": 1, "b": 2}), metadata={"m": "1"})
    assert first.key == "é".encode()
    assert len(first.fingerprint) == 32
    assert known_by(operation(value={"b": 2, "a": 1}, namespace="default"), metadata={"m": "1"}) == first
    assert known_by(operation(value={"b": 2, "a": 1}), namespace="default", metadata={"m": "1"}) == first
    assert known_by(operation(value={"a": 1, "b": 3}), metadata={"m": "1"}).fingerprint != first.fingerprint
    assert known_by(operation(value={"a": 1, "b": 2})).fingerprint != first.fingerprint
    checked = known_by(
        operation(value={"a": 1, "b": 2}), metadata={"m": "1"}, preconditions=[precondition(agent_commit_ts=0)]
    )
    assert checked.fingerprint != first.fingerprint
    lasting = known_by(operation(value={"a": 1, "b": 2}, ttl_s=60), metadata={"m": "1"})
    assert lasting.fingerprint != first.fingerprint
    reviving = known_by(operation(value={"a": 1, "b": 2}), metadata={"m": "1"}, revive=True)
    assert reviving.fingerprint != first.fingerprint
    assert known_by(operation(value={"a": 1, "b": 2}), metadata={"m": "1"}, key="f").fingerprint == first.fingerprint


def test_an_idempotency_key_has_a_limit_and_needs_an_operation():
    transact(operation(), idempotency_key="x" * IDEMPOTENCY_KEY_BYTES)
    key = "é" * (IDEMPOTENCY_KEY_BYTES // 2) + "x"
    is_over("idempotency_key is", IDEMPOTENCY_KEY_BYTES, len(key.encode()), transact, operation(), idempotency_key=key)
    refused("needs an operation", transact, idempotency_key="k")


# Preconditions: the same of Transact and Commit

ASKS = [transact, commit]


@pytest.mark.parametrize("ask", ASKS)
def test_what_revives_says_so(ask):
    assert ask(revive=True).revive is True
    assert ask().revive is False
    assert transact(operation(), idempotency_key="x", revive=True).revive is True


def test_revive_is_read_of_a_request_in_an_unusual_form():
    request = pb.TransactRequest(operations=[operation()], revive=True).SerializeToString()
    assert REQUESTS.transact(request + TWICE).revive is True


@pytest.mark.parametrize("ask", ASKS)
def test_each_kind_of_precondition(ask):
    found = ask(
        preconditions=[
            precondition(key="k", version=0),
            precondition(key="k", exists=False),
            precondition(agent_commit_ts=0),
            precondition(lease_epoch=2**64 - 1, namespace="n"),
        ]
    )
    assert found.checks == (
        Check(0, A, VersionIs(b"k", 0)),
        Check(1, A, ExistsIs(b"k", exists=False)),
        Check(2, A, AgentAt(0)),
        Check(3, AgentId("n", "a"), LeaseIs(2**64 - 1)),
    )


@pytest.mark.parametrize("ask", ASKS)
def test_repeated_and_contradictory_preconditions_are_all_handed_on(ask):
    given = [precondition(key="k", version=1), precondition(key="k", version=2), precondition(key="k", version=1)]
    assert [(check.place, check.condition.version) for check in ask(preconditions=given).checks] == [
        (0, 1),
        (1, 2),
        (2, 1),
    ]


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("given", "why"),
    [
        (precondition(key="k"), "no condition, or none that this daemon knows"),
        (precondition(agent_id="", key="k", version=1), "agent_id is empty"),
        (precondition(version=1), "key is empty"),
        (precondition(exists=True), "key is empty"),
        (precondition(key="k", agent_commit_ts=1), "agent_commit_ts is about the whole agent"),
        (precondition(key="k", lease_epoch=1), "lease_epoch is about the whole agent"),
        (precondition(lease_epoch=0), "epochs begin at 1"),
    ],
)
def test_a_precondition_that_makes_no_sense_is_named_by_its_place(ask, given, why):
    refused(f"precondition 1: .*{why}", ask, preconditions=[precondition(key="k", version=1), given])


def test_a_condition_from_the_future_is_refused_and_not_skipped():
    unknown = precondition(key="k").SerializeToString() + b"\xa0\x06\x01"
    with pytest.raises(InvalidRequestError, match=r"precondition 0: .*none that this daemon knows"):
        REQUESTS.transact(length_delimited(3, unknown))


@pytest.mark.parametrize("ask", ASKS)
def test_the_number_of_preconditions_has_a_limit(ask):
    assert len(ask(preconditions=[precondition(agent_commit_ts=1)] * PRECONDITIONS).checks) == PRECONDITIONS
    one_more = [precondition(agent_commit_ts=1)] * (PRECONDITIONS + 1)
    is_over(f"{PRECONDITIONS + 1} preconditions", PRECONDITIONS, PRECONDITIONS + 1, ask, preconditions=one_more)


@pytest.mark.parametrize("ask", ASKS)
def test_the_names_of_a_precondition_have_limits(ask):
    is_over("precondition 0: key is 1025", 1024, 1025, ask, preconditions=[precondition(key="x" * 1025, version=1)])
    is_over("precondition 0: agent_id", 256, 257, ask, preconditions=[precondition(agent_id="x" * 257, lease_epoch=1)])


# What metadata may be, of both


@pytest.mark.parametrize("ask", ASKS)
def test_metadata_up_to_its_limits(ask):
    assert ask(metadata={"run": "1", "é": ""}).metadata == {"run": "1", "é": ""}
    entries = {str(n): "" for n in range(METADATA_ENTRIES)}
    assert ask(metadata=entries).metadata == entries
    ask(metadata={"n" * METADATA_NAME_BYTES: "v" * METADATA_VALUE_BYTES})


@pytest.mark.parametrize("ask", ASKS)
def test_metadata_over_its_limits(ask):
    entries = {str(n): "" for n in range(METADATA_ENTRIES + 1)}
    is_over("33 entries of metadata", METADATA_ENTRIES, METADATA_ENTRIES + 1, ask, metadata=entries)
    name, value = "n" * (METADATA_NAME_BYTES + 1), "v" * (METADATA_VALUE_BYTES - 1) + "é"
    is_over("a name in metadata", METADATA_NAME_BYTES, METADATA_NAME_BYTES + 1, ask, metadata={name: "v"})
    is_over("a value in metadata", METADATA_VALUE_BYTES, METADATA_VALUE_BYTES + 1, ask, metadata={"n": value})
    full = {str(n): "v" * (METADATA_BYTES // 8 - 1) for n in range(8)}
    assert ask(metadata=full).metadata == full
    is_over("metadata is", METADATA_BYTES, METADATA_BYTES + 1, ask, metadata=full | {"x": ""})
    refused("a name in metadata is empty", ask, metadata={"": "v"})


# Leases


def test_the_requests_of_leases():
    acquire = pb.AcquireLeaseRequest(agent_id="a", holder="h", ttl_ms=LEASE_LEAST_MS)
    renew = pb.RenewLeaseRequest(agent_id="a", namespace="n", epoch=2, ttl_ms=LEASE_MOST_MS)
    release = pb.ReleaseLeaseRequest(agent_id="a", epoch=2**64 - 1)
    assert REQUESTS.acquire_lease(acquire.SerializeToString()) == LeaseArguments(A, holder="h", ttl_ms=LEASE_LEAST_MS)
    found = REQUESTS.renew_lease(renew.SerializeToString())
    assert found == LeaseArguments(AgentId("n", "a"), epoch=2, ttl_ms=LEASE_MOST_MS)
    assert REQUESTS.release_lease(release.SerializeToString()) == LeaseArguments(A, epoch=2**64 - 1)
    assert REQUESTS.get_lease(pb.GetLeaseRequest(agent_id="a").SerializeToString()) == A


LEASES = [
    (REQUESTS.acquire_lease, pb.AcquireLeaseRequest, {"ttl_ms": 1_000}),
    (REQUESTS.renew_lease, pb.RenewLeaseRequest, {"epoch": 1, "ttl_ms": 1_000}),
    (REQUESTS.release_lease, pb.ReleaseLeaseRequest, {"epoch": 1}),
    (REQUESTS.get_lease, pb.GetLeaseRequest, {}),
]


@pytest.mark.parametrize(("read", "message", "fields"), LEASES)
def test_a_lease_is_on_an_agent(read, message, fields):
    refused("agent_id is empty", read, message(**fields).SerializeToString())
    is_over("agent_id", 256, 257, read, message(agent_id="x" * 257, **fields).SerializeToString())
    is_over("namespace", 256, 257, read, message(agent_id="a", namespace="x" * 257, **fields).SerializeToString())
    refused("not a well-formed", read, b"\xff")


@pytest.mark.parametrize(("read", "message", "fields"), LEASES[:2])
@pytest.mark.parametrize(
    ("ttl_ms", "limit"),
    [
        (0, LEASE_LEAST_MS),
        (LEASE_LEAST_MS - 1, LEASE_LEAST_MS),
        (LEASE_MOST_MS + 1, LEASE_MOST_MS),
        (2**64 - 1, LEASE_MOST_MS),
    ],
)
def test_a_lease_lasts_neither_too_short_nor_too_long(read, message, fields, ttl_ms, limit):
    request = message(**fields | {"agent_id": "a", "ttl_ms": ttl_ms}).SerializeToString()
    is_over(f"ttl_ms is {ttl_ms}; it must be from {LEASE_LEAST_MS} to {LEASE_MOST_MS}", limit, ttl_ms, read, request)


@pytest.mark.parametrize(("read", "message", "fields"), LEASES[1:3])
def test_epochs_begin_at_one(read, message, fields):
    refused("epoch is 0", read, message(**fields | {"agent_id": "a", "epoch": 0}).SerializeToString())


def test_the_holder_of_a_lease_has_a_limit():
    request = pb.AcquireLeaseRequest(agent_id="a", ttl_ms=1_000, holder="x" * (LEASE_HOLDER_BYTES + 1))
    over = (LEASE_HOLDER_BYTES, LEASE_HOLDER_BYTES + 1)
    is_over("holder is", *over, REQUESTS.acquire_lease, request.SerializeToString())
