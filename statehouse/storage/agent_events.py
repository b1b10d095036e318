"""An agent's events: some of them in order, and the one that a time comes to.

A fork's are those that it inherits, which ascend from the deepest level up, and then its own. The sections of the
inherited ones name the ancestor, so the fork's names are put in the place of those: whoever may read the fork need not
be allowed to know what it was forked from. Times are searched for: commits are never dated before the one they follow.

Everything here is a function of a view as in `past`.
"""

from collections.abc import Generator
from contextlib import closing
from itertools import takewhile

from attrs import frozen

from statehouse.limits import READ_CHUNK_BYTES, READ_CHUNK_EVENTS
from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters
from statehouse.storage.lineage import Level, LevelsOf, levels_of, newest_event
from statehouse.storage.section import agent_fields
from statehouse.storage.section_fields import committed_at_ns, renamed
from statehouse.storage.stored_value import ReadMany, section_reads
from statehouse.storage.view import Reader, Row, ViewDamagedError
from statehouse.storage.wire import WireError
from statehouse.types import AgentId

__all__ = ["EventChunk", "events", "no_section", "ts_at_time"]


@frozen
class EventChunk:
    """Some of an agent's events, and where to go on: the next commit_ts to ask for, or None at the end."""

    events: list[bytes]
    next_ts: int | None


def events(view: Reader, read_many: ReadMany, agent: AgentId, first_ts: int, last_ts: int) -> EventChunk:
    """Encoded ReplayEvents with commit_ts from `first_ts` to `last_ts`: about READ_CHUNK_BYTES of them."""
    wanted: list[Row] = []
    inherited = 0
    size_bytes = 0
    is_cut = False
    with closing(_upward(view, agent, first_ts, last_ts)) as rows:
        for row, is_inherited in rows:
            wanted.append(row)
            inherited += is_inherited
            size_bytes += int.from_bytes(row[1][4:8], "big")
            is_cut = len(wanted) >= READ_CHUNK_EVENTS or size_bytes >= READ_CHUNK_BYTES
            if is_cut:
                break
    places = section_reads(wanted)
    found = read_many(places)
    if inherited:
        found[:inherited] = _renamed(found[:inherited], agent)
    return EventChunk(found, places[-1][0] + 1 if is_cut else None)


def _upward(view: Reader, agent: AgentId, first_ts: int, last_ts: int) -> Generator[tuple[Row, bool], None, None]:
    """The rows of the events, and whether each is inherited. Close it, for it holds a scan."""
    prefix = keys.agent_prefix(agent)
    # Begun before it is asked whether the agent is a fork: if it becomes one meanwhile, this shows nothing of it yet.
    with closing(view.scan(*keys.event_range(prefix, first_ts, last_ts))) as own:
        for ancestor, until_ts in reversed(_inherited(view, agent, prefix, first_ts)):
            with closing(view.scan(*keys.event_range(ancestor, first_ts, min(last_ts, until_ts)))) as rows:
                for row in rows:
                    yield row, True
        for row in own:
            yield row, False


def _inherited(view: Reader, agent: AgentId, prefix: bytes, first_ts: int) -> list[Level]:
    """The levels besides the agent's own that may have events from `first_ts` on."""
    levels = iter(LevelsOf(view, agent, prefix))
    next(levels)
    return list(takewhile(lambda level: level.until_ts >= first_ts, levels))


def ts_at_time(view: Reader, read_many: ReadMany, agent: AgentId, time_ns: int, head_ts: int) -> int:
    """The last event of the agent, up to `head_ts`, that was committed at or before the time; 0: there is none."""
    prefix = keys.agent_prefix(agent)
    counters = AgentCounters.unpack(view.get(keys.meta_key(prefix)))
    levels = levels_of(view, agent, prefix)
    found = 0
    first_ts, last_ts = counters.first_commit_ts, min(counters.last_commit_ts, head_ts)
    # What is not decided yet is from `first_ts` to `last_ts`; all before it counts, the last of it being `found`.
    while first_ts <= last_ts:
        middle = (first_ts + last_ts) // 2
        newest = newest_event(view, levels, first_ts, middle)
        if newest is None:
            first_ts = middle + 1
            continue
        place = section_reads([newest])[0]
        if _committed_at_ns(read_many([place])[0]) <= time_ns:
            found, first_ts = place[0], middle + 1
        else:
            last_ts = place[0] - 1
    return found


def _renamed(sections: list[bytes], agent: AgentId) -> list[bytes]:
    names = agent_fields(agent)
    try:
        return [renamed(section, names) for section in sections]
    except WireError as error:
        raise no_section(error) from error


def _committed_at_ns(section: bytes) -> int:
    try:
        return committed_at_ns(section)
    except WireError as error:
        raise no_section(error) from error


def no_section(error: WireError) -> ViewDamagedError:
    """What bytes come to that an event's row points at and that are none."""
    return ViewDamagedError(f"a row of an event column points at what is no section: {error}")
