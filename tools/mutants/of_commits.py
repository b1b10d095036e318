"""Defects of a commit: one that is not durable, or torn, or out of its order, or lost to whoever replays."""

from typing import Final

from mutants.defect import SIMULATION, Edit, Mutant, mutant

__all__ = ["OF_COMMITS"]

_STORE: Final = "storage/store.py"
_SEQUENCER: Final = "actors/sequencer.py"
_WRITER: Final = "storage/log_writer.py"
_SEGMENTS: Final = "storage/segments.py"
_OPENING: Final = "storage/log_opening.py"

_APPLY: Final = (
    "self._view.apply(group.view_writes(placements, self._log.head.chain, self._counters).items())",
    """writes = group.view_writes(placements, self._log.head.chain, self._counters)
            {first}
            {second}""",
)

OF_COMMITS: Final = (
    # Durable
    mutant("no fsync", _WRITER, "        if self._fsync:\n            self._sync_active()", "        return"),
    Mutant(
        "answer before sync",
        (
            Edit(
                _SEQUENCER,
                "        try:\n            await trio.to_thread.run_sync(self._commit_group, ordered",
                "        for commit_ts, message in enumerate(group, start=ordered.first_commit_ts):\n"
                "            message.reply.succeed(commit_ts)\n"
                "        try:\n            await trio.to_thread.run_sync(self._commit_group, ordered",
            ),
            Edit(
                _SEQUENCER,
                "                message.reply.succeed(commit_ts)\n            self._committed(ordered)",
                "                pass\n            self._committed(ordered)",
            ),
        ),
        (SIMULATION,),
    ),
    mutant(
        "apply before sync",
        _STORE,
        "        self._log.sync()\n        self._applying = True\n        try:\n            " + _APPLY[0],
        "        self._applying = True\n        try:\n            " + _APPLY[0] + "\n            self._log.sync()",
    ),
    mutant(
        "apply before append",
        _STORE,
        "        placements = self._log.append(payloads)\n        self._log.sync()\n",
        "        placements = self._log.place([len(payload) for payload in payloads])\n"
        "        early = group.view_writes(placements, self._log.head.chain, self._counters)\n"
        "        self._view.apply(early.items())\n"
        "        placements = self._log.append(payloads)\n        self._log.sync()\n",
    ),
    mutant(
        "retry a failed sync",
        _WRITER,
        '        except OSError as error:\n            self._poison("a sync of the event log failed", error)\n'
        "        self._unsynced = False\n\n    def _erase",
        "        except OSError:\n            self._active.file.sync()\n"
        "        self._unsynced = False\n\n    def _erase",
    ),
    mutant(
        "a new segment's name is not synced",
        _SEGMENTS,
        "sync_or_fail(lambda: self._disk.sync_dir(self._directory))",
        "pass",
    ),
    mutant(
        "what an earlier life wrote is not made durable",
        _OPENING,
        "        _make_durable(file, scan)\n        disk",
        "        disk",
    ),
    # Atomic
    mutant(
        "tear a transaction in two batches",
        _STORE,
        _APPLY[0],
        _APPLY[1].format(
            first="self._view.apply(list(writes.items())[: len(writes) // 2])",
            second="self._view.apply(list(writes.items())[len(writes) // 2 :])",
        ),
    ),
    mutant(
        "watermark ahead of state",
        _STORE,
        _APPLY[0],
        _APPLY[1].format(
            first="self._view.apply(list(writes.items())[-1:])",
            second="self._view.apply(list(writes.items())[:-1])",
        ),
    ),
    mutant(
        "a failed group stays in the log",
        _STORE,
        "            self._log.roll_back()\n            raise self._failed_view(error) from error",
        "            raise self._failed_view(error) from error",
    ),
    mutant(
        "a short write is not taken back",
        _WRITER,
        "            self._erase(active.end, len(group))\n            raise DiskFullError",
        "            raise DiskFullError",
    ),
    # Linearizable, total order
    mutant(
        "reuse a commit_ts",
        _SEQUENCER,
        "        self._head_ts = group.last_commit_ts\n",
        "        self._head_ts = group.last_commit_ts - (group.last_commit_ts % 7 == 0)\n",
    ),
    Mutant(
        "the clock runs backwards",
        (
            Edit(_SEQUENCER, "max(now_ns, self._head_time_ns)", "now_ns"),
            Edit("actors/clock.py", "        if wall_ns >= self._told_ns:", "        if wall_ns:"),
        ),
        (SIMULATION,),
    ),
    mutant(
        "forget one partition's pending on failure",
        "actors/partitions.py",
        "        for partition in self._resident.values():\n            if not partition.idle:\n"
        "                partition.forget_pending(error)",
        "        for partition in list(self._resident.values())[1:]:\n            if not partition.idle:\n"
        "                partition.forget_pending(error)",
    ),
    # Replayable
    mutant(
        "a rebuilt view loses deletes",
        "storage/folding.py",
        "exists[key] = value_offset is not None",
        "exists[key] = True",
    ),
)
