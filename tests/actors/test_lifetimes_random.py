"""Forks, ends and values that expire, under random schedules and faults: a model that copies judges what came of them.

What the sweeper has done is taken from the log, and must be what the model says is due.
"""

import random
from errno import ENOSPC

import pytest
import trio
from actors.fix_engine import EngineBench, InlineThreads, events, state
from attrs import define, field
from seeded_turns import seeded_turns
from storage.fix_store import FULL, StoreBench, rows_of, value

from statehouse.actors import partition
from statehouse.actors.engine import Engine
from statehouse.actors.messages import AgentAt, Check, StagedOperation, TransactArguments
from statehouse.actors.watching import ReplayLogArguments
from statehouse.errors import AgentDeletedError, AgentExistsError, NotFoundError, StatehouseError
from statehouse.limits import INHERITED_LOOKS, SWEEP_LOOK_S
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import AgentInfo, ReplayEvent

S = 10**9
AGENTS = [AgentId("", f"{number}") for number in range(25)]
Event = tuple[int, list[tuple[str, int, bytes | None]]]
"""commit_ts, and (key, version, value) of each operation"""


@define
class Modelled:
    """An agent whose past was copied when it was forked."""

    events: list[Event] = field(factory=list)
    ended_ts: int = 0
    is_fork: bool = False
    expires_ns: dict[tuple[str, int], int] = field(factory=dict)
    """By key and version."""

    @property
    def latest(self) -> dict[str, tuple[int, int, bytes | None]]:
        """key -> version, commit_ts, value"""
        return {
            key: (version, commit_ts, content)
            for commit_ts, operations in self.events
            for key, version, content in operations
        }

    @property
    def live(self) -> list[str]:
        return sorted(key for key, (_, _, content) in self.latest.items() if content is not None)

    @property
    def deleted(self) -> bool:
        return bool(self.events) and self.ended_ts >= self.events[-1][0]

    def add(self, commit_ts: int, operations: list[tuple[str, bytes | None, int]]) -> None:
        """Operations are (key, value, when it expires); 0: never."""
        versions = {key: latest[0] for key, latest in self.latest.items()}
        written = []
        for key, content, expires_ns in operations:
            versions[key] = versions.get(key, 0) + 1
            written.append((key, versions[key], content))
            self.expires_ns[key, versions[key]] = expires_ns  # a parent may have another version of this number
        self.events.append((commit_ts, written))

    def is_due(self, key: str, now_ns: int) -> bool:
        version, _, content = self.latest[key]
        return content is not None and 0 < self.expires_ns.get((key, version), 0) <= now_ns


@define
class Done:
    """What was asked for and answered, by commit_ts, and the refusals that name something."""

    commits: dict[int, tuple] = field(factory=dict)
    again: list[tuple[AgentId, int]] = field(factory=list)
    deleted: list[tuple[list[AgentId], int]] = field(factory=list)
    taken: list[AgentId] = field(factory=list)

    def add(self, commit_ts: int, *what: object) -> None:
        assert commit_ts not in self.commits
        self.commits[commit_ts] = what


def judged(done: Done, log: dict[int, list[ReplayEvent]], head_ts: int) -> dict[AgentId, Modelled]:
    """Do in order what was committed, and hold each answer against it."""
    model = {agent: Modelled() for agent in AGENTS}
    ends = {}
    for commit_ts in range(1, head_ts + 1):  # what failed used no commit_ts
        times = [event.committed_at.ToNanoseconds() for event in log.get(commit_ts, ())]
        match done.commits.get(commit_ts, "sweep"):
            case "sweep":
                if commit_ts in log:  # else it is a note of how far was swept
                    [event] = log[commit_ts]
                    swept = model[AgentId(event.namespace, event.agent_id)]
                    assert not swept.deleted
                    for each in event.operations:
                        assert each.expired
                        assert swept.is_due(each.key, times[0])
                    swept.add(commit_ts, [(each.key, None, 0) for each in event.operations])
            case "write", operations, may_revive:
                for agent in {agent for agent, *_ in operations}:
                    assert may_revive or not model[agent].deleted
                    own = [
                        (key, content, times[0] + ttl_s * S if ttl_s else 0)
                        for a, key, content, ttl_s in operations
                        if a == agent
                    ]
                    model[agent].add(commit_ts, own)
            case "fork", parent, new, at_ts:
                assert at_ts < commit_ts
                assert not model[new].events
                copied = [event for event in model[parent].events if event[0] <= at_ts]
                assert copied
                model[new] = Modelled(copied, is_fork=True, expires_ns=dict(model[parent].expires_ns))
            case "end", agent, deleted_keys:
                live = model[agent].live
                assert len(live) == deleted_keys
                assert model[agent].events
                assert not model[agent].deleted
                if live:
                    model[agent].add(commit_ts, [(key, None, 0) for key in live])
                model[agent].ended_ts = commit_ts
                ends[commit_ts] = agent
    for agent, commit_ts in done.again:
        assert ends[commit_ts] == agent
    for written, commit_ts in done.deleted:
        assert ends[commit_ts] in written
    assert all(model[agent].events for agent in done.taken)
    return model


async def one_deed(engine: Engine, rng: random.Random, done: Done) -> None:
    deed = rng.random()
    known = [*AGENTS[:4], *(what[2] for what in done.commits.values() if what[0] == "fork")]
    if deed < 0.2:
        parent = rng.choice(known)
        new = rng.choice([agent for agent in AGENTS if agent != parent])
        at_ts = rng.choice((None, rng.randint(0, engine.head_ts + 1)))
        try:
            forked = await engine.fork_agent(parent, new, at_ts).wait()
        except AgentExistsError:
            done.taken.append(new)
            raise
        done.add(forked.commit_ts, "fork", parent, new, forked.at_ts)
    elif deed < 0.4:
        agent = rng.choice(known)
        head_ts = engine.head_ts
        ended = await engine.delete_agent(agent).wait()
        known = done.commits.get(ended.commit_ts)
        if ended.commit_ts <= head_ts:
            assert ended.deleted_keys == 0
            done.again.append((agent, ended.commit_ts))
        elif known is None:
            done.add(ended.commit_ts, "end", agent, ended.deleted_keys)
        else:  # of two who asked at once, one did it; which of them is told first is the scheduler's to say
            assert known[:2] == ("end", agent)
            assert 0 in (known[2], ended.deleted_keys)
            done.commits[ended.commit_ts] = ("end", agent, max(known[2], ended.deleted_keys))
    else:
        chosen = rng.sample(known, rng.choice((1, 1, 2, 3)))
        operations = [
            (agent, key, None, 0)
            if rng.random() < 0.2
            else (agent, key, value(rng.choice((20, 300))), rng.choice((0, 0, 1, 2, 1_000)))
            for agent in chosen
            for key in rng.choices("abc", k=rng.randint(1, 2))
        ]
        revive = rng.random() < 0.3
        checks = tuple(Check(place, agent, AgentAt(0)) for place, agent in enumerate(chosen) if rng.random() < 0.05)
        staged = tuple((agent, StagedOperation(key.encode(), *what)) for agent, key, *what in operations)
        try:
            commit_ts = (await engine.transact(TransactArguments(staged, checks, revive=revive)).wait()).commit_ts
        except AgentDeletedError as error:
            assert not revive
            done.deleted.append((chosen, int(error.details["commit_ts"])))
            raise
        done.add(commit_ts, "write", operations, revive)
        for agent, key, *_ in operations:  # linearizable: at least as new as this commit
            assert state(engine, agent, key)[1] >= commit_ts


async def client(engine: Engine, rng: random.Random, bench: EngineBench, done: Done) -> None:
    place = bench.place
    for _ in range(20):
        bench.now_ns += rng.choice((0, 0, S // 5, S, -S // 10))
        if rng.random() < 0.08:
            # One fault at a time: a full disk that cannot take back what it has taken poisons the log.
            place.disk.clear_faults()
            place.home.fault = None
            if rng.random() < 0.5:
                place.home.fail_next_batch(FULL, is_written=rng.random() < 0.5)
            else:
                path = engine._store._log._writer._active.path
                place.disk.fail_next("write", OSError(ENOSPC, "no space"), path=path, partial_bytes=rng.randrange(200))
        try:
            await one_deed(engine, rng, done)
        except NotFoundError:
            pass
        except StatehouseError:
            await trio.sleep(rng.choice((0, 0, 10)))
        for _ in range(rng.randrange(3)):
            await trio.lowlevel.checkpoint()


async def slow_disk(threads: InlineThreads, rng: random.Random) -> None:
    try:
        while True:
            threads.hold()
            await trio.sleep(rng.random() / 100)
            threads.release()
            await trio.sleep(rng.random() / 100)
    finally:
        threads.release()


@pytest.mark.parametrize("seed", range(12))
async def test_forks_ends_and_expiries_are_as_if_all_was_copied_and_done_one_by_one(
    seed, inline_threads, autojump_clock, monkeypatch
):
    monkeypatch.setattr(partition, "INHERITED_LOOKS", (INHERITED_LOOKS, 0, 1)[seed % 3])  # some is read beforehand
    with seeded_turns() as seed_turns:
        seed_turns(seed)
        await lives(random.Random(seed), inline_threads)


async def lives(rng: random.Random, inline_threads: InlineThreads) -> None:
    place = StoreBench(segment_bytes=rng.choice((3_000, 20_000)))
    bench = EngineBench(place)
    done = Done()
    sweeps = 0
    for _ in range(2):
        async with bench.engine(max_resident_partitions=4) as engine:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow_disk, inline_threads, rng)
                async with trio.open_nursery() as clients:
                    for _ in range(6):
                        clients.start_soon(client, engine, rng, bench, done)
                nursery.cancel_scope.cancel()
            place.disk.clear_faults()
            place.home.fault = None
            bench.now_ns += 3 * S
            await trio.sleep(10 + SWEEP_LOOK_S)
            log: dict[int, list[ReplayEvent]] = {}
            async for chunk in engine.replay_log(ReplayLogArguments()):
                for event in map(ReplayEvent.FromString, chunk):
                    log.setdefault(event.commit_ts, []).append(event)
            model = judged(done, log, engine.head_ts)
            assert not any(of.is_due(key, engine.now_ns()) for of in model.values() for key in of.latest)
            await judge(engine, model)
            sweeps += sum(each.expired for found in log.values() for event in found for each in event.operations)
            live = rows_of(engine._store)
    kinds = [what[0] for what in done.commits.values()]
    assert all(kinds.count(kind) > 1 for kind in ("write", "fork", "end"))
    assert sweeps > 1
    place.home.set_aside()
    place.home.condemned = False
    assert rows_of(place.store()) == live
    place.close()


async def judge(engine: Engine, model: dict[AgentId, Modelled]) -> None:
    page = await engine.list_agents("", limit=100)
    found = {info.agent_id: info for info in map(AgentInfo.FromString, page.found)}
    assert sorted(found) == sorted(agent.agent_id for agent, modelled in model.items() if modelled.events)
    for agent, modelled in model.items():
        replayed = [
            (
                event.commit_ts,
                [
                    (op.key, op.version, op.value.SerializeToString() if op.HasField("value") else None)
                    for op in event.operations
                ],
            )
            for event in await events(engine, agent)
        ]
        assert replayed == modelled.events
        assert {key: state(engine, agent, key) for key in modelled.latest} == modelled.latest
        assert await engine.list_keys(agent) == modelled.live
        if modelled.events:
            info = found[agent.agent_id]
            assert (info.deleted, info.HasField("forked_from")) == (modelled.deleted, modelled.is_fork)
            assert (info.commits, info.live_keys) == (len(modelled.events), len(modelled.live))
            assert (info.first_commit_ts, info.last_commit_ts) == (modelled.events[0][0], modelled.events[-1][0])
