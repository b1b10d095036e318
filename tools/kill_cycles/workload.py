"""The load: clients that commit transactions of every kind until the daemon is gone.

A few agents with a few keys each are shared by all clients, so that transactions over several agents meet, keys are
written over, and what a torn transaction leaves behind is somebody else's next version. Every value names the
transaction that wrote it.
"""

import base64
import random
from typing import Final

import trio

from kill_cycles.submissions import Load, Outcome, PairRead, ReadBack, Staged, Submission
from statehouse import AsyncStatehouse, AsyncTransaction, ConnectionError, StatehouseError
from statehouse.types import AgentId, JsonObject

__all__ = ["AGENTS", "PAIR_PREFIX", "Workload", "WorkloadError"]

AGENTS: Final = (
    *(AgentId("default", f"agent-{number:02}") for number in range(16)),
    *(AgentId("other", f"agent-{number:02}") for number in range(4)),
    AgentId("default", "a:b/\0c"),
    AgentId("default:a", "b/\0c"),
)
KEYS: Final = (*(f"key/{number}" for number in range(10)), "\0", "ключ 🔑")
PAIR_PREFIX: Final = "pair/"
PAIR: Final = ("pair/left", "pair/right")

KINDS: Final = {
    "one write": 30,
    "one agent": 25,
    "several agents": 20,
    "pair": 10,
    "empty": 5,
    "aborted": 5,
    "left open": 5,
}
READ_AFTER: Final = 0.2
DELETE: Final = 0.15
CALL_TIMEOUT_S: Final = 20.0


class WorkloadError(Exception):
    """The daemon refused what it has to accept."""


class Workload:
    """`clients` clients with a connection each; `rng` decides what they send."""

    def __init__(self, rng: random.Random, clients: int) -> None:
        self._rng = rng
        self._clients = clients
        self._marks = 0

    async def run(self, address: str, load: Load) -> None:
        """Load the daemon until every client has lost it. What was sent and seen is written into `load` as it happens.

        WorkloadError when the daemon refuses a call.
        """
        async with trio.open_nursery() as nursery:
            for _ in range(self._clients):
                nursery.start_soon(self._client, address, load)

    async def _client(self, address: str, load: Load) -> None:
        async with AsyncStatehouse(address, timeout_s=CALL_TIMEOUT_S) as client:
            try:
                while True:
                    await self._transaction(client, load)
            except ConnectionError:
                return
            except StatehouseError as error:
                raise WorkloadError(f"{type(error).__name__} under load: {error.message}") from error

    async def _transaction(self, client: AsyncStatehouse, load: Load) -> None:
        [kind] = self._rng.choices(list(KINDS), list(KINDS.values()))
        operations = self._operations(kind)
        transaction = await client.begin_transaction()
        submission = Submission(transaction.txn_id, operations)
        load.submissions.append(submission)
        for staged in operations:
            await _stage(client, transaction.txn_id, staged)
        if kind == "left open":
            return
        if kind == "aborted":
            await transaction.abort()
            return
        await _commit(transaction, submission, load)
        if self._rng.random() < READ_AFTER:
            await self._read(client, submission, load)

    async def _read(self, client: AsyncStatehouse, submission: Submission, load: Load) -> None:
        """Look at one of the agents that were just written, as a client would that relies on its commit."""
        agent = self._rng.choice(AGENTS)
        found = await client.scan_prefix(agent.agent_id, PAIR_PREFIX, agent.namespace)
        marks = tuple(int(str(entry.value["mark"])) for entry in found if entry.value is not None)
        load.reads.append(PairRead(agent, marks))
        if submission.operations and submission.commit_ts is not None:
            written = self._rng.choice(submission.operations)
            state = await client.get_state(written.agent.agent_id, written.key, written.agent.namespace)
            load.reads.append(ReadBack(written.agent, written.key, submission.commit_ts, state.commit_ts))

    def _operations(self, kind: str) -> tuple[Staged, ...]:
        self._marks += 1
        rng = self._rng
        if kind == "empty":
            return ()
        if kind == "one write":
            return (self._staged(rng.choice(AGENTS), rng.choice(KEYS), deletes=False),)
        if kind == "pair":
            agent = rng.choice(AGENTS)
            return tuple(Staged(agent, key, self._value()) for key in PAIR)
        agents = [rng.choice(AGENTS)] if kind == "one agent" else rng.sample(AGENTS, rng.randint(2, 4))
        # Keys may repeat: two writes to one key in one transaction are two versions.
        operations = [
            self._staged(agent, rng.choice(KEYS), deletes=True) for agent in agents for _ in range(rng.randint(1, 4))
        ]
        rng.shuffle(operations)
        return tuple(operations)

    def _staged(self, agent: AgentId, key: str, *, deletes: bool) -> Staged:
        return Staged(agent, key, None if deletes and self._rng.random() < DELETE else self._value())

    def _value(self) -> JsonObject:
        """Mostly small; some are large enough to stand in the log only, and a few span pages."""
        size = self._rng.choices((30, 1_500, 20_000), (93, 6, 1))[0]
        text = base64.b64encode(self._rng.randbytes(self._rng.randrange(size))).decode()
        return {"mark": self._marks, "text": text, "list": [{"n": None}, []]}


async def _stage(client: AsyncStatehouse, txn_id: str, staged: Staged) -> None:
    """One operation; a transaction may span namespaces, so each goes through a handle of its own."""
    handle = AsyncTransaction(client, txn_id, staged.agent.namespace)
    if staged.value is None:
        await handle.delete(staged.agent.agent_id, staged.key)
    else:
        await handle.write(staged.agent.agent_id, staged.key, staged.value)


async def _commit(transaction: AsyncTransaction, submission: Submission, load: Load) -> None:
    submission.floor_ts = load.newest_ts
    submission.outcome = Outcome.UNKNOWN
    commit_ts = await transaction.commit()
    submission.outcome = Outcome.ACKNOWLEDGED
    submission.commit_ts = commit_ts
    load.newest_ts = max(load.newest_ts, commit_ts)
