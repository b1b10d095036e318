"""statehoused --check: what it says of a store at rest, how it exits, and that it leaves everything as it was."""

import json
import os
import random
import shutil
import signal
import tempfile

import pytest
from storage.fix_store import RealDisk, StoreBench, Writer

from statehouse.cli.statehoused import _exit_code
from statehouse.findings import Head
from statehouse.limits import MIB
from statehouse.storage import keys, offline
from statehouse.storage.lock import hold_data_directory, hold_for_reading
from statehouse.storage.view_home import LevelDBHome


@pytest.fixture(autouse=True)
def _signals_as_they_were():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def data(tmp_path):
    """A store at rest, with two snapshots; `data.bench` opens it again."""
    directory = tmp_path / "data"
    with hold_data_directory(directory, free_bytes_needed=0):
        bench = StoreBench(RealDisk(), LevelDBHome(directory / "state"), f"{directory}/", 64 * 1024)
        opened = bench.open(snapshot_interval=1)
        writer = Writer(opened.store)
        for seed in (1, 2):
            writer.commit_randomly(random.Random(seed), 30)
            opened.snapshots.write()
        head = opened.store.head
        bench.close()
    yield Data(directory, bench, str(Head(head.commit_ts, head.chain)))
    bench.close()


class Data:
    def __init__(self, directory, bench, head):
        self.directory, self.bench, self.head = directory, bench, head

    @property
    def segment(self):
        return max((self.directory / "log").glob("*.log"))

    def everything(self):
        """Every file: its bytes, and what the system says of it but for when it was read."""
        found = {}
        for path in sorted(self.directory.rglob("*")):
            status = path.lstat()
            meta = (
                status.st_ino,
                status.st_mode,
                status.st_nlink,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
            found[str(path)] = (meta, path.read_bytes() if path.is_file() else None)
        return found

    def without_tail(self, size_bytes):
        """Cut so many bytes of records off the last segment, as power loss may."""
        content = self.segment.read_bytes()
        end = len(content.rstrip(b"\0"))
        self.segment.write_bytes(content[: end - size_bytes] + bytes(len(content) - end + size_bytes))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where copies are made."""
    path = tmp_path / "scratch"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def check(data, scratch, capsys):
    """Run --check; its exit code, the lines that it printed, what it said on stderr. Nothing may have changed."""

    def check(*arguments):
        before = data.everything()
        code = _exit_code(["--check", "--data-dir", str(data.directory), *arguments])
        captured = capsys.readouterr()
        assert data.everything() == before
        assert not list(scratch.iterdir())
        return int(code), captured.out.splitlines(), captured.err

    return check


def test_a_sound_store(check, data):
    code, (verdict,), err = check("--head", data.head)
    assert (code, err) == (0, "")
    assert verdict.startswith(f"sound; head {data.head}; 60 records, ")
    assert "2 snapshots, 1 known head" in verdict


def test_for_programs(check, data):
    _, (line,), _ = check("--json")
    verdict = json.loads(line)
    assert (verdict["type"], verdict["sound"], verdict["head"], verdict["records"]) == ("verdict", True, data.head, 60)


def test_a_torn_tail_is_what_a_start_would_cut(check, data):
    for path in (data.directory / "state", data.directory / "snapshots"):
        shutil.rmtree(path)
    end = len(data.segment.read_bytes().rstrip(b"\0"))
    data.without_tail(5)
    code, (torn, missing, verdict), _ = check()
    assert code == 0
    assert torn.startswith("note view-missing  file=state")
    assert missing.startswith(f"note torn-tail  file=log/{data.segment.name}  offset=")
    assert int(missing.split("offset=")[1].split()[0]) < end - 5
    assert verdict.startswith("sound, 2 notes; head 59:")
    reopened = data.bench.open()  # and that is what it does
    assert (reopened.store.head_ts, len(data.bench.reports.cuts), reopened.recovery.source) == (59, 1, "log")


def test_the_same_tail_is_damage_when_the_view_has_it(check, data):
    data.without_tail(5)
    code, lines, _ = check()
    assert code == 5
    assert lines[0].startswith(f"FOUND record-damaged  file=log/{data.segment.name}  offset=")
    assert "commit_ts=60" in lines[0]
    assert "restore `log` from a backup" in lines[0]


def test_a_cut_log_is_found_by_a_head(check, data, tmp_path):
    for path in (data.directory / "state", data.directory / "snapshots"):
        shutil.rmtree(path)
    data.without_tail(5)
    file = tmp_path / "heads"
    file.write_text(f"# kept elsewhere\n{data.head}\n")
    code, lines, _ = check("--heads", str(file))
    assert code == 5
    assert any(line.startswith("FOUND head-cut  file=log  commit_ts=60") for line in lines)
    assert lines[-1].startswith("NOT SOUND: 1 finding, 2 notes")


def test_a_view_that_a_start_would_set_aside_is_a_note(check, data):
    (data.directory / "state" / "CONDEMNED").touch()
    code, lines, _ = check()
    assert (code, lines[0].split()[:2]) == (0, ["note", "view-unusable"])
    (data.directory / "state" / "CONDEMNED").unlink()
    (data.directory / "state" / "CURRENT").unlink()
    code, lines, _ = check()
    assert (code, lines[0].split()[:2]) == (0, ["note", "view-unusable"])
    assert "statehouse-check" not in lines[0]


def test_a_view_that_a_start_would_believe_and_that_is_wrong(check, data):
    store = data.bench.store()
    store._view.apply([(keys.event_key(b"\x02default\x00\x01alice\x00\x01", 7_000), bytes(12))])
    data.bench.close()
    code, (finding, verdict), _ = check()
    assert code == 5
    assert finding.startswith("FOUND row-extra  file=state  commit_ts=7000  namespace=default  agent=alice")
    assert verdict.startswith("NOT SOUND: 1 finding;")


@pytest.mark.parametrize("beyond", [1, 2, 3])
def test_a_table_that_was_not_finished_is_not_written_through_its_link(check, data, beyond):
    """A kill in the flush of a memtable leaves it; LevelDB takes its number again when it replays the log."""
    state = data.directory / "state"
    number = max(int(path.stem) for path in state.glob("*.log")) + beyond
    for suffix in ("ldb", "sst"):
        (state / f"{number:06}.{suffix}").write_bytes(b"half a table")
    state.chmod(0o500)
    assert check()[0] == 0
    state.chmod(0o700)


def test_a_view_with_tables_is_checked_with_all_of_them(check, data):
    data.bench.home.find().close()  # opening it writes what is in its log as a table
    assert list((data.directory / "state").glob("*.ldb"))
    assert check()[0] == 0


def test_what_the_system_does_not_let_be_read(data, capsys, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(offline, "_other_names", refuse)
    assert _exit_code(["--check", "--data-dir", str(data.directory)]) == 2
    assert "is not readable: Permission denied" in capsys.readouterr().err


def test_files_that_are_not_ours_are_mentioned(check, data):
    (data.directory / "README").touch()
    (data.directory / "state.set-aside").mkdir()
    (data.directory / "log" / "next.tmp").touch()
    code, lines, _ = check()
    assert code == 0
    assert [line.split()[1:3] for line in lines[:-1]] == [
        ["foreign-file", "file=README"],
        ["leftover", "file=state.set-aside"],
        ["leftover", "file=log/next.tmp"],
    ]


def test_control_characters_do_not_reach_the_terminal(check, data):
    (data.directory / "\x1b[31mred").touch()
    _, lines, _ = check()
    assert "\\x1b[31mred" in lines[0]


def test_a_store_that_is_held(data, capsys):
    with hold_data_directory(data.directory, free_bytes_needed=0):
        assert _exit_code(["--check", "--data-dir", str(data.directory)]) == 3
    assert f"held by another statehoused (pid {os.getpid()})" in capsys.readouterr().err


def test_a_check_keeps_daemons_out_and_other_checks_in(data, check):
    with hold_for_reading(data.directory):
        assert check()[0] == 0
        with pytest.raises(Exception, match="held"), hold_data_directory(data.directory, free_bytes_needed=0):
            pass


def test_a_copy_without_a_lock(check, data):
    (data.directory / "LOCK").unlink()
    assert check()[0] == 0


def test_a_log_that_is_gone(check, data):
    shutil.rmtree(data.directory / "log")
    code, lines, _ = check()
    assert code == 5
    assert lines[0].startswith("FOUND log-missing  file=log")


@pytest.mark.parametrize("what", ["nothing", "a file", "no store", "somebody else's"])
def test_where_there_is_no_store(tmp_path, capsys, what):
    path = tmp_path / "place"
    if what == "a file":
        path.touch()
    elif what != "nothing":
        path.mkdir()
        if what == "somebody else's":
            (path / "log").mkdir()
            (path / "log" / "syslog").touch()
    assert _exit_code(["--check", "--data-dir", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert path.exists() is (what != "nothing")


def test_no_room_for_the_copy(data, capsys, monkeypatch):
    usage = shutil.disk_usage(data.directory)
    monkeypatch.setattr(offline.shutil, "disk_usage", lambda _: usage._replace(free=MIB))
    assert _exit_code(["--check", "--data-dir", str(data.directory)]) == 6
    assert "name another directory with the variable TMPDIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--head", "7"], "TS:CHAIN"),
        (["--check", "--head", "7:00"], "TS:CHAIN"),
        (["--check", "--heads", "/nowhere/heads"], "cannot be read"),
        (["--check", "--use-memory"], "use_memory is on"),
        (["--json"], "go with --check"),
        (["--head", f"1:{'0' * 64}"], "go with --check"),
    ],
)
def test_bad_usage(data, capsys, arguments, message):
    assert _exit_code(["--data-dir", str(data.directory), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_file_of_heads_that_is_none(data, tmp_path, capsys):
    for content, message in ((b"x", "line 1"), (b"\xff", "not text"), (b"\n" * (3 * MIB), "too long")):
        file = tmp_path / "heads"
        file.write_bytes(content)
        assert _exit_code(["--check", "--data-dir", str(data.directory), "--heads", str(file)]) == 2
        assert message in capsys.readouterr().err


def test_a_signal_takes_the_copy_along(data, scratch, monkeypatch):
    def interrupted(self):
        signal.raise_signal(signal.SIGTERM)
        yield

    monkeypatch.setattr(offline.Verification, "events", interrupted)
    with pytest.raises(SystemExit) as ended:
        _exit_code(["--check", "--data-dir", str(data.directory)])
    assert ended.value.code == 128 + signal.SIGTERM
    assert not list(scratch.iterdir())


def test_the_help_teaches_it(capsys):
    assert _exit_code(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--check",
        "--heads FILE",
        "--head TS:CHAIN",
        "changes nothing in the data directory",
        "statehousectl head",
    ):
        assert part in text
