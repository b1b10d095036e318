"""What has happened in a run, counted: so that a proof in which nothing happened cannot pass for one."""

from collections import Counter
from functools import lru_cache
from typing import TypeAlias

from attrs import define, field
from histories.lineages import Refused
from histories.submissions import Load

__all__ = ["Coverage", "kind_of"]

State: TypeAlias = tuple[str, str, str, str, tuple[str, ...], str]


@lru_cache(maxsize=4096)
def kind_of(path: str) -> str:
    """What a path is, whichever it is of its kind."""
    name = path.rpartition("/")[2]
    if name == "next.tmp":
        return "next segment"
    for suffix, kind in ((".log", "segment"), (".snap.tmp", "unfinished snapshot"), (".snap", "snapshot")):
        if name.endswith(suffix):
            return kind
    return name


@define
class Coverage:
    """The counts of one seed, or of many."""

    counts: Counter[str] = field(factory=Counter)
    planned: Counter[str] = field(factory=Counter)
    struck: Counter[str] = field(factory=Counter)
    """Faults, by their kind."""
    struck_at: Counter[str] = field(factory=Counter)
    """Crashes, by kind and operation."""
    refused: Counter[str] = field(factory=Counter)
    """Starts that were refused, by the kind of error and what it followed."""
    sources: Counter[str] = field(factory=Counter)
    """Starts, by what the view was brought up from."""
    states: set[State] = field(factory=set)
    """At which operations which threads met, in what condition of the store."""

    def at(self, role: str, before: str, operation: str, kind: str, together: tuple[str, ...], condition: str) -> None:
        """A thread comes to an operation."""
        self.states.add((role, before, operation, kind, together, condition))

    def loaded(self, load: Load) -> None:
        """What the clients of a life have forked and ended, and what they were refused."""
        for fork in load.forks:
            self.counts["forks"] += fork.answered
            self.counts["forks of forks"] += fork.depth > 1
            self.counts["forks refused"] += fork.refused
            self.counts["forks without an answer"] += not (fork.answered or fork.refused)
        for submission in load.submissions:
            self.counts["values written that expire"] += sum(
                operation.ttl_s is not None for operation in submission.operations
            )
            if submission.ends is not None:
                self.counts[f"ends of agents, {submission.outcome.value}"] += 1
        for read in load.reads:
            if isinstance(read, Refused):
                self.counts[f"refused: {read.why}"] += 1

    def renamed(self, old: str, new: str) -> None:
        """A rename is what makes a segment or a snapshot."""
        if new.endswith(".log"):
            self.counts["segments begun"] += 1
        elif old.endswith(".snap.tmp"):
            self.counts["snapshots written"] += 1

    def add(self, other: "Coverage") -> None:
        """Count what another has counted."""
        for name in ("counts", "planned", "struck", "struck_at", "refused", "sources"):
            getattr(self, name).update(getattr(other, name))
        self.states |= other.states
