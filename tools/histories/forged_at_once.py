"""Forgeries of what one call does: conditions, repeated transactions, leases, and reads of a moment that is past.

As in forged.py: an honest history that the oracle accepts, and what it must refuse, one thing at a time.
"""

from collections.abc import Callable
from typing import Any, Final

from attrs import evolve, frozen

from histories.forged import A, B, event_of, set_to, state_of
from histories.oracle import Evidence, Oracle
from histories.submissions import AnyRead, Checked, Found, Leased, Load, Outcome, Read, Repeated, Submission

__all__ = ["FORGERIES_AT_ONCE", "ForgedLoad", "failures_at_once", "violations_at_once"]

X_AT_1: Final = Checked(A, "version", 1, "x")


@frozen
class ForgedLoad:
    """What is done to the load, and what the oracle has to say of it."""

    name: str
    change: Callable[[Load], object]
    found: str


def failures_at_once() -> list[str]:
    """What is wrong with the oracle; nothing, if it accepts what is honest and catches every forgery."""
    wrong = [
        f"the honest history is not accepted: {violation}"
        for violation in violations_at_once(lambda load: load.newest_ts)
    ]
    for forgery in FORGERIES_AT_ONCE:
        violations = violations_at_once(forgery.change)
        if not any(forgery.found in violation for violation in violations):
            wrong.append(f"{forgery.name}: not caught; said: {violations or 'nothing'}")
    return wrong


def violations_at_once(change: Callable[[Load], object]) -> list[str]:
    """Judge the history with the load changed."""
    load, evidence = _run()
    change(load)
    return Oracle().judge(load, evidence)


def _run() -> tuple[Load, Evidence]:
    """Commits 1, 2, 4 and 7; a lease is acquired at 3 and released at 5; what took 6 was a lease without an answer."""
    first = (Checked(A, "version", 0, "x"), Checked(B, "event", 0), Checked(A, "exists", 0, "z"))
    second = (Checked(A, "exists", 1, "x"), Checked(A, "event", 1))
    submissions = [
        Submission("c1", (set_to(A, "x", 1),), Outcome.ACKNOWLEDGED, 1, checks=first, at_once=True),
        Submission("c2", (set_to(A, "x", 2),), Outcome.ACKNOWLEDGED, 2, 1, checks=second, at_once=True),
        Submission(
            "c4", (set_to(B, "y", 4),), Outcome.ACKNOWLEDGED, 4, 3, checks=(Checked(A, "lease", 1),), at_once=True
        ),
        Submission("c7", (set_to(A, "x", 7),), Outcome.UNKNOWN, None, 5, at_once=True),
        Submission("refused", (set_to(A, "x", 8),), Outcome.NEVER, checks=(X_AT_1,), at_once=True),
    ]
    events = (
        event_of(1, "c1", A, ("x", 1, 1)),
        event_of(2, "c2", A, ("x", 2, 2)),
        event_of(4, "c4", B, ("y", 4, 1)),
        event_of(7, "c7", A, ("x", 7, 3)),
    )
    reads: list[AnyRead] = [
        Found(A, 2, X_AT_1, version=2, exists=True),
        Found(A, 1, Checked(A, "event", 0), event_ts=2),
        Found(B, 0, Checked(B, "exists", 0, "y"), version=1, exists=True),
        Found(A, 4, Checked(A, "lease", 2)),
        Read(A, 5, {"x": state_of(1, 1, 1)}, at_ts=1),
        Read(A, 5, {"x": state_of(2, 2, 2)}, at_ts=4),
        Read(A, 5, {"x": state_of(None, 0, 0)}, at_ts=0),
    ]
    repeated = [Repeated("c1", 1, deduplicated=False), Repeated("c1", 1, deduplicated=True)]
    leased = [
        Leased(A, 2, "acquired", 1, 3),
        Leased(A, 4, "released", 1, 5),
        Leased(A, 5, "acquired"),
    ]
    states = {A: {"x": state_of(7, 3, 7)}, B: {"y": state_of(4, 1, 4)}}
    return Load(submissions, reads, 5, repeated, leased=leased), Evidence(events, {"c7": 7}, states)


def _checks(name: str, *checks: Checked) -> Callable[[Load], None]:
    """A transaction had other conditions."""

    def change(load: Load) -> None:
        for submission in load.submissions:
            if submission.txn_id == name:
                submission.checks = checks

    return change


def _lease(number: int, **changes: Any) -> Callable[[Load], None]:
    def change(load: Load) -> None:
        load.leased[number] = evolve(load.leased[number], **changes)

    return change


def _read(read: AnyRead) -> Callable[[Load], None]:
    return lambda load: load.reads.append(read)


def _repeated(answer: Repeated) -> Callable[[Load], None]:
    return lambda load: load.repeated.append(answer)


FORGERIES_AT_ONCE: Final = (
    ForgedLoad("a version that was another", _checks("c2", Checked(A, "version", 2, "x")), "and it was 1"),
    ForgedLoad("a version of what was never written", _checks("c2", Checked(A, "version", 0, "x")), "and it was 1"),
    ForgedLoad("a key that had to exist", _checks("c1", Checked(A, "exists", 1, "x")), "and it was 0"),
    ForgedLoad("a key that must not exist", _checks("c2", Checked(A, "exists", 0, "x")), "and it was 1"),
    ForgedLoad("an agent that had moved on", _checks("c7", Checked(A, "event", 1)), "and it was 2"),
    ForgedLoad("an agent that is not written to", _checks("c4", Checked(A, "event", 1)), "and it was 2"),
    ForgedLoad("an epoch that was never given", _checks("c2", Checked(A, "lease", 1)), "and it was 0"),
    ForgedLoad("a lease that was released", _checks("c7", Checked(A, "lease", 1)), "and it was 0"),
    ForgedLoad("an older epoch", _lease(0, epoch=2), "lease of default/a key '' is 1, and it was 2"),
    ForgedLoad("an epoch that is given twice", _lease(1, what="acquired"), "a lease of epoch 1 after 1"),
    ForgedLoad("a lease at the place of a commit", _lease(1, commit_ts=4), "commit_ts 4 is used twice"),
    ForgedLoad("a lease before what was told", _lease(1, floor_ts=6), "a lease was released when commit_ts 6"),
    ForgedLoad("a number that nobody took", _lease(2, commit_ts=8), "commit_ts 6 is missing"),
    ForgedLoad(
        "another answer", _repeated(Repeated("c2", 4, deduplicated=True)), "sent once more, it is at commit_ts 4"
    ),
    ForgedLoad("two first answers", _repeated(Repeated("c1", 1, deduplicated=False)), "say that they are the first"),
    ForgedLoad(
        "an answer to what did not happen", _repeated(Repeated("refused", 3, deduplicated=True)), "it is at None"
    ),
    ForgedLoad("a conflict without one", _read(Found(A, 1, X_AT_1, version=1, exists=True)), "over what was wanted"),
    ForgedLoad(
        "a conflict over nothing", _read(Found(A, 1, X_AT_1, version=9, exists=True)), "no commit left standing"
    ),
    ForgedLoad("a conflict that tells of a key that is gone", _read(Found(A, 2, X_AT_1, version=2)), "no commit left"),
    ForgedLoad(
        "a stale conflict",
        _read(Found(A, 2, Checked(A, "version", 2, "x"), version=1, exists=True)),
        "stale: a conflict",
    ),
    ForgedLoad(
        "a conflict over the same event", _read(Found(A, 2, Checked(A, "event", 2), event_ts=2)), "was wanted, 2"
    ),
    ForgedLoad(
        "a conflict that tells of no event",
        _read(Found(A, 2, Checked(A, "event", 2), event_ts=3)),
        "which there is not",
    ),
    ForgedLoad(
        "a conflict that tells of an old event",
        _read(Found(A, 2, Checked(A, "event", 2), event_ts=1)),
        "a stale conflict",
    ),
    ForgedLoad(
        "a moment before it was",
        _read(Read(A, 5, {"x": state_of(2, 2, 2)}, at_ts=1)),
        "as of commit_ts 1 showed key 'x'",
    ),
    ForgedLoad(
        "a moment when it was no more", _read(Read(A, 5, {"x": state_of(1, 1, 1)}, at_ts=2)), "as of commit_ts 2 showed"
    ),
)
