"""Requests: from the bytes of a call to checked arguments for the engine.

Whatever is malformed or over a limit is refused here, before anything behind the edge sees it: an
InvalidRequestError that names what is wrong, for a limit also the limit and the size seen (both in bytes;
in `details` as `limit` and `size`), names as UTF-8. A name may hold any text: NUL, `/`, `:`
and emoji mean nothing here.

What a transaction may hold and how long it may live (operations, bytes, timeout) is checked where
transactions live, behind the engine.
"""

from typing import TypeVar

from attrs import frozen
from google.protobuf.message import DecodeError, Message

from statehouse.errors import InvalidRequestError
from statehouse.limits import Limits
from statehouse.rpc.server.struct_value import check_struct
from statehouse.rpc.v1 import opaque_pb2
from statehouse.types import DEFAULT_NAMESPACE, AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["DeleteArguments", "ReplayArguments", "Requests", "WriteArguments"]

M = TypeVar("M", bound=Message)


@frozen
class WriteArguments:
    """`value` is a serialized Struct, as the client sent it."""

    txn_id: str
    agent: AgentId
    key: str
    value: bytes


@frozen
class DeleteArguments:
    txn_id: str
    agent: AgentId
    key: str


@frozen
class ReplayArguments:
    """Both ends are inclusive; None leaves one open."""

    agent: AgentId
    start_ts: int | None
    end_ts: int | None


@frozen
class Requests:
    """Decodes and checks the requests of every call against one set of limits. Raises InvalidRequestError."""

    limits: Limits

    def empty(self, request: bytes, message: type[Message]) -> None:
        """A request without fields: Health, Version. Fields that a newer client may send are ignored."""
        _parse(message, request)

    def begin(self, request: bytes) -> int | None:
        """BeginTransaction: the timeout in milliseconds, None for the default."""
        begin = _parse(pb.BeginTransactionRequest, request)
        return begin.timeout_ms if begin.HasField("timeout_ms") else None

    def write(self, request: bytes) -> WriteArguments:
        """Write. The value is not decoded into objects and not encoded again."""
        write = _parse(opaque_pb2.OpaqueWriteRequest, request)
        txn_id = self._txn_id(write.txn_id)
        agent, key = self._agent(write.namespace, write.agent_id), self._key(write.key)
        if not write.HasField("value"):
            raise InvalidRequestError("value is missing; an empty object is written as an empty Struct")
        # Protobuf lets a sender split a message field in pieces, which a parser merges; as `bytes`, the last
        # piece would win. Such a request is longer than the encoding of what was read from it.
        merged = write.ByteSize() == len(request)
        value = write.value if merged else _parse(pb.WriteRequest, request).value.SerializeToString()
        _check_limit("value", len(value), self.limits.value_bytes)
        check_struct(value)
        return WriteArguments(txn_id, agent, key, value)

    def delete(self, request: bytes) -> DeleteArguments:
        delete = _parse(pb.DeleteRequest, request)
        txn_id = self._txn_id(delete.txn_id)
        return DeleteArguments(txn_id, self._agent(delete.namespace, delete.agent_id), self._key(delete.key))

    def commit(self, request: bytes) -> str:
        """Commit: the transaction's id."""
        return self._txn_id(_parse(pb.CommitRequest, request).txn_id)

    def abort(self, request: bytes) -> str:
        """Abort: the transaction's id."""
        return self._txn_id(_parse(pb.AbortRequest, request).txn_id)

    def get_state(self, request: bytes) -> tuple[AgentId, str]:
        """GetState: the agent and the key."""
        get = _parse(pb.GetStateRequest, request)
        return self._agent(get.namespace, get.agent_id), self._key(get.key)

    def get_state_at_version(self, request: bytes) -> tuple[AgentId, str, int]:
        """GetStateAtVersion: the agent, the key and the version."""
        get = _parse(pb.GetStateAtVersionRequest, request)
        return self._agent(get.namespace, get.agent_id), self._key(get.key), get.version

    def list_keys(self, request: bytes) -> AgentId:
        """ListKeys: the agent."""
        listing = _parse(pb.ListKeysRequest, request)
        return self._agent(listing.namespace, listing.agent_id)

    def scan_prefix(self, request: bytes) -> tuple[AgentId, str]:
        """ScanPrefix: the agent and the prefix; an empty one means every key."""
        scan = _parse(pb.ScanPrefixRequest, request)
        _check_limit("prefix", _size(scan.prefix), self.limits.key_bytes)
        return self._agent(scan.namespace, scan.agent_id), scan.prefix

    def replay(self, request: bytes) -> ReplayArguments:
        replay = _parse(pb.ReplayRequest, request)
        return ReplayArguments(
            self._agent(replay.namespace, replay.agent_id),
            replay.start_ts if replay.HasField("start_ts") else None,
            replay.end_ts if replay.HasField("end_ts") else None,
        )

    def _txn_id(self, txn_id: str) -> str:
        _check_given("txn_id", txn_id)
        return txn_id

    def _agent(self, namespace: str, agent_id: str) -> AgentId:
        _check_given("agent_id", agent_id)
        _check_limit("agent_id", _size(agent_id), self.limits.agent_id_bytes)
        _check_limit("namespace", _size(namespace), self.limits.namespace_bytes)
        return AgentId(namespace or DEFAULT_NAMESPACE, agent_id)

    def _key(self, key: str) -> str:
        _check_given("key", key)
        _check_limit("key", _size(key), self.limits.key_bytes)
        return key


def _parse(message: type[M], request: bytes) -> M:
    try:
        return message.FromString(request)
    except DecodeError:
        name = message.DESCRIPTOR.name.removeprefix("Opaque")
        raise InvalidRequestError(f"the request is not a well-formed {name}") from None


def _size(name: str) -> int:
    return len(name) if name.isascii() else len(name.encode())


def _check_given(field: str, name: str) -> None:
    if not name:
        raise InvalidRequestError(f"{field} is empty")


def _check_limit(subject: str, size: int, limit: int) -> None:
    if size > limit:
        raise InvalidRequestError(
            f"{subject} is {size} bytes; the limit is {limit}", details={"limit": str(limit), "size": str(size)}
        )
