"""Judges where agents come from, and their ends: what was told of forks and ends against what the store shows.

A fork is judged by really copying: the oracle gives the new agent its parent's events up to the point, under the new
name, and from then on it is an agent like any other (`Copies`). What a client does not know is found out by what is
seen: a fork by the lineage of its agent, an end by its event. Only an end that had nothing to delete leaves nothing to
see; nobody knows its commit_ts until somebody is told, and it may have taken one that is missing.
"""

from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import define, evolve, field

from histories import lineages
from histories.lineages import Described, Forking, Lineage, Origin, Refused
from histories.past import Past
from histories.submissions import Outcome, Replayed, Submission
from statehouse import ReplayEvent, StateResult
from statehouse.limits import FORK_DEPTH
from statehouse.types import AgentId

__all__ = ["Lives", "name_of", "renamed", "split"]


@define
class Lives:
    """Where each agent came from, and when it ended. `history` and `past` are the oracle's own, and go on with it."""

    history: Mapping[AgentId, Sequence[ReplayEvent]]
    past: Past
    origins: dict[AgentId, Origin] = field(factory=dict)
    """The parent, the point and the fork's commit_ts of each fork."""
    ends: dict[AgentId, list[int]] = field(factory=lambda: defaultdict(list))
    """The commit_ts of each end that is known, ascending."""
    unknown_ends: Counter[AgentId] = field(factory=Counter)
    """Ends without an answer and without an event: they may have happened."""

    # What is there

    def first_ts(self, agent: AgentId) -> int | None:
        """The commit_ts of its first event, as it has it."""
        times = self.past.events(agent).commit_ts
        events = self.history.get(agent, ())
        return times[0] if times else events[0].commit_ts if events else None

    def newest_ts(self, agent: AgentId, until_ts: int | None = None) -> int:
        """The commit_ts of its newest event, up to a moment; 0: there is none."""
        events = self.history.get(agent, ())
        at = len(events) if until_ts is None else bisect_right(events, until_ts, key=_event_ts)
        if at:
            return events[at - 1].commit_ts
        return self.past.newest(agent) if until_ts is None else self.past.newest_until(agent, until_ts)

    def next_ts(self, agent: AgentId, after_ts: int) -> int | None:
        """The commit_ts of its first event after a moment."""
        events = self.history.get(agent, ())
        at = bisect_right(events, after_ts, key=_event_ts)
        return events[at].commit_ts if at < len(events) else None

    def known_from(self, agent: AgentId) -> int | None:
        """The moment from which somebody has the name: that of a fork, or of the first commit."""
        origin = self.origins.get(agent)
        return self.first_ts(agent) if origin is None else origin.commit_ts

    def ended_ts(self, agent: AgentId, before_ts: int) -> int:
        """The end after which nothing was written to it until just before a commit; 0: it lives."""
        ends = self.ends.get(agent, ())
        at = bisect_right(ends, before_ts - 1)
        return ends[at - 1] if at and ends[at - 1] >= self.newest_ts(agent, before_ts - 1) else 0

    def ancestors(self, agent: AgentId) -> tuple[Origin, ...]:
        """The steps up to an agent that is no fork."""
        steps: list[Origin] = []
        while (origin := self.origins.get(agent)) is not None and len(steps) <= FORK_DEPTH:
            steps.append(origin)
            agent = origin.agent
        return tuple(steps)

    # Forks

    def forked(self, told: Mapping[AgentId, Lineage]) -> list[tuple[AgentId, Origin]]:
        """The forks that the store shows and that were not known, in the order of their commits."""
        new = [
            (agent, lineage.ancestors[0])
            for agent, lineage in told.items()
            if lineage.ancestors and agent not in self.origins
        ]
        return sorted(new, key=lambda each: each[1].commit_ts)

    def wrong_forks(self, forks: Iterable[Forking], proved: Callable[[int], int], before_ts: int) -> Iterator[str]:
        """What was told of each fork, or asked for, against those that there are. `proved` is the ReadJudge's."""
        explained: set[AgentId] = set()
        for fork in forks:
            origin, name = self.origins.get(fork.agent), name_of(fork.agent)
            if fork.answered and origin != Origin(fork.parent, fork.at_ts, fork.commit_ts):
                yield f"{name}: the fork of {name_of(fork.parent)} at commit_ts {fork.commit_ts} is lost"
            if fork.answered and fork.depth != (depth := len(self.ancestors(fork.agent))):
                yield f"{name}: its depth was told to be {fork.depth}, and is {depth}"
            if origin is None or fork.refused:
                continue
            floor_ts = max(fork.floor_ts, proved(fork.after))
            if _may_be(fork, origin, floor_ts):
                explained.add(fork.agent)
            elif fork.answered:
                yield (
                    f"{name} was forked at commit_ts {origin.commit_ts}, point {origin.at_ts}, when {floor_ts} had "
                    f"been told or shown, and point {fork.asked_ts} was asked for"
                )
        for agent, origin in self.origins.items():
            if origin.commit_ts > before_ts and agent not in explained:
                yield f"{name_of(agent)} is a fork of {name_of(origin.agent)}, and nobody forked it so"

    def wrong_lineages(self, told: Mapping[AgentId, Lineage]) -> Iterator[str]:
        """What the store says of where agents come from, and what came of them, against all forks."""
        children: dict[AgentId, list[Origin]] = defaultdict(list)
        for agent, origin in self.origins.items():
            children[origin.agent].append(evolve(origin, agent=agent))
        for agent, lineage in told.items():
            if lineage.ancestors != (steps := self.ancestors(agent)):
                yield f"{name_of(agent)}: its ancestors are {lineage.ancestors}, and were {steps}"
            forks = tuple(sorted(children[agent], key=lambda each: -each.commit_ts))
            if lineage.forks != forks:
                yield f"{name_of(agent)}: its forks are {lineage.forks}, and were {forks}"

    def wrong_descriptions(
        self, described: Mapping[AgentId, Described | None], states: Mapping[AgentId, Mapping[str, StateResult]]
    ) -> Iterator[str]:
        """What the list of agents says against the events and states that each has."""
        for agent, found in described.items():
            standing = states.get(agent, {}).values()
            first_ts, last_ts = self.first_ts(agent), self.newest_ts(agent)
            if first_ts is None:
                if found is not None:
                    yield f"{name_of(agent)}: it is listed, and nobody wrote to it"
                continue
            deleted = bool(self.ended_ts(agent, 1 << 64))
            if found is not None and found.deleted and self.unknown_ends[agent]:
                deleted = True
            expected = Described(
                commits=len(self.past.events(agent).commit_ts) + len(self.history.get(agent, ())),
                operations=sum(state.version for state in standing),
                live_keys=sum(state.exists for state in standing),
                first_ts=first_ts,
                last_ts=last_ts,
                deleted=deleted,
                origin=self.origins.get(agent),
            )
            if found != expected:
                yield f"{name_of(agent)}: it is listed as {found}, and its events give {expected}"

    # Ends

    def learn_ends(
        self, submissions: Iterable[Submission], reads: Iterable[object], placed: Mapping[str, int], before_ts: int
    ) -> None:
        """Every commit_ts at which an agent is known to have ended, by an answer, a refusal or an event.

        What was refused for one of several agents does not say of which.
        """
        told: list[tuple[AgentId, int | None]] = []
        for submission in submissions:
            if submission.ends is not None:
                if submission.outcome is Outcome.UNKNOWN and submission.txn_id not in placed:
                    self.unknown_ends[submission.ends] += 1
                told += [(submission.ends, placed.get(submission.txn_id)), (submission.ends, submission.commit_ts)]
        for read in reads:
            if isinstance(read, Refused) and read.why == lineages.DELETED and not read.others:
                told.append((read.agent, read.at_ts))
        for agent, commit_ts in told:
            if commit_ts and commit_ts not in self.ends[agent] and (commit_ts > before_ts or self.unknown_ends[agent]):
                insort(self.ends[agent], commit_ts)

    def wrong_ends(
        self,
        submissions: Iterable[Submission],
        placed: Mapping[str, int],
        taken: dict[int, str],
        before_ts: int,
        live_at: Callable[[AgentId, int], int],
    ) -> Iterator[str]:
        """What was told of ends, against events and states; `live_at` counts an agent's live keys at a commit.

        Those without an event take their place in `taken` here.
        """
        ends = [(one, one.ends) for one in submissions if one.ends is not None]
        with_event = {placed[one.txn_id] for one, _ in ends if one.txn_id in placed}
        silent = [(one, agent) for one, agent in ends if one.txn_id not in placed]
        for agent, times in self.ends.items():
            floors = [
                (one.floor_ts, one.commit_ts)
                for one, ended in silent
                if ended == agent and one.outcome is not Outcome.NEVER
            ]
            for commit_ts in times:
                if commit_ts <= before_ts or commit_ts in with_event:
                    continue
                name = f"the end of {name_of(agent)} at commit_ts {commit_ts}"
                if not any(floor_ts < commit_ts and told_ts in {None, commit_ts} for floor_ts, told_ts in floors):
                    yield f"{name}: nobody ended it then"
                if commit_ts in taken:
                    yield f"commit_ts {commit_ts} is used twice, the second time by {name}"
                taken.setdefault(commit_ts, name)
                if earlier_ts := self.ended_ts(agent, commit_ts):
                    yield f"{name}: it had ended before, at {earlier_ts}"
                if (known_ts := self.known_from(agent)) is None or known_ts > commit_ts:
                    yield f"{name}: nobody had written to it"
                if live := live_at(agent, commit_ts):
                    yield f"{name}: it has no event, and {live} keys had a value"
        for one, agent in silent:
            if one.outcome is Outcome.ACKNOWLEDGED:
                yield from self._answered_without_event(one, agent, before_ts)

    def _answered_without_event(self, one: Submission, agent: AgentId, before_ts: int) -> Iterator[str]:
        told_ts = one.commit_ts or 0
        name = f"the end of {name_of(agent)} at commit_ts {told_ts}"
        if one.deleted_keys:
            yield f"{name} deleted {one.deleted_keys} keys, and has no event"
        if told_ts <= before_ts and told_ts not in self.ends[agent] and not self.unknown_ends[agent]:
            yield f"{name}: there was none"
        next_ts = self.next_ts(agent, told_ts)
        if next_ts is not None and next_ts <= one.floor_ts:
            yield f"{name} was told when {one.floor_ts} had been told, and {next_ts} had brought it back"

    def written_when_ended(self, submissions: Iterable[Submission], placed: Mapping[str, int]) -> Iterator[str]:
        """Commits to agents that had ended, which did not say that they know it."""
        for submission in submissions:
            commit_ts = placed.get(submission.txn_id)
            if commit_ts is None or submission.revive:
                continue
            checked = {check.agent for check in submission.checks}
            for agent in {staged.agent for staged in submission.operations} - checked:
                if ended_ts := self.ended_ts(agent, commit_ts):
                    yield (
                        f"{submission.txn_id} at commit_ts {commit_ts} has written to {name_of(agent)}, which ended at "
                        f"{ended_ts}, and did not say that it is to live again"
                    )

    # Refusals

    def wrong_refusal(self, read: Refused, floor_ts: int) -> str | int:
        """What is wrong with a refusal, or the earliest moment that it can be of."""
        known_ts = self.known_from(read.agent)
        match read.why:
            case lineages.TAKEN:
                if known_ts is None:
                    return "a fork was refused because its name is taken, and nobody has it"
                return max(floor_ts, known_ts)
            case lineages.UNKNOWN:
                if known_ts is not None and known_ts <= floor_ts:
                    return (
                        f"it is called unknown when {floor_ts} had been told or shown, and it was there at {known_ts}"
                    )
                return floor_ts
            case lineages.NOTHING_THEN:
                first_ts = self.first_ts(read.agent)
                if first_ts is None or known_ts is None:
                    return f"a fork at commit_ts {read.at_ts} was refused, and nobody ever wrote to it"
                if first_ts <= read.at_ts and len(self.ancestors(read.agent)) < FORK_DEPTH:
                    return f"a fork at commit_ts {read.at_ts} was refused, and it had been written to at {first_ts}"
                return max(floor_ts, known_ts)
            case lineages.REVIVED:
                return "a commit was refused because it had ended, and had said that it is to live again"
            case lineages.GAP:
                origin = self.origins.get(read.agent)
                if origin is None or self.newest_ts(read.agent, origin.at_ts) < read.at_ts:
                    return f"a watch from {read.at_ts} on ended for what it had missed, and it had missed nothing"
                return max(floor_ts, origin.commit_ts)
        agents = (read.agent, *read.others)
        ended = [agent for agent in agents if read.at_ts in self.ends.get(agent, ())]
        if not ended and not any(self.unknown_ends[agent] for agent in agents):
            return f"it is said to have ended at commit_ts {read.at_ts}, and has not"
        for agent in ended:
            next_ts = self.next_ts(agent, read.at_ts)
            if next_ts is not None and next_ts <= floor_ts:
                return (
                    f"it is said to have ended at commit_ts {read.at_ts}, when {floor_ts} had been told or shown, and "
                    f"{next_ts} had brought it back"
                )
        return max(floor_ts, read.at_ts)


def renamed(event: ReplayEvent, agent: AgentId) -> ReplayEvent:
    """As a fork has an event of its parent."""
    return evolve(event, namespace=agent.namespace, agent_id=agent.agent_id)


def split(events: Iterable[ReplayEvent], forks: Mapping[AgentId, Origin]) -> tuple[list[ReplayEvent], list[Replayed]]:
    """The agents' own events, and what new forks show of the time before they were."""
    own: list[ReplayEvent] = []
    inherited: dict[AgentId, list[ReplayEvent]] = {agent: [] for agent in forks}
    for event in events:
        origin = forks.get(AgentId(event.namespace, event.agent_id))
        if origin is not None and event.commit_ts < origin.commit_ts:
            inherited[AgentId(event.namespace, event.agent_id)].append(event)
        else:
            own.append(event)
    return own, [
        Replayed(agent, forks[agent].commit_ts, 0, forks[agent].commit_ts, tuple(found))
        for agent, found in inherited.items()
    ]


def name_of(agent: AgentId) -> str:
    """An agent, as violations call it."""
    return f"{agent.namespace}/{agent.agent_id}"


def _event_ts(event: ReplayEvent) -> int:
    return event.commit_ts


def _may_be(fork: Forking, origin: Origin, floor_ts: int) -> bool:
    """Whether a call can have made a fork."""
    if fork.parent != origin.agent or not floor_ts < origin.commit_ts or not origin.at_ts < origin.commit_ts:
        return False
    if fork.asked_ts is None:
        return origin.at_ts >= floor_ts
    return origin.at_ts == fork.asked_ts or floor_ts <= origin.at_ts < fork.asked_ts
