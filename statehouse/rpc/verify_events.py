"""The events of a verification and the messages that carry them, both ways: the daemon encodes, the clients decode."""

from typing import Any

from statehouse.findings import Head, VerifyEvent, VerifyFinding, VerifyProgress, VerifyVerdict
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["decode_event", "decode_head", "encode_event", "encode_head"]

_PROGRESS = ("stage", "done", "total", "records", "rows")
_FINDING = ("kind", "message", "remedy", "file", "namespace", "agent_id", "key")
_OPTIONAL = ("offset", "commit_ts", "version")
_VERDICT = ("sound", "findings", "notes", "log_bytes", "records", "rows", "snapshots", "heads", "seconds")


def encode_head(head: Head) -> pb.HeadResponse:
    """A head as the answer to Head."""
    return pb.HeadResponse(commit_ts=head.commit_ts, chain=head.chain, store_id=head.store_id)


def decode_head(answer: pb.HeadResponse) -> Head:
    """The answer to Head."""
    return Head(answer.commit_ts, answer.chain, answer.store_id)


def encode_event(event: VerifyEvent) -> pb.VerifyEvent:
    """One event, as its message."""
    if isinstance(event, VerifyProgress):
        return pb.VerifyEvent(progress=pb.VerifyProgress(**_fields(event, _PROGRESS)))
    if isinstance(event, VerifyFinding):
        finding = pb.VerifyFinding(**_fields(event, (*_FINDING, *_OPTIONAL)), note=event.is_note)
        return pb.VerifyEvent(finding=finding)
    return pb.VerifyEvent(done=pb.VerifyDone(**_fields(event, _VERDICT), head=encode_head(event.head)))


def decode_event(message: pb.VerifyEvent) -> VerifyEvent | None:
    """The event in a message; None for one of a kind that a newer daemon has."""
    kind = message.WhichOneof("event")
    if kind == "progress":
        return VerifyProgress(**_fields(message.progress, _PROGRESS))
    if kind == "finding":
        finding = message.finding
        given = _fields(finding, _FINDING)
        given |= {name: getattr(finding, name) for name in _OPTIONAL if finding.HasField(name)}
        return VerifyFinding(**given, is_note=finding.note)
    if kind == "done":
        return VerifyVerdict(**_fields(message.done, _VERDICT), head=decode_head(message.done.head))
    return None


def _fields(source: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}
