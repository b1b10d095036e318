"""Judges what commits had made a condition, against what stood just before each of them."""

from collections.abc import Iterator, Sequence

from histories.agents_judged import Lives, name_of
from histories.expiry_judged import States
from histories.lasting import Look, microseconds
from histories.leases_judged import Leases
from histories.submissions import Checked, Submission
from statehouse import ReplayEvent, StateResult

__all__ = ["wrong_conditions"]


def wrong_conditions(
    submission: Submission, parts: Sequence[ReplayEvent], states: States, lives: Lives, leases: Leases
) -> Iterator[str]:
    """What did not hold of a transaction that was committed, with `parts` as its events, and all else as before it."""
    commit_ts = parts[0].commit_ts
    for checked in submission.checks:
        agent = checked.agent
        state = states.get(agent, {}).get(checked.key)
        stood: int
        match checked.of:
            case "version":
                stood = 0 if state is None else state.version
            case "exists":
                stood = int(_existed(checked, state, submission, parts))
            case "event":
                stood = lives.newest_ts(agent)
            case _:
                stood = leases.epoch(agent, commit_ts)
        if stood != checked.wanted:
            yield (
                f"commit_ts {commit_ts}: {submission.txn_id} was committed under the condition that {checked.of} of "
                f"{name_of(agent)} key {checked.key!r} is {checked.wanted}, and it was {stood}"
            )


def _existed(checked: Checked, state: StateResult | None, submission: Submission, parts: Sequence[ReplayEvent]) -> bool:
    """Whether the key had a value: what was wanted, if that may be at some time from the sending to the commit."""
    if state is None or not state.exists:
        return False
    look = Look(submission.sent_ns // 1_000, microseconds(parts[0].committed_at))
    return look.may_show(state) if checked.wanted else not look.may_hide(state)
