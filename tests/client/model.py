"""What a store should hold, as dicts: the judge of the model tests. It knows nothing of logs, actors or wires.

Time is real, and the daemon's. What is asked for between two readings of the clock may be answered as of any moment
between them: `moments` are those that differ. What expired is deleted by commits of the daemon's own, which nobody
answers for: the model takes each (`expire`) when it is read from the log, and only where one is due.
"""

import datetime as dt
import json
from collections import defaultdict
from enum import Enum

from attrs import define, evolve, field
from client.model_draws import SHORT_S

from statehouse import ErrorCode, Operation, ReplayEvent, StateResult
from statehouse.types import AgentId

NOTHING = StateResult(None, 0, 0, exists=False)


class TxnState(Enum):
    """What has become of a transaction, by the code with which a commit of it is refused."""

    OPEN = None
    COMMITTED = ErrorCode.TXN_ALREADY_COMMITTED
    EXPIRED = ErrorCode.TXN_EXPIRED
    ABORTED = ErrorCode.TXN_NOT_FOUND
    LOST = "the daemon was killed"

    @property
    def code(self):
        return ErrorCode.TXN_NOT_FOUND if self is TxnState.LOST else self.value


@define(eq=False)
class ModelTxn:
    """A transaction, and the client's handle of it."""

    handle: object
    state: TxnState = TxnState.OPEN
    staged: list = field(factory=list)
    """(agent, key, value or None, ttl_s or None), in order."""
    commit_ts: int = 0


@define
class Model:
    """Every version of every key, and every event."""

    head_ts: int
    notes_owed: int = 0
    """Commits without an event that the daemon may still make: one for each commit of what has expired, at most."""
    versions: dict = field(factory=lambda: defaultdict(list))
    """(agent, key) -> StateResult of each version, from 1."""
    history: dict = field(factory=lambda: defaultdict(list))
    """agent -> its events, without the time of their commits."""
    expiring: dict = field(factory=dict)
    """(agent, key) -> when its newest value expires: of those that do so while a test runs."""

    def commit(self, txn: ModelTxn, commit_ts: int, committed_at: dt.datetime | None) -> None:
        """`committed_at` is only needed where something expires."""
        self._reach(commit_ts)
        parts = defaultdict(list)
        for agent, key, value, ttl_s in txn.staged:
            expires_at = None if ttl_s is None else committed_at + dt.timedelta(seconds=ttl_s)
            version = self._add(agent, key, StateResult(value, 0, commit_ts, value is not None, expires_at=expires_at))
            parts[agent].append(Operation(key, value, version, ttl_s))
            if ttl_s == SHORT_S:
                self.expiring[agent, key] = expires_at
        self.notes_owed += any(ttl_s == SHORT_S for *_, ttl_s in txn.staged)
        for agent, operations in parts.items():
            event = ReplayEvent(txn.handle.txn_id, commit_ts, tuple(operations), agent.namespace, agent.agent_id, None)
            self.history[agent].append(event)
        txn.commit_ts = commit_ts

    def expire(self, event: ReplayEvent) -> None:
        """The daemon deleted what had expired."""
        agent = AgentId(event.namespace, event.agent_id)
        self._reach(event.commit_ts)
        assert event.operations
        for operation in event.operations:
            newest = self.state(agent, operation.key)
            assert newest.expires_at is not None
            assert newest.expires_at <= event.committed_at
            version = self._add(agent, operation.key, StateResult(None, 0, event.commit_ts, exists=False))
            assert operation == Operation(operation.key, None, version, expired=True)
        self.history[agent].append(event)

    def skip(self, commit_ts: int) -> None:
        """A commit that touched none of the model's agents."""
        self._reach(commit_ts)

    def _reach(self, commit_ts: int) -> None:
        notes = commit_ts - self.head_ts - 1
        assert 0 <= notes <= self.notes_owed
        self.notes_owed -= notes
        self.head_ts = commit_ts

    def _add(self, agent: AgentId, key: str, state: StateResult) -> int:
        versions = self.versions[agent, key]
        versions.append(evolve(state, version=len(versions) + 1))
        self.expiring.pop((agent, key), None)
        return len(versions)

    # What there is now

    def moments(self, began: dt.datetime, ended: dt.datetime) -> list[dt.datetime]:
        """A moment of each state of things that there was meanwhile, as far as it is known by now."""
        return [began, *sorted(at for at in set(self.expiring.values()) if began < at <= ended)]

    def now(self, agent: AgentId, key: str, at: dt.datetime) -> StateResult:
        newest = self.state(agent, key)
        expires_at = self.expiring.get((agent, key))
        if expires_at is None or at < expires_at:
            return newest
        return evolve(newest, value=None, exists=False, expires_at=None)

    def scan(self, agent: AgentId, prefix: str, at: dt.datetime) -> list[StateResult]:
        """The live keys with a prefix, in byte order."""
        keys = sorted((key for of, key in self.versions if of == agent and key.startswith(prefix)), key=str.encode)
        found = [evolve(self.now(agent, key, at), key=key) for key in keys]
        return [state for state in found if state.exists]

    # What was committed, which knows of no clock

    def state(self, agent: AgentId, key: str) -> StateResult:
        versions = self.versions.get((agent, key))
        return versions[-1] if versions else NOTHING

    def state_at(self, agent: AgentId, key: str, at_ts: int) -> StateResult:
        versions = [each for each in self.versions.get((agent, key), []) if each.commit_ts <= at_ts]
        return versions[-1] if versions else NOTHING

    def at_version(self, agent: AgentId, key: str, version: int) -> StateResult:
        versions = self.versions.get((agent, key), [])
        return versions[version - 1] if 1 <= version <= len(versions) else NOTHING

    def replay(self, agent: AgentId, first_ts: int | None, last_ts: int) -> list[ReplayEvent]:
        return [event for event in self.history.get(agent, []) if (first_ts or 0) <= event.commit_ts <= last_ts]


def exact(found: object) -> object:
    """A result with its values as text, in which True is not 1. A whole number may come back as int or float."""
    if isinstance(found, list | tuple):
        return [exact(each) for each in found]
    if isinstance(found, StateResult | Operation):
        return evolve(found, value=json.dumps(_numbers_as_floats(found.value), sort_keys=True))
    if isinstance(found, ReplayEvent):
        return evolve(found, operations=exact(found.operations), committed_at=None)
    return found


def _numbers_as_floats(value: object) -> object:
    if isinstance(value, dict):
        return {name: _numbers_as_floats(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_numbers_as_floats(member) for member in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
