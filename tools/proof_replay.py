"""Replay is the state: at every commit_ts, for every agent, the fold of its events is what reads gave, byte for byte.

    python tools/proof_replay.py                              1,200 random histories
    python tools/proof_replay.py --long                       20,000
    python tools/proof_replay.py --seed 17 --histories 1      one of them, again

A history is drawn from its seed: agents, keys and values of every shape and size, deletes, transactions over several
agents and over none, groups of commits at once, restarts, lost and outdated views, snapshots. The real engine carries
it out, with its transaction ids and its clock given to it. Two processes with different hash seeds run every history,
and have to end with the same bytes in the log and the same states. Exit code 0: nothing was found.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from proof_processes import as_command, with_parent
from proof_report import ProofReport, add_arguments, positive, seed_of
from replay_states.one_process import Outcome

HISTORIES: Final = 1_200
HISTORIES_LONG: Final = 20_000
HASH_SEEDS: Final = ("1", "2")
SAY_EVERY_S: Final = 10.0


def prove(report: ProofReport, first_seed: int, histories: int) -> None:
    """Run the histories in both processes and compare what they come to."""
    with ExitStack() as stack:
        children = [stack.enter_context(_started(hash_seed, first_seed, histories)) for hash_seed in HASH_SEEDS]
        for child in children:
            stack.callback(child.kill)  # before it is waited for
        said_s = time.monotonic()
        for seed in range(first_seed, first_seed + histories):
            pair = [_next_of(child) for child in children]
            if not compare(report, seed, pair):
                break
            if time.monotonic() - said_s >= SAY_EVERY_S:
                said_s = time.monotonic()
                report.say(f"{seed - first_seed + 1:,} of {histories:,} histories")


def compare(report: ProofReport, seed: int, pair: Sequence[Outcome | None]) -> bool:
    """Take what both processes say of one history; False when one of them says nothing any more."""
    repeat = f"python tools/proof_replay.py --seed {seed} --histories 1"
    found = [outcome for outcome in pair if outcome is not None]
    if len(found) < len(HASH_SEEDS):
        report.violation(f"seed {seed}: a process ended before it had an outcome", repeat=repeat)
        return False
    first, second = found
    for violation in first.violations or second.violations:
        report.violation(violation, repeat=repeat)
    if (first.seed, first.digest, first.counts) != (second.seed, second.digest, second.counts):
        report.violation(
            f"seed {seed}: two processes with different hash seeds came to {first.digest} and {second.digest}",
            repeat=repeat,
        )
    report.tried += Counter(first.counts)
    return True


def _next_of(child: "subprocess.Popen[str]") -> Outcome | None:
    """The next history's outcome; None when the process has ended."""
    line = child.stdout.readline() if child.stdout is not None else ""
    return Outcome(**json.loads(line)) if line.endswith("\n") else None


def _started(hash_seed: str, first_seed: int, histories: int) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).resolve().parent)}
    command = [sys.executable, "-m", "replay_states.one_process", str(first_seed), str(histories)]
    return subprocess.Popen(
        with_parent(command), env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    seed = seed_of(options)
    report = ProofReport("replay")
    histories = options.histories or (HISTORIES_LONG if options.long else HISTORIES)
    report.say(f"seed {seed}: {histories:,} histories, each in two processes with different hash seeds")
    prove(report, seed, histories)
    return report.end(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--histories", type=positive, metavar="N", help=f"default: {HISTORIES}; long {HISTORIES_LONG}")
    return parser


if __name__ == "__main__":
    as_command(main)
