"""Forgeries of forks and ends, as in forged_at_once.py: an honest history, and what the oracle must refuse of others.

Two runs, so that what is forged may be of a fork of this run or of one before, whose events may be forgotten.
"""

from typing import Any, Final

from attrs import evolve

from histories.forged import A, event_of, state_of
from histories.forging import Change, Forgery, too, uncaught, with_read, with_submission
from histories.forked_history import AT_1, NOTHING, F, G, H, N, first_run, second_run, seen_as
from histories.lineages import DELETED, GAP, NOTHING_THEN, REVIVED, TAKEN, UNKNOWN, Lineage, Origin, Refused
from histories.oracle import Evidence, Oracle
from histories.submissions import (
    Checked,
    Load,
    Outcome,
    Read,
    Replayed,
    VersionRead,
)
from statehouse import StateResult
from statehouse.types import AgentId

__all__ = ["FORGERIES_OF_FORKS", "failures_of_forks", "violations_of_forks"]


def failures_of_forks() -> list[str]:
    """What is wrong with the oracle; nothing, if it accepts what is honest and catches every forgery."""
    return uncaught(FORGERIES_OF_FORKS, violations_of_forks)


def violations_of_forks(change: Change, *, forget: bool = False) -> list[str]:
    """Judge the two runs, the second one changed; the first one may be forgotten before."""
    oracle = Oracle()
    told = oracle.judge(*first_run())
    if forget:
        oracle.forget()
    load, evidence = second_run()
    return told + oracle.judge(load, change(load, evidence))


# What is forged


def _fork(number: int, **changes: Any) -> Change:
    def change(load: Load, evidence: Evidence) -> Evidence:
        for name, value in changes.items():
            setattr(load.forks[number], name, value)
        return evidence

    return change


def _lineage(agent: AgentId, **changes: Any) -> Change:
    return lambda _, evidence: evolve(
        evidence, lineages={**evidence.lineages, agent: evolve(evidence.lineages[agent], **changes)}
    )


def _described(agent: AgentId, **changes: Any) -> Change:
    def change(_: Load, evidence: Evidence) -> Evidence:
        found = evidence.described[agent]
        return evolve(evidence, described={**evidence.described, agent: found and evolve(found, **changes)})

    return change


def _state(agent: AgentId, key: str, state: StateResult) -> Change:
    return lambda _, evidence: evolve(
        evidence, states={**evidence.states, agent: {**evidence.states[agent], key: state}}
    )


def _event(commit_ts: int, agent: AgentId, *writes: tuple[str, int | None, int]) -> Change:
    """An event has other operations, or, with none, is not there."""

    def change(_: Load, evidence: Evidence) -> Evidence:
        events = []
        for event in evidence.events:
            if (event.commit_ts, event.namespace, event.agent_id) == (commit_ts, *agent):
                if writes:
                    events.append(evolve(event, operations=event_of(commit_ts, "", agent, *writes).operations))
            else:
                events.append(event)
        return evolve(evidence, events=tuple(events))

    return change


def _unforked(_: Load, evidence: Evidence) -> Evidence:
    """The fork G is not there, and with it all that it has."""
    others = {agent: lineage for agent, lineage in evidence.lineages.items() if agent != G}
    return evolve(
        evidence,
        events=tuple(event for event in evidence.events if event.agent_id != G.agent_id),
        states={**evidence.states, G: {}},
        lineages={**others, F: Lineage((Origin(A, 1, 3),)), G: Lineage()},
        described={**evidence.described, G: None},
    )


def _both(one: Change, other: Change) -> Change:
    return lambda load, evidence: other(load, one(load, evidence))


FORGERIES_OF_FORKS: Final = (
    # What a fork has
    Forgery("a later event of the parent in its fork", too(seen_as(G, event_of(5, "t5", A, ("x", 5, 3)))), "not those"),
    Forgery("a fork without an inherited event", _event(1, G), "not those of the history"),
    Forgery("a fork with the events of another moment", _event(4, G, ("x", 4, 3)), "not those of the history"),
    Forgery(
        "a later state of the parent in its fork",
        with_read(Read(F, 5, {"x": state_of(5, 3, 5)})),
        "which no commit left standing",
    ),
    Forgery("a write to the fork in its parent", with_read(Read(A, 4, {"x": state_of(4, 2, 4)})), "no commit left"),
    Forgery("a write to the parent as the state of the fork", _state(H, "x", state_of(11, 5, 11)), "the state is"),
    Forgery("a fork that is empty after it was told", with_read(Read(G, 6, {}, prefix="")), "left out key"),
    Forgery("a fork that counts versions anew", _event(4, F, ("x", 4, 1)), "has version 1 after version 1"),
    Forgery("an inherited version that is lost", with_read(VersionRead(G, 6, "x", 1, NOTHING)), "had no version 1"),
    Forgery(
        "a past that is the parent's of later",
        with_read(Read(H, 10, {"x": state_of(11, 5, 11)}, at_ts=11)),
        "no commit left",
    ),
    Forgery("a fork that lost its past", with_read(Read(H, 10, {"x": NOTHING}, at_ts=5)), "default/h: a read"),
    Forgery("a replay of the parent's events", with_read(Replayed(G, 6, 0, 1, AT_1)), "events of another agent"),
    Forgery("a replay without what is inherited", with_read(Replayed(G, 6, 0, None, ())), "a stale replay"),
    # What was told of forks
    Forgery("a fork that was told and is lost", _unforked, "the fork of default/f at commit_ts 6 is lost"),
    Forgery("another point than was told", _fork(0, at_ts=4), "the fork of default/f at commit_ts 6 is lost"),
    Forgery("another depth", _fork(0, depth=1), "its depth was told to be 1"),
    Forgery("a point before what had been told", _fork(0, floor_ts=7), "when 7 had been told"),
    Forgery("another point than was asked for", _fork(0, asked_ts=4), "point 4 was asked for"),
    Forgery("a refused fork that is there", _both(_fork(1, refused=True), _fork(2, refused=True)), "nobody forked it"),
    Forgery("a fork of another parent", _both(_fork(1, parent=F), _fork(2, parent=F)), "nobody forked it"),
    Forgery(
        "a fork at the place of a commit",
        _both(_lineage(H, ancestors=(Origin(A, 8, 11),)), _lineage(A, forks=(Origin(H, 8, 11), Origin(F, 1, 3)))),
        "commit_ts 11 is used twice",
    ),
    Forgery("two forks of one name", _fork(3, refused=False, answered=True, commit_ts=14, at_ts=6), "is lost"),
    Forgery("a fork that is forgotten", _lineage(F, ancestors=()), "its ancestors are ()"),
    Forgery("a step that is left out", _lineage(G, ancestors=(Origin(F, 5, 6),)), "its ancestors are"),
    Forgery("a parent that knows not of its fork", _lineage(A, forks=(Origin(F, 1, 3),)), "its forks are"),
    Forgery("a name that is taken and can be forked", too(event_of(2, "t2", H, ("x", 2, 1))), "not those"),
    # What is counted
    Forgery("commits that are not counted", _described(G, commits=1), "it is listed as"),
    Forgery("operations that are counted anew", _described(H, operations=2), "it is listed as"),
    Forgery("live keys of another moment", _described(H, live_keys=0), "it is listed as"),
    Forgery("a last commit of later", _described(H, last_ts=9), "it is listed as"),
    Forgery("an end that is not listed", _described(A, deleted=False), "it is listed as"),
    Forgery("an end that is passed on", _described(F, deleted=True), "it is listed as"),
    Forgery("a fork that is listed as none", _described(G, origin=None), "it is listed as"),
    Forgery("a deleted agent that is not listed", lambda _, e: evolve(e, described={**e.described, A: None}), "None"),
    # Ends
    Forgery("an end that leaves a key", _event(7, F, ("x", None, 3)), "e7 is torn"),
    Forgery("an end that deletes twice", _event(7, F, ("x", None, 3), ("x", None, 4), ("y", None, 2)), "e7 is torn"),
    Forgery("an end that tells of other keys", with_submission("e7", deleted_keys=1), "told of 1 deleted keys"),
    Forgery("an end without what it deleted", with_submission("e13", deleted_keys=1), "and has no event"),
    Forgery("an end that is told when the agent lives", with_submission("e7 too", floor_ts=8), "8 had brought it back"),
    Forgery("an end that never was", with_submission("e7 too", commit_ts=3), "there was none"),
    Forgery("an end without an event that has what to delete", _event(12, A), "1 keys had a value"),
    Forgery("an end before what was told", with_submission("e7", floor_ts=7), "e7 was sent when commit_ts 7"),
    Forgery("an end at the place of a fork", with_submission("e13", commit_ts=10), "used twice"),
    Forgery(
        "an end of what had ended",
        with_submission("e13 too", outcome=Outcome.ACKNOWLEDGED, commit_ts=14),
        "it had ended before, at 13",
    ),
    Forgery("an end that did not hold", with_submission("e7", checks=(Checked(F, "event", 3),)), "and it was 4"),
    # Deleted agents
    Forgery("a write to a deleted agent", with_submission("t11", revive=False), "did not say that it is to live again"),
    Forgery(
        "a write to a deleted agent with a condition on another",
        with_submission("t8", checks=(Checked(A, "event", 5),)),
        "did not say that it is to live again",
    ),
    Forgery("a refusal for an end that never was", with_read(Refused(A, 9, DELETED, 8)), "nobody ended it then"),
    Forgery("a refusal for an end that is over", with_read(Refused(F, 8, DELETED, 7)), "8 had brought it back"),
    Forgery(
        "a refusal of who knows of the end", with_read(Refused(A, 9, REVIVED)), "had said that it is to live again"
    ),
    # Refusals
    Forgery("a name that nobody has", with_read(Refused(N, 9, TAKEN)), "and nobody has it"),
    Forgery("an agent that is not known", with_read(Refused(F, 6, UNKNOWN)), "it is called unknown"),
    Forgery("a fork that is not known", with_read(Refused(H, 11, UNKNOWN)), "it is called unknown"),
    Forgery("a point that is refused", with_read(Refused(H, 11, NOTHING_THEN, 1)), "and it had been written to at 1"),
    Forgery("a gap that is none", with_read(Refused(H, 0, GAP, 6)), "and it had missed nothing"),
)
