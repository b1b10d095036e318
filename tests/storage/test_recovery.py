"""Opening a store: whatever was lost or damaged, the same state afterwards, or a refusal that says why."""

import errno
import random
import shutil

import pytest
from storage.fix_store import (
    ALICE,
    BOB,
    FULL,
    STORE_ID,
    FailingHome,
    StoreBench,
    Writer,
    judge,
    rows_of,
    value,
)

from statehouse.errors import DiskFullError, LogPoisonedError, NewerFormatError, StorageError, StoreDamagedError
from statehouse.storage import folding, keys, recovery, snapshot_keeper
from statehouse.storage.keys import WATERMARK_KEY
from statehouse.storage.simdisk import SimulatedFile
from statehouse.storage.snapshots import list_snapshots, snapshot_commit_ts
from statehouse.storage.v1.log_pb2 import Watermark
from statehouse.storage.view import ViewDamagedError, ViewUnavailableError, ViewWriteError

EIO = OSError(errno.EIO, "input/output error")
ENOSPC = OSError(errno.ENOSPC, "no space")
SEGMENT = "log/00000000000000000001.log"


def written(bench, seed=0, transactions=30, **settings):
    """A store with a random history, closed: the history and the rows of its view."""
    opened = bench.open(**settings)
    writer = Writer(opened.store)
    writer.commit_randomly(random.Random(seed), transactions)
    rows = rows_of(opened.store)
    bench.close()
    return writer.history, rows


def with_watermark(home, **changes):
    """Change the watermark in the newest batch of a view."""
    batch = dict(home.batches[-1])
    found = Watermark.FromString(batch[WATERMARK_KEY])
    for name, changed in changes.items():
        setattr(found, name, changed)
    home.batches[-1] = [*batch.items(), (WATERMARK_KEY, found.SerializeToString())]


# The view is behind, missing, or not ours


def test_a_new_store_is_empty_and_is_itself_when_it_is_opened_again(store_bench):
    for source in ("log", "view", "view"):
        opened = store_bench.open()
        assert (opened.recovery.source, opened.recovery.head_ts, opened.recovery.applied) == (source, 0, 0)
        assert (opened.store.head_ts, opened.store.head_time_ns, opened.store.store_id) == (0, 0, STORE_ID)
        assert store_bench.reports.set_aside == []
        store_bench.close()


def test_a_view_that_is_up_to_date_is_used_as_it_is(store_bench):
    history, rows = written(store_bench)
    opened = store_bench.open()
    assert (opened.recovery.source, opened.recovery.head_ts, opened.recovery.applied) == ("view", 30, 0)
    assert rows_of(opened.store) == rows
    assert opened.store.head_time_ns == history[-1].time_ns
    judge(opened.store, history)


def test_a_view_that_is_missing_is_rebuilt_from_the_log(store_bench):
    history, rows = written(store_bench)
    store_bench.home.batches = None
    opened = store_bench.open()
    assert (opened.recovery.source, opened.recovery.applied) == ("log", 30)
    assert rows_of(opened.store) == rows
    assert opened.store.head_time_ns == history[-1].time_ns


def test_progress_is_told(store_bench, monkeypatch):
    monkeypatch.setattr(recovery, "PROGRESS_RECORDS", 10)
    written(store_bench)
    store_bench.home.batches = None
    store_bench.open()
    assert store_bench.reports.progressed == [(10, 10), (20, 20), (30, 30)]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_view_without_a_watermark_is_set_aside(store_bench, kept):
    _history, rows = written(store_bench)
    store_bench.home.batches = [[(b"\x02stray", b"x")]][:kept]
    opened = store_bench.open()
    assert opened.recovery.source == "log"
    assert store_bench.reports.set_aside == ["the view has no watermark"]
    assert rows_of(opened.store) == rows


def test_a_view_of_another_history_is_set_aside(store_bench):
    history, rows = written(store_bench)
    other = StoreBench()
    written(other, seed=1, transactions=20)
    store_bench.home.batches = other.home.batches
    opened = store_bench.open()
    assert opened.recovery.source == "log"
    assert "another commit 20" in store_bench.reports.set_aside[0]
    assert rows_of(opened.store) == rows
    judge(opened.store, history)


def test_a_view_that_is_ahead_of_the_log_is_refused(store_bench):
    _, _ = written(store_bench)
    before = store_bench.log_content()
    other = StoreBench()
    written(other, transactions=31)
    store_bench.home.batches = other.home.batches
    with pytest.raises(StoreDamagedError, match="ends at commit_ts 30, and the view has 31") as caught:
        store_bench.open()
    assert "restore a copy of the folder `log`" in caught.value.message
    assert store_bench.home.aside == []
    assert store_bench.log_content() == before
    store_bench.home.set_aside()  # the other thing that the message names
    assert store_bench.store().head_ts == 30


def test_without_fsync_a_view_that_is_ahead_of_the_log_is_set_aside_and_said_to_be(store_bench):
    history, rows = written(store_bench)
    other = StoreBench()
    written(other, transactions=32)
    store_bench.home.batches = ahead = other.home.batches
    opened = store_bench.open(fsync=False)
    assert (opened.recovery.source, opened.recovery.head_ts) == ("log", 30)
    (said,) = store_bench.reports.set_aside
    assert "commits 31 to 32 are lost, as may happen when power is lost without fsync" in said
    assert store_bench.home.aside == [ahead]
    assert rows_of(opened.store) == rows
    judge(opened.store, history)
    Writer(opened.store, history).commit((ALICE, b"k", value()))
    judge(opened.store, history)


def test_without_fsync_a_snapshot_that_is_ahead_of_the_log_is_passed_over_too(store_bench):
    store_bench.segment_bytes = 64 * 1024  # all of it stays in one
    opened = store_bench.open(fsync=False, snapshot_interval=1)
    writer = Writer(opened.store)
    writer.commit_randomly(random.Random(0), 20)
    before = store_bench.log_content()
    writer.commit_randomly(random.Random(1), 20)
    opened.snapshots.write()
    store_bench.close()
    for name, content in before.items():
        store_bench.disk.open(f"log/{name}").write_at(0, content)
    opened = store_bench.open(fsync=False)
    assert (opened.recovery.source, opened.recovery.head_ts) == ("log", 20)
    assert len(store_bench.reports.set_aside) == 2
    judge(opened.store, writer.history[:20])
    store_bench.close()
    assert store_bench.store(fsync=True).head_ts == 20  # it is no witness against the log any more


@pytest.mark.parametrize("fsync", [True, False])
def test_a_flipped_byte_below_the_views_watermark_is_no_loss_of_power(store_bench, fsync):
    opened = store_bench.open(fsync=False)
    writer = Writer(opened.store)
    for number in range(5):
        writer.commit((ALICE, b"k", value(700, number)))
    store_bench.close()
    content = store_bench.log_content()[SEGMENT.rpartition("/")[2]]
    store_bench.disk.flip_bit(SEGMENT, content.index(b"x" * 100))
    with pytest.raises(StoreDamagedError, match="the view has all commits up to 5"):
        store_bench.open(fsync=fsync)
    assert store_bench.home.aside == []


def test_a_log_that_is_gone_is_refused_while_the_view_has_commits(store_bench):
    written(store_bench)
    store_bench.disk.remove(SEGMENT)
    for name in list(store_bench.log_content()):
        store_bench.disk.remove(f"log/{name}")
    with pytest.raises(StoreDamagedError, match="records are missing"):
        store_bench.open()
    assert store_bench.log_content() == {}


def test_an_empty_view_of_another_store_is_set_aside(store_bench):
    store_bench.store()
    store_bench.close()
    with_watermark(store_bench.home, chain=b"x" * 32)
    assert store_bench.open().recovery.source == "log"
    assert len(store_bench.home.aside) == 1


# The view is damaged


def test_a_view_that_cannot_be_opened_is_set_aside(store_bench):
    _history, rows = written(store_bench)
    store_bench.home.find_error = ViewDamagedError("CURRENT is missing")
    opened = store_bench.open()
    assert opened.recovery.source == "log"
    assert store_bench.reports.set_aside == ["CURRENT is missing"]
    assert rows_of(opened.store) == rows


def test_a_watermark_that_cannot_be_read_has_the_view_set_aside(store_bench, monkeypatch):
    _history, rows = written(store_bench)

    def damaged(_):
        raise ViewDamagedError("block checksum mismatch")

    find = FailingHome.find

    def find_damaged(home):
        view = find(home)
        view.get = damaged
        return view

    monkeypatch.setattr(FailingHome, "find", find_damaged)
    opened = store_bench.open()
    assert opened.recovery.source == "log"
    assert store_bench.reports.set_aside == ["block checksum mismatch"]
    assert rows_of(opened.store) == rows


def test_a_watermark_that_is_none_has_the_view_set_aside(store_bench):
    _history, rows = written(store_bench)
    store_bench.home.batches[-1] = [(WATERMARK_KEY, b"\xff\xff\xff")]
    opened = store_bench.open()
    assert opened.recovery.source == "log"
    assert rows_of(opened.store) == rows


def test_a_view_that_is_found_damaged_while_it_catches_up_is_set_aside(store_bench):
    history, rows = written(store_bench)
    store_bench.home.batches = store_bench.home.batches[:5]
    store_bench.home.fail_next_batch(ViewWriteError("corruption", damaged=True))
    opened = store_bench.open()
    assert opened.recovery.source == "log"
    assert rows_of(opened.store) == rows
    Writer(opened.store, history).commit((ALICE, b"k", value()))  # one log is open, and it is the store's


def test_data_of_a_newer_format_is_refused_and_left_alone(store_bench):
    written(store_bench)
    with_watermark(store_bench.home, format_version=3)
    with pytest.raises(NewerFormatError, match=r"format 3, this one reads 2"):
        store_bench.open()
    assert store_bench.home.aside == []


# Of an older format


def made_older(bench):
    """Make the view one of format 1: its watermark says so, and its event rows have no counts."""

    def older(key, stored):
        if key == WATERMARK_KEY:
            found = Watermark.FromString(stored)
            found.format_version = 1
            return found.SerializeToString()
        is_event = stored is not None and key[:1] == keys.AGENT and key[-9:-8] == b"e" and len(stored) == 36
        return stored[:12] if is_event else stored

    bench.home.batches = [[(key, older(key, stored)) for key, stored in batch] for batch in bench.home.batches]


def older_store(bench, monkeypatch):
    """A store with two snapshots, as a Statehouse of format 1 left it: the history, and the rows of today's view."""
    with monkeypatch.context() as before:
        before.setattr(snapshot_keeper, "FORMAT_VERSION", 1)
        history, rows = with_snapshots(bench)
    made_older(bench)
    return history, rows


def test_a_store_of_an_older_format_is_rebuilt_from_its_log_and_loses_nothing(store_bench, monkeypatch):
    history, rows = older_store(store_bench, monkeypatch)
    log, view = store_bench.log_content(), store_bench.home.batches
    newest, older = list_snapshots(store_bench.disk, "snapshots")
    opened = store_bench.open(snapshot_interval=1, snapshots_keep=1)
    assert (opened.recovery.source, opened.recovery.applied) == ("log", 50)
    assert store_bench.reports.set_aside == [
        "the view is of format 1, and this version uses 2: it is made anew from the log",
        f"snapshot {newest} is of format 1, and this version uses 2",
        f"snapshot {older} is of format 1, and this version uses 2",
    ]
    assert store_bench.home.aside[0] == view
    assert rows_of(opened.store) == rows
    judge(opened.store, history)
    Writer(opened.store, history).commit((ALICE, b"k", value()))
    judge(opened.store, history)
    assert {
        name: content[: len(log[name].rstrip(bytes(1)))] for name, content in store_bench.log_content().items()
    } == {name: content.rstrip(bytes(1)) for name, content in log.items()}
    opened.snapshots.write()
    (kept,) = list_snapshots(store_bench.disk, "snapshots")
    assert snapshot_commit_ts(kept) == 51
    store_bench.close()
    opened = store_bench.open()
    assert (opened.recovery.source, store_bench.reports.set_aside) == ("view", [])


def test_a_newer_snapshot_of_this_format_serves_a_view_of_an_older_one(store_bench):
    history, rows = with_snapshots(store_bench)
    made_older(store_bench)
    opened = store_bench.open()
    assert (opened.recovery.source, opened.recovery.applied) == ("snapshot", 10)
    assert rows_of(opened.store) == rows
    judge(opened.store, history)


def test_an_empty_store_of_an_older_format_is_opened(store_bench):
    store_bench.store()
    store_bench.close()
    made_older(store_bench)
    assert store_bench.open().recovery.source == "log"
    store_bench.close()
    assert store_bench.open().recovery.source == "view"


@pytest.mark.parametrize("has_snapshots", [True, False])
def test_a_view_of_an_older_format_bears_witness_to_what_the_log_had(store_bench, monkeypatch, has_snapshots):
    if has_snapshots:
        older_store(store_bench, monkeypatch)
    else:
        written(store_bench, transactions=50)
        made_older(store_bench)
    *_, (name, content) = store_bench.log_content().items()
    store_bench.disk.flip_bit(f"log/{name}", len(content.rstrip(bytes(1))) - 3)
    before = store_bench.log_content()
    with pytest.raises(StoreDamagedError, match="the view has all commits up to 50"):
        store_bench.open()
    assert store_bench.home.aside == []
    assert store_bench.log_content() == before


# The disk refuses


@pytest.mark.parametrize(
    ("error", "raised"), [(FULL, DiskFullError), (ViewWriteError("broken"), StorageError)], ids=["full", "broken"]
)
def test_a_view_that_cannot_be_caught_up_is_a_refusal_and_is_tried_again_at_the_next_start(store_bench, error, raised):
    _history, rows = written(store_bench)
    store_bench.home.batches = store_bench.home.batches[:5]
    store_bench.home.fail_next_batch(error)
    with pytest.raises(raised) as caught:
        store_bench.open()
    assert type(caught.value) is raised
    assert rows_of(store_bench.store()) == rows
    assert store_bench.home.aside == []


def test_a_view_that_is_unavailable_is_a_refusal_and_not_set_aside(store_bench):
    _history, rows = written(store_bench)
    store_bench.home.find_error = ViewUnavailableError("permission denied")
    with pytest.raises(StorageError, match="permission denied"):
        store_bench.open()
    store_bench.home.find_error = None
    assert rows_of(store_bench.store()) == rows
    assert store_bench.home.aside == []


@pytest.mark.parametrize("operation", ["list_dir", "open", "read", "sync_dir"])
def test_a_disk_that_fails_at_the_start_is_a_refusal(store_bench, operation):
    _history, rows = written(store_bench)
    failures = 0
    for after in range(50):
        store_bench.disk.fail_next(operation, EIO, after=after)
        try:
            store_bench.open()
        except StorageError:
            failures += 1
        passed = not store_bench.disk._faults
        store_bench.disk.clear_faults()
        store_bench.close()
        if not passed:
            break
    assert failures
    assert rows_of(store_bench.store()) == rows


# Snapshots


def with_snapshots(bench, seed=0):
    """A store with two snapshots and commits after each: the history and the rows."""
    opened = bench.open(snapshot_interval=1)
    writer, rng = Writer(opened.store), random.Random(seed)
    for _ in range(2):
        writer.commit_randomly(rng, 20)
        opened.snapshots.write()
    writer.commit_randomly(rng, 10)
    rows = rows_of(opened.store)
    bench.close()
    return writer.history, rows


@pytest.mark.parametrize("seed", range(5))
def test_a_snapshot_and_the_log_after_it_give_the_same_rows(store_bench, seed):
    history, rows = with_snapshots(store_bench, seed)
    store_bench.home.batches = None
    opened = store_bench.open()
    assert (opened.recovery.source, opened.recovery.applied) == ("snapshot", 10)
    assert rows_of(opened.store) == rows
    judge(opened.store, history)


def test_a_damaged_snapshot_is_passed_over_for_the_next(store_bench):
    history, rows = with_snapshots(store_bench)
    newest, older = list_snapshots(store_bench.disk, "snapshots")
    store_bench.home.batches = None
    store_bench.disk.flip_bit(newest, 2_000)
    opened = store_bench.open()
    assert (opened.recovery.source, opened.recovery.applied) == ("snapshot", 30)
    assert newest in store_bench.reports.set_aside[0]
    assert rows_of(opened.store) == rows
    store_bench.close()

    store_bench.home.batches = None
    store_bench.disk.flip_bit(older, 2_000)
    opened = store_bench.open()
    assert (opened.recovery.source, opened.recovery.applied) == ("log", 50)
    assert rows_of(opened.store) == rows
    judge(opened.store, history)


@pytest.mark.parametrize("view_is_there", [True, False], ids=["view", "no view"])
@pytest.mark.parametrize("unreadable", ["file", "folder"])
def test_a_snapshot_that_cannot_be_read_keeps_no_store_from_opening(
    store_bench, monkeypatch, unreadable, view_is_there
):
    """Found in review: a snapshot is never needed, and nor is its place."""
    history, rows = with_snapshots(store_bench)
    newest, _ = list_snapshots(store_bench.disk, "snapshots")
    if unreadable == "folder":
        newest = f"snapshots/{99:020d}.snap"
        store_bench.disk.make_dir(newest)
    else:
        opened_as_before = store_bench.disk.open

        def open_or_fail(path, **how):
            if path == newest:
                raise OSError(errno.EIO, "input/output error", path)
            return opened_as_before(path, **how)

        monkeypatch.setattr(store_bench.disk, "open", open_or_fail)
    if not view_is_there:
        store_bench.home.set_aside()
    opened = store_bench.open(snapshot_interval=1)
    assert opened.recovery.source == ("view" if view_is_there else "snapshot")
    judge(opened.store, history)
    assert rows_of(opened.store) == rows


def test_the_last_commit_of_a_snapshot_is_never_taken_for_a_torn_tail(store_bench):
    """The view may be behind after power loss; the snapshot still proves that the commit was synced."""
    store_bench.segment_bytes = 1 << 20
    opened = store_bench.open(snapshot_interval=1)
    Writer(opened.store).commit_randomly(random.Random(0), 20)
    opened.snapshots.write()
    store_bench.close()
    store_bench.home.batches = store_bench.home.batches[:5]
    (name, content), *_ = store_bench.log_content().items()
    store_bench.disk.flip_bit(f"log/{name}", len(content.rstrip(bytes(1))) - 3)
    found = store_bench.log_content()
    with pytest.raises(StoreDamagedError, match="a snapshot has all commits up to 20"):
        store_bench.open()
    assert store_bench.log_content() == found
    assert store_bench.open(fsync=False).recovery.head_ts == 19


def test_a_log_that_ends_before_a_snapshot_is_refused(store_bench):
    with_snapshots(store_bench)
    for name in store_bench.log_content():
        store_bench.disk.remove(f"log/{name}")
    store_bench.home.batches = None
    for path in list_snapshots(store_bench.disk, "snapshots")[:1]:
        with pytest.raises(StoreDamagedError, match=r"the log ends at commit_ts 0, and .* has 40"):
            store_bench.open()
        assert store_bench.disk.exists(path)
    assert store_bench.log_content() == {}


def test_a_snapshot_of_another_store_is_passed_over(store_bench):
    _history, rows = written(store_bench)
    other = StoreBench()
    with_snapshots(other, seed=9)
    store_bench.disk.make_dir("snapshots")
    oldest = list_snapshots(other.disk, "snapshots")[-1]
    source, copy = other.disk.open(oldest), store_bench.disk.open(oldest, create=True)
    copy.write_at(0, source.read_at(0, source.size()))
    store_bench.home.batches = None
    opened = store_bench.open()
    assert opened.recovery.source == "log"
    assert rows_of(opened.store) == rows


@pytest.mark.parametrize("fsync", [True, False])
@pytest.mark.parametrize("whose", ["another store's", "its own, by another name"])
def test_a_snapshot_that_is_ahead_and_not_of_this_log_is_no_witness_against_it(store_bench, monkeypatch, whose, fsync):
    own = with_snapshots if whose.startswith("its own") else written
    _history, rows = own(store_bench)
    source = store_bench
    if own is written:
        source = StoreBench()
        monkeypatch.setattr("storage.fix_store.STORE_ID", b"another store 16")
        with_snapshots(source, seed=9)
        store_bench.disk.make_dir("snapshots")
    newest = list_snapshots(source.disk, "snapshots")[0]
    content = source.disk.open(newest)
    ahead = f"snapshots/{1_000:020d}.snap"
    store_bench.disk.open(ahead, create=True).write_at(0, content.read_at(0, content.size()))
    store_bench.home.batches = None
    opened = store_bench.open(fsync=fsync)
    assert rows_of(opened.store) == rows
    assert ahead not in list_snapshots(store_bench.disk, "snapshots")  # or none would be due before commit 1,000
    assert store_bench.disk.exists(f"{ahead}.ahead")


def test_a_disk_that_fills_up_while_a_snapshot_is_loaded_is_a_refusal(store_bench):
    _history, rows = with_snapshots(store_bench)
    store_bench.home.batches = None
    store_bench.home.fail_next_batch(FULL)
    with pytest.raises(DiskFullError):
        store_bench.open()
    opened = store_bench.open()  # what was loaded has no watermark, and is not taken for a view
    assert opened.recovery.source == "snapshot"
    assert rows_of(opened.store) == rows


# Power loss


@pytest.mark.parametrize("seed", range(60))
def test_after_power_loss_nothing_answered_is_lost_and_nothing_is_partial(seed, monkeypatch):
    monkeypatch.setattr(folding, "BATCH_WRITES", 20)
    rng = random.Random(seed)
    bench = StoreBench(segment_bytes=rng.choice((1_500, 4_096, 20_000)))
    history = []
    for _ in range(rng.randint(1, 4)):
        opened = bench.open(snapshot_interval=1)
        history = settled(opened.store, history)
        judge(opened.store, history)
        writer = Writer(opened.store, history)
        for _ in range(rng.randint(0, 8)):
            writer.commit_randomly(rng, rng.randint(1, 4))
            if rng.random() < 0.2:
                opened.snapshots.write()
            if rng.random() < 0.2:
                opened.store.prepare_next_segment()
        history = die_in_a_commit(bench, writer, rng)
        bench = bench.after_crash(rng)
    store = bench.store()
    history = settled(store, history)
    judge(store, history)
    live = rows_of(store)
    bench.close()
    bench.home.set_aside()
    for path in list_snapshots(bench.disk, "snapshots"):
        bench.disk.remove(path)
    assert rows_of(bench.store()) == live


class Died(Exception):  # noqa: N818 - nobody's error
    """The power fails here."""


def die(*_):
    raise Died


def die_in_a_commit(bench, writer, rng):
    """Stop at some moment of a commit, or between two; the history, and behind it what may have happened besides."""
    store, moment = writer.store, rng.choice(("append", "sync", "apply", "none"))
    if moment == "none":
        return writer.history
    mark = value(rng.choice((40, 700)), "dying")
    group, attempted = writer.group([writer.txn((ALICE, b"k", mark), (BOB, b"k", None))])
    with pytest.MonkeyPatch.context() as dying:
        if moment == "append":
            partial_bytes = rng.randrange(100)
            dying.setattr(
                SimulatedFile, "write_at", lambda file, at, chunk: die(file._write(at, chunk[:partial_bytes]))
            )
        elif moment == "sync":
            dying.setattr(SimulatedFile, "sync", die)
        else:
            dying.setattr(store._view, "apply", die)
            dying.setattr(store._log, "roll_back", die)
        with pytest.raises(Died):
            store.commit(group)
    return [*writer.history, *attempted]


def settled(store, history):
    """The history without its last commit when that was under way and did not happen."""
    return history[: store.head_ts] if store.head_ts == len(history) - 1 else history


@pytest.mark.parametrize("seed", range(20))
def test_power_loss_without_fsync_keeps_a_beginning_of_the_history(seed):
    rng = random.Random(seed)
    bench = StoreBench()
    writer = Writer(bench.store(fsync=False))
    writer.commit_randomly(rng, 40)
    crashed = bench.disk.crash(rng)
    for home in (FailingHome(), bench.home.after_crash(rng), bench.home):  # nothing, something, all of the view is left
        left = StoreBench(crashed.crash(rng), home)
        store = left.store(fsync=False)
        assert store.head_ts <= 40
        judge(store, writer.history[: store.head_ts])


# A real LevelDB


def leveldb_with_tables(bench):
    """A history in a LevelDB that has tables and a log: what was written is compacted in part."""
    writer, rng = Writer(bench.store()), random.Random(1)
    writer.commit_randomly(rng, 60)
    bench.opened[-1]._view._source.compact_range()
    writer.commit_randomly(rng, 40)
    rows = rows_of(bench.opened[-1])
    bench.close()
    return writer.history, rows


def test_a_leveldb_that_was_deleted_is_rebuilt(leveldb_bench, tmp_path):
    _history, rows = leveldb_with_tables(leveldb_bench)
    shutil.rmtree(tmp_path / "state")
    opened = leveldb_bench.open()
    assert (opened.recovery.source, opened.recovery.applied) == ("log", 100)
    assert rows_of(opened.store) == rows


def test_each_file_of_a_leveldb_can_be_missing(leveldb_bench, tmp_path):
    history, rows = leveldb_with_tables(leveldb_bench)
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert len(names) >= 5
    shutil.copytree(tmp_path / "state", tmp_path / "whole")
    for name in names:
        restore(tmp_path)
        (tmp_path / "state" / name).unlink()
        heals(leveldb_bench, history, rows, name)


def test_a_byte_flipped_anywhere_in_a_leveldb_is_healed(leveldb_bench, tmp_path):
    history, rows = leveldb_with_tables(leveldb_bench)
    shutil.copytree(tmp_path / "state", tmp_path / "whole")
    rng = random.Random(2)
    rebuilt = set()
    for path in sorted((tmp_path / "whole").iterdir()):
        size = path.stat().st_size
        offsets = {0, size // 2, size - 1, *(rng.randrange(size) for _ in range(6))} if size else set()
        for offset in sorted(offsets):
            restore(tmp_path)
            content = bytearray((tmp_path / "state" / path.name).read_bytes())
            content[offset] ^= 1 << rng.randrange(8)
            (tmp_path / "state" / path.name).write_bytes(content)
            if heals(leveldb_bench, history, rows, f"{path.name} at {offset}"):
                rebuilt.add(path.suffix or path.name.partition("-")[0])
    assert {".ldb", ".log"} & rebuilt  # it was not all for nothing


def heals(bench, history, rows, what):
    """Open a store whose view was hurt: it is as it was, at once or after one more start. Whether it was rebuilt."""
    opened = bench.open()
    rebuilt = opened.recovery.source != "view"
    try:
        found = rows_of(opened.store)
    except ViewDamagedError:
        found = None
    if found != rows:
        assert found is None, f"{what}: other rows, and no word of it"
        with pytest.raises(StorageError, match="rebuilds it"):
            judge(opened.store, history)
        bench.close()
        opened = bench.open()
        assert opened.recovery.source != "view", what
        assert rows_of(opened.store) == rows, what
        rebuilt = True
    judge(opened.store, history)
    bench.close()
    return rebuilt


def restore(tmp_path):
    shutil.rmtree(tmp_path / "state", ignore_errors=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "state")


def test_a_leveldb_that_was_set_aside_is_kept_beside_the_new_one(leveldb_bench, tmp_path):
    written(leveldb_bench)
    (tmp_path / "state" / "CURRENT").unlink()
    leveldb_bench.open()
    assert (tmp_path / "state.set-aside").is_dir()
    leveldb_bench.close()
    (tmp_path / "state" / "CURRENT").unlink()
    assert leveldb_bench.open().recovery.source == "log"  # one is kept, and does not stand in the way


def test_a_folder_of_a_leveldb_that_is_empty_is_rebuilt(leveldb_bench, tmp_path):
    _history, rows = written(leveldb_bench)
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").mkdir()
    assert rows_of(leveldb_bench.store()) == rows


def test_keys_of_the_outcome_window_survive_a_rebuild(store_bench, monkeypatch):
    monkeypatch.setattr(keys, "OUTCOME_BUCKET_COMMITS", 4)
    monkeypatch.setattr(keys, "OUTCOME_BUCKETS", 2)
    writer = Writer(store_bench.store())
    writer.commit_randomly(random.Random(0), 20)
    known = [writer.store.committed_ts(txn.txn_id) for txn in writer.history]
    store_bench.close()
    store_bench.home.batches = None
    store = store_bench.store()
    assert [store.committed_ts(txn.txn_id) for txn in writer.history] == known
    assert known[:15] == [None] * 15
    assert known[15:] == [16, 17, 18, 19, 20]


def test_the_log_directory_is_made_durable_whoever_made_it(store_bench):
    """Found by tools/proof_simulation.py: after kill -9 just behind its making, power loss took the whole log."""
    store_bench.disk.make_dir("log")
    writer = Writer(store_bench.store())
    writer.commit((ALICE, b"k", value()))
    for seed in range(20):
        judge(store_bench.after_crash(random.Random(seed)).store(), writer.history)


def test_without_fsync_what_a_failed_sync_has_left_is_written_again_before_a_segment_is_sealed(store_bench):
    """Found by tools/proof_simulation.py: power loss left a hole in a sealed segment, and the log was refused."""
    writer = Writer(store_bench.store(fsync=False))
    writer.commit((ALICE, b"k", value(700)))
    store_bench.disk.fail_next("sync", OSError(errno.EIO, "broken"))
    with pytest.raises(LogPoisonedError):
        store_bench.close()
    again = Writer(store_bench.store(fsync=False), list(writer.history), writer.now_ns)
    while len(store_bench.log_content()) < 2:
        again.commit((ALICE, b"k", value(700)))
    sealed = again.store.head_ts - 1
    for seed in range(50):
        found = store_bench.after_crash(random.Random(seed)).store(fsync=False)
        assert found.head_ts >= sealed
        judge(found, again.history[: found.head_ts])


def test_a_cut_that_fails_halfway_is_finished_by_the_next_start(store_bench):
    """Without fsync a snapshot may have commits that power loss has taken; half a cut beside it looked like damage."""
    opened = store_bench.open(snapshot_interval=1, fsync=False)
    writer = Writer(opened.store)
    writer.commit_randomly(random.Random(4), 30)
    opened.snapshots.write()
    *_, lost = (record for record in opened.store._log.records(after=0) if len(record.payload) > 1_100)  # two sectors
    store_bench.close()
    path = f"log/{lost.placement.segment:020d}.log"
    file = store_bench.disk.open(path)
    hole = -(-lost.placement.offset // 512) * 512
    file.write_at(hole, bytes(512))  # a sector that never reached the disk
    store_bench.home.batches = None
    store_bench.disk.fail_next("write", OSError(errno.EIO, "an I/O error"), path=path, partial_bytes=5)
    with pytest.raises(StorageError, match="I/O error"):
        store_bench.open(fsync=False)
    opened = store_bench.open(fsync=False)
    assert 0 < opened.recovery.head_ts < 30
    assert opened.recovery.source == "log"
