"""Calls that are wrong: paths, sizes, encodings, deadlines, stream ids; and peers that do not speak HTTP/2 at all."""

import random
import time
import zlib
from collections.abc import Callable
from functools import cache
from typing import Final

from attacks.attack import LARGE, MANY, Attack, Report, Stage, get_state, persist, replay
from attacks.raw_http2 import (
    END_STREAM,
    FRAME_BYTES,
    PREFACE,
    Kind,
    call_block,
    frame,
    headers_frame,
    message,
    reset,
    settings,
    window_update,
)
from attacks.raw_peer import RawPeer

OK: Final = 0
BETWEEN_S: Final = 0.03
"""A client with a bug, not a flood: what it does wrong must not use up what a connection may do wrong."""
BOMB_BYTES: Final = 400 * 2**20
BAD_PATHS: Final = (
    "/a/b/c",
    "/",
    "//",
    "",
    "/statehouse.v1.StatehouseService",
    "/statehouse.v1.StatehouseService/",
    "/statehouse.v1.StatehouseService/NoSuchCall",
    "/no.such.Service/GetState",
    "*",
    "/%00/%ff",
    "/" + "a" * 4_000,
    "/\r\nx: y/z",
    "/\x00/\x7f",
)


def bad_paths(stage: Stage) -> Report:
    """Path /a/b/c and a dozen others, between calls of the same connection that must be answered all the same."""

    def once(peer: RawPeer) -> int:
        for path in BAD_PATHS:
            peer.call(path)
        return len(BAD_PATHS)

    return _beside_good_calls(stage, once)


def bad_headers(stage: Stage) -> Report:
    """Calls without a method, with a wrong content type, a bad timeout, control characters, upper case."""
    extras: list[list[tuple[bytes | str, bytes | str]]] = [
        [("grpc-timeout", "soon")],
        [("grpc-timeout", "123456789S")],
        [("grpc-encoding", "br")],
        [("x", b"a\r\nb\0")],
        [("x-bin", "!!!")],
        [("content-type", "text/html")],
    ]

    def once(peer: RawPeer) -> int:
        for extra in extras:
            peer.call("Version", extra=extra)
        return len(extras)

    return _beside_good_calls(stage, once)


def messages_over_the_limit(stage: Stage) -> Report:
    """Messages that say they are 4 GiB long, and some MB of them."""
    start = message(b"", length=2**32 - 1)

    def once(peer: RawPeer) -> int:
        stream_id = peer.start("Write")
        peer.send(frame(Kind.DATA, 0, stream_id, start + bytes(10_000)), stage.end_s)
        return 1

    return _beside_good_calls(stage, once)


def gzip_messages(stage: Stage) -> Report:
    """Messages that are flagged as compressed: with gzip, with no encoding named, with one that does not exist."""
    packed = _deflated(get_state(*LARGE), zlib.MAX_WBITS | 16)

    def once(peer: RawPeer) -> int:
        for extra in ([("grpc-encoding", "gzip")], [("grpc-encoding", "snappy")], []):
            stream_id = peer.start("GetState", extra)
            peer.send(frame(Kind.DATA, END_STREAM, stream_id, message(packed, flag=1)), stage.end_s)
            peer.status(stream_id, 1.0)
        return 3

    return _beside_good_calls(stage, once)


def gzip_bomb(stage: Stage) -> Report:
    """400 KB of gzip that inflate to 400 MiB, as a call's message."""
    return _bomb(stage, "gzip", zlib.MAX_WBITS | 16)


def deflate_bomb(stage: Stage) -> Report:
    """400 KB of deflate that inflate to 400 MiB (398 KiB took 833 MiB on purerpc)."""
    return _bomb(stage, "deflate", zlib.MAX_WBITS)


def expired_deadlines(stage: Stage) -> Report:
    """Thousands of calls whose deadline has passed before they come: 1n, 0S, 1u."""
    blocks = [call_block(name, [("grpc-timeout", after)]) for name in ("Commit", "Replay") for after in _TINY]

    def once(peer: RawPeer) -> int:
        for block in blocks:
            stream_id = peer.new_stream()
            body = frame(Kind.DATA, END_STREAM, stream_id, message(replay(MANY)))
            peer.send(headers_frame(stream_id, block) + body, stage.end_s)
        return len(blocks)

    return persist(stage, once)


_TINY: Final = ("1n", "0S", "1u", "1m")


def deadlines_far_away(stage: Stage) -> Report:
    """Calls that are never sent whole, with deadlines of 11,000 years, 100 on each of 20 connections."""
    block = call_block("Write", [("grpc-timeout", "99999999H")])
    peers = [stage.connect() for _ in range(20)]
    for peer in peers:
        for _ in range(100):
            peer.send(headers_frame(peer.new_stream(), block), stage.end_s)
    stage.rest()
    for peer in peers:
        peer.close()
    return Report("2,000 calls")


def too_many_streams(stage: Stage) -> Report:
    """Ten times as many streams as the server allows, never ended, never reset."""

    def once(peer: RawPeer) -> int:
        for _ in range(1_000):
            peer.send(headers_frame(peer.new_stream(), call_block("Write")), stage.end_s)
        peer.read_for(0.2)
        return 1_000

    return persist(stage, once)


def stream_ids_used_again(stage: Stage) -> Report:
    """HEADERS on streams that are over, on lower ids, on even ids, and on the last id there is."""

    def once(peer: RawPeer) -> int:
        first, second = peer.call("Version"), peer.call("Version")
        peer.status(second, 1.0)
        ids = (first, second, 2, 2**31 - 1, second)
        rng.shuffle(wrong := list(ids))
        for stream_id in wrong:
            peer.send(headers_frame(stream_id, call_block("Version"), end_stream=True), stage.end_s)
        peer.read_for(0.01)
        return len(ids)

    rng = random.Random("ids")
    return persist(stage, once)


def frames_on_wrong_streams(stage: Stage) -> Report:
    """DATA, HEADERS, resets and window updates on stream 0, on closed streams and on ones never opened."""
    rng = random.Random("streams")

    def once(peer: RawPeer) -> int:
        over = peer.call("Version")
        peer.status(over, 1.0)
        after_the_end = [frame(Kind.DATA, 0, over, b"late"), reset(over), window_update(over, 7), reset(over, 0)]
        for late in after_the_end:
            peer.send(late, stage.end_s)
        wrong = [frame(kind, 0, rng.choice((0, over, over + 100)), b"\0\0\0\1") for kind in range(10)]
        peer.send(rng.choice(wrong), stage.end_s)
        peer.read_for(0.002)
        return len(after_the_end) + 1

    return persist(stage, once)


def frames_of_wrong_sizes(stage: Stage) -> Report:
    """Frames that are too long or too short for their kind, and one that says it has 16 MiB."""
    rng = random.Random("sizes")

    def once(peer: RawPeer) -> int:
        kind = rng.choice(list(Kind))
        size = rng.choice((0, 1, 3, 5, 7, 9, FRAME_BYTES + 1, 2**20))
        peer.start("Write")
        wrong = frame(kind, 0, rng.choice((0, 1)), bytes(size)) if size < 2**20 else b"\xff\xff\xff" + bytes(6)
        peer.send(wrong + bytes(1_000), stage.end_s)
        peer.read_for(0.005)
        return 1

    return persist(stage, once)


def not_http2(stage: Stage) -> Report:
    """HTTP/1.1, TLS, garbage, half a preface, half a frame: 50 connections a second of each, left open."""
    rng = random.Random("garbage")
    greetings = [
        b"GET / HTTP/1.1\r\nHost: statehouse\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
        rng.randbytes(4_000),
        PREFACE[:10],
        PREFACE + settings()[:5],
        PREFACE + frame(Kind.HEADERS, 0, 1, call_block("Version"))[:20],
        PREFACE + rng.randbytes(4_000),
    ]
    peers: list[RawPeer] = []
    while not stage.over:
        for greeting in greetings:
            peer = stage.connect(preface=False)
            peer.send(greeting)
            peers.append(peer)
        time.sleep(0.02)
    for peer in peers:
        peer.read_for(0.0)
        peer.take()
    closed = sum(peer.closed for peer in peers)
    for peer in peers:
        peer.close()
    return Report(f"{len(peers)} connections, {closed} closed by the server")


def _beside_good_calls(stage: Stage, once: Callable[[RawPeer], int]) -> Report:
    """`once` again and again, and a good call after each on the same connection, which must be answered."""
    sent, unanswered = 0, 0
    with stage.connect() as peer:
        while not stage.over:
            sent += once(peer)
            unanswered += peer.status(peer.call("Version"), 2.0) != OK
            peer.read_for(BETWEEN_S)
            if peer.closed:
                return Report(f"{sent} sent", ["the connection's other calls were lost"])
    complaints = [f"{unanswered} other calls of the connection were not answered"] if unanswered else []
    return Report(f"{sent} sent", complaints)


def _bomb(stage: Stage, encoding: str, window_bits: int) -> Report:
    packed = bomb(window_bits)

    def once(peer: RawPeer) -> int:
        stream_id = peer.start("Write", [("grpc-encoding", encoding)])
        for at in range(0, len(packed), FRAME_BYTES):
            if stream_id in peer.over:
                break
            peer.send(frame(Kind.DATA, 0, stream_id, packed[at : at + FRAME_BYTES]), stage.end_s)
        if stream_id not in peer.over:
            peer.send(frame(Kind.DATA, END_STREAM, stream_id), stage.end_s)
        peer.status(stream_id, 1.0)
        return 1

    return persist(stage, once)


def bomb(window_bits: int) -> bytes:
    """A message that inflates to BOMB_BYTES; zlib's window_bits say whether it is gzip or deflate."""
    return message(_deflated(None, window_bits), flag=1)


@cache
def _deflated(content: bytes | None, window_bits: int) -> bytes:
    """Compressed; None stands for BOMB_BYTES of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window_bits)
    if content is not None:
        return packer.compress(content) + packer.flush()
    chunks = [packer.compress(bytes(BOMB_BYTES // 100)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    return chunks[0] + 99 * chunks[1]  # a flushed chunk stands by itself; the checksum at the end is never reached


ATTACKS: Final = (
    Attack(bad_paths, "path /a/b/c"),
    Attack(bad_headers, "control characters refused"),
    Attack(messages_over_the_limit, "a message over the limit, or gzip"),
    Attack(gzip_messages, "a message over the limit, or gzip"),
    Attack(gzip_bomb, "a deflate bomb of 398 KiB"),
    Attack(deflate_bomb, "a deflate bomb of 398 KiB"),
    Attack(expired_deadlines, "grpc-timeout is parsed and never enforced"),
    Attack(deadlines_far_away, "grpc-timeout is parsed and never enforced"),
    Attack(too_many_streams, "65,536 concurrent streams"),
    Attack(stream_ids_used_again, "a frame for a stream that is gone"),
    Attack(frames_on_wrong_streams, "a frame for a stream that is gone"),
    Attack(frames_of_wrong_sizes, "garbage, half a frame"),
    Attack(not_http2, "HTTP/1.1, garbage, half a frame"),
)
