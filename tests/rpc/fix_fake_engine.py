"""An engine in memory, with the calls of the real one: what the edge is tested on."""

import math
import uuid
from collections import defaultdict

import attrs
import pytest
import trio

from statehouse.actors.reply import Reply
from statehouse.errors import ErrorCode, InvalidRequestError, TransactionError
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

    def write(self, txn_id, agent, key, value):
        return self._stage(txn_id, agent, key, value)

    def delete(self, txn_id, agent, key):
        return self._stage(txn_id, agent, key, None)

    def abort(self, txn_id):
        self._check()
        self.open.pop(txn_id, None)
        return Reply.of(None)

    def commit(self, txn_id):
        self._check()
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
        for agent, key, value in self.open.pop(txn_id):
            versions = self.versions[agent, key]
            state = pb.GetStateResponse(version=len(versions) + 1, commit_ts=commit_ts, exists=value is not None)
            event = touched.setdefault(agent, pb.ReplayEvent(txn_id=txn_id, commit_ts=commit_ts))
            operation = event.operations.add(key=key, version=state.version)
            if value is not None:
                state.value.ParseFromString(value)
                operation.value.ParseFromString(value)
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

    async def list_keys(self, agent):
        await self._scan()
        return [key for key, _ in self._live(agent)]

    async def scan_prefix(self, agent, prefix):
        await self._scan()
        entries = [
            pb.StateEntry(key=key, value=state.value, version=state.version, commit_ts=state.commit_ts)
            for key, state in self._live(agent, prefix)
        ]
        return [entry.SerializeToString() for entry in entries]

    async def _scan(self):
        self._check()
        await trio.lowlevel.checkpoint()
        self.scanning.set()
        if self.scan_gate is not None:
            await self.scan_gate.wait()

    async def replay(self, agent, start_ts, end_ts):
        self._check()
        try:
            while self.endless_replay is not None:
                await trio.lowlevel.checkpoint()
                self.chunks_sent += 1
                yield list(self.endless_replay)
            chosen = [
                event.SerializeToString()
                for event in self.events[agent]
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
