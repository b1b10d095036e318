"""What a store must say of its past, told the slow way: from the list of all that was committed."""

from collections.abc import Sequence

from google.protobuf.json_format import MessageToDict
from hypothesis import strategies as st
from storage.fix_store import ALICE, BOB, CAROL, Committed, StoreBench, Writer, value

from statehouse.storage.agents import NamespaceTally
from statehouse.storage.commit import AgentCounters
from statehouse.storage.keys import agent_prefix
from statehouse.storage.store import Store
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import (
    AgentInfo,
    BatchGetEntry,
    DiffEntry,
    GetStateResponse,
    HistoryEntry,
    NamespaceInfo,
    StateEntry,
)

KEYS = (b"a", b"a/1", b"a/2", b"nul\x00", b"nul\x00\x01", "\N{SNOWMAN}".encode())
AGENTS = (ALICE, BOB, CAROL)
Version = tuple[int, int, bytes | None]
"""version, commit_ts, value."""

contents = st.one_of(st.none(), st.sampled_from([20, 256, 257, 600]).flatmap(lambda size: st.just(value(size))))
operations = st.tuples(st.sampled_from(AGENTS), st.sampled_from(KEYS), contents)
groups = st.lists(st.lists(st.lists(operations, max_size=4), min_size=1, max_size=3), max_size=8)
"""Groups of transactions of operations."""


def written(bench: StoreBench, history: Sequence[Sequence[Sequence[tuple]]]) -> Writer:
    """A store with that history."""
    writer = Writer(bench.store())
    for group in history:
        writer.now_ns += 9  # and one for each group
        writer.commit_group(*(writer.txn(*operations) for operations in group))
    return writer


# The model


def versions_of(history: Sequence[Committed], agent: AgentId, key: bytes) -> list[Version]:
    return [
        (version, committed.commit_ts, content)
        for committed in history
        for name, content, version in committed.legs.get(agent, ())
        if name == key
    ]


def at(history: Sequence[Committed], agent: AgentId, key: bytes, ts: int) -> Version:
    return max((found for found in versions_of(history, agent, key) if found[1] <= ts), default=(0, 0, None))


def all_at(history: Sequence[Committed], agent: AgentId, prefix: bytes, ts: int) -> dict[bytes, Version]:
    """The live keys with the prefix."""
    written = {key for committed in history for key, _, _ in committed.legs.get(agent, ())}
    found = {key: at(history, agent, key, ts) for key in sorted(written) if key.startswith(prefix)}
    return {key: version for key, version in found.items() if version[2] is not None}


# What the store says


def state(encoded: bytes | GetStateResponse | BatchGetEntry) -> Version:
    found = GetStateResponse.FromString(encoded) if isinstance(encoded, bytes) else encoded
    assert found.exists == found.HasField("value")
    return found.version, found.commit_ts, found.value.SerializeToString() if found.exists else None


def entries(encoded: Sequence[bytes]) -> list[tuple[bytes, Version]]:
    found = map(StateEntry.FromString, encoded)
    return [(each.key.encode(), (each.version, each.commit_ts, each.value.SerializeToString())) for each in found]


def pages(store: Store, agent: AgentId, limit: int, at_ts: int | None, prefix: bytes | None = None) -> list:
    """All pages, one after the other: of keys, or with `prefix` of entries."""
    found: list = []
    after: str | None = None
    while True:
        start = None if after is None else after.encode()
        if prefix is None:
            page = store.list_page(agent, start, limit, at_ts)
        else:
            page = store.scan_page(agent, prefix, start, limit, at_ts)
        assert len(page.found) <= limit
        found += page.found
        if page.next_after is None:
            return found
        assert after is None or page.next_after > after
        after = page.next_after


def histories(
    store: Store, agent: AgentId, key: bytes, before: int | None = None, limit: int | None = None
) -> list[HistoryEntry]:
    found: list[HistoryEntry] = []
    while True:
        chunk = store.history(agent, key, before, None if limit is None else limit - len(found))
        found += map(HistoryEntry.FromString, chunk.entries)
        before = chunk.next_before
        if before is None or len(found) == limit:
            return found


def diffs(store: Store, agent: AgentId, from_ts: int, to_ts: int, prefix: bytes = b"") -> list[tuple]:
    found: list[tuple] = []
    after: bytes | None = None
    while True:
        chunk = store.diff(agent, from_ts, to_ts, prefix, after)
        entries = map(DiffEntry.FromString, chunk.entries)
        found += [(each.key.encode(), state(each.before), state(each.after)) for each in entries]
        after = chunk.next_after
        if after is None:
            return found


def log_events(store: Store, first_ts: int, last_ts: int) -> list[tuple[int, AgentId, bytes]]:
    found: list[tuple[int, AgentId, bytes]] = []
    next_ts: int | None = first_ts
    while next_ts is not None:
        chunk = store.log_sections(next_ts, last_ts)
        found += chunk.events
        next_ts = chunk.next_ts
    return found


# The judge


def judge_past(
    store: Store, history: Sequence[Committed], points: Sequence[int], agents: Sequence[AgentId] = AGENTS
) -> None:
    """Hold what the store says of each point against the history."""
    every_key = [(agent, key) for agent in agents for key in (*KEYS, b"never")]
    for ts in points:
        for agent, key in every_key:
            assert state(store.get_state(agent, key, ts)) == at(history, agent, key, ts)
        batch = [BatchGetEntry.FromString(entry) for entry in store.batch_get(every_key, ts)]
        assert [(AgentId(each.namespace, each.agent_id), each.key.encode()) for each in batch] == every_key
        assert [state(each) for each in batch] == [at(history, agent, key, ts) for agent, key in every_key]
        for agent in agents:
            live = all_at(history, agent, b"", ts)
            assert store.list_keys(agent, ts) == [key.decode() for key in live]
            assert pages(store, agent, 2, ts) == store.list_keys(agent, ts)
            for prefix in (b"", b"a/", b"nul\x00", b"x"):
                expected = list(all_at(history, agent, prefix, ts).items())
                assert entries(store.scan_prefix(agent, prefix, ts)) == expected
                assert entries(pages(store, agent, 1, ts, prefix)) == expected


def judge_diffs(
    store: Store,
    history: Sequence[Committed],
    points: Sequence[tuple[int, int]],
    agents: Sequence[AgentId] = AGENTS,
) -> None:
    for from_ts, to_ts in points:
        for agent in agents:
            both = ((key, at(history, agent, key, from_ts), at(history, agent, key, to_ts)) for key in sorted(KEYS))
            assert diffs(store, agent, from_ts, to_ts) == [each for each in both if each[1][0] != each[2][0]]


def judge_histories(store: Store, history: Sequence[Committed], agents: Sequence[AgentId] = AGENTS) -> None:
    by_ts = {committed.commit_ts: committed for committed in history}
    for agent in agents:
        for key in KEYS:
            found = histories(store, agent, key)
            expected = versions_of(history, agent, key)[::-1]
            assert [state_of_version(each) for each in found] == expected
            for each in found:
                committed = by_ts[each.commit_ts]
                assert (each.txn_id, each.committed_at.ToNanoseconds()) == (committed.txn_id, committed.time_ns)
            for before in {1, 2, len(expected), len(expected) + 1, 2**64 - 1}:
                below = [version for version in expected if version[0] < before]
                assert [state_of_version(each) for each in histories(store, agent, key, before, 2)] == below[:2]


def state_of_version(each: HistoryEntry) -> Version:
    assert each.exists == each.HasField("value")
    return each.version, each.commit_ts, each.value.SerializeToString() if each.exists else None


def judge_times(store: Store, history: Sequence[Committed], agents: Sequence[AgentId] = AGENTS) -> None:
    times = sorted({time for committed in history for time in (committed.time_ns - 1, committed.time_ns)})
    for time_ns in (0, *times, 2**63):
        before = [committed for committed in history if committed.time_ns <= time_ns]
        assert store.log_ts_at_time(time_ns) == (before[-1].commit_ts if before else 0)
        for agent in agents:
            touched = [committed.commit_ts for committed in before if agent in committed.legs]
            assert store.ts_at_time(agent, time_ns) == (touched[-1] if touched else 0)


def judge_whole_log(store: Store, history: Sequence[Committed], starts: Sequence[int]) -> None:
    for first_ts in starts:
        expected = [
            (committed.commit_ts, agent)
            for committed in history
            for agent in sorted(committed.legs)
            if committed.commit_ts >= first_ts
        ]
        found = log_events(store, first_ts, 2**64 - 1)
        assert [(commit_ts, agent) for commit_ts, agent, _ in found] == expected
        for commit_ts, agent, event in found:
            assert store.events(agent, commit_ts, commit_ts).events == [event]


def judge_names(store: Store, history: Sequence[Committed]) -> None:
    agents = sorted({agent for committed in history for agent in committed.legs})
    tally = NamespaceTally(100)
    for agent, counters in store.agents("", None):
        assert counters == store.counters(agent_prefix(agent))
        tally.add(agent, counters)
    assert [agent for agent, _ in store.agents("", None)] == agents
    sums = {info.namespace: info for info in map(NamespaceInfo.FromString, tally.page().found)}
    assert list(sums) == sorted({agent.namespace for agent in agents})
    for namespace, total in sums.items():
        infos = [AgentInfo.FromString(info) for info in store.list_agents(namespace, "", None, 100).found]
        assert [info.agent_id for info in infos] == [agent.agent_id for agent in agents if agent[0] == namespace]
        assert total.agents == len(infos)
        for name in ("live_keys", "commits", "operations"):
            assert getattr(total, name) == sum(getattr(info, name) for info in infos)
        assert total.first_commit_ts == min(info.first_commit_ts for info in infos)
        assert total.last_commit_ts == max(info.last_commit_ts for info in infos)
        for info in infos:
            counters = store.counters(agent_prefix(AgentId(namespace, info.agent_id)))
            named = MessageToDict(info, preserving_proto_field_name=True)
            counts = {name: int(number) for name, number in named.items() if name in AgentCounters._fields}
            assert counts == {name: number for name, number in counters._asdict().items() if number}


def holds_nothing(store: Store) -> bool:
    """Whether nobody reads the store's view, which is in memory, at the moment."""
    return not store._view._rows._map._moments
