"""The judge: folds what replay shows over what the clients know, and says what cannot be.

Pure: no clock, no files, no store. It is given what a run left behind and gives back violations, each one a line. It
keeps the whole history, which is how it knows a commit_ts that is used twice; whoever judges millions of operations
has it `forget` the runs that are judged, of which it then keeps marks (past.py). Its time is linear in the history:
every commit and every read is looked at once, at its place in the order of commits.

What it holds a store to: every acknowledged commit is there, at the commit_ts that was told, in all its agents,
with the operations as they were sent; every other one is there in whole or not at all; aborted ones never are; the
commit_ts of all transactions, empty ones included, are 1, 2, 3, ... with nothing left out or used twice; a commit
that was sent after another had been acknowledged comes after it; the versions of each key are 1, 2, 3, ...; the time
of commits does not run backwards; the state is what its events give; and every read, made beside the commits, shows the
state at one moment of that order which is not before anything that had been told or shown when it was sent
(reads_of_history.py): with the order of commits, that is linearizability. A fork has what its parent had at the point,
because it is given a copy of that here, and who was deleted is not written to without knowing it (agents_judged.py).
Values expire by the store's clock, and what has expired becomes a tombstone that nobody sent (expiry_judged.py).
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping

from attrs import define, field, frozen

from histories.agents_judged import Lives, name_of, renamed, split
from histories.conditions_judged import wrong_conditions
from histories.expiry_judged import Expiry, unswept, wrong_state, wrong_sweep
from histories.lasting import Look, is_sweep, states_of
from histories.leases_judged import Leases
from histories.lineages import Described, Lineage, Origin
from histories.past import Past
from histories.reads_of_history import ReadJudge, Timeline
from histories.submissions import Load, Outcome, Repeated, Replayed, Staged, Submission
from statehouse import Operation, ReplayEvent, StateResult
from statehouse.types import AgentId

__all__ = ["Answer", "Evidence", "Oracle"]

Answer = int | str | None
"""To a commit that was asked for again: the commit_ts of when it happened, None when it did not, or what is wrong."""


@frozen
class Evidence:
    """What the store showed after a run."""

    events: tuple[ReplayEvent, ...]
    """Of all agents, after the newest commit_ts of the evidence before."""
    answers: Mapping[str, Answer]
    """By txn_id: of every unknown outcome, and of any others."""
    states: Mapping[AgentId, Mapping[str, StateResult]]
    """Keys that exist, of each agent that was asked; with the deleted ones of the run."""
    lineages: Mapping[AgentId, Lineage] = field(factory=dict)
    """Of every agent that was to be forked or a fork. The events of a new fork are those that it inherits, too."""
    described: Mapping[AgentId, Described | None] = field(factory=dict)
    """What the list of agents says of each that was looked for; None: it is not there."""
    asked_ns: Mapping[AgentId, tuple[int, int]] = field(factory=dict)
    """The store's clock just before and after the states of an agent were asked for; without: nothing had expired."""
    noted: frozenset[int] | None = None
    """The commits that show no event because they note what was deleted; None: nobody could look."""
    head_ts: int = 0
    """The newest commit as all of this was asked for, as far as is known."""


@define
class Oracle:
    """Judges one run after the other."""

    newest_ts: int = 0
    submissions: dict[str, Submission] = field(factory=dict)
    placed: dict[str, int] = field(factory=dict)
    """The commit_ts of each transaction that happened."""
    history: dict[AgentId, list[ReplayEvent]] = field(factory=lambda: defaultdict(list))
    states: dict[AgentId, dict[str, StateResult]] = field(factory=lambda: defaultdict(dict))
    resolved: Counter[str] = field(factory=Counter)
    """Of the unknown outcomes: how many happened, and how many did not."""
    leases: Leases = field(factory=Leases)
    expiry: Expiry = field(factory=Expiry)
    past: Past = field(factory=Past)
    """What was forgotten; `history` and `submissions` go on behind it."""
    lives: Lives = field(init=False)
    _forgotten: dict[AgentId, dict[str, StateResult]] = field(factory=dict)
    """The states behind what was forgotten, from which those of a fork's point are folded."""
    _newest_time: float = 0.0

    @lives.default
    def _(self) -> Lives:
        return Lives(self.history, self.past)

    def judge(self, load: Load, evidence: Evidence) -> list[str]:
        """What is wrong with a run; nothing, if all is well."""
        for submission in load.submissions:
            self.submissions[submission.txn_id] = submission
        taken: dict[int, str] = {}
        wrong_leases = list(self.leases.judge(load.leased, taken, self.newest_ts))
        taken |= dict.fromkeys(evidence.noted or (), "a note of what was deleted")
        timeline, lives = Timeline(self.states), self.lives
        reads = ReadJudge(timeline, lives)
        forks = lives.forked(evidence.lineages)
        own, inherited = split(evidence.events, dict(forks))
        wrong_events = list(self._events(own, forks, taken, timeline))
        lives.learn_ends(load.submissions, load.reads, self.placed, self.newest_ts)
        wrong_reads = list(reads.judge(load.reads))  # whose proofs the outcomes are held against
        violations = [
            *wrong_events,
            *self._outcomes(load.submissions, evidence.answers, taken, reads),
            *wrong_leases,
            *lives.wrong_ends(load.submissions, self.placed, taken, self.newest_ts, timeline.live_at),
            *lives.written_when_ended(load.submissions, self.placed),
            *self._order(taken, load, seen=evidence.noted is not None),
            *lives.wrong_forks(load.forks, reads.proved, self.newest_ts),
            *lives.wrong_lineages(evidence.lineages),
            *self._repeated(load.repeated),
            *self._answers(evidence.answers),
            *self._states(evidence),
            *lives.wrong_descriptions(evidence.described, self.states),
            *wrong_reads,
            *ReadJudge(timeline, lives).judge(inherited),
        ]
        self.newest_ts = max([self.newest_ts, *taken])
        self.expiry.hidden += reads.hidden
        return violations

    def left_over(self, now_ns: int) -> list[str]:
        """What should have been deleted by a time because it had expired, and was not."""
        return list(unswept(self.states, now_ns))

    def judge_again(self, agent: AgentId, events: Iterable[ReplayEvent]) -> list[str]:
        """Hold a replay of the agent's whole history against what was seen of it run by run."""
        judge = ReadJudge(Timeline(self.states), self.lives)
        again = Replayed(agent, self.newest_ts, 0, None, tuple(events))
        return [f"the history has changed: {violation}" for violation in judge.judge([again])]

    def forget(self) -> None:
        """Keep of all that was judged so far what later runs are judged by, and no more."""
        for agent, events in self.history.items():
            for event in events:
                self.past.add(agent, event)
        self.history.clear()
        self.submissions.clear()
        self._forgotten = {agent: dict(states) for agent, states in self.states.items()}

    def _events(
        self,
        events: Iterable[ReplayEvent],
        forks: Iterable[tuple[AgentId, Origin]],
        taken: dict[int, str],
        timeline: Timeline,
    ) -> Iterator[str]:
        """Each commit_ts as one transaction, whole, and nobody else's; or as a fork."""
        commits: dict[int, list[ReplayEvent]] = defaultdict(list)
        for event in events:
            commits[event.commit_ts].append(event)
        for agent, origin in forks:
            if origin.commit_ts in taken or origin.commit_ts in commits or origin.commit_ts <= self.newest_ts:
                yield f"commit_ts {origin.commit_ts} is used twice, the second time by the fork {name_of(agent)}"
            taken[origin.commit_ts] = f"the fork {name_of(agent)}"
        coming = deque(forks)
        for commit_ts, parts in sorted(commits.items()):
            while coming and coming[0][1].commit_ts < commit_ts:
                yield from self._copy(*coming.popleft(), timeline)
            txn_ids = sorted({event.txn_id for event in parts})
            if commit_ts <= self.newest_ts:
                yield f"commit_ts {commit_ts} came up again, after {self.newest_ts} had been reached"
            if commit_ts in taken:
                yield f"commit_ts {commit_ts} is used twice, by {taken[commit_ts]} and by {txn_ids[0]}"
            if len(txn_ids) > 1:
                yield f"commit_ts {commit_ts} is used by {len(txn_ids)} transactions: {', '.join(txn_ids)}"
            for txn_id in txn_ids:
                own = [event for event in parts if event.txn_id == txn_id]
                yield from self._transaction(commit_ts, txn_id, own)
                taken.setdefault(commit_ts, txn_id)
            yield from self._fold(parts, timeline)
        for agent, origin in coming:
            yield from self._copy(agent, origin, timeline)

    def _copy(self, agent: AgentId, origin: Origin, timeline: Timeline) -> Iterator[str]:
        """What a fork is: the new agent has its parent's past, up to the point."""
        if self.lives.first_ts(agent) is not None:
            yield f"{name_of(agent)} was written to, and then forked at commit_ts {origin.commit_ts}"
        self.lives.origins[agent] = origin
        self.past.fork(origin.agent, agent)
        self._forgotten[agent] = dict(self._forgotten.get(origin.agent, {}))
        state = self.states[agent] = dict(self._forgotten[agent])
        self.history[agent] = [
            renamed(event, agent) for event in self.history[origin.agent] if event.commit_ts <= origin.at_ts
        ]
        for event in self.history[agent]:
            for key, newest in states_of(event):
                timeline.add(agent, key, newest)
                state[key] = newest
        self.expiry.may_be_noted += 1
        if self.lives.first_ts(agent) is None:
            yield f"{name_of(agent)} was forked at commit_ts {origin.commit_ts} and inherits nothing"

    def _transaction(self, commit_ts: int, txn_id: str, parts: list[ReplayEvent]) -> Iterator[str]:
        submission = self.submissions.get(txn_id)
        if txn_id in self.placed:
            yield f"{txn_id} is there twice, at commit_ts {self.placed[txn_id]} and {commit_ts}"
        elif submission is None and any(map(is_sweep, parts)):
            yield from wrong_sweep(commit_ts, parts, self.states)
        elif submission is None:
            yield f"commit_ts {commit_ts}: {txn_id} was never sent"
        if submission is None:
            return
        self.placed[txn_id] = commit_ts
        if submission.outcome is Outcome.NEVER:
            yield f"commit_ts {commit_ts}: {txn_id} was not committed, and is there"
        sent: dict[AgentId, list[Staged]] = defaultdict(list)
        for staged in submission.operations:
            sent[staged.agent].append(staged)
        if (ended := submission.ends) is not None:
            live = sorted((key for key, state in self.states[ended].items() if state.exists), key=str.encode)
            sent[ended] = [Staged(ended, key, None) for key in live]
            if submission.deleted_keys not in {None, len(live)}:
                told = submission.deleted_keys
                yield f"commit_ts {commit_ts}: {txn_id} told of {told} deleted keys, and there were {len(live)}"
        found = {AgentId(event.namespace, event.agent_id): event.operations for event in parts}
        if len(found) < len(parts):
            yield f"commit_ts {commit_ts}: {txn_id} has two events of one agent"
        for agent in sorted(sent.keys() | found.keys()):
            expected = [(staged.key, staged.value, staged.ttl_s, False) for staged in sent.get(agent, ())]
            if [(each.key, each.value, each.ttl_s, each.expired) for each in found.get(agent, ())] != expected:
                yield (
                    f"commit_ts {commit_ts}: {txn_id} is torn: in {name_of(agent)} it has "
                    f"{_operations(found.get(agent, ()))}, and was sent with {len(expected)} operations"
                )
        yield from wrong_conditions(submission, parts, self.states, self.lives, self.leases)

    def _repeated(self, repeated: Iterable[Repeated]) -> Iterator[str]:
        """Every answer to one transaction names one commit, and at most one of them is the first."""
        first: set[str] = set()
        for answer in repeated:
            at = self.placed.get(answer.txn_id)
            if answer.commit_ts != at:
                yield f"{answer.txn_id}: sent once more, it is at commit_ts {answer.commit_ts}, and it is at {at}"
            if not answer.deduplicated and (answer.txn_id in first or (at is not None and at <= self.newest_ts)):
                yield f"{answer.txn_id}: two answers say that they are the first, or one that comes after a restart"
            if not answer.deduplicated:
                first.add(answer.txn_id)

    def _fold(self, parts: Iterable[ReplayEvent], timeline: Timeline) -> Iterator[str]:
        for event in parts:
            agent = AgentId(event.namespace, event.agent_id)
            self.history[agent].append(event)
            self.expiry.count(event)
            state = self.states[agent]
            for key, newest in states_of(event):
                before = state[key].version if key in state else 0
                if newest.version != before + 1:
                    yield (
                        f"commit_ts {event.commit_ts}: {name_of(agent)} key {key!r} has version "
                        f"{newest.version} after version {before}"
                    )
                timeline.add(agent, key, newest)
                state[key] = newest
            seconds = 0.0 if event.committed_at is None else event.committed_at.timestamp()
            if seconds < self._newest_time:
                yield f"commit_ts {event.commit_ts}: its time is before that of a commit before it"
            self._newest_time = max(self._newest_time, seconds)

    def _outcomes(
        self,
        submissions: Iterable[Submission],
        answers: Mapping[str, Answer],
        taken: dict[int, str],
        reads: ReadJudge,
    ) -> Iterator[str]:
        """What was told to the clients, or is told now, against what is there. Empty commits get their place here."""
        for submission in submissions:
            txn_id = submission.txn_id
            told: Answer = submission.commit_ts
            if submission.ends is not None and txn_id not in self.placed:
                continue  # it shows no event
            if submission.ends is not None and submission.outcome is Outcome.UNKNOWN:
                told = self.placed[txn_id]
            elif submission.outcome is Outcome.UNKNOWN:
                if txn_id not in answers:
                    yield f"{txn_id}: nobody asked for its outcome"
                told = answers.get(txn_id)
            if not submission.operations and isinstance(told, int) and submission.ends is None:
                if told in taken or told <= self.newest_ts:
                    yield f"commit_ts {told} is used twice, the second time by the empty {txn_id}"
                taken.setdefault(told, txn_id)
                self.placed[txn_id] = told
            at = self.placed.get(txn_id)
            if submission.outcome is Outcome.UNKNOWN:
                self.resolved["happened" if at is not None else "did not"] += 1
            elif submission.outcome is Outcome.ACKNOWLEDGED and at is None:
                yield f"{txn_id} was acknowledged at commit_ts {told}, and is lost"
            elif submission.outcome is Outcome.ACKNOWLEDGED and at != told:
                yield f"{txn_id} was acknowledged at commit_ts {told}, and is at {at}"
            if at is not None and at <= (floor_ts := max(submission.floor_ts, reads.proved(submission.after))):
                yield f"{txn_id} was sent when commit_ts {floor_ts} had been told, and is at {at}"

    def _order(self, taken: Mapping[int, str], load: Load, *, seen: bool) -> Iterator[str]:
        """Nothing is left out, but what may have been taken by what has no answer and no event: so many at most."""
        new = [commit_ts for commit_ts in taken if commit_ts > self.newest_ts]
        if new:
            missing = sorted(set(range(self.newest_ts + 1, max(new) + 1)) - set(new))
            unknown = 0 if seen else self.expiry.may_be_noted
            if len(missing) > self.unseen(load) + unknown:
                yield f"commit_ts {missing[0]} is missing ({len(missing)} are, of {len(new) + len(missing)})"
            self.expiry.may_be_noted -= min(len(missing), unknown)

    def unseen(self, load: Load) -> int:
        """How many commit_ts of a run may have been taken by leases and ends without an answer, which have no event."""
        return sum(leased.commit_ts is None for leased in load.leased) + sum(
            one.ends is not None and one.outcome is Outcome.UNKNOWN and one.txn_id not in self.placed
            for one in load.submissions
        )

    def _answers(self, answers: Mapping[str, Answer]) -> Iterator[str]:
        for txn_id, answer in answers.items():
            if answer != self.placed.get(txn_id):
                yield (
                    f"{txn_id}: asked again, the store says {answer!r}; it is at commit_ts {self.placed.get(txn_id)}"
                )

    def _states(self, evidence: Evidence) -> Iterator[str]:
        for agent, found in evidence.states.items():
            expected = self.states[agent]
            live = {key for key, state in expected.items() if state.exists}
            look = Look.of(*evidence.asked_ns.get(agent, (0, 0)), found.values())
            for key in sorted(live | found.keys()):
                wrong = wrong_state(agent, key, found.get(key), expected.get(key), look)
                if wrong is not None:
                    yield wrong


def _operations(operations: Iterable[Operation]) -> str:
    return ", ".join(f"{operation.key!r} v{operation.version}" for operation in operations) or "nothing"
