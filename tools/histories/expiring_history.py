"""An honest history of values that expire, in two runs: what clients know of it, and what a store shows.

A commit of commit_ts N is N seconds after DAWN, and a value with a TTL of M seconds that was written then expires at
N + M: times are told in these seconds.
"""

import datetime as dt
from typing import Final

from histories.forged import DAWN, A
from histories.forked_history import F, G, seen_as
from histories.lasting import expired, microseconds, states_of
from histories.lineages import Forking, Lineage, Origin
from histories.oracle import Evidence
from histories.submissions import (
    AnyRead,
    Checked,
    Found,
    Listed,
    Load,
    Outcome,
    Read,
    Replayed,
    Staged,
    Submission,
    VersionRead,
)
from statehouse import Operation, ReplayEvent, StateResult
from statehouse.types import AgentId

__all__ = [
    "AT_1",
    "AT_4",
    "AT_8",
    "AT_9",
    "AT_14",
    "W",
    "X",
    "Z",
    "clock_ns",
    "deleted",
    "event_with",
    "expiring_first_run",
    "expiring_second_run",
    "left_by",
    "write",
]


def clock_ns(seconds: float) -> int:
    """So long after DAWN, in nanoseconds since 1970."""
    return microseconds(DAWN) * 1_000 + int(seconds * 1_000_000_000)


def write(key: str, mark: int, version: int, ttl_s: int | None = None) -> Operation:
    """As an event has it."""
    return Operation(key, {"mark": mark}, version, ttl_s)


def deleted(key: str, version: int) -> Operation:
    """As the store deletes what has expired."""
    return Operation(key, None, version, expired=True)


def event_with(commit_ts: int, txn_id: str, agent: AgentId, *operations: Operation) -> ReplayEvent:
    """An event with these."""
    return ReplayEvent(txn_id, commit_ts, operations, *agent, committed_at=DAWN + dt.timedelta(seconds=commit_ts))


def left_by(event: ReplayEvent) -> dict[str, StateResult]:
    """What it leaves of its keys."""
    return dict(states_of(event))


def _sent(event: ReplayEvent) -> tuple[Staged, ...]:
    agent = AgentId(event.namespace, event.agent_id)
    return tuple(Staged(agent, each.key, each.value, each.ttl_s) for each in event.operations)


AT_1: Final = event_with(1, "t1", A, write("x", 1, 1), write("y", 1, 1, 2), write("w", 1, 1, 100))
AT_2: Final = event_with(2, "t2", A, write("z", 2, 1, 3))
AT_4: Final = event_with(4, "s4", A, deleted("y", 2))
AT_5: Final = event_with(5, "s5", F, deleted("y", 2))
AT_7: Final = event_with(7, "s7", A, deleted("z", 2))
AT_8: Final = event_with(8, "t8", A, write("y", 8, 3, 1), write("q", 8, 1, 1))
AT_9: Final = event_with(9, "t9", A, write("y", 9, 4, 30))
AT_10: Final = event_with(10, "t10", F, write("z", 10, 2))
AT_12: Final = event_with(12, "s12", G, deleted("y", 4), deleted("q", 2))
AT_14: Final = event_with(14, "t14", A, Operation("x", None, 2), write("v", 14, 1, 1))
AT_15: Final = event_with(15, "s15", A, deleted("q", 2))
X, W, Z = left_by(AT_1)["x"], left_by(AT_1)["w"], left_by(AT_2)["z"]


def expiring_first_run() -> tuple[Load, Evidence]:
    """A is written to at 1 and 2, F forked of it at 3; y, which expires at 3, is deleted in both, and noted at 6.

    What expires at 5, z, is not deleted yet.
    """
    submissions = [
        Submission("t1", _sent(AT_1), Outcome.ACKNOWLEDGED, 1),
        Submission("t2", _sent(AT_2), Outcome.ACKNOWLEDGED, 2, 1),
    ]
    forks = [Forking(F, A, 2, 2, answered=True, commit_ts=3, at_ts=2, depth=1)]
    reads: list[AnyRead] = [
        Read(A, 2, {"z": Z}, began_ns=clock_ns(4), ended_ns=clock_ns(6)),
        Read(A, 2, {"z": expired(Z)}, began_ns=clock_ns(4), ended_ns=clock_ns(6)),
        Read(F, 5, {"x": X, "w": W}, "", began_ns=clock_ns(6), ended_ns=clock_ns(6)),
    ]
    events = (AT_1, AT_2, seen_as(F, AT_1), seen_as(F, AT_2), AT_4, AT_5)
    states = {
        A: {"x": X, "w": W, "y": left_by(AT_4)["y"], "z": expired(Z)},
        F: {"x": X, "w": W, "y": left_by(AT_5)["y"]},
    }
    lineages = {A: Lineage((), (Origin(F, 2, 3),)), F: Lineage((Origin(A, 2, 3),))}
    asked_ns = dict.fromkeys((A, F), (clock_ns(6), clock_ns(6.5)))
    load = Load(submissions, reads, 3, forks=forks)
    return load, Evidence(events, {}, states, lineages, asked_ns=asked_ns, noted=frozenset({6}))


def expiring_second_run() -> tuple[Load, Evidence]:
    """Z is deleted in A at 7, and written over in F at 10; y is written at 8 and, as it expires, at 9.

    G is forked of A at 11, point 8: what it has of y and q had expired. It is deleted at 12, which 13 notes.
    V, of 14, has expired at 15 and is not deleted yet.
    """
    submissions = [
        Submission("t8", _sent(AT_8), Outcome.ACKNOWLEDGED, 8, 7, checks=(Checked(A, "exists", 0, "y"),)),
        Submission("t9", _sent(AT_9), Outcome.ACKNOWLEDGED, 9, 8, checks=(Checked(A, "exists", 1, "y"),)),
        Submission("t10", _sent(AT_10), Outcome.ACKNOWLEDGED, 10, 9, checks=(Checked(F, "exists", 0, "z"),)),
        Submission("t14", _sent(AT_14), Outcome.ACKNOWLEDGED, 14, 11, checks=(Checked(A, "exists", 1, "w"),)),
    ]
    for submission in submissions:
        submission.sent_ns = clock_ns(int(submission.txn_id[1:]) - 0.5)
    forks = [Forking(G, A, 8, 10, answered=True, commit_ts=11, at_ts=8, depth=1)]
    at_8, at_9 = left_by(AT_8), left_by(AT_9)
    reads: list[AnyRead] = [
        Read(A, 8, {"x": X, "w": W, **at_8}, "", began_ns=clock_ns(8), ended_ns=clock_ns(8)),
        Read(A, 8, {"x": X, "w": W}, "", began_ns=clock_ns(8.5), ended_ns=clock_ns(9)),
        Read(A, 8, {"x": X, "w": W, **at_9}, "", began_ns=clock_ns(9), ended_ns=clock_ns(9.5)),
        Read(A, 14, {"y": at_8["y"]}, at_ts=8),
        Listed(A, 8, ("x", "w"), began_ns=clock_ns(8.5), ended_ns=clock_ns(9)),
        Listed(A, 9, ("x", "w", "y"), began_ns=clock_ns(9.5), ended_ns=clock_ns(9.5)),
        Found(A, 8, Checked(A, "exists", 1, "y"), version=3, began_ns=clock_ns(8.5), ended_ns=clock_ns(9)),
        Found(A, 8, Checked(A, "version", 4, "y"), 3, exists=True, began_ns=clock_ns(8), ended_ns=clock_ns(9)),
        Read(G, 11, {"x": X, "w": W}, "", began_ns=clock_ns(11), ended_ns=clock_ns(11)),
        VersionRead(A, 14, "z", 1, Z),
        VersionRead(F, 14, "z", 1, Z),
        VersionRead(G, 14, "y", 3, at_8["y"]),
        Replayed(A, 14, 0, None, (AT_1, AT_2, AT_4, AT_7, AT_8, AT_9, AT_14)),
    ]
    inherited = [seen_as(G, event) for event in (AT_1, AT_2, AT_4, AT_7, AT_8)]
    events = (AT_7, AT_8, AT_9, AT_10, *inherited, AT_12, AT_14, AT_15)
    v = left_by(AT_14)["v"]
    states = {
        A: {**left_by(AT_14), "w": W, "y": at_9["y"], "z": left_by(AT_7)["z"], "v": expired(v), **left_by(AT_15)},
        F: {"x": X, "w": W, "y": left_by(AT_5)["y"], **left_by(AT_10)},
        G: {"x": X, "w": W, **left_by(AT_7), **left_by(AT_12)},
    }
    lineages = {
        A: Lineage((), (Origin(G, 8, 11), Origin(F, 2, 3))),
        F: Lineage((Origin(A, 2, 3),)),
        G: Lineage((Origin(A, 8, 11),)),
    }
    asked_ns = dict.fromkeys((A, F, G), (clock_ns(15.1), clock_ns(15.5)))
    load = Load(submissions, reads, 14, forks=forks)
    return load, Evidence(events, {}, states, lineages, asked_ns=asked_ns, noted=frozenset({13}))
