"""Whether the counts in an agent's rows count its rows: those in its events, and its counters.

An event row says how many commits, operations and live keys the agent had behind the commit. The log cannot be asked
for these without counting for all agents at once, but the agent's other rows can: with each event comes one commit, and
the operations and the change in live keys that the versions of that commit say.

Versions come in the order of their keys, so these are held against the events by sums. Each commit is given a number
that nobody can foresee, its weight, and both are multiplied by it: what an event has more than the one before it, and
what the versions bring. When every event counts right, the sums are the same; when one does not, they are the same once
in 2^64. The three counts of an event are one number here, as they stand in its row: other counts are another number.
"""

from secrets import token_bytes
from struct import Struct
from typing import Final

from statehouse.storage.commit import AgentCounters

__all__ = ["AgentCounts", "new_secret"]

_SECRET_BYTES: Final = 16
_COUNTS: Final = slice(12, None)
"""Where the counts stand in an event row."""
_COMMIT: Final = 1 << 128
_OPERATION: Final = 1 << 64
_pack_ts: Final = Struct(">Q").pack


def new_secret() -> bytes:
    """What the weights of one walk over a view are made with."""
    return token_bytes(_SECRET_BYTES)


class AgentCounts:
    """The counts of one agent. Give it every event, in order, and every version, in any order."""

    __slots__ = ("_balance", "_counts", "_first", "_last", "_secret", "commits", "live_keys_gained", "operations")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._balance = 0
        """What the events bring, as if nothing was inherited, less what the versions bring."""
        self._counts = 0
        """Of the newest event."""
        self._first = self._last = b""
        """The packed commit_ts of the first and the newest event."""
        self.commits = self.operations = self.live_keys_gained = 0
        """Counted."""

    @property
    def first_ts(self) -> int:
        """Of the first event; 0: none came."""
        return int.from_bytes(self._first)

    def event(self, packed_ts: bytes, stored: bytes) -> None:
        """Count an event row; what is none counts wrong."""
        self.commits += 1
        self._last = packed_ts
        if not self._first:
            self._first = packed_ts
        # The weight of a commit. Python's hash of bytes is SipHash, which is keyed and the quickest there is.
        weight = hash(self._secret + packed_ts)
        counts = int.from_bytes(stored[_COUNTS])
        self._balance += weight * (counts - self._counts - _COMMIT)
        self._counts = counts

    def version(self, commit_ts: int, change: int) -> None:
        """Count the row of a version, which changes the number of live keys by `change`."""
        self.operations += 1
        self.live_keys_gained += change
        self._balance -= hash(self._secret + _pack_ts(commit_ts)) * (_OPERATION + change)

    def counters(self, inherited: AgentCounters) -> AgentCounters:
        """What the agent's counters must be; `inherited` is what it had before its first event."""
        return AgentCounters(
            inherited.first_commit_ts or self.first_ts,
            int.from_bytes(self._last) or inherited.last_commit_ts,
            inherited.commits + self.commits,
            inherited.operations + self.operations,
            inherited.live_keys + self.live_keys_gained,
        )

    def events_fit(self, inherited: AgentCounters) -> bool:
        """Whether every event row counts the agent's commits, and its operations and live keys as its versions do."""
        if not self._first:
            return not self._balance
        before = inherited.commits * _COMMIT + inherited.operations * _OPERATION + inherited.live_keys
        return self._balance == hash(self._secret + self._first) * before
