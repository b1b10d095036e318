"""The requests that change something: transactions, step by step or whole, and leases.

What a transaction may hold and how long it may live (operations, bytes, timeout) is checked where
transactions live, behind the engine. A Transact is checked against it here as well, because it comes whole, and what
it holds is looked at one by one.
"""

from collections.abc import Iterable

from attrs import frozen

from statehouse.actors.messages import (
    Check,
    Idempotency,
    StagedOperation,
    TransactArguments,
)
from statehouse.errors import InvalidRequestError
from statehouse.limits import IDEMPOTENCY_KEY_BYTES, LEASE_HOLDER_BYTES, LEASE_LEAST_MS, LEASE_MOST_MS, TTL_MOST_S
from statehouse.rpc.server.fingerprint import fingerprint
from statehouse.rpc.server.requests import check_count, check_limit, metadata_of, of_one, parse, size_of
from statehouse.rpc.server.requests_preconditions import Preconditions, epoch_of
from statehouse.rpc.server.struct_value import check_struct
from statehouse.rpc.v1 import opaque_pb2
from statehouse.storage.wire import LENGTH_DELIMITED, WireError, fields
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["CommitArguments", "DeleteArguments", "LeaseArguments", "TransactionRequests", "WriteArguments"]

_OPERATIONS = pb.TransactRequest.OPERATIONS_FIELD_NUMBER


@frozen
class WriteArguments:
    """`value` is a serialized Struct, as the client sent it; `ttl_s` is 0 for one that lasts for good."""

    txn_id: str
    agent: AgentId
    key: str
    value: bytes
    ttl_s: int = 0


@frozen
class DeleteArguments:
    txn_id: str
    agent: AgentId
    key: str


@frozen
class CommitArguments:
    txn_id: str
    checks: tuple[Check, ...]
    metadata: dict[str, str]
    revive: bool


@frozen
class LeaseArguments:
    """For an acquisition `holder`, for a renewal or release `epoch`; what does not apply is empty or 0."""

    agent: AgentId
    holder: str = ""
    epoch: int = 0
    ttl_ms: int = 0


@frozen
class TransactionRequests(Preconditions):
    """Decodes and checks them against one set of limits. Raises InvalidRequestError."""

    def begin(self, request: bytes) -> int | None:
        """BeginTransaction: the timeout in milliseconds, None for the default."""
        begin = parse(pb.BeginTransactionRequest, request)
        return begin.timeout_ms if begin.HasField("timeout_ms") else None

    def write(self, request: bytes) -> WriteArguments:
        """Write. The value is not decoded into objects and not encoded again."""
        write = parse(opaque_pb2.OpaqueWriteRequest, request)
        txn_id = self.txn_id(write.txn_id)
        agent, key = self.agent(write.namespace, write.agent_id), self.key(write.key)
        if not write.HasField("value"):
            raise InvalidRequestError("value is missing; an empty object is written as an empty Struct")
        # Protobuf lets a sender split a message field in pieces, which a parser merges; as `bytes`, the last
        # piece would win. Such a request is longer than the encoding of what was read from it.
        merged = write.ByteSize() == len(request)
        value = write.value if merged else parse(pb.WriteRequest, request).value.SerializeToString()
        return WriteArguments(txn_id, agent, key, self._checked(value), _ttl_s(write))

    def delete(self, request: bytes) -> DeleteArguments:
        """Delete."""
        delete = parse(pb.DeleteRequest, request)
        txn_id = self.txn_id(delete.txn_id)
        return DeleteArguments(txn_id, self.agent(delete.namespace, delete.agent_id), self.key(delete.key))

    def commit(self, request: bytes) -> CommitArguments:
        """Commit. Preconditions that name no namespace are of the default one."""
        commit = parse(pb.CommitRequest, request)
        checks = self.checks(commit.preconditions, "")
        return CommitArguments(self.txn_id(commit.txn_id), checks, metadata_of(commit.metadata), commit.revive)

    def abort(self, request: bytes) -> str:
        """Abort: the transaction's id."""
        return self.txn_id(parse(pb.AbortRequest, request).txn_id)

    def transact(self, request: bytes) -> TransactArguments:
        """Transact. As in `write`, values are neither decoded nor encoded again."""
        transact = parse(opaque_pb2.OpaqueTransactRequest, request)
        check_count("operations", len(transact.operations), self.limits.transaction_operations)
        check_limit("idempotency_key", size_of(transact.idempotency_key), IDEMPOTENCY_KEY_BYTES)
        self.namespace(transact.namespace)
        given: Iterable[opaque_pb2.OpaqueTransactOperation] = transact.operations
        if transact.ByteSize() != len(request):  # see `write`; here it may also be the metadata
            given = _operations_in(request)
        operations: list[tuple[AgentId, StagedOperation]] = []
        try:
            for each in given:
                operations.append(self._operation(each, transact.namespace))  # noqa: PERF401 - its length is the place
        except InvalidRequestError as error:
            raise of_one("operation", len(operations), error) from None
        together = sum([len(each.key) + len(each.value or b"") for _, each in operations])
        check_limit("the transaction", together, self.limits.transaction_bytes)
        checks = self.checks(transact.preconditions, transact.namespace)
        metadata = metadata_of(transact.metadata)
        revive = transact.revive
        if not transact.idempotency_key:
            return TransactArguments(tuple(operations), checks, metadata, revive=revive)
        if not operations:
            raise InvalidRequestError("an idempotency_key needs an operation: it is kept with the agents written to")
        asked_for = fingerprint(operations, checks, metadata, revive=revive)
        known_by = Idempotency(transact.idempotency_key.encode(), asked_for)
        return TransactArguments(tuple(operations), checks, metadata, known_by, revive)

    def acquire_lease(self, request: bytes) -> LeaseArguments:
        """AcquireLease."""
        acquire = parse(pb.AcquireLeaseRequest, request)
        agent = self.agent(acquire.namespace, acquire.agent_id)
        check_limit("holder", size_of(acquire.holder), LEASE_HOLDER_BYTES)
        return LeaseArguments(agent, holder=acquire.holder, ttl_ms=_ttl_ms(acquire.ttl_ms))

    def renew_lease(self, request: bytes) -> LeaseArguments:
        """RenewLease."""
        renew = parse(pb.RenewLeaseRequest, request)
        agent = self.agent(renew.namespace, renew.agent_id)
        return LeaseArguments(agent, epoch=epoch_of("epoch", renew.epoch), ttl_ms=_ttl_ms(renew.ttl_ms))

    def release_lease(self, request: bytes) -> LeaseArguments:
        """ReleaseLease."""
        release = parse(pb.ReleaseLeaseRequest, request)
        agent = self.agent(release.namespace, release.agent_id)
        return LeaseArguments(agent, epoch=epoch_of("epoch", release.epoch))

    def get_lease(self, request: bytes) -> AgentId:
        """GetLease: the agent."""
        get = parse(pb.GetLeaseRequest, request)
        return self.agent(get.namespace, get.agent_id)

    def _checked(self, value: bytes) -> bytes:
        check_limit("value", len(value), self.limits.value_bytes)
        check_struct(value)
        return value

    def _operation(self, given: opaque_pb2.OpaqueTransactOperation, namespace: str) -> tuple[AgentId, StagedOperation]:
        agent, key = self.agent(given.namespace or namespace, given.agent_id), self.key_bytes(given.key)
        if given.HasField("value"):
            return agent, StagedOperation(key, self._checked(given.value), _ttl_s(given))
        if given.HasField("ttl_s"):
            raise InvalidRequestError("ttl_s is of a write, and there is no value; a delete lasts")
        return agent, StagedOperation(key, None)


def _operations_in(request: bytes) -> list[opaque_pb2.OpaqueTransactOperation]:
    """The operations of a TransactRequest that parses, each with its value whole."""
    found = []
    try:
        for number, wire_type, first, last in fields(request, 0, len(request)):
            if number == _OPERATIONS and wire_type == LENGTH_DELIMITED:
                encoded = request[first:last]
                operation = opaque_pb2.OpaqueTransactOperation.FromString(encoded)
                if operation.ByteSize() != len(encoded) and operation.HasField("value"):
                    operation.value = parse(pb.TransactOperation, encoded).value.SerializeToString()
                found.append(operation)
    except WireError:  # groups, which protobuf 3 has none of, and its parsers take
        raise InvalidRequestError("the request is not a well-formed TransactRequest") from None
    return found


def _ttl_s(given: opaque_pb2.OpaqueWriteRequest | opaque_pb2.OpaqueTransactOperation) -> int:
    """How long the value lasts, in seconds; 0: for good, which a request says by leaving it out."""
    if not given.HasField("ttl_s"):
        return 0
    ttl_s = given.ttl_s
    if not 1 <= ttl_s <= TTL_MOST_S:
        raise InvalidRequestError(
            f"ttl_s is {ttl_s}; it must be from 1 to {TTL_MOST_S}, or left out for a value that lasts for good",
            details={"limit": str(1 if ttl_s < 1 else TTL_MOST_S), "size": str(ttl_s)},
        )
    return ttl_s


def _ttl_ms(ttl_ms: int) -> int:
    if not LEASE_LEAST_MS <= ttl_ms <= LEASE_MOST_MS:
        limit = LEASE_LEAST_MS if ttl_ms < LEASE_LEAST_MS else LEASE_MOST_MS
        raise InvalidRequestError(
            f"ttl_ms is {ttl_ms}; it must be from {LEASE_LEAST_MS} to {LEASE_MOST_MS}",
            details={"limit": str(limit), "size": str(ttl_ms)},
        )
    return ttl_ms
