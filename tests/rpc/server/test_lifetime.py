"""How long a connection lives: the rules alone, step by step."""

import math

import pytest

from statehouse.rpc.server.lifetime import (
    KEEPALIVE_ANSWER_S,
    KEEPALIVE_S,
    PREFACE_S,
    Lifetime,
    LifetimeLimits,
    Step,
)

BEGAN = 1000.0
SILENT = BEGAN + KEEPALIVE_S


def lifetime(*, idle_s=math.inf, age_s=math.inf, greeted=True, **times):
    made = Lifetime.beginning(LifetimeLimits(idle_s, age_s), BEGAN)
    made.greeted = greeted
    for name, after in times.items():
        setattr(made, name, BEGAN + after)
    return made


@pytest.mark.parametrize(
    ("made", "calls", "after_s", "step"),
    [
        # until its settings have come, only that matters
        (lifetime(greeted=False), 0, PREFACE_S - 0.01, Step.NOTHING),
        (lifetime(greeted=False), 0, PREFACE_S, Step.CUT_OFF),
        (lifetime(greeted=False, heard_at=4.9), 0, PREFACE_S, Step.CUT_OFF),
        (lifetime(greeted=False, idle_s=1), 0, 2, Step.NOTHING),
        # silence
        (lifetime(), 0, KEEPALIVE_S - 0.01, Step.NOTHING),
        (lifetime(), 0, KEEPALIVE_S, Step.PING),
        (lifetime(), 5, KEEPALIVE_S, Step.PING),
        (lifetime(heard_at=1), 0, KEEPALIVE_S, Step.NOTHING),
        (lifetime(pinged_at=60), 0, 60 + KEEPALIVE_ANSWER_S - 0.01, Step.NOTHING),
        (lifetime(pinged_at=60), 0, 60 + KEEPALIVE_ANSWER_S, Step.CUT_OFF),
        (lifetime(pinged_at=60), 5, 60 + KEEPALIVE_ANSWER_S, Step.CUT_OFF),
        (lifetime(pinged_at=60, heard_at=61), 0, 60 + KEEPALIVE_ANSWER_S, Step.NOTHING),
        (lifetime(pinged_at=60, heard_at=61), 0, 61 + KEEPALIVE_S, Step.PING),
        # idleness
        (lifetime(idle_s=10), 0, 9.99, Step.NOTHING),
        (lifetime(idle_s=10), 0, 10, Step.SAY_GOODBYE),
        (lifetime(idle_s=10), 1, 10, Step.NOTHING),
        (lifetime(idle_s=10, heard_at=9), 0, 10, Step.SAY_GOODBYE),
        (lifetime(idle_s=10, called_at=9), 0, 18.99, Step.NOTHING),
        (lifetime(idle_s=10, called_at=9), 0, 19, Step.SAY_GOODBYE),
        # age
        (lifetime(age_s=30, called_at=29), 7, 29.99, Step.NOTHING),
        (lifetime(age_s=30, called_at=29), 7, 30, Step.SAY_GOODBYE),
        # the dead are not said goodbye to, the idle are not pinged
        (lifetime(age_s=70, pinged_at=60), 0, 60 + KEEPALIVE_ANSWER_S, Step.CUT_OFF),
        (lifetime(idle_s=KEEPALIVE_S), 0, KEEPALIVE_S, Step.SAY_GOODBYE),
    ],
)
def test_what_is_due(made, calls, after_s, step):
    assert made.step(BEGAN + after_s, calls=calls) is step


def test_a_connection_is_looked_at_when_something_is_due_and_not_before():
    made = lifetime(idle_s=100, age_s=200, greeted=False)
    assert made.next_at(calls=0) == BEGAN + PREFACE_S
    made.greeted = True
    assert made.next_at(calls=0) == SILENT
    assert made.step(SILENT, calls=0) is Step.PING
    assert made.next_at(calls=0) == SILENT + KEEPALIVE_ANSWER_S
    made.heard_at = SILENT + 1
    assert made.next_at(calls=0) == BEGAN + 100
    assert made.next_at(calls=1) == SILENT + 1 + KEEPALIVE_S


def test_goodbye_is_said_once_and_silence_counts_after_it():
    made = lifetime(idle_s=10, age_s=10)
    assert made.step(BEGAN + 10, calls=1) is Step.SAY_GOODBYE
    assert made.step(BEGAN + 11, calls=1) is Step.NOTHING
    assert made.next_at(calls=1) == SILENT
    assert made.step(SILENT, calls=1) is Step.PING
    assert made.step(SILENT + KEEPALIVE_ANSWER_S, calls=1) is Step.CUT_OFF


def test_without_limits_a_peer_that_answers_stays_for_ever():
    made, now = lifetime(), BEGAN
    for _ in range(1000):
        now = made.next_at(calls=0)
        assert made.step(now, calls=0) is Step.PING
        made.heard_at = now
    assert now == BEGAN + 1000 * KEEPALIVE_S
