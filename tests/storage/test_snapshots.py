"""Snapshots: whole or not there, never wrong, and never more than memory for a block."""

import errno
import os
import random
import tracemalloc
from contextlib import closing

import pytest

from statehouse.storage.disk import RealDisk
from statehouse.storage.keys import EVERYTHING, WATERMARK_KEY
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.snapshot_format import SnapshotWriter
from statehouse.storage.snapshots import (
    SnapshotDamagedError,
    SnapshotOutdatedError,
    list_snapshots,
    load_snapshot,
    prune_snapshots,
    snapshot_commit_ts,
    verify_snapshot,
    write_snapshot,
)
from statehouse.storage.v1.log_pb2 import SnapshotHeader, Watermark

DIRECTORY = "/store/snapshots"


def header_at(commit_ts, **changes):
    watermark = Watermark(commit_ts=commit_ts, chain=bytes(range(32)), format_version=2, committed_at_ns=10**18)
    return SnapshotHeader(**({"format_version": 2, "store_id": b"s" * 16, "watermark": watermark} | changes))


def view_at(commit_ts, rows=()):
    view = MemoryView()
    view.apply([*rows, (WATERMARK_KEY, header_at(commit_ts).watermark.SerializeToString())])
    return view


def some_rows(count, value_bytes=20):
    return [(b"\x01t%08d" % n, b"outcome") for n in range(count // 4)] + [
        (b"\x02row%08d" % n, random.Random(n).randbytes(value_bytes)) for n in range(count)
    ]


def write(disk, commit_ts=7, rows=(), progress=lambda rows, size: None, directory=DIRECTORY):
    with closing(view_at(commit_ts, rows)) as view, closing(view.snapshot()) as snapshot:
        return write_snapshot(disk, directory, snapshot, header_at(commit_ts), progress)


def loaded(disk, path):
    """The rows of a snapshot, by way of a view."""
    with closing(MemoryView()) as view:
        load_snapshot(disk, path, view.apply)
        return list(view.scan(*EVERYTHING))


def content(disk, path):
    with closing(disk.open(path, read_only=True)) as file:
        return file.read_at(0, file.size())


def overwrite(disk, path, new):
    with closing(disk.open(path, create=True)) as file:
        file.write_at(0, new)


@pytest.fixture
def disk():
    disk = SimulatedDisk()
    disk.make_dir("/store")
    disk.sync_dir("/")
    return disk


@pytest.mark.parametrize("count", [0, 1, 5, 10_000])
def test_a_view_comes_back_as_it_was(disk, count):
    rows = some_rows(count)
    told = []
    written = write(disk, rows=rows, progress=lambda *so_far: told.append(so_far))
    with closing(view_at(7, rows)) as view:
        assert loaded(disk, written.path) == list(view.scan(*EVERYTHING))
    assert written.commit_ts == snapshot_commit_ts(written.path) == 7
    assert written.rows == len(rows) + 1 == told[-1][0]
    assert written.size_bytes == len(content(disk, written.path))
    assert told == sorted(told)
    assert (len(told) > 2) == (count == 10_000)
    assert list_snapshots(disk, DIRECTORY) == [written.path]
    assert verify_snapshot(disk, written.path) == header_at(7)


def test_the_real_disk_serves_too(tmp_path):
    disk = RealDisk()
    directory = str(tmp_path / "snapshots")
    written = write(disk, rows=some_rows(2_000), directory=directory)
    assert len(loaded(disk, written.path)) == 2_501
    assert prune_snapshots(disk, directory, 1).kept == [written.path]


def test_rows_are_those_of_the_snapshot_whatever_is_written_meanwhile(disk):
    rows = some_rows(5_000)
    with closing(view_at(7, rows)) as view, closing(view.snapshot()) as snapshot:
        before = list(view.scan(*EVERYTHING))

        def write_on(_rows, size):
            view.apply([(key, b"new") for key, _ in rows] + [(b"\x02more%d" % size, b"")])

        written = write_snapshot(disk, DIRECTORY, snapshot, header_at(7), write_on)
    assert loaded(disk, written.path) == before


def test_the_watermark_is_applied_alone_and_last(disk):
    """A process that dies while it loads must not leave a view that says it is whole."""
    written = write(disk, rows=some_rows(5_000))
    batches = []
    load_snapshot(disk, written.path, batches.append)
    assert [key for key, _ in batches[-1]] == [WATERMARK_KEY]
    assert WATERMARK_KEY not in [key for batch in batches[:-1] for key, _ in batch]


def test_a_header_that_is_not_the_views_is_refused(disk):
    with (
        closing(view_at(7)) as view,
        closing(view.snapshot()) as snapshot,
        pytest.raises(ValueError, match="watermark"),
    ):
        write_snapshot(disk, DIRECTORY, snapshot, header_at(8), lambda rows, size: None)
    assert list_snapshots(disk, DIRECTORY) == []


@pytest.fixture
def small(disk):
    return write(disk, rows=[(b"\x02a", b"1"), (b"\x02b", b"")]).path


def test_every_flipped_bit_is_found_and_named(disk, small):
    whole = content(disk, small)
    for offset in range(len(whole)):
        for bit in range(8):
            disk.flip_bit(small, offset, bit)
            applied = []
            with pytest.raises(SnapshotDamagedError) as caught:
                load_snapshot(disk, small, applied.extend)
            assert caught.value.path == small
            assert caught.value.offset <= offset
            assert small in str(caught.value)
            assert f"offset {caught.value.offset}" in str(caught.value)
            assert WATERMARK_KEY not in dict(applied)
            disk.flip_bit(small, offset, bit)
    verify_snapshot(disk, small)


def test_nothing_of_a_damaged_block_is_applied(disk):
    written = write(disk, rows=some_rows(10_000))
    good = loaded(disk, written.path)
    rng = random.Random(11)
    whole = content(disk, written.path)
    for offset in [rng.randrange(len(whole)) for _ in range(40)]:
        disk.flip_bit(written.path, offset, rng.randrange(8))
        applied = []
        with pytest.raises(SnapshotDamagedError):
            load_snapshot(disk, written.path, applied.extend)
        assert set(applied) <= set(good)
        overwrite(disk, written.path, whole)


def test_a_cut_at_every_byte_is_found(disk, small):
    whole = content(disk, small)
    for end in range(len(whole)):
        overwrite(disk, small, whole[:end])
        with pytest.raises(SnapshotDamagedError):
            verify_snapshot(disk, small)
    overwrite(disk, small, whole)
    verify_snapshot(disk, small)


@pytest.mark.parametrize("more", [b"\x00", bytes(512), b"more"])
def test_bytes_behind_the_end_are_found(disk, small, more):
    overwrite(disk, small, content(disk, small) + more)
    with pytest.raises(SnapshotDamagedError, match="behind its end"):
        verify_snapshot(disk, small)


def test_a_snapshot_under_another_name_is_refused(disk, small):
    other = f"{DIRECTORY}/{8:020d}.snap"
    disk.rename(small, other)
    with pytest.raises(SnapshotDamagedError, match="name"):
        verify_snapshot(disk, other)


def write_raw(disk, header, blocks):
    disk.make_dir(DIRECTORY)
    path = f"{DIRECTORY}/{7:020d}.snap"
    with closing(disk.open(path, create=True)) as file:
        writer = SnapshotWriter(file)
        writer.begin(header)
        for block, count in blocks:
            writer.rows(block, count)
        writer.end()
    return path


WATERMARK_ROW = (b"\x00\x00\x00\x02" + WATERMARK_KEY, header_at(7).watermark.SerializeToString())
GOOD_BLOCK = WATERMARK_ROW[0] + len(WATERMARK_ROW[1]).to_bytes(4, "big") + WATERMARK_ROW[1]


@pytest.mark.parametrize(
    ("header", "blocks", "what"),
    [
        (header_at(7, format_version=3), [(GOOD_BLOCK, 1)], "format 3, and this version reads 2"),
        (header_at(7, format_version=0), [(GOOD_BLOCK, 1)], "format 0"),
        (header_at(7), [(GOOD_BLOCK, 2)], "counts 2"),
        (header_at(7), [(GOOD_BLOCK + b"\x00\x00\x00", 1)], "sequence of rows"),
        (header_at(7), [(GOOD_BLOCK + b"\x00\x00\x00\x01k\x00\x00\x00\x05v", 2)], "sequence of rows"),
        (header_at(7), [(b"\x00\x00\x00\x01k\x00\x00\x00\x01v", 1)], "watermark"),
        (header_at(7), [], "watermark"),
        (header_at(7, watermark=Watermark(commit_ts=7, chain=b"other")), [(GOOD_BLOCK, 1)], "watermark"),
    ],
)
def test_what_is_whole_and_makes_no_sense_is_refused(disk, header, blocks, what):
    path = write_raw(disk, header, blocks)
    with pytest.raises(SnapshotDamagedError, match=what):
        verify_snapshot(disk, path)


def test_a_snapshot_of_an_older_format_is_checked_and_not_loaded(disk):
    path = write_raw(disk, header_at(7, format_version=1), [(GOOD_BLOCK, 1)])
    assert verify_snapshot(disk, path) == header_at(7, format_version=1)
    applied = []
    with pytest.raises(SnapshotOutdatedError, match="is of format 1, and this version uses 2"):
        load_snapshot(disk, path, applied.append)
    assert applied == []
    disk.flip_bit(path, 150)
    with pytest.raises(SnapshotDamagedError):
        verify_snapshot(disk, path)


def test_a_block_too_long_to_be_read_again_is_not_written(disk):
    with pytest.raises(ValueError, match="too large"):
        write_raw(disk, header_at(7), [(bytes(17 << 20), 1)])


class GaveUpError(Exception):
    pass


def test_giving_up_leaves_no_file(disk):
    old = write(disk, 5).path

    def give_up(rows, size):
        raise GaveUpError

    with pytest.raises(GaveUpError):
        write(disk, rows=some_rows(100), progress=give_up)
    assert disk.list_dir(DIRECTORY) == [old.rpartition("/")[2]]


@pytest.mark.parametrize("operation", ["open", "write", "sync", "rename"])
@pytest.mark.parametrize("after", [0, 3])
def test_a_disk_that_refuses_leaves_the_older_snapshot(disk, operation, after):
    old = write(disk, 5).path
    disk.fail_next(operation, OSError(errno.EIO, "no"), after=after if operation == "write" else 0)
    with pytest.raises(OSError, match="no"):
        write(disk, rows=some_rows(20_000))
    assert disk.list_dir(DIRECTORY) == [old.rpartition("/")[2]]
    verify_snapshot(disk, old)
    disk.clear_faults()
    new = write(disk).path
    assert list_snapshots(disk, DIRECTORY) == [new, old]


def test_a_full_disk_leaves_no_file_and_its_room(disk):
    disk.capacity_bytes = 100_000
    free = disk.free_bytes("/")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        write(disk, rows=some_rows(20_000))
    assert caught.value.errno == errno.ENOSPC
    assert disk.list_dir(DIRECTORY) == []
    assert disk.free_bytes("/") == free


def test_a_large_snapshot_is_synced_on_the_way(disk):
    write(disk, rows=some_rows(700, value_bytes=30_000))
    assert disk.operations["sync"] >= 3


@pytest.mark.parametrize("seed", range(4))
def test_power_loss_while_writing_never_leaves_a_snapshot_that_is_not_whole(disk, seed):
    """The power fails before every operation of the writing, and after it."""
    rows = some_rows(3_000)
    old = write(disk, 5)
    rng = random.Random(seed)
    crashed = []

    class Recording:
        """Crashes a copy of the disk before each operation."""

        def __getattr__(self, name):
            crashed.append(disk.crash(rng))
            if name != "open":
                return getattr(disk, name)
            return lambda *arguments, **options: Opened(disk.open(*arguments, **options))

    class Opened:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            crashed.append(disk.crash(rng))
            return getattr(self._file, name)

    new = write(Recording(), rows=rows)
    assert len(crashed) > 8
    crashed += [disk.crash(rng) for _ in range(5)]
    seen = set()
    for after in crashed:
        found = list_snapshots(after, DIRECTORY)
        seen.add(len(found))
        assert old.path in found
        for path in found:
            verify_snapshot(after, path)
        pruned = prune_snapshots(after, DIRECTORY, 2)
        assert pruned.damaged == []
        assert after.list_dir(DIRECTORY) == [path.rpartition("/")[2] for path in sorted(found)]
    assert seen == {1, 2}
    assert all(list_snapshots(after, DIRECTORY) == [new.path, old.path] for after in crashed[-5:])


def test_listing_is_by_commit_and_leaves_out_what_is_not_a_snapshot(disk):
    assert list_snapshots(disk, DIRECTORY) == []
    paths = [write(disk, commit_ts).path for commit_ts in (9, 100, 11)]
    for name in ("notes.txt", "7.snap", f"{7:020d}.snap.tmp", f"{'x' * 20}.snap", "\u0661" * 20 + ".snap"):
        overwrite(disk, f"{DIRECTORY}/{name}", b"")
    assert list_snapshots(disk, DIRECTORY) == [paths[1], paths[2], paths[0]]


def test_pruning_keeps_the_newest_good_ones(disk):
    paths = {commit_ts: write(disk, commit_ts, some_rows(50)).path for commit_ts in range(1, 8)}
    for commit_ts, offset in ((7, 0), (5, 200)):
        disk.flip_bit(paths[commit_ts], offset)
    overwrite(disk, f"{DIRECTORY}/{9:020d}.snap.tmp", b"half")
    overwrite(disk, f"{DIRECTORY}/notes.txt", b"not ours")
    pruned = prune_snapshots(disk, DIRECTORY, 2)
    assert pruned.kept == [paths[6], paths[4]]
    assert pruned.removed == [paths[7], paths[5], paths[3], paths[2], paths[1]]
    assert [error.path for error in pruned.damaged] == [paths[7], paths[5]]
    assert sorted(disk.list_dir(DIRECTORY)) == [f"{4:020d}.snap", f"{6:020d}.snap", "notes.txt"]
    again = prune_snapshots(disk, DIRECTORY, 2)
    assert (again.kept, again.removed, again.damaged) == (pruned.kept, [], [])
    for seed in range(5):
        assert list_snapshots(disk.crash(random.Random(seed)), DIRECTORY) == pruned.kept


def test_pruning_wants_to_keep_one_and_takes_an_empty_place(disk):
    with pytest.raises(ValueError, match="at least one"):
        prune_snapshots(disk, DIRECTORY, 0)
    assert prune_snapshots(disk, DIRECTORY, 1).kept == []


def test_memory_is_that_of_a_block_and_not_of_the_view(tmp_path):
    disk = RealDisk()
    directory = str(tmp_path / "snapshots")
    with closing(view_at(7, some_rows(20_000, value_bytes=300))) as view, closing(view.snapshot()) as snapshot:
        tracemalloc.start()
        try:
            written = write_snapshot(disk, directory, snapshot, header_at(7), lambda rows, size: None)
            load_snapshot(disk, written.path, lambda writes: None)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert written.size_bytes > 6_000_000
    assert peak < 2_000_000
