"""Whether reads that were made beside the commits show what stood at one moment, and not an earlier one than they may.

A read is right if there is a moment `ts` in the order of commits, `ts` >= its floor, at which every key that it found
stood as it was found, and no other key that it would have shown did. Of a key, each version stands from its commit_ts
to just before that of the next: the moments of a read are the intersection of those spans. The earliest of them is what
the read proves to have happened: it is the least floor of every call that was sent after the read had ended.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from histories.agents_judged import Lives, name_of
from histories.lasting import Look, expired, states_of
from histories.lineages import Refused
from histories.past import Past
from histories.submissions import AnyRead, Found, Listed, Read, Replayed, VersionRead
from statehouse import ReplayEvent, StateResult
from statehouse.types import AgentId

__all__ = ["ReadJudge", "Timeline", "name_of", "shown"]

NEVER_WRITTEN: Final = StateResult(None, 0, 0, exists=False)
END_OF_TIME: Final = 1 << 64


class WrongReadError(Exception):
    """What is wrong with a read."""


class Timeline:
    """The versions of a run, behind the state before it: of each key, in order."""

    def __init__(self, before: Mapping[AgentId, Mapping[str, StateResult]]) -> None:
        self._before = before
        self._standing: dict[AgentId, dict[str, list[StateResult]]] = defaultdict(dict)
        self._numbered: dict[AgentId, dict[str, list[StateResult]]] = defaultdict(dict)

    def add(self, agent: AgentId, key: str, newest: StateResult) -> None:
        """A version of this run; called in order, and before the state before it is forgotten."""
        standing = self._standing[agent].get(key)
        if standing is None:
            before = self._before.get(agent, {}).get(key, NEVER_WRITTEN)
            standing = self._standing[agent][key] = [before]
            self._numbered[agent][key] = [before]
        if standing[-1].commit_ts == newest.commit_ts:
            standing.pop()  # written twice in one transaction: nobody ever sees the first, but by its number
        standing.append(newest)
        self._numbered[agent][key].append(newest)

    def standing(self, agent: AgentId, key: str) -> Sequence[StateResult]:
        """What commits left standing, from just before the run on; at least one."""
        standing = self._standing[agent].get(key)
        return [self._before.get(agent, {}).get(key, NEVER_WRITTEN)] if standing is None else standing

    def numbered(self, agent: AgentId, key: str) -> Sequence[StateResult]:
        """Every version of the run, behind the newest before it, which is version 0 for a new key."""
        numbered = self._numbered[agent].get(key)
        return [self._before.get(agent, {}).get(key, NEVER_WRITTEN)] if numbered is None else numbered

    def live_at(self, agent: AgentId, commit_ts: int) -> int:
        """How many keys had a value at a commit."""
        live = 0
        for key in self.keys(agent):
            standing = self.standing(agent, key)
            live += standing[max(bisect_right(standing, commit_ts, key=_commit_ts) - 1, 0)].exists
        return live

    def keys(self, agent: AgentId) -> Iterable[str]:
        """Every key that was ever written."""
        return self._before.get(agent, {}).keys()


class ReadJudge:
    """Judges the reads of a run, once all its commits are in the timeline and in the history, which `past` precedes."""

    def __init__(self, timeline: Timeline, lives: Lives) -> None:
        self._timeline = timeline
        self._lives = lives
        self._history: Mapping[AgentId, Sequence[ReplayEvent]] = lives.history
        self._past: Past = lives.past
        self._proved = [0]
        self.hidden = 0
        """How often something was shown as absent, or left out, because it had expired."""

    def proved(self, reads: int) -> int:
        """The commit_ts that the first so many reads prove to have been reached when they had ended."""
        return self._proved[min(reads, len(self._proved) - 1)]

    def judge(self, reads: Iterable[AnyRead]) -> Iterator[str]:
        """What is wrong with them; in the order in which they ended."""
        proved = self._proved
        for read in reads:
            floor_ts = max(read.floor_ts, proved[min(read.after, len(proved) - 1)])
            try:
                moment = self._moment(read, floor_ts)
            except WrongReadError as error:
                moment = 0
                yield f"{name_of(read.agent)}: {error}"
            proved.append(max(proved[-1], moment))

    def _moment(self, read: AnyRead, floor_ts: int) -> int:
        """The earliest moment that a read can be of, at or after its floor. WrongReadError."""
        if isinstance(read, Refused):
            found = self._lives.wrong_refusal(read, floor_ts)
            if isinstance(found, str):
                raise WrongReadError(found)
            return found
        origin = self._lives.origins.get(read.agent)
        if origin is not None and floor_ts < origin.commit_ts:  # it has its past from one moment to the next
            if _shows_nothing(read):
                return floor_ts
            floor_ts = origin.commit_ts
        if isinstance(read, Read):
            return self._moment_of_read(read, floor_ts)
        if isinstance(read, Listed):
            return self._moment_of_list(read, floor_ts)
        if isinstance(read, VersionRead):
            return self._moment_of_version(read, floor_ts)
        if isinstance(read, Found):
            return self._moment_of_found(read, floor_ts)
        return self._moment_of_replay(read, floor_ts)

    def _moment_of_read(self, read: Read, floor_ts: int) -> int:
        first_ts, last_ts = floor_ts, END_OF_TIME
        if read.at_ts is not None:
            first_ts = last_ts = read.at_ts
        clock_ns = (read.began_ns, read.ended_ns) if read.at_ts is None else (0, 0)
        look = Look.of(*clock_ns, read.found.values())
        for key, found in read.found.items():
            standing = self._timeline.standing(read.agent, key)
            at = bisect_left(standing, found.commit_ts, key=_commit_ts)
            if at == len(standing) or (standing[at] != found and expired(standing[at]) != found):
                raise WrongReadError(f"a read of key {key!r} showed {shown(found)}, which no commit left standing")
            self._look_at(look, key, standing[at], shows=found.exists)
            next_ts = standing[at + 1].commit_ts if at + 1 < len(standing) else END_OF_TIME
            if read.at_ts is not None:
                if not found.commit_ts <= read.at_ts < next_ts:
                    raise WrongReadError(
                        f"a read as of commit_ts {read.at_ts} showed key {key!r} as of {found.commit_ts}; it stood "
                        f"until {next_ts}"
                    )
                continue
            if next_ts <= floor_ts:
                raise WrongReadError(
                    f"a stale read: key {key!r} was shown as of commit_ts {found.commit_ts}, when {floor_ts} had been "
                    f"told or shown, and {next_ts} had changed it"
                )
            first_ts, last_ts = max(first_ts, found.commit_ts), min(last_ts, next_ts - 1)
        if first_ts > last_ts:
            raise WrongReadError(f"a scan saw part of a transaction: it showed commit_ts {first_ts}, not {last_ts + 1}")
        if read.prefix is None:
            return first_ts
        wanted = {key: False for key in self._timeline.keys(read.agent) if key.startswith(read.prefix)}
        for key in read.found:
            wanted.pop(key, None)
        return self._moment_when(read.agent, wanted, first_ts, last_ts, look)

    def _look_at(self, look: Look, key: str, state: StateResult, *, shows: bool) -> None:
        """WrongReadError when it was the wrong time to show a value, or not to."""
        if not state.exists:
            return
        if shows and not look.may_show(state):
            raise WrongReadError(f"key {key!r} was shown, {shown(state)}, when it had expired")
        if not shows:
            if not look.may_hide(state):
                raise WrongReadError(f"key {key!r} was shown as absent, {shown(state)}, when it had not expired")
            self.hidden += 1

    def _moment_of_found(self, read: Found, floor_ts: int) -> int:
        """What a conflict told: it stood at some moment that is not before the floor, and was not what was wanted."""
        checked = read.checked
        if checked.of == "lease":
            return floor_ts
        if checked.of == "event":
            if read.event_ts == checked.wanted:
                raise WrongReadError(f"a conflict over the event that was wanted, {checked.wanted}")
            events = self._history.get(read.agent, [])
            at = bisect_left(events, read.event_ts, key=_event_ts)
            old = self._past.newest(read.agent)
            if read.event_ts > old and (at == len(events) or events[at].commit_ts != read.event_ts):
                raise WrongReadError(f"a conflict told of an event at commit_ts {read.event_ts}, which there is not")
            next_at = at + 1 if read.event_ts > old else 0
            if next_at < len(events) and events[next_at].commit_ts <= floor_ts:
                raise WrongReadError(
                    f"a stale conflict: it told of an event at {read.event_ts}, and {floor_ts} was told"
                )
            return max(floor_ts, read.event_ts)
        if checked.wanted == (read.version if checked.of == "version" else read.exists):
            raise WrongReadError(f"a conflict over what was wanted of key {checked.key!r}: {checked.wanted}")
        told = f"a conflict told of key {checked.key!r} v{read.version}"
        standing = self._timeline.standing(read.agent, checked.key)
        at = bisect_left(standing, read.version, key=_version)
        told_of = None if at == len(standing) else standing[at]
        if told_of is None or (read.version, read.exists) not in {(told_of.version, told_of.exists), _gone(told_of)}:
            raise WrongReadError(
                f"a conflict told of key {checked.key!r} v{read.version}, which no commit left standing"
            )
        self._look_at(Look.of(read.began_ns, read.ended_ns), checked.key, told_of, shows=read.exists)
        if at + 1 < len(standing) and standing[at + 1].commit_ts <= floor_ts:
            raise WrongReadError(f"stale: {told}, when {floor_ts} had been told or shown")
        return max(floor_ts, told_of.commit_ts)

    def _moment_of_list(self, read: Listed, floor_ts: int) -> int:
        wanted = dict.fromkeys(self._timeline.keys(read.agent), False)
        for key in read.keys:
            if key not in wanted:
                raise WrongReadError(f"a list has key {key!r}, which nobody wrote")
            wanted[key] = True
        if len(set(read.keys)) < len(read.keys):
            raise WrongReadError("a list has a key twice")
        return self._moment_when(read.agent, wanted, floor_ts, END_OF_TIME, Look.of(read.began_ns, read.ended_ns))

    def _moment_when(self, agent: AgentId, wanted: Mapping[str, bool], first_ts: int, last_ts: int, look: Look) -> int:
        """The earliest moment from `first_ts` to `last_ts` at which these keys show, or do not, as is wanted."""
        moment, settled, hides = first_ts, False, False
        while not settled:
            settled = True
            for key, exists in wanted.items():
                standing = self._timeline.standing(agent, key)
                at = max(bisect_right(standing, moment, key=_commit_ts) - 1, 0)
                while at < len(standing) and not _may_be(look, standing[at], shows=exists):
                    at += 1
                if at == len(standing) or standing[at].commit_ts > last_ts:
                    what = (
                        f"shows key {key!r}, which stood at no"
                        if exists
                        else f"left out key {key!r}, which stood at any"
                    )
                    raise WrongReadError(f"a scan or list {what} moment that it can be of, which is {moment} or later")
                if standing[at].commit_ts > moment:
                    moment, settled = standing[at].commit_ts, False
                hides |= standing[at].exists and not exists
        self.hidden += hides
        return moment

    def _moment_of_version(self, read: VersionRead, floor_ts: int) -> int:
        numbered = self._timeline.numbered(read.agent, read.key)
        at = read.version - numbered[0].version
        if at >= len(numbered):
            if read.found != NEVER_WRITTEN:
                raise WrongReadError(f"key {read.key!r} at version {read.version}: no commit gave it such a version")
            return floor_ts
        if at < 0:
            if not self._was(read):
                raise WrongReadError(
                    f"key {read.key!r} at version {read.version} showed {shown(read.found)}, which it was not"
                )
            return floor_ts
        if read.found == numbered[at]:
            return max(floor_ts, read.found.commit_ts)
        if read.found != NEVER_WRITTEN:
            raise WrongReadError(
                f"key {read.key!r} at version {read.version} showed {shown(read.found)}, not {shown(numbered[at])}"
            )
        if numbered[at].commit_ts <= floor_ts:
            raise WrongReadError(
                f"a stale read: key {read.key!r} had no version {read.version} when {floor_ts} had been told or shown, "
                f"and {numbered[at].commit_ts} had written it"
            )
        return floor_ts

    def _was(self, read: VersionRead) -> bool:
        """Whether a version of an earlier run was what is found now."""
        if read.version <= self._past.versions(read.agent, read.key):
            return self._past.had(read.agent, read.key, read.version, read.found)
        for event in self._history.get(read.agent, ()):
            for key, state in states_of(event):
                if (key, state.version) == (read.key, read.version):
                    return read.found == state
        return False

    def _moment_of_replay(self, read: Replayed, floor_ts: int) -> int:
        past = self._past.events(read.agent).between(read.first_ts, read.last_ts)
        old = len(past.commit_ts)
        events = self._history.get(read.agent, [])
        start = bisect_left(events, read.first_ts, key=_event_ts)
        stop = len(events) if read.last_ts is None else bisect_right(events, read.last_ts, key=_event_ts)
        recent = read.events[old:]
        due_now = events[start:stop]
        if any((event.namespace, event.agent_id) != read.agent for event in read.events):
            raise WrongReadError("a replay showed events of another agent")
        if not past.begin_with(read.events[:old]) or list(recent) != list(due_now[: len(recent)]):
            raise WrongReadError(
                f"a replay from {read.first_ts} to {read.last_ts} showed events that are not those of the history"
            )
        missing = [*past.commit_ts[len(read.events) :], *map(_event_ts, due_now[len(recent) : len(recent) + 1])]
        if missing and missing[0] <= floor_ts:
            raise WrongReadError(
                f"a stale replay: it ended before commit_ts {missing[0]}, when {floor_ts} had been told or shown"
            )
        return max(floor_ts, read.events[-1].commit_ts) if read.events else floor_ts


def _shows_nothing(read: AnyRead) -> bool:
    """Whether a read is of an agent that nobody had written to."""
    match read:
        case Read():
            return all(state == NEVER_WRITTEN for state in read.found.values())
        case Listed():
            return not read.keys
        case VersionRead():
            return read.found == NEVER_WRITTEN
        case Replayed():
            return not read.events
        case Found(checked=checked):
            return not (read.version or read.exists or read.event_ts) and (checked.of == "lease" or checked.wanted != 0)
    return False


def shown(state: StateResult | None) -> str:
    """A state, as violations describe it."""
    if state is None:
        return "nothing"
    lasts = f", until {state.expires_at}" if state.expires_at else ""
    return f"v{state.version} at commit_ts {state.commit_ts}{lasts if state.exists else ', deleted'}"


def _gone(state: StateResult) -> tuple[int, bool]:
    """As a conflict tells of it once it has expired, if it ever does."""
    return state.version, state.exists and state.expires_at is None


def _may_be(look: Look, state: StateResult, *, shows: bool) -> bool:
    """Whether a key that stood so may have been shown, or left out."""
    return look.may_show(state) if state.exists and shows else not shows and (not state.exists or look.may_hide(state))


def _version(state: StateResult) -> int:
    return state.version


def _commit_ts(state: StateResult) -> int:
    return state.commit_ts


def _event_ts(event: ReplayEvent) -> int:
    return event.commit_ts
