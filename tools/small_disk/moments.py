"""When a disk fills up: the moments that the proof brings about, and the start on a disk that is still full."""

from pathlib import Path
from typing import Final

import trio
from daemon_process import DaemonFailedError

from small_disk.trial import REFUSALS_IN_A_ROW, Round, RoundFailedError, Trial
from small_disk.volume import MIB

__all__ = [
    "between_commits",
    "by_commits",
    "refused_start",
    "while_a_segment_is_prepared",
    "while_a_segment_is_written",
    "while_a_snapshot_is_written",
]

COMMITS_LEFT_BYTES: Final = MIB // 4
SEGMENT_LEFT_BYTES: Final = (24 * MIB, 48 * MIB)
"""Less than a segment. With the first the view cannot be opened anew either, should it fail; with the second it can."""
SEGMENT_BEGUN_BYTES: Final = 80 * MIB
"""Room for a segment, until the ballast falls."""
SEGMENT_LOOK_S: Final = 0.001
LEAST_START_BYTES: Final = 257 * MIB
"""The daemon wants 256 MiB to start."""
MOMENT_WITHIN_S: Final = 120.0
SNAPSHOT_TRIES: Final = 5
EXIT_BAD_CONFIGURATION: Final = 2
COMPLAINT: Final = "MiB free and the daemon needs 256 MiB to start"

BACKGROUND_FAILED: Final = "background work failed"
SNAPSHOT: Final = "writing a snapshot"
SEGMENT: Final = "preparing the log's next segment"


async def by_commits(trial: Trial, _this: Round) -> None:
    """Little is left, and commits take it."""
    await trio.to_thread.run_sync(trial.volume.leave, COMMITS_LEFT_BYTES)


async def between_commits(trial: Trial, _this: Round) -> None:
    """All at once, and to the last block, while commits are under way."""
    await trio.to_thread.run_sync(trial.volume.leave, 0)


async def while_a_segment_is_prepared(trial: Trial, this: Round) -> None:
    """There is room for the commits, and not for the log's next segment."""
    failures = _failed(trial, SEGMENT)
    left_bytes = SEGMENT_LEFT_BYTES[trial.tried["moments: a segment finds no room"] % 2]
    await trio.to_thread.run_sync(trial.volume.leave, left_bytes)
    await this.until(lambda: _failed(trial, SEGMENT) > failures, MOMENT_WITHIN_S, "a segment that finds no room")
    trial.tried["moments: a segment finds no room"] += 1


async def while_a_segment_is_written(trial: Trial, this: Round) -> None:
    """The ballast falls while the zeros of the next segment are being written. How many there were is luck."""
    failures = _failed(trial, SEGMENT)
    unfinished = trial.daemon.data_dir / "log" / "next.tmp"
    await trio.to_thread.run_sync(trial.volume.leave, SEGMENT_BEGUN_BYTES)
    with trio.move_on_after(MOMENT_WITHIN_S):
        while not unfinished.exists():  # noqa: ASYNC110 - it happens on the daemon's disk
            await trio.sleep(SEGMENT_LOOK_S)
    await trio.to_thread.run_sync(trial.volume.leave, 0)
    await this.until(
        lambda: _failed(trial, SEGMENT) > failures or this.seen.refused_at_once >= REFUSALS_IN_A_ROW,
        MOMENT_WITHIN_S,
        "a segment, or commits, that find no room",
    )
    trial.tried["moments: the ballast falls on a segment that is being written"] += _failed(trial, SEGMENT) > failures


async def while_a_snapshot_is_written(trial: Trial, this: Round) -> None:
    """There is room for commits, and not for a snapshot. Which comes first is luck: tried until it is the snapshot."""
    failures, seen = _failed(trial, SNAPSHOT), this.seen
    await this.until(lambda: bool(_newest_snapshot(trial)), MOMENT_WITHIN_S, "the first snapshot")
    for attempt in range(1, SNAPSHOT_TRIES + 1):
        # More at each attempt, but less than the next snapshot takes: the view only grows.
        left_bytes = _newest_snapshot(trial) * attempt // (SNAPSHOT_TRIES + 1)
        await trio.to_thread.run_sync(trial.volume.leave, left_bytes)
        await this.until(
            lambda: _failed(trial, SNAPSHOT) > failures or seen.refused_at_once >= REFUSALS_IN_A_ROW,
            MOMENT_WITHIN_S,
            "a snapshot that finds no room",
        )
        if _failed(trial, SNAPSHOT) > failures:
            trial.tried["moments: a snapshot is written"] += 1
            await trio.to_thread.run_sync(trial.volume.leave, 0)
            return
        trial.volume.throw_off()
        await this.until(lambda: not seen.refused_at_once, MOMENT_WITHIN_S, "commits between two attempts")
    raise RoundFailedError(f"no snapshot found the disk full in {SNAPSHOT_TRIES} attempts")


def refused_start(trial: Trial) -> list[str]:
    """Start the daemon on the full disk: a clear refusal; then with just enough room: it runs. What is wrong."""
    wrong = []
    try:
        trial.daemon.start()
    except DaemonFailedError as error:
        last = str(error).splitlines()[-1]
        if error.exit_code != EXIT_BAD_CONFIGURATION or COMPLAINT not in last:
            wrong.append(f"a start on a full disk ended with {error.exit_code} and said {last!r}")
        trial.tried["starts on a full disk, refused with one clear line"] += not wrong
    else:
        return [f"the daemon started with {trial.volume.free_bytes // MIB} MiB free"]
    trial.volume.throw_off()
    trial.volume.leave(LEAST_START_BYTES)
    trial.daemon.start()
    trial.tried["starts on a disk with just enough room"] += 1
    trial.volume.throw_off()
    return wrong


def _failed(trial: Trial, work: str) -> int:
    """How often the daemon has said that this work failed, since its log began."""
    return sum(fields.get("work") == work for fields in trial.daemon.events(BACKGROUND_FAILED))


def _newest_snapshot(trial: Trial) -> int:
    """Its size in bytes; 0 when there is none."""
    snapshots = sorted(Path(trial.daemon.data_dir / "snapshots").glob("*.snap"))
    return snapshots[-1].stat().st_size if snapshots else 0
