"""What the clients of a run know: the transactions they sent, what they were told, and what they read meanwhile.

This is the ground truth of the proof. It lives in the proof's own memory, and nothing in it comes from a replay.
"""

from enum import Enum

from attrs import define, field, frozen

from statehouse.types import AgentId, JsonObject

__all__ = ["Load", "Outcome", "PairRead", "ReadBack", "Staged", "Submission"]


class Outcome(Enum):
    """What is known of a transaction when the load has ended."""

    NEVER = "never"
    """It was aborted or left open, or its commit was never sent: it must not show."""
    ACKNOWLEDGED = "acknowledged"
    UNKNOWN = "unknown"
    """Its commit was sent, and no answer came: all of it or nothing."""


@frozen
class Staged:
    """One write, or with `value` None one delete."""

    agent: AgentId
    key: str
    value: "JsonObject | None"


@define(eq=False)
class Submission:
    """One transaction. `floor_ts` is the newest commit_ts that anyone had been told when its commit was sent."""

    txn_id: str
    operations: tuple[Staged, ...] = ()
    outcome: Outcome = Outcome.NEVER
    commit_ts: int | None = None
    floor_ts: int = 0


@frozen
class ReadBack:
    """A key, read by who had just been told that it was written at `written_ts`."""

    agent: AgentId
    key: str
    written_ts: int
    seen_ts: int


@frozen
class PairRead:
    """The two keys that are only ever written together, read in one scan: the marks that their values had."""

    agent: AgentId
    marks: tuple[int, ...]


@define
class Load:
    """Everything that the clients of one run sent and saw."""

    submissions: list[Submission] = field(factory=list)
    reads: list[ReadBack | PairRead] = field(factory=list)
    newest_ts: int = 0
    """Of the commits that were acknowledged."""

    def count(self, outcome: Outcome) -> int:
        """The transactions with this outcome."""
        return sum(submission.outcome is outcome for submission in self.submissions)
