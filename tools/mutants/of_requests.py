"""Defects of what a request may ask for besides: conditions, repeats, leases, reads of the past, watching."""

from typing import Final

from mutants.defect import mutant

__all__ = ["OF_REQUESTS"]

_PARTITION: Final = "actors/partition.py"

OF_REQUESTS: Final = (
    # Conditions, repeated requests, leases
    mutant(
        "conditions are not looked at",
        _PARTITION,
        "        return Findings(failed) if failed else None\n",
        "        return None\n",
    ),
    mutant(
        "an agent's condition passes over what is pending",
        _PARTITION,
        "                    holds = settled and commit_ts == last_ts\n",
        "                    holds = commit_ts == last_ts\n",
    ),
    mutant(
        "an earlier request is not looked for",
        _PARTITION,
        "        return Findings(earlier=earlier)\n",
        "        return None\n",
    ),
    mutant(
        "a request runs beside the first with its key",
        _PARTITION,
        "        if idempotency.key in self._pending_requests:\n            return UNSETTLED\n",
        "",
    ),
    mutant(
        "a rebuilt view forgets earlier requests",
        "storage/folding.py",
        "if (notes := read_notes(payload)) is not NO_NOTES:",
        "if (notes := read_notes(payload)) is not NO_NOTES and False:",
    ),
    mutant(
        "an epoch is given twice",
        "actors/leases.py",
        "LeaseChange(self._agent, epoch + 1, holder",
        "LeaseChange(self._agent, max(epoch, 1), holder",
    ),
    # Reads of the past, watching
    mutant(
        "a version counts before its commit",
        "storage/past.py",
        "        elif place_of(stored)[1] <= at_ts:\n",
        "        elif place_of(stored)[1] <= at_ts + 1:\n",
    ),
    mutant(
        "a watcher that falls behind passes over the log",
        "actors/feed.py",
        "        return self._open.covers_from <= cursor\n",
        "        return True\n",
    ),
)
