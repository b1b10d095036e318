"""The stores that are hurt: written by the real Store, group by group, from a seed, so that two runs write the same.

The writer stands in for the actors: it counts versions and live keys and forms the groups, which here are the point.
Values are of mixed sizes, and some are full of zeros and of the byte that payloads begin with. Some commits have
metadata, an idempotency key, or the change of a lease. Some values expire; some commits delete those that have, and
some note how far.
"""

from random import Random
from typing import Final

from attrs import define, field
from google.protobuf.struct_pb2 import Struct

from statehouse.limits import TTL_MOST_S
from statehouse.storage.commit import AgentCounters, GroupCommit, PreparedCommit, empty_commit, prepare_section
from statehouse.storage.disk import Disk
from statehouse.storage.keys import EVERYTHING, agent_prefix
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.record_notes import NO_NOTES, Idempotency, LeaseChange, Notes
from statehouse.storage.recovery import OpenedStore, RecoveryReporter, StorePlace, StoreSettings, open_store
from statehouse.storage.section import agent_fields, metadata_fields
from statehouse.storage.store import Store
from statehouse.storage.view import View
from statehouse.storage.view_home import ViewHome
from statehouse.types import AgentId

__all__ = ["AGENTS", "IDEMPOTENCY_KEYS", "LOG", "SNAPSHOTS", "KeptHome", "Writer", "open_at", "rows_of"]

LOG: Final = "store/log"
SNAPSHOTS: Final = "store/snapshots"
IDEMPOTENCY_KEYS: Final = (b"job/1", b"\0")
AGENTS: Final = (AgentId("default", "alice"), AgentId("default", "bob\0"), AgentId("other", "carol"))
BEGAN_NS: Final = 1_700_000_000_000_000_000
_NS_PER_S: Final = 1_000_000_000
"""As far apart are two commits."""
_NEVER_NS: Final = 1 << 64
_TTLS_S: Final = (0, 0, 0, 0, 0, 1, 20, TTL_MOST_S)

_KEYS: Final = tuple(f"key/{number}".encode() for number in range(12))
_VALUE_CHARACTERS: Final = (1, 8, 8, 40, 40, 90, 200, 600)


class KeptHome:
    """The place of a view in memory: `rows` are the view that is found there, None when there is none."""

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self.rows = rows
        self.was_set_aside = False

    def find(self) -> View | None:
        if self.rows is None:
            return None
        view = MemoryView()
        view.apply(self.rows.items())
        return view

    def make(self) -> View:
        return MemoryView()

    def set_aside(self) -> str | None:
        if self.rows is None:
            return None
        self.rows, self.was_set_aside = None, True
        return "set aside"

    def check_writable(self) -> None:
        """Nothing here fails a view."""

    def condemn(self) -> None:
        """Nobody opens it again."""


def open_at(
    disk: Disk,
    home: ViewHome,
    *,
    segment_bytes: int,
    store_id: bytes = bytes(range(16)),
    fsync: bool = True,
    verify_all: bool = False,
    reporter: RecoveryReporter | None = None,
) -> OpenedStore:
    """Open the store on `disk`, whose view is at `home`."""
    return open_store(
        StorePlace(disk, LOG, SNAPSHOTS, home),
        settings=StoreSettings(fsync=fsync, segment_bytes=segment_bytes, verify_all=verify_all),
        new_store_id=lambda: store_id,
        reporter=RecoveryReporter() if reporter is None else reporter,
    )


def rows_of(store: Store) -> dict[bytes, bytes]:
    """Every row of a store's view."""
    snapshot = store.view_snapshot()
    try:
        return dict(snapshot.scan(*EVERYTHING))
    finally:
        snapshot.close()


@define
class Writer:
    """Commits drawn transactions to whatever store it is given; keeps the counts that partitions keep."""

    rng: Random
    keys: tuple[bytes, ...] = _KEYS
    value_characters: tuple[int, ...] = _VALUE_CHARACTERS
    began_ns: int = BEGAN_NS
    commits: int = 0
    _latest: dict[tuple[AgentId, bytes], tuple[int, int]] = field(factory=dict)
    """The version, and when it expires; 0: it is deleted."""
    _counters: dict[AgentId, AgentCounters] = field(factory=dict)
    _now_ns: int = 0

    def commit(self, store: Store, records: int) -> None:
        """One group of so many transactions."""
        first_ts = self.commits + 1
        self._now_ns = self.began_ns + first_ts * _NS_PER_S
        prepared = [self._prepare(first_ts + index) for index in range(records)]
        store.commit(GroupCommit(first_ts, self._now_ns, prepared))
        self.commits += records

    def commit_groups(self, store: Store, groups: int) -> None:
        """So many groups, of one to four transactions."""
        for _ in range(groups):
            self.commit(store, self.rng.choice((1, 1, 2, 3, 4)))

    def _prepare(self, commit_ts: int) -> PreparedCommit:
        txn_id = f"{self.rng.getrandbits(64):016x}"
        agents = sorted(self.rng.sample(AGENTS, self.rng.choice((0, 1, 1, 1, 1, 1, 2))))
        sections = []
        metadata = metadata_fields({"run": txn_id[:4], "step": str(commit_ts)} if self.rng.random() < 0.2 else {})
        for agent in agents:
            before = self._counters.get(agent, AgentCounters())
            operations: list[tuple[bytes, bytes | None, int]] = []
            live = 0
            ttls_s: dict[int, int] = {}
            expired = self._expired(agent) if self.rng.random() < 0.1 else []
            drawn = [(self.rng.choice(self.keys), self._value()) for _ in range(self.rng.choice((1, 1, 1, 2, 3)))]
            for key, content in [(key, None) for key in expired] or drawn:
                version, expiry_ns = self._latest.get((agent, key), (0, 0))
                ttl_s = 0 if content is None else self.rng.choice(_TTLS_S)
                if ttl_s:
                    ttls_s[len(operations)] = ttl_s
                self._latest[agent, key] = version + 1, 0 if content is None else self._expiry_ns(ttl_s)
                live += (content is not None) - bool(expiry_ns)
                operations.append((key, content, version + 1))
            after = before.plus(operations=len(operations), live_keys=live)
            after = after.at(before.first_commit_ts or commit_ts, commit_ts)
            self._counters[agent] = after
            names = agent_fields(agent)
            sections.append(
                prepare_section(
                    agent_prefix(agent), names, txn_id, operations, after, metadata, ttls_s, expired=bool(expired)
                )
            )
        if sections:
            return PreparedCommit(txn_id, sections, self._notes())
        if self.rng.random() < 0.3:
            return empty_commit(txn_id, Notes(swept_until_ns=self._now_ns))
        return empty_commit(txn_id, self._lease())

    def _expiry_ns(self, ttl_s: int) -> int:
        return self._now_ns + ttl_s * _NS_PER_S if ttl_s else _NEVER_NS

    def _expired(self, agent: AgentId) -> list[bytes]:
        return [key for (owner, key), (_, ns) in self._latest.items() if owner == agent and 0 < ns <= self._now_ns]

    def _notes(self) -> Notes:
        if self.rng.random() < 0.7:
            return NO_NOTES
        return Notes(Idempotency(self.rng.choice(IDEMPOTENCY_KEYS), self.rng.randbytes(32)))

    def _lease(self) -> Notes:
        if self.rng.random() < 0.3:
            return NO_NOTES
        ends_ns = self.rng.choice((0, BEGAN_NS + self.rng.getrandbits(40)))
        return Notes(lease=LeaseChange(self.rng.choice(AGENTS), self.rng.randint(1, 200), "w", ends_ns))

    def _value(self) -> bytes | None:
        kind = self.rng.random()
        if kind < 0.1:
            return None
        struct = Struct()
        characters = self.rng.choice(self.value_characters)
        alphabet = "\0" if kind < 0.15 else "\n" if kind < 0.2 else "abcdefgh\n\0"
        struct["v"] = "".join(self.rng.choices(alphabet, k=characters))
        return struct.SerializeToString()
