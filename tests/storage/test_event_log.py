"""Appending, reading, rotating and rolling back; and what every failure of the disk leaves behind."""

import errno
import random
import threading
from zlib import crc32

import pytest
from storage.fix_log import DIRECTORY, FIRST, NEXT, STORE_ID, commit, make_bench, payload, pointers

from statehouse.errors import DiskFullError, LogPoisonedError, StorageError, StoreDamagedError
from statehouse.limits import READ_CHUNK_BYTES
from statehouse.storage.disk import RealDisk
from statehouse.storage.event_log import EventLog, LogHead
from statehouse.storage.log_format import AFTER_SYNC, HEADER_BYTES, LENGTH, RECORD_OVERHEAD_BYTES, genesis_chain
from statehouse.storage.simdisk import SimulatedFile
from statehouse.storage.view import ViewDamagedError

FULL = OSError(errno.ENOSPC, "full")
BROKEN = OSError(errno.EIO, "broken")
SEGMENT = 4096


def group(*numbers, size=60):
    return [payload(number, size) for number in numbers]


def reopened(bench, **changes):
    """The payloads that the next open finds, all of them checked."""
    bench.open(verify_all=True, **changes).close()
    return bench.payloads()


# The ordinary way


def test_a_new_log_is_empty_and_its_first_segment_allocated(bench):
    log = bench.open()
    assert log.head == LogHead(0, genesis_chain(STORE_ID))
    assert (log.store_id, log.size_bytes, log.poisoned) == (STORE_ID, HEADER_BYTES, False)
    assert sorted(bench.disk.list_dir(DIRECTORY)) == ["00000000000000000001.log", "taken-back"]
    assert len(bench.content()) == SEGMENT
    log.close()
    assert reopened(bench) == []


def test_what_is_appended_is_found_again(bench):
    log = bench.open()
    placements = commit(log, group(1, 2), group(3), [], group(4, 5, 6, size=10))
    head = log.head
    assert head.commit_ts == 6
    assert len(placements) == 6
    log.close()
    again = bench.open()
    assert again.head == head
    assert again.store_id == STORE_ID
    assert [record.commit_ts for record in bench.found] == [1, 2, 3, 4, 5, 6]
    assert [record.placement for record in bench.found] == placements
    assert bench.found[-1].chain == head.chain
    assert bench.payloads() == [*group(1, 2, 3), *group(4, 5, 6, size=10)]
    assert bench.cuts == []
    again.close()


def test_only_records_after_the_watermark_are_told(bench):
    log = bench.open()
    commit(log, group(1, 2))
    known_good = log.head
    commit(log, group(3, 4))
    log.close()
    for verify_all in (False, True):
        bench.open(known_good=known_good, verify_all=verify_all).close()
        assert bench.payloads() == group(3, 4)


def test_size_is_that_of_headers_and_records(bench):
    log = bench.open()
    commit(log, *[group(number, size=1000) for number in range(10)])
    expected = len(bench.segments()) * HEADER_BYTES + 10 * (1000 + RECORD_OVERHEAD_BYTES)
    assert len(bench.segments()) == 4
    assert log.size_bytes == expected
    log.close()
    again = bench.open()
    assert again.size_bytes == expected
    again.close()


@pytest.mark.parametrize("size", [0, 1])
def test_a_payload_that_cannot_be_a_record_is_refused_and_nothing_happens(bench, size):
    log = bench.open()
    with pytest.raises(ValueError, match="cannot be a record"):
        log.append([payload(1), b"x"[:size]])
    assert log.head.commit_ts == 0
    assert commit(log, group(1))
    log.close()
    assert reopened(bench) == group(1)


def test_flags_say_after_sync_only_when_it_is_true(bench):
    def flags(log):
        for groups, sync in ((1, True), (1, False), (2, True), (1, True)):
            for _ in range(groups):
                log.append(group(1, 2, size=20))
            if sync:
                log.sync()
        log.close()
        bench.open().close()
        content = bench.content()
        return [
            bool(LENGTH.unpack_from(content, record.placement.offset - RECORD_OVERHEAD_BYTES)[0] & AFTER_SYNC)
            for record in bench.found
        ]

    assert flags(bench.open()) == [True, False, True, False, False, False, False, False, True, False]

    bench = make_bench()
    assert flags(bench.open(fsync=False)) == [False] * 10


def test_without_fsync_sync_does_nothing_until_the_segment_is_full_or_closed(bench):
    log = bench.open(fsync=False)
    before = bench.disk.operations["sync"]
    commit(log, group(1), group(2))
    assert bench.disk.operations["sync"] == before
    commit(log, group(3, size=SEGMENT - 200))
    assert bench.disk.operations["sync"] > before
    assert bench.content() == bench.disk.crash(random.Random(1)).open(FIRST).read_at(0, SEGMENT)
    log.close()
    assert len(make_bench(bench.disk.crash(random.Random(2))).open().store_id) == 16


def test_a_closed_log_refuses(bench):
    log = bench.open()
    (placement,) = commit(log, group(1))
    log.close()
    log.close()
    for refused in (lambda: log.append(group(2)), log.sync, lambda: log.read(1, placement.offset, 60, 0)):
        with pytest.raises(StorageError, match="closed"):
            refused()
    assert not log.next_segment_needed
    log.prepare_next_segment()
    assert not bench.disk.exists(NEXT)


def test_a_real_disk_keeps_it_too(tmp_path):
    bench = make_bench(RealDisk())

    def open_log(**changes):
        settings = {
            "segment_bytes": SEGMENT,
            "max_bytes": 0,
            "known_good": None,
            "verify_all": True,
            "fsync": True,
            "report": bench.cuts.append,
            "new_store_id": lambda: STORE_ID,
            "on_record": bench.found.append,
        }
        return EventLog.open(RealDisk(), f"{tmp_path}/log", **(settings | changes))

    log = open_log()
    contents = [payload(number, 500) for number in range(40)]
    placements = []
    for content in contents:
        if log.next_segment_needed:
            log.prepare_next_segment()
        placements += commit(log, [content])
    assert log.read_many(pointers(log, placements, contents)) == contents
    log.roll_back()
    log.close()
    (tmp_path / "log" / "next.tmp").write_bytes(b"left by a crash")
    log = open_log()
    assert [record.payload for record in bench.found] == contents[:-1]
    assert [record.payload for record in log.records(30)] == contents[30:-1]
    segments = [f"{1 + 7 * n:020d}.log" for n in range(6)]
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == [*segments, "taken-back"]
    log.close()
    with pytest.raises(StorageError, match="cannot be opened"):
        EventLog.open(
            RealDisk(),
            f"{tmp_path}/missing/log",
            segment_bytes=SEGMENT,
            max_bytes=0,
            known_good=None,
            verify_all=False,
            fsync=True,
            report=bench.cuts.append,
            new_store_id=lambda: STORE_ID,
            on_record=bench.found.append,
        )


# Segments


def test_a_group_never_straddles_two_segments(bench):
    log = bench.open()
    commit(log, group(1, size=2000))
    placements = commit(log, group(2, 3, size=1500))
    assert {placement.segment for placement in placements} == {2}
    log.close()
    assert [len(bench.content(path)) for path in bench.segments()] == [HEADER_BYTES + 36 + 2000, SEGMENT]
    assert reopened(bench) == [*group(1, size=2000), *group(2, 3, size=1500)]


def test_a_group_that_fills_a_segment_to_its_last_byte(bench):
    log = bench.open()
    full = SEGMENT - HEADER_BYTES - RECORD_OVERHEAD_BYTES
    commit(log, group(1, size=full))
    log.close()
    assert reopened(bench) == group(1, size=full)
    log = bench.open()
    commit(log, group(2, size=full), group(3))
    log.close()
    assert reopened(bench) == [*group(1, 2, size=full), *group(3)]


@pytest.mark.parametrize("first", [[], [7]])
def test_a_record_larger_than_a_segment_gets_one_of_its_size(bench, first):
    log = bench.open()
    commit(log, group(*first), group(1, size=3 * SEGMENT), group(2))
    log.close()
    assert reopened(bench) == [*group(*first), *group(1, size=3 * SEGMENT), *group(2)]
    assert [len(bench.content(path)) for path in bench.segments()] == [
        *([HEADER_BYTES + 36 + 60] if first else []),
        HEADER_BYTES + 36 + 3 * SEGMENT,
        SEGMENT,
    ]


def test_place_says_where_append_puts_it(bench):
    log = bench.open()
    rng = random.Random(5)
    for turn in range(60):
        contents = [payload(turn, rng.randint(2, 900)) for _ in range(rng.randint(1, 4))]
        placed = log.place([len(content) for content in contents])
        assert log.append(contents) == placed
        log.sync()
    log.close()
    assert len(reopened(bench)) == log.head.commit_ts


def test_a_prepared_segment_is_used(bench):
    log = bench.open()
    assert not log.next_segment_needed
    commit(log, group(1, size=2500))
    assert log.next_segment_needed
    log.prepare_next_segment()
    assert not log.next_segment_needed
    syncs = bench.disk.operations["sync"]
    log.prepare_next_segment()
    assert bench.disk.operations["sync"] == syncs
    assert bench.content(NEXT) == bytes(SEGMENT)
    opens = bench.disk.operations["open"]
    commit(log, group(2, size=2500))
    assert bench.disk.operations["open"] == opens
    assert not bench.disk.exists(NEXT)
    log.prepare_next_segment()
    commit(log, group(3, size=2 * SEGMENT))  # prepared, and too small
    log.close()
    assert reopened(bench) == [*group(1, 2, size=2500), *group(3, size=2 * SEGMENT)]
    assert not bench.disk.exists(NEXT)


def test_no_segment_is_prepared_that_the_limit_forbids(bench):
    log = bench.open(max_bytes=3500)
    commit(log, group(1, size=2500))
    assert not log.next_segment_needed


@pytest.mark.parametrize("step", ["open", "write", "sync"])
def test_a_failed_preparation_is_not_fatal_and_leaves_no_file(bench, step):
    log = bench.open()
    commit(log, group(1, size=2500))
    bench.disk.fail_next(step, FULL if step == "write" else BROKEN, path=NEXT, partial_bytes=100)
    with pytest.raises(OSError, match=r"full|broken"):
        log.prepare_next_segment()
    assert not bench.disk.exists(NEXT)
    assert log.next_segment_needed
    commit(log, group(2, size=2500))
    log.close()
    assert reopened(bench) == group(1, 2, size=2500)


def test_a_preparation_in_another_thread_beside_appends(bench):
    log = bench.open()
    stop = threading.Event()
    failures = []

    def prepare():
        try:
            while not stop.is_set():
                if log.next_segment_needed:
                    log.prepare_next_segment()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=prepare)
    thread.start()
    contents = group(*range(300), size=700)
    for content in contents:
        commit(log, [content])
    stop.set()
    thread.join()
    log.close()
    assert failures == []
    assert reopened(bench) == contents


# Rolling back, and the limit


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("rotates", [False, True])
def test_roll_back_undoes_the_last_group_on_the_medium_too(bench, synced, rotates):
    log = bench.open()
    commit(log, group(1, 2))
    before, size = log.head, log.size_bytes
    log.append(group(3, 4, size=2000 if rotates else 60))
    if synced:
        log.sync()
    log.roll_back()
    assert log.head == before
    assert log.size_bytes == size + (HEADER_BYTES if rotates else 0)
    for seed in range(20):
        other = make_bench(bench.disk.crash(random.Random(seed)))
        other.open().close()
        assert other.payloads() == group(1, 2)
        assert other.cuts == []
    commit(log, group(5))
    log.close()
    assert reopened(bench) == group(1, 2, 5)


def test_what_follows_a_roll_back_says_that_all_before_it_was_synced(bench):
    log = bench.open()
    commit(log, group(1))
    log.append(group(2))
    log.roll_back()
    (placement,) = log.append(group(3))
    length = LENGTH.unpack_from(bench.content(), placement.offset - RECORD_OVERHEAD_BYTES)[0]
    assert length == 60 | AFTER_SYNC


def test_an_empty_segment_that_is_replaced_is_read_anew(bench):
    log = bench.open()
    placements = log.append(group(1))
    assert log.read(*pointers(log, placements, group(1))[0]) == payload(1)
    log.roll_back()
    large = group(2, size=2 * SEGMENT)
    placements = commit(log, large)
    assert bench.segments() == [FIRST]
    assert log.read(*pointers(log, placements, large)[0]) == large[0]
    log.close()


def test_there_is_nothing_to_roll_back_but_an_append_that_succeeded(bench):
    log = bench.open(max_bytes=1000)
    with pytest.raises(RuntimeError):
        log.roll_back()
    commit(log, group(1))
    with pytest.raises(DiskFullError):
        log.append(group(2, size=5000))
    with pytest.raises(RuntimeError):  # or it would undo the group before, which was answered
        log.roll_back()
    commit(log, group(3))
    log.place([60])
    with pytest.raises(RuntimeError):
        log.roll_back()
    log.append([])
    log.roll_back()
    log.append(group(4))
    log.roll_back()
    with pytest.raises(RuntimeError):
        log.roll_back()
    log.close()
    assert reopened(bench) == group(1, 3)


@pytest.mark.parametrize("step", ["write", "sync", "read"])
def test_a_roll_back_that_fails_poisons(bench, step):
    log = bench.open()
    commit(log, group(1))
    log.append(group(2))
    bench.disk.fail_next(step, BROKEN)
    with pytest.raises(LogPoisonedError, match="taken back"):
        log.roll_back()
    check_poisoned(log, bench)


def test_the_limit_is_named_and_nothing_is_written(bench):
    log = bench.open(max_bytes=2 * SEGMENT)
    kept = []
    with pytest.raises(DiskFullError, match=r"8192 bytes \(STATEHOUSE_MAX_LOG_SIZE\)") as caught:  # noqa: PT012
        for number in range(100):
            writes = bench.disk.operations["write"]
            commit(log, group(number, size=900))
            kept += group(number, size=900)
    assert caught.value.details["limit"] == "8192"
    assert int(caught.value.details["size"]) > 8192
    assert bench.disk.operations["write"] == writes
    assert 7000 < log.size_bytes <= 8192
    with pytest.raises(DiskFullError, match="MAX_LOG_SIZE"):
        log.place([900])
    small = group(1, size=8192 - log.size_bytes - HEADER_BYTES - RECORD_OVERHEAD_BYTES)  # in a new segment
    commit(log, small)
    assert log.size_bytes == 8192
    log.close()
    assert reopened(bench) == kept + small


# Failures


def check_poisoned(log, bench):
    assert log.poisoned
    for refused in (lambda: log.append(group(9)), lambda: log.place([60]), log.sync, log.roll_back):
        with pytest.raises(LogPoisonedError, match="start again"):
            refused()
    assert not log.next_segment_needed
    log.prepare_next_segment()
    placement = next(log.records(0)).placement  # reading goes on
    assert log.read(1, placement.offset, 60, crc32(payload(1))) == payload(1)
    log.close()


@pytest.mark.parametrize("written", [0, 3, 40, 100, 190])
def test_a_disk_that_is_full_during_an_append_takes_nothing(bench, written):
    log = bench.open()
    commit(log, group(1))
    before, size, content = log.head, log.size_bytes, bench.content()
    bench.disk.fail_next("write", FULL, partial_bytes=written)
    with pytest.raises(DiskFullError, match="no room for 192 bytes"):
        log.append(group(2, 3))
    assert (log.head, log.size_bytes, log.poisoned) == (before, size, False)
    assert bench.content() == content
    for seed in range(10):  # a commit that was answered 'failed' is not there after power loss either
        other = make_bench(bench.disk.crash(random.Random(seed)))
        other.open().close()
        assert other.payloads() == group(1)
    commit(log, group(4))
    log.close()
    assert reopened(bench) == group(1, 4)


@pytest.mark.parametrize("step", ["write", "sync", "read"])
def test_a_disk_that_is_full_and_then_breaks_poisons(bench, step):
    log = bench.open()
    commit(log, group(1))
    bench.disk.fail_next("write", FULL, partial_bytes=50)
    bench.disk.fail_next(step, BROKEN, after=1 if step == "write" else 0)
    with pytest.raises(LogPoisonedError, match="taken back"):
        log.append(group(2, 3))
    check_poisoned(log, bench)
    assert reopened(bench) == group(1)


def test_a_write_that_breaks_poisons(bench):
    log = bench.open()
    commit(log, group(1))
    bench.disk.fail_next("write", BROKEN, partial_bytes=50)
    with pytest.raises(LogPoisonedError, match="broken"):
        log.append(group(2, 3))
    check_poisoned(log, bench)
    assert reopened(bench) == group(1)
    assert bench.cuts[0].dropped_bytes == 50


def test_a_sync_that_fails_poisons_and_is_not_tried_again(bench):
    log = bench.open()
    commit(log, group(1))
    log.append(group(2))
    bench.disk.fail_next("sync", BROKEN)
    with pytest.raises(LogPoisonedError, match="broken"):
        log.sync()
    syncs = bench.disk.operations["sync"]
    check_poisoned(log, bench)
    assert bench.disk.operations["sync"] == syncs


def test_after_a_failed_sync_the_next_start_makes_durable_what_it_found(bench):
    log = bench.open()
    commit(log, group(1))
    log.append(group(2, 3, size=700))
    bench.disk.fail_next("sync", BROKEN)
    with pytest.raises(LogPoisonedError):
        log.sync()
    log.close()
    # The kernel takes the pages for clean: without being written again, they would be gone after power loss.
    assert reopened(bench) == [*group(1), *group(2, 3, size=700)]
    for seed in range(20):
        other = make_bench(bench.disk.crash(random.Random(seed)))
        other.open().close()
        assert other.payloads() == [*group(1), *group(2, 3, size=700)]


def rotate(log):
    """An append that needs the next segment; group 1 was there before."""
    return log.append(group(2, size=4000))


ROTATION_WITHOUT_ROOM = [("open", NEXT), ("write", NEXT), ("rename", NEXT)]
ROTATION_SYNCS = [("sync", NEXT, 0), ("sync", NEXT, 1), ("sync_dir", DIRECTORY, 0), ("sync", FIRST, 0)]


@pytest.mark.parametrize(
    ("step", "path", "prepared"),
    [*((*step, False) for step in ROTATION_WITHOUT_ROOM), *((*step, True) for step in ROTATION_WITHOUT_ROOM[1:])],
)
@pytest.mark.parametrize("call", ["append", "place"])
def test_a_rotation_without_room_changes_nothing_and_is_tried_again(bench, step, path, prepared, call):
    log = bench.open()
    commit(log, group(1))
    if prepared:
        log.prepare_next_segment()
    head, size, content = log.head, log.size_bytes, bench.content()
    bench.disk.fail_next(step, FULL, path=path, partial_bytes=30)
    with pytest.raises(DiskFullError, match="next segment"):
        rotate(log) if call == "append" else log.place([4000])
    assert (log.head, log.size_bytes, log.poisoned) == (head, size, False)
    assert bench.content() == content
    assert sorted(bench.disk.list_dir(DIRECTORY)) == ["00000000000000000001.log", "taken-back"]
    commit(log, group(3))  # what fits goes on
    rotate(log)
    log.sync()
    log.close()
    assert reopened(bench) == [*group(1, 3), *group(2, size=4000)]


@pytest.mark.parametrize("capacity", [SEGMENT + 500, 2 * SEGMENT - 1])
def test_a_rotation_on_a_disk_that_is_really_full(bench, capacity):
    log = bench.open()
    commit(log, group(1))
    bench.disk.capacity_bytes = capacity
    with pytest.raises(DiskFullError):
        rotate(log)
    with pytest.raises(OSError, match="space"):
        log.prepare_next_segment()
    assert sorted(bench.disk.list_dir(DIRECTORY)) == ["00000000000000000001.log", "taken-back"]
    commit(log, group(3))
    bench.disk.capacity_bytes = None
    rotate(log)
    log.close()
    assert reopened(bench) == [*group(1, 3), *group(2, size=4000)]


def test_a_segment_for_which_there_is_no_room_takes_none(bench):
    """Found by tools/proof_disk_full.py: each attempt filled the disk with zeros, and commits that had room failed."""
    log = bench.open()
    commit(log, group(1))
    bench.disk.capacity_bytes = 2 * SEGMENT - 1
    bench.disk.fail_next("write", BROKEN, path=NEXT)
    with pytest.raises(OSError, match="space"):
        log.prepare_next_segment()
    with pytest.raises(DiskFullError):
        rotate(log)
    assert sorted(bench.disk.list_dir(DIRECTORY)) == ["00000000000000000001.log", "taken-back"]
    bench.disk.clear_faults()
    commit(log, group(3))
    log.close()


@pytest.mark.parametrize(("step", "path", "after"), ROTATION_SYNCS)
@pytest.mark.parametrize("error", [FULL, BROKEN], ids=["full", "broken"])
def test_a_sync_that_fails_in_a_rotation_poisons(bench, step, path, after, error):
    log = bench.open()
    commit(log, group(1))
    bench.disk.fail_next(step, error, path=path, after=after)
    with pytest.raises(LogPoisonedError):
        rotate(log)
    check_poisoned(log, bench)
    assert reopened(bench) == group(1)
    for seed in range(20):
        other = make_bench(bench.disk.crash(random.Random(seed)))
        other.open().close()
        assert other.payloads() == group(1)


@pytest.mark.parametrize(("step", "path"), [*ROTATION_WITHOUT_ROOM, ("truncate", FIRST)])
def test_a_rotation_that_breaks_poisons(bench, step, path):
    log = bench.open()
    commit(log, group(1))
    bench.disk.fail_next(step, BROKEN, path=path)
    with pytest.raises(LogPoisonedError, match="broken"):
        rotate(log)
    check_poisoned(log, bench)
    assert reopened(bench) == group(1)


def test_an_unsynced_group_is_synced_before_a_rotation(bench):
    log = bench.open()
    log.append(group(1))
    bench.disk.fail_next("sync", BROKEN, path=FIRST)
    with pytest.raises(LogPoisonedError):
        rotate(log)
    assert bench.segments() == [FIRST]


def test_a_full_segment_that_cannot_be_trimmed_for_want_of_room_is_trimmed_at_the_next_open(bench):
    log = bench.open()
    commit(log, group(1))
    bench.disk.fail_next("truncate", FULL, path=FIRST)
    rotate(log)
    log.sync()
    known_good = log.head
    log.close()
    assert len(bench.content()) == SEGMENT
    again = bench.open(known_good=known_good)
    assert len(bench.content()) == HEADER_BYTES + 36 + 60
    assert again.size_bytes == 2 * HEADER_BYTES + 2 * 36 + 60 + 4000
    again.close()


FIRST_OPEN = {"list_dir": 1, "make_dir": 1, "open": 2, "write": 3, "sync": 3, "rename": 1, "sync_dir": 3}


@pytest.mark.parametrize(
    ("step", "after"), [(step, after) for step, count in FIRST_OPEN.items() for after in range(count)]
)
def test_a_first_open_that_fails_at_any_step_is_tried_again(bench, step, after):
    bench.disk.fail_next(step, BROKEN, after=after)
    with pytest.raises(StorageError, match="cannot be opened"):
        bench.open()
    assert reopened(bench) == []
    bench.disk.clear_faults()
    assert reopened(make_bench(bench.disk.crash(random.Random(after)))) == []


def test_a_full_disk_at_open_is_called_so(bench):
    bench.disk.capacity_bytes = 100
    with pytest.raises(DiskFullError, match="cannot be opened"):
        bench.open()


# Reading


@pytest.fixture
def many(bench):
    """A log of several segments, its payloads, and pointers to them."""
    log = bench.open()
    rng = random.Random(11)
    contents = [payload(number, rng.randint(2, 900)) for number in range(400)]
    placements = []
    for start in range(0, 400, 4):
        placements += commit(log, contents[start : start + 4])
    assert len(bench.segments()) > 40
    yield log, contents, pointers(log, placements, contents)
    log.close()


def test_reads_give_what_was_written(many):
    log, contents, wanted = many
    assert [log.read(*pointer) for pointer in wanted] == contents
    commit_ts, offset, size, _ = wanted[7]
    assert log.read(commit_ts, offset + 1, size - 1, crc32(contents[7][1:])) == contents[7][1:]


@pytest.mark.parametrize("seed", range(20))
def test_read_many_is_read_in_any_order_and_density(many, seed):
    log, contents, wanted = many
    rng = random.Random(seed)
    chosen = sorted(rng.choices(range(len(wanted)), k=rng.randint(0, 200)))
    if seed % 2:
        rng.shuffle(chosen)
    assert log.read_many([wanted[index] for index in chosen]) == [contents[index] for index in chosen]


def test_neighbours_are_read_in_one_go_and_far_ones_are_not(bench):
    log = bench.open(segment_bytes=8 << 20)
    contents = group(*range(2000), size=1000)
    wanted = pointers(log, commit(log, contents), contents)

    def reads(chosen):
        before = bench.disk.operations["read"]
        assert log.read_many([wanted[index] for index in chosen]) == [contents[index] for index in chosen]
        return bench.disk.operations["read"] - before

    per_span = READ_CHUNK_BYTES // 1036
    assert reads(range(per_span)) == 1
    assert reads(range(2000)) == -(-2000 // per_span)
    assert reads(range(0, 200, 20)) == 1
    assert reads(range(0, 2000, 100)) == 20
    log.close()


def test_a_pointer_that_does_not_fit_a_log_that_is_whole_is_the_views_damage(many):
    log, contents, wanted = many
    commit_ts, offset, size, crc = wanted[300]
    for pointer in (
        (commit_ts, offset, size, crc ^ 1),
        (commit_ts, offset + 1, size, crc),
        (commit_ts - 100, offset, size, crc),
        (commit_ts, 10**6, size, crc),
        (400, 4000, 1000, crc),  # past the end
        (400, 10**6, 5, 0),  # the CRC-32 of nothing is 0
        (401, offset, size, crc),  # no commit yet
        (10**9, offset, size, crc),
        (0, offset, size, crc),
    ):
        for read in (lambda pointer=pointer: log.read(*pointer), lambda pointer=pointer: log.read_many([pointer])):
            with pytest.raises(ViewDamagedError, match=rf"a row .* commit_ts {pointer[0]}\b"):
                read()
    assert log.read_many(wanted) == contents


def test_a_pointer_to_a_group_that_was_taken_back_is_the_views_damage(bench):
    log = bench.open()
    contents = group(1, 2, 3)
    wanted = pointers(log, [*commit(log, contents[:1]), *commit(log, contents[1:])], contents)
    assert log.read_many(wanted) == contents
    log.roll_back()
    assert log.read(*wanted[0]) == contents[0]
    for pointer in wanted[1:]:
        with pytest.raises(ViewDamagedError, match=f"commit_ts {pointer[0]}"):
            log.read(*pointer)
    log.close()


@pytest.mark.parametrize("pointed", [201, 202, 204], ids=["at it", "behind it", "at the last of its segment"])
def test_a_pointer_that_does_not_fit_a_log_that_is_damaged_is_the_logs_damage(many, bench, pointed):
    log, _, wanted = many
    record = list(log.records(0))[200]
    bench.disk.flip_bit(f"{DIRECTORY}/{record.placement.segment:020d}.log", record.placement.offset + 1, 2)
    commit_ts, offset, size, crc = wanted[pointed - 1]
    assert commit_ts == pointed
    with pytest.raises(StoreDamagedError, match="commit_ts 201"):
        log.read(commit_ts, offset, size, crc ^ 1)


@pytest.mark.parametrize("what_is_left", [b"", bytes(500)], ids=["cut", "zeros"])
def test_a_sealed_segment_that_has_lost_its_end_is_the_logs_damage(many, bench, what_is_left):
    log, _, wanted = many
    record = list(log.records(0))[200]
    path = f"{DIRECTORY}/{record.placement.segment:020d}.log"
    bench.overwrite(path, bench.content(path)[: record.placement.offset - RECORD_OVERHEAD_BYTES] + what_is_left)
    with pytest.raises(StoreDamagedError, match=f"{path}: .* commit_ts 201"):
        log.read(*wanted[200])


def test_a_segment_is_checked_once_for_many_pointers_that_do_not_fit(many, bench):
    log, _, wanted = many
    first_ts = [record.commit_ts for record in log.records(0) if record.placement.offset < 200][30]

    def reads(commit_ts):
        before = bench.disk.operations["read"]
        _, offset, size, crc = wanted[commit_ts - 1]
        with pytest.raises(ViewDamagedError):
            log.read(commit_ts, offset, size, crc ^ 1)
        return bench.disk.operations["read"] - before

    assert reads(first_ts) > 1
    assert [reads(first_ts + 1), reads(first_ts + 2), reads(first_ts)] == [1, 1, 1]


@pytest.mark.parametrize("bit", [0, 8, 31])
def test_no_more_is_read_than_a_segment_has_whatever_a_pointer_says(many, bench, monkeypatch, bit):
    log, _, wanted = many
    commit_ts, offset, size, crc = wanted[300]
    asked = []
    read_at = SimulatedFile.read_at
    monkeypatch.setattr(SimulatedFile, "read_at", lambda *a: asked.append(a[2]) or read_at(*a))
    with pytest.raises(ViewDamagedError):
        log.read(commit_ts, offset, size ^ 1 << bit, crc)
    assert asked[0] <= max(READ_CHUNK_BYTES, SEGMENT)


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_pointer_beyond_the_head_hides_no_damage(bench, damaged):
    log = bench.open()
    contents = group(1)
    placements = commit(log, contents)
    with pytest.raises(ViewDamagedError):
        log.read(10**9, HEADER_BYTES, 60, 0)
    contents += group(2)
    wanted = pointers(log, [*placements, *commit(log, contents[1:])], contents)
    bench.disk.flip_bit(FIRST, wanted[damaged - 1][1])
    with pytest.raises(StoreDamagedError, match=f"commit_ts {damaged}"):
        log.read(*wanted[damaged - 1])
    log.close()


def test_a_pointer_that_does_not_fit_before_damage_is_the_views_and_hides_none(many, bench):
    log, contents, wanted = many
    record = list(log.records(0))[200]
    bench.disk.flip_bit(f"{DIRECTORY}/{record.placement.segment:020d}.log", record.placement.offset + 1, 2)
    commit_ts, offset, size, crc = wanted[199]
    with pytest.raises(ViewDamagedError):
        log.read(commit_ts, offset, size, crc ^ 1)
    assert log.read(*wanted[199]) == contents[199]
    with pytest.raises(StoreDamagedError, match="commit_ts 201"):
        log.read(*wanted[200])


def test_a_flipped_bit_is_found_by_whoever_reads_it(many, bench):
    log, contents, wanted = many
    record = list(log.records(0))[200]
    path = f"{DIRECTORY}/{record.placement.segment:020d}.log"
    bench.disk.flip_bit(path, record.placement.offset + 1, 2)
    offset = record.placement.offset - RECORD_OVERHEAD_BYTES
    with pytest.raises(StoreDamagedError, match=f"{path}: damaged at offset {offset}, commit_ts 201") as caught:
        log.read_many(wanted)
    assert caught.value.details == {"file": path, "offset": str(offset), "commit_ts": "201"}
    with pytest.raises(StoreDamagedError, match="commit_ts 201"):
        list(log.records(150))
    assert log.read_many(wanted[:200]) == contents[:200]
    assert [found.payload for found in log.records(201 + 20)] == contents[221:]


def test_read_failures_are_storage_errors_and_a_missing_segment_is_damage(many, bench):
    log, _, wanted = many
    bench.disk.fail_next("read", BROKEN)
    with pytest.raises(StorageError, match=f"cannot read commit_ts 1 at offset {wanted[0][1]}") as caught:
        log.read(*wanted[0])
    assert not isinstance(caught.value, StoreDamagedError)
    bench.disk.fail_next("read", BROKEN)
    with pytest.raises(StorageError, match="cannot be read"):
        list(log.records(0))
    path = bench.segments()[5]
    bench.disk.remove(path)
    with pytest.raises(StoreDamagedError, match=f"{path}.*the segment is missing"):
        log.read_many(wanted)


def test_records_from_anywhere(many):
    log, contents, _ = many
    for after in (0, 1, 3, 4, 5, 123, 398, 399, 400, 1000):
        assert [record.payload for record in log.records(after)] == contents[after:]
        assert [record.commit_ts for record in log.records(after)] == list(range(after + 1, 401))


def test_records_stop_at_the_head_of_the_call(bench):
    log = bench.open()
    commit(log, group(1, 2))
    records = log.records(0)
    commit(log, group(3))
    assert [record.payload for record in records] == group(1, 2)
    records = log.records(0)
    log.roll_back()
    assert [record.payload for record in records] == group(1, 2)
    log.close()


def test_few_segments_are_kept_open_and_all_can_be_read(bench, monkeypatch):
    log = bench.open(open_limit=3)
    contents = group(*range(40), size=900)
    wanted = pointers(log, [placement for content in contents for placement in commit(log, [content])], contents)
    closed = []
    close = SimulatedFile.close
    monkeypatch.setattr(SimulatedFile, "close", lambda file: (closed.append(1), close(file)))
    opens = bench.disk.operations["open"]
    assert [log.read(*pointer) for pointer in wanted] == contents
    assert bench.disk.operations["open"] - opens == len(bench.segments()) == 10
    assert len(closed) == 7
    assert log.read(*wanted[-1]) == contents[-1]
    assert bench.disk.operations["open"] - opens == 10
    log.close()


def test_a_handle_that_is_evicted_while_it_is_read_from_is_closed_afterwards(bench, monkeypatch):
    log = bench.open(open_limit=1)
    contents = group(*range(3), size=3000)
    wanted = pointers(log, [placement for content in contents for placement in commit(log, [content])], contents)
    read_at, close = SimulatedFile.read_at, SimulatedFile.close
    closed = []

    def read_others_first(file, offset, size):
        monkeypatch.setattr(SimulatedFile, "read_at", read_at)
        assert [log.read(*pointer) for pointer in wanted[1:]] == contents[1:]
        assert file not in closed
        log._readers.close()
        assert file not in closed
        evicted.append(file)
        return read_at(file, offset, size)

    evicted = []
    monkeypatch.setattr(SimulatedFile, "read_at", read_others_first)
    monkeypatch.setattr(SimulatedFile, "close", lambda file: (closed.append(file), close(file)))
    assert log.read(*wanted[0]) == contents[0]
    assert evicted[0] in closed
    assert len(closed) == 3


def test_threads_read_while_one_appends(bench):
    log = bench.open(open_limit=2)
    seed = 17
    rng = random.Random(seed)
    contents, wanted, failures = [], [], []
    done = threading.Event()

    def read(seed):
        rng = random.Random(seed)
        try:
            while not done.is_set() or rng.random() < 0.5:
                count = len(wanted)
                if count:
                    start = rng.randrange(count)
                    some = wanted[start : min(count, start + rng.randint(1, 30))]
                    assert log.read_many(some) == contents[start : start + len(some)]
                    assert log.read(*some[0]) == contents[start]
                    assert next(log.records(count - 1)).payload == contents[count - 1]
        except (AssertionError, StorageError, StopIteration) as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        new = [payload(number, rng.randint(2, 900)) for _ in range(rng.randint(1, 3))]
        first_ts = log.head.commit_ts + 1
        placements = commit(log, new)
        contents += new
        wanted += pointers(log, placements, new, first_ts)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == [], f"seed {seed}"
    log.close()
    assert reopened(bench) == contents
