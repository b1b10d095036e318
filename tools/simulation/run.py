"""One seed, from an empty disk to the last look: the lives of its plan, each judged as soon as it has recovered.

An engine may refuse to start, or to answer, only for what was done to its disk or view, and must then say so by name.
Whatever else it does, an exception that nobody expects, an error in its log, a life that does not end, is a violation.
"""

from contextlib import suppress
from random import Random
from typing import Final

import trio
import trio.testing
from attrs import define, evolve
from histories.subject import EngineSubject
from histories.workload import AGENTS, KINDS, Workload, WorkloadError

from simulation.client import NAMES, Client, shape_of, watch
from simulation.coverage import Coverage
from simulation.disk import WorldDisk
from simulation.faults import Faults
from simulation.judge import Judge, differences, is_mid_sweep
from simulation.machine import LOG, SNAPSHOTS, Machine
from simulation.plan import Life, Plan
from simulation.telling import Reporter, first_of, silent, told
from simulation.threads import WorldEnded, patched
from simulation.time_passing import IDLE_S, WallClock, all_expires, rest
from simulation.view import SimulatedHome
from simulation.world import NoFaults, World
from statehouse import OverloadedError, StatehouseError, StorageError, TransactionError
from statehouse.actors.engine import Engine, EngineSettings, run_engine
from statehouse.errors import StoreDamagedError
from statehouse.storage.disk import Disk
from statehouse.storage.recovery import OpenedStore, RecoveryReporter, StorePlace, StoreSettings, open_store
from statehouse.storage.simdisk import SimulatedDisk

__all__ = ["Result", "run_plan"]

LAST: Final = Life(clients=1, transactions=2, end="stopped")
PASSING: Final = frozenset(
    {"disk full, and freed", "write has no room", "view batch has no room", "view batch fails, written"}
)
"""Faults that end no process and leave nothing hurt."""
COMMITS_AGAIN_S: Final = 60.0
"""Within this time of them, commits are taken again."""
RESTING_SHARE: Final = 0.3
"""Of the times that a client comes back with a few transactions, those at which it rests before."""
LONGEST_LIFE_S: Final = 10_000.0
"""Of virtual time; a life that lasts longer hangs."""


@define
class Result:
    """What came of one plan."""

    violations: list[str]
    coverage: Coverage
    trace: list[str]


def run_plan(plan: Plan, *, traced: bool = False) -> Result:
    """Let a plan happen."""
    run = _Run(plan, [] if traced else None)
    with patched(lambda: run.world.threads, plan.seed), silent(run.complaints):
        trio.run(run.everything, clock=trio.testing.MockClock(autojump_threshold=0))
    return Result([*run.judge.violations, *run.complaints], run.coverage, [] if run.trace is None else run.trace)


class _Run:
    def __init__(self, plan: Plan, trace: list[str] | None) -> None:
        self.plan = plan
        self.trace = trace
        self.coverage = Coverage()
        self.complaints: list[str] = []
        self.judge = Judge(AGENTS[: plan.agents], self._rng("judge"))
        self.world = self._new_world("before")
        self.machine = Machine(SimulatedDisk(), SimulatedHome(self.world), self.coverage, self._rng("faults"))
        self._ids = self._rng("ids")
        self._clock = WallClock(self._rng("clock"))
        self._crashed = False
        """Whether the last life ended in a crash."""
        self._looked_at = False
        """Whether the last look was taken."""
        self.ended = ""
        """Why nothing more can be said about this seed."""

    async def everything(self) -> None:
        """All lives."""
        for fault in self.plan.faults:
            self.coverage.planned[fault.kind] += 1
        self.coverage.counts["seeds"] += 1
        try:
            for number, life in enumerate((*self.plan.lives, LAST)):
                with trio.fail_after(LONGEST_LIFE_S):
                    await self._life(number, life)
                    if life is LAST and not self._is_over():
                        await self._life(number, life)  # it was refused while it was read, and has been restored
                        if not self._is_over():
                            self.judge.violations.append("a store that was restored is refused once more")
                if self.judge.violations or self.complaints:
                    break
                if self.ended:
                    self.coverage.counts[self.ended] += 1
                    break
            else:
                self._open_from_nothing()
        except trio.TooSlowError:
            self.judge.violations.append(
                f"a life lasted for more than {LONGEST_LIFE_S:.0f} s of virtual time: it hangs"
            )
        except Exception as error:  # noqa: BLE001 - whatever leaves an engine is a bug in it, or here: it is told
            self.judge.violations.append(told(error))
        self.coverage.counts["transactions"] += self.judge.transactions
        self.coverage.counts["expired values read as absent"] += self.judge.expiry.hidden
        self.coverage.counts["expired values deleted"] += self.judge.expiry.tombstones

    def _is_over(self) -> bool:
        return bool(self._looked_at or self.ended or self.judge.violations or self.complaints)

    async def _life(self, number: int, life: Life) -> None:
        machine, is_last = self.machine, number == len(self.plan.lives)
        self.world = world = self._new_world(f"life {number}")
        machine.home.world = world
        machine.home.batch_fault, machine.home.unavailable = None, False
        machine.disk.clear_faults()
        if is_last or self._rng(f"room {number}").random() < 0.7:
            machine.free()
        for fault in self.plan.faults_of(number):
            world.say(f"fault {fault.number} of life {number}: {fault.kind}, from operation {fault.at} on")
        machine.strike_while_down(self.plan.faults_of(number), self.judge.load.newest_ts)
        faults = Faults(self.plan, number, machine, world)
        world.striker = faults
        self.coverage.counts["lives"] += 1
        try:
            with world.scope:
                opened = await self._opened(faults, is_last=is_last)
                if opened is not None:
                    await self._serve(opened, life, number, faults, is_last=is_last)
        except* WorldEnded:
            pass  # in a task of the loop
        self._crashed = world.ended

    async def _opened(self, faults: Faults, *, is_last: bool) -> OpenedStore | None:
        """The store, or None when it says why it cannot be opened and may say so."""
        world, machine = self.world, self.machine
        reporter = Reporter(world)
        place = StorePlace(WorldDisk(world, machine.disk), LOG, SNAPSHOTS, machine.home)
        settings = self._settings(is_last=is_last)

        def opening() -> OpenedStore:
            return open_store(place, settings=settings, new_store_id=lambda: self._ids.randbytes(16), reporter=reporter)

        try:
            opened: OpenedStore = await trio.to_thread.run_sync(opening)
        except StoreDamagedError as error:
            world.say(f"refused: {error.message}")
            self._refused(error, "damage")
            return None if not is_last or self.judge.violations else await self._opened(faults, is_last=is_last)
        except StorageError as error:
            world.say(f"refused: {error.message}")
            if not faults.may_not_open and machine.full_until_s is None:
                struck = (
                    f"nothing was wrong but {faults.struck} of a snapshot" if faults.struck else "nothing was wrong"
                )
                self.judge.violations.append(f"the store was not opened, and {struck}: {error.message}")
            self.coverage.refused[f"{type(error).__name__}: the disk refuses"] += 1
            return None
        recovery = opened.recovery
        world.say(f"opened from the {recovery.source}, head {recovery.head_ts}, {recovery.applied} applied")
        self.coverage.sources[recovery.source] += 1
        self.coverage.counts["tails cut"] += reporter.cuts
        return opened

    def _refused(self, error: StatehouseError, what: str) -> None:
        """The store says that it is damaged: it must be, and it gets back what was taken from it."""
        if not self.machine.is_hurt:
            self.judge.violations.append(f"the store is called damaged, and is not: {error.message}")
        elif isinstance(error, StoreDamagedError) and not self.machine.named_rightly(error.details):
            self.judge.violations.append(f"the damage is not named, or not where it is: {error.message}")
        self.coverage.refused[f"{type(error).__name__}: {what}"] += 1
        self.machine.restore()

    async def _serve(self, opened: OpenedStore, life: Life, number: int, faults: Faults, *, is_last: bool) -> None:
        store, world, plan = opened.store, self.world, self.plan
        log = store._log  # noqa: SLF001
        world.condition = lambda: (
            f"{'view failed ' if store.view_failed else ''}{'poisoned ' if log.poisoned else ''}"
            f"{'next needed' if store.next_segment_needed else ''}"
        )
        world.auditing = True
        self.coverage.counts["sweeps cut by a crash"] += self._crashed and is_mid_sweep(store)
        world.auditing = False
        settings = EngineSettings(tx_timeout_ms=plan.tx_timeout_ms, max_resident_partitions=plan.max_resident)
        try:
            async with run_engine(opened, settings, now_ns=self._clock.now_ns, new_txn_id=self._new_id) as engine:
                if await self._judged(engine, opened):
                    await self._loaded(engine, life, number)
                    await self._commits_again(engine, faults)
                    if is_last:
                        await all_expires(engine)
                        if await self._judged(engine, opened):
                            await self._last_look(engine)
                            self._looked_at = True
                    else:
                        await trio.sleep(self._rng(f"idle {number}").choice(IDLE_S))
                crash = faults.crash("idle", "")
                if crash is not None:
                    world.end(crash)
        finally:
            if not world.ended:
                with trio.CancelScope(shield=True):
                    try:
                        await trio.to_thread.run_sync(store.close)
                    except StorageError as error:
                        world.say(f"closing: {error.message}")
                        if not faults.struck:
                            raise

    async def _judged(self, engine: Engine, opened: OpenedStore) -> bool:
        """Whether the store was found exact, or could be read at all."""
        judge, machine, store, world = self.judge, self.machine, opened.store, self.world
        if judge.is_behind(store):
            if machine.power_lost and not self.plan.fsync:
                if store.head_ts < machine.durable_ts:
                    judge.violations.append(
                        f"power loss has taken commits {store.head_ts + 1} to {machine.durable_ts}, which had been "
                        "synced, without fsync too"
                    )
                    return False
                self.coverage.counts["losses without fsync"] += 1
                judge.forget_lost(store.head_ts)
            elif (machine.is_hurt or machine.was_cut) and store.head_ts >= machine.witness_ts:
                self.ended = "logs cut where nothing testifies against it"
                return False
        if machine.is_hurt or machine.was_cut or (machine.power_lost and not self.plan.fsync):
            judge.forget_conflicts()
        machine.durable_ts = max(machine.durable_ts, opened.recovery.head_ts)  # what a start finds it makes durable
        world.auditing = True
        unreadable: StorageError | None = None
        try:
            await judge.judge(EngineSubject(engine), store)
        except* StorageError as group:
            unreadable = first_of(group)
        finally:
            world.auditing = False
        if unreadable is not None:
            world.say(f"not to be read: {unreadable}")
            if machine.is_hurt:
                self._refused(unreadable, "reading")
            elif machine.home.rows() is not None:
                judge.violations.append(f"the store cannot be read: {unreadable}")
            return False
        self.coverage.counts["recoveries judged"] += 1
        if not judge.violations:
            machine.forget()  # what was done to the log has turned out to be harmless
        return not judge.violations

    async def _loaded(self, engine: Engine, life: Life, number: int) -> None:
        rng, world, load = self._rng(f"load {number}"), self.world, self.judge.load
        shape = shape_of(self.plan, self.judge.all_agents, StorageError, OverloadedError, TransactionError)
        workload = Workload(rng, shape)

        async def client(name: str) -> None:
            left = life.transactions
            while left > 0:
                subject = Client(engine, rng, world, name)
                if rng.random() < RESTING_SHARE:
                    await rest(rng)
                    with suppress(StorageError):
                        await workload.read(subject, load)
                some = min(left, rng.randint(1, 4))
                left -= some
                await workload.client(subject, load, transactions=some)

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as watching:
                for _ in range(rng.choice((0, 1, 1, 2))):
                    agent = rng.choice((*self.judge.all_agents, *NAMES))
                    watching.start_soon(watch, EngineSubject(engine), agent, load, self._rng(f"watch {number}"))
                async with trio.open_nursery() as nursery:
                    if life.end == "cancelled":
                        scope.deadline = trio.current_time() + rng.random() ** 2 * 0.2
                    for index in range(life.clients):
                        nursery.start_soon(client, f"client {index}")
                watching.cancel_scope.cancel()
        self.judge.transactions += len(load.submissions)
        self.coverage.loaded(load)
        if scope.cancelled_caught:
            world.say("cancelled")
            world.scope.cancel()
            await trio.lowlevel.checkpoint()

    async def _commits_again(self, engine: Engine, faults: Faults) -> None:
        """Whatever has failed on the way, but what ends all commits: they are taken again, without a restart."""
        if not PASSING.intersection(faults.struck) or engine.health() != "ok":
            return
        if self.plan.max_bytes or self.machine.home.rows() is None or self.machine.is_hurt:
            return
        self.coverage.counts["failures that passed: commits again"] += 1
        with trio.move_on_after(COMMITS_AGAIN_S):
            while engine.health() == "ok":
                try:
                    name = f"again {self.coverage.counts['lives']} {trio.current_time()}"
                    shape = evolve(shape_of(self.plan, self.judge.agents), kinds=KINDS, revive_share=1.0)
                    workload = Workload(self._rng(name), shape)
                    await workload.client(EngineSubject(engine), self.judge.load, transactions=1)
                except WorkloadError:
                    await trio.sleep(1)
                else:
                    return
            return
        if self.machine.home.rows() is not None:  # or it was hurt since, and that takes a restart
            self.judge.violations.append(f"no commit is taken within {COMMITS_AGAIN_S:.0f} s of a failure that passes")

    async def _last_look(self, engine: Engine) -> None:
        self.world.auditing = True
        await self.judge.last_look(EngineSubject(engine))
        self.world.auditing = False

    def _open_from_nothing(self) -> None:
        """After everything, once more with the log alone, every record of it checked: it must give the same view."""
        found = self.machine.home.rows()
        self.machine.home.world = world = self._new_world("check")
        world.auditing = True
        home = SimulatedHome(world)
        disk: Disk = self.machine.disk
        place = StorePlace(disk, LOG, "no snapshots", home)
        settings = StoreSettings(fsync=self.plan.fsync, segment_bytes=self.plan.segment_bytes, verify_all=True)
        opened = open_store(place, settings=settings, new_store_id=lambda: b"", reporter=RecoveryReporter())
        self.judge.violations += differences(found or {}, home.rows() or {})
        opened.store.close()

    def _settings(self, *, is_last: bool) -> StoreSettings:
        plan = self.plan
        return StoreSettings(
            fsync=plan.fsync,
            segment_bytes=plan.segment_bytes,
            max_bytes=0 if is_last else plan.max_bytes,
            verify_all=plan.verify_all,
            snapshot_interval=plan.snapshot_interval,
            snapshots_keep=plan.snapshots_keep,
        )

    def _new_world(self, name: str) -> World:
        return World(self.plan, self._rng(f"pauses {name}"), self.coverage, self.trace, NoFaults())

    def _rng(self, what: str) -> Random:
        return Random(f"{what} {self.plan.seed}")

    def _new_id(self) -> str:
        return f"{self._ids.getrandbits(64):016x}"
