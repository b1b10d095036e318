"""What `Disk` and `File` promise, on the real disk and the simulated one."""

import errno
import os
from pathlib import Path

import pytest

from statehouse.storage.disk import RealDisk, RealFile, is_full
from statehouse.storage.simdisk import SimulatedDisk


@pytest.fixture(params=["real", "simulated"])
def place(request, tmp_path):
    """A disk and an empty directory on it."""
    if request.param == "real":
        return RealDisk(), str(tmp_path)
    disk = SimulatedDisk()
    disk.make_dir("/home")
    return disk, "/home"


def test_what_is_written_is_read_by_every_handle(place):
    disk, home = place
    writer = disk.open(f"{home}/a", create=True)
    reader = disk.open(f"{home}/a", read_only=True)
    writer.write_at(0, b"hello world")
    writer.write_at(6, b"there")
    assert reader.read_at(0, 11) == b"hello there"
    assert reader.read_at(6, 100) == b"there"
    assert reader.read_at(11, 5) == b""
    assert reader.read_at(500, 5) == b""
    assert reader.size() == writer.size() == 11
    writer.close()
    reader.close()


def test_a_write_past_the_end_leaves_zeros_between(place):
    disk, home = place
    file = disk.open(f"{home}/a", create=True)
    file.write_at(5, b"x")
    assert file.read_at(0, 6) == b"\0\0\0\0\0x"
    file.close()


def test_truncate_cuts_and_lengthens(place):
    disk, home = place
    file = disk.open(f"{home}/a", create=True)
    file.write_at(0, b"abcdef")
    file.truncate(2)
    file.truncate(4)
    assert (file.size(), file.read_at(0, 9)) == (4, b"ab\0\0")
    file.sync()
    file.close()


def test_create_empties_what_is_there_and_open_does_not(place):
    disk, home = place
    for create, expected in ((True, 0), (False, 3), (True, 0)):
        file = disk.open(f"{home}/a", create=create)
        assert file.size() == expected
        file.write_at(0, b"abc")
        file.close()


def test_opening_what_is_missing_or_a_directory(place):
    disk, home = place
    with pytest.raises(FileNotFoundError):
        disk.open(f"{home}/missing")
    with pytest.raises(FileNotFoundError):
        disk.open(f"{home}/missing/a", create=True)
    for read_only in (False, True):
        with pytest.raises(IsADirectoryError):
            disk.open(home, read_only=read_only)
    disk.open(f"{home}/a", create=True).close()
    with pytest.raises(NotADirectoryError):
        disk.open(f"{home}/a/b", create=True)


def test_a_closed_handle_and_a_read_only_one_refuse(place):
    disk, home = place
    file = disk.open(f"{home}/a", create=True)
    file.close()
    file.close()
    reader = disk.open(f"{home}/a", read_only=True)
    for refused in (
        lambda: file.write_at(0, b"x"),
        lambda: file.read_at(0, 1),
        lambda: file.truncate(0),
        file.size,
        file.sync,
        lambda: reader.write_at(0, b"x"),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what is checked
            refused()
        assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError):  # noqa: PT011 - EINVAL on Linux, EBADF here
        reader.truncate(0)
    reader.close()


def test_rename_replaces_and_open_handles_stay_good(place):
    disk, home = place
    old, new = disk.open(f"{home}/old", create=True), disk.open(f"{home}/new", create=True)
    old.write_at(0, b"old")
    new.write_at(0, b"new")
    disk.rename(f"{home}/old", f"{home}/new")
    assert disk.list_dir(home) == ["new"]
    assert (old.read_at(0, 3), new.read_at(0, 3)) == (b"old", b"new")
    third = disk.open(f"{home}/new")
    assert third.read_at(0, 3) == b"old"
    disk.remove(f"{home}/new")
    assert third.read_at(0, 3) == b"old"
    for file in (old, new, third):
        file.close()
    with pytest.raises(FileNotFoundError):
        disk.rename(f"{home}/new", f"{home}/x")
    with pytest.raises(FileNotFoundError):
        disk.remove(f"{home}/new")


def test_directories(place):
    disk, home = place
    disk.make_dir(f"{home}/a")
    disk.open(f"{home}/a/f", create=True).close()
    with pytest.raises(FileExistsError):
        disk.make_dir(f"{home}/a")
    with pytest.raises(FileNotFoundError):
        disk.make_dir(f"{home}/x/y")
    with pytest.raises(FileNotFoundError):
        disk.list_dir(f"{home}/x")
    with pytest.raises(NotADirectoryError):
        disk.list_dir(f"{home}/a/f")
    with pytest.raises(OSError):  # noqa: PT011 - EISDIR on Linux, EPERM elsewhere
        disk.remove(f"{home}/a")
    disk.rename(f"{home}/a", f"{home}/b")
    assert disk.list_dir(f"{home}/b") == ["f"]
    assert [disk.exists(f"{home}/{name}") for name in ("a", "b", "b/f", "b/g", "b/f/g")] == [
        False,
        True,
        True,
        False,
        False,
    ]
    disk.sync_dir(home)
    with pytest.raises(FileNotFoundError):
        disk.sync_dir(f"{home}/a")
    assert disk.free_bytes(home) > 0


def test_files_are_private(tmp_path):
    disk = RealDisk()
    disk.make_dir(f"{tmp_path}/d")
    disk.open(f"{tmp_path}/d/f", create=True).close()
    assert (tmp_path / "d").stat().st_mode & 0o077 == 0
    assert (tmp_path / "d" / "f").stat().st_mode & 0o077 == 0


@pytest.fixture
def real_file(tmp_path):
    file = RealDisk().open(f"{tmp_path}/f", create=True)
    yield file
    file.close()


def test_short_writes_are_gone_on_with(real_file: RealFile, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, chunk, offset: pwrite(descriptor, chunk[:3], offset))
    real_file.write_at(2, b"0123456789")
    assert real_file.read_at(0, 20) == b"\0\x000123456789"


def test_a_write_that_makes_no_progress_is_a_full_disk(real_file: RealFile, monkeypatch):
    answers = iter((4, 0))
    monkeypatch.setattr(os, "pwrite", lambda *_: next(answers))
    with pytest.raises(OSError, match="no more bytes") as caught:
        real_file.write_at(0, b"0123456789")
    assert is_full(caught.value)


def test_a_disk_that_fills_up_during_a_short_write(real_file: RealFile, monkeypatch):
    def fill_up(descriptor, chunk, offset):
        if offset:
            raise OSError(errno.ENOSPC, "full")
        return 4

    monkeypatch.setattr(os, "pwrite", fill_up)
    with pytest.raises(OSError, match="full") as caught:
        real_file.write_at(0, b"0123456789")
    assert is_full(caught.value)
    assert str(caught.value.filename).endswith("/f")


def test_short_reads_are_gone_on_with(real_file: RealFile, monkeypatch):
    real_file.write_at(0, b"0123456789")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: pread(descriptor, min(size, 3), offset))
    assert real_file.read_at(1, 8) == b"12345678"
    assert real_file.read_at(1, 80) == b"123456789"


@pytest.mark.parametrize("call", ["fdatasync", "pread", "pwrite", "ftruncate"])
def test_errors_name_the_file(real_file: RealFile, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.EIO, "broken")

    real_file.write_at(0, b"abc")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="broken") as caught:
        {
            "fdatasync": real_file.sync,
            "pread": lambda: real_file.read_at(0, 1),
            "pwrite": lambda: real_file.write_at(0, b"x"),
            "ftruncate": lambda: real_file.truncate(0),
        }[call]()
    assert str(caught.value.filename).endswith("/f")
    assert not is_full(caught.value)


def test_a_failed_sync_of_a_directory_names_it_and_leaks_nothing(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "broken")

    def open_descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_descriptors()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken") as caught:
        RealDisk().sync_dir(str(tmp_path))
    assert caught.value.filename == str(tmp_path)
    assert open_descriptors() == before


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    """Found by a newcomer: a named pipe in a segment's place hung starts, verifications and the daemon's stop."""
    os.mkfifo(tmp_path / "pipe")
    for read_only in (True, False):
        with pytest.raises(OSError, match="it is not a file"):
            RealDisk().open(str(tmp_path / "pipe"), read_only=read_only)
