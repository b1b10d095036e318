"""Which rows of a view are not what the log says: the second look, when the sums of a verification differ.

The parts that differ (`row_sums.py`) say which rows have to be looked at; of the log and of the view only these are
held against each other, row by row. The suspects of the view's walk are judged by the log, too: whether a state or the
version that it was held against is the wrong one; and the agents whose counts do not count are counted anew
(`recount.py`), and their events with them.

At most ROWS_AT_MOST rows are held in memory. With more in the parts that differ, as in a view of another store, the
largest parts are left out, and a finding says so.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from operator import itemgetter
from typing import Final

from statehouse.findings import FindingKind, VerifyFinding
from statehouse.storage import keys
from statehouse.storage.expected_rows import (
    EVENT,
    compared_event,
    compared_fork,
    fork_row_of,
    note_rows,
    outcome_row,
    read_record,
    section_rows,
    state_row,
)
from statehouse.storage.expiry_keys import AGENT_EXPIRY, EXPIRY, SWEPT
from statehouse.storage.inheritance import inheritance_of
from statehouse.storage.log_format import LogRecordAt
from statehouse.storage.note_rows import read_fork_row
from statehouse.storage.recount import Recount
from statehouse.storage.row_finding import VIEW_REMEDY, column_of, judged, row_finding
from statehouse.storage.row_sums import part_of
from statehouse.storage.view import ViewDamagedError, ViewSnapshot
from statehouse.storage.view_walk import SUSPECTS_AT_MOST, ViewWalk, commit_ts_of
from statehouse.storage.wire import WireError

__all__ = ["RowNames"]

ROWS_AT_MOST: Final = 100_000
LIVE_KEYS_AT_MOST: Final = 100_000
"""Keys that are remembered of all the agents that are counted anew. With more, those of the largest are given up."""
_TICK_ROWS: Final = 256


class RowNames:
    """Give it every record (`on_record`); `steps` then names the rows."""

    def __init__(
        self,
        view: ViewSnapshot,
        walk: ViewWalk,
        differing: Sequence[tuple[int, int]],
        *,
        watermark_ts: int,
        oldest_outcomes: int,
        is_unread: Callable[[int], bool] | None,
    ) -> None:
        """`differing`: the parts that differ, with the rows that each has. The others are as for the walk."""
        self._view = view
        self._walk = walk
        self._parts: set[int] = set()
        rows = 0
        for part, count in sorted(differing, key=itemgetter(1)):
            rows += count
            if rows > ROWS_AT_MOST:
                break
            self._parts.add(part)
        self._left_out = len(differing) - len(self._parts)
        self._watermark_ts = watermark_ts
        self._oldest_outcomes = oldest_outcomes
        self._is_unread = is_unread
        self._expected: dict[bytes, bytes] = {}
        self._twice: list[bytes] = []
        self._states: dict[bytes, bytes] = {}
        self._counters = {prefix: Recount(view) for prefix in walk.counters}
        self._kept = 0
        """Keys that these remember."""
        self._miscounts: list[VerifyFinding] = []
        self._more_miscounts = 0
        self._inherits: dict[bytes, str] = {}
        """Rows of forks that are right, of which the log says that they inherit other counters than the view has."""

    def on_record(self, record: LogRecordAt) -> None:
        """Keep what a record says of the rows in question. Raises what reading the view raises."""
        commit_ts = record.commit_ts
        if commit_ts > self._watermark_ts or (self._is_unread is not None and self._is_unread(commit_ts)):
            return
        try:
            txn_id, sections, notes = read_record(record)
        except WireError:
            return  # told of already
        rows = [row for section in sections for row in section_rows(section, commit_ts)]
        rows += note_rows(notes, sections, record)
        if keys.outcome_bucket(commit_ts) >= self._oldest_outcomes:
            rows.append(outcome_row(txn_id, commit_ts))
        for key, value in rows:
            if part_of(key) in self._parts:
                if key in self._expected:
                    self._twice.append(key)
                self._expected[key] = value
        if notes.fork is not None:
            forked = self._counters.get(keys.agent_prefix(notes.fork.agent))
            if forked is not None:
                forked.fork(notes.fork)
        for section in sections:
            recount = self._counters.get(section.prefix)
            if recount is not None:
                kept = recount.keys_kept
                recount.commit(section.operations, commit_ts)
                self._kept += recount.keys_kept - kept
                while self._kept > LIVE_KEYS_AT_MOST:
                    self._kept -= max(self._counters.values(), key=lambda each: each.keys_kept).give_up()
                self._compare_event(section.prefix, commit_ts, recount)
            for operation in section.operations if self._walk.states else ():
                key = keys.state_key(section.prefix, operation.key)
                if key in self._walk.states:
                    self._states[key] = state_row(section, operation, commit_ts)

    def _compare_event(self, prefix: bytes, commit_ts: int, recount: Recount) -> None:
        """Hold the counts in an event row against those of the log."""
        if self._is_unread is not None:  # then the log cannot be counted
            return
        key = keys.event_key(prefix, commit_ts)
        stored = self._view.get(key)
        if stored is None or len(stored) != EVENT.size:
            return  # which its sum tells
        counts = 3 if recount.counts_live_keys else 2
        _, _, commits, operations, live_keys = recount.counters
        if EVENT.unpack(stored)[3 : 3 + counts] == (commits, operations, live_keys)[:counts]:
            return
        if len(self._miscounts) == SUSPECTS_AT_MOST:
            self._more_miscounts += 1
            return
        message = f"the row is {stored.hex()}, and by the log it counts {commits} commits, {operations} operations"
        message += f", {live_keys} live keys" if recount.counts_live_keys else ""
        self._miscounts.append(row_finding(FindingKind.ROW_WRONG, key, None, message, ()))

    def steps(self, starts: Sequence[int]) -> Iterator[VerifyFinding | None]:
        """Name the rows. Gives findings, and None after each step of about a millisecond.

        `starts`: the log's segments. Unless all of the log could be read, suspects are told as what they are.
        """
        named = 0
        for finding in self._compared(starts):
            named += finding is not None
            yield finding
        for key, value in self._walk.foreign.items():
            named += 1
            yield row_finding(FindingKind.ROW_EXTRA, key, value, "the row is none of the view's format", starts)
        for key in self._twice:
            named += 1
            yield row_finding(FindingKind.HISTORY_INCONSISTENT, key, None, "the log gives this row twice", starts)
        for finding in self._suspects(starts):
            named += 1
            yield finding
        if not named and not self._left_out:  # every row is as the log has it, and the log itself does not count right
            for key, what in (self._walk.gaps | self._miscounted() | self._inherits).items():
                yield row_finding(
                    FindingKind.HISTORY_INCONSISTENT, key, None, f"in the log and the view: {what}", starts
                )
        if self._left_out:
            message = f"so many rows differ that those in {self._left_out} of 4096 parts of the view were not compared"
            yield VerifyFinding(kind=FindingKind.ROWS_NOT_NAMED, message=message, remedy=VIEW_REMEDY, file="state")

    def _miscounted(self) -> dict[bytes, str]:
        what = "the agent's counts are not those of its rows"
        return {keys.meta_key(prefix): what for prefix in self._walk.counters}

    def _compared(self, starts: Sequence[int]) -> Iterator[VerifyFinding | None]:
        expected = self._expected
        if self._parts:
            with closing(self._view.scan(*keys.EVERYTHING)) as rows:
                for number, (key, value) in enumerate(rows):
                    if number % _TICK_ROWS == 0:
                        yield None
                    if part_of(key) not in self._parts or not self._is_compared(key, value):
                        continue
                    due = expected.pop(key, None)
                    if due is None:
                        yield row_finding(FindingKind.ROW_EXTRA, key, value, "the log does not give this row", starts)
                    elif not self._is_as_due(key, value, due):
                        message = f"the row is {value[:40].hex()}, and by the log it is {due[:40].hex()}"
                        yield row_finding(FindingKind.ROW_WRONG, key, due, message, starts)
            for key, due in expected.items():
                yield row_finding(FindingKind.ROW_MISSING, key, due, "the view does not have this row", starts)

    def _is_as_due(self, key: bytes, value: bytes, due: bytes) -> bool:
        """Whether a row is as the log has it."""
        column = column_of(key)
        if column == keys.EVENT:
            return compared_event(value) == due
        if column != keys.FORK:
            return value == due
        if value != fork_row_of(due):
            return False
        try:
            inherited = inheritance_of(self._view, keys.unpack_agent(key)).counters
        except ViewDamagedError:
            return True  # the row of an ancestor is wrong
        if compared_fork(value, inherited) != due:
            self._inherits[key] = f"by its parent's rows the agent inherits {inherited}, and by the note another"
        return True

    def _is_compared(self, key: bytes, value: bytes) -> bool:
        """Whether the row is one of those that are summed."""
        if key in self._walk.foreign or key == keys.WATERMARK_KEY:
            return False
        column = column_of(key)
        commit_ts: int | None
        if column == keys.VERSION:
            commit_ts = commit_ts_of(value)
        elif column in (keys.EVENT, keys.IDEMPOTENCY, keys.LEASE, keys.CHILD, keys.END):
            commit_ts = int.from_bytes(key[-8:])
        elif column == keys.FORK:
            try:
                commit_ts = read_fork_row(value)[2]
            except ViewDamagedError:
                commit_ts = None
        elif key.startswith(SWEPT):
            commit_ts = int.from_bytes(key[-8:])
        elif (column == AGENT_EXPIRY or key.startswith(EXPIRY)) or (
            key[:1] == keys.GLOBAL and int.from_bytes(key[2:10]) >= self._oldest_outcomes
        ):
            commit_ts = int.from_bytes(value)
        else:
            return False
        return self._is_unread is None or commit_ts is None or not self._is_unread(commit_ts)

    def _suspects(self, starts: Sequence[int]) -> Iterator[VerifyFinding]:
        log_is_whole = self._is_unread is None
        for key, found in self._walk.states.items():
            due = self._states.get(key)
            if not log_is_whole:
                yield row_finding(
                    FindingKind.ROW_WRONG, key, found, "the state is not that of its newest version", starts
                )
            elif found != due:
                yield judged(key, found, due, starts)
        for prefix, packed in self._walk.counters.items():
            recount = self._counters[prefix]
            key = keys.meta_key(prefix)
            if recount.lacks_ancestors:
                continue  # of a row that is wrong has been told, and this agent's may be right
            if not log_is_whole or not recount.counts_live_keys:
                message = "the counters, or the counts in its events, do not count the agent's rows"
                yield row_finding(FindingKind.ROW_WRONG, key, None, message, starts)
            elif packed != (due := recount.counters.pack() if recount.counters.commits else None):
                yield judged(key, packed, due, starts)
        yield from self._miscounts
        walk = self._walk
        listed = len(walk.states) + len(walk.counters) + len(walk.gaps) + len(walk.foreign)
        if more := walk.suspects - listed + self._more_miscounts:
            message = f"{more} more rows that do not fit others are not named"
            yield VerifyFinding(kind=FindingKind.ROWS_NOT_NAMED, message=message, remedy=VIEW_REMEDY, file="state")
