"""A writer of histories with forks and ends, which keeps what each agent had at each commit as if forks were copies."""

import random
from collections.abc import Mapping, Sequence

from attrs import define, field, frozen
from storage.fix_store import ALICE, BOB, CAROL, value

from statehouse.storage.commit import AgentCounters, GroupCommit, PreparedCommit, empty_commit, prepare_section
from statehouse.storage.keys import agent_prefix
from statehouse.storage.record_notes import NO_NOTES, ForkNote, Inherited, Notes
from statehouse.storage.section import agent_fields
from statehouse.storage.store import Store
from statehouse.types import AgentId

KEYS = (b"k", b"key/1", b"key/2", b"nul\x00", b"nul\x00\x01", "\N{SNOWMAN}".encode())


@frozen
class Moment:
    """An agent behind one of its commits."""

    commit_ts: int
    counters: AgentCounters
    keys: Mapping[bytes, tuple[int, bool]]
    """The newest version of each key, and whether it is live."""


NEVER = Moment(0, AgentCounters(), {})


@define
class ForkWriter:
    """Commits to a store. `agents` has the moments of each agent, in order, those that it inherited among them."""

    store: Store
    agents: dict[AgentId, list[Moment]] = field(factory=dict)
    depths: dict[AgentId, int] = field(factory=dict)
    forks: dict[AgentId, ForkNote] = field(factory=dict)
    ttls_s: Sequence[int] = (0,)
    """Of the writes, in turn; 0: they last."""
    _now_ns: int = 1_000_000_000
    _names: int = 0

    def commit(self, *operations: tuple[AgentId, bytes, bytes | None], notes: Notes = NO_NOTES) -> int:
        """One transaction of (agent, key, value or None), one group; its commit_ts."""
        return self.group([(operations, notes)])

    def fork(self, parent: AgentId, child: AgentId, at_ts: int | None = None) -> int:
        """Fork an agent as of a commit, or as it is now; the fork's commit_ts."""
        return self.commit(notes=self.fork_note(parent, child, self.store.head_ts if at_ts is None else at_ts))

    def end(self, agent: AgentId) -> int:
        """Delete an agent; the commit_ts."""
        live = [key for key, (_, is_live) in self.agents[agent][-1].keys.items() if is_live]
        return self.commit(*((agent, key, None) for key in live), notes=Notes(end=agent))

    def fork_note(self, parent: AgentId, child: AgentId, at_ts: int) -> Notes:
        """The note of a fork of which nothing is remembered yet."""
        moment = [each for each in self.agents[parent] if each.commit_ts <= at_ts][-1]
        return Notes(fork=ForkNote(child, parent, at_ts, Inherited(*moment.counters)))

    def group(self, txns) -> int:
        """Commit (operations, notes) of several transactions as one group; the last commit_ts."""
        first_ts = self.store.head_ts + 1
        self._now_ns += 1
        prepared = [self._prepared(ts, *txn) for ts, txn in enumerate(txns, first_ts)]
        self.store.commit(GroupCommit(first_ts, self._now_ns, prepared))
        return first_ts + len(prepared) - 1

    def _prepared(self, commit_ts: int, operations, notes: Notes) -> PreparedCommit:
        txn_id = f"t{commit_ts}"
        sections = []
        for agent in sorted({agent for agent, _, _ in operations}):
            moments = self.agents.setdefault(agent, [])
            before = moments[-1] if moments else NEVER
            now, done, gained = dict(before.keys), [], 0
            for _, key, content in (each for each in operations if each[0] == agent):
                version, was_live = now.get(key, (0, False))
                now[key] = version + 1, content is not None
                gained += (content is not None) - was_live
                done.append((key, content, version + 1))
            counters = before.counters.plus(operations=len(done), live_keys=gained)
            counters = counters.at(counters.first_commit_ts or commit_ts, commit_ts)
            assert counters.live_keys == sum(is_live for _, is_live in now.values())
            moments.append(Moment(commit_ts, counters, now))
            names = (agent_prefix(agent), agent_fields(agent))
            ttls_s = {place: self.ttls_s[(commit_ts + place) % len(self.ttls_s)] for place in range(len(done))}
            lasting = {place: ttl_s for place, ttl_s in ttls_s.items() if ttl_s and done[place][1] is not None}
            sections.append(prepare_section(*names, txn_id, done, counters, ttls_s=lasting))
        if (fork := notes.fork) is not None:
            self.forks[fork.agent] = fork
            self.agents[fork.agent] = [each for each in self.agents[fork.parent] if each.commit_ts <= fork.at_ts]
            self.depths[fork.agent] = self.depths.get(fork.parent, 0) + 1
        return PreparedCommit(txn_id, sections, notes) if sections else empty_commit(txn_id, notes)

    def commit_randomly(self, rng: random.Random, groups: int) -> None:
        """Groups of writes and deletes of several agents, forks of them now and then and of then, and ends."""
        for _ in range(groups):
            self.group([self._random_txn(rng) for _ in range(rng.choice((1, 1, 2, 4)))])

    def _random_txn(self, rng: random.Random):
        known = list(self.agents)
        kind = rng.random()
        if known and kind < 0.2:
            parent = rng.choice(known)
            self._names += 1
            child = parent._replace(agent_id=f"{rng.choice(('fork', 'a'))}\x00{self._names}")
            at_ts = rng.choice((rng.choice(self.agents[parent]).commit_ts, self.store.head_ts))
            at_ts = max(at_ts, self.agents[parent][0].commit_ts)
            return (), self.fork_note(parent, child, at_ts)
        if known and kind < 0.25:
            agent = rng.choice(known)
            live = [key for key, (_, is_live) in self.agents[agent][-1].keys.items() if is_live]
            return [(agent, key, None) for key in live], Notes(end=agent)
        agents = rng.choices([ALICE, BOB, CAROL, *known], k=rng.choice((1, 1, 2)))
        return [
            (
                rng.choice(agents),
                rng.choice(KEYS),
                None if rng.random() < 0.35 else value(rng.choice((20, 256, 257, 700)), rng.randrange(100)),
            )
            for _ in range(rng.choice((0, 1, 1, 2, 5)))
        ], NO_NOTES
