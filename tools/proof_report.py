"""What every proof says of itself in the same form: what was tried, what was found wrong, how to repeat it.

A proof is an adversary with a workload, faults and a checker. It counts what it tried in `ProofReport.tried`, tells
each violation with the one command that repeats it, and ends with `passed` or `FAILED` and the exit code 0 or 1.
`tools/prove.py` runs all of them and reads the JSON that `--json` writes.
"""

import argparse
import json
import secrets
import time
from collections import Counter
from pathlib import Path
from typing import Final

from attrs import define, field

__all__ = ["SEED_BITS", "ProofReport", "add_arguments", "flat", "positive", "seed_of"]

VIOLATIONS_SHOWN: Final = 20
VIOLATIONS_SHOWN_AGAIN: Final = 3
"""At the end, beside the verdict, where whoever reads only that finds how to repeat them."""
SEED_BITS: Final = 32


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser, *, seed: str = "default: a random one; it is printed") -> None:
    """The options that every proof takes; `seed` is the help for `--seed`."""
    parser.add_argument("--seed", type=int, metavar="N", help=seed)
    parser.add_argument("--long", action="store_true", help="the full size, instead of what CI has time for")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was tried and found here, too")


def seed_of(options: argparse.Namespace) -> int:
    """The seed that was given, or a new one."""
    given: int | None = options.seed
    return secrets.randbelow(2**SEED_BITS) if given is None else given


def flat(error: BaseException) -> list[BaseException]:
    """The failures in a group and its groups, one after the other; what is no group is one."""
    if isinstance(error, BaseExceptionGroup):
        return [each for inner in error.exceptions for each in flat(inner)]
    return [error]


@define
class ProofReport:
    """One run of one proof. `tried` has what was tried and how often, in the order of first mention."""

    name: str
    tried: Counter[str] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    notes: list[str] = field(factory=list)
    _repeats: list[str] = field(factory=list)
    """Of each violation: the command that shows it again."""
    _started_s: float = field(factory=time.monotonic)

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"{time.monotonic() - self._started_s:6.0f} s  {text}", flush=True)

    def note(self, text: str) -> None:
        """What belongs to the result and is no violation: a measurement, an instrument that is not to be had."""
        self.notes.append(text)
        print(f"note: {text}", flush=True)

    def violation(self, text: str, *, repeat: str = "") -> None:
        """A promise was broken; `repeat` is the command that shows it again. The first ones are printed at once."""
        self.violations.append(text)
        self._repeats.append(repeat)
        if len(self.violations) <= VIOLATIONS_SHOWN:
            self._show(len(self.violations) - 1)

    def _show(self, number: int) -> None:
        print(f"VIOLATION {self.violations[number]}", flush=True)
        if self._repeats[number]:
            print(f"  repeat: {self._repeats[number]}", flush=True)

    def end(self, options: argparse.Namespace) -> int:
        """Print what was tried and the verdict, write the JSON that `options` ask for; the exit code.

        A proof that tried nothing proves nothing: that is a failure, too.
        """
        seconds = time.monotonic() - self._started_s
        passed = not self.violations and any(self.tried.values())
        width = max(map(len, self.tried), default=0)
        for what, count in self.tried.items():
            print(f"{what:<{width}}  {count:>12,}")
        if len(self.violations) > VIOLATIONS_SHOWN:
            print(f"{len(self.violations)} violations, of which the first {VIOLATIONS_SHOWN} are shown")
        if options.json is not None:
            found = {
                "name": self.name,
                "passed": passed,
                "seconds": round(seconds, 1),
                "tried": self.tried,
                "violations": self.violations,
                "notes": self.notes,
            }
            options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        for number in range(min(len(self.violations), VIOLATIONS_SHOWN_AGAIN)):
            self._show(number)
        print(f"{'passed' if passed else 'FAILED'} after {seconds:.0f} s", flush=True)
        return 0 if passed else 1
