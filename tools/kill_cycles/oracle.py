"""The judge: folds what replay shows over what the clients know, and says what cannot be.

Pure: no clock, no files, no daemon. It is given what a run of the daemon left behind and gives back violations, each
one a line. It keeps the whole history, which is how it knows a commit_ts that is used twice.

What it holds the daemon to: every acknowledged commit is there, at the commit_ts that was told, in all its agents,
with the operations as they were sent; every other one is there in whole or not at all; aborted ones never are; the
commit_ts of all transactions, empty ones included, are 1, 2, 3, ... with nothing left out or used twice; a commit
that was sent after another had been acknowledged comes after it; the versions of each key are 1, 2, 3, ...; the time
of commits does not run backwards; and the state is what its events give.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from attrs import define, field, frozen

from kill_cycles.submissions import Load, Outcome, PairRead, ReadBack, Staged, Submission
from statehouse import Operation, ReplayEvent, StateResult
from statehouse.types import AgentId

__all__ = ["Evidence", "Oracle"]

Answer = int | str | None
"""To a commit that was asked for again: the commit_ts of when it happened, None when it did not, or what is wrong."""


@frozen
class Evidence:
    """What the daemon showed after a run."""

    events: tuple[ReplayEvent, ...]
    """Of all agents, after the newest commit_ts of the evidence before."""
    answers: Mapping[str, Answer]
    """By txn_id: of every unknown outcome, and of any others."""
    states: Mapping[AgentId, Mapping[str, StateResult]]
    """Keys that exist, of each agent that was asked; with the deleted ones of the run."""


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
    _newest_time: float = 0.0

    def judge(self, load: Load, evidence: Evidence) -> list[str]:
        """What is wrong with a run; nothing, if all is well."""
        for submission in load.submissions:
            self.submissions[submission.txn_id] = submission
        taken: dict[int, str] = {}
        violations = [
            *self._events(evidence.events, taken),
            *self._outcomes(load.submissions, evidence.answers, taken),
            *self._order(taken),
            *self._answers(evidence.answers),
            *self._states(evidence.states),
            *_reads(load.reads),
        ]
        self.newest_ts = max([self.newest_ts, *taken])
        return violations

    def judge_again(self, agent: AgentId, events: Iterable[ReplayEvent]) -> list[str]:
        """Hold a replay of the agent's whole history against what was seen of it run by run."""
        return [] if list(events) == self.history[agent] else [f"{_name(agent)}: the history has changed"]

    def _events(self, events: Iterable[ReplayEvent], taken: dict[int, str]) -> Iterator[str]:
        """Each commit_ts as one transaction, whole, and nobody else's."""
        commits: dict[int, list[ReplayEvent]] = defaultdict(list)
        for event in events:
            commits[event.commit_ts].append(event)
        for commit_ts, parts in sorted(commits.items()):
            txn_ids = sorted({event.txn_id for event in parts})
            if commit_ts <= self.newest_ts:
                yield f"commit_ts {commit_ts} came up again, after {self.newest_ts} had been reached"
            if len(txn_ids) > 1:
                yield f"commit_ts {commit_ts} is used by {len(txn_ids)} transactions: {', '.join(txn_ids)}"
            for txn_id in txn_ids:
                own = [event for event in parts if event.txn_id == txn_id]
                yield from self._transaction(commit_ts, txn_id, own)
                taken.setdefault(commit_ts, txn_id)
            yield from self._fold(parts)

    def _transaction(self, commit_ts: int, txn_id: str, parts: list[ReplayEvent]) -> Iterator[str]:
        submission = self.submissions.get(txn_id)
        if submission is None:
            yield f"commit_ts {commit_ts}: {txn_id} was never sent"
            return
        if txn_id in self.placed:
            yield f"{txn_id} is there twice, at commit_ts {self.placed[txn_id]} and {commit_ts}"
        self.placed[txn_id] = commit_ts
        if submission.outcome is Outcome.NEVER:
            yield f"commit_ts {commit_ts}: {txn_id} was not committed, and is there"
        sent: dict[AgentId, list[Staged]] = defaultdict(list)
        for staged in submission.operations:
            sent[staged.agent].append(staged)
        found = {AgentId(event.namespace, event.agent_id): event.operations for event in parts}
        if len(found) < len(parts):
            yield f"commit_ts {commit_ts}: {txn_id} has two events of one agent"
        for agent in sorted(sent.keys() | found.keys()):
            expected = [(staged.key, staged.value) for staged in sent.get(agent, ())]
            if [(operation.key, operation.value) for operation in found.get(agent, ())] != expected:
                yield (
                    f"commit_ts {commit_ts}: {txn_id} is torn: in {_name(agent)} it has "
                    f"{_operations(found.get(agent, ()))}, and was sent with {len(expected)} operations"
                )

    def _fold(self, parts: Iterable[ReplayEvent]) -> Iterator[str]:
        for event in parts:
            agent = AgentId(event.namespace, event.agent_id)
            self.history[agent].append(event)
            state = self.states[agent]
            for operation in event.operations:
                before = state[operation.key].version if operation.key in state else 0
                if operation.version != before + 1:
                    yield (
                        f"commit_ts {event.commit_ts}: {_name(agent)} key {operation.key!r} has version "
                        f"{operation.version} after version {before}"
                    )
                state[operation.key] = StateResult(
                    operation.value, operation.version, event.commit_ts, operation.value is not None
                )
            seconds = 0.0 if event.committed_at is None else event.committed_at.timestamp()
            if seconds < self._newest_time:
                yield f"commit_ts {event.commit_ts}: its time is before that of a commit before it"
            self._newest_time = max(self._newest_time, seconds)

    def _outcomes(
        self, submissions: Iterable[Submission], answers: Mapping[str, Answer], taken: dict[int, str]
    ) -> Iterator[str]:
        """What was told to the clients, or is told now, against what is there. Empty commits get their place here."""
        for submission in submissions:
            txn_id = submission.txn_id
            told: Answer = submission.commit_ts
            if submission.outcome is Outcome.UNKNOWN:
                if txn_id not in answers:
                    yield f"{txn_id}: nobody asked for its outcome"
                told = answers.get(txn_id)
            if not submission.operations and isinstance(told, int):
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
            if at is not None and at <= submission.floor_ts:
                yield f"{txn_id} was sent when commit_ts {submission.floor_ts} had been told, and is at {at}"

    def _order(self, taken: Mapping[int, str]) -> Iterator[str]:
        new = [commit_ts for commit_ts in taken if commit_ts > self.newest_ts]
        if new:
            missing = sorted(set(range(self.newest_ts + 1, max(new) + 1)) - set(new))
            if missing:
                yield f"commit_ts {missing[0]} is missing ({len(missing)} are, of {len(new) + len(missing)})"

    def _answers(self, answers: Mapping[str, Answer]) -> Iterator[str]:
        for txn_id, answer in answers.items():
            if answer != self.placed.get(txn_id):
                yield (
                    f"{txn_id}: asked again, the daemon says {answer!r}; it is at commit_ts {self.placed.get(txn_id)}"
                )

    def _states(self, states: Mapping[AgentId, Mapping[str, StateResult]]) -> Iterator[str]:
        for agent, found in states.items():
            expected = self.states[agent]
            live = {key for key, state in expected.items() if state.exists}
            for key in sorted(live | found.keys()):
                if found.get(key) != expected.get(key):
                    yield (
                        f"{_name(agent)} key {key!r}: the state is {_state(found.get(key))}, "
                        f"its events give {_state(expected.get(key))}"
                    )


def _reads(reads: Iterable[ReadBack | PairRead]) -> Iterator[str]:
    for read in reads:
        if isinstance(read, PairRead):
            if len(read.marks) not in {0, 2} or len(set(read.marks)) > 1:
                yield f"{_name(read.agent)}: a scan saw part of a transaction: marks {read.marks}"
        elif read.seen_ts < read.written_ts:
            yield (
                f"{_name(read.agent)} key {read.key!r}: written and acknowledged at commit_ts {read.written_ts}, then "
                f"read as of {read.seen_ts}"
            )


def _name(agent: AgentId) -> str:
    return f"{agent.namespace}/{agent.agent_id}"


def _operations(operations: Iterable[Operation]) -> str:
    return ", ".join(f"{operation.key!r} v{operation.version}" for operation in operations) or "nothing"


def _state(state: StateResult | None) -> str:
    if state is None:
        return "nothing"
    return f"v{state.version} at commit_ts {state.commit_ts}{'' if state.exists else ', deleted'}"
