"""Judges what becomes of values that expire: the store's own tombstones, and the states that it shows before them.

A tombstone of what expired is an event that nobody sent: of one agent, over the newest version of each of its keys,
which had a value until then, and one that had expired by the event's own time. How far everything was deleted is noted
in commits that show no event. Whoever can look into the log knows which they are; for others, there are no more of them
than there were reasons to look for something expired.
"""

from collections.abc import Iterator, Mapping, Sequence

from attrs import define

from histories.agents_judged import name_of
from histories.lasting import Look, expired, expiry_us, microseconds
from histories.reads_of_history import shown
from statehouse import ReplayEvent, StateResult
from statehouse.limits import SWEEP_KEYS
from statehouse.types import AgentId

__all__ = ["Expiry", "States", "unswept", "wrong_state", "wrong_sweep"]

States = Mapping[AgentId, Mapping[str, StateResult]]


@define
class Expiry:
    """What is known of it, run after run."""

    tombstones: int = 0
    """Keys that were deleted because their values had expired."""
    hidden: int = 0
    """How often a read showed something as absent, or left it out, because it had expired."""
    may_be_noted: int = 0
    """How many notes nobody has seen there may be yet: one for each value that expires, and for each fork."""

    def count(self, event: ReplayEvent) -> None:
        """An agent's next event; of a fork's, those of its own."""
        self.may_be_noted += sum(operation.ttl_s is not None for operation in event.operations)
        self.tombstones += sum(operation.expired for operation in event.operations)


def wrong_sweep(commit_ts: int, parts: Sequence[ReplayEvent], states: States) -> Iterator[str]:
    """What is wrong with a commit of the store's own, by the states before it."""
    if len(parts) > 1 or sum(len(event.operations) for event in parts) > SWEEP_KEYS:
        yield f"commit_ts {commit_ts}: what has expired is deleted of {len(parts)} agents, or too much of it at once"
    for event in parts:
        agent = AgentId(event.namespace, event.agent_id)
        keys: set[str] = set()
        for operation in event.operations:
            key, before = operation.key, states.get(agent, {}).get(operation.key)
            what = f"commit_ts {commit_ts}: {name_of(agent)} key {key!r}"
            if operation.value is not None or not operation.expired or operation.ttl_s is not None:
                yield f"{what}: nobody sent this, and it is no tombstone of what has expired"
            if before is None or not before.exists or key in keys:
                yield f"{what} is deleted because it had expired, and there was no value"
            elif before.expires_at is None:
                yield f"{what} is deleted because it had expired, and its value does not expire"
            elif expiry_us(before) > microseconds(event.committed_at):
                yield f"{what} is deleted because it had expired, and its value lasts until {before.expires_at}"
            keys.add(key)


def wrong_state(
    agent: AgentId, key: str, found: StateResult | None, expected: StateResult | None, look: Look
) -> str | None:
    """What is wrong with a state as it is now, by what its events give."""
    if found == expected:
        if expected is not None and expected.exists and not look.may_show(expected):
            return f"{name_of(agent)} key {key!r}: the state has a value that had expired, at {expected.expires_at}"
        return None
    if expected is not None and expected.exists and look.may_hide(expected) and found in {None, expired(expected)}:
        return None
    return f"{name_of(agent)} key {key!r}: the state is {shown(found)}, its events give {shown(expected)}"


def unswept(states: States, now_ns: int) -> Iterator[str]:
    """Values that had expired and are not deleted, though all of them have had their time."""
    for agent, found in states.items():
        for key, state in found.items():
            if state.exists and expiry_us(state) < now_ns // 1_000:
                yield f"{name_of(agent)} key {key!r} expired at {state.expires_at}, and was never deleted"
