"""The sync client's calls that change something: those of transacting.py, where their docstrings are taken from."""

import inspect
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import anyio

from statehouse.client.commit_parts import operations_given, preconditions_given
from statehouse.client.sync_calls import as_in
from statehouse.client.sync_reading import SyncReading
from statehouse.client.sync_transaction import Lease, Transaction, at_once
from statehouse.client.transacting import Transacting
from statehouse.client.types import LeaseState, Precondition, Put, Remove, Transacted, UpdateResult
from statehouse.client.updating import UPDATE_TRIES, Updating
from statehouse.errors import ConflictError
from statehouse.types import JsonObject

__all__ = ["SyncTransacting"]


class SyncTransacting(SyncReading):
    """Of `Statehouse`: the calls that commit."""

    @as_in(Transacting.begin_transaction)
    def begin_transaction(
        self,
        timeout_ms: int | None = None,
        namespace: str | None = None,
        *,
        local: bool = True,
        timeout_s: float | None = None,
    ) -> Transaction:
        begin = partial(self._client.begin_transaction, timeout_ms, namespace, local=local, timeout_s=timeout_s)
        return Transaction(self._loop, at_once(begin()) if local else self._loop.run(begin))

    @as_in(Transacting.transact)
    def transact(
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
        return self._loop.run(
            partial(
                self._client.transact,
                operations_given(operations),  # here: the caller's generator may call the client
                preconditions=preconditions_given(preconditions),
                idempotency_key=idempotency_key,
                metadata=metadata,
                revive=revive,
                namespace=namespace,
                timeout_s=timeout_s,
            )
        )

    def update(
        self,
        agent_id: str,
        key: str,
        fn: "Callable[[JsonObject | None], JsonObject | None]",
        *,
        namespace: str | None = None,
        tries: int = UPDATE_TRIES,
        metadata: Mapping[str, str] | None = None,
        ttl_s: int | None = None,
        timeout_s: float | None = None,
    ) -> UpdateResult:
        """Change a key by what it holds: `fn` is given its value (None: it has none), and returns the new one.

        None from `fn` deletes the key; what it raises ends the update, and nothing is written; an async one is a
        TypeError. It runs in the caller's thread, and may use the client. It is called again, with what is there then,
        when somebody else has written the key meanwhile: up to `tries` times in all, after pauses that grow and are
        drawn at random; then the last ConflictError is raised. An agent that was deleted lives again by it. With
        `ttl_s` the new value lasts so many whole seconds; without, for good, also where the old one did not.
        `timeout_s` bounds each call. ConnectionError may mean that it was committed.
        """
        updating = Updating(agent_id, key, self._client.full_name(namespace), tries, metadata, ttl_s)
        while True:
            state = self.get_state(agent_id, key, updating.namespace, timeout_s=timeout_s)
            value = fn(state.value)
            if inspect.isawaitable(value):
                if inspect.iscoroutine(value):
                    value.close()  # or Python warns that it was never awaited
                raise TypeError("fn must not be async here: only AsyncStatehouse awaits it")
            try:
                done = self.transact(
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
            self._loop.run(anyio.sleep, pause_s)

    @as_in(Transacting.lease)
    def lease(
        self,
        agent_id: str,
        holder: str,
        ttl_s: float,
        namespace: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Lease:
        acquire = partial(self._client.lease, agent_id, holder, ttl_s, namespace, timeout_s=timeout_s)
        return Lease(self._loop, self._loop.run(acquire))

    @as_in(Transacting.adopt_lease)
    def adopt_lease(
        self,
        agent_id: str,
        epoch: int,
        ttl_s: float,
        namespace: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Lease:
        adopt = partial(self._client.adopt_lease, agent_id, epoch, ttl_s, namespace, timeout_s=timeout_s)
        return Lease(self._loop, self._loop.run(adopt))

    @as_in(Transacting.get_lease)
    def get_lease(
        self, agent_id: str, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> LeaseState | None:
        return self._loop.run(partial(self._client.get_lease, agent_id, namespace, timeout_s=timeout_s))
