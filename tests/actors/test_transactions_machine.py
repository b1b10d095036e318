"""Open transactions: every rule, on made-up clock values."""

from contextlib import suppress
from itertools import count

import pytest
from attrs import define, evolve, field

from statehouse.actors import transactions_machine as module
from statehouse.actors.messages import Abort, Begin, Commit, Ended, Leg, Stage, StagedOperation, Transaction
from statehouse.actors.reply import Reply
from statehouse.actors.transactions_machine import TransactionsMachine
from statehouse.errors import (
    DiskFullError,
    ErrorCode,
    InternalError,
    InvalidRequestError,
    LogPoisonedError,
    OverloadedError,
    StorageError,
    TransactionError,
    UnavailableError,
)
from statehouse.limits import Limits
from statehouse.types import AgentId

A = AgentId("default", "a")
B = AgentId("default", "b")
LIMITS = Limits(
    transaction_operations=3, transaction_bytes=100, timeout_ms=60_000, open_transactions=4, staged_bytes=10_000
)


@define
class Fixture:
    """A machine, its clock, and the store's memory of commits."""

    limits: Limits = LIMITS
    now_s: float = 100.0
    committed: dict[str, int] = field(factory=dict)
    machine: TransactionsMachine = None

    def __attrs_post_init__(self):
        ids = count(1)
        self.machine = TransactionsMachine(
            self.limits,
            default_timeout_ms=30_000,
            new_id=lambda: f"t{next(ids)}",
            committed_ts=self.committed.get,
        )

    def handle(self, message):
        """The message's reply, or the error that its turn raises; as the actor does."""
        self.machine.handle(message, lambda: self.now_s)
        return message.reply

    def begin(self, timeout_ms=None):
        return self.handle(Begin(timeout_ms)).result()

    def write(self, txn_id, key=b"k", value=b"v", agent=A):
        self.handle(Stage(txn_id, agent, StagedOperation(key, value))).result()

    def take(self, txn_id):
        """Ask for the commit: the reply, and the transaction to carry out."""
        message = Commit(txn_id)
        taken = self.machine.handle(message, lambda: self.now_s)
        return message.reply, taken

    def end(self, txn_id, outcome):
        if not isinstance(outcome, Exception):
            self.committed[txn_id] = outcome
        reply = Reply.failed(outcome) if isinstance(outcome, Exception) else Reply.of(outcome)
        self.handle(Ended(txn_id, reply))

    def abort(self, txn_id):
        return self.handle(Abort(txn_id))

    def refused(self, call, *arguments):
        with pytest.raises(TransactionError) as caught:
            call(*arguments)
        return caught.value


@pytest.fixture
def bench():
    return Fixture()


def fresh(**limits):
    return Fixture(evolve(LIMITS, **limits))


# Begin


@pytest.mark.parametrize("timeout_ms", [0, 60_001, 2**64 - 1])
def test_a_timeout_outside_the_limit_is_refused_and_named(bench, timeout_ms):
    with pytest.raises(InvalidRequestError, match=rf"timeout_ms is {timeout_ms}.*60000") as caught:
        bench.begin(timeout_ms)
    assert caught.value.details == {"limit": "60000", "size": str(timeout_ms)}
    assert bench.machine.open == 0


@pytest.mark.parametrize("timeout_ms", [1, 60_000])
def test_the_timeouts_at_the_limits_are_taken(bench, timeout_ms):
    assert bench.begin(timeout_ms) == "t1"


def test_past_the_open_transactions_limit_begin_is_overloaded_until_one_ends(bench):
    ids = [bench.begin() for _ in range(4)]
    with pytest.raises(OverloadedError, match=r"4 transactions are open, the limit is 4") as caught:
        bench.begin()
    assert caught.value.details == {"limit": "4", "size": "4"}
    bench.abort(ids[0])
    bench.begin()


def test_begin_does_not_count_transactions_that_have_expired(bench):
    for _ in range(4):
        bench.begin(1)
    bench.now_s += 1
    bench.begin()
    assert bench.machine.open == 1


# Stage


def test_operations_are_kept_in_order_and_grouped_by_agent_in_order_of_agents(bench):
    txn_id = bench.begin()
    bench.write(txn_id, b"1", b"x", B)
    bench.write(txn_id, b"2", b"y", A)
    bench.write(txn_id, b"1", None, B)
    _, taken = bench.take(txn_id)
    assert taken == Transaction(
        txn_id,
        [
            Leg(A, [StagedOperation(b"2", b"y")]),
            Leg(B, [StagedOperation(b"1", b"x"), StagedOperation(b"1", None)]),
        ],
    )


def test_too_many_operations_are_refused_with_limit_and_size_and_the_rest_stays(bench):
    txn_id = bench.begin()
    for _ in range(3):
        bench.write(txn_id)
    with pytest.raises(InvalidRequestError, match=r"would have 4 operations, the limit is 3") as caught:
        bench.write(txn_id)
    assert caught.value.details == {"limit": "3", "size": "4"}
    _, taken = bench.take(txn_id)
    assert len(taken.legs[0].operations) == 3


def test_too_many_bytes_are_refused_with_limit_and_size_and_the_rest_stays(bench):
    txn_id = bench.begin()
    bench.write(txn_id, b"k" * 10, b"v" * 90)
    with pytest.raises(InvalidRequestError, match=r"101 bytes, the limit is 100") as caught:
        bench.write(txn_id, b"k", None)
    assert caught.value.details == {"limit": "100", "size": "101"}
    assert len(bench.take(txn_id)[1].legs[0].operations) == 1


def test_all_open_transactions_together_are_bounded_and_each_way_to_end_frees():
    bench = fresh(staged_bytes=10_000, transaction_bytes=10_000, open_transactions=100)
    big = b"v" * 4_000
    refusals = []
    ids = [bench.begin(), bench.begin()]
    for txn_id in ids:
        bench.write(txn_id, b"k", big)

    def is_full():
        probe = bench.begin()
        message = Stage(probe, A, StagedOperation(b"k", big))
        try:
            bench.handle(message)
        except OverloadedError as error:
            refusals.append(error.details)
            return True
        finally:
            bench.abort(probe)
        return False

    assert is_full()
    bench.abort(ids[0])
    assert not is_full()

    bench.write(again := bench.begin(1_000), b"k", big)
    assert is_full()
    bench.now_s += 1
    assert bench.machine.expire(bench.now_s) == 1
    assert not is_full()
    assert bench.refused(bench.write, again).code is ErrorCode.TXN_EXPIRED

    bench.write(again := bench.begin(), b"k", big)
    bench.take(again)
    assert is_full()  # what is being committed is still in memory
    bench.end(again, 1)
    assert not is_full()
    assert {refusal["limit"] for refusal in refusals} == {"10000"}
    assert all(int(refusal["size"]) > 10_000 for refusal in refusals)


@pytest.mark.parametrize("agent", [AgentId("", ""), AgentId("n" * 256, "a" * 256)])
def test_empty_operations_and_the_names_of_agents_count_for_memory_too(agent):
    bench = fresh(staged_bytes=10_000, transaction_operations=10_000)
    txn_id = bench.begin()
    taken = 0
    with suppress(OverloadedError):
        for _ in range(100):
            bench.write(txn_id, b"", None, agent)
            taken += 1
    assert taken * (len(agent.namespace) + len(agent.agent_id) + 100) < 10_000


# Expiry


def test_a_transaction_expires_exactly_at_its_deadline(bench):
    txn_id = bench.begin(500)
    bench.now_s += 0.499
    bench.write(txn_id)
    bench.now_s += 0.001
    assert bench.refused(bench.write, txn_id).code is ErrorCode.TXN_EXPIRED
    assert bench.machine.open == 0  # also before the sweep
    error = bench.refused(bench.take, txn_id)
    assert error.code is ErrorCode.TXN_EXPIRED
    assert txn_id in error.message


def test_the_default_timeout_is_the_machines(bench):
    txn_id = bench.begin()
    bench.now_s += 29.999
    bench.write(txn_id)
    bench.now_s += 0.001
    assert bench.refused(bench.take, txn_id).code is ErrorCode.TXN_EXPIRED


def test_aborting_an_expired_transaction_succeeds_and_it_stays_expired(bench):
    txn_id = bench.begin(1)
    bench.now_s += 1
    assert bench.abort(txn_id).result() is None
    assert bench.refused(bench.write, txn_id).code is ErrorCode.TXN_EXPIRED


def test_a_transaction_that_is_being_committed_does_not_expire(bench):
    txn_id = bench.begin(500)
    reply, _ = bench.take(txn_id)
    bench.now_s += 1_000
    assert bench.machine.expire(bench.now_s) == 0
    bench.end(txn_id, 9)
    assert reply.result() == 9


def test_a_commit_without_room_leaves_its_transaction_open(bench):
    txn_id = bench.begin(1_000)
    bench.write(txn_id)
    reply, _ = bench.take(txn_id)
    bench.end(txn_id, OverloadedError("no room"))
    with pytest.raises(OverloadedError):
        reply.result()
    reply, transaction = bench.take(txn_id)
    assert [len(leg.operations) for leg in transaction.legs] == [1]
    bench.end(txn_id, 7)
    assert reply.result() == 7
    assert bench.machine._staged_bytes == 0


def test_a_commit_without_room_expires_and_can_be_aborted_as_any_other(bench):
    late, aborted = bench.begin(1_000), bench.begin(5_000)
    for txn_id in (late, aborted):
        bench.write(txn_id)
        bench.take(txn_id)
    given_up = bench.abort(aborted)
    for txn_id in (late, aborted):
        bench.end(txn_id, OverloadedError("no room"))
    assert given_up.result() is None
    assert bench.refused(bench.write, aborted).code is ErrorCode.TXN_NOT_FOUND
    bench.now_s += 1
    assert bench.machine.expire(bench.now_s) == 1
    assert bench.refused(bench.write, late).code is ErrorCode.TXN_EXPIRED
    assert bench.machine._staged_bytes == 0


def test_deadlines_of_transactions_that_ended_do_not_pile_up(bench):
    for _ in range(5_000):
        bench.abort(bench.begin())
    assert len(bench.machine._deadlines) <= 1_024 + 2
    kept = bench.begin(1_000)
    for _ in range(5_000):
        bench.abort(bench.begin())
    bench.now_s += 1
    assert bench.machine.expire(bench.now_s) == 1
    assert bench.refused(bench.take, kept).code is ErrorCode.TXN_EXPIRED


# Commit and abort


def test_a_committed_transaction_says_when_it_was_committed(bench):
    txn_id = bench.begin()
    reply, taken = bench.take(txn_id)
    assert taken == Transaction(txn_id, [])
    assert not reply.settled
    bench.end(txn_id, 41)
    assert reply.result() == 41
    for call in (bench.take, bench.write, bench.abort):
        error = bench.refused(call, txn_id)
        assert error.code is ErrorCode.TXN_ALREADY_COMMITTED
        assert error.details == {"commit_ts": "41"}


def test_a_commit_is_remembered_by_the_store_across_a_restart(bench):
    bench.committed["from before"] = 7
    for call in (bench.take, bench.write, bench.abort):
        assert bench.refused(call, "from before").details == {"commit_ts": "7"}


def test_committing_while_committing_waits_for_the_same_outcome(bench):
    txn_id = bench.begin()
    first, taken = bench.take(txn_id)
    second, again = bench.take(txn_id)
    assert taken is not None
    assert again is None  # carried out once
    assert not second.settled
    error = bench.refused(bench.write, txn_id)
    assert error.code is ErrorCode.TXN_ALREADY_COMMITTED
    bench.end(txn_id, 3)
    assert first.result() == 3
    with pytest.raises(TransactionError) as caught:
        second.result()
    assert caught.value.details == {"commit_ts": "3"}


def test_aborting_while_committing_waits_for_the_outcome(bench):
    committed, failed = bench.begin(), bench.begin()
    for txn_id in (committed, failed):
        bench.take(txn_id)
    aborts = [bench.abort(committed), bench.abort(failed)]
    assert not any(reply.settled for reply in aborts)
    bench.end(committed, 3)
    bench.end(failed, DiskFullError("full"))
    with pytest.raises(TransactionError) as caught:
        aborts[0].result()
    assert caught.value.code is ErrorCode.TXN_ALREADY_COMMITTED
    assert aborts[1].result() is None


@pytest.mark.parametrize(
    "error",
    [
        DiskFullError("full"),
        StorageError("broken"),
        InvalidRequestError("too many agents"),
        UnavailableError("stopping"),
        InternalError("internal error 1234"),
        LogPoisonedError("read-only"),
    ],
)
def test_a_commit_that_failed_has_not_happened_and_is_aborted(bench, error):
    txn_id = bench.begin()
    first, _ = bench.take(txn_id)
    second, _ = bench.take(txn_id)
    bench.end(txn_id, error)
    for reply in (first, second):
        assert reply.error is error
    again = bench.refused(bench.take, txn_id)
    assert again.code is ErrorCode.TXN_NOT_FOUND
    assert "aborted" in again.message
    assert bench.abort(txn_id).result() is None
    assert bench.machine.committing == 0


def test_an_unknown_outcome_stays_unknown(bench):
    txn_id = bench.begin()
    reply, _ = bench.take(txn_id)
    abort = bench.abort(txn_id)
    bench.end(txn_id, LogPoisonedError("sync failed", outcome_unknown=True))
    for settled in (reply, abort):
        assert isinstance(settled.error, LogPoisonedError)
    for call in (bench.take, bench.write, bench.abort):
        with pytest.raises(LogPoisonedError, match="unknown") as caught:
            call(txn_id)
        assert caught.value.outcome_unknown


def test_aborted_unknown_and_committed_are_told_apart(bench):
    aborted = bench.begin()
    bench.write(aborted)
    assert bench.abort(aborted).result() is None
    assert bench.abort(aborted).result() is None
    assert bench.abort("never was").result() is None
    for call in (bench.write, bench.take):
        error = bench.refused(call, aborted)
        assert (error.code, "aborted" in error.message) == (ErrorCode.TXN_NOT_FOUND, True)
        error = bench.refused(call, "never was")
        assert (error.code, "aborted" in error.message) == (ErrorCode.TXN_NOT_FOUND, False)


def test_past_the_commits_in_flight_the_transaction_stays_open(bench, monkeypatch):
    monkeypatch.setattr(module, "COMMITS_IN_FLIGHT", 1)
    first, second = bench.begin(), bench.begin()
    bench.take(first)
    with pytest.raises(OverloadedError, match="still open") as caught:
        bench.take(second)
    assert caught.value.details == {"limit": "1"}
    bench.write(second)
    bench.end(first, 1)
    _, taken = bench.take(second)
    assert len(taken.legs) == 1


def test_the_memory_of_ended_transactions_is_bounded_and_forgets_the_oldest(bench, monkeypatch):
    monkeypatch.setattr(module, "ENDED_TRANSACTIONS", 3)
    ids = [bench.begin() for _ in range(4)]
    for txn_id in ids:
        bench.abort(txn_id)
    assert "aborted" not in bench.refused(bench.take, ids[0]).message
    assert all("aborted" in bench.refused(bench.take, txn_id).message for txn_id in ids[1:])


def test_closing_answers_everything_that_is_owed(bench):
    txn_id = bench.begin()
    owed = [bench.take(txn_id)[0], bench.take(txn_id)[0], bench.abort(txn_id)]
    bench.machine.close(UnavailableError("stopping"))
    for reply in owed:
        assert isinstance(reply.error, UnavailableError)
    assert (bench.machine.open, bench.machine.committing) == (0, 0)
