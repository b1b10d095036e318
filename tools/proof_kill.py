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
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import trio
from attrs import define, field, frozen
from daemon_process import DaemonFailedError, DaemonProcess
from kill_cycles.audit import commit_nothing, gather, whole_history, wrong_versions
from kill_cycles.faults import Before, End, Ended, FaultPlan, Restart, bring_back, plan_fault, strike
from kill_cycles.forged import FORGERIES, failures
from kill_cycles.oracle import Oracle
from kill_cycles.submissions import Load, Outcome
from kill_cycles.workload import AGENTS, Workload, WorkloadError

from statehouse import AsyncStatehouse, StatehouseError

REMEMBERED_PER_CYCLE: Final = 10
REMEMBERED_AT_END: Final = 300
VERSIONS_AT_END: Final = 300
CLIENTS_NOTICE_S: Final = 5.0
"""The clients promise 1 s; this machine may be busy with something else. The summary has what was measured."""
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

    def __init__(self, daemon: DaemonProcess, options: Options) -> None:
        self._daemon = daemon
        self._options = options
        self._oracle = Oracle()
        self._tally = Tally()
        self._workload = Workload(random.Random(f"workload {options.seed}"), options.clients)
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
        async with AsyncStatehouse(self._daemon.address) as client:
            remembered = self._sample(REMEMBERED_PER_CYCLE)
            evidence = await gather(client, AGENTS, load, self._oracle, remembered)
            load.submissions.append(await commit_nothing(client))
        self._tally.asked_again += len(evidence.answers)
        self._tally.add(load, plan, restart, noticed_s)
        violations = self._oracle.judge(load, evidence)
        if noticed_s > CLIENTS_NOTICE_S:
            violations.append(f"a client noticed only after {noticed_s:.1f} s that the daemon was gone")
        if plan.end is End.STOP and ended.exit_code:
            violations.append(f"SIGTERM under load: exit code {ended.exit_code}")
        violations += self._log_complaints()
        happened = self._oracle.resolved["happened"] - resolved
        _say(
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
            await self._workload.run(self._daemon.address, load)
            gone_s = time.monotonic()
        if plan.end is End.STOP:
            return ended[0], 0.0  # a drain takes its time, and clients leave before the daemon has ended
        return ended[0], max(gone_s - ended[0].at_s, 0.0)

    async def _last_look(self) -> None:
        """After one more kill: the whole history, many versions, and many ids, also old ones."""
        await trio.to_thread.run_sync(self._daemon.restart)
        load = Load()
        async with AsyncStatehouse(self._daemon.address) as client:
            violations = await whole_history(client, AGENTS, self._oracle)
            violations += await wrong_versions(client, self._oracle, VERSIONS_AT_END, self._samples)
            evidence = await gather(client, AGENTS, load, self._oracle, self._sample(REMEMBERED_AT_END))
            load.submissions.append(await commit_nothing(client))
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

    def summary(self) -> str:
        """What was done, in a few lines."""
        tally, resolved = self._tally, self._oracle.resolved
        total_s = sorted(restart.total_s for restart in tally.restarts) or [0.0]
        recovery_s = sorted(restart.recovery_s for restart in tally.restarts) or [0.0]
        faults = ", ".join(f"{count} x {name}" for name, count in sorted(tally.faults.items())) or "none"
        sources = ", ".join(f"{count} x from the {name}" for name, count in sorted(tally.sources.items()))
        unknown = tally.outcomes[Outcome.UNKNOWN]
        rows = {
            "seed": f"{self._options.seed}",
            "faults": faults,
            "acknowledged": f"{tally.outcomes[Outcome.ACKNOWLEDGED]} commits",
            "unknown": f"{unknown} commits: {resolved['happened']} had happened, {resolved['did not']} had not",
            "commit_ts": f"1 to {self._oracle.newest_ts}",
            "not committed": f"{tally.outcomes[Outcome.NEVER]} transactions",
            "asked again": f"{tally.asked_again} transaction ids",
            "read under load": f"{tally.reads} keys and scans",
            "clients noticed": f"at most {max(tally.noticed_s, default=0.0):.2f} s after kill -9",
            "launch to ready": f"median {_median(total_s):.2f} s, at most {total_s[-1]:.2f} s",
            "recovery": f"median {_median(recovery_s):.3f} s, at most {recovery_s[-1]:.3f} s, {sources}",
        }
        return "\n".join(f"{name:<16} {text}" for name, text in rows.items())


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    if options.self_test:
        return _self_test()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    _say(f"seed {seed}")
    directory = options.data_dir or Path(tempfile.mkdtemp(prefix="statehouse-proof-kill-"))
    if directory.exists() and any(directory.iterdir()):
        _say(f"proof_kill: {directory} is not empty")
        return 2
    daemon = DaemonProcess(directory, options=("--snapshot-interval", str(SNAPSHOT_INTERVAL)))
    started_s = time.monotonic()
    proof = Proof(daemon, Options(options.cycles, seed, options.clients))
    passed = False
    try:
        trio.run(proof.run, strict_exception_groups=True)
        passed = True
    except* ProofFailedError as group:
        for violation in _lines_of(group):
            _say(f"VIOLATION {violation}")
    except* (WorkloadError, DaemonFailedError, StatehouseError, TimeoutError) as group:
        for line in _lines_of(group):
            _say(f"FAILED {line}")
    finally:
        if daemon.running:
            daemon.kill()
    _say(proof.summary())
    if passed and not options.keep:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        _say(f"data directory   {directory}")
    _say(f"{'passed' if passed else 'FAILED'} after {time.monotonic() - started_s:.0f} s")
    return 0 if passed else 1


def _self_test() -> int:
    wrong = failures()
    for line in wrong:
        _say(f"FAILED {line}")
    _say(f"{len(FORGERIES)} forgeries: {'all caught, and the honest history accepted' if not wrong else 'see above'}")
    return 1 if wrong else 0


def _lines_of(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """Every failure in a group, flat, a line each."""
    lines: list[str] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            lines += _lines_of(error)
        elif isinstance(error, ProofFailedError):
            lines += error.violations
        else:
            lines.append(f"{type(error).__name__}: {error}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, metavar="N", help="default: a random one; it is printed")
    parser.add_argument("--clients", type=int, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="an empty one (default: a temporary one)")
    parser.add_argument(
        "--keep", action="store_true", help="keep the data directory; after a failure it is kept anyway"
    )
    parser.add_argument("--self-test", action="store_true", help="feed forged histories to the oracle, start no daemon")
    return parser


def _median(ordered: list[float]) -> float:
    return ordered[len(ordered) // 2]


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
