"""Events of a verification as messages: what goes in comes out."""

import pytest

from statehouse.findings import FindingKind, Head, VerifyFinding, VerifyProgress, VerifyVerdict
from statehouse.rpc.verify_events import decode_event, decode_head, encode_event, encode_head
from statehouse.v1 import statehouse_pb2 as pb

HEAD = Head(7, bytes(range(32)), bytes(range(16)))
VERDICT = VerifyVerdict(
    sound=False,
    findings=1,
    notes=2,
    head=HEAD,
    log_bytes=3,
    records=4,
    rows=5,
    snapshots=6,
    heads=7,
    seconds=8.5,
)
EVENTS = [
    VerifyProgress(stage="log", done=1, total=2, records=3, rows=4),
    VerifyFinding(kind=FindingKind.ROW_WRONG, message="m"),
    VerifyFinding(kind=FindingKind.LEFTOVER, message="m", is_note=True, offset=0, commit_ts=0, version=0),
    VerifyFinding(
        kind="k",
        message="m",
        remedy="r",
        file="f",
        offset=1,
        commit_ts=2,
        namespace="n",
        agent_id="a",
        key="k",
        version=3,
    ),
    VERDICT,
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_there_and_back(event):
    sent = pb.VerifyEvent.FromString(encode_event(event).SerializeToString())
    assert decode_event(sent) == event


def test_the_store_s_id_comes_along():
    assert decode_head(encode_head(HEAD)).store_id == HEAD.store_id
    assert decode_event(encode_event(VERDICT)).head.store_id == HEAD.store_id


def test_an_event_of_a_newer_daemon_is_passed_over():
    assert decode_event(pb.VerifyEvent()) is None
