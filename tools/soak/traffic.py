"""The honest half of the load: clients that commit and read, connections that are cut in a commit, and idle ones.

What they send and are told is written down, for the oracle. A connection that is cut in a commit leaves its outcome
unknown; `settle` sees to it that what had not begun by then never does, so that asking for it changes nothing.
"""

import random
from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import Final

import trio
from attrs import define, field
from histories.subject import DaemonSubject
from histories.submissions import Load, Staged, Submission
from histories.workload import AGENTS, Shape, Workload, commit

from statehouse import AsyncStatehouse, TransactionError
from statehouse.errors import ConnectionError
from statehouse.types import AgentId, JsonObject

__all__ = ["ALL_AGENTS", "Traffic"]

MORE_AGENTS: Final = tuple(AgentId("many", f"agent-{number:03}") for number in range(100))
"""More than partitions may be resident, so that they come and go."""
ALL_AGENTS: Final = (*AGENTS, *MORE_AGENTS)
SHAPE: Final = Shape(
    agents=ALL_AGENTS,
    read_share=0.6,
    value_bytes={30: 60, 400: 30, 3_000: 8, 60_000: 2},
)
AGENTS_AT_ONCE: Final = 40
CLIENTS: Final = 8
PAUSE_S: Final = 0.01
"""Of each client between two transactions, on average: the machine has others to serve."""
CUT_EVERY_S: Final = 0.5
CUT_AFTER_S: Final = 0.005
IDLE: Final = 20
LEFT_REPLAYS_EVERY_S: Final = 0.3
EVENTS_READ: Final = 20


@define
class Traffic:
    """The traffic between two judgements. Once `stopping` is set, every client ends after what it is doing."""

    address: str
    rng: random.Random
    workload: Workload
    load: Load
    tried: Counter[str]
    stopping: bool = False
    cut: list[str] = field(factory=list)

    @classmethod
    def to(cls, address: str, rng: random.Random, load: Load, tried: Counter[str]) -> "Traffic":
        """Traffic to a daemon."""
        return cls(address, rng, Workload(rng, SHAPE), load, tried)

    async def run(self) -> None:
        """All of it, until it is stopped."""
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(self._client)
            nursery.start_soon(self._cut_commits)
            nursery.start_soon(self._left_replays)

    async def touch_all(self) -> None:
        """Write to every agent: as many partitions are resident afterwards as may be."""
        async with AsyncStatehouse(self.address) as client:
            subject = DaemonSubject(client)
            for first in range(0, len(ALL_AGENTS), AGENTS_AT_ONCE):
                agents = ALL_AGENTS[first : first + AGENTS_AT_ONCE]
                operations = tuple(Staged(agent, "touched", {"first": first}) for agent in agents)
                submission = Submission(await subject.begin(), operations)
                self.load.submissions.append(submission)
                for staged in submission.operations:
                    await subject.stage(submission.txn_id, staged)
                await commit(subject, submission, self.load)

    async def settle(self) -> None:
        """Abort what was cut and has not begun to commit."""
        async with AsyncStatehouse(self.address) as client:
            for txn_id in self.cut:
                with suppress(TransactionError):  # it was committed
                    await DaemonSubject(client).abort(txn_id)
        self.cut.clear()

    async def _client(self) -> None:
        async with AsyncStatehouse(self.address) as client:
            subject = DaemonSubject(client)
            while not self.stopping:
                await self.workload.client(subject, self.load, transactions=1)
                await trio.sleep(self.rng.uniform(0, 2 * PAUSE_S))

    async def _cut_commits(self) -> None:
        """Connections that are closed a moment after they have sent a commit, or just before."""
        while not self.stopping:
            await trio.sleep(CUT_EVERY_S)
            async with AsyncStatehouse(self.address) as client:
                subject = DaemonSubject(client)
                with suppress(ConnectionError):
                    value: JsonObject = {"text": "x" * self.rng.randrange(5_000)}
                    staged = Staged(self.rng.choice(ALL_AGENTS), "cut", value)
                    submission = Submission(await subject.begin(), (staged,))
                    self.load.submissions.append(submission)
                    self.cut.append(submission.txn_id)
                    await subject.stage(submission.txn_id, staged)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._close_soon, client)
                        with suppress(ConnectionError):
                            await commit(subject, submission, self.load)
            self.tried["connections cut in a commit"] += 1

    async def _close_soon(self, client: AsyncStatehouse) -> None:
        await trio.sleep(self.rng.uniform(0, CUT_AFTER_S))
        await client.close()

    async def _left_replays(self) -> None:
        """Replays of which some events are read before the connection is closed."""
        while not self.stopping:
            await trio.sleep(LEFT_REPLAYS_EVERY_S)
            agent = self.rng.choice(AGENTS)
            left = self.rng.randrange(1, EVENTS_READ)
            async with AsyncStatehouse(self.address) as client:
                with suppress(ConnectionError):
                    async for _ in client.replay(agent.agent_id, namespace=agent.namespace):
                        left -= 1
                        if not left:
                            break
                await client.close()
            self.tried["replays left in the middle"] += 1


@define
class IdleConnections:
    """Connections that have made one call, and make no other."""

    tried: Counter[str]
    _held: AsyncExitStack = field(factory=AsyncExitStack)

    async def open(self, address: str) -> None:
        """Open them all."""
        for _ in range(IDLE):
            client = await self._held.enter_async_context(AsyncStatehouse(address))
            await client.health()
            self.tried["idle connections"] += 1

    async def close(self) -> None:
        """Let them go."""
        await self._held.aclose()
