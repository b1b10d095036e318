"""Leases: growing epochs, fencing, expiry on a clock that never goes back, and durability."""

import pytest
import trio
import trio.testing
from actors.fix_engine import commit, events
from storage.fix_store import ALICE, BOB, value

from statehouse.actors.messages import Check, LeaseIs, LeaseRow, StagedOperation, TransactArguments, VersionIs
from statehouse.errors import ConflictError, DiskFullError, ErrorCode, FailedPrecondition, LeaseError, TransactionError

V = value(20)
S = 1_000_000_000
T0 = 1_000_000_000_000
MINUTE_MS = 60_000


def write_under(epoch, agent=ALICE, written=ALICE):
    operations = ((written, StagedOperation(b"k", V)),)
    return TransactArguments(operations, (Check(0, agent, LeaseIs(epoch)),))


async def fenced(engine, epoch):
    """What was found where a commit under the lease was refused."""
    with pytest.raises(ConflictError) as caught:
        await engine.transact(write_under(epoch)).wait()
    (found,) = caught.value.failed
    return found.lease_epoch, found.lease_held


async def refused(reply):
    with pytest.raises(LeaseError) as caught:
        await reply.wait()
    assert isinstance(caught.value, TransactionError)
    assert caught.value.code is ErrorCode.LEASE_NOT_HELD
    return caught.value.details


async def test_a_lease_is_acquired_renewed_and_released(any_engine_bench):
    bench = any_engine_bench
    async with bench.engine() as engine:
        assert engine.get_lease(ALICE) == (None, False)
        row = await engine.acquire_lease(ALICE, "worker-1", MINUTE_MS).wait()
        assert row == LeaseRow(1, 1, "worker-1", T0 + 60 * S)
        assert engine.get_lease(ALICE) == (row, True)
        assert (await engine.transact(write_under(1)).wait()).commit_ts == 2
        bench.now_ns += 30 * S
        renewed = await engine.renew_lease(ALICE, 1, MINUTE_MS).wait()
        assert renewed == LeaseRow(3, 1, "worker-1", T0 + 90 * S)
        assert await engine.release_lease(ALICE, 1).wait() == 4
        assert await engine.get_lease_later(ALICE) == (LeaseRow(4, 1, "worker-1", 0), False)
        assert await fenced(engine, 1) == (1, False)
        assert (await engine.acquire_lease(ALICE, "worker-2", MINUTE_MS).wait()).epoch == 2


async def test_a_held_lease_is_nobody_elses(engine_bench):
    async with engine_bench.engine() as engine:
        await engine.acquire_lease(ALICE, "worker-1", MINUTE_MS).wait()
        held = {"epoch": "1", "holder": "worker-1"}
        assert await refused(engine.acquire_lease(ALICE, "worker-2", MINUTE_MS)) == held
        assert await refused(engine.acquire_lease(ALICE, "worker-1", MINUTE_MS)) == held  # a name proves nothing
        for epoch in (0, 2):
            assert await refused(engine.renew_lease(ALICE, epoch, MINUTE_MS)) == held
            assert await refused(engine.release_lease(ALICE, epoch)) == held
        nothing = {"epoch": "0", "holder": ""}
        assert await refused(engine.renew_lease(BOB, 1, MINUTE_MS)) == nothing
        assert await refused(engine.release_lease(BOB, 1)) == nothing
        assert (await engine.acquire_lease(BOB, "worker-2", MINUTE_MS).wait()).epoch == 1


async def test_an_older_epoch_is_refused_for_ever_after_also_after_a_restart(engine_bench):
    async with engine_bench.engine() as engine:
        await engine.acquire_lease(ALICE, "worker-1", MINUTE_MS).wait()
        engine_bench.now_ns += 60 * S
        assert await fenced(engine, 1) == (1, False)
        assert await refused(engine.renew_lease(ALICE, 1, MINUTE_MS)) == {"epoch": "1", "holder": "worker-1"}
        await engine.acquire_lease(ALICE, "worker-2", MINUTE_MS).wait()
        assert await fenced(engine, 1) == (2, True)
    async with engine_bench.engine() as engine:
        assert await fenced(engine, 1) == (2, True)
        assert await refused(engine.acquire_lease(ALICE, "worker-1", MINUTE_MS)) == {"epoch": "2", "holder": "worker-2"}
        assert (await engine.transact(write_under(2)).wait()).commit_ts == 3
        await engine.release_lease(ALICE, 2).wait()
        assert await fenced(engine, 1) == await fenced(engine, 2) == (2, False)
    engine_bench.place.home.batches = None  # and after a rebuild
    async with engine_bench.engine() as engine:
        assert (await engine.acquire_lease(ALICE, "worker-3", MINUTE_MS).wait()).epoch == 3
        assert await fenced(engine, 2) == (3, True)


async def test_a_commit_under_an_expired_lease_is_refused_while_the_clock_jumps_back(engine_bench):
    async with engine_bench.engine() as engine:
        await engine.acquire_lease(ALICE, "worker-1", MINUTE_MS).wait()
        engine_bench.now_ns += 61 * S
        assert await fenced(engine, 1) == (1, False)
        engine_bench.now_ns -= 50 * S
        assert await fenced(engine, 1) == (1, False)
        assert not engine.get_lease(ALICE).held
        await refused(engine.renew_lease(ALICE, 1, MINUTE_MS))
        taken = await engine.acquire_lease(ALICE, "worker-2", MINUTE_MS).wait()
        assert taken.expires_at_ns >= T0 + (61 + 60) * S
    async with engine_bench.engine() as engine:  # the store remembers how late it was
        assert await fenced(engine, 1) == (2, True)


async def test_a_lease_that_is_held_expires_also_while_the_clock_has_jumped_back(
    engine_bench, inline_threads, autojump_clock
):
    async with engine_bench.engine() as engine:
        await engine.acquire_lease(ALICE, "worker-1", MINUTE_MS).wait()
        engine_bench.now_ns -= 3_600 * S  # and stands still
        await trio.sleep(119)
        assert engine.get_lease(ALICE).held
        await trio.sleep(2)
        assert not engine.get_lease(ALICE).held
        await engine.acquire_lease(ALICE, "worker-2", MINUTE_MS).wait()


async def test_a_change_of_a_lease_is_no_event_and_breaks_no_condition(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        await engine.acquire_lease(ALICE, "worker-1", MINUTE_MS).wait()
        await engine.renew_lease(ALICE, 1, MINUTE_MS).wait()
        assert [event.commit_ts for event in await events(engine, ALICE)] == [1]
        assert (await engine.transact(write_under(1)).wait()).versions == (2,)


async def test_of_two_that_acquire_at_once_one_has_the_lease_and_the_other_is_told_when_that_is_durable(
    engine_bench, inline_threads
):
    async with engine_bench.engine() as engine:
        inline_threads.hold()
        first = engine.acquire_lease(ALICE, "worker-1", MINUTE_MS)
        second = engine.acquire_lease(ALICE, "worker-2", MINUTE_MS)
        under = engine.transact(write_under(2))
        await trio.testing.wait_all_tasks_blocked()
        assert [first.settled, second.settled, under.settled] == [False] * 3
        inline_threads.release()
        assert (await first.wait()).epoch == 1
        assert await refused(second) == {"epoch": "1", "holder": "worker-1"}
        with pytest.raises(ConflictError) as caught:
            await under.wait()
        assert caught.value.failed == (FailedPrecondition(index=0, lease_epoch=1, lease_held=True),)


async def test_an_acquisition_that_failed_holds_nothing(engine_bench, monkeypatch):
    def full(_store, _group):
        raise DiskFullError("full")

    async with engine_bench.engine() as engine:
        with monkeypatch.context() as patch:
            patch.setattr(type(engine._store), "_commit", full)
            with pytest.raises(DiskFullError):
                await engine.acquire_lease(ALICE, "worker-1", MINUTE_MS).wait()
        assert engine.get_lease(ALICE) == (None, False)
        assert (await engine.acquire_lease(ALICE, "worker-2", MINUTE_MS).wait()).epoch == 1


async def test_a_lease_on_one_agent_may_guard_a_write_to_another(engine_bench):
    async with engine_bench.engine() as engine:
        await engine.acquire_lease(ALICE, "worker-1", MINUTE_MS).wait()
        assert (await engine.transact(write_under(1, agent=ALICE, written=BOB)).wait()).commit_ts == 2
        both = (Check(0, ALICE, LeaseIs(2)), Check(1, BOB, VersionIs(b"k", 7)))
        with pytest.raises(ConflictError) as caught:
            await engine.transact(TransactArguments(((BOB, StagedOperation(b"k", V)),), both)).wait()
        assert [found.index for found in caught.value.failed] == [0, 1]
