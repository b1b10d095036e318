"""The data directory: what is refused before anything is written, and who holds it."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from statehouse.errors import DataDirectoryError, DataDirectoryHeldError, StatehouseError
from statehouse.limits import FREE_DISK_BYTES, MIB
from statehouse.storage.lock import hold_data_directory


def refused(path, kind=DataDirectoryError, **arguments):
    with pytest.raises(kind) as caught, hold_data_directory(path, **arguments):
        pass
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path):
    with hold_data_directory(tmp_path / "a" / "b") as held:
        assert held == tmp_path / "a" / "b"
        assert held.stat().st_mode & 0o777 == 0o700
        assert (held / "LOCK").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("is_there", [False, True], ids=["made now", "made by a start that died"])
def test_the_directorys_own_name_is_made_durable_at_every_start(tmp_path, monkeypatch, is_there):
    synced, fsync = [], os.fsync

    def watched(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    if is_there:
        (tmp_path / "data").mkdir()
    with hold_data_directory(tmp_path / "data"):
        assert tmp_path in synced


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with hold_data_directory(Path("./here")) as held:
        assert held == tmp_path / "here"


def test_a_second_holder_is_refused_with_the_pid_of_the_first(tmp_path):
    with hold_data_directory(tmp_path):
        message = refused(tmp_path, DataDirectoryHeldError)
        assert message == f"the data directory {tmp_path} is held by another statehoused (pid {os.getpid()})"
        refused(tmp_path, DataDirectoryHeldError)  # being refused takes nothing from the holder
    with hold_data_directory(tmp_path):
        pass


def test_the_lock_is_held_before_its_pid_is_written(tmp_path):
    with hold_data_directory(tmp_path):
        (tmp_path / "LOCK").write_text("")
        assert "(its pid is not known yet)" in refused(tmp_path, DataDirectoryHeldError)


def test_the_lock_is_left_when_the_block_raises(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_data_directory(tmp_path):
        raise ZeroDivisionError
    with hold_data_directory(tmp_path):
        pass


def test_a_file_is_no_data_directory(tmp_path):
    (tmp_path / "file").write_text("precious")
    assert refused(tmp_path / "file") == f"the data directory {tmp_path / 'file'} is a file"
    assert refused(tmp_path / "file" / "below").endswith("cannot be made: Not a directory")
    assert (tmp_path / "file").read_text() == "precious"


def test_a_directory_that_even_root_cannot_make():
    assert "/proc/statehouse cannot be made: " in refused(Path("/proc/statehouse"))


def test_a_directory_that_cannot_be_written(tmp_path):
    """In a child that is nobody, because root may write everywhere."""
    tmp_path.chmod(0o555)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                for ancestor in tmp_path.parents[:3]:  # pytest's folders are for their owner alone
                    ancestor.chmod(ancestor.stat().st_mode | 0o011)
                os.setuid(65534)
            with hold_data_directory(tmp_path):
                os.write(writing, b"held")
        except StatehouseError as error:
            os.write(writing, error.message.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read() == f"the data directory {tmp_path} is not writable: Permission denied"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        (["notes.txt"], "notes.txt"),
        (["LOCK", "LOG", "CURRENT", "MANIFEST-000001"], "CURRENT"),  # a LevelDB
        (["log/", "log/nginx.log"], "log/nginx.log"),
        (["log/", "log/00000000000000000001.log.bak"], "log/00000000000000000001.log.bak"),
        (["state/", "src/"], "src"),
    ],
)
def test_a_directory_of_somebody_else_is_left_as_it_is(entries, named, tmp_path):
    lay(tmp_path, entries)
    assert refused(tmp_path) == (
        f"the data directory {tmp_path} holds files that are not Statehouse's, such as {named!r}: "
        "name an empty or a new directory"
    )
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == sorted(e.rstrip("/") for e in entries)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        ["lost+found/"],
        ["LOCK", "state/", "snapshots/"],
        ["log/"],
        ["log/", "log/next.tmp", "log/00000000000000000001.log", "backup.tar", "README"],
        ["log/", "log/lost+found/"],
        ["log/", "log/00000000000000000001.log", "log/00000000000000000001.log.bak", "log/lost+found/", "log/notes"],
        ["log/", "state/", "state.set-aside/"],
    ],
)
def test_what_a_start_can_leave_and_what_an_operator_may_add(entries, tmp_path):
    lay(tmp_path, entries)
    with hold_data_directory(tmp_path):
        pass


def lay(directory, entries):
    for entry in entries:
        path = directory / entry
        if entry.endswith("/"):
            path.mkdir()
        else:
            path.write_text("x")


def test_too_little_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=FREE_DISK_BYTES // 4096 - 1, f_frsize=4096))
    assert refused(tmp_path) == (
        f"the disk of the data directory {tmp_path} has 255 MiB free and the daemon needs 256 MiB to start"
    )
    with hold_data_directory(tmp_path, free_bytes_needed=100 * MIB):
        pass
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=FREE_DISK_BYTES // 4096, f_frsize=4096))
    with hold_data_directory(tmp_path):
        pass
