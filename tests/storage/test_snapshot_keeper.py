"""When a snapshot is due, and what writing one does."""

import errno
import random

import pytest
from storage.fix_store import ALICE, Writer, value

from statehouse.errors import StorageError
from statehouse.storage.snapshots import list_snapshots, load_snapshot, snapshot_commit_ts
from statehouse.storage.view import ViewClosedError, ViewDamagedError

ENOSPC = OSError(errno.ENOSPC, "no space")


def commits(writer, count, size=300):
    for number in range(count):
        writer.commit((ALICE, b"k%d" % (number % 3), value(size, number)))


def snapshots(bench):
    return [snapshot_commit_ts(path) for path in list_snapshots(bench.disk, "snapshots")]


def test_one_is_due_after_so_many_commits(store_bench):
    opened = store_bench.open(snapshot_interval=10)
    writer = Writer(opened.store)
    assert not opened.snapshots.due()
    commits(writer, 9)
    assert not opened.snapshots.due()
    commits(writer, 1)
    assert opened.snapshots.due()
    opened.snapshots.write()
    assert not opened.snapshots.due()
    assert snapshots(store_bench) == [10]


def test_none_is_due_without_an_interval(store_bench):
    opened = store_bench.open(snapshot_interval=0)
    commits(Writer(opened.store), 30)
    assert not opened.snapshots.due()


def test_the_log_must_have_grown_by_the_last_snapshots_size(store_bench):
    opened = store_bench.open(snapshot_interval=1)
    writer = Writer(opened.store)
    writer.commit(*((ALICE, b"k%d" % number, value(250, number)) for number in range(40)))
    opened.snapshots.write()
    size_bytes = store_bench.disk.open(list_snapshots(store_bench.disk, "snapshots")[0]).size()
    before = opened.store.log_bytes
    while not opened.snapshots.due():
        assert opened.store.log_bytes - before < size_bytes
        writer.commit((ALICE, b"k", value(250)))
    assert opened.store.log_bytes - before >= size_bytes


def test_a_snapshot_of_an_earlier_run_counts(store_bench):
    opened = store_bench.open(snapshot_interval=10)
    commits(Writer(opened.store), 10)
    opened.snapshots.write()
    history = opened.store.head_ts
    store_bench.close()
    opened = store_bench.open(snapshot_interval=10)
    assert history == 10
    assert not opened.snapshots.due()


def test_so_many_are_kept_and_each_holds_the_view_of_its_commit(store_bench):
    opened = store_bench.open(snapshot_interval=1, snapshots_keep=2)
    writer = Writer(opened.store)
    for _ in range(4):
        writer.commit_randomly(random.Random(0), 10)
        opened.snapshots.write()
    assert snapshots(store_bench) == [40, 30]
    for path in list_snapshots(store_bench.disk, "snapshots"):
        header = load_snapshot(store_bench.disk, path, lambda writes: None)
        assert header.store_id == opened.store.store_id
        assert header.watermark.commit_ts == snapshot_commit_ts(path)


def test_a_snapshot_beside_commits_is_of_one_moment(store_bench, monkeypatch):
    opened = store_bench.open(snapshot_interval=1)
    writer = Writer(opened.store)
    commits(writer, 5)
    taken = opened.store.view_snapshot()
    commits(writer, 5)
    monkeypatch.setattr(opened.store, "view_snapshot", lambda: taken)
    opened.snapshots.write()
    assert snapshots(store_bench) == [5]


@pytest.mark.parametrize("operation", ["open", "write", "sync", "rename"])
def test_a_disk_that_refuses_leaves_the_older_ones(store_bench, operation):
    opened = store_bench.open(snapshot_interval=1)
    writer = Writer(opened.store)
    commits(writer, 5)
    opened.snapshots.write()
    commits(writer, 20)
    store_bench.disk.fail_next(operation, ENOSPC)
    with pytest.raises(OSError, match="no space"):
        opened.snapshots.write()
    assert snapshots(store_bench) == [5]
    assert opened.snapshots.due()  # and tried again
    opened.snapshots.write()
    assert snapshots(store_bench) == [25, 5]


@pytest.mark.parametrize("error", [ViewDamagedError("block checksum"), ViewClosedError("closed")])
@pytest.mark.parametrize("method", ["get", "scan"])
def test_a_view_that_cannot_be_read_is_a_storage_error(store_bench, monkeypatch, error, method):
    opened = store_bench.open(snapshot_interval=1)
    commits(Writer(opened.store), 5)
    taken = opened.store.view_snapshot()

    def fail(*_):
        raise error

    monkeypatch.setattr(opened.store, "view_snapshot", lambda: taken)
    monkeypatch.setattr(taken, method, fail)
    with pytest.raises(StorageError):
        opened.snapshots.write()
    assert snapshots(store_bench) == []
    # Nobody else may ever read what the snapshotter found: without this, no start would mend it.
    assert store_bench.home.condemned == isinstance(error, ViewDamagedError)


def test_a_damaged_snapshot_does_not_push_out_a_good_one(store_bench):
    opened = store_bench.open(snapshot_interval=1, snapshots_keep=2)
    writer = Writer(opened.store)
    for _ in range(2):
        commits(writer, 5)
        opened.snapshots.write()
    store_bench.disk.flip_bit(list_snapshots(store_bench.disk, "snapshots")[0], 300)
    commits(writer, 5)
    opened.snapshots.write()
    assert snapshots(store_bench) == [15, 5]
