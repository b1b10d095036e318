"""Verification beside the commits: in chunks, one at a time, and nothing stays behind when it is given up."""

import pytest
import trio
from actors.fix_engine import commit
from storage.fix_store import ALICE, BOB, value

from statehouse.actors import verifying
from statehouse.errors import InvalidRequestError, OverloadedError, StorageError
from statehouse.findings import Head, VerifyProgress, VerifyVerdict
from statehouse.storage import log_walk, verification
from statehouse.storage.keys import WATERMARK_KEY
from statehouse.storage.view import ViewClosedError


async def told(engine, heads=()):
    return [event async for events in engine.verify(heads) for event in events]


async def test_an_engine_is_verified_while_it_serves(any_engine_bench):
    async with any_engine_bench.engine() as engine:
        assert engine.head().commit_ts == 0
        for number in range(30):
            await commit(engine, (ALICE, f"k{number % 3}", value(20, number)), (BOB, "k", value(400, number)))
        head = engine.head()
        assert (head.commit_ts, len(head.chain), len(head.store_id)) == (30, 32, 16)
        *others, verdict = await told(engine, [head])
        assert (verdict.sound, verdict.head, verdict.records, verdict.heads) == (True, head, 30, 1)
        assert all(isinstance(event, VerifyProgress) for event in others)
        *_, verdict = await told(engine, [Head(30, bytes(32))])
        assert (verdict.sound, verdict.findings) == (False, 1)


async def test_one_at_a_time(engine_bench, inline_threads, autojump_clock):
    async with engine_bench.engine() as engine, trio.open_nursery() as nursery:
        await commit(engine, (ALICE, "k", value()))
        inline_threads.hold()
        verdicts = []

        async def first():
            verdicts.extend(await told(engine))

        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OverloadedError, match="one runs at a time"):
            await told(engine)
        inline_threads.release()
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert isinstance(verdicts[-1], VerifyVerdict)
        assert (await told(engine))[-1].sound


async def test_one_that_is_given_up_lets_the_next_one_in(engine_bench, inline_threads, monkeypatch):
    monkeypatch.setattr(verifying, "CHUNK_S", 0)
    async with engine_bench.engine() as engine:
        for _ in range(5):
            await commit(engine, (ALICE, "k", value()))
        inline_threads.hold()
        with trio.move_on_after(0):
            await told(engine)
        inline_threads.release()
        events = engine.verify(())
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(events)
        assert scope.cancelled_caught
        await events.aclose()
        assert (await told(engine))[-1].sound


async def test_one_of_which_nothing_is_taken_is_ended(any_engine_bench, inline_threads, autojump_clock, monkeypatch):
    monkeypatch.setattr(verifying, "CHUNK_EVENTS", 1)
    monkeypatch.setattr(verification, "PROGRESS_S", 0)
    monkeypatch.setattr(log_walk, "_TICK_RECORDS", 1)
    async with any_engine_bench.engine() as engine:
        for _ in range(20):
            await commit(engine, (ALICE, "k", value()))
        moments = []
        take = engine._verifying._moment
        engine._verifying._moment = lambda: moments.append(take()) or moments[-1]
        slow = engine.verify(())
        for _ in range(5):  # whoever takes something now and then is waited for
            await anext(slow)
            await trio.sleep(verifying.STALL_S - 1)
            with pytest.raises(OverloadedError, match="one runs at a time"):
                await told(engine)
        await anext(slow)
        await trio.sleep(verifying.STALL_S + 1)
        with pytest.raises(ViewClosedError):
            moments[0].view.get(WATERMARK_KEY)
        other = engine.verify(())
        await anext(other)
        with pytest.raises(OverloadedError, match="nothing of the verification was taken for 60 seconds"):
            await anext(slow)
        *_, last = [event async for events in other for event in events]  # the one that was ended harms no other
        assert last.sound
        await trio.sleep(2 * verifying.STALL_S)
        assert (await told(engine))[-1].sound


async def test_one_that_has_nothing_to_tell_yet_is_not_ended(engine_bench, inline_threads, autojump_clock):
    async with engine_bench.engine() as engine, trio.open_nursery() as nursery:
        await commit(engine, (ALICE, "k", value()))
        inline_threads.hold()
        verdicts = []

        async def first():
            verdicts.extend(await told(engine))

        nursery.start_soon(first)
        await trio.sleep(2 * verifying.STALL_S)
        inline_threads.release()
        await trio.sleep(1)
        assert verdicts[-1].sound


async def test_the_file_that_it_reads_is_given_back(engine_bench, inline_threads, monkeypatch):
    monkeypatch.setattr(verifying, "CHUNK_S", 0)
    monkeypatch.setattr(verification, "PROGRESS_S", 0)
    monkeypatch.setattr(log_walk, "_TICK_RECORDS", 1)
    async with engine_bench.engine() as engine:
        for number in range(5):
            await commit(engine, (ALICE, "k", value(20, number)))
        begun = []
        steps = verifying._steps
        monkeypatch.setattr(verifying, "_steps", lambda *given: begun.append(steps(*given)) or begun[0])
        events = engine.verify(())
        while (await anext(events))[-1].stage != "log":
            pass
        assert begun[0].gi_frame is not None
        await events.aclose()
        assert begun[0].gi_frame is None


async def test_it_gives_way_to_commits(engine_bench, inline_threads, autojump_clock, monkeypatch):
    monkeypatch.setattr(verifying, "CHUNK_S", 0)
    monkeypatch.setattr(verifying, "GIVE_WAY_S", 0)
    monkeypatch.setattr(verification, "PROGRESS_S", 0)
    monkeypatch.setattr(log_walk, "_TICK_RECORDS", 1)
    async with engine_bench.engine() as engine:
        for number in range(30):
            await commit(engine, (ALICE, "k", value(20, number)))
        began = trio.current_time()
        await told(engine)
        assert trio.current_time() == began  # nobody commits: no pauses
        chunks = 0
        async for events in engine.verify([engine.head()]):
            chunks, last = chunks + 1, events[-1]
            await commit(engine, (BOB, "k", value(20, chunks)))
        assert chunks > 30
        assert trio.current_time() > began
        assert (last.sound, last.head.commit_ts) == (True, 30)
        assert engine.head().commit_ts == 30 + chunks


async def test_bad_heads(engine_bench):
    async with engine_bench.engine() as engine:
        with pytest.raises(InvalidRequestError, match="32 bytes"):
            await told(engine, [Head(1, b"")])


async def test_a_view_that_was_opened_anew_meanwhile(engine_bench, inline_threads, monkeypatch):
    monkeypatch.setattr(verifying, "CHUNK_S", 0)
    async with engine_bench.engine() as engine:
        for _ in range(5):
            await commit(engine, (ALICE, "k", value()))
        moments = []
        take = engine._verifying._moment
        engine._verifying._moment = lambda: moments.append(take()) or moments[-1]
        monkeypatch.setattr(verifying, "_steps", _closing(verifying._steps, moments))
        with pytest.raises(OverloadedError, match="opened anew"):
            await told(engine)


def _closing(steps, moments):
    def closing(moment, heads):
        for step in steps(moment, heads):
            moments[0].view.close()
            yield step

    return closing


async def test_a_view_that_has_failed_is_not_verified(engine_bench):
    async with engine_bench.engine() as engine:
        engine._store._view_failed = True
        with pytest.raises(OverloadedError, match="again in a moment"):
            await told(engine)
        engine._store._view_failed = False
        assert (await told(engine))[-1].sound


async def test_a_disk_that_refuses(engine_bench):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", value()))
        engine_bench.place.disk.fail_next("list_dir", OSError(5, "input/output error"), path="log")
        with pytest.raises(StorageError, match="cannot be verified"):
            await told(engine)
