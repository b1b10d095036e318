"""What a verification says, for whoever asks and however: the daemon, the clients and both commands share these words.

A verification gives `VerifyProgress` while it works, a `VerifyFinding` for each thing that is not as it should be, and
one `VerifyVerdict` at its end. A finding that is a note is nothing to mend: the next start takes care of it.

A `Head` is a commit and the chain value of the log behind it. Kept elsewhere and given to a later verification, it
shows what the log alone cannot: that commits at its end are gone, or that its history was written anew.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Self, TypeAlias

from attrs import field, frozen

__all__ = [
    "HEADS_AT_MOST",
    "FindingKind",
    "Head",
    "VerifyEvent",
    "VerifyFinding",
    "VerifyProgress",
    "VerifyVerdict",
    "distinct",
]

HEADS_AT_MOST: Final = 10_000
"""Known heads that one verification takes: one a day for 27 years."""
CHAIN_BYTES: Final = 32

_HEAD: Final = re.compile(r"([0-9]{1,20}):([0-9a-fA-F]{64})", re.ASCII)
_HIGHEST_TS: Final = 2**64 - 1


@frozen
class Head:
    """The log up to a commit: its commit_ts (0: no commit yet), the chain value there, and which store's it is.

    `str()` gives `TS:CHAIN`, with the chain value as 64 hex digits; `parse` reads it.
    """

    commit_ts: int
    chain: bytes
    store_id: bytes = field(default=b"", eq=False)
    """16 bytes; empty when it is not known."""

    def __str__(self) -> str:
        return f"{self.commit_ts}:{self.chain.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `TS:CHAIN`. ValueError when it is anything else."""
        match = _HEAD.fullmatch(text.strip())
        if match is None or int(match[1]) > _HIGHEST_TS:
            raise ValueError("a head is TS:CHAIN, a commit_ts and 64 hex digits, as statehousectl head prints it")
        return cls(int(match[1]), bytes.fromhex(match[2]))

    @classmethod
    def parse_lines(cls, text: str) -> list[Self]:
        """Read a head from each line; blank lines and those that begin with `#` are skipped.

        ValueError names the line that is something else.
        """
        heads = []
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                heads.append(cls.parse(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
        return heads


class FindingKind(StrEnum):
    """What can be found. docs/operations.md says what each means and what to do."""

    LOG_MISSING = "log-missing"
    SEGMENT_HEADER = "segment-header"
    SEGMENT_MISSING = "segment-missing"
    SEGMENT_FOREIGN = "segment-foreign"
    NEWER_FORMAT = "newer-format"
    RECORD_DAMAGED = "record-damaged"
    RECORD_MALFORMED = "record-malformed"
    LOG_SHORT = "log-short"
    UNREADABLE = "unreadable"

    HEAD_CUT = "head-cut"
    HEAD_REWRITTEN = "head-rewritten"
    HEAD_UNREAD = "head-unread"

    WATERMARK = "watermark"
    VIEW_DAMAGED = "view-damaged"
    ROW_MISSING = "row-missing"
    ROW_EXTRA = "row-extra"
    ROW_WRONG = "row-wrong"
    ROWS_NOT_NAMED = "rows-not-named"
    HISTORY_INCONSISTENT = "history-inconsistent"

    SNAPSHOT_DAMAGED = "snapshot-damaged"
    SNAPSHOT_FOREIGN = "snapshot-foreign"

    NOT_COMPARED = "not-compared"
    TORN_TAIL = "torn-tail"
    VIEW_MISSING = "view-missing"
    VIEW_BEHIND = "view-behind"
    VIEW_UNUSABLE = "view-unusable"
    VIEW_AHEAD = "view-ahead"
    LEFTOVER = "leftover"
    FOREIGN_FILE = "foreign-file"

    @property
    def is_note(self) -> bool:
        """Whether it is nothing to mend."""
        return self in _NOTES


_NOTES: Final = frozenset(
    {
        FindingKind.NOT_COMPARED,
        FindingKind.TORN_TAIL,
        FindingKind.VIEW_MISSING,
        FindingKind.VIEW_BEHIND,
        FindingKind.VIEW_UNUSABLE,
        FindingKind.VIEW_AHEAD,
        FindingKind.LEFTOVER,
        FindingKind.FOREIGN_FILE,
    }
)


@frozen(kw_only=True)
class VerifyFinding:
    """One thing that is not as it should be, where it is, and what to do. None and "": it does not apply."""

    kind: str
    """A `FindingKind`, or what a newer daemon calls it."""
    message: str
    remedy: str = ""
    """What to do; nothing for most notes."""
    is_note: bool = False
    """Nothing to mend: a start takes care of it, or it is only mentioned."""
    file: str = ""
    """Below the data directory."""
    offset: int | None = None
    commit_ts: int | None = None
    namespace: str = ""
    agent_id: str = ""
    key: str = ""
    version: int | None = None

    def __str__(self) -> str:
        """All of it, in the form of a line."""
        places = [
            f"{name}={value}"
            for name, value in (
                ("file", self.file or None),
                ("offset", self.offset),
                ("commit_ts", self.commit_ts),
                ("namespace", self.namespace or None),
                ("agent", self.agent_id or None),
                ("key", self.key or None),
                ("version", self.version),
            )
            if value is not None
        ]
        where = f"  {'  '.join(places)}" if places else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{'note' if self.is_note else 'FOUND'} {self.kind}{where}  {self.message}{remedy}"


@frozen(kw_only=True)
class VerifyProgress:
    """How far a verification is. `done` of `total` counts bytes of files, or in the stage `view` rows."""

    stage: str
    """`snapshots`, `log`, `view`, `names` (reading the log again, to find out which rows differ)."""
    done: int
    total: int
    records: int
    """Records of the log that were checked so far."""
    rows: int
    """Rows of the view that were compared so far."""


@frozen(kw_only=True)
class VerifyVerdict:
    """How a verification ended, and what it looked at."""

    sound: bool
    """Nothing was found but notes."""
    findings: int
    """Including those past the limit that were not given one by one; without the notes."""
    notes: int
    head: Head
    """The end of the log that was verified."""
    log_bytes: int
    records: int
    rows: int
    snapshots: int
    heads: int
    """Known heads that were held against the log."""
    seconds: float

    def __str__(self) -> str:
        """One line for people."""
        told = "sound" if self.sound else f"NOT SOUND: {self.findings} {_plural(self.findings, 'finding')}"
        notes = f", {self.notes} {_plural(self.notes, 'note')}" if self.notes else ""
        looked_at = ", ".join(
            f"{count:,} {_plural(count, what)}"
            for count, what in (
                (self.records, "record"),
                (self.rows, "row"),
                (self.snapshots, "snapshot"),
                (self.heads, "known head"),
            )
        )
        return f"{told}{notes}; head {self.head}; {looked_at}; {self.log_bytes:,} bytes of log; {self.seconds:.1f} s"


VerifyEvent: TypeAlias = VerifyProgress | VerifyFinding | VerifyVerdict


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def distinct(heads: Iterable[Head]) -> list[Head]:
    """The heads without repetitions. ValueError when there are more than HEADS_AT_MOST, or one is none."""
    found = list(dict.fromkeys(heads))
    if len(found) > HEADS_AT_MOST:
        raise ValueError(f"{len(found)} heads; at most {HEADS_AT_MOST} are taken at once")
    for head in found:
        if len(head.chain) != CHAIN_BYTES or not 0 <= head.commit_ts <= _HIGHEST_TS:
            raise ValueError(f"a head's chain value has {CHAIN_BYTES} bytes, and its commit_ts 64 bits")
    return found
