"""The clients of a simulated engine: what they send, and how patient they are."""

from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from random import Random
from typing import Final, TypeVar

import trio
from histories.at_once import AT_ONCE
from histories.forking import FORKS
from histories.lineages import GAP, Refused
from histories.subject import EngineSubject
from histories.submissions import Load, Repeated, Replayed, Submission
from histories.workload import KEYS, KINDS, READS, Shape

from simulation.plan import Plan
from simulation.time_passing import TTLS_S
from simulation.world import World
from statehouse import ConnectionError, InvalidRequestError, ReplayEvent, StatehouseError, StorageError
from statehouse.actors.engine import Engine
from statehouse.types import AgentId

__all__ = ["NAMES", "Client", "shape_of", "watch"]

T = TypeVar("T")

NAMES: Final = tuple(AgentId("default", f"fork-{number}") for number in range(5))
"""Of agents that are to be forked."""
REVIVE_SHARE: Final = 0.3
THINKING_S: Final = 0.01
READING_S: Final = 0.05
"""How long a watcher may take for one event."""
GONE_SHARE: Final = 0.08
"""Of the commits, those whose caller does not wait for the answer."""


def shape_of(plan: Plan, agents: Sequence[AgentId], *tolerated: type[StatehouseError]) -> Shape:
    """What the load of a plan is made of, of these agents; after these errors a client goes on."""
    return Shape(
        agents=tuple(agents),
        forks=NAMES,
        revive_share=REVIVE_SHARE,
        keys=KEYS[: plan.keys],
        kinds={**KINDS, **AT_ONCE, **FORKS},
        reads={**READS, "as of": 25, "batch": 25},
        read_share=0.4,
        ttls_s=TTLS_S,
        value_bytes={30: 90, 600: 8, 3_000: 2},
        tolerated=tolerated,
    )


class Client(EngineSubject):
    """A client that thinks before it calls, and now and then is gone before it is answered."""

    def __init__(self, engine: Engine, rng: Random, world: World, name: str) -> None:
        super().__init__(engine)
        self._rng = rng
        self._world = world
        self._name = name

    async def begin(self) -> str:
        await trio.sleep(self._rng.random() ** 3 * THINKING_S)
        return await super().begin()

    async def commit(self, txn_id: str) -> int:
        return await self._patiently(txn_id, super().commit(txn_id))

    async def transact(self, submission: Submission) -> Repeated:
        await trio.sleep(self._rng.random() ** 3 * THINKING_S)
        return await self._patiently(submission.txn_id, super().transact(submission))

    async def commit_reviving(self, txn_id: str) -> int:
        return await self._patiently(txn_id, super().commit_reviving(txn_id))

    async def fork(self, parent: AgentId, agent: AgentId, at_ts: int | None) -> tuple[int, int, int]:
        await trio.sleep(self._rng.random() ** 3 * THINKING_S)
        name = f"fork {agent.agent_id} of {parent.agent_id} at {at_ts}"
        return await self._patiently(name, super().fork(parent, agent, at_ts))

    async def end(self, submission: Submission) -> tuple[int, int]:
        await trio.sleep(self._rng.random() ** 3 * THINKING_S)
        return await self._patiently(f"{submission.txn_id} ends {submission.ends}", super().end(submission))

    async def _patiently(self, name: str, answer: Awaitable[T]) -> T:
        patience_s = self._rng.random() * THINKING_S if self._rng.random() < GONE_SHARE else float("inf")
        with trio.move_on_after(patience_s):
            try:
                found = await answer
            except StatehouseError as error:
                self._world.say(f"{self._name}: {name}: {type(error).__name__}: {error.message}")
                raise
            self._world.say(f"{self._name}: {name} was committed: {found}")
            return found
        self._world.say(f"{self._name}: {name}: gone")
        raise ConnectionError("the client has gone")


async def watch(subject: EngineSubject, agent: AgentId, load: Load, rng: Random) -> None:
    """Follow an agent until it is cancelled, or the store cannot be read; then what was shown is a read."""
    first_ts = max(load.newest_ts - rng.randint(-2, 6), 0)
    events: list[ReplayEvent] = []
    try:
        async with aclosing(subject.watch(agent, first_ts)) as watched:
            async for event in watched:
                events.append(event)
                load.saw(event.commit_ts)
                await trio.sleep(rng.random() ** 4 * READING_S)
    except StorageError:
        pass
    except InvalidRequestError:
        load.reads.append(Refused(agent, 0, GAP, first_ts))
    finally:
        last_ts = events[-1].commit_ts if events else first_ts - 1
        load.reads.append(Replayed(agent, 0, first_ts, last_ts, tuple(events)))
