"""An honest history of forks and ends, in two runs: what clients know of it, and what a store shows."""

from typing import Final

from attrs import evolve

from histories.forged import A, B, event_of, set_to, state_of
from histories.lineages import DELETED, GAP, NOTHING_THEN, TAKEN, UNKNOWN, Described, Forking, Lineage, Origin, Refused
from histories.oracle import Evidence
from histories.submissions import (
    AnyRead,
    Checked,
    Found,
    Load,
    Outcome,
    Read,
    Replayed,
    Staged,
    Submission,
    VersionRead,
)
from statehouse import ReplayEvent
from statehouse.types import AgentId

__all__ = ["AT_1", "NOTHING", "F", "G", "H", "N", "first_run", "second_run", "seen_as"]

F: Final = AgentId("default", "f")
G: Final = AgentId("default", "g")
H: Final = AgentId("default", "h")
N: Final = AgentId("default", "nobody")
NOTHING: Final = state_of(None, 0, 0)


def first_run() -> tuple[Load, Evidence]:
    """X is written at 1 and 2, and F is forked of A at 3, point 1."""
    submissions = [
        Submission("t1", (set_to(A, "x", 1), set_to(A, "y", 1)), Outcome.ACKNOWLEDGED, 1),
        Submission("t2", (set_to(A, "x", 2),), Outcome.ACKNOWLEDGED, 2, 1),
    ]
    forks = [Forking(F, A, 1, 2, answered=True, commit_ts=3, at_ts=1, depth=1)]
    reads: list[AnyRead] = [
        Refused(N, 2, UNKNOWN),
        Read(F, 2, {"x": NOTHING}),
        Read(F, 2, {"x": state_of(1, 1, 1)}),
        Read(F, 3, {"x": state_of(1, 1, 1)}),
        Read(F, 3, {"x": state_of(1, 1, 1)}, at_ts=1),
    ]
    lineages = {A: Lineage((), (Origin(F, 1, 3),)), F: Lineage((Origin(A, 1, 3),))}
    events = (*AT_1, event_of(2, "t2", A, ("x", 2, 2)), seen_as(F, AT_1[0]))
    states = {A: {"x": state_of(2, 2, 2), "y": state_of(1, 1, 1)}, F: {"x": state_of(1, 1, 1), "y": state_of(1, 1, 1)}}
    described = {
        A: Described(2, 3, 2, 1, 2, deleted=False, origin=None),
        F: Described(1, 2, 2, 1, 1, deleted=False, origin=Origin(A, 1, 3)),
        N: None,
    }
    load = Load(submissions, reads, 3, forks=forks)
    return load, Evidence(events, {}, states, lineages, described)


def second_run() -> tuple[Load, Evidence]:
    """F is written to at 4 and A at 5, G forked of F at 6, F ended at 7 and brought back at 8.

    A is ended at 9, without an answer; H is forked of A at 10, likewise, at point 8. A is ended once more, brought back
    at 11, emptied at 12, and ended at 13, with nothing left to delete.
    """
    at_4 = Checked(F, "version", 1, "x")
    submissions = [
        Submission("t4", (set_to(F, "x", 4),), Outcome.ACKNOWLEDGED, 4, 3, checks=(at_4,), at_once=True),
        Submission("t5", (set_to(A, "x", 5),), Outcome.ACKNOWLEDGED, 5, 4),
        Submission("e7", (), Outcome.ACKNOWLEDGED, 7, 6, ends=F, deleted_keys=2),
        Submission("e7 too", (), Outcome.ACKNOWLEDGED, 7, 7, ends=F),
        Submission("t8", (set_to(F, "z", 8),), Outcome.ACKNOWLEDGED, 8, 7, checks=(Checked(F, "exists", 0, "z"),)),
        Submission("e9", (), Outcome.UNKNOWN, None, 8, ends=A),
        Submission("e9 again", (), Outcome.ACKNOWLEDGED, 9, 8, ends=A),
        Submission("t11", (set_to(A, "x", 11),), Outcome.ACKNOWLEDGED, 11, 9, revive=True),
        Submission("t12", (Staged(A, "x", None),), Outcome.ACKNOWLEDGED, 12, 11),
        Submission("e13", (), Outcome.ACKNOWLEDGED, 13, 12, ends=A),
        Submission("e13 too", (), Outcome.UNKNOWN, None, 12, ends=A),
        Submission("refused", (set_to(F, "x", 9),), Outcome.NEVER),
    ]
    forks = [
        Forking(G, F, None, 5, answered=True, commit_ts=6, at_ts=5, depth=2),
        Forking(H, A, 8, 8),
        Forking(H, A, None, 8),
        Forking(G, A, None, 6, refused=True),
        Forking(G, G, None, 6, refused=True),
        Forking(N, H, 0, 8, refused=True),
    ]
    own_at_4 = event_of(4, "t4", F, ("x", 4, 2))
    own_at_5 = event_of(5, "t5", A, ("x", 5, 3))
    end_of_f = event_of(7, "e7", F, ("x", None, 3), ("y", None, 2))
    end_of_a = event_of(9, "e9", A, ("x", None, 4), ("y", None, 2))
    inherited = [seen_as(H, event) for event in (AT_1[0], event_of(2, "t2", A, ("x", 2, 2)), own_at_5)]
    events = (
        own_at_4,
        own_at_5,
        end_of_f,
        event_of(8, "t8", F, ("z", 8, 1)),
        end_of_a,
        event_of(11, "t11", A, ("x", 11, 5)),
        event_of(12, "t12", A, ("x", None, 6)),
        seen_as(G, AT_1[0]),
        seen_as(G, own_at_4),
        *inherited,
    )
    f_at_5 = {"x": state_of(4, 2, 4), "y": state_of(1, 1, 1)}
    a_at_8 = {"x": state_of(5, 3, 5), "y": state_of(1, 1, 1)}
    reads: list[AnyRead] = [
        Read(G, 5, {}, prefix=""),
        Read(G, 6, f_at_5, prefix=""),
        Read(G, 7, {"x": state_of(4, 2, 4)}, at_ts=4),
        Read(F, 7, {}, prefix=""),
        VersionRead(G, 6, "x", 1, state_of(1, 1, 1)),
        VersionRead(G, 6, "x", 2, state_of(4, 2, 4)),
        VersionRead(G, 6, "x", 3, NOTHING),
        Replayed(G, 6, 0, None, (seen_as(G, AT_1[0]), seen_as(G, own_at_4))),
        Replayed(F, 4, 0, 4, (seen_as(F, AT_1[0]), own_at_4)),
        Replayed(H, 0, 9, 8, ()),
        Found(H, 5, Checked(H, "event", 3)),
        Found(G, 6, Checked(G, "event", 3), event_ts=4),
        Refused(G, 5, TAKEN),
        Refused(N, 6, UNKNOWN),
        Refused(H, 8, NOTHING_THEN, 0),
        Refused(F, 6, DELETED, 7),
        Refused(B, 7, DELETED, 7, others=(F,)),
        Refused(H, 0, GAP, 5),
    ]
    states = {
        A: {"x": state_of(None, 6, 12), "y": state_of(None, 2, 9)},
        F: {"x": state_of(None, 3, 7), "y": state_of(None, 2, 7), "z": state_of(8, 1, 8)},
        G: f_at_5,
        H: a_at_8,
    }
    lineages = {
        A: Lineage((), (Origin(H, 8, 10), Origin(F, 1, 3))),
        F: Lineage((Origin(A, 1, 3),), (Origin(G, 5, 6),)),
        G: Lineage((Origin(F, 5, 6), Origin(A, 1, 3))),
        H: Lineage((Origin(A, 8, 10),)),
        N: Lineage(),
    }
    described = {
        A: Described(6, 8, 0, 1, 12, deleted=True, origin=None),
        F: Described(4, 6, 1, 1, 8, deleted=False, origin=Origin(A, 1, 3)),
        G: Described(2, 3, 2, 1, 4, deleted=False, origin=Origin(F, 5, 6)),
        H: Described(3, 4, 2, 1, 5, deleted=False, origin=Origin(A, 8, 10)),
        N: None,
    }
    load = Load(submissions, reads, 13, forks=forks)
    return load, Evidence(events, {}, states, lineages, described)


def seen_as(agent: AgentId, event: ReplayEvent) -> ReplayEvent:
    """As a fork has it."""
    return evolve(event, namespace=agent.namespace, agent_id=agent.agent_id)


AT_1: Final = (event_of(1, "t1", A, ("x", 1, 1), ("y", 1, 1)),)
