"""Proof of linearizability and isolation: a million calls under kills and disconnects, judged in one pass.

    python tools/proof_linearizability.py                      what CI runs
    python tools/proof_linearizability.py --long
    python tools/proof_linearizability.py --operations 20000   a look

Many clients load a real daemon over real connections with every kind of call; a proxy between them cuts connections at
random moments, also while a commit is on its way; the daemon is killed and comes back, at times with its view deleted.
Beside them money is moved between agents. Each call is written down with what had been told or shown when it was sent,
and held against the order of commits (tools/histories/); the money must add up at every commit and in every read. A
seed decides what is sent and which faults come when, though not how the two meet.
"""

import argparse
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Final

import trio
from daemon_process import DaemonFailedError, DaemonProcess
from linearizability.lives import Lives, Size
from proof_processes import as_command
from proof_report import ProofReport, add_arguments, flat, positive, seed_of

from statehouse import StatehouseError

CI: Final = Size(operations=1_000_000, lives=20)
LONG: Final = Size(operations=5_000_000, lives=60)
SNAPSHOT_INTERVAL: Final = 4_000
"""In commits: some rebuilds of the view begin with a snapshot, and there are a few whose money can be counted."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    size = LONG if options.long else CI
    operations = size.operations if options.operations is None else options.operations
    lives = options.lives or max(2, round(size.lives * operations / size.operations))
    size = Size(
        operations, lives, clients=options.clients, connections=options.connections, cut_every_s=options.cut_every
    )
    seed = seed_of(options)
    report = ProofReport("linearizability")
    report.say(f"seed {seed}")
    directory = Path(tempfile.mkdtemp(prefix="statehouse-proof-linearizability-"))
    daemon = DaemonProcess(directory / "store", options=("--snapshot-interval", str(SNAPSHOT_INTERVAL)))
    repeat = f"python tools/proof_linearizability.py --seed {seed} --operations {operations} --lives {lives}"
    run = Lives(daemon, size, seed, report, repeat)
    finished = False
    try:
        trio.run(run.run, strict_exception_groups=True)
    except* (DaemonFailedError, StatehouseError, TimeoutError, ValueError) as group:  # ValueError: an account is odd
        for error in flat(group):
            report.violation(f"{type(error).__name__}: {error}", repeat=repeat)
        finished = True
    else:
        finished = True
    finally:
        if daemon.running:
            daemon.kill()
        if not finished:  # cancelled: nobody asks what there was
            shutil.rmtree(directory, ignore_errors=True)
    _count(run, report)
    if report.violations:
        report.note(f"the data directory is kept: {daemon.data_dir}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return report.end(options)


def _count(run: Lives, report: ProofReport) -> None:
    """What was tried, as it shall stand in the docs."""
    tally, tried = run.tally, report.tried
    tried["operations"] = tally.calls.total()
    for kind, count in tally.calls.most_common():
        tried[f"  {kind}"] = count
    tried["operations without an answer"] = tally.lost.total()
    tried["connections cut"] = run.cuts.total()
    for kind, count in tally.faults.most_common():
        tried[kind] = count
    for kind, count in tally.sources.most_common():
        tried[f"recoveries from the {kind}"] = count
    tried["commits"] = run.oracle.newest_ts
    for kind, count in tally.resolved.most_common():
        tried[f"outcomes in doubt, {kind}"] = count
    for kind, count in run.oracle.resolved.most_common():
        tried[f"outcomes unknown to the end, {kind}"] = count
    tried["transactions expired"] = tally.expired
    tried["transactions of earlier lives sent again under load"] = tally.sent_again
    tried["expired values read as absent"] = run.oracle.expiry.hidden
    tried["expired values deleted"] = run.oracle.expiry.tombstones
    tried["agents that were forked"] = len(run.oracle.lives.origins)
    tried["ends of agents"] = sum(map(len, run.oracle.lives.ends.values()))
    tried["sums of all accounts at a commit"] = run.sums
    for kind, count in run.bank.counted.most_common():
        tried[kind] = count
    tried["snapshot files whose money was counted"] = run.snapshots.counted
    if tally.load_s and tally.judge_s:
        operations = tally.calls.total()
        own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        report.note(
            f"load {operations / tally.load_s:,.0f} operations/s for {tally.load_s:.0f} s, judged "
            f"{operations / tally.judge_s:,.0f} operations/s in {tally.judge_s:.0f} s; restarts {tally.restart_s:.0f} "
            f"s, asking the restarted daemon {tally.audit_s:.0f} s; processor time {_seconds(own):.0f} s here, "
            f"{_seconds(others):.0f} s in daemons and proxy; at most {own.ru_maxrss / 1024:.0f} MiB here"
        )


def _seconds(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument(
        "--operations", type=positive, metavar="N", help=f"default: {CI.operations:,}, long {LONG.operations:,}"
    )
    parser.add_argument("--lives", type=positive, metavar="N", help="of the daemon (default: by the operations)")
    parser.add_argument("--clients", type=positive, default=CI.clients, metavar="N", help="default: %(default)s")
    parser.add_argument("--connections", type=positive, default=CI.connections, help="default: %(default)s")
    parser.add_argument("--cut-every", type=float, default=CI.cut_every_s, metavar="S", help="default: %(default)s s")
    return parser


if __name__ == "__main__":
    as_command(main)
