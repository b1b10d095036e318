"""The public service as a table, read from the descriptor of `proto/statehouse/v1/statehouse.proto`.

purerpc's generator refuses proto3 `optional`, so nothing is generated: the methods, their messages and the
purerpc `Service` are built from the descriptor at run time, and cannot drift from it. Server and client
both read the contract here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from statehouse.v1 import statehouse_pb2

__all__ = ["METHODS", "SERVICE", "SERVICE_NAME", "Method"]

SERVICE: Final = statehouse_pb2.DESCRIPTOR.services_by_name["StatehouseService"]

SERVICE_NAME: Final[str] = SERVICE.full_name


@frozen
class Method:
    """One call of the contract. Every call takes one request; Replay answers with a stream."""

    name: str
    path: str
    """The HTTP/2 path: `/statehouse.v1.StatehouseService/Commit`."""
    request_type: type[Message]
    response_type: type[Message]
    server_streaming: bool


def _method(descriptor: MethodDescriptor) -> Method:
    return Method(
        name=descriptor.name,
        path=f"/{SERVICE_NAME}/{descriptor.name}",
        request_type=GetMessageClass(descriptor.input_type),
        response_type=GetMessageClass(descriptor.output_type),
        server_streaming=descriptor.server_streaming,
    )


METHODS: Final[Mapping[str, Method]] = MappingProxyType({each.name: _method(each) for each in SERVICE.methods})
"""The calls by name."""
