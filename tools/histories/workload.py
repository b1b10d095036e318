"""The load: clients that commit transactions of every kind, and read, until their store is gone.

A few agents with a few keys each are shared by all clients, so that transactions over several agents meet, keys are
written over, and what a torn transaction leaves behind is somebody else's next version. Every value names the
transaction that wrote it.
"""

import base64
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar, cast

import trio
from attrs import evolve, field, frozen

from histories.at_once import AT_ONCE, AtOnce, deleted
from histories.forking import FORKS, Forks
from histories.subject import Batching, Subject, Transacting, outcome_of
from histories.submissions import Load, Outcome, Read, Replayed, Staged, Submission
from statehouse import AgentDeletedError, ConnectionError, StatehouseError
from statehouse.types import AgentId, JsonObject

__all__ = ["AGENTS", "KEYS", "KINDS", "PAIR", "PREFIXES", "Shape", "Workload", "WorkloadError", "commit"]

T = TypeVar("T")

AGENTS: Final = (
    *(AgentId("default", f"agent-{number:02}") for number in range(16)),
    *(AgentId("other", f"agent-{number:02}") for number in range(4)),
    AgentId("default", "a:b/\0c"),
    AgentId("default:a", "b/\0c"),
)
KEYS: Final = (*(f"key/{number}" for number in range(10)), "\0", "ключ 🔑")
PAIR: Final = ("pair/left", "pair/right")
"""Keys that are only ever written together."""
PREFIXES: Final = ("pair/", "key/", "")

KINDS: Final[Mapping[str, int]] = {
    "one write": 30,
    "one agent": 25,
    "several agents": 20,
    "pair": 10,
    "empty": 5,
    "aborted": 5,
    "left open": 5,
}
UNTIMELY_SHARE: Final = 0.1
PAST_SHARE: Final = 0.3
"""Of the batches, those of a moment in the past."""
READS: Final[Mapping[str, int]] = {"key": 50, "scan": 40, "replay": 10}


class WorkloadError(Exception):
    """The store refused what it has to accept."""


@frozen
class Shape:
    """What the load is made of; `kinds`, `reads` and `value_bytes` have the weight of each choice."""

    agents: tuple[AgentId, ...] = AGENTS
    keys: tuple[str, ...] = KEYS
    kinds: Mapping[str, int] = field(factory=lambda: KINDS)
    reads: Mapping[str, int] = field(factory=lambda: READS)
    read_share: float = 0.3
    """Of the transactions, those that are followed by a read."""
    forks: tuple[AgentId, ...] = ()
    """The names that are for agents to be forked."""
    revive_share: float = 0.0
    """Of the transactions, those that may bring deleted agents back."""
    delete_share: float = 0.15
    ttls_s: Mapping[int | None, int] = field(factory=dict)
    """How long values are to last, None: for good; nothing: all are."""
    value_bytes: Mapping[int, int] = field(factory=lambda: {30: 93, 1_500: 6, 20_000: 1})
    """At most so many random bytes in a value. Mostly small; some stand in the log only, and a few span pages."""
    tolerated: tuple[type[StatehouseError], ...] = ()
    """What a client goes on after: the faults of the run bring it about."""


class Workload:
    """Clients of one store; `rng` decides what they send."""

    def __init__(self, rng: random.Random, shape: Shape | None = None) -> None:
        self._rng = rng
        self._shape = Shape() if shape is None else shape
        self._marks = 0
        self._agents = list(self._shape.agents)
        """With those that came to be since, and now and then a name that may be forked, if it is not written to."""
        if self._shape.forks and rng.random() < UNTIMELY_SHARE:
            self._agents.append(rng.choice(self._shape.forks))
        self._at_once = AtOnce(
            rng, self._agents, self._shape.keys, self._some_operations, revive_share=self._shape.revive_share
        )
        self._forks = Forks(rng, self._agents, self._shape.forks, self._at_once.checks)

    async def run(self, connect: Callable[[], AbstractAsyncContextManager[Subject]], clients: int, load: Load) -> None:
        """So many clients, with a connection each, until all have lost their store. As `client`."""

        async def one() -> None:
            async with connect() as subject:
                await self.client(subject, load)

        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(one)

    async def client(self, subject: Subject, load: Load, *, transactions: int | None = None) -> None:
        """One client: so many transactions, or, with None, until the store is lost, which ends it in any case.

        What was sent, told and shown is written into `load` as it happens. WorkloadError when the store refuses
        what it has to accept.
        """
        left = transactions
        while left is None or left > 0:
            left = None if left is None else left - 1
            try:
                await self._transaction(subject, load)
                if self._rng.random() < self._shape.read_share:
                    await self.read(subject, load)
            except ConnectionError:
                return
            except self._shape.tolerated:
                pass
            except StatehouseError as error:
                raise WorkloadError(f"{type(error).__name__} under load: {error.message}") from error

    async def read(self, subject: Subject, load: Load) -> None:
        """Look at an agent: a key, a scan or a replay; often at what was written last."""
        rng, floor_ts = self._rng, load.newest_ts
        last = load.submissions[-1].operations if load.submissions else ()
        agent = rng.choice(last).agent if last and rng.random() < 0.5 else rng.choice(self._agents)
        kind = _drawn(rng, self._shape.reads)
        if kind == "as of":
            at_ts, key = rng.randint(load.began_ts, floor_ts), rng.choice(self._shape.keys)
            state = await cast("Transacting", subject).get_at(agent, key, at_ts)
            load.reads.append(Read(agent, floor_ts, {key: state}, at_ts=at_ts))
            return
        if kind == "batch":
            await self._batch(subject, load, agent)
            return
        if kind == "replay":
            first_ts = rng.randint(max(floor_ts - 50, 0), floor_ts)
            last_ts = rng.choice((None, rng.randint(first_ts, floor_ts + 10)))
            events = tuple([event async for event in subject.replay(agent, first_ts, last_ts)])
            load.reads.append(Replayed(agent, floor_ts, first_ts, last_ts, events))
            load.saw(max((event.commit_ts for event in events), default=0))
            return
        prefix: str | None = None
        if kind == "scan":
            prefix, began_ns = rng.choice(PREFIXES), subject.now_ns()
            found = {key: evolve(state, key=None) for key, state in (await subject.scan(agent, prefix)).items()}
        else:
            keys = [staged.key for staged in last if staged.agent == agent]
            key, began_ns = rng.choice(keys or self._shape.keys), subject.now_ns()
            found = {key: await subject.get(agent, key)}
        load.reads.append(Read(agent, floor_ts, found, prefix, began_ns=began_ns, ended_ns=subject.now_ns()))
        load.saw(max((state.commit_ts for state in found.values()), default=0))

    async def _batch(self, subject: Subject, load: Load, agent: AgentId) -> None:
        """Look at some of an agent's keys in one moment."""
        rng, floor_ts = self._rng, load.newest_ts
        names = (*PAIR, *self._shape.keys)
        keys = rng.sample(names, rng.randint(1, len(names)))
        at_ts = rng.randint(load.began_ts, floor_ts) if rng.random() < PAST_SHARE else None
        began_ns = subject.now_ns()
        found = await cast("Batching", subject).batch(agent, keys, at_ts)
        if len(found) < len(keys):
            raise WorkloadError(f"a batch of {keys} of {agent} was answered with {sorted(found)}")
        if at_ts is not None:
            load.reads.append(Read(agent, floor_ts, found, at_ts=at_ts))
            return
        load.reads.append(Read(agent, floor_ts, found, began_ns=began_ns, ended_ns=subject.now_ns()))
        load.saw(max(state.commit_ts for state in found.values()))

    async def _transaction(self, subject: Subject, load: Load) -> None:
        kind = _drawn(self._rng, self._shape.kinds)
        if kind in AT_ONCE:
            await self._at_once.send(kind, cast("Transacting", subject), load)
            return
        if kind in FORKS:
            await self._forks.send(kind, cast("Transacting", subject), load)
            return
        operations = self._operations(kind)
        submission = Submission(await subject.begin(), operations)
        submission.revive = self._rng.random() < self._shape.revive_share
        load.submissions.append(submission)
        for staged in operations:
            await subject.stage(submission.txn_id, staged)
        if kind == "aborted":
            await subject.abort(submission.txn_id)
        elif kind != "left open":
            await commit(subject, submission, load)

    def _some_operations(self) -> tuple[Staged, ...]:
        return self._operations(self._rng.choice(("one write", "one agent", "several agents")))

    def _operations(self, kind: str) -> tuple[Staged, ...]:
        self._marks += 1
        rng, shape = self._rng, self._shape
        if kind == "empty":
            return ()
        if kind == "one write":
            return (self._staged(rng.choice(self._agents), rng.choice(shape.keys), deletes=False),)
        if kind == "pair":
            agent = rng.choice(self._agents)
            return tuple(Staged(agent, key, self._value(), self._ttl_s()) for key in PAIR)
        several = rng.sample(self._agents, min(rng.randint(2, 4), len(self._agents)))
        agents = several if kind == "several agents" else [rng.choice(self._agents)]
        # Keys may repeat: two writes to one key in one transaction are two versions.
        operations = [
            self._staged(agent, rng.choice(shape.keys), deletes=True)
            for agent in agents
            for _ in range(rng.randint(1, 4))
        ]
        rng.shuffle(operations)
        return tuple(operations)

    def _staged(self, agent: AgentId, key: str, *, deletes: bool) -> Staged:
        if deletes and self._rng.random() < self._shape.delete_share:
            return Staged(agent, key, None)
        return Staged(agent, key, self._value(), self._ttl_s())

    def _ttl_s(self) -> int | None:
        return _drawn(self._rng, self._shape.ttls_s) if self._shape.ttls_s else None

    def _value(self) -> JsonObject:
        size = _drawn(self._rng, self._shape.value_bytes)
        text = base64.b64encode(self._rng.randbytes(self._rng.randrange(size))).decode()
        return {"mark": self._marks, "text": text, "list": [{"n": None}, []]}


async def commit(subject: Subject, submission: Submission, load: Load) -> None:
    """Commit what is staged, and write down what became of it. Raises what the store says, but of deleted agents."""
    submission.floor_ts = load.newest_ts
    submission.outcome = Outcome.UNKNOWN
    try:
        if submission.revive:
            commit_ts = await cast("Transacting", subject).commit_reviving(submission.txn_id)
        else:
            commit_ts = await subject.commit(submission.txn_id)
    except AgentDeletedError as error:
        submission.outcome = Outcome.NEVER
        load.reads.append(deleted(submission, error, submission.floor_ts, submission.after))
        return
    except StatehouseError as error:
        submission.outcome = outcome_of(error)
        raise
    submission.outcome = Outcome.ACKNOWLEDGED
    submission.commit_ts = commit_ts
    load.saw(commit_ts)


def _drawn(rng: random.Random, weights: Mapping[T, int]) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]
