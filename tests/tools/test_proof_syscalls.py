"""The proof of system calls: cases that hold, the same twice; and engines that break a promise, each caught by name."""

import shutil
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import proof_syscalls
import pytest
import trio
from syscalls import strace, traced
from syscalls.calls import Call, Kind, Place, place_of
from syscalls.cases import every_case, plain_cases, stratified
from syscalls.in_process import Case, Result, run
from syscalls.promises import RecordAt, ends_all_commits, may_end_all_commits, uncovered

from statehouse.errors import LogPoisonedError
from statehouse.storage import recovery
from statehouse.storage.log_writer import LogWriter
from statehouse.storage.segments import NextSegment
from statehouse.storage.store import Store

SEED = 7
SEEDS = range(7, 15)
"""Which commits stand around a call is the schedule's to say, and not in each does a planted defect come to bear."""
TOOL = Path(__file__).resolve().parents[2] / "tools" / "proof_syscalls.py"
SEGMENT = "log/00000000000000000001.log"


def nth(kind: Kind, place: Place, number: int, seed: int = SEED) -> int:
    """Which call of its kind is the `number`th on a place, while the store serves."""
    of_kind = [call for call in run(Case("serving", "memory", None), seed).calls if call.kind is kind]
    return [index for index, call in enumerate(of_kind, 1) if call.place is place][number - 1]


def sync_fails(seed: int) -> str:
    return f"serving:memory:sync:{nth(Kind.SYNC, Place.SEGMENT, 9, seed)}:once:EIO:nothing"


SYNC_FAILS = sync_fails(SEED)
SYNCS_THAT_FAIL = [(sync_fails(seed), seed) for seed in SEEDS]
"""As the engine does it: one with a defect may call in another order."""
WRITE_IS_FULL = f"serving:memory:write:{nth(Kind.WRITE, Place.SEGMENT, 9)}:once:ENOSPC:half"
BATCH_FAILS = "serving:memory:batch:4:once:ENOSPC:nothing"


def violations(case: str, seed: int = SEED) -> list[str]:
    return run(Case.parse(case), seed).violations


# Cases that hold


@pytest.mark.parametrize(
    "case",
    [
        "serving:memory",
        SYNC_FAILS,
        BATCH_FAILS,
        WRITE_IS_FULL,
        "serving:memory:write:20:until-healed:ENOSPC:half",
        "serving:memory:write:20:from-then-on:EIO:all",
        "serving:memory:rename:2:from-then-on:ENOSPC:nothing",
        "serving:memory:sync_dir:3:once:EIO:nothing",
        "serving:leveldb:batch:5:from-then-on:ENOSPC:all",
        "new:memory:make_dir:1:once:ENOSPC:nothing",
        "rough:memory:write:1:once:EIO:half",
        "rough-no-view:memory:batch:1:from-then-on:ENOSPC:nothing",
        "condemned:leveldb:open_view:1:once:EIO:nothing",
    ],
)
def test_a_case_holds_and_says_so_again(case):
    first, second = run(Case.parse(case), SEED), run(Case.parse(case), SEED)
    assert first.violations == []
    assert str(Case.parse(case)) == case
    assert first == second
    assert first.calls
    assert any(call.error for call in first.calls) == (case != "serving:memory")


def test_a_failed_sync_ends_all_commits_and_no_reads():
    result = run(Case.parse(SYNC_FAILS), SEED)
    whole = run(Case.parse("serving:memory"), SEED)
    assert 0 < result.acknowledged < whole.acknowledged
    assert result.refused > 0
    assert result.reads > 50


def test_every_way_to_strike_is_drawn_and_a_view_in_memory_stands_for_both():
    cases = list(every_case([(case, run(case, SEED)) for case in plain_cases()]))
    drawn = stratified(cases, proof_syscalls.random.Random(1), 1)
    kinds = {(case.shape, case.fault.kind) for case in drawn if case.fault is not None}
    assert kinds == {(case.shape, case.fault.kind) for _, case in cases if case.fault is not None}
    assert len(drawn) < len(cases) / 4
    assert len(set(map(str, drawn))) == len(drawn)


# Engines that break a promise


def test_an_engine_that_answers_after_a_failed_sync_is_caught(monkeypatch):
    def careless(writer):
        with suppress(OSError):
            writer._active.file.sync()
        writer._unsynced = False

    monkeypatch.setattr(LogWriter, "_sync_active", careless)
    found = [violation for case, seed in SYNCS_THAT_FAIL for violation in violations(case, seed)]
    assert any("no good sync covers its record" in violation for violation in found), found
    assert any("was answered after sync of" in violation for violation in found), found
    assert any("health is 'ok' after a failure that ends all commits" in violation for violation in found), found


def test_an_engine_that_syncs_again_is_caught(monkeypatch):
    def stubborn(writer):
        try:
            writer._active.file.sync()
        except OSError:
            writer._active.file.sync()
        writer._unsynced = False

    monkeypatch.setattr(LogWriter, "_sync_active", stubborn)
    found = [violation for case, seed in SYNCS_THAT_FAIL for violation in violations(case, seed)]
    assert any("was synced again after a sync of it had failed" in violation for violation in found), found


def test_an_engine_that_does_not_take_back_what_failed_is_caught(monkeypatch):
    monkeypatch.setattr(LogWriter, "roll_back", lambda _: None)
    assert violations(BATCH_FAILS)


def test_an_engine_that_gives_up_for_want_of_room_is_caught(monkeypatch):
    def give_up(writer, start, size):
        writer._poison("no room", OSError("none"))

    monkeypatch.setattr(LogWriter, "_erase", give_up)
    found = violations(WRITE_IS_FULL)
    assert any("nothing that was struck is a reason" in violation for violation in found), found


def test_an_engine_whose_reads_end_with_its_commits_is_caught(monkeypatch):
    get_state = Store.get_state

    def refuse(store, agent, key):
        if store._log.poisoned:
            raise LogPoisonedError("read-only")
        return get_state(store, agent, key)

    monkeypatch.setattr(Store, "get_state", refuse)
    assert any("a read failed" in violation for violation in violations(SYNC_FAILS))


def test_an_open_that_fails_with_another_error_or_leaves_files_open_is_caught(monkeypatch):
    def raw(error):
        raise error

    case = "rough:memory:open:2:once:EIO:nothing"
    assert violations(case) == []
    monkeypatch.setattr(recovery.EventLog, "open", classmethod(lambda *_, **__: raw(RuntimeError("raw"))))
    assert any("what nobody expects" in violation for violation in violations(case))
    monkeypatch.undo()
    monkeypatch.setattr(NextSegment, "close", lambda _: None)
    found = (violation for seed in SEEDS for violation in violations("serving:memory", seed))
    assert any("was left open" in violation for violation in found)  # where the store ends with a segment prepared


# What must hold, told from calls


def call(kind: Kind, path: str = SEGMENT, error: str = "", start: int = 0, stop: int = 0) -> Call:
    return Call(kind, path, error, start, stop)


def test_only_a_good_sync_after_the_write_and_with_no_failed_one_before_covers_a_record():
    record = {1: RecordAt(SEGMENT, 100, 200)}
    write = call(Kind.WRITE, start=50, stop=300)
    good, bad = call(Kind.SYNC), call(Kind.SYNC, error="EIO")
    for calls, is_covered in (
        ([write, good], True),
        ([good, write, good, bad], True),
        ([good, write], False),
        ([write, bad], False),
        ([write, bad, good], False),
        ([bad, write, good], False),
        ([write, call(Kind.SYNC, "log/00000000000000000002.log")], False),
        ([call(Kind.WRITE, start=150, stop=300), good], False),
    ):
        assert (uncovered(calls, record, {1: len(calls)}) == []) == is_covered, calls
    assert uncovered([write, good], record, {1: 1})  # it was answered before the sync


def test_which_failures_end_all_commits():
    for struck, ends, may_end in (
        (call(Kind.SYNC, error="ENOSPC"), True, True),
        (call(Kind.WRITE, error="EIO"), True, True),
        (call(Kind.WRITE, error="ENOSPC"), False, False),
        (call(Kind.SYNC_DIR, "log", "EIO"), True, True),
        (call(Kind.SYNC, "log/next.tmp", "EIO"), False, True),
        (call(Kind.SYNC, "snapshots/1.snap.tmp", "EIO"), False, False),
        (call(Kind.WRITE, "state/000003.log", "EIO"), False, False),
    ):
        assert (ends_all_commits([struck]) is not None, may_end_all_commits([struck])) == (ends, may_end), struck
    again = call(Kind.WRITE, error="ENOSPC", start=0, stop=10)
    assert may_end_all_commits([again, again])  # it could not be taken back
    assert place_of("state/CURRENT") is Place.VIEW


# strace


def test_what_strace_says_is_understood():
    lines = f"""\
7 openat(AT_FDCWD</w>, "/d/log/next.tmp", O_RDWR|O_CREAT|O_TRUNC|O_CLOEXEC, 0600) = 6</d/log/next.tmp>
7 openat(AT_FDCWD</w>, "/d/{SEGMENT}", O_RDONLY|O_CLOEXEC) = -1 EIO (Input/output error) (INJECTED)
7 openat(AT_FDCWD</w>, "/d/state/CURRENT", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)
7 pwrite64(6</d/{SEGMENT}>, ""..., 97, 2048 <unfinished ...>
8 write(4</d/state/000003.log>, ""..., 33) = 33
7 <... pwrite64 resumed>) = -1 ENOSPC (No space left on device) (INJECTED)
7 fsync(5</d/log>) = 0
7 fdatasync(6</d/{SEGMENT}> <unfinished ...>
7 <... fdatasync resumed>) = 0
7 rename("/d/log/next.tmp", "/d/{SEGMENT}") = 0
7 +++ exited with 0 +++"""
    found = list(strace._calls(lines.splitlines(), "/d/"))
    assert [(each.thread, each.syscall, each.call) for each in found] == [
        (7, "openat", Call(Kind.OPEN, "log/next.tmp")),
        (7, "openat", Call(Kind.OPEN, SEGMENT, "EIO", reads=True)),
        (8, "write", Call(Kind.WRITE, "state/000003.log")),
        (7, "pwrite64", Call(Kind.WRITE, SEGMENT, "ENOSPC", 2048, 2145)),
        (7, "fsync", Call(Kind.SYNC_DIR, "log")),
        (7, "fdatasync", Call(Kind.SYNC, SEGMENT)),
        (7, "rename", Call(Kind.RENAME, "log/next.tmp")),
    ]


@pytest.mark.parametrize("case", ["serving:fdatasync:12:once:EIO", "rebuilding:write:5:from-then-on:ENOSPC"])
def test_a_case_with_strace_holds(case):
    """In a process of its own: this one may have threads, and is not forked."""
    assert str(traced.TracedCase.parse(case)) == case
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    command = [sys.executable, str(TOOL), "--seed", str(SEED), "--traced", case]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "strace does not attach" in ran.stdout:
        pytest.skip("strace may not attach here")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert "<- struck" in ran.stdout


# The command


def test_without_strace_it_says_so_and_a_violation_is_told_with_its_command(monkeypatch, capsys):
    case = Case.parse(SYNC_FAILS)
    monkeypatch.setattr(
        proof_syscalls, "in_processes", lambda work, cases, *_, **__: nullcontext((each, work(each)) for each in cases)
    )
    monkeypatch.setattr(proof_syscalls, "plain_cases", list)
    monkeypatch.setattr(proof_syscalls, "every_case", lambda _: [(None, case)])
    monkeypatch.setattr(proof_syscalls, "stratified", lambda *_: [case])
    monkeypatch.setattr(proof_syscalls, "unavailable", lambda: "strace is not installed")
    assert proof_syscalls.main(["--seed", str(SEED)]) == 0
    told = capsys.readouterr().out
    assert "no system call was struck by strace: strace is not installed" in told
    assert "struck: sync of segment" in told
    monkeypatch.setattr(LogWriter, "_sync_active", lambda writer: None)
    assert proof_syscalls.main(["--seed", str(SEED)]) == 1
    assert f"repeat: python tools/proof_syscalls.py --seed {SEED} --case {SYNC_FAILS}" in capsys.readouterr().out


def test_what_is_no_case_is_refused():
    for text in ("", "serving", "serving:disk", "serving:memory:sync:x:once:EIO:nothing", "a:b:c"):
        with pytest.raises(ValueError, match=r"."):
            Case.parse(text)
    for text in ("", "serving:fdatasync", "serving:close:1:once:EIO"):
        with pytest.raises(ValueError, match="is no case"):
            traced.TracedCase.parse(text)


def test_a_case_that_hangs_is_a_violation(monkeypatch, capsys):
    async def spins_in_a_nursery():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            while True:
                pass

    def run(case, seed):
        if str(case) == SYNC_FAILS:
            trio.run(spins_in_a_nursery)
        return Result([])

    monkeypatch.setattr(proof_syscalls, "run", run)
    monkeypatch.setattr(proof_syscalls, "CASE_S", 2.0)  # in which the other one has had its turn, too
    monkeypatch.setattr(proof_syscalls, "plain_cases", lambda: [Case.parse(SYNC_FAILS), Case.parse(BATCH_FAILS)])
    monkeypatch.setattr(proof_syscalls, "every_case", lambda _: [])
    assert proof_syscalls.main(["--seed", str(SEED), "--no-strace"]) == 1
    out = capsys.readouterr().out
    assert f"VIOLATION {SYNC_FAILS}: it hangs" in out
    assert f"VIOLATION {BATCH_FAILS}" not in out


# What strace does not tell


def test_a_case_that_strace_did_not_tell_to_its_end_is_run_again(monkeypatch):
    runs = []

    def run_once(case, seed, bases, result):
        runs.append(case)
        result.acknowledged = len(runs)
        if len(runs) < 3:
            raise strace.CutOffError("strace ended with -9")

    monkeypatch.setattr(traced, "_run", run_once)
    result = traced.run_traced(traced.TracedCase("serving"), SEED, None)
    assert (result.acknowledged, result.violations) == (3, [])


def test_a_case_that_strace_never_tells_to_its_end_is_a_violation(monkeypatch):
    def run_never(*_):
        raise strace.CutOffError("strace ended with -9")

    monkeypatch.setattr(traced, "_run", run_never)
    assert traced.run_traced(traced.TracedCase("serving"), SEED, None).violations == ["strace ended with -9"]


@pytest.mark.parametrize(
    "told",
    [
        "",
        "7 fdatasync(3</d/log/00000000000000000001.log>) = 0\n",
        "7 lseek(4</d.answers>, 0, SEEK_SET) = 0\n7 +++ exited with 0 +",
        "7 lseek(4</d.answers>, 0, SEEK_SET) = 0\n9 +++ exited with 0 +++\n",
    ],
    ids=["nothing", "a call", "half a line", "a thread"],
)
def test_what_strace_tells_without_the_end_of_its_process_is_not_all(tmp_path, told):
    tracing = strace.Strace(tmp_path / "store", None)  # of no process: the shell that would become strace ends
    Path(tracing._output.name).write_text(told)
    with pytest.raises(strace.CutOffError, match="strace ended with 1"):
        tracing.end()
