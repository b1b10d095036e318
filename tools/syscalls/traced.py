"""One case with strace: a victim whose system call fails, the next open without it, and what must be true of both.

`serving`: a new store, from its first open to its close. `recovering`: a store that a crash has left, with a torn tail
and what lies about after one; `rebuilding`: the same without its view. In the victim, what belongs in worker threads
runs in one of them, one after the other, so that the n-th call is the same in every run; LevelDB has its own threads.
"""

import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
from attrs import define, evolve, field, frozen
from histories.oracle import Oracle
from histories.submissions import Load, Outcome
from histories.workload import AGENTS, Shape
from victims.victim import Ending, Settings, Teller, recover_and_judge, run_victim

from statehouse.errors import OverloadedError, StorageError, TransactionError
from statehouse.limits import KIB
from statehouse.storage import leveldb_view
from statehouse.storage.disk import RealDisk
from syscalls.calls import Call, Place
from syscalls.promises import (
    ends_all_commits,
    may_end_all_commits,
    may_fail_reads,
    may_keep_closed,
    records_of,
    uncovered,
)
from syscalls.strace import SYSCALLS, CutOffError, Injection, Strace, TracedCall, unfollowed

__all__ = ["SHAPES", "Bases", "TracedCase", "TracedResult", "run_traced"]

T = TypeVar("T")

SHAPES: Final = ("serving", "recovering", "rebuilding")
SERVING: Final = Settings(
    segment_bytes=16 * KIB,
    snapshot_interval=12,
    clients=3,
    transactions=14,
    shape=Shape(
        agents=AGENTS[:4] + AGENTS[-1:],
        keys=("a", "b", "c", "ключ 🔑"),
        kinds={"one write": 15, "one agent": 25, "several agents": 40, "pair": 10, "empty": 5, "aborted": 5},
        value_bytes={180: 60, 1_500: 40},
        tolerated=(StorageError, OverloadedError, TransactionError),
    ),
)
LOOKING_IN: Final = evolve(SERVING, clients=1, transactions=4)
LEVELDB: Final[Mapping[str, int]] = {"write_buffer_size": 64 * KIB, "max_file_size": 1 * KIB * KIB}
"""So small that tables are written and logs begun under this load."""
_TRIES: Final = 3
_SHAPED: Final = {"serving": SERVING, "recovering": LOOKING_IN, "rebuilding": LOOKING_IN}


@frozen
class TracedCase:
    """What is struck, and how; without an injection nothing is."""

    shape: str
    injection: Injection | None = None

    def __str__(self) -> str:
        if self.injection is None:
            return self.shape
        struck = self.injection
        lasting = "from-then-on" if struck.lasting else "once"
        return f"{self.shape}:{struck.syscall}:{struck.index}:{lasting}:{struck.error}"

    @classmethod
    def parse(cls, text: str) -> "TracedCase":
        """As `str` wrote it. ValueError when it is not."""
        shape, *rest = text.split(":")
        if shape not in SHAPES or len(rest) not in {0, 4} or (rest and rest[0] not in SYSCALLS):
            raise ValueError(f"{text!r} is no case")
        if not rest:
            return cls(shape)
        return cls(shape, Injection(rest[0], int(rest[1]), rest[2] != "once", rest[3]))


@define
class TracedResult:
    """What a case showed."""

    violations: list[str] = field(factory=list)
    traced: list[TracedCall] = field(factory=list)
    acknowledged: int = 0
    refused: int = 0
    reads: int = 0

    @property
    def struck(self) -> list[TracedCall]:
        """The calls that were made to fail."""
        return [traced for traced in self.traced if traced.call.error]


@frozen
class Bases:
    """The store that `recovering` begins with, and what the clients of it were told."""

    directory: Path
    load: Load

    @classmethod
    @contextmanager
    def made(cls, seed: int) -> Iterator["Bases"]:
        """Make it, for as long as the block lasts."""
        with tempfile.TemporaryDirectory(prefix="statehouse-proof-syscalls-") as name:
            directory = Path(name) / "base"
            directory.mkdir()
            ended = run_victim(directory, seed, settings=SERVING, before=_one_at_a_time)
            if ended.exit_code != Ending.DONE:
                raise RuntimeError(f"a victim without any fault ended with {ended.exit_code}: {ended.troubles}")
            _leave_as_a_crash_does(directory, random.Random(f"torn {seed}"))
            yield cls(directory, ended.load)


def run_traced(case: TracedCase, seed: int, bases: Bases) -> TracedResult:
    """Run one case; once more, at most _TRIES times in all, when strace did not tell all of it."""
    cut_off = ""
    for _ in range(_TRIES):
        result = TracedResult()
        try:
            _run(case, seed, bases, result)
        except CutOffError as error:
            cut_off = str(error)
            continue
        except Exception:  # noqa: BLE001 - whatever it is, it is what the case has found
            result.violations.append(f"it raised what nobody expects:\n{traceback.format_exc()}")
        return result
    return TracedResult([cut_off])


def _run(case: TracedCase, seed: int, bases: Bases, result: TracedResult) -> None:
    with tempfile.TemporaryDirectory(prefix="statehouse-proof-syscalls-") as name:
        directory = Path(name).resolve() / "store"
        before = Load()
        if case.shape == "serving":
            directory.mkdir()
        else:
            shutil.copytree(bases.directory, directory)
            before = bases.load
            if case.shape == "rebuilding":
                shutil.rmtree(directory / "state")
        strace = Strace(directory, case.injection)

        def begin(teller: Teller) -> None:
            _one_at_a_time(teller)
            strace.attach()
            tell = teller.tell

            def marked(what: str, *details: Any) -> None:
                if what == "acknowledged":
                    strace.answered(details[1])
                tell(what, *details)

            teller.tell = marked  # type: ignore[method-assign]

        settings = _SHAPED[case.shape]
        ended = run_victim(directory, seed, floor_ts=before.newest_ts, settings=settings, before=begin)
        result.traced, made, said = strace.end()
        result.violations += [f"{path} is not followed" for path in unfollowed(directory)]
        if not result.traced:
            result.violations.append(f"strace told nothing: {said}")
        calls = [traced.call for traced in result.traced]
        load = ended.load
        answered = {
            submission.commit_ts: made.get(submission.commit_ts, 0)
            for submission in load.submissions
            if submission.outcome is Outcome.ACKNOWLEDGED and submission.commit_ts is not None
        }
        result.acknowledged, result.refused = len(answered), sum(ended.failures.values())
        result.reads = len(load.reads)
        result.violations += _troubles(ended.troubles, calls)
        if not may_fail_reads(calls) and not any(call.error and call.place is Place.VIEW for call in calls):
            result.violations += ended.unread[:1]
        result.violations += _wrong_ending(
            ended.exit_code, calls, opened=ended.view_from is not None, why=ended.refused
        )
        result.violations += _wrong_failures(ended.failures, calls, case, settings)
        result.violations += uncovered(
            calls, records_of(RealDisk(), f"{directory}/log", below=f"{directory}/"), answered
        )
        everything = Load(
            before.submissions + load.submissions, before.reads + load.reads, max(before.newest_ts, load.newest_ts)
        )
        result.violations += recover_and_judge(directory, Oracle(), everything, settings=settings)


def _troubles(troubles: list[str], calls: list[Call]) -> list[str]:
    """What a victim found wrong; not that a read failed whose own call, to open a segment, was made to fail."""
    if not may_fail_reads(calls):
        return troubles
    return [trouble for trouble in troubles if not trouble.startswith("a read failed: StorageError: ")]


def _wrong_ending(exit_code: int, calls: list[Call], *, opened: bool, why: str) -> list[str]:
    """How a victim may end, and when it must end read-only."""
    if exit_code == Ending.NOT_OPENED:
        return [] if may_keep_closed(calls) and not opened else [f"the store could not be opened: {why}"]
    if exit_code == Ending.READ_ONLY:
        return [] if may_end_all_commits(calls) else ["the store is read-only, and nothing that was struck is a reason"]
    if exit_code != Ending.DONE:
        return [f"the victim ended with {exit_code}: {why}"]
    end = ends_all_commits(calls)
    return [] if end is None else [f"{calls[end].kind} of {calls[end].path} failed, and the store went on"]


def _wrong_failures(failures: Mapping[str, int], calls: list[Call], case: TracedCase, settings: Settings) -> list[str]:
    """What commits may fail with, and how many may for one failure."""
    struck = [call for call in calls if call.error]
    if not struck:
        return [f"commits failed, and nothing was struck: {dict(failures)}"] if failures else []
    wrong = []
    if case.injection is not None and case.injection.error == "ENOSPC":
        others = failures.keys() - {"DiskFullError", "LogPoisonedError"}
        wrong += [f"for want of room a commit failed with {name}" for name in sorted(others)]
    # A failure takes the group with it, and what was prepared behind: at most two commits of each client. A view that
    # failed is opened anew meanwhile, and commits are refused for as long as that takes.
    view_failed = any(call.place is Place.VIEW for call in struck)
    if not (view_failed or may_end_all_commits(calls)) and sum(failures.values()) > 2 * settings.clients * len(struck):
        wrong.append(f"{len(struck)} calls failed, and {sum(failures.values())} commits")
    return wrong


def _one_at_a_time(_: Teller) -> None:
    """In the victim: one worker thread, a small LevelDB."""
    elsewhere = trio.to_thread.run_sync
    limiters: list[trio.CapacityLimiter] = []

    async def run_sync(function: Callable[..., T], *arguments: Any, limiter: object = None, **options: Any) -> T:
        del limiter
        if not limiters:
            limiters.append(trio.CapacityLimiter(1))
        return await elsewhere(function, *arguments, limiter=limiters[0], **options)

    trio.to_thread.run_sync = run_sync  # type: ignore[assignment]
    leveldb_view.SETTINGS.update(LEVELDB)


def _leave_as_a_crash_does(directory: Path, rng: random.Random) -> None:
    """A torn record behind the last one, a segment and a snapshot that were not finished."""
    records = records_of(RealDisk(), f"{directory}/log")
    last = records[max(records)]
    with closing(RealDisk().open(last.path)) as file:
        file.write_at(last.stop, b"\x00\x00\x01\x00" + rng.randbytes(90))
    (directory / "log" / "next.tmp").write_bytes(bytes(4_000))
    (directory / "snapshots" / f"{max(records):020d}.snap.tmp").write_bytes(b"begun")
