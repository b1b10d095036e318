"""How those who are turned away are counted and logged."""

import pytest
from structlog.testing import capture_logs

from statehouse.errors import InvalidRequestError, PermissionDeniedError, UnauthenticatedError
from statehouse.rpc.server.refusals import LOGGED_S, Refusal, Refusals

WRONG = UnauthenticatedError("who?")
DENIED = PermissionDeniedError("no")


def test_refusals_are_counted_apart_and_other_errors_not_at_all():
    refusals = Refusals()
    with capture_logs() as logged:
        refusals.note_error(InvalidRequestError("malformed"), peer="p", now=0.0)
        assert logged == []
        for error in (WRONG, DENIED, WRONG):
            refusals.note_error(error, peer="p", now=0.0)
        refusals.note(Refusal.FAILED_HANDSHAKE, "no TLS", peer="p", now=0.0)
    assert refusals.counts == {"unauthenticated": 2, "permission_denied": 1, "failed_handshake": 1}


@pytest.mark.parametrize("refusal", Refusal)
def test_the_first_refusal_is_logged_at_once_and_says_whose(refusal):
    with capture_logs() as logged:
        Refusals().note(refusal, "why", peer="10.0.0.1:5", now=-1e9)
    assert logged == [
        {"log_level": "warning", "event": "turned away", refusal: 1, "latest": {refusal: "10.0.0.1:5: why"}}
    ]


def test_a_flood_of_refusals_is_few_lines_that_miss_none():
    refusals = Refusals()
    with capture_logs() as logged:
        for n in range(100_000):  # for 25 s
            refusals.note_error(DENIED if n % 4 else WRONG, peer=str(n), now=n / 4000)
        assert len(logged) == 3
        refusals.log_due(25.0)
        assert len(logged) == 3
        refusals.log_due(20.0 + LOGGED_S)
        assert len(logged) == 4
        refusals.log_due(1000.0)
        assert len(logged) == 4
    assert sum(line.get("unauthenticated", 0) for line in logged) == refusals.counts["unauthenticated"] == 25_000
    assert sum(line.get("permission_denied", 0) for line in logged) == refusals.counts["permission_denied"] == 75_000
    assert logged[-1]["latest"] == {"permission_denied": "99999: no", "unauthenticated": "99996: who?"}


def test_at_the_end_what_is_not_logged_is():
    refusals = Refusals()
    with capture_logs() as logged:
        refusals.log_due(float("inf"))
        refusals.note_error(WRONG, peer="p", now=0.0)
        refusals.note_error(WRONG, peer="p", now=1.0)
        refusals.log_due(float("inf"))
    assert [line["unauthenticated"] for line in logged] == [1, 1]
