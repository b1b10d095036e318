"""Clients that leave at the wrong moment: killed, cancelled, hung up, one or ten thousand of them."""

import os
import signal
import subprocess
import sys
import time
from typing import Final

from attacks.attack import LARGE, MANY, Attack, Report, Stage, get_state, replay
from attacks.raw_http2 import END_STREAM, Kind, Setting, call_block, frame, headers_frame, message, reset, settings
from attacks.raw_http2 import PREFACE as PREFACE_OF_A_CLIENT
from attacks.raw_peer import RawPeer

CLIENTS: Final = 10_000
CLIENTS_A_SECOND: Final = 700
"""So many come anew each second, at most; a flood of connections is another attack."""
KILLED_IN_TEN: Final = 1
"""So many of ten clients are processes that get SIGKILL; a process costs more than a connection."""
NO_WINDOW: Final[dict[int, int]] = {Setting.INITIAL_WINDOW_SIZE: 0}


def killed_in_the_middle(stage: Stage) -> Report:
    """Clients killed with SIGKILL while they have idle streams, blocked streams and half a request."""
    killed = 0
    while not stage.over:
        pid = os.fork()
        if pid == 0:
            _die_with_streams_open(stage.address)
        os.waitpid(pid, 0)
        killed += 1
        time.sleep(0.01)
    return Report(f"{killed} clients of 30 streams")


def clean_eof(stage: Stage) -> Report:
    """Clients that end their half of the connection while streams are idle or blocked, and stay to listen."""
    peers: list[RawPeer] = []
    while not stage.over:
        peer = _with_streams_open(stage.address)
        peer.socket.shutdown(1)
        peers.append(peer)
        time.sleep(0.02)
    late = [peer for peer in peers if not peer.ends(3.0)]
    for peer in peers:
        peer.close()
    complaints = [f"{len(late)} connections are still open 3 s after the client's EOF"] if late else []
    return Report(f"{len(peers)} clients of 30 streams", complaints)


def goodbye_and_stay(stage: Stage) -> Report:
    """Clients that say GOAWAY while streams are idle or blocked, and keep the connection open."""
    peers: list[RawPeer] = []
    while not stage.over and len(peers) < 100:
        peer = _with_streams_open(stage.address)
        peer.send(frame(Kind.GOAWAY, payload=bytes(8)))
        peers.append(peer)
        time.sleep(0.02)
    stage.rest()
    for peer in peers:
        peer.close()
    return Report(f"{len(peers)} clients of 30 streams")


def ten_thousand_leave(stage: Stage) -> Report:
    """10,000 clients, a connection each: a call, then RST_STREAM, TCP's RST, a close, or SIGKILL."""
    opening = PREFACE_OF_A_CLIENT + settings(NO_WINDOW)
    body = frame(Kind.DATA, END_STREAM, 1, message(replay(MANY)))
    whole = opening + headers_frame(1, call_block("Replay")) + body
    refused, started_s = 0, time.monotonic()
    for number in range(CLIENTS):
        time.sleep(max(started_s + number / CLIENTS_A_SECOND - time.monotonic(), 0.0))
        if number % 10 < KILLED_IN_TEN:
            pid = os.fork()
            if pid == 0:
                _die_after(stage.address, whole)
            os.waitpid(pid, 0)
            continue
        try:
            with stage.connect(preface=False) as peer:
                peer.send(whole)
                if number % 3 == 0:
                    peer.send(reset(1))
                    peer.take()
                elif number % 3 == 1:
                    peer.abort()
        except OSError:
            refused += 1
            time.sleep(0.01)
    took_s = time.monotonic() - started_s
    return Report(f"{CLIENTS} clients in {took_s:.1f} s{f', {refused} refused' if refused else ''}")


def cancelled_reads(stage: Stage) -> Report:
    """Replays and large reads on one connection, each cancelled with RST_STREAM in the middle of its answer."""
    cancelled = 0
    with stage.connect() as peer:
        while not stage.over and not peer.closed:
            ids = [peer.call("Replay", replay(MANY)), peer.call("GetState", get_state(*LARGE))]
            peer.hears_data(0.5)
            peer.send(b"".join(map(reset, ids)))
            cancelled += len(ids)
            time.sleep(0.002)
        complaints = [] if peer.answers(5.0) else ["the connection answers no more"]
    return Report(f"{cancelled} calls", complaints)


def connect_and_leave(stage: Stage) -> Report:
    """Connections that are closed or reset as soon as they stand, before a byte is said."""
    made = 0
    while not stage.over:
        try:
            peer = stage.connect(preface=False)
        except OSError:
            time.sleep(0.01)
            continue
        if made % 2:
            peer.abort()
        else:
            peer.close()
        made += 1
        if made % 50 == 0:
            time.sleep(0.01)
    return Report(f"{made} connections")


def a_grpc_client_is_killed(stage: Stage) -> Report:
    """Processes with a grpcio channel and ten Replays that they do not read, killed with SIGKILL."""
    killed = 0
    while not stage.over or not killed:
        command = [sys.executable, "-c", _GRPC_CLIENT, f"{stage.address[0]}:{stage.address[1]}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            if client.stdout is not None:
                client.stdout.readline()
            client.send_signal(signal.SIGKILL)
            client.wait()
        killed += 1
    return Report(f"{killed} clients")


_GRPC_CLIENT: Final = f"""
import sys, time, grpc
channel = grpc.insecure_channel(sys.argv[1])
call = channel.unary_stream("/statehouse.v1.StatehouseService/Replay")
streams = [call({replay(MANY)!r}) for _ in range(10)]
for stream in streams:
    next(stream, None)
print("reading", flush=True)
time.sleep(60)
"""


def _with_streams_open(address: tuple[str, int]) -> RawPeer:
    """A peer with ten calls that were never sent whole, ten that wait for its window, and ten half messages."""
    peer = RawPeer(address, wanted=NO_WINDOW)
    for _ in range(10):
        peer.start("Commit")
        peer.call("Replay", replay(MANY))
        peer.send(frame(Kind.DATA, 0, peer.start("Write"), message(b"half", length=1_000)))
    return peer


def _die_with_streams_open(address: tuple[str, int]) -> None:
    """In a forked process: never returns, and runs nothing of its parent's."""
    try:
        peer = _with_streams_open(address)
        peer.until(lambda: bool(peer.headers), 0.05)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def _die_after(address: tuple[str, int], content: bytes) -> None:
    """In a forked process, as above."""
    try:
        RawPeer(address, preface=False).send(content)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


KILLED: Final = "client killed, or a clean EOF, while a stream is idle or blocked"
ATTACKS: Final = (
    Attack(killed_in_the_middle, KILLED),
    Attack(clean_eof, KILLED),
    Attack(goodbye_and_stay, KILLED),
    Attack(a_grpc_client_is_killed, KILLED),
    Attack(cancelled_reads, "a client's RST_STREAM is ignored"),
    Attack(connect_and_leave, "500 idle connections"),
    Attack(ten_thousand_leave, "10,000 clients cancelled or killed"),
)
