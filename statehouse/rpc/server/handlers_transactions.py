"""The calls that change something: transactions, step by step or whole, and leases."""

from collections.abc import Coroutine
from typing import Any, Final

from attrs import frozen

from statehouse.actors.engine import ViewAwayError
from statehouse.actors.messages import LeaseRow, LeaseView, Transacted
from statehouse.actors.reply import Reply
from statehouse.rpc.server.access import Caller
from statehouse.rpc.server.engine_calls import EngineCalls
from statehouse.rpc.server.replying import encoded, encoded_later
from statehouse.rpc.server.requests_transactions import TransactionRequests
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["TransactionCalls"]

_NS_PER_S: Final = 1_000_000_000


@frozen
class TransactionCalls:
    """One method for each call."""

    engine: EngineCalls
    requests: TransactionRequests

    def begin_transaction(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        caller.may_transact()
        reply = self.engine.begin(self.requests.begin(request))
        return encoded(reply, lambda txn_id: pb.BeginTransactionResponse(txn_id=txn_id).SerializeToString())

    def write(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        write = self.requests.write(request)
        caller.may_write(write.agent)
        return encoded(self.engine.write(write.txn_id, write.agent, write.key, write.value, write.ttl_s), _empty)

    def delete(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        delete = self.requests.delete(request)
        caller.may_write(delete.agent)
        return encoded(self.engine.delete(delete.txn_id, delete.agent, delete.key), _empty)

    def commit(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        caller.may_transact()
        commit = self.requests.commit(request)
        for agent in {check.agent for check in commit.checks}:
            caller.may_read(agent)
        reply = self.engine.commit(commit.txn_id, commit.checks, commit.metadata, revive=commit.revive)
        return encoded(reply, lambda commit_ts: pb.CommitResponse(commit_ts=commit_ts).SerializeToString())

    def abort(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        caller.may_transact()
        return encoded(self.engine.abort(self.requests.abort(request)), _empty)

    def transact(self, request: bytes, caller: Caller) -> Reply[bytes]:
        """A reply even when it is settled: a large answer that is there at once counts as one of a read, asked anew."""
        caller.may_transact()
        arguments = self.requests.transact(request)
        for agent in {agent for agent, _ in arguments.operations}:
            caller.may_write(agent)
        for agent in {check.agent for check in arguments.checks}:
            caller.may_read(agent)
        return encoded_later(self.engine.transact(arguments), _transacted)

    def acquire_lease(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        lease = self.requests.acquire_lease(request)
        caller.may_write(lease.agent)
        return encoded(self.engine.acquire_lease(lease.agent, lease.holder, lease.ttl_ms), _lease_bytes)

    def renew_lease(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        lease = self.requests.renew_lease(request)
        caller.may_write(lease.agent)
        return encoded(self.engine.renew_lease(lease.agent, lease.epoch, lease.ttl_ms), _lease_bytes)

    def release_lease(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        lease = self.requests.release_lease(request)
        caller.may_write(lease.agent)
        reply = self.engine.release_lease(lease.agent, lease.epoch)
        return encoded(reply, lambda commit_ts: pb.ReleaseLeaseResponse(commit_ts=commit_ts).SerializeToString())

    def get_lease(self, request: bytes, caller: Caller) -> bytes | Coroutine[Any, Any, bytes]:
        agent = self.requests.get_lease(request)
        caller.may_read(agent)
        try:
            return _lease_view(self.engine.get_lease(agent))
        except ViewAwayError:
            return self._lease_later(agent)

    async def _lease_later(self, agent: AgentId) -> bytes:
        return _lease_view(await self.engine.get_lease_later(agent))


def _empty(_: None) -> bytes:
    return b""


def _transacted(done: Transacted) -> bytes:
    return pb.TransactResponse(
        commit_ts=done.commit_ts, versions=done.versions, txn_id=done.txn_id, deduplicated=done.deduplicated
    ).SerializeToString()


def _lease_bytes(row: LeaseRow) -> bytes:
    return _lease(row).SerializeToString()


def _lease_view(view: LeaseView) -> bytes:
    lease = None if view.row is None else _lease(view.row)
    return pb.GetLeaseResponse(lease=lease, held=view.held).SerializeToString()


def _lease(row: LeaseRow) -> pb.Lease:
    lease = pb.Lease(epoch=row.epoch, holder=row.holder, commit_ts=row.commit_ts)
    if row.expires_at_ns:  # absent once it was released
        lease.expires_at.seconds, lease.expires_at.nanos = divmod(row.expires_at_ns, _NS_PER_S)
    return lease
