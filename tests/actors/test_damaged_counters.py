"""Counters of an agent that are damaged in the view: what rests on them fails, and nothing else does."""

import pytest
from actors.fix_engine import commit, state
from storage.fix_store import ALICE, BOB, CAROL, value

from statehouse.errors import InvalidRequestError, StorageError
from statehouse.limits import DELETED_KEYS
from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters

V = value(20)


async def with_counters(bench, packed):
    """A store in which alice, who has one key, has these counters; nobody has read them yet."""
    async with bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        engine._store._view.apply([(keys.meta_key(keys.agent_prefix(ALICE)), packed)])


async def test_counters_that_are_none_fail_a_fork_and_an_end_and_the_daemon_lives(engine_bench):
    await with_counters(engine_bench, b"\xff")
    async with engine_bench.engine() as engine:
        for reply in (engine.fork_agent(ALICE, CAROL, None), engine.delete_agent(ALICE)):
            with pytest.raises(StorageError, match="the view is damaged"):
                await reply.wait()
        assert engine_bench.place.home.condemned
        assert await commit(engine, (BOB, "k", V)) == 2
        assert state(engine, ALICE) == (1, 1, V)
    async with engine_bench.engine() as engine:  # whose view was made anew from the log
        assert (await engine.fork_agent(ALICE, CAROL, None).wait()).commit_ts == 3


@pytest.mark.parametrize("counted", [2, 3, DELETED_KEYS])
async def test_an_agent_that_counts_more_keys_than_it_has_is_not_deleted_and_the_daemon_lives(engine_bench, counted):
    await with_counters(engine_bench, AgentCounters(1, 1, 1, 1, counted).pack())
    async with engine_bench.engine() as engine:
        with pytest.raises(StorageError, match="the view is damaged"):
            await engine.delete_agent(ALICE).wait()
        assert engine_bench.place.home.condemned
        assert await commit(engine, (BOB, "k", V)) == 2
    async with engine_bench.engine() as engine:
        assert await engine.delete_agent(ALICE).wait() == (3, 1)


async def test_keys_are_looked_for_only_when_there_are_some_and_not_too_many(engine_bench, monkeypatch):
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", None), (BOB, "k", V))
        monkeypatch.setattr(type(engine._store), "live_keys", lambda *_: 1 // 0)
        assert await engine.delete_agent(ALICE).wait() == (2, 0)
        monkeypatch.setattr("statehouse.actors.endings.DELETED_KEYS", 0)
        with pytest.raises(InvalidRequestError, match="more than"):
            await engine.delete_agent(BOB).wait()
