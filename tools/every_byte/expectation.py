"""What docs/formats.md promises for a log whose last segment was changed: which prefix, or which refusal.

A change knows, because it made it, which records still stand whole at their place, what follows the first that does
not, and so whether something behind it proves that it had been synced. From that and from the view's watermark the one
right outcome follows; where the page leaves two, both are allowed, and the change says so (`Proof.UNSURE`).
"""

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise
from typing import Final

from attrs import frozen

from every_byte.format_reader import LogFile

__all__ = ["SECTOR_BYTES", "Change", "Expected", "Outcome", "Proof", "expected", "has_a_zero_sector", "proof_of"]

SECTOR_BYTES: Final = 512
_LENGTH_BYTES: Final = 4


class Proof(Enum):
    """Whether what stands behind the first bad record shows that it had been synced."""

    CERTAIN = "certain"
    NONE = "none"
    UNSURE = "unsure"
    """A flagged record is there, and nothing whole beside it to verify it by: the page promises neither outcome."""


class Outcome(Enum):
    """What opening the log came to."""

    RECOVERED = "recovered"
    REFUSED = "refused"
    DISAGREED = "set its view aside"
    """Without fsync: the view has commits that the log lost; it is rebuilt from a prefix."""


@frozen
class Change:
    """The last segment after something happened to it.

    `good` records still stand at their places, from the first on; `fault` is false when nothing follows them, as if the
    log had ended there. `is_header` is true when not even the header is whole. `is_hole` says whether the first bad
    record has a sector of zeros, as power loss without fsync leaves one; None: it may have.
    """

    kind: str
    what: str
    content: bytes
    good: int
    fault: bool = True
    proof: Proof = Proof.NONE
    is_header: bool = False
    is_hole: bool | None = False


@frozen
class Expected:
    """The outcomes that are right, and the place that a refusal or a report of a cut must name."""

    outcomes: frozenset[Outcome]
    offset: int
    commit_ts: int


_ONLY: Final = {outcome: frozenset({outcome}) for outcome in Outcome}


def expected(tail: LogFile, change: Change, watermark_ts: int | None, *, fsync: bool) -> Expected:
    """What opening a log with this last segment must come to, with a view at `watermark_ts` or none."""
    if change.is_header:
        return Expected(_ONLY[Outcome.REFUSED], 0, tail.first_ts)
    good = change.good
    offset = tail.records[good].start if good < len(tail.records) else tail.end
    commit_ts = tail.first_ts + good
    covered = watermark_ts is not None and watermark_ts >= commit_ts
    return Expected(_outcomes(change, fsync=fsync, covered=covered), offset, commit_ts)


def _outcomes(change: Change, *, fsync: bool, covered: bool) -> frozenset[Outcome]:
    """`covered`: the view has the first commit that is not there any more."""
    if covered and fsync:
        return _ONLY[Outcome.REFUSED]
    if covered:
        if not change.fault:
            return _ONLY[Outcome.DISAGREED]
        if change.is_hole is None:
            return frozenset({Outcome.DISAGREED, Outcome.REFUSED})
        return _ONLY[Outcome.DISAGREED if change.is_hole else Outcome.REFUSED]
    if not change.fault or change.proof is Proof.NONE or not fsync:
        return _ONLY[Outcome.RECOVERED]
    if change.proof is Proof.CERTAIN:
        return _ONLY[Outcome.REFUSED]
    return frozenset({Outcome.RECOVERED, Outcome.REFUSED})


def proof_of(tail: LogFile, behind: Sequence[int | None]) -> Proof:
    """What stands from the first bad record on: indexes of records that are whole but for that place, None for others.

    A record verifies against the chain value of the one before it, so it takes two neighbours that still stand side by
    side; the flag of either is proof, but for that of the bad record itself.
    """
    flagged = [index is not None and tail.records[index].after_sync for index in behind]
    if not any(flagged):
        return Proof.NONE
    for place, (index, following) in enumerate(pairwise(behind)):
        joins = index is not None and following == index + 1
        if joins and (flagged[place + 1] or (flagged[place] and place > 0)):
            return Proof.CERTAIN
    return Proof.UNSURE


def has_a_zero_sector(content: bytes, start: int, stop: int) -> bool:
    """Whether a record from `start` to `stop` has zeros in a whole sector, or in all of its part of one.

    A part that lies within the length's own bytes says nothing: the high bytes of a length are zeros.
    """
    borders = [start, *range(start - start % SECTOR_BYTES + SECTOR_BYTES, stop, SECTOR_BYTES), stop]
    return any(
        not content[first:last].strip(b"\0") for first, last in pairwise(borders) if last - start >= _LENGTH_BYTES
    )
