"""A load on bare sockets, in a process of its own: the calls of grpc_load.py for a fraction of the CPU.

With two cores grpc.aio may be what limits a fast server. This load writes frames that were made beforehand and finds
the ends of answers, no more. A caller is a generator: it yields a call, and is sent the message that answers it; at
the end it finishes what it has begun, so that no call or transaction is left behind. An answer without a message is a
failed call, and ends the load.
"""

import math
import selectors
import socket
import statistics
import time
from collections.abc import Generator
from contextlib import suppress
from itertools import cycle
from typing import Any, Final, TypeAlias

from attrs import define, field

from edge_load.frames import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADERS,
    PADDED,
    PING,
    RST_STREAM,
    SETTINGS,
    call,
    frame,
    more_window,
    opening,
    request_headers,
)
from edge_load.jobs import answer_jobs
from edge_load.meter import Reading, warm_up_s, window
from edge_load.prepared import KEYS_PER_CLIENT, batch_of, entries_in, reads_of, transacts_of, writes_of
from statehouse.v1 import statehouse_pb2 as pb

RECEIVE_BYTES: Final = 64 * 1024
WINDOW_BYTES: Final = 16 * 1024 * 1024
SILENCE_S: Final = 30.0
GRPC_HEAD_BYTES: Final = 5

Caller: TypeAlias = Generator[tuple[bytes, bytes], bytes, None]
"""Yields headers and a message."""


class Connection:
    """A socket and its callers, each with one call in flight.

    What is sent is not held against the server's window: it is far below the 64 KiB that every server begins with, as
    long as the server gives back what it has read.
    """

    def __init__(self, target: str, callers: list[Caller]) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=SILENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._next_stream = 1
        self._callers: dict[int, Caller] = {}
        self._answers: dict[int, bytes] = {}
        self._received = b""
        self._owed_bytes = 0
        first = [self._ask(caller, next(caller)) for caller in callers]
        self.socket.sendall(opening(WINDOW_BYTES) + b"".join(first))

    @property
    def calling(self) -> bool:
        """Whether a call is in flight."""
        return bool(self._callers)

    def take(self) -> None:
        """Read what has come, and send the calls that follow the answers in it."""
        received = self.socket.recv(RECEIVE_BYTES)
        if not received:
            raise RuntimeError("the server closed the connection")
        buffer, position, out = self._received + received, 0, []
        while len(buffer) - position >= 9:
            high, low, kind, flags, stream_id = HEAD.unpack_from(buffer, position)
            end = position + 9 + (high << 8 | low)
            if len(buffer) < end:
                break
            payload, position = buffer[position + 9 : end], end
            if kind == DATA:
                if flags & PADDED:
                    raise RuntimeError("the server pads its DATA frames, which this load does not read")
                self._answers[stream_id] = self._answers.get(stream_id, b"") + payload
                self._owed_bytes += len(payload)
            elif kind in {SETTINGS, PING} and not flags & ACK:
                out.append(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind in {RST_STREAM, GOAWAY}:
                raise RuntimeError(f"the server ended a call with frame type {kind}: {payload!r}")
            if kind in {DATA, HEADERS} and flags & END_STREAM:
                answer = self._answers.pop(stream_id, b"")
                if len(answer) < GRPC_HEAD_BYTES:
                    raise RuntimeError(f"a call failed: {payload!r}")
                caller = self._callers.pop(stream_id)
                with suppress(StopIteration):
                    out.append(self._ask(caller, caller.send(answer[GRPC_HEAD_BYTES:])))
        self._received = buffer[position:]
        if self._owed_bytes > WINDOW_BYTES // 2:
            out.append(more_window(0, self._owed_bytes))
            self._owed_bytes = 0
        if out:
            self.socket.sendall(b"".join(out))

    def _ask(self, caller: Caller, asked: tuple[bytes, bytes]) -> bytes:
        stream_id = self._next_stream
        self._next_stream += 2
        self._callers[stream_id] = caller
        return call(stream_id, *asked)


@define
class Tally:
    """What the callers of a load have in common."""

    latencies_s: list[float] = field(factory=list)
    over: bool = False
    """The callers are to finish."""


def run(connections: list[Connection], tally: Tally, seconds: float, server_pid: int) -> dict[str, Any]:
    """Keep all callers calling, and count what ends in the time that counts."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)

        def go_on(until_s: float) -> None:
            """At least until something was answered: on a busy machine that may take longer than was asked for."""
            while (time.perf_counter() < until_s or not tally.latencies_s) and any(
                connection.calling for connection in connections
            ):
                ready = selector.select(SILENCE_S)
                if not ready:
                    raise RuntimeError(f"the server was silent for {SILENCE_S:g} s")
                for key, _ in ready:
                    key.data.take()

        try:
            go_on(time.perf_counter() + warm_up_s(seconds))
            tally.latencies_s.clear()
            first = Reading.now(server_pid)
            go_on(first.wall_s + seconds)
            answer = window(first, len(tally.latencies_s), server_pid)
            answer["median_s"] = statistics.median(tally.latencies_s)
            tally.over = True
            go_on(math.inf)
            return answer
        finally:
            for connection in connections:
                connection.socket.close()


def get_state(target: str, server_pid: int, seconds: float, in_flight: int, names: dict[str, Any]) -> dict[str, Any]:
    """So many GetStates in flight on one connection."""
    tally = Tally()
    headers = request_headers("GetState", target)
    request = pb.GetStateRequest(**names).SerializeToString()

    def caller() -> Caller:
        while not tally.over:
            started_s = time.perf_counter()
            if not pb.GetStateResponse.FromString((yield headers, request)).exists:
                raise RuntimeError("the server has no such record")
            tally.latencies_s.append(time.perf_counter() - started_s)

    return run([Connection(target, [caller() for _ in range(in_flight)])], tally, seconds, server_pid)


def reads(
    target: str, server_pid: int, seconds: float, in_flight: int, records: list[dict[str, Any]]
) -> dict[str, Any]:
    """Records in turn, by GetState, so many at once on one connection."""
    tally = Tally()
    headers, requests = request_headers("GetState", target), cycle(reads_of(records))

    def caller() -> Caller:
        while not tally.over:
            started_s = time.perf_counter()
            if not pb.GetStateResponse.FromString((yield headers, next(requests))).exists:
                raise RuntimeError("the server lacks a record")
            tally.latencies_s.append(time.perf_counter() - started_s)

    return run([Connection(target, [caller() for _ in range(in_flight)])], tally, seconds, server_pid)


def batches(
    target: str, server_pid: int, seconds: float, in_flight: int, records: list[dict[str, Any]]
) -> dict[str, Any]:
    """All records in each BatchGet, so many at once on one connection; what is counted is records."""
    tally = Tally()
    headers, request = request_headers("BatchGet", target), batch_of(records)

    def caller() -> Caller:
        first = yield headers, request
        if entries_in(first) != len(records):
            raise RuntimeError("the server lacks a record")
        while not tally.over:
            started_s = time.perf_counter()
            if len((yield headers, request)) != len(first):
                raise RuntimeError("one answer had more or fewer bytes than another")
            tally.latencies_s.append(time.perf_counter() - started_s)

    answer = run([Connection(target, [caller() for _ in range(in_flight)])], tally, seconds, server_pid)
    return answer | {"count": answer["count"] * len(records)}


def transactions(
    target: str, server_pid: int, seconds: float, first_client: int, clients: int, *, at_once: bool = False
) -> dict[str, Any]:
    """Clients with a connection each: begin, write, commit, and again; or all of it in one call."""
    tally = Tally()
    begin, write, commit = (request_headers(name, target) for name in ("BeginTransaction", "Write", "Commit"))
    transact = request_headers("Transact", target)

    def in_three(number: int) -> Caller:
        writes = writes_of(number)
        done = 0
        while not tally.over:
            started_s = time.perf_counter()
            txn = yield begin, b""
            yield write, txn + writes[done % KEYS_PER_CLIENT]
            yield commit, txn
            done += 1
            tally.latencies_s.append(time.perf_counter() - started_s)

    def in_one(number: int) -> Caller:
        requests = cycle(transacts_of(number))
        while not tally.over:
            started_s = time.perf_counter()
            yield transact, next(requests)
            tally.latencies_s.append(time.perf_counter() - started_s)

    caller = in_one if at_once else in_three
    numbers = range(first_client, first_client + clients)
    return run([Connection(target, [caller(number)]) for number in numbers], tally, seconds, server_pid)


if __name__ == "__main__":
    answer_jobs({"get_state": get_state, "reads": reads, "batches": batches, "transactions": transactions})
