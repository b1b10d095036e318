"""What is in the store before the first attack: a large value, and an agent with many events; written with grpcio."""

from pathlib import Path
from typing import Final

import grpc
from google.protobuf.struct_pb2 import Struct

from attacks.attack import LARGE, MANY
from attacks.channels import open_channel
from attacks.raw_http2 import SERVICE
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["fill"]

LARGE_BYTES: Final = 2**20 - 1_000
EVENT_BYTES: Final = 16_000
PATIENCE_S: Final = 30.0


def fill(address: str, events: int, authority: Path | None = None) -> None:
    """Write the value of LARGE, and so many events of MANY, unless they are there."""
    with open_channel(address, authority, [("grpc.max_receive_message_length", -1)]) as channel:
        asked = pb.ListKeysRequest(agent_id=LARGE[0])
        if not pb.ListKeysResponse.FromString(_call(channel, "ListKeys", asked.SerializeToString())).keys:
            for number in range(events):
                _put(channel, MANY, f"key-{number % 10}", "y" * EVENT_BYTES)
            _put(channel, *LARGE, "x" * LARGE_BYTES)


def _put(channel: grpc.Channel, agent: str, key: str, text: str) -> None:
    txn_id = pb.BeginTransactionResponse.FromString(_call(channel, "BeginTransaction", b"")).txn_id
    value = Struct()
    value.update({"v": text})
    write = pb.WriteRequest(txn_id=txn_id, agent_id=agent, key=key, value=value)
    _call(channel, "Write", write.SerializeToString())
    _call(channel, "Commit", pb.CommitRequest(txn_id=txn_id).SerializeToString())


def _call(channel: grpc.Channel, name: str, request: bytes) -> bytes:
    answer: bytes = channel.unary_unary(SERVICE + name)(request, timeout=PATIENCE_S)
    return answer
