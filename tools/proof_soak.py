"""Proof: a daemon that is used for long, killed now and then, and read by slow and vanishing peers, stays as it is.

    python tools/proof_soak.py
    python tools/proof_soak.py --minutes 60 --plots soak

Half of the time goes into lives that kill -9 ends under load, the other half into one long life that is left to become
idle and then stopped. What the daemon holds is sampled each second and drawn: memory, descriptors, threads, tasks,
connections, and the parts of its data directory beside the records of the log. After its warm-up a life must be flat,
and so must the lives from one to the next (soak/flatness.py has the rule, soak/rules.py its numbers); idle again, the
daemon must have no more connections, calls, descriptors and tasks than it had idle at first; the data directory must
grow as the log's records do. Meanwhile an oracle judges what clients were told and shown, every few seconds.
"""

import argparse
import random
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import trio
from daemon_process import DaemonFailedError, DaemonProcess
from histories.workload import WorkloadError
from proof_processes import as_command
from proof_report import ProofReport, add_arguments, flat, seed_of
from soak.lives import Life, Soak
from soak.plots import draw
from soak.rules import beyond_the_log, of_a_life, over_lives
from soak.sample import Sample, write_csv

from statehouse import StatehouseError

MINUTES: Final = 1.4
LONG_MINUTES: Final = 60.0
PLOTS: Final = Path("build/soak")
KILLED_SHARE: Final = 0.45
"""Of the time, what goes into lives that are killed."""
KILLED_LIFE_S: Final = (40.0, 240.0)
LEAST_LIFE_S: Final = 5.0
OPTIONS: Final = (
    *("--snapshot-interval", "2000"),
    *("--tx-timeout-ms", "5000"),
    *("--max-resident-partitions", "64"),
)
"""What the daemon remembers for a while is remembered briefly, so that a warm-up of seconds is one."""


def planned(minutes: float, rng: random.Random) -> list[Life]:
    """The lives that fill so many minutes."""
    lives = []
    left_s = minutes * 60 * KILLED_SHARE
    while left_s > 0:
        seconds = min(rng.uniform(*KILLED_LIFE_S), left_s)
        left_s -= seconds
        if left_s < KILLED_LIFE_S[0]:
            seconds, left_s = seconds + left_s, 0.0
        lives.append(Life(max(seconds, LEAST_LIFE_S), killed=True))
    return [*lives, Life(max(minutes * 60 * (1 - KILLED_SHARE), LEAST_LIFE_S), killed=False)]


async def soak(report: ProofReport, whole: Soak, lives: list[Life], repeat: str) -> None:
    """All lives, and the judgement of each and of all."""
    for number, life in enumerate(lives, start=1):
        wrong = await whole.live(life)
        samples = whole.lives[-1]
        judgement = of_a_life(samples)
        if judgement is not None:
            wrong += judgement.wrong
            report.tried["lives judged to be flat or not"] += 1
            for line in judgement.measured:
                report.note(line)
        wrong += _first(beyond for sample in samples for beyond in beyond_the_log(sample))
        report.say(f"life {number}/{len(lives)} of {life.seconds:.0f} s: {_shown(samples)}")
        for line in wrong:
            report.violation(line, repeat=repeat)
    judgement = over_lives(whole.lives)
    if judgement is not None:
        report.note(judgement.measured[0])
        for line in judgement.wrong:
            report.violation(line, repeat=repeat)
    if not report.tried["lives judged to be flat or not"]:
        report.note("no life was long enough to be judged flat or not: more minutes are needed for that")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    report = ProofReport("soak")
    seed = seed_of(options)
    minutes = options.minutes or (LONG_MINUTES if options.long else MINUTES)
    report.say(f"seed {seed}, {minutes:g} minutes")
    repeat = f"python tools/proof_soak.py --minutes {minutes:g} --seed {seed}"
    directory = Path(tempfile.mkdtemp(prefix="statehouse-proof-soak-"))
    daemon = DaemonProcess(directory / "data", options=OPTIONS)
    whole = Soak(daemon, seed, report.say)
    try:
        trio.run(soak, report, whole, planned(minutes, random.Random(seed)), repeat, strict_exception_groups=True)
    except* (WorkloadError, DaemonFailedError, StatehouseError, OSError) as group:
        for error in flat(group):
            report.violation(f"{type(error).__name__}: {error}", repeat=repeat)
    finally:
        if daemon.running:
            daemon.kill()
        shutil.rmtree(directory, ignore_errors=True)
    report.tried.update(whole.tried)
    samples = [sample for samples in whole.lives for sample in samples]
    if samples:
        options.plots.mkdir(parents=True, exist_ok=True)
        write_csv(options.plots / "samples.csv", samples)
        drawn = draw(options.plots, samples)
        report.note(f"drawn: {', '.join(str(path) for path in drawn)}")
    return report.end(options)


def _first(lines: Iterable[str]) -> list[str]:
    """The first of them: one file that is too large is too large in every second after."""
    return next(([line] for line in lines), [])


def _shown(samples: list[Sample]) -> str:
    last = samples[-1]
    return (
        f"{last.commits} commits, RssAnon {last.rss_anon >> 20} MiB, {last.sockets} sockets, {last.tasks} tasks, log "
        f"{last.log_used >> 20} MiB, state {last.state_disk >> 20}, snapshots {last.snapshots_disk >> 20}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--minutes", type=float, metavar="M", help=f"default: {MINUTES}; {LONG_MINUTES:g} with --long")
    parser.add_argument("--plots", type=Path, default=PLOTS, metavar="DIR", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    as_command(main)
