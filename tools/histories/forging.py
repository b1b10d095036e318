"""What all forgeries of histories are made of: what is done to an honest one, and what the oracle must say of that."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

from attrs import evolve, frozen

from histories.oracle import Evidence
from histories.submissions import AnyRead, Load
from statehouse import ReplayEvent

__all__ = ["Change", "Forgery", "Violations", "honest", "too", "uncaught", "with_read", "with_submission"]

Change: TypeAlias = Callable[[Load, Evidence], Evidence]


@frozen
class Forgery:
    """What is done to the last run, and what the oracle has to say of it."""

    name: str
    change: Change
    found: str


class Violations(Protocol):
    """Judges the runs of one history, the last one changed; those before it may be forgotten first."""

    def __call__(self, change: Change, *, forget: bool = False) -> list[str]: ...


def uncaught(forgeries: Iterable[Forgery], violations: Violations) -> list[str]:
    """What is wrong with the oracle; nothing, if it accepts what is honest and catches every forgery."""
    wrong = [
        f"the honest history is not accepted: {violation}"
        for forget in (False, True)
        for violation in violations(honest, forget=forget)
    ]
    for forgery in forgeries:
        for forget in (False, True):
            found = violations(forgery.change, forget=forget)
            if not any(forgery.found in violation for violation in found):
                wrong.append(f"{forgery.name}: not caught; said: {found or 'nothing'}")
                break
    return wrong


def honest(_: Load, evidence: Evidence) -> Evidence:
    """Nothing is done."""
    return evidence


def with_read(read: AnyRead) -> Change:
    """Somebody was shown this, too."""

    def change(load: Load, evidence: Evidence) -> Evidence:
        load.reads.append(read)
        return evidence

    return change


def with_submission(txn_id: str, **changes: Any) -> Change:
    """A transaction was sent, or answered, in another way."""

    def change(load: Load, evidence: Evidence) -> Evidence:
        for submission in load.submissions:
            if submission.txn_id == txn_id:
                for name, value in changes.items():
                    setattr(submission, name, value)
        return evidence

    return change


def too(*events: ReplayEvent) -> Change:
    """There are these events, too."""
    return lambda _, evidence: evolve(evidence, events=(*evidence.events, *events))
