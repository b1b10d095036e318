"""What the clients of a run know: the transactions they sent, what they were told, and what they were shown.

This is the ground truth of a proof. It lives in the proof's own memory, and nothing in it comes from an audit.

Every call is written down with its *floor*: the newest commit_ts that any client had been told, or shown by a read,
when the call was sent. A store is linearizable if each call can be given a point in the order of commits that is
not below its floor, and that fits its answer: a commit's point is its commit_ts, a read's any at which the state was
what it showed. Because commit_ts is that order, floors make the check one pass over the history.

A read can prove more than it shows: a key that it does not find was deleted by some commit, whose commit_ts the client
is not told. Whoever wants that counted writes down `after` as well: how many of the reads in the load had ended when
the call was sent. The oracle then raises the call's floor to what those reads prove.

What has expired is absent by the store's clock, so a read of now has that clock's time, in nanoseconds since 1970,
just before it was sent and just after it was answered. One that has neither was made before anything had expired.
"""

from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias

from attrs import define, field, frozen

from histories.lineages import Forking, Refused
from statehouse import ReplayEvent, StateResult
from statehouse.types import AgentId, JsonObject

__all__ = [
    "AnyRead",
    "Checked",
    "Found",
    "Leased",
    "Listed",
    "Load",
    "Outcome",
    "Read",
    "Repeated",
    "Replayed",
    "Staged",
    "Submission",
    "VersionRead",
]


class Outcome(Enum):
    """What is known of a transaction when the load has ended."""

    NEVER = "never"
    """It was aborted, refused or left open, or its commit was never sent: it must not show."""
    ACKNOWLEDGED = "acknowledged"
    UNKNOWN = "unknown"
    """Its commit was sent, and no answer came that says what became of it: all of it or nothing."""


@frozen
class Staged:
    """One write, or with `value` None one delete."""

    agent: AgentId
    key: str
    value: "JsonObject | None"
    ttl_s: int | None = None


@frozen
class Checked:
    """A precondition, `of` the "version" of a key, whether it "exists", an agent's last "event", its "lease" epoch."""

    agent: AgentId
    of: str
    wanted: int
    key: str = ""


@define(eq=False)
class Submission:
    """One transaction, and the floor of its commit.

    With `at_once` it is sent in one call, and may be sent again: then `txn_id` is the client's name for it, which
    stands in the commit's metadata, and is its idempotency key. The store's own id is nobody's concern.

    With `ends` it is the end of that agent: it has the name in its metadata too, and its operations are for the store
    to find. One that has nothing to delete shows no event, and one that comes after the end is answered with that.
    """

    txn_id: str
    operations: tuple[Staged, ...] = ()
    outcome: Outcome = Outcome.NEVER
    commit_ts: int | None = None
    floor_ts: int = 0
    after: int = 0
    checks: tuple[Checked, ...] = ()
    at_once: bool = False
    revive: bool = False
    """It may write to agents that were deleted."""
    ends: AgentId | None = None
    deleted_keys: int | None = None
    """As the end was answered; None: it was not."""
    sent_ns: int = 0
    """The least that the store's clock can have been when it was examined: as it was first sent."""


@frozen
class Repeated:
    """One of several answers to one transaction, and whether it is the first one once more."""

    txn_id: str
    commit_ts: int
    deduplicated: bool


@frozen
class Found:
    """What a commit was refused for: what it had checked, and what it was told instead. Of a lease: nothing."""

    agent: AgentId
    floor_ts: int
    checked: Checked
    version: int = 0
    exists: bool = False
    event_ts: int = 0
    after: int = 0
    began_ns: int = 0
    ended_ns: int = 0


@frozen
class Read:
    """Keys of one agent, read in one call: what was found, and, of a scan, with which prefix.

    A scan says more than it shows: no other key with the prefix existed. With `at_ts`, which is not after the floor,
    the read was of that moment.
    """

    agent: AgentId
    floor_ts: int
    found: Mapping[str, StateResult]
    prefix: str | None = None
    after: int = 0
    at_ts: int | None = None
    began_ns: int = 0
    ended_ns: int = 0


@frozen
class Listed:
    """All live keys of an agent, by their names alone."""

    agent: AgentId
    floor_ts: int
    keys: tuple[str, ...]
    after: int = 0
    began_ns: int = 0
    ended_ns: int = 0


@frozen
class VersionRead:
    """A key, read at a version: what was found, which is version 0 where there is no such version yet."""

    agent: AgentId
    floor_ts: int
    key: str
    version: int
    found: StateResult
    after: int = 0


@frozen
class Replayed:
    """An agent's events from `first_ts` to `last_ts`, or, with None, to the newest at the time of the call."""

    agent: AgentId
    floor_ts: int
    first_ts: int
    last_ts: int | None
    events: tuple[ReplayEvent, ...]
    after: int = 0


AnyRead: TypeAlias = Read | Listed | VersionRead | Replayed | Found | Refused


@frozen
class Leased:
    """A lease that was "acquired", "renewed", "released" or "refused": its commit_ts, None when no answer came."""

    agent: AgentId
    floor_ts: int
    what: str
    epoch: int = 0
    commit_ts: int | None = None


@define
class Load:
    """Everything that the clients of one run sent, were told and were shown."""

    submissions: list[Submission] = field(factory=list)
    reads: list[AnyRead] = field(factory=list)
    newest_ts: int = 0
    """The floor of the next call."""
    began_ts: int = field(init=False)
    """The floor of the first."""
    repeated: list[Repeated] = field(factory=list)
    undecided: list[Submission] = field(factory=list)
    """What an audit could not find out about: it is for the next one."""
    leased: list[Leased] = field(factory=list)
    """Lease changes that were answered, and those whose answer is not known."""
    forks: list[Forking] = field(factory=list)

    @began_ts.default
    def _(self) -> int:
        return self.newest_ts

    def saw(self, commit_ts: int) -> None:
        """A client was told of this commit, or shown it."""
        self.newest_ts = max(self.newest_ts, commit_ts)

    def count(self, outcome: Outcome) -> int:
        """The transactions with this outcome."""
        return sum(submission.outcome is outcome for submission in self.submissions)
