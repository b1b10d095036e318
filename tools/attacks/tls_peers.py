"""Peers of a daemon with TLS that do not come to the end of their handshake."""

import ssl
import time
from contextlib import suppress
from typing import Final

from attacks.attack import Attack, Report, Stage, close_all
from attacks.raw_http2 import PREFACE, settings

PEERS: Final = 300
AT_ONCE: Final = 20
ROUND_S: Final = 0.025
"""At most 800 handshakes a second: more than a processor can sign is not the daemon's alone to hold back."""
LET_GO_S: Final = 8.0
"""The daemon gives 5 s for a handshake; some more for 300 at once on a machine that is busy."""


def no_handshake(stage: Stage) -> Report:
    """300 connections that open and say nothing; the daemon must close them."""
    return _waits_to_be_let_go(stage, [b""])


def half_handshakes(stage: Stage) -> Report:
    """300 connections that stop after half a ClientHello, or after a whole one; the daemon must close them."""
    hello = _client_hello()
    return _waits_to_be_let_go(stage, [hello[:5], hello[: len(hello) // 2], hello])


def handshakes_given_up(stage: Stage) -> Report:
    """A ClientHello that makes the daemon sign, and then TCP's RST, again and again."""
    hello, begun = _client_hello(), 0
    while not stage.over:
        peers = [stage.connect(preface=False) for _ in range(AT_ONCE)]
        for peer in peers:
            peer.send(hello)
        peers[0].read_for(ROUND_S)
        for peer in peers:
            peer.abort()
        begun += len(peers)
    return Report(f"{begun} handshakes")


def what_is_not_tls(stage: Stage) -> Report:
    """HTTP/2 without TLS, HTTP/1.1 and garbage to a daemon that speaks TLS; it must close each."""
    said = [PREFACE + settings(), b"GET / HTTP/1.1\r\nHost: statehouse\r\n\r\n", bytes(range(256)) * 20]
    return _waits_to_be_let_go(stage, said)


def _waits_to_be_let_go(stage: Stage, said: list[bytes]) -> Report:
    started_s = time.monotonic()
    peers = [stage.connect(preface=False) for _ in range(PEERS)]
    for number, peer in enumerate(peers):
        peer.send(said[number % len(said)])
    end_s = started_s + LET_GO_S
    held = [peer for peer in peers if not peer.ends(max(end_s - time.monotonic(), 0.01))]
    took_s = time.monotonic() - started_s
    close_all(peers)
    complaints = [f"{len(held)} connections are still open after {LET_GO_S:g} s"] if held else []
    return Report(f"{PEERS} connections, {PEERS - len(held)} closed by the server after {took_s:.1f} s", complaints)


def _client_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


HANDSHAKE: Final = "5 s for the TLS handshake"
ATTACKS: Final = (
    Attack(no_handshake, HANDSHAKE, is_of_tls=True),
    Attack(half_handshakes, HANDSHAKE, is_of_tls=True),
    Attack(handshakes_given_up, HANDSHAKE, is_of_tls=True),
    Attack(what_is_not_tls, "HTTP/1.1, garbage, half a frame", is_of_tls=True),
)
