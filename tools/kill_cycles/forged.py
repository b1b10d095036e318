"""Shows that the oracle can fail: an honest history that it accepts, and forgeries of it that it must not.

Each forgery is one thing that a broken daemon could do, made to the evidence of the second of two runs, and the words
that its violation must have. A forgery that passes, or is caught for another reason only, is a bug of the proof.
"""

import datetime as dt
from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen

from kill_cycles.oracle import Evidence, Oracle
from kill_cycles.submissions import Load, Outcome, PairRead, ReadBack, Staged, Submission
from statehouse import Operation, ReplayEvent, StateResult
from statehouse.types import AgentId

__all__ = ["FORGERIES", "Forgery", "failures", "violations_of"]

A: Final = AgentId("default", "a")
B: Final = AgentId("other", "b")
DAWN: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@frozen
class Forgery:
    """What is done to the second run, and what the oracle has to say of it."""

    name: str
    change: Callable[[Load, Evidence], Evidence]
    found: str


def failures() -> list[str]:
    """What is wrong with the oracle; nothing, if it accepts what is honest and catches every forgery."""
    honest = violations_of(lambda _, evidence: evidence)
    wrong = [f"the honest history is not accepted: {violation}" for violation in honest]
    for forgery in FORGERIES:
        violations = violations_of(forgery.change)
        if not any(forgery.found in violation for violation in violations):
            wrong.append(f"{forgery.name}: not caught; said: {violations or 'nothing'}")
    return wrong


def violations_of(change: Callable[[Load, Evidence], Evidence]) -> list[str]:
    """Judge the two runs, the second one changed."""
    oracle = Oracle()
    first = Load([Submission("t1", (_set(A, "x", 1),), Outcome.ACKNOWLEDGED, 1)])
    first_state = {A: {"x": _state(1, 1, 1)}, B: {}}
    told = oracle.judge(first, Evidence((_event(1, "t1", A, ("x", 1, 1)),), {}, first_state))
    load, evidence = _second_run()
    return told + oracle.judge(load, change(load, evidence))


def _second_run() -> tuple[Load, Evidence]:
    """Every kind of transaction and outcome: commit_ts 2 to 7, of which 4 and 6 are empty."""
    submissions = [
        Submission("t2", (_set(A, "x", 2), _set(B, "y", 2), _set(A, "x", 3)), Outcome.ACKNOWLEDGED, 2, floor_ts=1),
        Submission("t3", (_set(A, "z", 3), _set(B, "z", 3)), Outcome.UNKNOWN, floor_ts=1),
        Submission("t4", (), Outcome.ACKNOWLEDGED, 4, floor_ts=2),
        Submission("t5", (Staged(A, "x", None),), Outcome.ACKNOWLEDGED, 5, floor_ts=4),
        Submission("t6", (), Outcome.UNKNOWN, floor_ts=5),
        Submission("t7", (_set(B, "y", 7),), Outcome.ACKNOWLEDGED, 7, floor_ts=5),
        Submission("lost", (_set(A, "x", 8), _set(B, "y", 8)), Outcome.UNKNOWN, floor_ts=7),
        Submission("lost empty", (), Outcome.UNKNOWN, floor_ts=7),
        Submission("aborted", (_set(A, "x", 9),), Outcome.NEVER),
    ]
    reads: list[ReadBack | PairRead] = [ReadBack(A, "x", 2, 2), ReadBack(A, "x", 2, 5), PairRead(A, (3, 3))]
    events = (
        _event(2, "t2", A, ("x", 2, 2), ("x", 3, 3)),
        _event(2, "t2", B, ("y", 2, 1)),
        _event(3, "t3", A, ("z", 3, 1)),
        _event(3, "t3", B, ("z", 3, 1)),
        _event(5, "t5", A, ("x", None, 4)),
        _event(7, "t7", B, ("y", 7, 2)),
    )
    states = {
        A: {"x": _state(None, 4, 5), "z": _state(3, 1, 3)},
        B: {"y": _state(7, 2, 7), "z": _state(3, 1, 3)},
    }
    answers = {"t3": 3, "t6": 6, "lost": None, "lost empty": None, "t1": 1, "aborted": None}
    return Load(submissions, reads, newest_ts=7), Evidence(events, answers, states)


def _set(agent: AgentId, key: str, mark: int) -> Staged:
    return Staged(agent, key, {"mark": mark})


def _state(mark: int | None, version: int, commit_ts: int) -> StateResult:
    return StateResult(None if mark is None else {"mark": mark}, version, commit_ts, mark is not None)


def _event(commit_ts: int, txn_id: str, agent: AgentId, *writes: tuple[str, int | None, int]) -> ReplayEvent:
    operations = tuple(
        Operation(key, None if mark is None else {"mark": mark}, version) for key, mark, version in writes
    )
    return ReplayEvent(txn_id, commit_ts, operations, *agent, committed_at=DAWN + dt.timedelta(seconds=commit_ts))


# Forgeries: functions of the evidence, named by what a daemon would have done.


def _without(commit_ts: int, agent: AgentId | None = None) -> Callable[[Load, Evidence], Evidence]:
    """The events of a commit are gone, or that of one agent."""

    def change(_: Load, evidence: Evidence) -> Evidence:
        kept = [
            event
            for event in evidence.events
            if event.commit_ts != commit_ts or (agent and event.agent_id != agent.agent_id)
        ]
        return evolve(evidence, events=tuple(kept))

    return change


def _with(*events: ReplayEvent) -> Callable[[Load, Evidence], Evidence]:
    return lambda _, evidence: evolve(evidence, events=evidence.events + events)


def _moved(to_ts: dict[int, int]) -> Callable[[Load, Evidence], Evidence]:
    """Commits stand at another commit_ts."""

    def change(_: Load, evidence: Evidence) -> Evidence:
        events = [evolve(event, commit_ts=to_ts.get(event.commit_ts, event.commit_ts)) for event in evidence.events]
        return evolve(evidence, events=tuple(events))

    return change


def _operations(
    commit_ts: int, agent: AgentId, *writes: tuple[str, int | None, int]
) -> Callable[[Load, Evidence], Evidence]:
    """One event has other operations."""
    forged = _event(commit_ts, "", agent, *writes).operations

    def change(_: Load, evidence: Evidence) -> Evidence:
        events = [
            evolve(event, operations=forged)
            if (event.commit_ts, event.agent_id) == (commit_ts, agent.agent_id)
            else event
            for event in evidence.events
        ]
        return evolve(evidence, events=tuple(events))

    return change


def _answer(txn_id: str, answer: int | str | None) -> Callable[[Load, Evidence], Evidence]:
    return lambda _, evidence: evolve(evidence, answers={**evidence.answers, txn_id: answer})


def _shown(agent: AgentId, key: str, state: StateResult | None) -> Callable[[Load, Evidence], Evidence]:
    def change(_: Load, evidence: Evidence) -> Evidence:
        found = {name: value for name, value in {**evidence.states[agent], key: state}.items() if value is not None}
        return evolve(evidence, states={**evidence.states, agent: found})

    return change


def _told(txn_id: str, commit_ts: int) -> Callable[[Load, Evidence], Evidence]:
    def change(load: Load, evidence: Evidence) -> Evidence:
        for submission in load.submissions:
            if submission.txn_id == txn_id:
                submission.commit_ts = commit_ts
        return evidence

    return change


def _read(read: ReadBack | PairRead) -> Callable[[Load, Evidence], Evidence]:
    def change(load: Load, evidence: Evidence) -> Evidence:
        load.reads.append(read)
        return evidence

    return change


def _earlier(_: Load, evidence: Evidence) -> Evidence:
    events = [evolve(event, committed_at=DAWN) if event.commit_ts == 7 else event for event in evidence.events]
    return evolve(evidence, events=tuple(events))


FORGERIES: Final = (
    Forgery("an acknowledged commit is lost", _without(7), "t7 was acknowledged at commit_ts 7, and is lost"),
    Forgery("an acknowledged commit is lost, with its number", _without(5), "commit_ts 5 is missing"),
    Forgery("a torn transaction: one agent's part is missing", _without(2, B), "t2 is torn: in other/b"),
    Forgery("a torn transaction of unknown outcome", _without(3, B), "t3 is torn: in other/b"),
    Forgery("a torn transaction: one operation is missing", _operations(2, A, ("x", 2, 2)), "t2 is torn: in default/a"),
    Forgery("operations in another order", _operations(2, A, ("x", 3, 2), ("x", 2, 3)), "t2 is torn"),
    Forgery("another value", _operations(7, B, ("y", 70, 2)), "t7 is torn"),
    Forgery("a delete that writes", _operations(5, A, ("x", 5, 4)), "t5 is torn"),
    Forgery("a commit_ts used by two transactions", _moved({3: 2}), "commit_ts 2 is used by 2 transactions"),
    Forgery("a commit_ts of an earlier run used again", _moved({2: 1}), "commit_ts 1 came up again"),
    Forgery("a commit_ts used again by an empty commit", _told("t4", 2), "commit_ts 2 is used twice"),
    Forgery("an empty commit that took no commit_ts", _answer("t6", None), "commit_ts 6 is missing"),
    Forgery("a gap", _moved({7: 9}), "commit_ts 7 is missing"),
    Forgery("another commit_ts than was told", _moved({5: 7, 7: 5}), "t5 was acknowledged at commit_ts 5, and is at 7"),
    Forgery("a commit before one that was acknowledged earlier", _moved({7: 3, 3: 7}), "had been told, and is at 3"),
    Forgery("a transaction is there twice", _with(_event(8, "t7", B, ("y", 7, 3))), "t7 is there twice"),
    Forgery("an aborted transaction", _with(_event(8, "aborted", A, ("x", 9, 5))), "aborted was not committed"),
    Forgery("a transaction that nobody sent", _with(_event(8, "ghost", A, ("x", 9, 5))), "ghost was never sent"),
    Forgery("two events of one agent", _with(_event(7, "t7", B, ("y", 7, 3))), "two events of one agent"),
    Forgery("a version left out", _operations(7, B, ("y", 7, 3)), "has version 3 after version 1"),
    Forgery("a version used twice", _operations(7, B, ("y", 7, 1)), "has version 1 after version 1"),
    Forgery(
        "an unknown outcome that is there and denied", _answer("t3", None), "t3: asked again, the daemon says None"
    ),
    Forgery(
        "an unknown outcome that is claimed and not there", _answer("lost", 8), "lost: asked again, the daemon says 8"
    ),
    Forgery("a committed id that is forgotten", _answer("t1", None), "t1: asked again, the daemon says None"),
    Forgery("a committed id with another commit_ts", _answer("t1", 2), "t1: asked again, the daemon says 2"),
    Forgery("a commit that happens when asked again", _answer("lost", "committed now, at 8"), "committed now, at 8"),
    Forgery("an aborted id that was committed", _answer("aborted", 8), "aborted: asked again, the daemon says 8"),
    Forgery("a state that is not its events'", _shown(B, "y", _state(2, 1, 2)), "key 'y': the state is v1"),
    Forgery("a state that is lost", _shown(A, "z", None), "key 'z': the state is nothing"),
    Forgery("a deleted key that is there", _shown(A, "x", _state(3, 3, 2)), "key 'x': the state is v3"),
    Forgery("a key that nobody wrote", _shown(A, "w", _state(1, 1, 1)), "key 'w': the state is v1"),
    Forgery("a clock that runs backwards", _earlier, "its time is before"),
    Forgery("a read from before an acknowledged write", _read(ReadBack(A, "x", 5, 2)), "read as of 2"),
    Forgery("a scan of half a transaction", _read(PairRead(A, (2, 3))), "saw part of a transaction"),
    Forgery("a scan of one half", _read(PairRead(A, (2,))), "saw part of a transaction"),
)
