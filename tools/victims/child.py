"""The life of a victim: open the store, load the engine, tell everything, end with a code that says how.

What is told, in this order for each transaction: `begun` (with its operations, before any of them is staged), `sent`
(its commit, before the engine has it), then `acknowledged` or `failed`, before the client that was told goes on.
Reads are told when they have been shown. Once the log is poisoned the engine is `read-only`: no commit may be
acknowledged any more, reads that fail are told as `broken` (before that, as `unread`), and the victim goes on reading
for a while before it ends.
"""

import random
import secrets
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
import trio
from attrs import define, evolve, field, frozen
from histories.audit import gather
from histories.lineages import Forking
from histories.oracle import Oracle
from histories.subject import EngineSubject, outcome_of
from histories.submissions import AnyRead, Load, Staged, Submission
from histories.workload import Shape, Workload, commit

from statehouse import (
    AgentExistsError,
    InvalidRequestError,
    NotFoundError,
    ReplayEvent,
    StatehouseError,
    StateResult,
)
from statehouse.actors.engine import Engine, EngineSettings, run_engine
from statehouse.errors import OverloadedError, StorageError, StoreDamagedError, TransactionError
from statehouse.findings import VerifyFinding
from statehouse.limits import KIB, SWEEP_REST_S
from statehouse.storage.disk import Disk, RealDisk
from statehouse.storage.event_log import TailCut
from statehouse.storage.expiries import Expired
from statehouse.storage.expiry_keys import swept_range, unpack_swept_key
from statehouse.storage.log_format import STORE_ID_BYTES
from statehouse.storage.recovery import OpenedStore, RecoveryReporter, StorePlace, StoreSettings, open_store
from statehouse.storage.store import Store
from statehouse.storage.verification import Verification
from statehouse.storage.view_home import LevelDBHome
from statehouse.types import AgentId
from victims.pace import wall_ns
from victims.pipe import Teller

__all__ = ["Ending", "Settings", "live", "log_nothing_but_bugs", "show"]

READS_WHEN_READ_ONLY: Final = 30
_REFUSALS: Final = (AgentExistsError, NotFoundError, InvalidRequestError)
"""Of forks, for what an agent is."""
SWEPT_S: Final = 20.0


class Ending(IntEnum):
    """The exit codes of a victim that nothing ended from outside."""

    DONE = 0
    BUG = 1
    """What it raised is in its `bug`."""
    DAMAGED = 5
    """The store was refused as damaged."""
    READ_ONLY = 6
    """The log was poisoned; it has gone on reading for a while."""
    NOT_OPENED = 7
    """The disk refused what opening the store needs."""
    NO_COMMIT = 8
    """The store was opened to be looked at, and took no commit."""


@frozen(kw_only=True)
class Settings:
    """A small store, so that a few hundred commits see rotation, snapshots and pruning; and its load."""

    segment_bytes: int = 64 * KIB
    snapshot_interval: int = 50
    fsync: bool = True
    clients: int = 6
    transactions: int = 40
    """Of each client."""
    tx_timeout_ms: int = 30_000
    pace: int = 1
    """How many times as fast time passes for it; see pace.py."""
    shape: Shape = field(
        factory=lambda: Shape(
            tolerated=(StorageError, OverloadedError, TransactionError),
            value_bytes={30: 60, 1_500: 38, 20_000: 2},
        )
    )
    disk: Callable[[], Disk] = RealDisk


async def live(directory: Path, seed: int, floor_ts: int, settings: Settings, teller: Teller) -> Ending:
    """Load the store in `directory` until all clients have sent what they were to send."""
    try:
        opened = await trio.to_thread.run_sync(_open, directory, settings, teller)
    except StorageError as error:
        return _refused(error, teller)
    async with _running(opened, settings, teller) as (engine, health):
        load = Load(_Told(teller, "begun"), _Told(teller, "shown"), floor_ts, forks=_Told(teller, "forking"))
        subject = _TellingSubject(EngineSubject(engine), load, teller, health)
        workload = Workload(random.Random(f"victim {seed}"), settings.shape)
        async with trio.open_nursery() as nursery:
            for _ in range(settings.clients):
                nursery.start_soon(_client, workload, subject, load, settings)
        if health.read_only:
            for _ in range(READS_WHEN_READ_ONLY):
                with suppress(StorageError):  # it was told as broken
                    await workload.read(subject, load)
    return Ending.READ_ONLY if health.read_only else Ending.DONE


async def show(
    directory: Path, load: Load, oracle: Oracle, settings: Settings, teller: Teller, *, settles: bool
) -> Ending:
    """Open the store once more, commit nothing, behind which only the store itself commits; tell `evidence`; verify.

    `settles`: what has expired by now is to be deleted before.
    """
    try:
        opened = await trio.to_thread.run_sync(_open, directory, settings, teller)
    except StorageError as error:
        return _refused(error, teller)
    async with _running(opened, settings, teller) as (engine, health):
        plain = EngineSubject(engine)
        now_ns = 0
        if settles:
            now_ns = engine.now_ns()
            await _all_is_swept(opened.store, now_ns, SWEPT_S * settings.pace)
        mine = Load(_Told(teller, "begun"), newest_ts=oracle.newest_ts)
        nothing = Submission(await plain.begin())
        mine.submissions.append(nothing)
        try:
            await commit(_TellingSubject(plain, mine, teller, health), nothing, mine)
        except StorageError:
            return Ending.NO_COMMIT
        evidence = await gather(plain, settings.shape.agents, load, oracle)
        noted = frozenset(ts for ts in _notes(opened.store) if oracle.newest_ts < ts <= evidence.head_ts)
        teller.tell("evidence", evolve(evidence, noted=noted), now_ns)
        await trio.to_thread.run_sync(_verify, opened, teller)
    return Ending.READ_ONLY if health.read_only else Ending.DONE


@define
class _Health:
    teller: Teller
    read_only: bool = False

    def became_read_only(self) -> None:
        self.read_only = True
        self.teller.tell("read-only")


class _Told(list[Any]):
    """A list of a Load that tells what is added to it."""

    def __init__(self, teller: Teller, what: str) -> None:
        super().__init__()
        self._teller = teller
        self._what = what

    def append(self, added: Submission | AnyRead | Forking) -> None:
        self._teller.tell(self._what, added)
        super().append(added)


class _TellingSubject:
    """Tells of a commit before it is sent and as soon as it is answered, and of reads that fail."""

    def __init__(self, subject: EngineSubject, load: Load, teller: Teller, health: _Health) -> None:
        self._subject = subject
        self._load = load
        self._teller = teller
        self._health = health

    async def begin(self) -> str:
        return await self._subject.begin()

    async def stage(self, txn_id: str, staged: Staged) -> None:
        await self._subject.stage(txn_id, staged)

    async def commit(self, txn_id: str) -> int:
        self._teller.tell("sent", txn_id, self._load.newest_ts)
        try:
            commit_ts = await self._subject.commit(txn_id)
        except StatehouseError as error:
            self._teller.tell("failed", txn_id, outcome_of(error), f"{type(error).__name__}: {error.message}")
            raise
        self._teller.tell("acknowledged", txn_id, commit_ts)
        return commit_ts

    async def abort(self, txn_id: str) -> None:
        await self._subject.abort(txn_id)

    async def fork(self, parent: AgentId, agent: AgentId, at_ts: int | None) -> tuple[int, int, int]:
        number = len(self._load.forks) - 1  # it was told just now
        try:
            forked = await self._subject.fork(parent, agent, at_ts)
        except StatehouseError as error:
            why = "" if isinstance(error, _REFUSALS) else f"{type(error).__name__}: {error.message}"
            self._teller.tell("not forked", number, outcome_of(error), why)
            raise
        self._teller.tell("forked", number, *forked)
        return forked

    async def head(self) -> int:
        return await self._subject.head()

    def now_ns(self) -> int:
        return self._subject.now_ns()

    async def get(self, agent: AgentId, key: str) -> StateResult:
        with self._reading():
            return await self._subject.get(agent, key)

    async def get_at_version(self, agent: AgentId, key: str, version: int) -> StateResult:
        with self._reading():
            return await self._subject.get_at_version(agent, key, version)

    async def scan(self, agent: AgentId, prefix: str) -> dict[str, StateResult]:
        with self._reading():
            return await self._subject.scan(agent, prefix)

    async def replay(self, agent: AgentId, first_ts: int = 0, last_ts: int | None = None) -> AsyncIterator[ReplayEvent]:
        with self._reading():
            async for event in self._subject.replay(agent, first_ts, last_ts):
                yield event

    @contextmanager
    def _reading(self) -> Iterator[None]:
        was_read_only = self._health.read_only
        try:
            yield
        except StorageError as error:
            # A view that is being opened anew cannot be read for a moment; a store that is read-only has one that can.
            if was_read_only or isinstance(error, StoreDamagedError):
                self._teller.tell("broken", f"a read failed: {type(error).__name__}: {error.message}")
            else:
                self._teller.tell("unread", f"a read failed: {type(error).__name__}: {error.message}")
            raise


async def _client(workload: Workload, subject: _TellingSubject, load: Load, settings: Settings) -> None:
    await workload.client(subject, load, transactions=settings.transactions)


@asynccontextmanager
async def _running(opened: OpenedStore, settings: Settings, teller: Teller) -> AsyncIterator[tuple[Engine, _Health]]:
    health = _Health(teller)
    engine_settings = EngineSettings(tx_timeout_ms=settings.tx_timeout_ms)
    try:
        async with run_engine(
            opened,
            engine_settings,
            now_ns=partial(wall_ns, settings.pace),
            became_read_only=health.became_read_only,
        ) as engine:
            yield engine, health
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(opened.store.close)


async def _all_is_swept(store: Store, now_ns: int, patience_s: float) -> None:
    """Wait until whatever had expired by then is deleted; a while at most, for whoever judges sees what is not."""
    with trio.move_on_after(patience_s):
        while any(isinstance(step, Expired) for step in store.sweep(store.swept_until(), now_ns)):  # noqa: ASYNC110
            await trio.sleep(SWEEP_REST_S)


def _notes(store: Store) -> list[int]:
    """The commits that note how far what had expired was deleted."""
    view = store.view_snapshot()
    try:
        return [unpack_swept_key(key) for key, _ in view.scan(*swept_range())]
    finally:
        view.close()


def _verify(opened: OpenedStore, teller: Teller) -> None:
    """Hold records, rows of the view and snapshots against each other, as `statehousectl verify` does."""
    moment = opened.moment()
    try:
        for event in Verification(moment).events():
            if isinstance(event, VerifyFinding) and not event.is_note:
                teller.tell("broken", f"verification: {event}")
    finally:
        if moment.view is not None:
            moment.view.close()


def _open(directory: Path, settings: Settings, teller: Teller) -> OpenedStore:
    opened = open_store(
        StorePlace(
            settings.disk(), str(directory / "log"), str(directory / "snapshots"), LevelDBHome(directory / "state")
        ),
        settings=StoreSettings(
            fsync=settings.fsync,
            segment_bytes=settings.segment_bytes,
            snapshot_interval=settings.snapshot_interval,
            snapshots_keep=2,
        ),
        new_store_id=lambda: secrets.token_bytes(STORE_ID_BYTES),
        reporter=_Reporter(teller),
    )
    teller.tell("opened", opened.recovery.source, opened.recovery.head_ts)
    return opened


class _Reporter(RecoveryReporter):
    """Tells what recovery finds."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller

    def tail_cut(self, cut: TailCut) -> None:
        self._teller.tell("found", f"torn tail of {cut.dropped_bytes} bytes at commit_ts {cut.commit_ts}")

    def view_set_aside(self, reason: str, where: str | None) -> None:
        self._teller.tell("found", f"a view or snapshot that is of no use: {reason}; moved to {where}")


def _refused(error: StorageError, teller: Teller) -> Ending:
    teller.tell("refused", f"{type(error).__name__}: {error.message}")
    return Ending.DAMAGED if isinstance(error, StoreDamagedError) else Ending.NOT_OPENED


def log_nothing_but_bugs(teller: Teller) -> None:
    """Send what the engine logs as an error, which is a bug, to the parent, failed sweeps, and the rest nowhere."""

    def told(_: object, level: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        if event["event"] == "deleting what has expired failed":
            teller.tell("sweep failed", event["reason"])
        if level in {"error", "critical"}:
            error = event.get("exc_info")
            lines = traceback.format_exception(error) if isinstance(error, BaseException) else [str(dict(event))]
            teller.tell("bug", "".join(lines))
        raise structlog.DropEvent

    structlog.configure(processors=[told], cache_logger_on_first_use=False)
