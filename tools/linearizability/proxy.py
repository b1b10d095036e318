"""A TCP proxy on loopback, in a process of its own, that cuts the connections which go through it.

    python proxy.py --upstream 127.0.0.1:50051 --seed 1 --every 0.4

Its first line on stdout is the port that it listens on. A cut is one of

    at once      both sides are reset, with whatever was on its way
    answers      what the daemon says is held back for a moment while requests still go through, then all is reset:
                 the requests were carried out, and nobody was told
    requests     the other way round: the requests never arrive
    torn         a part of the next bytes goes through, in either direction, and then nothing

It is one thread over epoll and knows nothing of HTTP/2: what it costs is what it takes from the load. It ends when its
stdin does, and then prints how often it did what, as JSON.
"""

import argparse
import json
import random
import select
import socket
import struct
import sys
import time
from collections import Counter
from typing import Final

LOOPBACK: Final = "127.0.0.1"
CHUNK_BYTES: Final = 256 * 1024
BACKLOG_BYTES: Final = 4 * 1024 * 1024
"""What one side may be behind before the other is not read any more."""
HOLD_S: Final = (0.002, 0.04)
WAIT_S: Final = 0.25
RESET: Final = struct.pack("ii", 1, 0)
CUTS: Final = {"at once": 3, "answers": 4, "requests": 2, "torn": 3}


class Side:
    """One of the two sockets of a connection: what it was sent and has not taken yet."""

    def __init__(self, sock: socket.socket, *, of_client: bool) -> None:
        self.sock = sock
        self.of_client = of_client
        self.other: Side = self
        self.unsent = bytearray()
        self.held = False
        """Whether what comes from here is kept from the other side."""
        self.torn: int | None = None
        """How many more bytes from here go through, before the connection is cut."""
        self.last = False
        """Whether the other side has ended in good order: this one is closed once it has taken what it was sent."""
        self.closed = False
        self.events = select.EPOLLIN


class Proxy:
    """The loop. `cuts` counts what was done, `connections` what came."""

    def __init__(self, upstream: tuple[str, int], rng: random.Random, every_s: float) -> None:
        """A cut comes every `every_s` seconds on average; 0: never."""
        self._upstream = upstream
        self._rng = rng
        self._every_s = every_s
        self._listener = socket.create_server((LOOPBACK, 0), backlog=512)
        self._listener.settimeout(0)
        self._poll = select.epoll()
        self._sides: dict[int, Side] = {}
        self._due: list[tuple[float, Side]] = []
        self.port: int = self._listener.getsockname()[1]
        self.cuts: Counter[str] = Counter()
        self.connections = 0

    def run(self) -> None:
        """Until stdin ends."""
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(sys.stdin, select.EPOLLIN)
        next_cut = self._next_cut()
        while True:
            soonest = min([next_cut, *(at for at, _ in self._due)])
            wait_s = min(max(soonest - time.monotonic(), 0.0), WAIT_S)
            for descriptor, events in self._poll.poll(wait_s):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor == sys.stdin.fileno():
                    return
                elif (side := self._sides.get(descriptor)) is not None:
                    self._serve(side, events)
            now = time.monotonic()
            self._cut_what_is_due(now)
            if now >= next_cut:
                self._begin_a_cut(now)
                next_cut = self._next_cut()

    def _next_cut(self) -> float:
        return time.monotonic() + (self._rng.expovariate(1 / self._every_s) if self._every_s else 1e9)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.connections += 1
        try:
            daemon = socket.create_connection(self._upstream)
        except OSError:
            _reset(client)
            return
        near, far = Side(client, of_client=True), Side(daemon, of_client=False)
        near.other, far.other = far, near
        for side in (near, far):
            side.sock.settimeout(0)
            side.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sides[side.sock.fileno()] = side
            self._poll.register(side.sock, select.EPOLLIN)

    def _serve(self, side: Side, events: int) -> None:
        if events & select.EPOLLOUT:
            self._send(side)
        if events & ~select.EPOLLOUT and not side.closed:
            try:
                chunk = side.sock.recv(CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._end(side)
                return
            if side.torn is not None:
                self._forward(side, chunk[: side.torn])
                self._end(side)
            elif not chunk:
                # A half-closed HTTP/2 connection is of no use: this side is done with, the other takes the rest.
                side.other.last = True
                self._watch(side)
                self._send(side.other)
            elif not side.held:
                self._forward(side, chunk)

    def _forward(self, side: Side, chunk: bytes) -> None:
        other = side.other
        other.unsent += chunk
        self._send(other)

    def _send(self, side: Side) -> None:
        if side.closed:
            return
        try:
            sent = side.sock.send(side.unsent) if side.unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end(side)
            return
        del side.unsent[:sent]
        if side.last and not side.unsent:
            self._end(side, reset=False)
            return
        self._watch(side)
        self._watch(side.other)

    def _watch(self, side: Side) -> None:
        """Read from a side unless the other is far behind or has heard its last; write to it when it is behind."""
        read = not side.other.last and len(side.other.unsent) <= BACKLOG_BYTES
        events = (select.EPOLLIN if read else 0) | (select.EPOLLOUT if side.unsent else 0)
        if events != side.events and not side.closed:
            side.events = events
            self._poll.modify(side.sock, events)

    def _begin_a_cut(self, now: float) -> None:
        near = [side for side in self._sides.values() if side.of_client and not side.held and not side.other.held]
        if not near:
            return
        side = self._rng.choice(near)
        kind = self._rng.choices(list(CUTS), list(CUTS.values()))[0]
        self.cuts[kind] += 1
        if kind == "at once":
            self._end(side)
        elif kind == "torn":
            torn = self._rng.choice((side, side.other))
            torn.torn = self._rng.randint(0, 400)
        else:
            (side if kind == "requests" else side.other).held = True
            self._due.append((now + self._rng.uniform(*HOLD_S), side))

    def _cut_what_is_due(self, now: float) -> None:
        for at, side in [each for each in self._due if each[0] <= now]:
            self._due.remove((at, side))
            self._end(side)

    def _end(self, side: Side, *, reset: bool = True) -> None:
        for each in (side, side.other):
            if not each.closed:
                each.closed = True
                del self._sides[each.sock.fileno()]
                self._poll.unregister(each.sock)
                if reset:
                    _reset(each.sock)
                else:
                    each.sock.close()


def _reset(sock: socket.socket) -> None:
    """Close it so that the peer sees a reset, with whatever was on its way thrown away."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, required=True, metavar="N")
    parser.add_argument("--every", type=float, default=0.4, metavar="S", help="seconds between cuts (0: none)")
    options = parser.parse_args()
    host, _, port = options.upstream.rpartition(":")
    proxy = Proxy((host, int(port)), random.Random(f"proxy {options.seed}"), options.every)
    print(proxy.port, flush=True)
    proxy.run()
    print(json.dumps({"connections": proxy.connections, "cuts": proxy.cuts}), flush=True)


if __name__ == "__main__":
    main()
