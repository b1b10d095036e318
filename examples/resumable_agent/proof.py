"""The proof that an agent's replay is its recorded run: each step there, once, in order, and nothing changed.

The judge is the recording's file. From the daemon it takes the events of a replay, and holds the state that other
calls show against them.
"""

import json
from itertools import pairwise, zip_longest
from typing import Final

from attrs import frozen

from examples.resumable_agent.agent import RUN_KEY
from examples.resumable_agent.recording import Recording, canonical
from examples.resumable_agent.steps import RebuildError, commits_of, rebuild
from statehouse import Operation, ReplayEvent, Statehouse, StateResult
from statehouse.types import JsonValue

__all__ = ["NotProvenError", "Proof", "differences", "prove"]

DIFFERENCES_TOLD: Final = 5


class NotProvenError(Exception):
    """Replay does not give the recording; `problems` says in what, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@frozen
class Proof:
    """What was compared, and found to be the same."""

    events: int
    starts: int
    keys: int
    text_bytes: int
    sha256: str


def prove(client: Statehouse, agent_id: str, recording: Recording) -> Proof:
    """Replay the agent and compare with the recording. NotProvenError, or the client's StatehouseError."""
    events = list(client.replay(agent_id))
    starts = [event for event in events if [operation.key for operation in event.operations] == [RUN_KEY]]
    steps = [event for event in events if event not in starts]
    problems = [*_order(events), *_starts(starts), *_steps(steps, recording)]
    values = {operation.key: operation.value or {} for event in steps for operation in event.operations}
    try:
        source = rebuild(values)
    except RebuildError as error:
        problems.append(str(error))
    else:
        problems += differences(recording.source, source)
    problems += _state(client, agent_id, events)
    if problems:
        raise NotProvenError(problems)
    return Proof(
        events=len(events),
        starts=len(starts),
        keys=len(values),
        text_bytes=len(canonical(source)),
        sha256=Recording(recording.name, source).sha256,
    )


def differences(expected: JsonValue, found: JsonValue) -> list[str]:
    """Where two JSON values differ, 1 and 1.0 included; at most a handful of places."""
    if canonical(expected) == canonical(found):
        return []
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        below = [(f"/{name}", expected[name], found[name]) for name in sorted(expected)]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        below = [(f"/{index}", *both) for index, both in enumerate(zip(expected, found, strict=True))]
    else:
        return [f": {_short(expected)} became {_short(found)}"]
    told = [f"{place}{more}" for place, one, other in below for more in differences(one, other)]
    return told[:DIFFERENCES_TOLD]


def _order(events: list[ReplayEvent]) -> list[str]:
    problems = [
        f"commit_ts {one.commit_ts} comes before {other.commit_ts}"
        for one, other in pairwise(events)
        if one.commit_ts >= other.commit_ts
    ]
    if len({event.txn_id for event in events}) < len(events):
        problems.append("a transaction was replayed twice")
    return problems


def _starts(starts: list[ReplayEvent]) -> list[str]:
    versions = [event.operations[0].version for event in starts]
    return [] if versions == list(range(1, len(starts) + 1)) else [f"{RUN_KEY} has the versions {versions}"]


def _steps(steps: list[ReplayEvent], recording: Recording) -> list[str]:
    """Each event is one commit of the run, in order, and all its keys have version 1: nothing was done twice."""
    problems = []
    for commit, event in zip_longest(commits_of(recording), steps):
        if commit is None:
            problems.append(f"commit_ts {event.commit_ts} is none of the run: {event}")
        elif event is None:
            problems.append(f"{commit.title}: not there")
        else:
            expected = tuple(Operation(key, value, 1) for key, value in commit.values.items())
            if event.operations != expected:
                problems.append(f"{commit.title}: differs at commit_ts {event.commit_ts}: {event}")
    return problems[:DIFFERENCES_TOLD]


def _state(client: Statehouse, agent_id: str, events: list[ReplayEvent]) -> list[str]:
    """Folding the events gives the state that the daemon shows."""
    folded = {
        operation.key: StateResult(operation.value, operation.version, event.commit_ts, operation.value is not None)
        for event in events
        for operation in event.operations
    }
    problems = [
        f"{key}: the state is not what its events give"
        for key, expected in folded.items()
        if client.get_state(agent_id, key) != expected
    ]
    if client.list_keys(agent_id) != sorted(folded, key=str.encode):
        problems.append("the keys listed are not those of the events")
    return problems[:DIFFERENCES_TOLD]


def _short(value: JsonValue) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
