"""`update` and leases, in both clients."""

import gc

import anyio
import pytest

from statehouse import AsyncStatehouse, ConflictError, LeaseError, Precondition, Put, Remove, Statehouse
from statehouse.client import updating


@pytest.fixture
def pauses(monkeypatch):
    """The pauses of updates, which then take no time."""
    pauses = []

    class Backoff(updating.Backoff):
        def pause_s(self):
            pauses.append(super().pause_s())
            return 0.0

    monkeypatch.setattr(updating, "Backoff", Backoff)
    return pauses


def count(value):
    return {"n": (value or {"n": 0}).get("n", 0) + 1}


def test_update_reads_computes_and_writes(run, memory_server):
    async def slowly(value):
        await anyio.lowlevel.checkpoint()
        return count(value)

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            first = await client.update("a", "k", count, metadata={"by": "me"})
            assert (first.value, first.version, first.commit_ts) == ({"n": 1}, 1, 1)
            assert (await client.update("a", "k", slowly)).value == {"n": 2}
            assert (await client.update("a", "k", lambda value: None)).version == 3
            assert not (await client.get_state("a", "k")).exists
            with pytest.raises(ZeroDivisionError):
                await client.update("a", "k", lambda value: 1 // 0)
            assert [event.metadata async for event in client.replay("a")] == [{"by": "me"}, {}, {}]

    run(main)


@pytest.mark.parametrize("tries", [1, 4])
def test_update_gives_up_with_the_last_conflict(run, memory_server, pauses, tries):
    memory_server.conflicts = 100

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            seen = []
            with pytest.raises(ConflictError) as caught:
                await client.update("a", "k", lambda value: seen.append(value) or {"n": 1}, tries=tries)
            assert len(seen) == tries
            assert caught.value.failed[0].version == tries

    run(main)
    assert len(pauses) == tries - 1


def test_update_is_called_with_what_is_there_then(memory_server, pauses):
    memory_server.conflicts = 2
    with Statehouse(memory_server.url) as client:

        def compute(value):
            assert client.get_state("a", "k").value == value  # it may use the client
            return count(value)

        result = client.update("a", "k", compute)
        assert (result.value, result.version) == ({"n": 3}, 3)
    assert len(pauses) == 2


def test_the_sync_client_refuses_an_async_function(memory_server, recwarn):
    async def plus_one(value):
        return count(value)

    with Statehouse(memory_server.url) as client:
        with pytest.raises(TypeError, match="only AsyncStatehouse awaits it"):
            client.update("a", "k", plus_one)
        assert not client.get_state("a", "k").exists
    gc.collect()
    assert [str(each.message) for each in recwarn if "never awaited" in str(each.message)] == []


def test_one_part_of_a_commit_that_is_in_no_list():
    condition = Precondition.agent_at("a", 1)
    with Statehouse("127.0.0.1:1") as client:  # nobody listens there
        for alone in (Put("a", "k", {}), Remove("a", "k")):
            with pytest.raises(TypeError, match="operations must be a sequence of them"):
                client.transact(alone)
        with pytest.raises(TypeError, match="preconditions must be a sequence of them"):
            client.transact([], preconditions=condition)
        with pytest.raises(TypeError, match="preconditions must be a sequence of them"):
            client.begin_transaction().commit(preconditions=condition)


def test_many_updates_lose_none(run, daemon):
    async def main():
        async with AsyncStatehouse(daemon.address) as client:

            async def work():
                for _ in range(5):
                    await client.update("a", "k", count, tries=1000)

            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(work)
            assert (await client.get_state("a", "k")).value == {"n": 40}

    run(main)


def test_a_lease_fences_off(run, daemon):
    async def main():
        async with AsyncStatehouse(daemon.address) as client:
            assert await client.get_lease("a") is None
            async with await client.lease("a", "one", 60) as lease:
                assert (lease.epoch, lease.holder, lease.agent_id) == (1, "one", "a")
                with pytest.raises(LeaseError):
                    await client.lease("a", "two", 60)
                before = lease.expires_at
                assert await lease.renew(3600) > before
                txn = await client.begin_transaction()
                await txn.write("a", "k", {"n": 1})
                await txn.commit(preconditions=[lease.precondition])
                state = await client.get_lease("a")
                assert (state.epoch, state.holder, state.held, state.expires_at) == (1, "one", True, lease.expires_at)
            await lease.release()  # once more: nothing
            assert not (await client.get_lease("a")).held
            late = await client.begin_transaction()
            await late.write("a", "k", {"n": 2})
            with pytest.raises(ConflictError) as caught:
                await late.commit(preconditions=[lease.precondition])
            assert (caught.value.failed[0].lease_epoch, caught.value.failed[0].lease_held) == (1, False)
            with pytest.raises(LeaseError):
                await lease.renew()
            other = await client.lease("a", "two", 60)
            assert other.epoch == 2
            with pytest.raises(KeyError):
                async with other:
                    raise KeyError
            assert not (await client.get_lease("a")).held

    run(main)


def test_a_lease_is_adopted_by_its_epoch(run, daemon):
    async def main():
        async with AsyncStatehouse(daemon.address) as client, AsyncStatehouse(daemon.address) as restarted:
            lease = await client.lease("a", "me", 60, "other")
            adopted = await restarted.adopt_lease("a", lease.epoch, 3600, "other")
            assert (adopted.epoch, adopted.holder, adopted.expires_at) == (1, "me", lease.expires_at)
            assert await adopted.renew() > lease.expires_at
            await adopted.release()
            for epoch in (1, 2):  # given back, and not there yet
                with pytest.raises(LeaseError) as caught:
                    await restarted.adopt_lease("a", epoch, 60, "other")
                assert caught.value.details == {"epoch": "1", "holder": "me"}
            with pytest.raises(LeaseError, match="it never had one"):
                await restarted.adopt_lease("b", 1, 60)
            with pytest.raises(TypeError, match="epoch must be an int"):
                await restarted.adopt_lease("a", "1", 60)

    run(main)
    with Statehouse(daemon.address) as client:
        lease = client.lease("a", "me", 60, "other")
        with client.adopt_lease("a", lease.epoch, 60, "other") as adopted:
            assert adopted.precondition == lease.precondition
        assert not client.get_lease("a", "other").held


def test_a_lease_that_was_lost_is_told_at_the_end_of_its_block(memory_server):
    with Statehouse(memory_server.url) as client:
        with pytest.raises(LeaseError), client.lease("a", "one", 1) as lease:  # noqa: PT012
            assert lease.epoch == 1
            memory_server.leases["default", "a"].epoch = 2
        with pytest.raises(KeyError), client.lease("b", "one", 1):  # noqa: PT012
            memory_server.leases["default", "b"].epoch = 2
            raise KeyError
