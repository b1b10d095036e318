"""What has expired and is not deleted yet: how it is found, for whoever deletes it (`actors/sweeping.py`).

The rows of what expires (`expiry_keys.py`) are gone through in the order of time. A value that expired is to be deleted
where it is still the newest of its key: in its own agent, and in the forks that have inherited it, and theirs. A fork
that is made later, of a point before the value was deleted, has inherited it too. For that a fork leaves a row of its
own, at the time at which it was made: when it is come to, the fork is asked for all that had expired by then.

How far all was deleted is noted in commits, so of what is in force at a point, what expired up to the last note before
that point is a tombstone, and a fork of that point need not be asked for it.

Everything here is a function of a view that raises what the view does; nothing is changed. What is given may have been
replaced or deleted since: the agent's partition decides.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final, NamedTuple, TypeAlias

from statehouse.limits import SWEEP_KEYS
from statehouse.storage import keys
from statehouse.storage.expiry_keys import (
    agent_expiry_range,
    expiry_range,
    swept_range,
    unpack_agent_expiry_key,
    unpack_expiry_key,
)
from statehouse.storage.lineage import NO_END, Levels, children, levels_of
from statehouse.storage.note_rows import read_commit_row, read_swept_row
from statehouse.storage.past import stored_at
from statehouse.storage.stored_value import expiry_of, version_of
from statehouse.storage.view import Reader, Row, newest_row
from statehouse.types import AgentId

__all__ = ["Expired", "SweepStep", "Swept", "next_expiry", "sweep", "swept_until"]

_CHILDREN: Final = 64
"""Forks of an agent that are looked at in one step."""


class Expired(NamedTuple):
    """Values of one agent that have expired, and are the newest of their keys: (key, version), at most SWEEP_KEYS."""

    agent: AgentId
    values: Sequence[tuple[bytes, int]]


class Swept(NamedTuple):
    """What expired up to this time was given before; `rows` were gone through for that since the last such step."""

    until_ns: int
    rows: int


SweepStep: TypeAlias = Expired | Swept | None
"""None: nothing was found in a few rows."""


class _Value(NamedTuple):
    key: bytes
    version: int
    commit_ts: int


def swept_until(view: Reader, at_ts: int = NO_END) -> int:
    """Up to which time all that expired had been deleted, by what was noted up to a commit; 0: nothing was."""
    newest = newest_row(view, *swept_range(at_ts))
    return 0 if newest is None else read_swept_row(newest[1])


def next_expiry(view: Reader, after_ns: int) -> int | None:
    """The first time after that one at which something expires, or expired, or is to be looked at; None: there is none.

    Also of what was replaced or deleted since.
    """
    rows = _some(view, expiry_range(after_ns + 1, NO_END), 1)
    return unpack_expiry_key(rows[0][0]).at_ns if rows else None


def sweep(view: Reader, after_ns: int, until_ns: int) -> Iterator[SweepStep]:
    """What expired after one time and up to another, in steps of a few milliseconds; the last is the `Swept` of it all.

    Everything that was committed before `until_ns` is in the view.
    """
    start, stop = expiry_range(after_ns + 1, until_ns)
    while rows := _some(view, keys.KeyRange(start, stop), SWEEP_KEYS):
        values: dict[bytes, list[_Value]] = {}
        forks: list[tuple[bytes, int]] = []
        for packed, stored in rows:
            at_ns, prefix, key, version = unpack_expiry_key(packed)
            if key is None:
                forks.append((prefix, at_ns))
            else:
                values.setdefault(prefix, []).append(_Value(key, version, read_commit_row(stored)))
        for prefix, expired in values.items():
            yield from _family(view, keys.unpack_agent(prefix), expired)
        for prefix, at_ns in forks:
            # failpoint: sweep.new_fork
            yield from _inherited(view, keys.unpack_agent(prefix), prefix, at_ns)
        last_key = rows[-1][0]
        if len(rows) < SWEEP_KEYS:
            break
        yield Swept(unpack_expiry_key(last_key).at_ns - 1, len(rows))
        start = last_key + b"\x00"
    yield Swept(until_ns, len(rows))


def _family(view: Reader, agent: AgentId, values: Sequence[_Value]) -> Iterator[SweepStep]:
    """What an agent and the forks that have inherited it are to delete of these values."""
    yield _expired(view, agent, levels_of(view, agent, keys.agent_prefix(agent)), values)
    oldest_ts = min(value.commit_ts for value in values)
    before_ts = NO_END
    while forks := children(view, agent, _CHILDREN, before_ts):
        for child, at_ts, _ in forks:
            inherited = [value for value in values if value.commit_ts <= at_ts]
            if inherited:
                # failpoint: sweep.inherited
                yield from _family(view, child, inherited)
        before_ts = forks[-1].commit_ts
        if before_ts < oldest_ts:  # those that were made before have none of it, and may be many
            return
        yield None


def _inherited(view: Reader, fork: AgentId, prefix: bytes, at_ns: int) -> Iterator[SweepStep]:
    """What a fork is to delete of what it has inherited and had expired by then."""
    levels = levels_of(view, fork, prefix)
    for level in levels[1:]:
        start, stop = agent_expiry_range(level.prefix, swept_until(view, level.until_ts) + 1, at_ns)
        while rows := _some(view, keys.KeyRange(start, stop), SWEEP_KEYS):
            yield _expired(view, fork, levels, _values(level.prefix, rows, level.until_ts))
            start = rows[-1][0] + b"\x00"


def _values(prefix: bytes, rows: Iterable[Row], until_ts: int) -> Iterator[_Value]:
    for packed, stored in rows:
        _, key, version = unpack_agent_expiry_key(prefix, packed)
        commit_ts = read_commit_row(stored)
        if commit_ts <= until_ts:
            yield _Value(key, version, commit_ts)


def _expired(view: Reader, agent: AgentId, levels: Levels, values: Iterable[_Value]) -> Expired | None:
    """Those of the values that are the newest of their keys in the agent; None: there are none."""
    found: list[tuple[bytes, int]] = []
    for key, version, _ in values:
        newest = stored_at(view, levels, key)
        if newest is not None and expiry_of(newest) and version_of(newest) == version:
            found.append((key, version))
    return Expired(agent, found) if found else None


def _some(view: Reader, rows: keys.KeyRange, limit: int) -> list[Row]:
    found: list[Row] = []
    with closing(view.scan(*rows)) as following:
        for row in following:
            found.append(row)
            if len(found) == limit:
                break
    return found
