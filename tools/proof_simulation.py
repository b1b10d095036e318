"""Proof by simulation: whole lives of the engine in one process, crashed and hurt at every operation of its disk.

    python tools/proof_simulation.py                     10,000 seeds from a random one on, in two processes
    python tools/proof_simulation.py --seed 17 --trace   one seed once more, with all that happens in it

Each seed is a small history: two to five lives of an engine on one simulated disk, loaded by some clients, with power
loss, kill -9, failing syncs and writes, full disks, hurt views, flipped bits and files from yesterday wherever its plan
says so. After each recovery everything that the clients were told and shown is held against everything that is there.
The same seed gives the same run. One that fails is made smaller, and is printed as the command that repeats it. At the
end it is said what was tried; a kind of fault that never struck is a failure too.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

from histories.lineages import DELETED, GAP, NOTHING_THEN, TAKEN, UNKNOWN
from histories.submissions import Outcome
from proof_processes import as_command
from proof_report import ProofReport, add_arguments, positive
from simulation.coverage import Coverage
from simulation.plan import KINDS
from simulation.shrink import Reduction, shrink
from simulation.workers import run_bounded, run_seeds

SEEDS: Final = 10_000
SEEDS_LONG: Final = 100_000
SEEDS_FOR_ALL_KINDS: Final = 2_000
"""From so many seeds on, every kind of fault must have struck, and clients must have come by all of TO_HAPPEN."""
TO_HAPPEN: Final = (
    *("forks", "forks of forks", "forks without an answer"),
    *("values written that expire", "expired values read as absent", "expired values deleted", "sweeps cut by a crash"),
    *(f"ends of agents, {outcome.value}" for outcome in Outcome),
    *(f"refused: {why}" for why in (TAKEN, UNKNOWN, NOTHING_THEN, DELETED, GAP)),
)
PROCESSES: Final = 2
FAILURES_SHRUNK: Final = 3
SAY_S: Final = 10.0
FIRST_SEEDS: Final = 1 << 31


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    report = ProofReport("simulation")
    if options.seed is not None:
        return _one(options, report)
    count = options.seeds or (SEEDS_LONG if options.long else SEEDS)
    first = time.time_ns() % FIRST_SEEDS if options.first is None else options.first
    report.say(f"seeds {first} to {first + count - 1}; again: python tools/proof_simulation.py --first {first}")
    total = Coverage()
    failed: list[int] = []
    said_s = time.monotonic()
    with run_seeds(range(first, first + count), PROCESSES) as results:
        for done, (seed, result) in enumerate(results, 1):
            total.add(result.coverage)
            if result.violations:
                failed.append(seed)
                report.violation(f"seed {seed}: {result.violations[0]}", repeat=Reduction(seed).command())
            if time.monotonic() - said_s >= SAY_S:
                said_s = time.monotonic()
                report.say(f"{done:,} of {count:,} seeds, {len(total.states):,} states")
    if not options.no_shrink:
        for seed in failed[:FAILURES_SHRUNK]:
            _shrink(Reduction(seed), report)
    if count >= SEEDS_FOR_ALL_KINDS:
        for kind in KINDS:
            if not total.struck[kind]:
                report.violation(f"in {count} seeds no fault struck of the kind: {kind}")
        for what in TO_HAPPEN:
            if not total.counts[what]:
                report.violation(f"in {count} seeds this did not happen: {what}")
    _tell(total, report)
    return report.end(options)


def _one(options: argparse.Namespace, report: ProofReport) -> int:
    """One seed, or what is left of its plan."""
    faults = options.faults
    reduction = Reduction(options.seed, options.lives, faults, options.clients, options.transactions)
    result = run_bounded(reduction.plan(), traced=options.trace)
    for line in result.trace:
        print(line)
    if options.trace:
        print(f"{reduction.plan()}")
    for violation in result.violations:
        report.violation(violation, repeat=reduction.command())
    if result.violations and not options.no_shrink and not options.trace:
        _shrink(reduction, report)
    _tell(result.coverage, report)
    return report.end(options)


def _shrink(start: Reduction, report: ProofReport) -> None:
    """Make a failing plan smaller, and print what is left."""
    smallest = shrink(start, lambda plan: bool(run_bounded(plan).violations))
    report.say(f"seed {start.seed}, made smaller: {smallest.command()} --trace")
    for violation in run_bounded(smallest.plan()).violations[:3]:
        report.say(f"  {violation}")


def _tell(total: Coverage, report: ProofReport) -> None:
    """What was covered."""
    _table("faults: planned, struck", ((kind, total.planned[kind], total.struck[kind]) for kind in KINDS))
    _table("crashes, by the operation that they struck", _ranked(total.struck_at))
    _table("starts that were refused", _ranked(total.refused))
    _table("recoveries, by what the view was brought up from", _ranked(total.sources))
    tried = report.tried
    for what in ("seeds", "lives", "recoveries judged", "transactions"):
        tried[what] = total.counts.pop(what, 0)
    tried["faults struck"] = total.struck.total()
    tried["power losses"] = total.struck["power loss"]
    tried["kills"] = total.struck["kill -9"]
    tried["operations that a crash struck"] = len(total.struck_at)
    tried["starts refused"] = total.refused.total()
    tried["distinct states"] = len(total.states)
    tried.update(dict(sorted(total.counts.items())))


def _ranked(counts: Counter[str]) -> Iterable[tuple[str, int]]:
    return counts.most_common()


def _table(title: str, rows: Iterable[tuple[str | int, ...]]) -> None:
    print(f"{title}:")
    for name, *figures in rows:
        print(f"  {name:<52}{''.join(f'{figure:>10,}' for figure in figures)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser, seed="only this one, once more; default: many, see --first")
    parser.add_argument("--seeds", type=positive, metavar="N", help=f"default: {SEEDS:,}; --long {SEEDS_LONG:,}")
    parser.add_argument("--first", type=int, metavar="N", help="the first of them (default: a random one)")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for a smaller plan that fails")
    one = parser.add_argument_group("with --seed: this one, once more")
    one.add_argument("--trace", action="store_true", help="print everything that happens")
    one.add_argument("--lives", type=positive, metavar="N", help="only the first N, and the last, without faults")
    one.add_argument("--faults", type=_numbers, metavar="N,N", help="only these of its plan; none: none")
    one.add_argument("--clients", type=positive, metavar="N", help="at most so many in each life")
    one.add_argument("--transactions", type=positive, metavar="N", help="at most so many of each client")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    as_command(main)
