"""Shows that the oracle can fail: an honest history that it accepts, and forgeries of it that it must not.

Each forgery is one thing that a broken store could do, made to the evidence of the second of two runs, and the words
that its violation must have. A forgery that passes, or is caught for another reason only, is a bug of the proof.
"""

import datetime as dt
from typing import Final

from attrs import evolve

from histories.forging import Change, Forgery, too, uncaught, with_read
from histories.oracle import Evidence, Oracle
from histories.submissions import AnyRead, Listed, Load, Outcome, Read, Replayed, Staged, Submission, VersionRead
from statehouse import Operation, ReplayEvent, StateResult
from statehouse.types import AgentId

__all__ = ["FORGERIES", "A", "B", "event_of", "failures", "set_to", "state_of", "violations_of"]

A: Final = AgentId("default", "a")
B: Final = AgentId("other", "b")
C: Final = AgentId("other", "c")
DAWN: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def failures() -> list[str]:
    """What is wrong with the oracle; nothing, if it accepts what is honest and catches every forgery."""
    return uncaught(FORGERIES, violations_of)


def violations_of(change: Change, *, forget: bool = False) -> list[str]:
    """Judge the two runs, the second one changed; the first one may be forgotten before."""
    oracle = Oracle()
    writes = (set_to(A, "x", 1), set_to(C, "old", 1), set_to(C, "old", 2))
    first = Load([Submission("t1", writes, Outcome.ACKNOWLEDGED, 1)])
    first_events = (event_of(1, "t1", A, ("x", 1, 1)), event_of(1, "t1", C, ("old", 1, 1), ("old", 2, 2)))
    first_state = {A: {"x": state_of(1, 1, 1)}, B: {}, C: {"old": state_of(2, 2, 1)}}
    told = oracle.judge(first, Evidence(first_events, {}, first_state))
    if forget:
        oracle.forget()
    load, evidence = _second_run()
    return told + oracle.judge(load, change(load, evidence))


def _second_run() -> tuple[Load, Evidence]:
    """Every kind of transaction and outcome: commit_ts 2 to 7, of which 4 and 6 are empty."""
    submissions = [
        Submission(
            "t2", (set_to(A, "x", 2), set_to(B, "y", 2), set_to(A, "x", 3)), Outcome.ACKNOWLEDGED, 2, floor_ts=1
        ),
        Submission("t3", (set_to(A, "z", 3), set_to(B, "z", 3)), Outcome.UNKNOWN, floor_ts=1),
        Submission("t4", (), Outcome.ACKNOWLEDGED, 4, floor_ts=2),
        Submission("t5", (Staged(A, "x", None),), Outcome.ACKNOWLEDGED, 5, floor_ts=4),
        Submission("t6", (), Outcome.UNKNOWN, floor_ts=5),
        Submission("t7", (set_to(B, "y", 7),), Outcome.ACKNOWLEDGED, 7, floor_ts=5),
        Submission("lost", (set_to(A, "x", 8), set_to(B, "y", 8)), Outcome.UNKNOWN, floor_ts=7),
        Submission("lost empty", (), Outcome.UNKNOWN, floor_ts=7),
        Submission("aborted", (set_to(A, "x", 9),), Outcome.NEVER),
    ]
    events = (
        event_of(2, "t2", A, ("x", 2, 2), ("x", 3, 3)),
        event_of(2, "t2", B, ("y", 2, 1)),
        event_of(3, "t3", A, ("z", 3, 1)),
        event_of(3, "t3", B, ("z", 3, 1)),
        event_of(5, "t5", A, ("x", None, 4)),
        event_of(7, "t7", B, ("y", 7, 2)),
    )
    states = {
        A: {"x": state_of(None, 4, 5), "z": state_of(3, 1, 3)},
        B: {"y": state_of(7, 2, 7), "z": state_of(3, 1, 3)},
    }
    reads: list[AnyRead] = [
        Read(A, 1, {"x": state_of(3, 3, 2), "z": state_of(None, 0, 0)}),
        Read(A, 2, {"x": state_of(None, 4, 5)}),
        Read(A, 1, {"x": state_of(1, 1, 1)}, prefix=""),
        Read(A, 3, {"x": state_of(3, 3, 2), "z": state_of(3, 1, 3)}, prefix=""),
        Read(A, 4, {"z": state_of(3, 1, 3)}, prefix=""),
        Read(B, 2, {}, prefix="z"),
        Replayed(A, 4, 2, None, events[0:1] + events[2:3]),
        Replayed(A, 7, 2, 4, events[0:1] + events[2:3]),
        Replayed(B, 7, 4, None, events[5:6]),
        Replayed(A, 5, 0, None, (*_AT_1, *events[0:1], *events[2:3], *events[4:5])),
        Replayed(A, 5, 0, 1, _AT_1),
        Listed(A, 3, ("x", "z")),
        Listed(A, 3, ("z",)),
        Listed(B, 0, ()),
        VersionRead(A, 5, "x", 1, state_of(1, 1, 1)),
        VersionRead(A, 5, "x", 2, state_of(2, 2, 2)),
        VersionRead(A, 5, "x", 4, state_of(None, 4, 5)),
        VersionRead(A, 4, "x", 4, state_of(None, 0, 0)),
        VersionRead(A, 5, "x", 5, state_of(None, 0, 0)),
        VersionRead(C, 5, "old", 1, state_of(1, 1, 1)),
        VersionRead(C, 5, "old", 2, state_of(2, 2, 1)),
        Read(A, 4, {"x": state_of(None, 4, 5)}, after=5),
    ]
    answers = {"t3": 3, "t6": 6, "lost": None, "lost empty": None, "t1": 1, "aborted": None}
    return Load(submissions, reads, newest_ts=7), Evidence(events, answers, states)


def set_to(agent: AgentId, key: str, mark: int) -> Staged:
    return Staged(agent, key, {"mark": mark})


def state_of(mark: int | None, version: int, commit_ts: int) -> StateResult:
    return StateResult(None if mark is None else {"mark": mark}, version, commit_ts, mark is not None)


def event_of(commit_ts: int, txn_id: str, agent: AgentId, *writes: tuple[str, int | None, int]) -> ReplayEvent:
    operations = tuple(
        Operation(key, None if mark is None else {"mark": mark}, version) for key, mark, version in writes
    )
    return ReplayEvent(txn_id, commit_ts, operations, *agent, committed_at=DAWN + dt.timedelta(seconds=commit_ts))


# Forgeries: functions of the evidence, named by what a daemon would have done.


def _without(commit_ts: int, agent: AgentId | None = None) -> Change:
    """The events of a commit are gone, or that of one agent."""

    def change(_: Load, evidence: Evidence) -> Evidence:
        kept = [
            event
            for event in evidence.events
            if event.commit_ts != commit_ts or (agent and event.agent_id != agent.agent_id)
        ]
        return evolve(evidence, events=tuple(kept))

    return change


def _moved(to_ts: dict[int, int]) -> Change:
    """Commits stand at another commit_ts."""

    def change(_: Load, evidence: Evidence) -> Evidence:
        events = [evolve(event, commit_ts=to_ts.get(event.commit_ts, event.commit_ts)) for event in evidence.events]
        return evolve(evidence, events=tuple(events))

    return change


def _operations(commit_ts: int, agent: AgentId, *writes: tuple[str, int | None, int]) -> Change:
    """One event has other operations."""
    forged = event_of(commit_ts, "", agent, *writes).operations

    def change(_: Load, evidence: Evidence) -> Evidence:
        events = [
            evolve(event, operations=forged)
            if (event.commit_ts, event.agent_id) == (commit_ts, agent.agent_id)
            else event
            for event in evidence.events
        ]
        return evolve(evidence, events=tuple(events))

    return change


def _answer(txn_id: str, answer: int | str | None) -> Change:
    return lambda _, evidence: evolve(evidence, answers={**evidence.answers, txn_id: answer})


def _shown(agent: AgentId, key: str, state: StateResult | None) -> Change:
    def change(_: Load, evidence: Evidence) -> Evidence:
        found = {name: value for name, value in {**evidence.states[agent], key: state}.items() if value is not None}
        return evolve(evidence, states={**evidence.states, agent: found})

    return change


def _told(txn_id: str, commit_ts: int) -> Change:
    def change(load: Load, evidence: Evidence) -> Evidence:
        for submission in load.submissions:
            if submission.txn_id == txn_id:
                submission.commit_ts = commit_ts
        return evidence

    return change


def _reads(*reads: AnyRead) -> Change:
    """Reads of which each was sent after the one before it had ended."""

    def change(load: Load, evidence: Evidence) -> Evidence:
        for read in reads:
            load.reads.append(evolve(read, after=len(load.reads)))
        return evidence

    return change


def _sent_after(read: AnyRead, txn_id: str) -> Change:
    """A commit was sent after a read had ended."""

    def change(load: Load, evidence: Evidence) -> Evidence:
        load.reads.insert(0, read)
        for submission in load.submissions:
            if submission.txn_id == txn_id:
                submission.after = 1
        return evidence

    return change


def _earlier(_: Load, evidence: Evidence) -> Evidence:
    events = [evolve(event, committed_at=DAWN) if event.commit_ts == 7 else event for event in evidence.events]
    return evolve(evidence, events=tuple(events))


_AT_1: Final = (event_of(1, "t1", A, ("x", 1, 1)),)
_AT_2: Final = (event_of(2, "t2", A, ("x", 2, 2), ("x", 3, 3)),)
_AT_3: Final = (event_of(3, "t3", A, ("z", 3, 1)),)
_AT_5: Final = (event_of(5, "t5", A, ("x", None, 4)),)

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
    Forgery("a transaction is there twice", too(event_of(8, "t7", B, ("y", 7, 3))), "t7 is there twice"),
    Forgery("an aborted transaction", too(event_of(8, "aborted", A, ("x", 9, 5))), "aborted was not committed"),
    Forgery("a transaction that nobody sent", too(event_of(8, "ghost", A, ("x", 9, 5))), "ghost was never sent"),
    Forgery("two events of one agent", too(event_of(7, "t7", B, ("y", 7, 3))), "two events of one agent"),
    Forgery("a version left out", _operations(7, B, ("y", 7, 3)), "has version 3 after version 1"),
    Forgery("a version used twice", _operations(7, B, ("y", 7, 1)), "has version 1 after version 1"),
    Forgery("an unknown outcome that is there and denied", _answer("t3", None), "t3: asked again, the store says None"),
    Forgery(
        "an unknown outcome that is claimed and not there", _answer("lost", 8), "lost: asked again, the store says 8"
    ),
    Forgery("a committed id that is forgotten", _answer("t1", None), "t1: asked again, the store says None"),
    Forgery("a committed id with another commit_ts", _answer("t1", 2), "t1: asked again, the store says 2"),
    Forgery("a commit that happens when asked again", _answer("lost", "committed now, at 8"), "committed now, at 8"),
    Forgery("an aborted id that was committed", _answer("aborted", 8), "aborted: asked again, the store says 8"),
    Forgery("a state that is not its events'", _shown(B, "y", state_of(2, 1, 2)), "key 'y': the state is v1"),
    Forgery("a state that is lost", _shown(A, "z", None), "key 'z': the state is nothing"),
    Forgery("a deleted key that is there", _shown(A, "x", state_of(3, 3, 2)), "key 'x': the state is v3"),
    Forgery("a key that nobody wrote", _shown(A, "w", state_of(1, 1, 1)), "key 'w': the state is v1"),
    Forgery("a clock that runs backwards", _earlier, "its time is before"),
    Forgery(
        "a read from before an acknowledged write", with_read(Read(A, 5, {"x": state_of(3, 3, 2)})), "a stale read"
    ),
    Forgery("a read from before the run", with_read(Read(A, 2, {"x": state_of(1, 1, 1)})), "a stale read"),
    Forgery(
        "a read of what was never committed", with_read(Read(A, 2, {"x": state_of(9, 4, 6)})), "no commit left standing"
    ),
    Forgery(
        "a read between two writes of one transaction",
        with_read(Read(A, 1, {"x": state_of(2, 2, 2)})),
        "no commit left",
    ),
    Forgery(
        "a read with the value of another version", with_read(Read(A, 2, {"x": state_of(1, 3, 2)})), "no commit left"
    ),
    Forgery(
        "a deleted key that was read as never written",
        with_read(Read(A, 5, {"x": state_of(None, 0, 0)})),
        "no commit left",
    ),
    Forgery(
        "a scan of two moments",
        with_read(Read(A, 1, {"x": state_of(1, 1, 1), "z": state_of(3, 1, 3)}, prefix="")),
        "saw part of a transaction",
    ),
    Forgery("a scan of one half", with_read(Read(A, 3, {"x": state_of(3, 3, 2)}, prefix="")), "left out key 'z'"),
    Forgery(
        "a scan that leaves out an old key",
        with_read(Read(B, 4, {"z": state_of(3, 1, 3)}, prefix="")),
        "left out key 'y'",
    ),
    Forgery("a replay that ends too early", with_read(Replayed(A, 3, 2, None, _AT_2)), "a stale replay"),
    Forgery("a replay with a hole", with_read(Replayed(A, 5, 2, None, _AT_2 + _AT_5)), "not those of the history"),
    Forgery(
        "a replay past its end", with_read(Replayed(A, 5, 2, 4, _AT_2 + _AT_3 + _AT_5)), "not those of the history"
    ),
    Forgery(
        "a replay of an event twice", with_read(Replayed(A, 2, 2, None, _AT_2 + _AT_2)), "not those of the history"
    ),
    Forgery(
        "a replay with another past",
        with_read(Replayed(A, 1, 0, None, (event_of(1, "t1", A, ("x", 9, 1)), *_AT_2))),
        "not those of the history",
    ),
    Forgery("a replay without its past", with_read(Replayed(A, 1, 0, None, _AT_2)), "not those of the history"),
    Forgery("a replay of the past that ends too early", with_read(Replayed(A, 1, 0, 1, ())), "a stale replay"),
    Forgery("a list without a key", with_read(Listed(A, 3, ("x",))), "left out key 'z'"),
    Forgery("a list with a deleted key", with_read(Listed(A, 5, ("x", "z"))), "shows key 'x'"),
    Forgery("a list of two moments", with_read(Listed(A, 1, ())), "left out key"),
    Forgery("a list with a key that nobody wrote", with_read(Listed(A, 1, ("w", "x"))), "'w', which nobody wrote"),
    Forgery("a list with a key twice", with_read(Listed(A, 3, ("x", "x", "z"))), "a key twice"),
    Forgery(
        "a version with another value", with_read(VersionRead(A, 2, "x", 2, state_of(9, 2, 2))), "at version 2 showed"
    ),
    Forgery(
        "a version of another commit", with_read(VersionRead(A, 2, "x", 2, state_of(2, 2, 1))), "at version 2 showed"
    ),
    Forgery(
        "an old version with another value",
        with_read(VersionRead(C, 2, "old", 1, state_of(9, 1, 1))),
        "which it was not",
    ),
    Forgery(
        "an old version that is lost", with_read(VersionRead(C, 2, "old", 1, state_of(None, 0, 0))), "which it was not"
    ),
    Forgery(
        "a version that is not there yet", with_read(VersionRead(A, 5, "x", 4, state_of(None, 0, 0))), "a stale read"
    ),
    Forgery(
        "a version that nobody wrote", with_read(VersionRead(A, 5, "x", 5, state_of(8, 5, 8))), "gave it such a version"
    ),
    Forgery(
        "a key that comes back after a scan without it",
        _reads(Read(A, 4, {"z": state_of(3, 1, 3)}, prefix=""), Read(A, 4, {"x": state_of(3, 3, 2)})),
        "a stale read",
    ),
    Forgery(
        "a key that comes back after a list without it",
        _reads(Listed(A, 4, ("z",)), Listed(A, 4, ("x", "z"))),
        "shows key 'x'",
    ),
    Forgery(
        "a commit before what a scan had not found",
        _sent_after(Read(A, 3, {"z": state_of(3, 1, 3)}, prefix=""), "t4"),
        "t4 was sent when commit_ts 5 had been told",
    ),
)
