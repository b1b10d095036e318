"""What any sequence of calls gives, on a real store and on one in memory, is what a dict would have given."""

from functools import partial

import pytest
from attrs import evolve
from client.fix_model import SyncClient, async_client
from client.model_machine import StoreMachine, World
from hypothesis import Phase, Verbosity, settings
from hypothesis.errors import FlakyFailure, FlakyStrategyDefinition
from hypothesis.stateful import run_state_machine_as_test

from statehouse import ConflictError, Put, Transaction


def check(world, given):
    run_state_machine_as_test(partial(StoreMachine, world), settings=given)


@pytest.fixture
def memory_daemon(make_daemon):
    return make_daemon(options=("--use-memory",)).start()


def test_a_store_on_disk_that_is_killed_now_and_then(make_daemon, model_settings):
    daemon = make_daemon(options=("--snapshot-interval", "50")).start()
    with SyncClient(daemon.address) as client:
        check(World(client, restartable=daemon), model_settings)


def test_a_store_in_memory_through_the_async_client(memory_daemon, model_settings):
    with async_client(memory_daemon.address) as client:
        check(World(client), model_settings)


# That it can fail


class DropsDeletes(SyncClient):
    def handle(self, txn_id, namespace):
        handle = super().handle(txn_id, namespace)
        handle.delete = lambda agent_id, key: handle.write("somebody else", key, {})  # refused when a delete would be
        return handle


class CountsVersionsFromZero(SyncClient):
    def get_state(self, agent_id, key, namespace=None, *, at_ts=None):
        found = super().get_state(agent_id, key, namespace, at_ts=at_ts)
        return evolve(found, version=max(found.version - 1, 0))


class ReadsWhatIsStaged(SyncClient):
    """A write is committed by itself."""

    def handle(self, txn_id, namespace):
        handle = super().handle(txn_id, namespace)

        def write(agent_id, key, value, **named):
            Transaction.write(handle, agent_id, key, value, **named)
            with self.begin_transaction(namespace=namespace) as other:
                other.write(agent_id, key, value, **named)

        handle.write = write
        return handle


class LosesTheFirstEvent(SyncClient):
    def replay(self, *args):
        events = list(super().replay(*args))
        return events[1:] if len(events) > 1 else events


class TakesTrueForOne(SyncClient):
    def get_state(self, agent_id, key, namespace=None, *, at_ts=None):
        found = super().get_state(agent_id, key, namespace, at_ts=at_ts)
        if not found.exists:
            return found
        value = {name: 1 if member is True else member for name, member in found.value.items()}
        return evolve(found, value=value)


class LooksAtNow(SyncClient):
    def get_state(self, agent_id, key, namespace=None, *, at_ts=None):
        return super().get_state(agent_id, key, namespace)


class ForgetsItsConditions(SyncClient):
    def transact(self, operations, *, preconditions=(), idempotency_key=None):
        return super().transact(operations, idempotency_key=idempotency_key)


class ForgetsItsKey(SyncClient):
    def transact(self, operations, *, preconditions=(), idempotency_key=None):
        return super().transact(operations, preconditions=preconditions)


class ForgetsHowLong(SyncClient):
    """What is written lasts for good."""

    def transact(self, operations, *, preconditions=(), idempotency_key=None):
        lasting = [evolve(each, ttl_s=None) if isinstance(each, Put) else each for each in operations]
        return super().transact(lasting, preconditions=preconditions, idempotency_key=idempotency_key)


class ShowsWhatHasExpired(SyncClient):
    def get_state(self, agent_id, key, namespace=None, *, at_ts=None):
        found = super().get_state(agent_id, key, namespace, at_ts=at_ts)
        if found.exists or at_ts is not None:
            return found
        newest = range(found.version, max(found.version - 2, 0), -1)
        versions = (self.get_state_at_version(agent_id, key, version, namespace) for version in newest)
        return next((each for each in versions if each.exists and each.expires_at), found)


class HidesWhatWillExpire(SyncClient):
    def list_keys(self, agent_id, namespace=None):
        return [each.key for each in self.scan_prefix(agent_id, "", namespace) if each.expires_at is None]


class DeletesInSilence(SyncClient):
    """What has expired is deleted without an event."""

    def replay(self, *args):
        return [event for event in super().replay(*args) if not all(each.expired for each in event.operations)]


UNTIL_FOUND = settings(
    max_examples=2_000,
    stateful_step_count=25,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    verbosity=Verbosity.quiet,
)

HUNTS = 5

FAILURES = (AssertionError, pytest.fail.Exception, ConflictError, FlakyFailure)
"""The third: of a repeated request that is looked at anew. The last: of what has expired, when the example that failed
is run once more and time has passed otherwise."""


@pytest.mark.parametrize(
    "sabotaged",
    [
        *(DropsDeletes, CountsVersionsFromZero, ReadsWhatIsStaged, LosesTheFirstEvent, TakesTrueForOne),
        *(LooksAtNow, ForgetsItsConditions, ForgetsItsKey),
        *(ForgetsHowLong, ShowsWhatHasExpired, HidesWhatWillExpire, DeletesInSilence),
    ],
)
def test_a_client_or_store_that_does_otherwise_fails(memory_daemon, sabotaged):
    with sabotaged(memory_daemon.address) as client:
        for _ in range(HUNTS):
            try:
                check(World(client), UNTIL_FOUND)
            except FAILURES:
                return
            except FlakyStrategyDefinition:  # time has passed otherwise, which says nothing: hunt again
                continue
            break
        pytest.fail("not found")
