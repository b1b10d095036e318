"""Asks a store for all that the oracle needs to judge a run."""

import random
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, cast

import trio
from attrs import evolve

from histories.forking import send_end, send_fork
from histories.lasting import states_of
from histories.lineages import Described, Forking, Lineage
from histories.oracle import Answer, Evidence, Oracle
from histories.subject import Subject, Transacting
from histories.submissions import Load, Outcome, Submission
from statehouse import (
    AgentDeletedError,
    ConflictError,
    ErrorCode,
    ReplayEvent,
    StatehouseError,
    StateResult,
    TransactionError,
)
from statehouse.actors.engine import ViewAwayError
from statehouse.types import AgentId

__all__ = [
    "AWAY_S",
    "AWAY_TRIES",
    "ask_again",
    "commit_nothing",
    "gather",
    "send_again",
    "whole_history",
    "wrong_versions",
]

AGENTS_AT_ONCE: Final = 4
LOOKS: Final = 100
"""At most so many, until the store has deleted nothing while it was looked at."""
AWAY_TRIES: Final = 20
AWAY_S: Final = 0.5
"""How often, and how far apart, a view that is being opened anew is waited for."""


async def commit_nothing(subject: Subject) -> Submission:
    """Commit an empty transaction: its commit_ts is the newest, so nothing after the last event can be missing."""
    txn_id = await subject.begin()
    commit_ts = await subject.commit(txn_id)
    return Submission(txn_id, outcome=Outcome.ACKNOWLEDGED, commit_ts=commit_ts)


async def gather(
    subject: Subject, agents: Iterable[AgentId], load: Load, oracle: Oracle, remembered: Iterable[str] = ()
) -> Evidence:
    """The evidence of a run: new events, states of all agents, and the outcomes of what is unknown or remembered.

    Outcomes are asked for first, and again by replay: asking must not make anything happen. What was sent in one call
    is asked for by sending it again, which makes it happen if it has not. What cannot be decided, because that has
    failed and its events are not there, is moved to `load.undecided`.

    All is looked at as of one moment: again, while the store itself goes on deleting what has expired.
    """
    answers: dict[str, Answer] = {}
    unknown = [one.txn_id for one in load.submissions if one.outcome is Outcome.UNKNOWN and _has_id(one)]
    # Whoever forgets has of the forgotten remembered only those that were not sent in one call.
    known = [oracle.submissions.get(txn_id) or Submission(txn_id) for txn_id in remembered]
    for txn_id in (*unknown, *(one.txn_id for one in known if _has_id(one))):
        answers[txn_id] = await ask_again(subject, txn_id)
    doubtful: list[Submission] = []
    for submission in load.submissions:
        if submission.at_once and submission.outcome is Outcome.UNKNOWN:
            submission.sent_ns = min(submission.sent_ns, subject.now_ns())  # a restart may have turned the clock back
            try:
                answers[submission.txn_id] = (await cast("Transacting", subject).transact(submission)).commit_ts
            except (ConflictError, AgentDeletedError):
                answers[submission.txn_id] = None
            except StatehouseError:
                doubtful.append(submission)
    for submission in known:
        if submission.at_once and submission.txn_id in oracle.placed:
            answers[submission.txn_id] = await send_again(cast("Transacting", subject), submission)
    touched: dict[AgentId, set[str]] = {agent: set() for agent in agents}
    for submission in load.submissions:
        for staged in submission.operations:
            touched.setdefault(staged.agent, set()).add(staged.key)
        if submission.ends is not None:
            touched.setdefault(submission.ends, set())
    await _fork_and_end_again(subject, load)
    lineages = await _lineages(subject, load, oracle)
    for agent, lineage in lineages.items():
        if lineage.ancestors:
            touched.setdefault(agent, set())
    head_ts = await subject.head()
    for _ in range(LOOKS):
        seen = await _look(subject, touched, oracle, lineages)
        before_ts, head_ts = head_ts, await subject.head()
        if before_ts == head_ts:
            break
    placed = {event.txn_id: event.commit_ts for event in seen.events}
    for submission in doubtful:
        if submission.txn_id in placed:
            answers[submission.txn_id] = placed[submission.txn_id]
        else:
            load.submissions.remove(submission)
            load.undecided.append(submission)
            submission.after = 0  # the reads that it counts are of this run
    return evolve(seen, answers=answers, head_ts=head_ts)


async def _look(
    subject: Subject, touched: Mapping[AgentId, set[str]], oracle: Oracle, lineages: Mapping[AgentId, Lineage]
) -> Evidence:
    """The events and states of all agents, and what there is of each, by keys that may not be there any more."""
    new_forks = {agent for agent, _ in oracle.lives.forked(lineages)}
    events: list[ReplayEvent] = []
    states: dict[AgentId, dict[str, StateResult]] = {}
    asked_ns: dict[AgentId, tuple[int, int]] = {}

    async def ask(agent: AgentId) -> None:
        async with limit:
            began_ns = subject.now_ns()
            found = {key: evolve(state, key=None) for key, state in (await subject.scan(agent, "")).items()}
            for key in sorted(touched[agent] - found.keys()):
                state = await subject.get(agent, key)
                if state.version:
                    found[key] = state
            states[agent], asked_ns[agent] = found, (began_ns, subject.now_ns())
            first_ts = 0 if agent in new_forks else oracle.newest_ts + 1
            events.extend([event async for event in subject.replay(agent, first_ts)])

    limit = trio.CapacityLimiter(AGENTS_AT_ONCE)
    async with trio.open_nursery() as nursery:
        for agent in touched:
            nursery.start_soon(ask, agent)
    described: dict[AgentId, Described | None] = {}
    if lineages or oracle.lives.ends:
        for namespace in sorted({agent.namespace for agent in touched}):
            listed = await cast("Transacting", subject).described(namespace)
            described |= {agent: listed.get(agent) for agent in touched if agent.namespace == namespace}
    return Evidence(tuple(events), {}, states, lineages, described, asked_ns)


def _has_id(submission: Submission) -> bool:
    """Whether it is a transaction that was opened, and can be asked for by the store's id."""
    return not submission.at_once and submission.ends is None


async def _fork_and_end_again(subject: Subject, load: Load) -> None:
    """Nobody knows whether these have happened, or will in a moment; behind the same once more they have, or never."""
    for fork in [fork for fork in load.forks if not fork.answered and not fork.refused]:
        again = Forking(fork.agent, fork.parent, fork.asked_ts, load.newest_ts, len(load.reads))
        with suppress(StatehouseError):
            await send_fork(cast("Transacting", subject), again, load)
    newest = {one.ends: one for one in load.submissions if one.outcome is Outcome.UNKNOWN and one.ends is not None}
    for agent, end in newest.items():
        name = f"{end.txn_id}, {sum(one.ends == agent for one in load.submissions)}"
        once_more = Submission(name, outcome=Outcome.UNKNOWN, ends=agent)
        once_more.floor_ts, once_more.after = load.newest_ts, len(load.reads)
        with suppress(StatehouseError):
            await send_end(cast("Transacting", subject), once_more, load)


async def _lineages(subject: Subject, load: Load, oracle: Oracle) -> dict[AgentId, Lineage]:
    """Of all agents that were to be forked, or forks, in this run or before."""
    agents = {agent for fork in load.forks for agent in (fork.agent, fork.parent)}
    agents |= {each for agent, origin in oracle.lives.origins.items() for each in (agent, origin.agent)}
    return {agent: await cast("Transacting", subject).lineage(agent) for agent in sorted(agents)}


async def ask_again(subject: Subject, txn_id: str) -> Answer:
    """Commit a transaction that ended in an earlier run: its commit_ts, None when it did not happen."""
    try:
        commit_ts = await subject.commit(txn_id)
    except TransactionError as error:
        if error.code is ErrorCode.TXN_ALREADY_COMMITTED:
            return int(error.details["commit_ts"])
        return None if error.code is ErrorCode.TXN_NOT_FOUND else f"{error.code.name}: {error.message}"
    return f"committed now, at {commit_ts}"


async def send_again(subject: Transacting, submission: Submission) -> Answer:
    """Send a transaction once more that is known to have happened: its commit_ts, if it is known to the store, too."""
    for tries_left in reversed(range(AWAY_TRIES)):
        try:
            answer = await subject.transact(submission)
        except TransactionError as error:
            return f"{type(error).__name__}: {error.message}"
        except ViewAwayError:  # what was sent before may have failed the view
            if not tries_left:
                raise
            await trio.sleep(AWAY_S)
        else:
            break
    return answer.commit_ts if answer.deduplicated else f"committed now, at {answer.commit_ts}"


async def whole_history(subject: Subject, agents: Iterable[AgentId], oracle: Oracle) -> list[str]:
    """Replay everything that was judged once more; what is not as it was seen run by run."""
    violations = []
    for agent in agents:
        again = [event async for event in subject.replay(agent, 0, oracle.newest_ts)]
        violations += oracle.judge_again(agent, again)
    return violations


async def wrong_versions(subject: Subject, oracle: Oracle, count: int, rng: random.Random) -> list[str]:
    """Read `count` versions out of the history; those that are not what was written."""
    violations = []
    agents = sorted(agent for agent, events in oracle.history.items() if events)
    for _ in range(count if agents else 0):
        agent = rng.choice(agents)
        event = rng.choice(oracle.history[agent])
        key, expected = rng.choice(list(states_of(event)))
        found = await subject.get_at_version(agent, key, expected.version)
        if found != expected:
            violations.append(f"{agent} key {key!r} version {expected.version}: {found} is not {expected}")
    return violations
