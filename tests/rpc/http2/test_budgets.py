"""Budgets: each flood uses one up and ends the connection, and time fills it again."""

import pytest
from rpc.http2.fix_connection import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ended_by,
    greeted,
    headers,
    raw,
    settings,
    u32,
)

from statehouse.rpc.http2.budgets import BUDGETS, SPENDS, Budget, Budgets
from statehouse.rpc.http2.frames import ErrorCode, FrameType
from statehouse.rpc.http2.header_blocks import BLOCK_BYTES

CALM = ErrorCode.ENHANCE_YOUR_CALM
CONTROL = Budget.CONTROL
FLOODS = {
    "PING": (raw(PING, 0, 0, bytes(8)), CONTROL),
    "PING with ACK": (raw(PING, ACK, 0, bytes(8)), CONTROL),
    "SETTINGS with ACK": (raw(SETTINGS, ACK), CONTROL),
    "PRIORITY": (raw(PRIORITY, 0, 9, bytes(5)), CONTROL),
    "GOAWAY": (raw(GOAWAY, 0, 0, bytes(8)), CONTROL),
    "an unknown type": (raw(42, 0, 7), CONTROL),
    "empty DATA": (raw(DATA, 0, 1), CONTROL),
    "DATA of padding": (raw(DATA, PADDED, 1, b"\0"), CONTROL),
    "empty DATA on a reset stream": (raw(DATA, 0, 3), CONTROL),
    "WINDOW_UPDATE": (raw(WINDOW_UPDATE, 0, 0, u32(1)), Budget.WINDOW_UPDATES),
    "WINDOW_UPDATE of a stream": (raw(WINDOW_UPDATE, 0, 1, u32(1)), Budget.WINDOW_UPDATES),
    "RST_STREAM": (raw(RST_STREAM, 0, 3, u32(8)), Budget.RESETS),
}


@pytest.fixture
def connection():
    """Settings have come, stream 1 is open, stream 3 was reset; every budget is full again."""
    connection = greeted()
    connection.receive(headers(1) + headers(3), 0.0)
    connection.reset(connection.opened[3], ErrorCode.CANCEL)
    connection.receive(b"", 1_000.0)
    connection.take_output()
    return connection


@pytest.mark.parametrize(("flood", "budget"), FLOODS.values(), ids=FLOODS)
def test_a_flood(connection, flood, budget):
    burst, per_second = BUDGETS[budget]
    connection.receive(flood * burst, 1_000.0)
    assert connection.ended is None
    connection.receive(flood * per_second, 1_001.0)
    assert connection.ended is None
    connection.receive(flood, 1_001.0)
    assert ended_by(connection) == CALM


def test_a_budget_holds_no_more_than_its_burst(connection):
    burst, _ = BUDGETS[CONTROL]
    connection.receive(raw(PING, 0, 0, bytes(8)) * burst, 1_000_000.0)
    assert connection.ended is None
    connection.receive(raw(PING, 0, 0, bytes(8)), 1_000_000.0)
    assert ended_by(connection) == CALM


def test_a_flood_within_one_piece_is_not_answered_to_its_end(connection):
    burst, _ = BUDGETS[CONTROL]
    connection.receive(raw(PING, 0, 0, bytes(8)) * burst * 10, 1_000.0)
    frames = connection.take_frames()
    assert [each.kind for each in frames] == [PING] * burst + [GOAWAY]


def test_what_is_paced_goes_on_for_ever(connection):
    _, per_second = BUDGETS[CONTROL]
    for second in range(60):
        connection.receive(raw(PING, 0, 0, bytes(8)) * per_second, 1_000.0 + second)
    assert connection.ended is None


def test_rapid_reset(connection):
    """CVE-2023-44487."""
    burst, _ = BUDGETS[Budget.RESETS]
    for stream_id in range(5, 5 + 2 * burst, 2):
        connection.receive(headers(stream_id) + raw(RST_STREAM, 0, stream_id, u32(8)), 1_000.0)
    assert connection.ended is None
    connection.receive(headers(99_999) + raw(RST_STREAM, 0, 99_999, u32(8)), 1_000.0)
    assert ended_by(connection) == CALM
    assert len(connection.streams) <= 2


def test_resets_that_the_peer_has_us_send(connection):
    """CVE-2025-8671: the same, by faults."""
    burst, _ = BUDGETS[Budget.RESETS]
    for stream_id in range(5, 5 + 2 * burst, 2):
        connection.receive(headers(stream_id) + raw(WINDOW_UPDATE, 0, stream_id, u32(0)), 1_000.0)
    assert connection.ended is None
    connection.receive(headers(99_999) + raw(WINDOW_UPDATE, 0, 99_999, u32(0)), 1_000.0)
    assert ended_by(connection) == CALM


def test_a_block_of_many_frames(connection):
    """CVE-2024-27316."""
    begun = headers(5, 0, b"") + raw(CONTINUATION, 0, 5) * 63
    connection.receive(begun, 1_000.0)
    assert connection.ended is None
    connection.receive(raw(CONTINUATION, END_HEADERS, 5), 1_000.0)
    assert ended_by(connection) == CALM


@pytest.mark.parametrize("over", [0, 1])
def test_a_block_of_many_bytes(connection, over):
    sizes = [16_384] * (BLOCK_BYTES // 16_384) + [over]
    pieces = [raw(CONTINUATION, 0, 5, bytes(size)) for size in sizes[1:]]
    connection.receive(raw(HEADERS, 0, 5, bytes(sizes[0])) + b"".join(pieces), 1_000.0)
    assert ended_by(connection) == (CALM if over else None)


def test_one_settings_frame_with_many_settings(connection):
    connection.receive(settings(*[(4, number) for number in range(32)]), 1_000.0)
    assert connection.ended is None
    connection.receive(settings(*[(4, number) for number in range(33)]), 1_000.0)
    assert ended_by(connection) == CALM


def test_data_that_says_something_costs_nothing(connection):
    burst, _ = BUDGETS[CONTROL]
    for _ in range(burst + 1):
        connection.receive(raw(DATA, 0, 1, b"x"), 1_000.0)
    connection.receive(raw(DATA, END_STREAM, 1), 1_000.0)
    assert connection.ended is None


def test_spending():
    budgets = Budgets(5.0)
    burst, per_second = BUDGETS[Budget.RESETS]
    assert all(budgets.spend(Budget.RESETS, 5.0) for _ in range(burst))
    assert not budgets.spend(Budget.RESETS, 5.0)
    assert budgets.spend(CONTROL, 5.0)  # each for itself
    assert not budgets.spend(Budget.RESETS, 5.0 + 0.5 / per_second)
    assert budgets.spend(Budget.RESETS, 5.0 + 1.5 / per_second)
    assert not budgets.spend(Budget.RESETS, 5.0 + 1.5 / per_second)


def test_time_that_passes_in_small_steps_is_not_lost():
    budgets = Budgets(0.0)
    burst, per_second = BUDGETS[Budget.RESETS]
    for _ in range(burst):
        budgets.spend(Budget.RESETS, 0.0)
    taken = sum(budgets.spend(Budget.RESETS, step / 1_000) for step in range(10_001))
    assert taken == pytest.approx(10 * per_second, abs=1)


def test_every_type_that_costs_us_something_spends():
    free = {FrameType.DATA, FrameType.HEADERS, FrameType.CONTINUATION, FrameType.PUSH_PROMISE}
    assert set(SPENDS) == set(FrameType) - free
