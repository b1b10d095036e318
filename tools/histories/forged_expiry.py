"""Forgeries of values that expire, of an honest history (expiring_history.py): what the oracle must refuse."""

from typing import Any, Final

from attrs import evolve

from histories.expiring_history import (
    AT_1,
    AT_4,
    AT_8,
    AT_9,
    AT_14,
    W,
    X,
    Z,
    clock_ns,
    deleted,
    event_with,
    expiring_first_run,
    expiring_second_run,
    left_by,
    write,
)
from histories.forged import A
from histories.forging import Change, Forgery, too, uncaught, with_read, with_submission
from histories.forked_history import F, G
from histories.lasting import expired
from histories.oracle import Evidence, Oracle
from histories.submissions import Checked, Found, Listed, Load, Read, Replayed, VersionRead
from statehouse import Operation, StateResult
from statehouse.limits import SWEEP_KEYS
from statehouse.types import AgentId

__all__ = ["FORGERIES_OF_EXPIRY", "failures_of_expiry", "violations_of_expiry"]

LAST_LOOK_S: Final = 14.9
"""When all that had expired before is to be deleted."""
Y_AT_8, Q_AT_8, Y_AT_9 = left_by(AT_8)["y"], left_by(AT_8)["q"], left_by(AT_9)["y"]


def failures_of_expiry() -> list[str]:
    """What is wrong with the oracle; nothing, if it accepts what is honest and catches every forgery."""
    return uncaught(FORGERIES_OF_EXPIRY, violations_of_expiry)


def violations_of_expiry(change: Change, *, forget: bool = False) -> list[str]:
    """Judge the two runs, the second one changed; the first one may be forgotten before."""
    oracle = Oracle()
    told = oracle.judge(*expiring_first_run())
    if forget:
        oracle.forget()
    load, evidence = expiring_second_run()
    return told + oracle.judge(load, change(load, evidence)) + oracle.left_over(clock_ns(LAST_LOOK_S))


# What is forged


def _read(agent: AgentId, found: dict[str, StateResult], began_s: float, ended_s: float, **how: Any) -> Change:
    return with_read(Read(agent, 8, found, began_ns=clock_ns(began_s), ended_ns=clock_ns(ended_s), **how))


def _conflict(checked: Checked, version: int, at_s: float, *, exists: bool) -> Change:
    return with_read(
        Found(checked.agent, 8, checked, version, exists, began_ns=clock_ns(at_s), ended_ns=clock_ns(at_s))
    )


def _event(commit_ts: int, *operations: Operation) -> Change:
    """The event of a commit has other operations, or, with none, is not there."""

    def change(_: Load, evidence: Evidence) -> Evidence:
        events = [
            evolve(event, operations=operations) if event.commit_ts == commit_ts else event
            for event in evidence.events
            if operations or event.commit_ts != commit_ts
        ]
        return evolve(evidence, events=tuple(events))

    return change


def _moved(from_ts: int, to_ts: int) -> Change:
    def change(_: Load, evidence: Evidence) -> Evidence:
        events = [
            evolve(event, commit_ts=to_ts if event.commit_ts == from_ts else event.commit_ts)
            for event in evidence.events
        ]
        return evolve(evidence, events=tuple(events))

    return change


def _noted(*noted: int) -> Change:
    return lambda _, evidence: evolve(evidence, noted=frozenset(noted))


def _unseen(_: Load, evidence: Evidence) -> Evidence:
    """Nobody could look for notes."""
    return evolve(evidence, noted=None)


def _both(one: Change, other: Change) -> Change:
    return lambda load, evidence: other(load, one(load, evidence))


def _state(agent: AgentId, key: str, state: StateResult | None) -> Change:
    def change(_: Load, evidence: Evidence) -> Evidence:
        states = {**evidence.states[agent]}
        if state is None:
            del states[key]
        else:
            states[key] = state
        return evolve(evidence, states={**evidence.states, agent: states})

    return change


def _checks(txn_id: str, checked: Checked) -> Change:
    return with_submission(txn_id, checks=(checked,))


FORGERIES_OF_EXPIRY: Final = (
    # Reads
    Forgery("a value that is shown after it had expired", _read(A, {"y": Y_AT_8}, 9.1, 9.2), "when it had expired"),
    Forgery(
        "a scan that shows what had expired", _read(A, {"x": X, "w": W, "y": Y_AT_8}, 9.1, 9.2, prefix=""), "when it"
    ),
    Forgery(
        "a list that shows what had expired",
        with_read(Listed(A, 8, ("x", "w", "y", "q"), 0, *(clock_ns(9.1),) * 2)),
        "shows key 'q'",
    ),
    Forgery("a value that is absent too early", _read(A, {"y": expired(Y_AT_8)}, 8.2, 8.9), "when it had not expired"),
    Forgery(
        "a value that is absent and does not expire", _read(A, {"x": expired(X)}, 8, 99), "when it had not expired"
    ),
    Forgery(
        "a scan that leaves out a value too early",
        _read(A, {"x": X, **left_by(AT_8)}, 8, 8.5, prefix=""),
        "left out key 'w'",
    ),
    Forgery(
        "a list that leaves out a value too early",
        with_read(Listed(A, 9, ("x", "y"), 0, *(clock_ns(9.1),) * 2)),
        "left out key 'w'",
    ),
    Forgery(
        "a scan of two moments of the clock",
        _read(A, {"x": X, "w": W, "q": Q_AT_8}, 8.5, 9.5, prefix=""),
        "left out key 'y'",
    ),
    Forgery(
        "one call of two moments of the clock",
        _read(A, {"y": Y_AT_8, "q": expired(Q_AT_8)}, 8.5, 9.5),
        "when it had not expired",
    ),
    Forgery(
        "a read that lost when the value expires", _read(A, {"w": evolve(W, expires_at=None)}, 8, 8), "no commit left"
    ),
    Forgery(
        "a read of another time to expire", _read(A, {"w": evolve(W, expires_at=Z.expires_at)}, 8, 8), "no commit left"
    ),
    Forgery(
        "a past that knows of the clock", _read(A, {"y": expired(Y_AT_8)}, 9, 10, at_ts=8), "when it had not expired"
    ),
    Forgery(
        "a version that lost when it expires",
        with_read(VersionRead(A, 14, "z", 1, evolve(Z, expires_at=None))),
        "version 1 showed",
    ),
    Forgery(
        "a replay without a TTL",
        with_read(
            Replayed(A, 8, 1, 1, (evolve(AT_1, operations=(write("x", 1, 1), write("y", 1, 1, 2), write("w", 1, 1))),))
        ),
        "not those",
    ),
    Forgery(
        "a replay that hides why it was deleted",
        with_read(Replayed(A, 8, 4, 4, (evolve(AT_4, operations=(Operation("y", None, 2),)),))),
        "not those",
    ),
    # Conditions
    Forgery(
        "a conflict over what had expired",
        _conflict(Checked(A, "exists", 0, "y"), 3, 9.1, exists=True),
        "when it had expired",
    ),
    Forgery(
        "a conflict over what had not expired yet",
        _conflict(Checked(A, "exists", 1, "y"), 3, 8.9, exists=False),
        "when it had not",
    ),
    Forgery(
        "a condition that took what had expired for there",
        _checks("t10", Checked(F, "exists", 1, "z")),
        "is 1, and it was 0",
    ),
    Forgery(
        "a condition that took what lasts for expired",
        _checks("t14", Checked(A, "exists", 0, "w")),
        "is 0, and it was 1",
    ),
    # The store's own deletes
    Forgery("a tombstone before its time", too(event_with(16, "s16", A, deleted("w", 2))), "and its value lasts until"),
    Forgery(
        "a tombstone of a value that does not expire", too(event_with(16, "s16", F, deleted("x", 2))), "does not expire"
    ),
    Forgery(
        "a tombstone of a value that was written over",
        too(event_with(16, "s16", F, deleted("z", 3))),
        "does not expire",
    ),
    Forgery("a tombstone of a value that lasts again", too(event_with(16, "s16", A, deleted("y", 5))), "lasts until"),
    Forgery("two tombstones", too(event_with(16, "s16", A, deleted("z", 3))), "and there was no value"),
    Forgery("two tombstones in one commit", _event(7, deleted("z", 2), deleted("z", 3)), "and there was no value"),
    Forgery("a tombstone of another version", _event(7, deleted("z", 3)), "has version 3 after version 1"),
    Forgery("a tombstone of what never was", too(event_with(16, "s16", G, deleted("u", 1))), "and there was no value"),
    Forgery("a tombstone with a value", _event(7, evolve(deleted("z", 2), value={})), "it is no tombstone"),
    Forgery(
        "a tombstone that does not say why", _event(12, deleted("y", 4), Operation("q", None, 2)), "it is no tombstone"
    ),
    Forgery("a delete that nobody sent", _event(7, Operation("z", None, 2)), "s7 was never sent"),
    Forgery("tombstones of two agents at once", too(event_with(12, "s12", A, deleted("y", 5))), "deleted of 2 agents"),
    Forgery(
        "too many tombstones at once",
        _event(12, *(deleted(f"{number}", 1) for number in range(SWEEP_KEYS + 1))),
        "too much of it",
    ),
    Forgery("what expired and is never deleted", _event(7), "key 'z' expired at"),
    Forgery("a fork that keeps what expired for ever", _event(12, deleted("y", 4)), "default/g key 'q' expired at"),
    # What was sent
    Forgery("a TTL that became another", _event(9, write("y", 9, 4, 31)), "t9 is torn"),
    Forgery("a TTL that got lost", _event(9, write("y", 9, 4)), "t9 is torn"),
    Forgery("a TTL that nobody asked for", _event(10, write("z", 10, 2, 100)), "t10 is torn"),
    Forgery(
        "a client's delete that is said to be the store's",
        _event(14, deleted("x", 2), *AT_14.operations[1:]),
        "t14 is torn",
    ),
    # Notes
    Forgery("a commit_ts that no note explains", _noted(), "commit_ts 13 is missing"),
    Forgery("more notes than there are reasons for", _both(_unseen, _moved(14, 25)), "is missing"),
    Forgery("a note at the place of a commit", _noted(8, 13), "commit_ts 8 is used twice"),
    # States
    Forgery("a state that shows what had expired", _state(A, "v", left_by(AT_14)["v"]), "a value that had expired"),
    Forgery("a state that lost a value that lasts", _state(A, "w", None), "key 'w': the state is nothing"),
    Forgery(
        "a state that shows a value as expired too early", _state(A, "y", expired(Y_AT_9)), "key 'y': the state is v4"
    ),
    Forgery(
        "a state of another time to expire", _state(A, "w", evolve(W, expires_at=Z.expires_at)), "key 'w': the state is"
    ),
    Forgery("a state from before a tombstone", _state(G, "q", expired(Q_AT_8)), "key 'q': the state is v1"),
)
