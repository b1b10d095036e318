"""Carries a history out on the real engine, and writes down what every read gave while it went on.

After every group of commits, fork, end and rest, and after every start, all agents are read: each of their keys, the
scan, the list of keys, and what the replay has new. At the end, after one more start, so much time passes that nearly
all expires; then the whole replay and every version are read, and the keys as they were at points of the past.

What has expired is deleted by the engine itself, whenever its clock and the order of turns have it: a reading beside
which that happened is done again, so that each is of one moment.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio
from attrs import evolve

from replay_states.drawing import Between, End, Fate, Fork, Group, History, Operation, Step, Txn
from replay_states.recorded import Past, Reading, Recorded, Window
from replay_states.stores import TestBed, log_bytes, open_at
from statehouse.actors.engine import Engine, EngineSettings, run_engine
from statehouse.actors.watching import ReplayArguments
from statehouse.limits import SWEEP_LOOK_S
from statehouse.storage.expiry_keys import swept_range, unpack_swept_key
from statehouse.storage.recovery import OpenedStore
from statehouse.types import AgentId

__all__ = ["carry_out"]

START_NS: Final = 1_600_000_000_000_000_000
CLOCK_STEPS_NS: Final = (0, 1, 999, 1_000_000_000, 86_400_000_000_000, -5_000_000_000)
"""How far the clock moves between two groups: not at all, on, and back."""
REST_S: Final = 2 * SWEEP_LOOK_S
"""In which the sweeper notices that the clock was set, and does all that is due."""
LAST_STEP_NS: Final = 1_000_000_000_000_000
"""Longer than most values last."""
LAST_RESTARTS: Final = (Between.RESTART, Between.VIEW_DELETED, Between.VIEW_BEHIND)
WINDOWS: Final = 6
"""Pieces of replays that are read at the end, besides the whole ones."""
POINTS: Final = 4
"""Points of the past at which the keys of each agent are read at the end."""


async def carry_out(history: History, bed: TestBed) -> Recorded:
    """Run a history from the first start to the last look."""
    running = _Running(history, bed)
    steps = iter(history.steps)
    what: Between | None = Between.RESTART
    while what is not None:
        what = await running.session(steps)
        if what is not None:
            running.befall(what)
    running.befall(running.chance.choice(LAST_RESTARTS))
    await running.last_look()
    return running.recorded


class _Running:
    def __init__(self, history: History, bed: TestBed) -> None:
        self.recorded = Recorded()
        self.chance = random.Random(f"running {history.seed}")
        self._history = history
        self._bed = bed
        self._clock_ns = START_NS
        self._ids = 0
        self._starts = 0

    def befall(self, what: Between) -> None:
        self.recorded.counts[what.value] += 1
        self._bed.befall(what, self.chance.random())

    async def session(self, steps: Iterator[Step]) -> Between | None:
        """Run the store until it is to be restarted; how, or None at the end of the history."""
        opened = open_at(self._bed, self._history)
        try:
            async with self._engine(opened) as engine:
                self._count_start(opened)
                await self._read_all(engine)
                for step in steps:
                    if isinstance(step, Group):
                        await self._group(engine, step)
                        await self._read_all(engine)
                    elif isinstance(step, Fork):
                        await self._fork(engine, step)
                        await self._read_all(engine)
                    elif isinstance(step, End):
                        await self._end(engine, step.agent)
                        await self._read_all(engine)
                    elif step is Between.REST:
                        await self._rest(engine)
                    elif step is Between.SNAPSHOT:
                        if engine.head_ts:
                            opened.snapshots.write()
                            self.recorded.counts[step.value] += 1
                    else:
                        return step
                return None
        finally:
            opened.store.close()

    async def last_look(self) -> None:
        """Everything once more, and what only now can be asked: whole replays, and every version that ever was."""
        recorded = self.recorded
        opened = open_at(self._bed, self._history)
        try:
            async with self._engine(opened) as engine:
                self._count_start(opened)
                self._clock_ns += LAST_STEP_NS
                await self._rest(engine)
                recorded.head_ts = engine.head_ts
                view = opened.store.view_snapshot()
                recorded.notes += [unpack_swept_key(key) for key, _ in view.scan(*swept_range())]
                view.close()
                agents = list(self._history.keys)
                for agent in agents:
                    recorded.replays[agent] = await _replay(engine, agent)
                for _ in range(WINDOWS):
                    agent = self.chance.choice(agents)
                    first_ts, last_ts = (self.chance.choice((None, self._any_ts())) for _ in range(2))
                    events = await _replay(engine, agent, first_ts, last_ts)
                    recorded.windows.append(Window(agent, first_ts, last_ts, tuple(events)))
                self._read_versions(engine)
                await self._read_past(engine)
        finally:
            opened.store.close()
        recorded.log = log_bytes(self._bed.place)

    def _any_ts(self) -> int:
        return self.chance.randint(0, self.recorded.head_ts + 1)

    def _engine(self, opened: OpenedStore) -> AbstractAsyncContextManager[Engine]:
        settings = EngineSettings(max_resident_partitions=self._history.max_resident_partitions)
        return run_engine(opened, settings, now_ns=lambda: self._clock_ns, new_txn_id=self._next_id)

    def _next_id(self) -> str:
        self._ids += 1
        return f"txn-{self._history.seed}-{self._ids}"

    def _count_start(self, opened: OpenedStore) -> None:
        self._starts += 1
        if self._starts > 1:
            self.recorded.counts[f"starts from the {opened.recovery.source}"] += 1

    # Writing

    async def _group(self, engine: Engine, group: Group) -> None:
        """Send the commits of a group all at once, and wait for their answers."""
        self._clock_ns += self.chance.choice(CLOCK_STEPS_NS)
        staged = [(await self._stage(engine, txn), txn) for txn in group.txns]
        replies = [(engine.commit(txn_id, revive=True), txn) for txn_id, txn in staged if txn.fate is Fate.COMMITTED]
        answered = [(await reply.wait(), txn) for reply, txn in replies]
        recorded = self.recorded
        for commit_ts, txn in sorted(answered, key=lambda each: each[0]):
            recorded.committed.append(commit_ts)
            parts: dict[AgentId, list[Operation]] = defaultdict(list)
            for operation in txn.operations:
                parts[operation.agent].append(operation)
            for agent, operations in parts.items():
                recorded.sent[agent].append((commit_ts, operations))
            recorded.counts["commits"] += 1
            recorded.counts["operations"] += len(txn.operations)
            recorded.counts["of them with a TTL"] += sum(bool(operation.ttl_s) for operation in txn.operations)
            recorded.counts["empty commits"] += not parts
            recorded.counts["commits of several agents"] += len(parts) > 1
        recorded.counts["groups of several commits"] += len(answered) > 1

    async def _fork(self, engine: Engine, fork: Fork) -> None:
        """The new agent has all that was sent to its parent up to the point, as if it had been sent to itself."""
        recorded, at_ts = self.recorded, None
        if fork.share is not None:
            first_ts = recorded.sent[fork.parent][0][0]
            at_ts = first_ts + int(fork.share * (engine.head_ts - first_ts + 1))
        forked = await engine.fork_agent(fork.parent, fork.agent, at_ts).wait()
        recorded.committed.append(forked.commit_ts)
        recorded.forked[fork.agent] = forked.commit_ts
        recorded.sent[fork.agent] = [
            (commit_ts, operations and [evolve(operation, agent=fork.agent) for operation in operations])
            for commit_ts, operations in recorded.sent[fork.parent]
            if commit_ts <= forked.at_ts
        ]
        recorded.followed[fork.agent] += await _replay(engine, fork.agent, last_ts=self._seen_ts)
        recorded.counts["forks"] += 1
        recorded.counts["forks of forks"] += forked.depth > 1

    async def _end(self, engine: Engine, agent: AgentId) -> None:
        recorded = self.recorded
        ended = await engine.delete_agent(agent, (), {}).wait()
        if ended.commit_ts in recorded.committed:
            recorded.counts["ends of what had ended"] += 1
            return
        recorded.committed.append(ended.commit_ts)
        recorded.sent[agent].append((ended.commit_ts, None))
        recorded.counts["ends"] += 1

    async def _rest(self, engine: Engine) -> None:
        """Read while what has just expired is not deleted yet, and when it is."""
        self._clock_ns += self.chance.choice(CLOCK_STEPS_NS)
        await self._read_all(engine)
        await trio.sleep(REST_S)
        await self._read_all(engine)

    async def _stage(self, engine: Engine, txn: Txn) -> str:
        txn_id = await engine.begin(None).wait()
        for operation in txn.operations:
            if operation.value is None:
                await engine.delete(txn_id, operation.agent, operation.key).wait()
            else:
                await engine.write(txn_id, operation.agent, operation.key, operation.value, operation.ttl_s).wait()
        if txn.fate is Fate.ABORTED:
            await engine.abort(txn_id).wait()
        return txn_id

    # Reading

    @property
    def _seen_ts(self) -> int:
        return self.recorded.readings[-1][0] if self.recorded.readings else 0

    async def _read_all(self, engine: Engine) -> None:
        while True:
            moment = head_ts, now_ns = engine.head_ts, engine.now_ns()
            found = {agent: await self._reading(engine, agent) for agent in self._history.keys}
            events: dict[AgentId, list[bytes]] = {}
            if head_ts > self._seen_ts:
                events = {agent: await _replay(engine, agent, self._seen_ts + 1) for agent in self._history.keys}
            if (engine.head_ts, engine.now_ns()) == moment:
                break
        for agent, new in events.items():
            self.recorded.followed[agent] += new
        self.recorded.readings.append((head_ts, now_ns, found))

    async def _reading(self, engine: Engine, agent: AgentId) -> Reading:
        responses = tuple(engine.get_state(agent, key) for key in self._history.keys[agent])
        entries = tuple(await engine.scan_prefix(agent, ""))
        return Reading(responses, entries, tuple(await engine.list_keys(agent)))

    def _read_versions(self, engine: Engine) -> None:
        """Version after version of each key, until one is not there."""
        for agent, keys in self._history.keys.items():
            for key in keys:
                version = 1
                while answer := engine.get_state_at_version(agent, key, version):
                    self.recorded.versions[agent, key, version] = answer
                    version += 1

    async def _read_past(self, engine: Engine) -> None:
        for agent, keys in self._history.keys.items():
            for _ in range(POINTS):
                at_ts = self.chance.randint(0, self.recorded.head_ts)
                responses = tuple([await engine.get_state_at(agent, key, at_ts) for key in keys])
                self.recorded.past.append(Past(agent, at_ts, responses))


async def _replay(
    engine: Engine, agent: AgentId, first_ts: int | None = None, last_ts: int | None = None
) -> list[bytes]:
    arguments = ReplayArguments(agent=agent, start_ts=first_ts, end_ts=last_ts)
    return [event async for chunk in engine.replay(arguments) for event in chunk]
