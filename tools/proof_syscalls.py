"""Proof: each system call of the commit path fails, once and from then on, and no promise is broken.

    python tools/proof_syscalls.py                     every way to strike every kind of call, some calls of each
    python tools/proof_syscalls.py --long              every call, in every way
    python tools/proof_syscalls.py --seed 7 --case serving:memory:sync:5:once:EIO:nothing       one case once more
    python tools/proof_syscalls.py --seed 7 --traced serving:fdatasync:5:once:EIO               likewise, with strace

Calls to the disk are struck in two ways: in this process, in a `Disk` and a view that fail (tools/syscalls), under
an engine on virtual time, so that a case is the same every time; and in the kernel, by strace's fault injection, in an
engine that is a process of its own with real files and a real LevelDB. Where strace is not to be had, this says so and
goes on without. No commit is answered after a failed sync, reads go on, what failed has not happened, the next open is
exact: the oracle of `histories` judges, and the calls themselves say which commit a good sync covers. Exit code 0:
nothing was found.
"""

import argparse
import random
import time
from collections import Counter
from functools import partial
from typing import Final

from proof_processes import as_command, in_processes
from proof_report import ProofReport, add_arguments, seed_of
from syscalls.cases import every_case, plain_cases, stratified
from syscalls.in_process import Case, Result, run
from syscalls.strace import SYSCALLS, unavailable
from syscalls.traced import Bases, TracedCase, TracedResult, run_traced
from syscalls.traced_cases import every_traced_case, stratified_traced

CASE_S: Final = 200
"""A case takes a fraction of a second; a victim that hangs is given up before this."""
CASES_OF_A_STRATUM: Final = 1
TRACED_OF_A_STRATUM: Final = 1
SAY_S: Final = 8.0


class Proof:
    """What is run, and what came of it."""

    def __init__(self, report: ProofReport, seed: int, *, long: bool) -> None:
        self._report = report
        self._seed = seed
        self._long = long
        self._rng = random.Random(f"sample {seed}")
        self._said_s = time.monotonic()

    def in_this_process(self) -> None:
        """Strike a `Disk` and a view."""
        # Not even these run here: a LevelDB leaves a thread behind, which processes that are forked later would miss.
        work = partial(run, seed=self._seed)
        with in_processes(work, plain_cases(), _failed, case_s=CASE_S) as outcomes:
            plain = list(outcomes)
        for case, result in plain:
            self._count(case, result, Counter())
        cases = list(every_case(plain))
        chosen = [case for _, case in cases] if self._long else stratified(cases, self._rng, CASES_OF_A_STRATUM)
        self._rng.shuffle(chosen)
        self._report.say(f"{len(chosen):,} of {len(cases):,} cases in this process")
        struck: Counter[str] = Counter()
        with in_processes(work, chosen, _failed, case_s=CASE_S) as outcomes:
            for done, (case, result) in enumerate(outcomes, 1):
                self._count(case, result, struck)
                self._say_now_and_then(done, len(chosen))
        for what, count in sorted(struck.items()):
            self._report.tried[f"struck: {what}"] += count

    def with_strace(self) -> None:
        """Strike system calls."""
        tried = self._report.tried
        tried["strace: cases"] += 0
        reason = unavailable()
        if reason is not None:
            self._report.note(f"no system call was struck by strace: {reason}")
            return
        struck: Counter[str] = Counter()
        with Bases.made(self._seed) as bases:
            cases = list(every_traced_case(self._seed, bases))
            all_cases = list(dict.fromkeys(case for _, case in cases))
            chosen = all_cases if self._long else stratified_traced(cases, self._rng, TRACED_OF_A_STRATUM)
            self._rng.shuffle(chosen)
            self._report.say(f"{len(chosen):,} of {len(all_cases):,} cases with strace")
            work = partial(run_traced, seed=self._seed, bases=bases)
            with in_processes(work, chosen, _failed_traced, case_s=CASE_S) as outcomes:
                for done, (case, result) in enumerate(outcomes, 1):
                    self._count_traced(case, result, struck)
                    self._say_now_and_then(done, len(chosen))
        for what, count in sorted(struck.items()):
            tried[f"strace struck: {what}"] += count
        made = {case.injection.syscall for case in all_cases if case.injection is not None}
        for syscall in sorted(SYSCALLS.keys() - made):
            self._report.note(f"{syscall} is never made on the store's files, and so was not struck")

    def _count(self, case: Case, result: Result, struck: Counter[str]) -> None:
        tried = self._report.tried
        tried["cases"] += 1
        struck.update(f"{call.kind} of {call.place}" for call in result.calls if call.error)
        tried["commits answered"] += result.acknowledged
        tried["commits refused"] += result.refused
        tried["reads"] += result.reads
        tried["opens refused"] += not result.opened
        tried["recoveries judged"] += 2
        for violation in result.violations:
            self._report.violation(f"{case}: {violation}", repeat=_repeat(self._seed, "--case", case))

    def _count_traced(self, case: TracedCase, result: TracedResult, struck: Counter[str]) -> None:
        tried = self._report.tried
        tried["strace: cases"] += 1
        struck.update(f"{traced.syscall} of {traced.call.place}" for traced in result.struck)
        tried["strace: commits answered"] += result.acknowledged
        tried["strace: commits refused"] += result.refused
        tried["strace: reads"] += result.reads
        tried["strace: recoveries judged"] += 1
        for violation in result.violations:
            self._report.violation(f"{case}: {violation}", repeat=_repeat(self._seed, "--traced", case))

    def one(self, case: Case) -> None:
        """Run one case in this process once more, and print its calls."""
        result = run(case, self._seed)
        for number, call in enumerate(result.calls):
            print(f"{number:>5} {call.kind:<9} {call.path} {call.error and f'<- {call.error}'}")
        self._count(case, result, Counter())

    def one_traced(self, case: TracedCase) -> None:
        """Run one case with strace once more, and print its calls."""
        with Bases.made(self._seed) as bases:
            result = run_traced(case, self._seed, bases)
        for traced in result.traced:
            print(f"{traced.thread:>8} {traced.syscall:<9} {traced.call.path} {traced.call.error and '<- struck'}")
        self._count_traced(case, result, Counter())

    def _say_now_and_then(self, done: int, total: int) -> None:
        if time.monotonic() - self._said_s >= SAY_S:
            self._said_s = time.monotonic()
            self._report.say(f"{done:,} of {total:,} cases")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    seed = seed_of(options)
    report = ProofReport("syscalls")
    print(f"seed {seed}", flush=True)
    proof = Proof(report, seed, long=options.long)
    if options.case is not None:
        proof.one(options.case)
    elif options.traced is not None:
        proof.one_traced(options.traced)
    else:
        proof.in_this_process()
        if not options.no_strace:
            proof.with_strace()
    return report.end(options)


def _failed(_: Case, why: str) -> Result:
    return Result([why])


def _failed_traced(_: TracedCase, why: str) -> TracedResult:
    return TracedResult([why])


def _repeat(seed: int, option: str, case: Case | TracedCase) -> str:
    return f"python tools/proof_syscalls.py --seed {seed} {option} {case}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--case", type=Case.parse, metavar="CASE", help="one case in this process, as it was printed")
    parser.add_argument("--traced", type=TracedCase.parse, metavar="CASE", help="one case with strace, likewise")
    parser.add_argument("--no-strace", action="store_true", help="only what is struck in this process")
    return parser


if __name__ == "__main__":
    as_command(main)
