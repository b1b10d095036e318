"""An agent's counters, counted anew from the log: for the second look at those that do not count the view's rows.

A record does not say whether the key that it writes to was live. The live keys of an agent are therefore remembered;
what a fork has inherited is looked up in the view, by the version that the log says comes next.
"""

from collections.abc import Sequence
from typing import Final

from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters
from statehouse.storage.lineage import Level, Levels, levels_of, stored_version
from statehouse.storage.record_notes import ForkNote
from statehouse.storage.section import SectionOperation
from statehouse.storage.stored_value import exists_of
from statehouse.storage.view import ViewDamagedError, ViewSnapshot

__all__ = ["Recount"]

_NOT_YET: Final = AgentCounters()


class Recount:
    """The counters of one agent. Give it the agent's fork and its commits, as they come."""

    def __init__(self, view: ViewSnapshot) -> None:
        """Reading the view may raise ViewUnavailableError and ViewClosedError."""
        self._view = view
        self.counters = _NOT_YET
        self._exists: dict[bytes, bool] | None = {}
        """The keys that are live; of a fork, all that it wrote to. None: they are not remembered any more."""
        self._levels: Levels = ()
        self.lacks_ancestors = False
        """Whether live keys are not counted because rows of an ancestor are wrong."""

    @property
    def keys_kept(self) -> int:
        """How many keys are remembered."""
        return 0 if self._exists is None else len(self._exists)

    @property
    def counts_live_keys(self) -> bool:
        """Whether all of the counters are right, and not only commits and operations."""
        return self._exists is not None

    def give_up(self) -> int:
        """Count live keys no longer; gives how many keys were remembered."""
        kept, self._exists = self.keys_kept, None
        return kept

    def fork(self, note: ForkNote) -> None:
        """Go on from what the agent has inherited."""
        self.counters = AgentCounters(*note.inherited)
        try:
            levels = levels_of(self._view, note.parent, keys.agent_prefix(note.parent))
        except ViewDamagedError:
            self.lacks_ancestors = True
            self.give_up()
        else:
            self._levels = tuple(Level(prefix, min(until_ts, note.at_ts)) for prefix, until_ts in levels)

    def commit(self, operations: Sequence[SectionOperation], commit_ts: int) -> int:
        """Count a commit; gives how many more keys are remembered."""
        kept = self.keys_kept
        gained = sum(self._gained(key, version, value_offset) for key, version, value_offset, *_ in operations)
        counters = self.counters.plus(operations=len(operations), live_keys=gained)
        self.counters = counters.at(counters.first_commit_ts or commit_ts, commit_ts)
        return self.keys_kept - kept

    def _gained(self, key: bytes, version: int, value_offset: int | None) -> int:
        if self._exists is None:
            return 0
        exists = value_offset is not None
        was = self._exists.get(key)
        if was is None:
            was = bool(self._levels) and self._was_inherited(key, version - 1)
        if self._exists is not None:
            if exists or self._levels:
                self._exists[key] = exists
            else:
                self._exists.pop(key, None)
        return exists - was

    def _was_inherited(self, key: bytes, version: int) -> bool:
        if not version:
            return False
        try:
            stored = stored_version(self._view, self._levels, key, version)
        except ViewDamagedError:
            stored = None
        if stored is None:
            self.lacks_ancestors = True
            self.give_up()
            return False
        return exists_of(stored)
