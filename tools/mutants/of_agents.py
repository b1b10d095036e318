"""Defects of agents that are forked, and that end."""

from typing import Final

from mutants.defect import mutant

__all__ = ["OF_AGENTS"]

_PARTITION: Final = "actors/partition.py"

OF_AGENTS: Final = (
    mutant(
        "a fork sees what its parent was given later",
        "storage/past.py",
        "in_level(view, prefix, key, newest, min(at_ts, until_ts))",
        "in_level(view, prefix, key, newest, at_ts)",
    ),
    mutant(
        "a fork has its parent's later events",
        "storage/agent_events.py",
        "view.scan(*keys.event_range(ancestor, first_ts, min(last_ts, until_ts)))",
        "view.scan(*keys.event_range(ancestor, first_ts, last_ts))",
    ),
    mutant(
        "a fork's versions begin anew",
        "storage/preparing.py",
        "            if found is not None or len(levels) == 1:\n                return found\n"
        "            return stored_at(self._view, levels[1:], key)\n",
        "            return found\n",
    ),
    mutant(
        "a fork counts what its parent has now",
        "storage/preparing.py",
        "            return counters_at(self._view, levels, at_ts), len(levels)\n",
        "            found = counters_at(self._view, levels, at_ts)\n"
        "            now = self._counters(keys.agent_prefix(parent))\n"
        "            return (now if found.commits else found), len(levels)\n",
    ),
    mutant(
        "a rebuilt view forgets forks",
        "storage/folding.py",
        "            note_writes(self._writes, notes, prefixes, commit_ts, committed_at_ns(section))\n",
        "            kept = type(notes)(notes.idempotency, notes.lease, None, notes.end, notes.swept_until_ns)\n"
        "            note_writes(self._writes, kept, prefixes, commit_ts, committed_at_ns(section))\n",
    ),
    mutant(
        "two forks of one name",
        "actors/forking.py",
        "    if parent == agent or counters.commits:",
        "    if parent == agent or (counters.commits and len(reads.levels()) == 1):",
    ),
    mutant(
        "a fork or an end passes over what is pending",
        _PARTITION,
        "        if self.pending_commits:\n            return UNSETTLED\n        if isinstance(leg.exclusive",
        "        if isinstance(leg.exclusive",
    ),
    mutant(
        "others are prepared while a fork or an end is not durable",
        "actors/commits.py",
        "        self._hold = self._exclusive or len(transaction.legs) > 1\n",
        "        self._exclusive = False\n        self._hold = len(transaction.legs) > 1\n",
    ),
    mutant(
        "a partition knows what was before a fork or an end",
        _PARTITION,
        "        self._counters = None\n        self._end_ts = None\n        self._last_ts = 0\n",
        "        return\n",
    ),
    mutant(
        "a watcher does not hear that its agent came to be as a fork",
        "actors/feed.py",
        "                    channel.fork(commit_ts, fork.inherited.last_commit_ts)\n",
        "                    pass\n",
    ),
    mutant(
        "a deleted agent is written to",
        _PARTITION,
        "        if leg.operations and not (message.revive or leg.checks):\n",
        "        if False:\n",
    ),
    mutant(
        "an agent that was brought back ends no more",
        _PARTITION,
        "return self._end_ts if self._end_ts >= (self._last_ts or counters.last_commit_ts) else 0",
        "return self._end_ts",
    ),
    mutant(
        "an end leaves a key",
        "actors/endings.py",
        "[(key, None, version + 1) for key, version in found],",
        "[(key, None, version + 1) for key, version in found[1:] or found],",
    ),
)
