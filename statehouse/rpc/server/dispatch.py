"""What the server hosts: services, and from them the table of calls by path."""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, cast

from attrs import frozen
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from purerpc import Cardinality, RPCSignature, Service
from purerpc.server import BoundRPCMethod

__all__ = ["Endpoint", "Hosted", "Kind", "bound_service", "endpoints"]

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


@frozen
class Hosted:
    """A service, and what the server must know of its calls. All names are those of calls of the service."""

    service: Service
    answer_bytes: Mapping[str, int] = _NOTHING
    """The most that a call's answer, or one chunk of a stream, takes; a call that is not here has small ones."""
    open_to_all: frozenset[str] = frozenset()
    """Calls that need no token."""
    always: frozenset[str] = frozenset()
    """Calls that are answered while the daemon starts and stops, too."""


def bound_service(name: str, descriptor: ServiceDescriptor, functions: Mapping[str, Callable[..., object]]) -> Any:
    """The purerpc `Service` with one function for each call of the descriptor; ValueError unless all are there."""
    if functions.keys() != set(descriptor.methods_by_name):
        raise ValueError(f"functions for {sorted(descriptor.methods_by_name)} are needed, got {sorted(functions)}")
    service = cast("Any", Service(name))
    for method in descriptor.methods:
        cardinality = Cardinality.get_cardinality_for(
            request_stream=method.client_streaming, response_stream=method.server_streaming
        )
        signature = RPCSignature(cardinality, GetMessageClass(method.input_type), GetMessageClass(method.output_type))
        # `add_method` takes a second parameter only when it is called `request`; ours is the caller.
        service.methods[method.name] = BoundRPCMethod(functions[method.name], signature)
    return service


class Kind(Enum):
    """How requests and answers follow each other."""

    UNARY = Cardinality.UNARY_UNARY
    """One request; the handler returns the answer's bytes, or a `Reply` or a coroutine that has them later."""
    STREAM = Cardinality.UNARY_STREAM
    """One request; the handler returns an async generator of lists of answers."""
    CONVERSATION = Cardinality.STREAM_STREAM
    """The handler is called for each request, in their order, and returns the one answer to it."""


@frozen
class Endpoint:
    """A call that the server answers. `handler` takes a request's bytes and the caller."""

    path: str
    kind: Kind
    handler: Callable[..., Any]
    answer_bytes: int
    open_to_all: bool
    always: bool

    @property
    def name(self) -> str:
        """The call's name, for the log."""
        return self.path.rpartition("/")[2]


def endpoints(hosted: Iterable[Hosted]) -> Mapping[bytes, Endpoint]:
    """Every call of these services, by its path. ValueError for a cardinality that is not served."""
    return {
        f"/{each.service.name}/{name}".encode(): Endpoint(
            path=f"/{each.service.name}/{name}",
            kind=Kind(method.signature.cardinality),
            handler=method.method_fn,
            answer_bytes=each.answer_bytes.get(name, 0),
            open_to_all=name in each.open_to_all,
            always=name in each.always,
        )
        for each in hosted
        for name, method in each.service.methods.items()
    }
