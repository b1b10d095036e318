"""gRPC's own services: the messages are generated under our package name, the world knows them by others.

Two protobuf files of the same names cannot be in one process, and a process that imports Statehouse may import the
published modules too (`proto/statehouse/rpc/v1/health.proto`). Nothing on the wire has a package name in it but the
paths of the calls and what reflection serves: both are made here.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from attrs import frozen
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message

from statehouse.errors import InvalidRequestError
from statehouse.limits import KIB
from statehouse.rpc.server.dispatch import bound_service
from statehouse.rpc.v1 import health_pb2, reflection_pb2

__all__ = ["HEALTH", "QUESTION_BYTES", "REFLECTION_V1", "REFLECTION_V1ALPHA", "Published", "decode_question"]

M = TypeVar("M", bound=Message)

QUESTION_BYTES: Final = 4 * KIB
"""The longest request to health or reflection: it holds a name or two, and reflection's answers repeat it."""


@frozen
class Published:
    """A generated file with one service, under its public names."""

    generated: FileDescriptor
    file_name: str
    package: str

    def file(self) -> FileDescriptorProto:
        """The file as the world knows it."""
        file = FileDescriptorProto()
        self.generated.CopyToProto(file)
        file.name, file.package = self.file_name, self.package
        for message in _with_nested(file.message_type):
            for field in message.field:
                if field.type_name:  # a scalar field has none, and one that is empty is not the same
                    field.type_name = self._public(field.type_name)
        for service in file.service:
            for method in service.method:
                method.input_type = self._public(method.input_type)
                method.output_type = self._public(method.output_type)
        return file

    def service(self, functions: Mapping[str, Callable[..., object]]) -> Any:
        """The purerpc `Service` with one function for each call; ValueError unless all are there."""
        (descriptor,) = self.generated.services_by_name.values()
        return bound_service(f"{self.package}.{descriptor.name}", descriptor, functions)

    def _public(self, type_name: str) -> str:
        ours = f".{self.generated.package}."
        return f".{self.package}.{type_name.removeprefix(ours)}" if type_name.startswith(ours) else type_name


HEALTH: Final = Published(health_pb2.DESCRIPTOR, "grpc/health/v1/health.proto", "grpc.health.v1")
REFLECTION_V1: Final = Published(reflection_pb2.DESCRIPTOR, "grpc/reflection/v1/reflection.proto", "grpc.reflection.v1")
REFLECTION_V1ALPHA: Final = Published(
    reflection_pb2.DESCRIPTOR, "grpc/reflection/v1alpha/reflection.proto", "grpc.reflection.v1alpha"
)


def decode_question(message: type[M], request: bytes) -> M:
    """A request to one of these services; InvalidRequestError when it is malformed or too long."""
    if len(request) > QUESTION_BYTES:
        raise InvalidRequestError(
            f"the request is {len(request)} bytes; the limit is {QUESTION_BYTES}",
            details={"limit": str(QUESTION_BYTES), "size": str(len(request))},
        )
    try:
        return message.FromString(request)
    except DecodeError:
        raise InvalidRequestError(f"the request is not a well-formed {message.DESCRIPTOR.name}") from None


def _with_nested(messages: Iterable[DescriptorProto]) -> Iterable[DescriptorProto]:
    for message in messages:
        yield message
        yield from _with_nested(message.nested_type)
