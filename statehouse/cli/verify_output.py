"""What a verification prints: findings, one a line, and the verdict last, on stdout; progress, if wanted, on stderr."""

import sys
import time
from typing import Final

import click

from statehouse.cli.ctl_output import print_json
from statehouse.client.formatting import one_line
from statehouse.findings import VerifyEvent, VerifyFinding, VerifyProgress, VerifyVerdict
from statehouse.limits import MIB
from statehouse.types import JsonObject

__all__ = ["VerifyOutput"]

PROGRESS_S: Final = 1.0
_FILES: Final = ("log", "snapshots", "names")
"""Stages that count bytes; the others count rows."""


class VerifyOutput:
    """Prints the events of one verification. `verdict` is its verdict, once that came."""

    def __init__(self, *, as_json: bool, progress: bool | None) -> None:
        """`progress` None: if stderr is a terminal."""
        self._as_json = as_json
        self._progress = sys.stderr.isatty() if progress is None else progress
        self._shown = 0
        self._began_s = time.monotonic()
        self._said_s = -PROGRESS_S
        self._stage = ""
        self._stage_s = 0.0
        self.verdict: VerifyVerdict | None = None

    def show(self, event: VerifyEvent) -> None:
        """Print one event."""
        if isinstance(event, VerifyProgress):
            if self._progress:
                self._say(event)
        elif isinstance(event, VerifyFinding):
            self._shown += not event.is_note
            if self._as_json:
                print_json(_finding_json(event))
            else:
                click.echo(one_line(str(event)))
        else:
            self.verdict = event
            if self._as_json:
                print_json(_verdict_json(event))
                return
            if event.findings > self._shown:
                click.echo(f"{event.findings - self._shown} more findings are not shown")
            click.echo(str(event))

    def _say(self, event: VerifyProgress) -> None:
        now_s = time.monotonic() - self._began_s
        if event.stage != self._stage:
            self._stage, self._stage_s = event.stage, now_s
        elif now_s - self._said_s < PROGRESS_S:
            return
        self._said_s = now_s
        click.echo(progress_line(event, stage_s=now_s - self._stage_s, whole_s=now_s), err=True)


def progress_line(event: VerifyProgress, *, stage_s: float, whole_s: float) -> str:
    """How far it is, how fast it goes, and how long this stage may still take."""
    if event.stage in _FILES:
        done = f"{event.done / MIB:,.1f} of {event.total / MIB:,.1f} MiB"
    else:
        done = f"{event.done:,} of {event.total:,} rows"
    parts = [f"{one_line(event.stage)}: {done}", f"{event.records:,} records"]
    if whole_s > 0 and event.records:
        parts.append(f"{event.records / whole_s:,.0f} records/s")
    if event.done and stage_s > 0:
        parts.append(f"{max(event.total - event.done, 0) * stage_s / event.done:,.0f} s left")
    return ", ".join(parts)


def _finding_json(finding: VerifyFinding) -> JsonObject:
    return {
        "type": "finding",
        "kind": str(finding.kind),
        "note": finding.is_note,
        "message": finding.message,
        "remedy": finding.remedy or None,
        "file": finding.file or None,
        "offset": finding.offset,
        "commit_ts": finding.commit_ts,
        "namespace": finding.namespace or None,
        "agent_id": finding.agent_id or None,
        "key": finding.key or None,
        "version": finding.version,
    }


def _verdict_json(verdict: VerifyVerdict) -> JsonObject:
    return {
        "type": "verdict",
        "sound": verdict.sound,
        "findings": verdict.findings,
        "notes": verdict.notes,
        "head": str(verdict.head),
        "store_id": verdict.head.store_id.hex(),
        "log_bytes": verdict.log_bytes,
        "records": verdict.records,
        "rows": verdict.rows,
        "snapshots": verdict.snapshots,
        "heads": verdict.heads,
        "seconds": verdict.seconds,
    }
