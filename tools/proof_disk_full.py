"""Proof: a disk that is full stops commits and nothing else, and room is all that it takes to go on.

    python tools/proof_disk_full.py
    python tools/proof_disk_full.py --cycles 5

A statehoused on a small file system of its own (ext4 on a loop device, or else a tmpfs) is loaded while ballast takes
the disk from it: commits use up the rest; it is full to the last block between two commits; the log's next segment
finds no room; it fills up while that segment, or a snapshot, is being written. Each time commits are refused with
RESOURCE_EXHAUSTED, reads, scans and replays go on, and health says `ok`; the ballast is thrown off, and commits succeed
again without a restart. Then it is killed with the disk full, must refuse to start with one clear line, and start with
257 MiB free. After every round the oracle holds what was acknowledged and refused, and every read, against what is
there. It needs the right to mount, or to make a user namespace; without either the exit code is 1, because nothing was
proven.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio
from daemon_process import DaemonFailedError, DaemonProcess
from histories.submissions import Load
from histories.workload import WorkloadError
from proof_processes import as_command
from proof_report import ProofReport, add_arguments, flat, positive, seed_of
from small_disk.moments import (
    between_commits,
    by_commits,
    refused_start,
    while_a_segment_is_prepared,
    while_a_segment_is_written,
    while_a_snapshot_is_written,
)
from small_disk.trial import Round, RoundFailedError, Trial
from small_disk.volume import MIB, CannotMountError, Volume, into_a_namespace, mounted

from statehouse import StatehouseError

CYCLES: Final = 1
LONG_CYCLES: Final = 12
CLIENTS: Final = 6
SNAPSHOT_INTERVAL: Final = 300
"""In commits: snapshots of a size to fail with, every second or so."""
ROOM_BYTES: Final = 460 * MIB
"""What the daemon wants free to start, two segments, the view, and what the file system takes for itself."""
CYCLE_BYTES: Final = 180 * MIB
"""What the log grows by in a cycle, at most."""

Fill = Callable[[Trial, Round], Awaitable[None]]
MOMENTS: Final[dict[str, tuple[Fill, bool]]] = {
    "commits take the rest": (by_commits, False),
    "full between two commits": (between_commits, False),
    "full while a snapshot is written": (while_a_snapshot_is_written, False),
    "no room for the next segment": (while_a_segment_is_prepared, True),
    "full while the next segment is written": (while_a_segment_is_written, True),
}
"""How the disk fills, and whether it takes large values."""


class Proof:
    """All cycles on one volume."""

    def __init__(self, report: ProofReport, volume: Volume, seed: int, cycles: int) -> None:
        self._report = report
        self._daemon = DaemonProcess(
            volume.where / "data", options=("--snapshot-interval", str(SNAPSHOT_INTERVAL), "--tx-timeout-ms", "5000")
        )
        self._trial = Trial(volume, self._daemon, seed, CLIENTS)
        self._repeat = f"python tools/proof_disk_full.py --cycles {cycles} --seed {seed}"
        self._cycles = cycles

    async def run(self) -> None:
        """Every cycle and the last look. RoundFailedError, or what a daemon that does not start raises."""
        await trio.to_thread.run_sync(self._daemon.start)
        try:
            for _ in range(self._cycles):
                for name, (fill, large) in MOMENTS.items():
                    await self._round(name, fill, large=large)
                await self._killed_while_full()
            await self._last_look()
        finally:
            if self._daemon.running:
                self._daemon.kill()
            self._report.tried.update(self._trial.tried)

    async def _round(self, name: str, fill: Fill, *, large: bool) -> None:
        started_s = time.monotonic()
        self._judged(name, await self._trial.round(partial(fill, self._trial), large=large))
        self._report.say(f"{name}: refused, freed and judged in {time.monotonic() - started_s:.1f} s")

    async def _killed_while_full(self) -> None:
        name = "killed with the disk full"
        violations = await self._trial.round(partial(by_commits, self._trial), kill=True)
        violations += await trio.to_thread.run_sync(refused_start, self._trial)
        violations += await self._trial.judge(self._trial.left)
        self._trial.tried["kill -9 with the disk full"] += 1
        self._judged(name, violations)
        self._report.say(f"{name}: the start refused, then made, and all there")

    async def _last_look(self) -> None:
        """A stop on a full disk is an orderly one; then everything once more, read from the log."""
        trial = self._trial
        await trio.to_thread.run_sync(trial.volume.leave, 0)
        exit_code = await trio.to_thread.run_sync(self._daemon.stop)
        violations = [f"SIGTERM with the disk full: exit code {exit_code}"] if exit_code else []
        trial.volume.throw_off()
        self._daemon.options = (*self._daemon.options, "--verify-on-start", "full")
        await trio.to_thread.run_sync(self._daemon.start)
        violations += await trial.judge(Load(newest_ts=trial.oracle.newest_ts))
        self._judged("the last look", violations + await trial.whole_history())

    def _judged(self, name: str, violations: list[str]) -> None:
        errors = [event for level in ("error", "critical") for event in _lines(self._daemon, level)]
        for violation in [*violations, *errors]:
            self._report.violation(f"{name}: {violation}", repeat=self._repeat)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    report = ProofReport("disk full")
    seed = seed_of(options)
    report.say(f"seed {seed}")
    cycles = options.cycles or (LONG_CYCLES if options.long else CYCLES)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="statehouse-proof-disk-full-") as directory,
            mounted(Path(directory), ROOM_BYTES + cycles * CYCLE_BYTES) as volume,
        ):
            report.note(f"the file system is {volume.kind}, {volume.free_bytes // MIB} MiB")
            _prove(report, volume, seed, cycles)
    except CannotMountError as error:
        if arguments is None:
            into_a_namespace(sys.argv)
        report.violation(f"no file system can be mounted here, so nothing was proven: {error}")
    return report.end(options)


def _prove(report: ProofReport, volume: Volume, seed: int, cycles: int) -> None:
    repeat = f"python tools/proof_disk_full.py --cycles {cycles} --seed {seed}"
    try:
        trio.run(Proof(report, volume, seed, cycles).run, strict_exception_groups=True)
    except* (RoundFailedError, WorkloadError, DaemonFailedError, StatehouseError, TimeoutError) as group:
        for error in flat(group):
            report.violation(f"{type(error).__name__}: {error}", repeat=repeat)


def _lines(daemon: DaemonProcess, level: str) -> list[str]:
    return [f"the daemon's log: {line}" for line in list(daemon.lines) if f'"level": "{level}"' in line]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--cycles", type=positive, metavar="N", help=f"default: {CYCLES}; {LONG_CYCLES} with --long")
    return parser


if __name__ == "__main__":
    as_command(main)
