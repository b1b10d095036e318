"""From settings to a running engine: which disk and view the store stands on, opened in a thread, closed behind it."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import trio

from statehouse.actors.engine import Engine, EngineSettings, run_engine
from statehouse.settings import Settings, VerifyOnStart
from statehouse.storage.disk import RealDisk
from statehouse.storage.event_log import TailCut
from statehouse.storage.log_format import STORE_ID_BYTES
from statehouse.storage.recovery import OpenedStore, RecoveryReporter, StorePlace, StoreSettings, open_store
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.view_home import LevelDBHome, MemoryHome

__all__ = ["open_engine"]

log = structlog.stdlib.get_logger(__name__)

PROGRESS_S = 1.0
"""How often recovery says how far it is."""


class _LoggingReporter(RecoveryReporter):
    """Says in the log what recovery finds, and once a second how far it is."""

    def __init__(self) -> None:
        self._started_s = self._said_s = time.monotonic()

    def tail_cut(self, cut: TailCut) -> None:
        log.warning(
            "torn tail cut",
            path=cut.path,
            offset=cut.offset,
            commit_ts=cut.commit_ts,
            dropped_bytes=cut.dropped_bytes,
            reason=cut.reason,
        )

    def view_set_aside(self, reason: str, where: str | None) -> None:
        log.warning("a view or snapshot cannot be used, and is passed over", reason=reason, moved_to=where)

    def progress(self, applied: int, commit_ts: int) -> None:
        trio.from_thread.check_cancelled()  # a signal during a long rebuild need not wait for its end
        now_s = time.monotonic()
        if now_s - self._said_s >= PROGRESS_S:
            self._said_s = now_s
            rate = round(applied / (now_s - self._started_s))
            log.info("applying the log", applied=applied, commit_ts=commit_ts, per_s=rate)


@asynccontextmanager
async def open_engine(
    settings: Settings, *, became_read_only: Callable[[], None] = lambda: None
) -> AsyncIterator[Engine]:
    """Open the store that the settings name and run the engine on it.

    The caller holds the data directory's lock. Opening blocks in a worker thread for as long as recovery takes; when it
    is cancelled, recovery stops between two batches, and the next start goes on from there. `became_read_only` is
    as for `run_engine`. Raises what `open_store` raises.
    """
    place = _in_memory() if settings.use_memory else _below(settings.data_dir)
    started_s = time.monotonic()
    opened = await trio.to_thread.run_sync(_open, place, settings)
    try:
        recovery = opened.recovery
        log.info(
            "store opened",
            head_ts=recovery.head_ts,
            view_from=recovery.source,
            applied=recovery.applied,
            seconds=round(time.monotonic() - started_s, 3),
        )
        engine_settings = EngineSettings(
            limits=settings.limits,
            tx_timeout_ms=settings.tx_timeout_ms,
            max_resident_partitions=settings.max_resident_partitions,
            idempotency_window_s=settings.idempotency_window_s,
        )
        async with run_engine(opened, engine_settings, became_read_only=became_read_only) as engine:
            yield engine
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(opened.store.close)


def _open(place: StorePlace, settings: Settings) -> OpenedStore:
    return open_store(
        place,
        settings=StoreSettings(
            fsync=settings.fsync_on_commit,
            max_bytes=settings.max_log_size,
            verify_all=settings.verify_on_start is VerifyOnStart.FULL,
            snapshot_interval=0 if settings.use_memory else settings.snapshot_interval,
            snapshots_keep=settings.snapshots_keep,
        ),
        new_store_id=lambda: secrets.token_bytes(STORE_ID_BYTES),
        reporter=_LoggingReporter(),
    )


def _below(data_directory: Path) -> StorePlace:
    return StorePlace(
        RealDisk(),
        str(data_directory / "log"),
        str(data_directory / "snapshots"),
        LevelDBHome(data_directory / "state"),
    )


def _in_memory() -> StorePlace:
    return StorePlace(SimulatedDisk(), "log", "snapshots", MemoryHome())
