"""Proof: at every failpoint the process exits, stalls or fails, again and again, and no promise is broken.

    python tools/proof_failpoints.py            each place acted on at least 20 times
    python tools/proof_failpoints.py --long     200 times

A case is a victim, a process with an engine on real files and under load, that is led to a failpoint and does there
what the case says; then its store is opened again, which may be struck too; then what clients were told is held against
what is there. At the end, the same is done to a few real daemons. The failpoints are comments in the source
(docs/adr/0014); only processes that this one makes have their code.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from failpoints.arming import FAILURES, Action
from failpoints.cases import Acted, Case, first_round, missing, next_round, parse_case
from failpoints.here import FAILPOINTS, activate
from failpoints.places import PLACES
from proof_processes import as_command, in_processes
from proof_report import ProofReport, add_arguments, positive, seed_of

if TYPE_CHECKING:
    from failpoints.case import Tried

TIMES: Final = 20
TIMES_LONG: Final = 200
CASE_S: Final = 600.0
"""A case takes a fraction of a second; each of its victims that hangs is given up before this."""
ROUNDS: Final = 8
"""A hit that is drawn need not come in every run: what was not acted on is tried again, so often in all."""
SAY_EVERY_S: Final = 10.0


class Campaign:
    """All cases, until every place was acted on often enough."""

    def __init__(
        self,
        report: ProofReport,
        seed: int,
        *,
        times: int,
        places: tuple[str, ...],
        failures: int,
        keep: Path | None,
    ) -> None:
        self._report = report
        self._failures = failures
        self._failed = 0
        self._seed = seed
        self._times = times
        self._places = places
        self._keep = keep
        self._acted: Acted = Counter()
        self._reached: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._numbers: Counter[tuple[str, Action]] = Counter()
        self._said_s = time.monotonic()

    def run(self) -> None:
        """Try the cases, two at a time."""
        # They import Statehouse, which has its failpoints.
        from failpoints.case import UnwellError, calibrate, failed_case, try_case
        from failpoints.on_daemon import ON_DAEMONS, failed_daemon, try_on_daemon

        try:
            usual = calibrate(self._seed)
        except UnwellError as error:
            self._report.violation(str(error), repeat=f"python tools/proof_failpoints.py --seed {self._seed} --times 1")
            return
        attempt = partial(try_case, seed=self._seed, usual=usual, keep=self._keep)
        daemons = [place for place in ON_DAEMONS if place in self._places]
        cases = first_round(self._times, self._places)
        for _ in range(ROUNDS):
            with in_processes(attempt, cases, failed_case, case_s=CASE_S, begin=FAILPOINTS.share_anew) as outcomes:
                for _, tried in outcomes:
                    self._add(tried)
                    if self._failed >= self._failures:
                        return
            cases = list(next_round(missing(self._times, self._places, self._acted), self._numbers))
            if not cases:
                break
        attempt_daemon = partial(try_on_daemon, seed=self._seed)
        with in_processes(attempt_daemon, daemons, failed_daemon, case_s=CASE_S) as ends:
            for place, ended in ends:
                self._report.tried["daemons ended"] += 1
                again = f"python tools/proof_failpoints.py --seed {self._seed} --times 1 --place {place}"
                for violation in ended.violations:
                    self._report.violation(f"a daemon at {place}: {violation}", repeat=again)
        for place, action in missing(self._times, self._places, self._acted):
            count = self._acted[place, action]
            self._report.violation(
                f"{place}: {action.value} only {count} times; the place was not reached often enough"
            )

    def _add(self, tried: "Tried") -> None:
        case = tried.case
        self._numbers[case.place, case.action] = max(self._numbers[case.place, case.action], case.number + 1)
        self._acted += tried.acted
        self._reached += tried.reached
        self._endings += tried.endings
        counts = self._report.tried
        counts["victims"] += tried.victims
        counts["recoveries"] += tried.recoveries
        self._failed += bool(tried.violations)
        for violation in tried.violations:
            self._report.violation(f"{case.name}: {violation}", repeat=_repeat(self._seed, case))
        if time.monotonic() - self._said_s > SAY_EVERY_S:
            self._said_s = time.monotonic()
            acted = sum(self._acted.values())
            self._report.say(f"{counts['victims']} victims, {acted} actions, {len(self._report.violations)} violations")

    def table(self) -> Iterator[str]:
        """A line for each place."""
        yield f"{'place':<28}{'reached':>10}{'exits':>8}{'stalls':>8}{'failures':>10}"
        for place in self._places:
            exits, stalls = self._acted[place, Action.EXIT], self._acted[place, Action.STALL]
            fails = sum(self._acted[place, action] for action in FAILURES)
            yield f"{place:<28}{self._reached[place]:>10,}{exits:>8,}{stalls:>8,}{fails:>10,}"

    def count(self) -> None:
        """Into the report, under the names that the docs have."""
        counts = self._report.tried
        counts["failpoints"] = len(self._places)
        counts["exits"] = sum(count for (_, action), count in self._acted.items() if action is Action.EXIT)
        counts["stalls"] = sum(count for (_, action), count in self._acted.items() if action is Action.STALL)
        counts["failures"] = sum(count for (_, action), count in self._acted.items() if action in FAILURES)
        for ending, count in sorted(self._endings.items()):
            counts[f"processes that ended: {ending}"] = count


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    report = ProofReport("failpoints")
    seed = seed_of(options)
    report.say(f"seed {seed}")
    activate()
    if options.only is not None:
        _one(report, seed, options.only, options.keep)
        return report.end(options)
    places = tuple(options.place or PLACES)
    if set(places) - PLACES.keys():
        parser.error(f"no such failpoint: {', '.join(set(places) - PLACES.keys())}")
    times = options.times or (TIMES_LONG if options.long else TIMES)
    campaign = Campaign(report, seed, times=times, places=places, failures=options.failures, keep=options.keep)
    campaign.run()
    print("\n".join(campaign.table()))
    campaign.count()
    return report.end(options)


def _one(report: ProofReport, seed: int, case: Case, keep: Path | None) -> None:
    from failpoints.case import calibrate, try_case  # see above

    tried = try_case(case, seed, calibrate(seed), keep=keep)
    report.tried["victims"] += 1
    for violation in tried.violations:
        report.violation(f"{case.name}: {violation}", repeat=_repeat(seed, case))
    if not tried.acted[case.place, case.action]:
        report.violation(f"{case.name}: nothing acted there", repeat=_repeat(seed, case))
    report.say(f"acted: {_shown(tried.acted)}; ended: {dict(tried.endings)}")


def _shown(acted: Acted) -> str:
    return ", ".join(f"{place} {action.value} x {count}" for (place, action), count in acted.items()) or "nothing"


def _repeat(seed: int, case: Case) -> str:
    return f"python tools/proof_failpoints.py --seed {seed} --only {case.name}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--times", type=positive, metavar="N", help=f"default: {TIMES}, with --long {TIMES_LONG}")
    parser.add_argument("--place", action="append", metavar="NAME", help="only this failpoint; may be given again")
    parser.add_argument("--failures", type=int, default=10, metavar="N", help="stop after so many cases that fail")
    parser.add_argument("--only", type=parse_case, metavar="CASE", help="one case, as a violation names it")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the stores of cases with violations there")
    return parser


if __name__ == "__main__":
    as_command(main)
