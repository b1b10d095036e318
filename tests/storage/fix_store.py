"""Stores on a simulated disk with a view that can fail, a writer that stands in for the actors, and a judge.

The writer counts versions by itself and remembers what was committed: the history is the model, and `judge` holds
every read of a store against it.
"""

import random
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pytest
from attrs import Factory, define, evolve, field, frozen
from google.protobuf.struct_pb2 import Struct

from statehouse.limits import TTL_MOST_S
from statehouse.storage.commit import AgentCounters, GroupCommit, PreparedCommit, empty_commit, prepare_section
from statehouse.storage.disk import RealDisk
from statehouse.storage.keys import EVERYTHING, agent_prefix
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.record_notes import NO_NOTES, Idempotency, LeaseChange, Notes
from statehouse.storage.recovery import OpenedStore, RecoveryReporter, StorePlace, StoreSettings, open_store
from statehouse.storage.section import agent_fields, metadata_fields
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.store import Earlier, LeaseRow, Store
from statehouse.storage.view import View, ViewDamagedError, ViewWriteError
from statehouse.storage.view_home import LevelDBHome
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import GetStateAtVersionResponse, GetStateResponse, ReplayEvent, StateEntry

STORE_ID = bytes(range(16))
ALICE = AgentId("default", "alice")
BOB = AgentId("default", "bob")
CAROL = AgentId("other", "carol")
UNWRITTEN = AgentId("other", "has only leases")
METADATA = (("run", "r-1"), ("", "no name"), ("model", ""), ("b", "x" * 200), ("\N{SNOWMAN}", "\N{SNOWMAN}\0"))
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
        self.get_many = self._rows.get_many
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
    write_error: Exception | None = None
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

    def check_writable(self) -> None:
        if self.write_error is not None:
            raise self.write_error

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
        """Every file of the log but the note of what was taken back from it."""
        found = {}
        for name in sorted(set(self.disk.list_dir(f"{self.root}log")) - {"taken-back"}):
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


@pytest.fixture(params=["store_bench", "leveldb_bench"], ids=["memory", "leveldb"])
def any_bench(request):
    """Either of these."""
    return request.getfixturevalue(request.param)


# The writer


@frozen
class Txn:
    """A transaction: for each agent the (key, value or None) in order."""

    txn_id: str
    legs: dict[AgentId, list[tuple[bytes, bytes | None]]] = Factory(dict)
    metadata: dict[str, str] = Factory(dict)
    notes: Notes = NO_NOTES
    ttls_s: tuple[int, ...] = ()
    """Of the writes of each agent, in turn; () and 0: none."""


@frozen
class Committed:
    """A transaction in the history, with the versions that its operations got."""

    txn_id: str
    commit_ts: int
    time_ns: int
    legs: dict[AgentId, list[tuple[bytes, bytes | None, int]]]
    metadata: dict[str, str] = Factory(dict)
    notes: Notes = NO_NOTES


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
                operations, live, ttls_s = [], 0, {}
                for place, (key, content) in enumerate(txn.legs[agent]):
                    if content is not None and txn.ttls_s and (ttl_s := txn.ttls_s[place % len(txn.ttls_s)]):
                        ttls_s[place] = ttl_s
                    version, _, before = latest.get((agent, key), (0, 0, None))
                    live += (content is not None) - (before is not None)
                    latest[agent, key] = (version + 1, commit_ts, content)
                    operations.append((key, content, version + 1))
                before = counters.get(agent, AgentCounters())
                after = counters[agent] = before.plus(operations=len(operations), live_keys=live)
                if agent not in known:
                    after = after.at(0, 0)
                sections.append(
                    prepare_section(
                        agent_prefix(agent),
                        agent_fields(agent),
                        txn.txn_id,
                        operations,
                        after,
                        metadata_fields(txn.metadata),
                        ttls_s,
                    )
                )
                legs[agent] = operations
            prepared.append(
                PreparedCommit(txn.txn_id, sections, txn.notes) if sections else empty_commit(txn.txn_id, txn.notes)
            )
            committed.append(Committed(txn.txn_id, commit_ts, self.now_ns, legs, txn.metadata, txn.notes))
        return GroupCommit(first_ts, self.now_ns, prepared), committed

    def commit_randomly(
        self, rng: random.Random, transactions: int, *, agents: Sequence[AgentId] = (ALICE, BOB, CAROL)
    ):
        """Groups of random transactions: writes small and large, deletes, several agents, none; metadata, notes."""
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
    metadata = dict(rng.sample(METADATA, rng.choice((0, 0, 1, 3))))
    return evolve(
        writer.txn(*operations),
        metadata=metadata,
        notes=random_notes(rng, agents, has_operations=bool(operations)),
        ttls_s=rng.choice(((), (), (60,), (0, 1, TTL_MOST_S))),
    )


def random_notes(rng: random.Random, agents: Sequence[AgentId], *, has_operations: bool) -> Notes:
    """Now and then an idempotency key, which some share, or, without operations, the change of a lease, or a sweep."""
    if rng.random() < 0.6:
        return NO_NOTES
    if has_operations:
        return Notes(idempotency=Idempotency(rng.choice((b"i", b"i\x00", b"job/7")), rng.randbytes(32)))
    if rng.random() < 0.3:
        return Notes(swept_until_ns=rng.choice((0, rng.randrange(2**62))))
    holder, expires_at_ns = rng.choice((("", 0), ("worker \N{SNOWMAN}", 2**62 + rng.randrange(1_000))))
    return Notes(lease=LeaseChange(rng.choice((*agents, UNWRITTEN)), rng.randint(1, 300), holder, expires_at_ns))


# The judge


def latest_of(history: Iterable[Committed]) -> dict[tuple[AgentId, bytes], tuple[int, int, bytes | None]]:
    """(agent, key) -> version, commit_ts, value."""
    latest = {}
    for committed in history:
        for agent, operations in committed.legs.items():
            for key, content, version in operations:
                latest[agent, key] = (version, committed.commit_ts, content)
    return latest


def noted(history: Iterable[Committed]) -> tuple[dict[tuple[AgentId, bytes], Earlier], dict[AgentId, LeaseRow]]:
    """The newest commit with each idempotency key, by agent and key; the newest lease of each agent."""
    earlier, leases = {}, {}
    for committed in history:
        if (idempotency := committed.notes.idempotency) is not None:
            row = Earlier(committed.commit_ts, committed.time_ns, idempotency.fingerprint)
            earlier.update({(agent, idempotency.key): row for agent in committed.legs})
        if (lease := committed.notes.lease) is not None:
            leases[lease.agent] = LeaseRow(committed.commit_ts, lease.epoch, lease.holder, lease.expires_at_ns)
    return earlier, leases


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
    """Hold every read of the store against the history, before anything has expired."""
    store.now_ns = lambda: 0
    assert store.head_ts == len(history)
    latest, counters = latest_of(history), counters_of(history)
    for (agent, key), found in latest.items():
        assert _state(GetStateResponse.FromString(store.get_state(agent, key))) == found
    for committed in history[-50:]:
        assert store.committed_ts(committed.txn_id) == committed.commit_ts
    earlier, leases = noted(history)
    for (agent, key), row in earlier.items():
        assert store.idempotent(agent_prefix(agent), key) == row
    for agent, lease in leases.items():
        assert store.lease(agent_prefix(agent)) == lease
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
            assert (event.namespace, event.agent_id, dict(event.metadata)) == (*agent, committed.metadata)
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
