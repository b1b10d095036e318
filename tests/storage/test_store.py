"""The log and the view as one: what a commit leaves behind when something fails, and what reads say."""

import errno
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest
from storage.fix_store import ALICE, BOB, CAROL, FULL, Writer, all_events, judge, rows_of, value

from statehouse.errors import DiskFullError, LogPoisonedError, OverloadedError, StorageError, StoreDamagedError
from statehouse.limits import READ_CHUNK_EVENTS, VALUE_INLINE_BYTES
from statehouse.storage import agent_events, keys, listing
from statehouse.storage.lineage import NO_END, Level
from statehouse.storage.section import walk_section
from statehouse.storage.store import ViewAwayError
from statehouse.storage.taken_back import TakenBackNote
from statehouse.storage.view import ViewDamagedError, ViewUnavailableError, ViewWriteError
from statehouse.storage.view_home import LevelDBHome
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import GetStateResponse, StateEntry

ENOSPC = OSError(errno.ENOSPC, "no space")
EIO = OSError(errno.EIO, "input/output error")
SEGMENT = "log/00000000000000000001.log"


@pytest.fixture
def writer(store_bench):
    """A writer on a store with a few commits."""
    writer = Writer(store_bench.store())
    writer.commit((ALICE, b"k", value(20)), (BOB, b"k", value(300)))
    writer.commit((ALICE, b"k", None))
    return writer


def reopened(bench, writer):
    """The store, closed and opened again, judged."""
    bench.close()
    writer.store = bench.store()
    judge(writer.store, writer.history)
    return writer.store


# Reads


def test_what_was_never_written_is_the_empty_answer(writer):
    store = writer.store
    assert store.get_state(ALICE, b"never") == store.get_state(CAROL, b"k") == b""
    assert store.get_state_at_version(ALICE, b"k", 3) == store.get_state_at_version(ALICE, b"k", 0) == b""
    assert store.get_state_at_version(ALICE, b"k", 2**64 - 1) == b""
    assert store.list_keys(CAROL) == store.scan_prefix(CAROL, b"") == []
    assert store.events(CAROL, 0, 2**64 - 1).events == []
    assert store.committed_ts("never") is None


def test_reads_say_what_was_committed(writer):
    judge(writer.store, writer.history)
    tombstone = GetStateResponse.FromString(writer.store.get_state(ALICE, b"k"))
    assert (tombstone.exists, tombstone.version, tombstone.commit_ts, tombstone.HasField("value")) == (
        False, 2, 2, False,
    )  # fmt: skip


@pytest.mark.parametrize("size", [VALUE_INLINE_BYTES - 1, VALUE_INLINE_BYTES, VALUE_INLINE_BYTES + 1, 100_000])
def test_values_around_the_inline_limit_read_alike(store_bench, writer, size):
    writer.commit((ALICE, b"edge", value(size)))
    judge(writer.store, writer.history)
    reopened(store_bench, writer)


def test_names_that_are_near_each_other_never_meet(writer):
    pairs = [("a:b", "c"), ("a", "b:c"), ("a\x00", "b"), ("a", "\x00b"), ("", "ab"), ("a", "b"), ("ab", "")]
    agents = [AgentId(namespace, agent_id) for namespace, agent_id in pairs if agent_id]
    for number, agent in enumerate(agents):
        writer.commit((agent, b"k", value(30, number)), (agent, b"k\x00", value(30, number)))
    judge(writer.store, writer.history)


def test_a_prefix_scan_is_in_byte_order_and_live_only(writer):
    names = ["a", "a/", "a/1", "a/\N{SNOWMAN}", "a/\x00", "a0", "b", "a/\uffff", "a/\U0010ffff"]
    writer.commit(*((ALICE, name.encode(), value(30, index)) for index, name in enumerate(names)))
    writer.commit((ALICE, b"a/1", None))
    expected = sorted(name.encode() for name in names if name.startswith("a/") and name != "a/1")
    entries = [StateEntry.FromString(found) for found in writer.store.scan_prefix(ALICE, b"a/")]
    assert [entry.key.encode() for entry in entries] == expected


def test_an_answer_over_the_limit_is_refused_and_says_so(writer, monkeypatch):
    monkeypatch.setattr(listing, "RESPONSE_BYTES", 1_000)
    writer.commit(*((ALICE, b"key-%d" % number, value(200)) for number in range(4)))
    assert len(writer.store.scan_prefix(ALICE, b"")) == 4
    writer.commit((ALICE, b"key-5", value(300)))
    with pytest.raises(OverloadedError, match="narrower prefix") as caught:
        writer.store.scan_prefix(ALICE, b"")
    assert caught.value.details == {"limit": "1000"}
    assert len(writer.store.scan_prefix(ALICE, b"key-5")) == 1
    assert len(writer.store.list_keys(ALICE)) == 5
    writer.commit(*((ALICE, b"%0100d" % number, value(10)) for number in range(10)))
    with pytest.raises(OverloadedError):
        writer.store.list_keys(ALICE)


# Replay chunks


@pytest.mark.parametrize("count", [READ_CHUNK_EVENTS - 1, READ_CHUNK_EVENTS, READ_CHUNK_EVENTS + 1])
def test_events_come_in_chunks_of_so_many(store_bench, count):
    writer = Writer(store_bench.store())
    for start in range(0, count, 256):
        writer.commit_group(*(writer.txn((ALICE, b"k", None)) for _ in range(min(256, count - start))))
    chunk = writer.store.events(ALICE, 0, count)
    assert len(chunk.events) == min(count, READ_CHUNK_EVENTS)
    assert chunk.next_ts == (None if count < READ_CHUNK_EVENTS else READ_CHUNK_EVENTS + 1)
    assert [walk_section(event).commit_ts for event in all_events(writer.store, ALICE)] == list(range(1, count + 1))


def test_events_come_in_chunks_of_so_many_bytes(store_bench, monkeypatch):
    monkeypatch.setattr(agent_events, "READ_CHUNK_BYTES", 1_000)
    writer = Writer(store_bench.store())
    for number in range(10):
        writer.commit((ALICE, b"k", value(400, number)))
        writer.commit((BOB, b"k", value(400, number)))
    chunk = writer.store.events(ALICE, 0, 100)
    assert 2 <= len(chunk.events) <= 3
    assert chunk.next_ts == 2 * len(chunk.events)
    judge(writer.store, writer.history)


@pytest.mark.parametrize(("first", "last"), [(0, 4), (1, 4), (2, 3), (3, 3), (2, 2), (4, 3), (5, 9), (0, 2**64 - 1)])
def test_ranges_of_events_include_both_ends(store_bench, first, last):
    writer = Writer(store_bench.store())
    for agent in (ALICE, BOB, ALICE, ALICE):
        writer.commit((agent, b"k", value()))
    found = [walk_section(event).commit_ts for event in writer.store.events(ALICE, first, last).events]
    assert found == [ts for ts in (1, 3, 4) if first <= ts <= last]


# Outcomes


def test_outcomes_are_found_across_a_restart_and_forgotten_after_the_window(store_bench, monkeypatch):
    monkeypatch.setattr(keys, "OUTCOME_BUCKET_COMMITS", 4)
    monkeypatch.setattr(keys, "OUTCOME_BUCKETS", 2)
    writer = Writer(store_bench.store())
    for _ in range(14):
        writer.commit()
    for _ in range(2):
        known = {txn.commit_ts: writer.store.committed_ts(txn.txn_id) for txn in writer.history}
        assert known == {ts: (ts if ts >= 8 else None) for ts in range(1, 15)}
        store_bench.close()
        writer.store = store_bench.store()


# The disk is full


@pytest.mark.parametrize("partial_bytes", [0, 1, 40, 200])
def test_a_full_disk_at_the_append_undoes_the_group_and_the_next_one_counts_on(store_bench, writer, partial_bytes):
    before, log = rows_of(writer.store), store_bench.log_content()
    store_bench.disk.fail_next("write", ENOSPC, partial_bytes=partial_bytes)
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value(200)))
    assert rows_of(writer.store) == before
    assert store_bench.log_content() == log
    assert writer.commit((ALICE, b"k", value(200))) == 3
    judge(writer.store, writer.history)
    reopened(store_bench, writer)


def test_a_log_that_may_not_grow_refuses_commits_and_serves_reads(store_bench):
    writer = Writer(store_bench.store(max_bytes=2_000))
    for _ in range(5):
        writer.commit((ALICE, b"k", value(250)))
    with pytest.raises(DiskFullError, match="2000"):
        writer.commit((ALICE, b"k", value(250)))
    judge(writer.store, writer.history)
    reopened(store_bench, writer)


def test_a_view_without_room_undoes_the_group_and_is_opened_anew_for_the_next(store_bench, writer):
    before, log = rows_of(writer.store), store_bench.log_content()
    store_bench.home.fail_next_batch(FULL)
    with pytest.raises(DiskFullError, match="nothing of the commit"):
        writer.commit((ALICE, b"k", value()))
    assert rows_of(writer.store) == before  # readable meanwhile
    assert store_bench.log_content() == log
    judge(writer.store, writer.history)
    assert writer.commit((ALICE, b"k", value())) == 3
    judge(writer.store, writer.history)
    assert store_bench.home.aside == []
    reopened(store_bench, writer)


def test_a_view_that_is_ahead_of_the_rolled_back_log_is_rebuilt(store_bench, writer):
    store_bench.home.fail_next_batch(FULL, is_written=True)
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value(50, "failed")))
    judge(writer.store, writer.history)
    assert writer.commit((ALICE, b"k", value(50, "stands"))) == 3
    assert len(store_bench.home.aside) == 1
    judge(writer.store, writer.history)
    reopened(store_bench, writer)


@pytest.mark.parametrize("power_is_lost", [False, True])
@pytest.mark.parametrize("commits", [1, 3])
def test_a_group_that_was_taken_back_and_is_in_the_view_is_not_taken_for_lost_commits(
    store_bench, writer, commits, power_is_lost
):
    """Found by tools/proof_syscalls.py: the daemon ended before the view was opened anew, and did not start again."""
    store_bench.home.fail_next_batch(FULL, is_written=True)
    store_bench.home.write_error = FULL
    with pytest.raises(DiskFullError):
        writer.commit_group(*[writer.txn((ALICE, b"k", value())) for _ in range(commits)])
    if power_is_lost:
        store_bench.disk = store_bench.disk.crash(random.Random(1))
    store_bench.home.write_error = None
    opened = store_bench.open()
    assert opened.recovery.source == "log"
    assert ["taken back" in reason for reason in store_bench.reports.set_aside] == [True]
    judge(opened.store, writer.history)
    writer.store = opened.store
    assert writer.commit((ALICE, b"k", value())) == len(writer.history)
    assert store_bench.open().recovery.source == "view"  # the note is of a group that nobody has any more


def test_a_full_disk_has_room_for_the_note(store_bench, writer):
    store_bench.home.fail_next_batch(FULL, is_written=True)
    store_bench.disk.capacity_bytes = 0
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value()))
    store_bench.disk.capacity_bytes = None
    judge(store_bench.open().store, writer.history)


@pytest.mark.parametrize("operation", ["open", "write", "sync"])
def test_what_cannot_be_noted_is_not_taken_back(store_bench, writer, operation):
    """The log keeps the group, and takes no more: a next start must not take the view for a witness of lost commits."""
    store_bench.home.fail_next_batch(FULL, is_written=True)
    store_bench.home.write_error = FULL
    store_bench.disk.fail_next(operation, EIO, path="log/taken-back")
    with pytest.raises(LogPoisonedError):
        writer.commit((ALICE, b"k", value(50, "unknown")))
    store_bench.home.write_error = None
    opened = store_bench.open()
    assert opened.store.head_ts == len(writer.history) + 1


def test_a_group_that_was_noted_and_is_in_the_log_after_all_stands(store_bench, writer):
    """As after a crash between the note and the zeros over the group."""
    before = writer.store.head
    writer.commit((ALICE, b"k", value(50, "noted")))
    TakenBackNote(store_bench.disk, "log").write(writer.store.head, before)
    store_bench.close()
    for _ in range(2):
        opened = store_bench.open()
        assert (opened.recovery.source, store_bench.reports.set_aside) == ("view", [])
        judge(opened.store, writer.history)
        store_bench.close()


def test_a_view_with_a_group_that_was_taken_back_still_bears_witness_to_the_commits_before(store_bench, writer):
    """Found in review: without it, a flipped bit in the last record that was answered was cut as a torn tail."""
    end = writer.store.log_bytes
    store_bench.home.fail_next_batch(FULL, is_written=True)
    store_bench.home.write_error = FULL
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value()))
    store_bench.close()
    store_bench.disk.flip_bit(SEGMENT, end - 1)
    store_bench.home.write_error = None
    for _ in range(2):
        with pytest.raises(StoreDamagedError, match=f"commit_ts {len(writer.history)}"):
            store_bench.open()
        assert store_bench.home.aside == []  # nothing was changed


def test_a_view_is_closed_only_when_it_can_be_opened_again(store_bench, writer):
    """Found by tools/proof_syscalls.py: on a disk that took no writes any more, a view that could be read was lost."""
    store_bench.home.fail_next_batch(FULL, is_written=True)
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value()))
    store_bench.home.write_error = FULL
    for _ in range(2):
        with pytest.raises(DiskFullError):
            writer.commit((ALICE, b"k", value()))
        with pytest.raises(DiskFullError):
            writer.store.mend_view()
        judge(writer.store, writer.history)
    store_bench.home.write_error = None
    writer.store.mend_view()
    assert writer.commit((ALICE, b"k", value())) == len(writer.history)
    judge(writer.store, writer.history)


def test_a_folder_that_takes_no_writes_is_found_out_and_left_as_it_was(tmp_path):
    home = LevelDBHome(tmp_path / "state")
    home.check_writable()  # there is nothing that could be lost
    home.make().close()
    before = sorted((tmp_path / "state").iterdir())
    home.check_writable()
    assert sorted((tmp_path / "state").iterdir()) == before
    (tmp_path / "state" / "PROBE.tmp").mkdir()
    with pytest.raises(ViewWriteError, match="takes no writes") as refused:
        home.check_writable()
    assert not refused.value.full


def test_a_view_that_stays_full_fails_each_commit_and_nothing_else(store_bench, writer):
    store_bench.home.fail_next_batch(FULL)
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value()))
    store_bench.home.find_error = ViewUnavailableError("no space left on device")
    for _ in range(3):
        with pytest.raises(StorageError, match="nothing of the commit"):
            writer.commit((ALICE, b"k", value()))
        with pytest.raises(StorageError, match="at the moment"):
            writer.store.get_state(ALICE, b"k")
        with pytest.raises(StorageError):
            writer.store.mend_view()
        assert writer.store.view_failed
    store_bench.home.find_error = None
    writer.store.mend_view()
    assert not writer.store.view_failed
    judge(writer.store, writer.history)
    writer.store.mend_view()  # nothing to do
    assert writer.commit((ALICE, b"k", value())) == 3
    judge(writer.store, writer.history)


@pytest.mark.parametrize("opens", [True, False])
def test_while_a_view_is_opened_anew_reads_wait_and_commits_have_not_happened(store_bench, writer, monkeypatch, opens):
    """Found by tools/proof_disk_full.py: they were told of a bug, at the moment at which there was room again."""
    store_bench.home.fail_next_batch(FULL)
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value()))
    before = {
        read: read()
        for read in (
            partial(writer.store.get_state, BOB, b"k"),
            partial(writer.store.scan_prefix, BOB, b""),
            partial(writer.store.list_keys, ALICE),
            partial(writer.store.events, BOB, 0, 9),
        )
    }
    is_closed, may_open, find = Event(), Event(), type(store_bench.home).find

    def slow_find(home):
        is_closed.set()
        may_open.wait()
        return find(home)

    monkeypatch.setattr(type(store_bench.home), "find", slow_find)
    with ThreadPoolExecutor() as threads:
        mended = threads.submit(writer.store.mend_view)
        is_closed.wait()
        for read in before:
            with pytest.raises(ViewAwayError):
                read()
        prefix = keys.agent_prefix(ALICE)
        for needed in (
            partial(writer.store.levels, ALICE),
            partial(writer.store.stored, (Level(prefix, NO_END),), b"k"),
            partial(writer.store.counters, prefix),
            partial(writer.store.forking, ALICE, 1),
            partial(writer.store.ended_ts, prefix),
            partial(writer.store.live_keys, ALICE, 1, 999),
        ):
            with pytest.raises(DiskFullError, match="nothing of the commit was done"):
                needed()
        waiting = [threads.submit(writer.store.patiently, read) for read in before]
        if not opens:
            store_bench.home.find_error = ViewUnavailableError("no space left on device")
        may_open.set()
        if opens:
            assert [each.result() for each in waiting] == list(before.values())
            mended.result()
        else:
            for each in (mended, *waiting):
                assert isinstance(each.exception(), StorageError)
    store_bench.home.find_error = None
    assert writer.commit((ALICE, b"k", value())) == 3
    judge(writer.store, writer.history)


def test_without_room_to_open_it_anew_a_failed_view_can_still_be_read(store_bench, writer, monkeypatch):
    store_bench.home.fail_next_batch(FULL)
    with pytest.raises(DiskFullError):
        writer.commit((ALICE, b"k", value()))
    with monkeypatch.context() as full:
        full.setattr(store_bench.disk, "free_bytes", lambda _: 1_000_000)
        for _ in range(3):
            with pytest.raises(DiskFullError):
                writer.commit((ALICE, b"k", value()))
            judge(writer.store, writer.history)
    assert writer.commit((ALICE, b"k", value())) == 3
    judge(writer.store, writer.history)


def test_any_other_failure_of_the_view_is_a_storage_error(store_bench, writer):
    store_bench.home.fail_next_batch(ViewWriteError("broken"))
    with pytest.raises(StorageError) as caught:
        writer.commit((ALICE, b"k", value()))
    assert not isinstance(caught.value, DiskFullError)
    assert not store_bench.home.condemned
    assert writer.commit() == 3


def test_a_batch_that_the_view_refuses_for_its_own_damage_has_it_rebuilt(store_bench, writer):
    store_bench.home.fail_next_batch(ViewWriteError("corruption: block checksum", damaged=True))
    with pytest.raises(StorageError):
        writer.commit((ALICE, b"k", value()))
    assert writer.commit((ALICE, b"k", value())) == 3
    assert len(store_bench.home.aside) == 1
    judge(writer.store, writer.history)


@pytest.mark.parametrize("seed", range(10))
def test_random_failures_of_the_view_lose_nothing_and_leave_no_gap(store_bench, seed):
    rng = random.Random(seed)
    writer = Writer(store_bench.store())
    failures = 0
    for _ in range(60):
        if rng.random() < 0.3:
            error = rng.choice((FULL, ViewWriteError("broken"), ViewWriteError("corrupt", damaged=True)))
            store_bench.home.fail_next_batch(error, is_written=rng.random() < 0.5)
            with pytest.raises(StorageError):
                writer.commit_randomly(rng, 1)
            store_bench.home.fault = None
            failures += 1
        else:
            writer.commit_randomly(rng, rng.randint(1, 6))
    assert failures
    judge(writer.store, writer.history)
    live = rows_of(writer.store)
    store_bench.close()
    store_bench.home.set_aside()
    assert rows_of(store_bench.store()) == live


def test_outcomes_that_cannot_be_forgotten_do_not_fail_the_commit(store_bench, monkeypatch):
    monkeypatch.setattr(keys, "OUTCOME_BUCKET_COMMITS", 1)
    monkeypatch.setattr(keys, "OUTCOME_BUCKETS", 1)
    writer = Writer(store_bench.store())
    writer.commit()
    view = writer.store._view
    applied = view.apply

    def apply(writes):
        applied(writes)
        store_bench.home.fail_next_batch()

    monkeypatch.setattr(view, "apply", apply)
    assert writer.commit((ALICE, b"k", value())) == 2
    assert writer.commit((ALICE, b"k", value())) == 3  # with a view that was opened anew
    assert writer.store._view is not view
    known = [writer.store.committed_ts(txn.txn_id) for txn in writer.history]
    assert known == [None, None, 3]


# The log is poisoned


def test_a_failed_sync_is_never_answered_and_ends_all_commits(store_bench, writer):
    before = rows_of(writer.store)
    store_bench.disk.fail_next("sync", EIO, path=SEGMENT)
    with pytest.raises(LogPoisonedError):
        writer.commit((ALICE, b"k", value()))
    assert rows_of(writer.store) == before
    assert writer.store.head_ts == 2
    syncs = store_bench.disk.operations["sync"]
    with pytest.raises(LogPoisonedError):
        writer.commit((ALICE, b"k", value()))
    assert store_bench.disk.operations["sync"] == syncs  # never tried again
    judge(writer.store, writer.history)


def test_a_group_that_cannot_be_rolled_back_poisons_the_log(store_bench, writer):
    store_bench.home.fail_next_batch()
    store_bench.disk.fail_next("sync", EIO, after=1, path=SEGMENT)
    with pytest.raises(LogPoisonedError):
        writer.commit((ALICE, b"k", value()))
    assert not writer.store.view_failed  # it is not opened anew: what the log has besides is unknown
    writer.store.mend_view()
    judge(writer.store, writer.history)


def test_a_bug_while_the_view_is_written_rolls_the_group_back(store_bench, writer, monkeypatch):
    log = store_bench.log_content()
    group, _ = writer.group([writer.txn((ALICE, b"k", value()))])
    monkeypatch.setattr(group, "view_writes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        writer.store.commit(group)
    assert store_bench.log_content() == log
    assert writer.commit() == 3


# Damage that is found while serving


def test_a_damaged_value_in_the_log_is_named_and_not_returned(store_bench, writer):
    segment = store_bench.log_content()["00000000000000000001.log"]
    at = segment.index(value(300)) + 100
    store_bench.disk.flip_bit(SEGMENT, at)
    for read in (
        lambda: writer.store.get_state(BOB, b"k"),
        lambda: writer.store.get_state_at_version(BOB, b"k", 1),
        lambda: writer.store.scan_prefix(BOB, b""),
        lambda: writer.store.events(BOB, 0, 9),
    ):
        with pytest.raises(StoreDamagedError) as caught:
            read()
        assert "00000000000000000001.log" in caught.value.message
        assert "commit_ts 1" in caught.value.message
    assert not store_bench.home.condemned  # the log is damaged, not the view


def test_damage_of_the_view_that_a_read_finds_has_it_rebuilt_at_the_next_open(store_bench, writer, monkeypatch):
    def damaged(*_):
        raise ViewDamagedError("block checksum mismatch")

    with monkeypatch.context() as failing:
        for name in ("get", "scan", "snapshot"):
            failing.setattr(writer.store._view, name, damaged)
        for read in (
            lambda: writer.store.get_state(ALICE, b"k"),
            lambda: writer.store.list_keys(ALICE),
            lambda: writer.store.events(ALICE, 0, 9),
            lambda: writer.store.committed_ts("t"),
            writer.store.view_snapshot,
        ):
            store_bench.home.condemned = False
            with pytest.raises(StorageError, match="restart the daemon, which rebuilds it"):
                read()
            assert store_bench.home.condemned
    reopened(store_bench, writer)
    assert len(store_bench.home.aside) == 1


def test_after_close_nothing_is_read(writer):
    writer.store.close()
    with pytest.raises(StorageError):
        writer.store.get_state(ALICE, b"k")
