"""Proof B: a loaded daemon, killed again and again, loses nothing, tears nothing and counts on without a gap.

    python tools/proof_kill.py --cycles 200
    python tools/proof_kill.py --self-test        show that the oracle catches what it is there to catch

A cycle: clients load the daemon; at a random moment it gets kill -9, or now and then SIGTERM; it is started again, at
times with its LevelDB view deleted or after a start that was itself killed; then everything that the clients were
told is held against everything that is there. At the end all of it is, once more. A seed decides what is sent and
which faults come when, though not how the two meet. Exit code 0: nothing was found.
"""

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

import trio
from attrs import define, field, frozen
from daemon_process import DaemonFailedError, DaemonProcess
from histories.audit import commit_nothing, gather, whole_history, wrong_versions
from histories.forged import FORGERIES, failures
from histories.forged_at_once import FORGERIES_AT_ONCE, failures_at_once
from histories.forged_expiry import FORGERIES_OF_EXPIRY, failures_of_expiry
from histories.forged_forks import FORGERIES_OF_FORKS, failures_of_forks
from histories.oracle import Oracle
from histories.subject import connected
from histories.submissions import Load, Outcome
from histories.workload import AGENTS, Workload, WorkloadError
from kill_cycles.faults import Before, End, Ended, FaultPlan, Restart, bring_back, plan_fault, strike
from proof_processes import as_command
from proof_report import ProofReport, add_arguments, flat, positive, seed_of

from statehouse import StatehouseError

CYCLES: Final = 200
LONG_CYCLES: Final = 5_000
REMEMBERED_PER_CYCLE: Final = 10
REMEMBERED_AT_END: Final = 300
VERSIONS_AT_END: Final = 300
CLIENTS_NOTICE_S: Final = 12.0
"""The clients promise 1 s; this machine may be busy with something else. The summary has what was measured. Who
does not notice at all waits for the deadline of a call, which is longer (histories/subject.py)."""
SNAPSHOT_INTERVAL: Final = 500
"""In commits: some rebuilds of the view then begin with a snapshot, which the default would never write here."""
BAD_LEVELS: Final = {"error", "critical"}


class ProofFailedError(Exception):
    """The daemon broke a promise; `violations` has a line for each."""

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = list(violations)
        super().__init__(f"{len(self.violations)} violations")


@frozen
class Options:
    """What the command was asked to do."""

    cycles: int
    seed: int
    clients: int


@define
class Tally:
    """The sums over all cycles, for the summary."""

    outcomes: Counter[Outcome] = field(factory=Counter)
    reads: int = 0
    asked_again: int = 0
    faults: Counter[str] = field(factory=Counter)
    sources: Counter[str] = field(factory=Counter)
    restarts: list[Restart] = field(factory=list)
    noticed_s: list[float] = field(factory=list)

    def add(self, load: Load, plan: FaultPlan, restart: Restart, noticed_s: float) -> None:
        """Count a cycle."""
        self.outcomes.update(submission.outcome for submission in load.submissions)
        self.reads += len(load.reads)
        self.faults.update(name for name in (plan.end.value, plan.before.value) if name)
        self.sources[restart.view_from] += 1
        self.restarts.append(restart)
        self.noticed_s.append(noticed_s)


class Proof:
    """The cycles over one data directory."""

    def __init__(self, daemon: DaemonProcess, options: Options, report: ProofReport) -> None:
        self._daemon = daemon
        self._report = report
        self._options = options
        self._oracle = Oracle()
        self._tally = Tally()
        self._workload = Workload(random.Random(f"workload {options.seed}"))
        self._faults = random.Random(f"faults {options.seed}")
        self._samples = random.Random(f"samples {options.seed}")
        self._log_lines_read = 0

    async def run(self) -> None:
        """All cycles and the last look. ProofFailedError, or what a daemon that does not start raises."""
        await trio.to_thread.run_sync(self._daemon.start)
        for cycle in range(1, self._options.cycles + 1):
            await self._cycle(cycle)
        await self._last_look()

    async def _cycle(self, cycle: int) -> None:
        plan = plan_fault(self._faults)
        load = Load(newest_ts=self._oracle.newest_ts)
        ended, noticed_s = await self._run_under_load(plan, load)
        restart = await bring_back(self._daemon, plan)
        resolved = self._oracle.resolved["happened"]
        async with connected(self._daemon.address) as subject:
            remembered = self._sample(REMEMBERED_PER_CYCLE)
            evidence = await gather(subject, AGENTS, load, self._oracle, remembered)
            load.submissions.append(await commit_nothing(subject))
        self._tally.asked_again += len(evidence.answers)
        self._tally.add(load, plan, restart, noticed_s)
        violations = self._oracle.judge(load, evidence)
        if noticed_s > CLIENTS_NOTICE_S:
            violations.append(f"a client noticed only after {noticed_s:.1f} s that the daemon was gone")
        if plan.end is End.STOP and ended.exit_code:
            violations.append(f"SIGTERM under load: exit code {ended.exit_code}")
        violations += self._log_complaints()
        happened = self._oracle.resolved["happened"] - resolved
        self._report.say(
            f"cycle {cycle:>3}/{self._options.cycles}  {plan.end.value} after {plan.after_s:.2f} s"
            f"{f', {plan.before.value}' if plan.before is not Before.NOTHING else ''}: "
            f"{load.count(Outcome.ACKNOWLEDGED)} acknowledged, {load.count(Outcome.UNKNOWN)} unknown "
            f"({happened} happened), back in {restart.total_s:.2f} s at commit_ts {self._oracle.newest_ts}"
        )
        if violations:
            raise ProofFailedError(violations)

    async def _run_under_load(self, plan: FaultPlan, load: Load) -> tuple[Ended, float]:
        """Load and end the daemon; how it ended, and how long after its end the last client knew."""
        ended: list[Ended] = []

        async def end() -> None:
            ended.append(await strike(self._daemon, plan))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            await self._workload.run(partial(connected, self._daemon.address), self._options.clients, load)
            gone_s = time.monotonic()
        if plan.end is End.STOP:
            return ended[0], 0.0  # a drain takes its time, and clients leave before the daemon has ended
        return ended[0], max(gone_s - ended[0].at_s, 0.0)

    async def _last_look(self) -> None:
        """After one more kill: the whole history, many versions, and many ids, also old ones."""
        await trio.to_thread.run_sync(self._daemon.restart)
        load = Load()
        async with connected(self._daemon.address) as subject:
            violations = await whole_history(subject, AGENTS, self._oracle)
            violations += await wrong_versions(subject, self._oracle, VERSIONS_AT_END, self._samples)
            evidence = await gather(subject, AGENTS, load, self._oracle, self._sample(REMEMBERED_AT_END))
            load.submissions.append(await commit_nothing(subject))
            self._tally.asked_again += len(evidence.answers)
            violations += self._oracle.judge(load, evidence)
        exit_code = await trio.to_thread.run_sync(self._daemon.stop)
        if exit_code:
            violations.append(f"SIGTERM: exit code {exit_code}")
        violations += self._log_complaints()
        if violations:
            raise ProofFailedError(violations)

    def _sample(self, count: int) -> list[str]:
        """Ids of earlier cycles, however they ended."""
        known = list(self._oracle.submissions)
        return self._samples.sample(known, min(count, len(known)))

    def _log_complaints(self) -> list[str]:
        """Errors in the daemon's own log: it was killed, not broken."""
        lines = list(self._daemon.lines)
        new = lines[self._log_lines_read :]
        self._log_lines_read = len(lines)
        return [
            f"the daemon's log: {line}" for line in new if any(f'"level": "{level}"' in line for level in BAD_LEVELS)
        ]

    def count(self, report: ProofReport) -> None:
        """Add what was done and measured to the report."""
        tally, resolved = self._tally, self._oracle.resolved
        tried = report.tried
        for name, count in sorted(tally.faults.items()):
            tried[name] += count
        tried["commits acknowledged"] = tally.outcomes[Outcome.ACKNOWLEDGED]
        tried["unknown, and had happened"] = resolved["happened"]
        tried["unknown, and had not"] = resolved["did not"]
        tried["transactions not committed"] = tally.outcomes[Outcome.NEVER]
        tried["transaction ids asked again"] = tally.asked_again
        tried["keys, scans and replays read under load"] = tally.reads
        for source, count in sorted(tally.sources.items()):
            tried[f"recoveries from the {source}"] += count
        total_s = sorted(restart.total_s for restart in tally.restarts) or [0.0]
        recovery_s = sorted(restart.recovery_s for restart in tally.restarts) or [0.0]
        report.note(
            f"clients noticed at most {max(tally.noticed_s, default=0.0):.2f} s after kill -9; launch to ready: median "
            f"{_median(total_s):.2f} s, at most {total_s[-1]:.2f} s; recovery: median {_median(recovery_s):.3f} s, at "
            f"most {recovery_s[-1]:.3f} s"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    if options.self_test:
        return _self_test()
    seed = seed_of(options)
    cycles = (LONG_CYCLES if options.long else CYCLES) if options.cycles is None else options.cycles
    report = ProofReport("kill")
    report.say(f"seed {seed}")
    directory = options.data_dir or Path(tempfile.mkdtemp(prefix="statehouse-proof-kill-"))
    if directory.exists() and any(directory.iterdir()):
        print(f"proof_kill: {directory} is not empty")
        return 2
    daemon = DaemonProcess(directory, options=("--snapshot-interval", str(SNAPSHOT_INTERVAL)))
    proof = Proof(daemon, Options(cycles, seed, options.clients), report)
    repeat = f"python tools/proof_kill.py --cycles {cycles} --seed {seed} --clients {options.clients}"
    finished = False
    try:
        trio.run(proof.run, strict_exception_groups=True)
    except* (ProofFailedError, WorkloadError, DaemonFailedError, StatehouseError, TimeoutError) as group:
        for violation in _lines_of(group):
            report.violation(violation, repeat=repeat)
        finished = True
    else:
        finished = True
    finally:
        if daemon.running:
            daemon.kill()
        if not finished and options.data_dir is None:  # cancelled: nobody asks what there was
            shutil.rmtree(directory, ignore_errors=True)
    proof.count(report)
    if report.violations or options.keep:
        report.note(f"the data directory is kept: {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return report.end(options)


def _self_test() -> int:
    wrong = [*failures(), *failures_at_once(), *failures_of_forks(), *failures_of_expiry()]
    for line in wrong:
        print(f"FAILED {line}")
    count = len(FORGERIES) + len(FORGERIES_AT_ONCE) + len(FORGERIES_OF_FORKS) + len(FORGERIES_OF_EXPIRY)
    print(f"{count} forgeries: {'all caught, and the honest history accepted' if not wrong else 'see above'}")
    return 1 if wrong else 0


def _lines_of(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """Every failure in a group, flat, a line each."""
    lines: list[str] = []
    for error in flat(group):
        lines += error.violations if isinstance(error, ProofFailedError) else [f"{type(error).__name__}: {error}"]
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--cycles", type=positive, metavar="N", help=f"default: {CYCLES}, --long {LONG_CYCLES}")
    parser.add_argument("--clients", type=positive, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="an empty one (default: a temporary one)")
    parser.add_argument(
        "--keep", action="store_true", help="keep the data directory; after a failure it is kept anyway"
    )
    parser.add_argument("--self-test", action="store_true", help="feed forged histories to the oracle, start no daemon")
    return parser


def _median(ordered: list[float]) -> float:
    return ordered[len(ordered) // 2]


if __name__ == "__main__":
    as_command(main)
