"""The requests of the loads, encoded beforehand: what clients of transactions write, and the records that are read."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from purerpc_as_shipped import record_of

from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["KEYS_PER_CLIENT", "VALUE_BYTES", "batch_of", "entries_in", "reads_of", "transacts_of", "writes_of"]

KEYS_PER_CLIENT: Final = 100
VALUE_BYTES: Final = 200


def writes_of(client: int) -> list[bytes]:
    """What a client writes, a value of 200 bytes to one key after another; the transaction's id goes before it."""
    return [pb.WriteRequest(**write).SerializeToString() for write in _writes(client)]


def transacts_of(client: int) -> list[bytes]:
    """The same, each as a transaction in one call."""
    return [
        pb.TransactRequest(operations=[pb.TransactOperation(**write)]).SerializeToString() for write in _writes(client)
    ]


def reads_of(records: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """A GetState of each record."""
    return [pb.GetStateRequest(**record).SerializeToString() for record in records]


def batch_of(records: Sequence[Mapping[str, Any]]) -> bytes:
    """A BatchGet of all records."""
    return pb.BatchGetRequest(keys=[pb.KeyRef(**record) for record in records]).SerializeToString()


def entries_in(answer: bytes) -> int:
    """How many records that exist a BatchGet found."""
    return sum(entry.exists for entry in pb.BatchGetResponse.FromString(answer).entries)


def _writes(client: int) -> list[dict[str, Any]]:
    value = record_of(VALUE_BYTES).value
    names = {"namespace": "bench", "agent_id": f"client-{client:03}", "value": value}
    return [{**names, "key": f"key-{number:03}"} for number in range(KEYS_PER_CLIENT)]
