"""Requests that are repeated: the same answer, durably; another request with the same key is refused."""

import pytest
import trio.testing
from actors.fix_engine import commit, events, state
from storage.fix_store import ALICE, BOB, CAROL, value

from statehouse.actors.messages import AgentAt, Check, Idempotency, StagedOperation, TransactArguments, VersionIs
from statehouse.errors import ConflictError, DiskFullError, ErrorCode, InvalidRequestError, LogPoisonedError

V = value(20)
DAY_NS = 24 * 60 * 60 * 1_000_000_000


def request(*agents, key=b"key", fingerprint=b"f" * 32, content=V, checks=()):
    operations = tuple((agent, StagedOperation(b"k", content)) for agent in agents or (ALICE,))
    return TransactArguments(operations, tuple(checks), {}, Idempotency(key, fingerprint))


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
async def test_a_repeated_request_gives_the_first_answer_again(any_engine_bench, restart):
    async with any_engine_bench.engine() as engine:
        await commit(engine, (BOB, "k", V))
        asked = request(BOB, ALICE, BOB)
        first = await engine.transact(asked).wait()
        assert (first.commit_ts, first.versions, first.deduplicated) == (2, (2, 1, 3), False)
        if not restart:
            again = await engine.transact(asked).wait()
            assert again == first._replace(deduplicated=True)
    async with any_engine_bench.engine() as engine:
        assert await engine.transact(asked).wait() == first._replace(deduplicated=True)
        assert engine.head_ts == 2
        assert [event.commit_ts for event in await events(engine, ALICE)] == [2]


async def test_another_request_with_the_key_is_refused_and_another_agent_does_not_know_it(engine_bench):
    async with engine_bench.engine() as engine:
        await engine.transact(request(ALICE, BOB)).wait()
        for agents in ((ALICE,), (BOB,), (ALICE, CAROL)):
            with pytest.raises(InvalidRequestError, match="used for another request") as caught:
                await engine.transact(request(*agents, fingerprint=b"g" * 32)).wait()
            assert caught.value.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
            assert caught.value.details == {"commit_ts": "1"}
        assert (await engine.transact(request(CAROL, fingerprint=b"g" * 32)).wait()).commit_ts == 2
        assert (await engine.transact(request(ALICE, key=b"key2", fingerprint=b"g" * 32)).wait()).commit_ts == 3


async def test_a_key_is_forgotten_after_the_window(engine_bench):
    async with engine_bench.engine() as engine:
        await engine.transact(request()).wait()
        engine_bench.now_ns += DAY_NS - 1
        assert (await engine.transact(request()).wait()).deduplicated
        engine_bench.now_ns += 1
        again = await engine.transact(request(fingerprint=b"g" * 32)).wait()
        assert (again.commit_ts, again.deduplicated) == (2, False)
        assert (await engine.transact(request(fingerprint=b"g" * 32)).wait()).commit_ts == 2


async def test_the_window_is_a_setting_and_a_clock_that_jumps_back_brings_no_key_back(engine_bench):
    async with engine_bench.engine(idempotency_window_s=10) as engine:
        await engine.transact(request()).wait()
        engine_bench.now_ns += 10_000_000_000
        await commit(engine, (BOB, "k", V))
        engine_bench.now_ns -= 10_000_000_000
        assert not (await engine.transact(request()).wait()).deduplicated


@pytest.mark.parametrize("agents", [(ALICE,), (ALICE, BOB)], ids=["one agent", "two agents"])
async def test_in_flight_twice_at_once_it_is_done_once(engine_bench, inline_threads, agents):
    async with engine_bench.engine() as engine:
        inline_threads.hold()
        replies = [engine.transact(request(*agents)) for _ in range(3)]
        other = engine.transact(request(*agents, fingerprint=b"g" * 32))
        await trio.testing.wait_all_tasks_blocked()
        assert not any(reply.settled for reply in replies)
        inline_threads.release()
        answers = [await reply.wait() for reply in replies]
        assert [answer.deduplicated for answer in answers] == [False, True, True]
        assert {answer[:3] for answer in answers} == {answers[0][:3]}
        with pytest.raises(InvalidRequestError, match="another request"):
            await other.wait()
        assert state(engine)[:2] == (1, 1)


async def test_the_first_answer_comes_before_the_conditions(engine_bench):
    async with engine_bench.engine() as engine:
        asked = request(checks=[Check(0, ALICE, VersionIs(b"k", 0)), Check(1, CAROL, AgentAt(0))])
        first = await engine.transact(asked).wait()
        await commit(engine, (CAROL, "k", V))
        assert await engine.transact(asked).wait() == first._replace(deduplicated=True)


async def test_a_request_that_was_refused_is_not_known(engine_bench):
    async with engine_bench.engine() as engine:
        with pytest.raises(ConflictError):
            await engine.transact(request(checks=[Check(0, ALICE, AgentAt(9))])).wait()
        assert not (await engine.transact(request(fingerprint=b"g" * 32)).wait()).deduplicated


async def test_a_key_needs_an_operation(engine_bench):
    async with engine_bench.engine() as engine:
        arguments = TransactArguments((), (Check(0, ALICE, AgentAt(0)),), {}, Idempotency(b"key", b"f" * 32))
        with pytest.raises(InvalidRequestError, match="writes something"):
            await engine.transact(arguments).wait()


@pytest.mark.parametrize(
    "error",
    [DiskFullError("full"), LogPoisonedError("poisoned", outcome_unknown=True)],
    ids=lambda error: type(error).__name__,
)
async def test_who_waits_for_the_same_request_learns_how_that_failed(engine_bench, inline_threads, monkeypatch, error):
    def fail(_store, _group):
        raise error

    async with engine_bench.engine() as engine:
        monkeypatch.setattr(type(engine._store), "_commit", fail)
        inline_threads.hold()
        first, second = engine.transact(request()), engine.transact(request())
        unlike = engine.transact(request(key=b"unlike", checks=[Check(0, ALICE, AgentAt(0))]))
        await trio.testing.wait_all_tasks_blocked()
        inline_threads.release()
        unknown = []
        for reply in (first, second, unlike):
            with pytest.raises(type(error)) as caught:
                await reply.wait()
            unknown.append(getattr(caught.value, "outcome_unknown", False))
        poisoned = isinstance(error, LogPoisonedError)
        assert unknown == [poisoned, poisoned, False]
        monkeypatch.undo()
        if not poisoned:
            assert not (await engine.transact(request()).wait()).deduplicated


@pytest.mark.parametrize("lost", ["the batch", "the view"])
async def test_after_a_crash_between_append_and_answer_the_request_is_known(engine_bench, lost):
    """The record is on the disk; the view, like the client, has not heard of it."""
    async with engine_bench.engine() as engine:
        await commit(engine, (ALICE, "k", V))
        first = await engine.transact(request(ALICE, BOB)).wait()
    home = engine_bench.place.home
    home.batches = home.batches[:-1] if lost == "the batch" else None
    async with engine_bench.engine() as engine:
        assert await engine.transact(request(ALICE, BOB)).wait() == first._replace(deduplicated=True)
        with pytest.raises(InvalidRequestError, match="another request"):
            await engine.transact(request(BOB, fingerprint=b"g" * 32)).wait()
