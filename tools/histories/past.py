"""What an oracle remembers of the runs that it need not keep whole: 16 bytes for each event and each version.

A mark is a hash of what was there, of this process: enough to see that a later replay, or a read at an old version,
shows the same, and not enough to say what else was there.
"""

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from attrs import define, field, frozen

from histories.lasting import states_of
from statehouse import ReplayEvent, StateResult
from statehouse.types import AgentId

__all__ = ["Past", "PastEvents"]

UNSIGNED: str = "Q"
SIGNED: str = "q"


@frozen
class PastEvents:
    """An agent's events of some runs, in their order."""

    commit_ts: Sequence[int] = field(factory=lambda: array(UNSIGNED))
    marks: Sequence[int] = field(factory=lambda: array(SIGNED))

    def between(self, first_ts: int, last_ts: int | None) -> "PastEvents":
        """Those of the commits from `first_ts` to `last_ts`, both included; None: to the end."""
        start = bisect_left(self.commit_ts, first_ts)
        stop = len(self.commit_ts) if last_ts is None else bisect_right(self.commit_ts, last_ts)
        return PastEvents(self.commit_ts[start:stop], self.marks[start:stop])

    def begin_with(self, events: Sequence[ReplayEvent]) -> bool:
        """Whether these are the first of them."""
        return list(map(_mark_of_event, events)) == list(self.marks[: len(events)])


@define
class Past:
    """The past of all agents."""

    _events: dict[AgentId, "tuple[array[int], array[int]]"] = field(factory=dict)
    _versions: dict[tuple[AgentId, str], "array[int]"] = field(factory=dict)

    def add(self, agent: AgentId, event: ReplayEvent) -> None:
        """Remember the agent's next event."""
        times, marks = self._events.setdefault(agent, (array(UNSIGNED), array(SIGNED)))
        times.append(event.commit_ts)
        marks.append(_mark_of_event(event))
        for key, state in states_of(event):
            self._versions.setdefault((agent, key), array(SIGNED)).append(_mark_of_state(state))

    def fork(self, parent: AgentId, agent: AgentId) -> None:
        """The new agent has all that is remembered of its parent."""
        if parent in self._events:
            times, marks = self._events[parent]
            self._events[agent] = times[:], marks[:]
            for (owner, key), versions in list(self._versions.items()):
                if owner == parent:
                    self._versions[agent, key] = versions[:]

    def events(self, agent: AgentId) -> PastEvents:
        """All that is remembered of an agent."""
        found = self._events.get(agent)
        return PastEvents() if found is None else PastEvents(*found)

    def newest(self, agent: AgentId) -> int:
        """The commit_ts of the newest event that is remembered; 0: there is none."""
        return self.newest_until(agent, None)

    def newest_until(self, agent: AgentId, until_ts: int | None) -> int:
        """Likewise of those up to a commit."""
        times = self.events(agent).between(0, until_ts).commit_ts
        return times[-1] if times else 0

    def versions(self, agent: AgentId, key: str) -> int:
        """How many versions of a key are remembered; they are 1, 2, 3, ..."""
        return len(self._versions.get((agent, key), ()))

    def had(self, agent: AgentId, key: str, version: int, state: StateResult) -> bool:
        """Whether a version that is remembered was this."""
        return self._versions[agent, key][version - 1] == _mark_of_state(state)


def _mark_of_event(event: ReplayEvent) -> int:
    operations = tuple(
        (operation.key, operation.version, _text(operation.value), operation.ttl_s, operation.expired)
        for operation in event.operations
    )
    # Without the agent's name, which is another in its forks: whoever asks has looked at it.
    return hash((event.txn_id, event.commit_ts, event.committed_at, operations))


def _mark_of_state(state: StateResult) -> int:
    return hash((state.version, state.commit_ts, state.exists, _text(state.value), state.expires_at))


def _text(value: object) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True)
