"""What a partition, and who is about to fork or to delete an agent, must know before a commit: mostly point reads.

They are reads as all others, but for what is told while the view is away: a view that a full disk failed is a full disk
to whoever would write.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple, TypeVar

from statehouse.errors import DiskFullError, StorageError
from statehouse.storage import agents, keys
from statehouse.storage.commit import AgentCounters
from statehouse.storage.lineage import Levels, counters_at, levels_of
from statehouse.storage.note_rows import read_idempotency_row, read_lease_row
from statehouse.storage.past import rows_at, stored_at
from statehouse.storage.reading import Reading, ViewAwayError
from statehouse.storage.section import Section, walk_section
from statehouse.storage.stored_value import exists_of, section_reads, version_of
from statehouse.storage.view import ViewDamagedError, ViewError, newest_row
from statehouse.types import AgentId

__all__ = ["Earlier", "LeaseRow", "Preparing"]

T = TypeVar("T")


class Earlier(NamedTuple):
    """A commit that had an idempotency key. `fingerprint` is the SHA-256 of what was asked for."""

    commit_ts: int
    committed_at_ns: int
    fingerprint: bytes


class LeaseRow(NamedTuple):
    """A lease as one commit left it; `expires_at_ns` is 0 once it was released."""

    commit_ts: int
    epoch: int
    holder: str
    expires_at_ns: int


class Preparing(Reading):
    """The part of a `Store` that is asked on the way to a commit.

    Every method raises DiskFullError while a view is away that a full disk failed, and else as those of `Reading`.
    """

    _view_was_full = False

    # An agent's state

    def levels(self, agent: AgentId) -> Levels:
        """Where the agent's rows are found: they stay the same until it is forked from another."""
        with self._preparing():
            return levels_of(self._view, agent, keys.agent_prefix(agent))

    def stored(self, levels: Levels, key: bytes) -> bytes | None:
        """The newest stored value of a key, its own or inherited; a tombstone, too."""
        try:  # not `_preparing`: this is asked for every write
            found = self._view.get(keys.state_key(levels[0].prefix, key))
            if found is not None or len(levels) == 1:
                return found
            return stored_at(self._view, levels[1:], key)
        except ViewError as error:
            raise self._unprepared(error) from error

    def inherited(self, levels: Levels, wanted: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """What the agent inherits of each key, which never changes. Blocks for all: belongs in a worker thread."""
        with self._preparing():
            return {key: stored_at(self._view, levels[1:], key) for key in wanted}

    def counters(self, agent_prefix: bytes) -> AgentCounters:
        """The counters of an agent, what it inherited included."""
        try:
            return self._counters(agent_prefix)
        except ViewError as error:
            raise self._unprepared(error) from error

    def _counters(self, agent_prefix: bytes) -> AgentCounters:
        return AgentCounters.unpack(self._view.get(keys.meta_key(agent_prefix)))

    # Forks and ends

    def forking(self, parent: AgentId, at_ts: int) -> tuple[AgentCounters, int]:
        """What a fork of `parent` at that commit would inherit, and its depth, which may be more than is allowed.

        All counters are 0 when the parent had nothing then.
        """
        with self._preparing():
            levels = levels_of(self._view, parent, keys.agent_prefix(parent))
            return counters_at(self._view, levels, at_ts), len(levels)

    def ended_ts(self, agent_prefix: bytes) -> int:
        """The commit that deleted the agent, the last of them; 0: it never was."""
        with self._preparing():
            return agents.ended_ts(self._view, agent_prefix)

    def live_keys(self, agent: AgentId, count: int, most_bytes: int) -> list[tuple[bytes, int]] | None:
        """(key, version) of every live key, in byte order; None: they have more bytes.

        `count` is how many the agent's counters say there are: a view that has others is damaged. Blocks on the disk
        for all keys that the agent ever had: belongs in a worker thread.
        """
        found: list[tuple[bytes, int]] = []
        size_bytes = 0
        levels = self._levels_of(agent)
        with self._preparing(), closing(rows_at(self._view, levels, b"", None, None)) as rows:
            for key, stored, _ in rows:
                if stored is None or not exists_of(stored):
                    continue
                size_bytes += len(key)
                if size_bytes > most_bytes:
                    return None
                if len(found) == count:
                    raise ViewDamagedError(f"an agent has more live keys than the {count} that it counts: {agent}")
                found.append((key, version_of(stored)))
            if len(found) < count:
                raise ViewDamagedError(f"an agent counts {count} live keys and has {len(found)}: {agent}")
        return found

    # Notes and events

    def idempotent(self, agent_prefix: bytes, key: bytes) -> Earlier | None:
        """The newest commit to the agent that had this idempotency key."""
        with self._preparing():
            found = self._newest(keys.idempotency_range(agent_prefix, key), read_idempotency_row)
        return None if found is None else Earlier(found[0], *found[1])

    def lease(self, agent_prefix: bytes) -> LeaseRow | None:
        """The agent's newest lease, released ones and expired ones too."""
        with self._preparing():
            return self._lease(agent_prefix)

    def get_lease(self, agent_prefix: bytes) -> LeaseRow | None:
        """The same for whoever asks. ViewAwayError, StorageError."""
        with self._readable():
            return self._lease(agent_prefix)

    def _lease(self, agent_prefix: bytes) -> LeaseRow | None:
        found = self._newest(keys.lease_range(agent_prefix), read_lease_row)
        return None if found is None else LeaseRow(found[0], *found[1])

    def section(self, agent_prefix: bytes, commit_ts: int) -> Section | None:
        """What a commit did to the agent, read from the log; None: nothing. StoreDamagedError, StorageError."""
        key = keys.event_key(agent_prefix, commit_ts)
        with self._preparing():
            pointer = self._view.get(key)
            if pointer is None:
                return None
            (place,) = section_reads([(key, pointer)])
            section = self._log.read(*place)
        return walk_section(section)

    def _newest(self, rows: keys.KeyRange, read: Callable[[bytes], T]) -> tuple[int, T] | None:
        """The last row of a range whose keys end in a commit_ts, and what `read` makes of its value. ViewError."""
        newest = newest_row(self._view, *rows)
        return None if newest is None else (int.from_bytes(newest[0][-8:]), read(newest[1]))

    # Failures

    @contextmanager
    def _preparing(self) -> Iterator[None]:
        """Translate what a view raises while a commit is prepared."""
        try:
            yield
        except ViewError as error:
            raise self._unprepared(error) from error

    def _unprepared(self, error: ViewError) -> StorageError:
        """What a commit is told whose partition cannot read."""
        unreadable = self._unreadable(error)
        if isinstance(unreadable, ViewAwayError) and self._view_was_full:
            return DiskFullError("the disk was full, and the view is away; nothing of the commit was done")
        return unreadable
