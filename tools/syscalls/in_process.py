"""One case in this process: a store in some shape, a fault, the load under it, and what must be true of it afterwards.

`serving`: the store is opened without a fault, and struck while it serves and when it is closed. Every other shape is
struck while it is opened, and serves a little if it opens nevertheless. Then, without the fault, the store is opened as
it was left, and as power loss would leave it (without its view, too), and each time all of it is held against what
the clients know.
"""

import random
import traceback
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final

import trio
import trio.testing
from attrs import define, field, frozen
from histories.audit import commit_nothing, gather
from histories.oracle import Evidence, Oracle
from histories.subject import EngineSubject
from histories.submissions import Load
from histories.workload import Shape, Workload, WorkloadError
from proof_report import flat

from statehouse.actors.engine import Engine
from statehouse.errors import DiskFullError, LogPoisonedError, StatehouseError, StorageError, StoreDamagedError
from statehouse.limits import BACKGROUND_RETRY_S
from syscalls.calls import Call, Fault, Kind, Written
from syscalls.faulty_view import KeptHome
from syscalls.ground import LOAD, Ground, ground, in_turns
from syscalls.promises import (
    ends_all_commits,
    may_end_all_commits,
    may_fail_reads,
    may_keep_closed,
    records_of,
    uncovered,
)
from syscalls.watched import Watch, Watched

__all__ = ["SERVING", "SHAPES", "VIEWS", "Case", "Result", "run"]

VIEWS: Final = ("memory", "leveldb")
SERVING: Final = "serving"
SHAPES: Final = (SERVING, "new", "clean", "rough", "rough-no-view", "rough-no-view-no-snapshot", "condemned")
"""`rough`: segments that were not trimmed, a torn tail, a view of an earlier moment, and what a crash leaves lying."""

CLIENTS: Final = 3
TRANSACTIONS: Final = 14
"""Of each client."""
AFTERWARDS: Final = 4
"""Transactions of the client that finds out whether the store goes on."""
MENDED_S: Final = 3 * BACKGROUND_RETRY_S
LATER_IDS: Final = 50_000
"""Transaction ids of the store that power loss has left, beside those of the one that it has not."""
HANG_S: Final = 600.0
"""Of virtual time."""


@frozen
class Case:
    """What is struck, and how. `heals`: the fault is gone before the store is asked to go on."""

    shape: str
    view: str
    fault: Fault | None
    heals: bool = False

    def __str__(self) -> str:
        if self.fault is None:
            return f"{self.shape}:{self.view}"
        fault = self.fault
        lasting = "once" if not fault.lasting else "until-healed" if self.heals else "from-then-on"
        return f"{self.shape}:{self.view}:{fault.kind}:{fault.index}:{lasting}:{fault.error}:{fault.written}"

    @classmethod
    def parse(cls, text: str) -> "Case":
        """As `str` wrote it. ValueError when it is not."""
        shape, view, *rest = text.split(":")
        if shape not in SHAPES or view not in VIEWS:
            raise ValueError(f"{text!r} is no case")
        if not rest:
            return cls(shape, view, None)
        kind, index, lasting, error, written = rest
        fault = Fault(Kind(kind), int(index), lasting != "once", error, Written(written))
        return cls(shape, view, fault, heals=lasting == "until-healed")


@define
class Result:
    """What a case showed."""

    violations: list[str] = field(factory=list)
    calls: list[Call] = field(factory=list)
    """Those that could be struck."""
    acknowledged: int = 0
    refused: int = 0
    reads: int = 0
    opened: bool = True
    """Whether the store opened under the fault."""


def run(case: Case, seed: int) -> Result:
    """Run one case; the same seed gives the same run."""
    result = Result()

    async def bounded() -> None:
        with trio.move_on_after(HANG_S) as scope, ground(case.view) as here:
            await _Run(case, seed, here, result).run()
        if scope.cancelled_caught:
            result.violations.append("it hangs")

    with in_turns(seed):
        try:
            trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)
        except Exception:  # noqa: BLE001 - whatever it is, it is what the case has found
            result.violations.append(f"it raised what nobody expects:\n{traceback.format_exc()}")
    return result


class _Run:
    def __init__(self, case: Case, seed: int, here: Ground, result: Result) -> None:
        self._case = case
        self._here = here
        self._result = result
        self._load = Load()
        self._workload = Workload(random.Random(f"workload {seed}"), LOAD)
        self._strict = Workload(random.Random(f"afterwards {seed}"), Shape(agents=LOAD.agents, keys=LOAD.keys))
        self._rng = random.Random(f"power {seed}")
        self._wrong = result.violations

    async def run(self) -> None:
        here, case = self._here, self._case
        if case.shape == SERVING:
            await self._live(self._serve)
        else:
            await self._prepare()
            here.striker.arm(case.fault)
            await self._live(self._look_in)
        here.striker.disarm()
        self._result.calls = list(here.striker.calls)
        self._wrong += here.wrong()
        self._judge_answers()
        crashed = here.disk.crash(self._rng)
        await self._recover(here, "")
        await self._recover(Ground(KeptHome(), crashed, ids=count(LATER_IDS)), " after power loss, without the view")

    # Lives

    async def _live(self, life: Callable[[Engine, Watched], Awaitable[None]]) -> None:
        """Open the store and live; what opening and closing it may raise is one of our own errors."""
        here = self._here
        served = False
        try:
            async with here.engine() as engine:
                served = True
                await life(engine, Watched(engine, here.watch, here.striker))
        except* StatehouseError as group:
            for error in flat(group):
                self._judge_error("closed" if served else "opened", error)
            self._result.opened = served

    async def _serve(self, engine: Engine, subject: Watched) -> None:
        """Struck under load, asked to go on, and closed."""
        striker, case = self._here.striker, self._case
        striker.arm(case.fault)
        await self._clients(self._workload, subject, CLIENTS, TRANSACTIONS)
        await self._read_all(subject)
        if case.heals:
            striker.disarm()
            await trio.sleep(MENDED_S)
        if engine.health() == "ok" and (case.heals or case.fault is None or not case.fault.lasting):
            await self._must_go_on(subject)
        self._judge_health(engine)
        await self._read_all(subject)

    async def _look_in(self, engine: Engine, subject: Watched) -> None:
        """It has opened under the fault: a few commits, and everything is read."""
        await self._clients(self._workload, subject, 1, AFTERWARDS)
        await self._read_all(subject)
        self._judge_health(engine)

    async def _clients(self, workload: Workload, subject: Watched, clients: int, transactions: int) -> None:
        async def client() -> None:
            await workload.client(subject, self._load, transactions=transactions)

        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(client)

    async def _must_go_on(self, subject: Watched) -> None:
        """The fault is gone: commits succeed, without a restart. One that was not struck until now may strike here."""
        for _ in range(2):
            struck = len(self._here.striker.struck)
            try:
                await self._strict.client(subject, self._load, transactions=AFTERWARDS)
            except WorkloadError as error:
                if len(self._here.striker.struck) == struck:
                    self._wrong.append(f"the fault is gone, and the store does not go on: {error}")
                    return
                await trio.sleep(MENDED_S)
                if subject.engine.health() != "ok":
                    return

    async def _read_all(self, subject: Watched) -> None:
        """Every agent, in every way; failures are in the watch."""
        for agent in LOAD.agents:
            try:
                await subject.scan(agent, "")
                [event async for event in subject.replay(agent)]
                for key in LOAD.keys:
                    await subject.get(agent, key)
            except StatehouseError:
                continue

    async def _prepare(self) -> None:
        """Bring the store into the shape that is to be opened."""
        here, shape = self._here, self._case.shape
        if shape == "new":
            return
        rough = shape.startswith("rough")
        if rough:
            here.striker.arm(Fault(Kind.TRUNCATE, 1, lasting=True, error="ENOSPC"))
        kept = here.home
        earlier: dict[bytes, bytes] | None = None
        async with here.engine() as engine:
            subject = Watched(engine, here.watch, here.striker)
            await self._clients(self._workload, subject, CLIENTS, TRANSACTIONS // 2)
            if rough and isinstance(kept, KeptHome) and kept.kept is not None:
                earlier = dict(kept.kept)
            await self._clients(self._workload, subject, CLIENTS, TRANSACTIONS // 2)
            if rough:
                here.striker.arm(Fault(Kind.WRITE, 1, lasting=True, error="EIO", written=Written.HALF))
                await self._clients(self._workload, subject, 1, 1)
        here.striker.disarm()
        here.wrong()  # of a life that nobody judges
        here.watch = Watch()
        if rough:
            self._leave_lying("log/next.tmp")
            if here.disk.exists("snapshots"):
                self._leave_lying("snapshots/00000000000000000003.snap.tmp")
        if isinstance(kept, KeptHome) and earlier is not None:
            kept.kept = earlier
        if "no-view" in shape:
            here.home.set_aside()
        if "no-snapshot" in shape and here.disk.exists("snapshots"):
            for name in here.disk.list_dir("snapshots"):
                here.disk.remove(f"snapshots/{name}")
        if shape == "condemned":
            here.home.condemn()

    def _leave_lying(self, path: str) -> None:
        file = self._here.disk.open(path, create=True)
        file.write_at(0, b"what a crash has left")
        file.close()

    # Judgement

    def _judge_answers(self) -> None:
        calls, watch, fault = self._result.calls, self._here.watch, self._case.fault
        struck = [call for call in calls if call.error]
        end = ends_all_commits(calls)
        for commit_ts, made in watch.acknowledged:
            if end is not None and made > end:
                self._wrong.append(
                    f"commit_ts {commit_ts} was answered after {calls[end].kind} of {calls[end].path} failed"
                )
        self._wrong += uncovered(calls, records_of(self._here.disk, "log"), dict(watch.acknowledged))
        self._result.acknowledged, self._result.refused = len(watch.acknowledged), len(watch.commits_failed)
        self._result.reads = watch.reads
        if watch.commits_failed and not struck:
            self._wrong.append(f"a commit failed though nothing did: {watch.commits_failed[0].error!r}")
        for refusal in watch.commits_failed:
            error = refusal.error
            if (
                fault is not None
                and fault.error == "ENOSPC"
                and not isinstance(error, DiskFullError | LogPoisonedError)
            ):
                self._wrong.append(f"for want of room a commit failed with {type(error).__name__}: {error.message}")
            if end is not None and refusal.after_calls > end and not isinstance(error, LogPoisonedError):
                self._wrong.append(f"read-only, and a commit was refused with {type(error).__name__}: {error.message}")
        if not may_fail_reads(calls):
            self._wrong += [f"a read failed: {refusal.error!r}" for refusal in watch.reads_failed[:1]]

    def _judge_health(self, engine: Engine) -> None:
        calls = self._here.striker.calls
        read_only = engine.health() == "read-only"
        if read_only != bool(self._here.watch.became_read_only):
            self._wrong.append(f"health is {engine.health()!r}, and the daemon was told otherwise")
        if read_only and not may_end_all_commits(calls):
            self._wrong.append("the store is read-only, and nothing that was struck is a reason")
        if not read_only and ends_all_commits(calls) is not None:
            self._wrong.append("health is 'ok' after a failure that ends all commits")

    def _judge_error(self, when: str, error: BaseException) -> None:
        struck = self._here.striker.struck
        if not struck or (when == "opened" and not may_keep_closed(struck)):
            self._wrong.append(f"the store could not be {when}, and nothing was struck that it needs: {error!r}")
        elif not isinstance(error, StorageError) or isinstance(error, StoreDamagedError):
            self._wrong.append(f"when the store was {when}: {type(error).__name__} {error}")

    async def _recover(self, there: Ground, how: str) -> None:
        """Open without a fault, and hold everything against what the clients know."""
        there.striker.arm(None)
        oracle = Oracle()
        evidence: Evidence | None = None
        load = Load(list(self._load.submissions), self._load.reads, self._load.newest_ts)
        try:
            async with there.engine() as engine:
                subject = EngineSubject(engine)
                evidence = await gather(subject, LOAD.agents, load, oracle)
                load.submissions.append(await commit_nothing(subject))
        except* StatehouseError as group:
            self._wrong += [f"the store was not recovered{how}: {error!r}" for error in flat(group)]
        if evidence is not None:
            self._wrong += [f"{violation}{how}" for violation in oracle.judge(load, evidence)]
        self._wrong += [f"{wrong}{how}" for wrong in there.wrong()]
