"""LevelDB when it is hurt: what docs and experiments say it does, and what the view makes of it."""

import random
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import plyvel
import pytest

from statehouse.storage import leveldb_log, leveldb_view
from statehouse.storage.leveldb_log import sequence_gap
from statehouse.storage.leveldb_view import LevelDBView
from statehouse.storage.view import ViewDamagedError, ViewUnavailableError, ViewWriteError

ALL = (b"", b"\xff")
ROWS = 20_000


def rows(count=ROWS):
    return [(b"key-%06d" % number, b"value-%06d" % number * 3) for number in range(count)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state")


@pytest.fixture
def filled(path):
    """A closed view with table files, and its path."""
    with closing(LevelDBView.open(path, create=True)) as view:
        view.apply(rows())
    # LevelDB writes its own log into a table when it is opened again.
    LevelDBView.open(path, create=False).close()
    return path


def files(path, suffix):
    found = sorted(file for file in Path(path).iterdir() if file.name.endswith(suffix))
    assert found
    return found


def flip(file, offset):
    content = bytearray(file.read_bytes())
    content[offset] ^= 0x10
    file.write_bytes(content)


def test_what_was_applied_is_there_after_reopening(filled):
    with closing(LevelDBView.open(filled, create=False)) as view:
        assert list(view.scan(*ALL)) == rows()
        assert view.get(b"key-000007") == rows()[7][1]


def test_create_wants_a_directory_of_its_own(filled, tmp_path):
    with pytest.raises(FileExistsError):
        LevelDBView.open(filled, create=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileExistsError):
        LevelDBView.open(str(tmp_path / "empty"), create=True)


def test_nothing_is_made_where_there_is_no_view(path, tmp_path):
    with pytest.raises(ViewDamagedError, match="no view"):
        LevelDBView.open(path, create=False)
    assert not Path(path).exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ViewDamagedError, match="does not exist"):
        LevelDBView.open(str(empty), create=False)
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ViewDamagedError):
        LevelDBView.open(str(tmp_path / "file"), create=False)


def test_a_missing_current_is_damage_and_deletes_nothing(filled):
    (Path(filled) / "CURRENT").unlink()
    before = {file.name: file.read_bytes() for file in files(filled, ".ldb")}
    with pytest.raises(ViewDamagedError):
        LevelDBView.open(filled, create=False)
    assert {file.name: file.read_bytes() for file in files(filled, ".ldb")} == before


@pytest.mark.parametrize("what", ["missing table", "missing manifest", "bad manifest", "bad CURRENT"])
def test_files_that_are_missing_or_changed_are_damage_at_open(filled, what):
    if what == "missing table":
        files(filled, ".ldb")[0].unlink()
    elif what == "missing manifest":
        next(Path(filled).glob("MANIFEST-*")).unlink()
    elif what == "bad manifest":
        flip(next(Path(filled).glob("MANIFEST-*")), 20)
    else:
        (Path(filled) / "CURRENT").write_text("MANIFEST-00")
    with pytest.raises(ViewDamagedError):
        LevelDBView.open(filled, create=False)


@pytest.mark.parametrize("part", range(16))
def test_a_flipped_bit_in_a_table_never_reads_as_another_value(filled, part):
    table = files(filled, ".ldb")[0]
    flip(table, (table.stat().st_size - 1) * part // 15)
    expected = dict(rows())
    damage = 0
    try:
        with closing(LevelDBView.open(filled, create=False)) as view:
            for key, value in expected.items():
                try:
                    assert view.get(key) == value
                except ViewDamagedError:
                    damage += 1
            try:
                assert list(view.scan(*ALL)) == rows()
            except ViewDamagedError:
                damage += 1
            try:
                with closing(view.snapshot()) as snapshot:
                    assert list(snapshot.scan(*ALL, reverse=True)) == rows()[::-1]
            except ViewDamagedError:
                damage += 1
    except ViewDamagedError:
        damage += 1
    # The last bytes of a table are padding and a magic number, in which a flip is found too; the filter, which only
    # says where not to look, and the properties of the file may have some in which nothing depends on a bit.
    assert damage or part >= 14


BATCHES = 300


@pytest.fixture
def logged(path):
    """A closed view whose batches stand in LevelDB's own log; each writes its number under two keys."""
    with closing(LevelDBView.open(path, create=True)) as view:
        for number in range(BATCHES):
            view.apply([(b"watermark", b"%d" % number), (b"key-%06d" % number, bytes(300))])
    return path


@pytest.mark.parametrize("cut", ["one byte", "half", "everything", "deleted"])
def test_a_cut_log_is_a_view_that_is_behind_and_whole_up_to_its_watermark(logged, cut):
    """LevelDB does not notice: that is why every batch carries a watermark, and why the log is asked."""
    (log,) = files(logged, ".log")
    content = log.read_bytes()
    if cut == "deleted":
        log.unlink()
    else:
        log.write_bytes(content[: {"one byte": len(content) - 1, "half": len(content) // 2, "everything": 0}[cut]])
    with closing(LevelDBView.open(logged, create=False)) as view:
        keys = [key for key, _ in view.scan(b"key-", b"key.")]
        watermark = view.get(b"watermark")
    last = -1 if watermark is None else int(watermark)
    assert last < BATCHES - 1
    assert keys == [b"key-%06d" % number for number in range(last + 1)]
    assert (last > BATCHES // 4) == (cut in {"one byte", "half"})


@pytest.mark.parametrize("part", range(1, 10))
def test_a_flipped_bit_in_leveldbs_log_is_damage_at_open(logged, part):
    (log,) = files(logged, ".log")
    flip(log, log.stat().st_size * part // 10)
    with pytest.raises(ViewDamagedError):
        LevelDBView.open(logged, create=False)


RECORDS_IN_A_BLOCK = 8
BLOCK = 32 * 1024


@pytest.fixture
def aligned(path):
    """A closed view whose log has a batch in each eighth of a block, so that it can be cut and joined anywhere."""
    with closing(LevelDBView.open(path, create=True)) as view:
        for number in range(4 * RECORDS_IN_A_BLOCK):
            view.apply([(b"key-%06d" % number, bytes(4063))])
    (log,) = files(path, ".log")
    assert log.stat().st_size == 4 * BLOCK
    return log


def keys_that_leveldb_finds(path):
    """What LevelDB makes of it when it is left alone."""
    with closing(plyvel.DB(str(path), paranoid_checks=True)) as db:
        return [int(key[4:]) for key in db.iterator(include_value=False)]


def test_logs_that_follow_each_other_are_whole(aligned):
    content = aligned.read_bytes()
    aligned.write_bytes(content[: 2 * BLOCK])
    aligned.with_name("000010.log").write_bytes(content[2 * BLOCK :])
    with closing(LevelDBView.open(str(aligned.parent), create=False)) as view:
        assert len(list(view.scan(*ALL))) == 32


def lose_the_tail_of_an_older_log(log):
    content = log.read_bytes()
    log.write_bytes(content[: 2 * BLOCK - 4096])
    log.with_name("000010.log").write_bytes(content[2 * BLOCK :])


def lose_a_page_in_the_middle(log):
    content = bytearray(log.read_bytes())
    content[BLOCK + 4096 : BLOCK + 8192] = bytes(4096)
    log.write_bytes(content)


def lose_a_whole_block(log):
    content = bytearray(log.read_bytes())
    content[BLOCK : 2 * BLOCK] = bytes(BLOCK)
    log.write_bytes(content)


def lose_an_older_log_as_a_whole(log):
    log.with_name("000010.log").write_bytes(log.read_bytes()[2 * BLOCK :])
    log.unlink()


def lose_all_but_the_end_of_an_older_log(log):
    log.write_bytes(log.read_bytes()[2 * BLOCK :])


@pytest.mark.parametrize(
    "lose",
    [
        lose_the_tail_of_an_older_log,
        lose_a_page_in_the_middle,
        lose_a_whole_block,
        lose_an_older_log_as_a_whole,
        lose_all_but_the_end_of_an_older_log,
    ],
)
def test_batches_that_power_loss_took_from_the_middle_are_damage(aligned, tmp_path, lose):
    """LevelDB passes over them, and the newest watermark is there: nothing else would notice."""
    lose(aligned)
    shutil.copytree(aligned.parent, tmp_path / "copy")
    found = keys_that_leveldb_finds(tmp_path / "copy")
    assert found[-1] == 31
    assert len(found) < 32
    with pytest.raises(ViewDamagedError, match="batches are missing"):
        LevelDBView.open(str(aligned.parent), create=False)


def plyvel_rows(path):
    with closing(plyvel.DB(str(path), paranoid_checks=True)) as db:
        return list(db)


@pytest.mark.parametrize("how", ["stale", "cut"])
def test_a_manifest_that_is_older_than_the_logs_is_damage(path, how):
    """Its tables are all there, and LevelDB replays what logs there are: those in between are not missed."""
    folder = Path(path)
    with closing(LevelDBView.open(path, create=True)) as view:
        view.apply([(b"1", b"")])
    names = [file.name for file in folder.iterdir() if file.name.startswith(("CURRENT", "MANIFEST"))]
    before = {name: (folder / name).read_bytes() for name in names}
    for key in (b"2", b"3"):  # each start makes a table of the log, and a new MANIFEST
        with closing(LevelDBView.open(path, create=False)) as view:
            view.apply([(key, b"")])
    if how == "cut":  # before the edits of the last start
        (now,) = (file for file in folder.iterdir() if file.name.startswith("MANIFEST"))
        before = {now.name: next(content for name, content in before.items() if name.startswith("MANIFEST"))}
    for name, content in before.items():
        (folder / name).write_bytes(content)
    shutil.copytree(path, folder.with_name("copy"))
    assert [key for key, _ in plyvel_rows(folder.with_name("copy"))] == [b"3"]
    with pytest.raises(ViewDamagedError, match=r"batches are missing: .* to be replayed first"):
        LevelDBView.open(path, create=False)


@pytest.mark.parametrize("flushes", [1, 2])
def test_an_older_log_by_a_newer_ones_name_is_damage(path, monkeypatch, flushes):
    """LevelDB takes the rows that it replays for the newest: `get` then finds old ones."""
    monkeypatch.setitem(leveldb_view.SETTINGS, "write_buffer_size", 64 * 1024)  # the least that LevelDB takes
    with closing(LevelDBView.open(path, create=True)) as view:
        view.apply([(b"k", b"old"), (b"watermark", b"1")])
    (older,) = files(path, ".log")
    content = older.read_bytes()
    with closing(LevelDBView.open(path, create=False)) as view:
        number = 1
        while len(list(Path(path).glob("*.ldb"))) < 1 + flushes or len(files(path, ".log")) > 1:
            number += 1
            view.apply([(b"k", b"new"), (b"watermark", b"%d" % number), (b"filler", random.randbytes(4_000))])
    (newest,) = files(path, ".log")
    assert sequence_gap(Path(path)) is None
    newest.write_bytes(content)
    shutil.copytree(path, f"{path}-copy")
    assert (b"k", b"new") not in plyvel_gets(f"{path}-copy", [b"k", b"watermark"])
    with pytest.raises(ViewDamagedError, match=r"begins with 1, and the tables go on to \d+ at least"):
        LevelDBView.open(path, create=False)


def test_an_early_copy_of_an_opens_first_log_by_the_next_ones_name_is_damage(path, monkeypatch):
    monkeypatch.setitem(leveldb_view.SETTINGS, "write_buffer_size", 64 * 1024)
    with closing(LevelDBView.open(path, create=True)) as view:
        view.apply([(b"k", b"old"), (b"watermark", b"1")])
        (first,) = files(path, ".log")
        content = first.read_bytes()
        while len(list(Path(path).glob("*.log"))) == 1 and first.exists():
            view.apply([(b"k", b"new"), (b"filler", random.randbytes(4_000))])
        while first.exists():  # until its table is written
            time.sleep(0.001)
    (newest,) = files(path, ".log")
    assert sequence_gap(Path(path)) is None
    newest.write_bytes(content)
    with pytest.raises(ViewDamagedError, match=r"begins with 1, and the tables go on to 1 at least"):
        LevelDBView.open(path, create=False)


def test_the_bounds_of_a_log_are_those_of_the_edits_that_made_it_and_the_one_before_the_first(monkeypatch):
    """A compaction's edit repeats the log's number, and knows of batches of that log itself."""
    edits = [(2, [6]), (4, [216]), (2, [7]), (4, [1027]), (2, [7]), (4, [1500])]
    monkeypatch.setattr(leveldb_log, "_edits", lambda _: edits)
    assert leveldb_log._replay(Path()) == (7, 217, 1027)
    edits += [(2, [9]), (4, [1804]), (2, [9]), (4, [1900])]
    assert leveldb_log._replay(Path()) == (9, 1027, 1804)
    del edits[2:]
    assert leveldb_log._replay(Path()) == (6, 216, 216)
    del edits[:]
    assert leveldb_log._replay(Path()) is None


def plyvel_gets(path, wanted):
    with closing(plyvel.DB(str(path), paranoid_checks=True)) as db:
        return [(key, db.get(key)) for key in wanted]


@pytest.mark.parametrize("content", [b"", b"MANIFEST-9\n", b"\xff\xfe", b"..\n", b"\0\n"])
def test_a_current_that_names_no_manifest_is_left_to_leveldb(filled, content):
    Path(filled, "CURRENT").write_bytes(content)
    assert sequence_gap(Path(filled)) is None
    with pytest.raises(ViewDamagedError):
        LevelDBView.open(str(filled), create=False)


def test_large_batches_in_many_fragments_are_followed(path):
    rng = random.Random(3)
    with closing(LevelDBView.open(path, create=True)) as view:
        for number in range(80):  # below 4 MiB together, so that there is one log
            view.apply([(b"%d-%d" % (number, n), rng.randbytes(rng.randrange(40_000))) for n in range(number % 4)])
            view.apply([(b"filler", bytes(rng.randrange(30)))])
            if number == 20:
                view.apply([(b"%d" % n, b"") for n in range(5_000)])
        assert sequence_gap(Path(path)) is None
        assert files(path, ".log")[0].stat().st_size > 100_000
    LevelDBView.open(path, create=False).close()


def in_another_process(script, *arguments):
    """Run a script that hurts its own process; what it prints."""
    prelude = "import resource, sys\nfrom statehouse.storage.leveldb_view import LevelDBView\n"
    command = [sys.executable, "-c", prelude + textwrap.dedent(script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()


def test_a_view_that_another_process_has_open_is_unavailable(filled):
    with closing(LevelDBView.open(filled, create=False)):
        script = """
            try:
                LevelDBView.open(sys.argv[1], create=False)
            except Exception as error:
                print(type(error).__name__)
        """
        assert in_another_process(script, filled) == ["ViewUnavailableError"]


def test_a_view_without_permission_is_unavailable_and_not_damaged(filled, monkeypatch):
    """Root may open anything, so LevelDB's words are put in its mouth."""

    def refuse(*_, **__):
        raise plyvel.IOError(b"IO error: /state/LOCK: Permission denied")

    monkeypatch.setattr("statehouse.storage.leveldb_view.plyvel.DB", refuse)
    with pytest.raises(ViewUnavailableError, match="Permission denied"):
        LevelDBView.open(filled, create=False)


def test_a_full_disk_fails_the_batch_and_every_one_after_it(path):
    """After a full disk LevelDB acknowledges writes that it then loses: the handle must be spent."""
    script = """
        view = LevelDBView.open(sys.argv[1], create=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        applied = 0
        while True:
            try:
                view.apply([(b"%d" % applied, bytes(1000))])
            except Exception as error:
                print(type(error).__name__, error.full, error.damaged, type(error.__cause__).__name__)
                break
            applied += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        try:
            view.apply([(b"after", b"")])
        except Exception as error:
            print(type(error).__name__, error.full)
        print(view.get(b"0") == bytes(1000), applied)
    """
    *said, applied = in_another_process(script, path)
    assert said == ["ViewWriteError", "True", "False", "IOError", "ViewWriteError", "True", "True"]
    with closing(LevelDBView.open(path, create=False)) as view:
        assert [key for key, _ in view.scan(*ALL)] == sorted(b"%d" % number for number in range(int(applied)))


def test_running_out_of_file_descriptors_is_not_damage(filled):
    script = """
        import os
        view = LevelDBView.open(sys.argv[1], create=False)
        open_files = len(os.listdir("/proc/self/fd")) - 1
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, limits[1]))
        for read in (lambda: view.get(b"key-000001"), lambda: list(view.scan(b"", b"z"))):
            try:
                read()
            except Exception as error:
                print(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(view.get(b"key-000001") is not None)
    """
    assert in_another_process(script, filled) == ["ViewUnavailableError", "ViewUnavailableError", "True"]


def test_damage_that_a_batch_meets_says_so(path, monkeypatch):
    """LevelDB finds damage in its tables while compacting, and tells whoever writes next."""
    with closing(LevelDBView.open(path, create=True)) as view:

        class Refusing:
            def write_batch(self, **_):
                raise plyvel.CorruptionError(b"Corruption: block checksum mismatch")

        monkeypatch.setattr(view, "_source", Refusing())
        with pytest.raises(ViewWriteError) as caught:
            view.apply([(b"k", b"v")])
        assert (caught.value.damaged, caught.value.full) == (True, False)
        monkeypatch.undo()
        with pytest.raises(ViewWriteError) as caught:
            view.apply([(b"k", b"v")])
        assert caught.value.damaged
