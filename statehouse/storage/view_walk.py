"""Reading a whole view to verify it: its rows summed for the comparison with the log, and what follows from them.

One pass in key order. Of each agent come the forks of it, its ends, its events, its own fork, its idempotency keys, its
leases, its counters, its states, its versions and when these expire, in this order. States, counters and the counts in
events are held against the others, which are summed, as outcomes are (`row_sums.py`): a state must be that of the key's
newest version, and what counts must count right (`view_counts.py`). They are then as good as the rows that they are
held against. What does not fit is kept as a suspect; which of the rows is wrong is for `row_names.py` to say, with the
log in hand.

A fork goes on from what the rows of its ancestors say that it has inherited: its counts, and the versions of a key.

Memory is bounded: the states of one agent are kept until its versions come when they are few, and read a second time
when they are many; suspects beyond a number are only counted.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Final, TypeVar
from zlib import crc32

from statehouse.limits import VALUE_INLINE_BYTES
from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters
from statehouse.storage.expected_rows import EXPIRY, POINTER, POINTER_BYTES, compared_event, compared_fork
from statehouse.storage.expiry_keys import AGENT_EXPIRY, SWEPT, unpack_expiry_key, unpack_swept_key
from statehouse.storage.expiry_keys import EXPIRY as EXPIRY_OF_ALL
from statehouse.storage.inheritance import Inheritance, inheritance_of
from statehouse.storage.lineage import stored_version
from statehouse.storage.note_rows import read_fork_row
from statehouse.storage.row_sums import RowSums
from statehouse.storage.stored_value import exists_of, inline_value
from statehouse.storage.view import Row, ViewDamagedError, ViewSnapshot
from statehouse.storage.view_counts import AgentCounts, new_secret
from statehouse.storage.wire import LENGTH_DELIMITED, WireError, read_varint, tag, varint

__all__ = ["SUSPECTS_AT_MOST", "ViewWalk", "commit_ts_of", "prefix_of", "unwrapped"]

T = TypeVar("T")

SUSPECTS_AT_MOST: Final = 1_000
STATES_KEPT: Final = 4_096
"""States of one agent that are kept until its versions come."""
_TICK_ROWS: Final = 256
_VALUE_TAG: Final = tag(1, LENGTH_DELIMITED)
_NAME_END: Final = b"\x00\x01"
_POINTER_TS: Final = slice(1, 9)
_TOMBSTONE: Final = b"\x10"
_CHILD: Final = keys.CHILD[0]
_END: Final = keys.END[0]
_EVENT: Final = keys.EVENT[0]
_EXPIRY: Final = AGENT_EXPIRY[0]
_FORK: Final = keys.FORK[0]
_IDEMPOTENCY: Final = keys.IDEMPOTENCY[0]
_LEASE: Final = keys.LEASE[0]
_META: Final = keys.meta_key(b"")[0]
_STATE: Final = keys.STATE[0]
_VERSION: Final = keys.VERSION[0]
_NOTHING: Final = Inheritance((), AgentCounters())


def commit_ts_of(value: bytes) -> int | None:
    """The commit_ts in the value of a version; None when the bytes are none."""
    value = unwrapped(value)
    if len(value) == POINTER_BYTES and value[0] == 0:
        return int.from_bytes(value[_POINTER_TS])
    try:
        if value[:1] == b"\x10":
            _, at = read_varint(value, 1)
            return read_varint(value, at + 1)[0]
    except WireError:
        return None
    return None


class ViewWalk:
    """One walk over a view. `steps` does the work; the attributes have what came of it."""

    def __init__(
        self, view: ViewSnapshot, sums: RowSums, *, oldest_outcomes: int, is_unread: Callable[[int], bool] | None
    ) -> None:
        """Outcomes count from the bucket `oldest_outcomes` on. `is_unread`: commits that the log cannot show."""
        self._view = view
        self._sums = sums
        self._oldest_outcomes = oldest_outcomes
        self._is_unread = is_unread
        self._secret = new_secret()
        self.rows = 0
        self._lookups = 0
        """Rows that were read beside those of the walk, about."""
        self.states: dict[bytes, bytes | None] = {}
        """Suspects by key: a state that is not that of the newest version, and what it is (None: it is not there)."""
        self.counters: dict[bytes, bytes | None] = {}
        """Likewise the counters of agents, by the agent's prefix: they, or the counts in its events, do not count."""
        self.gaps: dict[bytes, str] = {}
        """Keys of rows that do not follow those before, and in what way."""
        self.foreign: dict[bytes, bytes] = {}
        """Rows that are none of the table's."""
        self.suspects = 0
        """All of these, also those past SUSPECTS_AT_MOST."""

    def steps(self) -> Iterator[None]:
        """Walk; gives something after each step of about a millisecond. Raises what reading the view raises."""
        with closing(self._view.scan(*keys.EVERYTHING)) as rows:
            agent: _Agent | None = None
            due = _TICK_ROWS
            for key, value in rows:
                self.rows += 1
                if self.rows + self._lookups >= due:
                    due = self.rows + self._lookups + _TICK_ROWS
                    yield None
                if agent is None or not key.startswith(agent.prefix):
                    if agent is not None:
                        self._end(agent)
                        agent = None
                    if key[:1] != keys.AGENT:
                        self._global(key, value)
                        continue
                    prefix = prefix_of(key)
                    if prefix is None:
                        self._suspect(self.foreign, key, value)
                        continue
                    agent = _Agent(prefix, AgentCounts(self._secret))
                self._of_agent(agent, key, value)
            if agent is not None:
                self._end(agent)

    def _global(self, key: bytes, value: bytes) -> None:
        if key == keys.WATERMARK_KEY:
            return
        try:
            commit_ts = int.from_bytes(value)
            if key.startswith(SWEPT):
                commit_ts = unpack_swept_key(key)
            elif key.startswith(EXPIRY_OF_ALL):
                unpack_expiry_key(key)
            # Older outcomes are being forgotten: some may still be there, and nobody looks at them.
            elif keys.unpack_outcome_key(key)[0] < self._oldest_outcomes:
                return
        except ViewDamagedError:
            self._suspect(self.foreign, key, value)
            return
        if not self._excluded(commit_ts):
            self._sums.add(key, value)

    def _of_agent(self, agent: "_Agent", key: bytes, value: bytes) -> None:
        start = len(agent.prefix)
        column = key[start] if len(key) > start else -1
        if column == _VERSION and key[-10:-8] == _NAME_END:
            self._version(agent, key, value)
        elif column == _EVENT and len(key) == start + 9:
            agent.counts.event(key[-8:], value)
            if self._is_unread is None or not self._is_unread(int.from_bytes(key[-8:])):
                self._sums.add(key, compared_event(value))
        elif column == _STATE and len(key) > start + 1:
            if agent.kept is not None:
                agent.kept.append((key, value))
                if len(agent.kept) > STATES_KEPT:
                    agent.kept = None
        elif column == _META and len(key) == start + 1:
            agent.counters = value
        elif column == _FORK and len(key) == start + 1:
            self._fork(agent, key, value)
        elif (column == _IDEMPOTENCY and key[-10:-8] == _NAME_END) or (
            column in (_LEASE, _CHILD, _END) and len(key) == start + 9
        ):
            if not self._excluded(int.from_bytes(key[-8:])):
                self._sums.add(key, value)
        elif column == _EXPIRY and len(key) > start + 17 and key[-10:-8] == _NAME_END:
            if not self._excluded(int.from_bytes(value)):
                self._sums.add(key, value)
        else:
            self._suspect(self.foreign, key, value)

    def _fork(self, agent: "_Agent", key: bytes, value: bytes) -> None:
        try:
            _, _, commit_ts = read_fork_row(value)
            agent.inherited = inherited = inheritance_of(self._view, keys.unpack_agent(agent.prefix))
        except ViewDamagedError:  # this row is wrong, or that of an ancestor
            agent.inherited = None
            self._sums.add(key, value)
            return
        self._lookups += 2 * len(inherited.levels)
        if 0 < agent.counts.first_ts <= commit_ts:
            self._suspect(
                self.gaps, key, f"the agent had a commit {agent.counts.first_ts} when it came to be as a fork"
            )
        if not self._excluded(commit_ts):
            self._sums.add(key, compared_fork(value, inherited.counters))

    def _version(self, agent: "_Agent", key: bytes, value: bytes) -> None:
        commit_ts = commit_ts_of(value)
        if commit_ts is None or not self._excluded(commit_ts):
            self._sums.add(key, value)
        name, version = key[:-10], int.from_bytes(key[-8:])
        if name != agent.name:
            self._newest(agent)
            agent.name, agent.version, agent.version_ts, agent.is_live = name, 0, 0, False
            if agent.inherited is not _NOTHING:
                self._inherit(agent, key, version)
        is_live = value[:1] != _TOMBSTONE
        agent.counts.version(commit_ts or 0, is_live - agent.is_live)
        agent.is_live = is_live
        if version != agent.version + 1:
            self._suspect(self.gaps, key, f"version {version} of the key follows version {agent.version}")
        elif commit_ts is not None and commit_ts < agent.version_ts:
            self._suspect(
                self.gaps, key, f"it is of commit_ts {commit_ts}, and the version before of {agent.version_ts}"
            )
        agent.version, agent.version_ts, agent.stored = version, commit_ts or 0, value

    def _inherit(self, agent: "_Agent", key: bytes, version: int) -> None:
        """A fork's first version of a key: what it follows."""
        if agent.inherited is None:
            agent.version = version - 1
            return
        levels = agent.inherited.levels
        name, _ = keys.read_name(key, len(agent.prefix) + 1)
        self._lookups += 2 * len(levels)
        try:
            before = stored_version(self._view, levels, name, version - 1) if version > 1 else None
            if stored_version(self._view, levels, name, version) is not None:
                self._suspect(self.gaps, key, f"the agent had inherited a version {version} of the key")
        except ViewDamagedError:  # the ancestor's row is wrong
            before = None
        if before is not None:
            agent.version, agent.is_live = version - 1, exists_of(before)

    def _newest(self, agent: "_Agent") -> None:
        """The key whose versions have just ended: its state, and the states before it, which have no versions."""
        if agent.name is None:
            return
        packed = agent.name[len(agent.prefix) + 1 :]
        due = keys.state_key(agent.prefix, packed.replace(b"\x00\xff", b"\x00"))
        state = self._next_state(agent)
        while state is not None and state[0] < due:
            self._suspect(self.states, *state)
            state = self._next_state(agent)
        if state is None or state[0] != due:
            agent.pushed_back = state
            self._suspect(self.states, due, None)
        elif not _fits(state[1], agent.stored):
            self._suspect(self.states, *state)

    def _next_state(self, agent: "_Agent") -> Row | None:
        if agent.pushed_back is not None:
            state, agent.pushed_back = agent.pushed_back, None
            return state
        if agent.states is None:
            agent.states = (
                iter(agent.kept) if agent.kept is not None else self._view.scan(*keys.state_range(agent.prefix))
            )
        return next(agent.states, None)

    def _end(self, agent: "_Agent") -> None:
        self._newest(agent)
        while (state := self._next_state(agent)) is not None:
            self._suspect(self.states, *state)
        fits = False
        if agent.inherited is not None:
            inherited = agent.inherited.counters
            counted = agent.counts.counters(inherited)
            with suppress(ViewDamagedError):
                fits = AgentCounters.unpack(agent.counters) == counted and agent.counts.events_fit(inherited)
            # An agent that nothing was ever written to, and that has a lease, has no counters.
            fits = fits and (agent.counters is None) == (not counted.commits)
        if not fits:
            self._suspect(self.counters, agent.prefix, agent.counters)

    def _suspect(self, among: dict[bytes, T], key: bytes, what: T) -> None:
        self.suspects += 1
        if len(among) < SUSPECTS_AT_MOST:
            among[key] = what

    def _excluded(self, commit_ts: int) -> bool:
        return self._is_unread is not None and self._is_unread(commit_ts)


class _Agent:
    """What is known of the agent whose rows are being read."""

    __slots__ = (
        "counters",
        "counts",
        "inherited",
        "is_live",
        "kept",
        "name",
        "prefix",
        "pushed_back",
        "states",
        "stored",
        "version",
        "version_ts",
    )

    def __init__(self, prefix: bytes, counts: AgentCounts) -> None:
        self.prefix = prefix
        self.counts = counts
        self.inherited: Inheritance | None = _NOTHING
        """None: the rows that would say are wrong."""
        self.counters: bytes | None = None
        self.kept: list[Row] | None = []
        """Its states; None when they are too many."""
        self.states: Iterator[Row] | None = None
        self.pushed_back: Row | None = None
        self.name: bytes | None = None
        """The rows' key up to the version, of the key whose versions are being read."""
        self.version = self.version_ts = 0
        self.stored = b""
        self.is_live = False


def prefix_of(key: bytes) -> bytes | None:
    """What the rows of the row's agent begin with; None when the key is none of the table's."""
    if key[:1] != keys.AGENT:
        return None
    try:
        _, end = keys.read_name(key, 1)
        _, end = keys.read_name(key, end)
    except ViewDamagedError:
        return None
    return key[:end]


def unwrapped(value: bytes) -> bytes:
    """The stored value in one that expires; others as they are."""
    return value[EXPIRY.size :] if value[:1] == b"\x01" else value


def _fits(state: bytes, newest: bytes) -> bool:
    """Whether a state is the one that the newest version leaves.

    An inline value is compared by its length and CRC-32, which the version has from the log: an accident passes once
    in 2^32.
    """
    if newest[:1] == b"\x01":
        if state[: EXPIRY.size] != newest[: EXPIRY.size]:
            return False
        state, newest = unwrapped(state), unwrapped(newest)
    if len(newest) != POINTER_BYTES or newest[0] != 0:
        return state == newest
    _, commit_ts, version, _, length, crc = POINTER.unpack(newest)
    if length > VALUE_INLINE_BYTES:
        return state == newest
    first = len(_VALUE_TAG) + len(varint(length))
    value = state[first : first + length]
    return crc32(value) == crc and state == inline_value(value, version, commit_ts)
