"""Defects of how damage is found in a log."""

from typing import Final

from mutants.defect import SEGMENTS, TAIL, mutant

__all__ = ["OF_DAMAGE"]

_JUDGING: Final = "storage/log_judging.py"

OF_DAMAGE: Final = (
    mutant(
        "skip the chain check",
        "storage/log_reader.py",
        "if sha256(self.chain + length_field + payload).digest() != stored:",
        "if False:",
        caught_by=TAIL,
    ),
    mutant(
        "damage is cut like a torn tail",
        "storage/log_at_rest.py",
        "        return evidence_of_sync(tail, scan.chain, fault.offset)\n",
        "        return None\n",
        caught_by=TAIL,
    ),
    mutant(
        "segments need not join",
        _JUDGING,
        "if scan.commit_ts + 1 > following.first_ts or scan.chain != following.header.chain_before:",
        "if False:",
        caught_by=SEGMENTS,
    ),
    mutant(
        "a view that is ahead of the log is believed",
        _JUDGING,
        "if known_good is None or known_good.commit_ts <= head.commit_ts:",
        "if True:",
        caught_by=TAIL,
    ),
)
