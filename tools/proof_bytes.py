"""Proof: every byte of a store's files, cut and flipped, gives an exact prefix or a refusal that names the place.

    python tools/proof_bytes.py                     every byte of a log tail of 64 KiB, segments, snapshots, LevelDB
    python tools/proof_bytes.py --long              every bit of every byte
    python tools/proof_bytes.py --only view         one part: tail, segments, snapshots, view

For a log tail: the file is cut at every offset, and one bit is flipped in every byte, each without a view, with a view
at the head and with one in between; sectors are zeroed, records doubled, swapped and left out. Whole segments are
missing, swapped, doubled, stale and foreign. For snapshots and for each file of a LevelDB view: deleted, cut, flipped,
stale and foreign; the rows afterwards are those of a rebuild, and no read gives a wrong answer. A seed decides what is
written and which bits are flipped. Exit code 0: nothing was found.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Final

from every_byte.found import Found
from every_byte.shares import PARTS, Share, Size, shares
from proof_processes import PROCESSES, as_command, in_processes
from proof_report import ProofReport, add_arguments, positive, seed_of

KIB: Final = 1024
TAIL_BYTES: Final = 64 * KIB
SHARE_S: Final = 600.0
SHARE_LONG_S: Final = 4 * 3600.0
"""A share takes seconds, and with every bit of every byte minutes."""
SAY_EVERY_S: Final = 8.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    seed = seed_of(options)
    print(f"seed {seed}", flush=True)
    report = ProofReport("bytes")
    size = Size(options.tail_bytes, long=options.long, store_trials=_store_trials(options))
    parts = tuple(options.only or PARTS)
    repeat = f"python tools/proof_bytes.py --seed {seed} --tail-bytes {options.tail_bytes}"
    repeat += "".join(f" --only {part}" for part in options.only or ()) + (" --long" if options.long else "")
    try:
        work = shares(seed, size, parts)
    except Exception as error:  # noqa: BLE001 - an engine that is broken cannot even write the subject
        report.violation(f"no store could be written: {type(error).__name__}: {error}", repeat=repeat)
        return report.end(options)
    said_s = time.monotonic()
    for done, found in enumerate(_results(work, options.processes, SHARE_LONG_S if options.long else SHARE_S), start=1):
        report.tried.update(found.tried)
        for text in found.violations:
            report.violation(text, repeat=repeat)
        if found.more_violations:
            report.violation(f"and {found.more_violations} more like these", repeat=repeat)
        if time.monotonic() - said_s > SAY_EVERY_S:
            said_s = time.monotonic()
            report.say(f"{done} of {len(work)} shares, {_cases(report):,} cases, {len(report.violations)} violations")
    report.note(f"{_cases(report):,} cases, of which {_tail_cases(report):,} are the log tail's cuts and flips")
    report.tried = type(report.tried)(dict(sorted(report.tried.items())))
    return report.end(options)


def _results(work: list[Share], processes: int, share_s: float) -> Iterator[Found]:
    """What each share found, as they end. One process: this one."""
    if processes == 1:
        for share in work:
            yield _done(share)
        return
    # Spawned: LevelDB has threads, and a fork takes none of them along.
    with in_processes(_done, work, _failed, case_s=share_s, processes=processes, spawned=True) as outcomes:
        for _, found in outcomes:
            yield found


def _done(share: Share) -> Found:
    """A share that raises has found something, too: its subject could not be written."""
    try:
        return share()
    except Exception as error:  # noqa: BLE001 - see above
        found = Found()
        found.violation(f"no store could be written: {type(error).__name__}: {error}")
        return found


def _failed(_: Share, why: str) -> Found:
    found = Found()
    found.violation(f"a share was not tried to its end: {why}")
    return found


def _cases(report: ProofReport) -> int:
    """Outcomes, and damage that a read found, are counted besides."""
    besides = {"log: recovered", "log: refused", "log: set its view aside", "view: damage found by a read"}
    return sum(count for what, count in report.tried.items() if what not in besides)


def _tail_cases(report: ProofReport) -> int:
    return report.tried["log: cut"] + report.tried["log: flip"]


def _store_trials(options: argparse.Namespace) -> int:
    given: int = options.store_trials
    return given * 10 if options.long else given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--tail-bytes", type=positive, default=TAIL_BYTES, metavar="N", help="default: %(default)s")
    parser.add_argument("--store-trials", type=int, default=1_500, metavar="N", help="default: %(default)s")
    parser.add_argument("--processes", type=positive, default=PROCESSES, metavar="N", help="default: %(default)s")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given more than once")
    return parser


if __name__ == "__main__":
    as_command(main)
