"""What the server hosts: services, and what it must know of their calls besides their handlers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen
from purerpc import Service

__all__ = ["Hosted"]

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
