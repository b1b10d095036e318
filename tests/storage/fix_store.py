"""Stores on a simulated disk with a view that can fail, a writer that stands in for the actors, and a judge.

The writer counts versions by itself and remembers what was committed: the history is the model, and `judge` holds
every read of a store against it.
"""

import random
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pytest
from attrs import Factory, define, field, frozen
from google.protobuf.struct_pb2 import Struct

from statehouse.storage.commit import AgentCounters, GroupCommit, PreparedCommit, empty_commit, prepare_section
from statehouse.storage.disk import RealDisk
from statehouse.storage.keys import EVERYTHING, agent_prefix
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.recovery import OpenedStore, RecoveryReporter, StorePlace, StoreSettings, open_store
from statehouse.storage.section import agent_fields
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.store import Store
from statehouse.storage.view import View, ViewDamagedError, ViewWriteError
from statehouse.storage.view_home import LevelDBHome
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import GetStateAtVersionResponse, GetStateResponse, ReplayEvent, StateEntry

STORE_ID = bytes(range(16))
ALICE = AgentId("default", "alice")
BOB = AgentId("default", "bob")
CAROL = AgentId("other", "carol")
FULL = ViewWriteError("no space left on device", full=True)


@cache
def value(size_bytes: int = 20, mark: object = "") -> bytes:
    """A serialized Struct of just that many bytes, with `mark` in it."""
    for filler in range(size_bytes, -1, -1):
        struct = Struct()
        struct["v"] = f"{mark}{'x' * filler}"
        encoded = struct.SerializeToString()
        if len(encoded) == size_bytes:
            return encoded
    raise ValueError(f"no Struct with {mark!r} has {size_bytes} bytes")


# The view


class FailingView:
    """A view in memory whose batches are kept by its home, and that fails when the home says so."""

    def __init__(self, home: "FailingHome") -> None:
        self._home = home
        self._rows = MemoryView()
        for batch in home.batches:
            self._rows.apply(batch)
        self.get = self._rows.get
        self.scan = self._rows.scan
        self.snapshot = self._rows.snapshot
        self.close = self._rows.close

    def apply(self, writes) -> None:
        batch = list(writes)
        fault, self._home.fault = self._home.fault, None
        if fault is not None:
            self.apply = self._spent
            if fault.is_written:
                self._home.batches.append(batch)  # it is on the disk, and this handle does not show it
            raise fault.error
        self._rows.apply(batch)
        self._home.batches.append(batch)

    @staticmethod
    def _spent(writes) -> None:
        raise AssertionError("a view that failed was written through again")


@frozen
class ViewFault:
    error: Exception
    is_written: bool


@define
class FailingHome:
    """Where a view in memory outlives its handle: every batch that it has applied."""

    batches: list | None = None
    fault: ViewFault | None = None
    find_error: Exception | None = None
    condemned: bool = False
    aside: list = field(factory=list)

    def find(self) -> View | None:
        if self.find_error is not None:
            raise self.find_error
        if self.batches is None:
            return None
        if self.condemned:
            raise ViewDamagedError("condemned")
        return FailingView(self)

    def make(self) -> View:
        if self.batches is not None:
            raise AssertionError("there is a view already")
        self.batches = []
        return FailingView(self)

    def set_aside(self) -> str | None:
        if self.batches is None:
            return None
        self.aside.append(self.batches)
        self.batches = None
        self.condemned = False
        self.find_error = None
        return "aside"

    def condemn(self) -> None:
        self.condemned = True

    def fail_next_batch(self, error: Exception = FULL, *, is_written: bool = False) -> None:
        self.fault = ViewFault(error, is_written)

    def after_crash(self, rng: random.Random) -> "FailingHome":
        """What is found when the power fails: the view is not synced, and may have lost its newest batches."""
        if self.batches is None:
            return FailingHome()
        return FailingHome(self.batches[: rng.randint(0, len(self.batches))])


# The store


@define
class Reports(RecoveryReporter):
    cuts: list = field(factory=list)
    set_aside: list = field(factory=list)
    progressed: list = field(factory=list)

    def tail_cut(self, cut) -> None:
        self.cuts.append(cut)

    def view_set_aside(self, reason, where) -> None:
        self.set_aside.append(reason)

    def progress(self, applied, commit_ts) -> None:
        self.progressed.append((applied, commit_ts))


@define
class StoreBench:
    """A place for a store, and stores opened there."""

    disk: SimulatedDisk | RealDisk = field(factory=SimulatedDisk)
    home: FailingHome | LevelDBHome = field(factory=FailingHome)
    root: str = ""
    segment_bytes: int = 4_096
    reports: Reports = field(factory=Reports)
    opened: list[Store] = field(factory=list)

    @property
    def place(self) -> StorePlace:
        return StorePlace(self.disk, f"{self.root}log", f"{self.root}snapshots", self.home)

    def open(self, **settings) -> OpenedStore:
        self.reports = Reports()
        opened = open_store(
            self.place,
            settings=StoreSettings(**({"segment_bytes": self.segment_bytes} | settings)),
            new_store_id=lambda: STORE_ID,
            reporter=self.reports,
        )
        self.opened.append(opened.store)
        return opened

    def store(self, **settings) -> Store:
        return self.open(**settings).store

    def close(self) -> None:
        while self.opened:
            self.opened.pop().close()

    def after_crash(self, rng: random.Random) -> "StoreBench":
        return StoreBench(self.disk.crash(rng), self.home.after_crash(rng), self.root, self.segment_bytes)

    def log_content(self) -> dict[str, bytes]:
        found = {}
        for name in sorted(self.disk.list_dir(f"{self.root}log")):
            file = self.disk.open(f"{self.root}log/{name}", read_only=True)
            found[name] = file.read_at(0, file.size())
            file.close()
        return found


def rows_of(store: Store) -> list[tuple[bytes, bytes]]:
    """Every row of the store's view."""
    snapshot = store.view_snapshot()
    try:
        return list(snapshot.scan(*EVERYTHING))
    finally:
        snapshot.close()


@pytest.fixture
def store_bench():
    """A store's place on a simulated disk, with a view in memory that survives reopening and can fail."""
    bench = StoreBench()
    yield bench
    bench.close()


@pytest.fixture
def leveldb_bench(tmp_path: Path):
    """A store's place in a temporary directory, with a real LevelDB."""
    bench = StoreBench(RealDisk(), LevelDBHome(tmp_path / "state"), f"{tmp_path}/", 64 * 1024)
    yield bench
    bench.close()


# The writer


@frozen
class Txn:
    """A transaction: for each agent the (key, value or None) in order."""

    txn_id: str
    legs: dict[AgentId, list[tuple[bytes, bytes | None]]] = Factory(dict)


@frozen
class Committed:
    """A transaction in the history, with the versions that its operations got."""

    txn_id: str
    commit_ts: int
    time_ns: int
    legs: dict[AgentId, list[tuple[bytes, bytes | None, int]]]


@define
class Writer:
    """What the actors do for a store: counts versions, makes groups. `history` is what was committed."""

    store: Store
    history: list[Committed] = field(factory=list)
    now_ns: int = 1_000_000_000
    _ids: int = 0

    def txn(self, *operations: tuple) -> Txn:
        """A transaction of (agent, key, value or None) operations."""
        self._ids += 1
        legs: dict[AgentId, list] = {}
        for agent, key, content in operations:
            legs.setdefault(agent, []).append((key, content))
        return Txn(f"txn-{self._ids}-{len(self.history)}", legs)

    def commit(self, *operations: tuple) -> int:
        """One transaction, one group; its commit_ts."""
        return self.commit_group(self.txn(*operations))

    def commit_group(self, *txns: Txn) -> int:
        """Commit transactions as one group; the last commit_ts. The history grows only when that succeeds."""
        self.now_ns += 1
        group, committed = self.group(txns)
        self.store.commit(group)
        self.history += committed
        return group.last_commit_ts

    def group(self, txns: Sequence[Txn]) -> tuple[GroupCommit, list[Committed]]:
        first_ts = len(self.history) + 1
        latest = {(a, k): (v, ts, c) for (a, k), (v, ts, c) in latest_of(self.history).items()}
        counters = counters_of(self.history)
        known = set(counters)  # a partition knows first_commit_ts of what is durable
        prepared, committed = [], []
        for commit_ts, txn in enumerate(txns, first_ts):
            sections, legs = [], {}
            for agent in sorted(txn.legs):
                operations, live = [], 0
                for key, content in txn.legs[agent]:
                    version, _, before = latest.get((agent, key), (0, 0, None))
                    live += (content is not None) - (before is not None)
                    latest[agent, key] = (version + 1, commit_ts, content)
                    operations.append((key, content, version + 1))
                before = counters.get(agent, AgentCounters())
                after = counters[agent] = before.plus(operations=len(operations), live_keys=live)
                if agent not in known:
                    after = after.at(0, 0)
                sections.append(
                    prepare_section(agent_prefix(agent), agent_fields(agent), txn.txn_id, operations, after)
                )
                legs[agent] = operations
            prepared.append(PreparedCommit(txn.txn_id, sections) if sections else empty_commit(txn.txn_id))
            committed.append(Committed(txn.txn_id, commit_ts, self.now_ns, legs))
        return GroupCommit(first_ts, self.now_ns, prepared), committed

    def commit_randomly(
        self, rng: random.Random, transactions: int, *, agents: Sequence[AgentId] = (ALICE, BOB, CAROL)
    ):
        """Groups of random transactions: writes small and large, deletes, several agents, none."""
        left = transactions
        while left:
            group = [random_txn(self, rng, agents) for _ in range(min(left, rng.randint(1, 5)))]
            self.commit_group(*group)
            left -= len(group)


def random_txn(writer: Writer, rng: random.Random, agents: Sequence[AgentId]) -> Txn:
    operations = []
    for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
        key = rng.choice((b"k", b"key/1", b"key/2", b"nul\x00", "\N{SNOWMAN}".encode()))
        size = rng.choice((20, 40, 256, 257, 700))
        content = None if rng.random() < 0.3 else value(size, rng.randrange(100))
        operations.append((rng.choice(agents), key, content))
    return writer.txn(*operations)


# The judge


def latest_of(history: Iterable[Committed]) -> dict[tuple[AgentId, bytes], tuple[int, int, bytes | None]]:
    """(agent, key) -> version, commit_ts, value."""
    latest = {}
    for committed in history:
        for agent, operations in committed.legs.items():
            for key, content, version in operations:
                latest[agent, key] = (version, committed.commit_ts, content)
    return latest


def counters_of(history: Iterable[Committed]) -> dict[AgentId, AgentCounters]:
    counters: dict[AgentId, AgentCounters] = {}
    live: dict[AgentId, set[bytes]] = {}
    for committed in history:
        for agent, operations in committed.legs.items():
            before = counters.get(agent, AgentCounters(first_commit_ts=committed.commit_ts))
            keys = live.setdefault(agent, set())
            for key, content, _ in operations:
                (keys.discard if content is None else keys.add)(key)
            counters[agent] = AgentCounters(
                before.first_commit_ts,
                committed.commit_ts,
                before.commits + 1,
                before.operations + len(operations),
                len(keys),
            )
    return counters


def judge(store: Store, history: Sequence[Committed]) -> None:
    """Hold every read of the store against the history."""
    assert store.head_ts == len(history)
    latest, counters = latest_of(history), counters_of(history)
    for (agent, key), found in latest.items():
        assert _state(GetStateResponse.FromString(store.get_state(agent, key))) == found
    for committed in history[-50:]:
        assert store.committed_ts(committed.txn_id) == committed.commit_ts
    for agent, expected in counters.items():
        assert store.counters(agent_prefix(agent)) == expected
        live = sorted(key for (a, key), (_, _, content) in latest.items() if a == agent and content is not None)
        assert store.list_keys(agent) == [key.decode() for key in live]
        entries = [StateEntry.FromString(entry) for entry in store.scan_prefix(agent, b"")]
        assert [
            (entry.key.encode(), (entry.version, entry.commit_ts, entry.value.SerializeToString())) for entry in entries
        ] == [(key, latest[agent, key]) for key in live]
        touched = [committed for committed in history if agent in committed.legs]
        events = [ReplayEvent.FromString(event) for event in all_events(store, agent)]
        assert [(event.txn_id, event.commit_ts, event.committed_at.ToNanoseconds()) for event in events] == [
            (committed.txn_id, committed.commit_ts, committed.time_ns) for committed in touched
        ]
        for event, committed in zip(events, touched, strict=True):
            assert (event.namespace, event.agent_id) == agent
            assert [
                (op.key.encode(), op.value.SerializeToString() if op.HasField("value") else None, op.version)
                for op in event.operations
            ] == committed.legs[agent]
            for key, content, version in committed.legs[agent]:
                at = GetStateAtVersionResponse.FromString(store.get_state_at_version(agent, key, version))
                assert _state(at) == (version, committed.commit_ts, content)


def all_events(store: Store, agent: AgentId) -> list[bytes]:
    events: list[bytes] = []
    next_ts: int | None = 0
    while next_ts is not None:
        chunk = store.events(agent, next_ts, store.head_ts)
        events += chunk.events
        next_ts = chunk.next_ts
    return events


def _state(found) -> tuple[int, int, bytes | None]:
    assert found.exists == found.HasField("value")
    return found.version, found.commit_ts, found.value.SerializeToString() if found.exists else None
