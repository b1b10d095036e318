"""The header blocks of answers, read by a decoder that is not ours, in any order."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.rpc.server import response_blocks
from statehouse.rpc.server.response_blocks import ResponseBlocks

RESPONSE = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-accept-encoding", "identity,gzip")]
OK = [("grpc-status", "0")]
FAILED = [(b"grpc-status", b"13"), (b"grpc-message", b"x" * 200)]
FAILED_TEXT = [(name.decode(), value.decode()) for name, value in FAILED]

STEPS = {
    "headers": (lambda blocks: blocks.headers(), RESPONSE),
    "trailers": (lambda blocks: blocks.trailers(), OK),
    "only trailers": (lambda blocks: blocks.only_trailers(), RESPONSE + OK),
    "failure": (lambda blocks: blocks.failure(FAILED, started=True), FAILED_TEXT),
    "failure alone": (lambda blocks: blocks.failure(FAILED, started=False), RESPONSE + FAILED_TEXT),
    "other": (lambda blocks: blocks.other([(b":status", b"405")]), [(":status", "405")]),
}
# Trailers come after headers: that is what they are.
orders = st.lists(st.sampled_from(sorted(STEPS))).map(lambda steps: ["headers", *steps])


@given(orders, st.one_of(st.none(), st.integers(0, 30)), st.integers(0, 4_096))
def test_any_order_of_answers_is_read_as_it_was_meant(order, when, size):
    blocks, decoder = ResponseBlocks(), hpack.Decoder()
    for number, name in enumerate(order):
        if number == when:
            decoder.max_allowed_table_size = size
            blocks.table_set(size)
        encode, meant = STEPS[name]
        assert list(decoder.decode(encode(blocks))) == meant


@pytest.mark.parametrize(("name", "size_bytes"), [("headers", 3), ("trailers", 1)])
def test_from_the_second_answer_on_each_field_is_a_byte(name, size_bytes):
    blocks = ResponseBlocks()
    for _ in range(2):
        sizes = {"headers": len(blocks.headers()), "trailers": len(blocks.trailers())}
    assert sizes[name] == size_bytes


def test_nothing_is_encoded_again(monkeypatch):
    blocks = ResponseBlocks()
    monkeypatch.delattr(response_blocks, "literal_block")
    for _ in range(3):
        assert blocks.headers()
        assert blocks.trailers()
        assert blocks.only_trailers()
    blocks.table_set(0)
    assert all([blocks.headers(), blocks.trailers(), blocks.only_trailers()])


def test_answers_that_overlap_share_the_table():
    blocks, decoder = ResponseBlocks(), hpack.Decoder()
    assert [list(decoder.decode(block)) for block in (blocks.headers(), blocks.headers())] == [RESPONSE] * 2
    assert [list(decoder.decode(block)) for block in (blocks.trailers(), blocks.trailers())] == [OK] * 2
