"""Page tokens: what was given comes back, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.errors import ErrorCode, InvalidRequestError
from statehouse.rpc.server.page_token import PageTokens, Place

STORE = PageTokens.of_store(bytes(16))
REQUEST = [b"ListKeys", b"default", b"a", b"prefix", b"", b""]
PLACE = Place(7, 1_900_000_000_000_000_009, "key/é\0")
TOKEN = STORE.encode(PLACE, REQUEST)


def refused(tokens, token, request):
    with pytest.raises(InvalidRequestError, match="page_token") as error:
        tokens.decode(token, request)
    return error.value.code is ErrorCode.INVALID_REQUEST


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.text(max_size=20),
    st.lists(st.binary(max_size=5), max_size=4),
)
def test_a_token_says_where_to_go_on(at_ts, now_ns, after, request):
    place = Place(at_ts, now_ns, after)
    assert STORE.decode(STORE.encode(place, request), request) == place


def test_a_token_is_the_same_after_a_restart():
    assert PageTokens.of_store(bytes(16)).decode(TOKEN, REQUEST) == PLACE


@pytest.mark.parametrize("at", range(len(TOKEN)))
def test_no_bit_of_a_token_may_change(at):
    for bit in range(8):
        changed = bytearray(TOKEN)
        changed[at] ^= 1 << bit
        assert refused(STORE, bytes(changed), REQUEST)


@pytest.mark.parametrize("length", range(len(TOKEN)))
def test_a_token_that_was_cut_is_refused(length):
    assert refused(STORE, TOKEN[:length], REQUEST)


def test_a_token_that_is_longer_is_refused():
    assert refused(STORE, TOKEN + b"x", REQUEST)
    assert refused(STORE, b"\0" + TOKEN, REQUEST)


def test_a_token_of_another_store_is_refused():
    assert refused(PageTokens.of_store(b"another store id"), TOKEN, REQUEST)


@given(st.lists(st.binary(max_size=3), max_size=4), st.lists(st.binary(max_size=3), max_size=4))
def test_a_token_of_another_request_is_refused(one, other):
    token = STORE.encode(Place(0, 0, ""), one)
    if one == other:
        assert STORE.decode(token, other) == Place(0, 0, "")
    else:
        assert refused(STORE, token, other)


def test_what_moves_from_one_part_of_a_request_to_the_next_makes_another():
    token = STORE.encode(Place(1, 2, "k"), [b"ab", b"c"])
    assert refused(STORE, token, [b"a", b"bc"])
    assert refused(STORE, token, [b"abc"])
    assert refused(STORE, token, [b"ab", b"c", b""])
