"""An engine in memory, with the calls of the real one: what the edge is tested on."""

import math
import uuid
from collections import defaultdict

import attrs
import pytest
import trio

from statehouse.actors.messages import EndedAgent, Forked, LeaseRow, LeaseView, Lineage, Transacted
from statehouse.actors.reads import Page
from statehouse.actors.reply import Reply
from statehouse.errors import ErrorCode, InvalidRequestError, TransactionError
from statehouse.findings import Head, VerifyFinding, VerifyProgress, VerifyVerdict
from statehouse.limits import Limits
from statehouse.v1 import statehouse_pb2 as pb


class FakeEngine:
    """Transactions, versions and events, kept in dicts. Tests reach in to make it fail or wait."""

    def __init__(self, limits=None):
        self.limits = limits or Limits()
        self.open = {}
        self.committed = {}
        self.versions = defaultdict(list)  # (agent, key) -> [GetStateResponse, ...]
        self.events = defaultdict(list)  # agent -> [ReplayEvent, ...]
        self.fail_with = None  # raised by every call
        self.held = None  # with a list here, commits are not answered: their replies are appended to it
        self.scan_gate = None  # with an Event here, scans wait for it
        self.scanning = trio.Event()
        self.endless_replay = None  # a chunk that replay repeats for ever
        self.replay_ended = trio.Event()
        self.chunks_sent = 0
        self.at_hand = False  # whether a batch of now is
        self.asked = None  # the arguments of the newest call that has no more to it here
        self.store_id = bytes(16)
        self.time_ns = 10**18  # what its clock showed last
        self.lease = None  # what get_lease finds
        self.found_lineage = Lineage((), (), more=False)  # what lineage finds

    def _check(self):
        if self.fail_with is not None:
            raise self.fail_with

    def health(self):
        self._check()
        return "ok"

    def begin(self, timeout_ms):
        self._check()
        if timeout_ms is not None and not 0 < timeout_ms <= self.limits.timeout_ms:
            return Reply.failed(InvalidRequestError("timeout_ms", details={"limit": str(self.limits.timeout_ms)}))
        txn_id = uuid.uuid4().hex
        self.open[txn_id] = []
        return Reply.of(txn_id)

    def _stage(self, txn_id, *operation):
        self._check()
        if txn_id not in self.open:
            return Reply.failed(TransactionError(f"transaction {txn_id} not found"))
        self.open[txn_id].append(operation)
        return Reply.of(None)

    def write(self, txn_id, agent, key, value, ttl_s):
        return self._stage(txn_id, agent, key, value, ttl_s)

    def delete(self, txn_id, agent, key):
        return self._stage(txn_id, agent, key, None, 0)

    def abort(self, txn_id):
        self._check()
        self.open.pop(txn_id, None)
        return Reply.of(None)

    def transact(self, arguments):
        self._check()
        self.asked = arguments
        txn_id = uuid.uuid4().hex
        self.open[txn_id] = [(agent, key.decode(), value, ttl_s) for agent, (key, value, ttl_s) in arguments.operations]
        commit_ts = self._apply(txn_id)
        versions = tuple(len(self.versions[agent, each.key.decode()]) for agent, each in arguments.operations)
        return Reply.of(Transacted(commit_ts, versions, txn_id, deduplicated=False))

    def acquire_lease(self, agent, holder, ttl_ms):
        self._check()
        self.asked = (agent, holder, ttl_ms)
        return Reply.of(LeaseRow(7, 1, holder, 1_500_000_000))

    def renew_lease(self, agent, epoch, ttl_ms):
        self._check()
        self.asked = (agent, epoch, ttl_ms)
        return Reply.of(LeaseRow(8, epoch, "h", 2_000_000_000))

    def release_lease(self, agent, epoch):
        self._check()
        self.asked = (agent, epoch)
        return Reply.of(9)

    def fork_agent(self, parent, new_agent, at_ts):
        self._check()
        self.asked = (parent, new_agent, at_ts)
        return Reply.of(Forked(9, len(self.committed) if at_ts is None else at_ts, 1))

    def delete_agent(self, agent, checks, metadata):
        self._check()
        self.asked = (agent, checks, metadata)
        return Reply.of(EndedAgent(9, 2))

    async def lineage(self, agent, limit, before_ts):
        self._check()
        await trio.lowlevel.checkpoint()
        self.asked = (agent, limit, before_ts)
        return self.found_lineage

    def get_lease(self, agent):
        self._check()
        return LeaseView(self.lease, held=self.lease is not None)

    def commit(self, txn_id, checks, metadata, *, revive=False):
        self._check()
        self.asked = (checks, metadata, revive)
        if txn_id in self.committed:
            details = {"commit_ts": str(self.committed[txn_id])}
            code = ErrorCode.TXN_ALREADY_COMMITTED
            return Reply.failed(TransactionError("already committed", code=code, details=details))
        if txn_id not in self.open:
            return Reply.failed(TransactionError("not found"))
        commit_ts = self._apply(txn_id)
        if self.held is None:
            return Reply.of(commit_ts)
        reply = Reply()
        self.held.append((reply, commit_ts))
        return reply

    def _apply(self, txn_id):
        commit_ts = self.committed[txn_id] = len(self.committed) + 1
        touched = {}
        for agent, key, value, ttl_s in self.open.pop(txn_id):
            versions = self.versions[agent, key]
            state = pb.GetStateResponse(version=len(versions) + 1, commit_ts=commit_ts, exists=value is not None)
            event = touched.setdefault(agent, pb.ReplayEvent(txn_id=txn_id, commit_ts=commit_ts))
            operation = event.operations.add(key=key, version=state.version)
            if value is not None:
                state.value.ParseFromString(value)
                operation.value.ParseFromString(value)
            if ttl_s:
                operation.ttl_s = ttl_s
                state.expires_at.seconds = commit_ts + ttl_s  # commits are a second apart here, the first at 1
            versions.append(state)
        for agent, event in touched.items():
            self.events[agent].append(event)
        return commit_ts

    def get_state(self, agent, key):
        self._check()
        versions = self.versions.get((agent, key))
        return versions[-1].SerializeToString() if versions else b""

    def get_state_at_version(self, agent, key, version):
        self._check()
        versions = self.versions.get((agent, key), [])
        return versions[version - 1].SerializeToString() if 0 < version <= len(versions) else b""

    def _live(self, agent, prefix=""):
        live = [(key, states[-1]) for (owner, key), states in self.versions.items() if owner == agent]
        return sorted((key, state) for key, state in live if state.exists and key.startswith(prefix))

    async def get_state_at(self, agent, key, at_ts=None, at_time_ns=None):
        self._check()
        self.asked = (at_ts, at_time_ns)
        at_ts = await self.pin(agent, at_ts, at_time_ns)
        states = [state for state in self.versions.get((agent, key), []) if state.commit_ts <= at_ts]
        return states[-1].SerializeToString() if states else b""

    async def pin(self, agent, at_ts=None, at_time_ns=None):
        """Commits are a second apart here, the first at 1."""
        self._check()
        await trio.lowlevel.checkpoint()
        newest = len(self.committed)
        return min(newest, newest if at_ts is None else at_ts) if at_time_ns is None else at_time_ns // 10**9

    async def list_keys(self, agent, at_ts=None, at_time_ns=None):
        await self._scan()
        self.asked = (at_ts, at_time_ns)
        return [key for key, _ in self._live(agent)]

    async def scan_prefix(self, agent, prefix, at_ts=None, at_time_ns=None):
        await self._scan()
        self.asked = (at_ts, at_time_ns)
        return self._entries(agent, prefix)

    def _entries(self, agent, prefix):
        return [
            pb.StateEntry(
                key=key,
                value=state.value,
                version=state.version,
                commit_ts=state.commit_ts,
                expires_at=state.expires_at if state.HasField("expires_at") else None,
            ).SerializeToString()
            for key, state in self._live(agent, prefix)
        ]

    def now_ns(self):
        """A second later each time that it is asked for."""
        self.time_ns += 1_000_000_000
        return self.time_ns

    async def list_page(self, agent, *, after, limit, at_ts, now_ns):
        self._check()
        self.asked = (at_ts, now_ns)
        return self._page([key for key, _ in self._live(agent)], after, limit)

    async def scan_page(self, agent, prefix, *, after, limit, at_ts, now_ns):
        self._check()
        self.asked = (at_ts, now_ns)
        return self._page(self._entries(agent, prefix), after, limit, lambda each: pb.StateEntry.FromString(each).key)

    async def list_agents(self, namespace, prefix, *, after, limit):
        self._check()
        found = sorted({agent for agent, _ in self.versions if agent.namespace == namespace})
        infos = [
            pb.AgentInfo(namespace=agent.namespace, agent_id=agent.agent_id).SerializeToString()
            for agent in found
            if agent.agent_id.startswith(prefix)
        ]
        return self._page(infos, after, limit, lambda each: pb.AgentInfo.FromString(each).agent_id)

    async def list_namespaces(self, prefix, *, after, limit):
        self._check()
        found = sorted({agent.namespace for agent, _ in self.versions if agent.namespace.startswith(prefix)})
        infos = [pb.NamespaceInfo(namespace=each).SerializeToString() for each in found]
        return self._page(infos, after, limit, lambda each: pb.NamespaceInfo.FromString(each).namespace)

    @staticmethod
    def _page(entries, after, limit, name_of=lambda each: each):
        behind = [each for each in entries if after is None or name_of(each) > after]
        return Page(behind[:limit], name_of(behind[limit - 1]) if len(behind) > limit else None)

    def batch_at_hand(self, keys):
        self._check()
        return self._batch(keys) if self.at_hand else None

    async def batch_get(self, keys, at_ts=None):
        self._check()
        self.asked = at_ts
        return self._batch(keys)

    def _batch(self, keys):
        return [
            self.get_state(agent, key.decode())
            + pb.BatchGetEntry(namespace=agent.namespace, agent_id=agent.agent_id, key=key).SerializeToString()
            for agent, key in keys
        ]

    async def history(self, agent, key, *, limit, before_version):
        self._check()
        self.asked = (limit, before_version)
        for state in reversed(self.versions.get((agent, key), [])):
            await trio.lowlevel.checkpoint()
            yield [state.SerializeToString()]

    async def diff(self, agent, prefix, **points):
        self._check()
        self.asked = points
        await trio.lowlevel.checkpoint()
        yield [pb.DiffEntry(key=key, after=state).SerializeToString() for key, state in self._live(agent, prefix)]

    async def _scan(self):
        self._check()
        await trio.lowlevel.checkpoint()
        self.scanning.set()
        if self.scan_gate is not None:
            await self.scan_gate.wait()

    def head(self):
        self._check()
        return Head(len(self.committed), bytes(32), self.store_id)

    async def verify(self, heads):
        self._check()
        await trio.lowlevel.checkpoint()
        yield [VerifyProgress(stage="log", done=1, total=2, records=3, rows=4)]
        found = [VerifyFinding(kind="head-cut", message="gone", commit_ts=head.commit_ts, file="log") for head in heads]
        verdict = VerifyVerdict(
            sound=not found,
            findings=len(found),
            notes=0,
            head=self.head(),
            log_bytes=1,
            records=2,
            rows=3,
            snapshots=4,
            heads=len(found),
            seconds=0.5,
        )
        yield [*found, verdict]

    async def replay_log(self, arguments):
        self._check()
        self.asked = arguments
        for events in self.events.values():
            await trio.lowlevel.checkpoint()
            yield [event.SerializeToString() for event in events]

    async def replay(self, arguments):
        self._check()
        self.asked = arguments
        start_ts, end_ts = arguments.start_ts, arguments.end_ts
        try:
            while self.endless_replay is not None:
                await trio.lowlevel.checkpoint()
                self.chunks_sent += 1
                yield list(self.endless_replay)
            chosen = [
                event.SerializeToString()
                for event in self.events[arguments.agent]
                if (start_ts or 0) <= event.commit_ts <= (math.inf if end_ts is None else end_ts)
            ]
            for at in range(0, len(chosen), 2):
                await trio.lowlevel.checkpoint()
                yield chosen[at : at + 2]
        finally:
            self.replay_ended.set()


@pytest.fixture
def fake_engine():
    return FakeEngine()


@pytest.fixture
def small_limits():
    """Limits that a test can reach with a few bytes."""
    return attrs.evolve(Limits(), value_bytes=64, key_bytes=8, agent_id_bytes=8, namespace_bytes=8)
