"""Which calls are let in: so many of a connection, so many of all, and so many that need no token."""

import pytest

from statehouse.errors import OverloadedError
from statehouse.limits import CALLS, CALLS_PER_CONNECTION, OPEN_CALLS, WATCHERS
from statehouse.rpc.server.capacity import Capacity
from statehouse.rpc.server.dispatch import Endpoint, Kind


def endpoint(*, open_to_all):
    return Endpoint("/t/Call", Kind.UNARY, bytes, 0, open_to_all=open_to_all, always=False)


OPEN, CLOSED = endpoint(open_to_all=True), endpoint(open_to_all=False)


def test_calls_without_a_token_cannot_keep_out_those_with_one():
    capacity = Capacity()
    assert [capacity.let_in(OPEN, 0) for _ in range(OPEN_CALLS + 1)] == [True] * OPEN_CALLS + [False]
    assert capacity.let_in(CLOSED, 0)
    capacity.let_out(CLOSED)
    assert not capacity.let_in(OPEN, 0)
    capacity.let_out(OPEN)
    assert capacity.let_in(OPEN, 0)
    assert (capacity.calls, capacity.open_calls) == (OPEN_CALLS, OPEN_CALLS)


@pytest.mark.parametrize("call", [OPEN, CLOSED])
def test_a_connection_and_all_of_them_have_a_limit(call):
    capacity = Capacity()
    assert capacity.let_in(call, CALLS_PER_CONNECTION - 1)
    assert not capacity.let_in(call, CALLS_PER_CONNECTION)
    capacity.calls = CALLS
    assert not capacity.let_in(call, 0)
    capacity.calls = CALLS - 1
    assert capacity.let_in(call, 0)


def test_watchers_do_not_count_as_calls_and_have_a_limit_of_their_own():
    capacity = Capacity()
    for _ in range(CALLS):
        assert capacity.let_in(CLOSED, 0)
        capacity.begin_watching()
    assert (capacity.calls, capacity.watchers) == (0, CALLS)
    capacity.watchers = WATCHERS
    assert capacity.let_in(CLOSED, 0)
    with pytest.raises(OverloadedError):
        capacity.begin_watching()
    capacity.let_out(CLOSED)
    capacity.let_out(CLOSED, watches=True)
    assert (capacity.calls, capacity.watchers) == (0, WATCHERS - 1)
