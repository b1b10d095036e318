"""Asks a daemon, through its public interface, for all that the oracle needs to judge a run."""

import random
from collections.abc import Iterable

import trio
from attrs import evolve

from kill_cycles.oracle import Answer, Evidence, Oracle
from kill_cycles.submissions import Load, Outcome, Submission
from statehouse import AsyncStatehouse, ErrorCode, ReplayEvent, StateResult, TransactionError
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["ask_again", "commit_nothing", "gather", "whole_history", "wrong_versions"]

AGENTS_AT_ONCE = 4


async def commit_nothing(client: AsyncStatehouse) -> Submission:
    """Commit an empty transaction: its commit_ts is the newest, so nothing after the last event can be missing."""
    transaction = await client.begin_transaction()
    commit_ts = await transaction.commit()
    return Submission(transaction.txn_id, outcome=Outcome.ACKNOWLEDGED, commit_ts=commit_ts)


async def gather(
    client: AsyncStatehouse, agents: Iterable[AgentId], load: Load, oracle: Oracle, remembered: Iterable[str]
) -> Evidence:
    """The evidence of a run: new events, states of all agents, and the outcomes of what is unknown or remembered.

    Outcomes are asked for first, and again by replay: asking must not make anything happen.
    """
    answers = {}
    unknown = [submission.txn_id for submission in load.submissions if submission.outcome is Outcome.UNKNOWN]
    for txn_id in (*unknown, *remembered):
        answers[txn_id] = await ask_again(client, txn_id)
    touched: dict[AgentId, set[str]] = {agent: set() for agent in agents}
    for submission in load.submissions:
        for staged in submission.operations:
            touched[staged.agent].add(staged.key)
    events: list[ReplayEvent] = []
    states: dict[AgentId, dict[str, StateResult]] = {}

    async def ask(agent: AgentId) -> None:
        async with limit:
            found = {
                str(entry.key): evolve(entry, key=None)
                for entry in await client.scan_prefix(agent.agent_id, "", agent.namespace)
            }
            for key in touched[agent] - found.keys():
                state = await client.get_state(agent.agent_id, key, agent.namespace)
                if state.version:
                    found[key] = state
            states[agent] = found
            replay = client.replay(agent.agent_id, oracle.newest_ts + 1, None, agent.namespace)
            events.extend([event async for event in replay])

    limit = trio.CapacityLimiter(AGENTS_AT_ONCE)
    async with trio.open_nursery() as nursery:
        for agent in touched:
            nursery.start_soon(ask, agent)
    return Evidence(tuple(events), answers, states)


async def ask_again(client: AsyncStatehouse, txn_id: str) -> Answer:
    """Commit a transaction that ended in an earlier run: its commit_ts, None when it did not happen."""
    try:
        answer = await client.stub.Commit(pb.CommitRequest(txn_id=txn_id))
    except TransactionError as error:
        if error.code is ErrorCode.TXN_ALREADY_COMMITTED:
            return int(error.details["commit_ts"])
        return None if error.code is ErrorCode.TXN_NOT_FOUND else f"{error.code.name}: {error.message}"
    return f"committed now, at {answer.commit_ts}"


async def whole_history(client: AsyncStatehouse, agents: Iterable[AgentId], oracle: Oracle) -> list[str]:
    """Replay everything once more; what is not as it was seen run by run."""
    violations = []
    for agent in agents:
        events = [event async for event in client.replay(agent.agent_id, namespace=agent.namespace)]
        violations += oracle.judge_again(agent, events)
    return violations


async def wrong_versions(client: AsyncStatehouse, oracle: Oracle, count: int, rng: random.Random) -> list[str]:
    """Read `count` versions out of the history; those that are not what was written."""
    violations = []
    agents = sorted(agent for agent, events in oracle.history.items() if events)
    for _ in range(count if agents else 0):
        agent = rng.choice(agents)
        event = rng.choice(oracle.history[agent])
        operation = rng.choice(event.operations)
        expected = StateResult(operation.value, operation.version, event.commit_ts, operation.value is not None)
        found = await client.get_state_at_version(agent.agent_id, operation.key, operation.version, agent.namespace)
        if found != expected:
            violations.append(f"{agent} key {operation.key!r} version {operation.version}: {found} is not {expected}")
    return violations
