"""An honest client in a process of its own: `python -m attacks.honest HOST:PORT [AUTHORITY]`, in the folder tools.

It reads commands from its input, a line each: after `start` it makes calls at a steady rate, after `stop` it prints,
as a JSON line, how long they took and which failed, and rests. On one connection (grpcio) it reads with GetState,
whether or not the reads before have been answered, so that a stall is seen by every call that is due in it; and makes
transactions, one after the other. And it makes new connections, as a client does that has just come. With the file of
an authority it speaks TLS; its new connections are then grpcio's, too.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc
from attrs import Factory, asdict, define
from google.protobuf.struct_pb2 import Struct

from attacks.attack import get_state
from attacks.channels import open_channel
from attacks.raw_http2 import SERVICE
from attacks.raw_peer import RawPeer
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["AGENT", "KEY", "Honest", "Watch"]

AGENT: Final = "honest"
KEY: Final = "state"
READ_EVERY_S: Final = 0.02
TRANSACTION_EVERY_S: Final = 0.1
STRANGER_EVERY_S: Final = 0.1
DEADLINE_S: Final = 10.0
FAILURES_TOLD: Final = 5
OK: Final = 0
OF_ITS_OWN: Final = [("grpc.use_local_subchannel_pool", 1)]
"""A channel that shares no connection with another."""


@define
class Watch:
    """What the honest client went through, between a start and a stop."""

    latencies_s: list[float] = Factory(list)
    failures: list[str] = Factory(list)
    stranger_latencies_s: list[float] = Factory(list)
    stranger_failures: list[str] = Factory(list)


class Honest:
    """The client: three threads that call between `start` and `stop`."""

    def __init__(self, address: str, authority: Path | None) -> None:
        self._address = address
        self._authority = authority
        self._channel = open_channel(address, authority)
        grpc.channel_ready_future(self._channel).result(timeout=DEADLINE_S)
        self._watch = Watch()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._reads = 0
        self._answered = threading.Semaphore(0)
        self._value = Struct()
        self._value.update({"note": "x" * 150})
        self._transaction()

    def start(self) -> None:
        """Begin to call."""
        self._watch = Watch()
        self._reads = 0
        self._stopping.clear()
        rates: list[tuple[float, Callable[[], None]]] = [
            (READ_EVERY_S, self._read),
            (TRANSACTION_EVERY_S, self._transaction),
            (STRANGER_EVERY_S, self._stranger if self._authority is None else self._stranger_with_tls),
        ]
        self._threads = [threading.Thread(target=self._steadily, args=rate) for rate in rates]
        for thread in self._threads:
            thread.start()

    def stop(self) -> Watch:
        """Let the last calls end; what happened since the start."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for _ in range(self._reads):
            self._answered.acquire()
        return self._watch

    def _steadily(self, every_s: float, call: Callable[[], None]) -> None:
        due_s = time.monotonic()
        while not self._stopping.wait(max(due_s - time.monotonic(), 0.0)):
            call()
            due_s = max(due_s + every_s, time.monotonic())

    def _read(self) -> None:
        request = pb.GetStateRequest(agent_id=AGENT, key=KEY).SerializeToString()
        started_s = time.monotonic()

        def done(read: grpc.Future) -> None:
            error = read.exception()
            if error is not None:
                self._watch.failures.append(_line(error))
            self._watch.latencies_s.append(time.monotonic() - started_s)
            self._answered.release()

        read = self._channel.unary_unary(SERVICE + "GetState").future(request, timeout=DEADLINE_S)
        read.add_done_callback(done)
        self._reads += 1

    def _transaction(self) -> None:
        try:
            begun = pb.BeginTransactionResponse.FromString(self._call("BeginTransaction", b""))
            write = pb.WriteRequest(txn_id=begun.txn_id, agent_id=AGENT, key=KEY, value=self._value)
            self._call("Write", write.SerializeToString())
            self._call("Commit", pb.CommitRequest(txn_id=begun.txn_id).SerializeToString())
        except grpc.RpcError as error:
            self._watch.failures.append(_line(error))

    def _call(self, name: str, request: bytes) -> bytes:
        started_s = time.monotonic()
        try:
            answer: bytes = self._channel.unary_unary(SERVICE + name)(request, timeout=DEADLINE_S)
            return answer
        finally:
            self._watch.latencies_s.append(time.monotonic() - started_s)

    def _stranger(self) -> None:
        started_s = time.monotonic()
        try:
            host, _, port = self._address.rpartition(":")
            with RawPeer((host, int(port))) as peer:
                status = peer.status(peer.call("GetState", get_state(AGENT, KEY)), DEADLINE_S)
                if status != OK:
                    how = "was closed" if peer.closed else "gave no answer in time"
                    self._watch.stranger_failures.append(f"a new connection {how}" if status is None else f"{status}")
        except OSError as error:
            self._watch.stranger_failures.append(_line(error))
        self._watch.stranger_latencies_s.append(time.monotonic() - started_s)

    def _stranger_with_tls(self) -> None:
        started_s = time.monotonic()
        request = pb.GetStateRequest(agent_id=AGENT, key=KEY).SerializeToString()
        try:
            with open_channel(self._address, self._authority, OF_ITS_OWN) as channel:
                channel.unary_unary(SERVICE + "GetState")(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            self._watch.stranger_failures.append(_line(error))
        self._watch.stranger_latencies_s.append(time.monotonic() - started_s)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def main() -> None:
    honest = Honest(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "start":
            honest.start()
            print("started", flush=True)
        else:
            watch = honest.stop()
            told = asdict(watch) | {"failed": len(watch.failures), "stranger_failed": len(watch.stranger_failures)}
            for name in ("failures", "stranger_failures"):
                told[name] = told[name][:FAILURES_TOLD]
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
