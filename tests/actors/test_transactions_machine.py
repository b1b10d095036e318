"""Open transactions: every rule, on made-up clock values."""

from contextlib import suppress
from itertools import count

import pytest
from attrs import define, evolve, field

from statehouse.actors import recent_ends, staging, transactions_machine
from statehouse.actors.conditions import AgentAt, Check, ExistsIs, VersionIs
from statehouse.actors.messages import (
    Abort,
    AgentEnd,
    Begin,
    Commit,
    Committed,
    EndAgent,
    Ended,
    EndedAgent,
    ForkAgent,
    Forked,
    ForkOf,
    FoundFork,
    Leg,
    Stage,
    StagedOperation,
    Transact,
    TransactArguments,
    Transaction,
)
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
from statehouse.storage.record_notes import ForkNote, Inherited
from statehouse.storage.section import metadata_fields
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

    def handle_taken(self, message):
        """The transaction to carry out that a message comes to."""
        return self.machine.handle(message, lambda: self.now_s)

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
        failed = isinstance(outcome, Exception)
        reply = Reply.failed(outcome) if failed else Reply.of(Committed(outcome, txn_id, []))
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


CHECKS = (Check(0, A, VersionIs(b"k" * 1_000, 1)), Check(1, B, ExistsIs(b"k" * 1_000, exists=True)))
METADATA = {"run": "r" * 500, "cause": "c" * 500}


@pytest.mark.parametrize(
    ("asked", "least_bytes"),
    [
        ({"checks": CHECKS}, 2_000),
        ({"checks": (Check(0, AgentId("n", "a" * 256), AgentAt(7)),) * 4}, 1_000),
        ({"metadata": METADATA}, 2_000),  # in the event of each of the two agents
        ({"checks": CHECKS[:1], "metadata": METADATA}, 3_000),
    ],
)
def test_what_a_commit_asks_for_is_bounded_until_it_is_answered(asked, least_bytes, monkeypatch):
    monkeypatch.setattr(staging, "COMMIT_REQUESTS_BYTES", least_bytes)
    bench = fresh()
    room = bench.machine._room

    def stage():
        txn_id = bench.begin()
        for agent in (A, B):
            bench.write(txn_id, agent=agent)
        return txn_id

    first, other = stage(), stage()
    staged_bytes = room.staged_bytes
    bench.handle(Commit(first, **asked))  # one alone is taken
    assert (room.asked_bytes >= least_bytes, room.staged_bytes) == (True, staged_bytes)
    writes = tuple((agent, StagedOperation(b"k", b"v")) for agent in (A, B))
    for message in (Commit(other, **asked), Transact(TransactArguments(writes, **asked))):
        with pytest.raises(OverloadedError, match=r"preconditions and metadata .* again") as caught:
            bench.handle(message)
        assert int(caught.value.details["size"]) > int(caught.value.details["limit"]) == least_bytes
        assert room.staged_bytes == staged_bytes
    bare = bench.handle_taken(Transact(TransactArguments(writes)))  # it asks for nothing besides
    bench.end(bare.txn_id, StorageError("broken"))
    bench.end(first, OverloadedError("no room"))
    assert room.asked_bytes == 0
    # Both are open as before, and can be committed with something else.
    for txn_id, outcome in ((first, 7), (other, StorageError("broken"))):
        bench.handle(Commit(txn_id, checks=CHECKS))
        assert room.asked_bytes
        bench.end(txn_id, outcome)
        assert room.asked_bytes == 0
    assert room.staged_bytes == 0


def test_a_room_that_is_full_is_emptied_by_commits_whatever_they_ask_for(monkeypatch):
    monkeypatch.setattr(staging, "COMMIT_REQUESTS_BYTES", 1)
    bench = fresh(staged_bytes=600)
    ids = [bench.begin(), bench.begin()]
    for txn_id in ids:
        bench.write(txn_id)
    with pytest.raises(OverloadedError, match="all open transactions together"):
        bench.write(ids[0])
    for txn_id in ids:
        reply = bench.handle(Commit(txn_id, metadata=METADATA, checks=CHECKS))
        bench.end(txn_id, 7)
        assert reply.result() == 7
    assert (bench.machine._room.staged_bytes, bench.machine._room.asked_bytes) == (0, 0)


@pytest.mark.parametrize(("checks", "metadata"), [(CHECKS[:1], {}), ((), METADATA)])
def test_what_the_end_of_an_agent_asks_for_counts_too(checks, metadata, monkeypatch):
    monkeypatch.setattr(staging, "COMMIT_REQUESTS_BYTES", 1)
    bench = fresh()
    taken = bench.handle_taken(EndAgent(A, checks, metadata))
    assert bench.machine._room.asked_bytes > 500
    with pytest.raises(OverloadedError, match=r"preconditions and metadata .* try again later"):
        bench.handle(EndAgent(B, checks, metadata))
    bench.handle(Ended(taken.txn_id, Reply.failed(StorageError("broken"))))
    assert bench.machine._room.asked_bytes == 0


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
    assert bench.machine._room.staged_bytes == 0


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
    assert bench.machine._room.staged_bytes == 0


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
    monkeypatch.setattr(transactions_machine, "COMMITS_IN_FLIGHT", 1)
    first, second = bench.begin(), bench.begin()
    bench.take(first)
    with pytest.raises(OverloadedError, match="still open") as caught:
        bench.take(second)
    assert caught.value.details == {"limit": "1"}
    bench.write(second)
    bench.end(first, 1)
    _, taken = bench.take(second)
    assert len(taken.legs) == 1


def test_forks_and_ends_count_among_the_commits_in_flight_and_are_answered_by_what_they_asked_for(bench, monkeypatch):
    monkeypatch.setattr(transactions_machine, "COMMITS_IN_FLIGHT", 2)
    end, fork = EndAgent(A, (), {"run": "r"}), ForkAgent(B, ForkOf(A, 7))
    taken = [bench.machine.handle(message, lambda: bench.now_s) for message in (end, fork)]
    assert [transaction.legs for transaction in taken] == [
        [Leg(A, exclusive=AgentEnd())],
        [Leg(B, exclusive=ForkOf(A, 7))],
    ]
    assert taken[0].metadata == metadata_fields({"run": "r"})
    for message in (EndAgent(A, (), {}), ForkAgent(B, ForkOf(A, None))):
        with pytest.raises(OverloadedError):
            bench.handle(message)
    found = FoundFork(ForkNote(B, A, 7, Inherited(1, 7, 3, 3, 2)), 4)
    for transaction, committed in zip(taken, (Committed(8, "t", ()), Committed(9, "t", (), fork=found)), strict=True):
        bench.machine.handle(Ended(transaction.txn_id, Reply.of(committed)), lambda: bench.now_s)
    assert end.reply.result() == EndedAgent(8, 0)
    assert fork.reply.result() == Forked(9, 7, 4)
    assert bench.machine.committing == 0


def test_the_memory_of_ended_transactions_is_bounded_and_forgets_the_oldest(bench, monkeypatch):
    monkeypatch.setattr(recent_ends, "ENDED_TRANSACTIONS", 3)
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
