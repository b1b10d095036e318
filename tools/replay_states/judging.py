"""Holds the fold of each replay against what reads gave, at every commit_ts and for every agent, byte for byte.

A read of what there is now shows no value that has expired by the engine's clock, be it deleted yet or not; in every
other way it is the fold, as are reads of the past. In the end whatever has expired is deleted.
"""

from collections import deque
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from replay_states.drawing import History
from replay_states.fold import AgentState, Event, EventError, Time, read_event, response_of
from replay_states.recorded import Reading, Recorded
from statehouse.types import AgentId

__all__ = ["Verdict", "judge"]

DIGEST_BYTES: Final = 16
BYTES_SHOWN: Final = 40
NS_PER_S: Final = 1_000_000_000


class Verdict:
    """What was found: `violations`, how many states were compared, and one digest of the log and all states."""

    def __init__(self, history: History, recorded: Recorded) -> None:
        self._history = history
        self._recorded = recorded
        self.states = 0
        """A state: one agent at one commit_ts, by the fold."""
        self.states_read = 0
        """Of these, how many times one was read when the store stood there."""
        self.states_expired = 0
        """Of these, those in which something had expired and was not deleted yet."""
        self.swept: set[int] = set()
        """The commits in which what had expired was deleted."""
        self.digest = blake2b(recorded.log, digest_size=DIGEST_BYTES)
        self.violations = [f"seed {history.seed}: {violation}" for violation in self._judge()]

    def _judge(self) -> Iterator[str]:
        recorded = self._recorded
        for agent in self._history.keys:
            try:
                yield from self._agent(agent)
            except EventError as error:
                yield f"{agent}: {error}"
        taken = sorted([*recorded.committed, *self.swept, *recorded.notes])
        if taken != list(range(1, recorded.head_ts + 1)):
            yield f"answered, swept and noted were {taken}, and the newest commit_ts is {recorded.head_ts}"

    def _agent(self, agent: AgentId) -> Iterator[str]:
        recorded = self._recorded
        replay = recorded.replays[agent]
        if replay != recorded.followed[agent]:
            yield f"{agent}: the replay at the end is not what it was, read commit by commit"
        events = [read_event(encoded) for encoded in replay]
        yield from self._sent(agent, events)
        yield from self._windows(agent, events)
        yield from self._versions(agent, events)
        yield from self._states(agent, events)

    def _sent(self, agent: AgentId, events: list[Event]) -> Iterator[str]:
        """The events are what was sent, all of it and no more, where the answers say, and sweeps."""
        swept = deque(event for event in events if event.sweeps)
        self.swept.update(event.commit_ts for event in swept)
        found = [
            (event.commit_ts, [(each.key, each.value, each.ttl_s) for each in event.operations])
            for event in events
            if not event.sweeps
        ]
        expected = []
        live: set[bytes] = set()
        for commit_ts, operations in self._recorded.sent[agent]:
            while swept and swept[0].commit_ts < commit_ts:
                live -= {each.key for each in swept.popleft().operations}
            if operations is None:
                wanted: list[tuple[bytes, bytes | None, int]] = [(key, None, 0) for key in sorted(live)]
            else:
                wanted = [(each.key.encode(), each.value, each.ttl_s) for each in operations]
            for key, value, _ in wanted:
                (live.discard if value is None else live.add)(key)
            if wanted:
                expected.append((commit_ts, wanted))
        if found != expected:
            at = [commit_ts for commit_ts, _ in found], [commit_ts for commit_ts, _ in expected]
            yield f"{agent}: the events at {at[0]} are not what was sent and answered at {at[1]}"

    def _windows(self, agent: AgentId, events: list[Event]) -> Iterator[str]:
        for window in self._recorded.windows:
            if window.agent == agent:
                last_ts = self._recorded.head_ts if window.last_ts is None else window.last_ts
                expected = tuple(
                    encoded
                    for encoded, event in zip(self._recorded.replays[agent], events, strict=True)
                    if (window.first_ts or 0) <= event.commit_ts <= last_ts
                )
                if window.events != expected:
                    yield f"{agent}: the replay from {window.first_ts} to {window.last_ts} is no piece of the whole"

    def _versions(self, agent: AgentId, events: list[Event]) -> Iterator[str]:
        """GetStateAtVersion has every version that a fold comes through, as the fold makes it, and no other."""
        found = {
            (key.encode(), version): answer
            for (owner, key, version), answer in self._recorded.versions.items()
            if owner == agent
        }
        for event in events:
            for operation in event.operations:
                key, value, version = operation[:3]
                answer = found.pop((key, version), b"")
                expected = response_of(value, version, event.commit_ts, event.expiry(operation))
                if answer != expected:
                    yield f"{agent} key {key!r} at version {version}: {_differ(answer, expected)}"
        for key, version in found:
            yield f"{agent} key {key!r}: there is a version {version}, and no event has it"

    def _states(self, agent: AgentId, events: list[Event]) -> Iterator[str]:
        readings: dict[int, list[tuple[int, Reading]]] = {}
        for commit_ts, now_ns, found in self._recorded.readings:
            readings.setdefault(commit_ts, []).append((now_ns, found[agent]))
        past: dict[int, list[tuple[bytes, ...]]] = {}
        for read in self._recorded.past:
            if read.agent == agent:
                past.setdefault(read.at_ts, []).append(read.responses)
        state, ahead = AgentState(agent), iter(events)
        upcoming = next(ahead, None)
        reading, encoded = self._fold_as_read(state)
        nothing = reading
        now = (0, 0)
        for commit_ts in range(self._recorded.head_ts + 1):
            while upcoming is not None and upcoming.commit_ts <= commit_ts:
                state.fold(upcoming)
                upcoming = next(ahead, None)
                reading, encoded = self._fold_as_read(state)
            self.states += 1
            self.digest.update(encoded)
            for now_ns, found_then in readings.get(commit_ts, ()):
                self.states_read += 1
                now = divmod(now_ns, NS_PER_S)
                there = commit_ts >= self._recorded.forked.get(agent, 0)
                then = self._as_of(now, state, reading) if there else nothing
                if found_then != then:
                    yield f"{agent} at commit_ts {commit_ts}: {self._differences(agent, found_then, then)}"
            for responses in past.get(commit_ts, ()):
                if responses != reading.responses:
                    yield f"{agent} as of commit_ts {commit_ts}: what is read is not the fold"
        if upcoming is not None:
            yield f"{agent}: an event at commit_ts {upcoming.commit_ts}, and the newest is {self._recorded.head_ts}"
        for key in state.expired(now):
            yield f"{agent} key {key!r}: it has expired, and was not deleted"

    def _as_of(self, now: Time, state: AgentState, reading: Reading) -> Reading:
        """What is read of a state at a time."""
        expired = state.expired(now)
        if not expired:
            return reading
        self.states_expired += 1
        keys = [key.encode() for key in self._history.keys[state.agent]]
        responses = zip(keys, reading.responses, strict=True)
        live = sorted(state.entries.keys() - expired.keys())
        return Reading(
            tuple(expired.get(key, response) for key, response in responses),
            tuple(state.entries[key] for key in live),
            tuple(key.decode() for key in live),
        )

    def _fold_as_read(self, state: AgentState) -> tuple[Reading, bytes]:
        """The fold in the form of what reads give, and a digest of that."""
        live = sorted(state.entries)
        reading = Reading(
            tuple(state.responses.get(key.encode(), b"") for key in self._history.keys[state.agent]),
            tuple(state.entries[key] for key in live),
            tuple(key.decode() for key in live),
        )
        digest = blake2b(digest_size=DIGEST_BYTES)
        for part in (*reading.responses, *reading.entries):
            digest.update(len(part).to_bytes(4, "big") + part)
        return reading, digest.digest()

    def _differences(self, agent: AgentId, found: Reading, folded: Reading) -> str:
        for key, read, expected in zip(self._history.keys[agent], found.responses, folded.responses, strict=True):
            if read != expected:
                return f"key {key!r} {_differ(read, expected)}"
        if found.listed != folded.listed:
            return f"the keys listed are {found.listed}, and the fold has {folded.listed}"
        for read, expected in zip(found.entries, folded.entries, strict=False):
            if read != expected:
                return f"in the scan {_differ(read, expected)}"
        return f"the scan has {len(found.entries)} entries, and the fold {len(folded.entries)}"


def judge(history: History, recorded: Recorded) -> Verdict:
    """Judge what was recorded of a history."""
    return Verdict(history, recorded)


def _differ(read: bytes, folded: bytes) -> str:
    return f"reads {_shown(read)}, and the fold gives {_shown(folded)}"


def _shown(encoded: bytes) -> str:
    return f"{encoded[:BYTES_SHOWN].hex() or 'nothing'} ({len(encoded)} bytes)"
