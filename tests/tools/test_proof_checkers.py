"""What the checkers of the proofs may not excuse, each shown with what it has to tell apart."""

import pytest
from failpoints.arming import Action
from failpoints.case import _may_keep_closed
from histories.submissions import Load
from syscalls import in_process, strace, traced
from syscalls.calls import Call, Kind
from syscalls.promises import may_fail_reads, may_keep_closed
from victims.victim import Ended, _note

from statehouse.errors import StorageError
from statehouse.storage import recovery

SEGMENT = "log/00000000000000000001.log"
SNAPSHOT = "snapshots/00000000000000000008.snap"


@pytest.mark.parametrize(
    ("call", "closed", "unread"),
    [
        (Call(Kind.OPEN, SEGMENT, "EIO", reads=True), True, True),
        (Call(Kind.READ, SEGMENT, "EIO"), True, True),
        (Call(Kind.WRITE, SEGMENT, "EIO"), True, False),
        (Call(Kind.OPEN, SNAPSHOT, "EIO", reads=True), False, False),
        (Call(Kind.READ, SNAPSHOT, "EIO"), False, False),
        (Call(Kind.LIST_DIR, "snapshots", "EIO"), True, False),
        (Call(Kind.READ, "log/taken-back", "EIO"), True, False),
        (Call(Kind.OPEN_VIEW, "state", "EIO"), True, False),
        (Call(Kind.READ, SEGMENT), False, False),
    ],
)
def test_what_a_strike_excuses(call, closed, unread):
    assert (may_keep_closed([call]), may_fail_reads([call])) == (closed, unread)


def test_a_store_that_does_not_open_for_want_of_a_snapshot_is_caught(monkeypatch):
    number = next(
        index
        for index, call in enumerate(
            (
                each
                for each in in_process.run(in_process.Case("rough", "memory", None), 7).calls
                if each.kind is Kind.READ
            ),
            1,
        )
        if call.path.startswith("snapshots/")
    )
    case = in_process.Case.parse(f"rough:memory:read:{number}:once:EIO:nothing")
    assert in_process.run(case, 7).violations == []

    def strict(disk, directory, _):
        for name in disk.list_dir(directory) if disk.exists(directory) else ():
            with_error(disk, f"{directory}/{name}")
        return 0

    def with_error(disk, path):
        file = disk.open(path, read_only=True)
        try:
            file.read_at(0, 1)
        except OSError as error:
            raise StorageError("a snapshot cannot be read") from error
        finally:
            file.close()

    monkeypatch.setattr(recovery, "witnessed_ts", strict)
    found = [
        violation
        for index in range(1, number + 3)
        for violation in in_process.run(
            in_process.Case.parse(f"rough:memory:read:{index}:once:EIO:nothing"), 7
        ).violations
    ]
    assert any("nothing was struck that it needs" in violation for violation in found), found


def test_failpoints_of_a_snapshot_keep_no_store_closed():
    assert not _may_keep_closed([("snapshot.begun", Action.EIO), ("open.tail_cut", Action.STALL)])
    assert _may_keep_closed([("open.tail_cut", Action.EIO)])


def test_with_strace_an_answer_has_its_place_among_the_calls():
    lines = f"""\
7 pwrite64(6</d/{SEGMENT}>, ""..., 97, 2048) = 97
8 lseek(9</d.answers>, 3, SEEK_SET) = 3
7 fdatasync(6</d/{SEGMENT}>) = 0
8 lseek(9</d.answers>, 4, SEEK_SET <unfinished ...>
8 <... lseek resumed>) = 4
7 lseek(6</d/{SEGMENT}>, 0, SEEK_END) = 4096""".splitlines()
    calls, made = strace._calls_and_answers(lines, "/d/", "/d.answers")
    assert [each.call.kind for each in calls] == [Kind.WRITE, Kind.SYNC]
    assert made == {3: 1, 4: 2}


def test_with_strace_a_file_that_is_not_followed_is_found(tmp_path):
    for name in ("log", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "state" / "LOG").touch()
    (tmp_path / SEGMENT).touch()
    assert strace.unfollowed(tmp_path) == []
    late = tmp_path / "log" / f"{strace.NEWEST_TS:020d}.log"
    late.touch()
    assert strace.unfollowed(tmp_path) == [str(late)]


def test_with_strace_only_a_segment_that_cannot_be_read_excuses_a_read():
    troubles = ["a read failed: StorageError: no"]
    assert traced._troubles(troubles, [Call(Kind.OPEN, SNAPSHOT, "EIO", reads=True)]) == troubles
    assert traced._troubles(troubles, [Call(Kind.OPEN, SEGMENT, "EIO", reads=True)]) == []


@pytest.mark.parametrize(
    "told", [("acknowledged", "t1", "7"), ("evidence", None), ("refused",), ("failed", "t1", 1, "")]
)
def test_a_victim_that_is_not_understood_is_an_error(told):
    with pytest.raises(TypeError, match="nobody understands"):
        _note(Ended(load=Load()), {}, told[0], list(told[1:]))


def test_a_read_that_fails_while_the_store_is_healthy_is_heard_of():
    ended = Ended(load=Load())
    _note(ended, {}, "unread", ["a read failed"])
    _note(ended, {}, "acted", ["log.writing", Action.EIO])
    assert (ended.unread, ended.told) == (["a read failed"], [("acted", "log.writing", Action.EIO)])
