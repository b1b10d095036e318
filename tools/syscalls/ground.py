"""What a case in this process stands on: a simulated disk and a view that can fail, and engines opened there.

Everything runs in turns of one event loop on virtual time: worker threads too, so that a case is the same every time.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest import mock

import structlog
import trio
from attrs import Factory, define, field
from histories.workload import AGENTS, Shape
from seeded_turns import seeded_turns

from statehouse.actors.engine import Engine, EngineSettings, run_engine
from statehouse.errors import OverloadedError, StorageError
from statehouse.storage.recovery import RecoveryReporter, StorePlace, StoreSettings, open_store
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.view_home import LevelDBHome, ViewHome
from syscalls.calls import Striker
from syscalls.faulty_disk import FaultyDisk
from syscalls.faulty_view import FaultyHome, KeptHome
from syscalls.watched import Watch

__all__ = ["LOAD", "SETTINGS", "Ground", "ground", "in_turns"]

T = TypeVar("T")

SETTINGS: Final = StoreSettings(segment_bytes=4_096, snapshot_interval=8, snapshots_keep=1)
"""So small that a few dozen commits see rotation, segments made ahead, snapshots and pruning."""
LOAD: Final = Shape(
    agents=AGENTS[:4] + AGENTS[-1:],
    keys=("a", "b", "ключ 🔑"),
    value_bytes={30: 50, 700: 45, 3_000: 5},
    tolerated=(StorageError, OverloadedError),
)
STORE_ID: Final = bytes(range(16))


@define
class Ground:
    """A store's place and whatever strikes it."""

    home: ViewHome
    disk: SimulatedDisk = field(factory=SimulatedDisk)
    striker: Striker = field(factory=Striker)
    watch: Watch = field(factory=Watch)
    faulty: FaultyDisk = Factory(lambda self: FaultyDisk(self.disk, self.striker), takes_self=True)
    faulty_home: FaultyHome = Factory(lambda self: FaultyHome(self.home, self.striker), takes_self=True)
    ids: Iterator[int] = field(factory=count)
    _ns: Iterator[int] = field(factory=lambda: count(1_000_000_000, 1_000))

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """An engine on the store as it is; closed with the block. Raises what opening and closing raise."""
        place = StorePlace(self.faulty, "log", "snapshots", self.faulty_home)
        opened = open_store(place, settings=SETTINGS, new_store_id=lambda: STORE_ID, reporter=RecoveryReporter())
        try:
            async with run_engine(
                opened,
                EngineSettings(),
                now_ns=lambda: next(self._ns),
                new_txn_id=lambda: f"txn-{next(self.ids):05}",
                became_read_only=self.watch.read_only,
            ) as engine:
                yield engine
        finally:
            opened.store.close()

    def wrong(self) -> list[str]:
        """What the life of the engine that has just ended did and may not do."""
        wrong, self.faulty_home.wrong[:] = [*self.faulty.forgotten(), *self.faulty_home.wrong], []
        return wrong


@contextmanager
def ground(view: str) -> Iterator[Ground]:
    """An empty place, with a view of this kind: `memory` or `leveldb`."""
    if view == "memory":
        yield Ground(KeptHome())
        return
    directory = tempfile.mkdtemp(prefix="statehouse-proof-syscalls-")
    try:
        yield Ground(LevelDBHome(Path(directory) / "state"))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def in_turns(seed: int) -> Iterator[None]:
    """Worker threads are turns of the loop, the order of tasks is drawn from the seed, and nothing is logged."""

    async def run_sync(function: Callable[..., T], *arguments: Any, limiter: object = None) -> T:
        del limiter  # one thing is done at a time, whoever asks
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        return function(*arguments)

    with mock.patch.object(trio.to_thread, "run_sync", run_sync), seeded_turns() as seed_turns:
        seed_turns(seed)
        before = structlog.get_config()
        structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.configure(**before)


def _drop(*_: object) -> str:
    raise structlog.DropEvent
