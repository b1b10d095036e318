"""What bears witness to how far a log went, and which: heads that were kept elsewhere, a view, a snapshot."""

from collections.abc import Iterable, Iterator
from typing import Final

from statehouse.findings import FindingKind, Head, VerifyFinding
from statehouse.storage.commit import FORMAT_VERSION
from statehouse.storage.log_format import segment_name
from statehouse.storage.log_walk import LOG_REMEDY, LogWalk
from statehouse.storage.row_finding import VIEW_REMEDY
from statehouse.storage.v1.log_pb2 import Watermark

__all__ = ["judge_heads", "judge_lag", "judge_watermark", "log_ends_before", "of_view", "outdated_view"]

_HEAD_REMEDY: Final = "keep the data directory as it is, and compare it with a backup from before"


def judge_heads(walk: LogWalk, heads: Iterable[Head]) -> Iterator[VerifyFinding]:
    """Hold known heads against a log that was walked, with their commits among the wanted."""
    head_ts = walk.head.commit_ts
    for known in heads:
        chain = walk.chains.get(known.commit_ts)
        if chain == known.chain:
            continue
        if chain is not None:
            kind = FindingKind.HEAD_REWRITTEN
            message = (
                f"another commit {known.commit_ts} than the head that was kept: the history was written anew, or the "
                f"log is of another store (its chain value is {chain.hex()}, and the one kept is {known.chain.hex()})"
            )
        elif walk.ends_before(known.commit_ts):
            kind = FindingKind.HEAD_CUT
            message = (
                f"the log ends at commit_ts {head_ts}, before the head that was kept: commits {head_ts + 1} to "
                f"{known.commit_ts} are gone"
            )
        else:
            kind = FindingKind.HEAD_UNREAD
            message = "the head that was kept cannot be looked for: the log cannot be read there"
        yield VerifyFinding(kind=kind, message=message, remedy=_HEAD_REMEDY, file="log", commit_ts=known.commit_ts)


def log_ends_before(walk: LogWalk, witness: str, *, fsync: bool) -> VerifyFinding:
    """A view or a snapshot has more commits than the log: with fsync, the log has lost some."""
    head_ts = walk.head.commit_ts
    message = f"the log ends at commit_ts {head_ts}, and {witness}"
    kind, remedy = FindingKind.LOG_SHORT, LOG_REMEDY
    if not fsync:
        kind, remedy = FindingKind.VIEW_AHEAD, ""
        message += ": power loss may do that without fsync; a start sets the other aside, and these commits are lost"
    file = f"log/{segment_name(walk.starts[-1])}" if walk.starts else "log"
    return VerifyFinding(
        kind=kind, message=message, remedy=remedy, is_note=kind.is_note, file=file, commit_ts=head_ts + 1
    )


def judge_watermark(
    walk: LogWalk,
    watermark: Watermark,
    committed_at_ns: int,
    *,
    is_taken_back: bool,
    fsync: bool,
) -> Iterator[VerifyFinding]:
    """Hold a view's watermark against a log that was walked, with its commit among the wanted.

    `committed_at_ns`: the time of that commit in the log. `is_taken_back`: the log says that this commit failed.
    """
    commit_ts, head_ts = watermark.commit_ts, walk.head.commit_ts
    chain = walk.chains.get(commit_ts)
    if walk.ends_before(commit_ts):
        if is_taken_back:
            message = "the view has a group of commits that failed and was taken back; a start makes the view anew"
            yield VerifyFinding(kind=FindingKind.VIEW_UNUSABLE, message=message, is_note=True, file="state")
        else:
            yield log_ends_before(walk, f"the view has {commit_ts}", fsync=fsync)
        walk.unread.add(head_ts + 1, commit_ts)
    elif chain is not None and chain != watermark.chain:
        message = f"the view has another commit {commit_ts} than the log: it is of another history, or the log is"
        yield of_view(FindingKind.WATERMARK, message, commit_ts=commit_ts)
    elif chain is not None and not walk.is_unread(commit_ts) and watermark.committed_at_ns != committed_at_ns:
        message = (
            f"the view's time of commit {commit_ts} is {watermark.committed_at_ns} ns, the log's is {committed_at_ns}"
        )
        yield of_view(FindingKind.WATERMARK, f"{message} ns", commit_ts=commit_ts)


def judge_lag(walk: LogWalk, watermark: Watermark) -> Iterator[VerifyFinding]:
    """Whether a view at rest has all that the log has."""
    commit_ts, head_ts = watermark.commit_ts, walk.head.commit_ts
    if commit_ts < head_ts:
        message = f"the view has commits up to {commit_ts}, the log up to {head_ts}: a start applies the rest"
        yield VerifyFinding(kind=FindingKind.VIEW_BEHIND, message=message, is_note=True, file="state")


def outdated_view(watermark: Watermark) -> VerifyFinding:
    """A view of an older format: it bears witness, and its rows cannot be compared."""
    message = (
        f"the view is of format {watermark.format_version}, and this version uses {FORMAT_VERSION}: a start makes it "
        "anew from the log; its rows were not compared"
    )
    return VerifyFinding(kind=FindingKind.VIEW_UNUSABLE, message=message, is_note=True, file="state")


def of_view(kind: FindingKind, message: str, commit_ts: int | None = None) -> VerifyFinding:
    """A finding about the view as a whole."""
    return VerifyFinding(kind=kind, message=message, remedy=VIEW_REMEDY, file="state", commit_ts=commit_ts)
