"""The async client's calls that change something: transactions, updates, leases."""

import inspect
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping

import anyio

from statehouse.client.arguments import (
    check_counts,
    check_flag,
    check_metadata,
    check_numbers,
    check_optional_numbers,
    check_texts,
)
from statehouse.client.async_lease import AsyncLease, acquire_request, milliseconds, not_held
from statehouse.client.async_transaction import AsyncTransaction
from statehouse.client.calls import Calls
from statehouse.client.commit_parts import operation_of, operations_given, preconditions_of
from statehouse.client.results import lease_state, state_result, transacted
from statehouse.client.types import LeaseState, Precondition, Put, Remove, Transacted, UpdateResult
from statehouse.client.updating import UPDATE_TRIES, Updating
from statehouse.errors import ConflictError
from statehouse.types import JsonObject
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["Transacting"]

_MOST_MS = 2**64 - 1


class Transacting(Calls):
    """Of `AsyncStatehouse`: the calls that commit."""

    async def begin_transaction(
        self,
        timeout_ms: int | None = None,
        namespace: str | None = None,
        *,
        local: bool = True,
        timeout_s: float | None = None,
    ) -> AsyncTransaction:
        """Open a transaction.

        It is staged here, without a call, and `commit` sends it as one Transact; after `timeout_ms` milliseconds
        (None: never) it has expired. With `local` False each write is a call, the daemon holds what is staged, and the
        transaction expires there (None: after the daemon's own time, 30,000).

        More than 4 MiB do not go into one request: the commit stages them in the daemon, a call for each operation, and
        has what is left of `timeout_ms` for it (None: an hour, or the daemon's own time where it takes less).
        """
        name = self.full_name(namespace)
        if local:
            check_counts(_MOST_MS, timeout_ms=timeout_ms)
            return AsyncTransaction.local(self, name, timeout_ms)
        check_optional_numbers(timeout_ms=timeout_ms)
        request = pb.BeginTransactionRequest(timeout_ms=timeout_ms)
        answer = await self.stub.BeginTransaction(request, timeout_s=timeout_s)
        return AsyncTransaction(self, answer.txn_id, name)

    async def transact(
        self,
        operations: Iterable[Put | Remove],
        *,
        preconditions: Iterable[Precondition] = (),
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        revive: bool = False,
        namespace: str | None = None,
        timeout_s: float | None = None,
    ) -> Transacted:
        """A whole transaction in one call: all or nothing, durable and visible when it returns.

        All of `preconditions` must hold at that moment, or nothing is done: ConflictError names every one that did not,
        with what was found. `metadata` is kept with the commit: short strings, given back by `replay` and `history`.
        What writes to an agent that was deleted is refused (AgentDeletedError), unless a precondition is about that
        agent, or `revive` says that all of them are to live again.

        With an `idempotency_key` it is done once, however often it is called: within the daemon's time for that (24
        hours by default) the same key on the same agents gives the first answer again (`deduplicated`), and with
        another request InvalidRequestError (IDEMPOTENCY_KEY_REUSED). Then it is also sent again by itself when the
        connection is lost. Without one, ConnectionError may mean that it was committed.
        """
        name = self.full_name(namespace)
        request = pb.TransactRequest(
            namespace=name,
            operations=[operation_of(each, name) for each in operations_given(operations)],
            preconditions=preconditions_of(preconditions, name),
            metadata=check_metadata(metadata),
            revive=check_flag("revive", revive),
        )
        if idempotency_key is not None:
            check_texts(idempotency_key=idempotency_key)
            if not idempotency_key:
                raise ValueError("idempotency_key is empty, which on the wire is none")
            request.idempotency_key = idempotency_key
        return transacted(await self.stub.Transact(request, timeout_s=timeout_s))

    async def update(
        self,
        agent_id: str,
        key: str,
        fn: "Callable[[JsonObject | None], JsonObject | Awaitable[JsonObject | None] | None]",
        *,
        namespace: str | None = None,
        tries: int = UPDATE_TRIES,
        metadata: Mapping[str, str] | None = None,
        ttl_s: int | None = None,
        timeout_s: float | None = None,
    ) -> UpdateResult:
        """Change a key by what it holds: `fn` is given its value (None: it has none), and returns the new one.

        `fn` may be async; None from it deletes the key; what it raises ends the update, and nothing is written. It is
        called again, with what is there then, when somebody else has written the key meanwhile: up to `tries` times in
        all, after pauses that grow and are drawn at random; then the last ConflictError is raised. An agent that was
        deleted lives again by it. With `ttl_s` the new value lasts so many whole seconds; without, for good, also where
        the old one did not. `timeout_s` bounds each call. ConnectionError may mean that it was committed.
        """
        updating = Updating(agent_id, key, self.full_name(namespace), tries, metadata, ttl_s)
        read = pb.GetStateRequest(namespace=updating.namespace, agent_id=agent_id, key=key)
        while True:
            state = state_result(await self.stub.GetState(read, timeout_s=timeout_s))
            returned = fn(state.value)
            value = await returned if inspect.isawaitable(returned) else returned
            try:
                done = await self.transact(
                    [updating.operation(value)],
                    preconditions=[updating.unchanged_since(state)],
                    idempotency_key=secrets.token_hex(16),
                    metadata=updating.metadata,
                    namespace=updating.namespace,
                    timeout_s=timeout_s,
                )
            except ConflictError as conflict:
                pause_s = updating.pause_s(conflict)
            else:
                return updating.result(value, done)
            await anyio.sleep(pause_s)

    async def lease(
        self,
        agent_id: str,
        holder: str,
        ttl_s: float,
        namespace: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> AsyncLease:
        """Acquire the lease on an agent for `ttl_s` seconds, to the millisecond; LeaseError while another is held.

        `holder` says to people who has it. See `AsyncLease` for what it does.
        """
        name = self.full_name(namespace)
        request = acquire_request(name, agent_id, holder, ttl_s)
        answer = await self.stub.AcquireLease(request, timeout_s=timeout_s)
        return AsyncLease(self, name, agent_id, request.ttl_ms, answer)

    async def adopt_lease(
        self,
        agent_id: str,
        epoch: int,
        ttl_s: float,
        namespace: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> AsyncLease:
        """The lease of this epoch, which was acquired elsewhere, or before a restart. Changes nothing in the daemon.

        `ttl_s` is how long `renew` lets it last. LeaseError when it is not the agent's newest, or not held any more.
        """
        name, ttl_ms = self.full_name(namespace), milliseconds(ttl_s)
        check_texts(agent_id=agent_id)
        check_numbers(epoch=epoch)
        request = pb.GetLeaseRequest(namespace=name, agent_id=agent_id)
        found = await self.stub.GetLease(request, timeout_s=timeout_s)
        if not found.held or found.lease.epoch != epoch:
            raise not_held(agent_id, epoch, found)
        return AsyncLease(self, name, agent_id, ttl_ms, found.lease)

    async def get_lease(
        self, agent_id: str, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> LeaseState | None:
        """The newest lease on an agent, held or not; None when there never was one."""
        check_texts(agent_id=agent_id)
        request = pb.GetLeaseRequest(namespace=self.full_name(namespace), agent_id=agent_id)
        return lease_state(await self.stub.GetLease(request, timeout_s=timeout_s))
