"""What gRPC writes into headers: binary values, messages and timeouts."""

import base64
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.rpc.metadata import (
    LONGEST_TIMEOUT_S,
    decode_binary,
    decode_text,
    encode_binary,
    encode_text,
    format_timeout,
    parse_timeout,
)


@given(st.binary())
def test_binary_values_come_back_padded_or_not(value):
    assert decode_binary(encode_binary(value)) == value
    assert decode_binary(base64.b64encode(value)) == value
    assert b"=" not in encode_binary(value)


@pytest.mark.parametrize(
    "text", [b"A", b"A===", b"AA=\n", b"A A", b"-_8A", b"====", b"AA==AA==", b"\xff", b"AAEC,AAEC"]
)
def test_what_is_no_binary_value(text):
    with pytest.raises(ValueError, match="no base64"):
        decode_binary(text)


@given(st.text())
def test_texts_come_back(text):
    encoded = encode_text(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert decode_text(encoded) == text


def test_texts_in_bytes():
    assert encode_text("plain (text): 100%, tab\tü") == b"plain (text): 100%25, tab%09%C3%BC"
    assert encode_text("half a pair \ud800") == b"half a pair ?"


@given(st.binary())
def test_any_bytes_have_a_text(text):
    assert isinstance(decode_text(text), str)


@pytest.mark.parametrize(
    ("encoded", "text"),
    [(b"%", "%"), (b"%zz", "%zz"), (b"%f", "%f"), (b"%ff", "\ufffd"), (b"%C3%BC", "ü"), (b"\xfc", "\ufffd")],
)
def test_texts_that_are_badly_encoded(encoded, text):
    assert decode_text(encoded) == text


@pytest.mark.parametrize(
    ("text", "timeout_s"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"4m", 4e-3),
        (b"5u", 5e-6),
        (b"6n", 6e-9),
        (b"0S", 0.0),
        (b"00000001S", 1.0),
        (b"99999999H", LONGEST_TIMEOUT_S),
    ],
)
def test_timeouts_in_every_unit(text, timeout_s):
    assert parse_timeout(text) == pytest.approx(timeout_s)


@pytest.mark.parametrize(
    "text", [b"", b"S", b"1", b"1s", b"123456789S", b"-1S", b"1.5S", b" 1S", b"1S ", b"1S\n", b"\xd9\xa1S", b"1SS"]
)
def test_what_is_no_timeout(text):
    assert parse_timeout(text) is None


@given(st.floats(0, 2 * LONGEST_TIMEOUT_S))
def test_a_timeout_is_never_shorter_when_it_arrives(timeout_s):
    text = format_timeout(timeout_s)
    arrived = parse_timeout(text)
    wanted = min(timeout_s, LONGEST_TIMEOUT_S)
    assert len(text) <= 9
    assert wanted <= arrived + 1e-9
    assert arrived - wanted <= (0.001 + 1e-6 if text.endswith(b"m") else 3_600)


def test_no_deadline_is_the_longest():
    assert format_timeout(math.inf) == format_timeout(1e300) == b"8760H"
    assert format_timeout(0.0) == b"1m"
