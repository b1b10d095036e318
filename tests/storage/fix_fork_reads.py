"""A writer whose forks are copies: what a store must say of forks, told by a history that has everything twice.

When an agent is forked, its part of every commit up to the point is written into the history once more under the fork's
name. So the model of an agent that is no fork is the model of one that is, and the judges of `fix_past` and `fix_store`
judge both.
"""

from collections.abc import Sequence

from attrs import define, evolve, field
from hypothesis import strategies as st
from storage.fix_past import KEYS, all_at, contents, versions_of
from storage.fix_store import ALICE, BOB, CAROL, Committed, Writer, all_events, counters_of, judge

from statehouse.storage.commit import AgentCounters
from statehouse.storage.keys import agent_prefix
from statehouse.storage.lineage import Child, Lineage, Origin
from statehouse.storage.record_notes import ForkNote, Inherited, Notes
from statehouse.storage.store import Store
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import AgentInfo, ForkOrigin

NEW = AgentId("default", "new")

numbers = st.integers(0, 1_000)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(st.tuples(numbers, st.sampled_from(KEYS), contents), max_size=4)),
        st.tuples(st.just("fork"), numbers, numbers),
        st.tuples(st.just("end"), numbers),
    ),
    max_size=25,
)
"""What happens, for `CopyingWriter.live`."""


@define
class CopyingWriter(Writer):
    """A `Writer` that forks and deletes agents, too."""

    agents: list[AgentId] = field(factory=lambda: [ALICE, BOB, CAROL])
    origins: dict[AgentId, Origin] = field(factory=dict)
    ends: dict[AgentId, int] = field(factory=dict)

    def fork(self, parent: AgentId, child: AgentId, at_ts: int | None = None) -> int:
        """Fork an agent that had been written to at `at_ts`, None: at the newest commit. The fork's commit_ts."""
        at_ts = len(self.history) if at_ts is None else at_ts
        inherited = Inherited(*counters_of(self.history[:at_ts])[parent])
        note = ForkNote(child, parent, at_ts, inherited)
        commit_ts = self.commit_group(evolve(self.txn(), notes=Notes(fork=note)))
        self.history[:at_ts] = [
            evolve(each, legs=each.legs | {child: each.legs[parent]}) if parent in each.legs else each
            for each in self.history[:at_ts]
        ]
        self.agents.append(child)
        self.origins[child] = Origin(parent, at_ts, commit_ts)
        return commit_ts

    def end(self, agent: AgentId) -> int:
        """Delete an agent. The commit_ts."""
        live = all_at(self.history, agent, b"", len(self.history))
        txn = self.txn(*((agent, key, None) for key in live))
        self.ends[agent] = self.commit_group(evolve(txn, notes=Notes(end=agent)))
        return self.ends[agent]

    def live(self, steps: Sequence[tuple]) -> None:
        """Do what `steps` says, with the agents that there are then."""
        for kind, *what in steps:
            if kind == "write":
                self.now_ns += 3
                self.commit(*((self._agent(number), key, content) for number, key, content in what[0]))
                continue
            agent = self._agent(what[0])
            known = counters_of(self.history).get(agent)
            if known is None:
                continue
            if kind == "end":
                self.end(agent)
                continue
            at_ts = known.first_commit_ts + what[1] % (len(self.history) - known.first_commit_ts + 1)
            # Names that begin with the parent's, and lie on both sides of it.
            name = f"{agent.agent_id[:12]}\0{len(self.agents)}" if what[1] % 2 else f"a{len(self.agents)}"
            self.fork(agent, AgentId(agent.namespace, name), at_ts)

    def _agent(self, number: int) -> AgentId:
        return self.agents[number % len(self.agents)]


# The judge


def judge_forks(writer: CopyingWriter) -> None:
    """What only is said of forks and ends, or must be said of forks as of others."""
    store, history = writer.store, writer.history
    judge(store, history)
    counters = counters_of(history)
    for agent in writer.agents:
        _judge_lineage(writer, agent)
        assert store.counters(agent_prefix(agent)) == counters.get(agent, AgentCounters())
        assert store.ended_ts(agent_prefix(agent)) == writer.ends.get(agent, 0)
        levels = store.levels(agent)
        for key in KEYS:
            versions = versions_of(history, agent, key)
            for version in (len(versions) + 1, len(versions) + 2, 0, 2**64 - 1):
                assert store.get_state_at_version(agent, key, version) == b""
            assert (store.stored(levels, key) is None) == (not versions)
        live = [(key, version) for key, (version, _, _) in all_at(history, agent, b"", len(history)).items()]
        size_bytes = sum(len(key) for key, _ in live)
        assert store.live_keys(agent, len(live), size_bytes) == live
        if live:
            assert store.live_keys(agent, len(live), size_bytes - 1) is None
        for at_ts in range(len(history) + 1):
            found = counters_of(history[:at_ts]).get(agent, AgentCounters())
            assert store.forking(agent, at_ts) == (found, len(levels))
    _judge_infos(writer, counters)


def _judge_lineage(writer: CopyingWriter, agent: AgentId) -> None:
    store, origins = writer.store, writer.origins
    ancestors, step = [], origins.get(agent)
    while step is not None:
        ancestors.append(step)
        step = origins.get(step.parent)
    children = sorted(
        (Child(child, at_ts, commit_ts) for child, (parent, at_ts, commit_ts) in origins.items() if parent == agent),
        key=lambda child: -child.commit_ts,
    )
    assert len(store.levels(agent)) == 1 + len(ancestors)
    found = store.lineage(agent, 1_000, 0)
    assert (list(found.ancestors), found.children, found.more) == (ancestors, children, False)
    for place, child in enumerate(children):
        behind = children[place + 1 :]
        assert store.lineage(agent, 1, child.commit_ts) == Lineage(tuple(ancestors), behind[:1], len(behind) > 1)


def _judge_infos(writer: CopyingWriter, counters: dict[AgentId, AgentCounters]) -> None:
    infos = [
        AgentInfo.FromString(each)
        for namespace in ("default", "other")
        for each in writer.store.list_agents(namespace, "", None, 1_000).found
    ]
    assert [AgentId(info.namespace, info.agent_id) for info in infos] == sorted(counters)
    for info in infos:
        agent = AgentId(info.namespace, info.agent_id)
        assert info.deleted == (writer.ends.get(agent, 0) >= info.last_commit_ts)
        origin = writer.origins.get(agent)
        assert info.HasField("forked_from") == (origin is not None)
        if origin is not None:
            expected = ForkOrigin(agent_id=origin.parent.agent_id, at_ts=origin.at_ts, commit_ts=origin.commit_ts)
            assert info.forked_from == expected


def judge_event_ranges(store: Store, history: Sequence[Committed], agents: Sequence[AgentId]) -> None:
    """Events from any commit to any other are those of all that lie between."""
    points = range(len(history) + 2)
    for agent in agents:
        touched = [committed.commit_ts for committed in history if agent in committed.legs]
        every = dict(zip(touched, all_events(store, agent), strict=True))
        for first_ts in points:
            for last_ts in points[first_ts:]:
                found, next_ts = [], first_ts
                while next_ts is not None:
                    chunk = store.events(agent, next_ts, last_ts)
                    found += chunk.events
                    next_ts = chunk.next_ts
                assert found == [every[ts] for ts in touched if first_ts <= ts <= last_ts]
