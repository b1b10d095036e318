"""What the simulated disk does beyond the protocol: power loss, and faults on request."""

import errno
import random
import threading
from collections import Counter

import pytest

from statehouse.storage.simdisk import SimulatedDisk

SEEDS = range(200)
SECTOR = 512


@pytest.fixture
def disk():
    disk = SimulatedDisk()
    disk.make_dir("/d")
    disk.sync_dir("/")
    return disk


def make_file(disk, path="/d/f", content=b"", *, synced=True):
    file = disk.open(path, create=True)
    file.write_at(0, content)
    if synced:
        file.sync()
        disk.sync_dir("/d")
    return file


def found_after_crash(disk, path="/d/f"):
    """What each seed leaves of a file; None when it is not there."""
    for seed in SEEDS:
        after = disk.crash(random.Random(seed))
        if not after.exists(path):
            yield None
            continue
        file = after.open(path)
        yield file.read_at(0, file.size())


def test_what_was_synced_survives_every_crash(disk):
    make_file(disk, content=b"x" * 3000)
    assert set(found_after_crash(disk)) == {b"x" * 3000}


def test_unsynced_sectors_survive_one_by_one(disk):
    file = make_file(disk, content=b"x" * 2048)
    file.write_at(0, b"y" * 2048)
    found = set(found_after_crash(disk))
    assert {b"x" * 2048, b"y" * 2048} <= found
    assert any(content[:SECTOR] == b"x" * SECTOR and content[-SECTOR:] == b"y" * SECTOR for content in found)
    for content in found:
        for start in range(0, 2048, SECTOR):
            assert content[start : start + SECTOR] in {b"x" * SECTOR, b"y" * SECTOR}


def test_writes_tear_at_512_and_at_4096_bytes_and_may_survive_in_the_order_in_which_they_were_made(disk):
    file = make_file(disk, content=b"x" * 16384)
    for start in (8192, 0):
        file.write_at(start, b"y" * 8192)
    sectors = set()
    for content in found_after_crash(disk):
        sectors.add(tuple(content[start : start + 1] == b"y" for start in range(0, 16384, SECTOR)))
    at_4096 = {kept for kept in sectors if all(len(set(kept[start : start + 8])) == 1 for start in range(0, 32, 8))}
    assert len(at_4096) >= 8
    assert len(sectors - at_4096) >= 8
    assert (False,) * 16 + (True,) * 8 + (False,) * 8 in sectors  # a prefix of what was written, in its order


def test_unsynced_size_may_be_lost_kept_or_in_between(disk):
    file = make_file(disk, content=b"x" * 1000)
    file.write_at(1000, b"y" * 4000)
    sizes = {len(content) for content in found_after_crash(disk)}
    assert {1000, 5000} <= sizes
    assert len(sizes) > 2
    assert all(content[:1000].strip(b"x") == b"" for content in found_after_crash(disk))
    assert any(set(content[1000:]) == {0} for content in found_after_crash(disk))


def test_an_unsynced_truncation_may_be_undone(disk):
    file = make_file(disk, content=b"x" * 2000)
    file.truncate(100)
    found = set(found_after_crash(disk))
    assert b"x" * 2000 in found
    assert b"x" * 100 in found
    file.sync()
    assert set(found_after_crash(disk)) == {b"x" * 100}


@pytest.mark.parametrize("synced", [False, True])
def test_a_new_name_survives_for_sure_only_when_its_directory_is_synced(disk, synced):
    disk.open("/d/f", create=True).sync()
    if synced:
        disk.sync_dir("/d")
    assert set(found_after_crash(disk)) == ({b""} if synced else {b"", None})


def test_a_rename_and_a_removal_may_be_undone(disk):
    make_file(disk, "/d/a", b"a")
    make_file(disk, "/d/b", b"b")
    disk.rename("/d/a", "/d/b")
    make_file(disk, "/d/c", b"c")  # syncs the directory
    disk.remove("/d/c")
    disk.rename("/d/b", "/d/e")
    seen = Counter(frozenset(disk.crash(random.Random(seed)).list_dir("/d")) for seed in SEEDS)
    assert set(seen) == {frozenset(names) for names in (("b", "c"), ("b",), ("e", "c"), ("e",))}


def test_a_directory_that_was_not_synced_takes_its_files_with_it(disk):
    disk.make_dir("/d/e")
    make_file(disk, "/d/e/f", b"x", synced=False).sync()
    disk.sync_dir("/d/e")
    assert set(found_after_crash(disk, "/d/e/f")) == {b"x", None}


def test_a_crash_leaves_the_disk_as_it_is_and_the_found_one_is_durable(disk):
    file = make_file(disk, content=b"x" * 600)
    file.write_at(0, b"y" * 600)
    found = disk.crash(random.Random(3))
    again = disk.crash(random.Random(3))
    assert found.open("/d/f").read_at(0, 600) == again.open("/d/f").read_at(0, 600)
    kept = found.open("/d/f").read_at(0, 600)
    assert set(found_after_crash(found)) == {kept}
    found.open("/d/f").write_at(0, b"z" * 600)
    assert file.read_at(0, 600) == b"y" * 600


def test_after_a_failed_sync_the_next_one_succeeds_and_the_bytes_are_gone(disk):
    file = make_file(disk, content=b"x" * SECTOR)
    file.write_at(0, b"y" * SECTOR)
    disk.fail_next("sync", OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        file.sync()
    file.sync()
    assert b"x" * SECTOR in set(found_after_crash(disk))
    file.write_at(0, b"y" * SECTOR)  # written once more, it is dirty once more
    file.sync()
    assert set(found_after_crash(disk)) == {b"y" * SECTOR}


def test_a_full_disk_takes_what_fits(disk):
    disk.capacity_bytes = 1000
    file = make_file(disk, content=b"x" * 900)
    assert disk.free_bytes("/d") == 100
    file.write_at(0, b"y" * 900)  # in place: needs no room
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what is checked
        file.write_at(800, b"z" * 300)
    assert caught.value.errno == errno.ENOSPC
    assert file.read_at(0, 2000) == b"y" * 800 + b"z" * 200
    with pytest.raises(OSError, match="space"):
        file.truncate(1001)
    disk.remove("/d/f")
    assert disk.free_bytes("/d") == 1000


OPERATIONS = {
    "open": lambda disk, file: disk.open("/d/f"),
    "read": lambda disk, file: file.read_at(0, 1),
    "write": lambda disk, file: file.write_at(0, b"z"),
    "sync": lambda disk, file: file.sync(),
    "truncate": lambda disk, file: file.truncate(1),
    "list_dir": lambda disk, file: disk.list_dir("/d"),
    "make_dir": lambda disk, file: disk.make_dir("/e"),
    "rename": lambda disk, file: disk.rename("/d/f", "/d/g"),
    "remove": lambda disk, file: disk.remove("/d/f"),
    "sync_dir": lambda disk, file: disk.sync_dir("/d"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_can_be_made_to_fail_once(disk, operation):
    file = make_file(disk, content=b"abc")
    disk.fail_next(operation, OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken") as caught:
        OPERATIONS[operation](disk, file)
    assert caught.value.filename is not None
    assert (disk.list_dir("/d"), file.read_at(0, 9)) == (["f"], b"abc")
    OPERATIONS[operation](disk, file)


def test_a_fault_waits_for_its_turn_and_its_path(disk):
    one, two = make_file(disk, "/d/one", b"1"), make_file(disk, "/d/two", b"2")
    disk.fail_next("write", OSError(errno.EIO, "broken"), after=1, path="/d/two", partial_bytes=2)
    one.write_at(0, b"abc")
    two.write_at(0, b"abc")
    one.write_at(0, b"def")
    with pytest.raises(OSError, match="broken"):
        two.write_at(0, b"xyz")
    assert two.read_at(0, 9) == b"xyc"
    disk.fail_next("write", OSError(errno.EIO, "broken"))
    disk.clear_faults()
    two.write_at(0, b"abc")
    assert disk.operations["write"] == 7


def test_a_flipped_bit_is_flipped_on_the_medium_too(disk):
    file = make_file(disk, content=b"aaaa")
    file.write_at(0, b"bbbb")
    disk.flip_bit("/d/f", 1, 3)
    assert file.read_at(0, 4) == bytes((98, 98 ^ 8, 98, 98))
    assert set(found_after_crash(disk)) == {bytes((98, 98 ^ 8, 98, 98)), bytes((97, 97 ^ 8, 97, 97))}


def test_threads_share_a_disk(disk):
    file = make_file(disk)

    def write(number):
        for turn in range(200):
            file.write_at(number * 600, bytes([number]) * 600)
            assert file.read_at(number * 600, 600) == bytes([number]) * 600, turn

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_at(0, 4000) == b"".join(bytes([number]) * 600 for number in range(4))
