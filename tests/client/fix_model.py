"""Clients for the model tests, and how many examples they run: with `--hypothesis-profile=long`, many more."""

from contextlib import contextmanager
from functools import partial

import anyio.from_thread
import pytest
from hypothesis import HealthCheck, settings

from statehouse import AsyncStatehouse, AsyncTransaction, Statehouse, Transaction

LONG = settings(
    max_examples=500,
    stateful_step_count=60,
    deadline=None,  # a step that restarts the daemon takes a second
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ORDINARY = settings(LONG, max_examples=15, stateful_step_count=40)
settings.register_profile("long", LONG)


@pytest.fixture
def model_settings(request):
    """As many examples as the run has time for; every run draws others, and a failure prints what repeats it."""
    named = request.config.getoption("hypothesis_profile")
    return settings(LONG if named == "long" else ORDINARY, derandomize=False)


class SyncClient(Statehouse):
    """The client of threads."""

    def handle(self, txn_id, namespace):
        """A transaction that somebody else began."""
        return Transaction(self._loop, AsyncTransaction(self._client, txn_id, namespace))


class AsyncClient:
    """The async client on asyncio, called from a thread as if it were the other."""

    def __init__(self, portal, client):
        self._portal = portal
        self._client = client

    def begin_transaction(self, timeout_ms=None, namespace=None, *, local=True):
        begun = self._portal.call(partial(self._client.begin_transaction, timeout_ms, namespace, local=local))
        return AsyncHandle(self._portal, begun)

    def handle(self, txn_id, namespace):
        return AsyncHandle(self._portal, AsyncTransaction(self._client, txn_id, namespace))

    def transact(self, *args, **named):
        return self._portal.call(partial(self._client.transact, *args, **named))

    def get_state(self, *args, **named):
        return self._portal.call(partial(self._client.get_state, *args, **named))

    def replay(self, *args):
        return self._portal.call(self._collect, partial(self._client.replay, *args))

    def replay_log(self, **named):
        return self._portal.call(self._collect, partial(self._client.replay_log, **named))

    async def _collect(self, start):
        return [event async for event in start()]

    def __getattr__(self, name):
        return partial(self._portal.call, getattr(self._client, name))


class AsyncHandle:
    """An AsyncTransaction, called from a thread."""

    def __init__(self, portal, transaction):
        self._portal = portal
        self._transaction = transaction

    @property
    def txn_id(self):
        return self._transaction.txn_id

    def __enter__(self):
        self._portal.call(self._transaction.__aenter__)
        return self

    def __exit__(self, *left_with):
        self._portal.call(self._transaction.__aexit__, *left_with)

    def __getattr__(self, name):
        method = getattr(self._transaction, name)
        return lambda *args, **named: self._portal.call(partial(method, *args, **named))


@contextmanager
def async_client(address):
    with (
        anyio.from_thread.start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(AsyncStatehouse(address)) as client,
    ):
        yield AsyncClient(portal, client)
