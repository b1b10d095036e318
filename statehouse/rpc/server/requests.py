"""Requests: from the bytes of a call to checked arguments for the engine. Here is what all have in common.

Whatever is malformed or over a limit is refused here, before anything behind the edge sees it: an
InvalidRequestError that names what is wrong, for a limit also the limit and the size seen (in bytes, or in what is
counted; in `details` as `limit` and `size`), names as UTF-8. A name may hold any text: NUL, `/`, `:`
and emoji mean nothing here.

The requests themselves stand by subject in `requests_transactions.py`, `requests_agents.py`, `requests_reads.py` and
`requests_streams.py`, what several of them have in `requests_preconditions.py`.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

from attrs import frozen
from google.protobuf import timestamp_pb2
from google.protobuf.message import DecodeError, Message

from statehouse.errors import InvalidRequestError
from statehouse.limits import METADATA_BYTES, METADATA_ENTRIES, METADATA_NAME_BYTES, METADATA_VALUE_BYTES, Limits
from statehouse.types import DEFAULT_NAMESPACE, AgentId

__all__ = [
    "Names",
    "check_count",
    "check_given",
    "check_limit",
    "metadata_of",
    "of_one",
    "parse",
    "size_of",
    "time_ns_of",
]

M = TypeVar("M", bound=Message)

_NS_PER_S: Final = 1_000_000_000
_FIRST_S: Final = -62_135_596_800
_LAST_S: Final = 253_402_300_799
"""The seconds of a Timestamp are from the year 1 to the year 9999."""


@frozen
class Names:
    """Checks names against one set of limits. Raises InvalidRequestError."""

    limits: Limits

    def txn_id(self, txn_id: str) -> str:
        """The id of a transaction, which is given."""
        check_given("txn_id", txn_id)
        return txn_id

    def agent(self, namespace: str, agent_id: str, field: str = "agent_id") -> AgentId:
        """An agent; an empty namespace is the default one. `field` has its id."""
        check_given(field, agent_id)
        check_limit(field, size_of(agent_id), self.limits.agent_id_bytes)
        check_limit("namespace", size_of(namespace), self.limits.namespace_bytes)
        return AgentId(namespace or DEFAULT_NAMESPACE, agent_id)

    def namespace(self, namespace: str) -> str:
        """A namespace; an empty one is the default one."""
        check_limit("namespace", size_of(namespace), self.limits.namespace_bytes)
        return namespace or DEFAULT_NAMESPACE

    def key(self, key: str) -> str:
        """A key, which is given."""
        self.key_bytes(key)
        return key

    def key_bytes(self, key: str) -> bytes:
        """The same in UTF-8."""
        encoded = key.encode()
        if not 0 < len(encoded) <= self.limits.key_bytes:  # first, for a request may have very many
            check_given("key", key)
            check_limit("key", len(encoded), self.limits.key_bytes)
        return encoded

    def prefix(self, prefix: str, limit_bytes: int) -> str:
        """The beginning of a name, which may be empty."""
        check_limit("prefix", size_of(prefix), limit_bytes)
        return prefix


def of_one(what: str, place: int, error: InvalidRequestError) -> InvalidRequestError:
    """The refusal of a request for one of many things that it has, which is named by its place."""
    return InvalidRequestError(f"{what} {place}: {error.message}", details=error.details)


def parse(message: type[M], request: bytes) -> M:
    """The message in the bytes of a request. InvalidRequestError when there is none."""
    try:
        return message.FromString(request)
    except DecodeError:
        name = message.DESCRIPTOR.name.removeprefix("Opaque")
        raise InvalidRequestError(f"the request is not a well-formed {name}") from None


def size_of(name: str) -> int:
    """How many bytes of UTF-8 a name takes."""
    return len(name) if name.isascii() else len(name.encode())


def check_given(field: str, name: str) -> None:
    """Refuse an empty name."""
    if not name:
        raise InvalidRequestError(f"{field} is empty")


def check_limit(subject: str, size: int, limit: int) -> None:
    """Refuse what is over a limit in bytes."""
    if size > limit:
        raise InvalidRequestError(
            f"{subject} is {size} bytes; the limit is {limit}", details={"limit": str(limit), "size": str(size)}
        )


def check_count(subject: str, count: int, limit: int) -> None:
    """Refuse what is over a limit that counts; `subject` says of what, as in `12 keys`."""
    if count > limit:
        raise InvalidRequestError(
            f"{count} {subject}; the limit is {limit}", details={"limit": str(limit), "size": str(count)}
        )


def metadata_of(given: Mapping[str, str]) -> dict[str, str]:
    """What a commit is to be told by, or an event to be found by."""
    if not given:
        return {}
    check_count("entries of metadata", len(given), METADATA_ENTRIES)
    metadata = dict(given)
    together = 0
    for name, value in metadata.items():
        check_given("a name in metadata", name)
        name_bytes, value_bytes = size_of(name), size_of(value)
        check_limit("a name in metadata", name_bytes, METADATA_NAME_BYTES)
        check_limit("a value in metadata", value_bytes, METADATA_VALUE_BYTES)
        together += name_bytes + value_bytes
    check_limit("metadata", together, METADATA_BYTES)
    return metadata


def time_ns_of(field: str, time: timestamp_pb2.Timestamp) -> int:
    """A time in nanoseconds since 1970; one before that is 0, because no commit is so old."""
    if not (_FIRST_S <= time.seconds <= _LAST_S and 0 <= time.nanos < _NS_PER_S):
        raise InvalidRequestError(f"{field} is not a time: from the year 1 to 9999, with nanos from 0 to 999,999,999")
    return max(0, time.seconds * _NS_PER_S + time.nanos)
