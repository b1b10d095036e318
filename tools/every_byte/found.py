"""What a share of the work brings back to the report: how often what was tried, what was wrong, what was measured."""

from collections import Counter
from typing import Final

from attrs import define, field

VIOLATIONS_KEPT: Final = 50
"""By one share of the work: a broken engine fails at every byte, and nobody reads a line for each."""


@define
class Found:
    """The result of some cases. Travels between processes."""

    tried: Counter[str] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    more_violations: int = 0

    def violation(self, text: str) -> None:
        """Note that a case came out wrong."""
        if len(self.violations) < VIOLATIONS_KEPT:
            self.violations.append(text)
        else:
            self.more_violations += 1
