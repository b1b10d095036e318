"""Victims as their parent knows them: started, heard out, and the store they leave held against what they told.

A victim is forked, and starts threads of its own: whoever makes one runs a single thread. It shares nothing with its
parent but the pipe, and the parent takes its word for nothing that it did not tell before it died.
"""

import gc
import os
import signal
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import trio
from attrs import define, field
from histories.lineages import Forking
from histories.oracle import Evidence, Oracle
from histories.submissions import Load, Outcome, Submission
from proof_processes import die_with

from victims.child import Ending, Settings, live, log_nothing_but_bugs, show
from victims.pace import QuickClock
from victims.pipe import SilentError, Teller, hear

__all__ = ["Ended", "Ending", "Settings", "Teller", "judge", "recover", "recover_and_judge", "run_victim"]

PATIENCE_S: Final = 60.0
"""A victim that is still there after this hangs."""

_KNOWN: Final = frozenset(
    {"begun", "sent", "acknowledged", "failed", "shown", "unread", "opened", "refused", "evidence", "read-only"}
    | {"bug", "broken", "forking", "forked", "not forked", "sweep failed"}
)
"""What is understood; whatever else is told belongs to the fault, or to recovery."""


@define(kw_only=True)
class Ended:
    """How a victim ended, and all that it had told."""

    load: Load
    exit_code: int = 0
    """An `Ending`, or what a fault ended it with; negative: the signal."""
    view_from: str | None = None
    """What the store was opened from; None: it was not opened."""
    refused: str = ""
    """Why it was not."""
    failures: dict[str, int] = field(factory=dict)
    """What commits and forks failed with, by the class of the error, and how many."""
    troubles: list[str] = field(factory=list)
    """What is wrong whatever its fault was: bugs, and reads that failed where they must not."""
    unread: list[str] = field(factory=list)
    """Reads that failed while the store was healthy, as they may while a view that failed is opened anew."""
    told: list[tuple[Any, ...]] = field(factory=list)
    """Whatever else was told, by its fault and its recovery, in order."""
    evidence: Evidence | None = None
    """What the store showed when it was opened to be looked at."""
    swept_ns: int = 0
    """What had expired by then was to be deleted before."""
    unswept: list[str] = field(factory=list)
    """Why the store failed to delete what had expired, so that it is to try again."""
    read_only: bool = False


def run_victim(
    directory: Path,
    seed: int,
    *,
    floor_ts: int = 0,
    settings: Settings | None = None,
    before: Callable[[Teller], None] = lambda _: None,
) -> Ended:
    """Run one victim on the store in `directory` until it ends, by itself or by what `before` has prepared.

    `before` is called in the victim before the store is opened; what it tells is in `told`. `floor_ts` is the newest
    commit that an earlier victim was told of: `oracle.newest_ts`. `seed` decides what the clients send.
    """
    settings = Settings() if settings is None else settings
    return _fork(lambda teller: partial(live, directory, seed, floor_ts, settings, teller), before, settings.pace)


def recover(
    directory: Path,
    oracle: Oracle,
    load: Load,
    *,
    settings: Settings | None = None,
    before: Callable[[Teller], None] = lambda _: None,
    settles: bool = True,
) -> Ended:
    """Open the store in a process of its own, and have it show what is there, for `judge`.

    With `settles` it first waits for what has expired to be deleted.
    """
    settings = Settings() if settings is None else settings

    def life(teller: Teller) -> Callable[[], Awaitable[Ending]]:
        return partial(show, directory, load, oracle, settings, teller, settles=settles)

    return _fork(life, before, settings.pace)


def judge(oracle: Oracle, load: Load, recovered: Ended) -> list[str]:
    """What is wrong with a run whose store was opened again without a fault."""
    violations = list(recovered.troubles)
    if recovered.evidence is None or recovered.exit_code != Ending.DONE:
        return [*violations, f"the store was not recovered: exit code {recovered.exit_code} {recovered.refused}"]
    load.submissions += recovered.load.submissions  # the empty transaction that was committed last
    violations += oracle.judge(load, recovered.evidence)
    if oracle.newest_ts != recovered.evidence.head_ts:
        violations.append(f"the head is {recovered.evidence.head_ts}, the newest commit {oracle.newest_ts}")
    return violations + oracle.left_over(recovered.swept_ns)


def recover_and_judge(directory: Path, oracle: Oracle, load: Load, *, settings: Settings | None = None) -> list[str]:
    """Open the store that a victim has left, without any fault, and hold it against what the victim had told."""
    return judge(oracle, load, recover(directory, oracle, load, settings=settings))


def _fork(
    life: Callable[[Teller], Callable[[], Awaitable[Ending]]], before: Callable[[Teller], None], pace: int
) -> Ended:
    reading, writing = os.pipe()
    parent = os.getpid()
    gc.freeze()  # or the child's first collection would copy every page of the parent
    pid = os.fork()
    if not pid:
        die_with(parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not as its parent unwinds
        os.close(reading)
        _be_a_victim(Teller(writing), life, before, pace)
    os.close(writing)
    ended = Ended(load=Load())
    known: dict[str, Submission] = {}
    heard_out = False
    try:
        for what, *details in hear(reading, PATIENCE_S):
            _note(ended, known, what, details)
        heard_out = True
    except SilentError as error:
        ended.troubles.append(str(error))
    finally:
        if not heard_out:
            os.kill(pid, signal.SIGKILL)
        os.close(reading)
        _, status = os.waitpid(pid, 0)
    ended.exit_code = os.waitstatus_to_exitcode(status)
    if ended.exit_code == Ending.BUG and not ended.troubles:
        ended.troubles.append("the victim ended with a bug that it could not tell")
    return ended


def _be_a_victim(
    teller: Teller,
    life: Callable[[Teller], Callable[[], Awaitable[Ending]]],
    before: Callable[[Teller], None],
    pace: int,
) -> NoReturn:
    ending = Ending.BUG
    try:
        log_nothing_but_bugs(teller)
        before(teller)
        ending = trio.run(life(teller), clock=QuickClock(pace), strict_exception_groups=True)
    except Exception:  # noqa: BLE001 - whatever it is, the parent must hear of it
        teller.tell("bug", traceback.format_exc())
    finally:
        os._exit(ending)  # nothing of the parent's may be run here: its stack, its exit handlers


def _note(ended: Ended, known: dict[str, Submission], what: str, details: list[Any]) -> None:
    """Add one thing that a victim told to what is known of it."""
    load = ended.load
    match (what, *details):
        case "begun", Submission() as submission:
            known[submission.txn_id] = submission
            load.submissions.append(submission)
        case "sent", str(txn_id), int(floor_ts):
            known[txn_id].outcome, known[txn_id].floor_ts = Outcome.UNKNOWN, floor_ts
        case "acknowledged", str(txn_id), int(commit_ts):
            known[txn_id].outcome, known[txn_id].commit_ts = Outcome.ACKNOWLEDGED, commit_ts
            load.saw(commit_ts)
            if ended.read_only:
                ended.troubles.append(f"commit {commit_ts} was acknowledged after the log had been poisoned")
        case ("read-only",):
            ended.read_only = True
        case "failed", str(txn_id), Outcome() as outcome, str(why):
            known[txn_id].outcome = outcome
            _count(ended, why)
        case "shown", read:
            load.reads.append(read)
        case "forking", Forking() as fork:
            load.forks.append(fork)
        case "forked", int(number), int(commit_ts), int(at_ts), int(depth):
            fork = load.forks[number]
            fork.answered, fork.commit_ts, fork.at_ts, fork.depth = True, commit_ts, at_ts, depth
            load.saw(commit_ts)
        case "not forked", int(number), Outcome() as outcome, str(why):
            load.forks[number].refused = outcome is Outcome.NEVER
            if why:
                _count(ended, why)
        case "evidence", Evidence() as evidence, int(now_ns):
            ended.evidence, ended.swept_ns = evidence, now_ns
        case "sweep failed", str(why):
            ended.unswept.append(why)
        case "opened", str(source), _:
            ended.view_from = source
        case "refused", str(why):
            ended.refused = why
        case "unread", str(text):
            ended.unread.append(text)
        case (("bug" | "broken"), str(text)):
            ended.troubles.append(text)
        case _ if what in _KNOWN:
            raise TypeError(f"a victim told what nobody understands: {what} {details}")
        case _:
            ended.told.append((what, *details))


def _count(ended: Ended, why: str) -> None:
    kind = why.partition(":")[0]
    ended.failures[kind] = ended.failures.get(kind, 0) + 1
