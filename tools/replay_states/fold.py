"""States out of events: a fold of the public ReplayEvent, from the wire contract and nothing else.

This is what any reader of a replay would write. It decodes the events by itself, field by field, so that the bytes of a
value pass through it as they came, and it shares no code with the engine. What it makes of them is what the contract
says that reads answer: the encoded GetStateResponse of each key, and the encoded StateEntry of each live one. A value
that expires is live until an event deletes it; only a read of what there is now goes by the clock (`expired`).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from attrs import define, field, frozen

from statehouse.types import AgentId

__all__ = ["AgentState", "Event", "EventError", "FoldedOperation", "Time", "read_event", "response_of"]

_VARINT: Final = 0
_BYTES: Final = 2

Time: TypeAlias = tuple[int, int]
"""Seconds and nanoseconds since 1970."""


class EventError(Exception):
    """Not an event of the contract, or not one that can come next."""


class FoldedOperation(NamedTuple):
    """A write, or with `value` None a delete."""

    key: bytes
    value: bytes | None
    version: int
    ttl_s: int = 0
    """How long the value lasts; 0: for good."""
    expired: bool = False
    """It deletes what has expired."""


@frozen
class Event:
    """A ReplayEvent, its values left encoded."""

    txn_id: bytes
    commit_ts: int
    agent: AgentId
    committed_at: Time
    operations: tuple[FoldedOperation, ...]
    metadata: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def sweeps(self) -> bool:
        """Whether it deletes what has expired, and was sent by nobody. EventError when that is not true of all."""
        marks = {operation.expired for operation in self.operations}
        if len(marks) > 1:
            raise EventError(f"commit_ts {self.commit_ts} deletes what has expired, and more")
        return marks == {True}

    def expiry(self, operation: FoldedOperation) -> Time | None:
        """When a value of it expires; None: never."""
        seconds, nanoseconds = self.committed_at
        return (seconds + operation.ttl_s, nanoseconds) if operation.ttl_s else None


@define
class AgentState:
    """One agent: the fold of the events so far."""

    agent: AgentId
    responses: dict[bytes, bytes] = field(factory=dict)
    """Key -> GetStateResponse, of every key that was ever written or deleted."""
    entries: dict[bytes, bytes] = field(factory=dict)
    """Key -> StateEntry, of the live ones."""
    versions: dict[bytes, int] = field(factory=dict)
    expiring: dict[bytes, tuple[Time, bytes]] = field(factory=dict)
    """Key -> when it expires, and the GetStateResponse from then on, of the live ones that do."""
    commit_ts: int = 0
    committed_at: Time = (0, 0)

    def fold(self, event: Event) -> None:
        """Take the next event. EventError when it cannot be that."""
        if event.agent != self.agent:
            raise EventError(f"an event of {event.agent} in the replay of {self.agent}")
        if event.commit_ts <= self.commit_ts:
            raise EventError(f"commit_ts {event.commit_ts} after {self.commit_ts}")
        if event.committed_at < self.committed_at:
            raise EventError(f"commit_ts {event.commit_ts} was committed before {self.commit_ts}")
        self.commit_ts, self.committed_at = event.commit_ts, event.committed_at
        for operation in event.operations:
            self._apply(operation, event.expiry(operation))

    def expired(self, now: Time) -> dict[bytes, bytes]:
        """Key -> GetStateResponse of a read of now, of what has expired and is live all the same."""
        return {key: response for key, (expiry, response) in self.expiring.items() if expiry <= now}

    def _apply(self, operation: FoldedOperation, expiry: Time | None) -> None:
        key, value, version = operation[:3]
        expected = self.versions.get(key, 0) + 1
        if version != expected:
            raise EventError(f"commit_ts {self.commit_ts}: key {key!r} has version {version}, and should {expected}")
        if operation.expired and (value is not None or key not in self.expired(self.committed_at)):
            raise EventError(f"commit_ts {self.commit_ts}: key {key!r} is deleted as expired, and has not")
        self.versions[key] = version
        self.responses[key] = response_of(value, version, self.commit_ts, expiry)
        self.expiring.pop(key, None)
        if value is None:
            self.entries.pop(key, None)
            return
        numbers = _number(3, version) + _number(4, self.commit_ts)
        self.entries[key] = _chunk(1, key) + _chunk(2, value) + numbers + _expiry(expiry)
        if expiry is not None:
            self.expiring[key] = expiry, response_of(None, version, self.commit_ts)


def response_of(value: bytes | None, version: int, commit_ts: int, expiry: Time | None = None) -> bytes:
    """The encoded GetStateResponse: a field each, in the order of their numbers, what is zero left out."""
    numbers = _number(2, version) + _number(3, commit_ts)
    return numbers if value is None else _chunk(1, value) + numbers + _number(4, 1) + _expiry(expiry)


def read_event(encoded: bytes) -> Event:
    """Decode a ReplayEvent. EventError."""
    txn_id, namespace, agent_id, commit_ts, committed_at = b"", b"", b"", 0, (0, 0)
    operations: list[FoldedOperation] = []
    metadata: list[tuple[bytes, bytes]] = []
    for number, content in _fields(encoded):
        match number, content:
            case 1, bytes():
                txn_id = content
            case 2, int():
                commit_ts = content
            case 3, bytes():
                operations.append(_operation(content))
            case 100, bytes():
                namespace = content
            case 101, bytes():
                agent_id = content
            case 102, bytes():
                committed_at = _timestamp(content)
            case 103, bytes():
                metadata.append(_entry(content))
            case _:
                raise EventError(f"field {number} is not one of a ReplayEvent: {encoded[:60].hex()}")
    agent = AgentId(namespace.decode(), agent_id.decode())
    if metadata != sorted(dict(metadata).items()):
        raise EventError(f"metadata that does not ascend by name: {encoded[:60].hex()}")
    return Event(txn_id, commit_ts, agent, committed_at, tuple(operations), tuple(metadata))


def _entry(encoded: bytes) -> tuple[bytes, bytes]:
    texts = {number: content for number, content in _fields(encoded) if isinstance(content, bytes)}
    return texts.get(1, b""), texts.get(2, b"")


def _operation(encoded: bytes) -> FoldedOperation:
    key, version, ttl_s, expired = b"", 0, 0, False
    value: bytes | None = None
    for number, content in _fields(encoded):
        match number, content:
            case 1, bytes():
                key = content
            case 2, bytes():
                value = content
            case 3, int():
                version = content
            case 100, int():
                ttl_s = content
            case 101, int():
                expired = bool(content)
            case _:
                raise EventError(f"field {number} is not one of an Operation: {encoded[:60].hex()}")
    return FoldedOperation(key, value, version, ttl_s, expired)


def _timestamp(encoded: bytes) -> Time:
    numbers = {number: content for number, content in _fields(encoded) if isinstance(content, int)}
    return numbers.get(1, 0), numbers.get(2, 0)


# The wire


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and content of each field of a message that has integers, texts and messages only."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        content, at = _varint(message, at)
        if tag & 7 == _VARINT:
            yield tag >> 3, content
        elif tag & 7 == _BYTES and at + content <= len(message):
            yield tag >> 3, message[at : at + content]
            at += content
        else:
            raise EventError(f"cut, or of a wire type that the contract has not: {message[:60].hex()}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(message):
        number |= (message[at] & 0x7F) << shift
        if message[at] < 0x80:
            return number, at + 1
        at, shift = at + 1, shift + 7
    raise EventError(f"a number that is cut: {message[:60].hex()}")


def _expiry(expiry: Time | None) -> bytes:
    return b"" if expiry is None else _chunk(100, _number(1, expiry[0]) + _number(2, expiry[1]))


def _number(number: int, content: int) -> bytes:
    return b"" if content == 0 else _base128(number << 3 | _VARINT) + _base128(content)


def _chunk(number: int, content: bytes) -> bytes:
    return _base128(number << 3 | _BYTES) + _base128(len(content)) + content


def _base128(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
