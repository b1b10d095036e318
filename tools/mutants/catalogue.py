"""The defects, by what they are of: each a small edit of the source, and the proofs that have to find it.

An edit names text that stands in its file exactly once (comments that mark failpoints are left out of the comparison),
so a mutant that no longer fits its source fails the test of this table, not the proof of some later day.
"""

from typing import Final

from mutants.defect import Mutant
from mutants.of_agents import OF_AGENTS
from mutants.of_commits import OF_COMMITS
from mutants.of_damage import OF_DAMAGE
from mutants.of_expiry import OF_EXPIRY
from mutants.of_requests import OF_REQUESTS

__all__ = ["MUTANTS"]

MUTANTS: Final[tuple[Mutant, ...]] = (*OF_COMMITS, *OF_REQUESTS, *OF_AGENTS, *OF_DAMAGE, *OF_EXPIRY)
