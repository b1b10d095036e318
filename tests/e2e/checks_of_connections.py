"""What a server must do with connections and those who hold them: floods, garbage, silence, and leaving."""

import random
import socket
import subprocess
import sys
import time
from contextlib import suppress

from attacks.raw_http2 import (
    LARGEST_WINDOW,
    PREFACE,
    Code,
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
from e2e.checks_of_calls import EVENTS_ASKED, NO_WINDOW, STRAY_TASKS, blocked_calls
from e2e.fix_targets import TOOLS

FRAMES = 50_000
RESETS = 5_000
CPU_S = 0.5
OUTPUT_CPU_S = 1.5
OUTPUT_BYTES = 12_000_000
"""purerpc makes about this much each second of processor time."""
PREFACE_S = 5.0
"""What our daemon gives a peer to say who it is; a server as shipped is given its patience alone."""
PING_AFTER_S, PING_ANSWER_S = 1.0, 0.5
SILENCE_S = 3.0
"""Twice what the daemon that is started for the check gives a peer that says nothing."""


def check_a_killed_client_leaves_nothing(target):
    """Several, by SIGKILL, with idle and with blocked streams."""
    sockets, tasks = target.sockets(), target.tasks()
    command = [sys.executable, "-m", "attacks.attacker", "killed_in_the_middle", target.url, "0.2", "short"]
    subprocess.run(command, cwd=TOOLS, check=True, stdout=subprocess.DEVNULL)
    assert target.comes_true(lambda: target.sockets() <= sockets)
    assert target.comes_true(lambda: target.tasks() <= tasks + STRAY_TASKS)


def check_a_clean_eof_ends_calls_and_connection(target):
    peer, tasks = target.connect(wanted=NO_WINDOW), target.tasks()
    blocked_calls(target, peer)
    peer.start("Commit")
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.ends(target.patience_s)
    assert target.comes_true(lambda: target.tasks() <= tasks + STRAY_TASKS)


def check_resets_have_a_budget(target):
    block = call_block("Commit")
    flood = b"".join(headers_frame(each, block) + reset(each) for each in range(1, 2 * RESETS, 2))
    _is_calmed(target, flood)


def check_pings_have_a_budget(target):
    _is_calmed(target, frame(Kind.PING, payload=b"8 bytes!") * FRAMES)


def check_settings_have_a_budget(target):
    _is_calmed(target, settings({Setting.INITIAL_WINDOW_SIZE: 65_535}) * FRAMES)


def check_empty_frames_have_a_budget(target):
    _is_calmed(target, headers_frame(1, call_block("Commit")) + frame(Kind.DATA, 0, 1) * FRAMES)


def check_continuations_have_a_budget(target):
    """Their bytes do, and their number."""
    start = frame(Kind.HEADERS, 0, 1, call_block("Version"))
    for piece in (b"\x10\x01a\x01b" * 1_000, b""):
        peer = target.connect()
        peer.send(start + frame(Kind.CONTINUATION, 0, 1, piece) * 2_000, time.monotonic() + target.patience_s)
        assert peer.ends(target.patience_s)


def check_a_header_block_costs_little(target):
    """256 KB that are one integer; the server answers others at once meanwhile."""
    for digit in (b"\xff", b"\x80"):
        before_s, peer = target.cpu_s(), target.connect()
        block = b"\x7f" + digit * 256_000 + b"\x00" + call_block("Version")
        peer.send(headers_frame(1, block, end_stream=True), time.monotonic() + target.patience_s)
        assert target.answers()
        assert target.cpu_s() - before_s < CPU_S


def check_what_is_not_http2_is_closed(target):
    """At once where it can be seen; else when the time for the preface is over."""
    greetings = {
        "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: statehouse\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
        "garbage": random.Random("garbage").randbytes(4_000),
        "half a preface": PREFACE[:12],
        "half a frame": PREFACE + settings(NO_WINDOW)[:-3],
        "silence": b"",
    }
    started_s = time.monotonic()
    peers = {name: target.connect(preface=False) for name in greetings}
    for name, peer in peers.items():
        peer.send(greetings[name])
    assert not [name for name, peer in peers.items() if not peer.ends(target.patience_s)]
    assert time.monotonic() - started_s < PREFACE_S + 2


def check_idle_connections_are_closed(target):
    """Ours is told to do it after a second."""
    peers = []
    for _ in range(20):
        peers.append(target.connect())
        assert peers[-1].answers()  # now: it may be told to go while the others connect
    assert all(peer.ends(target.patience_s) for peer in peers)
    assert all(peer.goodbye is not None for peer in peers)


def check_a_peer_that_is_gone_is_found_out(target):
    """It answers no PING, as one whose machine died; ours asks after a second, and waits for half of one."""
    peer, tasks = target.connect(wanted=NO_WINDOW), target.tasks()
    silent_s = time.monotonic()  # before the calls: what comes late from a busy machine makes the time only longer
    blocked_calls(target, peer)
    assert peer.until(lambda: peer.pings, max(target.patience_s, SILENCE_S))
    assert peer.ends(target.patience_s)
    assert time.monotonic() - silent_s > PING_AFTER_S + PING_ANSWER_S / 2
    assert peer.pings == 1
    assert target.comes_true(lambda: target.tasks() <= tasks + STRAY_TASKS)


def check_connections_are_capped(target):
    """Ours is told to take 20. Each has a call under way: one that has none may have to make room."""
    peers = [target.connect(wanted=NO_WINDOW) for _ in range(40)]
    for peer in peers:
        peer.call("Replay", EVENTS_ASKED)
    assert target.comes_true(lambda: [peer.take() for peer in peers] and sum(peer.closed for peer in peers) >= 20)
    assert any(not peer.closed and peer.answers(target.patience_s) for peer in peers)


def check_old_connections_are_closed(target):
    """Ours is told to do it after a second, whatever they are doing; calls in flight may end."""
    peer = target.connect()
    assert target.comes_true(lambda: not peer.answers() or peer.goodbye is not None)
    assert peer.goodbye is not None
    assert peer.goodbye.code == Code.NO_ERROR


def check_unread_output_is_bounded(target):
    """Windows of 2 GiB and a socket that is not read: the server must come to rest, with little in memory."""
    peer = target.connect(wanted={Setting.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}, receive_buffer_bytes=4_096)
    peer.send(window_update(0, LARGEST_WINDOW - 65_535))
    assert peer.answers()
    before_bytes = target.start_peak()
    peer.reads = False
    for _ in range(10):
        stream_id = peer.new_stream()
        body = frame(Kind.DATA, 1, stream_id, message(EVENTS_ASKED))
        peer.send(headers_frame(stream_id, call_block("Replay")) + body)
    target.works_until_idle(OUTPUT_CPU_S)
    assert target.grown_bytes(before_bytes) < OUTPUT_BYTES


def check_nobody_else_can_listen_there(target):
    """Not even who asks for SO_REUSEPORT."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with suppress(OSError):
            other.bind(target.address)
            raise AssertionError("a second server starts on the port")


def _is_calmed(target, flood):
    peer = target.connect()
    peer.send(flood, time.monotonic() + target.patience_s)
    assert peer.ends(target.patience_s)
    assert peer.goodbye is not None
    assert peer.goodbye.code == Code.ENHANCE_YOUR_CALM
    assert target.answers()
