"""What a stream of events is asked for, whose events they are, and what the streams of one engine share."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

from attrs import frozen

from statehouse.actors.feed import Feed
from statehouse.types import AgentId

__all__ = ["Read", "Source", "Surroundings", "Wanted"]

T = TypeVar("T")

_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


@frozen(kw_only=True)
class Wanted:
    """What of the events is wanted. Both ends are inclusive; None leaves one open. At most one of ts and time each."""

    start_ts: int | None = None
    end_ts: int | None = None
    start_time_ns: int | None = None
    """In nanoseconds since 1970."""
    end_time_ns: int | None = None
    follow: bool = False
    """Go on with what is committed from now on."""
    limit: int = 0
    """Of events; 0: none."""
    key_prefix: bytes = b""
    """Only operations on such keys, and events that have any."""
    bookmarks: bool = False
    """With `follow`: say now and then that there is nothing to send."""
    metadata: Mapping[str, str] = _NO_METADATA
    """Only events that have all of these."""


class Source(Protocol):
    """Whose events a stream has, and how they are read: these methods block."""

    @property
    def agent(self) -> AgentId | None: ...
    @property
    def wants_all(self) -> bool: ...
    def wants(self, section: bytes, /) -> bool: ...
    def read(self, first_ts: int, last_ts: int) -> tuple[Iterable[tuple[int, bytes]], int | None]: ...
    def ts_at_time(self, time_ns: int) -> int: ...


class Read(Protocol):
    """Runs a blocking read in a worker thread."""

    async def __call__(self, read: Callable[[], T], /) -> T: ...


@frozen
class Surroundings:
    """What the streams of one engine share."""

    feed: Feed
    read: Read
    newest_ts: Callable[[], int]
    """The newest commit that a read of now may have shown: a replay that began later has it."""
    now_ns: Callable[[], int]
    """The clock that commits are dated by."""
    settled: Callable[[], Awaitable[object]]
    """Waits until all that is on its way to the disk is durable and published, or has failed."""
