"""`grpc.reflection.v1.ServerReflection`, and v1alpha, which is the same under the name that older clients ask for.

A client that has no copy of the contract asks the daemon for it: which services there are, and the files that declare
them. The answers are made from the descriptors of the running code, so they cannot drift from it. What is served is
fixed when the daemon starts, and there are no extensions in it.

The protocol: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from attrs import frozen
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto

from statehouse.rpc.error_table import GrpcStatus
from statehouse.rpc.server.dispatch import Hosted
from statehouse.rpc.server.published import HEALTH, REFLECTION_V1, REFLECTION_V1ALPHA, decode_question
from statehouse.rpc.v1 import reflection_pb2 as pb
from statehouse.v1 import statehouse_pb2

__all__ = ["reflection_services"]

VERSIONS: Final = (REFLECTION_V1, REFLECTION_V1ALPHA)


def reflection_services() -> list[Hosted]:
    """Reflection in both versions, over the contract, health and itself."""
    published = [each.file() for each in (HEALTH, *VERSIONS)]
    catalogue = _catalogue([*_with_imports(statehouse_pb2.DESCRIPTOR), *published])
    return [Hosted(version.service({"ServerReflectionInfo": partial(_answer, catalogue)})) for version in VERSIONS]


@frozen
class _Catalogue:
    """The files, and what is asked about them."""

    services: tuple[str, ...]
    messages: frozenset[str]
    """Their full names."""
    file_of: Mapping[str, str]
    """The name of the file that declares a symbol."""
    files: Mapping[str, tuple[bytes, ...]]
    """By name: the serialized file, and after it every file that it needs."""


def _catalogue(files: Iterable[FileDescriptorProto]) -> _Catalogue:
    """Of files that hold whatever they import."""
    by_name = {file.name: file for file in files}
    return _Catalogue(
        services=tuple(sorted(f"{file.package}.{each.name}" for file in by_name.values() for each in file.service)),
        messages=frozenset(name for file in by_name.values() for name, _ in _messages(file.package, file.message_type)),
        file_of={symbol: file.name for file in by_name.values() for symbol in _symbols(file)},
        files={name: tuple(by_name[each].SerializeToString() for each in _needed(name, by_name)) for name in by_name},
    )


def _answer(catalogue: _Catalogue, request: bytes, _caller: object) -> bytes:
    """One question, one answer. InvalidRequestError, which ends the conversation, for bytes that are no question."""
    question = decode_question(pb.ServerReflectionRequest, request)
    answer = pb.ServerReflectionResponse(valid_host=question.host, original_request=question)
    kind = question.WhichOneof("message_request")
    if kind == "list_services":
        answer.list_services_response.service.extend(pb.ServiceResponse(name=name) for name in catalogue.services)
    elif kind == "file_by_filename":
        _file(answer, catalogue, question.file_by_filename)
    elif kind == "file_containing_symbol":
        _file(answer, catalogue, catalogue.file_of.get(question.file_containing_symbol))
    elif kind == "file_containing_extension":
        _file(answer, catalogue, None)
    elif kind == "all_extension_numbers_of_type" and question.all_extension_numbers_of_type in catalogue.messages:
        answer.all_extension_numbers_response.base_type_name = question.all_extension_numbers_of_type
    elif kind == "all_extension_numbers_of_type":
        _error(answer, GrpcStatus.NOT_FOUND, "there is no such message")
    else:
        _error(answer, GrpcStatus.INVALID_ARGUMENT, "nothing is asked, or something that is not known here")
    return answer.SerializeToString()


def _file(answer: pb.ServerReflectionResponse, catalogue: _Catalogue, name: str | None) -> None:
    files = None if name is None else catalogue.files.get(name)
    if files is None:
        _error(answer, GrpcStatus.NOT_FOUND, "no file here has that name, or declares that")
    else:
        answer.file_descriptor_response.file_descriptor_proto.extend(files)


def _error(answer: pb.ServerReflectionResponse, status: GrpcStatus, message: str) -> None:
    answer.error_response.error_code = int(status)
    answer.error_response.error_message = message


def _with_imports(descriptor: FileDescriptor) -> Iterator[FileDescriptorProto]:
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    yield file
    for each in descriptor.dependencies:
        yield from _with_imports(each)


def _needed(name: str, by_name: Mapping[str, FileDescriptorProto]) -> list[str]:
    """`name`, and all that it imports, directly or not, each once."""
    needed = [name]
    for each in needed:  # grows while it is read
        needed += [imported for imported in by_name[each].dependency if imported not in needed]
    return needed


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """Every full name that the file declares."""
    yield from _values(file.package, file.enum_type)
    for name, message in _messages(file.package, file.message_type):
        yield name
        yield from (f"{name}.{field.name}" for field in message.field)
        yield from (f"{name}.{oneof.name}" for oneof in message.oneof_decl)
        yield from _values(name, message.enum_type)
    for service in file.service:
        name = f"{file.package}.{service.name}"
        yield name
        yield from (f"{name}.{method.name}" for method in service.method)


def _messages(scope: str, messages: Iterable[DescriptorProto]) -> Iterator[tuple[str, DescriptorProto]]:
    """Messages and those inside them, with their full names."""
    for message in messages:
        name = f"{scope}.{message.name}"
        yield name, message
        yield from _messages(name, message.nested_type)


def _values(scope: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    """Enums, and their values, whose names stand beside that of the enum, as in C++."""
    for enum in enums:
        yield f"{scope}.{enum.name}"
        yield from (f"{scope}.{value.name}" for value in enum.value)
